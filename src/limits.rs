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
/// Bytes of a packet at most, fixed header included.
pub const PACKET_BYTES_MAX: u32 = REMAINING_LENGTH_MAX + 5;

/// Receive buffers of one ring: count and bytes of each.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Bytes of one receive buffer.
pub const RECEIVE_BUFFER_BYTES: usize = 16_384;
/// Bytes that a streaming receive may deliver before it ends by itself.
pub const READ_CREDIT_BYTES: u32 = 65_536;
/// Hand-overs of connections that one shard may have under way.
pub const HAND_OVERS_MAX: usize = 1_024;
/// Completions for which one turn of a ring runs deferred work before it hands them on.
pub const COMPLETIONS_PER_TURN: usize = 256;
/// Share of a descriptor table that is kept free for connections that arrive from other shards, in percent.
pub const TABLE_HEADROOM_PERCENT: usize = 10;

/// Clients with a line of their own in a shard's ledger of losses.
pub const LEDGER_CLIENTS_MAX: usize = 1_024;
/// Bytes of a client identifier that the ledger of losses keeps a line for.
pub const LEDGER_CLIENT_ID_BYTES_MAX: usize = 256;

/// Ticks of publication that one tick's deliveries are told apart by, when their latency is measured.
pub const DELIVERY_STAMPS_MAX: usize = 256;

const _: () = assert!(CONTROL_RING_ENTRIES.is_power_of_two() && DATA_RING_ENTRIES.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());

/// Entries of one chunk of a slab: what a slab wastes at most.
pub const SLAB_CHUNK_ENTRIES: usize = 1_024;
/// Deliveries that one tick makes before it turns to the next thing.
pub const TICK_DELIVERIES_MAX: usize = 8_192;
/// Undecoded bytes that one tick decodes from connections that were left over.
pub const TICK_READY_BYTES_MAX: usize = 1 << 20;
/// Envelopes that one tick takes from one peer shard.
pub const TICK_ENVELOPES_MAX: usize = DATA_RING_ENTRIES;
/// Messages that a full session queues beyond its bound under `queue_full = reject`: what other shards had
/// routed before they knew. Two rings' worth from each of eight shards; later ones are dropped and counted.
pub const QUEUE_LATE_MESSAGES_MAX: usize = 2 * DATA_RING_ENTRIES * 8;
/// Subscribers above which a message is handed out over several ticks.
pub const FAN_OUT_AT_ONCE_MAX: usize = 2_048;
/// Subscriptions of ended sessions that one tick removes.
pub const TICK_CLEANUPS_MAX: usize = 1_024;
/// Connections that one tick closes while draining.
pub const TICK_DRAINS_MAX: usize = 1_024;
/// Timers that one tick fires.
pub const TICK_TIMERS_MAX: usize = 4_096;
/// Retained topics that one tick looks at for scans.
pub const TICK_SCAN_STEPS_MAX: usize = 4_096;
/// Retained messages in one page of a scan.
pub const SCAN_PAGE_MESSAGES: u32 = 64;
/// Topics of live messages that a session remembers while a scan for it is open.
pub const SCAN_SEEN_MAX: usize = 65_536;
/// Control messages that may wait in overflow before background work (clean-up, scans) pauses.
pub const OVERFLOW_BACKGROUND_MAX: usize = 1_024;
/// Output buffers that a shard keeps for reuse.
pub const POOL_BUFFERS_MAX: usize = 1_024;
/// Capacity above which an output buffer is given back to the allocator.
pub const POOL_BUFFER_BYTES_MAX: usize = 131_072;
/// Milliseconds that a closing connection has to take its last bytes.
pub const CLOSE_FLUSH_MS_MAX: u64 = 5_000;
/// Milliseconds within which a read follows another closely.
pub const ACTIVE_READ_MS: u64 = 1_000;
/// Reads that follow each other closely, after which a connection streams instead of being polled.
pub const ACTIVE_READS: u8 = 3;
/// Milliseconds after which a timer is looked at again, however far off its moment is: what a connection or a
/// session that is gone leaves in the wheel goes within that time.
pub const TIMER_HORIZON_MS: u64 = 60_000;
/// Milliseconds between two sweeps for retained messages that expired.
pub const RETAINED_SWEEP_MS: u64 = 1_000;
/// Retained messages that one sweep looks at.
pub const RETAINED_SWEEP_STEPS: usize = 1_024;
/// Milliseconds between two tries of a publisher that waits for a full route.
pub const FULL_RETRY_MS: u64 = 50;
/// Capacity above which an empty reassembly buffer is given back.
pub const PENDING_KEEP_BYTES: usize = 4_096;
/// Listeners at most: their number is seven bits in a session.
pub const LISTENERS_MAX: usize = 128;
/// Bytes of the name of a listener or a zone.
pub const LISTENER_NAME_BYTES_MAX: usize = 64;
/// Bytes of a PROXY header, its additional values included.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;
/// Proxies that X-Forwarded-For may name behind a client.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// Networks in one list of a listener.
pub const NETWORKS_MAX: usize = 4_096;
/// Bytes of a listener's mountpoint, before identifiers are put in.
pub const MOUNTPOINT_BYTES_MAX: usize = 1_024;
/// Connections of one shard that are refused and whose CONNECT is waited for, so that they can be told why.
pub const REFUSALS_MAX: usize = 256;
/// Milliseconds that one of them may take for that.
pub const REFUSAL_MS_MAX: u64 = 2_000;
/// Connections that may wait to be accepted, for each listener and shard, unless configured otherwise.
pub const BACKLOG_DEFAULT: u32 = 4_096;
/// TCP keepalive of accepted sockets, unless configured otherwise: seconds of silence before the first probe.
pub const TCP_KEEPALIVE_IDLE_S: u16 = 60;
/// Seconds between two keepalive probes.
pub const TCP_KEEPALIVE_INTERVAL_S: u16 = 10;
/// Unanswered keepalive probes after which a connection is dead.
pub const TCP_KEEPALIVE_PROBES: u8 = 6;
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
/// How far threads that take steps for shards stay behind them, as nice(1) counts.
pub const CONNECTOR_NICE: u8 = 10;
/// Connections of one shard at most: what a table of direct descriptors may hold.
pub const CONNECTIONS_PER_SHARD_MAX: u32 = 1 << 20;
/// Subscriptions of one session, unless configured otherwise.
pub const SUBSCRIPTIONS_PER_SESSION_DEFAULT: u32 = 10_000;

