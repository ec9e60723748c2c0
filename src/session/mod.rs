//! MQTT's rules for one client, without I/O: `handle_*` takes what arrived, `push_*` and `pump` write what
//! is to leave into the [`Link`]'s output. The version is a field that is consulted where the rules differ.
//!
//! A [`Session`] outlives its connections; a [`Link`] is what exists only while there is one. A session
//! lives on the shard that its client identifier hashes to, and on no other.

mod connect;
mod incoming;
mod link;
mod options;
mod outgoing;
mod profile;
mod scan;

pub use connect::{Accepted, PAYLOAD_FORMAT, Refusal, StoredWill};
pub use connect::{answer_terms, check_connect, connack_properties, format_holds, properties_too_long};
pub use incoming::{Arrival, Incoming};
pub use link::{Ctx, Envelope, Link, Pool, Stored, Unsent};
pub use options::{FlappingOptions, Options, QueueFull, Rates, SharedStrategy, UserRates};
pub use outgoing::{Acked, Delivery, Ids, Offered, Outgoing, next_place};
pub use profile::{Past, Profile};
pub use scan::{ScanJob, Scans};

use crate::heap::{Counted, boxed, vec_bytes};
use crate::io::Conn;
use crate::limits::LISTENERS_MAX;
use crate::message::{MessageRef, QoS};
use crate::stats::{LossCause, Memory, Source};
use crate::time::{Moment, Stamp};
use crate::traffic::{Recent, Traffic};
use crate::trie::{Sub, SubRef};

/// A client's session.
#[derive(Debug)]
pub struct Session {
    /// Client identifier.
    pub client_id: Box<str>,
    /// Its key: the home shard follows from it, and No Local compares it.
    pub key: u64,
    /// The connection that it is attached to.
    pub conn: Option<Conn>,
    /// Session Expiry Interval in seconds; `u32::MAX` = never ends.
    pub expiry_s: u32,
    /// When it ends, while it is not attached.
    pub ends_at: Moment,
    /// When its timer fires; [`Moment::NEVER`] while none is filed.
    pub timer_at: Moment,
    /// When it was made, in seconds of the shards' clock.
    pub created_s: u32,
    /// When its client connected the last time, in seconds of the shards' clock.
    pub connected_s: u32,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
    /// QoS 1 and 2 to the client.
    pub outgoing: Option<Box<Outgoing>>,
    /// QoS 2 from the client.
    pub incoming: Option<Box<Incoming>>,
    /// The will of the present connection, or one that is delayed.
    pub will: Option<Box<StoredWill>>,
    /// Retained messages that are still to be looked up for its subscriptions.
    pub scans: Option<Box<Scans>>,
    /// User name and last connection, where there is anything to remember.
    pub profile: Option<Box<Profile>>,
    /// How its client came the last time.
    pub entry: Entry,
    /// Bytes of what it owns besides its identifier and its queue, as they were counted last.
    counted: Counted,
    /// Its queue is full and its routes are announced so ([`QueueFull::Reject`]).
    pub full: bool,
    /// It has ended; its subscriptions are being removed.
    pub ended: bool,
}

const _: () = assert!(size_of::<Session>() == 120, "what each client pays");

/// How a client came: the number of its listener, and whether CONNECT found its session. One byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry(u8);

const _: () = assert!(LISTENERS_MAX <= 128);

impl Entry {
    const PRESENT: u8 = 0x80;

    /// Through a listener of this number.
    pub fn new(listener: u8, present: bool) -> Entry {
        Entry(listener & !Entry::PRESENT | if present { Entry::PRESENT } else { 0 })
    }

    /// The listener, whose rules hold for the session.
    #[inline]
    pub fn listener(self) -> u8 {
        self.0 & !Entry::PRESENT
    }

    /// Whether CONNECT found the session.
    pub fn present(self) -> bool {
        self.0 & Entry::PRESENT != 0
    }
}

/// Names of subscriptions; most sessions have one.
#[derive(Debug, Default)]
pub enum Subscriptions {
    /// None.
    #[default]
    None,
    /// One, inline.
    One(SubRef),
    /// Several. Behind one pointer, so that those who have one do not pay for three.
    #[allow(clippy::box_collection, reason = "most sessions have one subscription, and this is their size")]
    Many(Box<Vec<SubRef>>),
}

