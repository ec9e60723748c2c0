//! A client of the fuzzed shards: what it sends is the input's, and what it gets must be what a server may send to
//! a client that sent that.

use super::input::Input;
use super::kernel::Socket;
use ringmq::codec::*;
use ringmq::message::QoS;

/// The packet size that a client offers where it offers one.
const PACKET_MAX: u32 = 256;

const TOPICS: &[&str] = &["a", "b", "a/b", "a/b/c", "$SYS/x", "", "a/+"];
const FILTERS: &[&str] =
    &["a", "+", "#", "a/#", "+/b", "$share/g/a", "$share/h/+/b", "$share/g/#", "a/#/b", "$share//a"];
const PROPERTIES: &[&[u8]] = &[
    b"",
    b"\x02\x00\x00\x00\x02",
    b"\x23\x00\x01",
    b"\x0B\x05",
    b"\x01\x01",
    b"\x26\x00\x01k\x00\x01v",
    b"\x08\x00\x01r\x09\x00\x02cd",
];

/// One client, of one connection.
pub struct Peer {
    pub socket: usize,
    /// What it sent so far, as far as its first packet needs.
    first: Vec<u8>,
    /// Bytes of what it got that were looked at.
    seen: usize,
    accepted: bool,
    refused: bool,
}

/// A packet that came.
struct Got {
    version: Version,
    len: usize,
    /// The acknowledgement that it asks for.
    reply: Option<(AckKind, PacketId)>,
}

impl Peer {
    pub fn new(socket: usize) -> Peer {
        Peer { socket, first: Vec::new(), seen: 0, accepted: false, refused: false }
    }

    pub fn send(&mut self, socket: &mut Socket, bytes: &[u8]) {
        if socket.ended || socket.reset {
            return;
        }
        if self.first.len() < 4_096 {
            self.first.extend_from_slice(bytes);
        }
        socket.inbound.extend(bytes);
    }

