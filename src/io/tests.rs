//! What every driver has to do, on real loopback sockets. Each test runs once per driver.

use super::*;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

mod annexes;
mod closing;
mod connecting;
mod moving;
mod reading;
mod table;

/// What travels with a connection: the bytes that were read before it moved.
pub(super) type Item = Vec<u8>;

/// A driver under test.
pub(super) trait Subject: Io<Item> + Sized + 'static {
    fn build(options: &DriverOptions) -> Self;
    fn address(&self) -> Address<Item>;
    fn set_peers(&mut self, peers: Vec<Address<Item>>);
    fn waker(&self) -> net::Waker;
    /// The first listener, and when accepting is tried again.
    fn accepting(&self) -> (RawFd, Option<Moment>);
    /// Makes the next closes of descriptors that have moved fail, where that is more than dropping them.
    fn fail_closes(&mut self, _count: u32) {}
}

impl Subject for Epoll<Item> {
    fn build(options: &DriverOptions) -> Self {
        Epoll::new(options).unwrap()
    }
    fn address(&self) -> Address<Item> {
        Epoll::address(self)
    }
    fn set_peers(&mut self, peers: Vec<Address<Item>>) {
        Epoll::set_peers(self, peers);
    }
    fn waker(&self) -> net::Waker {
        Epoll::waker(self)
    }
    fn accepting(&self) -> (RawFd, Option<Moment>) {
        Epoll::accepting(self)
    }
}

impl Subject for Uring<Item> {
    fn build(options: &DriverOptions) -> Self {
        static FEATURES: std::sync::LazyLock<Features> = std::sync::LazyLock::new(|| {
            let chosen = choose(IoMode::Uring).expect("these tests need io_uring");
            let found = chosen.features.expect("io_uring was chosen");
            // `RINGMQ_IO_SIMPLE=1 cargo test io::` takes the ways of older kernels.
            match std::env::var_os("RINGMQ_IO_SIMPLE") {
                Some(_) => Features { deferred: false, no_sq_array: false, receive_credit: false, ..found },
                None => found,
            }
        });
        Uring::new(options, &FEATURES).unwrap()
    }
    fn address(&self) -> Address<Item> {
        Uring::address(self)
    }
    fn set_peers(&mut self, peers: Vec<Address<Item>>) {
        Uring::set_peers(self, peers);
    }
    fn waker(&self) -> net::Waker {
        Uring::waker(self)
    }
    fn accepting(&self) -> (RawFd, Option<Moment>) {
        Uring::accepting(self)
    }
    fn fail_closes(&mut self, count: u32) {
        Uring::fail_closes(self, count);
    }
}

/// io_uring with tables so small that most tests need annex rings.
pub(super) struct Annexed(Uring<Item>);

/// Slots of each table: one of them is head-room.
const ANNEXED_TABLE: u32 = 10;

impl Subject for Annexed {
    fn build(options: &DriverOptions) -> Self {
        let table_max = if options.table_max == 0 { ANNEXED_TABLE } else { options.table_max };
        Annexed(<Uring<Item> as Subject>::build(&DriverOptions { table_max, ..options.clone() }))
    }
    fn address(&self) -> Address<Item> {
        self.0.address()
    }
    fn set_peers(&mut self, peers: Vec<Address<Item>>) {
        self.0.set_peers(peers);
    }
    fn waker(&self) -> net::Waker {
        self.0.waker()
    }
    fn accepting(&self) -> (RawFd, Option<Moment>) {
        self.0.accepting()
    }
    fn fail_closes(&mut self, count: u32) {
        self.0.fail_closes(count);
    }
}

