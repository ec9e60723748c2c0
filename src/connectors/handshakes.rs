//! Threads that take steps of TLS handshakes for the shards.
//!
//! Each shard has a ring to each thread, so that nobody waits for a lock, whoever holds it; what is done goes back by
//! the shard's own way. They leave the cores to others that want them: a shard that wakes up runs at once, and what
//! it has left over of its core is for handshakes.

use crate::limits::HANDSHAKE_RING_ENTRIES;
use crate::sync::spsc::{Consumer, Producer, ring};
use crate::transport::{Scratch, Stepped, Transport};
use std::thread::{self, Thread};

/// A step of a handshake, with the way back to whoever wants it.
pub struct Step {
    /// The layers of the connection, with what was received.
    pub transport: Box<Transport>,
    /// Told what came of it, once, on any thread. It must not block.
    pub reply: Box<dyn FnOnce(Stepped) + Send>,
}

/// A shard's way to the threads. They end when all of these are gone.
pub struct Handshakes {
    hands: Vec<Hand>,
    next: usize,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handshakes")
    }
}

/// One thread.
struct Hand {
    /// `None` at the end.
    ring: Option<Producer<Step>>,
    thread: Thread,
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.ring = None;
        self.thread.unpark();
    }
}

impl Handshakes {
    /// Starts a thread for each core; returns the ways to them, one for each shard.
    ///
    /// # Errors
    /// What could not be had, in one line.
    pub fn start(shards: usize) -> Result<Vec<Handshakes>, String> {
        let mut all: Vec<_> = (0..shards).map(|at| Handshakes { hands: Vec::new(), next: at }).collect();
        for number in 0..crate::io::available_cores().len().max(1) {
            let (producers, consumers): (Vec<_>, Vec<_>) =
                (0..shards).map(|_| ring(HANDSHAKE_RING_ENTRIES)).unzip();
            let thread = thread::Builder::new().name(format!("handshakes-{number}"));
            let thread = thread.spawn(move || serve(consumers)).map_err(|error| {
                format!("cannot start a thread for TLS handshakes: {error}; raise the limit on threads")
            })?;
            for (shard, ring) in all.iter_mut().zip(producers) {
                shard.hands.push(Hand { ring: Some(ring), thread: thread.thread().clone() });
            }
        }
        Ok(all)
    }

    /// Gives a step to the thread with the fewest of this shard, by turns where several have none. Never blocks.
    ///
    /// # Panics
    /// When more steps of this shard are under way than its rings have room for.
    pub fn take(&mut self, step: Step) {
        let count = self.hands.len();
        self.next = (self.next + 1) % count;
        let turns = (self.next..count).chain(0..self.next);
        let waiting = |hand: &Hand| hand.ring.as_ref().map_or(usize::MAX, Producer::len);
        let Some(at) = turns.min_by_key(|at| waiting(&self.hands[*at])) else { return };
        let hand = &mut self.hands[at];
        let Some(ring) = &mut hand.ring else { return };
        let full = ring.push(step).is_err();
        assert!(!full, "a shard has fewer steps under way than a ring has entries");
        ring.publish();
        hand.thread.unpark();
    }
}

/// One step of each shard in turn, until all of them are gone.
fn serve(mut rings: Vec<Consumer<Step>>) {
    if crate::io::run_when_idle().is_err() {
        super::stay_behind();
    }
    let mut scratch = Scratch::default();
    loop {
        let mut worked = false;
        // Who leaves does so after its last step was published.
        rings.retain_mut(|ring| {
            let gone = ring.is_abandoned();
            let step = ring.pop();
            ring.release();
            let Some(Step { transport, reply }) = step else { return !gone };
            worked = true;
            reply(transport.step(&mut scratch));
            true
        });
        if rings.is_empty() {
            return;
        }
        if !worked {
            // What came since is told by a token that ends this at once.
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::{hello, tls};
    use std::sync::mpsc::channel;

    #[test]
    fn every_step_comes_back_and_the_threads_end() {
        let (layers, hello) = (tls(), hello());
        let (done, results) = channel();
        let mut shards = Handshakes::start(3).unwrap();
        for round in 0..30 {
            for (shard, way) in shards.iter_mut().enumerate() {
                let mut transport = Transport::new(&layers).unwrap();
                transport.hold(&hello);
                assert!(transport.is_step_due());
                let done = done.clone();
                let reply = move |stepped: Stepped| drop(done.send((shard, round, stepped)));
                way.take(Step { transport, reply: Box::new(reply) });
            }
        }
        // What was given is done, also where whoever gave it has gone.
        drop((shards, done));
        let mut seen: Vec<_> = results
            .iter()
            .map(|(shard, round, stepped)| {
                assert!(stepped.fate.is_ok() && stepped.transport.has_output(), "{stepped:?}");
                (shard, round)
            })
            .collect();
        seen.sort_unstable();
        let all: Vec<_> = (0..3).flat_map(|shard| (0..30).map(move |round| (shard, round))).collect();
        assert_eq!(seen, all);
    }
}
