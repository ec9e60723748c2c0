//! The engine: a log in segments, and in memory where everything in it stands.
//!
//! A commit is one write at the end of the newest segment and one fdatasync. What was overwritten or popped is
//! garbage; when there is more of it than of what counts, the oldest segment's live records are written again at the
//! end, and the segment is removed. Only the oldest one: so a record that says that something is gone outlives
//! everything that it concerns.
//!
//! After a write that failed, the newest segment is left where it is, and the next commit begins a new one, whose
//! head says which groups count: what the failed write left on the disk does not matter, and nothing is asked of
//! a file whose fsync has failed. An open writes nothing for the same reason: what a power cut tore stays behind. The
//! first commit of a start writes the last group again before its own: it may have been read from a cache, and its
//! sync may never have happened.
//!
//! Damage: a record that is broken is fenced off, named in the log and counted. When more than that is unreadable
//! (the head of a group, a segment), the open is refused, for it is not known what is missing; a salvage takes
//! everything that can be read.

mod backup;
mod disk;
mod export;
mod format;
mod index;
mod recover;
#[cfg(test)]
#[path = "sim_tests.rs"]
mod sim;
#[cfg(test)]
mod tests;

pub use backup::backup;
pub use disk::{Disk, File, Folder};
pub use recover::Damage;

use super::change::{Change, Entries, Entry, Kept, Read};
use super::engine::{Engine, Fault, FaultKind, Figures};
use crate::limits::{STORE_SEGMENT_BYTES, STORE_SLACK_BYTES, STORE_TIDY_BYTES};
use export::Window;
use format::{Broken, GROUP_HEAD_BYTES, GroupHead, HEAD_BYTES, Record, put_record, read_record};
use index::{At, Index};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Sizes of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// Bytes above which a segment is followed by a new one.
    pub segment_bytes: u64,
    /// Garbage up to which nothing is done about it, beside as many bytes as are live.
    pub slack_bytes: u64,
    /// Opens also what has lost more than single records.
    pub salvage: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: STORE_SEGMENT_BYTES, slack_bytes: STORE_SLACK_BYTES, salvage: false }
    }
}

/// A file of the log.
pub struct Segment {
    /// Open for reads. `None`: nothing in it counts.
    file: Option<Box<dyn File>>,
    /// The end of its last group that counts.
    end: u64,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment up to {}", self.end)
    }
}

/// A store in a folder.
pub struct LogEngine {
    disk: Box<dyn Disk>,
    options: LogOptions,
    index: Index,
    segments: BTreeMap<u32, Segment>,
    /// The segment that is written, which is the last one. `None`: the next commit begins one.
    active: Option<u32>,
    /// A number that no segment had.
    next_segment: u32,
    /// Number of the last group.
    group: u64,
    starts: u64,
    start_written: bool,
    /// The last group that an open found, until it is written again.
    last: Vec<u8>,
    /// The group that is made.
    buffer: Vec<u8>,
    /// How far the oldest segment's live records were written again.
    tidied: Option<(u32, u64)>,
    /// The oldest segment cannot be read through.
    stuck: bool,
    damages: Vec<Damage>,
    bytes_written: u64,
    commits: u64,
}

impl std::fmt::Debug for LogEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEngine").field("disk", &self.disk.name()).field("group", &self.group).finish()
    }
}

impl LogEngine {
    /// Opens the store in a folder, which is made where it is not there, for this process alone.
    ///
    /// # Errors
    /// [`FaultKind::Busy`], [`FaultKind::Version`], [`FaultKind::Damaged`], or that of the file system.
    pub fn open(path: &Path) -> Result<LogEngine, Fault> {
        LogEngine::on(Box::new(take(path)?), LogOptions::default())
    }

    /// As [`LogEngine::open`], and whatever can be read is taken.
    ///
    /// # Errors
    /// As [`LogEngine::open`], but for damage.
    pub fn salvage(path: &Path) -> Result<LogEngine, Fault> {
        LogEngine::on(Box::new(take(path)?), LogOptions { salvage: true, ..LogOptions::default() })
    }

