//! The retained messages of one shard, by topic.
//!
//! Each topic's text is stored once, in its message. Two indices of small numbers lead to the messages: a hash
//! table for set, clear and get of a topic, which is what publishers do all day (about 15 bytes a topic), and
//! an order by topic for scans, which only a new or a removed topic touches (about 6 bytes).
//!
//! Invariants: a message is in the slab, the table and the order, or in none of them; the counts of bytes and
//! of messages that can expire are those of the slab.
//!
//! Traps: an empty payload clears a topic [MQTT-3.3.1-6], which is the caller's to tell from a set. A message
//! that expired keeps its room until [`Retained::expire`] finds it, but is not shown.

mod order;
mod scan;
#[cfg(test)]
mod tests;

pub use scan::Scan;

use crate::heap::allocated;
use crate::message::{Head, Message};
use crate::time::Moment;
use crate::trie::slab::Slab;
use hashbrown::HashTable;
use order::Order;

/// Bytes that the indices are reckoned to hold for a topic: 8 in the slab, 15 in the table, 6 in the order.
const INDEX_BYTES: usize = 32;

/// Bounds of one shard's part. 0 = no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Messages.
    pub messages_max: usize,
    /// Bytes, the indices included.
    pub bytes_max: usize,
}

/// Why a message was not retained: to be answered with 0x97, quota exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// There are as many messages as there may be.
    Messages {
        /// The maximum.
        messages_max: usize,
    },
    /// There is no room for its bytes.
    Bytes {
        /// Bytes in all, had it been retained.
        bytes: usize,
        /// The maximum.
        bytes_max: usize,
    },
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Full::Messages { messages_max } => {
                write!(f, "expected at most {messages_max} retained messages, got one more")
            }
            Full::Bytes { bytes, bytes_max } => {
                write!(f, "expected at most {bytes_max} bytes of retained messages, got {bytes}")
            }
        }
    }
}

impl std::error::Error for Full {}

/// An entry of the table. The hash is kept, so that growing the table does not read the messages.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    index: u32,
}

impl Slot {
    /// The table takes its position from the lower bits and its tag from the upper ones.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// Topic → retained message.
#[derive(Debug)]
pub struct Retained {
    options: Options,
    hasher: ahash::RandomState,
    messages: Slab<Message>,
    table: HashTable<Slot>,
    order: Order,
    bytes: usize,
    /// Messages that expire some day.
    expiring: usize,
    /// Where the next sweep goes on.
    sweep: u32,
}

impl Retained {
    /// Without messages. `seed` is a secret of the process (in a simulation: the run's seed).
    pub fn new(options: Options, seed: u64) -> Retained {
        let hasher = ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(23), seed.rotate_left(47));
        Retained {
            options,
            hasher,
            messages: Slab::new(),
            table: HashTable::new(),
            order: Order::default(),
            bytes: 0,
            expiring: 0,
            sweep: 0,
        }
    }

    /// Changes the bounds. What is there stays, even above them.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Messages, those included that expired and were not swept yet.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Messages that expire some day.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory: the messages, and the indices as reckoned.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the messages, without the indices.
    pub fn message_bytes(&self) -> usize {
        self.bytes - self.len() * INDEX_BYTES
    }

    /// Bytes of the indices as they are, looked up: about a microsecond for each 100,000 messages.
    pub fn index_bytes(&self) -> usize {
        self.messages.bytes() + allocated(self.table.allocation_size()) + self.order.bytes()
    }

    /// Retains a message in place of its topic's old one, which is returned [MQTT-3.3.1-5]. Refused when that
    /// would break a bound; the old one stays then.
    pub fn set(&mut self, message: Message) -> Result<Option<Message>, Full> {
        let view = message.view();
        let (topic, can_expire) = (view.topic, view.head.expires != Moment::NEVER);
        let hash = self.hash(topic);
        let old = self.find(hash, topic);
        let freed = old.map_or(0, |index| reckoned(&self.messages[index]));
        self.check_room(old.is_none(), self.bytes - freed + reckoned(&message), freed < reckoned(&message))?;
        self.bytes = self.bytes - freed + reckoned(&message);
        self.expiring += usize::from(can_expire);
        if let Some(index) = old {
            let old = std::mem::replace(&mut self.messages[index], message);
            self.expiring -= usize::from(old.view().head.expires != Moment::NEVER);
            return Ok(Some(old));
        }
        let place = self.order.seek(|index| self.topic(index) < topic.as_bytes());
        let index = self.messages.insert(message);
        self.order.insert(place, index);
        self.table.insert_unique(Slot::spread(hash), Slot { hash, index }, |slot| Slot::spread(slot.hash));
        Ok(None)
    }

