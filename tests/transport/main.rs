//! TLS, WebSocket and both, seen from outside: rustls' and tungstenite's clients against the real broker.
#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "../common/mod.rs"]
mod common;

mod certificates;
mod exchange;
mod ground;
mod limits;
mod proxied;
mod slow;

use common::{Broker, Driver, Http};
use ground::{Files, Way};
use serde_json::Value;
use std::net::SocketAddr;

/// A broker with a listener of each kind, each named like it, and HTTP.
pub fn serve(driver: Driver, shards: usize, files: &Files, more: &[(&str, &str)]) -> Broker {
    let (chain, key) = (files.path("chain.pem"), files.path("key.pem"));
    let mut settings = Vec::new();
    for kind in ["tls", "ws", "wss"] {
        let name = |key| format!("listeners.{kind}.{key}");
        settings.push((name("kind"), kind.to_owned()));
        settings.push((name("bind"), "127.0.0.1:0".to_owned()));
        if kind != "ws" {
            settings.push((name("certificate"), chain.clone()));
            settings.push((name("key"), key.clone()));
        }
    }
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let settings: Vec<_> = settings.chain(more.iter().copied()).collect();
    Broker::start_http(driver, shards, &settings)
}

/// Where the listener of this name is.
pub fn listener(broker: &Broker, name: &str) -> SocketAddr {
    let told = Http::of(broker).json("/api/v4/listeners");
    let rows = told["data"][0]["listeners"].as_array().expect("a list").clone();
    let row = rows.into_iter().find(|row| row["name"] == name).expect("a listener of this name");
    row["listen_on"].as_str().expect("a text").parse().expect("an address")
}

/// How a listener is reached.
pub fn way(broker: &Broker, files: &Files, name: &str) -> Way {
    Way::new(listener(broker, name), name, files)
}

/// A counter of all shards.
pub fn counter(broker: &Broker, name: &str) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    let shards = told["data"].as_array().expect("a list").clone();
    let of = |shard: &Value| shard["counters"][name].as_u64();
    shards.iter().map(|shard| of(shard).unwrap_or_else(|| panic!("no {name} in {shard}"))).sum()
}
