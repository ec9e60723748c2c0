//! Connections with TLS or WebSocket: their bytes on the way between the driver and the codec.

use super::connection::{Connection, Phase, Wait};
use super::sessions::End;
use super::{Handover, Shard};
use crate::codec::ReasonCode;
use crate::io::{Conn, Io};
use crate::session::Pool;
use crate::stats::Counters;
use crate::transport::{CloseCode, Fate, Fault, Layer, Layers, Scratch, Transport};

/// What a shard needs for them.
#[derive(Default)]
pub(super) struct Wrapped {
    /// By listener; one that is not there has none.
    layers: Vec<Layers>,
    scratch: Scratch,
    plain: Vec<u8>,
}

impl Wrapped {
    pub fn bytes(&self) -> usize {
        self.scratch.bytes() + self.plain.capacity()
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

/// Counts layers whose beginning is over, after what they expected before; whether it was an upgrade request.
pub(super) fn note_layers(before: Option<Layer>, transport: &Transport, counters: &mut Counters) -> bool {
    let Some(before) = before else { return false };
    let after = transport.expects();
    let upgraded = after.is_none() && transport.has_websocket();
    counters.tls_handshakes += u64::from(before == Layer::Tls && after != Some(before));
    counters.websocket_upgrades += u64::from(upgraded);
    upgraded
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
    /// Gives a new connection the layers of its listener.
    pub(super) fn wrap(&mut self, conn: Conn, listener: u8) {
        let Some(layers) = self.wrapped.layers.get(usize::from(listener)) else { return };
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.transport = Transport::new(layers);
            c.count_transport(&mut self.local.memory);
        }
    }

    /// Bytes of a socket came for a connection with layers.
    pub(super) fn handle_wrapped(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if c.transport.as_ref().is_some_and(|transport| transport.is_handshaking()) {
            return self.handle_handshake(conn, bytes);
        }
        self.unwrap(conn, bytes);
    }

    pub(super) fn unwrap(&mut self, conn: Conn, bytes: &[u8]) {
        let mut plain = std::mem::take(&mut self.wrapped.plain);
        let scratch = &mut self.wrapped.scratch;
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(transport) = &mut c.transport else { return };
        let before = transport.expects();
        let received = transport.receive(bytes, scratch, &mut plain);
        let upgraded = note_layers(before, transport, &mut self.local.counters);
        c.count_transport(&mut self.local.memory);
        // Marks what its layers have to say.
        self.local.with_link(conn, |_, _| ());
        let welcome = !upgraded || self.take_forwarded(conn);
        if !plain.is_empty() && welcome {
            self.take_bytes(conn, &plain);
        }
        plain.clear();
        self.wrapped.plain = plain;
        if !welcome {
            return;
        }
        match received {
            Ok(Fate::Open) => {}
            Ok(Fate::Ended) => self.end_wrapped(conn),
            Err(fault) => self.end_faulty(conn, &fault),
        }
    }

    /// The peer broke a rule of TLS or WebSocket.
    pub(super) fn end_faulty(&mut self, conn: Conn, fault: &Fault) {
        self.note_fault(conn, fault);
        self.lose_connection(conn, End::Lost, None);
        self.shut_gently(conn);
    }

    /// The peer ended TLS or WebSocket in order.
    pub(super) fn end_wrapped(&mut self, conn: Conn) {
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
