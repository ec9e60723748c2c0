//! Rules of 5.0 that have no number of their own: tables of codes, short forms, moments, corners.

use super::client::*;
use crate::common::Read;
use crate::raw::{packet, properties, text, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Packet, PacketType, Property, ReasonCode, Version};
use std::time::Duration;

cases! {
    "3.1.0-1" => a_connection_without_connect_is_closed_at_its_time,
    "3.1.2-23" "4.1.0-2" => a_session_ends_at_its_moment,
    "3.1.2-8" "3.1.3-9" => a_will_that_is_due_is_published_though_the_session_is_resumed,
    "3.1.2-30" "3.1.4-6" => nothing_behind_a_connect_with_an_unknown_method_is_processed,
    "3.3.2-12" => a_topic_alias_can_be_given_another_topic,
    "3.4.2-1" "3.5.2-1" "3.6.2-1" "3.7.2-1" "3.14.2-1" => each_packet_has_the_codes_of_its_table,
    "3.4.2-1" "3.5.2-1" "3.6.2-1" "3.7.2-1" => acknowledgements_have_short_forms,
    "3.4.2-1" "4.4.0-2" => an_acknowledgement_with_an_error_ends_the_message,
    "3.6.2-1" "4.3.3-11" "4.3.3-12" => a_pubrel_with_an_error_is_answered_as_well,
    "3.3.2-18" "1.5.7-1" => user_properties_may_repeat_in_each_packet,
    "3.14.2-2" "3.14.4-3" => a_disconnect_that_is_none_publishes_the_will,
    "3.14.2-2" => a_session_expiry_that_was_capped_to_0_may_be_asked_for_again,
    "3.14.2-1" "3.14.4-3" => a_disconnect_with_a_code_of_servers_counts_with_its_will,
    "3.8.4-3" "3.8.4-5" => a_filter_twice_in_one_subscribe_counts_twice,
    "3.3.4-5" "4.8.2-3" => a_shared_and_a_plain_subscription_are_two,
    "3.3.2-5" => a_message_with_expiry_0_is_kept_for_nobody,
    "3.2.2-17" "3.3.2-12" "3.3.4-7" => what_connack_announced_holds_after_the_settings_changed
        [Simulation: "a process reads its settings again from a file"],
    "3.2.2-7" "4.13.2-1" => a_connect_that_meets_a_full_shard_is_told_and_closed
        [Simulation: "descriptors do not run out on demand"],
}

fn a_connection_without_connect_is_closed_at_its_time(s: &Scene) {
    let broker = s.with(&[("mqtt.idle_timeout_s", "1")]);
    let login = Client::new(s.id("a")).bytes();
    // With nothing, with a part of a CONNECT, and with a part that goes on coming.
    for (cut, more) in [(0, false), (3, false), (login.len() - 1, false), (5, true)] {
        let since = broker.now();
        let mut peer = Peer::open(&broker, Version::V5);
        peer.send_raw(&login[..cut]);
        if more {
            s.pass(Duration::from_millis(600));
            // It may be closed by now.
            let _ = peer.try_send_raw(&login[cut..=cut]);
        }
        ends(&mut peer, &login[..cut]);
        since.was(&peer, Duration::from_secs(1));
    }
    // One that is served is not.
    let mut served = Client::new(s.id("a")).login(&broker);
    quiet(&mut served, Duration::from_millis(1_500));
    served.ping();
}

/// Ends a connection by itself, or by a DISCONNECT that sets the session's expiry to a second.
fn leave(mut peer: Peer, by_disconnect: bool) {
    if by_disconnect {
        peer.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, 1)]));
        peer.expect_closed();
    } else {
        peer.cut();
    }
}

fn a_session_ends_at_its_moment(s: &Scene) {
    for (n, by_disconnect) in [false, true].into_iter().enumerate() {
        let expiry = if by_disconnect { 3_600 } else { 1 };
        let client = Client::new(s.id(&n.to_string())).clean(false).expiry(expiry);
        leave(client.login(&s.broker()), by_disconnect);
        s.pass(Duration::from_millis(990));
        let (peer, present) = client.resume(&s.broker());
        // Where the machine is slow its second may have passed.
        assert!(present || !is_exact(&peer), "its second has not passed");
        leave(peer, by_disconnect);
        s.pass(Duration::from_millis(1_001));
        assert!(!client.resume(&s.broker()).1, "its second has passed");
    }
}

