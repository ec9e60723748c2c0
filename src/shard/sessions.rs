//! What happens to a session between its connections, and at its end.

use super::local::Terms;
use super::rights::May;
use super::timers::Timer;
use super::{Handover, Shard};
use crate::desk::What;
use crate::io::{Io, ShardId};
use crate::limits::{OVERFLOW_BACKGROUND_MAX, TICK_CLEANUPS_MAX, TIMER_HORIZON_MS};
use crate::mesh::{Control, HandOn};
use crate::message::Message;
use crate::router::Wanted;
use crate::session::{Carried, Delivery, Options, QueueFull};
use crate::stats::LossCause;
use crate::time::Moment;
use crate::trie::{GroupId, Removed};

/// How a connection ended, as far as its session is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// DISCONNECT with Normal disconnection: the will is deleted [MQTT-3.14.4-3 of 5.0].
    Normal,
    /// Any other way: the will is published.
    Lost,
    /// A new connection resumes the session: a delayed will is not published.
    Resumed,
    /// The broker stops: nobody is left to be told.
    Stopped,
}

impl<I: Io<Handover>> Shard<I> {
    /// A session has lost its connection.
    pub(super) fn detach(&mut self, index: u32, end: End) {
        let now = self.local.now;
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        session.conn = None;
        let mut shared = Vec::new();
        if let Some(outgoing) = &mut session.outgoing {
            outgoing.handle_disconnected();
            outgoing.take_shared(&mut shared, &mut self.local.gauges);
        }
        session.shrink(&mut self.local.memory);
        // Before the will is published, which is for those that are still there.
        self.set_online(index, false);
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        let expiry_s = session.expiry_s;
        if matches!(end, End::Normal | End::Stopped) {
            session.will = None;
        }
        let delay_s = session.will.as_ref().map(|w| w.delay_s.min(expiry_s));
        match delay_s {
            Some(0) => {
                let will = session.will.take();
                self.publish_will(index, will.map(|w| w.message(now)));
            }
            Some(s) => {
                let due = now.plus_s(u64::from(s));
                if let Some(will) = &mut session.will {
                    will.due = due;
                }
                self.session_timer(index, due);
            }
            None => {}
        }
        self.hand_on_all(index, shared);
        // What went to other members of a share group has left its queue.
        self.note_queue(index);
        self.local.count_session(index);
        if expiry_s == 0 && end != End::Resumed {
            self.end_session(index);
        } else if expiry_s != u32::MAX {
            let ends_at = now.plus_s(u64::from(expiry_s));
            if let Some(session) = self.local.sessions.get_mut(index) {
                session.ends_at = ends_at;
            }
            self.session_timer(index, ends_at);
        }
        self.touch_session(index);
    }

    /// How long a session outlives its connection.
    pub(super) fn set_expiry(&mut self, index: u32, expiry_s: u32) {
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        let gauge = &mut self.local.gauges.sessions_persistent;
        *gauge += u64::from(expiry_s > 0);
        *gauge -= u64::from(session.expiry_s > 0);
        session.expiry_s = expiry_s;
        self.touch_session(index);
    }

    /// Files a session's timer, unless one is filed that comes earlier.
    pub(super) fn session_timer(&mut self, index: u32, due: Moment) {
        let Some(slot) = self.local.sessions.slot(index) else { return };
        let Some(session) = self.local.sessions.get_mut(index).filter(|s| s.timer_at > due) else { return };
        session.timer_at = due.min(self.local.now.plus_ms(TIMER_HORIZON_MS));
        self.insert_timer(due, Timer::session(slot));
    }

    /// A delayed will or the end of a session may be due. `due` is the timer's own moment.
    pub(super) fn handle_session_timer(&mut self, index: u32, due: Moment) {
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        // A later one was filed in the place of this one, or an earlier one, which has gone on since.
        if session.timer_at != due {
            return;
        }
        session.timer_at = Moment::NEVER;
        if session.conn.is_some() || !self.survives(index) {
            return;
        }
        let Some(session) = self.local.sessions.get(index) else { return };
        let due = session.will.as_ref().map_or(Moment::NEVER, |w| w.due).min(session.ends_at);
        if due != Moment::NEVER {
            self.session_timer(index, due);
        }
    }

    /// Publishes the will of a session without connection if it is due, and ends the session if its time is over;
    /// false then. Timers are coarse: whoever comes back before they fire finds what they would have left.
    pub(super) fn survives(&mut self, index: u32) -> bool {
        let now = self.local.now;
        let Some(session) = self.local.sessions.get_mut(index).filter(|s| !s.ended) else { return false };
        let over = session.ends_at <= now;
        if let Some(will) = session.will.take_if(|w| w.due <= now) {
            self.publish_will(index, Some(will.message(now)));
            self.touch_session(index);
        }
        if over {
            self.local.counters.expired_sessions += 1;
            self.end_session(index);
        }
        !over
    }

