//! The client's side of MQTT, without I/O: bytes in by [`Client::handle_bytes`], bytes out in [`Client::out`].
//!
//! ```text
//!   Offline ──► Connecting ──► Wrapping ──► Greeting ──► Subscribing ──► Online
//!      ▲         (TCP)       (TLS, WebSocket) (CONNACK)   (SUBACK)         │
//!      │                                                                   ▼
//!      └────────────────── Closing (until the driver is done) ◄────────────┘ and from each of the others
//! ```
//!
//! An idle subscriber has no heap memory; what a publisher needs is behind [`Client::work`].

use super::book::Book;
use super::plan::{Flow, Kind, Pace, Plan};
use super::stamp::Stamp;
use super::tally::{Cause, Span};
use super::worker::Wrap;
use crate::codec::{
    Ack, AckKind, ConnAck, Connect, Disconnect, Filters, Framed, Packet, PacketId, Properties, Property,
    PropertyBuf, Publish, PublishOut, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions,
    Version, decode, encode_ack, encode_publish, frame,
};
use crate::io::Conn;
use crate::limits::{PACKET_BYTES_MAX, PENDING_KEEP_BYTES};
use crate::message::QoS;
use std::collections::VecDeque;

/// No connection.
pub const NO_CONN: Conn = Conn::MAX;
/// Bytes that wait to be sent, above which a publisher makes a pause.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Milliseconds late, above which a message of an open loop counts as lagging.
const LAGGING_NS: u64 = 2_000_000;
/// Packet identifiers: 1 to this.
const IDS: u16 = u16::MAX;

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not connected.
    Offline,
    /// The TCP connection is being made.
    Connecting,
    /// TLS or WebSocket is being agreed upon.
    Wrapping,
    /// CONNECT was sent.
    Greeting,
    /// SUBSCRIBE was sent.
    Subscribing,
    /// Ready.
    Online,
    /// The driver was told to close.
    Closing,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number in the plan.
    pub number: u32,
    /// Its group in the plan.
    pub group: u8,
    /// Where it is.
    pub state: State,
    /// Its connection, while it is not [`State::Offline`].
    pub conn: Conn,
    /// A send is with the driver.
    pub sending: bool,
    /// It is on the worker's list of clients that have something to send.
    pub dirty: bool,
    /// It comes back when its connection is closed.
    pub again: bool,
    /// It was connected before.
    pub seen: bool,
    /// A PINGREQ is not answered yet.
    pub pinging: bool,
    /// It was asked to ping, and has had no answer yet.
    pub asked_to_ping: bool,
    /// When it last sent something, in milliseconds of the worker's clock.
    pub sent_ms: u32,
    /// Since when it is in its state, or waits for an answer to its ping; same clock.
    pub since_ms: u32,
    /// When its connect began or should have begun; once subscribed, when it subscribed.
    pub began_ns: u64,
    /// What is to be sent.
    pub out: Vec<u8>,
    /// The begin of a packet.
    pending: Vec<u8>,
    /// TLS and WebSocket, where there are such.
    pub wrap: Option<Box<Wrap>>,
    /// For publishers, and for receivers of QoS 2.
    pub work: Option<Box<Work>>,
}

/// What only an active client needs.
#[derive(Debug, Default)]
pub struct Work {
    /// Messages so far; the next one's sequence number.
    pub sequence: u32,
    /// Messages that an open loop wants to be sent by now.
    pub owed: u32,
    /// Messages that the schedule has placed, without those that are owed.
    pub placed: u64,
    /// Its place in the schedule.
    pub slot: u32,
    /// Deliveries that a closed loop waits for.
    pub undelivered: u64,
    /// Deliveries so far when progress was last looked at.
    pub progress: u64,
    /// Deliveries so far.
    pub delivered: u64,
    /// QoS 0 messages in `out`, and with the driver.
    unsent: (u32, u32),
    /// Not acknowledged yet, oldest first, with consecutive packet identifiers.
    inflight: VecDeque<Inflight>,
    /// Of which so many are not done.
    open: u32,
    next_id: u16,
    /// As CONNACK says.
    receive_maximum: u16,
    topic: String,
    /// QoS 2 messages received and not released.
    unreleased: Vec<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Inflight {
    sequence: u32,
    time_ns: u64,
    id: u16,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Published,
    Released,
    Done,
}

impl Work {
    /// No acknowledgement is awaited.
    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    fn find(&mut self, id: PacketId) -> Option<&mut Inflight> {
        let front = self.inflight.front()?.id;
        let at = (u32::from(id.get()) + u32::from(IDS) - u32::from(front)) % u32::from(IDS);
        self.inflight.get_mut(at as usize).filter(|entry| entry.step != Step::Done)
    }

