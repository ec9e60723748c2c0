//! One valid packet of each kind, and packets that the standard forbids.

use super::common::{Login, WillSpec};
use ringmq::codec::{
    Ack, AckKind, Auth, ConnAck, Disconnect, Filters, Packet, PacketId, Properties, Property, PropertyBuf,
    Publish, ReasonCode, SubAck, Subscribe, SubscribeOptions, Topics, UnsubAck, Unsubscribe, Version,
};
use ringmq::message::QoS;

/// A packet's name and its bytes; its remaining length has one byte.
pub struct Sample {
    /// Begins with the packet type.
    pub name: &'static str,
    /// As on the wire.
    pub bytes: Vec<u8>,
}

const ID: PacketId = PacketId::MIN;

fn sample(version: Version, name: &'static str, packet: &Packet<'_>) -> Sample {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    Sample { name, bytes }
}

fn connect(version: Version) -> Sample {
    let v5 = version == Version::V5;
    let will = WillSpec {
        topic: "w/t".to_owned(),
        payload: b"gone".to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: v5.then_some(5),
    };
    let login = Login {
        keep_alive_s: 60,
        session_expiry_s: v5.then_some(60),
        receive_maximum: v5.then_some(9),
        maximum_packet_size: v5.then_some(9_999),
        topic_alias_maximum: v5.then_some(3),
        will: Some(will),
        ..Login::new(version, "bad")
    };
    Sample { name: "CONNECT with a will", bytes: login.bytes() }
}

/// One packet of each kind that a client may send.
pub fn of_clients(version: Version) -> Vec<Sample> {
    let v5 = version == Version::V5;
    let mut properties = PropertyBuf::new();
    if v5 {
        assert!(properties.push(Property::ContentType("text")));
        assert!(properties.push(Property::UserProperty("key", "value")));
    }
    let properties = properties.as_properties();
    let mut samples = vec![connect(version)];
    for (name, qos) in [
        ("PUBLISH of QoS 0", QoS::AtMostOnce),
        ("PUBLISH of QoS 1", QoS::AtLeastOnce),
        ("PUBLISH of QoS 2", QoS::ExactlyOnce),
    ] {
        let packet_id = (qos != QoS::AtMostOnce).then_some(ID);
        // The payload ends in 0: what is left of a packet that is cut short is no packet.
        let (topic, payload) = ("some/topic", &b"pay\0"[..]);
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload };
        samples.push(sample(version, name, &Packet::Publish(publish)));
    }
    for (name, kind) in [
        ("PUBACK", AckKind::PubAck),
        ("PUBREC", AckKind::PubRec),
        ("PUBREL", AckKind::PubRel),
        ("PUBCOMP", AckKind::PubComp),
    ] {
        let ack = Ack { kind, packet_id: ID, code: ReasonCode::SUCCESS, properties: Properties::EMPTY };
        samples.push(sample(version, name, &Packet::Ack(ack)));
    }
    let filters = [("some/+/filter", SubscribeOptions::default()), ("x/#", SubscribeOptions::default())];
    let filters = Filters::new(&filters);
    let subscribe = Subscribe { packet_id: ID, properties: Properties::EMPTY, filters };
    samples.push(sample(version, "SUBSCRIBE", &Packet::Subscribe(subscribe)));
    let filters = ["some/+/filter", "x/#"];
    let filters = Topics::new(&filters);
    let unsubscribe = Unsubscribe { packet_id: ID, properties: Properties::EMPTY, filters };
    samples.push(sample(version, "UNSUBSCRIBE", &Packet::Unsubscribe(unsubscribe)));
    samples.push(sample(version, "PINGREQ", &Packet::PingReq));
    let code = if v5 { ReasonCode::DISCONNECT_WITH_WILL } else { ReasonCode::SUCCESS };
    let mut reason = PropertyBuf::new();
    assert!(!v5 || reason.push(Property::ReasonString("enough")));
    let properties = reason.as_properties();
    samples.push(sample(version, "DISCONNECT", &Packet::Disconnect(Disconnect { code, properties })));
    if v5 {
        let mut properties = PropertyBuf::new();
        assert!(properties.push(Property::AuthenticationMethod("m")));
        let (code, properties) = (ReasonCode::REAUTHENTICATE, properties.as_properties());
        samples.push(sample(version, "AUTH", &Packet::Auth(Auth { code, properties })));
    }
    samples
}

/// One packet of each kind that only a server may send.
pub fn of_servers(version: Version) -> Vec<Sample> {
    let properties = Properties::EMPTY;
    let code = ReasonCode::SUCCESS;
    let connack = Packet::ConnAck(ConnAck { session_present: false, code, properties });
    let suback = Packet::SubAck(SubAck { packet_id: ID, properties, codes: &[0] });
    let unsuback = Packet::UnsubAck(UnsubAck { packet_id: ID, properties, codes: &[0] });
    vec![
        sample(version, "CONNACK", &connack),
        sample(version, "SUBACK", &suback),
        sample(version, "UNSUBACK", &unsuback),
        sample(version, "PINGRESP", &Packet::PingResp),
    ]
}

