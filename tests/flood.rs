//! Shards that flood each other, and a thousand publishers to one client that does not read: nothing
//! deadlocks, everyone else's traffic goes on, memory stays bounded, and losses are counted.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod common;
#[path = "common/fleet.rs"]
mod fleet;
#[path = "common/totals.rs"]
mod totals;

use common::{Broker, DRIVERS, Driver, Login};
use fleet::Client;
use ringmq::codec::{
    AckKind, Filters, Packet, PacketId, Properties, ReasonCode, Subscribe, SubscribeOptions, Version,
};
use ringmq::message::QoS;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;
use totals::Totals;

/// Far above what anything here takes: it ends a test that has failed.
const DEADLINE: Duration = Duration::from_secs(180);
/// Clients that flood each other.
const CLIENTS: usize = 40;
/// Messages of each of them, before its last one.
const MESSAGES: usize = 1_000;
/// Topics of the flood.
const TOPICS: usize = 8;
/// Messages that a client of the flood has unacknowledged.
const WINDOW: usize = 20;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("it goes on") });
}

async fn subscribe(client: &mut Client, filters: &[String]) {
    let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    client.push(&Packet::Subscribe(Subscribe { packet_id, properties, filters: Filters::new(&filters) }));
    let suback = client.next().await;
    match client.decode(&suback) {
        Packet::SubAck(suback) => assert!(suback.codes.iter().all(|code| *code < 0x80)),
        other => panic!("SUBACK, got {other:?}"),
    }
}

/// The two topics that a client of the flood subscribes to.
fn wanted(n: usize) -> [usize; 2] {
    [n % TOPICS, (n * 3 + 1 + n / TOPICS) % TOPICS]
}

/// The topic that it publishes to.
fn target(n: usize) -> usize {
    (n + 1) % TOPICS
}

/// What a client of the flood has received.
#[derive(Default)]
struct Heard {
    /// By publisher: the last number. QoS 1 and 2 come without gaps, QoS 0 in order.
    last: HashMap<usize, usize>,
    qos0: u64,
    finished: usize,
}

impl Heard {
    fn message(&mut self, me: usize, payload: &[u8]) {
        let text = std::str::from_utf8(payload).expect("text");
        let (from, number) = text.trim_end_matches('.').split_once(' ').expect("publisher and number");
        let (from, number): (usize, usize) = (from.parse().unwrap(), number.parse().unwrap());
        let before = self.last.insert(from, number);
        let next = before.map_or(0, |n| n + 1);
        if QOS[from % 3] == QoS::AtMostOnce && number < MESSAGES {
            assert!(number >= next, "{me} got {number} of {from} after {before:?}");
            self.qos0 += 1;
        } else if QOS[from % 3] != QoS::AtMostOnce {
            assert_eq!(number, next, "{me} got this of {from} after {before:?}");
        }
        self.finished += usize::from(number == MESSAGES);
    }
}

