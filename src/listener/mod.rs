//! What a listener is told: its name, what it speaks, where it is, and the terms for those who come through it.
//!
//! A connection knows its listener by a number, the place in the list that all shards are given.

use crate::io::SocketOptions;
use std::net::SocketAddr;

/// What a listener speaks below MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// TCP.
    #[default]
    Tcp,
}

impl Kind {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Kind)] = &[("tcp", Kind::Tcp)];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        Kind::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Its name, which the log and the HTTP API show.
    pub name: Box<str>,
    /// What it speaks.
    pub kind: Kind,
    /// Address and port; port 0 takes a free one. `None`: it is still to be set.
    pub bind: Option<SocketAddr>,
    /// What its sockets are set to; a backlog of 0 is `broker.backlog`.
    pub socket: SocketOptions,
}

impl Listener {
    /// One with the usual options; its address is still to be set.
    pub fn new(name: &str) -> Listener {
        Listener {
            name: name.into(),
            kind: Kind::default(),
            bind: None,
            socket: SocketOptions { backlog: 0, ..SocketOptions::default() },
        }
    }
}

/// Where a listener serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// Its name.
    pub name: Box<str>,
    /// What it speaks.
    pub kind: Kind,
    /// The address that was bound.
    pub addr: SocketAddr,
}

impl std::fmt::Display for Served {
    /// The address; name and kind where they are not what everybody expects.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.addr)?;
        if &*self.name == "default" && self.kind == Kind::Tcp {
            return Ok(());
        }
        write!(f, " ({}, {})", self.name, self.kind.name())
    }
}
