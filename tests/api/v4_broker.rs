//! `/api/v4`: the broker itself.

use crate::common::{Broker, DRIVERS, Driver, Http, Login, Peer};
use crate::{served, told};
use ringmq::codec::Version;
use ringmq::message::QoS;
use serde_json::{Value, json};

#[test]
fn the_endpoints_are_listed_as_in_the_example() {
    let broker = Broker::start_http(Driver::Epoll, 1, &[]);
    let body = told(Http::of(&broker), "/api/v4", "/api/v4");
    let listed: Vec<(&str, &str, &str)> = body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["path"].as_str().unwrap(), e["name"].as_str().unwrap(), e["method"].as_str().unwrap()))
        .collect();
    for expected in [
        ("/brokers/", "list_brokers", "GET"),
        ("/nodes/", "list_nodes", "GET"),
        ("/clients/", "list_clients", "GET"),
        ("/clients/:clientid", "lookup_client", "GET"),
        ("/clients/username/:username", "lookup_client_via_username", "GET"),
        ("/subscriptions/", "list_subscriptions", "GET"),
        ("/subscriptions/:clientid", "lookup_client_subscriptions", "GET"),
        ("/topic-tree/", "list_topic-tree", "GET"),
        ("/configuration/", "get_broker_configuration", "GET"),
        ("/configuration/", "set_broker_configuration", "POST"),
        ("/ctrl/:action", "ctrl_broker", "POST"),
    ] {
        assert!(listed.contains(&expected), "{expected:?} in {listed:#?}");
    }
    broker.stop();
}

#[test]
fn brokers_and_nodes_say_what_runs() {
    let settings = [("node.id", "7"), ("node.name", "edge@10.0.0.1")];
    served(&settings, |broker, http| {
        let _clients: Vec<Peer> =
            (0..5).map(|n| Peer::connect(broker, Version::V311, &format!("client-{n}"))).collect();
        Peer::login(broker, &Login::lasting(Version::V5, "offline")).0.disconnect();
        let body = told(http, "/api/v4/brokers", "/api/v4/brokers");
        let row = &body["data"][0];
        let expected = json!({"node_status": "Running", "version": env!("CARGO_PKG_VERSION"), "sysdescr": "ringmq Broker",
                              "node": "edge@10.0.0.1", "node_id": 7});
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&row[name], value, "{name}");
        }
        assert!(row["uptime"].as_str().unwrap().starts_with("0 hours, 0 minutes, "), "{row}");
        assert_eq!(row["datetime"].as_str().unwrap().len(), 19);
        let row = &told(http, "/api/v4/nodes", "/api/v4/nodes")["data"][0];
        let counts = (&row["connections"], &row["sessions"], &row["shards"], &row["node_status"]);
        assert_eq!(counts, (&json!(5), &json!(6), &json!(3), &json!("Running")));
        // With a slash at the end, as the list of endpoints has it.
        assert_eq!(http.get("/api/v4/nodes/").status, 200);
    });
}

#[test]
fn listeners_count_their_connections() {
    served(&[], |broker, http| {
        let _peers: Vec<Peer> =
            (0..5).map(|n| Peer::connect(broker, Version::V5, &format!("client-{n}"))).collect();
        let listener =
            || told(http, "/api/v4/listeners", "/api/v4/listeners")["data"][0]["listeners"][0].clone();
        let row = listener();
        assert_eq!(row["protocol"], "mqtt:tcp");
        assert_eq!(row["listen_on"], broker.addr().to_string());
        assert_eq!(row["acceptors"], 3);
        // Shards count one after the other: one that went home meanwhile is counted at both ends.
        while listener()["current_conns"] != 5 {}
    });
}

/// On one shard: among several, a connection on its way home takes a place where it was accepted as well.
#[test]
fn a_full_broker_raises_an_alarm_until_there_is_room() {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 1, &[("broker.max_connections", "2")]);
        let http = Http::of(&broker);
        let listed = |path: &str| told(http, path, path)["data"][0]["alarms"].clone();
        let first = Peer::connect(&broker, Version::V5, "first");
        assert_eq!(listed("/api/v4/alarms"), json!([]));
        let last = Peer::connect(&broker, Version::V5, "last");
        let all = listed("/api/v4/alarms");
        let row = (&all[0]["name"], &all[0]["activated"], &all[0]["deactivate_at"]);
        assert_eq!(row, (&json!("connections_full"), &json!(true), &json!("infinity")));
        let active = listed("/api/v4/alarms/activated");
        assert_eq!((active.as_array().unwrap().len(), &active[0]["name"]), (1, row.0));
        // Once there is room again it is history.
        [first, last].into_iter().for_each(Peer::disconnect);
        while listed("/api/v4/alarms/activated") != json!([]) {}
        let past = listed("/api/v4/alarms/deactivated");
        assert_eq!((&past[0]["name"], &past[0]["activated"]), (&json!("connections_full"), &json!(false)));
        assert_eq!(listed("/api/v4/alarms"), past);
        assert_eq!(http.delete("/api/v4/alarms/deactivated").status, 200);
        assert_eq!(listed("/api/v4/alarms"), json!([]));
        broker.stop();
    }
}

#[test]
fn losses_are_told_by_cause_and_client() {
    served(&[("mqtt.max_mqueue", "3")], |broker, http| {
        let mut slow = Peer::login(broker, &Login::lasting(Version::V5, "slow")).0;
        slow.subscribe("q", QoS::AtLeastOnce);
        slow.disconnect();
        let mut publisher = Peer::connect(broker, Version::V311, "publisher");
        (0..10).for_each(|_| publisher.publish("q", b"x", QoS::AtLeastOnce, false));
        publisher.publish("q", b"x", QoS::AtMostOnce, false);
        publisher.ping();
        let mut body = Value::Null;
        // The QoS 0 message has no answer that tells when it is with its shard.
        while body["count"] != 8 {
            body = told(http, "/api/v4/losses", "/api/v4/losses");
            assert!(body["count"].as_u64().unwrap() <= 8, "{body}");
        }
        assert_eq!((&body["causes"]["queue_full"], &body["causes"]["offline_qos0"]), (&json!(7), &json!(1)));
        let row = &body["data"][0];
        assert_eq!(
            (&row["clientid"], &row["count"], &row["causes"]["queue_full"]),
            (&json!("slow"), &json!(8), &json!(7))
        );
        assert_eq!(body["meta"]["count"], 1);
    });
}
