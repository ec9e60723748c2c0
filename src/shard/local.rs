//! What a shard owns of clients: connections, sessions, and the delivery of messages to them.

use super::connection::{Changed, Connection};
use super::keep::Keeper;
use super::rules::Rules;
use crate::codec::{PacketType, PublishOut, ReasonCode, Version, encode_publish};
use crate::heap::{allocated, vec_bytes};
use crate::io::Conn;
use crate::map::{Keyed, Slab, Slot};
use crate::message::QoS;
use crate::session::{Carried, Ctx, Offer, Offered, Pool, Session, Stored};
use crate::stats::{Counters, Gauges, Ledger, Memory, Recorder, Source};
use crate::time::{Moment, Stamp};
use crate::trie::{RouteId, Sub, Trie};
use hashbrown::HashTable;

/// Clients of one shard.
pub(super) struct Local {
    pub conns: Slab<Connection>,
    pub sessions: Slab<Session>,
    by_client: HashTable<u32>,
    /// Connections that are refused as soon as their CONNECT has come.
    pub refusing: usize,
    /// Connections of each listener.
    pub by_listener: Vec<u32>,
    pub keyed: Keyed,
    pub options: Rules,
    pub now: Moment,
    /// The time of this tick, as messages carry it.
    pub stamp: Stamp,
    pub counters: Counters,
    pub gauges: Gauges,
    pub recorder: Recorder,
    pub ledger: Ledger,
    /// Of the ledger of memory the rows that change in small pieces; [`super::Shard::memory`] adds the others.
    pub memory: Memory,
    pub pool: Pool,
    /// Connections with output that is not with the driver.
    pub dirty: Vec<Conn>,
    /// Sessions whose queue has just become full ([`crate::session::QueueFull::Reject`]).
    pub filled: Vec<u32>,
    /// Connections to be closed once what is under way is done.
    pub kick: Vec<(Conn, ReasonCode)>,
    /// What is kept on the disk, where anything is.
    pub keeper: Option<Box<Keeper>>,
    /// Stored messages that clients are done with.
    pub done: Vec<Stored>,
    frames: Frames,
}

/// A PUBLISH of QoS 0 as it looks to all plain subscribers of a version, encoded once per fan-out.
#[derive(Default)]
struct Frames([Vec<u8>; 4]);

impl Frames {
    fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }
}

/// One subscriber of a message, after overlapping subscriptions were merged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub session: Slot,
    pub sub: Sub,
}

/// What the rules need of their surroundings; a macro, so that clients can be borrowed beside it.
macro_rules! surroundings {
    ($local:ident, $listener:expr) => {
        Ctx {
            now: $local.now,
            options: $local.options.of($listener),
            counters: &mut $local.counters,
            gauges: &mut $local.gauges,
            recorder: &mut $local.recorder,
            ledger: &mut $local.ledger,
            memory: &mut $local.memory,
            pool: &mut $local.pool,
            done: &mut $local.done,
        }
    };
}

impl Local {
    pub fn new(keyed: Keyed, options: Rules) -> Local {
        Local {
            conns: Slab::default(),
            sessions: Slab::default(),
            by_client: HashTable::new(),
            refusing: 0,
            by_listener: Vec::new(),
            keyed,
            options,
            now: Moment::default(),
            stamp: Stamp::NONE,
            counters: Counters::default(),
            gauges: Gauges::default(),
            recorder: Recorder::default(),
            ledger: Ledger::default(),
            memory: Memory::default(),
            pool: Pool::default(),
            dirty: Vec::new(),
            filled: Vec::new(),
            kick: Vec::new(),
            keeper: None,
            done: Vec::new(),
            frames: Frames::default(),
        }
    }

    /// Bytes of the index of sessions by client identifier.
    pub fn index_bytes(&self) -> usize {
        allocated(self.by_client.allocation_size())
    }

    /// Bytes of lists of work and of frames.
    pub fn work_bytes(&self) -> usize {
        vec_bytes::<Conn>(self.dirty.capacity())
            + vec_bytes::<u32>(self.filled.capacity())
            + vec_bytes::<(Conn, ReasonCode)>(self.kick.capacity())
            + self.frames.0.iter().map(Vec::capacity).sum::<usize>()
    }

