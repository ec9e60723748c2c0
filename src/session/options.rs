//! What an operator may set of MQTT's rules; [`crate::limits`] holds what nobody may exceed.

use crate::limits::{PACKET_BYTES_MAX, SUBSCRIPTIONS_PER_SESSION_DEFAULT};
use crate::message::QoS;

/// What happens when a QoS 1 or 2 message meets a session whose queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QueueFull {
    /// The session's oldest queued message is dropped and counted.
    #[default]
    DropOldest,
    /// Publishers are answered 0x97 before anything is routed.
    Reject,
    /// The subscriber is disconnected with 0x97.
    Disconnect,
}

impl QueueFull {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, QueueFull)] = &[
        ("drop_oldest", QueueFull::DropOldest),
        ("reject", QueueFull::Reject),
        ("disconnect", QueueFull::Disconnect),
    ];
}

/// Which member of a shared subscription gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SharedStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any, with equal chances.
    Random,
    /// The same as last time, while it is there.
    Sticky,
    /// By the publisher's client identifier.
    HashClientId,
    /// By the topic name.
    HashTopic,
    /// A member on the publisher's shard, where there is one.
    Local,
}

impl SharedStrategy {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, SharedStrategy)] = &[
        ("round_robin", SharedStrategy::RoundRobin),
        ("random", SharedStrategy::Random),
        ("sticky", SharedStrategy::Sticky),
        ("hash_clientid", SharedStrategy::HashClientId),
        ("hash_topic", SharedStrategy::HashTopic),
        ("local", SharedStrategy::Local),
    ];
}

/// How fast a client may send and be sent to, for each second; 0 = no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// PUBLISH packets from it.
    pub messages_in: u32,
    /// Bytes from it.
    pub bytes_in: u32,
    /// PUBLISH packets to it.
    pub messages_out: u32,
    /// Bytes to it.
    pub bytes_out: u32,
}

impl Rates {
    /// Whether anything is bounded.
    #[inline]
    pub fn any(&self) -> bool {
        self.messages_in | self.bytes_in | self.messages_out | self.bytes_out != 0
    }
}

/// What holds for the clients of one user in place of their listener's rates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserRates {
    /// The user name.
    pub name: Box<str>,
    /// In the order of [`UserRates::KEYS`]; `None`: as for everybody.
    rates: [Option<u32>; 4],
}

impl UserRates {
    /// Names of the rates.
    pub const KEYS: [&str; 4] =
        ["max_message_rate", "max_byte_rate", "max_message_rate_out", "max_byte_rate_out"];

    /// Reads `NAME:max_message_rate=10,max_byte_rate=1000`.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(text: &str) -> Result<UserRates, String> {
        let fault = || {
            let keys = UserRates::KEYS.join(", ");
            format!("expected NAME:KEY=NUMBER,KEY=NUMBER with some of {keys}, each once, got {text:?}")
        };
        let (name, list) = text.rsplit_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(fault)?;
        let mut rates = [None; 4];
        for part in list.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(fault)?;
            let at = UserRates::KEYS.iter().position(|known| *known == key).ok_or_else(fault)?;
            if rates[at].replace(value.parse().map_err(|_| fault())?).is_some() {
                return Err(fault());
            }
        }
        Ok(UserRates { name: name.into(), rates })
    }

    /// As [`UserRates::read`] reads it.
    pub fn show(&self) -> String {
        let set = UserRates::KEYS.iter().zip(self.rates);
        let parts: Vec<_> = set.filter_map(|(key, rate)| Some(format!("{key}={}", rate?))).collect();
        format!("{}:{}", self.name, parts.join(","))
    }

    /// The rates of this user's clients where those of others are these.
    pub fn over(&self, others: Rates) -> Rates {
        let [messages_in, bytes_in, messages_out, bytes_out] = self.rates;
        Rates {
            messages_in: messages_in.unwrap_or(others.messages_in),
            bytes_in: bytes_in.unwrap_or(others.bytes_in),
            messages_out: messages_out.unwrap_or(others.messages_out),
            bytes_out: bytes_out.unwrap_or(others.bytes_out),
        }
    }
}

/// When a client that comes and goes is banned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlappingOptions {
    /// Ends of its connections within the window; 0 = never.
    pub threshold: u32,
    /// Seconds of the window.
    pub window_s: u32,
    /// Seconds of the ban.
    pub ban_s: u32,
}

impl Default for FlappingOptions {
    fn default() -> FlappingOptions {
        FlappingOptions { threshold: 0, window_s: 60, ban_s: 300 }
    }
}

