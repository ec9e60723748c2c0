//! What outlives a connection: resumed sessions, what is sent again, the end of sessions, delayed wills.

mod common;

use common::{Broker, DRIVERS, Driver, Login, Message, Peer, TIMEOUT, WillSpec, everywhere, named};
use ringmq::codec::{
    AckKind, Disconnect, Packet, PacketId, Properties, Property, PropertyBuf, Publish, ReasonCode, Version,
};
use ringmq::message::QoS;
use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const SHARDS: usize = 8;

// Sessions.

#[test]
fn session_present_says_whether_there_was_one() {
    everywhere(SHARDS, &[], |broker, version| {
        let lasting = Login::lasting(version, &named("present", version));
        let clean = Login { clean_start: true, ..lasting.clone() };
        let ended = Login { session_expiry_s: None, ..clean.clone() };
        let mut expected = vec![(&lasting, false), (&lasting, true), (&clean, false)];
        if version == Version::V5 {
            // The session of a 5.0 client outlives its connection as long as it asks for, Clean Start or not.
            expected.extend([(&lasting, true), (&ended, false), (&lasting, false)]);
        } else {
            expected.extend([(&lasting, false), (&lasting, true)]);
        }
        for (at, (login, wanted)) in expected.into_iter().enumerate() {
            let (mut peer, present) = Peer::login(broker, login);
            assert_eq!(present, wanted, "{version:?}, connection {at}");
            peer.ping();
            if at % 2 == 0 { peer.disconnect() } else { peer.cut() }
        }
    });
}

#[test]
fn what_was_in_flight_is_sent_again_in_order() {
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("flight", version);
        let login = Login::lasting(version, &name);
        let (mut subscriber, _) = Peer::login(broker, &login);
        subscriber.subscribe(&format!("{name}/#"), QoS::ExactlyOnce);
        let mut publisher = Peer::connect(broker, version, &named("flier", version));
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let mut first: Vec<Message> = Vec::new();
        for (n, qos) in qos.into_iter().enumerate() {
            publisher.publish(&format!("{name}/{n}"), n.to_string().as_bytes(), qos, false);
            first.push(subscriber.expect_message());
            assert_eq!((first[n].text(), first[n].qos, first[n].dup), (n.to_string().as_str(), qos, false));
        }
        let ids: Vec<PacketId> = first.iter().filter_map(|m| m.packet_id).collect();
        subscriber.ack(AckKind::PubRec, ids[1]);
        subscriber.expect_ack(AckKind::PubRel, ids[1]);
        subscriber.cut();
        publisher.publish(&format!("{name}/4"), b"4", QoS::AtLeastOnce, false);
        let (mut subscriber, present) = Peer::login(broker, &login);
        assert!(present);
        for n in [0, 1, 2, 3] {
            if n == 1 {
                subscriber.expect_ack(AckKind::PubRel, ids[1]);
                continue;
            }
            let again = Message { dup: true, ..first[n].clone() }; // [MQTT-3.3.1-1], [MQTT-4.4.0-1]
            assert_eq!(subscriber.expect_message(), again);
        }
        let later = subscriber.expect_message();
        assert_eq!((later.text(), later.dup), ("4", false));
        subscriber.ack(AckKind::PubAck, ids[0]);
        subscriber.ack(AckKind::PubComp, ids[1]);
        subscriber.ack(AckKind::PubAck, ids[2]);
        subscriber.ack(AckKind::PubRec, ids[3]);
        subscriber.expect_ack(AckKind::PubRel, ids[3]);
        subscriber.ack(AckKind::PubComp, ids[3]);
        subscriber.ack(AckKind::PubAck, later.packet_id.expect("QoS 1"));
        subscriber.cut();
        let (mut subscriber, present) = Peer::login(broker, &login);
        assert!(present);
        subscriber.ping();
    });
}

