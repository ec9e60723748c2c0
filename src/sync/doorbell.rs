//! Who sleeps, and who has to wake it.
//!
//! The argument is Dekker's. The sleeper stores `sleeping`, fences, then looks at everything that could have
//! come in. A producer publishes, fences, then reads `sleeping`. The two fences are sequentially consistent,
//! so one of them is first: is it the sleeper's, the producer reads `true` and rings; is it the producer's,
//! the sleeper sees what was published and does not sleep. Without both fences a store may sit in a store
//! buffer while the load behind it is served, and both sides miss each other.
//!
//! The same holds for room: a sleeper that waits for a full ring to drain names its consumers, and looks at
//! the room after its fence; a consumer gives the room back, fences, and looks whether it was named.
//!
//! A ring too many can happen (the sleeper looked, saw something and stayed awake), a ring too few cannot.
//! Trap: a ring takes the flag down, also a late one that belongs to the sleep before. So a sleeper prepares
//! anew after each return from its sleep, spurious or not.

use super::primitive::{Arc, AtomicBool, AtomicU64, Ordering, Padded, fence};

/// The sleeping flag of one endpoint; clones are the same doorbell.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Padded<State>>);

#[derive(Debug)]
struct State {
    sleeping: AtomicBool,
    /// A bit for each endpoint whose draining the sleeper waits for; of meaning while it sleeps.
    room: AtomicU64,
    /// When it was rung last, for measurements; 0 once that was taken.
    rung_ns: AtomicU64,
}

impl Doorbell {
    /// A doorbell whose owner is awake.
    pub fn new() -> Doorbell {
        let (room, rung_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Doorbell(Arc::new(Padded(State { sleeping: AtomicBool::new(false), room, rung_ns })))
    }

    /// The owner is about to sleep. Afterwards it must look at everything that can come in, and either sleep
    /// or call [`Doorbell::awake`]. What is published from now on, and is not seen by that look, rings.
    pub fn prepare_sleep(&self) {
        self.prepare_sleep_for_room(0);
    }

    /// As [`Doorbell::prepare_sleep`]; the endpoints in the bit set `room` ring as well when they have taken
    /// something out of the owner's rings. The owner must look at its room afterwards, too.
    pub fn prepare_sleep_for_room(&self, room: u64) {
        let state = &self.0.0;
        state.room.store(room, Ordering::Relaxed);
        // Release: who sees the flag sees this `room`.
        state.sleeping.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The owner does not sleep, or no longer. A ring that is under way still arrives and means nothing.
    pub fn awake(&self) {
        self.0.0.sleeping.store(false, Ordering::Relaxed);
    }

    /// Whoever rings says when, for measurements: it may come late or get lost.
    pub fn note_rung(&self, ns: u64) {
        self.0.0.rung_ns.store(ns, Ordering::Relaxed);
    }

    /// When it was rung last, once.
    pub fn take_rung(&self) -> Option<u64> {
        let rung = &self.0.0.rung_ns;
        (rung.load(Ordering::Relaxed) != 0).then(|| rung.swap(0, Ordering::Relaxed))
    }

    /// Called by a producer after it published: whether it has to ring. Of several producers one is told so.
    pub fn should_ring(&self) -> bool {
        Doorbell::fence();
        self.should_ring_fenced()
    }

    /// The producer's half of the argument, for one fence before many doorbells are read.
    pub fn fence() {
        fence(Ordering::SeqCst);
    }

    /// [`Doorbell::should_ring`] after a [`Doorbell::fence`] that followed the publishing.
    pub fn should_ring_fenced(&self) -> bool {
        let sleeping = &self.0.0.sleeping;
        // The load keeps the line shared in the common case that the owner is awake.
        sleeping.load(Ordering::Relaxed) && sleeping.swap(false, Ordering::AcqRel)
    }

    /// Called by endpoint `me` after it took something out of the owner's rings and after a
    /// [`Doorbell::fence`] that followed: whether it has to ring because the owner sleeps for that room.
    pub fn should_ring_for_room_fenced(&self, me: u32) -> bool {
        debug_assert!(me < u64::BITS);
        let state = &self.0.0;
        state.sleeping.load(Ordering::Acquire)
            && state.room.load(Ordering::Relaxed) & (1 << me) != 0
            && state.sleeping.swap(false, Ordering::AcqRel)
    }
}

impl Default for Doorbell {
    fn default() -> Doorbell {
        Doorbell::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[test]
    fn only_a_sleeper_is_rung_and_only_once() {
        let bell = Doorbell::new();
        assert!(!bell.should_ring());
        bell.prepare_sleep();
        assert!(bell.clone().should_ring());
        assert!(!bell.should_ring(), "one producer rings");
        bell.prepare_sleep();
        bell.awake();
        assert!(!bell.should_ring());
    }

    #[test]
    fn room_is_rung_for_by_who_was_named() {
        let bell = Doorbell::new();
        assert!(!bell.should_ring_for_room_fenced(3), "awake");
        bell.prepare_sleep_for_room(1 << 3);
        assert!(!bell.should_ring_for_room_fenced(2));
        assert!(bell.should_ring_for_room_fenced(3));
        assert!(!bell.should_ring_for_room_fenced(3));
        bell.prepare_sleep();
        assert!(!bell.should_ring_for_room_fenced(3), "no room is waited for this time");
        assert!(bell.should_ring());
    }

    /// A lost wake-up hangs this test: the sleeper parks without a time limit.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: usize = 50_000;
        let bell = Doorbell::new();
        let (published, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while seen.load(Ordering::Relaxed) < ROUNDS {
                    bell.prepare_sleep();
                    if published.load(Ordering::Acquire) == seen.load(Ordering::Relaxed) {
                        // After each return, spurious or not, the loop prepares anew.
                        thread::park();
                    }
                    bell.awake();
                    seen.store(published.load(Ordering::Acquire), Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                published.store(round, Ordering::Release);
                if bell.should_ring() {
                    sleeper.thread().unpark();
                }
                // Often let the sleeper go to sleep, so that both orders of the race are met.
                while round % 3 != 0 && seen.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                    thread::yield_now();
                }
            }
        });
        assert_eq!(seen.into_inner(), ROUNDS);
    }
}
