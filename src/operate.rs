//! The broker in operation: starts it, follows signals and what is asked over HTTP, drains it, and starts the
//! program again where that is asked for.

use ringmq::api::control::{Order, Refused, Settings};
use ringmq::api::{Api, Auth, Facts, State};
use ringmq::auth::Policy;
use ringmq::broker::{Broker, Pulse, Watch, log_weight};
use ringmq::config::{self, Config, Sources, listen_fault};
use ringmq::desk::Ask;
use ringmq::io::{Role, bequeath, inherit};
use ringmq::limits::{PRESSURE_LOOK_MS, TLS_FILES_LOOK_MS};
use ringmq::log::Log;
use ringmq::notify::Notify;
use ringmq::shard::Pressure;
use serde_json::{Map, Value};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// The environment variable that tells a restarted program which sockets are open. It is no key of the
/// configuration.
const SOCKETS: &str = "_RINGMQ_SOCKETS";

/// How it ended.
pub enum End {
    /// The process ends with this.
    Exit(ExitCode),
    /// The program starts again, with these sockets open.
    Restart(Vec<(Role, OwnedFd)>),
}

/// The management thread: builds the broker, serves HTTP, follows signals and orders until the end.
///
/// # Errors
/// Why it did not start or did not go on, in one line.
pub fn operate(config: Config, sources: &Sources, log: &Log) -> Result<End, String> {
    // Before anything else opens a descriptor.
    let mut inherited = inherit(&std::env::var(SOCKETS).unwrap_or_default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}; raise the limits on open files and threads"))?;
    runtime.block_on(async {
        // Before the shards start, so that no signal is missed once somebody can connect.
        let mut signals = Signals::new()?;
        let wording = |addr, error: &_| listen_fault(addr, error, "http.listen", "--http");
        let api = Api::bind(&config.http, &mut inherited, wording)?;
        let mut broker = Broker::start(&config, &config.data_dir(sources), &mut inherited)?;
        broker.step_aside(&config);
        // What the configuration does not name any more.
        drop(inherited);
        announce(&broker, &api, &config);
        let facts = facts(&config, sources, &broker, &api);
        let http_sockets =
            api.sockets().map_err(|error| format!("cannot keep the HTTP listeners: {error}"))?;
        let (state, watched) = watch::channel(State::Running);
        let (orders, mut ordered) = mpsc::channel(1);
        let http = tokio::spawn(api.serve(broker.desk(), watched, facts, orders));
        let mut service = Service::new(&broker);
        service.notify.ready(broker.describe());
        let files = Files::new(broker.watch(&config));
        let ceiling = Ceiling::new();
        let mut running =
            Running { broker: &broker, config, sources, log, service: &mut service, files, ceiling };
        let reason = running.follow(&mut signals, &mut ordered).await;
        let config = running.config;
        // Whoever orders anything from now on is told that the broker stops.
        drop(ordered);
        let mut handed_on = http_sockets;
        if let Reason::Restart = reason {
            let kept = broker.hand_on();
            handed_on.extend(kept.map_err(|error| format!("cannot keep the MQTT listeners: {error}"))?);
            // The program that comes next tells that it is ready.
            service.notify.reloading();
        } else {
            service.notify.stopping();
        }
        state.send_replace(State::Draining);
        let code = drain(broker, &mut signals, &mut service, &config).await;
        state.send_replace(State::Stopped);
        // It ends by itself within its own bound; a panic in it was reported where it happened.
        let _ = http.await;
        match reason {
            Reason::Failed(line) => Err(line),
            Reason::Stop => Ok(End::Exit(code)),
            Reason::Restart => Ok(End::Restart(handed_on)),
        }
    })
}

/// Becomes the program anew, in the same process, so that whoever watches it sees no end. Returns only where that
/// fails, with the reason in one line.
pub fn become_anew(sockets: &[(Role, OwnedFd)]) -> String {
    let failed = |error: std::io::Error| format!("cannot start again: {error}");
    let words = match bequeath(sockets) {
        Ok(words) => words,
        Err(error) => return failed(error),
    };
    // The program that is there now; where it was taken away, the one that runs.
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    failed(command.args(arguments).env(SOCKETS, words).exec())
}

