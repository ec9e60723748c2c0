//! What CONNECT and CONNACK must not hold. Ids are those of 5.0 where a name says v5, else of 3.1.1.

use super::*;

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

/// A CONNECT of this version with these flags; `rest` follows the keep alive (in 5.0: the properties).
fn connect(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let start: &[u8] = match version {
        Version::V31 => b"\0\x06MQIsdp\x03",
        Version::V311 => b"\0\x04MQTT\x04",
        Version::V5 => b"\0\x04MQTT\x05",
    };
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    whole(0x10, &[start, &[flags, 0, 10], properties, rest].concat())
}

/// A will without properties, in any version.
fn with_will(version: Version, flags: u8) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    connect(version, flags, &[b"\0\x01c".as_slice(), properties, b"\0\x01t\0\x01p"].concat())
}

#[test]
fn mqtt_3_1_2_3_v5_the_reserved_flag_is_0() {
    for version in [Version::V311, Version::V5] {
        accepted(version, &connect(version, 0x02, b"\0\x01c"));
        let error = refused(version, &connect(version, 0x03, b"\0\x01c"), MALFORMED);
        assert_eq!(error.connect_version_hint(), Some(version));
    }
    accepted(Version::V31, &connect(Version::V31, 0x03, b"\0\x01c"));
}

#[test]
fn mqtt_3_1_2_11_v5_no_will_qos_without_a_will() {
    for version in VERSIONS {
        for flags in [0x08, 0x10, 0x18] {
            refused(version, &connect(version, flags, b"\0\x01c"), MALFORMED);
        }
    }
}

#[test]
fn mqtt_3_1_2_13_v5_no_will_retain_without_a_will() {
    for version in VERSIONS {
        refused(version, &connect(version, 0x20, b"\0\x01c"), MALFORMED);
    }
}

#[test]
fn mqtt_3_1_2_12_v5_will_qos_is_0_1_or_2() {
    for version in VERSIONS {
        for flags in [0x04, 0x0C, 0x14, 0x34] {
            accepted(version, &with_will(version, flags));
        }
        let error = refused(version, &with_will(version, 0x1C), MALFORMED);
        assert_eq!(error.to_string(), "expected Will QoS 0, 1 or 2, got 3");
    }
}

#[test]
fn mqtt_3_1_2_9_v5_a_will_is_present_with_its_flag() {
    for version in VERSIONS {
        refused(version, &connect(version, 0x04, b"\0\x01c"), MALFORMED);
        refused(version, &with_will(version, 0x00), MALFORMED);
    }
}

#[test]
fn mqtt_3_1_2_22_v311_no_password_without_a_user_name() {
    for version in [Version::V31, Version::V311] {
        refused(version, &connect(version, 0x42, b"\0\x01c\0\x01p"), MALFORMED);
    }
    let bytes = connect(Version::V5, 0x42, b"\0\x01c\0\x01p");
    let Packet::Connect(connect) = accepted(Version::V5, &bytes) else { panic!("a CONNECT") };
    assert_eq!((connect.username, connect.password), (None, Some(b"p".as_slice())));
}

#[test]
fn mqtt_3_1_2_16_to_19_v5_fields_follow_their_flags() {
    for version in VERSIONS {
        accepted(version, &connect(version, 0xC2, b"\0\x01c\0\x01u\0\x01p"));
        for (flags, rest) in [(0x02, b"\0\x01c\0\x01u".as_slice()), (0x82, b"\0\x01c\0\x01u\0\x01p")] {
            refused(version, &connect(version, flags, rest), MALFORMED);
        }
    }
    for version in [Version::V311, Version::V5] {
        refused(version, &connect(version, 0x82, b"\0\x01c"), MALFORMED);
        refused(version, &connect(version, 0xC2, b"\0\x01c\0\x01u"), MALFORMED);
    }
}

/// 3.1, section 3.1: the remaining length takes precedence over the two flags.
#[test]
fn v31_a_user_name_may_be_missing_at_the_end() {
    let bytes = connect(Version::V31, 0xC2, b"\0\x01c");
    let Packet::Connect(found) = accepted(Version::V31, &bytes) else { panic!("a CONNECT") };
    assert_eq!((found.username, found.password), (None, None));
    let bytes = connect(Version::V31, 0xC2, b"\0\x01c\0\x01u");
    let Packet::Connect(found) = accepted(Version::V31, &bytes) else { panic!("a CONNECT") };
    assert_eq!((found.username, found.password), (Some("u"), None));
    refused(Version::V31, &connect(Version::V31, 0xC2, b"\0\x01c\0"), MALFORMED);
}

