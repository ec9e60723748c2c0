//! Who may not come for a while: client identifiers, user names and networks, each until a moment.
//!
//! A [`Ban`] is plain data, which may be kept and put back by what it is about. The management thread has the list, and
//! bounds it; each shard has a copy, so that nobody is asked when a client comes.
//!
//! Invariants: each entry is in `entries`, in `ends`, and in the index of its kind, or in none of them. What has ended
//! counts no more, also while it is still there.

use super::Network;
use crate::heap::{allocated, map_bytes};
use crate::limits::{BANS_BYTES_MAX, BANS_MAX};
use crate::map::Map;
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Whom a ban is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Banned {
    /// The client of this identifier.
    ClientId(Arc<str>),
    /// Every client with this user name.
    Username(Arc<str>),
    /// Every client from there.
    Network(Network),
}

impl Banned {
    /// What the kinds are called.
    pub const KINDS: &'static [&'static str] = &["clientid", "username", "peerhost"];

    /// Reads what a kind and a text mean.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(kind: &str, who: &str) -> Result<Banned, String> {
        match kind {
            "clientid" => Ok(Banned::ClientId(who.into())),
            "username" => Ok(Banned::Username(who.into())),
            "peerhost" => who.parse().map(Banned::Network),
            other => Err(format!("expected one of {}, got {other:?}", Banned::KINDS.join(", "))),
        }
    }

    /// What its kind is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Banned::ClientId(_) => "clientid",
            Banned::Username(_) => "username",
            Banned::Network(_) => "peerhost",
        }
    }

    /// Bytes of its text.
    fn bytes(&self) -> usize {
        match self {
            Banned::ClientId(text) | Banned::Username(text) => allocated(text.len()),
            Banned::Network(_) => 0,
        }
    }
}

impl fmt::Display for Banned {
    /// An address without its length, where it is one alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Banned::ClientId(text) | Banned::Username(text) => f.write_str(text),
            Banned::Network(network) => match network.alone() {
                Some(address) => write!(f, "{address}"),
                None => write!(f, "{network}"),
            },
        }
    }
}

/// One ban.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    /// Whom it is about.
    pub who: Banned,
    /// Who made it.
    pub by: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// Since when, in seconds since 1970; it counts from when it is put.
    pub at_s: u64,
    /// Until when, in seconds since 1970.
    pub until_s: u64,
}

impl Ban {
    /// Bytes of its texts.
    fn bytes(&self) -> usize {
        self.who.bytes() + allocated(self.by.len()) + allocated(self.reason.len())
    }
}

#[derive(Debug)]
struct Entry {
    until: Moment,
    ban: Arc<Ban>,
}

/// Bans that hold, by whom they are about.
#[derive(Debug, Default)]
pub struct Bans {
    /// By number, in the order in which they were put.
    entries: BTreeMap<u64, Entry>,
    /// By their end.
    ends: BTreeSet<(Moment, u64)>,
    clients: Map<Arc<str>, u64>,
    users: Map<Arc<str>, u64>,
    networks: Map<Network, u64>,
    /// IPv4 or not, and bits that count, of `networks`, and how many of them.
    lengths: BTreeMap<(bool, u8), usize>,
    /// Bytes of their texts.
    bytes: usize,
    next: u64,
}

