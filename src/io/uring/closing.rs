//! Closing: shut down, wait for the last completion of everything that is under way, close.

use super::super::ops::{self, Op};
use super::super::{Close, Conn, Event};
use super::Uring;
use super::slots::{Armed, Phase};
use crate::limits;
use crate::time::Moment;

impl<H: Send> Uring<H> {
    pub(super) fn begin_close(&mut self, conn: Conn, mut how: Close) {
        let reset = how == Close::Reset && self.features.reset;
        let slot = self.slots.at(conn);
        match slot.phase {
            Phase::Open => {}
            Phase::Connecting => how = Close::Now,
            Phase::Flushing | Phase::Lingering if how != Close::Flush => {}
            _ => return,
        }
        slot.armed = Armed::Nothing;
        if how == Close::Flush {
            if slot.is_sending() {
                slot.phase = Phase::Flushing;
            } else {
                self.linger(conn);
            }
            return;
        }
        if reset && !slot.shut {
            slot.shut = true;
            slot.prepare();
            self.ask(Op::Prepare, conn, ops::reset(self.units.slot_of(conn)));
        }
        self.close_now(conn);
    }

    /// Ends what is under way, then closes.
    fn close_now(&mut self, conn: Conn) {
        let until = super::Io::now(self).plus_ms(limits::CLOSE_CANCEL_MS);
        let slot = self.slots.at(conn);
        slot.phase = Phase::Closing;
        if slot.is_reading() || slot.is_sending() {
            let generation = slot.generation;
            self.closing.push_back((until, conn, generation));
            if !slot.shut {
                slot.shut = true;
                slot.prepare();
                self.ask(Op::Prepare, conn, ops::shutdown(self.units.slot_of(conn), libc::SHUT_RDWR));
            }
        }
        self.proceed(conn);
    }

    /// All is sent: ends our side of the stream and waits for the peer's end. Closing at once would answer
    /// unread input with a reset, which can destroy what the peer has not read yet.
    fn linger(&mut self, conn: Conn) {
        let until = super::Io::now(self).plus_ms(limits::LINGER_MS);
        let slot = self.slots.at(conn);
        slot.phase = Phase::Lingering;
        slot.credit = limits::LINGER_BYTES;
        slot.prepare();
        let generation = slot.generation;
        self.lingering.push_back((until, conn, generation));
        self.stats.lingers += 1;
        self.ask(Op::Prepare, conn, ops::shutdown(self.units.slot_of(conn), libc::SHUT_WR));
        self.proceed(conn);
    }

    /// The next step of a connection that is closing, if nothing stands in its way.
    pub(super) fn proceed(&mut self, conn: Conn) {
        let slot = self.slots.at(conn);
        match slot.phase {
            Phase::Closing if slot.is_quiet() => {
                slot.phase = Phase::Leaving;
                self.ask(Op::Close, conn, ops::close(self.units.slot_of(conn)));
            }
            Phase::Lingering if !slot.is_reading() => {
                slot.set_reading(true);
                let bytes = slot.credit;
                self.ask(Op::Discard, conn, ops::discard(self.units.slot_of(conn), bytes));
            }
            _ => {}
        }
    }

    /// A receive that was armed before the close.
    pub(super) fn received_while_closing(&mut self, conn: Conn, result: i32, more: bool) {
        let slot = self.slots.at(conn);
        if slot.phase != Phase::Lingering {
            if !more {
                self.proceed(conn);
            }
            return;
        }
        slot.credit = slot.credit.saturating_sub(u32::try_from(result).unwrap_or(0));
        let ended = !more && result <= 0 && result != -libc::ENOBUFS;
        if ended || slot.credit == 0 {
            self.close_now(conn);
        } else if !more {
            self.proceed(conn);
        }
    }

    pub(super) fn discarded(&mut self, conn: Conn, result: i32) {
        let slot = self.slots.at(conn);
        slot.set_reading(false);
        let bytes = u32::try_from(result).unwrap_or(0);
        slot.credit = slot.credit.saturating_sub(bytes);
        self.stats.bytes_in += u64::from(bytes);
        let again = result > 0 || matches!(-result, libc::EINTR | libc::EAGAIN);
        if slot.phase == Phase::Lingering && (slot.credit == 0 || !again) {
            self.close_now(conn);
        } else {
            self.proceed(conn);
        }
    }

    pub(super) fn sent_while_closing(&mut self, conn: Conn, failed: bool) {
        match self.slots.at(conn).phase {
            Phase::Flushing if failed => self.close_now(conn),
            Phase::Flushing => self.linger(conn),
            Phase::Closing => self.proceed(conn),
            _ => {}
        }
    }

    /// The descriptor is closed.
    pub(super) fn left(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        debug_assert_eq!(self.slots.at(conn).phase, Phase::Leaving, "closed after all else");
        self.vacate(conn);
        self.accepting.unstall();
        events.push(Event::Closed { conn });
    }

    /// Ends what has waited too long.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some(&(until, conn, generation)) = self.lingering.front() {
            let slot = self.slots.at(conn);
            let waits = slot.generation == generation && slot.phase == Phase::Lingering;
            if waits && now < until {
                break;
            }
            self.lingering.pop_front();
            if waits {
                self.stats.linger_timeouts += 1;
                self.close_now(conn);
            }
        }
        while let Some(&(until, conn, generation)) = self.closing.front() {
            let slot = self.slots.at(conn);
            let waits = slot.generation == generation && slot.phase == Phase::Closing;
            if waits && now < until {
                break;
            }
            self.closing.pop_front();
            if waits {
                for op in [Op::Receive, Op::Poll, Op::Discard, Op::Send, Op::Connect, Op::Prepare] {
                    let unit = self.units.index_of(conn);
                    self.units.push(unit, ops::cancel(ops::name(op, generation, conn)));
                }
                self.closing.push_back((now.plus_ms(limits::CLOSE_CANCEL_MS), conn, generation));
            }
        }
    }
}
