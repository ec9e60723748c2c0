//! The ledger of memory against the allocator and against what the process holds.
//!
//! Each case runs in a process of its own, broker and clients in one, so that nothing of the case before is left.
//! An allocator that adds up what mimalloc says of each block is the judge. By default the cases are small; with
//! `LEDGER_SCALE=50` they have a million messages or subscriptions, and resident memory is held to the same bound:
//!
//! ```sh
//! LEDGER_SCALE=50 cargo test --profile ci --test ledger
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

use ringmq::broker::Broker;
use ringmq::config::{Config, Durability, IoChoice};
use ringmq::desk::Ask;
use ringmq::heap::Allocator;
use ringmq::stats::{Gauges, Memory};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Difference between the ledger and what it is compared with, in percent of the latter.
const BOUND_PERCENT: f64 = 10.0;
/// Resident memory below this says little: pages, free blocks and stacks weigh more.
const RESIDENT_BYTES_MIN: i64 = 64 << 20;
/// Time for the broker to do what it was told.
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages of a queue, which is what one holds by default.
const QUEUE: usize = 1_000;

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

unsafe extern "C" {
    fn mi_usable_size(block: *const c_void) -> usize;
    fn mi_collect(force: bool);
}

/// Bytes of a block of mimalloc that is live.
fn size(block: *mut u8) -> i64 {
    // SAFETY: the callers below have it from mimalloc, and have not given it back.
    unsafe { mi_usable_size(block.cast()) as i64 }
}

