//! A number that all shards count up together, for the few things whose order across shards matters.

use super::primitive::{Arc, AtomicU64, Ordering, Padded};

/// A counter that all its clones share. Each number is given out once, and one that is taken after another
/// was seen is larger.
#[derive(Clone, Debug)]
pub struct Sequence(Arc<Padded<AtomicU64>>);

impl Sequence {
    /// A counter that begins at 1.
    pub fn new() -> Sequence {
        Sequence(Arc::new(Padded(AtomicU64::new(1))))
    }

    /// The next number. What was written before this is visible to whoever sees a later number, here or by
    /// [`Sequence::horizon`].
    pub fn next(&self) -> u64 {
        self.0.0.fetch_add(1, Ordering::AcqRel)
    }

    /// All numbers below this one are given out, and what was written before they were is visible.
    pub fn horizon(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }
}

impl Default for Sequence {
    fn default() -> Sequence {
        Sequence::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_out_twice() {
        let sequence = Sequence::new();
        let take = |sequence: Sequence| move || (0..10_000).map(|_| sequence.next()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(take(sequence.clone()))).collect();
        let mut all = Vec::new();
        for thread in threads {
            let taken = thread.join().unwrap();
            assert!(taken.is_sorted(), "the numbers of one thread ascend");
            all.extend(taken);
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(1..=40_000));
    }
}