/// Publishes all of its messages, answers all that it gets, until all publishers of its topics are done.
/// Returns how many messages of QoS 0 it got.
async fn flooder(mut client: Client, me: usize) -> u64 {
    let topic = format!("flood/{}", target(me));
    let mut heard = Heard::default();
    let mut expected: Vec<usize> = wanted(me).to_vec();
    expected.dedup();
    let sources = (0..CLIENTS).filter(|n| expected.contains(&target(*n))).count();
    let (mut sent, mut window) = (0, 0);
    while sent <= MESSAGES || window > 0 || heard.finished < sources || client.unsent() > 0 {
        while sent <= MESSAGES && window < WINDOW && client.unsent() < 16_384 {
            // The last one is QoS 1: it follows all others of this client.
            let qos = if sent == MESSAGES { QoS::AtLeastOnce } else { QOS[me % 3] };
            client.push_publish(&topic, format!("{me} {sent}{}", ".".repeat(200)).as_bytes(), qos);
            sent += 1;
            window += usize::from(qos != QoS::AtMostOnce);
        }
        assert!(client.turn().await, "the broker keeps the connection");
        while let Some(bytes) = client.take() {
            match client.decode(&bytes) {
                Packet::Publish(p) => {
                    heard.message(me, p.payload);
                    match (p.qos, p.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => client.push_ack(AckKind::PubAck, id),
                        (QoS::ExactlyOnce, Some(id)) => client.push_ack(AckKind::PubRec, id),
                        _ => {}
                    }
                }
                Packet::Ack(ack) => {
                    assert!(!ack.code.is_error(), "{ack:?}");
                    match ack.kind {
                        AckKind::PubAck | AckKind::PubComp => window -= 1,
                        AckKind::PubRec => client.push_ack(AckKind::PubRel, ack.packet_id),
                        AckKind::PubRel => client.push_ack(AckKind::PubComp, ack.packet_id),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    heard.qos0
}

fn flood(driver: Driver, shards: usize) {
    let settings =
        [("log.level", "debug"), ("mqtt.max_mqueue", "100000"), ("mqtt.max_mqueue_bytes", "1000000000")];
    let broker = Broker::start(driver, shards, &settings);
    let addr = broker.addr();
    let mut received0 = 0;
    run(async {
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let version = if n % 2 == 0 { Version::V5 } else { Version::V311 };
            let mut client = Client::connect(addr, &Login::new(version, &format!("flooder-{n}")), None).await;
            subscribe(&mut client, &wanted(n).map(|topic| format!("flood/{topic}"))).await;
            clients.push(client);
        }
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let mut tasks = JoinSet::new();
                for (n, client) in clients.into_iter().enumerate() {
                    tasks.spawn_local(flooder(client, n));
                }
                while let Some(got) = tasks.join_next().await {
                    received0 += got.expect("a flooder ends well");
                }
            })
            .await;
    });
    let subscribers: Vec<usize> =
        (0..TOPICS).map(|topic| (0..CLIENTS).filter(|n| wanted(*n).contains(&topic)).count()).collect();
    let sources0 = (0..CLIENTS).filter(|n| QOS[n % 3] == QoS::AtMostOnce);
    let expected0: usize = sources0.map(|n| MESSAGES * subscribers[target(n)]).sum();
    let totals = Totals::of(broker);
    // Every message of QoS 1 and 2 came, or a flooder would wait for it; of QoS 0 each is accounted for.
    totals.expect_only(&["output_full", "session_ended"]);
    assert_eq!(received0 + totals.dropped("output_full"), expected0 as u64);
    assert_eq!(totals.counter("decode_errors"), 0);
    assert!(totals.counter("data_out") > 0, "messages crossed shards");
}

#[test]
fn two_shards_that_flood_each_other_do_not_deadlock_and_lose_nothing() {
    for driver in DRIVERS {
        flood(*driver, 2);
    }
}

#[test]
fn eight_shards_that_flood_each_other_do_not_deadlock_and_lose_nothing() {
    for driver in DRIVERS {
        flood(*driver, 8);
    }
}

/// Publishers to the client that does not read.
const PUBLISHERS: usize = 1_000;
/// Messages of QoS 1 from each.
const PROMISED: usize = 10;
/// Messages of QoS 0 from each, in between.
const UNPROMISED: usize = 8;
/// Messages that two others exchange meanwhile.
const ROUND_TRIPS: usize = 300;
/// Clients that end the flood, so many that each shard has some: what a shard sends to another keeps its order.
const ENDERS: usize = 64;
/// What the broker may need for all of it, above what it needed when all were connected.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

fn resident_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the broker runs");
    let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    pages.expect("the second field is a number of pages") * 4_096
}

/// Publishes with one message unacknowledged at a time.
async fn presser(mut client: Client, me: usize) {
    for number in 0..PROMISED {
        let mut payload = format!("1 {me} {number} ").into_bytes();
        payload.resize(256, b'.');
        client.push_publish("stall/x", &payload, QoS::AtLeastOnce);
        if number < UNPROMISED {
            let mut payload = format!("0 {me} {number} ").into_bytes();
            payload.resize(2_048, b'.');
            client.push_publish("stall/x", &payload, QoS::AtMostOnce);
        }
        let answer = client.next().await;
        assert!(
            matches!(client.decode(&answer), Packet::Ack(ack) if ack.kind == AckKind::PubAck && !ack.code.is_error())
        );
    }
    client.flush().await;
    // Its answer says that all before it was read.
    client.push(&Packet::PingReq);
    let answer = client.next().await;
    assert!(matches!(client.decode(&answer), Packet::PingResp));
}

async fn bystanders(mut from: Client, mut to: Client) {
    for number in 0..ROUND_TRIPS {
        from.push_publish("by/stander", number.to_string().as_bytes(), QoS::AtLeastOnce);
        let answer = from.next().await;
        assert!(matches!(from.decode(&answer), Packet::Ack(_)));
        let message = to.next().await;
        let Packet::Publish(p) = to.decode(&message) else { panic!("{message:?}") };
        assert_eq!(p.payload, number.to_string().as_bytes());
        to.push_ack(AckKind::PubAck, p.packet_id.expect("QoS 1"));
    }
    to.flush().await;
}

/// Reads at last: everything that the broker kept, in the order of each publisher. Returns how many of QoS 0
/// and of QoS 1.
async fn awake(mut client: Client) -> [u64; 2] {
    let (mut got, mut ends) = ([0; 2], 0);
    let mut last: HashMap<(usize, usize), usize> = HashMap::new();
    loop {
        let bytes = client.next().await;
        let Packet::Publish(p) = client.decode(&bytes) else { panic!("PUBLISH, got {bytes:02x?}") };
        if let Some(id) = p.packet_id {
            client.push_ack(AckKind::PubAck, id);
        }
        if p.topic == "stall/end" {
            ends += 1;
            if ends == ENDERS {
                client.flush().await;
                return got;
            }
            continue;
        }
        let text = std::str::from_utf8(p.payload).expect("text");
        let numbers: Vec<usize> = text.split(' ').take(3).map(|n| n.parse().unwrap()).collect();
        let before = last.insert((numbers[0], numbers[1]), numbers[2]);
        assert!(before.is_none_or(|before| before < numbers[2]), "{numbers:?} after {before:?}");
        got[numbers[0]] += 1;
    }
}

#[test]
fn a_client_that_does_not_read_stops_nobody_and_its_losses_are_counted() {
    for driver in DRIVERS {
        stall(*driver, 4);
    }
}

fn stall(driver: Driver, shards: usize) {
    let settings = [("log.level", "debug"), ("mqtt.max_output_bytes", "65536")];
    let broker = Broker::start(driver, shards, &settings);
    let (addr, pid) = (broker.addr(), broker.pid());
    let mut got = [0; 2];
    run(async {
        let login = |name: &str| Login::new(Version::V311, name);
        let mut stalled = Client::connect(addr, &login("stalled"), Some(4_096)).await;
        subscribe(&mut stalled, &["stall/#".to_owned()]).await;
        let from = Client::connect(addr, &login("bystander-from"), None).await;
        let mut to = Client::connect(addr, &login("bystander-to"), None).await;
        subscribe(&mut to, &["by/stander".to_owned()]).await;
        let mut enders = Vec::new();
        for n in 0..ENDERS {
            enders.push(Client::connect(addr, &login(&format!("ender-{n}")), None).await);
        }
        let mut publishers = Vec::new();
        for n in 0..PUBLISHERS {
            publishers.push(Client::connect(addr, &login(&format!("presser-{n}")), None).await);
        }
        let before = resident_bytes(pid);
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let mut tasks = JoinSet::new();
                for (n, client) in publishers.into_iter().enumerate() {
                    tasks.spawn_local(presser(client, n));
                }
                tasks.spawn_local(bystanders(from, to));
                while let Some(ended) = tasks.join_next().await {
                    ended.expect("everyone else goes on");
                }
            })
            .await;
        let grown = resident_bytes(pid).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than before");
        let reader = async { got = awake(stalled).await };
        let end = async {
            // Behind everything that its shard has sent before, and behind everything that is queued.
            for ender in &mut enders {
                ender.push_publish("stall/end", b"", QoS::AtLeastOnce);
                let answer = ender.next().await;
                assert!(matches!(ender.decode(&answer), Packet::Ack(_)));
            }
        };
        tokio::join!(reader, end);
    });
    let totals = Totals::of(broker);
    let promised = (PUBLISHERS * PROMISED) as u64;
    assert_eq!(got[1] + totals.dropped("queue_full"), promised, "each promised message came or is counted");
    assert!(got[1] >= 1_000 && got[1] <= 1_000 + 32, "the queue and the window, and no more: {}", got[1]);
    assert_eq!(got[0] + totals.dropped("output_full"), (PUBLISHERS * UNPROMISED) as u64);
    assert!(totals.dropped("output_full") > 0, "the output of a client that does not read has a bound");
    totals.expect_only(&["queue_full", "output_full", "session_ended"]);
}

