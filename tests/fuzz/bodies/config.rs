//! The configuration from any text and from any source: faults say where and what, and what was accepted can be
//! written down and read back.

use super::input::Input;
use ringmq::config::{Config, Fault, KEYS, Sources, Value};
use std::path::Path;

pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => {
            let text = String::from_utf8_lossy(input.take(usize::MAX));
            checked(Config::parse(Path::new("fuzz.toml"), &text));
        }
        from => {
            let mut sources = Sources::default();
            for line in String::from_utf8_lossy(input.take(usize::MAX)).lines() {
                let (name, text) = line.split_once('=').unwrap_or((line, ""));
                // A digit names a key, so that values are met soon.
                let key = name.parse::<usize>().ok().map(|at| &KEYS[at % KEYS.len()]);
                if from == 1 {
                    let name = key.map_or(format!("RINGMQ_{name}"), |key| key.variable());
                    sources.environment.push((name, text.to_owned()));
                } else {
                    let name = key.map_or(name, |key| key.name);
                    sources.arguments.push(("--set".into(), name.to_owned(), text.to_owned()));
                }
            }
            checked(Config::load(&sources).map(|loaded| {
                assert!(loaded.notes.iter().all(|note| note.starts_with("RINGMQ_")));
                loaded.config
            }));
        }
    }
}

fn checked(read: Result<Config, Vec<Fault>>) {
    match read {
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal says why");
            for fault in faults {
                let line = fault.to_string();
                assert!(line.contains(": ") && !line.contains(['\n', '\r']), "{line:?} is one line");
            }
        }
        Ok(config) => {
            let written: String =
                KEYS.iter().map(|key| format!("{} = {}\n", key.name, (key.get)(&config))).collect();
            let again = Config::parse(Path::new("again.toml"), &written);
            assert!(again.as_ref() == Ok(&config), "{written}\n{again:?}");
            let (next, changes) = Config::default().reload(&config);
            let differ =
                KEYS.iter().filter(|key| (key.get)(&config) != (key.get)(&Config::default())).count();
            assert_eq!(changes.applied.len() + changes.restart.len(), differ);
            for name in changes.applied {
                let value = |config: &Config| -> Option<Value> {
                    KEYS.iter().find(|key| key.name == name).map(|key| (key.get)(config))
                };
                assert_eq!(value(&next), value(&config), "{name}");
            }
        }
    }
}
