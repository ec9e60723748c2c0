//! What the drivers have in common: options, counters, addresses, and the choice between them at run time.

use super::net::Waker;
use super::selftest::Chosen;
use super::{Close, Conn, Epoll, Event, Io, Lease, ListenSpec, Read, ShardId, Uring};
use crate::heap::vec_bytes;
use crate::limits;
use crate::time::Moment;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

/// What a driver is built with.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Connections at most, arrivals from other shards included. 0: what one table of descriptors holds, which
    /// is the limit of open files (the caller raises it first). With more than that io_uring takes further
    /// rings, up to [`limits::RINGS_PER_SHARD_MAX`]; epoll takes no more than the limit of open files.
    pub connections_max: u32,
    /// Descriptors in the table of one ring at most; 0: the limit of open files.
    pub table_max: u32,
    /// Share of each table that is kept free for connections that arrive from other shards, in percent.
    pub headroom_percent: usize,
    /// Receive buffers, a power of two up to 32,768.
    pub receive_buffers: u16,
    /// Bytes of each receive buffer.
    pub receive_buffer_bytes: u32,
    /// What [`Io::now`] counts from; the same for all shards.
    pub start: Instant,
}

impl Default for DriverOptions {
    fn default() -> DriverOptions {
        DriverOptions {
            connections_max: 0,
            table_max: 0,
            headroom_percent: limits::TABLE_HEADROOM_PERCENT,
            receive_buffers: limits::RECEIVE_BUFFERS,
            receive_buffer_bytes: limits::RECEIVE_BUFFER_BYTES as u32,
            start: Instant::now(),
        }
    }
}

impl DriverOptions {
    /// What [`Io::now`] says, for those without a driver.
    pub fn now(&self) -> Moment {
        Moment(self.start.elapsed().as_millis() as u64)
    }

    pub(super) fn clock_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The time of day at which [`Io::now`] was 0.
    pub fn start_of_day(&self) -> SystemTime {
        SystemTime::now() - self.start.elapsed()
    }
}

/// Counters of one driver since it was built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoStats {
    /// System calls that submitted, waited or both.
    pub enters: u64,
    /// Completions (io_uring) or readiness events (epoll).
    pub completions: u64,
    /// Connections accepted.
    pub accepts: u64,
    /// Connections asked for by `connect`.
    pub connects: u64,
    /// Sends that ended, with or without an error.
    pub sends: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Receives that found no buffer.
    pub starved: u64,
    /// Times that the completion queue was full; the kernel keeps what did not fit.
    pub cq_overflow: u64,
    /// Doorbells of other shards that were rung.
    pub wakes_sent: u64,
    /// Connections that were handed over.
    pub hand_overs: u64,
    /// Hand-overs that failed.
    pub hand_over_failures: u64,
    /// Connections that arrived.
    pub arrivals: u64,
    /// Times that accepting paused because no descriptor or no room was left.
    pub accept_pauses: u64,
    /// Flushed connections that waited for their peer's end of stream.
    pub lingers: u64,
    /// Flushed connections whose peer did not end its stream in time.
    pub linger_timeouts: u64,
}

/// Bytes that a driver holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoMemory {
    /// The table of connections.
    pub slots: usize,
    /// Buffers that are being sent.
    pub sending: usize,
    /// Receive buffers, those pages of them that were ever used.
    pub receive: usize,
    /// Queues that are shared with the kernel.
    pub rings: usize,
}

/// What passes between two epoll drivers.
#[derive(Debug)]
pub(super) enum Post<H> {
    /// A connection arrives.
    Arrive { socket: OwnedFd, item: Box<H>, from: Conn, reply: Address<H> },
    /// It was taken.
    Taken { conn: Conn },
    /// It was not taken.
    Refused { conn: Conn, socket: OwnedFd, item: Box<H>, errno: i32 },
}

/// How other shards reach a driver. Exchanged once, see [`Driver::set_peers`].
#[derive(Debug)]
pub struct Address<H> {
    pub(super) waker: Waker,
    pub(super) door: Door<H>,
}

/// The way in for connections.
#[derive(Debug)]
pub(super) enum Door<H> {
    /// Duplicates of the descriptors of all rings, so that their numbers cannot be reused under us. The first
    /// is the one to wake.
    Rings(Arc<[OwnedFd]>),
    /// The epoll driver's inbox.
    Inbox(Sender<Post<H>>),
}

impl<H> Address<H> {
    /// Rings behind it.
    pub(super) fn rings(&self) -> usize {
        match &self.door {
            Door::Rings(rings) => rings.len(),
            Door::Inbox(_) => 0,
        }
    }
}

impl<H> Clone for Address<H> {
    fn clone(&self) -> Address<H> {
        let door = match &self.door {
            Door::Rings(rings) => Door::Rings(Arc::clone(rings)),
            Door::Inbox(sender) => Door::Inbox(sender.clone()),
        };
        Address { waker: self.waker.clone(), door }
    }
}

