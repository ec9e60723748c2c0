//! What `check` prints: a table for people, JSON for programs.

use super::demand::{Demand, Driver};
use super::knob::{Finding, Level, Setting};
use serde_json::{Value, json};

/// The columns' widths at most; what is longer pushes the next ones.
const NAME: usize = 32;
const NOW: usize = 26;

/// The worst level.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Green)
}

/// The table. Reasons stand below what is not green, or with `why` below everything.
pub fn text(demand: &Demand, findings: &[Finding], why: bool, colour: bool) -> String {
    let mut out = format!("{}\n", title(demand));
    let mut group = "";
    for finding in findings {
        if finding.group != group {
            group = finding.group;
            out.push_str(&format!("\n{group:<8}{:<NAME$}  {:<NOW$}  wanted\n", "", "now"));
        }
        let mark = format!("{:<8}", finding.level.name());
        let mark = if colour { painted(finding.level, &mark) } else { mark };
        let (name, now, wanted) = (finding.name, &finding.now, &finding.wanted);
        out.push_str(format!("{mark}{name:<NAME$}  {now:<NOW$}  {wanted}").trim_end());
        out.push('\n');
        if why || finding.level > Level::Green {
            for line in [finding.why, finding.note.as_str()].into_iter().filter(|line| !line.is_empty()) {
                out.push_str(&format!("          {line}\n"));
            }
            for line in finding.settings.iter().filter_map(told) {
                out.push_str(&format!("          {line}\n"));
            }
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (green, yellow, red) = (count(Level::Green), count(Level::Yellow), count(Level::Red));
    let unknown = count(Level::Unknown);
    out.push_str(&format!("\n{green} green, {yellow} yellow, {red} red"));
    if unknown > 0 {
        out.push_str(&format!(", {unknown} that cannot be read"));
    }
    out.push('\n');
    out
}

/// What the operator does by hand.
fn told(setting: &Setting) -> Option<String> {
    match setting {
        Setting::Config { key, value } => Some(format!("in the broker's configuration: {key} = {value}")),
        _ => None,
    }
}

/// What is asked for, in a line.
pub fn title(demand: &Demand) -> String {
    let driver = match demand.driver {
        Driver::Uring => "io_uring",
        Driver::Epoll => "epoll",
    };
    let (connections, shards, cores) = (demand.connections, demand.shards, demand.cores.len());
    format!(
        "{connections} connections, {shards} shard(s), {cores} core(s), {} MiB, {driver}",
        demand.memory >> 20
    )
}

fn painted(level: Level, text: &str) -> String {
    let code = match level {
        Level::Green => 32,
        Level::Unknown => 36,
        Level::Yellow => 33,
        Level::Red => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// For programs.
pub fn json(demand: &Demand, findings: &[Finding]) -> Value {
    let rows: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "knob": finding.name,
                "group": finding.group,
                "now": finding.now,
                "wanted": finding.wanted,
                "severity": finding.level.name(),
                "why": finding.why,
                "note": finding.note,
                "set": finding.settings.iter().map(setting).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "connections": demand.connections,
        "shards": demand.shards,
        "cores": demand.cores,
        "memory_bytes": demand.memory,
        "io": if demand.driver == Driver::Uring { "uring" } else { "epoll" },
        "severity": worst(findings).name(),
        "knobs": rows,
    })
}

fn setting(setting: &Setting) -> Value {
    match setting {
        Setting::Sysctl { name, value } => json!({"sysctl": name, "value": value}),
        Setting::File { path, value } => json!({"file": format!("/{path}"), "value": value}),
        Setting::Limit { item, service, value } => json!({"limit": item, "service": service, "value": value}),
        Setting::Config { key, value } => json!({"config": key, "value": value}),
    }
}
