//! Where the thread runs that manages the broker: beside the shards, not in their way.
//!
//! It must be a thread of its own, and not the first one of the process, which becomes the program anew at a
//! restart: a priority that was given away does not come back, and threads take it from the one that starts them.

use super::Broker;
use crate::config::Config;
use crate::io::{available_cores, lower_priority, pin_to_cores};

/// Where the management thread has its place.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// On the cores that no shard has.
    Own(Vec<usize>),
    /// On any core, and this much behind its shard.
    Behind(u8),
}

impl Broker {
    /// The calling thread manages the broker from now on, and starts no more threads that serve clients.
    pub fn step_aside(&self, config: &Config) {
        let options = &config.broker;
        let (place, done) =
            match place(&available_cores(), self.shards.len(), options.pin, options.management_nice) {
                Place::Own(cores) => (format!("cores {cores:?}"), pin_to_cores(&cores)),
                Place::Behind(0) => return,
                Place::Behind(nice) => (format!("nice {nice}"), lower_priority(nice)),
            };
        match done {
            Ok(()) => tracing::debug!("management runs at {place}"),
            Err(error) => tracing::warn!("management does not run at {place}: {error}"),
        }
    }
}

fn place(cores: &[usize], shards: usize, pinned: bool, nice: u8) -> Place {
    match cores.get(shards..) {
        Some(spare) if pinned && !spare.is_empty() => Place::Own(spare.to_vec()),
        _ => Place::Behind(nice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn management_has_the_cores_that_no_shard_has_or_stands_behind() {
        for (cores, shards, pinned, expected) in [
            (&[0, 1, 2, 3][..], 3, true, Place::Own(vec![3])),
            (&[0, 2, 4, 6], 2, true, Place::Own(vec![4, 6])),
            (&[0, 1], 2, true, Place::Behind(5)),
            (&[0, 1], 4, true, Place::Behind(5)),
            (&[0, 1, 2, 3], 3, false, Place::Behind(5)),
        ] {
            assert_eq!(place(cores, shards, pinned, 5), expected, "{cores:?}, {shards} shards");
        }
    }
}
