//! Clients, connected or not: listed, looked up, kicked.

use super::{DONE, HERE, LIMIT, META, OK, PAGE, data, done, listed, page, unknown_client};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Field, Shape, may, must};
use crate::api::times::date_time;
use crate::desk::{Ask, ClientQuery, ClientRow, Listing};
use crate::time::Moment;
use axum::extract::State;
use axum::routing::{delete, get};
use serde_json::{Value, json};
use std::net::IpAddr;

const TIME: Shape = Shape::Integer(0, 1 << 40);
const STATES: &[&str] = &["connected", "idle", "disconnected"];
const PROTOCOLS: &[&str] = &["MQTT", "CoAP", "LwM2M", "MQTT-SN"];
/// The one group of settings that all clients have.
const ZONE: &str = "external";

const FILTERS: &[Field] = &[
    PAGE,
    LIMIT,
    may("clientid", Shape::Text, "Client identifier."),
    may("username", Shape::Text, "User name."),
    may("zone", Shape::Text, "Group of settings: `external` for all."),
    may("ip_address", Shape::Text, "The client's address."),
    may(
        "conn_state",
        Shape::OneOf(STATES),
        "Whether it is connected; a client with a session is never `idle`.",
    ),
    may("connected", Shape::Flag, "Whether it is connected."),
    may("clean_start", Shape::Flag, "Whether it asked for a new session."),
    may("session_present", Shape::Flag, "Whether its last CONNECT found a session."),
    may("proto_name", Shape::OneOf(PROTOCOLS), "Protocol."),
    may("proto_ver", Shape::Integer(0, 255), "Protocol level: 3, 4 or 5."),
    may("_like_clientid", Shape::Text, "A part of the client identifier."),
    may("_like_username", Shape::Text, "A part of the user name."),
    may("_gte_created_at", TIME, "The session was made at this time or later, in seconds since 1970."),
    may("_lte_created_at", TIME, "The session was made at this time or before, in seconds since 1970."),
    may("_gte_connected_at", TIME, "It connected at this time or later, in seconds since 1970."),
    may("_lte_connected_at", TIME, "It connected at this time or before, in seconds since 1970."),
    may("_gte_mqueue_len", COUNT, "So many messages wait for it, or more."),
    may("_lte_mqueue_len", COUNT, "So many messages wait for it, or fewer."),
];

const TEXT_OR_NULL: Shape = Shape::Maybe(&Shape::Text);

/// What `disconnected_at` is.
pub const ENDED: &str = "When its connection ended, UTC, or when the broker started if that was later; null while it \
                         is connected.";

/// One client.
const CLIENT: Shape = Shape::Object(&[
    must("node", Shape::Text, "`node.name`."),
    must("clientid", Shape::Text, "Client identifier."),
    must("client_id", Shape::Text, "The same."),
    must("username", Shape::Text, "User name; empty without one."),
    must("proto_name", Shape::OneOf(PROTOCOLS), "Protocol."),
    must("proto_ver", Shape::Integer(3, 5), "Protocol level."),
    must("ip_address", TEXT_OR_NULL, "Address of the client; null where it is not known."),
    must("port", Shape::Maybe(&COUNT), "Port of the client; null where it is not known."),
    must("is_bridge", Shape::Flag, "CONNECT said that it is a bridge."),
    must("connected", Shape::Flag, "Whether it is connected."),
    must("conn_state", Shape::OneOf(STATES), "The same."),
    must("connected_at", Shape::Text, "When it connected, UTC."),
    must("disconnected_at", TEXT_OR_NULL, ENDED),
    must("disconnected_reason", TEXT_OR_NULL, "What was said then; null while it is connected."),
    must("created_at", Shape::Text, "When its session was made, UTC."),
    must("zone", Shape::Text, "Group of settings."),
    must("mountpoint", Shape::Text, "`undefined`: topics are as they are."),
    must("keepalive", COUNT, "Keep alive in seconds."),
    must("clean_start", Shape::Flag, "Whether it asked for a new session."),
    must("session_present", Shape::Flag, "Whether CONNECT found a session."),
    must("expiry_interval", COUNT, "Session expiry interval in seconds."),
    must("subscriptions_cnt", COUNT, "Subscriptions."),
    must("max_subscriptions", COUNT, "Subscriptions at most."),
    must("inflight", COUNT, "Messages sent to it and not acknowledged."),
    must("max_inflight", COUNT, "Of those at most."),
    must("mqueue_len", COUNT, "Messages that wait for it."),
    must("max_mqueue", COUNT, "Of those at most."),
    must("mqueue_dropped", COUNT, "Messages dropped because the queue was full."),
    must("awaiting_rel", COUNT, "QoS 2 messages from it that wait for PUBREL."),
    must("max_awaiting_rel", COUNT, "Of those at most."),
    must("recv_oct", COUNT, "Bytes received from it."),
    must("recv_cnt", COUNT, "Receives of the driver."),
    must("recv_pkt", COUNT, "MQTT packets received."),
    must("recv_msg", COUNT, "PUBLISH packets received."),
    must("send_oct", COUNT, "Bytes sent to it."),
    must("send_cnt", COUNT, "Sends of the driver."),
    must("send_pkt", COUNT, "MQTT packets sent."),
    must("send_msg", COUNT, "PUBLISH packets sent."),
    must("mailbox_len", COUNT, "Bytes received and not decoded yet."),
    must("heap_size", COUNT, "Bytes of memory that it holds, without queued messages."),
    must("reductions", COUNT, "Packets handled for it, both ways."),
]);

