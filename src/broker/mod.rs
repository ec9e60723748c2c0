//! Builds the shards' threads, passes the operator's commands on, and takes leave of them.
//!
//! A driver belongs to the thread that uses it, so each thread builds its own and tells its address; once all
//! are known, each gets the addresses of all, and only then listeners open.

mod aside;
mod disk;
mod layers;
mod listeners;
mod pressure;
mod pulse;
mod seat;

pub use disk::View;
pub use layers::Watch;
pub use pulse::Pulse;

use disk::{Disk, Opened};
use listeners::{cannot_listen, cannot_listen_at, check_addresses, entrances, open_local};
use seat::{Alarm, Seat, Start};

use crate::api::{Desk, Port};
use crate::auth::{Ban, Policy, Secret};
use crate::config::{BrokerOptions, Config, Durability, IoChoice};
use crate::connectors::{Answering, Connectors, Handshakes, Question, Step};
use crate::desk::Ask;
use crate::io::{
    Address, Chosen, Driver, DriverOptions, Inherited, IoMode, ListenSpec, LocalSocket, Reservation, Role,
    Waker, available_cores, bridge, choose, pin_to_core, raise_open_files, reserve,
};
use crate::limits::{
    DRIVER_RETRY_MS, DRIVER_TRIES_MAX, FAN_OUT_AT_ONCE_MAX, SHARD_HANDSHAKES_MAX, SHARDS_MAX,
    TICK_DELIVERIES_MAX,
};
use crate::listener::{Entrance, Listener, Served};
use crate::map::Keyed;
use crate::mesh::{Mesh, mesh};
use crate::shard::{self, AskLogin, AskRights, Command, Farewell, Handover, Helpers, Parts, Shard};
use crate::stats::{Counters, Gauges, Ledger, Memory};
use crate::sync::Gate;
use crate::time::Moment;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// The folder of the store in the data folder.
const STORE_FOLDER: &str = "store";

/// The running shards.
#[derive(Debug)]
pub struct Broker {
    shards: Vec<Handle>,
    listeners: Vec<Listener>,
    /// The gate of each listener.
    gates: Vec<Gate>,
    served: Vec<Served>,
    description: String,
    failed: watch::Receiver<Option<String>>,
    desk: Desk,
    connectors: Connectors,
    disk: Option<Disk>,
    /// What an earlier run left.
    bans: Vec<(Arc<Ban>, Moment)>,
    /// Of the policy of the start; each later one has it too.
    secret: Secret,
    /// Whom the policy of the start lets do what, in words.
    access: Vec<String>,
    /// Keep other processes from sharing our ports.
    reservations: Vec<Reservation>,
    /// By number of the listener: its socket, where that has a path.
    locals: Vec<Option<LocalSocket>>,
}

#[derive(Debug)]
struct Handle {
    commands: Sender<Command>,
    waker: Waker,
    thread: JoinHandle<Farewell>,
}

impl Handle {
    /// Gives the shard questions.
    fn port(&self) -> Port {
        let (commands, waker) = (self.commands.clone(), self.waker.clone());
        Box::new(move |ask| {
            let given = commands.send(Command::Ask(ask)).is_ok();
            waker.wake();
            given
        })
    }
}

