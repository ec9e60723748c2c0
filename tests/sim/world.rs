//! One run: shards, clients and time under a seeded scheduler, in one thread.
//!
//! A shard that says it sleeps is also ticked now and then for no reason.

use crate::client::{Client, Cx};
use crate::gap::{Cast, Gap, Stage};
use crate::machine::{Build, Machine, Wire};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::random::Random;
use crate::{note, trace};
use ringmq::limits::STORE_RETRY_MS;
use ringmq::stats::{Ledger, Memory};
use ringmq::store::MemoryEngine;
use std::rc::Rc;

/// Steps of the scheduler before a run counts as one that does not come to rest.
const SETTLE_STEPS_MAX: u64 = 400_000;
/// Virtual milliseconds that a world may take to come to rest.
const SETTLE_MS_MAX: u64 = 3_600_000;
/// Virtual milliseconds that a quiet world is watched for timers.
const QUIET_MS: u64 = 12_000;

pub struct World {
    pub plan: Rc<Plan>,
    pub machine: Machine,
    stage: Stage,
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub scheduler: Random,
    choices: Random,
    pub steps: u64,
    pub settling: bool,
    /// What the runs before the last crash dropped.
    pub past: Ledger,
}

/// Starts the broker.
fn boot(plan: &Rc<Plan>, wire: Wire, engine: Option<MemoryEngine>, stage: &Stage) -> Machine {
    let build = Build {
        seed: plan.seed,
        shards: plan.shards,
        rings: plan.rings,
        policy: Default::default(),
        options: plan.options.clone(),
        fan_out_at_once: plan.fan_out_at_once,
        tick_deliveries: plan.tick_deliveries,
        route_key_mask: plan.route_key_mask,
    };
    let machine = Machine::with_disk(&build, wire, engine);
    machine.interrupt_with(Box::new(Gap::new(&machine.nodes, stage, plan)));
    machine
}

impl World {
    pub fn new(seed: u64) -> World {
        let plan = Rc::new(Plan::new(seed));
        note!("{plan:#?}");
        let wire = Wire::new(plan.shards, plan.faults.clone(), Random::new(seed, 2));
        let stage = Stage::default();
        let machine = boot(&plan, wire, plan.crashes.map(|_| MemoryEngine::new()), &stage);
        let mut world = World {
            machine,
            stage,
            clients: Vec::new(),
            oracle: Oracle::default(),
            scheduler: Random::new(seed, 3),
            choices: Random::new(seed, 4),
            steps: 0,
            settling: false,
            past: Ledger::default(),
            plan,
        };
        world.oracle.full_refuses = world.plan.options.queue_full == ringmq::session::QueueFull::Reject;
        world.oracle.may_refuse = world.oracle.full_refuses || world.plan.disk_faults.is_some();
        for profile in world.plan.profiles.clone() {
            world.add_client(profile);
        }
        if world.plan.shards == 16 {
            trace::reached("16 shards");
        }
        world
    }

    pub fn add_client(&mut self, profile: crate::plan::Profile) -> usize {
        let lasting = profile.expiry_s > 0 && !profile.anonymous;
        let index = self.oracle.client(profile.id.clone(), profile.anonymous, lasting);
        self.clients.push(Client::new(index, profile));
        index
    }

    pub fn now(&self) -> u64 {
        self.machine.now()
    }

    pub fn advance(&mut self, to: u64) {
        self.machine.advance(to);
    }

    /// Clients act, everything goes wrong.
    pub fn chaos(&mut self) {
        let mut actions = self.plan.actions;
        while actions > 0 {
            self.step_begins();
            if let Some(often) = self.plan.crashes {
                if self.scheduler.chance(300) {
                    self.machine.step_disk();
                }
                if self.scheduler.below(10_000) < often as usize {
                    self.crash();
                }
            }
            if let Some(often) = self.plan.disk_faults
                && self.scheduler.below(10_000) < often as usize
            {
                self.turn_disk();
            }
            match self.scheduler.below(100) {
                0..50 => self.tick_any(),
                50..74 => {
                    let client = self.scheduler.below(self.clients.len());
                    self.client(client, |client, cx| client.step(cx));
                }
                74..86 => {
                    actions -= 1;
                    let client = self.scheduler.below(self.clients.len());
                    self.client(client, |client, cx| client.act(cx));
                    if self.scheduler.chance(self.plan.scenes) {
                        self.scene();
                    }
                }
                _ => {
                    let mut ms = self.scheduler.range(0, 3);
                    if self.scheduler.chance(self.plan.jump) {
                        trace::reached("clock jump");
                        ms = self.scheduler.pick(&[1_000, 4_000, 40_000, 400_000]);
                    }
                    let now = self.now();
                    self.advance(now + ms);
                }
            }
        }
        if self.plan.retain > 0 {
            ["r/1", "r/2", "t/a", "r/1/deep"].into_iter().for_each(|topic| self.race(topic));
        }
    }

