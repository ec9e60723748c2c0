//! Tests of the codec as a whole.

mod generate;
mod golden;
mod mutate;
mod round_trip;
mod routing;
mod strict_connect;
mod strict_packets;
mod strict_properties;

use super::*;
use crate::codec::write::Sink;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// SplitMix64: a seed gives the same run each time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A whole packet: first byte and body.
fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    packet.varint(body.len());
    packet.extend_from_slice(body);
    packet
}

/// The bytes must be refused with `code`.
#[track_caller]
fn refused(version: Version, packet: &[u8], code: ReasonCode) -> DecodeError {
    match decode(version, packet) {
        Err(error) => {
            assert_eq!(error.code, code, "{error}");
            error
        }
        Ok(packet) => panic!("accepted as {packet:?}"),
    }
}

/// The bytes must be accepted.
#[track_caller]
fn accepted(version: Version, packet: &[u8]) -> Packet<'_> {
    match decode(version, packet) {
        Ok(packet) => packet,
        Err(error) => panic!("refused, {}: {error}", error.code),
    }
}
