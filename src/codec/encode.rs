//! Packets to bytes. A length is counted by the function that writes the bytes, so the two cannot differ.

use super::write::{Counter, Sink, varint_len};
use super::*;
use crate::limits::REMAINING_LENGTH_MAX;
use crate::message::QoS;

/// What a PUBLISH is written from on the data path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishOut<'a> {
    /// Re-delivery; 0 for QoS 0 [MQTT-3.3.1-2 of 5.0].
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// For QoS 1 and 2, and only for these.
    pub packet_id: Option<PacketId>,
    /// Topic name; empty where `alias` stands for it.
    pub topic: &'a str,
    /// Topic alias; written in 5.0 only.
    pub alias: Option<u16>,
    /// Message expiry interval in seconds; written in 5.0 only.
    pub expiry_s: Option<u32>,
    /// Each from 1 to 268,435,455; written in 5.0 only.
    pub subscription_ids: &'a [u32],
    /// Further properties in their wire form, as [`Forward::bytes`] returns them; written in 5.0 only.
    pub forward: &'a [u8],
    /// The application message.
    pub payload: &'a [u8],
}

impl PublishOut<'_> {
    fn first_byte(&self) -> u8 {
        debug_assert_eq!(self.qos == QoS::AtMostOnce, self.packet_id.is_none());
        debug_assert!(!self.dup || self.qos != QoS::AtMostOnce);
        PacketType::Publish.first_byte()
            | u8::from(self.dup) << 3
            | (self.qos as u8) << 1
            | u8::from(self.retain)
    }

    /// Bytes of the properties in 5.0, without the length in front.
    #[inline]
    fn properties_len(&self) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + varint_len(id as usize)).sum();
        let alias = if self.alias.is_some() { 3 } else { 0 };
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        alias + expiry + ids + self.forward.len()
    }

    #[inline]
    fn body(&self, version: Version, to: &mut impl Sink) {
        to.binary(self.topic.as_bytes());
        if let Some(id) = self.packet_id {
            to.u16(id.get());
        }
        if version == Version::V5 {
            to.varint(self.properties_len());
            if let Some(alias) = self.alias {
                Property::TopicAlias(alias).write(to);
            }
            if let Some(expiry_s) = self.expiry_s {
                Property::MessageExpiryInterval(expiry_s).write(to);
            }
            for &id in self.subscription_ids {
                Property::SubscriptionIdentifier(id).write(to);
            }
            to.bytes(self.forward);
        }
        to.bytes(self.payload);
    }
}

/// Appends a PUBLISH.
///
/// # Panics
/// When the packet would exceed [`crate::limits::PACKET_BYTES_MAX`]: compare [`publish_len`] first.
#[inline]
pub fn encode_publish(out: &mut Vec<u8>, version: Version, publish: &PublishOut<'_>) {
    packet(out, publish.first_byte(), publish_remaining(version, publish), |out| publish.body(version, out));
}

/// Bytes that [`encode_publish`] appends; more than [`crate::limits::PACKET_BYTES_MAX`] for a packet that
/// cannot be.
#[inline]
pub fn publish_len(version: Version, publish: &PublishOut<'_>) -> usize {
    packet_len(publish_remaining(version, publish))
}

/// Counts what [`PublishOut::body`] writes. By hand, for the properties may be longer than can be written.
#[inline]
fn publish_remaining(version: Version, publish: &PublishOut<'_>) -> usize {
    let id = if publish.packet_id.is_some() { 2 } else { 0 };
    let properties = match version {
        Version::V5 => {
            let len = publish.properties_len();
            varint_len(len) + len
        }
        _ => 0,
    };
    2 + publish.topic.len() + id + properties + publish.payload.len()
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties, in the shortest form. 3.x has no code.
#[inline]
pub fn encode_ack(out: &mut Vec<u8>, version: Version, kind: AckKind, id: PacketId, code: ReasonCode) {
    let first = PacketType::from(kind).first_byte();
    let [high, low] = id.get().to_be_bytes();
    if version != Version::V5 || code == ReasonCode::SUCCESS {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, code.0]);
    }
}

/// Appends a PINGRESP.
#[inline]
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

/// Appends a packet whose body is `remaining` bytes.
#[inline]
fn packet(out: &mut Vec<u8>, first: u8, remaining: usize, body: impl FnOnce(&mut Vec<u8>)) {
    assert!(remaining <= REMAINING_LENGTH_MAX as usize, "a remaining length is at most 268,435,455");
    out.reserve(packet_len(remaining));
    out.u8(first);
    out.varint(remaining);
    let start = out.len();
    body(out);
    debug_assert_eq!(out.len() - start, remaining, "the body has the length that was counted");
}

/// Bytes of a packet whose body is `remaining` bytes.
#[inline]
const fn packet_len(remaining: usize) -> usize {
    1 + varint_len(remaining) + remaining
}

