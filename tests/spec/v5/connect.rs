//! CONNECT [3.1 of 5.0], without its will and its keep alive.

use super::client::*;
use crate::common::{Read, TIMEOUT};
use crate::raw::{packet, text, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Packet, Property, ReasonCode, Version};

cases! {
    "3.1.0-1" "3.14.0-1" => the_first_packet_is_connect,
    "3.1.0-2" "3.2.0-2" => a_second_connect_is_a_protocol_error,
    "3.1.2-1" => another_protocol_name_ends_the_connection,
    "3.1.2-2" "3.2.2-7" "4.13.2-1" => another_protocol_version_is_refused,
    "3.1.2-3" "3.1.4-1" => the_reserved_connect_flag_is_0,
    "3.1.2-4" "3.1.4-4" "3.2.2-2" => clean_start_discards_the_session,
    "3.1.2-5" "3.2.2-3" "3.1.4-4" => a_session_is_resumed,
    "3.1.2-6" "3.2.2-3" => without_a_session_a_new_one_begins,
    "3.1.2-16" "3.1.2-17" "3.1.2-18" "3.1.2-19" => user_name_and_password_are_there_as_their_flags_say,
    "3.1.2-24" "3.1.2-25" "3.3.4-9" => a_message_above_maximum_packet_size_counts_as_sent,
    "3.1.2-24" => no_packet_exceeds_maximum_packet_size,
    "3.1.2-24" "3.1.2-25" => a_resumed_session_obeys_its_new_maximum_packet_size,
    "3.1.2-26" "3.3.2-11" "3.3.2-8" => topic_aliases_of_the_server_stay_within_the_maximum,
    "3.1.2-27" => without_topic_alias_maximum_there_are_none,
    "3.1.2-28" => response_information_comes_when_asked_for,
    "3.1.2-29" => without_problem_information_no_acknowledgement_has_a_reason_string,
    "3.1.3-1" => all_fields_in_order_are_taken,
    "3.1.3-2" => state_belongs_to_the_client_identifier,
    "3.1.3-3" "3.1.4-1" => the_client_identifier_is_there,
    "3.1.3-5" => client_identifiers_of_1_to_23_letters_and_digits_are_taken,
    "3.1.3-6" "3.1.3-7" "3.2.2-16" => an_empty_client_identifier_is_assigned_a_unique_one,
    "3.1.3-8" "3.2.2-7" => a_client_identifier_that_is_too_long_is_refused,
    "3.1.4-2" "4.13.2-1" => a_will_for_a_topic_of_the_broker_is_refused,
    "3.1.4-3" "3.14.4-1" "3.14.4-2" => a_takeover_tells_the_old_connection,
    "3.1.4-5" "3.2.0-1" => connack_comes_first,
    "3.1.4-6" => nothing_behind_a_refused_connect_is_processed,
}

