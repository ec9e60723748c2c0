//! Acknowledgements that wait until what they acknowledge is on the disk, here and on other shards.
//!
//! An operation is one thing that is waited for in several parts: the batch of this shard, and one answer of each
//! shard that got the message. Its number is the ticket that travels with the message. Acknowledgements of a
//! connection leave in the order of what they acknowledge [MQTT-4.6.0-2, -3 of 5.0], so behind one that waits all
//! others wait as well. Operations whose connection is gone are finished all the same: a PUBLISH that is sent again
//! meanwhile waits for the same one.

use super::connection::Wait;
use super::keep::{After, incoming_key};
use super::publish::Origin;
use super::{Fault, Handover, Next, Shard};
use crate::codec::{AckKind, PacketId, Publish, ReasonCode};
use crate::io::{Conn, Io, ShardId};
use crate::limits::PENDING_ACKS_MAX;
use crate::map::Slot;
use crate::message::QoS;
use crate::session::Arrival;
use crate::store::Change;
use std::collections::VecDeque;

/// What is waited for in parts.
#[derive(Debug)]
pub(super) struct Op {
    /// Parts that are missing.
    left: u32,
    end: End,
}

/// What follows.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Acknowledgements of a connection leave.
    Ack {
        conn: Slot,
        /// Session and packet identifier of a QoS 2 message.
        message: Option<(u32, PacketId)>,
    },
    /// The message at this place of this queue is with somebody else.
    Moved((u64, u64)),
    /// Another shard is told.
    Relay(ShardId, u64),
}

/// The acknowledgements of one connection.
#[derive(Debug)]
pub(super) struct Acks {
    conn: Slot,
    line: VecDeque<Ack>,
}

#[derive(Debug)]
struct Ack {
    /// What it waits for, 0 = nothing of its own.
    op: u64,
    kind: AckKind,
    id: PacketId,
    code: ReasonCode,
    text: Option<Box<str>>,
}

fn number(slot: Slot) -> u64 {
    u64::from(slot.generation) << 32 | u64::from(slot.index)
}

fn slot_of(op: u64) -> Slot {
    Slot { index: op as u32, generation: (op >> 32) as u32 }
}

impl<I: Io<Handover>> Shard<I> {
    /// Begins an operation of so many parts; its number is never 0.
    fn begin_op(&mut self, left: u32, end: End) -> u64 {
        let Some(keeper) = &mut self.local.keeper else { return 0 };
        number(keeper.ops.insert(Op { left, end }))
    }

    /// An operation that acknowledgements of a connection wait for.
    pub(super) fn begin_ack(&mut self, conn: Slot, message: Option<(u32, PacketId)>, left: u32) -> u64 {
        self.begin_op(left, End::Ack { conn, message })
    }

    /// An operation that frees a stored message once somebody else has it.
    pub(super) fn begin_move(&mut self, from: (u64, u64)) -> u64 {
        self.begin_op(1, End::Moved(from))
    }

    /// An operation that answers another shard's ticket.
    pub(super) fn begin_relay(&mut self, to: ShardId, ticket: u64) -> u64 {
        self.begin_op(1, End::Relay(to, ticket))
    }

    /// An operation waits for more.
    pub(super) fn extend_op(&mut self, op: u64, parts: u32) {
        if let Some(op) = self.local.keeper.as_mut().and_then(|k| k.ops.at(slot_of(op))) {
            op.left += parts;
        }
    }

    /// One part of an operation is there; whether it was the last one.
    pub(super) fn op_done(&mut self, op: u64) -> bool {
        let Some(keeper) = &mut self.local.keeper else { return false };
        let slot = slot_of(op);
        let Some(found) = keeper.ops.at(slot) else { return false };
        found.left -= 1;
        if found.left > 0 {
            return false;
        }
        let end = found.end;
        keeper.ops.remove(slot.index);
        match end {
            End::Relay(to, ticket) => keeper.settle(to, ticket),
            End::Moved(from) => keeper.end_move(from),
            End::Ack { conn, .. } => {
                let line = keeper.acks.get_mut(&conn.index).filter(|acks| acks.conn == conn);
                let Some(acks) = line else { return true };
                acks.line.iter_mut().filter(|ack| ack.op == op).for_each(|ack| ack.op = 0);
                self.release_acks(conn);
            }
        }
        true
    }

    /// Whoever owns a ticket is told, once the batch of this tick is on the disk.
    pub(super) fn settle_owner(&mut self, (owner, ticket): (ShardId, u64)) {
        let me = self.me;
        let Some(keeper) = self.local.keeper.as_mut().filter(|_| ticket != 0) else { return };
        keeper.after(if owner == me { After::Op(ticket) } else { After::Settle(owner, ticket) });
    }

