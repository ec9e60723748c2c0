//! What users of mosquitto expect of 3.1: it is another specification, which a server may follow.

use super::client::*;
use crate::raw::{packet, text, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::Version;

cases! {
    "3.1.2-1" => mqtt_3_1_is_served_in_its_own_form,
    "3.1.2-1" => mqtt_3_1_takes_client_identifiers_of_any_length,
    "3.1.2-1" => mqtt_3_1_needs_a_client_identifier,
    "3.1.2-1" => mqtt_3_1_passes_messages_to_other_versions,
    "3.1.2-1" => mqtt_3_1_has_dup_where_later_ones_reserve_it,
    "3.1.2-2" => the_level_belongs_to_its_name,
    "3.1.2-2" => a_bridge_of_mosquitto_is_taken,
}

fn mqtt_3_1_is_served_in_its_own_form(s: &Scene) {
    let client = Client::lasting(s.id("c")).v31().username("user").password("password");
    let topic = s.topic("t");
    let mut peer = client.login(&s.broker());
    assert_eq!(subscribe_all(&mut peer, &[], &[(&topic, 2), (&s.topic("+/u"), 0)]), [2, 0]);
    leave(peer);
    Pub::new(&topic, "waits").qos(2, 1).send(&mut super::client::peer(s, "pub"));
    // The session is there, but CONNACK has no place to say it.
    let (mut peer, present) = client.resume(&s.broker());
    assert!(!present, "the byte is reserved in 3.1");
    take(&mut peer, "waits");
    unsubscribe(&mut peer, &[&topic]);
    peer.ping();
    leave(peer);
}

fn mqtt_3_1_takes_client_identifiers_of_any_length(s: &Scene) {
    // 3.1 has 1 to 23 characters; mosquitto takes more, and so do its users.
    for len in [1, 23, 24, 200, 1_000] {
        let id = format!("{:.<len$}", s.id("c"));
        let mut peer = Client::new(&id).v31().login(&s.broker());
        peer.ping();
    }
}

fn mqtt_3_1_needs_a_client_identifier(s: &Scene) {
    refused(&s.broker(), &Client::new("").v31().bytes(), 2);
    refused(&s.broker(), &Client::lasting("").v31().bytes(), 2);
}

fn mqtt_3_1_passes_messages_to_other_versions(s: &Scene) {
    let topic = s.topic("t");
    let mut old = Client::new(s.id("old")).v31().login(&s.broker());
    let mut new = peer(s, "new");
    let mut five = Peer::connect(&s.broker(), Version::V5, &s.id("five"));
    subscribe(&mut old, &topic, 2);
    subscribe(&mut new, &topic, 2);
    assert_eq!(five.subscribe(&topic, ringmq::message::QoS::ExactlyOnce), 2);
    for qos in 0..3 {
        let payload = format!("{qos}");
        Pub::new(&topic, &payload).qos(qos, 1).send(&mut peer(s, "pub"));
        for peer in [&mut old, &mut new, &mut five] {
            assert_eq!(take(peer, &payload).qos as u8, qos);
        }
        let mut publisher = Client::new(s.id("old pub")).v31().login(&s.broker());
        Pub::new(&topic, &payload).qos(qos, 1).send(&mut publisher);
        for peer in [&mut old, &mut new, &mut five] {
            take(peer, &payload);
        }
    }
}

fn mqtt_3_1_has_dup_where_later_ones_reserve_it(s: &Scene) {
    // Clients of 3.1 repeat SUBSCRIBE, UNSUBSCRIBE and PUBREL with DUP.
    let topic = s.topic("t");
    let mut peer = Client::new(s.id("c")).v31().login(&s.broker());
    peer.send_raw(&packet(0x8A, &[&two(1), &text(&topic), &[1]]));
    raw(&mut peer, &[0x90, 3, 0, 1, 1]);
    peer.send_raw(&packet(0xAA, &[&two(2), &text(&topic)]));
    raw(&mut peer, &[0xB0, 2, 0, 2]);
    peer.send_raw(&Pub::new(&topic, "x").qos(2, 3).bytes());
    raw(&mut peer, &ack_bytes(PUBREC, 3));
    peer.send_raw(&packet(0x6A, &[&two(3)]));
    raw(&mut peer, &ack_bytes(PUBCOMP, 3));
}

fn the_level_belongs_to_its_name(s: &Scene) {
    let id = text(s.id("c"));
    for (name, level) in [("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 5), ("MQIsdp", 0)] {
        refused(&s.broker(), &connect_as(name, level, 2, 0, &id), 1);
    }
}

fn a_bridge_of_mosquitto_is_taken(s: &Scene) {
    // It sets the highest bit of the level.
    for (n, (name, level)) in [("MQTT", 0x84), ("MQIsdp", 0x83)].into_iter().enumerate() {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        peer.send_raw(&connect_as(name, level, 2, 0, &text(s.id(&n.to_string()))));
        raw(&mut peer, &[0x20, 2, 0, 0]);
        peer.ping();
    }
}
