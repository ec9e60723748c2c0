//! The flight recorder of one shard: how long its ticks took and where their time went, how late it was, and how
//! long messages stayed in it.
//!
//! A tick reads the clock when its completions are reaped and when its output is with the driver, and no packet
//! reads it. So a message that is delivered in the tick it arrived in took as long as that tick; one that came
//! from another shard, or waited for room, carries the stamp of the tick that it was published in. The bytes
//! before the reap (in the kernel) and behind the flush (the system call that submits, the kernel) are not in it.
//! Parts of a tick are measured in one tick of [`SAMPLE_EVERY`].

use super::Histogram;
use crate::limits::DELIVERY_STAMPS_MAX;
use crate::time::Stamp;

/// One tick of so many is measured part by part.
pub const SAMPLE_EVERY: u64 = 64;

macro_rules! parts {
    ($($name:ident $text:literal $doc:literal,)*) => {
        /// Parts of a tick, in their order.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Part {
            $(#[doc = $doc] $name,)*
        }

        impl Part {
            /// All parts, each at the index of its value: the name, and what it is.
            pub const TABLE: &[(&str, &str)] = &[$(($text, $doc),)*];
        }
    };
}

parts! {
    Control "control" "What other shards announced.",
    Commands "commands" "What the operator wants.",
    Ready "ready" "Input that earlier ticks left over.",
    Events "events" "What the driver reported: input above all.",
    Data "data" "Messages from other shards.",
    FanOuts "fan_outs" "Messages that are handed out over several ticks.",
    Timers "timers" "Timers.",
    Background "background" "Clean-up and scans.",
    Announce "announce" "Announcements to other shards, and their doorbells.",
    Flush "flush" "Output to the driver.",
}

const PARTS: usize = Part::TABLE.len();

/// What was measured of one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Nanoseconds of all samples.
    pub sum_ns: u64,
    /// Nanoseconds of the longest.
    pub max_ns: u64,
}

/// One tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tick {
    /// When it began, in nanoseconds since the broker started.
    pub began_ns: u64,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// Events that the driver had reported.
    pub events: u64,
    /// Messages that were delivered.
    pub deliveries: u64,
}

/// What is recorded. Times are in nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// From the reap of a tick's completions until its output was with the driver.
    pub tick: Histogram,
    /// From the tick that a message was published in until the one that delivered it had given its output to the
    /// driver. In microseconds, see the module.
    pub delivery: Histogram,
    /// From the ring of a sleeper's doorbell until it was awake.
    pub wake_up: Histogram,
    /// How late a tick began that was to begin at a certain moment, for a timer.
    pub drift: Histogram,
    /// Events of one tick; of ticks that had any.
    pub events: Histogram,
    /// Deliveries of one tick; of ticks that had any.
    pub deliveries: Histogram,
    /// What ticks spent on listings for the management thread, of ticks that had any.
    pub listing: Histogram,
    /// The same in CPU time of the thread: without what other threads of the core were given meanwhile.
    pub listing_cpu: Histogram,
    /// By [`Part`].
    pub parts: [Span; PARTS],
    /// Ticks that were measured part by part.
    pub samples: u64,
    /// The longest tick.
    pub longest: Tick,
}

impl Record {
    /// Takes another shard's record in; of the parts and of the longest tick, the longer.
    pub fn add(&mut self, other: &Record) {
        self.tick.add(&other.tick);
        self.delivery.add(&other.delivery);
        self.wake_up.add(&other.wake_up);
        self.drift.add(&other.drift);
        self.events.add(&other.events);
        self.deliveries.add(&other.deliveries);
        self.listing.add(&other.listing);
        self.listing_cpu.add(&other.listing_cpu);
        for (to, from) in self.parts.iter_mut().zip(&other.parts) {
            to.sum_ns += from.sum_ns;
            to.max_ns = to.max_ns.max(from.max_ns);
        }
        self.samples += other.samples;
        if other.longest.took_ns > self.longest.took_ns {
            self.longest = other.longest;
        }
    }
}

/// Writes a [`Record`]. Once per tick, in this order: [`Recorder::begin`], [`Recorder::lap`] after each part if
/// [`Recorder::is_sampling`], [`Recorder::delivered`] for each delivery, [`Recorder::end`].
#[derive(Debug, Default)]
pub struct Recorder {
    /// What was recorded up to the last end of a tick.
    pub record: Record,
    began_ns: u64,
    ended_ns: u64,
    lap_ns: u64,
    ticks: u64,
    sampling: bool,
    events: u64,
    deliveries: u64,
    /// The stamp of the last delivery, and deliveries with it since it became so.
    run: (Stamp, u64),
    /// Runs of this tick that are over.
    runs: Vec<(Stamp, u64)>,
}

impl Recorder {
    /// A tick begins, with these events, at the time `ns`; where it was to begin at `due_ns`, that is noted.
    pub fn begin(&mut self, ns: u64, due_ns: Option<u64>, events: u64) {
        if let Some(due_ns) = due_ns.filter(|due_ns| *due_ns <= ns) {
            self.record.drift.note(ns - due_ns, 1);
        }
        self.began_ns = ns;
        self.lap_ns = ns;
        self.events = events;
        self.ticks += 1;
        self.sampling = self.ticks.is_multiple_of(SAMPLE_EVERY);
    }

    /// Somebody rang at `rung_ns`, and this shard is awake at `ns`. A ring from before it went to sleep woke it
    /// from nothing.
    pub fn woken(&mut self, rung_ns: u64, ns: u64) {
        if rung_ns >= self.ended_ns {
            self.record.wake_up.note(ns.saturating_sub(rung_ns), 1);
        }
    }

