//! The operator's commands and the questions of the management thread.
//!
//! Commands are popped before the tails of the control rings are read and obeyed after they are drained. What a
//! question changes is announced before its answer leaves. So whoever has an answer finds what it tells of, on
//! whichever shard it asks next.

use super::keep::After;
use super::obstacle::Obstacle;
use super::rules::Rules;
use super::sessions::End;
use super::subscribe::By;
use super::{Command, Handover, Shard, retain};
use crate::codec::{ReasonCode, RetainHandling, SubscribeOptions};
use crate::desk::{Ask, Cost, Listing, Published, Reply, Totals, Weight};
use crate::heap::vec_bytes;
use crate::io::Io;
use crate::limits::{
    DESK_BUSY_TICKS, DESK_SLICE_COST, OVERFLOW_BACKGROUND_MAX, TICK_DESK_ASKS, TICK_DESK_COST, TICK_DESK_NS,
};
use crate::message::{Message, QoS};
use std::collections::VecDeque;

/// What is under way for the management thread. How much that is at most is for the asker to bound.
#[derive(Default)]
pub(super) struct Desk {
    pub commands: VecDeque<Command>,
    /// Small questions that are not answered yet.
    asks: VecDeque<Ask>,
    /// Listings; the first one moves on.
    listings: VecDeque<Listing>,
    /// A data ring may have more than this tick took.
    pub data_waits: bool,
    /// Ticks in a row that left them alone.
    put_off: u32,
    /// Messages that wait for room on a target or for an earlier one that is handed out.
    publishing: VecDeque<(Message, Reply<Published>)>,
    /// Answers, each with the mark that must have been flushed before it leaves.
    held: VecDeque<(u64, Box<dyn FnOnce() + Send>)>,
}

impl Desk {
    /// Bytes of its lists.
    pub fn bytes(&self) -> usize {
        vec_bytes::<Command>(self.commands.capacity())
            + vec_bytes::<Ask>(self.asks.capacity())
            + vec_bytes::<Listing>(self.listings.capacity())
            + vec_bytes::<(Message, Reply<Published>)>(self.publishing.capacity())
            + vec_bytes::<(u64, Box<dyn FnOnce() + Send>)>(self.held.capacity())
    }

    /// Whether nothing is left that the next tick could do.
    pub fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.listings.is_empty()
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// Pops what was asked and commanded.
    pub(super) fn take_commands(&mut self) {
        self.desk.commands.extend(self.commands.try_iter());
    }

    /// Does what was commanded, and answers what is small.
    pub(super) fn obey(&mut self) {
        while let Some(command) = self.desk.commands.pop_front() {
            match command {
                Command::Listen { spec, reply } => {
                    let number = spec.listener;
                    self.door.listens(number, spec.addr);
                    let error = self.io.listen(spec).err();
                    // Whoever asked may have given up.
                    let _ = reply.send((number, error));
                }
                Command::Layers(layers) => self.wrapped.set_layers(layers),
                Command::Reload(options, entrances) => {
                    self.retained.set_options(retain::retained_options(&options, self.shards.into()));
                    self.tell_tight();
                    self.flapping.start_over();
                    self.paces.set_users(&options);
                    self.local.options = Rules::new(*options, entrances);
                }
                Command::Pressure(pressure) => self.press(pressure),
                Command::Policy(policy) => self.adopt_policy(policy),
                Command::Judged(conn, verdict) => self.judged(conn, verdict),
                Command::Ruled(conn, said) => self.inquiry_answered(conn, said),
                Command::Stepped(conn, stepped) => self.handle_stepped(conn, *stepped),
                Command::Ask(ask) => {
                    self.local.counters.asks += 1;
                    match ask {
                        Ask::List(listing) => self.desk.listings.push_back(listing),
                        small => self.desk.asks.push_back(small),
                    }
                }
                // Whoever asked may have given up.
                Command::Pulse { reply } => drop(reply.send(self.me.into())),
                Command::Ready { reply } => {
                    // Whoever asked may have given up.
                    let answer = move || reply.send(()).unwrap_or_default();
                    self.desk.held.push_back((self.mesh.mark(), Box::new(answer)));
                }
                Command::Drain { within_ms } => self.start_drain(within_ms),
            }
        }
        for _ in 0..TICK_DESK_ASKS {
            // What a question changes is announced; that must not pile up.
            if self.mesh.overflow_len() > OVERFLOW_BACKGROUND_MAX {
                return;
            }
            let Some(ask) = self.desk.asks.pop_front() else { return };
            self.answer(ask);
        }
    }

