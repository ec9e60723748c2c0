//! Packets as clients write them.

use ringmq::codec::{
    Ack, AckKind, Connect, Filters, Packet, PacketId, Properties, Publish, ReasonCode, Subscribe,
    SubscribeOptions, Version,
};
use ringmq::message::QoS;

/// Bytes of the usual payload.
pub const PAYLOAD_BYTES: usize = 64;

pub fn bytes(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

pub fn connect(version: Version, client_id: &str) -> Vec<u8> {
    let connect = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive_s: 60,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: Properties::default(),
    };
    bytes(&Packet::Connect(connect), version)
}

pub fn subscribe(version: Version, filter: &str, qos: QoS) -> Vec<u8> {
    let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
    let list = [(filter, options)];
    let subscribe = Subscribe {
        packet_id: PacketId::MIN,
        filters: Filters::new(&list),
        properties: Properties::default(),
    };
    bytes(&Packet::Subscribe(subscribe), version)
}

/// A PUBLISH; `id` counts at QoS 1 and 2 only.
pub fn publish(version: Version, topic: &str, qos: QoS, id: u16, payload: &[u8]) -> Vec<u8> {
    let packet_id = (qos != QoS::AtMostOnce).then(|| PacketId::new(id).unwrap_or(PacketId::MIN));
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id,
        properties: Properties::default(),
        payload,
    };
    bytes(&Packet::Publish(publish), version)
}

pub fn ack(version: Version, kind: AckKind, id: PacketId) -> Vec<u8> {
    let ack = Ack { kind, packet_id: id, code: ReasonCode::SUCCESS, properties: Properties::default() };
    bytes(&Packet::Ack(ack), version)
}
