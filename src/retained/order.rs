//! Indices in the order of what they stand for: blocks of indices, found by binary search.
//!
//! A search compares the fewest keys that a search can, and each comparison of topics is a cache miss or two;
//! an insert moves at most one block. 4 to 8 bytes an entry.

use crate::heap::vec_bytes;

/// Entries of a block at most. Moving half of it costs less than the search.
const BLOCK: usize = 512;

/// A place in the order. Valid until the order changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    block: usize,
    at: usize,
}

/// Indices, ordered by a comparison that the caller brings.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// None of them is empty.
    blocks: Vec<Vec<u32>>,
}

impl Order {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| vec_bytes::<u32>(block.capacity()));
        blocks.sum::<usize>() + vec_bytes::<Vec<u32>>(self.blocks.capacity())
    }

    /// The first place that is not `below`; everything before it is.
    pub(super) fn seek(&self, below: impl Fn(u32) -> bool) -> Place {
        let ends_below = |block: &Vec<u32>| block.last().is_some_and(|&last| below(last));
        let block = self.blocks.partition_point(ends_below);
        let at = self.blocks.get(block).map_or(0, |block| block.partition_point(|&index| below(index)));
        Place { block, at }
    }

    /// What is at a place; `None` at the end.
    pub(super) fn entry(&self, place: Place) -> Option<u32> {
        self.blocks.get(place.block)?.get(place.at).copied()
    }

    /// The place behind one that has an entry.
    pub(super) fn next(&self, place: Place) -> Place {
        match self.blocks.get(place.block) {
            Some(block) if place.at + 1 < block.len() => Place { at: place.at + 1, ..place },
            _ => Place { block: place.block + 1, at: 0 },
        }
    }

    /// Inserts in front of what is at `place`.
    pub(super) fn insert(&mut self, place: Place, index: u32) {
        if place.block == self.blocks.len() {
            // Behind everything: ascending inserts fill their blocks.
            match self.blocks.last_mut() {
                Some(last) if last.len() < BLOCK => last.push(index),
                _ => self.blocks.push(vec![index]),
            }
            return;
        }
        let block = &mut self.blocks[place.block];
        if block.len() < BLOCK {
            block.insert(place.at, index);
            return;
        }
        let mut upper = block.split_off(BLOCK / 2);
        match place.at.checked_sub(BLOCK / 2) {
            Some(at) => upper.insert(at, index),
            None => block.insert(place.at, index),
        }
        self.blocks.insert(place.block + 1, upper);
    }

    /// Removes what is at a place that has an entry.
    pub(super) fn remove(&mut self, place: Place) -> u32 {
        let block = &mut self.blocks[place.block];
        let index = block.remove(place.at);
        let len = block.len();
        if len == 0 {
            self.blocks.remove(place.block);
        } else if len < BLOCK / 4
            && let Some(next) = self.blocks.get(place.block + 1)
            && len + next.len() <= BLOCK / 2
        {
            let next = self.blocks.remove(place.block + 1);
            self.blocks[place.block].extend(next);
        }
        if self.blocks.is_empty() {
            self.blocks = Vec::new();
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_sorted_vector() {
        let mut random = 5u64;
        let mut next = move |below: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u32 % below
        };
        let (mut order, mut model) = (Order::default(), Vec::<u32>::new());
        for step in 0..60_000u32 {
            let value = next(8_000);
            let place = order.seek(|index| index < value);
            match model.binary_search(&value) {
                Err(at) if step / 15_000 % 2 == 0 => {
                    order.insert(place, value);
                    model.insert(at, value);
                }
                Err(at) => assert_eq!(order.entry(place), model.get(at).copied()),
                Ok(at) => {
                    assert_eq!(order.entry(place), Some(value));
                    if step / 15_000 % 2 == 1 {
                        assert_eq!(order.remove(place), value);
                        model.remove(at);
                    }
                }
            }
            if step % 1_000 == 999 {
                let mut place = order.seek(|_| false);
                for &value in &model {
                    assert_eq!(order.entry(place), Some(value));
                    place = order.next(place);
                }
                assert_eq!(order.entry(place), None);
                assert!(order.blocks.iter().all(|block| !block.is_empty() && block.len() <= BLOCK));
            }
        }
        assert!(order.blocks.len() < 40, "{} blocks for {} entries", order.blocks.len(), model.len());
    }
}
