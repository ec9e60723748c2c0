//! CONNECT and CONNACK [3.1 and 3.2]; wills and sessions have files of their own.

use super::client::*;
use crate::raw::{packet, text};
use crate::{Peer, Scene, cases};
use ringmq::codec::Version;

cases! {
    "3.1.0-1" => a_first_packet_other_than_connect_ends_the_connection,
    "3.1.0-2" "4.8.0-1" => a_second_connect_ends_the_connection,
    "3.1.2-1" => an_unknown_protocol_name_ends_the_connection,
    "3.1.2-2" "3.2.2-4" "3.2.2-5" => an_unknown_protocol_level_is_answered_with_1,
    "3.1.2-3" "3.1.4-1" => the_reserved_connect_flag_is_0,
    "3.1.2-11" "3.1.2-13" "3.1.2-15" "3.1.4-1" => will_qos_and_retain_without_a_will_end_the_connection,
    "3.1.2-14" "3.1.4-1" => will_qos_3_ends_the_connection,
    "3.1.2-9" "3.1.2-11" "3.1.2-18" "3.1.2-19" "3.1.2-20" "3.1.2-21" "3.1.4-1" => fields_are_there_as_the_flags_say,
    "3.1.2-22" "3.1.4-1" => a_password_without_a_user_name_ends_the_connection,
    "3.1.3-1" => fields_stand_in_their_order,
    "3.1.3-2" => the_client_identifier_names_the_session,
    "3.1.3-3" "3.1.4-1" => a_connect_without_client_identifier_ends_the_connection,
    "3.1.3-5" => client_identifiers_of_1_to_23_letters_and_digits_are_taken,
    "3.1.3-6" => clients_without_identifier_get_one_each,
    "3.1.3-8" "3.2.2-4" "3.2.2-5" => no_identifier_with_clean_session_0_is_answered_with_2,
    "3.1.3-9" "3.2.2-4" "3.2.2-5" => a_rejected_identifier_is_answered_with_2,
    "3.1.4-2" => another_connection_with_the_identifier_ends_the_first,
    "3.1.4-4" => a_valid_connect_is_answered_with_0,
    "3.1.4-5" => what_follows_a_refused_connect_is_not_processed,
    "3.2.0-1" => connack_is_the_first_packet,
    "3.2.2-6" => a_refusal_without_a_return_code_ends_the_connection,
}

fn a_first_packet_other_than_connect_ends_the_connection(s: &Scene) {
    let first = [
        Pub::new("t", "x").bytes(),
        Pub::new("t", "x").qos(1, 1).bytes(),
        ack_bytes(PUBACK, 1),
        ack_bytes(PUBREL, 1),
        subscribe_bytes(1, &[("t", 0)]),
        unsubscribe_bytes(1, &["t"]),
        PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
        vec![0x20, 2, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 0x03, 0x01, 0x00, 0x05, 1, 0, 0, 1, 0],
    ];
    for bytes in first {
        dropped(&s.broker(), &bytes);
    }
}

fn a_second_connect_ends_the_connection(s: &Scene) {
    let mut watcher = peer(s, "watcher");
    subscribe(&mut watcher, &s.topic("will"), 1);
    for (n, other) in ["same", "other"].into_iter().enumerate() {
        let payload = format!("violated {n}");
        let mut peer =
            Client::new(s.id("same")).will(Will::new(s.topic("will"), &payload)).login(&s.broker());
        let again = Client::new(s.id(other)).bytes();
        peer.send_raw(&again);
        ends(&mut peer, &again);
        take(&mut watcher, &payload);
    }
}

fn an_unknown_protocol_name_ends_the_connection(s: &Scene) {
    let id = text(s.id("c"));
    for name in ["", "mqtt", "MQTt", "MQTTX", "MQT", "MQIsdP", "HTTP"] {
        dropped(&s.broker(), &connect_as(name, 4, 2, 0, &id));
    }
    // A length that is not that of the name.
    dropped(&s.broker(), &packet(0x10, &[&[0, 40], b"MQTT", &[4, 2, 0, 0], &id]));
}

fn an_unknown_protocol_level_is_answered_with_1(s: &Scene) {
    let id = text(s.id("c"));
    for level in 0..=3 {
        refused(&s.broker(), &connect_as("MQTT", level, 2, 0, &id), 1);
    }
    // The highest bit says that a bridge connects, as in mosquitto; below it is an unknown level.
    refused(&s.broker(), &connect_as("MQIsdp", 2, 2, 0, &id), 1);
    refused(&s.broker(), &connect_as("MQIsdp", 4, 2, 0, &id), 1);
    // A level above 5 is told so in the form of 5.0, the nearest that it may know.
    let mut peer = Peer::open(&s.broker(), Version::V5);
    peer.send_raw(&connect_as("MQTT", 6, 2, 0, &id));
    let got = peer.next();
    assert_eq!((got.bytes()[0], got.bytes()[2], got.bytes()[3]), (0x20, 0, 0x84), "{got:?}");
    peer.expect_closed();
}

