//! Clients that are slow on purpose, in every phase before MQTT and through every kind of listener: each is closed at
//! its time limit, holds little meanwhile, and keeps nobody else waiting.

use crate::common::{Broker, DRIVERS, Http, Peer, Socket};
use crate::ground::{Files, Through, Way};
use crate::{counter, serve, way};
use ringmq::codec::Version;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Slow clients of each phase.
const EACH: usize = 3;
/// Bytes that one may cost, far above what it does: keys of TLS and half a record of what it sent.
const BYTES_EACH_MAX: u64 = 24_576;
/// Between two bytes of each.
const PAUSE: Duration = Duration::from_millis(20);
/// Rounds after which a test fails; a minute at least.
const ROUNDS_MAX: usize = 3_000;

/// A record of TLS that does not end, with a ClientHello that does not either.
const RECORD: &[u8] = &[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
/// The same for a CONNECT, a PROXY header and an upgrade request.
const CONNECT: &[u8] = &[0x10, 0xff, 0xff, 0x03, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
const PROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xa0\xc0\0\x02\x01";
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nX: ";

trait Raw: Read + Write + Send {}
impl Raw for TcpStream {}
impl Raw for UnixStream {}

/// One slow client: what it says byte by byte, and after that the last byte without end. Nothing: it is silent.
struct Slow {
    wire: Wire,
    words: &'static [u8],
    said: usize,
}

enum Wire {
    /// The socket itself, which does not block.
    Raw(Box<dyn Raw>),
    /// In TLS, WebSocket or both.
    Layers(Box<Through>),
}

impl Slow {
    fn tcp(stream: TcpStream, words: &'static [u8]) -> Slow {
        stream.set_nonblocking(true).unwrap();
        Slow { wire: Wire::Raw(Box::new(stream)), words, said: 0 }
    }

    /// Says one byte more; whether it is still connected.
    fn goes_on(&mut self) -> bool {
        let next = self.words.get(self.said).or(self.words.last()).copied();
        self.said += 1;
        match &mut self.wire {
            Wire::Raw(stream) => {
                let sent = next.is_none_or(|byte| stream.write(&[byte]).is_ok());
                let open = match stream.read(&mut [0; 4_096]) {
                    Ok(len) => len > 0,
                    Err(error) => error.kind() == ErrorKind::WouldBlock,
                };
                sent && open
            }
            Wire::Layers(through) => next.is_none_or(|byte| through.send(&[byte]).is_ok()),
        }
    }
}

/// The phases of one kind of listener.
fn phases(way: &Way, kind: &str, hello: &[u8]) -> Vec<Slow> {
    let raw = |before: &[&[u8]], words| {
        let mut stream = TcpStream::connect(way.addr).unwrap();
        before.iter().for_each(|bytes| stream.write_all(bytes).unwrap());
        Slow::tcp(stream, words)
    };
    let layers =
        |way: &Way, words| Slow { wire: Wire::Layers(Box::new(way.connect().unwrap())), words, said: 0 };
    let first = match kind {
        "tls" | "wss" => RECORD,
        "ws" => REQUEST,
        _ => CONNECT,
    };
    let before = way.before.as_slice();
    let mut all = vec![raw(&[before], &[]), raw(&[before], first)];
    if matches!(kind, "tls" | "wss") {
        // Behind a whole ClientHello, and what the broker says to it.
        all.extend([raw(&[before, hello], &[]), raw(&[before, hello], RECORD)]);
        let inner = Way {
            websocket: false,
            before: before.to_vec(),
            tls: way.tls.clone(),
            ..Way::new(way.addr, "tcp", &Files::new())
        };
        all.push(layers(&inner, if kind == "wss" { REQUEST } else { CONNECT }));
    }
    if kind.starts_with("ws") {
        all.push(layers(way, CONNECT));
    }
    all
}

/// The first words of a client of TLS.
fn hello(files: &Files) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(files.client(None), name).unwrap();
    let mut words = Vec::new();
    client.write_tls(&mut words).unwrap();
    words
}

/// What connections hold on all shards, in bytes.
fn held(broker: &Broker) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    let row = |name: &str| told["memory"][name].as_u64().unwrap_or_else(|| panic!("{name} in {told}"));
    row("transports") + row("buffers")
}

