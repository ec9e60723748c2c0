//! Topic names, topic filters, their order, and shared subscriptions [4.6 to 4.8 of 5.0].

use super::client::*;
use crate::common::{Read, Received};
use crate::{Peer, Scene, cases};
use ringmq::codec::ReasonCode;
use ringmq::message::QoS;
use std::time::Duration;

cases! {
    "4.6.0-5" "4.6.0-6" => messages_of_one_client_keep_their_order,
    "4.7.1-1" "4.7.1-2" "4.7.3-1" => wildcards_stand_where_they_may,
    "4.7.1-1" "4.7.1-2" => wildcards_match_levels,
    "4.7.2-1" => leading_wildcards_do_not_match_dollar_topics,
    "4.7.3-1" => topics_have_at_least_one_character,
    "4.7.3-2" => topics_have_no_null_character,
    "4.7.3-3" => topics_of_65535_bytes_are_taken,
    "4.7.3-4" => topics_are_not_normalised,
    "4.8.2-1" "4.8.2-2" => a_share_has_a_name_and_a_filter,
    "4.8.2-3" => a_shared_message_respects_the_granted_qos,
    "4.8.2-3" "3.8.4-3" => each_shared_message_goes_to_one_member,
    "3.3.1-9" "4.8.2-3" => a_shared_subscription_gets_no_retained_messages,
    "4.8.2-4" => a_shared_qos_2_message_is_completed_after_reconnection,
    "4.8.2-5" => a_shared_qos_2_message_ends_with_its_session,
    "4.8.2-6" => a_shared_message_that_a_member_refused_goes_to_nobody_else,
}

fn messages_of_one_client_keep_their_order(s: &Scene) {
    let topic = s.topic("t");
    let offline = Client::lasting(s.id("offline"));
    let mut subs: Vec<Peer> = (0..3)
        .map(|qos| {
            let mut sub = Client::new(s.id(&qos.to_string())).receive_maximum(3).login(&s.broker());
            subscribe(
                &mut sub,
                if qos == 1 { "messages_of_one_client_keep_their_order/#" } else { &topic },
                qos,
            );
            sub
        })
        .collect();
    let mut sub = offline.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    sub.disconnect();
    let count = 60u16;
    let mut publisher = peer(s, "pub");
    for n in 0..count {
        publisher.send_raw(&Pub::new(&topic, n.to_string()).qos(2, n + 1).bytes());
    }
    for sub in subs.iter_mut().chain([&mut offline.login(&s.broker())]) {
        let mut next = 0;
        while next < count {
            let got = sub.next();
            let first = got.bytes()[0] & 0xF0;
            if first == 0x60 {
                sub.send_raw(&ack_bytes(0x70, u16::from_be_bytes([got.bytes()[2], got.bytes()[3]])));
                continue;
            }
            let publish = publish_of(&got);
            assert_eq!(publish.payload, next.to_string().as_bytes());
            next += 1;
            if let Some(id) = publish.packet_id {
                sub.send_raw(&ack_bytes(if publish.qos == QoS::ExactlyOnce { 0x50 } else { 0x40 }, id.get()));
            }
        }
    }
}

/// A client of a broker where nobody publishes, for filters that would see the messages of other cases.
fn unheard(s: &Scene) -> Peer {
    Client::new(s.id("a")).login(&s.with(&[("mqtt.max_subscriptions", "1000")]))
}

fn wildcards_stand_where_they_may(s: &Scene) {
    let mut peer = unheard(s);
    for good in
        ["#", "+", "/", "//", "+/+", "/+", "+/", "a/#", "a/+/#", "+/a/+", "/#", "a/", "$SYS/#", "$x/+", " "]
    {
        subscribe(&mut peer, good, 0);
        assert_eq!(unsubscribe(&mut peer, &[good]), [0]);
    }
    for bad in ["", "a#", "a/b#", "#/", "#/a", "a/#/b", "##", "a+", "+a", "a/b+/c", "++", "a/+b", "#+", "+#"]
    {
        assert_eq!(subscribe_all(&mut peer, &[], &[(bad, 0)]), [0x8F], "{bad}");
        assert_eq!(unsubscribe(&mut peer, &[bad]), [0x8F], "{bad}");
        let share = format!("$share/g/{bad}");
        assert_eq!(subscribe_all(&mut peer, &[], &[(&share, 0)]), [0x8F], "{share}");
    }
}

