//! What one shard acknowledged holds on all: a subscription, its end, a retained message, a member of a share.
//!
//! A client's shard is a keyed hash of its identifier, so each worker has several clients on both sides and pairs
//! them differently in each try. `RINGMQ_TEST_TRIES` sets how many tries each test makes on each driver.

mod common;

use common::{Broker, DRIVERS, Driver, Login, Message, Peer, Read, TIMEOUT, ids};
use ringmq::codec::{AckKind, Packet, PacketId, SubscribeOptions, Version};
use ringmq::message::QoS;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SHARDS: usize = 8;
/// Threads of a test; each with its clients.
const WORKERS: usize = 5;
/// Clients of each side that a worker has.
const CLIENTS: usize = 6;

fn tries(default: usize) -> usize {
    match std::env::var("RINGMQ_TEST_TRIES") {
        Ok(text) => text.parse().expect("RINGMQ_TEST_TRIES is a number"),
        Err(_) => default,
    }
}

/// A sequence that a failure's try number reproduces: splitmix64.
fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

fn pick(n: usize, salt: u64, of: usize) -> usize {
    (mix(n as u64 ^ salt << 48) % of as u64) as usize
}

/// Runs a worker on each of several threads, each with its number.
fn workers(work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let work = &work;
            scope.spawn(move || work(worker));
        }
    });
}

fn clients(broker: &Broker, prefix: &str, worker: usize) -> Vec<Peer> {
    let versions = [Version::V311, Version::V5];
    let ids = ids(&format!("{prefix}-{worker}"), CLIENTS);
    ids.iter().enumerate().map(|(n, id)| Peer::connect(broker, versions[n % 2], id)).collect()
}

/// The next packet that is not a message of another worker; messages of QoS 1 are acknowledged.
fn next_own(peer: &mut Peer, own: &str) -> common::Received {
    loop {
        let received = peer.next();
        let Some(message) = received.message() else { return received };
        acknowledge(peer, &message);
        if message.text().starts_with(own) {
            return received;
        }
    }
}

fn acknowledge(peer: &mut Peer, message: &Message) {
    if let (QoS::AtLeastOnce, Some(id)) = (message.qos, message.packet_id) {
        peer.ack(AckKind::PubAck, id);
    }
}

fn await_suback(peer: &mut Peer, own: &str, id: PacketId) {
    let received = next_own(peer, own);
    match received.packet() {
        Packet::SubAck(ack) if ack.packet_id == id && ack.codes == [1] => {}
        _ => panic!("SUBACK {id} with QoS 1, got {received:?}"),
    }
}

fn await_unsuback(peer: &mut Peer, own: &str, id: PacketId) {
    let received = next_own(peer, own);
    match received.packet() {
        Packet::UnsubAck(ack) if ack.packet_id == id => {}
        _ => panic!("UNSUBACK {id}, got {received:?}"),
    }
}

/// What a try subscribes to, and what it publishes to.
fn filter_and_topic(worker: usize, n: usize) -> (String, String) {
    match n % 7 {
        // Never seen before.
        0 => (format!("new/{worker}/{n}"), format!("new/{worker}/{n}")),
        1 => (format!("new/{worker}/{n}/+"), format!("new/{worker}/{n}/x")),
        2 => (format!("+/{worker}/{n}/#"), format!("new/{worker}/{n}/x/y")),
        // Announced and withdrawn again and again.
        3 => (format!("same/{worker}"), format!("same/{worker}")),
        4 => (format!("same/{worker}/#"), format!("same/{worker}/{n}")),
        // By all workers at once.
        5 => ("crowd/+".to_owned(), format!("crowd/{worker}")),
        _ => (format!("$share/group-{worker}/shared/{worker}/+"), format!("shared/{worker}/{n}")),
    }
}

