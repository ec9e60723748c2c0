//! The two grounds that a case can play on: the real binary on sockets, and a simulated machine with production
//! shards and a virtual clock.
//!
//! A peer on a simulated machine drives it: while it waits, the shards run, and when none can, time passes to the
//! next moment at which one can. So waiting costs nothing, and what is to happen at a moment happens at that one.

use crate::common::{self, Driver, Ground, Socket, uptime};
use crate::machine::{Build, Faults, Leave, Machine, SocketId, Wire};
use ringmq::auth::Policy;
use ringmq::config::{Config, Sources};
use ringmq::limits::{
    CONTROL_RING_ENTRIES, DATA_RING_ENTRIES, FAN_OUT_AT_ONCE_MAX, TICK_DELIVERIES_MAX, TIMER_GRANULE_MS,
};
use ringmq::session::Options;
use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A client on either ground.
pub type Peer = common::Peer<Line>;

/// Where cases run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// The binary, on sockets of the kernel.
    Sockets(Driver),
    /// Production shards in this thread. Torn: each byte travels by itself.
    Simulation { torn: bool },
}

/// All of them.
pub const PLACES: [Place; 4] = [
    Place::Sockets(Driver::Uring),
    Place::Sockets(Driver::Epoll),
    Place::Simulation { torn: false },
    Place::Simulation { torn: true },
];

/// Ticks of a simulated machine without a step of its clock, after which it counts as one that never rests.
const TICKS_AT_ONCE_MAX: usize = 1_000_000;
/// Virtual milliseconds that a simulated broker has to drain.
const DRAIN_MS: u64 = 10_000;

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Sockets(driver) => driver.name(),
            Place::Simulation { torn: false } => "the simulation",
            Place::Simulation { torn: true } => "the simulation, torn,",
        })
    }
}

/// A broker on either ground.
pub enum Broker {
    /// One that cases share.
    Shared(Arc<OnceLock<common::Broker>>),
    /// One of this case; the scene ends it.
    Own(Rc<OwnBroker>),
    /// A simulated one, which is always of its case.
    Simulated(Rc<Simulation>),
}

/// A process of one case.
pub struct OwnBroker {
    broker: common::Broker,
    drained: Cell<bool>,
}

impl OwnBroker {
    /// Starts it.
    pub fn start(driver: Driver, shards: usize, settings: &[(&str, &str)]) -> OwnBroker {
        OwnBroker { broker: common::Broker::start(driver, shards, settings), drained: Cell::new(false) }
    }

    /// Drains it, unless the case did, and asserts that it ended in order.
    pub fn end(mut self) {
        if !self.drained.get() {
            self.broker.stop();
            return;
        }
        let status = self.broker.wait(common::TIMEOUT);
        let log = self.broker.log();
        assert!(status.is_some_and(|status| status.success()), "it ended with {status:?}:\n{log}");
        assert!(!log.contains("panicked at"), "a thread of the broker panicked:\n{log}");
    }
}

impl Broker {
    /// The time there.
    pub fn now(&self) -> Since {
        Since(match self {
            Broker::Simulated(machine) => Duration::from_millis(machine.machine.now()),
            _ => uptime(),
        })
    }

    /// The operator changes its settings.
    pub fn reload(&self, settings: &[(&str, &str)]) {
        let Broker::Simulated(machine) = self else { panic!("a process reads them from a file") };
        machine.machine.order_reload(&options(settings));
        machine.settle();
    }

    /// From now on no connection can move to another shard, as if no table had room for it.
    pub fn refuse_hand_overs(&self) {
        let Broker::Simulated(machine) = self else { panic!("descriptors do not run out at will") };
        machine.wire(|wire| wire.faults.enfile = 1_000);
    }

