//! Reading a log from its first byte to its last, whatever is in it.
//!
//! What was committed was synced before the next group was written, so only the last group of the log can be torn.
//! A group that is broken with a whole one behind it, or with a later segment that begins behind it, is damage.

use super::format::{
    Broken, GROUP_HEAD_BYTES, GROUP_MARK, GroupHead, HEAD_BYTES, Head, RECORD_HEAD_BYTES, Record, VERSION,
    read_head, read_record, u32_at,
};
use super::index::At;
use super::{Segment, failed, number_of};
use crate::store::engine::{Fault, FaultKind};
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// A place in the log where something was that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// The first byte.
    pub offset: u64,
    /// Bytes up to what can be read again.
    pub bytes: u64,
    /// What is known to be gone; `None`: one record, and everything else is whole.
    pub groups: Option<(u64, u64)>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {:010}.log: {} bytes at {} are damaged: ", self.segment, self.bytes, self.offset)?;
        match self.groups {
            None => f.write_str("one record is lost"),
            Some((first, last)) if first == last => write!(f, "records of commit {first} are lost"),
            Some((first, last)) => write!(f, "commits {first} to {last} are lost"),
        }
    }
}

/// What a recovery found.
#[derive(Debug, Default)]
pub struct Found {
    /// All segments, by number.
    pub segments: BTreeMap<u32, Segment>,
    /// Number of the last group that counts.
    pub group: u64,
    /// Its bytes, head included.
    pub last: Vec<u8>,
    /// What cannot be read.
    pub damages: Vec<Damage>,
}

