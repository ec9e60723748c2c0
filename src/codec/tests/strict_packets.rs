//! What the fixed header and the packets after CONNECT must not hold. Ids are those of 5.0.

use super::generate::KINDS;
use super::*;

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

/// `five` in 5.0 and `three` before, so that both lack only what a test is about.
fn each(five: &[u8], three: &[u8], mut test: impl FnMut(Version, &[u8])) {
    VERSIONS.iter().for_each(|&version| test(version, if version == Version::V5 { five } else { three }));
}

#[track_caller]
fn each_refused(five: &[u8], three: &[u8], code: ReasonCode) {
    for version in VERSIONS {
        refused(version, if version == Version::V5 { five } else { three }, code);
    }
}

#[test]
fn type_0_is_malformed_at_the_first_byte() {
    for first in 0..=0x0F {
        assert_eq!(frame(&[first], 100).expect_err("type 0").code, MALFORMED);
    }
}

#[test]
fn mqtt_2_1_3_1_v5_reserved_flags_are_malformed_at_the_first_byte() {
    for kind in KINDS {
        for flags in 0..=0x0F {
            let first = kind.first_byte() & 0xF0 | flags;
            let dup = matches!(first, 0x6A | 0x8A | 0xAA);
            let ok = match kind {
                PacketType::Publish => flags & 0x06 != 0x06,
                _ => first == kind.first_byte() || dup,
            };
            let framed = frame(&[first], 100);
            assert_eq!(framed.is_ok(), ok, "{first:#x}");
            assert_eq!(framed.err().map(|error| error.code), (!ok).then_some(MALFORMED));
        }
    }
}

#[test]
fn mqtt_3_6_1_1_v5_pubrel_flags() {
    for version in VERSIONS {
        accepted(version, &[0x62, 2, 0, 1]);
        refused(version, &[0x60, 2, 0, 1], MALFORMED);
    }
    refused(Version::V5, &[0x6A, 2, 0, 1], MALFORMED);
    refused(Version::V311, &[0x6A, 2, 0, 1], MALFORMED);
    // 3.1 re-sends PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP.
    accepted(Version::V31, &[0x6A, 2, 0, 1]);
}

#[test]
fn mqtt_3_8_1_1_v5_subscribe_flags() {
    each(b"\x82\x07\0\x01\0\0\x01a\0", b"\x82\x06\0\x01\0\x01a\0", |version, bytes| {
        accepted(version, bytes);
        refused(version, &[&[0x80], &bytes[1..]].concat(), MALFORMED);
        let dup = [&[0x8A], &bytes[1..]].concat();
        assert_eq!(decode(version, &dup).is_ok(), version == Version::V31);
    });
}

#[test]
fn mqtt_3_10_1_1_v5_unsubscribe_flags() {
    each(b"\xA2\x06\0\x01\0\0\x01a", b"\xA2\x05\0\x01\0\x01a", |version, bytes| {
        accepted(version, bytes);
        refused(version, &[&[0xA0], &bytes[1..]].concat(), MALFORMED);
        let dup = [&[0xAA], &bytes[1..]].concat();
        assert_eq!(decode(version, &dup).is_ok(), version == Version::V31);
    });
}

#[test]
fn mqtt_3_14_1_1_v5_disconnect_flags() {
    each_refused(&[0xE1, 0], &[0xE1, 0], MALFORMED);
}

#[test]
fn mqtt_3_15_1_1_v5_auth_flags() {
    refused(Version::V5, &[0xF1, 0], MALFORMED);
}

#[test]
fn a_remaining_length_has_at_most_4_bytes() {
    assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF], u32::MAX), Ok(Framed::Incomplete { total: None }));
    let most = Framed::Incomplete { total: Some(268_435_460) };
    assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], u32::MAX), Ok(most));
    // Malformed before its fifth byte is there.
    assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], u32::MAX).expect_err("too long").code, MALFORMED);
    refused(Version::V311, &[0xC0, 0x80, 0x80, 0x80, 0x80, 0], MALFORMED);
}

#[test]
fn mqtt_1_5_5_1_v5_a_remaining_length_is_as_short_as_can_be() {
    for bytes in [[0xC0, 0x80, 0].as_slice(), &[0xC0, 0x80, 0x80, 0], &[0xC0, 0x80, 0x80, 0x80, 0]] {
        refused(Version::V5, bytes, MALFORMED);
        // 3.x does not ask for it.
        assert_eq!(accepted(Version::V311, bytes), Packet::PingReq);
    }
    let long = [b"\x10\x8D\0".as_slice(), b"\0\x04MQTT\x05\x02\0\0\0\0\0"].concat();
    refused(Version::V311, &long, MALFORMED);
}

#[test]
fn mqtt_1_5_4_1_v5_strings_are_well_formed() {
    for bad in [b"\xC0\x80".as_slice(), b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"\x80", b"\xE2\x82"] {
        let topic = [&[0, bad.len() as u8], bad].concat();
        refused(Version::V311, &whole(0x30, &topic), MALFORMED);
        let filter = [&[0, 1], topic.as_slice(), &[0]].concat();
        refused(Version::V311, &whole(0x82, &filter), MALFORMED);
    }
}

