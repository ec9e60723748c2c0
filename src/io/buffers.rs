//! The receive buffers that the kernel takes from a ring of its own, and that we put back.
//!
//! The memory is mapped and not touched: a buffer costs nothing until it has been received into.

use super::net;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::mem::size_of;
use std::sync::atomic::{AtomicU16, Ordering};

/// The group that receives choose from.
pub(super) const GROUP: u16 = 0;

/// Bytes of a page.
const PAGE_BYTES: usize = 4_096;

/// A private anonymous mapping.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let (protection, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: start.cast(), len })
    }
}

impl Mapping {
    /// Bytes of the pages that were ever touched; 0 where the kernel does not tell.
    fn resident(&self) -> usize {
        let mut pages = vec![0u8; self.len.div_ceil(PAGE_BYTES)];
        // SAFETY: the mapping is ours, page-aligned, and the vector has a byte for each of its pages.
        let told = unsafe { libc::mincore(self.start.cast(), self.len, pages.as_mut_ptr()) };
        match net::check(told) {
            Ok(_) => pages.iter().filter(|page| **page & 1 != 0).count() * PAGE_BYTES,
            Err(_) => 0,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: mapped in `new` and unmapped once.
        let unmapped = unsafe { libc::munmap(self.start.cast(), self.len) };
        debug_assert!(net::check(unmapped).is_ok(), "a mapping of ours");
    }
}

/// The buffers of one ring. They must outlive it: the kernel writes into them.
pub(super) struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    bytes: u32,
    tail: u16,
    /// Buffers in the kernel's hands, as far as the completions that were reaped tell.
    available: usize,
    unpublished: bool,
}

impl Buffers {
    /// Maps and registers `count` buffers (a power of two up to 32,768) of `bytes` each.
    pub(super) fn new(submitter: &Submitter<'_>, count: u16, bytes: u32) -> io::Result<Buffers> {
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * bytes as usize)?;
        // SAFETY: the mapping has room for `count` entries, is page-aligned, and lives as long as the ring.
        unsafe { submitter.register_buf_ring_with_flags(ring.start as u64, count, GROUP, 0) }?;
        let mut buffers = Buffers { ring, memory, count, bytes, tail: 0, available: 0, unpublished: false };
        for id in 0..count {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Where a buffer begins.
    pub(super) fn start(&self, id: u16) -> *const u8 {
        assert!(id < self.count, "the kernel names buffers that it was given");
        // SAFETY: within the mapping, as was checked.
        unsafe { self.memory.start.add(usize::from(id) * self.bytes as usize) }
    }

    /// A lease of the buffer ends. It must be one of ours.
    pub(super) fn release(&mut self, id: u16, start: *const u8) {
        assert!(std::ptr::eq(self.start(id), start), "a lease is released to the driver that made it");
        self.give(id);
    }

    /// Whether a buffer that was received into has not come back: somebody holds a lease of it.
    pub(super) fn leased(&self) -> bool {
        self.available < usize::from(self.count)
    }

    /// The kernel took a buffer.
    pub(super) fn taken(&mut self) {
        self.available = self.available.saturating_sub(1);
    }

    /// A buffer comes back; the kernel sees it at the next `publish`.
    pub(super) fn give(&mut self, id: u16) {
        let start = self.start(id) as u64;
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: within the mapping, because the count is a power of two; the kernel reads entries below
        // the published tail only, and this one is above it.
        let entry = unsafe { &mut *self.ring.start.cast::<BufRingEntry>().add(place) };
        entry.set_addr(start);
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
        self.unpublished = true;
    }

    /// Lets the kernel see what came back.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            // SAFETY: the tail lies in the first entry of the mapping, aligned, and the kernel only reads it.
            let tail = unsafe { &*BufRingEntry::tail(self.ring.start.cast()).cast::<AtomicU16>() };
            tail.store(self.tail, Ordering::Release);
        }
    }

    /// Bytes of the buffers that were received into.
    pub(super) fn resident(&self) -> usize {
        self.memory.resident()
    }

    /// Leaves the memory to the kernel for ever, see the driver's end.
    pub(super) fn leak(&mut self) {
        (self.ring.len, self.memory.len) = (0, 0);
    }

    pub(super) fn available(&self) -> usize {
        self.available
    }
}
