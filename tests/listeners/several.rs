//! Any number of listeners beside each other.

use crate::common::{Broker, DRIVERS, Peer, ids};
use crate::{await_connections, row, through};
use ringmq::codec::Version;
use ringmq::message::QoS;

const SETTINGS: &[(&str, &str)] = &[
    ("listeners.inside.bind", "127.0.0.1:0"),
    ("listeners.v6-and-v4.bind", "[::]:0"),
    ("listeners.v6-and-v4.backlog", "16"),
];

#[test]
fn clients_of_all_listeners_meet_and_are_counted_by_listener() {
    for &driver in DRIVERS {
        for shards in [1, 3] {
            let broker = Broker::start_http(driver, shards, SETTINGS);
            let log = broker.log();
            assert!(log.contains(" (inside, tcp), ") && log.contains(" (v6-and-v4, tcp)"), "{log}");
            let all: Vec<_> = ["default", "inside", "v6-and-v4"]
                .into_iter()
                .map(|name| (name, row(&broker, name)))
                .collect();
            assert!(all.iter().all(|(_, row)| row["protocol"] == "mqtt:tcp" && row["current_conns"] == 0));
            // Each has clients on every shard, which got there by themselves.
            let mut peers = Vec::new();
            for (at, (name, _)) in all.iter().enumerate() {
                let mut ground = through(&broker, name);
                if ground.0.ip().is_unspecified() {
                    ground.0.set_ip([127, 0, 0, 1].into());
                }
                for id in ids(name, 4 + at) {
                    let mut peer = Peer::connect(&ground, Version::V5, &id);
                    assert_eq!(peer.subscribe("all", QoS::AtMostOnce), 0);
                    peers.push(peer);
                }
            }
            for (at, (name, _)) in all.iter().enumerate() {
                await_connections(&broker, name, 4 + at as u64);
            }
            peers[0].send_publish("all", b"hello", QoS::AtMostOnce, false);
            for peer in &mut peers {
                assert_eq!(peer.expect_message().text(), "hello");
            }
            peers.drain(4..8).for_each(Peer::disconnect);
            await_connections(&broker, "inside", 1);
            await_connections(&broker, "default", 4);
            broker.stop();
        }
    }
}
