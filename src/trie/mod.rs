//! Who subscribes: the sessions of this shard by filter, and which other shards have subscribers at all.
//!
//! A filter without wildcards is known to other shards by a 64-bit key, one with wildcards by its text. What a
//! shard says of an ordinary subscription is one bit per key or text: [`Trie::subscribe`] and
//! [`Trie::unsubscribe`] return what there is to announce, and the others feed it to [`Trie::announced`] and
//! [`Trie::withdrawn`]. Share groups are announced as counts of members, coalesced: [`Trie::next_dirty_group`].
//!
//! Layout: a table of exact filters by key, a tree of levels for those with wildcards (`nodes`); both lead to
//! a `place`, four bytes where it is simple; local filters are routes in a slab with their subscribers.
//!
//! Invariants:
//! - A place is there if a local route, a remote bit or a group is at it; a node if it has a place or a child.
//! - A local route is compared in full, so two filters that share a key never get each other's messages. A
//!   remote key is not: it costs one wasted hop.
//! - A group has a local route while it has local members or a change that was not announced yet.
//!
//! Traps: [`RouteId`] and [`GroupId`] are indices and are reused, and a removal moves the last subscriber of a
//! list to where the removed one was: whoever walks a list in parts must not let the trie change in between.
//! How much there may be is not known here: sessions bound their subscriptions, the ledger adds up
//! [`Trie::stats`].

mod groups;
mod listing;
mod matching;
mod nodes;
mod place;
mod replica;
pub(crate) mod slab;
mod subs;
#[cfg(test)]
mod tests;

pub use groups::{GroupChange, GroupView, Members, ShardCount};
pub use matching::Matches;
pub use subs::{Sub, SubOptions};

use crate::heap::{allocated, vec_bytes};
use crate::io::ShardId;
use crate::limits::SHARDS_MAX;
use crate::map::Keyed;
use crate::topic::Subscribed;
use groups::Group;
use hashbrown::HashTable;
use nodes::{Nodes, Term};
use place::{Exact, Place, Spot};
use slab::{NONE, Slab};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use subs::Subs;

/// What shards call a filter among themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Route<'a> {
    /// The key of a filter without wildcards.
    Exact(u64),
    /// The text of a filter with wildcards.
    Wild(&'a str),
}

/// A [`Route`] that owns its text.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum RouteBuf {
    /// The key of a filter without wildcards.
    Exact(u64),
    /// The text of a filter with wildcards.
    Wild(Arc<str>),
}

impl RouteBuf {
    /// Borrows it.
    pub fn as_route(&self) -> Route<'_> {
        match self {
            RouteBuf::Exact(key) => Route::Exact(*key),
            RouteBuf::Wild(text) => Route::Wild(text),
        }
    }
}

/// Names a filter, or a filter and share name, that a session subscribed to. Valid while any session of this
/// shard is subscribed to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SubRef(NonZeroU32);

/// What a [`SubRef`] names.
enum Target {
    Route(u32),
    Group(u32),
}

const GROUP_BIT: u32 = 1 << 31;

impl SubRef {
    fn new(target: &Target) -> SubRef {
        let bits = match *target {
            Target::Route(index) => index,
            Target::Group(index) => index | GROUP_BIT,
        };
        SubRef(NonZeroU32::MIN.saturating_add(bits))
    }

    fn target(self) -> Target {
        let bits = self.0.get() - 1;
        if bits & GROUP_BIT == 0 { Target::Route(bits) } else { Target::Group(bits & !GROUP_BIT) }
    }

    /// Whether it names a share group.
    pub fn is_shared(self) -> bool {
        self.group().is_some()
    }

    /// The share group that it names.
    pub fn group(self) -> Option<GroupId> {
        match self.target() {
            Target::Group(group) => Some(GroupId(group)),
            Target::Route(_) => None,
        }
    }
}

const _: () = assert!(std::mem::size_of::<Option<SubRef>>() == 4);

impl From<RouteId> for SubRef {
    /// With [`Trie::describe`]: whether a session that was seen in a list is still subscribed.
    fn from(route: RouteId) -> SubRef {
        SubRef::new(&Target::Route(route.0))
    }
}

impl From<GroupId> for SubRef {
    fn from(group: GroupId) -> SubRef {
        SubRef::new(&Target::Group(group.0))
    }
}

/// A local filter, from [`Matches`]. Valid until the trie changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RouteId(u32);

