//! JSON Web Tokens [RFC 7519] that clients bring as their password.
//!
//! Which keys may check a token follows from the algorithm that its header names and each key serves one, so that a
//! public key can never be taken for a secret. Keys are a secret, a public key in PEM, and a file of a JSON Web Key
//! Set [RFC 7517]; of several in a set the token's `kid` names one. `exp`, where it is there, must be in the future;
//! `nbf` and `iat` must not.

use super::{Acl, Login};
use crate::limits::{JWT_BYTES_MAX, JWT_KEYS_MAX, JWT_LEEWAY_S};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;
use std::fmt::{Debug, Formatter};

/// Keys and what a token must say.
#[derive(Default)]
pub struct Jwt {
    keys: Vec<Key>,
    claims: Vec<Claim>,
    /// A connection ends when its token does.
    ends: bool,
}

impl Debug for Jwt {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwt({})", self.keys.len())
    }
}

/// The keys of a JSON Web Key Set.
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads one; keys of kinds that are not known are left out.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(text: &str) -> Result<KeySet, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))?;
        let keys = set["keys"].as_array().ok_or("expected an object with \"keys\", a list")?;
        if keys.len() > JWT_KEYS_MAX {
            return Err(format!("expected at most {JWT_KEYS_MAX} keys, got {}", keys.len()));
        }
        let keys: Vec<Key> = keys.iter().filter_map(key_of_set).collect();
        if keys.is_empty() {
            return Err("expected a key for signatures: kty RSA, EC (P-256, P-384) or oct".to_owned());
        }
        Ok(KeySet(keys))
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Debug for KeySet {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({})", self.0.len())
    }
}

struct Key {
    id: Option<Box<str>>,
    /// The algorithm of the key's own choice, where its set names one.
    algorithm: Option<Box<str>>,
    material: Material,
}

enum Material {
    Secret(Vec<u8>),
    /// PKCS#1.
    Rsa(Vec<u8>),
    /// Modulus and exponent.
    RsaParts(Vec<u8>, Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A claim that a token must have: `sub:%u`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    name: Box<str>,
    value: Box<str>,
}

impl Claim {
    /// Reads `NAME:VALUE`.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(text: &str) -> Result<Claim, String> {
        match text.split_once(':') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Claim { name: name.into(), value: value.into() })
            }
            _ => Err(format!("expected NAME:VALUE, such as sub:%u, got {text:?}")),
        }
    }

    /// As [`Claim::read`] reads it.
    pub fn show(&self) -> String {
        format!("{}:{}", self.name, self.value)
    }

    /// Whether a token has it, for this client. A name that the client does not have stands for nothing.
    fn holds(&self, claims: &Value, login: &Login) -> bool {
        let wanted = match &*self.value {
            "%c" => Some(&*login.client_id),
            "%u" => login.username.as_deref(),
            text => Some(text),
        };
        wanted.is_some_and(|wanted| match &claims[&*self.name] {
            Value::String(text) => text == wanted,
            // As `aud` may be written.
            Value::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
            other => other.as_u64().is_some_and(|n| n.to_string() == wanted),
        })
    }
}

/// What whoever vouches for a client gives it.
#[derive(Debug, Default)]
pub struct Grant {
    /// Whether it may do everything.
    pub superuser: bool,
    /// Seconds until its connection ends.
    pub left_s: Option<u64>,
    /// What it may do, by its token itself.
    pub acl: Option<Acl>,
}

/// What is to be said of a password.
#[derive(Debug)]
pub enum Judged {
    /// It is no token.
    NoToken,
    /// It is one that does not hold.
    Refused,
    /// It is one for which there is no key.
    UnknownKey,
    /// It holds.
    Holds(Grant),
}

impl Jwt {
    /// Without keys. `ends`: whether a connection ends when its token does.
    pub fn new(claims: Vec<Claim>, ends: bool) -> Jwt {
        Jwt { keys: Vec::new(), claims, ends }
    }

    /// Whether there are no keys, so that no token holds.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds the secret of HS256, HS384 and HS512.
    pub fn add_secret(&mut self, secret: &[u8]) {
        self.keys.push(Key { id: None, algorithm: None, material: Material::Secret(secret.to_vec()) });
    }

    /// Adds a public key in PEM: RSA, or ECDSA on P-256 or P-384.
    ///
    /// # Errors
    /// What was expected.
    pub fn add_pem(&mut self, text: &str) -> Result<(), String> {
        let expected = || "expected a public key of RSA, P-256 or P-384 in PEM (BEGIN PUBLIC KEY)".to_owned();
        let material = pem(text).ok_or_else(expected)?;
        self.keys.push(Key { id: None, algorithm: None, material });
        Ok(())
    }

