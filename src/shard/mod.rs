//! One core's part of the broker: its connections, its sessions, its replica of the routes, and the tick
//! that moves everything.
//!
//! A tick: reap completions ─ read the tails of all inbound rings ─ drain control rings to those tails ─
//! decode and handle ─ drain data rings ─ timers ─ background work ─ announce ─ flush dirty connections ─
//! submit once and sleep if there is nothing to do. It never blocks, and each part has a budget in
//! [`crate::limits`]; what is left over is found again by the next tick.
//!
//! The order is what makes SUBACK need no round trip: announcements are in the peers' rings before the
//! SUBACK is given to the driver, and a peer drains its control rings after it reaped and before it decodes,
//! so a PUBLISH that the SUBACK caused meets the route.
//!
//! A shard shares nothing: other shards are reached through the mesh alone, its operator by [`Command`]s.

mod acks;
mod bans;
mod command;
mod connect;
mod connection;
mod control;
mod desk;
mod door;
mod drain;
mod entrance;
mod exchange;
mod flapping;
mod handshakes;
mod inquiries;
mod inspect;
mod keep;
mod listing;
mod local;
mod memory;
mod obstacle;
mod once;
mod output;
mod pace;
mod packets;
mod pressure;
mod publish;
mod quota;
mod report;
mod restore;
mod retain;
mod rights;
mod rules;
mod scans;
mod sessions;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;
mod trace;
mod waiters;
mod watch;
mod wrapped;

pub use command::{Command, Farewell};
pub use connection::Handover;
pub use door::AskLogin;
pub use handshakes::Helpers;
pub use inquiries::AskRights;
pub use inspect::{GroupCounts, Inspection, Routes, SessionView};
pub use pressure::Pressure;
pub use restore::{Disk, Restored, RestoredSession, load};

use crate::auth::Policy;
use crate::codec::{DecodeError, ReasonCode, Version};
use crate::io::{Close, Conn, Event, Io, Read, ReadEnd, ShardId};
use crate::limits::*;
use crate::listener::Entrance;
use crate::map::{Keyed, Slot};
use crate::mesh::Mesh;
use crate::message::Message;
use crate::rate::RateLimit;
use crate::retained::Retained;
use crate::router::Router;
use crate::session::Options;
use crate::stats::{Gauges, Part};
use crate::time::Moment;
use crate::time::wheel::Wheel;
use crate::trie::Trie;
use connection::{Armed, Near, Phase, Wait};
use local::Local;
use publish::FanOut;
use rules::Rules;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use timers::Timer;

/// What a shard is made of.
pub struct Parts<I> {
    /// Its driver.
    pub io: I,
    /// Its end of the mesh.
    pub mesh: Mesh,
    /// Its number.
    pub me: ShardId,
    /// How many there are.
    pub shards: usize,
    /// The process-wide keyed hash.
    pub keyed: Keyed,
    /// Seed of its own choices (shared subscriptions, assigned client identifiers).
    pub seed: u64,
    /// Options of the sessions.
    pub options: Options,
    /// Who may connect.
    pub policy: Arc<Policy>,
    /// Asks those who judge logins, where somebody does.
    pub ask_login: Option<AskLogin>,
    /// Asks those who know about rights, where somebody does.
    pub ask_rights: Option<AskRights>,
    /// Take steps of TLS handshakes, where somebody does; else the shard takes them itself.
    pub helpers: Option<Helpers>,
    /// The listeners, by number; none where nothing is to be said of them.
    pub entrances: Vec<Entrance>,
    /// Log lines per second.
    pub log_lines_per_s: u32,
    /// The operator's commands; whoever sends one wakes the driver.
    pub commands: Receiver<Command>,
    /// Subscribers above which a message is handed out over several ticks: [`FAN_OUT_AT_ONCE_MAX`], and less
    /// where a simulation wants to see that often.
    pub fan_out_at_once: usize,
    /// Deliveries, packets and filters of one tick: [`TICK_DELIVERIES_MAX`], and less in a simulation.
    pub tick_deliveries: usize,
    /// Bits of the key of a route that count: all, and fewer where a simulation wants filters that share one.
    pub route_key_mask: u64,
    /// The disk, and what was on it; `None`: nothing is kept.
    pub store: Option<Disk>,
}

