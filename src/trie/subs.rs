//! A subscription, and the list of those that one filter or one share group has.

use crate::heap::{allocated, vec_bytes};
use hashbrown::HashTable;

/// Entries above which a list has an index by session.
const INDEX_ABOVE: usize = 16;

/// Subscription options as the options byte of 5.0 has them [MQTT-3.8.3.1]: QoS, No Local, Retain As
/// Published, Retain Handling. The reserved bits are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SubOptions(u8);

impl SubOptions {
    /// `qos` and `retain_handling` are 0 to 2.
    pub fn new(qos: u8, no_local: bool, retain_as_published: bool, retain_handling: u8) -> SubOptions {
        debug_assert!(qos < 3 && retain_handling < 3, "the codec has checked the options");
        SubOptions(
            qos & 3
                | u8::from(no_local) << 2
                | u8::from(retain_as_published) << 3
                | (retain_handling & 3) << 4,
        )
    }

    /// From the byte; `None` where QoS or Retain Handling is 3 or a reserved bit is set [MQTT-3.8.3-5].
    pub fn from_bits(bits: u8) -> Option<SubOptions> {
        (bits & 3 < 3 && bits >> 4 < 3).then_some(SubOptions(bits))
    }

    /// The byte.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Maximum QoS, 0 to 2.
    pub fn qos(self) -> u8 {
        self.0 & 3
    }

    /// No Local.
    pub fn no_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Retain As Published.
    pub fn retain_as_published(self) -> bool {
        self.0 & 8 != 0
    }

    /// Retain Handling, 0 to 2.
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4
    }
}

/// One session's subscription to a filter, or its membership of a share group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sub {
    /// Index of the session in its shard.
    pub session: u32,
    /// Subscription identifier, 0 = none.
    pub id: u32,
    /// Its options.
    pub options: SubOptions,
    /// Whether the session said that its queue is full and that publishers must wait.
    pub(super) full: bool,
}

impl Sub {
    /// A subscription of a session whose queue has room. `id` 0 = no subscription identifier.
    pub fn new(session: u32, options: SubOptions, id: u32) -> Sub {
        Sub { session, id, options, full: false }
    }
}

const _: () = assert!(std::mem::size_of::<Sub>() == 12);
const _: () = assert!(std::mem::size_of::<Subs>() == 16);

/// Subscriptions, at most one per session; one needs no memory of its own.
#[derive(Debug, Default)]
pub(super) enum Subs {
    #[default]
    Empty,
    One(Sub),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    subs: Vec<Sub>,
    /// Positions by session; in use above [`INDEX_ABOVE`] entries only.
    index: HashTable<u32>,
}

impl Subs {
    pub(super) fn as_slice(&self) -> &[Sub] {
        match self {
            Subs::Empty => &[],
            Subs::One(sub) => std::slice::from_ref(sub),
            Subs::Many(many) => &many.subs,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Subs::Empty)
    }

    /// Where a session's subscription is.
    pub(super) fn position(&self, session: u32) -> Option<usize> {
        match self {
            Subs::Many(many) if many.subs.len() > INDEX_ABOVE => {
                let found = many.index.find(hash(session), |&at| many.subs[at as usize].session == session);
                found.map(|&at| at as usize)
            }
            _ => self.as_slice().iter().position(|sub| sub.session == session),
        }
    }

    pub(super) fn at_mut(&mut self, position: usize) -> &mut Sub {
        match self {
            Subs::Many(many) => &mut many.subs[position],
            Subs::One(sub) if position == 0 => sub,
            _ => unreachable!("position {position} came from `position`"),
        }
    }

    /// Appends a subscription of a session that has none here.
    pub(super) fn push(&mut self, sub: Sub) {
        debug_assert!(self.position(sub.session).is_none(), "one subscription per session");
        match self {
            Subs::Empty => *self = Subs::One(sub),
            Subs::One(first) => {
                *self = Subs::Many(Box::new(Many { subs: vec![*first, sub], index: HashTable::new() }));
            }
            Subs::Many(many) => many.push(sub),
        }
    }

    /// Removes the one at `position`; the last one takes its place.
    pub(super) fn swap_remove(&mut self, position: usize) -> Sub {
        match self {
            Subs::Many(many) => {
                let sub = many.swap_remove(position);
                if let [last] = many.subs[..] {
                    *self = Subs::One(last);
                }
                sub
            }
            Subs::One(sub) if position == 0 => {
                let sub = *sub;
                *self = Subs::Empty;
                sub
            }
            _ => unreachable!("position {position} came from `position`"),
        }
    }

