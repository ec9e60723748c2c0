//! `/api/v4/mqtt/…`: the examples, and what is refused.

use crate::common::{Http, Peer};
use crate::{conforms, served};
use ringmq::codec::{AckKind, Packet, Property, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};

/// POST that is expected to be answered with 200, and as the OpenAPI document says.
fn post(http: Http, path: &str, body: &str) -> Value {
    let answer = http.post(path, body);
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    conforms("POST", path, &answer.json());
    answer.json()
}

fn refused(http: Http, path: &str, body: &str) -> (u16, u64) {
    let answer = http.post(path, body);
    (answer.status, answer.json()["code"].as_u64().unwrap())
}

/// Everything that comes to a client next: topic and payload.
fn next(peer: &mut Peer) -> (String, String) {
    let message = peer.expect_message();
    if let Some(packet_id) = message.packet_id {
        peer.ack(AckKind::PubAck, packet_id);
    }
    (message.topic.clone(), message.text().to_owned())
}

#[test]
fn the_example_of_publish_arrives_with_its_properties() {
    served(&[], |broker, http| {
        let mut subscriber = Peer::connect(broker, Version::V5, "subscriber");
        subscriber.subscribe("a/b/c", QoS::AtLeastOnce);
        let body = r#"{"topic":"a/b/c", "payload":"Hello World", "qos":1, "retain":false, "clientid":"example", "properties": {"user_properties": { "id": 10010, "name": "name", "foo": "bar"}, "content_type": "text/plain"}}"#;
        assert_eq!(post(http, "/api/v4/mqtt/publish", body), json!({"code": 0}));
        let received = subscriber.next();
        let Packet::Publish(p) = received.packet() else { panic!("PUBLISH, got {received:?}") };
        assert_eq!(
            (p.topic, p.payload, p.qos, p.retain),
            ("a/b/c", &b"Hello World"[..], QoS::AtLeastOnce, false)
        );
        let mut properties: Vec<_> = p.properties.iter().map(|p| format!("{p:?}")).collect();
        properties.sort();
        let mut expected: Vec<_> = [
            Property::ContentType("text/plain"),
            Property::UserProperty("foo", "bar"),
            Property::UserProperty("id", "10010"),
            Property::UserProperty("name", "name"),
        ]
        .iter()
        .map(|p| format!("{p:?}"))
        .collect();
        expected.sort();
        assert_eq!(properties, expected);
    });
}

#[test]
fn a_batch_is_published_in_its_order_and_answers_for_each_topic() {
    served(&[], |broker, http| {
        let mut subscriber = Peer::connect(broker, Version::V5, "subscriber");
        subscriber.subscribe("#", QoS::AtLeastOnce);
        let body = r#"[{"topic":"a/b/c","payload":"Hello World","qos":1,"retain":false,"clientid":"example","properties": {"user_properties":{"id": 10010, "name": "nanomq", "foo": "bar"}}},{"topic":"a/b/c","payload":"Hello World Again","qos":0,"retain":false,"clientid":"example","properties":{"user_properties": { "id": 10010, "name": "nanomq", "foo": "bar"},"content_type": "text/plain"}}]"#;
        let path = "/api/v4/mqtt/publish_batch";
        let expected =
            json!({"data": [{"topic": "a/b/c", "code": 0}, {"topic": "a/b/c", "code": 0}], "code": 0});
        assert_eq!(post(http, path, body), expected);
        assert_eq!(next(&mut subscriber).1, "Hello World");
        assert_eq!(next(&mut subscriber).1, "Hello World Again");
        let many: Vec<Value> =
            (0..200).map(|n| json!({"topics": "x,y", "payload": n.to_string(), "qos": 1})).collect();
        let answer = post(http, path, &json!(many).to_string());
        assert_eq!(answer["data"].as_array().unwrap().len(), 400);
        for n in 0..200 {
            for topic in ["x", "y"] {
                assert_eq!(next(&mut subscriber), (topic.to_owned(), n.to_string()));
            }
        }
        let mixed = json!([{"topic": "a/#", "payload": ""}, {"topic": "ok", "payload": "1"}]);
        let answer = post(http, path, &mixed.to_string());
        assert_eq!(answer["data"], json!([{"topic": "a/#", "code": 115}, {"topic": "ok", "code": 0}]));
        assert_eq!(next(&mut subscriber).0, "ok");
    });
}

