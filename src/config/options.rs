//! What the broker can be told: checked options as plain values, with their defaults.
//!
//! Names, units, bounds and meanings are in [`super::keys`]; no other place knows a default.

pub use crate::session::{Options as MqttOptions, QueueFull, SharedStrategy};

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Which driver moves bytes between the kernel and the shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll with one warning.
    #[default]
    Auto,
    /// io_uring, or the broker does not start.
    Uring,
    /// epoll.
    Epoll,
}

impl IoChoice {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, IoChoice)] =
        &[("auto", IoChoice::Auto), ("uring", IoChoice::Uring), ("epoll", IoChoice::Epoll)];
}

/// Whether anything outlives the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Acknowledged is on the disk.
    #[default]
    On,
    /// Everything is in memory.
    Off,
}

impl Durability {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Durability)] = &[("on", Durability::On), ("off", Durability::Off)];
}

/// Threads, listeners and descriptors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerOptions {
    /// Where MQTT is served: at least one.
    pub listen: Vec<SocketAddr>,
    /// Length of each listener's accept queue; the kernel bounds it by `net.core.somaxconn`.
    pub backlog: u32,
    /// The folder for what is kept; `None` = see [`super::Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// Whether anything outlives the process.
    pub durability: Durability,
    /// Shards, 0 = one for each available core, less one for management where there are 4 or more.
    pub shards: u16,
    /// The driver.
    pub io: IoChoice,
    /// Whether each shard is pinned to a core.
    pub pin: bool,
    /// How far the management thread stands behind shards of the same core, 0 to 19.
    pub management_nice: u8,
    /// Connections of the whole broker, 0 = what the descriptors allow.
    pub max_connections: u32,
    /// Bytes of memory that the shards may hold, 0 = no bound.
    pub max_memory: u64,
    /// Whether each peer's address is asked for.
    pub peer_address: bool,
    /// Seconds that a drain may take.
    pub drain_timeout_s: u32,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 1883))],
            backlog: 4096,
            data_dir: None,
            durability: Durability::default(),
            shards: 0,
            io: IoChoice::default(),
            pin: true,
            management_nice: 10,
            max_connections: 0,
            max_memory: 0,
            peer_address: true,
            drain_timeout_s: 10,
        }
    }
}
