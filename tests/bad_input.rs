//! Bad input closes the one connection, with the right reason code where the protocol has one, and nothing else
//! happens: two bystanders go on, and the broker ends well with counters that say what came.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod common;
#[path = "common/samples.rs"]
mod samples;
#[path = "common/totals.rs"]
mod totals;

use common::{Broker, DRIVERS, Driver, Login, Peer, Read, TIMEOUT};
use ringmq::codec::{Framed, Packet, ReasonCode, SubscribeOptions, Version, frame};
use ringmq::limits::PACKET_BYTES_MAX;
use ringmq::message::QoS;
use samples::{Sample, of_clients, of_servers};
use std::time::Duration;
use totals::Totals;

use Version::{V5, V311};

/// A broker with two bystanders, and how many clients have connected.
struct Scene {
    broker: Broker,
    from: Peer,
    to: Peer,
    connects: u64,
    exchanged: usize,
}

impl Scene {
    fn new(driver: Driver, settings: &[(&str, &str)]) -> Scene {
        let settings: Vec<_> = settings.iter().copied().chain([("log.level", "debug")]).collect();
        let broker = Broker::start(driver, 2, &settings);
        let from = Peer::connect(&broker, V5, "bystander-from");
        let mut to = Peer::connect(&broker, V311, "bystander-to");
        assert_eq!(to.subscribe("by/stander", QoS::ExactlyOnce), 2);
        Scene { broker, from, to, connects: 2, exchanged: 0 }
    }

    /// A client that is connected.
    fn client(&mut self, version: Version) -> Peer {
        self.connects += 1;
        Peer::connect(&self.broker, version, "bad")
    }

    /// The bystanders exchange a message, so everything goes on.
    fn exchange(&mut self) {
        self.exchanged += 1;
        let payload = self.exchanged.to_string();
        self.from.publish("by/stander", payload.as_bytes(), QoS::AtLeastOnce, false);
        let message = self.to.expect_message();
        assert_eq!(message.text(), payload);
        self.to.ack(ringmq::codec::AckKind::PubAck, message.packet_id.unwrap());
    }

    /// The bystanders go on, no session is left over, and the broker ends well.
    fn end(mut self) -> Totals {
        self.exchange();
        for version in [V311, V5] {
            let (peer, present) = Peer::login(&self.broker, &Login::lasting(version, "bad"));
            assert!(!present, "no session is left over");
            drop(peer);
            // It was lasting: this ends it.
            drop(Peer::connect(&self.broker, version, "bad"));
            self.connects += 2;
        }
        self.to.ping();
        let totals = Totals::of(self.broker);
        assert_eq!(totals.counter("connects"), self.connects);
        totals.expect_only(&[]);
        totals
    }
}

/// Sends what the broker may not take in full, then says that nothing more comes.
fn send_all(peer: &mut Peer, bytes: &[u8]) {
    let _ = peer.try_send_raw(bytes);
    peer.end_sending();
}

/// Reads to the end of the connection; returns the last packet.
fn last_packet(peer: &mut Peer) -> Option<common::Received> {
    let mut last = None;
    loop {
        match peer.read_packet(TIMEOUT) {
            Read::Packet(packet) => last = Some(packet),
            Read::Closed => return last,
            Read::TimedOut => panic!("the broker closes the connection; before: {last:?}"),
        }
    }
}

/// Sends bytes on a connection that is open, and expects DISCONNECT with one of these codes (5.0) and the end.
fn expect_end(scene: &mut Scene, version: Version, name: &str, bytes: &[u8], codes: &[ReasonCode]) {
    let mut peer = scene.client(version);
    let _ = peer.try_send_raw(bytes);
    match last_packet(&mut peer).as_ref().map(common::Received::packet) {
        Some(Packet::Disconnect(d)) if version == V5 => {
            assert!(codes.contains(&d.code), "{name}: {codes:?}, got {}", d.code);
        }
        // The part before the fault may have been a packet.
        None | Some(Packet::Ack(_)) if version != V5 => {}
        other => panic!("{name} in {version:?}: {codes:?}, got {other:?}"),
    }
}

#[test]
fn every_truncation_of_every_packet() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for version in [V311, V5] {
            for Sample { name, bytes } in of_clients(version) {
                for cut in 0..bytes.len() {
                    let connects = name.starts_with("CONNECT");
                    let mut peer =
                        if connects { Peer::open(&scene.broker, version) } else { scene.client(version) };
                    send_all(&mut peer, &bytes[..cut]);
                    let last = last_packet(&mut peer);
                    assert!(last.is_none(), "{name} cut at {cut}: {last:?}");
                }
                scene.exchange();
            }
        }
        // Nothing of it was wrong, as far as it went.
        assert_eq!(scene.end().counter("decode_errors"), 0);
    }
}

