//! PUBLISH: its flags, its properties, and what is retained [3.3.1 and 3.3.2 of 5.0].

use super::client::*;
use crate::raw::{packet, properties, text, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Property, ReasonCode};
use ringmq::message::QoS;
use std::time::Duration;

cases! {
    "3.3.1-1" "4.4.0-1" => a_redelivery_has_dup,
    "3.3.1-2" "4.3.1-1" => qos_0_has_no_dup,
    "3.3.1-3" "4.3.2-2" "4.3.3-2" => dup_is_not_passed_on,
    "3.3.1-4" => qos_3_is_malformed,
    "3.3.1-5" => a_retained_message_replaces_the_last,
    "3.3.1-6" "3.3.1-7" => an_empty_retained_message_is_delivered_and_removes,
    "3.3.1-8" => a_message_without_retain_changes_nothing_retained,
    "3.3.1-9" "3.3.1-10" "3.3.1-11" => retain_handling_says_when_retained_messages_are_sent,
    "3.3.1-9" "3.3.1-12" => a_message_during_the_search_for_retained_ones_comes_once,
    "3.3.1-12" "3.3.1-13" => retain_as_published_keeps_or_clears_the_flag,
    "3.3.2-1" => a_topic_name_is_the_first_field,
    "3.3.2-2" "4.7.0-1" => a_topic_name_has_no_wildcards,
    "3.3.2-3" => a_message_has_a_topic_that_matches,
    "3.3.2-4" "3.3.2-15" "3.3.2-16" "3.3.2-17" "3.3.2-18" "3.3.2-20" => properties_are_passed_on_unaltered,
    "3.3.2-5" => an_expired_message_is_deleted_from_the_queue,
    "3.3.2-6" => message_expiry_is_sent_less_the_time_waited,
    "3.3.2-5" "3.3.2-6" => a_retained_message_expires,
    "3.3.2-5" "4.3.3-7" "4.3.3-13" "4.4.0-1" => what_was_sent_before_it_expired_is_sent_again,
    "3.3.2-7" => topic_aliases_end_with_the_connection,
    "3.3.2-8" => topic_alias_0_is_invalid,
    "3.3.2-12" => each_topic_alias_up_to_the_maximum_is_taken,
    "3.3.2-12" "4.13.1-1" => a_topic_alias_before_its_definition_is_a_protocol_error,
    "3.3.2-14" => a_response_topic_has_no_wildcards,
    "3.4.2-1" "3.5.2-1" => a_payload_is_checked_against_its_format_when_configured,
}

fn a_redelivery_has_dup(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for (n, qos) in [1, 2, 1].into_iter().enumerate() {
        Pub::new(&topic, n.to_string()).qos(qos, 7).send(&mut publisher);
        let got = expect(&mut sub, &n.to_string());
        assert!(!publish_of(&got).dup, "the first time: {got:?}");
    }
    sub.cut();
    Pub::new(&topic, "3").qos(1, 7).send(&mut publisher);
    let mut sub = client.login(&s.broker());
    for (n, dup) in [true, true, true, false].into_iter().enumerate() {
        let got = expect(&mut sub, &n.to_string());
        assert_eq!(publish_of(&got).dup, dup, "{got:?}");
    }
}

fn qos_0_has_no_dup(s: &Scene) {
    faulty(s, &Pub::new("t", "x").dup().bytes(), ReasonCode::MALFORMED_PACKET);
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 0);
    Pub::new(&topic, "x").qos(1, 1).dup().send(&mut peer(s, "pub"));
    let got = expect(&mut sub, "x");
    assert_eq!(got.bytes()[0], 0x30, "{got:?}");
}

fn dup_is_not_passed_on(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for qos in [1, 2] {
        Pub::new(&topic, "x").qos(qos, 1).dup().send(&mut publisher);
        assert!(!publish_of(&take(&mut sub, "x")).dup);
    }
}

fn qos_3_is_malformed(s: &Scene) {
    for first in [0x36, 0x37, 0x3E, 0x3F] {
        faulty(s, &packet(first, &[&text("t"), &two(1), &[0]]), ReasonCode::MALFORMED_PACKET);
    }
}

