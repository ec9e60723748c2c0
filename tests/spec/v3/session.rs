//! Sessions [3.1.2.4, 3.2.2.2, 4.1, 4.4, 4.5].

use super::client::*;
use crate::{Peer, Scene, cases};
use std::time::Duration;

cases! {
    "3.1.2-4" "3.1.4-3" "4.1.0-1" => clean_session_0_resumes_or_begins_a_session,
    "3.1.2-5" "4.1.0-1" "4.5.0-1" => messages_wait_for_a_session_that_is_away,
    "3.1.2-6" "3.1.4-3" => clean_session_1_discards_the_session,
    "3.1.2-6" => a_clean_session_ends_with_its_connection,
    "3.2.2-1" "3.2.2-2" "3.2.2-3" => session_present_in_each_combination,
    "3.2.2-4" "3.2.2-5" => a_refusal_has_no_session_present,
    "4.1.0-2" => a_session_lasts_as_long_as_its_connection,
    "4.4.0-1" "3.3.1-1" "2.3.1-4" "4.3.2-1" => an_unacknowledged_qos_1_message_is_sent_again,
    "4.4.0-1" "3.3.1-1" "4.3.3-1" => an_unacknowledged_qos_2_message_is_sent_again_at_its_step,
    "4.4.0-1" "4.6.0-1" "4.6.0-6" => what_is_sent_again_keeps_its_order,
    "4.3.3-2" "4.1.0-1" => a_qos_2_message_of_a_client_is_taken_once_over_reconnections,
    "4.5.0-1" => a_message_goes_to_each_session_with_a_match,
    "3.1.4-2" "4.4.0-1" => a_takeover_resumes_where_the_other_connection_was,
}

/// Connects with Clean Session 0; a session must be present, or not.
fn lasting(s: &Scene, name: &str, wanted: bool) -> Peer {
    let (peer, present) = Client::lasting(s.id(name)).resume(&s.broker());
    assert_eq!(present, wanted, "session present");
    peer
}

fn clean_session_0_resumes_or_begins_a_session(s: &Scene) {
    let mut peer = lasting(s, "a", false);
    subscribe(&mut peer, &s.topic("t"), 1);
    leave(peer);
    let mut publisher = super::client::peer(s, "pub");
    // The subscription is there without another SUBSCRIBE, after a DISCONNECT and after a cut.
    for n in 0..3 {
        let mut peer = lasting(s, "a", true);
        Pub::new(s.topic("t"), "live").qos(1, 1).send(&mut publisher);
        take(&mut peer, "live");
        peer.ping();
        if n % 2 == 0 { leave(peer) } else { peer.cut() }
    }
}

fn messages_wait_for_a_session_that_is_away(s: &Scene) {
    let mut peer = lasting(s, "a", false);
    subscribe(&mut peer, &s.topic("q/+"), 2);
    subscribe(&mut peer, &s.topic("0"), 0);
    subscribe(&mut peer, &s.topic("gone"), 2);
    unsubscribe(&mut peer, &[&s.topic("gone")]);
    leave(peer);
    let mut publisher = super::client::peer(s, "pub");
    for n in 0..20u8 {
        let qos = 1 + n % 2;
        Pub::new(s.topic("gone"), "not subscribed").qos(qos, 1).send(&mut publisher);
        Pub::new(s.topic(&format!("q/{n}")), n.to_string()).qos(qos, 1).send(&mut publisher);
    }
    leave(publisher);
    let mut peer = lasting(s, "a", true);
    let payloads: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for (n, got) in (0..20u8).zip(take_all(&mut peer, &payloads)) {
        assert_eq!((got.qos as u8, got.retain, got.dup), (1 + n % 2, false, false));
        assert_eq!(got.topic, s.topic(&format!("q/{n}")));
    }
    peer.ping();
}

