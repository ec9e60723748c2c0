//! The seeded hash map, and the one stable keyed hash that homes and routes share.
//!
//! Keys come from peers, so every map is keyed by a secret of this process. [`Keyed`] is the same on all
//! shards of one process and is never written to disk or wire.

use std::hash::BuildHasher;

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

    /// The key of a pair of strings, such as a filter and a share name.
    pub fn key_pair(&self, a: &str, b: &str) -> u64 {
        self.0.hash_one((a, b))
    }
}
