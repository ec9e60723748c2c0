//! How things are written [1.5 and 2 of 5.0].

use super::client::*;
use crate::raw::{packet, properties, text, two, varint};
use crate::{Scene, cases};
use ringmq::codec::{Property, ReasonCode};

cases! {
    "1.5.4-1" "3.3.2-1" "3.8.3-1" "3.10.3-1" "3.3.2-13" "3.3.2-19" => ill_formed_utf8_is_malformed,
    "1.5.4-1" "3.1.3-4" "3.1.3-11" "3.1.3-12" "3.1.4-1" => ill_formed_utf8_in_connect_is_malformed,
    "1.5.4-1" "4.7.3-4" => non_characters_and_control_characters_are_passed_on,
    "1.5.4-2" "4.7.3-2" => the_null_character_is_malformed,
    "1.5.4-3" "4.7.3-4" => a_byte_order_mark_is_a_character_like_others,
    "1.5.5-1" => a_variable_byte_integer_is_minimal,
    "1.5.7-1" => both_strings_of_a_user_property_are_checked,
    "2.1.3-1" "3.6.1-1" "3.8.1-1" "3.10.1-1" "3.14.1-1" "3.15.1-1" => reserved_flags_are_malformed,
    "2.1.3-1" "3.1.4-1" => reserved_flags_of_connect_end_the_connection,
    "2.2.1-2" => a_publish_of_qos_0_has_no_packet_identifier,
    "2.2.1-3" => packet_identifier_0_is_a_protocol_error,
    "2.2.1-4" "4.3.2-1" "4.3.3-1" => packet_identifiers_of_the_server_are_not_0_and_unused,
    "2.2.1-5" => acknowledgements_have_the_identifier_of_the_publish,
    "2.2.1-6" "3.8.4-2" "3.10.4-5" => suback_and_unsuback_have_the_identifier_of_the_request,
    "2.2.2-1" => no_properties_are_a_length_of_0,
    "4.13.1-1" => properties_where_they_do_not_belong_are_malformed,
    "4.13.1-1" => properties_that_stand_there_twice_are_a_protocol_error,
    "4.13.1-1" => property_values_out_of_range_are_protocol_errors,
    "4.13.1-1" => a_packet_cut_short_or_with_more_than_its_fields_is_malformed,
    "4.13.1-1" => packet_types_of_a_server_are_protocol_errors,
}

/// UTF-16 surrogates, an overlong form, a cut character, a lone continuation, beyond U+10FFFF.
const ILL_FORMED: [&[u8]; 6] =
    [b"a\xED\xA0\x80", b"a\xED\xBF\xBF", b"a\xC0\xAF", b"a\xE2\x82", b"a\x80", b"a\xF4\x90\x80\x80"];

fn subscribe_raw(filter: &[u8]) -> Vec<u8> {
    packet(0x82, &[&two(1), &[0], &text(filter), &[0]])
}

fn unsubscribe_raw(filter: &[u8]) -> Vec<u8> {
    packet(0xA2, &[&two(1), &[0], &text(filter)])
}

/// Packets with this string in each place of a connected client's packets.
fn with_string(s: &[u8]) -> Vec<Vec<u8>> {
    let user = [vec![0x26], text("a"), text(s)].concat();
    vec![
        Pub::new(s, "x").bytes(),
        Pub::new("t", "x").with(p_text(id::RESPONSE_TOPIC, s)).bytes(),
        Pub::new("t", "x").with(p_text(id::CONTENT_TYPE, s)).bytes(),
        Pub::new("t", "x").with(user.clone()).bytes(),
        subscribe_raw(s),
        packet(0x82, &[&two(1), &properties(&[&user]), &text("t"), &[0]]),
        unsubscribe_raw(s),
        packet(0xA2, &[&two(1), &properties(&[&user]), &text("t")]),
        disconnect_bytes(0, &[&p_text(id::REASON_STRING, s)]),
        packet(0x40, &[&two(1), &[0], &properties(&[&p_text(id::REASON_STRING, s)])]),
    ]
}

