//! Counters and gauges as JSON, under EMQX's names for `/api/v4` and under RMQTT's for `/api/v1` and `/api/v2`.

use super::Sample;
use crate::api::dialect::{Answer, Dialect};
use crate::api::endpoint::{Args, ENDPOINT, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Shape, must};
use crate::api::{Context, State as Life};
use crate::stats::names::{EMQX_METRICS, EMQX_STATS, Line, RMQTT_ACTIVE, RMQTT_METRICS, RMQTT_STATS, Stat};
use axum::extract::State;
use axum::routing::get;
use serde_json::{Map, Value, json};

const VALUES: Shape = Shape::Map(&COUNT);
const NODE: Shape =
    Shape::Object(&[must("id", COUNT, "`node.id`."), must("name", Shape::Text, "`node.name`.")]);
const STATE: Shape = Shape::Object(&[
    must("id", COUNT, "`node.id`."),
    must("name", Shape::Text, "`node.name`."),
    must("status", Shape::Text, "What the node does."),
]);
const STATS: Shape = Shape::Object(&[
    must("node", STATE, "The node."),
    must("stats", VALUES, "How many there are, and were at most."),
]);
const METRICS: Shape =
    Shape::Object(&[must("node", NODE, "The node."), must("metrics", VALUES, "What was counted.")]);
const SUM: Shape = Shape::Object(&[
    must("nodes", Shape::Map(&Shape::Any), "Name and status of each node, by its number."),
    must("stats", VALUES, "How many there are, and were at most."),
]);
const V4_METRICS: Shape = Shape::Object(&[
    must("code", Shape::Integer(0, 0), "Result code."),
    must(
        "data",
        Shape::List(&Shape::Object(&[
            must("node", Shape::Text, "`node.name`."),
            must("metrics", VALUES, "What was counted."),
        ])),
        "One for each node.",
    ),
]);
const V4_STATS: Shape = Shape::Object(&[
    must("code", Shape::Integer(0, 0), "Result code."),
    must(
        "data",
        Shape::List(&Shape::Object(&[
            must("node", Shape::Text, "`node.name`."),
            must("stats", VALUES, "How many there are, and were at most."),
        ])),
        "One for each node.",
    ),
]);

const V4: Endpoint = Endpoint { dialects: &[Dialect::V4], ..ENDPOINT };
const RMQTT: Endpoint = Endpoint { dialects: &[Dialect::V1, Dialect::V2], ..ENDPOINT };

/// Counters and gauges.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/metrics",
        name: "list_metrics",
        about: "What was counted since the broker started.",
        answer: Reply::Json(V4_METRICS),
        serve: || get(v4_metrics),
        ..V4
    },
    Endpoint {
        path: "/stats",
        name: "list_stats",
        about: "How many there are of what, and were at most.",
        answer: Reply::Json(V4_STATS),
        serve: || get(v4_stats),
        ..V4
    },
    Endpoint {
        path: "/stats",
        name: "get_stats",
        about: "How many there are of what, and were at most, on each node.",
        answer: Reply::Json(Shape::List(&STATS)),
        serve: || get(async |cx: State<Context>| Ok::<_, Fault>(Answer(json!([stats(cx).await?])))),
        ..RMQTT
    },
    Endpoint {
        path: "/stats/{node}",
        name: "get_node_stats",
        about: "How many there are of what, and were at most, on one node.",
        answer: Reply::Json(STATS),
        serve: || get(node_stats),
        ..RMQTT
    },
    Endpoint {
        path: "/stats/sum",
        name: "get_stats_sum",
        about: "How many there are of what, and were at most, on all nodes together.",
        answer: Reply::Json(SUM),
        serve: || get(sum_stats),
        ..RMQTT
    },
    Endpoint {
        path: "/metrics",
        name: "get_metrics",
        about: "What was counted on each node since it started.",
        answer: Reply::Json(Shape::List(&METRICS)),
        serve: || get(async |cx: State<Context>| Ok::<_, Fault>(Answer(json!([metrics(cx).await?])))),
        ..RMQTT
    },
    Endpoint {
        path: "/metrics/{node}",
        name: "get_node_metrics",
        about: "What was counted on one node since it started.",
        answer: Reply::Json(METRICS),
        serve: || get(node_metrics),
        ..RMQTT
    },
    Endpoint {
        path: "/metrics/sum",
        name: "get_metrics_sum",
        about: "What was counted on all nodes together since they started.",
        answer: Reply::Json(VALUES),
        serve: || {
            get(async |State(cx): State<Context>| {
                Ok::<_, Fault>(Answer(rmqtt_metrics(&cx.meter.sample().await?)))
            })
        },
        ..RMQTT
    },
];

