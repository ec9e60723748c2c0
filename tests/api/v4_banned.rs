//! `/api/v4/banned`, and what becomes of who is banned.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, Read, TIMEOUT, VERSIONS, named};
use crate::{conforms, served, told};
use ringmq::codec::{Packet, ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};

const ALL: &str = "/api/v4/banned";
const ONE: &str = "/api/v4/banned/{as}/{who}";

/// Later than any test runs.
const LATE: u64 = 4_000_000_000;

fn ban(http: Http, kind: &str, who: &str) -> Value {
    let body = json!({"as": kind, "who": who, "reason": "noise", "until": LATE});
    let answer = http.post(ALL, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    conforms("POST", ALL, &answer.json());
    answer.json()["data"].clone()
}

fn unban(http: Http, kind: &str, who: &str) {
    let answer = http.delete(&format!("{ALL}/{kind}/{}", who.replace('/', "%2F")));
    assert_eq!(answer.status, 200, "{answer:?}");
    conforms("DELETE", ONE, &answer.json());
}

/// The code of the CONNACK.
fn code(broker: &crate::Broker, login: &Login) -> ReasonCode {
    let (mut peer, answer) = Peer::try_login(broker, login);
    let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
    let code = connack.code;
    if code != ReasonCode::SUCCESS {
        peer.expect_closed();
    }
    code
}

fn banned(version: Version) -> ReasonCode {
    if version == Version::V5 { ReasonCode::BANNED } else { ReasonCode::NOT_AUTHORIZED }
}

/// What a connected client that was banned is told: 5.0 a DISCONNECT, which has no 0x8A.
fn expect_ended(peer: &mut Peer) {
    peer.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
}

#[test]
fn a_banned_client_or_user_is_disconnected_and_kept_out_until_the_ban_is_taken_back() {
    served(&[], |broker, http| {
        for version in VERSIONS {
            for kind in ["clientid", "username"] {
                let mine =
                    Login::new(version, &named("bad/one", version)).user(&named("bad user", version), "x");
                let other = Login::new(version, &named("good", version)).user(&named("good", version), "x");
                let (mut peer, _) = Peer::login(broker, &mine);
                let (mut neighbour, _) = Peer::login(broker, &other);
                let who =
                    if kind == "clientid" { mine.client_id.clone() } else { mine.username.clone().unwrap() };
                let row = ban(http, kind, &who);
                assert_eq!(
                    (&row["as"], &row["who"], &row["by"]),
                    (&json!(kind), &json!(who), &json!("user"))
                );
                assert_eq!((&row["reason"], &row["until"]), (&json!("noise"), &json!(LATE)));
                expect_ended(&mut peer);
                assert_eq!(code(broker, &mine), banned(version), "{kind}");
                neighbour.ping();
                assert_eq!(code(broker, &other), ReasonCode::SUCCESS);
                unban(http, kind, &who.replace(' ', "%20"));
                assert_eq!(code(broker, &mine), ReasonCode::SUCCESS);
            }
        }
    });
}

#[test]
fn a_banned_network_is_closed_at_once() {
    served(&[], |broker, http| {
        let mut there: Vec<Peer> =
            VERSIONS.iter().map(|v| Peer::connect(broker, *v, &named("there", *v))).collect();
        // One that has not said who it is.
        let mut silent: Peer = Peer::open(broker, Version::V5);
        ban(http, "peerhost", "127.0.0.0/8");
        there.iter_mut().for_each(expect_ended);
        // Where it was not accepted before, it is closed by now.
        let _ = silent.try_send_raw(&Login::new(Version::V5, "silent").bytes());
        if let Read::Packet(answer) = silent.read_packet(TIMEOUT) {
            let is_refused = matches!(answer.packet(), Packet::ConnAck(c) if c.code == ReasonCode::BANNED);
            assert!(is_refused, "{answer:?}");
        }
        for version in VERSIONS {
            let mut peer: Peer = Peer::open(broker, version);
            // It may be closed by now.
            let _ = peer.try_send_raw(&Login::new(version, "late").bytes());
            assert!(!matches!(peer.read_packet(TIMEOUT), Read::Packet(_)), "it is closed without a word");
        }
        // HTTP is not MQTT.
        assert_eq!(told(http, ALL, ALL)["data"][0]["who"], "127.0.0.0/8");
        ban(http, "peerhost", "192.0.2.1");
        unban(http, "peerhost", "127.0.0.0/8");
        Peer::connect(broker, Version::V5, "late").ping();
    });
}

#[test]
fn a_ban_ends_by_itself_and_a_session_outlives_it() {
    served(&[], |broker, http| {
        for version in VERSIONS {
            let login = Login::lasting(version, &named("lasting", version));
            let (mut peer, _) = Peer::login(broker, &login);
            peer.subscribe("kept", QoS::AtLeastOnce);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let body = json!({"as": "clientid", "who": login.client_id, "until": now + 2});
            assert_eq!(http.post(ALL, &body.to_string()).status, 200);
            expect_ended(&mut peer);
            let mut publisher = Peer::connect(broker, version, &named("publisher", version));
            publisher.publish("kept", b"meanwhile", QoS::AtLeastOnce, false);
            // How long that takes is not for a test to say: it ends at some time.
            let (mut peer, present) = loop {
                let (peer, answer) = Peer::try_login(broker, &login);
                let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
                match connack.code {
                    ReasonCode::SUCCESS => break (peer, connack.session_present),
                    code => assert_eq!(code, banned(version)),
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            };
            assert!(present);
            assert_eq!(peer.expect_message().payload, b"meanwhile");
            assert_eq!(told(http, ALL, ALL)["meta"]["count"], 0);
        }
    });
}

#[test]
fn bans_are_listed_page_by_page_and_wrong_ones_are_told() {
    let broker = crate::Broker::start_http(crate::DRIVERS[0], 2, &[]);
    let http = Http::of(&broker);
    for i in 0..25 {
        ban(http, "clientid", &format!("c{i:02}"));
    }
    // Again: it takes the place of the first.
    ban(http, "clientid", "c00");
    let mut seen = Vec::new();
    for page in 1..=3 {
        let body = told(http, ALL, &format!("{ALL}?_page={page}&_limit=10"));
        assert_eq!(body["meta"], json!({"page": page, "limit": 10, "count": 25, "hasnext": page < 3}));
        seen.extend(
            body["data"].as_array().unwrap().iter().map(|row| row["who"].as_str().unwrap().to_owned()),
        );
    }
    let expected: Vec<String> = (1..25).map(|i| format!("c{i:02}")).chain(["c00".to_owned()]).collect();
    assert_eq!(seen, expected);
    assert_eq!(told(http, ALL, &format!("{ALL}?_page=9&_limit=10"))["data"], json!([]));
    let wrong = [
        (json!({"as": "clientid"}), 107),
        (json!({"as": "client", "who": "a"}), 108),
        (json!({"as": "peerhost", "who": "10.0.0.0/99"}), 108),
        (json!({"as": "clientid", "who": "a", "until": 7}), 108),
        (json!({"as": "clientid", "who": "a", "reason": "x".repeat(2_000)}), 108),
    ];
    for (body, code) in wrong {
        let answer = http.post(ALL, &body.to_string());
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{body}");
    }
    assert_eq!(http.delete("/api/v4/banned/clientid/nobody").status, 404);
    assert_eq!(http.delete("/api/v4/banned/host/c01").status, 400);
    broker.stop();
}

/// Killed as well as stopped, and with another number of shards.
#[test]
fn bans_outlive_a_restart_where_something_is_kept() {
    for &driver in DRIVERS {
        let folder = std::env::temp_dir().join(format!("ringmq-bans-{driver}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let path = folder.to_str().unwrap().to_owned();
        let start = |shards| {
            let settings = [("broker.durability", "on"), ("broker.data_dir", &*path)];
            Broker::start_http(driver, shards, &settings)
        };
        let mut broker = start(3);
        let http = Http::of(&broker);
        let made = ban(http, "clientid", "bad/one");
        ban(http, "peerhost", "203.0.113.0/24");
        ban(http, "username", "forgiven");
        unban(http, "username", "forgiven");
        broker.signal("KILL");
        assert!(broker.wait(TIMEOUT).is_some(), "it is gone");

        let broker = start(2);
        let http = Http::of(&broker);
        let rows = told(http, ALL, ALL)["data"].as_array().unwrap().clone();
        let names: Vec<&str> = rows.iter().map(|row| row["who"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 2, "{rows:?}");
        assert!(names.contains(&"bad/one") && names.contains(&"203.0.113.0/24"), "{rows:?}");
        let kept = rows.iter().find(|row| row["who"] == "bad/one").unwrap();
        for field in ["as", "by", "reason", "at", "until"] {
            assert_eq!(kept[field], made[field], "{field}");
        }
        for version in VERSIONS {
            assert_eq!(code(&broker, &Login::new(version, "bad/one")), banned(version));
            let forgiven = Login::new(version, "good").user("forgiven", "x");
            assert_eq!(code(&broker, &forgiven), ReasonCode::SUCCESS);
        }
        unban(http, "clientid", "bad/one");
        broker.stop();

        let broker = start(1);
        let rows = told(Http::of(&broker), ALL, ALL)["data"].as_array().unwrap().clone();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(code(&broker, &Login::new(Version::V5, "bad/one")), ReasonCode::SUCCESS);
        broker.stop();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