/// Bytes of the texts that an operator configures for clients: response information, server reference.
pub const INFORMATION_BYTES_MAX: usize = 1_024;

/// What one tick spends on listings for the management thread, counted in things looked at.
pub const TICK_DESK_COST: usize = 512;
/// Of that, what is spent between two looks at the clock.
pub const DESK_SLICE_COST: usize = 64;
/// Bytes of the management thread's stack: as much as the first thread of a process has.
pub const MANAGEMENT_STACK_BYTES: usize = 8 << 20;
/// Nanoseconds behind which a tick spends nothing more on listings.
pub const TICK_DESK_NS: u64 = 50_000;
/// A tick with more to serve than it can leaves listings alone, but for one slice in so many of these.
pub const DESK_BUSY_TICKS: u32 = 8;
/// What making one row costs, counted in things looked at.
pub const DESK_ROW_COST: usize = 12;
/// Bytes of text that are compared or copied in the time of one look.
pub const LOOK_BYTES: usize = 128;
/// What finding a place in the order of retained topics costs, counted in topics looked at.
pub const SCAN_SEEK_STEPS: usize = 8;
/// Rows of one page of a listing at most.
pub const DESK_PAGE_ROWS_MAX: usize = 1_000;
/// Small questions of the management thread that one tick answers.
pub const TICK_DESK_ASKS: usize = 16;
/// Milliseconds that `ringmq ctl` waits for an answer.
pub const CTL_ANSWER_MS_MAX: u64 = 30_000;
/// Milliseconds between two samples of what the shards measure.
pub const METER_SAMPLE_MS: u64 = 1_000;
/// Questions that the management thread has under way with all shards together.
pub const DESK_ASKS_MAX: usize = 256;
/// Listings over all shards that are gathered at a time; each may hold its rows until they are sent.
pub const DESK_LISTINGS_MAX: usize = 8;
/// Rows of one page that an HTTP client may ask for; what asks for more gets this many.
pub const HTTP_ROWS_MAX: usize = 10_000;
/// Listings whose last pages are remembered, so that the next one need not be looked for from the start.
pub const HTTP_PAGINGS_MAX: usize = 64;
/// Pages that are remembered of each.
pub const HTTP_PAGES_MAX: usize = 16;
/// Milliseconds for which the count of a listing holds, when its later pages are asked for.
pub const HTTP_COUNT_MS: u64 = 10_000;
/// Subscriptions that the topic tree is made from.
pub const HTTP_TREE_ROWS_MAX: usize = 50_000;

