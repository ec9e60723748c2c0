//! Who may connect, and what they may do: rules without I/O. What takes long (the hash of a password, a request) is
//! done by the connectors with what stands here; a shard only asks whether it must wait for them.
//!
//! **Who may connect.** Each source that is configured is asked about a login, in the order of the chain: it vouches for
//! it, refuses it, or has nothing to say. The first that does not keep silent decides. Where all keep silent, the client
//! is anonymous if it has no credentials or no source is configured, and is refused otherwise. A further kind of source
//! (SQL, Redis, LDAP) is a [`Source`] with its options here, and an answer in the connectors' logins.
//!
//! **What they may do.** Without rules everything; with rules, what the first rule that applies says ([`acl`]); where none
//! does, what a back-end says that is asked about it ([`Inquiry`]).

pub mod acl;
mod aging;
mod backoff;
mod bans;
mod circuit;
pub mod hash;
pub mod http;
pub mod jwt;
mod network;
pub mod passwords;
mod ruling;
pub mod scram;
mod tls;

pub use acl::{Acl, Client, Deed};
pub use aging::Aging;
pub use backoff::Backoff;
pub use bans::{Ban, Banned, Bans};
pub use circuit::Circuit;
pub use http::HttpOptions;
pub use jwt::{Claim, Grant, Jwt};
pub use network::Network;
pub use passwords::Passwords;
pub use ruling::{Inquiry, Ruled, Ruling, Rulings};

use crate::limits::HTTP_JWT_SECRET_BYTES_MIN as JWT_SECRET_BYTES_MIN;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who is asked about a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Tokens that clients bring as their password.
    Jwt,
    /// The file of passwords by user name.
    PasswordFile,
    /// The file of passwords by client identifier.
    ClientIdFile,
    /// A back-end over HTTP.
    Http,
}

impl Source {
    /// Each value with its name in a configuration, in the order in which they are asked by default.
    pub const NAMES: &[(&'static str, Source)] = &[
        ("jwt", Source::Jwt),
        ("password_file", Source::PasswordFile),
        ("client_id_file", Source::ClientIdFile),
        ("http", Source::Http),
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        Source::NAMES.iter().find(|(_, source)| *source == self).map_or("", |(name, _)| name)
    }
}

/// A JSON Web Key Set at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jwks {
    /// The address; empty = none.
    pub url: Box<str>,
    /// Seconds after which it is fetched again.
    pub refresh_s: u32,
}

/// Where the broker learns who is who.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthOptions {
    /// In which order sources are asked.
    pub chain: Vec<Source>,
    /// Users with hashes of their passwords.
    pub password_file: Option<PathBuf>,
    /// Client identifiers with hashes of their passwords.
    pub client_id_file: Option<PathBuf>,
    /// The secret of tokens that are signed by HS256, HS384 or HS512; empty = none.
    pub jwt_secret: Box<str>,
    /// The public key of signed tokens, a file in PEM.
    pub jwt_public_key: Option<PathBuf>,
    /// Keys of signed tokens, a file of a JSON Web Key Set.
    pub jwt_jwks_file: Option<PathBuf>,
    /// Where keys of signed tokens are fetched from.
    pub jwt_jwks: Jwks,
    /// What a token must say.
    pub jwt_claims: Vec<Claim>,
    /// Whether a connection stays when its token ends.
    pub jwt_outlive: bool,
    /// Back-ends over HTTP.
    pub http: HttpOptions,
    /// Rules about publishing and subscribing.
    pub acl_file: Option<PathBuf>,
    /// What is remembered of what back-ends say about rights.
    pub rulings: RulingOptions,
    /// What happens to a client that does what it may not.
    pub deny_action: DenyAction,
}

/// What is remembered of what back-ends say about rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RulingOptions {
    /// Rulings that are remembered for one client.
    pub entries_max: u16,
    /// Seconds for which they hold; 0 = not at all.
    pub hold_s: u32,
}

impl Default for RulingOptions {
    fn default() -> RulingOptions {
        RulingOptions { entries_max: 32, hold_s: 60 }
    }
}