/// The packet with a remaining length that is larger by this, and so many bytes of 0xFF behind it.
fn stretched(bytes: &[u8], by: i32) -> Vec<u8> {
    let Ok(Framed::Packet { header: 2, .. }) = frame(bytes, PACKET_BYTES_MAX) else {
        panic!("a sample has a remaining length of one byte: {bytes:02x?}")
    };
    let mut bytes = bytes.to_vec();
    bytes[1] = u8::try_from(i32::from(bytes[1]) + by).unwrap();
    bytes.resize(bytes.len() + usize::try_from(by).unwrap_or(0), 0xFF);
    bytes
}

#[test]
fn remaining_lengths_that_are_wrong_by_one() {
    let codes = [ReasonCode::MALFORMED_PACKET, ReasonCode::PROTOCOL_ERROR];
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        let mut wrong = 0;
        for version in [V311, V5] {
            for Sample { name, bytes } in of_clients(version) {
                for by in [-1, 1] {
                    // A payload may have any length; without a body there is nothing to cut.
                    if (by == 1 && name.starts_with("PUBLISH")) || (by == -1 && bytes.len() == 2) {
                        continue;
                    }
                    let bytes = stretched(&bytes, by);
                    wrong += 1;
                    if !name.starts_with("CONNECT") {
                        expect_end(&mut scene, version, &format!("{name} {by:+}"), &bytes, &codes);
                        continue;
                    }
                    let mut peer = Peer::open(&scene.broker, version);
                    let _ = peer.try_send_raw(&bytes);
                    match last_packet(&mut peer).as_ref().map(common::Received::packet) {
                        None => {}
                        Some(Packet::ConnAck(connack)) if version == V5 => {
                            assert!(codes.contains(&connack.code), "{name} {by:+}: {connack:?}");
                        }
                        other => panic!("{name} {by:+}: {other:?}"),
                    }
                }
            }
            scene.exchange();
        }
        assert!(scene.end().counter("decode_errors") >= wrong);
    }
}

#[test]
fn a_packet_of_256_mib_is_refused_when_it_is_announced() {
    // PUBLISH with a remaining length of 268,435,455, and the start of its topic.
    let announced = [0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0x00, 0x03, b'a'];
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for version in [V311, V5] {
            expect_end(&mut scene, version, "256 MiB", &announced, &[ReasonCode::PACKET_TOO_LARGE]);
            for first in [0x30, 0x10] {
                let mut bytes = announced;
                bytes[0] = first;
                let mut peer = Peer::open(&scene.broker, version);
                let _ = peer.try_send_raw(&bytes);
                assert!(last_packet(&mut peer).is_none(), "before CONNECT there is no answer");
            }
        }
        assert_eq!(scene.end().counter("decode_errors"), 6);
    }
}

/// The same numbers in each run.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

#[test]
fn random_bytes() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        let mut state = 0x5DEE_CE66_D123_4567;
        for version in [V311, V5] {
            let samples = of_clients(version);
            for round in 0..300 {
                let mut peer =
                    if round % 3 == 0 { Peer::open(&scene.broker, version) } else { scene.client(version) };
                let len = next_random(&mut state) as usize % 300 + 1;
                let mut bytes: Vec<u8> = (0..len).map(|_| next_random(&mut state) as u8).collect();
                if round % 2 == 0 {
                    // Something that begins well and has a few wrong bytes gets further.
                    bytes = samples[next_random(&mut state) as usize % samples.len()].bytes.clone();
                    for _ in 0..next_random(&mut state) % 3 + 1 {
                        let at = next_random(&mut state) as usize % bytes.len();
                        bytes[at] = next_random(&mut state) as u8;
                    }
                }
                // A CONNECT before all others could be one that is well-formed.
                if round % 3 == 0 && bytes[0] >> 4 == 1 {
                    bytes[0] = 0x20;
                }
                send_all(&mut peer, &bytes);
                last_packet(&mut peer);
            }
            scene.exchange();
        }
        let totals = scene.end_with_losses();
        assert!(totals.counter("decode_errors") > 300, "{}", totals.counter("decode_errors"));
    }
}

impl Scene {
    /// As [`Scene::end`], where what came by chance may have been published to whoever wanted it.
    fn end_with_losses(mut self) -> Totals {
        self.exchange();
        let totals = Totals::of(self.broker);
        assert_eq!(totals.counter("connects"), self.connects);
        totals
    }
}

