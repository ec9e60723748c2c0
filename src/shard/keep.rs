//! What outlives the process: sessions that do not end with their connection, what is queued for them, and what is
//! retained. What a tick changes of it goes to the store as one batch; what may be said only once that is on the
//! disk waits here for the store's answer.
//!
//! - CONNACK holds back all output of its connection; SUBACK and UNSUBACK wait by themselves.
//! - PUBACK, PUBREC and PUBCOMP wait in one line per connection, see [`super::acks`].
//! - A QoS 2 PUBLISH to a client waits: its packet identifier follows from its place in the stored queue, so it is
//!   the same after a crash, which no other message can be given once the place is on the disk. That costs no second
//!   write when the message is sent. PUBREL waits until it is noted that PUBREC came.
//! - A QoS 1 PUBLISH to a client waits for nothing. That its client has it is written some time later; after a crash
//!   it may come again, with DUP.
//!
//! Invariants: a batch is handed over before what it caused is visible to other shards; whatever waits for a batch
//! happens in the order in which it was put.

use super::acks::{Acks, Op};
use super::local::Terms;
use super::obstacle::{Inquiries, Obstacle, Shelf};
use super::once::Once;
use super::{Handover, Shard};
use crate::codec::PacketId;
use crate::heap::{map_bytes, vec_bytes};
use crate::io::{Conn, Io, ShardId};
use crate::map::{Map, Slab, Slot};
use crate::mesh::Control;
use crate::message::{Message, QoS};
use crate::record::{Day, SessionRecord, SubscriptionRecord, WillRecord, encode_entry, encode_message};
use crate::session::{Carried, Ids as SubscriptionIds, Session, Stored};
use crate::stats::Source;
use crate::store::{Answer, Change, Ids, Link, State};
use crate::time::Moment;
use crate::trie::Trie;
use std::collections::VecDeque;

/// The disk, as one shard has it.
pub(super) struct Keeper {
    link: Link,
    pub(super) ids: Ids,
    day: Day,
    pub(super) once: Once,
    /// Sessions that are kept, by index.
    pub(super) sessions: Map<u32, Kept>,
    /// What this tick has queued.
    pushes: Vec<Push>,
    /// Sessions that this tick has changed.
    dirty: Vec<u32>,
    /// What waits for the batch of this tick.
    fresh: Vec<After>,
    /// What waits for the batches before it, with their numbers.
    after: VecDeque<(u64, After)>,
    pub(super) ops: Slab<Op>,
    pub(super) acks: Map<Conn, Acks>,
    /// Connections that wait until the store takes more.
    pub(super) clogged: Vec<Slot>,
    /// Messages of which others are asked whether they are to be kept.
    pub(super) inquiries: Inquiries,
    pub(super) shelf: Shelf,
    /// Tickets of other shards that may be answered, by shard.
    settled: Vec<Vec<u64>>,
    /// Other shards with sessions that are kept, as bits.
    pub(super) durable: u64,
    /// The other shards know that this one has any.
    announced: bool,
    /// Counts up with each thing that is to be written.
    pub(super) writes: u64,
}

/// A session that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its identity in the store.
    pub id: u64,
    /// The place of the next message that is queued for it.
    pub next_seq: u64,
    dirty: bool,
}

impl Kept {
    pub fn new(id: u64, next_seq: u64) -> Kept {
        Kept { id, next_seq, dirty: false }
    }
}

/// A message for one session.
struct Push {
    session: u32,
    queue: u64,
    seq: u64,
    message: Message,
    qos: QoS,
    retain: bool,
    ids: SubscriptionIds,
    source: Source,
}

/// What happens once a batch is on the disk.
pub(super) enum After {
    /// One thing less that this operation waits for.
    Op(u64),
    /// Another shard is told.
    Settle(ShardId, u64),
    /// An answer leaves, if the announcements up to this mark have.
    Answer { conn: Slot, mark: u64, bytes: Vec<u8> },
    /// The output of a connection leaves.
    Open(Slot),
    /// QoS 2 messages up to a place may be sent.
    Gate { session: Slot, seq: u64 },
    /// The management thread is answered.
    Tell(Box<dyn FnOnce() + Send>),
    /// PUBREL may be sent for the message at a place.
    Release { session: Slot, id: PacketId, seq: u64 },
}