const CLIENTS: Reply =
    Reply::Json(Shape::Object(&[OK, META, must("data", Shape::List(&CLIENT), "Clients.")]));
const FOUND: Reply = Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&CLIENT), "The client.")]));

/// Clients.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/clients",
        name: "list_clients",
        about: "Clients with a session, connected or not.",
        query: FILTERS,
        answer: CLIENTS,
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        path: "/clients/{clientid}",
        name: "lookup_client",
        about: "One client.",
        answer: FOUND,
        causes: &[Cause::UnknownClient],
        serve: || get(one),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/clients/{clientid}",
        name: "kickout_client",
        about: "Closes a client's connection, publishes its will, and ends its session.",
        answer: Reply::Json(DONE),
        causes: &[Cause::UnknownClient],
        serve: || delete(kick),
        ..HERE
    },
    Endpoint {
        path: "/clients/username/{username}",
        name: "lookup_client_via_username",
        about: "The clients of a user name.",
        query: &[PAGE, LIMIT],
        answer: CLIENTS,
        serve: || get(by_username),
        ..HERE
    },
    Endpoint {
        path: "/clients/offlines",
        name: "list_offline_clients",
        about: "Sessions whose client is not connected.",
        query: FILTERS,
        answer: CLIENTS,
        serve: || get(offline),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/clients/offlines",
        name: "kickout_offline_clients",
        about: "Ends sessions whose client is not connected: all, or those that the query describes.",
        query: FILTERS,
        answer: Reply::Json(Shape::Object(&[OK, must("count", COUNT, "Sessions that were ended.")])),
        serve: || delete(end_offline),
        ..HERE
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let query = client_query(&cx, &args)?;
    answer(&cx, &query, &args).await
}

async fn offline(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let query = offline_query(&cx, &args)?;
    answer(&cx, &query, &args).await
}

async fn by_username(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let query = ClientQuery { username: args.text("username").map(Box::from), ..ClientQuery::default() };
    answer(&cx, &query, &args).await
}

async fn answer(cx: &Context, query: &ClientQuery, args: &Args) -> Result<Answer, Fault> {
    let (number, limit) = page(args);
    let paged = cx.desk.page(Listing::Clients, query, number, limit).await?;
    Ok(listed(&paged, |client| row(cx, client)))
}

async fn one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = client_id.into();
    let found = cx.desk.ask_home(client_id, |reply| Ask::Client { client_id: asked, reply }).await?;
    let client = found.ok_or_else(|| unknown_client(client_id))?;
    Ok(data(vec![row(&cx, &client)]))
}

async fn kick(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    if cx.desk.kick(client_id).await? { Ok(done()) } else { Err(unknown_client(client_id)) }
}

async fn end_offline(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let query = offline_query(&cx, &args)?;
    let count = end_sessions(&cx, &query).await?;
    Ok(Answer(json!({"code": 0, "count": count})))
}

/// Ends the sessions that a query finds and that are not connected when their turn comes; how many.
pub async fn end_sessions(cx: &Context, query: &ClientQuery) -> Result<u64, Fault> {
    let (mut position, mut count) = (Some(Default::default()), 0);
    while let Some(at) = position {
        let listed = cx.desk.list(Listing::Clients, query, at, 0, 1_000).await?;
        for client in &listed.rows {
            let asked = client.client_id.clone();
            let ended = cx
                .desk
                .ask(usize::from(client.shard), |reply| Ask::EndOffline { client_id: asked, reply })
                .await?;
            count += u64::from(ended);
        }
        position = listed.next;
    }
    Ok(count)
}

/// The same, of those who are not connected.
pub fn offline_query(cx: &Context, args: &Args) -> Result<ClientQuery, Fault> {
    let query = client_query(cx, args)?;
    let nobody = query.nobody || query.connected == Some(true);
    Ok(ClientQuery { connected: Some(false), nobody, ..query })
}

