//! What a flood of ClientHellos costs those who publish: p99 of a flow over plain TCP, in turn without a flood and with
//! each kind of it, and beside these with as many connections that bring no TLS.
//!
//!     cargo bench --bench handshakes -- --rate 5000 --seconds 3 --rounds 3
//!
//! The broker's only shard has the first core. The last one has the load generator and, with what that leaves over, the
//! flood, which opens connections as fast as it can, says the same ClientHello on each, and closes it when it was
//! answered or when [`OPEN_MAX`] are open. Needs `openssl`, `taskset` and a machine that does nothing else.
#![allow(clippy::unwrap_used, reason = "a bench ends at a surprise")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Broker, DRIVERS, Driver, Http};
use ringmq::io::{available_cores, pin_to_core, run_when_idle};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections of a flood that are open at a time.
const OPEN_MAX: usize = 8_000;

/// Floods: the row's name, the listener and what is said to it. The first one is none.
struct Flood {
    name: &'static str,
    to: Option<SocketAddr>,
    words: Vec<u8>,
}

/// What a row measured.
#[derive(Default)]
struct Row {
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    /// Connections of the flood, and those that were answered, in a second.
    opened: Vec<f64>,
    answered: Vec<f64>,
}

fn main() {
    let (mut rate, mut seconds, mut rounds) = (5_000, 3.0, 3);
    let mut driver = DRIVERS[0];
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} takes a value"));
        match arg.as_str() {
            "--rate" => rate = value().parse().unwrap(),
            "--seconds" => seconds = value().parse().unwrap(),
            "--rounds" => rounds = value().parse().unwrap(),
            "--io" => driver = if value() == "epoll" { Driver::Epoll } else { Driver::Uring },
            // Of `cargo bench NAME`: it is for others.
            _ => return,
        }
    }
    let folder = std::env::temp_dir().join(format!("ringmq-handshakes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let broker = serve(driver, &folder);
    let floods = floods(&broker);
    let mut rows: Vec<Row> = floods.iter().map(|_| Row::default()).collect();
    for round in 0..rounds {
        for at in 0..floods.len() {
            // Each first in turn.
            let at = (at + round) % floods.len();
            measure(&broker, &floods[at], &mut rows[at], rate, seconds, &folder);
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    let idle_us = median(&rows[0].p99_us);
    println!("{driver}, {rate} msg/s, QoS 1; medians of {rounds} x {seconds} s");
    println!(
        "{:28} {:>9} {:>9} {:>7} {:>10} {:>10}",
        "flood", "p50 us", "p99 us", "ratio", "opened/s", "answered/s"
    );
    for (flood, row) in floods.iter().zip(&rows) {
        let p99_us = median(&row.p99_us);
        let (p50_us, ratio) = (median(&row.p50_us), p99_us / idle_us);
        let (opened, answered) = (median(&row.opened), median(&row.answered));
        println!("{:28} {p50_us:9.0} {p99_us:9.0} {ratio:7.2} {opened:10.0} {answered:10.0}", flood.name);
    }
    broker.stop();
    let _ = std::fs::remove_dir_all(&folder);
}

/// A broker with one shard and two listeners for TLS, one for each kind of key.
fn serve(driver: Driver, folder: &Path) -> Broker {
    let mut settings = vec![("broker.pin".to_owned(), "true".to_owned())];
    for (name, kind) in [("ecdsa", "ec"), ("rsa", "rsa:2048")] {
        let [chain, key] = ["chain", "key"].map(|file| folder.join(format!("{name}-{file}.pem")));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", kind]);
        if kind == "ec" {
            openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        }
        let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let values = [("kind", "tls"), ("bind", "127.0.0.1:0")].map(|(key, value)| (key, value.to_owned()));
        let files =
            [("certificate", &chain), ("key", &key)].map(|(key, file)| (key, file.display().to_string()));
        settings.extend(
            values.into_iter().chain(files).map(|(key, value)| (format!("listeners.{name}.{key}"), value)),
        );
    }
    let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Broker::start_http(driver, 1, &settings)
}

fn floods(broker: &Broker) -> Vec<Flood> {
    let told = Http::of(broker).json("/api/v4/listeners");
    let rows = told["data"][0]["listeners"].as_array().unwrap();
    let at = |name| rows.iter().find(|row| row["name"] == name).unwrap()["listen_on"].as_str().unwrap();
    let at = |name| Some(at(name).parse().unwrap());
    vec![
        Flood { name: "none", to: None, words: Vec::new() },
        Flood { name: "half a CONNECT, TCP", to: Some(broker.addr()), words: vec![0x10, 200, 0, 4] },
        Flood { name: "ClientHello 1.3, ECDSA P-256", to: at("ecdsa"), words: hello(&version::TLS13) },
        Flood { name: "ClientHello 1.2, ECDSA P-256", to: at("ecdsa"), words: hello(&version::TLS12) },
        Flood { name: "ClientHello 1.3, RSA-2048", to: at("rsa"), words: hello(&version::TLS13) },
        Flood { name: "ClientHello 1.2, RSA-2048", to: at("rsa"), words: hello(&version::TLS12) },
    ]
}

/// The first words of a client.
fn hello(version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut words = Vec::new();
    client.write_tls(&mut words).unwrap();
    words
}

fn measure(broker: &Broker, flood: &Flood, row: &mut Row, rate: u32, seconds: f64, folder: &Path) {
    let core = *available_cores().last().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = flood.to.map(|to| start_flood(to, flood.words.clone(), core, stop.clone()));
    let file = folder.join("p2p.json");
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), env!("CARGO_BIN_EXE_ringmq"), "bench", "p2p", "--quiet"]);
    command.args(["-h", &broker.addr().to_string(), "--pubs", "20", "-q", "1", "-r", &rate.to_string()]);
    let run = command.args(["-d", &seconds.to_string(), "--json"]).arg(&file).output().unwrap();
    stop.store(true, Ordering::Relaxed);
    let (opened, answered) = flooding.map_or((0.0, 0.0), |flooding| flooding.join().unwrap());
    // What a flood leaves behind is not the next row's.
    let open = || Http::of(broker).json("/api/v4/nodes")["data"][0]["connections"].as_u64().unwrap();
    while open() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(run.status.success(), "{run:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let latency = &report["latency"]["publish_to_delivery"];
    row.p50_us.push(latency["p50_us"].as_f64().unwrap());
    row.p99_us.push(latency["p99_us"].as_f64().unwrap());
    row.opened.push(opened);
    row.answered.push(answered);
    let lag_us = report["latency"]["generator_lag"]["p99_us"].as_f64().unwrap_or_default();
    eprintln!(
        "{:28} p50 {:.0} us, p99 {:.0} us, generator p99 {lag_us:.0} us late, {opened:.0} opened/s, {answered:.0} answered/s",
        flood.name,
        row.p50_us.last().unwrap(),
        row.p99_us.last().unwrap(),
    );
}

/// Opens connections until it is told to stop; how many in a second, and how many of them were answered.
fn start_flood(to: SocketAddr, words: Vec<u8>, core: usize, stop: Arc<AtomicBool>) -> JoinHandle<(f64, f64)> {
    std::thread::spawn(move || {
        pin_to_core(core).unwrap();
        run_when_idle().unwrap();
        let (began, mut opened, mut answered) = (Instant::now(), 0u64, 0u64);
        let mut open = VecDeque::new();
        while !stop.load(Ordering::Relaxed) {
            match dial(to, &words) {
                Some(stream) => {
                    open.push_back(stream);
                    opened += 1;
                }
                // The broker's queue is full.
                None => std::thread::sleep(Duration::from_micros(100)),
            }
            while let Some(stream) = open.front_mut() {
                let came = stream.read(&mut [0; 4_096]).is_ok();
                if !came && open.len() < OPEN_MAX {
                    break;
                }
                answered += u64::from(came);
                open.pop_front();
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        (opened as f64 / seconds, answered as f64 / seconds)
    })
}

/// A connection on which this was said; closed by a reset, so that it leaves nothing behind.
fn dial(to: SocketAddr, words: &[u8]) -> Option<TcpStream> {
    let SocketAddr::V4(to) = to else { panic!("an address of IPv4") };
    let there = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let (linger, size) = (libc::linger { l_onoff: 1, l_linger: 0 }, size_of::<libc::linger>() as u32);
    // SAFETY: a new socket that nobody else knows, given to calls with values that live through them.
    let mut stream = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let socket = libc::socket(libc::AF_INET, kind, 0);
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size);
        // Over loopback it is done when this returns, though it says that it is under way.
        libc::connect(socket, (&raw const there).cast(), size_of::<libc::sockaddr_in>() as u32);
        TcpStream::from_raw_fd(socket)
    };
    stream.write_all(words).ok()?;
    Some(stream)
}
