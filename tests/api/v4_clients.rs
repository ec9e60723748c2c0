//! `/api/v4/clients`: the examples of both documents, every parameter, pages.

use crate::common::{Broker, Http, Login, Peer, ids};
use crate::{conforms, served, told};
use ringmq::codec::{AckKind, Packet, ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CLIENTS: &str = "/api/v4/clients";
const ONE: &str = "/api/v4/clients/{clientid}";

fn login(broker: &Broker, login: Login) -> Peer {
    Peer::login(broker, &login).0
}

fn named(id: &str, username: &str) -> Login {
    Login { username: Some(username.into()), keep_alive_s: 60, ..Login::new(Version::V311, id) }
}

/// The identifiers of a list, in its order.
fn found(http: Http, path: &str) -> Vec<String> {
    let body = told(http, CLIENTS, path);
    body["data"].as_array().unwrap().iter().map(|c| c["clientid"].as_str().unwrap().to_owned()).collect()
}

/// A client without its memory, of which a send that is under way is a part.
fn still(client: &Value) -> Value {
    let mut client = client.clone();
    client.as_object_mut().unwrap().remove("heap_size");
    client
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn the_examples_of_the_clients_document() {
    served(&[], |broker, http| {
        let connect = named("emqx_c_1", "test");
        let connect_bytes = connect.bytes().len();
        let mut client = login(broker, connect);
        for filter in ["a", "b/+", "c/#", "d"] {
            assert_eq!(client.subscribe(filter, QoS::AtLeastOnce), 1);
        }
        let mut publisher = Peer::connect(broker, Version::V311, "publisher");
        publisher.publish("a", b"one", QoS::AtMostOnce, false);
        publisher.publish("b/x", b"two", QoS::AtMostOnce, false);
        (0..2).for_each(|_| drop(client.expect_message()));
        let body = told(http, CLIENTS, "/api/v4/clients?_page=1&_limit=10");
        assert_eq!(body["meta"], json!({"page": 1, "limit": 10, "count": 2, "hasnext": false}));
        let data = body["data"].as_array().unwrap();
        let listed = data.iter().find(|c| c["clientid"] == "emqx_c_1").unwrap();
        let body = told(http, ONE, "/api/v4/clients/emqx_c_1");
        assert_eq!(body["code"], 0);
        let one = &body["data"][0];
        assert_eq!(still(one), still(listed));
        // Two of them have a filter of five bytes behind their length and QoS, two of one byte; the messages have
        // 3 + 1 and 3 + 3 bytes behind a fixed header of 2 and a topic length of 2.
        let subscribes = 4 * 7 + 1 + 3 + 3 + 1;
        let expected = json!({
            "node": "ringmq@127.0.0.1", "client_id": "emqx_c_1", "username": "test", "proto_name": "MQTT",
            "proto_ver": 4, "ip_address": "127.0.0.1", "is_bridge": false, "connected": true,
            "conn_state": "connected", "disconnected_at": null, "zone": "external", "keepalive": 60,
            "clean_start": true, "expiry_interval": 0, "subscriptions_cnt": 4, "max_subscriptions": 10_000,
            "inflight": 0, "max_inflight": 32, "mqueue_len": 0, "max_mqueue": 1_000, "mqueue_dropped": 0,
            "awaiting_rel": 0, "max_awaiting_rel": 100, "recv_pkt": 5, "recv_msg": 0, "send_pkt": 7, "send_msg": 2,
            "recv_cnt": 5, "recv_oct": connect_bytes + subscribes, "send_oct": 4 + 4 * 5 + 8 + 10,
            "mailbox_len": 0, "mountpoint": "undefined", "reductions": 12
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&one[name], value, "{name}: {one:#}");
        }
        assert_eq!(one["port"], client.socket().local_addr().unwrap().port());
        // Two messages may leave in one send.
        assert!((6..=7).contains(&one["send_cnt"].as_u64().unwrap()), "{one}");
        assert!(one["heap_size"].as_u64() > Some(200), "{one}");
        assert_eq!(one["connected_at"].as_str().unwrap().len(), 19);
        assert_eq!(http.delete("/api/v4/clients/emqx_c_1").json(), json!({"code": 0}));
        client.expect_closed();
        assert_eq!(http.get("/api/v4/clients/emqx_c_1").status, 404);
    });
}

#[test]
fn the_examples_of_nanomq() {
    served(&[], |broker, http| {
        let v5 = |id: &str, name: &str| Login { version: Version::V5, ..named(id, name) };
        let mut alvin = login(broker, v5("nanomq-f6d6fbfb", "alvin"));
        let _other = login(broker, v5("nanomq-bdf61d9b", "nanomq"));
        let _nobody = Peer::connect(broker, Version::V5, "nanomq-29978ec1");
        (0..3).for_each(|_| alvin.publish("t", b"x", QoS::AtLeastOnce, false));
        let one = &told(http, ONE, "/api/v4/clients/nanomq-f6d6fbfb")["data"][0];
        let example = json!({
            "client_id": "nanomq-f6d6fbfb", "username": "alvin", "keepalive": 60, "conn_state": "connected",
            "clean_start": true, "proto_name": "MQTT", "proto_ver": 5, "recv_msg": 3
        });
        for (name, value) in example.as_object().unwrap() {
            assert_eq!(&one[name], value, "{name}");
        }
        assert_eq!(told(http, ONE, "/api/v4/clients/nanomq-29978ec1")["data"][0]["username"], "");
        let by_name = told(http, "/api/v4/clients/username/{username}", "/api/v4/clients/username/alvin");
        assert_eq!(still(&by_name["data"][0]), still(one));
        assert_eq!(by_name["meta"]["count"], 1);
    });
}

#[test]
fn each_parameter_of_the_query_finds_what_it_says() {
    served(&[], |broker, http| {
        let mut left =
            login(broker, Login { username: Some("ann".into()), ..Login::lasting(Version::V5, "lasting") });
        left.subscribe("q", QoS::AtLeastOnce);
        left.disconnect();
        let _a = login(broker, named("alpha", "ann"));
        let _b = login(broker, named("beta", "bob"));
        let _c =
            login(broker, Login { username: Some("bob".into()), ..Login::lasting(Version::V5, "gamma") });
        let mut p = Peer::connect(broker, Version::V31, "old");
        (0..3).for_each(|_| p.publish("q", b"x", QoS::AtLeastOnce, false));
        let all = ["lasting", "alpha", "beta", "gamma", "old"];
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let (before, after) = (time - 1_000, time + 1_000);
        let online = ["alpha", "beta", "gamma", "old"];
        let cases: &[(&str, &[&str])] = &[
            ("clientid=beta", &["beta"]),
            ("clientid=nobody", &[]),
            ("username=bob", &["beta", "gamma"]),
            ("zone=external", &all),
            ("zone=internal", &[]),
            ("ip_address=127.0.0.1", &all),
            ("ip_address=127.0.0.2", &[]),
            ("conn_state=connected", &online),
            ("conn_state=disconnected", &["lasting"]),
            ("conn_state=idle", &[]),
            ("connected=false", &["lasting"]),
            ("clean_start=false", &["lasting", "gamma"]),
            ("session_present=false", &all),
            ("proto_name=MQTT", &all),
            ("proto_name=CoAP", &[]),
            ("proto_ver=4", &["alpha", "beta"]),
            ("proto_ver=3", &["old"]),
            ("proto_ver=6", &[]),
            ("_like_clientid=eta", &["beta"]),
            ("_like_clientid=a%6Cph", &["alpha"]),
            ("_like_username=o", &["beta", "gamma"]),
            (&format!("_gte_created_at={before}"), &all),
            (&format!("_gte_created_at={after}"), &[]),
            (&format!("_lte_created_at={after}"), &all),
            (&format!("_lte_created_at={before}"), &[]),
            (&format!("_gte_connected_at={before}&_lte_connected_at={after}"), &all),
            (&format!("_lte_connected_at={before}"), &[]),
            ("_gte_mqueue_len=3", &["lasting"]),
            ("_lte_mqueue_len=2", &online),
            ("username=bob&proto_ver=5&conn_state=connected", &["gamma"]),
        ];
        for (query, expected) in cases {
            let body = told(http, CLIENTS, &format!("/api/v4/clients?{query}"));
            let ids =
                body["data"].as_array().unwrap().iter().map(|c| c["clientid"].as_str().unwrap().to_owned());
            assert_eq!(ids.collect::<BTreeSet<_>>(), set(expected), "{query}");
            assert_eq!(body["meta"]["count"], expected.len(), "{query}");
        }
        for wrong in [
            "conn_state=on",
            "proto_ver=x",
            "clean_start=2",
            "ip_address=here",
            "_page=0",
            "_limit=-1",
            "_page=x",
        ] {
            let answer = http.get(&format!("/api/v4/clients?{wrong}"));
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(108)), "{wrong}");
        }
    });
}