impl Default for AuthOptions {
    fn default() -> AuthOptions {
        AuthOptions {
            chain: Source::NAMES.iter().map(|(_, source)| *source).collect(),
            password_file: None,
            client_id_file: None,
            jwt_secret: "".into(),
            jwt_public_key: None,
            jwt_jwks_file: None,
            jwt_jwks: Jwks { url: "".into(), refresh_s: 300 },
            jwt_claims: Vec::new(),
            jwt_outlive: false,
            http: HttpOptions::default(),
            acl_file: None,
            rulings: RulingOptions::default(),
            deny_action: DenyAction::default(),
        }
    }
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
    /// Somebody vouches for it, and may give it more.
    Known(Option<Box<Grant>>),
    /// Nobody has anything to say.
    Silent,
    /// The user name or the password is wrong.
    Wrong,
    /// It may not come in, whatever its password.
    Forbidden,
    /// Too many were wrong before.
    HeldOff,
    /// More logins are waiting than may.
    Busy,
    /// Whoever was asked gave no answer in time.
    NoAnswer,
}

/// Random bytes of this run of the broker, which nobody else knows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn draw() -> Result<Secret, String> {
        let mut secret = Secret::default();
        let drawn = SystemRandom::new().fill(&mut secret.0);
        drawn.map(|()| secret).map_err(|_| "the kernel gives no random bytes".to_owned())
    }

    /// As it is.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// All sources of one reading of the configuration. Shards and connectors hold the same one.
#[derive(Debug, Default)]
pub struct Policy {
    /// Sources that are configured, in the order in which they are asked.
    pub chain: Vec<Source>,
    /// Users with hashes of their passwords.
    pub passwords: Option<Passwords>,
    /// Client identifiers with hashes of their passwords.
    pub clients: Option<Passwords>,
    /// Keys of tokens.
    pub jwt: Option<Jwt>,
    /// Where more keys are fetched from.
    pub jwks: Option<Jwks>,
    /// How back-ends are asked.
    pub http: HttpOptions,
    /// How connections to back-ends are encrypted, where one of them is.
    pub tls: Option<Arc<ClientConfig>>,
    /// What is answered about those who do not exist depends on it.
    pub secret: Secret,
    /// Rules. Without them, and where no back-end is asked, whoever is let in may do everything.
    pub acl: Option<Acl>,
    /// What is remembered of what a back-end says about rights.
    pub rulings: RulingOptions,
    /// What happens to a client that does what it may not.
    pub deny_action: DenyAction,
}

impl Policy {
    /// Reads all files.
    ///
    /// # Errors
    /// In one line: which key and file, what is wrong, and where.
    pub fn load(options: &AuthOptions) -> Result<Policy, String> {
        let file = |key, path: &Option<PathBuf>| match path {
            None => Ok(None),
            Some(path) => read(key, path, Passwords::read).map(Some),
        };
        let passwords = file("auth.password_file", &options.password_file)?;
        let clients = file("auth.client_id_file", &options.client_id_file)?;
        let acl = match &options.acl_file {
            None => None,
            Some(path) => {
                let name = path.to_string_lossy();
                Some(read("auth.acl_file", path, |text| Acl::read(&name, &text))?)
            }
        };
        let jwt = jwt_of(options)?;
        let (http, tls) = (options.http.clone(), tls_of(options)?);
        let jwks = (!options.jwt_jwks.url.is_empty()).then(|| options.jwt_jwks.clone());
        let is_on = |source: Source| match source {
            Source::Jwt => jwt.is_some(),
            Source::PasswordFile => passwords.is_some(),
            Source::ClientIdFile => clients.is_some(),
            Source::Http => http.auth.is_on(),
        };
        let chain = chain_of(&options.chain, is_on)?;
        let secret = Secret::draw()?;
        let (rulings, deny_action) = (options.rulings, options.deny_action);
        Ok(Policy { chain, passwords, clients, jwt, jwks, http, tls, secret, acl, rulings, deny_action })
    }

    /// Whether nobody is asked who a client is.
    pub fn asks_nobody(&self) -> bool {
        self.chain.is_empty()
    }

    /// Whether the connectors must be asked about a login with such credentials; else nobody has anything to say.
    pub fn must_wait(&self, client_id: &str, username: Option<&str>, password: Option<&[u8]>) -> bool {
        self.chain.iter().any(|source| match source {
            Source::Jwt => password.is_some(),
            Source::PasswordFile => username.is_some(),
            // One that is there needs its password.
            Source::ClientIdFile => {
                let known =
                    || self.clients.as_ref().is_some_and(|clients| clients.hash_of(client_id).is_some());
                password.is_some() || known()
            }
            Source::Http => true,
        })
    }

