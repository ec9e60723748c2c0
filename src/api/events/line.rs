//! An event in words: as JSON for a stream, as a line for a file.

use super::Missed;
use crate::api::Context;
use crate::api::times::date_time_ms;
use crate::codec::{ReasonCode, Version};
use crate::desk::{Happening, What};
use serde_json::{Value, json};

/// A protocol's name as CONNECT has it.
pub fn protocol(version: Version) -> &'static str {
    if version == Version::V31 { "MQIsdp" } else { "MQTT" }
}

/// Why a connection ended, in the words that EMQX's users know. `None`: nobody said anything.
pub fn reason_word(reason: Option<ReasonCode>) -> String {
    match reason {
        None => "closed".to_owned(),
        Some(ReasonCode::SUCCESS) => "normal".to_owned(),
        Some(ReasonCode::KEEP_ALIVE_TIMEOUT) => "keepalive_timeout".to_owned(),
        Some(ReasonCode::SESSION_TAKEN_OVER) => "takeover".to_owned(),
        Some(ReasonCode::ADMINISTRATIVE_ACTION) => "kicked".to_owned(),
        Some(code) => code.to_string().to_lowercase().replace([' ', '-'], "_"),
    }
}

/// An event as JSON, `event` and `ts` (milliseconds since 1970) in each.
pub fn event(cx: &Context, happening: &Happening) -> Value {
    let mut row = json!({
        "event": happening.what.kind().name(),
        "ts": cx.desk.time_of_day_ms(happening.at),
        "node": cx.facts.node.name,
        "shard": happening.shard,
        "clientid": happening.client_id,
        "ip_address": happening.peer.map(|peer| peer.ip().to_string()),
        "port": happening.peer.map(|peer| peer.port()),
    });
    let more = match &happening.what {
        What::Connected { username, version, keep_alive_s, clean_start, session_present, bridge } => json!({
            "username": username,
            "proto_name": protocol(*version),
            "proto_ver": version.level(),
            "keepalive": keep_alive_s,
            "clean_start": clean_start,
            "session_present": session_present,
            "is_bridge": bridge,
        }),
        What::Disconnected { username, reason } => json!({
            "username": username,
            "reason": reason_word(*reason),
            "reason_code": reason.map(|code| code.0),
        }),
        What::Refused { code, text } => {
            json!({"reason": reason_word(Some(*code)), "reason_code": code.0, "message": text})
        }
        What::Subscribed { filter, qos } => json!({"topic": filter, "qos": *qos as u8}),
        What::Unsubscribed { filter } => json!({"topic": filter}),
        What::SessionCreated | What::SessionEnded => Value::Null,
        What::Packet { sent, name, topic, text } => {
            json!({"direction": direction(*sent), "packet": name, "topic": topic, "text": text})
        }
    };
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    row
}

/// What is missing, as JSON.
pub fn missed(missed: Missed) -> Value {
    json!({"event": "dropped", "by_shards": missed.by_shards, "by_stream": missed.by_listener})
}

fn direction(sent: bool) -> &'static str {
    if sent { "to" } else { "from" }
}

/// A line for a file, with its end.
pub fn line(cx: &Context, happening: &Happening) -> String {
    let at = date_time_ms(cx.desk.time_of_day_ms(happening.at));
    let client_id = happening.client_id.escape_debug();
    let peer = happening.peer.map_or_else(String::new, |peer| format!(" ({peer})"));
    match &happening.what {
        What::Packet { sent, name, text, .. } => {
            format!("{at} {} {client_id}{peer} {name} {text}\n", direction(*sent))
        }
        _ => format!("{at} {client_id}{peer} {}\n", happening.what.kind().name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words() {
        assert_eq!(reason_word(None), "closed");
        assert_eq!(reason_word(Some(ReasonCode::SUCCESS)), "normal");
        assert_eq!(reason_word(Some(ReasonCode::SERVER_SHUTTING_DOWN)), "server_shutting_down");
        assert_eq!(reason_word(Some(ReasonCode::NOT_AUTHORIZED)), "not_authorized");
    }
}
