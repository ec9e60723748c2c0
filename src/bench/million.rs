//! `ringmq bench million`: a broker of its own, as many clients as asked for, and what each of them costs.
//!
//! Everybody connects and subscribes to a filter of its own; each sends a PINGREQ; messages go to random clients;
//! everybody leaves; everybody comes back at once. Held connections are counted by the generator, by the kernel
//! (its table of sockets, in which a connection that only waits in a backlog has one accepted end instead of two),
//! and by the broker (its counters when it ends).

use super::args::BenchArgs;
use super::fleet::{Fleet, Waited};
use super::plan::Plan;
use super::run::{Outcome, Run};
use super::usage::{Process, Sockets, held_ends};
use super::worker::Command;
use crate::io::Close;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The group of clients in the plan.
const CLIENTS: usize = 0;
/// The group of publishers.
const PUBLISHERS: usize = 1;
/// Connections that the broker has room for, beside a quarter more than the clients.
const ROOM_MIN: u32 = 8_192;
/// PINGREQs per second while all clients ping.
const PINGS_PER_S: u64 = 50_000;
/// Seconds between the last client and the memory sample.
const REST_S: f64 = 2.0;
/// What begins the rows of the ledger of memory in the broker's log.
const LEDGER: &str = "memory: ";
/// Time for the broker to log it.
const LEDGER_PATIENCE: Duration = Duration::from_secs(30);
/// Difference between the ledger and resident memory that is all right, in percent, where there are so many clients
/// that what is not in the ledger weighs little.
const LEDGER_PERCENT_MAX: f64 = 10.0;
const LEDGER_CLIENTS_MIN: u64 = 500_000;

/// A broker that this process has started.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Reads its log, so that it never waits for us, and returns the line with its counters.
    counters: Option<JoinHandle<String>>,
    /// Lines of its log that tell what it holds in memory.
    ledgers: Receiver<String>,
    address: SocketAddr,
}