/// A new subscriber gets these retained messages of this case, and no others.
#[track_caller]
fn expect_retained(s: &Scene, filter: &str, payloads: &[&str]) {
    let mut sub = peer(s, "late");
    let packet_id = sub.packet_id();
    sub.send_raw(&subscribe_bytes(packet_id.get(), &[], &[(filter, 2)]));
    assert_eq!(sub.next().bytes()[0], 0x90);
    for payload in payloads {
        let got = expect(&mut sub, payload);
        assert!(publish_of(&got).retain, "{got:?}");
    }
    // Those of other shards come page by page: nothing says when all are there.
    quiet(&mut sub, Duration::from_millis(200));
}

fn a_retained_message_replaces_the_last(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for (n, qos) in [2, 1, 0, 2].into_iter().enumerate() {
        let message = Pub::new(&topic, n.to_string()).retain();
        let message = if qos == 0 { message } else { message.qos(qos, 1) };
        message.send(&mut publisher);
    }
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let got = take(&mut sub, "3");
    assert_eq!((publish_of(&got).retain, publish_of(&got).qos), (true, QoS::ExactlyOnce));
    Pub::new(&topic, "4").retain().send(&mut publisher);
    take(&mut sub, "4");
    // Of QoS 0 as well.
    expect_retained(s, &topic, &["4"]);
}

fn an_empty_retained_message_is_delivered_and_removes(s: &Scene) {
    let (topic, other) = (s.topic("t"), s.topic("other"));
    let mut publisher = peer(s, "pub");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    Pub::new(&topic, "1").qos(1, 1).retain().send(&mut publisher);
    Pub::new(&other, "kept").qos(1, 1).retain().send(&mut publisher);
    take(&mut sub, "1");
    for _ in 0..2 {
        Pub::new(&topic, "").qos(1, 1).retain().send(&mut publisher);
        let got = take(&mut sub, "");
        assert!(!publish_of(&got).retain);
    }
    expect_retained(s, &s.topic("+"), &["kept"]);
}

fn a_message_without_retain_changes_nothing_retained(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "kept").qos(1, 1).retain().send(&mut publisher);
    Pub::new(&topic, "passes").qos(1, 1).send(&mut publisher);
    Pub::new(&topic, "").qos(1, 1).send(&mut publisher);
    Pub::new(s.topic("new"), "x").qos(1, 1).send(&mut publisher);
    expect_retained(s, &s.topic("+"), &["kept"]);
}

/// Subscribes to `topic` with these options and then publishes a marker: what came before it.
fn until_marker(s: &Scene, sub: &mut Peer, topic: &str, options: u8) -> Vec<String> {
    subscribe(sub, topic, options);
    // A scan of one topic asks one shard; a second subscription's retained message comes after it.
    let marker = s.topic("marker");
    Pub::new(&marker, "marker").qos(1, 1).retain().send(&mut peer(s, "marker"));
    let packet_id = sub.packet_id();
    sub.send_raw(&subscribe_bytes(packet_id.get(), &[], &[(&marker, 1)]));
    let mut all = Vec::new();
    loop {
        let got = sub.next();
        if got.bytes()[0] == 0x90 {
            continue;
        }
        let payload = String::from_utf8_lossy(publish_of(&got).payload).into_owned();
        if let Some(id) = publish_of(&got).packet_id {
            sub.send_raw(&ack_bytes(0x40, id.get()));
        }
        if payload == "marker" {
            unsubscribe(sub, &[&marker]);
            return all;
        }
        assert!(publish_of(&got).retain);
        all.push(payload);
    }
}

fn retain_handling_says_when_retained_messages_are_sent(s: &Scene) {
    let topic = s.topic("t");
    Pub::new(&topic, "kept").qos(1, 1).retain().send(&mut peer(s, "pub"));
    let mut sub = peer(s, "sub");
    let [always, if_new, never] = [0x01, 0x11, 0x21];
    for (options, wanted) in [
        (never, 0),
        // The subscription is there already, also for the rest.
        (if_new, 0),
        (always, 1),
        (always, 1),
        (if_new, 0),
        (never, 0),
    ] {
        let got = until_marker(s, &mut sub, &topic, options);
        assert_eq!(got, vec!["kept"; wanted], "{options:#x}");
    }
    for (options, wanted) in [(always, 1), (if_new, 1), (never, 0)] {
        unsubscribe(&mut sub, &[&topic]);
        assert_eq!(until_marker(s, &mut sub, &topic, options), vec!["kept"; wanted], "{options:#x}");
    }
    // 3 is none of them.
    faulty(s, &subscribe_bytes(1, &[], &[("t", 0x31)]), ReasonCode::PROTOCOL_ERROR);
}

