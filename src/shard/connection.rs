//! One connection of a shard, from accept to the last completion.
//!
//! ```text
//!   accepted ──► Connecting ──► Serving ──► Closing ──► (slot free)
//!      │            ▲ │  CONNECT's home is another shard
//!      └► Proxied ──┘ └───────► Moving ──► (slot free here, Connecting there)
//! ```

use crate::codec::ReasonCode;
use crate::heap::Counted;
use crate::io::Conn;
use crate::limits::{ACTIVE_READ_MS, ACTIVE_READS, READ_CREDIT_BYTES};
use crate::session::{Link, Options, Past};
use crate::stats::{Gauges, Memory};
use crate::time::Moment;
use crate::traffic::Traffic;
use crate::transport::Transport;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Its PROXY header has not come.
    Proxied,
    /// No CONNECT yet.
    Connecting,
    /// On its way to its home shard; nothing is armed.
    Moving,
    /// Attached to a session.
    Serving,
    /// Output leaves, input is ignored, then it is closed.
    Closing,
}

/// What the driver does with its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Armed {
    Nothing,
    Once,
    Stream,
    Parked,
}

/// Why it is not decoded further. Each has one place that ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// It is decoded.
    Nothing,
    /// It is on the shard's ready list: this tick's budget was used up.
    Turn,
    /// A target's data ring is full; it waits in that target's FIFO.
    Room,
    /// Its last acknowledgement waits until announcements have left the overflow.
    Mark,
    /// Its last message is handed out over several ticks.
    FanOut,
    /// A route is full ([`crate::session::QueueFull::Reject`], 3.x); a timer tries again.
    Full,
    /// It does not read what it is sent, or what it is sent must leave before it moves.
    Output,
    /// It has sent more than it may; a timer lets it go on.
    Pace,
    /// The shard of its topic says whether its message would be retained.
    Retain,
    /// Other shards say whether its message is to be kept.
    Keep,
    /// Others judge its CONNECT, which lies undecoded until they have, or a timer fires.
    Verdict,
    /// A step of its TLS handshake waits for a place, or is taken elsewhere.
    Handshake,
    /// Too many of its acknowledgements wait for the disk.
    Acks,
}

/// What a tick has changed of a connection so far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Changed {
    Nothing,
    /// The connection: its output, as a rule.
    Itself,
    /// What its session owns may be another amount of memory as well.
    Session,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub link: Link,
    pub session: Option<u32>,
    pub phase: Phase,
    pub armed: Armed,
    pub wait: Wait,
    /// Else it is in `dirty`, and the flush of this tick looks at it.
    pub changed: Changed,
    /// A send is with the driver.
    pub busy: bool,
    /// The peer closed its side, or the socket failed; what is pending is decoded first.
    pub ended: bool,
    /// The driver was told to close.
    pub shut: bool,
    /// It was told to do so at once.
    pub cut: bool,
    /// Its output waits until its session is on the disk.
    pub closed: bool,
    pub asked: AskedBits,
    /// Keep Alive in seconds that holds; 0 = off.
    pub keep_alive_s: u16,
    /// The Topic Alias Maximum that CONNACK told, which holds whatever the options become.
    pub alias_in_max: u16,
    /// A route is full: until when its publisher is made to wait.
    pub full_until: Option<Near>,
    /// When the last packet came.
    pub last_packet: Near,
    /// When bytes came the last time.
    last_read: Near,
    /// Reads that followed each other closely.
    streak: u8,
    /// Received and not decoded yet.
    pub pending: Vec<u8>,
    /// TLS and WebSocket, where its listener has them.
    pub transport: Option<Box<Transport>>,
    peer: Peer,
    /// Bytes that it owns on the heap, as they were counted last.
    counted: Counted,
    /// The number of its listener.
    pub listener: u8,
    /// There is no place for it: the reason code that its CONNECT will be answered with; else 0.
    pub refused: u8,
}

const _: () = assert!(size_of::<Connection>() == 168, "what each client pays");

/// What CONNECT said besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// It asked for a new session.
    pub clean_start: bool,
    /// It said that it is a bridge.
    pub bridge: bool,
}

