//! Retained messages on their way to the shard of their topic.
//!
//! Two shards may retain something for the same topic, one after the other, and the topic's shard drains the
//! ring of the later one first. So each set and clear has a stamp of a sequence that all shards share, and
//! the older of two does not count. What was acknowledged before the other was published is in its ring by
//! then, so it is drained in the same tick or in the next: stamps are kept that long.

use super::obstacle::Obstacle;
use super::{Handover, Pressure, Shard};
use crate::io::{Io, ShardId};
use crate::limits::TICK_ENVELOPES_MAX;
use crate::map::Map;
use crate::mesh::Control;
use crate::message::Message;
use crate::retained;
use crate::session::{Carried, Options};
use crate::stats::LossCause;
use crate::store::Change;

/// Stamps of the sets and clears of this tick and of the one before, by key of the topic.
#[derive(Debug, Default)]
pub(super) struct Recent([Map<u64, u64>; 2]);

impl Recent {
    /// A tick begins.
    pub fn turn(&mut self) {
        let [now, before] = &mut self.0;
        if now.is_empty() && before.is_empty() {
            return;
        }
        std::mem::swap(now, before);
        now.clear();
        if now.capacity() > TICK_ENVELOPES_MAX {
            *now = Map::default();
        }
    }

    /// Whether this set or clear counts: nothing newer was there before it.
    fn admit(&mut self, key: u64, stamp: u64) -> bool {
        let newest = self.0.iter().filter_map(|m| m.get(&key)).max().copied();
        let counts = newest.is_none_or(|newest| newest < stamp);
        if counts {
            self.0[0].insert(key, stamp);
        }
        counts
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Stores or clears a retained message, here or on its topic's shard.
    /// `ticket` is answered by that shard, 0: not.
    pub(super) fn retain(&mut self, carried: &mut Carried, ticket: u64) {
        let m = carried.view();
        let cause = if self.pressure >= Pressure::Retained && !m.payload.is_empty() {
            Some(LossCause::RetainedFull)
        } else {
            // QoS 0, whose publisher cannot be told: what is on the disk and what is in memory stay the same.
            (self.obstacle() == Some(Obstacle::ReadOnly)).then_some(LossCause::StoreReadOnly)
        };
        if let Some(cause) = cause {
            self.local.ledger.record("", cause, 1);
            // Nobody else has a part in it.
            self.op_done(ticket);
            return;
        }
        let (home, stamp) = (self.retained_home(m.topic), self.mesh.stamp());
        match (home == self.me, m.payload.is_empty()) {
            (true, true) => self.clear_retained(m.topic, stamp),
            (true, false) => self.store_retained(carried.share(), stamp),
            (false, true) => {
                self.mesh.control(home, Control::RetainClear { topic: m.topic.into(), stamp, ticket });
            }
            (false, false) => {
                self.mesh.control(home, Control::RetainSet { message: carried.share(), stamp, ticket });
            }
        }
    }

    /// The shard that holds what is retained for a topic.
    pub(super) fn retained_home(&self, topic: &str) -> ShardId {
        (self.local.keyed.key(topic) % u64::from(self.shards)) as ShardId
    }

    /// Stores a retained message of a topic that is at home here.
    pub(super) fn store_retained(&mut self, message: Message, stamp: u64) {
        if !self.recent.admit(self.local.keyed.key(message.topic()), stamp) {
            return;
        }
        let copy = self.local.keeper.is_some().then(|| message.clone());
        let stored = self.retained.set(message);
        if let (Ok(_), Some(message), Some(keeper)) = (&stored, copy, &mut self.local.keeper) {
            keeper.set_retained(&message);
        }
        self.tell_tight();
        if let Err(e) = stored {
            self.local.ledger.record("", LossCause::RetainedFull, 1);
            if self.may_log() {
                tracing::warn!("a message is not retained: {e}");
            }
        }
    }

    /// Clears the retained message of a topic that is at home here.
    pub(super) fn clear_retained(&mut self, topic: &str, stamp: u64) {
        if self.recent.admit(self.local.keyed.key(topic), stamp) {
            self.retained.clear(topic);
            self.forget_retained(topic);
            self.tell_tight();
        }
    }

    /// The store forgets the retained message of a topic.
    pub(super) fn forget_retained(&mut self, topic: &str) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.put(Change::ClearRetained { topic: topic.into() });
        }
    }
}

/// This shard's part of the operator's bounds.
pub(super) fn retained_options(o: &Options, shards: usize) -> retained::Options {
    retained::Options {
        messages_max: (o.max_retained as usize / shards).max(1),
        bytes_max: (o.max_retained_bytes / shards as u64).max(1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_of_two_does_not_count_in_this_tick_and_the_next() {
        let mut recent = Recent::default();
        assert!(recent.admit(7, 20));
        assert!(!recent.admit(7, 10));
        assert!(recent.admit(8, 10), "another topic");
        recent.turn();
        assert!(!recent.admit(7, 11));
        assert!(recent.admit(7, 21));
        recent.turn();
        assert!(!recent.admit(7, 20));
        recent.turn();
        assert!(recent.admit(7, 12), "forgotten after two ticks");
    }
}
