//! Events and traces: what is told of what real clients do.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, Read, Sse};
use crate::{conforms, served, told};
use ringmq::codec::{AckKind, ReasonCode, Version};
use ringmq::limits::{EVENTS_LISTENERS_MAX, TRACES_MAX};
use ringmq::message::QoS;
use serde_json::{Value, json};
use std::time::Duration;

/// Events of one client up to the one of this kind.
fn up_to(stream: &mut Sse, kind: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = stream.event();
        let last = event["event"] == kind;
        events.push(event);
        if last {
            return events;
        }
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn what_clients_do_is_told_in_order() {
    served(&[], |broker, http| {
        let mut stream = http.events("/api/v4/events?clientid=one");
        let mut other = Peer::connect(broker, Version::V5, "other");
        let mut login = Login::new(Version::V5, "one");
        (login.keep_alive_s, login.username) = (60, Some("u".to_owned()));
        let (mut peer, _) = Peer::login(broker, &login);
        other.subscribe("x", QoS::AtMostOnce);
        assert_eq!(peer.subscribe("$share/g/a/+", QoS::AtLeastOnce), 1);
        for filter in ["$share/g/a/+", "never"] {
            peer.send_unsubscribe(filter);
            peer.next();
        }
        peer.disconnect();
        let events = up_to(&mut stream, "session_ended");
        let expected =
            ["session_created", "connected", "subscribed", "unsubscribed", "disconnected", "session_ended"];
        assert_eq!(kinds(&events), expected);
        let of = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
        let connected = of("connected");
        for (name, value) in [
            ("clientid", json!("one")),
            ("username", json!("u")),
            ("ip_address", json!("127.0.0.1")),
            ("proto_ver", json!(5)),
            ("proto_name", json!("MQTT")),
            ("keepalive", json!(60)),
            ("clean_start", json!(true)),
            ("session_present", json!(false)),
        ] {
            assert_eq!(connected[name], value, "{name}");
        }
        assert_eq!(
            (&of("subscribed")["topic"], &of("subscribed")["qos"]),
            (&json!("$share/g/a/+"), &json!(1))
        );
        assert_eq!(
            (&of("disconnected")["reason"], &of("disconnected")["reason_code"]),
            (&json!("normal"), &json!(0))
        );
    });
}

#[test]
fn each_way_to_go_has_its_reason() {
    served(&[], |broker, http| {
        let mut stream = http.events("/api/v4/events?types=disconnected,refused");
        let mut reason = |expected: (&str, &str, Value)| {
            let event = stream.event();
            let found = (event["event"].as_str().unwrap(), event["reason"].as_str().unwrap());
            assert_eq!((found, &event["reason_code"]), ((expected.0, expected.1), &expected.2), "{event}");
        };
        drop(Peer::connect(broker, Version::V5, "cut"));
        reason(("disconnected", "closed", Value::Null));
        let mut peer = Peer::connect(broker, Version::V5, "kicked");
        assert_eq!(http.delete("/api/v4/clients/kicked").status, 200);
        peer.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
        reason(("disconnected", "kicked", json!(0x98)));
        let _first = Peer::connect(broker, Version::V5, "twice");
        let _second = Peer::connect(broker, Version::V5, "twice");
        reason(("disconnected", "takeover", json!(0x8E)));
        // A session that is to be kept needs a name.
        let _refused = Peer::try_login(broker, &Login::lasting(Version::V311, ""));
        reason(("refused", "client_identifier_not_valid", json!(0x85)));
    });
}

#[test]
fn packets_of_a_client_are_traced_and_nothing_of_others() {
    served(&[], |broker, http| {
        let mut before = Peer::connect(broker, Version::V311, "traced");
        let mut other = Peer::connect(broker, Version::V5, "other");
        let mut stream = http.events("/api/v4/events?types=packet&clientid=traced");
        before.ping();
        other.ping();
        other.subscribe("t/#", QoS::AtMostOnce);
        drop(before);
        // The trace holds for the next connection as well, from its CONNECT on.
        let mut login = Login::new(Version::V5, "traced");
        login.username = Some("u".to_owned());
        let (mut peer, _) = Peer::login(broker, &login);
        peer.subscribe("own", QoS::AtLeastOnce);
        peer.send_publish("own", b"hello", QoS::AtLeastOnce, false);
        // PUBACK and PUBLISH, in either order.
        for _ in 0..2 {
            if let Some(id) = peer.next().message().and_then(|message| message.packet_id) {
                peer.ack(AckKind::PubAck, id);
            }
        }
        peer.disconnect();
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains("from DISCONNECT")) {
            let event = stream.event();
            assert_eq!(event["clientid"], "traced", "{event}");
            let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            lines.push(format!("{} {} {}", word("direction"), word("packet"), word("text")));
        }
        for part in [
            "from PINGREQ",
            "to PINGRESP",
            "from CONNECT level 5, client \"traced\", clean 1, keep alive 0, user \"u\"",
            "to CONNACK 0x00 Success, session 0",
            "from SUBSCRIBE id ",
            "to SUBACK id ",
            "QoS 1, \"own\", 5 bytes: \"hello\"",
            "to PUBACK id ",
            "to PUBLISH id ",
            "from PUBACK id ",
        ] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:#?}");
        }
        assert!(lines[0].starts_with("from PINGREQ") && lines[1].starts_with("to PINGRESP"), "{lines:#?}");
    });
}