/// One core's part of the broker.
pub struct Shard<I: Io<Handover>> {
    io: I,
    mesh: Mesh,
    me: ShardId,
    shards: u16,
    local: Local,
    trie: Trie,
    retained: Retained,
    /// What is refused for want of memory.
    pressure: Pressure,
    /// Who comes and goes, where that is looked at.
    flapping: flapping::Flapping,
    /// How fast clients are, where that is bounded.
    paces: pace::Paces,
    /// What is to be refused because it cannot be retained.
    quota: quota::Quota,
    /// Stamps of what was retained a moment ago.
    recent: retain::Recent,
    router: Router,
    wheel: Wheel<Timer>,
    commands: Receiver<Command>,
    log: RateLimit,
    events: Vec<Event<Handover>>,
    /// Connections with undecoded bytes whose turn comes again.
    ready: VecDeque<Slot>,
    waiters: waiters::Waiters,
    /// SUBSCRIBE and UNSUBSCRIBE packets that were handled in part.
    partials: Vec<subscribe::Partial>,
    /// Acknowledgements that wait until announcements have left the overflow, by mark.
    held: VecDeque<Held>,
    /// Messages that are handed out over several ticks.
    fan_outs: VecDeque<FanOut>,
    /// Source shards whose data ring waits for a fan-out, as bits.
    stalled: u64,
    /// Messages of our own (wills) that wait for room on a target, whose mesh end wakes us when there is some.
    backlog: VecDeque<Message>,
    /// Ended sessions whose subscriptions are being removed.
    cleanup: VecDeque<u32>,
    scans: scans::ScanState,
    desk: desk::Desk,
    watching: watch::Watching,
    door: door::Door,
    drain: Option<drain::Drain>,
    /// TLS and WebSocket.
    wrapped: wrapped::Wrapped,
    handshakes: handshakes::Handshakes,
    /// A sweep for expired retained messages is filed.
    sweeping: bool,
    moving: usize,
    accept_paused: bool,
    /// Deliveries and packets that this tick may still make.
    budget: isize,
    fan_out_at_once: usize,
    tick_deliveries: usize,
    scratch: publish::Scratch,
    random: u64,
    stopped: bool,
    /// What it held at most.
    peaks: Gauges,
}

/// An acknowledgement that waits for announcements.
struct Held {
    mark: u64,
    conn: Slot,
    bytes: Vec<u8>,
}

/// What follows from a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Go on with the next one.
    Go,
    /// It was not consumed; the connection waits.
    Wait,
    /// It was consumed; the connection waits.
    After,
    /// The connection serves no more.
    Gone,
    /// It goes to another shard, and the packet with it.
    Moved,
}

/// A peer's fault, which ends its connection.
#[derive(Debug)]
struct Fault {
    code: ReasonCode,
    text: Cow<'static, str>,
    /// Of a malformed CONNECT: the version in which an answer would be understood.
    connect_version: Option<Version>,
}

impl Fault {
    fn new(code: ReasonCode, text: impl Into<Cow<'static, str>>) -> Fault {
        Fault { code, text: text.into(), connect_version: None }
    }