impl Bans {
    /// Entries, those included that have ended and are still there.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let nodes = self.entries.len() * (size_of::<(u64, Entry)>() + size_of::<(Moment, u64)>()) * 3 / 2;
        let maps = map_bytes::<Arc<str>, u64>(self.clients.capacity())
            + map_bytes::<Arc<str>, u64>(self.users.capacity())
            + map_bytes::<Network, u64>(self.networks.capacity());
        nodes + maps
    }

    /// Whether there is room for this one, which may take the place of an earlier one.
    pub fn has_room(&self, ban: &Ban) -> bool {
        let old = self.number(&ban.who).and_then(|number| self.entries.get(&number));
        let freed = old.map_or(0, |entry| entry.ban.bytes());
        self.len() - usize::from(old.is_some()) < BANS_MAX
            && self.bytes - freed + ban.bytes() <= BANS_BYTES_MAX
    }

    /// Puts a ban that holds until a moment, in place of an earlier one about the same. Whoever puts bounds how many
    /// there are, see [`Bans::has_room`].
    pub fn put(&mut self, ban: Arc<Ban>, until: Moment) {
        self.remove(&ban.who);
        let number = self.next;
        self.next += 1;
        match &ban.who {
            Banned::ClientId(text) => drop(self.clients.insert(text.clone(), number)),
            Banned::Username(text) => drop(self.users.insert(text.clone(), number)),
            Banned::Network(network) => {
                self.networks.insert(*network, number);
                *self.lengths.entry((network.is_v4(), network.bits())).or_default() += 1;
            }
        }
        self.ends.insert((until, number));
        self.bytes += ban.bytes();
        self.entries.insert(number, Entry { until, ban });
    }

    /// Takes a ban back, and returns it.
    pub fn remove(&mut self, who: &Banned) -> Option<Arc<Ban>> {
        let number = self.number(who)?;
        self.take(number)
    }

    /// Forgets bans that have ended, and returns them: `max` at most.
    pub fn expire(&mut self, now: Moment, max: usize) -> Vec<Arc<Ban>> {
        let mut ended = Vec::new();
        while ended.len() < max
            && let Some((until, number)) = self.ends.first()
            && *until <= now
        {
            ended.extend(self.take(*number));
        }
        ended
    }

    /// Whether there is a ban about any of these.
    pub fn hits(&self, client_id: &str, username: Option<&str>, from: Option<IpAddr>, now: Moment) -> bool {
        if self.is_empty() {
            return false;
        }
        let named = [self.clients.get(client_id), username.and_then(|name| self.users.get(name))];
        named.into_iter().flatten().any(|number| self.holds(*number, now))
            || from.is_some_and(|from| self.hits_address(from, now))
    }

    /// Whether there is a ban about an address.
    pub fn hits_address(&self, from: IpAddr, now: Moment) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        let from = from.to_canonical();
        let lengths = self.lengths.range((from.is_ipv4(), 0)..=(from.is_ipv4(), u8::MAX));
        lengths.into_iter().any(|((_, bits), _)| {
            let number = self.networks.get(&Network::around(from, *bits));
            number.is_some_and(|number| self.holds(*number, now))
        })
    }

    /// All of them, in the order in which they were put.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.entries.values().map(|entry| &entry.ban)
    }

    fn holds(&self, number: u64, now: Moment) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.until > now)
    }

    fn number(&self, who: &Banned) -> Option<u64> {
        match who {
            Banned::ClientId(text) => self.clients.get(text).copied(),
            Banned::Username(text) => self.users.get(text).copied(),
            Banned::Network(network) => self.networks.get(network).copied(),
        }
    }

    fn take(&mut self, number: u64) -> Option<Arc<Ban>> {
        let Entry { until, ban } = self.entries.remove(&number)?;
        let ended = self.ends.remove(&(until, number));
        debug_assert!(ended, "every entry has an end");
        self.bytes -= ban.bytes();
        match &ban.who {
            Banned::ClientId(text) => drop(self.clients.remove(text)),
            Banned::Username(text) => drop(self.users.remove(text)),
            Banned::Network(network) => {
                self.networks.remove(network);
                let length = (network.is_v4(), network.bits());
                if let Some(count) = self.lengths.get_mut(&length) {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&length);
                    }
                }
            }
        }
        Some(ban)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(kind: &str, who: &str) -> Arc<Ban> {
        let who = Banned::read(kind, who).unwrap();
        Arc::new(Ban { who, by: "user".into(), reason: "test".into(), at_s: 1, until_s: 2 })
    }

    fn hits(bans: &Bans, client_id: &str, username: &str, from: &str, now: u64) -> bool {
        bans.hits(client_id, Some(username), Some(from.parse().unwrap()), Moment(now))
    }

    #[test]
    fn each_kind_keeps_its_own_away_until_its_end() {
        let mut bans = Bans::default();
        bans.put(ban("clientid", "c"), Moment(10));
        bans.put(ban("username", "u"), Moment(20));
        bans.put(ban("peerhost", "192.0.2.7"), Moment(30));
        bans.put(ban("peerhost", "10.0.0.0/8"), Moment(40));
        bans.put(ban("peerhost", "2001:db8::/32"), Moment(50));
        let all = [
            ("c", "x", "127.0.0.1", 10),
            ("x", "u", "127.0.0.1", 20),
            ("x", "x", "::ffff:192.0.2.7", 30),
            ("x", "x", "10.9.8.7", 40),
            ("x", "x", "2001:db8:1::1", 50),
        ];
        for (client_id, username, from, until) in all {
            assert!(hits(&bans, client_id, username, from, until - 1), "{client_id} {username} {from}");
            assert!(!hits(&bans, client_id, username, from, until), "{client_id} {username} {from}");
        }
        for (client_id, username, from) in
            [("u", "c", "127.0.0.1"), ("", "", "192.0.2.8"), ("", "", "2001:db9::1")]
        {
            assert!(!hits(&bans, client_id, username, from, 0), "{client_id} {username} {from}");
        }
        assert!(bans.hits_address([10, 0, 0, 1].into(), Moment(0)));
        assert!(!bans.hits("x", None, None, Moment(0)));
        let shown: Vec<String> = bans.iter().map(|ban| format!("{} {}", ban.who.kind(), ban.who)).collect();
        let expected = [
            "clientid c",
            "username u",
            "peerhost 192.0.2.7",
            "peerhost 10.0.0.0/8",
            "peerhost 2001:db8::/32",
        ];
        assert_eq!(shown, expected);
        bans.expire(Moment(30), 2);
        assert_eq!(bans.len(), 3);
        bans.expire(Moment(30), 10);
        assert_eq!(bans.len(), 2);
        assert!(bans.remove(&ban("peerhost", "10.0.0.0/8").who).is_some());
        assert!(bans.remove(&ban("peerhost", "10.0.0.0/8").who).is_none());
        bans.expire(Moment::NEVER, 10);
        assert!(bans.is_empty() && bans.lengths.is_empty() && bans.ends.is_empty() && bans.bytes == 0);
    }

    #[test]
    fn a_later_ban_takes_the_place_of_an_earlier_one() {
        let mut bans = Bans::default();
        bans.put(ban("clientid", "c"), Moment(10));
        bans.put(ban("clientid", "c"), Moment(20));
        assert_eq!(bans.len(), 1);
        bans.expire(Moment(15), 10);
        assert!(hits(&bans, "c", "", "::1", 15) && !hits(&bans, "c", "", "::1", 20));
    }

    #[test]
    fn bans_are_bounded_in_number_and_bytes() {
        let mut bans = Bans::default();
        for i in 0..BANS_MAX {
            assert!(bans.has_room(&ban("clientid", &i.to_string())));
            bans.put(ban("clientid", &i.to_string()), Moment(10));
        }
        assert!(!bans.has_room(&ban("clientid", "new")) && bans.has_room(&ban("clientid", "7")));
        let mut bans = Bans::default();
        let long = |i: usize| format!("{i:065535}");
        let room = (0..).take_while(|i| {
            let ban = ban("username", &long(*i));
            let room = bans.has_room(&ban);
            if room {
                bans.put(ban, Moment(10));
            }
            room
        });
        let count = room.count();
        assert!(bans.bytes <= BANS_BYTES_MAX && count >= BANS_BYTES_MAX / 65_536 / 2, "{count}");
    }

    #[test]
    fn what_is_no_ban_is_told() {
        assert!(Banned::read("peerhost", "10.0.0.0/33").unwrap_err().contains("10.0.0.0/33"));
        assert!(Banned::read("client", "x").unwrap_err().contains("clientid"));
    }
}