impl Subscriptions {
    /// As a slice.
    pub fn as_slice(&self) -> &[SubRef] {
        match self {
            Subscriptions::None => &[],
            Subscriptions::One(one) => std::slice::from_ref(one),
            Subscriptions::Many(many) => many,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Adds one that is not in it.
    pub fn add(&mut self, sub: SubRef) {
        *self = match std::mem::take(self) {
            Subscriptions::None => Subscriptions::One(sub),
            Subscriptions::One(first) => Subscriptions::Many(Box::new(vec![first, sub])),
            Subscriptions::Many(mut many) => {
                many.push(sub);
                Subscriptions::Many(many)
            }
        }
    }

    /// Takes these out, which are in it. Goes through all of them once.
    pub fn remove_all(&mut self, gone: &mut [SubRef]) {
        gone.sort_unstable();
        match self {
            Subscriptions::One(one) if gone.contains(one) => *self = Subscriptions::None,
            Subscriptions::Many(many) if !gone.is_empty() => {
                many.retain(|sub| gone.binary_search(sub).is_err());
                if many.len() <= 1 {
                    *self = many.pop().map_or(Subscriptions::None, Subscriptions::One);
                } else if many.len() < many.capacity() / 4 {
                    many.shrink_to(many.len() * 2);
                }
            }
            _ => {}
        }
    }

    /// Bytes on the heap.
    fn bytes(&self) -> usize {
        match self {
            Subscriptions::Many(many) => boxed::<Vec<SubRef>>() + vec_bytes::<SubRef>(many.capacity()),
            Subscriptions::None | Subscriptions::One(_) => 0,
        }
    }

    /// Takes any one out.
    pub fn pop(&mut self) -> Option<SubRef> {
        let last = *self.as_slice().last()?;
        match self {
            Subscriptions::Many(many) => drop(many.pop()),
            _ => *self = Subscriptions::None,
        }
        Some(last)
    }
}

/// One delivery to one session: what was published, and how this session is to see it.
pub struct Offer<'a, 'm> {
    /// The message as it was published.
    pub message: &'a mut Carried<'m>,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: &'a [u32],
    /// Key of the share group, 0 = none.
    pub group: u64,
    /// Where it comes from as this session sees it: what was retained answers a subscription.
    pub source: Source,
    /// Its queue in the store, and its place there; 0 where it is not stored.
    pub stored: (u64, u64),
}

/// A message while it is delivered: copied out of the receive buffer when the first one has to keep it.
pub struct Carried<'m> {
    view: MessageRef<'m>,
    kept: Option<crate::message::Message>,
}

impl<'m> Carried<'m> {
    /// A message in a receive buffer.
    pub fn borrowed(view: MessageRef<'m>) -> Self {
        Carried { view, kept: None }
    }

    /// A message that is kept already.
    pub fn kept(message: &'m crate::message::Message) -> Self {
        Carried { view: message.view(), kept: Some(message.clone()) }
    }

    /// A view of it.
    pub fn view(&self) -> MessageRef<'m> {
        self.view
    }

    /// A copy that may be kept: at most one allocation per message.
    pub fn share(&mut self) -> crate::message::Message {
        self.kept.get_or_insert_with(|| crate::message::Message::new(&self.view)).clone()
    }
}

/// The stamp of a message for its latency: what was retained has waited for a subscription.
fn live(source: Source, stamp: Stamp) -> Stamp {
    if source == Source::Retained { Stamp::NONE } else { stamp }
}

impl Session {
    /// A session without a connection.
    pub fn new(client_id: &str, key: u64, now: Moment) -> Session {
        let created_s = (now.0 / 1_000) as u32;
        Session {
            client_id: client_id.into(),
            key,
            conn: None,
            expiry_s: 0,
            ends_at: Moment::NEVER,
            timer_at: Moment::NEVER,
            created_s,
            connected_s: created_s,
            subscriptions: Subscriptions::None,
            outgoing: None,
            incoming: None,
            will: None,
            scans: None,
            profile: None,
            entry: Entry::default(),
            counted: Counted::default(),
            full: false,
            ended: false,
        }
    }

    /// QoS and RETAIN that a subscription gives a message.
    pub fn terms(sub: &Sub, m: &MessageRef) -> (QoS, bool) {
        (
            QoS::from_bits(sub.options.qos()).unwrap_or_default().min(m.head.qos),
            sub.options.retain_as_published() && m.head.retain,
        )
    }

    /// Delivers a message: written to the connection, queued, or dropped and counted.
    pub fn deliver(&mut self, offer: Offer, link: Option<&mut Link>, ctx: &mut Ctx) -> Offered {
        if offer.qos != QoS::AtMostOnce {
            let delivery = Delivery {
                message: offer.message.share(),
                qos: offer.qos,
                retain: offer.retain,
                ids: Ids::new(offer.ids),
                group: offer.group,
                source: offer.source,
                seq: offer.stored.1,
                again: false,
            };
            let outgoing = self.outgoing.get_or_insert_default();
            outgoing.set_queue(offer.stored.0);
            return outgoing.offer(delivery, link, &self.client_id, ctx);
        }
        let lost = match link {
            None => Some(LossCause::OfflineQos0),
            Some(link) if !link.has_room(ctx.options) => Some(LossCause::OutputFull),
            Some(link) => {
                let envelope = Envelope {
                    qos: QoS::AtMostOnce,
                    packet_id: None,
                    dup: false,
                    retain: offer.retain,
                    ids: offer.ids,
                };
                let m = offer.message.view();
                let unsent = link.push_publish(&m, envelope, ctx).err();
                if unsent.is_none() {
                    ctx.note_delivery(offer.source, QoS::AtMostOnce, live(offer.source, m.head.stamp));
                }
                unsent.map(Unsent::cause)
            }
        };
        if let Some(cause) = lost {
            ctx.ledger.record(&self.client_id, cause, 1);
        }
        Offered::Taken
    }

