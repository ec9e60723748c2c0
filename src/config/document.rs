//! The table of keys as text: `etc/ringmq.toml`, and the list in `--help`.

use super::Config;
use super::groups::{LISTENER_KEYS, example};
use super::keys::{KEYS, Key};
use super::value::Kind;
use std::fmt::Write;

const INTRODUCTION: &str = "\
# The configuration of ringmq: every key, with its meaning, its unit and bounds, and its default.
#
# All lines are comments: take out the `#` in front of a key to change it. Start with
#     ringmq --config ringmq.toml
# and check a file without starting with
#     ringmq check-config ringmq.toml
#
# Each key can also be given as an environment variable (mqtt.max_inflight is RINGMQ_MQTT_MAX_INFLIGHT)
# and on the command line (--set mqtt.max_inflight=64); the command line wins over the environment, the
# environment over what was changed over HTTP to outlive a restart (settings.toml in the data folder), and
# that over this file. SIGHUP reads all of it again; keys marked \"live\" then change at once, for the others
# a restart is needed, and the log says so.
";

const SECTIONS: &[(&str, &str)] = &[
    ("mqtt", "Clients, sessions and messages."),
    (
        "auth",
        "Who may connect. Nothing here is needed by clients of this machine, see mqtt.anonymous_local_only.",
    ),
    ("node", "How this broker is called."),
    ("sys", "The values that the broker publishes itself."),
    ("broker", "Threads, sockets and the kernel."),
    ("log", "What is written about it all."),
    (
        "http",
        "The HTTP API. It is not encrypted: where other machines may reach it, put a proxy with TLS before it.",
    ),
];

/// What stands above the keys of a listener.
const LISTENERS_INTRODUCTION: &str = "
# Listeners: any number of such tables, each with a name of its own in place of NAME. Those of mqtt.listen
# are there beside them where mqtt.listen is set; they are called default, default-2, ... and have the values
# shown here. In the environment: RINGMQ_LISTENERS_NAME_BIND; on the command line:
#     ringmq --set listeners.NAME.bind=1884
#[listeners.NAME]
";

/// What stands above the keys that a zone may have.
const ZONES_INTRODUCTION: &str = "
# Zones: any number of such tables, each with a name of its own. A listener that names one (zone = \"NAME\") has
# its values for its clients, and those of [mqtt] for what it does not say. All are live.
#     [zones.NAME]
#     max_packet_size = 65536
# A zone may have those keys of [mqtt] that need not be the same for all clients.
";

const COLUMNS: usize = 100;

/// The text of `etc/ringmq.toml`.
pub fn document() -> String {
    let defaults = Config::default();
    let mut text = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        let _ = write!(text, "\n[{section}]\n# {about}\n");
        for key in KEYS.iter().filter(|key| key.parts().0 == *section) {
            describe(&mut text, key, key.parts().1, &defaults);
        }
    }
    text.push_str(LISTENERS_INTRODUCTION);
    for key in LISTENER_KEYS {
        describe(&mut text, key, key.name, &example());
    }
    text.push_str(ZONES_INTRODUCTION);
    let zoned: Vec<_> = KEYS.iter().filter(|key| key.zoned).map(|key| key.parts().1).collect();
    for line in wrap(&format!("They are: {}.", zoned.join(", ")), COLUMNS - 2) {
        let _ = writeln!(text, "# {line}");
    }
    text
}

/// A key with its meaning, what it accepts, and its default.
fn describe<T>(text: &mut String, key: &Key<T>, name: &str, defaults: &T) {
    text.push('\n');
    for line in wrap(key.doc, COLUMNS - 2) {
        let _ = writeln!(text, "# {line}");
    }
    let live = if key.live { "; live" } else { "" };
    for line in wrap(&format!("{}{live}.", accepted(key)), COLUMNS - 2) {
        let _ = writeln!(text, "# {line}");
    }
    let _ = writeln!(text, "#{name} = {}", (key.get)(defaults));
}