fn wildcards_match_levels(s: &Scene) {
    let topics = ["a", "a/", "a/b", "a/b/c", "/a", "//", "a//c", "b", "a/b/"];
    let filters: [(&str, &[&str]); 8] = [
        ("#", &topics),
        ("a/#", &["a", "a/", "a/b", "a/b/c", "a//c", "a/b/"]),
        ("+", &["a", "b"]),
        ("+/+", &["a/", "a/b", "/a"]),
        ("/+", &["/a"]),
        ("a/+", &["a/", "a/b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("a/+/#", &["a/", "a/b", "a/b/c", "a//c", "a/b/"]),
    ];
    let mut publisher = peer(s, "pub");
    for (n, (filter, wanted)) in filters.into_iter().enumerate() {
        let mut sub = peer(s, &format!("sub{n}"));
        subscribe(&mut sub, &s.topic(&format!("{n}/{filter}")), 1);
        subscribe(&mut sub, &s.topic("marker"), 1);
        for topic in topics {
            Pub::new(s.topic(&format!("{n}/{topic}")), topic).qos(1, 1).send(&mut publisher);
        }
        Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut publisher);
        for topic in wanted {
            take(&mut sub, topic);
        }
        take(&mut sub, "marker");
    }
}

fn leading_wildcards_do_not_match_dollar_topics(s: &Scene) {
    // A broker of its own: these filters see everything.
    let broker = s.own(&[]);
    let mut sub = Client::new(s.id("sub")).login(&broker);
    for filter in ["#", "+/x", "+/#", "+", "/#"] {
        subscribe(&mut sub, filter, 0x21);
    }
    let mut other = Client::new(s.id("other")).login(&broker);
    for filter in ["$data/#", "$data", "$data/+"] {
        subscribe(&mut other, filter, 0x21);
    }
    let mut publisher = Client::new(s.id("pub")).login(&broker);
    for topic in ["$data/x", "$data", "$data/x/y", "$"] {
        assert!(!Pub::new(topic, topic).qos(1, 1).retain().send(&mut publisher).is_error());
    }
    Pub::new("data/x", "seen").qos(1, 1).send(&mut publisher);
    take(&mut sub, "seen");
    for topic in ["$data/x", "$data", "$data/x/y"] {
        take(&mut other, topic);
    }
    // Nor are they found among the retained messages. `a/$data` does not begin with it.
    let mut late = Client::new(s.id("late")).login(&broker);
    Pub::new("a/$data", "kept").qos(1, 1).retain().send(&mut publisher);
    subscribe(&mut late, "#", 1);
    take(&mut late, "kept");
    quiet(&mut late, Duration::from_millis(100));
}

fn topics_have_at_least_one_character(s: &Scene) {
    faulty(s, &Pub::new("", "x").bytes(), ReasonCode::PROTOCOL_ERROR);
    let mut peer = peer(s, "a");
    assert_eq!(subscribe_all(&mut peer, &[], &[("", 0)]), [0x8F]);
    assert_eq!(unsubscribe(&mut peer, &[""]), [0x8F]);
    refused(
        &s.broker(),
        &Client::new(s.id("b")).will(Will::new("", "x")).bytes(),
        ReasonCode::TOPIC_NAME_INVALID,
    );
}

fn topics_have_no_null_character(s: &Scene) {
    faulty(s, &Pub::new("a\0", "x").bytes(), ReasonCode::MALFORMED_PACKET);
    faulty(s, &subscribe_bytes(1, &[], &[("a\0", 0)]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &unsubscribe_bytes(1, &["a\0"]), ReasonCode::MALFORMED_PACKET);
}

fn topics_of_65535_bytes_are_taken(s: &Scene) {
    let start = s.topic("");
    let long = format!("{start}{}", "x".repeat(65_535 - start.len()));
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &long, 1);
    Pub::new(&long, "long").qos(1, 1).send(&mut peer(s, "pub"));
    assert_eq!(publish_of(&take(&mut sub, "long")).topic, long);
    assert_eq!(unsubscribe(&mut sub, &[&long]), [0]);
    // The limit of levels is the broker's own.
    let deep = format!("{start}{}", "/".repeat(127 - 1));
    let deeper = format!("{deep}/");
    assert_eq!(subscribe_all(&mut sub, &[], &[(&deep, 0), (&deeper, 0)]), [0, 0x8F]);
}

fn topics_are_not_normalised(s: &Scene) {
    let names = [
        "a",
        "A",
        "a ",
        " a",
        "a/",
        "/a",
        "a//",
        "\u{e4}",
        "a\u{308}",
        "%61",
        "a\u{200b}",
        "./a",
        "a/../a",
        "\u{212b}",
        "\u{c5}",
    ];
    let mut subs: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let mut sub = peer(s, &n.to_string());
            subscribe(&mut sub, &s.topic(name), 1);
            subscribe(&mut sub, &s.topic("marker"), 1);
            sub
        })
        .collect();
    let mut publisher = peer(s, "pub");
    for name in names {
        Pub::new(s.topic(name), name).qos(1, 1).send(&mut publisher);
    }
    Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut publisher);
    for (sub, name) in subs.iter_mut().zip(names) {
        assert_eq!(publish_of(&take(sub, name)).topic.as_bytes(), s.topic(name).as_bytes());
        take(sub, "marker");
    }
}

