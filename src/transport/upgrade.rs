//! The request by which HTTP becomes WebSocket [RFC 6455, 4.1 and 4.2], and the answer; for both ends.

use crate::limits::WS_HEADERS_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::borrow::Cow;
use std::fmt::Write;

/// What the key of a request is hashed with [RFC 6455, 1.3].
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Names of MQTT [MQTT-6.0.0-3], and older ones.
const PROTOCOLS: &[&str] = &["mqtt", "mqttv3.1.1", "mqttv3.1"];

/// Characters of an answer that an error shows.
const SHOWN_CHARS_MAX: usize = 120;

/// What a listener asks of an upgrade request.
#[derive(Clone, Debug)]
pub struct WebSocketTerms {
    /// The path; empty takes every one.
    pub path: String,
    /// Origins of web pages that may connect; empty takes every one. Who sends none is no web page.
    pub origins: Vec<String>,
    /// Bytes of one frame at most.
    pub frame_bytes_max: u64,
    /// Whether to keep what X-Forwarded-For says.
    pub forwarded: bool,
}

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Granted {
    pub answer: String,
    /// The values of X-Forwarded-For, where they are to be kept and there are any.
    pub forwarded: Option<Box<str>>,
}

/// A request that is not granted.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: &'static str,
    pub headers: &'static str,
    pub text: String,
}

fn refuse(status: &'static str, text: impl Into<String>) -> Refusal {
    let headers =
        if status.starts_with("426") { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
    Refusal { status, headers, text: text.into() }
}

/// The headers of a request that count.
#[derive(Default)]
struct Headers<'a> {
    host: bool,
    upgrade: bool,
    connection: bool,
    version: Option<&'a str>,
    key: Option<&'a str>,
    origin: Option<&'a str>,
    protocol: Option<&'static str>,
    forwarded: Vec<Cow<'a, str>>,
}

/// Reads a request, from its first line to the empty one, and answers it.
pub(super) fn read_upgrade(head: &[u8], terms: &WebSocketTerms) -> Result<Granted, Refusal> {
    let mut room = [httparse::EMPTY_HEADER; WS_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut room);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(refuse("400 Bad Request", "expected a request of HTTP")),
        Err(httparse::Error::TooManyHeaders) => {
            let text = format!("expected at most {WS_HEADERS_MAX} headers");
            return Err(refuse("431 Request Header Fields Too Large", text));
        }
        Err(error) => {
            return Err(refuse("400 Bad Request", format!("expected a request of HTTP: {error}")));
        }
    }
    if request.method != Some("GET") {
        return Err(refuse("405 Method Not Allowed", "expected GET"));
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !terms.path.is_empty() && path != terms.path {
        return Err(refuse("404 Not Found", format!("expected the path {}", terms.path)));
    }
    let headers = headers(request.headers)?;
    if request.version != Some(1) || !headers.host {
        return Err(refuse("400 Bad Request", "expected HTTP/1.1 with a Host"));
    }
    if !headers.upgrade || !headers.connection {
        return Err(refuse("426 Upgrade Required", "expected Upgrade: websocket and Connection: Upgrade"));
    }
    if headers.version != Some("13") {
        return Err(refuse("426 Upgrade Required", "expected Sec-WebSocket-Version: 13"));
    }
    let key = headers.key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or_else(|| refuse("400 Bad Request", "expected a Sec-WebSocket-Key of 16 bytes"))?;
    let known = |origin: &str| terms.origins.iter().any(|known| known.eq_ignore_ascii_case(origin));
    if let Some(origin) = headers.origin.filter(|origin| !terms.origins.is_empty() && !known(origin)) {
        let text = format!("expected one of the origins of this listener, got {}", origin.escape_default());
        return Err(refuse("403 Forbidden", text));
    }
    // [MQTT-6.0.0-3], [MQTT-6.0.0-4]
    let protocol = headers.protocol.ok_or_else(|| {
        refuse("400 Bad Request", format!("expected a Sec-WebSocket-Protocol of {}", PROTOCOLS.join(", ")))
    })?;
    let mut answer =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_owned();
    let accept = accept(key);
    // Writing to a String does not fail.
    let _ = write!(answer, "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n");
    let forwarded = headers.forwarded.join(",");
    let keep = terms.forwarded && !forwarded.is_empty();
    Ok(Granted { answer, forwarded: keep.then(|| forwarded.into_boxed_str()) })
}

/// What shows that a request was read.
fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

