//! The command line: arguments → one function per command.

mod import;
mod operate;
mod passwd;

use clap::{Args, CommandFactory, Parser, Subcommand};
use import::{ImportArgs, Imported, import};
use operate::{End, become_anew, operate};
use passwd::{PasswdArgs, passwd, password_from_input};
use ringmq::api::hash_password;
use ringmq::auth::Policy;
use ringmq::bench::{BenchArgs, bench};
use ringmq::config::{Config, Fault, Sources, document, key_list};
use ringmq::ctl::{CtlArgs, ctl};
use ringmq::heap::Allocator;
use ringmq::limits::MANAGEMENT_STACK_BYTES;
use ringmq::log::Log;
use ringmq::storectl::{StoreArgs, storectl};
use ringmq::tune::{TuneArgs, tune};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// An MQTT broker: 3.1, 3.1.1 and 5.0, for Linux.
///
/// Without arguments it serves MQTT on port 1883 of all addresses, and `GET /health` on 127.0.0.1:8081.
#[derive(Parser, Debug)]
#[command(name = "ringmq", version, args_conflicts_with_subcommands = true)]
#[command(after_help = EXAMPLES, after_long_help = after_long_help())]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Start,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Starts the broker; `ringmq` alone does the same.
    #[command(after_help = EXAMPLES, after_long_help = after_long_help())]
    Start(Start),
    /// Checks a configuration file: prints "ok", or what is wrong and where, and exits with 1.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Prints the configuration file with every key, its meaning and its default.
    PrintConfig,
    /// Reads a password from the terminal or standard input and prints its hash, for http.users.
    HashPassword,
    /// Turns the configuration of another broker into one of this.
    Import(ImportArgs),
    /// Adds a user to a password file, changes the password of one, or takes one out; for auth.password_file.
    Passwd(PasswdArgs),
    /// Loads a broker with clients, checks every delivery, and reports rates and latencies.
    Bench(Box<BenchArgs>),
    /// Looks at the host and says what it lacks for so many clients.
    Tune(TuneArgs),
    /// Prints the manual page, in roff.
    #[command(hide = true)]
    Man,
    /// Prints the completions of a shell.
    Completions {
        /// Which.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Looks at a running broker and manages it, through its HTTP API.
    Ctl(Box<CtlArgs>),
    /// Looks at a store, copies it, and saves what can be saved of a damaged one.
    Store(StoreArgs),
    /// Prints the version.
    Version,
}

#[derive(Args, Clone, Debug, Default)]
struct Start {
    /// Reads this configuration file (TOML); SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serves MQTT here: an address with a port, or a port [default: [::]:1883, IPv4 and IPv6]. May be repeated.
    #[arg(long, value_name = "ADDR")]
    mqtt: Vec<String>,
    /// Serves HTTP here: an address with a port, a port of 127.0.0.1, or "off" [default: 127.0.0.1:8081]. May be repeated.
    #[arg(long, value_name = "ADDR")]
    http: Vec<String>,
    /// Keeps here what outlives a restart [default: $STATE_DIRECTORY, $XDG_STATE_HOME/ringmq or ./ringmq-data].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Threads that serve clients [default: one for each core].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
    /// Lets clients without credentials in from everywhere, not from this machine only.
    #[arg(long)]
    allow_anonymous: bool,
    /// How to talk to the kernel: auto, uring or epoll [default: auto].
    #[arg(long, value_name = "DRIVER")]
    io: Option<String>,
    /// What to log: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Sets any key of the configuration, such as mqtt.max_inflight=64. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

const EXAMPLES: &str = "\
Examples:
  ringmq                                    serve on port 1883
  ringmq --mqtt 127.0.0.1:1884 --http off   one address, no HTTP
  ringmq --config /etc/ringmq.toml          with a configuration file
  ringmq print-config > ringmq.toml         a file to begin with
  mosquitto_sub -t 'hello/#' -v             then, in another terminal
  mosquitto_pub -t hello/world -m hi        and in a third

SIGTERM and SIGINT stop it: clients are told and what is queued for them is sent first.";

fn after_long_help() -> String {
    let intro = "Keys of the configuration, each as a line of the file, as --set KEY=VALUE, and as an\n\
                 environment variable (mqtt.max_inflight is RINGMQ_MQTT_MAX_INFLIGHT):";
    format!("{EXAMPLES}\n\n{intro}\n{}", key_list())
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as mqtt.max_inflight=64")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match line.command {
        None => start(&line.start),
        Some(Command::Start(options)) => start(&options),
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::PrintConfig) => print(document().trim_end()),
        Some(Command::HashPassword) => hash_from_input(),
        Some(Command::Import(arguments)) => match import(&arguments) {
            Ok(Imported { text, left }) => {
                left.iter().for_each(|line| eprintln!("ringmq: {line}"));
                print(text.trim_end())
            }
            Err(line) => fail(&line),
        },
        Some(Command::Passwd(arguments)) => match passwd(&arguments) {
            Ok(line) => print(&line),
            Err(line) => fail(&line),
        },
        Some(Command::Bench(arguments)) => load(&arguments),
        Some(Command::Tune(arguments)) => tune(&arguments),
        Some(Command::Man) => print(manual().trim_end()),
        Some(Command::Completions { shell }) => print(completions(shell).trim_end()),
        Some(Command::Ctl(arguments)) => ctl(&arguments),
        Some(Command::Store(arguments)) => storectl(&arguments),
        Some(Command::Version) => print(concat!("ringmq ", env!("CARGO_PKG_VERSION"))),
    }
}

