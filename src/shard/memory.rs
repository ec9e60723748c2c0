//! What a shard holds in memory: its part of the ledger.

use super::{Handover, Shard};
use crate::heap::vec_bytes;
use crate::io::{Event, Io};
use crate::map::Slot;
use crate::stats::Memory;
use crate::sync::shared_bytes;

impl<I: Io<Handover>> Shard<I> {
    /// What this shard holds, in bytes by row. Costs some microseconds and a few system calls of the driver: on
    /// request, or a few times per second.
    pub fn memory(&self) -> Memory {
        let (local, io, trie) = (&self.local, self.io.memory(), self.trie.stats());
        Memory {
            connections: local.conns.bytes() as u64,
            slots: io.slots as u64,
            timers: self.wheel.bytes() as u64,
            sessions: local.sessions.bytes() as u64,
            clients: local.index_bytes() as u64,
            filters: trie.filter_bytes as u64,
            routes: trie.route_bytes as u64,
            levels: trie.level_bytes as u64,
            groups: trie.group_bytes as u64,
            retained: self.retained.index_bytes() as u64,
            messages: shared_bytes(),
            sending: io.sending as u64,
            pool: local.pool.bytes() as u64,
            receive: io.receive as u64,
            rings: io.rings as u64,
            mesh: self.mesh.bytes() as u64,
            work: self.work_bytes() as u64,
            losses: local.ledger.bytes() as u64,
            retained_messages: self.retained.message_bytes() as u64,
            // Counted where they change.
            ..local.memory.clone()
        }
    }

    /// Lists of what is still to be done, and scratch space.
    fn work_bytes(&self) -> usize {
        let held = self.held.iter().map(|h| h.bytes.capacity()).sum::<usize>();
        vec_bytes::<Event<Handover>>(self.events.capacity())
            + vec_bytes::<Slot>(self.ready.capacity())
            + self.waiters.bytes()
            + held
            + vec_bytes::<super::Held>(self.held.capacity())
            + self.fan_outs.iter().map(super::publish::FanOut::bytes).sum::<usize>()
            + vec_bytes::<u32>(self.cleanup.capacity())
            + self.scans.bytes()
            + self.scratch.bytes()
            + self.local.work_bytes()
            + self.desk.bytes()
            + self.watching.bytes()
            + self.door.bytes()
            + self.wrapped.bytes()
            + self.local.keeper.as_ref().map_or(0, |keeper| keeper.bytes())
            + self.handshakes.bytes()
            + self.quota.bytes()
            + self.paces.bytes()
            + self.flapping.bytes()
    }
}
