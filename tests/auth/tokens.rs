//! JSON Web Tokens as passwords.

use crate::common::{Broker, DRIVERS, Login, Peer, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use crate::passwords::{code, said};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign};
use ringmq::codec::{ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

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
