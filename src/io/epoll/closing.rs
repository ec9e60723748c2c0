//! Sending and closing.

use super::super::driver::NOTHING;
use super::super::{Conn, Event, Io, net};
use super::Epoll;
use super::slots::{Armed, Phase};
use crate::limits;
use crate::time::Moment;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

impl<H: Send> Epoll<H> {
    /// Sends what the socket takes now.
    pub(super) fn pump(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        if slot.outgoing == NOTHING || !slot.writable {
            return;
        }
        let out = self.outbox.at(slot.outgoing);
        let error = loop {
            let rest = &out.buffer[out.sent..];
            if rest.is_empty() {
                break None;
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `rest` lives through the call and has the length given.
            let sent = unsafe { libc::send(slot.fd, rest.as_ptr().cast(), rest.len(), flags) };
            match usize::try_from(sent) {
                Ok(n) => {
                    out.sent += n;
                    self.stats.bytes_out += n as u64;
                }
                Err(_) => match net::errno(&io::Error::last_os_error()) {
                    libc::EINTR => {}
                    libc::EAGAIN => {
                        slot.writable = false;
                        return;
                    }
                    errno => break Some(errno),
                },
            }
        };
        self.sent(conn, error);
    }

    /// The send under way is over.
    pub(super) fn sent(&mut self, conn: Conn, error: Option<i32>) {
        let slot = &mut self.slots[conn as usize];
        let buffer = self.outbox.take(std::mem::replace(&mut slot.outgoing, NOTHING));
        self.stats.sends += 1;
        let flushing = slot.phase == Phase::Flushing;
        self.pending.push(Event::Sent { conn, buffer, error });
        match error {
            None if flushing => self.linger(conn),
            Some(_) if flushing => self.finish(conn),
            _ => {}
        }
    }

    /// All is sent: ends our side of the stream and waits for the peer's end. Closing at once would answer
    /// unread input with a reset, which can destroy what the peer has not read yet.
    pub(super) fn linger(&mut self, conn: Conn) {
        let deadline = self.now().plus_ms(limits::LINGER_MS);
        let slot = &mut self.slots[conn as usize];
        slot.phase = Phase::Lingering;
        slot.credit = limits::LINGER_BYTES;
        // SAFETY: shutdown takes no pointer; a failure shows when the socket is read.
        unsafe { libc::shutdown(slot.fd, libc::SHUT_WR) };
        self.lingering.push_back((deadline, conn, slot.generation));
        self.stats.lingers += 1;
        if slot.readable {
            self.enqueue(conn);
        }
    }

    /// Discards input of a lingering connection.
    pub(super) fn discard(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        let (want, flags) = (slot.credit as usize, libc::MSG_TRUNC | libc::MSG_DONTWAIT);
        // SAFETY: with MSG_TRUNC the kernel drops the bytes of a TCP stream and writes nothing.
        let got = unsafe { libc::recv(slot.fd, std::ptr::null_mut(), want, flags) };
        match u32::try_from(got) {
            Ok(n) if n > 0 && n < slot.credit => {
                slot.credit -= n;
                self.stats.bytes_in += u64::from(n);
                self.enqueue(conn);
            }
            Ok(_) => self.finish(conn),
            Err(_) => match net::errno(&io::Error::last_os_error()) {
                libc::EAGAIN => slot.readable = false,
                libc::EINTR => self.enqueue(conn),
                _ => self.finish(conn),
            },
        }
    }

    /// Closes the socket; the index is free when `Closed` was reported.
    pub(super) fn finish(&mut self, conn: Conn) {
        let slot = &mut self.slots[conn as usize];
        debug_assert!(!matches!(slot.phase, Phase::Free | Phase::Moving), "only an open connection closes");
        slot.phase = Phase::Free;
        slot.armed = Armed::Nothing;
        // SAFETY: the slot owns its descriptor and forgets it here.
        drop(unsafe { OwnedFd::from_raw_fd(std::mem::replace(&mut slot.fd, -1)) });
        if slot.outgoing != NOTHING {
            self.sent(conn, Some(libc::ECANCELED));
        }
        self.pending.push(Event::Closed { conn });
        self.vacate(conn);
    }

    /// The index is free once what is pending was reported.
    pub(super) fn vacate(&mut self, conn: Conn) {
        self.freed.push(conn);
        self.used -= 1;
        self.stalled_until = None;
    }

    pub(super) fn expire_lingering(&mut self, now: Moment) {
        while let Some(&(deadline, conn, generation)) = self.lingering.front() {
            let slot = &self.slots[conn as usize];
            let waits = slot.phase == Phase::Lingering && slot.generation == generation;
            if waits && now < deadline {
                return;
            }
            self.lingering.pop_front();
            if waits {
                self.stats.linger_timeouts += 1;
                self.finish(conn);
            }
        }
    }
}