fn values(lines: impl IntoIterator<Item = (String, u64)>) -> Value {
    Value::Object(lines.into_iter().map(|(name, value)| (name, value.into())).collect::<Map<_, _>>())
}

fn counted<'a>(table: &'a [Line], sample: &'a Sample) -> impl Iterator<Item = (String, u64)> + 'a {
    table.iter().map(|(name, value)| ((*name).to_owned(), value(&sample.total)))
}

/// The lines `.count` and `.max` of each stat.
pub(super) fn held<'a>(table: &'a [Stat], sample: &'a Sample) -> impl Iterator<Item = (String, u64)> + 'a {
    table.iter().flat_map(|(name, value)| {
        let total = &sample.total;
        [(format!("{name}.count"), value(&total.gauges)), (format!("{name}.max"), value(&total.peaks))]
    })
}

/// RMQTT's stats, by name.
pub fn rmqtt_stats(sample: &Sample) -> Vec<(String, u64)> {
    let mut lines: Vec<_> = held(RMQTT_STATS, sample).collect();
    lines.push((format!("{}.count", RMQTT_ACTIVE.0), RMQTT_ACTIVE.1(&sample.total.gauges)));
    lines.push(("handshakings_rate.count".to_owned(), sample.handshakes.now));
    lines.push(("handshakings_rate.max".to_owned(), sample.handshakes.max));
    lines
}

/// RMQTT's metrics, by name.
pub fn rmqtt_metrics(sample: &Sample) -> Value {
    values(counted(RMQTT_METRICS, sample))
}

async fn v4_metrics(State(cx): State<Context>) -> Result<Answer, Fault> {
    let sample = cx.meter.sample().await?;
    let metrics = values(counted(EMQX_METRICS, &sample));
    Ok(Answer(json!({"code": 0, "data": [{"node": cx.facts.node.name, "metrics": metrics}]})))
}

async fn v4_stats(State(cx): State<Context>) -> Result<Answer, Fault> {
    let sample = cx.meter.sample().await?;
    let stats = values(held(EMQX_STATS, &sample));
    Ok(Answer(json!({"code": 0, "data": [{"node": cx.facts.node.name, "stats": stats}]})))
}

fn status(cx: &Context) -> &'static str {
    match *cx.state.borrow() {
        Life::Draining | Life::Stopped => "Stopping",
        Life::Starting | Life::Running => "Running",
    }
}

async fn stats(State(cx): State<Context>) -> Result<Value, Fault> {
    let sample = cx.meter.sample().await?;
    let node = json!({"id": cx.facts.node.id, "name": cx.facts.node.name, "status": status(&cx)});
    Ok(json!({"node": node, "stats": values(rmqtt_stats(&sample))}))
}

async fn sum_stats(State(cx): State<Context>) -> Result<Answer, Fault> {
    let sample = cx.meter.sample().await?;
    let node = json!({"name": cx.facts.node.name, "status": status(&cx)});
    let nodes = json!({cx.facts.node.id.to_string(): node});
    Ok(Answer(json!({"nodes": nodes, "stats": values(rmqtt_stats(&sample))})))
}

async fn metrics(State(cx): State<Context>) -> Result<Value, Fault> {
    let sample = cx.meter.sample().await?;
    let node = json!({"id": cx.facts.node.id, "name": cx.facts.node.name});
    Ok(json!({"node": node, "metrics": rmqtt_metrics(&sample)}))
}

/// The one node that there is, or 404.
pub(super) fn this_node(cx: &Context, args: &Args) -> Result<(), Fault> {
    match args.number("node") {
        Some(id) if id == u64::from(cx.facts.node.id) => Ok(()),
        _ => Err(Fault::new(
            Cause::NotFound,
            format!("there is no such node; this one is {}", cx.facts.node.id),
        )),
    }
}

async fn node_stats(cx: State<Context>, args: Args) -> Result<Answer, Fault> {
    this_node(&cx, &args)?;
    stats(cx).await.map(Answer)
}

async fn node_metrics(cx: State<Context>, args: Args) -> Result<Answer, Fault> {
    this_node(&cx, &args)?;
    metrics(cx).await.map(Answer)
}
