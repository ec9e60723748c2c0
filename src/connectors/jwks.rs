//! Keys of tokens that are fetched from an address: again and again, and at once for a token whose key is not known.

use super::client::Client;
use crate::auth::Jwks as Wanted;
use crate::auth::http::shown;
use crate::auth::jwt::KeySet;
use crate::limits::{JWKS_BYTES_MAX, JWKS_EARLY_MS_MIN, JWKS_RETRY_MS, JWKS_TIMEOUT_MS};
use rustls::ClientConfig;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The keys of an address.
pub(super) struct Jwks {
    wanted: Wanted,
    client: Client,
    keys: Lock<Option<Arc<KeySet>>>,
    /// When they were asked for the last time, and whether they came. Whoever holds it asks.
    asked: Mutex<Option<(Instant, bool)>>,
}

impl Jwks {
    /// Of an address; fetched by [`Jwks::attend`].
    pub(super) fn new(wanted: &Wanted, tls: Option<Arc<ClientConfig>>) -> Arc<Jwks> {
        Arc::new(Jwks {
            wanted: wanted.clone(),
            client: Client::new(tls, &[], JWKS_TIMEOUT_MS, 1),
            keys: Lock::default(),
            asked: Mutex::default(),
        })
    }

    /// The keys of an earlier reading of the configuration hold until they are fetched.
    pub(super) fn succeed(self: Arc<Jwks>, old: Option<&Jwks>) -> Arc<Jwks> {
        if let Some(old) = old.filter(|old| old.wanted.url == self.wanted.url) {
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = old.keys();
        }
        self
    }

    /// The keys that were fetched last.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches them now and from time to time.
    pub(super) async fn attend(self: Arc<Jwks>) {
        loop {
            let pause = self.refresh(Jwks::period).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// A token names a key that is not among them: they are fetched early, unless that was done a moment ago.
    pub(super) async fn refresh_early(&self) {
        self.refresh(|_, _| Duration::from_millis(JWKS_EARLY_MS_MIN)).await;
    }

    /// For how long keys count as new, and after which time a fetch that failed is tried again.
    fn period(&self, fetched: bool) -> Duration {
        let refresh_ms = u64::from(self.wanted.refresh_s) * 1_000;
        Duration::from_millis(if fetched { refresh_ms } else { refresh_ms.min(JWKS_RETRY_MS) })
    }

    /// Fetches them where the last time was that long ago; returns the time until they are to be fetched again.
    async fn refresh(&self, after: impl Fn(&Jwks, bool) -> Duration) -> Duration {
        let mut asked = self.asked.lock().await;
        if let Some((at, fetched)) = *asked {
            let left = after(self, fetched).saturating_sub(at.elapsed());
            if !left.is_zero() {
                return left;
            }
        }
        let fetched = self.fetch().await;
        *asked = Some((Instant::now(), fetched));
        self.period(fetched)
    }

    /// Whether there are new ones; else those from before stay.
    async fn fetch(&self) -> bool {
        let url = shown(&self.wanted.url);
        let read = |text: Vec<u8>| {
            let text = String::from_utf8(text).map_err(|_| "expected JSON, got no text".to_owned())?;
            KeySet::read(&text)
        };
        match self.client.get(&self.wanted.url, JWKS_BYTES_MAX).await.and_then(read) {
            Ok(keys) => {
                tracing::debug!("{} keys of tokens from {url}", keys.len());
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
                true
            }
            Err(error) => {
                tracing::warn!("auth.jwt_jwks_url: {url}: {error}; keys from before are kept");
                false
            }
        }
    }
}
