//! SUBSCRIBE and UNSUBSCRIBE. Their answers leave once all other shards will see what changed.
//!
//! A packet may name tens of thousands of filters, so it is handled in parts, each within a tick's budget: it stays
//! unread until its last filter was handled, and [`Partial`] says how far it has come.

use super::connection::Wait;
use super::obstacle::CANNOT_WRITE;
use super::rights::May;
use super::{Fault, Handover, Next, Pressure, Shard};
use crate::codec::{
    Packet, PacketId, Properties, Property, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions,
};
use crate::codec::{UnsubAck, Unsubscribe, Version};
use crate::io::{Conn, Io};
use crate::listener::mount::mounted_filter;
use crate::map::Slot;
use crate::mesh::Control;
use crate::message::QoS;
use crate::session::ScanJob;
use crate::topic::{Subscribed, parse_subscription};
use crate::trie::{Sub, SubOptions, SubRef};

/// Who wants a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// Its client.
    Client,
    /// The operator, who decides what rules leave open.
    Operator,
}

/// A packet of which the first filters were handled, and those that were not are for later ticks.
#[derive(Debug)]
pub(super) struct Partial {
    conn: Slot,
    /// One for each filter that was handled.
    codes: Vec<ReasonCode>,
    jobs: Vec<ScanJob>,
}

impl Partial {
    pub fn is_of(&self, conn: Conn) -> bool {
        self.conn.index == conn
    }
}

impl<I: Io<Handover>> Shard<I> {
    pub(super) fn handle_subscribe(&mut self, conn: Conn, s: &Subscribe) -> Result<Next, Fault> {
        let Some(c) = self.local.conns.get(conn) else { return Ok(Next::Gone) };
        let Some(index) = c.session else { return Ok(Next::Gone) };
        let version = c.link.version;
        let id = s.properties.iter().find_map(|p| match p {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        });
        let texts = || s.filters.iter().map(|(text, _)| text);
        let Some(mut partial) = self.begin_or_go_on(conn, version, texts)? else { return Ok(Next::Gone) };
        let from = partial.codes.len();
        if from == 0 && self.is_frozen(index) {
            let refused = vec![ReasonCode::QUOTA_EXCEEDED.0; s.filters.iter().count()];
            self.local.counters.store_refused += 1;
            self.local.counters.subscribes += refused.len() as u64;
            self.local.counters.subscribe_errors += refused.len() as u64;
            self.settle_inquiry(conn);
            return Ok(self.answer_subscribe(conn, s.packet_id, &refused));
        }
        for (at, (text, options)) in s.filters.iter().enumerate().skip(from) {
            if self.budget <= 0 && partial.codes.len() > from {
                return Ok(self.go_on_later(partial));
            }
            if self.door.policy.asks_rules()
                && let Some(next) = self.inquire_filters(conn, index, s.filters.iter().skip(at))
            {
                self.partials.push(partial);
                return Ok(next);
            }
            self.budget -= 1;
            self.local.counters.subscribes += 1;
            let (id, jobs) = (id.unwrap_or(0), &mut partial.jobs);
            let code = self.subscribe(conn, index, (text, options), id, By::Client, jobs);
            let granted = code.as_ref().is_ok_and(|code| !code.is_error());
            self.local.counters.subscribed += u64::from(granted);
            self.local.counters.subscribe_errors += u64::from(!granted);
            partial.codes.push(code?);
        }
        self.settle_inquiry(conn);
        let Partial { codes, jobs, .. } = partial;
        let codes: Vec<u8> = codes.iter().map(|code| code.0).collect();
        let packet_id = s.packet_id;
        self.touch_session(index);
        let next = self.after_commit(conn, index, |link, ctx| {
            let suback = SubAck { packet_id, properties: Properties::EMPTY, codes: &codes };
            link.push(&Packet::SubAck(suback), ctx);
        });
        self.add_scans(index, jobs);
        self.local.count_session(index);
        Ok(next)
    }

    /// SUBACK where nothing has changed.
    fn answer_subscribe(&mut self, conn: Conn, packet_id: PacketId, codes: &[u8]) -> Next {
        self.after_announcements(conn, |link, ctx| {
            let suback = SubAck { packet_id, properties: Properties::EMPTY, codes };
            link.push(&Packet::SubAck(suback), ctx);
        })
    }

