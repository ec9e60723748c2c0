//! A map with a bound on its entries and their age, without a list of who is oldest: two generations, of which the
//! older one is dropped as a whole.

use crate::map::Map;
use crate::time::Moment;
use std::hash::Hash;

/// Remembers what was put or found within the last one to two periods; less where more than its bound were put.
#[derive(Debug)]
pub struct Aging<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    entries_max: usize,
    period_ms: u64,
    turned: Moment,
}

impl<K: Hash + Eq, V> Aging<K, V> {
    /// At most twice `entries_max` entries.
    pub fn new(entries_max: usize, period_ms: u64) -> Aging<K, V> {
        let (young, old) = (Map::default(), Map::default());
        Aging { young, old, entries_max, period_ms, turned: Moment::default() }
    }

    /// What is known of it.
    pub fn find(&mut self, key: &K, now: Moment) -> Option<&V> {
        self.turn(now);
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Remembers it in place of what was known.
    pub fn put(&mut self, key: K, value: V, now: Moment) {
        self.turn(now);
        if self.young.len() >= self.entries_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets it.
    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Entries at present.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn turn(&mut self, now: Moment) {
        let age = now.since_ms(self.turned);
        if age >= self.period_ms {
            let young = std::mem::take(&mut self.young);
            self.old = if age >= 2 * self.period_ms { Map::default() } else { young };
            // Whenever it is looked at, a period is one.
            self.turned = self.turned.plus_ms(age / self.period_ms * self.period_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_for_one_to_two_periods() {
        let mut known = Aging::new(10, 100);
        known.put("a", 1, Moment(150));
        assert_eq!(known.find(&"a", Moment(199)), Some(&1));
        assert_eq!(known.find(&"a", Moment(299)), Some(&1));
        assert_eq!(known.find(&"a", Moment(300)), None);
        known.put("b", 2, Moment(400));
        assert_eq!(known.find(&"b", Moment(10_000)), None);
        assert!(known.is_empty());
    }

    #[test]
    fn entries_are_bounded_and_the_newest_stay() {
        let mut known = Aging::new(3, 1_000);
        for i in 0..100 {
            known.put(i, i, Moment(5));
            assert!(known.len() <= 6);
        }
        assert_eq!(known.find(&99, Moment(5)), Some(&99));
        assert_eq!(known.find(&90, Moment(5)), None);
        known.remove(&99);
        assert_eq!(known.find(&99, Moment(5)), None);
    }
}
