//! `reload` and `ctrl`: settings that change while the broker runs, and its end.

use super::{DONE, HERE};
use crate::api::Context;
use crate::api::control::{Order, order};
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Body, Endpoint, Reply};
use crate::api::fault::Fault;
use crate::api::shape::{COUNT, Shape, may, must};
use axum::extract::State;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

const SETTINGS: Shape = Shape::Object(&[
    must(
        "property_size",
        COUNT,
        "Bytes of the properties of a PUBLISH or CONNECT, `mqtt.max_properties`; 0: no limit.",
    ),
    must("max_packet_size", COUNT, "KiB of a packet from a client, `mqtt.max_packet_size`."),
    must("client_max_packet_size", COUNT, "KiB of a packet to a client, `mqtt.client_max_packet_size`."),
    must("msq_len", COUNT, "Messages that wait for one session, `mqtt.max_mqueue`."),
    must(
        "qos_duration",
        COUNT,
        "Seconds that a QoS 2 message waits for its PUBREL, `mqtt.await_rel_timeout_s`.",
    ),
    must("keepalive_backoff", COUNT, "Thousandths, `mqtt.keepalive_backoff`."),
    must(
        "allow_anonymous",
        Shape::Flag,
        "Whether clients may come without a user name, `mqtt.allow_anonymous`.",
    ),
]);

const READ: Reply = Reply::Json(Shape::Object(&[
    must("code", Shape::Integer(0, 0), "Result code."),
    must("data", SETTINGS, "Under the names of NanoMQ."),
    must("settings", Shape::Map(&Shape::Any), "Every key of the configuration; secrets are covered."),
]));

const CHANGE: Shape = Shape::Object(&[
    must(
        "data",
        Shape::Map(&Shape::Any),
        "New values, by the names that reading shows, or by any key of the configuration that is live. One bad \
         value changes nothing.",
    ),
    may("persist", Shape::Flag, "Whether they outlive a restart. Default: false."),
]);

const CHANGED: Reply = Reply::Json(Shape::Object(&[
    must("code", Shape::Integer(0, 0), "Result code."),
    must("changed", Shape::List(&Shape::Text), "Keys that have another value now."),
]));

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/reload",
        name: "get_reload",
        about: "Settings that can be changed while the broker runs.",
        answer: READ,
        serve: || get(read),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/reload",
        name: "set_reload",
        about: "Changes settings on all shards at once, all of them or none. Without any, certificates and what belongs to \
                them are read again.",
        body: Some(CHANGE),
        answer: CHANGED,
        serve: || post(change),
        ..HERE
    },
    Endpoint {
        path: "/configuration",
        name: "get_broker_configuration",
        about: "As /reload.",
        answer: READ,
        serve: || get(read),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/configuration",
        name: "set_broker_configuration",
        about: "As /reload.",
        body: Some(CHANGE),
        answer: CHANGED,
        serve: || post(change),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/ctrl/{action}",
        name: "ctrl_broker",
        about: "Stops the broker as SIGTERM does, or restarts it with its sockets open, so that nobody is refused.",
        answer: Reply::Json(DONE),
        serve: || post(end),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/restart",
        name: "restart_broker",
        about: "As /ctrl/restart.",
        answer: Reply::Json(DONE),
        serve: || post(async |State(cx): State<Context>| order_end(&cx, true).await),
        ..HERE
    },
];

async fn read(State(cx): State<Context>) -> Result<Answer, Fault> {
    let settings = order(&cx.orders, Order::Settings).await?;
    Ok(Answer(json!({"code": 0, "data": settings.documented, "settings": settings.keys})))
}

async fn change(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let wanted: Map<String, Value> = body["data"].as_object().cloned().unwrap_or_default();
    let keep = body["persist"] == true;
    let changed = order(&cx.orders, |reply| Order::Change { wanted, keep, reply }).await??;
    Ok(Answer(json!({"code": 0, "changed": changed})))
}

async fn end(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    order_end(&cx, args.text("action") == Some("restart")).await
}

async fn order_end(cx: &Context, restart: bool) -> Result<Answer, Fault> {
    order(&cx.orders, |reply| Order::End { restart, reply }).await??;
    Ok(Answer(json!({"code": 0})))
}
