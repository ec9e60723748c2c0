//! Exchange with rumqttc, a client that others wrote: 3.1.1 and 5.0, all QoS, retained messages and wills, with
//! every number of shards.
//!
//! A client's shard is a keyed hash of its identifier. With twelve publishers and twelve subscribers, and each pair
//! of them exchanging messages, publisher and subscriber are on the same shard for few pairs and on different ones
//! for most; with two shards or more, never on one shard for all.

mod common;

use common::{Broker, DRIVERS, Driver, TIMEOUT};
use ringmq::codec::Version;
use rumqttc::{mqttbytes, v5};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

const SHARDS: [usize; 4] = [1, 2, 3, 8];
const PUBLISHERS: usize = 12;
const SUBSCRIBERS: usize = 12;

/// A message as the foreign client reports it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Got {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

/// What the foreign client reports.
#[derive(Debug)]
enum Seen {
    Connected,
    Subscribed(bool),
    /// A message of QoS 1 or 2 is complete.
    Acknowledged,
    Message(Got),
    /// It gave up, and why.
    Failed(#[expect(dead_code, reason = "shown where a test fails")] String),
}

impl Seen {
    /// Whether the client's thread ends, which closes its connection without DISCONNECT: after a failure, and on
    /// a message that asks for it.
    fn ends(&self) -> bool {
        match self {
            Seen::Failed(_) => true,
            Seen::Message(got) => got.topic == DIE,
            _ => false,
        }
    }
}

/// A client that gets a message of this topic dies.
const DIE: &str = "die";

enum Handle {
    V311(rumqttc::Client),
    V5(v5::Client),
}

/// A client of rumqttc, and the thread that drives it.
struct Foreign {
    handle: Handle,
    seen: Receiver<Seen>,
    name: String,
}

struct Will {
    topic: String,
    qos: u8,
    retain: bool,
}

/// Half of the clients speak 3.1.1, half 5.0.
fn version(n: usize) -> Version {
    if n.is_multiple_of(2) { Version::V311 } else { Version::V5 }
}

fn qos_4(qos: u8) -> rumqttc::QoS {
    mqttbytes::qos(qos).expect("0, 1 or 2")
}

fn qos_5(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("0, 1 or 2")
}

impl Foreign {
    /// Connects, and returns once CONNACK has come.
    fn connect(broker: &Broker, version: Version, name: &str, will: Option<Will>) -> Foreign {
        let (host, port) = (broker.addr().ip().to_string(), broker.addr().port());
        let (tell, seen) = channel();
        let handle = match version {
            Version::V5 => {
                let mut options = v5::MqttOptions::new(name, host, port);
                options.set_connection_timeout(TIMEOUT.as_secs());
                options.set_keep_alive(Duration::from_secs(600));
                if let Some(will) = will {
                    let last = v5::mqttbytes::v5::LastWill::new(
                        will.topic,
                        name.to_owned(),
                        qos_5(will.qos),
                        will.retain,
                        None,
                    );
                    options.set_last_will(last);
                }
                let (client, connection) = v5::Client::new(options, 64);
                thread::spawn(move || drive_5(connection, &tell));
                Handle::V5(client)
            }
            _ => {
                let mut options = rumqttc::MqttOptions::new(name, host, port);
                options.set_keep_alive(Duration::from_secs(600));
                if let Some(will) = will {
                    options.set_last_will(rumqttc::LastWill::new(
                        will.topic,
                        name.to_owned(),
                        qos_4(will.qos),
                        will.retain,
                    ));
                }
                let (client, mut connection) = rumqttc::Client::new(options, 64);
                let mut network = rumqttc::NetworkOptions::new();
                network.set_connection_timeout(TIMEOUT.as_secs());
                connection.eventloop.set_network_options(network);
                thread::spawn(move || drive_4(connection, &tell));
                Handle::V311(client)
            }
        };
        let client = Foreign { handle, seen, name: name.to_owned() };
        client.expect("CONNACK", |seen| matches!(seen, Seen::Connected).then_some(()));
        client
    }

    /// The next thing that it sees, which must be what is wanted.
    fn expect<T>(&self, what: impl fmt::Display, wanted: impl FnOnce(&Seen) -> Option<T>) -> T {
        let name = &self.name;
        let seen = match self.seen.recv_timeout(TIMEOUT) {
            Ok(seen) => seen,
            Err(error) => panic!("{name}: expected {what}, got nothing: {error}"),
        };
        wanted(&seen).unwrap_or_else(|| panic!("{name}: expected {what}, got {seen:?}"))
    }

