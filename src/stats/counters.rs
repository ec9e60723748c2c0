//! What one shard counts: plain values in one table, from which everything that shows them is made.
//!
//! A value is one line of a table: its [`Kind`], its name, the dimensions that split it, its meaning. An event is
//! counted where it happens by one addition; sums over a dimension are made by whoever reads.

/// What a value is, and so how two shards' values become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The highest so far; the highest of all shards.
    Peak,
    /// Only grows; added up.
    Counter,
    /// How many there are now; added up.
    Gauge,
    /// How many there are now, and each shard knows all of them; the highest of all shards.
    Replica,
}

impl Kind {
    fn join(self, a: u64, b: u64) -> u64 {
        match self {
            Kind::Counter | Kind::Gauge => a.wrapping_add(b),
            Kind::Peak | Kind::Replica => a.max(b),
        }
    }
}

/// What splits a value: the name of a label, and the label's values, each at its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dimension {
    /// Name of the label.
    pub key: &'static str,
    /// Its values.
    pub values: &'static [&'static str],
}

/// By type of packet, as in the upper half of its first byte; 0 is no packet of MQTT.
pub const PACKETS: Dimension = Dimension {
    key: "type",
    values: &[
        "reserved",
        "connect",
        "connack",
        "publish",
        "puback",
        "pubrec",
        "pubrel",
        "pubcomp",
        "subscribe",
        "suback",
        "unsubscribe",
        "unsuback",
        "pingreq",
        "pingresp",
        "disconnect",
        "auth",
    ],
};

/// By quality of service.
pub const QOS: Dimension = Dimension { key: "qos", values: &["0", "1", "2"] };

/// By [`Source`].
pub const SOURCES: Dimension =
    Dimension { key: "source", values: &["client", "http", "will", "retained", "system", "bridge"] };

/// Where a message comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum Source {
    /// A client published it.
    #[default]
    Client,
    /// It was published over HTTP.
    Http,
    /// It is a will.
    Will,
    /// It was retained, and answers a new subscription.
    Retained,
    /// The broker publishes it, below `$SYS/`.
    System,
    /// It came over a bridge.
    Bridge,
}

const _: () = assert!(SOURCES.values.len() == Source::Bridge as usize + 1);

/// One line of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts.
    pub doc: &'static str,
    /// What splits it; the last dimension runs fastest.
    pub dimensions: &'static [Dimension],
}

impl Family {
    /// The labels of a cell: key and value for each dimension.
    pub fn labels(&self, cell: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
        let mut left: usize = self.dimensions.iter().map(|d| d.values.len()).product();
        self.dimensions.iter().map(move |d| {
            left /= d.values.len();
            (d.key, d.values[cell / left % d.values.len()])
        })
    }
}

/// The cells of one line.
trait Cells {
    fn cells(&self) -> &[u64];
    fn cells_mut(&mut self) -> &mut [u64];

    /// Raises each cell to `other`'s, where that is higher.
    #[inline]
    fn raise(&mut self, other: &Self) {
        for (to, from) in self.cells_mut().iter_mut().zip(other.cells()) {
            *to = (*to).max(*from);
        }
    }
}

impl Cells for u64 {
    // Once per tick and gauge: without the detour over a slice of one.
    #[inline]
    fn raise(&mut self, other: &u64) {
        *self = (*self).max(*other);
    }

    fn cells(&self) -> &[u64] {
        std::slice::from_ref(self)
    }

    fn cells_mut(&mut self) -> &mut [u64] {
        std::slice::from_mut(self)
    }
}

impl<const N: usize> Cells for [u64; N] {
    fn cells(&self) -> &[u64] {
        self
    }

    fn cells_mut(&mut self) -> &mut [u64] {
        self
    }
}

impl<const N: usize, const M: usize> Cells for [[u64; N]; M] {
    fn cells(&self) -> &[u64] {
        self.as_flattened()
    }

    fn cells_mut(&mut self) -> &mut [u64] {
        self.as_flattened_mut()
    }
}

macro_rules! shape {
    () => {
        u64
    };
    ($a:ident) => {
        [u64; $a.values.len()]
    };
    ($a:ident $b:ident) => {
        [[u64; $b.values.len()]; $a.values.len()]
    };
}

