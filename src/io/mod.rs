//! The kernel: the only place on the data path that knows sockets, io_uring, epoll and clocks.
//!
//! The seam is completion-shaped, so that io_uring, epoll and the simulation fit it alike. A driver belongs
//! to one shard and to the thread that created it; everything happens in [`Io::turn`].
//!
//! Invariants:
//! - A connection index is dense, and is free for reuse only after [`Event::Closed`], [`Event::HandedOver`]
//!   or [`Event::HandOverFailed`] followed by a close; the driver guards slot reuse against late completions.
//! - At most one read mode and one send per connection at a time.
//! - A [`Lease`] is valid until it is released. A driver that goes before its leases leaves their memory behind.

mod buffers;
mod driver;
mod epoll;
mod host;
mod inherit;
mod leases;
mod local;
pub mod net;
mod ops;
mod ring;
mod selftest;
#[cfg(test)]
mod tests;
mod uring;

pub use driver::{Address, Driver, DriverOptions, IoMemory, IoMode, IoStats};
pub use epoll::Epoll;
pub use host::{disk_space, lower_priority, run_when_idle, survive_large_files};
pub use inherit::{Inherited, Role, bequeath, inherit};
pub use leases::Leases;
pub use local::{LocalSocket, SOCKET_PATH_BYTES_MAX};
pub use net::{
    Reservation, Waker, available_cores, bridge, pin_to_core, pin_to_cores, raise_open_files, reserve,
};
pub use selftest::{Chosen, Features, choose};
pub use uring::Uring;

use crate::limits;
use crate::time::Moment;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Index of a connection in its driver; dense, reused after it closed.
pub type Conn = u32;

/// Index of a shard.
pub type ShardId = u16;

/// A listening socket to be opened.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// What [`Event::Accepted`] calls it. Several sockets may have the same number.
    pub listener: u16,
    /// Address and port; an unspecified IPv6 address listens on both families. Of no meaning where `socket` is a
    /// [`LocalSocket`]'s.
    pub addr: SocketAddr,
    /// What the socket and those that it accepts are set to.
    pub options: SocketOptions,
    /// Whether [`Event::Accepted`] names the peer.
    pub peer_address: bool,
    /// A socket that listens there already, to be used in place of a new one.
    pub socket: Option<Arc<OwnedFd>>,
}

impl ListenSpec {
    /// A new socket of listener 0, with the usual options.
    pub fn new(addr: SocketAddr, backlog: u32) -> ListenSpec {
        let options = SocketOptions { backlog, ..SocketOptions::default() };
        ListenSpec { listener: 0, addr, options, peer_address: true, socket: None }
    }
}

/// What a listening socket is set to, and those that it accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// Connections that may wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
    pub backlog: u32,
    /// Whether small writes leave at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Seconds of silence before the first keepalive probe; 0 = none are sent.
    pub keepalive_s: u16,
    /// Seconds between two keepalive probes.
    pub keepalive_interval_s: u16,
    /// Unanswered keepalive probes after which a connection is dead.
    pub keepalive_probes: u8,
    /// Bytes of the kernel's receive buffer; 0 = as the kernel decides.
    pub receive_buffer_bytes: u32,
    /// Bytes of the kernel's send buffer; 0 = as the kernel decides.
    pub send_buffer_bytes: u32,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            backlog: limits::BACKLOG_DEFAULT,
            nodelay: true,
            keepalive_s: limits::TCP_KEEPALIVE_IDLE_S,
            keepalive_interval_s: limits::TCP_KEEPALIVE_INTERVAL_S,
            keepalive_probes: limits::TCP_KEEPALIVE_PROBES,
            receive_buffer_bytes: 0,
            send_buffer_bytes: 0,
        }
    }
}

/// How a connection is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// One receive: one [`Event::Data`], then nothing is armed.
    Once,
    /// Receives until the credit is used up ([`ReadEnd::Credit`]) or the stream ends.
    Stream {
        /// Bytes after which the receive ends by itself. It may end later by at most one receive buffer.
        credit: u32,
    },
    /// No receive is armed and no buffer held; [`Event::Ready`] comes once when there is something to read.
    Parked,
}

