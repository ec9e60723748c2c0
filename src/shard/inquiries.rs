//! What no rule says, and a back-end is asked about.
//!
//! A packet that depends on it waits undecoded, as a CONNECT does whose login is judged, and is handled again with what was
//! said:
//!
//! ```text
//!   packet ──► rules ──► yes, no
//!                │ none applies
//!                ▼
//!              said of this packet, or remembered ──► yes, no, no answer
//!                │ neither
//!                ▼
//!              asked ──► the packet waits ──► said ──► the packet is handled again ──► forgotten
//! ```
//!
//! Yes and no are remembered for a while for each client, within its connection and one policy. A connection asks about one
//! packet at a time. Where no back-end is configured there is nothing here.

use super::connection::{Phase, Wait};
use super::rights::May;
use super::{Handover, Next, Shard};
use crate::auth::http::Access;
use crate::auth::{Deed, Inquiry, Ruled, Ruling, Rulings};
use crate::codec::SubscribeOptions;
use crate::heap::{allocated, map_bytes};
use crate::io::{Conn, Io};
use crate::limits::{INQUIRIES_MAX, INQUIRY_FILTERS_MAX, INQUIRY_TOPICS_MAX};
use crate::listener::mount::mounted_filter;
use crate::map::{Map, Slot};
use crate::topic::parse_subscription;

/// Hands over what is asked about a client's rights, and never blocks. The answer comes as [`super::Command::Ruled`].
pub type AskRights = Box<dyn Fn(Inquiry, Slot) + Send>;

/// What is asked and remembered.
pub(super) struct Inquiries {
    /// None where nobody answers, such as in a simulation.
    ask: Option<AskRights>,
    /// What is asked, or was said, about the packet at hand of a connection.
    open: Map<Slot, Open>,
    /// What is remembered, by connection.
    known: Map<Slot, Rulings>,
    /// Bytes of all of these.
    known_bytes: usize,
}

/// An inquiry.
struct Open {
    access: Access,
    topics: Box<[Box<str>]>,
    /// Once it is there; shorter than the topics where nobody answered.
    said: Option<Box<[Ruling]>>,
    /// Another policy holds since it was asked: it is not remembered.
    late: bool,
}

impl Inquiries {
    pub fn new(ask: Option<AskRights>) -> Inquiries {
        Inquiries { ask, open: Map::default(), known: Map::default(), known_bytes: 0 }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let texts = |open: &Open| open.topics.iter().map(|topic| allocated(topic.len())).sum::<usize>();
        map_bytes::<Slot, Open>(self.open.capacity())
            + self.open.values().map(texts).sum::<usize>()
            + map_bytes::<Slot, Rulings>(self.known.capacity())
            + self.known_bytes
    }

    /// Whether something is asked or was said about a packet.
    #[inline]
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// A connection serves no more.
    pub fn forget(&mut self, slot: Slot) {
        self.open.remove(&slot);
        if let Some(rulings) = self.known.remove(&slot) {
            self.known_bytes -= rulings.bytes();
        }
    }

    /// What was said by an earlier policy is not remembered.
    pub fn start_over(&mut self) {
        self.known = Map::default();
        self.known_bytes = 0;
        self.open.values_mut().for_each(|open| open.late = true);
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.known.is_empty()
    }

