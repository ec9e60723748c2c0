//! What is in the files. All numbers are little-endian; each checksum is the CRC-32 of ISO-HDLC.
//!
//! ```text
//! segment  NNNNNNNNNN.log = head, group, group, …
//! head     "RINGMQ-S" | version u32 | 0 u32 | after u64 | crc u32 of what is before | 0 u32       32 bytes
//! group    "GRP1" | body bytes u32 | number u64 | records u32 | crc u32 of what is before          24 bytes
//!          | record, record, …
//! record   payload bytes u32 | crc u32 of the payload | payload = kind u8, then what the kind says
//! ```
//!
//! Groups are numbered 1, 2, … through all segments. A group is one commit: all of it counts, or nothing. Groups of
//! a segment whose number is above the `after` of a later segment do not count: their commit failed, and what they
//! held was written again.

use crate::store::change::{BodyId, Change, SessionId};

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Bytes of a segment's head.
pub const HEAD_BYTES: usize = 32;
/// Bytes before the records of a group.
pub const GROUP_HEAD_BYTES: usize = 24;
/// Bytes before the payload of a record.
pub const RECORD_HEAD_BYTES: usize = 8;

const MAGIC: &[u8; 8] = b"RINGMQ-S";
/// What a group begins with.
pub const GROUP_MARK: &[u8; 4] = b"GRP1";

/// What the head of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// It begins behind this group.
    After(u64),
    /// It is of another version.
    Version(u32),
    /// It is not whole.
    Torn,
}

/// The head of a segment that begins behind group `after`.
pub fn head(after: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..24].copy_from_slice(&after.to_le_bytes());
    let crc = crc32fast::hash(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads the head of a segment.
pub fn read_head(bytes: &[u8]) -> Head {
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Head::Torn };
    if &head[..8] != MAGIC || u32_at(head, 24) != crc32fast::hash(&head[..24]) {
        return Head::Torn;
    }
    match u32_at(head, 8) {
        VERSION => Head::After(u64_at(head, 16)),
        version => Head::Version(version),
    }
}

/// What stands before the records of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHead {
    /// Bytes of all records, their heads included.
    pub body_bytes: u32,
    /// Its number.
    pub number: u64,
    /// Records.
    pub records: u32,
}