/// CONNECTs with this string in each place.
fn connect_with_string(s: &[u8]) -> Vec<Vec<u8>> {
    let client = Client::new("strings");
    let user = [vec![0x26], text("a"), text(s)].concat();
    vec![
        Client::new(s).bytes(),
        client.clone().will(Will::new(s, "x")).bytes(),
        client.clone().will(Will::new("t", "x").with(p_text(id::RESPONSE_TOPIC, s))).bytes(),
        client.clone().username(s).bytes(),
        client.clone().with(user).bytes(),
        client.with(p_text(id::AUTH_METHOD, s)).bytes(),
    ]
}

fn ill_formed_utf8_is_malformed(s: &Scene) {
    for bytes in ILL_FORMED.into_iter().flat_map(with_string) {
        faulty(s, &bytes, ReasonCode::MALFORMED_PACKET);
    }
}

fn ill_formed_utf8_in_connect_is_malformed(s: &Scene) {
    for bytes in ILL_FORMED.into_iter().flat_map(connect_with_string) {
        refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
    }
}

fn the_null_character_is_malformed(s: &Scene) {
    for bytes in with_string(b"a\0b") {
        faulty(s, &bytes, ReasonCode::MALFORMED_PACKET);
    }
    for bytes in connect_with_string(b"a\0b") {
        refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
    }
}

fn non_characters_and_control_characters_are_passed_on(s: &Scene) {
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for name in ["\u{FFFE}", "\u{FFFF}", "\u{1FFFF}", "\u{FDD0}", "\u{1}\u{7F}\u{9F}", "\u{10FFFF}"] {
        let topic = s.topic(name);
        subscribe(&mut sub, &topic, 0);
        Pub::new(&topic, "x").with(p_user(name, name)).send(&mut publisher);
        let got = expect(&mut sub, "x");
        assert_eq!(publish_of(&got).topic, topic);
        assert_eq!(properties_of(&got), [Property::UserProperty(name, name)]);
    }
}

fn a_byte_order_mark_is_a_character_like_others(s: &Scene) {
    let (plain, marked, inside) = (s.topic("x"), s.topic("\u{FEFF}x"), s.topic("x\u{FEFF}"));
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &marked, 0);
    subscribe(&mut sub, &inside, 0);
    let mut publisher = peer(s, "pub");
    Pub::new(&plain, "not this").send(&mut publisher);
    Pub::new(&marked, "1").with(p_user("\u{FEFF}n", "\u{FEFF}v")).send(&mut publisher);
    Pub::new(&inside, "2").send(&mut publisher);
    let got = expect(&mut sub, "1");
    assert_eq!(publish_of(&got).topic.as_bytes(), marked.as_bytes());
    assert_eq!(properties_of(&got), [Property::UserProperty("\u{FEFF}n", "\u{FEFF}v")]);
    assert_eq!(publish_of(&expect(&mut sub, "2")).topic, inside);
    // At the start of a topic, and in a client identifier: two different clients.
    let bare = s.id("c");
    let mut one = Client::new(&bare).login(&s.broker());
    let mut other = Client::new(format!("\u{FEFF}{bare}")).login(&s.broker());
    one.ping();
    other.ping();
}

