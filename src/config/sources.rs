//! Where values come from: a file, the environment, the command line; each later one wins.

use super::fault::{Fault, Origin};
use super::groups::{LISTENERS, Target, ZONES};
use super::keys::Key;
use super::value::Value;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Everything that a configuration is read from. Kept, so that SIGHUP can read the same again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// Whether settings are read that were changed over HTTP and kept.
    pub kept: bool,
    /// Environment variables; those that do not start with `RINGMQ_` are not looked at.
    pub environment: Vec<(String, String)>,
    /// From the command line, in order: how it was written (`--mqtt`), key and text.
    pub arguments: Vec<(String, String, String)>,
}

/// A value that a key accepted, and where it stands.
#[derive(Debug)]
pub(super) struct Assignment {
    pub target: Target,
    pub value: Value,
    pub origin: Origin,
}

/// What was read: assignments in the order in which they apply, faults, and notes that stop nothing.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub assignments: Vec<Assignment>,
    pub faults: Vec<Fault>,
    pub notes: Vec<String>,
}

impl Collected {
    fn add(&mut self, origin: Origin, target: Target, value: Result<Value, String>) {
        match value {
            Ok(value) => self.assignments.push(Assignment { target, value, origin }),
            Err(what) => self.faults.push(Fault::of_key(origin, &target.name(), what)),
        }
    }

    /// Reads `path`.
    pub fn read_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_toml(path, &text),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                self.faults.push(Fault::of_source(Origin::File { path: path.to_owned(), line: 0 }, what));
            }
        }
    }

    /// Reads the text of a file; `path` is for the errors.
    pub fn read_toml(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| {
            let before = text.as_bytes().iter().take(offset);
            let line = 1 + before.filter(|byte| **byte == b'\n').count();
            Origin::File { path: path.to_owned(), line }
        };
        match DeTable::parse(text) {
            Ok(table) => self.walk("", table.get_ref(), &at),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                self.faults.push(Fault::of_source(at(offset), error.message().to_owned()));
            }
        }
    }

    fn walk(&mut self, section: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let origin = at(name.span().start);
            let name = match section {
                "" => name.get_ref().to_string(),
                section => format!("{section}.{}", name.get_ref()),
            };
            let is_group = section == LISTENERS || section == ZONES;
            match (Target::find(&name), value.get_ref()) {
                (Ok(target), raw) => {
                    let kind = target.kind();
                    let value = plain(raw).map_err(|got| format!("expected {}, got {got}", kind.expected()));
                    self.add(origin, target, value.and_then(|value| kind.accept(value)));
                }
                (Err(_), DeValue::Table(inner)) if (section.is_empty() || is_group) && !inner.is_empty() => {
                    self.walk(&name, inner, at);
                }
                (Err(_), DeValue::Table(_)) if is_section(&name) => {}
                (Err(_), DeValue::Table(_)) if is_group => {
                    let what = "expected keys, got none".to_owned();
                    self.faults.push(Fault::of_key(origin, &name, what));
                }
                (Err(what), _) => self.faults.push(Fault::of_key(origin, &name, what)),
            }
        }
    }

    /// Reads `RINGMQ_…`. A name that is no key is noted and not refused: a container platform may put
    /// variables of its own there (`RINGMQ_SERVICE_HOST`, for a service that is called ringmq).
    pub fn read_environment(&mut self, variables: &[(String, String)]) {
        for (name, text) in variables.iter().filter(|(name, _)| name.starts_with("RINGMQ_")) {
            let origin = Origin::Environment(name.clone());
            match Target::of_variable(name) {
                Some(target) => {
                    let value = target.kind().read_text(text);
                    self.add(origin, target, value);
                }
                None => {
                    let guess = name.trim_start_matches("RINGMQ_").to_lowercase().replacen('_', ".", 1);
                    let hint = Key::nearest(&guess).map(|key| format!("; did you mean {}?", key.variable()));
                    self.notes.push(format!("{name} is no key, ignored{}", hint.unwrap_or_default()));
                }
            }
        }
    }

    /// Reads the command line.
    pub fn read_arguments(&mut self, arguments: &[(String, String, String)]) {
        for (written, name, text) in arguments {
            let origin = Origin::Argument(written.clone());
            match Target::find(name) {
                Ok(target) => {
                    let value = target.kind().read_text(text);
                    self.add(origin, target, value);
                }
                Err(what) => self.faults.push(Fault::of_key(origin, name, what)),
            }
        }
    }
}

fn is_section(name: &str) -> bool {
    name == LISTENERS || name == ZONES || super::KEYS.iter().any(|key| key.parts().0 == name)
}

/// A TOML value as ours, or what it is instead.
fn plain(raw: &DeValue<'_>) -> Result<Value, String> {
    match raw {
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
        DeValue::Integer(n) => {
            let digits = n.as_str();
            u64::from_str_radix(digits, n.radix()).map(Value::Number).map_err(|_| digits.to_owned())
        }
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            let all: Option<Vec<String>> = texts.collect();
            all.map(Value::List).ok_or_else(|| "an array of something else".to_owned())
        }
        DeValue::Float(n) => Err(n.as_str().to_owned()),
        DeValue::Datetime(when) => Err(when.to_string()),
        DeValue::Table(_) => Err("a table".to_owned()),
    }
}
