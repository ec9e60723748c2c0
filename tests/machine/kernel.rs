//! The kernel under each shard's driver: completions that come late and in any order, buffers and tables that
//! run out.

use super::net::{Faults, SocketId, Wire};
use super::trace;
use crate::note;
use ringmq::io::{Close, Conn, Event, Leases, Read, ReadEnd};
use ringmq::shard::Handover;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

const ENFILE: i32 = 23;

#[derive(Debug)]
pub struct Sending {
    pub buffer: Vec<u8>,
    pub at: usize,
    /// When `Sent` may come; set once everything left or it failed.
    pub done: Option<(u64, Option<i32>)>,
}

#[derive(Debug)]
pub struct Open {
    pub socket: SocketId,
    pub read: Option<Read>,
    /// A streaming receive has used up its credit.
    pub spent: bool,
    pub sending: Option<Sending>,
    pub close: Option<(Close, u64)>,
    /// To which shard, since when.
    pub moving: Option<Moving>,
    /// Not before this moment is a completion of it reported.
    pub late_until: u64,
}

#[derive(Debug)]
pub enum Moving {
    /// It is there; this side is told at that moment.
    Done { due: u64 },
    /// It was refused.
    Refused { due: u64, item: Box<Handover> },
}

/// One shard's kernel.
#[derive(Debug, Default)]
pub struct Kernel {
    pub conns: Vec<Option<Open>>,
    pub arrivals: VecDeque<(u64, SocketId, Box<Handover>)>,
    pub listening: bool,
    pub paused: bool,
    pub accept_fails_until: u64,
    pub woken: bool,
    pub buffers: Leases,
}

/// All kernels and the wire between them and the clients.
#[derive(Debug)]
pub struct Net {
    pub wire: Wire,
    pub kernels: Vec<Kernel>,
}

pub type SharedNet = Rc<RefCell<Net>>;

impl Kernel {
    pub fn used(&self) -> usize {
        self.conns.iter().flatten().count() + self.arrivals.len()
    }

    /// Somebody rings its bell.
    pub fn ring(&mut self) {
        self.woken = true;
    }

    /// Connections and leases that are not given back.
    pub fn held(&self) -> (usize, usize) {
        (self.used(), self.buffers.leased())
    }
}

impl Net {
    pub fn new(shards: usize, wire: Wire) -> Net {
        Net { wire, kernels: (0..shards).map(|_| Kernel::default()).collect() }
    }

    /// The shard that serves a socket.
    pub fn shard_of(&self, socket: SocketId) -> Option<usize> {
        let serves = |k: &Kernel| k.conns.iter().flatten().any(|open| open.socket == socket);
        self.kernels.iter().position(serves)
    }

    /// What a shard's driver waits for, for a report.
    pub fn describe(&self, shard: usize) -> String {
        let kernel = &self.kernels[shard];
        let mut text = format!(" woken {} backlog {:?}", kernel.woken, self.wire.backlogs[shard]);
        for (conn, open) in kernel.conns.iter().enumerate() {
            if let Some(open) = open {
                let sending = open.sending.as_ref().map(|s| (s.buffer.len() - s.at, s.done));
                text += &format!(
                    "\n    connection {conn} socket {} due {:?}: read {:?} sending {sending:?} close {:?}",
                    open.socket,
                    self.conn_due(open),
                    open.read,
                    open.close
                );
            }
        }
        text
    }

    fn faults(&self) -> &Faults {
        &self.wire.faults
    }

    pub fn open(&mut self, shard: usize, conn: Conn) -> &mut Open {
        self.kernels[shard].conns[conn as usize].as_mut().expect("the shard names a connection that is free")
    }

    /// A free index; sometimes the one that was freed last, sometimes a new one.
    fn place(&mut self, shard: usize, socket: SocketId) -> Conn {
        let conns = &mut self.kernels[shard].conns;
        let free: Vec<usize> = (0..conns.len()).filter(|i| conns[*i].is_none()).collect();
        let at = if free.is_empty() || (conns.len() < 64 && self.wire.random.chance(100)) {
            conns.push(None);
            conns.len() - 1
        } else {
            self.wire.random.pick(&free)
        };
        conns[at] = Some(Open {
            socket,
            read: None,
            spent: false,
            sending: None,
            close: None,
            moving: None,
            late_until: 0,
        });
        at as Conn
    }

