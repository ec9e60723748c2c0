//! Listeners: accepting many at a time, one by one when the table fills up, or not at all; and asking for the
//! peer's address, which an accept of many does not tell.

use super::super::net;
use super::super::ops::{self, Op};
use super::super::{Event, Io, ListenSpec};
use super::slots::Phase;
use super::units::{HUB, Unit};
use super::{Conn, Uring};
use crate::limits;
use crate::time::Moment;
use io_uring::cqueue;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What is armed on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Armed {
    Nothing,
    One,
    Many,
    /// It was asked to end.
    Ending,
}

struct Listener {
    socket: OwnedFd,
    number: u16,
    /// `Accepted` names the peer.
    names: bool,
    armed: Armed,
    /// The ring that it is armed on.
    unit: usize,
}

#[derive(Default)]
pub(super) struct Accepting {
    listeners: Vec<Listener>,
    /// Counts the sets of listeners: completions of those that were stopped do not arm again.
    epoch: u32,
    paused: bool,
    /// The ring that accepts.
    unit: usize,
    /// Accepting waits for room, or for this moment.
    stalled_until: Option<Moment>,
    /// Accepted connections whose peer's address has not been asked for.
    unnamed: VecDeque<Conn>,
    /// Addresses that are being asked for.
    naming: usize,
}

