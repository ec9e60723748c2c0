//! The flight recorder of each shard, as JSON.

use crate::api::Context;
use crate::api::dialect::{Answer, Dialect};
use crate::api::endpoint::{ENDPOINT, Endpoint, Reply};
use crate::api::fault::Fault;
use crate::api::shape::{COUNT, Shape, must};
use crate::desk::{Ask, Totals};
use crate::stats::{Family, Gauges, Histogram, LossCause, Memory, Part, Record, SAMPLE_EVERY, Snapshot};
use axum::extract::State;
use axum::routing::get;
use serde_json::{Map, Value, json};

const SPREAD: Shape = Shape::Object(&[
    must("count", COUNT, "How many were measured."),
    must("mean", Shape::Number, "Their mean."),
    must("p50", COUNT, "Half of them took no longer; this and the next ones to an eighth of themselves."),
    must("p99", COUNT, "99 % took no longer."),
    must("p999", COUNT, "99.9 % took no longer."),
    must("max", COUNT, "The longest."),
]);
const SHARD: Shape = Shape::Object(&[
    must("shard", COUNT, "Its number."),
    must("driver", Shape::Text, "The driver and the features of the kernel that are in use."),
    must("counters", Shape::Map(&Shape::Any), "What it counted; an object where a value is split."),
    must("gauges", Shape::Map(&COUNT), "What it holds."),
    must("losses", Shape::Map(&COUNT), "What it dropped, by cause."),
    must("tick_ns", SPREAD, "Nanoseconds from the reap of a tick until its output was with the driver."),
    must(
        "delivery_us",
        SPREAD,
        "Microseconds from the tick that took a message until the end of the one that delivered it.",
    ),
    must("wake_up_ns", SPREAD, "Nanoseconds from a ring of its doorbell until it was awake."),
    must("drift_ns", SPREAD, "Nanoseconds by which ticks were late that had a moment to begin at."),
    must("events_per_tick", SPREAD, "Events of the driver, of ticks that had any."),
    must("deliveries_per_tick", SPREAD, "Deliveries, of ticks that had any."),
    must(
        "listing_ns",
        SPREAD,
        "Nanoseconds that ticks spent on listings for this API, of ticks that had any.",
    ),
    must(
        "listing_cpu_ns",
        SPREAD,
        "The same in CPU time, without what other threads of the core were given.",
    ),
    must("completions_per_tick", Shape::Number, "Completions, on average."),
    must(
        "longest_tick",
        Shape::Map(&COUNT),
        "When the longest tick began, how long it took, and what it had to do.",
    ),
    must(
        "parts_ns",
        Shape::Map(&Shape::Map(&Shape::Number)),
        "Nanoseconds of each part of a tick, of one tick of 64.",
    ),
    must(
        "memory",
        Shape::Map(&COUNT),
        "Bytes that it holds, by what they are for, and their total. Message bodies count once for the process.",
    ),
]);

/// Shards.
pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    dialects: &[Dialect::V4],
    path: "/shards",
    name: "list_shards",
    about: "The flight recorder of each shard.",
    answer: Reply::Json(Shape::Object(&[
        must("code", Shape::Integer(0, 0), "Result code."),
        must("data", Shape::List(&SHARD), "One for each shard."),
        must("memory", Shape::Map(&COUNT), "Bytes of all shards, by what they are for, and their total."),
        must(
            "bytes_each",
            Shape::Map(&Shape::Number),
            "Bytes of one connection, session, subscription, queued message and retained message, on average.",
        ),
    ])),
    serve: || get(list),
    ..ENDPOINT
}];

async fn list(State(cx): State<Context>) -> Result<Answer, Fault> {
    let totals = cx.desk.ask_all(Ask::Totals).await?;
    let sample = cx.meter.sample().await?;
    let weights = cx.desk.ask_all(Ask::Weight).await?;
    let shards = totals.iter().zip(&sample.shards).zip(&weights);
    let rows: Vec<Value> =
        shards.map(|((totals, shard), weight)| row(totals, shard, &weight.memory)).collect();
    let (mut memory, mut gauges) = (Memory::default(), Gauges::default());
    for weight in &weights {
        memory.add(&weight.memory);
        gauges.add(&weight.gauges);
    }
    let each =
        memory.each(&gauges).map(|(name, _, bytes)| (name.replace(' ', "_"), three_digits(bytes).into()));
    let each: Map<_, _> = each.collect();
    Ok(Answer(json!({"code": 0, "data": rows, "memory": bytes(&memory), "bytes_each": each})))
}

fn bytes(memory: &Memory) -> Map<String, Value> {
    let rows = memory.iter().map(|(name, bytes)| (name.to_owned(), bytes.into()));
    rows.chain([("total".to_owned(), memory.total().into())]).collect()
}

fn row(totals: &Totals, shard: &Snapshot, memory: &Memory) -> Value {
    let record = &shard.record;
    let counters = &shard.counters;
    let losses =
        LossCause::ALL.iter().map(|cause| (cause.name().to_owned(), shard.losses[*cause as usize].into()));
    json!({
        "shard": totals.shard,
        "driver": totals.driver_text,
        "counters": families(counters.families()),
        "gauges": families(shard.gauges.families()),
        "losses": losses.collect::<Map<_, _>>(),
        "tick_ns": spread(&record.tick),
        "delivery_us": spread(&record.delivery),
        "wake_up_ns": spread(&record.wake_up),
        "drift_ns": spread(&record.drift),
        "events_per_tick": spread(&record.events),
        "deliveries_per_tick": spread(&record.deliveries),
        "listing_ns": spread(&record.listing),
        "listing_cpu_ns": spread(&record.listing_cpu),
        "completions_per_tick": ratio(counters.completions, counters.ticks),
        "longest_tick": {
            "began_ms": record.longest.began_ns / 1_000_000,
            "took_ns": record.longest.took_ns,
            "events": record.longest.events,
            "deliveries": record.longest.deliveries,
        },
        "parts_ns": parts(record),
        "memory": bytes(memory),
    })
}

fn families<'a>(families: impl Iterator<Item = (&'static Family, &'a [u64])>) -> Map<String, Value> {
    families
        .map(|(family, cells)| {
            let value = match cells {
                [one] => (*one).into(),
                many => Value::Object(split(family, many)),
            };
            (family.name.to_owned(), value)
        })
        .collect()
}

/// The cells of a value that is split, those of 0 left out, named by their labels.
fn split(family: &Family, cells: &[u64]) -> Map<String, Value> {
    let named = cells.iter().enumerate().filter(|(_, value)| **value > 0).map(|(cell, value)| {
        let labels: Vec<_> = family.labels(cell).map(|(_, text)| text).collect();
        (labels.join("."), (*value).into())
    });
    named.collect()
}

fn spread(h: &Histogram) -> Value {
    json!({
        "count": h.count(),
        "mean": ratio(h.sum(), h.count()),
        "p50": h.quantile(0.5),
        "p99": h.quantile(0.99),
        "p999": h.quantile(0.999),
        "max": h.max(),
    })
}

/// To three digits behind the point; 0 of nothing.
fn ratio(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { three_digits(sum as f64 / count as f64) }
}

fn three_digits(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn parts(record: &Record) -> Map<String, Value> {
    const _: () = assert!(SAMPLE_EVERY == 64, "as the answer's description says");
    let named = Part::TABLE.iter().zip(&record.parts).map(|((name, _), span)| {
        ((*name).to_owned(), json!({"mean": ratio(span.sum_ns, record.samples), "max": span.max_ns}))
    });
    named.collect()
}