    fn subscribe(&self, filter: &str) {
        match &self.handle {
            Handle::V311(client) => client.subscribe(filter, qos_4(2)).expect("its thread runs"),
            Handle::V5(client) => client.subscribe(filter, qos_5(2)).expect("its thread runs"),
        }
        self.expect(format!("SUBACK with QoS 2 for {filter}"), |seen| {
            matches!(seen, Seen::Subscribed(true)).then_some(())
        });
    }

    fn send(&self, topic: &str, payload: &str, qos: u8, retain: bool) {
        let payload = payload.to_owned();
        match &self.handle {
            Handle::V311(client) => {
                client.publish(topic, qos_4(qos), retain, payload).expect("its thread runs")
            }
            Handle::V5(client) => {
                client.publish(topic, qos_5(qos), retain, payload).expect("its thread runs")
            }
        }
    }

    fn await_acknowledged(&self) {
        self.expect("PUBACK or PUBCOMP", |seen| matches!(seen, Seen::Acknowledged).then_some(()));
    }

    /// The next messages, which must be these, in any order.
    fn expect_messages(&self, wanted: BTreeSet<Got>) {
        let mut missing = wanted;
        while !missing.is_empty() {
            let got = self.expect(format!("one of {missing:?}"), |seen| match seen {
                Seen::Message(got) => Some(got.clone()),
                _ => None,
            });
            assert!(missing.remove(&got), "{}: {got:?} came twice or is none of {missing:?}", self.name);
        }
    }
}

fn drive_4(mut connection: rumqttc::Connection, tell: &Sender<Seen>) {
    use rumqttc::{Event, Packet, SubscribeReasonCode};
    for event in connection.iter() {
        let seen = match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Seen::Connected,
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                Seen::Subscribed(ack.return_codes == [SubscribeReasonCode::Success(qos_4(2))])
            }
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => Seen::Acknowledged,
            Ok(Event::Incoming(Packet::Publish(p))) => Seen::Message(Got {
                topic: p.topic,
                payload: String::from_utf8_lossy(&p.payload).into_owned(),
                qos: p.qos as u8,
                retain: p.retain,
            }),
            Ok(_) => continue,
            Err(error) => Seen::Failed(error.to_string()),
        };
        let ends = seen.ends();
        if tell.send(seen).is_err() || ends {
            return;
        }
    }
}

fn drive_5(mut connection: v5::Connection, tell: &Sender<Seen>) {
    use v5::Event;
    use v5::mqttbytes::v5::{Packet, PubAckReason, PubCompReason, SubscribeReasonCode};
    for event in connection.iter() {
        let seen = match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Seen::Connected,
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                Seen::Subscribed(ack.return_codes == [SubscribeReasonCode::Success(qos_5(2))])
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Seen::Acknowledged,
                reason => Seen::Failed(format!("PUBACK with {reason:?}")),
            },
            Ok(Event::Incoming(Packet::PubComp(ack))) => match ack.reason {
                PubCompReason::Success => Seen::Acknowledged,
                reason => Seen::Failed(format!("PUBCOMP with {reason:?}")),
            },
            Ok(Event::Incoming(Packet::Publish(p))) => Seen::Message(Got {
                topic: String::from_utf8_lossy(&p.topic).into_owned(),
                payload: String::from_utf8_lossy(&p.payload).into_owned(),
                qos: p.qos as u8,
                retain: p.retain,
            }),
            Ok(_) => continue,
            Err(error) => Seen::Failed(error.to_string()),
        };
        let ends = seen.ends();
        if tell.send(seen).is_err() || ends {
            return;
        }
    }
}

/// Runs a test with every number of shards on every driver.
fn everywhere(test: impl Fn(&Broker, Driver)) {
    for &driver in DRIVERS {
        for shards in SHARDS {
            let broker = Broker::start(driver, shards, &[]);
            test(&broker, driver);
            broker.stop();
        }
    }
}

fn clients(broker: &Broker, role: &str, count: usize) -> Vec<Foreign> {
    (0..count).map(|n| Foreign::connect(broker, version(n), &format!("{role}-{n}"), None)).collect()
}