    /// What was said of the packet at hand.
    fn said(&self, slot: Slot, access: Access, topic: &str) -> Option<Ruling> {
        let open = self.open.get(&slot).filter(|open| open.access == access)?;
        let said = open.said.as_ref()?;
        let at = open.topics.iter().position(|other| **other == *topic)?;
        Some(said.get(at).copied().unwrap_or(Ruling::NoAnswer))
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// What a back-end says of what no rule applies to. `topic`: as the client names it.
    pub(super) fn ruled(&self, slot: Slot, access: Access, topic: &str) -> May {
        let inquiries = &self.door.inquiries;
        match inquiries.said(slot, access, topic) {
            Some(Ruling::Allow) => return May::Yes,
            Some(Ruling::Deny) => return May::No,
            Some(Ruling::NoAnswer) => return May::NotNow,
            None => {}
        }
        let hold_ms = 1_000 * u64::from(self.door.policy.rulings.hold_s);
        let known = inquiries.known.get(&slot);
        match known.and_then(|known| known.find(access, topic, self.local.now, hold_ms)) {
            Some(true) => May::Yes,
            Some(false) => May::No,
            None => May::Ask,
        }
    }

    /// Asks what a connected client may, so that its packet waits; false where nobody can be asked.
    pub(super) fn inquire(&mut self, conn: Conn, access: Access, topics: Box<[Box<str>]>) -> bool {
        let Some(c) = self.local.conns.get(conn) else { return false };
        let Some(session) = c.session.and_then(|index| self.local.sessions.get(index)) else { return false };
        let profile = session.profile.as_deref();
        let inquiry = Inquiry {
            client_id: (*session.client_id).into(),
            username: profile.and_then(|profile| profile.username.as_deref()).map(Into::into),
            from: c.peer().map(|peer| peer.ip()),
            mount: c.link.mount().unwrap_or_default().into(),
            access,
            topics,
        };
        self.send_inquiry(conn, inquiry)
    }

    /// Sends an inquiry about the packet at hand; false where nobody can be asked.
    pub(super) fn send_inquiry(&mut self, conn: Conn, inquiry: Inquiry) -> bool {
        debug_assert!(inquiry.topics.len() <= INQUIRY_TOPICS_MAX);
        let Some(slot) = self.local.conns.slot(conn) else { return false };
        let inquiries = &mut self.door.inquiries;
        if inquiries.open.len() >= INQUIRIES_MAX {
            return false;
        }
        let Some(ask) = &inquiries.ask else { return false };
        let open = Open { access: inquiry.access, topics: inquiry.topics.clone(), said: None, late: false };
        inquiries.open.insert(slot, open);
        ask(inquiry, slot);
        self.local.counters.inquiries += 1;
        self.wait(conn, Wait::Verdict);
        true
    }

    /// The packet at hand was handled, or is to be asked about anew.
    pub(super) fn settle_inquiry(&mut self, conn: Conn) {
        if let Some(slot) = self.local.conns.slot(conn) {
            self.door.inquiries.open.remove(&slot);
        }
    }

    /// What was said of a connection's inquiry; nothing where nobody answered.
    pub(super) fn inquiry_answered(&mut self, slot: Slot, said: Box<[Ruling]>) {
        let inquiries = &mut self.door.inquiries;
        let Some(open) = inquiries.open.get_mut(&slot).filter(|open| open.said.is_none()) else { return };
        let options = self.door.policy.rulings;
        let serves = self.local.conns.at(slot).is_some_and(|c| c.phase == Phase::Serving);
        if serves && !open.late && options.hold_s > 0 {
            let rulings = inquiries.known.entry(slot).or_default();
            let before = rulings.bytes();
            for (topic, ruling) in open.topics.iter().zip(&said) {
                if *ruling != Ruling::NoAnswer {
                    let (allowed, most) = (*ruling == Ruling::Allow, options.entries_max.into());
                    rulings.put(open.access, topic, allowed, self.local.now, most);
                }
            }
            inquiries.known_bytes = inquiries.known_bytes + rulings.bytes() - before;
        }
        open.said = Some(said);
        if !self.wake_slot(slot, |wait| wait == Wait::Verdict) {
            // The client has gone.
            self.door.inquiries.open.remove(&slot);
        }
    }

    /// Asks about filters of a SUBSCRIBE of which the first depends on a back-end, together with some of those behind it;
    /// `None` where it does not, or nobody can be asked.
    pub(super) fn inquire_filters<'a>(
        &mut self,
        conn: Conn,
        index: u32,
        filters: impl Iterator<Item = (&'a str, SubscribeOptions)>,
    ) -> Option<Next> {
        let mut topics: Vec<Box<str>> = Vec::new();
        for (text, options) in filters.take(INQUIRY_FILTERS_MAX) {
            match self.depends(conn, index, text, options) {
                // What was said of those before it is of no use any more, and will not be there when it is this one's turn.
                Some(topic) if topics.is_empty() => {
                    self.settle_inquiry(conn);
                    topics.push(topic);
                }
                Some(topic) if !topics.contains(&topic) => topics.push(topic),
                None if topics.is_empty() => return None,
                _ => {}
            }
            if topics.len() == INQUIRY_TOPICS_MAX {
                break;
            }
        }
        (!topics.is_empty() && self.inquire(conn, Access::Subscribe, topics.into())).then_some(Next::Wait)
    }

    /// The filter of a subscription that depends on what a back-end is still to say, as its client names it.
    fn depends(&self, conn: Conn, index: u32, text: &str, options: SubscribeOptions) -> Option<Box<str>> {
        let c = self.local.conns.get(conn)?;
        let mount = c.link.mount().unwrap_or_default();
        let full = mounted_filter(mount, text);
        let filter = parse_subscription(&full, 0).ok()?.filter;
        let qos = options.qos.min(self.local.options.of(c.listener).qos_max());
        let asks = self.may_subscribe(index, filter, qos) == May::Ask;
        asks.then(|| filter.as_str().strip_prefix(mount).unwrap_or(filter.as_str()).into())
    }

    /// A connection is gone, or serves no more.
    pub(super) fn drop_inquiries(&mut self, conn: Conn) {
        if !self.door.inquiries.is_empty()
            && let Some(slot) = self.local.conns.slot(conn)
        {
            self.door.inquiries.forget(slot);
        }
    }

    /// What is remembered of a client's rights; `None` where there is no such client.
    pub(super) fn rulings(&self, client_id: &str) -> Option<Vec<Ruled>> {
        let hold_ms = 1_000 * u64::from(self.door.policy.rulings.hold_s);
        let known = self.rulings_slot(client_id)?.and_then(|slot| self.door.inquiries.known.get(&slot));
        Some(known.map_or_else(Vec::new, |known| known.list(self.local.now, hold_ms)))
    }

    /// Forgets what is remembered of a client's rights, or of everybody's; whether there is such a client.
    pub(super) fn forget_rulings(&mut self, client_id: Option<&str>) -> bool {
        let Some(client_id) = client_id else {
            self.door.inquiries.start_over();
            return true;
        };
        let Some(slot) = self.rulings_slot(client_id) else { return false };
        let inquiries = &mut self.door.inquiries;
        if let Some(rulings) = slot.and_then(|slot| inquiries.known.remove(&slot)) {
            inquiries.known_bytes -= rulings.bytes();
        }
        if let Some(open) = slot.and_then(|slot| inquiries.open.get_mut(&slot)) {
            open.late = true;
        }
        true
    }

    /// The connection of a client, if it has one.
    fn rulings_slot(&self, client_id: &str) -> Option<Option<Slot>> {
        let session = self.local.sessions.get(self.client(client_id)?)?;
        Some(session.conn.and_then(|conn| self.local.conns.slot(conn)))
    }
}

/// What is wanted, as a back-end knows it, and of which topic or filter.
pub(super) fn wanted<'a>(deed: &Deed<'a>) -> (Access, &'a str) {
    match *deed {
        Deed::Publish { topic, .. } => (Access::Publish, topic),
        Deed::Subscribe { filter, .. } => (Access::Subscribe, filter.as_str()),
    }
}
