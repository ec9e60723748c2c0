//! What shards tell each other, and the background work of a tick.

use super::scans::Reply;
use super::sessions::End;
use super::{Handover, Shard};
use crate::io::{Io, ShardId};
use crate::limits::OVERFLOW_BACKGROUND_MAX;
use crate::mesh::Control;

impl<I: Io<Handover>> Shard<I> {
    /// Handles what the other shards had announced when the tails of their rings were read.
    pub(super) fn drain_control(&mut self) {
        self.recent.turn();
        self.take_answers();
        while let Some((from, control)) = self.mesh.next_control() {
            self.handle_control(from, control);
        }
        self.answer_scan_requests();
    }

    pub(super) fn handle_control(&mut self, from: ShardId, control: Control) {
        match control {
            Control::Announce(route) => self.trie.announced(from, route.as_route()),
            Control::Withdraw(route) => self.trie.withdrawn(from, route.as_route()),
            Control::RouteFull(route) => self.trie.set_full(from, route.as_route(), true),
            Control::RouteNotFull(route) => self.trie.set_full(from, route.as_route(), false),
            Control::GroupCount { route, group, online, offline } => {
                self.trie.remote_group_count(from, route.as_route(), group, online, offline);
            }
            Control::RetainSet { message, stamp, ticket } => {
                self.store_retained(message, stamp);
                self.settle_owner((from, ticket));
            }
            Control::RetainClear { topic, stamp, ticket } => {
                self.clear_retained(&topic, stamp);
                self.settle_owner((from, ticket));
            }
            Control::RetainTight(tight) => self.quota.set_tight(from, tight),
            Control::RetainAsk { conn, message } => self.answer_retain(from, conn, &message),
            Control::RetainMay { conn, may } => self.retain_answered(conn, may),
            Control::KeepAsk { conn, number, topic } => self.answer_keep(from, conn, number, &topic),
            Control::KeepSaid { conn, number, kept } => self.keep_answered(from, conn, number, kept),
            Control::ScanRequest(request) => self.scans.request(from, request),
            Control::ScanItem { scan, message } => self.scans.reply(Reply::Item { scan, message }),
            Control::ScanPage { scan, after } => self.scans.reply(Reply::Page { scan, after }),
            Control::HandOn(on) => self.handle_hand_on(on),
            Control::Durable => {
                if let Some(keeper) = &mut self.local.keeper {
                    keeper.durable |= 1 << from;
                }
            }
            Control::Complete(numbers) => {
                let Some(keeper) = &mut self.local.keeper else { return };
                numbers.iter().for_each(|number| keeper.forget_number(*number));
            }
            Control::Settled(tickets) => tickets.iter().for_each(|ticket| {
                self.op_done(*ticket);
            }),
        }
    }

    /// Work that waits for nobody and is bounded per tick.
    pub(super) fn run_background(&mut self) {
        self.unshelve();
        self.run_backlog();
        self.clean_up();
        self.take_scan_replies();
        self.run_scans();
        self.run_desk();
        self.review();
        self.wake_waiters();
        self.go_on_draining();
    }

    /// Closes the routes of sessions whose queue has become full, so that the very next publisher here knows.
    pub(super) fn close_filled(&mut self) {
        while let Some(index) = self.local.filled.pop() {
            self.close_routes(index);
        }
    }

    /// Ends what deliveries of this tick decided.
    pub(super) fn settle(&mut self) {
        self.close_filled();
        while let Some((conn, code)) = self.local.kick.pop() {
            if self.local.conns.get(conn).is_some_and(|c| c.session.is_some()) {
                self.disconnect(conn, code, "the queue of the session is full", End::Lost);
            }
        }
    }

    /// Tells the other shards how many members of share groups are here.
    pub(super) fn announce_groups(&mut self) {
        while let Some(change) = self.trie.next_dirty_group() {
            self.mesh.broadcast(|| Control::GroupCount {
                route: change.route.clone(),
                group: change.key,
                online: change.online,
                offline: change.offline,
            });
        }
    }

    /// Makes everything of this tick visible to the other shards, before any answer goes to the driver.
    pub(super) fn announce(&mut self) {
        self.flush_store();
        self.mesh.pump();
        // Counts are absolute and wait where they are, so that members that come and go cannot pile them up. A
        // SUBACK has announced its own before.
        if self.mesh.overflow_len() <= OVERFLOW_BACKGROUND_MAX {
            self.announce_groups();
        }
        self.release_held();
        let mut ring = self.mesh.flush();
        if ring != 0 {
            self.mesh.note_rung(ring, self.io.clock_ns());
        }
        while ring != 0 {
            self.io.wake(ring.trailing_zeros() as ShardId);
            ring &= ring - 1;
        }
        self.release_answers();
    }
}
