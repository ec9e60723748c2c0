//! Publishers that wait for room on a target, and who is next.
//!
//! Each waits in the line of the target that it found full, and tries again when there is room. One that needs
//! several targets could find another one full each time, for ever, while others take what is freed in turn. So
//! whoever waits longest has a claim: on each of its targets one place is kept for it.

use super::connection::{Connection, Phase, Wait};
use super::publish::Origin;
use super::{Handover, Shard};
use crate::heap::{map_bytes, vec_bytes};
use crate::io::{Conn, Io, ShardId};
use crate::map::{Map, Slot};
use std::collections::{BTreeMap, VecDeque};

/// Publishers that wait for room.
pub(super) struct Waiters {
    /// By target; in front who has the claim, then in order of arrival.
    lines: Vec<VecDeque<Slot>>,
    /// By arrival, until they have published: who, and all its targets, a bit each. The first has the claim.
    ages: BTreeMap<u64, (Slot, u64)>,
    /// The arrival of each connection in `ages`.
    arrived: Map<Conn, u64>,
    next: u64,
}

impl Waiters {
    pub fn new(shards: usize) -> Waiters {
        let lines = (0..shards).map(|_| VecDeque::new()).collect();
        Waiters { lines, ages: BTreeMap::new(), arrived: Map::default(), next: 0 }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    /// Bytes that it holds; a node of a tree is reckoned with half as much again as its entries.
    pub fn bytes(&self) -> usize {
        let lines = self.lines.iter().map(|line| vec_bytes::<Slot>(line.capacity())).sum::<usize>();
        let ages = self.ages.len() * size_of::<(u64, (Slot, u64))>() * 3 / 2;
        lines + ages + map_bytes::<Conn, u64>(self.arrived.capacity())
    }

    /// Publishers that wait.
    pub fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// A publisher found `target` full, which is one of its `targets`. It keeps its age.
    fn enter(&mut self, conn: Slot, target: ShardId, targets: u64) {
        let arrival = *self.arrived.entry(conn.index).or_insert(self.next);
        self.next += 1;
        // Where an earlier tenant of the connection stands, it takes that place.
        self.ages.insert(arrival, (conn, targets));
        let line = &mut self.lines[usize::from(target)];
        if self.ages.first_key_value().is_some_and(|(first, _)| *first == arrival) {
            line.push_front(conn);
        } else {
            line.push_back(conn);
        }
    }

    /// A publisher waits no more.
    fn leave(&mut self, conn: Slot) {
        if let Some(arrival) = self.arrived.remove(&conn.index) {
            self.ages.remove(&arrival);
        }
    }

    /// Who has the claim.
    fn first(&self) -> Option<(Slot, u64)> {
        self.ages.first_key_value().map(|(_, first)| *first)
    }

    /// Puts who has the claim in front of the line where it waits.
    fn advance_first(&mut self, target: usize) {
        let Some((first, _)) = self.first() else { return };
        let line = &mut self.lines[target];
        if line.front() != Some(&first)
            && let Some(at) = line.iter().position(|conn| *conn == first)
        {
            line.remove(at);
            line.push_front(first);
        }
    }

    /// Places on a target that are kept from everybody but `conn`.
    fn kept(&self, target: ShardId, conn: Slot) -> usize {
        self.first().map_or(0, |(first, targets)| usize::from(targets & (1 << target) != 0 && first != conn))
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// The first target without room for a message from there. `home`: the one that is to retain it.
    pub(super) fn first_full(
        &mut self,
        targets: u64,
        home: Option<ShardId>,
        origin: Origin,
    ) -> Option<ShardId> {
        if let Some(home) = home
            && !self.mesh.control_room(home)
        {
            return Some(home);
        }
        let full = |target: &ShardId| {
            let kept = match origin {
                Origin::Conn(conn) => self.waiters.kept(*target, conn),
                // Few, and tried in each tick.
                Origin::Own | Origin::Shard(_) => 0,
            };
            self.mesh.data_room(*target) <= kept
        };
        super::publish::bits(targets).find(full)
    }

    /// A publisher waits until `target`, which is one of its `targets`, has room.
    pub(super) fn wait_for_room(&mut self, conn: Slot, target: ShardId, targets: u64) {
        self.wait(conn.index, Wait::Room);
        self.waiters.enter(conn, target, targets);
    }

    /// What a publisher had waited for is decided.
    pub(super) fn has_room(&mut self, conn: Slot) {
        if !self.waiters.ages.is_empty() {
            self.waiters.leave(conn);
        }
    }

    /// Lets publishers try again that waited for room on a target.
    pub(super) fn wake_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        // A ring that takes what retains something has no overflow in front of it.
        self.mesh.pump();
        let waits =
            |c: &mut Connection| c.phase == Phase::Serving && matches!(c.wait, Wait::Room | Wait::Turn);
        while let Some((first, _)) = self.waiters.first()
            && !self.local.conns.at(first).is_some_and(waits)
        {
            self.waiters.leave(first);
        }
        for target in 0..self.shards {
            let at = usize::from(target);
            if self.waiters.lines[at].is_empty() || !self.mesh.control_room(target) {
                continue;
            }
            self.waiters.advance_first(at);
            let mut room = self.mesh.data_room(target);
            while let Some(slot) = self.waiters.lines[at].front().copied() {
                if room <= self.waiters.kept(target, slot) {
                    break;
                }
                self.waiters.lines[at].pop_front();
                // Those that are gone use no room: it is for the next in line, whom nobody else wakes.
                if self.wake_slot(slot, |w| w == Wait::Room) {
                    room -= 1;
                } else {
                    self.waiters.leave(slot);
                }
            }
        }
    }
}