/// What the API tells of the broker.
fn facts(config: &Config, sources: &Sources, broker: &Broker, api: &Api) -> Facts {
    Facts {
        node: config.node.clone(),
        mqtt: broker.served().to_vec(),
        http: api.addresses(),
        description: broker.describe().to_owned(),
        data_dir: config.data_dir(sources),
        bans: broker.bans(),
    }
}

fn announce(broker: &Broker, api: &Api, config: &Config) {
    let http_options = &config.http;
    let list = |texts: Vec<String>| if texts.is_empty() { "off".to_owned() } else { texts.join(", ") };
    let mqtt = list(broker.served().iter().map(ToString::to_string).collect());
    let http = list(api.addresses().iter().map(ToString::to_string).collect());
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(mqtt, http, "ringmq {version} is serving: {}", broker.describe());
    announce_access(config, broker);
    if let Some(addr) = http_options.reachable() {
        tracing::warn!("HTTP on {addr} is not encrypted: whoever is on the way can read credentials");
    } else if http_options.auth == Auth::None {
        tracing::warn!("HTTP asks for no credentials: open to every user of this machine");
    }
}

/// Says what is open to whom.
fn announce_access(config: &Config, broker: &Broker) {
    let beyond = broker.served().iter().any(|served| !served.addr.ip().to_canonical().is_loopback());
    let mqtt = &config.mqtt;
    match (mqtt.allow_anonymous, mqtt.anonymous_local_only) {
        (false, _) => tracing::info!("MQTT is open to known users only"),
        (true, false) if beyond => {
            tracing::warn!(
                "MQTT is open to anyone who can reach it: mqtt.anonymous_local_only is false (--allow-anonymous)"
            );
        }
        (true, _) if beyond => {
            tracing::info!(
                "MQTT is open to clients of this machine; from elsewhere to known users only (--allow-anonymous lets \
                 everybody in)"
            );
        }
        (true, _) => tracing::info!("MQTT is open to clients of this machine, where alone it listens"),
    }
    for line in broker.access() {
        tracing::info!("{line}");
    }
}

/// Reads the files of a policy, which may be large, on a thread of its own.
async fn load_policy(config: &Config) -> Result<Policy, String> {
    let options = config.auth.clone();
    let loaded = tokio::task::spawn_blocking(move || Policy::load(&options)).await;
    // A panic in it was reported where it happened.
    loaded.unwrap_or_else(|_| Err("the files of section auth could not be read".to_owned()))
}

/// Why the broker stops.
enum Reason {
    /// Somebody asked.
    Stop,
    /// Somebody asked, and it is to start again.
    Restart,
    /// A shard died; the line to end with.
    Failed(String),
}

/// The broker while it runs, and what it runs by.
struct Running<'a> {
    broker: &'a Broker,
    config: Config,
    sources: &'a Sources,
    log: &'a Log,
    service: &'a mut Service,
    files: Files,
    ceiling: Ceiling,
}

