//! Measures what the changes bring: connections and messages of the load generator, against a broker of its own,
//! before and after.
//!
//! A figure has moved where the medians differ by more than the runs on either side differ among themselves; all
//! else is noise. What the kernel counts meanwhile says why: queues that were full, memory that was short.

use super::host::Host;
use crate::bench::measure;
use serde_json::{Value, json};

/// A figure of a run: name, unit, and where the load generator's report has it.
const FIGURES: &[(&str, &str, &str)] = &[
    ("connects", "/s", "/rates/connect: CONNECT and SUBSCRIBE/value"),
    ("all come back", "/s", "/rates/come back: CONNECT and SUBSCRIBE/value"),
    ("connect, p99", "us", "/latency/connect/p99_us"),
    ("connect, longest", "us", "/latency/connect/max_us"),
    ("delivery, p50", "us", "/latency/publish_to_delivery/p50_us"),
    ("delivery, p99", "us", "/latency/publish_to_delivery/p99_us"),
    ("delivery, p99.9", "us", "/latency/publish_to_delivery/p99.9_us"),
    ("broker CPU per message", "us", "/costs/broker CPU per message/value"),
    ("kernel memory per client, both ends", "bytes", "/rates/per client: kernel slab, both ends/value"),
];

/// What the kernel counts: name, and its own name in `/proc/net/netstat`.
const COUNTERS: &[(&str, &str)] = &[
    ("accept queue full", "ListenOverflows"),
    ("connects dropped", "ListenDrops"),
    ("retransmissions after a timeout", "TCPTimeouts"),
    ("TIME-WAIT table full", "TCPTimeWaitOverflow"),
    ("buffers pruned", "PruneCalled"),
    ("times short of TCP memory", "TCPMemoryPressures"),
];
/// Of `/proc/net/softnet_stat`, which is of the whole machine.
const DEVICE_DROPS: &str = "packets dropped before a core took them";

/// Several runs, one column for each.
#[derive(Debug)]
pub struct Runs {
    columns: Vec<Vec<f64>>,
    /// Checks of the load generator that did not hold, in its words.
    pub faults: Vec<String>,
}

/// Names and units of the rows of [`Runs`].
fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let figures = FIGURES.iter().map(|(name, unit, _)| (*name, *unit));
    figures.chain(COUNTERS.iter().map(|(name, _)| (*name, ""))).chain([(DEVICE_DROPS, "")])
}

/// Measures so many times. An error says why it could not be set up.
pub fn run(host: &Host, clients: u64, seconds: u32, shards: u64, runs: u32) -> Result<Runs, String> {
    let (mut columns, mut faults) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let before = counters(host);
        let (clients, seconds, shards) = (clients.to_string(), seconds.to_string(), shards.to_string());
        let words =
            ["million", "--quiet", "--clients", &clients, "--duration", &seconds, "--shards", &shards];
        let report = measure(&words)?;
        let failures = report["failures"].as_array().into_iter().flatten();
        faults.extend(failures.filter_map(Value::as_str).map(str::to_owned));
        let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let counted = counters(host).into_iter().zip(before).map(|(now, before)| now - before);
        columns.push(FIGURES.iter().map(|(.., path)| figure(path)).chain(counted).collect());
    }
    Ok(Runs { columns, faults })
}

/// What the kernel has counted so far, in the order of [`COUNTERS`] and [`DEVICE_DROPS`].
fn counters(host: &Host) -> Vec<f64> {
    let text = host.text("proc/net/netstat").unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("TcpExt:")).collect();
    let (names, values) = (lines.first().copied().unwrap_or(""), lines.get(1).copied().unwrap_or(""));
    let of = |name: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
    };
    COUNTERS.iter().map(|(_, name)| of(name)).chain([host.device_drops() as f64]).collect()
}

