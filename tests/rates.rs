//! How fast a client may send and be sent to, and what becomes of one that comes and goes: 3.1.1 and 5.0, both drivers.
//! No test says how long anything takes; what is bounded shows in what is counted, and in what does not come.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "common/mod.rs"]
mod common;

use common::{Broker, DRIVERS, Http, Login, Peer, VERSIONS, named};
use ringmq::codec::{AckKind, Packet, ReasonCode, Version};
use ringmq::message::QoS;

/// A value that all shards count together.
fn counter(broker: &Broker, name: &str) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    let shards = told["data"].as_array().unwrap();
    shards.iter().map(|shard| shard["counters"][name].as_u64().unwrap()).sum()
}

fn everywhere(settings: &[(&str, &str)], test: impl Fn(&Broker, Version)) {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, settings);
        VERSIONS.iter().for_each(|version| test(&broker, *version));
        broker.stop();
    }
}

/// Publishes as fast as it can and says that all of it arrived, in order.
fn flood(broker: &Broker, version: Version, count: usize, bytes: usize) {
    let topic = named("flood", version);
    let mut subscriber = Peer::connect(broker, version, &named("subscriber", version));
    subscriber.subscribe(&topic, QoS::AtMostOnce);
    let publisher = Peer::connect(broker, version, &named("publisher", version));
    flood_from(publisher, &mut subscriber, count, bytes);
}

/// The same between these two, on a topic that the second one is subscribed to.
fn flood_from(mut publisher: Peer, subscriber: &mut Peer, count: usize, bytes: usize) {
    let topic = named("flood", publisher.version());
    let payload = |i: usize| format!("{i:0bytes$}").into_bytes();
    for i in 0..count {
        publisher.send_publish(&topic, &payload(i), QoS::AtMostOnce, false);
    }
    for i in 0..count {
        assert_eq!(subscriber.expect_message().payload, payload(i));
    }
    // What stands behind it is answered, once it is read.
    publisher.ping();
}

#[test]
fn a_client_that_publishes_too_fast_is_read_later_and_loses_nothing() {
    // Without the second that may come at once, 30 messages take a second.
    everywhere(&[("mqtt.max_message_rate", "30")], |broker, version| {
        let before = counter(broker, "paused");
        flood(broker, version, 60, 10);
        assert!(counter(broker, "paused") > before, "it was made to wait");
    });
}

#[test]
fn a_client_that_sends_too_many_bytes_is_read_later_and_loses_nothing() {
    everywhere(&[("mqtt.max_byte_rate", "100000")], |broker, version| {
        let before = counter(broker, "paused");
        flood(broker, version, 30, 8_000);
        assert!(counter(broker, "paused") > before, "it was made to wait");
    });
}

#[test]
fn a_user_may_have_rates_of_its_own_which_change_for_those_who_are_there() {
    let rates = "sl:ow:max_message_rate=30 free:max_message_rate=0 heavy:max_byte_rate=100000";
    everywhere(&[("mqtt.user_rates", rates)], |broker, version| {
        let topic = named("flood", version);
        let login =
            |user: &str| Peer::login(broker, &Login::new(version, &named(user, version)).user(user, "x")).0;
        let mut subscriber = login("reader");
        subscriber.subscribe(&topic, QoS::AtMostOnce);
        let mut flood = |peer: Peer, count, bytes| {
            let before = counter(broker, "paused");
            flood_from(peer, &mut subscriber, count, bytes);
            counter(broker, "paused") > before
        };
        assert!(!flood(login("other"), 200, 10), "it is not meant");
        assert!(flood(login("sl:ow"), 60, 10), "it was made to wait");
        assert!(flood(login("heavy"), 30, 8_000), "it was made to wait");
        // For those who are there.
        let (free, slow) = (login("free"), login("sl:ow"));
        let set = |rates: &[&str]| {
            let data = serde_json::json!({"data": {"mqtt.user_rates": rates}}).to_string();
            assert_eq!(Http::of(broker).post("/api/v4/reload", &data).status, 200);
        };
        set(&["free:max_message_rate=30"]);
        assert!(flood(free, 60, 10), "it was made to wait");
        assert!(!flood(slow, 200, 10), "it has none any more");
        set(&["sl:ow:max_message_rate=30", "heavy:max_byte_rate=100000"]);
    });
}

#[test]
fn a_user_is_sent_no_more_than_it_may_be() {
    everywhere(
        &[("mqtt.max_message_rate_out", "30"), ("mqtt.user_rates", "free:max_message_rate_out=0")],
        |broker, version| {
            let topic = named("out", version);
            for (user, is_held) in [("free", false), ("other", true)] {
                let (mut to, _) =
                    Peer::login(broker, &Login::new(version, &named(user, version)).user(user, "x"));
                to.subscribe(&topic, QoS::AtLeastOnce);
                let mut from =
                    Peer::login(broker, &Login::new(version, &named("from", version)).user("free", "x")).0;
                let before = counter(broker, "held");
                for i in 0..60_u32 {
                    from.publish(&topic, &i.to_be_bytes(), QoS::AtLeastOnce, false);
                }
                for i in 0..60_u32 {
                    let message = to.expect_message();
                    assert_eq!(message.payload, i.to_be_bytes());
                    to.ack(AckKind::PubAck, message.packet_id.unwrap());
                }
                assert_eq!(counter(broker, "held") > before, is_held, "{user}");
            }
        },
    );
}