    /// The disk fails, or works again.
    fn turn_disk(&mut self) {
        let down = self.machine.disk.as_ref().is_some_and(|disk| disk.down.get());
        note!("---- the disk {}", if down { "works again" } else { "fails" });
        self.machine.fail_disk(!down);
        if down && self.scheduler.chance(600) {
            // The store tries again some time later.
            let now = self.now();
            self.advance(now + STORE_RETRY_MS);
        }
    }

    /// The process is gone, and what was not committed with it. Another one with another number of shards opens what
    /// is left; everybody notices.
    pub fn crash(&mut self) {
        note!("---- crash");
        trace::reached("crash");
        self.past = self.ledger();
        self.oracle.crash();
        for at in 0..self.clients.len() {
            if let Some(link) = &mut self.clients[at].link {
                // Nobody promised it.
                link.will = None;
            }
            self.client(at, |client, cx| client.leave(cx, crate::net::Leave::Reset));
        }
        let shards = self.scheduler.pick(&[1, 2, 3, 4]);
        self.plan = Rc::new(Plan { shards, slow: None, ..Plan::clone(&self.plan) });
        let nobody = Wire::new(1, self.plan.faults.clone(), Random::new(self.plan.seed, 8));
        let empty = boot(&Rc::new(Plan { shards: 1, ..Plan::clone(&self.plan) }), nobody, None, &self.stage);
        let (mut wire, engine) = std::mem::replace(&mut self.machine, empty).crash();
        wire.crash(shards);
        self.machine = boot(&self.plan, wire, engine, &self.stage);
    }

    pub fn step_begins(&mut self) {
        self.steps += 1;
        trace::at(self.now(), self.steps);
        self.oracle.read_only = self.machine.is_read_only();
    }

    fn tick_any(&mut self) {
        let shard = self.scheduler.below(self.machine.nodes.len());
        if self.plan.slow == Some(shard) && !self.scheduler.chance(40) {
            trace::reached("slow shard");
            return;
        }
        if self.is_runnable(shard) || self.scheduler.chance(20) {
            self.tick(shard);
            if self.scheduler.chance(500) {
                self.react();
            }
        }
    }

    pub fn is_runnable(&self, shard: usize) -> bool {
        self.machine.is_runnable(shard)
    }

    /// A shard ticks. The clients are on stage meanwhile: see [`Gap`].
    pub fn tick(&mut self, shard: usize) {
        let cast = Cast {
            clients: std::mem::take(&mut self.clients),
            oracle: std::mem::take(&mut self.oracle),
            choices: self.choices.clone(),
            settling: self.settling,
            net: Rc::clone(&self.machine.net),
        };
        self.stage.replace(Some(cast));
        self.machine.tick(shard);
        let cast = self.stage.take().expect("whoever takes the cast brings it back");
        (self.clients, self.oracle, self.choices) = (cast.clients, cast.oracle, cast.choices);
    }

    pub fn client(&mut self, at: usize, f: impl FnOnce(&mut Client, &mut Cx)) {
        let net = &mut *self.machine.net.borrow_mut();
        let mut cx = Cx {
            wire: &mut net.wire,
            oracle: &mut self.oracle,
            r: &mut self.choices,
            plan: &self.plan,
            settle: self.settling,
        };
        f(&mut self.clients[at], &mut cx);
    }

    /// No faults any more: everybody connects, and everything that is due arrives.
    pub fn settle(&mut self) {
        note!("---- settle");
        self.settling = true;
        self.machine.fail_disk(false);
        if self.machine.is_read_only() {
            // Who is refused comes again at once; the store tries again some time later.
            let now = self.now();
            self.advance(now + STORE_RETRY_MS);
        }
        {
            let wire = &mut self.machine.net.borrow_mut().wire;
            wire.faults.table = usize::MAX;
            (wire.faults.enfile, wire.faults.accept_fails) = (0, 0);
            (0..wire.sockets.len()).for_each(|socket| wire.bury(socket));
        }
        for at in 0..self.clients.len() {
            // A connection that is not served yet, or whose client would not ping, starts anew.
            if self.clients[at].link.as_ref().is_some_and(|l| !l.connect_sent || l.no_ping) {
                self.client(at, |client, cx| client.leave(cx, crate::net::Leave::Fin));
            }
        }
        // Where a full queue refuses publishers, nobody may stay away from his.
        let chance = if self.oracle.full_refuses { 0 } else { 450 };
        let absent: Vec<bool> = self.clients.iter().map(|_| self.scheduler.chance(chance)).collect();
        for at in (0..self.clients.len()).filter(|at| absent[*at]) {
            self.client(at, |client, cx| client.leave(cx, crate::net::Leave::Reset));
        }
        note!("absent {absent:?}");
        self.gather(&absent);
        self.check_absent();
        let nobody = vec![false; absent.len()];
        self.gather(&nobody);
    }

    /// Everybody but the absent connects, and all comes to rest.
    fn gather(&mut self, absent: &[bool]) {
        let all = 0..self.clients.len();
        self.run_until_rest(|world| {
            let here = || all.clone().filter(|at| !absent[*at]);
            for at in here() {
                if world.clients[at].link.is_none() {
                    world.client(at, |client, cx| client.connect(cx));
                }
            }
            here().all(|at| world.clients[at].is_calm())
        });
    }

