//! TLS as a transform of bytes, by rustls' unbuffered connections: records are decrypted from the receive buffer
//! and encrypted into the send buffer, and an idle connection holds neither.

use super::certificates::{PeerNames, TlsTerms};
use super::dial::{DialTls, explain};
use super::{Fate, Fault, Layer};
use crate::heap::boxed;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_OVERHEAD_BYTES, TLS_STATE_BYTES};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, HandshakeKind};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Bytes of a record's head: type, version, length.
const HEAD_BYTES: usize = 5;
/// What begins a record [RFC 8446, 5.1; RFC 6520].
const CONTENT_TYPES: RangeInclusive<u8> = 20..=24;
/// The first byte of every version that a record names.
const MAJOR_VERSION: u8 = 3;
/// Bytes of MQTT in one record at most.
const FRAGMENT_BYTES_MAX: usize = 16_384;

/// Which end of it this is.
enum End {
    /// A server before the first step of its handshake: whoever says nothing costs next to nothing.
    Fresh(Arc<TlsTerms>),
    Server(Box<UnbufferedServerConnection>, Arc<TlsTerms>),
    Client(Box<UnbufferedClientConnection>),
}

impl End {
    fn state(&self) -> Option<&CommonState> {
        match self {
            End::Fresh(_) => None,
            End::Server(connection, _) => Some(connection),
            End::Client(connection) => Some(connection),
        }
    }

    /// Bytes on the heap.
    fn bytes(&self) -> usize {
        match self {
            End::Fresh(_) => 0,
            End::Server(..) => boxed::<UnbufferedServerConnection>() + TLS_STATE_BYTES,
            End::Client(_) => boxed::<UnbufferedClientConnection>() + TLS_STATE_BYTES,
        }
    }

    /// What rustls makes of an error.
    fn fault(&self, error: &rustls::Error) -> Fault {
        match self {
            End::Fresh(_) | End::Server(..) => fault(error),
            End::Client(_) => Fault { layer: Layer::Tls, text: explain(error) },
        }
    }
}

/// What comes after a step of rustls.
enum Next {
    More,
    Nothing,
    Ended,
    Failed(rustls::Error),
}

/// One connection's TLS.
pub(super) struct Tls {
    end: End,
    /// Received and not complete, or not begun.
    pending: Vec<u8>,
    /// Handshake messages and alerts that wait to be sent.
    reply: Vec<u8>,
    /// The peer was at fault; rustls is not asked any more.
    failed: bool,
    /// Who the client is, by its certificate.
    pub names: Option<Box<PeerNames>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("handshaking", &self.is_handshaking()).finish_non_exhaustive()
    }
}

impl Tls {
    pub fn new(terms: &Arc<TlsTerms>) -> Tls {
        Tls::of(End::Fresh(terms.clone()))
    }

    /// The client's side, which begins.
    pub fn dial(terms: &DialTls) -> Result<Tls, Fault> {
        let connection = UnbufferedClientConnection::new(terms.config.clone(), terms.name.clone());
        let mut tls = Tls::of(End::Client(Box::new(connection.map_err(|e| fault(&e))?)));
        // Its first message waits in rustls.
        tls.process(&mut [], &mut Vec::new()).1?;
        Ok(tls)
    }

