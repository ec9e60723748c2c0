//! Bytes from the figures of the standard, both ways.

use super::*;
use crate::message::QoS;

/// Decodes to `packet`, and `packet` encodes to the bytes.
#[track_caller]
fn golden(version: Version, bytes: &[u8], packet: Packet<'_>) {
    assert_eq!(accepted(version, bytes), packet);
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    assert_eq!(out, bytes);
    assert_eq!(packet.encoded_len(version), bytes.len());
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

fn properties(of: &[Property<'_>]) -> PropertyBuf {
    let mut buf = PropertyBuf::new();
    assert!(of.iter().all(|property| buf.push(*property)));
    buf
}

/// The variable header of figure 3-6 of both standards, with a payload.
fn connect(version: Version, of: Properties<'_>) -> Connect<'_> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_s: 10,
        client_id: "id",
        will: Some(Will {
            topic: "w/t",
            payload: b"\0w",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
        }),
        username: Some("u"),
        password: Some(b"p"),
        properties: of,
    }
}

#[test]
fn connect_3_1() {
    let bytes = whole(0x10, b"\0\x06MQIsdp\x03\xCE\0\x0A\0\x02id\0\x03w/t\0\x02\0w\0\x01u\0\x01p");
    golden(Version::V31, &bytes, Packet::Connect(connect(Version::V31, Properties::EMPTY)));
}

#[test]
fn connect_3_1_1() {
    let bytes = whole(0x10, b"\0\x04MQTT\x04\xCE\0\x0A\0\x02id\0\x03w/t\0\x02\0w\0\x01u\0\x01p");
    golden(Version::V311, &bytes, Packet::Connect(connect(Version::V311, Properties::EMPTY)));
}

#[test]
fn connect_5_0() {
    let expiry = properties(&[Property::SessionExpiryInterval(10)]);
    let body = b"\0\x04MQTT\x05\xCE\0\x0A\x05\x11\0\0\0\x0A\0\x02id\0\0\x03w/t\0\x02\0w\0\x01u\0\x01p";
    golden(Version::V5, &whole(0x10, body), Packet::Connect(connect(Version::V5, expiry.as_properties())));
}

#[test]
fn a_connect_says_its_version_itself() {
    let bytes = whole(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\0");
    for version in VERSIONS {
        let Packet::Connect(connect) = accepted(version, &bytes) else { panic!("a CONNECT") };
        assert_eq!((connect.version, connect.clean_start, connect.client_id), (Version::V5, true, ""));
    }
}

#[test]
fn a_bridge_of_3_x_sets_bit_7_of_the_level() {
    let plain = Connect {
        bridge: true,
        will: None,
        username: None,
        password: None,
        ..connect(Version::V311, Properties::EMPTY)
    };
    golden(Version::V311, &whole(0x10, b"\0\x04MQTT\x84\x02\0\x0A\0\x02id"), Packet::Connect(plain));
    let old = Connect { version: Version::V31, ..plain };
    golden(Version::V31, &whole(0x10, b"\0\x06MQIsdp\x83\x02\0\x0A\0\x02id"), Packet::Connect(old));
}

#[test]
fn connack() {
    let (code, none) = (ReasonCode::SUCCESS, Properties::EMPTY);
    let accepted = ConnAck { session_present: true, code, properties: none };
    golden(Version::V311, &[0x20, 2, 1, 0], Packet::ConnAck(accepted));
    golden(Version::V5, &[0x20, 3, 1, 0, 0], Packet::ConnAck(accepted));
    let code = ReasonCode::NOT_AUTHORIZED;
    let refused = ConnAck { session_present: false, code, properties: none };
    golden(Version::V31, &[0x20, 2, 0, 5], Packet::ConnAck(refused));
    golden(Version::V5, &[0x20, 3, 0, 0x87, 0], Packet::ConnAck(refused));
}

/// The example of section 3.3.2: topic `a/b`, packet identifier 10.
#[test]
fn publish() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: Some(id(10)),
        properties: Properties::EMPTY,
        payload: b"hi",
    };
    for version in [Version::V31, Version::V311] {
        golden(version, b"\x32\x09\0\x03a/b\0\x0Ahi", Packet::Publish(publish));
    }
    golden(Version::V5, b"\x32\x0A\0\x03a/b\0\x0A\0hi", Packet::Publish(publish));
    let again = Publish { dup: true, qos: QoS::ExactlyOnce, retain: true, ..publish };
    golden(Version::V311, b"\x3D\x09\0\x03a/b\0\x0Ahi", Packet::Publish(again));
    let once = Publish { qos: QoS::AtMostOnce, packet_id: None, payload: b"", ..publish };
    golden(Version::V311, b"\x30\x05\0\x03a/b", Packet::Publish(once));
    let alias = properties(&[Property::TopicAlias(2)]);
    let aliased = Publish { topic: "", properties: alias.as_properties(), ..once };
    golden(Version::V5, b"\x30\x06\0\0\x03\x23\0\x02", Packet::Publish(aliased));
}

