//! Bytes that nobody meant as packets: nothing may panic, and whatever is accepted can be read and written.

use super::generate::{KINDS, Parts};
use super::*;

/// Frames and decodes; reads all of what is accepted, and encodes it again.
fn survive(version: Version, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let framed = frame(bytes, 1 << 20);
    let end = match framed {
        Ok(Framed::Packet { total, .. }) => total,
        Ok(Framed::Incomplete { .. }) | Err(_) => bytes.len(),
    };
    let Ok(packet) = decode(version, &bytes[..end]) else { return false };
    assert!(matches!(framed, Ok(Framed::Packet { .. })), "{framed:?}: {packet:?}");
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    out.clear();
    packet.encode(version, out);
    assert_eq!(out.len(), packet.encoded_len(version));
    match decode(version, out) {
        Ok(again) => assert_eq!(again, packet),
        Err(error) => panic!("{error} in what {packet:?} was encoded to"),
    }
    if let Packet::Publish(publish) = packet {
        let mut scratch = Vec::new();
        let routing = publish.routing();
        assert_eq!(routing.forward.bytes(&mut scratch).len(), routing.forward.len());
    }
    true
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng(21);
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for round in 0..150_000 {
        bytes.clear();
        let len = rng.below(40);
        bytes.extend((0..len).map(|_| if rng.flip() { rng.next() as u8 } else { rng.below(8) as u8 }));
        // Most with a header that fits, so that decoders get past it.
        if round % 4 != 0 {
            bytes = whole(rng.pick(&KINDS).first_byte(), &bytes);
        }
        taken += usize::from(survive(rng.pick(&VERSIONS), &bytes, &mut out));
    }
    assert!(taken > 1_000, "{taken}");
}

#[test]
fn mutated_packets_never_panic() {
    let mut rng = Rng(22);
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    let (mut taken, mut rounds) = (0, 0);
    while rounds < 150_000 {
        let (version, kind) = (rng.pick(&VERSIONS), rng.pick(&KINDS));
        let parts = Parts::random(&mut rng, kind, version);
        let Some(packet) = parts.packet(&mut rng, kind, version) else { continue };
        let mut original = Vec::new();
        packet.encode(version, &mut original);
        // The large ones are rare: they would only take time.
        if original.len() > 2_000 && rng.below(20) != 0 {
            continue;
        }
        for _ in 0..10 {
            rounds += 1;
            bytes.clone_from(&original);
            for _ in 0..=rng.below(3) {
                mutate(&mut rng, &mut bytes);
            }
            if rng.flip()
                && let [first, rest @ ..] = bytes.as_slice()
            {
                let header = rest.iter().take(3).take_while(|byte| **byte >= 0x80).count() + 1;
                bytes = whole(*first, rest.get(header..).unwrap_or_default());
            }
            taken += usize::from(survive(version, &bytes, &mut out));
        }
    }
    assert!(taken > 10_000, "{taken}");
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len().min(64));
    match rng.below(5) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.pick(&[0, 1, 0x7F, 0x80, 0xFF, b'+', b'#']),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.next() as u8),
        _ => drop(bytes.remove(at)),
    }
}
