//! The atomics and cells that this floor is built from: std's, or loom's with the feature `loom`.

#[cfg(feature = "loom")]
pub(super) use loom::{
    alloc::{alloc, dealloc},
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(feature = "loom"))]
pub(super) use std::{
    alloc::{alloc, dealloc},
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// std's cell with the access functions of loom's, so that loom sees each access.
#[cfg(not(feature = "loom"))]
#[derive(Debug)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(feature = "loom"))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Gives `access` a pointer to the value; following it is as unsafe as with std's cell.
    pub(super) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// A value on cache lines of its own; two, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);