fn clean_session_1_discards_the_session(s: &Scene) {
    let mut publisher = super::client::peer(s, "pub");
    for online in [false, true] {
        let name = format!("{online}");
        let mut old = lasting(s, &name, false);
        subscribe(&mut old, &s.topic("t"), 1);
        if !online {
            leave(old);
        }
        Pub::new(s.topic("t"), "for the old one").qos(1, 1).send(&mut publisher);
        let (mut peer, present) = Client::new(s.id(&name)).resume(&s.broker());
        assert!(!present);
        Pub::new(s.topic("t"), "not subscribed").qos(1, 2).send(&mut publisher);
        subscribe(&mut peer, &s.topic("other"), 1);
        Pub::new(s.topic("other"), "the first").qos(1, 3).send(&mut publisher);
        take(&mut peer, "the first");
        leave(peer);
        lasting(s, &name, false);
    }
}

fn a_clean_session_ends_with_its_connection(s: &Scene) {
    let mut publisher = super::client::peer(s, "pub");
    let client = Client::new(s.id("a"));
    for cut in [false, true] {
        let mut peer = client.login(&s.broker());
        subscribe(&mut peer, &s.topic("t"), 1);
        Pub::new(s.topic("t"), "unacknowledged").qos(1, 1).send(&mut publisher);
        expect(&mut peer, "unacknowledged");
        if cut {
            peer.cut()
        } else {
            leave(peer)
        }
        Pub::new(s.topic("t"), "nobody is there").qos(1, 2).send(&mut publisher);
        // Neither for the next clean one, nor for one with Clean Session 0.
        let mut peer = lasting(s, "a", false);
        subscribe(&mut peer, &s.topic("other"), 1);
        Pub::new(s.topic("other"), "the first").qos(1, 3).send(&mut publisher);
        take(&mut peer, "the first");
        leave(peer);
        let mut peer = client.login(&s.broker());
        Pub::new(s.topic("other"), "not subscribed").qos(1, 4).send(&mut publisher);
        subscribe(&mut peer, &s.topic("third"), 1);
        Pub::new(s.topic("third"), "the first").qos(1, 5).send(&mut publisher);
        take(&mut peer, "the first");
        leave(peer);
    }
}

fn session_present_in_each_combination(s: &Scene) {
    // Clean Session of each connection, and whether a session is present then.
    let steps = [(true, false), (false, false), (false, true), (true, false), (true, false), (false, false)];
    for cut in [false, true] {
        let id = s.id(&format!("{cut}"));
        let mut online = Vec::new();
        for (clean, wanted) in steps {
            let client = if clean { Client::new(&id) } else { Client::lasting(&id) };
            let (peer, present) = client.resume(&s.broker());
            assert_eq!(present, wanted, "{steps:?}");
            if cut {
                // The next one takes it over.
                online.push(peer);
            } else {
                leave(peer);
            }
        }
    }
    // Without subscriptions and messages, a session is one as well.
    lasting(s, "bare", false).cut();
    lasting(s, "bare", true).cut();
}

fn a_refusal_has_no_session_present(s: &Scene) {
    let settings = [("mqtt.max_clientid_len", "120")];
    let broker = s.with(&settings);
    let id = format!("{:-<120}", s.id("c"));
    leave(Client::lasting(&id).login(&broker));
    refused(&broker, &Client::lasting(format!("{id}-")).bytes(), 2);
    refused(&broker, &connect_as("MQTT", 3, 0, 0, &crate::raw::text(&id)), 1);
    assert!(Client::lasting(&id).resume(&broker).1, "the session is not touched");
}

fn a_session_lasts_as_long_as_its_connection(s: &Scene) {
    let broker = s.with(&[("mqtt.session_expiry_s", "1")]);
    let (clean, lasting) = (Client::new(s.id("clean")), Client::lasting(s.id("lasting")));
    let mut peers = [&clean, &lasting].map(|client| client.login(&broker));
    for peer in &mut peers {
        subscribe(peer, &s.topic("t"), 1);
    }
    // Longer than the session would outlive its connection.
    s.pass(Duration::from_millis(2_200));
    let mut publisher = Client::new(s.id("pub")).login(&broker);
    Pub::new(s.topic("t"), "still there").qos(1, 1).send(&mut publisher);
    for mut peer in peers {
        take(&mut peer, "still there");
        leave(peer);
    }
    // And it ends some time after it.
    s.pass(Duration::from_millis(3_000));
    assert!(!lasting.resume(&broker).1, "it has expired");
}