fn a_message_during_the_search_for_retained_ones_comes_once(s: &Scene) {
    let mut publisher = peer(s, "pub");
    let mut sub = peer(s, "sub");
    for n in 0..25 {
        let topic = s.topic(&n.to_string());
        let filter = if n % 2 == 0 { topic.clone() } else { s.topic("+") };
        Pub::new(&topic, "").qos(1, 1).retain().send(&mut publisher);
        // It is published after SUBACK, while the shards are still being asked for retained messages.
        subscribe(&mut sub, &filter, 1);
        Pub::new(&topic, "new").qos(1, 1).retain().send(&mut publisher);
        Pub::new(&topic, "newer").qos(1, 1).send(&mut publisher);
        take_all(&mut sub, &["new", "newer"]);
        Pub::new(&topic, "").qos(1, 1).retain().send(&mut publisher);
        take(&mut sub, "");
        assert_eq!(unsubscribe(&mut sub, &[&filter]), [0]);
    }
}

fn retain_as_published_keeps_or_clears_the_flag(s: &Scene) {
    let topic = s.topic("t");
    let [mut cleared, mut kept] = ["cleared", "kept"].map(|name| peer(s, name));
    subscribe(&mut cleared, &topic, 0x01);
    subscribe(&mut kept, &topic, 0x09);
    let mut publisher = peer(s, "pub");
    for (qos, retain) in [(0, true), (0, false), (1, true), (1, false), (2, true)] {
        let mut message = Pub::new(&topic, "x");
        message = if qos == 0 { message } else { message.qos(qos, 1) };
        message = if retain { message.retain() } else { message };
        message.send(&mut publisher);
        assert!(!publish_of(&take(&mut cleared, "x")).retain);
        assert_eq!(publish_of(&take(&mut kept, "x")).retain, retain);
    }
    // A retained message that answers a subscription has the flag in either case.
    for (name, options) in [("late", 0x01), ("later", 0x09)] {
        let mut late = peer(s, name);
        subscribe(&mut late, &topic, options);
        assert!(publish_of(&take(&mut late, "x")).retain);
    }
}

fn a_topic_name_is_the_first_field(s: &Scene) {
    faulty(s, &packet(0x30, &[]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0x30, &[&[0]]), ReasonCode::MALFORMED_PACKET);
    // An empty one without an alias.
    faulty(s, &Pub::new("", "x").bytes(), ReasonCode::PROTOCOL_ERROR);
}

fn a_topic_name_has_no_wildcards(s: &Scene) {
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b", "/#"] {
        for qos in 0..3 {
            let message = Pub::new(topic, "x");
            let message = if qos == 0 { message } else { message.qos(qos, 1) };
            faulty(s, &message.bytes(), ReasonCode::TOPIC_NAME_INVALID);
        }
    }
}

fn a_message_has_a_topic_that_matches(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("a/+/c"), 1);
    subscribe(&mut sub, &s.topic("d/#"), 1);
    let mut publisher = peer(s, "pub");
    for (topic, matches) in [
        ("a/b/c", true),
        ("a/b", false),
        ("a/b/c/d", false),
        ("a//c", true),
        ("d", true),
        ("d/e/f", true),
        ("dd", false),
    ] {
        Pub::new(s.topic(topic), topic).qos(1, 1).send(&mut publisher);
        if matches {
            assert_eq!(publish_of(&take(&mut sub, topic)).topic, s.topic(topic));
        }
    }
    sub.ping();
}

fn with_everything(topic: &str) -> Pub {
    Pub::new(topic, "payload")
        .with(p_user("z", "1"))
        .with(p_text(id::CONTENT_TYPE, "application/json; \u{e4}"))
        .with(p_user("a", ""))
        .with(p_byte(id::PAYLOAD_FORMAT, 1))
        .with(p_user("", "b"))
        .with(p_text(id::RESPONSE_TOPIC, "reply/\u{20ac}"))
        .with(p_user("z", "1"))
        .with(p_text(id::CORRELATION_DATA, [0, 0xFF, 0xC0, 0]))
        .with(p_user("z", "0"))
}

