//! Changing settings while the broker runs, and keeping them: in a file of its own in the data folder, which stands
//! between the user's file and the environment. The user's file is never written.

use super::keys::{KEYS, Key};
use super::value::Value;
use super::{Config, LISTENER_KEYS, Sources};
use crate::listener::Listener;
use serde_json::{Map, Value as Json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names of NanoMQ's `reload`, the key of each, and how many of the key's units one of its own is.
const DOCUMENTED: &[(&str, &str, u64)] = &[
    ("property_size", "mqtt.max_properties", 1),
    ("max_packet_size", "mqtt.max_packet_size", 1024),
    ("client_max_packet_size", "mqtt.client_max_packet_size", 1024),
    ("msq_len", "mqtt.max_mqueue", 1),
    ("qos_duration", "mqtt.await_rel_timeout_s", 1),
    ("keepalive_backoff", "mqtt.keepalive_backoff", 1),
    ("allow_anonymous", "mqtt.allow_anonymous", 1),
];

/// Keys whose value is not told.
const SECRETS: &[&str] =
    &["http.users", "http.bearer_tokens", "http.jwt_secret", "auth.jwt_secret", "auth.http_headers"];

/// The name of the file in the data folder.
const FILE: &str = "settings.toml";

const HEAD: &str = "\
# Settings that were changed over HTTP and are to outlive a restart. The broker writes this file.
# Each stands above the same key of the configuration file, and below the environment and the command line.
";

/// Keys with the values that were asked for.
pub type Assigned = Vec<(&'static Key, Value)>;

impl Config {
    /// The settings under the names of NanoMQ's `reload`.
    pub fn documented(&self) -> Map<String, Json> {
        let value = |key: &str, unit: u64| match Key::find(key).map(|key| (key.get)(self)) {
            Some(Value::Number(n)) => n.div_ceil(unit).into(),
            Some(other) => json(&other),
            None => Json::Null,
        };
        DOCUMENTED.iter().map(|(name, key, unit)| ((*name).to_owned(), value(key, *unit))).collect()
    }

    /// Every key with its value; secrets are covered.
    pub fn shown(&self) -> Map<String, Json> {
        let value = |key: &Key| match (key.get)(self) {
            Value::Text(text) if text.is_empty() => json(&Value::Text(text)),
            Value::List(items) if items.is_empty() => json(&Value::List(items)),
            _ if SECRETS.contains(&key.name) => "******".into(),
            value => json(&value),
        };
        let mut all: Map<_, _> = KEYS.iter().map(|key| (key.name.to_owned(), value(key))).collect();
        for listener in &self.listeners {
            let name = |key: &Key<Listener>| format!("listeners.{}.{}", listener.name, key.name);
            all.extend(LISTENER_KEYS.iter().map(|key| (name(key), json(&(key.get)(listener)))));
        }
        all
    }

    /// This configuration with other values for some keys, all of them or none.
    ///
    /// # Errors
    /// What cannot be, in one line.
    pub fn changed(&self, wanted: &Map<String, Json>) -> Result<(Config, Assigned), String> {
        let mut next = self.clone();
        let mut assigned = Assigned::new();
        for (name, value) in wanted {
            let (key, value) = read(self, name, value)?;
            let fault = |what: String| format!("{name}: {what}");
            let value = key.kind.accept(value).map_err(fault)?;
            (key.set)(&mut next, value.clone()).map_err(fault)?;
            if assigned.iter().any(|(other, _)| other.name == key.name) {
                return Err(format!("{} is there twice", key.name));
            }
            assigned.push((key, value));
        }
        match next.check().first() {
            Some(fault) => Err(fault.to_string()),
            None => Ok((next, assigned)),
        }
    }

    /// The folder for what is kept. It need not be there.
    pub fn data_dir(&self, sources: &Sources) -> PathBuf {
        let variable = |name: &str| {
            let value = sources.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            value.filter(|value| !value.is_empty())
        };
        if let Some(path) = &self.broker.data_dir {
            return path.clone();
        }
        // systemd may name several.
        if let Some(path) = variable("STATE_DIRECTORY").and_then(|paths| paths.split(':').next()) {
            return path.into();
        }
        variable("XDG_STATE_HOME").map_or_else(|| "ringmq-data".into(), |home| Path::new(home).join("ringmq"))
    }

    /// The file of kept settings.
    pub fn kept_file(&self, sources: &Sources) -> PathBuf {
        self.data_dir(sources).join(FILE)
    }
}

/// The key of a name and the value in the key's units. A documented name with the value that reading shows keeps what
/// the key has in its own, finer units: who reads, changes one value and writes all of them changes one.
fn read(config: &Config, name: &str, value: &Json) -> Result<(&'static Key, Value), String> {
    let documented = DOCUMENTED.iter().find(|(known, ..)| *known == name);
    let (key, unit) = documented.map_or((name, 1), |(_, key, unit)| (*key, *unit));
    let Some(key) = Key::find(key) else {
        let hint = Key::nearest(name).map(|near| format!("; did you mean {}?", near.name));
        return Err(format!("{name}: unknown key{}", hint.unwrap_or_default()));
    };
    if !key.live {
        return Err(format!(
            "{name}: cannot be changed while the broker runs; set it in the configuration and restart"
        ));
    }
    let expected = || Err(format!("{name}: expected {}, got {value}", key.kind.expected()));
    let value = match value {
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(n) => {
            let n = n.as_u64().or_else(|| whole(n.as_f64()?));
            match ((key.get)(config), n, n.and_then(|n| n.checked_mul(unit))) {
                (Value::Number(now), Some(n), _) if now.div_ceil(unit) == n => Value::Number(now),
                (_, _, Some(n)) => Value::Number(n),
                _ => return expected(),
            }
        }
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            match texts {
                Some(texts) => Value::List(texts),
                None => return expected(),
            }
        }
        Json::Null | Json::Object(_) => return expected(),
    };
    Ok((key, value))
}

/// A number that was written with a point, where it is whole.
fn whole(n: f64) -> Option<u64> {
    (n.fract() == 0.0 && (0.0..9e15).contains(&n)).then_some(n as u64)
}

fn json(value: &Value) -> Json {
    match value {
        Value::Number(n) => (*n).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.clone().into(),
    }
}

impl Sources {
    /// What sets this key at each start whatever is kept, if anything does.
    fn overrides(&self, key: &Key) -> Option<String> {
        let argument = self.arguments.iter().find(|(_, name, _)| name == key.name);
        let variable = || self.environment.iter().find(|(name, _)| *name == key.variable());
        argument.map(|(written, ..)| written.clone()).or_else(|| variable().map(|(name, _)| name.clone()))
    }

    /// Whether all of these may be kept.
    ///
    /// # Errors
    /// The first that would not outlive a restart, and why.
    pub fn may_keep(&self, assigned: &Assigned) -> Result<(), String> {
        match assigned.iter().find_map(|(key, _)| Some((key, self.overrides(key)?))) {
            None => Ok(()),
            Some((key, by)) => Err(format!("{}: cannot be kept: {by} sets it at each start", key.name)),
        }
    }
}

/// Keeps these values, beside those that were kept before, in `file`: written whole, synced, and put in its place
/// in one step, so that a power cut leaves the old file or the new one.
///
/// # Errors
/// What the system said.
pub fn keep(file: &Path, assigned: &Assigned) -> io::Result<()> {
    let mut lines: Vec<(String, String)> = Vec::new();
    match fs::read_to_string(file) {
        // Lines of this function alone; what somebody else wrote there is read at a start and told if it is wrong.
        Ok(text) => {
            let pairs =
                text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
            lines.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for (key, value) in assigned {
        lines.retain(|(known, _)| known != key.name);
        lines.push((key.name.to_owned(), value.to_string()));
    }
    let text: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    replace(file, &format!("{HEAD}{text}"))
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
