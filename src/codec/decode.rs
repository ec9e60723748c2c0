//! Bytes to packets.

use super::packet_type::{self as place, DUP};
use super::property::{AUTHENTICATION_METHOD, TOPIC_ALIAS};
use super::read::{Reader, not_minimal, varint};
use super::write::varint_len;
use super::*;
use crate::message::QoS;

/// Decodes exactly one whole packet, as [`frame`] found it. A CONNECT says its version itself, so `version`
/// counts for all others only.
///
/// # Errors
/// Whatever the standard forbids within one packet, whichever side sends it; each with its reason code.
#[inline]
pub fn decode(version: Version, packet: &[u8]) -> Result<Packet<'_>, DecodeError> {
    if let Some(ack) = short_ack(packet) {
        return Ok(Packet::Ack(ack));
    }
    let (first, header, body) = split(packet)?;
    let kind = PacketType::of_version(first, version)?;
    if kind != PacketType::Connect {
        check_header(version, header, body)?;
    }
    match kind {
        PacketType::Connect => connect(header, body),
        PacketType::ConnAck => connack(version, body),
        PacketType::Publish => decode_publish(version, packet).map(Packet::Publish),
        PacketType::PubAck => ack(version, AckKind::PubAck, body),
        PacketType::PubRec => ack(version, AckKind::PubRec, body),
        PacketType::PubRel => ack(version, AckKind::PubRel, body),
        PacketType::PubComp => ack(version, AckKind::PubComp, body),
        PacketType::Subscribe => subscribe(version, body),
        PacketType::SubAck => suback(version, body),
        PacketType::Unsubscribe => unsubscribe(version, body),
        PacketType::UnsubAck => unsuback(version, body),
        PacketType::PingReq => body.end().map(|()| Packet::PingReq),
        PacketType::PingResp => body.end().map(|()| Packet::PingResp),
        PacketType::Disconnect => disconnect(version, body),
        PacketType::Auth => auth(version, body),
    }
}

/// An acknowledgement that says nothing but the packet identifier, as nearly all do; the same in all versions.
#[inline]
fn short_ack(packet: &[u8]) -> Option<Ack<'static>> {
    let &[first, 2, high, low] = packet else { return None };
    let kind = match first {
        0x40 => AckKind::PubAck,
        0x50 => AckKind::PubRec,
        0x62 => AckKind::PubRel,
        0x70 => AckKind::PubComp,
        _ => return None,
    };
    let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
    Some(Ack { kind, packet_id, code: ReasonCode::SUCCESS, properties: Properties::EMPTY })
}

/// [`decode`] for a packet that is known to be a PUBLISH.
///
/// # Errors
/// As [`decode`]; a packet of another type is a protocol error.
#[inline]
pub fn decode_publish(version: Version, packet: &[u8]) -> Result<Publish<'_>, DecodeError> {
    let (first, header, body) = split(packet)?;
    let kind = PacketType::of(first)?;
    if kind != PacketType::Publish {
        return Err(DecodeError::protocol("packet type 3, PUBLISH", kind as u8));
    }
    check_header(version, header, body)?;
    publish(version, first, body)
}

/// First byte, bytes of the fixed header, and the rest, whose length is exactly the remaining length.
#[inline]
fn split(packet: &[u8]) -> Result<(u8, usize, Reader<'_>), DecodeError> {
    let mut whole = Reader::new(packet);
    let first = whole.u8()?;
    let Some((remaining, len)) = varint(whole.rest())? else {
        return Err(DecodeError::malformed("a whole fixed header, bytes", packet.len()));
    };
    whole.take(len)?;
    if whole.left() != remaining as usize {
        return Err(DecodeError::malformed("as many bytes as the remaining length says", whole.left()));
    }
    Ok((first, 1 + len, whole))
}

/// 5.0 asks for the shortest form of the remaining length [MQTT-1.5.5-1 of 5.0]; 3.x does not.
#[inline]
fn check_header(version: Version, header: usize, body: Reader<'_>) -> Result<(), DecodeError> {
    if version == Version::V5 && header != 1 + varint_len(body.left()) {
        return Err(not_minimal(header - 1));
    }
    Ok(())
}

/// The properties that 5.0 has here.
#[inline]
fn properties<'a>(
    version: Version,
    place: place::Places,
    from: &mut Reader<'a>,
) -> Result<Properties<'a>, DecodeError> {
    if version != Version::V5 {
        return Ok(Properties::EMPTY);
    }
    Properties::read(from, place).map(|(properties, _)| properties)
}

const USERNAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;
/// In the protocol level of 3.x: the client is a bridge.
const BRIDGE: u8 = 0x80;

fn connect(header: usize, body: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let mut from = body;
    let (version, bridge) = protocol(&mut from)?;
    check_header(version, header, body)
        .and_then(|()| connect_fields(version, bridge, from))
        .map(Packet::Connect)
        .map_err(|error| error.in_connect(version))
}

fn protocol(from: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let name = from.binary()?;
    let level = from.u8()?;
    let unsupported = |expected| DecodeError::new(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, expected, level);
    match (name, level, level & !BRIDGE) {
        (b"MQTT", 5, _) => Ok((Version::V5, false)),
        (b"MQTT", _, 4) => Ok((Version::V311, level & BRIDGE != 0)),
        (b"MQIsdp", _, 3) => Ok((Version::V31, level & BRIDGE != 0)),
        (b"MQTT", 0..=3, _) => Err(unsupported("protocol level 4 or 5").in_connect(Version::V311)),
        (b"MQTT", ..) => Err(unsupported("protocol level 4 or 5").in_connect(Version::V5)),
        (b"MQIsdp", ..) => Err(unsupported("protocol level 3").in_connect(Version::V31)),
        _ => {
            let (code, expected) = (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "protocol name MQTT or MQIsdp");
            Err(DecodeError::new(code, expected, "another"))
        }
    }
}

fn connect_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    // 3.1 calls bit 0 unused and asks for no value.
    if flags & RESERVED != 0 && version != Version::V31 {
        return Err(DecodeError::malformed("the reserved connect flag 0", 1u8));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed("Will QoS and Will Retain 0 without a will", flags));
    }
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && version != Version::V5 {
        return Err(DecodeError::malformed("a password only with a user name", "no user name"));
    }
    Ok(())
}

fn connect_fields(version: Version, bridge: bool, mut from: Reader<'_>) -> Result<Connect<'_>, DecodeError> {
    let flags = from.u8()?;
    connect_flags(version, flags)?;
    let keep_alive_s = from.u16()?;
    let own = properties(version, place::CONNECT, &mut from)?;
    let client_id = from.text()?;
    let will = if flags & WILL != 0 { Some(will(version, flags, &mut from)?) } else { None };
    // In 3.1 the remaining length takes precedence over these two flags.
    let there = |from: &Reader<'_>, flag| flags & flag != 0 && !(version == Version::V31 && from.is_empty());
    let username = if there(&from, USERNAME) { Some(from.text()?) } else { None };
    let password = if there(&from, PASSWORD) { Some(from.binary()?) } else { None };
    from.end()?;
    Ok(Connect {
        version,
        bridge,
        clean_start: flags & CLEAN_START != 0,
        keep_alive_s,
        client_id,
        will,
        username,
        password,
        properties: own,
    })
}

fn will<'a>(version: Version, flags: u8, from: &mut Reader<'a>) -> Result<Will<'a>, DecodeError> {
    let bits = (flags & WILL_QOS) >> 3;
    let qos = QoS::from_bits(bits).ok_or_else(|| DecodeError::malformed("Will QoS 0, 1 or 2", bits))?;
    let properties = properties(version, place::WILL, from)?;
    let (topic, payload) = (from.text()?, from.binary()?);
    Ok(Will { topic, payload, qos, retain: flags & WILL_RETAIN != 0, properties })
}

fn connack(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let flags = from.u8()?;
    if flags > 1 {
        return Err(DecodeError::malformed("connect acknowledge flags 0 or 1", flags));
    }
    let byte = from.u8()?;
    let code = match version {
        Version::V5 => ReasonCode(byte).check(PacketType::ConnAck)?,
        _ => ReasonCode::from_connack_return_code(byte)
            .ok_or_else(|| DecodeError::protocol("a return code from 0 to 5", byte))?,
    };
    // 3.1 has no Session Present.
    let session_present = flags == 1 && version != Version::V31;
    if session_present && code != ReasonCode::SUCCESS {
        return Err(DecodeError::protocol("Session Present 0 with an error", 1u8));
    }
    let properties = properties(version, place::CONNACK, &mut from)?;
    from.end()?;
    Ok(Packet::ConnAck(ConnAck { session_present, code, properties }))
}

