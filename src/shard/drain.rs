//! Stopping: tell, flush, close, within a bounded time.

use super::connection::Phase;
use super::obstacle::Obstacle;
use super::sessions::End;
use super::{Handover, Shard};
use crate::codec::ReasonCode;
use crate::io::{Close, Io};
use crate::limits::TICK_DRAINS_MAX;
use crate::time::Moment;

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    /// When what is left is cut off.
    cut: Moment,
    /// The next connection to be told.
    next: u32,
    was_cut: bool,
}

impl<I: Io<Handover>> Shard<I> {
    pub(super) fn start_drain(&mut self, within_ms: u64) {
        if self.drain.is_none() {
            self.io.accept_stop();
            let cut = self.local.now.plus_ms(within_ms);
            self.drain = Some(Drain { cut, next: 0, was_cut: false });
        }
    }

    /// What 5.0 clients are told at the end: that there is another broker, where one is configured.
    pub(super) fn farewell_code(&self) -> ReasonCode {
        if self.local.options.server_reference.is_empty() {
            return ReasonCode::SERVER_SHUTTING_DOWN;
        }
        ReasonCode::USE_ANOTHER_SERVER
    }

    pub(super) fn go_on_draining(&mut self) {
        let Some(mut drain) = self.drain.take() else { return };
        let end = self.local.conns.end();
        let stop = end.min(drain.next.saturating_add(TICK_DRAINS_MAX as u32));
        while drain.next < stop {
            match self.local.conns.get(drain.next).map(|c| c.phase) {
                Some(Phase::Serving) => {
                    let (code, text) = (self.farewell_code(), "the broker is shutting down");
                    self.disconnect(drain.next, code, text, End::Stopped);
                }
                Some(Phase::Connecting | Phase::Proxied) => self.shut(drain.next, Close::Now),
                _ => {}
            }
            drain.next += 1;
        }
        // What cannot be written now is not waited for: none of it was acknowledged.
        let cannot = self.obstacle() == Some(Obstacle::ReadOnly);
        let kept = cannot || self.local.keeper.as_ref().is_none_or(|keeper| keeper.is_written());
        if drain.next >= end && self.local.conns.is_empty() && kept {
            self.stopped = true;
        } else if self.local.now >= drain.cut {
            // One more grace of a second for the driver to finish its closes, then the process goes.
            if drain.was_cut {
                self.stopped = self.local.now >= drain.cut.plus_ms(1_000);
            } else {
                drain.was_cut = true;
                (0..end).for_each(|conn| self.cut_off(conn));
            }
        }
        self.drain = Some(drain);
    }
}
