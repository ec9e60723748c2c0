//! The io_uring driver: direct descriptors, one ring of receive buffers, one system call per turn.
//!
//! A connection's index is that of its direct descriptor (with annex rings: behind the tables of the rings before
//! its own, see `units`), so the kernel chooses it. At most one read and one
//! send per connection are under way; nothing is cancelled in the steady state, because finding what to cancel
//! costs more the more is armed.
//!
//! Traps:
//! - With deferred task work nothing completes unless the ring is entered for completions.
//! - A receive that finds no buffer fails at once, as often as it is tried: those connections wait for a buffer.
//! - The kernel gives an index away as soon as it closed it, which can be before we saw the close complete.
//! - A shutdown runs on a kernel worker thread; it has to complete before the close, like everything else.

use super::driver::{Address, Door, DriverOptions, IoMemory, IoStats, Outbox};
use super::net::{self, Waker};
use super::ops::{self, Op};
use super::ring::Sleep;
use super::selftest::Features;
use super::{Close, Conn, Event, Io, Lease, ListenSpec, Read, ShardId};
use crate::limits;
use crate::time::Moment;
use io_uring::cqueue;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

mod accepting;
mod closing;
mod connecting;
mod moving;
mod reading;
mod slots;
mod units;

use accepting::Accepting;
use connecting::Addresses;
use moving::Moving;
use slots::{Phase, Slot, Slots};
use units::{HUB, Units};

/// The io_uring driver of one shard. Belongs to the thread that built it.
pub struct Uring<H> {
    // Dropped in this order: the rings before the memory that the kernel reads.
    units: Units,
    outbox: Outbox,
    addresses: Addresses,
    options: DriverOptions,
    features: Features,
    slots: Slots,
    accepting: Accepting,
    moving: Moving<H>,
    waker: Waker,
    /// Other descriptors of the rings, which the peers share.
    doors: Arc<[OwnedFd]>,
    peers: Vec<Address<H>>,
    /// Shards to wake, as bits.
    doorbells: u64,
    /// What is known without the kernel, for the next turn to report.
    pending: Vec<Event<H>>,
    /// Flushed connections and when to give up on them.
    lingering: VecDeque<(Moment, Conn, u32)>,
    /// Connections that wait for their last completion, and when to cancel what is under way.
    closing: VecDeque<(Moment, Conn, u32)>,
    /// Whether `Woken` is among this turn's events.
    woken: bool,
    stats: IoStats,
}

/// The soft limit of open files, which bounds a table of direct descriptors.
fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the limits.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 1_024,
    }
}

impl<H: Send> Uring<H> {
    /// Builds the driver of the calling thread, with what the self-test found.
    pub fn new(options: &DriverOptions, features: &Features) -> io::Result<Uring<H>> {
        let most = limits::CONNECTIONS_PER_SHARD_MAX;
        let table = u64::from(most).min(open_files_max()).max(1) as u32;
        let table = if options.table_max == 0 { table } else { table.min(options.table_max) };
        let connections =
            if options.connections_max == 0 { table } else { options.connections_max.min(most) };
        let units = Units::open(features, options, connections, table)?;
        let waker = Waker::new()?;
        let doors = units.doors()?.into();
        let mut driver = Uring {
            units,
            outbox: Outbox::default(),
            addresses: Addresses::default(),
            options: options.clone(),
            features: features.clone(),
            slots: Slots::default(),
            accepting: Accepting::default(),
            moving: Moving::default(),
            waker,
            doors,
            peers: Vec::new(),
            doorbells: 0,
            pending: Vec::new(),
            lingering: VecDeque::new(),
            closing: VecDeque::new(),
            woken: false,
            stats: IoStats::default(),
        };
        driver.arm_bell();
        Ok(driver)
    }

    /// How other shards reach this driver. An address keeps the rings' descriptors open.
    pub fn address(&self) -> Address<H> {
        Address { waker: self.waker.clone(), door: Door::Rings(Arc::clone(&self.doors)) }
    }

