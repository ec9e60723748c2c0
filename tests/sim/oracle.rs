//! A naive broker: it knows what was published, acknowledged and subscribed, in the order in which clients saw
//! it, and says of each delivery whether it may be, and at the end what must have been.
//!
//! An incarnation is one session from its beginning to its end. It is tainted when the simulation cannot know
//! what the broker made of it: a connection that was abandoned before its CONNACK may be served later. For
//! such a one only what may not arrive is judged.

use crate::note;
use crate::trace;
use std::collections::BTreeMap;

pub type MsgId = u64;

/// A PUBLISH, or a will.
#[derive(Clone, Debug)]
pub struct Msg {
    pub topic: String,
    pub publisher: usize,
    pub qos: u8,
    pub retain: bool,
    /// Without payload.
    pub clear: bool,
    pub will: bool,
    pub bytes: usize,
    pub expiry_s: Option<u32>,
    pub sent: u64,
    pub sent_ms: u64,
    pub acked: Option<u64>,
    pub acked_ms: u64,
    /// Answered with an error: nobody may get it.
    pub refused: bool,
    /// How often it was sent.
    pub times: u32,
    /// How often the broker may route it.
    pub routed_max: u32,
}

/// One SUBSCRIBE of one filter.
#[derive(Clone, Debug)]
pub struct SubRec {
    pub filter: String,
    pub group: Option<String>,
    pub qos: u8,
    pub no_local: bool,
    pub wants_retained: bool,
    /// Retained messages are sent even where the subscription was there before.
    pub always_retained: bool,
    pub as_published: bool,
    pub id: u32,
    pub requested: u64,
    pub granted: Option<u64>,
    pub refused: bool,
    pub unsub_sent: Option<u64>,
    pub unsub_acked: Option<u64>,
}

/// One delivery to the application of a client.
#[derive(Clone, Debug)]
pub struct Got {
    pub msg: MsgId,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub ids: Vec<u32>,
    /// Number of the client's connection, and when the client opened it.
    pub conn: usize,
    pub since_ms: u64,
    /// The client has acknowledged it.
    pub taken: bool,
}

/// One session.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    pub subs: Vec<SubRec>,
    pub tainted: bool,
    pub got: BTreeMap<MsgId, Vec<Got>>,
    last: BTreeMap<(usize, String, u8, u8), MsgId>,
}

/// Whether the broker still has a client's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alive {
    No,
    /// At least until then, in milliseconds.
    Until(u64),
    Unknown,
}

#[derive(Debug)]
pub struct Books {
    pub id: String,
    /// Each connection is another client to the broker.
    pub anonymous: bool,
    /// It asks for sessions that outlive their connection.
    pub lasting: bool,
    pub alive: Alive,
    pub incs: Vec<Incarnation>,
    /// Losses that the ledger excuses, known at the end.
    pub excused: u64,
    /// The same for messages of share groups.
    pub excused_shared: u64,
    /// It is connected at the end and was sent all that it is due.
    pub complete: bool,
    /// Its last connection, and since when.
    pub conn: usize,
    pub up_since: u64,
}

impl Books {
    pub fn inc(&mut self) -> &mut Incarnation {
        self.incs.last_mut().expect("there is always one")
    }
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub msgs: Vec<Msg>,
    pub books: Vec<Books>,
    pub now_ms: u64,
    /// Publishers may be refused, so one that tries again comes later.
    pub may_refuse: bool,
    /// They are, where a subscriber's queue is full.
    pub full_refuses: bool,
    /// The store cannot write, and knows it.
    pub read_only: bool,
    /// When the broker crashed the last time, 0 = never.
    pub crashed: u64,
    seq: u64,
}

/// MQTT's matching, as simple as can be.
pub fn matches(filter: &str, topic: &str) -> bool {
    let (f, t): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    if topic.starts_with('$') && (f[0] == "#" || f[0] == "+") {
        return false;
    }
    for (at, level) in f.iter().enumerate() {
        if *level == "#" {
            return true;
        }
        if at >= t.len() || (*level != "+" && *level != t[at]) {
            return false;
        }
    }
    f.len() == t.len()
}

