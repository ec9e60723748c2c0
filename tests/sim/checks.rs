//! What must hold once a world is at rest.

use crate::oracle::{Incarnation, matches};
use crate::plan::{Profile, TOPICS};
use crate::world::World;
use crate::{note, trace};
use ringmq::codec::{SubscribeOptions, Version};
use ringmq::message::QoS;
use ringmq::shard::{GroupCounts, Inspection, SessionView};
use ringmq::stats::{Gauges, Ledger, LossCause};
use std::collections::{BTreeMap, BTreeSet};

/// Losses that excuse a message that did not arrive.
const EXCUSES: &[LossCause] =
    &[LossCause::QueueFull, LossCause::QueueBytesFull, LossCause::Expired, LossCause::PacketTooLarge];
/// Those that excuse one of a share group as well.
const SHARED_EXCUSES: &[LossCause] = &[LossCause::SessionEnded, LossCause::NoMember];

/// Members of a share group that are online and offline, by shard.
type Members = BTreeMap<u16, (u32, u32)>;

/// Runs one seed; panics if something does not hold.
pub fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.chaos();
    world.settle();
    world.check_rest();
    world.check_routes();
    world.check_deliveries();
    world.check_retained();
    if seed.is_multiple_of(4) {
        world.drain()
    } else {
        world.tear_down()
    }
    world.count_reached();
    world.steps
}

impl World {
    fn sessions(&self) -> Vec<(usize, SessionView)> {
        let of = |(at, node): (usize, &std::cell::RefCell<crate::machine::node::Node>)| {
            node.borrow().shard.inspect().sessions.into_iter().map(move |s| (at, s)).collect::<Vec<_>>()
        };
        self.machine.nodes.iter().enumerate().flat_map(of).collect()
    }

    pub fn ledger(&self) -> Ledger {
        let mut all = self.past.clone();
        self.machine.nodes.iter().for_each(|n| all.merge(n.borrow().shard.inspect().ledger));
        all
    }

    /// Nothing is under way, and there is one session per client.
    fn check_rest(&self) {
        for (at, node) in self.machine.nodes.iter().enumerate() {
            let left = node.borrow().shard.inspect().unfinished;
            assert!(left.is_empty(), "shard {at} sleeps, and has {left:?} left");
            check_gauges(at, &node.borrow().shard.inspect());
            let (kept, now) = node.borrow_mut().shard.recount();
            assert_eq!(kept, now, "shard {at} keeps another ledger of memory than there is memory");
        }
        let sessions = self.sessions();
        let mut names = BTreeSet::new();
        for (shard, session) in &sessions {
            assert!(names.insert(&session.client_id), "{} has two sessions", session.client_id);
            assert_eq!(session.waiting, (0, 0), "{} on shard {shard} has messages left", session.client_id);
        }
        for client in self.clients.iter().filter(|c| !c.profile.anonymous) {
            let session = sessions.iter().find(|(_, s)| s.client_id == client.profile.id);
            let (_, session) = session.unwrap_or_else(|| panic!("{} has no session", client.profile.id));
            assert!(session.online, "{}'s session is offline", client.profile.id);
            let inc = self.oracle.books[client.index].incs.last().expect("there is always one");
            if !inc.tainted {
                check_subscriptions(session, inc);
            }
        }
    }

