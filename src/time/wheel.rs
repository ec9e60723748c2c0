//! A timer wheel for millions of coarse timers.
//!
//! Ten levels of 64 slots, as wide as all of time: a timer lies on the level of the highest six-bit digit in
//! which its granule differs from the present one, in the slot of that digit, and moves down when the present
//! reaches its slot. A bitmap per level finds the next slot that is not empty, so a clock that jumps by hours
//! costs no more than the timers that it passes.
//!
//! Invariants:
//! - Each filed timer's granule is at or after `present`, and is filed relative to it; moving `present` to
//!   just before the next slot that is not empty keeps every timer in its slot.
//! - A timer is in exactly one list: a slot, `moving` (taken from a slot, not yet filed again), or the free list.
//!
//! Nothing is cancelled: the owner validates what fires. The order among timers of one granule is not
//! defined.

use super::Moment;
use crate::heap::vec_bytes;

/// No entry: the end of a list.
const NIL: u32 = u32::MAX;
/// Bits of one digit: 64 slots a level.
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 10;
/// First granule that the levels do not reach: millions of years away.
const GRANULES_MAX: u64 = 1 << (DIGIT_BITS * LEVELS as u32);
/// Entries that are allocated together; a doubling vector would waste half.
const CHUNK: usize = 4096;

/// One timer: 24 bytes with a `T` of 12. The moment is in halves so that it asks for no alignment of 8.
#[derive(Clone, Copy)]
struct Entry<T> {
    due: [u32; 2],
    next: u32,
    item: T,
}

const _: () = assert!(size_of::<Entry<[u32; 3]>>() == 24);

/// Timers with an item `T` each; see the module. `T` says whose timer it is.
pub struct Wheel<T> {
    granule_ms: u64,
    /// The granule up to which everything has fired.
    present: u64,
    slots: Box<[[u32; SLOTS]; LEVELS]>,
    /// A bit for each slot of a level that is not empty.
    occupied: [u64; LEVELS],
    moving: u32,
    free: u32,
    chunks: Vec<Vec<Entry<T>>>,
    len: usize,
}

impl<T: Copy> Wheel<T> {
    /// Milliseconds of a granule that suit keep alives and expiries.
    pub const COARSE_MS: u64 = 256;

