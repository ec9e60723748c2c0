//! SUBSCRIBE, UNSUBSCRIBE and their answers, PINGREQ [3.8 to 3.12 of 5.0].

use super::client::*;
use crate::common::{Read, TIMEOUT};
use crate::raw::{packet, properties, text, two};
use crate::{Scene, cases};
use ringmq::codec::{Packet, ReasonCode};
use ringmq::message::QoS;

cases! {
    "3.8.3-2" => a_subscribe_has_a_filter_with_options,
    "3.8.3-3" => no_local_keeps_a_clients_own_messages_from_it,
    "3.8.3-4" => no_local_on_a_shared_subscription_is_a_protocol_error,
    "3.8.3-5" => reserved_subscription_options_are_malformed,
    "3.8.4-1" "3.8.4-6" "3.9.3-1" "3.9.3-2" => a_suback_has_a_code_for_each_filter_in_order,
    "3.8.4-3" => an_identical_filter_replaces_the_subscription,
    "3.8.4-4" => replacing_a_subscription_loses_no_message,
    "3.8.4-5" => several_filters_are_as_several_packets,
    "3.8.4-7" => granted_qos_is_at_most_what_was_asked,
    "3.8.4-8" => a_message_has_the_lower_of_its_qos_and_the_granted,
    "3.9.2-1" "3.9.2-2" "3.11.2-1" "3.11.2-2" => suback_and_unsuback_fit_where_they_can,
    "3.9.3-2" => subscriptions_above_their_maximum_are_refused_0x97,
    "3.10.3-2" => an_unsubscribe_has_a_filter,
    "3.10.4-1" => filters_are_compared_character_by_character,
    "3.10.4-2" => after_unsuback_no_message_is_added,
    "3.10.4-3" => delivery_that_has_begun_is_completed_after_unsubscribe,
    "3.10.4-4" "3.10.4-5" "3.11.3-2" => a_filter_never_subscribed_is_answered_0x11,
    "3.10.4-6" "3.11.3-1" => an_unsuback_has_a_code_for_each_filter_in_order,
    "3.12.4-1" => pingreq_is_answered,
}

fn a_subscribe_has_a_filter_with_options(s: &Scene) {
    faulty(s, &subscribe_bytes(1, &[], &[]), ReasonCode::PROTOCOL_ERROR);
    faulty(s, &packet(0x82, &[&two(1), &[0], &text("t")]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0x82, &[&two(1), &[0], &text("t"), &[0], &text("u")]), ReasonCode::MALFORMED_PACKET);
}

fn no_local_keeps_a_clients_own_messages_from_it(s: &Scene) {
    let topic = s.topic("t");
    let id = s.id("a");
    let mut a = Client::lasting(&id).login(&s.broker());
    subscribe(&mut a, &topic, 0x04 | 1);
    let mut b = peer(s, "b");
    subscribe(&mut b, &topic, 1);
    for qos in 0..3 {
        let message = Pub::new(&topic, "own");
        if qos == 0 { message } else { message.qos(qos, 1) }.send(&mut a);
        take(&mut b, "own");
    }
    Pub::new(&topic, "other's").qos(1, 1).send(&mut peer(s, "c"));
    take(&mut b, "other's");
    take(&mut a, "other's");
    // A retained message of its own, and its own messages in other connections of the same client.
    Pub::new(s.topic("kept"), "own").qos(1, 1).retain().send(&mut a);
    subscribe(&mut a, &s.topic("kept"), 0x04 | 1);
    let mut again = Client::lasting(&id).login(&s.broker());
    Pub::new(&topic, "own").qos(1, 1).send(&mut again);
    take(&mut b, "own");
    // With another subscription that has not this option it gets one copy.
    subscribe(&mut again, &s.topic("+"), 0x20);
    again.send_raw(&Pub::new(&topic, "own").qos(1, 1).bytes());
    let mut kinds = [again.next(), again.next()].map(|got| got.bytes()[0]);
    kinds.sort_unstable();
    assert_eq!(kinds, [0x30, 0x40]);
    again.ping();
}

fn no_local_on_a_shared_subscription_is_a_protocol_error(s: &Scene) {
    for filter in ["$share/g/t", "$share/g/#"] {
        faulty(s, &subscribe_bytes(1, &[], &[("t", 0), (filter, 0x04)]), ReasonCode::PROTOCOL_ERROR);
    }
}

