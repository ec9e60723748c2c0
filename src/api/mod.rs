//! The HTTP API, on the management thread: `GET /health`, and the dialects below `/api`.
//!
//! Every request is bounded in head, body and time, every connection in its life, and there is a bound on
//! connections: a slow or silent client is closed and never keeps anybody else out for long. It knows the
//! shards only through what it is given.

mod context;
mod desk;
mod serve;
mod v4;

pub use context::{Context, Facts, Node};
pub use desk::{Away, Desk, Listed, Port, Position};
pub use serve::{Api, State};

use std::net::{Ipv4Addr, SocketAddr};

/// Where HTTP is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpOptions {
    /// Addresses; none = HTTP is off.
    pub listen: Vec<SocketAddr>,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions { listen: vec![(Ipv4Addr::LOCALHOST, 8081).into()] }
    }
}
