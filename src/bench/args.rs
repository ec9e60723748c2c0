//! The arguments of `ringmq bench`, named as in emqtt-bench and mqttx bench where they have them.

use super::dial::DialArgs;
use clap::{ArgAction, Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scenario {
    /// Opens connections and holds them.
    Conn,
    /// Publishes; nobody subscribes.
    Pub,
    /// Subscribes and counts what comes; stamped messages of another `ringmq bench` are checked.
    Sub,
    /// Each publisher to a subscriber of its own.
    P2p,
    /// Many publishers, each with a topic of its own, to few subscribers with a wildcard.
    Fanin,
    /// Every message to every subscriber.
    Fanout,
    /// The subscribers share one subscription.
    Shared,
    /// Stores retained messages (as many as --limit, default 10,000), then subscribes to all of them.
    Retain,
    /// Persistent subscribers are cut off at once while messages come, and all come back at once.
    Storm,
    /// p2p of QoS 1, fanin of QoS 0, fanout of QoS 1 and shared of QoS 2 at once.
    Mixed,
    /// Starts a broker and holds very many connections to it: everyone subscribes, is pinged, gets messages,
    /// leaves, and comes back at once.
    Million,
}

/// What a closed loop waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Until {
    /// The window counts messages that were not delivered yet.
    Delivered,
    /// The window counts messages that were not acknowledged yet (QoS 0: not handed to the kernel).
    Acked,
}

const EXAMPLES: &str = "\
Examples:
  ringmq bench p2p --pubs 100 -q 1                      100 pairs, as fast as a window of 16 allows
  ringmq bench fanout --subs 1000 --pubs 1 -r 100       100 messages a second to 1,000 subscribers
  ringmq bench conn -c 20000 -R 5000 -d 30              20,000 connections, held for 30 s
  ringmq bench pub -c 100 -I 10 -t 'dev/%i/up' -q 1     each client publishes every 10 ms
  ringmq bench sub -c 10 -t 'dev/+/up' -q 1             and others count and check
  ringmq bench storm --subs 5000 -r 2000                nothing is lost while everybody reconnects
  ringmq bench p2p -r 20000 -q 1 --html report.html     with a page to look at
  ringmq bench conn -c 5000 --ssl --cafile ca.pem       handshakes of TLS, and what idle connections cost
  ringmq bench p2p --ws --ssl --insecure                WebSocket in TLS, whatever the certificate

Exit codes: 0 all checks held; 1 something acknowledged was lost, or a message came twice at QoS 2, out of order,
changed or to the wrong client, or a connection ended that should not have; 2 it could not be set up.";

