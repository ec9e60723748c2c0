//! Numbers that are given once in the life of a store, without asking anybody.

use crate::io::ShardId;
use crate::limits::SHARDS_MAX;

/// Bits of the count within one start of one shard: 4.4 million million.
const COUNT_BITS: u32 = 42;
const SHARD_BITS: u32 = 6;
const _: () = assert!(1 << SHARD_BITS == SHARDS_MAX);

/// Identities for sessions and bodies: the start of the store, the shard, and a count. They rise within a shard.
#[derive(Clone, Debug)]
pub struct Ids {
    next: u64,
}

impl Ids {
    /// Those of a shard, in start number `starts` of the store ([`super::Engine::starts`], which begins at 1); the
    /// numbers come again after 65,536 starts.
    pub fn new(starts: u64, shard: ShardId) -> Ids {
        let shard = u64::from(shard) & ((1 << SHARD_BITS) - 1);
        Ids { next: starts << (COUNT_BITS + SHARD_BITS) | shard << COUNT_BITS | 1 }
    }

    /// The number of this start of the store.
    pub fn start(&self) -> u64 {
        self.next >> (COUNT_BITS + SHARD_BITS)
    }

    /// The next one; never 0.
    pub fn issue(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }
}