#[test]
fn a_subscription_holds_everywhere_from_suback_to_unsuback() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let each = tries(10_000).div_ceil(WORKERS);
        workers(|worker| {
            let mut subscribers = clients(&broker, "sub", worker);
            let mut publishers = clients(&broker, "pub", worker);
            for (at, subscriber) in subscribers.iter_mut().enumerate() {
                assert_eq!(subscriber.subscribe(&last(worker, at), QoS::AtLeastOnce), 1);
            }
            for n in 0..each {
                let at = pick(n, 1, CLIENTS);
                let publisher = &mut publishers[pick(n, 2, CLIENTS)];
                subscribe_and_unsubscribe(&mut subscribers[at], publisher, &last(worker, at), worker, n);
            }
        });
        broker.stop();
    }
}

/// A topic that one client is always subscribed to.
fn last(worker: usize, at: usize) -> String {
    format!("last/{worker}/{at}")
}

fn subscribe_and_unsubscribe(
    subscriber: &mut Peer,
    publisher: &mut Peer,
    last: &str,
    worker: usize,
    n: usize,
) {
    let own = format!("{worker}:");
    let (filter, topic) = filter_and_topic(worker, n);
    let (wanted, unwanted) = (format!("{own}{n} wanted"), format!("{own}{n} unwanted"));
    let qos = if pick(n, 3, 2) == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let id = subscriber.send_subscribe(&filter, options);
    await_suback(subscriber, &own, id);
    let first = publisher.send_publish(&topic, wanted.as_bytes(), qos, false);
    let message = next_own(subscriber, &own).message().expect("a message and no other packet");
    assert_eq!((message.topic.as_str(), message.text()), (topic.as_str(), wanted.as_str()), "{filter}");
    let id = subscriber.send_unsubscribe(&filter);
    await_unsuback(subscriber, &own, id);
    // Messages from one client to another keep their order, so the first one would come first.
    let second = publisher.send_publish(&topic, unwanted.as_bytes(), qos, false);
    let third = publisher.send_publish(last, own.as_bytes(), qos, false);
    let message = next_own(subscriber, &own).message().expect("a message and no other packet");
    assert_eq!((message.topic.as_str(), message.text()), (last, own.as_str()), "{filter}");
    for id in [first, second, third].into_iter().flatten() {
        publisher.expect_ack(AckKind::PubAck, id);
    }
}

#[test]
fn subscribers_of_one_filter_on_many_shards_all_get_it_from_suback_on() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let each = tries(2_500).div_ceil(WORKERS);
        workers(|worker| {
            let own = format!("{worker}:");
            let mut subscribers = clients(&broker, "sub", worker);
            let mut publishers = clients(&broker, "pub", worker);
            for n in 0..each {
                let filter = if n % 2 == 0 { format!("all/{worker}") } else { format!("all/{worker}/+") };
                let topic = filter.replace('+', "x");
                let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
                let asked: Vec<_> =
                    subscribers.iter_mut().map(|s| s.send_subscribe(&filter, options)).collect();
                for (subscriber, id) in subscribers.iter_mut().zip(asked) {
                    await_suback(subscriber, &own, id);
                }
                let payload = format!("{own}{n}");
                publishers[pick(n, 4, CLIENTS)].publish(&topic, payload.as_bytes(), QoS::AtLeastOnce, false);
                for subscriber in &mut subscribers {
                    let message = next_own(subscriber, &own).message().expect("a message");
                    assert_eq!(message.text(), payload);
                }
                let asked: Vec<_> = subscribers.iter_mut().map(|s| s.send_unsubscribe(&filter)).collect();
                for (subscriber, id) in subscribers.iter_mut().zip(asked) {
                    await_unsuback(subscriber, &own, id);
                }
            }
        });
        broker.stop();
    }
}

#[test]
fn a_retained_message_is_found_from_its_acknowledgement_on() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        Peer::connect(&broker, Version::V5, "sentinel").publish("sentinel", b"end", QoS::AtLeastOnce, true);
        let each = tries(3_000).div_ceil(WORKERS);
        workers(|worker| {
            let mut subscribers = clients(&broker, "sub", worker);
            let mut publishers = clients(&broker, "pub", worker);
            for n in 0..each {
                let subscriber = &mut subscribers[pick(n, 5, CLIENTS)];
                let publisher = &mut publishers[pick(n, 6, CLIENTS)];
                retain_and_find(subscriber, publisher, worker, n);
            }
        });
        broker.stop();
    }
}

