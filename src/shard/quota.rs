//! The bounds on what is retained, where a publisher can be told.
//!
//! Each shard keeps its part of the retained messages and has its part of the bounds. One whose part is nearly full
//! says so to all others. From then on a publisher that can be told 0x97 (5.0, QoS 1 and 2) waits for what the shard of
//! its topic says before anybody gets the message; everybody else's messages are delivered, and what does not fit is
//! counted where it would have been retained. As long as no part is nearly full, nobody asks anything.

use super::connection::Wait;
use super::{Handover, Next, Pressure, Shard};
use crate::codec::{Publish, ReasonCode, Version};
use crate::heap::map_bytes;
use crate::io::{Conn, Io, ShardId};
use crate::map::{Map, Slot};
use crate::mesh::Control;
use crate::message::QoS;
use crate::session::Carried;

/// What a shard knows of the others' parts.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Shards whose part is nearly full, a bit each; our own as we told it.
    tight: u64,
    /// What was said of the message that a connection waits with, until it is handled again.
    answers: Map<Slot, bool>,
}

impl Quota {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        map_bytes::<Slot, bool>(self.answers.capacity())
    }

    /// A connection serves no more.
    pub fn forget(&mut self, conn: Slot) {
        if !self.answers.is_empty() {
            self.answers.remove(&conn);
        }
    }

    /// A shard's part is nearly full, or is so no more.
    pub fn set_tight(&mut self, shard: ShardId, tight: bool) {
        self.tight = self.tight & !(1 << shard) | u64::from(tight) << shard;
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// What follows for a PUBLISH whose message is not to be retained, or not yet known to be; `None`: it goes on.
    pub(super) fn check_retain(&mut self, conn: Conn, p: &Publish, carried: &mut Carried) -> Option<Next> {
        let short = self.pressure >= Pressure::Retained;
        if !p.retain || p.payload.is_empty() || p.qos == QoS::AtMostOnce || (self.quota.tight == 0 && !short)
        {
            return None;
        }
        let slot = self.local.conns.slot(conn)?;
        if self.local.conns.get(conn)?.link.version < Version::V5 {
            return None;
        }
        let topic = carried.view().topic;
        let home = self.retained_home(topic);
        if self.quota.tight & (1 << home) == 0 && !short {
            return None;
        }
        let message = carried.share();
        let may = if short {
            false
        } else if home == self.me {
            self.retained.has_room(&message).is_ok()
        } else if let Some(may) = self.quota.answers.remove(&slot) {
            may
        } else {
            self.mesh.control(home, Control::RetainAsk { conn: slot, message });
            self.wait(conn, Wait::Retain);
            return Some(Next::Wait);
        };
        if may {
            return None;
        }
        self.local.counters.retained_refused += 1;
        let text = "the broker retains as many messages or bytes as it may";
        Some(self.acknowledge(conn, p, ReasonCode::QUOTA_EXCEEDED, text, 0))
    }

    /// Another shard asks whether a message of a topic that is at home here would be retained.
    pub(super) fn answer_retain(&mut self, from: ShardId, conn: Slot, message: &crate::message::Message) {
        let may = self.retained.has_room(message).is_ok();
        self.mesh.control(from, Control::RetainMay { conn, may });
    }

    /// What the shard of its topic says of the message that a connection waits with.
    pub(super) fn retain_answered(&mut self, conn: Slot, may: bool) {
        if self.wake_slot(conn, |wait| wait == Wait::Retain) {
            self.quota.answers.insert(conn, may);
        }
    }

    /// Tells the others where our part has become nearly full, or is so no more.
    pub(super) fn tell_tight(&mut self) {
        let tight = self.retained.is_tight();
        if tight != (self.quota.tight & (1 << self.me) != 0) {
            self.quota.set_tight(self.me, tight);
            self.mesh.broadcast(|| Control::RetainTight(tight));
        }
    }
}
