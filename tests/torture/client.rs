//! Clients that lose their broker again and again, and keep their side of the protocol.

use super::Town;
use super::common::Login;
use ringmq::codec::{
    Ack, AckKind, Filters, Framed, Packet, PacketId, Properties, Publish, ReasonCode, Subscribe,
    SubscribeOptions, Version, decode, frame,
};
use ringmq::limits::PACKET_BYTES_MAX;
use ringmq::message::QoS;
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A read that finds nothing gives up after this, so that whoever reads can look at the rest.
const READ: Duration = Duration::from_millis(5);
/// Messages of a publisher under way.
const WINDOW: usize = 8;

/// A connection of MQTT 5.0 that may end at any moment.
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    /// Connects with a session that lasts; also whether there was one. `None`: the broker was killed meanwhile.
    fn connect(town: &Town, client_id: &str) -> Option<(Wire, bool)> {
        let addr = town.addr()?;
        let (mut wire, present) = Wire::login(addr, &Login::lasting(Version::V5, client_id))?;
        wire.stream.set_read_timeout(Some(READ)).ok()?;
        wire.input.reserve(1);
        Some((wire, present))
    }

    fn login(addr: SocketAddr, login: &Login) -> Option<(Wire, bool)> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut wire = Wire { stream, input: Vec::new() };
        wire.stream.write_all(&login.bytes()).ok()?;
        let answer = wire.next()??;
        match decode(Version::V5, &answer).expect("a packet") {
            Packet::ConnAck(connack) if connack.code == ReasonCode::SUCCESS => {
                Some((wire, connack.session_present))
            }
            other => panic!("CONNACK of success, got {other:?}"),
        }
    }

    /// The next packet; `Some(None)`: nothing yet. `None`: the connection is gone.
    fn next(&mut self) -> Option<Option<Vec<u8>>> {
        loop {
            if let Framed::Packet { total, .. } = frame(&self.input, PACKET_BYTES_MAX).expect("a packet") {
                let rest = self.input.split_off(total);
                return Some(Some(std::mem::replace(&mut self.input, rest)));
            }
            let mut buffer = [0; 16_384];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Some(None);
                }
                Err(_) => return None,
            }
        }
    }

    fn send(&mut self, packet: &Packet) -> Option<()> {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).ok()
    }

    fn ack(&mut self, kind: AckKind, packet_id: PacketId) -> Option<()> {
        let (code, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
        self.send(&Packet::Ack(Ack { kind, packet_id, code, properties }))
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) -> Option<()> {
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let filters = [(filter, options)];
        let packet_id = PacketId::new(60_000).expect("not 0");
        let (properties, filters) = (Properties::EMPTY, Filters::new(&filters));
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }))
    }

    /// The number that is retained at a topic; `None`: nothing came within seconds.
    pub fn retained(addr: SocketAddr, topic: &str) -> Option<u64> {
        let (mut wire, _) = Wire::login(addr, &Login::new(Version::V5, "asks")).expect("it serves");
        wire.subscribe(topic, QoS::AtMostOnce).expect("it serves");
        while let Some(bytes) = wire.next().expect("it serves") {
            if let Packet::Publish(publish) = decode(Version::V5, &bytes).expect("a packet") {
                return Some(number(publish.payload));
            }
        }
        None
    }
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// What a publisher sent at its end, all of it acknowledged.
pub struct Sent {
    pub number: usize,
    pub qos: QoS,
    /// Its messages are 1 to this.
    pub last: u64,
    /// What it retained last.
    pub kept: u64,
}

/// Publishes numbers in order, and retains some of them.
pub struct Publisher(JoinHandle<Sent>);

/// A message under way.
struct Pending {
    id: PacketId,
    seq: u64,
    retain: bool,
    /// PUBREC has come.
    released: bool,
}

struct Sending {
    number: usize,
    qos: QoS,
    next_id: u16,
    seq: u64,
    kept: u64,
    pending: VecDeque<Pending>,
}

