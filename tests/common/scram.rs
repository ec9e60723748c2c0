//! The client's side of SCRAM-SHA-256 [RFC 5802, RFC 7677].

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use std::num::NonZeroU32;

/// As it is called in an Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// One exchange.
pub struct Scram {
    password: String,
    bare: String,
}

impl Scram {
    pub fn new(user: &str, password: &str) -> Scram {
        Scram { password: password.to_owned(), bare: format!("n={user},r=rOprNGfwEbeRWgbNEkqO") }
    }

    /// The first message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The last message, and what a server that knows the password says then.
    pub fn answer(&self, challenge: &[u8]) -> (String, String) {
        let challenge = std::str::from_utf8(challenge).expect("a challenge is text");
        let attribute = |name: &str| {
            let found = challenge.split(',').find_map(|part| part.strip_prefix(name));
            found.unwrap_or_else(|| panic!("{name} in {challenge}"))
        };
        let salt = BASE64_STANDARD.decode(attribute("s=")).expect("a salt in base 64");
        let rounds: NonZeroU32 = attribute("i=").parse().expect("rounds");
        let mut salted = [0; 32];
        derive(PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), &mut salted);
        let mac = |key: &[u8], text: &[u8]| sign(&Key::new(HMAC_SHA256, key), text).as_ref().to_vec();
        let last = format!("c=biws,r={}", attribute("r="));
        let said = format!("{},{challenge},{last}", self.bare);
        let key = mac(&salted, b"Client Key");
        let stored = digest(&SHA256, &key);
        let proof: Vec<u8> =
            mac(stored.as_ref(), said.as_bytes()).iter().zip(&key).map(|(a, b)| a ^ b).collect();
        let signature = mac(&mac(&salted, b"Server Key"), said.as_bytes());
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        (format!("{last},p={}", encode(&proof)), format!("v={}", encode(&signature)))
    }
}
