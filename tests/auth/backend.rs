//! A back-end that answers over HTTP as a test says: with a status and a body, later, or not at all.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Without its query.
    pub path: String,
    /// Of the query, and of a body that is a form.
    pub fields: HashMap<String, String>,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Asked {
    /// A field of the query or of the form; nothing where there is none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer.
    Say(u16, String),
    /// 200, once the test says so.
    Hold,
    /// The end of the connection.
    HangUp,
}

/// An answer without a body.
pub fn say(status: u16) -> Reply {
    Reply::Say(status, String::new())
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The back-end. Its threads end with the connections of the broker.
pub struct Backend {
    addr: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    connections: usize,
    holding: usize,
    released: bool,
    ends: bool,
}

impl Backend {
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Backend {
        Backend::listen(None, "http", Box::new(handler))
    }

    /// With TLS.
    pub fn start_secure(
        tls: ServerConfig,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Backend {
        Backend::listen(Some(Arc::new(tls)), "https", Box::new(handler))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, scheme: &'static str, handler: Box<Handler>) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Shared { handler, tls, state: Mutex::default(), released: Condvar::new() };
        let shared = Arc::new(shared);
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.state().ends {
                    return;
                }
                let Ok(stream) = stream else { continue };
                serving.state().connections += 1;
                let serving = serving.clone();
                thread::spawn(move || serving.take(stream));
            }
        });
        Backend { addr, scheme, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.addr.port())
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.state().asked)
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Requests that it has not answered yet.
    pub fn holding(&self) -> usize {
        self.shared.state().holding
    }

    /// Answers what is held, and holds nothing from now on.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.released.notify_all();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.release();
        // Whoever accepts sees that it ends.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, stream: TcpStream) {
        // An end in the middle of a request is one as good as any.
        let _ = match &self.tls {
            None => self.serve(stream),
            Some(tls) => {
                let session = ServerConnection::new(tls.clone()).expect("the terms of TLS are complete");
                self.serve(StreamOwned::new(session, stream))
            }
        };
    }

    fn serve(&self, stream: impl Read + Write) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(asked) = read(&mut stream)? {
            self.state().asked.push(asked.clone());
            let (status, body) = match (self.handler)(&asked) {
                Reply::Say(status, body) => (status, body),
                Reply::HangUp => return Ok(()),
                Reply::Hold => {
                    let mut state = self.state();
                    state.holding += 1;
                    let mut state = self
                        .released
                        .wait_while(state, |state| !state.released)
                        .unwrap_or_else(PoisonError::into_inner);
                    state.holding -= 1;
                    (200, String::new())
                }
            };
            let length =
                if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let answer = format!("HTTP/1.1 {status} Said\r\n{length}\r\n{body}");
            stream.get_mut().write_all(answer.as_bytes())?;
            stream.get_mut().flush()?;
        }
        Ok(())
    }
}

/// The next request; `None` at the end.
fn read(stream: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, mut fields) = (path.to_owned(), form(query));
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).expect("a body of text");
    if headers.get("content-type").is_some_and(|kind| kind == "application/x-www-form-urlencoded") {
        fields.extend(form(&body));
    }
    Ok(Some(Asked { method, path, fields, headers, body }))
}

fn form(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}
