//! What a shard holds, for the simulation, which compares it with its own books. Not part of the data path.

use super::{Handover, Shard};
use crate::io::{Io, ShardId};
use crate::stats::{Counters, Gauges, Ledger, Memory};
use crate::trie::{Matches, Stats};

/// What a shard holds at one moment.
#[derive(Debug)]
pub struct Inspection<'a> {
    /// Its sessions, those that are being removed left out.
    pub sessions: Vec<SessionView>,
    /// Connections, closing ones included.
    pub connections: usize,
    /// Retained messages.
    pub retained: usize,
    /// Work that is left over, one word for each kind; empty at rest.
    pub unfinished: Vec<&'static str>,
    /// Its table of routes.
    pub routes: Stats,
    /// What it counted.
    pub counters: &'a Counters,
    /// What its mesh counted.
    pub mesh: &'a Counters,
    /// What it dropped.
    pub ledger: &'a Ledger,
    /// What it counts as there.
    pub gauges: &'a Gauges,
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Client identifier.
    pub client_id: String,
    /// Whether it has a connection.
    pub online: bool,
    /// Filter, share name and QoS of each subscription.
    pub subscriptions: Vec<(String, Option<String>, u8)>,
    /// Messages queued and messages in flight.
    pub waiting: (usize, usize),
    /// QoS 2 messages of the client that wait for PUBREL.
    pub unreleased: usize,
    /// It outlives its connection.
    pub persistent: bool,
}

/// Who gets a message, as one shard knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routes {
    /// Shards with ordinary subscribers, this one included, as bits.
    pub shards: u64,
    /// Share groups with any member, by key.
    pub groups: Vec<GroupCounts>,
}

/// One share group: its key, and (shard, members online, members offline) for each shard that has any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GroupCounts(pub u64, pub Vec<(ShardId, u32, u32)>);

impl<I: Io<Handover>> Shard<I> {
    /// What this shard holds.
    #[doc(hidden)]
    pub fn inspect(&self) -> Inspection<'_> {
        let sessions = (0..self.local.sessions.end()).filter_map(|index| self.session_view(index)).collect();
        let left = [
            ("ready", !self.ready.is_empty()),
            ("waiters", !self.waiters.is_empty()),
            ("held", !self.held.is_empty()),
            ("partials", !self.partials.is_empty()),
            ("fan-outs", !self.fan_outs.is_empty()),
            ("stalled", self.stalled != 0),
            ("backlog", !self.backlog.is_empty()),
            ("cleanup", !self.cleanup.is_empty()),
            ("scans", !self.scans.is_idle()),
            ("moving", self.moving != 0),
            ("overflow", self.mesh.overflow_len() != 0),
            ("dirty", !self.local.dirty.is_empty()),
            ("filled", !self.local.filled.is_empty()),
            ("kick", !self.local.kick.is_empty()),
            ("events", !self.events.is_empty()),
            ("store", self.local.keeper.as_ref().is_some_and(|keeper| !keeper.is_settled())),
            ("shelf", self.local.keeper.as_ref().is_some_and(|keeper| !keeper.shelf.is_empty())),
            ("done", !self.local.done.is_empty()),
        ];
        Inspection {
            sessions,
            connections: self.local.conns.len(),
            retained: self.retained.len(),
            unfinished: left.iter().filter(|(_, left)| *left).map(|(name, _)| *name).collect(),
            routes: self.trie.stats(),
            counters: &self.local.counters,
            mesh: self.mesh.counters(),
            ledger: &self.local.ledger,
            gauges: &self.local.gauges,
        }
    }

    /// The rows of memory that are counted in small pieces: as they were kept, and brought up to date.
    #[doc(hidden)]
    pub fn recount(&mut self) -> (Memory, Memory) {
        let kept = self.local.memory.clone();
        let mut now = kept.clone();
        for index in 0..self.local.sessions.end() {
            if let Some(session) = self.local.sessions.get_mut(index) {
                session.count(&mut now);
            }
        }
        for conn in 0..self.local.conns.end() {
            if let Some(connection) = self.local.conns.get_mut(conn) {
                connection.count(&mut now);
            }
        }
        self.local.memory = now.clone();
        (kept, now)
    }

    fn session_view(&self, index: u32) -> Option<SessionView> {
        let session = self.local.sessions.get(index).filter(|s| !s.ended)?;
        let subscriptions = session.subscriptions.as_slice().iter();
        let described = subscriptions.filter_map(|sub| self.trie.describe(*sub, index));
        Some(SessionView {
            client_id: session.client_id.to_string(),
            online: session.conn.is_some(),
            subscriptions: described
                .map(|(filter, group, sub)| (filter.into(), group.map(str::to_string), sub.options.qos()))
                .collect(),
            waiting: session.outgoing.as_ref().map_or((0, 0), |o| (o.queued(), o.inflight())),
            unreleased: session.incoming.as_ref().map_or(0, |i| i.len()),
            persistent: session.expiry_s > 0,
        })
    }

    /// Who this shard thinks gets a message to `topic`.
    #[doc(hidden)]
    pub fn routes_of(&self, topic: &str) -> Routes {
        let mut matches = Matches::default();
        self.trie.matches(topic, &mut matches);
        let here = u64::from(!matches.routes.is_empty()) << self.me;
        let mut groups: Vec<GroupCounts> = matches
            .groups
            .iter()
            .map(|group| {
                let view = self.trie.group(*group);
                let mut counts: Vec<_> = std::iter::once(&view.here)
                    .chain(view.remote)
                    .filter(|c| c.online + c.offline > 0)
                    .map(|c| (c.shard, c.online, c.offline))
                    .collect();
                counts.sort_unstable();
                GroupCounts(view.key, counts)
            })
            .collect();
        groups.sort();
        Routes { shards: matches.shards | here, groups }
    }
}
