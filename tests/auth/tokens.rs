//! JSON Web Tokens as passwords.

use crate::backend::{Backend, Reply, say};
use crate::common::{Broker, DRIVERS, Login, Peer, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use crate::http::until_logged;
use crate::passwords::{code, said};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign};
use ringmq::codec::{ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &str = "a-secret-of-at-least-32-bytes-for-tests";

fn token(secret: &str, id: Option<&str>, claims: &Value) -> String {
    let head = id.map_or(json!({"alg": "HS256"}), |id| json!({"alg": "HS256", "kid": id}));
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&head), encode(claims));
    let signature = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_secs()
}

#[test]
fn a_token_lets_its_own_client_in() {
    let settings = [
        ("auth.jwt_secret", SECRET),
        ("auth.jwt_claims", "sub:%u device:%c"),
        ("mqtt.allow_anonymous", "false"),
    ];
    everywhere(2, &settings, |broker, version| {
        let id = named("device", version);
        let claims = json!({"sub": "ann", "device": id, "exp": now_s() + 600});
        let login = |user: &str, id: &str, password: &str| Login::new(version, id).user(user, password);
        let good = token(SECRET, None, &claims);
        assert_eq!(code(broker, &login("ann", &id, &good)), ReasonCode::SUCCESS);
        assert_eq!(foreign::connect(broker, version, &id, Some(("ann", &good))), "Success");
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        assert_eq!(code(broker, &login("bob", &id, &good)), wrong);
        assert_eq!(code(broker, &login("ann", "other", &good)), wrong);
        assert_eq!(
            code(broker, &login("ann", &id, &token("another secret of 32 bytes and more", None, &claims))),
            wrong
        );
        let late = token(SECRET, None, &json!({"sub": "ann", "device": id, "exp": now_s() - 600}));
        assert_eq!(code(broker, &login("ann", &id, &late)), wrong);
        assert_eq!(code(broker, &login("ann", &id, "no token")), wrong);
        assert_eq!(foreign::connect(broker, version, &id, Some(("ann", &late))), "BadUserNamePassword");
    });
}

#[test]
fn a_connection_ends_with_its_token_and_rules_in_it_hold() {
    everywhere(2, &[("auth.jwt_secret", SECRET)], |broker, version| {
        let name = named("token", version);
        let acl = json!({"pub": ["out/%c"], "sub": ["in/#"]});
        let claims = json!({"exp": now_s() + 3, "acl": acl});
        let login = Login::new(version, &name).user("ann", &token(SECRET, None, &claims));
        let (mut peer, _) = Peer::login(broker, &login);
        let refused = if version == Version::V5 { ReasonCode::NOT_AUTHORIZED.0 } else { 0x80 };
        assert_eq!(peer.subscribe("in/a", QoS::AtLeastOnce), 1);
        assert_eq!(peer.subscribe("out/#", QoS::AtLeastOnce), refused);
        // Others have no rules.
        let mut watch = Peer::connect(broker, version, &named("watch", version));
        assert_eq!(watch.subscribe("out/#", QoS::AtMostOnce), 0);
        peer.send_publish("out/other", b"denied", QoS::AtMostOnce, false);
        peer.send_publish(&format!("out/{name}"), b"allowed", QoS::AtMostOnce, false);
        assert_eq!(watch.expect_message().payload, b"allowed");
        match version {
            Version::V5 => peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED),
            _ => peer.expect_closed(),
        }
        // A will that the token does not allow is refused.
        let claims = json!({"acl": acl});
        let will =
            Login::new(version, &name).user("ann", &token(SECRET, None, &claims)).will("out/other", b"x");
        assert_eq!(code(broker, &will), said(version, ReasonCode::NOT_AUTHORIZED));
    });
}

#[test]
fn a_key_set_is_rotated_by_sighup() {
    let folder = Folder::new();
    let key =
        |id: &str, secret: &str| json!({"kty": "oct", "kid": id, "k": BASE64_URL_SAFE_NO_PAD.encode(secret)});
    let (old, new) = ("the old secret of 32 bytes and more", "the new secret of 32 bytes and more");
    for &driver in DRIVERS {
        let file = folder.write("keys.json", &json!({"keys": [key("old", old)]}).to_string());
        let broker = Broker::start(driver, 2, &[("auth.jwt_jwks_file", &file)]);
        for version in VERSIONS {
            if version != VERSIONS[0] {
                folder.write("keys.json", &json!({"keys": [key("old", old)]}).to_string());
                broker.signal("HUP");
            }
            let login = |id, secret| {
                Login::new(version, &named(id, version)).user("ann", &token(secret, Some(id), &json!({})))
            };
            while code(&broker, &login("old", old)) != ReasonCode::SUCCESS {}
            assert_ne!(code(&broker, &login("new", new)), ReasonCode::SUCCESS);
            folder.write("keys.json", &json!({"keys": [key("new", new)]}).to_string());
            broker.signal("HUP");
            while code(&broker, &login("new", new)) != ReasonCode::SUCCESS {}
            assert_ne!(code(&broker, &login("old", old)), ReasonCode::SUCCESS);
        }
        broker.stop();
    }
}

