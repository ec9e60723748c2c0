//! PUBACK, PUBREC, PUBREL and PUBCOMP, and the protocols of QoS 1 and 2 [3.4 to 3.7, 4.3, 4.4 of 5.0].

use super::client::*;
use crate::common::Received;
use crate::raw::{packet, properties, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Packet, Property, ReasonCode};

cases! {
    "3.4.2-1" "3.5.2-1" "3.6.2-1" "3.7.2-1" => acknowledgements_have_codes_of_theirs,
    "3.4.2-2" "3.4.2-3" "3.5.2-2" "3.5.2-3" "3.6.2-2" "3.6.2-3" "3.7.2-2" "3.7.2-3" => a_reason_string_never_makes_an_acknowledgement_too_large,
    "3.6.1-1" => pubrel_has_the_flags_0010,
    "3.6.2-1" "4.3.3-11" => pubrel_for_an_unknown_identifier_is_answered_0x92,
    "3.5.2-1" "3.6.2-1" => pubrec_for_an_unknown_identifier_is_answered_0x92,
    "4.13.1-1" => acknowledgements_out_of_turn_are_protocol_errors,
    "4.3.2-3" "4.4.0-1" => qos_1_is_unacknowledged_until_puback,
    "4.3.2-5" => after_puback_an_identifier_is_a_new_message,
    "4.3.3-3" "4.4.0-1" => qos_2_is_unacknowledged_until_pubrec,
    "4.3.3-4" "4.3.3-5" "4.3.3-6" => after_pubrec_pubrel_is_sent_until_pubcomp,
    "4.3.3-9" => after_a_pubrec_with_an_error_an_identifier_is_a_new_message,
    "4.3.3-10" => a_repeated_qos_2_publish_is_answered_and_not_delivered_again,
    "4.3.3-11" "4.3.3-12" => after_pubcomp_an_identifier_is_a_new_message,
    "4.3.3-10" "2.2.1-3" => an_identifier_in_use_serves_other_packets_beside_it,
    "4.3.3-10" "4.3.3-11" "4.3.3-12" => qos_2_from_a_client_is_exactly_once_over_reconnects_at_each_step,
    "4.3.3-3" "4.3.3-5" "4.3.3-6" => qos_2_to_a_client_is_exactly_once_over_reconnects_at_each_step,
    "4.4.0-1" => nothing_is_sent_again_on_a_connection_that_lasts,
    "4.4.0-2" => what_the_client_refused_is_not_sent_again,
    "4.6.0-1" "4.4.0-1" => what_is_sent_again_keeps_its_order,
    "4.6.0-2" "4.6.0-3" "4.6.0-4" => acknowledgements_keep_the_order_of_what_they_answer,
    "4.5.0-1" => a_message_reaches_every_session_that_matches,
}

fn code_of(got: &Received) -> (u8, ReasonCode, usize) {
    let Packet::Ack(ack) = got.packet() else { panic!("an acknowledgement, got {got:?}") };
    let text = ack.properties.iter().map(|p| match p {
        Property::ReasonString(text) => text.len(),
        other => panic!("{other:?}"),
    });
    (got.bytes()[0], ack.code, text.sum())
}

fn acknowledgements_have_codes_of_theirs(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 0);
    let mut peer = peer(s, "a");
    for (topic, code) in [(&*topic, 0x00), (&s.topic("nobody"), 0x10), ("$SYS/x", 0x87)] {
        for (qos, first) in [(1, 0x40), (2, 0x50)] {
            peer.send_raw(&Pub::new(topic, "x").qos(qos, 3).bytes());
            assert_eq!(ack(&mut peer, first, 3), ReasonCode(code), "{topic}");
            if qos == 2 && code < 0x80 {
                peer.send_raw(&ack_bytes(0x62, 3));
                assert_eq!(ack(&mut peer, 0x70, 3), ReasonCode::SUCCESS);
            }
        }
    }
    // Codes that are none of theirs are faults of the client.
    for (first, code) in [(0x40, 0x01), (0x40, 0x92), (0x50, 0x92), (0x62, 0x10), (0x70, 0x80), (0x40, 0x7F)]
    {
        faulty(s, &ack_with(first, 1, ReasonCode(code)), ReasonCode::PROTOCOL_ERROR);
    }
}

