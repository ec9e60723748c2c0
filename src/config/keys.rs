//! The table of all keys: name, kind with bounds and unit, whether SIGHUP changes it, and what it means.
//!
//! Everything else is made from it: the file, the environment, `--set`, `--help` and `etc/ringmq.toml`.

use super::Config;
use super::options::{Durability, IoChoice, QueueFull, SharedStrategy};
use super::value::{Field, Kind, Value};
use crate::api::Auth;
use crate::auth::DenyAction;
use crate::auth::http::{Format as BodyFormat, Method};
use crate::limits::{
    AUTH_WAIT_MS, FLAPPING_WINDOW_S_MAX, HTTP_TEXT_BYTES_MAX, INFORMATION_BYTES_MAX, REMAINING_LENGTH_MAX,
    RULINGS_MAX, SHARDS_MAX,
};
use crate::log::{Format, Level, Rotation};

/// One key of a `T`.
#[derive(Debug)]
pub struct Key<T: 'static = Config> {
    /// Section and name: `mqtt.max_inflight`.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Whether a changed value is used without a restart.
    pub live: bool,
    /// Whether a zone may have a value of its own.
    pub zoned: bool,
    /// What it means, in sentences.
    pub doc: &'static str,
    /// Reads it.
    pub get: fn(&T) -> Value,
    /// Sets it to a value that `kind` accepted.
    pub(super) set: fn(&mut T, Value) -> Result<(), String>,
}

