//! A PUBLISH and where it goes: planned, room reserved on every target, then delivered here and sent there.

use super::connection::Wait;
use super::keep::After;
use super::local::Target;
use super::obstacle::{ASKED, OWN, Obstacle, Passage};
use super::rights::May;
use super::sessions::rejects;
use super::timers::Timer;
use super::{Fault, Handover, Next, Shard};
use crate::codec::{AckKind, PacketId, Publish, ReasonCode, Version};
use crate::desk::Published;
use crate::heap::vec_bytes;
use crate::io::{Conn, Io, ShardId};
use crate::limits::TICK_ENVELOPES_MAX;
use crate::map::Slot;
use crate::mesh::Envelope;
use crate::message::{Head, Message, MessageRef, QoS};
use crate::router::Wanted;
use crate::session::{Carried, Incoming, PAYLOAD_FORMAT, format_holds, properties_too_long};
use crate::stats::{LossCause, Source};
use crate::time::Moment;
use crate::topic::Topic;
use crate::trie::{Matches, RouteId};

/// Buffers that are reused from packet to packet.
#[derive(Default)]
pub(super) struct Scratch {
    topic: String,
    properties: Vec<u8>,
    pub matches: Matches,
    routes: Vec<RouteId>,
    targets: Vec<Target>,
    pub timers: Vec<(Moment, Timer)>,
}

impl Scratch {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.topic.capacity()
            + self.properties.capacity()
            + vec_bytes::<RouteId>(self.routes.capacity())
            + vec_bytes::<Target>(self.targets.capacity())
            + vec_bytes::<(Moment, Timer)>(self.timers.capacity())
    }
}

/// A message that is handed out over several ticks.
pub(super) struct FanOut {
    message: Message,
    targets: Vec<Target>,
    at: usize,
    origin: Origin,
    /// Who is told once all of it is on the disk, and of which ticket; 0: nobody.
    owner: (ShardId, u64),
    /// As [`Envelope::number`].
    number: u64,
}

impl FanOut {
    /// Bytes of its targets.
    pub fn bytes(&self) -> usize {
        vec_bytes::<Target>(self.targets.capacity())
    }
}

/// Who waits for a fan-out, so that later messages do not overtake it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Conn(Slot),
    Shard(ShardId),
    Own,
}

/// What became of a message.
enum Routed {
    /// It is with its targets; whether there were any, whether a fan-out goes on, and the operation that its
    /// acknowledgement waits for, 0 = none. One part of it is the caller's to finish.
    Done { any: bool, fan_out: bool, op: u64 },
    /// A target's ring has no room; all its targets, as bits.
    NoRoom(ShardId, u64),
    /// A route is full.
    Full,
}

impl<I: Io<Handover>> Shard<I> {
    pub(super) fn handle_publish(&mut self, conn: Conn, p: &Publish) -> Result<Next, Fault> {
        let next = self.publish(conn, p);
        self.local.counters.publish_errors += u64::from(next.is_err());
        if self.door.inquiries.has_open() && !matches!(next, Ok(Next::Wait)) {
            self.settle_inquiry(conn);
        }
        next
    }

    fn publish(&mut self, conn: Conn, p: &Publish) -> Result<Next, Fault> {
        self.check_publish(conn, p)?;
        if p.qos != QoS::AtMostOnce && self.has_too_many_acks(conn) {
            return Ok(Next::Wait);
        }
        let mut scratch = std::mem::take(&mut self.scratch.properties);
        let mut topic = std::mem::take(&mut self.scratch.topic);
        let next = self.publish_checked(conn, p, &mut topic, &mut scratch);
        self.scratch.properties = scratch;
        self.scratch.topic = topic;
        next
    }

