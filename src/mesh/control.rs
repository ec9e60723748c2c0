//! What travels between shards.

use crate::io::ShardId;
use crate::limits::RING_ENTRY_BYTES;
use crate::map::Slot;
use crate::message::Message;
use crate::trie::RouteBuf;

/// A control message from one shard to another.
///
/// For each of them: nobody may drop it. A full ring sends it to the sender's overflow for that target, in
/// order, and [`super::Mesh::pump`] moves it on as the target drains; the target's ring for room wakes a
/// sleeping sender. What each variant adds is what bounds its number, and who waits for it.
#[derive(Debug)]
pub enum Control {
    /// The source has a subscriber where it had none. Bounded by the subscriptions of clients whose SUBACK
    /// is held back until it is in the ring; a client has a bounded number of packets under way.
    Announce(RouteBuf),
    /// The source's last subscriber is gone. Bounded as [`Control::Announce`], by UNSUBACKs, and by the
    /// budget of the cursor that cleans up after sessions.
    Withdraw(RouteBuf),
    /// A queue of the source behind this route is full (`queue_full = reject`). One per route until
    /// [`Control::RouteNotFull`]; while it is late, messages are routed and counted as lost at the source.
    RouteFull(RouteBuf),
    /// The queues behind this route have room again. One per [`Control::RouteFull`]; while it is late,
    /// publishers are answered 0x97 for longer.
    RouteNotFull(RouteBuf),
    /// The members that a shared subscription has on the source. Absolute, coalesced by the sender: one per
    /// group and tick; a late one costs a hand-on.
    GroupCount {
        /// The filter without `$share/name/`.
        route: RouteBuf,
        /// The key of filter and share name.
        group: u64,
        /// Members that are connected.
        online: u32,
        /// Members whose session is kept and not connected.
        offline: u32,
    },
    /// The target keeps this as the retained message of its topic. Bounded by publishers, whose PUBACK waits
    /// until it has left the overflow. Of two for one topic, that with the lower [`super::Mesh::stamp`] does not
    /// count.
    RetainSet {
        /// The message.
        message: Message,
        /// When it was published.
        stamp: u64,
        /// The source's name for what waits until it is on the disk; 0: nothing does.
        ticket: u64,
    },
    /// The target forgets the retained message of this topic. Bounded as [`Control::RetainSet`].
    RetainClear {
        /// The topic.
        topic: Box<str>,
        /// When that was published.
        stamp: u64,
        /// As in [`Control::RetainSet`].
        ticket: u64,
    },
    /// The source's part of the bounds on retained messages is nearly used up, or is so no more. Absolute, one for each
    /// change; while it is late, publishers are not told what is not retained.
    RetainTight(bool),
    /// The target says whether it would retain this. Bounded by publishers, each of which waits for the answer.
    RetainAsk {
        /// The connection that waits on the source.
        conn: Slot,
        /// The message.
        message: Message,
    },
    /// Whether it would. One for each [`Control::RetainAsk`].
    RetainMay {
        /// The connection that waits on the target.
        conn: Slot,
        /// Whether it would.
        may: bool,
    },
    /// The target says whether a session that is kept there would be sent a message of QoS 1 or 2 to this topic. Asked
    /// while the source's store takes nothing. Bounded by publishers, each of which waits for the answer.
    KeepAsk {
        /// Who waits on the source.
        conn: Slot,
        /// The source's name for the question.
        number: u64,
        /// The topic.
        topic: Box<str>,
    },
    /// Whether one would. One for each [`Control::KeepAsk`].
    KeepSaid {
        /// Who waits on the target.
        conn: Slot,
        /// As it was asked.
        number: u64,
        /// Whether one would.
        kept: bool,
    },
    /// The target looks for retained messages. Bounded by the scans that a source may have open; a late one
    /// delays retained messages.
    ScanRequest(Box<ScanRequest>),
    /// A retained message that a scan found. Bounded by the request's limit: a page is a credit.
    ScanItem {
        /// [`ScanRequest::scan`].
        scan: u64,
        /// What was found.
        message: Message,
    },
    /// The page of a scan is complete. One per request.
    ScanPage {
        /// [`ScanRequest::scan`].
        scan: u64,
        /// The topic behind which the next page goes on; `None` when there is nothing behind this one.
        after: Option<Box<str>>,
    },
    /// A message of a shared subscription whose member here fell out; the target delivers or hands it on.
    /// Bounded by the inflight windows and queues of the sessions that end, and by their cursor's budget.
    HandOn(Box<HandOn>),
    /// The source has sessions that are kept on the disk, from now on: what is published to its routes is answered
    /// once it is there. One per source and run.
    Durable,
    /// What the target gave these tickets to is on the disk, or need not be. One per target and tick, of the
    /// tickets that it waits for; a late one delays acknowledgements.
    Settled(Box<[u64]>),
    /// QoS 2 messages with these numbers are complete: what was noted about them may go. One per source and tick.
    Complete(Box<[u64]>),
}

const _: () = assert!(size_of::<Control>() <= RING_ENTRY_BYTES);
const _: () = assert!(size_of::<Envelope>() <= RING_ENTRY_BYTES);

/// Asks for one page of retained messages.
#[derive(Debug)]
pub struct ScanRequest {
    /// The source's name of the scan; it is in each reply.
    pub scan: u64,
    /// The topic filter.
    pub filter: Box<str>,
    /// The topic after which to go on; `None` at the start.
    pub after: Option<Box<str>>,
    /// Messages of a page at most.
    pub limit: u32,
}

/// A message on its way to another member of its shared subscription.
#[derive(Debug)]
pub struct HandOn {
    /// The message.
    pub message: Message,
    /// The key of filter and share name.
    pub group: u64,
    /// A bit for each shard that had it already.
    pub tried: u64,
    /// No connected member was found anywhere: a session that waits for its client takes it.
    pub offline: bool,
    /// Who is told [`Control::Settled`], and of which ticket; 0: nobody.
    pub owner: (ShardId, u64),
    /// As [`Envelope::number`].
    pub number: u64,
    /// The stored queue that it leaves, and its place there; 0: it was in none. Whoever stores it notes that.
    pub from: (u64, u64),
}

/// A published message for one target shard, which matches its own subscribers again.
///
/// Nobody may drop it. The publisher reserves room before its first push, so a full ring is met only by
/// socket input: the publisher stops decoding, and the target's ring for room wakes its shard.
#[derive(Debug)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    /// Keys of the shared subscriptions for which this target was picked.
    pub picks: Option<Box<[u64]>>,
    /// Whether the ordinary subscribers of the target get it, or only the picks.
    pub normal: bool,
    /// The source's name for what waits until it is on the disk; 0: nothing does. Each is answered by
    /// [`Control::Settled`], also where nothing matched.
    pub ticket: u64,
    /// The number of a QoS 2 message that is not to come twice, whatever crashes; 0 where it has none.
    pub number: u64,
}
