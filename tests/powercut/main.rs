//! Power cuts of the real binary: strace records every write, sync, creation and removal that it does to the files of
//! its store, while clients publish and subscribe over real sockets and it is killed and started now and then. Behind
//! each of them the folder is rebuilt as a disk would have it if the power went then, twice: without what was not synced,
//! and with pieces of it. The code that opens stores opens it, and nothing that any client was told by then is missing.
//!
//! `.ci/powercut 10000` records that many writes; `RINGMQ_POWERCUT_WRITES` and `RINGMQ_POWERCUT_SEED` are what it sets. A
//! quick run is part of `.ci/run`, and not of `cargo test`, for it needs strace.

#![allow(clippy::unwrap_used, missing_docs, reason = "this is a test")]

#[path = "../torture/client.rs"]
#[allow(dead_code, reason = "it asks for other things there")]
mod client;
#[path = "../common/mod.rs"]
mod common;
mod image;
mod promises;
mod trace;

use client::{Publisher, Subscriber};
use common::{Broker, DRIVERS, Driver, Login, Peer, Read};
use image::{Image, Unsynced};
use promises::{Known, Promises};
use ringmq::codec::{AckKind, Packet, Version};
use ringmq::message::QoS;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use trace::{Op, Step};

/// Writes that are recorded without `RINGMQ_POWERCUT_WRITES`, on all drivers together.
const WRITES: usize = 400;
/// Writes to one store: a longer one takes longer to open, and shows nothing else.
const WRITES_OF_A_STORE: usize = 800;
/// Publishers of each QoS.
const PUBLISHERS: usize = 2;
/// Packets that one who is seldom there takes at once.
const PACKETS: usize = 300;
/// A reader that is sent nothing for so long has all that there is.
const QUIET: Duration = Duration::from_millis(20);

/// Where the broker serves now, and what clients know.
pub struct Town {
    addr: Mutex<Option<SocketAddr>>,
    pub closing: AtomicBool,
    pub over: AtomicBool,
    known: Mutex<Vec<(u64, Known)>>,
    /// Acknowledgements so far.
    acknowledged: AtomicUsize,
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

impl Town {
    /// The broker's address, while there is one.
    pub fn addr(&self) -> Option<SocketAddr> {
        *self.addr.lock().unwrap()
    }

    /// Something happened to a number of a publisher; clients say what, in words.
    pub fn note(&self, publisher: usize, seq: u64, what: impl FnOnce() -> String) {
        let what = what();
        if what == "PubAck" || what == "PubRec" {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.know(Known::Acknowledged((publisher, seq)));
        } else if let Some((name, _)) = what.split_once(", ").filter(|(_, rest)| rest.contains("got it as")) {
            self.know(Known::Received(name.to_owned(), (publisher, seq)));
        }
    }

    fn know(&self, known: Known) {
        let at = now_us();
        self.known.lock().unwrap().push((at, known));
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

/// A folder for a store and for traces.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-powercut-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("data/store")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A run that was recorded.
struct Recorded {
    steps: Vec<Step>,
    known: Vec<(u64, Known)>,
    subscribers: Vec<String>,
}

/// A broker that is traced, and how often it was started.
struct Traced<'a> {
    driver: Driver,
    folder: &'a Folder,
    boots: usize,
    steps: Vec<Step>,
    image: Image,
}

impl Traced<'_> {
    fn start(&mut self, shards: usize) -> Broker {
        self.boots += 1;
        let wrapper = trace::wrapper(&self.prefix());
        let data = self.folder.0.join("data");
        let settings = [
            ("broker.durability", "on"),
            ("broker.data_dir", data.to_str().unwrap()),
            ("mqtt.max_mqueue", "1000000"),
            ("mqtt.max_mqueue_bytes", "1073741824"),
        ];
        Broker::start_under(&wrapper, self.driver, shards, &settings)
    }

    fn prefix(&self) -> PathBuf {
        self.folder.0.join(format!("trace-{}", self.boots))
    }

