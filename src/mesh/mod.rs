//! The rings, overflows and doorbells between shards (D6, D7, D14 of the design).
//!
//! Per tick, in this order: [`Mesh::read_tails`]; [`Mesh::next_control`] until `None`; decode and handle;
//! [`Mesh::next_data`] for each of [`Mesh::data_pending`]; [`Mesh::flush`] and wake what it returns; only then
//! submit answers, of which those whose [`Mesh::mark`] is above [`Mesh::flushed`] stay held. Before a sleep
//! [`Mesh::prepare_sleep`], after it [`Mesh::awake`].
//!
//! Invariants:
//! - Per ordered pair, control messages arrive in the order handed in, also through the overflow.
//! - Control is published before data, to all targets, and data tails are read before control tails: an envelope that is
//!   seen in a tick follows every control message that its sender published before it.
//! - Draining needs no outbound room, so shards that are full towards each other always resolve.
//!
//! Nothing here knows threads or clocks.

mod control;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

pub use control::{Control, Envelope, HandOn, ScanRequest};

use crate::heap::vec_bytes;
use crate::io::ShardId;
use crate::limits::{CONTROL_RING_ENTRIES, DATA_RING_ENTRIES, SHARDS_MAX};
use crate::stats::Counters;
use crate::sync::spsc::{Consumer, Producer, ring};
use crate::sync::{Doorbell, Sequence};
use std::collections::VecDeque;

/// Entries of an overflow's buffer that are kept when it is empty; above that it is freed.
const OVERFLOW_KEPT: usize = 256;

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct Mesh {
    me: ShardId,
    /// By shard; `None` at our own place.
    peers: Vec<Option<Peer>>,
    bell: Doorbell,
    /// Shared by all ends.
    stamps: Sequence,
    /// Sequence of the last control message handed in.
    mark: u64,
    /// Control messages in all overflows.
    overflow: usize,
    /// Peers with control messages before the tails that were read.
    control_pending: u64,
    data_pending: u64,
    /// Peers to whom something was pushed since the last flush.
    pushed: u64,
    /// Peers from whom something was popped since the last flush.
    popped: u64,
    /// Peers whose data ring was found full by a publisher that waits.
    room_wanted: u64,
    /// Peers whose control ring was found full by a publisher that waits.
    control_wanted: u64,
    counters: Counters,
}

/// What one shard has of one other.
#[derive(Debug)]
struct Peer {
    bell: Doorbell,
    control_out: Producer<Control>,
    /// With the sequence of each.
    overflow: VecDeque<(u64, Control)>,
    data_out: Producer<Envelope>,
    control_in: Consumer<Control>,
    control_tail: usize,
    data_in: Consumer<Envelope>,
    data_tail: usize,
}

/// The ends of a mesh of `shards` shards, 1 to [`SHARDS_MAX`], with rings of the usual sizes.
pub fn mesh(shards: usize) -> Vec<Mesh> {
    mesh_sized(shards, CONTROL_RING_ENTRIES, DATA_RING_ENTRIES)
}

/// As [`mesh`], with rings of these sizes (powers of two): a simulation fills small ones often.
pub fn mesh_sized(shards: usize, control_entries: usize, data_entries: usize) -> Vec<Mesh> {
    assert!((1..=SHARDS_MAX).contains(&shards), "1 to {SHARDS_MAX} shards, not {shards}");
    let bells: Vec<Doorbell> = (0..shards).map(|_| Doorbell::new()).collect();
    let stamps = Sequence::new();
    let mut ends: Vec<Mesh> =
        (0..shards).map(|me| Mesh::new(me, bells[me].clone(), stamps.clone())).collect();
    for end in &mut ends {
        end.peers.resize_with(shards, || None);
    }
    for a in 0..shards {
        for b in 0..a {
            let (control_ab, control_from_a) = ring(control_entries);
            let (control_ba, control_from_b) = ring(control_entries);
            let (data_ab, data_from_a) = ring(data_entries);
            let (data_ba, data_from_b) = ring(data_entries);
            ends[a].peers[b] =
                Some(Peer::new(bells[b].clone(), (control_ab, data_ab), (control_from_b, data_from_b)));
            ends[b].peers[a] =
                Some(Peer::new(bells[a].clone(), (control_ba, data_ba), (control_from_a, data_from_a)));
        }
    }
    ends
}