/// A share group, from [`Matches`]. Valid until the trie changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct GroupId(u32);

/// The outcome of [`Trie::subscribe`].
#[derive(PartialEq, Eq, Debug)]
pub struct Added {
    /// For the session to keep.
    pub sub: SubRef,
    /// The session was subscribed already; options and identifier were replaced [MQTT-3.8.4-3].
    pub existed: bool,
    /// To be announced to all other shards before SUBACK leaves.
    pub announce: Option<RouteBuf>,
}

/// The outcome of [`Trie::unsubscribe`].
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// The session was subscribed.
    pub existed: bool,
    /// To be withdrawn from all other shards before UNSUBACK leaves; says "not full" as well.
    pub withdraw: Option<RouteBuf>,
    /// The session was the last full one of this route, which keeps other subscribers: to be told to all
    /// other shards as "not full".
    pub not_full: Option<RouteBuf>,
}

/// What is looked at each tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Local subscriptions, memberships of share groups included.
    pub subscriptions: usize,
    /// Local memberships of share groups.
    pub shared: usize,
    /// Filters, here or on other shards.
    pub topics: usize,
}

/// What the trie holds, for metrics and the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Local filters.
    pub filters: usize,
    /// Local subscriptions, memberships of share groups included.
    pub subscriptions: usize,
    /// Keys of exact filters, here or on other shards.
    pub exact_keys: usize,
    /// Nodes of the tree of wildcard filters.
    pub nodes: usize,
    /// Share groups, here or on other shards.
    pub groups: usize,
    /// Bytes of local filters and their subscribers, share groups' members included.
    pub filter_bytes: usize,
    /// Bytes of what is known by key: of exact filters, here or on other shards.
    pub route_bytes: usize,
    /// Bytes of the tree of wildcard filters.
    pub level_bytes: usize,
    /// Bytes of the tables of share groups.
    pub group_bytes: usize,
}

impl Stats {
    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.filter_bytes + self.route_bytes + self.level_bytes + self.group_bytes
    }
}

/// A local filter.
#[derive(Debug)]
struct RouteEntry {
    text: Box<str>,
    subs: Subs,
    /// Subscribers that are full.
    full: u32,
    /// The next local filter with the same key.
    next: u32,
    /// Where it ends; [`NONE`] without wildcards.
    term: Term,
    /// Share groups that have this route.
    groups: u32,
}

const _: () = assert!(std::mem::size_of::<RouteEntry>() == 48);

/// The routing table of one shard.
#[derive(Debug)]
pub struct Trie {
    me: ShardId,
    shards: usize,
    keyed: Keyed,
    exact: HashTable<Exact>,
    nodes: Nodes,
    places: Slab<Place>,
    routes: Slab<RouteEntry>,
    groups: Slab<Group>,
    /// Groups by key.
    by_key: HashTable<u32>,
    /// Groups whose local counts changed, each at most once.
    dirty: VecDeque<u32>,
    subscriptions: usize,
    /// Those of them that are memberships of share groups.
    shared: usize,
    /// Bytes that routes and groups own on the heap.
    heap_bytes: usize,
    /// Bits of a key that count.
    key_mask: u64,
}

impl Trie {
    /// The routing table of shard `me` of `shards`, at most 64. `keyed` is the same on all shards.
    pub fn new(me: ShardId, shards: usize, keyed: Keyed) -> Trie {
        assert!(shards <= SHARDS_MAX && usize::from(me) < shards, "shard {me} of {shards}");
        Trie {
            me,
            shards,
            exact: HashTable::new(),
            nodes: Nodes::new(keyed.key("levels of wildcard filters")),
            keyed,
            places: Slab::new(),
            routes: Slab::new(),
            groups: Slab::new(),
            by_key: HashTable::new(),
            dirty: VecDeque::new(),
            subscriptions: 0,
            shared: 0,
            heap_bytes: 0,
            key_mask: u64::MAX,
        }
    }

    /// Lets only these bits of a key count, the same on all shards: filters that share a key are rare otherwise,
    /// and tests want many.
    pub fn with_key_mask(self, key_mask: u64) -> Trie {
        Trie { key_mask, ..self }
    }