#[test]
fn pages_hold_each_client_once_on_all_shards_and_in_any_order() {
    served(&[], |broker, http| {
        let names = ids("paged", 45);
        let _peers: Vec<Peer> = names.iter().map(|id| Peer::connect(broker, Version::V311, id)).collect();
        let page = |n: u64| told(http, CLIENTS, &format!("/api/v4/clients?_page={n}&_limit=7"));
        let mut seen = Vec::new();
        for n in 1..=7 {
            let body = page(n);
            assert_eq!(body["meta"], json!({"page": n, "limit": 7, "count": 45, "hasnext": n < 7}));
            assert_eq!(body["data"].as_array().unwrap().len(), if n < 7 { 7 } else { 3 });
            seen.extend(
                body["data"].as_array().unwrap().iter().map(|c| c["clientid"].as_str().unwrap().to_owned()),
            );
        }
        assert_eq!(seen.len(), 45);
        assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), names.iter().cloned().collect());
        // From the start for another size, and to and fro.
        for n in [5, 2, 3, 7, 1, 6] {
            let start = (n as usize - 1) * 7;
            let expected = &seen[start..(start + 7).min(45)];
            assert_eq!(found(http, &format!("/api/v4/clients?_page={n}&_limit=7")), expected, "page {n}");
        }
        assert_eq!(found(http, "/api/v4/clients?_page=3&_limit=20"), seen[40..]);
        assert_eq!(found(http, "/api/v4/clients?_page=9&_limit=7"), [""; 0]);
        assert_eq!(found(http, "/api/v4/clients?_page=2&_limit=9223372036854775807"), [""; 0]);
    });
}

