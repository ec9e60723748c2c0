//! Share groups: local members, online ones first, and how many members each other shard has.

use super::place::Spot;
use super::slab::NONE;
use super::{GroupId, Route, RouteBuf, Sub, SubRef, Subs, Target, Trie, resized, shrink};
use crate::heap::{allocated, vec_bytes};
use crate::io::ShardId;
use crate::topic::{Filter, Topic};

/// Members of a group on one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardCount {
    /// The shard.
    pub shard: ShardId,
    /// Members that are connected.
    pub online: u32,
    /// Members that have a session only.
    pub offline: u32,
}

/// What other shards must be told of a group of this shard: to [`Trie::remote_group_count`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChange {
    /// The group's filter.
    pub route: RouteBuf,
    /// The group's key.
    pub key: u64,
    /// Members here that are connected.
    pub online: u32,
    /// Members here that have a session only. With `online` 0: the group has left this shard.
    pub offline: u32,
}

/// Local members, for choosing one.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// Those that are connected.
    pub online: &'a [Sub],
    /// Those that have a session only.
    pub offline: &'a [Sub],
}

/// What is known of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a> {
    /// Its key: of filter and share name, equal on all shards.
    pub key: u64,
    /// Filter and share name, where there are members on this shard.
    pub local: Option<(&'a str, &'a str)>,
    /// Members on this shard.
    pub here: ShardCount,
    /// Members on other shards; none of them has 0 of both.
    pub remote: &'a [ShardCount],
    /// See [`Trie::group_note`].
    pub note: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    key: u64,
    spot: Spot,
    /// The share name; empty without a local route.
    pub(super) name: Box<str>,
    /// Local members, the online ones first.
    pub(super) subs: Subs,
    online: u32,
    /// The local route, [`NONE`] where only other shards have members.
    pub(super) route: u32,
    /// The groups of the same place.
    previous: u32,
    pub(super) next: u32,
    dirty: bool,
    /// What other shards were told last.
    told: (u32, u32),
    remote: Vec<ShardCount>,
    /// For whoever chooses members.
    note: u64,
}

impl Group {
    pub(super) fn has_members(&self) -> bool {
        !self.subs.is_empty() || !self.remote.is_empty()
    }

    /// A bit for each other shard that has members.
    pub(super) fn shards(&self) -> u64 {
        self.remote.iter().fold(0, |set, count| set | 1 << count.shard)
    }

    fn counts(&self) -> (u32, u32) {
        (self.online, self.subs.len() as u32 - self.online)
    }
}

impl Trie {
    /// A member connected, or lost its connection and keeps its session. Without effect on an ordinary
    /// subscription.
    pub fn set_online(&mut self, sub: SubRef, session: u32, online: bool) {
        let Target::Group(index) = sub.target() else { return };
        let Some(at) = self.groups.lookup(index).and_then(|group| group.subs.position(session)) else {
            return;
        };
        let group = &mut self.groups[index];
        let was = at < group.online as usize;
        if was == online {
            return;
        }
        if online {
            group.subs.swap(at, group.online as usize);
            group.online += 1;
        } else {
            group.online -= 1;
            group.subs.swap(at, group.online as usize);
        }
        self.mark_dirty(index);
    }

    /// The next group whose counts on this shard differ from what was told last. Until it returns `None`,
    /// once per tick and as far as there is room to tell.
    pub fn next_dirty_group(&mut self) -> Option<GroupChange> {
        while let Some(index) = self.dirty.pop_front() {
            let group = &mut self.groups[index];
            group.dirty = false;
            let (counts, route, key) = (group.counts(), group.route, group.key);
            let told = std::mem::replace(&mut group.told, counts);
            let change = (told != counts).then(|| GroupChange {
                route: self.route_buf(route),
                key,
                online: counts.0,
                offline: counts.1,
            });
            self.drop_group_if_unused(index);
            if self.dirty.is_empty() && self.dirty.capacity() > 64 {
                self.dirty.shrink_to(64);
            }
            if change.is_some() {
                return change;
            }
        }
        self.dirty = Default::default();
        None
    }

