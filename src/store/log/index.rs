//! Where everything that is kept stands in the log: what is in memory of a store.
//!
//! It is made by applying records in the order of the log, at the start from the files and then with each commit,
//! by the same code. Applying a record again at another place moves what it put there.

use super::format::{Record, read_record};
use crate::heap::vec_bytes;
use crate::map::Map;
use crate::store::change::{BodyId, QueueRow, SessionId};
use crate::store::engine::Figures;
use std::collections::{BTreeMap, VecDeque};

/// The place of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At {
    /// Number of the segment.
    pub segment: u32,
    /// Byte in it.
    pub offset: u32,
    /// Bytes of the record, with its head.
    pub bytes: u32,
}

/// An entry of a queue.
#[derive(Clone, Copy, Debug)]
pub struct EntryAt {
    /// Its place in the queue.
    pub seq: u64,
    /// Its record.
    pub at: At,
    /// The slot of its body, or [`NO_BODY`].
    body: u32,
}

const NO_BODY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Body {
    id: BodyId,
    /// `None`: an entry that points to it was read before it; it stands further on.
    at: Option<At>,
    entries: u32,
}

/// What is kept, and where.
#[derive(Debug, Default)]
pub struct Index {
    pub(super) sessions: Map<SessionId, At>,
    pub(super) queues: Map<SessionId, VecDeque<EntryAt>>,
    pub(super) retained: Map<Box<str>, At>,
    pub(super) meta: Map<Box<str>, At>,
    bodies: Vec<Body>,
    bodies_free: Vec<u32>,
    bodies_by_id: Map<BodyId, u32>,
    entries: u64,
    /// Bytes of live records by segment.
    live: BTreeMap<u32, u64>,
    /// The last start that was written.
    start: Option<(u64, At)>,
}

impl Index {
    /// Takes in the record at a place.
    pub fn apply(&mut self, record: &Record<'_>, at: At) {
        match *record {
            Record::PutSession(id, _) => {
                let old = self.sessions.insert(id, at);
                self.moved(old, at);
            }
            Record::DropSession(id) => {
                let old = self.sessions.remove(&id);
                self.gone(old);
                self.trim(id, u64::MAX);
            }
            Record::Push(queue, seq, body, _) => self.push(queue, seq, body, at),
            Record::Pop(queue, seq) => self.pop(queue, seq),
            Record::Trim(queue, to) => self.trim(queue, to),
            Record::PutBody(id, _) => {
                let slot = self.body_slot(id);
                let old = self.bodies[slot as usize].at.replace(at);
                self.moved(old, at);
            }
            Record::SetRetained(topic, _) => {
                let old = self.retained.insert(topic.into(), at);
                self.moved(old, at);
            }
            Record::ClearRetained(topic) => {
                let old = self.retained.remove(topic);
                self.gone(old);
            }
            Record::PutMeta(key, _) => {
                let old = self.meta.insert(key.into(), at);
                self.moved(old, at);
            }
            Record::DropMeta(key) => {
                let old = self.meta.remove(key);
                self.gone(old);
            }
            Record::Start(number) => {
                if number >= self.starts() {
                    let old = self.start.replace((number, at));
                    self.moved(old.map(|(_, at)| at), at);
                }
            }
        }
    }

    /// Takes in records that were checked, which begin at a byte of a segment.
    pub fn apply_all(&mut self, records: &[u8], segment: u32, start: u64) {
        let mut at = 0;
        while let Ok((record, bytes)) = read_record(&records[at..]) {
            let offset = (start + at as u64) as u32;
            self.apply(&record, At { segment, offset, bytes: bytes as u32 });
            at += bytes;
        }
        debug_assert_eq!(at, records.len(), "records that were checked are whole");
    }

