//! SUBSCRIBE, SUBACK and UNSUBSCRIBE [3.8 to 3.10].

use super::client::*;
use crate::raw::{packet, text, two};
use crate::{Scene, cases};

cases! {
    "3.8.3-3" "3.10.3-2" "4.8.0-1" => no_topic_filter_ends_the_connection,
    "3.8.3-4" "4.8.0-1" => a_reserved_bit_or_qos_3_ends_the_connection,
    "3.8.3-2" "3.9.3-2" => wildcards_are_refused_where_they_are_not_available,
    "3.8.4-1" "3.8.4-5" => each_subscribe_is_answered,
    "3.8.4-3" => the_same_filter_replaces_the_subscription,
    "3.8.4-4" "3.8.4-5" "3.9.3-1" => several_filters_are_several_subscriptions_and_one_answer,
    "3.8.4-5" "3.9.3-1" "3.9.3-2" => a_filter_that_fails_has_0x80_in_its_place,
    "3.8.4-6" => the_qos_is_the_lower_one,
    "3.8.4-5" "3.8.4-6" => a_lower_qos_is_granted_where_the_broker_has_no_more,
    "3.10.4-1" => an_unsubscribed_filter_is_the_same_in_each_byte,
    "3.10.4-2" => nothing_new_comes_after_unsuback,
    "3.10.4-3" => a_delivery_under_way_is_completed_after_unsubscribe,
    "3.10.4-5" => an_unknown_filter_is_answered_as_well,
    "3.10.4-6" => several_filters_are_unsubscribed_with_one_answer,
    "3.3.5-1" => overlapping_subscriptions_get_the_highest_qos,
}

fn no_topic_filter_ends_the_connection(s: &Scene) {
    faulty(s, &packet(0x82, &[&two(1)]));
    faulty(s, &packet(0xA2, &[&two(1)]));
    faulty(s, &packet(0x82, &[]));
    faulty(s, &packet(0xA2, &[]));
}

fn a_reserved_bit_or_qos_3_ends_the_connection(s: &Scene) {
    for qos in [3, 4, 8, 16, 32, 64, 128, 0x81, 0xFF] {
        faulty(s, &subscribe_bytes(1, &[("t", qos)]));
        faulty(s, &subscribe_bytes(1, &[("t", 1), ("u", qos)]));
    }
}

fn wildcards_are_refused_where_they_are_not_available(s: &Scene) {
    let broker = s.with(&[("mqtt.wildcard_available", "false")]);
    let mut peer = Client::new(s.id("c")).login(&broker);
    let (all, one, plain) = (s.topic("#"), s.topic("+/x"), s.topic("a"));
    let codes = subscribe_all(&mut peer, &[], &[(&all, 0), (&plain, 1), (&one, 2)]);
    assert_eq!(codes, [0x80, 1, 0x80]);
    Pub::new(s.topic("b/x"), "not this").send(&mut peer);
    Pub::new(&plain, "this").send(&mut peer);
    take(&mut peer, "this");
}

fn each_subscribe_is_answered(s: &Scene) {
    let mut peer = peer(s, "a");
    // Many without a wait.
    let all: Vec<u8> =
        (1..=200u16).flat_map(|n| subscribe_bytes(n, &[(&s.topic(&n.to_string()), (n % 3) as u8)])).collect();
    peer.send_raw(&all);
    for n in 1..=200u16 {
        raw(&mut peer, &packet(0x90, &[&two(n), &[(n % 3) as u8]]));
    }
}

fn the_same_filter_replaces_the_subscription(s: &Scene) {
    let (topic, filter) = (s.topic("t/x"), s.topic("t/+"));
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for qos in [0, 2, 1, 0] {
        subscribe(&mut sub, &filter, qos);
        Pub::new(&topic, format!("QoS {qos}")).qos(2, 1).send(&mut publisher);
        assert_eq!(take(&mut sub, &format!("QoS {qos}")).qos as u8, qos);
    }
    // One subscription, which one UNSUBSCRIBE ends.
    unsubscribe(&mut sub, &[&filter]);
    Pub::new(&topic, "not this").qos(1, 1).send(&mut publisher);
    subscribe(&mut sub, &s.topic("u"), 0);
    Pub::new(s.topic("u"), "this").qos(1, 1).send(&mut publisher);
    take(&mut sub, "this");
    // And two in one packet.
    assert_eq!(subscribe_all(&mut sub, &[], &[(&filter, 2), (&filter, 1)]), [2, 1]);
    Pub::new(&topic, "the last counts").qos(2, 1).send(&mut publisher);
    assert_eq!(take(&mut sub, "the last counts").qos as u8, 1);
    Pub::new(s.topic("u"), "once").qos(1, 1).send(&mut publisher);
    take(&mut sub, "once");
}