impl Peer {
    fn new(
        bell: Doorbell,
        out: (Producer<Control>, Producer<Envelope>),
        inbound: (Consumer<Control>, Consumer<Envelope>),
    ) -> Peer {
        let ((control_out, data_out), (control_in, data_in)) = (out, inbound);
        let overflow = VecDeque::new();
        Peer { bell, control_out, overflow, data_out, control_in, control_tail: 0, data_in, data_tail: 0 }
    }

    /// Moves overflow into the ring while there is room; how many.
    fn pump(&mut self) -> usize {
        let before = self.overflow.len();
        while self.control_out.room() > 0 {
            let Some((_, message)) = self.overflow.pop_front() else { break };
            self.control_out.push(message).unwrap_or_else(|_| unreachable!("there was room"));
        }
        if self.overflow.is_empty() && self.overflow.capacity() > OVERFLOW_KEPT {
            self.overflow = VecDeque::new();
        }
        before - self.overflow.len()
    }
}

impl Mesh {
    fn new(me: usize, bell: Doorbell, stamps: Sequence) -> Mesh {
        Mesh {
            me: ShardId::try_from(me).expect("below SHARDS_MAX"),
            peers: Vec::new(),
            bell,
            stamps,
            mark: 0,
            overflow: 0,
            control_pending: 0,
            data_pending: 0,
            pushed: 0,
            popped: 0,
            room_wanted: 0,
            control_wanted: 0,
            counters: Counters::default(),
        }
    }

    /// Whose end this is.
    pub fn me(&self) -> ShardId {
        self.me
    }

    /// A number that is larger than all that any shard was given before; for what needs an order across shards.
    pub fn stamp(&self) -> u64 {
        self.stamps.next()
    }

    /// Shards of the mesh, this one included.
    pub fn shards(&self) -> usize {
        self.peers.len()
    }

    /// Bytes of the rings from other shards, and of what waits for room in the rings to them.
    pub fn bytes(&self) -> usize {
        let bytes = |peer: &Peer| {
            vec_bytes::<Control>(peer.control_in.entries())
                + vec_bytes::<Envelope>(peer.data_in.entries())
                + vec_bytes::<(u64, Control)>(peer.overflow.capacity())
        };
        self.peers.iter().flatten().map(bytes).sum()
    }

    /// What this end counted: control, data and wakes.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Hands in a control message for another shard: it goes into the ring, or behind the overflow.
    pub fn control(&mut self, to: ShardId, message: Control) {
        self.mark += 1;
        self.counters.control_out += 1;
        let mark = self.mark;
        let peer = self.peer(to);
        let refused =
            if peer.overflow.is_empty() { peer.control_out.push(message).err() } else { Some(message) };
        match refused {
            None => self.pushed |= 1 << to,
            Some(message) => {
                peer.overflow.push_back((mark, message));
                self.overflow += 1;
                self.counters.control_overflow += 1;
                self.counters.overflow_depth = self.counters.overflow_depth.max(self.overflow as u64);
            }
        }
    }

    /// Hands in a control message for each other shard.
    pub fn broadcast(&mut self, message: impl Fn() -> Control) {
        for to in 0..self.peers.len() as ShardId {
            if to != self.me {
                self.control(to, message());
            }
        }
    }

    /// Sequence of the last control message handed in, 0 before the first. An answer that depends on what was
    /// handed in so far may leave once [`Mesh::flushed`] reaches it.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Up to which sequence everything is in the peers' rings; the next [`Mesh::flush`] publishes it. An answer
    /// that depends on it may be written now, and given to the driver behind that flush. Never falls.
    pub fn flushed(&self) -> u64 {
        self.first_in_overflow().map_or(self.mark, |first| first - 1)
    }

