//! Connecting, losing and leaving.

use super::wrapped::{end, seal};
use super::{CONNECTS_PER_TURN, NOBODY, RECONNECT_MS, Worker};
use crate::bench::client::State;
use crate::bench::tally::Cause;
use crate::io::{Close, Io};

impl Worker {
    pub(super) fn connect_due(&mut self, now_ms: u64) {
        while let Some((due_ms, at)) = self.retries.front().copied() {
            if due_ms > now_ms || self.connecting >= self.plan.pending {
                break;
            }
            self.retries.pop_front();
            self.connect(at, self.book.now_ns);
        }
        let rate = self.plan.connrate / f64::from(self.plan.threads);
        for _ in 0..CONNECTS_PER_TURN {
            let Some(range) = self.ramp.front_mut() else { return };
            let due_ns = match rate {
                0.0 => self.book.now_ns,
                rate => self.ramp_begin_ns + (self.ramped as f64 * 1e9 / rate) as u64,
            };
            if self.connecting >= self.plan.pending || due_ns > self.book.now_ns {
                return;
            }
            match range.next() {
                None => drop(self.ramp.pop_front()),
                Some(at) => {
                    self.ramped += 1;
                    self.connect(at, due_ns);
                }
            }
        }
    }

    pub(super) fn connect(&mut self, at: u32, due_ns: u64) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at as usize];
        if client.state != State::Offline || self.finish_ms.is_some() {
            // One that is about to be closed comes back then.
            client.again |= client.state == State::Closing;
            return;
        }
        let number = client.number as usize;
        let targets = &self.plan.targets;
        let sources = &self.plan.sources;
        let source = (!sources.is_empty()).then(|| sources[number / targets.len() % sources.len()]);
        self.book.tally.started += 1;
        client.again = self.plan.reconnect;
        match self.io.connect(targets[number % targets.len()], source) {
            Ok(conn) => {
                client.state = State::Connecting;
                (client.conn, client.began_ns, client.since_ms) = (conn, due_ns, now_ms as u32);
                if self.owners.len() <= conn as usize {
                    self.owners.resize(conn as usize + 1, NOBODY);
                }
                self.owners[conn as usize] = at;
                self.connecting += 1;
                self.book.tally.open += 1;
                self.ramping = true;
            }
            Err(error) => {
                self.book.tally.connect_failed += 1;
                self.book.note(Cause::Connect(error.raw_os_error().unwrap_or_default()));
                if client.again {
                    self.retries.push_back((now_ms + RECONNECT_MS, at));
                }
            }
        }
    }

    /// Ends a connection that should have gone on.
    pub(super) fn lose(&mut self, at: u32, cause: Cause) {
        self.lose_by(at, cause, Close::Now);
    }

    /// The same, with what is still to be sent.
    pub(super) fn lose_by(&mut self, at: u32, cause: Cause, how: Close) {
        let client = &mut self.clients[at as usize];
        match client.state {
            State::Offline | State::Closing => return,
            State::Connecting | State::Wrapping | State::Greeting => self.book.tally.connect_failed += 1,
            State::Subscribing | State::Online => {
                self.book.tally.disconnects += 1;
                self.book.tally.online -= 1;
            }
        }
        self.connecting -= u32::from(client.state != State::Online);
        client.state = State::Closing;
        self.io.close(client.conn, how);
        self.book.note(cause);
    }

    /// Ends a connection for good, or until it is told to connect.
    pub(super) fn leave(&mut self, at: u32, how: Close) {
        let finishing = self.finish_ms.is_some();
        let client = &mut self.clients[at as usize];
        client.again = false;
        match client.state {
            State::Offline | State::Closing => return,
            State::Connecting | State::Wrapping | State::Greeting => {}
            State::Subscribing | State::Online => self.book.tally.online -= 1,
        }
        if how == Close::Flush && client.state == State::Online && !client.sending {
            client.leave(&self.plan, finishing);
            client.sending = true;
            self.book.tally.bytes_out += client.out.len() as u64;
            end(client);
            let wire = seal(client, &mut self.wrapping, true);
            self.book.tally.wire_out += wire.len() as u64;
            self.io.send(client.conn, wire);
        }
        self.connecting -= u32::from(client.state != State::Online);
        let connecting = matches!(client.state, State::Connecting | State::Wrapping);
        let how = if connecting { Close::Now } else { how };
        client.state = State::Closing;
        self.io.close(client.conn, how);
    }
}
