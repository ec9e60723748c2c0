//! Looking up retained messages for new subscriptions, page by page, at the pace of the session.

use crate::heap::{allocated, map_bytes, vec_bytes};
use crate::limits::SCAN_SEEN_MAX;
use crate::map::Map;
use crate::message::QoS;
use crate::trie::SubRef;
use std::collections::VecDeque;

/// One subscription for which retained messages are looked up.
#[derive(Debug)]
pub struct ScanJob {
    /// The subscription, which knows its topic filter: a copy of that would lie between those that stay, and leave
    /// holes there when it goes.
    pub sub: SubRef,
    /// The one shard that a filter without wildcards concerns.
    pub home: Option<u16>,
    /// QoS granted.
    pub qos: QoS,
    /// Subscription identifier, 0 = none.
    pub id: u32,
    /// Messages that the client published itself are left out.
    pub no_local: bool,
    /// The subscription is gone.
    pub cancelled: bool,
    /// Its number among the session's jobs; [`Scans::add`] gives it.
    pub number: u64,
}

/// The scans of one session: one job at a time, one shard at a time, one page at a time.
#[derive(Debug, Default)]
pub struct Scans {
    /// What is still to be done; the first is under way.
    pub jobs: VecDeque<ScanJob>,
    /// The shard that is asked.
    pub shard: u16,
    /// The last topic of its last page.
    pub after: Option<Box<str>>,
    /// A page was asked for and has not arrived.
    pub waiting: bool,
    /// The session had no room for a page; it is resumed when something of its queue has left.
    pub stalled: bool,
    /// The number of the last job that was added.
    last: u64,
    /// Keys of topics whose retained message changed, and the last job that there was: the session had the new
    /// value live, so for this job and those before it neither that one nor an older one must follow.
    seen: Map<u64, u64>,
}

impl Scans {
    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        vec_bytes::<ScanJob>(self.jobs.capacity())
            + self.after.as_ref().map_or(0, |after| allocated(after.len()))
            + map_bytes::<u64, u64>(self.seen.capacity())
    }

    /// Adds jobs behind those that there are.
    pub fn add(&mut self, jobs: Vec<ScanJob>) {
        for job in jobs {
            self.last += 1;
            self.jobs.push_back(ScanJob { number: self.last, ..job });
        }
    }

    /// The session gets a message with RETAIN live, on the topic with this key.
    pub fn note(&mut self, key: u64) {
        if self.seen.len() < SCAN_SEEN_MAX || self.seen.contains_key(&key) {
            self.seen.insert(key, self.last);
        }
    }

    /// The first job, if a retained message on the topic with this key is still to be delivered for it.
    pub fn wants(&self, key: u64) -> Option<&ScanJob> {
        let job = self.jobs.front().filter(|job| !job.cancelled)?;
        self.seen.get(&key).is_none_or(|last| *last < job.number).then_some(job)
    }

    /// The present shard is done: the next shard, or the next job.
    pub fn advance(&mut self, shards: u16) {
        self.after = None;
        let exact = self.jobs.front().is_none_or(|job| job.home.is_some());
        self.shard += 1;
        if exact || self.shard >= shards {
            self.jobs.pop_front();
            let next = self.jobs.front().map_or(u64::MAX, |job| job.number);
            self.seen.retain(|_, last| *last >= next);
            self.start();
        }
    }

    /// Subscriptions are gone: jobs for them are dropped, the one under way delivers nothing more.
    pub fn forget(&mut self, gone: impl Fn(SubRef) -> bool) {
        let mut first = true;
        self.jobs.retain_mut(|j| {
            let under_way = std::mem::take(&mut first);
            j.cancelled |= gone(j.sub);
            under_way || !j.cancelled
        });
    }

    /// Points at the first shard of the first job.
    pub fn start(&mut self) {
        self.shard = self.jobs.front().and_then(|job| job.home).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Keyed;
    use crate::topic::parse_subscription;
    use crate::trie::{Sub, SubOptions, Trie};

    fn subscriptions() -> Vec<SubRef> {
        let mut trie = Trie::new(0, 1, Keyed::new(1));
        let mut add = |text| {
            let to = parse_subscription(text, 0).expect("a valid subscription");
            trie.subscribe(&to, Sub::new(0, SubOptions::default(), 0)).sub
        };
        ["a/+", "b", "c"].map(&mut add).to_vec()
    }

    fn job(sub: SubRef, home: Option<u16>) -> ScanJob {
        let qos = QoS::AtMostOnce;
        ScanJob { sub, home, qos, id: 0, no_local: false, cancelled: false, number: 0 }
    }

    #[test]
    fn a_live_message_stands_for_the_retained_one_of_the_jobs_that_there_were() {
        let (mut scans, subs) = (Scans::default(), subscriptions());
        scans.add(vec![job(subs[0], None), job(subs[1], Some(0))]);
        scans.note(7);
        scans.add(vec![job(subs[2], Some(0))]);
        scans.start();
        // The first two had it live; the third was subscribed to afterwards, so it gets the retained one.
        for (number, shards, wants) in [(0, 2, false), (1, 1, false), (2, 1, true)] {
            assert_eq!(scans.jobs.front().map(|job| job.sub), Some(subs[number]));
            assert_eq!(scans.wants(7).is_some(), wants, "{number}");
            assert!(scans.wants(8).is_some());
            (0..shards).for_each(|_| scans.advance(2));
        }
        assert!(scans.wants(8).is_none() && scans.seen.is_empty());
    }

    #[test]
    fn a_subscription_that_is_gone_wants_nothing() {
        let (mut scans, subs) = (Scans::default(), subscriptions());
        scans.add(vec![job(subs[0], None), job(subs[1], None), job(subs[0], None)]);
        scans.forget(|sub| sub == subs[0]);
        assert!(scans.wants(7).is_none());
        assert_eq!(scans.jobs.len(), 2, "the one under way stays until its answer has come");
    }
}