/// What the parameters of a query ask for.
pub fn client_query(cx: &Context, args: &Args) -> Result<ClientQuery, Fault> {
    let text = |name: &str| args.text(name).map(Box::from);
    let ip = match args.text("ip_address") {
        None => None,
        Some(ip) => Some(ip.parse::<IpAddr>().map_err(|_| {
            Fault::new(Cause::BadValue, format!("ip_address: expected an IP address, got {ip:?}"))
        })?),
    };
    let state = match args.text("conn_state") {
        Some("connected") => Some(true),
        Some("disconnected") => Some(false),
        _ => None,
    };
    let connected = args.flag("connected");
    let nobody = args.text("conn_state") == Some("idle")
        || args.text("proto_name").is_some_and(|name| name != "MQTT")
        || args.text("zone").is_some_and(|zone| zone != ZONE)
        || args.number("proto_ver").is_some_and(|level| !(3..=5).contains(&level))
        || (state.is_some() && connected.is_some() && state != connected);
    let range = |name: &str| {
        cx.desk.range(args.number(&format!("_gte_{name}")), args.number(&format!("_lte_{name}")))
    };
    Ok(ClientQuery {
        client_id: text("clientid"),
        username: text("username"),
        client_id_part: text("_like_clientid"),
        username_part: text("_like_username"),
        ip: ip.map(|ip| ip.to_canonical()),
        connected: state.or(connected),
        clean_start: args.flag("clean_start"),
        session_present: args.flag("session_present"),
        proto_ver: args.number("proto_ver").map(|level| level as u8),
        created: range("created_at"),
        connected_at: range("connected_at"),
        mqueue_len: crate::desk::Range {
            min: args.number("_gte_mqueue_len").unwrap_or(0),
            max: args.number("_lte_mqueue_len").unwrap_or(u64::MAX),
        },
        nobody,
    })
}

fn row(cx: &Context, client: &ClientRow) -> Value {
    let time = |moment| date_time(cx.desk.time_of_day(moment));
    let state = if client.connected { "connected" } else { "disconnected" };
    let reason = ended(client).map(|_| reason(client));
    let t = &client.traffic;
    let mut row = json!({
        "node": cx.facts.node.name,
        "clientid": client.client_id,
        "client_id": client.client_id,
        "username": client.username.as_deref().unwrap_or_default(),
        "proto_name": "MQTT",
        "proto_ver": client.version.level(),
        "ip_address": client.peer.map(|peer| peer.ip().to_string()),
        "port": client.peer.map(|peer| peer.port()),
        "is_bridge": client.bridge,
        "connected": client.connected,
        "conn_state": state,
        "connected_at": time(client.connected_at),
        "disconnected_at": ended(client).map(time),
        "disconnected_reason": reason,
        "created_at": time(client.created_at),
        "zone": ZONE,
        "mountpoint": "undefined",
        "keepalive": client.keep_alive_s,
        "clean_start": client.clean_start,
        "session_present": client.session_present,
        "expiry_interval": client.expiry_s,
    });
    let counts = [
        ("subscriptions_cnt", client.subscriptions as u64),
        ("max_subscriptions", client.max_subscriptions.into()),
        ("inflight", client.inflight as u64),
        ("max_inflight", client.max_inflight.into()),
        ("mqueue_len", client.mqueue_len as u64),
        ("max_mqueue", client.max_mqueue.into()),
        ("mqueue_dropped", client.mqueue_dropped),
        ("awaiting_rel", client.awaiting_rel as u64),
        ("max_awaiting_rel", client.max_awaiting_rel.into()),
        ("recv_oct", t.recv_oct),
        ("recv_cnt", t.recv_cnt),
        ("recv_pkt", t.recv_pkt),
        ("recv_msg", t.recv_msg),
        ("send_oct", t.send_oct),
        ("send_cnt", t.send_cnt),
        ("send_pkt", t.send_pkt),
        ("send_msg", t.send_msg),
        ("mailbox_len", client.pending_bytes as u64),
        ("heap_size", client.memory_bytes as u64),
        ("reductions", t.recv_pkt + t.send_pkt),
    ];
    if let Some(row) = row.as_object_mut() {
        row.extend(counts.map(|(name, n)| (name.to_owned(), n.into())));
    }
    row
}

/// When the connection of a client ended that has none. One of an earlier run had ended when this run took its session.
pub fn ended(client: &ClientRow) -> Option<Moment> {
    client.disconnected_at.or((!client.connected).then_some(client.connected_at))
}

/// Why a client is not connected.
pub fn reason(client: &ClientRow) -> String {
    use crate::codec::ReasonCode;
    match client.disconnect_reason {
        None if client.disconnected_at.is_none() => "The broker was restarted".to_owned(),
        None => "The connection ended without DISCONNECT".to_owned(),
        Some(ReasonCode::SUCCESS) => "Normal disconnection".to_owned(),
        Some(code) => code.to_string(),
    }
}
