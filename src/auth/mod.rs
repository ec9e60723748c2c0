//! Who may connect, and what they may do: rules without I/O. What takes long (the hash of a password, a request) is
//! done by the connectors with what stands here; a shard only asks whether it must wait for them.
//!
//! **Who may connect.** Each source that is configured answers for a login: it vouches for it, refuses it, or has
//! nothing to say. The first that does not keep silent decides. Where all keep silent, the client is anonymous if it
//! has no credentials or no source is configured, and is refused otherwise.
//!
//! **What they may do.** Without rules everything; with rules, what the first rule that applies says ([`acl`]).

pub mod acl;
mod aging;
mod backoff;
pub mod hash;
pub mod jwt;
pub mod passwords;

pub use acl::{Acl, Client, Deed};
pub use aging::Aging;
pub use backoff::Backoff;
pub use jwt::{Claim, Grant, Jwt};
pub use passwords::Passwords;

use crate::limits::HTTP_JWT_SECRET_BYTES_MIN as JWT_SECRET_BYTES_MIN;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the broker learns who is who.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AuthOptions {
    /// Users with hashes of their passwords.
    pub password_file: Option<PathBuf>,
    /// The secret of tokens that are signed by HS256, HS384 or HS512; empty = none.
    pub jwt_secret: Box<str>,
    /// The public key of signed tokens, a file in PEM.
    pub jwt_public_key: Option<PathBuf>,
    /// Keys of signed tokens, a file of a JSON Web Key Set.
    pub jwt_jwks_file: Option<PathBuf>,
    /// What a token must say.
    pub jwt_claims: Vec<Claim>,
    /// Whether a connection stays when its token ends.
    pub jwt_outlive: bool,
    /// Rules about publishing and subscribing.
    pub acl_file: Option<PathBuf>,
    /// What happens to a client that does what it may not.
    pub deny_action: DenyAction,
}

impl std::fmt::Debug for AuthOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = (&self.password_file, &self.acl_file, &self.jwt_public_key, &self.jwt_jwks_file);
        write!(f, "AuthOptions({files:?}, {:?}, {:?})", self.jwt_claims, self.deny_action)
    }
}

/// What happens to a client that does what it may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DenyAction {
    /// It is told so, where its version has a way to.
    #[default]
    Ignore,
    /// Its connection ends.
    Disconnect,
}

impl DenyAction {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, DenyAction)] =
        &[("ignore", DenyAction::Ignore), ("disconnect", DenyAction::Disconnect)];
}

/// A client that wants to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Its client identifier, also where the broker assigned it.
    pub client_id: Box<str>,
    /// User name.
    pub username: Option<Box<str>>,
    /// Password.
    pub password: Option<Box<[u8]>>,
    /// Where it comes from, where that is known.
    pub from: Option<IpAddr>,
}

/// What is answered to a login.
#[derive(Debug)]
pub enum Verdict {
    /// Somebody vouches for it; a token may give it more.
    Known(Option<Box<Grant>>),
    /// Nobody has anything to say.
    Silent,
    /// The user name or the password is wrong.
    Wrong,
    /// Too many were wrong before.
    HeldOff,
    /// More logins are waiting than may.
    Busy,
    /// Whoever was asked gave no answer in time.
    NoAnswer,
}

/// All sources of one reading of the configuration. Shards and connectors hold the same one.
#[derive(Debug, Default)]
pub struct Policy {
    /// Users with hashes of their passwords.
    pub passwords: Option<Passwords>,
    /// Keys of tokens.
    pub jwt: Option<Jwt>,
    /// Rules; without them whoever is let in may do everything.
    pub acl: Option<Acl>,
    /// What happens to a client that does what it may not.
    pub deny_action: DenyAction,
}

impl Policy {
    /// Reads all files.
    ///
    /// # Errors
    /// In one line: which key and file, what is wrong, and where.
    pub fn load(options: &AuthOptions) -> Result<Policy, String> {
        let passwords = match &options.password_file {
            None => None,
            Some(path) => Some(read("auth.password_file", path, Passwords::read)?),
        };
        let acl = match &options.acl_file {
            None => None,
            Some(path) => {
                let name = path.to_string_lossy();
                Some(read("auth.acl_file", path, |text| Acl::read(&name, &text))?)
            }
        };
        Ok(Policy { passwords, jwt: jwt_of(options)?, acl, deny_action: options.deny_action })
    }

    /// Whether nobody is asked who a client is.
    pub fn asks_nobody(&self) -> bool {
        self.passwords.is_none() && self.jwt.is_none()
    }

    /// Whether the connectors must be asked about a login with such credentials; else nobody has anything to say.
    pub fn must_wait(&self, username: Option<&str>, password: Option<&[u8]>) -> bool {
        (self.passwords.is_some() && username.is_some()) || (self.jwt.is_some() && password.is_some())
    }

    /// Whom it lets do what, in words for the log.
    pub fn describe(&self) -> Vec<String> {
        vec![
            match &self.passwords {
                None if self.jwt.is_none() => "no source of users is configured (section auth)".to_owned(),
                None => "users are known by their tokens (auth.jwt_...) alone".to_owned(),
                Some(passwords) if self.jwt.is_some() => {
                    format!("{} users are known by their passwords, others by their tokens", passwords.len())
                }
                Some(passwords) => {
                    format!("{} users are known by their passwords (auth.password_file)", passwords.len())
                }
            },
            match &self.acl {
                None => {
                    "whoever is let in may publish and subscribe to everything (no auth.acl_file)".to_owned()
                }
                Some(acl) => {
                    format!("{} rules say who may do what, all else is denied (auth.acl_file)", acl.len())
                }
            },
        ]
    }

    /// Whether a user that was known by name is so no more.
    pub fn has_lost(&self, username: Option<&str>) -> bool {
        let (Some(passwords), None, Some(name)) = (&self.passwords, &self.jwt, username) else {
            return false;
        };
        passwords.hash_of(name).is_none()
    }
}

/// The keys of tokens, where there are any.
fn jwt_of(options: &AuthOptions) -> Result<Option<Jwt>, String> {
    let mut jwt = Jwt::new(options.jwt_claims.clone(), !options.jwt_outlive);
    match options.jwt_secret.len() {
        0 => {}
        JWT_SECRET_BYTES_MIN.. => jwt.add_secret(options.jwt_secret.as_bytes()),
        less => {
            return Err(format!(
                "auth.jwt_secret: expected at least {JWT_SECRET_BYTES_MIN} bytes, got {less}"
            ));
        }
    }
    if let Some(path) = &options.jwt_public_key {
        read("auth.jwt_public_key", path, |text| jwt.add_pem(&text))?;
    }
    if let Some(path) = &options.jwt_jwks_file {
        read("auth.jwt_jwks_file", path, |text| jwt.add_set(&text))?;
    }
    Ok((!jwt.is_empty()).then_some(jwt))
}

/// Reads a file of a key.
fn read<T>(key: &str, path: &Path, parse: impl FnOnce(String) -> Result<T, String>) -> Result<T, String> {
    let fault = |what: String| format!("{key}: {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    parse(text).map_err(fault)
}
