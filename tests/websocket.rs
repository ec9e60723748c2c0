//! The cases of the Autobahn test suite that apply to a server without text and extensions, against the transform:
//! an echo of binary messages. The numbers are those of its chapters.
#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

use ringmq::transport::{CloseCode, Fate, Fault, Layers, Scratch, Transport, WebSocketTerms};
use std::sync::Arc;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

const FRAME_BYTES_MAX: u64 = 16 << 20;

/// A server that echoes, after the upgrade.
struct Echo {
    transport: Box<Transport>,
    scratch: Scratch,
    /// All that came.
    got: Vec<u8>,
    result: Result<Fate, Fault>,
}

impl Echo {
    fn new() -> Echo {
        let terms = WebSocketTerms {
            path: "/mqtt".to_owned(),
            origins: Vec::new(),
            frame_bytes_max: FRAME_BYTES_MAX,
            forwarded: false,
        };
        let layers = Layers { tls: None, websocket: Some(Arc::new(terms)) };
        let transport = Transport::new(&layers).expect("a layer");
        let mut echo =
            Echo { transport, scratch: Scratch::default(), got: Vec::new(), result: Ok(Fate::Open) };
        // The example of RFC 6455, 1.3.
        let request = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
             Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Origin: http://example.com\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let answer = echo.say(request.as_bytes(), 1);
        let answer = String::from_utf8(answer).expect("a text");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        echo
    }

    /// Says this in pieces of so many bytes; returns the answer, in which each piece is echoed by itself.
    fn say(&mut self, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut answer = Vec::new();
        for piece in bytes.chunks(step) {
            let mut plain = Vec::new();
            let result = self.transport.receive(piece, &mut self.scratch, &mut plain);
            if self.result == Ok(Fate::Open) {
                self.result = result;
            }
            self.transport.seal(&plain, &mut self.scratch, &mut answer);
            self.got.extend(plain);
        }
        answer
    }
}

fn masked(first: u8, payload: &[u8], length: Option<&[u8]>) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match (length, payload.len()) {
        (Some(length), _) => frame.extend(length),
        (None, len @ 0..126) => frame.push(len as u8),
        (None, len @ 126..65_536) => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        (None, len) => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame[1] |= 0x80;
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, None)
}

/// The frames of a server: first byte and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (len, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            len => (usize::from(*len), rest),
        };
        frames.push((*first, rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    frames
}

fn close(code: u16) -> (u8, Vec<u8>) {
    (FINAL | CLOSE, code.to_be_bytes().to_vec())
}

/// What a server says to these frames, in pieces of each size; and what it got of them.
fn exchange(said: &[Vec<u8>]) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
    let bytes = said.concat();
    let mut last = None;
    for step in [bytes.len().max(1), 7, 2, 1] {
        let mut echo = Echo::new();
        let answered = frames(&echo.say(&bytes, step));
        let controls: Vec<_> =
            answered.iter().filter(|(first, _)| *first != FINAL | BINARY).cloned().collect();
        let echoed = answered.iter().filter(|(first, _)| *first == FINAL | BINARY);
        let echoed: Vec<u8> = echoed.flat_map(|(_, payload)| payload.clone()).collect();
        assert_eq!(echoed, echo.got, "step {step}");
        let ended = controls.iter().any(|(first, _)| *first == FINAL | CLOSE);
        assert_eq!(ended, echo.result != Ok(Fate::Open), "step {step}: {:?}", echo.result);
        let this = (controls, echoed);
        assert!(last.is_none() || last == Some(this.clone()), "step {step} is like a whole");
        last = Some(this);
    }
    last.expect("several steps")
}

/// What is said is echoed, with these control frames.
fn echoes(said: &[Vec<u8>], payload: &[u8], controls: &[(u8, Vec<u8>)]) {
    let (answered, got) = exchange(said);
    assert!(got == payload, "{} bytes of {}", got.len(), payload.len());
    assert_eq!(answered, controls);
}

