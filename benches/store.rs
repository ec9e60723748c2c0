//! What a commit costs, on the disk of the folder for temporary files: one durable message, and as many as come
//! together under load; and how long it takes to open a store with a million queued messages. What other engines take
//! stands in `src/store/engine.rs`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::store::{Change, Engine, LogEngine};
use std::path::PathBuf;

/// A folder that goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("ringmq-bench-{name}-{}", std::process::id())))
    }

    fn open(&self) -> LogEngine {
        LogEngine::open(&self.0).expect("a folder for temporary files can be written")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Messages for many queues, each of which is popped some later.
struct Load {
    seq: u64,
    sessions: u64,
}

impl Load {
    fn group(&mut self, messages: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..messages {
            self.seq += 1;
            let queue = |seq: u64| seq.wrapping_mul(2_654_435_761) % self.sessions;
            changes.push(Change::Push {
                queue: queue(self.seq),
                seq: self.seq,
                body: None,
                bytes: vec![self.seq as u8; 200].into(),
            });
            if let Some(seq) = self.seq.checked_sub(5_000) {
                changes.push(Change::Pop { queue: queue(seq), seq });
            }
        }
        changes
    }
}

fn commits(c: &mut Criterion) {
    for (sessions, messages) in [(1, 1), (10_000, 1), (1, 256), (100, 256), (10_000, 256)] {
        let folder = Folder::new("commit");
        let mut engine = folder.open();
        let mut load = Load { seq: 0, sessions };
        let mut group = c.benchmark_group("store/commit");
        group.throughput(Throughput::Elements(messages)).sample_size(20);
        group.bench_function(format!("{sessions} sessions, {messages} messages"), |b| {
            b.iter_batched(
                || load.group(messages),
                |changes| {
                    engine.commit(&changes).expect("the disk is well");
                    engine.tidy().expect("the disk is well")
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

fn open(c: &mut Criterion) {
    let folder = Folder::new("open");
    let mut load = Load { seq: 0, sessions: 100_000 };
    let mut engine = folder.open();
    for _ in 0..200 {
        let mut changes = load.group(5_000);
        changes.retain(|change| matches!(change, Change::Push { .. }));
        engine.commit(&changes).expect("the disk is well");
    }
    drop(engine);
    let mut group = c.benchmark_group("store/open");
    group.sample_size(10);
    group.bench_function("1,000,000 messages of 100,000 sessions", |b| {
        b.iter(|| folder.open().figures().entries)
    });
    group.finish();
}

criterion_group!(benches, commits, open);
criterion_main!(benches);
