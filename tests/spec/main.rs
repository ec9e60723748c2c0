//! The normative statements of MQTT 5.0 and 3.1.1, each with the tests that carry its number.
//!
//! A case is a function that plays raw packets against a running broker. It is registered with the statements
//! that it checks, in the `cases!` list of its file; from that its names are made: statement, version, function
//! (`mqtt_3_1_0_2_v5_a_second_connect_is_a_protocol_error`). Each case runs on every driver, with 1 and with 4
//! shards. Brokers are shared: a case uses client identifiers and topics of its own ([`Scene::id`],
//! [`Scene::topic`]), and asks for a broker with other settings where it needs them ([`Scene::with`]).
//!
//! `coverage.toml` says of each statement whom it binds, and which cases check it or why none can;
//! `BLESS=1 cargo test --test spec coverage` writes the names of the cases into it.

#[path = "../common/mod.rs"]
mod common;
mod coverage;
mod harness;
mod raw;
mod scene;
mod v3;
mod v5;

pub use scene::Scene;

use harness::Suite;

/// All cases, by standard.
pub const SUITES: &[Suite] = &[v5::SUITE, v3::SUITE];

fn main() -> std::process::ExitCode {
    harness::run(SUITES)
}
