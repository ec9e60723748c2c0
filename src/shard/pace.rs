//! How fast a client may send and be sent to.
//!
//! Each rate has a bucket that holds a second's worth. What comes in is taken first and paid for then: a client that owes
//! something is neither decoded nor read until it has paid, so that its own socket slows it down and nothing is lost. What
//! goes out is paid for once in a tick: a client that owes something gets no further message until it has paid, which is
//! what happens to one that does not read: QoS 0 is dropped and counted, QoS 1 and 2 wait in its session's queue.
//!
//! Without rates there are no buckets: a connection pays no byte, and a packet one comparison.

use super::connection::{Phase, Wait};
use super::timers::Timer;
use super::{Handover, Shard};
use crate::heap::{allocated, map_bytes};
use crate::io::{Conn, Io};
use crate::limits::RATE_BURST_MS;
use crate::map::{Map, Slot};
use crate::session::{Options, Rates, UserRates};
use crate::time::Moment;

/// Buckets of the connections that have some, and users with rates of their own.
#[derive(Debug, Default)]
pub(super) struct Paces {
    buckets: Map<Conn, Pace>,
    users: Map<Box<str>, UserRates>,
}

/// The buckets of one connection.
#[derive(Debug, Default)]
struct Pace {
    messages_in: Bucket,
    bytes_in: Bucket,
    messages_out: Bucket,
    bytes_out: Bucket,
    /// Messages that were sent when it was looked at the last time.
    sent: u32,
}

/// When everything that was taken is paid for, in microseconds of the shard's clock, which is a burst ahead here: so a
/// bucket begins full, also when the clock begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bucket(u64);

impl Bucket {
    /// Takes so many at a rate for each second; 0 = no bound.
    fn take(&mut self, count: u64, per_s: u32, now: Moment) {
        let Some(cost) = (count * 1_000_000).checked_div(u64::from(per_s)) else { return };
        // What was not used is there for later: a burst, and no more.
        self.0 = self.0.max(now.0 * 1_000) + cost;
    }

    /// Milliseconds until everything is paid for.
    fn owes_ms(self, now: Moment) -> u64 {
        self.0.saturating_sub((now.0 + RATE_BURST_MS) * 1_000).div_ceil(1_000)
    }
}