/// One line for each key, with its default and the first sentence of its meaning.
pub fn key_list() -> String {
    let defaults = Config::default();
    let mut text = String::new();
    for key in KEYS {
        let end = key.doc.find(['.', ';']).unwrap_or(key.doc.len());
        let assigned = format!("{} = {}", key.name, (key.get)(&defaults));
        let _ = writeln!(text, "  {assigned}\n      {}.", key.doc[..end].trim_end());
    }
    let example = example();
    for key in LISTENER_KEYS {
        let end = key.doc.find(['.', ';']).unwrap_or(key.doc.len());
        let _ = writeln!(text, "  listeners.NAME.{} = {}", key.name, (key.get)(&example));
        let _ = writeln!(text, "      {}.", key.doc[..end].trim_end());
    }
    text
}

fn accepted<T>(key: &Key<T>) -> String {
    match key.kind {
        Kind::Number { unit, min, max } => format!("{min} to {max} {unit}"),
        Kind::Flag => "true or false".to_owned(),
        Kind::Text { .. } => capital(&key.kind.expected()),
        Kind::Choice(_) => capital(&key.kind.expected()),
        Kind::Path => "A path of a file, or empty".to_owned(),
        Kind::Addresses { .. } | Kind::Texts(_) | Kind::Bind => capital(&key.kind.expected()),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Breaks text into lines of at most `columns` characters, at spaces.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn file() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/ringmq.toml")
    }

    /// `BLESS=1 cargo test config` writes the file.
    #[test]
    fn the_file_in_etc_is_the_table() {
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(file(), document()).expect("etc is writable");
        }
        let text = std::fs::read_to_string(file()).expect("etc/ringmq.toml is there");
        assert!(
            text == document(),
            "etc/ringmq.toml differs from src/config/keys.rs: BLESS=1 cargo test config"
        );
    }

    #[test]
    fn the_file_parses_as_it_is_and_when_every_key_is_uncommented() {
        let text = std::fs::read_to_string(file()).expect("etc/ringmq.toml is there");
        assert_eq!(Config::parse(&file(), &text), Ok(Config::default()));
        let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let uncommented = |text: &str| -> String {
            text.lines().map(|l| format!("{}\n", if is_key(l) { &l[1..] } else { l })).collect()
        };
        let (text, tables) = text.split_at(text.find("#[listeners.NAME]").expect("the keys of a listener"));
        let listeners = Config::parse(&file(), &uncommented(tables)).map(|config| config.listeners);
        assert_eq!(listeners, Ok(vec![example()]));
        let keys = tables.lines().filter(|line| is_key(line) && !line.starts_with("#[")).count();
        assert_eq!(keys, LISTENER_KEYS.len(), "every key is there");
        let bare = uncommented(text);
        let keys = text.lines().filter(|line| is_key(line)).count();
        assert_eq!(keys, KEYS.len(), "every key is there");
        assert_eq!(Config::parse(&file(), &bare), Ok(Config::default()));
        // It is the values in the file that were read: a changed one is seen.
        let changed = bare.replace("max_inflight = 32", "max_inflight = 33");
        assert_eq!(Config::parse(&file(), &changed).map(|config| config.mqtt.max_inflight), Ok(33));
    }

    #[test]
    fn each_key_stands_below_its_meaning_and_unit() {
        let text = document();
        for key in KEYS {
            let (section, name) = key.parts();
            let start = text.find(&format!("[{section}]")).expect("its section");
            let at = text[start..].find(&format!("\n#{name} = ")).expect("the key") + start;
            let block = &text[text[..at].rfind("\n\n").expect("a blank line")..at];
            let words = block.replace("\n# ", " ");
            assert!(words.contains(key.doc), "{}: {words}", key.name);
            if let Kind::Number { unit, max, .. } = key.kind {
                assert!(words.contains(&format!("{max} {unit}")), "{}: {words}", key.name);
            }
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110));
    }

    #[test]
    fn the_list_for_help_names_every_key() {
        let list = key_list();
        for key in KEYS {
            assert!(list.contains(&format!("  {} = ", key.name)));
        }
    }
}
