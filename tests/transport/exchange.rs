//! Messages between clients of all kinds of listeners.

use crate::common::{DRIVERS, Peer, Socket, TIMEOUT, VERSIONS, ids};
use crate::ground::{Files, Through};
use crate::{counter, serve, way};
use ringmq::message::QoS;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

const KINDS: [&str; 4] = ["default", "tls", "ws", "wss"];

#[test]
fn clients_of_all_kinds_meet_on_every_shard() {
    let files = Files::new();
    for &driver in DRIVERS {
        for shards in [1, 3] {
            let broker = serve(driver, shards, &files, &[]);
            for version in VERSIONS {
                let (mut peers, mut publishers) = (Vec::new(), Vec::new());
                for kind in KINDS {
                    let ground = way(&broker, &files, kind);
                    for id in ids(&format!("{kind}-{version:?}"), 4) {
                        let mut peer = Peer::connect(&ground, version, &id);
                        peer.subscribe("all/#", QoS::AtLeastOnce);
                        peers.push(peer);
                    }
                    publishers.push(Peer::connect(
                        &ground,
                        version,
                        &format!("publisher-{kind}-{version:?}"),
                    ));
                }
                // Of one record, and of several.
                for (round, len) in [1usize, 100, 100_000].into_iter().enumerate() {
                    for (from, publisher) in publishers.iter_mut().enumerate() {
                        let payload: Vec<u8> = (0..len).map(|at| (at + from) as u8).collect();
                        let topic = format!("all/{round}/{from}");
                        publisher.publish(&topic, &payload, QoS::AtLeastOnce, false);
                        for (at, peer) in peers.iter_mut().enumerate() {
                            let message = peer.expect_message();
                            assert!(message.topic == topic && message.payload == payload, "{at}");
                        }
                    }
                }
                peers.into_iter().chain(publishers).for_each(Peer::disconnect);
            }
            assert_eq!((counter(&broker, "tls_handshakes"), counter(&broker, "tls_errors")), (20, 0));
            assert_eq!(
                (counter(&broker, "websocket_upgrades"), counter(&broker, "websocket_errors")),
                (20, 0)
            );
            broker.stop();
        }
    }
}

/// Reads until the end: what came, and how the layer ended.
fn ending(through: &mut Through) -> Option<u16> {
    loop {
        match through {
            Through::Stream(_) => match through.receive(TIMEOUT) {
                // rustls tells an end without close_notify as an error.
                Some(bytes) if bytes.is_empty() => return None,
                Some(_) => {}
                None => panic!("the broker does not end it"),
            },
            Through::WebSocket(socket) => match socket.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(error) => panic!("expected a close frame, got {error}"),
            },
        }
    }
}

#[test]
fn layers_are_closed_in_order() {
    let files = Files::new();
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &[]);
        // PINGREQ in place of CONNECT, and nothing said of MQTT.
        for kind in ["tls", "ws", "wss"] {
            let mut through = way(&broker, &files, kind).connect().unwrap();
            through.send(&[0xc0, 0]).unwrap();
            let code = ending(&mut through);
            assert_eq!(code.is_some(), kind != "tls");
            assert!(code.is_none_or(|code| code == u16::from(CloseCode::Policy)), "{kind}: {code:?}");
        }
        // A close frame of the client's is answered.
        let mut through = way(&broker, &files, "wss").connect().unwrap();
        let Through::WebSocket(socket) = &mut through else { panic!("a WebSocket") };
        socket.close(None).unwrap();
        assert!(matches!(socket.read(), Ok(Message::Close(None))));
        // And the broker's end is told to all.
        let mut all: Vec<_> = ["tls", "ws", "wss"]
            .into_iter()
            .flat_map(|kind| {
                let ground = way(&broker, &files, kind);
                ids(kind, 2).into_iter().map(move |id| {
                    let mut through = ground.connect().unwrap();
                    let login = crate::common::Login::new(ringmq::codec::Version::V311, &id);
                    through.send(&login.bytes()).unwrap();
                    assert_eq!(through.receive(TIMEOUT).unwrap(), [0x20, 2, 0, 0]);
                    through
                })
            })
            .collect();
        let stops = std::thread::spawn(move || broker.stop());
        for (at, through) in all.iter_mut().enumerate() {
            let code = ending(through);
            assert_eq!(code, (at >= 2).then_some(u16::from(CloseCode::Away)), "{at}");
        }
        drop(all);
        stops.join().unwrap();
    }
}
