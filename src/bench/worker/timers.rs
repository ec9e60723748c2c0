//! Pings, timeouts, and windows that are stuck.

use super::{LATENCIES_MS, STALL_MS, SWEEP_MS, UPDATE_MS, Worker};
use crate::bench::client::State;
use crate::bench::plan::Pace;
use crate::bench::tally::Cause;
use crate::transport::Layer;

impl Worker {
    pub(super) fn look_at_timers(&mut self, now_ms: u64) {
        self.ping_due(now_ms);
        let elapsed = now_ms.saturating_sub(self.swept_ms);
        let many = (self.clients.len() as u64 * elapsed / SWEEP_MS).min(self.clients.len() as u64);
        if many > 0 || elapsed > SWEEP_MS {
            self.swept_ms = now_ms;
            for _ in 0..many {
                self.swept = (self.swept + 1) % self.clients.len() as u32;
                self.look_at(self.swept, now_ms);
            }
        }
        if now_ms >= self.stalls_ms + STALL_MS {
            self.stalls_ms = now_ms;
            self.unblock();
        }
        let ramped = self.ramping && self.ramp.is_empty() && self.connecting == 0;
        let latencies = now_ms >= self.measured_ms + LATENCIES_MS;
        let changed = now_ms >= self.updated_ms + UPDATE_MS && self.book.tally != self.told;
        if latencies || changed || ramped {
            self.ramping &= !ramped;
            self.update(latencies);
        }
    }

    pub(super) fn look_at(&mut self, at: u32, now_ms: u64) {
        let client = &mut self.clients[at as usize];
        let keep_alive_ms = u64::from(self.plan.keep_alive_s) * 1000;
        let waiting_ms = u64::from((now_ms as u32).wrapping_sub(client.since_ms));
        let what = match client.state {
            State::Offline | State::Closing => return,
            State::Connecting => "connection",
            State::Wrapping => match client.wrap.as_ref().and_then(|wrap| wrap.expects()) {
                Some(Layer::WebSocket) => "answer of a WebSocket",
                _ => "end of the TLS handshake",
            },
            State::Greeting => "CONNACK",
            State::Subscribing => "SUBACK",
            State::Online if client.pinging => {
                let limit_ms = if keep_alive_ms == 0 { self.plan.connect_timeout_ms } else { keep_alive_ms };
                if waiting_ms > limit_ms {
                    self.lose(at, Cause::Timeout("PINGRESP"));
                }
                return;
            }
            State::Online => {
                let silent_ms = u64::from((now_ms as u32).wrapping_sub(client.sent_ms));
                // Spread over a quarter of the keep alive, so that they do not all ping at once.
                let jitter_ms = u64::from(client.number % 256) * keep_alive_ms / 1024;
                if keep_alive_ms > 0 && silent_ms > keep_alive_ms / 2 + jitter_ms {
                    client.ping(&self.plan, now_ms as u32);
                    self.book.tally.pings += 1;
                    self.soil(at);
                }
                return;
            }
        };
        if waiting_ms > self.plan.connect_timeout_ms {
            self.lose(at, Cause::Timeout(what));
        }
    }

    pub(super) fn ping_due(&mut self, now_ms: u64) {
        let Some(round) = &self.pings else { return };
        let all = round.clients.len() as u64;
        let due = all * (now_ms - round.begin_ms) / round.over_ms.max(1);
        let until = round.clients.start + due.min(all) as u32;
        let (from, done) = (round.next, until == round.clients.end);
        for at in from..until {
            let client = &mut self.clients[at as usize];
            if client.state == State::Online {
                client.asked_to_ping = true;
                client.ping(&self.plan, now_ms as u32);
                self.book.tally.pings += 1;
                self.soil(at);
            }
        }
        if done {
            self.pings = None;
        } else if let Some(round) = &mut self.pings {
            round.next = until;
        }
    }

    /// A message that was lost must not shrink a window for ever.
    pub(super) fn unblock(&mut self) {
        let blocked: Vec<u32> = self.publishers.values().copied().collect();
        for at in blocked {
            let client = &mut self.clients[at as usize];
            let group = &self.plan.groups[usize::from(client.group)];
            let closed =
                group.flow.is_some_and(|flow| matches!(self.plan.flows[flow].pace, Pace::Closed { .. }));
            let Some(work) = &mut client.work else { continue };
            let stuck = work.undelivered > 0 && work.delivered == work.progress && work.is_settled();
            work.progress = work.delivered;
            if closed && stuck && client.state == State::Online {
                work.undelivered = 0;
                self.book.tally.stalls += 1;
                self.pump(at);
            }
        }
    }
}
