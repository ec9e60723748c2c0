//! The driver for hosts where io_uring is not allowed: readiness turned into completions.
//!
//! Each socket is registered once, edge-triggered, for everything. An edge sets `readable` or `writable`;
//! a system call that would block clears it. A connection that has something to do and can do it is in the
//! `ready` list, once; a turn does at most one receive for each, so none starves another.
//!
//! Sockets are read within [`Io::turn`] only, after the sleep. Sends are tried at once in [`Io::send`]; their
//! ends are reported by the next turn, never from within a call.

use super::driver::{Address, Door, DriverOptions, IoMemory, IoStats, NOTHING, Outbox, Post};
use super::net::{self, Waker};
use super::{Close, Conn, Event, Io, Lease, ListenSpec, Read, ShardId};
use crate::heap::vec_bytes;
use crate::limits;
use crate::time::Moment;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, channel};

mod accepting;
mod closing;
mod connecting;
mod moving;
mod reading;
mod slots;

use moving::post_to;
use slots::{Armed, Phase, Pool, Slot};

/// Readiness events taken by one wait.
const EVENTS_PER_WAIT: usize = 1_024;
/// Tokens: a connection's generation and index, or one of these.
const LISTENER: u64 = 1 << 63;
const BELL: u64 = 1 << 62;

struct Listener {
    socket: OwnedFd,
    number: u16,
    /// `Accepted` names the peer.
    names: bool,
    armed: bool,
}

/// The epoll driver of one shard. Belongs to the thread that built it.
pub struct Epoll<H> {
    options: DriverOptions,
    poll: OwnedFd,
    waker: Waker,
    inbox: Receiver<Post<H>>,
    address: Address<H>,
    peers: Vec<Address<H>>,
    listeners: Vec<Listener>,
    paused: bool,
    /// Accepting waits for room, or for this moment.
    stalled_until: Option<Moment>,
    slots: Vec<Slot>,
    free: Vec<Conn>,
    used: usize,
    /// Free once the events in `pending` were reported.
    freed: Vec<Conn>,
    pending: Vec<Event<H>>,
    ready: VecDeque<Conn>,
    /// Connections that wait for a receive buffer.
    starved: VecDeque<Conn>,
    /// Flushed connections and when to give up on them.
    lingering: VecDeque<(Moment, Conn, u32)>,
    outbox: Outbox,
    pool: Pool,
    readiness: Vec<libc::epoll_event>,
    stats: IoStats,
}

impl<H: Send> Epoll<H> {
    /// Builds the driver of the calling thread.
    pub fn new(options: &DriverOptions) -> io::Result<Epoll<H>> {
        let connections_max = match options.connections_max {
            0 => limits::CONNECTIONS_PER_SHARD_MAX,
            max => max,
        };
        // SAFETY: epoll_create1 takes no pointer.
        let fd = net::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a new descriptor that nobody else knows.
        let poll = unsafe { OwnedFd::from_raw_fd(fd) };
        let waker = Waker::new()?;
        let (sender, inbox) = channel();
        let driver = Epoll {
            options: DriverOptions { connections_max, ..options.clone() },
            poll,
            address: Address { waker: waker.clone(), door: Door::Inbox(sender) },
            waker,
            inbox,
            peers: Vec::new(),
            listeners: Vec::new(),
            paused: false,
            stalled_until: None,
            slots: Vec::new(),
            free: Vec::new(),
            used: 0,
            freed: Vec::new(),
            pending: Vec::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            lingering: VecDeque::new(),
            outbox: Outbox::default(),
            pool: Pool::new(usize::from(options.receive_buffers), options.receive_buffer_bytes as usize),
            readiness: Vec::with_capacity(EVENTS_PER_WAIT),
            stats: IoStats::default(),
        };
        driver.control(libc::EPOLL_CTL_ADD, driver.waker.fd(), libc::EPOLLIN, BELL)?;
        Ok(driver)
    }

    /// How other shards reach this driver.
    pub fn address(&self) -> Address<H> {
        self.address.clone()
    }

