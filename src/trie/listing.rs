//! The local filters one by one, for whoever lists them.

use super::{Trie, slab::NONE};

impl Trie {
    /// Indices of local filters are below this.
    pub fn filters_end(&self) -> u32 {
        self.routes.end()
    }

    /// The local filter at an index, if it has subscribers here: its text, and a bit for each other shard that has
    /// some of it, as far as that was announced.
    pub fn filter_at(&self, index: u32) -> Option<(&str, u64)> {
        let entry = self.routes.lookup(index)?;
        let place = self.load(self.spot(index));
        let (mut here, mut others) = (!entry.subs.is_empty(), place.remote);
        let mut next = place.groups;
        while next != NONE {
            let group = &self.groups[next];
            here |= group.route == index && !group.subs.is_empty();
            others |= group.shards();
            next = group.next;
        }
        here.then_some((&*entry.text, others))
    }
}