    /// Whether a QoS 2 message is new; else what is done about it.
    pub(super) fn check_incoming(
        &mut self,
        conn: Conn,
        index: u32,
        p: &Publish,
    ) -> Result<Option<Next>, Fault> {
        let (QoS::ExactlyOnce, Some(id)) = (p.qos, p.packet_id) else { return Ok(None) };
        let Some(c) = self.local.conns.get(conn) else { return Ok(Some(Next::Gone)) };
        let max = usize::from(c.link.receive_max);
        let forget_ms = u64::from(self.local.options.of(c.listener).await_rel_timeout_s) * 1000;
        let Some(session) = self.local.sessions.get_mut(index) else { return Ok(Some(Next::Gone)) };
        let incoming = session.incoming.get_or_insert_default();
        let (held, mut late) = (incoming.len(), Vec::new());
        let arrival = incoming.check(id, max, self.local.now, forget_ms, &mut late);
        let forgotten = (held - incoming.len()) as u64;
        self.local.counters.qos2_forgotten += forgotten;
        self.local.gauges.inflight_in -= forgotten;
        self.drop_late(index, late);
        match arrival {
            Arrival::New => Ok(None),
            Arrival::Again if self.is_unsure(index, id) => {
                if !p.dup {
                    // Refused when it came again: its client has given it up, and this is another one.
                    self.give_up_unsure(index, id);
                }
                Ok(None)
            }
            Arrival::Again => {
                // PUBREC leaves when the first one's may.
                let op = self.local.conns.slot(conn).map_or(0, |slot| self.pending_op(slot, index, id));
                Ok(Some(self.acknowledge(conn, p, ReasonCode::SUCCESS, "", op)))
            }
            Arrival::TooMany => {
                self.local.counters.qos2_refused += 1;
                let text = format!("expected at most {max} QoS 2 messages without PUBREL");
                Err(Fault::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, text))
            }
        }
    }

    /// The operation that a QoS 2 message of a session waits for, from now on on this connection.
    pub(super) fn pending_op(&mut self, conn: Slot, session: u32, id: PacketId) -> u64 {
        let Some(keeper) = &mut self.local.keeper else { return 0 };
        let end = if keeper.ops.is_empty() { 0 } else { keeper.ops.end() };
        for index in 0..end {
            let Some(slot) = keeper.ops.slot(index) else { continue };
            let Some(op) = keeper.ops.get_mut(index) else { continue };
            if let End::Ack { conn: waits, message } = &mut op.end
                && *message == Some((session, id))
            {
                *waits = conn;
                return number(slot);
            }
        }
        0
    }

    /// Whether acknowledgements of a connection wait.
    pub(super) fn has_acks(&self, conn: Conn) -> bool {
        self.local.keeper.as_ref().is_some_and(|keeper| keeper.acks.contains_key(&conn))
    }

    /// Whether a connection has as many acknowledgements that wait as it may; it waits then.
    pub(super) fn has_too_many_acks(&mut self, conn: Conn) -> bool {
        let line = self.local.keeper.as_ref().and_then(|keeper| keeper.acks.get(&conn));
        let full = line.is_some_and(|acks| acks.line.len() >= PENDING_ACKS_MAX);
        if full {
            self.wait(conn, Wait::Acks);
        }
        full
    }

    /// An acknowledgement waits for an operation, and for those before it.
    pub(super) fn hold_ack(
        &mut self,
        conn: Conn,
        (kind, id): (AckKind, PacketId),
        code: ReasonCode,
        text: &str,
        op: u64,
    ) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(keeper) = &mut self.local.keeper else { return };
        let acks = keeper.acks.entry(conn).or_insert_with(|| Acks { conn: slot, line: VecDeque::new() });
        if acks.conn != slot {
            *acks = Acks { conn: slot, line: VecDeque::new() };
        }
        let text = code.is_error().then(|| text.into());
        acks.line.push_back(Ack { op, kind, id, code, text });
    }

    /// A QoS 2 message is taken: its identifier is kept where its session is.
    pub(super) fn note_incoming(&mut self, index: u32, id: PacketId) {
        let Some(keeper) = &mut self.local.keeper else { return };
        if let Some(kept) = keeper.sessions.get(&index) {
            let key = incoming_key(kept.id, id);
            let number = keeper.once.number(index, id);
            let bytes = if number == 0 { Box::default() } else { number.to_le_bytes().into() };
            keeper.once.set_sure(index, id);
            keeper.put(Change::PutMeta { key, bytes });
        }
    }

    /// The identifier of a QoS 2 message is free again.
    pub(super) fn drop_incoming(&mut self, index: u32, id: PacketId) {
        let Some(keeper) = &mut self.local.keeper else { return };
        if let Some(kept) = keeper.sessions.get(&index) {
            let key = incoming_key(kept.id, id);
            keeper.put(Change::DropMeta { key });
            keeper.end_number(index, id);
        }
    }

    /// The identifiers of QoS 2 messages that waited too long for PUBREL are free again.
    pub(super) fn drop_late(&mut self, index: u32, late: Vec<PacketId>) {
        for id in late {
            self.drop_incoming(index, id);
        }
    }

    /// Whether a QoS 2 message that comes again is to be routed again, see [`super::once`].
    pub(super) fn is_unsure(&self, index: u32, id: PacketId) -> bool {
        self.local.keeper.as_ref().is_some_and(|keeper| keeper.once.is_unsure(index, id))
    }

    /// A message that came again after a crash is refused: its identifier is free.
    pub(super) fn give_up_unsure(&mut self, index: u32, id: PacketId) {
        if !self.is_unsure(index, id) {
            return;
        }
        let incoming = self.local.sessions.get_mut(index).and_then(|s| s.incoming.as_mut());
        self.local.gauges.inflight_in -= u64::from(incoming.is_some_and(|i| i.release(id)));
        self.drop_incoming(index, id);
    }

    /// What was written here since `writes` is one part of the operation.
    pub(super) fn finish_op(
        &mut self,
        mut op: u64,
        conn: Slot,
        message: Option<(u32, PacketId)>,
        qos: QoS,
        writes: u64,
    ) -> u64 {
        let wrote = self.writes() != writes && qos != QoS::AtMostOnce;
        if op == 0 && wrote {
            op = self.begin_ack(conn, message, 1);
        }
        if op != 0 && wrote {
            self.after(After::Op(op));
        } else if op != 0 && self.op_done(op) {
            // Nobody else took part.
            op = 0;
        }
        op
    }

    /// Begins the operation that the acknowledgement of a client's message waits for, where others take part in it:
    /// shards with sessions that are kept, the one that retains it, share groups and fan-outs here. Its number, 0
    /// where there is none, those shards, and the message's number. One part is the caller's.
    pub(super) fn open_op(
        &mut self,
        origin: Origin,
        message: Option<(u32, PacketId)>,
        promised: bool,
        shards: u64,
        retained_elsewhere: bool,
    ) -> (u64, u64, u64) {
        let (Origin::Conn(conn), true, Some(keeper)) = (origin, promised, &mut self.local.keeper) else {
            return (0, 0, 0);
        };
        let durable = shards & keeper.durable;
        let parts = durable.count_ones() + u32::from(retained_elsewhere);
        let scattered = !self.router.local_picks.is_empty()
            || self.router.matches.routes.iter().map(|r| self.trie.subscribers(*r).len()).sum::<usize>()
                > self.fan_out_at_once
            || !self.fan_outs.is_empty();
        let mut number = 0;
        if let Some((session, id)) = message.filter(|(session, _)| keeper.sessions.contains_key(session)) {
            number = keeper.once.number(session, id);
            if number == 0 && (parts > 0 || scattered) {
                number = keeper.ids.issue();
                keeper.once.set_number(session, id, number);
            }
        }
        if parts == 0 && (!scattered || keeper.sessions.is_empty()) {
            return (0, 0, number);
        }
        (self.begin_ack(conn, message, parts + 1), durable, number)
    }

    /// Lets the acknowledgements leave that wait for nothing any more.
    fn release_acks(&mut self, conn: Slot) {
        while let Some(keeper) = &mut self.local.keeper
            && let Some(acks) = keeper.acks.get_mut(&conn.index).filter(|acks| acks.conn == conn)
            && acks.line.front().is_some_and(|ack| ack.op == 0)
            && let Some(ack) = acks.line.pop_front()
        {
            self.local.with_link(conn.index, |c, ctx| match &ack.text {
                Some(text) => c.link.push_ack_with(ack.kind, ack.id, ack.code, text, ctx),
                None => c.link.push_ack(ack.kind, ack.id, ack.code, ctx),
            });
        }
        let Some(keeper) = &mut self.local.keeper else { return };
        if keeper.acks.get(&conn.index).is_some_and(|acks| acks.conn == conn && acks.line.is_empty()) {
            self.forget_acks(conn.index);
        }
        self.wake_slot(conn, |w| w == Wait::Acks);
    }

    /// No acknowledgement of a connection waits any more.
    pub(super) fn forget_acks(&mut self, conn: Conn) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.acks.remove(&conn);
        }
    }
}
