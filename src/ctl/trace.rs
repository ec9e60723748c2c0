//! Packets of a client or a topic, and events: shown as they come, or written to a file by the broker.

use super::client::Client;
use super::view::{cell, table};
use super::{encoded, rows};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::io::Write;

/// What to do about traces.
#[derive(Subcommand, Debug)]
pub(super) enum Trace {
    /// Traces into files.
    List,
    /// Starts one. Without a file it shows the packets until it is interrupted.
    Start {
        /// Of what.
        of: Of,
        /// Client identifier, or topic filter.
        value: String,
        /// The name of a file in the broker's data folder, below `trace`, that the broker writes until `stop`.
        file: Option<String>,
    },
    /// Stops one that writes a file; the file stays.
    Stop {
        /// Of what.
        of: Of,
        /// Client identifier, or topic filter.
        value: String,
    },
}

/// What is traced.
#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum Of {
    /// The packets of a client.
    Client,
    /// PUBLISH packets on topics that a filter matches.
    Topic,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Of::Client => "client",
            Of::Topic => "topic",
        }
    }
}

/// Which events.
#[derive(Args, Debug)]
pub(super) struct Events {
    /// Kinds, with commas between them: connected, disconnected, refused, subscribed, unsubscribed, session_created,
    /// session_ended [default: all of these].
    #[arg(long, value_name = "KINDS")]
    types: Option<String>,
    /// Only of this client.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Ends after so many.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

const COLUMNS: &[(&str, &str)] = &[
    ("TYPE", "/type"),
    ("VALUE", "/value"),
    ("FILE", "/path"),
    ("STATUS", "/status"),
    ("LINES", "/lines"),
    ("BYTES", "/bytes"),
    ("DROPPED", "/dropped"),
    ("STARTED", "/started_at"),
];

/// Runs a command about traces; what is to be printed at its end.
pub(super) fn trace(client: &Client, command: &Trace, json: bool) -> Result<String, String> {
    let answer = match command {
        Trace::List => client.get("/api/v4/traces")?,
        Trace::Start { of, value, file: None } => {
            let parameter = match of {
                Of::Client => "clientid",
                Of::Topic => "topic",
            };
            let path = format!("/api/v4/events?types=packet&{parameter}={}", encoded(value));
            return follow(client, &path, json);
        }
        Trace::Start { of, value, file: Some(file) } => {
            let body = json!({"type": of.name(), "value": value, "file": file});
            let answer = client.send("POST", "/api/v4/traces", Some(&body))?;
            let text = format!("writing {}\n", cell(&answer["data"]["path"]));
            return Ok(if json { format!("{answer}\n") } else { text });
        }
        Trace::Stop { of, value } => {
            let all = client.get("/api/v4/traces")?;
            let is_it = |row: &&Value| row["type"] == of.name() && row["value"] == **value;
            let found: Vec<&str> =
                rows(&all).iter().filter(is_it).filter_map(|row| row["file"].as_str()).collect();
            if found.is_empty() {
                return Err(format!("there is no trace of {} {value:?}", of.name()));
            }
            let mut answer = Value::Null;
            for file in found {
                answer = client.send("DELETE", &format!("/api/v4/traces/{}", encoded(file)), None)?;
            }
            return Ok(if json { format!("{answer}\n") } else { "ok\n".to_owned() });
        }
    };
    Ok(if json { format!("{answer}\n") } else { table(rows(&answer), COLUMNS) })
}

/// Shows events.
pub(super) fn events(client: &Client, events: &Events, json: bool) -> Result<String, String> {
    let parts = [
        ("types", events.types.clone()),
        ("clientid", events.client.clone()),
        ("count", events.count.map(|count| count.to_string())),
    ];
    let query =
        parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?))));
    let query: Vec<String> = query.collect();
    follow(client, &format!("/api/v4/events?{}", query.join("&")), json)
}

/// Prints each event as it comes, for as long as somebody reads.
fn follow(client: &Client, path: &str, json: bool) -> Result<String, String> {
    let mut out = std::io::stdout();
    client.follow(path, |event| {
        let line = if json { event.to_string() } else { words(&event) };
        writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
    })?;
    Ok(String::new())
}

/// An event for people: whose, what, and what else it says.
fn words(event: &Value) -> String {
    let seconds = event["ts"].as_u64().map_or_else(String::new, |ms| {
        let of_day = ms / 1_000 % 86_400;
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        format!("{hour:02}:{minute:02}:{second:02}.{:03} ", ms % 1_000)
    });
    let client = cell(&event["clientid"]);
    if event["event"] == "packet" {
        let (direction, name, text) =
            (cell(&event["direction"]), cell(&event["packet"]), cell(&event["text"]));
        return format!("{seconds}{direction} {client} {name} {text}").trim_end().to_owned();
    }
    const KNOWN: &[&str] = &["event", "ts", "node", "shard", "clientid"];
    let rest = event.as_object().into_iter().flatten();
    let rest = rest.filter(|(name, value)| !KNOWN.contains(&&***name) && !value.is_null());
    let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={}", cell(value))).collect();
    format!("{seconds}{client} {} {}", cell(&event["event"]), rest.join(" ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let packet = json!({"event": "packet", "ts": 1_007, "clientid": "c\u{1b}", "direction": "from",
                            "packet": "PINGREQ", "text": ""});
        assert_eq!(words(&packet), "00:00:01.007 from c\\u{1b} PINGREQ");
        let gone = json!({"event": "disconnected", "ts": 86_400_000, "clientid": "c", "node": "n", "shard": 0,
                          "reason": "normal", "username": null});
        assert_eq!(words(&gone), "00:00:00.000 c disconnected reason=normal");
    }
}
