//! Counters, gauges, histograms and the flight recorder, against what clients did.

use crate::common::{Broker, DRIVERS, Http, Peer};
use crate::served;
use ringmq::codec::{AckKind, Version};
use ringmq::message::QoS;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Two subscribers, one of them shared, and three messages of different QoS to one topic, one to nobody.
fn traffic(broker: &Broker) -> (Peer, Peer) {
    let mut a = Peer::connect(broker, Version::V5, "metrics-a");
    let mut b = Peer::connect(broker, Version::V311, "metrics-b");
    a.subscribe("m/+", QoS::AtLeastOnce);
    b.subscribe("m/x", QoS::AtMostOnce);
    let mut publisher = Peer::connect(broker, Version::V5, "metrics-c");
    publisher.publish("m/x", b"0", QoS::AtMostOnce, false);
    publisher.publish("m/x", b"1", QoS::AtLeastOnce, false);
    publisher.publish("m/x", b"2", QoS::ExactlyOnce, false);
    publisher.publish("nobody/there", b"1", QoS::AtLeastOnce, false);
    publisher.ping();
    for peer in [&mut a, &mut b] {
        for _ in 0..3 {
            if let Some(id) = peer.expect_message().packet_id {
                peer.ack(AckKind::PubAck, id);
            }
        }
        // What it acknowledged is counted by now.
        peer.ping();
    }
    publisher.disconnect();
    (a, b)
}

fn value(metrics: &Value, name: &str) -> u64 {
    metrics[name].as_u64().unwrap_or_else(|| panic!("a count {name} in {metrics}"))
}

fn expect(metrics: &Value, expected: &[(&str, u64)]) {
    for (name, count) in expected {
        assert_eq!(value(metrics, name), *count, "{name}");
    }
}

#[test]
fn every_name_counts_what_it_says() {
    served(&[], |broker, http| {
        let _peers = traffic(broker);
        let v4 = &http.json("/api/v4/metrics")["data"][0]["metrics"];
        expect(
            v4,
            &[
                ("packets.connect.received", 3),
                ("packets.connack.sent", 3),
                ("packets.publish.received", 4),
                ("packets.publish.sent", 6),
                ("packets.puback.sent", 2),
                ("packets.puback.received", 2),
                ("packets.pubrel.received", 1),
                ("packets.subscribe.received", 2),
                ("messages.received", 4),
                ("messages.qos0.received", 1),
                ("messages.qos1.received", 2),
                ("messages.qos2.received", 1),
                ("messages.sent", 6),
                ("messages.qos0.sent", 4),
                ("messages.qos1.sent", 2),
                ("messages.dropped.no_subscribers", 1),
                ("messages.acked", 2),
                ("client.connected", 3),
                ("client.auth.anonymous", 3),
                ("session.created", 3),
                ("delivery.dropped", 0),
            ],
        );
        assert!(value(v4, "bytes.received") > 100 && value(v4, "bytes.sent") > 100);
        let v1 = &http.json("/api/v1/metrics")[0]["metrics"];
        expect(
            v1,
            &[
                ("client.connect", 3),
                ("client.subscribe", 2),
                ("messages.publish", 4),
                ("messages.publish.custom", 4),
                ("messages.delivered.custom", 6),
                ("messages.nonsubscribed.custom", 1),
                ("session.subscribed", 2),
                ("messages.dropped", 0),
            ],
        );
        assert_eq!(http.json("/api/v2/metrics/sum")["data"], http.json("/api/v1/metrics/sum"));
        assert_eq!(http.json("/api/v1/metrics/1")["metrics"], *v1);
        assert_eq!(http.get("/api/v1/metrics/7").status, 404);
    });
}

#[test]
fn stats_have_a_count_and_a_maximum() {
    served(&[], |broker, http| {
        let (mut a, b) = traffic(broker);
        a.publish("kept", b"x", QoS::AtLeastOnce, true);
        a.subscribe("$share/g/work", QoS::AtLeastOnce);
        let stats = |path: &str| match path {
            "/api/v4/stats" => http.json(path)["data"][0]["stats"].clone(),
            _ => http.json(path)[0]["stats"].clone(),
        };
        expect(
            &stats("/api/v4/stats"),
            &[
                ("connections.count", 2),
                ("sessions.count", 2),
                ("topics.count", 3),
                ("subscriptions.count", 3),
                ("subscriptions.shared.count", 1),
                ("subscribers.count", 2),
                ("retained.count", 1),
            ],
        );
        b.disconnect();
        a.send_unsubscribe("m/+");
        a.next();
        let rmqtt = stats("/api/v1/stats");
        expect(
            &rmqtt,
            &[
                ("connections.count", 1),
                ("connections.max", 3),
                ("sessions.count", 1),
                ("sessions.max", 3),
                ("subscriptions.count", 1),
                ("subscriptions.max", 3),
                ("topics.max", 3),
                ("retained.max", 1),
                ("message_queues.count", 0),
                ("handshakings_active.count", 0),
            ],
        );
        assert_eq!(http.json("/api/v1/stats/sum")["nodes"]["1"]["status"], "Running");
    });
}

/// Names and label sets of a page, and whether it keeps the rules of the text format.
fn read(page: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut seen: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let mut current = "";
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(!help.is_empty() && helped.insert(name), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name) && types.insert(name, kind).is_none(), "{line}");
            current = name;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(labels.ends_with('}'), "{line}");
        let family = match types[current] {
            "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap(),
            _ => name,
        };
        assert_eq!(family, current, "{line}: the samples of a family stand together");
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        assert!(name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
        let old = seen.entry(name.to_owned()).or_default().insert(labels.to_owned(), value);
        assert_eq!(old, None, "{line}: twice");
    }
    seen
}

