//! The will [3.1.2.5 to 3.1.2.7, 3.14].

use super::client::*;
use crate::{Peer, Scene, cases};
use std::time::Duration;

cases! {
    "3.1.2-8" => the_will_of_a_lost_connection_is_published,
    "3.1.2-8" "3.1.2-24" => the_will_is_published_when_the_keep_alive_runs_out,
    "3.1.2-8" => the_will_is_published_after_a_protocol_violation,
    "3.1.2-8" "3.1.4-2" => the_will_of_a_connection_that_was_taken_over_is_published,
    "3.1.2-8" "3.1.2-10" "3.14.4-3" => disconnect_discards_the_will,
    "3.1.2-10" => a_published_will_is_gone,
    "3.1.2-9" "3.1.2-14" => the_will_has_its_topic_payload_and_qos,
    "3.1.2-12" => without_a_will_none_is_published,
    "3.1.2-16" => a_will_without_retain_is_not_retained,
    "3.1.2-17" => a_will_with_retain_is_retained,
}

/// A client of this case that is subscribed to the will's topic.
fn watcher(s: &Scene) -> Peer {
    let mut watcher = peer(s, "watcher");
    subscribe(&mut watcher, &s.topic("will"), 2);
    watcher
}

/// A client with a will of QoS 1.
fn dying(s: &Scene, payload: &str) -> Client {
    Client::new(s.id("dying")).will(Will::new(s.topic("will"), payload))
}

/// What the client with this identifier publishes now comes after all that it caused before: it lives in the
/// same place.
fn after(s: &Scene, id: &str, watcher: &mut Peer) {
    let mut again = Client::new(s.id(id)).login(&s.broker());
    Pub::new(s.topic("will"), "after").qos(1, 1).send(&mut again);
    take(watcher, "after");
}

fn the_will_of_a_lost_connection_is_published(s: &Scene) {
    let mut watcher = watcher(s);
    dying(s, "cut").login(&s.broker()).cut();
    take(&mut watcher, "cut");
    // Cut within a packet, and reset with bytes unread.
    let mut peer = dying(s, "cut short").login(&s.broker());
    peer.send_raw(&[0x30, 10, 0, 1]);
    peer.cut();
    take(&mut watcher, "cut short");
    let mut peer = dying(s, "reset").login(&s.broker());
    peer.send_raw(PINGREQ);
    drop(peer);
    take(&mut watcher, "reset");
}

fn the_will_is_published_when_the_keep_alive_runs_out(s: &Scene) {
    let mut watcher = watcher(s);
    let mut patient = Client::new(s.id("patient")).keep_alive(65_535).login(&s.broker());
    let mut off = Client::new(s.id("off")).keep_alive(0).login(&s.broker());
    let client = dying(s, "silent").keep_alive(1);
    let since = s.broker().now();
    let mut silent = client.login(&s.broker());
    take(&mut watcher, "silent");
    since.was(&watcher, Duration::from_millis(1_500));
    ends(&mut silent, b"silence");
    patient.ping();
    off.ping();
    // Bytes that are no whole packet do not count.
    let mut slow = dying(s, "slow").keep_alive(1).login(&s.broker());
    slow.send_raw(&[0x30, 0xFF]);
    take(&mut watcher, "slow");
    ends(&mut slow, b"a packet that is not complete");
}

fn the_will_is_published_after_a_protocol_violation(s: &Scene) {
    let mut watcher = watcher(s);
    for (n, wrong) in [&[0x00, 0][..], &[0x82, 2, 0, 1], &[0x36, 5, 0, 1, b't', 0, 1]].into_iter().enumerate()
    {
        let payload = format!("violation {n}");
        let mut peer = dying(s, &payload).login(&s.broker());
        peer.send_raw(wrong);
        ends(&mut peer, wrong);
        take(&mut watcher, &payload);
    }
}

fn the_will_of_a_connection_that_was_taken_over_is_published(s: &Scene) {
    let mut watcher = watcher(s);
    let mut first = dying(s, "taken over").login(&s.broker());
    let _second = Client::new(s.id("dying")).login(&s.broker());
    ends(&mut first, b"another connection");
    take(&mut watcher, "taken over");
}

fn disconnect_discards_the_will(s: &Scene) {
    let mut watcher = watcher(s);
    leave(dying(s, "discarded").login(&s.broker()));
    after(s, "dying", &mut watcher);
    // Nor does it stay with a session that lasts.
    let id = s.id("lasting");
    leave(Client::lasting(&id).will(Will::new(s.topic("will"), "discarded")).login(&s.broker()));
    let (peer, present) = Client::lasting(&id).resume(&s.broker());
    assert!(present);
    peer.cut();
    after(s, "lasting", &mut watcher);
}

fn a_published_will_is_gone(s: &Scene) {
    let mut watcher = watcher(s);
    let id = s.id("lasting");
    Client::lasting(&id).will(Will::new(s.topic("will"), "once")).login(&s.broker()).cut();
    take(&mut watcher, "once");
    let (peer, present) = Client::lasting(&id).resume(&s.broker());
    assert!(present);
    peer.cut();
    after(s, "lasting", &mut watcher);
}

fn the_will_has_its_topic_payload_and_qos(s: &Scene) {
    let mut watcher = watcher(s);
    for qos in 0..3 {
        let payload = format!("QoS {qos}");
        let will = Will::new(s.topic("will"), &payload).qos(qos);
        Client::new(s.id("dying")).will(will).login(&s.broker()).cut();
        let got = take(&mut watcher, &payload);
        assert_eq!((&*got.topic, got.qos as u8, got.retain), (&*s.topic("will"), qos, false));
    }
    Client::new(s.id("dying")).will(Will::new(s.topic("will"), "")).login(&s.broker()).cut();
    take(&mut watcher, "");
    // Large, and not text.
    let payload: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    let will = Will::new(s.topic("will"), &payload).qos(0);
    Client::new(s.id("dying")).will(will).login(&s.broker()).cut();
    assert_eq!(watcher.expect_message().payload, payload);
}

fn without_a_will_none_is_published(s: &Scene) {
    let mut watcher = watcher(s);
    dying(s, "of the first").login(&s.broker()).cut();
    take(&mut watcher, "of the first");
    Client::new(s.id("dying")).login(&s.broker()).cut();
    after(s, "dying", &mut watcher);
}

fn a_will_without_retain_is_not_retained(s: &Scene) {
    let mut watcher = watcher(s);
    dying(s, "not retained").login(&s.broker()).cut();
    assert!(!take(&mut watcher, "not retained").retain);
    let mut late = peer(s, "late");
    subscribe(&mut late, &s.topic("will"), 2);
    after(s, "dying", &mut watcher);
    assert!(!take(&mut late, "after").retain);
}

fn a_will_with_retain_is_retained(s: &Scene) {
    let mut watcher = peer(s, "watcher");
    subscribe_settled(s, &mut watcher, &s.topic("will"), 2);
    let will = Will::new(s.topic("will"), "retained").qos(2).retain();
    Client::new(s.id("dying")).will(will).login(&s.broker()).cut();
    let got = take(&mut watcher, "retained");
    assert_eq!((got.retain, got.qos as u8), (false, 2));
    let mut late = peer(s, "late");
    subscribe(&mut late, &s.topic("will"), 2);
    let got = take(&mut late, "retained");
    assert_eq!((got.retain, got.qos as u8), (true, 2));
}
