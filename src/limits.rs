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

/// TCP keepalive of accepted sockets: seconds of silence before the first probe.
pub const TCP_KEEPALIVE_IDLE_S: i32 = 60;
/// Seconds between two keepalive probes.
pub const TCP_KEEPALIVE_INTERVAL_S: i32 = 10;
/// Unanswered keepalive probes after which a connection is dead.
pub const TCP_KEEPALIVE_PROBES: i32 = 6;
/// Connections that a shard takes from one listener in one turn, and names at once.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Receives of the epoll driver in one turn.
pub const READS_PER_TURN: usize = 256;
/// Milliseconds after which accepting is tried again when the kernel had no descriptor or memory left.
pub const ACCEPT_RETRY_MS: u64 = 1_000;
/// Milliseconds that a flushed connection waits for its peer's end of stream before it is closed.
pub const LINGER_MS: u64 = 1_000;
/// Bytes that a flushed connection discards while it waits.
pub const LINGER_BYTES: u32 = 65_536;
/// Connections of one shard at most: what a table of direct descriptors may hold.
pub const CONNECTIONS_PER_SHARD_MAX: u32 = 1 << 20;
/// Entries of a ring's submission queue; more are submitted in between.
pub const RING_SUBMISSIONS: u32 = 1_024;
/// Entries of a ring's completion queue.
pub const RING_COMPLETIONS: u32 = 16_384;
/// Sends that are expected to end between two turns. More are possible: the kernel keeps the completions that
/// find no room, and the overflow is counted.
pub const SENDS_PER_TURN: usize = 4_096;
/// Accepts that may complete in one turn: what the kernel takes from a backlog in one go.
pub const ACCEPTS_PER_WAKE: usize = 1_024;
/// Connections whose peer address is asked for at once: each needs a plain descriptor meanwhile.
pub const NAMING_MAX: usize = 64;
/// Room of a descriptor table below which connections are accepted one by one, so that none is taken from the
/// backlog that finds no place.
pub const ACCEPT_ONE_BY_ONE_ROOM: usize = 256;
/// Milliseconds after which the operations of a connection that was shut down are cancelled.
pub const CLOSE_CANCEL_MS: u64 = 5_000;
/// Milliseconds that a driver waits for its operations to be cancelled when it is dropped.
pub const CANCEL_ALL_MS: u64 = 1_000;

// One completion for each receive buffer, send, arrival (and the two of each hand-over), accept, address that is
// asked for, and shard that wakes us.
const _: () = assert!(
    RING_COMPLETIONS as usize
        >= RECEIVE_BUFFERS as usize
            + SENDS_PER_TURN
            + HAND_OVERS_MAX
            + 2 * HAND_OVERS_MAX
            + ACCEPTS_PER_WAKE
            + NAMING_MAX
            + SHARDS_MAX
);