/// Alarms that are kept after they ended.
pub const ALARMS_KEPT_MAX: usize = 1_000;
/// Events that a shard keeps until the management thread takes them; more are dropped and counted.
pub const EVENTS_QUEUED_MAX: usize = 4_096;
/// Bytes of these events, and of those that wait for one listener.
pub const EVENTS_BYTES_MAX: usize = 4 << 20;
/// Milliseconds between two times that a shard's events are taken.
pub const EVENTS_PAUSE_MS: u64 = 20;
/// Events that wait for one listener; more are dropped, and it is told how many.
pub const EVENTS_WAITING_MAX: usize = 8_192;
/// Listeners to events at a time, traces into files included.
pub const EVENTS_LISTENERS_MAX: usize = 32;
/// Milliseconds after which a stream of events that its client does not read is closed.
pub const EVENTS_STALL_MS_MAX: u64 = 30_000;
/// Milliseconds of silence after which a stream of events shows that it is there.
pub const EVENTS_SILENCE_MS: u64 = 15_000;
/// Clients and topic filters that are traced at a time.
pub const TRACES_MAX: usize = 16;
/// Bytes of what a trace says of one packet.
pub const TRACE_TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a payload that a trace shows.
pub const TRACE_PAYLOAD_BYTES_MAX: usize = 64;
/// Bytes of the file of one trace, which ends there.
pub const TRACE_FILE_BYTES_MAX: u64 = 256 << 20;

/// Connections to the HTTP API at a time.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Headers of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of the head of one HTTP request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16_384;
/// Bytes of the body of one HTTP request, unless configured otherwise.
pub const HTTP_BODY_BYTES_DEFAULT: u64 = 1 << 20;
/// HTTP requests that are served at once, on all connections together.
pub const HTTP_REQUESTS_MAX: usize = 64;
/// HTTP requests whose password waits to be hashed.
pub const HTTP_HASHES_WAITING_MAX: usize = 16;
/// Credentials of the HTTP API that are remembered as proven.
pub const HTTP_PROVEN_MAX: usize = 256;
/// Milliseconds that they are remembered.
pub const HTTP_PROVEN_MS: u64 = 60_000;
/// Names with passwords, tokens, or hosts that the HTTP API may be given.
pub const HTTP_NAMES_MAX: usize = 256;
/// Bytes of a bearer token at least: short ones can be guessed.
pub const HTTP_TOKEN_BYTES_MIN: usize = 16;
/// Bytes of a bearer token, a name with its hash, or a host at most.
pub const HTTP_TEXT_BYTES_MAX: usize = 512;
/// Bytes of the secret of JSON Web Tokens at least [RFC 7518, 3.2].
pub const HTTP_JWT_SECRET_BYTES_MIN: usize = 32;
/// Seconds that clocks of those who make tokens and ours may differ.
pub const HTTP_JWT_LEEWAY_S: u64 = 60;

