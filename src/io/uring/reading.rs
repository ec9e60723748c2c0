//! Receives and sends.

use super::super::driver::NOTHING;
use super::super::ops::{self, Op};
use super::super::{Conn, Event, Lease, Read, ReadEnd};
use super::Uring;
use super::slots::{Armed, Phase};
use io_uring::cqueue;

impl<H: Send> Uring<H> {
    pub(super) fn arm(&mut self, conn: Conn, mode: Read) {
        let slot = self.slots.at(conn);
        debug_assert_eq!(slot.armed, Armed::Nothing, "one read at a time");
        debug_assert_eq!(slot.phase, Phase::Open, "only an open connection is read");
        (slot.armed, slot.credit) = match mode {
            Read::Once => (Armed::Once, 0),
            Read::Stream { credit } => (Armed::Stream, credit.max(1)),
            Read::Parked => (Armed::Parked, 0),
        };
        self.ask_read(conn, false);
    }

    /// Puts the armed read into the ring. `wait`: the socket is likely to have nothing yet.
    fn ask_read(&mut self, conn: Conn, wait: bool) {
        let place = self.units.slot_of(conn);
        let slot = self.slots.at(conn);
        slot.set_reading(true);
        let (op, entry) = match slot.armed {
            Armed::Parked => (Op::Poll, ops::poll(place)),
            Armed::Stream => (Op::Receive, ops::stream(&self.features, place, slot.credit, wait)),
            Armed::Once | Armed::Nothing => (Op::Receive, ops::receive(place, wait)),
        };
        self.ask(op, conn, entry);
    }

    pub(super) fn received(&mut self, conn: Conn, result: i32, flags: u32, events: &mut Vec<Event<H>>) {
        let buffer = cqueue::buffer_select(flags);
        let more = cqueue::more(flags);
        let slot = self.slots.at(conn);
        slot.set_reading(more);
        let open = slot.phase == Phase::Open;
        let unit = self.units.index_of(conn);
        if buffer.is_some() {
            self.units.at(unit).buffers.taken();
        }
        let bytes = u32::try_from(result).unwrap_or(0);
        self.stats.bytes_in += u64::from(bytes);
        match buffer {
            Some(id) if open && bytes > 0 => {
                let lease = Lease::new(
                    self.units.at(unit).buffers.start(id),
                    bytes,
                    (unit as u32) << 16 | u32::from(id),
                );
                events.push(Event::Data { conn, lease });
            }
            Some(id) => {
                self.units.at(unit).buffers.give(id);
                self.units.mark(unit);
            }
            None => {}
        }
        if !open {
            return self.received_while_closing(conn, result, more);
        }
        let slot = self.slots.at(conn);
        slot.credit = slot.credit.saturating_sub(bytes);
        if more {
            return;
        }
        let why = match result {
            1.. if slot.armed == Armed::Once => {
                slot.armed = Armed::Nothing;
                return;
            }
            1.. if slot.credit > 0 => return self.ask_read(conn, !cqueue::sock_nonempty(flags)),
            1.. => ReadEnd::Credit,
            0 => ReadEnd::Eof,
            _ => match -result {
                libc::ENOBUFS => return self.starve(conn),
                libc::EINTR | libc::EAGAIN => return self.ask_read(conn, true),
                errno => ReadEnd::Err(errno),
            },
        };
        slot.armed = Armed::Nothing;
        events.push(Event::ReadEnded { conn, why });
    }

    /// There was no buffer: the connection waits until one comes back.
    fn starve(&mut self, conn: Conn) {
        self.stats.starved += 1;
        let generation = self.slots.at(conn).generation;
        self.units.of(conn).starved.push_back((conn, generation));
        self.units.starving += 1;
    }

    /// Lets as many of the starved try again as there are buffers. More than that would fail again at once;
    /// those that have nothing to read leave their buffer to the next, in the next turn.
    pub(super) fn feed_starved(&mut self) {
        if self.units.starving == 0 {
            return;
        }
        for unit in 0..self.units.count() {
            let mut buffers = self.units.at(unit).buffers.available();
            while buffers > 0 {
                let Some((conn, generation)) = self.units.at(unit).starved.pop_front() else { break };
                self.units.starving -= 1;
                let slot = self.slots.at(conn);
                if slot.generation == generation && slot.phase == Phase::Open {
                    buffers -= 1;
                    self.ask_read(conn, false);
                }
            }
        }
    }

    pub(super) fn polled(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let slot = self.slots.at(conn);
        slot.set_reading(false);
        if slot.phase == Phase::Open {
            slot.armed = Armed::Nothing;
            events.push(Event::Ready { conn });
        } else {
            self.proceed(conn);
        }
    }

    /// Sends what has not left of the send under way.
    pub(super) fn send_rest(&mut self, conn: Conn) {
        let out = self.outbox.at(self.slots.at(conn).place);
        let entry = ops::send(self.units.slot_of(conn), &out.buffer[out.sent..]);
        self.ask(Op::Send, conn, entry);
    }

    pub(super) fn sent(&mut self, conn: Conn, result: i32, events: &mut Vec<Event<H>>) {
        let slot = self.slots.at(conn);
        let out = self.outbox.at(slot.place);
        let bytes = usize::try_from(result).unwrap_or(0);
        out.sent += bytes;
        self.stats.bytes_out += bytes as u64;
        let all = out.sent == out.buffer.len();
        let again = result > 0 || matches!(-result, libc::EINTR | libc::EAGAIN);
        if !all && again && slot.phase != Phase::Closing {
            return self.send_rest(conn);
        }
        let error = match result {
            _ if all => None,
            0.. => Some(libc::ECANCELED),
            errno => Some(-errno),
        };
        let buffer = self.outbox.take(std::mem::replace(&mut slot.place, NOTHING));
        slot.set_sending(false);
        self.stats.sends += 1;
        events.push(Event::Sent { conn, buffer, error });
        self.sent_while_closing(conn, error.is_some());
    }
}
