//! The HTTP API over a real socket, with real MQTT clients on the other side.
//!
//! One file per topic. A test that concerns the shards as well runs on both drivers ([`served`]); one about HTTP
//! alone on one of them.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "../common/mod.rs"]
mod common;

mod control;
mod desk;

use common::{Broker, DRIVERS, Http};

/// Runs a test on a broker with HTTP and three shards, on every driver.
fn served(settings: &[(&str, &str)], test: impl Fn(&Broker, Http)) {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, settings);
        test(&broker, Http::of(&broker));
        broker.stop();
    }
}
