//! The large answers for the management thread: each function looks at things from where its cursor is until the
//! tick's cost is spent, and says whether the page is complete.

use super::connection::Connection;
use super::{Handover, Shard};
use crate::codec::Version;
use crate::desk::{
    ClientQuery, ClientRow, Cost, Cursor, LossRow, RouteQuery, RouteRow, SubscriptionQuery, SubscriptionRow,
    WillRow,
};
use crate::io::Io;
use crate::message::{Message, QoS};
use crate::retained::Scan;
use crate::session::{Past, Session};
use crate::time::Moment;
use crate::topic::Filter;
use std::net::SocketAddr;

/// What there is of a connection, also of one that is gone.
struct Facts {
    version: Version,
    bridge: bool,
    clean_start: bool,
    keep_alive_s: u16,
    window: u16,
    peer: Option<SocketAddr>,
}

impl Facts {
    fn of(connection: &Connection) -> Facts {
        Facts {
            version: connection.link.version,
            bridge: connection.asked().bridge,
            clean_start: connection.asked().clean_start,
            keep_alive_s: connection.keep_alive_s,
            window: connection.link.window,
            peer: connection.peer(),
        }
    }

    fn of_past(past: &Past) -> Facts {
        Facts {
            version: past.version,
            bridge: past.bridge,
            clean_start: past.clean_start,
            keep_alive_s: past.keep_alive_s,
            window: past.window,
            peer: past.peer,
        }
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Clients, by the index of their session.
    pub(super) fn list_clients(&self, cursor: &mut Cursor<ClientQuery, ClientRow>, cost: &mut Cost) -> bool {
        if let Some(client_id) = &cursor.query.client_id {
            let found = self.client(client_id).filter(|index| *index >= cursor.at.index);
            let session = found.and_then(|index| self.local.sessions.get(index));
            if let (Some(index), Some(session)) = (found, session.filter(|s| self.is_asked(s, &cursor.query)))
            {
                cursor.at.index = index;
                cursor.offer(cost, texts(session), || self.client_row(session));
            }
            return true;
        }
        let all = cursor.query.is_all();
        if all && cursor.counts_only() {
            cursor.count(self.local.clients());
            return true;
        }
        while cost.spend(1) {
            let index = cursor.at.index;
            if index >= self.local.sessions.end() {
                return true;
            }
            if let Some(session) = self.local.sessions.get(index).filter(|s| !s.ended) {
                if cursor.query.looks_into_texts() {
                    cost.spend_bytes(texts(session));
                }
                if (all || self.is_asked(session, &cursor.query))
                    && !cursor.offer(cost, texts(session), || self.client_row(session))
                {
                    return true;
                }
            }
            cursor.at.index += 1;
        }
        false
    }

    /// Subscriptions, by the index of their session.
    pub(super) fn list_subscriptions(
        &self,
        cursor: &mut Cursor<SubscriptionQuery, SubscriptionRow>,
        cost: &mut Cost,
    ) -> bool {
        if cursor.query.is_all() && cursor.counts_only() {
            cursor.count(self.trie.stats().subscriptions);
            return true;
        }
        let only = match &cursor.query.client_id {
            None => None,
            Some(client_id) => match self.client(client_id) {
                Some(index) if index >= cursor.at.index => Some(index),
                _ => return true,
            },
        };
        if let Some(only) = only.filter(|only| *only > cursor.at.index) {
            (cursor.at.index, cursor.at.within) = (only, 0);
        }
        while cost.spend(1) {
            let index = cursor.at.index;
            if index >= self.local.sessions.end() || only.is_some_and(|only| index > only) {
                return true;
            }
            let session = self.local.sessions.get(index).filter(|s| !s.ended);
            let sub =
                session.and_then(|s| Some((s, *s.subscriptions.as_slice().get(cursor.at.within as usize)?)));
            let Some((session, sub)) = sub else {
                (cursor.at.index, cursor.at.within) = (index + 1, 0);
                continue;
            };
            let described = self.trie.describe(sub, index);
            if cursor.query.match_topic.is_some() {
                cost.spend_bytes(LEVELS * described.map_or(0, |(filter, ..)| filter.len()));
            }
            if let Some((filter, share, sub)) = described
                && wants(&cursor.query, filter, share, sub.options.qos())
                && !cursor.offer(cost, filter.len() + session.client_id.len(), || {
                    let connection = session.conn.and_then(|conn| self.local.conns.get(conn));
                    SubscriptionRow {
                        shard: self.me,
                        client_id: session.client_id.clone(),
                        peer: connection.and_then(Connection::peer),
                        filter: filter.into(),
                        share: share.map(Box::from),
                        qos: QoS::from_bits(sub.options.qos()).unwrap_or_default(),
                        no_local: sub.options.no_local(),
                        retain_as_published: sub.options.retain_as_published(),
                        retain_handling: sub.options.retain_handling(),
                        id: sub.id,
                    }
                })
            {
                return true;
            }
            cursor.at.within += 1;
        }
        false
    }

    /// Filters with subscribers here and on no shard before this one.
    pub(super) fn list_routes(&self, cursor: &mut Cursor<RouteQuery, RouteRow>, cost: &mut Cost) -> bool {
        let before = (1u64 << self.me) - 1;
        while cost.spend(1) {
            let index = cursor.at.index;
            if index >= self.trie.filters_end() {
                return true;
            }
            if let Some((filter, others)) = self.trie.filter_at(index)
                && others & before == 0
            {
                if cursor.query.topic.is_some() {
                    cost.spend_bytes(LEVELS * filter.len());
                }
                if cursor.query.topic.as_ref().is_none_or(|t| fits(filter, t))
                    && !cursor.offer(cost, filter.len(), || RouteRow { filter: filter.into() })
                {
                    return true;
                }
            }
            cursor.at.index += 1;
        }
        false
    }

    /// Retained messages, in the order of their topics.
    pub(super) fn list_retained(&self, cursor: &mut Cursor<Box<str>, Message>, cost: &mut Cost) -> bool {
        let (steps, now) = (cost.left(), self.local.now);
        let rows = (steps / crate::limits::DESK_ROW_COST).max(1);
        let (filter, after) = (Filter::of_checked(&cursor.query), cursor.at.after.as_deref());
        let mut found = Vec::new();
        let outcome = self.retained.scan(filter, after, now, steps, rows, &mut found);
        cost.spend(steps);
        for message in found {
            let topic: Box<str> = message.topic().into();
            if !cursor.offer(cost, topic.len(), || message) {
                return true;
            }
            cursor.at.after = Some(topic);
        }
        match outcome {
            Scan::Done => true,
            Scan::More { after } => {
                cursor.at.after = Some(after);
                false
            }
        }
    }

    /// Clients that lost something; those without a line of their own are the last row.
    pub(super) fn list_losses(&self, cursor: &mut Cursor<(), LossRow>, cost: &mut Cost) -> bool {
        let ledger = &self.local.ledger;
        for (client_id, losses) in ledger.clients_from(cursor.at.index as usize) {
            if !cost.spend(1) {
                return false;
            }
            let row = || LossRow { client_id: Some(client_id.into()), losses: *losses };
            if !cursor.offer(cost, client_id.len(), row) {
                return true;
            }
            cursor.at.index += 1;
        }
        let others = *ledger.others();
        if cursor.at.within == 0 && others.iter().any(|n| *n > 0) {
            cursor.offer(cost, 0, || LossRow { client_id: None, losses: others });
        }
        true
    }

    /// What a client is, with or without a connection.
    pub(super) fn client_row(&self, session: &Session) -> ClientRow {
        let o = self.local.options.of(session.entry.listener());
        let profile = session.profile.as_deref();
        let (connection, past) = (self.connection_of(session), profile.and_then(|p| p.past.as_deref()));
        let facts = connection.map(Facts::of).or(past.map(Facts::of_past));
        let mut traffic = session.folded().or(past.map(|p| &p.traffic)).copied().unwrap_or_default();
        if let Some(connection) = connection {
            traffic.add(&connection.link.traffic);
        }
        let second = |s: u32| Moment(u64::from(s) * 1_000);
        ClientRow {
            shard: self.me,
            client_id: session.client_id.clone(),
            username: profile.and_then(|p| p.username.clone()),
            peer: facts.as_ref().and_then(|f| f.peer),
            version: facts.as_ref().map_or(Version::V311, |f| f.version),
            bridge: facts.as_ref().is_some_and(|f| f.bridge),
            connected: connection.is_some(),
            connected_at: second(session.connected_s),
            disconnected_at: past.map(|p| p.ended),
            disconnect_reason: past.and_then(|p| p.reason),
            created_at: second(session.created_s),
            keep_alive_s: facts.as_ref().map_or(0, |f| f.keep_alive_s),
            clean_start: facts.as_ref().is_some_and(|f| f.clean_start),
            session_present: session.entry.present(),
            expiry_s: session.expiry_s,
            subscriptions: session.subscriptions.len(),
            max_subscriptions: o.max_subscriptions,
            inflight: session.outgoing.as_ref().map_or(0, |out| out.inflight()),
            max_inflight: facts.as_ref().map_or(o.max_inflight, |f| f.window),
            mqueue_len: session.outgoing.as_ref().map_or(0, |out| out.queued()),
            max_mqueue: o.max_mqueue,
            mqueue_dropped: session.dropped(),
            awaiting_rel: session.incoming.as_ref().map_or(0, |i| i.len()),
            max_awaiting_rel: o.max_awaiting_rel,
            pending_bytes: connection.map_or(0, |c| c.pending.len()),
            memory_bytes: memory(session, connection),
            traffic,
            will: session
                .will
                .as_ref()
                .map(|will| Box::new(WillRow { message: will.kept().clone(), delay_s: will.delay_s })),
        }
    }

    /// Folds what was counted of a connection, before it overflows.
    pub(super) fn fold_traffic(&mut self, conn: crate::io::Conn) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(session) = c.session.and_then(|index| self.local.sessions.get_mut(index)) else { return };
        session.fold(&std::mem::take(&mut c.link.traffic));
    }

