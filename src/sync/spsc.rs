//! Bounded rings with one producer and one consumer.
//!
//! Positions are absolute and never wrap in practice (they are `usize` and count entries); a slot is its
//! position modulo the size. The order in which things become visible is the contract:
//!
//! - What is pushed is seen by nobody until [`Producer::publish`]: one release store per batch.
//! - [`Consumer::tail`] fixes how far the consumer reads; [`Consumer::pop_until`] never goes past it, so that
//!   a consumer can drain many rings "to the tails that I read".
//! - What is popped gives its room back when the consumer reached the tail that it read, at each quarter of
//!   the ring, and at [`Consumer::release`].
//!
//! Invariant: `released <= head <= tail <= published <= pushed <= released + entries`, where the producer
//! writes only slots outside `released..pushed` and the consumer reads only slots in `head..published`.

use super::primitive::{Arc, AtomicUsize, Ordering, Padded, UnsafeCell, fence};
use std::fmt;
use std::mem::MaybeUninit;

struct Ring<T> {
    /// Position up to which the consumer gave room back.
    released: Padded<AtomicUsize>,
    /// Position up to which the producer published.
    published: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is accessed by the producer or by the consumer, never by both at once (the invariant above,
// handed over by the release stores and acquire loads of the positions), so sending `T` is all that happens.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its entries.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The size is a power of two, so the mask is below the length.
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both ends are gone, and each stored its position when it went.
        let mut at = self.released.0.load(Ordering::Acquire);
        let end = self.published.0.load(Ordering::Acquire);
        while at != end {
            // SAFETY: the slots in `released..published` are initialised, and nobody else is left.
            self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

/// A ring of `entries` entries.
///
/// # Panics
/// When `entries` is not a power of two.
pub fn ring<T: Send>(entries: usize) -> (Producer<T>, Consumer<T>) {
    assert!(entries.is_power_of_two(), "a ring has a power of two of entries, not {entries}");
    let ring = Arc::new(Ring {
        released: Padded(AtomicUsize::new(0)),
        published: Padded(AtomicUsize::new(0)),
        slots: (0..entries).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { ring: ring.clone(), pushed: 0, published: 0, released: 0 };
    (producer, Consumer { ring, head: 0, released: 0, tail: 0 })
}

/// The end that pushes.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    pushed: usize,
    published: usize,
    /// The consumer's position as it was last read.
    released: usize,
}

impl<T> Producer<T> {
    /// Puts an entry into the ring; the consumer sees it after [`Producer::publish`]. Gives it back when the
    /// ring is full.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(entry);
        }
        // SAFETY: there is room, so this position is outside `released..pushed`: the consumer has given the
        // slot back (acquired in `room`) and does not read it before it is published.
        self.ring.slot(self.pushed).with_mut(|slot| unsafe {
            (*slot).write(entry);
        });
        self.pushed = self.pushed.wrapping_add(1);
        debug_assert!(self.pushed.wrapping_sub(self.released) <= self.ring.slots.len());
        Ok(())
    }

    /// Shows the consumer everything that was pushed. Returns whether there was anything new.
    pub fn publish(&mut self) -> bool {
        if self.published == self.pushed {
            return false;
        }
        self.published = self.pushed;
        self.ring.published.0.store(self.pushed, Ordering::Release);
        true
    }

    /// How many entries can be pushed: at least this many, and 0 only when the ring is full. The consumer's
    /// position is read when the one that is remembered says 0.
    pub fn room(&mut self) -> usize {
        let room = self.room_known();
        if room > 0 {
            return room;
        }
        self.released = self.ring.released.0.load(Ordering::Acquire);
        self.room_known()
    }

    /// Entries that were pushed and are not published yet.
    pub fn unpublished(&self) -> usize {
        self.pushed.wrapping_sub(self.published)
    }

    /// Entries that the consumer has not given back the room of.
    pub fn len(&self) -> usize {
        self.pushed.wrapping_sub(self.ring.released.0.load(Ordering::Acquire))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn room_known(&self) -> usize {
        self.ring.slots.len() - self.pushed.wrapping_sub(self.released)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.publish();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("pushed", &self.pushed).field("published", &self.published).finish()
    }
}

/// The end that pops.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    /// What the producer may know of `head`.
    released: usize,
    /// The producer's position as it was last read.
    tail: usize,
}

impl<T> Consumer<T> {
    /// Entries that the ring has room for.
    pub fn entries(&self) -> usize {
        self.ring.slots.len()
    }

    /// Reads how far the producer published, remembers it and returns it: an absolute position. What the
    /// producer's thread did before it published happened before.
    pub fn tail(&mut self) -> usize {
        self.tail = self.ring.published.0.load(Ordering::Acquire);
        self.tail
    }

    /// The next entry before position `until`, which came from [`Consumer::tail`].
    pub fn pop_until(&mut self, until: usize) -> Option<T> {
        // A position that lies behind is negative. One that was never read is cut to the one that was, so
        // that no caller can reach a slot that is not written.
        let ahead = until.wrapping_sub(self.head).cast_signed();
        if ahead <= 0 || self.head == self.tail {
            self.release();
            return None;
        }
        // SAFETY: `head` is before `tail`, which was acquired from the producer's release store: the slot is
        // initialised and the producer leaves it alone until it is released. The entry is moved out once,
        // because `head` moves on.
        let entry = self.ring.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        if self.head == self.tail
            || self.head.wrapping_sub(self.released) >= self.ring.slots.len().div_ceil(4)
        {
            self.release();
        }
        Some(entry)
    }

    /// The next entry; the producer's position is read when nothing is left before the remembered one.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            self.tail();
        }
        self.pop_until(self.tail)
    }