fn a_will_that_is_due_is_published_though_the_session_is_resumed(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("will"), 1);
    let client = Client::lasting(s.id("a")).will(Will::new(s.topic("will"), "due").delay(1));
    client.login(&s.broker()).cut();
    s.pass(Duration::from_millis(1_001));
    let (mut back, present) = client.resume(&s.broker());
    assert!(present);
    take(&mut sub, "due");
    // It was that of the connection before: the new one has its own.
    back.send_raw(&disconnect_bytes(0, &[]));
    back.expect_closed();
    Pub::new(s.topic("will"), "marker").qos(1, 1).send(&mut peer(s, "pub"));
    take(&mut sub, "marker");
}

fn nothing_behind_a_connect_with_an_unknown_method_is_processed(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let login = Client::lasting(s.id("a")).with(p_text(id::AUTH_METHOD, "PLAIN")).bytes();
    let behind = [Pub::new(&topic, "no").qos(1, 1).bytes(), vec![0xC0, 0], disconnect_bytes(4, &[])].concat();
    let mut refused = Peer::open(&s.broker(), Version::V5);
    refused.send_raw(&[login, behind].concat());
    assert_eq!(connack_of(&refused.next()).code, ReasonCode::BAD_AUTHENTICATION_METHOD);
    refused.expect_closed();
    assert!(!Client::lasting(s.id("a")).resume(&s.broker()).1, "it has no session");
    Pub::new(&topic, "marker").qos(1, 1).send(&mut peer(s, "pub"));
    take(&mut sub, "marker");
}

fn a_topic_alias_can_be_given_another_topic(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("+"), 0);
    let mut publisher = peer(s, "pub");
    for (name, topic) in [("a", "a"), ("", "a"), ("b", "b"), ("", "b"), ("a", "a"), ("", "a")] {
        let named = if name.is_empty() { String::new() } else { s.topic(name) };
        Pub::new(named, topic).with(p_two(id::ALIAS, 7)).send(&mut publisher);
        assert_eq!(publish_of(&expect(&mut sub, topic)).topic, s.topic(topic));
    }
}

/// A packet of a client with this code, by the type of packet.
fn with_code(kind: PacketType, code: u8) -> Vec<u8> {
    match kind {
        PacketType::Disconnect => disconnect_bytes(code, &[]),
        kind => {
            ack_with((kind as u8) << 4 | if kind == PacketType::PubRel { 2 } else { 0 }, 1, ReasonCode(code))
        }
    }
}

