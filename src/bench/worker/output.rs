//! What is published and sent.

use super::wrapped::seal;
use super::{Command, Worker};
use crate::bench::client::State;
use crate::io::Io;

impl Worker {
    /// Puts a client on the list of those that have something to send.
    pub(super) fn soil(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        if !client.sending && !client.dirty && client.has_output() {
            client.dirty = true;
            self.dirty.push(at);
        }
    }

    pub(super) fn flush(&mut self, now_ms: u64) {
        for at in self.dirty.drain(..) {
            let client = &mut self.clients[at as usize];
            client.dirty = false;
            if client.sending || client.state == State::Closing || !client.has_output() {
                continue;
            }
            if let Some(work) = &mut client.work {
                work.hand_over();
            }
            self.book.tally.bytes_out += client.out.len() as u64;
            let idle = self.plan.groups[usize::from(client.group)].idle;
            let wire = seal(client, &mut self.wrapping, idle);
            if wire.is_empty() {
                continue;
            }
            (client.sending, client.sent_ms) = (true, now_ms as u32);
            self.book.tally.wire_out += wire.len() as u64;
            self.io.send(client.conn, wire);
        }
    }

    pub(super) fn publish_due(&mut self) {
        if !self.publishing {
            return;
        }
        for flow in 0..self.pacers.len() {
            while let Some(at) = self.pacers[flow].due(self.book.now_ns) {
                if let Some(work) = &mut self.clients[at as usize].work {
                    work.owed = work.owed.saturating_add(1);
                }
                self.pump(at);
            }
        }
    }

    /// Publishes what a client may publish now.
    pub(super) fn pump(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let group = &self.plan.groups[usize::from(client.group)];
        let (true, Some(flow), false) = (self.publishing, group.flow, group.subscribes) else { return };
        let pacer = &self.pacers[flow];
        client.pump(&self.plan, &mut self.book, pacer.begin_ns(), pacer.seats(), pacer.rate());
        self.soil(at);
    }

    pub(super) fn pass_deliveries_on(&mut self) {
        if self.book.delivered.is_empty() {
            return;
        }
        let mut delivered = std::mem::take(&mut self.book.delivered);
        if self.peers.len() > 1 {
            let mut away = vec![Vec::new(); self.peers.len()];
            delivered.retain(|publisher| {
                let home = self.plan.worker_of(*publisher) as usize;
                if home != self.me {
                    away[home].push(*publisher);
                }
                home == self.me
            });
            for (peer, publishers) in self.peers.iter().zip(away).filter(|(_, list)| !list.is_empty()) {
                peer.tell(Command::Delivered(publishers));
            }
        }
        for publisher in delivered.drain(..) {
            self.credit(publisher);
        }
        self.book.delivered = delivered;
    }

    pub(super) fn credit(&mut self, publisher: u32) {
        let Some(at) = self.publishers.get(&publisher).copied() else { return };
        if let Some(work) = &mut self.clients[at as usize].work {
            work.undelivered = work.undelivered.saturating_sub(1);
            work.delivered += 1;
        }
        self.pump(at);
    }
}