fn holds_everything(got: &Delivery) {
    let all = properties_of(got);
    let user = Property::UserProperty;
    let users: Vec<_> = all.iter().filter(|p| matches!(p, Property::UserProperty(..))).copied().collect();
    assert_eq!(users, [user("z", "1"), user("a", ""), user("", "b"), user("z", "1"), user("z", "0")]);
    for property in [
        Property::ContentType("application/json; \u{e4}"),
        Property::PayloadFormatIndicator(1),
        Property::ResponseTopic("reply/\u{20ac}"),
        Property::CorrelationData(&[0, 0xFF, 0xC0, 0]),
    ] {
        assert_eq!(all.iter().filter(|p| **p == property).count(), 1, "{property:?} in {all:?}");
    }
    assert_eq!(all.len(), 9, "{all:?}");
}

fn properties_are_passed_on_unaltered(s: &Scene) {
    let topic = s.topic("t");
    let mut live = [0, 1, 2].map(|qos| {
        let mut sub = peer(s, &format!("live{qos}"));
        subscribe(&mut sub, &topic, qos);
        sub
    });
    let queued = Client::lasting(s.id("queued"));
    let mut sub = queued.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    sub.disconnect();
    // Also through an alias, and from the retained messages.
    let mut publisher = peer(s, "pub");
    with_everything(&topic).with(p_two(id::ALIAS, 1)).qos(2, 1).retain().send(&mut publisher);
    live.iter_mut().for_each(|sub| holds_everything(&take(sub, "payload")));
    holds_everything(&take(&mut queued.login(&s.broker()), "payload"));
    let mut late = peer(s, "late");
    subscribe(&mut late, &topic, 1);
    holds_everything(&take(&mut late, "payload"));
    with_everything(&topic).send(&mut publisher);
    live.iter_mut().for_each(|sub| holds_everything(&take(sub, "payload")));
    // Payload Format Indicator 0 stays 0 rather than nothing.
    Pub::new(&topic, "x").with(p_byte(id::PAYLOAD_FORMAT, 0)).send(&mut publisher);
    let got = expect(&mut live[0], "x");
    assert_eq!(properties_of(&got), [Property::PayloadFormatIndicator(0)]);
}

/// Message Expiry Interval of a PUBLISH.
fn expiry(got: &Delivery) -> Option<u32> {
    properties_of(got).into_iter().find_map(|p| match p {
        Property::MessageExpiryInterval(s) => Some(s),
        _ => None,
    })
}

fn expiring(topic: &str, payload: &str, seconds: u32) -> Pub {
    Pub::new(topic, payload).qos(1, 1).with(p_four(id::MESSAGE_EXPIRY, seconds))
}

/// The next packet is this message, with so many seconds left; on sockets the machine may have been slow.
#[track_caller]
fn left(sub: &mut Peer, payload: &str, seconds: u32) {
    let left = expiry(&take(sub, payload)).expect("it has one");
    let slow = if is_exact(sub) { 0 } else { 200 };
    assert!((seconds - slow..=seconds).contains(&left), "{left} of {seconds} are left");
}

fn an_expired_message_is_deleted_from_the_queue(s: &Scene) {
    let topic = s.topic("t");
    let offline = Client::lasting(s.id("offline"));
    let mut sub = offline.login(&s.broker());
    subscribe(&mut sub, &topic, 1);
    sub.disconnect();
    // Connected, and behind a message that is not acknowledged.
    let mut busy = Client::new(s.id("busy")).receive_maximum(1).login(&s.broker());
    subscribe(&mut busy, &topic, 1);
    let mut publisher = peer(s, "pub");
    for message in
        [expiring(&topic, "stays", 100), expiring(&topic, "goes", 1), expiring(&topic, "stays too", 100)]
    {
        message.send(&mut publisher);
    }
    let first = expect(&mut busy, "stays");
    s.pass(Duration::from_millis(1_300));
    busy.send_raw(&ack_bytes(0x40, publish_of(&first).packet_id.expect("QoS 1").get()));
    take(&mut busy, "stays too");
    let mut sub = offline.login(&s.broker());
    take(&mut sub, "stays");
    take(&mut sub, "stays too");
    sub.ping();
}

