//! Many connections with one client identifier: one stays, the others are told.

mod common;

use common::{Broker, Login, Peer, Read, TIMEOUT, everywhere, named};
use ringmq::codec::{AckKind, Packet, ReasonCode, Version};
use ringmq::message::QoS;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SHARDS: usize = 8;

/// How a connection of many with one identifier ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// DISCONNECT with 0x8E (5.0) and the end of the connection.
    Told,
    /// The end of the connection alone (3.1.1).
    Closed,
    /// It answers a PINGREQ when all others have ended.
    Alive,
}

const CROWD: usize = 50;

#[test]
fn of_many_connections_with_one_client_id_one_stays_and_the_others_are_told() {
    everywhere(SHARDS, &[], |broker, version| {
        for round in 0..5 {
            let (start, others) = (Barrier::new(CROWD), AtomicUsize::new(0));
            let ends: Vec<End> = thread::scope(|scope| {
                let rivals: Vec<_> = (0..CROWD)
                    .map(|n| {
                        let (start, others) = (&start, &others);
                        scope.spawn(move || {
                            let name = format!("crowd-{round}-{version:?}");
                            let mut login = Login::lasting(version, &name);
                            login.clean_start = n % 2 == 0;
                            start.wait();
                            rival(broker, &login, others)
                        })
                    })
                    .collect();
                rivals.into_iter().map(|rival| rival.join().expect("a rival's end")).collect()
            });
            let told = if version == Version::V5 { End::Told } else { End::Closed };
            let count = |end: End| ends.iter().filter(|e| **e == end).count();
            assert_eq!((count(End::Alive), count(told)), (1, CROWD - 1), "{version:?}: {ends:?}");
        }
    });
}

/// Connects, which must succeed [MQTT-3.1.4-3 of 5.0, MQTT-3.1.4-2 of 3.1.1], and reads until the end.
fn rival(broker: &Broker, login: &Login, others: &AtomicUsize) -> End {
    let (mut peer, _) = Peer::login(broker, login);
    let deadline = Instant::now() + TIMEOUT;
    while others.load(Ordering::SeqCst) < CROWD - 1 {
        assert!(Instant::now() < deadline, "{others:?} connections ended, expected {}", CROWD - 1);
        let end = match peer.read_packet(Duration::from_millis(20)) {
            Read::TimedOut => continue,
            Read::Closed => End::Closed,
            Read::Packet(received) => {
                let Packet::Disconnect(disconnect) = received.packet() else { panic!("got {received:?}") };
                assert_eq!(disconnect.code, ReasonCode::SESSION_TAKEN_OVER);
                peer.expect_closed();
                End::Told
            }
        };
        others.fetch_add(1, Ordering::SeqCst);
        return end;
    }
    peer.ping();
    End::Alive
}

#[test]
fn a_takeover_passes_the_session_on_or_ends_it() {
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("passed", version);
        let (mut first, present) = Peer::login(broker, &Login::lasting(version, &name));
        assert!(!present);
        first.subscribe("passed/on", QoS::AtLeastOnce);
        let (mut second, present) = Peer::login(broker, &Login::lasting(version, &name));
        assert!(present);
        first.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER);
        let mut publisher = Peer::connect(broker, version, &named("passer", version));
        publisher.publish("passed/on", b"1", QoS::AtLeastOnce, false);
        assert_eq!(second.expect_message().text(), "1");
        // What the second did not acknowledge ends with a session that starts anew.
        let (mut third, present) = Peer::login(broker, &Login::new(version, &name));
        assert!(!present);
        second.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER);
        publisher.publish("passed/on", b"2", QoS::AtLeastOnce, false);
        third.ping();
    });
}

