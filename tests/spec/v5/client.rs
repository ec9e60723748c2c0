//! A 5.0 client in bytes: what it sends is as right or as wrong as the case wants it.

use crate::common::{Read, TIMEOUT};
pub use crate::is_exact;
use crate::raw::{packet, properties, text, two};
use crate::{Broker, Peer, Scene};
use ringmq::codec::{ConnAck, Packet, PacketId, Property, Publish, ReasonCode, Version};
use ringmq::message::QoS;
use std::time::Duration;

/// Identifiers of properties.
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0B;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const RESPONSE_INFORMATION: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const ALIAS_MAXIMUM: u8 = 0x22;
    pub const ALIAS: u8 = 0x23;
    pub const PACKET_MAXIMUM: u8 = 0x27;
}

pub use crate::raw::{p_byte, p_four, p_text, p_two, p_user};

/// A CONNECT.
#[derive(Clone)]
pub struct Client {
    id: Vec<u8>,
    clean: bool,
    keep_alive: u16,
    properties: Vec<Vec<u8>>,
    will: Option<Will>,
    username: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

/// A will within a CONNECT.
#[derive(Clone)]
pub struct Will {
    topic: Vec<u8>,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<Vec<u8>>,
}

impl Will {
    pub fn new(topic: impl AsRef<[u8]>, payload: &str) -> Will {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.into());
        Will { topic, payload, qos: 1, retain: false, properties: Vec::new() }
    }

    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Will {
        self.properties.push(property);
        self
    }

    pub fn delay(self, seconds: u32) -> Will {
        self.with(p_four(id::WILL_DELAY, seconds))
    }
}

impl Client {
    /// Clean Start, keep alive off, no properties.
    pub fn new(id: impl AsRef<[u8]>) -> Client {
        let (properties, id) = (Vec::new(), id.as_ref().to_vec());
        Client { id, clean: true, keep_alive: 0, properties, will: None, username: None, password: None }
    }

    /// Clean Start 0, and a session that lasts for an hour.
    pub fn lasting(id: impl AsRef<[u8]>) -> Client {
        Client { clean: false, ..Client::new(id) }.expiry(3_600)
    }

    pub fn clean(mut self, clean: bool) -> Client {
        self.clean = clean;
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Client {
        self.keep_alive = seconds;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Client {
        self.properties.push(property);
        self
    }

    pub fn expiry(self, seconds: u32) -> Client {
        self.with(p_four(id::SESSION_EXPIRY, seconds))
    }

    pub fn receive_maximum(self, n: u16) -> Client {
        self.with(p_two(id::RECEIVE_MAXIMUM, n))
    }

    pub fn packet_maximum(self, n: u32) -> Client {
        self.with(p_four(id::PACKET_MAXIMUM, n))
    }

    pub fn alias_maximum(self, n: u16) -> Client {
        self.with(p_two(id::ALIAS_MAXIMUM, n))
    }

    pub fn will(mut self, will: Will) -> Client {
        self.will = Some(will);
        self
    }

    pub fn username(mut self, name: impl AsRef<[u8]>) -> Client {
        self.username = Some(name.as_ref().to_vec());
        self
    }

    pub fn password(mut self, password: impl AsRef<[u8]>) -> Client {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let list = |all: &[Vec<u8>]| properties(&all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut payload = text(&self.id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend([list(&will.properties), text(&will.topic), text(&will.payload)].concat());
        }
        if let Some(name) = &self.username {
            flags |= 0x80;
            payload.extend(text(name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(text(password));
        }
        connect(flags, self.keep_alive, &list(&self.properties), &payload)
    }

    /// Connects and returns what came.
    pub fn open(&self, broker: &Broker) -> (Peer, crate::common::Received) {
        let mut peer = Peer::open(broker, Version::V5);
        peer.send_raw(&self.bytes());
        let answer = peer.next();
        (peer, answer)
    }

    /// Connects, which must succeed, and says whether a session was present.
    pub fn resume(&self, broker: &Broker) -> (Peer, bool) {
        let (peer, answer) = self.open(broker);
        let connack = connack_of(&answer);
        assert_eq!(connack.code, ReasonCode::SUCCESS, "{answer:?}");
        (peer, connack.session_present)
    }

    /// Connects, which must succeed.
    pub fn login(&self, broker: &Broker) -> Peer {
        self.resume(broker).0
    }
}

/// A CONNECT from its parts; `properties` with their length.
pub fn connect(flags: u8, keep_alive: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[5, flags], &two(keep_alive), properties, payload])
}

pub fn connack_of(received: &crate::common::Received) -> ConnAck<'_> {
    let Packet::ConnAck(connack) = received.packet() else { panic!("CONNACK, got {received:?}") };
    connack
}

pub fn publish_of(received: &crate::common::Received) -> Publish<'_> {
    let Packet::Publish(publish) = received.packet() else { panic!("PUBLISH, got {received:?}") };
    publish
}

/// A client of this case that is connected to its broker.
pub fn peer(s: &Scene, name: &str) -> Peer {
    Client::new(s.id(name)).login(&s.broker())
}

/// A PUBLISH.
#[derive(Clone)]
pub struct Pub {
    first: u8,
    topic: Vec<u8>,
    id: Option<u16>,
    properties: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

impl Pub {
    /// QoS 0.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Pub {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        Pub { first: 0x30, topic, id: None, properties: Vec::new(), payload }
    }

