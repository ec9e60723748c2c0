//! What one worker knows about the run: counters, latencies, and which message arrived where.

use super::args::Until;
use super::client::Client;
use super::plan::{Flow, Kind, Pace, Plan};
use super::stamp::{Reading, Stamp};
use super::tally::{Cause, Causes, Fates, Latencies, Route, Span, Tally};
use crate::codec::Publish;
use crate::map::Map;

/// Causes of errors that are told apart; the broker chooses the words of some.
const CAUSES_MAX: usize = 64;

/// See the module. Time comes from the worker.
#[derive(Debug, Default)]
pub struct Book {
    /// Counters.
    pub tally: Tally,
    /// Errors.
    pub causes: Causes,
    /// Since the last update.
    pub latencies: Latencies,
    /// Messages by sequence number.
    pub fates: Fates,
    /// Publishers whose message was delivered, for windows that wait for that; one entry per delivery.
    pub delivered: Vec<u32>,
    /// Whether latencies are noted.
    pub measuring: bool,
    /// Nanoseconds since 1970, on the worker's monotonic clock.
    pub now_ns: u64,
    /// Highest sequence number by subscriber and publisher, where [`Fates::received`] does not have it.
    last: Map<Route, u32>,
    /// A payload that is being made.
    pub payload: Vec<u8>,
}

impl Book {
    /// Notes an error.
    pub fn note(&mut self, cause: Cause) {
        let known = self.causes.len() < CAUSES_MAX || self.causes.contains_key(&cause);
        *self.causes.entry(if known { cause } else { Cause::Other }).or_default() += 1;
    }

    /// Notes a latency from `since_ns` to now, while measuring.
    pub fn span(&mut self, span: Span, since_ns: u64) {
        if self.measuring {
            self.latencies.record(span, self.now_ns.saturating_sub(since_ns));
        }
    }

    /// Checks a message that is not a repetition at the level of the protocol.
    pub fn receive(&mut self, plan: &Plan, flow: &Flow, client: &Client, message: &Publish<'_>) {
        self.tally.received += 1;
        self.tally.received_bytes += message.payload.len() as u64;
        match Stamp::read(message.payload, message.topic) {
            Reading::Foreign => self.tally.foreign += 1,
            Reading::Corrupt => self.tally.corrupt += 1,
            Reading::Stamped(stamp) if stamp.run != plan.run && flow.kind != Kind::In => {
                self.tally.foreign += 1;
            }
            Reading::Stamped(stamp) if !flow.wants(client.number, stamp.publisher, stamp.sequence) => {
                self.tally.misrouted += 1;
            }
            Reading::Stamped(stamp) => self.arrive(plan, flow, client, &stamp),
        }
    }

    fn arrive(&mut self, plan: &Plan, flow: &Flow, client: &Client, stamp: &Stamp) {
        let foreign_run = if stamp.run == plan.run { 0 } else { stamp.run };
        let publisher = u64::from(foreign_run) << 32 | u64::from(stamp.publisher);
        let scope = flow.scope(client.number);
        let set = self.fates.received.entry((scope, publisher)).or_default();
        let mut end = set.end();
        if !set.insert(stamp.sequence) {
            self.tally.duplicates += 1;
            return;
        }
        if matches!(flow.kind, Kind::Share | Kind::Directed) {
            let last = self.last.entry((client.number, publisher)).or_default();
            end = u64::from(std::mem::replace(last, (*last).max(stamp.sequence + 1)));
        }
        self.tally.out_of_order += u64::from(u64::from(stamp.sequence) < end && !flow.retain);
        self.tally.delivered += 1;
        let since = if flow.retain { stamp.time_ns.max(client.began_ns) } else { stamp.time_ns };
        self.span(Span::Delivery, since);
        let awaited = matches!(flow.pace, Pace::Closed { until: Until::Delivered, .. });
        if foreign_run == 0 && awaited {
            self.delivered.push(stamp.publisher);
        }
    }
}
