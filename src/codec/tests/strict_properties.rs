//! Which properties may stand where, how often, and with which values. Ids are those of 5.0.

use super::super::packet_type::{self as place, Places};
use super::super::property::{AUTHENTICATION_DATA, IDS, Kind, row};
use super::generate::random_property;
use super::*;

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

/// Every packet that has properties, and the will, each with these.
fn packets_with(raw: &[u8]) -> Vec<(Places, Vec<u8>)> {
    let mut own = Vec::new();
    own.varint(raw.len());
    own.extend_from_slice(raw);
    let with = |first, start: &[u8], end: &[u8]| whole(first, &[start, &own, end].concat());
    let mut auth = b"\x15\0\x01m".to_vec();
    if raw.first() == Some(&0x15) {
        auth.clear();
    }
    auth.extend_from_slice(raw);
    let mut auth_len = vec![0x18];
    auth_len.varint(auth.len());
    vec![
        (place::CONNECT, with(0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\0")),
        (place::WILL, with(0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\0", b"\0\x01t\0\0")),
        (place::CONNACK, with(0x20, b"\0\0", b"")),
        (place::PUBLISH, with(0x30, b"\0\x01a", b"")),
        (place::PUBACK, with(0x40, b"\0\x01\0", b"")),
        (place::PUBREC, with(0x50, b"\0\x01\0", b"")),
        (place::PUBREL, with(0x62, b"\0\x01\0", b"")),
        (place::PUBCOMP, with(0x70, b"\0\x01\0", b"")),
        (place::SUBSCRIBE, with(0x82, b"\0\x01", b"\0\x01a\0")),
        (place::SUBACK, with(0x90, b"\0\x01", b"\0")),
        (place::UNSUBSCRIBE, with(0xA2, b"\0\x01", b"\0\x01a")),
        (place::UNSUBACK, with(0xB0, b"\0\x01", b"\0")),
        (place::DISCONNECT, with(0xE0, b"\0", b"")),
        (place::AUTH, whole(0xF0, &[auth_len, auth].concat())),
    ]
}

/// Section 2.2.2.2 as its table has it: identifier, and the letters of the packets in the order of
/// [`packets_with`].
const STANDARD: [(u8, &str); 27] = [
    (0x01, "-wP"),
    (0x02, "-wP"),
    (0x03, "-wP"),
    (0x08, "-wP"),
    (0x09, "-wP"),
    (0x0B, "---P----S"),
    (0x11, "C-A---------D"),
    (0x12, "--A"),
    (0x13, "--A"),
    (0x15, "C-A----------H"),
    (0x16, "C-A----------H"),
    (0x17, "C"),
    (0x18, "-w"),
    (0x19, "C"),
    (0x1A, "--A"),
    (0x1C, "--A---------D"),
    (0x1F, "--A-acrl-s-uDH"),
    (0x21, "C-A"),
    (0x22, "C-A"),
    (0x23, "---P"),
    (0x24, "--A"),
    (0x25, "--A"),
    (0x26, "CwAPacrlSsUuDH"),
    (0x27, "C-A"),
    (0x28, "--A"),
    (0x29, "--A"),
    (0x2A, "--A"),
];

fn standard_has(id: u8, packet: usize) -> bool {
    let letters = STANDARD.iter().find(|(of, _)| *of == id).expect("in the standard").1;
    let letter = b"CwAPacrlSsUuDH"[packet];
    letters.as_bytes().contains(&letter)
}

#[test]
fn properties_stand_where_the_standard_lists_them() {
    assert_eq!(IDS, STANDARD.map(|(id, _)| id));
    let mut rng = Rng(7);
    for &id in IDS.iter().filter(|&&id| id != AUTHENTICATION_DATA) {
        let raw = random_property(&mut rng, id);
        for (number, (place, bytes)) in packets_with(&raw).into_iter().enumerate() {
            assert_eq!(
                row(id).is_some_and(|row| row.places & place != 0),
                standard_has(id, number),
                "{id:#x}"
            );
            match decode(Version::V5, &bytes) {
                Ok(_) => assert!(standard_has(id, number), "{id:#x} in {bytes:x?}"),
                Err(error) => {
                    assert!(!standard_has(id, number), "{id:#x} in {bytes:x?}: {error}");
                    assert_eq!(error.code, MALFORMED);
                }
            }
        }
    }
}

#[test]
fn properties_stand_once_except_user_properties_and_subscription_identifiers_in_publish() {
    let mut rng = Rng(8);
    for &id in IDS.iter().filter(|&&id| id != AUTHENTICATION_DATA) {
        let raw = [random_property(&mut rng, id), random_property(&mut rng, id)].concat();
        for (number, (place, bytes)) in packets_with(&raw).into_iter().enumerate() {
            if !standard_has(id, number) {
                continue;
            }
            if id == 0x26 || id == 0x0B && place == place::PUBLISH {
                accepted(Version::V5, &bytes);
            } else {
                refused(Version::V5, &bytes, PROTOCOL);
            }
        }
    }
}

#[test]
fn unknown_properties_are_malformed() {
    for id in (0..=0xFF).filter(|id| !IDS.contains(id)) {
        for (_, bytes) in packets_with(&[id, 0, 0, 0, 0]) {
            refused(Version::V5, &bytes, MALFORMED);
        }
    }
}

/// The packet of a place with these properties, refused with a code or accepted.
#[track_caller]
fn judged(place: Places, raw: &[u8], code: Option<ReasonCode>) {
    let packets = packets_with(raw);
    let (_, bytes) = packets.iter().find(|(of, _)| *of == place).expect("in the list");
    match code {
        Some(code) => {
            refused(Version::V5, bytes, code);
        }
        None => {
            accepted(Version::V5, bytes);
        }
    }
}

#[test]
fn booleans_are_0_or_1() {
    for id in [0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A] {
        let row = row(id).expect("in the table");
        assert_eq!(row.fields, [Kind::Byte]);
        let place = row.places & row.places.wrapping_neg();
        judged(place, &[id, 0], None);
        judged(place, &[id, 1], None);
        judged(place, &[id, 2], Some(PROTOCOL));
        judged(place, &[id, 0xFF], Some(PROTOCOL));
    }
}

#[test]
fn receive_maximum_is_not_0() {
    for place in [place::CONNECT, place::CONNACK] {
        judged(place, &[0x21, 0, 0], Some(PROTOCOL));
        judged(place, &[0x21, 0, 1], None);
    }
}

#[test]
fn maximum_packet_size_is_not_0() {
    for place in [place::CONNECT, place::CONNACK] {
        judged(place, &[0x27, 0, 0, 0, 0], Some(PROTOCOL));
        judged(place, &[0x27, 0, 0, 0, 1], None);
    }
}

#[test]
fn mqtt_3_3_2_8_v5_topic_alias_is_not_0() {
    judged(place::PUBLISH, &[0x23, 0, 0], Some(ReasonCode::TOPIC_ALIAS_INVALID));
    judged(place::PUBLISH, &[0x23, 0, 1], None);
}

#[test]
fn subscription_identifiers_are_from_1_to_268_435_455() {
    for place in [place::PUBLISH, place::SUBSCRIBE] {
        judged(place, &[0x0B, 0], Some(PROTOCOL));
        judged(place, &[0x0B, 1], None);
        judged(place, &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], None);
        judged(place, &[0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], Some(MALFORMED));
    }
}

#[test]
fn mqtt_1_5_5_1_v5_variable_byte_integers_are_as_short_as_can_be() {
    judged(place::SUBSCRIBE, &[0x0B, 0x81, 0x00], Some(MALFORMED));
    judged(place::SUBSCRIBE, &[0x0B, 0xFF, 0x80, 0x00], Some(MALFORMED));
    judged(place::SUBSCRIBE, &[0x0B, 0x80, 0x01], None);
    refused(Version::V5, &[0x30, 5, 0, 1, b'a', 0x80, 0], MALFORMED);
}

#[test]
fn mqtt_3_3_2_14_v5_a_response_topic_has_no_wildcards() {
    for place in [place::PUBLISH, place::WILL] {
        judged(place, b"\x08\0\x01a", None);
        judged(place, b"\x08\0\x01+", Some(PROTOCOL));
        judged(place, b"\x08\0\x03a/#", Some(PROTOCOL));
        judged(place, b"\x08\0\0", Some(PROTOCOL));
    }
}

#[test]
fn mqtt_3_3_2_13_v5_a_response_topic_is_utf_8() {
    judged(place::PUBLISH, b"\x08\0\x01\xFF", Some(MALFORMED));
    judged(place::PUBLISH, b"\x08\0\x01\0", Some(MALFORMED));
}

#[test]
fn mqtt_3_3_2_19_v5_a_content_type_is_utf_8() {
    judged(place::PUBLISH, b"\x03\0\x01\xFF", Some(MALFORMED));
}

#[test]
fn mqtt_1_5_7_1_v5_both_strings_of_a_user_property_are_utf_8() {
    judged(place::PUBLISH, b"\x26\0\x01k\0\x01v", None);
    judged(place::PUBLISH, b"\x26\0\x01\xFF\0\x01v", Some(MALFORMED));
    judged(place::PUBLISH, b"\x26\0\x01k\0\x01\xFF", Some(MALFORMED));
    judged(place::PUBLISH, b"\x26\0\x01k\0\x01\0", Some(MALFORMED));
}

#[test]
fn authentication_data_needs_a_method() {
    for place in [place::CONNECT, place::CONNACK] {
        judged(place, b"\x16\0\x01d", Some(PROTOCOL));
        judged(place, b"\x16\0\x01d\x15\0\x01m", None);
        judged(place, b"\x15\0\x01m\x16\0\x01d", None);
    }
}

#[test]
fn properties_end_where_their_length_says() {
    // One byte more or less than the property has.
    refused(Version::V5, b"\x30\x06\0\x01a\x02\x23\0", MALFORMED);
    refused(Version::V5, b"\x30\x08\0\x01a\x04\x23\0\x01\0", MALFORMED);
    refused(Version::V5, b"\x30\x06\0\x01a\x04\x23\0", MALFORMED);
    // PUBLISH has no property length at all [MQTT-2.2.2-1 of 5.0].
    refused(Version::V5, b"\x30\x03\0\x01a", MALFORMED);
}
