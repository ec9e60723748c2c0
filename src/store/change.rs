//! What a shard wants written, and what it reads back: plain data, whose bytes mean nothing to the store.

/// The identity of a session, and of its queue: never given twice in the life of a store, see
/// [`super::Ids`].
pub type SessionId = u64;

/// The identity of a body that several entries point to, drawn from the same [`super::Ids`].
pub type BodyId = u64;

/// One thing to be written. A change may be written twice, with the same end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A session is as these bytes say.
    PutSession {
        /// Which.
        id: SessionId,
        /// All of it but its queue.
        bytes: Box<[u8]>,
    },
    /// A session and its queue are gone. The identity does not come back.
    DropSession {
        /// Which.
        id: SessionId,
    },
    /// An entry of a queue. A queue exists by its entries, with or without a session.
    Push {
        /// Whose queue.
        queue: SessionId,
        /// Its place. Places of a queue are pushed in rising order; gaps are allowed.
        seq: u64,
        /// The body that it points to, put in the same batch before it.
        body: Option<BodyId>,
        /// What is its own.
        bytes: Box<[u8]>,
    },
    /// One entry is done with. One that is not there is no fault.
    Pop {
        /// Whose queue.
        queue: SessionId,
        /// Its place.
        seq: u64,
    },
    /// All entries up to this place are done with.
    Trim {
        /// Whose queue.
        queue: SessionId,
        /// The last of them.
        to: u64,
    },
    /// A body for entries that are pushed in the same batch behind it. It is kept while at least one of them is
    /// left, which the store counts.
    PutBody {
        /// Which.
        id: BodyId,
        /// The body.
        bytes: Box<[u8]>,
    },
    /// The retained message of a topic.
    SetRetained {
        /// The topic.
        topic: Box<str>,
        /// The message.
        bytes: Box<[u8]>,
    },
    /// A topic has no retained message.
    ClearRetained {
        /// The topic.
        topic: Box<str>,
    },
    /// Something small that the broker keeps by name, such as a ban.
    PutMeta {
        /// Its name.
        key: Box<str>,
        /// What it is.
        bytes: Box<[u8]>,
    },
    /// It is kept no longer.
    DropMeta {
        /// Its name.
        key: Box<str>,
    },
}

impl Change {
    /// Bytes that it is reckoned to take on its way to the disk.
    pub fn weight(&self) -> usize {
        let own = match self {
            Change::PutSession { bytes, .. } | Change::Push { bytes, .. } | Change::PutBody { bytes, .. } => {
                bytes.len()
            }
            Change::SetRetained { topic: name, bytes } | Change::PutMeta { key: name, bytes } => {
                name.len() + bytes.len()
            }
            Change::ClearRetained { topic: name } | Change::DropMeta { key: name } => name.len(),
            Change::DropSession { .. } | Change::Pop { .. } | Change::Trim { .. } => 0,
        };
        size_of::<Change>() + own
    }
}

/// What a shard hands over at once, to be committed as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Its number: 1, 2, … per shard and start. It is the ticket of everything in it.
    pub number: u64,
    /// Its place among the batches of all shards: larger than that of any batch from which something in it followed.
    pub order: u64,
    /// In order.
    pub changes: Vec<Change>,
}

/// Asks for entries of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Whose queue.
    pub queue: SessionId,
    /// The first place that is wanted.
    pub from: u64,
    /// Entries at most.
    pub entries_max: u32,
    /// Bytes of entries and bodies at most; one entry is given whatever its size.
    pub bytes_max: u32,
}

/// Entries of a queue, in order: what is committed, with all batches up to [`Entries::through`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// Whose queue.
    pub queue: SessionId,
    /// The batch of the asking shard up to which this holds.
    pub through: u64,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether there are more behind them.
    pub more: bool,
    /// Entries that were to be here and cannot be read any more: they are lost, and the log says where.
    pub lost: u32,
}

/// One entry of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place.
    pub seq: u64,
    /// What is its own.
    pub bytes: Box<[u8]>,
    /// The body that it points to.
    pub body: Option<(BodyId, Box<[u8]>)>,
}

/// What a store holds, as [`super::Engine::scan`] shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept<'a> {
    /// A session.
    Session {
        /// Which.
        id: SessionId,
        /// As it was put.
        bytes: &'a [u8],
    },
    /// A queue that has entries.
    Queue(QueueRow),
    /// A retained message.
    Retained {
        /// The topic.
        topic: &'a str,
        /// As it was set.
        bytes: &'a [u8],
    },
    /// Something small.
    Meta {
        /// Its name.
        key: &'a str,
        /// As it was put.
        bytes: &'a [u8],
    },
}

/// What is known of a queue without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueRow {
    /// Whose.
    pub queue: SessionId,
    /// The place of the first entry.
    pub first: u64,
    /// The place of the last one.
    pub last: u64,
    /// Entries.
    pub count: u64,
}

/// Whether the store writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// It does.
    #[default]
    Ok,
    /// It does not, and tries again by itself. What was handed over and not committed stays where it is.
    ReadOnly {
        /// Why, and what to do.
        why: Box<str>,
    },
}
