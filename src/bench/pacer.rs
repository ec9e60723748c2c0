//! The schedule of an open loop: message `n` of a flow is due at `begin + n / rate`, whatever happened before.
//!
//! A message that leaves late keeps the moment that it was due at as its time, so that a broker that stalls
//! cannot hide what it did to the messages behind ("coordinated omission").

use super::plan::Pace;

/// The schedule of one flow's publishers on one worker, who take turns.
#[derive(Debug)]
pub struct Pacer {
    rate: f64,
    open: bool,
    begin_ns: u64,
    issued: u64,
    publishers: Vec<u32>,
}

impl Pacer {
    /// Without publishers yet.
    pub fn new(pace: Pace) -> Pacer {
        let (rate, open) = match pace {
            Pace::Open { rate } => (rate, true),
            Pace::Closed { .. } => (1.0, false),
        };
        Pacer { rate, open, begin_ns: 0, issued: 0, publishers: Vec::new() }
    }

    /// Takes a publisher in and returns its place in the schedule.
    pub fn seat(&mut self, publisher: u32) -> u32 {
        self.publishers.push(publisher);
        self.publishers.len() as u32 - 1
    }

    /// Takes this worker's share of the rate, of so many publishers of all workers.
    pub fn share(&mut self, publishers: usize) {
        self.rate *= self.publishers.len() as f64 / publishers.max(1) as f64;
    }

    /// The schedule begins now.
    pub fn begin(&mut self, now_ns: u64) {
        (self.begin_ns, self.issued) = (now_ns, 0);
    }

    /// When it began.
    pub fn begin_ns(&self) -> u64 {
        self.begin_ns
    }

    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Publishers that take turns.
    pub fn seats(&self) -> u64 {
        self.publishers.len() as u64
    }

    /// When the next message is due.
    pub fn next_ns(&self) -> Option<u64> {
        let active = self.open && !self.publishers.is_empty();
        active.then(|| self.begin_ns + (self.issued as f64 * 1e9 / self.rate) as u64)
    }

    /// The publisher of a message that is due by now, each message once.
    pub fn due(&mut self, now_ns: u64) -> Option<u32> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let at = self.issued % self.seats();
        self.issued += 1;
        self.publishers.get(at as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_due_once_and_in_turn_however_late_it_is_asked_for() {
        let mut pacer = Pacer::new(Pace::Open { rate: 1000.0 });
        assert_eq!([pacer.seat(7), pacer.seat(8), pacer.seat(9)], [0, 1, 2]);
        pacer.share(6);
        pacer.begin(5_000_000);
        let mut due = |now_ns: u64| std::iter::from_fn(|| pacer.due(now_ns)).collect::<Vec<_>>();
        assert_eq!(due(4_999_999), [0u32; 0]);
        assert_eq!(due(5_000_000), [7u32]);
        assert_eq!(due(6_999_999), [0u32; 0]);
        assert_eq!(due(11_000_000), [8u32, 9, 7]);
        assert_eq!(due(1_005_000_000).len(), 497);
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        let mut pacer = Pacer::new(Pace::Closed { window: 1, until: super::super::args::Until::Acked });
        pacer.seat(1);
        assert_eq!(pacer.due(u64::MAX), None);
    }
}
