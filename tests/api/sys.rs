//! `$SYS`: what is published, to whom, and who may not.

use crate::common::{Broker, DRIVERS, Http, Peer};
use crate::served;
use ringmq::codec::{ReasonCode, Version};
use ringmq::message::QoS;
use std::collections::BTreeMap;

#[test]
fn a_subscriber_gets_the_values_at_once_under_both_families_of_names() {
    served(&[("sys.interval_s", "60")], |broker, http| {
        let mut other = Peer::connect(broker, Version::V311, "other");
        other.subscribe("#", QoS::AtMostOnce);
        let mut peer = Peer::connect(broker, Version::V5, "sys");
        assert_eq!(peer.subscribe("$SYS/#", QoS::AtMostOnce), 0);
        let mut values = BTreeMap::new();
        while !values.contains_key("$SYS/broker/shared_subscriptions/count") {
            let message = peer.expect_message();
            values.insert(message.topic.clone(), message.text().to_owned());
        }
        let value =
            |topic: &str| values.get(topic).unwrap_or_else(|| panic!("{topic} in {values:?}")).clone();
        let node = "$SYS/brokers/ringmq@127.0.0.1";
        assert_eq!(value("$SYS/brokers"), "ringmq@127.0.0.1");
        assert_eq!(value(&format!("{node}/version")), env!("CARGO_PKG_VERSION"));
        assert_eq!(value(&format!("{node}/stats/connections/count")), "2");
        assert_eq!(value(&format!("{node}/stats/subscriptions/shared/max")), "0");
        assert_eq!(value(&format!("{node}/metrics/packets/connect")), "2");
        assert_eq!(value("$SYS/broker/clients/connected"), "2");
        // What begins with $ is not for `#`, and nothing of it is retained.
        other.ping();
        assert_eq!(http.json("/api/v4/stats")["data"][0]["stats"]["retained.count"], 0);
    });
}

#[test]
fn nobody_publishes_there() {
    served(&[], |broker, _| {
        let mut peer = Peer::connect(broker, Version::V5, "intruder");
        let id = peer.send_publish("$SYS/brokers", b"x", QoS::AtLeastOnce, false);
        let received = peer.next();
        match received.packet() {
            ringmq::codec::Packet::Ack(ack) => {
                assert_eq!((Some(ack.packet_id), ack.code), (id, ReasonCode::NOT_AUTHORIZED));
            }
            other => panic!("PUBACK, got {other:?}"),
        }
    });
}

#[test]
fn the_interval_can_be_zero() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[("sys.interval_s", "0")]);
    let mut peer = Peer::connect(&broker, Version::V5, "sys");
    peer.subscribe("$SYS/#", QoS::AtMostOnce);
    let published = || Http::of(&broker).json("/api/v1/metrics/sum")["messages.publish.system"].clone();
    assert_eq!(published(), 0);
    broker.stop();
}

#[test]
fn whoever_is_not_known_to_be_on_this_machine_may_not_subscribe() {
    let settings = [("broker.peer_address", "false")];
    let broker = Broker::start(DRIVERS[0], 1, &settings);
    let mut peer = Peer::connect(&broker, Version::V5, "stranger");
    assert_eq!(peer.subscribe("$SYS/#", QoS::AtMostOnce), ReasonCode::NOT_AUTHORIZED.0);
    assert_eq!(peer.subscribe("$share/g/$SYS/#", QoS::AtMostOnce), ReasonCode::NOT_AUTHORIZED.0);
    let mut old = Peer::connect(&broker, Version::V311, "old stranger");
    assert_eq!(old.subscribe("$SYS/#", QoS::AtMostOnce), 0x80);
    broker.stop();
}