fn an_unacknowledged_qos_1_message_is_sent_again(s: &Scene) {
    let mut peer = lasting(s, "a", false);
    subscribe(&mut peer, &s.topic("t"), 1);
    let mut publisher = super::client::peer(s, "pub");
    Pub::new(s.topic("t"), "again").qos(1, 1).send(&mut publisher);
    let first = expect(&mut peer, "again");
    assert!(!first.dup);
    for _ in 0..3 {
        peer.cut();
        peer = lasting(s, "a", true);
        let got = expect(&mut peer, "again");
        assert_eq!((got.dup, got.qos as u8, id_of(&got)), (true, 1, id_of(&first)));
    }
    peer.send_raw(&ack_bytes(PUBACK, id_of(&first)));
    peer.ping();
    peer.cut();
    let mut peer = lasting(s, "a", true);
    Pub::new(s.topic("t"), "next").qos(1, 2).send(&mut publisher);
    assert!(!take(&mut peer, "next").dup);
}

fn an_unacknowledged_qos_2_message_is_sent_again_at_its_step(s: &Scene) {
    let mut peer = lasting(s, "a", false);
    subscribe(&mut peer, &s.topic("t"), 2);
    let mut publisher = super::client::peer(s, "pub");
    Pub::new(s.topic("t"), "again").qos(2, 1).send(&mut publisher);
    let id = id_of(&expect(&mut peer, "again"));
    // Before PUBREC: the PUBLISH.
    for _ in 0..2 {
        peer.cut();
        peer = lasting(s, "a", true);
        let got = expect(&mut peer, "again");
        assert_eq!((got.dup, got.qos as u8, id_of(&got)), (true, 2, id));
    }
    // After it: the PUBREL alone.
    peer.send_raw(&ack_bytes(PUBREC, id));
    raw(&mut peer, &ack_bytes(PUBREL, id));
    for _ in 0..2 {
        peer.cut();
        peer = lasting(s, "a", true);
        raw(&mut peer, &ack_bytes(PUBREL, id));
        peer.ping();
    }
    // After PUBCOMP: nothing.
    peer.send_raw(&ack_bytes(PUBCOMP, id));
    peer.ping();
    peer.cut();
    let mut peer = lasting(s, "a", true);
    Pub::new(s.topic("t"), "next").qos(2, 2).send(&mut publisher);
    assert!(!take(&mut peer, "next").dup);
}

fn what_is_sent_again_keeps_its_order(s: &Scene) {
    let mut peer = lasting(s, "a", false);
    subscribe(&mut peer, &s.topic("t"), 2);
    let mut publisher = super::client::peer(s, "pub");
    for n in 0..12u8 {
        Pub::new(s.topic("t"), n.to_string()).qos(1 + n % 2, 1).send(&mut publisher);
    }
    let ids: Vec<u16> = (0..12).map(|n: u8| id_of(&expect(&mut peer, &n.to_string()))).collect();
    // Some are acknowledged, out of order; of some of QoS 2 the PUBREC.
    for (n, first) in [(4, PUBACK), (2, PUBACK), (7, PUBREC), (3, PUBREC)] {
        peer.send_raw(&ack_bytes(first, ids[n]));
        if first == PUBREC {
            raw(&mut peer, &ack_bytes(PUBREL, ids[n]));
        }
    }
    peer.ping();
    peer.cut();
    Pub::new(s.topic("t"), "new").qos(2, 1).send(&mut publisher);
    let mut peer = lasting(s, "a", true);
    let (mut messages, mut releases) = (Vec::new(), Vec::new());
    for _ in 0..11 {
        let got = peer.next();
        match got.message() {
            Some(message) => messages.push((message.text().to_owned(), id_of(&message), message.dup)),
            None => releases.push(got.bytes().to_vec()),
        }
    }
    let left = [0, 1, 5, 6, 8, 9, 10, 11usize];
    let wanted: Vec<_> = left.iter().map(|n| (n.to_string(), ids[*n], true)).collect();
    assert_eq!(messages[..8], wanted);
    assert_eq!((&*messages[8].0, messages[8].2, messages.len()), ("new", false, 9));
    releases.sort_unstable();
    let mut wanted = [3, 7].map(|n: usize| ack_bytes(PUBREL, ids[n]));
    wanted.sort_unstable();
    assert_eq!(releases, wanted);
}