/// MQTT's rules as far as the standard leaves them to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a packet from a client at most; offered as Maximum Packet Size.
    pub max_packet_size: u32,
    /// Bytes of a packet to a client at most, as if the client had said so in CONNECT.
    pub client_max_packet_size: u32,
    /// Bytes of the properties of a client's PUBLISH or CONNECT at most (5.0); 0 = as many as the packet holds.
    pub max_properties: u32,
    /// Whether a client may come that nobody vouches for: one without credentials, or any where nobody is asked.
    pub allow_anonymous: bool,
    /// Whether such a client must be on this machine.
    pub anonymous_local_only: bool,
    /// Whether only clients of this machine may subscribe to filters that begin with `$SYS`.
    pub sys_local_only: bool,
    /// QoS 1 and 2 messages to a client that are not acknowledged yet.
    pub max_inflight: u16,
    /// Messages that a session queues.
    pub max_mqueue: u32,
    /// Bytes that a session queues.
    pub max_mqueue_bytes: u64,
    /// What happens to QoS 1 and 2 messages when one of these two is reached.
    pub queue_full: QueueFull,
    /// Seconds that a publisher with 3.x waits for a full queue, before it is closed (`reject` only).
    pub reject_wait_s: u32,
    /// QoS 2 messages from a client that wait for PUBREL; offered as Receive Maximum.
    pub max_awaiting_rel: u16,
    /// Seconds after which such a message's identifier is forgotten.
    pub await_rel_timeout_s: u32,
    /// Seconds that the session of a 3.x client with Clean Session 0 outlives its connection.
    pub session_expiry_s: u32,
    /// Seconds of session expiry that a client can have at most; `u32::MAX` does not cap.
    pub session_expiry_max_s: u32,
    /// Thousandths of the keep alive interval after which a silent client is closed [MQTT-3.1.2-22].
    pub keepalive_backoff: u32,
    /// Keep alive in seconds that every client is given; 0 leaves the client's own.
    pub server_keep_alive_s: u16,
    /// Seconds that a connection may stay without a complete CONNECT.
    pub idle_timeout_s: u32,
    /// Bytes of a client identifier at most.
    pub max_clientid_len: u16,
    /// Levels of a topic at most, 0 = no limit.
    pub max_topic_levels: u16,
    /// Topic aliases that a client may use; offered as Topic Alias Maximum.
    pub max_topic_alias: u16,
    /// Subscriptions of one session at most.
    pub max_subscriptions: u32,
    /// The highest QoS, 0 to 2; offered as Maximum QoS.
    pub max_qos: u8,
    /// Whether retained messages are taken and sent.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_available: bool,
    /// Whether filters may be shared.
    pub shared_available: bool,
    /// Who of a share gets a message.
    pub shared_strategy: SharedStrategy,
    /// Bytes that may wait to be sent on one connection.
    pub max_output_bytes: u32,
    /// How fast a client may send and be sent to.
    pub rates: Rates,
    /// The same for the clients of some users.
    pub user_rates: Vec<UserRates>,
    /// When a client that comes and goes is banned.
    pub flapping: FlappingOptions,
    /// Retained messages of the whole broker.
    pub max_retained: u32,
    /// Bytes of retained messages of the whole broker.
    pub max_retained_bytes: u64,
    /// Whether a payload that is said to be UTF-8 must be (5.0).
    pub check_payload_format: bool,
    /// Response Information of clients that ask for it (5.0); empty = none.
    pub response_information: Box<str>,
    /// Server Reference of clients that are told to go elsewhere (5.0); empty = none.
    pub server_reference: Box<str>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_packet_size: 1 << 20,
            client_max_packet_size: PACKET_BYTES_MAX,
            max_properties: 0,
            allow_anonymous: true,
            anonymous_local_only: true,
            sys_local_only: true,
            max_inflight: 32,
            max_mqueue: 1000,
            max_mqueue_bytes: 16 << 20,
            queue_full: QueueFull::default(),
            reject_wait_s: 30,
            max_awaiting_rel: 100,
            await_rel_timeout_s: 300,
            session_expiry_s: 7200,
            session_expiry_max_s: u32::MAX,
            keepalive_backoff: 1500,
            server_keep_alive_s: 0,
            idle_timeout_s: 15,
            max_clientid_len: u16::MAX,
            max_topic_levels: 128,
            max_topic_alias: 32,
            max_subscriptions: SUBSCRIPTIONS_PER_SESSION_DEFAULT,
            max_qos: 2,
            retain_available: true,
            wildcard_available: true,
            shared_available: true,
            shared_strategy: SharedStrategy::default(),
            max_output_bytes: 1 << 20,
            rates: Rates::default(),
            user_rates: Vec::new(),
            flapping: FlappingOptions::default(),
            max_retained: 1_000_000,
            max_retained_bytes: 1 << 30,
            check_payload_format: false,
            response_information: "".into(),
            server_reference: "".into(),
        }
    }
}

impl Options {
    /// The highest QoS.
    pub fn qos_max(&self) -> QoS {
        QoS::from_bits(self.max_qos).unwrap_or(QoS::ExactlyOnce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_a_user_are_over_those_of_others() {
        let read = |text: &str| UserRates::read(text);
        let others = Rates { messages_in: 1, bytes_in: 2, messages_out: 3, bytes_out: 4 };
        let ann = read("a:nn:max_message_rate=10,max_byte_rate_out=0").unwrap();
        assert_eq!(
            (&*ann.name, ann.show().as_str()),
            ("a:nn", "a:nn:max_message_rate=10,max_byte_rate_out=0")
        );
        assert_eq!(ann.over(others), Rates { messages_in: 10, bytes_out: 0, ..others });
        for text in [
            "",
            "ann",
            "ann:",
            ":max_byte_rate=1",
            "ann:rate=1",
            "ann:max_byte_rate",
            "ann:max_byte_rate=-1",
            "ann:max_byte_rate=4294967296",
            "ann:max_byte_rate=1,max_byte_rate=1",
            "ann:max_byte_rate=1,",
        ] {
            let told = read(text).unwrap_err();
            assert!(
                told.starts_with("expected NAME:KEY=NUMBER") && told.ends_with(&format!("got {text:?}")),
                "{told}"
            );
        }
    }
}
