//! Instants as values: rules get the time as an argument, only `io` reads a clock.

pub mod wheel;

use std::time::Duration;

/// Milliseconds since the broker started, monotonic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// This moment and `ms` milliseconds, or [`Moment::NEVER`].
    pub fn plus_ms(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }

    /// This moment and `s` seconds, or [`Moment::NEVER`].
    pub fn plus_s(self, s: u64) -> Moment {
        self.plus_ms(s.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to this moment, 0 when it is later.
    pub fn since_ms(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As a duration since the start.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Microseconds since the broker started, in five bytes: what a message carries. They start over after 2^40,
/// 12.7 days, so a difference is right up to half of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Stamp([u8; 5]);

impl Stamp {
    /// No moment: nothing is to be measured from it.
    pub const NONE: Stamp = Stamp([0; 5]);

    /// The moment `ns` nanoseconds after the broker started; never [`Stamp::NONE`].
    pub fn at(ns: u64) -> Stamp {
        let [a, b, c, d, e, ..] = (ns / 1_000).to_le_bytes();
        let stamp = Stamp([a, b, c, d, e]);
        if stamp == Stamp::NONE { Stamp([1, 0, 0, 0, 0]) } else { stamp }
    }

    fn micros(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }

    /// Microseconds from this moment to `later`; 0 where that is the earlier one.
    pub fn micros_until(self, later: Stamp) -> u64 {
        let apart = later.micros().wrapping_sub(self.micros()) & ((1 << 40) - 1);
        if apart < 1 << 39 { apart } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_start_over_and_differences_stay_right() {
        let at = |us: u64| Stamp::at(us * 1_000 + 999);
        assert_eq!(at(5).micros_until(at(12)), 7);
        assert_eq!(at(12).micros_until(at(5)), 0);
        let last = (1 << 40) - 3;
        assert_eq!(at(last).micros_until(at((1 << 40) + 4)), 7);
        assert_ne!(Stamp::at(0), Stamp::NONE);
    }
}
