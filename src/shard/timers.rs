//! What happens after a time: keep alive, CONNECT that does not come, sessions that end, closes that hang.

use super::connection::{Near, Phase, Wait};
use super::sessions::End;
use super::{Handover, Shard};
use crate::auth::Verdict;
use crate::codec::ReasonCode;
use crate::io::{Close, Io};
use crate::limits::{RETAINED_SWEEP_MS, RETAINED_SWEEP_STEPS, TICK_TIMERS_MAX, TIMER_HORIZON_MS};
use crate::map::Slot;
use crate::time::Moment;

/// An entry of the timer wheel; whoever fires it checks that it still means something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    kind: Kind,
    slot: Slot,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connect,
    Proxied,
    KeepAlive,
    Close,
    Session,
    FullRoute,
    Sweep,
    Judge,
    Expire,
    Pace,
    Release,
}

impl Timer {
    pub fn connect(slot: Slot) -> Timer {
        Timer { kind: Kind::Connect, slot }
    }

    pub fn proxied(slot: Slot) -> Timer {
        Timer { kind: Kind::Proxied, slot }
    }

    pub fn keep_alive(slot: Slot) -> Timer {
        Timer { kind: Kind::KeepAlive, slot }
    }

    pub fn close(slot: Slot) -> Timer {
        Timer { kind: Kind::Close, slot }
    }

    pub fn session(slot: Slot) -> Timer {
        Timer { kind: Kind::Session, slot }
    }

    pub fn judge(slot: Slot) -> Timer {
        Timer { kind: Kind::Judge, slot }
    }

    pub fn expire(slot: Slot) -> Timer {
        Timer { kind: Kind::Expire, slot }
    }

    pub fn pace(slot: Slot) -> Timer {
        Timer { kind: Kind::Pace, slot }
    }

    pub fn release(slot: Slot) -> Timer {
        Timer { kind: Kind::Release, slot }
    }

    pub fn full_route(slot: Slot) -> Timer {
        Timer { kind: Kind::FullRoute, slot }
    }
}

impl<I: Io<Handover>> Shard<I> {
    pub(super) fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.scratch.timers);
        self.wheel.expire(self.local.now, TICK_TIMERS_MAX, &mut |at, timer| due.push((at, timer)));
        for (at, timer) in due.drain(..) {
            self.fire(at, timer);
        }
        self.scratch.timers = due;
    }

    fn fire(&mut self, due: Moment, timer: Timer) {
        let (now, conn) = (self.local.now, timer.slot.index);
        match timer.kind {
            Kind::Session if self.local.sessions.at(timer.slot).is_some() => {
                return self.handle_session_timer(conn, due);
            }
            Kind::Session => return,
            Kind::Sweep => return self.sweep_retained(),
            Kind::Expire => return self.expire_grant(timer.slot),
            Kind::Pace => return self.end_pause(timer.slot),
            Kind::Release => return self.release(timer.slot),
            Kind::Judge => return self.judged(timer.slot, Verdict::NoAnswer),
            _ => {}
        }
        let Some(c) = self.local.conns.at(timer.slot) else { return };
        match timer.kind {
            Kind::Connect if c.phase == Phase::Connecting => {
                let text = "expected CONNECT within the idle timeout";
                tracing::debug!(conn, "{text}");
                self.local.counters.connect_timeouts += 1;
                self.shut(conn, Close::Reset);
            }
            Kind::Proxied if c.phase == Phase::Proxied => {
                tracing::debug!(conn, "expected a whole PROXY header in time");
                self.local.counters.proxy_timeouts += 1;
                self.shut(conn, Close::Reset);
            }
            Kind::Close => self.cut_off(conn),
            Kind::FullRoute if c.wait == Wait::Full => {
                self.take_acks_ahead(conn);
                self.wake_slot(timer.slot, |w| w == Wait::Full);
            }
            Kind::KeepAlive if c.phase == Phase::Serving => {
                // A connection that we do not decode is not silent; one that does not read is.
                if !matches!(c.wait, Wait::Nothing | Wait::Output) {
                    c.last_packet = Near::new(now);
                }
                let silent_ms = c.last_packet.since_ms(now);
                let keep_alive_ms = c.keep_alive_ms(self.local.options.of(c.listener));
                let left_ms = keep_alive_ms.saturating_sub(silent_ms);
                if left_ms > 0 {
                    self.shrink(conn);
                    self.insert_timer(now.plus_ms(left_ms), timer);
                    return;
                }
                self.local.counters.keep_alive_timeouts += 1;
                let text = "expected a packet within 1.5 times the keep alive";
                self.disconnect(conn, ReasonCode::KEEP_ALIVE_TIMEOUT, text, End::Lost);
            }
            _ => {}
        }
    }

    /// Files a timer; one that is far off is looked at in between, so that what is gone leaves the wheel.
    pub(super) fn insert_timer(&mut self, due: Moment, timer: Timer) {
        let horizon = self.local.now.plus_ms(TIMER_HORIZON_MS);
        self.wheel.insert(due.min(horizon), timer);
    }

    /// A retained message that expires was stored: a sweep will come by.
    pub(super) fn expect_sweep(&mut self) {
        if !self.sweeping {
            self.sweeping = true;
            let nowhere = Slot { index: 0, generation: 0 };
            let timer = Timer { kind: Kind::Sweep, slot: nowhere };
            self.wheel.insert(self.local.now.plus_ms(RETAINED_SWEEP_MS), timer);
        }
    }

    fn sweep_retained(&mut self) {
        self.sweeping = false;
        let mut removed = Vec::new();
        self.retained.expire(self.local.now, RETAINED_SWEEP_STEPS, &mut removed);
        self.local.counters.expired_messages += removed.len() as u64;
        removed.iter().for_each(|message| self.forget_retained(message.topic()));
        self.tell_tight();
        if self.retained.expiring() > 0 {
            self.expect_sweep();
        }
    }

    /// A close that hangs: what has not left is given up.
    pub(super) fn cut_off(&mut self, conn: crate::io::Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if c.phase != Phase::Closing || c.cut {
            return;
        }
        c.shut = true;
        c.cut = true;
        self.io.close(conn, Close::Now);
    }

    /// Gives back what an idle client does not need.
    fn shrink(&mut self, conn: crate::io::Conn) {
        let Some(index) = self.local.conns.get(conn).and_then(|c| c.session) else { return };
        if let Some(session) = self.local.sessions.get_mut(index) {
            session.shrink(&mut self.local.memory);
        }
    }
}
