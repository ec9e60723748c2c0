//! Connections from and to other shards.
//!
//! What travels is a box whose pointer is the `user_data` of the completion at the target. Its owner is the
//! target once the descriptor was sent: there is a completion there exactly when sending succeeded here. When
//! it failed the box is ours again.

use super::super::driver::NOTHING;
use super::super::ops::{self, Op};
use super::super::ring::Sleep;
use super::super::{Conn, Event, ShardId};
use super::Uring;
use super::slots::{Armed, Phase};
use std::ptr::NonNull;
use std::time::Duration;

/// A connection on its way.
struct Journey<H> {
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
}

impl<H> Default for Moving<H> {
    fn default() -> Moving<H> {
        Moving { journeys: Vec::new(), free: Vec::new() }
    }
}

impl<H> Moving<H> {
    fn begin(&mut self, item: NonNull<H>) -> u32 {
        let journey = Some(Journey { item: Some(item), sent: None, closed: None });
        if let Some(place) = self.free.pop() {
            self.journeys[place as usize] = journey;
            return place;
        }
        self.journeys.push(journey);
        self.journeys.len() as u32 - 1
    }

    fn at(&mut self, place: u32) -> Option<&mut Journey<H>> {
        self.journeys.get_mut(place as usize)?.as_mut()
    }

    fn end(&mut self, place: u32) -> Option<Journey<H>> {
        let journey = self.journeys.get_mut(place as usize)?.take();
        self.free.push(place);
        journey
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
        let Some(ring) = self.peer_ring(usize::from(to)) else {
            self.stats.hand_over_failures += 1;
            self.pending.push(Event::HandOverFailed { conn, item, errno: libc::ENXIO });
            return;
        };
        let item = NonNull::from(Box::leak(item));
        let pointer = item.as_ptr() as u64;
        debug_assert_eq!(ops::pointer(pointer), pointer, "addresses of user space have 56 bits at most");
        let place = self.moving.begin(item);
        let slot = self.slots.at(conn);
        slot.phase = Phase::Moving;
        slot.place = place;
        let generation = slot.generation;
        let arrival = (Op::Arrival as u64) << 56 | pointer;
        let send = ops::send_descriptor(ring, conn, arrival);
        let send = send.user_data(ops::name(Op::HandOver, generation, conn));
        let close = ops::close(conn).user_data(ops::name(Op::Leave, generation, conn));
        self.ring.push_linked(&[send, close]);
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
        let Some(Journey { sent: Some(sent), closed: Some(_), item }) = self.moving.at(place) else { return };
        if *sent >= 0 {
            return self.moved(conn, events);
        }
        let (errno, item) = (-*sent, item.take());
        self.moving.end(place);
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

    /// The connection is at the target, and its descriptor is closed here.
    pub(super) fn moved(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let place = self.slots.at(conn).place;
        self.moving.end(place);
        self.slots.vacate(conn);
        self.accepting.unstall();
        self.stats.hand_overs += 1;
        events.push(Event::HandedOver { conn });
    }

    pub(super) fn arrived(&mut self, user_data: u64, result: i32, events: &mut Vec<Event<H>>) {
        let Ok(conn) = u32::try_from(result) else {
            debug_assert!(false, "a descriptor arrives or there is no completion");
            return;
        };
        // SAFETY: the sender leaked this box for us; all shards of a broker have the same type of item.
        let item = unsafe { Box::from_raw(ops::pointer(user_data) as *mut H) };
        self.clear(conn, events);
        self.slots.occupy(conn, Phase::Open);
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

/// Entries of the ring while a driver waits for its last hand-overs to end.
const SETTLE_ENTERS: usize = 20;

// For the end of a driver.
impl<H> Uring<H> {
    /// Waits until it is known who owns what was sent, frees what came back, and what arrived meanwhile.
    pub(super) fn settle_moves(&mut self) {
        for round in 0..SETTLE_ENTERS {
            if self.moving.under_way() == 0 && round > 0 {
                break;
            }
            self.ring.enter(if round == 0 { Sleep::Not } else { Sleep::For(Duration::from_millis(50)) });
            self.free_reaped();
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
        self.ring.enter(Sleep::Not);
        self.free_reaped();
    }

    fn free_reaped(&mut self) {
        while let Some(entry) = self.ring.next() {
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
        self.ring.reaped();
    }
}