    /// Rings this driver's bell from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The addresses of all shards, by shard id.
    pub fn set_peers(&mut self, peers: Vec<Address<H>>) {
        self.peers = peers;
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: the event lives through the call.
        net::check(unsafe { libc::epoll_ctl(self.poll.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    fn watch(&self, conn: Conn, fd: RawFd) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let token = u64::from(self.slots[conn as usize].generation & GENERATION) << 32 | u64::from(conn);
        self.control(libc::EPOLL_CTL_ADD, fd, events, token)
    }

    /// Takes a socket into the table. On failure (`ENFILE`: the table is full) it comes back.
    fn adopt(&mut self, socket: OwnedFd) -> Result<Conn, (OwnedFd, i32)> {
        let conn = match self.free.pop() {
            Some(conn) => conn,
            None if self.slots.len() < self.options.connections_max as usize => {
                self.slots.push(Slot::default());
                self.slots.len() as Conn - 1
            }
            None => return Err((socket, libc::ENFILE)),
        };
        let slot = &mut self.slots[conn as usize];
        let (generation, queued) = (slot.generation.wrapping_add(1), slot.queued);
        let phase = Phase::Open;
        *slot = Slot { generation, phase, readable: true, writable: true, queued, ..Slot::default() };
        if let Err(e) = self.watch(conn, socket.as_raw_fd()) {
            self.slots[conn as usize].phase = Phase::Free;
            self.free.push(conn);
            return Err((socket, net::errno(&e)));
        }
        self.slots[conn as usize].fd = socket.into_raw_fd();
        self.used += 1;
        Ok(conn)
    }

    fn enqueue(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        if !slot.queued {
            slot.queued = true;
            self.ready.push_back(conn);
        }
    }
}

/// Bits of a generation that fit a token.
const GENERATION: u32 = (1 << 30) - 1;

// The turn.
impl<H: Send> Epoll<H> {
    /// Reports what ended since the last turn and frees the indices of what closed.
    fn report(&mut self, events: &mut Vec<Event<H>>) {
        events.append(&mut self.pending);
        self.free.append(&mut self.freed);
    }

    /// Milliseconds to sleep as epoll takes them; -1 is for ever.
    fn patience(&self, deadline: Option<Moment>, now: Moment, busy: bool) -> i32 {
        let Some(deadline) = deadline else { return 0 };
        if busy || !self.ready.is_empty() {
            return 0;
        }
        let lingering = self.lingering.front().map_or(Moment::NEVER, |l| l.0);
        let until = deadline.min(lingering).min(self.stalled_until.unwrap_or(Moment::NEVER));
        if until == Moment::NEVER { -1 } else { i32::try_from(until.since_ms(now)).unwrap_or(i32::MAX) }
    }

    fn wait(&mut self, timeout_ms: i32) {
        self.stats.enters += 1;
        self.readiness.clear();
        let (list, room) = (self.readiness.as_mut_ptr(), EVENTS_PER_WAIT as i32);
        // SAFETY: the list was built with room for this many.
        let n = unsafe { libc::epoll_wait(self.poll.as_raw_fd(), list, room, timeout_ms) };
        match net::check(n) {
            // SAFETY: the kernel filled the first `n` places, which are within the capacity.
            Ok(n) => unsafe { self.readiness.set_len(n as usize) },
            Err(e) => assert_eq!(net::errno(&e), libc::EINTR, "an epoll descriptor of ours can be waited on"),
        }
        self.stats.completions += self.readiness.len() as u64;
    }

    fn note(&mut self, token: u64, ready: i32) {
        let conn = token as u32;
        let Some(slot) = self.slots.get_mut(conn as usize) else { return };
        if slot.generation & GENERATION != (token >> 32) as u32 || slot.fd < 0 {
            return;
        }
        let failed = ready & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        slot.ended |= failed || ready & libc::EPOLLRDHUP != 0;
        slot.readable |= slot.ended || ready & libc::EPOLLIN != 0;
        slot.writable |= failed || ready & libc::EPOLLOUT != 0;
        let reads = slot.armed != Armed::Nothing || slot.phase == Phase::Lingering;
        let writes = slot.outgoing != NOTHING || slot.phase == Phase::Connecting;
        if (slot.readable && reads) || (slot.writable && writes) {
            self.enqueue(conn);
        }
    }
}

impl<H: Send> Io<H> for Epoll<H> {
    fn listen(&mut self, spec: ListenSpec) -> io::Result<SocketAddr> {
        let (number, names) = (spec.listener, spec.peer_address);
        let (socket, addr) = net::listener(spec)?;
        let index = self.listeners.len();
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), 0, LISTENER | index as u64)?;
        self.listeners.push(Listener { socket, number, names, armed: false });
        self.update_accepting(self.now());
        Ok(addr)
    }

    fn accept_pause(&mut self) {
        self.paused = true;
    }

    fn accept_resume(&mut self) {
        self.paused = false;
    }

    fn accept_stop(&mut self) {
        self.listeners.clear();
    }

    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Conn> {
        self.begin_connect(to, from)
    }

    fn read(&mut self, conn: Conn, mode: Read) {
        let slot = &mut self.slots[conn as usize];
        debug_assert_eq!(slot.armed, Armed::Nothing, "one read at a time");
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection is read");
        (slot.armed, slot.credit) = match mode {
            Read::Once => (Armed::Once, 0),
            Read::Stream { credit } => (Armed::Stream, credit.max(1)),
            Read::Parked => (Armed::Parked, 0),
        };
        if slot.readable {
            self.enqueue(conn);
        }
    }

    fn release(&mut self, lease: Lease) {
        self.pool.release(lease);
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        debug_assert!(!buffer.is_empty(), "a send has bytes");
        let slot = &mut self.slots[conn as usize];
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection sends");
        debug_assert_eq!(slot.outgoing, NOTHING, "one send at a time");
        slot.outgoing = self.outbox.put(buffer);
        self.pump(conn);
    }

    fn close(&mut self, conn: Conn, how: Close) {
        let slot = &mut self.slots[conn as usize];
        if matches!(slot.phase, Phase::Free | Phase::Moving) {
            return;
        }
        slot.armed = Armed::Nothing;
        match how {
            Close::Flush if matches!(slot.phase, Phase::Flushing | Phase::Lingering) => {}
            Close::Flush if slot.phase == Phase::Connecting => self.finish(conn),
            Close::Flush if slot.outgoing == NOTHING => self.linger(conn),
            Close::Flush => slot.phase = Phase::Flushing,
            Close::Now => self.finish(conn),
            Close::Reset => {
                net::reset_on_close(slot.fd);
                self.finish(conn);
            }
        }
    }

    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<H>) {
        let slot = &mut self.slots[conn as usize];
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection moves");
        debug_assert!(slot.armed == Armed::Nothing && slot.outgoing == NOTHING, "nothing is under way");
        let fd = std::mem::replace(&mut slot.fd, -1);
        slot.phase = Phase::Moving;
        // It is a descriptor of ours, so this cannot fail.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
        // SAFETY: the slot owned the descriptor and forgot it above.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let post = Post::Arrive { socket, item, from: conn, reply: self.address.clone() };
        let unsent = match self.peers.get(usize::from(to)) {
            Some(peer) => post_to(peer, post),
            None => Some(post),
        };
        if let Some(Post::Arrive { socket, item, .. }) = unsent {
            self.reclaim(conn, socket);
            self.stats.hand_over_failures += 1;
            self.pending.push(Event::HandOverFailed { conn, item, errno: libc::ENXIO });
        }
    }