    fn settle(&mut self) {
        self.open -= 1;
        while self.inflight.front().is_some_and(|entry| entry.step == Step::Done) {
            self.inflight.pop_front();
        }
    }

    /// The output is with the driver from now on.
    pub fn hand_over(&mut self) {
        self.unsent = (0, self.unsent.0);
    }

    /// The output has left.
    pub fn has_left(&mut self) {
        self.unsent.1 = 0;
    }

    /// Whether one more message may leave.
    fn has_room(&self, flow: &Flow) -> bool {
        if flow.qos > QoS::AtMostOnce {
            let ids = self.inflight.len() < usize::from(IDS) - 1;
            if !ids || self.open >= u32::from(self.receive_maximum) {
                return false;
            }
        }
        match flow.pace {
            Pace::Open { .. } => self.owed > 0,
            Pace::Closed { window, until: super::args::Until::Delivered } => {
                let fan = u64::from(flow.fan().max(1));
                self.undelivered + fan <= u64::from(window) * fan
            }
            Pace::Closed { window, .. } if flow.qos == QoS::AtMostOnce => {
                self.unsent.0 + self.unsent.1 < window
            }
            Pace::Closed { window, .. } => self.open < window,
        }
    }
}

impl Client {
    /// A client that is not connected.
    pub fn new(plan: &Plan, number: u32) -> Client {
        let group = plan.group_of(number);
        let flow = plan.groups[group].flow.map(|flow| &plan.flows[flow]);
        let publishes = !plan.groups[group].subscribes && flow.is_some();
        let needs_work = publishes || flow.is_some_and(|flow| flow.qos == QoS::ExactlyOnce);
        Client {
            number,
            group: group as u8,
            state: State::Offline,
            conn: NO_CONN,
            sending: false,
            dirty: false,
            again: false,
            seen: false,
            pinging: false,
            asked_to_ping: false,
            sent_ms: 0,
            since_ms: 0,
            began_ns: 0,
            out: Vec::new(),
            pending: Vec::new(),
            wrap: None,
            work: needs_work.then(|| Box::new(Work { next_id: 1, ..Work::default() })),
        }
    }

    /// Forgets what belongs to a connection that is gone.
    pub fn reset(&mut self) {
        (self.out, self.pending) = (Vec::new(), Vec::new());
        (self.conn, self.state) = (NO_CONN, State::Offline);
        (self.sending, self.pinging) = (false, false);
        self.wrap = None;
        if let Some(work) = &mut self.work {
            work.unsent = (0, 0);
        }
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.wrap.as_ref().is_some_and(|wrap| wrap.has_output())
    }

