//! What a broker says of itself at its end.

#![allow(dead_code, reason = "each test uses its part")]

use super::common::Broker;
use std::time::Duration;

/// Time to drain and end, far above what it takes.
const END: Duration = Duration::from_secs(60);

/// The counters and losses of a broker that has ended. It must run with `log.level = debug` for the counters.
#[derive(Debug)]
pub struct Totals {
    log: String,
}

impl Totals {
    /// Ends a broker by SIGTERM, asserts that it ended with success, and reads its last words.
    pub fn of(mut broker: Broker) -> Totals {
        assert!(broker.runs(), "the broker ended by itself:\n{}", broker.log());
        broker.signal("TERM");
        let status = broker.wait(END);
        let log = broker.log();
        assert!(status.is_some_and(|status| status.success()), "it ended with {status:?}:\n{log}");
        assert!(!log.contains("panicked at"), "a thread of the broker panicked:\n{log}");
        Totals { log }
    }

    /// A counter of all shards; 0 where the log does not name it.
    pub fn counter(&self, name: &str) -> u64 {
        let line = self.log.lines().rfind(|line| line.contains("all shards: "));
        let line = line.unwrap_or_else(|| panic!("a line with the counters:\n{}", self.log));
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.map_or(0, |value| value.parse().expect("a counter is a number"))
    }

    /// Messages lost by this cause.
    pub fn dropped(&self, cause: &str) -> u64 {
        let cause = format!("({cause})");
        let line = self.log.lines().rfind(|line| line.contains("dropped: ") && line.ends_with(&cause));
        let Some((_, rest)) = line.and_then(|line| line.split_once("dropped: ")) else { return 0 };
        rest.split(' ').next().and_then(|n| n.parse().ok()).expect("a number of messages")
    }

    /// Asserts that nothing was lost by any other cause than these.
    pub fn expect_only(&self, causes: &[&str]) {
        for line in self.log.lines().filter(|line| line.contains("dropped: ")) {
            assert!(causes.iter().any(|cause| line.ends_with(&format!("({cause})"))), "{line}");
        }
    }
}
