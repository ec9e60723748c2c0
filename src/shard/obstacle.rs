//! What the state of the store means for whoever would have something kept.
//!
//! A store that is busy takes no more for a moment: whoever would have something kept waits. One that cannot write is
//! read-only until it can: whoever would have something kept is refused before anybody has any of it, and nothing that
//! waits for the disk is acknowledged. All that needs no disk goes on in both cases, such as messages of QoS 1 and 2
//! between sessions that end with their connection.
//!
//! Routes do not say whether a session behind them is kept. So while something is in the way, and only then, other
//! shards are asked. Their answer decides who waits or is refused. What may be acknowledged is for the message's ticket
//! to say, as ever: an answer that does not hold any more loses nothing.
//!
//! Trap: a QoS 2 message that comes again after a crash is not refused, for some may have it.

use super::connection::{Near, Wait};
use super::keep::{After, Keeper};
use super::publish::bits;
use super::sessions::End;
use super::timers::Timer;
use super::{Handover, Next, Shard};
use crate::codec::{Publish, ReasonCode, Version};
use crate::heap::{map_bytes, vec_bytes};
use crate::io::{Close, Conn, Io, ShardId};
use crate::limits::{FULL_RETRY_MS, SHELF_BYTES_MAX};
use crate::map::{Map, Slab, Slot};
use crate::mesh::Control;
use crate::message::{Message, MessageRef, QoS};
use crate::session::{Refusal, Session};
use crate::stats::LossCause;
use crate::trie::{GroupId, RouteId, Sub, Trie};
use std::collections::VecDeque;

/// What is said of it.
pub(super) const CANNOT_WRITE: &str = "the broker cannot write what it has to keep";

/// Who asks for a message of our own, and for one of the management thread; each has one at a time.
pub(super) const OWN: Slot = Slot { index: u32::MAX, generation: 0 };
pub(super) const ASKED: Slot = Slot { index: u32::MAX, generation: 1 };

/// What is in the way of what is to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// The store takes no more before it has written some of what it has.
    Busy,
    /// It cannot write.
    ReadOnly,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passage {
    /// It goes where it goes.
    Free,
    /// Others were asked whether it is to be kept; it is looked at again when they have answered.
    Asked,
    /// It is to be kept, which this is in the way of.
    Barred(Obstacle),
}

/// What others say of the messages that wait for it, by who waits.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: Map<Slot, Inquiry>,
    last: u64,
}

#[derive(Clone, Copy, Debug)]
struct Inquiry {
    number: u64,
    /// Shards that were asked, and those of them that have not answered, as bits.
    asked: u64,
    left: u64,
    /// One of them keeps it.
    kept: bool,
}

impl Inquiries {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        map_bytes::<Slot, Inquiry>(self.open.capacity())
    }

    /// Nobody waits for this one any more.
    fn forget(&mut self, asker: Slot) {
        if !self.open.is_empty() {
            self.open.remove(&asker);
        }
    }

    /// What those in `wanted` say, `None` where some of them have not said it. Then: who is to be asked, and the
    /// number to ask with.
    fn ask(&mut self, asker: Slot, wanted: u64) -> Result<bool, (u64, u64)> {
        let mut inquiry = self.open.remove(&asker).unwrap_or_else(|| {
            self.last += 1;
            Inquiry { number: self.last, asked: 0, left: 0, kept: false }
        });
        let more = wanted & !inquiry.asked;
        if inquiry.kept || (more == 0 && inquiry.left == 0) {
            return Ok(inquiry.kept);
        }
        inquiry.asked |= more;
        inquiry.left |= more;
        self.open.insert(asker, inquiry);
        Err((more, inquiry.number))
    }

    /// A shard has answered; whether all is known that matters.
    fn answered(&mut self, asker: Slot, number: u64, from: ShardId, kept: bool) -> bool {
        let inquiry = self.open.get_mut(&asker).filter(|inquiry| inquiry.number == number);
        inquiry.is_some_and(|inquiry| {
            inquiry.left &= !(1 << from);
            inquiry.kept |= kept;
            inquiry.kept || inquiry.left == 0
        })
    }
}