fn several_filters_are_several_subscriptions_and_one_answer(s: &Scene) {
    let names: Vec<String> = (0..50).map(|n| s.topic(&n.to_string())).collect();
    let filters: Vec<(&str, u8)> = names.iter().enumerate().map(|(n, f)| (&**f, (n % 3) as u8)).collect();
    let mut sub = peer(s, "sub");
    let wanted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
    assert_eq!(subscribe_all(&mut sub, &[], &filters), wanted);
    let mut publisher = peer(s, "pub");
    for (topic, qos) in &filters {
        Pub::new(topic, topic).qos(2, 1).send(&mut publisher);
        assert_eq!(take(&mut sub, topic).qos as u8, *qos);
    }
    sub.ping();
}

fn a_filter_that_fails_has_0x80_in_its_place(s: &Scene) {
    let broker = s.with(&[("mqtt.max_topic_levels", "4"), ("mqtt.shared_available", "false")]);
    let mut peer = Client::new(s.id("c")).login(&broker);
    let (good, deep) = (s.topic("a"), s.topic("a/b/c/d"));
    let shared = format!("$share/g/{good}");
    let filters = [(&*good, 2), (&*deep, 2), (&*good, 1), (&*shared, 0), (&*deep, 0), (&*good, 0)];
    assert_eq!(subscribe_all(&mut peer, &[], &filters), [2, 0x80, 1, 0x80, 0x80, 0]);
    let many = s.with(&[("mqtt.max_subscriptions", "2")]);
    let mut peer = Client::new(s.id("c")).login(&many);
    let names = ["1", "2", "3", "1"].map(|n| s.topic(n));
    let filters: Vec<(&str, u8)> = names.iter().map(|f| (&**f, 1)).collect();
    assert_eq!(subscribe_all(&mut peer, &[], &filters), [1, 1, 0x80, 1]);
}

fn the_qos_is_the_lower_one(s: &Scene) {
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for wanted in 0..3 {
        let topic = s.topic(&wanted.to_string());
        subscribe(&mut sub, &topic, wanted);
        for qos in 0..3 {
            let payload = format!("{qos} to {wanted}");
            Pub::new(&topic, &payload).qos(qos, 1).send(&mut publisher);
            let got = take(&mut sub, &payload);
            assert_eq!((got.qos as u8, got.packet_id.is_some()), (qos.min(wanted), qos.min(wanted) > 0));
        }
    }
}

fn a_lower_qos_is_granted_where_the_broker_has_no_more(s: &Scene) {
    let broker = s.with(&[("mqtt.max_qos", "1"), ("mqtt.retain_available", "false")]);
    let mut peer = Client::new(s.id("c")).login(&broker);
    let topics = ["0", "1", "2"].map(|n| s.topic(n));
    let filters: Vec<(&str, u8)> = topics.iter().zip(0..).map(|(f, qos)| (&**f, qos)).collect();
    assert_eq!(subscribe_all(&mut peer, &[], &filters), [0, 1, 1]);
}

fn an_unsubscribed_filter_is_the_same_in_each_byte(s: &Scene) {
    let (topic, filter) = (s.topic("a/b"), s.topic("a/+"));
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &filter, 0);
    let mut publisher = peer(s, "pub");
    let near =
        [s.topic("a/b"), s.topic("#"), s.topic("+/+"), s.topic("a/+/"), s.topic("A/+"), s.topic("a/#")];
    for other in &near {
        unsubscribe(&mut sub, &[other]);
        Pub::new(&topic, other).send(&mut publisher);
        take(&mut sub, other);
    }
    subscribe(&mut sub, &s.topic("end"), 0);
    unsubscribe(&mut sub, &[&filter]);
    Pub::new(&topic, "not this").send(&mut publisher);
    Pub::new(s.topic("end"), "end").send(&mut publisher);
    take(&mut sub, "end");
}

