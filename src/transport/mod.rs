//! What may stand between a socket and MQTT: TLS, WebSocket, or WebSocket inside TLS, as transforms of bytes.
//!
//! ```text
//!   received ──► Tls ──► WebSocket ──► MQTT packets
//!   to send  ◄── Tls ◄── WebSocket ◄── MQTT packets
//! ```
//!
//! No I/O and no clock: bytes of the socket go into [`Transport::receive`], which appends what they carry; bytes
//! of MQTT go into [`Transport::seal`], which appends what is to be sent. What the layers themselves have to say
//! (handshakes, alerts, pongs, close frames) waits inside and leaves with the next `seal`; [`Transport::has_output`]
//! tells that there is some. One call of `seal` makes one frame and one run of records, however many packets.
//!
//! Both ends are here: the broker's ([`Transport::new`]) and a client's ([`Transport::dial`]), which begins.
//!
//! An idle connection holds keys and no buffer: a part of a record, a frame's head or a control frame is kept only
//! until it is complete. All of it travels with a connection from shard to shard. kTLS could take over where
//! [`Transport::is_handshaking`] turns false: rustls gives the keys away there.

mod certificates;
mod dial;
mod pem;
mod tls;
mod upgrade;
mod websocket;

pub use certificates::{ClientCertificates, NameFrom, PeerNames, Text, TlsFiles, TlsTerms};
pub use dial::{DialFiles, DialLayers, DialTls, DialVersion};
pub use upgrade::{DialWebSocket, WebSocketTerms};
pub use websocket::CloseCode;

use crate::heap::{Counted, boxed};
use std::sync::Arc;
use tls::Tls;
use websocket::WebSocket;

/// The layers of a listener. Connections keep the one that they began with.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// TLS, where the listener has it.
    pub tls: Option<Arc<TlsTerms>>,
    /// WebSocket, where the listener has it.
    pub websocket: Option<Arc<WebSocketTerms>>,
}

impl Layers {
    /// Whether MQTT is spoken on the socket itself.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none()
    }
}

/// Whether a layer goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// More may come.
    Open,
    /// The peer has ended it in order; nothing that follows counts.
    Ended,
}

/// The layer at which a peer was at fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Layer {
    /// A record or a handshake of TLS.
    Tls,
    /// The upgrade request or a frame of WebSocket.
    WebSocket,
}

/// A peer's fault, which ends the connection once what [`Transport::has_output`] tells of has left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Where.
    pub layer: Layer,
    /// What was expected, and what came.
    pub text: String,
}

/// What came of a step of a handshake.
#[derive(Debug)]
pub struct Stepped {
    /// The layers, one step further.
    pub transport: Box<Transport>,
    /// What came of MQTT behind the end of the handshake.
    pub plain: Vec<u8>,
    /// Whether it goes on, or what the peer did wrong.
    pub fate: Result<Fate, Fault>,
}

/// Buffers that all connections of a shard use in turn.
#[derive(Debug, Default)]
pub struct Scratch {
    record: Vec<u8>,
    inner: Vec<u8>,
}

impl Scratch {
    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.record.capacity() + self.inner.capacity()
    }
}

/// The layers of one connection.
#[derive(Debug)]
pub struct Transport {
    tls: Option<Box<Tls>>,
    websocket: Option<WebSocket>,
    /// A close that was asked for and has not been said yet.
    closing: Option<CloseCode>,
    closed: bool,
    faulty: bool,
    /// Its bytes as they were counted last.
    pub counted: Counted,
}

impl Transport {
    /// The layers of a new connection of such a listener; `None` where it has none.
    pub fn new(layers: &Layers) -> Option<Box<Transport>> {
        if layers.is_plain() {
            return None;
        }
        let tls = layers.tls.as_ref().map(|terms| Box::new(Tls::new(terms)));
        let websocket = layers.websocket.as_ref().map(|terms| WebSocket::new(terms.clone()));
        Some(Box::new(Transport::of(tls, websocket)))
    }

    /// The layers of a client's new connection; what they begin with waits to be sealed. The seed decides the key and
    /// the masks of WebSocket.
    ///
    /// # Errors
    /// What of the configuration rustls does not take.
    pub fn dial(layers: &DialLayers, seed: u64) -> Result<Transport, Fault> {
        let tls = layers.tls.as_ref().map(|terms| Tls::dial(terms).map(Box::new)).transpose()?;
        let websocket = layers.websocket.as_ref().map(|terms| WebSocket::dial(terms, seed));
        Ok(Transport::of(tls, websocket))
    }

