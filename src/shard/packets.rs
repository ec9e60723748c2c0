//! From bytes to packets to handlers, and what a fault leads to.

use super::connection::{Near, Phase, Wait, label};
use super::keep::{After, incoming_key, released_key};
use super::sessions::End;
use super::{Fault, Handover, Next, Shard};
use crate::codec::{
    Ack, AckKind, DecodeError, Disconnect, Framed, Packet, PacketId, PacketType, Properties, Property,
    PropertyBuf, ReasonCode, Version,
};
use crate::codec::{decode, decode_publish, frame};
use crate::io::{Close, Conn, Io};
use crate::limits::{PENDING_KEEP_BYTES, TICK_READY_BYTES_MAX};
use crate::session::Acked;
use crate::store::Change;

/// What is said of 0x92.
const NOT_FOUND: &str = "expected the packet identifier of a message that is under way";

impl<I: Io<Handover>> Shard<I> {
    /// Bytes came.
    pub(super) fn handle_data(&mut self, conn: Conn, bytes: &[u8]) {
        let now = self.local.now;
        self.local.counters.bytes_in += bytes.len() as u64;
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if c.armed == super::Armed::Once {
            c.armed = super::Armed::Nothing;
        }
        c.note_read(now);
        c.link.traffic.received(bytes.len());
        let (full, listener) = (c.link.traffic.is_full(), c.listener);
        if full {
            self.fold_traffic(conn);
        }
        self.pace_bytes(conn, listener, bytes.len());
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if matches!(c.phase, Phase::Closing | Phase::Moving) {
            return;
        }
        let mut bytes = bytes;
        if c.phase == Phase::Proxied {
            let Some(rest) = self.take_proxy_header(conn, bytes) else { return };
            bytes = rest;
        }
        if self.local.conns.get(conn).is_some_and(|c| c.transport.is_some()) {
            return self.handle_wrapped(conn, bytes);
        }
        self.take_bytes(conn, bytes);
    }

    /// Bytes of MQTT came: decoded where they lie, what is left is kept.
    pub(super) fn take_bytes(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if c.wait != Wait::Nothing {
            c.pending.extend_from_slice(bytes);
            if c.wait == Wait::Full {
                self.take_acks_ahead(conn);
            }
            return;
        }
        let limit = self.local.options.of(c.listener).max_packet_size;
        let mut rest = bytes;
        if !c.pending.is_empty() {
            let mut pending = std::mem::take(&mut c.pending);
            rest = complete_first(&mut pending, rest, limit);
            let used = self.decode_all(conn, &pending, rest);
            let Some(c) = self.local.conns.get_mut(conn) else { return };
            if used < pending.len() {
                pending.drain(..used);
                pending.extend_from_slice(rest);
                if c.phase == Phase::Serving || c.phase == Phase::Connecting {
                    c.pending = pending;
                }
                return;
            }
            pending.clear();
            if c.wait != Wait::Nothing {
                pending.extend_from_slice(rest);
                c.pending = pending;
                return;
            }
            if pending.capacity() <= PENDING_KEEP_BYTES {
                c.pending = pending;
            }
        }
        let used = self.decode_all(conn, rest, &[]);
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if used < rest.len() && matches!(c.phase, Phase::Serving | Phase::Connecting) {
            c.pending.extend_from_slice(&rest[used..]);
        }
        if c.pending.is_empty() && c.pending.capacity() > 0 && c.wait == Wait::Nothing {
            c.pending = Vec::new();
        }
    }