    /// What was handled of the packet before; nothing, if it is acceptable as a whole.
    fn begin_or_go_on<'a, F: Iterator<Item = &'a str>>(
        &mut self,
        conn: Conn,
        version: Version,
        filters: impl Fn() -> F,
    ) -> Result<Option<Partial>, Fault> {
        let Some(conn) = self.local.conns.slot(conn) else { return Ok(None) };
        if let Some(at) = self.partials.iter().position(|p| p.conn == conn) {
            return Ok(Some(self.partials.swap_remove(at)));
        }
        check_filters(version, filters())?;
        self.check_answer(conn.index, filters().count())?;
        Ok(Some(Partial { conn, codes: Vec::new(), jobs: Vec::new() }))
    }

    /// The tick's budget is used up.
    fn go_on_later(&mut self, partial: Partial) -> Next {
        self.local.counters.cursors += 1;
        self.wait(partial.conn.index, Wait::Turn);
        self.partials.push(partial);
        Next::Wait
    }

    /// Whether the client takes a SUBACK or UNSUBACK with this many codes [MQTT-3.1.2-24 of 5.0]. It cannot be
    /// left without an answer, so what it asks is refused before anything is done.
    fn check_answer(&self, conn: Conn, filters: usize) -> Result<(), Fault> {
        let Some(c) = self.local.conns.get(conn) else { return Ok(()) };
        let packet_id = PacketId::MIN;
        let bare = Packet::SubAck(SubAck { packet_id, properties: Properties::EMPTY, codes: &[] });
        // Fixed header, packet identifier and property length of one with no codes; two bytes more of length.
        let most = bare.encoded_len(c.link.version) + 3 + filters;
        if most <= c.link.packet_bytes_max as usize {
            return Ok(());
        }
        let codes = vec![0; filters];
        let suback = Packet::SubAck(SubAck { packet_id, properties: Properties::EMPTY, codes: &codes });
        if c.link.fits(&suback) {
            return Ok(());
        }
        let (limit, needed) = (c.link.packet_bytes_max, suback.encoded_len(c.link.version));
        let text = format!("expected an answer within the client's {limit} bytes, it would have {needed}");
        Err(Fault::new(ReasonCode::PACKET_TOO_LARGE, text))
    }