/// The manual page: what `--help` says, and a section for each command with commands or arguments of its own.
fn manual() -> String {
    let mut page = Vec::new();
    let mut line = CommandLine::command();
    line.build();
    // Writing to memory does not fail.
    let _ = clap_mangen::Man::new(line.clone()).render(&mut page);
    let mut text = String::from_utf8_lossy(&page).into_owned();
    let mut open: Vec<clap::Command> = line.get_subcommands().cloned().collect();
    open.reverse();
    while let Some(command) = open.pop() {
        if command.is_hide_set() || command.get_name() == "help" {
            continue;
        }
        let name = command.get_bin_name().unwrap_or(command.get_name()).to_uppercase();
        let (mut synopsis, mut options) = (Vec::new(), Vec::new());
        let man = clap_mangen::Man::new(command.clone());
        let _ = man.render_synopsis_section(&mut synopsis);
        let _ = man.render_options_section(&mut options);
        // It is a part of this page, not one of its own.
        text = text
            .replace(&format!("ringmq\\-{}(1)", command.get_name().replace('-', "\\-")), command.get_name());
        let body = [synopsis, options].concat();
        let body = String::from_utf8_lossy(&body).into_owned();
        // Headings of a page of its own become those of a part of this one.
        let body = body.replace(".SH SYNOPSIS\n", "").replace(".SH OPTIONS\n", ".PP\n");
        text.push_str(&format!(".SH {name}\n{body}"));
        let mut inner: Vec<clap::Command> = command.get_subcommands().cloned().collect();
        inner.reverse();
        open.extend(inner);
    }
    text
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "ringmq", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A reader that went away, such as `head`, is no failure of ours.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The load generator. The first SIGINT ends a run early, with its report; the second one at once.
fn load(arguments: &BenchArgs) -> ExitCode {
    let (stop, stopped) = std::sync::mpsc::channel();
    let follow = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
            interrupt.recv().await;
            // Nobody listens any more when it is over anyway.
            let _ = stop.send(());
            interrupt.recv().await;
            std::process::exit(130);
        });
    };
    // Without the thread, SIGINT ends the process without a report.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(follow);
    bench(arguments, stopped)
}

fn check_config(file: &Path) -> ExitCode {
    match Config::load(&Sources { file: Some(file.to_owned()), ..Sources::default() }) {
        Ok(loaded) => match Policy::load(&loaded.config.auth) {
            Ok(_) => print("ok"),
            Err(line) => fail(&line),
        },
        Err(faults) => complain(&faults),
    }
}

/// Prints the hash of a password.
fn hash_from_input() -> ExitCode {
    match password_from_input().and_then(|password| hash_password(password.as_bytes())) {
        Ok(hash) => print(&hash),
        Err(line) => fail(&line),
    }
}

fn complain(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        eprintln!("ringmq: {fault}");
    }
    ExitCode::FAILURE
}

/// Why the broker did not start or did not go on, in one line.
fn fail(line: &str) -> ExitCode {
    eprintln!("ringmq: {line}");
    ExitCode::FAILURE
}

impl Start {
    fn sources(&self) -> Sources {
        let mut arguments = Vec::new();
        let mut add = |written: &str, key: &str, text: &str| {
            arguments.push((written.to_owned(), key.to_owned(), text.to_owned()));
        };
        for (key, value) in &self.set {
            add("--set", key, value);
        }
        if !self.mqtt.is_empty() {
            add("--mqtt", "mqtt.listen", &self.mqtt.join(","));
        }
        if !self.http.is_empty() {
            add("--http", "http.listen", &self.http.join(","));
        }
        if self.allow_anonymous {
            add("--allow-anonymous", "mqtt.allow_anonymous", "true");
            add("--allow-anonymous", "mqtt.anonymous_local_only", "false");
        }
        let rest = [
            ("--data-dir", "broker.data_dir", &self.data_dir),
            ("--shards", "broker.shards", &self.shards),
            ("--io", "broker.io", &self.io),
            ("--log", "log.level", &self.log),
        ];
        for (written, key, text) in rest {
            if let Some(text) = text {
                add(written, key, text);
            }
        }
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, text)| (lossy(name), lossy(text))).collect();
        Sources { file: self.config.clone(), kept: true, environment, arguments }
    }
}

/// Runs on a thread of its own, whose priority ends with it: at a restart, this thread becomes the program anew.
fn manage(operate: impl FnOnce() -> Result<End, String> + Send) -> Result<End, String> {
    std::thread::scope(|scope| {
        let builder =
            std::thread::Builder::new().name("management".to_owned()).stack_size(MANAGEMENT_STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, operate)
            .map_err(|error| format!("cannot start: {error}; raise the limit on threads"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn start(options: &Start) -> ExitCode {
    let sources = options.sources();
    let loaded = match Config::load(&sources) {
        Ok(loaded) => loaded,
        Err(faults) => return complain(&faults),
    };
    let log = match Log::start(&loaded.config.log) {
        Ok(log) => log,
        Err(line) => return fail(&line),
    };
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    let ended = manage(|| operate(loaded.config, &sources, &log));
    // What is queued for the log leaves before the reason for the end, which is then the last line.
    drop(log);
    match ended {
        Ok(End::Exit(code)) => code,
        Ok(End::Restart(sockets)) => fail(&become_anew(&sockets)),
        Err(line) => fail(&line),
    }
}
