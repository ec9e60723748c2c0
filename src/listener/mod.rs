//! What a listener is told: its name, what it speaks, where it is, and the terms for those who come through it.
//!
//! A connection knows its listener by a number, the place in the list that all shards are given.

mod access;
pub mod forwarded;
pub mod mount;
pub mod proxy;

pub use crate::auth::Network;
pub use access::Access;
mod layers;

pub use layers::{TlsOptions, TlsVersion, WebSocketOptions};

use crate::io::SocketOptions;
use crate::session::Options;
use crate::sync::Gate;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What a listener speaks below MQTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// TCP.
    #[default]
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket in TLS.
    Wss,
    /// A socket in the file system.
    Unix,
}

impl Kind {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Kind)] =
        &[("tcp", Kind::Tcp), ("tls", Kind::Tls), ("ws", Kind::Ws), ("wss", Kind::Wss), ("unix", Kind::Unix)];

    /// Whether it needs certificates.
    pub fn has_tls(self) -> bool {
        matches!(self, Kind::Tls | Kind::Wss)
    }

    /// Whether it begins with a request of HTTP.
    pub fn has_websocket(self) -> bool {
        matches!(self, Kind::Ws | Kind::Wss)
    }

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
    /// The path of its socket, where it is one in the file system.
    pub path: Option<PathBuf>,
    /// The permissions of that, as octal digits.
    pub mode: Box<str>,
    /// What its sockets are set to; a backlog of 0 is `broker.backlog`.
    pub socket: SocketOptions,
    /// The zone whose values its clients have; empty: none.
    pub zone: Box<str>,
    /// What stands before the topics of its clients; `%c` and `%u` are their identifiers. Empty: nothing.
    pub mountpoint: Box<str>,
    /// Who may come.
    pub access: Access,
    /// Connections at a time, 0 = no bound of its own.
    pub max_connections: u32,
    /// Connections in a second, 0 = no bound.
    pub max_conn_rate: u32,
    /// Connections from one address in a second, 0 = no bound.
    pub max_conn_rate_per_address: u32,
    /// Whether each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether the client's address is taken from an upgrade request that comes from a proxy.
    pub x_forwarded_for: bool,
    /// Who may send such a header. Others may not come where there must be one, and are not believed where there
    /// may be one.
    pub proxy_from: Vec<Network>,
    /// Seconds within which it must have come.
    pub proxy_timeout_s: u32,
    /// TLS, for kinds that have it.
    pub tls: TlsOptions,
    /// WebSocket, for kinds that have it.
    pub websocket: WebSocketOptions,
}

impl Listener {
    /// One with the usual options; its address is still to be set.
    pub fn new(name: &str) -> Listener {
        Listener {
            name: name.into(),
            kind: Kind::default(),
            bind: None,
            path: None,
            mode: "660".into(),
            socket: SocketOptions { backlog: 0, ..SocketOptions::default() },
            zone: "".into(),
            mountpoint: "".into(),
            access: Access::default(),
            max_connections: 0,
            max_conn_rate: 0,
            max_conn_rate_per_address: 0,
            proxy_protocol: false,
            x_forwarded_for: false,
            proxy_from: Vec::new(),
            proxy_timeout_s: 3,
            tls: TlsOptions::default(),
            websocket: WebSocketOptions::default(),
        }
    }
}

impl Listener {
    /// The permissions of its path; `None` where they are not what a mode is.
    pub fn mode_bits(&self) -> Option<u32> {
        let octal = !self.mode.is_empty() && self.mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        u32::from_str_radix(&self.mode, 8).ok().filter(|bits| octal && *bits <= 0o777)
    }

    /// Whether this is a proxy that may say for whom it speaks.
    pub fn trusts(&self, addr: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(addr))
    }

    /// Whether it cannot do without the address of each peer.
    pub fn needs_addresses(&self) -> bool {
        let asked =
            !self.access.is_open() || !self.proxy_from.is_empty() || self.max_conn_rate_per_address > 0;
        self.kind != Kind::Unix && asked
    }
}

/// A listener as shards have it.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// What it was told.
    pub listener: Listener,
    /// MQTT's rules for its clients, where they are not those of everybody.
    pub zone: Option<Box<Options>>,
    /// Its connections, on all shards together.
    pub gate: Gate,
}

/// Where a listener serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// Its name.
    pub name: Box<str>,
    /// What it speaks.
    pub kind: Kind,
    /// The address that was bound; that of this machine where it has a path.
    pub addr: SocketAddr,
    /// Its path, where it has one.
    pub path: Option<PathBuf>,
}

impl Served {
    /// A listener that is bound to this address, or has its path.
    pub fn at(listener: &Listener, addr: SocketAddr) -> Served {
        let (name, kind, path) = (listener.name.clone(), listener.kind, listener.path.clone());
        Served { name, kind, addr, path }
    }

    /// The address or the path.
    pub fn place(&self) -> String {
        self.path.as_ref().map_or_else(|| self.addr.to_string(), |path| path.display().to_string())
    }
}

impl std::fmt::Display for Served {
    /// The address; name and kind where they are not what everybody expects.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place())?;
        if &*self.name == "default" && self.kind == Kind::Tcp {
            return Ok(());
        }
        write!(f, " ({}, {})", self.name, self.kind.name())
    }
}