    /// Whether a back-end is asked about what no rule applies to.
    pub fn asks_rules(&self) -> bool {
        self.http.acl.is_on()
    }

    /// Whether something says what clients may do; else each may do everything.
    pub fn has_rules(&self) -> bool {
        self.acl.is_some() || self.asks_rules()
    }

    /// Whom it lets do what, in words for the log.
    pub fn describe(&self) -> Vec<String> {
        let count = |file: &Option<Passwords>| file.as_ref().map_or(0, Passwords::len);
        let source = |source: &Source| match source {
            Source::Jwt => "their tokens (auth.jwt_...)".to_owned(),
            Source::Http => format!("what {} says (auth.http_auth_url)", http::shown(&self.http.auth.url)),
            Source::PasswordFile => {
                format!("the passwords of {} users (auth.password_file)", count(&self.passwords))
            }
            Source::ClientIdFile => {
                format!("the passwords of {} client identifiers (auth.client_id_file)", count(&self.clients))
            }
        };
        let sources: Vec<String> = self.chain.iter().map(source).collect();
        vec![
            match sources.is_empty() {
                true => "no source of users is configured (section auth)".to_owned(),
                false => format!("clients are known by {}", sources.join(", then by ")),
            },
            match (&self.acl, self.asks_rules().then(|| http::shown(&self.http.acl.url))) {
                (None, None) => {
                    "whoever is let in may publish and subscribe to everything (no auth.acl_file)".to_owned()
                }
                (Some(acl), None) => {
                    format!("{} rules say who may do what, all else is denied (auth.acl_file)", acl.len())
                }
                (None, Some(url)) => format!("{url} says who may do what (auth.http_acl_url)"),
                (Some(acl), Some(url)) => format!(
                    "{} rules say who may do what (auth.acl_file), and of all else {url} (auth.http_acl_url)",
                    acl.len()
                ),
            },
        ]
    }

    /// Whether a user that was known by name is so no more.
    pub fn has_lost(&self, username: Option<&str>) -> bool {
        let ([Source::PasswordFile], Some(passwords), Some(name)) = (&*self.chain, &self.passwords, username)
        else {
            return false;
        };
        passwords.hash_of(name).is_none()
    }
}

/// The sources that are configured, in order.
fn chain_of(order: &[Source], is_on: impl Fn(Source) -> bool) -> Result<Vec<Source>, String> {
    for (at, source) in order.iter().enumerate() {
        if order[..at].contains(source) {
            return Err(format!("auth.chain: {:?} is there twice", source.name()));
        }
    }
    for (name, source) in Source::NAMES {
        if is_on(*source) && !order.contains(source) {
            return Err(format!(
                "auth.chain: expected {name:?} among its items, for that source is configured"
            ));
        }
    }
    Ok(order.iter().copied().filter(|source| is_on(*source)).collect())
}

/// TLS for back-ends, where one of them needs it.
fn tls_of(options: &AuthOptions) -> Result<Option<Arc<ClientConfig>>, String> {
    let http = &options.http;
    let urls = [
        ("auth.http_auth_url", &http.auth.url),
        ("auth.http_superuser_url", &http.superuser.url),
        ("auth.http_acl_url", &http.acl.url),
        ("auth.jwt_jwks_url", &options.jwt_jwks.url),
    ];
    for (key, url) in urls.iter().filter(|(_, url)| !url.is_empty()) {
        http::check_url(url).map_err(|what| format!("{key}: {what}"))?;
    }
    let secure = urls.iter().any(|(_, url)| http::is_secure(url));
    secure.then(|| tls::client_config(http.ca_file.as_deref())).transpose()
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
    let fetched = !options.jwt_jwks.url.is_empty();
    Ok((fetched || !jwt.is_empty()).then_some(jwt))
}

/// Reads a file of a key.
fn read<T>(key: &str, path: &Path, parse: impl FnOnce(String) -> Result<T, String>) -> Result<T, String> {
    let fault = |what: String| format!("{key}: {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    parse(text).map_err(fault)
}
