//! `/api/v1` and `/api/v2`: each example request of RMQTT's documents, answered as documented and read.

use crate::common::{Broker, Http, Login, Peer};
use crate::served;
use ringmq::codec::{ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};

/// One of the two, with the same paths.
#[derive(Clone, Copy)]
struct Dialect<'a> {
    http: &'a Http,
    wrapped: bool,
}

impl Dialect<'_> {
    /// The answer to a request that succeeds, without its wrapping.
    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let path = format!("/api/{}{path}", if self.wrapped { "v2" } else { "v1" });
        let answer = match method {
            "GET" => self.http.get(&path),
            "PUT" => self.http.put(&path, body),
            "POST" => self.http.post(&path, body),
            _ => self.http.delete(&path),
        };
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        if !self.wrapped {
            let plain = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
            return if plain { answer.body.into() } else { answer.json() };
        }
        let mut body = answer.json();
        assert_eq!((&body["code"], &body["msg"]), (&json!(0), &json!("")), "{path}");
        body["data"].take()
    }

    fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "")
    }

    /// The HTTP status and, in v2, the result code of a request that fails.
    fn fails(&self, method: &str, path: &str, body: &str) -> (u16, u64) {
        let path = format!("/api/{}{path}", if self.wrapped { "v2" } else { "v1" });
        let answer = match method {
            "GET" => self.http.get(&path),
            "PUT" => self.http.put(&path, body),
            "POST" => self.http.post(&path, body),
            _ => self.http.delete(&path),
        };
        let body = answer.json();
        if self.wrapped {
            assert!(body["msg"].is_string() && body["data"].is_null(), "{body}");
            return (answer.status, body["code"].as_u64().unwrap());
        }
        assert_eq!(body["error"]["code"], answer.status, "{body}");
        (answer.status, 0)
    }

    /// What [`Dialect::fails`] is expected to say: v1 has no result codes.
    fn refusal(&self, status: u16, code: u64) -> (u16, u64) {
        (status, if self.wrapped { code } else { 0 })
    }
}

/// Runs a test on both dialects and both drivers.
fn both(test: impl Fn(&Broker, Dialect<'_>)) {
    served(&[], |broker, http| {
        for wrapped in [false, true] {
            test(broker, Dialect { http: &http, wrapped });
        }
    });
}

fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing: {value}");
    }
}

#[test]
fn the_endpoints_are_listed() {
    both(|_, api| {
        let listed = api.get("");
        let row = listed.as_array().unwrap().iter().find(|row| row["path"] == "/brokers/{node}").unwrap();
        assert_eq!((&row["method"], &row["name"]), (&json!("GET"), &json!("get_brokers")));
        has(row, &["descr"]);
        let row = listed.as_array().unwrap().iter().find(|row| row["path"] == "/plugins/{node}").unwrap();
        assert_eq!(row["name"], "node_plugins");
    });
}

#[test]
fn brokers_and_nodes_tell_what_they_are() {
    both(|broker, api| {
        let _peer = Peer::connect(broker, Version::V5, "node-peer");
        let one = api.get("/brokers/1");
        assert_eq!(api.get("/brokers")[0]["node_name"], one["node_name"]);
        has(&one, &["datetime", "sysdescr", "version"]);
        assert_eq!(
            (&one["node_id"], &one["node_status"], &one["running"]),
            (&json!(1), &json!("Running"), &json!(true))
        );
        assert!(one["uptime"].as_str().unwrap().starts_with("0 days 0 hours, 0 minutes, "), "{one}");
        assert!(one["rustc_version"].as_str().unwrap().starts_with("rustc 1."), "{one}");
        assert_eq!(one["datetime"].as_str().unwrap().len(), "2022-07-24 23:01:31".len());
        let node = api.get("/nodes/1");
        has(
            &node,
            &["boottime", "load1", "load5", "load15", "node_id", "node_name", "node_status", "running"],
        );
        has(&node, &["uptime", "version", "rustc_version"]);
        assert_eq!(node["connections"], 1, "{node}");
        assert!(node["boottime"].as_str().unwrap().ends_with(" UTC"));
        let n = |name: &str| node[name].as_u64().unwrap();
        assert!(n("memory_free") > 0 && n("memory_free") + n("memory_used") == n("memory_total"), "{node}");
        assert!(n("disk_free") > 0 && n("disk_free") < n("disk_total"), "{node}");
        assert_eq!(api.get("/nodes").as_array().unwrap().len(), 1);
        for path in ["/brokers/2", "/nodes/2", "/plugins/2"] {
            assert_eq!(api.fails("GET", path, ""), api.refusal(404, 108), "{path}");
        }
        assert_eq!(api.fails("GET", "/brokers/x", ""), api.refusal(400, 108));
    });
}

