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

/// A login that has its challenge.
struct Begun {
    peer: Peer,
    answer: String,
}

/// Begins a login; else what CONNACK says.
fn begin(broker: &Broker, name: &str, user: &str, password: &str) -> Result<Begun, ReasonCode> {
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
        Packet::ConnAck(ack) => return Err(ack.code),
        other => panic!("AUTH or CONNACK, got {other:?}"),
    };
    let (answer, _) = scram.answer(&challenge.expect("a challenge"));
    Ok(Begun { peer, answer })
}

impl Begun {
    /// Sends the proof; what CONNACK says.
    fn prove(&mut self) -> ReasonCode {
        let list = list(&self.answer);
        let auth = Auth { code: ReasonCode::CONTINUE_AUTHENTICATION, properties: list.as_properties() };
        self.peer.send(&Packet::Auth(auth));
        let got = self.peer.next();
        let Packet::ConnAck(ack) = got.packet() else { panic!("CONNACK, got {got:?}") };
        ack.code
    }

    fn end(mut self) -> ReasonCode {
        self.prove()
    }
}

/// Logs in: who has done so, and what CONNACK says.
fn login(broker: &Broker, name: &str, user: &str, password: &str) -> (Option<Peer>, ReasonCode) {
    match begin(broker, name, user, password) {
        Err(code) => (None, code),
        Ok(mut begun) => {
            let code = begun.prove();
            (Some(begun.peer), code)
        }
    }
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
                let (peer, code) = login(&broker, &format!("c-{i}"), "ann", "secret");
                assert_eq!(code, ReasonCode::SUCCESS);
                let mut peer = peer.expect("it has proven who it is");
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
        // Exchanges that began before are no way around it.
        let begun: Vec<_> = (0..8).map(|i| begin(&broker, &format!("b-{i}"), "bob", "guess")).collect();
        let codes: Vec<_> =
            begun.into_iter().map(|begun| begun.map_or_else(|code| code, Begun::end)).collect();
        assert_eq!(codes[..5], [ReasonCode::NOT_AUTHORIZED; 5]);
        assert_eq!(codes[5..], [ReasonCode::CONNECTION_RATE_EXCEEDED; 3]);
        broker.stop();
    }
}