fn each_packet_has_the_codes_of_its_table(s: &Scene) {
    let published: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let released: &[u8] = &[0x00, 0x92];
    let disconnect: &[u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    let tables = [
        (PacketType::PubAck, published),
        (PacketType::PubRec, published),
        (PacketType::PubRel, released),
        (PacketType::PubComp, released),
        (PacketType::Disconnect, disconnect),
    ];
    let unnamed = [0x03, 0x05, 0x20, 0x7F, 0xA3, 0xFF].map(ReasonCode);
    let codes: Vec<u8> = ReasonCode::ALL.iter().chain(&unnamed).map(|code| code.0).collect();
    for (kind, allowed) in tables {
        let mut fine = peer(s, "fine");
        for code in &codes {
            let bytes = with_code(kind, *code);
            if !allowed.contains(code) {
                faulty(s, &bytes, ReasonCode::PROTOCOL_ERROR);
            } else if kind == PacketType::Disconnect {
                disconnect_with(peer(s, "leaves"), *code);
            } else {
                fine.send_raw(&bytes);
            }
        }
        // What was allowed has ended nothing; PUBREC and PUBREL of unknown identifiers are answered.
        fine.send_raw(&[0xC0, 0]);
        loop {
            let got = fine.next();
            match got.packet() {
                Packet::PingResp => break,
                Packet::Ack(ack) => assert_eq!(ack.code, ReasonCode::PACKET_ID_NOT_FOUND, "{got:?}"),
                _ => panic!("{kind:?}: {got:?}"),
            }
        }
    }
}

/// An acknowledgement with each part that may be left out left out, one after the other.
fn forms(first: u8, id: u16) -> [Vec<u8>; 4] {
    let users = properties(&[&p_user("a", "1"), &p_user("a", "1"), &p_text(id::REASON_STRING, "why")]);
    [
        packet(first, &[&two(id)]),
        packet(first, &[&two(id), &[0]]),
        packet(first, &[&two(id), &[0, 0]]),
        packet(first, &[&two(id), &[0], &users]),
    ]
}

fn acknowledgements_have_short_forms(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).receive_maximum(1).login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 0..4 {
        Pub::new(&topic, "1").qos(1, 1).send(&mut publisher);
        // PUBLISH and PUBREL of our own, in the same form.
        publisher.send_raw(&Pub::new(&topic, "2").qos(2, 2).bytes());
        assert_eq!(ack(&mut publisher, PUBREC, 2), ReasonCode::SUCCESS);
        publisher.send_raw(&forms(PUBREL, 2)[n]);
        assert_eq!(ack(&mut publisher, PUBCOMP, 2), ReasonCode::SUCCESS);
        // Each frees the window, which has room for one.
        let one = id_of(&expect(&mut sub, "1"));
        sub.send_raw(&forms(PUBACK, one)[n]);
        let two = id_of(&expect(&mut sub, "2"));
        sub.send_raw(&forms(PUBREC, two)[n]);
        assert_eq!(ack(&mut sub, PUBREL, two), ReasonCode::SUCCESS);
        sub.send_raw(&forms(PUBCOMP, two)[n]);
    }
    sub.ping();
    // DISCONNECT has them as well.
    for bytes in [vec![0xE0, 0], vec![0xE0, 1, 4], vec![0xE0, 2, 4, 0]] {
        let mut leaving = peer(s, "leaving");
        leaving.send_raw(&bytes);
        leaving.expect_closed();
    }
}

fn an_acknowledgement_with_an_error_ends_the_message(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub")).receive_maximum(1);
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for n in 0..3 {
        Pub::new(&topic, n.to_string()).qos(1 + u8::from(n > 0), 1).send(&mut publisher);
    }
    let id = id_of(&expect(&mut sub, "0"));
    sub.send_raw(&ack_with(PUBACK, id, ReasonCode::UNSPECIFIED_ERROR));
    // PUBCOMP with 0x92 ends a message as well: the client has forgotten it.
    let id = id_of(&expect(&mut sub, "1"));
    sub.send_raw(&ack_bytes(PUBREC, id));
    assert_eq!(ack(&mut sub, PUBREL, id), ReasonCode::SUCCESS);
    sub.send_raw(&ack_with(PUBCOMP, id, ReasonCode::PACKET_ID_NOT_FOUND));
    let id = id_of(&expect(&mut sub, "2"));
    sub.send_raw(&ack_with(PUBREC, id, ReasonCode::QUOTA_EXCEEDED));
    sub.ping();
    sub.cut();
    let (mut sub, present) = client.resume(&s.broker());
    assert!(present);
    sub.ping();
}

fn a_pubrel_with_an_error_is_answered_as_well(s: &Scene) {
    let mut peer = peer(s, "a");
    peer.send_raw(&Pub::new(s.topic("t"), "x").qos(2, 9).bytes());
    assert!(!ack(&mut peer, PUBREC, 9).is_error());
    peer.send_raw(&ack_with(PUBREL, 9, ReasonCode::PACKET_ID_NOT_FOUND));
    assert_eq!(ack(&mut peer, PUBCOMP, 9), ReasonCode::SUCCESS);
    peer.send_raw(&ack_bytes(PUBREL, 9));
    assert_eq!(ack(&mut peer, PUBCOMP, 9), ReasonCode::PACKET_ID_NOT_FOUND);
}

