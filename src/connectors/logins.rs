//! Logins under way: what was proven a moment ago is known at once, whoever guesses is held off, and the rest is
//! looked up and hashed.

use super::Question;
use crate::auth::hash::Hash;
use crate::auth::jwt::Judged;
use crate::auth::{Aging, Backoff, Login, Passwords, Policy, Verdict};
use crate::limits::{AUTH_LOGINS_MAX, AUTH_PROVEN_MAX, AUTH_PROVEN_MS, AUTH_WAIT_MS};
use crate::time::Moment;
use ring::hmac::{self, HMAC_SHA256};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// A keyed digest of name and password, cut to what a bound on memory and nobody's guess needs.
type Tag = [u8; 16];

/// All that judges logins.
pub(super) struct Logins {
    policy: Arc<Policy>,
    memory: Arc<Mutex<Memory>>,
    key: hmac::Key,
    /// A place for each hash that may be computed at a time.
    hashing: Arc<Semaphore>,
    /// A place for each login under way.
    places: Arc<Semaphore>,
    started: Instant,
}

/// What is remembered of earlier logins.
struct Memory {
    proven: Aging<Tag, ()>,
    backoff: Backoff,
}

impl Logins {
    pub(super) fn new(policy: Arc<Policy>, hashing: usize) -> Result<Logins, String> {
        let key = hmac::Key::generate(HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        let proven = Aging::new(AUTH_PROVEN_MAX, AUTH_PROVEN_MS);
        Ok(Logins {
            policy,
            memory: Arc::new(Mutex::new(Memory { proven, backoff: Backoff::default() })),
            key,
            hashing: Arc::new(Semaphore::new(hashing)),
            places: Arc::new(Semaphore::new(AUTH_LOGINS_MAX)),
            started: Instant::now(),
        })
    }

    /// What was proven to another policy proves nothing.
    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
        // A login under way with the old policy remembers what it proved where nobody looks any more.
        let proven = Aging::new(AUTH_PROVEN_MAX, AUTH_PROVEN_MS);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let backoff = std::mem::take(&mut memory.backoff);
        drop(memory);
        self.memory = Arc::new(Mutex::new(Memory { proven, backoff }));
    }

    /// Judges a login, at once or later.
    pub(super) fn judge(&mut self, question: Question) {
        let Question { login, reply } = question;
        match self.policy.jwt.as_ref().map(|jwt| jwt.judge(&login, epoch_s())) {
            None | Some(Judged::NoToken) => {}
            Some(Judged::Refused) => return reply(Verdict::Wrong),
            Some(Judged::Holds(grant)) => return reply(Verdict::Known(Some(Box::new(grant)))),
        }
        let Some((name, password, passwords)) = credentials(&login, &self.policy) else {
            return reply(Verdict::Silent);
        };
        let Some(hash) = passwords.hash_of(name) else {
            // Nobody vouches for a name that is not there; that takes as long as a wrong password does.
            return self.hash(login, None, reply);
        };
        let tag = self.tag(name, password, hash);
        let now = self.now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.proven.find(&tag, now).is_some() {
            memory.proven.put(tag, (), now);
            memory.backoff.succeeded(from(&login), name);
            drop(memory);
            return reply(Verdict::Known(None));
        }
        drop(memory);
        self.hash(login, Some(tag), reply);
    }

    /// Computes the hash of a password when it is its turn. `tag`: none where the name is unknown.
    fn hash(&self, login: Login, tag: Option<Tag>, reply: Box<dyn FnOnce(Verdict) + Send>) {
        let name = login.username.as_deref().unwrap_or_default();
        let from = from(&login);
        let now = self.now();
        let held = {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.backoff.held(from, name, now).is_some()
        };
        if held {
            return reply(Verdict::HeldOff);
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else { return reply(Verdict::Busy) };
        let (hashing, policy, memory) = (self.hashing.clone(), self.policy.clone(), self.memory.clone());
        let (began, started) = (Instant::now(), self.started);
        tokio::spawn(async move {
            let _place = place;
            let Ok(_turn) = hashing.acquire_owned().await else { return reply(Verdict::NoAnswer) };
            if began.elapsed() >= Duration::from_millis(AUTH_WAIT_MS) {
                // Nobody waits for the answer any more.
                return reply(Verdict::NoAnswer);
            }
            let name = login.username.clone().unwrap_or_default();
            let right = tokio::task::spawn_blocking(move || check(&login, &policy)).await;
            let now = Moment(started.elapsed().as_millis() as u64);
            let verdict = {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                match (right, tag) {
                    (Ok(true), Some(tag)) => {
                        memory.proven.put(tag, (), now);
                        memory.backoff.succeeded(from, &name);
                        Verdict::Known(None)
                    }
                    // A panic in it was reported where it happened.
                    (Err(_), _) => Verdict::NoAnswer,
                    _ => {
                        memory.backoff.failed(from, &name, now);
                        Verdict::Wrong
                    }
                }
            };
            reply(verdict);
        });
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

/// Name, password and who knows them, where there are all three. No password is an empty one.
fn credentials<'a>(login: &'a Login, policy: &'a Policy) -> Option<(&'a str, &'a [u8], &'a Passwords)> {
    let name = login.username.as_deref()?;
    Some((name, login.password.as_deref().unwrap_or_default(), policy.passwords.as_ref()?))
}

/// The address that failures are counted for; those without one share a place.
fn from(login: &Login) -> IpAddr {
    login.from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// Whether the password is right. Takes as long for a name that is not there.
fn check(login: &Login, policy: &Policy) -> bool {
    let Some((name, password, passwords)) = credentials(login, policy) else { return false };
    let known = passwords.hash_of(name);
    let hash = known.or_else(|| passwords.any_hash()).and_then(Hash::read);
    let right = hash.is_some_and(|hash| hash.is_of(password));
    right && known.is_some() && !password.is_empty()
}