fn retain_and_find(subscriber: &mut Peer, publisher: &mut Peer, worker: usize, n: usize) {
    // Some topics are new, some are written over.
    let (filter, topic) = match n % 4 {
        0 => (format!("r/{worker}/{n}"), format!("r/{worker}/{n}")),
        1 => (format!("r/{worker}/+/last"), format!("r/{worker}/{n}/last")),
        2 => (format!("o/{worker}"), format!("o/{worker}")),
        _ => (format!("o/{worker}/#"), format!("o/{worker}/{}", n % 16)),
    };
    let retain = |publisher: &mut Peer, payload: &[u8]| match pick(n, 7, 3) {
        0 => {
            publisher.publish(&topic, payload, QoS::AtMostOnce, true);
            publisher.ping();
        }
        1 => publisher.publish(&topic, payload, QoS::AtLeastOnce, true),
        _ => publisher.publish(&topic, payload, QoS::ExactlyOnce, true),
    };
    let payload = format!("{worker}:{n}");
    retain(publisher, payload.as_bytes());
    let found = retained(subscriber, &filter);
    let texts: Vec<_> = found.iter().map(|m| (m.topic.as_str(), m.text(), m.retain)).collect();
    assert_eq!(texts, [(topic.as_str(), payload.as_str(), true)], "{filter}");
    // What is cleared is not found any more.
    retain(publisher, b"");
    assert_eq!(retained(subscriber, &filter), [], "{filter}");
}

/// What is retained for a filter. A session looks up one filter after the other, so that when the message of the
/// second has come, there is nothing more for the first.
fn retained(subscriber: &mut Peer, filter: &str) -> Vec<Message> {
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let mut subacks =
        vec![subscriber.send_subscribe(filter, options), subscriber.send_subscribe("sentinel", options)];
    let mut found = Vec::new();
    let mut end = false;
    while !end || !subacks.is_empty() {
        let received = subscriber.next();
        match (received.packet(), received.message()) {
            (Packet::SubAck(ack), _) => subacks.retain(|id| *id != ack.packet_id),
            (_, Some(message)) => {
                acknowledge(subscriber, &message);
                if message.topic == "sentinel" { end = true } else { found.push(message) }
            }
            _ => panic!("SUBACK or PUBLISH, got {received:?}"),
        }
    }
    for filter in [filter, "sentinel"] {
        let id = subscriber.send_unsubscribe(filter);
        await_unsuback(subscriber, "", id);
    }
    found
}

/// Messages that members of a share got, and how often each.
type Got = Mutex<BTreeMap<String, usize>>;

/// Serves as a member: counts and acknowledges until all `wanted` messages are there.
fn serve(member: &mut Peer, got: &Got, distinct: &AtomicUsize, wanted: usize) {
    let deadline = Instant::now() + TIMEOUT;
    while distinct.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "only {distinct:?} of {wanted} messages came");
        let Read::Packet(received) = member.read_packet(Duration::from_millis(50)) else { continue };
        let message = received.message().expect("a message and no other packet");
        let times = {
            let mut got = got.lock().expect("no other member failed");
            let times = got.entry(message.text().to_owned()).or_default();
            *times += 1;
            *times
        };
        acknowledge(member, &message);
        if times == 1 {
            distinct.fetch_add(1, Ordering::SeqCst);
        }
    }
    // A second copy of something would be in front of the answer.
    member.ping();
}

fn publish_numbered(broker: &Broker, publisher: usize, count: usize) -> usize {
    let mut peer = Peer::connect(broker, Version::V5, &format!("publisher-{publisher}"));
    for n in 0..count {
        let topic = format!("jobs/{}", n % 10);
        peer.publish(&topic, format!("{publisher}:{n}").as_bytes(), QoS::AtLeastOnce, false);
    }
    count
}