impl Broker {
    /// Starts this program as a broker on a free port of 127.0.0.1.
    pub fn start(args: &BenchArgs) -> Result<Broker, String> {
        let fault = |e: &dyn std::fmt::Display| format!("cannot start the broker: {e}");
        let program = std::env::current_exe().map_err(|e| fault(&e))?;
        let shards = args.shards.to_string();
        // Clients do not fall on shards evenly, and a table keeps some head-room.
        let clients = args.subs.or(args.count).unwrap_or(1_000_000);
        let room = format!("broker.max_connections={}", clients / 4 * 5 + ROOM_MIN);
        let mut child = std::process::Command::new(program)
            .args(Broker::listener(args)?)
            .args(["--http", "off", "--log", "debug", "--shards", &shards])
            .args(["--io", &args.io, "--set", &room])
            .args([
                "--set",
                "broker.peer_address=false",
                "--set",
                "broker.backlog=65535",
                "--set",
                "broker.durability=off",
            ])
            .arg("--allow-anonymous")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| fault(&e))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("the broker has no log")?);
        let mut seen = String::new();
        while log.read_line(&mut seen).map_err(|e| fault(&e))? > 0 {
            let last = seen.lines().last().unwrap_or_default();
            if last.contains("is serving") {
                let address = last.split("mqtt=").nth(1).and_then(|rest| {
                    rest.trim_start_matches('"').split(['"', ' ', ',']).next()?.parse().ok()
                });
                let address = address.ok_or_else(|| format!("no address in: {last}"))?;
                let (told, ledgers) = channel();
                let counters = std::thread::spawn(move || {
                    let mut counters = String::new();
                    for line in log.lines().map_while(Result::ok) {
                        if line.contains("all shards:") {
                            counters = line;
                        } else if line.contains(LEDGER) {
                            // Nobody may want to know.
                            let _ = told.send(line);
                        }
                    }
                    counters
                });
                return Ok(Broker { child, counters: Some(counters), ledgers, address });
            }
        }
        let _ = child.wait();
        Err(fault(&seen.trim_end()))
    }

    /// The words that give it the one listener that the clients speak to.
    fn listener(args: &BenchArgs) -> Result<Vec<String>, String> {
        let kind = args.dial.kind();
        let mut words = vec![format!("kind={}", kind.kind()), "bind=127.0.0.1:0".to_owned()];
        match (&args.broker_cert, &args.broker_key) {
            (Some(certificate), Some(key)) if kind.has_tls() => {
                words.push(format!("certificate={}", certificate.display()));
                words.push(format!("key={}", key.display()));
            }
            (None, None) if kind.has_tls() => {
                return Err("million: expected --broker-cert and --broker-key, for the broker that it starts with TLS".to_owned());
            }
            (None, None) => {}
            _ => return Err("--broker-cert: only with TLS (--ssl)".to_owned()),
        }
        if kind.has_websocket() {
            words.push(format!("path={}", args.dial.path));
        }
        Ok(words
            .into_iter()
            .flat_map(|word| ["--set".to_owned(), format!("listeners.bench.{word}")])
            .collect())
    }

    /// Where it serves MQTT.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for its ledger of memory: bytes by row. Empty when it does not answer.
    fn ledger(&self) -> Vec<(String, u64)> {
        let asked = std::process::Command::new("kill").args(["-USR1", &self.pid().to_string()]).status();
        if !asked.is_ok_and(|status| status.success()) {
            return Vec::new();
        }
        let line = self.ledgers.recv_timeout(LEDGER_PATIENCE).unwrap_or_default();
        let rows = line.split(LEDGER).nth(1).and_then(|rows| rows.split(';').next()).unwrap_or_default();
        let row =
            |row: &str| row.split_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
        rows.split_whitespace().filter_map(row).collect()
    }

    /// Ends it and compares what it counted with what the generator did.
    pub fn stop(mut self, plan: &Plan, outcome: &mut Outcome) {
        let told = std::process::Command::new("kill").arg(self.pid().to_string()).status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let counters = self.counters.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let count = |name: &str| {
            let found =
                counters.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
        };
        let clients = u64::from(plan.clients());
        let twice =
            2 * plan.groups[CLIENTS].clients.len() as u64 + plan.groups[PUBLISHERS].clients.len() as u64;
        outcome.extra.push(("broker: clients connected, in all", count("connects") as f64, ""));
        outcome.extra.push(("broker: messages received", count("published.client") as f64, ""));
        outcome.extra.push(("broker: messages delivered", count("delivered.client") as f64, ""));
        let mut check = |what: &str, counted: u64, due: u64| {
            if counted != due {
                outcome
                    .verdict
                    .failures
                    .push(format!("the broker counted {counted} {what} instead of {due}"));
            }
        };
        check("connected clients", count("connects"), twice.max(clients));
        check(
            "published messages",
            count("published.client"),
            outcome.total.published + outcome.total.resent,
        );
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing happens to one that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory and sockets at a moment.
struct Sample {
    broker_kib: u64,
    own_kib: u64,
    sockets: Sockets,
}

impl Sample {
    fn now(fleet: &Fleet) -> Sample {
        let kib = |usage: Option<super::usage::Usage>| usage.map_or(0, |usage| usage.rss_kib);
        Sample {
            broker_kib: kib(fleet.broker_usage()),
            own_kib: kib(Process::own().usage()),
            sockets: Sockets::now(),
        }
    }
}

impl Run<'_> {
    /// The phases of `million`.
    pub fn million(&mut self, fleet: &mut Fleet) -> Result<(), String> {
        let clients = fleet.plan.groups[CLIENTS].clients.len() as u64;
        self.connect(fleet, PUBLISHERS)?;
        let before = Sample::now(fleet);
        let ledger = self.own.map(Broker::ledger).unwrap_or_default();
        let seconds = self.connect(fleet, CLIENTS)?;
        self.extra.push(("connect: until all were subscribed", seconds, "s"));
        self.extra.push(("connect: CONNECT and SUBSCRIBE", clients as f64 / seconds, "/s"));
        fleet.phase("rest", REST_S as u64);
        fleet.run_for(REST_S, |_| false);
        self.weigh(fleet, &before, clients);
        self.compare_ledger(fleet, &before, &ledger, clients);
        self.ping(fleet, clients);
        fleet.tell(|| Command::Publish(true));
        fleet.run_for(1.0, |_| false);
        self.measure(fleet, |_| false);
        self.drain(fleet);
        self.come_back(fleet, clients)
    }

    /// What each client costs, and whether all are there.
    fn weigh(&mut self, fleet: &mut Fleet, before: &Sample, clients: u64) {
        let (tally, _) = fleet.snapshot();
        let now = Sample::now(fleet);
        let publishers = fleet.plan.groups[PUBLISHERS].clients.len() as u64;
        let sockets = now.sockets.tcp_in_use.saturating_sub(before.sockets.tcp_in_use);
        let ports: BTreeSet<u16> = fleet.plan.targets.iter().map(SocketAddr::port).collect();
        let ends = ports.into_iter().map(held_ends).sum::<Option<u64>>();
        let bytes = |now: u64, before: u64| now.saturating_sub(before) as f64 * 1024.0 / clients as f64;
        let held = tally.online - publishers;
        let broker = bytes(now.broker_kib, before.broker_kib);
        let own = bytes(now.own_kib, before.own_kib);
        let slab = bytes(now.sockets.slab_kib, before.sockets.slab_kib);
        let buffers = bytes(now.sockets.tcp_kib, before.sockets.tcp_kib);
        self.extra.extend([
            ("held: by the generator", held as f64, ""),
            ("held: sockets in use, both ends", sockets as f64, ""),
            ("held: accepted, both ends", ends.unwrap_or_default() as f64, ""),
            ("per client: broker, user space", broker, "bytes"),
            ("per client: generator, user space", own, "bytes"),
            ("per client: kernel slab, both ends", slab, "bytes"),
            ("per client: socket buffers", buffers, "bytes"),
            ("per client: all of this", broker + own + slab + buffers, "bytes"),
        ]);
        self.expect("clients are online", held, clients);
        // Others come and go while the kernel's table is read, which may hide a few of ours.
        if let Some(ends) = ends {
            let due = 2 * (clients + publishers);
            self.expect_at_least(
                "accepted ends are in the kernel's table",
                ends,
                due.saturating_sub(due / 1000 + 16),
            );
        }
    }

    /// The broker's own ledger of memory against what it holds more than before its clients came.
    fn compare_ledger(
        &mut self,
        fleet: &Fleet,
        before: &Sample,
        ledger_before: &[(String, u64)],
        clients: u64,
    ) {
        let Some(own) = self.own else { return };
        let now = own.ledger();
        let resident = 1024 * Sample::now(fleet).broker_kib.saturating_sub(before.broker_kib);
        let mut total = 0;
        for (name, bytes) in &now {
            let was = ledger_before.iter().find(|(known, _)| known == name).map_or(0, |(_, bytes)| *bytes);
            let more = bytes.saturating_sub(was);
            let label = if name == "total" { "all rows" } else { name };
            if name == "total" {
                total = more;
            }
            self.ledger.push((format!("ledger, per client: {label}"), more as f64 / clients as f64, "bytes"));
        }
        let percent = 100.0 * (total as f64 - resident as f64) / (resident as f64).max(1.0);
        self.ledger.push(("ledger, against resident memory".to_owned(), percent, "%"));
        if clients >= LEDGER_CLIENTS_MIN && percent.abs() > LEDGER_PERCENT_MAX {
            self.shortfalls.push(format!("the ledger of memory is {percent:+.1} % off resident memory"));
        }
    }

    fn ping(&mut self, fleet: &mut Fleet, clients: u64) {
        let over_ms = clients * 1000 / PINGS_PER_S + 1000;
        fleet.phase("ping", over_ms / 1000);
        fleet.tell(|| Command::Ping(CLIENTS, over_ms));
        let done = |tally: &super::tally::Tally| tally.pinged >= clients;
        fleet.wait_for(self.args.drain, done, |tally| tally.pongs);
        let (tally, _) = fleet.snapshot();
        self.extra.push(("pinged: clients with an answer", tally.pinged as f64, ""));
        self.expect("clients had an answer to their PINGREQ", tally.pinged, clients);
    }

    /// Everybody leaves, and everybody comes back at once.
    fn come_back(&mut self, fleet: &mut Fleet, clients: u64) -> Result<(), String> {
        let publishers = fleet.plan.groups[PUBLISHERS].clients.len() as u64;
        fleet.phase("leave", 1);
        let began = Instant::now();
        fleet.tell(|| Command::Leave(CLIENTS, Close::Flush));
        let patience_s = f64::from(self.args.connect_timeout);
        let waited = fleet.wait_for(patience_s, |tally| tally.open <= publishers, |tally| tally.open);
        self.extra.push(("leave: until all had gone", began.elapsed().as_secs_f64(), "s"));
        if waited == Waited::Stopped {
            return Ok(());
        }
        let before = self.connects;
        let seconds = self.connect(fleet, CLIENTS)?;
        // The rate of connects in the report is that of the first time.
        self.connects = before;
        self.extra.push(("come back: until all were subscribed", seconds, "s"));
        self.extra.push(("come back: CONNECT and SUBSCRIBE", clients as f64 / seconds, "/s"));
        let (tally, _) = fleet.snapshot();
        self.expect("clients are online after they came back", tally.online - publishers, clients);
        Ok(())
    }

    fn expect(&mut self, what: &str, counted: u64, due: u64) {
        if counted != due {
            self.shortfalls.push(format!("{counted} {what} instead of {due}"));
        }
    }

    fn expect_at_least(&mut self, what: &str, counted: u64, due: u64) {
        if counted < due {
            self.shortfalls.push(format!("{counted} {what} instead of {due} or more"));
        }
    }
}
