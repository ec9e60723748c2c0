//! Mountpoints and zones: what clients of one listener see, and those of another.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, ids};
use crate::through;
use ringmq::codec::{Packet, Property, PropertyBuf, Publish, ReasonCode, Version};
use ringmq::message::QoS;

const SETTINGS: &[(&str, &str)] = &[
    ("listeners.mounted.bind", "127.0.0.1:0"),
    ("listeners.mounted.mountpoint", "site/%c/"),
    ("listeners.shared.bind", "127.0.0.1:0"),
    ("listeners.shared.mountpoint", "all/"),
    ("listeners.named.bind", "127.0.0.1:0"),
    ("listeners.named.mountpoint", "%u/"),
];

fn received(peer: &mut Peer) -> (String, String) {
    let message = peer.expect_message();
    if let Some(id) = message.packet_id {
        peer.ack(ringmq::codec::AckKind::PubAck, id);
    }
    (message.topic.clone(), message.text().to_owned())
}

fn pair(topic: &str, text: &str) -> (String, String) {
    (topic.to_owned(), text.to_owned())
}

#[test]
fn a_mountpoint_stands_before_topics_filters_wills_and_retained_messages() {
    for &driver in DRIVERS {
        for shards in [1, 3] {
            let broker = Broker::start_http(driver, shards, SETTINGS);
            let ground = through(&broker, "mounted");
            for version in [Version::V311, Version::V5] {
                let name = |what: &str| format!("{what}-{version:?}");
                let id = name("inside");
                let mut outside: Peer = Peer::connect(&broker, version, &name("outside"));
                assert_eq!(outside.subscribe(&format!("site/{id}/up/#"), QoS::AtLeastOnce), 1);
                // Its own prefix is not part of what it sees.
                let (mut inside, _) =
                    Peer::login(&ground, &Login::new(version, &id).will("up/will", b"gone"));
                for filter in ["up/#", "down", "$share/g/turn"] {
                    assert_eq!(inside.subscribe(filter, QoS::AtLeastOnce), 1);
                }
                inside.send_publish("up/1", b"one", QoS::AtMostOnce, true);
                assert_eq!(received(&mut inside), pair("up/1", "one"));
                assert_eq!(received(&mut outside), pair(&format!("site/{id}/up/1"), "one"));
                let mut third: Peer = Peer::connect(&broker, version, &name("third"));
                for (topic, text) in [("down", "two"), ("turn", "three"), ("up/2", "four")] {
                    third.publish(&format!("site/{id}/{topic}"), text.as_bytes(), QoS::AtLeastOnce, false);
                    assert_eq!(received(&mut inside), pair(topic, text));
                }
                assert_eq!(received(&mut outside), pair(&format!("site/{id}/up/2"), "four"));
                // What others call the same is not the same.
                outside.publish("down", b"elsewhere", QoS::AtLeastOnce, false);
                inside.ping();
                // Retained below it, found below it.
                inside.subscribe("up/1", QoS::AtMostOnce);
                assert_eq!(received(&mut inside), pair("up/1", "one"));
                let told = Http::of(&broker).json(&format!("/api/v4/subscriptions/{id}")).to_string();
                assert!(told.contains(&format!("site/{id}/down")), "{told}");
                inside.send_unsubscribe("down");
                let _ = inside.next();
                outside.publish(&format!("site/{id}/down"), b"unheard", QoS::AtLeastOnce, false);
                inside.ping();
                inside.cut();
                assert_eq!(received(&mut outside), pair(&format!("site/{id}/up/will"), "gone"));
                outside.disconnect();
                third.disconnect();
            }
            broker.stop();
        }
    }
}

#[test]
fn many_below_one_mountpoint_meet_also_while_away() {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, SETTINGS);
        let ground = through(&broker, "shared");
        let mut all: Vec<Peer> =
            ids("m", 6).iter().map(|id| Peer::login(&ground, &Login::lasting(Version::V5, id)).0).collect();
        for peer in &mut all {
            peer.subscribe("news", QoS::AtLeastOnce);
        }
        let mut plain: Peer = Peer::connect(&broker, Version::V5, "plain");
        plain.subscribe("news", QoS::AtLeastOnce);
        // One of them is away, and gets it when it is back.
        all.pop().expect("six of them").cut();
        all[0].send_publish("news", b"hear", QoS::AtMostOnce, false);
        for peer in &mut all {
            assert_eq!(received(peer), pair("news", "hear"));
        }
        all[0].publish("other", b"x", QoS::AtLeastOnce, false);
        plain.publish("all/news", b"kept", QoS::AtLeastOnce, false);
        for peer in &mut all {
            assert_eq!(received(peer), pair("news", "kept"));
        }
        let (mut back, present) = Peer::login(&ground, &Login::lasting(Version::V5, "m-5"));
        assert!(present);
        assert_eq!(received(&mut back), pair("news", "kept"));
        plain.ping();
        // Aliases stand for topics as the client knows them, in both directions.
        let mut login = Login::new(Version::V5, "aliased");
        login.topic_alias_maximum = Some(5);
        let (mut aliased, _) = Peer::login(&ground, &login);
        aliased.subscribe("a/b", QoS::AtMostOnce);
        for topic in ["a/b", ""] {
            let mut properties = PropertyBuf::new();
            properties.push(Property::TopicAlias(3));
            aliased.send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic,
                packet_id: None,
                properties: properties.as_properties(),
                payload: b"x",
            }));
            assert_eq!(aliased.expect_message().topic, topic, "the second time the alias alone");
        }
        broker.stop();
    }
}

