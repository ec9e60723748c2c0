//! What two shards take for their drivers: sockets in memory, completions in order, no faults but those that a
//! peer can cause, and a check of what a shard asks for against the contract of `io`.

use ringmq::io::{Close, Conn, Event, Io, IoStats, Lease, Leases, ListenSpec, Read, ReadEnd, ShardId};
use ringmq::shard::Handover;
use ringmq::time::Moment;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// The peer's side of a connection.
#[derive(Default)]
pub struct Socket {
    /// What the peer sent and no shard has read.
    pub inbound: VecDeque<u8>,
    /// The peer sends nothing more.
    pub ended: bool,
    /// The peer has cut it off.
    pub reset: bool,
    /// The peer reads nothing: what is sent to it stays where it is.
    pub stalled: bool,
    /// Bytes of a receive at most.
    pub piece: usize,
    /// What the shards sent.
    pub received: Vec<u8>,
    /// The shards have closed it.
    pub closed: bool,
}

struct Open {
    socket: usize,
    read: Option<Read>,
    sending: Option<Vec<u8>>,
    closing: Option<Close>,
    /// It has moved; this side is told in the next turn.
    moved: bool,
}

#[derive(Default)]
struct Kernel {
    conns: Vec<Option<Open>>,
    backlog: VecDeque<usize>,
    arrivals: VecDeque<(usize, Box<Handover>)>,
    paused: bool,
    woken: bool,
    buffers: Leases,
}

/// All kernels and sockets.
#[derive(Default)]
pub struct Net {
    pub now: u64,
    pub sockets: Vec<Socket>,
    kernels: Vec<Kernel>,
}

pub type SharedNet = Rc<RefCell<Net>>;

impl Net {
    pub fn new(shards: usize) -> Net {
        Net { kernels: (0..shards).map(|_| Kernel::default()).collect(), ..Net::default() }
    }

    /// A new connection waits for a shard to accept it.
    pub fn open(&mut self, shard: usize, piece: usize) -> usize {
        self.sockets.push(Socket { piece, ..Socket::default() });
        self.kernels[shard].backlog.push_back(self.sockets.len() - 1);
        self.sockets.len() - 1
    }

    /// Whether a shard's next turn has something to report.
    pub fn is_due(&self, shard: usize) -> bool {
        let kernel = &self.kernels[shard];
        kernel.woken
            || !kernel.arrivals.is_empty()
            || (!kernel.backlog.is_empty() && !kernel.paused)
            || kernel.conns.iter().flatten().any(|open| self.is_open_due(open))
    }

    fn is_open_due(&self, open: &Open) -> bool {
        let socket = &self.sockets[open.socket];
        let readable = socket.reset || socket.ended || !socket.inbound.is_empty();
        let sendable = socket.reset || !socket.stalled;
        let closes = open.closing.is_some_and(|how| how != Close::Flush || open.sending.is_none());
        open.moved || closes || (open.read.is_some() && readable) || (open.sending.is_some() && sendable)
    }

    /// Connections, and leases that were not given back.
    pub fn held(&self, shard: usize) -> (usize, usize) {
        let kernel = &self.kernels[shard];
        (kernel.conns.iter().flatten().count() + kernel.backlog.len(), kernel.buffers.leased())
    }

    fn place(&mut self, shard: usize, socket: usize) -> Conn {
        let conns = &mut self.kernels[shard].conns;
        let open = Some(Open { socket, read: None, sending: None, closing: None, moved: false });
        let at = conns.iter().position(Option::is_none).unwrap_or_else(|| {
            conns.push(None);
            conns.len() - 1
        });
        conns[at] = open;
        at as Conn
    }

    fn turn(&mut self, shard: usize, events: &mut Vec<Event<Handover>>) {
        if std::mem::take(&mut self.kernels[shard].woken) {
            events.push(Event::Woken);
        }
        while let Some((socket, item)) = self.kernels[shard].arrivals.pop_front() {
            let conn = self.place(shard, socket);
            events.push(Event::Arrived { conn, item });
        }
        while !self.kernels[shard].paused {
            let Some(socket) = self.kernels[shard].backlog.pop_front() else { break };
            let conn = self.place(shard, socket);
            events.push(Event::Accepted { conn, listener: 0, peer: None });
        }
        for at in 0..self.kernels[shard].conns.len() {
            let kernel = &mut self.kernels[shard];
            if let Some(open) = &mut kernel.conns[at] {
                let socket = &mut self.sockets[open.socket];
                if open.report(at as Conn, socket, &mut kernel.buffers, events) {
                    kernel.conns[at] = None;
                }
            }
        }
    }
}

