//! A back-end over HTTP that says who may connect: right, slow, wrong, and not there.

use crate::backend::{Asked, Backend, Reply, say};
use crate::common::{Broker, DRIVERS, Login, Peer, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use crate::passwords::{code, said};
use ringmq::codec::{Packet, ReasonCode, Version};
use ringmq::io::raise_open_files;
use ringmq::message::QoS;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Knows `ann` with the password `right`, who may do everything, and `bob`; has nothing to say about `other`.
fn knows(asked: &Asked) -> Reply {
    match (&*asked.path, asked.field("username"), asked.field("password")) {
        ("/super", "ann", _) => say(200),
        ("/super", ..) => say(401),
        ("/auth", "ann" | "bob", "right") => say(200),
        ("/auth", "other", _) => Reply::Say(200, "ignore".into()),
        ("/auth", "outlaw", _) => say(403),
        ("/auth", "many", _) => say(429),
        ("/auth", "broken", _) => say(500),
        _ => say(401),
    }
}

#[test]
fn a_back_end_says_who_comes_in() {
    let backend = Backend::start(knows);
    let url = backend.url("/auth");
    everywhere(2, &[("auth.http_auth_url", &url)], |broker, version| {
        let login = |user, password| Login::new(version, &named(user, version)).user(user, password);
        let answer = |user, password| code(broker, &login(user, password));
        assert_eq!(answer("ann", "right"), ReasonCode::SUCCESS);
        let name = named("foreign", version);
        assert_eq!(foreign::connect(broker, version, &name, Some(("ann", "right"))), "Success");
        assert_eq!(foreign::connect(broker, version, &name, Some(("ann", "wrong"))), "BadUserNamePassword");
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        assert_eq!(answer("ann", "wrong&password=right"), wrong);
        assert_eq!(answer("nobody", "right"), wrong);
        // Nobody knows them.
        assert_eq!(answer("other", "x"), wrong);
        assert_eq!(answer("outlaw", "x"), said(version, ReasonCode::NOT_AUTHORIZED));
        assert_eq!(answer("many", "x"), said(version, ReasonCode::SERVER_BUSY));
        // That it fails for one client, however often, keeps no other one out.
        for _ in 0..10 {
            assert_eq!(answer("broken", "x"), said(version, ReasonCode::SERVER_UNAVAILABLE));
        }
        assert_eq!(answer("bob", "right"), ReasonCode::SUCCESS);
        // Whoever has no credentials is asked about as well.
        assert_eq!(code(broker, &Login::new(version, &named("anon", version))), wrong);
        let asked = backend.asked();
        let first = &asked[0];
        assert_eq!((&*first.method, &*first.path), ("POST", "/auth"));
        assert_eq!(first.field("clientid"), named("ann", version));
        assert_eq!(asked.iter().find(|a| a.field("clientid").is_empty()).map(|a| &a.body), None);
    });
    // One after the other they need one connection for each broker.
    assert_eq!(backend.connections(), DRIVERS.len());
}

#[test]
fn requests_are_what_the_configuration_says() {
    let backend = Backend::start(|asked| match asked.headers.get("x-key").map(String::as_str) {
        Some("secret") => say(204),
        _ => say(400),
    });
    let url = backend.url("/who?all=1");
    let get = [
        ("auth.http_auth_url", &*url),
        ("auth.http_auth_method", "get"),
        ("auth.http_auth_params", "c=%c%%/%r/%a p=%P"),
        ("auth.http_headers", "X-Key:secret"),
    ];
    everywhere(2, &get, |broker, version| {
        let login = Login::new(version, &named("a b&c", version)).user("ann", "\u{e4}=&");
        assert_eq!(code(broker, &login), ReasonCode::SUCCESS);
        let [asked] = &backend.asked()[..] else { panic!("one request") };
        let fields = ["all", "c", "p"].map(|name| asked.field(name));
        assert_eq!(fields, ["1", &format!("{}%/mqtt/127.0.0.1", named("a b&c", version)), "\u{e4}=&"]);
        assert_eq!((&*asked.method, &*asked.path, &*asked.body), ("GET", "/who", ""));
    });
    let json =
        [("auth.http_auth_url", &*url), ("auth.http_format", "json"), ("auth.http_headers", "X-Key:secret")];
    everywhere(2, &json, |broker, version| {
        let login = Login::new(version, &named("json", version)).user("a\"nn", "right");
        assert_eq!(code(broker, &login), ReasonCode::SUCCESS);
        let [asked] = &backend.asked()[..] else { panic!("one request") };
        let body: serde_json::Value = serde_json::from_str(&asked.body).expect("JSON");
        let expected =
            serde_json::json!({"clientid": named("json", version), "username": "a\"nn", "password": "right"});
        assert_eq!(body, expected);
        assert_eq!(asked.headers["content-type"], "application/json");
    });
}

#[test]
fn a_superuser_needs_no_rules() {
    let backend = Backend::start(|asked| match asked.field("username") {
        "told" => Reply::Say(200, r#"{"result": "allow", "is_superuser": true}"#.into()),
        _ => knows(asked),
    });
    let folder = Folder::new();
    let acl = folder.write("acl.toml", "[[rule]]\nallow = \"publish\"\ntopics = [\"only\"]\n");
    let (auth, superuser) = (backend.url("/auth"), backend.url("/super"));
    let settings =
        [("auth.http_auth_url", &*auth), ("auth.http_superuser_url", &*superuser), ("auth.acl_file", &*acl)];
    everywhere(2, &settings, |broker, version| {
        let login = |user: &str| Login::new(version, &named(user, version)).user(user, "right");
        let refused = if version == Version::V5 { ReasonCode::NOT_AUTHORIZED.0 } else { 0x80 };
        for (user, granted) in [("ann", 1), ("bob", refused), ("told", 1)] {
            let (mut peer, _) = Peer::login(broker, &login(user));
            assert_eq!(peer.subscribe("a/b", QoS::AtLeastOnce), granted, "{user}");
        }
        let will = |user| code(broker, &login(user).will("a/will", b"x"));
        assert_eq!(will("ann"), ReasonCode::SUCCESS);
        assert_eq!(will("bob"), said(version, ReasonCode::NOT_AUTHORIZED));
    });
}

/// A user whose password, `secret`, is in a file.
const SIX: &str = "six:$6$v0a2bcwCEEOCgW2z$wetQDcuUg0oUJ61iygRQ/eP2vxZOFE6EW0a2yviKG9rGRi7T340ddTLOFi8iONmdXGIJt9u9uag/P9hg2suUVg==\n";

#[test]
fn sources_are_asked_in_the_order_of_the_chain() {
    let backend = Backend::start(knows);
    let (folder, url) = (Folder::new(), backend.url("/auth"));
    let file = folder.write("users", SIX);
    let usual = [("auth.http_auth_url", &*url), ("auth.password_file", &*file)];
    let answer = |broker: &Broker, version, user: &str, password: &str| {
        code(broker, &Login::new(version, &named(user, version)).user(user, password))
    };
    let asked_about = || -> Vec<String> {
        backend.asked().iter().map(|asked| asked.field("username").to_owned()).collect()
    };
    everywhere(2, &usual, |broker, version| {
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        assert_eq!(answer(broker, version, "six", "secret"), ReasonCode::SUCCESS);
        assert_eq!(answer(broker, version, "six", "wrong"), wrong);
        assert_eq!(answer(broker, version, "ann", "right"), ReasonCode::SUCCESS);
        assert_eq!(answer(broker, version, "other", "right"), wrong);
        assert_eq!(asked_about(), ["ann", "other"]);
    });
    let turned = [usual[0], usual[1], ("auth.chain", "http password_file")];
    everywhere(2, &turned, |broker, version| {
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        assert_eq!(answer(broker, version, "six", "secret"), wrong);
        assert_eq!(answer(broker, version, "ann", "right"), ReasonCode::SUCCESS);
        assert_eq!(asked_about(), ["six", "ann"]);
    });
}

#[test]
fn an_answer_holds_for_its_time_and_for_the_same_question() {
    let backend = Backend::start(knows);
    let url = backend.url("/auth");
    everywhere(2, &[("auth.http_auth_url", &url), ("auth.http_cache_s", "3600")], |broker, version| {
        let name = named("c", version);
        let answer = |name: &str, password| code(broker, &Login::new(version, name).user("ann", password));
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        for _ in 0..3 {
            assert_eq!(answer(&name, "right"), ReasonCode::SUCCESS);
            assert_eq!(answer(&name, "wrong"), wrong);
        }
        assert_eq!(backend.asked().len(), 2);
        assert_eq!(answer(&named("d", version), "right"), ReasonCode::SUCCESS);
        assert_eq!(backend.asked().len(), 1);
    });
}

#[test]
fn guesses_are_held_off_before_the_back_end_is_asked() {
    let backend = Backend::start(knows);
    let url = backend.url("/auth");
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 2, &[("auth.http_auth_url", &url)]);
        let answer = |password| code(&broker, &Login::new(Version::V5, "guess").user("ann", password));
        let codes: Vec<_> = (0..6).map(|_| answer("wrong")).collect();
        assert_eq!(codes[..5], [ReasonCode::BAD_USERNAME_OR_PASSWORD; 5]);
        assert_eq!(codes[5], ReasonCode::CONNECTION_RATE_EXCEEDED);
        assert_eq!(backend.asked().len(), 5);
        broker.stop();
    }
}

