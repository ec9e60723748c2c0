//! The real binary, killed by SIGKILL at random moments while clients with sessions that last publish and subscribe
//! over real sockets: nothing that was acknowledged is missing afterwards, no QoS 2 message came twice, what is
//! retained is what was acknowledged last, and every session is there.
//!
//! `RINGMQ_TORTURE_KILLS=1000 cargo test --release --test torture -- --nocapture` kills that often and says what it saw;
//! `RINGMQ_TORTURE_SEED` gives the moments. SIGKILL leaves what the kernel has of files: power cuts are the tests of
//! `store`.

#![allow(clippy::unwrap_used, missing_docs, reason = "this is a test")]

#[path = "../common/mod.rs"]
mod common;

mod client;

use client::{Publisher, Subscriber, Wire};
use common::{Broker, DRIVERS, Driver};
use ringmq::message::QoS;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Kills of a run without `RINGMQ_TORTURE_KILLS`, on each driver.
const KILLS: u64 = 12;
/// A broker that has not delivered anything new for so long will not.
const QUIET: Duration = Duration::from_secs(30);
/// Publishers of each QoS, each with a retained topic of its own.
const PUBLISHERS: usize = 2;

/// Where the broker serves now, and whether publishers go on.
pub struct Town {
    addr: Mutex<Option<SocketAddr>>,
    pub closing: AtomicBool,
    pub over: AtomicBool,
    /// Starts of the broker.
    run: AtomicU64,
    /// What happened to each number of each publisher.
    story: Mutex<HashMap<(usize, u64), Vec<String>>>,
}

impl Town {
    /// The broker's address, while there is one.
    pub fn addr(&self) -> Option<SocketAddr> {
        *self.addr.lock().unwrap()
    }

    /// Something happened to a number of a publisher.
    pub fn note(&self, publisher: usize, seq: u64, what: impl FnOnce() -> String) {
        let line = format!("run {}: {}", self.run.load(Ordering::Relaxed), what());
        self.story.lock().unwrap().entry((publisher, seq)).or_default().push(line);
    }

    /// What happened to some of them.
    fn tell(&self, publisher: usize, seqs: &[u64]) -> String {
        let story = self.story.lock().unwrap();
        let lines = seqs.iter().flat_map(|seq| {
            let lines = story.get(&(publisher, *seq)).into_iter().flatten();
            lines.map(move |line| format!("  {seq}: {line}\n"))
        });
        lines.collect()
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A number that looks like chance.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-torture-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn start(driver: Driver, shards: usize, folder: &Folder) -> Broker {
    let folder = folder.0.to_str().unwrap();
    let settings = [
        ("broker.durability", "on"),
        ("broker.data_dir", folder),
        ("mqtt.max_mqueue", "1000000"),
        ("mqtt.max_mqueue_bytes", "1073741824"),
    ];
    Broker::start(driver, shards, &settings)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let kills = variable("RINGMQ_TORTURE_KILLS").unwrap_or(KILLS);
    let seed = variable("RINGMQ_TORTURE_SEED").unwrap_or(1);
    for (&driver, salt) in DRIVERS.iter().zip(1..) {
        torture(driver, kills, seed.wrapping_mul(31).wrapping_add(salt));
    }
}

fn torture(driver: Driver, kills: u64, seed: u64) {
    let folder = Folder::new(driver.name());
    let mut random = seed;
    let mut broker = start(driver, 3, &folder);
    let town = Arc::new(Town {
        addr: Mutex::new(Some(broker.addr())),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        run: AtomicU64::new(1),
        story: Mutex::default(),
    });
    let subscribers: Vec<_> = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .enumerate()
        .map(|(n, qos)| Subscriber::spawn(&town, &format!("subscriber-{n}"), qos))
        .collect();
    subscribers.iter().for_each(Subscriber::wait_subscribed);
    let publishers: Vec<_> = (0..PUBLISHERS * 2)
        .map(|n| Publisher::spawn(&town, n, if n % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }))
        .collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(10 + next(&mut random) % 120));
        *town.addr.lock().unwrap() = None;
        broker.signal("KILL");
        assert!(broker.wait(Duration::from_secs(30)).is_some(), "it is gone");
        // With another number of shards, sessions are found on their new homes.
        broker = start(driver, 1 + next(&mut random) as usize % 4, &folder);
        town.run.fetch_add(1, Ordering::Relaxed);
        *town.addr.lock().unwrap() = Some(broker.addr());
    }
    town.closing.store(true, Ordering::Relaxed);
    let sent: Vec<_> = publishers.into_iter().map(Publisher::join).collect();
    // Everything is acknowledged: it arrives.
    let missing = || {
        let lacks = |s: &Subscriber| -> u64 { sent.iter().map(|p| s.missing(p.number, p.last)).sum() };
        subscribers.iter().map(lacks).sum::<u64>()
    };
    let mut best = (missing(), Instant::now());
    while best.0 > 0 && best.1.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(20));
        let left = missing();
        if left < best.0 {
            best = (left, Instant::now());
        }
    }
    town.over.store(true, Ordering::Relaxed);
    let mut total = 0;
    for subscriber in subscribers {
        let (name, qos, got) = subscriber.join();
        for publisher in &sent {
            let counts: HashMap<u64, u32> = got
                .iter()
                .filter(|((n, _), _)| *n == publisher.number)
                .map(|((_, seq), c)| (*seq, *c))
                .collect();
            let lost: Vec<u64> = (1..=publisher.last).filter(|seq| !counts.contains_key(seq)).collect();
            let (number, log) = (publisher.number, broker.log());
            let story = town.tell(number, &lost);
            assert!(lost.is_empty(), "{driver}: {name} lacks of publisher {number}: {lost:?}\n{story}{log}");
            total += counts.len();
            if qos == QoS::ExactlyOnce && publisher.qos == QoS::ExactlyOnce {
                let twice = counts.iter().filter(|(_, count)| **count > 1).map(|(seq, _)| *seq);
                let mut twice: Vec<u64> = twice.collect();
                twice.sort_unstable();
                let story = town.tell(number, &twice);
                assert!(
                    twice.is_empty(),
                    "{driver}: {name} got twice of publisher {number}: {twice:?}\n{story}"
                );
            }
        }
    }
    for publisher in &sent {
        let kept = Wire::retained(broker.addr(), &format!("kept/{}", publisher.number));
        assert_eq!(kept, Some(publisher.kept), "{driver}: what publisher {} retained", publisher.number);
    }
    println!(
        "{driver}: {kills} kills, {total} deliveries of {} messages",
        sent.iter().map(|p| p.last).sum::<u64>()
    );
    broker.stop();
}
