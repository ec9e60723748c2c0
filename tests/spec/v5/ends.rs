//! DISCONNECT, AUTH, sessions between connections, and how faults end them [3.14, 3.15, 4.1, 4.12, 4.13 of 5.0].

use super::client::*;
use crate::common::{Read, TIMEOUT};
use crate::raw::{packet, properties};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Packet, Property, ReasonCode, Version};
use std::time::Duration;

cases! {
    "3.14.0-1" "4.13.1-1" => before_connack_there_is_no_disconnect,
    "3.14.1-1" => disconnect_with_reserved_bits_is_malformed,
    "3.14.2-1" "3.14.2-2" => the_server_sends_codes_and_properties_of_disconnect,
    "3.14.2-3" "3.14.2-4" => a_reason_string_never_makes_disconnect_too_large,
    "3.14.4-1" "3.14.4-2" "4.13.1-1" => nothing_follows_disconnect,
    "3.14.4-3" => a_short_disconnect_is_normal,
    "3.14.2-1" => codes_that_are_none_of_disconnect_are_protocol_errors,
    "3.15.1-1" => auth_with_reserved_bits_is_malformed,
    "4.12.0-1" "4.12.0-4" => an_authentication_method_that_is_not_known_is_refused,
    "4.12.0-6" => without_a_method_the_server_sends_none,
    "4.12.0-7" "4.12.1-1" => auth_without_a_method_is_a_protocol_error,
    "4.12.1-2" => a_reauthentication_is_refused_and_closes,
    "3.1.2-23" "4.1.0-1" => a_session_is_kept_while_it_is_connected_and_until_it_expires,
    "3.1.2-23" "4.1.0-2" => a_session_ends_when_its_interval_has_passed,
    "4.1.0-2" => session_expiry_of_disconnect_replaces_that_of_connect,
    "4.1.0-2" => session_expiry_cannot_be_raised_from_0_at_the_end,
    "4.2-1" => packets_come_through_in_whatever_segments,
    "4.13.2-1" => every_fault_is_told_and_closes,
}

fn before_connack_there_is_no_disconnect(s: &Scene) {
    // A malformed CONNECT is answered by CONNACK or by the end, never by DISCONNECT.
    let login = Client::new(s.id("a")).bytes();
    for cut in [&login[..], &[0xE0, 0], &[0xC0, 0], &[0x00, 0x00]] {
        for at in [1, 7, 8, 9] {
            let mut bytes = cut.to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x55;
            }
            let mut peer = Peer::open(&s.broker(), Version::V5);
            peer.send_raw(&bytes);
            peer.end_sending();
            loop {
                match peer.read_packet(TIMEOUT) {
                    Read::Closed => break,
                    Read::Packet(got) => assert_eq!(got.bytes()[0], 0x20, "{bytes:02x?}: {got:?}"),
                    Read::TimedOut => panic!("{bytes:02x?}: it stays open"),
                }
            }
        }
    }
}

fn disconnect_with_reserved_bits_is_malformed(s: &Scene) {
    for flags in 1..16 {
        faulty(s, &[0xE0 | flags, 0], ReasonCode::MALFORMED_PACKET);
        faulty(s, &[0xE0 | flags, 2, 0, 0], ReasonCode::MALFORMED_PACKET);
    }
}

