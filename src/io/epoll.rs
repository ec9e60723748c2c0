//! The driver for hosts where io_uring is not allowed: readiness turned into completions.
//!
//! Each socket is registered once, edge-triggered, for everything. An edge sets `readable` or `writable`;
//! a system call that would block clears it. A connection that has something to do and can do it is in the
//! `ready` list, once; a turn does at most one receive for each, so none starves another.
//!
//! Sockets are read within [`Io::turn`] only, after the sleep. Sends are tried at once in [`Io::send`]; their
//! ends are reported by the next turn, never from within a call.

use super::driver::{Address, Door, DriverOptions, IoStats, NOTHING, Outbox, Post};
use super::net::{self, Waker};
use super::{Close, Conn, Event, Io, Lease, ListenSpec, Read, ReadEnd, ShardId};
use crate::limits;
use crate::time::Moment;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, channel};

/// Readiness events taken by one wait.
const EVENTS_PER_WAIT: usize = 1_024;
/// Tokens: a connection's generation and index, or one of these.
const LISTENER: u64 = 1 << 63;
const BELL: u64 = 1 << 62;

/// Where a connection stands.
///
/// ```text
/// Free ─► Open ─► Flushing ─► Lingering ─► Free
///          │  └──────────┴────────┴───────► Free   (Now, Reset, error, time)
///          └► Moving ─► Free, or back to Open
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// No socket; `Closed` may still have to be reported.
    #[default]
    Free,
    Open,
    /// The last send has to end before the socket is shut down.
    Flushing,
    /// Shut down for writing; input is discarded until the peer's end of stream.
    Lingering,
    /// On its way to another shard, which has the socket.
    Moving,
}

/// The armed read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Armed {
    #[default]
    Nothing,
    Once,
    Stream,
    Parked,
}

#[derive(Debug)]
struct Slot {
    fd: RawFd,
    generation: u32,
    /// Of a stream: bytes that may still be delivered. While lingering: bytes that may still be discarded.
    credit: u32,
    /// Place in the outbox of the send under way.
    outgoing: u32,
    phase: Phase,
    armed: Armed,
    readable: bool,
    writable: bool,
    /// The peer ended its stream or the socket failed: a short receive does not mean that all was read.
    ended: bool,
    /// In the ready list or among the starved.
    queued: bool,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            fd: -1,
            generation: 0,
            credit: 0,
            outgoing: NOTHING,
            phase: Phase::Free,
            armed: Armed::Nothing,
            readable: false,
            writable: false,
            ended: false,
            queued: false,
        }
    }
}

struct Listener {
    socket: OwnedFd,
    armed: bool,
}

/// The receive buffers; each is allocated when it is first needed.
struct Pool {
    buffers: Vec<Box<[u8]>>,
    free: Vec<u32>,
    max: usize,
    bytes: usize,
}

