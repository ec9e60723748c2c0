//! Pages in Prometheus' text format: this broker's own at `/metrics`, each value by shard; and those of NanoMQ and
//! RMQTT under their names.

use super::names::{rmqtt_metrics, rmqtt_stats, this_node};
use super::{Process, Sample};
use crate::api::Context;
use crate::api::dialect::Dialect;
use crate::api::endpoint::{Args, ENDPOINT, Endpoint, Reply};
use crate::api::fault::Fault;
use crate::stats::names::NANOMQ;
use crate::stats::{Family, Histogram, Kind, LossCause, Part, Record};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::{Display, Write};

/// What Prometheus asks for.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Pages for Prometheus.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        dialects: &[Dialect::Own],
        path: "/metrics",
        name: "metrics",
        about: "What each shard counts, holds and measures, for Prometheus; without credentials on a loopback \
                address, and elsewhere where `http.open_metrics` says so.",
        answer: Reply::Other(TEXT),
        near: true,
        serve: || get(own),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::V4],
        path: "/prometheus",
        name: "list_prometheus",
        about: "Counters and gauges under NanoMQ's names, for Prometheus.",
        answer: Reply::Other(TEXT),
        serve: || get(nanomq),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::V1, Dialect::V2],
        path: "/metrics/prometheus",
        name: "get_prometheus",
        about: "Counters, gauges and nodes under RMQTT's names, for Prometheus.",
        answer: Reply::Other(TEXT),
        serve: || get(async |State(cx): State<Context>| rmqtt(&cx, Nodes::EachAndAll).await),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::V1, Dialect::V2],
        path: "/metrics/prometheus/{node}",
        name: "get_node_prometheus",
        about: "The same of one node.",
        answer: Reply::Other(TEXT),
        serve: || get(rmqtt_node),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::V1, Dialect::V2],
        path: "/metrics/prometheus/sum",
        name: "get_prometheus_sum",
        about: "The same of all nodes together.",
        answer: Reply::Other(TEXT),
        serve: || get(async |State(cx): State<Context>| rmqtt(&cx, Nodes::All).await),
        ..ENDPOINT
    },
];

/// A page: families, each with its samples behind it.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Into a text, which does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (key, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{key}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// One family of each shard's counters or gauges, from their table.
    fn by_shard<'a>(&mut self, family: &Family, cells: impl Iterator<Item = &'a [u64]>) {
        let (suffix, kind) = match family.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge | Kind::Peak | Kind::Replica => ("", "gauge"),
        };
        // Prometheus' unit of time is the second.
        let micros = family.name.strip_suffix("_us_max");
        let name = micros.map_or_else(
            || format!("ringmq_{}{suffix}", family.name),
            |name| format!("ringmq_{name}_longest_seconds"),
        );
        self.family(&name, kind, family.doc);
        for (shard, cells) in cells.enumerate() {
            let shard = shard.to_string();
            for (cell, value) in cells.iter().enumerate() {
                let mut labels = vec![("shard", &*shard)];
                for (key, text) in family.labels(cell) {
                    labels.push((key, text));
                }
                // A packet that cannot come, a source that has none: only what counts something is there.
                if micros.is_some() {
                    self.sample(&name, &labels, *value as f64 / 1e6);
                } else if cells.len() == 1 || *value > 0 {
                    self.sample(&name, &labels, value);
                }
            }
        }
    }

    /// A histogram of each shard. `unit` is how many of its values make a second; bounds are powers of two.
    fn histogram<'a>(
        &mut self,
        (name, help): (&str, &str),
        unit: f64,
        bits: std::ops::RangeInclusive<u32>,
        of: impl Iterator<Item = &'a Histogram>,
    ) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (shard, histogram) in of.enumerate() {
            let shard = shard.to_string();
            for bits in bits.clone() {
                // The largest value that is in it.
                let bound = (((1u64 << bits) - 1) as f64 / unit).to_string();
                self.sample(&bucket, &[("shard", &shard), ("le", &bound)], histogram.below_power(bits));
            }
            let (labels, count) = ([("shard", &*shard)], histogram.count());
            self.sample(&bucket, &[("shard", &shard), ("le", "+Inf")], count);
            self.sample(&format!("{name}_sum"), &labels, histogram.sum() as f64 / unit);
            self.sample(&format!("{name}_count"), &labels, count);
        }
    }

    fn process(&mut self, process: &Process) {
        self.family("process_resident_memory_bytes", "gauge", "Resident memory of the process.");
        self.sample("process_resident_memory_bytes", &[], process.memory_bytes);
        self.family("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.");
        self.sample("process_cpu_seconds_total", &[], process.cpu_s);
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, TEXT)], self.0).into_response()
    }
}

/// A histogram of the flight recorder: name and help, its unit, its bounds, and which it is.
type Timed = ((&'static str, &'static str), f64, std::ops::RangeInclusive<u32>, fn(&Record) -> &Histogram);

