//! What the tests of the whole broker share: the real binary on a free port, and a scripted peer.
//!
//! A test names the drivers that it runs on by [`DRIVERS`]. Nothing here sleeps to wait for something: a read
//! waits for bytes, and a deadline only ends a test that has failed.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(unused_imports, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod broker;
mod http;
mod peer;
pub mod scram;
mod socket;

use ringmq::codec::Version;

pub use broker::{Broker, DRIVERS, Driver};
pub use http::{Answer, Http, Sse};
pub use peer::{Login, Message, Peer, Read, Received, TIMEOUT, WillSpec, ids};
pub use socket::{Ground, Socket, uptime};

/// The versions of MQTT that are told apart by what a session does.
pub const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// Runs a test with both versions on every driver.
pub fn everywhere(shards: usize, settings: &[(&str, &str)], test: impl Fn(&Broker, Version)) {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, shards, settings);
        VERSIONS.iter().for_each(|&version| test(&broker, version));
        broker.stop();
    }
}

/// An identifier that only this test and version use.
pub fn named(name: &str, version: Version) -> String {
    format!("{name}-{version:?}")
}