fn a_reason_string_never_makes_an_acknowledgement_too_large(s: &Scene) {
    let asks = [
        (Pub::new("$SYS/x", "x").qos(1, 1).bytes(), 0x40),
        (Pub::new("$SYS/x", "x").qos(2, 1).bytes(), 0x50),
        (ack_bytes(0x50, 9), 0x62),
        (ack_bytes(0x62, 9), 0x70),
    ];
    let answer = |limit: u32, bytes: &[u8]| {
        let mut peer = Client::new(s.id("a")).packet_maximum(limit).login(&s.broker());
        peer.send_raw(bytes);
        peer.next()
    };
    for (bytes, first) in asks {
        let full = answer(1_000, &bytes);
        let (kind, code, text) = code_of(&full);
        assert!(kind == first && code.is_error() && text > 10, "{full:?}");
        let full = full.bytes().len() as u32;
        for limit in [20, full - 1, full] {
            let got = answer(limit, &bytes);
            assert!(got.bytes().len() <= limit as usize);
            assert_eq!(code_of(&got), (first, code, if limit == full { text } else { 0 }), "{limit}");
        }
    }
}

fn pubrel_has_the_flags_0010(s: &Scene) {
    for flags in (0..16).filter(|flags| *flags != 2) {
        faulty(s, &ack_bytes(0x60 | flags, 1), ReasonCode::MALFORMED_PACKET);
    }
    let topic = s.topic("t");
    let mut peer = peer(s, "a");
    subscribe(&mut peer, &topic, 2);
    peer.send_raw(&Pub::new(&topic, "x").qos(2, 1).bytes());
    let mut got = [peer.next(), peer.next()].map(|got| got.bytes()[0]);
    got.sort_unstable();
    assert_eq!(got, [0x34, 0x50]);
    peer.send_raw(&ack_bytes(0x50, 1));
    assert_eq!(peer.next().bytes(), [0x62, 2, 0, 1]);
}

fn pubrel_for_an_unknown_identifier_is_answered_0x92(s: &Scene) {
    let mut peer = peer(s, "a");
    for bytes in [ack_bytes(0x62, 4), ack_with(0x62, 4, ReasonCode::PACKET_ID_NOT_FOUND)] {
        peer.send_raw(&bytes);
        assert_eq!(ack(&mut peer, 0x70, 4), ReasonCode::PACKET_ID_NOT_FOUND);
    }
    // A second PUBREL, also with properties.
    Pub::new(s.topic("t"), "x").qos(2, 4).send(&mut peer);
    peer.send_raw(&packet(0x62, &[&two(4), &[0], &properties(&[&p_text(id::REASON_STRING, "x")])]));
    assert_eq!(ack(&mut peer, 0x70, 4), ReasonCode::PACKET_ID_NOT_FOUND);
}

fn pubrec_for_an_unknown_identifier_is_answered_0x92(s: &Scene) {
    let mut peer = peer(s, "a");
    peer.send_raw(&ack_bytes(0x50, 4));
    assert_eq!(ack(&mut peer, 0x62, 4), ReasonCode::PACKET_ID_NOT_FOUND);
    // These have no answer, and do no harm.
    peer.send_raw(&ack_with(0x50, 4, ReasonCode::UNSPECIFIED_ERROR));
    peer.send_raw(&ack_bytes(0x40, 4));
    peer.send_raw(&ack_bytes(0x70, 4));
    peer.send_raw(&ack_with(0x70, 4, ReasonCode::PACKET_ID_NOT_FOUND));
    peer.ping();
}

fn acknowledgements_out_of_turn_are_protocol_errors(s: &Scene) {
    let topic = s.topic("t");
    for (qos, wrong) in [(1, 0x50), (1, 0x70), (2, 0x40), (2, 0x70)] {
        let mut sub = peer(s, "sub");
        subscribe(&mut sub, &topic, 2);
        Pub::new(&topic, "x").qos(qos, 1).send(&mut peer(s, "pub"));
        let got = expect(&mut sub, "x");
        sub.send_raw(&ack_bytes(wrong, publish_of(&got).packet_id.expect("QoS 1 and 2").get()));
        sub.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
    }
}