impl Runs {
    /// The runs' values of a row, ascending.
    fn row(&self, row: usize) -> Vec<f64> {
        let mut values: Vec<f64> = self.columns.iter().filter_map(|run| run.get(row).copied()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// For programs, and for a later comparison.
    pub fn to_json(&self) -> Value {
        json!({ "rows": rows().map(|(name, _)| name).collect::<Vec<_>>(), "runs": self.columns })
    }

    /// What [`Runs::to_json`] has written, by this version of the program.
    pub fn from_json(json: &Value) -> Option<Runs> {
        let names = json["rows"].as_array()?.iter().map(Value::as_str);
        if !names.eq(rows().map(|(name, _)| Some(name))) {
            return None;
        }
        // What was no number is null.
        let run = |run: &Value| -> Option<Vec<f64>> {
            Some(run.as_array()?.iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect())
        };
        let columns = json["runs"].as_array()?.iter().map(run).collect::<Option<_>>()?;
        Some(Runs { columns, faults: Vec::new() })
    }

    /// The medians, with the least and the most.
    pub fn text(&self) -> String {
        let mut out = format!("{:<40}{:>14}{:>14}{:>14}\n", "", "median", "least", "most");
        for (index, (name, unit)) in rows().enumerate() {
            let values = self.row(index);
            let (least, most) = ends(&values);
            out.push_str(&format!(
                "{name:<40}{:>14}{:>14}{:>14} {unit}\n",
                shown(median(&values)),
                shown(least),
                shown(most)
            ));
        }
        out
    }

    /// Medians before and after, and whether the difference is more than noise.
    pub fn compared(&self, after: &Runs) -> String {
        let mut out = format!("{:<40}{:>14}{:>14}\n", "", "before", "after");
        for (index, (name, unit)) in rows().enumerate() {
            let (before, after) = (self.row(index), after.row(index));
            let (a, b) = (median(&before), median(&after));
            let change = match moved(&before, &after) {
                false => "noise".to_owned(),
                true if a == 0.0 => "moved".to_owned(),
                true => format!("moved by {:+.0} %", (b - a) / a * 100.0),
            };
            out.push_str(&format!("{name:<40}{:>14}{:>14} {unit:<6} {change}\n", shown(a), shown(b)));
        }
        out
    }
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ends(sorted: &[f64]) -> (f64, f64) {
    (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
}

/// Whether the medians differ by more than the runs of either side differ among themselves.
fn moved(before: &[f64], after: &[f64]) -> bool {
    let range = |sorted: &[f64]| ends(sorted).1 - ends(sorted).0;
    (median(before) - median(after)).abs() > range(before).max(range(after))
}

fn shown(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(first: &[f64]) -> Runs {
        let others = rows().count() - 1;
        let column = |value: &f64| [vec![*value], vec![0.0; others]].concat();
        Runs { columns: first.iter().map(column).collect(), faults: Vec::new() }
    }

    #[test]
    fn what_differs_by_more_than_the_runs_do_has_moved() {
        for (before, after, expected) in [
            (&[100.0, 110.0, 105.0][..], &[120.0, 122.0, 121.0][..], "moved by +15 %"),
            (&[100.0, 130.0, 105.0], &[120.0, 122.0, 121.0], "noise"),
            (&[0.0, 0.0, 0.0], &[7.0, 8.0, 7.0], "moved"),
            (&[5.0], &[5.0], "noise"),
        ] {
            let text = runs(before).compared(&runs(after));
            assert!(
                text.lines().nth(1).is_some_and(|line| line.trim_end().ends_with(expected)),
                "{expected}: {text}"
            );
        }
    }

    #[test]
    fn runs_are_read_back() {
        let mut written = runs(&[1.0, 2.0, 3.0]);
        written.columns[0][1] = f64::NAN;
        let read = Runs::from_json(&written.to_json()).expect("what was just written");
        assert_eq!(read.text(), written.text());
        assert!(Runs::from_json(&json!({"rows": ["something else"], "runs": []})).is_none());
    }

    #[test]
    fn the_kernel_counts() {
        let here = Host::at(std::path::Path::new("/"));
        assert_eq!(counters(&here).len(), COUNTERS.len() + 1);
    }
}
