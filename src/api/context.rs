//! What every handler is given.

use super::{Desk, State};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// What every handler is given, as `axum::extract::State`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// The shards, to be asked.
    pub desk: Desk,
    /// Whether the broker runs or is about to stop.
    pub state: watch::Receiver<State>,
    /// What does not change while the broker runs.
    pub facts: Arc<Facts>,
}

/// What does not change while the broker runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How the node is called.
    pub node: Node,
    /// Where MQTT is served.
    pub mqtt: Vec<SocketAddr>,
    /// Where HTTP is served.
    pub http: Vec<SocketAddr>,
    /// Shards and driver, one line.
    pub description: String,
}

/// How a node is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: Box<str>,
}

impl Default for Node {
    fn default() -> Node {
        Node { id: 1, name: "ringmq@127.0.0.1".into() }
    }
}
