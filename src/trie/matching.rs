//! Topic → local routes, other shards and share groups.

use super::place::{Mark, Marked};
use super::slab::NONE;
use super::{GroupId, RouteId, Trie};

/// What a topic matched. Reused from message to message, so that matching allocates nothing.
#[derive(Debug, Default)]
pub struct Matches {
    /// Local routes that have ordinary subscribers.
    pub routes: Vec<RouteId>,
    /// Other shards that have an ordinary subscriber, a bit each.
    pub shards: u64,
    /// Share groups that have a member on any shard.
    pub groups: Vec<GroupId>,
    /// Whether a matched route is full, so that a publisher must be refused [D9, `reject`].
    pub full: bool,
    /// Nodes that the levels so far lead to, and those one level deeper.
    frontier: [Vec<u32>; 2],
}

impl Matches {
    /// Whether nobody wants the message.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.shards == 0 && self.groups.is_empty()
    }

    fn clear(&mut self) {
        self.routes.clear();
        self.groups.clear();
        self.shards = 0;
        self.full = false;
    }
}

impl Trie {
    /// Finds all who want a message to `topic`, a topic name. Costs one probe for the exact filters and, where
    /// there are wildcards, one per level and matching prefix, however many filters there are.
    pub fn matches(&self, topic: &str, out: &mut Matches) {
        self.walk(topic, true, out);
    }

    /// Finds the local routes for a message that another shard sent here. `shards` and `groups` stay empty;
    /// `full` tells of local routes only.
    pub fn matches_local(&self, topic: &str, out: &mut Matches) {
        self.walk(topic, false, out);
    }

    fn walk(&self, topic: &str, all: bool, out: &mut Matches) {
        out.clear();
        if !self.exact.is_empty() {
            self.visit(self.exact_mark(self.key(topic)), Some(topic), all, out);
        }
        if self.nodes.root != NONE {
            let mut frontier = std::mem::take(&mut out.frontier);
            self.walk_nodes(topic, all, &mut frontier, out);
            out.frontier = frontier;
        }
    }

    /// Level by level, without recursion: a filter may have 32,768 levels.
    fn walk_nodes(&self, topic: &str, all: bool, [now, next]: &mut [Vec<u32>; 2], out: &mut Matches) {
        let system = topic.starts_with('$');
        now.clear();
        now.push(self.nodes.root);
        // A leading wildcard does not match a `$` topic [MQTT-4.7.2-1].
        let mut wildcards = !system;
        let mut rest = Some(topic);
        while let Some(levels) = rest {
            // Levels are short: a plain loop over bytes beats a search.
            let (level, behind) = match levels.bytes().position(|b| b == b'/') {
                Some(at) => (&levels[..at], Some(&levels[at + 1..])),
                None => (levels, None),
            };
            rest = behind;
            let level_hash = self.nodes.level_hash(level);
            next.clear();
            for &at in now.iter() {
                let node = self.nodes.node(at);
                if wildcards {
                    self.visit(node.hash, None, all, out);
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if node.children > 0
                    && let Some(child) = self.nodes.child(at, level, level_hash)
                {
                    next.push(child);
                }
            }
            std::mem::swap(now, next);
            if now.is_empty() {
                return;
            }
            wildcards = true;
        }
        for &at in now.iter() {
            let node = self.nodes.node(at);
            self.visit(node.here, None, all, out);
            // `a/#` matches `a` too: `#` stands for any number of levels, the parent included [MQTT-4.7.1.2].
            self.visit(node.hash, None, all, out);
        }
    }

    /// Takes what is at a place. `exact` is the topic where only its key was compared so far.
    fn visit(&self, mark: Mark, exact: Option<&str>, all: bool, out: &mut Matches) {
        match mark.open() {
            Marked::None => {}
            Marked::Route(first) => self.visit_routes(first, exact, out),
            Marked::Remote(shards) if all => out.shards |= shards,
            Marked::Remote(_) => {}
            Marked::Place(index) => {
                let place = self.places[index];
                self.visit_routes(place.routes, exact, out);
                if all {
                    out.shards |= place.remote;
                    out.full |= place.full != 0;
                    self.visit_groups(place.groups, exact, out);
                }
            }
        }
    }

    fn visit_routes(&self, first: u32, exact: Option<&str>, out: &mut Matches) {
        let mut next = first;
        while next != NONE {
            let route = &self.routes[next];
            if !route.subs.is_empty() && exact.is_none_or(|topic| *route.text == *topic) {
                out.routes.push(RouteId(next));
                out.full |= route.full > 0;
            }
            next = route.next;
        }
    }

    fn visit_groups(&self, first: u32, exact: Option<&str>, out: &mut Matches) {
        let mut next = first;
        while next != NONE {
            let group = &self.groups[next];
            if group.has_members() && self.group_takes(group, exact) {
                out.groups.push(GroupId(next));
            }
            next = group.next;
        }
    }
}
