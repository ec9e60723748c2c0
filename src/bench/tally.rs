//! What a worker counts and measures, and what it tells the coordinator.

use super::sequences::Sequences;
use crate::map::Map;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

macro_rules! tally {
    ($($name:ident $doc:literal,)*) => {
        /// Counters of the load generator; each only grows, but for `online` and `open`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Tally {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Tally {
            /// Name and value of each.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Takes another worker's in.
            pub fn add(&mut self, other: &Tally) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }

            /// What came since an earlier copy.
            pub fn since(&self, earlier: &Tally) -> Tally {
                Tally { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

tally! {
    online "Clients that are connected now.",
    open "Connections that the drivers have now, with those that open or close.",
    started "Connects that were begun.",
    connected "CONNACKs of success.",
    connect_failed "Connects that failed, for whatever reason.",
    subscribed "Clients whose filters were all granted.",
    refused_filters "Filters that were refused.",
    disconnects "Connections that ended and should not have.",
    reconnects "Connects after the first one of a client that succeeded.",
    resumed "Sessions that were there when their client came back.",
    pings "PINGREQs sent.",
    pongs "PINGRESPs received.",
    pinged "Clients that had the answer to the ping that each was asked to send.",
    published "Messages sent for the first time.",
    published_bytes "Bytes of their payloads.",
    resent "Messages sent again after a reconnect.",
    expected "Deliveries that these should cause.",
    acknowledged "Messages that the broker acknowledged in full.",
    refused_messages "Messages that it acknowledged with an error.",
    abandoned "Messages of QoS 1 and 2 that were given up with their session, before they were acknowledged.",
    received "Messages received.",
    received_bytes "Bytes of their payloads.",
    delivered "Received messages that were new and as they should be.",
    duplicates "Received messages that were there before.",
    redelivered "Messages of QoS 2 that came again with an identifier that was not released: no duplicates.",
    out_of_order "Received messages that came after a later one of the same publisher.",
    misrouted "Received messages that were for somebody else.",
    corrupt "Received messages whose check did not agree.",
    foreign "Received messages that this run did not send.",
    stalls "Times that a closed loop gave up waiting for deliveries.",
    lagging "Messages that an open loop sent more than 2 ms late, because of the generator or a full window.",
    bytes_in "Bytes of MQTT received.",
    bytes_out "Bytes of MQTT sent.",
    wire_in "Bytes received from sockets: of TLS and WebSocket, where there are such.",
    wire_out "Bytes given to sockets.",
    tls_resumed "Handshakes of TLS that resumed a session.",
}

/// Why something failed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Cause {
    /// The connection was not made: errno.
    Connect(i32),
    /// CONNACK with a reason code other than success.
    ConnAck(u8),
    /// SUBACK with an error.
    SubAck(u8),
    /// PUBACK, PUBREC or PUBCOMP with an error.
    Publish(u8),
    /// DISCONNECT from the broker.
    Disconnect(u8),
    /// The broker closed the connection.
    Closed(&'static str),
    /// The socket failed: errno, and when.
    Socket(i32, &'static str),
    /// Something did not come in time.
    Timeout(&'static str),
    /// The broker broke the protocol.
    Protocol(&'static str),
    /// Something else than was expected came: both in words.
    Told(Arc<str>),
    /// There are more causes than are told apart.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |code: u8| crate::codec::ReasonCode(code);
        let error = |errno: i32| std::io::Error::from_raw_os_error(errno);
        match self {
            Cause::Connect(errno) => write!(f, "connect: {}", error(*errno)),
            Cause::ConnAck(reason) => write!(f, "CONNACK: {}", code(*reason)),
            Cause::SubAck(reason) => write!(f, "SUBACK: {}", code(*reason)),
            Cause::Publish(reason) => write!(f, "publish refused: {}", code(*reason)),
            Cause::Disconnect(reason) => write!(f, "DISCONNECT: {}", code(*reason)),
            Cause::Closed(when) => write!(f, "closed by the broker {when}"),
            Cause::Socket(errno, when) => write!(f, "connection, {when}: {}", error(*errno)),
            Cause::Timeout(what) => write!(f, "no {what} in time"),
            Cause::Protocol(what) => write!(f, "protocol: {what}"),
            Cause::Told(what) => f.write_str(what),
            Cause::Other => f.write_str("others, of more kinds than are told apart"),
        }
    }
}

/// Causes with their counts.
pub type Causes = BTreeMap<Cause, u64>;

/// The latency that is measured from and to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Span {
    /// From the begin of a connect to its CONNACK.
    Connect,
    /// From the TCP connection to where TLS and WebSocket are ready for CONNECT; a part of the connect.
    Handshake,
    /// From a publish to its PUBACK or PUBCOMP.
    Ack,
    /// From a publish to each delivery.
    Delivery,
    /// From when the schedule of an open loop wanted a message to leave to when it was written: how late the
    /// generator itself was.
    Lag,
}

impl Span {
    /// All of them, each at the index of its value.
    pub const ALL: [Span; 5] = [Span::Connect, Span::Handshake, Span::Ack, Span::Delivery, Span::Lag];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Span::Connect => "connect",
            Span::Handshake => "handshake",
            Span::Ack => "publish_to_ack",
            Span::Delivery => "publish_to_delivery",
            Span::Lag => "generator_lag",
        }
    }
}

/// Longest latency that is told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// A histogram of nanoseconds for each span.
#[derive(Clone, Debug)]
pub struct Latencies([Histogram<u64>; 5]);

impl Default for Latencies {
    fn default() -> Latencies {
        let empty = || {
            let mut histogram =
                Histogram::new_with_bounds(500, 1_000_000, 3).expect("bounds that are allowed");
            histogram.auto(true);
            histogram
        };
        Latencies(std::array::from_fn(|_| empty()))
    }
}

impl Latencies {
    /// Notes one.
    pub fn record(&mut self, span: Span, ns: u64) {
        let within = ns.min(LATENCY_NS_MAX);
        self.0[span as usize].record(within).expect("a histogram that grows takes any value");
    }

    /// The histogram of a span, in nanoseconds.
    pub fn of(&self, span: Span) -> &Histogram<u64> {
        &self.0[span as usize]
    }

    /// Takes others in.
    pub fn add(&mut self, other: &Latencies) {
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            mine.add(other).expect("a histogram that grows takes any other in");
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Histogram::is_empty)
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(Histogram::clear);
    }
}

/// Whose messages, seen by whom: the number of a receiver or of a group of them, and the publisher.
pub type Route = (u32, u64);

/// What became of messages, by sequence number.
#[derive(Debug, Default)]
pub struct Fates {
    /// By publisher: how many were sent.
    pub sent: BTreeMap<u32, u32>,
    /// By publisher: those that were acknowledged.
    pub acknowledged: BTreeMap<u32, Sequences>,
    /// By route: those that arrived.
    pub received: Map<Route, Sequences>,
}

/// What a worker tells from time to time.
#[derive(Debug)]
pub struct Update {
    /// Which one.
    pub worker: usize,
    /// Its counters since the start.
    pub tally: Tally,
    /// Its errors since the start.
    pub causes: Causes,
    /// What it measured since its last update.
    pub latencies: Option<Box<Latencies>>,
    /// The mark of the last [`super::worker::Command::Mark`] that it read.
    pub mark: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_subtract() {
        let mut a = Tally { published: 5, online: 1, ..Tally::default() };
        let before = a;
        a.add(&Tally { published: 7, ..Tally::default() });
        assert_eq!(a.since(&before), Tally { published: 7, ..Tally::default() });
        assert_eq!(a.iter().find(|(name, _)| *name == "published"), Some(("published", 12)));
    }

    #[test]
    fn latencies_beyond_the_first_bounds_are_kept() {
        let mut latencies = Latencies::default();
        latencies.record(Span::Ack, 90_000_000_000);
        latencies.record(Span::Ack, u64::MAX);
        latencies.record(Span::Ack, 1_000);
        let mut sum = Latencies::default();
        sum.add(&latencies);
        let histogram = sum.of(Span::Ack);
        assert_eq!(histogram.len(), 3);
        assert!(histogram.max() >= LATENCY_NS_MAX);
        assert!((90_000_000_000..91_000_000_000).contains(&histogram.value_at_quantile(0.5)));
    }

    #[test]
    fn causes_read_as_sentences() {
        assert_eq!(Cause::ConnAck(0x87).to_string(), "CONNACK: Not authorized");
        assert_eq!(Cause::Connect(111).to_string(), "connect: Connection refused (os error 111)");
        assert_eq!(Cause::Timeout("CONNACK").to_string(), "no CONNACK in time");
    }
}
