//! What happens when a session's queue is full, by each policy, and the other bounds of what a client gets.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod common;
#[path = "common/totals.rs"]
mod totals;

use common::{Broker, DRIVERS, Login, Peer, Read, TIMEOUT, ids};
use ringmq::codec::{
    AckKind, Packet, Properties, Property, PropertyBuf, Publish, ReasonCode, SubscribeOptions, Version,
};
use ringmq::limits::FAN_OUT_AT_ONCE_MAX;
use ringmq::message::QoS;
use std::time::{Duration, Instant};
use totals::Totals;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V5, V311};

const DEBUG: (&str, &str) = ("log.level", "debug");
/// How long something is watched that must not happen.
const WATCH: Duration = Duration::from_millis(300);

/// Publishes once, and returns the code of PUBACK or PUBREC; completes what was taken.
fn try_publish(peer: &mut Peer, topic: &str, payload: &str, qos: QoS) -> ReasonCode {
    let id = peer.send_publish(topic, payload.as_bytes(), qos, false).expect("QoS 1 or 2");
    let answer = peer.next();
    let Packet::Ack(ack) = answer.packet() else { panic!("an acknowledgement, got {answer:?}") };
    assert_eq!(ack.packet_id, id);
    let wanted = if qos == AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
    assert_eq!(ack.kind, wanted);
    if qos == ExactlyOnce && !ack.code.is_error() {
        peer.ack(AckKind::PubRel, id);
        peer.expect_ack(AckKind::PubComp, id);
    }
    ack.code
}

/// A 5.0 subscriber to `q/#` that takes one message at a time.
fn slow_subscriber(broker: &Broker, client_id: &str) -> Peer {
    let login = Login { receive_maximum: Some(1), ..Login::new(V5, client_id) };
    let (mut peer, _) = Peer::login(broker, &login);
    assert_eq!(peer.subscribe("q/#", ExactlyOnce), 2);
    peer
}

#[test]
fn reject_answers_0x97_on_the_same_shard_from_the_first_message_that_has_no_room() {
    for driver in DRIVERS {
        let settings = [DEBUG, ("mqtt.queue_full", "reject"), ("mqtt.max_mqueue", "10")];
        let broker = Broker::start(*driver, 1, &settings);
        let mut slow = slow_subscriber(&broker, "slow");
        let mut other = Peer::connect(&broker, V311, "other");
        other.subscribe("q/0", AtMostOnce);
        let mut publisher = Peer::connect(&broker, V5, "publisher");
        // All at once: one in flight and ten in the queue, though one tick may see them all.
        let sent: Vec<_> = (0..20)
            .map(|n| publisher.send_publish("q/x", n.to_string().as_bytes(), AtLeastOnce, false).unwrap())
            .collect();
        for (n, id) in sent.into_iter().enumerate() {
            let answer = publisher.next();
            let Packet::Ack(ack) = answer.packet() else { panic!("PUBACK, got {answer:?}") };
            let wanted = if n < 11 { ReasonCode::SUCCESS } else { ReasonCode::QUOTA_EXCEEDED };
            assert_eq!((ack.packet_id, ack.code), (id, wanted), "message {n}");
        }
        assert_eq!(try_publish(&mut publisher, "q/x", "no", ExactlyOnce), ReasonCode::QUOTA_EXCEEDED);
        // QoS 0 is no promise: others get it, and the full session its own where its connection has room.
        publisher.publish("q/0", b"zero", AtMostOnce, false);
        assert_eq!(other.expect_message().text(), "zero");
        let mut got = Vec::new();
        while got.len() < 12 {
            got.push(slow.take().text().to_owned());
        }
        let wanted: Vec<_> = std::iter::once("0".to_owned())
            .chain(["zero".to_owned()])
            .chain((1..11).map(|n| n.to_string()))
            .collect();
        assert_eq!(got, wanted);
        slow.ping();
        assert_eq!(try_publish(&mut publisher, "q/x", "again", ExactlyOnce), ReasonCode::SUCCESS);
        assert_eq!(slow.take().text(), "again");
        slow.ping();
        Totals::of(broker).expect_only(&[]);
    }
}