    /// Kills it, and reads what it did.
    fn kill(&mut self, mut broker: Broker) {
        broker.signal("KILL");
        assert!(broker.wait(Duration::from_secs(60)).is_some(), "it is gone");
        let there = actual(&self.folder.store());
        for step in trace::read(&self.prefix(), &self.folder.store()) {
            if let Some(step) = settled(step, &there) {
                self.image.apply(&step.op);
                self.steps.push(step);
            }
        }
        // Nothing was done to the files that is not in the trace.
        let live = self.image.live();
        assert_eq!(live.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>(), "{}", self.driver);
        for (name, bytes) in &live {
            assert!(*bytes == there[name], "{}: the trace says something else of {name}", self.driver);
        }
    }

    fn writes(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.op, Op::Write(..))).count()
    }
}

/// What the files of a store hold.
fn actual(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let segments = entries.filter(|entry| name(entry).ends_with(".log"));
    segments.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

/// A call that its process did not see the end of has done what the files say.
fn settled(step: Step, there: &BTreeMap<String, Vec<u8>>) -> Option<Step> {
    if step.ended {
        return Some(step);
    }
    let op = match step.op {
        Op::Write(name, at, mut bytes) => {
            let behind = there.get(&name).and_then(|file| file.get(at as usize..)).unwrap_or_default();
            bytes.truncate(behind.len());
            (bytes == behind[..bytes.len()]).then_some(Op::Write(name, at, bytes))
        }
        Op::Create(name) => there.contains_key(&name).then_some(Op::Create(name)),
        Op::Remove(name) => (!there.contains_key(&name)).then_some(Op::Remove(name)),
        sync => Some(sync),
    };
    op.map(|op| Step { op, ..step })
}

/// One who is seldom there: what waits for it is kept for long.
struct Sleeper {
    name: String,
}

impl Sleeper {
    fn settle(broker: &Broker, name: &str) -> Sleeper {
        let (mut peer, _) = Peer::login(broker, &Login::lasting(Version::V5, name));
        assert_eq!(peer.subscribe("#", QoS::ExactlyOnce), 2);
        Sleeper { name: name.to_owned() }
    }

    /// Takes some of what is there.
    fn wake(&self, town: &Town, broker: &Broker) {
        let (mut peer, present) = Peer::login(broker, &Login::lasting(Version::V5, &self.name));
        assert!(present, "its session is there");
        for _ in 0..PACKETS {
            let Read::Packet(received) = peer.read_packet(QUIET) else { return };
            match received.packet() {
                Packet::Publish(publish) => {
                    let number = promises::number(publish.payload).unwrap();
                    town.know(Known::Received(self.name.clone(), number));
                    let id = publish.packet_id.expect("QoS 1 or 2");
                    let exact = publish.qos == QoS::ExactlyOnce;
                    peer.ack(if exact { AckKind::PubRec } else { AckKind::PubAck }, id);
                }
                Packet::Ack(ack) if ack.kind == AckKind::PubRel => peer.ack(AckKind::PubComp, ack.packet_id),
                other => panic!("{}: a message, got {other:?}", self.name),
            }
        }
    }
}

/// Records a run of about so many writes.
fn record(driver: Driver, folder: &Folder, writes: usize, random: &mut u64) -> Recorded {
    let image = Image::new(*random);
    let mut traced = Traced { driver, folder, boots: 0, steps: Vec::new(), image };
    let mut broker = traced.start(2);
    let town = Arc::new(Town {
        addr: Mutex::new(Some(broker.addr())),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        known: Mutex::default(),
        acknowledged: AtomicUsize::new(0),
    });
    let awake = [("subscriber-0", QoS::ExactlyOnce), ("subscriber-1", QoS::AtLeastOnce)];
    let subscribers = awake.map(|(name, qos)| Subscriber::spawn(&town, name, qos));
    subscribers.iter().for_each(Subscriber::wait_subscribed);
    let sleeper = Sleeper::settle(&broker, "sleeper");
    let qos = |n: usize| if n.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
    let publishers: Vec<_> = (0..PUBLISHERS * 2).map(|n| Publisher::spawn(&town, n, qos(n))).collect();
    loop {
        for _ in 0..1 + next(random) % 4 {
            // However slow the machine is, something is acknowledged between two visits.
            let wanted = town.acknowledged.load(Ordering::Relaxed) + 20 + next(random) as usize % 40;
            while town.acknowledged.load(Ordering::Relaxed) < wanted {
                assert!(broker.runs(), "the broker ended by itself:\n{}", broker.log());
                std::thread::sleep(Duration::from_millis(1));
            }
            sleeper.wake(&town, &broker);
        }
        *town.addr.lock().unwrap() = None;
        traced.kill(broker);
        let enough = traced.writes() >= writes;
        broker = traced.start(1 + next(random) as usize % 3);
        *town.addr.lock().unwrap() = Some(broker.addr());
        if enough {
            break;
        }
    }
    town.closing.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| assert!(publisher.join().last > 0, "it published"));
    town.over.store(true, Ordering::Relaxed);
    subscribers.into_iter().for_each(|subscriber| drop(subscriber.join()));
    *town.addr.lock().unwrap() = None;
    traced.kill(broker);
    let known = std::mem::take(&mut *town.known.lock().unwrap());
    let names = awake.iter().map(|(name, _)| (*name).to_owned()).chain([sleeper.name]);
    Recorded { steps: traced.steps, known, subscribers: names.collect() }
}