/// Sizes of messages around `mqtt.max_output_bytes` of [`around_the_bound`]: when the smaller one is stuck in the
/// socket, there is room for one more, and the larger one alone exceeds the bound.
const SIZES: [usize; 2] = [65_000, 66_000];

/// A broker, a subscriber to `big` whose socket takes little, and a publisher.
async fn around_the_bound(driver: Driver) -> (Broker, Client, Client) {
    let settings = [("log.level", "debug"), ("mqtt.max_output_bytes", "65536")];
    let broker = Broker::start(driver, 1, &settings);
    let mut reader = Client::connect(broker.addr(), &Login::new(Version::V5, "reader"), Some(4_096)).await;
    subscribe(&mut reader, &["big".to_owned()]).await;
    let publisher = Client::connect(broker.addr(), &Login::new(Version::V5, "publisher"), None).await;
    (broker, reader, publisher)
}

/// Publishes messages of QoS 0, each in a tick of its own, until the reader's socket is full beyond doubt.
async fn fill(publisher: &mut Client) {
    for n in 0..120 {
        publisher.push_publish("big", &vec![b'x'; SIZES[n % 2]], QoS::AtMostOnce);
        publisher.push(&Packet::PingReq);
        let answer = publisher.next().await;
        assert!(matches!(publisher.decode(&answer), Packet::PingResp));
    }
}