    /// Lets bytes leave as far as the socket takes them.
    pub fn progress(&mut self, shard: usize, conn: usize) {
        let now = self.wire.now;
        let Some(open) = self.kernels[shard].conns[conn].as_mut() else { return };
        let Some(sending) = open.sending.as_mut().filter(|s| s.done.is_none()) else { return };
        let error = match self.wire.server_write(open.socket, &sending.buffer[sending.at..]) {
            Ok(n) => {
                sending.at += n;
                None
            }
            Err(errno) => Some(errno),
        };
        if error.is_some() || sending.at == sending.buffer.len() {
            let late = if self.wire.random.chance(self.wire.faults.late) {
                self.wire.random.range(0, 30)
            } else {
                0
            };
            sending.done = Some((now + late, error));
        } else {
            trace::reached("send stalled");
        }
    }

    /// When the next completion of a shard is due.
    pub fn next_due(&self, shard: usize) -> Option<u64> {
        let kernel = &self.kernels[shard];
        let now = self.wire.now;
        if kernel.woken {
            return Some(now);
        }
        let mut due = kernel.arrivals.iter().map(|(due, _, _)| *due).min();
        let mut earlier = |at: u64| due = Some(due.map_or(at, |d| d.min(at)));
        if kernel.listening && !kernel.paused && kernel.used() < self.faults().table {
            let backlog = self.wire.backlogs[shard].iter().map(|(due, _)| *due).min();
            backlog.into_iter().for_each(|at| earlier(at.max(kernel.accept_fails_until)));
        }
        for open in kernel.conns.iter().flatten() {
            if let Some(at) = self.conn_due(open) {
                earlier(at.max(open.late_until));
            }
        }
        due.map(|d| d.max(now))
    }

    fn conn_due(&self, open: &Open) -> Option<u64> {
        if let Some(moving) = &open.moving {
            let (Moving::Done { due } | Moving::Refused { due, .. }) = moving;
            return Some(*due);
        }
        let sent = open.sending.as_ref().and_then(|s| match s.done {
            Some((due, _)) => Some(due),
            None => self.wire.server_has_room(open.socket).then_some(self.wire.now),
        });
        let flushing = matches!(open.close, Some((Close::Flush, _))) && open.sending.is_some();
        let closed = open.close.filter(|_| !flushing).map(|(_, due)| due);
        let read = match open.read {
            Some(_) if open.spent => Some(self.wire.now),
            Some(_) => self.wire.server_due(open.socket),
            None => None,
        };
        [sent, closed, read].into_iter().flatten().min()
    }

    pub fn turn(&mut self, shard: usize, events: &mut Vec<Event<Handover>>) {
        if !self.wire.random.chance(self.wire.faults.spurious) {
            self.collect(shard, events);
            return;
        }
        trace::reached("spurious turn");
        if self.wire.random.chance(500) {
            events.push(Event::Woken);
        }
    }

    /// What is ready for a shard, in any order.
    fn collect(&mut self, shard: usize, events: &mut Vec<Event<Handover>>) {
        if std::mem::take(&mut self.kernels[shard].woken) {
            events.push(Event::Woken);
        }
        self.accept(shard, events);
        self.arrive(shard, events);
        let mut order: Vec<usize> = (0..self.kernels[shard].conns.len()).collect();
        self.wire.random.shuffle(&mut order);
        for conn in order {
            self.progress(shard, conn);
            let now = self.wire.now;
            let late = self.wire.random.chance(self.wire.faults.late);
            let Some(open) = self.kernels[shard].conns[conn].as_mut() else { continue };
            if open.late_until > now {
                continue;
            }
            if late {
                open.late_until = now + self.wire.random.range(1, 20);
                continue;
            }
            self.report(shard, conn, events);
        }
    }

    fn accept(&mut self, shard: usize, events: &mut Vec<Event<Handover>>) {
        let now = self.wire.now;
        let mut at = 0;
        while at < self.wire.backlogs[shard].len() {
            let kernel = &self.kernels[shard];
            if !kernel.listening || kernel.paused || kernel.accept_fails_until > now {
                return;
            }
            let (due, socket) = self.wire.backlogs[shard][at];
            if due > now {
                at += 1;
                continue;
            }
            let full = kernel.used() >= self.wire.faults.table;
            if full || self.wire.random.chance(self.wire.faults.accept_fails) {
                trace::reached("accept refused (ENFILE)");
                if !full {
                    self.kernels[shard].accept_fails_until = now + self.wire.random.range(1, 1_000);
                }
                return;
            }
            self.wire.backlogs[shard].remove(at);
            let conn = self.place(shard, socket);
            note!("shard {shard} accepts socket {socket} as connection {conn}");
            events.push(Event::Accepted { conn, listener: 0, peer: None });
        }
    }