/// Reads the log of a folder and shows each record that counts, in order.
pub fn recover(
    disk: &dyn super::Disk,
    each: &mut dyn FnMut(&Record<'_>, At) -> Result<(), Fault>,
) -> Result<Found, Fault> {
    let mut numbers: Vec<u32> = disk
        .list()
        .map_err(|error| failed(disk, &error))?
        .iter()
        .filter_map(|name| number_of(name))
        .collect();
    numbers.sort_unstable();
    let mut heads = Vec::new();
    for number in numbers {
        let file = disk.open(&super::name_of(number)).map_err(|error| failed(disk, &error))?;
        let head = first_of(&*file).map_err(|error| failed(disk, &error))?;
        if let Head::Version(version) = head {
            return Err(Fault::new(
                FaultKind::Version,
                format!(
                    "the store in {} is of format version {version}, expected {VERSION}; use the ringmq that wrote it",
                    disk.name()
                ),
            ));
        }
        heads.push((number, file, head));
    }
    let after = |head: &Head| if let Head::After(after) = head { Some(*after) } else { None };
    let mut found = Found::default();
    let mut reader = Reader {
        group: heads.first().and_then(|(_, _, head)| after(head)),
        last: Vec::new(),
        damages: Vec::new(),
    };
    let mut bytes = Vec::new();
    for index in 0..heads.len() {
        let limit =
            heads[index + 1..].iter().filter_map(|(_, _, head)| after(head)).min().unwrap_or(u64::MAX);
        let (number, file, head) = &heads[index];
        if let Some(after) = after(head) {
            reader.expect(*number, after);
        }
        let size = file.size().map_err(|error| failed(disk, &error))?;
        bytes.resize(size as usize, 0);
        let got = file.read_at(&mut bytes, 0).map_err(|error| failed(disk, &error))?;
        bytes.truncate(got);
        // The first write of a segment has up to two groups, of which the first one may be nowhere else.
        let behind = Some(reader.group.unwrap_or(0) + 2);
        let begun =
            after(head).is_some() || limit < u64::MAX || next_group(&bytes, HEAD_BYTES, behind).is_some();
        // A segment whose first write was torn, and never answered, ends where it begins.
        let end = if begun { reader.segment(*number, &bytes, limit, each)? } else { HEAD_BYTES as u64 };
        found.segments.insert(*number, Segment { file: None, end });
    }
    for (number, file, _) in heads {
        found.segments.entry(number).and_modify(|segment| segment.file = Some(file));
    }
    found.group = reader.group.unwrap_or(0);
    found.last = reader.last;
    found.damages = reader.damages;
    Ok(found)
}

/// The head of a segment. It was written and synced with the segment's first group: where that is not whole, nobody
/// was answered, and the head says nothing.
fn first_of(file: &dyn super::File) -> io::Result<Head> {
    let mut bytes = vec![0; HEAD_BYTES + GROUP_HEAD_BYTES];
    let got = file.read_at(&mut bytes, 0)?;
    let head = read_head(&bytes[..got]);
    let (Head::After(after), Some(group)) =
        (head, GroupHead::decode(&bytes[HEAD_BYTES..got.max(HEAD_BYTES)]))
    else {
        return Ok(if matches!(head, Head::Version(_)) { head } else { Head::Torn });
    };
    let end = HEAD_BYTES as u64 + GROUP_HEAD_BYTES as u64 + u64::from(group.body_bytes);
    if group.number != after + 1 || end > file.size()? {
        return Ok(Head::Torn);
    }
    let mut records = vec![0; group.body_bytes as usize];
    file.read_at(&mut records, (HEAD_BYTES + GROUP_HEAD_BYTES) as u64)?;
    Ok(if is_whole(&records, &group) { head } else { Head::Torn })
}

struct Reader {
    /// The last group that was read.
    group: Option<u64>,
    /// Its bytes.
    last: Vec<u8>,
    damages: Vec<Damage>,
}

impl Reader {
    /// A segment begins behind this group.
    fn expect(&mut self, segment: u32, after: u64) {
        let group = self.group.unwrap_or(after);
        if group < after {
            self.damages.push(Damage { segment, offset: 0, bytes: 0, groups: Some((group + 1, after)) });
            self.group = Some(after);
        }
    }

    /// Reads a segment; returns the end of its last group that counts.
    fn segment(
        &mut self,
        segment: u32,
        bytes: &[u8],
        limit: u64,
        each: &mut dyn FnMut(&Record<'_>, At) -> Result<(), Fault>,
    ) -> Result<u64, Fault> {
        let mut offset = HEAD_BYTES;
        let mut end = offset;
        let mut kept = None;
        while let Some(at) = next_group(bytes, offset, self.group) {
            let Some(head) = GroupHead::decode(&bytes[at..]) else { break };
            if head.number > limit {
                break;
            }
            let before = self.group.unwrap_or(head.number - 1);
            if at > offset || head.number > before + 1 {
                let groups = Some((before + 1, (head.number - 1).max(before + 1)));
                let (offset, bytes) = (offset as u64, (at - offset) as u64);
                self.damages.push(Damage { segment, offset, bytes, groups });
            }
            let body = at + GROUP_HEAD_BYTES;
            offset = body + head.body_bytes as usize;
            let records = &bytes[body..offset];
            let last = limit == u64::MAX && next_group(bytes, offset, Some(head.number)).is_none();
            if last && !is_whole(records, &head) {
                // Torn: it was never answered.
                break;
            }
            self.records(segment, records, body, &head, each)?;
            self.group = Some(head.number);
            end = offset;
            kept = Some(at..offset);
        }
        if let Some(kept) = kept {
            self.last = bytes[kept].to_vec();
        }
        Ok(end as u64)
    }

    fn records(
        &mut self,
        segment: u32,
        records: &[u8],
        start: usize,
        head: &GroupHead,
        each: &mut dyn FnMut(&Record<'_>, At) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut at, mut ends) = (0, None);
        while at < records.len() {
            let offset = (start + at) as u64;
            let bytes = match read_record(&records[at..]) {
                Ok((record, bytes)) => {
                    each(&record, At { segment, offset: offset as u32, bytes: bytes as u32 })?;
                    bytes
                }
                // Where a length is wrong, nothing behind it can be found.
                Err(Broken::Content(bytes)) if *ends.get_or_insert_with(|| lengths_agree(records, head)) => {
                    self.damages.push(Damage { segment, offset, bytes: bytes as u64, groups: None });
                    bytes
                }
                Err(_) => {
                    let bytes = (records.len() - at) as u64;
                    let groups = Some((head.number, head.number));
                    self.damages.push(Damage { segment, offset, bytes, groups });
                    return Ok(());
                }
            };
            at += bytes;
        }
        Ok(())
    }
}

/// Whether the lengths of the records lead to the end of the group, whatever is in them.
fn lengths_agree(records: &[u8], head: &GroupHead) -> bool {
    let (mut at, mut count) = (0, 0);
    while records.len() - at >= RECORD_HEAD_BYTES {
        let end = at + RECORD_HEAD_BYTES + u32_at(records, at) as usize;
        if end > records.len() {
            return false;
        }
        at = end;
        count += 1;
    }
    at == records.len() && count == head.records
}

fn is_whole(mut records: &[u8], head: &GroupHead) -> bool {
    let mut count = 0;
    while let Ok((_, bytes)) = read_record(records) {
        records = &records[bytes..];
        count += 1;
    }
    records.is_empty() && count == head.records
}

/// The next place from `from` on where a group begins whose number is above `after` and whose end is there.
fn next_group(bytes: &[u8], from: usize, after: Option<u64>) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += find(rest, GROUP_MARK)?;
        if let Some(head) = GroupHead::decode(&bytes[at..])
            && after.is_none_or(|after| head.number > after)
            && bytes.len() - at - GROUP_HEAD_BYTES >= head.body_bytes as usize
        {
            return Some(at);
        }
        at += 1;
    }
}

fn find(bytes: &[u8], mark: &[u8; 4]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
