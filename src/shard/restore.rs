//! What an earlier run of the broker kept: read from the store, and given to the shards as many as there are now.

use super::keep::{Keeper, Kept};
use super::once::Taken;
use super::{Handover, Shard};
use crate::auth::Ban;
use crate::codec::PacketId;
use crate::io::Io;
use crate::map::{Keyed, Map};
use crate::mesh::Control;
use crate::message::Message;
use crate::record::{BAN_KEY, Day, EntryRecord, SessionRecord, decode_ban, decode_entry, decode_message};
use crate::session::{Delivery, Ids as SubscriptionIds, Incoming, Outgoing, Session, StoredWill, next_place};
use crate::stats::Gauges;
use crate::store::{self, BodyId, Change, Engine, Entries, Fault, Ids, Link, Read, SessionId};
use crate::time::Moment;
use crate::topic::parse_subscription;
use crate::trie::Sub;
use std::sync::Arc;

/// Entries and bytes of a queue that are read at once at the start.
const READ: (u32, u32) = (4_096, 4 << 20);

/// The disk, for one shard.
#[derive(Debug)]
pub struct Disk {
    /// The shard's end of the store.
    pub link: Link,
    /// Identities that are this shard's to give.
    pub ids: Ids,
    /// The time of day at which the shards' clock was 0.
    pub day: Day,
    /// What is at home on this shard.
    pub restored: Restored,
}

/// What was kept of what is at home on one shard.
#[derive(Debug, Default)]
pub struct Restored {
    /// Sessions.
    pub sessions: Vec<RestoredSession>,
    /// Retained messages.
    pub retained: Vec<Message>,
    /// Bans, and until when they hold: all of them.
    pub bans: Vec<(Arc<Ban>, Moment)>,
    /// QoS 2 messages that may come again: who has them.
    pub taken: Arc<Taken>,
    /// What nobody needs any more.
    pub garbage: Vec<Change>,
}

/// A session that was kept.
#[derive(Debug)]
pub struct RestoredSession {
    /// Its identity in the store.
    pub id: SessionId,
    /// All of it but its queue.
    pub record: SessionRecord,
    /// Its queue: places, and what is there.
    pub entries: Vec<(u64, EntryRecord)>,
    /// Places of messages that its client has, and waits for PUBREL of.
    pub released: Vec<u64>,
    /// Packet identifiers of QoS 2 messages of its client that wait for PUBREL, and their numbers, 0 = none.
    pub incoming: Vec<(PacketId, u64)>,
}

/// Reads all that is kept, for so many shards. What is damaged is left out, and said so.
///
/// # Errors
/// When the store cannot be read.
pub fn load(
    engine: &mut impl Engine,
    day: Day,
    keyed: &Keyed,
    shards: usize,
) -> Result<Vec<Restored>, Fault> {
    let mut all: Vec<Restored> = (0..shards).map(|_| Restored::default()).collect();
    let mut sessions: Map<SessionId, RestoredSession> = Map::default();
    let mut notes: Vec<(Box<str>, Box<[u8]>)> = Vec::new();
    let mut queues: Vec<SessionId> = Vec::new();
    let mut bans: Vec<(Arc<Ban>, Moment)> = Vec::new();
    engine.scan(&mut |kept| match kept {
        store::Kept::Session { id, bytes } => match SessionRecord::decode(bytes, day) {
            Ok(record) => {
                let (entries, released, incoming) = Default::default();
                sessions.insert(id, RestoredSession { id, record, entries, released, incoming });
            }
            Err(e) => tracing::error!("session {id:x} is lost: {e}"),
        },
        store::Kept::Queue(row) => queues.push(row.queue),
        store::Kept::Retained { topic, bytes } => match decode_message(bytes, day) {
            Ok(message) => all[keyed.home(topic, shards)].retained.push(message),
            Err(e) => tracing::error!("the retained message of {topic} is lost: {e}"),
        },
        store::Kept::Meta { key, bytes } if key.starts_with(['i', 'r', 't', 'm']) => {
            notes.push((key.into(), bytes.into()));
        }
        store::Kept::Meta { key, bytes } if key.starts_with(BAN_KEY) => match decode_ban(key, bytes) {
            Ok(ban) => bans.push((Arc::new(ban.clone()), day.moment(ban.until_s.saturating_mul(1_000)))),
            Err(e) => tracing::error!("the ban {key} is lost: {e}"),
        },
        store::Kept::Meta { .. } => {}
    })?;
    let (takers, notes): (Vec<_>, Vec<_>) = notes.into_iter().partition(|(key, _)| key.starts_with('t'));
    let (moves, notes): (Vec<_>, Vec<_>) = notes.into_iter().partition(|(key, _)| key.starts_with('m'));
    for (key, bytes) in notes {
        if take_note(&key, &bytes, &mut sessions).is_none() {
            all[0].garbage.push(Change::DropMeta { key });
        }
    }
    let numbers = sessions.values().flat_map(|session| &session.incoming);
    let mut taken: Taken = numbers.filter(|(_, n)| *n != 0).map(|(_, n)| (*n, Default::default())).collect();
    for (key, bytes) in takers {
        let number = key.get(1..).and_then(|text| u64::from_str_radix(text.split_once('.')?.0, 16).ok());
        match number.and_then(|number| taken.get_mut(&number)) {
            Some((keys, has)) => {
                keys.push(key);
                has.extend(bytes.as_chunks().0.iter().map(|id| SessionId::from_le_bytes(*id)));
            }
            None => all[0].garbage.push(Change::DropMeta { key }),
        }
    }
    let taken = Arc::new(taken);
    // In the order in which they were made.
    bans.sort_by_key(|(ban, _)| ban.at_s);
    for restored in &mut all {
        (restored.taken, restored.bans) = (Arc::clone(&taken), bans.clone());
    }
    for queue in queues {
        match sessions.get_mut(&queue) {
            Some(session) => session.entries = read_queue(engine, queue, day)?,
            None => all[0].garbage.push(Change::DropSession { id: queue }),
        }
    }
    for (key, _) in moves {
        // It is in another queue, too, which the crash came before it had left.
        if let Some((queue, seq)) = place_of(&key) {
            if let Some(session) = sessions.get_mut(&queue) {
                session.entries.retain(|(at, _)| *at != seq);
            }
            all[0].garbage.push(Change::Pop { queue, seq });
        }
        all[0].garbage.push(Change::DropMeta { key });
    }
    for (_, session) in sessions {
        all[keyed.home(&session.record.client_id, shards)].sessions.push(session);
    }
    // In the order in which they were made, so that runs are alike.
    all.iter_mut().for_each(|restored| restored.sessions.sort_unstable_by_key(|session| session.id));
    Ok(all)
}

