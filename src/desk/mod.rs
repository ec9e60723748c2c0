//! What the management thread asks of the shards, and what they answer: the vocabulary that the HTTP API and the
//! shards share, who do not know each other. Plain data; nothing here waits, reads a clock or knows a thread.
//!
//! An [`Ask`] goes to one shard through its commands; its [`Reply`] comes back owned, once, from within that
//! shard's tick. A reply that is dropped says that the shard is gone.
//!
//! - A **small** question costs less than a few microseconds however much the shard holds: it is answered in the
//!   tick that takes it. What it changes is with the other shards before its reply leaves, so whoever has the
//!   reply may ask any shard and finds it.
//! - A **large** one is a [`Cursor`]: the shard looks at one part per tick, within
//!   [`crate::limits::TICK_DESK_COST`], and replies with one [`Page`], of [`crate::limits::DESK_PAGE_ROWS_MAX`]
//!   rows at most. It keeps nothing for the next one: that begins at [`Page::next`]. One cursor at a time moves on
//!   per shard, so a shard holds the rows of one page, however many ask.
//! - How many questions are under way is bounded by who asks ([`crate::limits::DESK_ASKS_MAX`]).
//!
//! To add a question: a variant of [`Ask`] with its [`Reply`], or of [`Listing`] with its [`Cursor`], and the types of its answer here; an arm
//! of `answer` (small) or `go_on` (large) in `shard/desk.rs`; and a call, in a handler of the API:
//! `desk.ask(shard, |reply| Ask::Totals(reply)).await?`, `ask_home(client_id, …)`, `ask_all(…)` for every shard, or
//! `list(Ask::Clients, &query, position).await?` for pages over all shards.

mod cursor;
mod happening;
mod rows;

pub use cursor::{Cost, Cursor, Page, Place, Reply, Wanted};
pub use happening::{Batch, Happening, Kind, Kinds, Watch, What};
pub use rows::{
    ClientQuery, ClientRow, LossRow, Published, Range, RouteQuery, RouteRow, SubscriptionQuery,
    SubscriptionRow, Totals, Weight, WillRow,
};

use crate::auth::{Ban, Banned, Ruled};
use crate::message::{Message, QoS};
use crate::stats::Snapshot;
use crate::time::Moment;
use std::sync::Arc;

/// A client that came and went too often, and is banned on its shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flapped {
    /// Client identifier.
    pub client_id: Arc<str>,
    /// How often its connection ended.
    pub count: u32,
    /// Since when it is banned.
    pub at: Moment,
    /// Until when.
    pub until: Moment,
}