/// Waits for a line of the log, which is written by a thread of its own.
pub fn until_logged(broker: &Broker, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !broker.log().contains(text) {
        assert!(Instant::now() < deadline, "{text:?} is not logged:\n{}", broker.log());
    }
}

#[test]
fn a_back_end_that_is_down_is_left_alone_and_found_again() {
    // It hangs up as often as the test says.
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let backend = Backend::start(
        move |asked| if is_down.load(Ordering::Relaxed) { Reply::HangUp } else { knows(asked) },
    );
    let url = backend.url("/auth");
    for &driver in DRIVERS {
        down.store(true, Ordering::Relaxed);
        backend.asked();
        let broker = Broker::start(driver, 2, &[("auth.http_auth_url", &url)]);
        let answer = |name: &str| code(&broker, &Login::new(Version::V5, name).user("ann", "right"));
        for i in 0..200 {
            assert_eq!(answer(&format!("c-{i}")), ReasonCode::SERVER_UNAVAILABLE);
        }
        // Nobody asked two hundred times, however long that took: after each five it was left alone.
        let asked = backend.asked().len();
        assert!((5..100).contains(&asked), "{asked} requests");
        until_logged(&broker, "auth.http_auth_url does not answer and is left alone");
        down.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(60);
        while answer("back") != ReasonCode::SUCCESS {
            assert!(Instant::now() < deadline, "the back-end is not found again:\n{}", broker.log());
        }
        until_logged(&broker, "auth.http_auth_url answers again");
        broker.stop();
    }
}