impl Paces {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let names = self.users.keys().map(|name| 2 * allocated(name.len())).sum::<usize>();
        map_bytes::<Conn, Pace>(self.buckets.capacity())
            + map_bytes::<Box<str>, UserRates>(self.users.capacity())
            + names
    }

    /// Users have these rates from now on.
    pub fn set_users(&mut self, options: &Options) {
        self.users = options.user_rates.iter().map(|rates| (rates.name.clone(), rates.clone())).collect();
    }

    /// A connection is gone.
    pub fn forget(&mut self, conn: Conn) {
        if !self.buckets.is_empty() {
            self.buckets.remove(&conn);
            if self.buckets.is_empty() {
                self.buckets = Map::default();
            }
        }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// The rates for a connection; `None` where nothing is bounded.
    #[inline]
    pub(super) fn rates_of(&self, conn: Conn, listener: u8) -> Option<Rates> {
        let mut rates = self.local.options.of(listener).rates;
        if !self.paces.users.is_empty() {
            rates = self.rates_of_user(conn, rates);
        }
        rates.any().then_some(rates)
    }

    /// The rates for a connection where those of others are these.
    #[inline(never)]
    fn rates_of_user(&self, conn: Conn, others: Rates) -> Rates {
        let session = self.local.conns.get(conn).and_then(|c| self.local.sessions.get(c.session?));
        let user = session.and_then(|session| session.profile.as_deref()?.username.as_deref());
        user.and_then(|user| self.paces.users.get(user)).map_or(others, |own| own.over(others))
    }

    /// Bytes came.
    pub(super) fn pace_bytes(&mut self, conn: Conn, listener: u8, bytes: usize) {
        let Some(rates) = self.rates_of(conn, listener).filter(|rates| rates.bytes_in > 0) else { return };
        let now = self.local.now;
        self.paces.buckets.entry(conn).or_default().bytes_in.take(bytes as u64, rates.bytes_in, now);
    }

    /// A PUBLISH was handled.
    pub(super) fn pace_message(&mut self, conn: Conn, rates: &Rates) {
        if rates.messages_in > 0 {
            let now = self.local.now;
            self.paces.buckets.entry(conn).or_default().messages_in.take(1, rates.messages_in, now);
        }
    }

    /// Whether a connection owes something for what it has sent, and now waits for that. `publish`: what is next is a
    /// PUBLISH; else only bytes count.
    pub(super) fn must_pause(&mut self, conn: Conn, publish: bool) -> bool {
        let now = self.local.now;
        let Some(pace) = self.paces.buckets.get(&conn) else { return false };
        let messages_ms = if publish { pace.messages_in.owes_ms(now) } else { 0 };
        let owes_ms = messages_ms.max(pace.bytes_in.owes_ms(now));
        if owes_ms == 0 {
            return false;
        }
        let Some(slot) = self.local.conns.slot(conn) else { return false };
        self.local.counters.paused += 1;
        self.wait(conn, Wait::Pace);
        self.insert_timer(now.plus_ms(owes_ms), Timer::pace(slot));
        true
    }

    /// After everything that came was decoded: whether a connection is read on, or waits.
    pub(super) fn pause_reading(&mut self, conn: Conn) {
        if self.paces.buckets.is_empty() {
            return;
        }
        let idle = |c: &super::connection::Connection| c.phase == Phase::Serving && c.wait == Wait::Nothing;
        if self.local.conns.get(conn).is_some_and(idle) {
            self.must_pause(conn, false);
        }
    }

    /// A connection may have paid for what it has sent.
    pub(super) fn end_pause(&mut self, slot: Slot) {
        self.wake_slot(slot, |wait| wait == Wait::Pace);
    }

    /// Bytes and messages were given to the driver.
    pub(super) fn pace_output(&mut self, conn: Conn, bytes: usize) {
        let Some(c) = self.local.conns.get(conn).filter(|c| c.phase == Phase::Serving) else { return };
        let Some(rates) = self.rates_of(conn, c.listener) else { return };
        let Some(c) = self.local.conns.get_mut(conn).filter(|_| rates.messages_out | rates.bytes_out != 0)
        else {
            return;
        };
        let now = self.local.now;
        let pace = self.paces.buckets.entry(conn).or_default();
        // It starts over when traffic is folded.
        let messages = c.link.traffic.send_msg.checked_sub(pace.sent).unwrap_or(c.link.traffic.send_msg);
        pace.sent = c.link.traffic.send_msg;
        pace.messages_out.take(u64::from(messages), rates.messages_out, now);
        pace.bytes_out.take(bytes as u64, rates.bytes_out, now);
        let owes_ms = pace.messages_out.owes_ms(now).max(pace.bytes_out.owes_ms(now));
        if owes_ms > 0 && !c.link.is_held() {
            c.link.hold(true);
            if let Some(slot) = self.local.conns.slot(conn) {
                self.local.counters.held += 1;
                self.insert_timer(now.plus_ms(owes_ms), Timer::release(slot));
            }
        }
    }

    /// A connection may have paid for what it was sent.
    pub(super) fn release(&mut self, slot: Slot) {
        let now = self.local.now;
        let Some(c) = self.local.conns.at(slot).filter(|c| c.link.is_held()) else { return };
        let pace = self.paces.buckets.get(&slot.index);
        let owes_ms = pace.map_or(0, |p| p.messages_out.owes_ms(now).max(p.bytes_out.owes_ms(now)));
        if owes_ms > 0 {
            return self.insert_timer(now.plus_ms(owes_ms), Timer::release(slot));
        }
        c.link.hold(false);
        if let Some(session) = c.session {
            self.pump_session(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_over_time_and_allows_a_second_at_once() {
        let mut bucket = Bucket::default();
        let now = Moment(10_000);
        let taken = |bucket: &mut Bucket, now: Moment| {
            let free = (0..1_000).take_while(|_| {
                let free = bucket.owes_ms(now) == 0;
                if free {
                    bucket.take(1, 10, now);
                }
                free
            });
            free.count()
        };
        assert_eq!(taken(&mut bucket, now), 11, "a second's worth, and the one that owes");
        assert_eq!(taken(&mut bucket, now.plus_ms(50)), 0);
        assert_eq!(taken(&mut bucket, now.plus_ms(1_000)), 10, "what a second brings");
        assert_eq!(taken(&mut bucket, now.plus_ms(60_000)), 11, "no more than a burst");
        bucket.take(1_000, 10, now.plus_ms(60_000));
        assert_eq!(bucket.owes_ms(now.plus_ms(60_000)), 100_100);
        assert_eq!(taken(&mut Bucket::default(), Moment(0)), 11, "also when the clock begins");
        let mut off = Bucket::default();
        off.take(u64::from(u32::MAX), 0, now);
        assert_eq!(off.owes_ms(Moment(0)), 0);
    }
}