fn the_reserved_connect_flag_is_0(s: &Scene) {
    for flags in [0x03, 0x01] {
        dropped(&s.broker(), &connect(flags, &text(s.id("c"))));
    }
}

fn will_qos_and_retain_without_a_will_end_the_connection(s: &Scene) {
    for flags in [0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38] {
        dropped(&s.broker(), &connect(0x02 | flags, &text(s.id("c"))));
        let will = [text(s.id("c")), text("t"), text("x")].concat();
        dropped(&s.broker(), &connect(0x02 | flags, &will));
    }
}

fn will_qos_3_ends_the_connection(s: &Scene) {
    dropped(&s.broker(), &Client::new(s.id("c")).will(Will::new("t", "x").qos(3)).bytes());
    dropped(&s.broker(), &Client::new(s.id("c")).will(Will::new("t", "x").qos(3).retain()).bytes());
}

fn fields_are_there_as_the_flags_say(s: &Scene) {
    let id = text(s.id("c"));
    let more = |fields: &[&str]| [id.clone(), fields.iter().flat_map(text).collect()].concat();
    // Flags, and the fields that belong to them.
    let right: [(u8, &[&str]); 5] = [
        (0x02, &[]),
        (0x06, &["will/topic", "will"]),
        (0x82, &["user"]),
        (0xC2, &["user", "password"]),
        (0xC6, &["will/topic", "will", "user", "password"]),
    ];
    for (flags, fields) in right {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        peer.send_raw(&connect(flags, &more(fields)));
        raw(&mut peer, &[0x20, 2, 0, 0]);
        leave(peer);
        // One field more, and one less.
        dropped(&s.broker(), &connect(flags, &more(&[fields, &["more"]].concat())));
        if let Some((_, less)) = fields.split_last() {
            dropped(&s.broker(), &connect(flags, &more(less)));
        }
    }
}

fn a_password_without_a_user_name_ends_the_connection(s: &Scene) {
    dropped(&s.broker(), &Client::new(s.id("c")).password("p").bytes());
    dropped(&s.broker(), &connect(0x42, &[text(s.id("c")), text("u"), text("p")].concat()));
}

fn fields_stand_in_their_order(s: &Scene) {
    // Each of them is different, so that an exchange would show.
    let (topic, id) = (s.topic("will"), s.id("c"));
    let mut watcher = peer(s, "watcher");
    subscribe(&mut watcher, &topic, 1);
    let will = Will::new(&topic, "the will's payload");
    let first = Client::lasting(&id).will(will).username("the user").password("the password");
    first.login(&s.broker()).cut();
    assert_eq!(take(&mut watcher, "the will's payload").topic, topic);
    assert!(Client::lasting(&id).resume(&s.broker()).1, "the session has the identifier");
}

fn the_client_identifier_names_the_session(s: &Scene) {
    let broker = s.broker();
    let ids = [s.id("a"), s.id("A"), s.id("a "), s.id("ä")];
    for (n, id) in ids.iter().enumerate() {
        let (mut peer, present) = Client::lasting(id).resume(&broker);
        assert!(!present, "{id}");
        subscribe(&mut peer, &s.topic(&n.to_string()), 1);
        leave(peer);
    }
    let mut publisher = peer(s, "pub");
    for n in 0..ids.len() {
        Pub::new(s.topic(&n.to_string()), n.to_string()).qos(1, 1).send(&mut publisher);
    }
    for (n, id) in ids.iter().enumerate() {
        let (mut peer, present) = Client::lasting(id).resume(&broker);
        assert!(present, "{id}");
        take(&mut peer, &n.to_string());
        peer.ping();
    }
}

fn a_connect_without_client_identifier_ends_the_connection(s: &Scene) {
    dropped(&s.broker(), &connect(0x02, &[]));
    dropped(&s.broker(), &connect(0x02, &[0]));
    dropped(&s.broker(), &connect(0x02, &[0, 2, b'a']));
}

fn client_identifiers_of_1_to_23_letters_and_digits_are_taken(s: &Scene) {
    // They are not this case's own, so the broker is.
    let broker = s.own(&[("mqtt.max_clientid_len", "23")]);
    let all = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let one: Vec<&[u8]> = all.chunks(1).collect();
    let long = (1..=23).map(|len| &all[len..2 * len]);
    let mut peers: Vec<_> = one.into_iter().chain(long).map(|id| Client::new(id).login(&broker)).collect();
    // The identifiers of one character are as many clients; the one of length 1 has taken another's place.
    assert_eq!(peers.len(), 62 + 23);
    let mut taken_over = peers.remove(1);
    ends(&mut taken_over, b"1");
    peers.iter_mut().for_each(Peer::ping);
}

