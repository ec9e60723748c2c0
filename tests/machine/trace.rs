//! What happened, in words, when a seed is replayed; and what was reached, over all seeds.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// Lines of a trace that are printed.
const LINES_MAX: usize = 4_000;

thread_local! {
    static LINES: RefCell<Option<(Vec<String>, bool)>> = const { RefCell::new(None) };
    static NOW: RefCell<(u64, u64)> = const { RefCell::new((0, 0)) };
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Starts a trace on this thread; `live` prints each line at once.
pub fn start(live: bool) {
    LINES.set(Some((Vec::new(), live)));
}

/// Ends it; the last lines.
pub fn stop() -> Vec<String> {
    let mut lines = LINES.take().map_or(Vec::new(), |(lines, _)| lines);
    let from = lines.len().saturating_sub(LINES_MAX);
    lines.split_off(from)
}

/// The virtual time and the step that lines are marked with.
pub fn at(ms: u64, step: u64) {
    NOW.set((ms, step));
}

pub fn line(text: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        let Some((lines, live)) = lines else { return };
        let (ms, step) = NOW.with_borrow(|n| *n);
        let text = format!("{ms:>8} ms  step {step:>6}  {}", text());
        if *live {
            println!("{text}");
        }
        lines.push(text);
    });
}

/// Notes a line, if this run is traced.
#[macro_export]
macro_rules! note {
    ($($arg:tt)*) => { $crate::machine::trace::line(|| format!($($arg)*)) };
}

/// Counts something that a run is to reach at least once over all seeds.
pub fn reached(what: &'static str) {
    reached_n(what, 1);
}

pub fn reached_n(what: &'static str, n: u64) {
    REACHED.with_borrow_mut(|r| *r.entry(what).or_default() += n);
}

pub fn take_reached() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}
