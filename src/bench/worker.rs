//! One thread of the generator: its clients over one driver.
//!
//! A turn: read commands, begin connects that are due, publish what is due, look at some timers, send once per
//! client that has something to send, wait for the driver, handle what it reports. Nothing blocks but the wait.

use super::book::Book;
use super::client::{Client, State};
use super::pacer::Pacer;
use super::plan::{Pace, Plan};
use super::tally::{Cause, Fates, Update};
use crate::io::{Close, Conn, Driver, Event, Io, Read, ReadEnd, Waker};
use crate::limits::READ_CREDIT_BYTES;
use crate::map::Map;
use crate::time::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// No client.
const NOBODY: u32 = u32::MAX;
/// Milliseconds between two updates.
const UPDATE_MS: u64 = 200;
/// Milliseconds after which a lost client comes back.
const RECONNECT_MS: u64 = 500;
/// Milliseconds between two looks at publishers that wait for deliveries.
const STALL_MS: u64 = 1_000;
/// Milliseconds that a worker waits for its connections to close at the end.
const FAREWELL_MS: u64 = 5_000;
/// Connects that one turn begins.
const CONNECTS_PER_TURN: u32 = 64;
/// Milliseconds in which all clients' timers are looked at once.
const SWEEP_MS: u64 = 1_000;

/// What the coordinator, or another worker, wants.
#[derive(Debug)]
pub enum Command {
    /// The clients of a group connect and subscribe.
    Connect(usize),
    /// Publishers begin or end.
    Publish(bool),
    /// Latencies are noted or not.
    Measure(bool),
    /// Each client of a group that is online sends one PINGREQ, spread over so many milliseconds.
    Ping(usize, u64),
    /// The clients of a group go away, with a reset or with DISCONNECT, and stay away.
    Leave(usize, Close),
    /// Messages of publishers of this worker were delivered.
    Delivered(Vec<u32>),
    /// An update is wanted now, with this mark.
    Mark(u32),
    /// Everybody leaves, and the thread ends.
    Finish,
}

/// How to reach a worker.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Its commands.
    pub commands: Sender<Command>,
    /// Its bell.
    pub waker: Waker,
}

impl Mailbox {
    /// Tells it something. One that has ended hears nothing.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// Clients that are to ping.
struct PingRound {
    next: u32,
    clients: std::ops::Range<u32>,
    begin_ms: u64,
    over_ms: u64,
}

/// One thread's clients. Indices are positions in `clients`.
pub struct Worker {
    me: usize,
    plan: Arc<Plan>,
    io: Driver<()>,
    book: Book,
    clients: Vec<Client>,
    /// By connection.
    owners: Vec<u32>,
    /// Publishers by number.
    publishers: Map<u32, u32>,
    pacers: Vec<Pacer>,
    publishing: bool,
    /// To be connected, by the ramp.
    ramp: VecDeque<std::ops::Range<u32>>,
    ramp_begin_ns: u64,
    ramped: u64,
    /// To be connected again, and when.
    retries: VecDeque<(u64, u32)>,
    /// Connects under way.
    connecting: u32,
    /// Connects are or were under way, and no update has told that none is.
    ramping: bool,
    dirty: Vec<u32>,
    pings: Option<PingRound>,
    swept: u32,
    swept_ms: u64,
    stalls_ms: u64,
    updated_ms: u64,
    mark: u32,
    finish_ms: Option<u64>,
    commands: Receiver<Command>,
    updates: Sender<Update>,
    peers: Vec<Mailbox>,
}

/// What a worker is made of.
pub struct Parts {
    /// Its number.
    pub me: usize,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The thread's driver.
    pub io: Driver<()>,
    /// What it is told.
    pub commands: Receiver<Command>,
    /// Where it tells what it counts.
    pub updates: Sender<Update>,
    /// All workers.
    pub peers: Vec<Mailbox>,
}

impl Worker {
    /// A worker with all of its clients, none of them connected.
    pub fn new(parts: Parts) -> Worker {
        let Parts { me, plan, io, commands, updates, peers } = parts;
        let mine = |number: &u32| plan.worker_of(*number) as usize == me;
        let mut clients = Vec::with_capacity(plan.clients() as usize / plan.threads as usize + 1);
        clients.extend((0..plan.clients()).filter(mine).map(|number| Client::new(&plan, number)));
        let mut publishers = Map::default();
        let mut pacers: Vec<Pacer> = plan.flows.iter().map(|flow| Pacer::new(flow.pace)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            let group = &plan.groups[usize::from(client.group)];
            if let (Some(flow), Some(work), false) = (group.flow, &mut client.work, group.subscribes) {
                publishers.insert(client.number, at as u32);
                work.slot = pacers[flow].seat(at as u32);
            }
        }
        for (pacer, flow) in pacers.iter_mut().zip(&plan.flows) {
            pacer.share(flow.pubs.len(), me);
        }
        Worker {
            me,
            io,
            book: Book::default(),
            clients,
            owners: Vec::new(),
            publishers,
            pacers,
            publishing: false,
            ramp: VecDeque::new(),
            ramp_begin_ns: 0,
            ramped: 0,
            retries: VecDeque::new(),
            connecting: 0,
            ramping: false,
            dirty: Vec::new(),
            pings: None,
            swept: 0,
            swept_ms: 0,
            stalls_ms: 0,
            updated_ms: 0,
            mark: 0,
            finish_ms: None,
            commands,
            updates,
            peers,
            plan,
        }
    }

