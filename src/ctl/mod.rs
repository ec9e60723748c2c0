//! `ringmq ctl`: a running broker from the command line, through its HTTP API. Tables for people, `--json` for
//! programs.

mod client;
mod view;

use clap::{Args, Subcommand};
use client::Client;
use serde_json::{Value, json};
use std::process::ExitCode;
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
enum Log {
    /// Changes the level at once, until the next restart.
    SetLevel {
        /// error, warn, info, debug or trace.
        level: String,
    },
}

/// Clients of one page when they are listed.
const PAGE_ROWS: usize = 1_000;

/// Runs one command; what went wrong is one line on standard error, and 1.
pub fn ctl(args: &CtlArgs) -> ExitCode {
    match run(args) {
        Ok(text) => {
            print!("{text}");
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
        Command::Clients(Clients::List) => {
            let rows = all(&client, "/api/v4/clients")?;
            let text = table(&rows, CLIENT_COLUMNS);
            (Value::Array(rows), text)
        }
        Command::Clients(Clients::Show { client_id }) => show(&client, client_id)?,
        Command::Clients(Clients::Kick { client_id }) => {
            let path = format!("/api/v4/clients/{}", encoded(client_id));
            (client.send("DELETE", &path, None)?, "ok\n".to_owned())
        }
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
    ("ROUTES BYTES", "/memory/routes"),
    ("RETAINED BYTES", "/memory/retained"),
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

    #[test]
    fn a_client_identifier_is_one_part_of_a_path() {
        assert_eq!(encoded("a/b c%é"), "a%2Fb%20c%25%C3%A9");
    }
}
