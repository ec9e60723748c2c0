//! Logins while messages flow, and logins against a large file of passwords.
//!
//!     cargo bench --bench logins -- backend --rate 5000 --seconds 5 --rounds 3
//!     cargo bench --bench logins -- users --count 1000000 --seconds 5
//!
//! `backend`: p99 of a flow, in turn without logins and beside 1,000 CONNECTs a second whose back-end over HTTP is quick,
//! slow (2 s), wrong (500) or not there, and beside as many SUBSCRIBEs that wait for one. The broker's only shard has the first
//! core; the last one has the load generator, the back-end and the flood.
//!
//! `users`: for each kind of hash, how long the broker takes to start with a file of so many users, the memory that they
//! take, CONNECTs a second of users who have not been there before and of those who have, and what becomes of somebody who
//! guesses. The hashes are computed beside the shard, on half of the cores.
//!
//! Needs `taskset` and a machine that does nothing else.
#![allow(clippy::unwrap_used, reason = "a bench ends at a surprise")]

#[path = "../tests/auth/backend.rs"]
#[allow(dead_code, reason = "a bench uses its part")]
mod backend;
#[path = "../tests/common/mod.rs"]
mod common;

use backend::{Asked, Backend, Reply, say};
use common::{Broker, DRIVERS, Driver, Login};
use ringmq::codec::{
    Filters, Packet, PacketId, Properties, ReasonCode, Subscribe, SubscribeOptions, Version,
};
use ringmq::io::{available_cores, lower_priority, pin_to_core, raise_open_files};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is asked for.
struct Wanted {
    driver: Driver,
    /// Messages a second of the flow.
    rate: u32,
    /// Logins a second of the flood.
    logins: u32,
    seconds: f64,
    rounds: usize,
    /// Users of the file.
    count: usize,
}

/// The password of everybody here.
const PASSWORD: &str = "secret";
/// A hash of it that costs next to nothing.
const CHEAP: &str = "$6$v0a2bcwCEEOCgW2z$wetQDcuUg0oUJ61iygRQ/eP2vxZOFE6EW0a2yviKG9rGRi7T340ddTLOFi8iONmdXGIJt9u9uag/P9hg2suUVg==";

