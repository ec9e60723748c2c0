//! The table of connections and the receive buffers.

use super::super::Lease;
use super::super::driver::NOTHING;
use crate::heap::allocated;
use std::os::fd::RawFd;

/// Where a connection stands.
///
/// ```text
/// Free ─► (Connecting ─►) Open ─► Flushing ─► Lingering ─► Free
///             └────────────┴──┴────────┴─────────┴───────► Free   (Now, Reset, error, time)
///                          └► Moving ─► Free, or back to Open
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    /// No socket; `Closed` may still have to be reported.
    #[default]
    Free,
    /// An attempt to connect is under way.
    Connecting,
    Open,
    /// The last send has to end before the socket is shut down.
    Flushing,
    /// Shut down for writing; input is discarded until the peer's end of stream.
    Lingering,
    /// On its way to another shard, which has the socket.
    Moving,
}

/// The armed read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Armed {
    #[default]
    Nothing,
    Once,
    Stream,
    Parked,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) fd: RawFd,
    pub(super) generation: u32,
    /// Of a stream: bytes that may still be delivered. While lingering: bytes that may still be discarded.
    pub(super) credit: u32,
    /// Place in the outbox of the send under way.
    pub(super) outgoing: u32,
    pub(super) phase: Phase,
    pub(super) armed: Armed,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer ended its stream or the socket failed: a short receive does not mean that all was read.
    pub(super) ended: bool,
    /// In the ready list or among the starved.
    pub(super) queued: bool,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            fd: -1,
            generation: 0,
            credit: 0,
            outgoing: NOTHING,
            phase: Phase::Free,
            armed: Armed::Nothing,
            readable: false,
            writable: false,
            ended: false,
            queued: false,
        }
    }
}

/// The receive buffers; each is allocated when it is first needed.
pub(super) struct Pool {
    /// From `Box::into_raw`: a lease reads what it points to, so nothing else may.
    buffers: Vec<*mut [u8]>,
    free: Vec<u32>,
    max: usize,
    bytes: usize,
}

impl Pool {
    /// At most `max` buffers of `bytes` each.
    pub(super) fn new(max: usize, bytes: usize) -> Pool {
        Pool { buffers: Vec::new(), free: Vec::new(), max, bytes }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        if self.buffers.len() == self.max {
            return None;
        }
        self.buffers.push(Box::into_raw(vec![0; self.bytes].into_boxed_slice()));
        Some(self.buffers.len() as u32 - 1)
    }

    /// Where a buffer that was taken begins, and its length.
    pub(super) fn at(&self, id: u32) -> (*mut u8, usize) {
        let buffer = self.buffers[id as usize];
        (buffer.cast(), buffer.len())
    }

    pub(super) fn give(&mut self, id: u32) {
        self.free.push(id);
    }

    pub(super) fn release(&mut self, lease: Lease) {
        let ours = self
            .buffers
            .get(lease.id as usize)
            .is_some_and(|buffer| std::ptr::eq(buffer.cast(), lease.pointer));
        assert!(ours, "a lease is released to the driver that made it");
        self.give(lease.id);
    }

    /// Bytes of the buffers.
    pub(super) fn bytes(&self) -> usize {
        self.buffers.len() * allocated(self.bytes)
    }

    pub(super) fn available(&self) -> usize {
        self.free.len() + self.max - self.buffers.len()
    }
}

impl Drop for Pool {
    /// What is still leased may be read, so it is left alone rather than freed.
    fn drop(&mut self) {
        for id in self.free.drain(..) {
            // SAFETY: from `Box::into_raw` in `take`. It is free, so no lease reads it, and each is free once:
            // an id comes out of `take` and goes back once, for a lease is released once, by its driver.
            drop(unsafe { Box::from_raw(self.buffers[id as usize]) });
        }
    }
}
