//! The two ends of what is between a shard and the store.
//!
//! Two rings. The shard's end collects changes and hands them over once per tick; when the ring is full they stay
//! and join the next batch, so nothing is ever dropped. The store answers each shard that it took something from,
//! and wakes it, so a shard whose ring was full is woken when there is room.

use super::change::{Batch, Change, Entries, Read, State};
use crate::limits::{RING_ENTRY_BYTES, STORE_RING_ENTRIES};
use crate::sync::Sequence;
use crate::sync::spsc::{Consumer, Producer, ring};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Wakes the thread at the other end.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// From a shard.
#[derive(Debug)]
pub(super) enum Request {
    Batch(Batch),
    Read(Read),
}

/// From the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// All batches of this shard up to this one are on the disk. The numbers rise; one answer may stand for many.
    Committed {
        /// [`Batch::number`].
        through: u64,
    },
    /// Entries that were asked for. One per [`Link::read`], in their order.
    Entries(Box<Entries>),
    /// The store is in this state from now on. At the start it is [`State::Ok`].
    State(Box<State>),
}

const _: () = assert!(size_of::<Request>() <= RING_ENTRY_BYTES && size_of::<Answer>() <= RING_ENTRY_BYTES);

/// The shard's end.
pub struct Link {
    order: Sequence,
    out: Producer<Request>,
    answers: Consumer<Answer>,
    bell: Bell,
    changes: Vec<Change>,
    weight: usize,
    handed_over: u64,
    committed: u64,
    reads: VecDeque<Read>,
    state: State,
}

impl Link {
    /// Adds a change to the batch of this tick. Returns its ticket: the number of that batch.
    pub fn put(&mut self, change: Change) -> u64 {
        self.weight += change.weight();
        self.changes.push(change);
        self.handed_over + 1
    }

    /// The ticket of everything that was put so far, 0 before the first.
    pub fn ticket(&self) -> u64 {
        self.handed_over + u64::from(!self.changes.is_empty())
    }

    /// Everything with a ticket up to this one is on the disk.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The state that the store told last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Asks for entries; it is answered once by [`Answer::Entries`], with all that was put before. How many are
    /// under way is for the asker to bound.
    pub fn read(&mut self, read: Read) {
        self.reads.push_back(read);
    }

    /// Bytes of changes that are put and not handed over: what a full ring makes wait.
    pub fn waiting_bytes(&self) -> usize {
        self.weight
    }

    /// Whether the batch of this tick will be handed over with the next [`Link::flush`].
    pub fn has_room(&mut self) -> bool {
        self.out.room() > 0
    }

    /// Hands everything over that the ring has room for, and wakes the store. Once per tick.
    pub fn flush(&mut self) {
        if !self.changes.is_empty() && self.out.room() > 0 {
            let (number, order) = (self.handed_over + 1, self.order.next());
            let batch = Batch { number, order, changes: std::mem::take(&mut self.changes) };
            if self.out.push(Request::Batch(batch)).is_ok() {
                self.handed_over += 1;
                self.weight = 0;
            }
        }
        // Behind the changes before them.
        while self.changes.is_empty() && self.out.room() > 0 {
            let Some(read) = self.reads.pop_front() else { break };
            let pushed = self.out.push(Request::Read(read));
            debug_assert!(pushed.is_ok(), "there was room");
        }
        if self.out.publish() {
            (self.bell)();
        }
    }

    /// The next answer. To be drained in each tick.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let answer = self.answers.pop()?;
        match &answer {
            Answer::Committed { through } => self.committed = *through,
            Answer::State(state) => self.state = State::clone(state),
            Answer::Entries(_) => {}
        }
        Some(answer)
    }

    /// Whether the shard may sleep: there is no answer. What is put or asked and not handed over needs no tick of
    /// its own, for the store wakes the shard when it has taken something.
    pub fn is_quiet(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether everything that was put is on the disk.
    pub fn is_settled(&self) -> bool {
        self.ticket() == self.committed
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (handed_over, committed) = (self.handed_over, self.committed);
        f.debug_struct("Link").field("handed_over", &handed_over).field("committed", &committed).finish()
    }
}

/// The store's end of one shard.
pub struct Port {
    order: Sequence,
    inbound: Consumer<Request>,
    /// The first batch that is not taken yet.
    front: Option<Batch>,
    out: Producer<Answer>,
    bell: Bell,
    /// Answers that the ring had no room for.
    overflow: VecDeque<Answer>,
    /// The last batch that was taken, and the last one that was answered.
    pub(super) taken: u64,
    pub(super) answered: u64,
    /// What is asked for and not read yet.
    pub(super) reads: VecDeque<Read>,
}

impl Port {
    /// Where the batch that comes next stands among those of all shards. What is asked before it is noted.
    pub(super) fn order(&mut self) -> Option<u64> {
        while self.front.is_none() {
            match self.inbound.pop()? {
                Request::Batch(batch) => self.front = Some(batch),
                Request::Read(read) => self.reads.push_back(read),
            }
        }
        self.front.as_ref().map(|batch| batch.order)
    }

    /// The batch that comes next.
    pub(super) fn next(&mut self) -> Option<Batch> {
        self.order()?;
        self.front.take()
    }

    /// All batches with a place below this one can be seen, see [`Sequence::horizon`].
    pub(super) fn horizon(&self) -> u64 {
        self.order.horizon()
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.overflow.push_back(answer);
    }

    /// Moves answers into the ring and wakes the shard; whether all went.
    pub(super) fn flush(&mut self) -> bool {
        while self.out.room() > 0 {
            let Some(answer) = self.overflow.pop_front() else { break };
            let pushed = self.out.push(answer);
            debug_assert!(pushed.is_ok(), "there was room");
        }
        if self.out.publish() {
            (self.bell)();
        }
        self.overflow.is_empty()
    }

    /// Whether nothing is there to be taken: a fresh look.
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none() && self.inbound.is_empty()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, answered) = (self.taken, self.answered);
        f.debug_struct("Port").field("taken", &taken).field("answered", &answered).finish()
    }
}

/// Both ends for one shard. `order` is that of all shards; `to_store` wakes the store's thread, `to_shard` the shard's;
/// both may be called when it is awake.
pub fn link(order: &Sequence, to_store: Bell, to_shard: Bell) -> (Link, Port) {
    link_sized(order, to_store, to_shard, STORE_RING_ENTRIES)
}

/// As [`link`], with rings of this size (a power of two): a simulation fills small ones often.
pub fn link_sized(order: &Sequence, to_store: Bell, to_shard: Bell, entries: usize) -> (Link, Port) {
    let (requests_out, requests_in) = ring(entries);
    let (answers_out, answers_in) = ring(entries);
    let link = Link {
        order: order.clone(),
        out: requests_out,
        answers: answers_in,
        bell: to_store,
        changes: Vec::new(),
        weight: 0,
        handed_over: 0,
        committed: 0,
        reads: VecDeque::new(),
        state: State::Ok,
    };
    let port = Port {
        order: order.clone(),
        inbound: requests_in,
        front: None,
        out: answers_out,
        bell: to_shard,
        overflow: VecDeque::new(),
        taken: 0,
        answered: 0,
        reads: VecDeque::new(),
    };
    (link, port)
}
