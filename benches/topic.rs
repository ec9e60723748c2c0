//! Topic names and filters as types, and the keyed hash by which shards find homes and routes.

use criterion::{Criterion, criterion_group, criterion_main};
use ringmq::map::Keyed;
use ringmq::topic::{Filter, Topic, parse_subscription};
use std::hint::black_box;

fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic");
    let deep = vec!["level"; 128].join("/");
    for (name, topic) in [("of 3 levels", "site/room-7/temperature"), ("of 128 levels", &deep)] {
        group
            .bench_function(format!("name {name}"), |b| b.iter(|| Topic::new(black_box(topic), 128).is_ok()));
        group.bench_function(format!("filter {name}"), |b| {
            b.iter(|| Filter::new(black_box(topic), 128).is_ok())
        });
    }
    group.bench_function("shared filter", |b| {
        b.iter(|| parse_subscription(black_box("$share/workers/site/+/temperature"), 128).is_ok());
    });
    let keyed = Keyed::new(1);
    group.bench_function("key of 3 levels", |b| b.iter(|| keyed.key(black_box("site/room-7/temperature"))));
    group.finish();
}

criterion_group!(benches, topics);
criterion_main!(benches);
