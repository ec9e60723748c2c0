//! QoS 1 and 2 to a client: the queue, the inflight window, packet identifiers, and what is sent again on
//! resume.
//!
//! ```text
//!             room in the window            PUBACK, PUBREC >= 0x80
//!   queued ──────────────────────► sent ─────────────────────────────► gone
//!                                    │ PUBREC                            ▲
//!                                    └────────► released (PUBREL sent) ──┘ PUBCOMP
//! ```
//!
//! Invariants: `inflight` is in the order of first sending, and its identifiers ascend cyclically, so that
//! an identifier's distance from the first one bounds its index. The first `known` entries were sent on the
//! present connection; `used` of them count against the client's Receive Maximum.

use super::link::{Ctx, Envelope, Link};
use super::options::QueueFull;
use crate::codec::{AckKind, PacketId, ReasonCode};
use crate::limits::QUEUE_LATE_MESSAGES_MAX;
use crate::message::{Message, QoS};
use crate::stats::LossCause;
use std::collections::VecDeque;

/// Subscription identifiers of one delivery.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Ids {
    /// None.
    #[default]
    None,
    /// One.
    One(u32),
    /// Those of several overlapping subscriptions.
    Many(Box<[u32]>),
}

impl Ids {
    /// From those that are not 0.
    pub fn new(ids: &[u32]) -> Ids {
        match ids {
            [] => Ids::None,
            [one] => Ids::One(*one),
            many => Ids::Many(many.into()),
        }
    }

    /// As a slice.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Many(ids) => ids,
        }
    }
}

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// QoS of this delivery: 1 or 2.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Ids,
    /// Key of the share group that it came from, 0 = none.
    pub group: u64,
}

#[derive(Debug)]
struct Inflight {
    id: PacketId,
    /// Counts against the client's Receive Maximum.
    counted: bool,
    /// `None` once PUBREC came and PUBREL went.
    delivery: Option<Delivery>,
}

/// What became of a delivery that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offered {
    /// It was sent, queued, or dropped and counted.
    Taken,
    /// It was queued, or came far too late and was dropped and counted; the queue is full now (under
    /// [`QueueFull::Reject`]).
    Full,
    /// It was queued, and the subscriber is to be disconnected with 0x97.
    Disconnect,
}

/// What an acknowledgement meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acked {
    /// The delivery is complete; there is room in the window.
    Done,
    /// QoS 2 goes on: PUBREL is to be sent.
    Release,
    /// No message has this packet identifier.
    Unknown,
    /// The message has another QoS or is at another step.
    Mismatch,
}

/// Deliveries to one session.
#[derive(Debug, Default)]
pub struct Outgoing {
    inflight: VecDeque<Inflight>,
    queue: VecDeque<Delivery>,
    queue_bytes: u64,
    last_id: u16,
    used: u16,
    known: usize,
}

impl Outgoing {
    /// Whether it holds nothing and may be dropped.
    pub fn is_empty(&self) -> bool {
        self.inflight.is_empty() && self.queue.is_empty()
    }

    /// Messages that wait for room in the window.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Messages that are not completely acknowledged.
    pub fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Whether the queue has reached a bound.
    pub fn is_full(&self, ctx: &Ctx) -> bool {
        self.queue.len() >= ctx.options.max_mqueue as usize
            || self.queue_bytes >= ctx.options.max_mqueue_bytes
    }

    /// Whether the queue has fallen so far that a full route may be opened again: three quarters.
    pub fn has_drained(&self, ctx: &Ctx) -> bool {
        self.queue.len() <= ctx.options.max_mqueue as usize / 4 * 3
            && self.queue_bytes <= ctx.options.max_mqueue_bytes / 4 * 3
    }