    /// Subscribes a session, or replaces the options of its subscription. A new member of a share group counts
    /// as online.
    pub fn subscribe(&mut self, to: &Subscribed<'_>, sub: Sub) -> Added {
        let text = to.filter.as_str();
        let spot = if to.filter.is_exact() {
            Spot::Exact(self.key(text))
        } else {
            Spot::Wild(self.nodes.open(text))
        };
        let route = match self.find_route(spot, text) {
            Some(route) => route,
            None => self.insert_route(spot, text),
        };
        if let Some(name) = to.group {
            let (group, existed) = self.join(route, spot, name, sub);
            return Added { sub: SubRef::new(&Target::Group(group)), existed, announce: None };
        }
        let entry = &mut self.routes[route];
        let name = SubRef::new(&Target::Route(route));
        if let Some(at) = entry.subs.position(sub.session) {
            let old = entry.subs.at_mut(at);
            *old = Sub { full: old.full, ..sub };
            return Added { sub: name, existed: true, announce: None };
        }
        let first = entry.subs.is_empty();
        resized(&mut self.heap_bytes, &mut entry.subs, |subs| subs.push(Sub { full: false, ..sub }));
        self.subscriptions += 1;
        let announce = (first && self.others_empty(spot, route)).then(|| self.route_buf(route));
        Added { sub: name, existed: false, announce }
    }

    /// Ends a session's subscription. `sub` may name what the session is not subscribed to.
    pub fn unsubscribe(&mut self, sub: SubRef, session: u32) -> Removed {
        let route = match sub.target() {
            Target::Route(route) => route,
            Target::Group(group) => {
                return Removed { existed: self.leave(group, session), ..Removed::default() };
            }
        };
        let Some(entry) = self.routes.lookup(route) else { return Removed::default() };
        let Some(at) = entry.subs.position(session) else { return Removed::default() };
        let spot = self.spot(route);
        let entry = &mut self.routes[route];
        let was = resized(&mut self.heap_bytes, &mut entry.subs, |subs| subs.swap_remove(at));
        entry.full -= u32::from(was.full);
        self.subscriptions -= 1;
        let last = self.routes[route].subs.is_empty() && self.others_empty(spot, route);
        let mut removed = Removed { existed: true, ..Removed::default() };
        if last {
            removed.withdraw = Some(self.route_buf(route));
        } else if was.full && self.full_at(spot) == 0 {
            removed.not_full = Some(self.route_buf(route));
        }
        self.drop_route_if_unused(route);
        removed
    }

    /// What this shard's sessions may be subscribed to under this filter and share name: for UNSUBSCRIBE.
    pub fn find(&self, to: &Subscribed<'_>) -> Option<SubRef> {
        let text = to.filter.as_str();
        let spot = self.find_spot(match to.filter.is_exact() {
            true => Route::Exact(self.key(text)),
            false => Route::Wild(text),
        })?;
        let route = self.find_route(spot, text)?;
        match to.group {
            None => Some(SubRef::new(&Target::Route(route))),
            Some(name) => {
                let group = self.find_local_group(spot, text, name)?;
                Some(SubRef::new(&Target::Group(group)))
            }
        }
    }

    /// Filter, share name and options of a session's subscription.
    pub fn describe(&self, sub: SubRef, session: u32) -> Option<(&str, Option<&str>, Sub)> {
        let (route, group, subs) = match sub.target() {
            Target::Route(route) => (route, None, &self.routes.lookup(route)?.subs),
            Target::Group(index) => {
                let group = self.groups.lookup(index)?;
                (group.route, Some(&*group.name), &group.subs)
            }
        };
        let sub = subs.as_slice()[subs.position(session)?];
        Some((&self.routes[route].text, group, sub))
    }

    /// The subscribers of a local filter.
    pub fn subscribers(&self, route: RouteId) -> &[Sub] {
        self.routes[route.0].subs.as_slice()
    }

    /// The text of a local filter.
    pub fn filter(&self, route: RouteId) -> &str {
        &self.routes[route.0].text
    }

    /// A subscriber's queue is full and its policy is to make publishers wait, or it has room again. Returns
    /// what all other shards must be told, if the route as a whole changed: the route, and whether it is full.
    /// A member of a share group does not make it full, for another member may take the message.
    pub fn local_full(&mut self, sub: SubRef, session: u32, full: bool) -> Option<(RouteBuf, bool)> {
        let Target::Route(route) = sub.target() else { return None };
        let at = self.routes.lookup(route)?.subs.position(session)?;
        let spot = self.spot(route);
        let before = self.full_at(spot);
        let entry = &mut self.routes[route];
        let sub = entry.subs.at_mut(at);
        if sub.full == full {
            return None;
        }
        sub.full = full;
        entry.full = if full { entry.full + 1 } else { entry.full - 1 };
        let after = self.full_at(spot);
        ((before == 0) != (after == 0)).then(|| (self.route_buf(route), full))
    }

