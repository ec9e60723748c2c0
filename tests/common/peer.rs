//! A scripted MQTT client.

use super::socket::{Ground, Socket};
use ringmq::codec::{
    Ack, AckKind, Connect, Disconnect, Filters, Framed, Packet, PacketId, Properties, Property, PropertyBuf,
    Publish, ReasonCode, Subscribe, SubscribeOptions, Topics, Unsubscribe, Version, Will, decode, frame,
};
use ringmq::limits::PACKET_BYTES_MAX;
use ringmq::message::QoS;
use std::net::TcpStream;
use std::time::Duration;

/// How long a peer waits for what must come, before it fails the test.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Login {
    /// Protocol version.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Clean Start; Clean Session in 3.x.
    pub clean_start: bool,
    /// Keep Alive, 0 = off.
    pub keep_alive_s: u16,
    /// 5.0.
    pub session_expiry_s: Option<u32>,
    /// 5.0.
    pub receive_maximum: Option<u16>,
    /// 5.0.
    pub maximum_packet_size: Option<u32>,
    /// 5.0.
    pub topic_alias_maximum: Option<u16>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// The will.
    pub will: Option<WillSpec>,
}

/// What a CONNECT says about the will.
#[derive(Clone, Debug)]
pub struct WillSpec {
    /// Will topic.
    pub topic: String,
    /// Will payload.
    pub payload: Vec<u8>,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval, 5.0.
    pub delay_s: Option<u32>,
}

impl Login {
    /// Clean Start, no keep alive, no properties, no will.
    pub fn new(version: Version, client_id: &str) -> Login {
        Login {
            version,
            client_id: client_id.to_owned(),
            clean_start: true,
            keep_alive_s: 0,
            session_expiry_s: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: None,
            username: None,
            password: None,
            will: None,
        }
    }

    /// A session that outlives its connections, and is taken up where there is one: Clean Session 0 in 3.x,
    /// Clean Start 0 and an hour of Session Expiry Interval in 5.0.
    pub fn lasting(version: Version, client_id: &str) -> Login {
        let session_expiry_s = (version == Version::V5).then_some(3_600);
        Login { clean_start: false, session_expiry_s, ..Login::new(version, client_id) }
    }

    /// With a will of QoS 1.
    pub fn will(mut self, topic: &str, payload: &[u8]) -> Login {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.will = Some(WillSpec { topic, payload, qos: QoS::AtLeastOnce, retain: false, delay_s: None });
        self
    }

    /// With user name and password.
    pub fn user(mut self, name: &str, password: &str) -> Login {
        (self.username, self.password) = (Some(name.to_owned()), Some(password.to_owned()));
        self
    }

    /// The CONNECT.
    pub fn bytes(&self) -> Vec<u8> {
        let v5 = self.version == Version::V5;
        let mut properties = PropertyBuf::new();
        let mut will_properties = PropertyBuf::new();
        let mut push = |property: Option<Property<'_>>| {
            assert!(property.is_none() || v5, "properties are of 5.0");
            assert!(property.is_none_or(|property| properties.push(property)), "the standard allows it");
        };
        push(self.session_expiry_s.map(Property::SessionExpiryInterval));
        push(self.receive_maximum.map(Property::ReceiveMaximum));
        push(self.maximum_packet_size.map(Property::MaximumPacketSize));
        push(self.topic_alias_maximum.map(Property::TopicAliasMaximum));
        if let Some(delay_s) = self.will.as_ref().and_then(|will| will.delay_s) {
            assert!(v5 && will_properties.push(Property::WillDelayInterval(delay_s)));
        }
        let will = self.will.as_ref().map(|will| Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will_properties.as_properties(),
        });
        let connect = Packet::Connect(Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive_s: self.keep_alive_s,
            client_id: &self.client_id,
            will,
            username: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: properties.as_properties(),
        });
        let mut bytes = Vec::new();
        connect.encode(self.version, &mut bytes);
        bytes
    }
}

/// One packet as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    version: Version,
    bytes: Vec<u8>,
}

impl Received {
    /// The packet.
    pub fn packet(&self) -> Packet<'_> {
        decode(self.version, &self.bytes).expect("it was decoded when it came")
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The PUBLISH that it is.
    pub fn message(&self) -> Option<Message> {
        let Packet::Publish(publish) = self.packet() else { return None };
        Some(Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
        })
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.packet().fmt(f)
    }
}

/// A PUBLISH that came, without its properties: [`Received::packet`] has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// The application message.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Re-delivery.
    pub dup: bool,
    /// For QoS 1 and 2.
    pub packet_id: Option<PacketId>,
}

