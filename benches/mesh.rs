//! The rings between shards: ours beside `crossbeam-queue` and `rtrb`, and the mesh on top of them.
//!
//! One element is one 64-byte entry from hand to hand. The batched rows push and publish a batch, then pop it, on
//! one thread, which shows the instructions; the rows with two threads show the cache lines that travel as well, and
//! are noisy where the cores are shared.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::mesh::{Envelope, mesh};
use ringmq::message::{Head, Message, MessageRef, QoS};
use ringmq::stats::Source;
use ringmq::sync::spsc::ring;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// As large as what the mesh carries.
type Entry = [u64; 8];
const ENTRIES: usize = 512;

fn rings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring, one thread");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for batch in [1, 16, 256] {
        group.throughput(Throughput::Elements(batch as u64));
        let (mut producer, mut consumer) = ring::<Entry>(ENTRIES);
        group.bench_function(BenchmarkId::new("ours", batch), |b| {
            b.iter(|| {
                for n in 0..batch {
                    producer.push(black_box([n as u64; 8])).expect("there is room");
                }
                producer.publish();
                let until = consumer.tail();
                let mut sum = 0;
                while let Some(entry) = consumer.pop_until(until) {
                    sum += entry[0];
                }
                consumer.release();
                sum
            });
        });
        let (mut producer, mut consumer) = rtrb::RingBuffer::<Entry>::new(ENTRIES);
        group.bench_function(BenchmarkId::new("rtrb", batch), |b| {
            b.iter(|| {
                for n in 0..batch {
                    producer.push(black_box([n as u64; 8])).expect("there is room");
                }
                let mut sum = 0;
                while let Ok(entry) = consumer.pop() {
                    sum += entry[0];
                }
                sum
            });
        });
        let queue = crossbeam_queue::ArrayQueue::<Entry>::new(ENTRIES);
        group.bench_function(BenchmarkId::new("crossbeam ArrayQueue", batch), |b| {
            b.iter(|| {
                for n in 0..batch {
                    queue.push(black_box([n as u64; 8])).expect("there is room");
                }
                let mut sum = 0;
                while let Some(entry) = queue.pop() {
                    sum += entry[0];
                }
                sum
            });
        });
    }
    group.finish();
}

/// Entries from one thread to another, in batches of 16.
fn across(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring, two threads");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    group.bench_function("ours", |b| {
        b.iter_custom(|entries| {
            let (mut producer, mut consumer) = ring::<Entry>(ENTRIES);
            timed(
                move || {
                    let mut sent = 0;
                    while sent < entries {
                        for _ in 0..producer.room().min(16).min((entries - sent) as usize) {
                            producer.push([sent; 8]).expect("there is room");
                            sent += 1;
                        }
                        producer.publish();
                    }
                },
                move || {
                    let mut seen = 0;
                    while seen < entries {
                        let until = consumer.tail();
                        while let Some(entry) = consumer.pop_until(until) {
                            assert_eq!(entry[0], seen);
                            seen += 1;
                        }
                        consumer.release();
                    }
                },
            )
        });
    });
    group.bench_function("rtrb", |b| {
        b.iter_custom(|entries| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Entry>::new(ENTRIES);
            timed(
                move || (0..entries).for_each(|n| while producer.push([n; 8]).is_err() {}),
                move || {
                    let mut seen = 0;
                    while seen < entries {
                        if let Ok(entry) = consumer.pop() {
                            assert_eq!(entry[0], seen);
                            seen += 1;
                        }
                    }
                },
            )
        });
    });
    group.finish();
}

fn timed(push: impl FnOnce() + Send, pop: impl FnOnce()) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(push);
        pop();
    });
    began.elapsed()
}

/// A tick's worth of envelopes from one shard to another, with tails, flush and doorbell.
fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("mesh");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let head = Head::new(QoS::AtLeastOnce, false, 1, Source::Client);
    let message =
        Message::new(&MessageRef { topic: "bench/1/up", properties: &[], payload: &[b'x'; 64], head });
    for shards in [2, 16, 64] {
        for batch in [1, 64] {
            let mut ends = mesh(shards);
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(
                BenchmarkId::new(format!("of {shards} shards, envelopes a tick"), batch),
                |b| {
                    b.iter(|| {
                        for _ in 0..batch {
                            assert!(ends[0].data_room(1) > 0);
                            ends[0].send(
                                1,
                                Envelope {
                                    message: message.clone(),
                                    picks: None,
                                    normal: true,
                                    ticket: 0,
                                    number: 0,
                                },
                            );
                        }
                        black_box(ends[0].flush());
                        ends[1].read_tails(|| ());
                        assert!(ends[1].next_control().is_none());
                        let mut seen = 0;
                        while ends[1].next_data(0).is_some() {
                            seen += 1;
                        }
                        assert_eq!(seen, batch);
                        ends[1].flush()
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, rings, across, envelopes);
criterion_main!(benches);