fn user_properties_may_repeat_in_each_packet(s: &Scene) {
    let topic = s.topic("t");
    let (one, other) = (p_user("n", "v"), p_user("", ""));
    let users: [&[u8]; 3] = [&one, &other, &one];
    let list = properties(&users);
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let (mut client, mut will) = (Client::new(s.id("a")), Will::new(&topic, "will"));
    for user in users {
        (client, will) = (client.with(user.to_vec()), will.with(user.to_vec()));
    }
    let mut peer = client.will(will).login(&s.broker());
    assert_eq!(subscribe_all(&mut peer, &users, &[(&topic, 0x04)]), [0]);
    let message = users.iter().fold(Pub::new(&topic, "x").qos(2, 1), |m, user| m.with(user.to_vec()));
    message.send(&mut peer);
    peer.send_raw(&packet(0xA2, &[&two(5), &list, &text(&topic)]));
    assert_eq!(peer.next().bytes(), [0xB0, 4, 0, 5, 0, 0]);
    peer.send_raw(&disconnect_bytes(4, &users));
    peer.expect_closed();
    for got in take_all(&mut sub, &["x", "will"]) {
        let user = Property::UserProperty;
        assert_eq!(properties_of(&got), [user("n", "v"), user("", ""), user("n", "v")]);
    }
}

fn a_disconnect_that_is_none_publishes_the_will(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("will"), 1);
    let expiry = p_four(id::SESSION_EXPIRY, 10);
    let faults = [
        (disconnect_bytes(0, &[&expiry]), ReasonCode::PROTOCOL_ERROR),
        (disconnect_bytes(0x01, &[]), ReasonCode::PROTOCOL_ERROR),
        (disconnect_bytes(0, &[&p_byte(id::PAYLOAD_FORMAT, 0)]), ReasonCode::MALFORMED_PACKET),
        (vec![0xE1, 0], ReasonCode::MALFORMED_PACKET),
        (vec![0xE0, 3, 0, 0, 0], ReasonCode::MALFORMED_PACKET),
    ];
    for (bytes, code) in faults {
        let client = Client::new(s.id("a")).will(Will::new(s.topic("will"), "lost"));
        let mut peer = client.login(&s.broker());
        peer.send_raw(&bytes);
        disconnected(&mut peer, code, &bytes);
        take(&mut sub, "lost");
    }
}

fn a_session_expiry_that_was_capped_to_0_may_be_asked_for_again(s: &Scene) {
    let broker = s.with(&[("mqtt.session_expiry_max_s", "0")]);
    let (mut peer, answer) = Client::lasting(s.id("a")).open(&broker);
    let told: Vec<_> = connack_of(&answer).properties.iter().collect();
    assert!(told.contains(&Property::SessionExpiryInterval(0)), "{told:?}");
    // Its CONNECT did not say 0, so this DISCONNECT is right, and without effect.
    peer.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, 10)]));
    peer.expect_closed();
    assert!(!Client::lasting(s.id("a")).resume(&broker).1);
}

fn a_disconnect_with_a_code_of_servers_counts_with_its_will(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &s.topic("will"), 1);
    for code in [0x87, 0x8B, 0x8E, 0x9C] {
        let client = Client::new(s.id("a")).will(Will::new(s.topic("will"), "lost"));
        disconnect_with(client.login(&s.broker()), code);
        take(&mut sub, "lost");
    }
}

fn a_filter_twice_in_one_subscribe_counts_twice(s: &Scene) {
    let topic = s.topic("t");
    Pub::new(&topic, "kept").qos(1, 1).retain().send(&mut peer(s, "pub"));
    let mut sub = peer(s, "sub");
    assert_eq!(subscribe_all(&mut sub, &[], &[(&topic, 1), (&topic, 0)]), [1, 0]);
    // Each asks for what is retained; the last one is the subscription.
    assert!(take(&mut sub, "kept").retain);
    assert!(take(&mut sub, "kept").retain);
    Pub::new(&topic, "live").qos(1, 1).send(&mut peer(s, "pub"));
    assert_eq!(take(&mut sub, "live").qos as u8, 0);
    sub.ping();
}

