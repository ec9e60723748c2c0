//! The broker as a process, over loopback sockets and on both drivers: a round of messages, all delivered and
//! acknowledged, from one client thread that holds all connections.
//!
//! One element is one delivery (or one connect). The time is that of the round, client included: for what the broker
//! alone costs, `benches/compare` reads its CPU time.

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::{Broker, DRIVERS};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::codec::{AckKind, Framed, PacketId, Version, frame};
use ringmq::message::QoS;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::packets;

const VERSION: Version = Version::V311;
/// A round that takes longer than this lost something.
const ROUND: Duration = Duration::from_secs(30);

struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    fn connect(to: SocketAddr, name: &str) -> Client {
        let stream = TcpStream::connect(to).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket takes options");
        stream.set_nonblocking(true).expect("a socket takes options");
        let mut client = Client { stream, inbox: Vec::new() };
        client.send(&packets::connect(VERSION, name));
        client.await_packet(2);
        client
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send(&packets::subscribe(VERSION, filter, qos));
        self.await_packet(9);
    }

    /// Writes everything, however little the socket takes at a time.
    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("the broker closed a connection: {e}"),
            }
        }
    }

    /// Reads what is there and answers it; how many messages and acknowledgements of its own it got.
    fn serve(&mut self) -> (usize, usize) {
        let mut some = [0; 16_384];
        match self.stream.read(&mut some) {
            Ok(0) => panic!("the broker closed a connection"),
            Ok(n) => self.inbox.extend_from_slice(&some[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return (0, 0),
            Err(e) => panic!("the broker closed a connection: {e}"),
        }
        let (mut used, mut messages, mut acknowledged) = (0, 0, 0);
        let mut answers = Vec::new();
        while let Ok(Framed::Packet { header, total }) = frame(&self.inbox[used..], u32::MAX) {
            let packet = &self.inbox[used..used + total];
            used += total;
            let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let mut answer = |kind, id| {
                let id = PacketId::new(id).expect("the broker numbers packets from 1");
                answers.extend(packets::ack(VERSION, kind, id));
            };
            match packet[0] >> 4 {
                3 => {
                    messages += 1;
                    let id_at = header + 2 + usize::from(number(header));
                    match packet[0] >> 1 & 3 {
                        0 => {}
                        1 => answer(AckKind::PubAck, number(id_at)),
                        _ => answer(AckKind::PubRec, number(id_at)),
                    }
                }
                4 | 7 => acknowledged += 1,
                5 => answer(AckKind::PubRel, number(header)),
                6 => answer(AckKind::PubComp, number(header)),
                _ => {}
            }
        }
        self.inbox.drain(..used);
        self.send(&answers);
        (messages, acknowledged)
    }

    fn await_packet(&mut self, kind: u8) {
        let until = Instant::now() + ROUND;
        loop {
            let mut some = [0; 256];
            match self.stream.read(&mut some) {
                Ok(n) if n > 0 && some[0] >> 4 == kind => return,
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                other => panic!("instead of packet {kind}: {other:?} {:?}", some[0]),
            }
            assert!(Instant::now() < until, "no packet {kind} in time");
        }
    }
}

/// Publishers with what each sends in a round, subscribers, and what a round brings.
struct Crowd {
    publishers: Vec<(Client, Vec<u8>)>,
    subscribers: Vec<Client>,
    deliveries: usize,
    acknowledgements: usize,
}

impl Crowd {
    /// `filters` for each subscriber, `topics` for each publisher, `window` messages of each in a round.
    fn gather(
        to: SocketAddr,
        filters: &[String],
        topics: &[String],
        qos: QoS,
        window: u16,
        deliveries: usize,
    ) -> Crowd {
        let subscribers = filters.iter().enumerate().map(|(n, filter)| {
            let mut client = Client::connect(to, &format!("sub-{n}"));
            client.subscribe(filter, qos);
            client
        });
        let publishers = topics.iter().enumerate().map(|(n, topic)| {
            let payload = [b'x'; packets::PAYLOAD_BYTES];
            let round =
                (1..=window).flat_map(|id| packets::publish(VERSION, topic, qos, id, &payload)).collect();
            (Client::connect(to, &format!("pub-{n}")), round)
        });
        let acknowledgements = if qos == QoS::AtMostOnce { 0 } else { topics.len() * usize::from(window) };
        let (subscribers, publishers) = (subscribers.collect(), publishers.collect());
        Crowd { publishers, subscribers, deliveries, acknowledgements }
    }

    fn round(&mut self) {
        let until = Instant::now() + ROUND;
        for (client, round) in &mut self.publishers {
            client.send(round);
        }
        let (mut messages, mut acknowledged) = (0, 0);
        while messages < self.deliveries || acknowledged < self.acknowledgements {
            let publishers = self.publishers.iter_mut().map(|(client, _)| client);
            let (before, acks) = (messages, acknowledged);
            for client in publishers.chain(&mut self.subscribers) {
                let (m, a) = client.serve();
                (messages, acknowledged) = (messages + m, acknowledged + a);
            }
            if (messages, acknowledged) == (before, acks) {
                assert!(Instant::now() < until, "{messages} of {} deliveries came", self.deliveries);
                std::thread::yield_now();
            }
        }
        assert_eq!((messages, acknowledged), (self.deliveries, self.acknowledgements));
    }
}

fn names(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(name).collect()
}

fn messages(group: &mut BenchmarkGroup<WallTime>, broker: &Broker, driver: &str) {
    let one = |n: usize| format!("bench/{n}/up");
    let all = |_| "bench/all/up".to_owned();
    let flows = [
        ("p2p 50:50", names(50, one), names(50, one), 16, 800),
        ("fan-in 50:1", names(1, |_| "in/+".into()), names(50, |n| format!("in/{n}")), 4, 200),
        ("fan-out 1:200", names(200, all), names(1, all), 4, 800),
        ("shared 50:5", names(5, |_| "$share/g/work".into()), names(50, |_| "work".into()), 4, 200),
    ];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for (name, filters, topics, window, deliveries) in &flows {
            // Clients of the flow before are gone: their identifiers are taken over.
            let mut crowd = Crowd::gather(broker.addr(), filters, topics, qos, *window, *deliveries);
            group.throughput(Throughput::Elements(*deliveries as u64));
            let id = BenchmarkId::new(format!("{driver}, {name}"), format!("QoS {}", qos as u8));
            group.bench_function(id, |b| b.iter(|| crowd.round()));
        }
    }
}

