//! Requests to back-ends: connections that are kept, a bound on how many, a time for each answer, and a back-end that
//! does not answer is left alone.

use crate::auth::Circuit;
use crate::auth::http::{Header, Method, Request as Wanted, shown};
use crate::limits::{AUTH_ANSWER_BYTES_MAX, AUTH_IDLE_MS_MAX};
use crate::time::Moment;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Sends requests.
pub(super) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: Vec<Header>,
    timeout: Duration,
    /// A place for each request that may be under way.
    places: Semaphore,
    started: Instant,
}

/// A back-end, as far as it answers.
pub(super) struct Backend {
    /// How the log calls it.
    name: &'static str,
    circuit: Mutex<Circuit>,
}

impl Backend {
    pub(super) fn new(name: &'static str) -> Backend {
        Backend { name, circuit: Mutex::new(Circuit::default()) }
    }
}

impl Client {
    pub(super) fn new(
        tls: Option<Arc<ClientConfig>>,
        headers: &[Header],
        timeout_ms: u32,
        connections: u16,
    ) -> Client {
        let tls = tls.map_or_else(trusting_nobody, |tls| (*tls).clone());
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(AUTH_IDLE_MS_MAX))
            .pool_max_idle_per_host(usize::from(connections))
            .build(connector);
        Client {
            inner,
            headers: headers.to_vec(),
            timeout: Duration::from_millis(u64::from(timeout_ms)),
            places: Semaphore::new(usize::from(connections)),
            started: Instant::now(),
        }
    }

    /// Asks a back-end: its status code and its body, where that is an answer to `judge`. `None` where there is none in
    /// time, or the back-end is left alone; the log says why.
    pub(super) async fn ask<T>(
        &self,
        backend: &Backend,
        wanted: Wanted,
        judge: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let _place = self.places.acquire().await.ok()?;
        // Asked last, so that whoever waited for a place learns what became of those before it.
        if !backend.circuit.lock().unwrap_or_else(PoisonError::into_inner).admits(self.now()) {
            return None;
        }
        let url = wanted.url.clone();
        let sent = match tokio::time::timeout(self.timeout, self.send(wanted, AUTH_ANSWER_BYTES_MAX)).await {
            // Whoever stands in front of it does not reach it.
            Ok(Ok((status @ 502..=504, _))) => Err(format!("the status {status}")),
            Ok(sent) => sent,
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        let mut circuit = backend.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let url = shown(&url);
        match sent {
            Ok((status, body)) => {
                if circuit.succeeded() {
                    tracing::info!("{} answers again: {url}", backend.name);
                }
                let answer = judge(status, &body);
                if answer.is_none() {
                    // It works, so that one client for whom it fails does not keep others out.
                    tracing::debug!("{}: {url}: {status} is no answer that is understood", backend.name);
                }
                answer
            }
            Err(error) => {
                if let Some(ms) = circuit.failed(self.now()) {
                    tracing::warn!(
                        "{} does not answer and is left alone for {ms} ms: {url}: {error}",
                        backend.name
                    );
                }
                None
            }
        }
    }

    /// What is at an address.
    pub(super) async fn get(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let (url, content_type, body) = (url.to_owned(), "", Vec::new());
        let wanted = Wanted { method: Method::Get, url, content_type, body };
        match tokio::time::timeout(self.timeout, self.send(wanted, bytes_max)).await {
            Ok(Ok((200, body))) => Ok(body),
            Ok(Ok((status, _))) => Err(format!("expected the status 200, got {status}")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        }
    }

    async fn send(&self, wanted: Wanted, bytes_max: usize) -> Result<(u16, Vec<u8>), String> {
        let request = Request::builder().uri(wanted.url).header(USER_AGENT, "ringmq");
        let mut request = match wanted.method {
            Method::Get => request.method("GET"),
            Method::Post => request.method("POST").header(CONTENT_TYPE, wanted.content_type),
        };
        for header in &self.headers {
            request = request.header(&*header.name, &*header.value);
        }
        let request = request.body(Full::from(wanted.body)).map_err(|error| error.to_string())?;
        let answer = self.inner.request(request).await.map_err(|error| why(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes().to_vec()))
    }

    fn now(&self) -> Moment {
        Moment(self.started.elapsed().as_millis() as u64)
    }
}

/// An error with what is behind it, in one line.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// For back-ends without TLS, whose connector wants to know all the same.
fn trusting_nobody() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of each version that is built in")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}