    fn of(tls: Option<Box<Tls>>, websocket: Option<WebSocket>) -> Transport {
        let counted = Counted::default();
        Transport { tls, websocket, closing: None, closed: false, faulty: false, counted }
    }

    /// Whether the next bytes may cost a step of a TLS handshake, which is some hundred microseconds of work.
    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether its session of TLS is one from before.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    /// Whether it has WebSocket.
    pub fn has_websocket(&self) -> bool {
        self.websocket.is_some()
    }

    /// The layer whose beginning is not over.
    pub fn expects(&self) -> Option<Layer> {
        if self.is_handshaking() {
            return Some(Layer::Tls);
        }
        self.websocket.as_ref().is_some_and(WebSocket::is_upgrading).then_some(Layer::WebSocket)
    }

    /// What the client's certificate says who it is, once the handshake is done and where the listener asks for it.
    pub fn names(&self) -> Option<&PeerNames> {
        self.tls.as_ref()?.names.as_deref()
    }

    /// What the upgrade request said of those for whom proxies speak, once.
    pub fn take_forwarded(&mut self) -> Option<Box<str>> {
        self.websocket.as_mut()?.forwarded.take()
    }

    /// Keeps bytes whose turn comes later. The next `receive` takes them first.
    pub fn hold(&mut self, bytes: &[u8]) {
        if let Some(tls) = &mut self.tls {
            tls.hold(bytes);
        }
    }

    /// Whether a step of the handshake is due with what is held. Else it lacks bytes, and costs nothing.
    pub fn is_step_due(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_step_due())
    }

    /// Takes the step that is due, on whatever thread.
    pub fn step(mut self: Box<Transport>, scratch: &mut Scratch) -> Stepped {
        let mut plain = Vec::new();
        let fate = self.receive(&[], scratch, &mut plain);
        Stepped { transport: self, plain, fate }
    }

    /// Takes bytes of the socket and appends those of MQTT to `plain`.
    ///
    /// # Errors
    /// A fault of the peer. What it is to be told waits to be sealed; further bytes are ignored.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        scratch: &mut Scratch,
        plain: &mut Vec<u8>,
    ) -> Result<Fate, Fault> {
        if self.faulty || self.closed {
            return Ok(Fate::Ended);
        }
        let fate = self.unwrap(bytes, scratch, plain);
        self.faulty = fate.is_err();
        fate
    }

    fn unwrap(&mut self, bytes: &[u8], scratch: &mut Scratch, plain: &mut Vec<u8>) -> Result<Fate, Fault> {
        let Scratch { record, inner } = scratch;
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), None) => tls.receive(bytes, record, plain),
            (None, Some(websocket)) => websocket.receive(bytes, plain),
            (Some(tls), Some(websocket)) => {
                inner.clear();
                let outer = tls.receive(bytes, record, inner);
                let fate = websocket.receive(inner, plain)?;
                Ok(if outer? == Fate::Ended { Fate::Ended } else { fate })
            }
            (None, None) => {
                plain.extend_from_slice(bytes);
                Ok(Fate::Open)
            }
        }
    }

    /// Whether `seal` has something to say of its own.
    #[inline]
    pub fn has_output(&self) -> bool {
        (self.closing.is_some() && !self.closed)
            || self.tls.as_ref().is_some_and(|tls| tls.has_output())
            || (self.websocket.as_ref().is_some_and(WebSocket::has_output) && !self.is_handshaking())
    }

    /// Appends to `wire` what carries these bytes of MQTT, and whatever the layers have to say. What cannot be said
    /// (nothing is, before a handshake is done) is dropped.
    pub fn seal(&mut self, plain: &[u8], scratch: &mut Scratch, wire: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        let closing = self.closing.filter(|_| !self.faulty);
        self.closed = self.closing.is_some();
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), None) => tls.seal(plain, closing.is_some(), wire),
            (None, Some(websocket)) => websocket.seal(plain, closing, wire),
            (Some(tls), Some(websocket)) => {
                let inner = &mut scratch.inner;
                inner.clear();
                // A client's request waits for the end of the handshake.
                if !tls.is_handshaking() {
                    websocket.seal(plain, closing, inner);
                }
                tls.seal(inner, self.closed, wire);
            }
            (None, None) => wire.extend_from_slice(plain),
        }
    }

    /// The connection is to be closed: the next `seal` ends with a close frame of this code and a close_notify.
    pub fn close(&mut self, code: CloseCode) {
        self.closing.get_or_insert(code);
    }

    /// Bytes on the heap, its own included.
    pub fn bytes(&self) -> usize {
        boxed::<Transport>()
            + self.tls.as_ref().map_or(0, |tls| tls.bytes())
            + self.websocket.as_ref().map_or(0, WebSocket::bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests;