fn reserved_subscription_options_are_malformed(s: &Scene) {
    for options in [0x40, 0x80, 0xC0, 0x42, 0x9D] {
        faulty(s, &subscribe_bytes(1, &[], &[("t", options)]), ReasonCode::MALFORMED_PACKET);
        faulty(s, &subscribe_bytes(1, &[], &[("t", 0), ("u", options)]), ReasonCode::MALFORMED_PACKET);
    }
    // QoS 3 and Retain Handling 3 are protocol errors.
    for options in [0x03, 0x30, 0x33] {
        faulty(s, &subscribe_bytes(1, &[], &[("t", options)]), ReasonCode::PROTOCOL_ERROR);
    }
}

fn a_suback_has_a_code_for_each_filter_in_order(s: &Scene) {
    let mut peer = peer(s, "a");
    let [a, b, c] = ["a", "b/+", "c/#"].map(|name| s.topic(name));
    let filters =
        [(&*a, 2), ("a#", 1), (&*b, 0), ("$share//x", 1), (&*c, 1), ("", 0), (&*a, 1), ("$share/g/a", 2)];
    let codes = subscribe_all(&mut peer, &[], &filters);
    assert_eq!(codes, [2, 0x8F, 0, 0x8F, 1, 0x8F, 1, 2]);
    let many: Vec<String> = (0..300).map(|n| s.topic(&n.to_string())).collect();
    let filters: Vec<_> = many.iter().enumerate().map(|(n, filter)| (&**filter, (n % 3) as u8)).collect();
    let codes = subscribe_all(&mut peer, &[], &filters);
    assert_eq!(codes, filters.iter().map(|(_, qos)| *qos).collect::<Vec<_>>());
}

fn an_identical_filter_replaces_the_subscription(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    let mut publisher = peer(s, "pub");
    for qos in [2, 0, 1] {
        subscribe(&mut sub, &topic, qos);
        Pub::new(&topic, "x").qos(2, 1).send(&mut publisher);
        assert_eq!(
            Some(publish_of(&take(&mut sub, "x")).qos),
            QoS::from_bits(qos),
            "one copy at the new QoS"
        );
        sub.ping();
    }
    // One that differs by the options alone, after a resume; and one UNSUBSCRIBE ends it.
    sub.cut();
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 0x28 | 1);
    Pub::new(&topic, "y").qos(1, 1).retain().send(&mut publisher);
    assert!(publish_of(&take(&mut sub, "y")).retain);
    assert_eq!(unsubscribe(&mut sub, &[&topic]), [0]);
    assert_eq!(unsubscribe(&mut sub, &[&topic]), [0x11]);
}

fn replacing_a_subscription_loses_no_message(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).receive_maximum(65_535).login(&s.broker());
    subscribe(&mut sub, &topic, 1);
    let mut publisher = peer(s, "pub");
    // Messages and SUBSCRIBEs at the same time: each message comes once, in order.
    let count = 60;
    for n in 0..count {
        publisher.send_raw(&Pub::new(&topic, n.to_string()).qos(1, n + 1).bytes());
        let options = 1 | [0x20, 0x28, 0x24][usize::from(n) % 3];
        sub.send_raw(&subscribe_bytes(n + 1, &[], &[(&topic, options)]));
    }
    let (mut next, mut answers) = (0, 0);
    while next < count || answers < count {
        let got = sub.next();
        match got.packet() {
            Packet::SubAck(suback) => {
                assert_eq!(suback.codes, [1]);
                answers += 1;
            }
            _ => {
                let publish = publish_of(&got);
                assert_eq!(publish.payload, next.to_string().as_bytes());
                sub.send_raw(&ack_bytes(0x40, publish.packet_id.expect("QoS 1").get()));
                next += 1;
            }
        }
    }
    sub.ping();
}

fn several_filters_are_as_several_packets(s: &Scene) {
    let mut sub = peer(s, "sub");
    let topic = s.topic("t");
    // The last of two identical ones holds.
    assert_eq!(subscribe_all(&mut sub, &[], &[(&topic, 2), (&topic, 0), (&s.topic("u"), 1)]), [2, 0, 1]);
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "t").qos(2, 1).send(&mut publisher);
    assert_eq!(publish_of(&take(&mut sub, "t")).qos, QoS::AtMostOnce);
    Pub::new(s.topic("u"), "u").qos(2, 1).send(&mut publisher);
    assert_eq!(publish_of(&take(&mut sub, "u")).qos, QoS::AtLeastOnce);
    // One that fails does not take the others with it.
    assert_eq!(subscribe_all(&mut sub, &[], &[("a+", 0), (&s.topic("v"), 1), ("#/a", 0)]), [0x8F, 1, 0x8F]);
    Pub::new(s.topic("v"), "v").qos(1, 1).send(&mut publisher);
    take(&mut sub, "v");
    assert_eq!(unsubscribe(&mut sub, &[&topic, &topic, &s.topic("v")]), [0, 0x11, 0]);
}

