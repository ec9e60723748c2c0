//! Accepting, as long as there is room.

use super::super::{Event, Io, net};
use super::{Epoll, LISTENER};
use crate::limits;
use crate::time::Moment;
use std::os::fd::AsRawFd;

impl<H: Send> Epoll<H> {
    pub(super) fn headroom(&self) -> usize {
        self.options.connections_max as usize * self.options.headroom_percent / 100
    }

    /// The first listener, and when accepting is tried again.
    #[cfg(test)]
    pub(in crate::io) fn accepting(&self) -> (std::os::fd::RawFd, Option<Moment>) {
        (self.listeners[0].socket.as_raw_fd(), self.stalled_until)
    }

    pub(super) fn stall(&mut self, until: Moment) {
        if self.stalled_until.is_none() {
            self.stats.accept_pauses += 1;
        }
        self.stalled_until = Some(until);
    }

    /// Makes the registration of the listeners what it should be.
    pub(super) fn update_accepting(&mut self, now: Moment) {
        if self.stalled_until.is_some_and(|until| now >= until) {
            self.stalled_until = None;
        }
        if self.room() == 0 && !self.listeners.is_empty() && !self.paused {
            self.stall(Moment::NEVER);
        }
        let wanted = !self.paused && self.stalled_until.is_none();
        for index in 0..self.listeners.len() {
            let listener = &self.listeners[index];
            if listener.armed == wanted {
                continue;
            }
            let events = if wanted { libc::EPOLLIN } else { 0 };
            let token = LISTENER | index as u64;
            if self.control(libc::EPOLL_CTL_MOD, listener.socket.as_raw_fd(), events, token).is_ok() {
                self.listeners[index].armed = wanted;
            }
        }
    }

    pub(super) fn accept(&mut self, index: usize, events: &mut Vec<Event<H>>) {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            // An index that waits for its `Closed` to be reported is free in the next turn.
            let index_free =
                !self.free.is_empty() || self.slots.len() < self.options.connections_max as usize;
            if !index_free || self.room() == 0 || self.paused || self.stalled_until.is_some() {
                return;
            }
            let Some(listener) = self.listeners.get(index) else { return };
            let (number, names) = (listener.number, listener.names);
            match net::accept(listener.socket.as_raw_fd()) {
                Ok((socket, peer)) => match self.adopt(socket) {
                    Ok(conn) => {
                        self.stats.accepts += 1;
                        let peer = peer.filter(|_| names);
                        events.push(Event::Accepted { conn, listener: number, peer });
                    }
                    // Its descriptor is closed here; the kernel lacks memory for a registration.
                    Err(_) => return self.stall(self.now().plus_ms(limits::ACCEPT_RETRY_MS)),
                },
                Err(e) => match net::errno(&e) {
                    libc::EAGAIN => return,
                    libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM => {}
                    _ => return self.stall(self.now().plus_ms(limits::ACCEPT_RETRY_MS)),
                },
            }
        }
    }
}
