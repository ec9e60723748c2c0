//! Strings [1.5.3, and where they stand].

use super::client::*;
use crate::raw::{packet, text, two};
use crate::{Scene, cases};

cases! {
    "1.5.3-1" "3.1.3-4" "3.1.3-10" "3.1.3-11" "3.1.4-1" => ill_formed_utf8_in_connect_ends_the_connection,
    "1.5.3-1" "3.3.2-1" "3.8.3-1" "3.10.3-1" "4.8.0-1" => ill_formed_utf8_ends_the_connection,
    "1.5.3-2" "3.1.4-1" => the_null_character_in_connect_ends_the_connection,
    "1.5.3-2" "4.7.3-2" => the_null_character_ends_the_connection,
    "1.5.3-3" "4.7.3-4" => a_byte_order_mark_is_a_character_like_others,
    "1.5.3-1" "4.7.3-4" => characters_of_each_length_and_non_characters_are_passed_on,
}

/// UTF-16 surrogates, an overlong form, a cut character, a lone continuation, beyond U+10FFFF.
const ILL_FORMED: [&[u8]; 6] =
    [b"a\xED\xA0\x80", b"a\xED\xBF\xBF", b"a\xC0\xAF", b"a\xE2\x82", b"a\x80", b"a\xF4\x90\x80\x80"];

/// Packets with this string in each place of a connected client's packets.
fn with_string(s: &[u8]) -> [Vec<u8>; 5] {
    [
        Pub::new(s, "x").bytes(),
        Pub::new(s, "x").qos(1, 1).bytes(),
        packet(0x82, &[&two(1), &text(s), &[0]]),
        packet(0x82, &[&two(1), &text("t"), &[0], &text(s), &[0]]),
        packet(0xA2, &[&two(1), &text(s)]),
    ]
}

/// CONNECTs with this string in each place.
fn connect_with_string(s: &[u8]) -> [Vec<u8>; 3] {
    let client = Client::new("strings");
    [
        Client::new(s).bytes(),
        client.clone().will(Will::new(s, "x")).bytes(),
        client.username(s).password("any").bytes(),
    ]
}

fn ill_formed_utf8_in_connect_ends_the_connection(s: &Scene) {
    for bytes in ILL_FORMED.into_iter().flat_map(connect_with_string) {
        dropped(&s.broker(), &bytes);
    }
}

fn ill_formed_utf8_ends_the_connection(s: &Scene) {
    for bytes in ILL_FORMED.into_iter().flat_map(with_string) {
        faulty(s, &bytes);
    }
}

fn the_null_character_in_connect_ends_the_connection(s: &Scene) {
    for bytes in [&b"\0"[..], b"a\0b", b"ab\0"].into_iter().flat_map(connect_with_string) {
        dropped(&s.broker(), &bytes);
    }
}

fn the_null_character_ends_the_connection(s: &Scene) {
    for bytes in [&b"\0"[..], b"a\0b", b"ab\0"].into_iter().flat_map(with_string) {
        faulty(s, &bytes);
    }
}

fn a_byte_order_mark_is_a_character_like_others(s: &Scene) {
    let (plain, marked, inside) = (s.topic("x"), format!("\u{FEFF}{}", s.topic("x")), s.topic("x\u{FEFF}"));
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &marked, 0);
    subscribe(&mut sub, &inside, 0);
    let mut publisher = peer(s, "pub");
    Pub::new(&plain, "not this").send(&mut publisher);
    Pub::new(&marked, "1").send(&mut publisher);
    Pub::new(&inside, "2").send(&mut publisher);
    assert_eq!(expect(&mut sub, "1").topic.as_bytes(), marked.as_bytes());
    assert_eq!(expect(&mut sub, "2").topic.as_bytes(), inside.as_bytes());
    // Two different clients.
    let bare = s.id("c");
    let mut one = Client::new(&bare).login(&s.broker());
    let mut other = Client::new(format!("\u{FEFF}{bare}")).login(&s.broker());
    one.ping();
    other.ping();
}

fn characters_of_each_length_and_non_characters_are_passed_on(s: &Scene) {
    let mut sub = peer(s, "sub");
    let mut publisher = peer(s, "pub");
    for name in ["a", "é", "€", "𝄞", "\u{10FFFF}", "\u{FFFE}", "\u{FFFF}", "\u{FDD0}", "\u{1}\u{7F}\u{9F}"]
    {
        let topic = s.topic(name);
        subscribe(&mut sub, &topic, 0);
        Pub::new(&topic, "x").send(&mut publisher);
        assert_eq!(expect(&mut sub, "x").topic, topic);
    }
}
