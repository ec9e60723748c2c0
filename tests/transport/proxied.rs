//! Proxies in front of TLS and WebSocket: the PROXY protocol, and X-Forwarded-For.

use crate::common::{Broker, DRIVERS, Http, Peer, ids};
use crate::ground::{Files, Way};
use crate::{counter, serve, way};
use ringmq::codec::Version;
use ringmq::message::QoS;

const KINDS: [&str; 3] = ["tls", "ws", "wss"];

/// The same key for listeners of these kinds.
fn of_all<'a>(kinds: &[&str], settings: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
    let all = kinds.iter().flat_map(|kind| {
        settings.iter().map(move |(key, value)| (format!("listeners.{kind}.{key}"), *value))
    });
    all.chain([("mqtt.anonymous_local_only".to_owned(), "false")]).collect()
}

fn borrowed<'a>(settings: &'a [(String, &'a str)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(key, value)| (key.as_str(), *value)).collect()
}

/// Where the broker says that a client is.
fn address(broker: &Broker, id: &str) -> String {
    let told = Http::of(broker).json(&format!("/api/v4/clients/{id}"));
    told["data"][0]["ip_address"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
}

fn v2(family: u8, body: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

#[test]
fn a_proxy_header_stands_in_front_of_tls_and_websocket() {
    let files = Files::new();
    let settings = of_all(&KINDS, &[("proxy_protocol", "true"), ("proxy_from", "127.0.0.0/8")]);
    let mut six = [0; 36];
    (six[15], six[33]) = (9, 7);
    let headers = [
        (b"PROXY TCP4 192.0.2.7 192.0.2.2 56324 8883\r\n".to_vec(), "192.0.2.7"),
        (v2(0x11, &[192, 0, 2, 9, 192, 0, 2, 2, 7, 0xD0, 7, 0x5B, 4, 0, 2, 1, 2]), "192.0.2.9"),
        (v2(0x21, &six), "::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ];
    for &driver in DRIVERS {
        for shards in [1, 3] {
            let broker = serve(driver, shards, &files, &borrowed(&settings));
            let mut peers = Vec::new();
            for kind in KINDS {
                for (at, (before, told)) in headers.iter().enumerate() {
                    for alone in [false, true] {
                        let ground = Way { before: before.clone(), alone, ..way(&broker, &files, kind) };
                        for id in ids(&format!("{kind}-{at}-{alone}"), 2) {
                            let mut peer = Peer::connect(&ground, Version::V5, &id);
                            assert_eq!(address(&broker, &id), *told);
                            peer.subscribe("all", QoS::AtLeastOnce);
                            peers.push(peer);
                        }
                    }
                }
                // Without one it is closed.
                assert!(way(&broker, &files, kind).connect().is_err() || kind == "tls");
            }
            let mut publisher = Peer::connect(&broker, Version::V5, "publisher");
            publisher.publish("all", &[7; 40_000], QoS::AtLeastOnce, false);
            peers.iter_mut().for_each(|peer| assert_eq!(peer.expect_message().payload, [7; 40_000]));
            drop(peers);
            broker.stop();
        }
    }
}

#[test]
fn a_proxy_of_ours_says_in_the_request_for_whom_it_speaks() {
    let files = Files::new();
    let proxies = ("proxy_from", "127.0.0.0/8 10.0.0.0/8 fd00::/8");
    let terms = [("x_forwarded_for", "true"), proxies, ("deny", "203.0.113.0/24")];
    let settings = of_all(&["ws", "wss"], &terms);
    let told = [
        (None, "127.0.0.1"),
        (Some(""), "127.0.0.1"),
        (Some("192.0.2.7"), "192.0.2.7"),
        (Some("127.0.0.1, 192.0.2.7, 10.0.0.2"), "192.0.2.7"),
        (Some("203.0.113.9, unknown, 192.0.2.7:80"), "192.0.2.7"),
        (Some("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
        (Some("2001:db8::1"), "2001:db8::1"),
        (Some("192.0.2.7, [2001:db8::1]:443, fd00::2"), "2001:db8::1"),
    ];
    for &driver in DRIVERS {
        let broker = serve(driver, 3, &files, &borrowed(&settings));
        for kind in ["ws", "wss"] {
            let through = |values: Option<&str>| {
                let headers = values.map(|values| ("x-forwarded-FOR", values.to_owned()));
                Way { headers: headers.into_iter().collect(), ..way(&broker, &files, kind) }
            };
            for (at, (values, told)) in told.iter().enumerate() {
                for id in ids(&format!("{kind}-{at}"), 3) {
                    let mut peer = Peer::connect(&through(*values), Version::V5, &id);
                    assert_eq!(address(&broker, &id), *told, "{values:?}");
                    peer.ping();
                }
            }
            // In several lines.
            let mut lines = through(Some("127.0.0.1"));
            lines.headers.push(("X-Forwarded-For", "192.0.2.8".to_owned()));
            let peer = Peer::connect(&lines, Version::V311, "lines");
            assert_eq!(address(&broker, "lines"), "192.0.2.8");
            peer.disconnect();
            // What is no address, and who may not come.
            for values in ["unknown", "192.0.2.7, 10.0.0.256", "203.0.113.9", "203.0.113.9, 10.0.0.1"] {
                assert!(through(Some(values)).connect().is_err(), "{values}");
            }
        }
        assert_eq!((counter(&broker, "proxy_errors"), counter(&broker, "refused_address")), (4, 4));
        broker.stop();
    }
}

#[test]
fn whoever_is_no_proxy_of_ours_is_not_believed() {
    let files = Files::new();
    let terms = [("x_forwarded_for", "true"), ("proxy_from", "192.0.2.0/24"), ("deny", "203.0.113.0/24")];
    let settings = of_all(&["ws", "wss"], &terms);
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &borrowed(&settings));
        for kind in ["ws", "wss"] {
            for (at, values) in ["198.51.100.7", "203.0.113.9", "unknown", "192.0.2.1"].iter().enumerate() {
                let headers = vec![("X-Forwarded-For", (*values).to_owned())];
                let ground = Way { headers, ..way(&broker, &files, kind) };
                let id = format!("{kind}-{at}");
                let peer = Peer::connect(&ground, Version::V5, &id);
                assert_eq!(address(&broker, &id), "127.0.0.1", "{values}");
                peer.disconnect();
            }
        }
        assert_eq!((counter(&broker, "proxy_errors"), counter(&broker, "refused_address")), (0, 0));
        broker.stop();
    }
}

#[test]
fn both_kinds_of_proxies_may_stand_in_a_row() {
    let files = Files::new();
    let terms = [
        ("x_forwarded_for", "true"),
        ("proxy_protocol", "true"),
        ("proxy_from", "127.0.0.0/8 192.0.2.0/24"),
        ("deny", "203.0.113.0/24"),
    ];
    let settings = of_all(&["ws", "wss"], &terms);
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &borrowed(&settings));
        for kind in ["ws", "wss"] {
            let through = |from: &str, values: &str| Way {
                before: format!("PROXY TCP4 {from} 127.0.0.1 1 2\r\n").into_bytes(),
                headers: vec![("X-Forwarded-For", values.to_owned())],
                ..way(&broker, &files, kind)
            };
            // A proxy of ours behind the first one is believed, a client is not.
            for (at, (from, told)) in
                [("192.0.2.1", "198.51.100.7"), ("198.51.100.8", "198.51.100.8")].iter().enumerate()
            {
                let id = format!("{kind}-{at}");
                let peer = Peer::connect(&through(from, "198.51.100.7"), Version::V5, &id);
                assert_eq!(address(&broker, &id), *told);
                peer.disconnect();
            }
            assert!(through("203.0.113.1", "198.51.100.7").connect().is_err());
            assert!(through("192.0.2.1", "203.0.113.1").connect().is_err());
        }
        assert_eq!(counter(&broker, "refused_address"), 4);
        broker.stop();
    }
}
