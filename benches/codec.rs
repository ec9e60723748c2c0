//! Packets to and from bytes: what each costs a shard at the least.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmq::codec::{
    AckKind, Framed, Packet, PacketId, PublishOut, ReasonCode, Version, decode, decode_publish, encode_ack,
    encode_publish, frame,
};
use ringmq::message::QoS;
use std::hint::black_box;
use support::packets::{self, PAYLOAD_BYTES};

const VERSIONS: [(&str, Version); 2] = [("3.1.1", Version::V311), ("5.0", Version::V5)];

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, version) in VERSIONS {
        let publish = packets::publish(version, "bench/1/up", QoS::AtLeastOnce, 1, &[b'x'; PAYLOAD_BYTES]);
        let connect = packets::connect(version, "client-1");
        let subscribe = packets::subscribe(version, "bench/+/up", QoS::AtLeastOnce);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("PUBLISH {name}"), |b| {
            b.iter(|| decode_publish(version, black_box(&publish)).map(|p| p.payload.len()));
        });
        for (kind, bytes) in [("CONNECT", &connect), ("SUBSCRIBE", &subscribe)] {
            let parse = |bytes: &[u8]| match decode(version, bytes) {
                Ok(Packet::Subscribe(s)) => s.filters.iter().count(),
                Ok(Packet::Connect(c)) => c.client_id.len(),
                _ => unreachable!("the bytes are of this packet"),
            };
            group.bench_function(format!("{kind} {name}"), |b| b.iter(|| parse(black_box(bytes))));
        }
    }
    let round: Vec<u8> = (1..=16)
        .flat_map(|id| {
            packets::publish(Version::V311, "bench/1/up", QoS::AtLeastOnce, id, &[b'x'; PAYLOAD_BYTES])
        })
        .collect();
    group.throughput(Throughput::Elements(16));
    group.bench_function("a receive of 16 PUBLISH 3.1.1, frames found and decoded", |b| {
        b.iter(|| {
            let (mut rest, mut bytes) = (black_box(&round[..]), 0);
            while let Ok(Framed::Packet { total, .. }) = frame(rest, 1 << 20) {
                bytes += decode_publish(Version::V311, &rest[..total]).map_or(0, |p| p.payload.len());
                rest = &rest[total..];
            }
            bytes
        });
    });
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let mut out = Vec::with_capacity(1 << 16);
    for (name, version) in VERSIONS {
        let publish = PublishOut {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            packet_id: Some(PacketId::MIN),
            topic: "bench/1/up",
            alias: None,
            expiry_s: None,
            subscription_ids: &[],
            forward: &[],
            payload: &[b'x'; PAYLOAD_BYTES],
        };
        group.bench_function(format!("PUBLISH {name}"), |b| {
            b.iter(|| {
                out.clear();
                encode_publish(&mut out, version, black_box(&publish));
                out.len()
            });
        });
        group.bench_function(format!("PUBACK {name}"), |b| {
            b.iter(|| {
                out.clear();
                encode_ack(&mut out, version, AckKind::PubAck, black_box(PacketId::MIN), ReasonCode::SUCCESS);
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
