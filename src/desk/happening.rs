//! What happens on a shard, for whoever listens. A shard collects what its [`Watch`] names and nothing else, within
//! bounds; what finds no room is counted.

use crate::codec::{ReasonCode, Version};
use crate::io::ShardId;
use crate::message::QoS;
use crate::time::Moment;
use std::net::SocketAddr;

macro_rules! kinds {
    ($($kind:ident $name:literal $about:literal,)*) => {
        /// What kind of thing happened.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Kind {
            $(#[doc = $about] $kind,)*
        }

        impl Kind {
            /// All of them, with name and meaning.
            pub const TABLE: &[(Kind, &str, &str)] = &[$((Kind::$kind, $name, $about),)*];
        }
    };
}

kinds! {
    Connected "connected" "A client was told that it is connected.",
    Disconnected "disconnected" "A client's connection ended.",
    Refused "refused" "A CONNECT was refused.",
    Subscribed "subscribed" "A client subscribed to a topic filter, or anew.",
    Unsubscribed "unsubscribed" "A client ended a subscription.",
    SessionCreated "session_created" "A session was made.",
    SessionEnded "session_ended" "A session ended, with its subscriptions.",
    Packet "packet" "A packet of a client or on a topic that is traced.",
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        Kind::TABLE[self as usize].1
    }

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::TABLE.iter().find(|(_, known, _)| *known == name).map(|(kind, ..)| *kind)
    }
}

/// Some kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// Without this one.
    pub fn without(self, kind: Kind) -> Kinds {
        Kinds(self.0 & !(1 << kind as u16))
    }

    /// Whether it is one of them.
    #[inline]
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// These and those.
    pub fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Kinds {
        Kinds(kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind as u16))
    }
}

/// What is to be collected. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// These kinds; [`Kind::Packet`] only as far as the lists below say.
    pub kinds: Kinds,
    /// Clients whose packets are traced.
    pub clients: Vec<Box<str>>,
    /// Topic filters; PUBLISH packets on topics that they match are traced.
    pub topics: Vec<Box<str>>,
}

impl Watch {
    /// Whether anything is traced.
    pub fn traces(&self) -> bool {
        !self.clients.is_empty() || !self.topics.is_empty()
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When, on the shards' clock.
    pub at: Moment,
    /// Where.
    pub shard: ShardId,
    /// Whose: the client's identifier, empty where it is not known.
    pub client_id: Box<str>,
    /// The client's address, where there is one.
    pub peer: Option<SocketAddr>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// [`Kind::Connected`].
    Connected {
        /// User name.
        username: Option<Box<str>>,
        /// Protocol version.
        version: Version,
        /// Keep Alive in seconds that holds.
        keep_alive_s: u16,
        /// CONNECT asked for a new session.
        clean_start: bool,
        /// CONNACK said that there was one.
        session_present: bool,
        /// CONNECT said that it is a bridge.
        bridge: bool,
    },
    /// [`Kind::Disconnected`].
    Disconnected {
        /// User name.
        username: Option<Box<str>>,
        /// What was said, by whichever side; `None`: nothing was.
        reason: Option<ReasonCode>,
    },
    /// [`Kind::Refused`].
    Refused {
        /// The reason code of CONNACK.
        code: ReasonCode,
        /// What was expected.
        text: Box<str>,
    },
    /// [`Kind::Subscribed`].
    Subscribed {
        /// Topic filter, `$share/name/filter` included.
        filter: Box<str>,
        /// QoS that was granted.
        qos: QoS,
    },
    /// [`Kind::Unsubscribed`].
    Unsubscribed {
        /// Topic filter, `$share/name/filter` included.
        filter: Box<str>,
    },
    /// [`Kind::SessionCreated`].
    SessionCreated,
    /// [`Kind::SessionEnded`].
    SessionEnded,
    /// [`Kind::Packet`].
    Packet {
        /// From the broker to the client.
        sent: bool,
        /// Name of the packet.
        name: &'static str,
        /// Topic name of a PUBLISH; empty where an alias stands for it.
        topic: Option<Box<str>>,
        /// What it says, in words; never a password.
        text: Box<str>,
    },
}

impl What {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            What::Connected { .. } => Kind::Connected,
            What::Disconnected { .. } => Kind::Disconnected,
            What::Refused { .. } => Kind::Refused,
            What::Subscribed { .. } => Kind::Subscribed,
            What::Unsubscribed { .. } => Kind::Unsubscribed,
            What::SessionCreated => Kind::SessionCreated,
            What::SessionEnded => Kind::SessionEnded,
            What::Packet { .. } => Kind::Packet,
        }
    }
}

impl Happening {
    /// The topic filter or topic name that it is about.
    pub fn topic(&self) -> Option<&str> {
        match &self.what {
            What::Subscribed { filter, .. } | What::Unsubscribed { filter } => Some(filter),
            What::Packet { topic, .. } => topic.as_deref(),
            _ => None,
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let text = match &self.what {
            What::Connected { username, .. } | What::Disconnected { username, .. } => {
                username.as_ref().map_or(0, |name| name.len())
            }
            What::Refused { text, .. } => text.len(),
            What::Subscribed { filter, .. } | What::Unsubscribed { filter } => filter.len(),
            What::Packet { topic, text, .. } => text.len() + topic.as_ref().map_or(0, |topic| topic.len()),
            What::SessionCreated | What::SessionEnded => 0,
        };
        size_of::<Happening>() + self.client_id.len() + text
    }
}

/// What a shard has collected.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which it happened.
    pub happenings: Vec<Happening>,
    /// How many more there were that found no room.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_name_and_kept_in_a_set() {
        for (at, (kind, name, _)) in Kind::TABLE.iter().enumerate() {
            assert_eq!((*kind as usize, Kind::of(name), kind.name()), (at, Some(*kind), *name));
        }
        let some: Kinds = [Kind::Connected, Kind::Packet].into_iter().collect();
        assert!(some.has(Kind::Packet) && !some.has(Kind::Refused));
        assert!(
            !some.without(Kind::Packet).has(Kind::Packet) && some.without(Kind::Packet).has(Kind::Connected)
        );
        assert_eq!(Kind::of("nothing"), None);
    }
}
