//! `ringmq store`: looks at the store of a broker, copies it, and saves what can be saved. JSON lines on the
//! standard output, one object each; what people need to know beside that on the standard error.

mod rows;

use crate::store::{Change, Damage, Engine, Fault, FaultKind, Figures, LogEngine, backup};
use clap::{Args, Subcommand};
use rows::{change_of, row_of};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do with a store.
#[derive(Args, Debug)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Reads every byte of a store and says what is damaged: exits with 1 where something is. The broker is stopped.
    Check {
        /// The store: the folder "store" of the broker's data folder.
        folder: PathBuf,
    },
    /// What a store holds, and the bytes of it. The broker is stopped.
    Stats {
        /// The store.
        folder: PathBuf,
    },
    /// Prints everything that is kept, a line each. The broker is stopped.
    Export {
        /// The store.
        folder: PathBuf,
    },
    /// Makes a store from what export printed, on the standard input.
    Import {
        /// An empty folder, or one that is not there.
        folder: PathBuf,
    },
    /// Copies a store, also while the broker runs.
    Backup {
        /// The store.
        folder: PathBuf,
        /// An empty folder, or one that is not there.
        to: PathBuf,
    },
    /// Saves what can be read of a damaged store into a new one, and says what is gone. The broker is stopped.
    Salvage {
        /// The store.
        folder: PathBuf,
        /// An empty folder, or one that is not there.
        to: PathBuf,
    },
}

/// Bytes of changes that are committed at once.
const COMMIT_BYTES: usize = crate::limits::STORE_GROUP_BYTES_MAX;

/// Runs the command.
pub fn storectl(args: &StoreArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match run(&args.command, &mut std::io::stdin().lock(), &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            // What was printed before is part of the answer.
            let _ = out.flush();
            eprintln!("ringmq: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is whole.
fn run(command: &Command, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<bool, Fault> {
    match command {
        Command::Check { folder } => check(folder, out),
        Command::Stats { folder } => {
            print(out, &figures(&there(folder)?.figures()))?;
            Ok(true)
        }
        Command::Export { folder } => export(folder, out),
        Command::Import { folder } => {
            let count = import(&mut new(folder)?, input)?;
            eprintln!("ringmq: {count} lines are in {}", folder.display());
            Ok(true)
        }
        Command::Backup { folder, to } => {
            let bytes = backup(folder, to)?;
            let engine = LogEngine::open(to)?;
            print(out, &json!({"backup": to.display().to_string(), "bytes": bytes}))?;
            print(out, &figures(&engine.figures()))?;
            Ok(engine.damages().is_empty())
        }
        Command::Salvage { folder, to } => salvage(folder, to, out),
    }
}

fn check(folder: &Path, out: &mut dyn Write) -> Result<bool, Fault> {
    known(folder)?;
    let mut engine = LogEngine::salvage(folder)?;
    engine.export(&mut |_| Ok(()))?;
    for damage in engine.damages() {
        print(out, &damaged(damage))?;
    }
    print(out, &figures(&engine.figures()))?;
    Ok(engine.damages().is_empty())
}

fn export(folder: &Path, out: &mut dyn Write) -> Result<bool, Fault> {
    let mut engine = there(folder)?;
    print(out, &json!({"starts": engine.starts() - 1}))?;
    engine.export(&mut |change| print(out, &row_of(&change)))?;
    for damage in engine.damages() {
        eprintln!("ringmq: {damage}");
    }
    Ok(engine.damages().is_empty())
}

fn import(engine: &mut LogEngine, input: &mut dyn BufRead) -> Result<u64, Fault> {
    let mut gathered = Gathered::default();
    let mut count = 0;
    for line in input.lines() {
        let line =
            line.map_err(|error| Fault::new(FaultKind::Disk, format!("the input cannot be read: {error}")))?;
        count += 1;
        let wrong = |what: &str| Fault::new(FaultKind::Damaged, format!("line {count}: {what}"));
        let row: Value =
            serde_json::from_str(&line).map_err(|error| wrong(&format!("it is not JSON: {error}")))?;
        match row.get("starts").and_then(Value::as_u64) {
            Some(starts) if count == 1 => engine.go_on_from(starts),
            _ => gathered.add(engine, change_of(&row).map_err(|what| wrong(&what))?)?,
        }
    }
    gathered.commit(engine)?;
    Ok(count)
}

fn salvage(folder: &Path, to: &Path, out: &mut dyn Write) -> Result<bool, Fault> {
    known(folder)?;
    let mut from = LogEngine::salvage(folder)?;
    let mut copy = new(to)?;
    copy.go_on_from(from.starts());
    let mut gathered = Gathered::default();
    from.export(&mut |change| gathered.add(&mut copy, change))?;
    gathered.commit(&mut copy)?;
    for damage in from.damages() {
        print(out, &damaged(damage))?;
    }
    print(out, &figures(&copy.figures()))?;
    eprintln!(
        "ringmq: what can be read of {} is in {}; put it in the place of the other to start the broker with it",
        folder.display(),
        to.display()
    );
    Ok(from.damages().is_empty())
}

/// Changes on their way into a store.
#[derive(Default)]
struct Gathered {
    changes: Vec<Change>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, engine: &mut LogEngine, change: Change) -> Result<(), Fault> {
        self.bytes += change.weight();
        self.changes.push(change);
        if self.bytes >= COMMIT_BYTES { self.commit(engine) } else { Ok(()) }
    }

    fn commit(&mut self, engine: &mut LogEngine) -> Result<(), Fault> {
        engine.commit(&self.changes)?;
        *self = Gathered::default();
        Ok(())
    }
}

/// A store that is there.
fn there(folder: &Path) -> Result<LogEngine, Fault> {
    known(folder)?;
    LogEngine::open(folder)
}

/// A store that is to be made.
fn new(folder: &Path) -> Result<LogEngine, Fault> {
    let used = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        let text = format!("expected an empty folder, {} has something in it", folder.display());
        return Err(Fault::new(FaultKind::Busy, text));
    }
    LogEngine::open(folder)
}

fn known(folder: &Path) -> Result<(), Fault> {
    let lock = folder.join("lock");
    if lock.is_file() || std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_segment)) {
        return Ok(());
    }
    let text = format!(
        "expected a store in {}, found none; it is the folder \"store\" of the broker's data folder (--data-dir)",
        folder.display()
    );
    Err(Fault::new(FaultKind::Disk, text))
}

