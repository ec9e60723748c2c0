//! Who may use the API: names with hashed passwords, bearer tokens, and JSON Web Tokens.
//!
//! Nothing configured means `admin` with the password `public`, as the documents of NanoMQ say, and only where
//! no other machine can reach the API; the configuration sees to that. Secrets are compared in a time that does
//! not depend on where they differ. A password costs one hash, on a thread of its own and one at a time; what it
//! proved is remembered for a while, so that requests after the first cost none.

mod jwt;
mod origin;
mod passwords;
mod proven;

pub use crate::auth::hash::hash;
pub use origin::guard;
pub use passwords::User;

use super::HttpOptions;
use super::fault::{Cause, Fault};
use crate::limits::HTTP_HASHES_WAITING_MAX;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jwt::Jwt;
use proven::Proven;
use ring::digest::{SHA256, digest};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// Whether the API asks for credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// For everything but the probes.
    #[default]
    Required,
    /// Never; only where no other machine can reach the API.
    None,
}

impl Auth {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Auth)] = &[("required", Auth::Required), ("none", Auth::None)];
}

/// The name that is known before anything is configured.
pub const DEFAULT_NAME: &str = "admin";
/// Its password.
pub const DEFAULT_PASSWORD: &str = "public";

/// A text that is not told: no debug line shows it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// This text.
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever must have it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Decides who may use the API.
#[derive(Debug)]
pub struct Security {
    auth: Auth,
    /// None = `admin` with `public`.
    users: Option<Arc<[User]>>,
    /// Digests of the tokens.
    tokens: Vec<[u8; 32]>,
    jwt: Jwt,
    proven: Proven,
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Security {
    /// As configured.
    ///
    /// # Errors
    /// In one line: a key that cannot be read or used, and what to do.
    pub fn new(options: &HttpOptions) -> Result<Security, String> {
        let users = options.has_credentials().then(|| options.users.clone().into());
        Ok(Security {
            auth: options.auth,
            users,
            tokens: options.bearer_tokens.iter().map(|token| sha256(token.text().as_bytes())).collect(),
            jwt: Jwt::new(options.jwt_secret.text(), options.jwt_public_key.as_deref())?,
            proven: Proven::new()?,
            hashing: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(HTTP_HASHES_WAITING_MAX)),
        })
    }

