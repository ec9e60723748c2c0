//! Retained messages for new subscriptions: pages of each shard's part, at the pace of the session.
//!
//! A page is asked for when the session has room for it, and one at a time, so what scans keep in overflow is
//! bounded by the sessions that scan. A shard answers a request after it drained its control rings to tails
//! that it read after the request was popped: what was acknowledged before the SUBSCRIBE is found.

use super::local::Terms;
use super::{Handover, Shard};
use crate::heap::vec_bytes;
use crate::io::{Io, ShardId};
use crate::limits::{OVERFLOW_BACKGROUND_MAX, SCAN_PAGE_MESSAGES, TICK_SCAN_STEPS_MAX};
use crate::map::Slot;
use crate::mesh::{Control, ScanRequest};
use crate::message::{Message, QoS};
use crate::retained::Scan;
use crate::session::{Carried, Options, ScanJob, Scans};
use crate::stats::Source;
use crate::topic::Filter;
use std::collections::VecDeque;

/// The scans that a shard has to do with.
#[derive(Default)]
pub(super) struct ScanState {
    /// Sessions here whose next page may be asked for.
    ready: VecDeque<Slot>,
    /// Requests of other shards whose control rings are still to be drained.
    fresh: Vec<(ShardId, Box<ScanRequest>)>,
    /// Requests of other shards that may be answered.
    due: VecDeque<(ShardId, Box<ScanRequest>)>,
    page: Vec<Message>,
    /// What other shards answered in this tick.
    arrived: Vec<Reply>,
    /// What they answered in the tick before: whatever was published before it is delivered by now.
    settled: Vec<Reply>,
}

/// A part of another shard's answer.
pub(super) enum Reply {
    /// A retained message.
    Item { scan: u64, message: Message },
    /// The end of a page.
    Page { scan: u64, after: Option<Box<str>> },
}

impl ScanState {
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.due.is_empty()
            && self.fresh.is_empty()
            && self.arrived.is_empty()
            && self.settled.is_empty()
    }

    /// Bytes of its lists; an answer to another shard is a page of at most some tens of references.
    pub fn bytes(&self) -> usize {
        vec_bytes::<Slot>(self.ready.capacity())
            + vec_bytes::<(ShardId, Box<ScanRequest>)>(self.due.capacity() + self.fresh.capacity())
            + vec_bytes::<Reply>(self.arrived.capacity() + self.settled.capacity())
            + vec_bytes::<Message>(self.page.capacity())
    }

    pub fn reply(&mut self, reply: Reply) {
        self.arrived.push(reply);
    }

    pub fn request(&mut self, from: ShardId, request: Box<ScanRequest>) {
        self.fresh.push((from, request));
    }
}

/// A scan's number names the session that it is for.
fn number(slot: Slot) -> u64 {
    u64::from(slot.generation) << 32 | u64::from(slot.index)
}

fn slot_of(scan: u64) -> Slot {
    Slot { index: scan as u32, generation: (scan >> 32) as u32 }
}

impl<I: Io<Handover>> Shard<I> {
    /// New subscriptions of a session want retained messages.
    pub(super) fn add_scans(&mut self, index: u32, jobs: Vec<ScanJob>) {
        if jobs.is_empty() {
            return;
        }
        let Some(slot) = self.local.sessions.slot(index) else { return };
        let Some(session) = self.local.sessions.get_mut(index) else { return };
        let idle = session.scans.is_none();
        let scans = session.scans.get_or_insert_with(|| Box::new(Scans::default()));
        scans.add(jobs);
        if idle {
            scans.start();
            self.scans.ready.push_back(slot);
        }
        self.local.count_session(index);
    }

    /// A session may have room for its next page.
    pub(super) fn resume_scans(&mut self, index: u32) {
        let Some(session) = self.local.sessions.get(index) else { return };
        if session.scans.as_ref().is_some_and(|s| s.stalled)
            && let Some(slot) = self.local.sessions.slot(index)
        {
            if let Some(scans) = self.local.sessions.get_mut(index).and_then(|s| s.scans.as_mut()) {
                scans.stalled = false;
            }
            self.scans.ready.push_back(slot);
        }
    }

