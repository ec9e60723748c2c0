//! A client of the HTTP API: one request on one connection.

use super::Broker;
use super::TIMEOUT;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The credentials `admin` and `public`, as everybody has them at first.
const BASIC: &str = "Basic YWRtaW46cHVibGlj";

/// Asks a broker's HTTP API.
#[derive(Clone, Copy, Debug)]
pub struct Http(SocketAddr);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("JSON is expected ({e}): {self:?}"))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Http {
    /// Of this broker, which was started with HTTP.
    pub fn of(broker: &Broker) -> Http {
        Http(broker.http())
    }

    /// At this address.
    pub fn at(addr: SocketAddr) -> Http {
        Http(addr)
    }

    /// GET with the usual credentials.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[("authorization", BASIC)], b"")
    }

    /// Begins to follow server-sent events; returns once the broker listens.
    pub fn events(&self, path: &str) -> Sse {
        let mut stream = TcpStream::connect(self.0).expect("the HTTP port is open");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout can be set");
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {BASIC}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the request is sent");
        let mut sse = Sse(BufReader::new(stream));
        let status = sse.line().expect("an answer is expected");
        assert!(status.contains(" 200 "), "GET {path}: {status}");
        while sse.line().expect("the head goes on") != ": listening" {}
        sse
    }

    /// DELETE with the usual credentials.
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[("authorization", BASIC)], b"")
    }

    /// POST with the usual credentials, as curl's `-d` sends it.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let form = ("content-type", "application/x-www-form-urlencoded");
        self.request("POST", path, &[("authorization", BASIC), form], body.as_bytes())
    }

    /// PUT with the usual credentials, as curl's `-d` sends it.
    pub fn put(&self, path: &str, body: &str) -> Answer {
        let form = ("content-type", "application/x-www-form-urlencoded");
        self.request("PUT", path, &[("authorization", BASIC), form], body.as_bytes())
    }

    /// GET that is expected to be answered with 200; the body.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }

    /// Any request, with just these headers besides Host, Content-Length and Connection.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat())
    }

    /// Sends these bytes, and reads the answer up to the end of the connection.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.0).expect("the HTTP port is open");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout can be set");
        // One that is refused early may be closed before all of it was sent.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("answers are UTF-8");
        parse(&text).unwrap_or_else(|| panic!("an answer is expected, got {text:?} ({ended:?})"))
    }
}

/// A stream of server-sent events. The chunks of its body are lines of their own, which nothing here looks at.
#[derive(Debug)]
pub struct Sse(BufReader<TcpStream>);

impl Sse {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).expect("something comes in time");
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// What the next event says; `None` at the end of the stream.
    pub fn next_event(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            // The last chunk is empty.
            if line == "0" {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("an event is JSON"));
            }
        }
    }

    /// What the next event says, which must come.
    pub fn event(&mut self) -> Value {
        self.next_event().expect("an event is expected")
    }
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { dechunk(body)? } else { body.to_owned() };
    Some(Answer { status, headers, body })
}

fn dechunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, behind) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(behind.get(..size)?);
        rest = behind.get(size + 2..)?;
    }
}
