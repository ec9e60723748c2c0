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

use super::link::{Ctx, Envelope, Link, Stored};
use super::options::QueueFull;
use crate::codec::{AckKind, PacketId, ReasonCode};
use crate::heap::{boxed, recount, vec_bytes};
use crate::limits::QUEUE_LATE_MESSAGES_MAX;
use crate::message::{Message, QoS};
use crate::stats::{Gauges, LossCause, Memory, Source};
use crate::time::Stamp;
use std::collections::VecDeque;

#[cfg(test)]
mod tests;

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
    /// Where it comes from as this session sees it.
    pub source: Source,
    /// Its place in the queue of the store, 0 where it is not stored. The packet identifier follows from it.
    pub seq: u64,
    /// It may have been sent by an earlier run of the broker.
    pub again: bool,
}

#[derive(Debug)]
struct Inflight {
    id: PacketId,
    /// As [`Delivery::seq`].
    seq: u64,
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
    /// The same for a stored message: PUBREL is to be sent once it is noted that it was, and
    /// [`Outgoing::release`] told. The place of the message.
    Note(u64),
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
    /// How many at the head of the queue waited for their client to come back: their latency says nothing.
    waited: usize,
    dropped: u64,
    /// The queue in the store, 0 = none.
    queue_id: u64,
    /// QoS 2 messages up to this place are on the disk; those behind it are not sent yet.
    gate: u64,
    /// Bytes without and of the queued messages, as the ledger of memory knows them.
    counted: (usize, u64),
}

impl Outgoing {
    /// Brings the ledger of memory up to date.
    pub fn count(&mut self, memory: &mut Memory) {
        let lists =
            vec_bytes::<Delivery>(self.queue.capacity()) + vec_bytes::<Inflight>(self.inflight.capacity());
        self.recount((boxed::<Outgoing>() + lists, self.queue_bytes), memory);
    }

    /// It is about to go: nothing of it counts any more.
    pub fn uncount(&mut self, memory: &mut Memory) {
        self.recount((0, 0), memory);
    }

    fn recount(&mut self, now: (usize, u64), memory: &mut Memory) {
        recount(&mut memory.queues, self.counted.0, now.0);
        recount(&mut memory.queued_messages, self.counted.1 as usize, now.1 as usize);
        self.counted = now;
    }

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