/// The name of the note that a packet identifier of a client is taken.
pub(super) fn incoming_key(queue: u64, id: PacketId) -> Box<str> {
    format!("i{queue:x}.{}", id.get()).into()
}

/// The name of the note that a message is released.
pub(super) fn released_key(queue: u64, seq: u64) -> Box<str> {
    format!("r{queue:x}.{seq:x}").into()
}

/// The name of the note that a message was moved from a place of a queue into another one.
fn moved_key((queue, seq): (u64, u64)) -> Box<str> {
    format!("m{queue:x}.{seq:x}").into()
}

impl Keeper {
    pub fn new(link: Link, ids: Ids, day: Day, shards: usize) -> Keeper {
        Keeper {
            link,
            ids,
            day,
            once: Once::default(),
            sessions: Map::default(),
            pushes: Vec::new(),
            dirty: Vec::new(),
            fresh: Vec::new(),
            after: VecDeque::new(),
            ops: Slab::default(),
            acks: Map::default(),
            clogged: Vec::new(),
            inquiries: Inquiries::default(),
            shelf: Shelf::default(),
            settled: vec![Vec::new(); shards],
            durable: 0,
            announced: false,
            writes: 0,
        }
    }

    /// Why the store does not write.
    pub fn fault(&self) -> Option<Box<str>> {
        match self.link.state() {
            State::Ok => None,
            State::ReadOnly { why } => Some(why.clone()),
        }
    }

    /// Whether the shard may sleep as far as the store is concerned.
    pub fn is_quiet(&self) -> bool {
        self.link.is_quiet()
    }

    /// Whether all that was changed is on the disk.
    pub fn is_written(&self) -> bool {
        self.link.is_settled() && self.pushes.is_empty() && self.dirty.is_empty() && self.fresh.is_empty()
    }

    /// Whether nothing waits for the store.
    pub fn is_settled(&self) -> bool {
        self.after.is_empty() && self.ops.is_empty() && self.acks.is_empty()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        map_bytes::<u32, Kept>(self.sessions.capacity())
            + vec_bytes::<Push>(self.pushes.capacity())
            + vec_bytes::<(u64, After)>(self.after.capacity())
            + self.ops.bytes()
            + self.inquiries.bytes()
            + self.shelf.bytes()
            + self.link.waiting_bytes()
    }

    /// Puts a change into the batch of this tick.
    pub fn put(&mut self, change: Change) {
        self.writes += 1;
        self.link.put(change);
    }

    /// Does something once the batch of this tick is on the disk.
    pub fn after(&mut self, after: After) {
        self.fresh.push(after);
    }

    /// Another shard's ticket may be answered.
    pub fn settle(&mut self, to: ShardId, ticket: u64) {
        if ticket != 0 {
            self.settled[usize::from(to)].push(ticket);
        }
    }

    /// A message is queued for a session; its queue and its place there, (0, 0) where it is not kept.
    pub fn push(&mut self, index: u32, carried: &mut Carried, terms: &Terms, source: Source) -> (u64, u64) {
        let Some(kept) = self.sessions.get_mut(&index) else { return (0, 0) };
        let (queue, seq) = (kept.id, kept.next_seq);
        self.once.note(queue);
        kept.next_seq += 1;
        self.writes += 1;
        self.pushes.push(Push {
            session: index,
            queue,
            seq,
            message: carried.share(),
            qos: terms.qos,
            retain: terms.retain,
            ids: SubscriptionIds::new(terms.ids),
            source,
        });
        (queue, seq)
    }

    /// Whether a session has the message that is delivered, from before a crash.
    pub fn has(&self, index: u32) -> bool {
        self.sessions.get(&index).is_some_and(|kept| self.once.has(kept.id))
    }

