//! The rings between shards, and the only atomics of the broker.
//!
//! - [`Shared`]: one counted allocation of a head and bytes; what a message is made of.
//! - [`shared_bytes`]: what all of those blocks hold.
//! - [`spsc`]: bounded rings with one producer and one consumer, published in batches.
//! - [`Doorbell`]: who sleeps, and who has to wake it.
//! - [`Gate`]: how many connections a listener has on all shards, and how fast they come.
//! - [`Sequence`]: one order for the few things that need one across shards.
//!
//! The feature `loom` swaps the atomics for loom's (module `primitive`). Its models are the modules `loom_tests`
//! here and in [`crate::mesh`]: `cargo test --features loom --lib loom_tests`.

mod doorbell;
mod gate;
mod meter;
mod primitive;
mod sequence;
mod shared;
pub mod spsc;

pub use doorbell::Doorbell;
pub use gate::Gate;
pub use meter::shared_bytes;
pub use sequence::Sequence;
pub use shared::Shared;
