//! Every limit of `[mqtt]`, hit on purpose, with the answer that etc/ringmq.toml promises: 3.1.1 and 5.0, both drivers.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "common/mod.rs"]
mod common;

use common::{Broker, DRIVERS, Http, Login, Peer, VERSIONS, everywhere, ids, named};
use ringmq::codec::{AckKind, Packet, ReasonCode, Version};
use ringmq::message::QoS;

/// The code of the CONNACK.
fn connack(broker: &Broker, login: &Login) -> ReasonCode {
    let (_, answer) = Peer::try_login(broker, login);
    let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
    connack.code
}

/// What is answered to a PUBLISH of QoS 1 or 2, up to its end.
fn answer(peer: &mut Peer, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> ReasonCode {
    peer.send_publish(topic, payload, qos, retain);
    let received = peer.next();
    let Packet::Ack(ack) = received.packet() else { panic!("an acknowledgement, got {received:?}") };
    if ack.kind == AckKind::PubRec && !ack.code.is_error() {
        peer.ack(AckKind::PubRel, ack.packet_id);
        peer.expect_ack(AckKind::PubComp, ack.packet_id);
    }
    ack.code
}

/// Changes a setting, and waits until all shards refuse this and no more for want of memory.
fn press(broker: &Broker, max: u64, step: u64) {
    let http = Http::of(broker);
    let body = format!("{{\"data\": {{\"broker.max_memory\": {max}}}}}");
    assert_eq!(http.post("/api/v4/reload", &body).status, 200);
    let mut now = Vec::new();
    for _ in 0..600 {
        let told = http.json("/api/v4/shards");
        let shards = told["data"].as_array().unwrap();
        now = shards.iter().map(|shard| shard["gauges"]["pressure"].as_u64().unwrap()).collect();
        if now.iter().all(|pressure| *pressure == step) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("step {step} with {max} bytes, got {now:?}");
}

/// Bytes that the shards hold.
fn held(broker: &Broker) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    told["data"].as_array().unwrap().iter().map(|shard| shard["memory"]["total"].as_u64().unwrap()).sum()
}

/// A value that all shards count together.
fn counter(broker: &Broker, name: &str) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    let shards = told["data"].as_array().unwrap();
    shards.iter().map(|shard| shard["counters"][name].as_u64().unwrap()).sum()
}

/// Messages that were not retained though nobody was told.
fn not_retained(broker: &Broker) -> u64 {
    Http::of(broker).json("/api/v4/losses")["causes"]["retained_full"].as_u64().unwrap()
}

#[test]
fn subscriptions_of_a_session() {
    everywhere(2, &[("mqtt.max_subscriptions", "2")], |broker, version| {
        let mut peer = Peer::connect(broker, version, &named("many", version));
        assert_eq!((peer.subscribe("a", QoS::AtMostOnce), peer.subscribe("b/+", QoS::AtLeastOnce)), (0, 1));
        let refused = if version == Version::V5 { ReasonCode::QUOTA_EXCEEDED.0 } else { 0x80 };
        assert_eq!(peer.subscribe("c", QoS::AtMostOnce), refused);
        // One that is there may change, and one that ends makes room.
        assert_eq!(peer.subscribe("a", QoS::AtLeastOnce), 1);
        peer.send_unsubscribe("a");
        let _ = peer.next();
        assert_eq!(peer.subscribe("c", QoS::AtMostOnce), 0);
    });
}

#[test]
fn levels_of_a_topic() {
    everywhere(2, &[("mqtt.max_topic_levels", "3")], |broker, version| {
        let mut peer = Peer::connect(broker, version, &named("deep", version));
        let refused = if version == Version::V5 { ReasonCode::TOPIC_FILTER_INVALID.0 } else { 0x80 };
        assert_eq!(
            (peer.subscribe("a/b/c", QoS::AtMostOnce), peer.subscribe("a/b/c/d", QoS::AtMostOnce)),
            (0, refused)
        );
        assert!(!answer(&mut peer, "x/y/z", b"x", QoS::AtLeastOnce, false).is_error());
        peer.send_publish("x/y/z/z", b"x", QoS::AtLeastOnce, false);
        peer.expect_disconnect(ReasonCode::TOPIC_NAME_INVALID);
    });
}

#[test]
fn bytes_of_a_packet() {
    everywhere(2, &[("mqtt.max_packet_size", "1024")], |broker, version| {
        let mut peer = Peer::connect(broker, version, &named("large", version));
        assert!(!answer(&mut peer, "t", &[7; 900], QoS::AtLeastOnce, false).is_error());
        peer.send_publish("t", &[7; 1_100], QoS::AtLeastOnce, false);
        peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
    });
}

#[test]
fn bytes_of_a_client_identifier() {
    everywhere(2, &[("mqtt.max_clientid_len", "23")], |broker, version| {
        assert_eq!(connack(broker, &Login::new(version, &"i".repeat(23))), ReasonCode::SUCCESS);
        assert_eq!(connack(broker, &Login::new(version, &"i".repeat(24))), ReasonCode::CLIENT_ID_NOT_VALID);
    });
}

