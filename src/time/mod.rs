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