#[test]
fn mqtt_3_1_3_3_v5_the_client_identifier_is_present() {
    for version in VERSIONS {
        refused(version, &connect(version, 0x02, b""), MALFORMED);
        accepted(version, &connect(version, 0x02, b"\0\0"));
    }
}

#[test]
fn mqtt_3_1_3_4_v5_the_client_identifier_is_utf_8() {
    for version in VERSIONS {
        refused(version, &connect(version, 0x02, b"\0\x01\xFF"), MALFORMED);
        refused(version, &connect(version, 0x02, b"\0\x01\0"), MALFORMED);
    }
}

#[test]
fn mqtt_3_1_3_11_v5_the_will_topic_is_utf_8() {
    for (will, ok) in
        [(b"\0\x01t\0\0".as_slice(), true), (b"\0\x01\xC0\0\0", false), (b"\0\x01\0\0\0", false)]
    {
        let bytes = connect(Version::V311, 0x04, &[b"\0\x01c".as_slice(), will].concat());
        assert_eq!(decode(Version::V311, &bytes).is_ok(), ok);
    }
}

#[test]
fn mqtt_3_1_3_12_v5_the_user_name_is_utf_8() {
    for version in VERSIONS {
        accepted(version, &connect(version, 0x82, b"\0\x01c\0\x02\xC3\xA4"));
        refused(version, &connect(version, 0x82, b"\0\x01c\0\x02\xA4\xC3"), MALFORMED);
    }
}

#[test]
fn mqtt_3_1_2_1_v5_another_protocol_name_is_unsupported() {
    for name in [b"\0\x04mqtt\x05".as_slice(), b"\0\0\x04", b"\0\x05MQTT5\x05", b"\0\x06MQIsdq\x03"] {
        let bytes = whole(0x10, &[name, b"\x02\0\0\0\0\0"].concat());
        let error = refused(Version::V5, &bytes, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
        assert_eq!(error.connect_version_hint(), None);
    }
}

#[test]
fn mqtt_3_1_2_2_another_level_is_unsupported() {
    for (start, hint) in [
        (b"\0\x04MQTT\x03".as_slice(), Version::V311),
        (b"\0\x04MQTT\x00", Version::V311),
        (b"\0\x04MQTT\x06", Version::V5),
        (b"\0\x04MQTT\x85", Version::V5),
        (b"\0\x06MQIsdp\x04", Version::V31),
        (b"\0\x06MQIsdp\x05", Version::V31),
    ] {
        // What follows may have any form in a version that is not known.
        let bytes = whole(0x10, &[start, b"\xFF"].concat());
        let error = refused(Version::V5, &bytes, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
        assert_eq!(error.connect_version_hint(), Some(hint));
        assert_eq!(error.code.connack_return_code(), 1);
    }
}

#[test]
fn a_will_of_5_0_has_properties_of_its_own() {
    let will = b"\0\x01c\x05\x18\0\0\0\x07\0\x01t\0\x01p";
    let bytes = connect(Version::V5, 0x06, will);
    let Packet::Connect(found) = accepted(Version::V5, &bytes) else { panic!("a CONNECT") };
    let will = found.will.expect("a will");
    assert_eq!(will.properties.iter().collect::<Vec<_>>(), [Property::WillDelayInterval(7)]);
    assert!(found.properties.is_empty());
    let twice = b"\0\x01c\x0A\x18\0\0\0\x07\x18\0\0\0\x07\0\x01t\0\x01p";
    refused(Version::V5, &connect(Version::V5, 0x06, twice), PROTOCOL);
}

#[test]
fn mqtt_3_2_2_1_v5_connack_flags_are_reserved() {
    for version in VERSIONS {
        for flags in [2, 0x80, 0xFF] {
            let rest: &[u8] = if version == Version::V5 { &[flags, 0, 0] } else { &[flags, 0] };
            refused(version, &whole(0x20, rest), MALFORMED);
        }
    }
}

#[test]
fn mqtt_3_2_2_6_v5_no_session_present_with_an_error() {
    refused(Version::V5, &[0x20, 3, 1, 0x87, 0], PROTOCOL);
    refused(Version::V311, &[0x20, 2, 1, 5], PROTOCOL);
}

#[test]
fn mqtt_3_2_2_8_v5_connack_has_a_connect_reason_code() {
    for code in [0x01, 0x04, 0x91, 0x92, 0xA2, 0x7F, 0xFF] {
        refused(Version::V5, &[0x20, 3, 0, code, 0], PROTOCOL);
    }
    refused(Version::V311, &[0x20, 2, 0, 6], PROTOCOL);
}