    fn check_publish(&self, conn: Conn, p: &Publish) -> Result<(), Fault> {
        let o =
            self.local.conns.get(conn).map_or(&*self.local.options, |c| self.local.options.of(c.listener));
        if p.qos > o.qos_max() {
            let text = format!("expected QoS {} at most, got {}", o.max_qos, p.qos as u8);
            return Err(Fault::new(ReasonCode::QOS_NOT_SUPPORTED, text));
        }
        if p.retain && !o.retain_available {
            return Err(Fault::new(ReasonCode::RETAIN_NOT_SUPPORTED, "expected RETAIN 0"));
        }
        let (properties, most) = (p.properties.len(), o.max_properties as usize);
        if most != 0 && properties > most {
            return Err(Fault::new(ReasonCode::QUOTA_EXCEEDED, properties_too_long(properties, most)));
        }
        if let Some(levels) = excess_levels(p.topic, o.max_topic_levels) {
            let text = format!("expected at most {} topic levels, got {levels}", o.max_topic_levels);
            return Err(Fault::new(ReasonCode::TOPIC_NAME_INVALID, text));
        }
        Ok(())
    }

    fn publish_checked(
        &mut self,
        conn: Conn,
        p: &Publish,
        topic: &mut String,
        scratch: &mut Vec<u8>,
    ) -> Result<Next, Fault> {
        let Some(c) = self.local.conns.get_mut(conn) else { return Ok(Next::Gone) };
        let Some(index) = c.session else { return Ok(Next::Gone) };
        let options = self.local.options.of(c.listener);
        let checks_format = options.check_payload_format;
        let mut aliased = false;
        let mut m = MessageRef {
            topic: p.topic,
            properties: &[],
            payload: p.payload,
            head: Head { stamp: self.local.stamp, ..Head::new(p.qos, p.retain, 0, Source::Client) },
        };
        if c.link.version == Version::V5 && !p.properties.is_empty() {
            let routing = p.routing();
            if routing.has_subscription_id {
                let text = "expected no Subscription Identifier from a client"; // [MQTT-3.3.4-6]
                return Err(Fault::new(ReasonCode::PROTOCOL_ERROR, text));
            }
            if let Some(alias) = routing.alias {
                let alias_max = c.alias_in_max;
                let resolved = c.link.alias_in(p.topic, alias, alias_max).map_err(|code| {
                    Fault::new(
                        code,
                        format!("expected a topic alias from 1 to {alias_max} that is known, got {alias}"),
                    )
                })?;
                topic.clear();
                topic.push_str(resolved);
                aliased = true;
            }
            if let Some(s) = routing.expiry_s {
                m.head.expires = self.local.now.plus_s(u64::from(s));
            }
            m.properties = routing.forward.bytes(scratch);
        }
        if let Some(mount) = c.link.mount() {
            if !aliased {
                topic.clear();
                topic.push_str(p.topic);
                aliased = true;
            }
            topic.insert_str(0, mount);
            if let Err(error) = Topic::new(topic, 0) {
                let text = format!("topic below its mountpoint: {error}");
                return Err(Fault::new(ReasonCode::TOPIC_NAME_INVALID, text));
            }
        }
        if aliased {
            m.topic = topic;
        }
        let Some(session) = self.local.sessions.get_mut(index) else { return Ok(Next::Gone) };
        m.head.publisher = session.key;
        if let Some(next) = self.check_incoming(conn, index, p)? {
            return Ok(next);
        }
        if m.topic.starts_with("$SYS/") {
            let text = "expected a topic outside $SYS/, which the broker alone publishes to";
            self.local.counters.publish_denied += 1;
            return Ok(self.acknowledge(conn, p, ReasonCode::NOT_AUTHORIZED, text, 0));
        }
        let may = self.judge_publish(index, &m);
        if may != May::Yes {
            return self.stop_publish(conn, p, may, m.topic);
        }
        if checks_format && !format_holds(p.properties, p.payload) {
            let code = ReasonCode::PAYLOAD_FORMAT_INVALID;
            if p.qos == QoS::AtMostOnce {
                return Err(Fault::new(code, PAYLOAD_FORMAT));
            }
            return Ok(self.acknowledge(conn, p, code, PAYLOAD_FORMAT, 0));
        }
        self.route_publish(conn, index, p, &m)
    }

