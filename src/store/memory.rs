//! An engine without a disk, for tests and simulations: what was committed is kept, until the process ends.

use super::change::{BodyId, Change, Entries, Entry, Kept, QueueRow, Read, SessionId};
use super::engine::{Engine, Fault, Figures};
use std::collections::{BTreeMap, VecDeque};

type Queue = BTreeMap<u64, (Option<BodyId>, Box<[u8]>)>;

/// Trees in memory. A crash is to drop the [`super::Store`] and to go on with its engine:
/// [`super::Store::into_engine`], then [`MemoryEngine::restart`].
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    sessions: BTreeMap<SessionId, Box<[u8]>>,
    queues: BTreeMap<SessionId, Queue>,
    /// With how many entries point to it.
    bodies: BTreeMap<BodyId, (u64, Box<[u8]>)>,
    retained: BTreeMap<Box<str>, Box<[u8]>>,
    meta: BTreeMap<Box<str>, Box<[u8]>>,
    restarts: u64,
    commits: u64,
    /// What the next commits answer.
    failures: VecDeque<Fault>,
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// It is opened again.
    pub fn restart(&mut self) {
        self.restarts += 1;
        self.failures.clear();
    }

    /// One of the next commits fails so; those of several calls fail one after the other.
    pub fn fail_next(&mut self, fault: Fault) {
        self.failures.push_back(fault);
    }

    /// The next commits do not fail.
    pub fn heal(&mut self) {
        self.failures.clear();
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutSession { id, bytes } => drop(self.sessions.insert(id, bytes)),
            Change::DropSession { id } => {
                self.sessions.remove(&id);
                self.trim(id, u64::MAX);
            }
            Change::Push { queue, seq, body, bytes } => {
                if let Some(body) = body.and_then(|id| self.bodies.get_mut(&id)) {
                    body.0 += 1;
                }
                let old = self.queues.entry(queue).or_default().insert(seq, (body, bytes));
                self.release(old.and_then(|(body, _)| body));
            }
            Change::Pop { queue, seq } => {
                let Some(entries) = self.queues.get_mut(&queue) else { return };
                let gone = entries.remove(&seq);
                if entries.is_empty() {
                    self.queues.remove(&queue);
                }
                self.release(gone.and_then(|(body, _)| body));
            }
            Change::Trim { queue, to } => self.trim(queue, to),
            Change::PutBody { id, bytes } => drop(self.bodies.entry(id).or_insert((0, bytes))),
            Change::SetRetained { topic, bytes } => drop(self.retained.insert(topic, bytes)),
            Change::ClearRetained { topic } => drop(self.retained.remove(&topic)),
            Change::PutMeta { key, bytes } => drop(self.meta.insert(key, bytes)),
            Change::DropMeta { key } => drop(self.meta.remove(&key)),
        }
    }

    fn trim(&mut self, queue: SessionId, to: u64) {
        let Some(entries) = self.queues.get_mut(&queue) else { return };
        let mut gone = entries.split_off(&to.saturating_add(1));
        if to == u64::MAX {
            gone.clear();
        }
        std::mem::swap(entries, &mut gone);
        if entries.is_empty() {
            self.queues.remove(&queue);
        }
        for (body, _) in gone.into_values() {
            self.release(body);
        }
    }

    fn release(&mut self, body: Option<BodyId>) {
        let Some(id) = body else { return };
        let Some(body) = self.bodies.get_mut(&id) else { return };
        body.0 = body.0.saturating_sub(1);
        if body.0 == 0 {
            self.bodies.remove(&id);
        }
    }
}

impl Engine for MemoryEngine {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Fault> {
        if let Some(fault) = self.failures.pop_front() {
            return Err(fault);
        }
        for change in changes {
            self.apply(change.clone());
        }
        // Nothing points to it, and nothing will.
        self.bodies.retain(|_, (count, _)| *count > 0);
        self.commits += 1;
        Ok(())
    }

    fn read(&mut self, read: &Read) -> Result<Entries, Fault> {
        let mut found = Entries { queue: read.queue, ..Entries::default() };
        let mut bytes_left = read.bytes_max as usize;
        for (seq, (body, bytes)) in self.queues.get(&read.queue).iter().flat_map(|q| q.range(read.from..)) {
            let body = body.and_then(|id| Some((id, self.bodies.get(&id)?.1.clone())));
            let size = bytes.len() + body.as_ref().map_or(0, |(_, bytes)| bytes.len());
            let full = found.entries.len() >= read.entries_max as usize || size > bytes_left;
            if full && !found.entries.is_empty() {
                found.more = true;
                break;
            }
            bytes_left = bytes_left.saturating_sub(size);
            found.entries.push(Entry { seq: *seq, bytes: bytes.clone(), body });
        }
        Ok(found)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Kept<'_>)) -> Result<(), Fault> {
        for (id, bytes) in &self.sessions {
            each(Kept::Session { id: *id, bytes });
        }
        for (queue, entries) in &self.queues {
            let ends = entries.first_key_value().zip(entries.last_key_value());
            let Some(((first, _), (last, _))) = ends else { continue };
            let count = entries.len() as u64;
            each(Kept::Queue(QueueRow { queue: *queue, first: *first, last: *last, count }));
        }
        for (topic, bytes) in &self.retained {
            each(Kept::Retained { topic, bytes });
        }
        for (key, bytes) in &self.meta {
            each(Kept::Meta { key, bytes });
        }
        Ok(())
    }

    fn starts(&self) -> u64 {
        self.restarts + 1
    }

    fn tidy(&mut self) -> Result<bool, Fault> {
        Ok(false)
    }

    fn figures(&self) -> Figures {
        Figures {
            sessions: self.sessions.len() as u64,
            queues: self.queues.len() as u64,
            entries: self.queues.values().map(|queue| queue.len() as u64).sum(),
            bodies: self.bodies.len() as u64,
            retained: self.retained.len() as u64,
            meta: self.meta.len() as u64,
            commits: self.commits,
            ..Figures::default()
        }
    }
}