    fn arrive(&mut self, shard: usize, events: &mut Vec<Event<Handover>>) {
        let now = self.wire.now;
        let mut at = 0;
        while at < self.kernels[shard].arrivals.len() {
            if self.kernels[shard].arrivals[at].0 > now {
                at += 1;
                continue;
            }
            let (_, socket, item) = self.kernels[shard].arrivals.remove(at).unwrap();
            let conn = self.place(shard, socket);
            note!("socket {socket} arrives at shard {shard} as connection {conn}");
            trace::reached("hand-over");
            if self.wire.server_due(socket).is_some_and(|due| due <= now) {
                trace::reached("hand-over while the client streams");
            }
            events.push(Event::Arrived { conn, item });
        }
    }

    /// What one connection has to report.
    fn report(&mut self, shard: usize, at: usize, events: &mut Vec<Event<Handover>>) {
        let (now, conn) = (self.wire.now, at as Conn);
        let open = self.kernels[shard].conns[at].as_mut().unwrap();
        match open.moving.take() {
            Some(Moving::Done { due }) if due <= now => {
                self.kernels[shard].conns[at] = None;
                events.push(Event::HandedOver { conn });
                return;
            }
            Some(Moving::Refused { due, item }) if due <= now => {
                trace::reached("hand-over refused (ENFILE)");
                events.push(Event::HandOverFailed { conn, item, errno: ENFILE });
                return;
            }
            moving => open.moving = moving,
        }
        if open.moving.is_some() {
            return;
        }
        if let Some(Sending { done: Some((due, error)), .. }) = open.sending
            && due <= now
        {
            let mut buffer = open.sending.take().map(|s| s.buffer).unwrap_or_default();
            buffer.clear();
            events.push(Event::Sent { conn, buffer, error });
        }
        self.report_read(shard, at, events);
        let open = self.kernels[shard].conns[at].as_mut().unwrap();
        let Some((how, due)) = open.close else { return };
        if due > now || (how == Close::Flush && open.sending.is_some()) {
            return;
        }
        if let Some(abandoned) = open.sending.take()
            && self.wire.random.chance(500)
        {
            let mut buffer = abandoned.buffer;
            buffer.clear();
            events.push(Event::Sent { conn, buffer, error: Some(125) });
        }
        let socket = open.socket;
        self.kernels[shard].conns[at] = None;
        self.wire.server_close(socket, how != Close::Flush);
        events.push(Event::Closed { conn });
    }

    fn report_read(&mut self, shard: usize, at: usize, events: &mut Vec<Event<Handover>>) {
        let (now, conn) = (self.wire.now, at as Conn);
        for _ in 0..4 {
            let kernel = &mut self.kernels[shard];
            let open = kernel.conns[at].as_mut().unwrap();
            let Some(mode) = open.read else { return };
            if open.close.is_some() && self.wire.random.chance(300) {
                // A receive that the close has ended.
                open.read = None;
                return;
            }
            if open.spent {
                (open.read, open.spent) = (None, false);
                events.push(Event::ReadEnded { conn, why: ReadEnd::Credit });
                return;
            }
            if self.wire.server_due(open.socket).is_none_or(|due| due > now) {
                return;
            }
            if mode == Read::Parked {
                open.read = None;
                events.push(Event::Ready { conn });
                return;
            }
            if kernel.buffers.leased() >= self.wire.faults.buffers {
                trace::reached("receive starved (ENOBUFS)");
                return;
            }
            let max = self.wire.random.range(1, self.wire.faults.buffer_bytes as u64) as usize;
            let why = match self.wire.server_read(open.socket, max) {
                None => return,
                Some(Ok(bytes)) if !bytes.is_empty() => {
                    let lease = kernel.buffers.lease(&bytes);
                    events.push(Event::Data { conn, lease });
                    match mode {
                        Read::Stream { credit } => {
                            let left = credit.saturating_sub(bytes.len() as u32);
                            open.read = Some(Read::Stream { credit: left });
                            open.spent = left == 0;
                            if self.wire.random.chance(500) {
                                return;
                            }
                        }
                        _ => {
                            open.read = None;
                            return;
                        }
                    }
                    continue;
                }
                Some(Ok(_)) => ReadEnd::Eof,
                Some(Err(errno)) => ReadEnd::Err(errno),
            };
            open.read = None;
            events.push(Event::ReadEnded { conn, why });
            return;
        }
    }
}