/// A question to one shard.
#[derive(Debug)]
pub enum Ask {
    /// What the shard counts and how it is. Small.
    Totals(Reply<Box<Totals>>),
    /// What the shard counts, its flight recorder, and what it held at most since this was asked last: whoever asks
    /// keeps that, so there is one asker, [`crate::api`]'s meter. Small.
    Snapshot(Reply<Box<Snapshot>>),
    /// What the shard holds in memory. Small; some system calls, so not for every second.
    Weight(Reply<Box<Weight>>),
    /// The client of this identifier, connected or not; asked of its home shard. Small.
    Client {
        /// Client identifier.
        client_id: Box<str>,
        /// `None`: the shard has no such session.
        reply: Reply<Option<Box<ClientRow>>>,
    },
    /// Closes the connection of this client with 0x98, publishes its will, and ends its session. Asked of its home
    /// shard. Small.
    Kick {
        /// Client identifier.
        client_id: Box<str>,
        /// Whether there was such a session.
        reply: Reply<bool>,
    },
    /// Keeps away whom a ban is about. Who is connected and banned is disconnected: the client that it names at once,
    /// others in the ticks that follow. Whoever asks bounds how many bans there are. Small.
    Ban {
        /// The ban, in place of an earlier one about the same.
        ban: Arc<Ban>,
        /// Until when it holds.
        until: Moment,
        /// Once it holds.
        reply: Reply<()>,
    },
    /// Takes a ban back. Small.
    Unban {
        /// Whom it was about.
        who: Banned,
        /// Once it does not hold any more: whether it did.
        reply: Reply<bool>,
    },
    /// Clients that the shard has banned by itself since this was asked last. There is one asker, [`crate::api`]'s list of
    /// bans. Small.
    Flapped(Reply<Vec<Flapped>>),
    /// What is remembered of what a back-end said about the rights of this client. Asked of its home shard. Small.
    Rulings {
        /// Client identifier.
        client_id: Box<str>,
        /// The oldest first. `None`: the shard has no such session.
        reply: Reply<Option<Vec<Ruled>>>,
    },
    /// Forgets that. Small.
    ForgetRulings {
        /// Client identifier, of one whose home is asked; `None`: what is remembered of all clients of the shard.
        client_id: Option<Box<str>>,
        /// Once it is forgotten: whether there was such a session.
        reply: Reply<bool>,
    },
    /// Ends the session of this client unless it is connected. Asked of its home shard. Small.
    EndOffline {
        /// Client identifier.
        client_id: Box<str>,
        /// Whether there was such a session.
        reply: Reply<bool>,
    },
    /// Publishes a message that has been checked. Messages that are asked of one shard are published in their
    /// order; the reply comes once the message is with its targets, which may wait for room. Small.
    Publish {
        /// The message.
        message: Message,
        /// What became of it.
        reply: Reply<Published>,
    },
    /// Subscribes a client as if it had sent SUBSCRIBE. Asked of its home shard. Small.
    Subscribe {
        /// Client identifier.
        client_id: Box<str>,
        /// Topic filter, `$share/name/filter` included.
        filter: Box<str>,
        /// QoS.
        qos: QoS,
        /// `None`: no such session is connected. Else the reason code that SUBACK would have.
        reply: Reply<Option<u8>>,
    },
    /// Ends a subscription of a client. Asked of its home shard. Small.
    Unsubscribe {
        /// Client identifier.
        client_id: Box<str>,
        /// Topic filter, `$share/name/filter` included.
        filter: Box<str>,
        /// `None`: no such session is connected. Else the reason code that UNSUBACK would have.
        reply: Reply<Option<u8>>,
    },
    /// Forgets the retained message of a topic. Asked of the topic's shard. Small.
    Forget {
        /// Topic name.
        topic: Box<str>,
        /// Whether there was one.
        reply: Reply<bool>,
    },
    /// Says what the shard is to collect from now on, in place of what it was; an empty [`Watch`] ends it. A question
    /// for [`Ask::Happenings`] that waits is answered. There is one asker, [`crate::api`]'s hub. Small.
    Watch {
        /// What is to be collected.
        watch: Box<Watch>,
        /// Once it is.
        reply: Reply<()>,
    },
    /// What the shard has collected: at the end of the tick in which there is something. It waits until then; a
    /// further one takes its place. Small.
    Happenings(Reply<Box<Batch>>),
    /// What may be large.
    List(Listing),
}

/// A question whose answer comes in pages.
#[derive(Debug)]
pub enum Listing {
    /// Clients with a session, connected or not, in an order that holds while they stay.
    Clients(Box<Cursor<ClientQuery, ClientRow>>),
    /// Subscriptions, by session.
    Subscriptions(Box<Cursor<SubscriptionQuery, SubscriptionRow>>),
    /// Topic filters that have subscribers; each filter is listed by one shard only.
    Routes(Box<Cursor<RouteQuery, RouteRow>>),
    /// Retained messages whose topic matches the filter, by topic.
    Retained(Box<Cursor<Box<str>, Message>>),
    /// Lines of the ledger of losses, by client. Asked again between two losses it may repeat a line.
    Losses(Box<Cursor<(), LossRow>>),
}
