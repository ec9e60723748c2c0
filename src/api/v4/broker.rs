//! The broker itself: what it is, where it listens, and what it lost.

use super::{HERE, LIMIT, META, OK, PAGE, data, page};
use crate::api::dialect::{Answer, Dialect};
use crate::api::endpoint::{Args, Endpoint, Reply, list as endpoints};
use crate::api::fault::Fault;
use crate::api::shape::{COUNT, Shape, must};
use crate::api::times::{date_time, uptime_hours};
use crate::api::{Context, State as Life};
use crate::desk::{Ask, Listing, LossRow, Totals};
use crate::stats::{LossCause, Losses};
use axum::extract::State;
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::time::SystemTime;

const LISTED: Shape = Shape::Object(&[
    must("path", Shape::Text, "Path below `/api/v4`."),
    must("name", Shape::Text, "Name."),
    must("method", Shape::Text, "HTTP method."),
    must("descr", Shape::Text, "What it does."),
]);
const BROKER: Shape = Shape::Object(&[
    must("node", Shape::Text, "`node.name`."),
    must("node_id", COUNT, "`node.id`."),
    must("datetime", Shape::Text, "The time, UTC."),
    must("node_status", Shape::OneOf(&["Running", "Stopping"]), "What it does."),
    must("sysdescr", Shape::Text, "What it is."),
    must("uptime", Shape::Text, "How long it has run."),
    must("version", Shape::Text, "Its version."),
]);
const NODE: Shape = Shape::Object(&[
    must("node", Shape::Text, "`node.name`."),
    must("node_id", COUNT, "`node.id`."),
    must("connections", COUNT, "Clients that are connected."),
    must("sessions", COUNT, "Sessions, connected or not."),
    must("shards", COUNT, "Threads that serve clients."),
    must("node_status", Shape::OneOf(&["Running", "Stopping"]), "What it does."),
    must("uptime", Shape::Text, "How long it has run."),
    must("version", Shape::Text, "Its version."),
]);
const LISTENERS: Shape = Shape::Object(&[
    must("node", Shape::Text, "`node.name`."),
    must(
        "listeners",
        Shape::List(&Shape::Object(&[
            must("name", Shape::Text, "Its name; `default` is the first of `mqtt.listen`."),
            must(
                "protocol",
                Shape::OneOf(&["mqtt:tcp", "mqtt:tls", "mqtt:ws", "mqtt:wss", "mqtt:unix"]),
                "What it serves.",
            ),
            must("listen_on", Shape::Text, "Address and port."),
            must("acceptors", COUNT, "Threads that accept."),
            must("max_conns", COUNT, "Connections that it can have."),
            must("current_conns", COUNT, "Connections that it has."),
        ])),
        "Its listeners.",
    ),
]);
const CAUSES: Shape = Shape::Map(&COUNT);
const LOSS: Shape = Shape::Object(&[
    must("clientid", Shape::Maybe(&Shape::Text), "Client; null: all without a line of their own."),
    must("count", COUNT, "Messages that it did not get."),
    must("causes", CAUSES, "The same, by cause."),
]);

const fn get_at(path: &'static str, name: &'static str, about: &'static str) -> Endpoint {
    Endpoint { path, name, about, ..HERE }
}

/// The broker.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        answer: Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&LISTED), "The endpoints.")])),
        serve: || get(async || endpoints(Dialect::V4)),
        ..get_at("", "list_endpoints", "The endpoints of this API.")
    },
    Endpoint {
        answer: Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&BROKER), "One for each node.")])),
        serve: || get(brokers),
        ..get_at("/brokers", "list_brokers", "What the broker is.")
    },
    Endpoint {
        answer: Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&NODE), "One for each node.")])),
        serve: || get(nodes),
        ..get_at("/nodes", "list_nodes", "How the broker is.")
    },
    Endpoint {
        answer: Reply::Json(Shape::Object(&[
            OK,
            must("data", Shape::List(&LISTENERS), "One for each node."),
        ])),
        serve: || get(listeners),
        ..get_at("/listeners", "list_listeners", "Where MQTT and HTTP are served.")
    },
    Endpoint {
        query: &[PAGE, LIMIT],
        answer: Reply::Json(Shape::Object(&[
            OK,
            META,
            must("count", COUNT, "Messages that were accepted and not delivered."),
            must("causes", CAUSES, "The same, by cause."),
            must("data", Shape::List(&LOSS), "By client."),
        ])),
        serve: || get(losses),
        ..get_at(
            "/losses",
            "list_losses",
            "Messages that were accepted and not delivered, by cause and client.",
        )
    },
];