    fn connection_of(&self, session: &Session) -> Option<&Connection> {
        session.conn.and_then(|conn| self.local.conns.get(conn))
    }

    /// Whether a session is what a query looks for.
    fn is_asked(&self, s: &Session, q: &ClientQuery) -> bool {
        let second = |s: u32| u64::from(s) * 1_000;
        let profile = s.profile.as_deref();
        let username = profile.and_then(|p| p.username.as_deref());
        let queued = || s.outgoing.as_ref().map_or(0, |out| out.queued()) as u64;
        if s.ended
            || q.nobody
            || q.client_id.as_deref().is_some_and(|id| id != &*s.client_id)
            || q.client_id_part.as_deref().is_some_and(|part| !s.client_id.contains(part))
            || q.username.as_deref().is_some_and(|name| Some(name) != username)
            || q.username_part.as_deref().is_some_and(|part| !username.is_some_and(|n| n.contains(part)))
            || q.connected.is_some_and(|connected| connected != s.conn.is_some())
            || q.session_present.is_some_and(|present| present != s.entry.present())
            || !q.created.holds(second(s.created_s))
            || !q.connected_at.holds(second(s.connected_s))
            || !q.mqueue_len.holds(queued())
        {
            return false;
        }
        if q.ip.is_none() && q.clean_start.is_none() && q.proto_ver.is_none() {
            return true;
        }
        let past = || profile.and_then(|p| p.past.as_deref()).map(Facts::of_past);
        let Some(facts) = self.connection_of(s).map(Facts::of).or_else(past) else { return false };
        q.ip.is_none_or(|ip| facts.peer.is_some_and(|peer| peer.ip() == ip))
            && q.clean_start.is_none_or(|clean| clean == facts.clean_start)
            && q.proto_ver.is_none_or(|level| level == facts.version.level())
    }
}