    /// Whoever took over a stored message has stored it: it leaves its old queue, and nobody needs the note of that.
    pub fn end_move(&mut self, from: (u64, u64)) {
        self.put(Change::Pop { queue: from.0, seq: from.1 });
        self.put(Change::DropMeta { key: moved_key(from) });
    }

    /// A session has changed.
    pub fn touch(&mut self, index: u32) {
        if let Some(kept) = self.sessions.get_mut(&index)
            && !kept.dirty
        {
            kept.dirty = true;
            self.writes += 1;
            self.dirty.push(index);
        }
    }

    /// The first place of a queue in this run. Places rise for as long as a queue lives: one that was given before a
    /// crash is not given again, for a client may remember the packet identifier that followed from it.
    pub fn first_seq(&self) -> u64 {
        (self.ids.start() << 40) + 1
    }

    /// A session is kept from now on.
    fn keep(&mut self, index: u32) {
        let (id, first) = (self.ids.issue(), self.first_seq());
        self.sessions.insert(index, Kept::new(id, first));
        self.touch(index);
    }

    /// A session is kept no longer.
    pub fn forget(&mut self, index: u32, session: &mut Session) {
        let Some(kept) = self.sessions.remove(&index) else { return };
        let id = kept.id;
        if !self.pushes.is_empty() {
            self.pushes.retain(|push| push.queue != id);
        }
        for pid in session.incoming.iter().flat_map(|i| i.ids()) {
            self.end_number(index, pid);
        }
        let incoming = session.incoming.iter().flat_map(|i| i.ids()).map(|pid| incoming_key(id, pid));
        let released = session.outgoing.iter().flat_map(|o| o.released()).map(|seq| released_key(id, seq));
        let notes: Vec<Box<str>> = incoming.chain(released).collect();
        notes.into_iter().for_each(|key| self.put(Change::DropMeta { key }));
        self.put(Change::DropSession { id });
        if let Some(outgoing) = &mut session.outgoing {
            outgoing.forget_store();
        }
    }

    pub fn set_retained(&mut self, message: &Message) {
        let m = message.view();
        self.put(Change::SetRetained { topic: m.topic.into(), bytes: encode_message(&m, self.day) });
    }