    /// Whether this tick is measured part by part.
    #[inline]
    pub fn is_sampling(&self) -> bool {
        self.sampling
    }

    /// A part of the tick is over at `ns`.
    pub fn lap(&mut self, part: Part, ns: u64) {
        let span = &mut self.record.parts[part as usize];
        let took = ns.saturating_sub(self.lap_ns);
        span.sum_ns += took;
        span.max_ns = span.max_ns.max(took);
        self.lap_ns = ns;
    }

    /// This tick spent so much on listings.
    pub fn listed(&mut self, took_ns: u64, cpu_ns: u64) {
        self.record.listing.note(took_ns, 1);
        self.record.listing_cpu.note(cpu_ns, 1);
    }

    /// A message that was published at `stamp` is delivered; with [`Stamp::NONE`] it counts for the tick alone.
    #[inline]
    pub fn delivered(&mut self, stamp: Stamp) {
        if self.run.0 != stamp {
            self.turn_to(stamp);
        }
        self.run.1 += 1;
    }

    /// Messages with another stamp follow.
    fn turn_to(&mut self, stamp: Stamp) {
        let run = std::mem::replace(&mut self.run, (stamp, 0));
        if run.1 == 0 {
            return;
        }
        if self.runs.len() < DELIVERY_STAMPS_MAX {
            self.runs.push(run);
        } else {
            // As if the tick ended where it began: what it takes itself is missing.
            self.settle(run, self.began_ns);
        }
    }

    /// The tick is over at `ns`.
    pub fn end(&mut self, ns: u64) {
        self.turn_to(Stamp::NONE);
        let mut runs = std::mem::take(&mut self.runs);
        for run in runs.drain(..) {
            self.settle(run, ns);
        }
        self.runs = runs;
        let took_ns = ns.saturating_sub(self.began_ns);
        let deliveries = std::mem::take(&mut self.deliveries);
        self.record.tick.note(took_ns, 1);
        if self.events > 0 {
            self.record.events.note(self.events, 1);
        }
        if deliveries > 0 {
            self.record.deliveries.note(deliveries, 1);
        }
        if took_ns > self.record.longest.took_ns {
            let (began_ns, events) = (self.began_ns, self.events);
            self.record.longest = Tick { began_ns, took_ns, events, deliveries };
        }
        self.record.samples += u64::from(self.sampling);
        self.ended_ns = ns;
    }

    fn settle(&mut self, (stamp, n): (Stamp, u64), ns: u64) {
        self.deliveries += n;
        if stamp != Stamp::NONE {
            self.record.delivery.note(stamp.micros_until(Stamp::at(ns)), n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn deliveries_take_from_their_own_stamp_until_the_end_of_the_tick() {
        let mut recorder = Recorder::default();
        recorder.begin(10 * MS, None, 2);
        (0..3).for_each(|_| recorder.delivered(Stamp::at(10 * MS)));
        recorder.delivered(Stamp::at(4 * MS));
        recorder.delivered(Stamp::NONE);
        recorder.delivered(Stamp::at(10 * MS));
        recorder.end(12 * MS);
        let record = &recorder.record;
        assert_eq!((record.delivery.count(), record.delivery.max()), (5, 8_000));
        assert_eq!(record.delivery.sum(), 4 * 2_000 + 8_000);
        assert_eq!((record.deliveries.max(), record.events.max()), (6, 2));
        let longest = Tick { began_ns: 10 * MS, took_ns: 2 * MS, events: 2, deliveries: 6 };
        assert_eq!(record.longest, longest);
    }

    #[test]
    fn more_stamps_than_there_is_room_for_are_counted_all_the_same() {
        let mut recorder = Recorder::default();
        let n = DELIVERY_STAMPS_MAX as u64 + 10;
        recorder.begin(n * MS, None, 1);
        (0..n).for_each(|i| recorder.delivered(Stamp::at((i + 1) * MS)));
        recorder.end(n * MS);
        assert_eq!(recorder.record.delivery.count(), n);
        assert!(recorder.runs.capacity() <= DELIVERY_STAMPS_MAX.next_power_of_two());
    }

    #[test]
    fn one_tick_of_many_is_measured_part_by_part() {
        let mut recorder = Recorder::default();
        for tick in 0..2 * SAMPLE_EVERY {
            recorder.begin(tick * MS, None, 0);
            if recorder.is_sampling() {
                recorder.lap(Part::Control, tick * MS + 5);
                recorder.lap(Part::Flush, tick * MS + 12);
            }
            recorder.end(tick * MS + 20);
        }
        let record = &recorder.record;
        assert_eq!((record.samples, record.tick.count()), (2, 2 * SAMPLE_EVERY));
        assert_eq!(record.parts[Part::Control as usize], Span { sum_ns: 10, max_ns: 5 });
        assert_eq!(record.parts[Part::Flush as usize], Span { sum_ns: 14, max_ns: 7 });
        assert_eq!(record.events.count() + record.deliveries.count(), 0, "ticks without any");
    }

    #[test]
    fn drift_and_wake_ups_are_of_this_sleep() {
        let mut recorder = Recorder::default();
        recorder.begin(MS, Some(2 * MS), 0);
        recorder.end(3 * MS);
        recorder.woken(2 * MS, 5 * MS);
        assert_eq!(recorder.record.wake_up.count() + recorder.record.drift.count(), 0);
        recorder.woken(4 * MS, 5 * MS);
        recorder.begin(5 * MS, Some(4 * MS), 0);
        assert_eq!((recorder.record.wake_up.max(), recorder.record.drift.max()), (MS, MS));
    }
}