    /// The operator stops it: clients are told.
    pub fn drain(&self) {
        match self {
            Broker::Shared(_) => panic!("other cases use this broker"),
            Broker::Own(broker) => {
                broker.drained.set(true);
                broker.broker.signal("TERM");
            }
            Broker::Simulated(machine) => machine.machine.order_drain(DRAIN_MS),
        }
    }
}

impl Ground for Broker {
    type Socket = Line;

    fn dial(&self) -> Line {
        match self {
            Broker::Shared(broker) => {
                Line::Socket(broker.get().expect("it was started before it was handed out").dial())
            }
            Broker::Own(broker) => Line::Socket(broker.broker.dial()),
            Broker::Simulated(machine) => Line::Simulated(SimulatedLine::dial(machine)),
        }
    }
}

/// One connection on either ground.
#[derive(Debug)]
pub enum Line {
    Socket(TcpStream),
    Simulated(SimulatedLine),
}

impl Socket for Line {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Line::Socket(stream) => stream.send(bytes),
            Line::Simulated(line) => line.send(bytes),
        }
    }

    fn receive(&mut self, within: Duration) -> Option<Vec<u8>> {
        match self {
            Line::Socket(stream) => stream.receive(within),
            Line::Simulated(line) => line.receive(within),
        }
    }

    fn end_sending(&mut self) {
        match self {
            Line::Socket(stream) => stream.end_sending(),
            Line::Simulated(line) => line.end_sending(),
        }
    }

    fn now(&self) -> Duration {
        match self {
            Line::Socket(_) => uptime(),
            Line::Simulated(line) => line.now(),
        }
    }
}

/// MQTT's options with these settings.
fn options(settings: &[(&str, &str)]) -> Options {
    // No simulated peer has an address.
    Options { sys_local_only: false, ..config(settings).mqtt }
}

fn config(settings: &[(&str, &str)]) -> Config {
    let owned = |(key, value): &(&str, &str)| ("--set".to_owned(), (*key).to_owned(), (*value).to_owned());
    let sources = Sources { arguments: settings.iter().map(owned).collect(), ..Sources::default() };
    let loaded = Config::load(&sources).unwrap_or_else(|faults| panic!("{settings:?}: {faults:?}"));
    loaded.config
}

/// A machine with a broker, which peers drive.
pub struct Simulation {
    machine: Machine,
    /// Where to look for a shard that can run.
    turn: RefCell<usize>,
}

impl Simulation {
    /// One with these settings.
    pub fn start(seed: u64, shards: usize, torn: bool, settings: &[(&str, &str)]) -> Simulation {
        let mut faults = Faults::none();
        if torn {
            (faults.split_max, faults.buffer_bytes) = (1, 1);
        }
        let build = Build {
            seed,
            shards,
            rings: (CONTROL_RING_ENTRIES, DATA_RING_ENTRIES),
            options: options(settings),
            policy: Arc::new(Policy::load(&config(settings).auth).expect("its files are right")),
            fan_out_at_once: FAN_OUT_AT_ONCE_MAX,
            tick_deliveries: TICK_DELIVERIES_MAX,
            route_key_mask: u64::MAX,
        };
        let wire = Wire::new(shards, faults, crate::machine::Random::new(seed, 2));
        Simulation { machine: Machine::new(&build, wire), turn: RefCell::new(0) }
    }

    fn wire<T>(&self, f: impl FnOnce(&mut Wire) -> T) -> T {
        f(&mut self.machine.net.borrow_mut().wire)
    }

    /// Ticks one shard that can run; false when none can.
    fn tick(&self) -> bool {
        let shards = self.machine.nodes.len();
        let mut turn = self.turn.borrow_mut();
        let next = (1..=shards).map(|n| (*turn + n) % shards).find(|at| self.machine.is_runnable(*at));
        let Some(shard) = next else { return false };
        *turn = shard;
        self.machine.tick(shard);
        true
    }

    /// Runs what can run now.
    fn settle(&self) {
        let mut ticks = 0;
        while self.tick() {
            ticks += 1;
            assert!(ticks < TICKS_AT_ONCE_MAX, "the shards do not come to rest");
        }
    }

