//! Configuration: raw text → checked options.
//!
//! Each value comes from the last of these that has it: the built-in default, the file, what was changed over HTTP
//! and kept, the environment, `--set` and the other options of the command line. [`KEYS`] is the one table of what there is; unknown
//! keys are refused, all faults are told at once, and nothing is used before everything was checked.

mod document;
mod fault;
mod groups;
mod hot;
mod items;
mod keys;
mod options;
mod sources;
mod value;

#[cfg(test)]
mod tests;

pub use document::{document, key_list};
pub use fault::{Fault, Origin};
pub use groups::{LISTENER_KEYS, Zone};
pub use hot::{Assigned, keep};
pub use keys::{KEYS, Key};
pub use options::{BrokerOptions, Durability, IoChoice, MqttOptions, QueueFull, SharedStrategy};
pub use sources::Sources;
pub use value::{Kind, Value};

use crate::api::security::{DEFAULT_NAME, DEFAULT_PASSWORD};
use crate::api::{Auth, HttpOptions, Node};
use crate::auth::AuthOptions;
use crate::limits::HTTP_JWT_SECRET_BYTES_MIN;
use crate::listener::Listener;
use crate::log::LogOptions;
use groups::Target;
use sources::Collected;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that the broker is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// How this broker is called.
    pub node: Node,
    /// Threads, listeners and descriptors.
    pub broker: BrokerOptions,
    /// MQTT's rules.
    pub mqtt: MqttOptions,
    /// Who may connect.
    pub auth: AuthOptions,
    /// The log.
    pub log: LogOptions,
    /// The HTTP API.
    pub http: HttpOptions,
    /// Listeners with tables of their own; [`Config::all_listeners`] has those of `mqtt.listen` too.
    pub listeners: Vec<Listener>,
    /// Values for some listeners alone.
    pub zones: Vec<Zone>,
}

/// A configuration that was read without a fault.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What should be logged as a warning: variables that look like keys and are none.
    pub notes: Vec<String>,
}

/// What SIGHUP changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Keys whose new value is used from now on.
    pub applied: Vec<String>,
    /// Keys whose new value needs a restart.
    pub restart: Vec<String>,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the sources.
    pub fn load(sources: &Sources) -> Result<Loaded, Vec<Fault>> {
        let read = |kept: Option<&Path>| {
            let mut read = Collected::default();
            sources.file.iter().map(PathBuf::as_path).chain(kept).for_each(|path| read.read_file(path));
            read.read_environment(&sources.environment);
            read.read_arguments(&sources.arguments);
            Config::build(read)
        };
        let loaded = read(None)?;
        // Only now it is known where that file is.
        let kept = loaded.config.kept_file(sources);
        if sources.kept && kept.exists() { read(Some(&kept)) } else { Ok(loaded) }
    }

    /// Reads the text of a file alone; `path` is for the errors.
    ///
    /// # Errors
    /// Everything that is wrong, from top to bottom.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<Fault>> {
        let mut read = Collected::default();
        read.read_toml(path, text);
        Config::build(read).map(|loaded| loaded.config)
    }

    fn build(read: Collected) -> Result<Loaded, Vec<Fault>> {
        let mut config = Config::default();
        let mut faults = read.faults;
        let mut addressed = false;
        for item in read.assignments {
            addressed |= matches!(item.target, Target::Key(key) if key.name == "mqtt.listen");
            if let Err(what) = item.target.set(&mut config, item.value) {
                faults.push(Fault::of_key(item.origin, &item.target.name(), what));
            }
        }
        // Who names listeners gets these, and not the usual one beside them.
        if !addressed && !config.listeners.is_empty() {
            config.broker.listen.clear();
        }
        if faults.is_empty() {
            faults = config.check();
        }
        if faults.is_empty() { Ok(Loaded { config, notes: read.notes }) } else { Err(faults) }
    }

    /// What must hold between keys.
    fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, what: String| faults.push(Fault::of_key(Origin::Together, key, what));
        let (queue, packet) = (self.mqtt.max_mqueue_bytes, self.mqtt.max_packet_size);
        if queue < u64::from(packet) {
            let rule = "a packet that is accepted must fit a session's queue";
            let what =
                format!("expected at least mqtt.max_packet_size ({packet} bytes), got {queue}; {rule}");
            fault("mqtt.max_mqueue_bytes", what);
        }
        if let Some(addr) = self.http.reachable().filter(|_| self.http.auth == Auth::None) {
            let what =
                format!("expected \"required\": http.listen has {addr}, which other machines may reach");
            fault("http.auth", what);
        } else if let Some(addr) = self.http.reachable().filter(|_| !self.http.has_credentials()) {
            let why =
                format!("other machines may reach it, and {DEFAULT_NAME}/{DEFAULT_PASSWORD} is known to all");
            let how = "set http.users (`ringmq hash-password` makes the hash), http.bearer_tokens, http.jwt_secret \
                       or http.jwt_public_key, or listen on 127.0.0.1";
            fault("http.listen", format!("{addr}: {why}; {how}"));
        }
        let secret = self.http.jwt_secret.text().len();
        if secret > 0 && secret < HTTP_JWT_SECRET_BYTES_MIN {
            fault(
                "http.jwt_secret",
                format!("expected at least {HTTP_JWT_SECRET_BYTES_MIN} bytes, got {secret}"),
            );
        }
        self.check_listeners(&mut faults);
        faults
    }

    /// The configuration to go on with when `new` was read at run time: this one, with what can be changed
    /// without a restart.
    pub fn reload(&self, new: &Config) -> (Config, Changes) {
        let mut next = self.clone();
        let mut changes = Changes::default();
        for key in KEYS {
            let value = (key.get)(new);
            if value == (key.get)(self) {
                continue;
            }
            if key.live && (key.set)(&mut next, value).is_ok() {
                changes.applied.push(key.name.to_owned());
            } else {
                changes.restart.push(key.name.to_owned());
            }
        }
        next.reload_listeners(new, &mut changes);
        (next, changes)
    }
}

/// Why an address cannot be listened on, and what to do, in one line. `key` is `mqtt.listen` or
/// `http.listen`, `option` its command-line option.
pub fn listen_fault(addr: SocketAddr, error: &std::io::Error, key: &str, option: &str) -> String {
    use std::io::ErrorKind;
    let choose = format!("choose another with {option} ADDR or {key}");
    let what = match error.kind() {
        ErrorKind::AddrInUse => format!("the port is in use; stop what uses it, or {choose}"),
        ErrorKind::AddrNotAvailable => format!("this machine does not have that address; {choose}"),
        ErrorKind::PermissionDenied => {
            format!("a port below 1024 needs CAP_NET_BIND_SERVICE or root; grant it, or {choose}")
        }
        // EAFNOSUPPORT, for which std has no name.
        _ if addr.is_ipv6() && error.raw_os_error() == Some(97) => {
            format!("this machine has no IPv6; use {option} 0.0.0.0:{}", addr.port())
        }
        _ => format!("{error}; {choose}"),
    };
    format!("cannot listen on {addr}: {what}")
}
