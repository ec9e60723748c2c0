//! What a back-end says of what a client may do, and what is remembered of that for a while.

use super::http::Access;
use crate::heap::{allocated, map_bytes};
use crate::limits::RULINGS_BYTES_MAX;
use crate::map::Map;
use crate::time::Moment;
use std::net::IpAddr;

/// What is asked about a client: whether it may publish to some topics, or subscribe to some filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    /// Its client identifier.
    pub client_id: Box<str>,
    /// Its user name.
    pub username: Option<Box<str>>,
    /// Its address, where it is known.
    pub from: Option<IpAddr>,
    /// What stands before its topics without its knowing.
    pub mount: Box<str>,
    /// Which of the two.
    pub access: Access,
    /// Topics or filters as the client names them, without share names.
    pub topics: Box<[Box<str>]>,
}

/// What is said of one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// Nobody said anything in time.
    NoAnswer,
}

/// A ruling that is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruled {
    /// What the client wanted.
    pub access: Access,
    /// The topic or filter.
    pub topic: Box<str>,
    /// Whether it may.
    pub allowed: bool,
    /// When that was said.
    pub at: Moment,
}

/// What is remembered for one client: as many rulings and bytes as it may be, the newest.
#[derive(Debug, Default)]
pub struct Rulings {
    subscribe: Map<Box<str>, Known>,
    publish: Map<Box<str>, Known>,
    /// Bytes of all topics.
    text_bytes: usize,
    /// How many were put so far.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    allowed: bool,
    at: Moment,
    /// Many come at the same moment.
    number: u64,
}

impl Rulings {
    /// What was said within the last `hold_ms`.
    pub fn find(&self, access: Access, topic: &str, now: Moment, hold_ms: u64) -> Option<bool> {
        let known = self.of(access).get(topic)?;
        (now.since_ms(known.at) < hold_ms).then_some(known.allowed)
    }

    /// Remembers what was said now; the oldest make room, so that there are `entries_max` at most. A topic that is longer
    /// than all may be together is not remembered.
    pub fn put(&mut self, access: Access, topic: &str, allowed: bool, now: Moment, entries_max: usize) {
        self.forget(access, topic);
        let bytes = allocated(topic.len());
        if bytes > RULINGS_BYTES_MAX || entries_max == 0 {
            return;
        }
        while self.len() >= entries_max || self.text_bytes + bytes > RULINGS_BYTES_MAX {
            self.forget_oldest();
        }
        self.text_bytes += bytes;
        self.count += 1;
        let known = Known { allowed, at: now, number: self.count };
        self.of_mut(access).insert(topic.into(), known);
    }

    /// What was said within the last `hold_ms`, the oldest first.
    pub fn list(&self, now: Moment, hold_ms: u64) -> Vec<Ruled> {
        let of = |access: Access| {
            self.of(access).iter().map(move |(topic, known)| Ruled {
                access,
                topic: topic.clone(),
                allowed: known.allowed,
                at: known.at,
            })
        };
        let all = of(Access::Subscribe).chain(of(Access::Publish));
        let mut rows: Vec<_> = all.filter(|row| now.since_ms(row.at) < hold_ms).collect();
        rows.sort_by(|a, b| (a.at, &a.topic).cmp(&(b.at, &b.topic)));
        rows
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.subscribe.len() + self.publish.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let tables = [&self.subscribe, &self.publish];
        tables.map(|table| map_bytes::<Box<str>, Known>(table.capacity())).iter().sum::<usize>()
            + self.text_bytes
    }

    fn of(&self, access: Access) -> &Map<Box<str>, Known> {
        match access {
            Access::Subscribe => &self.subscribe,
            Access::Publish => &self.publish,
        }
    }

    fn of_mut(&mut self, access: Access) -> &mut Map<Box<str>, Known> {
        match access {
            Access::Subscribe => &mut self.subscribe,
            Access::Publish => &mut self.publish,
        }
    }

    fn forget(&mut self, access: Access, topic: &str) {
        if self.of_mut(access).remove(topic).is_some() {
            self.text_bytes -= allocated(topic.len());
        }
    }

    /// There are some. Few enough to be looked through, once for each answer of a back-end.
    fn forget_oldest(&mut self) {
        let oldest = |access| {
            let of = self.of(access).iter().min_by_key(|(_, known)| known.number);
            of.map(|(topic, known)| (known.number, access, topic.clone()))
        };
        let both = [oldest(Access::Subscribe), oldest(Access::Publish)];
        if let Some((_, access, topic)) = both.into_iter().flatten().min_by_key(|(number, ..)| *number) {
            self.forget(access, &topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD_MS: u64 = 1_000;

    #[test]
    fn a_ruling_holds_for_its_time_its_topic_and_what_was_asked() {
        let mut rulings = Rulings::default();
        rulings.put(Access::Publish, "a/b", true, Moment(50), 8);
        rulings.put(Access::Subscribe, "a/b", false, Moment(60), 8);
        let find = |rulings: &Rulings, access, topic, ms| rulings.find(access, topic, Moment(ms), HOLD_MS);
        assert_eq!(find(&rulings, Access::Publish, "a/b", 1_049), Some(true));
        assert_eq!(find(&rulings, Access::Publish, "a/b", 1_050), None);
        assert_eq!(find(&rulings, Access::Subscribe, "a/b", 1_050), Some(false));
        assert_eq!(find(&rulings, Access::Publish, "a", 51), None);
        assert_eq!(rulings.list(Moment(1_055), HOLD_MS).len(), 1, "what is over is not listed");
        rulings.put(Access::Publish, "a/b", false, Moment(2_000), 8);
        assert_eq!(find(&rulings, Access::Publish, "a/b", 2_001), Some(false));
        assert_eq!(rulings.len(), 2);
    }

    #[test]
    fn the_newest_stay_within_number_and_bytes() {
        let mut rulings = Rulings::default();
        for n in 0..100 {
            let access = if n % 3 == 0 { Access::Subscribe } else { Access::Publish };
            // Four at each moment.
            rulings.put(access, &format!("t/{n:02}"), true, Moment(n / 4), 8);
            assert!(rulings.len() <= 8);
        }
        let left: Vec<_> = rulings.list(Moment(100), HOLD_MS).into_iter().map(|row| row.topic).collect();
        assert_eq!(left, (92..100).map(|n| format!("t/{n}").into()).collect::<Vec<Box<str>>>());
        let long = "x".repeat(RULINGS_BYTES_MAX / 2);
        for n in 0..10 {
            rulings.put(Access::Publish, &format!("{n}{long}"), true, Moment(200 + n), 1_000);
            assert!(rulings.text_bytes <= RULINGS_BYTES_MAX);
        }
        assert_eq!(rulings.len(), 1);
        rulings.put(Access::Publish, &"x".repeat(RULINGS_BYTES_MAX + 1), true, Moment(300), 1_000);
        assert_eq!(rulings.len(), 1, "it would be alone, and still too long");
        assert_eq!(rulings.list(Moment(300), HOLD_MS)[0].at, Moment(209));
    }
}