    /// Rings this driver's bell from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The addresses of all shards, by shard id.
    pub fn set_peers(&mut self, peers: Vec<Address<H>>) {
        self.moving.set_peers(peers.len());
        self.peers = peers;
    }

    /// Makes the next closes of descriptors that have moved fail.
    #[cfg(test)]
    pub(super) fn fail_closes(&mut self, count: u32) {
        self.moving.closes_to_fail = count;
    }

    /// The first listener, and when accepting is tried again.
    #[cfg(test)]
    pub(super) fn accepting(&self) -> (std::os::fd::RawFd, Option<Moment>) {
        self.accepting.observed()
    }

    /// The rings of another shard; none where there is no such shard.
    fn peer_rings(&self, shard: usize) -> &[OwnedFd] {
        match self.peers.get(shard).map(|peer| &peer.door) {
            Some(Door::Rings(rings)) => rings,
            Some(Door::Inbox(_)) | None => &[],
        }
    }

    /// Asks for an operation on a connection.
    fn ask(&mut self, op: Op, conn: Conn, entry: io_uring::squeue::Entry) {
        let generation = self.slots.at(conn).generation;
        let unit = self.units.index_of(conn);
        self.units.push(unit, entry.user_data(ops::name(op, generation, conn)));
    }

    fn occupy(&mut self, conn: Conn, phase: Phase) -> &mut Slot {
        self.units.of(conn).used += 1;
        self.slots.occupy(conn, phase)
    }

    fn vacate(&mut self, conn: Conn) {
        self.units.of(conn).used -= 1;
        self.slots.vacate(conn);
    }

    fn arm_bell(&mut self) {
        let entry = ops::poll_bell(self.waker.fd()).user_data(ops::name(Op::Bell, 0, 0));
        self.units.push(HUB, entry);
    }

    fn ring_doorbells(&mut self) {
        while self.doorbells != 0 {
            let shard = self.doorbells.trailing_zeros() as usize;
            self.doorbells &= self.doorbells - 1;
            if let Some(ring) = self.peer_rings(shard).first().map(AsRawFd::as_raw_fd) {
                self.stats.wakes_sent += 1;
                self.units.push(HUB, ops::wake(ring, shard as u32));
            }
        }
    }

    fn report_woken(&mut self, events: &mut Vec<Event<H>>) {
        if !std::mem::replace(&mut self.woken, true) {
            events.push(Event::Woken);
        }
    }

    /// How long to sleep in a turn that has reported `busy` already or not.
    fn patience(&self, deadline: Option<Moment>, now: Moment, busy: bool) -> Sleep {
        let Some(deadline) = deadline else { return Sleep::Not };
        if busy || self.units.is_hungry() || deadline <= now {
            return Sleep::Not;
        }
        let first = |list: &VecDeque<(Moment, Conn, u32)>| list.front().map_or(Moment::NEVER, |e| e.0);
        let retries = self.accepting.retry_at().min(self.moving.retry_at());
        let timers = first(&self.lingering).min(first(&self.closing)).min(retries);
        match deadline.min(timers) {
            Moment::NEVER => Sleep::Forever,
            until => Sleep::For(Duration::from_millis(until.since_ms(now))),
        }
    }

    /// Whether a completion's connection is still the one that asked.
    fn is_current(&self, user_data: u64) -> bool {
        self.slots.get(ops::index(user_data)).is_some_and(|slot| {
            slot.phase != Phase::Free && slot.generation & ops::GENERATION == ops::generation(user_data)
        })
    }