fn status(cx: &Context) -> &'static str {
    match *cx.state.borrow() {
        Life::Draining | Life::Stopped => "Stopping",
        _ => "Running",
    }
}

async fn brokers(State(cx): State<Context>) -> Answer {
    data(json!([{
        "node": cx.facts.node.name,
        "node_id": cx.facts.node.id,
        "datetime": date_time(SystemTime::now()),
        "node_status": status(&cx),
        "sysdescr": "ringmq Broker",
        "uptime": uptime_hours(cx.uptime()),
        "version": env!("CARGO_PKG_VERSION"),
    }]))
}

async fn totals(cx: &Context) -> Result<Vec<Box<Totals>>, Fault> {
    Ok(cx.desk.ask_all(Ask::Totals).await?)
}

async fn nodes(State(cx): State<Context>) -> Result<Answer, Fault> {
    let shards = totals(&cx).await?;
    let sum = |count: fn(&Totals) -> usize| shards.iter().map(|shard| count(shard)).sum::<usize>();
    Ok(data(json!([{
        "node": cx.facts.node.name,
        "node_id": cx.facts.node.id,
        "connections": sum(|shard| shard.online),
        "sessions": sum(|shard| shard.sessions),
        "shards": shards.len(),
        "node_status": status(&cx),
        "uptime": uptime_hours(cx.uptime()),
        "version": env!("CARGO_PKG_VERSION"),
    }])))
}

async fn listeners(State(cx): State<Context>) -> Result<Answer, Fault> {
    let shards = totals(&cx).await?;
    let room: usize = shards.iter().map(|shard| shard.room).sum();
    let all: u64 = shards.iter().flat_map(|shard| &shard.listeners).map(|(n, _)| u64::from(*n)).sum();
    let mqtt = cx.facts.mqtt.iter().enumerate().map(|(index, served)| {
        let each = || shards.iter().filter_map(|shard| shard.listeners.get(index));
        let current: u64 = each().map(|(count, _)| u64::from(*count)).sum();
        let max = each().next().map_or(0, |(_, max)| *max);
        json!({
            "name": served.name,
            "protocol": format!("mqtt:{}", served.kind.name()),
            "listen_on": served.place(),
            "acceptors": shards.len(),
            "max_conns": match max {
                0 => all + room as u64,
                max => max.into(),
            },
            "current_conns": current,
        })
    });
    let rows: Vec<Value> = mqtt.collect();
    Ok(data(json!([{"node": cx.facts.node.name, "listeners": rows}])))
}

async fn losses(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let (number, limit) = page(&args);
    let mut sum = [0; LossCause::ALL.len()];
    for shard in totals(&cx).await? {
        sum.iter_mut().zip(shard.losses).for_each(|(sum, n)| *sum += n);
    }
    let paged = cx.desk.page(Listing::Losses, &(), number, limit).await?;
    let Answer(mut answer) = super::listed(&paged, row);
    answer["count"] = sum.iter().sum::<u64>().into();
    answer["causes"] = by_cause(&sum);
    Ok(Answer(answer))
}

fn row(line: &LossRow) -> Value {
    json!({
        "clientid": line.client_id,
        "count": line.losses.iter().sum::<u64>(),
        "causes": by_cause(&line.losses),
    })
}

fn by_cause(losses: &Losses) -> Value {
    let named = LossCause::ALL.iter().map(|cause| (cause.name().to_owned(), losses[*cause as usize].into()));
    Value::Object(named.collect::<Map<_, _>>())
}