    /// Each replica is the union of all subscriptions.
    fn check_routes(&self) {
        let sessions = self.sessions();
        for topic in TOPICS.iter().chain(&["$SYS/x", "nobody/wants/this"]) {
            let mut shards = 0u64;
            let mut groups: BTreeMap<(&str, &str), Members> = BTreeMap::new();
            for (shard, session) in &sessions {
                for (filter, group, _) in session.subscriptions.iter().filter(|(f, _, _)| matches(f, topic)) {
                    let Some(group) = group else {
                        shards |= 1 << shard;
                        continue;
                    };
                    let counts = groups.entry((filter, group)).or_default().entry(*shard as u16).or_default();
                    if session.online { counts.0 += 1 } else { counts.1 += 1 }
                }
            }
            let mut groups: Vec<Vec<(u16, u32, u32)>> = groups
                .values()
                .map(|g| g.iter().map(|(shard, (online, offline))| (*shard, *online, *offline)).collect())
                .collect();
            groups.sort();
            for (at, node) in self.machine.nodes.iter().enumerate() {
                let mut seen = node.borrow().shard.routes_of(topic);
                let mut counts: Vec<_> =
                    seen.groups.into_iter().map(|GroupCounts(_, counts)| counts).collect();
                if self.plan.route_key_mask != u64::MAX {
                    // Topics share keys: what is there for another one is seen as well.
                    seen.shards &= shards;
                    counts.retain(|c| groups.contains(c));
                }
                counts.sort();
                counts.dedup();
                groups.dedup();
                assert_eq!(seen.shards, shards, "shard {at} has other routes for {topic} than there are");
                assert_eq!(counts, groups, "shard {at} counts other members for {topic} than there are");
            }
        }
    }

    /// While some clients are away, members of their share groups who were there all the time have what is not
    /// theirs alone: QoS 2 that was sent to one who left waits for it.
    pub fn check_absent(&mut self) {
        let no_member = self.excuse();
        for (shard, session) in self.sessions().iter().filter(|(_, s)| s.waiting != (0, 0)) {
            note!("{} waits on shard {shard}: {:?} (queued, in flight)", session.client_id, session.waiting);
        }
        self.oracle.judge_groups(no_member, &|member, m| m.qos == 1 && member.up_since < m.sent);
    }

    /// Notes what the ledgers excuse, and who is there; losses of share groups without a member.
    fn excuse(&mut self) -> u64 {
        let ledger = self.ledger();
        let sum = |name: &str, causes: &[LossCause]| -> u64 {
            let line = ledger.clients().find(|(id, _)| *id == name).map(|(_, line)| line);
            line.map_or(0, |line| causes.iter().map(|c| line[*c as usize]).sum())
        };
        let everybody = sum("", EXCUSES);
        for (client, books) in self.clients.iter().zip(&mut self.oracle.books) {
            if client.link.is_none() {
                books.conn = usize::MAX;
            }
            books.complete = client.is_calm() && !client.profile.anonymous;
            books.excused = everybody + sum(&books.id, EXCUSES);
            books.excused_shared = books.excused + sum(&books.id, SHARED_EXCUSES);
            if client.profile.anonymous {
                books.excused_shared = u64::from(u32::MAX);
            }
        }
        self.oracle.now_ms = self.now();
        sum("", SHARED_EXCUSES)
    }

    fn check_deliveries(&mut self) {
        let no_member = self.excuse();
        self.oracle.judge(no_member);
        let ledger = self.ledger();
        for (cause, name) in [(LossCause::Expired, "message expired"), (LossCause::QueueFull, "queue full")] {
            let n = ledger.totals().find(|(c, _)| *c == cause).map_or(0, |(_, n)| n);
            trace::reached_n(name, n);
        }
        let n = ledger.totals().find(|(c, _)| *c == LossCause::PacketTooLarge).map_or(0, |(_, n)| n);
        trace::reached_n("packet too large for a client", n);
    }

    /// A client that comes when all is quiet finds what was retained last.
    fn check_retained(&mut self) {
        let profile = Profile {
            id: "checker".into(),
            anonymous: false,
            version: Version::V5,
            expiry_s: 0,
            keep_alive_s: 0,
            receive_max: None,
            max_packet: None,
            alias_max: 0,
            group: None,
            burst: 0,
        };
        let at = self.add_client(profile);
        self.client(at, |client, cx| client.connect(cx));
        self.run_until_rest(|world| world.clients[at].is_up());
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        self.client(at, |client, cx| client.send_subscribe(cx, &[(None, "#".into(), options)], 0));
        self.run_until_rest(|world| world.clients[at].is_calm());
        self.oracle.now_ms = self.now();
        let inc = self.oracle.books[at].incs.last().expect("there is always one");
        let found: Vec<u64> = inc.got.keys().copied().collect();
        let lost = self.ledger().clients().any(|(id, _)| id == "checker");
        let topics: BTreeSet<&str> = TOPICS.iter().copied().collect();
        for topic in topics {
            let mut here = found.iter().filter(|m| self.oracle.msgs[**m as usize].topic == topic);
            let first = here.next().copied();
            assert!(here.next().is_none(), "two messages are retained for {topic}");
            if first.is_some() || !lost {
                self.oracle.judge_retained(topic, first);
            }
        }
    }

