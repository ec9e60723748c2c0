//! One thread of the generator: its clients over one driver.
//!
//! A turn: read commands, begin connects that are due, publish what is due, look at some timers, send once per
//! client that has something to send, wait for the driver, handle what it reports. Nothing blocks but the wait.

mod connections;
mod events;
mod output;
mod timers;
mod wrapped;

pub use wrapped::Wrap;

use super::book::Book;
use super::client::{Client, State};
use super::pacer::Pacer;
use super::plan::Plan;
use super::tally::{Fates, Tally, Update};
use crate::io::{Close, Driver, Io, Waker};
use crate::map::Map;
use crate::time::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use wrapped::Wrapping;

/// No client.
const NOBODY: u32 = u32::MAX;
/// Milliseconds between two updates of counters that have changed.
const UPDATE_MS: u64 = 10;
/// Milliseconds between two updates of latencies.
const LATENCIES_MS: u64 = 200;
/// Nanoseconds before a message of an open loop is due, within which a worker does not sleep.
const AWAKE_NS: u64 = 1_500_000;
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
    wrapping: Wrapping,
    pings: Option<PingRound>,
    swept: u32,
    swept_ms: u64,
    stalls_ms: u64,
    updated_ms: u64,
    measured_ms: u64,
    told: Tally,
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
            pacer.share(flow.pubs.len());
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
            wrapping: Wrapping::default(),
            pings: None,
            swept: 0,
            swept_ms: 0,
            stalls_ms: 0,
            updated_ms: 0,
            measured_ms: 0,
            told: Tally::default(),
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
            if events.is_empty() && deadline.is_none() && !self.plan.spin {
                // Awake only to be in time: whoever else wants this core may have it.
                std::thread::yield_now();
            }
            self.read_clock();
            for event in events.drain(..) {
                self.handle_event(event);
            }
            self.pass_deliveries_on();
        }
        self.update(true);
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
                self.update(true);
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
            if self.plan.precise && next < self.book.now_ns + AWAKE_NS {
                return None;
            }
            until = until.min(next.saturating_sub(self.plan.epoch_ns).div_ceil(1_000_000));
        }
        if self.finish_ms.is_some() {
            until = until.min(now_ms + 5);
        }
        Some(Moment(until))
    }

    fn update(&mut self, latencies: bool) {
        self.updated_ms = self.now_ms();
        self.told = self.book.tally;
        let mut measured = None;
        if latencies {
            self.measured_ms = self.updated_ms;
            if !self.book.latencies.is_empty() {
                measured = Some(Box::new(self.book.latencies.clone()));
                self.book.latencies.clear();
            }
        }
        let update = Update {
            worker: self.me,
            tally: self.book.tally,
            causes: self.book.causes.clone(),
            latencies: measured,
            mark: self.mark,
        };
        // The coordinator is there until the end.
        let _ = self.updates.send(update);
    }
}
