//! A client of 5.0.

pub use crate::client::*;
pub use crate::is_exact;
pub use crate::raw::{p_byte, p_four, p_text, p_two, p_user};

use crate::raw::{packet, properties, two, varint};
use crate::{Broker, Peer, Scene};
use ringmq::codec::{Packet, PacketId, Property, ReasonCode, Version};

pub type Client = crate::client::Client<5>;
pub type Pub = crate::client::Pub<5>;

/// A CONNECT from its parts; `properties` with their length.
pub fn connect(flags: u8, keep_alive: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    connect_as("MQTT", 5, flags, keep_alive, &[properties, payload].concat())
}

/// A client of this case that is connected to the broker with its defaults.
pub fn peer(s: &Scene, name: &str) -> Peer {
    Client::new(s.id(name)).login(&s.broker())
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with a reason code.
pub fn ack_with(first: u8, packet_id: u16, code: ReasonCode) -> Vec<u8> {
    packet(first, &[&two(packet_id), &[code.0]])
}

pub fn packet_id(n: u16) -> PacketId {
    PacketId::new(n).expect("not 0")
}

/// SUBSCRIBE with properties, filters and their options bytes.
pub fn subscribe_bytes(packet_id: u16, list: &[&[u8]], filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_packet(Version::V5, packet_id, list, filters)
}

/// Subscribes with a Subscription Identifier.
pub fn subscribe_as(peer: &mut Peer, number: u32, filter: &str, options: u8) {
    let number = [vec![id::SUBSCRIPTION_ID], varint(number)].concat();
    assert_eq!(subscribe_all(peer, &[&number], &[(filter, options)]), [options & 0x03], "{filter}");
}

/// UNSUBSCRIBE.
pub fn unsubscribe_bytes(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    unsubscribe_packet(Version::V5, packet_id, filters)
}

/// DISCONNECT with a code and properties; does not wait.
pub fn disconnect_bytes(code: u8, list: &[&[u8]]) -> Vec<u8> {
    packet(0xE0, &[&[code], &properties(list)])
}

/// DISCONNECT with a code, and the end of the connection.
pub fn disconnect_with(mut peer: Peer, code: u8) {
    peer.send_raw(&disconnect_bytes(code, &[]));
    peer.expect_closed();
}

/// Its properties, in order.
pub fn properties_of(message: &Delivery) -> Vec<Property<'_>> {
    publish_of(message).properties.iter().collect()
}

/// The next packet is DISCONNECT with this code, then the connection ends.
#[track_caller]
pub fn disconnected(peer: &mut Peer, code: ReasonCode, after: &[u8]) {
    let got = peer.next();
    let Packet::Disconnect(disconnect) = got.packet() else {
        panic!("{after:02x?}: DISCONNECT with {code}, got {got:?}")
    };
    assert_eq!(disconnect.code, code, "{after:02x?}: {got:?}");
    peer.expect_closed();
}

/// A connected client that sends this is told this code, then closed.
#[track_caller]
pub fn faulty(s: &Scene, bytes: &[u8], code: ReasonCode) {
    let mut peer = peer(s, "faulty");
    peer.send_raw(bytes);
    disconnected(&mut peer, code, bytes);
}

/// A CONNECT that is answered with this code, then closed.
#[track_caller]
pub fn refused(broker: &Broker, bytes: &[u8], code: ReasonCode) {
    let mut peer = Peer::open(broker, Version::V5);
    peer.send_raw(bytes);
    let answer = peer.next();
    let connack = connack_of(&answer);
    assert_eq!((connack.code, connack.session_present), (code, false), "{bytes:02x?}: {answer:?}");
    peer.expect_closed();
}