/// A subscriber to `t` whose session lasts, and its CONNECT.
fn lasting(s: &Scene, topic: &str) -> (Client, Peer) {
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, topic, 2);
    (client, sub)
}

fn qos_1_is_unacknowledged_until_puback(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    Pub::new(&topic, "x").qos(1, 1).send(&mut peer(s, "pub"));
    let id = publish_of(&expect(&mut sub, "x")).packet_id;
    for _ in 0..3 {
        sub.cut();
        sub = client.login(&s.broker());
        let got = expect(&mut sub, "x");
        assert_eq!((publish_of(&got).packet_id, publish_of(&got).dup), (id, true));
    }
    sub.send_raw(&ack_bytes(0x40, id.expect("QoS 1").get()));
    sub.ping();
    sub.cut();
    client.login(&s.broker()).ping();
}

fn after_puback_an_identifier_is_a_new_message(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let mut publisher = peer(s, "pub");
    for _ in 0..3 {
        Pub::new(&topic, "same").qos(1, 8).dup().send(&mut publisher);
        take(&mut sub, "same");
    }
}

fn qos_2_is_unacknowledged_until_pubrec(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    Pub::new(&topic, "x").qos(2, 1).send(&mut peer(s, "pub"));
    let id = publish_of(&expect(&mut sub, "x")).packet_id;
    for _ in 0..3 {
        sub.cut();
        sub = client.login(&s.broker());
        let got = expect(&mut sub, "x");
        assert_eq!((publish_of(&got).packet_id, publish_of(&got).dup), (id, true));
    }
}

fn after_pubrec_pubrel_is_sent_until_pubcomp(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    Pub::new(&topic, "x").qos(2, 1).send(&mut peer(s, "pub"));
    let id = publish_of(&expect(&mut sub, "x")).packet_id.expect("QoS 2").get();
    // Each PUBREC is answered, a repeated one as well, and one with the code 0x10.
    for code in [ReasonCode::SUCCESS, ReasonCode::SUCCESS, ReasonCode::NO_MATCHING_SUBSCRIBERS] {
        sub.send_raw(&ack_with(0x50, id, code));
        assert_eq!(ack(&mut sub, 0x62, id), ReasonCode::SUCCESS);
    }
    for _ in 0..3 {
        sub.cut();
        sub = client.login(&s.broker());
        assert_eq!(sub.next().bytes(), packet(0x62, &[&two(id)]), "PUBREL, and no PUBLISH");
        sub.ping();
    }
    sub.send_raw(&ack_bytes(0x70, id));
    sub.ping();
    sub.cut();
    client.login(&s.broker()).ping();
}

fn after_a_pubrec_with_an_error_an_identifier_is_a_new_message(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    assert_eq!(Pub::new("$SYS/x", "x").qos(2, 5).send(&mut publisher), ReasonCode::NOT_AUTHORIZED);
    assert!(!Pub::new(&topic, "new").qos(2, 5).send(&mut publisher).is_error());
    take(&mut sub, "new");
    sub.ping();
}

fn a_repeated_qos_2_publish_is_answered_and_not_delivered_again(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let message = Pub::new(&topic, "once").qos(2, 5);
    for bytes in [message.bytes(), message.clone().dup().bytes(), message.dup().bytes()] {
        publisher.send_raw(&bytes);
        assert_eq!(ack(&mut publisher, 0x50, 5), ReasonCode::SUCCESS);
    }
    Pub::new(&topic, "marker").qos(1, 6).send(&mut publisher);
    take_all(&mut sub, &["once", "marker"]);
    publisher.send_raw(&ack_bytes(0x62, 5));
    assert_eq!(ack(&mut publisher, 0x70, 5), ReasonCode::SUCCESS);
}

fn after_pubcomp_an_identifier_is_a_new_message(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    for _ in 0..3 {
        assert!(!Pub::new(&topic, "same").qos(2, 8).dup().send(&mut publisher).is_error());
        take(&mut sub, "same");
    }
}