#[test]
fn base64_is_decoded_and_a_retained_message_is_kept() {
    served(&[], |broker, http| {
        let body =
            json!({"topics": "r/1,r/2", "payload": "SGVsbG8gV29ybGQ=", "encoding": "base64", "retain": true});
        post(http, "/api/v4/mqtt/publish", &body.to_string());
        for topic in ["r/1", "r/2"] {
            let mut subscriber = Peer::connect(broker, Version::V311, &format!("subscriber-{topic}"));
            subscriber.subscribe(topic, QoS::AtMostOnce);
            let message = subscriber.expect_message();
            assert_eq!((message.text(), message.retain), ("Hello World", true));
        }
    });
}

#[test]
fn a_client_is_subscribed_and_unsubscribed_on_its_behalf() {
    served(&[], |broker, http| {
        let mut client = Peer::connect(broker, Version::V5, "example");
        let mut publisher = Peer::connect(broker, Version::V311, "publisher");
        let body = r#"{"topics":"a,b,c","qos":1,"clientid":"example"}"#;
        assert_eq!(post(http, "/api/v4/mqtt/subscribe", body), json!({"code": 0}));
        for topic in ["a", "b", "c"] {
            publisher.publish(topic, topic.as_bytes(), QoS::AtLeastOnce, false);
            assert_eq!(next(&mut client), (topic.to_owned(), topic.to_owned()));
        }
        let body = r#"{"topic":"a","qos":1,"clientid":"example"}"#;
        assert_eq!(post(http, "/api/v4/mqtt/unsubscribe", body), json!({"code": 0}));
        publisher.publish("a", b"not for it", QoS::AtLeastOnce, false);
        let body =
            r#"[{"topic":"a","qos":1,"clientid":"example"},{"topic":"b","qos":1,"clientid":"example"}]"#;
        let done = post(http, "/api/v4/mqtt/unsubscribe_batch", body);
        assert_eq!(done["data"], json!([{"topic": "a", "code": 0}, {"topic": "b", "code": 0}]));
        publisher.publish("b", b"not for it", QoS::AtLeastOnce, false);
        let body = r#"[{"topic":"a","qos":1,"clientid":"example"},{"topic":"b","qos":1,"clientid":"example"},{"topic":"c","qos":1,"clientid":"nobody"}]"#;
        let done = post(http, "/api/v4/mqtt/subscribe_batch", body);
        let expected =
            json!([{"topic": "a", "code": 0}, {"topic": "b", "code": 0}, {"topic": "c", "code": 112}]);
        assert_eq!(done["data"], expected);
        publisher.publish("a", b"again", QoS::AtLeastOnce, false);
        assert_eq!(next(&mut client), ("a".to_owned(), "again".to_owned()));
    });
}

