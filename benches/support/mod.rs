//! What the benches share: packets as clients write them, a driver without a kernel, and a shard on it.
#![allow(dead_code, reason = "each bench uses its part")]

pub mod packets;
pub mod rig;
pub mod wire;
