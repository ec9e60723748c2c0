//! What each fuzz target does with its input. The libFuzzer targets beside this folder and `tests/fuzzing.rs`,
//! which needs no fuzzer, both run these bodies: they panic where something does not hold, and do nothing else.

mod access;
mod config;
mod decode;
mod input;
mod kernel;
mod peer;
mod properties;
mod proxy;
mod shard;
mod topic;
mod transport;
mod trie;

use ringmq::codec::Version;

/// A target: its name, which is that of its corpus, and what it does.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target { name: "decode_v5", body: |data| decode::target(Version::V5, data) },
    Target { name: "decode_v311", body: |data| decode::target(Version::V311, data) },
    Target { name: "decode_v31", body: |data| decode::target(Version::V31, data) },
    Target { name: "properties", body: properties::target },
    Target { name: "topic", body: topic::target },
    Target { name: "trie", body: trie::target },
    Target { name: "shard", body: shard::target },
    Target { name: "config", body: config::target },
    Target { name: "proxy", body: proxy::target },
    Target { name: "upgrade", body: transport::upgrade },
    Target { name: "websocket", body: transport::frames },
    Target { name: "tls", body: transport::records },
    Target { name: "passwords", body: access::passwords },
    Target { name: "acl", body: access::acl },
    Target { name: "jwt", body: access::jwt },
    Target { name: "scram", body: access::scram },
    Target { name: "request", body: access::request },
];

/// Runs a target once.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target is called {name}")).body)(data);
}
