//! Connections that this shard opens.
//!
//! The kernel chooses the slot, as it does for connections that it accepts: it knows what is free, and what it
//! gives away at the same time. An index whose `Closed` was not reported yet is passed over, because the caller
//! gets the new one before that.

use super::super::driver::NOTHING;
use super::super::net::{self, RawAddress};
use super::super::ops::{self, Op};
use super::super::{Conn, Event};
use super::Uring;
use super::slots::Phase;
use super::units::Unit;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Addresses that are being connected to. Boxed, because the kernel reads them when the entry is submitted.
#[derive(Default)]
pub(super) struct Addresses {
    #[expect(clippy::vec_box, reason = "the kernel holds pointers to them while the vector grows")]
    places: Vec<Box<RawAddress>>,
    free: Vec<u32>,
}

impl Addresses {
    fn put(&mut self, address: RawAddress) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.places[place as usize] = address;
            return place;
        }
        self.places.push(Box::new(address));
        self.places.len() as u32 - 1
    }
}

impl<H: Send> Uring<H> {
    pub(super) fn begin_connect(&mut self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<Conn> {
        let socket = net::outgoing(&to, from, false)?;
        let conn = self.place(&socket)?;
        let place = self.addresses.put(RawAddress::new(&to));
        let slot = self.occupy(conn, Phase::Connecting);
        slot.place = place;
        slot.set_sending(true);
        self.stats.connects += 1;
        let entry = ops::connect(self.units.slot_of(conn), &self.addresses.places[place as usize]);
        self.ask(Op::Connect, conn, entry);
        Ok(conn)
    }

    /// Puts a socket into the table of the first ring that has a place.
    fn place(&mut self, socket: &OwnedFd) -> io::Result<Conn> {
        for unit in 0..self.units.count() {
            let Unit { used, table, .. } = self.units.at(unit);
            if used < table {
                match self.place_on(unit, socket) {
                    Err(e) if net::errno(&e) == libc::ENFILE => {}
                    placed => return placed,
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENFILE))
    }

    fn place_on(&mut self, unit: usize, socket: &OwnedFd) -> io::Result<Conn> {
        let mut passed_over = Vec::new();
        let conn = loop {
            let mut index = socket.as_raw_fd();
            let unit = self.units.at(unit);
            let result = unit.ring.call(ops::place(&mut index));
            if result != 1 {
                break Err(io::Error::from_raw_os_error(-result));
            }
            let conn = unit.base + index as Conn;
            if self.slots.get(conn).is_none_or(|slot| slot.phase == Phase::Free) {
                break Ok(conn);
            }
            passed_over.push(index as u32);
        };
        for other in passed_over {
            self.units.push(unit, ops::close(other).user_data(ops::name(Op::Forget, 0, 0)));
        }
        conn
    }

    pub(super) fn connected(&mut self, conn: Conn, result: i32, events: &mut Vec<Event<H>>) {
        let slot = self.slots.at(conn);
        slot.set_sending(false);
        self.addresses.free.push(std::mem::replace(&mut slot.place, NOTHING));
        if slot.phase == Phase::Connecting {
            slot.phase = Phase::Open;
            events.push(Event::Connected { conn, error: (result < 0).then_some(-result) });
        } else {
            self.proceed(conn);
        }
    }
}