impl Io<Item> for Annexed {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr> {
        self.0.listen(spec)
    }
    fn accept_pause(&mut self) {
        self.0.accept_pause();
    }
    fn accept_resume(&mut self) {
        self.0.accept_resume();
    }
    fn accept_stop(&mut self) {
        self.0.accept_stop();
    }
    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<Conn> {
        self.0.connect(to, from)
    }
    fn read(&mut self, conn: Conn, mode: Read) {
        self.0.read(conn, mode);
    }
    fn release(&mut self, lease: Lease) {
        self.0.release(lease);
    }
    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        self.0.send(conn, buffer);
    }
    fn close(&mut self, conn: Conn, how: Close) {
        self.0.close(conn, how);
    }
    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<Item>) {
        self.0.hand_over(conn, to, item);
    }
    fn wake(&mut self, shard: ShardId) {
        self.0.wake(shard);
    }
    fn turn(&mut self, events: &mut Vec<Event<Item>>, deadline: Option<Moment>) {
        self.0.turn(events, deadline);
    }
    fn now(&self) -> Moment {
        self.0.now()
    }
    fn room(&self) -> usize {
        self.0.room()
    }
    fn stats(&self) -> IoStats {
        self.0.stats()
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// Runs each named generic test on each driver.
macro_rules! on_each_driver {
    ($($name:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $name() { super::$name::<crate::io::Epoll<crate::io::tests::Item>>(); })*
        }
        mod uring {
            $(#[test] fn $name() { super::$name::<crate::io::Uring<crate::io::tests::Item>>(); })*
        }
        mod annexed {
            $(#[test] fn $name() { super::$name::<crate::io::tests::Annexed>(); })*
        }
    };
}
pub(super) use on_each_driver;

pub(super) fn small() -> DriverOptions {
    DriverOptions { connections_max: 1024, receive_buffers: 64, ..DriverOptions::default() }
}

/// A driver, its listener and the events that no test has asked for yet.
pub(super) struct Rig<D> {
    pub io: D,
    pub addr: SocketAddr,
    pub queue: VecDeque<Event<Item>>,
}

/// A wait longer than this is a test that hangs.
const PATIENCE_MS: u64 = 30_000;

impl<D: Subject> Rig<D> {
    pub fn new() -> Self {
        Self::with(&small())
    }

    pub fn with(options: &DriverOptions) -> Self {
        let mut io = D::build(options);
        let spec = ListenSpec::new("127.0.0.1:0".parse().unwrap(), 1024);
        let addr = io.listen(spec).unwrap();
        Rig { io, addr, queue: VecDeque::new() }
    }

    pub fn turn(&mut self, deadline: Option<Moment>) {
        let mut events = Vec::new();
        self.io.turn(&mut events, deadline);
        self.queue.extend(events);
    }

    /// Lets everything happen that happens by itself.
    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.turn(None);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next event that `wanted` takes; others stay in the queue.
    pub fn find<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Event<Item>) -> Option<T>,
    ) -> (T, Event<Item>) {
        let deadline = self.io.now().plus_ms(PATIENCE_MS);
        let mut seen = 0;
        loop {
            while seen < self.queue.len() {
                if let Some(found) = wanted(&self.queue[seen]) {
                    return (found, self.queue.remove(seen).unwrap());
                }
                seen += 1;
            }
            assert!(self.io.now() < deadline, "no {what} came; there are {:?}", self.queue);
            self.turn(Some(deadline));
        }
    }

    pub fn accepted(&mut self) -> Conn {
        self.find("Accepted", |e| match e {
            Event::Accepted { conn, .. } => Some(*conn),
            _ => None,
        })
        .0
    }

    /// A client and the connection that it became.
    pub fn pair(&mut self) -> (TcpStream, Conn) {
        let client = TcpStream::connect(self.addr).unwrap();
        let conn = self.accepted();
        (client, conn)
    }

    /// The bytes of the next `Data`, released.
    pub fn data(&mut self, conn: Conn) -> Vec<u8> {
        let lease = self.lease(conn);
        let bytes = lease.to_vec();
        self.io.release(lease);
        bytes
    }

    pub fn lease(&mut self, conn: Conn) -> Lease {
        let is = |e: &Event<Item>| matches!(e, Event::Data { conn: c, .. } if *c == conn).then_some(());
        match self.find("Data", is).1 {
            Event::Data { lease, .. } => lease,
            other => panic!("{other:?}"),
        }
    }

    pub fn ended(&mut self, conn: Conn) -> ReadEnd {
        self.find("ReadEnded", |e| match e {
            Event::ReadEnded { conn: c, why } if *c == conn => Some(*why),
            _ => None,
        })
        .0
    }

    pub fn ready(&mut self, conn: Conn) {
        self.find("Ready", |e| matches!(e, Event::Ready { conn: c } if *c == conn).then_some(()));
    }

    pub fn sent(&mut self, conn: Conn) -> Option<i32> {
        self.find("Sent", |e| match e {
            Event::Sent { conn: c, error, buffer } if *c == conn => {
                assert!(buffer.is_empty() && buffer.capacity() > 0);
                Some(*error)
            }
            _ => None,
        })
        .0
    }

    pub fn closed(&mut self, conn: Conn) {
        self.find("Closed", |e| matches!(e, Event::Closed { conn: c } if *c == conn).then_some(()));
    }

    /// Reads `len` bytes with streams of the given credit.
    pub fn read_exactly(&mut self, conn: Conn, len: usize, credit: u32) -> Vec<u8> {
        let mut all = Vec::new();
        let mut armed = false;
        while all.len() < len {
            if !armed {
                self.io.read(conn, Read::Stream { credit });
            }
            armed = true;
            let next = |e: &Event<Item>| match e {
                Event::Data { conn: c, .. } | Event::ReadEnded { conn: c, .. } => (*c == conn).then_some(()),
                _ => None,
            };
            match self.find("Data", next).1 {
                Event::Data { lease, .. } => {
                    all.extend_from_slice(&lease);
                    self.io.release(lease);
                }
                Event::ReadEnded { why: ReadEnd::Credit, .. } => armed = false,
                other => panic!("after {} of {len} bytes: {other:?}", all.len()),
            }
        }
        all
    }

    pub fn nothing_happens(&mut self) {
        self.settle();
        let loud: Vec<_> = self.queue.iter().filter(|e| !matches!(e, Event::Woken)).collect();
        assert!(loud.is_empty(), "{loud:?}");
    }

    /// The connection still works in both directions.
    pub fn echo(&mut self, client: &mut TcpStream, conn: Conn, text: &[u8]) {
        client.write_all(text).unwrap();
        let mut got = Vec::new();
        while got.len() < text.len() {
            self.io.read(conn, Read::Once);
            got.extend(self.data(conn));
        }
        assert_eq!(got, text);
        self.io.send(conn, got);
        assert_eq!(self.sent(conn), None);
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    }
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 251 % 239) as u8).collect()
}