#[test]
fn mqtt_1_5_4_2_v5_strings_have_no_nul() {
    each(b"\x30\x06\0\x03a\0b\0", b"\x30\x05\0\x03a\0b", |version, bytes| {
        refused(version, bytes, MALFORMED);
    });
    refused(Version::V311, b"\x82\x08\0\x01\0\x03a\0b\0", MALFORMED);
    refused(Version::V311, b"\xA2\x07\0\x01\0\x03a\0b", MALFORMED);
}

#[test]
fn mqtt_1_5_4_3_v5_a_byte_order_mark_is_kept() {
    let Packet::Publish(publish) = accepted(Version::V311, b"\x30\x06\0\x04\xEF\xBB\xBFa") else { panic!() };
    assert_eq!(publish.topic, "\u{FEFF}a");
}

#[test]
fn mqtt_3_3_1_4_v5_not_both_qos_bits() {
    VERSIONS.iter().for_each(|&version| {
        let error = refused(version, b"\x36\x05\0\x01a\0\x01", MALFORMED);
        assert_eq!(error.to_string(), "expected QoS 0, 1 or 2, got 3");
    });
}

#[test]
fn mqtt_3_3_1_2_v5_no_dup_with_qos_0() {
    each_refused(b"\x38\x04\0\x01a\0", b"\x38\x03\0\x01a", MALFORMED);
}

#[test]
fn mqtt_2_2_1_3_v5_packet_identifiers_are_not_0() {
    each_refused(b"\x32\x06\0\x01a\0\0\0", b"\x32\x05\0\x01a\0\0", PROTOCOL);
    each_refused(b"\x82\x07\0\0\0\0\x01a\0", b"\x82\x06\0\0\0\x01a\0", PROTOCOL);
    each_refused(b"\xA2\x06\0\0\0\0\x01a", b"\xA2\x05\0\0\0\x01a", PROTOCOL);
    for first in [0x40, 0x50, 0x62, 0x70] {
        each_refused(&[first, 2, 0, 0], &[first, 2, 0, 0], PROTOCOL);
    }
    each_refused(&[0x90, 4, 0, 0, 0, 0], &[0x90, 3, 0, 0, 0], PROTOCOL);
    each_refused(&[0xB0, 4, 0, 0, 0, 0], &[0xB0, 2, 0, 0], PROTOCOL);
}

#[test]
fn mqtt_3_3_2_2_v5_topic_names_have_no_wildcards() {
    for topic in [b"+".as_slice(), b"#", b"a/+/b", b"a/#", b"a+b", b"a-long-topic-name-without-levels#"] {
        for version in VERSIONS {
            let end: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            let body = [&[0, topic.len() as u8], topic, end].concat();
            refused(version, &whole(0x30, &body), ReasonCode::TOPIC_NAME_INVALID);
        }
    }
}

#[test]
fn mqtt_4_7_3_1_v5_topic_names_are_not_empty() {
    each_refused(b"\x30\x03\0\0\0", b"\x30\x02\0\0", PROTOCOL);
    accepted(Version::V5, b"\x30\x06\0\0\x03\x23\0\x01");
    refused(Version::V5, b"\x30\x05\0\0\x02\x01\x00", PROTOCOL);
}

#[test]
fn mqtt_3_8_3_2_v5_subscribe_has_a_filter() {
    each_refused(&[0x82, 3, 0, 1, 0], &[0x82, 2, 0, 1], PROTOCOL);
}

#[test]
fn mqtt_3_10_3_2_v5_unsubscribe_has_a_filter() {
    each_refused(&[0xA2, 3, 0, 1, 0], &[0xA2, 2, 0, 1], PROTOCOL);
}

fn subscribe(version: Version, options: u8) -> Vec<u8> {
    let start: &[u8] = if version == Version::V5 { &[0, 1, 0] } else { &[0, 1] };
    whole(0x82, &[start, &[0, 1, b'a', options]].concat())
}

#[test]
fn mqtt_3_8_3_5_v5_reserved_option_bits() {
    for options in [0x40, 0x80, 0xC0, 0xC1] {
        refused(Version::V5, &subscribe(Version::V5, options), MALFORMED);
    }
    accepted(Version::V5, &subscribe(Version::V5, 0x2E));
}

#[test]
fn mqtt_3_8_3_4_v311_reserved_option_bits() {
    for bit in 2..8 {
        refused(Version::V31, &subscribe(Version::V31, 1 << bit), MALFORMED);
        refused(Version::V311, &subscribe(Version::V311, 1 << bit), MALFORMED);
    }
}

#[test]
fn subscribe_qos_3_is_a_protocol_error() {
    for version in VERSIONS {
        refused(version, &subscribe(version, 3), PROTOCOL);
    }
}

#[test]
fn retain_handling_3_is_a_protocol_error() {
    for (options, ok) in [(0x00, true), (0x10, true), (0x20, true), (0x30, false)] {
        let bytes = subscribe(Version::V5, options);
        assert_eq!(decode(Version::V5, &bytes).map_err(|e| e.code).err(), (!ok).then_some(PROTOCOL));
    }
}

