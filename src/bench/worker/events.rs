//! What the driver reports.

use super::{NOBODY, RECONNECT_MS, Worker};
use crate::bench::client::State;
use crate::bench::tally::Cause;
use crate::io::{Conn, Event, Io, Read, ReadEnd};
use crate::limits::READ_CREDIT_BYTES;
use crate::transport::Layer;

impl Worker {
    pub(super) fn handle_event(&mut self, event: Event<()>) {
        match event {
            Event::Connected { conn, error } => {
                self.with(conn, |worker, at| worker.handle_connected(at, error))
            }
            Event::Data { conn, lease } => {
                self.with(conn, |worker, at| worker.handle_data(at, &lease));
                self.io.release(lease);
            }
            Event::Ready { conn } => self.with(conn, |worker, at| {
                if worker.clients[at as usize].state != State::Closing {
                    worker.io.read(conn, Read::Once);
                }
            }),
            Event::ReadEnded { conn, why } => self.with(conn, |worker, at| worker.handle_read_ended(at, why)),
            Event::Sent { conn, buffer, error } => {
                self.with(conn, |worker, at| worker.handle_sent(at, buffer, error));
            }
            Event::Closed { conn } => self.with(conn, Worker::handle_closed),
            // No listener, no other shard; `Woken` has done its work.
            Event::Accepted { .. }
            | Event::Arrived { .. }
            | Event::HandedOver { .. }
            | Event::HandOverFailed { .. }
            | Event::Woken => {}
        }
    }

    pub(super) fn with(&mut self, conn: Conn, handle: impl FnOnce(&mut Worker, u32)) {
        match self.owners.get(conn as usize) {
            Some(at) if *at != NOBODY => handle(self, *at),
            _ => {}
        }
    }

    pub(super) fn handle_connected(&mut self, at: u32, error: Option<i32>) {
        if let Some(errno) = error {
            return self.lose(at, Cause::Connect(errno));
        }
        let client = &self.clients[at as usize];
        if client.state != State::Connecting {
            return;
        }
        match self.wrap(at) {
            Ok(true) => {}
            Ok(false) => self.clients[at as usize].greet(&self.plan),
            Err(fault) => return self.lose(at, Cause::Told(fault.text.into())),
        }
        self.arm(at);
        self.soil(at);
    }

    /// Arms the read that a client needs next.
    pub(super) fn arm(&mut self, at: u32) {
        let client = &self.clients[at as usize];
        let idle = self.plan.groups[usize::from(client.group)].idle;
        let mode = match client.state {
            State::Offline | State::Closing => return,
            State::Online if idle => Read::Parked,
            _ if idle => Read::Once,
            _ => Read::Stream { credit: READ_CREDIT_BYTES },
        };
        self.io.read(client.conn, mode);
    }

    pub(super) fn handle_data(&mut self, at: u32, bytes: &[u8]) {
        self.read_clock();
        let client = &mut self.clients[at as usize];
        if client.state == State::Closing {
            return;
        }
        self.book.tally.wire_in += bytes.len() as u64;
        if client.wrap.is_some() {
            return self.handle_wrapped(at, bytes);
        }
        self.handle_plain(at, bytes);
    }

    /// Bytes of MQTT came.
    pub(super) fn handle_plain(&mut self, at: u32, bytes: &[u8]) {
        let client = &mut self.clients[at as usize];
        if client.state == State::Closing {
            return;
        }
        self.book.tally.bytes_in += bytes.len() as u64;
        let before = client.state;
        match client.handle_bytes(&self.plan, &mut self.book, bytes) {
            Err(cause) => {
                // CONNACK may have come in the same bytes.
                self.connecting -= u32::from(before != State::Online && client.state == State::Online);
                return self.lose(at, cause);
            }
            Ok(()) => {
                let ready = before != State::Online && client.state == State::Online;
                self.connecting -= u32::from(ready);
            }
        }
        let client = &self.clients[at as usize];
        if self.plan.groups[usize::from(client.group)].idle {
            self.arm(at);
        }
        self.pump(at);
        self.soil(at);
    }

    pub(super) fn handle_read_ended(&mut self, at: u32, why: ReadEnd) {
        match why {
            ReadEnd::Credit => self.arm(at),
            ReadEnd::Err(errno) => self.lose(at, Cause::Socket(errno, self.when(at))),
            ReadEnd::Eof => self.lose(at, Cause::Closed(self.when(at))),
        }
    }

    /// What a client is about.
    fn when(&self, at: u32) -> &'static str {
        let client = &self.clients[at as usize];
        let wrapping = client.wrap.as_ref().and_then(|wrap| wrap.expects());
        match (client.state, wrapping) {
            (State::Online, _) => "while connected",
            (State::Wrapping, Some(Layer::Tls)) => "during the TLS handshake",
            (State::Wrapping, _) => "in place of an answer of WebSocket",
            _ => "before it was ready",
        }
    }

    pub(super) fn handle_sent(&mut self, at: u32, buffer: Vec<u8>, error: Option<i32>) {
        let client = &mut self.clients[at as usize];
        client.sending = false;
        if client.state == State::Closing {
            return;
        }
        if let Some(errno) = error {
            return self.lose(at, Cause::Socket(errno, self.when(at)));
        }
        if client.wrap.is_some() {
            self.wrapping.put(buffer);
        } else if client.out.capacity() == 0 && !self.plan.groups[usize::from(client.group)].idle {
            client.out = buffer;
        }
        if let Some(work) = &mut client.work {
            work.has_left();
            self.pump(at);
        }
        self.soil(at);
    }

    pub(super) fn handle_closed(&mut self, at: u32) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        self.owners[client.conn as usize] = NOBODY;
        client.reset();
        self.book.tally.open -= 1;
        if client.again && self.finish_ms.is_none() {
            self.retries.push_back((now_ms + RECONNECT_MS, at));
        }
    }
}