    /// Sends what has become possible.
    pub fn pump(&mut self, link: &mut Link, ctx: &mut Ctx) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.pump(link, &self.client_id, ctx);
        }
    }

    /// Its client has connected.
    pub fn remember(&mut self, username: Option<&str>, entry: Entry, now: Moment) {
        self.connected_s = (now.0 / 1_000) as u32;
        self.entry = entry;
        if username.is_some() || self.profile.is_some() {
            let profile = self.profile.get_or_insert_default();
            profile.past = None;
            profile.username = username.map(Box::from);
            self.profile.take_if(|p| p.is_empty());
        }
    }

    /// Its connection is gone; `past` is what is kept of it.
    pub fn forget_connection(&mut self, past: Option<Past>) {
        if past.is_some() || self.profile.is_some() {
            let profile = self.profile.get_or_insert_default();
            profile.folded = None;
            profile.past = past.map(Box::new);
        }
    }

    /// What went over its connection, as far as it was folded.
    pub fn folded(&self) -> Option<&Traffic> {
        self.profile.as_ref()?.folded.as_deref()
    }

    /// Folds what was counted of its connection.
    pub fn fold(&mut self, recent: &Recent) {
        self.profile.get_or_insert_default().folded.get_or_insert_default().add(recent);
    }

    /// Whether its queue holds fewer messages than `below`.
    pub fn queue_below(&self, below: usize) -> bool {
        self.outgoing.as_ref().is_none_or(|o| o.queued() < below)
    }

    /// Messages that were dropped because its queue was full.
    pub fn dropped(&self) -> u64 {
        let now = self.outgoing.as_ref().map_or(0, |o| o.dropped());
        now + self.profile.as_ref().map_or(0, |p| p.dropped)
    }

    /// Gives back what only an active client needs.
    pub fn shrink(&mut self, memory: &mut Memory) {
        if self.outgoing.as_ref().is_some_and(|o| o.is_empty())
            && let Some(outgoing) = self.take_outgoing(memory)
            && outgoing.dropped() > 0
        {
            self.profile.get_or_insert_default().dropped += outgoing.dropped();
        }
        self.incoming.take_if(|i| i.is_empty());
        self.count(memory);
    }

    /// Takes its queue away.
    pub fn take_outgoing(&mut self, memory: &mut Memory) -> Option<Box<Outgoing>> {
        let mut outgoing = self.outgoing.take()?;
        outgoing.uncount(memory);
        Some(outgoing)
    }

    /// Brings the ledger of memory up to date with what it holds, its queue included.
    pub fn count(&mut self, memory: &mut Memory) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.count(memory);
        }
        let now = self.subscriptions.bytes()
            + self.incoming.as_ref().map_or(0, |incoming| boxed::<Incoming>() + incoming.bytes())
            + self.will.as_ref().map_or(0, |_| boxed::<StoredWill>())
            + self.scans.as_ref().map_or(0, |scans| boxed::<Scans>() + scans.bytes())
            + self.profile.as_ref().map_or(0, |profile| profile.bytes());
        self.counted.recount(&mut memory.states, now);
    }

    /// It is gone: nothing of it counts any more.
    pub fn uncount(&mut self, memory: &mut Memory) {
        drop(self.take_outgoing(memory));
        self.counted.recount(&mut memory.states, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Keyed;
    use crate::topic::parse_subscription;
    use crate::trie::{SubOptions, Trie};

    #[test]
    fn many_subscriptions_are_taken_out_at_once() {
        let mut trie = Trie::new(0, 1, Keyed::new(1));
        let mut add = |n: usize| {
            let text = format!("f/{n}");
            let to = parse_subscription(&text, 0).expect("a valid subscription");
            trie.subscribe(&to, Sub::new(0, SubOptions::default(), 0)).sub
        };
        let all: Vec<SubRef> = (0..9).map(&mut add).collect();
        let mut kept = Subscriptions::None;
        kept.remove_all(&mut [all[0]]);
        all.iter().for_each(|sub| kept.add(*sub));
        kept.remove_all(&mut []);
        assert_eq!(kept.as_slice(), all);
        kept.remove_all(&mut [all[8], all[0], all[4], all[3]]);
        assert_eq!(kept.as_slice(), [all[1], all[2], all[5], all[6], all[7]]);
        kept.remove_all(&mut [all[7], all[6], all[5], all[2]]);
        assert!(matches!(kept, Subscriptions::One(one) if one == all[1]));
        kept.remove_all(&mut [all[2]]);
        assert_eq!(kept.len(), 1);
        kept.remove_all(&mut [all[1]]);
        assert!(kept.is_empty());
    }
}