fn a_shared_and_a_plain_subscription_are_two(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe_as(&mut sub, 1, &topic, 1);
    subscribe_as(&mut sub, 2, &format!("$share/g/{topic}"), 1);
    subscribe_as(&mut sub, 3, &format!("$share/h/{topic}"), 1);
    Pub::new(&topic, "x").qos(1, 1).send(&mut peer(s, "pub"));
    let mut ids: Vec<String> = (0..3).map(|_| format!("{:?}", properties_of(&take(&mut sub, "x")))).collect();
    ids.sort_unstable();
    let expected = [1, 2, 3].map(|n| format!("[SubscriptionIdentifier({n})]"));
    assert_eq!(ids, expected);
    assert_eq!(unsubscribe(&mut sub, &[&format!("$share/g/{topic}")]), [0]);
    Pub::new(&topic, "y").qos(1, 1).send(&mut peer(s, "pub"));
    take(&mut sub, "y");
    take(&mut sub, "y");
    sub.ping();
}

fn a_message_with_expiry_0_is_kept_for_nobody(s: &Scene) {
    let topic = s.topic("t");
    let offline = Client::lasting(s.id("offline"));
    let mut sub = offline.login(&s.broker());
    subscribe(&mut sub, &s.topic("+"), 1);
    sub.disconnect();
    let mut publisher = peer(s, "pub");
    let message = Pub::new(&topic, "gone").qos(1, 1).retain().with(p_four(id::MESSAGE_EXPIRY, 0));
    assert!(!message.send(&mut publisher).is_error());
    Pub::new(s.topic("u"), "marker").qos(1, 1).retain().send(&mut publisher);
    take(&mut offline.login(&s.broker()), "marker");
    let mut late = peer(s, "late");
    subscribe(&mut late, &s.topic("+"), 1);
    take(&mut late, "marker");
    quiet(&mut late, Duration::from_millis(50));
}

fn a_connect_that_meets_a_full_shard_is_told_and_closed(s: &Scene) {
    let broker = s.broker();
    broker.refuse_hand_overs();
    let mut refused = 0;
    for n in 0..40 {
        let (mut peer, answer) = Client::new(s.id(&n.to_string())).open(&broker);
        match connack_of(&answer).code {
            ReasonCode::SUCCESS => peer.ping(),
            code => {
                assert_eq!(code, ReasonCode::QUOTA_EXCEEDED);
                assert!(matches!(peer.read_packet(Duration::from_secs(10)), Read::Closed));
                refused += 1;
            }
        }
    }
    assert_eq!(refused > 0, s.shards() > 1, "{refused} of 40 were refused");
}

fn what_connack_announced_holds_after_the_settings_changed(s: &Scene) {
    let broker = s.broker();
    let client = Client::lasting(s.id("old"));
    let message = |id: u16| Pub::new(s.topic("t"), "x").qos(2, id);
    let alias = |n: u16| Pub::new(s.topic("t"), "x").with(p_two(id::ALIAS, n));
    let taken = |peer: &mut Peer, id: u16| {
        peer.send_raw(&message(id).bytes());
        assert!(!ack(peer, PUBREC, id).is_error());
    };
    let mut old = client.login(&broker);
    (1..=50).for_each(|id| taken(&mut old, id));
    alias(32).send(&mut old);
    broker.reload(&[("mqtt.max_awaiting_rel", "10"), ("mqtt.max_topic_alias", "5")]);
    // It was told 100 and 32.
    for n in 6..=32 {
        alias(n).send(&mut old);
    }
    (51..=100).for_each(|id| taken(&mut old, id));
    old.send_raw(&message(101).bytes());
    old.expect_disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
    // Who connects now is told 10 and 5.
    let mut new = Client::new(s.id("new")).login(&broker);
    new.send_raw(&alias(6).bytes());
    new.expect_disconnect(ReasonCode::TOPIC_ALIAS_INVALID);
    // It has more messages that wait for PUBREL than it may have by now; it can still release them.
    let (mut old, present) = client.resume(&broker);
    assert!(present);
    taken(&mut old, 100);
    for id in 1..=100 {
        old.send_raw(&ack_bytes(PUBREL, id));
        assert_eq!(ack(&mut old, PUBCOMP, id), ReasonCode::SUCCESS);
    }
}