/// Makes the client's close a reset.
pub(super) fn resets(client: &TcpStream) {
    net::reset_on_close(client.as_raw_fd());
}

fn accept_and_echo<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let mut client = TcpStream::connect(rig.addr).unwrap();
    let local = client.local_addr().unwrap();
    let ((conn, peer), _) = rig.find("Accepted", |e| match e {
        Event::Accepted { conn, listener: 0, peer } => Some((*conn, *peer)),
        _ => None,
    });
    assert_eq!(peer, Some(local));
    rig.echo(&mut client, conn, b"hello");
    rig.echo(&mut client, conn, b"again");
    drop(client);
    rig.io.read(conn, Read::Once);
    assert_eq!(rig.ended(conn), ReadEnd::Eof);
    rig.io.close(conn, Close::Now);
    rig.closed(conn);
    rig.nothing_happens();
    let stats = rig.io.stats();
    assert_eq!((stats.accepts, stats.sends), (1, 2));
    assert_eq!((stats.bytes_in, stats.bytes_out), (10, 10));
}

fn peers_may_stay_unnamed<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let spec = ListenSpec { peer_address: false, ..ListenSpec::new("127.0.0.1:0".parse().unwrap(), 8) };
    let unnamed = rig.io.listen(spec).unwrap();
    let _client = TcpStream::connect(unnamed).unwrap();
    rig.find("Accepted", |e| matches!(e, Event::Accepted { peer: None, .. }).then_some(()));
}