#[test]
fn every_packet_takes_only_the_reason_codes_of_its_table() {
    for code in 0..=0xFF {
        for (first, kind) in [
            (0x40, PacketType::PubAck),
            (0x50, PacketType::PubRec),
            (0x62, PacketType::PubRel),
            (0x70, PacketType::PubComp),
        ] {
            check(kind, code, &[first, 3, 0, 1, code]);
        }
        check(PacketType::ConnAck, code, &[0x20, 3, 0, code, 0]);
        check(PacketType::SubAck, code, &[0x90, 4, 0, 1, 0, code]);
        check(PacketType::UnsubAck, code, &[0xB0, 4, 0, 1, 0, code]);
        check(PacketType::Disconnect, code, &[0xE0, 1, code]);
        check(PacketType::Auth, code, &[0xF0, 6, code, 4, 0x15, 0, 1, b'm']);
    }
    fn check(kind: PacketType, code: u8, bytes: &[u8]) {
        match decode(Version::V5, bytes) {
            Ok(_) => assert!(ReasonCode(code).is_allowed_in(kind)),
            Err(error) => {
                assert_eq!(error.code, PROTOCOL);
                assert!(!ReasonCode(code).is_allowed_in(kind));
            }
        }
    }
}

/// How many codes the table in section 2.4 lists for each packet. For DISCONNECT it lists one more, 0x8C, than
/// section 3.14.2.1 does.
#[test]
fn the_table_of_reason_codes_is_complete() {
    let counts: Vec<usize> = KINDS
        .iter()
        .map(|&kind| ReasonCode::ALL.iter().filter(|code| code.is_allowed_in(kind)).count())
        .collect();
    assert_eq!(counts, [0, 22, 0, 9, 9, 2, 2, 0, 12, 0, 7, 0, 0, 30, 3]);
    assert_eq!(ReasonCode::ALL.len(), 43);
    for (number, code) in ReasonCode::ALL.iter().enumerate().skip(1) {
        assert!(ReasonCode::ALL[number - 1] < *code);
        assert_eq!(code.is_error(), code.0 >= 0x80);
    }
    assert_eq!(ReasonCode::TOPIC_FILTER_INVALID.to_string(), "Topic Filter invalid");
    assert_eq!(ReasonCode(0x7F).to_string(), "reason code 0x7f");
}

#[test]
fn suback_of_3_x_has_four_return_codes() {
    for code in 0..=0xFF {
        let ok = matches!(code, 0 | 1 | 2 | 0x80);
        assert_eq!(decode(Version::V311, &[0x90, 3, 0, 1, code]).is_ok(), ok, "{code}");
    }
}

#[test]
fn subacks_and_unsubacks_of_5_0_have_a_reason_code() {
    each_refused(&[0x90, 3, 0, 1, 0], &[0x90, 2, 0, 1], PROTOCOL);
    refused(Version::V5, &[0xB0, 3, 0, 1, 0], PROTOCOL);
    accepted(Version::V311, &[0xB0, 2, 0, 1]);
}

#[test]
fn packets_of_3_x_have_no_reason_codes_and_no_properties() {
    for version in [Version::V31, Version::V311] {
        for bytes in [
            [0x40, 3, 0, 1, 0].as_slice(),
            &[0x62, 4, 0, 1, 0, 0],
            &[0xB0, 3, 0, 1, 0],
            &[0xE0, 1, 0],
            &[0xE0, 2, 0, 0],
            &[0x20, 3, 0, 0, 0],
        ] {
            refused(version, bytes, MALFORMED);
        }
    }
}

#[test]
fn pings_are_empty() {
    for version in VERSIONS {
        refused(version, &[0xC0, 1, 0], MALFORMED);
        refused(version, &[0xD0, 1, 0], MALFORMED);
    }
}

#[test]
fn auth_is_a_protocol_error_before_5_0() {
    refused(Version::V31, &[0xF0, 0], PROTOCOL);
    refused(Version::V311, &[0xF0, 0], PROTOCOL);
    accepted(Version::V5, &[0xF0, 0]);
}

#[test]
fn auth_has_a_method() {
    refused(Version::V5, &[0xF0, 2, 0x18, 0], PROTOCOL);
    refused(Version::V5, &[0xF0, 1, 0x18], MALFORMED);
    refused(Version::V5, &[0xF0, 6, 0, 4, 0x1F, 0, 1, b'r'], PROTOCOL);
    accepted(Version::V5, &[0xF0, 2, 0, 0]);
}

#[test]
fn the_header_must_fit_the_bytes() {
    for bytes in [b"".as_slice(), b"\xC0", b"\xC0\x80", b"\xC0\x01", b"\xC0\0\0"] {
        refused(Version::V311, bytes, MALFORMED);
    }
}

#[test]
fn decode_publish_takes_nothing_else() {
    let error = decode_publish(Version::V311, &[0xC0, 0]).expect_err("a PINGREQ");
    assert_eq!(error.code, PROTOCOL);
    assert!(decode_publish(Version::V311, b"\x30\x03\0\x01a").is_ok());
}
