//! Connections with TLS or WebSocket: their bytes on the way between the driver and the codec.
//!
//! A step of a TLS handshake costs as much as hundreds of messages. So each tick takes few of them, and whoever
//! comes too early waits in a line, unread, with what it sent.

use super::connection::{Connection, Phase, Wait};
use super::sessions::End;
use super::{Handover, Shard};
use crate::codec::ReasonCode;
use crate::heap::vec_bytes;
use crate::io::{Close, Conn, Io};
use crate::limits::TICK_HANDSHAKES_MAX;
use crate::map::Slot;
use crate::session::Pool;
use crate::transport::{CloseCode, Fate, Fault, Layer, Layers, Scratch, Transport};
use std::collections::VecDeque;

/// What a shard needs for them.
#[derive(Default)]
pub(super) struct Wrapped {
    /// By listener; one that is not there has none.
    layers: Vec<Layers>,
    /// Connections whose handshake waits for its turn.
    line: VecDeque<Slot>,
    /// Steps of handshakes that this tick may still take.
    steps: usize,
    scratch: Scratch,
    plain: Vec<u8>,
}

impl Wrapped {
    pub fn is_idle(&self) -> bool {
        self.line.is_empty()
    }

    pub fn bytes(&self) -> usize {
        vec_bytes::<Slot>(self.line.capacity()) + self.scratch.bytes() + self.plain.capacity()
    }

    /// Each listener's layers, for connections that come from now on.
    pub fn set_layers(&mut self, layers: Vec<Layers>) {
        self.layers = layers;
    }
}

/// What of this is to be sent: one frame, one run of records. Empty where nothing can be said.
#[inline(never)]
pub(super) fn seal(
    transport: &mut Transport,
    out: Vec<u8>,
    wrapped: &mut Wrapped,
    pool: &mut Pool,
) -> Vec<u8> {
    let mut wire = Vec::new();
    pool.fill(&mut wire);
    transport.seal(&out, &mut wrapped.scratch, &mut wire);
    pool.put(out);
    wire
}

impl Connection {
    /// What its layers say of the end is due.
    pub fn end_transport(&mut self, code: CloseCode) {
        if let Some(transport) = &mut self.transport {
            transport.close(code);
        }
    }
}

/// How WebSocket says what MQTT says.
fn close_code(code: ReasonCode) -> CloseCode {
    match code {
        ReasonCode::SUCCESS => CloseCode::Normal,
        ReasonCode::SERVER_SHUTTING_DOWN | ReasonCode::USE_ANOTHER_SERVER | ReasonCode::SERVER_MOVED => {
            CloseCode::Away
        }
        ReasonCode::PACKET_TOO_LARGE => CloseCode::Size,
        _ => CloseCode::Policy,
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Gives a new connection the layers of its listener; says whether it goes on.
    pub(super) fn wrap(&mut self, conn: Conn, listener: u8) -> bool {
        let Some(layers) = self.wrapped.layers.get(usize::from(listener)).filter(|l| !l.is_plain()) else {
            return true;
        };
        match (Transport::new(layers), self.local.conns.get_mut(conn)) {
            (Ok(transport), Some(c)) => {
                c.transport = transport;
                c.count_transport(&mut self.local.memory);
                true
            }
            (Err(fault), _) => {
                self.note_fault(conn, &fault);
                self.shut(conn, Close::Now);
                false
            }
            (Ok(_), None) => false,
        }
    }

    /// Bytes of a socket came for a connection with layers.
    pub(super) fn handle_wrapped(&mut self, conn: Conn, bytes: &[u8]) {
        let slot = self.local.conns.slot(conn);
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(transport) = &mut c.transport else { return };
        if transport.is_handshaking() {
            if self.wrapped.steps == 0 {
                transport.hold(bytes);
                c.wait = Wait::Handshake;
                c.count_transport(&mut self.local.memory);
                self.wrapped.line.extend(slot);
                self.local.counters.handshake_waits += 1;
                return;
            }
            self.wrapped.steps -= 1;
        }
        self.unwrap(conn, bytes);
    }

    /// Takes the steps of this tick for those who waited; what is left is for those who come.
    pub(super) fn run_handshakes(&mut self) {
        self.wrapped.steps = TICK_HANDSHAKES_MAX;
        while self.wrapped.steps > 0
            && let Some(slot) = self.wrapped.line.pop_front()
        {
            let Some(c) = self.local.conns.at(slot) else { continue };
            if c.wait != Wait::Handshake || c.phase != Phase::Connecting {
                continue;
            }
            c.wait = Wait::Nothing;
            self.wrapped.steps -= 1;
            self.unwrap(slot.index, &[]);
            self.local.count_connection(slot.index);
            match self.local.conns.at(slot) {
                Some(c) if c.wait == Wait::Nothing && c.ended => self.handle_end(slot.index),
                Some(_) => self.rearm(slot.index),
                None => {}
            }
        }
    }

    fn unwrap(&mut self, conn: Conn, bytes: &[u8]) {
        let mut plain = std::mem::take(&mut self.wrapped.plain);
        let scratch = &mut self.wrapped.scratch;
        let counters = &mut self.local.counters;
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(transport) = &mut c.transport else { return };
        let before = transport.expects();
        let received = transport.receive(bytes, scratch, &mut plain);
        if let Some(before) = before {
            let after = transport.expects();
            counters.tls_handshakes += u64::from(before == Layer::Tls && after != Some(before));
            counters.websocket_upgrades += u64::from(after.is_none() && transport.has_websocket());
        }
        c.count_transport(&mut self.local.memory);
        // Marks what its layers have to say.
        self.local.with_link(conn, |_, _| ());
        if !plain.is_empty() {
            self.take_bytes(conn, &plain);
        }
        plain.clear();
        self.wrapped.plain = plain;
        match received {
            Ok(Fate::Open) => {}
            Ok(Fate::Ended) => self.end_wrapped(conn),
            Err(fault) => {
                self.note_fault(conn, &fault);
                self.lose_connection(conn, End::Lost, None);
                self.shut_gently(conn);
            }
        }
    }

    /// The peer ended TLS or WebSocket in order.
    fn end_wrapped(&mut self, conn: Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        c.ended = true;
        if c.wait == Wait::Nothing && matches!(c.phase, Phase::Serving | Phase::Connecting) {
            self.lose_connection(conn, End::Lost, None);
            self.shut_gently(conn);
        }
    }

    fn note_fault(&mut self, conn: Conn, fault: &Fault) {
        match fault.layer {
            Layer::Tls => self.local.counters.tls_errors += 1,
            Layer::WebSocket => self.local.counters.websocket_errors += 1,
        }
        if self.may_log() {
            let peer = self.local.conns.get(conn).and_then(Connection::peer);
            tracing::info!("{} is closed: {}", super::connection::label(conn, peer), fault.text);
        }
    }

    /// What WebSocket says of the end of a connection.
    pub(super) fn say_close(&mut self, conn: Conn, code: ReasonCode) {
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.end_transport(close_code(code));
        }
    }
}
