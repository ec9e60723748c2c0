//! `/api/v4/retains`.

use crate::common::{Http, Peer};
use crate::{conforms, served, told};
use ringmq::codec::Version;
use ringmq::message::QoS;
use serde_json::{Value, json};

const ALL: &str = "/api/v4/retains";
const ONE: &str = "/api/v4/retains/{topic}";

fn topics(http: Http, path: &str) -> Vec<String> {
    let body = told(http, ALL, path);
    let mut topics: Vec<String> =
        body["data"].as_array().unwrap().iter().map(|r| r["topic"].as_str().unwrap().to_owned()).collect();
    topics.sort();
    topics
}

#[test]
fn retained_messages_are_listed_page_by_page_and_forgotten() {
    served(&[], |broker, http| {
        let mut publisher = Peer::connect(broker, Version::V311, "publisher");
        for n in 0..30 {
            publisher.publish(&format!("r/{n:02}"), b"text", QoS::AtLeastOnce, true);
        }
        publisher.publish("bytes/1", &[0xFF, 0], QoS::ExactlyOnce, true);
        assert_eq!(topics(http, ALL).len(), 31);
        let mut seen: Vec<String> = Vec::new();
        for n in 1..=8 {
            let path = format!("/api/v4/retains?topic=r/%2B&_page={n}&_limit=4");
            let body = told(http, ALL, &path);
            assert_eq!(body["meta"], json!({"page": n, "limit": 4, "count": 30, "hasnext": n < 8}));
            let rows = body["data"].as_array().unwrap();
            seen.extend(rows.iter().map(|r| r["topic"].as_str().unwrap().to_owned()));
        }
        seen.sort();
        assert_eq!(seen, (0..30).map(|n| format!("r/{n:02}")).collect::<Vec<_>>());
        let row = &told(http, ONE, "/api/v4/retains/r%2F07")["data"][0];
        let expected = json!({
            "topic": "r/07", "qos": 1, "payload": "text", "encoding": "plain", "payload_len": 4,
            "expiry_s": null, "properties_len": 0
        });
        assert_eq!(*row, expected);
        let row = &told(http, ONE, "/api/v4/retains/bytes%2F1")["data"][0];
        assert_eq!(
            (&row["payload"], &row["encoding"], &row["qos"]),
            (&json!("/wA="), &json!("base64"), &json!(2))
        );
        let gone: Value = http.delete("/api/v4/retains/r%2F07").json();
        conforms("DELETE", ONE, &gone);
        assert_eq!(gone["count"], 1);
        assert_eq!(http.get("/api/v4/retains/r%2F07").status, 404);
        assert_eq!(http.delete("/api/v4/retains/r%2F07").status, 404);
        let gone = http.delete("/api/v4/retains?topic=r/%23").json();
        conforms("DELETE", ALL, &gone);
        assert_eq!(gone["count"], 29);
        assert_eq!(topics(http, ALL), ["bytes/1"]);
        let mut late = Peer::connect(broker, Version::V311, "late");
        late.subscribe("r/#", QoS::AtMostOnce);
        late.ping();
        for (path, status, code) in
            [("/api/v4/retains?topic=a/%23/b", 400, 115), ("/api/v4/retains?topic=", 400, 115)]
        {
            let answer = http.get(path);
            assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{path}");
        }
        assert_eq!(http.delete(ALL).json()["code"], 107);
    });
}
