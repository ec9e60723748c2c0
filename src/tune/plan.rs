//! What would be changed: values that are written at once, and drop-in files that write them at each boot.

use super::host::sysctl_path;
use super::knob::{Finding, Setting};
use std::collections::BTreeMap;

/// Where drop-in files go.
const SYSCTL_FILE: &str = "etc/sysctl.d/99-ringmq.conf";
const BOOT_FILE: &str = "etc/tmpfiles.d/99-ringmq.conf";
const LIMITS_FILE: &str = "etc/security/limits.d/99-ringmq.conf";
const UNIT_FILE: &str = "etc/systemd/system/ringmq.service.d/99-tune.conf";

/// A value to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The file, without the leading `/`.
    pub path: String,
    /// What it is called.
    pub name: String,
    /// What to write.
    pub value: String,
    /// Why, in a sentence.
    pub why: &'static str,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Values, in the order of the table.
    pub writes: Vec<Write>,
    /// Drop-in files: path without the leading `/`, and text.
    pub files: Vec<(&'static str, String)>,
    /// What remains to be done by hand, in sentences.
    pub by_hand: Vec<String>,
}

impl Plan {
    /// What makes these findings green. `only`: prefixes of knobs; none means all.
    pub fn new(findings: &[Finding], only: &[String]) -> Plan {
        let chosen = |finding: &&Finding| {
            only.is_empty() || only.iter().any(|prefix| finding.name.starts_with(prefix.as_str()))
        };
        let mut plan = Plan::default();
        // One line of each file, by what it sets: a knob's settings may name one thing twice.
        let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut add = |file, line: String| {
            let lines = files.entry(file).or_default();
            if !lines.contains(&line) {
                lines.push(line);
            }
        };
        for finding in findings.iter().filter(chosen) {
            for setting in &finding.settings {
                let (file, lines) = plan.take(finding, setting);
                lines.into_iter().for_each(|line| add(file, line));
            }
            if finding.level > super::knob::Level::Unknown && finding.settings.is_empty() {
                let note = if finding.note.is_empty() { finding.why } else { &finding.note };
                plan.by_hand.push(format!("{}: {note}", finding.name));
            }
        }
        plan.files = files.into_iter().map(|(file, lines)| (file, text(file, &lines))).collect();
        plan
    }

    /// Notes what a setting writes now, and returns the file and its lines that write it at each boot.
    fn take(&mut self, finding: &Finding, setting: &Setting) -> (&'static str, Vec<String>) {
        let mut write = |path: &str, name: &str, value: &str| {
            let (path, name, value) = (path.to_owned(), name.to_owned(), value.to_owned());
            self.writes.push(Write { path, name, value, why: finding.why });
        };
        match setting {
            Setting::Sysctl { name, value } => {
                write(&sysctl_path(name), name, value);
                (
                    SYSCTL_FILE,
                    vec![format!("# {}: {} before.", finding.name, finding.now), format!("{name} = {value}")],
                )
            }
            Setting::File { path, value } => {
                write(path, &format!("/{path}"), value);
                // Numbers of interrupts change from boot to boot.
                let lines = match path.starts_with("proc/irq/") {
                    true => Vec::new(),
                    false => vec![format!("w /{path} - - - - {value}")],
                };
                (BOOT_FILE, lines)
            }
            Setting::Limit { item, service: false, value } => {
                // limits.d counts locked memory in KiB.
                let value = if *item == "memlock" { value / 1024 } else { *value };
                let line = |who: &str| format!("{who} - {item} {value}");
                (LIMITS_FILE, vec![line("ringmq"), line("root")])
            }
            Setting::Limit { item, service: true, value } => {
                (UNIT_FILE, vec![format!("Limit{}={value}", item.to_uppercase())])
            }
            Setting::Config { key, value } => {
                self.by_hand.push(format!("in the broker's configuration: {key} = {value}"));
                (UNIT_FILE, Vec::new())
            }
        }
    }

    /// Whether there is nothing to do but what is done by hand.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.files.is_empty()
    }
}

const HEAD: &str = "# Written by `ringmq tune`; `ringmq tune revert` takes it away.";