fn nothing_new_comes_after_unsuback(s: &Scene) {
    let (topic, end) = (s.topic("t"), s.topic("end"));
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for n in 0..20 {
        subscribe(&mut sub, &topic, 1);
        subscribe(&mut sub, &end, 1);
        Pub::new(&topic, "subscribed").qos(1, 1).send(&mut publisher);
        take(&mut sub, "subscribed");
        unsubscribe(&mut sub, &[&topic]);
        Pub::new(&topic, "not subscribed").qos(n % 3, 2).send(&mut publisher);
        Pub::new(&end, "end").qos(1, 3).send(&mut publisher);
        take(&mut sub, "end");
    }
}

fn a_delivery_under_way_is_completed_after_unsubscribe(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "one").qos(1, 1).send(&mut publisher);
    Pub::new(&topic, "two").qos(2, 1).send(&mut publisher);
    Pub::new(&topic, "three").qos(2, 1).send(&mut publisher);
    expect(&mut sub, "one");
    let two = id_of(&expect(&mut sub, "two"));
    let three = id_of(&expect(&mut sub, "three"));
    unsubscribe(&mut sub, &[&topic]);
    sub.send_raw(&ack_bytes(PUBREC, two));
    raw(&mut sub, &ack_bytes(PUBREL, two));
    sub.cut();
    let mut sub = client.login(&s.broker());
    let mut again = [sub.next(), sub.next(), sub.next()];
    again.sort_by_key(|packet| packet.bytes()[0] != PUBREL);
    assert_eq!(again[0].bytes(), ack_bytes(PUBREL, two));
    let messages: Vec<_> = again[1..].iter().map(|p| p.message().expect("a PUBLISH")).collect();
    assert!(messages.iter().all(|m| m.dup), "{messages:?}");
    assert_eq!(messages.iter().map(|m| m.text()).collect::<Vec<_>>(), ["one", "three"]);
    sub.send_raw(&ack_bytes(PUBACK, id_of(&messages[0])));
    sub.send_raw(&ack_bytes(PUBCOMP, two));
    sub.send_raw(&ack_bytes(PUBREC, three));
    raw(&mut sub, &ack_bytes(PUBREL, three));
    sub.send_raw(&ack_bytes(PUBCOMP, three));
    sub.ping();
}

fn an_unknown_filter_is_answered_as_well(s: &Scene) {
    let mut peer = peer(s, "a");
    for filter in ["never", "never/#", "+", "$SYS/#"] {
        unsubscribe(&mut peer, &[filter]);
    }
}

fn several_filters_are_unsubscribed_with_one_answer(s: &Scene) {
    let names: Vec<String> = (0..20).map(|n| s.topic(&n.to_string())).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (&**name, 1)).collect();
    let mut sub = peer(s, "sub");
    subscribe_all(&mut sub, &[], &filters);
    // All but the last, and some that there are not.
    let mut gone: Vec<&str> = names[..19].iter().map(|name| &**name).collect();
    gone.insert(5, "never");
    gone.push("never/again");
    unsubscribe(&mut sub, &gone);
    let mut publisher = peer(s, "pub");
    for name in &names {
        Pub::new(name, name).qos(1, 1).send(&mut publisher);
    }
    take(&mut sub, &names[19]);
    sub.ping();
    // The same filter twice.
    let again = text(&names[19]);
    sub.send_raw(&packet(0xA2, &[&two(9), &again, &again]));
    raw(&mut sub, &[0xB0, 2, 0, 9]);
}

fn overlapping_subscriptions_get_the_highest_qos(s: &Scene) {
    let topic = s.topic("a/b");
    let filters = [s.topic("a/b"), s.topic("a/+"), s.topic("#")];
    let mut publisher = peer(s, "pub");
    for turn in 0..3 {
        let mut sub = peer(s, &format!("sub-{turn}"));
        for (n, filter) in filters.iter().enumerate() {
            subscribe(&mut sub, filter, ((n + turn) % 3) as u8);
        }
        for qos in 0..3u8 {
            Pub::new(&topic, format!("{qos}")).qos(qos, 1).send(&mut publisher);
            assert_eq!(take(&mut sub, &format!("{qos}")).qos as u8, qos);
        }
        // This broker sends one copy.
        sub.ping();
    }
}
