//! Listening, the routes, and the bounds around each connection.

use super::{Context, v4};
use crate::limits::{
    HTTP_ANSWER_MS_MAX, HTTP_BODY_BYTES_MAX, HTTP_CONNECTION_MS_MAX, HTTP_CONNECTIONS_MAX, HTTP_DRAIN_MS_MAX,
    HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MS_MAX, HTTP_HEADERS_MAX,
};
use axum::extract::{DefaultBodyLimit, Request, State as Given};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the API tells about the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Clients are served.
    Running,
    /// The broker is about to stop: /health answers 503, so that nobody is sent here any more.
    Draining,
    /// HTTP ends as well.
    Stopped,
}

/// HTTP listeners that are bound and not served yet.
#[derive(Debug)]
pub struct Api {
    listeners: Vec<std::net::TcpListener>,
}

impl Api {
    /// Binds each address.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub fn bind(addrs: &[SocketAddr]) -> Result<Api, (SocketAddr, std::io::Error)> {
        let bind = |addr: &SocketAddr| {
            let listener = std::net::TcpListener::bind(addr).map_err(|error| (*addr, error))?;
            listener.set_nonblocking(true).map_err(|error| (*addr, error))?;
            Ok(listener)
        };
        Ok(Api { listeners: addrs.iter().map(bind).collect::<Result<_, _>>()? })
    }

    /// The addresses that were bound, with the ports that the kernel chose where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until the context's state is [`State::Stopped`] or its sender is gone.
    pub async fn serve(self, context: Context) {
        let state = context.state.clone();
        let routes = routes(context);
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(accept(listener, routes.clone(), state.clone()))),
                Err(error) => tracing::error!(%error, "an HTTP listener cannot be served"),
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// The routes. A change here is a change of the public API.
fn routes(context: Context) -> Router {
    let started = Instant::now();
    let health = move |Given(context): Given<Context>| async move {
        health(*context.state.borrow(), started.elapsed())
    };
    Router::new()
        .route("/health", routing::get(health))
        .nest("/api/v4", v4::routes())
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(middleware::from_fn(answer_in_time))
        .with_state(context)
}

fn health(state: State, uptime: Duration) -> Response {
    let (code, status) = match state {
        State::Running => (StatusCode::OK, "ok"),
        State::Draining | State::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let version = env!("CARGO_PKG_VERSION");
    (code, Json(json!({"status": status, "version": version, "uptime_s": uptime.as_secs()}))).into_response()
}

async fn answer_in_time(request: Request, next: Next) -> Response {
    match timeout(Duration::from_millis(HTTP_ANSWER_MS_MAX), next.run(request)).await {
        Ok(response) => response,
        Err(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
    }
}

fn failure(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({"error": {"code": code.as_u16(), "message": message}}))).into_response()
}

/// Accepts for one listener. At the bound on connections it waits for one to end; each ends in time.
async fn accept(listener: TcpListener, routes: Router, mut state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut state) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < HTTP_CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, routes.clone(), state.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_millis(HTTP_DRAIN_MS_MAX), all).await.is_err() {
        tracing::debug!("HTTP connections were closed before they ended");
    }
}

/// Serves one connection; it lives no longer than its bound.
async fn connection(stream: TcpStream, routes: Router, mut state: watch::Receiver<State>) {
    let service = TowerToHyperService::new(routes);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HTTP_HEAD_MS_MAX))
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let life = sleep(Duration::from_millis(HTTP_CONNECTION_MS_MAX));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = life => Ok(()),
        () = stopped(&mut state) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection failed");
    }
}

