//! What a configuration asks of a host: every wanted value is computed from this.

use super::args::HostArgs;
use super::host::Host;
use crate::broker::shard_count;
use crate::config::{Config, IoChoice, Sources};
use crate::limits::{RINGS_PER_SHARD_MAX, SHARDS_MAX};
use std::net::SocketAddr;

/// Connections that are assumed where neither the command line nor the configuration names them.
const CONNECTIONS_DEFAULT: u64 = 100_000;
/// Bytes of user space that an idle client with a subscription takes: 583 in `ringmq bench million`.
const CLIENT_USER_BYTES: u64 = 600;
/// Bytes of the kernel for one end of a connection: 8,117 for both in `ringmq bench million`, Linux 6.18.
const CLIENT_KERNEL_BYTES: u64 = 4_100;
/// Bytes of a broker without clients.
const BROKER_BYTES: u64 = 64 << 20;
/// Pages of socket buffers of a connection that has something on its way in each direction.
const CLIENT_PAGES: u64 = 2;
/// Locked KiB of a shard's first ring: with less than 340 it does not start where the kernel counts them (6.18).
const RING_LOCKED_KIB: u64 = 344;
/// Locked KiB of each further ring of a shard: 98 of them, measured the same way.
const ANNEX_LOCKED_KIB: u64 = 100;
/// Files of a process beside its connections: rings, listeners, the log, HTTP.
const FILES_OWN: u64 = 512;
/// Accepts that a backlog bridges, as the part of all clients that come back at once.
const BACKLOG_SHARE: u64 = 16;

/// How the broker will talk to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// io_uring: connections are descriptors of rings.
    Uring,
    /// epoll: connections are open files.
    Epoll,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Clients at a time.
    pub connections: u64,
    /// Cores that it may use.
    pub cores: Vec<u64>,
    /// Shards.
    pub shards: u64,
    /// Bytes of memory that it may use.
    pub memory: u64,
    /// Bytes of a page.
    pub page: u64,
    /// The driver.
    pub driver: Driver,
    /// `broker.backlog`.
    pub backlog: u64,
    /// `broker.max_connections`.
    pub max_connections: u64,
    /// Whether shards are pinned.
    pub pin: bool,
    /// Ports that it serves.
    pub ports: Vec<u16>,
}

impl Demand {
    /// What the command line, a configuration and the host say. An error is one line that says what to do.
    pub fn new(args: &HostArgs, host: &Host) -> Result<Demand, String> {
        let config = configuration(args)?;
        let broker = &config.broker;
        let mut cores = host.cores();
        if let Some(count) = args.cores {
            cores.truncate(count as usize);
            // More than there are: the host that is meant is another one.
            cores.extend(cores.len() as u64..count);
        }
        let shards = match args.shards {
            Some(shards) => shards.clamp(1, SHARDS_MAX as u64),
            None => shard_count(broker, cores.len()) as u64,
        };
        let configured = u64::from(broker.max_connections);
        let default = if configured > 0 { configured } else { CONNECTIONS_DEFAULT };
        let listeners = config.all_listeners();
        let addresses = listeners.iter().filter_map(|l| l.bind.as_ref()).chain(&config.http.listen);
        Ok(Demand {
            connections: args.connections.unwrap_or(default),
            shards,
            memory: args.memory.unwrap_or_else(|| host.memory()),
            page: host.page(),
            driver: driver(broker.io, host),
            backlog: u64::from(broker.backlog),
            max_connections: configured,
            pin: broker.pin,
            ports: addresses.map(SocketAddr::port).filter(|port| *port > 0).collect(),
            cores,
        })
    }

    /// Places for connections: clients do not fall on shards evenly, and tables keep head-room for those that
    /// move between shards.
    pub fn places(&self) -> u64 {
        if self.shards == 1 { self.connections + 1024 } else { self.connections * 5 / 4 + 8192 }
    }

    /// Open files that the process should be allowed, so that one ring for each shard is enough.
    pub fn open_files(&self) -> u64 {
        match self.driver {
            Driver::Uring => self.places().div_ceil(self.shards) + FILES_OWN,
            Driver::Epoll => self.connections + self.connections / 10 + FILES_OWN,
        }
    }

    /// Rings of each shard where so many open files are allowed; more than [`RINGS_PER_SHARD_MAX`] cannot be.
    pub fn rings(&self, open_files: u64) -> u64 {
        self.places().div_ceil(self.shards).div_ceil(open_files.max(1))
    }

    /// Whether all connections find room with so many open files.
    pub fn fits(&self, open_files: u64) -> bool {
        match self.driver {
            Driver::Uring => self.rings(open_files) <= RINGS_PER_SHARD_MAX as u64,
            Driver::Epoll => open_files >= self.connections + FILES_OWN / 2,
        }
    }

    /// Open files of the whole machine: each connection is one, however it is held.
    pub fn files_of_machine(&self) -> u64 {
        self.connections + self.connections / 4 + 65_536
    }

    /// Bytes of memory that the rings of all shards lock, with so many open files.
    pub fn locked_memory(&self, open_files: u64) -> u64 {
        match self.driver {
            Driver::Epoll => 0,
            Driver::Uring => {
                let annexes = self.rings(open_files).min(RINGS_PER_SHARD_MAX as u64) - 1;
                self.shards * (RING_LOCKED_KIB + annexes * ANNEX_LOCKED_KIB) * 1024
            }
        }
    }

    /// Bytes that all clients take while nothing flows.
    pub fn idle_memory(&self) -> u64 {
        BROKER_BYTES + self.connections * (CLIENT_USER_BYTES + CLIENT_KERNEL_BYTES)
    }

    /// Pages of socket buffers for all connections at once, half of the memory at most.
    pub fn tcp_pages(&self) -> u64 {
        (self.connections * CLIENT_PAGES).min(self.memory / self.page / 2)
    }

    /// The most that a socket buffer may grow to, so that one client in a thousand that does not read, or that
    /// is not read, fits into what TCP may take, which is `pages`. A power of two.
    pub fn buffer_bytes(&self, pages: u64) -> u64 {
        let bytes = pages * self.page / (self.connections / 1000).max(1);
        floor_power_of_two(bytes).clamp(256 << 10, 64 << 20)
    }

    /// Connections that may wait to be accepted, for each listener and shard. A power of two.
    pub fn wanted_backlog(&self) -> u64 {
        (self.connections / self.shards / BACKLOG_SHARE).next_power_of_two().clamp(1024, 32_768)
    }

    /// Many enough that what one connection leaves behind adds up.
    pub fn is_large(&self) -> bool {
        self.connections >= 100_000
    }
}

fn floor_power_of_two(number: u64) -> u64 {
    if number == 0 { 0 } else { 1 << number.ilog2() }
}

fn configuration(args: &HostArgs) -> Result<Config, String> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, text)| (lossy(name), lossy(text))).collect();
    let sources = Sources { file: args.config.clone(), environment, ..Sources::default() };
    let lines = |faults: Vec<crate::config::Fault>| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    Config::load(&sources).map(|loaded| loaded.config).map_err(lines)
}

/// io_uring unless the configuration, the kernel's age or its setting says otherwise. What a seccomp filter
/// forbids is not to be read anywhere.
fn driver(io: IoChoice, host: &Host) -> Driver {
    let old = host.kernel().is_some_and(|version| version < (6, 1));
    let off = host.number("proc/sys/kernel/io_uring_disabled") == Some(2);
    if io == IoChoice::Epoll || (io == IoChoice::Auto && (old || off)) {
        Driver::Epoll
    } else {
        Driver::Uring
    }
}
