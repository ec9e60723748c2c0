//! Clients, connected or not: listed, looked up, kicked.

use super::{LIMIT, at, limit};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Field, QOS, Shape, may, must};
use crate::api::times::date_time;
use crate::api::v4::clients::{ENDED, client_query, end_sessions, ended, offline_query, reason};
use crate::desk::{Ask, ClientQuery, ClientRow, Listing};
use axum::extract::State;
use axum::routing::{delete, get};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const SECONDS: Shape = Shape::Integer(0, 1 << 40);
const TEXT_OR_NULL: Shape = Shape::Maybe(&Shape::Text);

const CLIENT: Shape = Shape::Object(&[
    must("node_id", COUNT, "The node that it is connected to."),
    must("clientid", Shape::Text, "Client identifier."),
    must("username", Shape::Text, "User name; `undefined` without one."),
    must("proto_ver", Shape::Integer(3, 5), "Protocol level."),
    must("ip_address", TEXT_OR_NULL, "Its address; null where it is not known."),
    must("port", Shape::Maybe(&COUNT), "Its port; null where it is not known."),
    must("connected_at", Shape::Text, "When it connected, UTC."),
    must("disconnected_at", TEXT_OR_NULL, ENDED),
    must("disconnected_reason", TEXT_OR_NULL, "Why; null while it is connected."),
    must("connected", Shape::Flag, "Whether it is connected."),
    must("keepalive", COUNT, "Keep alive in seconds."),
    must("clean_start", Shape::Flag, "Whether it asked for a new session."),
    must("session_present", Shape::Flag, "Whether CONNECT found a session."),
    must("expiry_interval", COUNT, "Session expiry interval in seconds."),
    must("created_at", Shape::Text, "When its session was made, UTC."),
    must("subscriptions_cnt", COUNT, "Subscriptions."),
    must("max_subscriptions", COUNT, "Subscriptions at most."),
    must("inflight", COUNT, "Messages sent to it and not acknowledged."),
    must("max_inflight", COUNT, "Of those at most."),
    must("mqueue_len", COUNT, "Messages that wait for it."),
    must("max_mqueue", COUNT, "Of those at most."),
    must("extra_attrs", COUNT, "0: there are none."),
    must(
        "last_will",
        Shape::Maybe(&Shape::Object(&[
            must("message", Shape::Text, "Payload in base64."),
            must("qos", QOS, "QoS."),
            must("retain", Shape::Flag, "RETAIN."),
            must("topic", Shape::Text, "Topic."),
        ])),
        "The will; null without one.",
    ),
]);

const FILTERS: &[Field] = &[
    LIMIT,
    may("clientid", Shape::Text, "Client identifier."),
    may("username", Shape::Text, "User name."),
    may("ip_address", Shape::Text, "Its address."),
    may("connected", Shape::Flag, "Whether it is connected."),
    may("clean_start", Shape::Flag, "Whether it asked for a new session."),
    may("session_present", Shape::Flag, "Whether CONNECT found a session."),
    may("proto_ver", Shape::Integer(0, 255), "Protocol level: 3, 4 or 5."),
    may("_like_clientid", Shape::Text, "A part of the client identifier."),
    may("_like_username", Shape::Text, "A part of the user name."),
    may("_gte_created_at", SECONDS, "The session was made then or later, in seconds since 1970."),
    may("_lte_created_at", SECONDS, "The session was made then or before, in seconds since 1970."),
    may("_gte_connected_at", SECONDS, "It connected then or later, in seconds since 1970."),
    may("_lte_connected_at", SECONDS, "It connected then or before, in seconds since 1970."),
    may("_gte_mqueue_len", COUNT, "So many messages wait for it, or more."),
    may("_lte_mqueue_len", COUNT, "So many messages wait for it, or fewer."),
];

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        query: FILTERS,
        answer: Reply::Json(Shape::List(&CLIENT)),
        serve: || get(list),
        ..at("/clients", "search_clients", "Clients with a session, connected or not.")
    },
    Endpoint {
        answer: Reply::Json(CLIENT),
        causes: &[Cause::UnknownClient],
        serve: || get(one),
        ..at("/clients/{clientid}", "get_client", "One client.")
    },
    Endpoint {
        method: "DELETE",
        answer: Reply::Json(Shape::Text),
        causes: &[Cause::UnknownClient],
        serve: || delete(kick),
        ..at(
            "/clients/{clientid}",
            "kick_client",
            "Closes a client's connection, publishes its will, and ends its session; answers what the connection was.",
        )
    },
    Endpoint {
        answer: Reply::Json(Shape::Flag),
        serve: || get(online),
        ..at("/clients/{clientid}/online", "check_online", "Whether a client is connected.")
    },
    Endpoint {
        query: FILTERS,
        answer: Reply::Json(Shape::List(&CLIENT)),
        serve: || get(offline),
        ..at("/clients/offlines", "search_offlines", "Sessions whose client is not connected.")
    },
    Endpoint {
        method: "DELETE",
        query: FILTERS,
        answer: Reply::Json(Shape::Object(&[must("count", COUNT, "Sessions that were ended.")])),
        serve: || delete(end_offline),
        ..at(
            "/clients/offlines",
            "kick_offlines",
            "Ends sessions whose client is not connected: all, or those that the query describes.",
        )
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    answer(&cx, &client_query(&cx, &args)?, &args).await
}

