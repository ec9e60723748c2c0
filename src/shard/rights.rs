//! What a client may do, and what becomes of what it may not.

use super::door::{Door, Granted, Review};
use super::inquiries::wanted;
use super::sessions::End;
use super::timers::Timer;
use super::{Fault, Handover, Next, Shard};
use crate::auth::http::Access;
use crate::auth::{Acl, Client, Deed, DenyAction, Grant, Inquiry};
use crate::codec::{Connect, Publish, ReasonCode, Version};
use crate::io::{Conn, Io};
use crate::limits::TICK_REVIEWS_MAX;
use crate::map::Slot;
use crate::message::{MessageRef, QoS};
use crate::session::Refusal;
use crate::time::Moment;
use crate::topic::Filter;
use crate::trie::SubRef;

/// What is said of it.
const DENIED: &str = "expected what the rules for this client allow";
const UNANSWERED: &str = "nobody could say in time whether the client may do that; try again later";

/// Whether a client may do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum May {
    Yes,
    No,
    /// A back-end gave no answer.
    NotNow,
    /// A back-end must be asked.
    Ask,
}

impl From<bool> for May {
    fn from(may: bool) -> May {
        if may { May::Yes } else { May::No }
    }
}

impl Door {
    /// Whether whoever is connected may do everything.
    fn allows_all(&self) -> bool {
        !self.has_rules && self.grants.is_empty()
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Whether a session's client may publish this. Without rules, one branch.
    #[inline]
    pub(super) fn may_publish(&self, index: u32, m: &MessageRef) -> May {
        if self.door.allows_all() {
            return May::Yes;
        }
        let (qos, retain) = (m.head.qos, m.head.retain);
        self.may(index, &Deed::Publish { topic: m.topic, qos, retain })
    }

    /// Whether a session's client may subscribe to this.
    pub(super) fn may_subscribe(&self, index: u32, filter: Filter, qos: QoS) -> May {
        if self.door.allows_all() { May::Yes } else { self.may(index, &Deed::Subscribe { filter, qos }) }
    }

    /// As [`Shard::may_publish`], of what a client does now: it is counted, once where a back-end must be asked first.
    #[inline]
    pub(super) fn judge_publish(&mut self, index: u32, m: &MessageRef) -> May {
        if self.door.allows_all() {
            return May::Yes;
        }
        let may = self.may_publish(index, m);
        self.local.counters.publish_checked += u64::from(may != May::Ask);
        may
    }

    /// As [`Shard::may_subscribe`], of what a client does now.
    pub(super) fn judge_subscribe(&mut self, index: u32, filter: Filter, qos: QoS) -> May {
        if self.door.allows_all() {
            return May::Yes;
        }
        let may = self.may_subscribe(index, filter, qos);
        self.local.counters.subscribe_checked += u64::from(may != May::Ask);
        may
    }

    #[inline(never)]
    fn may(&self, index: u32, deed: &Deed) -> May {
        let Some(session) = self.local.sessions.get(index) else { return May::No };
        let profile = session.profile.as_deref();
        let c = session.conn.and_then(|conn| self.local.conns.get(conn));
        let peer = match c {
            Some(c) => c.peer(),
            None => profile.and_then(|profile| profile.past.as_ref()?.peer),
        };
        let client = Client {
            id: &session.client_id,
            user: profile.and_then(|profile| profile.username.as_deref()),
            from: peer.map(|peer| peer.ip()),
        };
        let slot = session.conn.and_then(|conn| self.local.conns.slot(conn));
        let granted = slot.and_then(|slot| self.door.grants.get(&slot));
        if granted.is_some_and(|granted| granted.superuser) {
            return May::Yes;
        }
        let own = granted.and_then(|granted| granted.acl.as_ref());
        match self.rules_say(own, &client, deed) {
            May::Ask => {}
            decided => return decided,
        }
        // Of one that is not connected nobody is asked.
        let Some(slot) = slot else { return May::Ask };
        let (access, topic) = wanted(deed);
        let mount = c.and_then(|c| c.link.mount()).unwrap_or_default();
        self.ruled(slot, access, topic.strip_prefix(mount).unwrap_or(topic))
    }

    /// What rules say without a back-end; `own`: those that came with the client.
    fn rules_say(&self, own: Option<&Acl>, client: &Client, deed: &Deed) -> May {
        if own.is_some_and(|own| own.allows(client, deed)) {
            return May::Yes;
        }
        let policy = &self.door.policy;
        match policy.acl.as_ref().and_then(|acl| acl.judge(client, deed)) {
            Some(may) => may.into(),
            None if policy.asks_rules() => May::Ask,
            // What no rule applies to is denied, where there are any.
            None => (policy.acl.is_none() && own.is_none()).into(),
        }
    }

    /// What was given to a client that was just let in is kept.
    pub(super) fn keep_grant(&mut self, conn: Conn) {
        let (Some(grant), Some(slot)) = (self.door.fresh.take(), self.local.conns.slot(conn)) else { return };
        let until = grant.left_s.map_or(Moment::NEVER, |left_s| self.local.now.plus_s(left_s));
        let Grant { acl, superuser, .. } = *grant;
        if until == Moment::NEVER && acl.is_none() && !superuser {
            return;
        }
        self.door.grants.insert(slot, Granted { until, acl, superuser });
        if until != Moment::NEVER {
            self.insert_timer(until, Timer::expire(slot));
        }
    }

    /// A connection serves no more.
    pub(super) fn drop_grant(&mut self, conn: Conn) {
        if !self.door.grants.is_empty()
            && let Some(slot) = self.local.conns.slot(conn)
        {
            self.door.grants.remove(&slot);
        }
    }

    /// A token may have ended.
    pub(super) fn expire_grant(&mut self, slot: Slot) {
        let Some(granted) = self.door.grants.get(&slot) else { return };
        if granted.until > self.local.now {
            return self.insert_timer(granted.until, Timer::expire(slot));
        }
        self.local.counters.tokens_ended += 1;
        self.disconnect(
            slot.index,
            ReasonCode::NOT_AUTHORIZED,
            "the token of this connection has ended",
            End::Lost,
        );
    }

    /// Whether a client that connects may publish its will [MQTT-3.1.2.5 of 5.0]; `None` while a back-end is asked.
    pub(super) fn admit_will(
        &mut self,
        conn: Conn,
        connect: &Connect,
        client_id: &str,
        mount: &str,
    ) -> Option<Result<(), Refusal>> {
        let Some(will) = connect.will.as_ref().filter(|_| self.door.has_rules || self.door.fresh.is_some())
        else {
            return Some(Ok(()));
        };
        let fresh = self.door.fresh.as_deref();
        if fresh.is_some_and(|grant| grant.superuser) {
            return Some(Ok(()));
        }
        let from = self.local.conns.get(conn).and_then(|c| c.peer()).map(|peer| peer.ip());
        let client = Client { id: client_id, user: connect.username, from };
        let topic = [mount, will.topic].concat();
        let deed = Deed::Publish { topic: &topic, qos: will.qos, retain: will.retain };
        let mut may = self.rules_say(fresh.and_then(|grant| grant.acl.as_ref()), &client, &deed);
        if may == May::Ask {
            let slot = self.local.conns.slot(conn)?;
            may = self.ruled(slot, Access::Publish, will.topic);
            self.settle_inquiry(conn);
        }
        if may == May::Ask {
            let inquiry = Inquiry {
                client_id: client_id.into(),
                username: connect.username.map(Into::into),
                from,
                mount: mount.into(),
                access: Access::Publish,
                topics: Box::from([will.topic.into()]),
            };
            if self.await_will(conn, inquiry) {
                return None;
            }
        }
        let (code, text) = match may {
            May::Yes => return Some(Ok(())),
            May::No => {
                self.local.counters.wills_denied += 1;
                (ReasonCode::NOT_AUTHORIZED, DENIED)
            }
            May::NotNow | May::Ask => {
                self.local.counters.rights_unanswered += 1;
                (ReasonCode::SERVER_UNAVAILABLE, UNANSWERED)
            }
        };
        Some(Err(Refusal { code, text: format!("will: {text}") }))
    }

    /// A PUBLISH that its client may not make, or not yet, or nobody knows: as things are, nobody gets it.
    #[cold]
    pub(super) fn stop_publish(
        &mut self,
        conn: Conn,
        p: &Publish,
        may: May,
        topic: &str,
    ) -> Result<Next, Fault> {
        match may {
            May::Yes => Ok(Next::Go),
            May::No => self.deny_publish(conn, p),
            May::NotNow => Ok(self.put_off_publish(conn, p)),
            May::Ask => {
                let mount = self.local.conns.get(conn).and_then(|c| c.link.mount()).unwrap_or_default();
                let topic = topic.strip_prefix(mount).unwrap_or(topic);
                if self.inquire(conn, Access::Publish, Box::from([topic.into()])) {
                    return Ok(Next::Wait);
                }
                Ok(self.put_off_publish(conn, p))
            }
        }
    }

    fn deny_publish(&mut self, conn: Conn, p: &Publish) -> Result<Next, Fault> {
        self.local.counters.publish_denied += 1;
        match self.door.policy.deny_action {
            DenyAction::Ignore => Ok(self.acknowledge(conn, p, ReasonCode::NOT_AUTHORIZED, DENIED, 0)),
            DenyAction::Disconnect => Err(Fault::new(ReasonCode::NOT_AUTHORIZED, DENIED)),
        }
    }

    /// Nobody says whether a client may publish this. It is told so; one that cannot be told waits for a while, for what
    /// is acknowledged is not lost.
    fn put_off_publish(&mut self, conn: Conn, p: &Publish) -> Next {
        let Some(c) = self.local.conns.get(conn) else { return Next::Gone };
        self.local.counters.rights_unanswered += 1;
        if c.link.version < Version::V5 && p.qos != QoS::AtMostOnce {
            // It is asked anew then.
            self.settle_inquiry(conn);
            return self.wait_full(conn, UNANSWERED);
        }
        self.acknowledge(conn, p, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR, UNANSWERED, 0)
    }

    /// A subscription that its client may not have, or of which nobody knows.
    pub(super) fn stop_subscribe(&mut self, may: May) -> Result<ReasonCode, Fault> {
        if matches!(may, May::NotNow | May::Ask) {
            self.local.counters.rights_unanswered += 1;
            return Ok(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
        }
        self.local.counters.subscribe_denied += 1;
        match self.door.policy.deny_action {
            DenyAction::Ignore => Ok(ReasonCode::NOT_AUTHORIZED),
            DenyAction::Disconnect => Err(Fault::new(ReasonCode::NOT_AUTHORIZED, DENIED)),
        }
    }

    /// Goes on looking at what was allowed by earlier rules: clients that are banned, or whose user is not known any
    /// more, are disconnected, and subscriptions that are not allowed any more end.
    pub(super) fn review(&mut self) {
        let Some(Review { mut at, mut left }) = self.door.review.take() else { return };
        let end = self.local.sessions.end();
        let mut budget = TICK_REVIEWS_MAX;
        while left > 0 && budget > 0 {
            if at >= end {
                at = 0;
            }
            budget -= self.review_session(at).min(budget);
            at += 1;
            left -= 1;
        }
        self.door.review = (left > 0).then_some(Review { at, left });
    }

    /// Looks at one session; returns what that cost.
    fn review_session(&mut self, index: u32) -> usize {
        if self.end_if_banned(index) {
            return 2;
        }
        let Some(session) = self.local.sessions.get(index).filter(|s| !s.ended) else { return 1 };
        let username = session.profile.as_deref().and_then(|profile| profile.username.as_deref());
        let certified = session.conn.is_some_and(|conn| self.is_certified(conn));
        if !certified && self.door.policy.has_lost(username) {
            if let Some(conn) = session.conn {
                self.local.counters.users_lost += 1;
                let text = "the user of this connection is not known any more";
                self.disconnect(conn, ReasonCode::NOT_AUTHORIZED, text, End::Lost);
            }
            return 2;
        }
        let subscriptions = session.subscriptions.as_slice();
        if self.door.policy.acl.is_none() || subscriptions.is_empty() {
            return 1;
        }
        let cost = subscriptions.len();
        let denied = |sub: &&SubRef| {
            self.trie.describe(**sub, index).is_some_and(|(filter, _, sub)| {
                let qos = QoS::from_bits(sub.options.qos()).unwrap_or_default();
                // What a back-end has granted stays until it is asked again.
                self.may_subscribe(index, Filter::of_checked(filter), qos) == May::No
            })
        };
        let gone: Vec<SubRef> = subscriptions.iter().filter(denied).copied().collect();
        if !gone.is_empty() {
            self.revoke(index, gone);
        }
        cost
    }
}