async fn stopped(state: &mut watch::Receiver<State>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = state.wait_for(|state| *state == State::Stopped).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Desk;
    use crate::map::Keyed;
    use std::future::Future;
    use std::sync::Arc;
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Runs `test` against a served API.
    fn with_api<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, watch::Sender<State>) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
            let addr = api.addresses()[0];
            let (sender, state) = watch::channel(State::Running);
            let desk = Desk::new(Vec::new(), Keyed::new(1), SystemTime::UNIX_EPOCH);
            let served = tokio::spawn(api.serve(Context { desk, state, facts: Arc::default() }));
            test(addr, sender.clone()).await;
            drop(sender);
            served.await.unwrap();
        });
    }

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn line(method: &str, path: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    }

    fn body(answer: &str) -> serde_json::Value {
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    #[test]
    fn health_is_ok_while_running_and_503_while_draining() {
        with_api(|addr, state| async move {
            let answer = ask(addr, &line("GET", "/health")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            let told = body(&answer);
            assert_eq!(told["status"], "ok");
            assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
            assert!(told["uptime_s"].is_u64());
            state.send(State::Draining).unwrap();
            let answer = ask(addr, &line("GET", "/health")).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert_eq!(body(&answer)["status"], "draining");
        });
    }

    #[test]
    fn other_paths_and_methods_are_refused_as_json() {
        with_api(|addr, _state| async move {
            let answer = ask(addr, &line("GET", "/nowhere")).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            assert_eq!(body(&answer)["error"]["code"], 404);
            let answer = ask(addr, &line("DELETE", "/health")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
            assert!(answer.to_lowercase().contains("\r\nallow: get,head\r\n"), "{answer}");
            assert_eq!(body(&answer)["error"]["code"], 405);
        });
    }

    #[test]
    fn heads_that_are_too_large_are_refused() {
        with_api(|addr, _state| async move {
            let long = "x".repeat(HTTP_HEAD_BYTES_MAX);
            let answer = ask(addr, &format!("GET /health HTTP/1.1\r\nlong: {long}")).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
            let many: String = (0..=HTTP_HEADERS_MAX).map(|i| format!("h{i}: x\r\n")).collect();
            let answer = ask(addr, &format!("GET /health HTTP/1.1\r\n{many}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        });
    }

    #[test]
    fn a_body_that_nobody_reads_is_no_second_request() {
        with_api(|addr, _state| async move {
            let inner = line("GET", "/nowhere");
            let head = format!("GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", inner.len());
            let answer = ask(addr, &format!("{head}{inner}{}", line("GET", "/health"))).await;
            assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
            assert!(!answer.contains("HTTP/1.1 404"), "{answer}");
        });
    }

    #[test]
    fn a_client_that_does_not_finish_its_head_is_closed() {
        with_api(|addr, _state| async move {
            for some in ["", "GET /heal", "GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET"] {
                let mut slow = TcpStream::connect(addr).await.unwrap();
                slow.write_all(some.as_bytes()).await.unwrap();
                // From here on, time passes whenever everything waits.
                tokio::time::pause();
                let begin = tokio::time::Instant::now();
                let mut answer = String::new();
                slow.read_to_string(&mut answer).await.unwrap();
                let waited = begin.elapsed().as_millis();
                assert!(
                    waited < 2 * u128::from(HTTP_HEAD_MS_MAX),
                    "closed by another limit, after {waited} ms"
                );
                tokio::time::resume();
                assert_eq!(answer.contains("200 OK"), some.contains("HTTP/1.1"), "{answer}");
            }
        });
    }

    #[test]
    fn a_stop_ends_idle_connections() {
        with_api(|addr, state| async move {
            let mut idle = TcpStream::connect(addr).await.unwrap();
            idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut some = [0; 12];
            idle.read_exact(&mut some).await.unwrap();
            assert_eq!(&some, b"HTTP/1.1 200");
            state.send(State::Stopped).unwrap();
            let mut rest = Vec::new();
            idle.read_to_end(&mut rest).await.unwrap();
        });
    }

    #[test]
    fn an_address_in_use_is_told() {
        let first = Api::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let addr = first.addresses()[0];
        let (at, error) = Api::bind(&[addr]).unwrap_err();
        assert_eq!((at, error.kind()), (addr, std::io::ErrorKind::AddrInUse));
    }
}
