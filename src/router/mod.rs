//! Where a message goes: the plan for one topic, and the choice of a member for each share group.
//!
//! Shared subscriptions are picked in two steps: the shard by the counts of members that each shard has
//! announced, then the member on that shard. Round robin therefore is even over shards in proportion to their
//! members, and even over the members of each shard; it is not one global sequence.

use crate::io::ShardId;
use crate::limits::SHARDS_MAX;
use crate::map::Keyed;
use crate::message::MessageRef;
use crate::session::SharedStrategy;
use crate::trie::{GroupId, Matches, Sub, Trie};

/// Which members come into question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Those with a connection.
    Online,
    /// Those whose session waits for its client.
    Offline,
}

/// Plans routes for one shard.
#[derive(Debug)]
pub struct Router {
    me: ShardId,
    random: u64,
    /// Where this shard's rounds begin, so that shards do not all begin with the same member.
    start: u64,
    keyed: Keyed,
    /// Reused by each plan.
    pub matches: Matches,
    /// Share groups of the present plan that were given to other shards: (shard, key of the group).
    pub remote_picks: Vec<(ShardId, u64)>,
    /// Share groups of the present plan whose member is picked here.
    pub local_picks: Vec<GroupId>,
    /// What the groups of the present plan are to remember of it.
    notes: Vec<(GroupId, u64)>,
}

