//! What the store asks of an engine, and why it is a log of its own.
//!
//! Measured beside fjall 3.1, redb 4.5 and SQLite 3 (rusqlite 0.41, WAL, `synchronous = full`): entries of 200 bytes
//! pushed to random queues, each popped 5,000 (churn: 200,000) entries later, every commit synced; ext4 on a virtual
//! disk, 2 cores shared with other work, engines in turns, medians of 3 runs. A sync took 0.1 to 8 ms there, and with
//! it the rate: for the same engine it varied twofold, so that rates of single messages say nothing about engines. Bytes
//! do.
//!
//! | | log | fjall | redb | SQLite |
//! |---|---|---|---|---|
//! | messages/s, one a commit: 1, 100, 10,000 sessions | 230, 485, 255 | 481, 203, 323 | 282, 268, 230 | 446, 214, 391 |
//! | p99 of these commits, ms | 8 to 12 | 8 to 12 | 11 to 13 | 8 to 12 |
//! | messages/s, 256 a commit: 1, 100, 10,000 sessions | 52k, 41k, 44k | 45k, 44k, 39k | 52k, 83k, 69k | 51k, 42k, 36k |
//! | p99 of these commits, ms | 15 to 24 | 12 to 16 | 11 to 15 | 15 to 21 |
//! | bytes to the disk per message, one a commit | 4.3 KB | 4.4 KB | 28.7 KB | 11.5 KB |
//! | the same, 256 a commit: 1, 10,000 sessions | 263, 263 | 287, 287 | 392, 4,821 | 660, 5,548 |
//! | churn: 1.5 million messages, 1,000 a commit | 8.0 s | 13.3 s | 28.4 s | 29.8 s |
//! | written for that; on the disk for 43 MB live | 370; 172 MB | 746; 225 MB | 5,547; 90 MB | 7,201; 58 MB |
//! | 1 million queued, 100,000 sessions: open and list queues | 1.00 s | 0.73 s | 0.21 s | 0.32 s |
//! | their bytes on the disk; in memory | 146; 48 MB | 178; 14 MB | 247; 0 MB | 199; 1 MB |
//! | disk full, then room again | goes on | poisoned until it is opened again | so, too | goes on |
//! | torn write | left behind | its journal ends there | the older root is used | its log ends there |
//! | a flipped bit | one record | a block | not checked in use | not checked |
//!
//! The last two rows but for the log's are what their documents say. The log writes least by far where a commit is
//! small or keys are spread, recovers from a full disk by itself, loses one record to a flipped bit, brings nothing to
//! compile, and lets a test stand in for the disk. It pays in memory, 24 bytes for an entry and what the queue's buffer
//! has to spare, and at the start, as all of it is read (and checked): 10 million queued messages of 112 bytes for 1
//! million sessions, 1.5 GB, open in 4.0 to 6.0 s and hold 522 MB.

use super::change::{Change, Entries, Kept, Read};
use std::fmt;

/// What keeps changes on a disk, or seems to.
///
/// Calls block, and come from one thread.
pub trait Engine {
    /// Applies changes in order, all of them or none, and returns when they would survive a power cut.
    ///
    /// # Errors
    /// Nothing is applied. Whether they are there after a crash is open until a later commit succeeds: from then
    /// on they are not. Whoever tries again hands in the same changes, or what is left of them.
    fn commit(&mut self, changes: &[Change]) -> Result<(), Fault>;

    /// Entries of a queue; [`Entries::through`] is the caller's to fill in.
    ///
    /// # Errors
    /// When nothing could be read. An entry that is damaged is left out and counted.
    fn read(&mut self, read: &Read) -> Result<Entries, Fault>;

    /// Shows everything that is kept but the entries of queues: sessions, queues, retained messages, the rest.
    ///
    /// # Errors
    /// When something could not be read. What is damaged is left out; [`Engine::figures`] counts it.
    fn scan(&mut self, each: &mut dyn FnMut(Kept<'_>)) -> Result<(), Fault>;

    /// How often this store was opened, this time included: from 1.
    fn starts(&self) -> u64;

    /// Does a bounded piece of work that makes room; `true`: there is more of it.
    ///
    /// # Errors
    /// As [`Engine::commit`]; nothing that is kept is lost.
    fn tidy(&mut self) -> Result<bool, Fault>;

    /// What is held.
    fn figures(&self) -> Figures;
}

/// Why an engine did not do what it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// What was expected and what came, and what to do.
    pub text: String,
}

/// What a fault is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// There is no room: on the disk, or in what the store may take of it.
    Full,
    /// The disk or the file system failed.
    Disk,
    /// What is on the disk is not what was written.
    Damaged,
    /// Another process has the store.
    Busy,
    /// The store is of another version.
    Version,
}

impl Fault {
    /// A fault, in words.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Fault {
        Fault { kind, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

/// What a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Sessions.
    pub sessions: u64,
    /// Queues with entries.
    pub queues: u64,
    /// Entries of all queues.
    pub entries: u64,
    /// Bodies that entries point to.
    pub bodies: u64,
    /// Retained messages.
    pub retained: u64,
    /// Small things by name.
    pub meta: u64,
    /// Bytes of all of them on the disk.
    pub bytes_live: u64,
    /// Bytes on the disk.
    pub bytes_disk: u64,
    /// Bytes in memory.
    pub bytes_memory: u64,
    /// Bytes written since the start.
    pub bytes_written: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Damaged places that were fenced off.
    pub damaged: u64,
}
