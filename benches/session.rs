//! MQTT's rules for one client: deliveries into the window and the queue, acknowledgements, resume.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringmq::codec::{AckKind, PacketId, ReasonCode, Version};
use ringmq::message::{Head, Message, MessageRef, QoS};
use ringmq::session::{Carried, Ctx, Link, Offer, Options, Pool, Session, Stored};
use ringmq::stats::{Counters, Gauges, Ledger, Memory, Recorder, Source};
use ringmq::time::Moment;
use std::time::Duration;

/// What a session needs around it.
struct Around {
    options: Options,
    counters: Counters,
    gauges: Gauges,
    recorder: Recorder,
    ledger: Ledger,
    memory: Memory,
    pool: Pool,
    done: Vec<Stored>,
}

impl Around {
    fn new() -> Around {
        let (counters, gauges, recorder, ledger, memory, pool, done) = Default::default();
        Around { options: Options::default(), counters, gauges, recorder, ledger, memory, pool, done }
    }

    fn ctx(&mut self) -> Ctx<'_> {
        let Around { options, counters, gauges, recorder, ledger, memory, pool, done } = self;
        Ctx { now: Moment(1), options, counters, gauges, recorder, ledger, memory, pool, done }
    }
}

fn message(qos: QoS) -> Message {
    let head = Head::new(qos, false, 1, Source::Client);
    Message::new(&MessageRef { topic: "bench/1/up", properties: &[], payload: &[b'x'; 64], head })
}

fn offer(session: &mut Session, link: Option<&mut Link>, message: &Message, qos: QoS, around: &mut Around) {
    let mut carried = Carried::kept(message);
    let offer = Offer {
        message: &mut carried,
        qos,
        retain: false,
        ids: &[],
        group: 0,
        source: Source::Client,
        stored: (0, 0),
    };
    session.deliver(offer, link, &mut around.ctx());
}

fn deliveries(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(32));
    let mut around = Around::new();
    let mut session = Session::new("client", 1, Moment::default());
    let mut link = Link::new(Version::V311, 32, u32::MAX, 0);
    for (name, qos, steps) in [
        ("32 deliveries, QoS 0", QoS::AtMostOnce, &[][..]),
        ("32 deliveries and PUBACKs, QoS 1", QoS::AtLeastOnce, &[AckKind::PubAck]),
        (
            "32 deliveries, PUBRECs and PUBCOMPs, QoS 2",
            QoS::ExactlyOnce,
            &[AckKind::PubRec, AckKind::PubComp],
        ),
    ] {
        let message = message(qos);
        let mut id = 0u16;
        group.bench_function(name, |b| {
            b.iter(|| {
                link.out.clear();
                for _ in 0..32 {
                    offer(&mut session, Some(&mut link), &message, qos, &mut around);
                }
                let first = id;
                for kind in steps {
                    id = first;
                    for _ in 0..32 {
                        id = if id == u16::MAX { 1 } else { id + 1 };
                        let acknowledged = PacketId::new(id).expect("identifiers begin at 1");
                        let outgoing = session.outgoing.as_mut().expect("something is in flight");
                        outgoing.handle_ack(*kind, acknowledged, ReasonCode::SUCCESS, &mut around.ctx());
                    }
                }
            });
        });
        session = Session::new("client", 1, Moment::default());
    }
    group.throughput(Throughput::Elements(1_000));
    let kept = message(QoS::AtLeastOnce);
    group.bench_function("queue 1,000 messages for an offline session", |b| {
        b.iter_batched_ref(
            || Session::new("client", 1, Moment::default()),
            |session| {
                for _ in 0..1_000 {
                    offer(session, None, &kept, QoS::AtLeastOnce, &mut around);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("resume with 1,000 queued messages: fill the window", |b| {
        b.iter_batched_ref(
            || {
                let mut session = Session::new("client", 1, Moment::default());
                for _ in 0..1_000 {
                    offer(&mut session, None, &kept, QoS::AtLeastOnce, &mut around);
                }
                (session, Link::new(Version::V311, 32, u32::MAX, 0))
            },
            |(session, link)| session.pump(link, &mut Around::new().ctx()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, deliveries);
criterion_main!(benches);
