//! The PROXY protocol, from outside.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, Read, TIMEOUT, ids};
use crate::{Through, await_connections, expect_counter, through};
use ringmq::codec::{Packet, ReasonCode, Version};

const TRUSTED: &[(&str, &str)] = &[
    ("listeners.proxied.bind", "127.0.0.1:0"),
    ("listeners.proxied.proxy_protocol", "true"),
    ("listeners.proxied.proxy_from", "127.0.0.0/8"),
    ("listeners.proxied.deny", "203.0.113.0/24"),
    ("listeners.proxied.proxy_timeout_s", "1"),
    ("mqtt.anonymous_local_only", "false"),
];

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, family], &len, body].concat()
}

/// A header of version 2 for 192.0.2.9:2000 with some additional values.
fn binary() -> Vec<u8> {
    v2(1, 0x11, &[192, 0, 2, 9, 192, 0, 2, 2, 7, 0xD0, 7, 0x5B, 4, 0, 2, 1, 2, 0x20, 0, 0])
}

/// Connects behind a header; `pieces` says how the bytes are cut.
fn login(ground: &Through, header: &[u8], id: &str, pieces: usize) -> (Peer, Option<ReasonCode>) {
    let mut peer: Peer = Peer::open(ground, Version::V5);
    let bytes = [header, &Login::new(Version::V5, id).bytes()].concat();
    for piece in bytes.chunks(pieces) {
        if peer.try_send_raw(piece).is_err() {
            break;
        }
    }
    let code = match peer.read_packet(TIMEOUT) {
        Read::Packet(received) => match received.packet() {
            Packet::ConnAck(connack) => Some(connack.code),
            _ => panic!("CONNACK, got {received:?}"),
        },
        _ => None,
    };
    (peer, code)
}

#[test]
fn the_address_in_the_header_is_the_clients() {
    for &driver in DRIVERS {
        for shards in [1, 4] {
            let broker = Broker::start_http(driver, shards, TRUSTED);
            let ground = through(&broker, "proxied");
            let headers: [(&[u8], &str); 4] = [
                (b"PROXY TCP4 192.0.2.7 192.0.2.2 56324 1883\r\n", "192.0.2.7"),
                (&binary(), "192.0.2.9"),
                (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
                (&v2(0, 0, &[]), "127.0.0.1"),
            ];
            let mut peers = Vec::new();
            for (at, (header, address)) in headers.iter().enumerate() {
                // On each shard, in one piece and byte by byte.
                for (n, id) in ids(&format!("p{at}"), 4).iter().enumerate() {
                    let (peer, code) = login(&ground, header, id, if n % 2 == 0 { usize::MAX } else { 1 });
                    assert_eq!(code, Some(ReasonCode::SUCCESS), "{address}");
                    let told = Http::of(&broker).json(&format!("/api/v4/clients/{id}"));
                    assert_eq!(told["data"][0]["ip_address"], *address, "{told}");
                    peers.push(peer);
                }
            }
            await_connections(&broker, "proxied", 16);
            peers.iter_mut().for_each(Peer::ping);
            // The lists are for the client, not for the proxy.
            let denied = b"PROXY TCP4 203.0.113.7 192.0.2.2 56324 1883\r\n";
            assert_eq!(login(&ground, denied, "denied", usize::MAX).1, None);
            expect_counter(&broker, "refused_address", 1);
            broker.stop();
        }
    }
}

#[test]
fn what_is_no_header_is_closed_and_counted() {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, TRUSTED);
        let ground = through(&broker, "proxied");
        let wrong: [&[u8]; 5] = [
            b"",
            b"PROXY TCP4 nowhere 192.0.2.2 56324 1883\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.2 56324 1883 and so on, for more than the 107 bytes that there may be ....\r\n",
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x11, &[0; 5000]),
        ];
        for header in wrong {
            assert_eq!(login(&ground, header, "wrong", usize::MAX).1, None, "{header:?}");
        }
        expect_counter(&broker, "proxy_errors", 5);
        broker.stop();
    }
}

#[test]
fn who_is_no_proxy_of_ours_is_closed_at_once() {
    let mut settings = TRUSTED.to_vec();
    settings[2].1 = "192.0.2.0/24";
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &settings);
        assert_eq!(login(&through(&broker, "proxied"), &binary(), "x", usize::MAX).1, None);
        expect_counter(&broker, "proxy_untrusted", 1);
        expect_counter(&broker, "proxy_errors", 0);
        broker.stop();
    }
}

#[test]
fn whoever_is_slow_is_closed_and_counted_in_each_phase() {
    let mut settings = TRUSTED.to_vec();
    settings.extend([("mqtt.idle_timeout_s", "1"), ("listeners.plain.bind", "127.0.0.1:0")]);
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &settings);
        let (proxied, plain) = (through(&broker, "proxied"), through(&broker, "plain"));
        let header = binary();
        let connect = Login::new(Version::V5, "slow").bytes();
        let both = [&header[..], &connect[..connect.len() - 1]].concat();
        // Nothing, a part of the header, all of it, and all but the last byte of CONNECT behind it.
        let in_header = [&[][..], &header[..20]];
        let in_connect = [&header[..], &both];
        let open = |ground: &Through, bytes: &[u8]| {
            let mut peer: Peer = Peer::open(ground, Version::V5);
            peer.send_raw(bytes);
            peer
        };
        let mut slow: Vec<Peer> =
            in_header.iter().chain(&in_connect).map(|bytes| open(&proxied, bytes)).collect();
        slow.push(open(&plain, &connect[..5]));
        slow.iter_mut().for_each(Peer::expect_closed);
        expect_counter(&broker, "proxy_timeouts", 2);
        expect_counter(&broker, "connect_timeouts", 3);
        await_connections(&broker, "proxied", 0);
        await_connections(&broker, "plain", 0);
        broker.stop();
    }
}
