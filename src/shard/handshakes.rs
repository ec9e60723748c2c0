//! Steps of TLS handshakes. One costs as much as hundreds of messages, so it is taken on a thread that helps: a
//! connection's layers go there whole, and come back by a command. Where nobody helps, such as in a simulation, each
//! tick takes few of them itself.
//!
//! ```text
//!   parked ─ Ready ─► line ─ a place ─► read ─► step, there or here ─► parked, or MQTT
//!     ▲                                  │ no whole record yet                │
//!     └──────────────────────────────────┴────────────────────────────────────┘
//! ```
//!
//! Places are what is bounded. Who waits for one waits unread, so that it costs no more than any connection before
//! its CONNECT; the time for that runs on. In a long line the last are served first: after a flood, nobody may be
//! left behind those in front. A place is taken from the read to the return of the step, or until a
//! closed connection's read has ended.

use super::connection::{Armed, Phase, Wait};
use super::wrapped::note_layers;
use super::{Handover, Shard};
use crate::heap::{recount, vec_bytes};
use crate::io::{Conn, Io, Read};
use crate::limits::{HANDSHAKES_IN_ORDER_MAX, TICK_HANDSHAKES_MAX};
use crate::map::Slot;
use crate::transport::{Fate, Layer, Stepped, Transport};
use std::collections::VecDeque;

/// Those who take steps for a shard.
pub struct Helpers {
    /// Steps that may be under way.
    pub places: usize,
    /// Takes one, and never blocks. It comes back as [`super::Command::Stepped`].
    pub take: Box<dyn FnMut(Box<Transport>, Slot) + Send>,
}

/// Handshakes of a shard that want a step.
pub(super) struct Handshakes {
    helpers: Option<Helpers>,
    /// Connections that wait for a place.
    line: VecDeque<Slot>,
    /// Those that have one and are read.
    reading: Vec<Slot>,
    /// Those whose layers are with a helper, and what was counted of these.
    pub away: Vec<(Slot, usize)>,
}

impl Handshakes {
    pub fn new(helpers: Option<Helpers>) -> Handshakes {
        Handshakes { helpers, line: VecDeque::new(), reading: Vec::new(), away: Vec::new() }
    }

    /// Whether the next tick can do nothing for those who wait: a place becomes free by an event or a command.
    pub fn is_idle(&self) -> bool {
        self.line.is_empty() || self.free() == 0
    }

    pub fn bytes(&self) -> usize {
        vec_bytes::<Slot>(self.line.capacity())
            + vec_bytes::<Slot>(self.reading.capacity())
            + vec_bytes::<(Slot, usize)>(self.away.capacity())
    }

    /// Entries of the line, with those that have left and are still to be taken out.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    fn next_in_line(&mut self) -> Option<Slot> {
        let in_order = self.line.len() <= HANDSHAKES_IN_ORDER_MAX;
        if in_order { self.line.pop_front() } else { self.line.pop_back() }
    }

    fn free(&self) -> usize {
        let places = self.helpers.as_ref().map_or(TICK_HANDSHAKES_MAX, |helpers| helpers.places);
        places.saturating_sub(self.reading.len() + self.away.len())
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// A connection has something for its handshake, received or not. It waits for a place.
    pub(super) fn ask_for_place(&mut self, conn: Conn) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        c.wait = Wait::Handshake;
        self.local.counters.handshake_waits +=
            u64::from(self.handshakes.free() <= self.handshakes.line.len());
        // Who has left at its time limit stands in front, where a long line is not served.
        for _ in 0..2 {
            let front = self.handshakes.line.front().copied();
            if front.is_some_and(|slot| self.local.conns.at(slot).is_none()) {
                self.handshakes.line.pop_front();
            }
        }
        self.handshakes.line.push_back(slot);
    }

    /// Gives places that are free to those who wait.
    pub(super) fn run_handshakes(&mut self) {
        if self.handshakes.line.is_empty() {
            return;
        }
        let conns = &mut self.local.conns;
        self.handshakes.reading.retain(|slot| conns.at(*slot).is_some_and(|c| c.armed == Armed::Once));
        // A step that is taken here has its place until the next tick.
        let mut here = 0;
        while self.handshakes.free() > here
            && let Some(slot) = self.handshakes.next_in_line()
        {
            let Some(c) = self.local.conns.at(slot) else { continue };
            if c.wait != Wait::Handshake || c.phase != Phase::Connecting {
                continue;
            }
            c.wait = Wait::Nothing;
            if c.transport.as_ref().is_some_and(|transport| transport.is_step_due()) {
                here += usize::from(self.handshakes.helpers.is_none());
                self.take_step(slot.index);
                self.local.count_connection(slot.index);
                self.rearm(slot.index);
                continue;
            }
            c.armed = Armed::Once;
            self.io.read(slot.index, Read::Once);
            self.handshakes.reading.push(slot);
        }
    }

    /// Bytes came for a handshake.
    pub(super) fn handle_handshake(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(transport) = &mut c.transport else { return };
        transport.hold(bytes);
        let due = transport.is_step_due();
        c.count_transport(&mut self.local.memory);
        match self.handshakes.reading.iter().position(|reading| *reading == slot) {
            _ if !due => {}
            Some(at) => {
                self.handshakes.reading.swap_remove(at);
                self.take_step(conn);
            }
            // It came behind a PROXY header, for which there needs to be no place.
            None => self.ask_for_place(conn),
        }
    }

    /// Takes a step of a handshake, or has it taken.
    fn take_step(&mut self, conn: Conn) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(helpers) = &mut self.handshakes.helpers else { return self.unwrap(conn, &[]) };
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(transport) = c.take_transport(&mut self.local.memory) else { return };
        c.wait = Wait::Handshake;
        let bytes = transport.bytes();
        recount(&mut self.local.memory.transports, 0, bytes);
        self.handshakes.away.push((slot, bytes));
        (helpers.take)(transport, slot);
    }

    /// A step was taken by a helper.
    pub(super) fn handle_stepped(&mut self, slot: Slot, stepped: Stepped) {
        let conn = slot.index;
        if let Some(at) = self.handshakes.away.iter().position(|(away, _)| *away == slot) {
            let (_, bytes) = self.handshakes.away.swap_remove(at);
            recount(&mut self.local.memory.transports, bytes, 0);
        }
        let Some(c) = self.local.conns.at(slot) else { return };
        if c.wait != Wait::Handshake || c.phase != Phase::Connecting || c.transport.is_some() {
            // It was closed meanwhile.
            return;
        }
        let Stepped { transport, plain, fate } = stepped;
        let upgraded = note_layers(Some(Layer::Tls), &transport, &mut self.local.counters);
        c.transport = Some(transport);
        c.wait = Wait::Nothing;
        c.count_transport(&mut self.local.memory);
        // Marks what its layers have to say.
        self.local.with_link(conn, |_, _| ());
        if upgraded && !self.take_forwarded(conn) {
            return;
        }
        match fate {
            Err(fault) => self.end_faulty(conn, &fault),
            Ok(fate) if !plain.is_empty() => {
                self.local.with_link(conn, |c, _| {
                    debug_assert!(
                        c.pending.is_empty(),
                        "nothing of MQTT comes before the end of a handshake"
                    );
                    c.pending = plain;
                    c.ended |= fate == Fate::Ended;
                });
                self.wait(conn, Wait::Turn);
                self.local.count_connection(conn);
            }
            Ok(Fate::Ended) => self.end_wrapped(conn),
            Ok(Fate::Open) => self.rearm(conn),
        }
    }
}
