//! Rules by topic: a tree of levels, so that a check looks at the rules whose filters match and at no others. Rules for
//! users or clients with names stand in a table of their own at each end of a filter.

use super::pattern::{Level, Part, fits};
use super::{Client, Deed, Rule};
use ahash::RandomState;
use hashbrown::HashTable;

/// The tree. Rules are named by their place in the list, and the lowest that applies is wanted.
#[derive(Debug)]
pub(super) struct Index {
    nodes: Vec<Node>,
    /// Children by text.
    edges: HashTable<Edge>,
    /// Rules about users or clients with names, by list and name.
    named: HashTable<Named>,
    lists: Vec<List>,
    hasher: RandomState,
}

/// What is known of the topics that begin with some levels.
#[derive(Debug, Default)]
struct Node {
    /// The lowest rule at or below it.
    lowest: u32,
    /// The child for any level.
    one: Option<u32>,
    /// Children for levels with a client's names in them.
    templates: Vec<(Box<[Part]>, u32)>,
    /// Rules of filters that end here.
    here: Option<u32>,
    /// Rules of filters that go on with `#`.
    rest: Option<u32>,
    /// It has children by text.
    texts: bool,
}

#[derive(Debug)]
struct Edge {
    parent: u32,
    text: Box<str>,
    child: u32,
}

/// Rules at one end, lowest first.
#[derive(Debug, Default)]
struct List {
    /// About no name.
    any: Vec<u32>,
    /// Whether there are some about users, and about clients.
    users: bool,
    clients: bool,
}

#[derive(Debug)]
struct Named {
    list: u32,
    user: bool,
    name: Box<str>,
    rules: Vec<u32>,
}

const ROOT: u32 = 0;
/// The list of rules for every topic.
const EVERYTHING: u32 = 0;

impl Index {
    pub fn new(rules: &[Rule]) -> Index {
        let root = Node { lowest: u32::MAX, ..Node::default() };
        let mut index = Index {
            nodes: vec![root],
            edges: HashTable::new(),
            named: HashTable::new(),
            lists: vec![List::default()],
            hasher: RandomState::new(),
        };
        for (number, rule) in (0..).zip(rules) {
            if rule.filters.is_empty() {
                index.add(EVERYTHING, number, rule);
            }
            for pattern in &rule.filters {
                let list = index.list_of(&pattern.levels, number);
                index.add(list, number, rule);
            }
        }
        index
    }

    /// The list at the end of a filter.
    fn list_of(&mut self, levels: &[Level], rule: u32) -> u32 {
        let mut at = ROOT;
        for level in levels {
            self.lower(at, rule);
            if *level == Level::Rest {
                let list = self.nodes[at as usize].rest;
                let list = list.unwrap_or_else(|| self.new_list());
                self.nodes[at as usize].rest = Some(list);
                return list;
            }
            at = self.child_for(at, level);
        }
        self.lower(at, rule);
        let list = self.nodes[at as usize].here;
        let list = list.unwrap_or_else(|| self.new_list());
        self.nodes[at as usize].here = Some(list);
        list
    }

    fn lower(&mut self, node: u32, rule: u32) {
        let lowest = &mut self.nodes[node as usize].lowest;
        *lowest = rule.min(*lowest);
    }

    fn new_list(&mut self) -> u32 {
        self.lists.push(List::default());
        self.lists.len() as u32 - 1
    }

    fn child_for(&mut self, at: u32, level: &Level) -> u32 {
        let known = match level {
            Level::One => self.nodes[at as usize].one,
            Level::Text(text) => self.child(at, text),
            Level::Template(parts) => self.nodes[at as usize]
                .templates
                .iter()
                .find(|(other, _)| other == parts)
                .map(|(_, child)| *child),
            Level::Rest => None,
        };
        if let Some(child) = known {
            return child;
        }
        let child = self.nodes.len() as u32;
        self.nodes.push(Node { lowest: u32::MAX, ..Node::default() });
        let node = &mut self.nodes[at as usize];
        match level {
            Level::One => node.one = Some(child),
            Level::Template(parts) => node.templates.push((parts.clone(), child)),
            Level::Text(text) => {
                node.texts = true;
                let hasher = &self.hasher;
                let edge = Edge { parent: at, text: text.clone(), child };
                let hash = |edge: &Edge| hasher.hash_one((edge.parent, &*edge.text));
                self.edges.insert_unique(hash(&edge), edge, hash);
            }
            Level::Rest => {}
        }
        child
    }