fn main() {
    let mut wanted =
        Wanted { driver: DRIVERS[0], rate: 5_000, logins: 1_000, seconds: 5.0, rounds: 3, count: 1_000_000 };
    let mut what = None;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} takes a value"));
        match arg.as_str() {
            "--rate" => wanted.rate = value().parse().unwrap(),
            "--logins" => wanted.logins = value().parse().unwrap(),
            "--seconds" => wanted.seconds = value().parse().unwrap(),
            "--rounds" => wanted.rounds = value().parse().unwrap(),
            "--count" => wanted.count = value().parse().unwrap(),
            "--io" => wanted.driver = if value() == "epoll" { Driver::Epoll } else { Driver::Uring },
            "backend" | "users" => what = Some(arg),
            // Of `cargo bench NAME`: it is for others.
            _ => return,
        }
    }
    let folder = std::env::temp_dir().join(format!("ringmq-logins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    raise_open_files();
    match what.as_deref() {
        Some("backend") => beside_a_flow(&wanted, &folder),
        Some("users") => many_users(&wanted, &folder),
        _ => eprintln!("expected `backend` or `users`, see the head of benches/logins.rs"),
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// What comes beside the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    Nothing,
    /// CONNECTs that a back-end judges.
    Logins(Told),
    /// SUBSCRIBEs, of clients that were let in, that one judges.
    Rights(Told),
}

/// How the back-end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    AtOnce,
    Late,
    Wrong,
    NotThere,
}

const CASES: [(&str, Beside); 9] = [
    ("nothing", Beside::Nothing),
    ("logins, 200 at once", Beside::Logins(Told::AtOnce)),
    ("logins, 200 after 2 s", Beside::Logins(Told::Late)),
    ("logins, 500", Beside::Logins(Told::Wrong)),
    ("logins, nothing listens", Beside::Logins(Told::NotThere)),
    ("rights, 200 at once", Beside::Rights(Told::AtOnce)),
    ("rights, 200 after 2 s", Beside::Rights(Told::Late)),
    ("rights, 500", Beside::Rights(Told::Wrong)),
    ("rights, nothing listens", Beside::Rights(Told::NotThere)),
];

fn answer(told: Told) -> Reply {
    match told {
        Told::AtOnce => say(200),
        Told::Late => {
            std::thread::sleep(Duration::from_secs(2));
            say(200)
        }
        Told::Wrong | Told::NotThere => say(500),
    }
}

/// What a case measured.
#[derive(Default)]
struct Row {
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    /// Of all rounds.
    flood: Flooded,
}

fn beside_a_flow(wanted: &Wanted, folder: &Path) {
    let users = folder.join("users");
    std::fs::write(&users, format!("flow:{CHEAP}\nguest:{CHEAP}\n")).unwrap();
    let acl = folder.join("acl.toml");
    std::fs::write(&acl, "[[rule]]\nallow = \"all\"\nuser = \"flow\"\n").unwrap();
    let mut rows: Vec<Row> = CASES.iter().map(|_| Row::default()).collect();
    for round in 0..wanted.rounds {
        for at in 0..CASES.len() {
            // Each first in turn.
            let at = (at + round) % CASES.len();
            one_case(wanted, CASES[at], &mut rows[at], folder);
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    let idle_us = median(&rows[0].p99_us);
    println!(
        "{}, {} msg/s, QoS 1, beside {} a second; medians of {} x {} s",
        wanted.driver, wanted.rate, wanted.logins, wanted.rounds, wanted.seconds
    );
    println!("{:26} {:>8} {:>8} {:>6}  what became of them", "beside it", "p50 us", "p99 us", "ratio");
    for ((name, _), row) in CASES.iter().zip(&rows) {
        let (p50_us, p99_us) = (median(&row.p50_us), median(&row.p99_us));
        println!("{name:26} {p50_us:8.0} {p99_us:8.0} {:6.2}  {}", p99_us / idle_us, row.flood);
    }
}

fn one_case(wanted: &Wanted, (name, beside): (&str, Beside), row: &mut Row, folder: &Path) {
    let core = *available_cores().last().unwrap();
    let told = match beside {
        Beside::Nothing => Told::AtOnce,
        Beside::Logins(told) | Beside::Rights(told) => told,
    };
    let backend = Backend::start(move |_: &Asked| answer(told));
    // Nothing listens on port 1.
    let url = if told == Told::NotThere { "http://127.0.0.1:1/".to_owned() } else { backend.url("/") };
    let path = |file: &str| folder.join(file).display().to_string();
    let (users, acl) = (path("users"), path("acl.toml"));
    let mut settings = vec![("broker.pin", "true"), ("auth.password_file", &*users)];
    match beside {
        Beside::Nothing => {}
        Beside::Logins(_) => settings.push(("auth.http_auth_url", &url)),
        Beside::Rights(_) => settings.extend([("auth.http_acl_url", &*url), ("auth.acl_file", &*acl)]),
    }
    let broker = Broker::start(wanted.driver, 1, &settings);
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = (beside != Beside::Nothing)
        .then(|| start_flood(broker.addr(), beside, wanted.logins, core, stop.clone()));
    let file = folder.join("p2p.json");
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), env!("CARGO_BIN_EXE_ringmq"), "bench", "p2p", "--quiet"]);
    command.args(["-h", &broker.addr().to_string(), "--pubs", "20", "-q", "1"]);
    command.args(["-u", "flow", "-P", PASSWORD, "-r", &wanted.rate.to_string()]);
    let run = command.args(["-d", &wanted.seconds.to_string(), "--json"]).arg(&file).output().unwrap();
    stop.store(true, Ordering::Relaxed);
    let flood = flooding.map_or_else(Flooded::default, |flooding| flooding.join().unwrap());
    assert!(run.status.success(), "{run:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let of = |part: &str, name: &str| report["latency"][part][name].as_f64().unwrap_or_default();
    row.p50_us.push(of("publish_to_delivery", "p50_us"));
    row.p99_us.push(of("publish_to_delivery", "p99_us"));
    eprintln!(
        "{name:26} p50 {:.0} us, p99 {:.0} us, generator p99 {:.0} us late, {flood}",
        row.p50_us.last().unwrap(),
        row.p99_us.last().unwrap(),
        of("generator_lag", "p99_us"),
    );
    row.flood.add(&flood);
    broker.stop();
}

/// What became of those of a flood.
#[derive(Default, Debug)]
struct Flooded {
    sent: u64,
    /// By code of the answer.
    codes: BTreeMap<u8, u64>,
}

impl Flooded {
    fn add(&mut self, other: &Flooded) {
        self.sent += other.sent;
        for (code, count) in &other.codes {
            *self.codes.entry(*code).or_default() += count;
        }
    }
}

impl std::fmt::Display for Flooded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent", self.sent)?;
        for (code, count) in &self.codes {
            write!(f, ", {count} x {}", ReasonCode(*code))?;
        }
        let answered: u64 = self.codes.values().sum();
        write!(f, ", {} not answered yet", self.sent - answered.min(self.sent))
    }
}

