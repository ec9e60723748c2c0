//! What is known at one place (the key of an exact filter, or the end of a wildcard filter), in four bytes
//! where it is simple.

use super::nodes::Term;
use super::slab::NONE;
use super::{RouteId, Trie, shrink};

/// Where a filter is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spot {
    /// The key of a filter without wildcards.
    Exact(u64),
    /// The end of a filter with wildcards.
    Wild(Term),
}

/// Everything that can be known at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Shards other than ours that have ordinary subscribers, a bit each.
    pub(super) remote: u64,
    /// Those of them whose subscribers are full; a subset of `remote`.
    pub(super) full: u64,
    /// First local route; the others with the same key are chained behind it.
    pub(super) routes: u32,
    /// First share group; the others are chained behind it.
    pub(super) groups: u32,
}

impl Place {
    const EMPTY: Place = Place { remote: 0, full: 0, routes: NONE, groups: NONE };
}

/// A place in four bytes. The two upper bits say what the others are: a route, a set of shards below 30, or
/// an index of a [`Place`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(u32);

/// A [`Mark`] taken apart.
pub(super) enum Marked {
    None,
    Route(u32),
    Remote(u64),
    Place(u32),
}

const PAYLOAD: u32 = (1 << 30) - 1;

impl Mark {
    pub(super) const NONE: Mark = Mark(3 << 30);

    pub(super) fn open(self) -> Marked {
        let payload = self.0 & PAYLOAD;
        match self.0 >> 30 {
            0 => Marked::Route(payload),
            1 => Marked::Remote(u64::from(payload)),
            2 => Marked::Place(payload),
            _ => Marked::None,
        }
    }

    fn place(index: u32) -> Mark {
        debug_assert!(index <= PAYLOAD, "a slab's indices are below 2^30");
        Mark(2 << 30 | index)
    }

    /// The short form, where there is one.
    fn short(place: &Place) -> Option<Mark> {
        if place.groups != NONE || place.full != 0 {
            return None;
        }
        match (place.routes, place.remote) {
            (NONE, 0) => Some(Mark::NONE),
            (route, 0) => Some(Mark(route)),
            (NONE, remote) if remote <= u64::from(PAYLOAD) => Some(Mark(1 << 30 | remote as u32)),
            _ => None,
        }
    }
}

/// An entry of the table of exact filters. The key is a hash already, and split so that no byte is padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    key: [u32; 2],
    mark: Mark,
}

const _: () = assert!(std::mem::size_of::<Exact>() == 12);

impl Exact {
    fn key(&self) -> u64 {
        u64::from(self.key[0]) | u64::from(self.key[1]) << 32
    }
}

impl Trie {
    /// What the table of exact filters says of a key.
    pub(super) fn exact_mark(&self, key: u64) -> Mark {
        self.exact.find(key, |slot| slot.key() == key).map_or(Mark::NONE, |slot| slot.mark)
    }

    pub(super) fn mark(&self, spot: Spot) -> Mark {
        match spot {
            Spot::Exact(key) => self.exact_mark(key),
            Spot::Wild(term) => self.nodes.mark(term),
        }
    }

    pub(super) fn load(&self, spot: Spot) -> Place {
        match self.mark(spot).open() {
            Marked::None => Place::EMPTY,
            Marked::Route(routes) => Place { routes, ..Place::EMPTY },
            Marked::Remote(remote) => Place { remote, ..Place::EMPTY },
            Marked::Place(index) => self.places[index],
        }
    }

    /// Keeps a place in its shortest form. An empty one goes, with the nodes that only it needed.
    pub(super) fn store(&mut self, spot: Spot, place: Place) {
        debug_assert!(place.full & !place.remote == 0, "only a shard with subscribers can be full");
        let old = self.mark(spot);
        let new = match (Mark::short(&place), old.open()) {
            (Some(mark), Marked::Place(index)) => {
                self.places.remove(index);
                mark
            }
            (Some(mark), _) => mark,
            (None, Marked::Place(index)) => {
                self.places[index] = place;
                old
            }
            (None, _) => Mark::place(self.places.insert(place)),
        };
        if new != old || new == Mark::NONE {
            match spot {
                Spot::Exact(key) => self.set_exact_mark(key, new),
                Spot::Wild(term) => self.nodes.set_mark(term, new),
            }
        }
    }

    fn set_exact_mark(&mut self, key: u64, mark: Mark) {
        match self.exact.find_entry(key, |slot| slot.key() == key) {
            Ok(entry) if mark == Mark::NONE => {
                entry.remove();
                shrink(&mut self.exact, Exact::key);
            }
            Ok(mut entry) => entry.get_mut().mark = mark,
            Err(_) if mark == Mark::NONE => {}
            Err(_) => {
                let slot = Exact { key: [key as u32, (key >> 32) as u32], mark };
                self.exact.insert_unique(key, slot, Exact::key);
            }
        }
    }

    /// The local routes at a place: more than one only where filters share a key.
    pub(super) fn chain(&self, first: u32) -> impl Iterator<Item = RouteId> + '_ {
        let mut next = first;
        std::iter::from_fn(move || {
            let route = next;
            if route == NONE {
                return None;
            }
            next = self.routes[route].next;
            Some(RouteId(route))
        })
    }
}
