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
use crate::heap::{boxed, recount, vec_bytes};
use crate::limits::QUEUE_LATE_MESSAGES_MAX;
use crate::message::{Message, QoS};
use crate::stats::{Gauges, LossCause, Memory, Source};
use crate::time::Stamp;
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
    /// Where it comes from as this session sees it.
    pub source: Source,
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
    /// How many at the head of the queue waited for their client to come back: their latency says nothing.
    waited: usize,
    dropped: u64,
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
            && self.may_send(link, ctx)
        {
            self.send(delivery, false, link, client, ctx);
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
                let Some(old) = self.queue.pop_front() else { return offered };
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

    fn may_send(&self, link: &Link, ctx: &Ctx) -> bool {
        self.used < link.window && link.has_room(ctx.options) && self.next_id().is_some()
    }

    /// The next identifier; `None` when the first message in flight still has it.
    fn next_id(&self) -> Option<PacketId> {
        let id = PacketId::new(self.last_id.checked_add(1).unwrap_or(1))?;
        let taken = self.inflight.front().is_some_and(|f| f.id == id);
        (!taken).then_some(id)
    }

    fn send(&mut self, delivery: Delivery, waited: bool, link: &mut Link, client: &str, ctx: &mut Ctx) {
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
                let stamp = delivery.message.view().head.stamp;
                let stamp = if waited { Stamp::NONE } else { super::live(delivery.source, stamp) };
                ctx.note_delivery(delivery.source, delivery.qos, stamp);
                ctx.gauges.inflight_out += 1;
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
                    ctx.gauges.inflight_out -= 1;
                }
            }
        }
        while self.known == self.inflight.len() && self.may_send(link, ctx) {
            let Some(delivery) = self.queue.pop_front() else { return };
            ctx.gauges.queued -= 1;
            self.queue_bytes -= delivery.message.bytes() as u64;
            let waited = self.waited > 0;
            self.waited = self.waited.saturating_sub(1);
            self.send(delivery, waited, link, client, ctx);
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
        if released {
            entry.delivery = None;
            return Acked::Release;
        }
        self.used -= u16::from(entry.counted);
        self.inflight.remove(at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Framed, Packet, Publish, Version, decode, frame};
    use crate::message::{Head, MessageRef};
    use crate::session::{Options, Pool};
    use crate::stats::{Counters, Ledger, Recorder};
    use crate::time::Moment;

    struct World {
        options: Options,
        counters: Counters,
        gauges: Gauges,
        recorder: Recorder,
        ledger: Ledger,
        pool: Pool,
        memory: Memory,
    }

    impl World {
        fn new() -> World {
            World {
                options: Options::default(),
                counters: Counters::default(),
                gauges: Gauges::default(),
                recorder: Recorder::default(),
                ledger: Ledger::default(),
                pool: Pool::default(),
                memory: Memory::default(),
            }
        }

        fn ctx(&mut self) -> Ctx<'_> {
            Ctx {
                now: Moment(1_000),
                options: &self.options,
                counters: &mut self.counters,
                gauges: &mut self.gauges,
                recorder: &mut self.recorder,
                ledger: &mut self.ledger,
                pool: &mut self.pool,
                memory: &mut self.memory,
            }
        }
    }

    fn delivery(n: u32, qos: QoS, group: u64) -> Delivery {
        let head = Head::new(qos, false, 0, Source::Client);
        let payload = n.to_string();
        let view = MessageRef { topic: "t", properties: &[], payload: payload.as_bytes(), head };
        Delivery {
            message: Message::new(&view),
            qos,
            retain: false,
            ids: Ids::None,
            group,
            source: Source::Client,
        }
    }

    fn link(window: u16) -> Link {
        Link::new(Version::V5, window, u32::MAX, 0)
    }

    /// What was sent: (packet identifier, payload, DUP) of each PUBLISH, (identifier, "rel", false) of a PUBREL.
    fn sent(link: &mut Link) -> Vec<(u16, String, bool)> {
        let bytes = std::mem::take(&mut link.out);
        let (mut rest, mut out) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let Ok(Framed::Packet { total, .. }) = frame(rest, u32::MAX) else { panic!("whole packets") };
            match decode(Version::V5, &rest[..total]) {
                Ok(Packet::Publish(Publish { packet_id: Some(id), payload, dup, .. })) => {
                    out.push((id.get(), String::from_utf8(payload.to_vec()).unwrap(), dup));
                }
                Ok(Packet::Ack(a)) => out.push((a.packet_id.get(), "rel".into(), false)),
                other => panic!("expected PUBLISH or PUBREL, got {other:?}"),
            }
            rest = &rest[total..];
        }
        out
    }

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    const OK: ReasonCode = ReasonCode::SUCCESS;

    #[test]
    fn the_window_bounds_what_is_in_flight_and_acks_in_any_order_open_it() {
        let (mut world, mut link, mut out) = (World::new(), link(3), Outgoing::default());
        for n in 1..=6 {
            let d = delivery(n, QoS::AtLeastOnce, 0);
            assert_eq!(out.offer(d, Some(&mut link), "c", &mut world.ctx()), Offered::Taken);
        }
        assert_eq!(sent(&mut link).len(), 3);
        assert_eq!((out.inflight(), out.queued()), (3, 3));
        assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Done);
        assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Unknown);
        out.pump(&mut link, "c", &mut world.ctx());
        assert_eq!(sent(&mut link), [(4, "4".into(), false)]);
        for n in [4, 3, 1] {
            assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done);
        }
        out.pump(&mut link, "c", &mut world.ctx());
        assert_eq!(sent(&mut link), [(5, "5".into(), false), (6, "6".into(), false)]);
    }

    #[test]
    fn packet_identifiers_start_over_and_skip_none_in_use() {
        let (mut world, mut link, mut out) = (World::new(), link(u16::MAX), Outgoing::default());
        out.offer(delivery(0, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
        for n in 2..=u16::MAX {
            out.offer(delivery(1, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
            link.out.clear();
            assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done, "{n}");
        }
        // Identifier 1 is still in use: the next message waits for it.
        out.offer(delivery(2, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
        assert_eq!((out.inflight(), out.queued()), (1, 1));
        assert_eq!(out.handle_ack(AckKind::PubAck, id(1), OK, &mut world.ctx()), Acked::Done);
        out.pump(&mut link, "c", &mut world.ctx());
        assert_eq!(sent(&mut link), [(1, "2".into(), false)]);
    }

    #[test]
    fn what_was_in_flight_is_sent_again_in_order_within_a_smaller_window() {
        let (mut world, mut first, mut out) = (World::new(), link(4), Outgoing::default());
        for n in 1..=5 {
            let qos = if n == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            out.offer(delivery(n, qos, 0), Some(&mut first), "c", &mut world.ctx());
        }
        assert_eq!(out.handle_ack(AckKind::PubRec, id(2), OK, &mut world.ctx()), Acked::Release);
        out.handle_disconnected();
        let mut second = link(1);
        out.pump(&mut second, "c", &mut world.ctx());
        assert_eq!(sent(&mut second), [(1, "1".into(), true), (2, "rel".into(), false)]);
        assert_eq!(out.handle_ack(AckKind::PubAck, id(1), OK, &mut world.ctx()), Acked::Done);
        out.pump(&mut second, "c", &mut world.ctx());
        assert_eq!(sent(&mut second), [(3, "3".into(), true)]);
        assert_eq!(out.handle_ack(AckKind::PubComp, id(2), OK, &mut world.ctx()), Acked::Done);
        for n in [3, 4] {
            assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done);
            out.pump(&mut second, "c", &mut world.ctx());
        }
        assert_eq!(sent(&mut second), [(4, "4".into(), true), (5, "5".into(), false)]);
    }

    #[test]
    fn an_acknowledgement_of_the_wrong_kind_is_told_apart() {
        let (mut world, mut link, mut out) = (World::new(), link(4), Outgoing::default());
        out.offer(delivery(1, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
        out.offer(delivery(2, QoS::ExactlyOnce, 0), Some(&mut link), "c", &mut world.ctx());
        assert_eq!(out.handle_ack(AckKind::PubRec, id(1), OK, &mut world.ctx()), Acked::Mismatch);
        assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Mismatch);
        assert_eq!(out.handle_ack(AckKind::PubComp, id(2), OK, &mut world.ctx()), Acked::Mismatch);
        assert_eq!(
            out.handle_ack(AckKind::PubRec, id(2), ReasonCode::QUOTA_EXCEEDED, &mut world.ctx()),
            Acked::Done
        );
        assert_eq!(out.inflight(), 1);
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_counts_it() {
        let (mut world, mut out) = (World::new(), Outgoing::default());
        world.options.max_mqueue = 3;
        for n in 1..=5 {
            out.offer(delivery(n, QoS::AtLeastOnce, 0), None, "c", &mut world.ctx());
        }
        let mut link = link(9);
        out.pump(&mut link, "c", &mut world.ctx());
        let payloads: Vec<String> = sent(&mut link).into_iter().map(|s| s.1).collect();
        assert_eq!(payloads, ["3", "4", "5"]);
        assert_eq!(world.ledger.total(), 2);
    }

    #[test]
    fn shared_messages_leave_but_not_those_of_qos_2_that_were_sent() {
        let (mut world, mut link, mut out) = (World::new(), link(3), Outgoing::default());
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce];
        for (n, qos) in (1..).zip(qos) {
            let group = u64::from(n != 3) * 7;
            out.offer(delivery(n, qos, group), Some(&mut link), "c", &mut world.ctx());
        }
        out.handle_disconnected();
        let mut moved = Vec::new();
        out.take_shared(&mut moved, &mut world.gauges);
        let payload = |d: &Delivery| String::from_utf8(d.message.view().payload.to_vec()).unwrap();
        assert_eq!(moved.iter().map(payload).collect::<Vec<_>>(), ["1", "4", "5"]);
        assert_eq!((out.inflight(), out.queued()), (2, 0));
    }
}
