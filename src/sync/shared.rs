//! A head, a text and two byte strings in one counted allocation, behind one thin pointer.
//!
//! Invariants:
//! - The block is laid out as [`Block`], followed at once by as many initialised bytes as its three lengths say.
//! - The first `text` of them are a copy of a `str`.
//! - `count` is the number of [`Shared`] that point to the block; the one that takes it to zero frees it.
//! - Nothing in the block but `count` changes after [`Shared::new`].

use super::meter;
use super::primitive::{AtomicU32, Ordering, alloc, dealloc, fence};
use crate::heap::allocated;
use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// Above this the count aborts: so far below the wrap that racing threads cannot reach it in between.
const COUNT_MAX: u32 = u32::MAX / 2;

#[repr(C)]
struct Block<H> {
    count: AtomicU32,
    text: u32,
    middle: u32,
    rest: u32,
    head: H,
}

impl<H> Block<H> {
    /// Bytes behind the block.
    fn len(&self) -> usize {
        self.text as usize + self.middle as usize + self.rest as usize
    }
}

/// A shared, immutable head `H` with a text and two byte strings: one allocation, 8 bytes a reference.
///
/// Costs `16 + size_of::<H>() + bytes` of memory, rounded up by the allocator.
pub struct Shared<H> {
    block: NonNull<Block<H>>,
    /// Dropping a `Shared` may drop an `H`.
    owns: PhantomData<Block<H>>,
}

const _: () = assert!(size_of::<Shared<u64>>() == 8 && size_of::<Option<Shared<u64>>>() == 8);

// SAFETY: a `Shared` gives `&H` and `&[u8]` to each thread that has a clone (so `H: Sync`), and the thread of
// the last clone drops the `H` (so `H: Send`); the count is atomic.
unsafe impl<H: Send + Sync> Send for Shared<H> {}
// SAFETY: as for `Send`: through `&Shared` a thread can make a clone of its own.
unsafe impl<H: Send + Sync> Sync for Shared<H> {}

impl<H> Shared<H> {
    /// Copies the three one after another behind `head`.
    ///
    /// # Panics
    /// When one of them has 4 GiB or more; a packet is below 256 MiB.
    pub fn new(head: H, text: &str, middle: &[u8], rest: &[u8]) -> Shared<H> {
        let parts = [text.as_bytes(), middle, rest];
        let [text, middle, rest] =
            parts.map(|part| u32::try_from(part.len()).expect("a part of a packet is below 4 GiB"));
        let new = Block { count: AtomicU32::new(1), text, middle, rest, head };
        let len = new.len();
        let (layout, offset) = Self::layout(len);
        // SAFETY: a `Block` holds a count, so the layout is not of size zero.
        let start = unsafe { alloc(layout) };
        let Some(block) = NonNull::new(start.cast::<Block<H>>()) else { handle_alloc_error(layout) };
        meter::count(allocated(layout.size()) as i64);
        // SAFETY: `block` is fresh, aligned for `Block<H>` and large enough for it.
        unsafe { block.as_ptr().write(new) };
        let mut at = offset;
        for part in parts {
            // SAFETY: the allocation has `offset + len` bytes, `len` is the sum over the parts, and fresh
            // memory does not overlap a part.
            unsafe { start.add(at).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            at += part.len();
        }
        debug_assert_eq!(at, offset + len);
        Shared { block, owns: PhantomData }
    }

    /// The text, the middle and the rest.
    pub fn parts(&self) -> (&str, &[u8], &[u8]) {
        let block = self.block();
        let offset = size_of::<Block<H>>();
        // SAFETY: `new` initialised `len` bytes at this offset of the same allocation, from which `block`
        // came; they live as long as this reference to the block.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.block.as_ptr().cast::<u8>().add(offset), block.len()) };
        let (text, others) = bytes.split_at(block.text as usize);
        let (middle, rest) = others.split_at(block.middle as usize);
        // SAFETY: `new` copied these bytes from a `str`.
        (unsafe { std::str::from_utf8_unchecked(text) }, middle, rest)
    }

    /// Bytes of the three together.
    pub fn len(&self) -> usize {
        self.block().len()
    }

    /// Whether all three are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many references there are; of use only to tests and to the ledger of memory, for it may have
    /// changed already.
    pub fn count(&self) -> usize {
        self.block().count.load(Ordering::Relaxed) as usize
    }

    /// Whether both are the same allocation.
    pub fn same(&self, other: &Shared<H>) -> bool {
        self.block == other.block
    }

    fn block(&self) -> &Block<H> {
        // SAFETY: the block is initialised, lives while a `Shared` counts on it, and is never borrowed
        // mutably but by the last one in `drop`.
        unsafe { self.block.as_ref() }
    }

    /// The layout of a block with `len` bytes, and where the bytes start in it.
    fn layout(len: usize) -> (Layout, usize) {
        let bytes = Layout::array::<u8>(len).expect("4 GiB fit an isize");
        let (layout, offset) = Layout::new::<Block<H>>().extend(bytes).expect("4 GiB fit an isize");
        debug_assert_eq!(offset, size_of::<Block<H>>());
        (layout, offset)
    }
}

impl<H> Deref for Shared<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.block().head
    }
}