#[test]
fn a_kicked_client_is_told_so_and_its_will_is_published() {
    served(&[], |broker, http| {
        let mut watcher = Peer::connect(broker, Version::V5, "watcher");
        watcher.subscribe("will/#", QoS::AtLeastOnce);
        let lasting = Login::lasting(Version::V5, "kicked").will("will/kicked", b"gone");
        let (mut client, _) = Peer::login(broker, &lasting);
        assert_eq!(http.delete("/api/v4/clients/kicked").json(), json!({"code": 0}));
        client.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
        let will = watcher.expect_message();
        assert_eq!((will.topic.as_str(), will.text()), ("will/kicked", "gone"));
        watcher.ack(AckKind::PubAck, will.packet_id.unwrap());
        let (client, present) = Peer::login(broker, &lasting);
        assert!(!present, "its session has ended");
        client.disconnect();
    });
}

#[test]
fn offline_sessions_are_listed_with_what_their_connection_was_and_deleted() {
    served(&[("mqtt.max_mqueue", "5")], |broker, http| {
        let offlines = "/api/v4/clients/offlines";
        for id in ["off-1", "off-2", "off-3"] {
            let mut client = login(broker, Login { keep_alive_s: 30, ..Login::lasting(Version::V5, id) });
            client.subscribe("q/#", QoS::AtLeastOnce);
            if id == "off-2" { client.cut() } else { client.disconnect() }
        }
        let _online = login(broker, Login::lasting(Version::V5, "on"));
        let mut publisher = Peer::connect(broker, Version::V5, "publisher");
        // The one that was cut is offline once the broker has seen it.
        while found(http, offlines).len() < 3 {
            publisher.ping();
        }
        (0..8).for_each(|_| publisher.publish("q/1", b"x", QoS::AtLeastOnce, false));
        let body = told(http, offlines, offlines);
        assert_eq!(body["meta"]["count"], 3);
        let row =
            |id: &str| body["data"].as_array().unwrap().iter().find(|c| c["clientid"] == id).unwrap().clone();
        let expected = json!({
            "connected": false, "conn_state": "disconnected", "keepalive": 30, "proto_ver": 5,
            "ip_address": "127.0.0.1", "mqueue_len": 5, "mqueue_dropped": 3, "expiry_interval": 3600,
            "recv_pkt": 3, "send_pkt": 2, "subscriptions_cnt": 1
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&row("off-1")[name], value, "{name}");
        }
        assert_eq!(row("off-1")["disconnected_reason"], "Normal disconnection");
        assert_eq!(row("off-2")["disconnected_reason"], "The connection ended without DISCONNECT");
        assert_eq!(row("off-1")["disconnected_at"].as_str().map(str::len), Some(19));
        // One by its name, then by a query, then the rest; never one that is connected.
        assert_eq!(http.delete("/api/v4/clients/off-1").json(), json!({"code": 0}));
        let deleted = http.delete("/api/v4/clients/offlines?clientid=on").json();
        conforms("DELETE", offlines, &deleted);
        assert_eq!(deleted["count"], 0);
        assert_eq!(http.delete("/api/v4/clients/offlines?_like_clientid=-2").json()["count"], 1);
        assert_eq!(http.delete(offlines).json()["count"], 1);
        let left: Vec<Value> = told(http, CLIENTS, CLIENTS)["data"].as_array().unwrap().clone();
        assert_eq!(left.len(), 2, "{left:?}");
        // What they had queued is in the ledger.
        let losses = told(http, "/api/v4/losses", "/api/v4/losses");
        assert_eq!(losses["causes"]["session_ended"], 15);
        assert_eq!(losses["causes"]["queue_full"], 9);
        publisher.send(&Packet::PingReq);
    });
}

#[test]
fn nothing_is_remembered_of_rights_that_nobody_was_asked_about() {
    served(&[], |broker, http| {
        let peer = Peer::connect(broker, Version::V5, "asked");
        let (one, all) = ("/api/v4/clients/{clientid}/acl_cache", "/api/v4/acl-cache");
        let listed = http.json("/api/v4/clients/asked/acl_cache");
        conforms("GET", one, &listed);
        assert_eq!(listed["data"], json!([]));
        conforms("DELETE", one, &http.delete("/api/v4/clients/asked/acl_cache").json());
        conforms("DELETE", all, &http.delete(all).json());
        assert_eq!(http.get("/api/v4/clients/nobody/acl_cache").status, 404);
        peer.disconnect();
    });
}
