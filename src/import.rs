//! `ringmq import mosquitto FILE`: a configuration of mosquitto as one of ours, and what of it has no counterpart.

use clap::{Args, Subcommand};
use ringmq::config::Config;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Subcommand, Debug)]
enum From {
    /// Prints a mosquitto.conf as a configuration of this broker, and names on standard error each line of it that has
    /// no counterpart.
    Mosquitto {
        /// The file.
        file: PathBuf,
    },
}

/// What was made of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// Our configuration, in TOML.
    pub text: String,
    /// Lines without a counterpart, each with its number and why.
    pub left: Vec<String>,
}

/// How the value of a setting is taken over.
#[derive(Clone, Copy)]
enum Take {
    /// A number; this one in place of 0, which is "no limit" there.
    Number(u64),
    Flag,
    Path,
}

/// Settings of mosquitto that have a key here.
const COUNTERPARTS: &[(&str, &str, Take)] = &[
    ("password_file", "auth.password_file", Take::Path),
    ("acl_file", "auth.acl_file", Take::Path),
    ("persistence_location", "broker.data_dir", Take::Path),
    ("max_inflight_messages", "mqtt.max_inflight", Take::Number(65_535)),
    ("max_queued_messages", "mqtt.max_mqueue", Take::Number(10_000_000)),
    ("max_queued_bytes", "mqtt.max_mqueue_bytes", Take::Number(1 << 40)),
    ("max_packet_size", "mqtt.max_packet_size", Take::Number(268_435_460)),
    ("max_qos", "mqtt.max_qos", Take::Number(0)),
    ("max_topic_alias", "mqtt.max_topic_alias", Take::Number(0)),
    ("retain_available", "mqtt.retain_available", Take::Flag),
    ("sys_interval", "sys.interval_s", Take::Number(0)),
];

/// Does it; the text is for standard output, the lines for standard error.
///
/// # Errors
/// What could not be read, in one line.
pub fn import(arguments: &ImportArgs) -> Result<Imported, String> {
    let From::Mosquitto { file } = &arguments.from;
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let imported = mosquitto(&text);
    match Config::parse(Path::new("the configuration made of it"), &imported.text) {
        Ok(_) => Ok(imported),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(format!("{}: {}", file.display(), faults.join("; ")))
        }
    }
}

/// A mosquitto.conf as one of ours.
fn mosquitto(text: &str) -> Imported {
    let (mut keys, mut left) = (Vec::<(&str, String)>::new(), Vec::new());
    let (mut listeners, mut usual, mut anonymous) = (Vec::<String>::new(), (None, None), None);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let taken = match name {
            "listener" => address(value).map(|addr| listeners.push(addr)),
            "port" => value.parse::<u16>().ok().map(|port| usual.0 = Some(port)),
            "bind_address" => host(value).map(|host| usual.1 = Some(host)),
            "allow_anonymous" => flag(value).map(|allowed| anonymous = Some(allowed)),
            "persistent_client_expiration" => {
                seconds(value).map(|s| keys.push(("mqtt.session_expiry_max_s", s.to_string())))
            }
            "log_dest" => match value.split_once([' ', '\t']) {
                Some(("file", path)) => {
                    keys.push(("log.file", quoted(path.trim())));
                    Some(())
                }
                _ => (value == "stderr").then_some(()),
            },
            // What is so here.
            "protocol" => (value == "mqtt").then_some(()),
            "per_listener_settings" => (flag(value) == Some(false)).then_some(()),
            "set_tcp_nodelay" => (flag(value) == Some(true)).then_some(()),
            _ => COUNTERPARTS.iter().find(|(known, ..)| *known == name).and_then(|(_, key, take)| {
                keys.push((key, taken_over(value, *take)?));
                Some(())
            }),
        };
        if taken.is_none() {
            left.push(format!("line {}: no counterpart: {line}", number + 1));
        }
    }
    if usual.0.is_some() || usual.1.is_some() {
        let (port, host) = (usual.0.unwrap_or(1883), usual.1.unwrap_or_else(|| "[::]".to_owned()));
        listeners.insert(0, format!("{host}:{port}"));
    }
    // Without a listener, mosquitto serves this machine alone, and lets everybody on it in.
    let open = match anonymous {
        Some(open) => open,
        None => listeners.is_empty(),
    };
    if listeners.is_empty() {
        listeners.push("127.0.0.1:1883".to_owned());
    }
    let mut text = "# Made of a configuration of mosquitto.\n".to_owned();
    let listen: Vec<String> = listeners.iter().map(|addr| quoted(addr)).collect();
    let _ = writeln!(text, "mqtt.listen = [{}]", listen.join(", "));
    let _ = writeln!(text, "mqtt.allow_anonymous = {open}");
    if open {
        text.push_str("mqtt.anonymous_local_only = false\n");
    }
    for (key, value) in keys {
        let _ = writeln!(text, "{key} = {value}");
    }
    Imported { text, left }
}