const TIMES: &[Timed] = &[
    (
        (
            "ringmq_delivery_seconds",
            "From the tick that took a message until it was with the kernel for a subscriber.",
        ),
        1e6,
        3..=26,
        |r| &r.delivery,
    ),
    (
        (
            "ringmq_tick_seconds",
            "From the reap of a tick's completions until its output was with the driver.",
        ),
        1e9,
        10..=33,
        |r| &r.tick,
    ),
    (
        ("ringmq_wake_up_seconds", "From the ring of a sleeping shard until it was awake."),
        1e9,
        10..=33,
        |r| &r.wake_up,
    ),
    (
        ("ringmq_listing_seconds", "What ticks spent on listings for the HTTP API, of ticks that had any."),
        1e9,
        10..=24,
        |r| &r.listing,
    ),
    (
        (
            "ringmq_listing_cpu_seconds",
            "The same in CPU time, without what other threads of the core were given.",
        ),
        1e9,
        10..=24,
        |r| &r.listing_cpu,
    ),
    (("ringmq_drift_seconds", "How late a tick began that had a moment to begin at."), 1e9, 10..=33, |r| {
        &r.drift
    }),
];

async fn own(State(cx): State<Context>) -> Result<Page, Fault> {
    let sample = cx.meter.sample().await?;
    Ok(own_page(&sample, cx.uptime().as_secs()))
}

fn own_page(sample: &Sample, uptime_s: u64) -> Page {
    let mut page = Page::default();
    page.family("ringmq_info", "gauge", "Always 1; the version is a label.");
    page.sample("ringmq_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("ringmq_uptime_seconds", "gauge", "Seconds since the broker started.");
    page.sample("ringmq_uptime_seconds", &[], uptime_s);
    let shards = &sample.shards;
    for (at, (family, _)) in sample.total.counters.families().enumerate() {
        page.by_shard(family, shards.iter().map(|shard| shard.counters.cells()[at]));
    }
    for (at, (family, _)) in sample.total.gauges.families().enumerate() {
        page.by_shard(family, shards.iter().map(|shard| shard.gauges.cells()[at]));
    }
    for (family, most) in sample.total.peaks.families() {
        let name = format!("ringmq_{}_max", family.name);
        page.family(&name, "gauge", &format!("The most that there were on all shards: {}", family.doc));
        page.sample(&name, &[], most.iter().sum::<u64>());
    }
    page.family("ringmq_lost_messages_total", "counter", "Messages accepted and not delivered, by cause.");
    for (number, shard) in shards.iter().enumerate() {
        for cause in LossCause::ALL {
            let labels = [("shard", &*number.to_string()), ("cause", cause.name())];
            page.sample("ringmq_lost_messages_total", &labels, shard.losses[*cause as usize]);
        }
    }
    for (titled, unit, bits, of) in TIMES {
        page.histogram(*titled, *unit, bits.clone(), shards.iter().map(|shard| of(&shard.record)));
    }
    let name = "ringmq_tick_part_longest_seconds";
    page.family(
        name,
        "gauge",
        "The longest that a part of a tick took, in the ticks that are looked at closely.",
    );
    for (number, shard) in shards.iter().enumerate() {
        for ((part, _), span) in Part::TABLE.iter().zip(&shard.record.parts) {
            let labels = [("shard", &*number.to_string()), ("part", *part)];
            page.sample(name, &labels, span.max_ns as f64 / 1e9);
        }
    }
    page.process(&sample.process);
    page
}

async fn nanomq(State(cx): State<Context>) -> Result<Page, Fault> {
    let sample = cx.meter.sample().await?;
    let mut page = Page::default();
    for (name, value) in NANOMQ {
        let kind = if name.starts_with("messages") { "counter" } else { "gauge" };
        let name = format!("nanomq_{name}");
        page.family(&name, kind, &name);
        page.sample(&name, &[], value(&sample.total));
    }
    let p = &sample.process;
    for (name, value) in [
        ("nanomq_memory_usage", p.memory_bytes as f64),
        ("nanomq_memory_usage_max", p.memory_bytes_max as f64),
        ("nanomq_cpu_usage", p.cpu_percent),
        ("nanomq_cpu_usage_max", p.cpu_percent_max),
    ] {
        page.family(name, "gauge", name);
        page.sample(name, &[], value);
    }
    Ok(page)
}

/// Which nodes a page of RMQTT shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    /// Each one, and their sum under `all`.
    EachAndAll,
    Each,
    All,
}

async fn rmqtt_node(State(cx): State<Context>, args: Args) -> Result<Page, Fault> {
    this_node(&cx, &args)?;
    rmqtt(&cx, Nodes::Each).await
}

async fn rmqtt(cx: &Context, nodes: Nodes) -> Result<Page, Fault> {
    let sample = cx.meter.sample().await?;
    let id = cx.facts.node.id.to_string();
    let mut page = Page::default();
    let mut write = |name: &str, help: &str, lines: Vec<(String, f64)>| {
        page.family(name, "gauge", help);
        for (item, value) in lines {
            for (node, others) in [(&*id, Nodes::All), ("all", Nodes::Each)] {
                if nodes != others {
                    page.sample(name, &[("item", &item), ("node", node)], value);
                }
            }
        }
    };
    let metrics = rmqtt_metrics(&sample);
    let metrics = metrics.as_object().into_iter().flatten();
    let metrics = metrics.map(|(name, value)| (name.clone(), value.as_f64().unwrap_or(0.0))).collect();
    write("rmqtt_metrics", "All metrics data", metrics);
    write("rmqtt_nodes", "All nodes status", super::process::host());
    let stats = rmqtt_stats(&sample).into_iter().map(|(name, value)| {
        // This page has another word for them than RMQTT's own JSON.
        let name = name.strip_prefix("retained.").map_or(name.clone(), |rest| format!("retaineds.{rest}"));
        (name, value as f64)
    });
    write("rmqtt_stats", "All status data", stats.collect());
    Ok(page)
}