impl Broker {
    /// Starts all shards and opens the listeners. The error is one line that says what to do.
    ///
    /// `inherited` are sockets that an earlier run left open; those that are listened on are taken out. What is kept is
    /// in the folder `data_dir`.
    pub fn start(config: &Config, data_dir: &Path, inherited: &mut Vec<Inherited>) -> Result<Broker, String> {
        let options = &config.broker;
        let listeners = config.all_listeners();
        let wrapping = layers::layers(&listeners)?;
        let (mut reservations, mut bridges, mut served) = (Vec::new(), Vec::new(), Vec::new());
        let mut locals = Vec::new();
        for listener in &listeners {
            if let Some(path) = &listener.path {
                let local = open_local(listener, path, inherited)
                    .map_err(|error| cannot_listen_at(listener, path, &error))?;
                served.push(Served::at(listener, SocketAddr::from(([127, 0, 0, 1], 0))));
                locals.push(Some(local));
                bridges.push(None);
                continue;
            }
            let addr = listener.bind.expect("a configuration without an address was refused");
            bridges.push(Inherited::take(inherited, Role::Mqtt, addr).map(Arc::new));
            let held = Inherited::take(inherited, Role::Held, addr);
            let held = held.map_or_else(|| reserve(addr), Reservation::adopt);
            let held = held.map_err(|error| cannot_listen(config, listener, addr, &error))?;
            served.push(Served::at(listener, held.addr()));
            locals.push(None);
            reservations.push(held);
        }
        let gates: Vec<_> = listeners.iter().map(|_| Gate::new()).collect();
        raise_open_files();
        let mut chosen = choose(match options.io {
            IoChoice::Auto => IoMode::Auto,
            IoChoice::Uring => IoMode::Uring,
            IoChoice::Epoll => IoMode::Epoll,
        })?;
        if let Some(warning) = &chosen.warning {
            tracing::warn!("{warning}");
        }
        check_addresses(config, &listeners, &mut chosen)?;
        let (alarm, failed) = watch::channel(None);
        let policy = Arc::new(Policy::load(&config.auth)?);
        let access = policy.describe();
        let connectors = Connectors::start(policy.clone())?;
        let opened = match options.durability {
            Durability::On => Some(Opened::open(&data_dir.join(STORE_FOLDER))?),
            Durability::Off => None,
        };
        let gather = |chosen: &Chosen| Crew::gather(config, &gates, chosen, &alarm, &policy, &connectors);
        let crew = match gather(&chosen) {
            // The self-test needs less than all shards do.
            Err(Missing::Driver(text)) if options.io == IoChoice::Auto && chosen.features.is_some() => {
                tracing::warn!("{text}; epoll is used, which costs more CPU");
                chosen.features = None;
                gather(&chosen)
            }
            other => other,
        };
        let Crew { threads, peers, seats, keyed, driver } =
            crew.map_err(|(Missing::Driver(text) | Missing::Thread(text))| text)?;
        let addresses: Vec<_> = seats.iter().map(|(address, _)| address.clone()).collect();
        let day = driver.start_of_day();
        let wakers: Vec<_> = seats.iter().map(|(_, waker)| waker.clone()).collect();
        let disk = opened.map(|opened| opened.start(driver, &keyed, &wakers, alarm)).transpose()?;
        let (disk, parts) = disk.unzip();
        let parts: Vec<_> = parts.unwrap_or_default();
        let bans = parts.first().map(|part| part.restored.bans.clone()).unwrap_or_default();
        let mut parts = parts.into_iter();
        for peer in peers {
            // A thread that ended in between has raised the alarm.
            let _ = peer.send((addresses.clone(), parts.next()));
        }
        let shards: Vec<Handle> = threads
            .into_iter()
            .zip(seats)
            .map(|((commands, thread), (_, waker))| Handle { commands, waker, thread })
            .collect();
        let desk = Desk::new(shards.iter().map(Handle::port).collect(), keyed, day);
        let description = format!("{} shard(s), {}", shards.len(), chosen.name());
        let broker = Broker {
            shards,
            listeners,
            gates: gates.clone(),
            served,
            description,
            failed,
            desk,
            connectors,
            disk,
            bans,
            secret: policy.secret.clone(),
            access,
            reservations,
            locals,
        };
        broker.await_routes();
        broker.tell(|| Command::Layers(wrapping.clone()));
        broker.listen(config, &bridges)?;
        Ok(broker)
    }

    /// Opens the listeners of all shards. One of them also listens on what was left open, whose queue may have
    /// connections.
    fn listen(&self, config: &Config, bridges: &[Option<Arc<OwnedFd>>]) -> Result<(), String> {
        let (reply, replies) = channel();
        for (number, (served, bridge)) in self.served.iter().zip(bridges).enumerate() {
            let spec = ListenSpec {
                listener: number as u16,
                addr: served.addr,
                options: self.listeners[number].socket,
                peer_address: config.broker.peer_address && self.locals[number].is_none()
                    || self.listeners[number].needs_addresses(),
                socket: self.locals[number].as_ref().map(LocalSocket::socket),
            };
            self.tell(|| Command::Listen { spec: spec.clone(), reply: reply.clone() });
            if let (Some(shard), Some(_)) = (self.shards.first(), bridge) {
                let spec = ListenSpec { socket: bridge.clone(), ..spec };
                let _ = shard.commands.send(Command::Listen { spec, reply: reply.clone() });
                shard.waker.wake();
            }
        }
        drop(reply);
        for (number, error) in replies {
            if let Some(error) = error {
                let number = usize::from(number);
                let (listener, addr) = (&self.listeners[number], self.served[number].addr);
                return Err(cannot_listen(config, listener, addr, &error));
            }
        }
        Ok(())
    }

    /// Waits until each shard knows what the others have restored: then nothing that is published can miss it.
    fn await_routes(&self) {
        let (reply, replies) = channel();
        self.tell(|| Command::Ready { reply: reply.clone() });
        drop(reply);
        // Those that are gone have raised the alarm, and let go of their end.
        replies.iter().for_each(drop);
    }

    /// What can be seen of the store, where there is one.
    pub fn store(&self) -> Option<watch::Receiver<View>> {
        self.disk.as_ref().map(Disk::view)
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for shard in &self.shards {
            // A shard that is gone has raised the alarm.
            let _ = shard.commands.send(command());
            shard.waker.wake();
        }
    }