#[test]
fn reject_answers_0x97_on_all_shards_and_loses_nothing_that_was_acknowledged() {
    for driver in DRIVERS {
        let settings = [DEBUG, ("mqtt.queue_full", "reject"), ("mqtt.max_mqueue", "10")];
        let broker = Broker::start(*driver, 4, &settings);
        let mut slow = slow_subscriber(&broker, "slow");
        let mut publishers: Vec<Peer> =
            ids("publisher", 12).iter().map(|id| Peer::connect(&broker, V5, id)).collect();
        let mut taken: Vec<Vec<String>> = vec![Vec::new(); publishers.len()];
        // Each goes on until it is told; other shards learn late, so some more than eleven may be taken.
        for (p, publisher) in publishers.iter_mut().enumerate() {
            let qos = if p % 2 == 0 { AtLeastOnce } else { ExactlyOnce };
            for n in 0.. {
                assert!(n < 2_000, "a full queue is told to all shards");
                let payload = format!("{p} {n}");
                match try_publish(publisher, "q/x", &payload, qos) {
                    ReasonCode::QUOTA_EXCEEDED => break,
                    code => assert_eq!(code, ReasonCode::SUCCESS),
                }
                taken[p].push(payload);
            }
        }
        let mut got: Vec<Vec<String>> = vec![Vec::new(); publishers.len()];
        for _ in 0..taken.iter().map(Vec::len).sum() {
            let message = slow.take();
            let from: usize = message.text().split_once(' ').unwrap().0.parse().unwrap();
            got[from].push(message.text().to_owned());
        }
        assert_eq!(got, taken, "all that was acknowledged came, in order");
        slow.ping();
        for (p, publisher) in publishers.iter_mut().enumerate() {
            let deadline = Instant::now() + TIMEOUT;
            while try_publish(publisher, "q/x", "again", AtLeastOnce) == ReasonCode::QUOTA_EXCEEDED {
                assert!(Instant::now() < deadline, "publisher {p} is let in again");
            }
            assert_eq!(slow.take().text(), "again");
        }
        slow.ping();
        Totals::of(broker).expect_only(&[]);
    }
}

#[test]
fn reject_makes_a_publisher_of_3_1_1_wait_until_there_is_room() {
    for driver in DRIVERS {
        let settings = [DEBUG, ("mqtt.queue_full", "reject"), ("mqtt.max_mqueue", "4")];
        let broker = Broker::start(*driver, 1, &settings);
        let mut slow = slow_subscriber(&broker, "slow");
        let mut publisher = Peer::connect(&broker, V311, "publisher");
        for n in 0..5 {
            publisher.publish("q/x", n.to_string().as_bytes(), AtLeastOnce, false);
        }
        let waits = publisher.send_publish("q/x", b"5", AtLeastOnce, false).unwrap();
        let behind = publisher.send_publish("elsewhere", b"", AtLeastOnce, false).unwrap();
        assert!(matches!(publisher.read_packet(WATCH), Read::TimedOut), "it waits");
        for n in 0..6 {
            assert_eq!(slow.take().text(), n.to_string());
        }
        publisher.expect_ack(AckKind::PubAck, waits);
        publisher.expect_ack(AckKind::PubAck, behind);
        slow.ping();
        Totals::of(broker).expect_only(&[]);
    }
}

#[test]
fn reject_closes_a_publisher_of_3_1_1_that_waited_too_long() {
    for driver in DRIVERS {
        let settings =
            [DEBUG, ("mqtt.queue_full", "reject"), ("mqtt.max_mqueue", "4"), ("mqtt.reject_wait_s", "1")];
        let broker = Broker::start(*driver, 1, &settings);
        let mut slow = slow_subscriber(&broker, "slow");
        let mut publisher = Peer::connect(&broker, V311, "publisher");
        for n in 0..5 {
            publisher.publish("q/x", n.to_string().as_bytes(), ExactlyOnce, false);
        }
        publisher.send_publish("q/x", b"5", AtLeastOnce, false);
        publisher.expect_closed();
        for n in 0..5 {
            assert_eq!(slow.take().text(), n.to_string());
        }
        slow.ping();
        let mut again = Peer::connect(&broker, V311, "publisher");
        again.publish("q/x", b"again", AtLeastOnce, false);
        assert_eq!(slow.take().text(), "again");
        slow.ping();
        Totals::of(broker).expect_only(&[]);
    }
}