    fn of(e: &DecodeError) -> Fault {
        Fault { code: e.code, text: e.to_string().into(), connect_version: e.connect_version_hint() }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// A shard that listens nowhere yet.
    pub fn new(parts: Parts<I>) -> Shard<I> {
        let Parts { io, mesh, me, shards, keyed, seed, options, log_lines_per_s, commands, .. } = parts;
        let entrances = parts.entrances;
        let mut paces = pace::Paces::default();
        paces.set_users(&options);
        let mut shard = Shard {
            trie: Trie::new(me, shards, keyed.clone()).with_key_mask(parts.route_key_mask),
            retained: Retained::new(retain::retained_options(&options, shards), seed),
            router: Router::new(me, seed, keyed.clone()),
            local: Local::new(keyed, Rules::new(options, entrances)),
            wheel: Wheel::new(TIMER_GRANULE_MS, io.now()),
            waiters: waiters::Waiters::new(shards),
            log: RateLimit::new(log_lines_per_s),
            random: seed | 1,
            recent: retain::Recent::default(),
            pressure: Pressure::default(),
            flapping: flapping::Flapping::default(),
            paces,
            quota: quota::Quota::default(),
            shards: shards as u16,
            io,
            mesh,
            me,
            commands,
            events: Vec::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            partials: Vec::new(),
            fan_outs: VecDeque::new(),
            stalled: 0,
            backlog: VecDeque::new(),
            cleanup: VecDeque::new(),
            scans: scans::ScanState::default(),
            desk: desk::Desk::default(),
            watching: watch::Watching::default(),
            door: door::Door::new(parts.policy, parts.ask_login, parts.ask_rights),
            drain: None,
            wrapped: wrapped::Wrapped::default(),
            handshakes: handshakes::Handshakes::new(parts.helpers),
            sweeping: false,
            moving: 0,
            accept_paused: false,
            budget: 0,
            fan_out_at_once: parts.fan_out_at_once.max(1),
            tick_deliveries: parts.tick_deliveries.max(1),
            scratch: publish::Scratch::default(),
            stopped: false,
            peaks: Gauges::default(),
        };
        if let Some(disk) = parts.store {
            shard.restore(disk);
        }
        shard
    }

    /// Ticks until a drain is complete.
    pub fn run(mut self) -> Farewell {
        while !self.stopped {
            self.tick();
        }
        self.farewell()
    }

    /// Whether a drain is complete.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What it has to tell at its end.
    pub fn farewell(self) -> Farewell {
        Farewell {
            driver: self.io.describe(),
            counters: self.counters(),
            memory: self.memory(),
            ledger: self.local.ledger,
        }
    }

    /// One turn of everything.
    pub fn tick(&mut self) {
        let deadline = self.prepare();
        self.work(deadline);
    }

    /// The first half of a tick: whether there is a reason to stay awake (`None`), or until when it may sleep.
    /// Between this and [`Shard::work`] it counts as asleep for the other shards.
    pub fn prepare(&mut self) -> Option<Moment> {
        let idle = self.ready.is_empty()
            && self.fan_outs.is_empty()
            && self.cleanup.is_empty()
            && self.scans.is_idle()
            && self.desk.is_idle()
            && self.handshakes.is_idle()
            && self.door.is_idle()
            && self.drain.is_none()
            && self.local.done.is_empty()
            && self.local.keeper.as_ref().is_none_or(|keeper| keeper.is_quiet());
        if idle && self.mesh.prepare_sleep() {
            return Some(self.wheel.next_due());
        }
        self.drain.is_some().then(|| self.io.now().plus_ms(1))
    }

    /// The second half of a tick, with what [`Shard::prepare`] returned.
    pub fn work(&mut self, deadline: Option<Moment>) {
        self.reap(deadline);
        // Before the tails are read: what an answer of another shard told of is seen by the next question.
        self.take_commands();
        self.mesh.read_tails(|| self.io.meanwhile());
        self.drain_control();
        self.lap(Part::Control);
        self.obey();
        self.lap(Part::Commands);
        self.budget = self.tick_deliveries as isize;
        self.run_ready();
        self.lap(Part::Ready);
        self.handle_events();
        self.run_handshakes();
        self.lap(Part::Events);
        self.drain_data();
        self.lap(Part::Data);
        self.run_fan_outs();
        self.lap(Part::FanOuts);
        self.fire_timers();
        self.lap(Part::Timers);
        self.run_background();
        self.lap(Part::Background);
        self.settle();
        self.announce();
        self.lap(Part::Announce);
        self.flush();
        self.lap(Part::Flush);
        self.report_happenings();
        self.close_tick();
    }

    /// Sleeps where there is nothing to do, and collects what the driver has.
    fn reap(&mut self, deadline: Option<Moment>) {
        let mut events = std::mem::take(&mut self.events);
        self.io.turn(&mut events, deadline);
        let rung = self.mesh.awake();
        self.events = events;
        self.open_tick(deadline, rung);
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let leases = events.iter().filter(|e| matches!(e, Event::Data { .. })).count() as u64;
        self.local.counters.buffers_in_use = self.local.counters.buffers_in_use.max(leases);
        for event in events.drain(..) {
            self.handle_event(event);
        }
        self.events = events;
    }

    fn handle_event(&mut self, event: Event<Handover>) {
        match event {
            Event::Data { conn, lease } => {
                self.handle_data(conn, &lease);
                self.io.release(lease);
                self.local.count_connection(conn);
                self.rearm(conn);
            }
            Event::Sent { conn, buffer, error } => self.handle_sent(conn, buffer, error),
            Event::Ready { conn } => self.handle_ready(conn),
            Event::ReadEnded { conn, why } => self.handle_read_ended(conn, why),
            // A listener's number is one byte, see `LISTENERS_MAX`.
            Event::Accepted { conn, listener, peer } => self.handle_accepted(conn, listener as u8, peer),
            Event::Closed { conn } => self.handle_closed(conn),
            Event::Arrived { conn, item } => self.handle_arrived(conn, *item),
            Event::HandedOver { conn } => {
                self.paces.forget(conn);
                self.local.remove_connection(conn);
                self.moving -= 1;
                self.local.counters.hand_overs_out += 1;
                self.accept_again();
            }
            Event::HandOverFailed { conn, item, errno } => self.handle_move_failed(conn, *item, errno),
            // A shard opens no connections.
            Event::Woken | Event::Connected { .. } => {}
        }
    }

    /// A connection that was not read has something to read.
    fn handle_ready(&mut self, conn: Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        c.armed = Armed::Nothing;
        if !c.wants_input() {
            return;
        }
        match c.phase {
            Phase::Serving => {
                c.armed = Armed::Once;
                self.io.read(conn, Read::Once);
            }
            Phase::Connecting => self.ask_for_place(conn),
            Phase::Proxied | Phase::Closing | Phase::Moving => {}
        }
    }

    fn handle_sent(&mut self, conn: Conn, buffer: Vec<u8>, error: Option<i32>) {
        self.local.pool.put(buffer);
        let now = self.local.now;
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        self.local.counters.bytes_out += u64::from(c.link.sending);
        c.link.sending = 0;
        c.busy = false;
        if c.wait == Wait::Output {
            // Its packets lie unread because of us: what it takes is its sign of life.
            c.last_packet = Near::new(now);
        }
        if error.is_some() {
            c.link.out.clear();
            c.ended = true;
            if !c.shut {
                self.lose_connection(conn, sessions::End::Lost, None);
                self.shut(conn, Close::Now);
            }
            return;
        }
        let (closing, quiet) = (c.phase == Phase::Closing, !c.has_output());
        // Output that was written while the send was under way leaves with this tick.
        self.local.with_link(conn, |_, _| ());
        if closing {
            if quiet {
                self.shut(conn, Close::Flush);
            }
            return;
        }
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let room = c.link.has_output_room(self.local.options.of(c.listener));
        if let Some(session) = c.session.filter(|_| room) {
            self.pump_session(session);
        }
        self.wake_if(conn, |w| w == Wait::Output && room);
    }

    fn handle_read_ended(&mut self, conn: Conn, why: ReadEnd) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        c.armed = Armed::Nothing;
        if why == ReadEnd::Credit {
            self.rearm(conn);
            return;
        }
        c.ended = true;
        // What was received before the end is decoded before the end counts.
        if c.wait == Wait::Nothing || (c.wait == Wait::Pace && c.pending.is_empty()) {
            self.handle_end(conn);
        }
    }

