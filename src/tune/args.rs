//! The arguments of `ringmq tune`.

use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  ringmq tune check                                what this host lacks for the configured broker
  ringmq tune check --connections 1000000 --why    for a million clients, with every reason
  ringmq tune check --json                         for programs
  ringmq tune script                               what `apply` would do, as a shell script with reasons
  ringmq tune apply --only net.                    does it, for the knobs whose names begin so
  ringmq tune revert                               restores what was there before
  ringmq tune verify --apply --only net.           measures before and after it, and takes it back

Exit codes of check: 0 nothing to do; 1 something yellow; 2 something red; of the others: 0 all was done; 1 something
could not be done, and the rest was; of all: 3 the host or the record of changes could not be read.";

/// Looks at a host, says what it lacks for so many clients, and changes it if asked to.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TuneCommand,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum TuneCommand {
    /// Prints each knob: what it is now, what it should be for this configuration, and why. Changes nothing.
    Check(CheckArgs),
    /// Prints a shell script that does what `apply` would do, with reasons. Changes nothing.
    Script(ScriptArgs),
    /// Changes what is not green, writes files that do so at each boot, and records the old values.
    Apply(ApplyArgs),
    /// Restores the values and files that `apply` has recorded.
    Revert(RevertArgs),
    /// Measures connections and messages against a broker of its own; with --apply before and after the changes,
    /// which are taken back at the end.
    Verify(VerifyArgs),
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Which host, for what.
    #[command(flatten)]
    pub host: HostArgs,
    /// Writes the table as JSON.
    #[arg(long)]
    pub json: bool,
    /// Says why for everything, not only for what is not green.
    #[arg(long)]
    pub why: bool,
}

/// Which changes.
#[derive(Args, Clone, Debug)]
pub struct ScriptArgs {
    /// Which host, for what.
    #[command(flatten)]
    pub host: HostArgs,
    /// Only knobs whose names begin so, such as net. May be repeated.
    #[arg(long, value_name = "PREFIX")]
    pub only: Vec<String>,
    /// Without the drop-in files below /etc: what is changed holds until the next boot.
    #[arg(long)]
    pub no_files: bool,
}

/// Arguments of `apply`.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// Which changes.
    #[command(flatten)]
    pub changes: ScriptArgs,
    /// Where the old values are recorded.
    #[command(flatten)]
    pub record: RecordArgs,
}

/// Arguments of `revert`.
#[derive(Args, Clone, Debug)]
pub struct RevertArgs {
    /// Also values that somebody else has changed since.
    #[arg(long)]
    pub force: bool,
    /// A tree with copies of a host's /proc, /sys and /etc in place of this one.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where the old values are recorded.
    #[command(flatten)]
    pub record: RecordArgs,
}

/// Arguments of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Which changes, with --apply. Files below /etc are left alone in any case.
    #[command(flatten)]
    pub changes: ScriptArgs,
    /// Clients of each run [default: --connections, 20000 at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    pub clients: Option<u64>,
    /// Seconds of messages in each run.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub duration: u32,
    /// Runs on each side; what differs among them is noise.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Changes the host in between, and takes that back at the end.
    #[arg(long)]
    pub apply: bool,
    /// Compares with what an earlier run has saved.
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub against: Option<PathBuf>,
    /// Saves what was measured (with --apply: before it).
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Where the old values are recorded.
    #[command(flatten)]
    pub record: RecordArgs,
}

/// Where the old values are recorded.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The record of old values [default: /var/lib/ringmq/tune.json, below --root].
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

impl RecordArgs {
    /// Its path.
    pub fn path(&self, root: &Path) -> PathBuf {
        self.record.clone().unwrap_or_else(|| root.join("var/lib/ringmq/tune.json"))
    }
}

/// Which host, and what is asked of it.
#[derive(Args, Clone, Debug, Default)]
pub struct HostArgs {
    /// Clients at a time [default: broker.max_connections of the configuration, else 100000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub connections: Option<u64>,
    /// Cores for the broker [default: those that it may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub cores: Option<u64>,
    /// Shards [default: of the configuration].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub shards: Option<u64>,
    /// Memory for the broker and its sockets, such as 16G [default: that of the machine or control group].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory: Option<u64>,
    /// The broker's configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A tree with copies of a host's /proc, /sys and /etc in place of this one.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// A number of bytes, with or without K, M, G or T (of 1024).
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift =
        match text[digits.len()..].trim().to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            unit => return Err(format!("expected bytes with K, M, G or T or without, got {unit:?}")),
        };
    let number: u64 = digits.parse().map_err(|_| "expected bytes, such as 16G".to_owned())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes >= 1 << 20).ok_or("expected 1M or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_with_units() {
        for (text, expected) in
            [("16G", 16 << 30), ("512MiB", 512 << 20), ("1048576", 1 << 20), ("2 TB", 2 << 40)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "12X", "5", "99999999999T", "-1G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
