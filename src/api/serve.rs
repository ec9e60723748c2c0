//! Listening, and the bounds around each connection and each request.

use super::context::{Context, Local};
use super::control::Order;
use super::dialect::Dialect;
use super::events::announce;
use super::fault::{Cause, Fault};
use super::security::{Security, guard};
use super::{Desk, Facts, HttpOptions, endpoint};
use crate::io::{Inherited, Role};
use crate::limits::{
    HTTP_ANSWER_MS_MAX, HTTP_CONNECTION_MS_MAX, HTTP_CONNECTIONS_MAX, HTTP_DRAIN_MS_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_HEAD_MS_MAX, HTTP_HEADERS_MAX,
};
use axum::extract::{Request, State as Given};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the API tells about the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Shards start, or start again.
    Starting,
    /// Clients are served.
    Running,
    /// The broker is about to stop: /health answers 503, so that nobody is sent here any more.
    Draining,
    /// HTTP ends as well.
    Stopped,
}

/// HTTP listeners that are bound and not served yet, and who may use them.
#[derive(Debug)]
pub struct Api {
    listeners: Vec<std::net::TcpListener>,
    security: Security,
    options: HttpOptions,
}

impl Api {
    /// Reads keys and binds each address, or takes it from what an earlier run left open. `refused` words an
    /// address that cannot be had.
    ///
    /// # Errors
    /// In one line: what cannot be read or bound, and what to do.
    pub fn bind(
        options: &HttpOptions,
        inherited: &mut Vec<Inherited>,
        refused: impl Fn(SocketAddr, &std::io::Error) -> String,
    ) -> Result<Api, String> {
        let security = Security::new(options)?;
        let mut bind = |addr: &SocketAddr| {
            let kept = Inherited::take(inherited, Role::Http, *addr).map(std::net::TcpListener::from);
            let listener = kept.map_or_else(|| std::net::TcpListener::bind(addr), Ok)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let bind = |addr: &SocketAddr| bind(addr).map_err(|error| refused(*addr, &error));
        let listeners = options.listen.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Api { listeners, security, options: options.clone() })
    }

    /// The addresses that were bound, with the ports that the kernel chose where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The listeners once more, for a restart to hand on.
    ///
    /// # Errors
    /// What the system said.
    pub fn sockets(&self) -> std::io::Result<Vec<(Role, OwnedFd)>> {
        self.listeners.iter().map(|listener| Ok((Role::Http, listener.try_clone()?.into()))).collect()
    }

    /// Serves until `state` is [`State::Stopped`] or its sender is gone.
    pub async fn serve(
        self,
        desk: Desk,
        state: watch::Receiver<State>,
        facts: Facts,
        orders: mpsc::Sender<Order>,
    ) {
        let context = Context::new(desk, state.clone(), facts, orders, (self.options, self.security));
        let mut tasks = JoinSet::new();
        tasks.spawn(super::sys::run(context.clone()));
        for shard in 0..context.desk.shards() {
            let (hub, mut state) = (context.hub.clone(), state.clone());
            tasks.spawn(async move {
                tokio::select! {
                    // It ends before where its shard has gone, which is told elsewhere.
                    _ = hub.follow(shard) => {}
                    () = stopped(&mut state) => {}
                }
            });
        }
        if context.sys_client_events() {
            let (announcing, mut state) = (announce(context.clone()), state.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = announcing => {}
                    () = stopped(&mut state) => {}
                }
            });
        }
        let routes = routes(context);
        for listener in self.listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(accept(listener, routes.clone(), state.clone()))),
                Err(error) => tracing::error!(%error, "an HTTP listener cannot be served"),
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// All endpoints, inside what holds for each of them.
fn routes(context: Context) -> Router {
    endpoint::router()
        .fallback(async || Fault::from(Cause::NotFound))
        .method_not_allowed_fallback(async || Fault::from(Cause::WrongMethod))
        .layer(middleware::from_fn_with_state(context.clone(), admit))
        .layer(middleware::from_fn(dress))
        .with_state(context)
}

/// Gives each answer the body of its dialect.
async fn dress(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    dialect.dress(next.run(request).await)
}

/// Lets a request in whose sender may ask, that is not too large, while there is room, and for so long.
async fn admit(Given(context): Given<Context>, request: Request, next: Next) -> Response {
    // A request waits for no other: where so many run, more would only make all of them late.
    let Ok(_place) = context.door.requests.try_acquire() else {
        return Fault::from(Cause::Busy).into_response();
    };
    let answer = async {
        let headers = request.headers();
        let path = request.uri().path();
        let local = request.extensions().get::<Local>().map(|local| local.0);
        let open = endpoint::is_open(path);
        if let Some(local) = local.filter(|_| !open) {
            guard(request.method(), headers, local, &context.door.options.hosts)?;
        }
        let near = context.door.options.open_metrics
            || local.is_some_and(|local| local.ip().to_canonical().is_loopback());
        if !(open || near && endpoint::is_near(path)) {
            let credentials = headers.get(AUTHORIZATION).map(|value| value.as_bytes().to_vec());
            context.door.security.check(credentials.as_deref()).await?;
        }
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: u64| bytes > context.body_bytes_max() as u64) {
            return Err(Fault::from(Cause::TooLarge));
        }
        Ok(next.run(request).await)
    };
    match timeout(Duration::from_millis(HTTP_ANSWER_MS_MAX), answer).await {
        Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
        Err(_) => Fault::from(Cause::TooLate).into_response(),
    }
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
    let local = stream.local_addr().map(Local).ok();
    let (stay, mut stays) = watch::channel(false);
    let stay = Stay(Arc::new(stay));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(local) = local {
            request.extensions_mut().insert(local);
        }
        request.extensions_mut().insert(stay.clone());
        TowerToHyperService::new(routes.clone()).call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HTTP_HEAD_MS_MAX))
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let life = async {
        sleep(Duration::from_millis(HTTP_CONNECTION_MS_MAX)).await;
        // An error means that nothing is left that could stay.
        let _ = stays.wait_for(|stays| !*stays).await;
    };
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

