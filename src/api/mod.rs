//! The HTTP API, on the management thread.
//!
//! One table of [`endpoint`]s routes requests, checks their arguments, and describes itself. Several
//! [`dialect`]s are served side by side; a handler answers a value or a [`fault`], and the dialect of the path
//! gives it its body. [`security`] decides who may ask. Every request is bounded in head, body and time, every
//! connection in its life, and there is a bound on connections and on requests at once: a slow or silent client
//! is closed and never keeps anybody else out for long. It knows the shards only through what it is given.

mod alarms;
mod bans;
mod context;
pub mod control;
mod desk;
pub mod dialect;
pub mod endpoint;
pub mod events;
pub mod fault;
pub mod measure;
pub mod openapi;
mod pages;
pub mod probes;
pub mod publish;
mod rmqtt;
pub mod security;
mod serve;
pub mod shape;
mod sys;
pub mod times;
pub mod v4;

pub use context::{Context, Facts, Node};
pub use desk::{Away, Desk, Listed, Paged, Port, Position};
pub use security::hash as hash_password;
pub use security::{Auth, Secret, User};
pub use serve::{Api, State};

use crate::limits::HTTP_BODY_BYTES_DEFAULT;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where HTTP is served, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpOptions {
    /// Addresses; none = HTTP is off.
    pub listen: Vec<SocketAddr>,
    /// Whether credentials are asked for.
    pub auth: Auth,
    /// Names with hashed passwords.
    pub users: Vec<User>,
    /// Bearer tokens.
    pub bearer_tokens: Vec<Secret>,
    /// The secret of JSON Web Tokens that are signed by HS256; empty = none.
    pub jwt_secret: Secret,
    /// The public key of JSON Web Tokens that are signed by RS256, a file in PEM.
    pub jwt_public_key: Option<PathBuf>,
    /// Names that a loopback address answers to, and whose pages may change something; `*` is any.
    pub hosts: Vec<Box<str>>,
    /// Bytes of a request's body at most.
    pub max_body_bytes: u64,
    /// Whether `/metrics` is served without credentials also where other machines reach it.
    pub open_metrics: bool,
    /// Seconds between two rounds of what the broker publishes below `$SYS/`; 0 = none.
    pub sys_interval_s: u32,
    /// Whether each client that comes or goes is published there.
    pub sys_client_events: bool,
}

impl HttpOptions {
    /// Whether `admin` with `public` is out of use, because something else was configured.
    pub fn has_credentials(&self) -> bool {
        !self.users.is_empty()
            || !self.bearer_tokens.is_empty()
            || !self.jwt_secret.text().is_empty()
            || self.jwt_public_key.is_some()
    }

    /// The first address that another machine may reach.
    pub fn reachable(&self) -> Option<SocketAddr> {
        self.listen.iter().copied().find(|addr| !addr.ip().to_canonical().is_loopback())
    }
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            listen: vec![(Ipv4Addr::LOCALHOST, 8081).into()],
            auth: Auth::Required,
            users: Vec::new(),
            bearer_tokens: Vec::new(),
            jwt_secret: Secret::default(),
            jwt_public_key: None,
            hosts: Vec::new(),
            max_body_bytes: HTTP_BODY_BYTES_DEFAULT,
            open_metrics: false,
            sys_interval_s: 60,
            sys_client_events: false,
        }
    }
}
