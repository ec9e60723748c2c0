//! A client of 3.1.1.

pub use crate::client::*;

use crate::{Broker, Peer, Scene};
use ringmq::codec::Version;

pub const PINGREQ: &[u8] = &[0xC0, 0];
pub const PINGRESP: &[u8] = &[0xD0, 0];
pub const DISCONNECT: &[u8] = &[0xE0, 0];

pub type Client = crate::client::Client<4>;
pub type Pub = crate::client::Pub<4>;

/// A CONNECT with these flags and this payload.
pub fn connect(flags: u8, payload: &[u8]) -> Vec<u8> {
    connect_as("MQTT", 4, flags, 0, payload)
}

/// A client of this case that is connected to the broker with its defaults.
pub fn peer(s: &Scene, name: &str) -> Peer {
    Client::new(s.id(name)).login(&s.broker())
}

/// SUBSCRIBE with filters and their QoS bytes.
pub fn subscribe_bytes(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_packet(Version::V311, packet_id, &[], filters)
}

/// Subscribes to a topic once something is retained there, and takes that: what is retained was looked up then,
/// so what is published next comes as it is published, and once.
pub fn subscribe_settled(s: &Scene, peer: &mut Peer, topic: &str, qos: u8) {
    Pub::new(topic, "before").qos(1, 1).retain().send(&mut self::peer(s, "before"));
    subscribe(peer, topic, qos);
    assert!(take(peer, "before").retain);
}

/// UNSUBSCRIBE.
pub fn unsubscribe_bytes(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    unsubscribe_packet(Version::V311, packet_id, filters)
}

/// DISCONNECT, and the end of the connection.
pub fn leave(mut peer: Peer) {
    peer.send_raw(DISCONNECT);
    peer.expect_closed();
}

/// A connected client that sends this is closed.
#[track_caller]
pub fn faulty(s: &Scene, bytes: &[u8]) {
    let mut peer = peer(s, "faulty");
    peer.send_raw(bytes);
    ends(&mut peer, bytes);
}

/// A CONNECT that is answered with this return code and no session present, then closed.
#[track_caller]
pub fn refused(broker: &Broker, bytes: &[u8], code: u8) {
    let mut peer = Peer::open(broker, Version::V311);
    peer.send_raw(bytes);
    raw(&mut peer, &[0x20, 2, 0, code]);
    ends(&mut peer, bytes);
}