fn message_expiry_is_sent_less_the_time_waited(s: &Scene) {
    let topic = s.topic("t");
    let offline = Client::lasting(s.id("offline"));
    let mut sub = offline.login(&s.broker());
    subscribe(&mut sub, &topic, 1);
    sub.disconnect();
    let mut live = peer(s, "live");
    subscribe(&mut live, &topic, 1);
    let mut publisher = peer(s, "pub");
    expiring(&topic, "1", 1_000).send(&mut publisher);
    expiring(&topic, "2", u32::MAX).send(&mut publisher);
    left(&mut live, "1", 1_000);
    left(&mut live, "2", u32::MAX);
    s.pass(Duration::from_millis(1_200));
    let mut sub = offline.login(&s.broker());
    left(&mut sub, "1", 999);
    left(&mut sub, "2", u32::MAX - 1);
}

fn a_retained_message_expires(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    expiring(&s.topic("short"), "goes", 1).retain().send(&mut publisher);
    expiring(&topic, "stays", 1_000).retain().send(&mut publisher);
    s.pass(Duration::from_millis(1_200));
    expect_retained(s, &s.topic("+"), &["stays"]);
    let mut late = peer(s, "later");
    subscribe(&mut late, &topic, 1);
    left(&mut late, "stays", 999);
}

fn what_was_sent_before_it_expired_is_sent_again(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for (n, qos) in [1, 2, 2].into_iter().enumerate() {
        Pub::new(&topic, n.to_string()).qos(qos, 1).with(p_four(id::MESSAGE_EXPIRY, 3)).send(&mut publisher);
        expect(&mut sub, &n.to_string());
    }
    // The last one is a step further.
    sub.send_raw(&ack_bytes(0x50, 3));
    assert_eq!(ack(&mut sub, 0x62, 3), ReasonCode::SUCCESS);
    sub.cut();
    s.pass(Duration::from_millis(3_300));
    let mut sub = client.login(&s.broker());
    for n in ["0", "1"] {
        let got = expect(&mut sub, n);
        assert_eq!((publish_of(&got).dup, expiry(&got)), (true, Some(0)), "{got:?}");
    }
    assert_eq!(ack(&mut sub, 0x62, 3), ReasonCode::SUCCESS);
    sub.send_raw(&[ack_bytes(0x40, 1), ack_bytes(0x50, 2), ack_bytes(0x70, 3)].concat());
    assert_eq!(ack(&mut sub, 0x62, 2), ReasonCode::SUCCESS);
    sub.send_raw(&ack_bytes(0x70, 2));
    sub.ping();
}

fn topic_aliases_end_with_the_connection(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("a")).alias_maximum(5);
    let mut first = client.login(&s.broker());
    subscribe(&mut first, &topic, 0);
    Pub::new(&topic, "1").with(p_two(id::ALIAS, 1)).send(&mut first);
    assert_eq!(publish_of(&expect(&mut first, "1")).topic, topic);
    Pub::new("", "2").with(p_two(id::ALIAS, 1)).send(&mut first);
    // The server's own alias is in use by now.
    assert_eq!(publish_of(&expect(&mut first, "2")).topic, "");
    first.disconnect();
    // The server's are forgotten.
    let (mut second, present) = client.resume(&s.broker());
    assert!(present);
    Pub::new(&topic, "3").send(&mut peer(s, "pub"));
    assert_eq!(publish_of(&expect(&mut second, "3")).topic, topic);
    // And the client's.
    second.send_raw(&Pub::new("", "4").with(p_two(id::ALIAS, 1)).bytes());
    second.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
}

fn topic_alias_0_is_invalid(s: &Scene) {
    faulty(s, &Pub::new("t", "x").with(p_two(id::ALIAS, 0)).bytes(), ReasonCode::TOPIC_ALIAS_INVALID);
    faulty(s, &Pub::new("", "x").with(p_two(id::ALIAS, 0)).bytes(), ReasonCode::TOPIC_ALIAS_INVALID);
}

