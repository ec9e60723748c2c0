//! Three shards' tries, which tell each other what they say is to be told, against lists of subscriptions.

use super::input::Input;
use ringmq::io::ShardId;
use ringmq::map::Keyed;
use ringmq::topic::{Filter, Subscribed, Topic};
use ringmq::trie::{GroupView, Matches, RouteBuf, Stats, Sub, SubOptions, SubRef, Trie};
use std::collections::{BTreeMap, BTreeSet};

const SHARDS: usize = 3;
const SESSIONS: usize = 24;
/// Operations of one input at most, so that the naive side stays fast.
const STEPS_MAX: usize = 400;

/// Shard, filter, share name, session.
type Key = (usize, String, Option<&'static str>, u32);

#[derive(Clone, Copy)]
struct Known {
    at: SubRef,
    options: SubOptions,
    id: u32,
    full: bool,
    online: bool,
}

struct World {
    keyed: Keyed,
    tries: Vec<Trie>,
    known: BTreeMap<Key, Known>,
    /// By shard, what it has announced.
    announced: Vec<BTreeSet<String>>,
    out: Matches,
}

pub fn target(data: &[u8]) {
    let keyed = Keyed::new(42);
    let tries: Vec<Trie> = (0..SHARDS).map(|me| Trie::new(me as ShardId, SHARDS, keyed.clone())).collect();
    let empty: Vec<Stats> = tries.iter().map(Trie::stats).collect();
    let (announced, out) = (vec![BTreeSet::new(); SHARDS], Matches::default());
    let mut world = World { keyed, tries, known: BTreeMap::new(), announced, out };
    let mut input = Input::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..3 => world.subscribe(&mut input),
            3 => world.unsubscribe(&mut input),
            4 => world.set_full(&mut input),
            5 => world.set_online(&mut input),
            _ => world.publish(&mut input),
        }
    }
    while let Some(key) = world.known.keys().next().cloned() {
        world.remove(&key);
    }
    let left: Vec<Stats> = world.tries.iter().map(Trie::stats).collect();
    assert_eq!(left, empty, "nothing is left of those that went");
}

/// Levels from a small alphabet, so that they meet; sometimes a text of the input's own.
fn text(input: &mut Input<'_>, levels: &[&str]) -> String {
    let shape = input.byte();
    if shape >= 0xF0 {
        let len = usize::from(input.byte());
        return String::from_utf8_lossy(input.take(len)).into_owned();
    }
    // A few are deep.
    let depth = if shape >= 0xE8 { 40 } else { 1 + usize::from(shape) % 4 };
    (0..depth).map(|_| input.pick(levels)).collect::<Vec<_>>().join("/")
}

impl World {
    fn subscribe(&mut self, input: &mut Input<'_>) {
        let (shard, session) = (input.below(SHARDS), input.below(SESSIONS) as u32);
        let group = input.pick(&[None, None, Some("g"), Some("h")]);
        let Some(options) = SubOptions::from_bits(input.byte()) else { return };
        let filter = text(input, &["a", "b", "", "+", "#", "$SYS", "long level of a filter"]);
        let Ok(checked) = Filter::new(&filter, 0) else { return };
        let id = u32::from(input.byte());
        let to = Subscribed { group, filter: checked };
        let before = self.tries[shard].find(&to);
        let added = self.tries[shard].subscribe(&to, Sub::new(session, options, id));
        assert_eq!(self.tries[shard].find(&to), Some(added.sub));
        assert!(before.is_none_or(|before| before == added.sub), "a name stays while somebody has it");
        assert_eq!(added.sub.is_shared(), group.is_some());
        if let Some(route) = added.announce {
            assert!(group.is_none());
            assert!(self.announced[shard].insert(name(&route)), "announced twice");
            self.others(shard, |trie, from| trie.announced(from, route.as_route()));
        }
        let key = (shard, filter, group, session);
        let old = self.known.get(&key).copied();
        assert_eq!(added.existed, old.is_some());
        let known = Known { at: added.sub, options, id, full: false, online: true };
        let known = old.map_or(known, |old| Known { options, id, ..old });
        self.known.insert(key, known);
        self.tell_groups(shard);
    }

    fn unsubscribe(&mut self, input: &mut Input<'_>) {
        if let Some(key) = self.choose(input) {
            self.remove(&key);
        }
    }

    fn choose(&self, input: &mut Input<'_>) -> Option<Key> {
        let at = input.below(256) % self.known.len().max(1);
        self.known.keys().nth(at).cloned()
    }

