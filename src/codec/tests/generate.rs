//! Random packets that are valid in a given version.

use super::super::packet_type::{self as place, Places};
use super::super::property::{AUTHENTICATION_DATA, AUTHENTICATION_METHOD, IDS, Kind, row};
use super::super::read::Reader;
use super::*;
use crate::message::QoS;

const STRINGS: &[&str] = &["", "a", "a/b", "/", "temp/π/😀", "sensor/1/temperature", "\u{FEFF}x", "$SYS/x"];
const NAMES: &[&str] = &["a", "a/b", "/", "temp/π/😀", "sensor/1/temperature", "\u{FEFF}x", "$SYS/x"];
const BLOBS: &[&[u8]] = &[b"", b"\0", b"\xFF\xFE", b"payload", &[7; 200], &[0x80; 20_000]];

pub const KINDS: [PacketType; 15] = [
    PacketType::Connect,
    PacketType::ConnAck,
    PacketType::Publish,
    PacketType::PubAck,
    PacketType::PubRec,
    PacketType::PubRel,
    PacketType::PubComp,
    PacketType::Subscribe,
    PacketType::SubAck,
    PacketType::Unsubscribe,
    PacketType::UnsubAck,
    PacketType::PingReq,
    PacketType::PingResp,
    PacketType::Disconnect,
    PacketType::Auth,
];

/// What a packet borrows.
pub struct Parts {
    properties: PropertyBuf,
    will: PropertyBuf,
    filters: Vec<(&'static str, SubscribeOptions)>,
    topics: Vec<&'static str>,
    codes: Vec<u8>,
}

impl Parts {
    pub fn random(rng: &mut Rng, kind: PacketType, version: Version) -> Parts {
        let five = version == Version::V5;
        let count = 1 + rng.below(5);
        let codes: Vec<ReasonCode> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(|code| code.is_allowed_in(kind) && (five || matches!(code.0, 0..=2 | 0x80)))
            .collect();
        let has_codes = kind == PacketType::SubAck || five && kind == PacketType::UnsubAck;
        Parts {
            properties: random_properties(rng, if five { kind.place() } else { place::NOWHERE }),
            will: random_properties(rng, if five { place::WILL } else { place::NOWHERE }),
            filters: (0..count).map(|_| (rng.pick(STRINGS), random_options(rng, five))).collect(),
            topics: (0..count).map(|_| rng.pick(STRINGS)).collect(),
            codes: (0..count).filter(|_| has_codes).map(|_| rng.pick(&codes).0).collect(),
        }
    }

    /// A packet of this kind; `None` for AUTH before 5.0.
    pub fn packet(&self, rng: &mut Rng, kind: PacketType, version: Version) -> Option<Packet<'_>> {
        let five = version == Version::V5;
        let packet_id = PacketId::new(1 + rng.below(65_535) as u16).expect("1 and above");
        let properties = self.properties.as_properties();
        let code = random_code(rng, kind, version);
        let ack = |kind| Packet::Ack(Ack { kind, packet_id, code, properties });
        Some(match kind {
            PacketType::Connect => Packet::Connect(self.connect(rng, version)),
            PacketType::ConnAck => {
                let session_present = version != Version::V31 && code == ReasonCode::SUCCESS && rng.flip();
                Packet::ConnAck(ConnAck { session_present, code, properties })
            }
            PacketType::Publish => {
                let qos = rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                let known = qos != QoS::AtMostOnce;
                let has_alias = properties.iter().any(|p| matches!(p, Property::TopicAlias(_)));
                Packet::Publish(Publish {
                    dup: known && rng.flip(),
                    qos,
                    retain: rng.flip(),
                    topic: rng.pick(if has_alias { STRINGS } else { NAMES }),
                    packet_id: known.then_some(packet_id),
                    properties,
                    payload: rng.pick(BLOBS),
                })
            }
            PacketType::PubAck => ack(AckKind::PubAck),
            PacketType::PubRec => ack(AckKind::PubRec),
            PacketType::PubRel => ack(AckKind::PubRel),
            PacketType::PubComp => ack(AckKind::PubComp),
            PacketType::Subscribe => {
                Packet::Subscribe(Subscribe { packet_id, properties, filters: Filters::new(&self.filters) })
            }
            PacketType::SubAck => Packet::SubAck(SubAck { packet_id, properties, codes: &self.codes }),
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: Topics::new(&self.topics) })
            }
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck { packet_id, properties, codes: &self.codes }),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(Disconnect { code, properties }),
            PacketType::Auth if five => {
                let has_method = properties.iter().any(|p| matches!(p, Property::AuthenticationMethod(_)));
                if !has_method {
                    let (code, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
                    return Some(Packet::Auth(Auth { code, properties }));
                }
                Packet::Auth(Auth { code, properties })
            }
            PacketType::Auth => return None,
        })
    }

    fn connect(&self, rng: &mut Rng, version: Version) -> Connect<'_> {
        let username = rng.flip().then(|| rng.pick(STRINGS));
        let may = username.is_some() || version == Version::V5;
        let will = Will {
            topic: rng.pick(STRINGS),
            payload: rng.pick(BLOBS),
            qos: rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: rng.flip(),
            properties: self.will.as_properties(),
        };
        Connect {
            version,
            bridge: version != Version::V5 && rng.flip(),
            clean_start: rng.flip(),
            keep_alive_s: rng.next() as u16,
            client_id: rng.pick(STRINGS),
            will: rng.flip().then_some(will),
            username,
            password: (may && rng.flip()).then(|| rng.pick(BLOBS)),
            properties: self.properties.as_properties(),
        }
    }
}

