//! Connections from and to other shards.
//!
//! What travels is a box whose pointer is the `user_data` of the completion at the target. Its owner is the
//! target once the descriptor was sent: there is a completion there exactly when sending succeeded here. When
//! it failed the box is ours again.

use super::super::driver::{Address, NOTHING};
use super::super::ops::{self, Op};
use super::super::ring::Sleep;
use super::super::{Conn, Event, Io, ShardId};
use super::Uring;
use super::slots::{Armed, Phase};
use super::units::HUB;
use crate::limits;
use crate::time::Moment;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::time::Duration;

/// A connection on its way.
struct Journey<H> {
    to: ShardId,
    /// The ring of the target that it was sent to.
    door: usize,
    /// Rings of the target that were full.
    tried: usize,
    /// What travels, as long as sending may fail.
    item: Option<NonNull<H>>,
    /// How sending ended.
    sent: Option<i32>,
    /// How the close that is linked behind it ended.
    closed: Option<i32>,
}

/// The connections that are on their way.
pub(super) struct Moving<H> {
    journeys: Vec<Option<Journey<H>>>,
    free: Vec<u32>,
    /// For each shard the ring that had a place last; the next one is tried when it is full.
    doors: Vec<usize>,
    /// Connections that are at their target, but whose descriptor could not be closed here, and when to try again.
    stuck: VecDeque<(Moment, Conn)>,
    /// Closes that are made to fail.
    #[cfg(test)]
    pub(super) closes_to_fail: u32,
}

impl<H> Default for Moving<H> {
    fn default() -> Moving<H> {
        Moving {
            journeys: Vec::new(),
            free: Vec::new(),
            doors: Vec::new(),
            stuck: VecDeque::new(),
            #[cfg(test)]
            closes_to_fail: 0,
        }
    }
}

impl<H> Moving<H> {
    pub(super) fn set_peers(&mut self, count: usize) {
        self.doors = vec![0; count];
    }

    /// The journey's place, and the ring of the target to send to.
    fn begin(&mut self, to: ShardId, item: NonNull<H>) -> (u32, usize) {
        let door = self.doors[usize::from(to)];
        let journey = Some(Journey { to, door, tried: 0, item: Some(item), sent: None, closed: None });
        if let Some(place) = self.free.pop() {
            self.journeys[place as usize] = journey;
            return (place, door);
        }
        self.journeys.push(journey);
        (self.journeys.len() as u32 - 1, door)
    }

    fn at(&mut self, place: u32) -> Option<&mut Journey<H>> {
        self.journeys.get_mut(place as usize)?.as_mut()
    }

    fn end(&mut self, place: u32) -> Option<Journey<H>> {
        let journey = self.journeys.get_mut(place as usize)?.take();
        self.free.push(place);
        journey
    }

    /// When the first descriptor that stayed behind is closed again.
    pub(super) fn retry_at(&self) -> Moment {
        self.stuck.front().map_or(Moment::NEVER, |(at, _)| *at)
    }

    /// The slot to close, which is none where a test asked for a failure.
    fn slot_to_close(&mut self, slot: u32) -> u32 {
        #[cfg(test)]
        if self.closes_to_fail > 0 {
            self.closes_to_fail -= 1;
            return u32::MAX - 1;
        }
        slot
    }

    /// Those whose sending has not ended.
    fn under_way(&self) -> usize {
        self.journeys.iter().flatten().filter(|j| j.sent.is_none()).count()
    }
}

impl<H: Send> Uring<H> {
    pub(super) fn leave_for(&mut self, conn: Conn, to: ShardId, item: Box<H>) {
        let slot = self.slots.at(conn);
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection moves");
        debug_assert!(slot.armed == Armed::Nothing && slot.is_quiet(), "nothing is under way");
        if self.peer_rings(usize::from(to)).is_empty() {
            self.stats.hand_over_failures += 1;
            self.pending.push(Event::HandOverFailed { conn, item, errno: libc::ENXIO });
            return;
        }
        let item = NonNull::from(Box::leak(item));
        let (place, door) = self.moving.begin(to, item);
        let slot = self.slots.at(conn);
        slot.phase = Phase::Moving;
        slot.place = place;
        self.depart(conn, to, door, item);
    }

