//! The host tuner: `ringmq tune`.
//!
//! [`host`] reads a host, this one or a copied tree; [`demand`] computes what a configuration asks of it; a
//! table of [`knob`]s says how each is read, what it should be and why; [`check`] shows that.

mod args;
mod check;
mod demand;
mod host;
mod knob;
mod knobs;

pub use args::TuneArgs;

use args::{CheckArgs, TuneCommand};
use demand::Demand;
use host::Host;
use knob::Level;
use std::io::IsTerminal;
use std::process::ExitCode;

/// It could not be read or done at all.
const FAILED: u8 = 3;

/// Runs `ringmq tune`.
pub fn tune(args: &TuneArgs) -> ExitCode {
    let done = match &args.command {
        TuneCommand::Check(args) => check(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(line) => {
            eprintln!("ringmq tune: {line}");
            ExitCode::from(FAILED)
        }
    }
}

fn check(args: &CheckArgs) -> Result<u8, String> {
    let root = &args.host.root;
    if !Host::at(root).has("proc/sys/net") {
        return Err(format!("{} has no proc/sys/net: expected a host or a copied tree", root.display()));
    }
    let demand = Demand::new(&args.host, &Host::at(root))?;
    let findings = knob::look(root, &demand);
    if args.json {
        print(&format!("{:#}\n", check::json(&demand, &findings)));
    } else {
        print(&check::text(&demand, &findings, args.why, std::io::stdout().is_terminal()));
    }
    Ok(match check::worst(&findings) {
        Level::Green | Level::Unknown => 0,
        Level::Yellow => 1,
        Level::Red => 2,
    })
}

/// A reader that went away, such as `head`, is no failure of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