    /// Adds the keys of a JSON Web Key Set; those of kinds that are not known are left out.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn add_set(&mut self, text: &str) -> Result<(), String> {
        self.keys.extend(KeySet::read(text)?.0);
        Ok(())
    }

    /// Judges a password at `now`, in seconds since the epoch, by its own keys and those that were fetched.
    pub fn judge(&self, login: &Login, now: u64, fetched: Option<&KeySet>) -> Judged {
        let token = login.password.as_deref().and_then(|password| std::str::from_utf8(password).ok());
        let Some((head, claims, signed, signature)) = token.and_then(parts) else { return Judged::NoToken };
        let id = head["kid"].as_str();
        let named = |key: &&Key| match (&key.id, id) {
            (Some(own), Some(id)) => **own == *id,
            _ => true,
        };
        let keys = self.keys.iter().chain(fetched.iter().flat_map(|set| &set.0));
        let mut named = keys.filter(named).peekable();
        if named.peek().is_none() {
            return Judged::UnknownKey;
        }
        // An extension that must be understood, and is not [RFC 7515, 4.1.11].
        let algorithm = head["alg"].as_str().filter(|_| head.get("crit").is_none());
        let signs = |key: &Key| algorithm.is_some_and(|name| key.signed(name, signed.as_bytes(), &signature));
        if !named.any(signs) {
            return Judged::Refused;
        }
        match self.holding(login, claims, now) {
            Some(grant) => Judged::Holds(grant),
            None => Judged::Refused,
        }
    }

    /// What a token gives whose signature is right.
    fn holding(&self, login: &Login, claims: &str, now: u64) -> Option<Grant> {
        let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        // Numbers of seconds; RFC 7519 allows fractions. One that is there and no number is no time.
        let time = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_f64().filter(|at| *at >= 0.0).map(Some),
        };
        let (early, late) = ((now + JWT_LEEWAY_S) as f64, now.saturating_sub(JWT_LEEWAY_S) as f64);
        let expires = time("exp")?;
        if expires.is_some_and(|at| at <= late)
            || time("nbf")?.is_some_and(|at| at > early)
            || time("iat")?.is_some_and(|at| at > early)
            || !self.claims.iter().all(|claim| claim.holds(&claims, login))
        {
            return None;
        }
        let acl = match claims.get("acl") {
            None => None,
            // Rules that are not understood are not overlooked.
            Some(rules) => Some(rules_of(rules)?),
        };
        let left_s = expires.filter(|_| self.ends).map(|at| (at as u64).saturating_sub(now));
        Some(Grant { left_s, acl, superuser: false })
    }
}

/// Head, claims, what is signed, and the signature.
fn parts(token: &str) -> Option<(Value, &str, &str, Vec<u8>)> {
    if token.len() > JWT_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let head: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
    head.is_object().then_some(())?;
    Some((head, claims, signed, BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?))
}

/// `{"pub": [FILTER], "sub": [FILTER], "all": [FILTER]}`, as EMQ X has it.
fn rules_of(rules: &Value) -> Option<Acl> {
    let filters = |name: &str| -> Option<Vec<&str>> {
        match rules.get(name) {
            None => Some(Vec::new()),
            Some(list) => list.as_array()?.iter().map(Value::as_str).collect(),
        }
    };
    rules.is_object().then_some(())?;
    Acl::granting(&filters("pub")?, &filters("sub")?, &filters("all")?)
}

impl Key {
    /// Whether it made this signature, by this algorithm.
    fn signed(&self, algorithm: &str, text: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return false;
        }
        let public = |check: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(check, key).verify(text, signature).is_ok()
        };
        match &self.material {
            Material::Secret(secret) => {
                let hash = match algorithm {
                    "HS256" => HMAC_SHA256,
                    "HS384" => HMAC_SHA384,
                    "HS512" => HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(hash, secret), text, signature).is_ok()
            }
            Material::Rsa(key) => rsa(algorithm).is_some_and(|check| public(check, key)),
            Material::RsaParts(n, e) => rsa(algorithm)
                .is_some_and(|check| RsaPublicKeyComponents { n, e }.verify(check, text, signature).is_ok()),
            Material::P256(point) => algorithm == "ES256" && public(&ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => algorithm == "ES384" && public(&ECDSA_P384_SHA384_FIXED, point),
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        "RS256" => Some(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Some(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Some(&RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

fn key_of_set(key: &Value) -> Option<Key> {
    let text = |name: &str| key[name].as_str();
    let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|used| used != "sig") {
        return None;
    }
    let point = |len: usize| -> Option<Vec<u8>> {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == len && y.len() == len).then(|| [vec![4], x, y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("oct", _) => Material::Secret(bytes("k")?),
        ("RSA", _) => Material::RsaParts(bytes("n")?, bytes("e")?),
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        _ => return None,
    };
    Some(Key { id: text("kid").map(Into::into), algorithm: text("alg").map(Into::into), material })
}

/// A public RSA key in PEM, as PKCS#1.
pub fn rsa_of_pem(text: &str) -> Option<Vec<u8>> {
    match pem(text)? {
        Material::Rsa(key) => Some(key),
        _ => None,
    }
}

/// A public key in PEM, as PKCS#8 (`PUBLIC KEY`) or, of RSA, PKCS#1 (`RSA PUBLIC KEY`).
fn pem(text: &str) -> Option<Material> {
    let block = |name: &str| {
        let begin = format!("-----BEGIN {name}-----");
        let rest = &text[text.find(&begin)? + begin.len()..];
        let body: String = rest[..rest.find("-----END ")?].split_whitespace().collect();
        BASE64_STANDARD.decode(body).ok()
    };
    if let Some(key) = block("RSA PUBLIC KEY") {
        return Some(Material::Rsa(key));
    }
    // SEQUENCE { SEQUENCE { OIDs }, BIT STRING { no unused bits, key } }.
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
        0x01, 0x07,
    ];
    const P384: &[u8] =
        &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    let der = block("PUBLIC KEY")?;
    let (whole, _) = element(SEQUENCE, &der)?;
    let (algorithm, rest) = element(SEQUENCE, whole)?;
    let (bits, _) = element(BIT_STRING, rest)?;
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key.to_vec()))? else { return None };
    match algorithm {
        RSA => Some(Material::Rsa(key)),
        P256 => Some(Material::P256(key)),
        P384 => Some(Material::P384(key)),
        _ => None,
    }
}

/// The content of a DER element with this tag, and what comes after it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(len)).flatten()
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
