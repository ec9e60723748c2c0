//! The real binary as a process.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the broker under test talks to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Driver {
    /// `epoll`.
    Epoll,
    /// `io_uring`.
    Uring,
}

/// The drivers that every test runs on.
pub const DRIVERS: &[Driver] = &[Driver::Uring, Driver::Epoll];

/// The binary of this package.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ringmq");
/// Time to start, far above what it takes.
const START: Duration = Duration::from_secs(60);
/// Time to drain and end.
const END: Duration = Duration::from_secs(30);
/// Lines of the log that are kept for the message of a failure.
const LINES_KEPT: usize = 200;

impl Driver {
    /// As `broker.io` has it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::Uring => "uring",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running broker; it ends when this is dropped.
pub struct Broker {
    child: Child,
    addr: SocketAddr,
    http: Option<SocketAddr>,
    shards: usize,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    ended: bool,
}

impl Broker {
    /// Starts one on a free port of 127.0.0.1, without HTTP and not pinned to cores, for tests run side by side;
    /// `settings` are keys of the configuration and their values. Returns once it serves.
    pub fn start(driver: Driver, shards: usize, settings: &[(&str, &str)]) -> Broker {
        Broker::start_with(driver, shards, &["--http", "off"], settings)
    }

    /// As [`Broker::start`], with HTTP on a free port of 127.0.0.1.
    pub fn start_http(driver: Driver, shards: usize, settings: &[(&str, &str)]) -> Broker {
        Broker::start_with(driver, shards, &["--http", "127.0.0.1:0"], settings)
    }

    /// As [`Broker::start_http`], with a configuration file.
    pub fn start_from(driver: Driver, shards: usize, file: &Path, settings: &[(&str, &str)]) -> Broker {
        let file = file.to_str().expect("a path in UTF-8");
        Broker::start_with(driver, shards, &["--http", "127.0.0.1:0", "--config", file], settings)
    }

    /// As [`Broker::start`], by a command line that becomes the program whose path and arguments follow it.
    pub fn start_under(
        wrapper: &[String],
        driver: Driver,
        shards: usize,
        settings: &[(&str, &str)],
    ) -> Broker {
        let (first, rest) = wrapper.split_first().expect("a command line");
        let mut command = Command::new(first);
        command.args(rest).arg(PROGRAM);
        Broker::launch(command, driver, shards, &["--http", "off"], settings)
    }

    fn start_with(driver: Driver, shards: usize, more: &[&str], settings: &[(&str, &str)]) -> Broker {
        Broker::launch(Command::new(PROGRAM), driver, shards, more, settings)
    }

    fn launch(
        mut command: Command,
        driver: Driver,
        shards: usize,
        more: &[&str],
        settings: &[(&str, &str)],
    ) -> Broker {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGMQ_") {
                command.env_remove(name);
            }
        }
        command.args(["--mqtt", "127.0.0.1:0"]).args(more);
        command.args(["--io", driver.name(), "--shards", &shards.to_string()]);
        // What the broker publishes itself would come between what a test expects.
        let usual = [
            ("broker.pin", "false"),
            ("log.level", "info"),
            ("sys.interval_s", "0"),
            // Its store would be in the working directory, for one broker alone.
            ("broker.durability", "off"),
        ];
        let chosen = |name| settings.iter().any(|(key, _)| *key == name);
        for (key, value) in settings.iter().chain(usual.iter().filter(|(key, _)| !chosen(*key))) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} can be started: {error}"));
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (serves, served) = channel();
        let stderr = child.stderr.take().expect("stderr is piped");
        let reader = std::thread::spawn({
            let log = log.clone();
            move || follow(stderr, &log, &serves)
        });
        let (addr, http) = match served.recv_timeout(START) {
            Ok(addrs) => addrs,
            Err(error) => {
                let _ = child.kill();
                let status = child.wait();
                let lines = lines(&log);
                panic!(
                    "the broker ({driver}, {shards} shards) did not start ({error}, {status:?}):\n{lines}"
                );
            }
        };
        Broker { child, addr, http, shards, log, reader: Some(reader), ended: false }
    }

    /// Where it serves MQTT.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it serves HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http.expect("it was started with HTTP")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many shards it has.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        lines(&self.log)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal: `TERM`, `INT`, `HUP`.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("sh").args(["-c", "kill -$0 $1", name, &self.pid().to_string()]).status();
        let sent = kill.is_ok_and(|status| status.success());
        assert!(sent || std::thread::panicking(), "SIG{name} could not be sent\n{}", self.log());
    }

    /// Ends it by SIGTERM and asserts that it drained and ended with success.
    pub fn stop(mut self) {
        assert!(self.runs(), "the broker ended by itself:\n{}", self.log());
        self.signal("TERM");
        let status = self.wait(END);
        assert!(status.is_some_and(|status| status.success()), "it ended with {status:?}:\n{}", self.log());
        let log = self.log();
        assert!(!log.contains("panicked at"), "a thread of the broker panicked:\n{log}");
    }

    /// Waits until it has ended by itself or by a signal; `None` when it did not.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.ended = true;
                    if let Some(reader) = self.reader.take() {
                        let _ = reader.join();
                    }
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.ended && self.runs() {
            // Also after a failure: the log then ends with what was dropped, and why.
            self.signal("TERM");
            let within = if std::thread::panicking() { END / 4 } else { END };
            if self.wait(within).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("the log of the broker:\n{}", self.log());
        }
    }
}

fn lines(log: &Mutex<VecDeque<String>>) -> String {
    let log = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    log.iter().map(|line| format!("  | {line}\n")).collect()
}

/// Keeps the log's last lines, and tells the address once it is there.
fn follow(
    stderr: ChildStderr,
    log: &Mutex<VecDeque<String>>,
    serves: &Sender<(SocketAddr, Option<SocketAddr>)>,
) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let served = served_at(&line, "mqtt=").map(|addr| (addr, served_at(&line, "http=")));
        let mut kept = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if kept.len() == LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
        drop(kept);
        if let Some(served) = served {
            let _ = serves.send(served);
        }
    }
}

/// `… is serving … mqtt="127.0.0.1:41234" …`
fn served_at(line: &str, name: &str) -> Option<SocketAddr> {
    if !line.contains("is serving") {
        return None;
    }
    let (_, value) = line.split_once(name)?;
    let value = value.trim_start_matches('"');
    let end = value.find(|c: char| c == '"' || c == ',' || c.is_whitespace()).unwrap_or(value.len());
    value.get(..end)?.parse().ok()
}
