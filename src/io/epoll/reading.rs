//! Receiving; each connection that has something gets one receive per turn.

use super::super::{Conn, Event, Lease, ReadEnd, net};
use super::Epoll;
use super::slots::{Armed, Phase};
use std::io;

impl<H: Send> Epoll<H> {
    /// Does what a connection in the ready list waits for.
    pub(super) fn serve(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        self.slots[conn as usize].queued = false;
        self.pump(conn);
        let slot = &mut self.slots[conn as usize];
        if slot.phase == Phase::Connecting && slot.writable {
            return self.connected(conn, events);
        }
        if !slot.readable {
            return;
        }
        match (slot.phase, slot.armed) {
            (Phase::Lingering, _) => self.discard(conn),
            (Phase::Open, Armed::Parked) => self.peek(conn, events),
            (Phase::Open, Armed::Once | Armed::Stream) => self.receive(conn, events),
            _ => {}
        }
    }

    pub(super) fn peek(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let slot = &mut self.slots[conn as usize];
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: room for the one byte asked for.
        let got = unsafe { libc::recv(slot.fd, (&raw mut byte).cast(), 1, flags) };
        if got < 0 && net::errno(&io::Error::last_os_error()) == libc::EAGAIN {
            slot.readable = false;
            return;
        }
        slot.armed = Armed::Nothing;
        events.push(Event::Ready { conn });
    }

    pub(super) fn receive(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let Some(id) = self.pool.take() else {
            self.stats.starved += 1;
            self.slots[conn as usize].queued = true;
            self.starved.push_back(conn);
            return;
        };
        let slot = &mut self.slots[conn as usize];
        let stream = slot.armed == Armed::Stream;
        let (buffer, len) = self.pool.at(id);
        let want = if stream { len.min(slot.credit as usize) } else { len };
        // SAFETY: `want` is at most the buffer's length, and nobody reads a buffer that was just taken.
        let got = unsafe { libc::recv(slot.fd, buffer.cast(), want, libc::MSG_DONTWAIT) };
        if got > 0 {
            let n = got as u32;
            slot.readable = slot.ended || n as usize == want;
            self.stats.bytes_in += u64::from(n);
            events.push(Event::Data { conn, lease: Lease::new(buffer, n, id) });
            if !stream {
                slot.armed = Armed::Nothing;
                return;
            }
            slot.credit -= n;
            if slot.credit == 0 {
                slot.armed = Armed::Nothing;
                events.push(Event::ReadEnded { conn, why: ReadEnd::Credit });
            } else if slot.readable {
                self.enqueue(conn);
            }
            return;
        }
        let errno = if got < 0 { net::errno(&io::Error::last_os_error()) } else { 0 };
        self.pool.give(id);
        let why = match errno {
            libc::EAGAIN => return slot.readable = false,
            libc::EINTR => return self.enqueue(conn),
            0 => ReadEnd::Eof,
            errno => ReadEnd::Err(errno),
        };
        slot.armed = Armed::Nothing;
        events.push(Event::ReadEnded { conn, why });
    }

    /// Lets as many of the starved try again as there are buffers.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.pool.available().min(self.starved.len()) {
            if let Some(conn) = self.starved.pop_front() {
                self.ready.push_back(conn);
            }
        }
    }
}