    /// Sends a delivery at once if the window and the connection have room, else queues it.
    pub fn offer(
        &mut self,
        delivery: Delivery,
        link: Option<&mut Link>,
        client: &str,
        ctx: &mut Ctx,
    ) -> Offered {
        if let Some(link) = link
            && self.queue.is_empty()
            && self.known == self.inflight.len()
            && self.may_send(link, ctx)
        {
            self.send(delivery, link, client, ctx);
            return Offered::Taken;
        }
        self.enqueue(delivery, client, ctx)
    }

    fn enqueue(&mut self, delivery: Delivery, client: &str, ctx: &mut Ctx) -> Offered {
        let bytes = delivery.message.bytes() as u64;
        let mut offered = Offered::Taken;
        let over = |s: &Self, ctx: &Ctx| {
            s.queue.len() >= ctx.options.max_mqueue as usize
                || s.queue_bytes + bytes > ctx.options.max_mqueue_bytes
        };
        // Publishers on other shards learn late that a route is full, and those of a share group not at all.
        let late = self.queue.len() >= ctx.options.max_mqueue as usize + QUEUE_LATE_MESSAGES_MAX
            || self.queue_bytes + bytes > ctx.options.max_mqueue_bytes.saturating_mul(2);
        if ctx.options.queue_full == QueueFull::Reject && late {
            ctx.ledger.record(client, LossCause::QueueFull, 1);
            return Offered::Full;
        }
        if over(self, ctx) {
            match ctx.options.queue_full {
                QueueFull::Reject => offered = Offered::Full,
                QueueFull::Disconnect => offered = Offered::Disconnect,
                QueueFull::DropOldest => {}
            }
            while offered != Offered::Full && over(self, ctx) {
                let full = self.queue.len() >= ctx.options.max_mqueue as usize;
                let cause = if full { LossCause::QueueFull } else { LossCause::QueueBytesFull };
                ctx.ledger.record(client, cause, 1);
                let Some(old) = self.queue.pop_front() else { return offered };
                self.queue_bytes -= old.message.bytes() as u64;
            }
        }
        self.queue_bytes += bytes;
        self.queue.push_back(delivery);
        if ctx.options.queue_full == QueueFull::Reject && self.is_full(ctx) {
            return Offered::Full;
        }
        offered
    }

    fn may_send(&self, link: &Link, ctx: &Ctx) -> bool {
        self.used < link.window && link.has_room(ctx.options) && self.next_id().is_some()
    }

    /// The next identifier; `None` when the first message in flight still has it.
    fn next_id(&self) -> Option<PacketId> {
        let id = PacketId::new(self.last_id.checked_add(1).unwrap_or(1))?;
        let taken = self.inflight.front().is_some_and(|f| f.id == id);
        (!taken).then_some(id)
    }

    fn send(&mut self, delivery: Delivery, link: &mut Link, client: &str, ctx: &mut Ctx) {
        let id = self.next_id().expect("may_send found an identifier");
        let envelope = Envelope {
            qos: delivery.qos,
            packet_id: Some(id),
            dup: false,
            retain: delivery.retain,
            ids: delivery.ids.as_slice(),
        };
        match link.push_publish(&delivery.message.view(), envelope, ctx) {
            Ok(()) => {
                self.last_id = id.get();
                self.used += 1;
                self.inflight.push_back(Inflight { id, counted: true, delivery: Some(delivery) });
                self.known = self.inflight.len();
            }
            Err(why) => ctx.ledger.record(client, why.cause(), 1),
        }
    }