    /// Bans of an earlier run, and until when they hold.
    pub fn bans(&self) -> Vec<(Arc<Ban>, Moment)> {
        self.bans.clone()
    }

    /// Where MQTT is served, by number of the listener.
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// All shards, to be asked.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Shards and driver, for the log.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Whom the policy of the start lets do what, in words.
    pub fn access(&self) -> &[String] {
        &self.access
    }

    /// Options of the sessions, what listeners can be told, and a policy where there is another one, hold from now
    /// on; everything else needs a restart.
    pub async fn reload(&self, config: &Config, policy: Option<Policy>) {
        self.tell(|| Command::Reload(Box::new(config.mqtt.clone()), entrances(config, &self.gates)));
        let same = |policy| Arc::new(Policy { secret: self.secret.clone(), ..policy });
        if let Some(policy) = policy.map(same) {
            // First those who judge, so that nobody whom the shards ask by the new policy is judged by the old one.
            self.connectors.adopt(policy.clone()).await;
            self.tell(|| Command::Policy(policy.clone()));
        }
    }

    /// Reads the files of TLS again; they hold, with the other terms of TLS and WebSocket, for connections that come
    /// from now on.
    ///
    /// # Errors
    /// One line: what is wrong, and where. Then nothing has changed.
    pub fn reload_layers(&self, config: &Config) -> Result<(), String> {
        let layers = layers::layers(&config.all_listeners())?;
        self.tell(|| Command::Layers(layers.clone()));
        Ok(())
    }

    /// The files that TLS is served with.
    pub fn watch(&self, config: &Config) -> Watch {
        Watch::new(&config.all_listeners())
    }