    /// All groups whose counts on this shard differ from what was told last; what is not taken stays.
    pub fn take_dirty_groups(&mut self) -> impl Iterator<Item = GroupChange> + '_ {
        std::iter::from_fn(|| self.next_dirty_group())
    }

    /// Shard `from` has this many members of a group; 0 of both removes it.
    pub fn remote_group_count(
        &mut self,
        from: ShardId,
        route: Route<'_>,
        key: u64,
        online: u32,
        offline: u32,
    ) {
        self.bit(from);
        if (online, offline) == (0, 0) {
            let Some(spot) = self.find_spot(route) else { return };
            if let Some(index) = self.find_group(key, |group| group.spot == spot) {
                let group = &mut self.groups[index];
                let before = remote_bytes(&group.remote);
                group.remote.retain(|count| count.shard != from);
                if group.remote.is_empty() {
                    group.remote = Vec::new();
                }
                self.heap_bytes = self.heap_bytes + remote_bytes(&group.remote) - before;
                self.drop_group_if_unused(index);
            }
            return;
        }
        let spot = self.open_spot(route);
        let index = match self.find_group(key, |group| group.spot == spot) {
            Some(index) => index,
            None => self.insert_group(key, spot),
        };
        let group = &mut self.groups[index];
        let count = ShardCount { shard: from, online, offline };
        let before = remote_bytes(&group.remote);
        match group.remote.iter_mut().find(|count| count.shard == from) {
            Some(known) => *known = count,
            None => group.remote.push(count),
        }
        self.heap_bytes = self.heap_bytes + remote_bytes(&group.remote) - before;
    }

    /// The group of this shard that a message was sent here for: by the group's key and the message's topic,
    /// so that groups that share a key do not get each other's messages.
    pub fn group_by_key(&self, key: u64, topic: &str) -> Option<GroupId> {
        let local = |group: &Group| !group.subs.is_empty() && self.filter_takes(group, topic) == Some(true);
        self.find_group(key, local).map(GroupId)
    }

    /// Whether a message to `topic` is known not to be for the group with this key: the topic only shares the
    /// key of the group's filter, which the shard that chose the group did not know.
    pub fn is_mistaken(&self, key: u64, topic: &str) -> bool {
        self.find_group(key, |group| self.filter_takes(group, topic) == Some(false)).is_some()
    }

    /// Whether a group's filter matches a topic; `None` where other shards alone know the filter.
    fn filter_takes(&self, group: &Group, topic: &str) -> Option<bool> {
        let route = (group.route != NONE).then(|| &self.routes[group.route])?;
        Some(Filter::of_checked(&route.text).matches(Topic::of_checked(topic)))
    }

    /// Any group with this key, with members here or elsewhere.
    pub fn any_group_by_key(&self, key: u64) -> Option<GroupId> {
        self.find_group(key, |_| true).map(GroupId)
    }

    /// What is known of a group.
    pub fn group(&self, id: GroupId) -> GroupView<'_> {
        let group = &self.groups[id.0];
        let (online, offline) = group.counts();
        let local = (!group.subs.is_empty()).then(|| (&*self.routes[group.route].text, &*group.name));
        GroupView {
            key: group.key,
            local,
            here: ShardCount { shard: self.me, online, offline },
            remote: &group.remote,
            note: group.note,
        }
    }

    /// The local members of a group.
    pub fn members(&self, id: GroupId) -> Members<'_> {
        let group = &self.groups[id.0];
        let (online, offline) = group.subs.as_slice().split_at(group.online as usize);
        Members { online, offline }
    }

    /// A word that lives as long as the group, for the strategy that chooses members (a turn, a favourite).
    /// 0 at first.
    pub fn group_note(&mut self, id: GroupId) -> &mut u64 {
        &mut self.groups[id.0].note
    }

    /// Whether a group's filter takes a topic whose key alone was compared so far (`exact`).
    pub(super) fn group_takes(&self, group: &Group, exact: Option<&str>) -> bool {
        match exact {
            Some(topic) if group.route != NONE => *self.routes[group.route].text == *topic,
            _ => true,
        }
    }

    /// Makes a session a member. Returns the group and whether the session was a member already.
    pub(super) fn join(&mut self, route: u32, spot: Spot, name: &str, sub: Sub) -> (u32, bool) {
        let key = self.keyed.key_pair(&self.routes[route].text, name);
        let ours = |group: &Group| {
            group.spot == spot && (group.route == NONE || (group.route == route && *group.name == *name))
        };
        let index = match self.find_group(key, ours) {
            Some(index) => index,
            None => self.insert_group(key, spot),
        };
        let group = &mut self.groups[index];
        if group.route == NONE {
            group.route = route;
            group.name = Box::from(name);
            self.heap_bytes += allocated(name.len());
            self.routes[route].groups += 1;
        }
        if let Some(at) = group.subs.position(sub.session) {
            *group.subs.at_mut(at) = Sub { full: false, ..sub };
            return (index, true);
        }
        resized(&mut self.heap_bytes, &mut group.subs, |subs| subs.push(Sub { full: false, ..sub }));
        group.subs.swap(group.subs.len() - 1, group.online as usize);
        group.online += 1;
        self.subscriptions += 1;
        self.shared += 1;
        self.mark_dirty(index);
        (index, false)
    }

    /// Ends a membership. Returns whether there was one.
    pub(super) fn leave(&mut self, index: u32, session: u32) -> bool {
        let Some(at) = self.groups.lookup(index).and_then(|group| group.subs.position(session)) else {
            return false;
        };
        let group = &mut self.groups[index];
        let mut at = at;
        if at < group.online as usize {
            group.online -= 1;
            group.subs.swap(at, group.online as usize);
            at = group.online as usize;
        }
        resized(&mut self.heap_bytes, &mut group.subs, |subs| subs.swap_remove(at));
        self.subscriptions -= 1;
        self.shared -= 1;
        self.mark_dirty(index);
        true
    }

    pub(super) fn find_local_group(&self, spot: Spot, filter: &str, name: &str) -> Option<u32> {
        let key = self.keyed.key_pair(filter, name);
        let ours = |group: &Group| {
            group.spot == spot
                && group.route != NONE
                && *group.name == *name
                && *self.routes[group.route].text == *filter
        };
        self.find_group(key, ours)
    }

    fn find_group(&self, key: u64, ours: impl Fn(&Group) -> bool) -> Option<u32> {
        let same = |&index: &u32| {
            let group = &self.groups[index];
            group.key == key && ours(group)
        };
        self.by_key.find(key, same).copied()
    }

    fn insert_group(&mut self, key: u64, spot: Spot) -> u32 {
        let mut place = self.load(spot);
        let group = Group {
            key,
            spot,
            name: Box::default(),
            subs: Subs::Empty,
            online: 0,
            route: NONE,
            previous: NONE,
            next: place.groups,
            dirty: false,
            told: (0, 0),
            remote: Vec::new(),
            note: 0,
        };
        let index = self.groups.insert(group);
        if place.groups != NONE {
            self.groups[place.groups].previous = index;
        }
        place.groups = index;
        self.store(spot, place);
        let groups = &self.groups;
        self.by_key.insert_unique(key, index, |&index| groups[index].key);
        index
    }

    fn mark_dirty(&mut self, index: u32) {
        let group = &mut self.groups[index];
        if !group.dirty {
            group.dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Lets the route of a group without local members go, and a group that has none anywhere. A change that
    /// was not told yet keeps both.
    fn drop_group_if_unused(&mut self, index: u32) {
        let group = &mut self.groups[index];
        if group.dirty || !group.subs.is_empty() {
            return;
        }
        if group.route != NONE {
            let route = std::mem::replace(&mut group.route, NONE);
            self.heap_bytes -= allocated(group.name.len());
            group.name = Box::default();
            self.routes[route].groups -= 1;
            self.drop_route_if_unused(route);
        }
        if !self.groups[index].remote.is_empty() {
            return;
        }
        let group = self.groups.remove(index);
        match self.by_key.find_entry(group.key, |&at| at == index) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every group is in the table by key"),
        }
        let groups = &self.groups;
        shrink(&mut self.by_key, |&index| groups[index].key);
        if group.next != NONE {
            self.groups[group.next].previous = group.previous;
        }
        let mut place = self.load(group.spot);
        if group.previous != NONE {
            self.groups[group.previous].next = group.next;
        } else {
            place.groups = group.next;
        }
        self.store(group.spot, place);
    }
}

fn remote_bytes(remote: &Vec<ShardCount>) -> usize {
    vec_bytes::<ShardCount>(remote.capacity())
}
