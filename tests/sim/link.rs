//! One connection of a client, as long as it lasts.

use crate::client::Cx;
use crate::net::SocketId;
use crate::oracle::MsgId;
use ringmq::codec::{AckKind, Version};
use ringmq::session::QueueFull;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Debug)]
pub enum Awaited {
    /// Indices of the subscriptions in the oracle's books.
    Sub(Vec<usize>),
    Unsub(Vec<usize>),
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    pub socket: SocketId,
    pub number: usize,
    pub version: Version,
    pub inbuf: Vec<u8>,
    pub out: Vec<u8>,
    pub connect_sent: bool,
    /// CONNACK of success came.
    pub up: bool,
    pub clean: bool,
    pub resumed: bool,
    pub expiry_s: u32,
    pub receive_max: usize,
    pub server_receive_max: usize,
    pub server_alias_max: u16,
    pub aliases_out: Vec<String>,
    pub aliases_in: BTreeMap<u16, String>,
    pub owed: VecDeque<(AckKind, u16)>,
    /// QoS 1 and 2 to us that is not completely acknowledged.
    pub flight: BTreeMap<u16, Option<MsgId>>,
    pub awaited: BTreeMap<u16, Awaited>,
    /// It was sent something that may end it.
    pub grey: bool,
    /// A connection that was abandoned earlier could still be served when this one was.
    pub haunted: bool,
    /// Identifiers that only grey packets used.
    pub grey_pids: BTreeSet<u16>,
    /// QoS 2 identifiers whose PUBLISH was sent twice on this connection.
    pub twice: BTreeSet<u16>,
    pub deaf_until: u64,
    pub last_write: u64,
    pub started: u64,
    /// The server ended it.
    pub over: bool,
    pub keep_alive_s: u16,
    pub no_ping: bool,
    /// The will, and whether it is published at once when the connection is lost.
    pub will: Option<(MsgId, bool)>,
    pub said_goodbye: bool,
    /// What was in flight to us when the session was resumed: whether PUBREC had been sent.
    pub carried: BTreeMap<u16, bool>,
}

impl Link {
    pub fn new(socket: SocketId, number: usize, version: Version, receive_max: usize) -> Link {
        Link {
            socket,
            number,
            version,
            inbuf: Vec::new(),
            out: Vec::new(),
            connect_sent: false,
            up: false,
            clean: false,
            resumed: false,
            expiry_s: 0,
            receive_max,
            server_receive_max: 65_535,
            server_alias_max: 0,
            aliases_out: Vec::new(),
            aliases_in: BTreeMap::new(),
            owed: VecDeque::new(),
            flight: BTreeMap::new(),
            awaited: BTreeMap::new(),
            grey: false,
            haunted: false,
            grey_pids: BTreeSet::new(),
            twice: BTreeSet::new(),
            deaf_until: 0,
            last_write: 0,
            started: 0,
            over: false,
            keep_alive_s: 0,
            no_ping: false,
            will: None,
            said_goodbye: false,
            carried: BTreeMap::new(),
        }
    }

    /// Until when the server surely had not ended this connection.
    pub fn surely_served(&self, cx: &Cx) -> u64 {
        let quota = cx.plan.options.queue_full != QueueFull::DropOldest;
        if self.keep_alive_s > 0 || self.grey || quota || self.over { self.started } else { cx.wire.now }
    }

    pub fn ping_due(&self) -> u64 {
        self.last_write + u64::from(self.keep_alive_s) * 500
    }
}
