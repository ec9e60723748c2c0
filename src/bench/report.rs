//! The report: as text, as JSON.

use super::args::BenchArgs;
use super::dial::Protocol;
use super::plan::{Pace, Plan};
use super::run::Outcome;
use super::tally::Span;
use hdrhistogram::Histogram;
use serde_json::{Map as Object, Value, json};

/// Quantiles that reports show.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// A named value with its unit.
pub type Line = (String, f64, &'static str);

/// What the broker and the load cost.
pub fn costs(outcome: &Outcome) -> Vec<Line> {
    let Some((before, after)) = outcome.broker else { return outcome.connect_costs.clone() };
    let messages = (outcome.window.received.max(outcome.window.published)) as f64;
    let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
    let mut lines = vec![("broker CPU".to_owned(), 100.0 * after.cores_since(&before), "% of a core")];
    if messages > 0.0 {
        lines.push(("broker CPU per message".to_owned(), cpu_ns / 1000.0 / messages, "us"));
    }
    lines.extend(outcome.connect_costs.iter().cloned());
    lines.push(("broker memory".to_owned(), after.rss_kib as f64, "KiB"));
    lines.push(("broker memory, peak".to_owned(), after.peak_kib as f64, "KiB"));
    lines
}

/// The rates of what was measured.
pub fn rates(outcome: &Outcome) -> Vec<Line> {
    let (window, seconds) = (&outcome.window, outcome.window_s.max(1e-9));
    let per_s = |name: &str, count: u64| (name.to_owned(), count as f64 / seconds, "/s");
    let mut lines = Vec::new();
    let (connects, connects_s) = outcome.connects;
    if connects > 0 {
        lines.push(("connects".to_owned(), connects as f64 / connects_s.max(1e-9), "/s"));
    }
    for (name, count) in [
        ("published", window.published),
        ("acknowledged", window.acknowledged),
        ("received", window.received),
        ("payload received, bytes", window.received_bytes),
    ] {
        if count > 0 {
            lines.push(per_s(name, count));
        }
    }
    lines.extend(outcome.extra.iter().map(|(name, value, unit)| ((*name).to_owned(), *value, *unit)));
    lines.extend(outcome.ledger.iter().cloned());
    lines
}

/// Counts of the whole run that say whether it was right.
pub fn checks(outcome: &Outcome) -> Vec<(&'static str, u64)> {
    let (total, verdict) = (&outcome.total, &outcome.verdict);
    vec![
        ("published", total.published),
        ("acknowledged", total.acknowledged),
        ("deliveries that were due", total.expected),
        ("delivered", total.delivered),
        ("lost, acknowledged", verdict.lost_acknowledged),
        ("lost, QoS 0", verdict.lost_qos0),
        ("not acknowledged", verdict.unacknowledged),
        ("missing, of other runs", verdict.gaps),
        ("duplicates", total.duplicates),
        ("redelivered, QoS 2", total.redelivered),
        ("out of order", total.out_of_order),
        ("misrouted", total.misrouted),
        ("corrupt", total.corrupt),
        ("of others", total.foreign),
        ("connects", total.connected),
        ("reconnects", total.reconnects),
        ("lost connections", total.disconnects),
        ("PINGREQ", total.pings),
        ("PINGRESP", total.pongs),
        ("TLS sessions resumed", total.tls_resumed),
        ("window stalls", total.stalls),
        ("sent more than 2 ms late", total.lagging),
    ]
}

/// Number with separators, or with digits behind the point where it is small.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// A latency in a unit that suits it.
pub fn latency(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// What was done, in one line.
pub fn title(args: &BenchArgs, plan: &Plan) -> String {
    let scenario = format!("{:?}", args.scenario).to_lowercase();
    let mut parts = vec![format!("{scenario}: {} clients", number(f64::from(plan.clients())))];
    if let Some(flow) = plan.flows.first() {
        parts.push(format!("{} publishers, {} subscribers", flow.pubs.len(), flow.subs.len()));
        parts.push(format!("QoS {}", flow.qos as u8));
        parts.push(match flow.pace {
            Pace::Open { rate } => format!("open loop at {}/s", number(rate)),
            Pace::Closed { window, .. } => format!("closed loop, window {window}"),
        });
        parts.push(
            args.message.as_ref().map_or_else(|| format!("{} bytes", args.size), |_| "a template".into()),
        );
    }
    parts.push(match args.dial.kind() {
        Protocol::Mqtt => format!("MQTT {}", args.version),
        Protocol::Mqtts => format!("MQTT {} in TLS", args.version),
        Protocol::Ws => format!("MQTT {} in WebSocket", args.version),
        Protocol::Wss => format!("MQTT {} in WebSocket in TLS", args.version),
    });
    parts.join(", ")
}

/// The report as text.
pub fn text(title: &str, outcome: &Outcome) -> String {
    let mut out = format!("{title}\n");
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(format!("measured: {:.2} s; generator: {}", outcome.window_s, outcome.driver));
    line(String::new());
    for (name, value, unit) in rates(outcome).into_iter().chain(costs(outcome)) {
        line(format!("{name:<32} {:>16} {unit}", number(value)));
    }
    line(String::new());
    let heads: Vec<String> = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
    line(format!("{:<22} {:>10} {}", "latency", "count", heads.join(" ")));
    for span in Span::ALL {
        let histogram = outcome.latencies.of(span);
        if !histogram.is_empty() {
            let values = QUANTILES.iter().map(|(_, q)| format!("{:>10}", latency(at(histogram, *q))));
            let values: Vec<String> = values.collect();
            let name = span.name().replace('_', " ");
            line(format!("{name:<22} {:>10} {}", histogram.len(), values.join(" ")));
        }
    }
    line(String::new());
    for (name, count) in
        checks(outcome).into_iter().filter(|(name, count)| *count > 0 || name.starts_with("lost"))
    {
        line(format!("{name:<32} {:>16}", number(count as f64)));
    }
    for (cause, count) in &outcome.causes {
        line(format!("error: {:<25} {:>16}", cause.to_string(), number(*count as f64)));
    }
    line(String::new());
    line(match outcome.verdict.failures.as_slice() {
        [] if outcome.stopped => "stopped early; all checks held until then".to_owned(),
        [] => "all checks held".to_owned(),
        failures => format!("FAILED: {}", failures.join("; ")),
    });
    out
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    if quantile >= 1.0 { histogram.max() } else { histogram.value_at_quantile(quantile) }
}

/// The report as JSON. Latencies are in microseconds, names as in the text.
pub fn to_json(title: &str, args: &BenchArgs, plan: &Plan, outcome: &Outcome) -> Value {
    let named = |lines: Vec<Line>| {
        let value = |(name, value, unit): Line| (name, json!({ "value": value, "unit": unit }));
        Value::Object(lines.into_iter().map(value).collect::<Object<_, _>>())
    };
    let counts = |counts: Vec<(&'static str, u64)>| {
        Value::Object(counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect())
    };
    let latencies =
        Span::ALL.into_iter().filter(|span| !outcome.latencies.of(*span).is_empty()).map(|span| {
            let histogram = outcome.latencies.of(span);
            let mut object = Object::new();
            object.insert("count".into(), histogram.len().into());
            object.insert("min_us".into(), (histogram.min() as f64 / 1e3).into());
            object.insert("mean_us".into(), (histogram.mean() / 1e3).into());
            for (name, quantile) in QUANTILES {
                object.insert(format!("{name}_us"), (at(histogram, quantile) as f64 / 1e3).into());
            }
            (span.name().to_owned(), Value::Object(object))
        });
    let rows = outcome.rows.iter().map(|row| {
        json!({
            "at_s": row.at_s,
            "phase": row.phase,
            "online": row.online,
            "connects_per_s": row.rates[0],
            "published_per_s": row.rates[1],
            "received_per_s": row.rates[2],
            "errors": row.errors,
            "p50_us": row.latency_ns.map(|l| l[0] as f64 / 1e3),
            "p99_us": row.latency_ns.map(|l| l[1] as f64 / 1e3),
            "max_us": row.latency_ns.map(|l| l[2] as f64 / 1e3),
            "broker_cores": row.cores.0,
            "generator_cores": row.cores.1,
            "broker_rss_kib": row.rss_kib,
        })
    });
    let causes = outcome.causes.iter().map(|(cause, count)| (cause.to_string(), Value::from(*count)));
    json!({
        "title": title,
        "scenario": format!("{:?}", args.scenario).to_lowercase(),
        "transport": args.dial.kind().kind(),
        "version": env!("CARGO_PKG_VERSION"),
        "clients": plan.clients(),
        "seconds": outcome.window_s,
        "rates": named(rates(outcome)),
        "costs": named(costs(outcome)),
        "latency": Value::Object(latencies.collect()),
        "checks": counts(checks(outcome)),
        "counters": counts(outcome.total.iter().collect()),
        "errors": Value::Object(causes.collect()),
        "failures": outcome.verdict.failures,
        "stopped": outcome.stopped,
        "driver": outcome.driver,
        "rows": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let shown = [0.0, 5.0, 1.234, 999.0, 1000.0, 1_234_567.0, -1234.0].map(number);
        assert_eq!(shown, ["0", "5", "1.23", "999", "1,000", "1,234,567", "-1,234"]);
        assert_eq!(
            [999, 1_500_000, 25_000_000, 61_000_000_000].map(latency),
            ["1 us", "1500 us", "25.0 ms", "61.0 s"]
        );
    }
}
