//! What a shard is told, and what it tells at its end.

use super::Pressure;
use crate::auth::{Policy, Ruling, Verdict};
use crate::desk::Ask;
use crate::io::ListenSpec;
use crate::listener::Entrance;
use crate::map::Slot;
use crate::session::Options;
use crate::stats::{Counters, Ledger, Memory};
use crate::transport::{Layers, Stepped};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// What an operator tells a shard.
#[derive(Debug)]
pub enum Command {
    /// Opens a listener. Sent once all shards exist.
    Listen {
        /// Where.
        spec: ListenSpec,
        /// Told the listener's number and how it went.
        reply: Sender<(u16, Option<std::io::Error>)>,
    },
    /// TLS and WebSocket of each listener, by its number, for connections that come from now on.
    Layers(Vec<Layers>),
    /// New options hold from now on, and what listeners are told: as many as there were, in the same order.
    Reload(Box<Options>, Vec<Entrance>),
    /// Another policy holds from now on.
    Policy(Arc<Policy>),
    /// What is refused for want of memory from now on.
    Pressure(Pressure),
    /// What those who judge say of a connection's login.
    Judged(Slot, Verdict),
    /// What is said about the rights of a connection's client, in the order in which it was asked; nothing where nobody
    /// answered.
    Ruled(Slot, Box<[Ruling]>),
    /// A step of a connection's handshake was taken.
    Stepped(Slot, Box<Stepped>),
    /// A question of the management thread.
    Ask(Ask),
    /// Whether the shard moves on. Answered in the tick that takes it, however much there is to do.
    Pulse {
        /// Told the shard's number.
        reply: Sender<usize>,
    },
    /// Answered once all that was restored is announced to the other shards.
    Ready {
        /// Told then.
        reply: Sender<()>,
    },
    /// Tells 5.0 clients 0x8B, flushes, closes, then stops.
    Drain {
        /// Milliseconds after which what is left is cut off.
        within_ms: u64,
    },
}

/// What a shard tells when it has stopped.
#[derive(Debug)]
pub struct Farewell {
    /// Its counters.
    pub counters: Counters,
    /// What it held at its end.
    pub memory: Memory,
    /// What it dropped.
    pub ledger: Ledger,
    /// The driver's own words.
    pub driver: String,
}