    /// Whether a session can take a page: its queue and its connection have room.
    fn has_room_for_page(&self, index: u32) -> bool {
        let Some(session) = self.local.sessions.get(index) else { return false };
        let o = self.local.options.of(session.entry.listener());
        let link = session.conn.and_then(|c| self.local.conns.get(c));
        let flows =
            link.is_none_or(|c| !c.link.is_held() && c.link.backlog() < o.max_output_bytes as usize / 2);
        flows && session.queue_below((o.max_mqueue + 1).saturating_sub(page_messages(o)) as usize)
    }

    /// Goes on with the scans of sessions here, and answers those of other shards.
    pub(super) fn run_scans(&mut self) {
        let mut steps = TICK_SCAN_STEPS_MAX;
        for _ in 0..self.scans.ready.len() {
            let Some(slot) = self.scans.ready.pop_front() else { break };
            if self.local.sessions.at(slot).is_none() {
                continue;
            }
            if steps == 0 || self.mesh.overflow_len() > OVERFLOW_BACKGROUND_MAX {
                self.scans.ready.push_front(slot);
                break;
            }
            self.scan_step(slot, &mut steps);
        }
        for _ in 0..self.scans.due.len() {
            if steps == 0 || self.mesh.overflow_len() > OVERFLOW_BACKGROUND_MAX {
                break;
            }
            let Some((from, request)) = self.scans.due.pop_front() else { break };
            self.answer_scan(from, request, &mut steps);
        }
    }

    /// Asks for one page of the present shard, which may be this one.
    fn scan_step(&mut self, slot: Slot, steps: &mut usize) {
        let index = slot.index;
        let room = self.has_room_for_page(index);
        let listener = self.local.sessions.get(index).map_or(0, |session| session.entry.listener());
        let limit = page_messages(self.local.options.of(listener));
        let Some(scans) = self.local.sessions.at(slot).and_then(|s| s.scans.as_mut()) else { return };
        if scans.waiting {
            return;
        }
        let Some(job) = scans.jobs.front() else { return };
        if !room {
            scans.stalled = true;
            return;
        }
        let (shard, after) = (scans.shard, scans.after.clone());
        let Some((filter, ..)) = self.trie.describe(job.sub, index) else {
            // The client has unsubscribed meanwhile.
            return self.page_done(slot, Scan::Done);
        };
        let filter: Box<str> = filter.into();
        if shard != self.me {
            scans.waiting = true;
            let request = ScanRequest { scan: number(slot), filter, after, limit };
            self.mesh.control(shard, Control::ScanRequest(Box::new(request)));
            return;
        }
        let mut page = std::mem::take(&mut self.scans.page);
        let outcome = self.scan_here(&filter, after.as_deref(), limit, steps, &mut page);
        if page.is_empty() {
            self.page_done(slot, outcome);
        } else {
            // As if another shard had answered.
            let scan = number(slot);
            page.drain(..).for_each(|message| self.scans.reply(Reply::Item { scan, message }));
            let after = match outcome {
                Scan::More { after } => Some(after),
                Scan::Done => None,
            };
            self.scans.reply(Reply::Page { scan, after });
            if let Some(scans) = self.local.sessions.at(slot).and_then(|s| s.scans.as_mut()) {
                scans.waiting = true;
            }
        }
        self.scans.page = page;
    }