fn clients_without_identifier_get_one_each(s: &Scene) {
    let broker = s.broker();
    let mut peers: Vec<_> = (0..10).map(|_| Client::new("").resume(&broker)).collect();
    for (n, (peer, present)) in peers.iter_mut().enumerate() {
        assert!(!*present);
        subscribe(peer, &s.topic(&n.to_string()), 1);
    }
    let mut publisher = peer(s, "pub");
    for (n, (peer, _)) in peers.iter_mut().enumerate() {
        Pub::new(s.topic(&n.to_string()), n.to_string()).qos(1, 1).send(&mut publisher);
        take(peer, &n.to_string());
        peer.ping();
    }
}

fn no_identifier_with_clean_session_0_is_answered_with_2(s: &Scene) {
    refused(&s.broker(), &Client::lasting("").bytes(), 2);
    refused(&s.broker(), &Client::lasting("").username("u").will(Will::new("t", "x")).bytes(), 2);
}

fn a_rejected_identifier_is_answered_with_2(s: &Scene) {
    let broker = s.with(&[("mqtt.max_clientid_len", "100")]);
    let id = format!("{:-<100}", s.id("c"));
    Client::new(&id).login(&broker).ping();
    refused(&broker, &Client::new(format!("{id}-")).bytes(), 2);
    refused(&broker, &Client::lasting(format!("{id}-")).bytes(), 2);
}

fn another_connection_with_the_identifier_ends_the_first(s: &Scene) {
    for clean in [true, false] {
        let id = s.id(&format!("{clean}"));
        let client = if clean { Client::new(&id) } else { Client::lasting(&id) };
        let mut first = client.login(&s.broker());
        let mut second = client.login(&s.broker());
        ends(&mut first, b"the second CONNECT");
        second.ping();
        let mut third = Client::new(&id).login(&s.broker());
        ends(&mut second, b"the third CONNECT");
        third.ping();
    }
}

fn a_valid_connect_is_answered_with_0(s: &Scene) {
    let client = Client::new(s.id("c"));
    let valid = [
        client.clone(),
        client.clone().keep_alive(65_535),
        client.clone().username("").password(""),
        client.clone().username("user").password([0, 0xFF, 0x80]),
        client.clone().will(Will::new("t", "")),
        client.clone().will(Will::new("t", [0, 0xFF, 0x80]).qos(2).retain()),
        Client::lasting(s.id("lasting")),
    ];
    for client in valid {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        peer.send_raw(&client.bytes());
        raw(&mut peer, &[0x20, 2, 0, 0]);
        peer.ping();
        leave(peer);
    }
}

fn what_follows_a_refused_connect_is_not_processed(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 1);
    for wrong in [Client::lasting("").bytes(), connect_as("MQTT", 3, 2, 0, &text(s.id("c")))] {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        let more = Pub::new(&topic, "not processed").bytes();
        peer.send_raw(&[wrong.clone(), more, PINGREQ.to_vec()].concat());
        let got = peer.next();
        assert_eq!(got.bytes()[0], 0x20, "{got:?}");
        ends(&mut peer, &wrong);
    }
    Pub::new(&topic, "after").qos(1, 1).send(&mut peer(s, "pub"));
    take(&mut sub, "after");
}

fn connack_is_the_first_packet(s: &Scene) {
    // Everything at once, before the answer; and a session in which messages wait.
    let topic = s.topic("t");
    let client = Client::lasting(s.id("c"));
    for round in 0..2 {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        let all = [client.bytes(), PINGREQ.to_vec(), subscribe_bytes(1, &[(&topic, 1)])].concat();
        peer.send_raw(&all);
        raw(&mut peer, &[0x20, 2, round, 0]);
        let mut rest: Vec<u8> = (0..2 + round).map(|_| peer.next().bytes()[0]).collect();
        rest.sort_unstable();
        assert_eq!(rest, [&[0x32][..usize::from(round)], &[0x90, 0xD0]].concat());
        leave(peer);
        Pub::new(&topic, "waits").qos(1, 1).send(&mut super::client::peer(s, "pub"));
    }
}

fn a_refusal_without_a_return_code_ends_the_connection(s: &Scene) {
    // A will that no return code speaks of: its topic is none, or asks for more than there is.
    for topic in ["", "a/+", "#", "a/#/b"] {
        dropped(&s.broker(), &Client::new(s.id("c")).will(Will::new(topic, "x")).bytes());
    }
    let broker = s.with(&[("mqtt.max_qos", "1"), ("mqtt.retain_available", "false")]);
    dropped(&broker, &Client::new(s.id("c")).will(Will::new("t", "x").qos(2)).bytes());
    dropped(&broker, &Client::new(s.id("c")).will(Will::new("t", "x").retain()).bytes());
    Client::new(s.id("c")).will(Will::new("t", "x").qos(1)).login(&broker).ping();
}
