//! The load generator: `ringmq bench`.
//!
//! [`scenario`] turns arguments into a [`plan::Plan`]; a [`fleet::Fleet`] of [`worker`]s, one thread and one
//! driver each, holds the [`client`]s; [`run`] leads them through the phases; [`judge`] compares what was
//! acknowledged with what arrived; [`report`] and [`page`] say it.
//!
//! Every message carries a [`stamp`], so each delivery is checked by itself. Latency counts from the moment that
//! a message was due ([`pacer`]). Workers share nothing; they tell the coordinator by messages.

pub mod args;
mod book;
mod client;
mod dial;
mod fleet;
mod judge;
mod million;
mod pacer;
mod page;
mod plan;
mod progress;
mod report;
mod run;
mod scenario;
mod sequences;
mod stamp;
mod tally;
mod usage;
mod worker;

pub use args::{BenchArgs, Scenario};

use crate::io::IoMode;
use clap::Parser;
use plan::Plan;
use progress::Progress;
use serde_json::Value;
use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use usage::Process;

/// All checks held.
const HELD: u8 = 0;
/// Something was lost, or wrong otherwise.
const FAILED: u8 = 1;
/// It could not be set up.
const NOT_SET_UP: u8 = 2;

/// Connects of one thread under way in `million`, where all come at once.
const MILLION_PENDING: u32 = 2_048;

/// Runs `ringmq bench`. A message on `stop` ends the run early, with its report.
pub fn bench(args: &BenchArgs, stop: Receiver<()>) -> ExitCode {
    match try_bench(args, stop) {
        Ok(code) => ExitCode::from(code),
        Err(line) => {
            eprintln!("ringmq bench: {line}");
            ExitCode::from(NOT_SET_UP)
        }
    }
}

fn try_bench(args: &BenchArgs, stop: Receiver<()>) -> Result<u8, String> {
    for file in [&args.json, &args.html].into_iter().flatten().filter(|file| **file != Path::new("-")) {
        // Found out now, not after the run.
        fs::write(file, "").map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    }
    let done = perform(args, stop)?;
    let Done { args, plan, outcome } = &done;
    let title = report::title(args, plan);
    let json = || format!("{:#}\n", done.json());
    match &args.json {
        Some(file) if file == Path::new("-") => print(&json()),
        Some(file) => save(file, &json())?,
        None => {}
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        print(&report::text(&title, outcome));
    }
    if let Some(file) = &args.html {
        save(file, &page::page(&title, outcome)?)?;
    }
    Ok(if outcome.verdict.failures.is_empty() { HELD } else { FAILED })
}

/// Runs the load generator with these words of its command line, without printing, and returns its report as
/// `--json` has it.
///
/// # Errors
/// Why it could not be set up.
pub fn measure(words: &[&str]) -> Result<Value, String> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }
    let line = Line::try_parse_from(["bench"].iter().chain(words)).map_err(|e| e.to_string())?;
    // Kept until the end: nobody stops it.
    let (_end, stop) = channel();
    perform(&line.args, stop).map(|done| done.json())
}

/// A run that was set up, and its end.
struct Done<'a> {
    args: Cow<'a, BenchArgs>,
    plan: Arc<Plan>,
    outcome: run::Outcome,
}

impl Done<'_> {
    fn json(&self) -> Value {
        report::to_json(&report::title(&self.args, &self.plan), &self.args, &self.plan, &self.outcome)
    }
}

fn perform(args: &BenchArgs, stop: Receiver<()>) -> Result<Done<'_>, String> {
    let mut started = None;
    let mut args = Cow::Borrowed(args);
    if args.scenario == Scenario::Million {
        let broker = million::Broker::start(&args)?;
        let changed = args.to_mut();
        (changed.host, changed.pid) = (vec![broker.address().to_string()], Some(broker.pid()));
        changed.dial.trust_own();
        changed.pending = changed.pending.max(MILLION_PENDING);
        started = Some(broker);
    }
    let plan = scenario::plan(&args)?;
    let broker = args.pid.map(Process::new).transpose()?;
    let io = match args.io.as_str() {
        "uring" => IoMode::Uring,
        "epoll" => IoMode::Epoll,
        _ => IoMode::Auto,
    };
    let progress = Progress::new(args.quiet);
    let fleet = fleet::Fleet::start(plan, io, broker, progress, stop)?;
    let plan = Arc::clone(&fleet.plan);
    let mut outcome = run::run(&args, fleet, started.as_ref())?;
    if let Some(broker) = started {
        broker.stop(&plan, &mut outcome);
    }
    Ok(Done { args, plan, outcome })
}

/// A reader that went away, such as `head`, is no failure of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn save(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}
