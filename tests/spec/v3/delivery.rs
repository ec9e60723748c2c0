//! Delivery protocols and the order of messages [4.3 and 4.6].

use super::client::*;
use crate::{Scene, cases};

cases! {
    "4.3.1-1" => qos_0_is_sent_once_and_not_acknowledged,
    "4.3.2-1" "4.3.3-1" => messages_are_sent_with_dup_0_and_unused_identifiers,
    "4.3.2-2" => a_qos_1_identifier_is_free_after_puback,
    "4.3.3-1" => the_steps_of_qos_2_to_a_client,
    "4.3.3-2" => the_steps_of_qos_2_from_a_client,
    "4.3.3-2" => a_repeated_qos_2_publish_is_not_delivered_again,
    "4.6.0-5" "4.6.0-6" => messages_of_a_client_keep_their_order,
    "4.6.0-2" "4.6.0-3" "4.6.0-6" => acknowledgements_come_in_the_order_of_the_messages,
    "4.6.0-4" "4.6.0-6" => pubrel_comes_in_the_order_of_pubrec,
    "4.6.0-5" "4.6.0-6" => messages_that_waited_for_room_keep_their_order,
}

fn qos_0_is_sent_once_and_not_acknowledged(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let bytes = Pub::new(&topic, "once").bytes();
    publisher.send_raw(&bytes);
    publisher.ping();
    raw(&mut sub, &bytes);
    sub.cut();
    // It is not sent again.
    let mut sub = client.login(&s.broker());
    Pub::new(&topic, "next").send(&mut publisher);
    take(&mut sub, "next");
}

fn messages_are_sent_with_dup_0_and_unused_identifiers(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let mut open = Vec::new();
    for n in 0..32u8 {
        Pub::new(&topic, n.to_string()).qos(1 + n % 2, 1).send(&mut publisher);
        let got = expect(&mut sub, &n.to_string());
        assert_eq!((got.dup, got.qos as u8), (false, 1 + n % 2));
        open.push(id_of(&got));
    }
    let mut unique = open.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), open.len(), "{open:?}");
    // The window is full; each acknowledgement makes room for one, which is not sent before it.
    for n in 32..36u8 {
        Pub::new(&topic, n.to_string()).qos(1, 1).send(&mut publisher);
    }
    sub.ping();
    sub.send_raw(&ack_bytes(PUBACK, open[0]));
    expect(&mut sub, "32");
    sub.ping();
    // QoS 2 makes room at its PUBCOMP, not at its PUBREC.
    sub.send_raw(&ack_bytes(PUBREC, open[1]));
    raw(&mut sub, &ack_bytes(PUBREL, open[1]));
    sub.ping();
    sub.send_raw(&ack_bytes(PUBCOMP, open[1]));
    expect(&mut sub, "33");
}

fn a_qos_1_identifier_is_free_after_puback(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let mut publisher = peer(s, "pub");
    for n in 0..3 {
        Pub::new(&topic, n.to_string()).qos(1, 5).send(&mut publisher);
        take(&mut sub, &n.to_string());
        Pub::new(&topic, format!("{n} with DUP")).qos(1, 5).dup().send(&mut publisher);
        take(&mut sub, &format!("{n} with DUP"));
    }
}

fn the_steps_of_qos_2_to_a_client(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    Pub::new(&topic, "x").qos(2, 1).send(&mut peer(s, "pub"));
    let id = id_of(&expect(&mut sub, "x"));
    // PUBREL comes after each PUBREC, and no PUBLISH again.
    for _ in 0..3 {
        sub.send_raw(&ack_bytes(PUBREC, id));
        raw(&mut sub, &ack_bytes(PUBREL, id));
        sub.ping();
    }
    sub.send_raw(&ack_bytes(PUBCOMP, id));
    sub.ping();
}