/// A back-end whose answer a test changes.
fn keys_at() -> (Backend, Arc<Mutex<Reply>>) {
    let said = Arc::new(Mutex::new(say(503)));
    let saying = said.clone();
    (Backend::start(move |_| saying.lock().expect("no test fails while it holds it").clone()), said)
}

fn set_of(id: &str, secret: &str) -> Reply {
    let key = json!({"kty": "oct", "kid": id, "k": BASE64_URL_SAFE_NO_PAD.encode(secret)});
    Reply::Say(200, json!({"keys": [key]}).to_string())
}

#[test]
fn a_key_set_at_an_address_is_fetched_again_for_an_unknown_key() {
    let (old, new) = ("the old secret of 32 bytes and more", "the new secret of 32 bytes and more");
    for (&driver, version) in DRIVERS.iter().zip(VERSIONS) {
        let (backend, said_there) = keys_at();
        let url = backend.url("/keys");
        let settings = [("auth.jwt_jwks_url", &*url), ("auth.jwt_jwks_refresh_s", "86400")];
        let broker = Broker::start(driver, 2, &settings);
        let say = |reply| *said_there.lock().expect("no test fails while it holds it") = reply;
        let answer = |id, secret| {
            let login =
                Login::new(version, &named(id, version)).user("ann", &token(secret, Some(id), &json!({})));
            code(&broker, &login)
        };
        let until = |id, secret, wanted| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while answer(id, secret) != wanted {
                assert!(Instant::now() < deadline, "{id}: {wanted:?} is expected:\n{}", broker.log());
            }
        };
        // There are no keys yet.
        assert_eq!(answer("old", old), said(version, ReasonCode::SERVER_UNAVAILABLE));
        say(set_of("old", old));
        until("old", old, ReasonCode::SUCCESS);
        // Among the keys that are there, a wrong signature asks nobody.
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        backend.asked();
        assert_eq!(answer("old", new), wrong);
        assert_eq!(backend.asked().len(), 0);
        say(set_of("new", new));
        until("new", new, ReasonCode::SUCCESS);
        assert_eq!(backend.asked().len(), 1, "however often it was tried");
        assert_eq!(answer("old", old), wrong);
        // Keys from before are kept.
        say(Reply::Say(200, "{}".into()));
        let deadline = Instant::now() + Duration::from_secs(60);
        while backend.asked().is_empty() {
            assert_eq!(answer("other", old), wrong);
            assert!(Instant::now() < deadline, "the address is not asked");
        }
        until_logged(&broker, "keys from before are kept");
        assert_eq!(answer("new", new), ReasonCode::SUCCESS);
        broker.stop();
    }
}

#[test]
fn a_key_set_at_an_address_is_fetched_again_after_its_time() {
    let (old, new) = ("the old secret of 32 bytes and more", "the new secret of 32 bytes and more");
    let (backend, said_there) = keys_at();
    *said_there.lock().expect("no test fails while it holds it") = set_of("one", old);
    let url = backend.url("/keys");
    let settings = [("auth.jwt_jwks_url", &*url), ("auth.jwt_jwks_refresh_s", "1")];
    let broker = Broker::start(DRIVERS[0], 1, &settings);
    let answer = |secret| {
        code(&broker, &Login::new(Version::V5, "c").user("ann", &token(secret, Some("one"), &json!({}))))
    };
    assert_eq!(answer(old), ReasonCode::SUCCESS);
    // The same name, so that nothing but time shows that there is another key.
    *said_there.lock().expect("no test fails while it holds it") = set_of("one", new);
    let deadline = Instant::now() + Duration::from_secs(60);
    while answer(new) != ReasonCode::SUCCESS {
        assert!(Instant::now() < deadline, "the keys are not fetched again");
    }
    assert_eq!(answer(old), ReasonCode::BAD_USERNAME_OR_PASSWORD);
    broker.stop();
}