    /// Ends a session: its will is published, what it had queued is counted, its subscriptions go.
    pub(super) fn end_session(&mut self, index: u32) {
        let now = self.local.now;
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        if session.ended {
            return;
        }
        session.ended = true;
        if let Some(keeper) = &mut self.local.keeper {
            keeper.forget(index, session);
        }
        session.scans = None;
        self.local.counters.sessions_ended += 1;
        self.note_session(index, What::SessionEnded);
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        let gauges = &mut self.local.gauges;
        gauges.sessions -= 1;
        gauges.sessions_persistent -= u64::from(session.expiry_s > 0);
        gauges.subscribers -= u64::from(!session.subscriptions.is_empty());
        gauges.inflight_in -= session.incoming.take().map_or(0, |i| i.len() as u64);
        let will = session.will.take();
        let mut shared = Vec::new();
        let outgoing = session.take_outgoing(&mut self.local.memory);
        if let Some(mut outgoing) = outgoing {
            outgoing.handle_disconnected();
            outgoing.take_shared(&mut shared, gauges);
            outgoing.leave(gauges);
            let unfinished = outgoing.unfinished();
            if unfinished > 0 {
                self.local.ledger.record(&session.client_id, LossCause::SessionEnded, unfinished);
            }
        }
        self.open_routes(index);
        self.local.forget_client(index);
        self.publish_will(index, will.map(|w| w.message(now)));
        let few = self.local.sessions.get(index).is_some_and(|s| s.subscriptions.len() <= 16);
        if few && self.mesh.overflow_len() <= OVERFLOW_BACKGROUND_MAX {
            self.remove_subscriptions(index, usize::MAX);
        } else {
            self.cleanup.push_back(index);
        }
        self.hand_on_all(index, shared);
    }

    /// Removes up to `budget` subscriptions of an ended session, and the session after the last.
    fn remove_subscriptions(&mut self, index: u32, budget: usize) -> usize {
        let mut removed = 0;
        while let Some(session) = self.local.sessions.get_mut(index) {
            let Some(sub) = session.subscriptions.pop() else {
                self.local.remove_session(index);
                break;
            };
            let gone = self.trie.unsubscribe(sub, index);
            self.withdraw(gone);
            removed += 1;
            if removed >= budget {
                break;
            }
        }
        removed
    }

    /// Goes on removing the subscriptions of ended sessions, as long as the overflow is small.
    pub(super) fn clean_up(&mut self) {
        let mut budget = TICK_CLEANUPS_MAX;
        while let Some(index) = self.cleanup.front().copied() {
            if budget == 0 || self.mesh.overflow_len() > OVERFLOW_BACKGROUND_MAX {
                return;
            }
            budget -= self.remove_subscriptions(index, budget).min(budget);
            if self.local.sessions.get(index).is_none_or(|s| !s.ended) {
                self.cleanup.pop_front();
            }
        }
    }

    /// Tells all other shards what a removed subscription changed.
    pub(super) fn withdraw(&mut self, removed: Removed) {
        if let Some(route) = removed.withdraw {
            self.mesh.broadcast(|| Control::Withdraw(route.clone()));
        }
        if let Some(route) = removed.not_full {
            self.mesh.broadcast(|| Control::RouteNotFull(route.clone()));
        }
    }

    /// Members of share groups come and go with their connection.
    pub(super) fn set_online(&mut self, index: u32, online: bool) {
        let Some(session) = self.local.sessions.get(index) else { return };
        for sub in session.subscriptions.as_slice() {
            self.trie.set_online(*sub, index, online);
        }
    }

    fn publish_will(&mut self, index: u32, message: Option<Message>) {
        // What depends on a back-end was asked at CONNECT.
        let may = |message: &Message| self.may_publish(index, &message.view()) != May::No;
        if let Some(message) = message.filter(may) {
            self.local.counters.wills += 1;
            self.publish_own(message);
        }
    }

    /// Sends what a session may send now.
    pub(super) fn pump_session(&mut self, index: u32) {
        self.local.with_session(index, |session, connection, ctx| {
            if let Some(connection) = connection {
                session.pump(&mut connection.link, ctx);
            }
        });
        self.note_queue(index);
    }

    /// The queue of a session got shorter: its routes may open, its scans may go on.
    pub(super) fn note_queue(&mut self, index: u32) {
        let Some(session) = self.local.sessions.get(index) else { return };
        if session.scans.is_some() {
            self.resume_scans(index);
        }
        if !self.local.sessions.get(index).is_some_and(|s| s.full) {
            return;
        }
        let drained = self.local.with_session(index, |session, _, ctx| {
            session.outgoing.as_ref().is_none_or(|o| o.has_drained(ctx))
        });
        if drained == Some(true) {
            self.open_routes(index);
        }
    }

    /// Under [`QueueFull::Reject`]: publishers to this session's routes are refused from now on.
    pub(super) fn close_routes(&mut self, index: u32) {
        let Some(session) = self.local.sessions.get_mut(index).filter(|s| !s.full && !s.ended) else {
            return;
        };
        session.full = true;
        for sub in session.subscriptions.as_slice() {
            if let Some((route, true)) = self.trie.local_full(*sub, index, true) {
                self.mesh.broadcast(|| Control::RouteFull(route.clone()));
            }
        }
    }

