//! Retained messages [3.3.1.3].

use super::client::*;
use crate::{Peer, Scene, cases};

cases! {
    "3.3.1-5" "3.3.1-6" "3.3.1-8" => the_last_retained_message_goes_to_a_new_subscription,
    "3.3.1-6" => a_wildcard_subscription_gets_each_retained_message_it_matches,
    "3.3.1-6" "3.8.4-3" => subscribing_again_sends_them_again,
    "3.3.1-7" => a_retained_message_of_qos_0_replaces_another,
    "3.3.1-8" "3.3.1-9" => retain_is_1_for_a_new_subscription_alone,
    "3.3.1-10" "3.3.1-11" => an_empty_one_removes_it_and_is_not_kept,
    "3.3.1-12" => a_message_without_retain_changes_nothing,
    "3.1.2-7" => retained_messages_outlive_their_publisher,
}

/// Subscribes a new client and returns it.
fn late(s: &Scene, name: &str, filter: &str, qos: u8) -> Peer {
    let mut late = peer(s, name);
    subscribe(&mut late, filter, qos);
    late
}

fn the_last_retained_message_goes_to_a_new_subscription(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for (n, qos) in [0, 1, 2].into_iter().enumerate() {
        Pub::new(&topic, format!("{n}")).qos(qos, 1).retain().send(&mut publisher);
        publisher.ping();
        for wanted in 0..3 {
            let mut late = late(s, &format!("late-{qos}-{wanted}"), &topic, wanted);
            let got = take(&mut late, &format!("{n}"));
            assert_eq!((got.retain, got.qos as u8, got.dup), (true, qos.min(wanted), false));
            late.ping();
        }
    }
}

fn a_wildcard_subscription_gets_each_retained_message_it_matches(s: &Scene) {
    let mut publisher = peer(s, "pub");
    let names = ["a", "a/b", "a/b/c", "b", "a//c", "/"];
    for name in names {
        Pub::new(s.topic(name), name).qos(1, 1).retain().send(&mut publisher);
    }
    let wanted: [(&str, &[&str]); 5] = [
        ("#", &names),
        ("a/#", &["a", "a/b", "a/b/c", "a//c"]),
        ("+", &["a", "b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("+/+", &["a/b", "/"]),
    ];
    for (n, (filter, names)) in wanted.into_iter().enumerate() {
        let mut late = late(s, &format!("late-{n}"), &s.topic(filter), 1);
        let mut got: Vec<String> = names
            .iter()
            .map(|_| {
                let got = late.expect_message();
                assert!(got.retain && got.topic == s.topic(got.text()), "{got:?}");
                late.send_raw(&ack_bytes(PUBACK, id_of(&got)));
                got.text().to_owned()
            })
            .collect();
        got.sort_unstable();
        let mut names = names.to_vec();
        names.sort_unstable();
        assert_eq!(got, names, "{filter}");
        // And no more.
        let end = s.topic(&filter.replace(['+', '#'], "end"));
        Pub::new(&end, "end").qos(1, 1).send(&mut publisher);
        assert!(!take(&mut late, "end").retain);
    }
}

fn subscribing_again_sends_them_again(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "kept").qos(2, 1).retain().send(&mut publisher);
    let mut sub = late(s, "sub", &topic, 1);
    for qos in [1, 0, 2, 2] {
        if qos != 1 {
            subscribe(&mut sub, &topic, qos);
        }
        let got = take(&mut sub, "kept");
        assert_eq!((got.qos as u8, got.retain), (qos, true));
    }
    // One subscription, so one copy of what is published.
    Pub::new(&topic, "live").qos(2, 1).send(&mut publisher);
    take(&mut sub, "live");
    Pub::new(&topic, "next").qos(2, 1).send(&mut publisher);
    take(&mut sub, "next");
}

fn a_retained_message_of_qos_0_replaces_another(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "old").qos(2, 1).retain().send(&mut publisher);
    Pub::new(&topic, "new").retain().send(&mut publisher);
    publisher.ping();
    let mut late = late(s, "late", &topic, 2);
    let got = take(&mut late, "new");
    assert_eq!((got.qos as u8, got.retain), (0, true));
    late.ping();
}