fn granted_qos_is_at_most_what_was_asked(s: &Scene) {
    let mut peer = peer(s, "a");
    for options in [0x00, 0x01, 0x02, 0x0D, 0x1A, 0x2C] {
        assert_eq!(subscribe_all(&mut peer, &[], &[(&s.topic("t"), options)]), [options & 3]);
    }
}

fn a_message_has_the_lower_of_its_qos_and_the_granted(s: &Scene) {
    let mut publisher = peer(s, "pub");
    for granted in 0..3 {
        let topic = s.topic(&granted.to_string());
        let mut sub = peer(s, &format!("sub{granted}"));
        subscribe(&mut sub, &topic, granted);
        let mut retained = Vec::new();
        for published in 0..3 {
            let message = |topic: String| {
                let message = Pub::new(topic, "x");
                if published == 0 { message } else { message.qos(published, 1) }
            };
            message(topic.clone()).send(&mut publisher);
            let wanted = QoS::from_bits(granted.min(published));
            assert_eq!(Some(publish_of(&take(&mut sub, "x")).qos), wanted);
            retained.push((s.topic(&format!("{granted}/{published}")), wanted));
            message(s.topic(&format!("{granted}/{published}"))).retain().send(&mut publisher);
        }
        for (topic, wanted) in retained {
            subscribe(&mut sub, &topic, granted);
            assert_eq!(Some(publish_of(&take(&mut sub, "x")).qos), wanted);
        }
    }
}

fn suback_and_unsuback_fit_where_they_can(s: &Scene) {
    let limit = 40;
    let client = Client::new(s.id("a")).packet_maximum(limit);
    let mut peer = client.login(&s.broker());
    let names: Vec<String> = (0..36).map(|n| s.topic(&n.to_string())).collect();
    let filters: Vec<_> = names.iter().map(|name| (&**name, 0)).collect();
    let plain: Vec<_> = names.iter().map(|name| &**name).collect();
    // Fixed header 2, packet identifier 2, property length 1: 35 codes fit. No property is ever in the way.
    let invalid = [("a+", 0); 35];
    assert_eq!(subscribe_all(&mut peer, &[], &invalid), [0x8F; 35]);
    assert_eq!(subscribe_all(&mut peer, &[], &filters[..35]), [0; 35]);
    assert_eq!(unsubscribe(&mut peer, &plain[..35]), [0; 35]);
    peer.send_raw(&unsubscribe_bytes(1, &plain));
    peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
    // What could not be answered was not done.
    let client = Client::lasting(s.id("b")).packet_maximum(limit);
    let mut peer = client.login(&s.broker());
    peer.send_raw(&subscribe_bytes(1, &[], &filters));
    peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
    let mut peer = client.login(&s.broker());
    assert_eq!(unsubscribe(&mut peer, &plain[..1]), [0x11]);
}

fn subscriptions_above_their_maximum_are_refused_0x97(s: &Scene) {
    let broker = s.with(&[("mqtt.max_subscriptions", "2")]);
    let mut peer = Client::new(s.id("a")).login(&broker);
    let [a, b, c] = ["a", "b", "c"].map(|name| s.topic(name));
    assert_eq!(
        subscribe_all(&mut peer, &[], &[(&a, 0x20), (&b, 0x21), (&c, 0x22), (&a, 0x22)]),
        [0, 1, 0x97, 2]
    );
    assert_eq!(unsubscribe(&mut peer, &[&c, &a]), [0x11, 0]);
    assert_eq!(subscribe_all(&mut peer, &[], &[(&c, 2)]), [2]);
}

fn an_unsubscribe_has_a_filter(s: &Scene) {
    faulty(s, &unsubscribe_bytes(1, &[]), ReasonCode::PROTOCOL_ERROR);
}