#[test]
fn every_publisher_reaches_every_subscriber_at_every_qos() {
    everywhere(|broker, _| {
        let subscribers = clients(broker, "subscriber", SUBSCRIBERS);
        for (s, subscriber) in subscribers.iter().enumerate() {
            // Both versions with wildcards, both with exact filters.
            if s % 4 < 2 {
                subscriber.subscribe(&format!("pairs/+/{s}"));
            } else {
                (0..PUBLISHERS).for_each(|p| subscriber.subscribe(&format!("pairs/{p}/{s}")));
            }
        }
        let publishers = clients(broker, "publisher", PUBLISHERS);
        for qos in 0..=2 {
            for (p, publisher) in publishers.iter().enumerate() {
                for s in 0..SUBSCRIBERS {
                    publisher.send(&format!("pairs/{p}/{s}"), &format!("{p} to {s} at {qos}"), qos, false);
                }
            }
            for publisher in publishers.iter().filter(|_| qos > 0) {
                (0..SUBSCRIBERS).for_each(|_| publisher.await_acknowledged());
            }
            for (s, subscriber) in subscribers.iter().enumerate() {
                let from = |p| Got {
                    topic: format!("pairs/{p}/{s}"),
                    payload: format!("{p} to {s} at {qos}"),
                    qos,
                    retain: false,
                };
                subscriber.expect_messages((0..PUBLISHERS).map(from).collect());
            }
        }
    });
}

#[test]
fn retained_messages_reach_later_subscribers() {
    everywhere(|broker, _| {
        let publishers = clients(broker, "publisher", PUBLISHERS);
        let mut kept = BTreeSet::new();
        for (p, publisher) in publishers.iter().enumerate() {
            // The acknowledgement of what is retained last says that all of it is.
            for qos in 0..=2 {
                let (topic, payload) = (format!("kept/{p}/{qos}"), format!("by {p} at {qos}"));
                publisher.send(&topic, "older", 0, true);
                publisher.send(&topic, &payload, qos, true);
                kept.insert(Got { topic, payload, qos, retain: true });
                (0..u8::from(qos > 0)).for_each(|_| publisher.await_acknowledged());
            }
        }
        for n in 0..4 {
            let subscriber = Foreign::connect(broker, version(n), &format!("late-{n}"), None);
            subscriber.subscribe("kept/#");
            subscriber.expect_messages(kept.clone());
            let subscriber = Foreign::connect(broker, version(n), &format!("later-{n}"), None);
            subscriber.subscribe(&format!("kept/{n}/+"));
            subscriber.expect_messages(
                kept.iter().filter(|got| got.topic.starts_with(&format!("kept/{n}/"))).cloned().collect(),
            );
            let subscriber = Foreign::connect(broker, version(n), &format!("last-{n}"), None);
            subscriber.subscribe(&format!("kept/{n}/2"));
            subscriber.expect_messages(
                kept.iter().filter(|got| got.topic == format!("kept/{n}/2")).cloned().collect(),
            );
        }
        for publisher in &publishers[..2] {
            // An empty one clears.
            publisher.send("kept/0/1", "", 1, true);
            publisher.await_acknowledged();
        }
        kept.retain(|got| got.topic != "kept/0/1");
        let subscriber = Foreign::connect(broker, Version::V5, "after", None);
        subscriber.subscribe("kept/#");
        subscriber.expect_messages(kept);
    });
}

#[test]
fn wills_reach_every_subscriber() {
    everywhere(|broker, _| {
        let watchers = clients(broker, "watcher", SUBSCRIBERS);
        watchers.iter().for_each(|watcher| watcher.subscribe("wills/#"));
        let mut wills = BTreeSet::new();
        let dying: Vec<Foreign> = (0..PUBLISHERS)
            .map(|n| {
                let (name, topic) = (format!("dying-{n}"), format!("wills/{n}"));
                let will = Will { topic: topic.clone(), qos: (n % 3) as u8, retain: n % 4 >= 2 };
                let got = Got { topic, payload: name.clone(), qos: will.qos, retain: will.retain };
                wills.insert(got);
                Foreign::connect(broker, version(n), &name, Some(will))
            })
            .collect();
        dying.iter().for_each(|client| client.subscribe(DIE));
        watchers[0].send(DIE, "", 0, false);
        // To those who are subscribed they are sent without RETAIN [MQTT-3.3.1-9].
        let live: BTreeSet<Got> = wills.iter().map(|got| Got { retain: false, ..got.clone() }).collect();
        watchers.iter().for_each(|watcher| watcher.expect_messages(live.clone()));
        for n in 0..2 {
            let late = Foreign::connect(broker, version(n), &format!("late-{n}"), None);
            late.subscribe("wills/+");
            late.expect_messages(wills.iter().filter(|got| got.retain).cloned().collect());
        }
    });
}
