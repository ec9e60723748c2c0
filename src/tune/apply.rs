//! Changes, with a record of what was there before, and back.
//!
//! The record is on disk before anything is changed. A second `apply` keeps the oldest values, so that one
//! `revert` is enough. Who changed a value in between is respected: such a value is left alone.

use super::host::Host;
use super::knob::words;
use super::plan::{Plan, merged};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Bytes of a record at most: far above what all knobs of a large machine take.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// One thing that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Change {
    /// Without the leading `/`.
    path: String,
    /// What was there; `None`: no such file.
    old: Option<String>,
    /// What is there since.
    new: String,
    /// A drop-in file, and not a value.
    file: bool,
}

/// What was changed, and where that is written down.
struct Record {
    path: PathBuf,
    changes: Vec<Change>,
}

impl Record {
    /// Reads it; without such a file nothing was changed.
    fn load(path: PathBuf) -> Result<Record, String> {
        let fault =
            |e: &dyn std::fmt::Display| format!("{}: {e}; it is needed to change or revert", path.display());
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Record { path, changes: Vec::new() });
            }
            Err(error) => return Err(fault(&error)),
            Ok(file) if file.len() > RECORD_BYTES_MAX => return Err(fault(&"this is no record of changes")),
            Ok(_) => fs::read_to_string(&path).map_err(|e| fault(&e))?,
        };
        let json: Value = serde_json::from_str(&text).map_err(|e| fault(&e))?;
        let rows = json["changes"].as_array().ok_or_else(|| fault(&"this is no record of changes"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let change = |row: &Value| {
            Some(Change {
                path: text(&row["path"])?.trim_start_matches('/').to_owned(),
                old: text(&row["old"]),
                new: text(&row["new"])?,
                file: row["file"].as_bool()?,
            })
        };
        let changes: Option<Vec<Change>> = rows.iter().map(change).collect();
        let changes = changes.ok_or_else(|| fault(&"this is no record of changes"))?;
        Ok(Record { path, changes })
    }

    /// Adds a change, or what is new of one that is known.
    fn note(&mut self, change: Change) {
        match self.changes.iter_mut().find(|known| known.path == change.path) {
            Some(known) => known.new = change.new,
            None => self.changes.push(change),
        }
    }

    /// Writes it, or removes it where nothing is left in it.
    fn save(&self) -> Result<(), String> {
        let fault =
            |e: io::Error| format!("cannot write {}: {e}; nothing more is changed", self.path.display());
        if self.changes.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(fault(error)),
                _ => Ok(()),
            };
        }
        let row = |change: &Change| json!({"path": format!("/{}", change.path), "old": change.old, "new": change.new, "file": change.file});
        let json = json!({"changes": self.changes.iter().map(row).collect::<Vec<_>>()});
        let write = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let beside = self.path.with_extension("new");
            let mut file = fs::File::create(&beside)?;
            file.write_all(format!("{json:#}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().map_err(fault)
    }
}

/// What was done, in lines, and whether all of it was.
#[derive(Debug, Default)]
pub struct Done {
    /// One for each change.
    pub lines: Vec<String>,
    /// Changes that were not made.
    pub failed: usize,
}

impl Done {
    fn failed(&mut self, line: String) {
        self.failed += 1;
        self.lines.push(line);
    }
}

