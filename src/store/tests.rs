//! The loop between the links and an engine.

use super::*;
use crate::sync::Sequence;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn bell() -> (Bell, Arc<AtomicUsize>) {
    let rung = Arc::new(AtomicUsize::new(0));
    let count = rung.clone();
    (
        Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }),
        rung,
    )
}

fn pair(shards: usize) -> (Vec<Link>, Store<MemoryEngine>) {
    let order = Sequence::new();
    let (links, ports) = (0..shards).map(|_| link_sized(&order, bell().0, bell().0, 2)).unzip();
    (links, Store::new(MemoryEngine::new(), ports))
}

fn push(queue: u64, seq: u64) -> Change {
    Change::Push { queue, seq, body: None, bytes: Box::from([seq as u8]) }
}

fn read(queue: u64, from: u64) -> Read {
    Read { queue, from, entries_max: 10, bytes_max: 1000 }
}

fn seqs(link: &mut Link) -> Vec<u64> {
    while let Some(answer) = link.next_answer() {
        if let Answer::Entries(entries) = answer {
            return entries.entries.iter().map(|entry| entry.seq).collect();
        }
    }
    panic!("no answer to a read");
}

#[test]
fn a_batch_is_answered_when_it_is_committed() {
    let (mut links, mut store) = pair(2);
    assert_eq!(links[0].put(push(1, 1)), 1);
    assert_eq!(links[0].ticket(), 1);
    assert_eq!(store.step(Moment(5)), Moment(5).plus_ms(STORE_RETRY_MS), "it was tidied up, nothing else");
    assert_eq!(links[0].next_answer(), None, "not handed over");
    links[0].flush();
    links[1].flush();
    store.step(Moment(5));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 1 }));
    assert!(links[0].is_settled() && links[0].is_quiet());
    assert_eq!(links[1].next_answer(), None);
    assert_eq!(store.figures().entries, 1);
}

#[test]
fn a_full_ring_makes_batches_larger_and_loses_nothing() {
    let (mut links, mut store) = pair(1);
    for seq in 1..=10 {
        links[0].put(push(1, seq));
        links[0].flush();
    }
    assert_eq!(links[0].ticket(), 3, "two are in the ring, the rest is one");
    assert!(links[0].waiting_bytes() > 0);
    store.step(Moment(0));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 2 }));
    assert!(!links[0].is_settled());
    links[0].flush();
    store.step(Moment(0));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 3 }));
    assert_eq!(store.figures().entries, 10);
}

#[test]
fn both_sides_are_woken() {
    let ((to_store, store_rung), (to_shard, shard_rung)) = (bell(), bell());
    let (mut link, port) = link(&Sequence::new(), to_store, to_shard);
    let mut store = Store::new(MemoryEngine::new(), vec![port]);
    link.flush();
    assert_eq!(store_rung.load(Ordering::Relaxed), 0, "there is nothing");
    link.put(push(1, 1));
    link.flush();
    assert_eq!(store_rung.load(Ordering::Relaxed), 1);
    store.step(Moment(0));
    assert_eq!(shard_rung.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_popped_before_it_is_written_is_not_written() {
    let (mut links, mut store) = pair(2);
    let body = |id| Change::PutBody { id, bytes: Box::from(*b"body") };
    let point = |queue, id| Change::Push { queue, seq: 1, body: Some(id), bytes: Box::default() };
    for change in [push(1, 1), body(7), point(2, 7), point(3, 7), body(8), point(4, 8), push(1, 2)] {
        links[0].put(change);
    }
    links[0].flush();
    for change in [Change::Pop { queue: 1, seq: 1 }, Change::Pop { queue: 2, seq: 1 }] {
        links[0].put(change);
    }
    links[0].put(Change::Trim { queue: 4, to: 9 });
    links[0].flush();
    let mut group = Group::default();
    for port in &mut store.ports {
        while let Some(batch) = port.next() {
            batch.changes.into_iter().for_each(|change| group.add(change));
        }
    }
    let left = group.compact();
    assert_eq!(left, [body(7), point(3, 7), push(1, 2), Change::Trim { queue: 4, to: 9 }]);
}

#[test]
fn the_later_value_of_a_key_counts() {
    let mut group = Group::default();
    let put = |text: &str| Change::PutSession { id: 1, bytes: text.as_bytes().into() };
    let set = |text: &str| Change::SetRetained { topic: "a/b".into(), bytes: text.as_bytes().into() };
    for change in [put("one"), set("one"), put("two"), Change::ClearRetained { topic: "a/b".into() }] {
        group.add(change);
    }
    group.add(Change::PutMeta { key: "k".into(), bytes: Box::default() });
    group.add(Change::DropMeta { key: "k".into() });
    let left =
        [put("two"), Change::ClearRetained { topic: "a/b".into() }, Change::DropMeta { key: "k".into() }];
    assert_eq!(group.weight(), left.iter().map(Change::weight).sum::<usize>());
    assert_eq!(group.compact(), left);
}

#[test]
fn a_failing_disk_makes_it_read_only_until_it_writes_again() {
    let (mut links, mut store) = pair(2);
    links[0].put(push(1, 1));
    links[0].flush();
    store.step(Moment(0));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 1 }));
    store.engine.fail_next(Fault::new(FaultKind::Full, "no room"));
    links[0].put(push(1, 2));
    links[0].flush();
    let again = store.step(Moment(0));
    assert_eq!(again, Moment(STORE_RETRY_MS));
    let state = State::ReadOnly { why: "no room".into() };
    for link in &mut links {
        assert_eq!(link.next_answer(), Some(Answer::State(Box::new(state.clone()))));
        assert_eq!(link.next_answer(), None);
        assert_eq!(*link.state(), state);
    }
    links[0].read(read(1, 0));
    links[0].flush();
    store.step(Moment(1));
    assert_eq!(seqs(&mut links[0]), [1], "what is committed can be read");
    store.step(again);
    assert_eq!(links[0].next_answer(), Some(Answer::State(Box::default())));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 2 }));
    assert_eq!(links[1].next_answer(), Some(Answer::State(Box::default())));
}