/// The queue and the place that a note is about.
fn place_of(key: &str) -> Option<(SessionId, u64)> {
    let (queue, seq) = key.get(1..)?.split_once('.')?;
    Some((SessionId::from_str_radix(queue, 16).ok()?, u64::from_str_radix(seq, 16).ok()?))
}

/// Gives a note to its session; `None` where there is none.
fn take_note(key: &str, bytes: &[u8], sessions: &mut Map<SessionId, RestoredSession>) -> Option<()> {
    let (session, value) = key.get(1..)?.split_once('.')?;
    let session = sessions.get_mut(&SessionId::from_str_radix(session, 16).ok()?)?;
    if key.starts_with('i') {
        let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        session.incoming.push((PacketId::new(value.parse().ok()?)?, number));
    } else {
        session.released.push(u64::from_str_radix(value, 16).ok()?);
    }
    Some(())
}

/// Reads a queue. A body that several of its entries point to is kept once.
fn read_queue(
    engine: &mut impl Engine,
    queue: SessionId,
    day: Day,
) -> Result<Vec<(u64, EntryRecord)>, Fault> {
    let (mut found, mut from) = (Vec::new(), 0);
    let mut last: Option<(BodyId, Message)> = None;
    loop {
        let read = Read { queue, from, entries_max: READ.0, bytes_max: READ.1 };
        let Entries { entries, more, lost, .. } = engine.read(&read)?;
        if lost > 0 {
            tracing::error!("{lost} messages of queue {queue:x} are lost: they cannot be read");
        }
        for entry in entries {
            from = entry.seq + 1;
            let decoded = decode_entry(&entry.bytes, day).and_then(|mut record| {
                if let Some((id, bytes)) = &entry.body {
                    let known = last.take().filter(|(known, _)| known == id);
                    let body = match known {
                        Some((_, message)) => message,
                        None => decode_message(bytes, day)?,
                    };
                    record.message = Some(body.clone());
                    last = Some((*id, body));
                }
                Ok(record)
            });
            match decoded {
                Ok(record) => found.push((entry.seq, record)),
                Err(e) => tracing::error!("message {} of queue {queue:x} is lost: {e}", entry.seq),
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Takes what is at home here. Its routes are on their way to the other shards when this returns.
    pub(super) fn restore(&mut self, disk: Disk) {
        let Disk { link, ids, day, restored } = disk;
        self.local.now = self.io.now();
        let mut keeper = Keeper::new(link, ids, day, self.shards.into());
        restored.garbage.into_iter().for_each(|change| keeper.put(change));
        keeper.once.restore(restored.taken);
        self.local.keeper = Some(Box::new(keeper));
        for message in restored.retained {
            if message.view().head.expires <= self.local.now {
                self.forget_retained(message.topic());
            } else if let Err(e) = self.retained.set(message) {
                tracing::warn!("a message is not retained any more: {e}");
            }
        }
        if self.retained.expiring() > 0 {
            self.expect_sweep();
        }
        // Those that have ended meanwhile are forgotten when somebody comes.
        restored.bans.into_iter().for_each(|(ban, until)| self.door.bans.put(ban, until));
        if !restored.sessions.is_empty() {
            self.announce_durable();
        }
        for session in restored.sessions {
            self.restore_session(session, day);
        }
        self.announce_groups();
    }

    fn restore_session(&mut self, restored: RestoredSession, day: Day) {
        let RestoredSession { id, record, entries, released, incoming } = restored;
        let now = self.local.now;
        let key = self.local.keyed.key(&record.client_id);
        if let Some(index) = self.local.session_of(&record.client_id, key) {
            // An earlier one, of which the end was not written.
            self.end_session(index);
        }
        let index = self.local.add_session(Session::new(&record.client_id, key, now));
        self.set_expiry(index, record.expiry_s);
        if let Some(keeper) = &mut self.local.keeper {
            let next_seq = next_place(keeper.first_seq(), entries.last().map(|(seq, _)| *seq));
            keeper.sessions.insert(index, Kept::new(id, next_seq));
        }
        for s in &record.subscriptions {
            self.restore_subscription(index, s.filter.as_ref(), Sub::new(index, s.options, s.id));
        }
        let unknown = record.ends_ms.is_none();
        let ends_at = match record.ends_ms {
            Some(ms) => day.moment(ms),
            None if record.expiry_s == u32::MAX => Moment::NEVER,
            None => now.plus_s(u64::from(record.expiry_s)),
        };
        let will = record.will.map(|will| {
            let delay_s = will.delay_s.min(record.expiry_s);
            let due = will.due_ms.map_or_else(|| now.plus_s(delay_s.into()), |ms| day.moment(ms));
            Box::new(StoredWill::restore(&will.message, key, will.delay_s, will.expiry_s, due))
        });
        let due = will.as_ref().map_or(Moment::NEVER, |will| will.due).min(ends_at);
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        session.created_s = (day.moment(record.created_ms).0 / 1_000) as u32;
        if let Some(name) = record.username {
            session.profile.get_or_insert_default().username = Some(name);
        }
        (session.ends_at, session.will) = (ends_at, will);
        if !incoming.is_empty() {
            let mut taken = Incoming::default();
            incoming.iter().for_each(|(id, _)| taken.accept(*id, now));
            self.local.gauges.inflight_in += taken.len() as u64;
            session.incoming = Some(Box::new(taken));
            let numbered = incoming.iter().filter(|(_, number)| *number != 0);
            if let Some(keeper) = &mut self.local.keeper {
                numbered.for_each(|(id, number)| keeper.once.restore_number(index, *id, *number));
            }
        }
        if !entries.is_empty() {
            let gauges = &mut self.local.gauges;
            session.outgoing = Some(Box::new(restore_queue(id, entries, &released, gauges)));
        }
        self.local.count_session(index);
        if due != Moment::NEVER {
            self.session_timer(index, due);
        }
        if unknown {
            self.touch_session(index);
        }
    }

    fn restore_subscription(&mut self, index: u32, text: &str, sub: Sub) {
        let Ok(to) = parse_subscription(text, 0) else { return };
        let added = self.trie.subscribe(&to, sub);
        if let Some(route) = added.announce {
            self.mesh.broadcast(|| Control::Announce(route.clone()));
        }
        if let (false, Some(session)) = (added.existed, self.local.sessions.get_mut(index)) {
            self.local.gauges.subscribers += u64::from(session.subscriptions.is_empty());
            session.subscriptions.add(added.sub);
        }
        self.trie.set_online(added.sub, index, false);
    }
}

/// What is queued for a session, in the order in which it was.
fn restore_queue(
    queue: SessionId,
    entries: Vec<(u64, EntryRecord)>,
    released: &[u64],
    gauges: &mut Gauges,
) -> Outgoing {
    let mut outgoing = Outgoing::default();
    let last = released.iter().max().copied().unwrap_or(0);
    for (seq, entry) in entries {
        if released.contains(&seq) {
            outgoing.restore(queue, seq, None, true, gauges);
            continue;
        }
        let Some(message) = entry.message else { continue };
        let (qos, retain, source) = (entry.qos, entry.retain, entry.source);
        let ids = SubscriptionIds::new(&entry.ids);
        let delivery = Delivery { message, qos, retain, ids, group: 0, source, seq, again: true };
        outgoing.restore(queue, seq, Some(delivery), seq < last, gauges);
    }
    outgoing
}