#[test]
fn a_client_that_is_slow_enough_never_waits() {
    everywhere(
        &[("mqtt.max_message_rate", "1000"), ("mqtt.max_byte_rate", "100000000")],
        |broker, version| {
            flood(broker, version, 500, 100);
            assert_eq!(counter(broker, "paused"), 0);
        },
    );
}

#[test]
fn a_client_that_ends_while_it_waits_is_gone_once_it_may_be_read() {
    everywhere(&[("mqtt.max_byte_rate", "5000")], |broker, version| {
        let mut watcher = Peer::connect(broker, version, &named("watcher", version));
        let topic = named("will", version);
        watcher.subscribe(&topic, QoS::AtMostOnce);
        let login = Login::new(version, &named("hasty", version)).will(&topic, b"gone");
        let (mut hasty, _) = Peer::login(broker, &login);
        let id = hasty.send_publish("t", &[0; 10_000], QoS::AtLeastOnce, false).unwrap();
        hasty.expect_ack(AckKind::PubAck, id);
        hasty.cut();
        assert_eq!(watcher.expect_message().payload, b"gone");
    });
}

#[test]
fn messages_to_a_client_wait_or_are_dropped_and_counted() {
    everywhere(&[("mqtt.max_message_rate_out", "100")], |broker, version| {
        let topic = named("out", version);
        let mut slow = Peer::connect(broker, version, &named("slow", version));
        slow.subscribe(&topic, QoS::AtLeastOnce);
        let mut publisher = Peer::connect(broker, version, &named("publisher", version));
        let lost = || Http::of(broker).json("/api/v4/losses")["causes"]["output_full"].as_u64().unwrap();
        let (held_before, lost_before) = (counter(broker, "held"), lost());
        // However many of the first 500 come within one tick: those behind them meet a client that owes seconds.
        for i in 0..600 {
            publisher.send_publish(&topic, b"0", QoS::AtMostOnce, false);
            if i == 500 {
                publisher.publish(&topic, b"1", QoS::AtLeastOnce, false);
            }
        }
        publisher.publish(&topic, b"last", QoS::AtLeastOnce, false);
        let (mut kept, mut zeros) = (Vec::new(), 0);
        while kept.last().is_none_or(|payload| payload != b"last") {
            let message = slow.expect_message();
            match message.packet_id {
                Some(id) => {
                    slow.ack(AckKind::PubAck, id);
                    kept.push(message.payload);
                }
                None => zeros += 1,
            }
        }
        assert_eq!(kept, [&b"1"[..], b"last"]);
        slow.ping();
        let lost = lost() - lost_before;
        assert!(counter(broker, "held") > held_before && lost > 0, "{lost}");
        assert_eq!(zeros + lost, 600);
    });
}

#[test]
fn a_zone_has_rates_of_its_own() {
    let settings = [
        ("listeners.slow.bind", "127.0.0.1:0"),
        ("listeners.slow.zone", "slow"),
        ("zones.slow.max_message_rate", "10"),
    ];
    everywhere(&settings, |broker, version| {
        let before = counter(broker, "paused");
        // Through the listener that has no zone.
        flood(broker, version, 60, 10);
        assert_eq!(counter(broker, "paused"), before);
    });
}

#[test]
fn a_client_that_comes_and_goes_is_banned_for_a_while() {
    everywhere(&[("mqtt.flapping_threshold", "3"), ("mqtt.flapping_ban_s", "3600")], |broker, version| {
        let http = Http::of(broker);
        let (restless, calm) = (named("restless", version), named("calm", version));
        for i in 0..3 {
            let peer = Peer::connect(broker, version, &restless);
            if i % 2 == 0 {
                peer.cut()
            } else {
                peer.disconnect()
            }
            Peer::connect(broker, version, &format!("{calm}-{i}")).disconnect();
        }
        let (_, answer) = Peer::try_login(broker, &Login::new(version, &restless));
        let banned = if version == Version::V5 { ReasonCode::BANNED } else { ReasonCode::NOT_AUTHORIZED };
        assert!(matches!(answer.packet(), Packet::ConnAck(c) if c.code == banned), "{answer:?}");
        let told = http.json("/api/v4/banned");
        let rows = told["data"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{told}");
        assert_eq!((rows[0]["who"].as_str(), rows[0]["by"].as_str()), (Some(&*restless), Some("flapping")));
        let span = rows[0]["until"].as_u64().unwrap() - rows[0]["at"].as_u64().unwrap();
        assert_eq!(span, 3_600);
        // It may be taken back, and then it counts anew.
        assert_eq!(http.delete(&format!("/api/v4/banned/clientid/{restless}")).status, 200);
        Peer::connect(broker, version, &restless).disconnect();
        Peer::connect(broker, version, &restless).ping();
        assert_eq!(http.json("/api/v4/banned")["meta"]["count"], 0);
    });
}

#[test]
fn a_ban_that_nobody_has_looked_at_can_be_taken_back_too() {
    everywhere(&[("mqtt.flapping_threshold", "1")], |broker, version| {
        let http = Http::of(broker);
        let id = named("once", version);
        Peer::connect(broker, version, &id).disconnect();
        assert_eq!(http.delete(&format!("/api/v4/banned/clientid/{id}")).status, 200);
        let mut again = Peer::connect(broker, version, &id);
        again.ping();
        assert_eq!(http.delete(&format!("/api/v4/banned/clientid/{id}")).status, 404);
    });
}
