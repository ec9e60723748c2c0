//! A client in bytes: what it sends is as right or as wrong as the case wants it. The files of each standard take
//! what is here through a module of theirs that names the version.

use crate::common::{Message, Read, Received, TIMEOUT};
use crate::raw::{p_four, p_two, packet, properties, text, two};
use crate::{Broker, Peer};
use ringmq::codec::{ConnAck, Packet, Publish, ReasonCode, Version};
use ringmq::message::QoS;
use std::collections::VecDeque;
use std::ops::Deref;
use std::time::Duration;

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;

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

/// A property length and these properties, where the version has them.
fn property_list(version: Version, list: &[Vec<u8>]) -> Vec<u8> {
    if version != Version::V5 {
        assert!(list.is_empty(), "properties are of 5.0");
        return Vec::new();
    }
    properties(&list.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The version of a protocol level.
fn version_of(level: u8) -> Version {
    if level == 5 { Version::V5 } else { Version::V311 }
}

/// A CONNECT of 3.1.1 or 5.0, by its protocol level.
#[derive(Clone)]
pub struct Client<const LEVEL: u8> {
    version: Version,
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
    /// QoS 1, not retained, no properties.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Will {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        Will { topic, payload, qos: 1, retain: false, properties: Vec::new() }
    }

    pub fn qos(self, qos: u8) -> Will {
        Will { qos, ..self }
    }

    pub fn retain(self) -> Will {
        Will { retain: true, ..self }
    }

    pub fn with(mut self, property: Vec<u8>) -> Will {
        self.properties.push(property);
        self
    }

    pub fn delay(self, seconds: u32) -> Will {
        self.with(p_four(id::WILL_DELAY, seconds))
    }
}

impl<const LEVEL: u8> Client<LEVEL> {
    /// Clean Start (Clean Session 1 in 3.1.1), keep alive off, no properties.
    pub fn new(id: impl AsRef<[u8]>) -> Client<LEVEL> {
        Client {
            version: version_of(LEVEL),
            id: id.as_ref().to_vec(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            username: None,
            password: None,
        }
    }

    /// Clean Start 0, and in 5.0 a session that lasts for an hour.
    pub fn lasting(id: impl AsRef<[u8]>) -> Client<LEVEL> {
        let client = Client { clean: false, ..Client::new(id) };
        if LEVEL == 5 { client.expiry(3_600) } else { client }
    }

    /// As 3.1 has it.
    pub fn v31(self) -> Client<LEVEL> {
        Client { version: Version::V31, ..self }
    }

    pub fn clean(self, clean: bool) -> Client<LEVEL> {
        Client { clean, ..self }
    }

    pub fn keep_alive(self, seconds: u16) -> Client<LEVEL> {
        Client { keep_alive: seconds, ..self }
    }

    pub fn with(mut self, property: Vec<u8>) -> Client<LEVEL> {
        self.properties.push(property);
        self
    }

    pub fn expiry(self, seconds: u32) -> Client<LEVEL> {
        self.with(p_four(id::SESSION_EXPIRY, seconds))
    }

    pub fn receive_maximum(self, n: u16) -> Client<LEVEL> {
        self.with(p_two(id::RECEIVE_MAXIMUM, n))
    }

    pub fn packet_maximum(self, n: u32) -> Client<LEVEL> {
        self.with(p_four(id::PACKET_MAXIMUM, n))
    }

    pub fn alias_maximum(self, n: u16) -> Client<LEVEL> {
        self.with(p_two(id::ALIAS_MAXIMUM, n))
    }

    pub fn will(self, will: Will) -> Client<LEVEL> {
        Client { will: Some(will), ..self }
    }

    pub fn username(self, name: impl AsRef<[u8]>) -> Client<LEVEL> {
        Client { username: Some(name.as_ref().to_vec()), ..self }
    }

    pub fn password(self, password: impl AsRef<[u8]>) -> Client<LEVEL> {
        Client { password: Some(password.as_ref().to_vec()), ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut rest = property_list(self.version, &self.properties);
        rest.extend(text(&self.id));
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            rest.extend(property_list(self.version, &will.properties));
            rest.extend([text(&will.topic), text(&will.payload)].concat());
        }
        if let Some(name) = &self.username {
            flags |= 0x80;
            rest.extend(text(name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            rest.extend(text(password));
        }
        let (name, level) = if self.version == Version::V31 { ("MQIsdp", 3) } else { ("MQTT", LEVEL) };
        connect_as(name, level, flags, self.keep_alive, &rest)
    }

    /// Connects and returns what came.
    pub fn open(&self, broker: &Broker) -> (Peer, Received) {
        let mut peer = Peer::open(broker, self.version);
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

/// A CONNECT from its parts; `rest` is what follows the keep alive.
pub fn connect_as(name: &str, level: u8, flags: u8, keep_alive: u16, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text(name), &[level, flags], &two(keep_alive), rest])
}

pub fn connack_of(received: &Received) -> ConnAck<'_> {
    let Packet::ConnAck(connack) = received.packet() else { panic!("CONNACK, got {received:?}") };
    connack
}

/// A PUBLISH of 3.1.1 or 5.0, by its protocol level.
#[derive(Clone)]
pub struct Pub<const LEVEL: u8> {
    first: u8,
    topic: Vec<u8>,
    id: Option<u16>,
    properties: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

impl<const LEVEL: u8> Pub<LEVEL> {
    /// QoS 0.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Pub<LEVEL> {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        Pub { first: 0x30, topic, id: None, properties: Vec::new(), payload }
    }

    /// With QoS 1, 2 or the forbidden 3; QoS 0 has no packet identifier.
    pub fn qos(mut self, qos: u8, packet_id: u16) -> Pub<LEVEL> {
        self.first |= qos << 1;
        self.id = (qos > 0).then_some(packet_id);
        self
    }

    pub fn dup(mut self) -> Pub<LEVEL> {
        self.first |= 0x08;
        self
    }

    pub fn retain(mut self) -> Pub<LEVEL> {
        self.first |= 0x01;
        self
    }

    pub fn with(mut self, property: Vec<u8>) -> Pub<LEVEL> {
        self.properties.push(property);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let id = self.id.map(two).unwrap_or_default();
        let list = property_list(version_of(LEVEL), &self.properties);
        packet(self.first, &[&text(&self.topic), &id, &list, &self.payload])
    }

    /// Sends it and takes what the QoS asks for; the code of the PUBACK or PUBREC.
    pub fn send(&self, peer: &mut Peer) -> ReasonCode {
        peer.send_raw(&self.bytes());
        let Some(id) = self.id else { return ReasonCode::SUCCESS };
        let code = ack(peer, if self.first & 0x06 == 0x02 { PUBACK } else { PUBREC }, id);
        if self.first & 0x06 == 0x04 && !code.is_error() {
            peer.send_raw(&ack_bytes(PUBREL, id));
            assert_eq!(ack(peer, PUBCOMP, id), ReasonCode::SUCCESS);
        }
        code
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of success, by its first byte.
pub fn ack_bytes(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, &[&two(packet_id)])
}

/// The next packet, which must be this acknowledgement; its code.
#[track_caller]
pub fn ack(peer: &mut Peer, first: u8, packet_id: u16) -> ReasonCode {
    let received = peer.next();
    assert_eq!(received.bytes()[0], first, "{received:?}");
    let Packet::Ack(ack) = received.packet() else { panic!("got {received:?}") };
    assert_eq!(ack.packet_id.get(), packet_id, "{received:?}");
    ack.code
}

/// The next packet, which must have these bytes.
#[track_caller]
pub fn raw(peer: &mut Peer, bytes: &[u8]) {
    let got = peer.next();
    assert_eq!(got.bytes(), bytes, "expected the right bytes, got {got:?}");
}

/// SUBSCRIBE with properties, filters and their options bytes.
pub fn subscribe_packet(version: Version, packet_id: u16, list: &[&[u8]], filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> =
        filters.iter().flat_map(|(filter, options)| [text(filter), vec![*options]].concat()).collect();
    let list: Vec<_> = list.iter().map(|property| property.to_vec()).collect();
    packet(0x82, &[&two(packet_id), &property_list(version, &list), &filters])
}

/// Subscribes and returns the codes. Messages that come before SUBACK fail.
#[track_caller]
pub fn subscribe_all(peer: &mut Peer, list: &[&[u8]], filters: &[(&str, u8)]) -> Vec<u8> {
    let packet_id = peer.packet_id();
    peer.send_raw(&subscribe_packet(peer.version(), packet_id.get(), list, filters));
    let received = peer.next();
    match received.packet() {
        Packet::SubAck(suback) if suback.packet_id == packet_id => suback.codes.to_vec(),
        _ => panic!("SUBACK {packet_id}, got {received:?}"),
    }
}

/// Subscribes to one filter with its options byte, which must be granted.
#[track_caller]
pub fn subscribe(peer: &mut Peer, filter: &str, options: u8) {
    assert_eq!(subscribe_all(peer, &[], &[(filter, options)]), [options & 0x03], "{filter}");
}

/// UNSUBSCRIBE.
pub fn unsubscribe_packet(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(text).collect();
    packet(0xA2, &[&two(packet_id), &property_list(version, &[]), &filters])
}

/// Unsubscribes and returns the reason codes, which 3.1.1 has not. Messages that come before UNSUBACK fail.
#[track_caller]
pub fn unsubscribe(peer: &mut Peer, filters: &[&str]) -> Vec<u8> {
    let packet_id = peer.packet_id();
    peer.send_raw(&unsubscribe_packet(peer.version(), packet_id.get(), filters));
    let received = peer.next();
    match received.packet() {
        Packet::UnsubAck(unsuback) if unsuback.packet_id == packet_id => unsuback.codes.to_vec(),
        _ => panic!("UNSUBACK {packet_id}, got {received:?}"),
    }
}

/// A message as it came, with the packet that it came in.
#[derive(Clone, Debug)]
pub struct Delivery {
    message: Message,
    received: Received,
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Delivery {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.received.bytes()
    }
}

impl AsRef<Received> for Delivery {
    fn as_ref(&self) -> &Received {
        &self.received
    }
}

impl AsRef<Received> for Received {
    fn as_ref(&self) -> &Received {
        self
    }
}

/// The PUBLISH that it is.
#[track_caller]
pub fn publish_of<R: AsRef<Received>>(received: &R) -> Publish<'_> {
    let received = received.as_ref();
    let Packet::Publish(publish) = received.packet() else { panic!("PUBLISH, got {received:?}") };
    publish
}

/// The packet identifier of a message of QoS 1 or 2.
#[track_caller]
pub fn id_of(message: &Message) -> u16 {
    message.packet_id.expect("QoS 1 and 2 have one").get()
}

/// It is a message with this payload.
#[track_caller]
fn as_message(received: Received, payload: &str) -> Delivery {
    let message = received.message().unwrap_or_else(|| panic!("{payload}: PUBLISH, got {received:?}"));
    assert_eq!(String::from_utf8_lossy(&message.payload), payload, "{received:?}");
    Delivery { message, received }
}

/// The next packet is a message with this payload.
#[track_caller]
pub fn expect(peer: &mut Peer, payload: &str) -> Delivery {
    as_message(peer.next(), payload)
}

/// The next packet is a message with this payload; it is acknowledged as its QoS asks. Nothing else may come
/// meanwhile: [`take_all`] is for several messages.
#[track_caller]
pub fn take(peer: &mut Peer, payload: &str) -> Delivery {
    take_all(peer, &[payload]).remove(0)
}

/// The next messages have these payloads; they are acknowledged as their QoS asks, while others may come.
#[track_caller]
pub fn take_all<T: AsRef<str>>(peer: &mut Peer, payloads: &[T]) -> Vec<Delivery> {
    let (mut taken, mut open) = (Vec::new(), VecDeque::new());
    while taken.len() < payloads.len() || !open.is_empty() {
        let received = peer.next();
        if received.message().is_none() {
            let id = open.pop_front().unwrap_or_else(|| panic!("a message, got {received:?}"));
            assert_eq!(
                received.bytes(),
                ack_bytes(PUBREL, id),
                "PUBREL in the order of PUBREC: {received:?}"
            );
            peer.send_raw(&ack_bytes(PUBCOMP, id));
            continue;
        }
        let wanted = payloads.get(taken.len()).map_or("no more", AsRef::as_ref);
        let message = as_message(received, wanted);
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => peer.send_raw(&ack_bytes(PUBACK, id_of(&message))),
            QoS::ExactlyOnce => {
                open.push_back(id_of(&message));
                peer.send_raw(&ack_bytes(PUBREC, id_of(&message)));
            }
        }
        taken.push(message);
    }
    taken
}

/// Nothing comes within this time.
#[track_caller]
pub fn quiet(peer: &mut Peer, time: Duration) {
    match peer.read_packet(time) {
        Read::TimedOut => {}
        other => panic!("expected nothing, got {other:?}"),
    }
}

/// The end of the connection, with nothing before it.
#[track_caller]
pub fn ends(peer: &mut Peer, after: &[u8]) {
    match peer.read_packet(TIMEOUT) {
        Read::Closed => {}
        other => panic!("{after:02x?}: the end, got {other:?}"),
    }
}

/// First bytes that are answered with nothing but the end of the connection.
#[track_caller]
pub fn dropped(broker: &Broker, bytes: &[u8]) {
    let mut peer = Peer::open(broker, Version::V5);
    peer.send_raw(bytes);
    ends(&mut peer, bytes);
}