    /// Gives the room of what was popped back to the producer.
    pub fn release(&mut self) {
        if self.released != self.head {
            self.released = self.head;
            self.ring.released.0.store(self.head, Ordering::Release);
        }
    }

    /// Whether nothing is published beyond what was popped: a fresh look.
    pub fn is_empty(&self) -> bool {
        self.ring.published.0.load(Ordering::Acquire) == self.head
    }

    /// Whether the producer has gone. What it published before is still there.
    pub fn is_abandoned(&self) -> bool {
        let alone = Arc::strong_count(&self.ring) == 1;
        // What it did before it went is seen by what follows.
        fence(Ordering::Acquire);
        alone
    }

    /// The position of the next entry.
    pub fn position(&self) -> usize {
        self.head
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).field("tail", &self.tail).finish()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// xorshift: enough for test traffic, and the seed replays.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut producer, mut consumer) = ring(4);
        producer.push('a').unwrap();
        assert!(consumer.is_empty());
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.unpublished(), 1);
        assert!(producer.publish());
        assert!(!producer.publish());
        assert!(!consumer.is_empty());
        assert_eq!((consumer.pop(), consumer.pop()), (Some('a'), None));
        assert_eq!(consumer.position(), 1);
    }

    #[test]
    fn who_goes_leaves_what_was_pushed() {
        let (mut producer, mut consumer) = ring(4);
        (0..2).for_each(|n| producer.push(n).unwrap());
        producer.publish();
        assert_eq!((producer.len(), consumer.is_abandoned()), (2, false));
        assert_eq!(consumer.pop(), Some(0));
        consumer.release();
        assert_eq!(producer.len(), 1);
        drop(producer);
        assert!(consumer.is_abandoned());
        assert_eq!((consumer.pop(), consumer.pop()), (Some(1), None));
    }

    #[test]
    fn pop_until_stops_at_the_tail_that_was_read() {
        let (mut producer, mut consumer) = ring(8);
        (0..3).for_each(|n| producer.push(n).unwrap());
        producer.publish();
        let tail = consumer.tail();
        producer.push(3).unwrap();
        producer.publish();
        assert_eq!((0..5).map_while(|_| consumer.pop_until(tail)).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(consumer.pop_until(tail + 100), None, "a position that was never read is cut");
        assert!(!consumer.is_empty());
        let later = consumer.tail();
        assert_eq!(consumer.pop_until(tail), None, "a position that lies behind");
        assert_eq!(consumer.pop_until(later), Some(3));
    }

    #[test]
    fn a_full_ring_gives_the_entry_back() {
        let (mut producer, mut consumer) = ring(2);
        assert_eq!(producer.room(), 2);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert_eq!((producer.push(3), producer.room()), (Err(3), 0));
        producer.publish();
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(producer.room(), 1, "a quarter was popped");
        producer.push(3).unwrap();
        producer.publish();
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn room_comes_back_in_batches() {
        let (mut producer, mut consumer) = ring(16);
        (0..16).for_each(|n| producer.push(n).unwrap());
        producer.publish();
        assert_eq!([consumer.pop(), consumer.pop(), consumer.pop()], [Some(0), Some(1), Some(2)]);
        assert_eq!(producer.room(), 0);
        consumer.release();
        assert_eq!(producer.room(), 3);
    }

    /// What a ring holds, told by a queue: entries that are not published, and those that are.
    struct Model {
        entries: usize,
        hidden: VecDeque<u64>,
        seen: VecDeque<u64>,
        popped: usize,
        /// How far the consumer has read the producer's position.
        known: usize,
    }

    impl Model {
        fn tail(&mut self) -> usize {
            self.known = self.popped + self.seen.len();
            self.known
        }

        fn pop_until(&mut self, until: usize) -> Option<u64> {
            let entry = if self.popped < until.min(self.known) { self.seen.pop_front() } else { None };
            self.popped += usize::from(entry.is_some());
            entry
        }

        fn pop(&mut self) -> Option<u64> {
            if self.popped == self.known {
                self.tail();
            }
            self.pop_until(self.known)
        }

        fn check(&self, producer: &mut Producer<u64>, consumer: &Consumer<u64>) {
            assert_eq!(consumer.is_empty(), self.seen.is_empty());
            assert_eq!((consumer.position(), producer.unpublished()), (self.popped, self.hidden.len()));
            let (room, free) = (producer.room(), self.entries - self.hidden.len() - self.seen.len());
            assert!(room <= free && (room > 0 || free == 0), "{room} of {free}");
        }
    }

    #[test]
    fn random_operations_agree_with_a_queue() {
        for seed in 1..=200u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let entries = 1usize << random.below(6);
            let (mut producer, mut consumer) = ring(entries);
            let (hidden, seen) = (VecDeque::new(), VecDeque::new());
            let mut model = Model { entries, hidden, seen, popped: 0, known: 0 };
            let mut until = 0;
            for step in 0..2_000u64 {
                match random.below(12) {
                    0..4 => match producer.push(step) {
                        Ok(()) => model.hidden.push_back(step),
                        Err(back) => assert_eq!((back, producer.room()), (step, 0), "seed {seed}"),
                    },
                    4 | 5 => {
                        assert_eq!(producer.publish(), !model.hidden.is_empty(), "seed {seed}");
                        model.seen.append(&mut model.hidden);
                    }
                    6 | 7 => assert_eq!(consumer.pop(), model.pop(), "seed {seed}"),
                    8 => {
                        until = consumer.tail();
                        assert_eq!(until, model.tail(), "seed {seed}");
                    }
                    9 | 10 => {
                        // A tail that was read, now and then one that never was.
                        let until = until + if random.below(8) == 0 { random.below(9) as usize } else { 0 };
                        assert_eq!(consumer.pop_until(until), model.pop_until(until), "seed {seed}");
                    }
                    _ => {
                        consumer.release();
                        model.check(&mut producer, &consumer);
                    }
                }
            }
        }
    }

    #[test]
    fn two_threads_pass_a_million_entries_in_order() {
        const ENTRIES: u64 = 1_000_000;
        let (mut producer, mut consumer) = ring(256);
        let sum = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut random = Random(7);
                for n in 0..ENTRIES {
                    let mut entry = Box::new(n);
                    while let Err(back) = producer.push(entry) {
                        entry = back;
                        producer.publish();
                        std::thread::yield_now();
                    }
                    if random.below(10) == 0 {
                        producer.publish();
                    }
                }
            });
            let (mut expected, mut sum) = (0, 0u64);
            while expected < ENTRIES {
                let tail = consumer.tail();
                while let Some(entry) = consumer.pop_until(tail) {
                    assert_eq!(*entry, expected);
                    expected += 1;
                    sum = sum.wrapping_mul(31).wrapping_add(*entry);
                }
                std::thread::yield_now();
            }
            sum
        });
        assert_eq!(sum, (0..ENTRIES).fold(0u64, |sum, n| sum.wrapping_mul(31).wrapping_add(n)));
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        struct Counted(#[allow(dead_code)] std::sync::Arc<()>);
        for consumer_first in [true, false] {
            let witness = std::sync::Arc::new(());
            let (mut producer, mut consumer) = ring(8);
            for _ in 0..6 {
                assert!(producer.push(Counted(witness.clone())).is_ok());
            }
            producer.publish();
            drop((consumer.pop(), consumer.pop(), consumer.pop()));
            assert!(producer.push(Counted(witness.clone())).is_ok());
            assert_eq!(std::sync::Arc::strong_count(&witness), 5, "three published, one not, and ours");
            if consumer_first {
                drop(consumer);
                drop(producer);
            } else {
                drop(producer);
                drop(consumer);
            }
            assert_eq!(std::sync::Arc::strong_count(&witness), 1);
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use crate::sync::Doorbell;

    #[test]
    fn entries_cross_in_order_and_room_comes_back() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2);
            let other = loom::thread::spawn(move || {
                let mut sent = 0;
                while sent < 3 {
                    match producer.push(Box::new(sent)) {
                        Ok(()) => sent += 1,
                        Err(_) => loom::thread::yield_now(),
                    }
                    producer.publish();
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match consumer.pop() {
                    Some(entry) => {
                        assert_eq!(*entry, expected);
                        expected += 1;
                    }
                    None => loom::thread::yield_now(),
                }
            }
            other.join().unwrap();
        });
    }

    #[test]
    fn a_sleeper_sees_the_entry_or_is_rung() {
        loom::model(|| {
            let (mut producer, consumer) = ring(2);
            let bell = Doorbell::new();
            let theirs = bell.clone();
            let other = loom::thread::spawn(move || {
                producer.push(1).unwrap();
                producer.publish();
                theirs.should_ring()
            });
            bell.prepare_sleep();
            let seen = !consumer.is_empty();
            let rung = other.join().unwrap();
            assert!(seen || rung);
        });
    }
}
