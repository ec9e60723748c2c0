//! The host tuner: `ringmq tune`.
//!
//! [`host`] reads a host, this one or a copied tree; [`demand`] computes what a configuration asks of it; a
//! table of [`knob`]s says how each is read, what it should be and why; [`check`] shows that. A [`plan`] is what
//! would be changed, which is printed as a script or done by [`apply`], with a record of the old values;
//! [`verify`] measures what that brings. Nothing is changed without being asked for.

mod apply;
mod args;
mod check;
mod demand;
mod host;
mod knob;
mod knobs;
mod plan;
mod verify;

pub use args::TuneArgs;

use apply::Done;
use args::{ApplyArgs, CheckArgs, HostArgs, RevertArgs, ScriptArgs, TuneCommand, VerifyArgs};
use demand::Demand;
use host::Host;
use knob::{Finding, Level};
use plan::Plan;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use verify::Runs;

/// Something could not be done, and the rest was.
const IN_PART: u8 = 1;
/// It could not be read or done at all.
const FAILED: u8 = 3;

/// Runs `ringmq tune`.
pub fn tune(args: &TuneArgs) -> ExitCode {
    let done = match &args.command {
        TuneCommand::Check(args) => check(args),
        TuneCommand::Script(args) => script(args),
        TuneCommand::Apply(args) => apply(args),
        TuneCommand::Revert(args) => revert(args),
        TuneCommand::Verify(args) => verify(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(line) => {
            eprintln!("ringmq tune: {line}");
            ExitCode::from(FAILED)
        }
    }
}

fn look(args: &HostArgs) -> Result<(Host, Demand, Vec<Finding>), String> {
    let host = Host::at(&args.root);
    if !host.has("proc/sys/net") {
        return Err(format!("{} has no proc/sys/net: expected a host or a copied tree", args.root.display()));
    }
    let demand = Demand::new(args, &host)?;
    let findings = knob::look(&host, &demand);
    Ok((host, demand, findings))
}

fn check(args: &CheckArgs) -> Result<u8, String> {
    let (_, demand, findings) = look(&args.host)?;
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

fn script(args: &ScriptArgs) -> Result<u8, String> {
    let (_, demand, findings) = look(&args.host)?;
    let plan = Plan::new(&findings, &args.only);
    print(&plan::script(&check::title(&demand), &plan, !args.no_files));
    Ok(0)
}

fn apply(args: &ApplyArgs) -> Result<u8, String> {
    let (host, _, findings) = look(&args.changes.host)?;
    let plan = Plan::new(&findings, &args.changes.only);
    let record = args.record.path(&args.changes.host.root);
    let done = apply::apply(&host, &plan, !args.changes.no_files, &record)?;
    let code = tell(&done);
    for line in &plan.by_hand {
        print(&format!("by hand: {line}\n"));
    }
    Ok(code)
}

fn revert(args: &RevertArgs) -> Result<u8, String> {
    Ok(tell(&apply::revert(&Host::at(&args.root), args.force, &args.record.path(&args.root))?))
}

/// Clients of a run that the usual limit of open files allows.
const VERIFY_CLIENTS: u64 = 20_000;

fn verify(args: &VerifyArgs) -> Result<u8, String> {
    let (host, demand, findings) = look(&args.changes.host)?;
    if !host.is_here() {
        return Err("verify measures this host: expected no --root".to_owned());
    }
    let clients = args.clients.unwrap_or(demand.connections.min(VERIFY_CLIENTS));
    let measure = || verify::run(&host, clients, args.duration, demand.shards, args.runs);
    let file = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let earlier = match &args.against {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| file(path, &e))?;
            let json = serde_json::from_str(&text).map_err(|e| file(path, &e))?;
            Some(
                Runs::from_json(&json)
                    .ok_or_else(|| file(path, &"expected what `verify --save` has written"))?,
            )
        }
    };
    print(&format!("{clients} clients, {} run(s), {} s of messages in each\n", args.runs, args.duration));
    let before = measure()?;
    if let Some(path) = &args.save {
        std::fs::write(path, format!("{:#}\n", before.to_json())).map_err(|e| file(path, &e))?;
    }
    if !args.apply {
        print(&earlier.map_or_else(|| before.text(), |earlier| earlier.compared(&before)));
        return Ok(faults(&before));
    }
    let record = args.record.path(&args.changes.host.root);
    if record.exists() {
        let line = "there are changes that were not reverted: expected none, so that the end is as the begin; \
                    `ringmq tune revert` first";
        return Err(file(&record, &line));
    }
    let done = apply::apply(&host, &Plan::new(&findings, &args.changes.only), false, &record)?;
    let applied = tell(&done);
    let after = measure();
    let reverted = tell(&apply::revert(&host, false, &record)?);
    let after = after?;
    print(&before.compared(&after));
    Ok(applied.max(reverted).max(faults(&before)).max(faults(&after)))
}

/// Says which checks of the load generator did not hold.
fn faults(runs: &Runs) -> u8 {
    runs.faults.iter().for_each(|fault| print(&format!("did not hold: {fault}\n")));
    if runs.faults.is_empty() { 0 } else { IN_PART }
}

fn tell(done: &Done) -> u8 {
    done.lines.iter().for_each(|line| print(&format!("{line}\n")));
    if done.failed == 0 { 0 } else { IN_PART }
}

/// A reader that went away, such as `head`, is no failure of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
