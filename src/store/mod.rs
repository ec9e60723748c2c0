//! The disk: what sessions, queues and retained messages need to outlive the process, and the one place that
//! knows how they are kept.
//!
//! A shard has a [`Link`]: it collects [`Change`]s, hands them over once per tick as a [`Batch`], and learns by
//! [`Answer::Committed`] that everything up to a batch survives a power cut. At the other end a [`Store`] takes the
//! batches of all shards, cancels out what was pushed and popped meanwhile, gives the rest to its [`Engine`] as one
//! commit, and answers. Bytes mean nothing here: whoever puts them can read them.
//!
//! Invariants:
//! - A batch is answered once all of it is committed; batches of a shard are answered in order.
//! - What is committed is a prefix of what all shards handed over, in the order in which they did: never an effect
//!   without its cause on another shard.
//! - What a commit refused stays here, in order, until one succeeds: nothing is skipped.
//! - A read shows what is committed, and holds all that its shard had put before it; while the store is read-only
//!   it shows what was committed before, and [`Entries::through`] says so.
//!
//! Trap: the store holds what it took and cannot write. Shards hand over nothing new for durable clients while it
//! is [`State::ReadOnly`], and it takes no more than [`crate::limits::STORE_GROUP_BYTES_MAX`].

mod change;
mod engine;
mod group;
mod ids;
mod link;
mod log;
mod memory;
#[cfg(test)]
mod tests;

pub use change::{Batch, BodyId, Change, Entries, Entry, Kept, QueueRow, Read, SessionId, State};
pub use engine::{Engine, Fault, FaultKind, Figures};
pub use ids::Ids;
pub use link::{Answer, Bell, Link, Port, link, link_sized};
pub use log::{Damage, Disk, File, Folder, LogEngine, LogOptions, backup};
pub use memory::MemoryEngine;

use crate::limits::{STORE_GROUP_BYTES_MAX, STORE_RETRY_MS, STORE_RING_RETRY_MS, STORE_TIDY_COMMITS};
use crate::time::Moment;
use group::Group;

/// The store's side of all links: what its thread runs, without a thread or a clock of its own.
#[derive(Debug)]
pub struct Store<E> {
    engine: E,
    ports: Vec<Port>,
    group: Group,
    state: State,
    /// When a commit that failed is tried again.
    retry: Moment,
    /// There may be room to be made.
    untidy: bool,
    /// Commits since the engine was asked to make room.
    commits: u32,
}

impl<E: Engine> Store<E> {
    /// A store for these shards.
    pub fn new(engine: E, ports: Vec<Port>) -> Store<E> {
        let (group, state) = (Group::default(), State::Ok);
        Store { engine, ports, group, state, retry: Moment::default(), untidy: true, commits: 0 }
    }

    /// Takes what is there, commits it, answers. Returns when to call it again, whether or not the bell rings
    /// before: now (`Moment` 0), some time later, or [`Moment::NEVER`].
    pub fn step(&mut self, now: Moment) -> Moment {
        self.step_with(now, || ())
    }

    /// As [`Store::step`]. `meanwhile` is called between two looks at what shards share with it, and does nothing but
    /// in a simulation, where the shards go on in it.
    pub fn step_with(&mut self, now: Moment, meanwhile: impl FnMut()) -> Moment {
        self.take(meanwhile);
        if self.retry <= now {
            self.commit(now);
        }
        self.answer_reads();
        let mut all_went = true;
        for port in &mut self.ports {
            all_went &= port.flush();
        }
        let mut next = if self.state == State::Ok { Moment::NEVER } else { self.retry };
        if !all_went {
            next = next.min(now.plus_ms(STORE_RING_RETRY_MS));
        }
        if self.group.weight() < STORE_GROUP_BYTES_MAX && !self.ports.iter().all(Port::is_empty) {
            if self.commits >= STORE_TIDY_COMMITS {
                self.tidy(now);
            }
            return Moment(0);
        }
        if self.untidy && self.state == State::Ok {
            next = next.min(self.tidy(now));
        }
        next
    }

    /// Whether nothing is there to be taken or to be written.
    pub fn is_idle(&self) -> bool {
        self.group.is_empty() && self.ports.iter().all(Port::is_empty)
    }

    /// What it holds.
    pub fn figures(&self) -> Figures {
        self.engine.figures()
    }

    /// Whether it writes.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The engine, without what was not committed: a crash, or the end.
    pub fn into_engine(self) -> E {
        self.engine
    }

    /// Takes batches of all shards in their order, up to one that may follow from something that cannot be seen yet.
    /// So what is committed never lacks what it follows from.
    fn take(&mut self, mut meanwhile: impl FnMut()) {
        let horizon = self.ports.first().map_or(0, Port::horizon);
        while self.group.weight() < STORE_GROUP_BYTES_MAX {
            let mut first = None;
            for (at, port) in self.ports.iter_mut().enumerate() {
                meanwhile();
                let order = port.order().filter(|order| *order < horizon);
                first = order.map(|order| (order, at)).into_iter().chain(first).min();
            }
            let Some((_, at)) = first else { return };
            let port = &mut self.ports[at];
            let Some(batch) = port.next() else { return };
            debug_assert_eq!(batch.number, port.taken + 1, "batches come in order");
            port.taken = batch.number;
            batch.changes.into_iter().for_each(|change| self.group.add(change));
        }
    }

    fn commit(&mut self, now: Moment) {
        if !self.group.is_empty() {
            let changes = std::mem::take(&mut self.group).compact();
            if let Err(fault) = self.engine.commit(&changes) {
                // Collected anew, so that what comes can still cancel it out.
                changes.into_iter().for_each(|change| self.group.add(change));
                self.retry = now.plus_ms(STORE_RETRY_MS);
                self.tell(State::ReadOnly { why: fault.text.into() });
                return;
            }
            self.untidy = true;
            self.commits += 1;
        } else if self.state != State::Ok && !self.probe(now) {
            return;
        }
        self.tell(State::Ok);
        for port in &mut self.ports {
            if port.answered < port.taken {
                port.answered = port.taken;
                port.answer(Answer::Committed { through: port.taken });
            }
        }
    }

    /// Everything that could not be written was taken back meanwhile: whether the disk writes again.
    fn probe(&mut self, now: Moment) -> bool {
        let written = self.engine.commit(&[]);
        if let Err(fault) = &written {
            self.retry = now.plus_ms(STORE_RETRY_MS);
            self.tell(State::ReadOnly { why: fault.text.as_str().into() });
        }
        written.is_ok()
    }

    fn tell(&mut self, state: State) {
        if self.state == state {
            return;
        }
        self.state = state;
        for port in &mut self.ports {
            port.answer(Answer::State(Box::new(self.state.clone())));
        }
    }

    fn answer_reads(&mut self) {
        for port in &mut self.ports {
            while let Some(read) = port.reads.pop_front() {
                let mut entries = self.engine.read(&read).unwrap_or_else(|fault| {
                    tracing::error!("queue {}: {fault}", read.queue);
                    Entries { queue: read.queue, lost: 1, ..Entries::default() }
                });
                entries.through = port.answered;
                port.answer(Answer::Entries(Box::new(entries)));
            }
        }
    }

    fn tidy(&mut self, now: Moment) -> Moment {
        self.commits = 0;
        match self.engine.tidy() {
            Ok(more) => self.untidy = more,
            Err(fault) => {
                self.untidy = false;
                tracing::warn!("{fault}");
            }
        }
        if self.untidy { Moment(0) } else { now.plus_ms(STORE_RETRY_MS) }
    }
}
