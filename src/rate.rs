//! A bound on how often something is done, as a value: so many times per second, and how many were left out.
//!
//! Shards put one in front of each log line that a peer can cause, so that a storm of clients costs neither
//! the disk nor the tick. It reads no clock.

use crate::time::Moment;

/// At most `per_s` permits in each second; the refused are counted and told with the next permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    per_s: u32,
    used: u32,
    refused: u64,
    window: Moment,
}

impl RateLimit {
    /// `per_s` permits per second; 0 refuses everything.
    pub fn new(per_s: u32) -> RateLimit {
        RateLimit { per_s, used: 0, refused: 0, window: Moment(0) }
    }

    /// Changes the limit from the next question on; what was refused stays counted.
    pub fn set_per_s(&mut self, per_s: u32) {
        self.per_s = per_s;
    }

    /// Asks for a permit. `Some(n)`: go on, and `n` were refused since the last permit. `None`: leave it out.
    pub fn permit(&mut self, now: Moment) -> Option<u64> {
        if now.since_ms(self.window) >= 1000 {
            self.window = now;
            self.used = 0;
        }
        if self.used >= self.per_s {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.refused))
    }

    /// How many were refused since the last permit.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_per_second_and_the_refused_are_told_once() {
        let mut limit = RateLimit::new(2);
        let at = |ms: u64| Moment(5_000 + ms);
        assert_eq!(limit.permit(at(0)), Some(0));
        assert_eq!(limit.permit(at(1)), Some(0));
        assert_eq!(limit.permit(at(2)), None);
        assert_eq!(limit.permit(at(999)), None);
        assert_eq!(limit.refused(), 2);
        assert_eq!(limit.permit(at(1000)), Some(2));
        assert_eq!(limit.permit(at(1001)), Some(0));
        assert_eq!(limit.permit(at(1002)), None);
    }

    #[test]
    fn zero_refuses_everything_and_a_changed_limit_counts_at_once() {
        let mut limit = RateLimit::new(0);
        assert_eq!(limit.permit(Moment(1)), None);
        limit.set_per_s(1);
        assert_eq!(limit.permit(Moment(2)), Some(1));
        assert_eq!(limit.permit(Moment(3)), None);
    }

    #[test]
    fn a_clock_that_stands_still_gives_no_new_second() {
        let mut limit = RateLimit::new(1);
        assert_eq!(limit.permit(Moment(0)), Some(0));
        for _ in 0..10 {
            assert_eq!(limit.permit(Moment(0)), None);
        }
    }
}