fn random_code(rng: &mut Rng, kind: PacketType, version: Version) -> ReasonCode {
    let all = ReasonCode::ALL.iter().copied();
    let codes: Vec<ReasonCode> = match (version, kind) {
        (Version::V5, _) => all.filter(|code| code.is_allowed_in(kind)).collect(),
        (_, PacketType::ConnAck) => (0..=5).filter_map(ReasonCode::from_connack_return_code).collect(),
        _ => vec![ReasonCode::SUCCESS],
    };
    if codes.is_empty() { ReasonCode::SUCCESS } else { rng.pick(&codes) }
}

fn random_options(rng: &mut Rng, five: bool) -> SubscribeOptions {
    let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    SubscribeOptions {
        qos: rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        no_local: five && rng.flip(),
        retain_as_published: five && rng.flip(),
        retain_handling: if five { rng.pick(&handling) } else { RetainHandling::Send },
    }
}

/// Properties that may stand in `place`, in any order.
pub fn random_properties(rng: &mut Rng, place: Places) -> PropertyBuf {
    let mut buf = PropertyBuf::new();
    let ids: Vec<u8> =
        IDS.iter().copied().filter(|&id| row(id).is_some_and(|r| r.places & place != 0)).collect();
    let mut seen = Vec::new();
    let count = if ids.is_empty() { 0 } else { rng.pick(&[0, 1, 2, 5, 12]) };
    for _ in 0..count {
        let id = rng.pick(&ids);
        let repeats = row(id).is_some_and(|row| row.repeats & place != 0);
        let lacks_method = id == AUTHENTICATION_DATA && !seen.contains(&AUTHENTICATION_METHOD);
        if seen.contains(&id) && !repeats || lacks_method {
            continue;
        }
        seen.push(id);
        let raw = random_property(rng, id);
        let property = Property::read(id, &mut Reader::new(&raw[1..])).expect("valid");
        assert!(buf.push(property));
    }
    buf
}

/// A property of this identifier on the wire.
pub fn random_property(rng: &mut Rng, id: u8) -> Vec<u8> {
    let mut raw = vec![id];
    for kind in row(id).expect("in the table").fields {
        match kind {
            Kind::Byte => raw.u8(rng.below(2) as u8),
            Kind::Two => raw.u16(1 + rng.below(65_535) as u16),
            Kind::Four => raw.u32((rng.next() as u32).max(1)),
            Kind::VarInt => raw.varint(rng.pick(&[1, 127, 128, 16_383, 16_384, 2_097_152, 268_435_455])),
            Kind::Text => raw.binary(rng.pick(NAMES).as_bytes()),
            Kind::Binary => raw.binary(rng.pick(BLOBS)),
        }
    }
    raw
}