    fn route_publish(&mut self, conn: Conn, index: u32, p: &Publish, m: &MessageRef) -> Result<Next, Fault> {
        let Some(slot) = self.local.conns.slot(conn) else { return Ok(Next::Gone) };
        let mut carried = Carried::borrowed(*m);
        let writes = self.writes();
        let message = p.packet_id.filter(|_| p.qos == QoS::ExactlyOnce).map(|id| (index, id));
        // Some may have it from before a crash: then it is too late to refuse it.
        let again = message.is_some_and(|(index, id)| self.is_unsure(index, id));
        if p.qos != QoS::AtMostOnce
            && let Some(next) = self.check_store(slot, index, p, m, again)
        {
            return Ok(next);
        }
        if !again
            && let Some(next) =
                self.check_pressure(conn, p).or_else(|| self.check_retain(conn, p, &mut carried))
        {
            return Ok(next);
        }
        let routed = self.route(&mut carried, Origin::Conn(slot), message);
        if !matches!(routed, Routed::NoRoom(..)) {
            self.has_room(slot);
        }
        match routed {
            Routed::NoRoom(target, targets) => {
                self.wait_for_room(slot, target, targets);
                Ok(Next::Wait)
            }
            // The operator wants publishers to know (D9: `reject`).
            Routed::Full => Ok(self.refuse_full(conn, p, again, "a subscriber's queue is full")),
            Routed::Done { any, fan_out, op } => {
                if let Some(c) = self.local.conns.get_mut(conn) {
                    c.full_until = None;
                }
                if let (QoS::ExactlyOnce, Some(id), Some(session)) =
                    (p.qos, p.packet_id, self.local.sessions.get_mut(index))
                {
                    let now = self.local.now;
                    session.incoming.get_or_insert_with(|| Box::new(Incoming::default())).accept(id, now);
                    self.local.gauges.inflight_in += u64::from(!self.is_unsure(index, id));
                    self.local.count_session(index);
                    self.note_incoming(index, id);
                }
                let op = self.finish_op(op, slot, message, p.qos, writes);
                let code = if any { ReasonCode::SUCCESS } else { ReasonCode::NO_MATCHING_SUBSCRIBERS };
                let next = self.acknowledge(conn, p, code, "", op);
                if fan_out && next == Next::Go {
                    self.wait(conn, Wait::FanOut);
                    return Ok(Next::After);
                }
                Ok(next)
            }
        }
    }

    /// PUBACK or PUBREC. What it retains is in the ring of the topic's shard already. `text` says what was expected where `code` is an error.
    /// It waits for an operation, if `op` is not 0, and for those that wait already.
    pub(super) fn acknowledge(
        &mut self,
        conn: Conn,
        p: &Publish,
        code: ReasonCode,
        text: &str,
        op: u64,
    ) -> Next {
        self.local.counters.publish_errors += u64::from(code.is_error());
        let kind = match p.qos {
            QoS::AtMostOnce => return Next::Go,
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => AckKind::PubRec,
        };
        let Some(id) = p.packet_id else { return Next::Go };
        if op != 0 || self.has_acks(conn) {
            self.hold_ack(conn, (kind, id), code, text, op);
            return Next::Go;
        }
        if code.is_error() {
            self.local.with_link(conn, |c, ctx| c.link.push_ack_with(kind, id, code, text, ctx));
            return Next::Go;
        }
        self.local.with_link(conn, |c, ctx| c.link.push_ack(kind, id, code, ctx));
        Next::Go
    }

