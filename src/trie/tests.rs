//! The trie against a list of filters and [`Filter::matches`], under seeded churn.

use super::*;
use crate::topic::{Filter, Topic, parse_subscription};
use std::collections::{BTreeMap, BTreeSet};

const SHARDS: usize = 40;
const ME: ShardId = 3;

fn trie(key_mask: u64) -> Trie {
    Trie::new(ME, SHARDS, Keyed::new(42)).with_key_mask(key_mask)
}

fn to(text: &str) -> Subscribed<'_> {
    parse_subscription(text, 0).expect("a valid subscription")
}

fn sub(session: u32) -> Sub {
    Sub::new(session, SubOptions::default(), 0)
}

fn matched(trie: &Trie, topic: &str) -> Vec<String> {
    let mut out = Matches::default();
    trie.matches(topic, &mut out);
    let mut filters: Vec<String> = out.routes.iter().map(|&route| trie.filter(route).to_owned()).collect();
    filters.sort();
    filters
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn levels(&mut self, alphabet: &[&str], hash: bool) -> String {
        let depth = if self.below(50) == 0 { 40 } else { 1 + self.below(4) };
        let mut levels: Vec<&str> = (0..depth).map(|_| alphabet[self.below(alphabet.len())]).collect();
        if hash && self.below(4) == 0 {
            levels.push("#");
        }
        if self.below(8) == 0 {
            levels[0] = "$SYS";
        }
        let text = levels.join("/");
        if text.is_empty() { "/".to_owned() } else { text }
    }

    fn topic(&mut self) -> String {
        self.levels(&["a", "b", ""], false)
    }

    fn filter(&mut self) -> String {
        self.levels(&["a", "b", "", "+"], true)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Known {
    at: SubRef,
    sub: Sub,
    full: bool,
    online: bool,
}

/// Filter, share name or nothing, session.
type SubKey = (String, Option<String>, u32);

/// The naive model: every subscription and every remote fact in a list.
#[derive(Default)]
struct Model {
    local: BTreeMap<SubKey, Known>,
    /// (filter, shard) → full.
    remote: BTreeMap<(RouteText, ShardId), bool>,
    /// (filter, share name, shard) → online, offline.
    counts: BTreeMap<(String, String, ShardId), (u32, u32)>,
    announced: BTreeSet<RouteText>,
    told_full: BTreeSet<RouteText>,
    told_counts: BTreeMap<u64, (RouteText, u32, u32)>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum RouteText {
    Exact(u64),
    Wild(String),
}

impl RouteText {
    fn of(trie: &Trie, filter: &str) -> RouteText {
        match Filter::of_checked(filter).is_exact() {
            true => RouteText::Exact(trie.key(filter)),
            false => RouteText::Wild(filter.to_owned()),
        }
    }

    fn from(route: RouteBuf) -> RouteText {
        match route {
            RouteBuf::Exact(key) => RouteText::Exact(key),
            RouteBuf::Wild(text) => RouteText::Wild(text.to_string()),
        }
    }

    fn route(&self) -> Route<'_> {
        match self {
            RouteText::Exact(key) => Route::Exact(*key),
            RouteText::Wild(text) => Route::Wild(text),
        }
    }

    fn takes(&self, trie: &Trie, topic: &str) -> bool {
        match self {
            RouteText::Exact(key) => *key == trie.key(topic),
            RouteText::Wild(text) => Filter::of_checked(text).matches(Topic::of_checked(topic)),
        }
    }
}

impl Model {
    fn subscribe(&mut self, trie: &mut Trie, random: &mut Random) {
        let (filter, session) = (random.filter(), random.below(30) as u32);
        let name = (random.below(3) == 0).then(|| ["g", "h"][random.below(2)].to_owned());
        let sub = Sub::new(session, SubOptions::new(random.below(3) as u8, false, true, 0), 9);
        let to = Subscribed { group: name.as_deref(), filter: Filter::of_checked(&filter) };
        let added = trie.subscribe(&to, sub);
        if let Some(route) = added.announce {
            assert!(self.announced.insert(RouteText::from(route)), "announced twice");
        }
        assert_eq!(trie.find(&to), Some(added.sub));
        let known = self.local.entry((filter, name, session));
        assert_eq!(added.existed, matches!(known, std::collections::btree_map::Entry::Occupied(_)));
        let known = known.or_insert(Known { at: added.sub, sub, full: false, online: true });
        assert_eq!(known.at, added.sub);
        known.sub = sub;
    }

    fn pick(&self, random: &mut Random) -> Option<(SubKey, Known)> {
        let at = random.below(self.local.len().max(1));
        self.local.iter().nth(at).map(|(key, known)| (key.clone(), *known))
    }

    fn unsubscribe(&mut self, trie: &mut Trie, random: &mut Random) {
        let Some((key, known)) = self.pick(random) else { return };
        let (filter, group, got) = trie.describe(known.at, key.2).expect("it is subscribed");
        assert_eq!((filter, group), (&*key.0, key.1.as_deref()));
        assert_eq!((got.options, got.id, got.full), (known.sub.options, 9, known.full));
        let removed = trie.unsubscribe(known.at, key.2);
        assert!(removed.existed);
        if let Some(route) = removed.withdraw {
            let route = RouteText::from(route);
            assert!(self.announced.remove(&route), "withdrawn without an announcement");
            self.told_full.remove(&route);
        }
        if let Some(route) = removed.not_full {
            assert!(self.told_full.remove(&RouteText::from(route)), "not full without having been full");
        }
        self.local.remove(&key);
    }

    fn change(&mut self, trie: &mut Trie, random: &mut Random) {
        let Some((key, mut known)) = self.pick(random) else { return };
        if key.1.is_some() {
            known.online = random.below(2) == 0;
            trie.set_online(known.at, key.2, known.online);
            assert_eq!(trie.local_full(known.at, key.2, true), None);
        } else {
            known.full = random.below(2) == 0;
            if let Some((route, full)) = trie.local_full(known.at, key.2, known.full) {
                let route = RouteText::from(route);
                let changed = if full { self.told_full.insert(route) } else { self.told_full.remove(&route) };
                assert!(changed, "told what was told before");
            }
        }
        self.local.insert(key, known);
    }

    fn hear(&mut self, trie: &mut Trie, random: &mut Random) {
        let filter = random.filter();
        let from = [0, 1, 2, 29, 30, 31, 39][random.below(7)];
        let route = RouteText::of(trie, &filter);
        let key = (route.clone(), from);
        match random.below(6) {
            0 | 1 => {
                trie.announced(from, route.route());
                self.remote.entry(key).or_insert(false);
            }
            2 => {
                trie.withdrawn(from, route.route());
                self.remote.remove(&key);
            }
            3 => {
                let full = random.below(2) == 0;
                trie.set_full(from, route.route(), full);
                self.remote.entry(key).and_modify(|known| *known = full);
            }
            _ => {
                let name = ["g", "h"][random.below(2)];
                let counts = (random.below(2) as u32, random.below(2) as u32);
                let group = trie.keyed.key_pair(&filter, name);
                trie.remote_group_count(from, route.route(), group, counts.0, counts.1);
                self.counts.insert((filter, name.to_owned(), from), counts);
                self.counts.retain(|_, counts| *counts != (0, 0));
            }
        }
    }

    fn forget(&mut self, trie: &mut Trie, random: &mut Random) {
        if let Some(key) = self.remote.keys().nth(random.below(self.remote.len().max(1))).cloned() {
            trie.withdrawn(key.1, key.0.route());
            self.remote.remove(&key);
        }
        if let Some(key) = self.counts.keys().nth(random.below(self.counts.len().max(1))).cloned() {
            let (filter, name, from) = &key;
            let group = trie.keyed.key_pair(filter, name);
            trie.remote_group_count(*from, RouteText::of(trie, filter).route(), group, 0, 0);
            self.counts.remove(&key);
        }
    }

    fn groups(&self) -> BTreeSet<(String, String)> {
        let here = self.local.keys().filter_map(|(filter, name, _)| Some((filter.clone(), name.clone()?)));
        here.chain(self.counts.keys().map(|(filter, name, _)| (filter.clone(), name.clone()))).collect()
    }

    fn local_counts(&self, filter: &str, name: &str) -> (u32, u32) {
        let members = self.local.iter().filter(|(key, _)| key.0 == filter && key.1.as_deref() == Some(name));
        let (online, offline): (Vec<_>, Vec<_>) = members.partition(|(_, known)| known.online);
        (online.len() as u32, offline.len() as u32)
    }

    /// What was told to other shards is what they must know.
    fn check_told(&mut self, trie: &mut Trie) {
        for change in trie.take_dirty_groups() {
            let told = (RouteText::from(change.route), change.online, change.offline);
            assert_ne!(self.told_counts.insert(change.key, told.clone()), Some(told), "told twice");
        }
        self.told_counts.retain(|_, told| (told.1, told.2) != (0, 0));
        let ordinary = || self.local.iter().filter(|(key, _)| key.1.is_none());
        let routes = ordinary().map(|(key, _)| RouteText::of(trie, &key.0)).collect();
        assert_eq!(self.announced, routes);
        let full = ordinary().filter(|(_, known)| known.full);
        assert_eq!(self.told_full, full.map(|(key, _)| RouteText::of(trie, &key.0)).collect());
        let mut expected = BTreeMap::new();
        for (filter, name) in self.groups() {
            let (online, offline) = self.local_counts(&filter, &name);
            if (online, offline) != (0, 0) {
                let key = trie.keyed.key_pair(&filter, &name);
                expected.insert(key, (RouteText::of(trie, &filter), online, offline));
            }
        }
        assert_eq!(self.told_counts, expected);
        assert_eq!(trie.stats().subscriptions, self.local.len());
        let filters: BTreeSet<&str> = self.local.keys().map(|key| &*key.0).collect();
        assert_eq!(trie.stats().filters, filters.len());
        assert_eq!(trie.stats().groups, self.groups().len());
    }

    fn check_topic(&self, trie: &Trie, topic: &str, out: &mut Matches) {
        let name = Topic::of_checked(topic);
        let takes = |filter: &str| Filter::of_checked(filter).matches(name);
        let mut routes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        let mut local_full = false;
        for ((filter, group, session), known) in &self.local {
            if group.is_none() && takes(filter) {
                routes.entry(filter).or_default().insert(*session);
                local_full |= known.full;
            }
        }
        let here = |out: &Matches| -> BTreeMap<String, BTreeSet<u32>> {
            let sessions = |route| trie.subscribers(route).iter().map(|sub| sub.session).collect();
            let got = out.routes.iter().map(|&route| (trie.filter(route).to_owned(), sessions(route)));
            let map: BTreeMap<_, _> = got.collect();
            assert_eq!(map.len(), out.routes.len(), "a route matched twice");
            map
        };
        let routes: BTreeMap<String, _> = routes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        trie.matches_local(topic, out);
        assert_eq!((here(out), out.full), (routes.clone(), local_full), "{topic}");
        assert!(out.shards == 0 && out.groups.is_empty());

        trie.matches(topic, out);
        assert_eq!(here(out), routes, "{topic}");
        let remote = || self.remote.iter().filter(|((route, _), _)| route.takes(trie, topic));
        assert_eq!(out.shards, remote().fold(0, |bits, ((_, from), _)| bits | 1 << from), "{topic}");
        assert_eq!(out.full, local_full || remote().any(|(_, &full)| full), "{topic}");
        let mut expected = BTreeSet::new();
        for (filter, name) in self.groups() {
            let here = self.local_counts(&filter, &name) != (0, 0);
            if takes(&filter) || !here && RouteText::of(trie, &filter).takes(trie, topic) {
                expected.insert(trie.keyed.key_pair(&filter, &name));
                self.check_group(trie, topic, &filter, &name, out);
            }
        }
        let groups: BTreeSet<u64> = out.groups.iter().map(|&id| trie.group(id).key).collect();
        assert_eq!((groups, out.groups.len()), (expected.clone(), expected.len()), "{topic}");
    }

    fn check_group(&self, trie: &Trie, topic: &str, filter: &str, name: &str, out: &Matches) {
        let key = trie.keyed.key_pair(filter, name);
        let id = *out.groups.iter().find(|&&id| trie.group(id).key == key).expect("the group matched");
        let (view, members) = (trie.group(id), trie.members(id));
        let (online, offline) = self.local_counts(filter, name);
        assert_eq!((view.here.online, view.here.offline), (online, offline));
        assert_eq!((members.online.len(), members.offline.len()), (online as usize, offline as usize));
        for (list, online) in [(members.online, true), (members.offline, false)] {
            for member in list {
                let known = &self.local[&(filter.to_owned(), Some(name.to_owned()), member.session)];
                assert_eq!((known.online, known.sub), (online, *member));
                assert_eq!((known.at, known.at.group()), (SubRef::from(id), Some(id)));
            }
        }
        let is_local = (online, offline) != (0, 0);
        assert_eq!(view.local, is_local.then_some((filter, name)));
        assert_eq!(trie.group_by_key(key, topic), is_local.then_some(id));
        let mut remote: Vec<_> = view.remote.to_vec();
        remote.sort_by_key(|count| count.shard);
        let of_group = self.counts.iter().filter(|((f, n, _), _)| f == filter && n == name);
        let counts = of_group
            .map(|((_, _, shard), &(online, offline))| ShardCount { shard: *shard, online, offline })
            .collect::<Vec<_>>();
        assert_eq!(remote, counts);
    }
}

fn churn(seed: u64, key_mask: u64, steps: usize) {
    let mut trie = trie(key_mask);
    let empty = trie.stats();
    let (mut model, mut random) = (Model::default(), Random(seed));
    let mut out = Matches::default();
    for step in 0..steps {
        let growing = step / 400 % 2 == 0;
        match random.below(10) {
            0..4 if growing => model.subscribe(&mut trie, &mut random),
            0..4 => model.unsubscribe(&mut trie, &mut random),
            4 => model.subscribe(&mut trie, &mut random),
            5 => model.unsubscribe(&mut trie, &mut random),
            6 => model.change(&mut trie, &mut random),
            7 if !growing => model.forget(&mut trie, &mut random),
            _ => model.hear(&mut trie, &mut random),
        }
        if random.below(4) == 0 {
            model.check_told(&mut trie);
            for _ in 0..4 {
                let topic = random.topic();
                model.check_topic(&trie, &topic, &mut out);
            }
        }
    }
    while !model.local.is_empty() {
        model.unsubscribe(&mut trie, &mut random);
    }
    while !(model.remote.is_empty() && model.counts.is_empty()) {
        model.forget(&mut trie, &mut random);
    }
    model.check_told(&mut trie);
    assert_eq!(trie.stats(), empty, "churn left something behind, seed {seed}");
}

#[test]
fn agrees_with_a_naive_matcher() {
    for seed in 1..=6 {
        churn(seed, u64::MAX, 4_000);
    }
}

#[test]
fn agrees_with_a_naive_matcher_when_keys_collide() {
    for seed in 1..=6 {
        churn(seed, 1, 4_000);
    }
    churn(7, 0, 2_000);
}

#[test]
fn announcements_count_filters_per_key() {
    let mut trie = trie(0);
    let one = trie.subscribe(&to("a"), sub(1));
    assert_eq!(one.announce, Some(RouteBuf::Exact(0)));
    let two = trie.subscribe(&to("b"), sub(1));
    assert_eq!(two.announce, None, "the key was announced for `a`");
    assert_eq!(matched(&trie, "b"), ["b"], "local filters are compared in full");
    assert_eq!(trie.unsubscribe(one.sub, 1).withdraw, None);
    assert_eq!(trie.unsubscribe(two.sub, 2), Removed::default(), "session 2 is not subscribed");
    assert_eq!(trie.unsubscribe(two.sub, 1).withdraw, Some(RouteBuf::Exact(0)));
}

#[test]
fn mqtt_3_8_4_3_a_second_subscribe_replaces_the_options() {
    let mut trie = trie(u64::MAX);
    let first = trie.subscribe(&to("a/+"), sub(1));
    assert_eq!(first.announce, Some(RouteBuf::Wild("a/+".into())));
    let again = trie.subscribe(&to("a/+"), Sub::new(1, SubOptions::new(2, true, false, 0), 7));
    assert_eq!((again.sub, again.existed, again.announce), (first.sub, true, None));
    let (_, _, got) = trie.describe(first.sub, 1).expect("subscribed");
    assert_eq!((got.options.qos(), got.options.no_local(), got.id), (2, true, 7));
    let shared = trie.subscribe(&to("$share/g/a/+"), sub(1));
    assert!(!shared.existed && shared.sub.is_shared(), "a shared subscription is another one");
}

#[test]
fn the_deepest_filters_need_no_stack() {
    let mut trie = trie(u64::MAX);
    let empty = trie.stats();
    let (names, pluses) = ("a/".repeat(32_767), "+/".repeat(32_767));
    let filters = [names.clone() + "#", pluses.clone() + "+", pluses + "#", "#".to_owned()];
    let subs: Vec<SubRef> = filters.iter().map(|filter| trie.subscribe(&to(filter), sub(1)).sub).collect();
    assert_eq!(matched(&trie, &(names.clone() + "a")).len(), 4);
    assert_eq!(matched(&trie, &names[..65_533]).len(), 3, "all but the one that is a level longer");
    assert_eq!(matched(&trie, "a"), ["#"]);
    for sub in subs {
        assert!(trie.unsubscribe(sub, 1).existed);
    }
    assert_eq!(trie.stats(), empty);
}

#[test]
fn memory_of_an_exact_filter() {
    let mut trie = trie(u64::MAX);
    const COUNT: usize = 100_000;
    for n in 0..COUNT {
        trie.subscribe(&to(&format!("device/{n:09}")), sub(n as u32));
    }
    let local = trie.stats().bytes() / COUNT;
    assert!(local <= 48 + 16 + 30, "route, text and slots: {local} bytes a filter");
    for n in 0..COUNT {
        trie.announced(0, Route::Exact((n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    }
    let remote = trie.stats().bytes() / COUNT - local;
    assert!(remote <= 34, "a slot: {remote} bytes a remote filter");
}

#[test]
fn a_filter_of_many_subscribers_is_one_slice() {
    let mut trie = trie(u64::MAX);
    let name = (0..1000).map(|n| trie.subscribe(&to("a"), sub(n)).sub).last().expect("a thousand");
    let mut out = Matches::default();
    trie.matches("a", &mut out);
    assert_eq!(trie.subscribers(out.routes[0]).len(), 1000);
    for session in (0..1000).rev().step_by(2) {
        assert!(trie.unsubscribe(name, session).existed);
    }
    let mut left: Vec<u32> = trie.subscribers(out.routes[0]).iter().map(|sub| sub.session).collect();
    left.sort_unstable();
    let name = SubRef::from(out.routes[0]);
    assert!(trie.describe(name, 998).is_some() && trie.describe(name, 999).is_none());
    assert_eq!(left, (0..1000).step_by(2).collect::<Vec<u32>>());
}

#[test]
fn mqtt_4_7_2_1_leading_wildcards_skip_system_topics() {
    let mut trie = trie(u64::MAX);
    for filter in ["#", "+/#", "+/a", "$SYS/#", "$SYS/+"] {
        trie.subscribe(&to(filter), sub(1));
    }
    assert_eq!(matched(&trie, "$SYS/a"), ["$SYS/#", "$SYS/+"]);
    assert_eq!(matched(&trie, "a/$SYS"), ["#", "+/#"]);
}
