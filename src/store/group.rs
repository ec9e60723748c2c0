//! The changes of one commit, less those that cancel each other out.

use super::change::{BodyId, Change, SessionId};
use crate::map::Map;
use std::collections::BTreeMap;

/// Changes of any number of batches, in order.
///
/// An entry that is pushed and popped before it was written is not written at all, nor is a body that nothing
/// points to any more; of two values for one key the later one counts.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// `None`: cancelled out.
    changes: Vec<Option<Change>>,
    weight: usize,
    live: usize,
    pushes: BTreeMap<(SessionId, u64), usize>,
    /// Where it is, and how many entries of the group point to it.
    bodies: Map<BodyId, (usize, u32)>,
    sessions: Map<SessionId, usize>,
    retained: Map<Box<str>, usize>,
    meta: Map<Box<str>, usize>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes that it is reckoned to take.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// What is left, in order.
    pub(super) fn compact(&mut self) -> Vec<Change> {
        self.changes.iter_mut().filter_map(Option::take).collect()
    }

    pub(super) fn add(&mut self, change: Change) {
        let at = self.changes.len();
        let old = match &change {
            Change::PutSession { id, .. } => self.sessions.insert(*id, at),
            Change::DropSession { id } => {
                self.cancel_pushes(*id, u64::MAX);
                self.sessions.remove(id)
            }
            Change::Push { queue, seq, body, .. } => {
                if let Some((_, entries)) = body.and_then(|id| self.bodies.get_mut(&id)) {
                    *entries += 1;
                }
                let old = self.pushes.insert((*queue, *seq), at);
                if let Some(old) = old {
                    self.cancel_push(old);
                }
                None
            }
            Change::Pop { queue, seq } => {
                if let Some(push) = self.pushes.remove(&(*queue, *seq)) {
                    self.cancel_push(push);
                    return;
                }
                None
            }
            Change::Trim { queue, to } => {
                self.cancel_pushes(*queue, *to);
                None
            }
            Change::PutBody { id, .. } => {
                self.bodies.insert(*id, (at, 0));
                None
            }
            Change::SetRetained { topic, .. } | Change::ClearRetained { topic } => {
                self.retained.insert(topic.clone(), at)
            }
            Change::PutMeta { key, .. } | Change::DropMeta { key } => self.meta.insert(key.clone(), at),
        };
        if let Some(old) = old {
            self.cancel(old);
        }
        self.live += 1;
        self.weight += change.weight();
        self.changes.push(Some(change));
    }

    fn cancel(&mut self, at: usize) {
        if let Some(change) = self.changes[at].take() {
            self.live -= 1;
            self.weight -= change.weight();
        }
    }

    fn cancel_push(&mut self, at: usize) {
        let body = match &self.changes[at] {
            Some(Change::Push { body: Some(body), .. }) => Some(*body),
            _ => None,
        };
        self.cancel(at);
        let Some(id) = body else { return };
        let Some((at, entries)) = self.bodies.get_mut(&id) else { return };
        *entries -= 1;
        if *entries == 0 {
            let at = *at;
            self.bodies.remove(&id);
            self.cancel(at);
        }
    }

    fn cancel_pushes(&mut self, queue: SessionId, to: u64) {
        let gone: Vec<u64> = self.pushes.range((queue, 0)..=(queue, to)).map(|((_, seq), _)| *seq).collect();
        for seq in gone {
            if let Some(push) = self.pushes.remove(&(queue, seq)) {
                self.cancel_push(push);
            }
        }
    }
}