#[test]
fn the_receive_maximum_holds_for_what_is_sent_again() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let mut login = Login::lasting(Version::V5, "narrow");
        let (mut subscriber, _) = Peer::login(&broker, &login);
        subscriber.subscribe("narrow", QoS::AtLeastOnce);
        let mut publisher = Peer::connect(&broker, Version::V5, "wide");
        for n in 0..6 {
            publisher.publish("narrow", n.to_string().as_bytes(), QoS::AtLeastOnce, false);
            subscriber.expect_message();
        }
        subscriber.cut();
        login.receive_maximum = Some(2);
        let (mut subscriber, _) = Peer::login(&broker, &login);
        let mut unacknowledged = vec![subscriber.expect_message()];
        for n in 1..6 {
            unacknowledged.push(subscriber.expect_message());
            subscriber.ping();
            assert_eq!(unacknowledged[1].text(), n.to_string());
            subscriber.ack(AckKind::PubAck, unacknowledged.remove(0).packet_id.expect("QoS 1"));
        }
        broker.stop();
    }
}

/// Steps of QoS 2 after which a connection can break.
const STEPS: [usize; 4] = [1, 2, 3, 4];

#[test]
fn qos_2_to_a_client_arrives_once_whatever_step_the_connection_breaks_at() {
    everywhere(SHARDS, &[], |broker, version| {
        for step in STEPS {
            let name = named(&format!("to-{step}"), version);
            let login = Login::lasting(version, &name);
            let (mut subscriber, _) = Peer::login(broker, &login);
            subscriber.subscribe(&name, QoS::ExactlyOnce);
            let mut publisher = Peer::connect(broker, version, &named(&format!("from-{step}"), version));
            publisher.publish(&name, b"once", QoS::ExactlyOnce, false);
            let message = subscriber.expect_message();
            let packet_id = message.packet_id.expect("QoS 2");
            if step >= 2 {
                subscriber.ack(AckKind::PubRec, packet_id);
            }
            if step >= 3 {
                subscriber.expect_ack(AckKind::PubRel, packet_id);
            }
            if step >= 4 {
                subscriber.ack(AckKind::PubComp, packet_id);
            }
            subscriber.cut();
            let (mut subscriber, present) = Peer::login(broker, &login);
            assert!(present);
            if step == 1 {
                assert_eq!(subscriber.expect_message(), Message { dup: true, ..message });
                subscriber.ack(AckKind::PubRec, packet_id);
            }
            if step <= 3 {
                subscriber.expect_ack(AckKind::PubRel, packet_id);
                subscriber.ack(AckKind::PubComp, packet_id);
            }
            subscriber.ping();
        }
    });
}

#[test]
fn qos_2_from_a_client_is_published_once_whatever_step_the_connection_breaks_at() {
    everywhere(SHARDS, &[], |broker, version| {
        for step in STEPS {
            let name = named(&format!("out-{step}"), version);
            let mut subscriber = Peer::connect(broker, version, &named(&format!("in-{step}"), version));
            subscriber.subscribe(&name, QoS::AtMostOnce);
            let login = Login::lasting(version, &name);
            let (mut publisher, _) = Peer::login(broker, &login);
            let packet_id = PacketId::new(77).expect("not 0");
            send_qos_2(&mut publisher, &name, packet_id, false);
            if step >= 2 {
                publisher.expect_ack(AckKind::PubRec, packet_id);
            }
            if step >= 3 {
                publisher.ack(AckKind::PubRel, packet_id);
            }
            if step >= 4 {
                publisher.expect_ack(AckKind::PubComp, packet_id);
            }
            publisher.cut();
            let (mut publisher, present) = Peer::login(broker, &login);
            assert!(present);
            if step <= 2 {
                send_qos_2(&mut publisher, &name, packet_id, true);
                publisher.expect_ack(AckKind::PubRec, packet_id);
            }
            if step <= 3 {
                publisher.ack(AckKind::PubRel, packet_id);
                expect_pubcomp(&mut publisher, packet_id, step == 3);
            }
            // The identifier is free again, so this is another message.
            send_qos_2(&mut publisher, &name, packet_id, false);
            publisher.expect_ack(AckKind::PubRec, packet_id);
            publisher.ack(AckKind::PubRel, packet_id);
            publisher.expect_ack(AckKind::PubComp, packet_id);
            publisher.publish(&name, b"last", QoS::AtMostOnce, false);
            let came: Vec<_> = (0..3).map(|_| subscriber.expect_message().text().to_owned()).collect();
            assert_eq!(came, ["once", "once", "last"], "{version:?}, step {step}");
        }
    });
}