fn an_identifier_in_use_serves_other_packets_beside_it(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    publisher.send_raw(&Pub::new(&topic, "two").qos(2, 5).bytes());
    assert_eq!(ack(&mut publisher, 0x50, 5), ReasonCode::SUCCESS);
    // A client may not do this; what it asks for is done all the same, and the exchange goes on.
    publisher.send_raw(&Pub::new(&topic, "one").qos(1, 5).bytes());
    assert_eq!(ack(&mut publisher, 0x40, 5), ReasonCode::SUCCESS);
    publisher.send_raw(&subscribe_bytes(5, &[], &[(&s.topic("x"), 0)]));
    assert_eq!(publisher.next().bytes(), [0x90, 4, 0, 5, 0, 0]);
    publisher.send_raw(&ack_bytes(0x62, 5));
    assert_eq!(ack(&mut publisher, 0x70, 5), ReasonCode::SUCCESS);
    take_all(&mut sub, &["two", "one"]);
}

fn qos_2_from_a_client_is_exactly_once_over_reconnects_at_each_step(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let client = Client::lasting(s.id("pub"));
    for step in 0..4 {
        let message = Pub::new(&topic, step.to_string()).qos(2, 5);
        let mut publisher = client.login(&s.broker());
        let mut publish = message.bytes();
        // The connection is lost before PUBREC is read, after it, before PUBCOMP is read, after it.
        if step == 0 {
            publisher.send_raw(&publish);
            publisher.cut();
            publisher = client.login(&s.broker());
            publish = message.clone().dup().bytes();
        }
        publisher.send_raw(&publish);
        assert_eq!(ack(&mut publisher, 0x50, 5), ReasonCode::SUCCESS);
        if step == 1 {
            publisher.cut();
            publisher = client.login(&s.broker());
        }
        publisher.send_raw(&ack_bytes(0x62, 5));
        let mut wanted = ReasonCode::SUCCESS;
        if step == 2 {
            publisher.cut();
            publisher = client.login(&s.broker());
            publisher.send_raw(&ack_bytes(0x62, 5));
            wanted = ReasonCode::PACKET_ID_NOT_FOUND;
        }
        assert_eq!(ack(&mut publisher, 0x70, 5), wanted);
        publisher.cut();
    }
    take_all(&mut sub, &["0", "1", "2", "3"]);
    Pub::new(&topic, "marker").qos(1, 6).send(&mut peer(s, "marker"));
    take(&mut sub, "marker");
}

fn qos_2_to_a_client_is_exactly_once_over_reconnects_at_each_step(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    let mut publisher = peer(s, "pub");
    for step in 0..4 {
        let payload = step.to_string();
        Pub::new(&topic, &payload).qos(2, 5).send(&mut publisher);
        let got = expect(&mut sub, &payload);
        let id = publish_of(&got).packet_id.expect("QoS 2").get();
        if step == 0 {
            sub.cut();
            sub = client.login(&s.broker());
            let got = expect(&mut sub, &payload);
            assert_eq!((publish_of(&got).packet_id, publish_of(&got).dup), (Some(packet_id(id)), true));
        }
        sub.send_raw(&ack_bytes(0x50, id));
        if step == 1 {
            // PUBREC was sent, PUBREL not read.
            sub.cut();
            sub = client.login(&s.broker());
        }
        assert_eq!(ack(&mut sub, 0x62, id), ReasonCode::SUCCESS);
        if step == 2 {
            sub.cut();
            sub = client.login(&s.broker());
            assert_eq!(ack(&mut sub, 0x62, id), ReasonCode::SUCCESS);
        }
        sub.send_raw(&ack_bytes(0x70, id));
        if step == 3 {
            sub.cut();
            sub = client.login(&s.broker());
        }
        sub.ping();
    }
}

fn nothing_is_sent_again_on_a_connection_that_lasts(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = Client::new(s.id("sub")).keep_alive(60).login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "1").qos(1, 1).send(&mut publisher);
    Pub::new(&topic, "2").qos(2, 1).send(&mut publisher);
    expect(&mut sub, "1");
    expect(&mut sub, "2");
    sub.send_raw(&ack_bytes(0x50, 2));
    assert_eq!(ack(&mut sub, 0x62, 2), ReasonCode::SUCCESS);
    quiet(&mut sub, std::time::Duration::from_millis(2_000));
    sub.ping();
}