    /// Publishers to this session's routes are no longer refused on its account.
    pub(super) fn open_routes(&mut self, index: u32) {
        let Some(session) = self.local.sessions.get_mut(index).filter(|s| s.full) else { return };
        session.full = false;
        for sub in session.subscriptions.as_slice() {
            if let Some((route, false)) = self.trie.local_full(*sub, index, false) {
                self.mesh.broadcast(|| Control::RouteNotFull(route.clone()));
            }
        }
    }

    /// Gives a message of a share group to another member: here or on another shard, one that is connected
    /// before one that is not. `tried` are the shards that had none.
    fn hand_on(&mut self, delivery: Delivery, from: (u64, u64), owner: (ShardId, u64)) {
        let (message, group) = (delivery.message, delivery.group);
        self.place(Box::new(HandOn { message, group, tried: 0, offline: false, owner, number: 0, from }));
    }

    /// Gives what a session had of share groups to other members. Where it is stored, it stays so until it is
    /// stored for them.
    fn hand_on_all(&mut self, index: u32, shared: Vec<Delivery>) {
        let queue = self.local.keeper.as_ref().and_then(|k| k.sessions.get(&index)).map_or(0, |kept| kept.id);
        for delivery in shared {
            let (mut op, mut from) = (0, (0, 0));
            if delivery.seq != 0 && queue != 0 {
                from = (queue, delivery.seq);
                op = self.begin_move(from);
            }
            self.hand_on(delivery, from, (self.me, op));
        }
    }

    /// A message of a share group comes from another shard, which chose this one. So it stays if there is any
    /// member here: shards that chose anew could pass it to and fro for ever.
    pub(super) fn handle_hand_on(&mut self, mut on: Box<HandOn>) {
        let found = self.trie.any_group_by_key(on.group);
        if self.trie.is_mistaken(on.group, on.message.topic()) {
            return self.settle_owner(on.owner);
        }
        if found.is_some_and(|group| self.deliver_handed_on(group, &on)) {
            return;
        }
        on.tried |= 1 << self.me;
        self.place(on);
    }

    /// Finds a member for a message of a share group. Each step delivers it or adds to the shards that were
    /// tried, once for members that are connected and once for the others.
    pub(super) fn place(&mut self, mut on: Box<HandOn>) {
        self.local.counters.hand_ons += 1;
        loop {
            let found = self.trie.any_group_by_key(on.group);
            let wanted = if on.offline { Wanted::Offline } else { Wanted::Online };
            let view = on.message.view();
            let strategy = self.local.options.shared_strategy;
            let target = found
                .and_then(|g| self.router.pick_shard(&mut self.trie, g, &view, strategy, on.tried, wanted));
            match (found, target) {
                (Some(group), Some(shard)) if shard == self.me => {
                    if self.deliver_handed_on(group, &on) {
                        return;
                    }
                    on.tried |= 1 << self.me;
                }
                (_, Some(shard)) => {
                    self.mesh.control(shard, Control::HandOn(on));
                    return;
                }
                (_, None) if !on.offline => {
                    on.offline = true;
                    on.tried = 0;
                }
                (_, None) => {
                    self.settle_owner(on.owner);
                    self.local.ledger.record("", LossCause::NoMember, 1);
                    return;
                }
            }
        }
    }

    /// Delivers to a local member, one that is connected first: it may have come back meanwhile.
    fn deliver_handed_on(&mut self, group: GroupId, on: &HandOn) -> bool {
        let mut carried = Carried::kept(&on.message);
        let writes = self.writes();
        let before = self.begin_taking(on.number);
        let delivered = self.deliver_member(group, &mut carried, Wanted::Online)
            || (on.offline && self.deliver_member(group, &mut carried, Wanted::Offline));
        self.end_taking(before);
        if self.writes() != writes {
            self.note_moved(on.from);
        }
        if delivered {
            self.settle_owner(on.owner);
        }
        delivered
    }

    /// Delivers to one local member of a share group; false when there is none of the kind.
    pub(super) fn deliver_member(&mut self, group: GroupId, carried: &mut Carried, wanted: Wanted) -> bool {
        let view = carried.view();
        let strategy = self.local.options.shared_strategy;
        let Some(sub) = self.router.pick_member(&mut self.trie, group, &view, strategy, wanted) else {
            return false;
        };
        // One that has ended is a member until its subscriptions are cleaned up, and takes nothing.
        if self.local.sessions.get(sub.session).is_none_or(|s| s.ended) {
            return false;
        }
        let qos = crate::session::Session::terms(&sub, &view).0;
        if wanted == Wanted::Offline && qos == crate::message::QoS::AtMostOnce {
            return false;
        }
        let ids = [sub.id];
        let ids = if sub.id == 0 { &[][..] } else { &ids };
        let retain = sub.options.retain_as_published() && view.head.retain;
        let key = self.trie.group(group).key;
        self.local.deliver(sub.session, carried, Terms { qos, retain, ids, group: key, retained: false });
        true
    }
}

/// Whether a full route refuses publishers.
pub(super) fn rejects(options: &Options) -> bool {
    options.queue_full == QueueFull::Reject
}