#[test]
fn a_client_that_did_not_read_is_still_told_that_it_was_taken_over() {
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("slow", version);
        let (mut slow, _) = Peer::login(broker, &Login::new(version, &name));
        slow.subscribe(&name, QoS::AtMostOnce);
        let sent = fill(broker, version, &name);
        let _second = Peer::connect(broker, version, &name);
        let mut came = 0;
        let end = loop {
            match slow.read_packet(TIMEOUT) {
                Read::Packet(received) if received.message().is_some() => came += 1,
                end => break end,
            }
        };
        assert!(came > 0 && came <= sent, "{came} of {sent}");
        match end {
            Read::Packet(received) if version == Version::V5 => {
                let Packet::Disconnect(disconnect) = received.packet() else { panic!("got {received:?}") };
                assert_eq!(disconnect.code, ReasonCode::SESSION_TAKEN_OVER);
                slow.expect_closed();
            }
            Read::Closed if version < Version::V5 => {}
            other => panic!("{version:?}: {other:?} after {came} of {sent} messages"),
        }
    });
}

#[test]
fn a_client_that_reads_again_gets_all_that_waited_for_it() {
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("late", version);
        let (mut late, _) = Peer::login(broker, &Login::new(version, &name));
        late.subscribe(&name, QoS::AtMostOnce);
        fill(broker, version, &name);
        late.send(&Packet::PingReq);
        loop {
            let received = late.next();
            if received.packet() == Packet::PingResp {
                break;
            }
            assert!(received.message().is_some(), "{received:?}");
        }
        late.ping();
    });
}

/// Publishes far more than the sockets and the broker keep for a client that does not read.
fn fill(broker: &Broker, version: Version, topic: &str) -> usize {
    let mut publisher = Peer::connect(broker, version, &format!("filler-of-{topic}"));
    let payload = vec![b'.'; 60_000];
    let count = 400;
    for _ in 0..count {
        publisher.publish(topic, &payload, QoS::AtMostOnce, false);
    }
    publisher.ping();
    count
}

#[test]
fn takeovers_during_a_stream_of_messages_lose_none() {
    const MESSAGES: usize = 600;
    everywhere(SHARDS, &[], |broker, version| {
        let name = named("stream", version);
        let login = Login::lasting(version, &name);
        let (mut first, _) = Peer::login(broker, &login);
        first.subscribe(&name, QoS::AtLeastOnce);
        drop(first);
        let got = Mutex::new(BTreeMap::new());
        let done = AtomicBool::new(false);
        let deadline = Instant::now() + TIMEOUT;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        assert!(
                            Instant::now() < deadline,
                            "{:?} of {MESSAGES} came",
                            got.lock().map(|g| g.len())
                        );
                        let (mut peer, _) = Peer::login(broker, &login);
                        read_some(&mut peer, &got);
                        done.fetch_or(
                            got.lock().expect("no reader failed").len() == MESSAGES,
                            Ordering::SeqCst,
                        );
                    }
                });
            }
            let mut publisher = Peer::connect(broker, version, &named("streamer", version));
            for n in 0..MESSAGES {
                publisher.publish(&name, n.to_string().as_bytes(), QoS::AtLeastOnce, false);
            }
        });
        assert_eq!(got.into_inner().expect("no reader failed").len(), MESSAGES);
    });
}

/// Reads until the connection ends or nothing came for a while; acknowledges what came.
fn read_some(peer: &mut Peer, got: &Mutex<BTreeMap<usize, usize>>) {
    let mut before = None;
    while let Read::Packet(received) = peer.read_packet(Duration::from_millis(100)) {
        // Also DISCONNECT: then the end follows.
        let Some(message) = received.message() else { continue };
        let number: usize = message.text().parse().expect("a number");
        // [MQTT-4.6.0-5]: on one connection, in order.
        assert!(before < Some(number), "{number} came after {before:?}");
        before = Some(number);
        let mut got = got.lock().expect("no other reader failed");
        let times = got.entry(number).or_insert(0);
        *times += usize::from(!message.dup);
        assert!(*times <= 1, "{number} came twice without DUP");
        drop(got);
        let mut ack = Vec::new();
        ringmq::codec::encode_ack(
            &mut ack,
            peer.version(),
            AckKind::PubAck,
            message.packet_id.expect("QoS 1"),
            ReasonCode::SUCCESS,
        );
        // Whoever was taken over meanwhile cannot send.
        let _ = peer.try_send_raw(&ack);
    }
}
