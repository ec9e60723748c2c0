use super::*;
use serde_json::json;
use std::path::PathBuf;

/// `openssl rsa -pubout`, of a key that was made for this test and is gone.
const PKCS8: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAslkMMr0PJ3BMba+Kgkwn
gWrQgNHrrHSS4JE4FSf3WfX6luNSM3GW93cIxYqWzcHdCo6q17d3LdXiQ7wuLKA8
8r9uEeV9izDy33xOWXCnlck7fVoJZkOgybMoMGN7AcjFRzv3WNatPsL0kulgCPfT
S8LiIaSO3+xPdnjUlh+N9OYtl7Sg9FYDBFqF7xdwU/NSTeMEcH/A8d2i+/UP+9w2
XBRGE3ti2PNQF5jV9FT5V9W0y0FEdDOs3k3T3g4dHdK33w+r6t2hncG1r31chil4
QqggC0Hhp8MSVFRL8giRNWZ3FdGSB9vW+htXTY0NLRg+kG0DO7AjFxXEInCZ6Ox8
kwIDAQAB
-----END PUBLIC KEY-----
";

/// `openssl rsa -RSAPublicKey_out`, the same key.
const PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAslkMMr0PJ3BMba+KgkwngWrQgNHrrHSS4JE4FSf3WfX6luNSM3GW
93cIxYqWzcHdCo6q17d3LdXiQ7wuLKA88r9uEeV9izDy33xOWXCnlck7fVoJZkOg
ybMoMGN7AcjFRzv3WNatPsL0kulgCPfTS8LiIaSO3+xPdnjUlh+N9OYtl7Sg9FYD
BFqF7xdwU/NSTeMEcH/A8d2i+/UP+9w2XBRGE3ti2PNQF5jV9FT5V9W0y0FEdDOs
3k3T3g4dHdK33w+r6t2hncG1r31chil4QqggC0Hhp8MSVFRL8giRNWZ3FdGSB9vW
+htXTY0NLRg+kG0DO7AjFxXEInCZ6Ox8kwIDAQAB
-----END RSA PUBLIC KEY-----
";

/// {"alg":"RS256","typ":"JWT"} and {"iat":1000,"exp":2000,"bodyEncode":"0"}, signed by `openssl dgst -sha256 -sign`.
const SIGNED: &str = "\
eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.\
eyJpYXQiOjEwMDAsImV4cCI6MjAwMCwiYm9keUVuY29kZSI6IjAifQ.\
OwKPa7Xmtw3bLyg5y0p0FlZOfpFDmllGtcF6uGWn5SxD9eLhUDDnnQbjE3gMSNulOjTh1ObdTGtdYkAzaG8pBlgIDMFkE5Tzd3Cu\
IFrNVD8ledZlcPohZlvD3frPZymLG9De8QZ3Zizw6DbDhunVvctyyrebSpRnxqxW9tNbGIqoRbnCiiBTYu9Es_MMGJicbvQL26lf\
oaAhneUgutPOb21YHlahkbLNICDMLww9566MOGq-ISZW0o6KmstY-\
v8g3JNnCw6Q7BnMO66iemEp0_pe8iHxRY0Z70O2LoGWS24pxahSVx_87Iy6t2prrCwFfV8I1JA1Fg6rZFOaXFGvnw";

const SECRET: &str = "a secret of at least 32 bytes, as asked";

fn token(head: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(head), encode(claims));
    let key = hmac::Key::new(HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

const WRONG: Result<(), Cause> = Err(Cause::WrongCredentials);
const LATE: Result<(), Cause> = Err(Cause::ExpiredToken);

#[test]
fn a_token_of_the_secret_is_good_until_it_expires() {
    let jwt = Jwt::new(SECRET, None).unwrap();
    let good = token(&hs256(), &json!({"exp": 2000, "nbf": 1000}));
    assert_eq!(jwt.check(&good, 1500), Ok(()));
    assert_eq!(jwt.check(&good, 2000 + HTTP_JWT_LEEWAY_S), LATE);
    assert_eq!(jwt.check(&good, 1000 - HTTP_JWT_LEEWAY_S), Ok(()));
    assert_eq!(jwt.check(&good, 999 - HTTP_JWT_LEEWAY_S), WRONG);
    assert_eq!(jwt.check(&token(&hs256(), &json!({"exp": 2000.5})), 1500), Ok(()));
    for claims in
        [json!({}), json!({"exp": "2000"}), json!({"exp": null}), json!({"exp": 2000, "nbf": "x"}), json!([])]
    {
        assert_eq!(jwt.check(&token(&hs256(), &claims), 1500), WRONG, "{claims}");
    }
    for head in
        [json!({"alg": "none"}), json!({"alg": "HS512"}), json!({}), json!({"alg": "HS256", "crit": ["x"]})]
    {
        assert_eq!(jwt.check(&token(&head, &json!({"exp": 2000})), 1500), WRONG, "{head}");
    }
    for i in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
        assert_eq!(jwt.check(&String::from_utf8(bytes).unwrap(), 1500), WRONG, "{i}");
        assert_eq!(jwt.check(&good[..i], 1500), WRONG, "{i}");
    }
}

#[test]
fn a_token_of_the_private_key_is_checked_by_the_public_one() {
    for pem in [PKCS8, PKCS1] {
        let folder =
            std::env::temp_dir().join(format!("ringmq-jwt-{}-{}.pem", std::process::id(), pem.len()));
        std::fs::write(&folder, pem).unwrap();
        let jwt = Jwt::new("", Some(&folder));
        std::fs::remove_file(&folder).unwrap();
        let jwt = jwt.unwrap();
        assert_eq!(jwt.check(SIGNED, 1500), Ok(()));
        assert_eq!(jwt.check(SIGNED, 3000), LATE);
        assert_eq!(jwt.check(&SIGNED.replace("eyJpYXQi", "eyJpYXQj"), 1500), WRONG);
        assert_eq!(
            jwt.check(&token(&hs256(), &json!({"exp": 2000})), 1500),
            WRONG,
            "a public key is no secret"
        );
    }
    assert_eq!(Jwt::new(SECRET, None).unwrap().check(SIGNED, 1500), WRONG, "no key for it");
    assert_eq!(Jwt::default().check(SIGNED, 1500), WRONG);
}

#[test]
fn a_key_that_cannot_be_used_says_why() {
    let told = Jwt::new("", Some(&PathBuf::from("/nowhere.pem"))).unwrap_err();
    assert!(told.starts_with("http.jwt_public_key: /nowhere.pem: cannot be read: "), "{told}");
    for text in
        ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----"]
    {
        assert_eq!(rsa_of_pem(text), None, "{text}");
    }
}
