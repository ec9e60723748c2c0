//! The seeded hash map, and the one stable keyed hash that homes and routes share.
//!
//! Keys come from peers, so every map is keyed by a secret of this process. [`Keyed`] is the same on all
//! shards of one process and is never written to disk or wire.

use crate::heap::vec_bytes;
use crate::limits::SLAB_CHUNK_ENTRIES;

/// A map whose keys a peer may choose.
pub type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;
/// A set whose keys a peer may choose.
pub type Set<K> = std::collections::HashSet<K, ahash::RandomState>;

/// A keyed 64-bit hash, equal on all shards of a process.
#[derive(Clone, Debug)]
pub struct Keyed(ahash::RandomState);

impl Keyed {
    /// `seed` is a secret of the process (in a simulation: the run's seed).
    pub fn new(seed: u64) -> Keyed {
        let s = |k: u64| seed.rotate_left(k as u32 * 13) ^ 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(k + 1);
        Keyed(ahash::RandomState::with_seeds(s(0), s(1), s(2), s(3)))
    }

    /// The key of a string: of a topic filter, of a client identifier.
    pub fn key(&self, text: &str) -> u64 {
        self.0.hash_one(text)
    }

    /// The shard, of `shards`, that a client identifier or a retained message's topic belongs to.
    pub fn home(&self, text: &str, shards: usize) -> usize {
        (self.key(text) % shards as u64) as usize
    }

    /// The key of a pair of strings, such as a filter and a share name.
    pub fn key_pair(&self, a: &str, b: &str) -> u64 {
        self.0.hash_one((a, b))
    }
}

/// Where a value of a [`Slab`] is: the generation tells a later tenant of the same index apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Slot {
    /// Dense index.
    pub index: u32,
    /// Which tenant of that index.
    pub generation: u32,
}

/// Values by dense index, in chunks, so that growing neither moves nor doubles. Indices are either chosen
/// by the slab ([`Slab::insert`]) or by the caller ([`Slab::put`]); one slab sticks to one of the two.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Vec<Cell<T>>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Cell<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Values in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One above the highest index that was ever in use.
    pub fn end(&self) -> u32 {
        self.chunks.last().map_or(0, |c| ((self.chunks.len() - 1) * SLAB_CHUNK_ENTRIES + c.len()) as u32)
    }

    /// Bytes of its own memory; what its values own on the heap is not in it.
    pub fn bytes(&self) -> usize {
        let first = self.chunks.first().map_or(0, |chunk| vec_bytes::<Cell<T>>(chunk.capacity()));
        // All chunks behind the first have the same size.
        let others = self.chunks.len().saturating_sub(1) * vec_bytes::<Cell<T>>(SLAB_CHUNK_ENTRIES);
        first
            + others
            + vec_bytes::<Vec<Cell<T>>>(self.chunks.capacity())
            + vec_bytes::<u32>(self.free.capacity())
    }

    /// Puts a value where there is room.
    pub fn insert(&mut self, value: T) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| self.end());
        self.put(index, value)
    }

    /// Puts a value at an index that must be free.
    pub fn put(&mut self, index: u32, value: T) -> Slot {
        let (chunk, at) = split(index);
        while self.chunks.len() <= chunk {
            if let Some(last) = self.chunks.last_mut() {
                last.resize_with(SLAB_CHUNK_ENTRIES, || Cell { generation: 0, value: None });
            }
            self.chunks.push(Vec::new());
        }
        let cells = &mut self.chunks[chunk];
        if cells.len() <= at {
            // A small table stays small; behind a full chunk comes another that will be full.
            if chunk > 0 && cells.capacity() == 0 {
                cells.reserve_exact(SLAB_CHUNK_ENTRIES);
            }
            cells.resize_with(at + 1, || Cell { generation: 0, value: None });
        }
        let cell = &mut cells[at];
        assert!(cell.value.is_none(), "index {index} of a slab is in use");
        cell.value = Some(value);
        cell.generation = cell.generation.wrapping_add(1);
        self.len += 1;
        Slot { index, generation: cell.generation }
    }

    /// Takes the value at an index; the index is free for [`Slab::insert`] then.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.take(index)?;
        self.free.push(index);
        Some(value)
    }

    /// Takes the value at an index that the caller chose.
    pub fn take(&mut self, index: u32) -> Option<T> {
        let (chunk, at) = split(index);
        let value = self.chunks.get_mut(chunk)?.get_mut(at)?.value.take()?;
        self.len -= 1;
        Some(value)
    }

    /// The value at an index.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (chunk, at) = split(index);
        self.chunks.get(chunk)?.get(at)?.value.as_ref()
    }

    /// The value at an index.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, at) = split(index);
        self.chunks.get_mut(chunk)?.get_mut(at)?.value.as_mut()
    }

    /// The value of this tenant, if it is still there.
    #[inline]
    pub fn at(&mut self, slot: Slot) -> Option<&mut T> {
        let (chunk, at) = split(slot.index);
        let cell = self.chunks.get_mut(chunk)?.get_mut(at)?;
        cell.value.as_mut().filter(|_| cell.generation == slot.generation)
    }

    /// The slot of the present tenant of an index.
    #[inline]
    pub fn slot(&self, index: u32) -> Option<Slot> {
        let (chunk, at) = split(index);
        let cell = self.chunks.get(chunk)?.get(at)?;
        cell.value.as_ref().map(|_| Slot { index, generation: cell.generation })
    }
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / SLAB_CHUNK_ENTRIES, index as usize % SLAB_CHUNK_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_reuses_indices_and_tells_tenants_apart() {
        let mut slab = Slab::default();
        let slots: Vec<Slot> = (0..3000).map(|k| slab.insert(k)).collect();
        assert_eq!(slab.len(), 3000);
        assert_eq!(slab.remove(slots[1500].index), Some(1500));
        assert_eq!(slab.remove(slots[1500].index), None);
        let again = slab.insert(7);
        assert_eq!(again.index, slots[1500].index);
        assert_eq!(slab.at(slots[1500]), None);
        assert_eq!(slab.at(again), Some(&mut 7));
        assert_eq!(slab.slot(again.index), Some(again));
        assert_eq!(slab.end(), 3000);
    }

    #[test]
    fn a_slab_takes_indices_in_any_order() {
        let mut slab = Slab::default();
        for index in [5000u32, 0, 1023, 1024] {
            slab.put(index, index);
        }
        assert_eq!((slab.len(), slab.end()), (4, 5001));
        assert_eq!(slab.get(1024), Some(&1024));
        assert_eq!(slab.get(1025), None);
        assert_eq!(slab.take(5000), Some(5000));
    }
}
