//! A 3.1.1 client in bytes: what it sends is as right or as wrong as the case wants it.

use crate::common::{Message, Read, TIMEOUT};
use crate::raw::{packet, text, two};
use crate::{Broker, Peer, Scene};
use ringmq::codec::{Packet, Version};

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: &[u8] = &[0xC0, 0];
pub const PINGRESP: &[u8] = &[0xD0, 0];
pub const DISCONNECT: &[u8] = &[0xE0, 0];

/// A CONNECT.
#[derive(Clone)]
pub struct Client {
    version: Version,
    id: Vec<u8>,
    clean: bool,
    keep_alive: u16,
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
}

impl Will {
    /// QoS 1, not retained.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Will {
        Will { topic: topic.as_ref().to_vec(), payload: payload.as_ref().to_vec(), qos: 1, retain: false }
    }

    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }
}

impl Client {
    /// 3.1.1, Clean Session 1, keep alive off.
    pub fn new(id: impl AsRef<[u8]>) -> Client {
        Client {
            version: Version::V311,
            id: id.as_ref().to_vec(),
            clean: true,
            keep_alive: 0,
            will: None,
            username: None,
            password: None,
        }
    }

    /// Clean Session 0.
    pub fn lasting(id: impl AsRef<[u8]>) -> Client {
        Client { clean: false, ..Client::new(id) }
    }

    pub fn v31(self) -> Client {
        Client { version: Version::V31, ..self }
    }

    pub fn keep_alive(self, seconds: u16) -> Client {
        Client { keep_alive: seconds, ..self }
    }

    pub fn will(self, will: Will) -> Client {
        Client { will: Some(will), ..self }
    }

    pub fn username(self, name: impl AsRef<[u8]>) -> Client {
        Client { username: Some(name.as_ref().to_vec()), ..self }
    }

    pub fn password(self, password: impl AsRef<[u8]>) -> Client {
        Client { password: Some(password.as_ref().to_vec()), ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = text(&self.id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend([text(&will.topic), text(&will.payload)].concat());
        }
        if let Some(name) = &self.username {
            flags |= 0x80;
            payload.extend(text(name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(text(password));
        }
        let (name, level) = if self.version == Version::V31 { ("MQIsdp", 3) } else { ("MQTT", 4) };
        connect_as(name, level, flags, self.keep_alive, &payload)
    }

    /// Connects, which must succeed, and says whether a session was present.
    pub fn resume(&self, broker: &Broker) -> (Peer, bool) {
        let mut peer = Peer::open(broker, self.version);
        peer.send_raw(&self.bytes());
        let answer = peer.next();
        match answer.bytes() {
            [0x20, 2, present @ (0 | 1), 0] => (peer, *present == 1),
            _ => panic!("CONNACK of success, got {answer:?}"),
        }
    }

    /// Connects, which must succeed.
    pub fn login(&self, broker: &Broker) -> Peer {
        self.resume(broker).0
    }
}

/// A CONNECT from its parts.
pub fn connect_as(name: &str, level: u8, flags: u8, keep_alive: u16, payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text(name), &[level, flags], &two(keep_alive), payload])
}

/// A CONNECT of 3.1.1 with these flags and this payload.
pub fn connect(flags: u8, payload: &[u8]) -> Vec<u8> {
    connect_as("MQTT", 4, flags, 0, payload)
}

/// A client of this case that is connected to the broker with its defaults.
pub fn peer(s: &Scene, name: &str) -> Peer {
    Client::new(s.id(name)).login(&s.broker())
}

/// A PUBLISH.
#[derive(Clone)]
pub struct Pub {
    first: u8,
    topic: Vec<u8>,
    id: Option<u16>,
    payload: Vec<u8>,
}

impl Pub {
    /// QoS 0.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Pub {
        Pub { first: 0x30, topic: topic.as_ref().to_vec(), id: None, payload: payload.as_ref().to_vec() }
    }

    /// With QoS 1, 2 or the forbidden 3; QoS 0 has no packet identifier.
    pub fn qos(mut self, qos: u8, packet_id: u16) -> Pub {
        self.first |= qos << 1;
        self.id = (qos > 0).then_some(packet_id);
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

    pub fn bytes(&self) -> Vec<u8> {
        let id = self.id.map(two).unwrap_or_default();
        packet(self.first, &[&text(&self.topic), &id, &self.payload])
    }

    /// Sends it and takes what its QoS asks for.
    pub fn send(&self, peer: &mut Peer) {
        peer.send_raw(&self.bytes());
        let Some(id) = self.id else { return };
        if self.first & 0x06 == 0x02 {
            raw(peer, &ack(PUBACK, id));
            return;
        }
        raw(peer, &ack(PUBREC, id));
        peer.send_raw(&ack(PUBREL, id));
        raw(peer, &ack(PUBCOMP, id));
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, &[&two(packet_id)])
}

/// The next packet, which must have these bytes.
pub fn raw(peer: &mut Peer, bytes: &[u8]) {
    let got = peer.next();
    assert_eq!(got.bytes(), bytes, "expected the left bytes, got {got:?}");
}

/// SUBSCRIBE with filters and their QoS bytes.
pub fn subscribe_bytes(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|(f, qos)| [text(f), vec![*qos]].concat()).collect();
    packet(0x82, &[&two(packet_id), &filters])
}

