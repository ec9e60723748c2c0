//! Every bound of the broker, with its unit in its name. Nothing that a peer can make grow lacks one here.

/// Shards at most: a set of shards is one `u64`.
pub const SHARDS_MAX: usize = 64;

/// Entries of a control ring between two shards.
pub const CONTROL_RING_ENTRIES: usize = 128;
/// Entries of a data ring between two shards.
pub const DATA_RING_ENTRIES: usize = 512;
/// Bytes of one ring entry at most: one cache line.
pub const RING_ENTRY_BYTES: usize = 64;

/// Bytes of a topic name or topic filter at most [MQTT-1.5.4].
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Subscription identifier at most (a variable byte integer) [MQTT-3.8.2.1.2 of 5.0].
pub const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;
/// Remaining length at most [MQTT-2.1.4 of 5.0].
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// Receive buffers of one ring: count and bytes of each.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Bytes of one receive buffer.
pub const RECEIVE_BUFFER_BYTES: usize = 16_384;
/// Bytes that a streaming receive may deliver before it ends by itself.
pub const READ_CREDIT_BYTES: u32 = 65_536;
/// Hand-overs of connections that one shard may have under way.
pub const HAND_OVERS_MAX: usize = 1_024;
/// Share of a descriptor table that is kept free for connections that arrive from other shards, in percent.
pub const TABLE_HEADROOM_PERCENT: usize = 10;

const _: () = assert!(CONTROL_RING_ENTRIES.is_power_of_two() && DATA_RING_ENTRIES.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());

/// Subscriptions of one session, unless configured otherwise.
pub const SUBSCRIPTIONS_PER_SESSION_DEFAULT: u32 = 10_000;

/// Connections to the HTTP API at a time.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Headers of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of the head of one HTTP request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16_384;
/// Bytes of the body of one HTTP request.
pub const HTTP_BODY_BYTES_MAX: usize = 65_536;
/// Milliseconds for the head of an HTTP request, counted from the answer before it.
pub const HTTP_HEAD_MS_MAX: u64 = 10_000;
/// Milliseconds for the answer to one HTTP request.
pub const HTTP_ANSWER_MS_MAX: u64 = 30_000;
/// Milliseconds that one HTTP connection lives.
pub const HTTP_CONNECTION_MS_MAX: u64 = 300_000;
/// Milliseconds that HTTP connections get to finish when the broker stops.
pub const HTTP_DRAIN_MS_MAX: u64 = 1_000;

/// Log lines that may wait for the thread that writes them; more are dropped and counted.
pub const LOG_LINES_QUEUED_MAX: usize = 16_384;

const _: () = assert!(HTTP_HEAD_BYTES_MAX >= 8_192, "hyper's smallest buffer");
const _: () = assert!(HTTP_ANSWER_MS_MAX < HTTP_CONNECTION_MS_MAX);
