//! What each message of the generator carries, so that its delivery can be checked and timed.
//!
//! ```text
//!   magic 2 │ run 4 │ publisher 4 │ sequence 4 │ time 8 │ check 4 │ filler …      binary, in front
//!   text … │ # │ the same 26 bytes as 52 hexadecimal digits                       behind a template
//! ```
//!
//! The check covers all other bytes of the payload and the topic name. It finds accidents; it is no secret.

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 26;
/// Bytes of a stamp in its text form, with the `#` in front.
pub const STAMP_TEXT_BYTES: usize = 1 + 2 * STAMP_BYTES;

const MAGIC: [u8; 2] = [0xB3, 0x7C];
const CHECK_AT: usize = STAMP_BYTES - 4;

/// Who sent a message, which one it is, and when it should have left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// A number of the run; messages of other runs are told apart by it.
    pub run: u32,
    /// Number of the publisher.
    pub publisher: u32,
    /// Number of the message among those of its publisher, from 0.
    pub sequence: u32,
    /// Nanoseconds since 1970; in an open loop of the moment that the schedule says.
    pub time_ns: u64,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// A stamp, and everything is as it was sent.
    Stamped(Stamp),
    /// It should hold a stamp, but the check does not agree.
    Corrupt,
    /// Not a message of the generator.
    Foreign,
}

impl Stamp {
    fn bytes(&self, rest: u64, topic: &str) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[..2].copy_from_slice(&MAGIC);
        out[2..6].copy_from_slice(&self.run.to_be_bytes());
        out[6..10].copy_from_slice(&self.publisher.to_be_bytes());
        out[10..14].copy_from_slice(&self.sequence.to_be_bytes());
        out[14..22].copy_from_slice(&self.time_ns.to_be_bytes());
        let check = check(&out[..CHECK_AT], rest, topic);
        out[CHECK_AT..].copy_from_slice(&check.to_be_bytes());
        out
    }

    /// Writes the stamp over the first bytes of a payload, whose other bytes have the [`digest`] `rest`.
    pub fn write_front(&self, payload: &mut [u8], rest: u64, topic: &str) {
        payload[..STAMP_BYTES].copy_from_slice(&self.bytes(rest, topic));
    }

    /// Appends the stamp as text to a payload.
    pub fn write_behind(&self, payload: &mut Vec<u8>, topic: &str) {
        let stamp = self.bytes(digest(payload), topic);
        payload.push(b'#');
        for byte in stamp {
            for digit in [byte >> 4, byte & 15] {
                payload.push(char::from_digit(u32::from(digit), 16).map_or(b'0', |c| c as u8));
            }
        }
    }

    /// Reads and checks a payload.
    pub fn read(payload: &[u8], topic: &str) -> Reading {
        if payload.starts_with(&MAGIC) && payload.len() >= STAMP_BYTES {
            let (stamp, rest) = payload.split_at(STAMP_BYTES);
            return Stamp::parse(stamp, digest(rest), topic);
        }
        let Some(at) = payload.len().checked_sub(STAMP_TEXT_BYTES) else { return Reading::Foreign };
        let (text, stamp) = payload.split_at(at);
        match hexadecimal(stamp) {
            Some(stamp) if stamp.starts_with(&MAGIC) => Stamp::parse(&stamp, digest(text), topic),
            _ => Reading::Foreign,
        }
    }

    fn parse(bytes: &[u8], rest: u64, topic: &str) -> Reading {
        let four = |at: usize| {
            let mut out = [0; 4];
            out.copy_from_slice(&bytes[at..at + 4]);
            u32::from_be_bytes(out)
        };
        if check(&bytes[..CHECK_AT], rest, topic) != four(CHECK_AT) {
            return Reading::Corrupt;
        }
        let time_ns = u64::from(four(14)) << 32 | u64::from(four(18));
        Reading::Stamped(Stamp { run: four(2), publisher: four(6), sequence: four(10), time_ns })
    }
}

fn hexadecimal(text: &[u8]) -> Option<[u8; STAMP_BYTES]> {
    let digits = text.strip_prefix(b"#")?;
    let digit = |c: u8| char::from(c).to_digit(16);
    let mut out = [0; STAMP_BYTES];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(out)
}

fn check(head: &[u8], rest: u64, topic: &str) -> u32 {
    let all = mix(mix(digest(head), rest), digest(topic.as_bytes()));
    (all ^ all >> 32) as u32
}

fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A digest of some bytes, eight at a time.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut state = bytes.len() as u64;
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        state = mix(state, u64::from_le_bytes(eight));
    }
    words.remainder().iter().fold(state, |state, byte| mix(state, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 7, publisher: 8, sequence: 9, time_ns: 1 << 60 | 5 };

    #[test]
    fn a_stamp_in_front_is_read_back_and_each_changed_byte_is_found() {
        let mut payload = vec![0x55; 100];
        STAMP.write_front(&mut payload, digest(&[0x55; 100 - STAMP_BYTES]), "a/b");
        assert_eq!(Stamp::read(&payload, "a/b"), Reading::Stamped(STAMP));
        assert_eq!(Stamp::read(&payload, "a/c"), Reading::Corrupt);
        assert_eq!(Stamp::read(&payload[..99], "a/b"), Reading::Corrupt);
        for at in 2..100 {
            let mut changed = payload.clone();
            changed[at] ^= 0x10;
            assert_eq!(Stamp::read(&changed, "a/b"), Reading::Corrupt, "byte {at}");
        }
    }

    #[test]
    fn a_stamp_behind_a_text_is_read_back_and_each_changed_byte_is_found() {
        let mut payload = b"{\"t\": 21.5}".to_vec();
        let text = payload.len();
        STAMP.write_behind(&mut payload, "a");
        assert_eq!(payload.len(), text + STAMP_TEXT_BYTES);
        assert_eq!(Stamp::read(&payload, "a"), Reading::Stamped(STAMP));
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert!(!matches!(Stamp::read(&changed, "a"), Reading::Stamped(_)), "byte {at}");
        }
    }

    #[test]
    fn what_others_sent_is_foreign() {
        for payload in [&b""[..], b"hello", &[b'x'; 200], &MAGIC] {
            assert_eq!(Stamp::read(payload, "a"), Reading::Foreign);
        }
    }
}
