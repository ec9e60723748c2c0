//! Properties of 5.0 in each packet that has them: what is accepted reads to its end, can be put together again,
//! and a router forwards what a look at each property says.

use super::input::Input;
use ringmq::codec::{DecodeError, Packet, PacketType, Properties, Property, PropertyBuf, Version, decode};

/// Each packet with properties: its first byte, what stands in front of them and what follows.
const PLACES: &[(PacketType, u8, &[u8], &[u8])] = &[
    (PacketType::Connect, 0x10, b"\x00\x04MQTT\x05\x02\x00\x00", b"\x00\x00"),
    (PacketType::ConnAck, 0x20, b"\x00\x00", b""),
    (PacketType::Publish, 0x32, b"\x00\x01t\x00\x01", b"payload"),
    (PacketType::PubAck, 0x40, b"\x00\x01\x10", b""),
    (PacketType::PubRec, 0x50, b"\x00\x01\x10", b""),
    (PacketType::PubRel, 0x62, b"\x00\x01\x92", b""),
    (PacketType::PubComp, 0x70, b"\x00\x01\x92", b""),
    (PacketType::Subscribe, 0x82, b"\x00\x01", b"\x00\x01f\x00"),
    (PacketType::SubAck, 0x90, b"\x00\x01", b"\x00"),
    (PacketType::Unsubscribe, 0xA2, b"\x00\x01", b"\x00\x01f"),
    (PacketType::UnsubAck, 0xB0, b"\x00\x01", b"\x00"),
    (PacketType::Disconnect, 0xE0, b"\x04", b""),
    (PacketType::Auth, 0xF0, b"\x18", b""),
];

/// The will's, within a CONNECT: in front of its length, and behind its properties.
const WILL: (&[u8], &[u8]) = (b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x00", b"\x00\x01w\x00\x01p");

pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let place = input.below(PLACES.len() + 1);
    let raw = input.take(usize::MAX);
    let Some(&(kind, first, before, behind)) = PLACES.get(place) else {
        let packet = whole(0x10, WILL.0, raw, WILL.1);
        if let Ok(Packet::Connect(connect)) = decode(Version::V5, &packet) {
            let will = connect.will.expect("the flag says that there is one");
            readable(&will.properties, raw);
            let routing = will.routing();
            let mut scratch = Vec::new();
            assert_eq!(routing.forward.bytes(&mut scratch), forwarded(&will.properties));
            assert_eq!(
                routing.delay_s,
                find(&will.properties, |p| match p {
                    Property::WillDelayInterval(s) => Some(s),
                    _ => None,
                })
                .unwrap_or(0)
            );
        }
        return;
    };
    let alone = Properties::parse(raw, kind);
    let packet = whole(first, before, raw, behind);
    let decoded = decode(Version::V5, &packet);
    match (&alone, &decoded) {
        (Ok(properties), Ok(packet)) => {
            readable(properties, raw);
            assert_eq!(properties_of(packet), *properties);
            let mut again = Vec::new();
            packet.encode(Version::V5, &mut again);
            assert_eq!(decode(Version::V5, &again), Ok(*packet));
            if let Packet::Publish(publish) = packet {
                routed(publish);
            }
        }
        // AUTH asks for a method as well.
        (Ok(_), Err(_)) => assert_eq!(kind, PacketType::Auth),
        (Err(alone), Err(DecodeError { code, expected, got, .. })) => {
            assert_eq!((alone.code, alone.expected, alone.got), (*code, *expected, *got));
        }
        (Err(error), Ok(packet)) => panic!("{error} in properties that stand in {packet:?}"),
    }
}

fn whole(first: u8, before: &[u8], properties: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut body = before.to_vec();
    varint(properties.len(), &mut body);
    body.extend_from_slice(properties);
    body.extend_from_slice(behind);
    let mut packet = vec![first];
    varint(body.len(), &mut packet);
    packet.append(&mut body);
    packet
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn properties_of<'a>(packet: &Packet<'a>) -> Properties<'a> {
    match packet {
        Packet::Connect(p) => p.properties,
        Packet::ConnAck(p) => p.properties,
        Packet::Publish(p) => p.properties,
        Packet::Ack(p) => p.properties,
        Packet::Subscribe(p) => p.properties,
        Packet::SubAck(p) => p.properties,
        Packet::Unsubscribe(p) => p.properties,
        Packet::UnsubAck(p) => p.properties,
        Packet::Disconnect(p) => p.properties,
        Packet::Auth(p) => p.properties,
        Packet::PingReq | Packet::PingResp => Properties::EMPTY,
    }
}

/// Accepted properties can be put together again from what their iterator says, to the same bytes.
fn readable(properties: &Properties<'_>, raw: &[u8]) {
    assert_eq!(properties.raw(), raw);
    let mut again = PropertyBuf::new();
    let mut ends = vec![0];
    for property in properties.iter() {
        assert!(again.push(property), "{property:?} was accepted");
        ends.push(again.len());
    }
    assert_eq!(again.as_properties(), *properties);
    // Cut back to any length, it holds whole properties.
    for len in 0..=again.len().min(64) {
        let mut cut = again.clone();
        cut.truncate(len);
        assert_eq!(Some(&cut.len()), ends.iter().rev().find(|end| **end <= len));
        assert!(cut.as_properties().iter().count() < ends.len());
    }
}

fn find<T>(properties: &Properties<'_>, of: impl Fn(Property<'_>) -> Option<T>) -> Option<T> {
    properties.iter().find_map(of)
}

/// What goes on to subscribers, property by property.
fn forwarded(properties: &Properties<'_>) -> Vec<u8> {
    let mut kept = PropertyBuf::new();
    for property in properties.iter() {
        let stays = matches!(
            property,
            Property::MessageExpiryInterval(_)
                | Property::SubscriptionIdentifier(_)
                | Property::TopicAlias(_)
                | Property::WillDelayInterval(_)
        );
        assert!(stays || kept.push(property));
    }
    kept.as_properties().raw().to_vec()
}

fn routed(publish: &ringmq::codec::Publish<'_>) {
    let (routing, properties) = (publish.routing(), publish.properties);
    let mut scratch = Vec::new();
    assert_eq!(routing.forward.bytes(&mut scratch), forwarded(&properties));
    let expiry = find(&properties, |p| match p {
        Property::MessageExpiryInterval(s) => Some(s),
        _ => None,
    });
    let alias = find(&properties, |p| match p {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    });
    let id = find(&properties, |p| matches!(p, Property::SubscriptionIdentifier(_)).then_some(()));
    let utf8 = find(&properties, |p| matches!(p, Property::PayloadFormatIndicator(1)).then_some(()));
    assert_eq!((routing.expiry_s, routing.alias), (expiry, alias));
    assert_eq!((routing.has_subscription_id, routing.payload_format), (id.is_some(), utf8.is_some()));
}