impl Accepting {
    pub(super) fn listen(&mut self, spec: ListenSpec) -> io::Result<SocketAddr> {
        let (number, names) = (spec.listener, spec.peer_address);
        let (socket, addr) = net::listener(spec)?;
        self.listeners.push(Listener { socket, number, names, armed: Armed::Nothing, unit: HUB });
        Ok(addr)
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// An armed accept keeps a listener open beyond its descriptor, so the listeners are shut down first.
    pub(super) fn stop(&mut self) {
        for listener in self.listeners.drain(..) {
            // SAFETY: shutdown takes no pointer, and a listener of ours can be shut down.
            unsafe { libc::shutdown(listener.socket.as_raw_fd(), libc::SHUT_RDWR) };
        }
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// A descriptor is free: accepting may go on.
    pub(super) fn unstall(&mut self) {
        self.stalled_until = None;
    }

    pub(super) fn retry_at(&self) -> Moment {
        self.stalled_until.unwrap_or(Moment::NEVER)
    }

    /// The first listener, and when accepting is tried again.
    #[cfg(test)]
    pub(super) fn observed(&self) -> (RawFd, Option<Moment>) {
        (self.listeners[0].socket.as_raw_fd(), self.stalled_until)
    }

    /// The name of a listener's accept: its place in the list, and above it its number, which thus is known when
    /// the list has gone.
    fn name(&self, index: usize) -> u64 {
        let number = u32::from(self.listeners[index].number);
        ops::name(Op::Accept, self.epoch, number << 16 | index as u32)
    }
}

/// Closes a descriptor that the kernel made for us.
pub(super) fn close_plain(fd: RawFd) {
    // SAFETY: the kernel made it for us and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

impl<H: Send> Uring<H> {
    fn stall(&mut self, until: Moment) {
        if self.accepting.stalled_until.is_none() {
            self.stats.accept_pauses += 1;
        }
        self.accepting.stalled_until = Some(until);
    }

    /// The ring to accept on: the same as long as it has room for many; then the first that has; else the same
    /// as long as it has any; then the one with most.
    fn accepting_unit(&mut self) -> usize {
        let current = self.accepting.unit;
        let room_here = self.units.at(current).room();
        if self.units.count() > 1 && room_here <= limits::ACCEPT_ONE_BY_ONE_ROOM {
            let rooms = || self.units.iter().map(Unit::room).enumerate();
            let ample = rooms().find(|(_, room)| *room > limits::ACCEPT_ONE_BY_ONE_ROOM);
            let most = || rooms().rev().max_by_key(|(_, room)| *room);
            let other = ample.or_else(|| if room_here > 0 { None } else { most() });
            self.accepting.unit = other.map_or(current, |(unit, _)| unit);
        }
        self.accepting.unit
    }

    /// Arms the listeners as room and pauses tell.
    pub(super) fn update_accepting(&mut self, now: Moment) {
        self.name_more();
        if self.accepting.stalled_until.is_some_and(|until| now >= until) {
            self.accepting.stalled_until = None;
        }
        let unit = self.accepting_unit();
        let mut room = self.units.at(unit).room();
        if room == 0 && !self.accepting.paused && !self.accepting.listeners.is_empty() {
            self.stall(Moment::NEVER);
        }
        let open = !self.accepting.paused && self.accepting.stalled_until.is_none();
        let many = room > limits::ACCEPT_ONE_BY_ONE_ROOM;
        // Each accept that is armed one by one may take one place.
        let armed = |l: &&Listener| l.armed == Armed::One && l.unit == unit;
        room = room.saturating_sub(self.accepting.listeners.iter().filter(armed).count());
        for index in 0..self.accepting.listeners.len() {
            let name = self.accepting.name(index);
            let listener = &mut self.accepting.listeners[index];
            let fd = listener.socket.as_raw_fd();
            match listener.armed {
                Armed::Nothing if open && many => {
                    (listener.armed, listener.unit) = (Armed::Many, unit);
                    self.units.push(unit, ops::accept_many(fd).user_data(name));
                }
                Armed::Nothing if open && room > 0 => {
                    room -= 1;
                    (listener.armed, listener.unit) = (Armed::One, unit);
                    self.units.push(unit, ops::accept_one(fd).user_data(name));
                }
                Armed::Many if !open || !many || listener.unit != unit => {
                    listener.armed = Armed::Ending;
                    self.units.push(listener.unit, ops::cancel(name));
                }
                Armed::One if !open || listener.unit != unit => {
                    listener.armed = Armed::Ending;
                    self.units.push(listener.unit, ops::cancel(name));
                }
                _ => {}
            }
        }
    }

    pub(super) fn accepted(&mut self, unit: usize, entry: &cqueue::Entry, events: &mut Vec<Event<H>>) {
        let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        let (index, number) = (ops::index(user_data) & 0xFFFF, (ops::index(user_data) >> 16) as u16);
        let current = ops::generation(user_data) == self.accepting.epoch & ops::GENERATION;
        let mut names = false;
        if current && let Some(listener) = self.accepting.listeners.get_mut(index as usize) {
            names = listener.names;
            if !cqueue::more(flags) {
                listener.armed = Armed::Nothing;
            }
        }
        match u32::try_from(result) {
            Ok(slot) => {
                let conn = self.units.at(unit).base + slot;
                self.admit(conn, number, names, events);
            }
            Err(_) => match -result {
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO => {}
                // The end of a listener that was stopped.
                _ if !current => {}
                // From now on: the turn may have slept for long before this came.
                _ => self.stall(Io::now(self).plus_ms(limits::ACCEPT_RETRY_MS)),
            },
        }
    }

    fn admit(&mut self, conn: Conn, listener: u16, names: bool, events: &mut Vec<Event<H>>) {
        self.clear(conn, events);
        self.stats.accepts += 1;
        if names && self.features.peer_address {
            self.occupy(conn, Phase::Naming).credit = listener.into();
            self.accepting.unnamed.push_back(conn);
            self.name_more();
        } else {
            self.occupy(conn, Phase::Open);
            events.push(Event::Accepted { conn, listener, peer: None });
        }
    }

    /// Asks for addresses, a few at a time: each needs a plain descriptor.
    fn name_more(&mut self) {
        while self.accepting.naming < limits::NAMING_MAX {
            let Some(conn) = self.accepting.unnamed.pop_front() else { return };
            self.accepting.naming += 1;
            self.ask(Op::Install, conn, ops::install(self.units.slot_of(conn)));
        }
    }

    /// A plain descriptor of an accepted connection is there, or could not be made.
    pub(super) fn named(&mut self, conn: Conn, result: i32, events: &mut Vec<Event<H>>) {
        self.accepting.naming -= 1;
        let mut peer = None;
        if result >= 0 {
            peer = net::peer_address(result);
            close_plain(result);
        }
        let slot = self.slots.at(conn);
        debug_assert_eq!(slot.phase, Phase::Naming, "named once");
        let listener = std::mem::take(&mut slot.credit) as u16;
        slot.phase = Phase::Open;
        events.push(Event::Accepted { conn, listener, peer });
        self.name_more();
    }
}