#[test]
fn it_recovers_also_when_nothing_is_left_to_be_written() {
    let (mut links, mut store) = pair(1);
    for _ in 0..2 {
        store.engine.fail_next(Fault::new(FaultKind::Disk, "broken"));
    }
    links[0].put(push(1, 1));
    links[0].flush();
    store.step(Moment(0));
    links[0].put(Change::Pop { queue: 1, seq: 1 });
    links[0].flush();
    assert_eq!(store.step(Moment(STORE_RETRY_MS)), Moment(2 * STORE_RETRY_MS), "the probe fails");
    assert!(!links[0].is_settled());
    let answers: Vec<_> = std::iter::from_fn(|| links[0].next_answer()).collect();
    assert!(matches!(answers[..], [Answer::State(_)]), "{answers:?}");
    store.step(Moment(2 * STORE_RETRY_MS));
    while links[0].next_answer().is_some() {}
    assert!(links[0].is_settled() && *links[0].state() == State::Ok);
}

#[test]
fn a_read_sees_what_its_shard_put_before() {
    let (mut links, mut store) = pair(1);
    for seq in 1..=5 {
        links[0].put(push(1, seq));
    }
    links[0].read(Read { queue: 1, from: 2, entries_max: 2, bytes_max: 1000 });
    links[0].flush();
    store.step(Moment(0));
    assert_eq!(links[0].next_answer(), Some(Answer::Committed { through: 1 }));
    let Some(Answer::Entries(entries)) = links[0].next_answer() else { panic!("no entries") };
    assert_eq!((entries.through, entries.more, entries.entries.len()), (1, true, 2));
}

#[test]
fn a_crash_forgets_what_was_not_committed() {
    let (mut links, mut store) = pair(1);
    links[0].put(push(1, 1));
    links[0].flush();
    store.step(Moment(0));
    links[0].put(push(1, 2));
    links[0].flush();
    let mut engine = store.into_engine();
    engine.restart();
    assert_eq!(engine.starts(), 2);
    let found = engine.read(&read(1, 0)).unwrap();
    assert_eq!(found.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_body_goes_with_its_last_entry() {
    let mut engine = MemoryEngine::new();
    let put = Change::PutBody { id: 5, bytes: Box::from(*b"body") };
    let point = |queue| Change::Push { queue, seq: 1, body: Some(5), bytes: Box::default() };
    engine.commit(&[put, point(1), point(2)]).unwrap();
    assert_eq!(engine.read(&read(2, 0)).unwrap().entries[0].body, Some((5, Box::from(*b"body"))));
    engine.commit(&[Change::DropSession { id: 1 }]).unwrap();
    assert_eq!(engine.figures().bodies, 1);
    engine.commit(&[Change::Trim { queue: 2, to: 1 }]).unwrap();
    assert_eq!((engine.figures().bodies, engine.figures().entries), (0, 0));
}

#[test]
fn identities_of_shards_and_starts_differ() {
    let mut seen = std::collections::BTreeSet::new();
    for starts in 1..4 {
        for shard in [0, 1, 63] {
            let mut ids = Ids::new(starts, shard);
            assert!(seen.insert(ids.issue()) && seen.insert(ids.issue()));
        }
    }
    assert!(!seen.contains(&0));
}