async fn offline(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    answer(&cx, &offline_query(&cx, &args)?, &args).await
}

async fn answer(cx: &Context, query: &ClientQuery, args: &Args) -> Result<Answer, Fault> {
    let listed = cx.desk.list(Listing::Clients, query, Default::default(), 0, limit(args)).await?;
    Ok(Answer(listed.rows.iter().map(|client| row(cx, client)).collect()))
}

async fn end_offline(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let count = end_sessions(&cx, &offline_query(&cx, &args)?).await?;
    Ok(Answer(json!({"count": count})))
}

async fn find(cx: &Context, args: &Args) -> Result<Option<Box<ClientRow>>, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = client_id.into();
    Ok(cx.desk.ask_home(client_id, |reply| Ask::Client { client_id: asked, reply }).await?)
}

fn unknown(args: &Args) -> Fault {
    let client_id = args.text("clientid").unwrap_or_default();
    Fault::new(Cause::UnknownClient, format!("expected a client that is there, got {client_id:?}"))
}

async fn one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client = find(&cx, &args).await?.ok_or_else(|| unknown(&args))?;
    Ok(Answer(row(&cx, &client)))
}

async fn kick(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client = find(&cx, &args).await?.ok_or_else(|| unknown(&args))?;
    if !cx.desk.kick(&client.client_id).await? {
        return Err(unknown(&args));
    }
    Ok(Answer(connection(&cx, &client).into()))
}

async fn online(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client = find(&cx, &args).await?;
    Ok(Answer(client.is_some_and(|client| client.connected).into()))
}

/// `NODE@ADDRESS/PEER/CLIENT/USER`.
fn connection(cx: &Context, client: &ClientRow) -> String {
    let local = cx.facts.mqtt.first().map_or_else(String::new, |served| served.place());
    let peer = client.peer.map_or_else(String::new, |peer| peer.to_string());
    format!("{}@{local}/{peer}/{}/{}", cx.facts.node.id, client.client_id, user(client))
}

fn user(client: &ClientRow) -> &str {
    client.username.as_deref().unwrap_or("undefined")
}

fn row(cx: &Context, client: &ClientRow) -> Value {
    let time = |moment| date_time(cx.desk.time_of_day(moment));
    let will = client.will.as_ref().map(|will| {
        let message = will.message.view();
        json!({
            "message": BASE64_STANDARD.encode(message.payload),
            "qos": message.head.qos as u8,
            "retain": message.head.retain,
            "topic": message.topic,
        })
    });
    json!({
        "node_id": cx.facts.node.id,
        "clientid": client.client_id,
        "username": user(client),
        "proto_ver": client.version.level(),
        "ip_address": client.peer.map(|peer| peer.ip().to_string()),
        "port": client.peer.map(|peer| peer.port()),
        "connected_at": time(client.connected_at),
        "disconnected_at": ended(client).map(time),
        "disconnected_reason": ended(client).map(|_| reason(client)),
        "connected": client.connected,
        "keepalive": client.keep_alive_s,
        "clean_start": client.clean_start,
        "session_present": client.session_present,
        "expiry_interval": client.expiry_s,
        "created_at": time(client.created_at),
        "subscriptions_cnt": client.subscriptions,
        "max_subscriptions": client.max_subscriptions,
        "inflight": client.inflight,
        "max_inflight": client.max_inflight,
        "mqueue_len": client.mqueue_len,
        "max_mqueue": client.max_mqueue,
        "extra_attrs": 0,
        "last_will": will,
    })
}