#[test]
fn clients_are_searched_looked_up_and_kicked() {
    both(|broker, api| {
        let login = Login { keep_alive_s: 60, ..Login::new(Version::V311, "example1") };
        let (mut example, _) = Peer::login(broker, &login.will("/test/lwt", b"test /test/lwt ..."));
        let (other, _) = Peer::login(broker, &Login::lasting(Version::V5, "other2"));
        example.subscribe("foo/#", QoS::ExactlyOnce);
        let one = api.get("/clients/example1");
        has(
            &one,
            &["ip_address", "port", "connected_at", "created_at", "disconnected_at", "disconnected_reason"],
        );
        has(
            &one,
            &["expiry_interval", "inflight", "max_inflight", "mqueue_len", "max_mqueue", "max_subscriptions"],
        );
        assert_eq!(
            (&one["clientid"], &one["proto_ver"], &one["node_id"]),
            (&json!("example1"), &json!(4), &json!(1))
        );
        assert_eq!(
            (&one["connected"], &one["clean_start"], &one["session_present"]),
            (&json!(true), &json!(true), &json!(false))
        );
        assert_eq!(
            (&one["keepalive"], &one["subscriptions_cnt"], &one["extra_attrs"]),
            (&json!(60), &json!(1), &json!(0))
        );
        assert_eq!((&one["username"], &one["disconnected_at"]), (&json!("undefined"), &Value::Null));
        assert_eq!(
            one["last_will"],
            json!({"message": "dGVzdCAvdGVzdC9sd3QgLi4u", "qos": 1, "retain": false, "topic": "/test/lwt"})
        );
        let found = |query: &str| {
            let listed = api.get(&format!("/clients?{query}"));
            let ids: Vec<String> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["clientid"].as_str().unwrap().to_owned())
                .collect();
            ids.join(" ")
        };
        for (query, expected) in [
            ("clientid=example1", "example1"),
            ("_like_clientid=ample", "example1"),
            ("proto_ver=5", "other2"),
            ("clean_start=true", "example1"),
            ("connected=false", ""),
            ("username=nobody", ""),
            ("_like_username=x", ""),
            ("ip_address=127.0.0.1&clientid=other2", "other2"),
            ("session_present=true", ""),
            ("_gte_created_at=9999999999", ""),
            ("_lte_created_at=1", ""),
            ("_gte_connected_at=1&_lte_connected_at=9999999999&clientid=other2", "other2"),
            ("_gte_mqueue_len=1", ""),
            ("_lte_mqueue_len=0&clientid=other2", "other2"),
        ] {
            assert_eq!(found(query), expected, "{query}");
        }
        assert_eq!(api.get("/clients?_limit=10").as_array().unwrap().len(), 2);
        assert_eq!(api.get("/clients?_limit=1").as_array().unwrap().len(), 1);
        for query in ["_limit=0", "_limit=x", "connected=1", "ip_address=x"] {
            assert_eq!(api.fails("GET", &format!("/clients?{query}"), ""), api.refusal(400, 108), "{query}");
        }
        assert_eq!(api.get("/clients/example1/online"), json!(true));
        let id = api.ask("DELETE", "/clients/example1", "");
        let parts: Vec<&str> = id.as_str().unwrap().split('/').collect();
        assert!(parts[0].starts_with("1@127.0.0.1:") && parts[1].starts_with("127.0.0.1:"), "{id}");
        assert_eq!(parts[2..], ["example1", "undefined"], "{id}");
        example.expect_closed();
        for (method, path) in [("DELETE", "/clients/example1"), ("GET", "/clients/example1")] {
            assert_eq!(api.fails(method, path, ""), api.refusal(404, 112));
        }
        assert_eq!(api.get("/clients/example1/online"), json!(false));
        other.disconnect();
        while api.get("/clients/other2/online") == json!(true) {}
        let offline = api.get("/clients/other2");
        assert!(
            offline["disconnected_at"].is_string() && offline["disconnected_reason"].is_string(),
            "{offline}"
        );
        assert_eq!(found("connected=false"), "other2");
        assert!(api.ask("DELETE", "/clients/other2", "").is_string());
    });
}