fn send_qos_2(publisher: &mut Peer, topic: &str, packet_id: PacketId, dup: bool) {
    publisher.send(&Packet::Publish(Publish {
        dup,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic,
        packet_id: Some(packet_id),
        properties: Properties::EMPTY,
        payload: b"once",
    }));
}

/// A PUBREL that is sent again may find its identifier released: 5.0 says so in the answer.
fn expect_pubcomp(publisher: &mut Peer, packet_id: PacketId, again: bool) {
    let received = publisher.next();
    let Packet::Ack(ack) = received.packet() else { panic!("PUBCOMP, got {received:?}") };
    assert_eq!((ack.kind, ack.packet_id), (AckKind::PubComp, packet_id));
    let unknown = again && publisher.version() == Version::V5;
    let wanted = if unknown { ReasonCode::PACKET_ID_NOT_FOUND } else { ReasonCode::SUCCESS };
    assert_eq!(ack.code, wanted);
}

// The end of sessions.

/// Publishes until nobody is subscribed any more, which only 5.0 is told.
fn until_no_subscriber(broker: &Broker, topic: &str) {
    let mut publisher = Peer::connect(broker, Version::V5, &format!("asks-for-{topic}"));
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        publisher.send_publish(topic, b"?", QoS::AtLeastOnce, false);
        let received = publisher.next();
        let Packet::Ack(ack) = received.packet() else { panic!("PUBACK, got {received:?}") };
        if ack.code == ReasonCode::NO_MATCHING_SUBSCRIBERS {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the session that is subscribed to {topic} did not end");
}

#[test]
fn a_session_ends_after_its_expiry_interval() {
    everywhere(SHARDS, &[("mqtt.session_expiry_s", "1")], |broker, version| {
        let name = named("short", version);
        let session_expiry_s = (version == Version::V5).then_some(1);
        let login = Login { session_expiry_s, ..Login::lasting(version, &name) };
        let (mut peer, _) = Peer::login(broker, &login);
        peer.subscribe(&name, QoS::AtLeastOnce);
        peer.cut();
        until_no_subscriber(broker, &name);
        let (mut peer, present) = Peer::login(broker, &login);
        assert!(!present);
        peer.ping();
    });
}

#[test]
fn a_disconnect_can_change_the_session_expiry_interval() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let login = Login::lasting(Version::V5, "changed");
        let (mut peer, _) = Peer::login(&broker, &login);
        peer.subscribe("changed", QoS::AtLeastOnce);
        let mut properties = PropertyBuf::new();
        assert!(properties.push(Property::SessionExpiryInterval(0)));
        let properties = properties.as_properties();
        peer.send(&Packet::Disconnect(Disconnect { code: ReasonCode::SUCCESS, properties }));
        peer.expect_closed();
        until_no_subscriber(&broker, "changed");
        assert!(!Peer::login(&broker, &login).1);
        broker.stop();
    }
}

// Wills.

fn with_will(name: &str, topic: &str, delay_s: u32) -> Login {
    let (topic, payload) = (topic.to_owned(), name.as_bytes().to_vec());
    let will = WillSpec { topic, payload, qos: QoS::AtLeastOnce, retain: false, delay_s: Some(delay_s) };
    Login { will: Some(will), ..Login::lasting(Version::V5, name) }
}

/// The next will, acknowledged.
fn next_will(watcher: &mut Peer) -> String {
    let message = watcher.expect_message();
    watcher.ack(AckKind::PubAck, message.packet_id.expect("QoS 1"));
    message.text().to_owned()
}