/// Bytes of a password file at most: about 30 million users.
pub const AUTH_PASSWORD_FILE_BYTES_MAX: usize = u32::MAX as usize;
/// Bytes of a user name in a password file or a list of rules at most.
pub const AUTH_NAME_BYTES_MAX: usize = 4_096;
/// Bytes of a token that a client brings at most.
pub const JWT_BYTES_MAX: usize = 16_384;
/// Keys of a JSON Web Key Set at most.
pub const JWT_KEYS_MAX: usize = 256;
/// Bytes of a JSON Web Key Set that is fetched at most.
pub const JWKS_BYTES_MAX: usize = 1 << 20;
/// Milliseconds for fetching it.
pub const JWKS_TIMEOUT_MS: u32 = 5_000;
/// Milliseconds from one fetch to another that a token with an unknown key causes, at least.
pub const JWKS_EARLY_MS_MIN: u64 = 2_000;
/// Milliseconds after which a fetch that failed is tried again.
pub const JWKS_RETRY_MS: u64 = 2_000;
/// Seconds by which clocks may differ, for the times in a token.
pub const JWT_LEEWAY_S: u64 = 10;
/// Rules of an ACL file at most.
pub const ACL_RULES_MAX: usize = 1_000_000;
/// Subscriptions that one tick looks at again after the rules changed, and sessions.
pub const TICK_REVIEWS_MAX: usize = 1_024;
/// KiB that the check of an Argon2 hash may use; passes times KiB may be four times that.
pub const AUTH_ARGON2_KIB_MAX: u32 = 1 << 20;
/// Rounds of a PBKDF2 hash at most.
pub const AUTH_PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// Cost of a bcrypt hash at most: 2 to this many rounds.
pub const AUTH_BCRYPT_COST_MAX: u8 = 16;
/// CONNECTs of one shard that wait to be judged; further ones are told that the server is busy.
pub const AUTH_WAITING_MAX: usize = 4_096;
/// Logins of all shards that the connectors have under way.
pub const AUTH_LOGINS_MAX: usize = 16_384;
/// Users with rates of their own.
pub const USER_RATES_MAX: usize = 4_096;
/// Questions about rights that one packet has under way at a time; a SUBSCRIBE with more filters asks again.
pub const INQUIRY_TOPICS_MAX: usize = 16;
/// Filters of a SUBSCRIBE that are looked at for them.
pub const INQUIRY_FILTERS_MAX: usize = 64;
/// Packets of one shard that wait for what a back-end says of their clients' rights; further ones get no answer.
pub const INQUIRIES_MAX: usize = 16_384;
/// The same for all shards together.
pub const INQUIRIES_ALL_MAX: usize = 65_536;
/// Rulings of a back-end that are remembered for one client at most.
pub const RULINGS_MAX: u64 = 1_024;
/// Bytes of their topics, for one client.
pub const RULINGS_BYTES_MAX: usize = 16_384;
/// Milliseconds that a CONNECT waits to be judged.
pub const AUTH_WAIT_MS: u64 = 10_000;
/// Logins that are remembered as proven, by a digest of 16 bytes, in each of two generations.
pub const AUTH_PROVEN_MAX: usize = 131_072;
/// Milliseconds that a login is remembered as proven; at most twice that.
pub const AUTH_PROVEN_MS: u64 = 300_000;
/// Failed logins for one user name from one address that nobody waits for.
pub const AUTH_BACKOFF_FREE: u32 = 5;
/// Failed logins from one address, whatever the names, that nobody waits for.
pub const AUTH_BACKOFF_FREE_ADDRESS: u32 = 50;
/// Milliseconds that the first failed login after those keeps further ones off.
pub const AUTH_BACKOFF_MS_MIN: u64 = 1_000;
/// Milliseconds that a failed login keeps further ones off at most.
pub const AUTH_BACKOFF_MS_MAX: u64 = 60_000;
/// Milliseconds after which a failed login is forgotten; at most twice that.
pub const AUTH_BACKOFF_PERIOD_MS: u64 = 600_000;
/// Addresses and names with failed logins that are remembered, in each of two generations.
pub const AUTH_BACKOFF_ENTRIES_MAX: usize = 65_536;
/// Bytes of a message of SCRAM at most.
pub const SCRAM_BYTES_MAX: usize = 2_048;
/// Rounds of a SCRAM verifier that `ringmq passwd` makes, unless it is told otherwise, and the least that it makes
/// [RFC 7677, 4].
pub const SCRAM_ROUNDS_MIN: u32 = 4_096;
/// Questions in a row without an answer after which a back-end is left alone for a while.
pub const AUTH_CIRCUIT_FAILURES: u32 = 5;
/// Milliseconds for which it is left alone the first time.
pub const AUTH_CIRCUIT_MS_MIN: u64 = 500;
/// Milliseconds for which it is left alone at most.
pub const AUTH_CIRCUIT_MS_MAX: u64 = 15_000;
/// Bytes of a back-end's answer at most; a longer one is none.
pub const AUTH_ANSWER_BYTES_MAX: usize = 65_536;
/// Milliseconds that a connection to a back-end is kept for the next question.
pub const AUTH_IDLE_MS_MAX: u64 = 30_000;
/// Answers of a back-end about logins that are remembered, in each of two generations.
pub const AUTH_ANSWERS_MAX: usize = 65_536;
/// Threads for names of hosts, beside those that compute hashes.
pub const AUTH_RESOLVERS: usize = 2;
/// Milliseconds for which what a rate allows and was not used may be used at once.
pub const RATE_BURST_MS: u64 = 1_000;
/// Clients that a shard remembers to have come and gone, in each of two generations.
pub const FLAPPING_CLIENTS_MAX: usize = 65_536;
/// Seconds within which they may be counted.
pub const FLAPPING_WINDOW_S_MAX: u32 = 3_600;
/// Bans of such clients that a shard keeps until the list of bans is looked at.
pub const FLAPPED_TOLD_MAX: usize = 4_096;
/// Percent of `broker.max_memory` from which on connections are refused, then subscriptions, then retained messages, then
/// all messages.
pub const PRESSURE_PERCENT: [u32; 4] = [100, 105, 110, 115];
/// Milliseconds between two looks at how much memory the shards hold.
pub const PRESSURE_LOOK_MS: u64 = 1_000;
/// Addresses whose connections are counted one by one for each listener; further ones share.
pub const CONN_RATE_ADDRESSES: usize = 65_536;
/// Bans at most, see [`crate::auth::Bans`].
pub const BANS_MAX: usize = 100_000;
/// Bytes of the texts of all bans.
pub const BANS_BYTES_MAX: usize = 32 << 20;
/// Bytes of the reason of a ban, and of the name of who made it.
pub const BAN_TEXT_BYTES_MAX: usize = 1_024;
/// Seconds that a ban holds, unless something else is asked for.
pub const BAN_S_DEFAULT: u64 = 300;
/// Bans that have ended and that a shard forgets whenever it looks at them.
pub const BANS_EXPIRED_AT_ONCE: usize = 64;
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
/// Milliseconds of one slot of a shard's timer wheel: how late a timer may fire.
pub const TIMER_GRANULE_MS: u64 = 256;
/// Times that a shard tries to build its driver while the kernel has no memory for it.
pub const DRIVER_TRIES_MAX: u32 = 10;
/// Milliseconds between two of them.
pub const DRIVER_RETRY_MS: u64 = 100;
/// Entries of a ring's submission queue; more are submitted in between.
pub const RING_SUBMISSIONS: u32 = 1_024;
/// Entries of a ring's completion queue.
pub const RING_COMPLETIONS: u32 = 16_384;
/// Rings of one shard at most: one, and annexes where the limit of open files keeps its table small.
pub const RINGS_PER_SHARD_MAX: usize = 64;
/// Entries of an annex ring's submission queue.
pub const ANNEX_SUBMISSIONS: u32 = 256;
/// Entries of an annex ring's completion queue.
pub const ANNEX_COMPLETIONS: u32 = 4_096;
/// Receive buffers of an annex ring.
pub const ANNEX_RECEIVE_BUFFERS: u16 = 64;
/// Bytes of a receive buffer of an annex ring.
pub const ANNEX_RECEIVE_BUFFER_BYTES: u32 = 2_048;
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
/// Milliseconds after which the descriptor of a connection that has moved is closed again, where that failed.
pub const LEAVE_RETRY_MS: u64 = 100;
/// Milliseconds that a driver waits for its operations to be cancelled when it is dropped.
pub const CANCEL_ALL_MS: u64 = 1_000;

