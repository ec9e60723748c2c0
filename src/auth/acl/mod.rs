//! Who may publish and subscribe to what: rules in order, of which the first that applies decides.
//!
//! A rule applies to a PUBLISH when one of its filters matches the topic. It allows a SUBSCRIBE when one of its
//! filters covers all that the subscription asks for, and denies one when any of its filters has a topic in common
//! with it: else `#` would bring what `deny` names. `eq` means the filter that is written there and no other.
//!
//! `%c` and `%u` stand for the client identifier and the user name, within one level: what they hold is compared as it
//! is, so that a client that calls itself `#` or `a/b` gets nothing by it.

mod index;
mod mosquitto;
mod pattern;
mod written;

#[cfg(test)]
mod tests;

use crate::message::QoS;
use crate::topic::Filter;
use index::Index;
use pattern::Pattern;
use std::net::IpAddr;

/// A client, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its client identifier.
    pub id: &'a str,
    /// Its user name.
    pub user: Option<&'a str>,
    /// Its address, where it is known.
    pub from: Option<IpAddr>,
}

/// What a client wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed<'a> {
    /// To publish.
    Publish {
        /// The topic.
        topic: &'a str,
        /// Its QoS.
        qos: QoS,
        /// RETAIN.
        retain: bool,
    },
    /// To subscribe.
    Subscribe {
        /// The topic filter, without a share name.
        filter: Filter<'a>,
        /// The QoS that it asks for.
        qos: QoS,
    },
}

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Publish,
    Subscribe,
    All,
}

/// The rules of a file.
#[derive(Debug)]
pub struct Acl {
    rules: Vec<Rule>,
    index: Index,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    allow: bool,
    action: Action,
    who: Who,
    /// None = every topic.
    filters: Vec<Pattern>,
    /// Bit n: QoS n.
    qos: u8,
    retain: Option<bool>,
}

/// Whom a rule is about: who meets all that is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Who {
    /// One of these user names.
    users: Vec<Box<str>>,
    /// One of these client identifiers.
    clients: Vec<Box<str>>,
    /// In one of these networks.
    networks: Vec<Network>,
    /// Without a user name, or with one.
    anonymous: Option<bool>,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    /// As IPv6 has it.
    address: u128,
    mask: u128,
}

const QOS_ANY: u8 = 0b111;

impl Acl {
    /// Reads a file: ours in TOML, where its name ends so, else one of mosquitto.
    ///
    /// # Errors
    /// The first thing that is wrong: its line, what was expected, and what came.
    pub fn read(name: &str, text: &str) -> Result<Acl, String> {
        let rules = if name.ends_with(".toml") { written::read(text)? } else { mosquitto::read(text)? };
        Ok(Acl { index: Index::new(&rules), rules })
    }

    /// Rules that allow this and nothing else; `None` where a text is no topic filter.
    pub fn granting(publish: &[&str], subscribe: &[&str], all: &[&str]) -> Option<Acl> {
        let rule = |action, texts: &[&str]| {
            let filters: Option<Vec<_>> = texts.iter().map(|text| Pattern::read(text, false, true)).collect();
            let who = Who::default();
            Some(Rule { allow: true, action, who, filters: filters?, qos: QOS_ANY, retain: None })
        };
        let mut rules = Vec::new();
        for (action, texts) in
            [(Action::Publish, publish), (Action::Subscribe, subscribe), (Action::All, all)]
        {
            let rule = rule(action, texts)?;
            // A rule without filters is about every topic.
            if !rule.filters.is_empty() {
                rules.push(rule);
            }
        }
        Some(Acl { index: Index::new(&rules), rules })
    }

    /// Rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none, so that nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether rules look at addresses.
    pub fn asks_addresses(&self) -> bool {
        self.rules.iter().any(|rule| !rule.who.networks.is_empty())
    }

    /// Whether a client may do this. What no rule applies to is denied.
    pub fn allows(&self, client: &Client, deed: &Deed) -> bool {
        self.judge(client, deed) == Some(true)
    }

    /// What the first rule that applies says of it; `None` where there is none.
    pub fn judge(&self, client: &Client, deed: &Deed) -> Option<bool> {
        let first = match *deed {
            Deed::Publish { topic, .. } => self.index.first(&self.rules, client, deed, topic),
            // Covered and matched are the same for a filter that is a topic.
            Deed::Subscribe { filter, .. } if filter.is_exact() => {
                self.index.first(&self.rules, client, deed, filter.as_str())
            }
            Deed::Subscribe { filter, .. } => self.rules.iter().find(|rule| {
                let meets = |pattern: &Pattern| match rule.allow {
                    true => pattern.covers(filter, client),
                    false => pattern.overlaps(filter, client),
                };
                rule.holds(client, deed) && (rule.filters.is_empty() || rule.filters.iter().any(meets))
            }),
        };
        first.map(|rule| rule.allow)
    }
}

impl Rule {
    /// Whether it is about this client and deed, whatever the topic.
    fn holds(&self, client: &Client, deed: &Deed) -> bool {
        let (action, qos, retain) = match *deed {
            Deed::Publish { qos, retain, .. } => (Action::Publish, qos, Some(retain)),
            Deed::Subscribe { qos, .. } => (Action::Subscribe, qos, None),
        };
        // RETAIN is not a subscriber's; a rule that asks for it is about publishing.
        (self.action == action || self.action == Action::All)
            && self.qos & (1 << qos as u8) != 0
            && (self.retain.is_none() || self.retain == retain)
            && self.who.is(client)
    }
}

impl Who {
    fn is(&self, client: &Client) -> bool {
        let named = |names: &[Box<str>], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|other| **other == *name))
        };
        let near = |from: IpAddr| self.networks.iter().any(|network| network.has(from));
        self.anonymous.is_none_or(|wanted| client.user.is_none() == wanted)
            && named(&self.users, client.user)
            && named(&self.clients, Some(client.id))
            && (self.networks.is_empty() || client.from.is_some_and(near))
    }
}

impl Network {
    /// Reads an address, or one with the number of bits that count: `10.0.0.0/8`.
    fn read(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u32 = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
        };
        let mask = u128::MAX.checked_shl(most - bits).unwrap_or(0);
        // Above the 32 bits of IPv4 stands what makes an address of IPv6 one of IPv4.
        let mask = if most == 32 { mask | !u128::from(u32::MAX) } else { mask };
        Some(Network { address: wide(address) & mask, mask })
    }

    fn has(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.address
    }
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}