fn taken_over(value: &str, take: Take) -> Option<String> {
    match take {
        Take::Number(without_limit) => {
            let n: u64 = value.parse().ok()?;
            Some(if n == 0 { without_limit } else { n }.to_string())
        }
        Take::Flag => Some(flag(value)?.to_string()),
        Take::Path => (!value.is_empty()).then(|| quoted(value.trim_end_matches('/'))),
    }
}

/// `PORT` or `PORT ADDRESS`; a socket of the file system (port 0) has none.
fn address(value: &str) -> Option<String> {
    let mut words = value.split_whitespace();
    let port: u16 = words.next()?.parse().ok().filter(|port| *port != 0)?;
    let host = words.next().map_or(Some("[::]".to_owned()), host)?;
    words.next().is_none().then(|| format!("{host}:{port}"))
}

/// An address; a name is not looked up.
fn host(value: &str) -> Option<String> {
    match value {
        "localhost" => Some("127.0.0.1".to_owned()),
        value => match value.parse().ok()? {
            std::net::IpAddr::V4(v4) => Some(v4.to_string()),
            std::net::IpAddr::V6(v6) => Some(format!("[{v6}]")),
        },
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `14d`: hours, days, weeks, months and years.
fn seconds(value: &str) -> Option<u64> {
    let (at, unit) = value.char_indices().next_back()?;
    let unit = match unit {
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'm' => 30 * 86_400,
        'y' => 365 * 86_400,
        _ => return None,
    };
    Some(value[..at].parse::<u64>().ok()?.checked_mul(unit)?.min(u64::from(u32::MAX)))
}

/// As TOML has it.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (Config, Vec<String>) {
        let imported = mosquitto(text);
        let config = Config::parse(Path::new("test"), &imported.text);
        (config.unwrap_or_else(|faults| panic!("{faults:?}\n{}", imported.text)), imported.left)
    }

    #[test]
    fn what_has_a_counterpart_is_taken_over_and_the_rest_is_named() {
        let (config, left) = checked(
            "# a comment\nlistener 1884 10.0.0.1\nlistener 1885\nprotocol mqtt\nlistener 9001\nprotocol websockets\n\
             password_file /etc/mosquitto/pass wd\nacl_file /etc/mosquitto/acl\nmax_inflight_messages 0\n\
             max_queued_messages 500\nallow_anonymous false\npersistent_client_expiration 2d\nlog_dest file /var/log/m.log\n\
             log_dest syslog\npersistence_location /var/lib/mosquitto/\ncafile /x\nconnection bridge\nmax_qos x\n",
        );
        let listen: Vec<String> = config.broker.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["10.0.0.1:1884", "[::]:1885", "[::]:9001"]);
        assert_eq!(config.auth.password_file.as_deref(), Some(Path::new("/etc/mosquitto/pass wd")));
        assert_eq!(config.auth.acl_file.as_deref(), Some(Path::new("/etc/mosquitto/acl")));
        assert_eq!((config.mqtt.max_inflight, config.mqtt.max_mqueue), (65_535, 500));
        assert_eq!((config.mqtt.allow_anonymous, config.mqtt.session_expiry_max_s), (false, 172_800));
        let named = ["protocol websockets", "log_dest syslog", "cafile /x", "connection bridge", "max_qos x"];
        assert_eq!(left.len(), named.len(), "{left:?}");
        for (line, name) in left.iter().zip(named) {
            assert!(line.starts_with("line ") && line.ends_with(name), "{line}");
        }
    }

    #[test]
    fn who_may_come_in_is_as_it_was() {
        let who = |text| {
            let (config, left) = checked(text);
            assert_eq!(left, [] as [&str; 0]);
            let local = config.broker.listen.iter().all(|addr| addr.ip().is_loopback());
            (local, config.mqtt.allow_anonymous, config.mqtt.anonymous_local_only)
        };
        assert_eq!(who(""), (true, true, false));
        assert_eq!(who("listener 1883\n"), (false, false, true));
        assert_eq!(who("port 1884\nallow_anonymous true\n"), (false, true, false));
        assert_eq!(who("bind_address localhost\n"), (true, false, true));
    }
}