// SAFETY: passes everything on to mimalloc.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the caller.
        let block = unsafe { Allocator.alloc(layout) };
        LIVE.fetch_add(size(block), Ordering::Relaxed);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(size(block), Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { Allocator.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let before = size(block);
        // SAFETY: as for the caller.
        let block = unsafe { Allocator.realloc(block, layout, bytes) };
        LIVE.fetch_add(size(block) - before, Ordering::Relaxed);
        block
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is held at a moment.
struct Weight {
    gauges: Gauges,
    memory: Memory,
    allocated: i64,
    resident: i64,
}

struct Bench {
    broker: Broker,
    runtime: tokio::runtime::Runtime,
    epoll: bool,
}

impl Bench {
    fn start(driver: &str) -> Bench {
        let mut config = Config::default();
        config.broker.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.broker.shards = 2;
        config.broker.pin = false;
        config.broker.durability = Durability::Off;
        config.broker.io = if driver == "epoll" { IoChoice::Epoll } else { IoChoice::Uring };
        config.mqtt.max_subscriptions = 1_000_000;
        config.mqtt.max_retained = 4_000_000;
        config.mqtt.max_retained_bytes = 4 << 30;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Bench {
            broker: Broker::start(&config, Path::new("unused"), &mut Vec::new()).unwrap(),
            runtime,
            epoll: driver == "epoll",
        }
    }

    fn weigh(&self) -> Weight {
        let (mut gauges, mut memory) = (Gauges::default(), Memory::default());
        let all = self.runtime.block_on(self.broker.desk().ask_all(Ask::Weight)).unwrap();
        for weight in all {
            gauges.add(&weight.gauges);
            memory.add(&weight.memory);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        Weight { gauges, memory, allocated: LIVE.load(Ordering::Relaxed), resident: kib * 1024 }
    }

    /// Waits until the broker has counted what was asked of it.
    fn until(&self, done: impl Fn(&Gauges, &Memory) -> bool) {
        let began = Instant::now();
        loop {
            let weight = self.weigh();
            if done(&weight.gauges, &weight.memory) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", weight.gauges);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(&self, client_id: &str, clean: bool) -> TcpStream {
        let mut stream = TcpStream::connect(self.broker.served()[0].addr).unwrap();
        let flags = if clean { 2 } else { 0 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 1, 44];
        string(&mut body, client_id);
        send(&mut stream, 0x10, &body);
        assert_eq!(receive(&mut stream, 4)[3], 0, "CONNACK");
        stream
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut rest = body.len();
    loop {
        out.push((rest % 128) as u8 | if rest > 127 { 128 } else { 0 });
        rest /= 128;
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn send(stream: &mut TcpStream, head: u8, body: &[u8]) {
    stream.write_all(&packet(head, body)).unwrap();
}

fn receive(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    stream.read_exact(&mut out).unwrap();
    out
}

/// Subscribes at QoS 1, a hundred filters in a packet. They are made as they are needed: what a case holds by itself
/// would be taken for the broker's.
fn subscribe(stream: &mut TcpStream, filters: impl Iterator<Item = String>) {
    let mut filters = filters.peekable();
    while filters.peek().is_some() {
        let (mut body, mut count) = (vec![0, 1], 0);
        for filter in filters.by_ref().take(100) {
            string(&mut body, &filter);
            body.push(1);
            count += 1;
        }
        send(stream, 0x82, &body);
        receive(stream, 4 + count);
    }
}

/// Publishes at QoS 1, fifty at a time.
fn publish(stream: &mut TcpStream, head: u8, messages: impl Iterator<Item = (String, Vec<u8>)>) {
    let mut waiting = 0;
    for (topic, payload) in messages {
        let mut body = Vec::new();
        string(&mut body, &topic);
        body.extend([0, 1]);
        body.extend(payload);
        send(stream, head, &body);
        waiting += 1;
        if waiting == 50 {
            receive(stream, 4 * waiting);
            waiting = 0;
        }
    }
    receive(stream, 4 * waiting);
}

/// What a case does to the broker; returns the connections that it keeps.
type Case = fn(&Bench, usize) -> Vec<TcpStream>;

const CASES: &[(&str, Case)] = &[
    ("idle clients", idle),
    ("queues", queues),
    ("queues of the same messages", same),
    ("retained messages", retained),
    ("subscriptions", subscriptions),
    ("wildcard subscriptions", wildcards),
];

/// 2,000 clients with one subscription each. More than the limit of open files allows are for `ringmq bench million`.
fn idle(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    clients(bench, (2_000 * scale).min(8_000))
}

fn clients(bench: &Bench, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|n| {
            let mut stream = bench.connect(&format!("ringmq-bench-5f3a91c2-{n}"), true);
            subscribe(&mut stream, std::iter::once(format!("dev/{n}/cmd")));
            stream
        })
        .collect()
}

fn offline(bench: &Bench, sessions: usize, topic: impl Fn(usize) -> String) {
    for n in 0..sessions {
        let mut stream = bench.connect(&format!("offline-{n}"), false);
        subscribe(&mut stream, std::iter::once(topic(n)));
        send(&mut stream, 0xE0, &[]);
    }
    bench.until(|gauges, _| gauges.connections == 0);
}

/// 20 sessions with 1,000 messages each.
fn queues(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    let sessions = 20 * scale;
    offline(bench, sessions, |n| format!("queue/{n}"));
    let mut publisher = bench.connect("publisher", true);
    let messages = (0..QUEUE * sessions).map(|n| (format!("queue/{}", n % sessions), vec![b'x'; 200]));
    publish(&mut publisher, 0x32, messages);
    bench.until(|gauges, _| gauges.queued == (QUEUE * sessions) as u64);
    vec![publisher]
}

/// The same, each message in the queues of ten sessions.
fn same(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    let (sessions, groups) = (20 * scale, 2 * scale);
    offline(bench, sessions, |n| format!("queue/{}", n % groups));
    let mut publisher = bench.connect("publisher", true);
    let messages = (0..QUEUE * groups).map(|n| (format!("queue/{}", n % groups), vec![b'x'; 2_000]));
    publish(&mut publisher, 0x32, messages);
    bench.until(|gauges, _| gauges.queued == (QUEUE * sessions) as u64);
    vec![publisher]
}

/// 20,000 retained messages.
fn retained(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    let mut publisher = bench.connect("publisher", true);
    let messages = (0..20_000 * scale).map(|n| (format!("site/{}/sensor/{n}", n % 100), vec![b'x'; 100]));
    publish(&mut publisher, 0x33, messages);
    bench.until(|gauges, _| gauges.retained == 20_000 * scale as u64);
    vec![publisher]
}

fn subscribed(bench: &Bench, scale: usize, filter: impl Fn(usize) -> String) -> Vec<TcpStream> {
    let streams = (0..4)
        .map(|n| {
            let mut stream = bench.connect(&format!("subscriber-{n}"), true);
            subscribe(&mut stream, (0..5_000 * scale).map(|k| filter(4 * k + n)));
            stream
        })
        .collect();
    // Retained messages were looked up for all of them, after which only the lists of subscriptions are left.
    bench.until(|_, memory| memory.states < 64 * 1_024 + 8 * 20_000 * scale as u64);
    streams
}

/// 20,000 subscriptions on four sessions.
fn subscriptions(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    subscribed(bench, scale, |n| format!("site/{}/sensor/{n}", n % 100))
}

/// The same with a wildcard in each.
fn wildcards(bench: &Bench, scale: usize) -> Vec<TcpStream> {
    subscribed(bench, scale, |n| format!("site/{}/+/{n}/#", n % 100))
}

fn run(driver: &str, name: &str) -> ExitCode {
    let scale = std::env::var("LEDGER_SCALE").map_or(1, |text| text.parse().unwrap());
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).unwrap();
    let bench = Bench::start(driver);
    // Some of everything, so that lists that every load makes, and the program's own pages, are there before.
    drop(clients(&bench, 200));
    bench.until(|gauges, _| gauges.sessions == 0);
    let before = bench.weigh();
    let kept = case(&bench, scale);
    // What was freed on the way goes back to the kernel now, as it would with time.
    // SAFETY: may be called at any time.
    unsafe { mi_collect(true) };
    let after = bench.weigh();
    // Mapped, not allocated.
    let mapped = |m: &Memory| if bench.epoll { 0 } else { m.receive + m.rings };
    let ledger = (after.memory.total() - before.memory.total()) as i64;
    let in_heap = ledger - (mapped(&after.memory) - mapped(&before.memory)) as i64;
    let allocated = after.allocated - before.allocated;
    let resident = after.resident - before.resident;
    let percent = |ledger: i64, other: i64| 100.0 * (ledger - other) as f64 / other as f64;
    let (against_allocator, against_resident) = (percent(in_heap, allocated), percent(ledger, resident));
    let each = after
        .memory
        .each(&after.gauges)
        .map(|(name, count, bytes)| format!("{count} x {bytes:.0} per {name}"));
    println!(
        "{driver:6} {name:28} ledger {in_heap:>11}  allocator {allocated:>11} {against_allocator:>+6.1} %  \
         resident {resident:>11} {against_resident:>+6.1} %  {}",
        each.collect::<Vec<_>>().join(", ")
    );
    let rows = before.memory.iter().zip(after.memory.iter()).filter(|(b, a)| a.1 != b.1);
    let rows: Vec<String> = rows.map(|(b, a)| format!("{}={:+}", a.0, a.1 as i64 - b.1 as i64)).collect();
    let wrong = against_allocator.abs() > BOUND_PERCENT
        || (resident > RESIDENT_BYTES_MIN && against_resident.abs() > BOUND_PERCENT);
    if wrong || std::env::var_os("LEDGER_ROWS").is_some() {
        println!("       {}", rows.join(" "));
    }
    drop(kept);
    bench.broker.drain(Duration::from_secs(5));
    if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, driver, name] = &args[..]
        && flag == "--case"
    {
        return run(driver, name);
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (driver, (name, _)) in ["uring", "epoll"].iter().flat_map(|d| CASES.iter().map(move |case| (d, case)))
    {
        let status = Command::new(&args[0]).args(["--case", driver, name]).status().unwrap();
        failed += i32::from(!status.success());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
