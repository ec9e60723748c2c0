//! What is asked for, and the rows of the answers: owned, complete, without words of any dialect.

use crate::codec::{ReasonCode, Version};
use crate::io::{IoStats, ShardId};
use crate::message::{Message, QoS};
use crate::stats::{Counters, Gauges, Losses, Memory};
use crate::time::Moment;
use crate::traffic::Traffic;
use crate::trie;
use std::net::{IpAddr, SocketAddr};

/// What one shard holds, by number and in bytes.
#[derive(Clone, Debug)]
pub struct Weight {
    /// How many there are of what.
    pub gauges: Gauges,
    /// Bytes by row; add them up over all shards with [`Memory::add`].
    pub memory: Memory,
}

/// What one shard counts.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Which.
    pub shard: ShardId,
    /// Its clock.
    pub now: Moment,
    /// What it has counted.
    pub counters: Counters,
    /// What it holds.
    pub gauges: Gauges,
    /// Lost messages by cause; index them by [`crate::stats::LossCause`] as `usize`.
    pub losses: Losses,
    /// Sessions, those that are being removed left out.
    pub sessions: usize,
    /// Sessions that are connected.
    pub online: usize,
    /// What its driver counted.
    pub driver: IoStats,
    /// The driver's own words.
    pub driver_text: String,
    /// Its table of routes.
    pub routes: trie::Stats,
    /// Retained messages, and their bytes as reckoned.
    pub retained: (usize, usize),
    /// By number of the listener: its connections here, and how many it may have on all shards (0 = no bound).
    pub listeners: Vec<(u32, u32)>,
    /// Connections that it can still take.
    pub room: usize,
    /// Why the store does not write, as far as the shard was told.
    pub store_fault: Option<Box<str>>,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// It is with its targets.
    Taken,
    /// It had no subscriber.
    NoSubscriber,
    /// Nobody has it, for this reason: the one that a publisher would be told.
    Refused(ReasonCode),
}

/// From this to that, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    /// At least this.
    pub min: u64,
    /// At most this.
    pub max: u64,
}

impl Range {
    /// Everything.
    pub const ALL: Range = Range { min: 0, max: u64::MAX };

    /// Whether it holds this.
    pub fn holds(self, value: u64) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

impl Default for Range {
    fn default() -> Range {
        Range::ALL
    }
}

/// Which clients are looked for; what is `None` or [`Range::ALL`] does not matter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ClientQuery {
    /// Client identifier.
    pub client_id: Option<Box<str>>,
    /// User name.
    pub username: Option<Box<str>>,
    /// A part of the client identifier.
    pub client_id_part: Option<Box<str>>,
    /// A part of the user name.
    pub username_part: Option<Box<str>>,
    /// The peer's address.
    pub ip: Option<IpAddr>,
    /// Whether it has a connection.
    pub connected: Option<bool>,
    /// Clean Start of its last CONNECT.
    pub clean_start: Option<bool>,
    /// Whether its last CONNECT found a session.
    pub session_present: Option<bool>,
    /// Protocol level: 3, 4 or 5.
    pub proto_ver: Option<u8>,
    /// Milliseconds of the shards' clock at which the session was made.
    pub created: Range,
    /// Milliseconds of the shards' clock of the last CONNECT.
    pub connected_at: Range,
    /// Messages queued.
    pub mqueue_len: Range,
    /// Matches nothing: a value was asked for that no client can have.
    pub nobody: bool,
}

impl ClientQuery {
    /// Whether texts of a client are searched, which takes longer the longer they are.
    pub fn looks_into_texts(&self) -> bool {
        self.client_id_part.is_some() || self.username_part.is_some()
    }

    /// Whether all clients match.
    pub fn is_all(&self) -> bool {
        *self == ClientQuery::default()
    }
}

/// One client: its session, and its connection or what its last one was.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Where it lives.
    pub shard: ShardId,
    /// Client identifier.
    pub client_id: Box<str>,
    /// User name.
    pub username: Option<Box<str>>,
    /// The peer, where its address is known.
    pub peer: Option<SocketAddr>,
    /// Protocol version.
    pub version: Version,
    /// CONNECT said that it is a bridge.
    pub bridge: bool,
    /// Whether it has a connection.
    pub connected: bool,
    /// When it connected, to the second.
    pub connected_at: Moment,
    /// When its connection ended; `None` while it is there.
    pub disconnected_at: Option<Moment>,
    /// Why: the reason code that was said, `None` while it is connected and where the socket just ended.
    pub disconnect_reason: Option<ReasonCode>,
    /// When the session was made, to the second.
    pub created_at: Moment,
    /// Keep Alive in seconds that holds.
    pub keep_alive_s: u16,
    /// Clean Start.
    pub clean_start: bool,
    /// Whether CONNECT found a session.
    pub session_present: bool,
    /// Session Expiry Interval in seconds.
    pub expiry_s: u32,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Subscriptions at most.
    pub max_subscriptions: u32,
    /// Messages sent and not acknowledged.
    pub inflight: usize,
    /// Of those at most.
    pub max_inflight: u16,
    /// Messages queued.
    pub mqueue_len: usize,
    /// Of those at most.
    pub max_mqueue: u32,
    /// Messages dropped because the queue was full.
    pub mqueue_dropped: u64,
    /// QoS 2 messages from it that wait for PUBREL.
    pub awaiting_rel: usize,
    /// Of those at most.
    pub max_awaiting_rel: u16,
    /// Bytes received and not decoded.
    pub pending_bytes: usize,
    /// Bytes of memory: the tables' entries and what they own, queued messages not included.
    pub memory_bytes: usize,
    /// What went over the present or last connection.
    pub traffic: Traffic,
    /// Its will.
    pub will: Option<Box<WillRow>>,
}

/// A will.
#[derive(Clone, Debug)]
pub struct WillRow {
    /// Topic, payload, QoS, RETAIN and properties.
    pub message: Message,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
}

/// Which subscriptions are looked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SubscriptionQuery {
    /// Client identifier.
    pub client_id: Option<Box<str>>,
    /// The topic filter, without `$share/name/`.
    pub filter: Option<Box<str>>,
    /// A topic that the filter matches, or a filter that matches it as if it were a topic.
    pub match_topic: Option<Box<str>>,
    /// QoS.
    pub qos: Option<u8>,
    /// Share name.
    pub share: Option<Box<str>>,
    /// Matches nothing: a value was asked for that no subscription can have.
    pub nothing: bool,
}

impl SubscriptionQuery {
    /// Whether all subscriptions match.
    pub fn is_all(&self) -> bool {
        *self == SubscriptionQuery::default()
    }
}

/// One subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionRow {
    /// Where it is.
    pub shard: ShardId,
    /// Client identifier.
    pub client_id: Box<str>,
    /// The peer of its client, where it is connected.
    pub peer: Option<SocketAddr>,
    /// Topic filter.
    pub filter: Box<str>,
    /// Share name.
    pub share: Option<Box<str>>,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: u8,
    /// Subscription identifier, 0 = none.
    pub id: u32,
}

/// Which routes are looked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct RouteQuery {
    /// Only filters that match this topic.
    pub topic: Option<Box<str>>,
}

/// One topic filter with subscribers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteRow {
    /// The filter.
    pub filter: Box<str>,
}

/// Lost messages of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossRow {
    /// Client identifier; `None`: all clients without a line of their own.
    pub client_id: Option<Box<str>>,
    /// By cause; index them by [`crate::stats::LossCause`] as `usize`.
    pub losses: Losses,
}