    /// Moves overflow into the rings as room allows; [`Mesh::flush`] does so, too.
    pub fn pump(&mut self) {
        if self.overflow == 0 {
            return;
        }
        for (to, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let moved = peer.pump();
            if moved > 0 {
                self.overflow -= moved;
                self.pushed |= 1 << to;
            }
        }
    }

    /// Control messages that wait for room in a ring.
    pub fn overflow_len(&self) -> usize {
        self.overflow
    }

    /// Envelopes that can be sent to a shard: at least this many; 0 only when its ring is full, and then the
    /// shard is woken from a sleep when there is room.
    pub fn data_room(&mut self, to: ShardId) -> usize {
        let room = self.peer(to).data_out.room();
        if room == 0 {
            self.room_wanted |= 1 << to;
            self.counters.data_ring_full += 1;
        } else {
            self.room_wanted &= !(1 << to);
        }
        room
    }

    /// Whether a control message for a shard would go straight into its ring. If not, the shard is woken from a
    /// sleep when it would.
    pub fn control_room(&mut self, to: ShardId) -> bool {
        let peer = self.peer(to);
        let room = peer.overflow.is_empty() && peer.control_out.room() > 0;
        if room {
            self.control_wanted &= !(1 << to);
        } else {
            self.control_wanted |= 1 << to;
        }
        room
    }

    /// Sends an envelope, for which there is room.
    pub fn send(&mut self, to: ShardId, envelope: Envelope) {
        let sent = self.peer(to).data_out.push(envelope);
        assert!(sent.is_ok(), "a publisher reserves room on every target before its first push");
        self.pushed |= 1 << to;
        self.counters.data_out += 1;
    }

    /// Reads how far each inbound ring is published: what this tick drains. `meanwhile` is called between two
    /// looks, where other shards may get ahead.
    pub fn read_tails(&mut self, mut meanwhile: impl FnMut()) {
        for (from, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.data_tail = peer.data_in.tail();
            let depth = peer.data_tail.wrapping_sub(peer.data_in.position()) as u64;
            if depth > 0 {
                self.data_pending |= 1 << from;
                self.counters.data_ring_depth = self.counters.data_ring_depth.max(depth);
            }
            meanwhile();
        }
        // After all the data tails: see the module's invariants.
        self.read_control_tails(meanwhile);
    }

    /// Reads the control tails again. A retained scan may run once [`Mesh::next_control`] is at its end after
    /// tails that were read after its request was popped. Call this once per tick; a request that is popped
    /// after it waits for the next tick, else peers could keep this drain going.
    pub fn read_control_tails(&mut self, mut meanwhile: impl FnMut()) {
        for (from, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.control_tail = peer.control_in.tail();
            let depth = peer.control_tail.wrapping_sub(peer.control_in.position()) as u64;
            if depth > 0 {
                self.control_pending |= 1 << from;
                self.counters.control_ring_depth = self.counters.control_ring_depth.max(depth);
            }
            meanwhile();
        }
    }

    /// The next control message before the tails that were read, and whose it is.
    pub fn next_control(&mut self) -> Option<(ShardId, Control)> {
        while self.control_pending != 0 {
            let from = self.control_pending.trailing_zeros() as ShardId;
            let peer = self.peer(from);
            let tail = peer.control_tail;
            if let Some(message) = peer.control_in.pop_until(tail) {
                self.popped |= 1 << from;
                self.counters.control_in += 1;
                return Some((from, message));
            }
            self.control_pending &= !(1 << from);
        }
        None
    }

    /// A bit for each shard from which [`Mesh::next_data`] may have an envelope.
    pub fn data_pending(&self) -> u64 {
        self.data_pending
    }

    /// The next envelope from a shard before the tail that was read. What is not popped in one tick stays for
    /// the next.
    pub fn next_data(&mut self, from: ShardId) -> Option<Envelope> {
        if self.data_pending & (1 << from) == 0 {
            return None;
        }
        let peer = self.peer(from);
        let tail = peer.data_tail;
        let Some(envelope) = peer.data_in.pop_until(tail) else {
            self.data_pending &= !(1 << from);
            return None;
        };
        self.popped |= 1 << from;
        self.counters.data_in += 1;
        Some(envelope)
    }