impl<H> Clone for Shared<H> {
    fn clone(&self) -> Shared<H> {
        // Relaxed: whoever clones has a reference already, and passing the clone on synchronises.
        if self.block().count.fetch_add(1, Ordering::Relaxed) > COUNT_MAX {
            // A panic would be caught and the count stay wrong; a wrapped count is a use after free.
            std::process::abort();
        }
        Shared { block: self.block, owns: PhantomData }
    }
}

impl<H> Drop for Shared<H> {
    fn drop(&mut self) {
        // Release: what this thread read from the block happened before the block is freed.
        let before = self.block().count.fetch_sub(1, Ordering::Release);
        debug_assert!(before >= 1, "a reference that is dropped was counted");
        if before != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let (layout, _) = Self::layout(self.len());
        meter::count(-(allocated(layout.size()) as i64));
        // SAFETY: this was the last reference, and the fence orders all that the others did before; the
        // block came from `alloc` with this very layout, because the lengths never change.
        unsafe {
            self.block.as_ptr().drop_in_place();
            dealloc(self.block.as_ptr().cast::<u8>(), layout);
        }
    }
}

impl<H: fmt::Debug> fmt::Debug for Shared<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("head", &**self).field("bytes", &self.len()).finish()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn head_and_parts_come_back() {
        let shared = Shared::new((7u8, 9u64), "to\u{f6}pic", b"", b"payload");
        assert_eq!(*shared, (7, 9));
        assert_eq!(shared.parts(), ("to\u{f6}pic", &b""[..], &b"payload"[..]));
        assert_eq!(shared.len(), 14);
        let empty = Shared::new((), "", b"", b"");
        assert!(empty.is_empty() && empty.parts() == ("", &[], &[]));
        assert_eq!(format!("{:?}", Shared::new(3, "", b"a", b"b")), "Shared { head: 3, bytes: 2 }");
    }

    #[test]
    fn heads_of_any_alignment() {
        #[repr(align(64))]
        #[derive(Debug)]
        struct Wide(u8);
        let wide = Shared::new(Wide(5), "x", b"y", b"z");
        assert_eq!((wide.0, wide.parts()), (5, ("x", &b"y"[..], &b"z"[..])));
        assert_eq!(std::ptr::from_ref::<Wide>(&wide) as usize % 64, 0);
        let narrow = Shared::new(1u8, "x", b"y", b"z");
        assert_eq!((*narrow, narrow.parts()), (1, ("x", &b"y"[..], &b"z"[..])));
    }

    #[test]
    fn the_last_reference_drops_the_head_once() {
        let witness = Arc::new(());
        let a = Shared::new(witness.clone(), "x", b"", b"");
        let b = a.clone();
        assert!(a.same(&b) && !a.same(&Shared::new(witness.clone(), "", b"", b"")));
        assert_eq!((a.count(), Arc::strong_count(&witness)), (2, 2));
        drop(a);
        assert_eq!((b.count(), Arc::strong_count(&witness)), (1, 2));
        drop(b);
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn threads_clone_and_drop() {
        let witness = Arc::new(());
        let shared = Shared::new(witness.clone(), "", b"", &[42u8; 1000]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mine = shared.clone();
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for turn in 0..2_000 {
                        kept.push(mine.clone());
                        assert_eq!(kept[turn / 2].parts().2[turn % 1000], 42);
                        if turn % 7 == 0 {
                            kept.truncate(turn / 2 + 1);
                        }
                    }
                });
            }
        });
        assert_eq!(shared.count(), 1);
        drop(shared);
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    /// A head that is written to when it is dropped: loom fails where a read of it is not ordered before that.
    struct Head {
        value: UnsafeCell<u32>,
        drops: Arc<AtomicUsize>,
    }

    // SAFETY: read through clones, and written to by `drop` alone, which is what the models check.
    unsafe impl Sync for Head {}

    impl Drop for Head {
        fn drop(&mut self) {
            // SAFETY: nobody else is left, says what is tested; loom checks it.
            self.value.with_mut(|value| unsafe { *value = 0 });
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(shared: &Shared<Head>) {
        // SAFETY: only `drop` writes; loom checks it.
        assert_eq!(shared.value.with(|value| unsafe { *value }), 7);
        assert_eq!(shared.parts(), ("by", &b"t"[..], &b"es"[..]));
    }

    fn shared(drops: &Arc<AtomicUsize>) -> Shared<Head> {
        Shared::new(Head { value: UnsafeCell::new(7), drops: drops.clone() }, "by", b"t", b"es")
    }

    /// Loom also fails where the block is not freed.
    #[test]
    fn the_last_of_three_threads_frees_what_the_others_have_read() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let mine = shared(&drops);
            let threads =
                [mine.clone(), mine.clone()].map(|theirs| loom::thread::spawn(move || read(&theirs)));
            read(&mine);
            drop(mine);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_clone_keeps_it_while_others_let_go() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let mine = shared(&drops);
            let theirs = mine.clone();
            let other = loom::thread::spawn(move || {
                let again = theirs.clone();
                drop(theirs);
                read(&again);
                again
            });
            drop(mine);
            let last = other.join().unwrap();
            assert_eq!((last.count(), drops.load(Ordering::Relaxed)), (1, 0));
            read(&last);
            drop(last);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        });
    }
}