/// Messages of our own that wait until a store can write: wills, whose clients are not there to be told.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    messages: VecDeque<Message>,
    weight: usize,
}

impl Shelf {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that it holds, those of the messages left out.
    pub fn bytes(&self) -> usize {
        vec_bytes::<Message>(self.messages.capacity())
    }

    /// Whether there was room.
    fn put(&mut self, message: &Message) -> bool {
        let view = message.view();
        let weight = size_of::<Message>() + view.topic.len() + view.properties.len() + view.payload.len();
        let fits = self.weight + weight <= SHELF_BYTES_MAX;
        if fits {
            self.weight += weight;
            self.messages.push_back(message.clone());
        }
        fits
    }

    fn clear(&mut self) -> VecDeque<Message> {
        self.weight = 0;
        std::mem::take(&mut self.messages)
    }
}

/// Whether a session that is kept would be sent a message of QoS 1 or 2, as a subscriber or as a member.
fn reaches_kept(trie: &Trie, sessions: &Slab<Session>, routes: &[RouteId], groups: &[GroupId]) -> bool {
    let kept = |sub: &Sub| {
        sub.options.qos() > 0 && sessions.get(sub.session).is_some_and(|s| s.expiry_s > 0 && !s.ended)
    };
    routes.iter().any(|route| trie.subscribers(*route).iter().any(kept))
        || groups.iter().any(|group| {
            let members = trie.members(*group);
            members.online.iter().chain(members.offline).any(kept)
        })
}

impl<I: Io<Handover>> Shard<I> {
    /// What is in the way of what is to be kept.
    pub(super) fn obstacle(&mut self) -> Option<Obstacle> {
        self.local.keeper.as_mut().and_then(|keeper| keeper.obstacle())
    }

    /// Whether a session is kept, and nothing of it can be written.
    pub(super) fn is_frozen(&mut self, index: u32) -> bool {
        let kept = |keeper: &mut Box<Keeper>| {
            keeper.obstacle() == Some(Obstacle::ReadOnly) && keeper.sessions.contains_key(&index)
        };
        self.local.keeper.as_mut().is_some_and(kept)
    }

    /// Whether a session is kept, and the store takes nothing of it for a moment.
    pub(super) fn is_busy_for(&mut self, index: u32) -> bool {
        let kept = |keeper: &mut Box<Keeper>| {
            keeper.obstacle() == Some(Obstacle::Busy) && keeper.sessions.contains_key(&index)
        };
        self.local.keeper.as_mut().is_some_and(kept)
    }

    /// Whether a message of QoS 1 or 2, or one to be retained, may go on. `certain`: something of it is to be kept,
    /// whoever gets it.
    pub(super) fn passage(&mut self, asker: Slot, certain: bool, m: &MessageRef) -> Passage {
        let Some(keeper) = &mut self.local.keeper else { return Passage::Free };
        let Some(obstacle) = keeper.obstacle() else {
            keeper.inquiries.forget(asker);
            return Passage::Free;
        };
        if certain {
            keeper.inquiries.forget(asker);
            return Passage::Barred(obstacle);
        }
        let shards = self.router.plan(&self.trie, m, self.local.options.shared_strategy);
        let (routes, picks) = (&self.router.matches.routes, &self.router.local_picks);
        if !keeper.sessions.is_empty() && reaches_kept(&self.trie, &self.local.sessions, routes, picks) {
            keeper.inquiries.forget(asker);
            return Passage::Barred(obstacle);
        }
        match keeper.inquiries.ask(asker, shards & keeper.durable) {
            Ok(true) => Passage::Barred(obstacle),
            Ok(false) => Passage::Free,
            Err((targets, number)) => {
                for target in bits(targets) {
                    self.mesh
                        .control(target, Control::KeepAsk { conn: asker, number, topic: m.topic.into() });
                }
                Passage::Asked
            }
        }
    }

