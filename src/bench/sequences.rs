//! A set of sequence numbers: small where they are without gaps, exact where they are not.

const CHUNK: usize = 4096;
const WORDS: usize = CHUNK / 64;

/// Sequence numbers in chunks of 4,096: a full or an empty chunk takes 8 bytes, another one 512 more.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    chunks: Vec<Chunk>,
    len: u64,
    end: u64,
}

#[derive(Clone, Debug, Default)]
enum Chunk {
    #[default]
    Empty,
    Full,
    Some(Box<[u64; WORDS]>),
}

impl Chunk {
    fn word(&self, at: usize) -> u64 {
        match self {
            Chunk::Empty => 0,
            Chunk::Full => u64::MAX,
            Chunk::Some(words) => words[at],
        }
    }

    /// Adds a bit and says whether it is new.
    fn insert(&mut self, bit: usize) -> bool {
        let (at, mask) = (bit / 64, 1u64 << (bit % 64));
        if let Chunk::Empty = self {
            *self = Chunk::Some(Box::new([0; WORDS]));
        }
        let Chunk::Some(words) = self else { return false };
        let new = words[at] & mask == 0;
        words[at] |= mask;
        if words[at] == u64::MAX && words.iter().all(|word| *word == u64::MAX) {
            *self = Chunk::Full;
        }
        new
    }
}

impl Sequences {
    /// Adds a number and says whether it is new.
    pub fn insert(&mut self, sequence: u32) -> bool {
        let (chunk, bit) = (sequence as usize / CHUNK, sequence as usize % CHUNK);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, Chunk::Empty);
        }
        let new = self.chunks[chunk].insert(bit);
        self.len += u64::from(new);
        self.end = self.end.max(u64::from(sequence) + 1);
        new
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// One above the highest.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many of these are not in `other`.
    pub fn missing_in(&self, other: &Sequences) -> u64 {
        let mut missing = 0;
        for (at, chunk) in self.chunks.iter().enumerate() {
            let there = other.chunks.get(at).unwrap_or(&Chunk::Empty);
            match (chunk, there) {
                (Chunk::Empty, _) | (_, Chunk::Full) => {}
                _ => {
                    let words = (0..WORDS).map(|w| chunk.word(w) & !there.word(w));
                    missing += words.map(|word| u64::from(word.count_ones())).sum::<u64>();
                }
            }
        }
        missing
    }

    /// Numbers below the highest that are not there, and not below the lowest.
    pub fn gaps(&self) -> u64 {
        let first = self.chunks.iter().enumerate().find_map(|(at, chunk)| {
            let word = (0..WORDS).find(|w| chunk.word(*w) != 0)?;
            Some((at * CHUNK + word * 64) as u64 + u64::from(chunk.word(word).trailing_zeros()))
        });
        first.map_or(0, |first| self.end - first - self.len)
    }

    /// Takes another set in and returns how many are in both.
    pub fn merge(&mut self, other: &Sequences) -> u64 {
        let before = self.len + other.len;
        for (at, chunk) in other.chunks.iter().enumerate() {
            for word in 0..WORDS {
                let mut bits = chunk.word(word);
                while bits != 0 {
                    self.insert((at * CHUNK + word * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
        before - self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(numbers: impl IntoIterator<Item = u32>) -> Sequences {
        let mut set = Sequences::default();
        for n in numbers {
            set.insert(n);
        }
        set
    }

    #[test]
    fn it_agrees_with_a_tree_over_random_operations() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as u32
        };
        let (mut a, mut b) = (Sequences::default(), Sequences::default());
        let (mut c, mut d) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..60_000 {
            let n = next(3 * CHUNK as u64);
            assert_eq!(a.insert(n), c.insert(n));
            let n = 2000 + next(5 * CHUNK as u64);
            assert_eq!(b.insert(n), d.insert(n));
        }
        assert_eq!((a.len(), a.missing_in(&b)), (c.len() as u64, c.difference(&d).count() as u64));
        assert_eq!(b.missing_in(&a), d.difference(&c).count() as u64);
        let both = c.intersection(&d).count() as u64;
        assert_eq!(a.merge(&b), both);
        assert_eq!(a.len(), c.union(&d).count() as u64);
    }

    #[test]
    fn without_gaps_it_stays_small() {
        let all = set(0..10 * CHUNK as u32);
        assert!(all.chunks.iter().all(|chunk| matches!(chunk, Chunk::Full)));
        assert_eq!((all.len(), all.end(), all.gaps()), (40_960, 40_960, 0));
        assert!(!all.clone().insert(5));
    }

    #[test]
    fn gaps_count_from_the_first_to_the_last() {
        assert_eq!(set([]).gaps(), 0);
        assert_eq!(set([5000]).gaps(), 0);
        assert_eq!(set([5000, 5002, 9000]).gaps(), 3998);
    }
}