/// Sends one CONNECT after the other, at this rate, until it is told to stop.
fn start_flood(
    to: SocketAddr,
    beside: Beside,
    per_s: u32,
    core: usize,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Flooded> {
    std::thread::spawn(move || {
        pin_to_core(core).unwrap();
        lower_priority(19).unwrap();
        let (began, mut flooded) = (Instant::now(), Flooded::default());
        let mut open: VecDeque<Waiting> = VecDeque::new();
        while !stop.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_secs_f64() * f64::from(per_s)) as u64;
            if flooded.sent < due {
                open.push_back(Waiting::dial(to, beside, flooded.sent));
                flooded.sent += 1;
            } else {
                std::thread::sleep(Duration::from_micros(200));
            }
            // A few in turn: those that wait for long cost each turn no more than this.
            for _ in 0..open.len().min(16) {
                let Some(mut waiting) = open.pop_front() else { break };
                match waiting.answer() {
                    None => open.push_back(waiting),
                    Some(code) => *flooded.codes.entry(code).or_default() += 1,
                }
            }
        }
        flooded
    })
}

/// A client whose last answer has not come.
struct Waiting {
    stream: TcpStream,
    rights: bool,
    came: Vec<u8>,
}

impl Waiting {
    fn dial(to: SocketAddr, beside: Beside, number: u64) -> Waiting {
        let rights = matches!(beside, Beside::Rights(_));
        // Whoever is to subscribe is let in by the file; the others are unknown to it.
        let user = if rights { "guest".to_owned() } else { format!("user-{number}") };
        let login = Login::new(Version::V5, &format!("flood-{number}")).user(&user, PASSWORD);
        let mut words = login.bytes();
        if rights {
            let topic = format!("asked/{number}");
            let filters = [(&*topic, SubscribeOptions::default())];
            let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
            let filters = Filters::new(&filters);
            Packet::Subscribe(Subscribe { packet_id, properties, filters }).encode(Version::V5, &mut words);
        }
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&words).unwrap();
        stream.set_nonblocking(true).unwrap();
        Waiting { stream, rights, came: Vec::new() }
    }

    /// The code of CONNACK, or of SUBACK behind one that lets in; 0x80 where the connection ended without.
    fn answer(&mut self) -> Option<u8> {
        let mut bytes = [0; 512];
        let ended = match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.came.extend_from_slice(&bytes[..count]);
                count == 0
            }
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        let connack = self.came.get(3).copied();
        // CONNACK is short, so its length is one byte.
        let behind = self
            .came
            .get(1)
            .map_or(&[][..], |len| self.came.get(2 + usize::from(*len)..).unwrap_or_default());
        let code = match connack {
            Some(0) if self.rights => behind.last().copied(),
            code => code,
        };
        code.or(ended.then_some(0x80))
    }
}

