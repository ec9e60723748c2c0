//! The store of a machine: its loop, stepped by the scheduler, over an engine in memory that keeps what was
//! committed when everything else is gone, and that can be made to fail.

use ringmq::map::Keyed;
use ringmq::record::Day;
use ringmq::shard;
use ringmq::store::{
    Bell, Change, Engine, Entries, Fault, FaultKind, Figures, Ids, Kept, MemoryEngine, Read, State, Store,
    link_sized,
};
use ringmq::sync::Sequence;
use ringmq::time::Moment;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The time of day at which the clock of all machines was 0.
pub const DAY: Day = Day(1_700_000_000_000);

/// A disk in memory that cannot be written for some time.
struct Failing {
    memory: MemoryEngine,
    down: Rc<Cell<bool>>,
    /// What was refused last: a crash may find it there all the same.
    refused: Vec<Change>,
}

impl Engine for Failing {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Fault> {
        if self.down.get() {
            self.refused = changes.to_vec();
            return Err(Fault::new(FaultKind::Full, "no space left"));
        }
        self.refused.clear();
        self.memory.commit(changes)
    }

    fn read(&mut self, read: &Read) -> Result<Entries, Fault> {
        self.memory.read(read)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Kept<'_>)) -> Result<(), Fault> {
        self.memory.scan(each)
    }

    fn starts(&self) -> u64 {
        self.memory.starts()
    }

    fn tidy(&mut self) -> Result<bool, Fault> {
        self.memory.tidy()
    }

    fn figures(&self) -> Figures {
        self.memory.figures()
    }
}

/// The store, and who rings whom.
pub struct Disk {
    store: RefCell<Store<Failing>>,
    /// It cannot be written.
    pub down: Rc<Cell<bool>>,
    due: Cell<Moment>,
    bell: Arc<AtomicBool>,
    bells: Vec<Arc<AtomicBool>>,
}

impl Disk {
    /// Opens it for so many shards, each of which gets its part of what was kept.
    pub fn open(mut engine: MemoryEngine, keyed: &Keyed, shards: usize) -> (Disk, Vec<shard::Disk>) {
        engine.restart();
        let restored = shard::load(&mut engine, DAY, keyed, shards).expect("memory can be read");
        let rung = |flag: &Arc<AtomicBool>| -> Bell {
            let flag = Arc::clone(flag);
            Arc::new(move || flag.store(true, Ordering::Relaxed))
        };
        let bell = Arc::new(AtomicBool::new(false));
        let bells: Vec<Arc<AtomicBool>> = restored.iter().map(|_| Arc::default()).collect();
        let order = Sequence::new();
        let (mut ports, mut parts) = (Vec::new(), Vec::new());
        for ((me, restored), to_shard) in restored.into_iter().enumerate().zip(&bells) {
            let (link, port) = link_sized(&order, rung(&bell), rung(to_shard), 2);
            ports.push(port);
            let ids = Ids::new(engine.starts(), me as u16);
            parts.push(shard::Disk { link, ids, day: DAY, restored });
        }
        let down = Rc::new(Cell::new(false));
        let engine = Failing { memory: engine, down: Rc::clone(&down), refused: Vec::new() };
        let store = RefCell::new(Store::new(engine, ports));
        (Disk { store, down, due: Cell::new(Moment(0)), bell, bells }, parts)
    }

    /// `meanwhile`: what other cores do between two looks.
    pub fn step(&self, now: u64, meanwhile: impl FnMut()) {
        self.bell.store(false, Ordering::Relaxed);
        self.due.set(self.store.borrow_mut().step_with(Moment(now), meanwhile));
    }

    pub fn is_runnable(&self, now: u64) -> bool {
        self.bell.load(Ordering::Relaxed) || self.due.get() <= Moment(now)
    }

    /// When it has something to do by itself.
    pub fn due(&self) -> Option<u64> {
        Some(self.due.get().0).filter(|due| *due != u64::MAX)
    }

    /// Whether it has rung for a shard that has not looked since.
    pub fn rings(&self, shard: usize) -> bool {
        self.bells[shard].load(Ordering::Relaxed)
    }

    pub fn bell(&self, shard: usize) -> Arc<AtomicBool> {
        Arc::clone(&self.bells[shard])
    }

    pub fn figures(&self) -> Figures {
        self.store.borrow().figures()
    }

    pub fn is_ok(&self) -> bool {
        *self.store.borrow().state() == State::Ok
    }

    /// What was committed, and nothing else; `more`: or what was refused as well.
    pub fn crash(self, more: bool) -> MemoryEngine {
        let Failing { mut memory, refused, .. } = self.store.into_inner().into_engine();
        if more {
            memory.commit(&refused).expect("memory can be written");
        }
        memory
    }
}