#[test]
fn where_nothing_listens_clients_are_told_to_come_again() {
    // Nothing listens on port 1.
    everywhere(1, &[("auth.http_auth_url", "http://127.0.0.1:1/auth")], |broker, version| {
        let login = Login::new(version, &named("c", version)).user("ann", "right");
        assert_eq!(code(broker, &login), said(version, ReasonCode::SERVER_UNAVAILABLE));
    });
}

#[test]
fn an_answer_that_does_not_come_in_time_is_none() {
    let backend = Backend::start(|_| Reply::Hold);
    let url = backend.url("/auth");
    let settings = [("auth.http_auth_url", &*url), ("auth.http_timeout_ms", "50")];
    everywhere(2, &settings, |broker, version| {
        let login = Login::new(version, &named("c", version)).user("ann", "right");
        assert_eq!(code(broker, &login), said(version, ReasonCode::SERVER_UNAVAILABLE));
    });
}

/// Those who wait for a slow back-end hold nobody up: messages flow while every one of them waits.
#[test]
fn a_thousand_logins_wait_while_a_flow_goes_on() {
    raise_open_files();
    const LOGINS: usize = 1_000;
    for (&driver, version) in DRIVERS.iter().zip(VERSIONS) {
        let backend = Backend::start(|asked| match asked.field("username") {
            "flow" => say(200),
            _ => Reply::Hold,
        });
        let url = backend.url("/auth");
        let settings = [
            ("auth.http_auth_url", &*url),
            ("auth.http_timeout_ms", "10000"),
            ("auth.http_connections", "8"),
        ];
        let broker = Broker::start(driver, 2, &settings);
        let flow = |name: &str| Peer::login(&broker, &Login::new(version, name).user("flow", "")).0;
        let (mut from, mut to) = (flow("from"), flow("to"));
        to.subscribe("flow", QoS::AtMostOnce);
        let waiting: Vec<Peer> = (0..LOGINS)
            .map(|i| {
                let mut peer = Peer::open(&broker, version);
                peer.send_raw(&Login::new(version, &format!("slow-{i}")).user("slow", "x").bytes());
                peer
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        while backend.holding() < 8 {
            assert!(Instant::now() < deadline, "the back-end is not asked");
        }
        for i in 0..50_u32 {
            from.publish("flow", &i.to_be_bytes(), QoS::AtLeastOnce, false);
            assert_eq!(to.expect_message().payload, i.to_be_bytes());
        }
        // All of it came while nobody was answered: then others would have been asked about.
        assert_eq!(backend.asked().len(), 2 + 8);
        backend.release();
        let mut admitted = 0;
        for mut peer in waiting {
            let answer = peer.next();
            let Packet::ConnAck(ack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
            // Where that took too long, a client is told to come again.
            let come_again = said(version, ReasonCode::SERVER_UNAVAILABLE);
            assert!([ReasonCode::SUCCESS, come_again].contains(&ack.code), "{answer:?}");
            admitted += usize::from(ack.code == ReasonCode::SUCCESS);
        }
        assert!(admitted > 0, "the back-end was asked in vain");
        broker.stop();
    }
}

/// A certificate for `localhost` and the terms of a server that has it.
fn certified() -> (String, rustls::ServerConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has all ciphers")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    (made.cert.pem(), config)
}

#[test]
fn a_back_end_with_tls_must_have_a_certificate_that_is_trusted() {
    let (pem, tls) = certified();
    let folder = Folder::new();
    let (own, other) = (folder.write("ca.pem", &pem), folder.write("other.pem", &certified().0));
    let backend = Backend::start_secure(tls, knows);
    let url = backend.url("/auth");
    let login = |version| Login::new(version, &named("c", version)).user("ann", "right");
    let trusting = [("auth.http_auth_url", &*url), ("auth.http_ca_file", &*own)];
    everywhere(2, &trusting, |broker, version| {
        assert_eq!(code(broker, &login(version)), ReasonCode::SUCCESS);
    });
    for ca_file in [other, String::new()] {
        let settings = [("auth.http_auth_url", &*url), ("auth.http_ca_file", &*ca_file)];
        everywhere(1, &settings, |broker, version| {
            assert_eq!(code(broker, &login(version)), said(version, ReasonCode::SERVER_UNAVAILABLE));
        });
    }
    assert!(!backend.asked().is_empty());
}
