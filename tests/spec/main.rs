//! The normative statements of MQTT 5.0 and 3.1.1, each with the tests that carry its number.
//!
//! A case is a function that plays raw packets against a running broker. It is registered with the statements
//! that it checks, in the `cases!` list of its file; from that its names are made: statement, version, function
//! (`mqtt_3_1_0_2_v5_a_second_connect_is_a_protocol_error`).
//!
//! Each case runs with 1 and with 4 shards on two grounds: against the binary on sockets, with every driver; and
//! on a simulated machine, production shards in one thread on a virtual clock, once as it is and once with each
//! byte travelling by itself. So a case says what time it waits for through the scene ([`Scene::pass`]) or its peer,
//! and what is due at a moment ([`ground::Since`]) comes on the simulation at that moment exactly. On sockets brokers are
//! shared: a case uses client identifiers and topics of its own ([`Scene::id`], [`Scene::topic`]), and asks for a
//! broker with other settings where it needs them ([`Scene::with`]).
//!
//! `coverage.toml` says of each statement of both standards whom it binds, and which cases check it or why none
//! can; `BLESS=1 cargo test --test spec coverage` writes the names of the cases into it.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod coverage;
mod ground;
mod harness;
#[path = "../machine/mod.rs"]
mod machine;
mod raw;
mod scene;
mod v3;
mod v5;

pub use ground::{Broker, Peer, is_exact};
pub use scene::Scene;

use harness::Suite;

/// All cases, by standard.
pub const SUITES: &[Suite] = &[v5::SUITE, v3::SUITE];

fn main() -> std::process::ExitCode {
    harness::run(SUITES)
}
