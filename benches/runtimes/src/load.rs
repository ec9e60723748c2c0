//! The client: one thread on ringmq's own driver, the same for all servers.

use crate::frames::{ECHO, FRAME, PUBLISH, SUBSCRIBE, frames};
use ringmq::io::{Conn, Driver, DriverOptions, Event, Io, IoMode, Read, ReadEnd, choose};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Who sends what.
pub struct Shape {
    /// For the table.
    pub name: &'static str,
    /// Connections that receive.
    receivers: usize,
    /// Frames under way: of each connection, or of the publisher.
    window: usize,
    /// Whether one more connection publishes to all.
    fan_out: bool,
}

/// What is measured of each server.
pub const SHAPES: &[Shape] = &[
    Shape { name: "echo, 1,000 connections", receivers: 1_000, window: 1, fan_out: false },
    Shape { name: "echo, 100 connections, 32 under way", receivers: 100, window: 32, fan_out: false },
    Shape { name: "one to 1,000", receivers: 1_000, window: 4, fan_out: true },
];

/// Time before measuring begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// Time for the server to listen and for all to connect.
const PATIENCE: Duration = Duration::from_secs(10);
const CREDIT: u32 = 64 << 10;

#[derive(Default)]
struct Peer {
    /// Bytes of a frame that has not all come.
    partial: usize,
    /// Frames to send once the send under way has ended.
    waiting: usize,
    sending: bool,
}

struct Load<'a> {
    io: Driver<()>,
    peers: Vec<Peer>,
    shape: &'a Shape,
    /// Once it has connected.
    publisher: Option<Conn>,
    /// Frames that arrived.
    arrived: u64,
    /// Frames that the publisher has sent.
    published: u64,
    subscribed: usize,
}

/// CPU nanoseconds of the process for one frame that arrived.
pub fn run(at: SocketAddr, pid: u32, shape: &Shape, measured: Duration) -> f64 {
    let chosen = choose(IoMode::Uring).expect("io_uring is needed for the load");
    let options = DriverOptions::default();
    let io = Driver::new(&chosen, &options).expect("the driver passed its test");
    let mut load =
        Load { io, peers: Vec::new(), shape, publisher: None, arrived: 0, published: 0, subscribed: 0 };
    let mut events = Vec::new();
    load.connect(at, &mut events);
    load.turn_for(WARM_UP, &mut events);
    let (cpu_ns, arrived) = (cpu_ns_of(pid), load.arrived);
    load.turn_for(measured, &mut events);
    let (cpu_ns, arrived) = (cpu_ns_of(pid) - cpu_ns, load.arrived - arrived);
    assert!(arrived > 0, "{}: nothing arrived", shape.name);
    cpu_ns as f64 / arrived as f64
}

/// Nanoseconds that all threads of a process have run.
fn cpu_ns_of(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
    let ran = tasks.flatten().map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default()
    });
    ran.sum()
}

impl Load<'_> {
    fn connect(&mut self, at: SocketAddr, events: &mut Vec<Event<()>>) {
        let began = Instant::now();
        while std::net::TcpStream::connect(at).is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not listen on {at}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let all = self.shape.receivers + usize::from(self.shape.fan_out);
        for index in 0..all {
            let conn = self.io.connect(at, None).expect("as many connections as files may be open");
            self.peers.resize_with(self.peers.len().max(conn as usize + 1), Peer::default);
            if index >= self.shape.receivers {
                self.publisher = Some(conn);
            }
            let mut connected = false;
            while !connected {
                assert!(began.elapsed() < PATIENCE, "{} of {all} are connected", index + 1);
                let mut now = std::mem::take(events);
                self.io.turn(&mut now, Some(self.io.now().plus_ms(100)));
                for event in now.drain(..) {
                    match event {
                        Event::Connected { error, .. } => {
                            assert_eq!(error, None, "errno of a connect");
                            connected = true;
                        }
                        other => self.handle(other),
                    }
                }
                *events = now;
            }
            self.io.read(conn, Read::Stream { credit: CREDIT });
            if index < self.shape.receivers {
                self.send(conn, self.first());
            }
        }
        while self.shape.fan_out && self.subscribed < self.shape.receivers {
            assert!(began.elapsed() < PATIENCE, "{} have subscribed", self.subscribed);
            self.turn_for(Duration::from_millis(10), events);
        }
    }

    /// Frames of a receiver's first send.
    fn first(&self) -> usize {
        if self.shape.fan_out { 1 } else { self.shape.window }
    }

    fn turn_for(&mut self, time: Duration, events: &mut Vec<Event<()>>) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.io.turn(events, Some(self.io.now().plus_ms(10)));
            for event in events.drain(..) {
                self.handle(event);
            }
            if self.shape.fan_out && self.subscribed == self.shape.receivers {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        let complete = self.arrived / self.shape.receivers as u64;
        let Some(publisher) = self.publisher else { return };
        let more = (complete + self.shape.window as u64).saturating_sub(self.published);
        if more > 0 {
            self.published += more;
            self.send(publisher, more as usize);
        }
    }

    fn send(&mut self, conn: Conn, count: usize) {
        let peer = &mut self.peers[conn as usize];
        if peer.sending {
            peer.waiting += count;
            return;
        }
        peer.sending = true;
        let kind = match self.shape.fan_out {
            false => ECHO,
            true if Some(conn) == self.publisher => PUBLISH,
            true => SUBSCRIBE,
        };
        self.io.send(conn, frames(kind, count));
    }

    fn handle(&mut self, event: Event<()>) {
        match event {
            Event::Data { conn, lease } => {
                let bytes = lease.len();
                self.io.release(lease);
                self.received(conn, bytes);
            }
            Event::ReadEnded { conn, why: ReadEnd::Credit } => {
                self.io.read(conn, Read::Stream { credit: CREDIT });
            }
            Event::ReadEnded { why, .. } => panic!("the server closed a connection: {why:?}"),
            Event::Sent { conn, error, .. } => {
                assert_eq!(error, None, "errno of a send");
                let peer = &mut self.peers[conn as usize];
                peer.sending = false;
                let waiting = std::mem::take(&mut peer.waiting);
                if waiting > 0 {
                    self.send(conn, waiting);
                }
            }
            _ => {}
        }
    }

    fn received(&mut self, conn: Conn, bytes: usize) {
        let peer = &mut self.peers[conn as usize];
        let bytes = peer.partial + bytes;
        peer.partial = bytes % FRAME;
        let count = bytes / FRAME;
        if self.shape.fan_out && self.subscribed < self.shape.receivers {
            self.subscribed += count;
            return;
        }
        self.arrived += count as u64;
        if !self.shape.fan_out && count > 0 {
            self.send(conn, count);
        }
    }
}
