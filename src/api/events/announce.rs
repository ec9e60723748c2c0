//! Clients that come and go, as messages below `$SYS/brokers/NODE/clients/`, where `sys.client_events` says so.

use super::line::{protocol, reason_word};
use super::{News, Wanted};
use crate::api::Context;
use crate::desk::{Ask, Happening, Kind, What};
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::topic::Topic;
use serde_json::{Value, json};

/// Publishes them until the broker stops.
pub async fn announce(cx: Context) {
    let kinds = [Kind::Connected, Kind::Disconnected].into_iter().collect();
    let listening = match cx.hub.listen(Wanted { kinds, ..Wanted::default() }).await {
        Ok(listening) => listening,
        Err(fault) => return tracing::error!("sys.client_events: {}", fault.message),
    };
    loop {
        match listening.next().await {
            News::Happened(happening) => {
                let Some((topic, payload)) = message(&cx, &happening) else { continue };
                let head = Head::new(QoS::AtMostOnce, false, 0, Source::System);
                let payload = payload.to_string();
                let view = MessageRef { topic: &topic, properties: &[], payload: payload.as_bytes(), head };
                let message = Message::new(&view);
                // The shard that it happened on, so that the messages of one client stay in order.
                let shard = usize::from(happening.shard);
                if cx.desk.ask(shard, |reply| Ask::Publish { message, reply }).await.is_err() {
                    return;
                }
            }
            News::Missed(missed) => {
                let count = missed.by_shards + missed.by_listener;
                tracing::warn!(count, "clients came and went faster than it could be published below $SYS");
            }
        }
    }
}

/// Topic and payload, as EMQX has them. A client whose identifier is no part of a topic name has none.
fn message(cx: &Context, happening: &Happening) -> Option<(String, Value)> {
    let client_id = &happening.client_id;
    let ts = cx.desk.time_of_day_ms(happening.at) / 1_000;
    let (word, payload) = match &happening.what {
        What::Connected { username, version, keep_alive_s, clean_start, .. } => (
            "connected",
            json!({
                "clientid": client_id,
                "username": username.as_deref().unwrap_or_default(),
                "ipaddress": happening.peer.map(|peer| peer.ip().to_string()),
                "connack": 0,
                "ts": ts,
                "proto_ver": version.level(),
                "proto_name": protocol(*version),
                "clean_start": clean_start,
                "keepalive": keep_alive_s,
            }),
        ),
        What::Disconnected { username, reason } => (
            "disconnected",
            json!({
                "clientid": client_id,
                "username": username.as_deref().unwrap_or_default(),
                "reason": reason_word(*reason),
                "ts": ts,
            }),
        ),
        _ => return None,
    };
    let topic = format!("$SYS/brokers/{}/clients/{client_id}/{word}", cx.facts.node.name);
    Topic::new(&topic, 0).is_ok().then_some((topic, payload))
}