    /// Sends the descriptor to a ring of the target.
    fn depart(&mut self, conn: Conn, to: ShardId, door: usize, item: NonNull<H>) {
        let pointer = item.as_ptr() as u64;
        debug_assert_eq!(ops::pointer(pointer), pointer, "addresses of user space have 56 bits at most");
        let ring = self.peer_rings(usize::from(to))[door].as_raw_fd();
        let generation = self.slots.at(conn).generation;
        let (unit, slot) = (self.units.index_of(conn), self.units.slot_of(conn));
        let send = ops::send_descriptor(ring, slot, (Op::Arrival as u64) << 56 | pointer);
        let send = send.user_data(ops::name(Op::HandOver, generation, conn));
        let close =
            ops::close(self.moving.slot_to_close(slot)).user_data(ops::name(Op::Leave, generation, conn));
        self.units.push_linked(unit, &[send, close]);
    }

    /// Tries the target's next ring, if the last was full and there is one that was not tried.
    fn try_next_door(&mut self, conn: Conn, place: u32) -> bool {
        let Some(journey) = self.moving.journeys[place as usize].as_mut() else { return false };
        let (to, Some(item)) = (journey.to, journey.item) else { return false };
        let rings = self.peers.get(usize::from(to)).map_or(0, Address::rings);
        journey.tried += 1;
        if journey.sent != Some(-libc::ENFILE) || journey.tried >= rings {
            return false;
        }
        (journey.sent, journey.closed) = (None, None);
        let next = (journey.door + 1) % rings;
        // Those that leave later begin there.
        let first = &mut self.moving.doors[usize::from(to)];
        if *first == journey.door {
            *first = next;
        }
        journey.door = next;
        self.depart(conn, to, next, item);
        true
    }

    pub(super) fn descriptor_sent(&mut self, conn: Conn, result: i32, events: &mut Vec<Event<H>>) {
        let place = self.slots.at(conn).place;
        if let Some(journey) = self.moving.at(place) {
            journey.note_sent(result);
        }
        self.journey_done(conn, events);
    }

    pub(super) fn left_behind(&mut self, conn: Conn, result: i32, events: &mut Vec<Event<H>>) {
        let place = self.slots.at(conn).place;
        if let Some(journey) = self.moving.at(place) {
            journey.closed = Some(result);
        }
        self.journey_done(conn, events);
    }

    /// Reports a hand-over of which both parts have ended.
    fn journey_done(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let place = self.slots.at(conn).place;
        let Some(journey) = self.moving.at(place) else { return };
        let (Some(sent), Some(closed)) = (journey.sent, journey.closed) else { return };
        if sent >= 0 {
            // An empty slot is as good as a closed one. Another failure leaves the descriptor open here, and the
            // client would not see the end of its connection before that is closed too.
            if closed >= 0 || closed == -libc::EBADF {
                return self.moved(conn, events);
            }
            journey.closed = None;
            let retry_at = Io::now(self).plus_ms(limits::LEAVE_RETRY_MS);
            return self.moving.stuck.push_back((retry_at, conn));
        }
        if self.try_next_door(conn, place) {
            return;
        }
        let (errno, item) = (-sent, self.moving.end(place).and_then(|journey| journey.item));
        let slot = self.slots.at(conn);
        slot.phase = Phase::Open;
        slot.place = NOTHING;
        self.stats.hand_over_failures += 1;
        if let Some(item) = item {
            // SAFETY: leaked from a box in `leave_for`; sending failed, so the target never had it.
            let item = unsafe { Box::from_raw(item.as_ptr()) };
            events.push(Event::HandOverFailed { conn, item, errno });
        }
    }

