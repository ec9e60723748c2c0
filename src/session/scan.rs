//! Looking up retained messages for new subscriptions, page by page, at the pace of the session.

use crate::map::Set;
use crate::message::QoS;
use std::collections::VecDeque;

/// One subscription for which retained messages are looked up.
#[derive(Debug)]
pub struct ScanJob {
    /// The topic filter.
    pub filter: Box<str>,
    /// QoS granted.
    pub qos: QoS,
    /// Subscription identifier, 0 = none.
    pub id: u32,
    /// Messages that the client published itself are left out.
    pub no_local: bool,
    /// The subscription is gone.
    pub cancelled: bool,
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
    /// Keys of topics whose retained message changed while the first job was under way: the session had the
    /// new value live, so an older one must not follow.
    pub seen: Set<u64>,
}

impl Scans {
    /// The present shard is done: the next shard, or the next job.
    pub fn advance(&mut self, shards: u16, exact_home: impl Fn(&str) -> Option<u16>) {
        self.after = None;
        let exact = self.jobs.front().and_then(|j| exact_home(&j.filter)).is_some();
        self.shard += 1;
        if exact || self.shard >= shards {
            self.jobs.pop_front();
            self.seen.clear();
            self.start(exact_home);
        }
    }

    /// A subscription is gone: jobs for it are dropped, the one under way delivers nothing more.
    pub fn forget(&mut self, filter: &str) {
        let mut first = true;
        self.jobs.retain_mut(|j| {
            let under_way = std::mem::take(&mut first);
            j.cancelled |= *j.filter == *filter;
            under_way || !j.cancelled
        });
    }

    /// Points at the first shard of the first job.
    pub fn start(&mut self, exact_home: impl Fn(&str) -> Option<u16>) {
        self.shard = self.jobs.front().and_then(|j| exact_home(&j.filter)).unwrap_or(0);
    }
}
