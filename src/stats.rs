//! What one shard counts and measures, the ledger of losses, and the ledger of memory.
//!
//! Nothing here is atomic: each shard counts for itself, and the management thread adds copies up.

mod counters;
mod histogram;
mod memory;
pub mod names;
mod recorder;

pub use counters::{Counters, Dimension, Family, Gauges, Kind, PACKETS, QOS, SOURCES, Source};
pub use histogram::Histogram;
pub use memory::{Item, Memory, Share};
pub use recorder::{Part, Record, Recorder, SAMPLE_EVERY, Span, Tick};

use crate::heap::{allocated, map_bytes, vec_bytes};
use crate::limits::{LEDGER_CLIENT_ID_BYTES_MAX, LEDGER_CLIENTS_MAX};
use crate::map::Map;
use std::sync::Arc;

/// What one shard counted and measured up to one moment, or several shards together.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What it has counted.
    pub counters: Counters,
    /// What it holds.
    pub gauges: Gauges,
    /// What it held at most; of several shards, each at its own moment.
    pub peaks: Gauges,
    /// Its flight recorder.
    pub record: Record,
    /// What it dropped, by [`LossCause`].
    pub losses: Losses,
}

impl Snapshot {
    /// Takes another shard's in.
    pub fn add(&mut self, other: &Snapshot) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        self.peaks.add(&other.peaks);
        self.record.add(&other.record);
        add(&mut self.losses, &other.losses);
    }

    /// Messages that were lost for these causes.
    pub fn lost(&self, causes: &[LossCause]) -> u64 {
        causes.iter().map(|cause| self.losses[*cause as usize]).sum()
    }
}

macro_rules! causes {
    ($($name:ident $text:literal $doc:literal,)*) => {
        /// Why a message was not delivered.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum LossCause {
            $(#[doc = $doc] $name,)*
        }

        impl LossCause {
            /// All causes, each at the index of its value.
            pub const ALL: &[LossCause] = &[$(LossCause::$name,)*];

            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(LossCause::$name => $text,)*
                }
            }
        }
    };
}

causes! {
    QueueFull "queue_full" "The session's queue was full of messages.",
    QueueBytesFull "queue_bytes_full" "The session's queue was full of bytes.",
    OutputFull "output_full" "The connection's output was full, and the message had QoS 0.",
    PacketTooLarge "packet_too_large" "Larger than the client's maximum packet size [MQTT-3.1.2-24].",
    Expired "expired" "Its message expiry interval passed [MQTT-3.3.2-5].",
    NoMember "no_member" "Its shared subscription had no member that could take it.",
    SessionEnded "session_ended" "It was queued for a session that ended.",
    RetainedFull "retained_full" "Not retained: the bound on retained messages was reached.",
    StoreReadOnly "store_read_only" "Not kept: what is to be kept could not be written.",
    MemoryFull "memory_full" "QoS 0, and the broker held as much memory as it may.",
    OfflineQos0 "offline_qos0" "QoS 0, and the session was not connected.",
}

const CAUSES: usize = LossCause::ALL.len();

/// Lost messages by cause.
pub type Losses = [u64; CAUSES];

/// Every message that was accepted and is not delivered: by cause, and by client.
///
/// The first [`LEDGER_CLIENTS_MAX`] clients that lose something have a line of their own; later ones, and
/// those with an identifier above [`LEDGER_CLIENT_ID_BYTES_MAX`], share one. So it is bounded and complete.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    totals: Losses,
    /// In the order in which they lost something first, so that a listing finds its place again.
    lines: Vec<(Arc<str>, Losses)>,
    /// Where the line of a client is.
    clients: Map<Arc<str>, u32>,
    others: Losses,
}

impl Ledger {
    /// Records `n` messages that `client_id` does not get.
    pub fn record(&mut self, client_id: &str, cause: LossCause, n: u64) {
        self.totals[cause as usize] += n;
        self.line(client_id)[cause as usize] += n;
    }

    /// Losses of all clients together; index them by [`LossCause`] as `usize`.
    pub fn losses(&self) -> Losses {
        self.totals
    }

    /// Losses of all clients together, by cause.
    pub fn totals(&self) -> impl Iterator<Item = (LossCause, u64)> {
        LossCause::ALL.iter().copied().zip(self.totals)
    }

    /// Lost messages, of all causes.
    pub fn total(&self) -> u64 {
        self.totals.iter().sum()
    }

    /// The clients that have a line of their own; index the losses by [`LossCause`] as `usize`.
    pub fn clients(&self) -> impl Iterator<Item = (&str, &Losses)> {
        self.clients_from(0)
    }

    /// The same, without the `first` ones.
    pub fn clients_from(&self, first: usize) -> impl Iterator<Item = (&str, &Losses)> {
        self.lines.iter().skip(first).map(|(client_id, losses)| (&**client_id, losses))
    }

    /// Losses of all clients without a line of their own.
    pub fn others(&self) -> &Losses {
        &self.others
    }

    /// Bytes of its own memory.
    pub fn bytes(&self) -> usize {
        let index = map_bytes::<Arc<str>, u32>(self.clients.capacity());
        let lines = vec_bytes::<(Arc<str>, Losses)>(self.lines.capacity());
        let text = |client_id: &Arc<str>| allocated(2 * size_of::<usize>() + client_id.len());
        index + lines + self.clients.keys().map(text).sum::<usize>()
    }

    /// Takes another shard's ledger in.
    pub fn merge(&mut self, other: &Ledger) {
        add(&mut self.totals, &other.totals);
        add(&mut self.others, &other.others);
        for (client_id, losses) in &other.lines {
            add(self.line(client_id), losses);
        }
    }

    fn line(&mut self, client_id: &str) -> &mut Losses {
        if let Some(line) = self.clients.get(client_id) {
            return &mut self.lines[*line as usize].1;
        }
        if self.lines.len() >= LEDGER_CLIENTS_MAX || client_id.len() > LEDGER_CLIENT_ID_BYTES_MAX {
            return &mut self.others;
        }
        let (client_id, line) = (Arc::<str>::from(client_id), self.lines.len());
        self.clients.insert(client_id.clone(), line as u32);
        self.lines.push((client_id, [0; CAUSES]));
        &mut self.lines[line].1
    }
}

fn add(to: &mut Losses, from: &Losses) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_index_their_table() {
        for (index, cause) in LossCause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
        }
    }

    #[test]
    fn the_ledger_is_bounded_and_complete() {
        let mut ledger = Ledger::default();
        for n in 0..LEDGER_CLIENTS_MAX + 5 {
            ledger.record(&format!("client-{n}"), LossCause::QueueFull, 2);
        }
        ledger.record("client-0", LossCause::Expired, 1);
        ledger.record(&"x".repeat(LEDGER_CLIENT_ID_BYTES_MAX + 1), LossCause::NoMember, 1);
        assert_eq!(ledger.clients().count(), LEDGER_CLIENTS_MAX);
        assert_eq!(ledger.others()[LossCause::QueueFull as usize], 10);
        assert_eq!(ledger.others()[LossCause::NoMember as usize], 1);
        let mut merged = ledger.clone();
        merged.merge(&ledger);
        assert_eq!(merged.total(), 2 * ledger.total());
        let lines: u64 = merged.clients().flat_map(|(_, losses)| losses).chain(merged.others()).sum();
        assert_eq!(lines, merged.total(), "each loss is in one line");
        let (_, losses) = merged.clients().find(|(client_id, _)| *client_id == "client-0").unwrap();
        assert_eq!(losses[LossCause::Expired as usize], 2);
    }
}