// One completion for each receive buffer, send, arrival (and the two of each hand-over), accept, address that is
// asked for, shard that wakes us, and annex ring that has something.
const _: () = assert!(
    RING_COMPLETIONS as usize
        >= RECEIVE_BUFFERS as usize
            + SENDS_PER_TURN
            + HAND_OVERS_MAX
            + 2 * HAND_OVERS_MAX
            + ACCEPTS_PER_WAKE
            + NAMING_MAX
            + SHARDS_MAX
            + RINGS_PER_SHARD_MAX
);

/// Acknowledgements of one connection that may wait for the disk; then it is read no further.
pub const PENDING_ACKS_MAX: usize = 1_024;
/// Bytes of a shard's own messages (wills) that wait until the store can write; further ones are lost and counted.
pub const SHELF_BYTES_MAX: usize = 16 << 20;
/// Entries of the rings between a shard and the store.
pub const STORE_RING_ENTRIES: usize = 64;
/// Bytes of changes above which the store takes no more before it has committed them.
pub const STORE_GROUP_BYTES_MAX: usize = 1 << 20;
/// Milliseconds after which a store that cannot write tries again.
pub const STORE_RETRY_MS: u64 = 1_000;
/// Milliseconds after which the store tries again to answer a shard whose ring is full.
pub const STORE_RING_RETRY_MS: u64 = 1;
/// Bytes of a file of the store above which the next one is begun.
pub const STORE_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of garbage that the store leaves on the disk, beside as much as what counts.
pub const STORE_SLACK_BYTES: u64 = 128 << 20;
/// Bytes of old records that the store looks through at once when it makes room.
pub const STORE_TIDY_BYTES: u64 = 1 << 20;
/// Commits under load after which the store looks whether room is to be made.
pub const STORE_TIDY_COMMITS: u32 = 16;
/// Times that a backup goes over a store that is written meanwhile.
pub const STORE_BACKUP_PASSES_MAX: u32 = 100;
/// Bytes that a scan of the store reads at once.
pub const STORE_WINDOW_BYTES: u32 = 1 << 16;