    /// Sends what the window and the connection have room for: first again what an earlier connection left
    /// [MQTT-4.4.0-1 of 5.0], then the queue.
    pub fn pump(&mut self, link: &mut Link, client: &str, ctx: &mut Ctx) {
        while self.known < self.inflight.len() && link.has_room(ctx.options) {
            let entry = &mut self.inflight[self.known];
            let Some(delivery) = &entry.delivery else {
                link.push_ack(AckKind::PubRel, entry.id, ReasonCode::SUCCESS, ctx);
                self.known += 1;
                continue;
            };
            if self.used >= link.window {
                return;
            }
            let envelope = Envelope {
                qos: delivery.qos,
                packet_id: Some(entry.id),
                dup: true,
                retain: delivery.retain,
                ids: delivery.ids.as_slice(),
            };
            match link.push_publish(&delivery.message.view(), envelope, ctx) {
                Ok(()) => {
                    entry.counted = true;
                    self.used += 1;
                    self.known += 1;
                }
                Err(why) => {
                    ctx.ledger.record(client, why.cause(), 1);
                    self.inflight.remove(self.known);
                }
            }
        }
        while self.known == self.inflight.len() && self.may_send(link, ctx) {
            let Some(delivery) = self.queue.pop_front() else { return };
            self.queue_bytes -= delivery.message.bytes() as u64;
            self.send(delivery, link, client, ctx);
        }
    }

    /// The connection is gone: everything in flight is to be sent again on the next one.
    pub fn handle_disconnected(&mut self) {
        self.known = 0;
        self.used = 0;
        self.inflight.iter_mut().for_each(|f| f.counted = false);
    }

    /// Takes PUBACK, PUBREC or PUBCOMP. `code` is that of the packet.
    pub fn handle_ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode) -> Acked {
        let Some(at) = self.find(id) else { return Acked::Unknown };
        let entry = &mut self.inflight[at];
        let qos = entry.delivery.as_ref().map(|d| d.qos);
        match (kind, qos) {
            (AckKind::PubAck, Some(QoS::AtLeastOnce)) | (AckKind::PubComp, None) => {}
            (AckKind::PubRec, Some(QoS::ExactlyOnce)) if code.is_error() => {}
            (AckKind::PubRec, Some(QoS::ExactlyOnce) | None) => {
                entry.delivery = None;
                return Acked::Release;
            }
            _ => return Acked::Mismatch,
        }
        self.used -= u16::from(entry.counted);
        self.inflight.remove(at);
        self.known -= usize::from(at < self.known);
        Acked::Done
    }

    fn find(&self, id: PacketId) -> Option<usize> {
        let first = self.inflight.front()?.id.get();
        // Identifiers run from 1 to 65,535 and start over.
        let distance = |id: u16| usize::from(if id >= first { id - first } else { id + (u16::MAX - first) });
        let wanted = distance(id.get());
        let mut at = wanted.min(self.inflight.len() - 1);
        loop {
            let here = self.inflight[at].id;
            if here == id {
                return Some(at);
            }
            if at == 0 || distance(here.get()) < wanted {
                return None;
            }
            at -= 1;
        }
    }

    /// Takes what came through share groups and may be given to another member: everything that was never
    /// sent, and what was sent at QoS 1. A QoS 2 message that was sent belongs to this client
    /// [MQTT-4.8.2-4, -5 of 5.0].
    pub fn take_shared(&mut self, out: &mut Vec<Delivery>) {
        let movable = |d: &Delivery, sent: bool| d.group != 0 && (!sent || d.qos == QoS::AtLeastOnce);
        for entry in &mut self.inflight {
            if entry.delivery.as_ref().is_some_and(|d| movable(d, true)) {
                out.extend(entry.delivery.take());
                entry.counted = true; // marks it for removal; nothing counts while disconnected
            }
        }
        self.inflight.retain(|f| !(f.counted && f.delivery.is_none()));
        let mut kept = VecDeque::new();
        for delivery in self.queue.drain(..) {
            if movable(&delivery, false) {
                self.queue_bytes -= delivery.message.bytes() as u64;
                out.push(delivery);
            } else {
                kept.push_back(delivery);
            }
        }
        self.queue = kept;
    }

    /// How many messages end with the session: queued or in flight and not known to have arrived.
    pub fn unfinished(&self) -> u64 {
        (self.queue.len() + self.inflight.iter().filter(|f| f.delivery.is_some()).count()) as u64
    }
}