#[test]
fn a_connect_that_dribbles_in_is_cut_off_after_the_time_limit() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[("mqtt.idle_timeout_s", "1")]);
        for version in [V311, V5] {
            let mut peer = Peer::open(&scene.broker, version);
            let bytes = Login::new(version, &"x".repeat(100)).bytes();
            let whole = bytes.iter().all(|byte| {
                peer.try_send_raw(&[*byte]).is_ok()
                    && matches!(peer.read_packet(Duration::from_millis(40)), Read::TimedOut)
            });
            assert!(!whole, "{} bytes, one each 40 ms, take longer than a second", bytes.len());
            // One that says nothing at all.
            last_packet(&mut Peer::open(&scene.broker, version));
            scene.exchange();
        }
        let totals = scene.end();
        assert_eq!((totals.counter("connect_timeouts"), totals.counter("decode_errors")), (4, 0));
    }
}

#[test]
fn mqtt_3_1_2_22_what_a_client_receives_is_no_sign_of_its_life() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for version in [V311, V5] {
            let login = Login { keep_alive_s: 1, ..Login::new(version, "bad") };
            let (mut silent, _) = Peer::login(&scene.broker, &login);
            scene.connects += 1;
            silent.subscribe("tick", QoS::AtMostOnce);
            let ended = (0..200).any(|_| {
                scene.from.publish("tick", b"x", QoS::AtMostOnce, false);
                std::thread::sleep(Duration::from_millis(50));
                match silent.read_packet(Duration::from_millis(100)) {
                    Read::Closed => true,
                    Read::Packet(p) => matches!(p.packet(), Packet::Disconnect(d) if d.code == ReasonCode::KEEP_ALIVE_TIMEOUT),
                    Read::TimedOut => false,
                }
            });
            assert!(ended, "{version:?}");
        }
        assert_eq!(scene.end_with_losses().counter("keep_alive_timeouts"), 2);
    }
}

#[test]
fn one_subscribe_cannot_ask_for_retained_messages_without_bound() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[("mqtt.max_subscriptions", "5")]);
        let mut peer = scene.client(V5);
        let filters = [("same", SubscribeOptions::default()); 12];
        let packet_id = peer.packet_id();
        peer.send(&Packet::Subscribe(ringmq::codec::Subscribe {
            packet_id,
            properties: ringmq::codec::Properties::EMPTY,
            filters: ringmq::codec::Filters::new(&filters),
        }));
        let suback = peer.next();
        let full = ReasonCode::QUOTA_EXCEEDED.0;
        let wanted = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, full, full];
        assert!(matches!(suback.packet(), Packet::SubAck(s) if s.codes == wanted), "{suback:?}");
        peer.disconnect();
        scene.end();
    }
}

#[test]
fn packets_that_the_standard_forbids() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for version in [V311, V5] {
            for (name, bytes, code) in samples::forbidden(version) {
                expect_end(&mut scene, version, name, &bytes, &[ReasonCode(code)]);
            }
            scene.exchange();
            let second = Login::new(version, "bad").bytes();
            expect_end(&mut scene, version, "a second CONNECT", &second, &[ReasonCode::PROTOCOL_ERROR]);
            for Sample { name, bytes } in of_servers(version) {
                expect_end(&mut scene, version, name, &bytes, &[ReasonCode::PROTOCOL_ERROR]);
            }
            scene.exchange();
        }
        scene.end();
    }
}

#[test]
fn mqtt_2_1_3_1_reserved_flags() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for version in [V311, V5] {
            for Sample { name, mut bytes } in of_clients(version) {
                if name.starts_with("PUBLISH") || name.starts_with("CONNECT") {
                    continue;
                }
                let right = bytes[0];
                for flags in (0..16).filter(|flags| right & 0x0F != *flags) {
                    bytes[0] = right & 0xF0 | flags;
                    expect_end(&mut scene, version, name, &bytes, &[ReasonCode::MALFORMED_PACKET]);
                }
            }
            scene.exchange();
            for flags in 1..16 {
                let mut bytes = Login::new(version, "bad").bytes();
                bytes[0] |= flags;
                let mut peer = Peer::open(&scene.broker, version);
                let _ = peer.try_send_raw(&bytes);
                assert!(last_packet(&mut peer).is_none(), "CONNECT with flags {flags}");
            }
        }
        scene.end();
    }
}

/// Filters that no topic filter may look like.
const INVALID: [&str; 7] = ["", "a#", "a/#/b", "#/a", "a+", "+a/b", "a/b+/c"];
/// Shared subscriptions without a name or a filter.
const INVALID_SHARES: [&str; 4] = ["$share//x", "$share/g", "$share/g/", "$share/a+/x"];