    fn complete(&mut self, unit: usize, entry: &cqueue::Entry, events: &mut Vec<Event<H>>) {
        let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        let Some(op) = ops::op(user_data) else {
            debug_assert!(false, "a completion that nobody asked for: {user_data:#x}");
            return;
        };
        let conn = ops::index(user_data);
        match op {
            Op::Accept => return self.accepted(unit, entry, events),
            Op::Arrival => return self.arrived(unit, user_data, result, events),
            Op::Woken => return self.report_woken(events),
            Op::Bell => {
                self.report_woken(events);
                if !cqueue::more(flags) {
                    self.waker.hush();
                    self.arm_bell();
                }
                return;
            }
            Op::Annex => {
                self.units.at(conn as usize).polled = false;
                return;
            }
            Op::Wake => {
                // The target sleeps, and its flag is down: without this it would sleep until a timer.
                if let Some(peer) = self.peers.get(conn as usize).filter(|_| result < 0) {
                    peer.waker.wake();
                }
                return;
            }
            Op::Forget => return,
            _ => {}
        }
        if !self.is_current(user_data) {
            return self.late(unit, op, result, flags);
        }
        match op {
            Op::Install => self.named(conn, result, events),
            Op::Receive => self.received(conn, result, flags, events),
            Op::Poll => self.polled(conn, events),
            Op::Discard => self.discarded(conn, result),
            Op::Send => self.sent(conn, result, events),
            Op::Connect => self.connected(conn, result, events),
            Op::Prepare => {
                self.slots.at(conn).prepared();
                self.proceed(conn);
            }
            Op::Close => self.left(conn, events),
            Op::HandOver => self.descriptor_sent(conn, result, events),
            Op::Leave => self.left_behind(conn, result, events),
            Op::Accept | Op::Arrival | Op::Woken | Op::Wake | Op::Bell | Op::Annex | Op::Forget => {}
        }
    }

    /// Waits for the annexes too.
    fn poll_annexes(&mut self) {
        for annex in 1..self.units.count() {
            let unit = self.units.at(annex);
            if !std::mem::replace(&mut unit.polled, true) {
                let entry = ops::poll_ring(unit.ring.fd());
                self.units.push(HUB, entry.user_data(ops::name(Op::Annex, 0, annex as u32)));
            }
        }
    }

    /// Takes the completions that a ring has at this moment.
    fn reap(&mut self, unit: usize, events: &mut Vec<Event<H>>) {
        let completions = self.units.at(unit).ring.completions();
        self.stats.completions += completions as u64;
        for _ in 0..completions {
            let Some(entry) = self.units.at(unit).ring.next() else { break };
            self.complete(unit, &entry, events);
        }
        let ring = &mut self.units.at(unit).ring;
        ring.reaped();
        // The kernel hands over what it kept when it is entered.
        if unit != HUB && ring.has_submissions() {
            self.units.mark(unit);
        }
    }

    /// A completion whose connection is gone. Only its close can be late, see the traps.
    fn late(&mut self, unit: usize, op: Op, result: i32, flags: u32) {
        debug_assert!(matches!(op, Op::Close | Op::HandOver | Op::Leave), "{op:?} after the last completion");
        if op == Op::Install && result >= 0 {
            accepting::close_plain(result);
        }
        if let Some(id) = cqueue::buffer_select(flags) {
            let buffers = &mut self.units.at(unit).buffers;
            buffers.taken();
            buffers.give(id);
            self.units.mark(unit);
        }
    }

    /// Prepares a direct descriptor's slot for a new owner: the kernel has closed the one before.
    fn clear(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        match self.slots.get(conn).map(|slot| slot.phase) {
            Some(Phase::Leaving) => self.left(conn, events),
            Some(Phase::Moving) => self.moved(conn, events),
            phase => debug_assert!(matches!(phase, None | Some(Phase::Free)), "{phase:?} was closed"),
        }
    }
}

impl<H: Send> Io<H> for Uring<H> {
    fn listen(&mut self, spec: ListenSpec) -> io::Result<SocketAddr> {
        self.accepting.listen(spec)
    }

    fn accept_pause(&mut self) {
        self.accepting.pause(true);
    }

