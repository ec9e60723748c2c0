//! What ringmq does where the standard leaves it open, as `etc/MQTT.md` says, as far as no other file shows it.

use super::client::*;
use crate::{Peer, Scene, cases};
use ringmq::codec::ReasonCode;
use std::time::Duration;

cases! {
    "3.4.2-1" "3.5.2-1" => topics_of_the_broker_are_its_own,
    "4.1.0-1" => qos_0_is_not_kept_for_a_session_that_is_away,
    "3.1.2-24" "3.1.2-25" "4.8.2-3" => a_message_too_large_for_a_member_is_not_sent,
    "4.8.2-3" => a_shared_message_of_a_member_that_leaves_goes_to_another,
    "4.8.2-1" "4.8.2-3" => clients_of_3_1_1_share_with_those_of_5_0,
}

type Client311 = crate::client::Client<4>;
type Pub311 = crate::client::Pub<4>;

fn topics_of_the_broker_are_its_own(s: &Scene) {
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, "$SYS/#", 2);
    subscribe(&mut sub, &s.topic("marker"), 2);
    let mut new = peer(s, "new");
    let mut old = Client311::new(s.id("old")).login(&s.broker());
    let topic = "$SYS/brokers/x";
    for qos in 0..3 {
        let code = Pub::new(topic, "no").qos(qos, 1).retain().send(&mut new);
        assert_eq!(code, ReasonCode(if qos == 0 { 0 } else { 0x87 }));
        // Which has no code for it.
        Pub311::new(topic, "no").qos(qos, 1).retain().send(&mut old);
    }
    refused(
        &s.broker(),
        &Client::new(s.id("a")).will(Will::new(topic, "no")).bytes(),
        ReasonCode::NOT_AUTHORIZED,
    );
    Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut new);
    take(&mut sub, "marker");
    let mut late = peer(s, "late");
    subscribe(&mut late, topic, 1);
    quiet(&mut late, Duration::from_millis(50));
}

fn qos_0_is_not_kept_for_a_session_that_is_away(s: &Scene) {
    let topic = s.topic("t");
    let away = Client::lasting(s.id("away"));
    let mut sub = away.login(&s.broker());
    subscribe(&mut sub, &topic, 2);
    sub.disconnect();
    // So many that each shard has some: when they all have a message, it is on its way to nobody any more.
    let mut witnesses: Vec<Peer> = (0..16 * (s.shards() - 1)).map(|n| peer(s, &n.to_string())).collect();
    witnesses.iter_mut().for_each(|witness| subscribe(witness, &topic, 0));
    let mut publisher = peer(s, "pub");
    for (qos, payload) in [(0, "dropped"), (1, "kept"), (0, "dropped"), (2, "kept too")] {
        Pub::new(&topic, payload).qos(qos, 1).send(&mut publisher);
        witnesses.iter_mut().for_each(|witness| drop(take(witness, payload)));
    }
    publisher.ping();
    let mut sub = away.login(&s.broker());
    take_all(&mut sub, &["kept", "kept too"]);
    sub.ping();
}

fn a_message_too_large_for_a_member_is_not_sent(s: &Scene) {
    let topic = s.topic("t");
    let mut small = Client::new(s.id("small")).packet_maximum(200).login(&s.broker());
    subscribe(&mut small, &format!("$share/g/{topic}"), 1);
    let mut publisher = peer(s, "pub");
    for (payload, fits) in [("x".repeat(300), false), ("y".to_owned(), true), ("z".repeat(300), false)] {
        // It has a subscriber, whom it does not fit.
        assert_eq!(Pub::new(&topic, &payload).qos(1, 1).send(&mut publisher), ReasonCode::SUCCESS);
        if fits {
            take(&mut small, &payload);
        }
    }
    small.ping();
}

fn a_shared_message_of_a_member_that_leaves_goes_to_another(s: &Scene) {
    let topic = s.topic("t");
    let join = |name: &str| -> Peer {
        let mut member = Client::lasting(s.id(name)).login(&s.broker());
        subscribe(&mut member, &format!("$share/g/{topic}"), 1);
        member
    };
    let mut first = join("first");
    let mut publisher = peer(s, "pub");
    Pub::new(&topic, "1").qos(1, 1).send(&mut publisher);
    Pub::new(&topic, "2").qos(1, 1).send(&mut publisher);
    let acknowledged = expect(&mut first, "1");
    expect(&mut first, "2");
    first.send_raw(&ack_bytes(PUBACK, id_of(&acknowledged)));
    first.ping();
    let mut second = join("second");
    first.cut();
    // Its session lasts, and has been relieved of what it had not acknowledged.
    assert!(!take(&mut second, "2").dup);
    second.ping();
    let (mut first, present) = Client::lasting(s.id("first")).resume(&s.broker());
    assert!(present);
    first.ping();
}

fn clients_of_3_1_1_share_with_those_of_5_0(s: &Scene) {
    let topic = s.topic("t");
    let mut old = Client311::new(s.id("old")).login(&s.broker());
    let mut new = peer(s, "new");
    for member in [&mut old, &mut new] {
        subscribe(member, &format!("$share/g/{topic}"), 1);
    }
    let mut publisher = peer(s, "pub");
    // One after the other.
    Pub::new(&topic, "1").qos(1, 1).send(&mut publisher);
    Pub::new(&topic, "2").qos(1, 1).send(&mut publisher);
    let got = [old.expect_message(), new.expect_message()].map(|message| message.text().to_owned());
    assert!(got == ["1", "2"] || got == ["2", "1"], "{got:?}");
    assert_eq!(
        subscribe_all(&mut old, &[], &[("$share//x", 0), ("$share/g", 0), ("$share/g+/x", 0)]),
        [0x80; 3]
    );
}