    fn count_reached(&self) {
        for node in self.machine.nodes.iter() {
            let node = node.borrow();
            let seen = node.shard.inspect();
            let c = seen.counters;
            for (name, n) in [
                ("takeover", c.takeovers),
                ("shared hand-on", c.hand_ons),
                ("fan-out cursor", c.cursors),
                ("will published", c.wills),
                ("connect timeout", c.connect_timeouts),
                ("keep alive timeout", c.keep_alive_timeouts),
                ("data ring full", seen.mesh.data_ring_full),
                ("control overflow", seen.mesh.control_overflow),
            ] {
                trace::reached_n(name, n);
            }
        }
    }
}

/// What a shard counts as there is there.
fn check_gauges(at: usize, seen: &Inspection) {
    let sum = |of: fn(&SessionView) -> usize| seen.sessions.iter().map(of).sum::<usize>() as u64;
    let shared = |s: &SessionView| s.subscriptions.iter().filter(|(_, group, _)| group.is_some()).count();
    let expected = Gauges {
        sockets: seen.connections as u64,
        connections: sum(|s| usize::from(s.online)),
        sessions: seen.sessions.len() as u64,
        sessions_persistent: sum(|s| usize::from(s.persistent)),
        subscriptions: sum(|s| s.subscriptions.len()),
        subscriptions_shared: sum(shared),
        subscribers: sum(|s| usize::from(!s.subscriptions.is_empty())),
        retained: seen.retained as u64,
        queued: sum(|s| s.waiting.0),
        inflight_out: sum(|s| s.waiting.1),
        inflight_in: sum(|s| s.unreleased),
        // What no list is made of.
        topics: seen.gauges.topics,
        handshakes: seen.gauges.handshakes,
        ..Gauges::default()
    };
    assert_eq!(*seen.gauges, expected, "shard {at}");
    assert!(seen.gauges.handshakes <= seen.gauges.sockets, "shard {at}: {:?}", seen.gauges);
}

/// The broker's list of a session's subscriptions is the client's.
fn check_subscriptions(session: &SessionView, inc: &Incarnation) {
    let mut wanted: BTreeMap<(String, Option<String>), Option<u8>> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for rec in inc.subs.iter().filter(|s| !s.refused) {
        let name = (rec.filter.clone(), rec.group.clone());
        let gone = inc
            .subs
            .iter()
            .filter(|s| s.filter == rec.filter && s.group == rec.group)
            .filter_map(|s| s.unsub_sent)
            .max()
            .is_some_and(|at| at > rec.requested);
        if rec.granted.is_none() || (rec.unsub_sent.is_some() && rec.unsub_acked.is_none()) {
            unknown.insert(name.clone());
        }
        wanted.insert(name, (!gone).then_some(rec.qos));
    }
    for (filter, group, qos) in &session.subscriptions {
        let name = (filter.clone(), group.clone());
        if !unknown.contains(&name) {
            let expected = wanted.get(&name).copied().flatten();
            assert_eq!(expected, Some(*qos), "{} is subscribed to {name:?}", session.client_id);
        }
    }
    for (name, qos) in wanted {
        let held = session.subscriptions.iter().any(|(f, g, _)| *f == name.0 && *g == name.1);
        assert!(held || qos.is_none() || unknown.contains(&name), "{} lost {name:?}", session.client_id);
    }
}