fn a_qos_2_message_of_a_client_is_taken_once_over_reconnections(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = super::client::peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut peer = lasting(s, "pub", false);
    let publish = |n: usize| Pub::new(&topic, n.to_string()).qos(2, 5);
    for n in 0..3 {
        // PUBLISH, and the connection is lost before the client has PUBREC; then again until it has.
        peer.send_raw(&publish(n).bytes());
        raw(&mut peer, &ack_bytes(PUBREC, 5));
        for _ in 0..2 {
            peer.cut();
            peer = lasting(s, "pub", true);
            peer.send_raw(&publish(n).dup().bytes());
            raw(&mut peer, &ack_bytes(PUBREC, 5));
        }
        // PUBREL, and the connection is lost before PUBCOMP.
        for _ in 0..3 {
            peer.send_raw(&ack_bytes(PUBREL, 5));
            raw(&mut peer, &ack_bytes(PUBCOMP, 5));
            peer.cut();
            peer = lasting(s, "pub", true);
        }
        take(&mut sub, &n.to_string());
    }
    publish(3).send(&mut peer);
    take(&mut sub, "3");
}

fn a_message_goes_to_each_session_with_a_match(s: &Scene) {
    let topic = s.topic("a/b");
    let filters = [s.topic("a/b"), s.topic("a/+"), s.topic("#"), s.topic("+/b"), s.topic("a/b/#")];
    let names: Vec<String> = (0..20).map(|n| format!("sub-{n}")).collect();
    let mut peers: Vec<_> = names.iter().map(|name| lasting(s, name, false)).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        subscribe(peer, &filters[n % filters.len()], 1);
    }
    let other = s.topic("b");
    subscribe(&mut peers[0], &other, 1);
    // Half of them are away.
    let away: Vec<_> = peers.drain(..10).collect();
    away.into_iter().for_each(leave);
    Pub::new(&topic, "for all").qos(1, 1).send(&mut super::client::peer(s, "pub"));
    for peer in &mut peers {
        take(peer, "for all");
        peer.ping();
    }
    for name in &names[..10] {
        let mut peer = lasting(s, name, true);
        take(&mut peer, "for all");
        peer.ping();
    }
}

fn a_takeover_resumes_where_the_other_connection_was(s: &Scene) {
    let mut first = lasting(s, "a", false);
    subscribe(&mut first, &s.topic("t"), 2);
    let mut publisher = super::client::peer(s, "pub");
    Pub::new(s.topic("t"), "one").qos(1, 1).send(&mut publisher);
    Pub::new(s.topic("t"), "two").qos(2, 1).send(&mut publisher);
    let one = expect(&mut first, "one");
    let two = expect(&mut first, "two");
    let mut second = lasting(s, "a", true);
    ends(&mut first, b"another connection");
    let (again, and_two) = (expect(&mut second, "one"), expect(&mut second, "two"));
    assert_eq!((again.dup, id_of(&again)), (true, id_of(&one)));
    assert_eq!((and_two.dup, id_of(&and_two)), (true, id_of(&two)));
    second.ping();
}