#[test]
fn an_identifier_that_would_reach_beyond_its_level_is_refused() {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, SETTINGS);
        let answer = |listener: &str, id: &str, username: Option<&str>| {
            let mut login = Login::new(Version::V5, id);
            login.username = username.map(str::to_owned);
            let (_, answer) = Peer::<std::net::TcpStream>::try_login(&through(&broker, listener), &login);
            let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
            connack.code
        };
        for id in ["+", "#", "a/b", "a+b"] {
            assert_eq!(answer("mounted", id, None), ReasonCode::CLIENT_ID_NOT_VALID, "{id}");
            assert_eq!(answer("named", "x", Some(id)), ReasonCode::BAD_USERNAME_OR_PASSWORD, "{id}");
        }
        assert_eq!(answer("named", "x", None), ReasonCode::BAD_USERNAME_OR_PASSWORD);
        assert_eq!(answer("named", "a/b", Some("ann")), ReasonCode::SUCCESS);
        assert_eq!(answer("mounted", "x", Some("+")), ReasonCode::SUCCESS);
        // One that was assigned has none of these.
        assert_eq!(answer("mounted", "", None), ReasonCode::SUCCESS);
        broker.stop();
    }
}

#[test]
fn clients_of_a_listener_have_the_values_of_its_zone() {
    let settings = [
        ("listeners.small.bind", "127.0.0.1:0"),
        ("listeners.small.zone", "tight"),
        ("zones.tight.max_packet_size", "256"),
        ("zones.tight.max_qos", "1"),
        ("zones.tight.max_inflight", "1"),
        ("zones.tight.max_mqueue", "2"),
        ("zones.tight.max_topic_alias", "0"),
        ("mqtt.max_awaiting_rel", "77"),
    ];
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, &settings);
        let ground = through(&broker, "small");
        for id in ids("z", 4) {
            let (mut peer, answer) = Peer::try_login(&ground, &Login::lasting(Version::V5, &id));
            let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
            let told: Vec<Property> = connack.properties.iter().collect();
            for property in
                [Property::MaximumPacketSize(256), Property::MaximumQoS(1), Property::ReceiveMaximum(77)]
            {
                assert!(told.contains(&property), "{property:?} in {told:?}");
            }
            assert!(!told.iter().any(|property| matches!(property, Property::TopicAliasMaximum(_))));
            assert_eq!(peer.subscribe(&id, QoS::ExactlyOnce), 1);
            let mut other: Peer = Peer::connect(&broker, Version::V5, &format!("other-{id}"));
            for text in ["1", "2", "3", "4", "5"] {
                other.publish(&id, text.as_bytes(), QoS::AtLeastOnce, false);
            }
            // One in flight, two in the queue: the two between them made room.
            let mut texts = Vec::new();
            for _ in 0..3 {
                texts.push(received(&mut peer).1);
            }
            peer.ping();
            assert_eq!(texts, ["1", "4", "5"]);
            // Away, the session still has its listener's values.
            peer.cut();
            for text in ["6", "7", "8", "9"] {
                other.publish(&id, text.as_bytes(), QoS::AtLeastOnce, false);
            }
            // A client elsewhere may send more at a time.
            other.publish("large", &[b'x'; 1_000], QoS::AtLeastOnce, false);
            let (mut back, present) = Peer::login(&ground, &Login::lasting(Version::V5, &id));
            assert!(present);
            // One more where the first was on its way while the connection closed.
            let mut texts = Vec::new();
            while texts.last().is_none_or(|text| text != "9") {
                texts.push(received(&mut back).1);
            }
            assert!(texts.ends_with(&["8".to_owned(), "9".to_owned()]) && texts.len() <= 3, "{texts:?}");
            back.send_publish("large", &[b'x'; 300], QoS::AtMostOnce, false);
            back.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
        }
        broker.stop();
    }
}
