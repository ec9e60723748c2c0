//! The broker and the host that it runs on.

use super::{at, this_node};
use crate::api::dialect::{Answer, Dialect};
use crate::api::endpoint::{Args, ENDPOINT, Endpoint, Reply, list as endpoints};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Shape, must};
use crate::api::times::{date_time, uptime_days};
use crate::api::{Context, State as Life};
use crate::desk::Ask;
use crate::io::disk_space;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime};

const LISTED: Shape = Shape::List(&Shape::Object(&[
    must("path", Shape::Text, "Path below that of this API."),
    must("name", Shape::Text, "Name."),
    must("method", Shape::Text, "HTTP method."),
    must("descr", Shape::Text, "What it does."),
]));
const BROKER: Shape = Shape::Object(&[
    must("datetime", Shape::Text, "The time, UTC."),
    must("node_id", COUNT, "`node.id`."),
    must("node_name", Shape::Text, "`node.name`."),
    must("node_status", Shape::OneOf(&["Running", "Stop"]), "What it does."),
    must("running", Shape::Flag, "Whether it serves clients."),
    must("sysdescr", Shape::Text, "What it is."),
    must("uptime", Shape::Text, "How long it has run."),
    must("version", Shape::Text, "Its version."),
    must("rustc_version", Shape::Text, "The compiler that it was built with."),
]);
const NODE: Shape = Shape::Object(&[
    must("boottime", Shape::Text, "When the host was started."),
    must("connections", COUNT, "Clients that are connected."),
    must("disk_free", COUNT, "Bytes that are free where the broker works."),
    must("disk_total", COUNT, "Bytes there in all."),
    must("load1", Shape::Number, "Load of the host in the last minute."),
    must("load5", Shape::Number, "Load of the host in the last 5 minutes."),
    must("load15", Shape::Number, "Load of the host in the last 15 minutes."),
    must("memory_free", COUNT, "Bytes of memory that programs can still have."),
    must("memory_total", COUNT, "Bytes of memory."),
    must("memory_used", COUNT, "The rest."),
    must("node_id", COUNT, "`node.id`."),
    must("node_name", Shape::Text, "`node.name`."),
    must("node_status", Shape::OneOf(&["Running", "Stop"]), "What it does."),
    must("running", Shape::Flag, "Whether it serves clients."),
    must("uptime", Shape::Text, "How long it has run."),
    must("version", Shape::Text, "Its version."),
    must("rustc_version", Shape::Text, "The compiler that it was built with."),
]);

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        dialects: &[Dialect::V1],
        name: "get_endpoints",
        about: "The endpoints of this API.",
        answer: Reply::Json(LISTED),
        serve: || get(async || endpoints(Dialect::V1)),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::V2],
        name: "get_endpoints",
        about: "The endpoints of this API.",
        answer: Reply::Json(LISTED),
        serve: || get(async || endpoints(Dialect::V2)),
        ..ENDPOINT
    },
    Endpoint {
        answer: Reply::Json(Shape::List(&BROKER)),
        serve: || get(brokers),
        ..at("/brokers", "get_brokers", "What the nodes are.")
    },
    Endpoint {
        answer: Reply::Json(BROKER),
        causes: &[Cause::NotFound],
        serve: || get(broker),
        ..at("/brokers/{node}", "get_broker", "What a node is.")
    },
    Endpoint {
        answer: Reply::Json(Shape::List(&NODE)),
        serve: || get(nodes),
        ..at("/nodes", "get_nodes", "How the nodes and their hosts are.")
    },
    Endpoint {
        answer: Reply::Json(NODE),
        causes: &[Cause::NotFound],
        serve: || get(node),
        ..at("/nodes/{node}", "get_node", "How a node and its host are.")
    },
];

async fn brokers(State(cx): State<Context>) -> Answer {
    Answer(json!([describe(&cx)]))
}

async fn broker(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    this_node(&cx, &args)?;
    Ok(Answer(describe(&cx)))
}

async fn nodes(State(cx): State<Context>) -> Result<Answer, Fault> {
    Ok(Answer(json!([look(&cx).await?])))
}

async fn node(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    this_node(&cx, &args)?;
    Ok(Answer(look(&cx).await?))
}

fn describe(cx: &Context) -> Value {
    let running = *cx.state.borrow() == Life::Running;
    json!({
        "datetime": date_time(SystemTime::now()),
        "node_id": cx.facts.node.id,
        "node_name": cx.facts.node.name,
        "node_status": if running { "Running" } else { "Stop" },
        "running": running,
        "sysdescr": "ringmq Broker",
        "uptime": uptime_days(cx.uptime()),
        "version": concat!("ringmq/", env!("CARGO_PKG_VERSION")),
        "rustc_version": env!("RINGMQ_RUSTC_VERSION"),
    })
}

async fn look(cx: &Context) -> Result<Value, Fault> {
    let shards = cx.desk.ask_all(Ask::Totals).await?;
    let mut row = describe(cx);
    let host = Host::look();
    let more = json!({
        "connections": shards.iter().map(|shard| shard.online).sum::<usize>(),
        "boottime": format!("{} UTC", date_time(SystemTime::UNIX_EPOCH + Duration::from_secs(host.booted_s))),
        "disk_free": host.disk.0,
        "disk_total": host.disk.1,
        "load1": host.load[0],
        "load5": host.load[1],
        "load15": host.load[2],
        "memory_free": host.memory.0,
        "memory_total": host.memory.1,
        "memory_used": host.memory.1.saturating_sub(host.memory.0),
    });
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
        for name in ["datetime", "sysdescr"] {
            row.remove(name);
        }
    }
    Ok(row)
}

/// How the host is; what cannot be read is 0.
struct Host {
    booted_s: u64,
    load: [f64; 3],
    /// Bytes: free, and in all.
    memory: (u64, u64),
    /// Bytes: free, and in all.
    disk: (u64, u64),
}

impl Host {
    fn look() -> Host {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let loads = read("/proc/loadavg");
        let mut loads = loads.split(' ').map(|load| load.parse().unwrap_or(0.0));
        let memory = read("/proc/meminfo");
        let kib = |name: &str| number(&memory, name) * 1024;
        Host {
            booted_s: number(&read("/proc/stat"), "btime"),
            load: std::array::from_fn(|_| loads.next().unwrap_or(0.0)),
            memory: (kib("MemAvailable:"), kib("MemTotal:")),
            disk: disk_space(Path::new(".")).unwrap_or_default(),
        }
    }
}

/// The number behind a name that begins a line.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_looked_at() {
        let host = Host::look();
        assert!(host.booted_s > 1_000_000_000 && host.load.iter().all(|load| *load >= 0.0));
        assert!(host.memory.0 > 0 && host.memory.1 > host.memory.0);
        assert!(host.disk.1 > host.disk.0);
    }
}
