//! `ringmq ctl`: a running broker from the command line, through its HTTP API. Tables for people, `--json` for
//! programs.

mod client;
mod trace;
mod view;

use crate::limits::BAN_S_DEFAULT;
use clap::{Args, Subcommand};
use client::Client;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;
use view::{lines, table};

/// Where the broker is, who asks, and what.
#[derive(Args, Debug)]
pub struct CtlArgs {
    #[command(subcommand)]
    command: Command,
    /// The broker's HTTP API [default: http://127.0.0.1:8081; environment: RINGMQCTL_URL].
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// The name [default: admin; environment: RINGMQCTL_USER].
    #[arg(long, value_name = "NAME", global = true)]
    user: Option<String>,
    /// The password [default: public; environment: RINGMQCTL_PASSWORD, which others do not see].
    #[arg(long, value_name = "TEXT", global = true)]
    password: Option<String>,
    /// A bearer token in place of name and password [environment: RINGMQCTL_TOKEN].
    #[arg(long, value_name = "TEXT", global = true)]
    token: Option<String>,
    /// Prints what the broker answered, as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Whether the broker serves, its version, and how long it has run.
    Status,
    /// What was counted, and how many there are of what.
    #[command(subcommand)]
    Broker(Broker),
    /// Clients with a session, connected or not.
    #[command(subcommand)]
    Clients(Clients),
    /// Sessions and what they hold, connected or not.
    #[command(subcommand)]
    Sessions(Sessions),
    /// Topic filters that have subscribers.
    #[command(subcommand, alias = "routes")]
    Topics(Topics),
    /// Who is subscribed to what.
    #[command(subcommand)]
    Subscriptions(Subscriptions),
    /// Who may not come for a while.
    #[command(subcommand)]
    Banned(Banned),
    /// What is remembered of what a back-end said about clients' rights.
    #[command(subcommand)]
    Acl(Acl),
    /// Where MQTT and HTTP are served, and with how many connections.
    Listeners,
    /// What is wrong now, and what was.
    Alarms,
    /// Packets of a client or on a topic.
    #[command(subcommand)]
    Trace(trace::Trace),
    /// Shows what happens until it is interrupted.
    Events(trace::Events),
    /// The level of the broker's log.
    #[command(subcommand)]
    Log(Log),
    /// What each shard does: ticks, their time, deliveries, memory.
    #[command(alias = "vm")]
    Shards,
}

#[derive(Subcommand, Debug)]
enum Broker {
    /// How many clients, sessions, topics and subscriptions there are, and were at most.
    Stats,
    /// Bytes, packets and messages since the start.
    Metrics,
}

#[derive(Subcommand, Debug)]
enum Clients {
    /// All clients.
    List,
    /// Everything about one client.
    Show {
        /// Client identifier.
        client_id: String,
    },
    /// Closes a client's connection and ends its session.
    Kick {
        /// Client identifier.
        client_id: String,
    },
}

#[derive(Subcommand, Debug)]
enum Sessions {
    /// All sessions.
    List,
    /// Everything about the session of one client.
    Show {
        /// Client identifier.
        client_id: String,
    },
}

#[derive(Subcommand, Debug)]
enum Topics {
    /// All topic filters.
    List,
    /// Those that match a topic.
    Show {
        /// Topic name.
        topic: String,
    },
}

#[derive(Subcommand, Debug)]
enum Subscriptions {
    /// All subscriptions.
    List,
    /// Those of one client.
    Show {
        /// Client identifier.
        client_id: String,
    },
    /// Subscribes a connected client.
    Add {
        /// Client identifier.
        client_id: String,
        /// Topic filter.
        topic: String,
        /// QoS: 0, 1 or 2.
        qos: u8,
    },
    /// Ends a subscription of a connected client.
    Del {
        /// Client identifier.
        client_id: String,
        /// Topic filter.
        topic: String,
    },
}