fn the_server_sends_codes_and_properties_of_disconnect(s: &Scene) {
    let faults: [(Vec<u8>, ReasonCode); 6] = [
        (vec![0xC1, 0], ReasonCode::MALFORMED_PACKET),
        (vec![0xF0, 0], ReasonCode::PROTOCOL_ERROR),
        (Pub::new("a/+", "x").bytes(), ReasonCode::TOPIC_NAME_INVALID),
        (Pub::new("/".repeat(200), "x").bytes(), ReasonCode::TOPIC_NAME_INVALID),
        (Pub::new("a", "x").with(p_two(id::ALIAS, 999)).bytes(), ReasonCode::TOPIC_ALIAS_INVALID),
        (vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], ReasonCode::PACKET_TOO_LARGE),
    ];
    for (bytes, code) in faults {
        let mut peer = Client::lasting(s.id("a")).login(&s.broker());
        peer.send_raw(&bytes);
        let got = peer.next();
        // The peer fails at a code or a property that DISCONNECT may not have.
        let Packet::Disconnect(disconnect) = got.packet() else { panic!("got {got:?}") };
        assert_eq!(disconnect.code, code);
        for property in disconnect.properties.iter() {
            match property {
                Property::ReasonString(text) => assert!(text.contains("expected"), "{text}"),
                other => panic!("{other:?}"),
            }
        }
        peer.expect_closed();
    }
}

fn a_reason_string_never_makes_disconnect_too_large(s: &Scene) {
    let told = |limit: u32| {
        let mut peer = Client::new(s.id("a")).packet_maximum(limit).login(&s.broker());
        peer.send_raw(&[0xF0, 0]);
        let got = peer.next();
        assert_eq!(got.bytes()[0], 0xE0);
        peer.expect_closed();
        got.bytes().to_vec()
    };
    let full = told(1_000);
    assert!(full.len() > 20, "it has a reason string");
    let len = full.len() as u32;
    assert_eq!(told(len), full);
    for limit in [20, len - 1] {
        let bare = told(limit);
        assert!(bare.len() <= 4 && bare[2] == 0x82, "{bare:02x?}");
    }
}

fn nothing_follows_disconnect(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    // A client's fault, with packets behind it that must not be processed any more.
    for fault in [vec![0xF0, 0], vec![0xC1, 0], subscribe_bytes(0, &[], &[("t", 0)])] {
        let mut peer = peer(s, "a");
        let behind = [Pub::new(&topic, "no").qos(1, 1).retain().bytes(), vec![0xC0, 0]].concat();
        peer.send_raw(&[fault, behind].concat());
        assert_eq!(peer.next().bytes()[0], 0xE0);
        peer.expect_closed();
    }
    // A client's own DISCONNECT.
    let mut leaving = peer(s, "b");
    leaving.send_raw(&[disconnect_bytes(0, &[]), Pub::new(&topic, "no").bytes(), vec![0xC0, 0]].concat());
    leaving.expect_closed();
    // A takeover, while messages are on their way to the old connection.
    let mut old = peer(s, "c");
    subscribe(&mut old, &topic, 1);
    let mut publisher = peer(s, "pub");
    publisher.send_raw(&Pub::new(&topic, "yes").bytes().repeat(20));
    let _new = peer(s, "c");
    let mut last = 0x30;
    while let Read::Packet(got) = old.read_packet(TIMEOUT) {
        assert_eq!(last, 0x30, "something follows DISCONNECT: {got:?}");
        last = got.bytes()[0];
    }
    assert_eq!(last, 0xE0);
    (0..20).for_each(|_| drop(take(&mut sub, "yes")));
    sub.ping();
}

fn a_short_disconnect_is_normal(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    // No code, a code without properties, both.
    for bytes in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 0, 0]] {
        let mut peer = Client::new(s.id("a")).will(Will::new(&topic, "no")).login(&s.broker());
        peer.send_raw(bytes);
        peer.expect_closed();
    }
    Pub::new(&topic, "marker").qos(1, 1).send(&mut peer(s, "pub"));
    take(&mut sub, "marker");
}

fn codes_that_are_none_of_disconnect_are_protocol_errors(s: &Scene) {
    for code in [0x01, 0x02, 0x10, 0x18, 0x84, 0x85, 0x86, 0x8A, 0x91, 0x92, 0x7F, 0xFF] {
        faulty(s, &disconnect_bytes(code, &[]), ReasonCode::PROTOCOL_ERROR);
    }
}

fn auth_with_reserved_bits_is_malformed(s: &Scene) {
    for flags in 1..16 {
        faulty(s, &[0xF0 | flags, 0], ReasonCode::MALFORMED_PACKET);
    }
}

