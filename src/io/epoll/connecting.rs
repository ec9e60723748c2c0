//! Connections that this shard opens.

use super::super::{Conn, Event, net};
use super::Epoll;
use super::slots::Phase;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

impl<H: Send> Epoll<H> {
    pub(super) fn begin_connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Conn> {
        let socket = net::outgoing(&to, from, true)?;
        let outcome = net::connect(socket.as_raw_fd(), &to);
        let conn = self.adopt(socket).map_err(|(_, errno)| io::Error::from_raw_os_error(errno))?;
        self.stats.connects += 1;
        match outcome {
            Ok(true) => self.pending.push(Event::Connected { conn, error: None }),
            Ok(false) => {
                let slot = &mut self.slots[conn as usize];
                slot.phase = Phase::Connecting;
                (slot.readable, slot.writable) = (false, false);
            }
            Err(e) => self.pending.push(Event::Connected { conn, error: Some(net::errno(&e)) }),
        }
        Ok(conn)
    }

    /// The socket is writable: the attempt has ended.
    pub(super) fn connected(&mut self, conn: Conn, events: &mut Vec<Event<H>>) {
        let slot = &mut self.slots[conn as usize];
        slot.phase = Phase::Open;
        events.push(Event::Connected { conn, error: net::socket_error(slot.fd) });
    }
}