    /// Whether the record at a place is still what counts.
    pub fn is_live(&self, record: &Record<'_>, at: At) -> bool {
        match *record {
            Record::PutSession(id, _) => self.sessions.get(&id) == Some(&at),
            Record::Push(queue, seq, ..) => self.entry(queue, seq).is_some_and(|entry| entry.at == at),
            Record::PutBody(id, _) => self.body(id) == Some(at),
            Record::SetRetained(topic, _) => self.retained.get(topic) == Some(&at),
            Record::PutMeta(key, _) => self.meta.get(key) == Some(&at),
            Record::Start(_) => self.start.is_some_and(|(_, start)| start == at),
            Record::DropSession(_)
            | Record::Pop(..)
            | Record::Trim(..)
            | Record::ClearRetained(_)
            | Record::DropMeta(_) => false,
        }
    }

    /// The number of the last start that was written, 0 before the first.
    pub fn starts(&self) -> u64 {
        self.start.map_or(0, |(number, _)| number)
    }

    /// The end of a recovery: a body whose entries all went before it was moved is nobody's.
    pub fn settle(&mut self) {
        let unused = |slot: &u32| self.bodies[*slot as usize].entries == 0;
        let unused: Vec<u32> = self.bodies_by_id.values().copied().filter(unused).collect();
        unused.into_iter().for_each(|slot| self.drop_body(slot));
    }

    /// Entries from a place of a queue on.
    pub fn entries_from(&self, queue: SessionId, from: u64) -> impl Iterator<Item = &EntryAt> {
        let queue = self.queues.get(&queue);
        let first = queue.map_or(0, |queue| queue.partition_point(|entry| entry.seq < from));
        queue.into_iter().flat_map(move |queue| queue.range(first..))
    }

    /// The place of an entry's body, if it has one.
    pub fn body_of(&self, entry: &EntryAt) -> Option<(BodyId, Option<At>)> {
        let body = (entry.body != NO_BODY).then(|| self.bodies[entry.body as usize])?;
        Some((body.id, body.at))
    }

    /// Where everything with a name or an identity of its own stands.
    pub fn named_places(&self) -> Vec<At> {
        self.sessions.values().chain(self.retained.values()).chain(self.meta.values()).copied().collect()
    }

    /// Where all entries stand.
    pub fn entry_places(&self) -> impl Iterator<Item = At> {
        self.queues.values().flatten().map(|entry| entry.at)
    }

    /// Where all bodies stand.
    pub fn body_places(&self) -> Vec<At> {
        self.bodies_by_id.values().filter_map(|slot| self.bodies[*slot as usize].at).collect()
    }

    /// All queues.
    pub fn queue_rows(&self) -> impl Iterator<Item = QueueRow> {
        self.queues.iter().filter_map(|(queue, entries)| {
            let (first, last) = (entries.front()?.seq, entries.back()?.seq);
            Some(QueueRow { queue: *queue, first, last, count: entries.len() as u64 })
        })
    }

    /// Bytes of live records in a segment.
    pub fn live(&self, segment: u32) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Bytes of all live records.
    pub fn bytes_live(&self) -> u64 {
        self.live.values().sum()
    }

    /// A segment is not there any more.
    pub fn forget(&mut self, segment: u32) {
        let left = self.live.remove(&segment).unwrap_or(0);
        debug_assert_eq!(left, 0, "a segment that is removed holds nothing");
    }

    /// What it knows of the figures.
    pub fn figures(&self) -> Figures {
        let queues: usize =
            self.queues.values().map(|queue| vec_bytes::<EntryAt>(queue.capacity())).sum::<usize>();
        let row = size_of::<(SessionId, At)>() + 1;
        let names = self.retained.keys().chain(self.meta.keys()).map(|name| name.len() + 40).sum::<usize>();
        let rows = self.sessions.capacity() * row
            + self.queues.capacity() * (size_of::<(SessionId, VecDeque<EntryAt>)>() + 1)
            + vec_bytes::<Body>(self.bodies.capacity())
            + self.bodies_by_id.capacity() * 17;
        Figures {
            sessions: self.sessions.len() as u64,
            queues: self.queues.len() as u64,
            entries: self.entries,
            bodies: self.bodies_by_id.len() as u64,
            retained: self.retained.len() as u64,
            meta: self.meta.len() as u64,
            bytes_live: self.bytes_live(),
            bytes_memory: (queues + names + rows) as u64,
            ..Figures::default()
        }
    }