    /// Fills a page with at most `limit` messages, and at least one where there is any, that fit into half of
    /// what may wait on a connection: a page is asked for when the other half is free.
    fn scan_here(
        &mut self,
        filter: &str,
        after: Option<&str>,
        limit: u32,
        steps: &mut usize,
        page: &mut Vec<Message>,
    ) -> Scan {
        let filter = Filter::of_checked(filter);
        let budget = (*steps).min(1_024);
        *steps -= budget;
        let outcome = self.retained.scan(filter, after, self.local.now, budget, limit as usize, page);
        let found = page.len();
        let mut room = self.local.options.max_output_bytes as usize / 2;
        let mut fits = |m: &Message| {
            let left = room.checked_sub(m.bytes());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let fitting = page.iter().take_while(|m| fits(m)).count().max(1);
        page.truncate(fitting);
        match page.last() {
            Some(last) if fitting < found => Scan::More { after: last.topic().into() },
            _ => outcome,
        }
    }

    /// One page of a scan is delivered.
    fn page_done(&mut self, slot: Slot, outcome: Scan) {
        let Some(session) = self.local.sessions.at(slot) else { return };
        let Some(scans) = &mut session.scans else { return };
        scans.waiting = false;
        match outcome {
            Scan::More { after } => scans.after = Some(after),
            Scan::Done => scans.advance(self.shards),
        }
        if scans.jobs.is_empty() {
            session.scans = None;
        } else {
            self.scans.ready.push_back(slot);
        }
        self.local.count_session(slot.index);
    }

    /// Drains the control rings once more for requests that were popped just now, so that they find what was
    /// acknowledged before they were made.
    pub(super) fn answer_scan_requests(&mut self) {
        if self.scans.fresh.is_empty() {
            return;
        }
        // Once: requests that come with it wait for the next tick, else peers could keep this going.
        let fresh = std::mem::take(&mut self.scans.fresh);
        self.mesh.read_control_tails(|| self.io.meanwhile());
        while let Some((from, control)) = self.mesh.next_control() {
            self.handle_control(from, control);
        }
        self.scans.due.extend(fresh);
    }

    fn answer_scan(&mut self, from: ShardId, mut request: Box<ScanRequest>, steps: &mut usize) {
        let mut page = std::mem::take(&mut self.scans.page);
        let outcome =
            self.scan_here(&request.filter, request.after.as_deref(), request.limit, steps, &mut page);
        let found = page.len();
        let scan = request.scan;
        let last = page.last().map(|m| m.topic().into());
        for message in page.drain(..) {
            self.mesh.control(from, Control::ScanItem { scan, message });
        }
        self.scans.page = page;
        match outcome {
            Scan::Done => self.mesh.control(from, Control::ScanPage { scan, after: None }),
            // Nothing to tell yet: the requester would ask from the same place.
            Scan::More { after } if found == 0 => {
                request.after = Some(after);
                self.scans.due.push_back((from, request));
            }
            Scan::More { after } => {
                let after = Some(last.unwrap_or(after));
                self.mesh.control(from, Control::ScanPage { scan, after });
            }
        }
    }

    /// Takes the answers that came in the tick before. A message that is published during a scan leaves for its
    /// subscribers as it leaves to be retained, so a session that gets it live has it by now and noted it: it
    /// does not get it once more as a retained one.
    pub(super) fn take_scan_replies(&mut self) {
        let mut replies = std::mem::take(&mut self.scans.settled);
        for reply in replies.drain(..) {
            match reply {
                Reply::Item { scan, message } => self.deliver_retained(slot_of(scan), &message),
                Reply::Page { scan, after } => {
                    let outcome = after.map_or(Scan::Done, |after| Scan::More { after });
                    self.page_done(slot_of(scan), outcome);
                }
            }
        }
        self.scans.settled = std::mem::replace(&mut self.scans.arrived, replies);
    }

    /// Delivers a retained message for the first job of a session's scans.
    fn deliver_retained(&mut self, slot: Slot, message: &Message) {
        let key = self.local.keyed.key(message.topic());
        let Some(session) = self.local.sessions.at(slot) else { return };
        let Some(scans) = &session.scans else { return };
        let Some(job) = scans.wants(key) else { return };
        let own = job.no_local && message.view().head.publisher == session.key; // [MQTT-3.8.3-3 of 5.0]
        if own {
            self.local.counters.no_local += 1;
            return;
        }
        let qos = job.qos.min(message.view().head.qos);
        let ids = [job.id];
        let ids = if job.id == 0 { &[][..] } else { &ids };
        if qos == QoS::AtMostOnce && session.conn.is_none() {
            return;
        }
        self.local.counters.published[Source::Retained as usize][qos as usize] += 1;
        let terms = Terms { qos, retain: true, ids, group: 0, retained: true };
        self.local.deliver(slot.index, &mut Carried::kept(message), terms);
    }
}

/// Messages of one page: never more than half a queue holds, for they must all find room in it.
fn page_messages(options: &Options) -> u32 {
    (options.max_mqueue / 2).clamp(1, SCAN_PAGE_MESSAGES)
}
