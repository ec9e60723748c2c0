//! Who subscribes: matching against 1,000 to 1,000,000 filters of four shapes, and churn.
//!
//! The cost of a match must not depend on the number of filters. One element is one topic matched; topics are
//! drawn from all that have a subscriber, so that with many filters each match meets cold memory: the "one topic"
//! rows, which always ask for the same one, show the work without the misses.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::map::Keyed;
use ringmq::topic::parse_subscription;
use ringmq::trie::{Matches, Sub, SubOptions, SubRef, Trie};
use std::hint::black_box;
use std::time::Duration;

/// A shape's name, its `n`th filter, and a topic that this filter matches.
type Shape = (&'static str, fn(u32) -> String, fn(u32) -> String);

const SHAPES: [Shape; 4] = [
    ("exact", |n| format!("dev/{n}/cmd"), |n| format!("dev/{n}/cmd")),
    ("plus", |n| format!("dev/{n}/+/state"), |n| format!("dev/{n}/door/state")),
    ("hash", |n| format!("dev/{n}/#"), |n| format!("dev/{n}/door/state")),
    (
        "deep",
        |n| format!("a/b/c/d/e/f/g/h/i/j/k/l/{}/+/{n}", n % 1000),
        |n| format!("a/b/c/d/e/f/g/h/i/j/k/l/{}/x/{n}", n % 1000),
    ),
];
const COUNTS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Topics that a bench goes through.
const TOPICS: u32 = 4_096;

fn add(trie: &mut Trie, filter: &str, session: u32) -> SubRef {
    let to = parse_subscription(filter, 0).expect("the bench's filters are valid");
    trie.subscribe(&to, Sub::new(session, SubOptions::new(1, false, false, 0), 0)).sub
}

fn filled(shape: &Shape, count: u32) -> Trie {
    let mut trie = Trie::new(0, 1, Keyed::new(1));
    for n in 0..count {
        add(&mut trie, &(shape.1)(n), n);
    }
    trie
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    for shape in &SHAPES {
        for count in COUNTS {
            let trie = filled(shape, count);
            let mut found = Matches::default();
            let topics: Vec<String> =
                (0..TOPICS).map(|n| (shape.2)(n.wrapping_mul(2_654_435_761) % count)).collect();
            let mut all = topics.iter().cycle();
            group.bench_function(BenchmarkId::new(shape.0, count), |b| {
                b.iter(|| {
                    trie.matches(all.next().expect("an endless iterator"), &mut found);
                    assert_eq!(found.routes.len(), 1);
                });
            });
            group.bench_function(BenchmarkId::new(format!("{}, one topic", shape.0), count), |b| {
                b.iter(|| trie.matches(black_box(&topics[0]), &mut found));
            });
        }
    }
    group.finish();
}

fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("churn");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for shape in &SHAPES {
        let mut trie = filled(shape, 100_000);
        let filter = (shape.1)(100_000);
        group.bench_function(BenchmarkId::new("subscribe and unsubscribe beside 100,000", shape.0), |b| {
            b.iter(|| {
                let sub = add(&mut trie, black_box(&filter), 7);
                trie.unsubscribe(sub, 7).existed
            });
        });
    }
    let shape = &SHAPES[0];
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("100,000 filters into an empty trie", |b| {
        let filters: Vec<String> = (0..100_000).map(shape.1).collect();
        b.iter_batched(
            || Trie::new(0, 1, Keyed::new(1)),
            |mut trie| {
                for (filter, n) in filters.iter().zip(0..) {
                    add(&mut trie, filter, n);
                }
                trie
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, matching, churn);
criterion_main!(benches);