impl Router {
    /// `seed` makes the choices of this shard its own.
    pub fn new(me: ShardId, seed: u64, keyed: Keyed) -> Router {
        Router {
            me,
            random: seed | 1,
            start: seed >> 32,
            keyed,
            matches: Matches::default(),
            remote_picks: Vec::new(),
            local_picks: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Finds the routes of a message and picks a shard for each share group. Returns the other shards that get
    /// it, as bits. A group without any member gets nothing. [`Router::commit`] follows if the message goes there:
    /// one that finds no room is planned again, and nobody's turn is over.
    pub fn plan(&mut self, trie: &Trie, m: &MessageRef, strategy: SharedStrategy) -> u64 {
        trie.matches(m.topic, &mut self.matches);
        self.remote_picks.clear();
        self.local_picks.clear();
        self.notes.clear();
        let mut shards = self.matches.shards;
        for at in 0..self.matches.groups.len() {
            let group = self.matches.groups[at];
            let online = self.choose_shard(trie, group, m, strategy, 0, Wanted::Online);
            let chosen = online.or_else(|| self.choose_shard(trie, group, m, strategy, 0, Wanted::Offline));
            let Some((shard, note)) = chosen else { continue };
            self.notes.push((group, note));
            if shard == self.me {
                self.local_picks.push(group);
            } else {
                shards |= 1 << shard;
                self.remote_picks.push((shard, trie.group(group).key));
            }
        }
        shards & !(1 << self.me)
    }

    /// The message goes where the last plan said.
    pub fn commit(&mut self, trie: &mut Trie) {
        for (group, note) in self.notes.drain(..) {
            *trie.group_note(group) = note;
        }
    }

    /// The shard whose member gets a message; `tried` are shards that had none.
    pub fn pick_shard(
        &mut self,
        trie: &mut Trie,
        group: GroupId,
        m: &MessageRef,
        strategy: SharedStrategy,
        tried: u64,
        wanted: Wanted,
    ) -> Option<ShardId> {
        let (shard, note) = self.choose_shard(trie, group, m, strategy, tried, wanted)?;
        *trie.group_note(group) = note;
        Some(shard)
    }

    /// The shard whose member gets a message, and what its group is to remember then.
    fn choose_shard(
        &mut self,
        trie: &Trie,
        group: GroupId,
        m: &MessageRef,
        strategy: SharedStrategy,
        tried: u64,
        wanted: Wanted,
    ) -> Option<(ShardId, u64)> {
        let random = self.next_random();
        let view = trie.group(group);
        // In the order of shards, so that all shards agree on what a position means.
        let mut members = [0u64; SHARDS_MAX];
        for count in std::iter::once(&view.here).chain(view.remote) {
            members[usize::from(count.shard)] = match wanted {
                _ if tried & (1 << count.shard) != 0 => 0,
                Wanted::Online => u64::from(count.online),
                Wanted::Offline => u64::from(count.offline),
            };
        }
        let total: u64 = members.iter().sum();
        if total == 0 {
            return None;
        }
        let mut note = view.note;
        if strategy == SharedStrategy::Local && members[usize::from(self.me)] > 0 {
            return Some((self.me, note));
        }
        // What was picked last: the shard plus one in the uppermost byte (sticky), or a counter in the upper
        // half (round robin). The member on this shard has the lower half.
        let position = match strategy {
            SharedStrategy::RoundRobin => {
                let turn = (note >> 32) as u32;
                note = (note & 0xFFFF_FFFF) | u64::from(turn.wrapping_add(1)) << 32;
                (u64::from(turn) + self.start) % total
            }
            SharedStrategy::HashClientId => m.head.publisher.rotate_left(17) % total,
            SharedStrategy::HashTopic => self.keyed.key(m.topic) % total,
            SharedStrategy::Sticky | SharedStrategy::Random | SharedStrategy::Local => random % total,
        };
        if strategy == SharedStrategy::Sticky
            && let Some(same) = (note >> 56).checked_sub(1)
            && members.get(same as usize).is_some_and(|count| *count > 0)
        {
            return Some((same as ShardId, note));
        }
        let mut left = position;
        let shard = members.iter().position(|here| {
            let found = left < *here;
            left = left.saturating_sub(*here);
            found
        })?;
        if strategy == SharedStrategy::Sticky {
            note = (note & (u64::MAX >> 8)) | (shard as u64 + 1) << 56;
        }
        Some((shard as ShardId, note))
    }

    /// The member of a group on this shard that gets a message.
    pub fn pick_member(
        &mut self,
        trie: &mut Trie,
        group: GroupId,
        m: &MessageRef,
        strategy: SharedStrategy,
        wanted: Wanted,
    ) -> Option<Sub> {
        let random = self.next_random();
        let note = *trie.group_note(group);
        let members = trie.members(group);
        let members = match wanted {
            Wanted::Online => members.online,
            Wanted::Offline => members.offline,
        };
        if members.is_empty() {
            return None;
        }
        let count = members.len() as u64;
        let (position, note) = match strategy {
            SharedStrategy::RoundRobin => {
                let turn = note as u32;
                (
                    (u64::from(turn) + self.start) % count,
                    (note & !0xFFFF_FFFF) | u64::from(turn.wrapping_add(1)),
                )
            }
            SharedStrategy::HashClientId => (m.head.publisher % count, note),
            SharedStrategy::HashTopic => (self.keyed.key(m.topic).rotate_left(31) % count, note),
            SharedStrategy::Random | SharedStrategy::Local => (random % count, note),
            SharedStrategy::Sticky => {
                let same = members.iter().position(|s| u64::from(s.session) + 1 == note & 0xFFFF_FFFF);
                let position = same.map_or(random % count, |p| p as u64);
                let session = u64::from(members[position as usize].session) + 1;
                (position, (note & !0xFFFF_FFFF) | (session & 0xFFFF_FFFF))
            }
        };
        let sub = members[position as usize];
        *trie.group_note(group) = note;
        Some(sub)
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Head, QoS};
    use crate::topic::parse_subscription;
    use crate::trie::Route;

    #[test]
    fn a_message_that_finds_no_room_takes_nobodys_turn() {
        let keyed = Keyed::new(1);
        let mut trie = Trie::new(0, 4, keyed.clone());
        let to = parse_subscription("$share/g/t", 0).expect("a valid subscription");
        let (key, route) = (keyed.key_pair(to.filter.as_str(), "g"), Route::Exact(keyed.key("t")));
        (1..4).for_each(|shard| trie.remote_group_count(shard, route, key, 1, 0));
        let mut router = Router::new(0, 7, keyed);
        let head = Head::new(QoS::AtMostOnce, false, 0, Default::default());
        let m = MessageRef { topic: "t", properties: &[], payload: &[], head };
        for strategy in [SharedStrategy::RoundRobin, SharedStrategy::Sticky] {
            let mut turns = Vec::new();
            for tries in [1, 3, 2, 1, 5, 1] {
                let planned: Vec<u64> = (0..tries).map(|_| router.plan(&trie, &m, strategy)).collect();
                router.commit(&mut trie);
                turns.extend(planned.last());
            }
            match strategy {
                SharedStrategy::Sticky => assert!(turns.iter().all(|shard| *shard == turns[0]), "{turns:?}"),
                _ => {
                    assert_eq!(turns[..3], turns[3..]);
                    assert_eq!(turns[..3].iter().sum::<u64>(), 0b1110, "each once: {turns:?}");
                }
            }
        }
    }
}