    fn child(&self, parent: u32, text: &str) -> Option<u32> {
        let same = |edge: &Edge| edge.parent == parent && *edge.text == *text;
        self.edges.find(self.hasher.hash_one((parent, text)), same).map(|edge| edge.child)
    }

    fn add(&mut self, list: u32, number: u32, rule: &Rule) {
        let names = if rule.who.users.is_empty() { &rule.who.clients } else { &rule.who.users };
        let user = !rule.who.users.is_empty();
        let entry = &mut self.lists[list as usize];
        if names.is_empty() {
            return push(&mut entry.any, number);
        }
        if user {
            entry.users = true;
        } else {
            entry.clients = true;
        }
        for name in names {
            let hasher = &self.hasher;
            let hash = hasher.hash_one((list, user, &**name));
            let same = |n: &Named| n.list == list && n.user == user && n.name == *name;
            if let Some(known) = self.named.find_mut(hash, same) {
                push(&mut known.rules, number);
                continue;
            }
            let named = Named { list, user, name: name.clone(), rules: vec![number] };
            self.named.insert_unique(hash, named, |n| hasher.hash_one((n.list, n.user, &*n.name)));
        }
    }

    /// The first rule that applies to this deed on a topic.
    pub fn first<'r>(
        &self,
        rules: &'r [Rule],
        client: &Client,
        deed: &Deed,
        topic: &str,
    ) -> Option<&'r Rule> {
        let mut search = Search { index: self, rules, client, deed, best: u32::MAX };
        search.consider(EVERYTHING);
        search.enter(ROOT, Some(topic), topic.starts_with('$'));
        rules.get(search.best as usize)
    }
}

/// A list stays in order; a rule with two filters that end alike stands in it once.
fn push(list: &mut Vec<u32>, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

struct Search<'a> {
    index: &'a Index,
    rules: &'a [Rule],
    client: &'a Client<'a>,
    deed: &'a Deed<'a>,
    /// The lowest rule so far.
    best: u32,
}

impl Search<'_> {
    /// Looks at a node with the levels that are left; none where there is not even an empty one. `system`: the topic
    /// begins with `$`, and this is its first level.
    fn enter(&mut self, node: u32, left: Option<&str>, system: bool) {
        let node_at = node;
        let node = &self.index.nodes[node as usize];
        if node.lowest >= self.best {
            return;
        }
        if let Some(list) = node.rest.filter(|_| !system) {
            self.consider(list);
        }
        let Some(left) = left else {
            if let Some(list) = node.here {
                self.consider(list);
            }
            return;
        };
        let (level, left) = left.split_once('/').map_or((left, None), |(level, left)| (level, Some(left)));
        if node.texts
            && let Some(child) = self.index.child(node_at, level)
        {
            self.enter(child, left, false);
        }
        if let Some(child) = node.one.filter(|_| !system) {
            self.enter(child, left, false);
        }
        for (parts, child) in &node.templates {
            if fits(parts, level, self.client) {
                self.enter(*child, left, false);
            }
        }
    }

    fn consider(&mut self, number: u32) {
        let list = &self.index.lists[number as usize];
        self.first_of(&list.any);
        if list.users
            && let Some(user) = self.client.user
        {
            self.named(number, true, user);
        }
        if list.clients {
            self.named(number, false, self.client.id);
        }
    }

    fn named(&mut self, list: u32, user: bool, name: &str) {
        let index = self.index;
        let same = |n: &Named| n.list == list && n.user == user && *n.name == *name;
        if let Some(named) = index.named.find(index.hasher.hash_one((list, user, name)), same) {
            self.first_of(&named.rules);
        }
    }

    fn first_of(&mut self, numbers: &[u32]) {
        let before = numbers.iter().take_while(|number| **number < self.best);
        let holds = |number: &&u32| self.rules[**number as usize].holds(self.client, self.deed);
        if let Some(number) = before.copied().find(|number| holds(&number)) {
            self.best = number;
        }
    }
}
