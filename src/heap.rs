//! The allocator, and what it makes of a size, for the ledger of memory.
//!
//! mimalloc's own functions for aligned blocks take room for an alignment that every block has anyway: 160 bytes
//! become 192, and a chunk of 48 KiB 56. So they are called for unusual alignments only.

use libmimalloc_sys as mi;
use std::alloc::{GlobalAlloc, Layout};

/// mimalloc.
#[derive(Debug)]
pub struct Allocator;

/// Whether every block of this size has this alignment: blocks of up to 8 bytes are aligned to 8, others to 16.
fn is_natural(size: usize, align: usize) -> bool {
    align <= 8 || (align <= 16 && size > 8)
}

// SAFETY: mimalloc gives blocks of at least the size and, by `is_natural` or by its own function, the alignment;
// it frees and resizes its own blocks whichever function made them.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if is_natural(size, align) {
            // SAFETY: takes any size; null when there is no memory.
            return unsafe { mi::mi_malloc(size) }.cast();
        }
        // SAFETY: a layout's alignment is a power of two.
        unsafe { mi::mi_malloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if is_natural(size, align) {
            // SAFETY: as in `alloc`.
            return unsafe { mi::mi_zalloc(size) }.cast();
        }
        // SAFETY: as in `alloc`.
        unsafe { mi::mi_zalloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back a block of this allocator.
        unsafe { mi::mi_free(block.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        if is_natural(size, align) {
            // SAFETY: the caller gives a block of this allocator; null leaves it as it is.
            return unsafe { mi::mi_realloc(block.cast(), size) }.cast();
        }
        // SAFETY: as above, and a layout's alignment is a power of two.
        unsafe { mi::mi_realloc_aligned(block.cast(), size, align) }.cast()
    }
}

/// Bytes above which the allocator gives whole pages, of which only those are there that were touched.
const PAGED_ABOVE: usize = 32_768;
const PAGE: usize = 4_096;

/// Bytes that mimalloc takes for an allocation: exact classes up to 64 bytes in steps of 16, above that four
/// classes for each doubling; large blocks by the page.
#[inline]
pub fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=64 => bytes.next_multiple_of(16),
        65..=PAGED_ABOVE => {
            let words = bytes.div_ceil(8);
            let step = 1 << ((words - 1).ilog2() - 2);
            8 * ((words + step - 1) & !(step - 1))
        }
        _ => bytes.next_multiple_of(PAGE),
    }
}

/// Bytes of a vector's own memory, as the allocator rounds them.
pub fn vec_bytes<T>(capacity: usize) -> usize {
    allocated(capacity * size_of::<T>())
}

/// Bytes of a box.
pub fn boxed<T>() -> usize {
    allocated(size_of::<T>())
}

/// Bytes of a map or a set of the standard library with this capacity, at most twice as much as was used: a table
/// of a power of two, at most seven eighths full, and a byte beside each entry.
pub fn map_bytes<K, V>(capacity: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    let places = (capacity * 8).div_ceil(7).next_power_of_two();
    allocated(places * (size_of::<(K, V)>() + 1) + 16)
}

/// Changes a counted sum from what was counted before to what there is now.
#[inline]
pub fn recount(sum: &mut u64, before: usize, now: usize) {
    *sum = sum.wrapping_add(now as u64).wrapping_sub(before as u64);
}

/// How many bytes of a sum were counted for one thing, in one byte of that thing: rounded up as the allocator
/// rounds, by a quarter at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted(u8);

impl Counted {
    fn new(bytes: usize) -> Counted {
        let words = bytes.div_ceil(8);
        if words <= 8 {
            return Counted(words as u8);
        }
        let digit = (words - 1).ilog2();
        Counted((4 * digit + (((words - 1) >> (digit - 2)) as u32 & 3) - 3) as u8)
    }

    /// What is in the sum.
    pub fn bytes(self) -> u64 {
        let class = u64::from(self.0);
        if class <= 8 { 8 * class } else { (8 * (5 + (class + 3) % 4)) << (class.div_ceil(4) - 2) }
    }

    /// Corrects the sum: there are so many bytes now.
    #[inline]
    pub fn recount(&mut self, sum: &mut u64, bytes: usize) {
        let now = Counted::new(bytes);
        if now != *self {
            *sum = sum.wrapping_add(now.bytes()).wrapping_sub(self.bytes());
            *self = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4_096] {
            for size in [1, 7, 8, 9, 16, 24, 40, 80, 160, 1_000, 49_152, 200_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: blocks of our own, used within their sizes, freed with the layout that they have then.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(block.addr().is_multiple_of(align) && *block == 0, "{size} {align}");
                    *block = 7;
                    let larger = Allocator.realloc(block, layout, 3 * size);
                    assert!(larger.addr().is_multiple_of(align) && *larger == 7, "{size} {align}");
                    let other = Allocator.alloc(layout);
                    assert!(other.addr().is_multiple_of(align), "{size} {align}");
                    Allocator.dealloc(other, layout);
                    Allocator.dealloc(larger, Layout::from_size_align(3 * size, align).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_count_in_a_byte_is_near_and_leaves_no_rest() {
        let (mut sum, mut counted) = (0, Counted::default());
        for bytes in (0..70_000).chain([1 << 20, (1 << 20) + 1, 1 << 32, 3 << 40, 0]) {
            counted.recount(&mut sum, bytes);
            let most = (bytes + bytes / 4).max(bytes.next_multiple_of(8));
            assert!((bytes..=most).contains(&(sum as usize)), "{bytes} became {sum}");
            if (65..=PAGED_ABOVE).contains(&bytes) {
                assert_eq!(sum as usize, allocated(bytes));
            }
        }
        assert_eq!(sum, 0);
    }

    #[test]
    fn sizes_are_those_of_the_allocator() {
        // What mi_usable_size says of a block, from mimalloc's table of bins.
        let known =
            [(1, 8), (9, 16), (17, 32), (33, 48), (64, 64), (65, 80), (88, 96), (97, 112), (129, 160)];
        let larger = [(513, 640), (1_025, 1_280), (1_281, 1_536), (8_193, 10_240), (40_000, 40_960)];
        for (bytes, class) in known.into_iter().chain(larger) {
            assert_eq!(allocated(bytes), class, "{bytes}");
        }
        assert!((0..100_000).all(|n| allocated(n) >= n && allocated(allocated(n)) == allocated(n)));
    }
}