impl Key {
    /// The key of this name.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its environment variable: `RINGMQ_MQTT_MAX_INFLIGHT`.
    pub fn variable(&self) -> String {
        format!("RINGMQ_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Section and name within it.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// The key that somebody meant who wrote `name`: nearest by edits, where it is near at all. A name
    /// without its section is compared with names without theirs.
    pub fn nearest(name: &str) -> Option<&'static Key> {
        let near = closest(KEYS, name);
        let last = name.rsplit('.').next().unwrap_or(name);
        let same_last = KEYS.iter().find(|key| key.parts().1 == last);
        let (distance, key) = near?;
        if distance <= 2 { Some(key) } else { same_last.or((distance <= name.len() / 3).then_some(key)) }
    }
}

/// Of some keys the nearest by edits, and how many.
fn closest<T>(keys: &'static [Key<T>], name: &str) -> Option<(usize, &'static Key<T>)> {
    let distance = |key: &Key<T>| {
        let last = key.name.rsplit('.').next().unwrap_or(key.name);
        strsim::damerau_levenshtein(name, if name.contains('.') { key.name } else { last })
    };
    keys.iter().map(|key| (distance(key), key)).min_by_key(|(distance, _)| *distance)
}

/// The key of these that somebody meant who wrote `name`, where one is near.
pub(super) fn nearest<T>(keys: &'static [Key<T>], name: &str) -> Option<&'static Key<T>> {
    closest(keys, name).filter(|(distance, _)| *distance <= name.len().div_ceil(3)).map(|(_, key)| key)
}

pub(super) const fn number(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Number { unit, min, max }
}

macro_rules! names {
    ($ty:ty) => {
        Kind::Choice(|| <$ty>::NAMES.iter().map(|(name, _)| *name).collect())
    };
}

macro_rules! keys {
    ($($name:literal $($field:ident).+ $live:ident $kind:expr, $doc:literal;)*) => {
        &[$(Key {
            name: $name,
            kind: $kind,
            live: $live.0,
            zoned: $live.1,
            doc: $doc,
            get: |of| of.$($field).+.show(),
            set: |of, value| of.$($field).+.put(value),
        }),*]
    };
}

pub(super) use {keys, names};

/// Whether a changed value is used without a restart, and whether a zone may have a value of its own.
pub(super) const LIVE: (bool, bool) = (true, false);
pub(super) const RESTART: (bool, bool) = (false, false);
pub(super) const ZONED: (bool, bool) = (true, true);
const SECONDS_MAX: u64 = u32::MAX as u64;
const RATE_MAX: u64 = u32::MAX as u64;
const PACKET_BYTES_MAX: u64 = REMAINING_LENGTH_MAX as u64 + 5;

/// All keys, by section, in the order in which `etc/ringmq.toml` shows them.
pub const KEYS: &[Key] = keys! {
    "mqtt.listen" broker.listen RESTART Kind::Addresses { off: false, local: false },
        "Addresses and ports that serve MQTT over TCP. `[::]` takes IPv4 and IPv6; a port alone means the same; port 0 takes a free one.";
    "mqtt.max_packet_size" mqtt.max_packet_size ZONED number("bytes", 128, PACKET_BYTES_MAX),
        "Largest packet that is accepted; a larger one closes the connection (5.0: reason code 0x95).";
    "mqtt.client_max_packet_size" mqtt.client_max_packet_size ZONED number("bytes", 128, PACKET_BYTES_MAX),
        "Largest packet that is sent to a client that connects from then on; a 5.0 client's Maximum Packet Size can lower it. A larger message is not sent to it, and counted.";
    "mqtt.max_properties" mqtt.max_properties ZONED number("bytes", 0, REMAINING_LENGTH_MAX as u64),
        "Longest properties of a 5.0 client's CONNECT or PUBLISH; a CONNECT with longer ones is refused and a PUBLISH ends the connection, both with 0x97. 0: as long as the packet may be.";
    "mqtt.allow_anonymous" mqtt.allow_anonymous ZONED Kind::Flag,
        "Whether a client may come that nobody vouches for: one without user name and password, or any client where no source of users is configured (section `auth`). Else it is refused with 0x87 (3.x: 5).";
    "mqtt.anonymous_local_only" mqtt.anonymous_local_only ZONED Kind::Flag,
        "Whether such clients must be on this machine. `false` lets in everybody who can reach the broker; `--allow-anonymous` does the same.";
    "mqtt.max_inflight" mqtt.max_inflight ZONED number("messages", 1, 65_535),
        "QoS 1 and 2 messages that are sent to a client and not acknowledged yet; a 5.0 client's Receive Maximum can lower it.";
    "mqtt.max_mqueue" mqtt.max_mqueue ZONED number("messages", 1, 10_000_000),
        "Messages that wait for one session, while it is offline or its inflight window is full.";
    "mqtt.max_mqueue_bytes" mqtt.max_mqueue_bytes ZONED number("bytes", 1_024, 1 << 40),
        "Bytes of the messages that wait for one session. At least `max_packet_size`.";
    "mqtt.queue_full" mqtt.queue_full LIVE names!(QueueFull),
        "What happens to a QoS 1 or 2 message for a session whose queue is full. `drop_oldest` makes room, `reject` answers the publisher with 0x97 before anybody gets the message, `disconnect` closes the slow subscriber. QoS 0 is dropped. All are counted.";
    "mqtt.reject_wait_s" mqtt.reject_wait_s LIVE number("seconds", 0, 86_400),
        "How long a 3.x client, who cannot be told, waits for room behind a full queue (`queue_full = \"reject\"`) or for a store that can be written, before it is closed.";
    "mqtt.max_awaiting_rel" mqtt.max_awaiting_rel ZONED number("messages", 1, 65_535),
        "QoS 2 messages from one client that wait for its PUBREL; 5.0 clients are told it as Receive Maximum, and it stays as it was told for as long as they are connected.";
    "mqtt.await_rel_timeout_s" mqtt.await_rel_timeout_s ZONED number("seconds", 1, SECONDS_MAX),
        "After this time without PUBREL, the identifier of a QoS 2 message is forgotten.";
    "mqtt.session_expiry_s" mqtt.session_expiry_s ZONED number("seconds", 0, SECONDS_MAX),
        "How long the session of a 3.1 or 3.1.1 client with Clean Session 0 outlives its connection. 4294967295: for ever.";
    "mqtt.session_expiry_max_s" mqtt.session_expiry_max_s ZONED number("seconds", 0, SECONDS_MAX),
        "Longest session expiry interval that a client can ask for; a 5.0 client is told when it gets less. 4294967295: no cap.";
    "mqtt.keepalive_backoff" mqtt.keepalive_backoff ZONED number("thousandths", 1_000, 10_000),
        "A client is closed when it was silent for its keep alive times this; the standard says 1500.";
    "mqtt.server_keep_alive_s" mqtt.server_keep_alive_s ZONED number("seconds", 0, 65_535),
        "Keep alive for every client in place of its own; 5.0 clients are told. 0: the client's own.";
    "mqtt.idle_timeout_s" mqtt.idle_timeout_s ZONED number("seconds", 1, 86_400),
        "A connection without a complete CONNECT packet is closed after this time.";
    "mqtt.max_clientid_len" mqtt.max_clientid_len ZONED number("bytes", 23, 65_535),
        "Longest client identifier.";
    "mqtt.max_topic_levels" mqtt.max_topic_levels ZONED number("levels", 0, 65_535),
        "Most levels in a topic name or topic filter (`a/b/c` has 3). 0: no limit.";
    "mqtt.max_topic_alias" mqtt.max_topic_alias ZONED number("aliases", 0, 65_535),
        "Topic aliases that a 5.0 client may use when it publishes, which stays as it was told for as long as it is connected. 0: none.";
    "mqtt.max_subscriptions" mqtt.max_subscriptions ZONED number("subscriptions", 1, 10_000_000),
        "Subscriptions of one session; a further one is refused with 0x97 (3.x: 0x80).";
    "mqtt.max_qos" mqtt.max_qos ZONED number("QoS", 0, 2),
        "Highest quality of service. Subscriptions are granted at most this; a 5.0 client that publishes with more is disconnected (0x9B).";
    "mqtt.retain_available" mqtt.retain_available ZONED Kind::Flag,
        "Whether retained messages are kept and sent.";
    "mqtt.wildcard_available" mqtt.wildcard_available ZONED Kind::Flag,
        "Whether topic filters may contain `+` and `#`.";
    "mqtt.shared_available" mqtt.shared_available ZONED Kind::Flag,
        "Whether `$share/name/filter` may be subscribed to, by 3.x clients too.";
    "mqtt.shared_strategy" mqtt.shared_strategy LIVE names!(SharedStrategy),
        "Which member of a shared subscription gets a message: one after the other, any, the same while it is there, by the publisher's client identifier, by the topic, or one on the publisher's core where there is one.";
    "mqtt.max_output_bytes" mqtt.max_output_bytes LIVE number("bytes", 4_096, 1 << 30),
        "Bytes that may wait to be sent on one connection; what comes after them waits in the session's queue (QoS 0 is dropped and counted).";
    "mqtt.max_message_rate" mqtt.rates.messages_in ZONED number("messages per second", 0, RATE_MAX),
        "Messages that a client may publish in a second; after a second without any, so many at once. Of one that is faster nothing more is read until it is not: none is lost, and its own socket slows it down. 0: no bound.";
    "mqtt.max_byte_rate" mqtt.rates.bytes_in ZONED number("bytes per second", 0, RATE_MAX),
        "Bytes that a client may send in a second, in the same way. 0: no bound.";
    "mqtt.max_message_rate_out" mqtt.rates.messages_out ZONED number("messages per second", 0, RATE_MAX),
        "Messages that a client is sent in a second, on the average over some seconds. Beyond that QoS 1 and 2 wait in its session's queue, and QoS 0 is dropped and counted (`output_full`). 0: no bound.";
    "mqtt.max_byte_rate_out" mqtt.rates.bytes_out ZONED number("bytes per second", 0, RATE_MAX),
        "Bytes that a client is sent in a second, in the same way; its acknowledgements count and never wait. 0: no bound.";
    "mqtt.user_rates" mqtt.user_rates LIVE Kind::Texts("NAME:KEY=NUMBER,KEY=NUMBER"),
        "Rates of the clients of some users, for each of their connections, in place of those that hold for others, a zone's included: `ann:max_message_rate=10,max_byte_rate=100000`, with any of the four rates above. What is sent together with CONNECT is not counted.";
    "mqtt.flapping_threshold" mqtt.flapping.threshold ZONED number("ends", 0, 1_000_000),
        "A client whose connections end so often within `flapping_window_s` is banned by its client identifier for `flapping_ban_s`, as if over HTTP, where the ban can be taken back. 0: none is.";
    "mqtt.flapping_window_s" mqtt.flapping.window_s ZONED number("seconds", 1, FLAPPING_WINDOW_S_MAX as u64),
        "With `flapping_threshold`: the time within which ends of connections are counted.";
    "mqtt.flapping_ban_s" mqtt.flapping.ban_s ZONED number("seconds", 1, SECONDS_MAX),
        "With `flapping_threshold`: how long such a client is banned.";
    "mqtt.max_retained" mqtt.max_retained LIVE number("messages", 0, 1_000_000_000),
        "Retained messages that the broker keeps, an equal part of them on each shard. A further one is refused with 0x97 where its publisher speaks 5.0 and its QoS is 1 or 2; any other is delivered, not retained, and counted (`retained_full`).";
    "mqtt.max_retained_bytes" mqtt.max_retained_bytes LIVE number("bytes", 0, 1 << 44),
        "Bytes of the retained messages that the broker keeps, in the same way.";
    "mqtt.check_payload_format" mqtt.check_payload_format ZONED Kind::Flag,
        "Whether the payload of a message with the Payload Format Indicator 1 must be UTF-8. One that is not is refused with 0x99; at QoS 0, which has no answer, its publisher is disconnected.";
    "mqtt.response_information" mqtt.response_information ZONED Kind::Text { bytes_max: INFORMATION_BYTES_MAX },
        "What a 5.0 client gets as Response Information when it asks for it: the start of the topics that it may use for responses. Empty: none.";
    "mqtt.server_reference" mqtt.server_reference LIVE Kind::Text { bytes_max: INFORMATION_BYTES_MAX },
        "Another broker, `host` or `host:port`, that 5.0 clients are told to use when this one stops (reason code 0x9C). Empty: they are told that it shuts down (0x8B).";

    "auth.chain" auth.chain LIVE Kind::Texts("sources of users"),
        "In which order sources of users are asked, where they are configured: `jwt`, `password_file`, `client_id_file`, `http`. Each vouches for a client, refuses it, or has nothing to say; then the next one is asked. A user name that is not in the password file is refused where no source is behind it. A client that no source knows is anonymous if it has neither user name nor password, else it is refused.";
    "auth.password_file" auth.password_file LIVE Kind::Path,
        "A file with a line `NAME:HASH` for each user, which `ringmq passwd` maintains; files of `mosquitto_passwd` are read as they are. Clients of 5.0 may prove by SCRAM-SHA-256 (enhanced authentication) that they know a password that `ringmq passwd --scram` keeps. SIGHUP and a reload over HTTP read it again. Empty: none.";
    "auth.client_id_file" auth.client_id_file LIVE Kind::Path,
        "A file with a line `CLIENTID:HASH` for each client identifier, which `ringmq passwd` maintains as well. A client with such an identifier comes in by the password behind it, and not without. Its user name must be missing, empty or its identifier, for no other one is proven by it. This file has nothing to say about other clients. Read again as that of users. Empty: none.";

    "auth.jwt_secret" auth.jwt_secret LIVE Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "The secret of JSON Web Tokens that clients bring as their password and that are signed with HS256, HS384 or HS512, at least 32 bytes. A token is looked at before passwords are. Empty: none.";
    "auth.jwt_public_key" auth.jwt_public_key LIVE Kind::Path,
        "The public key, in PEM, of such tokens that are signed with RS256, RS384, RS512, ES256 or ES384. Empty: none.";
    "auth.jwt_jwks_file" auth.jwt_jwks_file LIVE Kind::Path,
        "A file with keys of such tokens, as a JSON Web Key Set; of several, a token's `kid` names one. SIGHUP and a reload over HTTP read it again. Empty: none.";
    "auth.jwt_jwks_url" auth.jwt_jwks.url LIVE Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "An address that such a set is fetched from; with `https`, `http_ca_file` counts. A token whose `kid` is not among the keys has it fetched again at once, 2 seconds after the last time at the earliest. Where it cannot be fetched, the keys from before are kept, and the log says so. Empty: none.";
    "auth.jwt_jwks_refresh_s" auth.jwt_jwks.refresh_s LIVE number("seconds", 1, 86_400),
        "Seconds after which it is fetched again.";
    "auth.jwt_claims" auth.jwt_claims LIVE Kind::Texts("NAME:VALUE"),
        "What a token must say, each as `NAME:VALUE`; the value `%c` is the client identifier, `%u` the user name: `sub:%u`. A token's own `acl`, `{\"pub\": [FILTER], \"sub\": [FILTER], \"all\": [FILTER]}`, allows these and nothing else, unless `acl_file` allows more.";
    "auth.jwt_outlive" auth.jwt_outlive LIVE Kind::Flag,
        "Whether a client stays connected when its token ends (`exp`). Else it is disconnected with 0x87.";
    "auth.http_auth_url" auth.http.auth.url LIVE Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "The address of a back-end that is asked about each client that connects: `http://127.0.0.1:8080/mqtt/auth`. 200 and 204 let it in, unless the body is `ignore` (it has nothing to say) or a JSON object whose `result` is `deny` or `ignore`; 4xx refuse it (403: 0x87, 429: 0x89). Anything else is no answer, and the client is told 0x88 and may try again. Empty: none.";
    "auth.http_auth_method" auth.http.auth.method LIVE names!(Method),
        "How it is asked: with parameters in the body, or behind the address.";
    "auth.http_auth_params" auth.http.auth.params LIVE Kind::Texts("NAME=VALUE"),
        "Parameters of that request. `%c` is the client identifier, `%u` the user name, `%P` the password, `%a` the address of the client, `%r` `mqtt`, `%%` a percent sign.";
    "auth.http_superuser_url" auth.http.superuser.url LIVE Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "The address that is asked, about a client that `http_auth_url` lets in, whether it may do everything, whatever rules say: 200. It may also say so in its first answer: `{\"is_superuser\": true}`. Empty: none.";
    "auth.http_superuser_method" auth.http.superuser.method LIVE names!(Method),
        "How that address is asked.";
    "auth.http_superuser_params" auth.http.superuser.params LIVE Kind::Texts("NAME=VALUE"),
        "Parameters of that request.";
    "auth.http_acl_url" auth.http.acl.url LIVE Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "The address of a back-end that is asked whether a client may publish or subscribe where no rule of `acl_file` applies: `http://127.0.0.1:8080/mqtt/acl`. 200 and 204 allow it, unless the body says `ignore`, or its `result` `deny` or `ignore`; that and 4xx deny it. Meanwhile the client's packet waits, and what it sends behind it. Where there is no answer (429, 5xx, none in time), 5.0 clients are told 0x83, and messages of QoS 0 are dropped; 3.x clients are told 0x80 of a subscription, and their QoS 1 and 2 messages wait as for a full queue, see `mqtt.reject_wait_s`. A will is asked about at CONNECT. What was granted stays subscribed, also after a reload, until it is asked again. Empty: none.";
    "auth.http_acl_method" auth.http.acl.method LIVE names!(Method),
        "How that address is asked.";
    "auth.http_acl_params" auth.http.acl.params LIVE Kind::Texts("NAME=VALUE"),
        "Parameters of that request. Besides those above, `%A` is 1 for a subscription and 2 for a message, `%t` the topic or topic filter as the client names it, `%m` what its listener's mountpoint puts before it.";
    "auth.http_format" auth.http.format LIVE names!(BodyFormat),
        "How the body of a `post` is written: as a form, or as a JSON object of texts.";
    "auth.http_headers" auth.http.headers LIVE Kind::Texts("NAME:VALUE"),
        "Lines of the head of each request, such as `Authorization: Bearer TOKEN`.";
    "auth.http_timeout_ms" auth.http.timeout_ms LIVE number("milliseconds", 1, AUTH_WAIT_MS),
        "How long an answer may take, the connection included. After five questions in a row without an answer, or with 502, 503 or 504, the back-end is left alone for half a second, and twice as long each time, up to 15 seconds; clients are told 0x88 meanwhile.";
    "auth.http_connections" auth.http.connections LIVE number("connections", 1, 1_024),
        "Requests under way at a time, each on a connection of its own, about logins and as many about rights; connections are kept for the next ones.";
    "auth.http_cache_s" auth.http.cache_s LIVE number("seconds", 0, 86_400),
        "How long an answer about a client that connects holds for the same question. 0: each time it is asked.";
    "auth.http_ca_file" auth.http.ca_file LIVE Kind::Path,
        "Certificates, in PEM, of the authorities that sign those of back-ends with `https`. Empty: those that this machine trusts.";
    "auth.acl_file" auth.acl_file LIVE Kind::Path,
        "Rules about who may publish and subscribe to what; the first that applies decides, and what none applies to is denied. A file whose name ends in `.toml` is read as etc/acl.toml explains, any other as the `acl_file` of mosquitto. SIGHUP and a reload over HTTP read it again, and end subscriptions that are not allowed any more. Empty: whoever is let in may do everything.";
    "auth.acl_cache_s" auth.rulings.hold_s LIVE number("seconds", 0, 86_400),
        "How long what `http_acl_url` said holds for the same client, connection and topic; a reload forgets it, and so do `/api/v4/clients/ID/acl_cache` and `ringmq ctl acl cache-clean`. 0: each packet is asked about.";
    "auth.acl_cache_max" auth.rulings.entries_max LIVE number("answers", 1, RULINGS_MAX),
        "Such answers that are remembered for one client, the newest; their topics have 16384 bytes at most.";
    "auth.deny_action" auth.deny_action LIVE names!(DenyAction),
        "What happens to a client that publishes or subscribes where it may not. `ignore` tells it (5.0: 0x87; 3.x: 0x80 in SUBACK, and PUBACK or PUBREC as ever), `disconnect` ends its connection.";

    "node.id" node.id RESTART number("", 1, 65_535),
        "The number of this broker, which tools see in the HTTP API.";
    "node.name" node.name RESTART Kind::Text { bytes_max: INFORMATION_BYTES_MAX },
        "The name of this broker, which tools see in the HTTP API and in `$SYS` topics.";

    "broker.data_dir" broker.data_dir RESTART Kind::Path,
        "The folder for what the broker keeps, made when something is kept. Empty: the first of `$STATE_DIRECTORY`, `$XDG_STATE_HOME/ringmq` and `ringmq-data` in the working directory.";
    "broker.durability" broker.durability RESTART names!(Durability),
        "Whether what is acknowledged is on the disk: `on` keeps sessions that do not end with their connection, their queued QoS 1 and 2 messages, and retained messages in `store` below the data folder, and answers once they are there. `off` keeps all of it in memory, until the broker ends.";
    "broker.shards" broker.shards RESTART number("shards", 0, SHARDS_MAX as u64),
        "Threads that serve clients, each with its own share of them. 0: one for each available core, less one for management where there are 4 or more.";
    "broker.io" broker.io RESTART names!(IoChoice),
        "How the broker talks to the kernel: `auto` takes io_uring where it works, else epoll with a warning; `uring` does not start without io_uring.";
    "broker.pin" broker.pin RESTART Kind::Flag,
        "Whether each shard stays on a core of its own. Turn it off where other programs need the same cores.";
    "broker.management_nice" broker.management_nice RESTART number("steps", 0, 19),
        "How far the thread that serves HTTP stands behind the shards where it has no core of its own, as the command `nice` counts it. 0: they share evenly, and large answers of the HTTP API make messages wait.";
    "broker.max_connections" broker.max_connections RESTART number("connections", 0, 100_000_000),
        "Connections that the broker takes at most. 0: as many for each shard as the limit of open files (`ulimit -n`). With io_uring there may be more than that.";
    "broker.max_memory" broker.max_memory LIVE number("bytes", 0, 1 << 44),
        "Memory that the shards may hold, as their ledger counts it (`/api/v4/shards`, SIGUSR1); it is looked at each second. Above it what is new is refused, in this order: connections (0x97; 3.x: 3); from 105 percent subscriptions as well (0x97; 3.x: 0x80); from 110 percent messages that are to be retained (0x97; who cannot be told has them delivered, not retained, and counted); from 115 percent all messages (0x97; 3.x waits as for a full queue, see `mqtt.reject_wait_s`; QoS 0 is dropped and counted as `memory_full`). What is there stays. 0: no bound.";
    "broker.backlog" broker.backlog RESTART number("connections", 1, 65_535),
        "Connections that may wait to be accepted, for each listener and shard. The kernel cuts it to `net.core.somaxconn`.";
    "broker.peer_address" broker.peer_address RESTART Kind::Flag,
        "Whether the address of each client is looked up, for the log and for rules about addresses; it costs about 1.3 microseconds per connection. A client without a known address counts as one of this machine only where it came to a loopback address.";
    "broker.drain_timeout_s" broker.drain_timeout_s LIVE number("seconds", 0, 3_600),
        "How long SIGTERM or SIGINT waits until clients were told and what is queued for them has left.";

    "log.level" log.level LIVE names!(Level),
        "The least important lines that are logged.";
    "log.format" log.format RESTART names!(Format),
        "`text` for people, `json` for programs: one object per line.";
    "log.file" log.file RESTART Kind::Path,
        "The file that is logged to. Empty: standard error. A rotated file has its date behind this name.";
    "log.rotation" log.rotation RESTART names!(Rotation),
        "When a new log file is begun.";
    "log.keep_files" log.keep_files RESTART number("files", 0, 10_000),
        "Rotated files that are kept, the newest. 0: all.";
    "log.shard_lines_per_s" log.shard_lines_per_s LIVE number("lines per second", 0, 1_000_000),
        "Lines about clients that each shard may log; further ones are counted, and the count is logged.";

    "http.listen" http.listen RESTART Kind::Addresses { off: true, local: true },
        "Addresses and ports that serve HTTP. A port alone is one of 127.0.0.1; `*:8081` takes all addresses. An address that other machines may reach needs credentials of your own, see below. `\"off\"`: none.";
    "http.auth" http.auth RESTART names!(Auth),
        "Whether credentials are asked for. `none` serves tools that cannot send any, on loopback addresses only. `/health` and `/ready` never ask.";
    "http.users" http.users RESTART Kind::Texts("NAME:HASH"),
        "Who may use the API with a password (Basic), each as `NAME:HASH`; `ringmq hash-password` makes the hash. As long as no user, token or key is configured, `admin` with the password `public` may, on loopback addresses only.";
    "http.bearer_tokens" http.bearer_tokens RESTART Kind::Texts("tokens"),
        "Tokens that are as good as a password (`Authorization: Bearer TOKEN`), of at least 16 characters each.";
    "http.jwt_secret" http.jwt_secret RESTART Kind::Text { bytes_max: HTTP_TEXT_BYTES_MAX },
        "The secret of JSON Web Tokens that are signed with HS256, at least 32 bytes. They need `exp`. Empty: none are accepted.";
    "http.jwt_public_key" http.jwt_public_key RESTART Kind::Path,
        "The public RSA key, in PEM, of JSON Web Tokens that are signed with RS256. They need `exp`. Empty: none are accepted.";
    "http.hosts" http.hosts RESTART Kind::Texts("names of hosts"),
        "Names, beside localhost, by which a loopback address may be called, such as that of a reverse proxy, and whose web pages may send requests that change something. `*` is any.";
    "http.max_body_bytes" http.max_body_bytes RESTART number("bytes", 1_024, 1 << 30),
        "Largest body of a request; a larger one is answered with 413.";
    "sys.interval_s" http.sys_interval_s RESTART number("seconds", 0, 86_400),
        "Time between two rounds of the values that are published below `$SYS/`, while somebody is subscribed to them; 0: none are.";
    "sys.client_events" http.sys_client_events RESTART Kind::Flag,
        "Whether each client that connects or disconnects is published to `$SYS/brokers/{node}/clients/{clientid}/connected` or `disconnected`, as JSON. Each is one message more for the broker to route.";
    "sys.local_only" mqtt.sys_local_only LIVE Kind::Flag,
        "Whether only clients of this machine may subscribe to filters that begin with `$SYS`.";
    "http.open_metrics" http.open_metrics RESTART Kind::Flag,
        "Whether `/metrics` needs no credentials on any address; on a loopback address it never does.";
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_variables_are_unique_and_well_formed() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        let mut variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
        for list in [&mut names.iter().map(|n| (*n).to_owned()).collect(), &mut variables] {
            let count = list.len();
            list.sort();
            list.dedup();
            assert_eq!(list.len(), count);
        }
        names.retain(|name| {
            let (section, rest) = name.split_once('.').unwrap_or_default();
            section.is_empty() || rest.is_empty() || !rest.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        });
        assert_eq!(names, [] as [&str; 0]);
        assert_eq!(
            Key::find("mqtt.max_inflight").map(Key::variable).as_deref(),
            Some("RINGMQ_MQTT_MAX_INFLIGHT")
        );
    }

    const USER: &str = "a:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn each_default_is_within_its_own_bounds_and_each_key_sets_its_own_field() {
        let defaults = Config::default();
        for key in KEYS {
            let default = (key.get)(&defaults);
            assert_eq!(key.kind.accept(default.clone()), Ok(default.clone()), "{}", key.name);
            let other = match (&key.kind, &default) {
                (Kind::Number { min, max, .. }, Value::Number(n)) => {
                    Value::Number(if n == min { *max } else { *min })
                }
                (Kind::Flag, Value::Flag(flag)) => Value::Flag(!flag),
                (Kind::Choice(names), _) => {
                    Value::Text(names()[usize::from(default == Value::Text(names()[0].into()))].into())
                }
                (Kind::Path | Kind::Text { .. }, _) => Value::Text("a/b".into()),
                (Kind::Addresses { .. }, _) => Value::List(vec!["127.0.0.1:9".into()]),
                (Kind::Texts(_), _) if key.name == "http.users" => Value::List(vec![USER.into()]),
                (Kind::Texts(_), _) if key.name == "auth.chain" => Value::List(vec!["http".into()]),
                (Kind::Texts("NAME=VALUE"), _) => Value::List(vec!["a=%u".into()]),
                (Kind::Texts("NAME:VALUE"), _) => Value::List(vec!["sub:%u".into()]),
                (Kind::Texts("NAME:KEY=NUMBER,KEY=NUMBER"), _) => {
                    Value::List(vec!["ann:max_byte_rate=10".into()])
                }
                (Kind::Texts(_), _) => Value::List(vec!["a-name-or-a-token".into()]),
                _ => panic!("{} has a default of another kind", key.name),
            };
            assert_ne!(other, default, "{}", key.name);
            let mut config = defaults.clone();
            let accepted = key.kind.accept(other.clone()).expect("within the bounds");
            (key.set)(&mut config, accepted).expect("within the field");
            assert_eq!((key.get)(&config), other, "{}", key.name);
            let changed: Vec<_> = KEYS.iter().filter(|k| (k.get)(&config) != (k.get)(&defaults)).collect();
            assert_eq!(changed.len(), 1, "{} changes one key", key.name);
        }
    }

    #[test]
    fn each_bound_fits_its_field() {
        for key in KEYS {
            if let Kind::Number { min, max, .. } = key.kind {
                for n in [min, max] {
                    let mut config = Config::default();
                    (key.set)(&mut config, Value::Number(n)).unwrap_or_else(|e| panic!("{}: {e}", key.name));
                    assert_eq!((key.get)(&config), Value::Number(n), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        let nearest = |name| Key::nearest(name).map(|key| key.name);
        assert_eq!(nearest("mqtt.max_infligth"), Some("mqtt.max_inflight"));
        assert_eq!(nearest("max_inflight"), Some("mqtt.max_inflight"));
        assert_eq!(nearest("broker.max_inflight"), Some("mqtt.max_inflight"));
        assert_eq!(nearest("mqt.listen"), Some("mqtt.listen"));
        assert_eq!(nearest("log.lvl"), Some("log.level"));
        assert_eq!(nearest("tls.certificate_chain"), None);
    }

    #[test]
    fn each_key_says_what_it_means() {
        for key in KEYS {
            assert!(key.doc.len() > 20 && key.doc.ends_with('.'), "{}", key.name);
        }
    }
}