    /// Routes a message, or says what is in the way, in which case nobody has it. `message` names one of QoS 2.
    fn route(&mut self, carried: &mut Carried, origin: Origin, message: Option<(u32, PacketId)>) -> Routed {
        let m = carried.view();
        let strategy = self.local.options.shared_strategy;
        let shards = self.router.plan(&self.trie, &m, strategy);
        // QoS 0 is nobody's promise: each full session drops its own copy, the others get theirs.
        let promised = m.head.qos != QoS::AtMostOnce;
        if promised && self.router.matches.full && rejects(&self.local.options) {
            return Routed::Full;
        }
        let home = m.head.retain.then(|| self.retained_home(m.topic)).filter(|home| *home != self.me);
        if let Some(target) = self.first_full(shards, home, origin) {
            return Routed::NoRoom(target, shards);
        }
        self.router.commit(&mut self.trie);
        let (op, durable, number) = self.open_op(origin, message, promised, shards, home.is_some());
        let before = self.begin_taking(number);
        if m.head.retain {
            self.retain(carried, if home.is_some() { op } else { 0 });
        }
        for target in bits(shards) {
            let picks: Vec<u64> =
                self.router.remote_picks.iter().filter(|(s, _)| *s == target).map(|(_, key)| *key).collect();
            let envelope = Envelope {
                message: carried.share(),
                normal: self.router.matches.shards & (1 << target) != 0,
                picks: (!picks.is_empty()).then(|| picks.into()),
                ticket: if durable & (1 << target) != 0 { op } else { 0 },
                number,
            };
            self.mesh.send(target, envelope);
        }
        let any =
            shards != 0 || !self.router.matches.routes.is_empty() || !self.router.local_picks.is_empty();
        let picks = std::mem::take(&mut self.router.local_picks);
        for group in &picks {
            self.deliver_pick(*group, carried, ((self.me, op), number));
        }
        self.router.local_picks = picks;
        let mut routes = std::mem::take(&mut self.scratch.routes);
        routes.clear();
        routes.extend_from_slice(&self.router.matches.routes);
        let fan_out = self.deliver_routes(&routes, carried, origin, ((self.me, op), number));
        self.end_taking(before);
        self.scratch.routes = routes;
        self.close_filled();
        let counters = &mut self.local.counters;
        counters.published[m.head.source as usize][m.head.qos as usize] += 1;
        counters.unrouted[m.head.source as usize] += u64::from(!any);
        if self.watching.is_tracing() {
            self.trace_routed(&m, origin);
        }
        Routed::Done { any, fan_out, op }
    }

    /// Delivers to a member of a group here; if there is none left, somewhere else.
    /// It is one part more of what `owner` waits for then.
    fn deliver_pick(
        &mut self,
        group: crate::trie::GroupId,
        carried: &mut Carried,
        (owner, number): ((ShardId, u64), u64),
    ) {
        self.budget -= 1;
        if self.deliver_member(group, carried, Wanted::Online) {
            return;
        }
        let group = self.trie.group(group).key;
        let tried = 1 << self.me;
        self.extend_op(owner.1, 1);
        let message = carried.share();
        self.place(Box::new(crate::mesh::HandOn {
            message,
            group,
            tried,
            offline: false,
            owner,
            number,
            from: (0, 0),
        }));
    }