    /// Forgets a topic's message and returns it [MQTT-3.3.1-6].
    pub fn clear(&mut self, topic: &str) -> Option<Message> {
        let hash = self.hash(topic);
        let index = self.find(hash, topic)?;
        Some(self.remove(hash, index))
    }

    /// A topic's message, unless it expired.
    pub fn get(&self, topic: &str, now: Moment) -> Option<&Message> {
        let index = self.find(self.hash(topic), topic)?;
        let message = &self.messages[index];
        (!expired(&message.view().head, now)).then_some(message)
    }

    /// Goes on with the sweep for expired messages: looks at `steps_max` at most, and appends those that it
    /// removes to `removed`. Returns whether it reached the end; the next call starts a new pass then.
    pub fn expire(&mut self, now: Moment, steps_max: usize, removed: &mut Vec<Message>) -> bool {
        for _ in 0..steps_max {
            if self.expiring == 0 || self.sweep >= self.messages.end() {
                self.sweep = 0;
                return true;
            }
            let index = self.sweep;
            self.sweep += 1;
            let Some(view) = self.messages.lookup(index).map(Message::view) else { continue };
            if expired(&view.head, now) {
                let hash = self.hash(view.topic);
                removed.push(self.remove(hash, index));
            }
        }
        false
    }

    /// Whether a message would be retained.
    ///
    /// # Errors
    /// Which bound is in the way.
    pub fn has_room(&self, message: &Message) -> Result<(), Full> {
        let topic = message.topic();
        let old = self.find(self.hash(topic), topic);
        let freed = old.map_or(0, |index| reckoned(&self.messages[index]));
        let needed = reckoned(message);
        self.check_room(old.is_none(), self.bytes - freed + needed, freed < needed)
    }

    /// Whether a bound is nearly reached: whoever can be told asks from then on.
    pub fn is_tight(&self) -> bool {
        let Options { messages_max, bytes_max } = self.options;
        let near = |max: usize| max - max / 16;
        (messages_max != 0 && self.len() >= near(messages_max))
            || (bytes_max != 0 && self.bytes >= near(bytes_max))
    }

    fn check_room(&self, new: bool, bytes: usize, grows: bool) -> Result<(), Full> {
        let Options { messages_max, bytes_max } = self.options;
        if new && messages_max != 0 && self.len() >= messages_max {
            return Err(Full::Messages { messages_max });
        }
        if grows && bytes_max != 0 && bytes > bytes_max {
            return Err(Full::Bytes { bytes, bytes_max });
        }
        Ok(())
    }

    fn remove(&mut self, hash: u32, index: u32) -> Message {
        match self.table.find_entry(Slot::spread(hash), |slot| slot.index == index) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every message is in the table"),
        }
        let topic = self.topic(index);
        let place = self.order.seek(|other| self.topic(other) < topic);
        let found = self.order.remove(place);
        debug_assert_eq!(found, index, "every message is in the order");
        let message = self.messages.remove(index);
        self.bytes -= reckoned(&message);
        self.expiring -= usize::from(message.view().head.expires != Moment::NEVER);
        crate::trie::shrink(&mut self.table, |slot| Slot::spread(slot.hash));
        message
    }

    fn find(&self, hash: u32, topic: &str) -> Option<u32> {
        let same = |slot: &Slot| slot.hash == hash && self.topic(slot.index) == topic.as_bytes();
        self.table.find(Slot::spread(hash), same).map(|slot| slot.index)
    }

    fn hash(&self, topic: &str) -> u32 {
        let hash = self.hasher.hash_one(topic);
        (hash ^ hash >> 32) as u32
    }

    /// As bytes, whose order is that of the text.
    fn topic(&self, index: u32) -> &[u8] {
        self.messages[index].topic().as_bytes()
    }
}

fn expired(head: &Head, now: Moment) -> bool {
    head.expires <= now
}

fn reckoned(message: &Message) -> usize {
    message.bytes() + INDEX_BYTES
}