/// Comparing a text level by level costs so much more than as a whole.
const LEVELS: usize = 16;

/// Bytes of the texts of a client's row.
fn texts(session: &Session) -> usize {
    let username = session.profile.as_deref().and_then(|p| p.username.as_deref());
    session.client_id.len() + username.map_or(0, str::len)
}

/// Whether a subscription is what a query looks for.
fn wants(q: &SubscriptionQuery, filter: &str, share: Option<&str>, qos: u8) -> bool {
    !q.nothing
        && q.filter.as_deref().is_none_or(|f| f == filter)
        && q.qos.is_none_or(|q| q == qos)
        && q.share.as_deref().is_none_or(|s| Some(s) == share)
        && q.match_topic.as_deref().is_none_or(|t| fits(filter, t) || fits(t, filter))
}

/// Whether a filter matches a topic name, or all that another filter matches.
fn fits(filter: &str, other: &str) -> bool {
    let system = other.starts_with('$') && filter.starts_with(['+', '#']); // [MQTT-4.7.2-1]
    let (mut levels, mut others) = (filter.split('/'), other.split('/'));
    loop {
        match (levels.next(), others.next()) {
            (Some("#"), _) | (None, None) => return !system,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(level), Some(other)) if level == other => {}
            _ => return false,
        }
    }
}

/// Bytes that a client holds in the tables and owns, without queued messages.
fn memory(session: &Session, connection: Option<&Connection>) -> usize {
    let one = |c: &Connection| {
        size_of::<Connection>() + c.pending.capacity() + c.link.out.capacity() + c.link.sending as usize
    };
    let folded = session.profile.as_ref().map_or(0, |p| p.bytes());
    size_of::<Session>() + session.client_id.len() + folded + connection.map_or(0, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_finds_filters_and_a_filter_finds_those_below_it() {
        let asked = |text: &str| SubscriptionQuery { match_topic: Some(text.into()), ..Default::default() };
        for (text, filter, found) in [
            ("a/b", "a/+", true),
            ("a/#", "a/b", true),
            ("a/b", "a/b", true),
            ("a/b", "b/+", false),
            ("a/#", "a/+/c", true),
            ("a/+", "a/#", true),
            ("a/+", "b/#", false),
            ("$a/b", "#", false),
            ("a", "a/#", true),
        ] {
            assert_eq!(wants(&asked(text), filter, None, 0), found, "{text} {filter}");
        }
    }
}