/// A buffer that is being sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) buffer: Vec<u8>,
    /// Bytes of it that have left.
    pub(super) sent: usize,
}

/// The buffers that are being sent. An index is held by a connection from `put` to `take`; places are
/// reused, so a send allocates nothing once the table has grown.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    places: Vec<Outgoing>,
    free: Vec<u32>,
    /// Bytes of the buffers.
    bytes: usize,
}

/// No place in the outbox.
pub(super) const NOTHING: u32 = u32::MAX;

impl Outbox {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + vec_bytes::<Outgoing>(self.places.capacity()) + vec_bytes::<u32>(self.free.capacity())
    }

    pub(super) fn put(&mut self, buffer: Vec<u8>) -> u32 {
        self.bytes += buffer.capacity();
        let new = Outgoing { buffer, sent: 0 };
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = new;
            return index;
        }
        self.places.push(new);
        self.places.len() as u32 - 1
    }

    pub(super) fn at(&mut self, index: u32) -> &mut Outgoing {
        &mut self.places[index as usize]
    }

    /// The buffer back, empty.
    pub(super) fn take(&mut self, index: u32) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.places[index as usize]).buffer;
        self.bytes -= buffer.capacity();
        buffer.clear();
        self.free.push(index);
        buffer
    }
}

/// Which driver to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoMode {
    /// io_uring where it passes the self-test, else epoll with a warning.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
}

/// One of the drivers; one branch per call.
pub enum Driver<H: Send> {
    /// io_uring.
    Uring(Box<Uring<H>>),
    /// epoll.
    Epoll(Box<Epoll<H>>),
}

/// Calls the driver that is there.
macro_rules! delegate {
    ($self:ident, $io:ident => $call:expr) => {
        match $self {
            Driver::Uring($io) => $call,
            Driver::Epoll($io) => $call,
        }
    };
}

impl<H: Send> Driver<H> {
    /// Builds the driver of the calling thread, which alone may use it. All shards of a broker take the same
    /// choice.
    pub fn new(chosen: &Chosen, options: &DriverOptions) -> io::Result<Driver<H>> {
        Ok(match &chosen.features {
            Some(features) => Driver::Uring(Box::new(Uring::new(options, features)?)),
            None => Driver::Epoll(Box::new(Epoll::new(options)?)),
        })
    }

    /// How other shards reach this driver.
    pub fn address(&self) -> Address<H> {
        delegate!(self, io => io.address())
    }

    /// Rings this driver's bell from any thread.
    pub fn waker(&self) -> Waker {
        delegate!(self, io => io.waker())
    }

    /// The addresses of all shards, by shard id; before the first `hand_over` or `wake`.
    pub fn set_peers(&mut self, peers: Vec<Address<H>>) {
        delegate!(self, io => io.set_peers(peers));
    }
}

impl<H: Send> Io<H> for Driver<H> {
    fn listen(&mut self, spec: ListenSpec) -> io::Result<SocketAddr> {
        delegate!(self, io => io.listen(spec))
    }

    fn accept_pause(&mut self) {
        delegate!(self, io => io.accept_pause());
    }

    fn accept_resume(&mut self) {
        delegate!(self, io => io.accept_resume());
    }

    fn accept_stop(&mut self) {
        delegate!(self, io => io.accept_stop());
    }

    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Conn> {
        delegate!(self, io => io.connect(to, from))
    }

    fn read(&mut self, conn: Conn, mode: Read) {
        delegate!(self, io => io.read(conn, mode));
    }

    fn release(&mut self, lease: Lease) {
        delegate!(self, io => io.release(lease));
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        delegate!(self, io => io.send(conn, buffer));
    }

    fn close(&mut self, conn: Conn, how: Close) {
        delegate!(self, io => io.close(conn, how));
    }

    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<H>) {
        delegate!(self, io => io.hand_over(conn, to, item));
    }

    fn wake(&mut self, shard: ShardId) {
        delegate!(self, io => io.wake(shard));
    }

    fn turn(&mut self, events: &mut Vec<Event<H>>, deadline: Option<Moment>) {
        delegate!(self, io => io.turn(events, deadline));
    }

    fn now(&self) -> Moment {
        delegate!(self, io => io.now())
    }

    fn clock_ns(&self) -> u64 {
        delegate!(self, io => io.clock_ns())
    }

    fn cpu_ns(&self) -> u64 {
        delegate!(self, io => io.cpu_ns())
    }

    fn room(&self) -> usize {
        delegate!(self, io => io.room())
    }

    fn stats(&self) -> IoStats {
        delegate!(self, io => io.stats())
    }

    fn memory(&self) -> IoMemory {
        delegate!(self, io => io.memory())
    }

    fn describe(&self) -> String {
        delegate!(self, io => io.describe())
    }
}