impl GroupHead {
    /// Its bytes.
    pub fn encode(&self) -> [u8; GROUP_HEAD_BYTES] {
        let mut head = [0; GROUP_HEAD_BYTES];
        head[..4].copy_from_slice(GROUP_MARK);
        head[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[8..16].copy_from_slice(&self.number.to_le_bytes());
        head[16..20].copy_from_slice(&self.records.to_le_bytes());
        let crc = crc32fast::hash(&head[..20]);
        head[20..24].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Reads it, if it is whole.
    pub fn decode(bytes: &[u8]) -> Option<GroupHead> {
        let head = bytes.get(..GROUP_HEAD_BYTES)?;
        let whole = &head[..4] == GROUP_MARK && u32_at(head, 20) == crc32fast::hash(&head[..20]);
        let (body_bytes, number, records) = (u32_at(head, 4), u64_at(head, 8), u32_at(head, 16));
        whole.then_some(GroupHead { body_bytes, number, records })
    }
}

/// One record, as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// [`Change::PutSession`].
    PutSession(SessionId, &'a [u8]),
    /// [`Change::DropSession`].
    DropSession(SessionId),
    /// [`Change::Push`].
    Push(SessionId, u64, Option<BodyId>, &'a [u8]),
    /// [`Change::Pop`].
    Pop(SessionId, u64),
    /// [`Change::Trim`].
    Trim(SessionId, u64),
    /// [`Change::PutBody`].
    PutBody(BodyId, &'a [u8]),
    /// [`Change::SetRetained`].
    SetRetained(&'a str, &'a [u8]),
    /// [`Change::ClearRetained`].
    ClearRetained(&'a str),
    /// [`Change::PutMeta`].
    PutMeta(&'a str, &'a [u8]),
    /// [`Change::DropMeta`].
    DropMeta(&'a str),
    /// The store was opened for this time, from 1.
    Start(u64),
}

/// Appends a record.
pub fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend([0; RECORD_HEAD_BYTES]);
    match *record {
        Record::PutSession(id, bytes) => put(out, 1, &[id], &[bytes]),
        Record::DropSession(id) => put(out, 2, &[id], &[]),
        Record::Push(queue, seq, None, bytes) => put(out, 3, &[queue, seq], &[bytes]),
        Record::Push(queue, seq, Some(body), bytes) => put(out, 4, &[queue, seq, body], &[bytes]),
        Record::Pop(queue, seq) => put(out, 5, &[queue, seq], &[]),
        Record::Trim(queue, to) => put(out, 6, &[queue, to], &[]),
        Record::PutBody(id, bytes) => put(out, 7, &[id], &[bytes]),
        Record::SetRetained(topic, bytes) => put(out, 8, &[], &[&name(topic), topic.as_bytes(), bytes]),
        Record::ClearRetained(topic) => put(out, 9, &[], &[&name(topic), topic.as_bytes()]),
        Record::PutMeta(key, bytes) => put(out, 10, &[], &[&name(key), key.as_bytes(), bytes]),
        Record::DropMeta(key) => put(out, 11, &[], &[&name(key), key.as_bytes()]),
        Record::Start(number) => put(out, 12, &[number], &[]),
    }
    let payload = start + RECORD_HEAD_BYTES;
    let (bytes, crc) = ((out.len() - payload) as u32, crc32fast::hash(&out[payload..]));
    out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
    out[start + 4..payload].copy_from_slice(&crc.to_le_bytes());
}

fn put(out: &mut Vec<u8>, kind: u8, numbers: &[u64], parts: &[&[u8]]) {
    out.push(kind);
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn name(text: &str) -> [u8; 4] {
    (text.len() as u32).to_le_bytes()
}

/// Why a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// It says that it ends outside of its group: nothing behind it can be found.
    Length,
    /// Its checksum or its content is wrong; it has so many bytes, with its head.
    Content(usize),
}

/// Reads the record that `bytes` begin with; with its bytes, head included.
pub fn read_record(bytes: &[u8]) -> Result<(Record<'_>, usize), Broken> {
    let head = bytes.get(..RECORD_HEAD_BYTES).ok_or(Broken::Length)?;
    let end = RECORD_HEAD_BYTES + u32_at(head, 0) as usize;
    let payload = bytes.get(RECORD_HEAD_BYTES..end).ok_or(Broken::Length)?;
    if crc32fast::hash(payload) != u32_at(head, 4) {
        return Err(Broken::Content(end));
    }
    let record = decode(payload).ok_or(Broken::Content(end))?;
    Ok((record, end))
}

fn decode(payload: &[u8]) -> Option<Record<'_>> {
    let (kind, rest) = payload.split_first()?;
    let number = |at: usize| rest.get(at * 8..at * 8 + 8).map(|bytes| u64_at(bytes, 0));
    let tail = |numbers: usize| rest.get(numbers * 8..);
    Some(match kind {
        1 => Record::PutSession(number(0)?, tail(1)?),
        2 => Record::DropSession(number(0)?),
        3 => Record::Push(number(0)?, number(1)?, None, tail(2)?),
        4 => Record::Push(number(0)?, number(1)?, Some(number(2)?), tail(3)?),
        5 => Record::Pop(number(0)?, number(1)?),
        6 => Record::Trim(number(0)?, number(1)?),
        7 => Record::PutBody(number(0)?, tail(1)?),
        8 => named(rest).map(|(topic, bytes)| Record::SetRetained(topic, bytes))?,
        9 => named(rest).map(|(topic, _)| Record::ClearRetained(topic))?,
        10 => named(rest).map(|(key, bytes)| Record::PutMeta(key, bytes))?,
        11 => named(rest).map(|(key, _)| Record::DropMeta(key))?,
        12 => Record::Start(number(0)?),
        _ => return None,
    })
}

fn named(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = rest.split_at_checked(4)?;
    let (name, bytes) = rest.split_at_checked(u32_at(length, 0) as usize)?;
    Some((std::str::from_utf8(name).ok()?, bytes))
}

impl<'a> From<&'a Change> for Record<'a> {
    fn from(change: &'a Change) -> Record<'a> {
        match change {
            Change::PutSession { id, bytes } => Record::PutSession(*id, bytes),
            Change::DropSession { id } => Record::DropSession(*id),
            Change::Push { queue, seq, body, bytes } => Record::Push(*queue, *seq, *body, bytes),
            Change::Pop { queue, seq } => Record::Pop(*queue, *seq),
            Change::Trim { queue, to } => Record::Trim(*queue, *to),
            Change::PutBody { id, bytes } => Record::PutBody(*id, bytes),
            Change::SetRetained { topic, bytes } => Record::SetRetained(topic, bytes),
            Change::ClearRetained { topic } => Record::ClearRetained(topic),
            Change::PutMeta { key, bytes } => Record::PutMeta(key, bytes),
            Change::DropMeta { key } => Record::DropMeta(key),
        }
    }
}

/// The number at a place that is there.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}
