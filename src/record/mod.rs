//! What is kept of sessions, queued messages, retained messages and bans, as bytes.
//!
//! Each record begins with the version of its format and ends with a sum over all before it, so what is damaged or
//! of another version is told apart and never taken for something else. Moments are kept as wall-clock time, in
//! milliseconds since 1970: the broker's own clock starts anew with each run.

mod ban;
mod bytes;
mod message;
mod session;
#[cfg(test)]
mod tests;

pub use ban::{BAN_KEY, ban_key, decode_ban, encode_ban};
pub use message::{EntryRecord, decode_entry, decode_message, encode_entry, encode_message};
pub use session::{SessionRecord, SubscriptionRecord, WillRecord};

use crate::time::Moment;
use std::fmt;

/// The format of all records.
pub const VERSION: u8 = 1;

/// Why a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRecord {
    /// It is of a format that this broker does not know.
    Version(u8),
    /// Its sum is not that of its bytes.
    Sum,
    /// It ends too early, or goes on behind its end.
    Length,
    /// A field has a value that it cannot have.
    Field(&'static str),
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::Version(got) => write!(f, "expected a record of version {VERSION}, got {got}"),
            BadRecord::Sum => write!(f, "expected bytes as they were written, got others"),
            BadRecord::Length => write!(f, "expected a whole record, got one of another length"),
            BadRecord::Field(name) => write!(f, "expected a valid {name}, got something else"),
        }
    }
}

impl std::error::Error for BadRecord {}

/// The time of day, in milliseconds since 1970, at which the shards' clock was 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Day(pub u64);

impl Day {
    /// A moment as wall-clock time; `u64::MAX` is never.
    pub fn wall_ms(self, moment: Moment) -> u64 {
        if moment == Moment::NEVER { u64::MAX } else { self.0.saturating_add(moment.0) }
    }

    /// The moment of a wall-clock time; what lies before the start is at the start.
    pub fn moment(self, wall_ms: u64) -> Moment {
        if wall_ms == u64::MAX { Moment::NEVER } else { Moment(wall_ms.saturating_sub(self.0)) }
    }
}