    /// Resolves with the reason when a shard ends that was not told to.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        let mut failed = self.failed.clone();
        async move {
            match failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// What a restart hands on: a listener for each address, which takes connections from now on beside those of the
    /// shards and alone when they are gone, and the hold on the addresses.
    pub fn hand_on(&mut self) -> std::io::Result<Vec<(Role, OwnedFd)>> {
        let all = self.served.iter().zip(&self.listeners);
        let bridges = all.map(|(served, listener)| match &served.path {
            Some(path) => {
                let next = LocalSocket::replace(path, listener.mode_bits().unwrap_or(0), listener.socket);
                Ok((Role::Local, next?.keep()?))
            }
            None => Ok((Role::Mqtt, bridge(served.addr, listener.socket)?)),
        });
        let mut sockets = bridges.collect::<std::io::Result<Vec<_>>>()?;
        sockets.extend(self.reservations.drain(..).map(|held| (Role::Held, held.into_socket())));
        Ok(sockets)
    }

    /// Tells 5.0 clients 0x8B, flushes, closes, and ends the threads. Blocks until then; what takes longer than
    /// `within` is cut off.
    pub fn drain(mut self, within: Duration) {
        // Their paths go first, so that nobody waits in a queue that is not served any more.
        self.locals.clear();
        let within_ms = within.as_millis() as u64;
        self.tell(|| Command::Drain { within_ms });
        let mut counters = Counters::default();
        let (mut ledger, mut memory) = (Ledger::default(), Memory::default());
        for (me, shard) in self.shards.into_iter().enumerate() {
            let Ok(farewell) = shard.thread.join() else { continue };
            tracing::debug!("shard {me}: {}", pairs(farewell.counters.iter()));
            tracing::debug!("shard {me}: {}", farewell.driver);
            counters.add(&farewell.counters);
            memory.add(&farewell.memory);
            ledger.merge(&farewell.ledger);
        }
        if let Some(disk) = self.disk {
            disk.end();
        }
        tracing::debug!("all shards: {}", pairs(counters.iter()));
        tracing::debug!("memory at the end: total={} {}", memory.total(), pairs(memory.iter()));
        for (cause, count) in ledger.totals().filter(|(_, count)| *count > 0) {
            tracing::info!("dropped: {count} ({})", cause.name());
        }
    }
}

/// Asks all shards, and logs what they hold, by number and in bytes, and what one of each thing costs.
pub async fn log_weight(desk: Desk) {
    // A shard that is gone has raised the alarm.
    let Ok(all) = desk.ask_all(Ask::Weight).await else { return };
    let (mut gauges, mut memory) = (Gauges::default(), Memory::default());
    for weight in all {
        gauges.add(&weight.gauges);
        memory.add(&weight.memory);
    }
    tracing::info!("held: {}", pairs(gauges.iter()));
    let each = memory.each(&gauges);
    let each: String =
        each.map(|(name, count, bytes)| format!("; {count} x {bytes:.0} bytes per {name}")).collect();
    tracing::info!("memory: total={} {}{each}", memory.total(), pairs(memory.iter()));
}

/// Names and values, those that are 0 left out.
fn pairs(all: impl Iterator<Item = (impl std::fmt::Display, u64)>) -> String {
    let parts: Vec<String> =
        all.filter(|(_, v)| *v > 0).map(|(name, value)| format!("{name}={value}")).collect();
    parts.join(" ")
}

/// Shards that such options give with so many cores: one for each, less one for management where there are 4 or more.
pub fn shard_count(options: &BrokerOptions, cores: usize) -> usize {
    let automatic = if cores >= 4 { cores - 1 } else { cores };
    let wanted = if options.shards == 0 { automatic } else { usize::from(options.shards) };
    wanted.clamp(1, SHARDS_MAX)
}

fn driver_options(options: &BrokerOptions, shards: usize) -> DriverOptions {
    let mut defaults = DriverOptions::default();
    if shards == 1 {
        // Nothing arrives from elsewhere.
        defaults.headroom_percent = 0;
    }
    match options.max_connections {
        0 => defaults,
        // Each shard takes its share, so that all of them together never hold more.
        max => DriverOptions { connections_max: (max / shards as u32).max(1), ..defaults },
    }
}

/// The threads of all shards, each with a driver, waiting for the addresses of all.
struct Crew {
    threads: Vec<(Sender<Command>, JoinHandle<Farewell>)>,
    peers: Vec<Sender<Start>>,
    seats: Vec<(Address<Handover>, Waker)>,
    /// The hash that all shards share.
    keyed: Keyed,
    /// With the clock of all.
    driver: DriverOptions,
}

/// What a shard could not have; one line that says what to do.
#[derive(Debug)]
enum Missing {
    Thread(String),
    Driver(String),
}

impl Crew {
    /// Starts all threads. Where one of them fails, all have ended when this returns.
    fn gather(
        config: &Config,
        gates: &[Gate],
        chosen: &Chosen,
        alarm: &watch::Sender<Option<String>>,
        policy: &Arc<Policy>,
        connectors: &Connectors,
    ) -> Result<Crew, Missing> {
        let options = &config.broker;
        let cores = available_cores();
        let shards = shard_count(options, cores.len());
        let (ready, seats_ready) = channel();
        let seed = ahash::RandomState::new().hash_one("ringmq");
        let driver = driver_options(options, shards);
        let (mut threads, mut peers) = (Vec::new(), Vec::new());
        let mut missing = None;
        let secure = config.all_listeners().iter().any(|listener| listener.kind.has_tls());
        let helpers = if secure { Handshakes::start(shards).map_err(Missing::Thread)? } else { Vec::new() };
        let mut helpers = helpers.into_iter();
        for (me, mesh) in mesh(shards).into_iter().enumerate() {
            let (commands, inbox) = channel();
            let (peers_to, peers_from) = channel();
            let seat = Seat {
                me,
                shards,
                core: options.pin.then(|| cores.get(me % cores.len().max(1)).copied()).flatten(),
                seed,
                mesh,
                config: config.clone(),
                entrances: entrances(config, gates),
                chosen: chosen.clone(),
                driver: driver.clone(),
                commands: inbox,
                own: commands.clone(),
                policy: policy.clone(),
                connectors: connectors.clone(),
                handshakes: helpers.next(),
                ready: ready.clone(),
                peers: peers_from,
            };
            let alarm = Alarm { me, alarm: alarm.clone(), ended: false };
            match std::thread::Builder::new().name(format!("shard-{me}")).spawn(move || seat.run(alarm)) {
                Ok(thread) => threads.push((commands, thread)),
                Err(e) => {
                    let text =
                        format!("cannot start a thread for shard {me}: {e}; raise the limit on threads");
                    missing = Some(Missing::Thread(text));
                    break;
                }
            }
            peers.push(peers_to);
        }
        drop(ready);
        let mut seats = vec![None; shards];
        for seat in seats_ready {
            match seat {
                Ok((me, address, waker)) => seats[me] = Some((address, waker)),
                Err(text) => missing = missing.or(Some(Missing::Driver(text))),
            }
        }
        let text = "a shard ended while it started; the log above says why";
        let missing = match (missing, seats.into_iter().collect::<Option<Vec<_>>>()) {
            (None, Some(seats)) => {
                let keyed = Keyed::new(seed);
                return Ok(Crew { threads, peers, seats, keyed, driver });
            }
            (missing, _) => missing.unwrap_or_else(|| Missing::Thread(text.into())),
        };
        // Without the addresses of the others they end, and give their drivers' memory back.
        drop(peers);
        for (_, thread) in threads {
            // One that panicked said so.
            let _ = thread.join();
        }
        Err(missing)
    }
}
