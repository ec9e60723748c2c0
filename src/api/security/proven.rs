//! Credentials that were proven a while ago, so that each request does not cost a hash.

use crate::limits::{HTTP_PROVEN_MAX, HTTP_PROVEN_MS};
use ring::hmac::{self, HMAC_SHA256, Key};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Remembers keyed digests, never what was digested. The key is this process's and nobody else's.
#[derive(Debug)]
pub(super) struct Proven {
    key: Key,
    entries: Mutex<Vec<([u8; 32], Instant)>>,
}

impl Proven {
    pub(super) fn new() -> Result<Proven, String> {
        let key = Key::generate(HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        Ok(Proven { key, entries: Mutex::default() })
    }

    pub(super) fn contains(&self, secret: &[u8], now: Instant) -> bool {
        let tag = self.tag(secret);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(_, until)| *until > now);
        entries.iter().fold(false, |known, (other, _)| known | bool::from(other.ct_eq(&tag)))
    }

    /// Remembers it. The oldest makes room.
    pub(super) fn add(&self, secret: &[u8], now: Instant) {
        let tag = self.tag(secret);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(other, _)| *other != tag);
        if entries.len() >= HTTP_PROVEN_MAX {
            entries.remove(0);
        }
        entries.push((tag, now + Duration::from_millis(HTTP_PROVEN_MS)));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    fn tag(&self, secret: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.key, secret).as_ref());
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proven_is_known_for_a_while_and_within_bounds() {
        let (proven, now) = (Proven::new().unwrap(), Instant::now());
        proven.add(b"a", now);
        proven.add(b"a", now);
        assert!(proven.contains(b"a", now) && !proven.contains(b"b", now));
        assert_eq!(proven.len(), 1);
        assert!(!proven.contains(b"a", now + Duration::from_millis(HTTP_PROVEN_MS)));
        assert_eq!(proven.len(), 0);
        for i in 0..=HTTP_PROVEN_MAX {
            proven.add(&i.to_le_bytes(), now);
        }
        assert_eq!(proven.len(), HTTP_PROVEN_MAX);
        assert!(!proven.contains(&0usize.to_le_bytes(), now) && proven.contains(&1usize.to_le_bytes(), now));
    }
}