impl Pool {
    fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        if self.buffers.len() == self.max {
            return None;
        }
        self.buffers.push(vec![0; self.bytes].into_boxed_slice());
        Some(self.buffers.len() as u32 - 1)
    }

    fn available(&self) -> usize {
        self.free.len() + self.max - self.buffers.len()
    }
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
        // SAFETY: epoll_create1 takes no pointer.
        let fd = net::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a new descriptor that nobody else knows.
        let poll = unsafe { OwnedFd::from_raw_fd(fd) };
        let waker = Waker::new()?;
        let (sender, inbox) = channel();
        let driver = Epoll {
            options: options.clone(),
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
            pool: Pool {
                buffers: Vec::new(),
                free: Vec::new(),
                max: usize::from(options.receive_buffers),
                bytes: options.receive_buffer_bytes as usize,
            },
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

// Accepting.
impl<H: Send> Epoll<H> {
    fn headroom(&self) -> usize {
        self.options.connections_max as usize * limits::TABLE_HEADROOM_PERCENT / 100
    }

    fn stall(&mut self, until: Moment) {
        if self.stalled_until.is_none() {
            self.stats.accept_pauses += 1;
        }
        self.stalled_until = Some(until);
    }

    /// Makes the registration of the listeners what it should be.
    fn update_accepting(&mut self, now: Moment) {
        if self.stalled_until.is_some_and(|until| now >= until) {
            self.stalled_until = None;
        }
        if self.room() == 0 && !self.listeners.is_empty() && !self.paused {
            self.stall(Moment::NEVER);
        }
        let wanted = !self.paused && self.stalled_until.is_none();
        for index in 0..self.listeners.len() {
            let listener = &self.listeners[index];
            if listener.armed == wanted {
                continue;
            }
            let events = if wanted { libc::EPOLLIN } else { 0 };
            let token = LISTENER | index as u64;
            if self.control(libc::EPOLL_CTL_MOD, listener.socket.as_raw_fd(), events, token).is_ok() {
                self.listeners[index].armed = wanted;
            }
        }
    }

    fn accept(&mut self, index: usize, now: Moment, events: &mut Vec<Event<H>>) {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            // An index that waits for its `Closed` to be reported is free in the next turn.
            let index_free =
                !self.free.is_empty() || self.slots.len() < self.options.connections_max as usize;
            if !index_free || self.room() == 0 || self.paused || self.stalled_until.is_some() {
                return;
            }
            let Some(listener) = self.listeners.get(index) else { return };
            match net::accept(listener.socket.as_raw_fd()) {
                Ok((socket, peer)) => match self.adopt(socket) {
                    Ok(conn) => {
                        self.stats.accepts += 1;
                        let peer = peer.filter(|_| self.options.peer_address);
                        events.push(Event::Accepted { conn, listener: index as u16, peer });
                    }
                    // Its descriptor is closed here; the kernel lacks memory for a registration.
                    Err(_) => return self.stall(now.plus_ms(limits::ACCEPT_RETRY_MS)),
                },
                Err(e) => match net::errno(&e) {
                    libc::EAGAIN => return,
                    libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM => {}
                    _ => return self.stall(now.plus_ms(limits::ACCEPT_RETRY_MS)),
                },
            }
        }
    }
}

