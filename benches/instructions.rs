//! Instructions, not seconds: what codec, trie, session and a whole tick execute, counted by callgrind.
//!
//! Counts are the same on a busy machine, so they can be compared from change to change. `instructions.json` has
//! those of the last renewal, for one version of rustc, one profile and one Cargo.lock:
//!
//! ```text
//! cargo bench --bench instructions              compares; fails above +3 %
//! BLESS=1 cargo bench --bench instructions      renews
//! ```
//!
//! Another rustc, profile or lock file is no fault: the counts are printed, and the file is to be renewed. It needs
//! `valgrind`. (A library exists for this, `gungraun`; its runner compiles for minutes and this is one file.)

mod support;

use ringmq::codec::{
    AckKind, PacketId, PublishOut, ReasonCode, Version, decode, decode_publish, encode_ack, encode_publish,
};
use ringmq::map::Keyed;
use ringmq::message::QoS;
use ringmq::topic::parse_subscription;
use ringmq::trie::{Matches, Sub, SubOptions, Trie};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use support::packets::{self, PAYLOAD_BYTES};
use support::rig::{Flow, Rig};

/// What is counted: the name, how many things a round does, and what makes ready and returns a round.
type Case = (&'static str, u64, fn() -> Round);

/// All cases. Of a shard, only its ticks count.
const CASES: &[Case] = &[
    ("decode PUBLISH 3.1.1", 100, || decode_publishes(Version::V311)),
    ("decode PUBLISH 5.0", 100, || decode_publishes(Version::V5)),
    ("decode SUBSCRIBE 5.0", 100, decode_subscribes),
    ("encode PUBLISH 3.1.1", 100, || encode_publishes(Version::V311)),
    ("encode PUBLISH 5.0", 100, || encode_publishes(Version::V5)),
    ("encode PUBACK 5.0", 100, encode_pubacks),
    ("match exact, 1,000 filters", 1_000, || matching(1_000, "dev/{}/cmd", "dev/{}/cmd")),
    ("match exact, 100,000 filters", 1_000, || matching(100_000, "dev/{}/cmd", "dev/{}/cmd")),
    ("match plus, 1,000 filters", 1_000, || matching(1_000, "dev/{}/+/state", "dev/{}/door/state")),
    ("match plus, 100,000 filters", 1_000, || matching(100_000, "dev/{}/+/state", "dev/{}/door/state")),
    ("match hash, 100,000 filters", 1_000, || matching(100_000, "dev/{}/#", "dev/{}/door/state")),
    ("subscribe and unsubscribe", 1_000, churn),
    ("tick, p2p 100:100, QoS 0", 1_600, || flow(Flow::pairs(100, QoS::AtMostOnce, 16))),
    ("tick, p2p 100:100, QoS 1", 1_600, || flow(Flow::pairs(100, QoS::AtLeastOnce, 16))),
    ("tick, p2p 100:100, QoS 2", 1_600, || flow(Flow::pairs(100, QoS::ExactlyOnce, 16))),
    ("tick, p2p 1:1, one message", 1, || flow(Flow::pairs(1, QoS::AtLeastOnce, 1))),
    ("tick, fan-out 1:1000, QoS 0", 4_000, || flow(Flow::fan_out(1_000))),
    ("2 shards, p2p 100:100, QoS 1", 1_600, || over(2)),
    ("4 shards, p2p 100:100, QoS 1", 1_600, || over(4)),
    ("8 shards, p2p 100:100, QoS 1", 1_600, || over(8)),
    ("16 shards, p2p 100:100, QoS 1", 1_600, || over(16)),
    ("filters of another shard, exact", 1_000, || heard("dev/{}/cmd")),
    ("filters of another shard, plus", 1_000, || heard("dev/{}/+/state")),
    ("tick, shared 1000:5, QoS 1", 4_000, || flow(Flow::shared(1_000, 5))),
];

/// Growth of a count that fails, in percent.
const GROWTH_PERCENT_MAX: f64 = 3.0;
/// What counts, as callgrind names it: what runs within [`measured`].
const COUNTED: &str = "*instructions*measured*";

/// The counts of the last renewal.
const RENEWED: &str = "benches/instructions.json";

/// One round of a case, which hands what is to be counted to the function that it is given.
type Round = Box<dyn FnMut(fn(&mut dyn FnMut()))>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--case" {
            run(&args.next().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
    }
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(2)
        }
    }
}

