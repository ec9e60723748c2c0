//! Who is woken, in all interleavings of two shards: the rings have one entry each, so that they fill at once.
//!
//! Each model ends when both have done their part of a tick. A shard that sleeps then must have been told to wake
//! up, or it would sleep beside room or beside work.

use super::*;
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;

const A: ShardId = 0;
const B: ShardId = 1;

fn envelope() -> Envelope {
    let head = Head::new(QoS::AtMostOnce, false, 0, Source::Client);
    let message = Message::new(&MessageRef { topic: "t", properties: b"", payload: b"", head });
    Envelope { message, picks: None, normal: true, ticket: 0, number: 0 }
}

fn pair() -> (Mesh, Mesh) {
    let mut ends = mesh_sized(2, 1, 1).into_iter();
    let (a, b) = (ends.next().unwrap(), ends.next().unwrap());
    (a, b)
}

fn announce() -> Control {
    Control::Announce(crate::trie::RouteBuf::Exact(1))
}

/// What a tick does with what came in: how many control messages and envelopes, and whom it wakes.
fn drain(end: &mut Mesh, from: ShardId) -> (usize, usize, u64) {
    end.read_tails(|| ());
    let controls = std::iter::from_fn(|| end.next_control()).count();
    let envelopes = std::iter::from_fn(|| end.next_data(from)).count();
    (controls, envelopes, end.flush())
}

#[test]
fn a_publisher_that_found_a_full_ring_is_woken_when_it_drains() {
    loom::model(|| {
        let (mut a, mut b) = pair();
        a.send(B, envelope());
        assert_eq!(a.flush(), 0, "nobody sleeps");
        let target = loom::thread::spawn(move || drain(&mut b, A));
        let asleep = a.data_room(B) == 0 && a.prepare_sleep();
        let (_, envelopes, woken) = target.join().unwrap();
        assert_eq!(envelopes, 1);
        assert!(!asleep || woken == 1 << A, "it sleeps beside room");
        assert_eq!(a.data_room(B), 1);
    });
}

#[test]
fn a_shard_with_overflow_is_woken_when_the_control_ring_drains() {
    loom::model(|| {
        let (mut a, mut b) = pair();
        a.control(B, announce());
        a.control(B, announce());
        assert_eq!((a.flush(), a.overflow_len()), (0, 1));
        let target = loom::thread::spawn(move || {
            let drained = drain(&mut b, A);
            (b, drained)
        });
        let asleep = a.prepare_sleep();
        let (mut b, (controls, _, woken)) = target.join().unwrap();
        assert_eq!(controls, 1);
        assert!(!asleep || woken == 1 << A, "it sleeps beside room for its overflow");
        a.flush();
        assert_eq!((a.overflow_len(), drain(&mut b, A).0), (0, 1));
    });
}

#[test]
fn a_sleeper_is_woken_for_an_envelope() {
    loom::model(|| {
        let (mut a, mut b) = pair();
        let source = loom::thread::spawn(move || {
            a.send(B, envelope());
            a.flush()
        });
        let asleep = b.prepare_sleep();
        let woken = source.join().unwrap();
        assert!(!asleep || woken == 1 << B, "it sleeps beside an envelope");
        assert_eq!(drain(&mut b, A).1, 1);
    });
}

#[test]
fn two_shards_that_are_full_towards_each_other_both_go_on() {
    loom::model(|| {
        let (mut a, mut b) = pair();
        a.send(B, envelope());
        b.send(A, envelope());
        assert_eq!((a.flush(), b.flush()), (0, 0));
        let tick = |end: &mut Mesh, other: ShardId| {
            let (_, envelopes, woken) = drain(end, other);
            (envelopes, woken, end.data_room(other) == 0 && end.prepare_sleep())
        };
        let there = loom::thread::spawn(move || tick(&mut b, A));
        let (here, there) = (tick(&mut a, B), there.join().unwrap());
        assert_eq!((here.0, there.0), (1, 1), "draining waits for nobody");
        assert!(!here.2 || there.1 == 1 << A, "A sleeps beside room");
        assert!(!there.2 || here.1 == 1 << B, "B sleeps beside room");
    });
}

#[test]
fn an_envelope_is_seen_with_what_was_announced_before_it() {
    loom::model(|| {
        let (mut a, mut b) = pair();
        let source = loom::thread::spawn(move || {
            a.control(B, announce());
            a.send(B, envelope());
            a.flush();
        });
        let (controls, envelopes, _) = drain(&mut b, A);
        assert!(envelopes <= controls, "the envelope came before the announcement");
        source.join().unwrap();
    });
}