    /// Writes the sessions that this tick has changed.
    fn write_sessions(&mut self, sessions: &Slab<Session>, trie: &Trie) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Some(kept) = self.sessions.get_mut(&index) else { continue };
            // One that has ended and come again within the tick stands here twice.
            if !std::mem::take(&mut kept.dirty) {
                continue;
            }
            let id = kept.id;
            let Some(session) = sessions.get(index) else { continue };
            let bytes = record(session, index, trie, self.day).encode(self.day);
            self.link.put(Change::PutSession { id, bytes });
        }
        self.dirty = dirty;
    }

    /// Writes what this tick has queued: a message for several sessions once.
    fn write_pushes(&mut self, sessions: &Slab<Session>) {
        let mut pushes = std::mem::take(&mut self.pushes);
        let day = self.day;
        let mut gates: Vec<(u32, u64)> = Vec::new();
        for same in pushes.chunk_by(|a, b| a.message.is(&b.message)) {
            let mut body = None;
            if let [first, _, ..] = same {
                let id = self.ids.issue();
                body = Some(id);
                let bytes = encode_message(&first.message.view(), day);
                self.link.put(Change::PutBody { id, bytes });
            }
            for push in same {
                let view = push.message.view();
                let message = body.is_none().then_some(&view);
                let ids = push.ids.as_slice();
                let bytes = encode_entry(message, push.qos, push.retain, ids, push.source, day);
                self.link.put(Change::Push { queue: push.queue, seq: push.seq, body, bytes });
                if push.qos == QoS::ExactlyOnce {
                    gates.push((push.session, push.seq));
                }
            }
        }
        pushes.clear();
        self.pushes = pushes;
        gates.sort_unstable_by_key(|(session, seq)| (*session, std::cmp::Reverse(*seq)));
        gates.dedup_by_key(|(session, _)| *session);
        for (session, seq) in gates {
            let session = sessions.slot(session);
            self.fresh.extend(session.map(|session| After::Gate { session, seq }));
        }
    }

    /// Hands over what this tick wrote.
    fn flush(&mut self, sessions: &Slab<Session>, trie: &Trie, done: &mut Vec<Stored>) {
        self.write_sessions(sessions, trie);
        self.write_pushes(sessions);
        for Stored { queue, seq, released } in done.drain(..) {
            self.link.put(Change::Pop { queue, seq });
            if released {
                self.link.put(Change::DropMeta { key: released_key(queue, seq) });
            }
        }
        let ticket = self.link.ticket();
        self.after.extend(self.fresh.drain(..).map(|after| (ticket, after)));
        self.link.flush();
    }

    /// What is in the way of what is to be kept. Where nothing is, what this tick writes is handed over at its end:
    /// before other shards see what it caused.
    pub fn obstacle(&mut self) -> Option<Obstacle> {
        match self.link.state() {
            State::ReadOnly { .. } => Some(Obstacle::ReadOnly),
            State::Ok => (!self.link.has_room()).then_some(Obstacle::Busy),
        }
    }

    /// What waits for batches that are not on the disk.
    pub fn waiting(&self) -> impl Iterator<Item = &After> {
        let committed = self.link.committed();
        let after = self.after.iter().filter(move |(ticket, _)| *ticket > committed);
        after.map(|(_, after)| after).chain(&self.fresh)
    }

    /// Takes the answers to the management thread that wait.
    pub fn take_told(&mut self) -> Vec<After> {
        let tells = |after: &After| matches!(after, After::Tell(_));
        let all = std::mem::take(&mut self.after).into_iter();
        let (told, rest): (Vec<_>, Vec<_>) = all.partition(|(_, after)| tells(after));
        self.after = rest.into();
        let fresh = self.fresh.extract_if(.., |after| tells(after));
        told.into_iter().map(|(_, after)| after).chain(fresh).collect()
    }

    /// Whether all that was to be written so far is with the store.
    fn is_handed_over(&self) -> bool {
        self.link.waiting_bytes() == 0
    }
}