macro_rules! table {
    ($(#[$meta:meta])* $struct:ident; $($kind:ident $name:ident $([$($dimension:ident)*])? $doc:literal,)*) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $struct {
            $(#[doc = $doc] pub $name: shape!($($($dimension)*)?),)*
        }

        impl $struct {
            /// The lines, in the order of [`Self::cells`].
            pub const TABLE: &[Family] = &[$(Family {
                name: stringify!($name),
                kind: Kind::$kind,
                doc: $doc,
                dimensions: &[$($($dimension),*)?],
            },)*];

            /// The cells of each line.
            pub fn cells(&self) -> [&[u64]; Self::TABLE.len()] {
                [$(self.$name.cells(),)*]
            }

            /// Takes another shard's values in, each by its [`Kind`].
            pub fn add(&mut self, other: &Self) {
                $(for (to, from) in self.$name.cells_mut().iter_mut().zip(other.$name.cells()) {
                    *to = Kind::$kind.join(*to, *from);
                })*
            }

            /// Raises each value to `other`'s, where that is higher.
            pub fn raise(&mut self, other: &Self) {
                $(self.$name.raise(&other.$name);)*
            }

            /// Each line with its cells.
            pub fn families(&self) -> impl Iterator<Item = (&'static Family, &[u64])> {
                Self::TABLE.iter().zip(self.cells())
            }

            /// Name and value of each line for the log; a line that is split is followed by its parts by the
            /// first dimension, named like `packets_in.publish`.
            pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
                self.families().flat_map(|(family, cells)| lines(family, cells))
            }
        }
    };
}

fn lines(family: &Family, cells: &[u64]) -> Vec<(String, u64)> {
    let mut lines = vec![(family.name.to_owned(), cells.iter().sum())];
    if let Some(first) = family.dimensions.first() {
        let parts = cells.chunks(cells.len() / first.values.len()).zip(first.values);
        lines.extend(parts.map(|(part, value)| (format!("{}.{value}", family.name), part.iter().sum())));
    }
    lines
}

