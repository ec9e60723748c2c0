//! What a shard tells of itself: its counters, what it holds, and the flight recorder around each tick.

use super::{Handover, Shard};
use crate::io::Io;
use crate::stats::{Counters, Gauges, Part, Snapshot};
use crate::time::{Moment, Stamp};

impl<I: Io<Handover>> Shard<I> {
    /// The driver has returned: the time of this tick. `deadline` is until when it was to sleep at most; `rung`
    /// when another shard rang.
    pub(super) fn open_tick(&mut self, deadline: Option<Moment>, rung: Option<u64>) {
        let ns = self.io.clock_ns();
        let events = self.events.len() as u64;
        let due_ns = deadline.filter(|d| *d != Moment::NEVER).map(|d| d.0 * 1_000_000);
        if let Some(rung_ns) = rung {
            self.local.recorder.woken(rung_ns, ns);
        }
        self.local.recorder.begin(ns, due_ns, events);
        self.local.counters.ticks += 1;
        self.local.counters.events += events;
        self.local.now = Moment(ns / 1_000_000);
        self.local.stamp = Stamp::at(ns);
    }

    /// A part of the tick is over.
    #[inline]
    pub(super) fn lap(&mut self, part: Part) {
        if self.local.recorder.is_sampling() {
            self.local.recorder.lap(part, self.io.clock_ns());
        }
    }

    /// The tick is over: its output is with the driver.
    pub(super) fn close_tick(&mut self) {
        self.gauge();
        self.local.recorder.end(self.io.clock_ns());
    }

    /// Brings up to date what it holds, and what it held at most.
    fn gauge(&mut self) {
        let routes = self.trie.counts();
        let gauges = &mut self.local.gauges;
        gauges.sockets = self.local.conns.len() as u64;
        gauges.subscriptions = routes.subscriptions as u64;
        gauges.subscriptions_shared = routes.shared as u64;
        gauges.topics = routes.topics as u64;
        gauges.retained = self.retained.len() as u64;
        gauges.overflow = self.mesh.overflow_len() as u64;
        gauges.fan_outs = self.fan_outs.len() as u64;
        self.peaks.raise(gauges);
    }

    /// What it has counted, its mesh and its driver included.
    pub(super) fn counters(&self) -> Counters {
        let driver = self.io.stats();
        let mut counters = self.local.counters.clone();
        counters.add(self.mesh.counters());
        counters.enters = driver.enters;
        counters.completions = driver.completions;
        counters.cq_overflow = driver.cq_overflow;
        counters.starved = driver.starved;
        counters.accept_pauses += driver.accept_pauses;
        counters
    }

    /// What it holds.
    pub(super) fn gauges(&self) -> Gauges {
        let waiting = self.waiters.len() as u64;
        Gauges { waiting, ..self.local.gauges.clone() }
    }

    /// All that it tells of itself. What it held at most begins anew with each call: whoever asks keeps it.
    pub fn snapshot(&mut self) -> Snapshot {
        // What another shard handed over in this tick counts as well: its client was answered.
        self.gauge();
        let gauges = self.gauges();
        let peaks = std::mem::replace(&mut self.peaks, gauges.clone());
        Snapshot {
            counters: self.counters(),
            gauges,
            peaks,
            record: self.local.recorder.record.clone(),
            losses: self.local.ledger.losses(),
        }
    }
}