    /// What follows for a PUBLISH of QoS 1 or 2 that is to be kept and cannot be, or is not yet known to be; `None`:
    /// it goes on. `again`: some may have it from before a crash.
    pub(super) fn check_store(
        &mut self,
        conn: Slot,
        index: u32,
        p: &Publish,
        m: &MessageRef,
        again: bool,
    ) -> Option<Next> {
        let keeper = self.local.keeper.as_ref()?;
        // With the session of its publisher, the identifier of a QoS 2 message is kept.
        let exact = p.qos == QoS::ExactlyOnce && keeper.sessions.contains_key(&index);
        match self.passage(conn, exact || p.retain, m) {
            Passage::Free => None,
            Passage::Asked => {
                self.wait(conn.index, Wait::Keep);
                Some(Next::Wait)
            }
            Passage::Barred(Obstacle::Busy) => Some(self.wait_unclogged(conn)),
            Passage::Barred(Obstacle::ReadOnly) => {
                self.local.counters.store_refused += 1;
                Some(self.refuse_full(conn.index, p, again, CANNOT_WRITE))
            }
        }
    }

    /// A connection waits until the store takes more.
    pub(super) fn wait_unclogged(&mut self, conn: Slot) -> Next {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.clogged.push(conn);
        }
        self.wait(conn.index, Wait::Acks);
        Next::Wait
    }

    /// Lets the connections go on that waited until the store takes more: it does, or they are refused.
    pub(super) fn wake_clogged(&mut self) {
        let Some(keeper) = &mut self.local.keeper else { return };
        if !keeper.clogged.is_empty() && keeper.obstacle() != Some(Obstacle::Busy) {
            for conn in std::mem::take(&mut keeper.clogged) {
                self.wake_slot(conn, |w| w == Wait::Acks);
            }
        }
    }

    /// Another shard asks whether a session that is kept here would be sent a message to a topic.
    pub(super) fn answer_keep(&mut self, from: ShardId, conn: Slot, number: u64, topic: &str) {
        let matches = &mut self.scratch.matches;
        self.trie.matches(topic, matches);
        let kept = reaches_kept(&self.trie, &self.local.sessions, &matches.routes, &matches.groups);
        self.mesh.control(from, Control::KeepSaid { conn, number, kept });
    }

    /// What another shard says of the message that a connection waits with.
    pub(super) fn keep_answered(&mut self, from: ShardId, conn: Slot, number: u64, kept: bool) {
        let Some(keeper) = &mut self.local.keeper else { return };
        if keeper.inquiries.answered(conn, number, from, kept) {
            self.wake_slot(conn, |w| w == Wait::Keep);
        }
    }

    /// A connection serves no more.
    pub(super) fn forget_inquiry(&mut self, conn: Slot) {
        if let Some(keeper) = &mut self.local.keeper {
            keeper.inquiries.forget(conn);
        }
    }

    /// A PUBLISH cannot be taken at present. `again`: some may have it from before a crash, so it waits as one of a 3.x
    /// client does: were it refused, and the broker crashed once more before its client knows, nobody could tell any
    /// more who has it.
    pub(super) fn refuse_full(&mut self, conn: Conn, p: &Publish, again: bool, text: &str) -> Next {
        let Some(c) = self.local.conns.get(conn) else { return Next::Gone };
        if c.link.version == Version::V5 && !again {
            return self.acknowledge(conn, p, ReasonCode::QUOTA_EXCEEDED, text, 0);
        }
        self.wait_full(conn, text)
    }

    /// A packet that cannot be taken at present, and of which its client cannot be told, waits; after some time its
    /// connection ends.
    pub(super) fn wait_full(&mut self, conn: Conn, text: &str) -> Next {
        let now = self.local.now;
        let wait_s = u64::from(self.local.options.reject_wait_s);
        let Some(slot) = self.local.conns.slot(conn) else { return Next::Gone };
        let Some(c) = self.local.conns.get_mut(conn) else { return Next::Gone };
        let until = c.full_until.unwrap_or_else(|| Near::new(now.plus_s(wait_s)));
        if until.has_come(now) {
            self.disconnect(conn, ReasonCode::QUOTA_EXCEEDED, text, End::Lost);
            return Next::Gone;
        }
        c.full_until = Some(until);
        c.wait = Wait::Full;
        self.wheel.insert(now.plus_ms(FULL_RETRY_MS), Timer::full_route(slot));
        Next::Wait
    }

    /// Why a CONNECT cannot be answered with success while nothing can be written: its session would be kept, or the one
    /// that it finds is. `expiry_s`: what it would have.
    pub(super) fn refuse_unwritable(&mut self, client_id: &str, key: u64, expiry_s: u32) -> Option<Refusal> {
        if self.obstacle() != Some(Obstacle::ReadOnly) {
            return None;
        }
        let found = self.local.session_of(client_id, key);
        if expiry_s == 0 && !found.is_some_and(|index| self.is_frozen(index)) {
            return None;
        }
        self.local.counters.store_refused += 1;
        Some(Refusal { code: ReasonCode::QUOTA_EXCEEDED, text: CANNOT_WRITE.into() })
    }

    /// The store has become read-only: whoever waits for its CONNACK is cut off, and told the reason when it comes
    /// again. The management thread waits for nothing that holds already.
    pub(super) fn end_unanswered(&mut self) {
        let Some(keeper) = &mut self.local.keeper else { return };
        let told = keeper.take_told();
        let unanswered = |after: &After| match after {
            After::Open(conn) => Some(*conn),
            _ => None,
        };
        let waiting: Vec<Slot> = keeper.waiting().filter_map(unanswered).collect();
        told.into_iter().for_each(|after| self.happen(after));
        for slot in waiting {
            if self.local.conns.at(slot).is_some_and(|c| c.closed && !c.shut) {
                self.lose_connection(slot.index, End::Lost, Some(ReasonCode::QUOTA_EXCEEDED));
                self.shut(slot.index, Close::Now);
            }
        }
    }

    /// A message of our own cannot be kept at present, and there is nobody to be told.
    pub(super) fn shelve(&mut self, message: &Message) {
        if !self.local.keeper.as_mut().is_some_and(|keeper| keeper.shelf.put(message)) {
            self.local.ledger.record("", LossCause::StoreReadOnly, 1);
        }
    }

    /// What could not be kept is tried again where it can be.
    pub(super) fn unshelve(&mut self) {
        if let Some(keeper) = &mut self.local.keeper
            && !keeper.shelf.is_empty()
            && keeper.obstacle() != Some(Obstacle::ReadOnly)
        {
            let mut messages = keeper.shelf.clear();
            messages.append(&mut self.backlog);
            self.backlog = messages;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_asked_answer_or_one_keeps_it() {
        let (mut inquiries, conn) = (Inquiries::default(), Slot { index: 3, generation: 1 });
        assert_eq!(inquiries.ask(conn, 0), Ok(false));
        let Err((0b110, number)) = inquiries.ask(conn, 0b110) else { panic!("both are asked") };
        assert!(!inquiries.answered(conn, number, 1, false));
        // Another member of a share group was chosen meanwhile.
        assert_eq!(inquiries.ask(conn, 0b1010), Err((0b1000, number)));
        assert!(!inquiries.answered(conn, number, 2, false));
        assert!(inquiries.answered(conn, number, 3, false));
        assert_eq!(inquiries.ask(conn, 0b1010), Ok(false));
        let Err((0b10, next)) = inquiries.ask(conn, 0b10) else { panic!("it is another message") };
        assert!(!inquiries.answered(conn, number, 1, true), "that was about the one before");
        assert!(inquiries.answered(conn, next, 1, true));
        assert_eq!(inquiries.ask(conn, 0b11110), Ok(true));
        assert!(inquiries.open.is_empty());
    }

    #[test]
    fn a_shelf_is_bounded_in_bytes() {
        let (mut shelf, payload) = (Shelf::default(), vec![0; SHELF_BYTES_MAX / 4]);
        let head = crate::message::Head::new(QoS::AtLeastOnce, false, 0, Default::default());
        let message = Message::new(&MessageRef { topic: "t", properties: &[], payload: &payload, head });
        assert_eq!((0..5).filter(|_| shelf.put(&message)).count(), 3);
        assert_eq!(shelf.clear().len(), 3);
        assert!(shelf.is_empty() && shelf.put(&message));
    }
}