table! {
    /// What one shard has counted since it started.
    Counters;
    Counter ticks "Turns of the shard's loop.",
    Counter enters "System calls that submitted, waited or both.",
    Counter completions "Completions that the driver reaped.",
    Counter cq_overflow "Times that the completion queue was full.",
    Counter events "Events that the driver reported.",
    Counter bytes_in "Bytes received from clients.",
    Counter bytes_out "Bytes sent to clients.",
    Counter packets_in [PACKETS] "MQTT packets received.",
    Counter packets_out [PACKETS] "MQTT packets sent.",
    Counter published [SOURCES QOS] "Messages taken from publishers; those retained that new subscriptions found count with their source alone.",
    Counter delivered [SOURCES QOS] "Messages sent to clients for the first time.",
    Counter redelivered "Messages sent to clients again.",
    Counter acked [SOURCES] "PUBACK and PUBREC received for messages.",
    Counter unrouted [SOURCES] "Messages that nobody was subscribed to.",
    Counter acks_unknown [PACKETS] "PUBACK, PUBREC, PUBREL and PUBCOMP for no message that is under way.",
    Counter no_local "Messages left out because their subscriber published them [MQTT-3.8.3-3].",
    Counter publish_errors "Messages of clients that were refused, those below $SYS/ included.",
    Counter publish_checked "Messages of clients of which rules, or a back-end, said whether they may be published.",
    Counter publish_denied "Messages of clients that were refused because they may not publish to the topic.",
    Counter qos2_refused "QoS 2 messages beyond the bound on those without PUBREL.",
    Counter qos2_forgotten "QoS 2 messages whose PUBREL did not come in time.",
    Counter subscribes "Topic filters of SUBSCRIBE.",
    Counter subscribed "Topic filters of SUBSCRIBE that were granted.",
    Counter subscribe_errors "Topic filters of SUBSCRIBE that were refused.",
    Counter subscribe_checked "Topic filters of SUBSCRIBE of which rules, or a back-end, said whether the client may have them.",
    Counter subscribe_denied "Topic filters of SUBSCRIBE that were refused because the client may not subscribe to them.",
    Counter paused "Times that a client was not read because it had sent more than it may.",
    Counter held "Times that a client was sent no message because it had been sent more than it may.",
    Counter publish_refused "PUBLISHes that were refused because the broker held as much memory as it may.",
    Counter store_refused "PUBLISHes, CONNECTs, SUBSCRIBEs and UNSUBSCRIBEs that were refused because what is to be kept could not be written.",
    Counter retained_refused "PUBLISHes with RETAIN that were refused because of the bounds on retained messages.",
    Counter sys_subscribes "Topic filters of SUBSCRIBE that were granted and begin with $SYS.",
    Counter unsubscribes "Topic filters of UNSUBSCRIBE.",
    Counter unsubscribed "Subscriptions that UNSUBSCRIBE ended.",
    Counter sends "Sends handed to the driver.",
    Counter wakes_sent "Doorbells of other shards that were rung.",
    Counter wakes_saved "Doorbells that needed no ring, for their shard was awake or rung already.",
    Counter control_in "Control messages from other shards.",
    Counter control_out "Control messages to other shards.",
    Counter control_overflow "Control messages that went through an overflow.",
    Counter data_in "Envelopes from other shards.",
    Counter data_out "Envelopes to other shards.",
    Counter data_ring_full "Times that a target's data ring had no room.",
    Counter cursors "Fan-outs, scans and packets with many filters that went on in a later tick.",
    Peak buffers_in_use "Receive buffers that one tick held at most.",
    Peak control_ring_depth "Entries that an inbound control ring held at most.",
    Peak data_ring_depth "Entries that an inbound data ring held at most.",
    Peak overflow_depth "Control messages that waited in overflow at most.",
    Counter starved "Receives that found no buffer.",
    Counter accepts "Connections accepted.",
    Counter accept_pauses "Times that accepting was paused.",
    Counter connect_timeouts "Connections closed because no CONNECT came in time.",
    Counter refused_address "Connections refused because of their address.",
    Counter refused_memory "Connections refused because the broker held as much memory as it may.",
    Counter refused_address_rate "Connections refused because too many came from their address within a second.",
    Counter refused_banned "Connections and CONNECTs refused because of a ban.",
    Counter flapped "Clients banned because they came and went too often.",
    Counter banned_ended "Clients disconnected because of a ban.",
    Counter refused_full "Connections refused because their listener had as many as it may.",
    Counter refused_rate "Connections refused because too many came to their listener within a second.",
    Counter proxy_untrusted "Connections refused because no PROXY header is taken from their address.",
    Counter proxy_errors "Connections closed because they began with no valid PROXY header.",
    Counter proxy_timeouts "Connections closed because no whole PROXY header came in time.",
    Counter tls_handshakes "TLS handshakes completed.",
    Counter tls_errors "Connections closed for a fault in a TLS handshake or record.",
    Counter handshake_waits "Steps of TLS handshakes that waited for a later tick.",
    Counter websocket_upgrades "Connections that became a WebSocket.",
    Counter websocket_errors "Connections closed for a fault in an upgrade request or a WebSocket frame.",
    Counter authentications "CONNECTs whose client was judged.",
    Counter anonymous "CONNECTs accepted without a user name.",
    Counter anonymous_refused "CONNECTs refused because nobody vouched for the client.",
    Counter connect_wrong "CONNECTs refused because user name or password was wrong.",
    Counter connect_held_off "CONNECTs refused because too many passwords were wrong before.",
    Counter wills_denied "Wills that their clients may not publish, at CONNECT or later.",
    Counter inquiries "Questions to a back-end about what a client may do, each about one packet.",
    Counter rights_unanswered "Packets and filters that were refused because no back-end said in time whether their client may.",
    Counter revoked "Subscriptions that ended because the rules changed.",
    Counter users_lost "Clients that were disconnected because their user is not known any more.",
    Counter tokens_ended "Clients that were disconnected because their token ended.",
    Counter connect_unjudged "CONNECTs refused because they could not be judged in time.",
    Counter connects "Connections that got a CONNACK of success.",
    Counter connect_errors "CONNECTs that were refused.",
    Counter connect_denied "CONNECTs that were refused for their credentials.",
    Counter disconnects "Connections that ended after that.",
    Counter hand_overs_out "Connections handed to their home shard.",
    Counter hand_overs_in "Connections that arrived from another shard.",
    Counter hand_over_failures "Hand-overs that failed.",
    Counter sessions_created "Sessions created.",
    Counter sessions_resumed "Sessions resumed by a new connection.",
    Counter sessions_discarded "Sessions ended because their client wanted a new one.",
    Counter sessions_ended "Sessions that ended.",
    Counter takeovers "Sessions taken over by a new connection.",
    Counter decode_errors "Packets that could not be decoded.",
    Counter keep_alive_timeouts "Connections closed because their keep alive ran out.",
    Counter hand_ons "Messages of a share group that were given to another member.",
    Counter wills "Will messages published.",
    Counter expired_messages "Messages that expired before delivery.",
    Counter expired_sessions "Sessions that expired.",
    Counter asks "Questions of the management thread that were taken.",
    Counter events_dropped "Events for the HTTP API that found no room until it took them.",
    Counter listing_ticks "Ticks that went on with a listing for the management thread.",
    Counter listing_put_off "Ticks that left listings alone because they had more to serve than they could.",
    Peak listing_us_max "Microseconds that one tick spent on listings at most.",
    Peak listing_cpu_us_max "Microseconds of CPU that one tick spent on listings at most.",
}