    /// Writes CONNECT.
    pub fn greet(&mut self, plan: &Plan) {
        let client_id = plan.client_id(self.number);
        let clean_start = plan.groups[usize::from(self.group)].clean;
        let mut properties = PropertyBuf::new();
        if plan.version == Version::V5 && !clean_start || plan.session_expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(plan.session_expiry_s));
        }
        let expand =
            |text: &str| plan.expand(text, self.number + plan.start_number, self.number).into_owned();
        let username = plan.username.as_deref().map(expand);
        let connect = Connect {
            version: plan.version,
            bridge: false,
            clean_start,
            keep_alive_s: plan.keep_alive_s,
            client_id: &client_id,
            will: None,
            username: username.as_deref(),
            password: plan.password.as_deref().map(str::as_bytes),
            properties: if plan.version == Version::V5 {
                properties.as_properties()
            } else {
                Properties::EMPTY
            },
        };
        Packet::Connect(connect).encode(plan.version, &mut self.out);
        self.state = State::Greeting;
    }

    /// Writes PINGREQ.
    pub fn ping(&mut self, plan: &Plan, now_ms: u32) {
        Packet::PingReq.encode(plan.version, &mut self.out);
        (self.pinging, self.since_ms) = (true, now_ms);
    }

    /// Writes DISCONNECT, which ends a 5.0 session that would outlive the run.
    pub fn leave(&mut self, plan: &Plan, for_good: bool) {
        let mut properties = PropertyBuf::new();
        if for_good && plan.session_expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(0));
        }
        let leave = Disconnect { code: ReasonCode::SUCCESS, properties: properties.as_properties() };
        Packet::Disconnect(leave).encode(plan.version, &mut self.out);
    }

    /// Handles received bytes. An error ends the connection.
    pub fn handle_bytes(&mut self, plan: &Plan, book: &mut Book, bytes: &[u8]) -> Result<(), Cause> {
        if self.pending.is_empty() {
            let used = self.handle_packets(plan, book, bytes)?;
            self.pending.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.handle_packets(plan, book, &pending)?;
        pending.drain(..used);
        if !pending.is_empty() || pending.capacity() <= PENDING_KEEP_BYTES && self.work.is_some() {
            self.pending = pending;
        }
        Ok(())
    }

    fn handle_packets(&mut self, plan: &Plan, book: &mut Book, bytes: &[u8]) -> Result<usize, Cause> {
        let mut rest = bytes;
        while let Framed::Packet { total, .. } = frame(rest, PACKET_BYTES_MAX).map_err(|e| broken(e, rest))? {
            let packet = decode(plan.version, &rest[..total]).map_err(|e| broken(e, rest))?;
            self.handle_packet(plan, book, &packet)?;
            rest = &rest[total..];
        }
        Ok(bytes.len() - rest.len())
    }

    fn handle_packet(&mut self, plan: &Plan, book: &mut Book, packet: &Packet<'_>) -> Result<(), Cause> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(plan, book, publish),
            Packet::Ack(ack) => self.handle_ack(plan, book, ack),
            Packet::PingResp => {
                book.tally.pongs += 1;
                book.tally.pinged += u64::from(std::mem::take(&mut self.asked_to_ping));
                self.pinging = false;
                Ok(())
            }
            Packet::ConnAck(connack) if self.state == State::Greeting => {
                self.handle_connack(plan, book, connack)
            }
            Packet::SubAck(suback) if self.state == State::Subscribing => self.handle_suback(book, suback),
            Packet::Disconnect(disconnect) => Err(Cause::Disconnect(disconnect.code.0)),
            _ => Err(Cause::Protocol("a packet that was not expected")),
        }
    }

    fn handle_connack(&mut self, plan: &Plan, book: &mut Book, connack: &ConnAck<'_>) -> Result<(), Cause> {
        if connack.code.is_error() {
            return Err(Cause::ConnAck(connack.code.0));
        }
        book.tally.connected += 1;
        book.tally.online += 1;
        book.tally.reconnects += u64::from(self.seen);
        book.tally.resumed += u64::from(connack.session_present && self.seen);
        // Connects are measured always, for their load is a phase of its own.
        let ns = book.now_ns.saturating_sub(self.began_ns);
        book.latencies.record(Span::Connect, ns);
        self.seen = true;
        if let Some(work) = &mut self.work {
            let maximum = connack.properties.iter().find_map(|property| match property {
                Property::ReceiveMaximum(maximum) => Some(maximum),
                _ => None,
            });
            work.receive_maximum = maximum.unwrap_or(IDS);
        }
        self.resume(plan, book, connack.session_present);
        let group = &plan.groups[usize::from(self.group)];
        match group.flow.filter(|_| group.subscribes) {
            Some(_) if connack.session_present => {
                self.state = State::Online;
                book.tally.subscribed += 1;
            }
            Some(flow) => self.subscribe(plan, book, &plan.flows[flow]),
            None => self.state = State::Online,
        }
        Ok(())
    }

    /// Sends again what was not acknowledged, where the session is still there; else gives it up.
    fn resume(&mut self, plan: &Plan, book: &mut Book, present: bool) {
        let Some(work) = &mut self.work else { return };
        if !present {
            book.tally.abandoned += u64::from(work.open);
            work.inflight.clear();
            work.unreleased.clear();
            (work.open, work.undelivered) = (0, 0);
            return;
        }
        let entries: Vec<Inflight> = work.inflight.iter().copied().collect();
        for entry in entries {
            match (entry.step, PacketId::new(entry.id)) {
                (Step::Published, Some(id)) => {
                    book.tally.resent += 1;
                    self.write(plan, book, entry.sequence, entry.time_ns, Some((id, true)));
                }
                (Step::Released, Some(id)) => {
                    encode_ack(&mut self.out, plan.version, AckKind::PubRel, id, ReasonCode::SUCCESS);
                }
                _ => {}
            }
        }
    }

    fn subscribe(&mut self, plan: &Plan, book: &Book, flow: &Flow) {
        let filter = plan.filter(flow, self.number);
        let retain_handling = if flow.retain || flow.kind == Kind::In {
            RetainHandling::Send
        } else {
            RetainHandling::DoNotSend
        };
        let options = SubscribeOptions { qos: flow.qos, retain_handling, ..SubscribeOptions::default() };
        let filters = [(&*filter, options)];
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: Properties::EMPTY,
            filters: Filters::new(&filters),
        };
        Packet::Subscribe(subscribe).encode(plan.version, &mut self.out);
        self.state = State::Subscribing;
        self.began_ns = book.now_ns;
    }

    fn handle_suback(&mut self, book: &mut Book, suback: &SubAck<'_>) -> Result<(), Cause> {
        if let Some(code) = suback.codes.iter().copied().find(|code| ReasonCode(*code).is_error()) {
            book.tally.refused_filters += 1;
            return Err(Cause::SubAck(code));
        }
        book.tally.subscribed += 1;
        self.state = State::Online;
        Ok(())
    }

    fn handle_publish(&mut self, plan: &Plan, book: &mut Book, publish: &Publish<'_>) -> Result<(), Cause> {
        let Some(flow) = plan.groups[usize::from(self.group)].flow else {
            return Err(Cause::Protocol("a message without a subscription"));
        };
        if let Some(id) = publish.packet_id {
            if publish.qos == QoS::ExactlyOnce {
                let work = self.work.get_or_insert_default();
                encode_ack(&mut self.out, plan.version, AckKind::PubRec, id, ReasonCode::SUCCESS);
                if work.unreleased.contains(&id.get()) {
                    book.tally.redelivered += 1;
                    return Ok(());
                }
                work.unreleased.push(id.get());
            } else {
                encode_ack(&mut self.out, plan.version, AckKind::PubAck, id, ReasonCode::SUCCESS);
            }
        }
        book.receive(plan, &plan.flows[flow], self, publish);
        Ok(())
    }

    fn handle_ack(&mut self, plan: &Plan, book: &mut Book, ack: &Ack<'_>) -> Result<(), Cause> {
        let number = self.number;
        let unknown = Err(Cause::Protocol("an acknowledgement of nothing"));
        let Some(work) = &mut self.work else { return unknown };
        if ack.kind == AckKind::PubRel {
            work.unreleased.retain(|id| *id != ack.packet_id.get());
            encode_ack(&mut self.out, plan.version, AckKind::PubComp, ack.packet_id, ReasonCode::SUCCESS);
            return Ok(());
        }
        let Some(entry) = work.find(ack.packet_id) else { return unknown };
        if ack.kind == AckKind::PubRec && !ack.code.is_error() {
            entry.step = Step::Released;
            encode_ack(&mut self.out, plan.version, AckKind::PubRel, ack.packet_id, ReasonCode::SUCCESS);
            return Ok(());
        }
        let (sequence, time_ns) = (entry.sequence, entry.time_ns);
        entry.step = Step::Done;
        work.settle();
        if ack.code.is_error() {
            book.tally.refused_messages += 1;
            book.note(Cause::Publish(ack.code.0));
            work.undelivered = work.undelivered.saturating_sub(fan(plan, self.group));
            return Ok(());
        }
        book.tally.acknowledged += 1;
        book.span(Span::Ack, time_ns);
        book.fates.acknowledged.entry(number).or_default().insert(sequence);
        Ok(())
    }

    /// Publishes what pace and window allow; `start_ns` is when the schedule of an open loop began.
    pub fn pump(&mut self, plan: &Plan, book: &mut Book, start_ns: u64, slots: u64, rate: f64) {
        let Some(flow) = plan.groups[usize::from(self.group)].flow.map(|flow| &plan.flows[flow]) else {
            return;
        };
        while self.state == State::Online && self.out.len() < OUT_BYTES_MAX {
            let Some(work) = &mut self.work else { return };
            if work.sequence >= flow.limit || !work.has_room(flow) {
                return;
            }
            let mut time_ns = book.now_ns;
            if let Pace::Open { .. } = flow.pace {
                let at = work.placed * slots + u64::from(work.slot);
                time_ns = start_ns + (at as f64 * 1e9 / rate) as u64;
                book.span(Span::Lag, time_ns);
                book.tally.lagging += u64::from(book.now_ns.saturating_sub(time_ns) > LAGGING_NS);
                work.owed -= 1;
                work.placed += 1;
            }
            self.publish(plan, book, flow, time_ns);
        }
    }

    fn publish(&mut self, plan: &Plan, book: &mut Book, flow: &Flow, time_ns: u64) {
        let Some(work) = &mut self.work else { return };
        let sequence = work.sequence;
        work.sequence += 1;
        work.undelivered += u64::from(flow.fan());
        let mut id = None;
        if flow.qos == QoS::AtMostOnce {
            work.unsent.0 += 1;
        } else {
            let entry = Inflight { sequence, time_ns, id: work.next_id, step: Step::Published };
            work.inflight.push_back(entry);
            work.open += 1;
            id = PacketId::new(work.next_id).map(|id| (id, false));
            work.next_id = if work.next_id == IDS { 1 } else { work.next_id + 1 };
        }
        book.tally.published += 1;
        book.tally.expected += u64::from(flow.fan());
        self.write(plan, book, sequence, time_ns, id);
        book.tally.published_bytes += book.payload.len() as u64;
    }

    /// Writes a PUBLISH; with its identifier, and whether it is sent again.
    fn write(
        &mut self,
        plan: &Plan,
        book: &mut Book,
        sequence: u32,
        time_ns: u64,
        id: Option<(PacketId, bool)>,
    ) {
        let Some(flow) = plan.groups[usize::from(self.group)].flow.map(|flow| &plan.flows[flow]) else {
            return;
        };
        let Some(work) = &mut self.work else { return };
        if work.topic.is_empty() || flow.changes_topic() {
            work.topic = plan.topic(flow, self.number, sequence);
        }
        let stamp = Stamp { run: plan.run, publisher: self.number, sequence, time_ns };
        plan.payload(&stamp, &work.topic, &mut book.payload);
        let publish = PublishOut {
            dup: id.is_some_and(|(_, again)| again),
            qos: flow.qos,
            retain: flow.retain,
            packet_id: id.map(|(id, _)| id),
            topic: &work.topic,
            alias: None,
            expiry_s: None,
            subscription_ids: &[],
            forward: &[],
            payload: &book.payload,
        };
        encode_publish(&mut self.out, plan.version, &publish);
    }
}

fn fan(plan: &Plan, group: u8) -> u64 {
    let flow = plan.groups[usize::from(group)].flow.map(|flow| &plan.flows[flow]);
    flow.map_or(0, |flow| u64::from(flow.fan()))
}

/// What came in place of a packet. Who speaks to a port of another kind is told so.
fn broken(error: crate::codec::DecodeError, bytes: &[u8]) -> Cause {
    let error = match bytes {
        // An alert, for CONNECT is no handshake.
        [21, 3, ..] => "expected MQTT, got a record of TLS: is it a port for --ssl?".to_owned(),
        [b'H', b'T', b'T', b'P', b'/', ..] => "expected MQTT, got HTTP: is it a port for --ws?".to_owned(),
        _ => error.to_string(),
    };
    Cause::Told(format!("protocol: {error}").into())
}
