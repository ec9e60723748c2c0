//! Listeners: several at a time, each with its own settings, seen from outside.

mod admission;
#[path = "../common/mod.rs"]
mod common;
mod local;
mod mounted;
mod proxied;
mod several;

use common::{Broker, Ground, Http};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A listener of a broker, to be connected to.
pub struct Through(pub SocketAddr);

impl Ground for Through {
    type Socket = TcpStream;

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0).expect("the listener takes connections");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        stream
    }
}

/// What the API tells of a listener.
pub fn row(broker: &Broker, name: &str) -> Value {
    let told = Http::of(broker).json("/api/v4/listeners");
    let rows = told["data"][0]["listeners"].as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["name"] == name).expect("a listener of this name")
}

/// A listener of this name.
pub fn through(broker: &Broker, name: &str) -> Through {
    Through(row(broker, name)["listen_on"].as_str().expect("a text").parse().expect("an address"))
}

/// Waits until the API tells so many connections of a listener.
pub fn await_connections(broker: &Broker, name: &str, count: u64) {
    let mut seen = Value::Null;
    for _ in 0..600 {
        seen = row(broker, name)["current_conns"].clone();
        if seen == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{name}: {count} connections, got {seen}");
}

/// Asserts a counter of all shards, which the API tells some time after it was counted.
pub fn expect_counter(broker: &Broker, name: &str, value: u64) {
    let mut sum = 0;
    for _ in 0..600 {
        let told = Http::of(broker).json("/api/v4/shards");
        let shards = told["data"].as_array().expect("a list");
        sum = shards.iter().map(|shard| shard["counters"][name].as_u64().expect("a counter")).sum();
        if sum == value {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{name}: {value}, got {sum}\n{}", broker.log());
}