    fn accept_resume(&mut self) {
        self.accepting.pause(false);
    }

    fn accept_stop(&mut self) {
        self.accepting.stop();
    }

    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Conn> {
        self.begin_connect(to, from)
    }

    fn read(&mut self, conn: Conn, mode: Read) {
        self.arm(conn, mode);
    }

    fn release(&mut self, lease: Lease) {
        // The buffer's name is its ring's index and its own.
        let unit = (lease.id() >> 16) as usize;
        self.units.at(unit).buffers.release(lease.id() as u16, lease.pointer);
        self.units.mark(unit);
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        debug_assert!(!buffer.is_empty(), "a send has bytes");
        let place = self.outbox.put(buffer);
        let slot = self.slots.at(conn);
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection sends");
        debug_assert!(!slot.is_sending(), "one send at a time");
        slot.place = place;
        slot.set_sending(true);
        self.send_rest(conn);
    }

    fn close(&mut self, conn: Conn, how: Close) {
        self.begin_close(conn, how);
    }

    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<H>) {
        self.leave_for(conn, to, item);
    }

    fn wake(&mut self, shard: ShardId) {
        if usize::from(shard) < limits::SHARDS_MAX {
            self.doorbells |= 1 << shard;
        }
    }

    fn turn(&mut self, events: &mut Vec<Event<H>>, deadline: Option<Moment>) {
        let before = events.len();
        let now = self.now();
        self.woken = false;
        self.expire(now);
        self.leave_again(now);
        events.append(&mut self.pending);
        self.units.publish();
        self.feed_starved();
        self.update_accepting(now);
        self.ring_doorbells();
        let annexes = self.units.count() > 1;
        let busy = annexes && self.units.submit_annexes();
        let sleep = self.patience(deadline, now, busy || events.len() > before);
        if annexes && sleep != Sleep::Not {
            self.poll_annexes();
        }
        self.units.hub().ring.enter(sleep);
        self.reap(HUB, events);
        for annex in 1..self.units.count() {
            if self.units.at(annex).ring.look() > 0 {
                self.reap(annex, events);
            }
        }
    }

    fn now(&self) -> Moment {
        self.options.now()
    }

    fn clock_ns(&self) -> u64 {
        self.options.clock_ns()
    }

    fn cpu_ns(&self) -> u64 {
        net::thread_cpu_ns()
    }

    fn room(&self) -> usize {
        self.units.iter().map(units::Unit::room).sum()
    }

    fn stats(&self) -> IoStats {
        let enters = self.units.iter().map(|unit| unit.ring.enters).sum();
        let cq_overflow = self.units.iter().map(|unit| unit.ring.overflows).sum();
        IoStats { enters, cq_overflow, ..self.stats }
    }

    fn memory(&self) -> IoMemory {
        let (rings, receive) = self.units.bytes();
        IoMemory { slots: self.slots.bytes(), sending: self.outbox.bytes(), receive, rings }
    }

    fn describe(&self) -> String {
        format!(
            "io_uring, {}, {} direct descriptors in {} table(s), {} receive buffers of {} bytes",
            self.features,
            self.units.slots(),
            self.units.count(),
            self.options.receive_buffers,
            self.options.receive_buffer_bytes
        )
    }
}

impl<H> Drop for Uring<H> {
    fn drop(&mut self) {
        self.settle_moves();
        let mut quiet = true;
        for unit in self.units.iter_mut() {
            quiet &= unit.ring.cancel_all();
            // Closes the sockets, and refuses connections that other shards send from now on.
            let _ = unit.ring.submitter().unregister_files();
        }
        self.free_arrivals();
        // The kernel, or the holder of a lease, may still read them: memory is cheaper than a wild read.
        if !quiet {
            std::mem::forget(std::mem::take(&mut self.outbox));
        }
        for unit in self.units.iter_mut().filter(|unit| !quiet || unit.buffers.leased()) {
            unit.buffers.leak();
        }
    }
}
