//! What an operator may set of MQTT's rules; [`crate::limits`] holds what nobody may exceed.

use crate::message::QoS;

/// What happens to a QoS 1 or 2 message for a session whose queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QueueFull {
    /// The oldest queued message goes, and is counted.
    #[default]
    DropOldest,
    /// The publisher is answered 0x97; a 3.x publisher is made to wait, then closed.
    Reject,
    /// The subscriber is disconnected with 0x97.
    Disconnect,
}

/// How a member of a shared subscription is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SharedStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The same one until it leaves.
    Sticky,
    /// By the publisher's client identifier.
    HashClientId,
    /// By the topic name.
    HashTopic,
    /// One on the publisher's shard where there is one, else any.
    Local,
}

/// Options of the sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a packet from a client at most; announced as Maximum Packet Size.
    pub max_packet_size: u32,
    /// Unacknowledged QoS 1 and 2 messages to one client, at most.
    pub max_inflight: u16,
    /// Queued messages of one session, at most.
    pub max_mqueue: u32,
    /// Queued bytes of one session, at most.
    pub max_mqueue_bytes: u64,
    /// What happens when the queue is full.
    pub queue_full: QueueFull,
    /// QoS 2 messages of one client that wait for PUBREL, at most; announced as Receive Maximum.
    pub max_awaiting_rel: u16,
    /// Seconds after which a QoS 2 message that waits for PUBREL is forgotten, 0 = never.
    pub await_rel_timeout_s: u32,
    /// Seconds that the session of a 3.x client without Clean Session outlives its connection.
    pub session_expiry_s: u32,
    /// Seconds of Session Expiry Interval at most; `u32::MAX` = as the client asks.
    pub session_expiry_max_s: u32,
    /// Thousandths of Keep Alive after which a silent client is closed [MQTT-3.1.2-22 of 5.0].
    pub keepalive_backoff: u32,
    /// Server Keep Alive in seconds, 0 = the client's.
    pub server_keep_alive_s: u16,
    /// Seconds from accept to CONNECT.
    pub idle_timeout_s: u32,
    /// Bytes of a client identifier at most.
    pub max_clientid_len: u32,
    /// Levels of a topic at most, 0 = no limit.
    pub max_topic_levels: u32,
    /// Topic Alias Maximum that is offered, and taken from the client's offer.
    pub max_topic_alias: u16,
    /// Subscriptions of one session at most.
    pub max_subscriptions: u32,
    /// Maximum QoS.
    pub max_qos: QoS,
    /// Retain Available.
    pub retain_available: bool,
    /// Wildcard Subscription Available.
    pub wildcard_available: bool,
    /// Shared Subscription Available.
    pub shared_available: bool,
    /// How a member of a shared subscription is picked.
    pub shared_strategy: SharedStrategy,
    /// Bytes that wait to leave on one connection, at most.
    pub max_output_bytes: u32,
    /// Retained messages of the whole broker at most.
    pub max_retained: u64,
    /// Bytes of retained messages of the whole broker at most.
    pub max_retained_bytes: u64,
    /// Seconds that a 3.x publisher waits for a full route under [`QueueFull::Reject`].
    pub reject_wait_s: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_packet_size: 1 << 20,
            max_inflight: 32,
            max_mqueue: 1_000,
            max_mqueue_bytes: 16 << 20,
            queue_full: QueueFull::DropOldest,
            max_awaiting_rel: 100,
            await_rel_timeout_s: 300,
            session_expiry_s: 7_200,
            session_expiry_max_s: u32::MAX,
            keepalive_backoff: 1_500,
            server_keep_alive_s: 0,
            idle_timeout_s: 15,
            max_clientid_len: 65_535,
            max_topic_levels: 128,
            max_topic_alias: 32,
            max_subscriptions: 10_000,
            max_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_available: true,
            shared_available: true,
            shared_strategy: SharedStrategy::RoundRobin,
            max_output_bytes: 1 << 20,
            max_retained: 1_000_000,
            max_retained_bytes: 1 << 30,
            reject_wait_s: 30,
        }
    }
}