/// Cuts the power behind each step; how often, and what was wrong.
fn cut_everywhere(recorded: &Recorded, seed: u64) -> (usize, Vec<String>) {
    let first = recorded.known.iter().map(|(at, _)| *at).min().expect("something was told");
    let mut promises = Promises::new(recorded.known.clone(), &recorded.subscribers);
    let (mut image, mut cuts, mut faults) = (Image::new(seed), 0, Vec::new());
    for (nth, step) in recorded.steps.iter().enumerate() {
        image.apply(&step.op);
        let next_us = recorded.steps.get(nth + 1).map_or(u64::MAX, |next| next.at_us);
        if next_us <= first {
            // Not all are subscribed.
            continue;
        }
        promises.go_on(next_us);
        for unsynced in [Unsynced::Lost, Unsynced::Scattered] {
            cuts += 1;
            if let Err(fault) = promises.check(image.cut(unsynced)) {
                let told = promises.told();
                faults.push(format!("behind step {nth}, after {told} answers, {unsynced:?}: {fault}"));
            }
        }
    }
    faults.truncate(5);
    (cuts, faults)
}

#[test]
fn nothing_that_was_told_is_lost_at_any_power_cut() {
    let wanted = variable("RINGMQ_POWERCUT_WRITES").map_or(WRITES, |n| n as usize);
    let mut random = variable("RINGMQ_POWERCUT_SEED").unwrap_or(1);
    let each = wanted.div_ceil(DRIVERS.len()).min(WRITES_OF_A_STORE);
    let (mut writes, mut run) = (0, 0);
    while writes < wanted || run < DRIVERS.len() {
        let driver = DRIVERS[run % DRIVERS.len()];
        let folder = Folder::new(&format!("{driver}-{run}"));
        let recorded = record(driver, &folder, each, &mut random);
        let here = recorded.steps.iter().filter(|step| matches!(step.op, Op::Write(..))).count();
        let (cuts, faults) = cut_everywhere(&recorded, random);
        let told = recorded.known.len();
        println!(
            "{driver}: {here} writes, {} steps, {cuts} cuts, {told} answers and messages",
            recorded.steps.len()
        );
        assert_eq!(faults, Vec::<String>::new(), "{driver}, run {run}");
        assert!(cuts > here, "{cuts} cuts of {here} writes");
        (writes, run) = (writes + here, run + 1);
    }
    println!("{writes} writes in {run} runs");
}

/// The check can fail: without its syncs, the same recorded run has lost what was acknowledged.
#[test]
fn a_run_without_syncs_is_found_out() {
    let (folder, mut random) = (Folder::new("unsynced"), 7);
    let mut recorded = record(DRIVERS[1], &folder, 20, &mut random);
    recorded.steps.retain(|step| !matches!(step.op, Op::Sync(_)));
    let (_, faults) = cut_everywhere(&recorded, 1);
    assert!(!faults.is_empty());
}
