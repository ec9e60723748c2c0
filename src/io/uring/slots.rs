//! The table of connections: 16 bytes each, in chunks, because an idle connection should cost nothing else
//! here and a doubling vector wastes half.

use super::super::Conn;
use super::super::driver::NOTHING;
use crate::heap::vec_bytes;

/// Where a connection stands.
///
/// ```text
/// Free ─► Naming ─► Open ─► Flushing ─► Lingering ─► Closing ─► Leaving ─► Free
///  │ └─(arrival)─►  ▲ │ └──────┴───(Now, Reset)────► ▲
///  │                │ └► Moving ─► Free, or back to Open
///  └► Connecting ───┴──(close)──► Closing
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Free,
    /// Accepted; the peer's address is asked for, nobody knows of it yet.
    Naming,
    /// An attempt to connect is under way, in the place of a send.
    Connecting,
    Open,
    /// The last send has to end before the socket is shut down.
    Flushing,
    /// Shut down for writing; input is discarded until the peer's end of stream.
    Lingering,
    /// Waits for the last completion of what is under way.
    Closing,
    /// Nothing is under way but the close itself.
    Leaving,
    /// On its way to another shard.
    Moving,
}

/// The read that the caller armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Armed {
    #[default]
    Nothing,
    Once,
    Stream,
    Parked,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Counts the owners of this index; 24 bits of it are in every request's name.
    pub(super) generation: u32,
    /// Naming: the listener. Open: bytes that a stream may still deliver. Lingering: bytes that may still be
    /// discarded.
    pub(super) credit: u32,
    /// Place in the outbox of the send under way; of a moving connection its place among those that move; of
    /// one that connects that of its peer's address.
    pub(super) place: u32,
    pub(super) phase: Phase,
    pub(super) armed: Armed,
    /// Requests under way that closing has to wait for: `READING`, `SENDING`, and a count of others.
    under_way: u8,
    /// A shutdown of both directions, or a reset, was asked for.
    pub(super) shut: bool,
}

const _: () = assert!(size_of::<Slot>() == 16);

const READING: u8 = 1 << 7;
const SENDING: u8 = 1 << 6;

impl Slot {
    pub(super) fn is_reading(&self) -> bool {
        self.under_way & READING != 0
    }

    pub(super) fn is_sending(&self) -> bool {
        self.under_way & SENDING != 0
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.under_way == 0
    }

    pub(super) fn set_reading(&mut self, yes: bool) {
        self.under_way = self.under_way & !READING | if yes { READING } else { 0 };
    }

    pub(super) fn set_sending(&mut self, yes: bool) {
        self.under_way = self.under_way & !SENDING | if yes { SENDING } else { 0 };
    }

    /// One more request that is neither a read nor a send; there are three at most.
    pub(super) fn prepare(&mut self) {
        debug_assert!(self.under_way & !(READING | SENDING) < 8, "a bounded number of requests");
        self.under_way += 1;
    }

    pub(super) fn prepared(&mut self) {
        debug_assert!(self.under_way & !(READING | SENDING) > 0, "each ends once");
        self.under_way -= 1;
    }
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            generation: 0,
            credit: 0,
            place: NOTHING,
            phase: Phase::Free,
            armed: Armed::Nothing,
            under_way: 0,
            shut: false,
        }
    }
}

const CHUNK: usize = 1_024;

/// The slots; grown chunk by chunk to the highest index that the kernel used.
#[derive(Default)]
pub(super) struct Slots {
    chunks: Vec<Box<[Slot]>>,
}

impl Slots {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * vec_bytes::<Slot>(CHUNK) + vec_bytes::<Box<[Slot]>>(self.chunks.capacity())
    }

    /// The slot of an index that the kernel has named.
    pub(super) fn at(&mut self, conn: Conn) -> &mut Slot {
        &mut self.chunks[conn as usize / CHUNK][conn as usize % CHUNK]
    }

    pub(super) fn get(&self, conn: Conn) -> Option<&Slot> {
        self.chunks.get(conn as usize / CHUNK)?.get(conn as usize % CHUNK)
    }

    /// A new owner for a free index.
    pub(super) fn occupy(&mut self, conn: Conn, phase: Phase) -> &mut Slot {
        while self.chunks.len() * CHUNK <= conn as usize {
            self.chunks.push((0..CHUNK).map(|_| Slot::default()).collect());
        }
        let slot = self.at(conn);
        debug_assert_eq!(slot.phase, Phase::Free, "the kernel gives free indices");
        *slot = Slot { generation: slot.generation.wrapping_add(1), phase, ..Slot::default() };
        slot
    }

    /// The index is free; what is named by its generation is ignored from now on.
    pub(super) fn vacate(&mut self, conn: Conn) {
        let slot = self.at(conn);
        debug_assert_ne!(slot.phase, Phase::Free, "freed once");
        slot.phase = Phase::Free;
        slot.generation = slot.generation.wrapping_add(1);
    }
}