/// Keeps a connection beyond its life, for a stream that is written as long as its client reads.
#[derive(Clone, Debug)]
pub(super) struct Stay(Arc<watch::Sender<bool>>);

impl Stay {
    /// Whether it stays.
    pub fn set(&self, stays: bool) {
        self.0.send_replace(stays);
    }
}

pub(super) async fn stopped(state: &mut watch::Receiver<State>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = state.wait_for(|state| *state == State::Stopped).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Keyed;
    use std::future::Future;
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn bind(addr: SocketAddr) -> Result<Api, String> {
        let options = HttpOptions { listen: vec![addr], max_body_bytes: 4_096, ..HttpOptions::default() };
        Api::bind(&options, &mut Vec::new(), |addr, error| format!("{addr}: {:?}", error.kind()))
    }

    /// Runs `test` against a served API.
    fn with_api<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, watch::Sender<State>) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let addr = api.addresses()[0];
            let (sender, state) = watch::channel(State::Running);
            let desk = Desk::new(Vec::new(), Keyed::new(1), SystemTime::UNIX_EPOCH);
            let served = tokio::spawn(api.serve(desk, state, Facts::default(), mpsc::channel(1).0));
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

    /// With the credentials of a broker that was told none.
    fn known(method: &str, path: &str, more: &str) -> String {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        format!("{head}authorization: Basic YWRtaW46cHVibGlj\r\n{more}")
    }

    #[test]
    fn other_paths_and_methods_are_refused_as_json() {
        with_api(|addr, _state| async move {
            let answer = ask(addr, &known("GET", "/nowhere", "\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            assert_eq!(body(&answer)["error"]["code"], 404);
            assert_eq!(body(&ask(addr, &known("GET", "/api/v4/nowhere", "\r\n")).await)["code"], 108);
            let answer = ask(addr, &line("DELETE", "/health")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
            assert!(answer.to_lowercase().contains("\r\nallow: get,head\r\n"), "{answer}");
            assert_eq!(body(&answer)["error"]["code"], 405);
        });
    }

    #[test]
    fn credentials_are_asked_for_everywhere_but_at_the_probes() {
        with_api(|addr, _state| async move {
            for path in ["/health", "/ready", "/health/"] {
                assert!(ask(addr, &line("GET", path)).await.starts_with("HTTP/1.1 200 "), "{path}");
            }
            let ask_for = |path: &str, header: &str| {
                let request =
                    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n");
                async move { ask(addr, &request).await }
            };
            let answer = ask_for("/api/v4/brokers", "").await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(answer.contains("www-authenticate: Basic realm=\"ringmq\""), "{answer}");
            assert!(!answer.to_lowercase().contains("access-control-"), "{answer}");
            assert_eq!(body(&answer)["code"], 104);
            let wrong = "authorization: Basic YWRtaW46eA==\r\n";
            assert_eq!(body(&ask_for("/api/v2/brokers", wrong).await)["code"], 103);
            assert_eq!(body(&ask_for("/api/v1/brokers", wrong).await)["error"]["code"], 401);
            assert_eq!(body(&ask_for("/nowhere", "").await)["error"]["code"], 401);
            let known = known("GET", "/api/openapi.json", "\r\n");
            assert_eq!(body(&ask(addr, &known).await)["openapi"], "3.1.0");
        });
    }

    #[test]
    fn other_sites_are_kept_out() {
        with_api(|addr, _state| async move {
            let rebound = known("GET", "/api/openapi.json", "\r\n").replace("localhost", "evil.example");
            assert!(ask(addr, &rebound).await.starts_with("HTTP/1.1 403 "));
            let posted = known("POST", "/api/openapi.json", "origin: http://evil.example\r\n\r\n");
            assert!(ask(addr, &posted).await.starts_with("HTTP/1.1 403 "));
            let own = known("POST", "/api/openapi.json", "origin: http://localhost\r\n\r\n");
            assert!(ask(addr, &own).await.starts_with("HTTP/1.1 405 "));
        });
    }

    #[test]
    fn a_body_that_is_announced_as_too_large_is_refused() {
        with_api(|addr, _state| async move {
            let answer = ask(addr, &known("GET", "/nowhere", "content-length: 4097\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
            let answer = ask(addr, &known("GET", "/nowhere", "content-length: 1\r\n\r\nx")).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
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
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.addresses()[0];
        assert_eq!(bind(addr).unwrap_err(), format!("{addr}: {:?}", std::io::ErrorKind::AddrInUse));
    }
}