    /// Opens the store on a disk. Nothing is written before the first commit.
    ///
    /// # Errors
    /// As [`LogEngine::open`].
    pub fn on(disk: Box<dyn Disk>, options: LogOptions) -> Result<LogEngine, Fault> {
        let mut index = Index::default();
        let found = recover::recover(&*disk, &mut |record, at| {
            index.apply(record, at);
            Ok(())
        })?;
        index.settle();
        for damage in &found.damages {
            tracing::error!("{}: {damage}", disk.name());
        }
        if let Some(damage) = found.damages.iter().find(|damage| damage.groups.is_some() && !options.salvage)
        {
            return Err(Fault::new(
                FaultKind::Damaged,
                format!(
                    "the store in {} is damaged: {damage}; `ringmq store salvage` takes what can be read into a new one",
                    disk.name()
                ),
            ));
        }
        let next_segment = found.segments.last_key_value().map_or(1, |(number, _)| number + 1);
        let starts = index.starts() + 1;
        Ok(LogEngine {
            disk,
            options,
            index,
            segments: found.segments,
            active: None,
            next_segment,
            group: found.group,
            starts,
            start_written: false,
            last: found.last,
            buffer: Vec::new(),
            tidied: None,
            stuck: false,
            damages: found.damages,
            bytes_written: 0,
            commits: 0,
        })
    }

