//! How long things took, in fixed buckets: nothing is allocated, nothing is lost, two of them can be added.
//!
//! Log-linear: each power of two is cut into [`STEPS`] equal parts, so a value is known to an eighth of itself.

/// Buckets of one power of two.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Values from here on share the last bucket: 2^36, which is 68 s in nanoseconds.
const BITS_MAX: u32 = 36;
const BUCKETS: usize = (BITS_MAX - STEP_BITS + 1) as usize * STEPS + 1;

/// Counts of values, by size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts `n` occurrences of `value`.
    #[inline]
    pub fn note(&mut self, value: u64, n: u64) {
        self.buckets[bucket(value)] += n;
        self.sum = self.sum.wrapping_add(value.wrapping_mul(n));
        self.max = self.max.max(value);
    }

    /// Takes another one in.
    pub fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to += from);
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All values together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `share` (0 to 1) of all values do not exceed, to an eighth of itself: the upper end of its
    /// bucket, and never above [`Histogram::max`]. 0 while nothing was counted.
    pub fn quantile(&self, share: f64) -> u64 {
        let count = self.count();
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted {
                return end(index).saturating_sub(1).min(self.max);
            }
        }
        0
    }

    /// How many values are at most 2^`bits` - 1, for `bits` from 3 to 36.
    pub fn below_power(&self, bits: u32) -> u64 {
        debug_assert!((STEP_BITS..=BITS_MAX).contains(&bits), "a bound of buckets");
        let ends = (bits - STEP_BITS + 1) as usize * STEPS;
        self.buckets[..ends.min(BUCKETS)].iter().sum()
    }
}

#[inline]
fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let bits = 63 - value.leading_zeros();
    if bits >= BITS_MAX {
        return BUCKETS - 1;
    }
    // The highest bit says which power of two, the three behind it which part.
    let part = (value >> (bits - STEP_BITS)) as usize & (STEPS - 1);
    (bits - STEP_BITS + 1) as usize * STEPS + part
}

/// The first value behind a bucket.
fn end(index: usize) -> u64 {
    if index == BUCKETS - 1 {
        return u64::MAX;
    }
    let next = index + 1;
    if next <= STEPS {
        return next as u64;
    }
    let (power, part) = (next / STEPS - 1, next % STEPS);
    ((STEPS + part) as u64) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut from = 0;
        for index in 0..BUCKETS - 1 {
            let to = end(index);
            assert!(to > from, "bucket {index} from {from} to {to}");
            assert_eq!((bucket(from), bucket(to - 1)), (index, index), "from {from} to {to}");
            assert!(from < 8 || (to - from) * STEPS as u64 <= from, "an eighth: from {from} to {to}");
            from = to;
        }
        assert_eq!(from, 1 << BITS_MAX);
        assert_eq!((bucket(from), bucket(u64::MAX)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        let mut h = Histogram::default();
        assert_eq!(h.quantile(0.5), 0);
        for value in 1..=10_000 {
            h.note(value * 1_000, 1);
        }
        for (share, exact) in [(0.0, 1_000), (0.5, 5_000_000), (0.99, 9_900_000), (1.0, 10_000_000)] {
            let got = h.quantile(share);
            assert!(got >= exact && got <= exact + exact / 8, "{share}: {got}, not {exact}");
        }
        let mut twice = h.clone();
        twice.add(&h);
        assert_eq!((twice.count(), twice.sum(), twice.max()), (20_000, 2 * h.sum(), 10_000_000));
    }

    #[test]
    fn powers_of_two_are_bounds() {
        let mut h = Histogram::default();
        [7, 8, 1_023, 1_024, u64::MAX].iter().for_each(|v| h.note(*v, 1));
        let below: Vec<u64> = [3, 4, 10, 11, 36].iter().map(|bits| h.below_power(*bits)).collect();
        assert_eq!(below, [1, 2, 3, 4, 4]);
        assert_eq!(h.count(), 5);
    }
}
