//! Who may come, how many, and how fast.

use crate::common::{Broker, DRIVERS, Login, Peer, Read, TIMEOUT, ids};
use crate::{await_connections, expect_counter, through};
use ringmq::codec::{Packet, ReasonCode, Version};
use std::time::Duration;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// The code of the CONNACK, after which the connection ends unless it is success.
fn answer(broker: &Broker, listener: &str, version: Version, id: &str) -> (Peer, ReasonCode) {
    let (mut peer, answer) = Peer::try_login(&through(broker, listener), &Login::new(version, id));
    let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
    let code = connack.code;
    if code != ReasonCode::SUCCESS {
        peer.expect_closed();
    }
    (peer, code)
}

#[test]
fn a_listener_has_as_many_connections_as_it_may_on_all_shards_together() {
    let settings = [("listeners.small.bind", "127.0.0.1:0"), ("listeners.small.max_connections", "3")];
    for &driver in DRIVERS {
        for shards in [1, 4] {
            let broker = Broker::start_http(driver, shards, &settings);
            let mut peers: Vec<Peer> =
                ids("in", 3).iter().map(|id| answer(&broker, "small", Version::V5, id).0).collect();
            await_connections(&broker, "small", 3);
            for version in VERSIONS {
                let expected = if version == Version::V5 {
                    ReasonCode::QUOTA_EXCEEDED
                } else {
                    ReasonCode::SERVER_UNAVAILABLE
                };
                assert_eq!(answer(&broker, "small", version, "out").1, expected);
            }
            expect_counter(&broker, "refused_full", 2);
            // Other listeners have places, and one that is left is for the next.
            peers.iter_mut().for_each(Peer::ping);
            Peer::connect(&broker, Version::V5, "elsewhere").ping();
            peers.pop().expect("three of them").disconnect();
            await_connections(&broker, "small", 2);
            assert_eq!(answer(&broker, "small", Version::V5, "next").1, ReasonCode::SUCCESS);
            broker.stop();
        }
    }
}

#[test]
fn a_surplus_connection_that_says_nothing_is_not_kept() {
    let settings = [("listeners.small.bind", "127.0.0.1:0"), ("listeners.small.max_connections", "1")];
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &settings);
        let (mut first, _) = answer(&broker, "small", Version::V5, "first");
        let mut silent: Peer = Peer::open(&through(&broker, "small"), Version::V5);
        silent.expect_closed();
        expect_counter(&broker, "connect_timeouts", 1);
        first.ping();
        broker.stop();
    }
}

#[test]
fn connections_beyond_the_rate_are_told_so() {
    // One in a second: of several that come at once, which takes less than that, one is taken.
    let settings = [("listeners.slow.bind", "127.0.0.1:0"), ("listeners.slow.max_conn_rate", "1")];
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, &settings);
        let ground = through(&broker, "slow");
        let mut peers: Vec<Peer> = (0..20).map(|_| Peer::open(&ground, Version::V5)).collect();
        for (at, peer) in peers.iter_mut().enumerate() {
            peer.send_raw(&Login::new(Version::V5, &format!("fast-{at}")).bytes());
        }
        let codes: Vec<ReasonCode> = peers.iter_mut().map(connack_code).collect();
        let count = |code| codes.iter().filter(|c| **c == code).count() as u64;
        let refused = count(ReasonCode::CONNECTION_RATE_EXCEEDED);
        assert_eq!(count(ReasonCode::SUCCESS) + refused, 20, "{codes:?}");
        assert!(refused >= 1, "{codes:?}");
        expect_counter(&broker, "refused_rate", refused);
        broker.stop();
    }
}

#[test]
fn connections_from_one_address_beyond_its_rate_are_told_so() {
    let settings =
        [("listeners.slow.bind", "127.0.0.1:0"), ("listeners.slow.max_conn_rate_per_address", "1")];
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, &settings);
        let ground = through(&broker, "slow");
        let mut peers: Vec<Peer> = (0..20).map(|_| Peer::open(&ground, Version::V5)).collect();
        for (at, peer) in peers.iter_mut().enumerate() {
            peer.send_raw(&Login::new(Version::V5, &format!("near-{at}")).bytes());
        }
        let codes: Vec<ReasonCode> = peers.iter_mut().map(connack_code).collect();
        let count = |code| codes.iter().filter(|c| **c == code).count() as u64;
        let refused = count(ReasonCode::CONNECTION_RATE_EXCEEDED);
        assert_eq!(count(ReasonCode::SUCCESS) + refused, 20, "{codes:?}");
        assert!((1..20).contains(&refused), "{codes:?}");
        expect_counter(&broker, "refused_address_rate", refused);
        // Other listeners know nothing of it.
        (0..5).for_each(|at| Peer::connect(&broker, Version::V311, &format!("elsewhere-{at}")).ping());
        broker.stop();
    }
}

fn connack_code(peer: &mut Peer) -> ReasonCode {
    let received = peer.next();
    let Packet::ConnAck(connack) = received.packet() else { panic!("CONNACK, got {received:?}") };
    connack.code
}

#[test]
fn addresses_decide_who_may_come_and_sighup_changes_that() {
    let file = std::env::temp_dir().join(format!("ringmq-access-{}.toml", std::process::id()));
    for &driver in DRIVERS {
        let write = |deny: &str| {
            let tables = "[listeners.near]\nbind = \"[::]:0\"\nallow = [\"127.0.0.0/8\", \"::1\"]\n";
            std::fs::write(&file, format!("{tables}deny = [{deny}]\n")).unwrap();
        };
        write("\"127.0.0.0/16\"");
        let broker = Broker::start_from(driver, 2, &file, &[]);
        let port = through(&broker, "near").0.port();
        let from = |addr: &str| {
            let ground = crate::Through(format!("{addr}:{port}").parse().unwrap());
            let mut peer: Peer = Peer::open(&ground, Version::V311);
            // It may be closed by now.
            let _ = peer.try_send_raw(&Login::new(Version::V311, "near").bytes());
            matches!(peer.read_packet(TIMEOUT), Read::Packet(_))
        };
        // Who connects to an address of 127.0.0.0/8 comes from 127.0.0.1.
        assert!(!from("127.0.0.1"));
        expect_counter(&broker, "refused_address", 1);
        write("\"192.0.2.0/24\"");
        broker.signal("HUP");
        let came = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            from("127.0.0.1")
        });
        assert!(came, "the lists are live");
        broker.stop();
    }
    let _ = std::fs::remove_file(&file);
}