fn each_topic_alias_up_to_the_maximum_is_taken(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("#"), 0);
    let mut publisher = peer(s, "pub");
    let named = |n: u16| s.topic(&n.to_string());
    for n in 1..=32 {
        Pub::new(named(n), "defined").with(p_two(id::ALIAS, n)).send(&mut publisher);
        assert_eq!(publish_of(&expect(&mut sub, "defined")).topic, named(n));
    }
    for n in (1..=32).rev() {
        Pub::new("", "used").with(p_two(id::ALIAS, n)).qos(1, n).send(&mut publisher);
        assert_eq!(publish_of(&expect(&mut sub, "used")).topic, named(n));
    }
    // A new meaning replaces the old one; a message without an alias changes nothing.
    Pub::new(named(99), "moved").with(p_two(id::ALIAS, 7)).send(&mut publisher);
    Pub::new(named(98), "plain").send(&mut publisher);
    Pub::new("", "used").with(p_two(id::ALIAS, 7)).send(&mut publisher);
    for (payload, n) in [("moved", 99), ("plain", 98), ("used", 99)] {
        assert_eq!(publish_of(&expect(&mut sub, payload)).topic, named(n));
    }
}

fn a_topic_alias_before_its_definition_is_a_protocol_error(s: &Scene) {
    faulty(s, &Pub::new("", "x").with(p_two(id::ALIAS, 1)).bytes(), ReasonCode::PROTOCOL_ERROR);
    // One that another connection defined is not this one's.
    let mut other = peer(s, "other");
    Pub::new("t", "x").with(p_two(id::ALIAS, 2)).qos(1, 1).send(&mut other);
    faulty(s, &Pub::new("", "x").with(p_two(id::ALIAS, 2)).bytes(), ReasonCode::PROTOCOL_ERROR);
    // Nor does a neighbour in use make it known.
    let mut peer = peer(s, "a");
    Pub::new("t", "x").with(p_two(id::ALIAS, 5)).qos(1, 1).send(&mut peer);
    peer.send_raw(&Pub::new("", "x").with(p_two(id::ALIAS, 4)).bytes());
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
}

fn a_response_topic_has_no_wildcards(s: &Scene) {
    for topic in ["#", "a/+", "a/#", "+/b", "a+"] {
        let bytes = Pub::new("t", "x").with(p_text(id::RESPONSE_TOPIC, topic)).bytes();
        faulty(s, &bytes, ReasonCode::PROTOCOL_ERROR);
        let will = Will::new("t", "x").with(p_text(id::RESPONSE_TOPIC, topic));
        refused(&s.broker(), &Client::new(s.id("a")).will(will).bytes(), ReasonCode::PROTOCOL_ERROR);
    }
}

fn a_payload_is_checked_against_its_format_when_configured(s: &Scene) {
    let topic = s.topic("t");
    let text = p_byte(id::PAYLOAD_FORMAT, 1);
    let wrong = Pub::new(&topic, [0xFF, 0xFE]).with(text.clone());
    let checked = s.with(&[("mqtt.check_payload_format", "true")]);
    let mut peer = Client::new(s.id("a")).login(&checked);
    subscribe(&mut peer, &topic, 2);
    let invalid = ReasonCode::PAYLOAD_FORMAT_INVALID;
    assert_eq!(wrong.clone().qos(1, 1).send(&mut peer), invalid);
    assert_eq!(wrong.clone().qos(2, 2).send(&mut peer), invalid);
    // It was not taken, so its identifier is free, and the message after it is another one.
    for message in [
        Pub::new(&topic, "text").with(text.clone()).qos(2, 2),
        Pub::new(&topic, [0xFF]).qos(2, 2),
        Pub::new(&topic, [0xFF]).with(p_byte(id::PAYLOAD_FORMAT, 0)).qos(2, 2),
    ] {
        peer.send_raw(&message.bytes());
        let mut kinds = [peer.next(), peer.next()].map(|got| got.bytes()[0]);
        kinds.sort_unstable();
        assert_eq!(kinds, [0x34, 0x50]);
        peer.send_raw(&ack_bytes(0x62, 2));
        assert_eq!(ack(&mut peer, 0x70, 2), ReasonCode::SUCCESS);
    }
    peer.send_raw(&wrong.bytes());
    peer.expect_disconnect(invalid);
    let (_, answer) =
        Client::new(s.id("a")).will(Will::new(&topic, "\u{e4}").with(text.clone())).open(&checked);
    assert_eq!(connack_of(&answer).code, ReasonCode::SUCCESS);
    let login =
        [crate::raw::text("c"), properties(&[&text]), crate::raw::text("t"), crate::raw::text([0xFF])];
    refused(&checked, &connect(0x06, 0, &[0], &login.concat()), invalid);
    // By default it is the client's business.
    let mut peer = super::client::peer(s, "b");
    assert!(!wrong.qos(1, 1).send(&mut peer).is_error());
}