    /// A connection begins at an index that the driver chose.
    pub fn open(&mut self, conn: Conn, connection: Connection) -> Slot {
        let listener = usize::from(connection.listener);
        if self.by_listener.len() <= listener {
            self.by_listener.resize(listener + 1, 0);
        }
        self.by_listener[listener] += u32::from(connection.refused == 0);
        self.conns.put(conn, connection)
    }

    /// By number of the listener: its connections here, and how many it may have on all shards.
    pub fn listeners(&self) -> Vec<(u32, u32)> {
        let told = (0..).map_while(|number| self.options.listener(number));
        let most: Vec<u32> = told.map(|listener| listener.max_connections).collect();
        let here = |at: usize| self.by_listener.get(at).copied().unwrap_or_default();
        most.iter().enumerate().map(|(at, max)| (here(at), *max)).collect()
    }

    /// The session of a client.
    pub fn session_of(&self, client_id: &str, key: u64) -> Option<u32> {
        let same = |s: &Session| s.key == key && *s.client_id == *client_id;
        self.by_client.find(key, |i| self.sessions.get(*i).is_some_and(same)).copied()
    }

    /// Sessions, those that are being removed left out.
    pub fn clients(&self) -> usize {
        self.by_client.len()
    }

    /// Adds a session under its client identifier.
    pub fn add_session(&mut self, session: Session) -> u32 {
        self.counters.sessions_created += 1;
        self.gauges.sessions += 1;
        let key = session.key;
        self.memory.client_ids += allocated(session.client_id.len()) as u64;
        let index = self.sessions.insert(session).index;
        let sessions = &self.sessions;
        let key_of = |i: &u32| sessions.get(*i).map_or(0, |s| s.key);
        self.by_client.insert_unique(key, index, key_of);
        index
    }

    /// Takes a session's client identifier away; its slot stays until its subscriptions are gone.
    pub fn forget_client(&mut self, index: u32) {
        let Some(key) = self.sessions.get(index).map(|s| s.key) else { return };
        if let Ok(entry) = self.by_client.find_entry(key, |i| *i == index) {
            entry.remove();
        }
    }

    /// Takes a session out that has no subscriptions any more.
    pub fn remove_session(&mut self, index: u32) {
        if let Some(mut session) = self.sessions.remove(index) {
            session.uncount(&mut self.memory);
            self.memory.client_ids -= allocated(session.client_id.len()) as u64;
        }
    }

    /// Takes a connection out that the driver has done with.
    /// Its listener, and whether it had no place there.
    pub fn remove_connection(&mut self, conn: Conn) -> Option<(u8, bool)> {
        let mut connection = self.conns.take(conn)?;
        self.by_listener[usize::from(connection.listener)] -= u32::from(connection.refused == 0);
        connection.leave(&mut self.gauges);
        connection.uncount(&mut self.memory);
        self.pool.put(connection.link.out);
        Some((connection.listener, connection.refused != 0))
    }

    /// Brings the ledger of memory up to date with a session that was changed by itself.
    pub fn count_session(&mut self, index: u32) {
        if let Some(session) = self.sessions.get_mut(index) {
            session.count(&mut self.memory);
        }
    }