impl Publisher {
    pub fn spawn(town: &Arc<Town>, number: usize, qos: QoS) -> Publisher {
        let town = Arc::clone(town);
        let mut sending = Sending { number, qos, next_id: 0, seq: 0, kept: 0, pending: VecDeque::new() };
        Publisher(std::thread::spawn(move || {
            let mut known = false;
            while !(town.closing.load(Ordering::Relaxed) && sending.pending.is_empty() && sending.kept > 0) {
                if sending.run(&town, &mut known).is_none() {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            Sent { number, qos, last: sending.seq, kept: sending.kept }
        }))
    }

    pub fn join(self) -> Sent {
        self.0.join().expect("a publisher found nothing wrong")
    }
}

impl Sending {
    /// One connection. `None`: it is gone.
    fn run(&mut self, town: &Town, known: &mut bool) -> Option<()> {
        let (mut wire, present) = Wire::connect(town, &format!("publisher-{}", self.number))?;
        assert!(present || !*known, "publisher {}: its session is there", self.number);
        *known = true;
        for at in 0..self.pending.len() {
            let Pending { seq, released, .. } = self.pending[at];
            town.note(self.number, seq, || format!("sent again, released {released}"));
            self.send(&mut wire, at, true)?;
        }
        loop {
            let closing = town.closing.load(Ordering::Relaxed) && self.kept > 0;
            if closing && self.pending.is_empty() {
                return Some(());
            }
            while !closing && self.pending.len() < WINDOW {
                self.seq += 1;
                self.next_id = self.next_id % 50_000 + 1;
                let (id, seq) = (PacketId::new(self.next_id).expect("not 0"), self.seq);
                self.pending.push_back(Pending { id, seq, retain: seq % 5 == 0, released: false });
                town.note(self.number, seq, || format!("sent as {id}"));
                self.send(&mut wire, self.pending.len() - 1, false)?;
            }
            if let Some(bytes) = wire.next()? {
                self.take(&mut wire, town, &decode(Version::V5, &bytes).expect("a packet"))?;
            }
        }
    }

    fn send(&mut self, wire: &mut Wire, at: usize, dup: bool) -> Option<()> {
        let Pending { id, seq, retain, released } = self.pending[at];
        if released {
            return wire.ack(AckKind::PubRel, id);
        }
        let topic = format!("{}/{}", if retain { "kept" } else { "flow" }, self.number);
        let (payload, properties) = (format!("{} {seq}", self.number), Properties::EMPTY);
        let (topic, payload, packet_id) = (&*topic, payload.as_bytes(), Some(id));
        wire.send(&Packet::Publish(Publish {
            dup,
            qos: self.qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        }))
    }

    fn take(&mut self, wire: &mut Wire, town: &Town, packet: &Packet) -> Option<()> {
        let Packet::Ack(ack) = packet else { panic!("an acknowledgement, got {packet:?}") };
        let gone = ack.code == ReasonCode::PACKET_ID_NOT_FOUND;
        assert!(!ack.code.is_error() || gone, "publisher {}: {ack:?}", self.number);
        let at = self.pending.iter().position(|p| p.id == ack.packet_id).expect("it answers what was sent");
        town.note(self.number, self.pending[at].seq, || format!("{:?}", ack.kind));
        match ack.kind {
            AckKind::PubRec => {
                self.pending[at].released = true;
                return wire.ack(AckKind::PubRel, ack.packet_id);
            }
            AckKind::PubAck | AckKind::PubComp => {
                assert!(ack.kind == AckKind::PubAck || self.pending[at].released, "PUBCOMP behind PUBREC");
                let done = self.pending.remove(at).expect("it was found");
                if done.retain {
                    self.kept = self.kept.max(done.seq);
                }
            }
            AckKind::PubRel => panic!("PUBREL to one who gets nothing"),
        }
        Some(())
    }
}

/// How often each number of each publisher came.
type Got = HashMap<(usize, u64), u32>;

/// Takes everything.
pub struct Subscriber {
    thread: JoinHandle<()>,
    subscribed: Arc<AtomicBool>,
    got: Arc<Mutex<Got>>,
    name: String,
    qos: QoS,
}

struct Taking {
    qos: QoS,
    name: String,
    subscribed: Arc<AtomicBool>,
    got: Arc<Mutex<Got>>,
    /// Connections so far.
    links: u32,
    /// QoS 2 messages that wait for PUBREL.
    open: HashMap<PacketId, (usize, u64)>,
}

impl Subscriber {
    pub fn spawn(town: &Arc<Town>, name: &str, qos: QoS) -> Subscriber {
        let (town, subscribed, got) = (Arc::clone(town), Arc::default(), Arc::default());
        let mut taking = Taking {
            qos,
            name: name.to_owned(),
            subscribed: Arc::clone(&subscribed),
            got: Arc::clone(&got),
            links: 0,
            open: HashMap::new(),
        };
        let thread = std::thread::spawn(move || {
            while !town.over.load(Ordering::Relaxed) {
                if taking.run(&town).is_none() {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Subscriber { thread, subscribed, got, name: name.to_owned(), qos }
    }

    /// Returns once SUBACK has come.
    pub fn wait_subscribed(&self) {
        while !self.subscribed.load(Ordering::Relaxed) {
            assert!(!self.thread.is_finished(), "{} found something wrong", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How many of 1 to `last` of a publisher have not come.
    pub fn missing(&self, publisher: usize, last: u64) -> u64 {
        assert!(!self.thread.is_finished(), "{} found something wrong", self.name);
        let got = self.got.lock().unwrap();
        (1..=last).filter(|seq| !got.contains_key(&(publisher, *seq))).count() as u64
    }

    pub fn join(self) -> (String, QoS, Got) {
        self.thread.join().expect("a subscriber found nothing wrong");
        let got = std::mem::take(&mut *self.got.lock().unwrap());
        (self.name, self.qos, got)
    }
}

impl Taking {
    fn run(&mut self, town: &Town) -> Option<()> {
        let (mut wire, present) = Wire::connect(town, &self.name)?;
        let known = self.subscribed.load(Ordering::Relaxed);
        assert!(present || !known, "{}: its session is there", self.name);
        self.links += 1;
        if !known {
            wire.subscribe("#", self.qos)?;
        }
        while !town.over.load(Ordering::Relaxed) {
            let Some(bytes) = wire.next()? else { continue };
            match decode(Version::V5, &bytes).expect("a packet") {
                Packet::SubAck(_) => self.subscribed.store(true, Ordering::Relaxed),
                Packet::Publish(publish) => self.take(&mut wire, town, &publish)?,
                Packet::Ack(ack) if ack.kind == AckKind::PubRel => {
                    if let Some((from, seq)) = self.open.remove(&ack.packet_id) {
                        town.note(from, seq, || {
                            format!("{}, connection {}, is told PUBREL", self.name, self.links)
                        });
                    }
                    wire.ack(AckKind::PubComp, ack.packet_id)?;
                }
                other => panic!("{}: a message, got {other:?}", self.name),
            }
        }
        Some(())
    }

    fn take(&mut self, wire: &mut Wire, town: &Town, publish: &Publish) -> Option<()> {
        let from: usize = publish.topic.rsplit('/').next().unwrap().parse().unwrap();
        let id = publish.packet_id.expect("the QoS of both is above 0");
        let exact = publish.qos == QoS::ExactlyOnce;
        let seq = number(publish.payload);
        town.note(from, seq, || {
            format!("{}, connection {}, got it as {id}, dup {}", self.name, self.links, publish.dup)
        });
        if !exact || self.open.insert(id, (from, seq)).is_none() {
            *self.got.lock().unwrap().entry((from, seq)).or_default() += 1;
        }
        wire.ack(if exact { AckKind::PubRec } else { AckKind::PubAck }, id)
    }
}
