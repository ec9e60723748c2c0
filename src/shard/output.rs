//! Output on its way to the driver, and the end of connections.

use super::connection::{Changed, Phase};
use super::timers::Timer;
use super::{Handover, Shard, wrapped};
use crate::io::{Close, Conn, Io};
use crate::limits::CLOSE_FLUSH_MS_MAX;
use crate::transport::CloseCode;

impl<I: Io<Handover>> Shard<I> {
    /// Tells the driver to close, once for each way.
    pub(super) fn shut(&mut self, conn: Conn, how: Close) {
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        c.enter(Phase::Closing, &mut self.local.gauges);
        if !c.shut {
            c.shut = true;
            c.cut = how != Close::Flush;
            c.pending = Vec::new();
            if how != Close::Flush {
                c.link.out.clear();
            }
            self.io.close(conn, how);
        }
    }

    /// Lets what is written leave, within a bounded time, then closes.
    pub(super) fn shut_gently(&mut self, conn: Conn) {
        let Some(slot) = self.local.conns.slot(conn) else { return };
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        if c.shut {
            return;
        }
        c.enter(Phase::Closing, &mut self.local.gauges);
        c.pending = Vec::new();
        c.end_transport(CloseCode::Normal);
        let quiet = !c.busy && !c.has_output();
        if !quiet {
            // What its layers say of the end is output, too.
            self.local.with_link(conn, |_, _| ());
        }
        self.wheel.insert(self.local.now.plus_ms(CLOSE_FLUSH_MS_MAX), Timer::close(slot));
        if quiet {
            self.shut(conn, Close::Flush);
        }
    }

    /// Gives the output of dirty connections to the driver, one send each, and counts what they own.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.local.dirty);
        for conn in dirty.drain(..) {
            let Some(c) = self.local.conns.get_mut(conn) else { continue };
            let changed = std::mem::replace(&mut c.changed, Changed::Nothing);
            if changed == Changed::Session
                && let Some(session) = c.session.and_then(|index| self.local.sessions.get_mut(index))
            {
                session.count(&mut self.local.memory);
            }
            if c.busy || c.shut || c.closed || !c.has_output() {
                c.count(&mut self.local.memory);
                continue;
            }
            let mut out = std::mem::take(&mut c.link.out);
            if self.watching.is_tracing() {
                self.trace_output(conn, &out);
            }
            let Some(c) = self.local.conns.get_mut(conn) else { continue };
            if let Some(transport) = &mut c.transport {
                out = wrapped::seal(transport, out, &mut self.wrapped, &mut self.local.pool);
                c.count_transport(&mut self.local.memory);
                if out.is_empty() {
                    // Nothing can be said before the end of a handshake.
                    if c.phase == Phase::Closing {
                        self.shut(conn, Close::Flush);
                    }
                    continue;
                }
            }
            c.busy = true;
            // What may wait to be sent is bounded far below 4 GiB.
            c.link.sending = out.len() as u32;
            c.link.traffic.sent(out.len());
            let full = c.link.traffic.is_full();
            c.count(&mut self.local.memory);
            self.local.counters.sends += 1;
            let bytes = out.len();
            self.io.send(conn, out);
            self.pace_output(conn, bytes);
            if full {
                self.fold_traffic(conn);
            }
        }
        // Output that was written while a send was under way is marked again when that send is done.
        self.local.dirty = dirty;
    }
}