    /// A wheel whose timers fire at most `granule_ms` milliseconds (at least 1) late.
    pub fn new(granule_ms: u64, now: Moment) -> Wheel<T> {
        assert!(granule_ms > 0, "a granule lasts at least a millisecond");
        Wheel {
            granule_ms,
            present: now.0 / granule_ms,
            slots: Box::new([[NIL; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            moving: NIL,
            free: NIL,
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// Timers that have not fired.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * vec_bytes::<Entry<T>>(CHUNK)
            + vec_bytes::<Vec<Entry<T>>>(self.chunks.capacity())
            + size_of::<[[u32; SLOTS]; LEVELS]>()
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files a timer. One for [`Moment::NEVER`] is not kept. One that is due already fires at the next
    /// [`Wheel::expire`].
    pub fn insert(&mut self, due: Moment, item: T) {
        if self.granule(due) >= GRANULES_MAX {
            return;
        }
        let entry = Entry { due: [due.0 as u32, (due.0 >> 32) as u32], next: NIL, item };
        let index = self.allocate(entry);
        self.file(index);
        self.len += 1;
    }

    /// Fires what is due at `now`, each with its due moment, handling at most `budget` entries (fired or
    /// moved down a level). Returns whether there is more to do at `now`. Never fires early; at most one
    /// granule late when called on time.
    pub fn expire(&mut self, now: Moment, budget: usize, fire: &mut impl FnMut(Moment, T)) -> bool {
        self.expire_or_refile(now, budget, &mut |due, item| {
            fire(due, item);
            None
        })
    }

    /// As [`Wheel::expire`]; a moment that `fire` returns files the same timer again.
    pub fn expire_or_refile(
        &mut self,
        now: Moment,
        mut budget: usize,
        fire: &mut impl FnMut(Moment, T) -> Option<Moment>,
    ) -> bool {
        let last = now.0 / self.granule_ms;
        loop {
            while self.moving != NIL {
                if budget == 0 {
                    return true;
                }
                budget -= 1;
                let index = self.moving;
                self.moving = self.entry(index).next;
                self.file(index);
            }
            let Some((level, slot, start)) = self.next_slot() else { break };
            if start > last {
                break;
            }
            debug_assert!(start >= self.present, "no slot that is not empty is behind the present");
            if level > 0 {
                self.present = start;
                self.moving = std::mem::replace(&mut self.slots[level][slot], NIL);
                self.occupied[level] &= !(1 << slot);
                continue;
            }
            if budget == 0 {
                return true;
            }
            budget -= 1;
            self.present = start;
            self.fire_one(slot, fire);
        }
        // Nothing lies between: every timer keeps its level and slot.
        self.present = self.present.max(last.min(GRANULES_MAX - 1));
        false
    }

    /// When [`Wheel::expire`] next has something to do: at or before the moment at which the first timer
    /// fires. [`Moment::NEVER`] when there is no timer.
    pub fn next_due(&self) -> Moment {
        if self.moving != NIL {
            return Moment(self.present.saturating_mul(self.granule_ms));
        }
        self.next_slot().map_or(Moment::NEVER, |(_, _, start)| Moment(start.saturating_mul(self.granule_ms)))
    }

    fn fire_one(&mut self, slot: usize, fire: &mut impl FnMut(Moment, T) -> Option<Moment>) {
        let index = self.slots[0][slot];
        let Entry { due, next, item } = *self.entry(index);
        self.slots[0][slot] = next;
        if next == NIL {
            self.occupied[0] &= !(1 << slot);
        }
        match fire(Moment(u64::from(due[1]) << 32 | u64::from(due[0])), item) {
            Some(again) if self.granule(again) < GRANULES_MAX => {
                self.entry_mut(index).due = [again.0 as u32, (again.0 >> 32) as u32];
                self.file(index);
            }
            _ => self.release(index),
        }
    }

    /// Level, slot and first granule of the next slot that is not empty. The lowest level comes first: all
    /// its slots lie within the present slot of the level above.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * DIGIT_BITS;
        let above = self.present >> shift >> DIGIT_BITS << DIGIT_BITS;
        Some((level, slot, (above | slot as u64) << shift))
    }

    /// The first granule that begins at or after `due`: rounding up is what never fires early.
    fn granule(&self, due: Moment) -> u64 {
        if due == Moment::NEVER { u64::MAX } else { due.0.div_ceil(self.granule_ms) }
    }

    fn file(&mut self, index: u32) {
        let [low, high] = self.entry(index).due;
        let due = self.granule(Moment(u64::from(high) << 32 | u64::from(low))).max(self.present);
        // The highest digit that differs; 1 stands in for "none", which is level 0 as well.
        let level = ((due ^ self.present) | 1).ilog2() / DIGIT_BITS;
        let slot = (due >> (level * DIGIT_BITS)) as usize % SLOTS;
        let level = level as usize;
        self.entry_mut(index).next = std::mem::replace(&mut self.slots[level][slot], index);
        self.occupied[level] |= 1 << slot;
    }

    fn allocate(&mut self, entry: Entry<T>) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.entry(index).next;
            *self.entry_mut(index) = entry;
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("a chunk with room was just made sure of");
        chunk.push(entry);
        let index = u32::try_from(before + chunk.len() - 1).expect("there are fewer than 2^32 timers");
        assert!(index != NIL, "there are fewer than 2^32 timers");
        index
    }

    fn release(&mut self, index: u32) {
        self.len -= 1;
        if self.len == 0 {
            // Every slot is empty, so no list has an index any more.
            self.chunks = Vec::new();
            self.free = NIL;
            return;
        }
        self.entry_mut(index).next = self.free;
        self.free = index;
    }

    fn entry(&self, index: u32) -> &Entry<T> {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl<T> std::fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("len", &self.len).field("granule_ms", &self.granule_ms).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn random_timers_agree_with_an_ordered_map() {
        for seed in 1..=60u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let granule = [1, 10, 256][seed as usize % 3];
            let mut now = random(&mut state) % 100_000;
            let mut wheel = Wheel::new(granule, Moment(now));
            let mut model: BTreeMap<u64, u64> = BTreeMap::new(); // id to due
            let mut ids = 0u64;
            for step in 0..600u64 {
                for _ in 0..random(&mut state) % 8 {
                    let span = 1u64 << (random(&mut state) % 34);
                    let due = (now + random(&mut state) % span).saturating_sub(random(&mut state) % 50);
                    ids += 1;
                    wheel.insert(Moment(due), ids);
                    model.insert(ids, due);
                }
                now += random(&mut state) % (1 << (random(&mut state) % 24));
                let budget = if step % 2 == 0 { usize::MAX } else { (random(&mut state) % 20) as usize };
                let next = wheel.next_due();
                let first = model.values().min().map_or(u64::MAX, |due| due.div_ceil(granule) * granule);
                assert!(next.0 <= first.max(now), "seed {seed}: a lower bound");
                let more = wheel.expire(Moment(now), budget, &mut |due, id| {
                    assert!(due.0 <= now, "seed {seed}: early");
                    assert_eq!(model.remove(&id), Some(due.0), "seed {seed}: unknown or twice");
                });
                if !more {
                    let late = model.values().find(|due| **due + granule <= now);
                    assert_eq!(late, None, "seed {seed}: more than a granule late at {now}");
                }
                assert_eq!(wheel.len(), model.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn never_is_not_kept_and_an_empty_wheel_is_never_due() {
        let mut wheel = Wheel::new(Wheel::<u8>::COARSE_MS, Moment(5));
        wheel.insert(Moment::NEVER, 1);
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_due(), Moment::NEVER);
        assert!(!wheel.expire(Moment(u64::MAX), 1, &mut |_, _| panic!("there is no timer")));
    }

    #[test]
    fn a_jump_of_a_century_costs_only_its_timers() {
        let mut wheel = Wheel::new(256, Moment(0));
        let century = Moment(100 * 366 * 86_400_000);
        wheel.insert(century, 'c');
        wheel.insert(Moment(1), 'a');
        let mut fired = Vec::new();
        // One step for the first, then at most one per level for the other.
        let more = wheel.expire(century.plus_ms(256), 2 + LEVELS, &mut |_, item| fired.push(item));
        assert!(!more);
        assert_eq!(fired, ['a', 'c']);
        assert!(wheel.chunks.is_empty(), "an empty wheel holds no chunk");
    }

    #[test]
    fn the_budget_is_kept_and_the_rest_follows() {
        let mut wheel = Wheel::new(10, Moment(0));
        (0..100u32).for_each(|n| wheel.insert(Moment(u64::from(n) * 100), n));
        let (mut seen, mut calls) = (Vec::new(), 0);
        loop {
            let before = seen.len();
            calls += 1;
            let more = wheel.expire(Moment(10_000), 7, &mut |_, item| seen.push(item));
            assert!(seen.len() - before <= 7);
            if !more {
                break;
            }
        }
        assert!(calls > 100 / 7);
        assert!(seen.is_sorted() && seen.len() == 100, "granules in order, also across calls");
    }

    #[test]
    fn a_timer_is_filed_again_in_place() {
        let mut wheel = Wheel::new(1, Moment(0));
        wheel.insert(Moment(10), 'k');
        let mut fired = Vec::new();
        for now in [9, 10, 29, 30, 31] {
            wheel.expire_or_refile(Moment(now), 10, &mut |due, _| {
                fired.push((now, due.0));
                (due.0 < 30).then(|| due.plus_ms(20))
            });
        }
        assert_eq!(fired, [(10, 10), (30, 30)]);
        assert!(wheel.is_empty());
    }
}
