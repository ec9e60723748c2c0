//! A cursor over a packet: every field either is whole and well-formed, or the packet is malformed.

use super::{DecodeError, PacketId, ReasonCode};

/// What is left to read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// All that is left.
    #[inline]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    #[inline]
    pub fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("the end of the packet, bytes left: 0", self.0.len()))
        }
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.0.split_at_checked(len) {
            Some((field, rest)) => {
                self.0 = rest;
                Ok(field)
            }
            None => Err(cut_short(self.0.len())),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                Ok(*field)
            }
            None => Err(cut_short(self.0.len())),
        }
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer, in as few bytes as it takes [MQTT-1.5.5-1 of 5.0].
    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = match varint(self.0)? {
            Some(found) => found,
            None => return Err(cut_short(self.0.len())),
        };
        if len > 1 && value < 1 << (7 * (len - 1)) {
            return Err(not_minimal(len));
        }
        self.take(len)?;
        Ok(value)
    }

    /// A packet identifier, which is not 0 [MQTT-2.2.1-3 of 5.0].
    #[inline]
    pub fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        match PacketId::new(self.u16()?) {
            Some(id) => Ok(id),
            None => Err(DecodeError::protocol("a packet identifier from 1 to 65,535", 0u8)),
        }
    }

    /// Binary data, or a string that is not checked.
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A string: well-formed UTF-8 [MQTT-1.5.4-1 of 5.0] without U+0000 [MQTT-1.5.4-2 of 5.0].
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if has_any(bytes, |byte| byte == 0) {
            return Err(nul());
        }
        utf8(bytes)
    }

    /// A topic name, or an empty string: one pass for wildcards [MQTT-3.3.2-2 of 5.0] and U+0000.
    #[inline]
    pub fn topic_name(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if has_any(bytes, |byte| (byte == 0) | (byte == b'+') | (byte == b'#')) {
            return Err(bad_topic_name(bytes));
        }
        utf8(bytes)
    }
}

/// Whether any byte is one of a few. Without an early exit, so that the compiler can vectorise it.
#[inline]
pub(super) fn has_any(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, &byte| found | is(byte))
}

/// A variable byte integer at the start of `bytes` and its length, `None` where it has not all come.
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(too_long()) }
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        DecodeError::malformed("well-formed UTF-8", byte)
    })
}

#[cold]
pub(super) fn not_minimal(len: usize) -> DecodeError {
    DecodeError::malformed("a variable byte integer in as few bytes as it takes, bytes", len)
}

#[cold]
fn too_long() -> DecodeError {
    DecodeError::malformed("a variable byte integer of at most 4 bytes", "5 or more")
}

#[cold]
fn cut_short(left: usize) -> DecodeError {
    DecodeError::malformed("a field that ends within the packet, bytes left", left)
}

#[cold]
fn nul() -> DecodeError {
    DecodeError::malformed("a string without U+0000", "one")
}

#[cold]
fn bad_topic_name(bytes: &[u8]) -> DecodeError {
    if bytes.contains(&0) {
        return nul();
    }
    let got = if bytes.contains(&b'#') { "#" } else { "+" };
    DecodeError::new(ReasonCode::TOPIC_NAME_INVALID, "a topic name without wildcards", got)
}