table! {
    /// What one shard holds now.
    Gauges;
    Gauge sockets "Connections, closing ones and those without CONNECT included.",
    Gauge handshakes "Connections whose CONNECT has not been accepted yet.",
    Gauge connections "Clients connected.",
    Gauge sessions "Sessions.",
    Gauge sessions_persistent "Sessions that outlive their connection.",
    Gauge subscriptions "Subscriptions, those of share groups included.",
    Gauge subscriptions_shared "Memberships of share groups.",
    Gauge subscribers "Sessions with a subscription.",
    Replica topics "Topic filters that somebody is subscribed to.",
    Gauge retained "Retained messages.",
    Gauge queued "Messages queued for sessions.",
    Gauge inflight_out "Messages sent to clients and not completely acknowledged.",
    Gauge inflight_in "QoS 2 messages of clients that wait for PUBREL.",
    Gauge overflow "Control messages that wait for room in a ring.",
    Gauge fan_outs "Messages that are being handed out over several ticks.",
    Replica pressure "What is refused for want of memory: 0 nothing, 1 connections, 2 subscriptions, 3 retained messages, 4 messages as well.",
    Gauge waiting "Publishers that wait for room in another shard's ring.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_join_by_kind() {
        let mut a = Counters { ticks: 1, data_ring_depth: 5, ..Counters::default() };
        a.packets_in[3] = 2;
        a.add(&a.clone());
        a.add(&Counters { ticks: 10, data_ring_depth: 3, ..Counters::default() });
        assert_eq!((a.ticks, a.data_ring_depth, a.packets_in[3]), (12, 5, 4));
        let mut g = Gauges { sessions: 2, topics: 5, ..Gauges::default() };
        g.add(&Gauges { sessions: 20, topics: 4, ..Gauges::default() });
        assert_eq!((g.sessions, g.topics), (22, 5));
        g.raise(&Gauges { sessions: 7, topics: 9, ..Gauges::default() });
        assert_eq!((g.sessions, g.topics), (22, 9));
    }

    #[test]
    fn a_line_for_the_log_has_its_sum_and_its_parts() {
        let mut c = Counters::default();
        c.delivered[Source::Will as usize][1] = 3;
        c.delivered[Source::Client as usize] = [1, 0, 2];
        let named: Vec<_> = c.iter().filter(|(_, value)| *value > 0).collect();
        let expected = [("delivered", 6), ("delivered.client", 3), ("delivered.will", 3)];
        assert_eq!(named, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn labels_of_a_cell_follow_its_indices() {
        let mut c = Counters::default();
        c.delivered[Source::Http as usize][2] = 1;
        let (family, cells) = c.families().find(|(f, _)| f.name == "delivered").expect("a line");
        let at = cells.iter().position(|v| *v == 1).expect("a cell");
        assert_eq!(family.labels(at).collect::<Vec<_>>(), [("source", "http"), ("qos", "2")]);
        let (ticks, _) = c.families().next().expect("a first line");
        assert_eq!(ticks.labels(0).count(), 0);
    }
}