/// Why a read ended without data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadEnd {
    /// The peer closed its side.
    Eof,
    /// A stream's credit is used up; arm again to go on.
    Credit,
    /// The socket failed with this errno.
    Err(i32),
}

/// How a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// What was given to `send` leaves first, then shutdown and close. Bounded by the caller, who may follow
    /// with [`Close::Now`].
    Flush,
    /// At once; a send under way is abandoned.
    Now,
    /// At once and with a reset, so that the peer's unread data does not linger.
    Reset,
}

/// What [`Io::turn`] reports. `H` is what travels with a connection from shard to shard.
#[derive(Debug)]
pub enum Event<H> {
    /// A listener accepted a connection. Nothing is armed on it.
    Accepted {
        /// The new connection.
        conn: Conn,
        /// Number of the listener, as [`ListenSpec`] has it.
        listener: u16,
        /// The peer's address, where it is known.
        peer: Option<SocketAddr>,
    },
    /// Bytes arrived. The lease must be released.
    Data {
        /// Its connection.
        conn: Conn,
        /// The bytes.
        lease: Lease,
    },
    /// No more data comes until `read` is called again.
    ReadEnded {
        /// Its connection.
        conn: Conn,
        /// Why.
        why: ReadEnd,
    },
    /// A parked connection has something to read (data, end or error).
    Ready {
        /// Its connection.
        conn: Conn,
    },
    /// A send finished: all of it left, or `error` is the errno that ended it. The buffer comes back empty.
    Sent {
        /// Its connection.
        conn: Conn,
        /// The buffer that was given to `send`, cleared, its capacity kept.
        buffer: Vec<u8>,
        /// `None`: everything left.
        error: Option<i32>,
    },
    /// The connection's last operation is over and its descriptor is closed; the index is free.
    Closed {
        /// The index that is free.
        conn: Conn,
    },
    /// A connection arrived from another shard. Nothing is armed on it.
    Arrived {
        /// Its index here.
        conn: Conn,
        /// What travelled with it.
        item: Box<H>,
    },
    /// A hand-over succeeded; the index is free here.
    HandedOver {
        /// The index that is free.
        conn: Conn,
    },
    /// A hand-over failed with this errno; the connection is still ours, nothing is armed on it.
    HandOverFailed {
        /// The connection, still here.
        conn: Conn,
        /// What should have travelled.
        item: Box<H>,
        /// Why (`ENFILE`: the target's table is full).
        errno: i32,
    },
    /// An attempt of [`Io::connect`] ended. Nothing is armed on the connection.
    Connected {
        /// The connection, as `connect` named it.
        conn: Conn,
        /// `None`: it is open. Else the errno that ended the attempt (`ECONNREFUSED`, `ETIMEDOUT`, ...); the
        /// index is still the caller's, who gives it back by [`Io::close`].
        error: Option<i32>,
    },
    /// Somebody rang this shard's doorbell.
    Woken,
}

/// The driver of one shard's sockets.
pub trait Io<H: Send> {
    /// Opens a listening socket (`SO_REUSEPORT`, so that each shard has one of its own) and starts accepting.
    /// Returns the address that was bound (the port, where 0 was asked for).
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr>;

    /// Stops accepting on all listeners; what is in the backlog stays there. Idempotent.
    fn accept_pause(&mut self);

    /// Accepts again. Idempotent.
    fn accept_resume(&mut self);

    /// Closes all listeners, for a drain.
    fn accept_stop(&mut self);