#[test]
fn disconnect_ends_the_subscriber_with_0x97_and_nobody_else() {
    for driver in DRIVERS {
        for shards in [1, 4] {
            let settings = [DEBUG, ("mqtt.queue_full", "disconnect"), ("mqtt.max_mqueue", "10")];
            let broker = Broker::start(*driver, shards, &settings);
            let mut slow = slow_subscriber(&broker, "slow");
            let mut other = Peer::connect(&broker, V311, "other");
            other.subscribe("q/#", AtLeastOnce);
            let mut publisher = Peer::connect(&broker, V5, "publisher");
            for n in 0..12 {
                assert_eq!(
                    try_publish(&mut publisher, "q/x", &n.to_string(), AtLeastOnce),
                    ReasonCode::SUCCESS
                );
                assert_eq!(other.take().text(), n.to_string());
            }
            assert_eq!(slow.expect_message().text(), "0");
            slow.expect_disconnect(ReasonCode::QUOTA_EXCEEDED);
            other.ping();
            let totals = Totals::of(broker);
            // 12 for it: the oldest in the queue made room, the others ended with its session.
            assert_eq!((totals.dropped("queue_full"), totals.dropped("session_ended")), (1, 11));
            totals.expect_only(&["queue_full", "session_ended"]);
        }
    }
}

/// Publishes to `q/x` for a client that is away, then lets it come back; returns what it gets.
fn away(broker: &Broker, publish: impl FnOnce(&mut Peer)) -> Vec<String> {
    let login = Login::lasting(V5, "away");
    let (mut peer, _) = Peer::login(broker, &login);
    peer.subscribe("q/#", AtLeastOnce);
    peer.disconnect();
    // What is acknowledged may still be in the ring of the shard where the client is at home. Once watchers on all
    // shards have what came last, it is in the queue: so many that no shard is without one.
    let count = if broker.shards() > 1 { 64 } else { 1 };
    let mut watchers: Vec<Peer> =
        ids("watcher", count).iter().map(|id| Peer::connect(broker, V311, id)).collect();
    for watcher in &mut watchers {
        watcher.subscribe("last", AtMostOnce);
    }
    let mut publisher = Peer::connect(broker, V5, "publisher");
    publish(&mut publisher);
    publisher.publish("q/x", b"end", AtLeastOnce, false);
    publisher.publish("last", b"", AtMostOnce, false);
    for mut watcher in watchers {
        watcher.expect_message();
        watcher.disconnect();
    }
    let (mut peer, present) = Peer::login(broker, &login);
    assert!(present);
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "end") {
        got.push(peer.take().text().to_owned());
    }
    peer.ping();
    got.pop();
    got
}

#[test]
fn drop_oldest_keeps_the_newest_messages_for_a_client_that_is_away_in_order() {
    for driver in DRIVERS {
        for shards in [1, 4] {
            let broker = Broker::start(*driver, shards, &[DEBUG, ("mqtt.max_mqueue", "50")]);
            let got = away(&broker, |publisher| {
                for n in 0..120 {
                    publisher.publish("q/x", n.to_string().as_bytes(), AtLeastOnce, false);
                }
            });
            let wanted: Vec<_> = (71..120).map(|n| n.to_string()).collect();
            assert_eq!(got, wanted);
            let totals = Totals::of(broker);
            assert_eq!(totals.dropped("queue_full"), 71);
            totals.expect_only(&["queue_full"]);
        }
    }
}

#[test]
fn a_queue_is_bounded_by_bytes_as_well() {
    for driver in DRIVERS {
        let settings = [DEBUG, ("mqtt.max_mqueue_bytes", "4096"), ("mqtt.max_packet_size", "4096")];
        let broker = Broker::start(*driver, 1, &settings);
        let got = away(&broker, |publisher| {
            for n in 0..40 {
                publisher.publish("q/x", format!("{n:0200}").as_bytes(), AtLeastOnce, false);
            }
        });
        let wanted: Vec<_> = (40 - got.len()..40).map(|n| format!("{n:0200}")).collect();
        assert_eq!(got, wanted, "the newest, in order");
        assert!((10..=20).contains(&got.len()), "{} messages of 200 bytes and a head", got.len());
        let totals = Totals::of(broker);
        assert_eq!(totals.dropped("queue_bytes_full") as usize, 40 - got.len());
        totals.expect_only(&["queue_bytes_full"]);
    }
}

