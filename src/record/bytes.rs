//! Numbers and texts of records, little-endian, with lengths in front.

use super::{BadRecord, VERSION};

/// Bytes of the sum at the end.
const SUM_BYTES: usize = 4;

/// A record that is being written.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub fn new(capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity + 1 + SUM_BYTES);
        bytes.push(VERSION);
        Writer(bytes)
    }

    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("a packet is below 256 MiB"));
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// All of it, with its sum.
    pub fn finish(mut self) -> Box<[u8]> {
        let sum = sum(&self.0);
        self.0.extend_from_slice(&sum.to_le_bytes());
        self.0.into_boxed_slice()
    }
}

/// A record that is being read; its sum and version are right.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(record: &'a [u8]) -> Result<Reader<'a>, BadRecord> {
        let (body, found) = record.split_last_chunk::<SUM_BYTES>().ok_or(BadRecord::Length)?;
        if sum(body) != u32::from_le_bytes(*found) {
            return Err(BadRecord::Sum);
        }
        match body.split_first() {
            Some((&VERSION, rest)) => Ok(Reader(rest)),
            Some((other, _)) => Err(BadRecord::Version(*other)),
            None => Err(BadRecord::Length),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(BadRecord::Length)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn u8(&mut self) -> Result<u8, BadRecord> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn flag(&mut self, name: &'static str) -> Result<bool, BadRecord> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadRecord::Field(name)),
        }
    }

    pub fn u32(&mut self) -> Result<u32, BadRecord> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, BadRecord> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], BadRecord> {
        let len = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(len).ok_or(BadRecord::Length)?;
        self.0 = rest;
        Ok(first)
    }

    pub fn text(&mut self, name: &'static str) -> Result<&'a str, BadRecord> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BadRecord::Field(name))
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), BadRecord> {
        if self.0.is_empty() { Ok(()) } else { Err(BadRecord::Length) }
    }
}

/// A sum that any change of one word changes: each step is a bijection of what is mixed in.
fn sum(bytes: &[u8]) -> u32 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: u64| (state.rotate_left(5) ^ word).wrapping_mul(ODD);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state =
        words.iter().fold(bytes.len() as u64, |state, word| mix(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = mix(state, u64::from_le_bytes(last));
    (state ^ state >> 32) as u32
}