    pub(super) fn subscribe(
        &mut self,
        conn: Conn,
        index: u32,
        (text, options): (&str, SubscribeOptions),
        id: u32,
        by: By,
        jobs: &mut Vec<ScanJob>,
    ) -> Result<ReasonCode, Fault> {
        let listener = self.local.conns.get(conn).map_or(0, |c| c.listener);
        let o = self.local.options.of(listener);
        let Ok(mut to) = parse_subscription(text, o.max_topic_levels as usize) else {
            return Ok(ReasonCode::TOPIC_FILTER_INVALID);
        };
        let full = self.mount_of(conn).map(|mount| mounted_filter(mount, text));
        if let Some(full) = &full {
            let Ok(mounted) = parse_subscription(full, 0) else {
                return Ok(ReasonCode::TOPIC_FILTER_INVALID);
            };
            to = mounted;
        }
        if to.group.is_some() && options.no_local {
            let text = "expected No Local 0 on a shared subscription"; // [MQTT-3.8.3-4 of 5.0]
            return Err(Fault::new(ReasonCode::PROTOCOL_ERROR, text));
        }
        if to.group.is_some() && !o.shared_available {
            return Ok(ReasonCode::SHARED_NOT_SUPPORTED);
        }
        if !to.filter.is_exact() && !o.wildcard_available {
            return Ok(ReasonCode::WILDCARD_NOT_SUPPORTED);
        }
        let of_broker = to.filter.as_str().starts_with("$SYS");
        if of_broker && o.sys_local_only && !self.is_local(conn) {
            self.local.counters.subscribe_denied += 1;
            return Ok(ReasonCode::NOT_AUTHORIZED);
        }
        let qos = options.qos.min(o.qos_max());
        let max_subscriptions = o.max_subscriptions as usize;
        let may = self.judge_subscribe(index, to.filter, qos);
        if may == May::No || (may != May::Yes && by == By::Client) {
            return self.stop_subscribe(may);
        }
        let Some(session) = self.local.sessions.get(index) else { return Ok(ReasonCode::UNSPECIFIED_ERROR) };
        let (full, over) = (session.full, session.subscriptions.len() >= max_subscriptions);
        let is_new = || {
            let known = self.trie.find(&to);
            known.is_none_or(|k| self.trie.describe(k, index).is_none())
        };
        // Subscribing again asks for retained messages again, faster than a client that does not read takes them.
        let scanning =
            session.scans.as_ref().map_or(0, |s| s.jobs.len()) + jobs.len() >= 2 * max_subscriptions;
        let short = self.pressure >= Pressure::Subscriptions;
        if scanning || ((over || short) && is_new()) {
            return Ok(ReasonCode::QUOTA_EXCEEDED);
        }
        let packed = SubOptions::new(
            qos as u8,
            options.no_local,
            options.retain_as_published,
            options.retain_handling as u8,
        );
        let added = self.trie.subscribe(&to, Sub::new(index, packed, id));
        if let Some(route) = added.announce {
            self.mesh.broadcast(|| Control::Announce(route.clone()));
        }
        if !added.existed {
            if let Some(session) = self.local.sessions.get_mut(index) {
                self.local.gauges.subscribers += u64::from(session.subscriptions.is_empty());
                session.subscriptions.add(added.sub);
            }
            if to.group.is_some() {
                self.trie.set_online(added.sub, index, true);
            }
            if full && let Some((route, true)) = self.trie.local_full(added.sub, index, true) {
                self.mesh.broadcast(|| Control::RouteFull(route.clone()));
            }
        }
        self.local.counters.sys_subscribes += u64::from(of_broker);
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !added.existed,
            RetainHandling::DoNotSend => false,
        };
        if wants_retained && to.group.is_none() {
            // A filter without wildcards concerns one shard.
            let key = to.filter.is_exact().then(|| self.local.keyed.key(to.filter.as_str()));
            let home = key.map(|key| (key % u64::from(self.shards)) as u16);
            let no_local = options.no_local;
            jobs.push(ScanJob { sub: added.sub, home, qos, id, no_local, cancelled: false, number: 0 });
        }
        self.note_subscribed(conn, index, text, qos);
        debug_assert!(self.local.conns.get(conn).is_some());
        Ok(granted(qos))
    }

    /// What stands before the topics of a connection's client.
    fn mount_of(&self, conn: Conn) -> Option<&str> {
        self.local.conns.get(conn)?.link.mount()
    }

    pub(super) fn handle_unsubscribe(&mut self, conn: Conn, u: &Unsubscribe) -> Result<Next, Fault> {
        let Some(c) = self.local.conns.get(conn) else { return Ok(Next::Gone) };
        let Some(index) = c.session else { return Ok(Next::Gone) };
        let version = c.link.version;
        let Some(mut partial) = self.begin_or_go_on(conn, version, || u.filters.iter())? else {
            return Ok(Next::Gone);
        };
        if partial.codes.is_empty() && self.is_frozen(index) {
            self.local.counters.store_refused += 1;
            return Ok(self.refuse_unsubscribe(conn, version, u));
        }
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.full_until = None;
        }
        let left = u.filters.iter().skip(partial.codes.len());
        let part = left.take(self.budget.max(1) as usize);
        let from = partial.codes.len();
        self.unsubscribe(index, part, &mut partial.codes);
        let ended = partial.codes[from..].iter().filter(|code| **code == ReasonCode::SUCCESS).count();
        self.local.counters.unsubscribes += (partial.codes.len() - from) as u64;
        self.local.counters.unsubscribed += ended as u64;
        if partial.codes.len() < u.filters.len() {
            return Ok(self.go_on_later(partial));
        }
        let codes: Vec<u8> = partial.codes.iter().map(|code| code.0).collect();
        let packet_id = u.packet_id;
        let codes = if version == Version::V5 { &codes[..] } else { &[] };
        Ok(self.after_commit(conn, index, |link, ctx| {
            let unsuback = UnsubAck { packet_id, properties: Properties::EMPTY, codes };
            link.push(&Packet::UnsubAck(unsuback), ctx);
        }))
    }

    /// Nothing can be written of an UNSUBSCRIBE. UNSUBACK has no 0x97, and in 3.x no code at all.
    fn refuse_unsubscribe(&mut self, conn: Conn, version: Version, u: &Unsubscribe) -> Next {
        if version < Version::V5 {
            return self.wait_full(conn, CANNOT_WRITE);
        }
        let codes = vec![ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR.0; u.filters.iter().count()];
        let (packet_id, properties) = (u.packet_id, Properties::EMPTY);
        self.after_announcements(conn, |link, ctx| {
            link.push(&Packet::UnsubAck(UnsubAck { packet_id, properties, codes: &codes }), ctx);
        })
    }

    /// Ends subscriptions, and appends a code for each to `codes`.
    pub(super) fn unsubscribe<'a>(
        &mut self,
        index: u32,
        filters: impl Iterator<Item = &'a str>,
        codes: &mut Vec<ReasonCode>,
    ) {
        let conn = self.local.sessions.get(index).and_then(|session| session.conn);
        let Some(mount) = conn.and_then(|conn| self.mount_of(conn)) else {
            return self.unsubscribe_full(index, filters, codes);
        };
        let full: Vec<String> = filters.map(|filter| mounted_filter(mount, filter)).collect();
        self.unsubscribe_full(index, full.iter().map(String::as_str), codes);
    }

    /// The same for filters as they are known here. What the session keeps is gone through once for all of them.
    fn unsubscribe_full<'a>(
        &mut self,
        index: u32,
        filters: impl Iterator<Item = &'a str>,
        codes: &mut Vec<ReasonCode>,
    ) {
        let listener = self.local.sessions.get(index).map_or(0, |session| session.entry.listener());
        // What a mountpoint adds does not count.
        let mounted = self.local.options.listener(listener).is_some_and(|told| !told.mountpoint.is_empty());
        let levels_max = self.local.options.of(listener).max_topic_levels as usize;
        let levels_max = if mounted { 0 } else { levels_max };
        let mut gone = Vec::new();
        for text in filters {
            self.budget -= 1;
            let code = match parse_subscription(text, levels_max) {
                Err(_) => ReasonCode::TOPIC_FILTER_INVALID,
                Ok(from) => match self.end_subscription(index, &from) {
                    None => ReasonCode::NO_SUBSCRIPTION_EXISTED,
                    Some(sub) => {
                        self.note_unsubscribed(index, text);
                        gone.push(sub);
                        ReasonCode::SUCCESS
                    }
                },
            };
            codes.push(code);
        }
        self.forget_subscriptions(index, gone);
    }

    /// A session forgets subscriptions that have ended.
    fn forget_subscriptions(&mut self, index: u32, mut gone: Vec<SubRef>) {
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        session.subscriptions.remove_all(&mut gone);
        let none_left = !gone.is_empty() && session.subscriptions.is_empty();
        self.local.gauges.subscribers -= u64::from(none_left);
        if let Some(scans) = &mut session.scans {
            // In order, as they were taken out.
            scans.forget(|sub| gone.binary_search(&sub).is_ok());
        }
        session.count(&mut self.local.memory);
        self.touch_session(index);
    }

    /// Ends subscriptions that are not allowed any more.
    pub(super) fn revoke(&mut self, index: u32, gone: Vec<SubRef>) {
        for sub in &gone {
            let text = self.trie.describe(*sub, index).map(|(filter, group, _)| match group {
                Some(name) => format!("$share/{name}/{filter}"),
                None => filter.to_owned(),
            });
            let removed = self.trie.unsubscribe(*sub, index);
            self.withdraw(removed);
            self.note_unsubscribed(index, &text.unwrap_or_default());
        }
        self.local.counters.revoked += gone.len() as u64;
        self.forget_subscriptions(index, gone);
        self.announce_groups();
    }

    /// Ends a subscription, if there is one; the session is still to forget it.
    fn end_subscription(&mut self, index: u32, from: &Subscribed) -> Option<SubRef> {
        let sub = self.trie.find(from)?;
        let removed = self.trie.unsubscribe(sub, index);
        if !removed.existed {
            return None;
        }
        self.withdraw(removed);
        Some(sub)
    }
}

/// 5.0 has a reason code for each filter. In 3.x, one that the standard forbids is a protocol violation, which
/// ends the connection before any of the packet counts [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.8.0-1 of 3.1.1].
fn check_filters<'a>(version: Version, mut filters: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    if version == Version::V5 {
        return Ok(());
    }
    let wrong = |text| parse_subscription(text, 0).err().filter(|error| error.is_violation());
    match filters.find_map(wrong) {
        Some(error) => Err(Fault::new(ReasonCode::TOPIC_FILTER_INVALID, format!("topic filter: {error}"))),
        None => Ok(()),
    }
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::SUCCESS,
        QoS::AtLeastOnce => ReasonCode::GRANTED_QOS_1,
        QoS::ExactlyOnce => ReasonCode::GRANTED_QOS_2,
    }
}