/// Subscribes and returns the return codes. Messages that come before SUBACK fail.
pub fn subscribe_all(peer: &mut Peer, filters: &[(&str, u8)]) -> Vec<u8> {
    let packet_id = peer.packet_id();
    peer.send_raw(&subscribe_bytes(packet_id.get(), filters));
    let received = peer.next();
    match received.packet() {
        Packet::SubAck(suback) if suback.packet_id == packet_id => suback.codes.to_vec(),
        _ => panic!("SUBACK {packet_id}, got {received:?}"),
    }
}

/// Subscribes to one filter, which must be granted as asked.
pub fn subscribe(peer: &mut Peer, filter: &str, qos: u8) {
    assert_eq!(subscribe_all(peer, &[(filter, qos)]), [qos], "{filter}");
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
    let filters: Vec<u8> = filters.iter().flat_map(text).collect();
    packet(0xA2, &[&two(packet_id), &filters])
}

/// Unsubscribes. Messages that come before UNSUBACK fail.
pub fn unsubscribe(peer: &mut Peer, filters: &[&str]) {
    let packet_id = peer.packet_id().get();
    peer.send_raw(&unsubscribe_bytes(packet_id, filters));
    raw(peer, &ack(0xB0, packet_id));
}

/// The next packet is a message with this payload.
pub fn expect(peer: &mut Peer, payload: &str) -> Message {
    let message = peer.expect_message();
    assert_eq!(String::from_utf8_lossy(&message.payload), payload, "{message:?}");
    message
}

/// The packet identifier of a message of QoS 1 or 2.
pub fn id_of(message: &Message) -> u16 {
    message.packet_id.expect("QoS 1 and 2 have one").get()
}

/// The next packet is a message with this payload; it is acknowledged as its QoS asks. Nothing else may come
/// meanwhile: [`take_all`] is for several messages.
pub fn take(peer: &mut Peer, payload: &str) -> Message {
    let message = expect(peer, payload);
    match message.qos as u8 {
        0 => {}
        1 => peer.send_raw(&ack(PUBACK, id_of(&message))),
        _ => {
            peer.send_raw(&ack(PUBREC, id_of(&message)));
            raw(peer, &ack(PUBREL, id_of(&message)));
            peer.send_raw(&ack(PUBCOMP, id_of(&message)));
        }
    }
    message
}

/// The next messages have these payloads; they are acknowledged as their QoS asks, while others may come.
pub fn take_all<T: AsRef<str>>(peer: &mut Peer, payloads: &[T]) -> Vec<Message> {
    let (mut messages, mut open) = (Vec::new(), std::collections::BTreeSet::new());
    while messages.len() < payloads.len() || !open.is_empty() {
        let got = peer.next();
        let Some(message) = got.message() else {
            let id = open.iter().copied().find(|id| got.bytes() == ack(PUBREL, *id));
            let id = id.unwrap_or_else(|| panic!("a PUBREL of {open:?}, got {got:?}"));
            open.remove(&id);
            peer.send_raw(&ack(PUBCOMP, id));
            continue;
        };
        let wanted = payloads.get(messages.len()).map(AsRef::as_ref);
        assert_eq!(Some(&*String::from_utf8_lossy(&message.payload)), wanted, "{message:?}");
        match message.qos as u8 {
            0 => {}
            1 => peer.send_raw(&ack(PUBACK, id_of(&message))),
            _ => {
                open.insert(id_of(&message));
                peer.send_raw(&ack(PUBREC, id_of(&message)));
            }
        }
        messages.push(message);
    }
    messages
}

/// DISCONNECT, and the end of the connection.
pub fn leave(mut peer: Peer) {
    peer.send_raw(DISCONNECT);
    peer.expect_closed();
}

/// The end of the connection, with nothing before it.
#[track_caller]
pub fn ends(peer: &mut Peer, after: &[u8]) {
    match peer.read_packet(TIMEOUT) {
        Read::Closed => {}
        other => panic!("{after:02x?}: the end, got {other:?}"),
    }
}

/// A connected client that sends this is closed.
#[track_caller]
pub fn faulty(s: &Scene, bytes: &[u8]) {
    let mut peer = peer(s, "faulty");
    peer.send_raw(bytes);
    ends(&mut peer, bytes);
}

/// First bytes that are answered with nothing but the end of the connection.
#[track_caller]
pub fn dropped(broker: &Broker, bytes: &[u8]) {
    let mut peer = Peer::open(broker, Version::V311);
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