    /// Opens a connection to `to`, without blocking and with `TCP_NODELAY`. The index is the caller's at once
    /// and ends like every other, by `close` and its `Closed`. The attempt ends in one `Connected`, before
    /// which nothing but `close` is legal; after `close` it may still come, before the `Closed`. `Flush` ends
    /// an attempt as `Now` does.
    ///
    /// `from` binds the source address and leaves the port to the kernel until it knows the peer
    /// (`IP_BIND_ADDRESS_NO_PORT`), so that each source address has all ports for each destination.
    ///
    /// An error means that there is no index and that no event follows: `ENFILE` (the table is full), `EMFILE`
    /// (no descriptor is left), `EADDRNOTAVAIL` (`from` is not an address of this host), `EINVAL` or
    /// `EAFNOSUPPORT` (the addresses are of different families). The head-room for arrivals is not kept.
    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<Conn>;

    /// Arms a read. Legal when no read is armed: after `Accepted`, `Arrived`, `Connected`, a `Once`'s `Data`,
    /// `ReadEnded` or `Ready`.
    fn read(&mut self, conn: Conn, mode: Read);

    /// Gives a receive buffer back.
    fn release(&mut self, lease: Lease);

    /// Sends all of `buffer`, which must not be empty. Legal when no send is under way on this connection.
    /// Ends in one `Sent`, however many system calls it takes.
    fn send(&mut self, conn: Conn, buffer: Vec<u8>);

    /// Closes a connection. Ends in one `Closed`, before which `Data`, `ReadEnded` and `Sent` of operations
    /// under way may still arrive. `Flush` may be followed by `Now` or `Reset`; otherwise called once.
    fn close(&mut self, conn: Conn, how: Close);

    /// Moves a connection on which no read is armed and no send is under way to another shard.
    /// Ends in `HandedOver` or `HandOverFailed`.
    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<H>);

    /// Rings another shard's doorbell: it gets [`Event::Woken`] and leaves its sleep. Takes effect at the
    /// latest in the next `turn`.
    fn wake(&mut self, shard: ShardId);

    /// Submits what was asked for, then collects what finished into `events` (appended). With a `deadline`
    /// later than now it sleeps until there is at least one event or the deadline has come; `None` does not
    /// sleep. [`Moment::NEVER`] sleeps until an event. Spurious returns without events are allowed.
    fn turn(&mut self, events: &mut Vec<Event<H>>, deadline: Option<Moment>);

    /// Called between two looks at what other shards share, where nothing else is asked of the driver. No driver
    /// does anything; a simulation lets the other shards get ahead, as they may on cores of their own.
    fn meanwhile(&self) {}

    /// The time. Monotonic; cheap enough to be read a few times per tick.
    fn now(&self) -> Moment;

    /// Nanoseconds on the same clock as [`Io::now`], for measurements: two reads a tick, none per packet.
    fn clock_ns(&self) -> u64 {
        self.now().0 * 1_000_000
    }

    /// Nanoseconds of CPU that the calling thread has used, what others were given left out. A system call, so not
    /// for every tick.
    fn cpu_ns(&self) -> u64 {
        self.clock_ns()
    }

    /// Connections that this driver can still take, beside the head-room for those that arrive.
    fn room(&self) -> usize;

    /// What was counted since the driver was built.
    fn stats(&self) -> IoStats;

    /// What it holds in memory; costs system calls, so not for every tick. A driver of a simulation holds nothing.
    fn memory(&self) -> IoMemory {
        IoMemory::default()
    }

    /// What is in use, one line for the log: the driver, and which features passed the self-test.
    fn describe(&self) -> String;
}

/// Received bytes in a buffer of the driver; dereferences to them. Must go back by [`Io::release`].
#[derive(Debug)]
pub struct Lease {
    pointer: *const u8,
    len: u32,
    /// The driver's name of the buffer.
    id: u32,
}

impl Lease {
    /// The bytes must stay valid, and unchanged, until the driver gets the lease back: for ever, if it never does.
    pub(crate) fn new(pointer: *const u8, len: u32, id: u32) -> Lease {
        Lease { pointer, len, id }
    }

    /// The driver's name of the buffer.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl std::ops::Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the driver that made the lease keeps the buffer until the lease is released, which
        // consumes it, and leaves the memory behind where it goes first; see `Lease::new`.
        unsafe { std::slice::from_raw_parts(self.pointer, self.len as usize) }
    }
}