fn a_share_has_a_name_and_a_filter(s: &Scene) {
    let mut peer = unheard(s);
    for bad in [
        "$share",
        "$share/",
        "$share//x",
        "$share/a+/x",
        "$share/a#/x",
        "$share/+/x",
        "$share/#/x",
        "$share/g/",
        "$share/g",
        "$share/g/a#",
    ] {
        assert_eq!(subscribe_all(&mut peer, &[], &[(bad, 0)]), [0x8F], "{bad}");
    }
    for good in [
        "$share/g/x",
        "$share/g//",
        "$share/ /x",
        "$share/$g/x",
        "$share/g/#",
        "$share/g/$x",
        "$share/\u{e4}/+",
        "$sharex/g/x",
    ] {
        subscribe(&mut peer, good, 1);
        assert_eq!(unsubscribe(&mut peer, &[good]), [0], "{good}");
    }
}

fn a_shared_message_respects_the_granted_qos(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for granted in 0..3 {
        let mut sub = peer(s, &granted.to_string());
        subscribe(&mut sub, &format!("$share/g{granted}/{topic}"), granted);
        for published in 0..3 {
            let message = Pub::new(&topic, "x");
            if published == 0 { message } else { message.qos(published, 1) }.send(&mut publisher);
            assert_eq!(Some(publish_of(&take(&mut sub, "x")).qos), QoS::from_bits(granted.min(published)));
        }
        sub.disconnect();
    }
}

/// Members of a share of `topic`, on as many shards as it takes.
fn members(s: &Scene, topic: &str, qos: u8, count: usize) -> Vec<Peer> {
    (0..count)
        .map(|n| {
            let mut sub = Client::lasting(s.id(&format!("member{n}"))).login(&s.broker());
            subscribe(&mut sub, &format!("$share/g/{topic}"), qos);
            sub
        })
        .collect()
}

fn each_shared_message_goes_to_one_member(s: &Scene) {
    let topic = s.topic("t");
    let mut members = members(s, &topic, 1, 6);
    // Subscribing again is no second membership, and another share gets copies of its own.
    subscribe(&mut members[0], &format!("$share/g/{topic}"), 1);
    let mut other = peer(s, "other");
    subscribe(&mut other, &format!("$share/h/{topic}"), 1);
    let mut plain = peer(s, "plain");
    subscribe(&mut plain, &topic, 1);
    let mut publisher = peer(s, "pub");
    let count = 30;
    for n in 0..count {
        Pub::new(&topic, n.to_string()).qos(1, 1).send(&mut publisher);
        take(&mut other, &n.to_string());
        take(&mut plain, &n.to_string());
    }
    let mut got = Vec::new();
    for _ in 0..count {
        let (n, received) = next_of(&mut members);
        let publish = publish_of(&received);
        members[n].send_raw(&ack_bytes(0x40, publish.packet_id.expect("QoS 1").get()));
        got.push(String::from_utf8_lossy(publish.payload).parse::<u16>().expect("a number"));
    }
    members.iter_mut().for_each(|member| quiet(member, Duration::from_millis(30)));
    got.sort_unstable();
    assert_eq!(got, (0..count).collect::<Vec<_>>());
}

