//! TLS as a transform of bytes, by rustls' unbuffered connections: records are decrypted from the receive buffer
//! and encrypted into the send buffer, and an idle connection holds neither.

use super::certificates::{PeerNames, TlsTerms};
use super::{Fate, Fault, Layer};
use crate::heap::boxed;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_OVERHEAD_BYTES, TLS_STATE_BYTES};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use std::fmt;
use std::sync::Arc;

/// Bytes of a record's head: type, version, length.
const HEAD_BYTES: usize = 5;
/// Bytes of MQTT in one record at most.
const FRAGMENT_BYTES_MAX: usize = 16_384;

/// One connection's TLS.
pub(super) struct Tls {
    connection: UnbufferedServerConnection,
    /// Received and not complete, or not begun.
    pending: Vec<u8>,
    /// Handshake messages and alerts that wait to be sent.
    reply: Vec<u8>,
    terms: Arc<TlsTerms>,
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
    pub fn new(terms: &Arc<TlsTerms>) -> Result<Tls, Fault> {
        let connection = UnbufferedServerConnection::new(terms.config.clone()).map_err(|e| fault(&e))?;
        let (pending, reply) = (Vec::new(), Vec::new());
        Ok(Tls { connection, pending, reply, terms: terms.clone(), failed: false, names: None })
    }

    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    #[inline]
    pub fn has_output(&self) -> bool {
        !self.reply.is_empty()
    }

    pub fn bytes(&self) -> usize {
        let names = self.names.as_ref().map_or(0, |names| names.bytes());
        boxed::<Tls>() + self.pending.capacity() + self.reply.capacity() + names + TLS_STATE_BYTES
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
            && let Some(certificate) = self.connection.peer_certificates().and_then(<[_]>::first)
        {
            match self.terms.names_of(certificate) {
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
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut record[at..]);
            let mut more = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(data)) = traffic.next_record() {
                        discard += data.discard;
                        plain.extend_from_slice(data.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.reply),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => fate = Fate::Ended,
                // No early data is offered, so none is accepted.
                Ok(_) => more = false,
                Err(error) => {
                    self.say_alert(record.get_mut(at + discard..).unwrap_or_default());
                    return (at, Err(fault(&error)));
                }
            }
            at += discard;
            if !more {
                return (at, Ok(fate));
            }
        }
    }

    /// Takes the alert that rustls has for the peer. With what is left of the same bytes, for it keeps count of them.
    fn say_alert(&mut self, rest: &mut [u8]) {
        self.failed = true;
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(rest).state
        {
            encode(&mut data, &mut self.reply);
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
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.pending);
            let mut more = true;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, wire),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    more = false;
                    if !plain.is_empty() {
                        let fragments = plain.len().div_ceil(FRAGMENT_BYTES_MAX);
                        let room = plain.len() + fragments * TLS_RECORD_OVERHEAD_BYTES;
                        append(wire, room, |room| traffic.encrypt(plain, room));
                    }
                    if end {
                        append(wire, TLS_RECORD_OVERHEAD_BYTES, |room| traffic.queue_close_notify(room));
                    }
                }
                Ok(ConnectionState::PeerClosed) => {}
                // It has failed, and its peer was told.
                _ => more = false,
            }
            if discard > 0 {
                self.pending.drain(..discard.min(self.pending.len()));
            }
            if !more {
                return;
            }
        }
    }
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