impl Packet<'_> {
    /// Appends the packet in the form of `version`; a CONNECT in that of its own. What the version has no
    /// room for is left out. AUTH does not exist in 3.x, so nothing is appended for it.
    ///
    /// # Panics
    /// When a string or binary field is longer than 65,535 bytes or the packet is longer than
    /// [`crate::limits::PACKET_BYTES_MAX`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if let Packet::Publish(publish) = self {
            encode_publish(out, version, &publish.into());
        } else if let Some(kind) = self.kind_in(version) {
            packet(out, kind.first_byte(), self.remaining(version), |out| self.body(version, out));
        }
    }

    /// Bytes that [`Packet::encode`] appends.
    pub fn encoded_len(&self, version: Version) -> usize {
        if self.kind_in(version).is_some() { packet_len(self.remaining(version)) } else { 0 }
    }

    /// Its type.
    pub fn kind(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Ack(ack) => ack.kind.into(),
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    /// Its type, where `version` has it.
    fn kind_in(&self, version: Version) -> Option<PacketType> {
        Some(self.kind()).filter(|&kind| kind != PacketType::Auth || version == Version::V5)
    }

    fn remaining(&self, version: Version) -> usize {
        if let Packet::Publish(publish) = self {
            return publish_remaining(version, &publish.into());
        }
        let mut counter = Counter(0);
        self.body(version, &mut counter);
        counter.0
    }

    fn body(&self, version: Version, to: &mut impl Sink) {
        match self {
            Packet::Connect(connect) => connect.body(to),
            Packet::ConnAck(connack) => connack.body(version, to),
            Packet::Publish(publish) => PublishOut::from(publish).body(version, to),
            Packet::Ack(ack) => {
                to.u16(ack.packet_id.get());
                code_and_properties(version, ack.code, ack.properties, to);
            }
            Packet::Subscribe(subscribe) => {
                to.u16(subscribe.packet_id.get());
                properties(version, subscribe.properties, to);
                subscribe.filters.write(version, to);
            }
            Packet::SubAck(suback) => suback.body(version, to),
            Packet::Unsubscribe(unsubscribe) => {
                to.u16(unsubscribe.packet_id.get());
                properties(version, unsubscribe.properties, to);
                unsubscribe.filters.write(to);
            }
            Packet::UnsubAck(unsuback) => {
                to.u16(unsuback.packet_id.get());
                properties(version, unsuback.properties, to);
                to.bytes(if version == Version::V5 { unsuback.codes } else { &[] });
            }
            Packet::PingReq | Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                code_and_properties(version, disconnect.code, disconnect.properties, to);
            }
            Packet::Auth(auth) if auth.code == ReasonCode::SUCCESS && auth.properties.is_empty() => {}
            Packet::Auth(auth) => {
                to.u8(auth.code.0);
                properties(version, auth.properties, to);
            }
        }
    }
}

/// Properties with their length, in 5.0.
fn properties(version: Version, properties: Properties<'_>, to: &mut impl Sink) {
    if version == Version::V5 {
        to.varint(properties.raw().len());
        to.bytes(properties.raw());
    }
}

/// A reason code and properties, left out from the end where they say nothing.
fn code_and_properties(version: Version, code: ReasonCode, of: Properties<'_>, to: &mut impl Sink) {
    if version != Version::V5 || code == ReasonCode::SUCCESS && of.is_empty() {
        return;
    }
    to.u8(code.0);
    if !of.is_empty() {
        properties(version, of, to);
    }
}

impl Connect<'_> {
    fn body(&self, to: &mut impl Sink) {
        let (name, level): (&[u8], u8) = match self.version {
            Version::V31 => (b"MQIsdp", 3),
            Version::V311 => (b"MQTT", 4),
            Version::V5 => (b"MQTT", 5),
        };
        let bridge = self.bridge && self.version != Version::V5;
        to.binary(name);
        to.u8(level | u8::from(bridge) << 7);
        to.u8(self.flags());
        to.u16(self.keep_alive_s);
        properties(self.version, self.properties, to);
        to.binary(self.client_id.as_bytes());
        if let Some(will) = &self.will {
            properties(self.version, will.properties, to);
            to.binary(will.topic.as_bytes());
            to.binary(will.payload);
        }
        if let Some(username) = self.username {
            to.binary(username.as_bytes());
        }
        if let Some(password) = self.password {
            to.binary(password);
        }
    }

    fn flags(&self) -> u8 {
        debug_assert!(self.version == Version::V5 || self.password.is_none() || self.username.is_some());
        let will =
            self.will.as_ref().map_or(0, |will| 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
        will | u8::from(self.clean_start) << 1
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7
    }
}

impl ConnAck<'_> {
    fn body(&self, version: Version, to: &mut impl Sink) {
        // 3.1 has no Session Present.
        to.u8(u8::from(self.session_present && version != Version::V31));
        to.u8(if version == Version::V5 { self.code.0 } else { self.code.connack_return_code() });
        properties(version, self.properties, to);
    }
}

impl SubAck<'_> {
    fn body(&self, version: Version, to: &mut impl Sink) {
        to.u16(self.packet_id.get());
        properties(version, self.properties, to);
        if version == Version::V5 {
            to.bytes(self.codes);
            return;
        }
        for &code in self.codes {
            to.u8(code.min(0x80));
        }
    }
}

impl<'a> From<&Publish<'a>> for PublishOut<'a> {
    /// All properties of the PUBLISH are in `forward`.
    fn from(publish: &Publish<'a>) -> PublishOut<'a> {
        PublishOut {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            topic: publish.topic,
            alias: None,
            expiry_s: None,
            subscription_ids: &[],
            forward: publish.properties.raw(),
            payload: publish.payload,
        }
    }
}
