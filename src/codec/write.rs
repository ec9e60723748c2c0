//! Where bytes are written to: an output buffer, or a count of them, so that a length and the bytes that
//! have it come from one function.

use crate::limits::REMAINING_LENGTH_MAX;

/// Takes bytes.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A variable byte integer, in as few bytes as it takes [MQTT-1.5.5-1 of 5.0].
    #[inline]
    fn varint(&mut self, value: usize) {
        assert!(value <= REMAINING_LENGTH_MAX as usize, "a variable byte integer is at most 268,435,455");
        let mut left = value;
        while left > 0x7F {
            self.u8(0x80 | (left & 0x7F) as u8);
            left >>= 7;
        }
        self.u8(left as u8);
    }

    /// A string or binary data, its length in front.
    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("a string or binary field is at most 65,535 bytes"));
        self.bytes(bytes);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts.
pub(super) struct Counter(pub usize);

impl Sink for Counter {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Bytes of `value` as a variable byte integer; 4 also for what is too large to be one.
#[inline]
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