/// What is said ends it with this code; what came before is taken.
fn fails(said: &[Vec<u8>], payload: &[u8], code: u16) {
    let mut more = said.to_vec();
    // What follows is ignored.
    more.push(frame(FINAL | BINARY, b"later"));
    echoes(&more, payload, &[close(code)]);
}

#[test]
fn chapter_1_binary_messages_of_each_length() {
    for len in [0, 125, 126, 127, 128, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..len).map(|at: u32| at as u8).collect();
        echoes(&[frame(FINAL | BINARY, &payload)], &payload, &[]);
    }
    fails(&[frame(FINAL | TEXT, b"text")], b"", CloseCode::Unsupported as u16);
}

#[test]
fn chapter_2_pings_and_pongs() {
    let pong = |payload: &[u8]| (FINAL | PONG, payload.to_vec());
    echoes(&[frame(FINAL | PING, b"")], b"", &[pong(b"")]);
    echoes(&[frame(FINAL | PING, b"Hello, world!")], b"", &[pong(b"Hello, world!")]);
    echoes(&[frame(FINAL | PING, &[0, 255, 254, 253])], b"", &[pong(&[0, 255, 254, 253])]);
    echoes(&[frame(FINAL | PING, &[254; 125])], b"", &[pong(&[254; 125])]);
    fails(&[frame(FINAL | PING, &[254; 126])], b"", 1002);
    echoes(&[frame(FINAL | PONG, b"unasked"), frame(FINAL | PING, b"ping")], b"", &[pong(b"ping")]);
    let pings: Vec<_> = (0..10u8).map(|n| frame(FINAL | PING, &[n])).collect();
    let pongs: Vec<_> = (0..10u8).map(|n| pong(&[n])).collect();
    echoes(&pings, b"", &pongs);
}

#[test]
fn who_sends_pings_and_reads_nothing_is_not_answered_without_end() {
    let mut echo = Echo::new();
    let pings = frame(FINAL | PING, &[1; 125]).repeat(10_000);
    let answer = echo.say(&pings, pings.len());
    assert!(answer.len() < 8_192, "{}", answer.len());
    assert_eq!(echo.result, Ok(Fate::Open));
}

#[test]
fn chapter_3_reserved_bits() {
    for bits in 1..8u8 {
        let bits = bits << 4;
        fails(&[frame(FINAL | BINARY, b"one"), frame(FINAL | bits | BINARY, b"two")], b"one", 1002);
        fails(&[frame(FINAL | bits | PING, b"")], b"", 1002);
        fails(&[frame(FINAL | bits | CLOSE, b"")], b"", 1002);
    }
}

#[test]
fn chapter_4_reserved_opcodes() {
    for opcode in (3..8).chain(11..16) {
        fails(&[frame(FINAL | opcode, b"")], b"", 1002);
        fails(&[frame(FINAL | BINARY, b"one"), frame(FINAL | opcode, b"two")], b"one", 1002);
    }
}

#[test]
fn chapter_5_fragments() {
    // A control frame in pieces.
    fails(&[frame(PING, b"a"), frame(FINAL | CONTINUATION, b"b")], b"", 1002);
    fails(&[frame(PONG, b"a"), frame(FINAL | CONTINUATION, b"b")], b"", 1002);
    let parts = [frame(BINARY, b"one"), frame(FINAL | CONTINUATION, b"two")];
    echoes(&parts, b"onetwo", &[]);
    // Pings between the pieces, and empty pieces.
    let mut many = vec![frame(BINARY, b"")];
    let mut pongs = Vec::new();
    let mut whole = Vec::new();
    for n in 0..5u8 {
        many.push(frame(FINAL | PING, &[n]));
        many.push(frame(CONTINUATION, &[n; 3]));
        pongs.push((FINAL | PONG, vec![n]));
        whole.extend([n; 3]);
    }
    many.push(frame(FINAL | CONTINUATION, b""));
    many.push(frame(FINAL | BINARY, b"next"));
    whole.extend(b"next");
    echoes(&many, &whole, &pongs);
    // A continuation of nothing, and a message within one.
    fails(&[frame(FINAL | CONTINUATION, b"a")], b"", 1002);
    fails(&[frame(CONTINUATION, b"a"), frame(FINAL | BINARY, b"b")], b"", 1002);
    let after = [frame(BINARY, b"a"), frame(FINAL | CONTINUATION, b"b"), frame(FINAL | CONTINUATION, b"c")];
    fails(&after, b"ab", 1002);
    fails(&[frame(BINARY, b"a"), frame(FINAL | BINARY, b"b")], b"a", 1002);
    fails(&[frame(BINARY, b"a"), frame(FINAL | TEXT, b"b")], b"a", 1002);
}

