//! The shards of a machine, and which of them can run.
//!
//! A shard that says it sleeps is ticked again when its driver has something for it or when its deadline has
//! come; so a wake-up that is lost shows as a machine that does not come to rest.

use super::driver::{Meanwhile, Others, SimIo};
use super::kernel::{Net, SharedNet};
use super::net::Wire;
use super::random::Random;
use super::store::Disk;
use super::trace;
use ringmq::auth::Policy;
use ringmq::io::ListenSpec;
use ringmq::map::Keyed;
use ringmq::mesh::mesh_sized;
use ringmq::session::Options;
use ringmq::shard::{Command, Parts, Shard};
use ringmq::store::MemoryEngine;
use ringmq::time::Moment;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

/// What a machine is made of.
pub struct Build {
    pub seed: u64,
    pub shards: usize,
    /// Entries of a control ring and of a data ring.
    pub rings: (usize, usize),
    pub options: Options,
    pub policy: Arc<Policy>,
    pub fan_out_at_once: usize,
    pub tick_deliveries: usize,
    /// Bits of the key of an exact filter that count.
    pub route_key_mask: u64,
}

/// A shard and what it said before it went to sleep.
pub struct Node {
    pub shard: Shard<SimIo>,
    net: SharedNet,
    me: usize,
    /// `None`: it is awake.
    pub deadline: Option<Moment>,
    commands: Sender<Command>,
    /// Rung by the store.
    bell: Option<Arc<AtomicBool>>,
}

/// All shards and the network.
pub struct Machine {
    pub net: SharedNet,
    /// Shared with the drivers, which let one tick within another's tick.
    pub nodes: Rc<Vec<RefCell<Node>>>,
    others: Others,
    /// What is kept, where anything is.
    pub disk: Option<Disk>,
}

impl Machine {
    pub fn new(build: &Build, wire: Wire) -> Machine {
        Machine::with_disk(build, wire, None)
    }

    /// Shards that keep what is to be kept in this engine, and have what was kept in it before.
    pub fn with_disk(build: &Build, wire: Wire, engine: Option<MemoryEngine>) -> Machine {
        let net = Rc::new(RefCell::new(Net::new(build.shards, wire)));
        let others = Others::default();
        let (disk, parts) = match engine {
            None => (None, Vec::new()),
            Some(engine) => {
                let (disk, parts) = Disk::open(engine, &Keyed::new(build.seed), build.shards);
                (Some(disk), parts)
            }
        };
        let nodes = Rc::new(nodes(build, &net, &others, disk.as_ref(), parts));
        let machine = Machine { net, nodes, others, disk };
        machine.open();
        let random = RefCell::new(Random::new(build.seed, 6));
        machine.others.replace(Some(Box::new(Interrupter { nodes: Rc::downgrade(&machine.nodes), random })));
        machine
    }

    /// Listeners open once every shard knows what the others restored.
    fn open(&self) {
        let replies: Vec<_> = self.nodes.iter().map(|_| channel()).collect();
        for (node, (reply, _)) in self.nodes.iter().zip(&replies) {
            let reply = reply.clone();
            node.borrow().commands.send(Command::Ready { reply }).expect("the shard holds the other end");
        }
        let mut ready = vec![false; replies.len()];
        while !ready.iter().all(|ready| *ready) {
            for (shard, (_, answers)) in replies.iter().enumerate() {
                self.tick(shard);
                ready[shard] |= answers.try_recv().is_ok();
            }
            self.step_disk();
        }
        let (reply, _) = channel();
        let addr = "127.0.0.1:1883".parse().expect("an address");
        let spec = ListenSpec::new(addr, 1_024);
        self.order(|| Command::Listen { spec: spec.clone(), reply: reply.clone() });
    }