fn the_steps_of_qos_2_from_a_client(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 0..3 {
        publisher.send_raw(&Pub::new(&topic, n.to_string()).qos(2, 5).bytes());
        raw(&mut publisher, &ack_bytes(PUBREC, 5));
        publisher.send_raw(&ack_bytes(PUBREL, 5));
        raw(&mut publisher, &ack_bytes(PUBCOMP, 5));
        // The same identifier is a new message then, with DUP as well.
        publisher.send_raw(&Pub::new(&topic, format!("{n} with DUP")).qos(2, 5).dup().bytes());
        raw(&mut publisher, &ack_bytes(PUBREC, 5));
        publisher.send_raw(&ack_bytes(PUBREL, 5));
        raw(&mut publisher, &ack_bytes(PUBCOMP, 5));
        take_all(&mut sub, &[n.to_string(), format!("{n} with DUP")]);
    }
    sub.ping();
}

fn a_repeated_qos_2_publish_is_not_delivered_again(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for id in [5, 6] {
        publisher.send_raw(&Pub::new(&topic, id.to_string()).qos(2, id).bytes());
        raw(&mut publisher, &ack_bytes(PUBREC, id));
        for again in [Pub::new(&topic, "again").qos(2, id), Pub::new(&topic, "again").qos(2, id).dup()] {
            publisher.send_raw(&again.bytes());
            raw(&mut publisher, &ack_bytes(PUBREC, id));
        }
    }
    for id in [5, 6] {
        publisher.send_raw(&ack_bytes(PUBREL, id));
        raw(&mut publisher, &ack_bytes(PUBCOMP, id));
    }
    Pub::new(&topic, "next").qos(2, 5).send(&mut publisher);
    take_all(&mut sub, &["5", "6", "next"]);
    sub.ping();
}

fn messages_of_a_client_keep_their_order(s: &Scene) {
    const COUNT: u16 = 90;
    for qos in 0..3 {
        let topic = s.topic(&format!("{qos}/t"));
        let filters = [&topic, &s.topic(&format!("{qos}/+")), &s.topic(&format!("{qos}/#")), &topic];
        let mut subs: Vec<_> = (0..4).map(|n| peer(s, &format!("sub-{n}"))).collect();
        for (sub, filter) in subs.iter_mut().zip(filters) {
            subscribe(sub, filter, qos);
        }
        let mut publisher = peer(s, "pub");
        let all: Vec<u8> =
            (1..=COUNT).flat_map(|n| Pub::new(&topic, n.to_string()).qos(qos, n).bytes()).collect();
        publisher.send_raw(&all);
        let payloads: Vec<String> = (1..=COUNT).map(|n| n.to_string()).collect();
        for sub in &mut subs {
            take_all(sub, &payloads);
        }
    }
}

fn acknowledgements_come_in_the_order_of_the_messages(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for (qos, first) in [(1, PUBACK), (2, PUBREC)] {
        let ids = (1..=60u16).map(|n| n * 1009 % 997 + 1);
        let all: Vec<u8> = ids.clone().flat_map(|id| Pub::new(&topic, "x").qos(qos, id).bytes()).collect();
        publisher.send_raw(&all);
        for id in ids.clone() {
            raw(&mut publisher, &ack_bytes(first, id));
        }
        if qos == 2 {
            let all: Vec<u8> = ids.clone().flat_map(|id| ack_bytes(PUBREL, id)).collect();
            publisher.send_raw(&all);
            for id in ids {
                raw(&mut publisher, &ack_bytes(PUBCOMP, id));
            }
        }
    }
}

fn pubrel_comes_in_the_order_of_pubrec(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let mut ids = Vec::new();
    for n in 0..20 {
        Pub::new(&topic, n.to_string()).qos(2, 1).send(&mut publisher);
        ids.push(id_of(&expect(&mut sub, &n.to_string())));
    }
    ids.rotate_left(7);
    sub.send_raw(&ids.iter().flat_map(|id| ack_bytes(PUBREC, *id)).collect::<Vec<_>>());
    for id in ids {
        raw(&mut sub, &ack_bytes(PUBREL, id));
    }
}

fn messages_that_waited_for_room_keep_their_order(s: &Scene) {
    // More than the window, published by one client while the subscriber acknowledges nothing.
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 0..100u16 {
        Pub::new(&topic, n.to_string()).qos(1, n + 1).send(&mut publisher);
    }
    for n in 0..100u16 {
        take(&mut sub, &n.to_string());
    }
    sub.ping();
}