#[inline]
fn publish(version: Version, first: u8, mut from: Reader<'_>) -> Result<Publish<'_>, DecodeError> {
    let bits = (first >> 1) & 0x03;
    let qos = QoS::from_bits(bits).ok_or_else(|| DecodeError::malformed("QoS 0, 1 or 2", bits))?;
    let dup = first & DUP != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::malformed("DUP 0 for QoS 0", 1u8));
    }
    let topic = from.topic_name()?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(from.packet_id()?) };
    let (properties, seen) = match version {
        Version::V5 => Properties::read(&mut from, place::PUBLISH)?,
        _ => (Properties::EMPTY, 0),
    };
    if topic.is_empty() && seen & 1 << TOPIC_ALIAS == 0 {
        return Err(DecodeError::protocol("a topic name of at least one character", "an empty one"));
    }
    Ok(Publish { dup, qos, retain: first & 1 != 0, topic, packet_id, properties, payload: from.rest() })
}

/// A reason code and properties, each of which 5.0 may leave out at the end.
#[inline]
fn code_and_properties<'a>(
    version: Version,
    kind: PacketType,
    mut from: Reader<'a>,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if from.is_empty() || version != Version::V5 {
        from.end()?;
        return Ok((ReasonCode::SUCCESS, Properties::EMPTY));
    }
    let code = ReasonCode(from.u8()?).check(kind)?;
    if from.is_empty() {
        return Ok((code, Properties::EMPTY));
    }
    let (properties, _) = Properties::read(&mut from, kind.place())?;
    from.end()?;
    Ok((code, properties))
}

#[inline]
fn ack(version: Version, kind: AckKind, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = from.packet_id()?;
    let (code, properties) = code_and_properties(version, kind.into(), from)?;
    Ok(Packet::Ack(Ack { kind, packet_id, code, properties }))
}

fn subscribe(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = from.packet_id()?;
    let properties = properties(version, place::SUBSCRIBE, &mut from)?;
    let filters = Filters::read(from, version)?;
    Ok(Packet::Subscribe(Subscribe { packet_id, properties, filters }))
}

fn unsubscribe(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = from.packet_id()?;
    let properties = properties(version, place::UNSUBSCRIBE, &mut from)?;
    let filters = Topics::read(from)?;
    Ok(Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }))
}

fn suback(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = from.packet_id()?;
    let properties = properties(version, place::SUBACK, &mut from)?;
    let codes = codes(version, PacketType::SubAck, from)?;
    Ok(Packet::SubAck(SubAck { packet_id, properties, codes }))
}

fn unsuback(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let packet_id = from.packet_id()?;
    if version != Version::V5 {
        from.end()?;
        return Ok(Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::EMPTY, codes: &[] }));
    }
    let properties = properties(version, place::UNSUBACK, &mut from)?;
    let codes = codes(version, PacketType::UnsubAck, from)?;
    Ok(Packet::UnsubAck(UnsubAck { packet_id, properties, codes }))
}

/// The reason codes that are all of a payload: at least one.
fn codes(version: Version, kind: PacketType, from: Reader<'_>) -> Result<&[u8], DecodeError> {
    let codes = from.rest();
    if codes.is_empty() {
        return Err(DecodeError::protocol("a reason code for each topic filter", "none"));
    }
    for &code in codes {
        ReasonCode(code).check(kind)?;
        if version != Version::V5 && !matches!(code, 0..=2 | 0x80) {
            return Err(DecodeError::malformed("a return code of 0, 1, 2 or 128", code));
        }
    }
    Ok(codes)
}

fn disconnect(version: Version, from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    let (code, properties) = code_and_properties(version, PacketType::Disconnect, from)?;
    Ok(Packet::Disconnect(Disconnect { code, properties }))
}

fn auth(version: Version, mut from: Reader<'_>) -> Result<Packet<'_>, DecodeError> {
    if version != Version::V5 {
        return Err(DecodeError::protocol("a packet type from 1 to 14 before 5.0", 15u8));
    }
    if from.is_empty() {
        return Ok(Packet::Auth(Auth { code: ReasonCode::SUCCESS, properties: Properties::EMPTY }));
    }
    let code = ReasonCode(from.u8()?).check(PacketType::Auth)?;
    let (properties, seen) = Properties::read(&mut from, place::AUTH)?;
    from.end()?;
    let may_lack_method = code == ReasonCode::SUCCESS && properties.is_empty();
    if seen & 1 << AUTHENTICATION_METHOD == 0 && !may_lack_method {
        return Err(DecodeError::protocol("an AUTH with an authentication method", "none"));
    }
    Ok(Packet::Auth(Auth { code, properties }))
}