/// Whether what is to be retained is: else it may be gone with a crash, or the store could not be written.
fn is_retained(m: &Msg, crashed: u64, may_refuse: bool) -> bool {
    m.acked.is_some() || (m.sent > crashed && (m.qos > 0 || !may_refuse))
}

/// What a message carries.
pub fn payload(id: MsgId, bytes: usize) -> Vec<u8> {
    let mut text = format!("m{id}:").into_bytes();
    while text.len() < bytes {
        text.push(b'a' + ((id as usize + text.len()) % 26) as u8);
    }
    text
}

pub fn parse_payload(bytes: &[u8]) -> Option<MsgId> {
    let colon = bytes.iter().position(|b| *b == b':')?;
    std::str::from_utf8(&bytes[1..colon]).ok()?.parse().ok()
}

impl Oracle {
    pub fn client(&mut self, id: String, anonymous: bool, lasting: bool) -> usize {
        self.books.push(Books {
            id,
            anonymous,
            lasting,
            alive: Alive::No,
            incs: vec![Incarnation::default()],
            excused: 0,
            excused_shared: 0,
            complete: false,
            conn: 0,
            up_since: 0,
        });
        self.books.len() - 1
    }

    /// The broker crashes. That a will was published, nobody was told.
    pub fn crash(&mut self) {
        self.crashed = self.tick();
        self.msgs.iter_mut().filter(|m| m.will).for_each(|m| m.acked = None);
    }