    /// Takes the acknowledgements that stand behind a PUBLISH that waits for a full route: without them two
    /// clients with full queues that publish to each other, or one that publishes to itself, wait for ever.
    pub(super) fn take_acks_ahead(&mut self, conn: Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let limit = self.local.options.of(c.listener).max_packet_size;
        let (version, mut pending) = (c.link.version, std::mem::take(&mut c.pending));
        let (mut at, mut kept) = (0, 0);
        while let Ok(Framed::Packet { total, .. }) = frame(&pending[at..], limit) {
            // PUBACK, PUBREC and PUBCOMP. One that is faulty or comes out of turn is judged when it is its turn.
            let ahead = at > 0 && matches!(pending[at] >> 4, 4 | 5 | 7);
            let taken = ahead
                && match decode(version, &pending[at..at + total]) {
                    Ok(Packet::Ack(ack)) => self.handle_ack(conn, &ack).is_ok(),
                    _ => false,
                };
            if taken {
                self.local.counters.packets_in[usize::from(pending[at] >> 4)] += 1;
            } else {
                pending.copy_within(at..at + total, kept);
                kept += total;
            }
            at += total;
        }
        pending.drain(kept..at);
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.pending = pending;
        }
    }

    /// Decodes what earlier ticks left over.
    pub(super) fn run_ready(&mut self) {
        let mut bytes = 0;
        for _ in 0..self.ready.len() {
            if self.budget <= 0 || bytes > TICK_READY_BYTES_MAX {
                return;
            }
            let Some(slot) = self.ready.pop_front() else { return };
            let Some(c) = self.local.conns.at(slot) else { continue };
            if c.wait != Wait::Turn {
                continue;
            }
            c.wait = Wait::Nothing;
            bytes += c.pending.len();
            self.decode_pending(slot.index);
            self.local.count_connection(slot.index);
        }
    }

    /// Decodes what a connection has pending; then it is read again, or its end counts.
    pub(super) fn decode_pending(&mut self, conn: Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let mut pending = std::mem::take(&mut c.pending);
        let used = self.decode_all(conn, &pending, &[]);
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if !matches!(c.phase, Phase::Serving | Phase::Connecting) {
            return;
        }
        pending.drain(..used);
        if !pending.is_empty() {
            c.pending = pending;
        }
        if c.wait == Wait::Nothing && c.ended {
            self.handle_end(conn);
        } else {
            self.rearm(conn);
        }
    }

    /// Decodes and handles packets from `bytes`; returns how many bytes were consumed. `behind` is what was
    /// received behind them, for a connection that moves.
    fn decode_all(&mut self, conn: Conn, bytes: &[u8], behind: &[u8]) -> usize {
        let mut at = 0;
        let Some(c) = self.local.conns.get(conn) else { return bytes.len() };
        let limit = self.local.options.of(c.listener).max_packet_size;
        let rates = self.rates_of(conn, c.listener);
        loop {
            let rest = &bytes[at..];
            if rest.is_empty() {
                return at;
            }
            let total = match frame(rest, limit) {
                Ok(Framed::Packet { total, .. }) => total,
                Ok(Framed::Incomplete { .. }) => return at,
                Err(e) => {
                    self.local.counters.decode_errors += 1;
                    self.fault(conn, Fault::of(&e));
                    return bytes.len();
                }
            };
            if self.budget <= 0 {
                self.wait(conn, Wait::Turn);
                return at;
            }
            let publish = u32::from(rest[0] >> 4 == 3);
            if publish == 1 && rates.is_some() && self.must_pause(conn, true) {
                return at;
            }
            // Before it is handled, for a DISCONNECT counts as well.
            if let Some(c) = self.local.conns.get_mut(conn) {
                c.link.traffic.recv_pkt += 1;
                c.link.traffic.recv_msg += publish;
            }
            let next = self.handle_packet(conn, &rest[..total], &rest[total..], behind);
            // One that waits comes again and is counted then; one that moves, where it arrives.
            if !matches!(next, Ok(Next::Wait | Next::Moved)) {
                self.local.counters.packets_in[usize::from(rest[0] >> 4)] += 1;
                if let Some(rates) = rates.filter(|_| publish == 1) {
                    self.pace_message(conn, &rates);
                }
            } else if let Some(c) = self.local.conns.get_mut(conn) {
                c.link.traffic.recv_pkt -= 1;
                c.link.traffic.recv_msg -= publish;
            }
            if self.watching.is_tracing() && !matches!(next, Ok(Next::Wait | Next::Moved)) {
                self.trace_input(conn, &rest[..total]);
            }
            match next {
                Ok(Next::Go) => at += total,
                Ok(Next::After) => return at + total,
                Ok(Next::Wait) => return at,
                Ok(Next::Gone | Next::Moved) => return bytes.len(),
                Err(fault) => {
                    self.fault(conn, fault);
                    return bytes.len();
                }
            }
        }
    }

    /// A connection waits; on [`Wait::Turn`] it is on the ready list.
    pub(super) fn wait(&mut self, conn: Conn, wait: Wait) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.wait = wait;
            if wait == Wait::Turn {
                self.ready.push_back(slot);
            }
        }
    }

    fn handle_packet(&mut self, conn: Conn, bytes: &[u8], rest: &[u8], behind: &[u8]) -> Result<Next, Fault> {
        self.budget -= 1;
        let now = self.local.now;
        let Some(c) = self.local.conns.get_mut(conn) else { return Ok(Next::Gone) };
        if c.phase != Phase::Serving && c.phase != Phase::Connecting {
            return Ok(Next::Gone);
        }
        if !c.link.has_output_room(self.local.options.of(c.listener)) {
            c.wait = Wait::Output;
            return Ok(Next::Wait);
        }
        c.last_packet = Near::new(now);
        let (version, connecting) = (c.link.version, c.phase == Phase::Connecting);
        // By far the most frequent one, and smaller by itself than as one of all.
        if bytes[0] >> 4 == PacketType::Publish as u8 && !connecting {
            let p = decode_publish(version, bytes).map_err(|e| self.malformed(&e))?;
            return self.handle_publish(conn, &p);
        }
        let packet = decode(version, bytes).map_err(|e| self.malformed(&e))?;
        if connecting {
            if let Some(next) = self.continue_connect(conn, &packet, rest, behind) {
                return next;
            }
            return match packet {
                Packet::Connect(connect) => self.handle_connect(conn, &connect, bytes, rest, behind),
                _ => Err(Fault::new(ReasonCode::PROTOCOL_ERROR, "expected CONNECT as the first packet")),
            };
        }
        match packet {
            Packet::Ack(a) => self.handle_ack(conn, &a),
            Packet::PingReq => {
                Ok(self.after_announcements(conn, |link, ctx| link.push(&Packet::PingResp, ctx)))
            }
            Packet::Subscribe(s) => self.handle_subscribe(conn, &s),
            Packet::Unsubscribe(u) => self.handle_unsubscribe(conn, &u),
            Packet::Disconnect(d) => self.handle_disconnect(conn, &d),
            Packet::Connect(_) => {
                Err(Fault::new(ReasonCode::PROTOCOL_ERROR, "expected one CONNECT, got a second"))
            }
            Packet::Auth(auth) => self.handle_auth(conn, &auth),
            // Told apart above.
            Packet::Publish(p) => self.handle_publish(conn, &p),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => Err(
                Fault::new(ReasonCode::PROTOCOL_ERROR, "expected a packet of a client, got one of a server"),
            ),
        }
    }

    #[cold]
    fn malformed(&mut self, e: &DecodeError) -> Fault {
        self.local.counters.decode_errors += 1;
        Fault::of(e)
    }

    fn handle_ack(&mut self, conn: Conn, ack: &Ack) -> Result<Next, Fault> {
        let Some(index) = self.local.conns.get(conn).and_then(|c| c.session) else { return Ok(Next::Gone) };
        let id = ack.packet_id;
        if ack.kind == AckKind::PubRel {
            if self.has_too_many_acks(conn) {
                return Ok(Next::Wait);
            }
            if self.is_busy_for(index)
                && let Some(slot) = self.local.conns.slot(conn)
            {
                return Ok(self.wait_unclogged(slot));
            }
            if self.forget_incoming(conn, index, id) {
                return Ok(Next::Go);
            }
            self.local.with_session(index, |session, c, ctx| {
                let known = session.incoming.as_mut().is_some_and(|i| i.release(id));
                ctx.gauges.inflight_in -= u64::from(known);
                ctx.counters.acks_unknown[PacketType::PubRel as usize] += u64::from(!known);
                let Some(c) = c else { return };
                if known || c.link.version < Version::V5 {
                    c.link.push_ack(AckKind::PubComp, id, ReasonCode::SUCCESS, ctx);
                } else {
                    c.link.push_ack_with(
                        AckKind::PubComp,
                        id,
                        ReasonCode::PACKET_ID_NOT_FOUND,
                        NOT_FOUND,
                        ctx,
                    );
                }
            });
            return Ok(Next::Go);
        }
        let acked = self.local.with_session(index, |session, c, ctx| {
            let acked = session
                .outgoing
                .as_mut()
                .map_or(Acked::Unknown, |o| o.handle_ack(ack.kind, id, ack.code, ctx));
            if acked == Acked::Unknown {
                ctx.counters.acks_unknown[PacketType::from(ack.kind) as usize] += 1;
            }
            let Some(c) = c else { return acked };
            match acked {
                Acked::Done => session.pump(&mut c.link, ctx),
                Acked::Release => c.link.push_ack(AckKind::PubRel, id, ReasonCode::SUCCESS, ctx),
                Acked::Unknown if ack.kind == AckKind::PubRec => {
                    if ack.code.is_error() {
                        return acked;
                    }
                    if c.link.version < Version::V5 {
                        c.link.push_ack(AckKind::PubRel, id, ReasonCode::SUCCESS, ctx);
                    } else {
                        c.link.push_ack_with(
                            AckKind::PubRel,
                            id,
                            ReasonCode::PACKET_ID_NOT_FOUND,
                            NOT_FOUND,
                            ctx,
                        );
                    }
                }
                Acked::Unknown | Acked::Mismatch | Acked::Note(_) => {}
            }
            acked
        });
        match acked {
            Some(Acked::Mismatch) => {
                let text = format!("expected the next step of packet identifier {id}, got {:?}", ack.kind);
                Err(Fault::new(ReasonCode::PROTOCOL_ERROR, text))
            }
            Some(Acked::Done) => {
                self.note_queue(index);
                Ok(Next::Go)
            }
            Some(Acked::Note(seq)) => {
                self.note_released(index, id, seq);
                Ok(Next::Go)
            }
            _ => Ok(Next::Go),
        }
    }

    /// PUBREL for a message whose identifier is kept on the disk: PUBCOMP waits until it is not.
    fn forget_incoming(&mut self, conn: Conn, index: u32, id: PacketId) -> bool {
        let Some(keeper) = &mut self.local.keeper else { return false };
        let (Some(kept), Some(slot)) = (keeper.sessions.get(&index), self.local.conns.slot(conn)) else {
            return false;
        };
        let queue = kept.id;
        let session = self.local.sessions.get_mut(index);
        if !session.and_then(|s| s.incoming.as_mut()).is_some_and(|i| i.release(id)) {
            return false;
        }
        self.local.gauges.inflight_in -= 1;
        keeper.put(Change::DropMeta { key: incoming_key(queue, id) });
        keeper.end_number(index, id);
        let op = self.begin_ack(slot, None, 1);
        self.after(After::Op(op));
        self.hold_ack(conn, (AckKind::PubComp, id), ReasonCode::SUCCESS, "", op);
        true
    }

    /// PUBREC came for a stored message: that is noted, then PUBREL leaves.
    fn note_released(&mut self, index: u32, id: PacketId, seq: u64) {
        let Some(keeper) = &mut self.local.keeper else { return };
        let (Some(kept), Some(session)) = (keeper.sessions.get(&index), self.local.sessions.slot(index))
        else {
            return;
        };
        let key = released_key(kept.id, seq);
        keeper.put(Change::PutMeta { key, bytes: Box::default() });
        keeper.after(After::Release { session, id, seq });
    }

    fn handle_disconnect(&mut self, conn: Conn, d: &Disconnect) -> Result<Next, Fault> {
        let Some(index) = self.local.conns.get(conn).and_then(|c| c.session) else { return Ok(Next::Gone) };
        let expiry_max_s =
            self.local.conns.get(conn).map_or(0, |c| self.local.options.of(c.listener).session_expiry_max_s);
        for property in d.properties.iter() {
            let Property::SessionExpiryInterval(s) = property else { continue };
            // Where the operator allows 0 alone, it may have been another one in CONNECT.
            let s = s.min(expiry_max_s);
            if s != 0 && self.local.sessions.get(index).is_some_and(|session| session.expiry_s == 0) {
                let text = "expected Session Expiry Interval 0 as in CONNECT";
                return Err(Fault::new(ReasonCode::PROTOCOL_ERROR, text)); // [MQTT-3.14.2-2]
            }
            self.set_expiry(index, s);
        }
        let end = if d.code == ReasonCode::SUCCESS { End::Normal } else { End::Lost };
        self.lose_connection(conn, end, Some(d.code));
        self.shut_gently(conn);
        Ok(Next::Gone)
    }

    /// Ends a connection for a fault of its peer, and says why where the protocol has a way to.
    pub(super) fn fault(&mut self, conn: Conn, fault: Fault) {
        let Some(c) = self.local.conns.get(conn) else { return };
        let (phase, peer) = (c.phase, c.peer());
        if self.may_log() {
            tracing::info!(code = %fault.code, "{} is closed: {}", label(conn, peer), fault.text);
        }
        match phase {
            Phase::Serving => {
                // A second CONNECT can be wrong in ways that only CONNACK has a code for.
                let sayable = fault.code.is_allowed_in(PacketType::Disconnect);
                let code = if sayable { fault.code } else { ReasonCode::PROTOCOL_ERROR };
                self.disconnect(conn, code, &fault.text, End::Lost);
            }
            Phase::Connecting => self.refuse_malformed(conn, &fault),
            Phase::Proxied | Phase::Closing | Phase::Moving => {}
        }
    }

    /// Tells a 5.0 client why, then closes.
    pub(super) fn disconnect(&mut self, conn: Conn, code: ReasonCode, text: &str, end: End) {
        self.local.with_link(conn, |c, ctx| {
            if c.phase != Phase::Serving || c.link.version < Version::V5 {
                return;
            }
            let mut p = PropertyBuf::new();
            if c.link.problem_information && !text.is_empty() {
                p.push(Property::ReasonString(text));
            }
            if code == ReasonCode::USE_ANOTHER_SERVER {
                p.push(Property::ServerReference(&ctx.options.server_reference));
            }
            let disconnect = |properties| Packet::Disconnect(Disconnect { code, properties });
            // Its CONNACK had room for more than this one without properties.
            c.link.push_first(&[disconnect(p.as_properties()), disconnect(Properties::EMPTY)], ctx);
        });
        self.lose_connection(conn, end, Some(code));
        self.say_close(conn, code);
        self.shut_gently(conn);
    }

    /// Writes an answer: at once where all announcements are in the peers' rings, else once they are.
    pub(super) fn after_announcements(
        &mut self,
        conn: Conn,
        write: impl FnOnce(&mut crate::session::Link, &mut crate::session::Ctx),
    ) -> Next {
        self.announce_groups();
        let mark = self.mesh.mark();
        let held = self.mesh.flushed() < mark;
        let bytes = self.local.with_link(conn, |c, ctx| {
            if !held {
                write(&mut c.link, ctx);
                return Vec::new();
            }
            let before = std::mem::take(&mut c.link.out);
            write(&mut c.link, ctx);
            c.wait = Wait::Mark;
            std::mem::replace(&mut c.link.out, before)
        });
        let (true, Some(bytes), Some(slot)) = (held, bytes, self.local.conns.slot(conn)) else {
            return Next::Go;
        };
        self.held.push_back(super::Held { mark, conn: slot, bytes });
        Next::After
    }

    /// Writes an answer about a session: as [`Shard::after_announcements`], and where the session is kept, once
    /// what changed is on the disk.
    pub(super) fn after_commit(
        &mut self,
        conn: Conn,
        index: u32,
        write: impl FnOnce(&mut crate::session::Link, &mut crate::session::Ctx),
    ) -> Next {
        let kept = self.local.keeper.as_ref().is_some_and(|keeper| keeper.sessions.contains_key(&index));
        let Some(slot) = self.local.conns.slot(conn).filter(|_| kept) else {
            return self.after_announcements(conn, write);
        };
        self.announce_groups();
        let mark = self.mesh.mark();
        let bytes = self.local.with_link(conn, |c, ctx| {
            let before = std::mem::take(&mut c.link.out);
            write(&mut c.link, ctx);
            c.wait = Wait::Mark;
            std::mem::replace(&mut c.link.out, before)
        });
        self.after(After::Answer { conn: slot, mark, bytes: bytes.unwrap_or_default() });
        Next::After
    }

    /// Does something once the batch of this tick is on the disk.
    pub(super) fn after(&mut self, after: After) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.after(after);
        }
    }

    /// Releases answers whose announcements have left the overflow.
    pub(super) fn release_held(&mut self) {
        let flushed = self.mesh.flushed();
        while self.held.front().is_some_and(|h| h.mark <= flushed) {
            let Some(held) = self.held.pop_front() else { return };
            // After DISCONNECT nothing may follow [MQTT-3.14.4-1 of 5.0].
            if self.local.conns.at(held.conn).is_none_or(|c| c.phase != Phase::Serving) {
                continue;
            }
            self.local.with_link(held.conn.index, |c, _| c.link.out.extend_from_slice(&held.bytes));
            self.wake_slot(held.conn, |w| w == Wait::Mark);
        }
    }

    /// Closes without a word: the peer spoke no MQTT that could be answered.
    pub(super) fn close_silently(&mut self, conn: Conn) {
        if self.local.conns.get(conn).is_some_and(|c| c.transport.is_some()) {
            self.say_close(conn, ReasonCode::PROTOCOL_ERROR);
            return self.shut_gently(conn);
        }
        self.shut(conn, Close::Reset);
    }
}

/// Moves bytes from `rest` to `pending` until its first packet is complete; returns what is left.
fn complete_first<'a>(pending: &mut Vec<u8>, mut rest: &'a [u8], limit: u32) -> &'a [u8] {
    while let (false, Ok(Framed::Incomplete { total })) = (rest.is_empty(), frame(pending, limit)) {
        let wanted = total.map_or(1, |t| t - pending.len()).min(rest.len());
        let (now, later) = rest.split_at(wanted);
        pending.extend_from_slice(now);
        rest = later;
    }
    rest
}