// Sending and closing.
impl<H: Send> Epoll<H> {
    /// Sends what the socket takes now.
    fn pump(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        if slot.outgoing == NOTHING || !slot.writable {
            return;
        }
        let out = self.outbox.at(slot.outgoing);
        let error = loop {
            let rest = &out.buffer[out.sent..];
            if rest.is_empty() {
                break None;
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `rest` lives through the call and has the length given.
            let sent = unsafe { libc::send(slot.fd, rest.as_ptr().cast(), rest.len(), flags) };
            match usize::try_from(sent) {
                Ok(n) => {
                    out.sent += n;
                    self.stats.bytes_out += n as u64;
                }
                Err(_) => match net::errno(&io::Error::last_os_error()) {
                    libc::EINTR => {}
                    libc::EAGAIN => {
                        slot.writable = false;
                        return;
                    }
                    errno => break Some(errno),
                },
            }
        };
        self.sent(conn, error);
    }

    /// The send under way is over.
    fn sent(&mut self, conn: Conn, error: Option<i32>) {
        let slot = &mut self.slots[conn as usize];
        let buffer = self.outbox.take(std::mem::replace(&mut slot.outgoing, NOTHING));
        self.stats.sends += 1;
        let flushing = slot.phase == Phase::Flushing;
        self.pending.push(Event::Sent { conn, buffer, error });
        match error {
            None if flushing => self.linger(conn),
            Some(_) if flushing => self.finish(conn),
            _ => {}
        }
    }

    /// All is sent: ends our side of the stream and waits for the peer's end. Closing at once would answer
    /// unread input with a reset, which can destroy what the peer has not read yet.
    fn linger(&mut self, conn: Conn) {
        let deadline = self.now().plus_ms(limits::LINGER_MS);
        let slot = &mut self.slots[conn as usize];
        slot.phase = Phase::Lingering;
        slot.credit = limits::LINGER_BYTES;
        // SAFETY: shutdown takes no pointer; a failure shows when the socket is read.
        unsafe { libc::shutdown(slot.fd, libc::SHUT_WR) };
        self.lingering.push_back((deadline, conn, slot.generation));
        self.stats.lingers += 1;
        if slot.readable {
            self.enqueue(conn);
        }
    }

    /// Discards input of a lingering connection.
    fn discard(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        let (want, flags) = (slot.credit as usize, libc::MSG_TRUNC | libc::MSG_DONTWAIT);
        // SAFETY: with MSG_TRUNC the kernel drops the bytes of a TCP stream and writes nothing.
        let got = unsafe { libc::recv(slot.fd, std::ptr::null_mut(), want, flags) };
        match u32::try_from(got) {
            Ok(n) if n > 0 && n < slot.credit => {
                slot.credit -= n;
                self.stats.bytes_in += u64::from(n);
                self.enqueue(conn);
            }
            Ok(_) => self.finish(conn),
            Err(_) => match net::errno(&io::Error::last_os_error()) {
                libc::EAGAIN => slot.readable = false,
                libc::EINTR => self.enqueue(conn),
                _ => self.finish(conn),
            },
        }
    }

    /// Closes the socket; the index is free when `Closed` was reported.
    fn finish(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        debug_assert!(!matches!(slot.phase, Phase::Free | Phase::Moving), "only an open connection closes");
        slot.phase = Phase::Free;
        slot.armed = Armed::Nothing;
        // SAFETY: the slot owns its descriptor and forgets it here.
        drop(unsafe { OwnedFd::from_raw_fd(std::mem::replace(&mut slot.fd, -1)) });
        if slot.outgoing != NOTHING {
            self.sent(conn, Some(libc::ECANCELED));
        }
        self.pending.push(Event::Closed { conn });
        self.vacate(conn);
    }

    /// The index is free once what is pending was reported.
    fn vacate(&mut self, conn: Conn) {
        self.freed.push(conn);
        self.used -= 1;
        self.stalled_until = None;
    }

    fn expire_lingering(&mut self, now: Moment) {
        while let Some(&(deadline, conn, generation)) = self.lingering.front() {
            let slot = &self.slots[conn as usize];
            let waits = slot.phase == Phase::Lingering && slot.generation == generation;
            if waits && now < deadline {
                return;
            }
            self.lingering.pop_front();
            if waits {
                self.stats.linger_timeouts += 1;
                self.finish(conn);
            }
        }
    }
}

// Reading.
impl<H: Send> Epoll<H> {
    /// Does what a connection in the ready list waits for.
    fn serve(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        self.slots[conn as usize].queued = false;
        self.pump(conn);
        let slot = &mut self.slots[conn as usize];
        if !slot.readable {
            return;
        }
        match (slot.phase, slot.armed) {
            (Phase::Lingering, _) => self.discard(conn),
            (Phase::Open, Armed::Parked) => self.peek(conn, events),
            (Phase::Open, Armed::Once | Armed::Stream) => self.receive(conn, events),
            _ => {}
        }
    }

    fn peek(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let slot = &mut self.slots[conn as usize];
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: room for the one byte asked for.
        let got = unsafe { libc::recv(slot.fd, (&raw mut byte).cast(), 1, flags) };
        if got < 0 && net::errno(&io::Error::last_os_error()) == libc::EAGAIN {
            slot.readable = false;
            return;
        }
        slot.armed = Armed::Nothing;
        events.push(Event::Ready { conn });
    }

    fn receive(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let Some(id) = self.pool.take() else {
            self.stats.starved += 1;
            self.slots[conn as usize].queued = true;
            self.starved.push_back(conn);
            return;
        };
        let slot = &mut self.slots[conn as usize];
        let stream = slot.armed == Armed::Stream;
        let buffer = &mut self.pool.buffers[id as usize];
        let want = if stream { buffer.len().min(slot.credit as usize) } else { buffer.len() };
        // SAFETY: `want` is at most the buffer's length.
        let got = unsafe { libc::recv(slot.fd, buffer.as_mut_ptr().cast(), want, libc::MSG_DONTWAIT) };
        if got > 0 {
            let n = got as u32;
            slot.readable = slot.ended || n as usize == want;
            self.stats.bytes_in += u64::from(n);
            events.push(Event::Data { conn, lease: Lease::new(buffer.as_ptr(), n, id) });
            if !stream {
                slot.armed = Armed::Nothing;
                return;
            }
            slot.credit -= n;
            if slot.credit == 0 {
                slot.armed = Armed::Nothing;
                events.push(Event::ReadEnded { conn, why: ReadEnd::Credit });
            } else if slot.readable {
                self.enqueue(conn);
            }
            return;
        }
        let errno = if got < 0 { net::errno(&io::Error::last_os_error()) } else { 0 };
        self.pool.free.push(id);
        let why = match errno {
            libc::EAGAIN => return slot.readable = false,
            libc::EINTR => return self.enqueue(conn),
            0 => ReadEnd::Eof,
            errno => ReadEnd::Err(errno),
        };
        slot.armed = Armed::Nothing;
        events.push(Event::ReadEnded { conn, why });
    }