impl Message {
    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests send text")
    }
}

/// What a read ended with.
#[derive(Debug)]
pub enum Read {
    /// A packet.
    Packet(Received),
    /// The broker closed the connection, in order or by a reset.
    Closed,
    /// Nothing, or not a whole packet, within the time.
    TimedOut,
}

/// A client that does what the test says and nothing by itself.
#[derive(Debug)]
pub struct Peer<S = TcpStream> {
    socket: S,
    version: Version,
    name: String,
    /// Received and not taken yet.
    pending: Vec<u8>,
    next_id: u16,
}

impl<S: Socket> Peer<S> {
    /// A connection without a CONNECT.
    pub fn open(broker: &impl Ground<Socket = S>, version: Version) -> Peer<S> {
        let (socket, name) = (broker.dial(), "a peer without a name".to_owned());
        Peer { socket, version, name, pending: Vec::new(), next_id: 0 }
    }

    /// Connects with Clean Start and asserts that it was taken.
    pub fn connect(broker: &impl Ground<Socket = S>, version: Version, client_id: &str) -> Peer<S> {
        Peer::login(broker, &Login::new(version, client_id)).0
    }

    /// Connects, asserts that it was taken, and says whether a session was present.
    pub fn login(broker: &impl Ground<Socket = S>, login: &Login) -> (Peer<S>, bool) {
        let (peer, answer) = Peer::try_login(broker, login);
        let Packet::ConnAck(connack) = answer.packet() else {
            panic!("{}: CONNACK, got {answer:?}", peer.name)
        };
        assert_eq!(connack.code, ReasonCode::SUCCESS, "{}: {answer:?}", peer.name);
        (peer, connack.session_present)
    }

    /// Connects and returns the answer.
    pub fn try_login(broker: &impl Ground<Socket = S>, login: &Login) -> (Peer<S>, Received) {
        let mut peer = Peer::open(broker, login.version);
        login.client_id.clone_into(&mut peer.name);
        peer.send_raw(&login.bytes());
        let answer = peer.next();
        (peer, answer)
    }