fn is_segment(entry: std::fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|extension| extension == "log")
}

fn figures(figures: &Figures) -> Value {
    json!({
        "sessions": figures.sessions, "queues": figures.queues, "messages": figures.entries,
        "bodies": figures.bodies, "retained": figures.retained, "meta": figures.meta,
        "bytes_live": figures.bytes_live, "bytes_disk": figures.bytes_disk,
        "bytes_memory": figures.bytes_memory, "damaged": figures.damaged,
    })
}

fn damaged(damage: &Damage) -> Value {
    json!({
        "damaged": damage.to_string(), "segment": damage.segment, "offset": damage.offset,
        "bytes": damage.bytes, "commits": damage.groups.map(|(first, last)| [first, last]),
    })
}

/// A reader that went away is a fault of its own: the rest was not printed.
fn print(out: &mut dyn Write, row: &Value) -> Result<(), Fault> {
    writeln!(out, "{row}")
        .map_err(|error| Fault::new(FaultKind::Disk, format!("the answer cannot be printed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(command: &Command, input: &str) -> Result<(bool, String), Fault> {
        let mut out = Vec::new();
        let whole = run(command, &mut input.as_bytes(), &mut out)?;
        Ok((whole, String::from_utf8(out).expect("JSON is text")))
    }

    #[test]
    fn a_store_is_exported_imported_copied_and_saved() {
        let base = std::env::temp_dir().join(format!("ringmq-storectl-{}", std::process::id()));
        let at = |name: &str| base.join(name);
        let mut engine = LogEngine::open(&at("a")).unwrap();
        let changes = [
            Change::PutBody { id: 3, bytes: Box::from(*b"\0body") },
            Change::Push { queue: 1, seq: 2, body: Some(3), bytes: Box::from(*b"own") },
            Change::Push { queue: 1, seq: 5, body: None, bytes: Box::from([255]) },
            Change::PutSession { id: 1, bytes: Box::from(*b"session") },
            Change::SetRetained { topic: "a/ü".into(), bytes: Box::from(*b"r") },
            Change::PutMeta { key: "k".into(), bytes: Box::default() },
        ];
        changes.iter().for_each(|change| engine.commit(std::slice::from_ref(change)).unwrap());
        let busy = told(&Command::Stats { folder: at("a") }, "").unwrap_err();
        assert!(busy.text.contains("another process has the store"), "{busy}");
        let (whole, text) = told(&Command::Backup { folder: at("a"), to: at("b") }, "").unwrap();
        assert!(whole && text.contains("\"messages\":2"), "{text}");
        drop(engine);

        let (_, rows) = told(&Command::Export { folder: at("a") }, "").unwrap();
        assert_eq!(rows.lines().count(), 7, "{rows}");
        told(&Command::Import { folder: at("c") }, &rows).unwrap();
        let (_, again) = told(&Command::Export { folder: at("c") }, "").unwrap();
        let sorted = |text: &str| {
            let mut lines: Vec<_> =
                text.lines().filter(|l| !l.contains("starts")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&again), sorted(&rows));
        let wrong = told(&Command::Import { folder: at("e") }, "{\"queue\":1}").unwrap_err();
        assert!(wrong.text.starts_with("line 1: "), "{wrong}");

        let file = at("b").join("0000000001.log");
        let mut bytes = std::fs::read(&file).unwrap();
        let place = bytes.windows(7).position(|window| window == b"session").unwrap();
        bytes[place] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (whole, text) = told(&Command::Check { folder: at("b") }, "").unwrap();
        assert!(!whole && text.contains("one record is lost") && text.contains("\"sessions\":0"), "{text}");
        let (whole, text) = told(&Command::Salvage { folder: at("b"), to: at("d") }, "").unwrap();
        assert!(!whole && text.contains("\"messages\":2"), "{text}");
        let (whole, _) = told(&Command::Check { folder: at("d") }, "").unwrap();
        assert!(whole);
        assert!(told(&Command::Stats { folder: at("nothing") }, "").is_err());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