/// A hash of [`PASSWORD`], and what it is.
const HASHES: [(&str, &str); 6] = [
    ("salted SHA-512 ($6$)", CHEAP),
    (
        "PBKDF2-SHA512, 101 rounds ($7$)",
        "$7$101$fAmmIZRX1dvJYKFm$PBNtR5HxvjjiiGh213UZqQby72Z3TlvaDfVStfaiPCcq3Dxyi330EKPBZ9+uxWBpm/OJ/GclujuMfr6lbzIs0Q==",
    ),
    (
        "PBKDF2-SHA256, 1,000 rounds",
        "$pbkdf2-sha256$1000$RKi11roXYsxZq3UuJWQMYQ$F3mnqldEiziLaf488ixJXxTTFZuutiLsl2SPOp6n3Fc",
    ),
    ("bcrypt, cost 4", "$2b$04$7dGTs8eSA5BNgg/kWzAETOgYrWvjGBY7Q214xjOhWx86Jqq7eV43y"),
    (
        "Argon2id, 64 KiB",
        "$argon2id$v=19$m=64,t=1,p=1$idqekwfHFZ8MW42O+4c6Hg$5sidGlwSscZjrJGKKhLHZw3adEiHrWhlnQsQYFgyN1U",
    ),
    ("Argon2id, as ringmq passwd", ""),
];

fn many_users(wanted: &Wanted, folder: &Path) {
    let settings = [("broker.pin", "true")];
    let (start_s, without_kib, broker) = started(wanted, &settings);
    broker.stop();
    println!("{}, {} users; without a file: started in {start_s:.2} s", wanted.driver, wanted.count);
    println!(
        "{:32} {:>8} {:>10} {:>12} {:>12} {:>14} {:>10}",
        "hash", "start s", "bytes/user", "new/s", "known/s", "guesses/s", "held off"
    );
    for (name, hash) in HASHES {
        let made;
        let hash = match hash {
            "" => {
                made = ringmq::auth::hash::hash(PASSWORD.as_bytes()).unwrap();
                &*made
            }
            hash => hash,
        };
        let file = users_file(folder, wanted.count, hash);
        let file = file.display().to_string();
        let all = [settings[0], ("auth.password_file", &*file)];
        let (start_s, kib, broker) = started(wanted, &all);
        let bytes = (kib - without_kib) * 1_024.0 / wanted.count as f64;
        // Spread over the file.
        let user = |n: u64| format!("user-{}", n.wrapping_mul(7_919) % wanted.count as u64);
        let (new, count, _) = logins(&broker, wanted.seconds, |n| (user(n), PASSWORD));
        let (known, ..) = logins(&broker, wanted.seconds, |n| (user(n % count.max(1)), PASSWORD));
        let (guesses, guessed, held) = logins(&broker, wanted.seconds, |_| ("user-0".to_owned(), "guess"));
        let held = 100.0 * held as f64 / guessed.max(1) as f64;
        println!("{name:32} {start_s:8.2} {bytes:10.0} {new:12.0} {known:12.0} {guesses:14.0} {held:9.1}%");
        broker.stop();
    }
}

fn users_file(folder: &Path, count: usize, hash: &str) -> PathBuf {
    let mut text = String::with_capacity(count * (hash.len() + 16));
    for n in 0..count {
        let _ = writeln!(text, "user-{n}:{hash}");
    }
    let file = folder.join("users");
    std::fs::write(&file, text).unwrap();
    file
}

/// A broker, the seconds until it served, and its resident memory in KiB then.
fn started(wanted: &Wanted, settings: &[(&str, &str)]) -> (f64, f64, Broker) {
    let began = Instant::now();
    let broker = Broker::start(wanted.driver, 1, settings);
    let start_s = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    (start_s, kib, broker)
}

/// Clients that log in at a time.
const AT_A_TIME: u64 = 16;

/// Logs in for some seconds: logins a second, how many there were, and how many were held off.
fn logins(
    broker: &Broker,
    seconds: f64,
    who: impl Fn(u64) -> (String, &'static str) + Sync,
) -> (f64, u64, u64) {
    let began = Instant::now();
    let one = |lane: u64| {
        let (mut count, mut held) = (0, 0);
        while began.elapsed().as_secs_f64() < seconds {
            let number = lane + AT_A_TIME * count;
            let (user, password) = who(number);
            let login = Login::new(Version::V5, &format!("c-{lane}")).user(&user, password);
            let mut stream = TcpStream::connect(broker.addr()).unwrap();
            stream.write_all(&login.bytes()).unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            count += 1;
            held += u64::from(head[3] == ReasonCode::CONNECTION_RATE_EXCEEDED.0);
        }
        (count, held)
    };
    let (count, held) = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_A_TIME).map(|lane| scope.spawn(move || one(lane))).collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    (count as f64 / began.elapsed().as_secs_f64(), count, held)
}