#[test]
fn acks() {
    for (first, kind) in
        [(0x40, AckKind::PubAck), (0x50, AckKind::PubRec), (0x62, AckKind::PubRel), (0x70, AckKind::PubComp)]
    {
        let code = ReasonCode::SUCCESS;
        let ack = Ack { kind, packet_id: id(0x0A0B), code, properties: Properties::EMPTY };
        for version in VERSIONS {
            golden(version, &[first, 2, 0x0A, 0x0B], Packet::Ack(ack));
        }
        let reason = properties(&[Property::ReasonString("r")]);
        let ack = Ack { properties: reason.as_properties(), ..ack };
        golden(Version::V5, &[first, 8, 0x0A, 0x0B, 0, 4, 0x1F, 0, 1, b'r'], Packet::Ack(ack));
    }
    let (kind, code) = (AckKind::PubRel, ReasonCode::PACKET_ID_NOT_FOUND);
    let ack = Ack { kind, packet_id: id(1), code, properties: Properties::EMPTY };
    golden(Version::V5, &[0x62, 3, 0, 1, 0x92], Packet::Ack(ack));
    assert_eq!(accepted(Version::V5, &[0x62, 4, 0, 1, 0x92, 0]), Packet::Ack(ack));
}

/// The example of section 3.8.3: `a/b` with QoS 1, `c/d` with QoS 2, packet identifier 10.
#[test]
fn subscribe() {
    let qos = |qos| SubscribeOptions { qos, ..SubscribeOptions::default() };
    let filters = [("a/b", qos(QoS::AtLeastOnce)), ("c/d", qos(QoS::ExactlyOnce))];
    let (packet_id, filters) = (id(10), Filters::new(&filters));
    let subscribe = Subscribe { packet_id, properties: Properties::EMPTY, filters };
    for version in [Version::V31, Version::V311] {
        let bytes = whole(0x82, b"\0\x0A\0\x03a/b\x01\0\x03c/d\x02");
        golden(version, &bytes, Packet::Subscribe(subscribe));
        let Packet::Subscribe(subscribe) = accepted(version, &bytes) else { panic!("a SUBSCRIBE") };
        assert_eq!((subscribe.filters.len(), subscribe.filters.iter().len()), (2, 2));
    }
    let number = properties(&[Property::SubscriptionIdentifier(300)]);
    let all = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = [("#", all)];
    let filters = Filters::new(&filters);
    let subscribe = Subscribe { packet_id, properties: number.as_properties(), filters };
    let bytes = whole(0x82, b"\0\x0A\x03\x0B\xAC\x02\0\x01#\x2E");
    golden(Version::V5, &bytes, Packet::Subscribe(subscribe));
}

#[test]
fn suback() {
    let suback = SubAck { packet_id: id(10), properties: Properties::EMPTY, codes: &[0, 2, 0x80] };
    golden(Version::V311, &[0x90, 5, 0, 10, 0, 2, 0x80], Packet::SubAck(suback));
    golden(Version::V5, &[0x90, 6, 0, 10, 0, 0, 2, 0x80], Packet::SubAck(suback));
}

#[test]
fn unsubscribe() {
    let filters = ["a/b", "c/d"];
    let filters = Topics::new(&filters);
    let packet = Unsubscribe { packet_id: id(10), properties: Properties::EMPTY, filters };
    golden(Version::V311, &whole(0xA2, b"\0\x0A\0\x03a/b\0\x03c/d"), Packet::Unsubscribe(packet));
    golden(Version::V5, &whole(0xA2, b"\0\x0A\0\0\x03a/b\0\x03c/d"), Packet::Unsubscribe(packet));
    let bytes = whole(0xA2, b"\0\x0A\0\x03a/b\0\x03c/d");
    let Packet::Unsubscribe(packet) = accepted(Version::V311, &bytes) else { panic!("an UNSUBSCRIBE") };
    assert_eq!((packet.filters.len(), packet.filters.iter().len()), (2, 2));
}

#[test]
fn unsuback() {
    let unsuback = UnsubAck { packet_id: id(10), properties: Properties::EMPTY, codes: &[] };
    golden(Version::V311, &[0xB0, 2, 0, 10], Packet::UnsubAck(unsuback));
    golden(
        Version::V5,
        &[0xB0, 5, 0, 10, 0, 0, 0x11],
        Packet::UnsubAck(UnsubAck { codes: &[0, 0x11], ..unsuback }),
    );
}

#[test]
fn pings() {
    for version in VERSIONS {
        golden(version, &[0xC0, 0], Packet::PingReq);
        golden(version, &[0xD0, 0], Packet::PingResp);
    }
}

#[test]
fn disconnect() {
    let (code, none) = (ReasonCode::SUCCESS, Properties::EMPTY);
    for version in VERSIONS {
        golden(version, &[0xE0, 0], Packet::Disconnect(Disconnect { code, properties: none }));
    }
    let code = ReasonCode::DISCONNECT_WITH_WILL;
    golden(Version::V5, &[0xE0, 1, 4], Packet::Disconnect(Disconnect { code, properties: none }));
    let expiry = properties(&[Property::SessionExpiryInterval(1)]);
    let disconnect = Disconnect { code, properties: expiry.as_properties() };
    golden(Version::V5, &[0xE0, 7, 4, 5, 0x11, 0, 0, 0, 1], Packet::Disconnect(disconnect));
}

#[test]
fn auth() {
    let code = ReasonCode::SUCCESS;
    golden(Version::V5, &[0xF0, 0], Packet::Auth(Auth { code, properties: Properties::EMPTY }));
    let method = properties(&[Property::AuthenticationMethod("m"), Property::AuthenticationData(b"\xFF")]);
    let auth = Auth { code: ReasonCode::CONTINUE_AUTHENTICATION, properties: method.as_properties() };
    let bytes = [0xF0, 10, 0x18, 8, 0x15, 0, 1, b'm', 0x16, 0, 1, 0xFF];
    golden(Version::V5, &bytes, Packet::Auth(auth));
    let mut out = Vec::new();
    Packet::Auth(auth).encode(Version::V311, &mut out);
    assert_eq!((out.len(), Packet::Auth(auth).encoded_len(Version::V311)), (0, 0));
}