/// Slow clients go on until all of them are closed, while these peers are served.
fn outlast(broker: &Broker, mut slow: Vec<Slow>, peers: &mut [Peer<Through>], before: u64) {
    let count = slow.len() as u64;
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "{} of {count} slow clients are not closed", slow.len());
        slow.retain_mut(Slow::goes_on);
        peers.iter_mut().for_each(Peer::ping);
        if round % 8 == 0 {
            let held = held(broker).saturating_sub(before);
            assert!(held < count * BYTES_EACH_MAX, "{held} bytes for {count} slow clients");
        }
        if slow.is_empty() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until what is held is what it was.
fn await_held(broker: &Broker, before: u64) {
    let mut now = 0;
    for _ in 0..ROUNDS_MAX {
        now = held(broker);
        if now <= before {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{now} bytes are held, {before} were before");
}

#[test]
fn slow_clients_are_closed_in_every_phase_of_every_listener() {
    let files = Files::new();
    let path = files.path("mqtt.sock");
    let more = [
        ("mqtt.idle_timeout_s", "6"),
        ("listeners.unix.kind", "unix"),
        ("listeners.unix.socket", path.as_str()),
        ("mqtt.anonymous_local_only", "false"),
    ];
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &more);
        let ways = ["default", "tls", "ws", "wss"].map(|kind| (kind, way(&broker, &files, kind)));
        let mut peers: Vec<_> =
            ways.iter().map(|(kind, way)| Peer::connect(way, Version::V5, kind)).collect();
        peers.iter_mut().for_each(Peer::ping);
        let before = held(&broker);
        let hello = hello(&files);
        let mut slow = Vec::new();
        for _ in 0..EACH {
            slow.extend(ways.iter().flat_map(|(kind, way)| phases(way, kind, &hello)));
            for words in [&[], CONNECT] {
                let stream = UnixStream::connect(&path).unwrap();
                stream.set_nonblocking(true).unwrap();
                slow.push(Slow { wire: Wire::Raw(Box::new(stream)), words, said: 0 });
            }
        }
        let count = slow.len() as u64;
        outlast(&broker, slow, &mut peers, before);
        await_held(&broker, before);
        assert_eq!(counter(&broker, "connect_timeouts"), count);
        assert_eq!(counter(&broker, "disconnects"), 0);
        peers.into_iter().for_each(Peer::disconnect);
        broker.stop();
    }
}

#[test]
fn slow_clients_are_closed_in_every_phase_behind_a_proxy() {
    let files = Files::new();
    let keys = ["tls", "ws", "wss", "proxied"].map(|kind| {
        [("proxy_protocol", "true"), ("proxy_from", "127.0.0.0/8"), ("proxy_timeout_s", "6")]
            .map(|(key, value)| (format!("listeners.{kind}.{key}"), value))
    });
    let mut more: Vec<_> = keys.iter().flatten().map(|(key, value)| (key.as_str(), *value)).collect();
    more.extend([
        ("mqtt.idle_timeout_s", "6"),
        ("listeners.proxied.bind", "127.0.0.1:0"),
        ("mqtt.anonymous_local_only", "false"),
    ]);
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &more);
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.2 1 2\r\n";
        let ways = ["proxied", "tls", "ws", "wss"]
            .map(|kind| (kind, Way { before: header.to_vec(), ..way(&broker, &files, kind) }));
        let mut peers: Vec<_> =
            ways.iter().map(|(kind, way)| Peer::connect(way, Version::V5, kind)).collect();
        peers.iter_mut().for_each(Peer::ping);
        let before = held(&broker);
        let hello = hello(&files);
        let (mut slow, mut in_header) = (Vec::new(), 0);
        for _ in 0..EACH {
            slow.extend(ways.iter().flat_map(|(kind, way)| phases(way, kind, &hello)));
            for (_, way) in &ways {
                for words in [&[], PROXY] {
                    slow.push(Slow::tcp(TcpStream::connect(way.addr).unwrap(), words));
                    in_header += 1;
                }
            }
        }
        let in_connect = slow.len() as u64 - in_header;
        outlast(&broker, slow, &mut peers, before);
        await_held(&broker, before);
        assert_eq!(counter(&broker, "proxy_timeouts"), in_header);
        assert_eq!(counter(&broker, "connect_timeouts"), in_connect);
        assert_eq!(counter(&broker, "disconnects"), 0);
        peers.into_iter().for_each(Peer::disconnect);
        broker.stop();
    }
}