    /// Lets the machine run until `take` has something or the clock stands at `until`.
    fn run<T>(&self, until: u64, mut take: impl FnMut(&mut Wire) -> Option<T>) -> Option<T> {
        let mut ticks = 0;
        loop {
            let taken = self.wire(&mut take);
            if taken.is_some() {
                return taken;
            }
            if self.tick() {
                ticks += 1;
                assert!(ticks < TICKS_AT_ONCE_MAX, "the shards do not come to rest");
                continue;
            }
            let now = self.machine.now();
            if now >= until {
                return None;
            }
            ticks = 0;
            let due = self.machine.next_due().unwrap_or(until);
            self.machine.advance(due.clamp(now + 1, until));
        }
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.settle();
        self.run(self.machine.now() + time.as_millis() as u64, |_| None::<()>);
    }

    /// Drains the broker: it must end, and hold nothing then.
    pub fn end(&self) {
        self.machine.order_drain(DRAIN_MS);
        self.run(self.machine.now() + DRAIN_MS + TIMER_GRANULE_MS, |_| None::<()>);
        assert!(self.machine.is_stopped(), "the broker does not stop");
        self.machine.expect_nothing_held();
    }
}

/// A client's side of a simulated connection; it ends when this is dropped.
pub struct SimulatedLine {
    on: Rc<Simulation>,
    socket: SocketId,
}

impl std::fmt::Debug for SimulatedLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "socket {}", self.socket)
    }
}

impl Drop for SimulatedLine {
    fn drop(&mut self) {
        // A shard that panicked holds it.
        if let Ok(mut net) = self.on.machine.net.try_borrow_mut() {
            net.wire.client_leave(self.socket, Leave::Fin);
        }
    }
}

impl SimulatedLine {
    fn dial(on: &Rc<Simulation>) -> SimulatedLine {
        let socket = on.wire(|wire| wire.connect("a peer".to_owned()));
        SimulatedLine { on: Rc::clone(on), socket }
    }

    fn later(&self, time: Duration) -> u64 {
        self.on.machine.now() + time.as_millis() as u64
    }
}

impl Socket for SimulatedLine {
    fn send(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        let until = self.later(common::TIMEOUT);
        while !bytes.is_empty() {
            let sent = self.on.run(until, |wire| {
                let sent = wire.client_write(self.socket, bytes);
                (sent > 0).then_some(sent)
            });
            bytes = &bytes[sent.ok_or(std::io::ErrorKind::TimedOut)?..];
        }
        Ok(())
    }

    fn receive(&mut self, within: Duration) -> Option<Vec<u8>> {
        self.on.run(self.later(within), |wire| {
            let bytes = wire.client_read(self.socket, 65_536);
            (!bytes.is_empty() || wire.client_ended(self.socket)).then_some(bytes)
        })
    }

    fn end_sending(&mut self) {
        self.on.wire(|wire| wire.client_end(self.socket));
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.on.machine.now())
    }
}

/// Whether nothing is late by itself where this peer is.
pub fn is_exact(peer: &Peer) -> bool {
    matches!(peer.socket(), Line::Simulated(_))
}

/// A moment on the clock of a broker, taken before something is done.
#[derive(Clone, Copy, Debug)]
pub struct Since(Duration);

impl Since {
    /// What this peer has just got was due after `time`, and not before. On the simulation it came at that moment,
    /// as exactly as timers are; elsewhere the machine may be slow.
    #[track_caller]
    pub fn was(self, peer: &Peer, time: Duration) {
        let passed = peer.socket().now() - self.0;
        assert!(passed >= time, "it was due after {time:?} and came after {passed:?}");
        let late = time + Duration::from_millis(TIMER_GRANULE_MS);
        assert!(!is_exact(peer) || passed <= late, "it was due after {time:?} and came after {passed:?}");
    }
}
