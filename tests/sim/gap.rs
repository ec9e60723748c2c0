//! What happens on other cores between two things that a shard does in one tick.

use crate::client::{Client, Cx};
use crate::machine::driver::Meanwhile;
use crate::machine::kernel::SharedNet;
use crate::machine::node::Node;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::random::Random;
use crate::scenes::retain_and_ask;
use crate::trace;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// Scenes of one run at most that are played within a tick.
const SCENES_MAX: u32 = 20;

/// The clients, and what is known of them: lent to whoever plays in the middle of a tick.
pub struct Cast {
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub choices: Random,
    pub settling: bool,
    pub net: SharedNet,
}

/// Where the cast is while a shard ticks.
pub type Stage = Rc<RefCell<Option<Cast>>>;

/// What other cores do meanwhile.
pub struct Gap {
    nodes: Weak<Vec<RefCell<Node>>>,
    stage: Stage,
    plan: Rc<Plan>,
    random: RefCell<Random>,
    /// Ticks within ticks.
    depth: Cell<u32>,
    scenes: Cell<u32>,
}

impl Cast {
    pub fn client(&mut self, plan: &Plan, at: usize, f: impl FnOnce(&mut Client, &mut Cx)) {
        let net = &mut *self.net.borrow_mut();
        let mut cx = Cx {
            wire: &mut net.wire,
            oracle: &mut self.oracle,
            r: &mut self.choices,
            plan,
            settle: self.settling,
        };
        f(&mut self.clients[at], &mut cx);
    }
}

impl Gap {
    pub fn new(nodes: &Rc<Vec<RefCell<Node>>>, stage: &Stage, plan: &Rc<Plan>) -> Gap {
        Gap {
            nodes: Rc::downgrade(nodes),
            stage: Rc::clone(stage),
            plan: Rc::clone(plan),
            random: RefCell::new(Random::new(plan.seed, 6)),
            depth: Cell::new(0),
            scenes: Cell::new(0),
        }
    }

    /// Ticks a shard, unless it is in the middle of a tick.
    fn tick(&self, shard: usize) -> bool {
        let Some(nodes) = self.nodes.upgrade() else { return false };
        let Ok(mut node) = nodes[shard].try_borrow_mut() else { return false };
        self.depth.set(self.depth.get() + 1);
        node.tick();
        self.depth.set(self.depth.get() - 1);
        true
    }
}

impl Meanwhile for Gap {
    /// Any other shard ticks.
    fn pass(&self) {
        let shard = self.random.borrow_mut().below(self.plan.shards);
        if self.tick(shard) {
            trace::reached("tick within a tick");
        }
    }

    /// Shard `me` is between two looks at what others share: another one ticks, or clients play a scene.
    fn look(&self, me: usize) {
        if self.depth.get() > 0 {
            return;
        }
        let play = self.scenes.get() < SCENES_MAX && self.random.borrow_mut().chance(800);
        let cast = if play { self.stage.take() } else { None };
        let Some(mut cast) = cast else { return self.pass() };
        if !cast.settling {
            self.scenes.set(self.scenes.get() + 1);
            retain_and_ask(&mut cast, &self.plan, me, &|shard| {
                self.tick(shard);
            });
        }
        self.stage.replace(Some(cast));
    }
}