    pub fn tick(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn publish(&mut self, m: Msg) -> MsgId {
        let sent = self.tick();
        self.msgs.push(Msg { sent, sent_ms: self.now_ms, ..m });
        self.msgs.len() as MsgId - 1
    }

    pub fn acked(&mut self, id: MsgId) {
        let seq = self.tick();
        let now = self.now_ms;
        let m = &mut self.msgs[id as usize];
        if m.acked.is_none() {
            m.acked = Some(seq);
            m.acked_ms = now;
        }
    }

    /// A client acknowledges what it got.
    pub fn taken(&mut self, client: usize, id: MsgId) {
        let got = self.books[client].inc().got.get_mut(&id);
        got.into_iter().flatten().for_each(|g| g.taken = true);
    }

    /// A new session begins.
    pub fn begin(&mut self, client: usize, tainted: bool) {
        self.books[client].incs.push(Incarnation { tainted, ..Incarnation::default() });
    }

    /// A client is connected from now on.
    pub fn connected(&mut self, client: usize, conn: usize) {
        let seq = self.tick();
        let books = &mut self.books[client];
        (books.conn, books.up_since) = (conn, seq);
    }

    /// CONNACK of success came. `clean`: the CONNECT asked for a new session, which began when it was sent.
    /// `haunted`: a connection that was abandoned earlier may still be served.
    pub fn connack(&mut self, client: usize, clean: bool, present: bool, haunted: bool) {
        let now = self.now_ms;
        let books = &mut self.books[client];
        let id = books.id.clone();
        let alive = if haunted { Alive::Unknown } else { books.alive };
        assert!(!(clean && present), "{id}: session present after a clean start");
        match alive {
            Alive::No => assert!(!present, "{id}: session present, and there can be none"),
            Alive::Until(ms) if now < ms => {
                assert!(clean || present, "{id}: its session is gone {} ms before its end", ms - now);
            }
            _ => {}
        }
        if !clean && !present {
            if !haunted && matches!(alive, Alive::Until(_)) {
                trace::reached("session expired");
            }
            self.begin(client, haunted);
        } else if present && alive == Alive::Unknown {
            self.books[client].inc().tainted = true;
        }
        if present {
            trace::reached("session present");
        }
        self.books[client].inc().tainted |= haunted;
        self.books[client].alive = Alive::Until(u64::MAX);
    }

    /// A message reached a client's application; panics if it may not.
    pub fn delivered(&mut self, client: usize, topic: &str, got: Got) {
        let m = self.msgs.get(got.msg as usize).expect("a message that nobody published");
        let anonymous = self.books[m.publisher].anonymous;
        let books = &mut self.books[client];
        let who = books.id.clone();
        let inc = books.incs.last_mut().expect("there is always one");
        let what = format!("{who}: m{} of client {} to {} (QoS {})", got.msg, m.publisher, m.topic, m.qos);
        assert_eq!(m.topic, topic, "{what} arrived under another topic");
        assert!(!got.retain || m.retain, "{what} arrived with RETAIN, and was published without");
        assert!(got.qos <= m.qos, "{what} arrived with QoS {}", got.qos);
        let possible: Vec<&SubRec> = inc
            .subs
            .iter()
            .filter(|s| !s.refused && matches(&s.filter, &m.topic))
            .filter(|s| s.unsub_acked.is_none_or(|at| at > m.sent || m.will || got.retain))
            .collect();
        if !inc.tainted {
            assert!(!possible.is_empty(), "{what} arrived without a subscription");
            let best = possible.iter().map(|s| s.qos).max().unwrap_or(0);
            assert!(got.qos <= best, "{what} arrived with QoS {}, subscribed with {best}", got.qos);
            let local = m.publisher == client && !anonymous && possible.iter().all(|s| s.no_local);
            assert!(!local || got.retain, "{what} came back in spite of No Local");
            for id in &got.ids {
                let known = possible.iter().any(|s| s.id == *id);
                assert!(known, "{what} arrived with subscription identifier {id}");
            }
        }
        let mut filters: Vec<&String> =
            possible.iter().filter(|s| s.group.is_none()).map(|s| &s.filter).collect();
        filters.sort();
        filters.dedup();
        if filters.len() > 1 {
            trace::reached("overlapping subscriptions");
        }
        let shared = possible.iter().any(|s| s.group.is_some());
        let plain = u32::from(!filters.is_empty());
        let groups = u32::from(shared);
        let scans =
            possible.iter().filter(|s| s.group.is_none() && s.wants_retained && m.retain).count() as u32;
        if got.retain && !inc.tainted && !m.will && possible.iter().all(|s| !s.as_published) {
            let asked = possible.iter().filter(|s| s.wants_retained).map(|s| s.requested).min().unwrap_or(0);
            let newer = m.acked.and_then(|at| {
                let known = |o: &&Msg| o.retain && o.topic == m.topic && o.acked.is_some_and(|a| a < asked);
                self.msgs.iter().filter(known).position(|o| o.sent > at && !o.refused && !o.will)
            });
            assert!(
                newer.is_none(),
                "{what} is retained no more, a newer one was acknowledged before the SUBSCRIBE"
            );
        }
        // QoS 0 waits in no queue, so it overtakes what does.
        if got.retain && !inc.tainted && !m.will && !got.dup && possible.iter().all(|s| !s.as_published) {
            let live = |(id, all): (&MsgId, &Vec<Got>)| {
                let o = &self.msgs[*id as usize];
                let newer =
                    o.retain && !o.will && o.topic == m.topic && m.acked.is_some_and(|at| o.sent > at);
                // What nobody was told to be retained may be gone with a crash.
                let newer = newer && is_retained(o, self.crashed, self.may_refuse);
                newer.then_some(*id).filter(|_| all.iter().any(|g| !g.retain && (g.qos > 0) == (got.qos > 0)))
            };
            let newer = inc.got.iter().find_map(live);
            assert!(newer.is_none(), "{what} is retained no more, m{} came before it", newer.unwrap_or(0));
        }
        if let Some(s) = m.expiry_s.filter(|_| m.acked.is_some() && !m.will && !got.dup) {
            let due = m.acked_ms + u64::from(s) * 1000;
            assert!(got.since_ms < due, "{what} expired before this connection was opened");
        }
        let before = inc.got.entry(got.msg).or_default();
        let first = before.is_empty();
        let max = (plain + groups) * m.routed_max + scans;
        // A message of a share group that its member did not acknowledge goes to any member: to this one again.
        let same = |g: &&Got| !(shared && g.qos == 1) || g.conn == got.conn;
        // After a crash a QoS 2 message is routed again, past those who have it. Below QoS 2 it may come again (and
        // at QoS 2 to one that had it below before it subscribed anew), and which member of a share group had it is
        // not kept.
        let again = (m.times > 1 || m.will) && m.sent < self.crashed;
        let same = |g: &&Got| same(g) && (!again || got.qos < 2 || g.qos == 2);
        let fresh = before.iter().filter(|g| !g.dup || g.qos == 2).filter(same).count() as u32;
        let is_fresh = !got.dup || got.qos == 2;
        if !inc.tainted && is_fresh {
            let max = max + u32::from(again && (got.qos < 2 || shared)) * m.times;
            assert!(fresh < max, "{what} arrived {} times, expected at most {max}", fresh + 1);
        }
        if shared && got.qos > 0 {
            trace::reached("shared delivery");
        }
        if got.retain && m.sent < possible.iter().map(|s| s.requested).min().unwrap_or(0) {
            trace::reached("retained found by a subscriber");
        }
        if first && !got.retain && !shared && !m.will && !inc.tainted && !anonymous {
            let key = (m.publisher, m.topic.clone(), m.qos, got.qos);
            let last = inc.last.entry(key).or_insert(got.msg);
            let again =
                m.times > 1 && (m.qos < 2 || m.routed_max > 1 || self.may_refuse || m.sent < self.crashed);
            assert!(got.msg >= *last || again, "{what} arrived after m{}", *last);
            *last = (*last).max(got.msg);
        }
        note!("{who} got m{} {topic} qos {} retain {} dup {}", got.msg, got.qos, got.retain, got.dup);
        before.push(got);
    }

    /// A message was refused although no queue can be full: something of it would have been kept.
    pub fn judge_refusal(&self, id: MsgId) {
        let m = &self.msgs[id as usize];
        let exact = m.qos == 2 && self.books[m.publisher].lasting;
        let wants = |s: &SubRec| matches(&s.filter, &m.topic);
        let kept = |b: &Books| b.lasting && b.incs.iter().flat_map(|i| &i.subs).any(wants);
        let to_be_kept = exact || m.retain || self.books.iter().any(kept);
        assert!(to_be_kept, "m{id} to {} was refused, and nobody would have kept any of it", m.topic);
    }

    /// The end: what must have arrived did, and what was refused did not.
    pub fn judge(&self, no_member: u64) {
        for (id, m) in self.msgs.iter().enumerate() {
            let id = id as MsgId;
            let got = |b: &Books| b.incs.iter().any(|i| i.got.contains_key(&id));
            if m.refused {
                let who = self.books.iter().find(|b| got(b)).map(|b| &b.id);
                assert!(who.is_none(), "m{id} was refused, and {who:?} got it");
            }
        }
        for (client, books) in self.books.iter().enumerate() {
            self.judge_client(client, books);
        }
        self.judge_groups(no_member, &|_, _| true);
    }

    fn judge_client(&self, client: usize, books: &Books) {
        let inc = books.incs.last().expect("there is always one");
        if !books.complete || inc.tainted {
            return;
        }
        if books.excused == 0 {
            self.judge_scans(client, books, inc);
        }
        let mut filters: Vec<&String> =
            inc.subs.iter().filter(|s| s.group.is_none()).map(|s| &s.filter).collect();
        filters.sort();
        filters.dedup();
        let mut missing = Vec::new();
        for (id, m) in self.msgs.iter().enumerate() {
            let due = filters.iter().any(|f| self.is_due(client, inc, f, m));
            if due && !inc.got.contains_key(&(id as MsgId)) {
                missing.push(format!("m{id} {}", m.topic));
            }
        }
        let n = missing.len() as u64;
        assert!(
            n <= books.excused,
            "{} did not get {n} messages that were acknowledged, {} are in the ledger: {missing:?}",
            books.id,
            books.excused
        );
    }

    /// What was retained and acknowledged before a SUBSCRIBE was found for it, or something newer.
    fn judge_scans(&self, client: usize, books: &Books, inc: &Incarnation) {
        let asks = |s: &&SubRec| {
            s.group.is_none()
                && s.granted.is_some()
                && s.always_retained
                // A search that a crash cut short is not begun anew.
                && s.requested > self.crashed
                && s.qos > 0
                && inc.subs.iter().all(|o| o.filter != s.filter || (o.unsub_sent.is_none() && o.qos > 0))
        };
        for sub in inc.subs.iter().filter(asks) {
            for (id, m) in self.msgs.iter().enumerate() {
                let known = m.retain && !m.will && m.acked.is_some_and(|at| at < sub.requested);
                if !known || m.refused || !matches(&sub.filter, &m.topic) {
                    continue;
                }
                // All that can have replaced it, itself included. A will is published when the loss is noticed.
                let mut later = self.msgs.iter().enumerate().filter(|(_, o)| {
                    let late = o.will || o.acked.is_none_or(|at| at > m.sent);
                    o.retain && !o.refused && o.topic == m.topic && late
                });
                let own = |o: &Msg| sub.no_local && o.publisher == client;
                let lasting = |o: &Msg| !o.clear && o.qos > 0 && o.expiry_s.is_none() && !o.will && !own(o);
                if !later.clone().all(|(_, o)| lasting(o)) {
                    continue;
                }
                let found = later.any(|(o, _)| inc.got.contains_key(&(o as MsgId)));
                assert!(
                    found,
                    "{} asked for {}, and did not get m{id}, which is retained",
                    books.id, sub.filter
                );
            }
        }
    }

    /// Whether a session must have got a message through this filter.
    fn is_due(&self, client: usize, inc: &Incarnation, filter: &str, m: &Msg) -> bool {
        let recs = || inc.subs.iter().filter(|s| s.group.is_none() && s.filter == filter && !s.refused);
        let held = recs().filter_map(|s| s.granted).min().is_some_and(|at| at < m.sent);
        let always =
            recs().all(|s| s.qos > 0 && s.unsub_sent.is_none() && !(s.no_local && m.publisher == client));
        m.acked.is_some()
            && !m.refused
            && !m.clear
            && m.qos > 0
            && held
            && always
            && matches(filter, &m.topic)
            && m.expiry_s.is_none_or(|s| m.sent_ms + u64::from(s) * 1000 > self.now_ms)
    }

    /// What was published to share groups, as far as `asked`, reached one member.
    pub fn judge_groups(&self, no_member: u64, asked: &dyn Fn(&Books, &Msg) -> bool) {
        let mut groups: Vec<(String, String)> = Vec::new();
        for inc in self.books.iter().flat_map(|b| &b.incs) {
            groups.extend(inc.subs.iter().filter_map(|s| Some((s.group.clone()?, s.filter.clone()))));
        }
        groups.sort();
        groups.dedup();
        for (group, filter) in groups {
            let member = |i: &Incarnation| i.subs.iter().any(|s| s.group.as_ref() == Some(&group));
            let excused: u64 = no_member
                + self
                    .books
                    .iter()
                    .filter(|b| b.incs.iter().any(member))
                    .map(|b| b.excused_shared)
                    .sum::<u64>();
            let mut missing = Vec::new();
            for (id, m) in self.msgs.iter().enumerate().filter(|(_, m)| matches(&filter, &m.topic)) {
                let got = self.group_deliveries(id as MsgId, &group);
                let exact = got.iter().filter(|(g, _)| g.qos == 2).count() as u32;
                // Which member had it before a crash is not kept.
                let max = m.routed_max + if m.sent < self.crashed { m.times } else { 0 };
                assert!(exact <= max, "m{id} reached {exact} members of {group} with QoS 2");
                let lasting = got.iter().filter(|(_, lasting)| *lasting).count() as u32;
                assert!(lasting <= max, "m{id} reached {lasting} members of {group} that stayed");
                let due = self
                    .books
                    .iter()
                    .any(|b| b.complete && asked(b, m) && self.is_member(b, &group, &filter, m));
                // Who was lost before it acknowledged does not count: it is given to another member.
                let got_it =
                    |i: &Incarnation| i.got.get(&(id as MsgId)).is_some_and(|g| g.iter().any(|g| g.taken));
                let anybody =
                    self.books.iter().any(|b| b.incs.iter().any(member) && b.incs.iter().any(got_it));
                if due && !anybody {
                    missing.push(format!("m{id} {}", m.topic));
                }
            }
            let n = missing.len() as u64;
            assert!(n <= excused, "group {group} did not get {n} messages, {excused} excused: {missing:?}");
        }
    }

    /// Deliveries of a message to members of a group, and whether the connection lasted to the end.
    fn group_deliveries(&self, id: MsgId, group: &str) -> Vec<(&Got, bool)> {
        let mut all = Vec::new();
        for books in &self.books {
            for inc in &books.incs {
                if inc.tainted || !inc.subs.iter().any(|s| s.group.as_deref() == Some(group)) {
                    continue;
                }
                let got = inc.got.get(&id).into_iter().flatten();
                all.extend(got.filter(|g| !g.dup || g.qos == 2).map(|g| (g, g.conn == books.conn)));
            }
        }
        all
    }

    fn is_member(&self, books: &Books, group: &str, filter: &str, m: &Msg) -> bool {
        let Some(inc) = books.incs.last().filter(|i| !i.tainted) else { return false };
        let recs = || {
            inc.subs.iter().filter(|s| s.group.as_deref() == Some(group) && s.filter == filter && !s.refused)
        };
        m.acked.is_some()
            && !m.refused
            && !m.clear
            && m.qos > 0
            // What was given to a member that is not kept is gone with a crash.
            && m.sent > self.crashed
            && recs().filter_map(|s| s.granted).min().is_some_and(|at| at < m.sent)
            && recs().all(|s| s.unsub_sent.is_none() && s.qos > 0)
            && m.expiry_s.is_none_or(|s| m.sent_ms + u64::from(s) * 1000 > self.now_ms)
    }

    /// Whether a retained value, or none, can be the last that was published to a topic.
    pub fn judge_retained(&self, topic: &str, found: Option<MsgId>) {
        let on_topic =
            || self.msgs.iter().enumerate().filter(|(_, m)| m.retain && m.topic == topic && !m.refused);
        let superseded = |id: usize, m: &Msg| {
            // When a will is published is not seen by its client.
            let at = m.acked.filter(|_| !m.will)?;
            on_topic()
                .find(|(other, o)| *other != id && o.sent > at && o.acked.is_some() && !o.will)
                .map(|(other, _)| other)
        };
        if let Some(found) = found {
            let m = &self.msgs[found as usize];
            assert!(m.retain && m.topic == topic, "m{found} is retained for {topic}");
            let newer = superseded(found as usize, m);
            assert!(
                newer.is_none(),
                "m{found} is retained for {topic}, and m{} is newer",
                newer.unwrap_or(0)
            );
            if let Some(s) = m.expiry_s.filter(|_| m.acked.is_some() && !m.will) {
                let due = m.acked_ms + u64::from(s) * 1000;
                assert!(due > self.now_ms, "m{found} is retained for {topic}, and has expired");
            }
            return;
        }
        // Nothing is retained: some clear, or something that expired, can have been the last.
        let mut last = on_topic().filter(|(id, m)| superseded(*id, m).is_none());
        let certain = on_topic().any(|(_, m)| m.acked.is_some() && !m.clear);
        let excused = last.any(|(_, m)| {
            m.clear || m.expiry_s.is_some_and(|s| m.sent_ms + u64::from(s) * 1000 <= self.now_ms) || m.will
        });
        assert!(!certain || excused, "nothing is retained for {topic}");
    }
}
