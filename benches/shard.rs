//! A whole tick: receive, decode, route, deliver, acknowledge, one send per connection, without a kernel.
//!
//! One element is one delivery with everything that belongs to it: the PUBLISH in, and at QoS 1 and 2 both
//! sides' acknowledgements. What clients do is not counted.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::message::QoS;
use std::time::Duration;
use support::rig::{Flow, Rig};

fn ticks(c: &mut Criterion) {
    let flows = [
        ("p2p 100:100", "QoS 0", Flow::pairs(100, QoS::AtMostOnce, 16)),
        ("p2p 100:100", "QoS 1", Flow::pairs(100, QoS::AtLeastOnce, 16)),
        ("p2p 100:100", "QoS 2", Flow::pairs(100, QoS::ExactlyOnce, 16)),
        ("p2p 1:1, one message a tick", "QoS 1", Flow::pairs(1, QoS::AtLeastOnce, 1)),
        ("fan-out 1:1000", "QoS 0", Flow::fan_out(1000)),
        ("shared 1000:5", "QoS 1", Flow::shared(1000, 5)),
    ];
    let mut group = c.benchmark_group("shard");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, qos, flow) in flows {
        group.throughput(Throughput::Elements(flow.deliveries as u64));
        let mut rig = Rig::new(flow);
        group.bench_function(BenchmarkId::new(name, qos), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| rig.round()).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, ticks);
criterion_main!(benches);
