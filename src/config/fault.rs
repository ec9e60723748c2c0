//! What is wrong with a configuration, where, and what to write instead.

use super::keys::Key;
use std::fmt::{Display, Formatter, Result, Write};
use std::path::PathBuf;

/// Where a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In a file; line 0 means the file as a whole.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// In this command-line option.
    Argument(String),
    /// In how several values go together.
    Together,
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Origin::File { path, line: 0 } => write!(f, "{}: ", path.display()),
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}: "),
            Origin::Argument(written) => write!(f, "{written}: "),
            Origin::Together => Ok(()),
        }
    }
}

/// What is said of a key that is near no other.
pub(super) const UNKNOWN: &str = "unknown key; `ringmq --help` lists those that there are";

/// One thing that is wrong; displayed as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Where.
    pub origin: Origin,
    /// Which key, if it is about one.
    pub key: Option<String>,
    /// What was expected, what came, and what to do.
    pub what: String,
}

impl Fault {
    pub(super) fn of_key(origin: Origin, key: &str, what: String) -> Fault {
        Fault { origin, key: Some(key.to_owned()), what }
    }

    pub(super) fn of_source(origin: Origin, what: String) -> Fault {
        Fault { origin, key: None, what }
    }

    /// What is said of a key that is not in the table.
    pub(super) fn unknown(name: &str) -> String {
        match Key::nearest(name) {
            Some(near) => format!("unknown key; did you mean {}?", near.name),
            None => UNKNOWN.to_owned(),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let line = match &self.key {
            Some(key) => format!("{}{key}: {}", self.origin, self.what),
            None => format!("{}{}", self.origin, self.what),
        };
        // Names and values are whatever somebody wrote; a fault stays one line.
        line.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}