    /// Closes what stayed behind.
    pub(super) fn leave_again(&mut self, now: Moment) {
        while self.moving.retry_at() <= now
            && let Some((_, conn)) = self.moving.stuck.pop_front()
        {
            let slot = self.moving.slot_to_close(self.units.slot_of(conn));
            self.ask(Op::Leave, conn, ops::close(slot));
        }
    }

    /// The connection is at the target, and its descriptor is closed here.
    pub(super) fn moved(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let place = self.slots.at(conn).place;
        self.moving.end(place);
        self.vacate(conn);
        self.accepting.unstall();
        self.stats.hand_overs += 1;
        events.push(Event::HandedOver { conn });
    }

    pub(super) fn arrived(&mut self, unit: usize, user_data: u64, result: i32, events: &mut Vec<Event<H>>) {
        let Ok(slot) = u32::try_from(result) else {
            debug_assert!(false, "a descriptor arrives or there is no completion");
            return;
        };
        // SAFETY: the sender leaked this box for us; all shards of a broker have the same type of item.
        let item = unsafe { Box::from_raw(ops::pointer(user_data) as *mut H) };
        let conn = self.units.at(unit).base + slot;
        self.clear(conn, events);
        self.occupy(conn, Phase::Open);
        self.stats.arrivals += 1;
        events.push(Event::Arrived { conn, item });
    }
}

impl<H> Journey<H> {
    fn note_sent(&mut self, result: i32) {
        self.sent = Some(result);
        if result >= 0 {
            // The target has it.
            self.item = None;
        }
    }
}

/// How long a driver waits at most for its last hand-overs to end, and in how many steps.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_ENTERS: u32 = 20;

// For the end of a driver.
impl<H> Uring<H> {
    /// Waits until it is known who owns what was sent, frees what came back, and what arrived meanwhile.
    pub(super) fn settle_moves(&mut self) {
        for round in 0..SETTLE_ENTERS {
            if self.moving.under_way() == 0 && round > 0 {
                break;
            }
            let sleep = if round == 0 { Sleep::Not } else { Sleep::For(SETTLE / SETTLE_ENTERS) };
            self.enter_all(sleep);
        }
        for journey in self.moving.journeys.iter_mut().filter_map(Option::take) {
            if let (Some(item), Some(..0)) = (journey.item, journey.sent) {
                // SAFETY: leaked from a box in `leave_for`; sending failed, so the target never had it. What
                // has not ended yet is left alone: the target may have it.
                drop(unsafe { Box::from_raw(item.as_ptr()) });
            }
        }
    }

    /// Frees what travelled with connections that nobody will take any more.
    pub(super) fn free_arrivals(&mut self) {
        self.enter_all(Sleep::Not);
    }

    /// Enters each ring; the hub's completions tell of the sleep's end soon enough.
    fn enter_all(&mut self, sleep: Sleep) {
        for unit in (0..self.units.count()).rev() {
            self.units.at(unit).ring.enter(if unit == HUB { sleep } else { Sleep::Not });
            self.free_reaped(unit);
        }
    }

    fn free_reaped(&mut self, unit: usize) {
        while let Some(entry) = self.units.at(unit).ring.next() {
            let user_data = entry.user_data();
            match ops::op(user_data) {
                Some(Op::Arrival) if entry.result() >= 0 => {
                    // SAFETY: as in `arrived`.
                    drop(unsafe { Box::from_raw(ops::pointer(user_data) as *mut H) });
                }
                Some(Op::HandOver) => {
                    let slot = self.slots.get(ops::index(user_data));
                    let current = |g: u32| g & ops::GENERATION == ops::generation(user_data);
                    let place = slot.filter(|s| current(s.generation)).map(|s| s.place);
                    if let Some(journey) = place.and_then(|place| self.moving.at(place)) {
                        journey.note_sent(entry.result());
                    }
                }
                Some(Op::Install) if entry.result() >= 0 => super::accepting::close_plain(entry.result()),
                _ => {}
            }
        }
        self.units.at(unit).ring.reaped();
    }
}
