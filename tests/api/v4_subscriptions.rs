//! `/api/v4/subscriptions`, `/routes` and `/topic-tree`.

use crate::common::{Broker, Http, Peer};
use crate::{served, told};
use ringmq::codec::Version;
use ringmq::message::QoS;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn subscriber(broker: &Broker, id: &str, filters: &[(&str, QoS)]) -> Peer {
    let mut peer = Peer::connect(broker, Version::V5, id);
    for (filter, qos) in filters {
        assert_eq!(peer.subscribe(filter, *qos), *qos as u8);
    }
    peer
}

/// Client and filter of each row.
fn rows(body: &Value) -> BTreeSet<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    body["data"].as_array().unwrap().iter().map(|s| (text(&s["clientid"]), text(&s["topic"]))).collect()
}

fn listed(http: Http, query: &str) -> BTreeSet<(String, String)> {
    let body = told(http, "/api/v4/subscriptions", &format!("/api/v4/subscriptions{query}"));
    assert_eq!(body["meta"]["count"], body["data"].as_array().unwrap().len(), "{query}");
    rows(&body)
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn subscriptions_are_listed_and_found_by_each_parameter() {
    served(&[], |broker, http| {
        let (two, one) = (QoS::ExactlyOnce, QoS::AtLeastOnce);
        let _a = subscriber(broker, "nanomq-29978ec1", &[("topic123", two)]);
        let _b = subscriber(broker, "nanomq-3020ffac", &[("topic123", two)]);
        let _c = subscriber(broker, "123", &[("a/b/c", one), ("$share/g/a/+/c", one)]);
        let (a, b) = (("nanomq-29978ec1", "topic123"), ("nanomq-3020ffac", "topic123"));
        let (c, shared) = (("123", "a/b/c"), ("123", "a/+/c"));
        for (query, expected) in [
            ("", pairs(&[a, b, c, shared])),
            ("?clientid=123", pairs(&[c, shared])),
            ("?clientid=nobody", pairs(&[])),
            ("?topic=topic123", pairs(&[a, b])),
            ("?topic=a/%2B/c", pairs(&[shared])),
            ("?topic=$share/g/a/%2B/c", pairs(&[shared])),
            ("?topic=$share/h/a/%2B/c", pairs(&[])),
            ("?qos=2", pairs(&[a, b])),
            ("?share=g", pairs(&[shared])),
            ("?_match_topic=a/b/c", pairs(&[c, shared])),
            ("?_match_topic=a/%23", pairs(&[c, shared])),
            ("?clientid=123&qos=2", pairs(&[])),
        ] {
            assert_eq!(listed(http, query), expected, "{query}");
        }
        let path = "/api/v4/subscriptions/{clientid}";
        let body = told(http, path, "/api/v4/subscriptions/nanomq-29978ec1");
        let row = &body["data"][0];
        assert_eq!(
            (&row["topic"], &row["qos"], &row["clientid"], &row["share"]),
            (&json!("topic123"), &json!(2), &json!("nanomq-29978ec1"), &Value::Null)
        );
        assert_eq!(told(http, path, "/api/v4/subscriptions/nobody")["data"], json!([]));
        let mut seen = BTreeSet::new();
        for n in 1..=4 {
            let body = http.json(&format!("/api/v4/subscriptions?_page={n}&_limit=1"));
            assert_eq!(body["meta"], json!({"page": n, "limit": 1, "count": 4, "hasnext": n < 4}));
            seen.extend(rows(&body));
        }
        assert_eq!(seen, pairs(&[a, b, c, shared]));
        assert_eq!(http.get("/api/v4/subscriptions?qos=7").status, 400);
    });
}

#[test]
fn a_filter_is_a_route_once_however_many_shards_have_it() {
    served(&[], |broker, http| {
        let names: Vec<String> = (0..20).map(|n| format!("client-{n}")).collect();
        let filters: &[(&str, QoS)] =
            &[("all", QoS::AtMostOnce), ("all/+", QoS::AtMostOnce), ("$share/g/shared", QoS::AtMostOnce)];
        let mut peers: Vec<Peer> = names.iter().map(|id| subscriber(broker, id, filters)).collect();
        let topics = |path: &str, template: &str| -> Vec<String> {
            let body = told(http, template, path);
            let mut topics: Vec<String> = body["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["topic"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(body["meta"]["count"], topics.len());
            topics.sort();
            topics
        };
        assert_eq!(topics("/api/v4/routes", "/api/v4/routes"), ["all", "all/+", "shared"]);
        let of = "/api/v4/routes/{topic}";
        assert_eq!(topics("/api/v4/routes/all%2Fx", of), ["all/+"]);
        assert_eq!(topics("/api/v4/routes/nothing", of), [""; 0]);
        assert_eq!(http.get("/api/v4/routes/a%2F%23").json()["code"], 115);
        for peer in &mut peers {
            peer.send_unsubscribe("all/+");
            peer.next();
        }
        assert_eq!(topics("/api/v4/routes", "/api/v4/routes"), ["all", "shared"]);
    });
}

#[test]
fn the_topic_tree_is_as_in_the_example() {
    served(&[], |broker, http| {
        let zero = QoS::AtMostOnce;
        let _a = subscriber(broker, "nanomq-3a4a0956", &[("topic123", zero)]);
        let _b = subscriber(broker, "nanomq-0cfd69bb", &[("topic123/123", zero)]);
        let _c = subscriber(broker, "nanomq-26971dc8", &[("topic123/123/456", zero)]);
        let body = told(http, "/api/v4/topic-tree", "/api/v4/topic-tree");
        assert_eq!(
            body["data"],
            json!([
                [{"topic": "", "cld_cnt": 1}],
                [{"topic": "topic123", "cld_cnt": 1, "clientid": ["nanomq-3a4a0956"]}],
                [{"topic": "123", "cld_cnt": 1, "clientid": ["nanomq-0cfd69bb"]}],
                [{"topic": "456", "cld_cnt": 0, "clientid": ["nanomq-26971dc8"]}]
            ])
        );
        assert_eq!(body["meta"]["count"], 3);
    });
}
