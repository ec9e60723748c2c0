//! Clients that come and go all the time are banned for a while, where that is configured.
//!
//! A client lives on one shard, which counts how often its connection ended, and bans it by itself. The management
//! thread, which has the list of bans, is told when it asks. While nothing is configured there is no state.

use super::{Handover, Shard};
use crate::auth::{Aging, Ban, Banned};
use crate::desk::Flapped;
use crate::heap::{allocated, vec_bytes};
use crate::io::Io;
use crate::limits::{FLAPPED_TOLD_MAX, FLAPPING_CLIENTS_MAX, FLAPPING_WINDOW_S_MAX};
use crate::time::Moment;
use std::collections::VecDeque;
use std::sync::Arc;

/// Who came and went how often.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    /// By key of the client identifier.
    ends: Option<Box<Aging<u64, Ends>>>,
    /// Bans that the management thread was not told of; of too many, it is not told of the oldest, which hold all the same.
    told: VecDeque<Flapped>,
}

/// Ends of a client's connections since a moment.
#[derive(Clone, Copy, Debug)]
struct Ends {
    count: u32,
    since: Moment,
}

impl Flapping {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let entry = allocated(size_of::<(u64, Ends)>() * 2);
        self.ends.as_ref().map_or(0, |ends| ends.len() * entry) + vec_bytes::<Flapped>(self.told.capacity())
    }

    /// Forgets who came and went: something else is configured.
    pub fn start_over(&mut self) {
        self.ends = None;
    }

    /// Bans since this was asked last.
    pub fn take_told(&mut self) -> Vec<Flapped> {
        std::mem::take(&mut self.told).into()
    }

    /// A ban was taken back.
    pub fn forget(&mut self, who: &Banned) {
        if let Banned::ClientId(id) = who {
            self.told.retain(|flapped| flapped.client_id != *id);
        }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// A client's connection has ended; once that was too often, the client is banned.
    pub(super) fn note_end(&mut self, key: u64, client_id: &str, listener: u8) {
        let flapping = self.local.options.of(listener).flapping;
        if flapping.threshold == 0 || self.drain.is_some() {
            return;
        }
        let now = self.local.now;
        let period_ms = u64::from(FLAPPING_WINDOW_S_MAX) * 1_000;
        let new = || Box::new(Aging::new(FLAPPING_CLIENTS_MAX, period_ms));
        let known = self.flapping.ends.get_or_insert_with(new);
        let window_ms = u64::from(flapping.window_s) * 1_000;
        let before = known.find(&key, now).copied().filter(|ends| now.since_ms(ends.since) < window_ms);
        let before = before.unwrap_or(Ends { count: 0, since: now });
        let ends = Ends { count: before.count + 1, ..before };
        if ends.count < flapping.threshold {
            return known.put(key, ends, now);
        }
        known.remove(&key);
        let until = now.plus_s(flapping.ban_s.into());
        let id: Arc<str> = client_id.into();
        let (by, reason) = ("flapping".into(), "".into());
        let ban = Ban { who: Banned::ClientId(id.clone()), by, reason, at_s: 0, until_s: 0 };
        if !self.door.bans.has_room(&ban) {
            return;
        }
        self.local.counters.flapped += 1;
        if self.may_log() {
            tracing::info!(
                client_id,
                "banned for {} s: it came and went {} times",
                flapping.ban_s,
                ends.count
            );
        }
        self.door.bans.put(Arc::new(ban), until);
        if self.flapping.told.len() >= FLAPPED_TOLD_MAX {
            self.flapping.told.pop_front();
        }
        self.flapping.told.push_back(Flapped { client_id: id, count: ends.count, at: now, until });
    }
}
