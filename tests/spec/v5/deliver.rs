//! Which copies a subscriber gets, and how many at a time [3.3.4 and 4.9 of 5.0].

use super::client::*;
use crate::common::Read;
use crate::{Peer, Scene, cases};
use ringmq::codec::{Property, ReasonCode};
use ringmq::message::QoS;

cases! {
    "3.3.4-1" "4.3.2-4" "4.3.3-8" => each_qos_is_answered_as_it_asks,
    "3.3.4-2" "3.8.4-8" => overlapping_subscriptions_deliver_at_the_highest_qos,
    "3.3.4-3" "3.3.4-4" => one_copy_has_the_identifiers_of_all_matching_subscriptions,
    "3.3.4-5" => a_shared_copy_has_the_identifier_of_its_subscription,
    "3.3.4-3" => a_replaced_subscription_has_its_new_identifier,
    "3.3.4-6" => a_subscription_identifier_from_a_client_is_a_protocol_error,
    "3.3.4-7" "3.3.4-9" => a_client_above_receive_maximum_is_told_0x93,
    "3.3.4-7" => a_quota_is_freed_by_pubcomp_and_by_pubrec_with_an_error,
    "3.3.4-9" "4.9.0-1" "4.9.0-2" => the_server_keeps_to_receive_maximum,
    "3.3.4-9" "4.9.0-2" "4.4.0-2" => a_pubrec_with_an_error_frees_the_quota,
    "3.3.4-9" "4.9.0-1" => a_new_connection_has_its_own_receive_maximum,
    "3.3.4-10" "4.9.0-3" => other_packets_are_sent_while_the_quota_is_0,
}

fn each_qos_is_answered_as_it_asks(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut peer = peer(s, "a");
    peer.send_raw(&Pub::new(&topic, "0").bytes());
    peer.ping();
    peer.send_raw(&Pub::new(&topic, "1").qos(1, 5).bytes());
    assert_eq!(peer.next().bytes(), [0x40, 2, 0, 5]);
    peer.send_raw(&Pub::new(&topic, "2").qos(2, 6).bytes());
    assert_eq!(peer.next().bytes(), [0x50, 2, 0, 6]);
    peer.send_raw(&ack_bytes(0x62, 6));
    assert_eq!(peer.next().bytes(), [0x70, 2, 0, 6]);
    for (payload, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
        assert_eq!(publish_of(&take(&mut sub, payload)).qos, qos);
    }
}

fn overlapping_subscriptions_deliver_at_the_highest_qos(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    for (filter, qos) in [("#", 0), ("+", 2), ("t", 1)] {
        subscribe(&mut sub, &s.topic(filter), qos);
    }
    let mut publisher = peer(s, "pub");
    for qos in [0, 1, 2] {
        let message = Pub::new(&topic, "x");
        if qos == 0 { message } else { message.qos(qos, 1) }.send(&mut publisher);
        // One copy, for this broker merges them; at what it was published with, which all of 2 allows.
        let got = take(&mut sub, "x");
        assert_eq!(Some(publish_of(&got).qos), QoS::from_bits(qos));
        sub.ping();
    }
    Pub::new(s.topic("other/x"), "y").qos(2, 1).send(&mut publisher);
    assert_eq!(publish_of(&take(&mut sub, "y")).qos, QoS::AtMostOnce, "only # matches");
}