/// Sends a PUBLISH of QoS 1 with a message expiry interval, and waits for PUBACK.
fn publish_expiring(peer: &mut Peer, topic: &str, payload: &str, expiry_s: u32) {
    let mut properties = PropertyBuf::new();
    assert!(properties.push(Property::MessageExpiryInterval(expiry_s)));
    let packet_id = peer.packet_id();
    peer.send(&Packet::Publish(Publish {
        dup: false,
        qos: AtLeastOnce,
        retain: false,
        topic,
        packet_id: Some(packet_id),
        properties: properties.as_properties(),
        payload: payload.as_bytes(),
    }));
    peer.expect_ack(AckKind::PubAck, packet_id);
}

#[test]
fn mqtt_3_3_2_5_what_expires_in_a_queue_is_not_delivered_and_counted() {
    for driver in DRIVERS {
        let broker = Broker::start(*driver, 2, &[DEBUG]);
        let got = away(&broker, |publisher| {
            publish_expiring(publisher, "q/x", "short", 1);
            publish_expiring(publisher, "q/x", "long", 3_600);
            publish_expiring(publisher, "q/x", "short too", 1);
            std::thread::sleep(Duration::from_millis(1_600));
        });
        assert_eq!(got, ["long"]);
        let totals = Totals::of(broker);
        assert_eq!((totals.dropped("expired"), totals.counter("expired_messages")), (2, 2));
        totals.expect_only(&["expired"]);
    }
}

#[test]
fn mqtt_3_3_4_9_no_more_than_the_receive_maximum_is_unacknowledged() {
    for driver in DRIVERS {
        let broker = Broker::start(*driver, 2, &[]);
        let mut slow = slow_subscriber(&broker, "slow");
        let mut publisher = Peer::connect(&broker, V5, "publisher");
        for n in 0..6 {
            let qos = if n % 2 == 0 { AtLeastOnce } else { ExactlyOnce };
            publisher.publish("q/x", n.to_string().as_bytes(), qos, false);
        }
        for n in 0..6 {
            let message = slow.expect_message();
            assert_eq!(message.text(), n.to_string());
            slow.ping();
            let id = message.packet_id.unwrap();
            if n % 2 == 0 {
                slow.ack(AckKind::PubAck, id);
            } else {
                slow.ack(AckKind::PubRec, id);
                slow.expect_ack(AckKind::PubRel, id);
                slow.ping();
                slow.ack(AckKind::PubComp, id);
            }
        }
        slow.ping();
        broker.stop();
    }
}

#[test]
fn mqtt_3_1_2_25_what_is_too_large_for_a_client_is_skipped_and_counted() {
    for driver in DRIVERS {
        let broker = Broker::start(*driver, 2, &[DEBUG]);
        let login = Login { maximum_packet_size: Some(100), ..Login::new(V5, "small") };
        let (mut small, _) = Peer::login(&broker, &login);
        small.subscribe("q/#", ExactlyOnce);
        let mut large = Peer::connect(&broker, V5, "large");
        large.subscribe("q/#", ExactlyOnce);
        let mut publisher = Peer::connect(&broker, V5, "publisher");
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            for payload in ["before", &"x".repeat(100), "after"] {
                publisher.publish("q/x", payload.as_bytes(), qos, false);
                assert_eq!(large.take().text(), payload);
                if payload.len() < 100 {
                    assert_eq!(small.take().text(), payload);
                }
            }
        }
        small.ping();
        let totals = Totals::of(broker);
        assert_eq!(totals.dropped("packet_too_large"), 3);
        totals.expect_only(&["packet_too_large"]);
    }
}