    /// Runs everything that can run, and time where nothing can, until `done` and then nothing for a while.
    pub fn run_until_rest(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        let (first_step, start) = (self.steps, self.now());
        let mut quiet_since = None;
        loop {
            let calm = done(self);
            let mut ran = false;
            for shard in 0..self.machine.nodes.len() {
                if self.is_runnable(shard) && !self.scheduler.chance(100) {
                    self.step_begins();
                    if self.steps - first_step > SETTLE_STEPS_MAX - 20 {
                        note!("ticks shard {shard}{}", self.machine.net.borrow().describe(shard));
                    }
                    self.tick(shard);
                    ran = true;
                }
            }
            if self.machine.is_disk_runnable() {
                self.machine.step_disk();
                ran = true;
            }
            for at in 0..self.clients.len() {
                let now = self.now();
                let due = self.clients[at].next_due(&self.machine.net.borrow().wire);
                let ghosts = !self.clients[at].ghosts.is_empty();
                if ghosts || due.is_some_and(|due| due <= now) {
                    self.step_begins();
                    if self.steps - first_step > SETTLE_STEPS_MAX - 20 {
                        note!("steps client {at} due {due:?}");
                    }
                    self.client(at, |client, cx| client.step(cx));
                    ran |= !ghosts || self.clients[at].ghosts.is_empty();
                }
            }
            let now = self.now();
            assert!(
                self.steps - first_step < SETTLE_STEPS_MAX && now - start < SETTLE_MS_MAX,
                "the world does not come to rest after {} steps and {} ms: {}",
                self.steps - first_step,
                now - start,
                self.restless()
            );
            if ran || (0..self.machine.nodes.len()).any(|shard| self.is_runnable(shard)) {
                continue;
            }
            if !calm {
                quiet_since = None;
            }
            let since = *quiet_since.get_or_insert(now);
            match self.next_due() {
                _ if calm && now - since >= QUIET_MS => return,
                Some(due) if due <= now + 60_000 || !calm => self.advance(due.max(now + 1)),
                _ if calm => self.advance(now + QUIET_MS),
                _ => panic!("the world hangs: {}", self.restless()),
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        let net = self.machine.net.borrow();
        let clients = self.clients.iter().filter_map(|c| c.next_due(&net.wire)).min();
        clients.into_iter().chain(self.machine.next_due()).min()
    }

    /// Who still waits for something.
    fn restless(&self) -> String {
        let mut text = String::new();
        for client in self.clients.iter().filter(|c| !c.is_calm()) {
            let link = client.link.as_ref();
            text += &format!(
                "\n  {}: up {:?} unacked {:?} awaited {:?} out {:?} ghosts {:?}",
                client.profile.id,
                link.map(|l| l.up),
                client.outgoing,
                link.map(|l| &l.awaited),
                link.map(|l| l.out.len()),
                client.ghosts
            );
        }
        for (at, node) in self.machine.nodes.iter().enumerate() {
            let node = node.borrow();
            let seen = node.shard.inspect();
            let due = self.machine.net.borrow().next_due(at);
            text += &format!(
                "\n  shard {at}: {:?} asleep until {:?}, driver {due:?}",
                seen.unfinished, node.deadline
            );
            text += &self.machine.net.borrow().describe(at);
        }
        text
    }

    /// The operator stops the broker: everybody is told, nothing stays open.
    pub fn drain(&mut self) {
        note!("---- drain");
        trace::reached("drain");
        self.machine.order_drain(10_000);
        self.run_until_rest(|world| {
            world.machine.is_stopped() && world.clients.iter().all(|c| c.link.is_none())
        });
        self.machine.expect_nothing_held();
    }

    /// Everybody leaves for good; nothing may stay behind.
    pub fn tear_down(&mut self) {
        note!("---- tear down");
        for at in 0..self.clients.len() {
            self.clients[at].farewell();
        }
        self.run_until_rest(|world| world.clients.iter().all(|c| c.link.is_none()));
        // Sessions of 3.x end after hours.
        let now = self.now();
        self.advance(now + 110_000_000);
        self.run_until_rest(|_| true);
        for (at, node) in self.machine.nodes.iter().enumerate() {
            let mut node = node.borrow_mut();
            assert_eq!(node.shard.recount().0, Memory::default(), "shard {at} counts memory that is gone");
            let seen = node.shard.inspect();
            assert_eq!(seen.sessions, [], "shard {at} keeps sessions");
            assert_eq!(seen.unfinished, [""; 0], "shard {at} has work left");
            let r = seen.routes;
            assert_eq!(
                (r.filters, r.subscriptions, r.groups, r.exact_keys),
                (0, 0, 0, 0),
                "shard {at} keeps routes"
            );
        }
        self.machine.expect_nothing_held();
        if let Some(disk) = &self.machine.disk {
            let figures = disk.figures();
            let kept = (figures.sessions, figures.queues, figures.bodies);
            assert_eq!(kept, (0, 0, 0), "the store keeps sessions, queues or bodies");
        }
    }
}