fn retain_is_1_for_a_new_subscription_alone(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    let mut early = peer(s, "early");
    subscribe_settled(s, &mut early, &topic, 1);
    Pub::new(&topic, "one").qos(1, 1).retain().send(&mut publisher);
    assert!(!take(&mut early, "one").retain);
    let mut late = late(s, "late", &topic, 1);
    assert!(take(&mut late, "one").retain);
    Pub::new(&topic, "two").qos(1, 2).retain().send(&mut publisher);
    assert!(!take(&mut early, "two").retain);
    assert!(!take(&mut late, "two").retain);
    // For a session that is away, it matches an established subscription as well.
    let id = s.id("away");
    let mut away = Client::lasting(&id).login(&s.broker());
    subscribe_settled(s, &mut away, &s.topic("other"), 1);
    leave(away);
    Pub::new(s.topic("other"), "while away").qos(1, 3).retain().send(&mut publisher);
    let (mut away, _) = Client::lasting(&id).resume(&s.broker());
    assert!(!take(&mut away, "while away").retain);
}

fn an_empty_one_removes_it_and_is_not_kept(s: &Scene) {
    let mut publisher = peer(s, "pub");
    for qos in 0..3 {
        let topic = s.topic(&format!("{qos}"));
        let mut early = peer(s, "early");
        subscribe_settled(s, &mut early, &topic, 2);
        // Also where there is none: the second time.
        for _ in 0..2 {
            Pub::new(&topic, "").qos(qos, 1).retain().send(&mut publisher);
            let got = take(&mut early, "");
            assert_eq!((got.retain, got.qos as u8), (false, qos));
        }
        Pub::new(&topic, "kept").qos(1, 2).retain().send(&mut publisher);
        take(&mut early, "kept");
        Pub::new(&topic, "").qos(qos, 3).retain().send(&mut publisher);
        publisher.ping();
        assert!(!take(&mut early, "").retain);
        let mut late = late(s, "late", &topic, 2);
        Pub::new(&topic, "live").qos(1, 4).send(&mut publisher);
        assert!(!take(&mut late, "live").retain);
        take(&mut early, "live");
    }
}

fn a_message_without_retain_changes_nothing(s: &Scene) {
    let (kept, none) = (s.topic("kept"), s.topic("none"));
    let mut publisher = peer(s, "pub");
    Pub::new(&kept, "kept").qos(1, 1).retain().send(&mut publisher);
    for (n, topic) in [&kept, &none].into_iter().enumerate() {
        for qos in 0..3 {
            Pub::new(topic, "passes").qos(qos, 2).send(&mut publisher);
            Pub::new(topic, "").qos(qos, 2).send(&mut publisher);
        }
        publisher.ping();
        let mut late = late(s, &format!("late-{n}"), topic, 1);
        if n == 0 {
            assert!(take(&mut late, "kept").retain);
        }
        Pub::new(topic, "live").qos(1, 3).send(&mut publisher);
        assert!(!take(&mut late, "live").retain);
    }
}

fn retained_messages_outlive_their_publisher(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "stays").qos(1, 1).retain().send(&mut publisher);
    leave(publisher);
    assert!(!Client::new(s.id("pub")).resume(&s.broker()).1, "its session has ended");
    assert!(take(&mut late(s, "late", &topic, 1), "stays").retain);
    // Nor are they part of the session of who got them.
    let mut lasting = Client::lasting(s.id("lasting")).login(&s.broker());
    subscribe(&mut lasting, &topic, 1);
    take(&mut lasting, "stays");
    leave(lasting);
    leave(Client::new(s.id("lasting")).login(&s.broker()));
    assert!(take(&mut late(s, "last", &topic, 1), "stays").retain);
}
