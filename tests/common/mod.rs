//! What the tests of the whole broker share: the real binary on a free port, and a scripted peer.
//!
//! A test names the drivers that it runs on by [`DRIVERS`]. Nothing here sleeps to wait for something: a read
//! waits for bytes, and a deadline only ends a test that has failed.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(unused_imports, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod broker;
mod peer;

pub use broker::{Broker, DRIVERS, Driver};
pub use peer::{Login, Message, Peer, Read, Received, TIMEOUT, WillSpec, ids};