    /// Checks the value of an `Authorization` header.
    ///
    /// # Errors
    /// Why it does not suffice.
    pub async fn check(&self, header: Option<&[u8]>) -> Result<(), Fault> {
        if self.auth == Auth::None {
            return Ok(());
        }
        let header = header.ok_or(Cause::NoCredentials)?;
        let header = std::str::from_utf8(header).map_err(|_| Cause::WrongCredentials)?;
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            self.check_basic(rest).await
        } else if scheme.eq_ignore_ascii_case("bearer") {
            self.check_bearer(rest)
        } else {
            Err(Fault::new(Cause::WrongCredentials, "expected Basic or Bearer credentials"))
        }
    }

    async fn check_basic(&self, encoded: &str) -> Result<(), Fault> {
        if encoded.is_empty() {
            return Err(Cause::NoCredentials.into());
        }
        let plain = BASE64_STANDARD.decode(encoded).map_err(|_| Cause::WrongCredentials)?;
        let colon = plain.iter().position(|byte| *byte == b':').ok_or(Cause::WrongCredentials)?;
        let (name, password) = (&plain[..colon], &plain[colon + 1..]);
        if name.is_empty() || password.is_empty() {
            return Err(Fault::new(Cause::NoCredentials, "the name or the password is empty"));
        }
        let Some(users) = &self.users else {
            let same = same(name, DEFAULT_NAME.as_bytes()) & same(password, DEFAULT_PASSWORD.as_bytes());
            return if same { Ok(()) } else { Err(Cause::WrongCredentials.into()) };
        };
        if self.proven.contains(&plain, Instant::now()) {
            return Ok(());
        }
        // Those who guess wait for each other, and only as many as there is room for.
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| Cause::Busy)?;
        let turn = self.hashing.clone().acquire_owned().await.map_err(|_| Cause::Internal)?;
        let (users, name, password) = (users.clone(), name.to_vec(), password.to_vec());
        let check = move || {
            // Held until the hash is done, also where whoever asked has gone meanwhile: else somebody who asks
            // and goes, again and again, has any number of hashes made at once.
            let _held = (place, turn);
            passwords::check(&users, &name, &password)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        if !checked.map_err(|_| Cause::Internal)? {
            return Err(Cause::WrongCredentials.into());
        }
        self.proven.add(&plain, Instant::now());
        Ok(())
    }

    fn check_bearer(&self, token: &str) -> Result<(), Fault> {
        if token.is_empty() {
            return Err(Cause::NoCredentials.into());
        }
        let offered = sha256(token.as_bytes());
        // All of them are looked at, so that the time does not tell which one was near.
        let known = self.tokens.iter().fold(false, |known, token| known | bool::from(token.ct_eq(&offered)));
        if known {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(self.jwt.check(token, now)?)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

/// Whether two secrets of any length are the same, in a time that tells nothing of either.
fn same(a: &[u8], b: &[u8]) -> bool {
    sha256(a).ct_eq(&sha256(b)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(options: HttpOptions) -> Security {
        Security::new(&options).unwrap()
    }

    fn basic(plain: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(plain))
    }

    fn causes(security: &Security, headers: &[&str]) -> Vec<Option<Cause>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let check = |header: &&str| runtime.block_on(security.check(Some(header.as_bytes())));
        headers.iter().map(|header| check(header).err().map(|fault| fault.cause)).collect()
    }

    const WRONG: Option<Cause> = Some(Cause::WrongCredentials);
    const NONE: Option<Cause> = Some(Cause::NoCredentials);

    #[test]
    fn nothing_configured_is_admin_with_public() {
        let security = security(HttpOptions::default());
        let headers = [
            &basic("admin:public")[..],
            "basic  YWRtaW46cHVibGlj",
            &basic("admin:publi"),
            &basic("Admin:public"),
        ];
        assert_eq!(causes(&security, &headers), [None, None, WRONG, WRONG]);
        let headers = [&basic("admin")[..], "Basic ?", "Basic", "", "Bearer x", "Bearer", "Digest x"];
        assert_eq!(causes(&security, &headers), [WRONG, WRONG, NONE, WRONG, WRONG, NONE, WRONG]);
        assert_eq!(causes(&security, &[&basic("admin:"), &basic(":public")]), [NONE, NONE]);
    }

    #[test]
    fn a_configured_name_replaces_the_default_and_is_hashed_once() {
        let users = vec![User::read(&format!("ann:{}", hash(b"a:b").unwrap())).unwrap()];
        let security = security(HttpOptions { users, ..HttpOptions::default() });
        let headers = [&basic("ann:a:b")[..], &basic("ann:a:c"), &basic("bob:a:b"), &basic("admin:public")];
        assert_eq!(causes(&security, &headers), [None, WRONG, WRONG, WRONG]);
        assert_eq!(security.proven.len(), 1);
        // While another thread hashes, what was proven is let in, and nothing else is.
        security.waiting.forget_permits(HTTP_HASHES_WAITING_MAX);
        assert_eq!(causes(&security, &[&basic("ann:a:b"), &basic("ann:a:c")]), [None, Some(Cause::Busy)]);
    }

    #[test]
    fn a_token_replaces_the_default_too() {
        let tokens = ["0123456789abcdef", "fedcba9876543210"].map(Secret::new).into();
        let security = security(HttpOptions { bearer_tokens: tokens, ..HttpOptions::default() });
        let headers = ["Bearer fedcba9876543210", "bearer 0123456789abcdef", "Bearer 0123456789abcdeF"];
        assert_eq!(causes(&security, &headers), [None, None, WRONG]);
        assert_eq!(causes(&security, &[&basic("admin:public")]), [WRONG]);
    }

    #[test]
    fn none_asks_for_nothing() {
        let security = security(HttpOptions { auth: Auth::None, ..HttpOptions::default() });
        assert_eq!(causes(&security, &["", "Basic ?"]), [None, None]);
    }
}
