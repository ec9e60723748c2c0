//! Plain counters of one shard, and the loss ledger.
