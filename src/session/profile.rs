//! What is remembered of a client besides the rules: its user name, and what its last connection was. Most idle
//! clients have none of it, so it stands behind one pointer.

use crate::codec::{ReasonCode, Version};
use crate::heap::{allocated, boxed};
use crate::time::Moment;
use crate::traffic::Traffic;
use std::net::SocketAddr;

/// What is remembered of a client.
#[derive(Debug, Default)]
pub struct Profile {
    /// User name of its last CONNECT.
    pub username: Option<Box<str>>,
    /// What went over the present connection, as far as it was folded.
    pub folded: Option<Box<Traffic>>,
    /// Its last connection, while it has none.
    pub past: Option<Box<Past>>,
    /// Messages dropped because its queue was full, while it holds no queue.
    pub dropped: u64,
}

/// A connection that is gone.
#[derive(Clone, Debug)]
pub struct Past {
    /// Protocol version.
    pub version: Version,
    /// CONNECT said that it is a bridge.
    pub bridge: bool,
    /// Clean Start.
    pub clean_start: bool,
    /// Keep Alive in seconds that held.
    pub keep_alive_s: u16,
    /// Messages that could be unacknowledged.
    pub window: u16,
    /// The peer.
    pub peer: Option<SocketAddr>,
    /// When it ended.
    pub ended: Moment,
    /// Why, where a reason code was said.
    pub reason: Option<ReasonCode>,
    /// What went over it.
    pub traffic: Traffic,
}

impl Profile {
    /// Whether it holds nothing and may be dropped.
    pub fn is_empty(&self) -> bool {
        self.username.is_none() && self.folded.is_none() && self.past.is_none() && self.dropped == 0
    }

    /// Bytes that it owns, itself included.
    pub fn bytes(&self) -> usize {
        boxed::<Profile>()
            + self.username.as_ref().map_or(0, |name| allocated(name.len()))
            + self.folded.as_ref().map_or(0, |_| boxed::<Traffic>())
            + self.past.as_ref().map_or(0, |_| boxed::<Past>())
    }
}