    pub fn qos(mut self, qos: u8, packet_id: u16) -> Pub {
        self.first |= qos << 1;
        self.id = Some(packet_id);
        self
    }

    pub fn dup(mut self) -> Pub {
        self.first |= 0x08;
        self
    }

    pub fn retain(mut self) -> Pub {
        self.first |= 0x01;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Pub {
        self.properties.push(property);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let id = self.id.map(two).unwrap_or_default();
        let list: Vec<&[u8]> = self.properties.iter().map(Vec::as_slice).collect();
        packet(self.first, &[&text(&self.topic), &id, &properties(&list), &self.payload])
    }

    /// Sends it and takes what the QoS asks for; the code of the PUBACK or PUBREC.
    pub fn send(&self, peer: &mut Peer) -> ReasonCode {
        peer.send_raw(&self.bytes());
        let Some(id) = self.id else { return ReasonCode::SUCCESS };
        let code = ack(peer, if self.first & 0x06 == 0x02 { 0x40 } else { 0x50 }, id);
        if self.first & 0x06 == 0x04 && !code.is_error() {
            peer.send_raw(&ack_bytes(0x62, id));
            assert_eq!(ack(peer, 0x70, id), ReasonCode::SUCCESS);
        }
        code
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of success, by its first byte.
pub fn ack_bytes(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, &[&two(packet_id)])
}

/// One with a reason code.
pub fn ack_with(first: u8, packet_id: u16, code: ReasonCode) -> Vec<u8> {
    packet(first, &[&two(packet_id), &[code.0]])
}

/// The next packet, which must be this acknowledgement; its code.
pub fn ack(peer: &mut Peer, first: u8, packet_id: u16) -> ReasonCode {
    let received = peer.next();
    assert_eq!(received.bytes()[0], first, "{received:?}");
    let Packet::Ack(ack) = received.packet() else { panic!("got {received:?}") };
    assert_eq!(ack.packet_id.get(), packet_id, "{received:?}");
    ack.code
}

pub fn packet_id(n: u16) -> PacketId {
    PacketId::new(n).expect("not 0")
}

/// SUBSCRIBE with filters and their options bytes.
pub fn subscribe_bytes(packet_id: u16, list: &[&[u8]], filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> =
        filters.iter().flat_map(|(filter, options)| [text(filter), vec![*options]].concat()).collect();
    packet(0x82, &[&two(packet_id), &properties(list), &filters])
}

/// Subscribes and returns the reason codes. Messages that come before SUBACK fail.
pub fn subscribe_all(peer: &mut Peer, list: &[&[u8]], filters: &[(&str, u8)]) -> Vec<u8> {
    let packet_id = peer.packet_id();
    peer.send_raw(&subscribe_bytes(packet_id.get(), list, filters));
    let received = peer.next();
    match received.packet() {
        Packet::SubAck(suback) if suback.packet_id == packet_id => suback.codes.to_vec(),
        _ => panic!("SUBACK {packet_id}, got {received:?}"),
    }
}

/// Subscribes to one filter with its options byte, which must be granted.
pub fn subscribe(peer: &mut Peer, filter: &str, options: u8) {
    assert_eq!(subscribe_all(peer, &[], &[(filter, options)]), [options & 0x03], "{filter}");
}

/// Subscribes with a Subscription Identifier.
pub fn subscribe_as(peer: &mut Peer, number: u32, filter: &str, options: u8) {
    let number = [vec![id::SUBSCRIPTION_ID], crate::raw::varint(number)].concat();
    assert_eq!(subscribe_all(peer, &[&number], &[(filter, options)]), [options & 0x03], "{filter}");
}

/// UNSUBSCRIBE.
pub fn unsubscribe_bytes(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(text).collect();
    packet(0xA2, &[&two(packet_id), &properties(&[]), &filters])
}

/// Unsubscribes and returns the reason codes.
pub fn unsubscribe(peer: &mut Peer, filters: &[&str]) -> Vec<u8> {
    let packet_id = peer.packet_id();
    peer.send_raw(&unsubscribe_bytes(packet_id.get(), filters));
    let received = peer.next();
    match received.packet() {
        Packet::UnsubAck(unsuback) if unsuback.packet_id == packet_id => unsuback.codes.to_vec(),
        _ => panic!("UNSUBACK {packet_id}, got {received:?}"),
    }
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

/// The next packet is this message: its payload.
pub fn expect(peer: &mut Peer, payload: &str) -> crate::common::Received {
    let received = peer.next();
    let publish = publish_of(&received);
    assert_eq!(String::from_utf8_lossy(publish.payload), payload, "{received:?}");
    received
}

/// The next packet is this message; it is acknowledged as its QoS asks.
pub fn take(peer: &mut Peer, payload: &str) -> crate::common::Received {
    let received = expect(peer, payload);
    let publish = publish_of(&received);
    let Some(id) = publish.packet_id else { return received };
    if publish.qos == QoS::AtLeastOnce {
        peer.send_raw(&ack_bytes(0x40, id.get()));
    } else {
        peer.send_raw(&ack_bytes(0x50, id.get()));
        assert_eq!(ack(peer, 0x62, id.get()), ReasonCode::SUCCESS);
        peer.send_raw(&ack_bytes(0x70, id.get()));
    }
    received
}

/// The next packets are these messages; they are acknowledged once all are there.
pub fn take_all(peer: &mut Peer, payloads: &[&str]) {
    let all: Vec<_> = payloads.iter().map(|payload| expect(peer, payload)).collect();
    for publish in all.iter().map(publish_of) {
        let Some(id) = publish.packet_id else { continue };
        let two = publish.qos == QoS::ExactlyOnce;
        peer.send_raw(&ack_bytes(if two { 0x50 } else { 0x40 }, id.get()));
        if two {
            assert_eq!(ack(peer, 0x62, id.get()), ReasonCode::SUCCESS);
            peer.send_raw(&ack_bytes(0x70, id.get()));
        }
    }
    peer.ping();
}

/// Its properties, in order.
pub fn properties_of(received: &crate::common::Received) -> Vec<Property<'_>> {
    publish_of(received).properties.iter().collect()
}

/// Nothing comes within this time.
pub fn quiet(peer: &mut Peer, time: Duration) {
    match peer.read_packet(time) {
        Read::TimedOut => {}
        other => panic!("expected nothing, got {other:?}"),
    }
}

/// A connected client that sends this is told this code, then closed.
pub fn faulty(s: &Scene, bytes: &[u8], code: ReasonCode) {
    let mut peer = peer(s, "faulty");
    peer.send_raw(bytes);
    let got = peer.next();
    let Packet::Disconnect(disconnect) = got.packet() else {
        panic!("{bytes:02x?}: DISCONNECT with {code}, got {got:?}")
    };
    assert_eq!(disconnect.code, code, "{bytes:02x?}: {got:?}");
    peer.expect_closed();
}

/// A CONNECT that is answered with this code, then closed.
pub fn refused(broker: &Broker, bytes: &[u8], code: ReasonCode) {
    let mut peer = Peer::open(broker, Version::V5);
    peer.send_raw(bytes);
    let answer = peer.next();
    let connack = connack_of(&answer);
    assert_eq!((connack.code, connack.session_present), (code, false), "{bytes:02x?}: {answer:?}");
    peer.expect_closed();
}

/// First bytes that are answered with nothing but the end of the connection.
pub fn dropped(broker: &Broker, bytes: &[u8]) {
    let mut peer = Peer::open(broker, Version::V5);
    peer.send_raw(bytes);
    match peer.read_packet(TIMEOUT) {
        Read::Closed => {}
        other => panic!("{bytes:02x?}: the end, got {other:?}"),
    }
}