    /// Lets as many of the starved try again as there are buffers.
    fn feed_starved(&mut self) {
        for _ in 0..self.pool.available().min(self.starved.len()) {
            if let Some(conn) = self.starved.pop_front() {
                self.ready.push_back(conn);
            }
        }
    }
}

// Connections from and to other shards.
impl<H: Send> Epoll<H> {
    fn take_posts(&mut self, events: &mut Vec<Event<H>>) {
        for _ in 0..limits::HAND_OVERS_MAX {
            let Ok(post) = self.inbox.try_recv() else { return };
            match post {
                Post::Arrive { socket, item, from, reply } => {
                    let answer = match self.adopt(socket) {
                        Ok(conn) => {
                            self.stats.arrivals += 1;
                            events.push(Event::Arrived { conn, item });
                            Post::Taken { conn: from }
                        }
                        Err((socket, errno)) => Post::Refused { conn: from, socket, item, errno },
                    };
                    post_to(&reply, answer);
                }
                Post::Taken { conn } => {
                    self.stats.hand_overs += 1;
                    self.slots[conn as usize].phase = Phase::Free;
                    events.push(Event::HandedOver { conn });
                    self.vacate(conn);
                }
                Post::Refused { conn, socket, item, errno } => {
                    self.reclaim(conn, socket);
                    self.stats.hand_over_failures += 1;
                    events.push(Event::HandOverFailed { conn, item, errno });
                }
            }
        }
        // More may be there: come back for it.
        self.waker.wake();
    }

    /// A connection that could not leave is ours again.
    fn reclaim(&mut self, conn: Conn, socket: OwnedFd) {
        let watched = self.watch(conn, socket.as_raw_fd());
        let slot = &mut self.slots[conn as usize];
        slot.phase = Phase::Open;
        slot.fd = socket.into_raw_fd();
        (slot.readable, slot.writable) = (true, true);
        // Without a registration it can only be read and written until it would block; end it there.
        if watched.is_err() {
            // SAFETY: shutdown takes no pointer.
            unsafe { libc::shutdown(slot.fd, libc::SHUT_RDWR) };
        }
    }
}

/// Puts a message into another driver's inbox and rings its bell. Comes back when nobody is there.
fn post_to<H>(address: &Address<H>, post: Post<H>) -> Option<Post<H>> {
    let Door::Inbox(sender) = &address.door else { return Some(post) };
    let unsent = sender.send(post).err().map(|e| e.0);
    address.waker.wake();
    unsent
}

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
        if (slot.readable && reads) || (slot.writable && slot.outgoing != NOTHING) {
            self.enqueue(conn);
        }
    }
}

impl<H: Send> Io<H> for Epoll<H> {
    fn listen(&mut self, spec: ListenSpec) -> io::Result<(u16, SocketAddr)> {
        let (socket, addr) = net::listener(spec)?;
        let index = self.listeners.len();
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), 0, LISTENER | index as u64)?;
        self.listeners.push(Listener { socket, armed: false });
        self.update_accepting(self.now());
        Ok((index as u16, addr))
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
        self.pool.free.push(lease.id());
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
            Close::Flush if slot.phase != Phase::Open => {}
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
                self.accept((token & !LISTENER) as usize, now, events);
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

    fn room(&self) -> usize {
        (self.options.connections_max as usize - self.headroom()).saturating_sub(self.used)
    }

    fn stats(&self) -> IoStats {
        self.stats
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
