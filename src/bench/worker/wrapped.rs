//! Clients with TLS or WebSocket: their bytes on the way between the driver and the client.

use super::Worker;
use crate::bench::client::{Client, State};
use crate::bench::tally::{Cause, Span};
use crate::io::{Close, Io, ReadEnd};
use crate::map::Map;
use crate::transport::{CloseCode, DialLayers, Fate, Fault, Layer, Scratch, Transport};

/// Buffers that wait to be used again, and how large each may be.
const SPARES_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 1 << 16;

/// The layers of one client.
#[derive(Debug)]
pub struct Wrap {
    transport: Transport,
    /// When they began.
    since_ns: u64,
}

impl Wrap {
    /// What is not over yet.
    pub fn expects(&self) -> Option<Layer> {
        self.transport.expects()
    }

    /// They have something to say of their own.
    pub fn has_output(&self) -> bool {
        self.transport.has_output()
    }
}

/// What a worker needs for them.
#[derive(Default)]
pub(super) struct Wrapping {
    scratch: Scratch,
    plain: Vec<u8>,
    spares: Vec<Vec<u8>>,
    /// Layers of single clients, whose sessions of TLS are their own.
    own: Map<u32, DialLayers>,
}

impl Wrapping {
    /// Keeps a buffer.
    pub fn put(&mut self, buffer: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spares.push(buffer);
        }
    }
}

/// What of a client is to be sent now; it keeps no room for more where it is mostly idle.
pub(super) fn seal(client: &mut Client, wrapping: &mut Wrapping, idle: bool) -> Vec<u8> {
    let Some(wrap) = &mut client.wrap else { return std::mem::take(&mut client.out) };
    let mut wire = wrapping.spares.pop().unwrap_or_default();
    wrap.transport.seal(&client.out, &mut wrapping.scratch, &mut wire);
    if idle {
        client.out = Vec::new();
    } else {
        client.out.clear();
    }
    wire
}

/// The next thing that is sealed is the last.
pub(super) fn end(client: &mut Client) {
    if let Some(wrap) = &mut client.wrap {
        wrap.transport.close(CloseCode::Normal);
    }
}

impl Worker {
    /// Begins the layers of a client whose TCP connection is there; whether there are any.
    pub(super) fn wrap(&mut self, at: u32) -> Result<bool, Fault> {
        let client = &mut self.clients[at as usize];
        let Some(layers) = self.plan.layers_of(client.number) else { return Ok(false) };
        let layers = if self.plan.tls_resume {
            self.wrapping.own.entry(client.number).or_insert_with(|| layers.of_one())
        } else {
            layers
        };
        let seed = u64::from(self.plan.run) << 32 ^ u64::from(client.number) ^ self.book.now_ns << 8;
        let transport = Transport::dial(layers, seed)?;
        client.wrap = Some(Box::new(Wrap { transport, since_ns: self.book.now_ns }));
        client.state = State::Wrapping;
        Ok(true)
    }

    /// Bytes of a socket came for a client with layers.
    pub(super) fn handle_wrapped(&mut self, at: u32, bytes: &[u8]) {
        let client = &mut self.clients[at as usize];
        let Some(wrap) = &mut client.wrap else { return };
        let mut plain = std::mem::take(&mut self.wrapping.plain);
        let received = wrap.transport.receive(bytes, &mut self.wrapping.scratch, &mut plain);
        if client.state == State::Wrapping && received.is_ok() && wrap.transport.expects().is_none() {
            // As connects are, always.
            let ns = self.book.now_ns.saturating_sub(wrap.since_ns);
            self.book.latencies.record(Span::Handshake, ns);
            self.book.tally.tls_resumed += u64::from(wrap.transport.is_resumed());
            client.greet(&self.plan);
        }
        // Also without a byte of MQTT: a read may have to be armed, and something to be sent.
        self.handle_plain(at, &plain);
        plain.clear();
        self.wrapping.plain = plain;
        match received {
            Ok(Fate::Open) => {}
            Ok(Fate::Ended) => self.handle_read_ended(at, ReadEnd::Eof),
            Err(fault) => self.refuse(at, fault),
        }
    }

    /// Ends a connection whose other side is at fault, which is told.
    pub(super) fn refuse(&mut self, at: u32, fault: Fault) {
        let client = &mut self.clients[at as usize];
        let mut how = Close::Now;
        if client.state != State::Closing && !client.sending {
            client.out.clear();
            let wire = seal(client, &mut self.wrapping, true);
            if !wire.is_empty() {
                client.sending = true;
                self.book.tally.wire_out += wire.len() as u64;
                self.io.send(client.conn, wire);
                how = Close::Flush;
            }
        }
        self.lose_by(at, Cause::Told(fault.text.into()), how);
    }
}
