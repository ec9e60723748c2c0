//! Upgrade requests, WebSocket frames and TLS records: whatever comes, in whatever pieces, nothing panics, the pieces
//! do not matter, and what is held is bounded.

use ringmq::limits::{TLS_HANDSHAKE_BYTES_MAX, WS_HEAD_BYTES_MAX, WS_REPLY_BYTES_MAX};
use ringmq::transport::{
    CloseCode, Fate, Fault, Layers, Scratch, Text, TlsFiles, TlsTerms, Transport, WebSocketTerms,
};
use std::sync::{Arc, OnceLock};

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fn websocket() -> Layers {
    let terms = WebSocketTerms {
        path: "/mqtt".to_owned(),
        origins: Vec::new(),
        frame_bytes_max: 1 << 20,
        forwarded: false,
    };
    Layers { tls: None, websocket: Some(Arc::new(terms)) }
}

fn tls() -> &'static Layers {
    static LAYERS: OnceLock<Layers> = OnceLock::new();
    LAYERS.get_or_init(|| {
        let text = |name: &str, bytes: &[u8]| Text { name: name.to_owned(), bytes: bytes.to_vec() };
        let chain = text("chain.pem", include_bytes!("transport_chain.pem"));
        let key = text("key.pem", include_bytes!("transport_key.pem"));
        let files = TlsFiles { certificates: vec![(chain, key)], ..TlsFiles::default() };
        Layers { tls: Some(Arc::new(TlsTerms::new(&files).expect("files that hold"))), websocket: None }
    })
}

/// What came of bytes in pieces of this size: the plain ones, how it went, and what is answered in all.
fn carry(
    layers: &Layers,
    before: &[u8],
    bytes: &[u8],
    step: usize,
) -> (Vec<u8>, Result<Fate, Fault>, Vec<u8>) {
    let mut transport = Transport::new(layers).expect("a layer");
    let (mut scratch, mut plain, mut wire) = (Scratch::default(), Vec::new(), Vec::new());
    if !before.is_empty() {
        transport.receive(before, &mut scratch, &mut plain).expect("a good request");
        transport.seal(&[], &mut scratch, &mut wire);
        wire.clear();
    }
    let mut result = Ok(Fate::Open);
    for piece in bytes.chunks(step) {
        let next = transport.receive(piece, &mut scratch, &mut plain);
        if result == Ok(Fate::Open) {
            result = next;
        }
        let most = TLS_HANDSHAKE_BYTES_MAX.max(WS_HEAD_BYTES_MAX + WS_REPLY_BYTES_MAX) * 2 + 16_384;
        assert!(transport.bytes() <= most, "{} bytes are held", transport.bytes());
        if transport.has_output() {
            transport.seal(&[], &mut scratch, &mut wire);
        }
    }
    transport.seal(b"last", &mut scratch, &mut wire);
    transport.close(CloseCode::Normal);
    transport.seal(&[], &mut scratch, &mut wire);
    assert!(!transport.has_output());
    (plain, result, wire)
}

/// Pieces do not matter.
fn pieces(layers: &Layers, before: &[u8], data: &[u8]) {
    let whole = carry(layers, before, data, data.len().max(1));
    for step in [1, 3] {
        let (plain, result, _) = carry(layers, before, data, step);
        assert_eq!((&plain, result.is_ok()), (&whole.0, whole.1.is_ok()), "in pieces of {step}");
    }
    assert!(whole.0.len() <= data.len());
}

/// An upgrade request, and what stands behind it.
pub fn upgrade(data: &[u8]) {
    pieces(&websocket(), &[], data);
}

/// Frames of a client.
pub fn frames(data: &[u8]) {
    pieces(&websocket(), REQUEST, data);
}

/// Records of TLS, up to where an attacker gets without keys.
pub fn records(data: &[u8]) {
    for step in [data.len().max(1), 7] {
        let (plain, ..) = carry(tls(), &[], data, step);
        assert!(plain.is_empty(), "nothing is taken without keys");
    }
}