#[test]
fn a_topic_is_traced_from_its_publishers_to_its_subscribers() {
    served(&[], |broker, http| {
        let mut stream = http.events("/api/v4/events?types=packet&topic=t%2F%2B&count=4");
        let mut publisher = Peer::connect(broker, Version::V5, "publisher");
        let mut subscriber = Peer::connect(broker, Version::V311, "subscriber");
        subscriber.subscribe("#", QoS::AtMostOnce);
        for topic in ["t/1", "u/1", "t/1/2"] {
            publisher.publish(topic, b"x", QoS::AtLeastOnce, false);
        }
        assert_eq!(http.post("/api/v4/mqtt/publish", r#"{"topic": "t/2", "payload": "y"}"#).status, 200);
        let mut found: Vec<(String, String, String)> = Vec::new();
        while let Some(event) = stream.next_event() {
            let word = |name: &str| event[name].as_str().unwrap().to_owned();
            found.push((word("direction"), word("clientid"), word("topic")));
        }
        found.sort();
        let expected = [
            ("from", "", "t/2"),
            ("from", "publisher", "t/1"),
            ("to", "subscriber", "t/1"),
            ("to", "subscriber", "t/2"),
        ];
        assert_eq!(found, expected.map(|(d, c, t)| (d.to_owned(), c.to_owned(), t.to_owned())));
    });
}

#[test]
fn a_trace_is_written_to_a_file_until_it_is_stopped() {
    let folder = std::env::temp_dir().join(format!("ringmq-trace-{}", std::process::id()));
    served(&[("broker.data_dir", folder.to_str().unwrap())], |broker, http| {
        let body = r#"{"type": "client", "value": "a/b", "file": "one.log"}"#;
        let started = http.post("/api/v4/traces", body).json();
        conforms("POST", "/api/v4/traces", &started);
        let path = started["data"]["path"].as_str().unwrap().to_owned();
        assert_eq!(http.post("/api/v4/traces", body).status, 409, "the file is being written");
        let mut peer = Peer::connect(broker, Version::V5, "a/b");
        peer.ping();
        let rows = || told(http, "/api/v4/traces", "/api/v4/traces")["data"].clone();
        while rows()[0]["lines"].as_u64().unwrap() < 4 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(rows()[0]["status"], "running");
        assert_eq!(http.delete("/api/v4/traces/one.log").status, 200);
        assert_eq!(http.delete("/api/v4/traces/one.log").status, 404);
        assert_eq!(rows(), json!([]));
        let text = std::fs::read_to_string(&path).unwrap();
        let words: Vec<&str> = text.lines().map(|line| line.split(' ').nth(5).unwrap()).collect();
        assert_eq!(words, ["CONNECT", "CONNACK", "PINGREQ", "PINGRESP"], "{text}");
        assert!(text.lines().all(|line| line.contains(" a/b (127.0.0.1:")), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

#[test]
fn what_cannot_be_listened_to_is_refused() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let http = Http::of(&broker);
    for (path, status) in [
        ("/api/v4/events?types=nothing", 400),
        ("/api/v4/events?types=packet", 400),
        ("/api/v4/events?types=packet&topic=a%23", 400),
        ("/api/v4/events?count=0", 400),
    ] {
        assert_eq!(http.get(path).status, status, "{path}");
    }
    for body in [
        r#"{"type": "client", "value": "x", "file": "../x"}"#,
        r#"{"type": "client", "value": ""}"#,
        r#"{"type": "session", "value": "x"}"#,
        r#"{"type": "topic", "value": "a#"}"#,
    ] {
        assert_eq!(http.post("/api/v4/traces", body).status, 400, "{body}");
    }
    let traces: Vec<_> =
        (0..TRACES_MAX).map(|n| http.events(&format!("/api/v4/events?types=packet&clientid={n}"))).collect();
    assert_eq!(http.get("/api/v4/events?types=packet&topic=t").status, 503, "as much is traced as can be");
    let streams: Vec<_> = (TRACES_MAX..EVENTS_LISTENERS_MAX).map(|_| http.events("/api/v4/events")).collect();
    assert_eq!(http.get("/api/v4/events?seconds=1").status, 503, "there are as many listeners as can be");
    drop((traces, streams));
    // Those that have gone make room.
    while http.get("/api/v4/events?seconds=1").status != 200 {}
    broker.stop();
}

#[test]
fn streams_end_with_the_broker() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let mut stream = Http::of(&broker).events("/api/v4/events?types=disconnected");
    let _peer = Peer::connect(&broker, Version::V5, "last");
    broker.stop();
    let last = stream.next_event().expect("what happens while it stops is told");
    assert_eq!((&last["clientid"], &last["reason"]), (&json!("last"), &json!("server_shutting_down")));
    assert_eq!(stream.next_event(), None);
}

#[test]
fn clients_that_come_and_go_are_published_where_that_is_wanted() {
    served(&[("sys.client_events", "true")], |broker, _| {
        let mut watcher = Peer::connect(broker, Version::V311, "watcher");
        assert_eq!(watcher.subscribe("$SYS/brokers/+/clients/#", QoS::AtMostOnce), 0);
        // The broker serves before it listens to itself: the first ones may come too early.
        loop {
            Peer::connect(broker, Version::V5, "early").disconnect();
            if let Read::Packet(_) = watcher.read_packet(Duration::from_millis(100)) {
                break;
            }
        }
        Peer::connect(broker, Version::V5, "one").disconnect();
        let node = "$SYS/brokers/ringmq@127.0.0.1/clients/one";
        let mut next = |word: &str| -> Value {
            loop {
                let message = watcher.expect_message();
                if message.topic == format!("{node}/{word}") {
                    return serde_json::from_str(message.text()).unwrap();
                }
                let others = ["/clients/watcher/", "/clients/early/"];
                assert!(others.iter().any(|other| message.topic.contains(other)), "{}", message.topic);
            }
        };
        let connected = next("connected");
        let expected = json!({"clientid": "one", "username": "", "ipaddress": "127.0.0.1", "connack": 0,
            "ts": connected["ts"], "proto_ver": 5, "proto_name": "MQTT", "clean_start": true, "keepalive": 0});
        assert_eq!(connected, expected);
        let gone = next("disconnected");
        assert_eq!(gone, json!({"clientid": "one", "username": "", "reason": "normal", "ts": gone["ts"]}));
    });
}
