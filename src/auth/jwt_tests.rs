use super::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

const SECRET: &[u8] = b"a secret of at least 32 bytes, as asked";

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(head), encode(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn by_secret(claims: &Value) -> String {
    let key = hmac::Key::new(HMAC_SHA256, SECRET);
    token(&json!({"alg": "HS256"}), claims, |text| hmac::sign(&key, text).as_ref().to_vec())
}

fn login(password: &str) -> Login {
    Login {
        client_id: "c1".into(),
        username: Some("ann".into()),
        password: Some(password.as_bytes().into()),
        from: None,
    }
}

fn with_secret(claims: &[&str]) -> Jwt {
    let mut jwt = Jwt::new(claims.iter().map(|text| Claim::read(text).unwrap()).collect(), true);
    jwt.add_secret(SECRET);
    jwt
}

fn holds(jwt: &Jwt, token: &str) -> bool {
    matches!(jwt.judge(&login(token), 1_000, None), Judged::Holds(_))
}

#[test]
fn times_are_kept_with_a_little_leeway() {
    let jwt = with_secret(&[]);
    for (claims, may) in [
        (json!({}), true),
        (json!({"exp": 1_000}), true),
        (json!({"exp": 1_000 - JWT_LEEWAY_S}), false),
        (json!({"exp": "1500"}), false),
        (json!({"nbf": 1_000 + JWT_LEEWAY_S}), true),
        (json!({"nbf": 1_001 + JWT_LEEWAY_S}), false),
        (json!({"iat": 5_000}), false),
        (json!({"exp": 1_500.5, "nbf": 900, "iat": 900}), true),
    ] {
        assert_eq!(holds(&jwt, &by_secret(&claims)), may, "{claims}");
    }
    let Judged::Holds(grant) = jwt.judge(&login(&by_secret(&json!({"exp": 1_500}))), 1_000, None) else {
        panic!()
    };
    assert_eq!(grant.left_s, Some(500));
}

#[test]
fn claims_are_those_of_the_client() {
    let jwt = with_secret(&["sub:%u", "device:%c", "aud:broker"]);
    let good = json!({"sub": "ann", "device": "c1", "aud": ["x", "broker"]});
    assert!(holds(&jwt, &by_secret(&good)));
    for (name, value) in
        [("sub", json!("bob")), ("device", json!("c2")), ("aud", json!("other")), ("sub", Value::Null)]
    {
        let mut other = good.clone();
        other[name] = value;
        assert!(!holds(&jwt, &by_secret(&other)), "{other}");
    }
    let nameless = Login { username: None, ..login(&by_secret(&json!({"device": "c1", "aud": "broker"}))) };
    assert!(!matches!(jwt.judge(&nameless, 1_000, None), Judged::Holds(_)));
}

#[test]
fn a_token_that_another_key_signed_or_nobody_is_refused() {
    let jwt = with_secret(&[]);
    let good = by_secret(&json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = hmac::Key::new(HMAC_SHA256, b"another secret of at least 32 bytes");
    for bad in [
        format!("{signed}."),
        format!("{signed}.AAAA"),
        token(&json!({"alg": "HS256"}), &json!({}), |text| hmac::sign(&other, text).as_ref().to_vec()),
        token(&json!({"alg": "none"}), &json!({}), |_| Vec::new()),
        token(&json!({"alg": "RS256"}), &json!({}), |text| hmac::sign(&other, text).as_ref().to_vec()),
        token(&json!({"alg": "HS256", "crit": ["x"]}), &json!({}), |text| {
            hmac::sign(&hmac::Key::new(HMAC_SHA256, SECRET), text).as_ref().to_vec()
        }),
    ] {
        assert!(matches!(jwt.judge(&login(&bad), 1_000, None), Judged::Refused), "{bad}");
    }
    for none in ["", "secret", "a.b.c", "....", &"x".repeat(JWT_BYTES_MAX + 1)] {
        assert!(matches!(jwt.judge(&login(none), 1_000, None), Judged::NoToken), "{none}");
    }
}

#[test]
fn a_key_set_is_asked_by_kid_and_kind() {
    let random = SystemRandom::new();
    let pair = |id: &str| {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let part = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
        let key = json!({"kty": "EC", "crv": "P-256", "kid": id, "x": part(1..33), "y": part(33..65)});
        (pair, key)
    };
    let ((one, key_one), (two, key_two)) = (pair("one"), pair("two"));
    let by = |pair: &EcdsaKeyPair, id: &str| {
        token(&json!({"alg": "ES256", "kid": id}), &json!({}), |text| {
            pair.sign(&random, text).unwrap().as_ref().to_vec()
        })
    };
    let mut jwt = Jwt::new(Vec::new(), true);
    jwt.add_set(&json!({"keys": [key_one, {"kty": "OKP"}]}).to_string()).unwrap();
    assert_eq!(jwt.len(), 1);
    assert!(
        holds(&jwt, &by(&one, "one")) && !holds(&jwt, &by(&two, "two")) && !holds(&jwt, &by(&two, "one"))
    );
    // The set after a rotation.
    let mut jwt = Jwt::new(Vec::new(), true);
    jwt.add_set(&json!({"keys": [key_one, key_two]}).to_string()).unwrap();
    assert!(holds(&jwt, &by(&one, "one")) && holds(&jwt, &by(&two, "two")) && !holds(&jwt, &by(&two, "one")));
    for bad in ["", "{}", "[]", "{\"keys\": []}", "{\"keys\": [{\"kty\": \"RSA\"}]}"] {
        assert!(Jwt::new(Vec::new(), true).add_set(bad).is_err(), "{bad}");
    }
}

/// `openssl rsa -pubout`, of a key that was made for this test and is gone, and a token that PyJWT signed with it.
const RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtdkCrKbjcpM4rDT9bX37
zh27TemHZlqnsrnaJ2/un56g/Fd5I/78rUduiXpgIV0s/bcQ7Lv3rSlk4THIiVDX
1MMkFrlEM4t6g2e91QnBbNEeEmHwxze1ZkWVU7a/2c6Q7H5YhyNLfQQZMS/BrYQX
JaUv4h2RAW3mjjDeWX6BpcU/zSzxCfSs3MpcD+DvqcPc/w6ZY3fExqbdnNzvR70e
QhT7xAtngNTfJdUEcWxTduEh9J/oxP0bOvPazdDzFJHOSfxfaz6npq5frzk5CD0R
Oco6zI+bfA4mhSuMIj+VnXlcCwaMNhqiQg1Hj4/PhoC19FLlcN8eDW6yNxQ6l/eh
mQIDAQAB
-----END PUBLIC KEY-----
";
const RSA_TOKEN: &str = "\
eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.LMIFZnvHKvzFtkjUr2Fl2RirfD3l-2PLM9IviDxqXXoi\
V4MNlIvHXJY8VVMICz_L590-VRlFRQwN6i6dMciJ_Yvh4IAIwKNC6OMXnnNGHr7xj4GNEmEEEvVKdn_Vc_ERgNZTGTojKANc1__q\
-N9GgT3zMdfv0Y3ZJWBxgZMw3OBb5rXKFGwnSHQaTjiYR87BNrMLwJcRfP3IOHgqwbQeH0jIa7jH21HI2SWp9DORP_4NShaegtT6\
zSk00pIVKDhYsG30Dx5izowVnaVT0-eHWNW6yAYtvLq5hA83wh8zq5sL9-gLWZQGEjaPjbOObKD5A_b0wEUFf6k6ghhywcFyfA";
/// The same of P-384 and ES384.
const EC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEnzDeXHgJfhzOh5EqZTG4wnj2M75exsF8
WY2LNOHamMYTWIXgrxfoUkCD3+7jVBXBlF20oCdrN3khAj+tJ/mMMSg311ZD4+nL
8Sc4ws2Wiqorg1RftTmmqlb1sakxg2hz
-----END PUBLIC KEY-----
";
const EC_TOKEN: &str = "\
eyJhbGciOiJFUzM4NCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.SY9lveVSLvuhhaC8cYoPeiACQvpof7XLpBxAaoUvZv1z\
6yT67dJMNtAv-WYgDjKPzKhT1_QoA6bc1Ksh7EaaxGnQQBwCWymvDv83trTThuyebmxXRhhOf2ZKW5bwHuM9";

#[test]
fn tokens_of_another_library_hold_with_their_public_keys() {
    for (key, signed, other) in [(RSA_KEY, RSA_TOKEN, EC_TOKEN), (EC_KEY, EC_TOKEN, RSA_TOKEN)] {
        let mut jwt = Jwt::new(vec![Claim::read("sub:%u").unwrap()], true);
        jwt.add_pem(key).unwrap();
        assert!(holds(&jwt, signed) && !holds(&jwt, other));
        // A public key is no secret.
        let forged = hmac::Key::new(HMAC_SHA256, key.as_bytes());
        let forged = token(&json!({"alg": "HS256"}), &json!({"sub": "ann"}), |text| {
            hmac::sign(&forged, text).as_ref().to_vec()
        });
        assert!(!holds(&jwt, &forged));
    }
    for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
        assert!(Jwt::new(Vec::new(), true).add_pem(bad).is_err());
    }
}

#[test]
fn rules_in_a_token_allow_what_they_name() {
    use crate::auth::{Client, Deed};
    use crate::message::QoS;
    let jwt = with_secret(&[]);
    let claims = json!({"acl": {"pub": ["a/%u"], "sub": ["b/#"], "all": ["c"]}});
    let Judged::Holds(Grant { acl: Some(acl), .. }) = jwt.judge(&login(&by_secret(&claims)), 1_000, None)
    else {
        panic!()
    };
    let client = Client { id: "c1", user: Some("ann"), from: None };
    let publish = |topic| acl.allows(&client, &Deed::Publish { topic, qos: QoS::AtMostOnce, retain: false });
    assert!(publish("a/ann") && publish("c") && !publish("a/bob") && !publish("b/x"));
    for bad in [json!([]), json!({"pub": "a"}), json!({"pub": ["a/#/b"]}), json!({"sub": [1]})] {
        assert!(!holds(&jwt, &by_secret(&json!({"acl": bad}))));
    }
    let Judged::Holds(Grant { acl: Some(acl), .. }) =
        jwt.judge(&login(&by_secret(&json!({"acl": {}}))), 1_000, None)
    else {
        panic!()
    };
    assert!(acl.is_empty());
}

#[test]
fn an_element_that_says_it_is_longer_than_what_is_there_is_none() {
    for der in [&[0x30, 5, 1][..], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x30, 0x84, 0, 0, 0, 0], &[0x30], &[]] {
        assert_eq!(element(0x30, der), None, "{der:?}");
    }
}