fn a_shared_subscription_gets_no_retained_messages(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "kept").qos(1, 1).retain().send(&mut publisher);
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &format!("$share/g/{topic}"), 1);
    // A plain subscription to another retained message answers after it.
    Pub::new(s.topic("marker"), "marker").qos(1, 1).retain().send(&mut publisher);
    subscribe(&mut sub, &s.topic("marker"), 1);
    take(&mut sub, "marker");
    Pub::new(&topic, "live").qos(1, 1).retain().send(&mut publisher);
    assert!(!publish_of(&take(&mut sub, "live")).retain);
}

/// The next message that one of these gets, and which of them.
fn next_of(members: &mut [Peer]) -> (usize, Received) {
    for _ in 0..6_000 {
        for (n, member) in members.iter_mut().enumerate() {
            match member.read_packet(Duration::from_millis(2)) {
                Read::TimedOut => {}
                Read::Packet(got) => return (n, got),
                Read::Closed => panic!("member {n} was closed"),
            }
        }
    }
    panic!("nobody got it");
}

/// Publishes one message to a share of three; the member that got it, and the others.
fn one_got_it(s: &Scene, topic: &str, qos: u8) -> (usize, Vec<Peer>) {
    let mut members = members(s, topic, 2, 3);
    Pub::new(topic, "x").qos(qos, 1).send(&mut peer(s, "pub"));
    // One message has one receiver: whoever has it first.
    let (n, got) = next_of(&mut members);
    assert_eq!(publish_of(&got).payload, b"x");
    (n, members)
}

/// Nobody of these gets anything before a marker.
fn nothing_for(s: &Scene, members: Vec<Peer>) {
    let mut publisher = peer(s, "marker");
    for mut member in members {
        subscribe(&mut member, &s.topic("marker"), 1);
        Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut publisher);
        take(&mut member, "marker");
        assert_eq!(unsubscribe(&mut member, &[&s.topic("marker")]), [0]);
    }
}

fn a_shared_qos_2_message_is_completed_after_reconnection(s: &Scene) {
    let topic = s.topic("t");
    let (n, mut members) = one_got_it(s, &topic, 2);
    members.remove(n).cut();
    let mut back = Client::lasting(s.id(&format!("member{n}"))).login(&s.broker());
    let got = expect(&mut back, "x");
    assert!(publish_of(&got).dup);
    let id = publish_of(&got).packet_id.expect("QoS 2").get();
    back.send_raw(&ack_bytes(0x50, id));
    assert_eq!(ack(&mut back, 0x62, id), ReasonCode::SUCCESS);
    back.send_raw(&ack_bytes(0x70, id));
    back.ping();
    nothing_for(s, members);
}

fn a_shared_qos_2_message_ends_with_its_session(s: &Scene) {
    let topic = s.topic("t");
    let (n, mut members) = one_got_it(s, &topic, 2);
    let mut leaver = members.remove(n);
    leaver.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, 0)]));
    leaver.expect_closed();
    nothing_for(s, members);
}

fn a_shared_message_that_a_member_refused_goes_to_nobody_else(s: &Scene) {
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let topic = s.topic(&qos.to_string());
        let (n, mut members) = one_got_it(s, &topic, qos);
        members[n].send_raw(&ack_with(first, 1, ReasonCode::QUOTA_EXCEEDED));
        members[n].ping();
        // Also not when the member leaves afterwards.
        members.remove(n).cut();
        nothing_for(s, members);
        for n in 0..3 {
            let end = Client::new(s.id(&format!("member{n}"))).login(&s.broker());
            end.disconnect();
        }
    }
}