    fn remove(&mut self, key: &Key) {
        let Some(known) = self.known.remove(key) else { return };
        let (shard, session) = (key.0, key.3);
        let described = self.tries[shard].describe(known.at, session).expect("it is subscribed");
        assert_eq!((described.0, described.1), (&*key.1, key.2));
        assert_eq!((described.2.options, described.2.id), (known.options, known.id));
        let removed = self.tries[shard].unsubscribe(known.at, session);
        assert!(removed.existed);
        if let Some(route) = removed.withdraw {
            assert!(self.announced[shard].remove(&name(&route)), "withdrawn without an announcement");
            self.others(shard, |trie, from| trie.withdrawn(from, route.as_route()));
        }
        if let Some(route) = removed.not_full {
            self.others(shard, |trie, from| trie.set_full(from, route.as_route(), false));
        }
        self.tell_groups(shard);
    }

    fn set_full(&mut self, input: &mut Input<'_>) {
        let full = input.below(2) == 0;
        let Some(key) = self.choose(input) else { return };
        let known = self.known.get_mut(&key).expect("chosen from them");
        let told = self.tries[key.0].local_full(known.at, key.3, full);
        known.full = full && key.2.is_none();
        if let Some((route, full)) = told {
            self.others(key.0, |trie, from| trie.set_full(from, route.as_route(), full));
        }
    }

    fn set_online(&mut self, input: &mut Input<'_>) {
        let online = input.below(2) == 0;
        let Some(key) = self.choose(input) else { return };
        let known = self.known.get_mut(&key).expect("chosen from them");
        self.tries[key.0].set_online(known.at, key.3, online);
        if key.2.is_some() {
            known.online = online;
        }
        self.tell_groups(key.0);
    }

    fn tell_groups(&mut self, shard: usize) {
        while let Some(change) = self.tries[shard].next_dirty_group() {
            self.others(shard, |trie, from| {
                trie.remote_group_count(
                    from,
                    change.route.as_route(),
                    change.key,
                    change.online,
                    change.offline,
                );
            });
        }
    }

    fn others(&mut self, from: usize, tell: impl Fn(&mut Trie, ShardId)) {
        for (_, trie) in self.tries.iter_mut().enumerate().filter(|(at, _)| *at != from) {
            tell(trie, from as ShardId);
        }
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let text = text(input, &["a", "b", "", "$SYS", "long level of a filter"]);
        let Ok(topic) = Topic::new(&text, 0) else { return };
        for me in 0..SHARDS {
            self.check(me, topic);
        }
    }

    /// What one shard knows of a topic against the lists.
    fn check(&mut self, me: usize, topic: Topic<'_>) {
        let takes = |key: &Key| Filter::of_checked(&key.1).matches(topic);
        let matching: Vec<(&Key, &Known)> = self.known.iter().filter(|(key, _)| takes(key)).collect();
        let mut routes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        let (mut shards, mut full_here, mut full_there) = (0, false, false);
        let mut groups: BTreeMap<u64, [(u32, u32); SHARDS]> = BTreeMap::new();
        for (key, known) in matching {
            match key.2 {
                Some(group) => {
                    let counts = &mut groups.entry(self.keyed.key_pair(&key.1, group)).or_default()[key.0];
                    *(if known.online { &mut counts.0 } else { &mut counts.1 }) += 1;
                }
                None if key.0 == me => {
                    routes.entry(&key.1).or_default().insert(key.3);
                    full_here |= known.full;
                }
                None => {
                    shards |= 1 << key.0;
                    full_there |= known.full;
                }
            }
        }
        let (trie, out) = (&self.tries[me], &mut self.out);
        trie.matches_local(topic.as_str(), out);
        assert_eq!(local(trie, out), routes, "{topic:?} on shard {me}");
        assert_eq!((out.shards, out.groups.len(), out.full), (0, 0, full_here));
        trie.matches(topic.as_str(), out);
        assert_eq!(local(trie, out), routes, "{topic:?} on shard {me}");
        assert_eq!((out.shards, out.full), (shards, full_here || full_there), "{topic:?} on shard {me}");
        let got: BTreeMap<u64, _> = out.groups.iter().map(|id| counts(me, &trie.group(*id))).collect();
        assert_eq!(got, groups, "{topic:?} on shard {me}");
        assert_eq!(out.groups.len(), groups.len(), "each group once");
    }
}

fn local<'a>(trie: &'a Trie, out: &Matches) -> BTreeMap<&'a str, BTreeSet<u32>> {
    let sessions = |route| trie.subscribers(route).iter().map(|sub| sub.session).collect();
    let routes: BTreeMap<_, _> =
        out.routes.iter().map(|route| (trie.filter(*route), sessions(*route))).collect();
    assert_eq!(routes.len(), out.routes.len(), "each route once");
    routes
}

/// A group's key, and its members online and offline by shard.
fn counts(me: usize, group: &GroupView<'_>) -> (u64, [(u32, u32); SHARDS]) {
    let mut counts = [(0, 0); SHARDS];
    assert_eq!(usize::from(group.here.shard), me);
    for count in group.remote.iter().chain([&group.here]) {
        counts[usize::from(count.shard)] = (count.online, count.offline);
    }
    (group.key, counts)
}

fn name(route: &RouteBuf) -> String {
    format!("{route:?}")
}
