//! Tells the shards what they are to refuse for want of memory.

use super::Broker;
use crate::shard::{Command, Pressure};

impl Broker {
    /// What is refused for want of memory from now on.
    pub fn press(&self, pressure: Pressure) {
        self.tell(|| Command::Pressure(pressure));
    }
}