fn five_hundred_connections<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let mut clients: Vec<_> = (0..500u32)
        .map(|i| {
            let mut client = TcpStream::connect(rig.addr).unwrap();
            client.write_all(&i.to_le_bytes()).unwrap();
            client
        })
        .collect();
    let mut echoed = 0;
    while echoed < clients.len() {
        let deadline = rig.io.now().plus_ms(PATIENCE_MS);
        rig.turn(Some(deadline));
        assert!(rig.io.now() < deadline, "{echoed} of them were answered {:?}", rig.io.stats());
        echoed += drain_echo(&mut rig);
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(u32::from_le_bytes(back), i as u32);
    }
}

/// Answers everything that is in the queue; returns how many connections were answered.
fn drain_echo<D: Subject>(rig: &mut Rig<D>) -> usize {
    let mut echoed = 0;
    while let Some(event) = rig.queue.pop_front() {
        match event {
            Event::Accepted { conn, .. } => rig.io.read(conn, Read::Once),
            Event::Data { conn, lease } => {
                assert_eq!(lease.len(), 4);
                rig.io.send(conn, lease.to_vec());
                rig.io.release(lease);
            }
            Event::Sent { error: None, .. } => echoed += 1,
            Event::Woken => {}
            other => panic!("{other:?}"),
        }
    }
    echoed
}

fn shards_wake_each_other<D: Subject>() {
    let (to_main, from_shard) = mpsc::channel();
    let (to_shard, from_main) = mpsc::channel::<Vec<Address<Item>>>();
    let shard = thread::spawn(move || {
        let mut rig = Rig::<D>::new();
        to_main.send(rig.io.address()).unwrap();
        let peers = from_main.recv().unwrap();
        rig.io.set_peers(peers);
        for _ in 0..3 {
            rig.find("Woken", |e| matches!(e, Event::Woken).then_some(()));
            rig.queue.clear();
            rig.io.wake(0);
            rig.turn(None);
        }
    });
    let mut rig = Rig::<D>::new();
    let peers = vec![rig.io.address(), from_shard.recv().unwrap()];
    rig.io.set_peers(peers.clone());
    to_shard.send(peers).unwrap();
    for _ in 0..3 {
        rig.io.wake(1);
        rig.find("Woken", |e| matches!(e, Event::Woken).then_some(()));
        rig.queue.clear();
    }
    shard.join().unwrap();
    assert_eq!(rig.io.stats().wakes_sent, 3);
}

fn foreign_threads_wake_a_sleeping_shard<D: Subject>() {
    let mut rig = Rig::<D>::new();
    for _ in 0..5 {
        rig.settle();
        rig.queue.clear();
        let waker = rig.io.waker();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
        rig.find("Woken", |e| matches!(e, Event::Woken).then_some(()));
        thread.join().unwrap();
    }
}

fn a_turn_ends_at_its_deadline<D: Subject>() {
    let mut rig = Rig::<D>::new();
    rig.settle();
    let deadline = rig.io.now().plus_ms(30);
    while rig.io.now() < deadline {
        rig.turn(Some(deadline));
    }
    assert!(rig.io.stats().enters < 100, "it slept: {:?}", rig.io.stats());
    rig.nothing_happens();
}

on_each_driver!(
    accept_and_echo,
    peers_may_stay_unnamed,
    five_hundred_connections,
    shards_wake_each_other,
    foreign_threads_wake_a_sleeping_shard,
    a_turn_ends_at_its_deadline,
);