#[test]
fn subscriptions_and_routes_are_listed() {
    both(|broker, api| {
        let mut example = Peer::connect(broker, Version::V5, "example1");
        example.subscribe("foo/#", QoS::ExactlyOnce);
        example.subscribe("$share/test/foo/+", QoS::ExactlyOnce);
        let row = |topic: &str, share: Value, peer: &Value| json!({"node_id": 1, "clientid": "example1", "client_addr": peer, "topic": topic, "qos": 2, "share": share});
        let mut all = api.get("/subscriptions?_limit=10");
        all.as_array_mut().unwrap().sort_by_key(|s| s["topic"].to_string());
        let peer = all[0]["client_addr"].clone();
        assert!(peer.as_str().unwrap().starts_with("127.0.0.1:"), "{all}");
        assert_eq!(all, json!([row("foo/#", Value::Null, &peer), row("foo/+", json!("test"), &peer)]));
        assert_eq!(api.get("/subscriptions/example1").as_array().unwrap().len(), 2);
        assert_eq!(api.get("/subscriptions/nobody"), json!([]));
        for (query, expected) in [
            ("clientid=example1&qos=2", 2),
            ("topic=foo/%23", 1),
            ("share=test", 1),
            ("qos=1", 0),
            ("_match_topic=foo/1", 2),
            ("_match_topic=foo/1/2", 1),
        ] {
            let found = api.get(&format!("/subscriptions?{query}"));
            assert_eq!(found.as_array().unwrap().len(), expected, "{query}: {found}");
        }
        assert_eq!(api.fails("GET", "/subscriptions?qos=3", ""), api.refusal(400, 108));
        for path in ["/routes", "/routes?_limit=10", "/routes/foo%2f1"] {
            let mut routes = api.get(path);
            routes.as_array_mut().unwrap().sort_by_key(|route| route["topic"].to_string());
            assert_eq!(
                routes,
                json!([{"node_id": 1, "topic": "foo/#"}, {"node_id": 1, "topic": "foo/+"}]),
                "{path}"
            );
        }
        assert_eq!(api.get("/routes/bar"), json!([]));
        assert_eq!(api.fails("GET", "/routes/foo%2f%23", ""), api.refusal(400, 115));
        example.disconnect();
        while api.get("/clients/example1/online") == json!(true) {}
    });
}

