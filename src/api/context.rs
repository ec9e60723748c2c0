//! What every handler is given.

use super::alarms::Alarms;
use super::bans::BanList;
use super::control::Order;
use super::events::{Hub, Traces};
use super::measure::Meter;
use super::security::Security;
use super::{Desk, HttpOptions, State};
use crate::auth::Ban;
use crate::listener::Served;
use crate::time::Moment;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};

/// What every handler is given, as `axum::extract::State`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// The shards, to be asked.
    pub desk: Desk,
    /// Whether the broker runs or is about to stop.
    pub state: watch::Receiver<State>,
    /// What does not change while the broker runs.
    pub facts: Arc<Facts>,
    /// The thread that runs the broker.
    pub orders: mpsc::Sender<Order>,
    /// Gathers what the shards measure.
    pub meter: Meter,
    /// Tells what happens on the shards.
    pub hub: Hub,
    /// Packets that are traced into files.
    pub traces: Traces,
    /// Who may not come.
    pub(super) bans: BanList,
    /// What is wrong, and what was.
    pub(super) alarms: Alarms,
    /// Who is let in.
    pub(super) door: Arc<Door>,
}

/// What decides who is let in.
#[derive(Debug)]
pub(super) struct Door {
    pub options: HttpOptions,
    pub security: Security,
    /// Requests that may run at once.
    pub requests: Semaphore,
    started: Instant,
}

/// Where a connection came in, as an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub SocketAddr);

impl Context {
    pub(super) fn new(
        desk: Desk,
        state: watch::Receiver<State>,
        mut facts: Facts,
        orders: mpsc::Sender<Order>,
        (options, security): (HttpOptions, Security),
    ) -> Context {
        let requests = Semaphore::new(crate::limits::HTTP_REQUESTS_MAX);
        let door = Door { options, security, requests, started: Instant::now() };
        let (meter, hub) = (Meter::new(desk.clone()), Hub::new(desk.clone()));
        let bans = BanList::new(std::mem::take(&mut facts.bans));
        let (facts, door, traces) = (Arc::new(facts), Arc::new(door), Traces::default());
        let alarms = Alarms::default();
        Context { desk, state, facts, meter, hub, traces, alarms, bans, orders, door }
    }

    /// How long the API has been served.
    pub fn uptime(&self) -> Duration {
        self.door.started.elapsed()
    }

    /// Seconds between two rounds of `$SYS`; 0 = none.
    pub(super) fn sys_interval_s(&self) -> u32 {
        self.door.options.sys_interval_s
    }

    /// Whether clients that come and go are published below `$SYS`.
    pub(super) fn sys_client_events(&self) -> bool {
        self.door.options.sys_client_events
    }

    /// Bytes of a body at most.
    pub fn body_bytes_max(&self) -> usize {
        usize::try_from(self.door.options.max_body_bytes).unwrap_or(usize::MAX)
    }
}

/// What does not change while the broker runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How the node is called.
    pub node: Node,
    /// Where MQTT is served, by number of the listener.
    pub mqtt: Vec<Served>,
    /// Where HTTP is served.
    pub http: Vec<SocketAddr>,
    /// Shards and driver, one line.
    pub description: String,
    /// The folder for what is kept, which need not be there.
    pub data_dir: PathBuf,
    /// Bans of an earlier run, and until when they hold; the shards have them.
    pub bans: Vec<(Arc<Ban>, Moment)>,
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