    /// The store takes, commits and answers what is there.
    pub fn step_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.step(self.now(), || {
                let go = self.net.borrow_mut().wire.random.chance(250);
                if let (true, Some(others)) = (go, &*self.others.borrow()) {
                    others.pass();
                }
            });
        }
    }

    /// Whether the store has something to do.
    pub fn is_disk_runnable(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_runnable(self.now()))
    }

    /// The disk cannot be written from now on, or can again.
    pub fn fail_disk(&self, down: bool) {
        self.disk.iter().for_each(|disk| disk.down.set(down));
    }

    /// Whether the store has noticed that it cannot write.
    pub fn is_read_only(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| !disk.is_ok())
    }

    /// The process is gone. What is left: the network, and what was committed.
    pub fn crash(self) -> (Wire, Option<MemoryEngine>) {
        self.others.replace(None);
        let mut machine = self;
        let more = machine.net.borrow_mut().wire.random.chance(500);
        let engine = machine.disk.take().map(|disk| disk.crash(more));
        let net = Rc::clone(&machine.net);
        drop(machine);
        let net = Rc::try_unwrap(net).expect("the drivers are gone").into_inner();
        (net.wire, engine)
    }

    /// Something else happens in the middle of ticks from now on.
    pub fn interrupt_with(&self, meanwhile: Box<dyn Meanwhile>) {
        self.others.replace(Some(meanwhile));
    }

    pub fn now(&self) -> u64 {
        self.net.borrow().wire.now
    }

    pub fn advance(&self, to: u64) {
        self.net.borrow_mut().wire.now = to;
    }

    /// Whether a shard is awake, or would wake up now.
    pub fn is_runnable(&self, shard: usize) -> bool {
        let now = self.now();
        let node = self.nodes[shard].borrow();
        if node.shard.is_stopped() {
            return false;
        }
        let Some(deadline) = node.deadline else { return true };
        if self.disk.as_ref().is_some_and(|disk| disk.rings(shard)) {
            return true;
        }
        deadline.0 <= now || self.net.borrow().next_due(shard).is_some_and(|due| due <= now)
    }

    pub fn tick(&self, shard: usize) {
        self.nodes[shard].borrow_mut().tick();
    }

    /// When a shard has something to do next.
    pub fn next_due(&self) -> Option<u64> {
        let net = self.net.borrow();
        let drivers = (0..self.nodes.len()).filter_map(|shard| net.next_due(shard));
        let timers = self
            .nodes
            .iter()
            .filter_map(|n| n.borrow().deadline.filter(|_| !n.borrow().shard.is_stopped()))
            .filter(|d| *d != Moment::NEVER)
            .map(|d| d.0);
        let disk = self.disk.as_ref().and_then(Disk::due);
        drivers.chain(timers).chain(disk).min()
    }

    /// The operator tells all shards something.
    fn order(&self, command: impl Fn() -> Command) {
        for (at, node) in self.nodes.iter().enumerate() {
            node.borrow().commands.send(command()).expect("the shard holds the other end");
            self.net.borrow_mut().kernels[at].ring();
        }
    }

    /// The operator stops the broker.
    pub fn order_drain(&self, within_ms: u64) {
        self.order(|| Command::Drain { within_ms });
    }

    /// The operator changes the options.
    pub fn order_reload(&self, options: &Options) {
        self.order(|| Command::Reload(Box::new(options.clone()), Vec::new()));
    }

    pub fn is_stopped(&self) -> bool {
        self.nodes.iter().all(|node| node.borrow().shard.is_stopped())
    }

    /// No shard has a connection, a descriptor or a receive buffer left.
    pub fn expect_nothing_held(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.borrow().shard.inspect().connections, 0, "shard {at} keeps connections");
            let held = self.net.borrow().kernels[at].held();
            assert_eq!(held, (0, 0), "shard {at} keeps descriptors or buffers");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The drivers hold it, and it holds the shards that hold the drivers.
        self.others.replace(None);
    }
}

impl Node {
    /// One turn of the shard's loop, up to where it would sleep.
    pub fn tick(&mut self) {
        if self.shard.is_stopped() {
            return;
        }
        if let Some(bell) = &self.bell {
            bell.store(false, Ordering::Relaxed);
        }
        self.shard.work(self.deadline);
        self.deadline = self.shard.prepare();
        let (_, leased) = self.net.borrow().kernels[self.me].held();
        assert_eq!(leased, 0, "shard {} keeps receive buffers from tick to tick", self.me);
    }
}

/// Ticks any shard but those that are in the middle of a tick.
struct Interrupter {
    nodes: Weak<Vec<RefCell<Node>>>,
    random: RefCell<Random>,
}

impl Meanwhile for Interrupter {
    fn pass(&self) {
        let Some(nodes) = self.nodes.upgrade() else { return };
        let other = self.random.borrow_mut().below(nodes.len());
        if let Ok(mut node) = nodes[other].try_borrow_mut() {
            trace::reached("tick within a tick");
            node.tick();
        }
    }

    fn look(&self, _me: usize) {
        self.pass();
    }
}

fn nodes(
    build: &Build,
    net: &SharedNet,
    others: &Others,
    disk: Option<&Disk>,
    parts: Vec<ringmq::shard::Disk>,
) -> Vec<RefCell<Node>> {
    let mut parts = parts.into_iter();
    let meshes = mesh_sized(build.shards, build.rings.0, build.rings.1);
    let mut random = Random::new(build.seed, 5);
    let node = |(me, mesh)| {
        let (commands, inbox) = channel();
        let mut shard = Shard::new(Parts {
            io: SimIo { net: Rc::clone(net), me, others: Rc::clone(others) },
            mesh,
            me: me as u16,
            shards: build.shards,
            keyed: Keyed::new(build.seed),
            seed: random.next(),
            options: build.options.clone(),
            policy: build.policy.clone(),
            ask_login: None,
            ask_rights: None,
            helpers: None,
            entrances: Vec::new(),
            log_lines_per_s: 0,
            commands: inbox,
            fan_out_at_once: build.fan_out_at_once,
            tick_deliveries: build.tick_deliveries,
            route_key_mask: build.route_key_mask,
            store: parts.next(),
        });
        let deadline = shard.prepare();
        shard.work(deadline);
        let deadline = shard.prepare();
        let bell = disk.map(|disk| disk.bell(me));
        RefCell::new(Node { shard, net: Rc::clone(net), me, deadline, commands, bell })
    };
    meshes.into_iter().enumerate().map(node).collect()
}