    /// Runs until it is told to finish.
    pub fn run(mut self) -> Fates {
        let mut events = Vec::new();
        loop {
            let now_ms = self.read_clock();
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command, now_ms);
            }
            self.connect_due(now_ms);
            self.publish_due();
            self.look_at_timers(now_ms);
            self.flush(now_ms);
            if self.has_finished(now_ms) {
                break;
            }
            let deadline = self.deadline(now_ms);
            self.io.turn(&mut events, deadline);
            self.read_clock();
            for event in events.drain(..) {
                self.handle_event(event);
            }
            self.pass_deliveries_on();
        }
        self.update();
        for (number, at) in &self.publishers {
            if let Some(work) = &self.clients[*at as usize].work {
                self.book.fates.sent.insert(*number, work.sequence);
            }
        }
        self.book.fates
    }

    /// Reads the clock; milliseconds since the start.
    fn read_clock(&mut self) -> u64 {
        let since = self.plan.start.elapsed();
        self.book.now_ns = self.plan.epoch_ns + since.as_nanos() as u64;
        since.as_millis() as u64
    }

    fn now_ms(&self) -> u64 {
        (self.book.now_ns - self.plan.epoch_ns) / 1_000_000
    }

    fn obey(&mut self, command: Command, now_ms: u64) {
        match command {
            Command::Connect(group) => {
                let clients = self.own(group);
                self.ramp.push_back(clients);
                (self.ramp_begin_ns, self.ramped) = (self.book.now_ns, 0);
            }
            Command::Publish(on) => {
                self.publishing = on;
                let now_ns = self.book.now_ns;
                if on {
                    self.pacers.iter_mut().for_each(|pacer| pacer.begin(now_ns));
                    let works = self.clients.iter_mut().filter_map(|client| client.work.as_mut());
                    works.for_each(|work| (work.owed, work.placed) = (0, 0));
                    self.publishers
                        .values()
                        .copied()
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|at| self.pump(at));
                }
            }
            Command::Measure(on) => self.book.measuring = on,
            Command::Ping(group, over_ms) => {
                let clients = self.own(group);
                self.pings = Some(PingRound { next: clients.start, clients, begin_ms: now_ms, over_ms });
            }
            Command::Leave(group, how) => {
                for at in self.own(group) {
                    self.leave(at, how);
                }
            }
            Command::Delivered(publishers) => {
                for publisher in publishers {
                    self.credit(publisher);
                }
            }
            Command::Mark(mark) => {
                self.mark = mark;
                self.update();
            }
            Command::Finish => {
                self.publishing = false;
                self.ramp.clear();
                self.retries.clear();
                self.finish_ms = Some(now_ms + FAREWELL_MS);
                for at in 0..self.clients.len() as u32 {
                    self.leave(at, Close::Flush);
                }
            }
        }
    }

    /// The clients of a group that are ours.
    fn own(&self, group: usize) -> std::ops::Range<u32> {
        let end =
            |group: usize| self.clients.partition_point(|client| usize::from(client.group) < group) as u32;
        end(group)..end(group + 1)
    }

    fn has_finished(&self, now_ms: u64) -> bool {
        let Some(limit_ms) = self.finish_ms else { return false };
        now_ms >= limit_ms || self.clients.iter().all(|client| client.state == State::Offline)
    }

    /// Until when the driver may sleep.
    fn deadline(&self, now_ms: u64) -> Option<Moment> {
        let may_connect = self.connecting < self.plan.pending && !self.ramp.is_empty();
        if self.plan.spin || !self.dirty.is_empty() || may_connect && self.plan.connrate == 0.0 {
            return None;
        }
        let mut until = now_ms + 50;
        if may_connect || self.pings.is_some() {
            until = now_ms + 1;
        }
        if self.publishing {
            let next = self.pacers.iter().filter_map(Pacer::next_ns).min().unwrap_or(u64::MAX);
            until = until.min(next.saturating_sub(self.plan.epoch_ns).div_ceil(1_000_000));
        }
        if self.finish_ms.is_some() {
            until = until.min(now_ms + 5);
        }
        Some(Moment(until))
    }

    // ---- connects

    fn connect_due(&mut self, now_ms: u64) {
        while let Some((due_ms, at)) = self.retries.front().copied() {
            if due_ms > now_ms || self.connecting >= self.plan.pending {
                break;
            }
            self.retries.pop_front();
            self.connect(at, self.book.now_ns);
        }
        let rate = self.plan.connrate / f64::from(self.plan.threads);
        for _ in 0..CONNECTS_PER_TURN {
            let Some(range) = self.ramp.front_mut() else { return };
            let due_ns = match rate {
                0.0 => self.book.now_ns,
                rate => self.ramp_begin_ns + (self.ramped as f64 * 1e9 / rate) as u64,
            };
            if self.connecting >= self.plan.pending || due_ns > self.book.now_ns {
                return;
            }
            match range.next() {
                None => drop(self.ramp.pop_front()),
                Some(at) => {
                    self.ramped += 1;
                    self.connect(at, due_ns);
                }
            }
        }
    }

    fn connect(&mut self, at: u32, due_ns: u64) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        if client.state != State::Offline || self.finish_ms.is_some() {
            return;
        }
        let number = client.number as usize;
        let targets = &self.plan.targets;
        let sources = &self.plan.sources;
        let source = (!sources.is_empty()).then(|| sources[number / targets.len() % sources.len()]);
        self.book.tally.started += 1;
        client.again = self.plan.reconnect;
        match self.io.connect(targets[number % targets.len()], source) {
            Ok(conn) => {
                client.state = State::Connecting;
                (client.conn, client.began_ns, client.since_ms) = (conn, due_ns, now_ms as u32);
                if self.owners.len() <= conn as usize {
                    self.owners.resize(conn as usize + 1, NOBODY);
                }
                self.owners[conn as usize] = at;
                self.connecting += 1;
                self.ramping = true;
            }
            Err(error) => {
                self.book.tally.connect_failed += 1;
                self.book.note(Cause::Connect(error.raw_os_error().unwrap_or_default()));
                if client.again {
                    self.retries.push_back((now_ms + RECONNECT_MS, at));
                }
            }
        }
    }

    /// Ends a connection that should have gone on.
    fn lose(&mut self, at: u32, cause: Cause) {
        let client = &mut self.clients[at as usize];
        match client.state {
            State::Offline | State::Closing => return,
            State::Connecting | State::Greeting => self.book.tally.connect_failed += 1,
            State::Subscribing | State::Online => {
                self.book.tally.disconnects += 1;
                self.book.tally.online -= 1;
            }
        }
        self.connecting -= u32::from(client.state != State::Online);
        client.state = State::Closing;
        self.io.close(client.conn, Close::Now);
        self.book.note(cause);
    }

    /// Ends a connection for good, or until it is told to connect.
    fn leave(&mut self, at: u32, how: Close) {
        let finishing = self.finish_ms.is_some();
        let client = &mut self.clients[at as usize];
        client.again = false;
        match client.state {
            State::Offline | State::Closing => return,
            State::Connecting | State::Greeting => {}
            State::Subscribing | State::Online => self.book.tally.online -= 1,
        }
        if how == Close::Flush && client.state == State::Online && !client.sending {
            client.leave(&self.plan, finishing);
            client.sending = true;
            self.io.send(client.conn, std::mem::take(&mut client.out));
        }
        self.connecting -= u32::from(client.state != State::Online);
        let how = if client.state == State::Connecting { Close::Now } else { how };
        client.state = State::Closing;
        self.io.close(client.conn, how);
    }

    // ---- events

    fn handle_event(&mut self, event: Event<()>) {
        match event {
            Event::Connected { conn, error } => {
                self.with(conn, |worker, at| worker.handle_connected(at, error))
            }
            Event::Data { conn, lease } => {
                self.with(conn, |worker, at| worker.handle_data(at, &lease));
                self.io.release(lease);
            }
            Event::Ready { conn } => self.with(conn, |worker, at| {
                if worker.clients[at as usize].state != State::Closing {
                    worker.io.read(conn, Read::Once);
                }
            }),
            Event::ReadEnded { conn, why } => self.with(conn, |worker, at| worker.handle_read_ended(at, why)),
            Event::Sent { conn, buffer, error } => {
                self.with(conn, |worker, at| worker.handle_sent(at, buffer, error));
            }
            Event::Closed { conn } => self.with(conn, Worker::handle_closed),
            // No listener, no other shard; `Woken` has done its work.
            Event::Accepted { .. }
            | Event::Arrived { .. }
            | Event::HandedOver { .. }
            | Event::HandOverFailed { .. }
            | Event::Woken => {}
        }
    }

    fn with(&mut self, conn: Conn, handle: impl FnOnce(&mut Worker, u32)) {
        match self.owners.get(conn as usize) {
            Some(at) if *at != NOBODY => handle(self, *at),
            _ => {}
        }
    }

    fn handle_connected(&mut self, at: u32, error: Option<i32>) {
        if let Some(errno) = error {
            return self.lose(at, Cause::Connect(errno));
        }
        let client = &mut self.clients[at as usize];
        if client.state != State::Connecting {
            return;
        }
        client.greet(&self.plan);
        self.arm(at);
        self.soil(at);
    }

    /// Arms the read that a client needs next.
    fn arm(&mut self, at: u32) {
        let client = &self.clients[at as usize];
        let idle = self.plan.groups[usize::from(client.group)].idle;
        let mode = match client.state {
            State::Offline | State::Closing => return,
            State::Online if idle => Read::Parked,
            _ if idle => Read::Once,
            _ => Read::Stream { credit: READ_CREDIT_BYTES },
        };
        self.io.read(client.conn, mode);
    }

    fn handle_data(&mut self, at: u32, bytes: &[u8]) {
        self.read_clock();
        let client = &mut self.clients[at as usize];
        if client.state == State::Closing {
            return;
        }
        self.book.tally.bytes_in += bytes.len() as u64;
        let before = client.state;
        match client.handle_bytes(&self.plan, &mut self.book, bytes) {
            Err(cause) => {
                // CONNACK may have come in the same bytes.
                self.connecting -= u32::from(before != State::Online && client.state == State::Online);
                return self.lose(at, cause);
            }
            Ok(()) => {
                let ready = before != State::Online && client.state == State::Online;
                self.connecting -= u32::from(ready);
            }
        }
        let client = &self.clients[at as usize];
        if self.plan.groups[usize::from(client.group)].idle {
            self.arm(at);
        }
        self.pump(at);
        self.soil(at);
    }

    fn handle_read_ended(&mut self, at: u32, why: ReadEnd) {
        match why {
            ReadEnd::Credit => self.arm(at),
            ReadEnd::Err(errno) => self.lose(at, Cause::Socket(errno)),
            ReadEnd::Eof => {
                let online = self.clients[at as usize].state == State::Online;
                self.lose(at, Cause::Closed(if online { "while connected" } else { "before it was ready" }));
            }
        }
    }

    fn handle_sent(&mut self, at: u32, buffer: Vec<u8>, error: Option<i32>) {
        let client = &mut self.clients[at as usize];
        client.sending = false;
        if client.state == State::Closing {
            return;
        }
        if let Some(errno) = error {
            return self.lose(at, Cause::Socket(errno));
        }
        if client.out.capacity() == 0 && !self.plan.groups[usize::from(client.group)].idle {
            client.out = buffer;
        }
        if let Some(work) = &mut client.work {
            work.has_left();
            self.pump(at);
        }
        self.soil(at);
    }

    fn handle_closed(&mut self, at: u32) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        self.owners[client.conn as usize] = NOBODY;
        client.reset();
        if client.again && self.finish_ms.is_none() {
            self.retries.push_back((now_ms + RECONNECT_MS, at));
        }
    }

    // ---- output

    /// Puts a client on the list of those that have something to send.
    fn soil(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        if !client.out.is_empty() && !client.sending && !client.dirty {
            client.dirty = true;
            self.dirty.push(at);
        }
    }

    fn flush(&mut self, now_ms: u64) {
        for at in self.dirty.drain(..) {
            let client = &mut self.clients[at as usize];
            client.dirty = false;
            if client.sending || client.out.is_empty() || client.state == State::Closing {
                continue;
            }
            if let Some(work) = &mut client.work {
                work.hand_over();
            }
            (client.sending, client.sent_ms) = (true, now_ms as u32);
            self.book.tally.bytes_out += client.out.len() as u64;
            self.io.send(client.conn, std::mem::take(&mut client.out));
        }
    }

    fn publish_due(&mut self) {
        if !self.publishing {
            return;
        }
        for flow in 0..self.pacers.len() {
            while let Some(at) = self.pacers[flow].due(self.book.now_ns) {
                if let Some(work) = &mut self.clients[at as usize].work {
                    work.owed = work.owed.saturating_add(1);
                }
                self.pump(at);
            }
        }
    }

    /// Publishes what a client may publish now.
    fn pump(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let group = &self.plan.groups[usize::from(client.group)];
        let (true, Some(flow), false) = (self.publishing, group.flow, group.subscribes) else { return };
        let pacer = &self.pacers[flow];
        client.pump(&self.plan, &mut self.book, pacer.begin_ns(), pacer.seats(), pacer.rate());
        self.soil(at);
    }

    fn pass_deliveries_on(&mut self) {
        if self.book.delivered.is_empty() {
            return;
        }
        let mut delivered = std::mem::take(&mut self.book.delivered);
        if self.peers.len() > 1 {
            let mut away = vec![Vec::new(); self.peers.len()];
            delivered.retain(|publisher| {
                let home = self.plan.worker_of(*publisher) as usize;
                if home != self.me {
                    away[home].push(*publisher);
                }
                home == self.me
            });
            for (peer, publishers) in self.peers.iter().zip(away).filter(|(_, list)| !list.is_empty()) {
                peer.tell(Command::Delivered(publishers));
            }
        }
        for publisher in delivered.drain(..) {
            self.credit(publisher);
        }
        self.book.delivered = delivered;
    }

    fn credit(&mut self, publisher: u32) {
        let Some(at) = self.publishers.get(&publisher).copied() else { return };
        if let Some(work) = &mut self.clients[at as usize].work {
            work.undelivered = work.undelivered.saturating_sub(1);
            work.delivered += 1;
        }
        self.pump(at);
    }

    // ---- timers

    fn look_at_timers(&mut self, now_ms: u64) {
        self.ping_due(now_ms);
        let elapsed = now_ms.saturating_sub(self.swept_ms);
        let many = (self.clients.len() as u64 * elapsed / SWEEP_MS).min(self.clients.len() as u64);
        if many > 0 || elapsed > SWEEP_MS {
            self.swept_ms = now_ms;
            for _ in 0..many {
                self.swept = (self.swept + 1) % self.clients.len() as u32;
                self.look_at(self.swept, now_ms);
            }
        }
        if now_ms >= self.stalls_ms + STALL_MS {
            self.stalls_ms = now_ms;
            self.unblock();
        }
        let ramped = self.ramping && self.ramp.is_empty() && self.connecting == 0;
        if now_ms >= self.updated_ms + UPDATE_MS || ramped {
            self.ramping &= !ramped;
            self.update();
        }
    }

    fn look_at(&mut self, at: u32, now_ms: u64) {
        let client = &mut self.clients[at as usize];
        let keep_alive_ms = u64::from(self.plan.keep_alive_s) * 1000;
        let waiting_ms = u64::from((now_ms as u32).wrapping_sub(client.since_ms));
        let what = match client.state {
            State::Offline | State::Closing => return,
            State::Connecting => "connection",
            State::Greeting => "CONNACK",
            State::Subscribing => "SUBACK",
            State::Online if client.pinging => {
                let limit_ms = if keep_alive_ms == 0 { self.plan.connect_timeout_ms } else { keep_alive_ms };
                if waiting_ms > limit_ms {
                    self.lose(at, Cause::Timeout("PINGRESP"));
                }
                return;
            }
            State::Online => {
                let silent_ms = u64::from((now_ms as u32).wrapping_sub(client.sent_ms));
                // Spread over a quarter of the keep alive, so that they do not all ping at once.
                let jitter_ms = u64::from(client.number % 256) * keep_alive_ms / 1024;
                if keep_alive_ms > 0 && silent_ms > keep_alive_ms / 2 + jitter_ms {
                    client.ping(&self.plan, now_ms as u32);
                    self.book.tally.pings += 1;
                    self.soil(at);
                }
                return;
            }
        };
        if waiting_ms > self.plan.connect_timeout_ms {
            self.lose(at, Cause::Timeout(what));
        }
    }

    fn ping_due(&mut self, now_ms: u64) {
        let Some(round) = &self.pings else { return };
        let all = round.clients.len() as u64;
        let due = all * (now_ms - round.begin_ms) / round.over_ms.max(1);
        let until = round.clients.start + due.min(all) as u32;
        let (from, done) = (round.next, until == round.clients.end);
        for at in from..until {
            let client = &mut self.clients[at as usize];
            if client.state == State::Online {
                client.asked_to_ping = true;
                client.ping(&self.plan, now_ms as u32);
                self.book.tally.pings += 1;
                self.soil(at);
            }
        }
        if done {
            self.pings = None;
        } else if let Some(round) = &mut self.pings {
            round.next = until;
        }
    }

    /// A message that was lost must not shrink a window for ever.
    fn unblock(&mut self) {
        let blocked: Vec<u32> = self.publishers.values().copied().collect();
        for at in blocked {
            let client = &mut self.clients[at as usize];
            let group = &self.plan.groups[usize::from(client.group)];
            let closed =
                group.flow.is_some_and(|flow| matches!(self.plan.flows[flow].pace, Pace::Closed { .. }));
            let Some(work) = &mut client.work else { continue };
            let stuck = work.undelivered > 0 && work.delivered == work.progress && work.is_settled();
            work.progress = work.delivered;
            if closed && stuck && client.state == State::Online {
                work.undelivered = 0;
                self.book.tally.stalls += 1;
                self.pump(at);
            }
        }
    }

    fn update(&mut self) {
        self.updated_ms = self.now_ms();
        let latencies = (!self.book.latencies.is_empty()).then(|| Box::new(self.book.latencies.clone()));
        self.book.latencies.clear();
        let update = Update {
            worker: self.me,
            tally: self.book.tally,
            causes: self.book.causes.clone(),
            latencies,
            mark: self.mark,
        };
        // The coordinator is there until the end.
        let _ = self.updates.send(update);
    }
}