const _: () = assert!(STORE_SEGMENT_BYTES + STORE_GROUP_BYTES_MAX as u64 * 4 < u32::MAX as u64);
const _: () = assert!(STORE_RING_ENTRIES.is_power_of_two());
/// Bytes of a TLS handshake message, and of what else came with it, that wait for the rest.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32_768;
/// Bytes that a TLS record has more than what it carries, at most.
pub const TLS_RECORD_OVERHEAD_BYTES: usize = 256 + 5;
/// Bytes on the heap that rustls holds for one connection after its handshake: measured with TLS 1.3; 1.2 takes 1,000
/// less.
pub const TLS_STATE_BYTES: usize = 3_584;
/// Bytes of a file of certificates, keys or revocation lists.
pub const TLS_FILE_BYTES_MAX: usize = 16 << 20;
/// Milliseconds between two looks at whether such a file has changed.
pub const TLS_FILES_LOOK_MS: u64 = 2_000;
/// TLS handshakes of which one tick takes a step, where nobody else does.
pub const TICK_HANDSHAKES_MAX: usize = 1;
/// Steps of TLS handshakes that a shard has under way with those who help; what else wants one waits unread. Each
/// holds [`TLS_HANDSHAKE_BYTES_MAX`] and one receive at most.
pub const SHARD_HANDSHAKES_MAX: usize = 64;
/// Entries of the ring by which a shard gives steps to one helper: enough for all, whether or not it has given back
/// the room of those that were taken.
pub const HANDSHAKE_RING_ENTRIES: usize = 2 * SHARD_HANDSHAKES_MAX;

/// Connections that wait for a place and get it in order. Where more do, there are more than can be served, and who
/// came last is served first: those who came before may have given up.
pub const HANDSHAKES_IN_ORDER_MAX: usize = 512;

const _: () = assert!(HANDSHAKE_RING_ENTRIES.is_power_of_two());
/// Bytes of a WebSocket's upgrade request.
pub const WS_HEAD_BYTES_MAX: usize = 8_192;
/// Headers of a WebSocket's upgrade request.
pub const WS_HEADERS_MAX: usize = 64;
/// Bytes that a control frame carries [RFC 6455, 5.5].
pub const WS_CONTROL_BYTES_MAX: usize = 125;
/// Bytes of the path of an upgrade request that a listener asks for.
pub const WS_PATH_BYTES_MAX: usize = 1_024;
/// Bytes of one WebSocket frame, unless configured otherwise.
pub const WS_FRAME_BYTES_DEFAULT: u64 = 16 << 20;
/// Bytes of pongs that may wait to be sent; pings that come meanwhile are not answered.
pub const WS_REPLY_BYTES_MAX: usize = 4_096;