    fn wake(&mut self, shard: ShardId) {
        if let Some(peer) = self.peers.get(usize::from(shard)) {
            self.stats.wakes_sent += 1;
            peer.waker.wake();
        }
    }

    fn turn(&mut self, events: &mut Vec<Event<H>>, deadline: Option<Moment>) {
        let before = events.len();
        let now = self.now();
        self.expire_lingering(now);
        self.report(events);
        self.feed_starved();
        self.update_accepting(now);
        let timeout = self.patience(deadline, now, events.len() > before);
        self.wait(timeout);
        let readiness = std::mem::take(&mut self.readiness);
        for event in &readiness {
            let (token, ready) = (event.u64, event.events as i32);
            if token & LISTENER != 0 {
                self.accept((token & !LISTENER) as usize, events);
            } else if token == BELL {
                self.waker.hush();
                self.take_posts(events);
                events.push(Event::Woken);
            } else {
                self.note(token, ready);
            }
        }
        self.readiness = readiness;
        for _ in 0..self.ready.len().min(limits::READS_PER_TURN) {
            if let Some(conn) = self.ready.pop_front() {
                self.serve(conn, events);
            }
        }
        self.report(events);
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
        (self.options.connections_max as usize - self.headroom()).saturating_sub(self.used)
    }

    fn stats(&self) -> IoStats {
        self.stats
    }

    fn memory(&self) -> IoMemory {
        let lists = self.free.capacity() + self.freed.capacity() + self.ready.capacity();
        IoMemory {
            slots: vec_bytes::<Slot>(self.slots.capacity()) + lists * size_of::<Conn>(),
            sending: self.outbox.bytes(),
            receive: self.pool.bytes(),
            rings: vec_bytes::<libc::epoll_event>(self.readiness.capacity()),
        }
    }

    fn describe(&self) -> String {
        format!(
            "epoll, {} receive buffers of {} bytes",
            self.options.receive_buffers, self.options.receive_buffer_bytes
        )
    }
}

impl<H> Drop for Epoll<H> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if slot.fd >= 0 {
                // SAFETY: the slot owns its descriptor and forgets it here.
                drop(unsafe { OwnedFd::from_raw_fd(std::mem::replace(&mut slot.fd, -1)) });
            }
        }
        // What has not been taken goes back to whom it came from.
        while let Ok(post) = self.inbox.try_recv() {
            if let Post::Arrive { socket, item, from, reply } = post {
                post_to(&reply, Post::Refused { conn: from, socket, item, errno: libc::ENXIO });
            }
        }
    }
}
