//! Where a packet ends.

use super::read::varint;
use super::{DecodeError, PacketType, ReasonCode};

/// What the first bytes of a stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed {
    /// More bytes must come.
    Incomplete {
        /// Bytes of the whole packet, once its length is known.
        total: Option<usize>,
    },
    /// The whole packet is there.
    Packet {
        /// Bytes of its fixed header: 2 to 5.
        header: usize,
        /// Bytes of the whole packet, header included.
        total: usize,
    },
}

/// Finds the first packet in `bytes`. Looks at the fixed header only.
///
/// # Errors
/// As soon as the bytes that show it are there: malformed for packet type 0, flag bits that no version
/// allows, and a remaining length of five bytes; [`ReasonCode::PACKET_TOO_LARGE`] for a whole packet of more
/// than `packet_bytes_max` bytes.
#[inline]
pub fn frame(bytes: &[u8], packet_bytes_max: u32) -> Result<Framed, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Framed::Incomplete { total: None });
    };
    PacketType::of(first)?;
    let Some((remaining, len)) = varint(rest)? else {
        return Ok(Framed::Incomplete { total: None });
    };
    let header = 1 + len;
    let total = header + remaining as usize;
    if total > packet_bytes_max as usize {
        let expected = "a packet within the limit, bytes";
        return Err(DecodeError::new(ReasonCode::PACKET_TOO_LARGE, expected, total));
    }
    if bytes.len() < total {
        return Ok(Framed::Incomplete { total: Some(total) });
    }
    Ok(Framed::Packet { header, total })
}