#[test]
fn messages_are_published_and_clients_subscribed() {
    both(|broker, api| {
        let mut example = Peer::connect(broker, Version::V5, "example1");
        let body = r#"{"topics":"foo/a,foo/b,foo/c","qos":1,"clientid":"example1"}"#;
        assert_eq!(
            api.ask("POST", "/mqtt/subscribe", body),
            json!({"foo/a": true, "foo/c": true, "foo/b": true})
        );
        example.subscribe("foo/1", QoS::AtLeastOnce);
        for (body, topics, payload) in [
            (
                r#"{"topic":"foo/1","payload":"Hello World","qos":1,"retain":false,"clientid":"example"}"#,
                &["foo/1"][..],
                "Hello World",
            ),
            (
                r#"{"topic":"foo/1","payload":"SGVsbG8gV29ybGQ=","qos":1,"encoding":"base64"}"#,
                &["foo/1"],
                "Hello World",
            ),
            (r#"{"topics":"foo/a,foo/c","payload":"x"}"#, &["foo/a", "foo/c"], "x"),
        ] {
            assert_eq!(api.ask("POST", "/mqtt/publish", body), json!("ok"));
            for topic in topics {
                let message = example.expect_message();
                assert_eq!((message.topic.as_str(), message.text()), (*topic, payload));
            }
        }
        let body = r#"{"topic":"foo/a","clientid":"example1"}"#;
        assert_eq!(api.ask("POST", "/mqtt/unsubscribe", body), json!(true));
        assert_eq!(api.ask("POST", "/mqtt/unsubscribe", body), json!(false));
        for (path, body, status, code) in [
            ("/mqtt/publish", r#"{"payload":"x"}"#, 400, 107),
            ("/mqtt/publish", r#"{"topic":"a"}"#, 400, 107),
            ("/mqtt/publish", r#"{"topic":"a/#","payload":"x"}"#, 400, 115),
            ("/mqtt/publish", r#"{"topic":"","payload":"x"}"#, 400, 115),
            ("/mqtt/publish", r#"{"topic":"a","payload":"x","qos":3}"#, 400, 108),
            ("/mqtt/publish", r#"{"topic":"a","payload":"x","encoding":"hex"}"#, 400, 108),
            ("/mqtt/publish", "x", 400, 109),
            ("/mqtt/subscribe", r#"{"topic":"a"}"#, 400, 107),
            ("/mqtt/subscribe", r#"{"topic":"a","clientid":"nobody"}"#, 404, 112),
            ("/mqtt/subscribe", r#"{"topic":"a#","clientid":"example1"}"#, 400, 115),
            ("/mqtt/unsubscribe", r#"{"topic":"a","clientid":"nobody"}"#, 404, 112),
            ("/mqtt/unsubscribe", r#"{"topics":"a","clientid":"example1"}"#, 400, 107),
        ] {
            assert_eq!(api.fails("POST", path, body), api.refusal(status, code), "{path} {body}");
        }
        example.disconnect();
        while api.get("/clients/example1/online") == json!(true) {}
    });
}

#[test]
fn plugins_are_the_built_in_parts() {
    both(|broker, api| {
        let all = api.get("/plugins");
        assert_eq!(all[0]["node"], 1);
        assert_eq!(all[0]["plugins"], api.get("/plugins/1"));
        let names: Vec<&str> =
            all[0]["plugins"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"rmqtt-http-api") && names.contains(&"rmqtt-retainer"), "{names:?}");
        let one = api.get("/plugins/1/rmqtt-http-api");
        has(&one, &["version", "descr", "attrs"]);
        assert_eq!(
            (&one["active"], &one["inited"], &one["immutable"]),
            (&json!(true), &json!(true), &json!(true))
        );
        let config = api.get("/plugins/1/rmqtt-http-api/config");
        assert_eq!((&config["max_row_limit"], &config["workers"]), (&json!(10_000), &json!(1)));
        assert!(config["http_laddr"].as_str().unwrap().starts_with("127.0.0.1:"), "{config}");
        assert_eq!(api.ask("PUT", "/plugins/1/rmqtt-http-api/config/reload", ""), json!("ok"));
        // What is always there is loaded already, and stays.
        assert_eq!(api.ask("PUT", "/plugins/1/rmqtt-http-api/load", ""), json!("ok"));
        assert_eq!(api.ask("PUT", "/plugins/1/rmqtt-http-api/unload", ""), json!(false));
        assert_eq!(api.get("/plugins/1/rmqtt-http-api")["active"], true);
        // What the configuration does not have is not active, and loading does not bring it.
        for (name, key) in [
            ("rmqtt-acl", "acl_file"),
            ("rmqtt-auth-http", "http_auth_url"),
            ("rmqtt-auth-jwt", "jwt_public_key"),
        ] {
            let path = format!("/plugins/1/{name}");
            let one = api.get(&path);
            let is = (&one["name"], &one["active"], &one["inited"], &one["immutable"]);
            assert_eq!(is, (&json!(name), &json!(false), &json!(false), &json!(true)));
            has(&api.get(&format!("{path}/config")), &[key]);
            assert_eq!(api.fails("PUT", &format!("{path}/load"), ""), api.refusal(409, 108));
            assert_eq!(api.ask("PUT", &format!("{path}/unload"), ""), json!(false));
        }
        // The broker of a test publishes nothing below $SYS.
        assert_eq!(api.get("/plugins/1/rmqtt-sys-topic/config")["interval_s"], 0);
        assert_eq!(api.get("/plugins/1/rmqtt-sys-topic")["active"], false);
        // What is no part of this broker is not there.
        assert_eq!(api.fails("PUT", "/plugins/1/rmqtt-web-hook/load", ""), api.refusal(404, 108));
        // One that can be unloaded does nothing then, on every shard.
        let retainer = "/plugins/1/rmqtt-retainer";
        assert_eq!(api.get(&format!("{retainer}/config"))["retain_available"], true);
        assert_eq!(api.ask("PUT", &format!("{retainer}/unload"), ""), json!(true));
        assert_eq!(api.get(retainer)["active"], false);
        let mut peer = Peer::connect(broker, Version::V5, "retains");
        peer.send_publish("a", b"x", QoS::AtMostOnce, true);
        peer.expect_disconnect(ReasonCode::RETAIN_NOT_SUPPORTED);
        assert_eq!(api.ask("PUT", &format!("{retainer}/load"), ""), json!("ok"));
        assert_eq!(api.get(retainer)["active"], true);
    });
}

#[test]
fn offline_sessions_are_listed_and_ended() {
    both(|broker, api| {
        for id in ["off-1", "off-2"] {
            let (mut client, _) = Peer::login(broker, &Login::lasting(Version::V5, id));
            client.subscribe("q", QoS::AtLeastOnce);
            client.disconnect();
        }
        let (online, _) = Peer::login(broker, &Login::lasting(Version::V5, "on"));
        for id in ["off-1", "off-2"] {
            while api.get(&format!("/clients/{id}/online")) == json!(true) {}
        }
        let ids = |path: &str| {
            let listed = api.get(path);
            let mut ids: Vec<String> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["clientid"].as_str().unwrap().to_owned())
                .collect();
            ids.sort();
            ids.join(" ")
        };
        assert_eq!(ids("/clients/offlines"), "off-1 off-2");
        assert_eq!(ids("/clients/offlines?_like_clientid=-2"), "off-2");
        assert_eq!(ids("/clients/offlines?connected=true"), "");
        assert_eq!(api.get("/clients/offlines?_limit=1")[0], api.get("/clients?connected=false&_limit=1")[0]);
        assert_eq!(api.ask("DELETE", "/clients/offlines?clientid=off-1", ""), json!({"count": 1}));
        assert_eq!(api.ask("DELETE", "/clients/offlines", ""), json!({"count": 1}));
        assert_eq!(ids("/clients"), "on");
        assert!(api.ask("DELETE", "/clients/on", "").is_string());
        drop(online);
    });
}

#[test]
fn retained_messages_are_listed_and_forgotten() {
    both(|broker, api| {
        let mut publisher = Peer::connect(broker, Version::V5, "publisher");
        for n in 0..5 {
            publisher.publish(&format!("r/{n}"), b"Hello World", QoS::AtLeastOnce, true);
        }
        publisher.publish("bytes", &[0xFF, 0], QoS::AtMostOnce, true);
        publisher.ping();
        while api.get("/retains?topic_filter=bytes")["items"] == json!([]) {}
        let page = |query: &str| {
            let body = api.get(&format!("/retains{query}"));
            let items = body["items"].as_array().unwrap().clone();
            let topics = items.iter().map(|r| r["topic"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            (topics, body["has_more"] == json!(true))
        };
        assert_eq!(page("").0.len(), 6);
        let (mut topics, more) = page("?topic_filter=r/%2B");
        topics.sort();
        assert_eq!((topics.join(" ").as_str(), more), ("r/0 r/1 r/2 r/3 r/4", false));
        let mut paged: Vec<String> = Vec::new();
        for (offset, more) in [(0, true), (2, true), (4, false)] {
            let found = page(&format!("?topic_filter=r/%2B&offset={offset}&limit=2"));
            assert_eq!(found.1, more, "{offset}");
            paged.extend(found.0);
        }
        paged.sort();
        assert_eq!(paged, topics);
        let row = |topic: &str, payload: &str, qos: u8| json!({"topic": topic, "client_id": null, "remaining_ttl": null, "publish": {"topic": topic, "payload": payload, "qos": qos, "retain": true}});
        assert_eq!(api.get("/retains?topic_filter=r/3")["items"], json!([row("r/3", "SGVsbG8gV29ybGQ=", 1)]));
        assert_eq!(api.get("/retains?topic_filter=bytes")["items"], json!([row("bytes", "/wA=", 0)]));
        assert_eq!(api.ask("DELETE", "/retains?topic=r/3", ""), json!("ok"));
        for (method, path, status, code) in [
            ("DELETE", "/retains?topic=r/3", 404, 108),
            ("DELETE", "/retains?topic=r/%23", 400, 115),
            ("DELETE", "/retains", 400, 107),
            ("GET", "/retains?topic_filter=a/%23/b", 400, 115),
            ("GET", "/retains?offset=-1", 400, 108),
        ] {
            assert_eq!(api.fails(method, path, ""), api.refusal(status, code), "{method} {path}");
        }
        for topic in ["r/0", "r/1", "r/2", "r/4", "bytes"] {
            assert_eq!(api.ask("DELETE", &format!("/retains?topic={topic}"), ""), json!("ok"));
        }
        assert_eq!(page("").0, [""; 0]);
        publisher.disconnect();
    });
}