    /// Answers a small question.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Totals(reply) => reply.send(self.totals()),
            Ask::Snapshot(reply) => {
                let snapshot = self.snapshot();
                reply.send(Box::new(snapshot));
            }
            Ask::Weight(reply) => {
                reply.send(Box::new(Weight { gauges: self.gauges(), memory: self.memory() }));
            }
            Ask::Client { client_id, reply } => {
                let session = self.client(&client_id).and_then(|index| self.local.sessions.get(index));
                reply.send(session.map(|session| Box::new(self.client_row(session))));
            }
            Ask::Kick { client_id, reply } => {
                let known = self.kick(&client_id);
                self.hold(reply, known);
            }
            Ask::Ban { ban, until, reply } => {
                let writes = self.writes();
                self.keep_ban(&ban);
                self.ban(ban, until);
                self.tell_kept(writes, move || reply.send(()));
            }
            Ask::Unban { who, reply } => {
                let writes = self.writes();
                self.flapping.forget(&who);
                let known = self.door.bans.remove(&who).is_some();
                self.forget_ban(&who);
                self.tell_kept(writes, move || reply.send(known));
            }
            Ask::Flapped(reply) => reply.send(self.flapping.take_told()),
            Ask::Rulings { client_id, reply } => reply.send(self.rulings(&client_id)),
            Ask::ForgetRulings { client_id, reply } => {
                reply.send(self.forget_rulings(client_id.as_deref()));
            }
            Ask::EndOffline { client_id, reply } => {
                let index = self.client(&client_id);
                let offline =
                    index.and_then(|index| self.local.sessions.get(index)).is_some_and(|s| s.conn.is_none());
                let ended = offline && self.kick(&client_id);
                self.hold(reply, ended);
            }
            Ask::Publish { message, reply } => {
                self.desk.publishing.push_back((message, reply));
                self.publish_asked();
            }
            Ask::Subscribe { client_id, filter, qos, reply } => {
                let code = self.subscribe_client(&client_id, &filter, qos);
                self.hold(reply, code.map(|code| code.0));
            }
            Ask::Unsubscribe { client_id, filter, reply } => {
                let code = self.unsubscribe_client(&client_id, &filter);
                self.hold(reply, code.map(|code| code.0));
            }
            Ask::Forget { topic, reply } => {
                let known = self.retained.get(&topic, self.local.now).is_some();
                let stamp = self.mesh.stamp();
                self.clear_retained(&topic, stamp);
                reply.send(known);
            }
            Ask::Watch { watch, reply } => {
                self.set_watch(*watch);
                reply.send(());
            }
            Ask::Happenings(reply) => self.await_happenings(reply),
            Ask::List(listing) => self.desk.listings.push_back(listing),
        }
    }

    /// Goes on with what takes more than one tick.
    pub(super) fn run_desk(&mut self) {
        self.publish_asked();
        if self.desk.listings.is_empty() {
            return;
        }
        let mut left = self.desk_cost();
        if left == 0 {
            return;
        }
        let (begin, cpu_begin) = (self.io.clock_ns(), self.io.cpu_ns());
        loop {
            let mut cost = Cost::new(left.min(DESK_SLICE_COST));
            while cost.left() > 0 {
                let Some(listing) = self.desk.listings.pop_front() else { break };
                if let Some(unfinished) = self.go_on(listing, &mut cost) {
                    self.desk.listings.push_front(unfinished);
                }
            }
            left = left.saturating_sub(cost.spent());
            let time_is_up = self.io.clock_ns() - begin >= TICK_DESK_NS;
            if left == 0 || time_is_up || self.desk.listings.is_empty() {
                break;
            }
        }
        let (took_ns, cpu_ns) = (self.io.clock_ns() - begin, self.io.cpu_ns() - cpu_begin);
        self.local.recorder.listed(took_ns, cpu_ns);
        let counters = &mut self.local.counters;
        counters.listing_ticks += 1;
        counters.listing_us_max = counters.listing_us_max.max(took_ns / 1_000);
        counters.listing_cpu_us_max = counters.listing_cpu_us_max.max(cpu_ns / 1_000);
    }

    /// What this tick may spend on listings. One that leaves something unserved has nothing, but now and then a slice,
    /// so that a listing comes to its end on a shard that is never idle.
    fn desk_cost(&mut self) -> usize {
        let busy = self.desk.data_waits || !self.ready.is_empty() || !self.fan_outs.is_empty();
        let put_off = std::mem::take(&mut self.desk.put_off) + 1;
        if !busy {
            return TICK_DESK_COST;
        }
        if put_off >= DESK_BUSY_TICKS {
            return DESK_SLICE_COST;
        }
        self.desk.put_off = put_off;
        self.local.counters.listing_put_off += 1;
        0
    }

    /// Moves a listing on; gives it back unless it is complete, in which case it was answered.
    fn go_on(&self, listing: Listing, cost: &mut Cost) -> Option<Listing> {
        macro_rules! part {
            ($kind:ident, $cursor:ident, $list:ident) => {{
                let mut cursor = $cursor;
                if self.$list(&mut cursor, cost) {
                    cursor.finish();
                    return None;
                }
                Some(Listing::$kind(cursor))
            }};
        }
        match listing {
            Listing::Clients(cursor) => part!(Clients, cursor, list_clients),
            Listing::Subscriptions(cursor) => part!(Subscriptions, cursor, list_subscriptions),
            Listing::Routes(cursor) => part!(Routes, cursor, list_routes),
            Listing::Retained(cursor) => part!(Retained, cursor, list_retained),
            Listing::Losses(cursor) => part!(Losses, cursor, list_losses),
        }
    }

    /// Gives an answer once everything that was handed to the mesh so far is with the other shards.
    fn hold<T: Send + 'static>(&mut self, reply: Reply<T>, answer: T) {
        self.desk.held.push_back((self.mesh.mark(), Box::new(move || reply.send(answer))));
    }

    /// Answers once what was written since `writes` is on the disk; at once where nothing was, or nothing can be.
    fn tell_kept(&mut self, writes: u64, answer: impl FnOnce() + Send + 'static) {
        if self.writes() == writes || self.obstacle() == Some(Obstacle::ReadOnly) {
            return answer();
        }
        self.after(After::Tell(Box::new(answer)));
    }

    /// Gives the answers that waited for the flush that just was.
    pub(super) fn release_answers(&mut self) {
        if self.desk.held.is_empty() {
            return;
        }
        let flushed = self.mesh.flushed();
        while self.desk.held.front().is_some_and(|(mark, _)| *mark <= flushed) {
            let Some((_, answer)) = self.desk.held.pop_front() else { return };
            answer();
        }
    }

    fn totals(&self) -> Box<Totals> {
        let counters = self.counters();
        Box::new(Totals {
            shard: self.me,
            now: self.local.now,
            losses: self.local.ledger.losses(),
            sessions: self.local.clients(),
            online: (counters.connects - counters.disconnects) as usize,
            driver: self.io.stats(),
            driver_text: self.io.describe(),
            routes: self.trie.stats(),
            retained: (self.retained.len(), self.retained.bytes()),
            gauges: self.gauges(),
            listeners: self.local.listeners(),
            room: self.io.room(),
            store_fault: self.local.keeper.as_ref().and_then(|keeper| keeper.fault()),
            counters,
        })
    }

    pub(super) fn client(&self, client_id: &str) -> Option<u32> {
        self.local.session_of(client_id, self.local.keyed.key(client_id))
    }

    /// Closes a client's connection, and ends its session.
    fn kick(&mut self, client_id: &str) -> bool {
        let Some(index) = self.client(client_id) else { return false };
        let conn = self.local.sessions.get(index).and_then(|session| session.conn);
        if let Some(conn) = conn {
            self.disconnect(conn, ReasonCode::ADMINISTRATIVE_ACTION, "kicked by the operator", End::Lost);
        }
        // Without a connection, a session that does not expire later has ended already.
        if self.client(client_id) == Some(index) {
            self.end_session(index);
        }
        true
    }

    /// Publishes, in order, what has room.
    fn publish_asked(&mut self) {
        while let Some((message, reply)) = self.desk.publishing.pop_front() {
            match self.try_asked(&message) {
                Some(published) => self.hold(reply, published),
                None => {
                    self.desk.publishing.push_front((message, reply));
                    return;
                }
            }
        }
    }

    /// Subscribes a connected client on its behalf.
    fn subscribe_client(&mut self, client_id: &str, filter: &str, qos: QoS) -> Option<ReasonCode> {
        let index = self.client(client_id)?;
        let conn = self.local.sessions.get(index)?.conn?;
        if self.is_frozen(index) {
            return Some(ReasonCode::QUOTA_EXCEEDED);
        }
        let (retain_as_published, retain_handling) = (false, RetainHandling::Send);
        let options = SubscribeOptions { qos, no_local: false, retain_as_published, retain_handling };
        let mut jobs = Vec::new();
        let code = match self.subscribe(conn, index, (filter, options), 0, By::Operator, &mut jobs) {
            Ok(code) => code,
            Err(fault) => fault.code,
        };
        self.touch_session(index);
        self.announce_groups();
        self.add_scans(index, jobs);
        Some(code)
    }

    /// Ends a subscription of a connected client on its behalf.
    fn unsubscribe_client(&mut self, client_id: &str, filter: &str) -> Option<ReasonCode> {
        let index = self.client(client_id)?;
        self.local.sessions.get(index)?.conn?;
        if self.is_frozen(index) {
            return Some(ReasonCode::QUOTA_EXCEEDED);
        }
        let mut codes = Vec::new();
        self.unsubscribe(index, std::iter::once(filter), &mut codes);
        self.announce_groups();
        codes.pop()
    }
}