/// A new subscriber gets 1,000 retained messages.
fn retained(group: &mut BenchmarkGroup<WallTime>, broker: &Broker, driver: &str) {
    let mut publisher = Client::connect(broker.addr(), "keeper");
    for n in 0..1_000 {
        let mut packet = packets::publish(
            VERSION,
            &format!("kept/{n}"),
            QoS::AtLeastOnce,
            1,
            &[b'x'; packets::PAYLOAD_BYTES],
        );
        packet[0] |= 1;
        publisher.send(&packet);
        publisher.await_packet(4);
    }
    group.throughput(Throughput::Elements(1_000));
    let mut reader = Client::connect(broker.addr(), "reader");
    group.bench_function(BenchmarkId::new(format!("{driver}, retained"), "1,000 to one"), |b| {
        b.iter(|| {
            reader.send(&packets::subscribe(VERSION, "kept/#", QoS::AtMostOnce));
            let mut messages = 0;
            while messages < 1_000 {
                messages += reader.serve().0;
            }
        });
    });
}

fn connects(group: &mut BenchmarkGroup<WallTime>, broker: &Broker, driver: &str) {
    group.throughput(Throughput::Elements(100));
    group.bench_function(BenchmarkId::new(format!("{driver}, connect and leave"), "100 clients"), |b| {
        b.iter(|| (0..100).map(|n| Client::connect(broker.addr(), &format!("new-{n}"))).collect::<Vec<_>>());
    });
}

fn brokers(c: &mut Criterion) {
    let mut group = c.benchmark_group("broker");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 1, &[]);
        messages(&mut group, &broker, driver.name());
        retained(&mut group, &broker, driver.name());
        connects(&mut group, &broker, driver.name());
        broker.stop();
    }
    group.finish();
}

criterion_group!(benches, brokers);
criterion_main!(benches);