#[test]
fn messages_under_way_to_a_client() {
    everywhere(2, &[("mqtt.max_inflight", "2")], |broker, version| {
        let mut slow = Peer::connect(broker, version, &named("slow", version));
        let topic = named("inflight", version);
        slow.subscribe(&topic, QoS::AtLeastOnce);
        let mut publisher = Peer::connect(broker, version, &named("publisher", version));
        for payload in [b"1", b"2", b"3"] {
            publisher.publish(&topic, payload, QoS::AtLeastOnce, false);
        }
        let first = slow.expect_message();
        assert_eq!((first.text(), slow.expect_message().text()), ("1", "2"));
        // The third waits for an acknowledgement.
        slow.ping();
        slow.ack(AckKind::PubAck, first.packet_id.unwrap());
        assert_eq!(slow.expect_message().text(), "3");
    });
}

#[test]
fn messages_of_qos_2_without_pubrel() {
    everywhere(2, &[("mqtt.max_awaiting_rel", "1")], |broker, version| {
        let mut peer = Peer::connect(broker, version, &named("twice", version));
        let first = peer.send_publish("t", b"1", QoS::ExactlyOnce, false).unwrap();
        peer.expect_ack(AckKind::PubRec, first);
        let second = peer.send_publish("t", b"2", QoS::ExactlyOnce, false).unwrap();
        if version == Version::V5 {
            return peer.expect_disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
        }
        // 3.1.1 has no Receive Maximum.
        peer.expect_ack(AckKind::PubRec, second);
    });
}

/// What a session that was offline gets of ten messages.
fn kept(broker: &Broker, version: Version, name: &str, payload: impl Fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    let login = Login::lasting(version, &named(name, version));
    let (mut peer, _) = Peer::login(broker, &login);
    let topic = named(name, version);
    peer.subscribe(&topic, QoS::AtLeastOnce);
    peer.disconnect();
    let mut publisher = Peer::connect(broker, version, &named("publisher", version));
    for i in 0..10 {
        publisher.publish(&topic, &payload(i), QoS::AtLeastOnce, false);
    }
    let (mut peer, present) = Peer::login(broker, &login);
    assert!(present);
    peer.send(&Packet::PingReq);
    let mut kept = Vec::new();
    loop {
        let received = peer.next();
        match received.message() {
            Some(message) => {
                peer.ack(AckKind::PubAck, message.packet_id.unwrap());
                kept.push(message.payload);
            }
            None if received.packet() == Packet::PingResp => return kept,
            None => panic!("a message, got {received:?}"),
        }
    }
}

#[test]
fn messages_that_wait_for_a_session() {
    // On one shard, where what was acknowledged is in the queue.
    everywhere(1, &[("mqtt.max_mqueue", "3")], |broker, version| {
        let kept = kept(broker, version, "queue", |i| vec![b'0' + i as u8]);
        assert_eq!(kept, [b"7", b"8", b"9"], "the oldest are dropped");
    });
}

#[test]
fn bytes_that_wait_for_a_session() {
    let settings = [("mqtt.max_mqueue_bytes", "4096"), ("mqtt.max_packet_size", "4096")];
    everywhere(1, &settings, |broker, version| {
        let kept = kept(broker, version, "bytes", |i| vec![b'0' + i as u8; 1_000]);
        // What a message takes beside its payload is little, and the last ones are those that stay.
        assert!((2..=4).contains(&kept.len()), "{}", kept.len());
        let last: Vec<u8> = kept.iter().map(|payload| payload[0]).collect();
        assert_eq!(last, &b"0123456789"[10 - kept.len()..]);
    });
}

#[test]
fn retained_messages_by_number() {
    retained("mqtt.max_retained", "40", |i| vec![b'0' + (i % 10) as u8]);
}

#[test]
fn retained_messages_by_bytes() {
    retained("mqtt.max_retained_bytes", "200000", |_| vec![b'x'; 8_000]);
}