    /// Delivers to local subscribers; true when that goes on in later ticks.
    /// It is one part more of what `owner`, an operation here, waits for then.
    fn deliver_routes(
        &mut self,
        routes: &[RouteId],
        carried: &mut Carried,
        origin: Origin,
        (owner, number): ((ShardId, u64), u64),
    ) -> bool {
        let subscribers: usize = routes.iter().map(|r| self.trie.subscribers(*r).len()).sum();
        self.budget -= subscribers as isize;
        // Nothing overtakes an earlier message of the same origin, nor one of a client that has reconnected.
        let publisher = carried.view().head.publisher;
        let behind = |f: &FanOut| f.origin == origin || f.message.view().head.publisher == publisher;
        let behind = self.fan_outs.iter().any(behind);
        if subscribers <= self.fan_out_at_once && !behind {
            if let [route] = routes {
                self.local.deliver_route(&self.trie, *route, carried);
            } else if subscribers > 0 {
                let mut targets = std::mem::take(&mut self.scratch.targets);
                targets.clear();
                self.local.targets(&self.trie, routes, &mut targets);
                self.local.deliver_targets(&targets, 0, usize::MAX, carried);
                self.scratch.targets = targets;
            }
            return false;
        }
        if subscribers == 0 {
            return false;
        }
        let mut targets = Vec::with_capacity(subscribers);
        self.local.targets(&self.trie, routes, &mut targets);
        self.local.counters.cursors += 1;
        self.extend_op(owner.1, 1);
        self.fan_outs.push_back(FanOut { message: carried.share(), targets, at: 0, origin, owner, number });
        if let Origin::Shard(source) = origin {
            self.stalled |= 1 << source;
        }
        true
    }

    /// Goes on with fan-outs, in order, within the budget.
    pub(super) fn run_fan_outs(&mut self) {
        let mut budget = self.fan_out_at_once * 2;
        while budget > 0 {
            let Some(mut fan_out) = self.fan_outs.pop_front() else { return };
            let mut carried = Carried::kept(&fan_out.message);
            let before = self.begin_taking(fan_out.number);
            let at = self.local.deliver_targets(&fan_out.targets, fan_out.at, budget, &mut carried);
            self.end_taking(before);
            budget -= (at - fan_out.at).min(budget);
            fan_out.at = at;
            if at < fan_out.targets.len() {
                self.fan_outs.push_front(fan_out);
                return;
            }
            self.settle_owner(fan_out.owner);
            if self.fan_outs.iter().any(|f| f.origin == fan_out.origin) {
                continue;
            }
            match fan_out.origin {
                Origin::Conn(slot) => {
                    self.wake_slot(slot, |w| w == Wait::FanOut);
                }
                Origin::Shard(source) => self.stalled &= !(1 << source),
                Origin::Own => {}
            }
        }
    }

    /// Takes envelopes from the other shards.
    /// Each source has a budget of its own, so that neither another one nor our own clients starve it.
    pub(super) fn drain_data(&mut self) {
        self.desk.data_waits = false;
        for source in 0..self.shards {
            self.budget = (self.tick_deliveries / usize::from(self.shards)).max(1) as isize;
            for _ in 0..TICK_ENVELOPES_MAX {
                if self.budget <= 0 || self.stalled & (1 << source) != 0 {
                    break;
                }
                let Some(envelope) = self.mesh.next_data(source) else { break };
                self.deliver_envelope(source, &envelope);
            }
            self.desk.data_waits |= self.budget <= 0;
        }
    }

    fn deliver_envelope(&mut self, source: ShardId, envelope: &Envelope) {
        self.budget -= 1;
        let mut carried = Carried::kept(&envelope.message);
        let topic = carried.view().topic;
        let writes = self.writes();
        let mut op = 0;
        if envelope.ticket != 0 {
            op = self.begin_relay(source, envelope.ticket);
        }
        let (owner, number) = ((self.me, op), envelope.number);
        let before = self.begin_taking(number);
        for key in envelope.picks.iter().flatten() {
            match self.trie.group_by_key(*key, topic) {
                Some(group) => self.deliver_pick(group, &mut carried, (owner, number)),
                None if self.trie.is_mistaken(*key, topic) => {}
                None => {
                    let (message, tried, group) = (carried.share(), 1 << self.me, *key);
                    self.extend_op(op, 1);
                    self.place(Box::new(crate::mesh::HandOn {
                        message,
                        group,
                        tried,
                        offline: false,
                        owner,
                        number,
                        from: (0, 0),
                    }));
                }
            }
        }
        if envelope.normal {
            let mut matches = std::mem::take(&mut self.scratch.matches);
            self.trie.matches_local(topic, &mut matches);
            self.deliver_routes(&matches.routes, &mut carried, Origin::Shard(source), (owner, number));
            self.scratch.matches = matches;
        }
        self.end_taking(before);
        if op != 0 && self.writes() != writes {
            self.after(After::Op(op));
        } else if op != 0 {
            self.op_done(op);
        }
    }

