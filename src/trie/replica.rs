//! What other shards say of their subscribers. All of it is idempotent, and says nothing of who subscribes.

use super::place::Spot;
use super::{Route, Trie};
use crate::io::ShardId;

impl Trie {
    /// Shard `from` has its first ordinary subscriber under this route.
    pub fn announced(&mut self, from: ShardId, route: Route<'_>) {
        let bit = self.bit(from);
        let spot = self.open_spot(route);
        let mut place = self.load(spot);
        place.remote |= bit;
        self.store(spot, place);
    }

    /// Shard `from` has no ordinary subscriber under this route any more; it is not full either.
    pub fn withdrawn(&mut self, from: ShardId, route: Route<'_>) {
        let bit = self.bit(from);
        let Some(spot) = self.find_spot(route) else { return };
        let mut place = self.load(spot);
        place.remote &= !bit;
        place.full &= !bit;
        self.store(spot, place);
    }

    /// Shard `from` has a full subscriber under this route, or has none any more. Without effect on a route
    /// that it has not announced.
    pub fn set_full(&mut self, from: ShardId, route: Route<'_>, full: bool) {
        let bit = self.bit(from);
        let Some(spot) = self.find_spot(route) else { return };
        let mut place = self.load(spot);
        place.full = if full { place.full | bit & place.remote } else { place.full & !bit };
        self.store(spot, place);
    }

    pub(super) fn bit(&self, from: ShardId) -> u64 {
        assert!(from != self.me && usize::from(from) < self.shards, "shard {from} speaks to {}", self.me);
        1 << from
    }

    /// The place of a route, made where it is missing: something must be stored there.
    pub(super) fn open_spot(&mut self, route: Route<'_>) -> Spot {
        match route {
            Route::Exact(key) => Spot::Exact(key),
            Route::Wild(text) => Spot::Wild(self.nodes.open(text)),
        }
    }
}