    /// Messages that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
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
        let away = link.is_none();
        if let Some(link) = link
            && self.queue.is_empty()
            && self.known == self.inflight.len()
            && !self.is_gated(&delivery)
            && let Some(id) = self.may_send(delivery.seq, link, ctx)
        {
            self.send(delivery, id, false, link, client, ctx);
            return Offered::Taken;
        }
        let offered = self.enqueue(delivery, client, ctx);
        if away {
            self.waited = self.queue.len();
        }
        offered
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
            self.dropped += 1;
            self.done(delivery.seq, false, ctx);
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
                self.dropped += 1;
                ctx.ledger.record(client, cause, 1);
                let Some(old) = self.queue.pop_front() else {
                    self.done(delivery.seq, false, ctx);
                    return offered;
                };
                self.done(old.seq, false, ctx);
                ctx.gauges.queued -= 1;
                self.waited = self.waited.saturating_sub(1);
                self.queue_bytes -= old.message.bytes() as u64;
            }
        }
        self.queue_bytes += bytes;
        self.queue.push_back(delivery);
        ctx.gauges.queued += 1;
        if ctx.options.queue_full == QueueFull::Reject && self.is_full(ctx) {
            return Offered::Full;
        }
        offered
    }

    /// A stored message is done with.
    fn done(&self, seq: u64, released: bool, ctx: &mut Ctx) {
        if seq != 0 && self.queue_id != 0 {
            ctx.done.push(Stored { queue: self.queue_id, seq, released });
        }
    }

    /// Its queue in the store; 0 = none.
    pub fn set_queue(&mut self, queue: u64) {
        if queue != 0 {
            self.queue_id = queue;
        }
    }

    /// Nothing of it is stored any more.
    pub fn forget_store(&mut self) {
        self.queue_id = 0;
        self.inflight.iter_mut().for_each(|f| f.seq = 0);
        let in_flight = self.inflight.iter_mut().filter_map(|f| f.delivery.as_mut());
        in_flight.chain(&mut self.queue).for_each(|d| d.seq = 0);
    }

    /// Everything up to this place is on the disk.
    pub fn open_gate(&mut self, seq: u64) {
        self.gate = self.gate.max(seq);
    }

    /// A QoS 2 message has to be on the disk before it is sent: the client remembers its packet identifier, which
    /// another message would get after a crash.
    fn is_gated(&self, delivery: &Delivery) -> bool {
        delivery.seq > self.gate && delivery.qos == QoS::ExactlyOnce
    }

    /// The identifier that the message at this place may be sent with now.
    fn may_send(&self, seq: u64, link: &Link, ctx: &Ctx) -> Option<PacketId> {
        let room = self.used < link.window && link.has_room(ctx.options);
        self.next_id(seq).filter(|_| room)
    }

    /// The identifier for the message at this place; `None` when the first message in flight still has it, or
    /// would be overtaken.
    fn next_id(&self, seq: u64) -> Option<PacketId> {
        let id = match seq {
            0 => PacketId::new(self.last_id.checked_add(1).unwrap_or(1))?,
            _ => packet_id(seq),
        };
        let round = u64::from(u16::MAX);
        let taken = |f: &Inflight| f.id == id || (seq != 0 && f.seq != 0 && seq - f.seq >= round);
        (!self.inflight.front().is_some_and(taken)).then_some(id)
    }

    /// It is noted in the store that the message at this place is released; whether PUBREL is to be sent.
    pub fn release(&mut self, seq: u64) -> bool {
        let Some(entry) = self.inflight.iter_mut().find(|f| f.seq == seq) else { return false };
        entry.delivery.take().is_some()
    }

    /// What an earlier run of the broker left: a message that it may have sent, or `None` for one whose client has
    /// it and is still to be told PUBREL. To be called in the order of places; `in_flight` up to the last of the
    /// latter, for what stands before it was sent.
    pub fn restore(
        &mut self,
        queue: u64,
        seq: u64,
        delivery: Option<Delivery>,
        in_flight: bool,
        gauges: &mut Gauges,
    ) {
        self.queue_id = queue;
        self.gate = self.gate.max(seq);
        match delivery {
            Some(delivery) if !in_flight => {
                gauges.queued += 1;
                self.queue_bytes += delivery.message.bytes() as u64;
                self.queue.push_back(delivery);
                self.waited = self.queue.len();
            }
            delivery => {
                gauges.inflight_out += 1;
                let id = packet_id(seq);
                self.last_id = id.get();
                self.inflight.push_back(Inflight { id, seq, counted: false, delivery });
            }
        }
    }

    /// Places of messages that are noted as released.
    pub fn released(&self) -> impl Iterator<Item = u64> {
        self.inflight.iter().filter(|f| f.delivery.is_none() && f.seq != 0).map(|f| f.seq)
    }

    fn send(
        &mut self,
        delivery: Delivery,
        id: PacketId,
        waited: bool,
        link: &mut Link,
        client: &str,
        ctx: &mut Ctx,
    ) {
        let expires = delivery.message.view().head.expires;
        if delivery.again && expires <= ctx.now {
            ctx.counters.expired_messages += 1;
            ctx.ledger.record(client, LossCause::Expired, 1);
            return self.done(delivery.seq, false, ctx);
        }
        let envelope = Envelope {
            qos: delivery.qos,
            packet_id: Some(id),
            dup: delivery.again,
            retain: delivery.retain,
            ids: delivery.ids.as_slice(),
        };
        match link.push_publish(&delivery.message.view(), envelope, ctx) {
            Ok(()) => {
                let stamp = delivery.message.view().head.stamp;
                let stamp = if waited { Stamp::NONE } else { super::live(delivery.source, stamp) };
                ctx.note_delivery(delivery.source, delivery.qos, stamp);
                ctx.gauges.inflight_out += 1;
                self.last_id = id.get();
                self.used += 1;
                let seq = delivery.seq;
                self.inflight.push_back(Inflight { id, seq, counted: true, delivery: Some(delivery) });
                self.known = self.inflight.len();
            }
            Err(why) => {
                ctx.ledger.record(client, why.cause(), 1);
                self.done(delivery.seq, false, ctx);
            }
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
                    let seq = entry.seq;
                    self.inflight.remove(self.known);
                    self.done(seq, false, ctx);
                    ctx.gauges.inflight_out -= 1;
                }
            }
        }
        while self.known == self.inflight.len()
            && let Some(next) = self.queue.front()
            && !self.is_gated(next)
            && let Some(id) = self.may_send(next.seq, link, ctx)
        {
            let Some(delivery) = self.queue.pop_front() else { return };
            ctx.gauges.queued -= 1;
            self.queue_bytes -= delivery.message.bytes() as u64;
            let waited = self.waited > 0;
            self.waited = self.waited.saturating_sub(1);
            self.send(delivery, id, waited, link, client, ctx);
        }
    }

    /// The connection is gone: everything in flight is to be sent again on the next one.
    pub fn handle_disconnected(&mut self) {
        self.waited = self.queue.len();
        self.known = 0;
        self.used = 0;
        self.inflight.iter_mut().for_each(|f| f.counted = false);
    }

    /// Takes PUBACK, PUBREC or PUBCOMP. `code` is that of the packet.
    pub fn handle_ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode, ctx: &mut Ctx) -> Acked {
        let Some(at) = self.find(id) else { return Acked::Unknown };
        let entry = &mut self.inflight[at];
        let (qos, source) = entry.delivery.as_ref().map(|d| (d.qos, d.source)).unzip();
        let released = match (kind, qos) {
            (AckKind::PubAck, Some(QoS::AtLeastOnce)) | (AckKind::PubComp, None) => false,
            (AckKind::PubRec, Some(QoS::ExactlyOnce) | None) => qos.is_none() || !code.is_error(),
            _ => return Acked::Mismatch,
        };
        if let Some(source) = source {
            ctx.counters.acked[source as usize] += 1;
        }
        let seq = entry.seq;
        if released {
            if seq != 0 && entry.delivery.is_some() {
                return Acked::Note(seq);
            }
            entry.delivery = None;
            return Acked::Release;
        }
        self.used -= u16::from(entry.counted);
        let released = entry.delivery.is_none();
        self.inflight.remove(at);
        self.done(seq, released, ctx);
        ctx.gauges.inflight_out -= 1;
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
    pub fn take_shared(&mut self, out: &mut Vec<Delivery>, gauges: &mut Gauges) {
        self.leave(gauges);
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
        self.waited = self.queue.len();
        gauges.queued += self.queue.len() as u64;
        gauges.inflight_out += self.inflight.len() as u64;
    }

    /// Takes what it holds out of what the shard holds: its session ends.
    pub fn leave(&self, gauges: &mut Gauges) {
        gauges.queued -= self.queue.len() as u64;
        gauges.inflight_out -= self.inflight.len() as u64;
    }

    /// How many messages end with the session: queued or in flight and not known to have arrived.
    pub fn unfinished(&self) -> u64 {
        (self.queue.len() + self.inflight.iter().filter(|f| f.delivery.is_some()).count()) as u64
    }
}

/// The place of the next message of a queue whose last place is `last`, in a run of the broker whose places begin at
/// `first`. Its packet identifier follows the last one's: had it that of a message which stands before it, PUBREL for
/// that one, sent again after a crash because its end was not written, would be taken for PUBREL of this one.
pub fn next_place(first: u64, last: Option<u64>) -> u64 {
    let round = u64::from(u16::MAX);
    match last {
        None => first,
        Some(last) if last >= first => last + 1,
        Some(last) => first + (last + 1 + round - first % round) % round,
    }
}

/// The packet identifier of the message at a place of a stored queue: the same in each run of the broker.
fn packet_id(seq: u64) -> PacketId {
    let id = (seq.wrapping_sub(1) % u64::from(u16::MAX)) as u16 + 1;
    PacketId::new(id).expect("1 at least")
}