/// AUTH with a code and a method.
fn auth(code: u8, method: &str) -> Vec<u8> {
    packet(0xF0, &[&[code], &properties(&[&p_text(id::AUTH_METHOD, method)])])
}

fn an_authentication_method_that_is_not_known_is_refused(s: &Scene) {
    for method in ["SCRAM-SHA-256", "", "\u{e4}"] {
        let login = Client::new(s.id("a")).with(p_text(id::AUTH_METHOD, method));
        refused(&s.broker(), &login.bytes(), ReasonCode::BAD_AUTHENTICATION_METHOD);
        let login = login.with(p_text(id::AUTH_DATA, [0, 1, 2]));
        refused(&s.broker(), &login.bytes(), ReasonCode::BAD_AUTHENTICATION_METHOD);
    }
    // Also when AUTH follows at once.
    let mut peer = Peer::open(&s.broker(), Version::V5);
    let login = Client::new(s.id("a")).with(p_text(id::AUTH_METHOD, "x")).bytes();
    peer.send_raw(&[login, auth(0x18, "x")].concat());
    assert_eq!(connack_of(&peer.next()).code, ReasonCode::BAD_AUTHENTICATION_METHOD);
    peer.expect_closed();
}

fn without_a_method_the_server_sends_none(s: &Scene) {
    for client in [Client::new(s.id("a")), Client::new(s.id("b")).username("u").password("p")] {
        let (mut peer, answer) = client.open(&s.broker());
        let connack = connack_of(&answer);
        assert_eq!(connack.code, ReasonCode::SUCCESS);
        let of_auth = |p| matches!(p, Property::AuthenticationMethod(_) | Property::AuthenticationData(_));
        assert!(!connack.properties.iter().any(of_auth), "{answer:?}");
        peer.ping();
    }
}

fn auth_without_a_method_is_a_protocol_error(s: &Scene) {
    for bytes in [vec![0xF0, 0], auth(0x18, "x"), auth(0x19, "x"), auth(0x00, "x")] {
        faulty(s, &bytes, ReasonCode::PROTOCOL_ERROR);
        // Before CONNECT.
        dropped(&s.broker(), &bytes);
    }
    // A code that AUTH has not, and a length that is not its own.
    faulty(s, &auth(0x80, "x"), ReasonCode::PROTOCOL_ERROR);
    faulty(s, &packet(0xF0, &[&[0x18]]), ReasonCode::MALFORMED_PACKET);
}

fn a_reauthentication_is_refused_and_closes(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let mut peer = Client::new(s.id("a")).will(Will::new(&topic, "gone")).login(&s.broker());
    peer.send_raw(&auth(0x19, "SCRAM-SHA-1"));
    let got = peer.next();
    let Packet::Disconnect(disconnect) = got.packet() else { panic!("got {got:?}") };
    assert_eq!(disconnect.code, ReasonCode::PROTOCOL_ERROR);
    peer.expect_closed();
    take(&mut sub, "gone");
}

fn a_session_is_kept_while_it_is_connected_and_until_it_expires(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for (n, expiry) in [60, u32::MAX].into_iter().enumerate() {
        let client = Client::new(s.id(&n.to_string())).clean(false).expiry(expiry);
        let mut sub = client.login(&s.broker());
        subscribe(&mut sub, &topic, 1);
        if n == 0 {
            sub.cut()
        } else {
            sub.disconnect()
        };
        Pub::new(&topic, "x").qos(1, 1).send(&mut publisher);
        let (mut sub, present) = client.resume(&s.broker());
        assert!(present);
        take(&mut sub, "x");
    }
    // An interval does not run while there is a connection.
    let mut short = Client::new(s.id("short")).expiry(1).login(&s.broker());
    subscribe(&mut short, &topic, 1);
    quiet(&mut short, Duration::from_millis(2_000));
    Pub::new(&topic, "y").qos(1, 1).send(&mut publisher);
    take(&mut short, "y");
}