impl Open {
    /// What one connection has to report; whether its index is free afterwards.
    fn report(
        &mut self,
        conn: Conn,
        socket: &mut Socket,
        buffers: &mut Leases,
        events: &mut Vec<Event<Handover>>,
    ) -> bool {
        if self.moved {
            events.push(Event::HandedOver { conn });
            return true;
        }
        let abandoned = self.closing.is_some_and(|how| how != Close::Flush);
        if (socket.reset || abandoned || !socket.stalled)
            && let Some(mut buffer) = self.sending.take()
        {
            let error = (socket.reset || abandoned).then_some(if abandoned { 125 } else { 32 });
            if error.is_none() {
                socket.received.extend_from_slice(&buffer);
            }
            buffer.clear();
            events.push(Event::Sent { conn, buffer, error });
        }
        if self.closing.is_none() {
            self.receive(conn, socket, buffers, events);
        }
        let closed = self.closing.is_some() && self.sending.is_none();
        if closed {
            socket.closed = true;
            events.push(Event::Closed { conn });
        }
        closed
    }

    fn receive(
        &mut self,
        conn: Conn,
        socket: &mut Socket,
        buffers: &mut Leases,
        events: &mut Vec<Event<Handover>>,
    ) {
        let Some(mode) = self.read else { return };
        let (empty, over) = (socket.inbound.is_empty(), socket.reset || socket.ended);
        if empty && !over {
            return;
        }
        self.read = None;
        if mode == Read::Parked {
            return events.push(Event::Ready { conn });
        }
        if socket.reset {
            return events.push(Event::ReadEnded { conn, why: ReadEnd::Err(104) });
        }
        if empty {
            return events.push(Event::ReadEnded { conn, why: ReadEnd::Eof });
        }
        let bytes: Vec<u8> = socket.inbound.drain(..socket.piece.min(socket.inbound.len())).collect();
        events.push(Event::Data { conn, lease: buffers.lease(&bytes) });
        if let Read::Stream { credit } = mode {
            match credit.saturating_sub(bytes.len() as u32) {
                0 => events.push(Event::ReadEnded { conn, why: ReadEnd::Credit }),
                credit => self.read = Some(Read::Stream { credit }),
            }
        }
    }
}

/// The driver that a shard sees.
pub struct MemoryIo {
    pub net: SharedNet,
    pub me: usize,
}

impl MemoryIo {
    fn kernel<R>(&self, f: impl FnOnce(&mut Kernel) -> R) -> R {
        f(&mut self.net.borrow_mut().kernels[self.me])
    }

    fn open<R>(&self, conn: Conn, f: impl FnOnce(&mut Open) -> R) -> R {
        self.kernel(|kernel| {
            let open = kernel.conns.get_mut(conn as usize).and_then(Option::as_mut);
            let open = open.expect("the shard names a connection that is free");
            assert!(!open.moved, "a connection that moves is left alone");
            f(open)
        })
    }
}

impl Io<Handover> for MemoryIo {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr> {
        Ok(spec.addr)
    }

    fn accept_pause(&mut self) {
        self.kernel(|kernel| kernel.paused = true);
    }

    fn accept_resume(&mut self) {
        self.kernel(|kernel| kernel.paused = false);
    }

    fn accept_stop(&mut self) {
        self.accept_pause();
    }

    fn connect(&mut self, to: SocketAddr, _: Option<IpAddr>) -> std::io::Result<Conn> {
        panic!("a shard opens no connections, and this one wants {to}");
    }

    fn read(&mut self, conn: Conn, mode: Read) {
        self.open(conn, |open| {
            assert!(open.read.is_none() && open.closing.is_none(), "one read, before the close");
            open.read = Some(mode);
        });
    }

    fn release(&mut self, lease: Lease) {
        self.kernel(|kernel| kernel.buffers.release(lease));
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        self.open(conn, |open| {
            assert!(!buffer.is_empty(), "a send has bytes");
            assert!(open.sending.is_none() && open.closing.is_none(), "one send, before the close");
            open.sending = Some(buffer);
        });
    }

    fn close(&mut self, conn: Conn, how: Close) {
        self.open(conn, |open| {
            let again = open.closing == Some(Close::Flush) && how != Close::Flush;
            assert!(open.closing.is_none() || again, "closed once, or flushed and then closed");
            (open.closing, open.read) = (Some(how), None);
        });
    }

    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<Handover>) {
        let socket = self.open(conn, |open| {
            assert!(open.read.is_none() && open.sending.is_none(), "nothing is under way");
            assert!(open.closing.is_none(), "an open connection moves");
            open.moved = true;
            open.socket
        });
        self.net.borrow_mut().kernels[usize::from(to)].arrivals.push_back((socket, item));
    }

    fn wake(&mut self, shard: ShardId) {
        self.net.borrow_mut().kernels[usize::from(shard)].woken = true;
    }

    fn turn(&mut self, events: &mut Vec<Event<Handover>>, _: Option<Moment>) {
        self.net.borrow_mut().turn(self.me, events);
    }

    fn now(&self) -> Moment {
        Moment(self.net.borrow().now)
    }

    fn room(&self) -> usize {
        1_000
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