/// Publishes retained messages until there is no room: 5.0 is told so, and nobody gets what was refused; 3.1.1, and QoS
/// 0, is not told, and its messages are delivered and not retained.
fn retained(key: &str, max: &str, payload: impl Fn(usize) -> Vec<u8>) {
    for &driver in DRIVERS {
        // From every shard to every shard.
        for shards in [1, 3] {
            let broker = Broker::start_http(driver, shards, &[(key, max)]);
            let mut peers: Vec<Peer> =
                ids("publisher", 6).iter().map(|id| Peer::connect(&broker, Version::V5, id)).collect();
            let (mut taken, mut refused) = (Vec::new(), Vec::new());
            for i in 0..120 {
                let (topic, qos) = (format!("r/{i}"), [QoS::AtLeastOnce, QoS::ExactlyOnce][i % 2]);
                let at = i % peers.len();
                match answer(&mut peers[at], &topic, &payload(i), qos, true) {
                    ReasonCode::QUOTA_EXCEEDED => refused.push(topic),
                    code => {
                        assert!(!code.is_error(), "{topic}: {code}");
                        taken.push(topic);
                    }
                }
            }
            assert!(!taken.is_empty() && !refused.is_empty(), "{} {}", taken.len(), refused.len());
            assert_eq!(counter(&broker, "retained_refused"), refused.len() as u64);
            let mut live = Peer::connect(&broker, Version::V5, "live");
            live.subscribe("r/#", QoS::AtMostOnce);
            // What was taken while a part became full, and before the others knew, may not have been retained.
            let lost = not_retained(&broker) as usize;
            let seen: Vec<String> = (lost..taken.len()).map(|_| live.expect_message().topic).collect();
            live.ping();
            assert!(shards > 1 || lost == 0, "one shard knows at once");
            assert!(seen.iter().all(|topic| taken.contains(topic)), "{seen:?}");
            // A topic that has one may have another, and a refused one has none.
            assert!(!answer(&mut peers[0], &seen[0], &payload(1), QoS::AtLeastOnce, true).is_error());
            assert_eq!(live.expect_message().topic, seen[0]);
            let topic = &refused[0];
            assert_eq!(
                answer(&mut peers[1], topic, &payload(1), QoS::AtLeastOnce, true),
                ReasonCode::QUOTA_EXCEEDED
            );
            // Nobody can be told.
            peers[2].send_publish(topic, &payload(2), QoS::AtMostOnce, true);
            assert_eq!(live.expect_message().payload, payload(2));
            let mut old = Peer::connect(&broker, Version::V311, "old");
            old.publish(topic, &payload(3), QoS::AtLeastOnce, true);
            assert_eq!(live.expect_message().payload, payload(3));
            let mut late = Peer::connect(&broker, Version::V311, "late");
            late.subscribe(topic, QoS::AtMostOnce);
            late.ping();
            // One that is forgotten makes room for another at the same shard.
            for topic in &seen {
                peers[3].publish(topic, b"", QoS::AtLeastOnce, true);
                assert!(live.expect_message().payload.is_empty());
            }
            assert!(!answer(&mut peers[4], topic, &payload(4), QoS::AtLeastOnce, true).is_error());
            broker.stop();
        }
    }
}

#[test]
fn memory_of_the_shards_is_refused_in_the_order_that_is_promised() {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &[]);
        let mut old = Peer::connect(&broker, Version::V311, "old");
        let mut new = Peer::connect(&broker, Version::V5, "new");
        let mut reader = Peer::connect(&broker, Version::V5, "reader");
        reader.subscribe("t/#", QoS::AtMostOnce);
        let percent = |percent: u64| held(&broker) * 100 / percent;
        press(&broker, percent(102), 1);
        for version in VERSIONS {
            let code = connack(&broker, &Login::new(version, &named("late", version)));
            let v5 = version == Version::V5;
            assert_eq!(code, if v5 { ReasonCode::QUOTA_EXCEEDED } else { ReasonCode::SERVER_UNAVAILABLE });
        }
        assert_eq!((old.subscribe("o/1", QoS::AtMostOnce), new.subscribe("n/1", QoS::AtMostOnce)), (0, 0));
        press(&broker, percent(107), 2);
        let quota = ReasonCode::QUOTA_EXCEEDED;
        assert_eq!(
            (old.subscribe("o/2", QoS::AtMostOnce), new.subscribe("n/2", QoS::AtMostOnce)),
            (0x80, quota.0)
        );
        // What is there may change.
        assert_eq!(new.subscribe("n/1", QoS::AtLeastOnce), 1);
        assert!(!answer(&mut new, "t/kept", b"1", QoS::AtLeastOnce, true).is_error());
        assert_eq!(reader.expect_message().topic, "t/kept");
        press(&broker, percent(112), 3);
        assert_eq!(answer(&mut new, "t/refused", b"2", QoS::ExactlyOnce, true), quota);
        old.publish("t/old", b"3", QoS::AtLeastOnce, true);
        assert_eq!(reader.expect_message().topic, "t/old");
        assert!(!answer(&mut new, "t/live", b"4", QoS::AtLeastOnce, false).is_error());
        assert_eq!(reader.expect_message().topic, "t/live");
        press(&broker, percent(120), 4);
        assert_eq!(answer(&mut new, "t/none", b"5", QoS::AtLeastOnce, false), quota);
        new.send_publish("t/none", b"6", QoS::AtMostOnce, false);
        new.ping();
        let waits = old.send_publish("t/waits", b"7", QoS::AtLeastOnce, false).unwrap();
        reader.ping();
        press(&broker, 0, 0);
        old.expect_ack(AckKind::PubAck, waits);
        assert_eq!(reader.expect_message().topic, "t/waits");
        let causes = Http::of(&broker).json("/api/v4/losses")["causes"].clone();
        assert_eq!((&causes["memory_full"], &causes["retained_full"]), (&1.into(), &1.into()));
        // Nothing is refused any more, and what was to be retained meanwhile is not.
        let mut late = Peer::connect(&broker, Version::V311, "late");
        late.subscribe("t/#", QoS::AtMostOnce);
        assert_eq!(late.expect_message().topic, "t/kept");
        late.ping();
        broker.stop();
    }
}