/// One case, in the process that callgrind watches.
fn run(name: &str) {
    let (_, _, prepare) = CASES.iter().find(|(case, ..)| *case == name).expect("a case of the table");
    prepare()(measured);
}

#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

/// Instructions of a round.
fn count(name: &str) -> Result<u64, String> {
    let exe = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let out = std::env::temp_dir().join(format!("ringmq-instructions-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no", &format!("--toggle-collect={COUNTED}")]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(exe).args(["--case", name]);
    let ran = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let ran = ran.map_err(|e| format!("valgrind: {e}; install it (apt-get install valgrind)"))?;
    if !ran.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&ran.stderr)));
    }
    let text = std::fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    // It was there a moment ago; a leftover harms nobody.
    let _ = std::fs::remove_file(&out);
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    totals.and_then(|n| n.trim().parse().ok()).ok_or_else(|| format!("{name}: callgrind told no totals"))
}

/// Prints all counts beside the renewed ones; whether none has grown too far.
fn compare() -> Result<bool, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RENEWED);
    let (made_by, known) = read(&std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned()))?;
    let now = made_with()?;
    let same = made_by == now;
    let bless = std::env::var_os("BLESS").is_some();
    let mut counts = BTreeMap::new();
    let mut held = true;
    println!("{:<34} {:>12} {:>12} {:>9}", "instructions", "each", "renewed at", "change");
    for (name, things, _) in CASES {
        let counted = count(name)?;
        counts.insert(*name, counted);
        let each = |n: u64| n as f64 / *things as f64;
        let before = known.get(*name).copied();
        let change = before.map_or(f64::NAN, |before| 100.0 * (counted as f64 / before as f64 - 1.0));
        let grown = same && change > GROWTH_PERCENT_MAX;
        held &= !grown;
        let mark = if grown { "  grown" } else { "" };
        println!(
            "{name:<34} {:>12.1} {:>12.1} {change:>+8.2}%{mark}",
            each(counted),
            before.map_or(f64::NAN, each)
        );
    }
    if bless {
        let renewed = json!({"made_with": now, "instructions": counts});
        std::fs::write(&path, format!("{renewed:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("renewed {}", path.display());
        return Ok(true);
    }
    if !same {
        println!("not compared: {} is of {made_by}, this is {now}; renew it with BLESS=1", path.display());
    } else if !held {
        println!(
            "more than {GROWTH_PERCENT_MAX} % above {}: find out why, or renew it with BLESS=1",
            path.display()
        );
    }
    Ok(held)
}

/// What counts depend on: compiler, profile, and versions of the libraries.
fn made_with() -> Result<String, String> {
    let rustc = Command::new("rustc").arg("--version").output().map_err(|e| format!("rustc: {e}"))?;
    let rustc = String::from_utf8_lossy(&rustc.stdout).trim().to_owned();
    let exe = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let profile = exe.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let mut lock = DefaultHasher::new();
    include_str!("../Cargo.lock").hash(&mut lock);
    Ok(format!("{rustc}, profile {profile}, Cargo.lock {:016x}", lock.finish()))
}

/// What made the renewed counts, and these by name.
fn read(text: &str) -> Result<(String, BTreeMap<String, u64>), String> {
    let known: Value = serde_json::from_str(text).map_err(|e| format!("{RENEWED}: {e}"))?;
    let made_with = known["made_with"].as_str().unwrap_or("nothing").to_owned();
    let counts = known["instructions"].as_object().into_iter().flatten();
    Ok((made_with, counts.filter_map(|(name, n)| Some((name.clone(), n.as_u64()?))).collect()))
}

fn repeat(times: u32, mut one: impl FnMut(u32) + 'static) -> Round {
    Box::new(move |count| count(&mut || (0..times).for_each(&mut one)))
}

fn decode_publishes(version: Version) -> Round {
    let bytes = packets::publish(version, "bench/1/up", QoS::AtLeastOnce, 1, &[b'x'; PAYLOAD_BYTES]);
    repeat(100, move |_| {
        black_box(decode_publish(version, black_box(&bytes)).is_ok());
    })
}

fn decode_subscribes() -> Round {
    let bytes = packets::subscribe(Version::V5, "bench/+/up", QoS::AtLeastOnce);
    repeat(100, move |_| {
        black_box(decode(Version::V5, black_box(&bytes)).is_ok());
    })
}

fn encode_publishes(version: Version) -> Round {
    let mut out = Vec::with_capacity(1_024);
    repeat(100, move |_| {
        let publish = PublishOut {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            packet_id: Some(PacketId::MIN),
            topic: black_box("bench/1/up"),
            alias: None,
            expiry_s: None,
            subscription_ids: &[],
            forward: &[],
            payload: &[b'x'; PAYLOAD_BYTES],
        };
        out.clear();
        encode_publish(&mut out, version, &publish);
        black_box(&out);
    })
}

fn encode_pubacks() -> Round {
    let mut out = Vec::with_capacity(1_024);
    repeat(100, move |_| {
        out.clear();
        encode_ack(&mut out, Version::V5, AckKind::PubAck, black_box(PacketId::MIN), ReasonCode::SUCCESS);
        black_box(&out);
    })
}

fn filled(count: u32, filter: &str) -> Trie {
    let mut trie = Trie::new(0, 1, Keyed::new(1));
    for n in 0..count {
        subscribe(&mut trie, &filter.replace("{}", &n.to_string()), n);
    }
    trie
}

fn subscribe(trie: &mut Trie, filter: &str, session: u32) -> ringmq::trie::SubRef {
    let to = parse_subscription(filter, 0).expect("the filters of this bench are valid");
    trie.subscribe(&to, Sub::new(session, SubOptions::default(), 0)).sub
}

/// 1,000 topics, each with one of `filters` filters; both are patterns with `{}` for the number.
fn matching(filters: u32, filter: &str, topic: &str) -> Round {
    let trie = filled(filters, filter);
    let number = |n: u32| n.wrapping_mul(2_654_435_761) % filters;
    let topics: Vec<String> = (0..1_000).map(|n| topic.replace("{}", &number(n).to_string())).collect();
    let mut found = Matches::default();
    trie.matches(&topics[0], &mut found);
    repeat(1_000, move |n| {
        trie.matches(&topics[n as usize], &mut found);
        assert_eq!(found.routes.len(), 1);
    })
}

fn churn() -> Round {
    let mut trie = filled(10_000, "dev/{}/cmd");
    repeat(1_000, move |n| {
        let sub = subscribe(&mut trie, black_box("dev/of/churn"), n);
        black_box(trie.unsubscribe(sub, n));
    })
}

/// Every message goes from one shard to another; the ticks of all of them count.
fn over(shards: u16) -> Round {
    flow(Flow::pairs(100, QoS::AtLeastOnce, 16).over(shards))
}

/// What a shard spends on a subscription of another one.
fn heard(filter: &'static str) -> Round {
    let mut rig = Rig::new(Flow::pairs(2, QoS::AtMostOnce, 1).over(2));
    Box::new(move |count| rig.storm((0..1_000).map(|n| filter.replace("{}", &n.to_string())), count))
}

fn flow(flow: Flow) -> Round {
    let mut rig = Rig::new(flow);
    Box::new(move |count| {
        rig.round_by(count);
    })
}