    /// What could not be read when it was opened, and since.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Begins a group in the buffer.
    fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES + GROUP_HEAD_BYTES, 0);
        if !self.start_written {
            put_record(&mut self.buffer, &Record::Start(self.starts));
        }
    }

    /// Writes the group in the buffer, syncs it, and takes its records into the index.
    fn end(&mut self, records: u32) -> Result<(), Fault> {
        let body = HEAD_BYTES + GROUP_HEAD_BYTES;
        let number = self.group + 1;
        let records = records + u32::from(!self.start_written);
        let body_bytes =
            u32::try_from(self.buffer.len() - body)
                .ok()
                .filter(|bytes| *bytes < u32::MAX / 2)
                .ok_or_else(|| Fault::new(FaultKind::Full, "expected less than 2 GiB in one commit"))?;
        let head = GroupHead { body_bytes, number, records }.encode();
        self.buffer[HEAD_BYTES..body].copy_from_slice(&head);
        let full =
            |segment: &u32| self.segments.get(segment).is_none_or(|s| s.end >= self.options.segment_bytes);
        let active = self.active.filter(|segment| !full(segment));
        let (segment, start) = match active {
            Some(segment) => (segment, self.append(segment)),
            None => self.create(),
        };
        // What a write that failed has left is never written behind: a new segment says that it does not count.
        let start = start.inspect_err(|_| self.active = None).map_err(|error| failed(&*self.disk, &error))?;
        self.active = Some(segment);
        self.group = number;
        self.start_written = true;
        self.commits += 1;
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            let at = start - last.len() as u64 + GROUP_HEAD_BYTES as u64;
            self.index.apply_all(&last[GROUP_HEAD_BYTES..], segment, at);
        }
        self.index.apply_all(&self.buffer[body..], segment, start + GROUP_HEAD_BYTES as u64);
        if self.buffer.capacity() > 4 * STORE_TIDY_BYTES as usize {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Writes the group behind the last one; returns where.
    fn append(&mut self, number: u32) -> io::Result<u64> {
        let segment = self.segments.get_mut(&number).expect("the active segment is one of them");
        let file = segment.file.as_ref().expect("a segment that is known has a file");
        let (start, group) = (segment.end, &self.buffer[HEAD_BYTES..]);
        file.write_at(group, start)?;
        file.sync()?;
        segment.end += group.len() as u64;
        self.bytes_written += group.len() as u64;
        Ok(start)
    }

    /// Writes the group as the first one of a new segment; returns its number, and where.
    fn create(&mut self) -> (u32, io::Result<u64>) {
        let number = self.next_segment;
        self.next_segment += 1;
        let name = name_of(number);
        let after = if self.last.is_empty() { self.group } else { self.group - 1 };
        let whole = [&format::head(after), &self.last[..], &self.buffer[HEAD_BYTES..]].concat();
        let group = (whole.len() + HEAD_BYTES - self.buffer.len()) as u64;
        let written = self.disk.create(&name).and_then(|file| {
            file.write_at(&whole, 0)?;
            file.sync()?;
            self.disk.sync_folder()?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                let end = whole.len() as u64;
                self.bytes_written += end;
                self.segments.insert(number, Segment { file: Some(file), end });
                (number, Ok(group))
            }
            Err(error) => {
                // Where it stays, the next one's head says that it does not count, and it goes in its turn.
                if self.disk.remove(&name).is_err() {
                    self.segments.insert(number, Segment { file: None, end: HEAD_BYTES as u64 });
                }
                (number, Err(error))
            }
        }
    }

    /// The bytes of a record.
    fn fetch(&self, at: At, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let gone = || Fault::new(FaultKind::Damaged, format!("segment {:010}.log is not there", at.segment));
        let file = self.segments.get(&at.segment).and_then(|s| s.file.as_ref()).ok_or_else(gone)?;
        buffer.resize(at.bytes as usize, 0);
        let got = file.read_at(buffer, u64::from(at.offset)).map_err(|error| failed(&*self.disk, &error))?;
        buffer.truncate(got);
        Ok(())
    }

    fn damaged(&mut self, at: At) {
        let damage = Damage {
            segment: at.segment,
            offset: u64::from(at.offset),
            bytes: u64::from(at.bytes),
            groups: None,
        };
        if !self.damages.contains(&damage) {
            tracing::error!("{}: {damage}", self.disk.name());
            self.damages.push(damage);
        }
    }

    /// One entry with its body; `None`: it cannot be read any more.
    fn entry(&mut self, at: At, body: Option<At>, buffer: &mut Vec<u8>) -> Result<Option<Entry>, Fault> {
        self.fetch(at, buffer)?;
        let Ok((Record::Push(_, seq, body_id, bytes), _)) = read_record(buffer) else {
            self.damaged(at);
            return Ok(None);
        };
        let mut entry = Entry { seq, bytes: bytes.into(), body: None };
        let Some(id) = body_id else { return Ok(Some(entry)) };
        let Some(at) = body else { return Ok(None) };
        self.fetch(at, buffer)?;
        match read_record(buffer) {
            Ok((Record::PutBody(_, bytes), _)) => entry.body = Some((id, bytes.into())),
            _ => {
                self.damaged(at);
                return Ok(None);
            }
        }
        Ok(Some(entry))
    }

    /// Removes the oldest segment, of which nothing counts any more.
    fn remove_oldest(&mut self, number: u32) -> Result<(), Fault> {
        let removed = match self.disk.remove(&name_of(number)) {
            // Removed before, and not synced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.sync_folder(),
            other => other.and_then(|()| self.disk.sync_folder()),
        };
        removed.map_err(|error| failed(&*self.disk, &error))?;
        self.segments.remove(&number);
        self.index.forget(number);
        self.tidied = None;
        Ok(())
    }

    /// Writes the next live records of the oldest segment again, at the end of the log.
    fn copy_some(&mut self, number: u32) -> Result<(), Fault> {
        let from =
            self.tidied.filter(|(segment, _)| *segment == number).map_or(HEAD_BYTES as u64, |(_, at)| at);
        let end = self.segments[&number].end;
        let mut window = Vec::new();
        let mut bytes = STORE_TIDY_BYTES.min(end - from);
        let groups = loop {
            let at = At { segment: number, offset: from as u32, bytes: bytes as u32 };
            self.fetch(at, &mut window)?;
            let groups = whole_groups(&window);
            if groups > 0 || bytes >= end - from {
                break groups;
            }
            bytes = (bytes * 2).min(end - from);
        };
        self.begin();
        let (mut at, mut records) = (0, 0);
        while at < groups {
            let head = GroupHead::decode(&window[at..]).expect("it was found whole");
            at += GROUP_HEAD_BYTES;
            let group_end = at + head.body_bytes as usize;
            while at < group_end {
                let (record, bytes) = match read_record(&window[at..group_end]) {
                    Ok(read) => read,
                    Err(Broken::Content(bytes)) => {
                        // Fenced off when the log was read; else what points to it keeps the segment.
                        at += bytes;
                        continue;
                    }
                    Err(Broken::Length) => return Err(self.cannot_copy(number, from + at as u64)),
                };
                let place = At { segment: number, offset: (from + at as u64) as u32, bytes: bytes as u32 };
                if self.index.is_live(&record, place)
                    && (self.start_written || !matches!(record, Record::Start(_)))
                {
                    self.buffer.extend_from_slice(&window[at..at + bytes]);
                    records += 1;
                }
                at += bytes;
            }
        }
        if groups == 0 && from < end {
            return Err(self.cannot_copy(number, from));
        }
        if records > 0 || !self.start_written {
            self.end(records)?;
        }
        self.tidied = Some((number, from + groups as u64));
        Ok(())
    }

    /// A segment that cannot be read through stays for ever.
    fn cannot_copy(&mut self, number: u32, at: u64) -> Fault {
        self.stuck = true;
        let text = format!(
            "segment {number:010}.log is damaged at {at}: its room is not given back; stop the broker and use \
             `ringmq store salvage`"
        );
        Fault::new(FaultKind::Damaged, text)
    }

    fn bytes_disk(&self) -> u64 {
        self.segments.values().map(|segment| segment.end).sum()
    }
}

