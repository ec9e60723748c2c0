//! A machine in one thread: production shards on drivers that are simulated, a network, and a virtual clock.
//!
//! Read in this order: `node` (the shards), `driver` (what a shard talks to), `kernel` (what is behind it), `net`
//! (the wire to the clients), `random` and `trace`. Faults are seeded and off where [`Faults::none`] is used.

#![allow(dead_code, unused_imports, missing_docs, clippy::unwrap_used, reason = "each test uses its part")]

pub mod driver;
pub mod kernel;
pub mod net;
pub mod node;
pub mod random;
pub mod store;
pub mod trace;

pub use net::{Faults, Leave, SocketId, Wire};
pub use node::{Build, Machine};
pub use random::Random;
pub use store::Disk;
