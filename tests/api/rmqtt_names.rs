//! Every name of RMQTT's documents for what is counted and held, in each place that shows it.

use crate::common::{Broker, DRIVERS, Http};
use serde_json::Value;
use std::collections::BTreeSet;

const METRICS: &[&str] = &[
    "client.auth.anonymous",
    "client.auth.anonymous.error",
    "client.authenticate",
    "client.connack",
    "client.connack.auth.error",
    "client.connack.error",
    "client.connect",
    "client.connected",
    "client.disconnected",
    "client.handshaking.timeout",
    "client.publish.auth.error",
    "client.publish.check.acl",
    "client.publish.error",
    "client.subscribe",
    "client.subscribe.auth.error",
    "client.subscribe.check.acl",
    "client.subscribe.error",
    "client.unsubscribe",
    "messages.acked",
    "messages.acked.admin",
    "messages.acked.custom",
    "messages.acked.lastwill",
    "messages.acked.retain",
    "messages.acked.system",
    "messages.delivered",
    "messages.delivered.admin",
    "messages.delivered.custom",
    "messages.delivered.lastwill",
    "messages.delivered.retain",
    "messages.delivered.system",
    "messages.dropped",
    "messages.nonsubscribed",
    "messages.nonsubscribed.admin",
    "messages.nonsubscribed.custom",
    "messages.nonsubscribed.lastwill",
    "messages.nonsubscribed.system",
    "messages.publish",
    "messages.publish.admin",
    "messages.publish.custom",
    "messages.publish.lastwill",
    "messages.publish.retain",
    "messages.publish.system",
    "session.created",
    "session.resumed",
    "session.subscribed",
    "session.terminated",
    "session.unsubscribed",
];

const STATS: &[&str] = &[
    "connections.count",
    "connections.max",
    "handshakings.count",
    "handshakings.max",
    "handshakings_active.count",
    "handshakings_rate.count",
    "handshakings_rate.max",
    "retained.count",
    "retained.max",
    "routes.count",
    "routes.max",
    "sessions.count",
    "sessions.max",
    "subscriptions.count",
    "subscriptions.max",
    "subscriptions_shared.count",
    "subscriptions_shared.max",
    "topics.count",
    "topics.max",
];

/// What the example of a page for Prometheus has beside those, with its family.
const PAGE: &[(&str, &str)] = &[
    ("rmqtt_metrics", "messages.acked.bridge"),
    ("rmqtt_metrics", "messages.delivered.bridge"),
    ("rmqtt_metrics", "messages.nonsubscribed.bridge"),
    ("rmqtt_metrics", "messages.publish.bridge"),
    ("rmqtt_nodes", "disk_free"),
    ("rmqtt_nodes", "disk_total"),
    ("rmqtt_nodes", "load1"),
    ("rmqtt_nodes", "load15"),
    ("rmqtt_nodes", "load5"),
    ("rmqtt_nodes", "memory_free"),
    ("rmqtt_nodes", "memory_total"),
    ("rmqtt_nodes", "memory_used"),
    ("rmqtt_nodes", "running"),
    ("rmqtt_stats", "delayed_publishs.count"),
    ("rmqtt_stats", "delayed_publishs.max"),
    ("rmqtt_stats", "forwards.count"),
    ("rmqtt_stats", "forwards.max"),
    ("rmqtt_stats", "in_inflights.count"),
    ("rmqtt_stats", "in_inflights.max"),
    ("rmqtt_stats", "message_queues.count"),
    ("rmqtt_stats", "message_queues.max"),
    ("rmqtt_stats", "message_storages.count"),
    ("rmqtt_stats", "message_storages.max"),
    ("rmqtt_stats", "out_inflights.count"),
    ("rmqtt_stats", "out_inflights.max"),
    ("rmqtt_stats", "retaineds.count"),
    ("rmqtt_stats", "retaineds.max"),
];

fn counted(values: &Value, names: &[&str], path: &str) {
    for name in names {
        assert!(values[name].is_u64(), "{path}: {name} is no count");
    }
}

#[test]
fn every_documented_name_is_a_count_in_both_dialects() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let http = Http::of(&broker);
    for wrapped in [false, true] {
        let get = |path: &str| {
            let mut body = http.json(&format!("/api/{}{path}", if wrapped { "v2" } else { "v1" }));
            if wrapped { body["data"].take() } else { body }
        };
        for (path, node) in [("/stats", "/0"), ("/stats/1", "")] {
            let body = get(path);
            let one = body.pointer(node).unwrap();
            assert_eq!(
                (&one["node"]["id"], &one["node"]["status"]),
                (&1.into(), &"Running".into()),
                "{path}"
            );
            assert!(one["node"]["name"].is_string(), "{path}");
            counted(&one["stats"], STATS, path);
        }
        let sum = get("/stats/sum");
        assert!(sum["nodes"]["1"]["name"].is_string() && sum["nodes"]["1"]["status"] == "Running", "{sum}");
        counted(&sum["stats"], STATS, "/stats/sum");
        for (path, node) in [("/metrics", "/0"), ("/metrics/1", "")] {
            let body = get(path);
            let one = body.pointer(node).unwrap();
            assert!(one["node"]["id"] == 1 && one["node"]["name"].is_string(), "{path}");
            counted(&one["metrics"], METRICS, path);
        }
        counted(&get("/metrics/sum"), METRICS, "/metrics/sum");
    }
    broker.stop();
}

#[test]
fn every_name_of_the_example_is_on_each_page_for_prometheus() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let http = Http::of(&broker);
    for (path, nodes) in [("", &["1", "all"][..]), ("/1", &["1"]), ("/sum", &["all"])] {
        for version in ["v1", "v2"] {
            let page = http.get(&format!("/api/{version}/metrics/prometheus{path}"));
            assert!(
                page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"),
                "{page:?}"
            );
            let series: BTreeSet<&str> =
                page.body.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
            let metrics = METRICS.iter().map(|name| ("rmqtt_metrics", *name));
            // This page calls them `retaineds`.
            let stats = STATS.iter().filter(|name| !name.starts_with("retained."));
            let stats = stats.map(|name| ("rmqtt_stats", *name));
            for (family, item) in metrics.chain(stats).chain(PAGE.iter().copied()) {
                for node in nodes {
                    let expected = format!("{family}{{item=\"{item}\",node=\"{node}\"}}");
                    assert!(series.contains(expected.as_str()), "{version}{path}: {expected} is missing");
                }
            }
            let others = series.iter().filter(|line| line.contains("node=\""));
            let of_these = |line: &&&str| nodes.iter().any(|n| line.ends_with(&format!("node=\"{n}\"}}")));
            assert_eq!(others.clone().count(), others.filter(of_these).count(), "{version}{path}");
        }
    }
    broker.stop();
}
