//! The network between clients and shards: bytes that are split, delayed, lost with their connection, or
//! stuck because nobody reads.

use super::random::Random;
use super::trace;
use crate::note;
use std::collections::VecDeque;

pub type SocketId = usize;

/// Which faults a seed has, each as a chance in 1000 or a bound.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Milliseconds that bytes travel at most.
    pub delay_ms_max: u64,
    /// Bytes that one write leaves with at most; 0 = no bound.
    pub split_max: usize,
    /// Bytes that a socket holds in each direction.
    pub socket_bytes: usize,
    /// Bytes of a receive buffer, and how many a shard has.
    pub buffer_bytes: usize,
    pub buffers: usize,
    /// Connections that a shard's table holds.
    pub table: usize,
    /// A hand-over is refused.
    pub enfile: u32,
    /// A completion that is due waits for a later turn.
    pub late: u32,
    /// Milliseconds that a close or a hand-over takes at most.
    pub lag_ms_max: u64,
    /// A reset takes with it what the client has not read.
    pub reset_loses: u32,
    /// A turn brings nothing, or a wake that nobody sent.
    pub spurious: u32,
    /// Another shard ticks in the middle of a shard's tick.
    pub interleave: u32,
    /// Accepting fails for a while.
    pub accept_fails: u32,
}

impl Faults {
    /// A machine that is fast and has room.
    pub fn none() -> Faults {
        Faults {
            delay_ms_max: 0,
            split_max: 0,
            socket_bytes: 1 << 20,
            buffer_bytes: 16_384,
            buffers: 64,
            table: 1_000,
            enfile: 0,
            late: 0,
            lag_ms_max: 0,
            reset_loses: 0,
            spurious: 0,
            interleave: 0,
            accept_fails: 0,
        }
    }
}

/// One direction of a socket.
#[derive(Debug, Default)]
pub struct Pipe {
    flight: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    bytes: usize,
    /// When the end of the stream arrives, after all bytes.
    fin: Option<u64>,
}

impl Pipe {
    fn write(&mut self, bytes: &[u8], capacity: usize, split: usize, due: u64) -> usize {
        let room = capacity.saturating_sub(self.bytes).min(bytes.len());
        if room == 0 {
            return 0;
        }
        let due = self.flight.back().map_or(due, |(last, _)| due.max(*last));
        let piece = if split == 0 { room } else { room.min(split) };
        self.flight.push_back((due, bytes[..piece].to_vec()));
        self.bytes += piece;
        piece
    }

    fn arrive(&mut self, now: u64) {
        while self.flight.front().is_some_and(|(due, _)| *due <= now) {
            let (_, bytes) = self.flight.pop_front().unwrap();
            self.arrived.extend(bytes);
        }
    }

    fn read(&mut self, now: u64, max: usize) -> Vec<u8> {
        self.arrive(now);
        let n = self.arrived.len().min(max);
        self.bytes -= n;
        self.arrived.drain(..n).collect()
    }

    fn end(&mut self, now: u64) {
        let due = self.flight.back().map_or(now, |(last, _)| now.max(*last));
        self.fin.get_or_insert(due);
    }

    fn ended(&mut self, now: u64) -> bool {
        self.arrive(now);
        self.bytes == 0 && self.fin.is_some_and(|due| due <= now)
    }

    fn discard(&mut self) {
        *self = Pipe { fin: self.fin, ..Pipe::default() };
    }

    /// When a reader has something: data or the end.
    fn due(&self) -> Option<u64> {
        if !self.arrived.is_empty() {
            return Some(0);
        }
        self.flight.front().map(|(due, _)| *due).or(if self.bytes == 0 { self.fin } else { None })
    }
}

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// FIN after what was written.
    Fin,
    /// RST: what has not been read is gone.
    Reset,
    /// Nothing: the peer is half-open from now on.
    Vanish,
}

/// A connection between a client and a shard.
#[derive(Debug, Default)]
pub struct Socket {
    pub name: String,
    up: Pipe,
    down: Pipe,
    /// The client has left, and how.
    pub left: Option<Leave>,
    /// The server has closed it; `true`: with a reset.
    pub closed: Option<bool>,
    /// When a client's reset arrives.
    reset_due: u64,
}

impl Socket {
    fn was_reset(&self, now: u64) -> bool {
        self.left == Some(Leave::Reset) && self.reset_due <= now
    }
}

/// All sockets of a world.
#[derive(Debug)]
pub struct Wire {
    pub now: u64,
    pub faults: Faults,
    pub random: Random,
    pub sockets: Vec<Socket>,
    /// Accept queue of each shard: when a connection arrives there.
    pub backlogs: Vec<VecDeque<(u64, SocketId)>>,
}

impl Wire {
    pub fn new(shards: usize, faults: Faults, random: Random) -> Wire {
        let backlogs = (0..shards).map(|_| VecDeque::new()).collect();
        Wire { now: 1_000, faults, random, sockets: Vec::new(), backlogs }
    }

    /// The server's machine is gone with all its connections; another one has so many shards.
    pub fn crash(&mut self, shards: usize) {
        let now = self.now;
        self.backlogs = (0..shards).map(|_| VecDeque::new()).collect();
        for socket in self.sockets.iter_mut().filter(|socket| socket.closed.is_none()) {
            socket.closed = Some(true);
            socket.up.discard();
            socket.down.discard();
            socket.down.end(now);
        }
    }

    fn delay(&mut self) -> u64 {
        let max = self.faults.delay_ms_max;
        // Mostly quick, so that something happens at all.
        if max == 0 || self.random.chance(600) { self.now } else { self.now + self.random.range(0, max) }
    }