    /// Counts alone.
    #[inline]
    pub fn counts(&self) -> Counts {
        let topics = self.exact.len() + self.nodes.filters();
        Counts { subscriptions: self.subscriptions, shared: self.shared, topics }
    }

    /// Counts, and bytes as the allocator rounds them.
    pub fn stats(&self) -> Stats {
        Stats {
            filters: self.routes.len(),
            subscriptions: self.subscriptions,
            exact_keys: self.exact.len(),
            nodes: self.nodes.len(),
            groups: self.groups.len(),
            filter_bytes: self.routes.bytes() + self.heap_bytes,
            route_bytes: allocated(self.exact.allocation_size()) + self.places.bytes(),
            level_bytes: self.nodes.bytes(),
            group_bytes: self.groups.bytes()
                + allocated(self.by_key.allocation_size())
                + vec_bytes::<u32>(self.dirty.capacity()),
        }
    }

    /// The key of an exact filter or of a topic.
    fn key(&self, text: &str) -> u64 {
        self.keyed.key(text) & self.key_mask
    }

    fn route_buf(&self, route: u32) -> RouteBuf {
        let entry = &self.routes[route];
        match entry.term {
            NONE => RouteBuf::Exact(self.key(&entry.text)),
            _ => RouteBuf::Wild(entry.text.as_ref().into()),
        }
    }

    fn spot(&self, route: u32) -> Spot {
        let entry = &self.routes[route];
        match entry.term {
            NONE => Spot::Exact(self.key(&entry.text)),
            term => Spot::Wild(term),
        }
    }

    fn find_spot(&self, route: Route<'_>) -> Option<Spot> {
        match route {
            Route::Exact(key) => Some(Spot::Exact(key)),
            Route::Wild(text) => self.nodes.find(text).map(Spot::Wild),
        }
    }

    fn find_route(&self, spot: Spot, text: &str) -> Option<u32> {
        let first = self.load(spot).routes;
        self.chain(first).map(|route| route.0).find(|&route| *self.routes[route].text == *text)
    }

    fn insert_route(&mut self, spot: Spot, text: &str) -> u32 {
        let mut place = self.load(spot);
        let term = match spot {
            Spot::Exact(_) => NONE,
            Spot::Wild(term) => term,
        };
        self.heap_bytes += allocated(text.len());
        let entry = RouteEntry {
            text: Box::from(text),
            subs: Subs::Empty,
            full: 0,
            next: place.routes,
            term,
            groups: 0,
        };
        place.routes = self.routes.insert(entry);
        self.store(spot, place);
        place.routes
    }

    fn drop_route_if_unused(&mut self, route: u32) {
        let entry = &self.routes[route];
        if !entry.subs.is_empty() || entry.groups > 0 {
            return;
        }
        let spot = self.spot(route);
        let mut place = self.load(spot);
        let next = self.routes[route].next;
        if place.routes == route {
            place.routes = next;
        } else {
            let before = self.chain(place.routes).find(|at| self.routes[at.0].next == route);
            let before = before.expect("a route is in the chain of its place");
            self.routes[before.0].next = next;
        }
        let entry = self.routes.remove(route);
        self.heap_bytes -= allocated(entry.text.len());
        self.store(spot, place);
    }

    /// Whether no other route of this place has ordinary subscribers: announcements are counted per place.
    fn others_empty(&self, spot: Spot, route: u32) -> bool {
        let first = self.load(spot).routes;
        self.chain(first).all(|at| at.0 == route || self.routes[at.0].subs.is_empty())
    }

    /// Full subscribers of all routes of a place.
    fn full_at(&self, spot: Spot) -> u32 {
        let first = self.load(spot).routes;
        self.chain(first).map(|at| self.routes[at.0].full).sum()
    }
}

/// Changes a list and keeps the count of heap bytes right.
fn resized<R>(heap_bytes: &mut usize, subs: &mut Subs, change: impl FnOnce(&mut Subs) -> R) -> R {
    let before = subs.heap_bytes();
    let result = change(subs);
    *heap_bytes = *heap_bytes + subs.heap_bytes() - before;
    result
}

/// Gives memory of a table back once at most an eighth of it is in use.
pub(crate) fn shrink<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.is_empty() {
        *table = HashTable::new();
    } else if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hash);
    }
}
