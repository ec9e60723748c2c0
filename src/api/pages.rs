//! Where the pages of listings begin that were asked for lately.
//!
//! A page is asked for by its number. Counting rows from the start would cost a shard more with each page; so the
//! end of each page is remembered for a while, and the next one begins there. What comes or goes before it does
//! not shift it. Asking for the first page begins anew.

use super::Position;
use crate::limits::{HTTP_COUNT_MS, HTTP_PAGES_MAX, HTTP_PAGINGS_MAX};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is remembered; the last one used is at the end.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<VecDeque<Paging>>);

/// One listing with one number of rows per page.
#[derive(Debug)]
struct Paging {
    key: String,
    /// Page numbers, and where they begin.
    begins: VecDeque<(u64, Position)>,
    count: u64,
    counted: Instant,
}

/// Where to begin for a page.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// The page at the position: the one that is asked for, or one before it.
    pub page: u64,
    pub position: Position,
    /// The count of rows, where it is known.
    pub count: Option<u64>,
}

impl Pages {
    /// Where page `number` begins, or the nearest one before it that is known.
    pub fn find(&self, key: &str, number: u64) -> Known {
        let mut start = Known { page: 1, position: Position::default(), count: None };
        if number <= 1 {
            return start;
        }
        let pagings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(paging) = pagings.iter().find(|paging| paging.key == key) else { return start };
        if paging.counted.elapsed() < Duration::from_millis(HTTP_COUNT_MS) {
            start.count = Some(paging.count);
        }
        let before = paging.begins.iter().filter(|(page, _)| *page <= number);
        if let Some((page, position)) = before.max_by_key(|(page, _)| *page) {
            (start.page, start.position) = (*page, position.clone());
        }
        start
    }

    /// Page `number` was answered; `next` is where the one behind it begins. `fresh`: the rows were counted just now.
    pub fn note(&self, key: String, number: u64, count: u64, fresh: bool, next: Option<Position>) {
        let mut pagings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = pagings.iter().position(|paging| paging.key == key);
        let known = at.and_then(|at| pagings.remove(at)).filter(|_| number > 1);
        let Some(next) = next else { return };
        let new = || Paging { key, begins: VecDeque::new(), count, counted: Instant::now() };
        let mut paging = known.unwrap_or_else(new);
        if fresh {
            (paging.count, paging.counted) = (count, Instant::now());
        }
        paging.begins.retain(|(page, _)| *page != number + 1);
        paging.begins.push_back((number + 1, next));
        if paging.begins.len() > HTTP_PAGES_MAX {
            paging.begins.pop_front();
        }
        pagings.push_back(paging);
        if pagings.len() > HTTP_PAGINGS_MAX {
            pagings.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(shard: usize) -> Position {
        Position { shard, ..Position::default() }
    }

    #[test]
    fn the_next_page_begins_where_the_last_one_ended_and_the_first_one_anew() {
        let pages = Pages::default();
        assert_eq!(pages.find("k", 3).page, 1);
        pages.note("k".into(), 1, 50, true, Some(position(1)));
        pages.note("k".into(), 2, 50, true, Some(position(2)));
        assert_eq!(pages.find("k", 2), Known { page: 2, position: position(1), count: Some(50) });
        assert_eq!(pages.find("k", 3), Known { page: 3, position: position(2), count: Some(50) });
        assert_eq!(pages.find("k", 9), Known { page: 3, position: position(2), count: Some(50) });
        assert_eq!(pages.find("k", 1), Known { page: 1, position: position(0), count: None });
        assert_eq!(pages.find("other", 3).page, 1);
        pages.note("k".into(), 1, 51, true, Some(position(7)));
        assert_eq!(pages.find("k", 3), Known { page: 2, position: position(7), count: Some(51) });
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let pages = Pages::default();
        for n in 0..2 * HTTP_PAGINGS_MAX {
            pages.note(n.to_string(), 1, 9, true, Some(position(1)));
        }
        for page in 2..4 * HTTP_PAGES_MAX as u64 {
            pages.note("long".into(), page, 9, true, Some(position(page as usize)));
        }
        let inner = pages.0.lock().unwrap();
        assert_eq!(inner.len(), HTTP_PAGINGS_MAX);
        assert!(inner.iter().all(|paging| paging.begins.len() <= HTTP_PAGES_MAX));
    }
}
