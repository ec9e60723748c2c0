//! How an answer travels, and how a large one is made part by part.

use crate::limits::{DESK_PAGE_ROWS_MAX, DESK_ROW_COST, LOOK_BYTES};
use std::fmt;

/// Where an answer goes. Taking it never blocks.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// `take` is called on the shard's thread, within its tick: it hands the answer on and does nothing else.
    pub fn new(take: impl FnOnce(T) + Send + 'static) -> Reply<T> {
        Reply(Box::new(take))
    }

    /// Gives the answer.
    pub fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Where a listing goes on within one shard. The default is its start. Only the shard that it comes from knows
/// what it means.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Index of the next thing.
    pub index: u32,
    /// Which part of it.
    pub within: u32,
    /// The text behind which it goes on, where the order is one of texts.
    pub after: Option<Box<str>>,
}

/// Which page is wanted of one shard.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where it begins.
    pub from: Place,
    /// Matching rows to be passed over from there.
    pub skip: u64,
    /// Rows at most, up to [`DESK_PAGE_ROWS_MAX`]; 0 only counts.
    pub limit: usize,
    /// Goes on to the end behind the last row, to count what matches.
    pub count: bool,
}

/// One page of one shard.
#[derive(Debug)]
pub struct Page<R> {
    /// What was found.
    pub rows: Vec<R>,
    /// Where the first matching row behind them is; `None` when there is none.
    pub next: Option<Place>,
    /// Rows that matched: those that were passed over, those of the page, and all behind it where that was wanted.
    pub matched: u64,
}

/// What one tick may still spend on listings; counted in things looked at.
#[derive(Debug)]
pub struct Cost {
    left: usize,
    spent: usize,
}

impl Cost {
    /// This much.
    pub fn new(left: usize) -> Cost {
        Cost { left, spent: 0 }
    }

    /// Spends `n`, even where less is left; false when there was nothing left to spend.
    pub fn spend(&mut self, n: usize) -> bool {
        let some = self.left > 0;
        self.left = self.left.saturating_sub(n);
        self.spent += n;
        some
    }

    /// Spends what comparing or copying so many bytes costs.
    pub fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / LOOK_BYTES);
    }

    /// What is left.
    pub fn left(&self) -> usize {
        self.left
    }

    /// What was spent; the last thing may have cost more than was left.
    pub fn spent(&self) -> usize {
        self.spent
    }
}

/// A listing of one shard under way: what is looked for, where it is, and what it found.
#[derive(Debug)]
pub struct Cursor<Q, R> {
    /// What is looked for.
    pub query: Q,
    /// Where it is; whoever moves it writes it.
    pub at: Place,
    wanted: Wanted,
    page: Page<R>,
    reply: Reply<Page<R>>,
}

impl<Q, R> Cursor<Q, R> {
    /// At its beginning.
    pub fn new(query: Q, wanted: Wanted, reply: Reply<Page<R>>) -> Cursor<Q, R> {
        let wanted = Wanted { limit: wanted.limit.min(DESK_PAGE_ROWS_MAX), ..wanted };
        // Whoever asks makes the room, so that no tick moves rows that it has.
        let page = Page { rows: Vec::with_capacity(wanted.limit), next: None, matched: 0 };
        Cursor { query, at: wanted.from.clone(), wanted, page, reply }
    }

    /// There is something at [`Cursor::at`] that matches: it is passed over, made into a row with so many bytes of
    /// text, or counted. False: the page is complete.
    pub fn offer(&mut self, cost: &mut Cost, bytes: usize, row: impl FnOnce() -> R) -> bool {
        if self.page.matched >= self.wanted.skip {
            if self.page.rows.len() < self.wanted.limit {
                cost.spend(DESK_ROW_COST);
                cost.spend_bytes(bytes);
                self.page.rows.push(row());
            } else {
                if self.page.next.is_none() {
                    self.page.next = Some(self.at.clone());
                }
                if !self.wanted.count {
                    return false;
                }
            }
        }
        self.page.matched += 1;
        true
    }

    /// Whether all that is wanted is how many there are, from the very start.
    pub fn counts_only(&self) -> bool {
        let w = &self.wanted;
        w.count && w.limit == 0 && w.skip == 0 && self.page.matched == 0 && w.from == Place::default()
    }

    /// Says how many there are, without looking at each.
    pub fn count(&mut self, matched: usize) {
        self.page.matched = matched as u64;
    }

    /// Everything was looked at, or the page is complete.
    pub fn finish(self) {
        self.reply.send(self.page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Lists the numbers below `end` that are even, `per_tick` looks at a time.
    fn page(end: u32, per_tick: usize, wanted: Wanted) -> (Page<u32>, usize) {
        let (sender, answer) = channel();
        let mut cursor = Cursor::new((), wanted, Reply::new(move |page| sender.send(page).unwrap()));
        let mut ticks = 0;
        'all: loop {
            ticks += 1;
            let mut cost = Cost::new(per_tick);
            while cost.spend(1) {
                let n = cursor.at.index;
                if n >= end || n % 2 == 0 && !cursor.offer(&mut cost, 0, || n) {
                    break 'all;
                }
                cursor.at.index += 1;
            }
        }
        cursor.finish();
        (answer.recv().unwrap(), ticks)
    }

    fn wanted(skip: u64, limit: usize, count: bool) -> Wanted {
        Wanted { from: Place::default(), skip, limit, count }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let (mut all, mut at, mut pages) = (Vec::new(), Some(Place::default()), 0);
        while let Some(from) = at {
            let (page, _) = page(100, 7, Wanted { from, ..wanted(0, 8, false) });
            assert!(page.rows.len() <= 8);
            all.extend(page.rows);
            at = page.next;
            pages += 1;
        }
        assert_eq!(all, (0..100).step_by(2).collect::<Vec<_>>());
        assert_eq!(pages, 7);
    }

    #[test]
    fn a_skip_counts_what_matches_and_a_count_goes_to_the_end() {
        let (found, _) = page(100, 1_000, wanted(3, 2, false));
        assert_eq!((found.rows, found.matched), (vec![6, 8], 5));
        assert_eq!(found.next.map(|next| next.index), Some(10));
        let (found, _) = page(100, 1_000, wanted(3, 2, true));
        assert_eq!((found.rows, found.matched), (vec![6, 8], 50));
        let (found, _) = page(100, 1_000, wanted(60, 2, false));
        assert_eq!((found.rows.len(), found.matched, found.next), (0, 50, None));
        let (found, _) = page(100, 1_000, wanted(0, 0, true));
        assert_eq!((found.rows.len(), found.matched), (0, 50));
        let (found, _) = page(10, 1_000, wanted(0, 5, false));
        assert_eq!((found.rows.len(), found.next), (5, None), "nothing is behind the last one");
    }

    #[test]
    fn rows_cost_more_than_looks_and_a_page_is_bounded() {
        let (_, looking) = page(1_000, 64, wanted(u64::MAX, 1, false));
        let (_, taking) = page(1_000, 64, wanted(0, 1_000, false));
        assert!(taking > 2 * looking, "{taking} ticks against {looking}");
        let (found, _) = page(10 * DESK_PAGE_ROWS_MAX as u32, 64, wanted(0, usize::MAX, false));
        assert_eq!(found.rows.len(), DESK_PAGE_ROWS_MAX);
    }
}
