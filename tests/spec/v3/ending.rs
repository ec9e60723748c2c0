//! PINGREQ, DISCONNECT and the keep alive [3.12, 3.14, 3.1.2.10].

use super::client::*;
use crate::{Scene, cases};
use std::time::Duration;

cases! {
    "3.12.4-1" => each_pingreq_is_answered,
    "3.1.2-24" => a_client_that_pings_stays,
    "3.14.4-3" => what_was_sent_before_disconnect_counts,
    "3.14.1-1" "4.8.0-1" => a_disconnect_with_reserved_bits_is_none,
    "4.8.0-2" => a_connect_that_meets_a_full_shard_is_told_and_closed
        [Simulation: "descriptors do not run out on demand"],
}

fn each_pingreq_is_answered(s: &Scene) {
    let mut peer = peer(s, "a");
    peer.ping();
    peer.send_raw(&PINGREQ.repeat(100));
    for _ in 0..100 {
        raw(&mut peer, PINGRESP);
    }
    // In its place among other answers.
    let topic = s.topic("t");
    peer.send_raw(
        &[&subscribe_bytes(1, &[(&topic, 0)])[..], PINGREQ, &unsubscribe_bytes(2, &[&topic])].concat(),
    );
    raw(&mut peer, &[0x90, 3, 0, 1, 0]);
    raw(&mut peer, PINGRESP);
    raw(&mut peer, &[0xB0, 2, 0, 2]);
}

fn a_client_that_pings_stays(s: &Scene) {
    // Each packet counts, for more than twice the time after which silence is the end.
    let mut silent = Client::new(s.id("silent")).keep_alive(2).login(&s.broker());
    let mut peer = Client::new(s.id("a")).keep_alive(2).login(&s.broker());
    for n in 0..14u16 {
        s.pass(Duration::from_millis(250));
        match n % 3 {
            0 => peer.ping(),
            1 => assert!(!Pub::new(s.topic("t"), "x").qos(1, 1).send(&mut peer).is_error()),
            _ => subscribe(&mut peer, &s.topic("u"), 0),
        }
    }
    ends(&mut silent, b"silence");
    peer.ping();
}

fn what_was_sent_before_disconnect_counts(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    for n in 0..10 {
        let client = Client::new(s.id("pub")).will(Will::new(&topic, "the will"));
        let mut publisher = client.login(&s.broker());
        let payload = format!("before {n}");
        publisher.send_raw(&[&Pub::new(&topic, &payload).bytes()[..], DISCONNECT].concat());
        publisher.expect_closed();
        take(&mut sub, &payload);
    }
}

fn a_disconnect_with_reserved_bits_is_none(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    for (n, wrong) in [&[0xE1, 0][..], &[0xE8, 0], &[0xEF, 0], &[0xE0, 1, 0]].into_iter().enumerate() {
        let payload = format!("the will {n}");
        let client = Client::new(s.id("wrong")).will(Will::new(&topic, &payload));
        let mut peer = client.login(&s.broker());
        peer.send_raw(wrong);
        ends(&mut peer, wrong);
        take(&mut sub, &payload);
    }
}

fn a_connect_that_meets_a_full_shard_is_told_and_closed(s: &Scene) {
    // A transient error while a packet is processed.
    let broker = s.broker();
    broker.refuse_hand_overs();
    let mut refused = 0;
    for n in 0..40 {
        let (mut peer, answer) = Client::new(s.id(&n.to_string())).open(&broker);
        if answer.bytes() == [0x20, 2, 0, 0] {
            peer.ping();
            continue;
        }
        assert_eq!(answer.bytes(), [0x20, 2, 0, 3], "{answer:?}");
        peer.expect_closed();
        refused += 1;
    }
    assert_eq!(refused > 0, s.shards() > 1, "{refused} of 40 were refused");
}