#[test]
fn chapter_7_closes() {
    echoes(&[frame(FINAL | CLOSE, b"")], b"", &[(FINAL | CLOSE, vec![])]);
    echoes(
        &[frame(FINAL | BINARY, b"one"), frame(FINAL | CLOSE, &[3, 232]), frame(FINAL | PING, b"")],
        b"one",
        &[close(1000)],
    );
    echoes(&[frame(BINARY, b"part"), frame(FINAL | CLOSE, &[3, 232])], b"part", &[close(1000)]);
    // One byte, and too many.
    fails(&[frame(FINAL | CLOSE, &[3])], b"", 1002);
    fails(&[frame(FINAL | CLOSE, &[[3, 232].as_slice(), &[b'*'; 124]].concat())], b"", 1002);
    echoes(&[frame(FINAL | CLOSE, &[[3, 232].as_slice(), &[b'*'; 123]].concat())], b"", &[close(1000)]);
    fails(&[frame(FINAL | CLOSE, &[3, 232, 0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xed, 0xa0, 0x80])], b"", 1007);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999u16] {
        echoes(&[frame(FINAL | CLOSE, &code.to_be_bytes())], b"", &[close(code)]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535u16] {
        fails(&[frame(FINAL | CLOSE, &code.to_be_bytes())], b"", 1002);
    }
}

#[test]
fn chapter_9_sizes() {
    let payload: Vec<u8> = (0..1 << 20).map(|at: u32| (at * 7) as u8).collect();
    let mut echo = Echo::new();
    let answer = frames(&echo.say(&frame(FINAL | BINARY, &payload), 1 << 21));
    assert!(answer == [(FINAL | BINARY, payload.clone())]);
    // In fragments, in chops.
    let parts: Vec<_> = payload.chunks(4_096).map(|part| frame(CONTINUATION, part)).collect();
    let mut said = vec![frame(BINARY, b"")];
    said.extend(parts);
    said.push(frame(FINAL | CONTINUATION, b""));
    let mut echo = Echo::new();
    echo.say(&said.concat(), 997);
    assert!(echo.got == payload && echo.result == Ok(Fate::Open));
    // More than the listener takes, before any of it came; and lengths beyond all bounds.
    for len in [FRAME_BYTES_MAX + 1, u64::MAX >> 1, u64::MAX] {
        let mut length = vec![127];
        length.extend(len.to_be_bytes());
        let mut echo = Echo::new();
        let answer = echo.say(&masked(FINAL | BINARY, b"", Some(&length)), 3);
        assert_eq!(frames(&answer), [close(1009)], "{len}");
    }
}

#[test]
fn frames_without_mask_and_lengths_in_a_longer_form() {
    fails(&[vec![FINAL | BINARY, 1, 7]], b"", 1002);
    fails(&[masked(FINAL | BINARY, b"a", Some(&[126, 0, 1]))], b"", 1002);
    fails(&[masked(FINAL | BINARY, b"a", Some(&[127, 0, 0, 0, 0, 0, 0, 0, 1]))], b"", 1002);
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let mut echo = Echo::new();
    let idle = echo.transport.bytes();
    echo.say(&frame(FINAL | BINARY, &[1; 10_000]), 999);
    echo.say(&frame(FINAL | PING, b"x"), 1);
    assert_eq!(echo.transport.bytes(), idle);
    assert!(idle <= 1_024, "{idle}");
}