    /// Its protocol version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it speaks through.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// A packet identifier that was not used for long.
    pub fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        PacketId::new(self.next_id).expect("at least 1")
    }

    /// Sends bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send_raw(bytes) {
            let then = self.read_packet(Duration::from_secs(1));
            panic!("{}: cannot send: {error}; then {then:?}", self.name);
        }
    }

    /// Sends bytes, where the broker may have closed the connection. Waits for room for [`TIMEOUT`] at most.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.send(bytes)
    }

    /// Ends what it sends: nothing follows, and the broker sees that.
    pub fn end_sending(&mut self) {
        self.socket.end_sending();
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_raw(&bytes);
    }

    /// The next packet.
    pub fn read_packet(&mut self, timeout: Duration) -> Read {
        let deadline = self.socket.now() + timeout;
        loop {
            let framed = frame(&self.pending, PACKET_BYTES_MAX);
            match framed.unwrap_or_else(|error| panic!("{}: not a packet: {error}", self.name)) {
                Framed::Packet { total, .. } => {
                    let rest = self.pending.split_off(total);
                    let bytes = std::mem::replace(&mut self.pending, rest);
                    if let Err(error) = decode(self.version, &bytes) {
                        panic!("{}: a packet that the standard forbids: {error}: {bytes:02x?}", self.name);
                    }
                    return Read::Packet(Received { version: self.version, bytes });
                }
                Framed::Incomplete { .. } => {}
            }
            let left = deadline.saturating_sub(self.socket.now());
            match self.socket.receive(left) {
                Some(bytes) if bytes.is_empty() => return Read::Closed,
                Some(bytes) => self.pending.extend_from_slice(&bytes),
                None => return Read::TimedOut,
            }
        }
    }

    /// The next packet, which must come.
    pub fn next(&mut self) -> Received {
        match self.read_packet(TIMEOUT) {
            Read::Packet(received) => received,
            end => panic!("{}: a packet, got {end:?}", self.name),
        }
    }

    /// The next packet, which must be this one.
    pub fn expect(&mut self, wanted: &Packet<'_>) {
        let received = self.next();
        assert_eq!(received.packet(), *wanted, "{}", self.name);
    }

    /// The next packet, which must be a PUBLISH. It is not acknowledged.
    pub fn expect_message(&mut self) -> Message {
        let received = self.next();
        received.message().unwrap_or_else(|| panic!("{}: PUBLISH, got {received:?}", self.name))
    }

    /// Takes one message and acknowledges it in full.
    pub fn take(&mut self) -> Message {
        let message = self.expect_message();
        match (message.qos, message.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.ack(AckKind::PubAck, id),
            (QoS::ExactlyOnce, Some(id)) => {
                self.ack(AckKind::PubRec, id);
                self.expect_ack(AckKind::PubRel, id);
                self.ack(AckKind::PubComp, id);
            }
            _ => {}
        }
        message
    }

    /// The end of the connection, with nothing before it.
    pub fn expect_closed(&mut self) {
        match self.read_packet(TIMEOUT) {
            Read::Closed => {}
            other => panic!("{}: the end, got {other:?}", self.name),
        }
    }

    /// DISCONNECT with this code, then the end (5.0); the end alone in 3.x.
    pub fn expect_disconnect(&mut self, code: ReasonCode) {
        if self.version == Version::V5 {
            let received = self.next();
            match received.packet() {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.code, code, "{}", self.name),
                _ => panic!("{}: DISCONNECT with {code}, got {received:?}", self.name),
            }
        }
        self.expect_closed();
    }

    /// Sends PINGREQ, and expects nothing before its answer: what the broker sent before it read the PINGREQ
    /// would have come first.
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.expect(&Packet::PingResp);
    }

    /// Subscribes to one filter and returns the code of the SUBACK. Messages that come before it fail.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        let packet_id = self.send_subscribe(filter, SubscribeOptions { qos, ..SubscribeOptions::default() });
        let received = self.next();
        match received.packet() {
            Packet::SubAck(suback) if suback.packet_id == packet_id && suback.codes.len() == 1 => {
                suback.codes[0]
            }
            _ => panic!("{}: SUBACK {packet_id} with one code, got {received:?}", self.name),
        }
    }

    /// Sends SUBSCRIBE with one filter.
    pub fn send_subscribe(&mut self, filter: &str, options: SubscribeOptions) -> PacketId {
        let packet_id = self.packet_id();
        let filters = [(filter, options)];
        let filters = Filters::new(&filters);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
        packet_id
    }

    /// Sends UNSUBSCRIBE with one filter.
    pub fn send_unsubscribe(&mut self, filter: &str) -> PacketId {
        let packet_id = self.packet_id();
        let filters = [filter];
        let filters = Topics::new(&filters);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }));
        packet_id
    }

    /// Sends PUBLISH and does not wait; the packet identifier for QoS 1 and 2.
    pub fn send_publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Option<PacketId> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.packet_id());
        let properties = Properties::EMPTY;
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        self.send(&Packet::Publish(publish));
        packet_id
    }

    /// Publishes and waits until the broker has acknowledged it in full; nothing else may come meanwhile.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let Some(packet_id) = self.send_publish(topic, payload, qos, retain) else { return };
        if qos == QoS::AtLeastOnce {
            self.expect_ack(AckKind::PubAck, packet_id);
            return;
        }
        self.expect_ack(AckKind::PubRec, packet_id);
        self.ack(AckKind::PubRel, packet_id);
        self.expect_ack(AckKind::PubComp, packet_id);
    }

    /// Sends an acknowledgement of success.
    pub fn ack(&mut self, kind: AckKind, packet_id: PacketId) {
        let (code, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
        self.send(&Packet::Ack(Ack { kind, packet_id, code, properties }));
    }

    /// An acknowledgement that is no error.
    pub fn expect_ack(&mut self, kind: AckKind, packet_id: PacketId) {
        let received = self.next();
        match received.packet() {
            Packet::Ack(ack) if ack.kind == kind && ack.packet_id == packet_id && !ack.code.is_error() => {}
            _ => panic!("{}: {kind:?} {packet_id}, got {received:?}", self.name),
        }
    }

    /// DISCONNECT, and the end of the connection that the broker answers with.
    pub fn disconnect(mut self) {
        let (code, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
        self.send(&Packet::Disconnect(Disconnect { code, properties }));
        while !matches!(self.read_packet(TIMEOUT), Read::Closed) {}
    }

    /// Ends the connection without DISCONNECT, and returns once the broker has closed it as well.
    pub fn cut(mut self) {
        self.end_sending();
        while !matches!(self.read_packet(TIMEOUT), Read::Closed) {}
    }
}

/// Client identifiers with this prefix. A client's shard is a keyed hash of its identifier, so a test cannot
/// choose it: it takes enough of them.
pub fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}
