//! The ledger of memory: what a shard holds, in bytes, by what it is for.
//!
//! A row is one line in the table below. What grows in many small pieces is counted where it changes; the rest
//! is capacity times size, looked up when somebody asks. Sizes are those of the allocator's classes
//! ([`crate::heap::allocated`]), so that the sum agrees with what the process really holds; what is missing is the program
//! itself, its stacks, the log, HTTP, and free blocks of the allocator.

use super::Gauges;

/// How two shards' rows become one, and whether a row is part of the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Each shard has its own; added up.
    Own,
    /// Shards share it, and each of them names the whole: the highest counts.
    Process,
    /// A look at what is in other rows already: added up, and not part of the sum.
    Within,
}

/// What a row is reckoned to, for the bytes of one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// A connection.
    Connection,
    /// A session, connected or not.
    Session,
    /// A subscription.
    Subscription,
    /// A message that waits in a session's queue.
    Queued,
    /// A retained message.
    Retained,
    /// The shard itself: costs that are there without clients, or come and go with load.
    Shard,
}

impl Item {
    /// All but [`Item::Shard`], with their names.
    pub const ALL: &[(Item, &str)] = &[
        (Item::Connection, "connection"),
        (Item::Session, "session"),
        (Item::Subscription, "subscription"),
        (Item::Queued, "queued message"),
        (Item::Retained, "retained message"),
    ];

    /// How many of it these gauges tell; a shard is one.
    pub fn count(self, gauges: &Gauges) -> u64 {
        match self {
            Item::Connection => gauges.connections,
            Item::Session => gauges.sessions,
            Item::Subscription => gauges.subscriptions,
            Item::Queued => gauges.queued,
            Item::Retained => gauges.retained,
            Item::Shard => 1,
        }
    }
}

macro_rules! memory {
    ($($share:ident $item:ident $name:ident $doc:literal,)*) => {
        /// The memory of one shard, or of all: bytes by row.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Memory {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Memory {
            /// Name, share, item and meaning of each row, in the order of [`Memory::values`].
            pub const TABLE: &[(&str, Share, Item, &str)] =
                &[$((stringify!($name), Share::$share, Item::$item, $doc),)*];

            /// All rows, in the order of [`Memory::TABLE`].
            pub fn values(&self) -> [u64; Self::TABLE.len()] {
                [$(self.$name,)*]
            }

            /// Takes another shard's memory in, each row by its [`Share`].
            pub fn add(&mut self, other: &Memory) {
                $(self.$name = Share::$share.join(self.$name, other.$name);)*
            }
        }
    };
}

memory! {
    Own Connection connections "The table of connections.",
    Own Connection slots "The driver's table of connections.",
    Own Connection timers "The timer wheel: a keep alive of each connection, mostly.",
    Own Connection buffers "What connections received and did not decode, wrote and did not send, and topic aliases.",
    Own Connection transports "TLS and WebSocket of connections: keys, and what is not complete or not sent.",
    Own Session sessions "The table of sessions.",
    Own Session client_ids "Client identifiers.",
    Own Session clients "The index of sessions by client identifier.",
    Own Session states "Wills, QoS 2 identifiers, lists of subscriptions, and look-ups of retained messages.",
    Own Subscription filters "Topic filters of this shard's sessions and who subscribes to them.",
    Own Subscription routes "Which shards have subscribers: the keys of all shards' filters without wildcards.",
    Own Subscription levels "The tree of filters with wildcards, of all shards.",
    Own Subscription groups "Share groups, of all shards.",
    Own Queued queues "Queues and inflight windows at QoS 1 and 2, without the messages.",
    Own Retained retained "The indices of retained messages.",
    Process Shard messages "All messages, each once: retained, queued, in flight, as wills, between shards.",
    Own Shard sending "Output that the driver is sending.",
    Own Shard pool "Output buffers that are kept for reuse.",
    Own Shard receive "Receive buffers that were used.",
    Own Shard rings "Submission and completion queues.",
    Own Shard mesh "Rings from other shards, and what waits for room in theirs.",
    Own Shard work "Fan-outs under way, lists of work, scratch space.",
    Own Shard losses "The ledger of losses.",
    Within Queued queued_messages "Of the messages: those in queues, counted in each queue that has them.",
    Within Retained retained_messages "Of the messages: those that are retained.",
}

impl Memory {
    /// Name and bytes of each row.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::TABLE.iter().map(|(name, ..)| *name).zip(self.values())
    }

    /// All bytes, each once.
    pub fn total(&self) -> u64 {
        let rows = Self::TABLE.iter().zip(self.values());
        rows.filter(|((_, share, ..), _)| *share != Share::Within).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that are reckoned to an item.
    pub fn of(&self, item: Item) -> u64 {
        Self::TABLE.iter().zip(self.values()).filter(|((_, _, of, _), _)| *of == item).map(|(_, b)| b).sum()
    }

    /// Bytes of one of each item of which there are any: name, how many there are, bytes of one.
    pub fn each<'a>(&'a self, gauges: &'a Gauges) -> impl Iterator<Item = (&'static str, u64, f64)> + 'a {
        Item::ALL.iter().filter_map(|(item, name)| {
            let count = item.count(gauges);
            (count > 0).then(|| (*name, count, self.of(*item) as f64 / count as f64))
        })
    }
}

impl Share {
    fn join(self, a: u64, b: u64) -> u64 {
        match self {
            Share::Own | Share::Within => a.wrapping_add(b),
            Share::Process => a.max(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_join_by_share_and_count_once() {
        let mut a = Memory { connections: 100, messages: 50, queued_messages: 70, ..Memory::default() };
        a.add(&Memory { connections: 11, messages: 50, retained: 5, ..Memory::default() });
        assert_eq!((a.connections, a.messages, a.retained, a.queued_messages), (111, 50, 5, 70));
        assert_eq!(a.total(), 166);
        assert_eq!((a.of(Item::Connection), a.of(Item::Queued)), (111, 70));
        let gauges = Gauges { connections: 3, ..Gauges::default() };
        assert_eq!(a.each(&gauges).collect::<Vec<_>>(), [("connection", 3, 37.0)]);
    }

    #[test]
    fn names_of_rows_are_no_counters() {
        for (name, ..) in Memory::TABLE {
            let twice = Memory::TABLE.iter().filter(|(other, ..)| other == name).count();
            assert_eq!(twice, 1, "{name}");
        }
    }
}
