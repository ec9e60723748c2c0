//! The levels of wildcard filters as a tree: one node per distinct prefix, all named children of all nodes in
//! one table. A node without filter and child is removed, so churn leaves nothing behind.

use super::place::Mark;
use super::slab::{NONE, Slab};
use crate::heap::allocated;
use hashbrown::HashTable;

/// Where a filter ends: `node << 1`, plus 1 where it ends in `#`.
pub(super) type Term = u32;

/// One level below its parent.
#[derive(Debug)]
pub(super) struct Node {
    /// The text of the level; empty for the root and for a `+`.
    level: Box<str>,
    /// [`NONE`]: the root.
    parent: u32,
    /// The child for `+`.
    pub(super) plus: u32,
    /// Children in the table.
    pub(super) children: u32,
    /// The filter that ends here.
    pub(super) here: Mark,
    /// The filter that goes on with `#` only.
    pub(super) hash: Mark,
}

const _: () = assert!(std::mem::size_of::<Node>() == 40);

/// The tree.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Slab<Node>,
    /// Nodes by parent and level.
    table: HashTable<u32>,
    hasher: ahash::RandomState,
    /// [`NONE`] while there is no wildcard filter at all.
    pub(super) root: u32,
    /// Bytes of the levels' texts.
    text_bytes: usize,
    /// Ends of filters.
    filters: usize,
}

impl Nodes {
    pub(super) fn new(seed: u64) -> Nodes {
        let hasher = ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed.rotate_left(41));
        Nodes { nodes: Slab::new(), table: HashTable::new(), hasher, root: NONE, text_bytes: 0, filters: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Wildcard filters that there are.
    pub(super) fn filters(&self) -> usize {
        self.filters
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes() + allocated(self.table.allocation_size()) + self.text_bytes
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index]
    }

    /// The hash of a level, the same under every parent; for [`Nodes::child`].
    pub(super) fn level_hash(&self, level: &str) -> u64 {
        self.hasher.hash_one(level)
    }

    /// The named child of a node.
    pub(super) fn child(&self, parent: u32, level: &str, level_hash: u64) -> Option<u32> {
        let same = |&index: &u32| {
            let node = &self.nodes[index];
            node.parent == parent && *node.level == *level
        };
        self.table.find(mix(parent, level_hash), same).copied()
    }

    /// Where a wildcard filter ends, if it is there.
    pub(super) fn find(&self, filter: &str) -> Option<Term> {
        let mut at = self.root;
        for level in filter.split('/') {
            if at == NONE {
                return None;
            }
            match level {
                "#" => return Some(at << 1 | 1),
                "+" => at = self.nodes[at].plus,
                _ => at = self.child(at, level, self.level_hash(level))?,
            }
        }
        (at != NONE).then_some(at << 1)
    }

    /// Where a wildcard filter ends. The nodes are made where they are missing, so a mark must follow.
    pub(super) fn open(&mut self, filter: &str) -> Term {
        if self.root == NONE {
            self.root = self.insert("", NONE);
        }
        let mut at = self.root;
        for level in filter.split('/') {
            at = match level {
                "#" => return at << 1 | 1,
                "+" => self.open_plus(at),
                _ => self.open_child(at, level),
            };
        }
        at << 1
    }

    pub(super) fn mark(&self, term: Term) -> Mark {
        let node = &self.nodes[term >> 1];
        if term & 1 == 1 { node.hash } else { node.here }
    }

    /// Sets what a filter's end says; with [`Mark::NONE`] the nodes that nothing needs go.
    pub(super) fn set_mark(&mut self, term: Term, mark: Mark) {
        let node = &mut self.nodes[term >> 1];
        let end = if term & 1 == 1 { &mut node.hash } else { &mut node.here };
        let old = std::mem::replace(end, mark);
        self.filters += usize::from(mark != Mark::NONE);
        self.filters -= usize::from(old != Mark::NONE);
        if mark == Mark::NONE {
            self.prune(term >> 1);
        }
    }

    fn insert(&mut self, level: &str, parent: u32) -> u32 {
        self.text_bytes += allocated(level.len());
        let level = Box::from(level);
        self.nodes.insert(Node { level, parent, plus: NONE, children: 0, here: Mark::NONE, hash: Mark::NONE })
    }

    fn open_plus(&mut self, at: u32) -> u32 {
        if self.nodes[at].plus == NONE {
            let plus = self.insert("", at);
            self.nodes[at].plus = plus;
        }
        self.nodes[at].plus
    }

    fn open_child(&mut self, at: u32, level: &str) -> u32 {
        let level_hash = self.level_hash(level);
        if let Some(child) = self.child(at, level, level_hash) {
            return child;
        }
        let child = self.insert(level, at);
        self.nodes[at].children += 1;
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.table.insert_unique(mix(at, level_hash), child, |&index| {
            let node = &nodes[index];
            mix(node.parent, hasher.hash_one(&*node.level))
        });
        child
    }

    /// Removes a node that nothing needs, and then its parents.
    fn prune(&mut self, mut at: u32) {
        while at != NONE {
            let node = &self.nodes[at];
            let (parent, unused) = (node.parent, node.children == 0 && node.plus == NONE);
            if !unused || node.here != Mark::NONE || node.hash != Mark::NONE {
                return;
            }
            if parent == NONE {
                self.root = NONE;
            } else if self.nodes[parent].plus == at {
                self.nodes[parent].plus = NONE;
            } else {
                let hash = mix(parent, self.level_hash(&self.nodes[at].level));
                match self.table.find_entry(hash, |&index| index == at) {
                    Ok(entry) => drop(entry.remove()),
                    Err(_) => unreachable!("a named child is in the table"),
                }
                self.nodes[parent].children -= 1;
            }
            self.text_bytes -= allocated(self.nodes[at].level.len());
            self.nodes.remove(at);
            at = parent;
        }
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        super::shrink(&mut self.table, |&index| {
            let node = &nodes[index];
            mix(node.parent, hasher.hash_one(&*node.level))
        });
    }
}

/// The hash of (node, level): a folded multiplication, so that both ends of the result depend on all bits.
fn mix(parent: u32, level_hash: u64) -> u64 {
    let spread = u64::from(parent).wrapping_add(1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let product = u128::from(level_hash ^ spread) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}