/// What a client may not send once it is connected: name, bytes, and the reason code that 5.0 is told.
pub fn forbidden(version: Version) -> Vec<(&'static str, Vec<u8>, u8)> {
    // Without properties in 3.x, with none in 5.0.
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let packet = |first: u8, parts: &[&[u8]]| {
        let body = parts.concat();
        [&[first, u8::try_from(body.len()).expect("a short packet")][..], &body].concat()
    };
    let mut all = vec![
        ("packet type 0", packet(0x00, &[]), 0x81),
        ("a remaining length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01], 0x81),
        ("[MQTT-3.3.1-4] QoS 3", packet(0x36, &[b"\0\x01a\0\x01", none]), 0x81),
        ("[MQTT-3.3.1-2] DUP with QoS 0", packet(0x38, &[b"\0\x01a", none]), 0x81),
        ("[MQTT-2.2.1-3] PUBLISH with identifier 0", packet(0x32, &[b"\0\x01a\0\0", none]), 0x82),
        ("[MQTT-2.2.1-3] SUBSCRIBE with identifier 0", packet(0x82, &[b"\0\0", none, b"\0\x01a\0"]), 0x82),
        ("[MQTT-2.2.1-3] UNSUBSCRIBE with identifier 0", packet(0xA2, &[b"\0\0", none, b"\0\x01a"]), 0x82),
        ("PUBACK with identifier 0", packet(0x40, &[b"\0\0"]), 0x82),
        ("[MQTT-1.5.4-1] a topic of broken UTF-8", packet(0x30, &[b"\0\x02a\xFF", none]), 0x81),
        ("[MQTT-1.5.4-1] a topic with a surrogate", packet(0x30, &[b"\0\x03\xED\xA0\x80", none]), 0x81),
        ("[MQTT-1.5.4-2] a topic with U+0000", packet(0x30, &[b"\0\x02a\0", none]), 0x81),
        ("[MQTT-3.3.2-2] a topic with #", packet(0x30, &[b"\0\x03a/#", none]), 0x90),
        ("[MQTT-3.3.2-2] a topic with +", packet(0x30, &[b"\0\x03+/a", none]), 0x90),
        ("[MQTT-4.7.3-1] an empty topic", packet(0x30, &[b"\0\0", none]), 0x82),
        ("[MQTT-3.8.3-2] SUBSCRIBE to nothing", packet(0x82, &[b"\0\x01", none]), 0x82),
        ("[MQTT-3.10.3-2] UNSUBSCRIBE from nothing", packet(0xA2, &[b"\0\x01", none]), 0x82),
        ("SUBSCRIBE with QoS 3", packet(0x82, &[b"\0\x01", none, b"\0\x01a\x03"]), 0x82),
        ("[MQTT-3.8.3-5] reserved options", packet(0x82, &[b"\0\x01", none, b"\0\x01a\x80"]), 0x81),
        ("a filter of broken UTF-8", packet(0x82, &[b"\0\x01", none, b"\0\x01\xC0\0"]), 0x81),
        ("a topic longer than the packet", packet(0x30, &[b"\0\xFFa"]), 0x81),
    ];
    if version == Version::V5 {
        all.extend([
            ("[MQTT-1.5.5-1] a length that is not minimal", vec![0x30, 0x84, 0x00, 0, 1, b'a', 0], 0x81),
            ("[MQTT-3.3.2-8] topic alias 0", packet(0x30, &[b"\0\x01a\x03\x23\0\0"]), 0x94),
            (
                "[MQTT-3.3.2-9] a topic alias above the maximum",
                packet(0x30, &[b"\0\x01a\x03\x23\0\xFF"]),
                0x94,
            ),
            ("a topic alias that stands for nothing", packet(0x30, &[b"\0\0\x03\x23\0\x01"]), 0x82),
            ("[MQTT-3.3.4-6] a subscription identifier", packet(0x30, &[b"\0\x01a\x02\x0B\x01"]), 0x82),
            ("a property twice", packet(0x30, &[b"\0\x01a\x04\x01\0\x01\0"]), 0x82),
            ("a property that does not belong", packet(0x30, &[b"\0\x01a\x03\x21\0\x01"]), 0x81),
            ("an unknown property", packet(0x30, &[b"\0\x01a\x02\x7F\0"]), 0x81),
            ("properties longer than the packet", packet(0x30, &[b"\0\x01a\x09\x01\0"]), 0x81),
            ("[MQTT-3.8.3-4] No Local on a share", packet(0x82, &[b"\0\x01\0\0\x0A$share/g/a\x04"]), 0x82),
            ("Retain Handling 3", packet(0x82, &[b"\0\x01\0\0\x01a\x30"]), 0x82),
            ("subscription identifier 0", packet(0x82, &[b"\0\x01\x02\x0B\0\0\x01a\0"]), 0x82),
            ("AUTH without a method in CONNECT", packet(0xF0, &[b"\x19\x04\x15\0\x01m"]), 0x82),
            ("[MQTT-3.14.2-2] an expiry where CONNECT had 0", packet(0xE0, &[b"\0\x05\x11\0\0\0\x05"]), 0x82),
            ("a reason code that PUBACK has not", packet(0x40, &[b"\0\x01\x7E"]), 0x82),
        ]);
    } else {
        all.push(("AUTH before 5.0", packet(0xF0, &[]), 0x81));
    }
    all
}