impl Running<'_> {
    /// Follows signals and orders until one ends the broker, or a shard dies.
    async fn follow(&mut self, signals: &mut Signals, orders: &mut mpsc::Receiver<Order>) -> Reason {
        let mut failed = std::pin::pin!(self.broker.failed());
        loop {
            tokio::select! {
                line = &mut failed => {
                    tracing::error!("{line}");
                    return Reason::Failed(line);
                }
                asked = signals.next() => match asked {
                    Asked::Reload => {
                        self.service.notify.reloading();
                        // Faults are in the log.
                        let _ = self.reload("SIGHUP").await;
                        self.service.notify.ready(self.broker.describe());
                    }
                    Asked::Weigh => {
                        // Not here: a shard may be busy. What it logs needs nobody.
                        drop(tokio::spawn(log_weight(self.broker.desk())));
                    }
                    Asked::Stop(name) => {
                        let seconds = self.config.broker.drain_timeout_s;
                        tracing::info!("{name}: draining, for {seconds} s at most; send it again to stop at once");
                        return Reason::Stop;
                    }
                },
                () = self.files.due() => self.look_at_files(),
                () = self.ceiling.due(self.config.broker.max_memory) => self.weigh().await,
                () = self.service.due() => if self.service.pulse.beats(self.broker) {
                    self.service.notify.alive();
                },
                Some(order) = orders.recv() => if let Some(reason) = self.obey(order).await {
                    return reason;
                },
            }
        }
    }

    /// Reads the configuration again, because of `why`. With a fault in it, everything stays as it is.
    async fn reload(&mut self, why: &str) -> Result<(), Refused> {
        let loaded = match Config::load(self.sources) {
            Ok(loaded) => loaded,
            Err(faults) => {
                for fault in &faults {
                    tracing::error!("{why}: {fault}; nothing was changed");
                }
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                return Err(Refused::Bad(faults.join("; ")));
            }
        };
        let (next, changes) = self.config.reload(&loaded.config);
        let policy = load_policy(&next).await.inspect_err(|line| {
            tracing::error!("{why}: {line}; nothing was changed");
        });
        let policy = policy.map_err(Refused::Bad)?;
        for key in &changes.restart {
            tracing::warn!("{why}: {key} has changed and needs a restart");
        }
        if let Err(what) = self.broker.reload_layers(&next) {
            tracing::error!("{why}: {what}; nothing was changed");
            return Err(Refused::Bad(what));
        }
        self.files.watch = self.broker.watch(&next);
        self.adopt(next, Some(policy)).await;
        let applied =
            if changes.applied.is_empty() { "nothing".to_owned() } else { changes.applied.join(", ") };
        tracing::info!("{why}: changed {applied}");
        Ok(())
    }

    /// Reads certificates and what belongs to them again, where one of their files has changed.
    fn look_at_files(&mut self) {
        let changed = self.files.watch.changed();
        let Some(first) = changed.first() else { return };
        let (first, more) = (first.display(), changed.len() - 1);
        match self.broker.reload_layers(&self.config) {
            Ok(()) => tracing::info!("{first} and {more} other file(s) have changed: used from now on"),
            Err(what) => tracing::error!("{first} has changed: {what}; the old files stay in use"),
        }
    }

    /// Looks at how much memory the shards hold, and tells them what they are to refuse.
    async fn weigh(&mut self) {
        // A shard that hangs holds nobody up here; the watchdog is for that.
        let desk = self.broker.desk();
        let asked = desk.ask_all(Ask::Weight);
        let Ok(Ok(all)) = tokio::time::timeout(Duration::from_millis(PRESSURE_LOOK_MS), asked).await else {
            return;
        };
        let (held, max) =
            (all.iter().map(|weight| weight.memory.total()).sum(), self.config.broker.max_memory);
        let pressure = Pressure::of(held, max);
        if std::mem::replace(&mut self.ceiling.told, pressure) == pressure {
            return;
        }
        match pressure {
            Pressure::None => tracing::info!(held, max, "broker.max_memory: nothing is refused any more"),
            _ => tracing::warn!(held, max, "broker.max_memory: refused from now on, up to: {pressure:?}"),
        }
        self.broker.press(pressure);
    }

    /// What is live in it holds from now on.
    async fn adopt(&mut self, next: Config, policy: Option<Policy>) {
        self.log.set_level(next.log.level);
        self.broker.reload(&next, policy).await;
        self.config = next;
    }

    /// Does what the API asks; a reason ends the broker. Whoever asked may have given up meanwhile.
    async fn obey(&mut self, order: Order) -> Option<Reason> {
        match order {
            Order::Settings(reply) => {
                let (documented, keys) = (self.config.documented(), self.config.shown());
                let _ = reply.send(Settings { documented, keys });
            }
            Order::Change { wanted, keep, reply } => {
                let changed = self.change(&wanted, keep).await;
                let _ = reply.send(changed);
            }
            Order::Reread(reply) => {
                let reread = self.reload("asked over HTTP").await;
                self.settle().await;
                let _ = reply.send(reread);
            }
            Order::End { restart: false, reply } => {
                tracing::info!(
                    "asked over HTTP: draining, for {} s at most",
                    self.config.broker.drain_timeout_s
                );
                let _ = reply.send(Ok(()));
                return Some(Reason::Stop);
            }
            Order::End { restart: true, reply } => match Config::load(self.sources) {
                Ok(_) => {
                    tracing::info!("asked over HTTP: starting again, with the listeners open");
                    let _ = reply.send(Ok(()));
                    return Some(Reason::Restart);
                }
                Err(faults) => {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    let what =
                        format!("the configuration has faults, so it would not start: {}", faults.join("; "));
                    let _ = reply.send(Err(Refused::Bad(what)));
                }
            },
        }
        None
    }

    /// Waits until every shard has what it was told before: it answers in its order. One that is gone raises the
    /// alarm.
    async fn settle(&self) {
        let _ = self.broker.desk().ask_all(Ask::Totals).await;
    }

    /// Changes settings, all of them or none, on every shard before it returns.
    async fn change(&mut self, wanted: &Map<String, Value>, keep: bool) -> Result<Vec<String>, Refused> {
        let (next, assigned) = self.config.changed(wanted).map_err(Refused::Bad)?;
        let other = next.auth != self.config.auth;
        let policy = if other { Some(load_policy(&next).await.map_err(Refused::Bad)?) } else { None };
        if wanted.is_empty() {
            self.broker.reload_layers(&next).map_err(Refused::Bad)?;
        }
        if keep {
            self.sources.may_keep(&assigned).map_err(Refused::Bad)?;
            let file = self.config.kept_file(self.sources);
            let kept = config::keep(&file, &assigned);
            kept.map_err(|error| Refused::Failed(format!("cannot write {}: {error}", file.display())))?;
        }
        let changed = self.config.reload(&next).1.applied;
        self.adopt(next, policy).await;
        self.settle().await;
        let names = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
        tracing::info!(kept = keep, "asked over HTTP: changed {names}");
        Ok(changed)
    }
}