#[test]
fn what_may_be_left_out_may_be_null_and_topics_may_have_spaces_between_them() {
    served(&[], |broker, http| {
        let mut client = Peer::connect(broker, Version::V5, "example");
        let body = r#"{"topic":null,"topics":"a, b","qos":null,"clientid":"example"}"#;
        assert_eq!(post(http, "/api/v4/mqtt/subscribe", body), json!({"code": 0}));
        let body = r#"{"topic":null,"topics":"a, b","clientid":null,"payload":"x","encoding":null,"qos":null,"retain":null,"properties":null}"#;
        assert_eq!(post(http, "/api/v4/mqtt/publish", body), json!({"code": 0}));
        for topic in ["a", "b"] {
            assert_eq!(next(&mut client), (topic.to_owned(), "x".to_owned()));
        }
        let body = r#"{"topic":"a","payload":"y","properties":{"content_type":null,"message_expiry_interval":null,"response_topic":null,"correlation_data":null,"payload_format_indicator":null,"user_properties":null}}"#;
        assert_eq!(post(http, "/api/v4/mqtt/publish", body), json!({"code": 0}));
        assert_eq!(next(&mut client), ("a".to_owned(), "y".to_owned()));
        let body = r#"{"topic":null,"topics":null,"payload":"x"}"#;
        assert_eq!(refused(http, "/api/v4/mqtt/publish", body), (400, 107));
        assert_eq!(refused(http, "/api/v4/mqtt/publish", r#"{"topic":"a","payload":null}"#), (400, 108));
    });
}

#[test]
fn what_cannot_be_done_has_a_result_code() {
    served(&[], |broker, http| {
        let _client = Peer::connect(broker, Version::V5, "example");
        let publish = "/api/v4/mqtt/publish";
        for (body, status, code) in [
            ("", 400, 109),
            ("{", 400, 109),
            (r#"{"topic":"a"}"#, 400, 107),
            (r#"{"payload":"x"}"#, 400, 107),
            (r#"{"topic":"a","payload":"x","qos":3}"#, 400, 108),
            (r#"{"topic":"a","payload":"x","qos":"1"}"#, 400, 108),
            (r#"{"topic":"a","payload":"x","encoding":"hex"}"#, 400, 108),
            (r#"{"topic":"a","payload":"?","encoding":"base64"}"#, 400, 108),
            (r#"{"topic":"a","payload":"x","properties":{"subscription_identifier":1}}"#, 400, 108),
            (r#"{"topic":"a/+","payload":"x"}"#, 400, 115),
            (r#"{"topics":"a,","payload":"x"}"#, 400, 115),
            (r#"{"topic":"","payload":"x"}"#, 400, 115),
            (r#"{"topic":"a\u0000","payload":"x"}"#, 400, 115),
            (r#"{"topic":"$SYS/brokers","payload":"x"}"#, 400, 115),
        ] {
            assert_eq!(refused(http, publish, body), (status, code), "{body}");
        }
        for (path, body, status, code) in [
            ("subscribe", r#"{"topic":"a"}"#, 400, 107),
            ("subscribe", r#"{"clientid":"example"}"#, 400, 107),
            ("subscribe", r#"{"topic":"a","clientid":"nobody"}"#, 404, 112),
            ("subscribe", r#"{"topic":"a/#/b","clientid":"example"}"#, 400, 115),
            ("unsubscribe", r#"{"topic":"a","clientid":"nobody"}"#, 404, 112),
            ("publish_batch", r#"{"topic":"a","payload":"x"}"#, 400, 108),
        ] {
            assert_eq!(refused(http, &format!("/api/v4/mqtt/{path}"), body), (status, code), "{path} {body}");
        }
    });
}

#[test]
fn a_publisher_that_would_be_refused_is_refused_over_http_as_well() {
    let settings =
        [("mqtt.max_qos", "1"), ("mqtt.retain_available", "false"), ("mqtt.max_topic_levels", "3")];
    served(&settings, |broker, http| {
        let mut subscriber = Peer::connect(broker, Version::V5, "subscriber");
        subscriber.subscribe("#", QoS::AtMostOnce);
        for (more, code) in [(r#""qos":2"#, 108), (r#""retain":true"#, 108), (r#""topic":"a/b/c/d""#, 115)] {
            let body = format!(r#"{{"topic":"a","payload":"x",{more}}}"#);
            assert_eq!(refused(http, "/api/v4/mqtt/publish", &body), (400, code), "{body}");
        }
        subscriber.ping();
    });
}
