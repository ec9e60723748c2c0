//! How many bytes the blocks of [`super::Shared`] hold, for the ledger of memory.
//!
//! A block is made by one thread and freed by any, so only the sum over all threads says something. Each thread
//! counts in a cache line of its own and writes it without a locked instruction; those beyond [`PLACES`] share
//! the last one.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Threads with a place of their own, and one that all later threads share.
const PLACES: usize = 128;
const SHARED: usize = PLACES - 1;
const UNKNOWN: usize = usize::MAX;

#[repr(align(64))]
struct Place(AtomicI64);

static SUMS: [Place; PLACES] = [const { Place(AtomicI64::new(0)) }; PLACES];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(UNKNOWN) };
}

/// Counts bytes that this thread allocated (positive) or freed (negative).
#[inline]
pub(super) fn count(bytes: i64) {
    let mut mine = MINE.get();
    if mine == UNKNOWN {
        mine = TAKEN.fetch_add(1, Ordering::Relaxed).min(SHARED);
        MINE.set(mine);
    }
    let sum = &SUMS[mine].0;
    if mine == SHARED {
        sum.fetch_add(bytes, Ordering::Relaxed);
    } else {
        // Only this thread writes it.
        sum.store(sum.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
}

/// Bytes of all blocks of the process, as the allocator rounds them. While other threads work it is about right;
/// at rest it is exact.
pub fn shared_bytes() -> u64 {
    let sum: i64 = SUMS.iter().map(|place| place.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or_default()
}