    /// Publishes a message of our own; it waits where a target has no room.
    pub(super) fn publish_own(&mut self, message: Message) {
        if !self.backlog.is_empty() || !self.try_own(&message) {
            self.backlog.push_back(message);
        }
    }

    /// Tries again to publish our own messages, in order.
    pub(super) fn run_backlog(&mut self) {
        while let Some(message) = self.backlog.pop_front() {
            if !self.try_own(&message) {
                self.backlog.push_front(message);
                return;
            }
        }
    }

    /// One fan-out of our own at a time: each holds its targets.
    fn try_own(&mut self, message: &Message) -> bool {
        if self.fan_outs.iter().any(|f| f.origin == Origin::Own) {
            return false;
        }
        let view = message.view();
        if view.head.qos != QoS::AtMostOnce || view.head.retain {
            match self.passage(OWN, view.head.retain, &view) {
                Passage::Free => {}
                // What others see of it is not to be on the disk before what is written of it here.
                Passage::Asked | Passage::Barred(Obstacle::Busy) => return false,
                Passage::Barred(Obstacle::ReadOnly) => {
                    self.shelve(message);
                    return true;
                }
            }
        }
        match self.route(&mut Carried::kept(message), Origin::Own, None) {
            Routed::Done { .. } => true,
            Routed::NoRoom(..) => false,
            Routed::Full => {
                self.local.ledger.record("", LossCause::QueueFull, 1);
                true
            }
        }
    }

    /// Publishes a message for the management thread; `None`: it has to wait.
    pub(super) fn try_asked(&mut self, message: &Message) -> Option<Published> {
        let (o, view) = (&self.local.options, message.view());
        if excess_levels(view.topic, o.max_topic_levels).is_some() {
            return Some(Published::Refused(ReasonCode::TOPIC_NAME_INVALID));
        }
        if view.head.qos > o.qos_max() {
            return Some(Published::Refused(ReasonCode::QOS_NOT_SUPPORTED));
        }
        if view.head.retain && !o.retain_available {
            return Some(Published::Refused(ReasonCode::RETAIN_NOT_SUPPORTED));
        }
        if self.fan_outs.iter().any(|f| f.origin == Origin::Own) {
            return None;
        }
        if view.head.qos != QoS::AtMostOnce || view.head.retain {
            match self.passage(ASKED, view.head.retain, &view) {
                // Nobody is promised that it is on the disk.
                Passage::Free | Passage::Barred(Obstacle::Busy) => {}
                Passage::Asked => return None,
                Passage::Barred(Obstacle::ReadOnly) => {
                    return Some(Published::Refused(ReasonCode::QUOTA_EXCEEDED));
                }
            }
        }
        match self.route(&mut Carried::kept(message), Origin::Own, None) {
            Routed::Done { any: true, .. } => Some(Published::Taken),
            Routed::Done { any: false, .. } => Some(Published::NoSubscriber),
            Routed::NoRoom(..) => None,
            Routed::Full => Some(Published::Refused(ReasonCode::QUOTA_EXCEEDED)),
        }
    }
}

/// How many levels a topic has, where these are more than it may have; 0 = any number.
fn excess_levels(topic: &str, max: u16) -> Option<usize> {
    // They are not counted where the topic is too short for so many.
    let levels = |topic: &str| 1 + topic.bytes().filter(|b| *b == b'/').count();
    let max = usize::from(max);
    (max != 0 && topic.len() >= max).then(|| levels(topic)).filter(|levels| *levels > max)
}

/// The shards of a set.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = ShardId> {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as ShardId)?;
        set &= set - 1;
        Some(next)
    })
}
