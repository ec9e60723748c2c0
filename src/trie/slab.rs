//! A slab of chunks: `u32` indices, no move of what is in it, no doubling of the whole.

use crate::heap::vec_bytes;

/// Entries of a chunk. The first chunk grows by doubling, so that a small slab is small.
const CHUNK: usize = 1024;

/// "No index", where an index may be missing.
pub(crate) const NONE: u32 = u32::MAX;

/// Indices are below 2^30, so that two bits beside them are free.
const INDEX_MAX: usize = 1 << 30;

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    /// The next free index.
    Free(u32),
}

/// Values by index. An index is reused after its value was removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Indices in use are below this.
    pub(crate) fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let index = self.free;
            let slot = self.slot_mut(index);
            match std::mem::replace(slot, Slot::Used(value)) {
                Slot::Free(next) => self.free = next,
                Slot::Used(_) => unreachable!("the free list names free slots only"),
            }
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            let first = self.chunks.is_empty();
            self.chunks.push(if first { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        let at = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("a chunk with room was pushed above");
        let index = at + chunk.len();
        assert!(index < INDEX_MAX, "a shard holds at most 2^30 of a kind");
        chunk.push(Slot::Used(value));
        index as u32
    }

    /// Removes what the caller knows to be there. The memory goes back when nothing is left.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let free = self.free;
        match std::mem::replace(self.slot_mut(index), Slot::Free(free)) {
            Slot::Used(value) => {
                self.free = index;
                self.len -= 1;
                if self.len == 0 {
                    *self = Slab::new();
                }
                value
            }
            Slot::Free(_) => unreachable!("index {index} was removed before"),
        }
    }

    pub(crate) fn lookup(&self, index: u32) -> Option<&T> {
        match self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Bytes that it holds, beside what its values own.
    pub(crate) fn bytes(&self) -> usize {
        let first = self.chunks.first().map_or(0, |chunk| vec_bytes::<Slot<T>>(chunk.capacity()));
        let others = self.chunks.len().saturating_sub(1) * vec_bytes::<Slot<T>>(CHUNK);
        first + others + vec_bytes::<Vec<Slot<T>>>(self.chunks.capacity())
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match &self.chunks[index as usize / CHUNK][index as usize % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("index {index} is in use"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match self.slot_mut(index) {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("index {index} is in use"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_reused_and_memory_goes_back() {
        let mut slab = Slab::new();
        let all: Vec<u32> = (0..3000).map(|n| slab.insert(Box::new(n))).collect();
        assert_eq!((slab.len(), slab.end()), (3000, 3000));
        assert_eq!(*slab.remove(1500), 1500);
        assert!(slab.lookup(1500).is_none() && slab.lookup(5000).is_none());
        assert_eq!(slab.insert(Box::new(7)), 1500);
        assert_eq!(*slab[1500], 7);
        for index in all {
            slab.remove(index);
        }
        assert_eq!((slab.len(), slab.end(), slab.bytes()), (0, 0, 0));
    }
}