#[test]
fn a_client_that_reads_again_gets_what_has_waited() {
    for driver in DRIVERS {
        run(async {
            let (broker, mut reader, mut publisher) = around_the_bound(*driver).await;
            let mut came = 0;
            for round in 0..10 {
                fill(&mut publisher).await;
                let mark = round.to_string();
                publisher.push_publish("big", mark.as_bytes(), QoS::AtLeastOnce);
                let puback = publisher.next().await;
                assert!(matches!(publisher.decode(&puback), Packet::Ack(_)));
                loop {
                    let bytes = reader.next().await;
                    let Packet::Publish(p) = reader.decode(&bytes) else { panic!("PUBLISH") };
                    if let Some(id) = p.packet_id {
                        assert_eq!(p.payload, mark.as_bytes());
                        reader.push_ack(AckKind::PubAck, id);
                        reader.flush().await;
                        break;
                    }
                    came += 1;
                }
            }
            let totals = Totals::of(broker);
            assert_eq!(came + totals.dropped("output_full"), 10 * 120);
            assert!(totals.dropped("output_full") > 0);
        });
    }
}

#[test]
fn a_client_that_is_taken_over_while_it_does_not_read_is_told_behind_what_has_waited() {
    for driver in DRIVERS {
        run(async {
            let (broker, mut reader, mut publisher) = around_the_bound(*driver).await;
            fill(&mut publisher).await;
            let other = Client::connect(broker.addr(), &Login::new(Version::V5, "reader"), None).await;
            let mut last = None;
            while let Some(bytes) = reader.next_or_end().await {
                last = Some(bytes);
            }
            match last.as_ref().map(|bytes| reader.decode(bytes)) {
                Some(Packet::Disconnect(d)) => assert_eq!(d.code, ReasonCode::SESSION_TAKEN_OVER),
                other => panic!("DISCONNECT, got {other:?}"),
            }
            drop(other);
            Totals::of(broker).expect_only(&["output_full"]);
        });
    }
}
