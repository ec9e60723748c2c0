//! What is encoded decodes to the same, and no part of it is taken for a packet.

use super::generate::{KINDS, Parts};
use super::*;

fn each_random_packet(seed: u64, rounds: usize, mut test: impl FnMut(Version, Packet<'_>, &[u8])) {
    let mut rng = Rng(seed);
    let mut bytes = Vec::new();
    for _ in 0..rounds {
        for version in VERSIONS {
            for kind in KINDS {
                let parts = Parts::random(&mut rng, kind, version);
                let Some(packet) = parts.packet(&mut rng, kind, version) else { continue };
                bytes.clear();
                packet.encode(version, &mut bytes);
                test(version, packet, &bytes);
            }
        }
    }
}

#[test]
fn a_packet_decodes_to_what_was_encoded() {
    let mut seen = [0; 16];
    each_random_packet(1, 300, |version, packet, bytes| {
        let decoded = accepted(version, bytes);
        assert_eq!(decoded, packet);
        assert_eq!(format!("{decoded:?}"), format!("{packet:?}"));
        assert_eq!(decoded.encoded_len(version), bytes.len());
        seen[usize::from(bytes[0] >> 4)] += 1;
        let mut again = Vec::new();
        decoded.encode(version, &mut again);
        assert_eq!(again, bytes);
        let Ok(Framed::Packet { header, total }) = frame(bytes, u32::MAX) else { panic!("{packet:?}") };
        assert_eq!((header, total), (if bytes.len() < 130 { 2 } else { header }, bytes.len()));
        if let Packet::Publish(publish) = decoded {
            assert_eq!(decode_publish(version, bytes), Ok(publish));
        }
    });
    assert!(seen[1..].iter().all(|&n| n >= 300), "{seen:?}");
}

#[test]
fn no_part_of_a_packet_is_a_packet() {
    each_random_packet(2, 6, |version, packet, bytes| {
        let Ok(Framed::Packet { header, .. }) = frame(bytes, u32::MAX) else { panic!("{packet:?}") };
        let step = 1 + bytes.len() / 300;
        for end in (0..bytes.len()).step_by(step) {
            let part = &bytes[..end];
            let total = match frame(part, u32::MAX) {
                Ok(Framed::Incomplete { total }) => total,
                other => panic!("{other:?} from {end} bytes of {packet:?}"),
            };
            assert_eq!(total, (end >= header).then_some(bytes.len()));
            assert!(decode(version, part).is_err());
        }
    });
}

/// The remaining length of each part is put right, so that the fields themselves are cut short.
#[test]
fn a_body_that_is_cut_short_never_decodes_to_the_same() {
    each_random_packet(3, 6, |version, packet, bytes| {
        let Ok(Framed::Packet { header, .. }) = frame(bytes, u32::MAX) else { panic!("{packet:?}") };
        let body = &bytes[header..];
        for end in (0..body.len()).step_by(1 + body.len() / 300) {
            let cut = whole(bytes[0], &body[..end]);
            assert_ne!(decode(version, &cut), Ok(packet));
        }
    });
}

#[test]
fn bytes_after_a_packet_are_not_part_of_it() {
    each_random_packet(4, 6, |version, _, bytes| {
        let more = [bytes, &[0]].concat();
        let Ok(Framed::Packet { total, .. }) = frame(&more, u32::MAX) else { panic!("framed") };
        assert_eq!(total, bytes.len());
        refused(version, &more, ReasonCode::MALFORMED_PACKET);
    });
}

#[test]
fn the_limit_counts_the_whole_packet() {
    each_random_packet(5, 6, |_, _, bytes| {
        let len = bytes.len() as u32;
        assert!(matches!(frame(bytes, len), Ok(Framed::Packet { .. })));
        let error = frame(&bytes[..bytes.len().min(5)], len - 1).expect_err("too large");
        assert_eq!(error.code, ReasonCode::PACKET_TOO_LARGE);
        assert_eq!(error.got, Got::Number(len));
    });
}

#[test]
fn publish_out_says_all_that_a_publish_can() {
    let ids = [1, 128, 268_435_455];
    let mut forward = PropertyBuf::new();
    assert!(forward.push(Property::ContentType("text")));
    assert!(forward.push(Property::UserProperty("k", "v")));
    let out = PublishOut {
        dup: true,
        qos: crate::message::QoS::ExactlyOnce,
        retain: true,
        packet_id: PacketId::new(0x1234),
        topic: "a/b",
        alias: Some(9),
        expiry_s: Some(60),
        subscription_ids: &ids,
        forward: forward.as_properties().raw(),
        payload: &[b'x'; 300],
    };
    for version in VERSIONS {
        let mut bytes = vec![0xEE];
        encode_publish(&mut bytes, version, &out);
        assert_eq!(bytes.len(), 1 + publish_len(version, &out));
        let Packet::Publish(publish) = accepted(version, &bytes[1..]) else { panic!("a PUBLISH") };
        assert!(publish.dup && publish.retain);
        assert_eq!(
            (publish.topic, publish.payload, publish.packet_id),
            (out.topic, out.payload, out.packet_id)
        );
        let properties: Vec<Property<'_>> = publish.properties.iter().collect();
        if version != Version::V5 {
            assert_eq!(properties, []);
            continue;
        }
        let mut expected = vec![Property::TopicAlias(9), Property::MessageExpiryInterval(60)];
        expected.extend(ids.map(Property::SubscriptionIdentifier));
        expected.extend(forward.as_properties());
        assert_eq!(properties, expected);
    }
}

#[test]
fn acks_and_pingresp_are_the_same_as_packets() {
    let id = PacketId::new(77).expect("not 0");
    for version in VERSIONS {
        for (kind, code) in [
            (AckKind::PubAck, ReasonCode::SUCCESS),
            (AckKind::PubAck, ReasonCode::NO_MATCHING_SUBSCRIBERS),
            (AckKind::PubRec, ReasonCode::QUOTA_EXCEEDED),
            (AckKind::PubRel, ReasonCode::PACKET_ID_NOT_FOUND),
            (AckKind::PubComp, ReasonCode::SUCCESS),
        ] {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            encode_ack(&mut short, version, kind, id, code);
            Packet::Ack(Ack { kind, packet_id: id, code, properties: Properties::EMPTY })
                .encode(version, &mut long);
            assert_eq!(short, long);
        }
        let (mut short, mut long) = (Vec::new(), Vec::new());
        encode_pingresp(&mut short);
        Packet::PingResp.encode(version, &mut long);
        assert_eq!(short, long);
    }
}

#[test]
fn suback_codes_of_5_0_become_128_in_3_1_1() {
    let codes = [0, 1, 2, 0x80, 0x87, 0x97];
    let suback = SubAck { packet_id: PacketId::MIN, properties: Properties::EMPTY, codes: &codes };
    let mut bytes = Vec::new();
    Packet::SubAck(suback).encode(Version::V311, &mut bytes);
    assert_eq!(bytes, [0x90, 8, 0, 1, 0, 1, 2, 0x80, 0x80, 0x80]);
}

#[test]
fn connack_codes_of_5_0_become_return_codes_in_3_1_1() {
    for code in ReasonCode::ALL.iter().copied().filter(|code| code.is_allowed_in(PacketType::ConnAck)) {
        let connack = ConnAck { session_present: false, code, properties: Properties::EMPTY };
        let mut bytes = Vec::new();
        Packet::ConnAck(connack).encode(Version::V311, &mut bytes);
        assert_eq!(bytes, [0x20, 2, 0, code.connack_return_code()]);
        let Packet::ConnAck(back) = accepted(Version::V311, &bytes) else { panic!("a CONNACK") };
        assert_eq!(back.code.is_error(), code.is_error());
        assert_eq!(back.code.connack_return_code(), code.connack_return_code());
    }
}

#[test]
fn a_publish_that_cannot_be_has_a_length_above_the_limit() {
    let payload = vec![0; crate::limits::REMAINING_LENGTH_MAX as usize];
    let out = PublishOut {
        dup: false,
        qos: crate::message::QoS::AtMostOnce,
        retain: false,
        packet_id: None,
        topic: "a",
        alias: None,
        expiry_s: None,
        subscription_ids: &[],
        forward: &[],
        payload: &payload,
    };
    assert!(publish_len(Version::V311, &out) > crate::limits::PACKET_BYTES_MAX as usize);
    let fits = PublishOut { payload: &payload[3..], ..out };
    assert_eq!(publish_len(Version::V311, &fits), crate::limits::PACKET_BYTES_MAX as usize);
}

/// Table 1-1 of 5.0.
#[test]
fn variable_byte_integers_grow_where_the_standard_says() {
    for (value, len) in [
        (0, 1),
        (127, 1),
        (128, 2),
        (16_383, 2),
        (16_384, 3),
        (2_097_151, 3),
        (2_097_152, 4),
        (268_435_455, 4),
    ] {
        let mut bytes = Vec::new();
        bytes.varint(value);
        assert_eq!((bytes.len(), super::super::write::varint_len(value)), (len, len));
        let mut from = super::super::read::Reader::new(&bytes);
        assert_eq!(from.varint(), Ok(value as u32));
        assert!(from.is_empty());
    }
}