#[test]
fn a_client_that_comes_back_in_time_cancels_its_delayed_will() {
    const DELAY_S: u32 = 3;
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let mut watcher = Peer::connect(&broker, Version::V5, "watcher");
        watcher.subscribe("wills/+", QoS::AtLeastOnce);
        let back = with_will("back", "wills/back", DELAY_S);
        let (peer, _) = Peer::login(&broker, &back);
        let cut_at = Instant::now();
        peer.cut();
        let (back, present) = Peer::login(&broker, &back);
        let in_time = cut_at.elapsed() < Duration::from_secs(DELAY_S.into());
        assert!(present);
        // One that is due later comes to nobody's rescue.
        Peer::login(&broker, &with_will("gone", "wills/gone", DELAY_S + 1)).0.cut();
        let mut wills = vec![next_will(&mut watcher)];
        if !in_time && wills == ["back"] {
            // The machine was too busy for the test to be in time, so the will was due.
            wills = vec![next_will(&mut watcher)];
        }
        assert_eq!(wills, ["gone"], "{driver}");
        // A normal disconnection deletes the will of the present connection.
        back.disconnect();
        watcher.ping();
        broker.stop();
    }
}

#[test]
fn a_takeover_publishes_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, SHARDS, &[]);
        let mut watcher = Peer::connect(&broker, Version::V5, "watcher");
        watcher.subscribe("wills/+", QoS::AtLeastOnce);
        // (Will Delay Interval, Clean Start of the second connection) → published [MQTT-3.1.4-3]
        let cases = [(0, false, true), (0, true, true), (3_600, false, false), (3_600, true, true)];
        let mut expected = Vec::new();
        for (n, (delay_s, clean_start, published)) in cases.into_iter().enumerate() {
            let name = format!("taken-{n}");
            let (mut first, _) = Peer::login(&broker, &with_will(&name, "wills/taken", delay_s));
            let second = Login { clean_start, ..Login::lasting(Version::V5, &name) };
            let (second, _) = Peer::login(&broker, &second);
            first.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER);
            second.disconnect();
            if published {
                expected.push(name);
                let will = next_will(&mut watcher);
                assert_eq!(Some(&will), expected.last(), "{driver}");
            }
        }
        // The end of the session is the latest moment for a will [MQTT-3.1.2-10 of 5.0].
        let brief = Login { session_expiry_s: Some(0), ..with_will("brief", "wills/brief", 3_600) };
        Peer::login(&broker, &brief).0.cut();
        assert_eq!(next_will(&mut watcher), "brief");
        watcher.ping();
        broker.stop();
    }
}

#[test]
fn a_will_is_published_when_a_connection_breaks_and_not_after_a_disconnect() {
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("will", version);
        let mut watcher = Peer::connect(broker, version, &named("watcher", version));
        watcher.subscribe(&name, QoS::AtLeastOnce);
        Peer::login(broker, &Login::new(version, &name).will(&name, b"left")).0.disconnect();
        Peer::login(broker, &Login::new(version, &name).will(&name, b"broke")).0.cut();
        assert_eq!(next_will(&mut watcher), "broke");
        watcher.ping();
    });
}

/// Many clients that break at once: each will once.
#[test]
fn the_wills_of_many_clients_all_arrive() {
    const CLIENTS: usize = 200;
    for &driver in DRIVERS {
        all_wills(driver, CLIENTS);
    }
}

fn all_wills(driver: Driver, clients: usize) {
    let broker = Broker::start(driver, SHARDS, &[]);
    let mut watcher = Peer::connect(&broker, Version::V5, "watcher");
    watcher.subscribe("wills/+", QoS::AtLeastOnce);
    let (gone, wait) = channel();
    thread::scope(|scope| {
        for worker in 0..4 {
            let (broker, gone) = (&broker, gone.clone());
            scope.spawn(move || {
                let peers: Vec<_> = (0..clients / 4)
                    .map(|n| with_will(&format!("client-{worker}-{n}"), &format!("wills/{worker}"), 0))
                    .map(|login| Peer::login(broker, &login).0)
                    .collect();
                drop(peers);
                gone.send(()).expect("the test waits");
            });
        }
    });
    drop(gone);
    assert_eq!(wait.iter().count(), 4);
    let wills: BTreeSet<String> = (0..clients).map(|_| next_will(&mut watcher)).collect();
    assert_eq!(wills.len(), clients);
    watcher.ping();
    broker.stop();
}
