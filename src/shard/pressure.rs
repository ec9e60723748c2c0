//! What is refused while the broker holds more memory than it may: the newest kinds of work first, those without which
//! nothing moves last, and nothing that is there already.

use super::{Handover, Next, Shard};
use crate::codec::{Publish, ReasonCode, Version};
use crate::io::{Conn, Io};
use crate::limits::PRESSURE_PERCENT;
use crate::message::QoS;
use crate::stats::LossCause;

/// What is said of messages.
const HOLDS_ENOUGH: &str = "the broker holds as much as it may";

/// What is refused; each step refuses what those before it do as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// Connections.
    Connections,
    /// Subscriptions that are new to their session.
    Subscriptions,
    /// Messages that are to be retained.
    Retained,
    /// All messages.
    Messages,
}

impl Pressure {
    const STEPS: [Pressure; 5] = [
        Pressure::None,
        Pressure::Connections,
        Pressure::Subscriptions,
        Pressure::Retained,
        Pressure::Messages,
    ];

    /// What is refused with so many bytes held where there may be `bytes_max`; 0 = no bound.
    pub fn of(bytes: u64, bytes_max: u64) -> Pressure {
        if bytes_max == 0 {
            return Pressure::None;
        }
        let percent = u128::from(bytes) * 100 / u128::from(bytes_max);
        Pressure::STEPS[PRESSURE_PERCENT.iter().filter(|least| percent >= u128::from(**least)).count()]
    }
}

const _: () = assert!(Pressure::STEPS.len() == PRESSURE_PERCENT.len() + 1);

impl<I: Io<Handover>> Shard<I> {
    /// This is refused from now on.
    pub(super) fn press(&mut self, pressure: Pressure) {
        self.pressure = pressure;
        self.local.gauges.pressure = pressure as u64;
    }

    /// What follows for a PUBLISH while messages are refused; `None`: it goes on.
    pub(super) fn check_pressure(&mut self, conn: Conn, p: &Publish) -> Option<Next> {
        if self.pressure < Pressure::Messages {
            return None;
        }
        if p.qos == QoS::AtMostOnce {
            self.local.ledger.record("", LossCause::MemoryFull, 1);
            return Some(Next::Go);
        }
        if self.local.conns.get(conn)?.link.version < Version::V5 {
            // It cannot be told, so it waits for a while.
            return Some(self.refuse_full(conn, p, false, HOLDS_ENOUGH));
        }
        self.local.counters.publish_refused += 1;
        Some(self.acknowledge(conn, p, ReasonCode::QUOTA_EXCEEDED, HOLDS_ENOUGH, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_in_order() {
        let at = |percent: u64| Pressure::of(percent * 1_000, 100_000);
        assert_eq!(
            [at(99), at(100), at(104)],
            [Pressure::None, Pressure::Connections, Pressure::Connections]
        );
        assert_eq!(
            [at(105), at(110), at(115), at(900)],
            [Pressure::Subscriptions, Pressure::Retained, Pressure::Messages, Pressure::Messages]
        );
        assert_eq!(Pressure::of(u64::MAX, 0), Pressure::None);
        assert!(Pressure::STEPS.is_sorted() && PRESSURE_PERCENT.is_sorted());
    }
}
