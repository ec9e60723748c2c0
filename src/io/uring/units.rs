//! The rings of one shard: the hub, which sleeps for all of them, and annexes.
//!
//! A table of direct descriptors cannot be larger than the limit of open files, but that limit is per ring. So
//! where more connections are wanted, a shard opens annex rings, each with a table and a few small buffers of
//! its own. A connection's index is that of its slot behind the tables of the rings before its own.
//!
//! An annex runs its work cooperatively: whatever system call this thread makes posts its completions, which
//! are then seen without entering it, and its descriptor becomes readable, which a poll on the hub waits for.
//! The poll is one-shot and armed before sleeping only. An annex is entered when there is something to submit.

use super::super::Conn;
use super::super::buffers::Buffers;
use super::super::driver::DriverOptions;
use super::super::ring::{Ring, Sleep};
use super::super::selftest::Features;
use crate::limits;
use io_uring::squeue;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// One ring and what belongs to it.
pub(super) struct Unit {
    // The ring is dropped before the memory that the kernel reads and writes.
    pub(super) ring: Ring,
    pub(super) buffers: Buffers,
    /// Connections that wait for a receive buffer, with their generations.
    pub(super) starved: VecDeque<(Conn, u32)>,
    /// Index of the connection in slot 0.
    pub(super) base: Conn,
    /// Slots.
    pub(super) table: usize,
    /// Slots of it that are kept for arrivals.
    headroom: usize,
    /// Slots that hold a connection, as far as is known here.
    pub(super) used: usize,
    /// Of an annex: it is among those that have something to submit or to publish.
    marked: bool,
    /// Of an annex: the hub polls it.
    pub(super) polled: bool,
}

impl Unit {
    fn open(
        features: &Features,
        hub: bool,
        base: Conn,
        table: u32,
        options: &DriverOptions,
    ) -> io::Result<Unit> {
        let (submissions, completions, buffers, bytes) = if hub {
            let (count, bytes) = (options.receive_buffers, options.receive_buffer_bytes);
            (limits::RING_SUBMISSIONS, limits::RING_COMPLETIONS, count, bytes)
        } else {
            let count = options.receive_buffers.min(limits::ANNEX_RECEIVE_BUFFERS);
            let bytes = options.receive_buffer_bytes.min(limits::ANNEX_RECEIVE_BUFFER_BYTES);
            (limits::ANNEX_SUBMISSIONS, limits::ANNEX_COMPLETIONS, count, bytes)
        };
        let ring = Ring::new(features, submissions, completions)?;
        ring.submitter().register_files_sparse(table)?;
        let buffers = Buffers::new(ring.submitter(), buffers, bytes)?;
        let starved = VecDeque::new();
        Ok(Unit {
            ring,
            buffers,
            starved,
            base,
            table: table as usize,
            headroom: table as usize * options.headroom_percent / 100,
            used: 0,
            marked: false,
            polled: false,
        })
    }

    /// Places for connections that are accepted, beside the head-room for those that arrive.
    pub(super) fn room(&self) -> usize {
        (self.table - self.headroom).saturating_sub(self.used)
    }
}

/// All rings of a shard; the first is the hub.
pub(super) struct Units {
    all: Vec<Unit>,
    /// Slots of each ring but the last, which may have fewer.
    table: u32,
    /// Annexes that have something to submit or to publish.
    marked: Vec<usize>,
    /// Connections that wait for a receive buffer.
    pub(super) starving: usize,
}

/// The hub.
pub(super) const HUB: usize = 0;

impl Units {
    /// Opens as many rings as `connections` need with tables of `table` slots, within the bound on rings.
    pub(super) fn open(
        features: &Features,
        options: &DriverOptions,
        connections: u32,
        table: u32,
    ) -> io::Result<Units> {
        let cooperative = Features { deferred: false, ..features.clone() };
        let mut all = Vec::new();
        let mut base = 0;
        while base < connections && all.len() < limits::RINGS_PER_SHARD_MAX {
            let hub = all.is_empty();
            let slots = table.min(connections - base);
            all.push(Unit::open(if hub { features } else { &cooperative }, hub, base, slots, options)?);
            base += slots;
        }
        Ok(Units { all, table, marked: Vec::new(), starving: 0 })
    }

    /// Which ring a connection is on.
    pub(super) fn index_of(&self, conn: Conn) -> usize {
        if conn < self.table { HUB } else { (conn / self.table) as usize }
    }

    pub(super) fn of(&mut self, conn: Conn) -> &mut Unit {
        let unit = self.index_of(conn);
        &mut self.all[unit]
    }

    /// The slot of a connection in its ring's table.
    pub(super) fn slot_of(&self, conn: Conn) -> u32 {
        if conn < self.table { conn } else { conn % self.table }
    }

    pub(super) fn at(&mut self, unit: usize) -> &mut Unit {
        &mut self.all[unit]
    }

    pub(super) fn hub(&mut self) -> &mut Unit {
        &mut self.all[HUB]
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Unit> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Unit> {
        self.all.iter_mut()
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The turn has to look at this ring.
    pub(super) fn mark(&mut self, unit: usize) {
        if unit != HUB && !std::mem::replace(&mut self.all[unit].marked, true) {
            self.marked.push(unit);
        }
    }

    pub(super) fn push(&mut self, unit: usize, entry: squeue::Entry) {
        self.mark(unit);
        self.all[unit].ring.push(entry);
    }

    pub(super) fn push_linked(&mut self, unit: usize, entries: &[squeue::Entry]) {
        self.mark(unit);
        self.all[unit].ring.push_linked(entries);
    }

    /// Lets the kernel see the buffers that came back.
    pub(super) fn publish(&mut self) {
        self.all[HUB].buffers.publish();
        for &unit in &self.marked {
            self.all[unit].buffers.publish();
        }
    }

    /// Whether a connection waits for a buffer that is there.
    pub(super) fn is_hungry(&self) -> bool {
        self.starving > 0 && self.all.iter().any(|u| !u.starved.is_empty() && u.buffers.available() > 0)
    }

    /// Submits what the annexes have. Whether any of them has completions.
    pub(super) fn submit_annexes(&mut self) -> bool {
        for unit in self.marked.drain(..) {
            let unit = &mut self.all[unit];
            unit.marked = false;
            if unit.ring.has_submissions() {
                unit.ring.enter(Sleep::Not);
            }
        }
        self.all[1..].iter_mut().any(|unit| unit.ring.look() > 0)
    }

    /// Another descriptor of each ring.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let door = |unit: &Unit| {
            // SAFETY: the ring's descriptor is open as long as the ring.
            unsafe { BorrowedFd::borrow_raw(unit.ring.fd()) }.try_clone_to_owned()
        };
        self.all.iter().map(door).collect()
    }

    /// Bytes of the queues of all rings, and of the receive buffers that were used.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let each = self.all.iter().map(|unit| (unit.ring.bytes(), unit.buffers.resident()));
        each.fold((0, 0), |(rings, buffers), (ring, used)| (rings + ring, buffers + used))
    }

    pub(super) fn slots(&self) -> usize {
        self.all.iter().map(|unit| unit.table).sum()
    }
}