/// [`Asked`] in one byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedBits(u8);

impl From<Asked> for AskedBits {
    fn from(asked: Asked) -> AskedBits {
        AskedBits(u8::from(asked.clean_start) | u8::from(asked.bridge) << 1)
    }
}

/// A peer's address in 18 bytes, IPv4 as IPv6 has it; port 0 where it is not known.
#[derive(Clone, Copy, Debug)]
struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    fn new(peer: Option<SocketAddr>) -> Peer {
        let Some(peer) = peer else { return Peer { ip: [0; 16], port: 0 } };
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Peer { ip: ip.octets(), port: peer.port() }
    }

    fn address(self) -> Option<SocketAddr> {
        (self.port != 0).then(|| SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port))
    }
}

/// A moment less than 24 days from now, in half the bytes and to two milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Near(NonZeroU32);

impl Near {
    #[inline]
    pub fn new(moment: Moment) -> Near {
        Near(NonZeroU32::MIN | moment.0 as u32)
    }

    /// Milliseconds from it to now; 0 where it is still to come.
    #[inline]
    pub fn since_ms(self, now: Moment) -> u64 {
        let since = (now.0 as u32).wrapping_sub(self.0.get()).cast_signed();
        u64::from(since.max(0).unsigned_abs())
    }

    /// Whether it has come.
    pub fn has_come(self, now: Moment) -> bool {
        self == Near::new(now) || self.since_ms(now) > 0
    }
}

const _: () = assert!(24 * 86_400 * 1_000 < i32::MAX as u64);

impl Connection {
    /// A connection before its CONNECT, which is counted among the handshakes.
    pub fn new(
        link: Link,
        listener: u8,
        peer: Option<SocketAddr>,
        now: Moment,
        gauges: &mut Gauges,
    ) -> Connection {
        gauges.handshakes += 1;
        Connection {
            link,
            session: None,
            phase: Phase::Connecting,
            armed: Armed::Nothing,
            wait: Wait::Nothing,
            changed: Changed::Nothing,
            busy: false,
            ended: false,
            shut: false,
            cut: false,
            closed: false,
            asked: Asked { clean_start: true, bridge: false }.into(),
            keep_alive_s: 0,
            alias_in_max: 0,
            full_until: None,
            last_packet: Near::new(now),
            last_read: Near::new(now),
            streak: 0,
            pending: Vec::new(),
            transport: None,
            peer: Peer::new(peer),
            counted: Counted::default(),
            listener,
            refused: 0,
        }
    }

    /// Enters another phase of its life.
    pub fn enter(&mut self, phase: Phase, gauges: &mut Gauges) {
        self.leave(gauges);
        self.phase = phase;
        match phase {
            Phase::Proxied | Phase::Connecting | Phase::Moving => gauges.handshakes += 1,
            Phase::Serving => gauges.connections += 1,
            Phase::Closing => {}
        }
    }

    /// It is not counted any more.
    pub fn leave(&self, gauges: &mut Gauges) {
        match self.phase {
            Phase::Proxied | Phase::Connecting | Phase::Moving => gauges.handshakes -= 1,
            Phase::Serving => gauges.connections -= 1,
            Phase::Closing => {}
        }
    }

    /// What CONNECT said besides.
    pub fn asked(&self) -> Asked {
        Asked { clean_start: self.asked.0 & 1 != 0, bridge: self.asked.0 & 2 != 0 }
    }

