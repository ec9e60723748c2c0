#![allow(clippy::unwrap_used)] // The configuration spares test functions only, not their helpers.

use super::*;
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::trie::RouteBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn note(n: u64) -> Control {
    Control::Announce(RouteBuf::Exact(n))
}

fn noted(message: Control) -> u64 {
    match message {
        Control::Announce(RouteBuf::Exact(n)) => n,
        other => panic!("an announcement was sent, not {other:?}"),
    }
}

fn envelope(n: u64) -> Envelope {
    let head = Head::new(QoS::AtMostOnce, false, n, Source::Client);
    let message = Message::new(&MessageRef { topic: "t", properties: b"", payload: &n.to_le_bytes(), head });
    Envelope { message, picks: None, normal: true, ticket: 0, number: 0 }
}

fn drain(mesh: &mut Mesh) -> Vec<u64> {
    std::iter::from_fn(|| mesh.next_control()).map(|(_, message)| noted(message)).collect()
}

fn pair(control: usize, data: usize) -> (Mesh, Mesh) {
    let mut ends = mesh_sized(2, control, data).into_iter();
    (ends.next().unwrap(), ends.next().unwrap())
}

#[test]
fn one_shard_has_no_peers() {
    let mut only = mesh(1).remove(0);
    only.broadcast(|| note(1));
    only.read_tails(|| ());
    assert!(only.next_control().is_none());
    assert_eq!((only.flush(), only.mark(), only.flushed()), (0, 0, 0));
    assert!(only.prepare_sleep());
}

#[test]
fn a_mark_is_flushed_when_all_before_it_is_in_the_rings() {
    let (mut a, mut b) = pair(4, 4);
    (0..10).for_each(|n| a.control(1, note(n)));
    assert_eq!((a.mark(), a.flushed(), a.overflow_len()), (10, 4, 6));
    a.flush();
    assert_eq!(a.flushed(), 4, "four are in the ring");
    let mut seen = Vec::new();
    for flushed in [8, 10, 10] {
        b.read_tails(|| ());
        seen.extend(drain(&mut b));
        b.flush();
        a.pump();
        a.flush();
        assert_eq!(a.flushed(), flushed);
    }
    assert_eq!(a.overflow_len(), 0);
    assert_eq!(seen, (0..10).collect::<Vec<_>>(), "in order, also through the overflow");
}

#[test]
fn what_is_not_flushed_is_not_seen_and_what_is_later_waits_for_the_next_tails() {
    let (mut a, mut b) = pair(8, 8);
    a.control(1, note(1));
    b.read_tails(|| ());
    assert!(b.next_control().is_none());
    a.flush();
    b.read_tails(|| ());
    a.control(1, note(2));
    a.flush();
    assert_eq!(drain(&mut b), [1], "up to the tails that were read");
    b.read_control_tails(|| ());
    assert_eq!(drain(&mut b), [2], "a scan's second look");
}

#[test]
fn envelopes_follow_the_control_that_was_published_before_them() {
    let (mut a, mut b) = pair(8, 2);
    a.control(1, note(1));
    assert_eq!(a.data_room(1), 2);
    a.send(1, envelope(5));
    a.send(1, envelope(6));
    assert_eq!(a.data_room(1), 0);
    assert_eq!(a.counters().data_ring_full, 1);
    a.flush();
    assert!(b.next_data(0).is_none(), "no tails were read");
    b.read_tails(|| ());
    assert_eq!((drain(&mut b), b.data_pending()), (vec![1], 1));
    let publishers: Vec<u64> =
        std::iter::from_fn(|| b.next_data(0)).map(|e| e.message.view().head.publisher).collect();
    assert_eq!((publishers, b.data_pending()), (vec![5, 6], 0));
}

#[test]
fn only_a_sleeper_is_woken_once_per_flush() {
    let (mut a, mut b) = pair(8, 8);
    a.control(1, note(1));
    assert_eq!(a.flush(), 0, "awake");
    assert!(!b.prepare_sleep(), "there is something");
    b.read_tails(|| ());
    drain(&mut b);
    assert!(!b.prepare_sleep(), "room is to be given back by a flush");
    assert_eq!(b.flush(), 0);
    assert!(b.prepare_sleep());
    a.control(1, note(2));
    a.send(1, envelope(1));
    assert_eq!((a.flush(), a.flush()), (0b10, 0));
    a.control(1, note(3));
    assert_eq!(a.flush(), 0, "rung already");
    assert_eq!((a.counters().wakes_sent, a.counters().wakes_saved), (1, 2));
    b.awake();
}

#[test]
fn a_sleeper_that_waits_for_room_is_woken_by_who_drains() {
    let (mut a, mut b) = pair(2, 2);
    (0..3).for_each(|n| a.control(1, note(n)));
    a.flush();
    assert!(a.prepare_sleep(), "the overflow cannot move");
    b.read_tails(|| ());
    assert_eq!(drain(&mut b), [0, 1]);
    assert_eq!(b.flush(), 0b1);
    a.awake();
    assert!(!a.prepare_sleep(), "the overflow can move");
    a.flush();
    (0..2).for_each(|n| a.send(1, envelope(n)));
    assert_eq!(a.data_room(1), 0);
    a.flush();
    assert!(a.prepare_sleep());
    b.read_tails(|| ());
    assert_eq!(drain(&mut b), [2]);
    assert!(b.next_data(0).is_some());
    assert_eq!(b.flush(), 0b1, "the publisher's shard");
    a.awake();
    assert!(!a.prepare_sleep(), "room: the publisher tries again");
    assert!(a.prepare_sleep(), "nobody asked for room again");
    assert!(b.next_data(0).is_some());
    assert_eq!(b.flush(), 0, "not for that room");
}

