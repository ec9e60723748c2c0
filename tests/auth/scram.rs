//! SCRAM-SHA-256 with what `ringmq passwd` writes.

use crate::common::scram::{METHOD, Scram};
use crate::common::{Broker, DRIVERS, Login, Peer, VERSIONS, named};
use crate::folder::Folder;
use crate::foreign;
use crate::passwords::{code, passwd, said};
use ringmq::codec::{Auth, Connect, Packet, Property, PropertyBuf, ReasonCode, Version};
use ringmq::message::QoS;

/// Method and data.
fn list(data: &str) -> PropertyBuf {
    let mut list = PropertyBuf::new();
    assert!(list.push(Property::AuthenticationMethod(METHOD)));
    assert!(list.push(Property::AuthenticationData(data.as_bytes())));
    list
}

/// Logs in; what CONNACK says.
fn login(broker: &Broker, name: &str, user: &str, password: &str) -> (Peer, ReasonCode) {
    let scram = Scram::new(user, password);
    let first = list(&scram.first());
    let mut peer = Peer::open(broker, Version::V5);
    peer.send(&Packet::Connect(Connect {
        version: Version::V5,
        bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_id: name,
        will: None,
        username: None,
        password: None,
        properties: first.as_properties(),
    }));
    let got = peer.next();
    let challenge = match got.packet() {
        Packet::Auth(auth) => auth.properties.iter().find_map(|property| match property {
            Property::AuthenticationData(data) => Some(data.to_vec()),
            _ => None,
        }),
        Packet::ConnAck(ack) => return (peer, ack.code),
        other => panic!("AUTH or CONNACK, got {other:?}"),
    };
    let (answer, _) = scram.answer(&challenge.expect("a challenge"));
    let list = list(&answer);
    peer.send(&Packet::Auth(Auth {
        code: ReasonCode::CONTINUE_AUTHENTICATION,
        properties: list.as_properties(),
    }));
    let got = peer.next();
    let Packet::ConnAck(ack) = got.packet() else { panic!("CONNACK, got {got:?}") };
    (peer, ack.code)
}

#[test]
fn a_verifier_serves_both_ways_and_rules_know_who_has_proven() {
    let folder = Folder::new();
    let file = folder.path("users");
    assert_eq!(passwd(&["--scram", "--rounds", "5000", &file, "ann"], "secret\n"), (true, String::new()));
    assert_eq!(passwd(&[&file, "argon"], "secret\n"), (true, String::new()));
    let (done, told) = passwd(&["--scram", "--rounds", "100", &file, "bob"], "secret\n");
    assert!(!done && told.contains("expected 4096 to"), "{told}");
    let acl = folder.write("acl.toml", "[[rule]]\nallow = \"all\"\nuser = \"ann\"\ntopics = [\"ann/#\"]\n");
    let settings =
        [("auth.password_file", &*file), ("auth.acl_file", &*acl), ("mqtt.allow_anonymous", "false")];
    for &driver in DRIVERS {
        for shards in [1, 3] {
            let broker = Broker::start(driver, shards, &settings);
            for i in 0..4 {
                let (mut peer, code) = login(&broker, &format!("c-{i}"), "ann", "secret");
                assert_eq!(code, ReasonCode::SUCCESS);
                assert_eq!(peer.subscribe("ann/a", QoS::AtMostOnce), 0);
                assert_eq!(peer.subscribe("bob/a", QoS::AtMostOnce), ReasonCode::NOT_AUTHORIZED.0);
            }
            // An identifier that the broker assigns.
            assert_eq!(login(&broker, "", "ann", "secret").1, ReasonCode::SUCCESS);
            // A hash of another kind proves nothing this way.
            assert_eq!(login(&broker, "c", "argon", "secret").1, ReasonCode::NOT_AUTHORIZED);
            for version in VERSIONS {
                let name = named("plain", version);
                assert_eq!(foreign::connect(&broker, version, &name, Some(("ann", "secret"))), "Success");
                let wrong = code(&broker, &Login::new(version, &name).user("ann", "wrong"));
                assert_eq!(wrong, said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD));
            }
            broker.stop();
        }
    }
}

#[test]
fn whoever_guesses_proofs_is_held_off() {
    let folder = Folder::new();
    let file = folder.path("users");
    assert_eq!(passwd(&["--scram", &file, "ann"], "secret\n"), (true, String::new()));
    assert_eq!(passwd(&["--scram", &file, "bob"], "secret\n"), (true, String::new()));
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 1, &[("auth.password_file", &file)]);
        let codes: Vec<_> = (0..6).map(|_| login(&broker, "c", "ann", "guess").1).collect();
        assert_eq!(codes[..5], [ReasonCode::NOT_AUTHORIZED; 5]);
        assert_eq!(codes[5], ReasonCode::CONNECTION_RATE_EXCEEDED);
        assert_eq!(login(&broker, "d", "bob", "secret").1, ReasonCode::SUCCESS);
        broker.stop();
    }
}
