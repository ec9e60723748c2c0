//! JSON Web Tokens [RFC 7519], signed by HS256 or RS256.
//!
//! Which key checks a token follows from the algorithm that its header names, and each key serves one algorithm,
//! so that a public key can never be taken for a secret. `exp` must be there.

use crate::api::fault::Cause;
use crate::auth::jwt::rsa_of_pem;
use crate::limits::HTTP_JWT_LEEWAY_S;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA256};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::Value;
use std::path::Path;

/// The keys that tokens are checked with.
#[derive(Debug, Default)]
pub(super) struct Jwt {
    secret: Option<hmac::Key>,
    public: Option<UnparsedPublicKey<Vec<u8>>>,
}

impl Jwt {
    /// An empty secret and no path mean no tokens.
    pub(super) fn new(secret: &str, public_key: Option<&Path>) -> Result<Jwt, String> {
        let public = public_key.map(read_public_key).transpose()?;
        Ok(Jwt {
            secret: (!secret.is_empty()).then(|| hmac::Key::new(HMAC_SHA256, secret.as_bytes())),
            public: public.map(|key| UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)),
        })
    }

    /// Checks a token at `now`, in seconds since the epoch.
    pub(super) fn check(&self, token: &str, now: u64) -> Result<(), Cause> {
        self.verified(token, now).unwrap_or(Err(Cause::WrongCredentials))
    }

    /// None: it is not a token that one of our keys signed.
    fn verified(&self, token: &str, now: u64) -> Option<Result<(), Cause>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let head = json(head)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        // An extension that must be understood, and is not [RFC 7515, 4.1.11].
        if head.get("crit").is_some() {
            return None;
        }
        match head["alg"].as_str()? {
            "HS256" => hmac::verify(self.secret.as_ref()?, signed.as_bytes(), &signature).ok()?,
            "RS256" => self.public.as_ref()?.verify(signed.as_bytes(), &signature).ok()?,
            _ => return None,
        }
        let claims = json(claims)?;
        // Numbers of seconds; RFC 7519 allows fractions.
        let time = |name: &str| claims.get(name).map(|value| value.as_f64());
        let expires = time("exp").flatten()?;
        let (now, leeway) = (now as f64, HTTP_JWT_LEEWAY_S as f64);
        if time("nbf").is_some_and(|from| from.is_none_or(|from| from > now + leeway)) {
            return None;
        }
        Some(if now >= expires + leeway { Err(Cause::ExpiredToken) } else { Ok(()) })
    }
}

/// Reads a public RSA key in PEM, as PKCS#8 (`PUBLIC KEY`) or PKCS#1 (`RSA PUBLIC KEY`), into PKCS#1.
fn read_public_key(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |what: String| format!("http.jwt_public_key: {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    rsa_of_pem(&text).ok_or_else(|| fault("expected a public RSA key in PEM (BEGIN PUBLIC KEY)".to_owned()))
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