/// Makes the changes of a plan, with or without its drop-in files.
pub fn apply(host: &Host, plan: &Plan, files: bool, record: &Path) -> Result<Done, String> {
    let mut changes: Vec<Change> = Vec::new();
    for write in &plan.writes {
        let old = value(host, &write.path);
        changes.push(Change { path: write.path.clone(), old, new: write.value.clone(), file: false });
    }
    for (path, text) in plan.files.iter().filter(|_| files) {
        let old = fs::read_to_string(host.path(path)).ok();
        let new = merged(path, old.as_deref(), text);
        changes.push(Change { path: (*path).to_owned(), old, new, file: true });
    }
    changes.retain(|change| change.old.as_ref() != Some(&change.new));
    if changes.is_empty() {
        return Ok(Done { lines: vec!["there is nothing to change".to_owned()], failed: 0 });
    }
    let mut record = Record::load(record.to_owned())?;
    let before = record.changes.clone();
    changes.iter().for_each(|change| record.note(change.clone()));
    record.save()?;
    let mut done = Done::default();
    for change in changes {
        match put(host, &change, Some(&change.new)) {
            Ok(()) => done.lines.push(format!("/{}: {}", change.path, told(&change))),
            Err(error) => {
                done.failed(format!("/{}: not changed: {}", change.path, reason(&error)));
                // As it was, and as the record was.
                record.changes.retain(|known| known.path != change.path);
                record.changes.extend(before.iter().find(|known| known.path == change.path).cloned());
            }
        }
    }
    record.save()?;
    Ok(done)
}

/// Restores what was there before. A value that somebody else has changed since is left alone, unless forced.
pub fn revert(host: &Host, force: bool, record: &Path) -> Result<Done, String> {
    let mut record = Record::load(record.to_owned())?;
    let mut done = Done::default();
    if record.changes.is_empty() {
        done.lines.push("nothing was changed, so there is nothing to revert".to_owned());
    }
    let mut left = Vec::new();
    while let Some(change) = record.changes.pop() {
        let now = if change.file {
            fs::read_to_string(host.path(&change.path)).ok()
        } else {
            value(host, &change.path)
        };
        let path = &change.path;
        if now == change.old {
            done.lines.push(format!("/{path}: is as it was"));
        } else if now.as_ref() != Some(&change.new) && !force {
            let now = now.as_deref().filter(|_| !change.file).unwrap_or("something else");
            done.failed(format!(
                "/{path}: is {now} by now, which is not from here; left alone (--force restores it)"
            ));
            left.push(change);
        } else {
            match put(host, &change, change.old.as_deref()) {
                Ok(()) if change.file && change.old.is_none() => done.lines.push(format!("/{path}: removed")),
                Ok(()) if change.file => done.lines.push(format!("/{path}: restored")),
                Ok(()) => done.lines.push(format!("/{path}: {}", change.old.as_deref().unwrap_or("-"))),
                Err(error) => {
                    done.failed(format!("/{path}: not restored: {}", reason(&error)));
                    left.push(change);
                }
            }
        }
    }
    left.reverse();
    record.changes = left;
    record.save()?;
    Ok(done)
}

/// A value as it is written: the word in brackets where there are brackets, one blank between words.
fn value(host: &Host, path: &str) -> Option<String> {
    host.choice(path).map(|text| words(&text))
}

/// Writes a value or a file; `None` removes a file.
fn put(host: &Host, change: &Change, text: Option<&str>) -> io::Result<()> {
    let path = host.path(&change.path);
    match text {
        None if change.file => fs::remove_file(path),
        // There is no value to go back to.
        None => Ok(()),
        Some(text) if change.file => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)
        }
        Some(text) => {
            // Not created where there is none: the kernel makes these files. In one write, as the kernel wants it.
            let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path)?;
            file.write_all(format!("{text}\n").as_bytes())?;
            match value(host, &change.path) {
                Some(now) if same(&now, text) => Ok(()),
                now => Err(io::Error::other(format!("it is {} afterwards", now.unwrap_or_default()))),
            }
        }
    }
}

/// Masks are read back with leading zeroes.
fn same(now: &str, written: &str) -> bool {
    let bare = |text: &str| text.trim_start_matches(['0', ',']).to_owned();
    now == written || bare(now) == bare(written)
}

fn told(change: &Change) -> String {
    match (&change.old, change.file) {
        (None, true) => "written".to_owned(),
        (Some(_), true) => "written again".to_owned(),
        (old, false) => format!("{} -> {}", old.as_deref().unwrap_or("-"), change.new),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; it needs root, on the machine itself where this is a container")
        }
        ErrorKind::NotFound => "this host does not have it".to_owned(),
        _ => error.to_string(),
    }
}
