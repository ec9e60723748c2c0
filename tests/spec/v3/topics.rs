//! Topic names and topic filters [4.7].

use super::client::*;
use crate::{Peer, Scene, cases};
use std::collections::BTreeSet;

cases! {
    "4.7.1-2" "4.8.0-1" => a_misplaced_multi_level_wildcard_ends_the_connection,
    "4.7.1-3" "4.8.0-1" => a_misplaced_single_level_wildcard_ends_the_connection,
    "4.7.1-1" "4.7.1-2" "4.7.1-3" => wildcards_match_as_they_should,
    "4.7.2-1" => a_leading_wildcard_does_not_match_a_dollar,
    "4.7.3-1" "4.8.0-1" => an_empty_topic_ends_the_connection,
    "4.7.3-3" => topics_of_65_535_bytes_are_taken,
    "4.7.3-4" => topics_are_compared_byte_by_byte,
}

/// SUBSCRIBE and UNSUBSCRIBE with this filter, alone and behind a good one, end the connection.
fn refused_filter(s: &Scene, filter: &str) {
    faulty(s, &subscribe_bytes(1, &[(filter, 0)]));
    faulty(s, &subscribe_bytes(1, &[("good", 0), (filter, 1)]));
    faulty(s, &unsubscribe_bytes(1, &[filter]));
    faulty(s, &unsubscribe_bytes(1, &["good", filter]));
}

fn a_misplaced_multi_level_wildcard_ends_the_connection(s: &Scene) {
    for filter in ["#/a", "a/#/b", "a#", "#a", "a/b#", "##", "a/#/", "+#", "$share/g/a#"] {
        refused_filter(s, filter);
    }
}

fn a_misplaced_single_level_wildcard_ends_the_connection(s: &Scene) {
    for filter in ["a+", "+a", "a/b+/c", "++", "a/+b", "$share/g/a+"] {
        refused_filter(s, filter);
    }
}

fn wildcards_match_as_they_should(s: &Scene) {
    let filters: [(&str, &[&str]); 12] = [
        ("sport/tennis/#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"]),
        ("sport/#", &["sport", "sport/", "sport/tennis", "sport/tennis/a", "sport/tennis/a/b"]),
        ("sport/tennis/+", &["sport/tennis/a"]),
        ("sport/+", &["sport/", "sport/tennis"]),
        ("+", &["sport", ""]),
        ("+/+", &["sport/", "sport/tennis", "/finance", "/"]),
        ("/+", &["/finance", "/"]),
        ("+/tennis/#", &["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"]),
        ("+/+/+", &["sport/tennis/a", "//"]),
        ("sport/+/a", &["sport/tennis/a"]),
        ("+/", &["sport/", "/"]),
        ("sport", &["sport"]),
    ];
    let names =
        ["sport", "sport/", "sport/tennis", "sport/tennis/a", "sport/tennis/a/b", "/finance", "/", "//", ""];
    let mut publisher = peer(s, "pub");
    for (n, (filter, wanted)) in filters.iter().enumerate() {
        let mut sub = peer(s, &format!("sub-{n}"));
        subscribe(&mut sub, &s.topic(filter), 0);
        subscribe(&mut sub, &format!("{}-end", s.topic("")), 0);
        for name in names {
            Pub::new(s.topic(name), name).send(&mut publisher);
        }
        Pub::new(format!("{}-end", s.topic("")), "end").send(&mut publisher);
        assert_eq!(until_end(&mut sub), wanted.iter().map(|name| s.topic(name)).collect(), "{filter}");
    }
}

/// The topics of all messages up to the one that says `end`.
fn until_end(sub: &mut Peer) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    loop {
        let message = sub.expect_message();
        if message.payload == b"end" {
            return topics;
        }
        assert!(topics.insert(message.topic.clone()), "{} came twice", message.topic);
    }
}

fn a_leading_wildcard_does_not_match_a_dollar(s: &Scene) {
    let name = format!("${}", s.topic("x"));
    let mut publisher = peer(s, "pub");
    Pub::new(format!("{name}/kept"), "kept").qos(1, 1).retain().send(&mut publisher);
    let mut all = peer(s, "all");
    assert_eq!(subscribe_all(&mut all, &[], &[("+/x", 1), ("+/#", 1), ("#", 1)]), [1, 1, 1]);
    let mut own = peer(s, "own");
    let first = name.split('/').next().expect("a first level");
    subscribe(&mut own, &format!("{first}/#"), 1);
    assert!(take(&mut own, "kept").retain);
    subscribe(&mut own, &format!("{first}/+"), 0);
    Pub::new(&name, "dollar").qos(1, 2).send(&mut publisher);
    take(&mut own, "dollar");
    // Others publish as well: what came up to the end holds nothing with a dollar in front.
    Pub::new(s.topic("x"), "end").send(&mut publisher);
    loop {
        let got = all.expect_message();
        assert!(!got.topic.starts_with('$'), "{got:?}");
        if got.topic == s.topic("x") {
            break;
        }
        if let Some(id) = got.packet_id {
            let first = if got.qos as u8 == 1 { PUBACK } else { PUBREC };
            all.send_raw(&ack_bytes(first, id.get()));
        }
    }
    // A dollar elsewhere is a character like others.
    let mut inner = peer(s, "inner");
    subscribe(&mut inner, &s.topic("+/$y"), 0);
    Pub::new(s.topic("$x/$y"), "within").send(&mut publisher);
    take(&mut inner, "within");
    Pub::new(format!("{name}/kept"), "").qos(1, 3).retain().send(&mut publisher);
}

fn an_empty_topic_ends_the_connection(s: &Scene) {
    for qos in 0..3 {
        faulty(s, &Pub::new("", "x").qos(qos, 1).bytes());
    }
    refused_filter(s, "");
}

fn topics_of_65_535_bytes_are_taken(s: &Scene) {
    let name = format!("{:x<65535}", s.topic(""));
    assert_eq!(name.len(), 65_535);
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &name, 1);
    let mut publisher = peer(s, "pub");
    Pub::new(&name, "long").qos(1, 1).send(&mut publisher);
    assert_eq!(take(&mut sub, "long").topic, name);
    unsubscribe(&mut sub, &[&name]);
}

fn topics_are_compared_byte_by_byte(s: &Scene) {
    // Case, blanks, empty levels, composed and decomposed characters, and what looks like a path.
    let names = [
        "a", "A", "a ", " a", "a/", "/a", "a//b", "a/b", "a/./b", "a/../b", "é", "e\u{301}", "\u{212B}",
        "\u{C5}", "%61", "ß", "ss", "\u{130}", "i",
    ];
    let mut subs: Vec<_> = names.iter().enumerate().map(|(n, _)| peer(s, &format!("sub-{n}"))).collect();
    for (sub, name) in subs.iter_mut().zip(names) {
        subscribe(sub, &s.topic(name), 1);
    }
    let mut publisher = peer(s, "pub");
    for name in names {
        Pub::new(s.topic(name), name).qos(1, 1).send(&mut publisher);
    }
    for (sub, name) in subs.iter_mut().zip(names) {
        assert_eq!(take(sub, name).topic.as_bytes(), s.topic(name).as_bytes());
        Pub::new(s.topic(name), "end").qos(1, 1).send(&mut publisher);
        take(sub, "end");
    }
}
