//! Logins under way: sources are asked in the order of the chain. What was proven a moment ago is known at once, whoever
//! guesses is held off, and the rest is looked up, hashed or asked.

use super::Question;
use super::http::Http;
use super::jwks::Jwks;
use crate::auth::hash::Hash;
use crate::auth::jwt::Judged;
use crate::auth::{Aging, Backoff, Login, Passwords, Policy, Source, Verdict};
use crate::limits::{AUTH_LOGINS_MAX, AUTH_PROVEN_MAX, AUTH_PROVEN_MS, AUTH_WAIT_MS};
use crate::time::Moment;
use ring::hmac::{self, HMAC_SHA256};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// A keyed digest of name and password, cut to what a bound on memory and nobody's guess needs.
type Tag = [u8; 16];

/// All that judges logins.
pub(super) struct Logins {
    chain: Arc<Chain>,
    /// A place for each login under way.
    places: Arc<Semaphore>,
    /// What fetches keys of tokens.
    attending: Option<AbortHandle>,
}

/// The sources of one policy.
struct Chain {
    policy: Arc<Policy>,
    http: Option<Http>,
    jwks: Option<Arc<Jwks>>,
    /// What was proven to another policy proves nothing.
    proven: Mutex<Aging<Tag, ()>>,
    backoff: Arc<Mutex<Backoff>>,
    key: hmac::Key,
    /// A place for each hash that may be computed at a time.
    hashing: Arc<Semaphore>,
    started: Instant,
}

impl Logins {
    pub(super) fn new(policy: Arc<Policy>, hashing: usize) -> Result<Logins, String> {
        let key = hmac::Key::generate(HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        let chain = Chain {
            http: http_of(&policy, &key),
            jwks: policy.jwks.as_ref().map(|wanted| Jwks::new(wanted, policy.tls.clone())),
            policy,
            proven: Mutex::new(Aging::new(AUTH_PROVEN_MAX, AUTH_PROVEN_MS)),
            backoff: Arc::default(),
            key,
            hashing: Arc::new(Semaphore::new(hashing)),
            started: Instant::now(),
        };
        let places = Arc::new(Semaphore::new(AUTH_LOGINS_MAX));
        Ok(Logins { chain: Arc::new(chain), places, attending: None })
    }

    /// Logins from now on are judged by another policy; those under way by the one that they began with.
    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        let old = self.chain.clone();
        let jwks = policy.jwks.as_ref().map(|wanted| Jwks::new(wanted, policy.tls.clone()));
        self.chain = Arc::new(Chain {
            http: http_of(&policy, &old.key),
            jwks: jwks.map(|jwks| jwks.succeed(old.jwks.as_deref())),
            policy,
            proven: Mutex::new(Aging::new(AUTH_PROVEN_MAX, AUTH_PROVEN_MS)),
            backoff: old.backoff.clone(),
            key: old.key.clone(),
            hashing: old.hashing.clone(),
            started: old.started,
        });
        self.attend();
    }

    /// Begins what goes on by itself. Called within the runtime.
    pub(super) fn attend(&mut self) {
        let attend = |jwks| tokio::spawn(Jwks::attend(jwks)).abort_handle();
        let next = self.chain.jwks.clone().map(attend);
        if let Some(earlier) = std::mem::replace(&mut self.attending, next) {
            earlier.abort();
        }
    }

    /// Judges a login, later.
    pub(super) fn judge(&self, question: Question) {
        let Question { login, reply } = question;
        let Ok(place) = self.places.clone().try_acquire_owned() else { return reply(Verdict::Busy) };
        let chain = self.chain.clone();
        tokio::spawn(async move {
            let _place = place;
            // After that nobody waits for the answer.
            let judged = timeout(Duration::from_millis(AUTH_WAIT_MS), chain.judge(login)).await;
            reply(judged.unwrap_or(Verdict::NoAnswer));
        });
    }
}

fn http_of(policy: &Policy, key: &hmac::Key) -> Option<Http> {
    let asked = policy.chain.contains(&Source::Http);
    asked.then(|| Http::new(&policy.http, policy.tls.clone(), key.clone()))
}

impl Chain {
    async fn judge(self: Arc<Chain>, login: Login) -> Verdict {
        let login = Arc::new(login);
        let mut rest = &*self.policy.chain;
        while let Some((source, behind)) = rest.split_first() {
            let verdict = match source {
                Source::Jwt => self.by_token(&login).await,
                Source::PasswordFile => self.by_password(&login, false, behind.is_empty()).await,
                Source::ClientIdFile => self.by_password(&login, true, behind.is_empty()).await,
                Source::Http => self.by_request(&login).await,
            };
            if !matches!(verdict, Verdict::Silent) {
                return verdict;
            }
            rest = behind;
        }
        if login.username.is_some() || login.password.is_some() {
            // It is refused, so it was a guess.
            self.failed(&login);
        }
        Verdict::Silent
    }