#[derive(Subcommand, Debug)]
enum Banned {
    /// All bans that hold.
    List,
    /// Keeps somebody away, and disconnects those who are there.
    Add {
        /// What WHO is: clientid, username or peerhost.
        #[arg(value_name = "AS")]
        kind: String,
        /// A client identifier, a user name, or an address or network such as 10.0.0.0/8.
        who: String,
        /// For how long, in seconds [default: 300].
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Takes a ban back.
    Del {
        /// What WHO is: clientid, username or peerhost.
        #[arg(value_name = "AS")]
        kind: String,
        /// As it is listed.
        who: String,
    },
}

#[derive(Subcommand, Debug)]
enum Acl {
    /// What is remembered for a connected client.
    Cache {
        /// Client identifier.
        client_id: String,
    },
    /// Forgets what is remembered, so that it is asked again: for one client, or for all.
    CacheClean {
        /// Client identifier, or `all` [default: all].
        client_id: Option<String>,
    },
}

#[derive(Subcommand, Debug)]
enum Log {
    /// Changes the level at once, until the next restart.
    SetLevel {
        /// error, warn, info, debug or trace.
        level: String,
    },
}

/// Rows of one page when something is listed.
const PAGE_ROWS: usize = 1_000;

/// Runs one command; what went wrong is one line on standard error, and 1.
pub fn ctl(args: &CtlArgs) -> ExitCode {
    match run(args) {
        Ok(text) => {
            // Whoever reads it may have seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("ringmq ctl: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &CtlArgs) -> Result<String, String> {
    let client = Client::new(args);
    let (answer, text) = match &args.command {
        Command::Status => status(&client)?,
        Command::Broker(Broker::Stats) => values(client.get("/api/v4/stats")?, "stats"),
        Command::Broker(Broker::Metrics) => values(client.get("/api/v4/metrics")?, "metrics"),
        Command::Clients(Clients::List) => listed(&client, "/api/v4/clients", CLIENT_COLUMNS)?,
        Command::Clients(Clients::Show { client_id }) | Command::Sessions(Sessions::Show { client_id }) => {
            show(&client, client_id)?
        }
        Command::Clients(Clients::Kick { client_id }) => {
            let path = format!("/api/v4/clients/{}", encoded(client_id));
            (client.send("DELETE", &path, None)?, "ok\n".to_owned())
        }
        Command::Sessions(Sessions::List) => listed(&client, "/api/v4/clients", SESSION_COLUMNS)?,
        Command::Topics(Topics::List) => listed(&client, "/api/v4/routes", TOPIC_COLUMNS)?,
        Command::Topics(Topics::Show { topic }) => {
            listed(&client, &format!("/api/v4/routes/{}", encoded(topic)), TOPIC_COLUMNS)?
        }
        Command::Subscriptions(command) => subscriptions(&client, command)?,
        Command::Banned(command) => banned(&client, command)?,
        Command::Acl(command) => acl(&client, command)?,
        Command::Listeners => of_node(client.get("/api/v4/listeners")?, "listeners", LISTENER_COLUMNS),
        Command::Alarms => of_node(client.get("/api/v4/alarms")?, "alarms", ALARM_COLUMNS),
        Command::Trace(command) => return trace::trace(&client, command, args.json),
        Command::Events(events) => return trace::events(&client, events, args.json),
        Command::Log(Log::SetLevel { level }) => {
            let body = json!({"data": {"log.level": level}});
            (client.send("POST", "/api/v4/reload", Some(&body))?, "ok\n".to_owned())
        }
        Command::Shards => {
            let answer = client.get("/api/v4/shards")?;
            let text = table(rows(&answer), SHARD_COLUMNS);
            (answer, text)
        }
    };
    Ok(if args.json { format!("{answer}\n") } else { text })
}

/// What a table of clients shows: heading, and where it stands in a row.
const CLIENT_COLUMNS: &[(&str, &str)] = &[
    ("CLIENT", "/clientid"),
    ("USER", "/username"),
    ("CONNECTED", "/connected"),
    ("ADDRESS", "/ip_address"),
    ("PORT", "/port"),
    ("VERSION", "/proto_ver"),
    ("KEEP ALIVE", "/keepalive"),
    ("SUBSCRIPTIONS", "/subscriptions_cnt"),
    ("QUEUED", "/mqueue_len"),
    ("PACKETS IN", "/recv_pkt"),
    ("PACKETS OUT", "/send_pkt"),
];

const SHARD_COLUMNS: &[(&str, &str)] = &[
    ("SHARD", "/shard"),
    ("CLIENTS", "/gauges/connections"),
    ("SESSIONS", "/gauges/sessions"),
    ("TICKS", "/counters/ticks"),
    ("TICK P99 NS", "/tick_ns/p99"),
    ("TICK MAX NS", "/tick_ns/max"),
    ("DELIVERIES", "/delivery_us/count"),
    ("DELIVERY P99 US", "/delivery_us/p99"),
    ("WAKE-UP P99 NS", "/wake_up_ns/p99"),
    ("FILTER BYTES", "/memory/filters"),
    ("ROUTE BYTES", "/memory/routes"),
    ("RETAINED BYTES", "/memory/retained_messages"),
    ("MEMORY BYTES", "/memory/total"),
];

const SESSION_COLUMNS: &[(&str, &str)] = &[
    ("CLIENT", "/clientid"),
    ("CONNECTED", "/connected"),
    ("CLEAN", "/clean_start"),
    ("EXPIRY S", "/expiry_interval"),
    ("SUBSCRIPTIONS", "/subscriptions_cnt"),
    ("INFLIGHT", "/inflight"),
    ("QUEUED", "/mqueue_len"),
    ("DROPPED", "/mqueue_dropped"),
    ("AWAITING REL", "/awaiting_rel"),
    ("CREATED", "/created_at"),
];

const TOPIC_COLUMNS: &[(&str, &str)] = &[("TOPIC", "/topic"), ("NODE", "/node")];

const SUBSCRIPTION_COLUMNS: &[(&str, &str)] = &[
    ("CLIENT", "/clientid"),
    ("TOPIC", "/topic"),
    ("QOS", "/qos"),
    ("SHARE", "/share"),
    ("NO LOCAL", "/nl"),
    ("AS PUBLISHED", "/rap"),
    ("RETAIN HANDLING", "/rh"),
];

const BAN_COLUMNS: &[(&str, &str)] = &[
    ("AS", "/as"),
    ("WHO", "/who"),
    ("BY", "/by"),
    ("AT", "/at"),
    ("UNTIL", "/until"),
    ("REASON", "/reason"),
];

const RULING_COLUMNS: &[(&str, &str)] =
    &[("ACCESS", "/access"), ("TOPIC", "/topic"), ("RESULT", "/result"), ("AT MS", "/updated_time")];

const LISTENER_COLUMNS: &[(&str, &str)] = &[
    ("PROTOCOL", "/protocol"),
    ("LISTENS ON", "/listen_on"),
    ("ACCEPTORS", "/acceptors"),
    ("CONNECTIONS", "/current_conns"),
    ("AT MOST", "/max_conns"),
];

const ALARM_COLUMNS: &[(&str, &str)] = &[
    ("ALARM", "/name"),
    ("ACTIVE", "/activated"),
    ("SINCE", "/activate_at"),
    ("UNTIL", "/deactivate_at"),
    ("MESSAGE", "/message"),
];

fn rows(answer: &Value) -> &[Value] {
    answer["data"].as_array().map_or(&[], Vec::as_slice)
}

fn status(client: &Client) -> Result<(Value, String), String> {
    let answer = client.get("/health")?;
    let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let uptime_s = answer["uptime_s"].as_u64().unwrap_or(0);
    let text = format!("ringmq {} is running: {}, for {uptime_s} s\n", word("version"), word("status"));
    Ok((answer, text))
}

/// Names with their values, of the one node that there is.
fn values(answer: Value, name: &str) -> (Value, String) {
    let text = lines(&answer["data"][0][name]);
    (answer, text)
}

fn show(client: &Client, client_id: &str) -> Result<(Value, String), String> {
    let answer = client.get(&format!("/api/v4/clients/{}", encoded(client_id)))?;
    let row = rows(&answer).first().ok_or_else(|| format!("there is no client {client_id:?}"))?;
    let text = lines(row);
    Ok((answer, text))
}

/// All rows of a listing, as a table.
fn listed(client: &Client, path: &str, columns: &[(&str, &str)]) -> Result<(Value, String), String> {
    let rows = all(client, path)?;
    let text = table(&rows, columns);
    Ok((Value::Array(rows), text))
}

/// What the one node has that there is, as a table.
fn of_node(answer: Value, name: &str, columns: &[(&str, &str)]) -> (Value, String) {
    let text = table(answer["data"][0][name].as_array().map_or(&[], Vec::as_slice), columns);
    (answer, text)
}

fn subscriptions(client: &Client, command: &Subscriptions) -> Result<(Value, String), String> {
    let change = |path: &str, body: Value| {
        let answer = client.send("POST", path, Some(&body))?;
        match answer["code"].as_u64() {
            Some(0) => Ok((answer, "ok\n".to_owned())),
            code => Err(format!("the broker refused it with code {}", code.unwrap_or_default())),
        }
    };
    match command {
        Subscriptions::List => listed(client, "/api/v4/subscriptions", SUBSCRIPTION_COLUMNS),
        Subscriptions::Show { client_id } => {
            let path = format!("/api/v4/subscriptions/{}", encoded(client_id));
            listed(client, &path, SUBSCRIPTION_COLUMNS)
        }
        Subscriptions::Add { client_id, topic, qos } => {
            let body = json!({"clientid": client_id, "topic": topic, "qos": qos});
            change("/api/v4/mqtt/subscribe", body)
        }
        Subscriptions::Del { client_id, topic } => {
            change("/api/v4/mqtt/unsubscribe", json!({"clientid": client_id, "topic": topic}))
        }
    }
}

fn banned(client: &Client, command: &Banned) -> Result<(Value, String), String> {
    match command {
        Banned::List => listed(client, "/api/v4/banned", BAN_COLUMNS),
        Banned::Add { kind, who, seconds, reason } => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let seconds = seconds.unwrap_or(BAN_S_DEFAULT);
            let until = now.saturating_add(seconds).min(i64::MAX as u64);
            let mut body = json!({"as": kind, "who": who, "by": "ctl", "until": until});
            if let Some(reason) = reason {
                body["reason"] = reason.as_str().into();
            }
            Ok((client.send("POST", "/api/v4/banned", Some(&body))?, "ok\n".to_owned()))
        }
        Banned::Del { kind, who } => {
            let path = format!("/api/v4/banned/{}/{}", encoded(kind), encoded(who));
            Ok((client.send("DELETE", &path, None)?, "ok\n".to_owned()))
        }
    }
}

fn acl(client: &Client, command: &Acl) -> Result<(Value, String), String> {
    let of = |client_id: &str| format!("/api/v4/clients/{}/acl_cache", encoded(client_id));
    let path = match command {
        Acl::Cache { client_id } => {
            let answer = client.get(&of(client_id))?;
            let text = table(rows(&answer), RULING_COLUMNS);
            return Ok((answer, text));
        }
        Acl::CacheClean { client_id } => match client_id.as_deref() {
            None | Some("all") => "/api/v4/acl-cache".to_owned(),
            Some(client_id) => of(client_id),
        },
    };
    Ok((client.send("DELETE", &path, None)?, "ok\n".to_owned()))
}

/// The rows of all pages.
fn all(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for page in 1.. {
        let answer = client.get(&format!("{path}?_page={page}&_limit={PAGE_ROWS}"))?;
        found.extend_from_slice(rows(&answer));
        if answer["meta"]["hasnext"] != true {
            break;
        }
    }
    Ok(found)
}

/// A text as one part of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Memory;

    #[test]
    fn columns_of_memory_name_rows_of_its_ledger() {
        for (_, at) in SHARD_COLUMNS {
            let Some(row) = at.strip_prefix("/memory/") else { continue };
            assert!(row == "total" || Memory::TABLE.iter().any(|(name, ..)| *name == row), "{at}");
        }
    }

    #[test]
    fn a_client_identifier_is_one_part_of_a_path() {
        assert_eq!(encoded("a/b c%é"), "a%2Fb%20c%25%C3%A9");
    }
}