    fn of(end: End) -> Tls {
        Tls { end, pending: Vec::new(), reply: Vec::new(), failed: false, names: None }
    }

    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.end.state().is_none_or(|state| state.is_handshaking())
    }

    /// Whether there is something for rustls in what is held: a whole record, or the beginning of none.
    pub fn is_step_due(&self) -> bool {
        match self.pending.as_slice() {
            [] => false,
            [kind, ..] if !CONTENT_TYPES.contains(kind) => true,
            [_, major, ..] if *major != MAJOR_VERSION => true,
            held => held.len() >= HEAD_BYTES && !self.is_part(0),
        }
    }

    /// Whether the handshake, which is done, was that of a session from before.
    pub fn is_resumed(&self) -> bool {
        self.end.state().and_then(|state| state.handshake_kind()) == Some(HandshakeKind::Resumed)
    }

    #[inline]
    pub fn has_output(&self) -> bool {
        !self.reply.is_empty()
    }

    pub fn bytes(&self) -> usize {
        let names = self.names.as_ref().map_or(0, |names| names.bytes());
        boxed::<Tls>() + self.pending.capacity() + self.reply.capacity() + names + self.end.bytes()
    }

    pub fn hold(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Takes records, and appends what they carry.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        record: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Fate, Fault> {
        if let End::Fresh(terms) = &self.end {
            let connection = UnbufferedServerConnection::new(terms.config.clone());
            self.end = End::Server(Box::new(connection.map_err(|error| fault(&error))?), terms.clone());
        }
        let handshaking = self.is_handshaking();
        if !handshaking && self.is_part(bytes.len()) {
            self.pending.extend_from_slice(bytes);
            return Ok(Fate::Open);
        }
        record.clear();
        record.extend_from_slice(&self.pending);
        record.extend_from_slice(bytes);
        let (used, fate) = self.process(record, plain);
        let rest = record.get(used..).unwrap_or_default();
        if rest.is_empty() || fate != Ok(Fate::Open) {
            self.pending = Vec::new();
        } else {
            self.pending.clear();
            self.pending.extend_from_slice(rest);
        }
        let fate = fate?;
        if self.is_handshaking() && self.pending.len() > TLS_HANDSHAKE_BYTES_MAX {
            let got = self.pending.len();
            let text = format!(
                "expected a TLS handshake message of {TLS_HANDSHAKE_BYTES_MAX} bytes at most, got {got}"
            );
            self.pending = Vec::new();
            self.failed = true;
            return Err(Fault { layer: Layer::Tls, text });
        }
        if handshaking
            && !self.is_handshaking()
            && let End::Server(connection, terms) = &self.end
            && let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first)
        {
            match terms.names_of(certificate) {
                Ok(names) => self.names = names.map(Box::new),
                Err(text) => {
                    self.failed = true;
                    return Err(Fault { layer: Layer::Tls, text });
                }
            }
        }
        Ok(fate)
    }

    /// Whether with so many bytes more the first record is still not complete.
    fn is_part(&self, more: usize) -> bool {
        let Some([.., high, low]) = self.pending.first_chunk::<HEAD_BYTES>() else { return false };
        let whole = HEAD_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        whole <= FRAGMENT_BYTES_MAX + TLS_RECORD_OVERHEAD_BYTES && self.pending.len() + more < whole
    }

    /// Works through what is there; says how much of it was used.
    fn process(&mut self, record: &mut [u8], plain: &mut Vec<u8>) -> (usize, Result<Fate, Fault>) {
        let (mut at, mut fate) = (0, Fate::Open);
        loop {
            let rest = &mut record[at..];
            let (discard, next) = match &mut self.end {
                End::Fresh(_) => (0, Next::Nothing),
                End::Server(tls, _) => take(tls.process_tls_records(rest), &mut self.reply, plain),
                End::Client(tls) => take(tls.process_tls_records(rest), &mut self.reply, plain),
            };
            match next {
                Next::More => {}
                Next::Ended => fate = Fate::Ended,
                Next::Nothing => return (at + discard, Ok(fate)),
                Next::Failed(error) => {
                    self.say_alert(record.get_mut(at + discard..).unwrap_or_default());
                    return (at, Err(self.end.fault(&error)));
                }
            }
            at += discard;
        }
    }

    /// Takes the alert that rustls has for the peer, and what it had to say before. With what is left of the same
    /// bytes, for it keeps count of them; not one of them is looked at while it wants to write.
    fn say_alert(&mut self, rest: &mut [u8]) {
        self.failed = true;
        let mut nothing = Vec::new();
        while self.end.state().is_some_and(CommonState::wants_write) {
            let _ = match &mut self.end {
                End::Fresh(_) => (0, Next::Nothing),
                End::Server(tls, _) => take(tls.process_tls_records(rest), &mut self.reply, &mut nothing),
                End::Client(tls) => take(tls.process_tls_records(rest), &mut self.reply, &mut nothing),
            };
        }
    }

    /// Appends the records that carry these bytes; at the `end` with a close_notify.
    pub fn seal(&mut self, plain: &[u8], end: bool, wire: &mut Vec<u8>) {
        wire.append(&mut self.reply);
        self.reply = Vec::new();
        if self.failed || self.is_handshaking() || (plain.is_empty() && !end) {
            return;
        }
        loop {
            // With what is pending, for rustls keeps count of it; none of it is complete.
            let pending = &mut self.pending[..];
            let (discard, more) = match &mut self.end {
                End::Fresh(_) => (0, false),
                End::Server(tls, _) => put(tls.process_tls_records(pending), plain, end, wire),
                End::Client(tls) => put(tls.process_tls_records(pending), plain, end, wire),
            };
            if discard > 0 {
                self.pending.drain(..discard.min(self.pending.len()));
            }
            if !more {
                return;
            }
        }
    }
}

/// Takes what a step has brought: what it says goes to `reply`, what it carries to `plain`. With the bytes that it
/// used.
fn take<D>(status: UnbufferedStatus<'_, '_, D>, reply: &mut Vec<u8>, plain: &mut Vec<u8>) -> (usize, Next) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(Ok(data)) = traffic.next_record() {
                discard += data.discard;
                plain.extend_from_slice(data.payload);
            }
            Next::More
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, reply);
            Next::More
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Next::More
        }
        Ok(ConnectionState::PeerClosed) => Next::Ended,
        // No early data is offered, so none is accepted.
        Ok(_) => Next::Nothing,
        Err(error) => Next::Failed(error),
    };
    (discard, next)
}

/// Appends what a step lets be said of `plain`; with the bytes that it used, and whether another step is due.
fn put<D>(status: UnbufferedStatus<'_, '_, D>, plain: &[u8], end: bool, wire: &mut Vec<u8>) -> (usize, bool) {
    let more = match status.state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, wire);
            true
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            true
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            if !plain.is_empty() {
                let fragments = plain.len().div_ceil(FRAGMENT_BYTES_MAX);
                let room = plain.len() + fragments * TLS_RECORD_OVERHEAD_BYTES;
                append(wire, room, |room| traffic.encrypt(plain, room));
            }
            if end {
                append(wire, TLS_RECORD_OVERHEAD_BYTES, |room| traffic.queue_close_notify(room));
            }
            false
        }
        Ok(ConnectionState::PeerClosed) => true,
        // It has failed, and its peer was told.
        _ => false,
    };
    (status.discard, more)
}

fn fault(error: &rustls::Error) -> Fault {
    Fault { layer: Layer::Tls, text: format!("TLS: {error}") }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    append(out, TLS_RECORD_OVERHEAD_BYTES, |room| data.encode(room));
}

/// Why nothing was written: there was too little room, or there is nothing.
trait Refusal {
    fn required(&self) -> Option<usize>;
}

impl Refusal for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl Refusal for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

/// Appends what `write` writes into the room that it needs.
fn append<E: Refusal>(out: &mut Vec<u8>, room: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, E>) {
    let at = out.len();
    let mut room = room;
    for _ in 0..2 {
        out.resize(at + room, 0);
        match write(&mut out[at..]) {
            Ok(written) => return out.truncate(at + written),
            Err(refusal) => match refusal.required() {
                Some(required) => room = required,
                None => break,
            },
        }
    }
    out.truncate(at);
}