    pub(super) fn swap(&mut self, a: usize, b: usize) {
        if let Subs::Many(many) = self
            && a != b
        {
            many.swap(a, b);
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Subs::Many(many) => {
                allocated(std::mem::size_of::<Many>())
                    + vec_bytes::<Sub>(many.subs.capacity())
                    + allocated(many.index.allocation_size())
            }
            _ => 0,
        }
    }
}

impl Many {
    fn push(&mut self, sub: Sub) {
        let at = self.subs.len();
        self.subs.push(sub);
        let subs = &self.subs;
        let rehash = |&at: &u32| hash(subs[at as usize].session);
        if at == INDEX_ABOVE {
            for (at, sub) in subs.iter().enumerate() {
                self.index.insert_unique(hash(sub.session), at as u32, rehash);
            }
        } else if at > INDEX_ABOVE {
            self.index.insert_unique(hash(sub.session), at as u32, rehash);
        }
    }

    fn swap_remove(&mut self, position: usize) -> Sub {
        let last = self.subs.len() - 1;
        self.swap(position, last);
        if self.subs.len() > INDEX_ABOVE {
            let sub = self.subs[last];
            match self.index.find_entry(hash(sub.session), |&at| at as usize == last) {
                Ok(entry) => drop(entry.remove()),
                Err(_) => unreachable!("every position is in the index"),
            }
        }
        let sub = self.subs.pop().expect("a list of many is not empty");
        if self.subs.len() == INDEX_ABOVE {
            self.index = HashTable::new();
        }
        if self.subs.len() < self.subs.capacity() / 4 {
            self.subs.shrink_to(self.subs.len() * 2);
            let subs = &self.subs;
            self.index.shrink_to(subs.len() * 2, |&at| hash(subs[at as usize].session));
        }
        sub
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        if self.subs.len() > INDEX_ABOVE {
            let places = [(a, b), (b, a)].map(|(from, to)| {
                let session = self.subs[from].session;
                (hash(session), from as u32, to as u32)
            });
            // Both are found before either is changed, for each is recognised by its old position.
            for (hash, from, to) in places {
                match self.index.find_mut(hash, |&at| at == from) {
                    Some(at) => *at = to | MOVED,
                    None => unreachable!("every position is in the index"),
                }
            }
            for (hash, _, to) in places {
                if let Some(at) = self.index.find_mut(hash, |&at| at == to | MOVED) {
                    *at = to;
                }
            }
        }
        self.subs.swap(a, b);
    }
}

/// Marks a position that was already rewritten during a swap; positions are below 2^31.
const MOVED: u32 = 1 << 31;

/// Sessions are numbered by their shard and not by a peer, so a mixed index is enough.
fn hash(session: u32) -> u64 {
    let mixed = u64::from(session).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_byte_of_the_standard() {
        let options = SubOptions::new(2, true, false, 1);
        assert_eq!(options.bits(), 0b01_0110);
        assert_eq!((options.qos(), options.no_local()), (2, true));
        assert_eq!((options.retain_as_published(), options.retain_handling()), (false, 1));
        assert_eq!(SubOptions::from_bits(0b10_1001).map(SubOptions::retain_handling), Some(2));
        for bad in [0b11, 0b11_0000, 0b100_0000, 0b1000_0000] {
            assert_eq!(SubOptions::from_bits(bad), None); // [MQTT-3.8.3-5]
        }
    }

    #[test]
    fn a_list_agrees_with_a_vec_through_growth_and_shrinking() {
        let mut random = 7u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut list, mut model) = (Subs::default(), Vec::new());
        for step in 0..20_000 {
            let session = next(60) as u32;
            let grow = step / 500 % 2 == 0;
            match model.iter().position(|sub: &Sub| sub.session == session) {
                None if grow || next(3) == 0 => {
                    let sub = Sub::new(session, SubOptions::default(), step);
                    list.push(sub);
                    model.push(sub);
                }
                Some(at) if !grow || next(3) == 0 => {
                    assert_eq!(list.position(session), Some(at));
                    assert_eq!(list.swap_remove(at), model.swap_remove(at));
                }
                Some(at) => {
                    let other = next(model.len());
                    list.swap(at, other);
                    model.swap(at, other);
                }
                None => assert_eq!(list.position(session), None),
            }
            assert_eq!(list.as_slice(), &model[..]);
        }
        while !list.is_empty() {
            list.swap_remove(0);
        }
        assert!(list.is_empty() && list.heap_bytes() == 0);
    }
}
