//! Plain counters of one shard, and the ledger of losses.
//!
//! Nothing here is atomic: each shard counts for itself, and the management thread adds copies up.
//! A counter is one line in the table below.

use crate::limits::{LEDGER_CLIENT_ID_BYTES_MAX, LEDGER_CLIENTS_MAX};
use crate::map::Map;

/// What a value of [`Counters`] is, and so how two shards' values become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The highest so far; the highest of all shards.
    Peak,
    /// Only grows; added up.
    Counter,
    /// How many there are now; added up.
    Gauge,
}

macro_rules! counters {
    ($($kind:ident $name:ident $doc:literal,)*) => {
        /// The counters of one shard.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counters {
            /// Name, kind and meaning of each value, in the order of [`Counters::values`].
            pub const TABLE: &[(&str, Kind, &str)] = &[$((stringify!($name), Kind::$kind, $doc),)*];

            /// All values, in the order of [`Counters::TABLE`].
            pub fn values(&self) -> [u64; Self::TABLE.len()] {
                [$(self.$name,)*]
            }

            /// Takes another shard's counters in, each by its [`Kind`].
            pub fn add(&mut self, other: &Counters) {
                $(self.$name = Kind::$kind.join(self.$name, other.$name);)*
            }
        }
    };
}

counters! {
    Counter ticks "Turns of the shard's loop.",
    Counter completions "Completions that the driver reaped.",
    Counter events "Events that the driver reported.",
    Counter bytes_in "Bytes received from clients.",
    Counter bytes_out "Bytes sent to clients.",
    Counter packets_in "MQTT packets received.",
    Counter packets_out "MQTT packets sent.",
    Counter publishes_in "PUBLISH packets received.",
    Counter deliveries "Messages delivered to sessions.",
    Counter sends "Sends handed to the driver.",
    Counter wakes_sent "Doorbells of other shards that were rung.",
    Counter wakes_saved "Doorbells that needed no ring, for their shard was awake or rung already.",
    Counter control_in "Control messages from other shards.",
    Counter control_out "Control messages to other shards.",
    Counter control_overflow "Control messages that went through an overflow.",
    Counter data_in "Envelopes from other shards.",
    Counter data_out "Envelopes to other shards.",
    Counter data_ring_full "Times that a target's data ring had no room.",
    Counter cursors "Fan-outs and scans that were resumed in a later tick.",
    Peak buffers_in_use "Receive buffers that one tick held at most.",
    Peak control_ring_depth "Entries that an inbound control ring held at most.",
    Peak data_ring_depth "Entries that an inbound data ring held at most.",
    Counter starved "Receives that found no buffer.",
    Counter accepts "Connections accepted.",
    Counter connect_timeouts "Connections closed because no CONNECT came in time.",
    Counter connects "Connections that got a CONNACK of success.",
    Counter disconnects "Connections that ended after that.",
    Counter hand_overs_out "Connections handed to their home shard.",
    Counter hand_overs_in "Connections that arrived from another shard.",
    Counter hand_over_failures "Hand-overs that failed.",
    Counter takeovers "Sessions taken over by a new connection.",
    Gauge subscriptions "Subscriptions there are.",
    Gauge sessions "Sessions there are.",
    Gauge connections "Connections there are.",
    Gauge retained "Retained messages there are.",
    Counter decode_errors "Packets that could not be decoded.",
    Counter keep_alive_timeouts "Connections closed because their keep alive ran out.",
    Counter hand_ons "Messages of a share group that were given to another member.",
    Counter wills "Will messages published.",
    Counter expired_messages "Messages that expired before delivery.",
    Counter expired_sessions "Sessions that expired.",
    Counter accept_pauses "Times that accepting was paused.",
    Counter asks "Questions of the management thread that were taken.",
    Counter listing_ticks "Ticks that went on with a listing for the management thread.",
    Peak listing_us_max "Microseconds that one tick spent on listings at most.",
}

impl Counters {
    /// Name and value of each counter.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::TABLE.iter().map(|(name, _, _)| *name).zip(self.values())
    }
}

impl Kind {
    fn join(self, a: u64, b: u64) -> u64 {
        match self {
            Kind::Counter | Kind::Gauge => a.wrapping_add(b),
            Kind::Peak => a.max(b),
        }
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
    clients: Map<Box<str>, Losses>,
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
        self.clients.iter().map(|(client_id, losses)| (&**client_id, losses))
    }

    /// Losses of all clients without a line of their own.
    pub fn others(&self) -> &Losses {
        &self.others
    }

    /// Takes another shard's ledger in.
    pub fn merge(&mut self, other: &Ledger) {
        add(&mut self.totals, &other.totals);
        add(&mut self.others, &other.others);
        for (client_id, losses) in &other.clients {
            add(self.line(client_id), losses);
        }
    }

    fn line(&mut self, client_id: &str) -> &mut Losses {
        // Twice a lookup, but no allocation for a client that is known.
        if !self.clients.contains_key(client_id) {
            if self.clients.len() >= LEDGER_CLIENTS_MAX || client_id.len() > LEDGER_CLIENT_ID_BYTES_MAX {
                return &mut self.others;
            }
            self.clients.insert(client_id.into(), [0; CAUSES]);
        }
        self.clients.get_mut(client_id).expect("a line that was found or made")
    }
}

fn add(to: &mut Losses, from: &Losses) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_join_by_kind() {
        let mut a = Counters { ticks: 1, sessions: 2, data_ring_depth: 5, ..Counters::default() };
        a.add(&Counters { ticks: 10, sessions: 20, data_ring_depth: 3, ..Counters::default() });
        assert_eq!((a.ticks, a.sessions, a.data_ring_depth), (11, 22, 5));
        let named: Vec<_> = a.iter().filter(|(_, value)| *value > 0).collect();
        assert_eq!(named, [("ticks", 11), ("data_ring_depth", 5), ("sessions", 22)]);
    }

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