    /// The peer's address, where it is known; IPv4 as such also where the listener takes both.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.address()
    }

    /// A proxy said whose connection it is.
    pub fn set_peer(&mut self, peer: Option<SocketAddr>) {
        self.peer = Peer::new(peer);
    }

    /// Milliseconds of silence after which it is closed; 0 = never.
    pub fn keep_alive_ms(&self, options: &Options) -> u64 {
        u64::from(self.keep_alive_s) * u64::from(options.keepalive_backoff.max(1_000))
    }

    /// What is remembered of it. `folded` is the part of its traffic that was folded.
    pub fn past(&self, folded: Option<&Traffic>, now: Moment, reason: Option<ReasonCode>) -> Past {
        let mut traffic = folded.copied().unwrap_or_default();
        traffic.add(&self.link.traffic);
        Past {
            version: self.link.version,
            bridge: self.asked().bridge,
            clean_start: self.asked().clean_start,
            keep_alive_s: self.keep_alive_s,
            window: self.link.window,
            peer: self.peer(),
            ended: now,
            reason,
            traffic,
        }
    }

    /// How to read next, if it is to be read: before CONNECT one receive at a time; a connection that is read
    /// again and again streams; an idle one holds no receive.
    pub fn next_read(&self) -> Option<Armed> {
        let still = self.armed == Armed::Nothing && self.wants_input();
        if !still || matches!(self.phase, Phase::Moving | Phase::Closing) {
            return None;
        }
        if self.phase != Phase::Serving {
            // Whose handshake is under way is read when there is a place for the step.
            let placed = self.phase == Phase::Connecting && self.is_handshaking();
            return Some(if placed { Armed::Parked } else { Armed::Once });
        }
        Some(if self.streak >= ACTIVE_READS { Armed::Stream } else { Armed::Parked })
    }

    /// Whether more bytes are wanted: what came is decoded. Behind a PUBLISH that waits for a full route may
    /// stand the acknowledgements that empty it.
    pub fn wants_input(&self) -> bool {
        let behind = self.wait == Wait::Full && self.pending.len() < READ_CREDIT_BYTES as usize;
        (self.wait == Wait::Nothing || behind) && !self.ended
    }

    /// Whether its bytes may cost a step of a TLS handshake.
    pub fn is_handshaking(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.is_handshaking())
    }

    /// Whether it has something that is to be sent.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.link.out.is_empty() || self.transport.as_ref().is_some_and(|t| t.has_output())
    }

    /// Brings the ledger of memory up to date.
    #[inline]
    pub fn count(&mut self, memory: &mut Memory) {
        if self.phase != Phase::Moving {
            self.counted.recount(&mut memory.buffers, self.link.bytes() + self.pending.capacity());
        }
    }

    /// Brings the ledger of memory up to date with TLS and WebSocket.
    pub fn count_transport(&mut self, memory: &mut Memory) {
        if let Some(transport) = &mut self.transport {
            let bytes = transport.bytes();
            transport.counted.recount(&mut memory.transports, bytes);
        }
    }

    /// Takes its layers away, which are somebody else's to count from now on.
    pub fn take_transport(&mut self, memory: &mut Memory) -> Option<Box<Transport>> {
        let mut transport = self.transport.take()?;
        transport.counted.recount(&mut memory.transports, 0);
        Some(transport)
    }

    /// What it owned goes with it to another shard, in one piece of this many bytes.
    pub fn count_moving(&mut self, bytes: usize, memory: &mut Memory) {
        self.counted.recount(&mut memory.buffers, bytes);
    }

    /// It is gone, or what it owned is: nothing of it counts any more.
    pub fn uncount(&mut self, memory: &mut Memory) {
        self.counted.recount(&mut memory.buffers, 0);
        if let Some(transport) = &mut self.transport {
            transport.counted.recount(&mut memory.transports, 0);
        }
    }

    /// Bytes came.
    pub fn note_read(&mut self, now: Moment) {
        let again = self.last_read.since_ms(now) < ACTIVE_READ_MS;
        self.streak = if again { self.streak.saturating_add(1) } else { 0 };
        self.last_read = Near::new(now);
    }
}

/// What travels with a connection to its home shard.
#[derive(Debug)]
pub struct Handover {
    /// CONNECT, and what was received behind it.
    pub bytes: Vec<u8>,
    /// The number of the listener that accepted it.
    pub listener: u8,
    /// The peer's address, or the one for which a proxy speaks.
    pub peer: Option<SocketAddr>,
    /// TLS and WebSocket, with what was received of them.
    pub transport: Option<Box<Transport>>,
}

/// Names a connection in the log.
pub(super) fn label(conn: Conn, peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| format!("connection {conn}"), |p| p.to_string())
}