#[test]
fn two_messages_to_more_subscribers_than_one_tick_serves_come_in_order() {
    for driver in DRIVERS {
        let broker = Broker::start(*driver, 1, &[DEBUG]);
        let count = FAN_OUT_AT_ONCE_MAX + 452;
        let mut subscribers: Vec<Peer> =
            ids("subscriber", count).iter().map(|id| Peer::connect(&broker, V311, id)).collect();
        for subscriber in &mut subscribers {
            subscriber.send_subscribe("wide", SubscribeOptions { qos: AtLeastOnce, ..Default::default() });
        }
        for subscriber in &mut subscribers {
            let suback = subscriber.next();
            assert!(matches!(suback.packet(), Packet::SubAck(_)), "{suback:?}");
        }
        let mut publisher = Peer::connect(&broker, V311, "publisher");
        let all = [AtMostOnce, AtMostOnce, AtLeastOnce, AtLeastOnce, AtMostOnce];
        let acks: Vec<_> = all
            .iter()
            .enumerate()
            .filter_map(|(n, qos)| publisher.send_publish("wide", n.to_string().as_bytes(), *qos, false))
            .collect();
        acks.into_iter().for_each(|id| publisher.expect_ack(AckKind::PubAck, id));
        for subscriber in &mut subscribers {
            for n in 0..all.len() {
                assert_eq!(subscriber.take().text(), n.to_string());
            }
        }
        drop(publisher);
        // Messages of the broker's own are handed out one after the other.
        let wills: Vec<Peer> = ids("willing", 3)
            .iter()
            .map(|id| Peer::login(&broker, &Login::new(V311, id).will("wide", id.as_bytes())).0)
            .collect();
        wills.into_iter().for_each(Peer::cut);
        for subscriber in &mut subscribers {
            let mut got: Vec<_> = (0..3).map(|_| subscriber.take().text().to_owned()).collect();
            got.sort();
            assert_eq!(got, ids("willing", 3));
        }
        subscribers.iter_mut().for_each(Peer::ping);
        let totals = Totals::of(broker);
        assert!(totals.counter("cursors") >= all.len() as u64, "they were handed out over several ticks");
        totals.expect_only(&[]);
    }
}

#[test]
fn retained_messages_come_at_the_pace_of_queue_and_connection() {
    for driver in DRIVERS {
        for shards in [1, 4] {
            let settings = [DEBUG, ("mqtt.max_mqueue", "10")];
            let broker = Broker::start(*driver, shards, &settings);
            let mut publisher = Peer::connect(&broker, V5, "publisher");
            for n in 0..100 {
                let payload = vec![b'x'; if n < 50 { 64 << 10 } else { 10 }];
                publisher.publish(&format!("kept/{n}"), &payload, AtLeastOnce, true);
            }
            for qos in [AtMostOnce, AtLeastOnce] {
                let mut reader = Peer::connect(&broker, V311, "reader");
                assert_eq!(reader.subscribe("kept/#", qos), qos as u8);
                let mut topics: Vec<_> = (0..100).map(|_| reader.take().topic).collect();
                topics.sort();
                topics.dedup();
                assert_eq!(topics.len(), 100);
                reader.ping();
            }
            Totals::of(broker).expect_only(&[]);
        }
    }
}

#[test]
fn retained_messages_of_qos_0_do_not_pile_up_between_shards() {
    for driver in DRIVERS {
        let broker = Broker::start(*driver, 4, &[DEBUG]);
        let mut publisher = Peer::connect(&broker, V311, "publisher");
        let mut bytes = Vec::new();
        for n in 0..20_000 {
            let (topic, payload) = (format!("kept/{}", n % 500), n.to_string());
            let packet = Packet::Publish(Publish {
                dup: false,
                qos: AtMostOnce,
                retain: true,
                topic: &topic,
                packet_id: None,
                properties: Properties::EMPTY,
                payload: payload.as_bytes(),
            });
            packet.encode(V311, &mut bytes);
        }
        publisher.send_raw(&bytes);
        publisher.ping();
        let mut reader = Peer::connect(&broker, V311, "reader");
        reader.subscribe("kept/#", AtMostOnce);
        for _ in 0..500 {
            let number: usize = reader.take().text().parse().unwrap();
            assert!(number >= 19_500, "the last one of each topic, not {number}");
        }
        let totals = Totals::of(broker);
        // One at a time waits behind a full ring.
        let overflow = totals.counter("control_overflow");
        assert!(overflow < 2_000, "{overflow} of {} control messages", totals.counter("control_out"));
        totals.expect_only(&[]);
    }
}