#[test]
fn a_sleeper_that_waits_for_a_control_ring_is_woken_by_who_drains() {
    let (mut a, mut b) = pair(2, 2);
    assert!(a.control_room(1));
    (0..2).for_each(|n| a.control(1, note(n)));
    a.flush();
    assert!(!a.control_room(1), "full, and nothing in overflow");
    assert!(a.prepare_sleep());
    b.read_tails(|| ());
    assert_eq!(drain(&mut b), [0, 1]);
    assert_eq!(b.flush(), 0b1);
    a.awake();
    assert!(!a.prepare_sleep(), "room: the publisher tries again");
    assert!(a.prepare_sleep(), "nobody asked for room again");
    a.awake();
    (0..3).for_each(|n| a.control(1, note(n)));
    a.flush();
    b.read_tails(|| ());
    drain(&mut b);
    assert!(!a.control_room(1), "what is in overflow comes first");
}

/// Each shard sends random traffic through tiny rings, waits for room, sleeps whenever it may and is woken by
/// unpark only: a lost wake-up or a deadlock hangs it.
fn stress(shards: usize, messages: u64) {
    let done = AtomicUsize::new(0);
    let threads = std::sync::OnceLock::<Vec<thread::Thread>>::new();
    thread::scope(|scope| {
        let handles: Vec<_> = mesh_sized(shards, 4, 4)
            .into_iter()
            .map(|end| scope.spawn(|| stress_shard(end, messages, &done, &threads)))
            .collect();
        threads.set(handles.iter().map(|handle| handle.thread().clone()).collect()).unwrap();
        let counters = handles.into_iter().map(|handle| handle.join().unwrap()).fold(
            Counters::default(),
            |mut sum, counters| {
                sum.add(&counters);
                sum
            },
        );
        let total = messages * (shards * (shards - 1)) as u64;
        assert_eq!([counters.control_in, counters.data_in, counters.data_out], [total; 3]);
        assert!(counters.control_overflow > 0, "the rings were full at times");
    });
}

fn stress_shard(
    mut end: Mesh,
    messages: u64,
    done: &AtomicUsize,
    threads: &std::sync::OnceLock<Vec<thread::Thread>>,
) -> Counters {
    let shards = end.shards();
    let (me, mut random) = (end.me(), 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(end.me()));
    let peers: Vec<ShardId> = (0..shards as ShardId).filter(|peer| *peer != me).collect();
    let (mut sent, mut control_in, mut data_in) = (vec![(0, 0); shards], vec![0; shards], vec![0; shards]);
    let mut finished = false;
    let threads = threads.wait();
    while done.load(Ordering::SeqCst) < shards {
        end.read_tails(|| ());
        while let Some((from, message)) = end.next_control() {
            assert_eq!(noted(message), control_in[usize::from(from)], "order of control");
            control_in[usize::from(from)] += 1;
        }
        for &from in &peers {
            while let Some(envelope) = end.next_data(from) {
                assert_eq!(envelope.message.view().head.publisher, data_in[usize::from(from)]);
                data_in[usize::from(from)] += 1;
            }
        }
        let mut blocked = true;
        for &to in &peers {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (control, data) = &mut sent[usize::from(to)];
            for _ in 0..random >> 61 {
                if *control < messages && end.overflow_len() < 64 {
                    end.control(to, note(*control));
                    *control += 1;
                }
                if *data < messages && end.data_room(to) > 0 {
                    end.send(to, envelope(*data));
                    *data += 1;
                }
            }
            let stuck = end.overflow_len() >= 64 || *control == messages;
            blocked &= stuck && (*data == messages || end.data_room(to) == 0);
        }
        let wake = end.flush();
        (0..shards).filter(|shard| wake >> shard & 1 != 0).for_each(|shard| threads[shard].unpark());
        let all_in =
            peers.iter().all(|p| [control_in[usize::from(*p)], data_in[usize::from(*p)]] == [messages; 2]);
        if all_in && !finished && end.overflow_len() == 0 && blocked && sent_all(&sent, &peers, messages) {
            finished = true;
            if done.fetch_add(1, Ordering::SeqCst) + 1 == shards {
                // The end of the test is no message of the mesh; wake everybody for it.
                threads.iter().for_each(thread::Thread::unpark);
            }
        }
        if blocked && done.load(Ordering::SeqCst) < shards && end.prepare_sleep() {
            thread::park();
            end.awake();
        }
    }
    end.counters().clone()
}

fn sent_all(sent: &[(u64, u64)], peers: &[ShardId], messages: u64) -> bool {
    peers.iter().all(|peer| sent[usize::from(*peer)] == (messages, messages))
}

#[test]
fn two_threads_lose_nothing() {
    stress(2, 20_000);
}

#[test]
fn four_threads_lose_nothing() {
    stress(4, 5_000);
}
