//! Whoever guesses passwords waits, longer with each guess.

use super::Aging;
use crate::limits::{
    AUTH_BACKOFF_ENTRIES_MAX, AUTH_BACKOFF_FREE, AUTH_BACKOFF_FREE_ADDRESS, AUTH_BACKOFF_MS_MAX,
    AUTH_BACKOFF_MS_MIN, AUTH_BACKOFF_PERIOD_MS,
};
use crate::time::Moment;
use std::net::IpAddr;

/// Failed logins by address, and by address and user name. A few are free; each one after them doubles the time in
/// which no password from there is looked at.
#[derive(Debug)]
pub struct Backoff {
    failures: Aging<(IpAddr, Option<Box<str>>), Failures>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    until: Moment,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { failures: Aging::new(AUTH_BACKOFF_ENTRIES_MAX, AUTH_BACKOFF_PERIOD_MS) }
    }
}

impl Backoff {
    /// Until when passwords for this name from there are not looked at; `None`: they are.
    pub fn held(&mut self, from: IpAddr, username: &str, now: Moment) -> Option<Moment> {
        let from = network(from);
        let keys = [(from, Some(username.into())), (from, None)];
        let until = keys.iter().filter_map(|key| self.failures.find(key, now).map(|f| f.until)).max()?;
        (until > now).then_some(until)
    }

    /// A password was wrong.
    pub fn failed(&mut self, from: IpAddr, username: &str, now: Moment) {
        let from = network(from);
        for (name, free) in [(Some(username.into()), AUTH_BACKOFF_FREE), (None, AUTH_BACKOFF_FREE_ADDRESS)] {
            let key = (from, name);
            let mut failures = self.failures.find(&key, now).copied().unwrap_or_default();
            failures.count = failures.count.saturating_add(1);
            if failures.count >= free {
                let doubled = AUTH_BACKOFF_MS_MIN.saturating_mul(1 << (failures.count - free).min(32));
                failures.until = now.plus_ms(doubled.min(AUTH_BACKOFF_MS_MAX));
            }
            self.failures.put(key, failures, now);
        }
    }

    /// A password was right: what failed for this name from there is forgotten. What failed for others is not, or
    /// one password that is known would buy guesses at the rest.
    pub fn succeeded(&mut self, from: IpAddr, username: &str) {
        self.failures.remove(&(network(from), Some(username.into())));
    }
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_up_to_a_bound_and_a_right_password_ends_it() {
        let (mut backoff, from) = (Backoff::default(), IpAddr::from([10, 0, 0, 1]));
        let now = Moment(1_000_000);
        for _ in 1..AUTH_BACKOFF_FREE {
            backoff.failed(from, "a", now);
        }
        assert_eq!(backoff.held(from, "a", now), None);
        backoff.failed(from, "a", now);
        assert_eq!(backoff.held(from, "a", now), Some(now.plus_ms(AUTH_BACKOFF_MS_MIN)));
        assert_eq!(backoff.held(from, "b", now), None);
        assert_eq!(backoff.held([10, 0, 0, 2].into(), "a", now), None);
        assert_eq!(backoff.held(from, "a", now.plus_ms(AUTH_BACKOFF_MS_MIN)), None);
        backoff.failed(from, "a", now);
        assert_eq!(backoff.held(from, "a", now), Some(now.plus_ms(2 * AUTH_BACKOFF_MS_MIN)));
        for _ in 0..40 {
            backoff.failed(from, "a", now);
        }
        assert_eq!(backoff.held(from, "a", now), Some(now.plus_ms(AUTH_BACKOFF_MS_MAX)));
        backoff.succeeded(from, "a");
        assert_eq!(backoff.held(from, "a", now), None);
    }

    #[test]
    fn whoever_tries_many_names_waits_too() {
        let (mut backoff, now) = (Backoff::default(), Moment(1_000_000));
        for i in 0..AUTH_BACKOFF_FREE_ADDRESS {
            let from = format!("2001:db8::{i:x}").parse().expect("an address");
            assert_eq!(backoff.held(from, "new", now), None);
            backoff.failed(from, &i.to_string(), now);
        }
        let held = |backoff: &mut Backoff, from: &str| {
            backoff.held(from.parse().expect("an address"), "new", now).is_some()
        };
        assert!(held(&mut backoff, "2001:db8::ffff") && !held(&mut backoff, "2001:db8:0:1::1"));
    }
}