fn filters_are_compared_character_by_character(s: &Scene) {
    let mut sub = peer(s, "sub");
    let held = ["a/b", "a/+", "a/#", "\u{e4}", "a /b"].map(|name| s.topic(name));
    for filter in &held {
        subscribe(&mut sub, filter, 1);
    }
    for other in ["A/b", "a/b/", "/a/b", "a/+/", "+/b", "a\u{308}", "a/b ", "#"] {
        assert_eq!(unsubscribe(&mut sub, &[&s.topic(other)]), [0x11], "{other}");
    }
    let share = format!("$share/g/{}", held[0]);
    assert_eq!(unsubscribe(&mut sub, &[&share]), [0x11], "a share is another subscription");
    let mut publisher = peer(s, "pub");
    for (n, filter) in held.iter().enumerate() {
        Pub::new(&held[0], "x").qos(1, 1).send(&mut publisher);
        if n < 3 {
            take(&mut sub, "x");
        }
        assert_eq!(unsubscribe(&mut sub, &[filter]), [0]);
        assert_eq!(unsubscribe(&mut sub, &[filter]), [0x11]);
    }
}

fn after_unsuback_no_message_is_added(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("marker"), 1);
    for n in 0..10 {
        subscribe(&mut sub, &topic, 1);
        assert_eq!(unsubscribe(&mut sub, &[&topic]), [0]);
        let mut publisher = peer(s, &format!("pub{n}"));
        Pub::new(&topic, "no").qos(1, 1).send(&mut publisher);
        Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut publisher);
        take(&mut sub, "marker");
    }
}

fn delivery_that_has_begun_is_completed_after_unsubscribe(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub")).receive_maximum(2);
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in [1, 2] {
        Pub::new(&topic, n.to_string()).qos(n, 1).send(&mut publisher);
        expect(&mut sub, &n.to_string());
    }
    assert_eq!(unsubscribe(&mut sub, &[&topic]), [0]);
    sub.cut();
    let mut sub = client.login(&s.broker());
    for n in ["1", "2"] {
        assert!(publish_of(&expect(&mut sub, n)).dup);
    }
    sub.send_raw(&[ack_bytes(0x40, 1), ack_bytes(0x50, 2)].concat());
    assert_eq!(ack(&mut sub, 0x62, 2), ReasonCode::SUCCESS);
    sub.send_raw(&ack_bytes(0x70, 2));
    sub.ping();
}

fn a_filter_never_subscribed_is_answered_0x11(s: &Scene) {
    let mut peer = peer(s, "a");
    peer.send_raw(&unsubscribe_bytes(77, &[&s.topic("t")]));
    assert_eq!(peer.next().bytes(), [0xB0, 4, 0, 77, 0, 0x11]);
    // Another client has it.
    let mut other = super::client::peer(s, "b");
    subscribe(&mut other, &s.topic("t"), 0);
    assert_eq!(unsubscribe(&mut peer, &[&s.topic("t")]), [0x11]);
    Pub::new(s.topic("t"), "x").send(&mut peer);
    take(&mut other, "x");
}

fn an_unsuback_has_a_code_for_each_filter_in_order(s: &Scene) {
    let mut peer = peer(s, "a");
    let [a, b, c] = ["a", "b", "c"].map(|name| s.topic(name));
    let share = format!("$share/g/{a}");
    subscribe_all(&mut peer, &[], &[(&a, 0), (&c, 0), (&share, 0)]);
    let codes = unsubscribe(&mut peer, &[&b, &share, "a#", &c, "$share//a", &a, &a]);
    assert_eq!(codes, [0x11, 0, 0x8F, 0, 0x8F, 0, 0x11]);
    // With properties.
    peer.send_raw(&packet(0xA2, &[&two(9), &properties(&[&p_user("a", "b")]), &text(&a)]));
    assert_eq!(peer.next().bytes(), [0xB0, 4, 0, 9, 0, 0x11]);
}

fn pingreq_is_answered(s: &Scene) {
    let mut peer = peer(s, "a");
    for _ in 0..3 {
        peer.send_raw(&[0xC0, 0]);
        assert_eq!(peer.next().bytes(), [0xD0, 0]);
    }
    peer.send_raw(&[0xC0, 0].repeat(100));
    for _ in 0..100 {
        assert!(matches!(peer.read_packet(TIMEOUT), Read::Packet(got) if got.bytes() == [0xD0, 0]));
    }
    faulty(s, &[0xC0, 1, 0], ReasonCode::MALFORMED_PACKET);
}