const STRATEGIES: [&str; 6] = ["round_robin", "random", "sticky", "hash_clientid", "hash_topic", "local"];
const PUBLISHERS: usize = 4;

fn share(driver: Driver, strategy: &str, members: usize, quitters: usize) {
    let each = tries(2_000).div_ceil(STRATEGIES.len() * PUBLISHERS);
    let broker = Broker::start(driver, SHARDS, &[("mqtt.shared_strategy", strategy)]);
    let (got, distinct) = (Got::default(), AtomicUsize::new(0));
    let wanted = each * PUBLISHERS;
    let join = |id: &str| {
        let mut member = Peer::connect(&broker, Version::V5, id);
        assert_eq!(member.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce), 1);
        member
    };
    let mut serving: Vec<Peer> = ids("member", members).iter().map(|id| join(id)).collect();
    let quitting: Vec<Peer> = ids("quitter", quitters).iter().map(|id| join(id)).collect();
    thread::scope(|scope| {
        for member in &mut serving {
            scope.spawn(|| serve(member, &got, &distinct, wanted));
        }
        let published: Vec<_> = (0..PUBLISHERS)
            .map(|p| {
                scope.spawn({
                    let broker = &broker;
                    move || publish_numbered(broker, p, each)
                })
            })
            .collect();
        for (n, mut quitter) in quitting.into_iter().enumerate() {
            let (distinct, wanted) = (&distinct, wanted);
            scope.spawn(move || {
                // It takes some, acknowledges none, and goes when it has enough or when all the others have is
                // what it does not have.
                let mut taken = BTreeSet::new();
                while taken.len() <= n {
                    match quitter.read_packet(Duration::from_millis(50)) {
                        Read::Packet(received) => {
                            taken.insert(received.message().expect("a message").text().to_owned());
                        }
                        _ if distinct.load(Ordering::SeqCst) + taken.len() >= wanted / 2 => break,
                        _ => {}
                    }
                }
                quitter.cut();
            });
        }
        for publisher in published {
            assert_eq!(publisher.join().expect("all was acknowledged"), each);
        }
    });
    drop(serving);
    let got = got.into_inner().expect("no member failed");
    assert_eq!(got.len(), wanted, "{strategy}");
    let more: Vec<_> = got.iter().filter(|(_, times)| **times != 1).collect();
    assert!(more.is_empty(), "{strategy}: {more:?}");
    broker.stop();
}

#[test]
fn each_message_goes_to_one_member_of_a_share() {
    for &driver in DRIVERS {
        for strategy in STRATEGIES {
            share(driver, strategy, 12, 0);
        }
    }
}

#[test]
fn what_a_member_did_not_acknowledge_goes_to_another_member() {
    for &driver in DRIVERS {
        for strategy in STRATEGIES {
            share(driver, strategy, 6, 8);
        }
    }
}

#[test]
fn a_share_whose_members_are_offline_keeps_messages_for_them() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let logins: Vec<_> = ids("member", 6).iter().map(|id| Login::lasting(Version::V5, id)).collect();
        for login in &logins {
            let (mut member, present) = Peer::login(&broker, login);
            assert!(!present);
            assert_eq!(member.subscribe("$share/workers/jobs/+", QoS::AtLeastOnce), 1);
            member.cut();
        }
        let wanted = PUBLISHERS * 50;
        for publisher in 0..PUBLISHERS {
            publish_numbered(&broker, publisher, 50);
        }
        let mut members: Vec<_> = logins.iter().map(|login| Peer::login(&broker, login)).collect();
        assert!(members.iter().all(|(_, present)| *present));
        let (got, distinct) = (Got::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for (member, _) in &mut members {
                scope.spawn(|| serve(member, &got, &distinct, wanted));
            }
        });
        let got = got.into_inner().expect("no member failed");
        assert!(got.len() == wanted && got.values().all(|times| *times == 1), "{got:?}");
        broker.stop();
    }
}