fn a_session_ends_when_its_interval_has_passed(s: &Scene) {
    let topic = s.topic("t");
    let clients =
        [Client::new(s.id("0")).expiry(0), Client::new(s.id("none")), Client::new(s.id("1")).expiry(1)];
    for (n, client) in clients.into_iter().enumerate() {
        let client = client.clean(false);
        let mut sub = client.login(&s.broker());
        subscribe(&mut sub, &topic, 1);
        sub.cut();
        if n == 2 {
            s.pass(Duration::from_millis(2_500));
        }
        Pub::new(&topic, "lost").qos(1, 1).send(&mut peer(s, "pub"));
        let (mut sub, present) = client.resume(&s.broker());
        assert!(!present);
        assert_eq!(unsubscribe(&mut sub, &[&topic]), [0x11], "its subscriptions went with it");
    }
}

/// DISCONNECT with a Session Expiry Interval.
fn leave(mut peer: Peer, expiry: u32) {
    peer.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, expiry)]));
    peer.expect_closed();
}

fn session_expiry_of_disconnect_replaces_that_of_connect(s: &Scene) {
    let client = Client::lasting(s.id("a"));
    leave(client.login(&s.broker()), 0);
    assert!(!client.resume(&s.broker()).1);
    let client = Client::new(s.id("b")).clean(false).expiry(1);
    leave(client.login(&s.broker()), 60);
    let lowered = Client::lasting(s.id("c"));
    leave(lowered.login(&s.broker()), 1);
    s.pass(Duration::from_millis(2_500));
    assert!(client.resume(&s.broker()).1, "it was raised to a minute");
    assert!(!lowered.resume(&s.broker()).1, "it was lowered to a second");
}

fn session_expiry_cannot_be_raised_from_0_at_the_end(s: &Scene) {
    let client = Client::new(s.id("a")).clean(false);
    for client in [client.clone(), client.clone().expiry(0)] {
        let mut peer = client.login(&s.broker());
        peer.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, 10)]));
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
        assert!(!client.resume(&s.broker()).1);
    }
    leave(client.login(&s.broker()), 0);
}

fn packets_come_through_in_whatever_segments(s: &Scene) {
    let topic = s.topic("t");
    let mut peer = peer(s, "a");
    subscribe(&mut peer, &topic, 0);
    let payloads: Vec<String> = (0..40).map(|n| n.to_string().repeat(1 + n * 7)).collect();
    let bytes: Vec<u8> = payloads.iter().flat_map(|payload| Pub::new(&topic, payload).bytes()).collect();
    for size in [1, 3, 500, bytes.len()] {
        bytes.chunks(size).for_each(|chunk| peer.send_raw(chunk));
        for payload in &payloads {
            expect(&mut peer, payload);
        }
    }
}

fn every_fault_is_told_and_closes(s: &Scene) {
    // A code of 0x80 and above, whether in CONNACK or in DISCONNECT, comes with the end of the connection.
    refused(&s.broker(), &connect(0x03, 0, &[0], &[0, 1, b'c']), ReasonCode::MALFORMED_PACKET);
    refused(&s.broker(), &connect(0x02, 0, &[0], &[0, 9, b'c']), ReasonCode::MALFORMED_PACKET);
    for (bytes, code) in [
        (vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01], ReasonCode::MALFORMED_PACKET),
        (subscribe_bytes(1, &[], &[]), ReasonCode::PROTOCOL_ERROR),
        (Pub::new("", "x").bytes(), ReasonCode::PROTOCOL_ERROR),
        (vec![0xD0, 0], ReasonCode::PROTOCOL_ERROR),
    ] {
        faulty(s, &bytes, code);
    }
    // A client that says it is at fault itself is closed as well.
    for code in [0x80, 0x82, 0x93, 0x95] {
        disconnect_with(peer(s, "b"), code);
    }
}