/// Loads a broker, checks every delivery and measures.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What to do.
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Prints help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// A broker, with or without a port; clients are spread over all that are named.
    #[arg(short = 'h', long, value_name = "HOST[:PORT]", value_delimiter = ',', default_value = "127.0.0.1")]
    pub host: Vec<String>,
    /// The port of those without one [1883; TLS 8883, WebSocket 8083, in TLS 8084].
    #[arg(short = 'p', long)]
    pub port: Option<u16>,
    /// Clients; in scenarios with two sides: those of the side that is many.
    #[arg(short = 'c', long, visible_alias = "clients", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub count: Option<u32>,
    /// Publishers.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pubs: Option<u32>,
    /// Subscribers.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub subs: Option<u32>,
    /// Connects per second; 0: as fast as --pending allows.
    #[arg(short = 'R', long, default_value_t = 0.0, value_name = "PER_S", value_parser = not_negative)]
    pub connrate: f64,
    /// Milliseconds between two connects, another way to say --connrate.
    #[arg(short = 'i', long, value_name = "MS", conflicts_with = "connrate", value_parser = positive)]
    pub interval: Option<f64>,
    /// Connects of one thread that may be under way.
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub pending: u32,
    /// The first client's number, for %i.
    #[arg(short = 'n', long, default_value_t = 0, value_name = "N")]
    pub startnumber: u32,
    /// Topic or filter of `pub` and `sub`, and the prefix of the others' topics; %i is the client's number,
    /// %c its identifier.
    #[arg(short = 't', long)]
    pub topic: Option<String>,
    /// Quality of service of publishers and subscribers.
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Bytes of a payload, at least 26.
    #[arg(short = 's', long, default_value_t = 256, value_name = "BYTES")]
    pub size: usize,
    /// A text as payload; %i, %c and %t (milliseconds since 1970) are replaced, and the stamp stands behind it.
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Without stamps: exactly the text or so many bytes, and deliveries are not checked (`pub` only).
    #[arg(long)]
    pub plain: bool,
    /// With the RETAIN flag (`pub` only).
    #[arg(long)]
    pub retain: bool,
    /// Milliseconds between two messages of a client: an open loop [`pub`: 1000, else a closed loop].
    #[arg(short = 'I', long, visible_alias = "message-interval", value_name = "MS", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    pub interval_of_msg: Option<u32>,
    /// Messages per second of all publishers together: an open loop; latency counts from when a message was due.
    #[arg(short = 'r', long, value_name = "PER_S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Messages of a publisher under way in a closed loop.
    #[arg(short = 'w', long, visible_alias = "inflight", visible_short_alias = 'F', default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub window: u32,
    /// What the window waits for [`pub`: acked, else delivered].
    #[arg(long, value_enum)]
    pub until: Option<Until>,
    /// 3.1, 3.1.1 or 5 (3, 4 and 5 mean the same).
    #[arg(short = 'V', long, visible_alias = "mqtt-version", default_value = "5", value_parser = ["3.1", "3.1.1", "5", "3", "4", "5.0"])]
    pub version: String,
    /// Keep alive in seconds; 0: off.
    #[arg(short = 'k', long, default_value_t = 300)]
    pub keepalive: u16,
    /// Clean start [`storm`: false for its subscribers].
    #[arg(short = 'C', long, default_value_t = true, action = ArgAction::Set)]
    pub clean: bool,
    /// As --clean=false.
    #[arg(long, conflicts_with = "clean")]
    pub no_clean: bool,
    /// Session expiry interval of 5.0 [0; without clean start 300].
    #[arg(short = 'x', long, visible_alias = "session-expiry-interval", value_name = "SECONDS")]
    pub session_expiry: Option<u32>,
    /// User name; %i and %c are replaced.
    #[arg(short = 'u', long)]
    pub username: Option<String>,
    /// Password.
    #[arg(short = 'P', long)]
    pub password: Option<String>,
    /// Identifiers of clients, with %i [ringmq-bench-<run>-%i].
    #[arg(long, value_name = "TEMPLATE")]
    pub client_id: Option<String>,
    /// The identifiers' beginning, with the client's number behind it: as --client-id TEXT-%i.
    #[arg(long, value_name = "TEXT", conflicts_with = "client_id")]
    pub prefix: Option<String>,
    /// Stops after so many messages in all; 0: by time.
    #[arg(short = 'L', long, default_value_t = 0, value_name = "MESSAGES")]
    pub limit: u64,
    /// Seconds that are measured [10; `million`: 60].
    #[arg(short = 'd', long, value_name = "SECONDS", value_parser = positive)]
    pub duration: Option<f64>,
    /// Seconds of load before that [1; with --limit 0].
    #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
    pub warmup: Option<f64>,
    /// Seconds without progress after which what has not come is lost.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS", value_parser = positive)]
    pub drain: f64,
    /// Seconds for a connect and its subscription.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_timeout: u32,
    /// A lost connection stays lost.
    #[arg(long)]
    pub no_reconnect: bool,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Cores of the threads, one after the other.
    #[arg(long, value_delimiter = ',', value_name = "CORES")]
    pub pin: Vec<usize>,
    /// Never sleeps: exact in an open loop, where the generator has a core to itself.
    #[arg(long)]
    pub spin: bool,
    /// How to talk to the kernel: auto, uring or epoll.
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    pub io: String,
    /// Source addresses, taken in turn.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES", conflicts_with = "sources")]
    pub ifaddr: Vec<IpAddr>,
    /// Source addresses 127.0.0.1 to 127.0.0.N [one for each 5,000 connections to 127.0.0.0/8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sources: Option<u8>,
    /// The broker's process, for its CPU and memory.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Writes the report as JSON; `-`: to standard output, in place of the text.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the report as one page with charts.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Without progress.
    #[arg(long)]
    pub quiet: bool,
    /// Threads of the broker that `million` starts.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub shards: u16,
    /// The certificate of the broker that `million` starts, with TLS.
    #[arg(long, value_name = "FILE", requires = "broker_key")]
    pub broker_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "broker_cert")]
    pub broker_key: Option<PathBuf>,
    /// TLS and WebSocket.
    #[command(flatten)]
    pub dial: DialArgs,
}

impl BenchArgs {
    /// The template of the clients' identifiers, where one was given.
    pub fn identifiers(&self) -> Option<String> {
        self.client_id.clone().or_else(|| self.prefix.as_ref().map(|prefix| format!("{prefix}-%i")))
    }

    /// Connects per second; 0: no limit.
    pub fn connects_per_s(&self) -> f64 {
        self.interval.map_or(self.connrate, |ms| 1_000.0 / ms)
    }

    /// Whether sessions begin anew.
    pub fn starts_clean(&self) -> bool {
        self.clean && !self.no_clean
    }

    /// Seconds that are measured.
    pub fn seconds(&self) -> f64 {
        self.duration.unwrap_or(if self.scenario == Scenario::Million { 60.0 } else { 10.0 })
    }
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|n| if n > 0.0 { Ok(n) } else { Err("expected more than 0".to_owned()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
        _ => Err("expected a number, 0 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn read(line: &str) -> BenchArgs {
        Line::try_parse_from(std::iter::once("bench").chain(line.split(' ')))
            .unwrap_or_else(|e| panic!("{e}"))
            .args
    }

    #[test]
    fn names_of_other_load_generators_mean_the_same() {
        let args = read("pub -c 10 -i 5 -n 7 -I 100 -F 4 --prefix dev --no-clean --mqtt-version 4");
        assert_eq!((args.connects_per_s(), args.startnumber, args.interval_of_msg), (200.0, 7, Some(100)));
        assert_eq!((args.window, args.identifiers().as_deref()), (4, Some("dev-%i")));
        assert_eq!((args.starts_clean(), &*args.version), (false, "4"));
        let args = read("sub -R 50 --client-id x%i --clean false --message-interval 9 --inflight 3");
        assert_eq!((args.connects_per_s(), args.identifiers().as_deref()), (50.0, Some("x%i")));
        assert!(!args.starts_clean() && args.interval_of_msg == Some(9) && args.window == 3);
    }
}