    /// Brings the ledger of memory up to date with a connection that was changed by itself.
    pub fn count_connection(&mut self, conn: Conn) {
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.count(&mut self.memory);
        }
    }

    /// A connection and the surroundings that its rules need.
    pub fn with_link<R>(&mut self, conn: Conn, f: impl FnOnce(&mut Connection, &mut Ctx) -> R) -> Option<R> {
        let connection = self.conns.get_mut(conn)?;
        let mut ctx = surroundings!(self, connection.listener);
        let result = f(connection, &mut ctx);
        note_change(connection, conn, Changed::Itself, &mut self.dirty);
        Some(result)
    }

    /// A session, its connection where it has one, and the surroundings that its rules need.
    pub fn with_session<R>(
        &mut self,
        index: u32,
        f: impl FnOnce(&mut Session, Option<&mut Connection>, &mut Ctx) -> R,
    ) -> Option<R> {
        let session = self.sessions.get_mut(index)?;
        let mut ctx = surroundings!(self, session.entry.listener());
        let mut connection = session.conn.and_then(|conn| self.conns.get_mut(conn).map(|c| (conn, c)));
        let result = f(session, connection.as_mut().map(|(_, c)| &mut **c), &mut ctx);
        match connection {
            Some((conn, connection)) => note_change(connection, conn, Changed::Session, &mut self.dirty),
            None => session.count(&mut self.memory),
        }
        Some(result)
    }

    /// Delivers to one session.
    pub fn deliver(&mut self, index: u32, carried: &mut Carried, terms: Terms) {
        let Some(session) = self.sessions.get_mut(index).filter(|s| !s.ended) else { return };
        if carried.view().head.retain
            && !terms.retained
            && let Some(scans) = &mut session.scans
        {
            scans.note(self.keyed.key(carried.view().topic));
        }
        let source = if terms.retained { Source::Retained } else { carried.view().head.source };
        let mut stored = (0, 0);
        if terms.qos != QoS::AtMostOnce
            && session.expiry_s > 0
            && let Some(keeper) = &mut self.keeper
        {
            if keeper.has(index) {
                return;
            }
            stored = keeper.push(index, carried, &terms, source);
        }
        let offer = Offer {
            message: carried,
            qos: terms.qos,
            retain: terms.retain,
            ids: terms.ids,
            group: terms.group,
            source,
            stored,
        };
        let mut ctx = surroundings!(self, session.entry.listener());
        let conn = session.conn;
        let offered = match conn.and_then(|c| self.conns.get_mut(c)) {
            None => {
                let offered = session.deliver(offer, None, &mut ctx);
                if let Some(outgoing) = &mut session.outgoing {
                    outgoing.count(&mut self.memory);
                }
                offered
            }
            Some(connection) => {
                let offered = session.deliver(offer, Some(&mut connection.link), &mut ctx);
                let kept = terms.qos != QoS::AtMostOnce;
                let change = if kept { Changed::Session } else { Changed::Itself };
                note_change(connection, conn.unwrap_or_default(), change, &mut self.dirty);
                offered
            }
        };
        match offered {
            Offered::Taken => {}
            Offered::Full if session.full => {}
            Offered::Full => self.filled.push(index),
            Offered::Disconnect => self.kick.extend(conn.map(|c| (c, ReasonCode::QUOTA_EXCEEDED))),
        }
    }

    /// Delivers to all subscribers of one route.
    pub fn deliver_route(&mut self, trie: &Trie, route: RouteId, carried: &mut Carried) -> usize {
        let subscribers = trie.subscribers(route);
        if let [one] = subscribers {
            self.deliver_sub(one, carried);
            return 1;
        }
        self.frames.clear();
        for sub in subscribers {
            if !self.deliver_frame(sub, carried) {
                self.deliver_sub(sub, carried);
            }
        }
        subscribers.len()
    }

    /// Delivers what one subscription asks for.
    pub fn deliver_sub(&mut self, sub: &Sub, carried: &mut Carried) {
        let view = carried.view();
        if sub.options.no_local()
            && self.sessions.get(sub.session).is_some_and(|s| s.key == view.head.publisher)
        {
            self.counters.no_local += 1;
            return;
        }
        let (qos, retain) = Session::terms(sub, &view);
        let ids = [sub.id];
        let ids = if sub.id == 0 { &[][..] } else { &ids };
        self.deliver(sub.session, carried, Terms { qos, retain, ids, group: 0, retained: false });
    }

    /// Appends a frame that other subscribers got already, where this subscriber's would be the same.
    fn deliver_frame(&mut self, sub: &Sub, carried: &mut Carried) -> bool {
        let view = carried.view();
        let (qos, retain) = Session::terms(sub, &view);
        if qos != QoS::AtMostOnce || sub.id != 0 || sub.options.no_local() {
            return false;
        }
        let Some(session) = self.sessions.get(sub.session) else { return true };
        let Some(conn) = session.conn.filter(|_| session.scans.is_none()) else { return false };
        let Some(connection) = self.conns.get_mut(conn) else { return false };
        let link = &mut connection.link;
        if !link.plain() || !link.has_room(&self.options) || view.head.expires != Moment::NEVER {
            return false;
        }
        let frame = &mut self.frames.0[usize::from(link.version == Version::V5) * 2 + usize::from(retain)];
        if frame.is_empty() {
            let p = PublishOut {
                dup: false,
                qos,
                retain,
                packet_id: None,
                topic: view.topic,
                alias: None,
                expiry_s: None,
                subscription_ids: &[],
                forward: view.properties,
                payload: view.payload,
            };
            encode_publish(frame, link.version, &p);
        }
        self.pool.fill(&mut link.out);
        link.out.extend_from_slice(frame);
        link.traffic.send_pkt += 1;
        link.traffic.send_msg += 1;
        note_change(connection, conn, Changed::Itself, &mut self.dirty);
        self.counters.packets_out[PacketType::Publish as usize] += 1;
        surroundings!(self, 0).note_delivery(view.head.source, QoS::AtMostOnce, view.head.stamp);
        true
    }

    /// The subscribers of several routes, each session once: the highest QoS, all identifiers
    /// [MQTT-3.3.4-2, -3 of 5.0]. Sorted by session; several entries of one session follow each other.
    pub fn targets(&self, trie: &Trie, routes: &[RouteId], out: &mut Vec<Target>) {
        for route in routes {
            for sub in trie.subscribers(*route) {
                out.extend(self.sessions.slot(sub.session).map(|session| Target { session, sub: *sub }));
            }
        }
        out.sort_unstable_by_key(|t| (t.session.index, t.sub.id));
    }

    /// Delivers to the targets from `at` on, about `budget` of them; returns where it stopped.
    pub fn deliver_targets(
        &mut self,
        targets: &[Target],
        mut at: usize,
        budget: usize,
        carried: &mut Carried,
    ) -> usize {
        let stop = at.saturating_add(budget);
        let mut ids: Vec<u32> = Vec::new();
        self.frames.clear();
        while at < targets.len() && at < stop {
            let session = targets[at].session;
            let same = targets[at..].iter().take_while(|t| t.session == session).count();
            let group = &targets[at..at + same];
            at += same;
            if self.sessions.at(session).is_none() {
                continue;
            }
            if let [one] = group {
                if !self.deliver_frame(&one.sub, carried) {
                    self.deliver_sub(&one.sub, carried);
                }
                continue;
            }
            self.deliver_overlapping(group, &mut ids, carried);
        }
        at
    }

    fn deliver_overlapping(&mut self, group: &[Target], ids: &mut Vec<u32>, carried: &mut Carried) {
        let view = carried.view();
        let session = group[0].session.index;
        let own = self.sessions.get(session).is_some_and(|s| s.key == view.head.publisher);
        let wanted = group.iter().map(|t| t.sub).filter(|s| !(own && s.options.no_local()));
        ids.clear();
        let mut terms: Option<(QoS, bool)> = None;
        for sub in wanted {
            let (qos, retain) = Session::terms(&sub, &view);
            let (best_qos, any_retain) = terms.unwrap_or((qos, retain));
            terms = Some((best_qos.max(qos), any_retain || retain));
            if sub.id != 0 {
                ids.push(sub.id);
            }
        }
        ids.dedup();
        match terms {
            Some((qos, retain)) => {
                self.deliver(session, carried, Terms { qos, retain, ids, group: 0, retained: false });
            }
            None => self.counters.no_local += 1,
        }
    }
}

/// How one delivery looks.
pub(super) struct Terms<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub ids: &'a [u32],
    pub group: u64,
    /// It answers a subscription rather than a publication.
    pub retained: bool,
}

/// The flush at the end of the tick sends what a connection has to send, and counts what it and its session own.
fn note_change(connection: &mut Connection, conn: Conn, change: Changed, dirty: &mut Vec<Conn>) {
    if connection.changed == Changed::Nothing {
        dirty.push(conn);
    }
    connection.changed = connection.changed.max(change);
}
