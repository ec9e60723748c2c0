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

/// Clients with a line of their own in a shard's ledger of losses.
pub const LEDGER_CLIENTS_MAX: usize = 1_024;
/// Bytes of a client identifier that the ledger of losses keeps a line for.
pub const LEDGER_CLIENT_ID_BYTES_MAX: usize = 256;

const _: () = assert!(CONTROL_RING_ENTRIES.is_power_of_two() && DATA_RING_ENTRIES.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
