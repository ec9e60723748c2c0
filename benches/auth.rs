//! What a check of rules costs, with 1,000 of them.

use criterion::{Criterion, criterion_group, criterion_main};
use ringmq::auth::{Acl, Client, Deed};
use ringmq::message::QoS;
use ringmq::topic::Filter;
use std::fmt::Write;
use std::hint::black_box;

const RULES: usize = 1_000;

/// Rules that each add a table like this.
fn rules(of: impl Fn(usize) -> String) -> Acl {
    let mut text = String::new();
    for n in 0..RULES {
        let _ = write!(text, "[[rule]]\n{}\n", of(n));
    }
    Acl::read("bench.toml", &text).expect("rules")
}

fn checks(c: &mut Criterion) {
    let mut group = c.benchmark_group("acl of 1,000 rules");
    let client = Client { id: "client-77", user: Some("user-700"), from: Some([10, 0, 0, 1].into()) };
    let publish = |topic| Deed::Publish { topic, qos: QoS::AtLeastOnce, retain: false };
    let cases = [
        ("by topic", rules(|n| format!("allow = \"all\"\ntopics = \"site/{n}/up\"")), "site/700/up", true),
        (
            "by topic with +",
            rules(|n| format!("allow = \"all\"\ntopics = \"site/{n}/+/up\"")),
            "site/700/a/up",
            true,
        ),
        (
            "by user",
            rules(|n| format!("allow = \"all\"\nuser = \"user-{n}\"\ntopics = \"site/#\"")),
            "site/a/up",
            true,
        ),
        (
            "by user and topic",
            rules(|n| format!("allow = \"all\"\nuser = \"user-{n}\"\ntopics = \"site/{n}/#\"")),
            "site/700/up",
            true,
        ),
        (
            "by client in the topic",
            rules(|n| format!("allow = \"all\"\ntopics = \"site/{n}/%c\"")),
            "site/700/client-77",
            true,
        ),
        (
            "none applies",
            rules(|n| format!("allow = \"all\"\ntopics = \"site/{n}/up\"")),
            "else/where/up",
            false,
        ),
    ];
    for (name, acl, topic, may) in &cases {
        assert_eq!(acl.allows(&client, &publish(topic)), *may, "{name}");
        group.bench_function(format!("publish, {name}"), |b| {
            b.iter(|| acl.allows(black_box(&client), &publish(black_box(topic))));
        });
    }
    let filter = Filter::new("site/700/+", 0).expect("a filter");
    group.bench_function("subscribe with a wildcard", |b| {
        b.iter(|| cases[0].1.allows(black_box(&client), &Deed::Subscribe { filter, qos: QoS::AtMostOnce }));
    });
    group.finish();
}

criterion_group!(benches, checks);
criterion_main!(benches);
