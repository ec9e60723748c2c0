//! What the management thread is told of what happens here, while it listens. Nothing is kept while it does not:
//! each place that has something to tell asks one bit first.
//!
//! Packets are traced where they pass as bytes: what comes after it was handled, what goes as it is given to the
//! driver. So a connection holds nothing for it, and a shard that traces nothing pays for one predictable branch
//! per packet and per flush.

use super::publish::Origin;
use super::{Handover, Shard};
use crate::codec::{Framed, Packet, ReasonCode, decode, frame};
use crate::desk::{Batch, Happening, Kind, Reply, Watch, What};
use crate::heap::vec_bytes;
use crate::io::{Conn, Io};
use crate::limits::{EVENTS_BYTES_MAX, EVENTS_QUEUED_MAX, PACKET_BYTES_MAX};
use crate::map::Slot;
use crate::message::{MessageRef, QoS};
use crate::topic::{Filter, Topic};
use std::net::SocketAddr;

/// What is collected, and what has been.
#[derive(Default)]
pub(super) struct Watching {
    watch: Watch,
    batch: Batch,
    bytes: usize,
    waiting: Option<Reply<Box<Batch>>>,
    /// Connections of clients that are traced, also after they lost their session.
    traced: Vec<(Slot, Box<str>)>,
    tracing: bool,
}

impl Watching {
    /// Whether this kind of thing is collected.
    #[inline]
    pub fn wants(&self, kind: Kind) -> bool {
        self.watch.kinds.has(kind)
    }

    /// Whether packets are traced.
    #[inline]
    pub fn is_tracing(&self) -> bool {
        self.tracing
    }

    /// Bytes of what it keeps.
    pub fn bytes(&self) -> usize {
        let traced: usize = self.traced.iter().map(|(_, client_id)| client_id.len()).sum();
        vec_bytes::<(Slot, Box<str>)>(self.traced.capacity())
            + vec_bytes::<Happening>(self.batch.happenings.capacity())
            + self.bytes
            + traced
    }

    /// Whether this topic is traced.
    fn traces(&self, topic: &str) -> bool {
        let topic = Topic::of_checked(topic);
        self.watch.topics.iter().any(|filter| Filter::of_checked(filter).matches(topic))
    }