fn text(file: &str, entries: &[String]) -> String {
    let section = if file == UNIT_FILE { "[Service]\n" } else { "" };
    format!("{HEAD}\n{section}{}\n", entries.join("\n"))
}

/// The file's text with what an earlier run has written into it and this one does not set.
pub fn merged(path: &str, old: Option<&str>, new: &str) -> String {
    let before = entries(old.unwrap_or_default());
    let now = entries(new);
    let kept = before.into_iter().filter(|entry| !now.iter().any(|set| key(set) == key(entry)));
    text(path, &kept.chain(now.iter().cloned()).collect::<Vec<_>>())
}

/// The entries of a drop-in file: a line that sets something, with the comments above it.
fn entries(text: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let mut comments = String::new();
    for line in text.lines().filter(|line| *line != HEAD && *line != "[Service]" && !line.is_empty()) {
        comments.push_str(line);
        if line.starts_with('#') {
            comments.push('\n');
        } else {
            entries.push(std::mem::take(&mut comments));
        }
    }
    entries
}

/// What an entry sets: all of its last line but the value.
fn key(entry: &str) -> &str {
    let line = entry.lines().last().unwrap_or_default();
    line.split_once('=').or_else(|| line.rsplit_once(' ')).map_or(line, |(key, _)| key.trim_end())
}

/// A script that does the same, with reasons. `ROOT` may name a copied tree.
pub fn script(title: &str, plan: &Plan, files: bool) -> String {
    let mut out = format!(
        "#!/bin/sh\n# What `ringmq tune apply` would do here, for {title}.\n# ROOT=DIR works on a copied tree.\nROOT=${{ROOT:-}}\n\
         put() {{ printf '%s\\n' \"$2\" >\"$ROOT$1\" || echo \"not changed: $1\" >&2; }}\n"
    );
    let mut why = "";
    for write in &plan.writes {
        if write.why != why {
            why = write.why;
            out.push_str(&format!("\n# {why}.\n"));
        }
        out.push_str(&format!("put '/{}' '{}'\n", write.path, write.value));
    }
    for (path, text) in plan.files.iter().filter(|_| files) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        out.push_str(&format!("\nmkdir -p \"$ROOT/{folder}\"\ncat >\"$ROOT/{path}\" <<'END'\n{text}END\n"));
    }
    if files && plan.files.iter().any(|(path, _)| *path == UNIT_FILE) {
        out.push_str("\n# The unit takes its limits when it starts again.\n[ -n \"$ROOT\" ] || systemctl daemon-reload\n");
    }
    if !plan.by_hand.is_empty() {
        out.push_str("\n# By hand:\n");
        plan.by_hand.iter().for_each(|line| out.push_str(&format!("# - {line}\n")));
    }
    if plan.is_empty() {
        out.push_str("\n# There is nothing to change.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_keeps_what_an_earlier_one_wrote() {
        for (path, first, second, both) in [
            (SYSCTL_FILE, "# a: 1 before.\na.b = 2", "c.d = 5", "# a: 1 before.\na.b = 2\nc.d = 5"),
            (SYSCTL_FILE, "# a: 1 before.\na.b = 2\nc.d = 3", "a.b = 7", "c.d = 3\na.b = 7"),
            (
                LIMITS_FILE,
                "root - nofile 5",
                "root - nofile 6\nringmq - nofile 6",
                "root - nofile 6\nringmq - nofile 6",
            ),
            (BOOT_FILE, "w /sys/a - - - - 1", "w /sys/b - - - - 1", "w /sys/a - - - - 1\nw /sys/b - - - - 1"),
            (UNIT_FILE, "LimitNOFILE=1", "LimitMEMLOCK=2", "LimitNOFILE=1\nLimitMEMLOCK=2"),
        ] {
            let lines = |text: &str| super::text(path, &[text.to_owned()]);
            assert_eq!(merged(path, Some(&lines(first)), &lines(second)), lines(both), "{path}");
            assert_eq!(merged(path, None, &lines(second)), lines(second), "{path}");
        }
    }
}