    fn entry(&self, queue: SessionId, seq: u64) -> Option<&EntryAt> {
        let queue = self.queues.get(&queue)?;
        queue.binary_search_by_key(&seq, |entry| entry.seq).ok().and_then(|at| queue.get(at))
    }

    fn body(&self, id: BodyId) -> Option<At> {
        self.bodies[*self.bodies_by_id.get(&id)? as usize].at
    }

    fn body_slot(&mut self, id: BodyId) -> u32 {
        if let Some(slot) = self.bodies_by_id.get(&id) {
            return *slot;
        }
        let body = Body { id, at: None, entries: 0 };
        let slot = match self.bodies_free.pop() {
            Some(slot) => {
                self.bodies[slot as usize] = body;
                slot
            }
            None => {
                self.bodies.push(body);
                (self.bodies.len() - 1) as u32
            }
        };
        self.bodies_by_id.insert(id, slot);
        slot
    }

    fn drop_body(&mut self, slot: u32) {
        let body = self.bodies[slot as usize];
        self.bodies_by_id.remove(&body.id);
        self.bodies_free.push(slot);
        self.gone(body.at);
    }

    fn push(&mut self, queue: SessionId, seq: u64, body: Option<BodyId>, at: At) {
        let body = body.map_or(NO_BODY, |id| self.body_slot(id));
        let entries = self.queues.entry(queue).or_default();
        // Mostly at the end; a record that was moved stands behind later ones.
        let place = match entries.back() {
            Some(last) if last.seq >= seq => entries.binary_search_by_key(&seq, |entry| entry.seq),
            _ => Err(entries.len()),
        };
        match place {
            Ok(place) => {
                let old = std::mem::replace(&mut entries[place].at, at);
                self.moved(Some(old), at);
            }
            Err(place) => {
                entries.insert(place, EntryAt { seq, at, body });
                if body != NO_BODY {
                    self.bodies[body as usize].entries += 1;
                }
                self.entries += 1;
                self.moved(None, at);
            }
        }
    }

    fn pop(&mut self, queue: SessionId, seq: u64) {
        let Some(entries) = self.queues.get_mut(&queue) else { return };
        let Ok(place) = entries.binary_search_by_key(&seq, |entry| entry.seq) else { return };
        let entry = entries.remove(place);
        self.shrink(queue);
        self.entry_gone(entry);
    }

    fn trim(&mut self, queue: SessionId, to: u64) {
        while let Some(entries) = self.queues.get_mut(&queue) {
            if entries.front().is_none_or(|entry| entry.seq > to) {
                return;
            }
            let entry = entries.pop_front();
            self.shrink(queue);
            self.entry_gone(entry);
        }
    }

    fn shrink(&mut self, queue: SessionId) {
        let Some(entries) = self.queues.get_mut(&queue) else { return };
        if entries.is_empty() {
            self.queues.remove(&queue);
        } else if entries.capacity() > 16 && entries.len() * 4 < entries.capacity() {
            entries.shrink_to(entries.len() * 2);
        }
    }

    fn entry_gone(&mut self, entry: Option<EntryAt>) {
        let Some(entry) = entry else { return };
        self.entries -= 1;
        self.gone(Some(entry.at));
        if entry.body != NO_BODY {
            let body = &mut self.bodies[entry.body as usize];
            body.entries -= 1;
            if body.entries == 0 {
                self.drop_body(entry.body);
            }
        }
    }

    fn moved(&mut self, from: Option<At>, to: At) {
        self.gone(from);
        *self.live.entry(to.segment).or_default() += u64::from(to.bytes);
    }

    fn gone(&mut self, at: Option<At>) {
        let Some(at) = at else { return };
        let live = self.live.entry(at.segment).or_default();
        debug_assert!(*live >= u64::from(at.bytes), "what goes was there");
        *live -= u64::from(at.bytes);
    }
}