    /// The client that is traced on this connection.
    fn traced(&self, slot: Slot) -> Option<&str> {
        self.traced.iter().find(|(traced, _)| *traced == slot).map(|(_, client_id)| &**client_id)
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Collects this from now on.
    pub(super) fn set_watch(&mut self, watch: Watch) {
        self.give_happenings();
        let watching = &mut self.watching;
        watching.tracing = watch.traces();
        watching.watch = watch;
        watching.traced.clear();
        if watching.watch == Watch::default() {
            (watching.batch, watching.bytes) = (Batch::default(), 0);
        }
        for at in 0..self.watching.watch.clients.len() {
            let client_id = self.watching.watch.clients[at].clone();
            let session = self.client(&client_id).and_then(|index| self.local.sessions.get(index));
            let slot = session.and_then(|session| self.local.conns.slot(session.conn?));
            self.watching.traced.extend(slot.map(|slot| (slot, client_id)));
        }
    }

    /// Somebody waits for what is collected. Answered at the end of the tick.
    pub(super) fn await_happenings(&mut self, reply: Reply<Box<Batch>>) {
        self.give_happenings();
        self.watching.waiting = Some(reply);
    }

    /// The end of a tick: whoever waits gets what there is.
    #[inline]
    pub(super) fn report_happenings(&mut self) {
        if self.watching.waiting.is_some() && !self.watching.batch.happenings.is_empty() {
            self.give_happenings();
        }
    }

    fn give_happenings(&mut self) {
        if let Some(reply) = self.watching.waiting.take() {
            self.watching.bytes = 0;
            reply.send(Box::new(std::mem::take(&mut self.watching.batch)));
        }
    }

    /// Keeps what happened, where there is room.
    fn note(&mut self, client_id: &str, peer: Option<SocketAddr>, what: What) {
        let happening =
            Happening { at: self.local.now, shard: self.me, client_id: client_id.into(), peer, what };
        let watching = &mut self.watching;
        let bytes = watching.bytes + happening.bytes();
        if watching.batch.happenings.len() >= EVENTS_QUEUED_MAX || bytes > EVENTS_BYTES_MAX {
            watching.batch.dropped += 1;
            self.local.counters.events_dropped += 1;
            return;
        }
        watching.bytes = bytes;
        watching.batch.happenings.push(happening);
    }

    /// The identifier of a session's client.
    fn name(&self, index: u32) -> Box<str> {
        self.local.sessions.get(index).map_or_else(|| "".into(), |session| session.client_id.clone())
    }

    fn username(&self, index: u32) -> Option<Box<str>> {
        self.local.sessions.get(index)?.profile.as_ref()?.username.clone()
    }

    /// A client was told that it is connected.
    pub(super) fn note_connected(&mut self, conn: Conn, index: u32, session_present: bool) {
        if self.watching.is_tracing() {
            self.trace_connection(conn, index);
        }
        if !self.watching.wants(Kind::Connected) {
            return;
        }
        let Some(c) = self.local.conns.get(conn) else { return };
        let (peer, version, keep_alive_s) = (c.peer(), c.link.version, c.keep_alive_s);
        let super::connection::Asked { clean_start, bridge } = c.asked();
        let username = self.username(index);
        let what = What::Connected { username, version, keep_alive_s, clean_start, session_present, bridge };
        self.note(&self.name(index), peer, what);
    }

    /// A client's connection ended.
    pub(super) fn note_disconnected(&mut self, conn: Conn, index: u32, reason: Option<ReasonCode>) {
        if self.watching.wants(Kind::Disconnected) {
            let peer = self.local.conns.get(conn).and_then(|c| c.peer());
            let username = self.username(index);
            self.note(&self.name(index), peer, What::Disconnected { username, reason });
        }
    }

    /// A CONNECT was refused.
    pub(super) fn note_refused(&mut self, conn: Conn, code: ReasonCode, text: &str) {
        if self.watching.wants(Kind::Refused) {
            let peer = self.local.conns.get(conn).and_then(|c| c.peer());
            self.note("", peer, What::Refused { code, text: text.into() });
        }
    }

    /// A subscription was granted.
    pub(super) fn note_subscribed(&mut self, conn: Conn, index: u32, filter: &str, qos: QoS) {
        if self.watching.wants(Kind::Subscribed) {
            let peer = self.local.conns.get(conn).and_then(|c| c.peer());
            self.note(&self.name(index), peer, What::Subscribed { filter: filter.into(), qos });
        }
    }

    /// A client ended a subscription.
    pub(super) fn note_unsubscribed(&mut self, index: u32, filter: &str) {
        if self.watching.wants(Kind::Unsubscribed) {
            let peer = self.local.sessions.get(index).and_then(|s| self.local.conns.get(s.conn?)?.peer());
            self.note(&self.name(index), peer, What::Unsubscribed { filter: filter.into() });
        }
    }

    /// A session began or ended.
    pub(super) fn note_session(&mut self, index: u32, what: What) {
        if self.watching.wants(what.kind()) {
            self.note(&self.name(index), None, what);
        }
    }

    /// A connection may be one of a client that is traced.
    fn trace_connection(&mut self, conn: Conn, index: u32) {
        let (Some(slot), Some(session)) = (self.local.conns.slot(conn), self.local.sessions.get(index))
        else {
            return;
        };
        let client_id = &session.client_id;
        if self.watching.watch.clients.contains(client_id) {
            let client_id = client_id.clone();
            let conns = &self.local.conns;
            self.watching.traced.retain(|(old, _)| conns.slot(old.index) == Some(*old));
            self.watching.traced.push((slot, client_id));
        }
    }

    /// A packet came and was handled.
    pub(super) fn trace_input(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(c) = self.local.conns.get(conn) else { return };
        let (version, peer) = (c.link.version, c.peer());
        let Some(client_id) = self.watching.traced(slot).map(Box::<str>::from) else { return };
        if let Ok(packet) = decode(version, bytes) {
            self.note(&client_id, peer, described(false, &packet));
        }
    }

    /// Packets are given to the driver.
    pub(super) fn trace_output(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(c) = self.local.conns.get(conn) else { return };
        let (version, peer, session) = (c.link.version, c.peer(), c.session);
        let traced = self.watching.traced(slot).map(Box::<str>::from);
        if traced.is_none() && self.watching.watch.topics.is_empty() {
            return;
        }
        let mut rest = bytes;
        while let Ok(Framed::Packet { total, .. }) = frame(rest, PACKET_BYTES_MAX) {
            let (packet, behind) = rest.split_at(total);
            rest = behind;
            let Ok(packet) = decode(version, packet) else { continue };
            let on_topic = match &packet {
                Packet::Publish(p) => self.watching.traces(p.topic),
                _ => false,
            };
            if traced.is_some() || on_topic {
                let unnamed = || session.map_or_else(|| "".into(), |index| self.name(index));
                let client_id = traced.clone().unwrap_or_else(unnamed);
                self.note(&client_id, peer, described(true, &packet));
            }
        }
    }

    /// A message was routed: its topic may be traced.
    pub(super) fn trace_routed(&mut self, m: &MessageRef, origin: Origin) {
        if !self.watching.traces(m.topic) {
            return;
        }
        let (mut client_id, mut peer) = ("".into(), None);
        if let Origin::Conn(slot) = origin {
            // A client that is traced shows its PUBLISH itself.
            if self.watching.traced(slot).is_some() {
                return;
            }
            let c = self.local.conns.get(slot.index);
            peer = c.and_then(|c| c.peer());
            client_id = c.and_then(|c| c.session).map_or(client_id, |index| self.name(index));
        }
        let text = super::trace::message(m.head.qos, m.head.retain, m.topic, m.payload);
        let what = What::Packet { sent: false, name: "PUBLISH", topic: Some(m.topic.into()), text };
        self.note(&client_id, peer, what);
    }
}

fn described(sent: bool, packet: &Packet) -> What {
    let topic = match packet {
        Packet::Publish(p) => Some(p.topic.into()),
        _ => None,
    };
    let (name, text) = super::trace::describe(packet);
    What::Packet { sent, name, topic, text }
}