/// Its Subscription Identifiers, sorted.
fn ids(got: &Delivery) -> Vec<u32> {
    let mut ids: Vec<u32> = properties_of(got)
        .into_iter()
        .filter_map(|p| match p {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids
}

fn one_copy_has_the_identifiers_of_all_matching_subscriptions(s: &Scene) {
    let topic = s.topic("identified");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe_as(&mut sub, 1, &s.topic("#"), 0);
    subscribe_as(&mut sub, 268_435_455, &s.topic("+"), 2);
    subscribe_as(&mut sub, 128, &topic, 1);
    subscribe(&mut sub, "+/identified", 1);
    let mut publisher = peer(s, "pub");
    for qos in 0..3 {
        let message = Pub::new(&topic, "x");
        if qos == 0 { message } else { message.qos(qos, 1) }.send(&mut publisher);
        assert_eq!(ids(&take(&mut sub, "x")), [1, 128, 268_435_455]);
    }
    Pub::new(s.topic("a/b"), "y").send(&mut publisher);
    assert_eq!(ids(&take(&mut sub, "y")), [1]);
    // Also of what was queued, and of what is sent again.
    Pub::new(&topic, "again").qos(1, 1).send(&mut publisher);
    expect(&mut sub, "again");
    sub.cut();
    Pub::new(&topic, "queued").qos(1, 1).send(&mut publisher);
    let mut sub = client.login(&s.broker());
    for payload in ["again", "queued"] {
        assert_eq!(ids(&take(&mut sub, payload)), [1, 128, 268_435_455]);
    }
    // A retained message has that of the subscription that it answers.
    Pub::new(s.topic("kept"), "kept").qos(1, 1).retain().send(&mut publisher);
    let mut late = peer(s, "late");
    subscribe_as(&mut late, 7, &s.topic("kept"), 1);
    assert_eq!(ids(&take(&mut late, "kept")), [7]);
}

fn a_shared_copy_has_the_identifier_of_its_subscription(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe_as(&mut sub, 1, &topic, 1);
    subscribe_as(&mut sub, 2, &format!("$share/g/{topic}"), 1);
    Pub::new(&topic, "x").qos(1, 1).send(&mut peer(s, "pub"));
    let mut all: Vec<_> = (0..2).map(|_| ids(&take(&mut sub, "x"))).collect();
    all.sort();
    assert_eq!(all, [[1], [2]]);
    sub.ping();
}

fn a_replaced_subscription_has_its_new_identifier(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for number in [5, 6] {
        subscribe_as(&mut sub, number, &topic, 0);
        Pub::new(&topic, "x").send(&mut publisher);
        assert_eq!(ids(&take(&mut sub, "x")), [number]);
    }
    subscribe(&mut sub, &topic, 0);
    Pub::new(&topic, "x").send(&mut publisher);
    assert_eq!(ids(&take(&mut sub, "x")), [] as [u32; 0]);
}

fn a_subscription_identifier_from_a_client_is_a_protocol_error(s: &Scene) {
    for qos in 0..3 {
        let message = Pub::new("t", "x").with(vec![id::SUBSCRIPTION_ID, 1]);
        let message = if qos == 0 { message } else { message.qos(qos, 1) };
        faulty(s, &message.bytes(), ReasonCode::PROTOCOL_ERROR);
    }
}

/// Publishes QoS 2 messages without PUBREL until the server says something else; how many it took.
fn without_pubrel(peer: &mut Peer, topic: &str, first: u16, most: u16) -> u16 {
    for n in 0..most {
        peer.send_raw(&Pub::new(topic, "x").qos(2, first + n).bytes());
        match peer.next() {
            got if got.bytes()[0] == 0x50 => {}
            got => {
                assert_eq!((got.bytes()[0], got.bytes()[2]), (0xE0, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED.0));
                peer.expect_closed();
                return n;
            }
        }
    }
    most
}

fn a_client_above_receive_maximum_is_told_0x93(s: &Scene) {
    let broker = s.with(&[("mqtt.max_awaiting_rel", "3")]);
    let (mut peer, answer) = Client::new(s.id("a")).open(&broker);
    assert!(connack_of(&answer).properties.iter().any(|p| p == Property::ReceiveMaximum(3)));
    assert_eq!(without_pubrel(&mut peer, &s.topic("t"), 1, 9), 3);
    // All at once.
    let mut peer = Client::new(s.id("a")).login(&broker);
    let burst: Vec<u8> = (1..=4).flat_map(|n| Pub::new(s.topic("t"), "x").qos(2, n).bytes()).collect();
    peer.send_raw(&burst);
    for n in 1..=3 {
        ack(&mut peer, 0x50, n);
    }
    peer.expect_disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
    // The default of this broker.
    let mut peer = super::client::peer(s, "b");
    assert_eq!(without_pubrel(&mut peer, &s.topic("t"), 1, 200), 100);
}

fn a_quota_is_freed_by_pubcomp_and_by_pubrec_with_an_error(s: &Scene) {
    let broker = s.with(&[("mqtt.max_awaiting_rel", "3")]);
    let mut peer = Client::new(s.id("a")).login(&broker);
    for n in 1..=20 {
        // Refused messages, and messages of QoS 1, do not count once they are answered.
        assert_eq!(Pub::new("$SYS/x", "x").qos(2, n).send(&mut peer), ReasonCode::NOT_AUTHORIZED);
        Pub::new(s.topic("t"), "x").qos(1, n).send(&mut peer);
    }
    for n in 1..=3 {
        peer.send_raw(&Pub::new(s.topic("t"), "x").qos(2, n).bytes());
        ack(&mut peer, 0x50, n);
    }
    for n in 4..20 {
        peer.send_raw(&ack_bytes(0x62, n - 3));
        ack(&mut peer, 0x70, n - 3);
        peer.send_raw(&Pub::new(s.topic("t"), "x").qos(2, n).bytes());
        ack(&mut peer, 0x50, n);
    }
    assert_eq!(without_pubrel(&mut peer, &s.topic("t"), 50, 2), 0, "three wait");
}

fn the_server_keeps_to_receive_maximum(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).receive_maximum(3).login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 1..=10u16 {
        Pub::new(&topic, n.to_string()).qos(1 + (n % 2) as u8, n).send(&mut publisher);
    }
    // QoS 0 does not count.
    Pub::new(&topic, "free").send(&mut publisher);
    let first: Vec<_> = ["1", "2", "3"].map(|n| expect(&mut sub, n)).into();
    expect(&mut sub, "free");
    sub.ping();
    let id = |got: &Delivery| id_of(got);
    // 1 and 3 are of QoS 2, 2 of QoS 1. PUBREC alone frees nothing.
    sub.send_raw(&ack_bytes(0x50, id(&first[0])));
    assert_eq!(ack(&mut sub, 0x62, id(&first[0])), ReasonCode::SUCCESS);
    sub.ping();
    sub.send_raw(&ack_bytes(0x70, id(&first[0])));
    let fourth = expect(&mut sub, "4");
    sub.ping();
    sub.send_raw(&ack_bytes(0x40, id(&first[1])));
    let fifth = expect(&mut sub, "5");
    sub.ping();
    for got in [&first[2], &fifth] {
        sub.send_raw(&ack_bytes(0x50, id(got)));
        ack(&mut sub, 0x62, id(got));
    }
    sub.ping();
    sub.send_raw(
        &[ack_bytes(0x70, id(&first[2])), ack_bytes(0x70, id(&fifth)), ack_bytes(0x40, id(&fourth))].concat(),
    );
    for n in ["6", "7", "8"] {
        expect(&mut sub, n);
    }
    sub.ping();
}

fn a_pubrec_with_an_error_frees_the_quota(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub")).receive_maximum(1);
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for (n, qos) in [2, 1, 2, 2].into_iter().enumerate() {
        Pub::new(&topic, n.to_string()).qos(qos, 1).send(&mut publisher);
    }
    for (n, first) in [0x50, 0x40, 0x50].into_iter().enumerate() {
        let got = expect(&mut sub, &n.to_string());
        let id = publish_of(&got).packet_id.expect("QoS 1 and 2").get();
        sub.send_raw(&ack_with(first, id, ReasonCode::UNSPECIFIED_ERROR));
    }
    let got = expect(&mut sub, "3");
    sub.ping();
    sub.cut();
    // What was refused is not sent again.
    let mut sub = client.login(&s.broker());
    let again = expect(&mut sub, "3");
    assert_eq!(publish_of(&again).packet_id, publish_of(&got).packet_id);
    sub.ping();
}

fn a_new_connection_has_its_own_receive_maximum(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.clone().receive_maximum(5).login(&s.broker());
    subscribe(&mut sub, &topic, 1);
    let mut publisher = peer(s, "pub");
    for n in 0..8 {
        Pub::new(&topic, n.to_string()).qos(1, 1).send(&mut publisher);
    }
    (0..5).for_each(|n| drop(expect(&mut sub, &n.to_string())));
    sub.ping();
    sub.cut();
    let mut sub = client.clone().receive_maximum(2).login(&s.broker());
    (0..2).for_each(|n| drop(expect(&mut sub, &n.to_string())));
    sub.ping();
    take_one_more(&mut sub, 1, "2");
    sub.cut();
    // Without one it is 65,535, and the broker's own bound holds (32).
    let mut sub = client.login(&s.broker());
    for n in ["1", "2", "3", "4", "5", "6", "7"] {
        expect(&mut sub, n);
    }
}

/// Acknowledges a packet identifier, whereupon this message comes and no other.
fn take_one_more(sub: &mut Peer, id: u16, payload: &str) {
    sub.send_raw(&ack_bytes(0x40, id));
    expect(sub, payload);
    sub.ping();
}

fn other_packets_are_sent_while_the_quota_is_0(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).receive_maximum(1).login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 1..=3 {
        Pub::new(&topic, n.to_string()).qos(2, n).send(&mut publisher);
    }
    expect(&mut sub, "1");
    // Its own messages are taken and answered, and so is everything else.
    assert!(!Pub::new(s.topic("other"), "x").qos(1, 9).send(&mut sub).is_error());
    assert!(!Pub::new(s.topic("other"), "x").qos(2, 9).send(&mut sub).is_error());
    subscribe(&mut sub, &s.topic("third"), 2);
    Pub::new(s.topic("third"), "qos 0 needs no quota").send(&mut publisher);
    expect(&mut sub, "qos 0 needs no quota");
    assert_eq!(unsubscribe(&mut sub, &[&s.topic("third")]), [0]);
    sub.send_raw(&ack_bytes(0x50, 1));
    assert_eq!(ack(&mut sub, 0x62, 1), ReasonCode::SUCCESS);
    sub.ping();
    match sub.read_packet(std::time::Duration::from_millis(50)) {
        Read::TimedOut => {}
        other => panic!("the quota is still 0, got {other:?}"),
    }
    sub.send_raw(&ack_bytes(0x70, 1));
    expect(&mut sub, "2");
}
