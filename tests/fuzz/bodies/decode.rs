//! The packet decoder, one version at a time: nothing panics, a packet ends where its frame says, and what is
//! accepted is encoded to something that is the same packet again.

use ringmq::codec::{
    DecodeError, Framed, Packet, PublishOut, Version, decode, decode_publish, encode_publish, frame,
    publish_len,
};

const PACKET_BYTES_MAX: u32 = 1 << 20;

pub fn target(version: Version, data: &[u8]) {
    // As a stream of packets.
    let mut rest = data;
    loop {
        match frame(rest, PACKET_BYTES_MAX) {
            Ok(Framed::Packet { header, total }) => {
                assert!((2..=5).contains(&header) && header <= total && total <= rest.len());
                framed_alike(rest, total);
                let (packet, behind) = rest.split_at(total);
                one(version, packet);
                rest = behind;
            }
            Ok(Framed::Incomplete { total }) => {
                assert!(total.is_none_or(|total| total > rest.len()));
                break;
            }
            Err(error) => {
                told(&error);
                break;
            }
        }
    }
    // And what it is when somebody says that it is one packet.
    one(version, data);
}

/// A packet that is there was not seen before its last byte came.
fn framed_alike(stream: &[u8], total: usize) {
    for len in [0, 1, 2, 3, 4, 5, total / 2, total - 1].into_iter().filter(|len| *len < total) {
        match frame(&stream[..len], PACKET_BYTES_MAX) {
            Ok(Framed::Incomplete { total: known }) => assert!(known.is_none_or(|known| known == total)),
            other => panic!("{other:?} of the first {len} bytes of {total}"),
        }
    }
}

fn one(version: Version, bytes: &[u8]) {
    let packet = match decode(version, bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(decode_publish(version, bytes).is_err());
            return told(&error);
        }
    };
    // Whatever was accepted can be read to its last field.
    assert!(!format!("{packet:?}").is_empty());
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    assert_eq!(out.len(), packet.encoded_len(version));
    let again = decode(version, &out).unwrap_or_else(|error| panic!("{error} in what {packet:?} became"));
    assert_eq!(again, packet);
    let mut twice = Vec::new();
    again.encode(version, &mut twice);
    assert_eq!(twice, out, "encoding is a fixed point");
    match packet {
        Packet::Publish(publish) => {
            assert_eq!(decode_publish(version, bytes), Ok(publish));
            forward(&publish);
        }
        Packet::Connect(connect) => {
            if let Some(will) = connect.will {
                let mut scratch = Vec::new();
                let routing = will.routing();
                assert_eq!(routing.forward.bytes(&mut scratch).len(), routing.forward.len());
            }
            assert!(decode_publish(version, bytes).is_err());
        }
        _ => assert!(decode_publish(version, bytes).is_err()),
    }
}

/// A PUBLISH as a subscriber gets it: what a router forwards is a packet again.
fn forward(publish: &ringmq::codec::Publish<'_>) {
    let mut scratch = Vec::new();
    let routing = publish.routing();
    let forward = routing.forward.bytes(&mut scratch);
    assert_eq!(forward.len(), routing.forward.len());
    if publish.topic.is_empty() {
        return;
    }
    for version in [Version::V31, Version::V311, Version::V5] {
        let out = PublishOut {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            topic: publish.topic,
            alias: None,
            expiry_s: routing.expiry_s,
            subscription_ids: &[1, 268_435_455],
            forward,
            payload: publish.payload,
        };
        let mut bytes = Vec::new();
        encode_publish(&mut bytes, version, &out);
        assert_eq!(bytes.len(), publish_len(version, &out));
        let sent =
            decode_publish(version, &bytes).unwrap_or_else(|error| panic!("{error} in what {out:?} became"));
        assert_eq!((sent.topic, sent.payload, sent.packet_id), (out.topic, out.payload, out.packet_id));
        let got = sent.routing();
        if version == Version::V5 {
            let mut again = Vec::new();
            assert_eq!((got.expiry_s, got.alias), (routing.expiry_s, None));
            assert!(got.has_subscription_id);
            assert_eq!(got.forward.bytes(&mut again), forward);
        }
    }
}

/// An error names what it expected and has a reason code that says so.
fn told(error: &DecodeError) {
    assert!(error.code.0 >= 0x80, "{error} is no error to the peer");
    assert!(error.to_string().starts_with("expected "));
}