impl Engine for LogEngine {
    fn commit(&mut self, changes: &[Change]) -> Result<(), Fault> {
        self.begin();
        for change in changes {
            put_record(&mut self.buffer, &change.into());
        }
        self.end(changes.len() as u32)
    }

    fn read(&mut self, read: &Read) -> Result<Entries, Fault> {
        let mut found = Entries { queue: read.queue, ..Entries::default() };
        let wanted = (read.entries_max.max(1) as usize).saturating_add(1);
        let places: Vec<_> = self
            .index
            .entries_from(read.queue, read.from)
            .take(wanted)
            .map(|entry| (entry.at, self.index.body_of(entry).and_then(|(_, at)| at)))
            .collect();
        let mut buffer = Vec::new();
        let mut bytes_left = read.bytes_max as usize;
        for (nth, (at, body)) in places.into_iter().enumerate() {
            let size = at.bytes as usize + body.map_or(0, |body| body.bytes as usize);
            let full = nth + 1 >= wanted || size > bytes_left;
            if full && (!found.entries.is_empty() || nth + 1 >= wanted) {
                found.more = true;
                break;
            }
            bytes_left = bytes_left.saturating_sub(size);
            match self.entry(at, body, &mut buffer)? {
                Some(entry) => found.entries.push(entry),
                None => found.lost += 1,
            }
        }
        Ok(found)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Kept<'_>)) -> Result<(), Fault> {
        let mut places = self.index.named_places();
        places.sort_unstable();
        let mut window = Window::default();
        for at in places {
            window.look(self, at)?;
            match window.record(at) {
                Some(Record::PutSession(id, bytes)) => each(Kept::Session { id, bytes }),
                Some(Record::SetRetained(topic, bytes)) => each(Kept::Retained { topic, bytes }),
                Some(Record::PutMeta(key, bytes)) => each(Kept::Meta { key, bytes }),
                _ => self.damaged(at),
            }
        }
        self.index.queue_rows().for_each(|row| each(Kept::Queue(row)));
        Ok(())
    }

    fn starts(&self) -> u64 {
        self.starts
    }

    fn tidy(&mut self) -> Result<bool, Fault> {
        let Some((&oldest, segment)) = self.segments.first_key_value() else { return Ok(false) };
        if self.segments.len() < 2 || self.stuck {
            return Ok(false);
        }
        let done = self.tidied.is_some_and(|(number, at)| number == oldest && at >= segment.end);
        if self.index.live(oldest) == 0 {
            self.remove_oldest(oldest)?;
            return Ok(true);
        }
        if done {
            return Err(self.cannot_copy(oldest, segment.end));
        }
        let live = self.index.bytes_live();
        if self.bytes_disk() <= 2 * live + self.options.slack_bytes {
            return Ok(false);
        }
        self.copy_some(oldest)?;
        Ok(true)
    }

    fn figures(&self) -> Figures {
        Figures {
            bytes_disk: self.bytes_disk(),
            bytes_written: self.bytes_written,
            commits: self.commits,
            damaged: self.damages.len() as u64,
            ..self.index.figures()
        }
    }
}

/// Bytes of the whole groups that a window begins with.
fn whole_groups(window: &[u8]) -> usize {
    let mut at = 0;
    while let Some(head) = GroupHead::decode(&window[at..]) {
        let end = at + GROUP_HEAD_BYTES + head.body_bytes as usize;
        if end > window.len() {
            break;
        }
        at = end;
    }
    at
}

fn take(path: &Path) -> Result<Folder, Fault> {
    Folder::take(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Fault::new(
            FaultKind::Busy,
            format!(
                "another process has the store in {}; stop it, or use another folder (--data-dir)",
                path.display()
            ),
        ),
        _ => Fault::new(
            FaultKind::Disk,
            format!(
                "cannot use {} for the store: {error}; make it writable, or use another folder (--data-dir)",
                path.display()
            ),
        ),
    })
}

fn name_of(segment: u32) -> String {
    format!("{segment:010}.log")
}

fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 10).then(|| digits.parse().ok()).flatten()
}

/// What a failure of the file system means.
fn failed(disk: &dyn Disk, error: &io::Error) -> Fault {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Fault::new(
            FaultKind::Full,
            format!("there is no room for {}: {error}; make room, it goes on by itself", disk.name()),
        ),
        _ => Fault::new(
            FaultKind::Disk,
            format!("the disk of {} failed: {error}; see the kernel's log", disk.name()),
        ),
    }
}