fn a_variable_byte_integer_is_minimal(s: &Scene) {
    let wrong: [&[u8]; 8] = [
        // PINGREQ with a remaining length of 2 to 5 bytes.
        &[0xC0, 0x80, 0x00],
        &[0xC0, 0x80, 0x80, 0x00],
        &[0xC0, 0x80, 0x80, 0x80, 0x00],
        &[0xC0, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        // PUBLISH with a property length of 0 in two bytes.
        &[0x30, 5, 0, 1, b't', 0x80, 0x00],
        // SUBSCRIBE with a Subscription Identifier of 1 in two bytes, and one of five bytes.
        &[0x82, 10, 0, 1, 3, 0x0B, 0x81, 0x00, 0, 1, b't', 0],
        &[0x82, 13, 0, 1, 6, 0x0B, 0x81, 0x80, 0x80, 0x80, 0x01, 0, 1, b't', 0],
    ];
    for bytes in wrong {
        faulty(s, bytes, ReasonCode::MALFORMED_PACKET);
    }
    let login = Client::new(s.id("c")).bytes();
    let long = [&[0x10, login[1] | 0x80, 0x00][..], &login[2..]].concat();
    refused(&s.broker(), &long, ReasonCode::MALFORMED_PACKET);
    // And what the server writes: a packet of 127, one of 128 bytes of remaining length.
    let topic = s.topic("t");
    let mut peer = peer(s, "self");
    subscribe(&mut peer, &topic, 0);
    for remaining in [127, 128, 16_383, 16_384] {
        let payload = "x".repeat(remaining - 3 - topic.len());
        Pub::new(&topic, &payload).send(&mut peer);
        let got = expect(&mut peer, &payload);
        assert_eq!(got.bytes()[1..].iter().take_while(|b| **b & 0x80 != 0).count() + 1, {
            varint(remaining as u32).len()
        });
    }
}

fn both_strings_of_a_user_property_are_checked(s: &Scene) {
    for wrong in [&b"\xED\xA0\x80"[..], b"\xFF", b"a\0"] {
        for user in [[text(wrong), text("v")].concat(), [text("n"), text(wrong)].concat()] {
            let user = [vec![0x26], user].concat();
            faulty(s, &Pub::new("t", "x").with(user.clone()).bytes(), ReasonCode::MALFORMED_PACKET);
            refused(&s.broker(), &Client::new("c").with(user).bytes(), ReasonCode::MALFORMED_PACKET);
        }
    }
}

fn reserved_flags_are_malformed(s: &Scene) {
    let good: [(&[u8], u8); 9] = [
        (&[0x40, 2, 0, 1], 0x00),
        (&[0x50, 2, 0, 1], 0x00),
        (&[0x62, 2, 0, 1], 0x02),
        (&[0x70, 2, 0, 1], 0x00),
        (&[0x82, 7, 0, 1, 0, 0, 1, b't', 0], 0x02),
        (&[0xA2, 6, 0, 1, 0, 0, 1, b't'], 0x02),
        (&[0xC0, 0], 0x00),
        (&[0xE0, 0], 0x00),
        (&[0xF0, 2, 0x19, 0], 0x00),
    ];
    for (bytes, right) in good {
        for flags in (0..16).filter(|flags| *flags != right) {
            let bytes = [&[bytes[0] & 0xF0 | flags][..], &bytes[1..]].concat();
            faulty(s, &bytes, ReasonCode::MALFORMED_PACKET);
        }
    }
    // Packet type 0, and QoS 3.
    faulty(s, &[0x00, 0], ReasonCode::MALFORMED_PACKET);
}

fn reserved_flags_of_connect_end_the_connection(s: &Scene) {
    let login = Client::new(s.id("c")).bytes();
    for flags in 1..16 {
        dropped(&s.broker(), &[&[0x10 | flags][..], &login[1..]].concat());
    }
}

fn a_publish_of_qos_0_has_no_packet_identifier(s: &Scene) {
    let topic = s.topic("t");
    let mut peer = peer(s, "a");
    subscribe(&mut peer, &topic, 2);
    let bytes = Pub::new(&topic, "payload").bytes();
    peer.send_raw(&bytes);
    assert_eq!(peer.next().bytes(), bytes, "topic, property length 0, payload");
}

fn packet_identifier_0_is_a_protocol_error(s: &Scene) {
    let code = ReasonCode::PROTOCOL_ERROR;
    faulty(s, &Pub::new("t", "x").qos(1, 0).bytes(), code);
    faulty(s, &Pub::new("t", "x").qos(2, 0).bytes(), code);
    faulty(s, &subscribe_bytes(0, &[], &[("t", 0)]), code);
    faulty(s, &unsubscribe_bytes(0, &["t"]), code);
    for first in [0x40, 0x50, 0x62, 0x70] {
        faulty(s, &ack_bytes(first, 0), code);
    }
}

fn packet_identifiers_of_the_server_are_not_0_and_unused(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let mut used = std::collections::BTreeSet::new();
    for n in 0..20u16 {
        Pub::new(&topic, n.to_string()).qos(1 + (n % 2) as u8, n + 1).send(&mut publisher);
        let got = expect(&mut sub, &n.to_string());
        let id = publish_of(&got).packet_id.expect("QoS 1 and 2 have one").get();
        assert!(used.insert(id), "{id} is in use: {used:?}");
        if n % 4 == 0 {
            sub.send_raw(&ack_bytes(0x40, id));
            used.remove(&id);
        }
    }
}

fn acknowledgements_have_the_identifier_of_the_publish(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for id in [1, 2, 0x00FF, 0x0100, 0x1234, 0xFFFF] {
        Pub::new(&topic, "1").qos(1, id).send(&mut publisher);
        Pub::new(&topic, "2").qos(2, id).send(&mut publisher);
    }
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    Pub::new(&topic, "3").qos(2, 7).send(&mut publisher);
    take(&mut sub, "3");
    sub.ping();
}

fn suback_and_unsuback_have_the_identifier_of_the_request(s: &Scene) {
    let mut peer = peer(s, "a");
    for id in [1, 0x00FF, 0x0100, 0xFFFF] {
        peer.send_raw(&subscribe_bytes(id, &[], &[(&s.topic("t"), 0)]));
        assert_eq!(peer.next().bytes(), packet(0x90, &[&two(id), &[0, 0]]));
        peer.send_raw(&unsubscribe_bytes(id, &[&s.topic("t")]));
        assert_eq!(peer.next().bytes(), packet(0xB0, &[&two(id), &[0, 0]]));
    }
}

fn no_properties_are_a_length_of_0(s: &Scene) {
    // In each packet of the server that must have them: CONNACK, PUBLISH, SUBACK, UNSUBACK.
    let topic = s.topic("t");
    let mut peer = peer(s, "a");
    peer.send_raw(&subscribe_bytes(1, &[], &[(&topic, 0)]));
    assert_eq!(peer.next().bytes(), [0x90, 4, 0, 1, 0, 0]);
    peer.send_raw(&Pub::new(&topic, "x").bytes());
    assert_eq!(peer.next().bytes(), packet(0x30, &[&text(&topic), &[0], b"x"]));
    peer.send_raw(&unsubscribe_bytes(2, &[&topic]));
    assert_eq!(peer.next().bytes(), [0xB0, 4, 0, 2, 0, 0]);
    // A client that leaves the length out: the next bytes are taken for it.
    faulty(s, &packet(0x82, &[&two(1), &text("t"), &[0]]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0x30, &[&text("t")]), ReasonCode::MALFORMED_PACKET);
    let login = packet(0x10, &[&text("MQTT"), &[5, 2, 0, 0], &text("c")]);
    refused(&s.broker(), &login, ReasonCode::MALFORMED_PACKET);
}

/// Each property in a form that is right where it may stand.
fn each_property() -> Vec<(u8, Vec<u8>)> {
    let byte = [0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A].map(|id| (id, p_byte(id, 0)));
    let two = [0x13, 0x21, 0x22, 0x23].map(|id| (id, p_two(id, 1)));
    let four = [0x02, 0x11, 0x18, 0x27].map(|id| (id, p_four(id, 100)));
    let text = [0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F].map(|id| (id, p_text(id, "x")));
    let rest = [(0x0B, vec![0x0B, 1]), (0x26, p_user("n", "v"))];
    byte.into_iter().chain(two).chain(four).chain(text).chain(rest).collect()
}

/// A packet with one property.
type Make = fn(&[u8]) -> Vec<u8>;

fn properties_where_they_do_not_belong_are_malformed(s: &Scene) {
    let allowed: [(&[u8], Make); 7] = [
        (&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26], |p| Pub::new("t", "x").with(p.to_vec()).bytes()),
        (&[0x0B, 0x26], |p| subscribe_bytes(1, &[p], &[("t", 0)])),
        (&[0x26], |p| packet(0xA2, &[&two(1), &properties(&[p]), &text("t")])),
        (&[0x1F, 0x26], |p| packet(0x40, &[&two(1), &[0], &properties(&[p])])),
        (&[0x1F, 0x26], |p| packet(0x62, &[&two(1), &[0], &properties(&[p])])),
        (&[0x11, 0x1C, 0x1F, 0x26], |p| disconnect_bytes(0, &[p])),
        (&[0x15, 0x16, 0x1F, 0x26], |p| packet(0xF0, &[&[0x19], &properties(&[p])])),
    ];
    for (places, make) in allowed {
        for (_, property) in each_property().iter().filter(|(id, _)| !places.contains(id)) {
            faulty(s, &make(property), ReasonCode::MALFORMED_PACKET);
        }
        faulty(s, &make(&[0x7F, 0]), ReasonCode::MALFORMED_PACKET);
    }
    let in_connect = [0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
    let in_will = [0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];
    for (id, property) in each_property() {
        let client = Client::new(s.id("c"));
        if !in_connect.contains(&id) {
            let bytes = client.clone().with(property.clone()).bytes();
            refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
        }
        if !in_will.contains(&id) {
            let bytes = client.will(Will::new("t", "x").with(property)).bytes();
            refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
        }
    }
}

fn properties_that_stand_there_twice_are_a_protocol_error(s: &Scene) {
    let code = ReasonCode::PROTOCOL_ERROR;
    for id in [0x01, 0x02, 0x03, 0x08, 0x09, 0x23] {
        let (_, property) = each_property().into_iter().find(|(n, _)| *n == id).expect("it is there");
        faulty(s, &Pub::new("t", "x").with(property.clone()).with(property).bytes(), code);
    }
    faulty(s, &subscribe_bytes(1, &[&[0x0B, 1], &[0x0B, 2]], &[("t", 0)]), code);
    for id in [0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x27] {
        let (_, property) = each_property().into_iter().find(|(n, _)| *n == id).expect("it is there");
        refused(&s.broker(), &Client::new("c").with(property.clone()).with(property).bytes(), code);
    }
}

fn property_values_out_of_range_are_protocol_errors(s: &Scene) {
    let code = ReasonCode::PROTOCOL_ERROR;
    for property in [
        p_byte(id::PROBLEM_INFORMATION, 2),
        p_byte(id::RESPONSE_INFORMATION, 2),
        p_two(id::RECEIVE_MAXIMUM, 0),
        p_four(id::PACKET_MAXIMUM, 0),
        p_text(id::AUTH_DATA, "without a method"),
    ] {
        refused(&s.broker(), &Client::new("c").with(property).bytes(), code);
    }
    faulty(s, &Pub::new("t", "x").with(p_byte(id::PAYLOAD_FORMAT, 2)).bytes(), code);
    faulty(s, &subscribe_bytes(1, &[&[0x0B, 0]], &[("t", 0)]), code);
}

fn a_packet_cut_short_or_with_more_than_its_fields_is_malformed(s: &Scene) {
    let good = [
        subscribe_bytes(1, &[], &[("t", 0)]),
        unsubscribe_bytes(1, &["t"]),
        ack_with(0x40, 1, ReasonCode::SUCCESS),
        packet(0x40, &[&two(1), &[0, 0]]),
        disconnect_bytes(0, &[]),
        vec![0xC0, 0],
    ];
    for bytes in good {
        let body = bytes.get(2..).expect("a fixed header of two bytes");
        let longer = packet(bytes[0], &[body, &[0x7F]]);
        // One byte more is a second filter cut short, a property length too long, or left over.
        faulty(s, &longer, ReasonCode::MALFORMED_PACKET);
    }
    faulty(s, &packet(0x82, &[&two(1), &[0], &text("t")]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0xA2, &[&two(1), &[0], &[0, 9, b't']]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0x40, &[&[1]]), ReasonCode::MALFORMED_PACKET);
    faulty(s, &packet(0x30, &[&[0, 9, b't']]), ReasonCode::MALFORMED_PACKET);
}

fn packet_types_of_a_server_are_protocol_errors(s: &Scene) {
    let connack = packet(0x20, &[&[0, 0, 0]]);
    for bytes in
        [connack, packet(0x90, &[&two(1), &[0, 0]]), packet(0xB0, &[&two(1), &[0, 0]]), vec![0xD0, 0]]
    {
        faulty(s, &bytes, ReasonCode::PROTOCOL_ERROR);
    }
}
