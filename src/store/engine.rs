//! What the store asks of an engine.

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