/// All of a session but its queue.
fn record(session: &Session, index: u32, trie: &Trie, day: Day) -> SessionRecord {
    let away = session.conn.is_none();
    let known = |moment: Moment| (away && moment != Moment::NEVER).then(|| day.wall_ms(moment));
    let described = session.subscriptions.as_slice().iter().filter_map(|sub| trie.describe(*sub, index));
    let subscriptions = described.map(|(filter, group, sub)| SubscriptionRecord {
        filter: match group {
            None => filter.into(),
            Some(group) => format!("$share/{group}/{filter}").into(),
        },
        options: sub.options,
        id: sub.id,
    });
    SessionRecord {
        client_id: session.client_id.clone(),
        username: session.profile.as_ref().and_then(|p| p.username.clone()),
        expiry_s: session.expiry_s,
        ends_ms: known(session.ends_at),
        created_ms: day.wall_ms(Moment(u64::from(session.created_s) * 1_000)),
        subscriptions: subscriptions.collect(),
        will: session.will.as_ref().map(|will| WillRecord {
            message: will.kept().clone(),
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_ms: known(will.due),
        }),
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// A session is kept on the disk, or is not any longer, as its expiry says.
    pub(super) fn keep_session(&mut self, index: u32) {
        let Some(keeper) = &mut self.local.keeper else { return };
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        match (session.expiry_s > 0 && !session.ended, keeper.sessions.contains_key(&index)) {
            (true, true) => keeper.touch(index),
            (true, false) => {
                keeper.keep(index);
                self.announce_durable();
            }
            (false, true) => keeper.forget(index, session),
            (false, false) => {}
        }
    }

    /// The other shards are told, once, that there are sessions here that are kept.
    pub(super) fn announce_durable(&mut self) {
        if let Some(keeper) = &mut self.local.keeper
            && !std::mem::replace(&mut keeper.announced, true)
        {
            self.mesh.broadcast(|| Control::Durable);
        }
    }

    /// A session has changed.
    pub(super) fn touch_session(&mut self, index: u32) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.touch(index);
        }
    }

    /// What is stored here now may be in another queue still, which a crash would leave it in: noted with it.
    pub(super) fn note_moved(&mut self, from: (u64, u64)) {
        if let (Some(keeper), true) = (&mut self.local.keeper, from != (0, 0)) {
            keeper.put(Change::PutMeta { key: moved_key(from), bytes: Box::default() });
        }
    }

    /// What is to be written so far, to be compared later.
    pub(super) fn writes(&self) -> u64 {
        self.local.keeper.as_ref().map_or(0, |keeper| keeper.writes)
    }

    /// Takes what the store answered.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.local.keeper.as_mut().and_then(|keeper| keeper.link.next_answer()) {
            if let Answer::State(state) = answer {
                match *state {
                    State::Ok => tracing::info!(shard = self.me, "the store writes again"),
                    State::ReadOnly { why } => {
                        tracing::error!(shard = self.me, "the store is read-only: {why}");
                        self.end_unanswered();
                    }
                }
            }
        }
        self.settle_store();
    }

    /// Hands what this tick wrote to the store, and answers other shards.
    pub(super) fn flush_store(&mut self) {
        let Some(keeper) = &mut self.local.keeper else { return };
        keeper.flush(&self.local.sessions, &self.trie, &mut self.local.done);
        self.settle_store();
        self.wake_clogged();
        let Some(keeper) = &mut self.local.keeper else { return };
        if keeper.is_handed_over() {
            // What others drop for it is not to be on the disk before what was written here.
            self.tell_done();
        }
        let Some(keeper) = &mut self.local.keeper else { return };
        for (to, tickets) in keeper.settled.iter_mut().enumerate() {
            if !tickets.is_empty() {
                let tickets = std::mem::take(tickets).into_boxed_slice();
                self.mesh.control(to as ShardId, Control::Settled(tickets));
            }
        }
    }

    /// Does what waited for batches that are on the disk.
    fn settle_store(&mut self) {
        while let Some(keeper) = &mut self.local.keeper
            && let Some((ticket, _)) = keeper.after.front()
            && *ticket <= keeper.link.committed()
            && let Some((_, after)) = keeper.after.pop_front()
        {
            self.happen(after);
        }
    }

    pub(super) fn happen(&mut self, after: After) {
        match after {
            After::Op(op) => {
                self.op_done(op);
            }
            After::Tell(answer) => answer(),
            After::Settle(to, ticket) => self.local.keeper.iter_mut().for_each(|k| k.settle(to, ticket)),
            After::Answer { conn, mark, bytes } => self.held.push_back(super::Held { mark, conn, bytes }),
            After::Open(slot) => {
                let Some(c) = self.local.conns.at(slot) else { return };
                c.closed = false;
                self.local.with_link(slot.index, |_, _| ());
            }
            After::Gate { session, seq } => {
                let Some(found) = self.local.sessions.at(session) else { return };
                if let Some(outgoing) = &mut found.outgoing {
                    outgoing.open_gate(seq);
                    self.pump_session(session.index);
                }
            }
            After::Release { session, id, seq } => {
                if self.local.sessions.at(session).is_none() {
                    return;
                }
                self.local.with_session(session.index, |session, c, ctx| {
                    let released = session.outgoing.as_mut().is_some_and(|o| o.release(seq));
                    if let Some(c) = c.filter(|_| released) {
                        c.link.push_ack(
                            crate::codec::AckKind::PubRel,
                            id,
                            crate::codec::ReasonCode::SUCCESS,
                            ctx,
                        );
                    }
                });
            }
        }
    }
}
