//! The whole broker in a simulation: production shards on a virtual clock, in one thread, under a seeded
//! scheduler, with clients, a network and drivers that fail in every way that they may.
//!
//! `cargo test --test sim` runs a thousand seeds. `RINGMQ_SIM_SEEDS=10000 cargo test --release --test sim`
//! runs that many and prints seeds per second. `RINGMQ_SIM_SEED=1234 cargo test --test sim -- --nocapture`
//! replays one with a trace. `RINGMQ_SIM_FROM` is the first seed, `RINGMQ_SIM_THREADS` how many run at a time.
//!
//! Read in this order: `plan` (what a seed decides), `world` (the scheduler), `scenes` (plays that dice alone
//! would miss), `gap` (what other cores do meanwhile), `machine` (the shards and everything below them),
//! `client`, `link` and `actions` (everything above them), `oracle` (what may, must and must not arrive), `checks`
//! (what must hold at rest), `trace` (what a run must have reached).
#![allow(clippy::unwrap_used, missing_docs, reason = "this is a test")]

mod actions;
mod checks;
mod client;
mod gap;
mod link;
#[path = "../machine/mod.rs"]
mod machine;
mod oracle;
mod plan;
mod scenes;
mod world;

use machine::{net, random, trace};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds of a run without `RINGMQ_SIM_SEEDS`.
const SEEDS: u64 = 1_000;
/// Failing seeds after which a run stops.
const FAILURES_MAX: usize = 8;

thread_local! {
    static FAILURE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs a seed; the error says what did not hold.
fn attempt(seed: u64) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| checks::run(seed))).map_err(|_| FAILURE.take())
}

fn replay(seed: u64) {
    trace::start(true);
    if let Err(failure) = attempt(seed) {
        println!("seed {seed}: {failure}");
        panic!("seed {seed}: {failure}");
    }
}

#[test]
fn the_broker_keeps_its_promises_under_every_seed() {
    std::panic::set_hook(Box::new(|info| FAILURE.set(info.to_string())));
    let outcome = catch_unwind(|| match variable("RINGMQ_SIM_SEED") {
        Some(seed) => replay(seed),
        None => run_all(),
    });
    drop(std::panic::take_hook());
    assert!(outcome.is_ok(), "{}", FAILURE.take());
}

fn run_all() {
    let count = variable("RINGMQ_SIM_SEEDS").unwrap_or(SEEDS);
    let from = variable("RINGMQ_SIM_FROM").unwrap_or(1);
    let next = AtomicU64::new(from);
    let (start, steps) = (Instant::now(), AtomicU64::new(0));
    let failures: Mutex<Vec<(u64, String)>> = Mutex::default();
    let reached: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let threads = variable("RINGMQ_SIM_THREADS").unwrap_or(2);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || failures.lock().unwrap().len() >= FAILURES_MAX {
                        break;
                    }
                    match attempt(seed) {
                        Ok(n) => drop(steps.fetch_add(n, Ordering::Relaxed)),
                        Err(failure) => failures.lock().unwrap().push((seed, failure)),
                    }
                }
                for (what, n) in trace::take_reached() {
                    *reached.lock().unwrap().entry(what).or_default() += n;
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let (steps, reached) = (steps.into_inner(), reached.into_inner().unwrap());
    println!("{count} seeds, {steps} steps, {:.0} seeds/s", count as f64 / seconds);
    let ran = (next.into_inner() - from).min(count);
    report(failures.into_inner().unwrap(), &reached, (ran, count));
}

/// Fails if a seed did, or if the seeds did not reach all that they must. `ran` of `count` seeds were run.
fn report(mut failures: Vec<(u64, String)>, reached: &BTreeMap<&'static str, u64>, (ran, count): (u64, u64)) {
    for (what, n) in reached {
        println!("{n:>10}  {what}");
    }
    failures.sort();
    if let Some((seed, _)) = failures.first() {
        trace::start(false);
        let again = attempt(*seed);
        trace::stop().iter().rev().take(60).rev().for_each(|line| println!("{line}"));
        println!("replayed: {again:?}\n");
    }
    let mut text = String::new();
    for (seed, failure) in &failures {
        text += &format!(
            "seed {seed}: {failure}\n  replay: RINGMQ_SIM_SEED={seed} cargo test --test sim -- --nocapture\n"
        );
    }
    assert!(failures.is_empty(), "\n{} of the first {ran} seeds failed:\n{text}", failures.len());
    if count >= SEEDS {
        let missed: Vec<_> =
            MUST_REACH.iter().filter(|what| reached.get(*what).is_none_or(|n| *n == 0)).collect();
        assert!(missed.is_empty(), "never reached: {missed:?}");
    }
}

/// What every run of the default size must have met.
const MUST_REACH: &[&str] = &[
    "takeover",
    "connection abandoned before CONNACK",
    "resume to client: PUBLISH unanswered",
    "resume to client: PUBREC sent",
    "resume to client: PUBREL again",
    "resume to server: PUBLISH unanswered",
    "resume to server: PUBREL unanswered",
    "session present",
    "session expired",
    "hand-over",
    "hand-over while the client streams",
    "hand-over refused (ENFILE)",
    "accept refused (ENFILE)",
    "shared hand-on",
    "shared delivery",
    "receive starved (ENOBUFS)",
    "data ring full",
    "control overflow",
    "fan-out cursor",
    "will published",
    "delayed will",
    "message expired",
    "queue full",
    "publisher refused (0x97)",
    "packet too large for a client",
    "topic alias in",
    "topic alias out",
    "retained found by a subscriber",
    "retained cleared",
    "clock jump",
    "send stalled",
    "peer reset",
    "peer half-open",
    "keep alive timeout",
    "connect timeout",
    "overlapping subscriptions",
    "receive maximum reached",
    "sleeping shard woken",
    "spurious turn",
    "slow shard",
    "tick within a tick",
    "acted upon an answer at once",
    "published upon a SUBACK",
    "member of a share group lost",
    "retained behind a full ring",
    "asked for what was retained meanwhile",
    "grey packet",
    "server disconnected us",
    "drain",
    "16 shards",
    "crash",
    "publisher refused by a store that cannot write",
    "acknowledged while the store cannot write",
    "CONNECT refused by a store that cannot write",
    "SUBSCRIBE refused by a store that cannot write",
    "UNSUBSCRIBE refused by a store that cannot write",
];
