//! How many are in, and how fast they come: for what all shards admit together, once per connection.

use super::primitive::{Arc, AtomicU32, AtomicU64, Ordering, Padded};
use crate::limits::CONN_RATE_ADDRESSES;
use std::fmt;
use std::sync::OnceLock;

/// Counts what is inside and paces what comes; clones are the same gate. Each of the two is one location, so that
/// any number of threads never admit one too many.
#[derive(Clone)]
pub struct Gate(Arc<Padded<State>>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate with {} inside", self.inside())
    }
}

struct State {
    inside: AtomicU32,
    /// When the next one is due that keeps the rate, in nanoseconds of the shards' clock.
    due_ns: AtomicU64,
    /// The same for each of many addresses, once that is asked for.
    addresses: OnceLock<Box<[AtomicU64]>>,
}

/// Nanoseconds for which what did not come may come later in one go.
const BURST_NS: u64 = 1_000_000_000;

impl Gate {
    /// A gate with nobody inside.
    pub fn new() -> Gate {
        let (inside, due_ns) = (AtomicU32::new(0), AtomicU64::new(0));
        Gate(Arc::new(Padded(State { inside, due_ns, addresses: OnceLock::new() })))
    }

    /// Lets one in unless `max` are inside; 0 = however many there are. Whoever is in must [`Gate::leave`].
    pub fn enter(&self, max: u32) -> bool {
        let room = |inside: u32| (max == 0 || inside < max).then_some(inside.saturating_add(1));
        // Nothing else is read because of it: one order of all changes of one location is enough.
        self.0.0.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// One that was let in is gone.
    pub fn leave(&self) {
        let before = self.0.0.inside.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "whoever leaves was in");
    }

    /// How many are inside.
    pub fn inside(&self) -> u32 {
        self.0.0.inside.load(Ordering::Relaxed)
    }

    /// Whether one may come now: `per_s` in a second, all of them at once where none came before; 0 = as many as
    /// come. `now_ns` may be behind what another thread has.
    pub fn permit(&self, now_ns: u64, per_s: u32) -> bool {
        permit(&self.0.0.due_ns, now_ns, per_s)
    }

    /// As [`Gate::permit`], for each key by itself; very many keys at once may share what is permitted.
    pub fn permit_of(&self, key: u64, now_ns: u64, per_s: u32) -> bool {
        let new = || (0..CONN_RATE_ADDRESSES).map(|_| AtomicU64::new(0)).collect();
        let all = self.0.0.addresses.get_or_init(new);
        permit(&all[(key % all.len() as u64) as usize], now_ns, per_s)
    }
}

/// Whether one may come now, by when the next one is due.
fn permit(due_ns: &AtomicU64, now_ns: u64, per_s: u32) -> bool {
    let Some(interval) = BURST_NS.checked_div(per_s.into()) else { return true };
    // It begins with a whole burst, whatever the clock says.
    let now = now_ns.saturating_add(BURST_NS);
    let next = |due: u64| Some(due.max(now - BURST_NS) + interval).filter(|due| *due <= now);
    due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn many_threads_never_let_one_too_many_in() {
        let (gate, most) = (Gate::new(), AtomicUsize::new(0));
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if gate.enter(3) {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            gate.leave();
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        assert_eq!(gate.inside(), 0);
        assert!((0..100).all(|_| gate.enter(0)), "without a bound");
        assert!(!gate.enter(100) && gate.enter(101));
    }

    #[test]
    fn a_rate_holds_over_time_and_allows_a_second_at_once() {
        let gate = Gate::new();
        let at = |ms: u64| ms * 1_000_000;
        let permitted = |ms: u64, tries: u32| (0..tries).filter(|_| gate.permit(at(ms), 10)).count();
        assert_eq!(permitted(5_000, 50), 10);
        assert_eq!(permitted(5_050, 50), 0);
        assert_eq!(permitted(5_100, 50), 1);
        assert_eq!(permitted(5_500, 50), 4);
        // A clock that is behind takes nothing away, and a long silence gives no more than a second's worth.
        assert_eq!(permitted(4_000, 50), 0);
        assert_eq!(permitted(60_000, 50), 10);
        assert!((0..1_000).all(|_| gate.permit(0, 0)), "without a bound");
        let gate = Gate::new();
        assert_eq!((0..50).filter(|_| gate.permit(0, 10)).count(), 10, "also when the clock begins");
        let of = |key: u64| (0..50).filter(|_| gate.permit_of(key, at(5_000), 10)).count();
        assert_eq!([of(1), of(2), of(1)], [10, 10, 0], "each by itself");
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;

    #[test]
    fn two_at_a_gate_for_one() {
        loom::model(|| {
            let gate = Gate::new();
            let other = gate.clone();
            let thread = loom::thread::spawn(move || other.enter(1));
            let (mine, theirs) = (gate.enter(1), thread.join().expect("it ends"));
            assert!(mine != theirs, "one of them is in");
            assert_eq!(gate.inside(), 1);
        });
    }
}