fn headers<'a>(all: &[httparse::Header<'a>]) -> Result<Headers<'a>, Refusal> {
    let mut headers = Headers::default();
    for header in all {
        if header.name.eq_ignore_ascii_case("X-Forwarded-For") {
            // What is no text is no address either; that is seen when it counts.
            headers.forwarded.push(String::from_utf8_lossy(header.value));
            continue;
        }
        let Ok(value) = std::str::from_utf8(header.value) else { continue };
        let value = value.trim();
        let mut tokens = value.split(',').map(str::trim);
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("Host") {
            headers.host = true;
        } else if is("Upgrade") {
            headers.upgrade |= tokens.any(|token| token.eq_ignore_ascii_case("websocket"));
        } else if is("Connection") {
            headers.connection |= tokens.any(|token| token.eq_ignore_ascii_case("upgrade"));
        } else if is("Sec-WebSocket-Version") {
            headers.version = Some(value);
        } else if is("Sec-WebSocket-Key") {
            if headers.key.replace(value).is_some() {
                return Err(refuse("400 Bad Request", "expected one Sec-WebSocket-Key"));
            }
        } else if is("Origin") {
            headers.origin = Some(value);
        } else if is("Sec-WebSocket-Protocol") {
            // The client's order counts.
            let known = tokens.find_map(|token| PROTOCOLS.iter().find(|known| **known == token));
            headers.protocol = headers.protocol.or(known.copied());
        }
    }
    Ok(headers)
}

/// What a client asks a server of WebSocket for.
#[derive(Clone, Debug)]
pub struct DialWebSocket {
    /// The server's name and port, as its `Host`.
    pub host: String,
    /// The path.
    pub path: String,
}

impl DialWebSocket {
    /// The request of a client with these masks.
    pub(super) fn request(&self, masks: &Masks) -> Vec<u8> {
        let DialWebSocket { host, path } = self;
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
        let (key, protocol) = (masks.key(), PROTOCOLS[0]);
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
        .into_bytes()
    }
}

/// A client's key, and then the masks of its frames: numbers that follow from a seed (splitmix64). They keep caches
/// between here and there from taking frames for requests, and keep nothing secret.
#[derive(Debug)]
pub(super) struct Masks(u64);

impl Masks {
    pub fn new(seed: u64) -> Masks {
        Masks(seed)
    }

    fn at(&self, step: u64) -> u64 {
        let mixed = self.0.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The same until the first mask is taken.
    fn key(&self) -> String {
        STANDARD.encode([self.at(1).to_ne_bytes(), self.at(2).to_ne_bytes()].concat())
    }

    pub fn next(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.at(3).to_ne_bytes();
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        [a, b, c, d]
    }

    /// Reads the answer to the request, and what of its body came with it.
    pub fn read_answer(&self, answer: &[u8]) -> Result<(), String> {
        let mut room = [httparse::EMPTY_HEADER; WS_HEADERS_MAX];
        let mut response = httparse::Response::new(&mut room);
        let head = match response.parse(answer) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Err("expected an answer of HTTP, got a part".to_owned()),
            Err(error) => return Err(format!("expected an answer of HTTP, got something else: {error}")),
        };
        let (status, reason) = (response.code.unwrap_or_default(), response.reason.unwrap_or_default());
        if status != 101 {
            let body = String::from_utf8_lossy(answer.get(head..).unwrap_or_default());
            let why: String = body.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect();
            let reason: String = reason.chars().take(SHOWN_CHARS_MAX).collect();
            let what = format!("{status} {reason}: {why}").escape_default().to_string();
            let what = what.trim_end_matches([' ', ':']);
            return Err(format!("expected HTTP status 101, which makes it a WebSocket, got {what}"));
        }
        let value = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            let value = found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned());
            value.unwrap_or_default()
        };
        let expect = |name: &str, expected: &str| match value(name) {
            got if got.split(',').any(|token| token.trim().eq_ignore_ascii_case(expected)) => Ok(()),
            got => Err(format!("expected the header {name}: {expected}, got `{}`", got.escape_default())),
        };
        expect("Upgrade", "websocket")?;
        expect("Connection", "Upgrade")?;
        // [MQTT-6.0.0-4]
        expect("Sec-WebSocket-Protocol", PROTOCOLS[0])?;
        let (expected, got) = (accept(&self.key()), value("Sec-WebSocket-Accept"));
        if got != expected {
            let got = got.escape_default();
            return Err(format!("expected the header Sec-WebSocket-Accept: {expected}, got `{got}`"));
        }
        match value("Sec-WebSocket-Extensions") {
            none if none.is_empty() => Ok(()),
            got => Err(format!("expected no WebSocket extension, got `{}`", got.escape_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_x_forwarded_for_are_one_list_and_kept_where_they_are_asked_for() {
        let whole = "GET /mqtt HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nUpgrade: websocket\r\nConnection: \
                 Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\nx-forwarded-for:  192.0.2.2, 192.0.2.3\r\n\r\n";
        let told = |forwarded, more: &[u8]| {
            let (path, origins) = (String::new(), Vec::new());
            let terms = WebSocketTerms { path, origins, frame_bytes_max: 1, forwarded };
            let head = [&whole.as_bytes()[..whole.len() - 2], more, b"\r\n"].concat();
            read_upgrade(&head, &terms).unwrap().forwarded
        };
        assert_eq!(told(true, b"").as_deref(), Some("192.0.2.1,192.0.2.2, 192.0.2.3"));
        let garbage = told(true, b"X-Forwarded-For: \xff\r\n").unwrap();
        assert!(garbage.ends_with(",\u{fffd}"), "{garbage}");
        assert_eq!(told(false, b""), None);
    }
}
