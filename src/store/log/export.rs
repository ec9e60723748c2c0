//! Everything that is kept, in the order in which it stands in the log.

use super::LogEngine;
use super::format::{Record, read_record};
use super::index::At;
use crate::limits::STORE_WINDOW_BYTES;
use crate::store::change::Change;
use crate::store::engine::Fault;

/// A part of a segment in memory, for records that are read in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Where it begins; its bytes are those of the buffer.
    start: Option<At>,
    buffer: Vec<u8>,
}

impl Window {
    /// Moves it over a record.
    pub(super) fn look(&mut self, engine: &LogEngine, at: At) -> Result<(), Fault> {
        let end = u64::from(at.offset) + u64::from(at.bytes);
        let within = self.start.is_some_and(|start| {
            let seen = u64::from(start.offset) + self.buffer.len() as u64;
            start.segment == at.segment && start.offset <= at.offset && end <= seen
        });
        if !within {
            let start = At { bytes: at.bytes.max(STORE_WINDOW_BYTES), ..at };
            engine.fetch(start, &mut self.buffer)?;
            self.start = Some(start);
        }
        Ok(())
    }

    /// The record at a place that it was moved over, if it is whole.
    pub(super) fn record(&self, at: At) -> Option<Record<'_>> {
        let offset = at.offset.checked_sub(self.start?.offset)?;
        read_record(self.buffer.get(offset as usize..)?).ok().map(|(record, _)| record)
    }
}

impl LogEngine {
    /// Shows everything that is kept as the changes that make it: bodies first, then the rest as it stands in the
    /// log. What is damaged is left out, see [`LogEngine::damages`].
    ///
    /// # Errors
    /// When something could not be read, and those of `each`.
    pub fn export(&mut self, each: &mut dyn FnMut(Change) -> Result<(), Fault>) -> Result<(), Fault> {
        let (mut bodies, mut places) = (self.index.body_places(), self.index.named_places());
        places.extend(self.index.entry_places());
        bodies.sort_unstable();
        places.sort_unstable();
        let mut window = Window::default();
        for at in bodies.into_iter().chain(places) {
            window.look(self, at)?;
            match window.record(at).and_then(change) {
                Some(change) => each(change)?,
                None => self.damaged(at),
            }
        }
        Ok(())
    }

    /// This store takes the place of one that was opened so often. Before the first commit.
    pub fn go_on_from(&mut self, starts: u64) {
        debug_assert!(!self.start_written, "nothing was written in this start");
        self.starts = self.starts.max(starts.saturating_add(1));
    }
}

/// The change that a record of something that is kept was made from.
fn change(record: Record<'_>) -> Option<Change> {
    Some(match record {
        Record::PutSession(id, bytes) => Change::PutSession { id, bytes: bytes.into() },
        Record::Push(queue, seq, body, bytes) => Change::Push { queue, seq, body, bytes: bytes.into() },
        Record::PutBody(id, bytes) => Change::PutBody { id, bytes: bytes.into() },
        Record::SetRetained(topic, bytes) => Change::SetRetained { topic: topic.into(), bytes: bytes.into() },
        Record::PutMeta(key, bytes) => Change::PutMeta { key: key.into(), bytes: bytes.into() },
        _ => return None,
    })
}