    /// Its first packet, if that is a CONNECT without a fault.
    fn connect(&self) -> Option<Connect<'_>> {
        let Ok(Framed::Packet { total, .. }) = frame(&self.first, u32::MAX) else { return None };
        match decode(Version::V311, &self.first[..total]) {
            Ok(Packet::Connect(connect)) => Some(connect),
            _ => None,
        }
    }

    fn version(&self) -> Version {
        self.connect().map_or(Version::V5, |connect| connect.version)
    }

    /// A packet that is as it should be, mostly.
    pub fn packet(&mut self, socket: &mut Socket, input: &mut Input<'_>) {
        let mut out = Vec::new();
        let kind = input.below(16);
        if kind < 3 {
            return self.say_connect(socket, input);
        }
        let version = self.version();
        let id = PacketId::new(1 + u16::from(input.byte() & 7)).expect("not 0");
        let Ok(properties) = Properties::parse(input.pick(PROPERTIES), PacketType::Publish) else { return };
        match kind {
            3..7 => {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][input.below(3)];
                let flags = input.byte();
                let (topic, len) = (input.pick(TOPICS), input.byte());
                let publish = Publish {
                    dup: flags & 1 != 0 && qos != QoS::AtMostOnce,
                    qos,
                    retain: flags & 2 != 0,
                    topic,
                    packet_id: (qos != QoS::AtMostOnce).then_some(id),
                    properties,
                    payload: input.take(usize::from(len)),
                };
                Packet::Publish(publish).encode(version, &mut out);
            }
            7..10 => {
                let options = [input.byte(), input.byte()].map(|bits| SubscribeOptions {
                    qos: QoS::from_bits(bits & 3).unwrap_or_default(),
                    no_local: bits & 4 != 0,
                    retain_as_published: bits & 8 != 0,
                    retain_handling: if bits & 16 != 0 {
                        RetainHandling::SendIfNew
                    } else {
                        RetainHandling::Send
                    },
                });
                let filters = [(input.pick(FILTERS), options[0]), (input.pick(FILTERS), options[1])];
                let filters = Filters::new(&filters[..1 + input.below(2)]);
                let properties = if input.below(2) == 0 { &[][..] } else { &b"\x0B\x07"[..] };
                let Ok(properties) = Properties::parse(properties, PacketType::Subscribe) else { return };
                Packet::Subscribe(Subscribe { packet_id: id, properties, filters }).encode(version, &mut out);
            }
            10 => {
                let filters = [input.pick(FILTERS)];
                let (properties, filters) = (Properties::EMPTY, Topics::new(&filters));
                Packet::Unsubscribe(Unsubscribe { packet_id: id, properties, filters })
                    .encode(version, &mut out);
            }
            11..14 => {
                let kind = input.pick(&[AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp]);
                let code = input.pick(&[
                    ReasonCode::SUCCESS,
                    ReasonCode::SUCCESS,
                    ReasonCode(0x92),
                    ReasonCode(0x80),
                ]);
                encode_ack(&mut out, version, kind, id, code);
            }
            14 => out.extend_from_slice(&[0xC0, 0]),
            _ => out.extend_from_slice(&[0xE0, 0]),
        }
        self.send(socket, &out);
    }

    fn say_connect(&mut self, socket: &mut Socket, input: &mut Input<'_>) {
        let version = input.pick(&[Version::V5, Version::V5, Version::V311, Version::V31]);
        let client_id = input.pick(&["a", "b", "c", ""]);
        let (flags, expiry, keep_alive) =
            (input.byte(), input.pick(&[0, 1, 30, u32::MAX]), input.pick(&[0, 5, 60]));
        let mut own = PropertyBuf::new();
        let mut add =
            |wanted: bool, property| assert!(!wanted || version != Version::V5 || own.push(property));
        add(expiry != 0, Property::SessionExpiryInterval(expiry));
        add(flags & 1 != 0, Property::ReceiveMaximum(2));
        add(flags & 2 != 0, Property::TopicAliasMaximum(2));
        add(flags & 4 != 0, Property::MaximumPacketSize(PACKET_MAX));
        let mut delayed = PropertyBuf::new();
        assert!(delayed.push(Property::WillDelayInterval(2)));
        let none = PropertyBuf::new();
        let will = (flags & 8 != 0).then(|| Will {
            topic: input.pick(TOPICS),
            payload: b"will",
            qos: if flags & 16 != 0 { QoS::ExactlyOnce } else { QoS::AtMostOnce },
            retain: flags & 32 != 0,
            properties: if version == Version::V5 && flags & 64 != 0 { &delayed } else { &none }
                .as_properties(),
        });
        let connect = Connect {
            version,
            bridge: false,
            clean_start: flags & 128 != 0,
            keep_alive_s: keep_alive,
            client_id,
            will,
            username: None,
            password: None,
            properties: own.as_properties(),
        };
        let mut out = Vec::new();
        Packet::Connect(connect).encode(version, &mut out);
        self.send(socket, &out);
    }

    /// Looks at what came since the last time, and answers it as a client should, if asked to.
    pub fn look(&mut self, socket: &mut Socket, answer: bool) {
        while let Some(Got { version, len, reply }) = self.next(socket) {
            self.seen += len;
            if let (true, Some((kind, id))) = (answer, reply) {
                let mut out = Vec::new();
                encode_ack(&mut out, version, kind, id, ReasonCode::SUCCESS);
                self.send(socket, &out);
            }
        }
    }

    /// Checks the next packet.
    fn next(&mut self, socket: &Socket) -> Option<Got> {
        let bytes = &socket.received[self.seen..];
        let total = match frame(bytes, u32::MAX) {
            Ok(Framed::Packet { total, .. }) => total,
            Ok(Framed::Incomplete { .. }) => {
                assert!(bytes.is_empty(), "a shard sends whole packets, and this is {bytes:?}");
                return None;
            }
            Err(error) => panic!("{error}, in {bytes:?}"),
        };
        let bytes = &bytes[..total];
        assert!(!self.refused, "nothing follows a refusal, and this came: {bytes:?}");
        let Some(connect) = self.connect() else {
            // A CONNECT with a fault is refused in a version that it may have meant.
            let refusal = |version| match decode(version, bytes) {
                Ok(Packet::ConnAck(connack)) => connack.code.0 >= 0x80,
                _ => false,
            };
            assert!([Version::V31, Version::V311, Version::V5].into_iter().any(refusal), "{bytes:?}");
            self.refused = true;
            return Some(Got { version: Version::V5, len: total, reply: None });
        };
        let version = connect.version;
        let limit = connect.properties.iter().find_map(|property| match property {
            Property::MaximumPacketSize(bytes) => Some(bytes as usize),
            _ => None,
        });
        assert!(limit.is_none_or(|limit| total <= limit), "{total} bytes to a client that takes {limit:?}");
        let packet = decode(version, bytes).unwrap_or_else(|error| panic!("{error}, in {bytes:?}"));
        let reply = match &packet {
            Packet::ConnAck(connack) => {
                assert!(!self.accepted, "a second CONNACK");
                self.accepted = connack.code == ReasonCode::SUCCESS;
                self.refused = !self.accepted;
                None
            }
            _ if !self.accepted => panic!("{packet:?} before CONNACK"),
            Packet::Publish(publish) => match publish.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce => publish.packet_id.map(|id| (AckKind::PubAck, id)),
                QoS::ExactlyOnce => publish.packet_id.map(|id| (AckKind::PubRec, id)),
            },
            Packet::Ack(ack) => match ack.kind {
                AckKind::PubRec if ack.code.0 < 0x80 => Some((AckKind::PubRel, ack.packet_id)),
                AckKind::PubRel => Some((AckKind::PubComp, ack.packet_id)),
                _ => None,
            },
            Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => None,
            Packet::Disconnect(_) => {
                assert_eq!(version, Version::V5, "a server says no DISCONNECT before 5.0");
                self.refused = true;
                None
            }
            other => panic!("a server does not send {other:?}"),
        };
        Some(Got { version, len: total, reply })
    }
}