    /// Publishes everything that was handed in, gives back the room of what was popped, and returns a bit for
    /// each shard that has to be woken: it sleeps, and has something new or waits for that room.
    pub fn flush(&mut self) -> u64 {
        self.pump();
        let (pushed, popped) = (std::mem::take(&mut self.pushed), std::mem::take(&mut self.popped));
        // Control first, to all of them: see the module's invariants.
        for (other, peer) in self.peers.iter_mut().enumerate() {
            if let (1, Some(peer)) = (pushed >> other & 1, peer) {
                peer.control_out.publish();
            }
        }
        for (other, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if pushed >> other & 1 != 0 {
                peer.data_out.publish();
            }
            if popped >> other & 1 != 0 {
                peer.control_in.release();
                peer.data_in.release();
            }
        }
        if pushed | popped == 0 {
            return 0;
        }
        Doorbell::fence();
        let mut wake = 0;
        for (other, peer) in self.peers.iter().enumerate() {
            let Some(peer) = peer else { continue };
            let new = pushed >> other & 1 != 0;
            let room = popped >> other & 1 != 0;
            if new && peer.bell.should_ring_fenced()
                || room && peer.bell.should_ring_for_room_fenced(u32::from(self.me))
            {
                wake |= 1 << other;
                self.counters.wakes_sent += 1;
            } else if new {
                self.counters.wakes_saved += 1;
            }
        }
        wake
    }

    /// Says that this shard is about to sleep, then looks at everything once more. `false`: there is
    /// something to do, the shard stays awake. `true`: it may sleep, and is woken for what comes; after each
    /// return from the sleep it calls [`Mesh::awake`], and prepares anew before the next.
    pub fn prepare_sleep(&mut self) -> bool {
        if self.peers.len() <= 1 {
            return true;
        }
        let mut room = self.room_wanted | self.control_wanted;
        for (to, peer) in self.peers.iter().enumerate() {
            if peer.as_ref().is_some_and(|peer| !peer.overflow.is_empty()) {
                room |= 1 << to;
            }
        }
        self.bell.prepare_sleep_for_room(room);
        let quiet = self.pushed | self.popped == 0 && self.is_quiet();
        if !quiet {
            self.bell.awake();
        }
        quiet
    }

    /// The shards of the set that [`Mesh::flush`] returned are rung now, at this time.
    pub fn note_rung(&self, shards: u64, ns: u64) {
        for (other, peer) in self.peers.iter().enumerate() {
            if let (1, Some(peer)) = (shards >> other & 1, peer) {
                peer.bell.note_rung(ns);
            }
        }
    }

    /// This shard does not sleep any more. Returns when it was rung, if it was.
    pub fn awake(&mut self) -> Option<u64> {
        self.bell.awake();
        self.bell.take_rung()
    }

    /// A fresh look at everything that would be a reason to stay awake.
    fn is_quiet(&mut self) -> bool {
        let mut quiet = true;
        for (other, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            quiet &= peer.control_in.is_empty() && peer.data_in.is_empty();
            quiet &= peer.overflow.is_empty() || peer.control_out.room() == 0;
            if self.room_wanted >> other & 1 != 0 && peer.data_out.room() > 0 {
                // Once: the publisher tries again in the tick that follows, or is gone.
                self.room_wanted &= !(1 << other);
                quiet = false;
            }
            if self.control_wanted >> other & 1 != 0 && peer.control_out.room() > 0 {
                self.control_wanted &= !(1 << other);
                quiet = false;
            }
        }
        quiet
    }

    /// The lowest sequence in any overflow.
    fn first_in_overflow(&self) -> Option<u64> {
        if self.overflow == 0 {
            return None;
        }
        self.peers.iter().flatten().filter_map(|peer| peer.overflow.front()).map(|(mark, _)| *mark).min()
    }

    fn peer(&mut self, shard: ShardId) -> &mut Peer {
        self.peers[usize::from(shard)].as_mut().expect("a shard sends nothing to itself")
    }
}