#[test]
fn invalid_filters_are_refused_one_by_one_in_5_0() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        let code = ReasonCode::TOPIC_FILTER_INVALID.0;
        let mut peer = scene.client(V5);
        for filter in INVALID.into_iter().chain(INVALID_SHARES) {
            assert_eq!(peer.subscribe(filter, QoS::AtLeastOnce), code, "{filter:?}");
        }
        // One among others does not keep them out.
        let suback = subscribe_among_others(&mut peer, "not#fine");
        assert!(matches!(suback.packet(), Packet::SubAck(s) if s.codes == [1, code, 1]), "{suback:?}");
        scene.from.publish("fine/too", b"x", QoS::AtMostOnce, false);
        assert_eq!(peer.expect_message().topic, "fine/too");
        peer.ping();
        scene.exchange();
        assert_eq!(scene.end().counter("decode_errors"), 0);
    }
}

#[test]
fn invalid_filters_end_the_connection_in_3_1_1_and_shares_are_refused() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        for filter in INVALID {
            let mut peer = scene.client(V311);
            peer.send_subscribe(filter, SubscribeOptions::default());
            peer.expect_closed();
        }
        // To 3.1.1 `$share` is a name like others, so what is wrong with one is this broker's matter alone.
        let mut peer = scene.client(V311);
        for filter in INVALID_SHARES {
            assert_eq!(peer.subscribe(filter, QoS::AtLeastOnce), 0x80, "{filter:?}");
        }
        let suback = subscribe_among_others(&mut peer, "$share/g");
        assert!(matches!(suback.packet(), Packet::SubAck(s) if s.codes == [1, 0x80, 1]), "{suback:?}");
        scene.from.publish("fine/too", b"x", QoS::AtMostOnce, false);
        assert_eq!(peer.expect_message().topic, "fine/too");
        scene.exchange();
        assert_eq!(scene.end().counter("decode_errors"), 0);
    }
}

/// Subscribes to `fine`, this filter and `fine/too`; the answer.
fn subscribe_among_others(peer: &mut Peer, filter: &str) -> common::Received {
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let filters = [("fine", options), (filter, options), ("fine/too", options)];
    let packet_id = peer.packet_id();
    peer.send(&Packet::Subscribe(ringmq::codec::Subscribe {
        packet_id,
        properties: ringmq::codec::Properties::EMPTY,
        filters: ringmq::codec::Filters::new(&filters),
    }));
    peer.next()
}

#[test]
fn protocol_names_and_levels_that_nobody_serves() {
    for driver in DRIVERS {
        let mut scene = Scene::new(*driver, &[]);
        let connect = |name: &[u8], level: u8| {
            let mut body = vec![0, name.len() as u8];
            body.extend_from_slice(name);
            body.extend_from_slice(&[level, 2, 0, 0, 0, 3, b'b', b'a', b'd']);
            [&[0x10, body.len() as u8][..], &body].concat()
        };
        // [MQTT-3.1.2-2]: 3.x is told return code 1, what comes after 5.0 is told 0x84.
        for (name, level, version) in
            [("MQTT", 0, V311), ("MQTT", 3, V311), ("MQTT", 6, V5), ("MQTT", 255, V5), ("MQIsdp", 4, V311)]
        {
            let mut peer = Peer::open(&scene.broker, version);
            peer.send_raw(&connect(name.as_bytes(), level));
            let answer = last_packet(&mut peer);
            match answer.as_ref().map(common::Received::packet) {
                Some(Packet::ConnAck(connack)) => {
                    assert_eq!(connack.code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "{name} {level}");
                    if version == V311 {
                        assert_eq!(answer.unwrap().bytes(), [0x20, 2, 0, 1]);
                    }
                }
                other => panic!("{name} {level}: {other:?}"),
            }
        }
        for name in [&b"mqtt"[..], b"MQT", b"MQTTT", b"HTTP", b"", b"\xFF\xFE"] {
            let mut peer = Peer::open(&scene.broker, V311);
            peer.send_raw(&connect(name, 4));
            assert!(last_packet(&mut peer).is_none(), "{name:?}");
        }
        for text in
            [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"]
        {
            let mut peer = Peer::open(&scene.broker, V311);
            let _ = peer.try_send_raw(text);
            peer.end_sending();
            assert!(last_packet(&mut peer).is_none(), "{text:?}");
        }
        scene.exchange();
        scene.end();
    }
}