fn what_the_client_refused_is_not_sent_again(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    let mut publisher = peer(s, "pub");
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        for code in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
            Pub::new(&topic, "x").qos(qos, 1).send(&mut publisher);
            let got = expect(&mut sub, "x");
            let id = publish_of(&got).packet_id.expect("QoS 1 and 2").get();
            sub.send_raw(&ack_with(first, id, ReasonCode(code)));
            sub.ping();
        }
    }
    sub.cut();
    client.login(&s.broker()).ping();
}

fn what_is_sent_again_keeps_its_order(s: &Scene) {
    let topic = s.topic("t");
    let (client, mut sub) = lasting(s, &topic);
    let mut publisher = peer(s, "pub");
    for n in 1..=9u16 {
        Pub::new(&topic, n.to_string()).qos(1 + (n % 3 == 0) as u8, n).send(&mut publisher);
        expect(&mut sub, &n.to_string());
    }
    // 3, 6 and 9 are of QoS 2. The second and fifth arrived; the third is a step further.
    sub.send_raw(&[ack_bytes(0x40, 5), ack_bytes(0x40, 2), ack_bytes(0x50, 3)].concat());
    assert_eq!(ack(&mut sub, 0x62, 3), ReasonCode::SUCCESS);
    sub.cut();
    Pub::new(&topic, "10").qos(1, 1).send(&mut publisher);
    let mut sub = client.login(&s.broker());
    expect(&mut sub, "1");
    assert_eq!(ack(&mut sub, 0x62, 3), ReasonCode::SUCCESS);
    for n in [4, 6, 7, 8, 9, 10] {
        let got = expect(&mut sub, &n.to_string());
        assert_eq!(publish_of(&got).dup, n != 10);
        assert_eq!(publish_of(&got).packet_id, Some(packet_id(n)), "its original identifier");
    }
    sub.ping();
}

fn acknowledgements_keep_the_order_of_what_they_answer(s: &Scene) {
    let mut peer = peer(s, "a");
    let order = [9, 3, 7, 1, 8, 2];
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let bytes: Vec<u8> =
            order.iter().flat_map(|n| Pub::new(s.topic(&n.to_string()), "x").qos(qos, *n).bytes()).collect();
        peer.send_raw(&bytes);
        for n in order {
            ack(&mut peer, first, n);
        }
    }
    let bytes: Vec<u8> = order.iter().flat_map(|n| ack_bytes(0x62, *n)).collect();
    peer.send_raw(&bytes);
    for n in order {
        ack(&mut peer, 0x70, n);
    }
    // PUBRELs of the server, in the order of the PUBRECs.
    let topic = s.topic("t");
    let mut sub = super::client::peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    for n in 1..=4 {
        Pub::new(&topic, n.to_string()).qos(2, 20 + n).send(&mut peer);
        expect(&mut sub, &n.to_string());
    }
    let order = [3, 1, 4, 2];
    sub.send_raw(&order.iter().flat_map(|n| ack_bytes(0x50, *n)).collect::<Vec<u8>>());
    for n in order {
        ack(&mut sub, 0x62, n);
    }
}

fn a_message_reaches_every_session_that_matches(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    let clients: Vec<_> = (0..12).map(|n| Client::lasting(s.id(&n.to_string()))).collect();
    let mut live = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let mut sub = client.login(&s.broker());
        subscribe(
            &mut sub,
            if n % 2 == 0 { &topic } else { "a_message_reaches_every_session_that_matches/#" },
            1,
        );
        if n % 3 == 0 {
            sub.disconnect();
        } else {
            live.push(sub);
        }
    }
    Pub::new(&topic, "x").qos(1, 1).send(&mut publisher);
    for sub in &mut live {
        take(sub, "x");
        sub.ping();
    }
    for client in clients.iter().step_by(3) {
        take(&mut client.login(&s.broker()), "x");
    }
}