    /// The peer's side is closed and everything it sent is decoded.
    fn handle_end(&mut self, conn: Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        match c.phase {
            // A client that closed its side alone still gets its last acknowledgements.
            Phase::Serving => {
                let quiet = !c.busy && !c.has_output() && c.transport.is_none();
                self.lose_connection(conn, sessions::End::Lost, None);
                if quiet { self.shut(conn, Close::Now) } else { self.shut_gently(conn) }
            }
            Phase::Proxied | Phase::Connecting => self.shut(conn, Close::Now),
            Phase::Closing | Phase::Moving => {}
        }
    }

    /// Arms the next read, if the connection is to be read.
    fn rearm(&mut self, conn: Conn) {
        self.pause_reading(conn);
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(next) = c.next_read() else { return };
        c.armed = next;
        let mode = match next {
            Armed::Stream => Read::Stream { credit: READ_CREDIT_BYTES },
            Armed::Parked => Read::Parked,
            Armed::Once | Armed::Nothing => Read::Once,
        };
        self.io.read(conn, mode);
    }

    /// Puts a connection on the ready list if what it waits for is `this`; whether it did.
    fn wake_if(&mut self, conn: Conn, this: impl FnOnce(Wait) -> bool) -> bool {
        self.local.conns.slot(conn).is_some_and(|slot| self.wake_slot(slot, this))
    }

    /// Puts this tenant of a connection on the ready list if what it waits for is `this`; whether it did.
    fn wake_slot(&mut self, slot: Slot, this: impl FnOnce(Wait) -> bool) -> bool {
        let Some(c) = self.local.conns.at(slot).filter(|c| this(c.wait)) else { return false };
        c.wait = Wait::Turn;
        self.ready.push_back(slot);
        true
    }

    fn accept_again(&mut self) {
        if self.accept_paused && self.moving < HAND_OVERS_MAX / 2 && self.drain.is_none() {
            self.accept_paused = false;
            self.io.accept_resume();
        }
    }

    /// Whether a line may be logged that a peer can cause; says how many were left out.
    fn may_log(&mut self) -> bool {
        let permit = self.log.permit(self.local.now);
        if let Some(refused) = permit.filter(|refused| *refused > 0) {
            tracing::info!(shard = self.me, refused, "log lines were left out");
        }
        permit.is_some()
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
