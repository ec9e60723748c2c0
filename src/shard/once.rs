//! QoS 2 from a client, exactly once also where the broker crashes while several shards have a part in it.
//!
//! The publisher's shard writes the packet identifier, other shards write what they queue, and a crash may find the
//! former on the disk without the latter. So such a message has a number that is written with its identifier, and
//! each shard writes, with what it queues, for which sessions that was. When the client sends the message again after
//! the crash, it is routed again under its number, and passes by the sessions that have it. All of that goes when
//! PUBREL comes.
//!
//! A message that the publisher's shard handles alone needs no number: its identifier and its queues are one batch.

use super::keep::Keeper;
use super::{Handover, Shard};
use crate::codec::PacketId;
use crate::io::Io;
use crate::map::Map;
use crate::mesh::Control;
use crate::store::{Change, SessionId};
use std::sync::Arc;

/// For each message that was taken before the crash and may come again: the names of the notes about it, and the
/// sessions that have it.
pub type Taken = Map<u64, (Vec<Box<str>>, Vec<SessionId>)>;

/// The messages with a number, as one shard has them.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// Their numbers, by session and packet identifier of the publisher.
    numbers: Map<(u32, PacketId), u64>,
    /// Those of before the crash that have not come again.
    unsure: Map<(u32, PacketId), ()>,
    before: Arc<Taken>,
    /// The notes of this run, by number.
    notes: Map<u64, Vec<u64>>,
    /// The message that is delivered, 0 = one without a number, and who has got it so far.
    current: u64,
    sessions: Vec<SessionId>,
    /// Numbers that nobody needs any more.
    done: Vec<u64>,
}

/// The name of the note for which sessions a message was queued.
fn taken_key(number: u64, note: u64) -> Box<str> {
    format!("t{number:x}.{note:x}").into()
}

impl Once {
    pub fn restore(&mut self, before: Arc<Taken>) {
        self.before = before;
    }

    /// A message of before the crash.
    pub fn restore_number(&mut self, session: u32, id: PacketId, number: u64) {
        self.numbers.insert((session, id), number);
        self.unsure.insert((session, id), ());
    }

    /// Whether a message that comes again is to be routed again.
    pub fn is_unsure(&self, session: u32, id: PacketId) -> bool {
        !self.unsure.is_empty() && self.unsure.contains_key(&(session, id))
    }

    /// It was.
    pub fn set_sure(&mut self, session: u32, id: PacketId) {
        if !self.unsure.is_empty() {
            self.unsure.remove(&(session, id));
        }
    }

    /// The number of a client's message, 0 where it has none.
    pub fn number(&self, session: u32, id: PacketId) -> u64 {
        self.numbers.get(&(session, id)).copied().unwrap_or(0)
    }

    pub fn set_number(&mut self, session: u32, id: PacketId, number: u64) {
        self.numbers.insert((session, id), number);
    }

    /// Whether a session has the message that is delivered, from before the crash.
    pub fn has(&self, session: SessionId) -> bool {
        self.current != 0 && self.before.get(&self.current).is_some_and(|(_, has)| has.contains(&session))
    }

    /// A session gets the message that is delivered.
    pub fn note(&mut self, session: SessionId) {
        if self.current != 0 {
            self.sessions.push(session);
        }
    }
}

impl Keeper {
    /// The message with this number is delivered; returns which one was before.
    pub fn begin_taking(&mut self, number: u64) -> u64 {
        std::mem::replace(&mut self.once.current, number)
    }

    /// What was begun is over: it is written who got the message.
    pub fn end_taking(&mut self, before: u64) {
        let number = std::mem::replace(&mut self.once.current, before);
        if self.once.sessions.is_empty() {
            return;
        }
        let bytes = self.once.sessions.drain(..).flat_map(u64::to_le_bytes).collect();
        let note = self.ids.issue();
        self.once.notes.entry(number).or_default().push(note);
        self.put(Change::PutMeta { key: taken_key(number, note), bytes });
    }

    /// A client's message is complete, or its session is gone.
    pub fn end_number(&mut self, session: u32, id: PacketId) {
        self.once.set_sure(session, id);
        let Some(number) = self.once.numbers.remove(&(session, id)) else { return };
        let before = Arc::clone(&self.once.before);
        for key in before.get(&number).into_iter().flat_map(|(keys, _)| keys) {
            self.put(Change::DropMeta { key: key.clone() });
        }
        self.once.done.push(number);
        self.forget_number(number);
    }

    /// Nobody asks any more who got the message with this number.
    pub fn forget_number(&mut self, number: u64) {
        for note in self.once.notes.remove(&number).unwrap_or_default() {
            self.put(Change::DropMeta { key: taken_key(number, note) });
        }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Tells the other shards which numbers nobody needs any more.
    pub(super) fn tell_done(&mut self) {
        let Some(keeper) = &mut self.local.keeper else { return };
        if !keeper.once.done.is_empty() {
            let done = std::mem::take(&mut keeper.once.done);
            self.mesh.broadcast(|| Control::Complete(done.as_slice().into()));
        }
    }

    /// As [`Keeper::begin_taking`].
    pub(super) fn begin_taking(&mut self, number: u64) -> u64 {
        self.local.keeper.as_mut().map_or(0, |keeper| keeper.begin_taking(number))
    }

    /// As [`Keeper::end_taking`].
    pub(super) fn end_taking(&mut self, before: u64) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.end_taking(before);
        }
    }
}