    async fn by_token(&self, login: &Login) -> Verdict {
        let Some(jwt) = &self.policy.jwt else { return Verdict::Silent };
        let judge = || {
            let fetched = self.jwks.as_ref().and_then(|jwks| jwks.keys());
            jwt.judge(login, epoch_s(), fetched.as_deref())
        };
        let mut judged = judge();
        if let (Judged::UnknownKey, Some(jwks)) = (&judged, &self.jwks) {
            jwks.refresh_early().await;
            judged = judge();
        }
        match judged {
            Judged::NoToken => Verdict::Silent,
            // Nothing can be said of it before there are keys.
            Judged::UnknownKey if self.jwks.as_ref().is_some_and(|jwks| jwks.keys().is_none()) => {
                Verdict::NoAnswer
            }
            Judged::Refused | Judged::UnknownKey => Verdict::Wrong,
            Judged::Holds(grant) => Verdict::Known(Some(Box::new(grant))),
        }
    }

    /// `by_id`: by the file of client identifiers, else by that of users. `last`: no source behind this one may know a
    /// name that is not in the file.
    async fn by_password(self: &Arc<Chain>, login: &Arc<Login>, by_id: bool, last: bool) -> Verdict {
        let Some((passwords, name)) = file_for(&self.policy, login, by_id) else { return Verdict::Silent };
        // Without a password it can be anonymous.
        let last = last && (!by_id || login.password.is_some());
        let tag = match passwords.hash_of(name) {
            Some(hash) => Some(self.tag(name, login.password.as_deref().unwrap_or_default(), hash)),
            None if last => None,
            None => return Verdict::Silent,
        };
        if let Some(tag) = tag {
            let now = self.now();
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            if proven.find(&tag, now).is_some() {
                proven.put(tag, (), now);
                drop(proven);
                self.succeeded(login);
                return Verdict::Known(None);
            }
        }
        if self.is_held(login) {
            return Verdict::HeldOff;
        }
        let Ok(turn) = self.hashing.clone().acquire_owned().await else { return Verdict::NoAnswer };
        let (checked, policy) = (login.clone(), self.policy.clone());
        let hashed = tokio::task::spawn_blocking(move || {
            let right = check(&checked, &policy, by_id);
            // Also where nobody waits any more.
            drop(turn);
            right
        });
        match (hashed.await, tag) {
            (Ok(true), Some(tag)) => {
                self.proven.lock().unwrap_or_else(PoisonError::into_inner).put(tag, (), self.now());
                self.succeeded(login);
                Verdict::Known(None)
            }
            // A panic in it was reported where it happened.
            (Err(_), _) => Verdict::NoAnswer,
            // Nobody vouches for a name that is not there; that takes as long as a wrong password does.
            _ => {
                self.failed(login);
                Verdict::Wrong
            }
        }
    }

    async fn by_request(&self, login: &Login) -> Verdict {
        let Some(http) = &self.http else { return Verdict::Silent };
        let known = http.known(login, self.now());
        if known.is_none() && self.is_held(login) {
            return Verdict::HeldOff;
        }
        let verdict = match known {
            Some(verdict) => verdict,
            None => http.judge(login, || self.now()).await,
        };
        match &verdict {
            Verdict::Known(_) => self.succeeded(login),
            Verdict::Wrong => self.failed(login),
            _ => {}
        }
        verdict
    }

    fn is_held(&self, login: &Login) -> bool {
        let (from, name) = who(login);
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).held(from, name, self.now()).is_some()
    }

    fn succeeded(&self, login: &Login) {
        let (from, name) = who(login);
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).succeeded(from, name);
    }

    fn failed(&self, login: &Login) {
        let (from, name) = who(login);
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).failed(from, name, self.now());
    }

    /// Changes with the hash, so that a password that was changed in the file proves nothing.
    fn tag(&self, name: &str, password: &[u8], hash: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), hash.as_bytes(), password] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(&context.sign().as_ref()[..16]);
        tag
    }

    fn now(&self) -> Moment {
        Moment(self.started.elapsed().as_millis() as u64)
    }
}

/// Seconds since the epoch.
fn epoch_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The address and the name that failures are counted for; those without an address share a place, and those without
/// a name are known by their client identifier.
fn who(login: &Login) -> (IpAddr, &str) {
    let from = login.from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    (from, login.username.as_deref().unwrap_or(&login.client_id))
}

/// The file that a login is looked up in, and by which name; `None` where it has none.
fn file_for<'a>(policy: &'a Policy, login: &'a Login, by_id: bool) -> Option<(&'a Passwords, &'a str)> {
    let user = login.username.as_deref();
    if by_id {
        // Whoever proves its identifier has not proven to be somebody else, for whom there may be rules.
        let itself = user.is_none_or(|user| user.is_empty() || *user == *login.client_id);
        return Some((policy.clients.as_ref()?, &*login.client_id)).filter(|_| itself);
    }
    Some((policy.passwords.as_ref()?, user?))
}

/// Whether the password is right. Takes as long for a name that is not there.
fn check(login: &Login, policy: &Policy, by_id: bool) -> bool {
    let Some((passwords, name)) = file_for(policy, login, by_id) else { return false };
    // No password is an empty one.
    let password = login.password.as_deref().unwrap_or_default();
    let known = passwords.hash_of(name);
    let hash = known.or_else(|| passwords.any_hash()).and_then(Hash::read);
    let right = hash.is_some_and(|hash| hash.is_of(password));
    right && known.is_some() && !password.is_empty()
}