fn the_first_packet_is_connect(s: &Scene) {
    let first: [&[u8]; 12] = [
        &[0x20, 3, 0, 0, 0],
        &[0x30, 4, 0, 1, b't', 0],
        &[0x40, 2, 0, 1],
        &[0x50, 2, 0, 1],
        &[0x62, 2, 0, 1],
        &[0x70, 2, 0, 1],
        &[0x82, 7, 0, 1, 0, 0, 1, b't', 0],
        &[0xA2, 6, 0, 1, 0, 0, 1, b't'],
        &[0xC0, 0],
        &[0xD0, 0],
        &[0xE0, 0],
        &[0xF0, 2, 0x18, 0],
    ];
    for bytes in first {
        dropped(&s.broker(), bytes);
    }
    // Neither is what is no MQTT at all.
    dropped(&s.broker(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}

fn a_second_connect_is_a_protocol_error(s: &Scene) {
    let login = Client::new(s.id("a"));
    for second in [login.clone(), Client::new(s.id("b")), login.clone().clean(false)] {
        let mut peer = login.login(&s.broker());
        peer.send_raw(&second.bytes());
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
    }
    // In the same segment as the first.
    let mut peer = Peer::open(&s.broker(), Version::V5);
    peer.send_raw(&[login.bytes(), login.bytes()].concat());
    assert_eq!(connack_of(&peer.next()).code, ReasonCode::SUCCESS);
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
}

fn another_protocol_name_ends_the_connection(s: &Scene) {
    for name in ["MQTX", "mqtt", "MQTT5", "", "MQ", "MQTTMQTTMQTT"] {
        let bytes = packet(0x10, &[&text(name), &[5, 2, 0, 0, 0], &text("c")]);
        let mut peer = Peer::open(&s.broker(), Version::V5);
        peer.send_raw(&bytes);
        match peer.read_packet(TIMEOUT) {
            Read::Closed => {}
            Read::Packet(answer) => {
                assert_eq!(connack_of(&answer).code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
                peer.expect_closed();
            }
            Read::TimedOut => panic!("{name}: it stays open"),
        }
    }
}

fn another_protocol_version_is_refused(s: &Scene) {
    for level in [6, 7, 0x7F, 0xFF] {
        let bytes = packet(0x10, &[&text("MQTT"), &[level, 2, 0, 0, 0], &text("c")]);
        refused(&s.broker(), &bytes, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    }
}

fn the_reserved_connect_flag_is_0(s: &Scene) {
    let bytes = connect(0x03, 0, &[0], &text("c"));
    refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
}

fn clean_start_discards_the_session(s: &Scene) {
    let (topic, id) = (s.topic("t"), s.id("a"));
    let mut publisher = peer(s, "pub");
    for connected in [false, true] {
        let mut old = Client::lasting(&id).login(&s.broker());
        subscribe(&mut old, &topic, 1);
        if !connected {
            old.disconnect();
        }
        Pub::new(&topic, "queued").qos(1, 1).send(&mut publisher);
        let (mut new, present) = Client::new(&id).expiry(3_600).resume(&s.broker());
        assert!(!present);
        // Neither what was queued nor the subscription is left.
        Pub::new(&topic, "lost").qos(1, 1).send(&mut publisher);
        subscribe(&mut new, &topic, 1);
        Pub::new(&topic, "new").qos(1, 1).send(&mut publisher);
        take(&mut new, "new");
        new.disconnect();
    }
}

fn a_session_is_resumed(s: &Scene) {
    let (topic, id) = (s.topic("t"), s.id("a"));
    let mut publisher = peer(s, "pub");
    let mut first = Client::lasting(&id).login(&s.broker());
    subscribe(&mut first, &topic, 2);
    // QoS 2 from the client: its identifier is known to the next connection.
    first.send_raw(&Pub::new(s.topic("other"), "own").qos(2, 9).bytes());
    assert_eq!(ack(&mut first, 0x50, 9), ReasonCode::NO_MATCHING_SUBSCRIBERS);
    first.cut();
    Pub::new(&topic, "queued").qos(1, 1).send(&mut publisher);
    let (mut second, present) = Client::lasting(&id).resume(&s.broker());
    assert!(present);
    take(&mut second, "queued");
    second.send_raw(&ack_bytes(0x62, 9));
    assert_eq!(ack(&mut second, 0x70, 9), ReasonCode::SUCCESS);
    Pub::new(&topic, "live").qos(1, 1).send(&mut publisher);
    take(&mut second, "live");
}

fn without_a_session_a_new_one_begins(s: &Scene) {
    let id = s.id("a");
    for client in [Client::new(&id), Client::new(&id).clean(false), Client::lasting(&id)] {
        let (peer, present) = client.resume(&s.broker());
        assert!(!present);
        peer.disconnect();
    }
    // The last one lasts.
    let (peer, present) = Client::new(&id).clean(false).expiry(0).resume(&s.broker());
    assert!(present);
    peer.disconnect();
    assert!(!Client::lasting(&id).resume(&s.broker()).1);
}

fn user_name_and_password_are_there_as_their_flags_say(s: &Scene) {
    let id = text("c");
    let malformed = ReasonCode::MALFORMED_PACKET;
    let both = [text("user"), text("password")].concat();
    for (flags, fields) in [
        (0x02, text("user")),
        (0x02, both.clone()),
        (0x82, Vec::new()),
        (0x82, both.clone()),
        (0x42, Vec::new()),
        (0x42, both),
        (0xC2, text("user")),
        (0xC2, Vec::new()),
    ] {
        refused(&s.broker(), &connect(flags, 0, &[0], &[id.clone(), fields].concat()), malformed);
    }
    let client = Client::new(s.id("a"));
    for client in [
        client.clone().username("user").password("password"),
        client.clone().username("user"),
        client.clone().password([0, 0xFF, 0xFE]),
        client,
    ] {
        client.login(&s.broker()).disconnect();
    }
}

fn a_message_above_maximum_packet_size_counts_as_sent(s: &Scene) {
    // Receive Maximum 1: a message that stayed in flight would block the next, also when it was queued.
    let topic = s.topic("t");
    let client = Client::new(s.id("sub")).packet_maximum(200).receive_maximum(1);
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let large = "x".repeat(200);
    let exact = "e".repeat(200 - 3 - 2 - topic.len() - 2 - 1);
    for (n, payload) in
        [&large, "1", &large, &exact, &format!("{exact}+"), &large, "2"].into_iter().enumerate()
    {
        let n = n as u16;
        Pub::new(&topic, payload).qos(1 + (n % 2) as u8, n + 1).send(&mut publisher);
        Pub::new(&topic, &large).send(&mut publisher);
    }
    take(&mut sub, "1");
    let got = take(&mut sub, &exact);
    assert_eq!(got.bytes().len(), 200);
    take(&mut sub, "2");
    sub.ping();
}

fn no_packet_exceeds_maximum_packet_size(s: &Scene) {
    let full = Client::new(s.id("a")).open(&s.broker()).1.bytes().len() as u32;
    for limit in 1..=full + 1 {
        let mut peer = Peer::open(&s.broker(), Version::V5);
        peer.send_raw(&Client::new(s.id("a")).packet_maximum(limit).bytes());
        let mut ask = true;
        while let Read::Packet(got) = peer.read_packet(TIMEOUT) {
            assert!(got.bytes().len() <= limit as usize, "{limit}: {got:?}");
            match got.packet() {
                // The properties that it must know do not fit.
                Packet::ConnAck(connack) if connack.code.is_error() => {
                    assert_eq!((connack.code, limit < full), (ReasonCode::PACKET_TOO_LARGE, true));
                }
                // A SUBACK that does not fit: the client cannot be left without an answer.
                Packet::ConnAck(_) => {
                    assert!(limit >= full);
                    let many = vec![("t", 0); limit as usize];
                    assert!(std::mem::take(&mut ask));
                    peer.send_raw(&subscribe_bytes(1, &[], &many));
                }
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.code, ReasonCode::PACKET_TOO_LARGE),
                _ => panic!("got {got:?}"),
            }
        }
    }
    // Reason strings of CONNACK and DISCONNECT go first.
    let client = Client::new(s.id("a")).packet_maximum(full);
    let mut peer = client.login(&s.broker());
    peer.send_raw(&subscribe_bytes(0, &[], &[("t", 0)]));
    let got = peer.next();
    assert!(got.bytes().len() <= full as usize, "{got:?}");
    peer.expect_closed();
}

fn a_resumed_session_obeys_its_new_maximum_packet_size(s: &Scene) {
    let topic = s.topic("t");
    let client = Client::lasting(s.id("sub"));
    let mut sub = client.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let large = "x".repeat(500);
    for (n, payload) in ["1", &large, "3", &large].into_iter().enumerate() {
        Pub::new(&topic, payload).qos(2, n as u16 + 1).send(&mut publisher);
        expect(&mut sub, payload);
    }
    sub.cut();
    Pub::new(&topic, &large).qos(1, 9).send(&mut publisher);
    Pub::new(&topic, "5").qos(1, 9).send(&mut publisher);
    let mut sub = client.packet_maximum(300).receive_maximum(1).login(&s.broker());
    for payload in ["1", "3", "5"] {
        take(&mut sub, payload);
    }
    sub.ping();
}

fn topic_aliases_of_the_server_stay_within_the_maximum(s: &Scene) {
    let mut sub = Client::new(s.id("sub")).alias_maximum(2).login(&s.broker());
    subscribe(&mut sub, &s.topic("+"), 0);
    let mut publisher = peer(s, "pub");
    let mut known = std::collections::HashMap::new();
    for n in 0..20u8 {
        let topic = s.topic(&(n % 4).to_string());
        Pub::new(&topic, n.to_string()).send(&mut publisher);
        let got = expect(&mut sub, &n.to_string());
        let alias = properties_of(&got).into_iter().find_map(|p| match p {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let name = publish_of(&got).topic;
        assert!(alias.is_none_or(|alias| (1..=2).contains(&alias)), "{got:?}");
        if let Some(alias) = alias.filter(|_| !name.is_empty()) {
            known.insert(alias, name.to_owned());
        }
        let meant = if name.is_empty() { &known[&alias.expect("an alias stands for it")] } else { name };
        assert_eq!(meant, topic);
    }
}

fn without_topic_alias_maximum_there_are_none(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for client in [Client::new(s.id("a")), Client::new(s.id("b")).alias_maximum(0)] {
        let mut sub = client.login(&s.broker());
        subscribe(&mut sub, &topic, 0);
        for _ in 0..3 {
            Pub::new(&topic, "x").with(p_two(id::ALIAS, 1)).send(&mut publisher);
            let got = expect(&mut sub, "x");
            assert_eq!((publish_of(&got).topic, properties_of(&got)), (&*topic, vec![]));
        }
    }
}

fn response_information_comes_when_asked_for(s: &Scene) {
    let configured = s.with(&[("mqtt.response_information", "replies/")]);
    let information = |broker: &crate::Broker, asked: Option<u8>| {
        let mut client = Client::new(s.id("a"));
        if let Some(asked) = asked {
            client = client.with(p_byte(id::RESPONSE_INFORMATION, asked));
        }
        let (_, answer) = client.open(broker);
        assert_eq!(connack_of(&answer).code, ReasonCode::SUCCESS);
        connack_of(&answer).properties.iter().find_map(|p| match p {
            Property::ResponseInformation(text) => Some(text.to_owned()),
            _ => None,
        })
    };
    assert_eq!(information(&configured, Some(1)).as_deref(), Some("replies/"));
    for asked in [None, Some(0)] {
        assert_eq!(information(&configured, asked), None);
        assert_eq!(information(&s.broker(), asked), None);
    }
    assert_eq!(information(&s.broker(), Some(1)), None, "none is configured");
}

fn without_problem_information_no_acknowledgement_has_a_reason_string(s: &Scene) {
    let reason = |properties: ringmq::codec::Properties| {
        properties.iter().any(|p| matches!(p, Property::ReasonString(text) if text.len() > 10))
    };
    for (asked, told) in [(None, true), (Some(1), true), (Some(0), false)] {
        let mut client = Client::new(s.id("a"));
        if let Some(asked) = asked {
            client = client.with(p_byte(id::PROBLEM_INFORMATION, asked));
        }
        let mut peer = client.login(&s.broker());
        for bytes in [
            Pub::new("$SYS/x", "x").qos(1, 1).bytes(),
            Pub::new("$SYS/x", "x").qos(2, 2).bytes(),
            ack_bytes(0x50, 77),
            ack_bytes(0x62, 77),
        ] {
            peer.send_raw(&bytes);
            let got = peer.next();
            let Packet::Ack(ack) = got.packet() else { panic!("got {got:?}") };
            assert!(ack.code.is_error());
            assert_eq!(reason(ack.properties), told, "{got:?}");
        }
        // Where it could be sent all the same, the broker keeps to what the client asked for.
        peer.send_raw(&[0xF0, 0]);
        let got = peer.next();
        let Packet::Disconnect(disconnect) = got.packet() else { panic!("got {got:?}") };
        assert_eq!(reason(disconnect.properties), told, "{got:?}");
        let (_, answer) = client.will(Will::new("a/+", "x")).open(&s.broker());
        assert_eq!(reason(connack_of(&answer).properties), told, "{answer:?}");
    }
}

fn all_fields_in_order_are_taken(s: &Scene) {
    let (topic, id) = (s.topic("will"), s.id("a"));
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let client = Client::lasting(&id).will(Will::new(&topic, "gone")).username("user").password("secret");
    let peer = client.login(&s.broker());
    peer.cut();
    assert_eq!(publish_of(&take(&mut sub, "gone")).topic, topic);
    assert!(Client::lasting(&id).resume(&s.broker()).1);
}

fn state_belongs_to_the_client_identifier(s: &Scene) {
    let names = ["a", "A", "a ", "aa", "\u{e4}", "a\u{308}"].map(|name| s.id(name));
    for (n, id) in names.iter().enumerate() {
        let (mut peer, present) = Client::lasting(id).resume(&s.broker());
        assert!(!present, "{id:?} is another one");
        subscribe(&mut peer, &s.topic(&n.to_string()), 1);
        peer.disconnect();
    }
    let mut publisher = peer(s, "pub");
    for (n, id) in names.iter().enumerate() {
        Pub::new(s.topic(&n.to_string()), n.to_string()).qos(1, 1).send(&mut publisher);
        let (mut peer, present) = Client::lasting(id).resume(&s.broker());
        assert!(present);
        take(&mut peer, &n.to_string());
        peer.ping();
    }
}

fn the_client_identifier_is_there(s: &Scene) {
    refused(&s.broker(), &connect(2, 0, &[0], &[]), ReasonCode::MALFORMED_PACKET);
    refused(&s.broker(), &connect(2, 0, &[0], &[0]), ReasonCode::MALFORMED_PACKET);
}

fn client_identifiers_of_1_to_23_letters_and_digits_are_taken(s: &Scene) {
    // This case alone uses such short ones, so they meet nobody.
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let broker = s.with(&[("mqtt.max_clientid_len", "23")]);
    for n in 0..all.len() - 23 {
        Client::new(&all[n..n + 23]).login(&broker).ping();
        Client::new(&all[n..=n]).login(&broker).ping();
    }
    Client::new(&all[all.len() - 23..]).login(&broker).ping();
}

fn an_empty_client_identifier_is_assigned_a_unique_one(s: &Scene) {
    let mut seen = std::collections::BTreeSet::new();
    for clean in [true, false, true, false] {
        let (mut peer, answer) = Client::lasting("").clean(clean).open(&s.broker());
        let connack = connack_of(&answer);
        assert_eq!((connack.code, connack.session_present), (ReasonCode::SUCCESS, false));
        let assigned = connack.properties.iter().find_map(|p| match p {
            Property::AssignedClientIdentifier(id) => Some(id.to_owned()),
            _ => None,
        });
        let assigned = assigned.expect("it is assigned one");
        assert!(!assigned.is_empty() && seen.insert(assigned.clone()), "{seen:?}");
        subscribe(&mut peer, &s.topic("t"), 1);
        peer.disconnect();
        // It is the client's as if it had come with it.
        let (_, answer) = Client::lasting(&assigned).open(&s.broker());
        let connack = connack_of(&answer);
        assert!(connack.session_present);
        assert!(!connack.properties.iter().any(|p| matches!(p, Property::AssignedClientIdentifier(_))));
    }
}

fn a_client_identifier_that_is_too_long_is_refused(s: &Scene) {
    let broker = s.with(&[("mqtt.max_clientid_len", "23")]);
    refused(&broker, &Client::new("x".repeat(24)).bytes(), ReasonCode::CLIENT_ID_NOT_VALID);
    refused(&broker, &Client::lasting("x".repeat(65_535)).bytes(), ReasonCode::CLIENT_ID_NOT_VALID);
    Client::new("x".repeat(65_535)).login(&s.broker()).ping();
}

fn a_will_for_a_topic_of_the_broker_is_refused(s: &Scene) {
    let login = Client::new(s.id("a")).will(Will::new("$SYS/x", "x"));
    refused(&s.broker(), &login.bytes(), ReasonCode::NOT_AUTHORIZED);
}

fn a_takeover_tells_the_old_connection(s: &Scene) {
    let id = s.id("a");
    for clean in [true, false] {
        let mut old = Client::lasting(&id).login(&s.broker());
        let mut new = Client::lasting(&id).clean(clean).login(&s.broker());
        old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER);
        new.ping();
    }
}

fn connack_comes_first(s: &Scene) {
    let (topic, id) = (s.topic("t"), s.id("a"));
    let client = Client::lasting(&id);
    let mut peer = client.login(&s.broker());
    subscribe(&mut peer, &topic, 1);
    peer.disconnect();
    let mut publisher = super::client::peer(s, "pub");
    Pub::new(&topic, "queued").qos(1, 1).send(&mut publisher);
    // Packets behind CONNECT in one segment, and a queued message: CONNACK, then the rest.
    let mut peer = Peer::open(&s.broker(), Version::V5);
    let behind =
        [subscribe_bytes(1, &[], &[(&topic, 1)]), vec![0xC0, 0], Pub::new(&topic, "x").qos(1, 2).bytes()];
    peer.send_raw(&[client.bytes(), behind.concat()].concat());
    let first = peer.next();
    assert_eq!((connack_of(&first).code, connack_of(&first).session_present), (ReasonCode::SUCCESS, true));
    let mut rest: Vec<u8> = (0..5).map(|_| peer.next().bytes()[0] & 0xF0).collect();
    rest.sort_unstable();
    assert_eq!(rest, [0x30, 0x30, 0x40, 0x90, 0xD0]);
    // One byte at a time.
    let mut peer = Peer::open(&s.broker(), Version::V5);
    for byte in Client::new(s.id("slow")).bytes() {
        peer.send_raw(&[byte]);
    }
    assert_eq!(connack_of(&peer.next()).code, ReasonCode::SUCCESS);
    peer.ping();
}

fn nothing_behind_a_refused_connect_is_processed(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    let bad = Client::new(s.id("a")).will(Will::new("a/#", "x"));
    let mut peer = Peer::open(&s.broker(), Version::V5);
    let publish = Pub::new(&topic, "no").qos(1, 1).retain().bytes();
    peer.send_raw(&[bad.bytes(), publish, Client::new(s.id("a")).bytes()].concat());
    assert_eq!(connack_of(&peer.next()).code, ReasonCode::TOPIC_NAME_INVALID);
    peer.expect_closed();
    let mut publisher = super::client::peer(s, "pub");
    Pub::new(&topic, "yes").qos(1, two(1)[1].into()).send(&mut publisher);
    take(&mut sub, "yes");
}
