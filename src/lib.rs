//! ringmq: an MQTT 3.1, 3.1.1 and 5.0 broker for Linux.
//!
//! Shared-nothing shards, one thread per core, drive io_uring directly. Data flows one way: bytes in →
//! [`codec`] → session → router → local deliveries or the mesh → [`codec`] → bytes out. A module imports
//! only from lower floors; `tests/tidy.rs` holds that table.

pub mod heap;
pub mod limits;
pub mod map;
pub mod rate;
pub mod stats;
pub mod time;
pub mod traffic;

pub mod io;
pub mod sync;
pub mod topic;

pub mod auth;
pub mod message;
pub mod trie;

pub mod codec;
pub mod mesh;
pub mod record;
pub mod retained;
pub mod store;
pub mod transport;

pub mod desk;
pub mod listener;
pub mod router;
pub mod session;

pub mod api;
pub mod connectors;
pub mod log;
pub mod notify;
pub mod shard;

pub mod config;

pub mod bench;
pub mod broker;
pub mod ctl;
pub mod storectl;
pub mod tune;