/// Tells clients that the broker goes, and sends what is queued, within the configured time. A second
/// signal ends it at once.
async fn drain(broker: Broker, signals: &mut Signals, service: &mut Service, config: &Config) -> ExitCode {
    let limit = Duration::from_secs(u64::from(config.broker.drain_timeout_s));
    let mut draining = tokio::task::spawn_blocking(move || broker.drain(limit));
    loop {
        tokio::select! {
            done = &mut draining => match done {
                Ok(()) => {
                    tracing::info!("drained");
                    return ExitCode::SUCCESS;
                }
                // What panicked said so where it happened.
                Err(_) => return ExitCode::FAILURE,
            },
            asked = signals.next() => if let Asked::Stop(name) = asked {
                eprintln!("ringmq: {name} while draining: stopped at once");
                std::process::exit(if name == "SIGINT" { 130 } else { 143 });
            },
            // The drain has a bound of its own.
            () = service.due() => service.notify.alive(),
        }
    }
}

/// The files that TLS is served with, and when to look whether they have changed.
struct Files {
    watch: Watch,
    looks: tokio::time::Interval,
}

impl Files {
    fn new(watch: Watch) -> Files {
        let mut looks = tokio::time::interval(Duration::from_millis(TLS_FILES_LOOK_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Files { watch, looks }
    }

    /// Waits until they are to be looked at; for ever where there are none.
    async fn due(&mut self) {
        if self.watch.is_empty() {
            return std::future::pending().await;
        }
        self.looks.tick().await;
    }
}

/// When the memory of the shards is looked at, where it has a bound.
struct Ceiling {
    looks: tokio::time::Interval,
    /// What they refuse.
    told: Pressure,
}

impl Ceiling {
    fn new() -> Ceiling {
        let mut looks = tokio::time::interval(Duration::from_millis(PRESSURE_LOOK_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ceiling { looks, told: Pressure::None }
    }

    /// Waits until it is to be looked at; for ever where there is no bound, and nothing is refused for one that was.
    async fn due(&mut self, bytes_max: u64) {
        if bytes_max == 0 && self.told == Pressure::None {
            return std::future::pending().await;
        }
        self.looks.tick().await;
    }
}

/// The service manager, and its watchdog: told that all is well while every shard moves on.
struct Service {
    notify: Notify,
    pulse: Pulse,
    ticks: Option<tokio::time::Interval>,
}

impl Service {
    fn new(broker: &Broker) -> Service {
        let notify = Notify::from_environment();
        let ticks = notify.every().map(|every| {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        });
        Service { notify, pulse: Pulse::new(broker), ticks }
    }

    /// Waits until the watchdog is to be told; for ever where there is none.
    async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// What a signal asks for.
enum Asked {
    /// The end; with the signal's name.
    Stop(&'static str),
    /// Reading the configuration again.
    Reload,
    /// What is held, to the log.
    Weigh,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    fn new() -> Result<Signals, String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot follow signals: {error}"));
        Ok(Signals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            user: on(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::Weigh,
        }
    }
}
