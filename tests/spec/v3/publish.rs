//! PUBLISH [3.3].

use super::client::*;
use crate::raw::{packet, text};
use crate::{Scene, cases};

cases! {
    "3.3.1-2" "4.3.1-1" => dup_is_0_with_qos_0,
    "3.3.1-3" => dup_is_not_passed_on,
    "3.3.1-4" "4.8.0-1" => qos_3_ends_the_connection,
    "3.3.2-1" "4.8.0-1" => the_topic_name_is_the_first_field,
    "3.3.2-2" "4.7.1-1" "4.8.0-1" => a_wildcard_in_a_topic_name_ends_the_connection,
    "3.3.2-3" => the_topic_name_matches_the_subscription,
    "3.3.4-1" => the_answer_is_that_of_the_qos,
    "3.3.5-2" => a_message_that_is_not_allowed_is_acknowledged_or_ends_the_connection,
}

fn dup_is_0_with_qos_0(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 0);
    let mut publisher = peer(s, "pub");
    for qos in 0..3 {
        Pub::new(&topic, "x").qos(qos, 1).send(&mut publisher);
        raw(&mut sub, &Pub::new(&topic, "x").bytes());
    }
    // From a client it is a violation.
    faulty(s, &Pub::new(&topic, "x").dup().bytes());
}

fn dup_is_not_passed_on(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for qos in 1..3 {
        let payload = format!("QoS {qos}");
        Pub::new(&topic, &payload).qos(qos, 1).dup().send(&mut publisher);
        assert!(!take(&mut sub, &payload).dup);
    }
}

fn qos_3_ends_the_connection(s: &Scene) {
    for publish in [Pub::new("t", "x").qos(3, 1), Pub::new("t", "x").qos(3, 1).dup().retain()] {
        faulty(s, &publish.bytes());
    }
}

fn the_topic_name_is_the_first_field(s: &Scene) {
    faulty(s, &packet(0x30, &[]));
    faulty(s, &packet(0x32, &[&[0, 1]]));
    faulty(s, &packet(0x30, &[&[0, 200], b"t"]));
    // What looks like a second topic is payload.
    let topic = s.topic("t");
    let mut peer = peer(s, "a");
    subscribe(&mut peer, &topic, 0);
    let bytes = packet(0x30, &[&text(&topic), &text("second")]);
    peer.send_raw(&bytes);
    raw(&mut peer, &bytes);
}

fn a_wildcard_in_a_topic_name_ends_the_connection(s: &Scene) {
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "#a"] {
        for qos in 0..3 {
            faulty(s, &Pub::new(topic, "x").qos(qos, 1).bytes());
        }
    }
}

fn the_topic_name_matches_the_subscription(s: &Scene) {
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for (filter, name) in [("a", "a"), ("+/b", "x/b"), ("c/#", "c"), ("c/d/#", "c/d/e/f"), ("+//+", "//")] {
        subscribe(&mut sub, &s.topic(filter), 0);
        Pub::new(s.topic(name), name).send(&mut publisher);
        assert_eq!(take(&mut sub, name).topic, s.topic(name));
        unsubscribe(&mut sub, &[&s.topic(filter)]);
    }
}

fn the_answer_is_that_of_the_qos(s: &Scene) {
    let topic = s.topic("nobody");
    let mut peer = peer(s, "a");
    peer.send_raw(&Pub::new(&topic, "x").bytes());
    peer.ping();
    peer.send_raw(&Pub::new(&topic, "x").qos(1, 3).bytes());
    raw(&mut peer, &[0x40, 2, 0, 3]);
    peer.send_raw(&Pub::new(&topic, "x").qos(2, 4).bytes());
    raw(&mut peer, &[0x50, 2, 0, 4]);
    // A PUBREL is answered, of an unknown identifier as well.
    for id in [4, 4, 9] {
        peer.send_raw(&ack_bytes(PUBREL, id));
        raw(&mut peer, &ack_bytes(PUBCOMP, id));
    }
}

fn a_message_that_is_not_allowed_is_acknowledged_or_ends_the_connection(s: &Scene) {
    // This broker ends the connection: a client that is told nothing would go on.
    let broker = s.with(&[("mqtt.max_qos", "1"), ("mqtt.retain_available", "false")]);
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).login(&broker);
    subscribe(&mut sub, &topic, 1);
    for wrong in [
        Pub::new(&topic, "not this").qos(2, 1),
        Pub::new(&topic, "nor this").retain(),
        Pub::new(&topic, "nor this").qos(1, 1).retain(),
    ] {
        let mut peer = Client::new(s.id("pub")).login(&broker);
        peer.send_raw(&wrong.bytes());
        ends(&mut peer, &wrong.bytes());
    }
    Pub::new(&topic, "this").qos(1, 1).send(&mut Client::new(s.id("pub")).login(&broker));
    take(&mut sub, "this");
}