#[test]
fn the_page_for_prometheus_keeps_the_rules_of_its_format() {
    served(&[], |broker, http| {
        let _peers = traffic(broker);
        let page = http.get("/metrics");
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        let seen = read(&page.body);
        let sum = |name: &str| seen[name].values().sum::<f64>();
        assert_eq!(seen["ringmq_ticks_total"].len(), 3, "one for each shard");
        assert_eq!((sum("ringmq_connections"), sum("ringmq_connections_max")), (2.0, 3.0));
        let publishes = seen["ringmq_packets_in_total"].iter().filter(|(l, _)| l.contains("\"publish\""));
        assert_eq!(publishes.map(|(_, n)| n).sum::<f64>(), 4.0);
        // A histogram: what is below a bound is below the next, and all of them are counted.
        let buckets = &seen["ringmq_delivery_seconds_bucket"];
        for shard in 0..3 {
            let of = format!("shard=\"{shard}\",le=\"");
            let mut bounds: Vec<(f64, f64)> = buckets
                .iter()
                .filter_map(|(l, n)| {
                    Some((l.strip_prefix(&of)?.trim_end_matches("\"}").parse().unwrap(), *n))
                })
                .collect();
            bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(bounds.len() > 10 && bounds.windows(2).all(|w| w[0].1 <= w[1].1), "{bounds:?}");
            assert_eq!(
                bounds.last().unwrap().1,
                seen["ringmq_delivery_seconds_count"][&format!("shard=\"{shard}\"}}")]
            );
        }
        assert_eq!(sum("ringmq_delivery_seconds_count"), 6.0, "each delivery is in it");
        assert!(sum("ringmq_tick_seconds_count") > 10.0);
    });
}

#[test]
fn the_pages_of_other_brokers_have_their_names() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let http = Http::of(&broker);
    let _peers = traffic(&broker);
    let nano = read(&http.get("/api/v4/prometheus").body);
    assert_eq!((nano["nanomq_connections_count"]["}"], nano["nanomq_messages_received"]["}"]), (2.0, 4.0));
    let rmqtt = read(&http.get("/api/v2/metrics/prometheus").body);
    assert_eq!(rmqtt["rmqtt_stats"]["item=\"retaineds.count\",node=\"all\"}"], 0.0);
    assert_eq!(rmqtt["rmqtt_metrics"]["item=\"messages.publish\",node=\"1\"}"], 4.0);
    assert_eq!(rmqtt["rmqtt_nodes"]["item=\"running\",node=\"all\"}"], 1.0);
    let sum = read(&http.get("/api/v1/metrics/prometheus/sum").body);
    assert!(sum["rmqtt_stats"].keys().all(|labels| labels.ends_with("node=\"all\"}")));
    broker.stop();
}

#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let page = Http::of(&broker).get("/metrics").body;
    let families: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let base = |name: &str| {
        let suffix = ["_bucket", "_sum", "_count"].iter().find(|suffix| name.ends_with(*suffix));
        name.strip_suffix(suffix.unwrap_or(&"")).unwrap_or(name).to_owned()
    };
    for file in ["tuning/grafana/ringmq.json", "tuning/prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(file).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: BTreeSet<&str> =
            words.filter(|word| word.starts_with("ringmq_") || word.starts_with("process_")).collect();
        assert!(names.len() > 5, "{file}: {names:?}");
        for name in names {
            assert!(
                families.contains(name) || families.contains(&*base(name)),
                "{file}: {name} is not in /metrics"
            );
        }
    }
    broker.stop();
}

#[test]
fn prometheus_needs_no_credentials_on_loopback_and_nobody_else_gets_in() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let http = Http::of(&broker);
    let without = |path: &str| http.request("GET", path, &[], b"").status;
    assert_eq!([without("/metrics"), without("/api/v4/metrics"), without("/api/v4/shards")], [200, 401, 401]);
    broker.stop();
}

#[test]
fn the_flight_recorder_shows_each_shard() {
    served(&[], |broker, http| {
        let _peers = traffic(broker);
        let told = http.json("/api/v4/shards");
        let shards = told["data"].as_array().unwrap();
        assert_eq!(shards.len(), 3);
        let sum =
            |pointer: &str| shards.iter().map(|s| s.pointer(pointer).unwrap().as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("/gauges/connections"), sum("/delivery_us/count")), (2, 6));
        assert!(sum("/counters/wakes_sent") + sum("/counters/wakes_saved") > 0, "they told each other");
        for shard in shards {
            assert!(!shard["driver"].as_str().unwrap().is_empty());
            assert!(shard["longest_tick"]["took_ns"].as_u64() <= shard["tick_ns"]["max"].as_u64());
            assert!(shard["parts_ns"]["events"]["max"].is_u64());
            assert!(shard["memory"]["rings"].as_u64() < shard["memory"]["total"].as_u64());
        }
        // What shards share counts once, so all together hold no more than the sum.
        let (all, summed) = (told["memory"]["total"].as_u64().unwrap(), sum("/memory/total"));
        assert!(all <= summed && all > summed / 3, "{all} of {summed}");
        let each = |name: &str| told["bytes_each"][name].as_f64().unwrap();
        assert!(
            each("connection") > 160.0 && each("session") > 112.0 && each("subscription") > 12.0,
            "{told}"
        );
    });
}