    /// A client connects; the kernel picks one of the listeners.
    pub fn connect(&mut self, name: String) -> SocketId {
        let shard = self.random.below(self.backlogs.len());
        let due = self.delay();
        self.sockets.push(Socket { name, ..Socket::default() });
        let id = self.sockets.len() - 1;
        self.backlogs[shard].push_back((due, id));
        note!("{} connects to shard {shard} as socket {id}", self.sockets[id].name);
        id
    }

    /// A client writes; how many bytes the socket took.
    pub fn client_write(&mut self, id: SocketId, bytes: &[u8]) -> usize {
        let (due, split) = (self.delay(), self.faults.split_max);
        let split = if split == 0 { 0 } else { self.random.range(1, split as u64) as usize };
        let socket = &mut self.sockets[id];
        if socket.closed.is_some() || socket.left.is_some() {
            return bytes.len();
        }
        socket.up.write(bytes, self.faults.socket_bytes, split, due)
    }

    /// Whether a client could write.
    pub fn client_has_room(&self, id: SocketId) -> bool {
        let socket = &self.sockets[id];
        socket.closed.is_some() || socket.left.is_some() || socket.up.bytes < self.faults.socket_bytes
    }

    pub fn client_read(&mut self, id: SocketId, max: usize) -> Vec<u8> {
        let now = self.now;
        self.sockets[id].down.read(now, max)
    }

    /// Whether the client sees the end of the connection.
    pub fn client_ended(&mut self, id: SocketId) -> bool {
        let now = self.now;
        self.sockets[id].down.ended(now)
    }

    /// Whether the client has something to read.
    pub fn client_due(&self, id: SocketId) -> Option<u64> {
        self.sockets[id].down.due()
    }

    /// The client ends its stream, and goes on reading.
    pub fn client_end(&mut self, id: SocketId) {
        let now = self.now;
        self.sockets[id].up.end(now);
    }

    /// Milliseconds that the driver takes for something.
    pub fn lag(&mut self) -> u64 {
        self.random.range(0, self.faults.lag_ms_max)
    }

    pub fn client_leave(&mut self, id: SocketId, how: Leave) {
        let due = self.delay();
        let now = self.now;
        let socket = &mut self.sockets[id];
        if socket.left.is_some() {
            return;
        }
        note!("{} leaves socket {id}: {how:?}", socket.name);
        socket.left = Some(how);
        match how {
            Leave::Fin => {
                trace::reached("peer closed");
                socket.up.end(now);
                socket.down.discard();
            }
            Leave::Reset => {
                trace::reached("peer reset");
                socket.reset_due = due;
                socket.up.discard();
                socket.down.discard();
            }
            Leave::Vanish => trace::reached("peer half-open"),
        }
    }

    /// A half-open peer's machine comes back, and answers what it gets with a reset.
    pub fn bury(&mut self, id: SocketId) {
        let now = self.now;
        let socket = &mut self.sockets[id];
        if socket.left == Some(Leave::Vanish) {
            socket.left = Some(Leave::Reset);
            socket.reset_due = now;
            socket.up.discard();
            socket.down.discard();
        }
    }

    /// What the server side reads: `Ok(bytes)`, of which none is the end, or an errno; `None`: nothing yet.
    pub fn server_read(&mut self, id: SocketId, max: usize) -> Option<Result<Vec<u8>, i32>> {
        let now = self.now;
        let socket = &mut self.sockets[id];
        if socket.was_reset(now) {
            return Some(Err(104));
        }
        let bytes = socket.up.read(now, max);
        if !bytes.is_empty() {
            return Some(Ok(bytes));
        }
        socket.up.ended(now).then_some(Ok(bytes))
    }

    /// When the server side has something to read.
    pub fn server_due(&self, id: SocketId) -> Option<u64> {
        let socket = &self.sockets[id];
        match socket.left {
            Some(Leave::Reset) => Some(socket.reset_due),
            _ => socket.up.due(),
        }
    }

    /// The server side sends; how many bytes left, or an errno.
    pub fn server_write(&mut self, id: SocketId, bytes: &[u8]) -> Result<usize, i32> {
        let (due, split) = (self.delay(), self.faults.split_max);
        let now = self.now;
        let capacity = self.faults.socket_bytes;
        let socket = &mut self.sockets[id];
        if socket.was_reset(now) {
            return Err(32);
        }
        if socket.left == Some(Leave::Fin) {
            // The first bytes after a FIN leave, and are answered with a reset.
            socket.left = Some(Leave::Reset);
            socket.reset_due = due;
            return Ok(bytes.len());
        }
        let mut sent = 0;
        loop {
            let n = socket.down.write(&bytes[sent..], capacity, split, due);
            sent += n;
            if n == 0 || sent == bytes.len() {
                return Ok(sent);
            }
        }
    }

    /// Whether more bytes of the server would leave.
    pub fn server_has_room(&self, id: SocketId) -> bool {
        let socket = &self.sockets[id];
        socket.was_reset(self.now)
            || socket.left == Some(Leave::Fin)
            || socket.down.bytes < self.faults.socket_bytes
    }

    /// The server side is closed.
    pub fn server_close(&mut self, id: SocketId, reset: bool) {
        let now = self.now;
        let lose = reset && self.random.chance(self.faults.reset_loses);
        let socket = &mut self.sockets[id];
        assert!(socket.closed.is_none(), "socket {id} is closed twice");
        note!("server closes socket {id} of {}{}", socket.name, if reset { " (reset)" } else { "" });
        socket.closed = Some(reset);
        socket.up.discard();
        if lose {
            socket.down.discard();
        }
        socket.down.end(now);
    }

    /// The next moment at which a client has something to read.
    pub fn next_for_client(&self, id: SocketId) -> Option<u64> {
        self.client_due(id).map(|due| due.max(self.now))
    }
}
