//! A driver without a kernel: what clients send is put in, what the shard sends is taken out.
//!
//! Each receive costs an allocation and a copy, as a stand-in for the kernel's; the figures say what a shard
//! does, not what sockets cost.

use ringmq::io::{Close, Conn, Event, Io, IoStats, Lease, Leases, ListenSpec, Read, ShardId};
use ringmq::shard::Handover;
use ringmq::time::Moment;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// Both ends of the wire.
#[derive(Default)]
pub struct State {
    pub now: Moment,
    clients: Vec<Client>,
    events: Vec<Event<Handover>>,
    leases: Leases,
}

#[derive(Default)]
struct Client {
    inbox: VecDeque<Vec<u8>>,
    read: Option<Read>,
    outbox: Vec<u8>,
}

impl State {
    /// A client connects; its index.
    pub fn open(&mut self) -> Conn {
        let conn = self.clients.len() as Conn;
        self.clients.push(Client::default());
        self.events.push(Event::Accepted { conn, listener: 0, peer: None });
        conn
    }

    /// A client sends bytes, which arrive in one receive.
    pub fn put(&mut self, conn: Conn, bytes: &[u8]) {
        self.clients[conn as usize].inbox.push_back(bytes.to_vec());
        self.progress(conn);
    }

    /// What a client was sent since the last time.
    pub fn take(&mut self, conn: Conn, into: &mut Vec<u8>) {
        into.clear();
        into.append(&mut self.clients[conn as usize].outbox);
    }

    /// How many there are.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether the shard has nothing more to be told.
    pub fn is_quiet(&self) -> bool {
        self.events.is_empty()
    }

    fn progress(&mut self, conn: Conn) {
        let client = &mut self.clients[conn as usize];
        match client.read {
            Some(Read::Parked) if !client.inbox.is_empty() => {
                client.read = None;
                self.events.push(Event::Ready { conn });
            }
            Some(mode @ (Read::Once | Read::Stream { .. })) => {
                while let Some(bytes) = client.inbox.pop_front() {
                    let lease = self.leases.lease(&bytes);
                    self.events.push(Event::Data { conn, lease });
                    if mode == Read::Once {
                        client.read = None;
                        break;
                    }
                }
            }
            _ => {}
        }
    }
}

/// The shard's end.
#[derive(Clone, Default)]
pub struct Wire(pub Rc<RefCell<State>>);

impl Io<Handover> for Wire {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr> {
        Ok(spec.addr)
    }
    fn accept_pause(&mut self) {}
    fn accept_resume(&mut self) {}
    fn accept_stop(&mut self) {}
    fn connect(&mut self, _: SocketAddr, _: Option<IpAddr>) -> std::io::Result<Conn> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn read(&mut self, conn: Conn, mode: Read) {
        let state = &mut *self.0.borrow_mut();
        state.clients[conn as usize].read = Some(mode);
        state.progress(conn);
    }
    fn release(&mut self, lease: Lease) {
        self.0.borrow_mut().leases.release(lease);
    }
    fn send(&mut self, conn: Conn, mut buffer: Vec<u8>) {
        let state = &mut *self.0.borrow_mut();
        state.clients[conn as usize].outbox.extend_from_slice(&buffer);
        buffer.clear();
        state.events.push(Event::Sent { conn, buffer, error: None });
    }
    fn close(&mut self, conn: Conn, how: Close) {
        panic!("the shard closes connection {conn} ({how:?}): what a bench sends is well-formed");
    }
    fn hand_over(&mut self, _: Conn, to: ShardId, _: Box<Handover>) {
        panic!("there is one shard, and a client is to move to {to}");
    }
    fn wake(&mut self, _: ShardId) {}
    fn turn(&mut self, events: &mut Vec<Event<Handover>>, _: Option<Moment>) {
        events.append(&mut self.0.borrow_mut().events);
    }
    fn now(&self) -> Moment {
        self.0.borrow().now
    }
    fn room(&self) -> usize {
        usize::MAX
    }
    fn stats(&self) -> IoStats {
        IoStats::default()
    }
    fn describe(&self) -> String {
        "a bench".into()
    }
}
