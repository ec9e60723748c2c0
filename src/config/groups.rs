//! Tables of which there may be any number, each with a name of its own: `[listeners.NAME]`.

use super::fault::UNKNOWN;
use super::keys::{KEYS, Key, LIVE, RESTART, keys, names, nearest, number};
use super::value::{Field, Kind, Value};
use super::{Changes, Config, Fault, MqttOptions, Origin};
use crate::io::SOCKET_PATH_BYTES_MAX;
use crate::limits::{LISTENER_NAME_BYTES_MAX, LISTENERS_MAX, MOUNTPOINT_BYTES_MAX, WS_PATH_BYTES_MAX};
use crate::listener::{self, Listener, mount};
use crate::transport::{ClientCertificates, NameFrom};
use std::net::SocketAddr;

/// The section of listeners.
pub(super) const LISTENERS: &str = "listeners";

/// How the listeners of `mqtt.listen` are called; from the second on with a number behind it.
const DEFAULT: &str = "default";

/// Keys for which the peer's address must be known, which is asked for from the start or not at all.
const ADDRESSED: &[&str] = &["allow", "deny", "proxy_protocol", "x_forwarded_for", "proxy_from"];

/// The section of zones.
pub(super) const ZONES: &str = "zones";

/// Values of keys of `mqtt` that hold for some listeners alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its name.
    pub name: Box<str>,
    /// Names of keys, with their section, and values.
    values: Vec<(&'static str, Value)>,
}

/// The keys of a listener, in the order in which `etc/ringmq.toml` shows them.
pub const LISTENER_KEYS: &[Key<Listener>] = keys! {
    "bind" bind RESTART Kind::Bind,
        "Address and port that it serves. `[::]` takes IPv4 and IPv6; a port alone means the same; port 0 takes a free one.";
    "kind" kind RESTART names!(listener::Kind),
        "What it speaks below MQTT: nothing but TCP, TLS, WebSocket, WebSocket in TLS, or nothing but a socket in the file system.";
    "socket" path RESTART Kind::Path,
        "With `kind = \"unix\"`, in place of `bind`: where its socket is in the file system. One on which nobody listens any more is replaced.";
    "mode" mode RESTART Kind::Text { bytes_max: 4 },
        "The permissions of that socket, as for chmod: who may write to it may connect.";
    "backlog" socket.backlog RESTART number("connections", 0, 65_535),
        "Connections that may wait to be accepted, for each shard. The kernel cuts it to `net.core.somaxconn`. 0: `broker.backlog`.";
    "nodelay" socket.nodelay RESTART Kind::Flag,
        "Whether small packets leave at once (TCP_NODELAY).";
    "keepalive_s" socket.keepalive_s RESTART number("seconds", 0, 32_767),
        "Silence after which the kernel probes whether the peer's machine is still there, whatever MQTT's keep alive. 0: it does not.";
    "keepalive_interval_s" socket.keepalive_interval_s RESTART number("seconds", 1, 32_767),
        "Time between two such probes.";
    "keepalive_probes" socket.keepalive_probes RESTART number("probes", 1, 127),
        "Probes without an answer after which a connection is dead.";
    "recbuf" socket.receive_buffer_bytes RESTART number("bytes", 0, 1 << 30),
        "The kernel's receive buffer of each connection. 0: as the kernel decides.";
    "sndbuf" socket.send_buffer_bytes RESTART number("bytes", 0, 1 << 30),
        "The kernel's send buffer of each connection. 0: as the kernel decides.";
    "zone" zone LIVE Kind::Text { bytes_max: LISTENER_NAME_BYTES_MAX },
        "The zone whose values hold for its clients, see [zones.NAME] below. Empty: those of [mqtt].";
    "mountpoint" mountpoint LIVE Kind::Text { bytes_max: MOUNTPOINT_BYTES_MAX },
        "What stands before every topic of a client that connects from then on, such as \"site/%c/\", without its knowing: in what it publishes, subscribes to (behind `$share/name/`) and leaves as its will. `%c` is its client identifier and `%u` its user name; whose has a `/`, `+` or `#` is refused then. Empty: nothing.";
    "max_connections" max_connections LIVE number("connections", 0, 100_000_000),
        "Connections at a time, on all shards together. Those beyond it are answered with 0x97 (3.x: 3). 0: `broker.max_connections` alone counts.";
    "max_conn_rate" max_conn_rate LIVE number("connections per second", 0, 1_000_000),
        "Connections in a second, on all shards together; after a second without any, so many at once. Those beyond it are answered with 0x9F (3.x: 3). 0: no bound.";
    "max_conn_rate_per_address" max_conn_rate_per_address LIVE number("connections per second", 0, 1_000_000),
        "The same for those that come from one address (IPv6: one network of 64 bits). Those beyond it are answered in the same way; behind a proxy they are closed. Very many addresses at once may share. 0: no bound.";
    "allow" access.allow LIVE Kind::Texts("networks"),
        "Networks and addresses that may connect, such as [\"10.0.0.0/8\", \"::1\"]; others are closed at once. Empty: all may.";
    "deny" access.deny LIVE Kind::Texts("networks"),
        "Networks and addresses that may not connect, even where `allow` has them.";
    "proxy_protocol" proxy_protocol LIVE Kind::Flag,
        "Whether each connection begins with a header of the PROXY protocol, version 1 or 2. The address in it is the client's from then on, also for `allow` and `deny`.";
    "x_forwarded_for" x_forwarded_for LIVE Kind::Flag,
        "Of `ws` and `wss`: whether the client's address is what X-Forwarded-For says, also for `allow` and `deny`, where the request comes from one of `proxy_from`. The last address in it that is none of these counts; without it, the proxy's own. Others are not believed.";
    "proxy_from" proxy_from LIVE Kind::Texts("networks"),
        "With `proxy_protocol` or `x_forwarded_for`: networks and addresses of the proxies. With `proxy_protocol`, others are closed at once.";
    "proxy_timeout_s" proxy_timeout_s LIVE number("seconds", 1, 3_600),
        "With `proxy_protocol`: a connection without a whole header is closed after this time.";
    "certificate" tls.certificates LIVE Kind::Texts("paths of files"),
        "Of `tls` and `wss`: files with a chain of certificates each, in PEM. A client gets the first that has the name it asks for (SNI), else the first. All files of a listener are read again on SIGHUP, when asked over HTTP, and when one has changed; connections stay, and with a fault in a file the old ones stay in use.";
    "key" tls.keys LIVE Kind::Texts("paths of files"),
        "The private key of each file of `certificate`, at the same place, in PEM and without a passphrase.";
    "tls_min" tls.version_min LIVE names!(listener::TlsVersion),
        "The oldest TLS that is spoken.";
    "client_certificate" tls.clients LIVE names!(ClientCertificates),
        "Whether a client is asked for a certificate: never, or it may show one, or it must. One that is shown must be signed by `ca`.";
    "ca" tls.authorities LIVE Kind::Texts("paths of files"),
        "Certificates of the authorities that sign those of clients, in PEM.";
    "crl" tls.revoked LIVE Kind::Texts("paths of files"),
        "Lists of clients' certificates that were revoked, in PEM; with any, each authority must have one.";
    "username_from" tls.username LIVE names!(NameFrom),
        "What of a client's certificate is its user name, whatever CONNECT says: the common name, the distinguished name, or the first alternative name. It needs no password. A certificate without it is refused.";
    "client_id_from" tls.client_id LIVE names!(NameFrom),
        "The same for its client identifier.";
    "path" websocket.path LIVE Kind::Text { bytes_max: WS_PATH_BYTES_MAX },
        "Of `ws` and `wss`: the path that clients ask for. Empty: any.";
    "origins" websocket.origins LIVE Kind::Texts("origins"),
        "Of `ws` and `wss`: web pages that may connect, such as `https://example.org`; programs, which send no origin, always may. Empty: all.";
    "max_frame_bytes" websocket.frame_bytes_max LIVE number("bytes", 1_024, 1 << 40),
        "Of `ws` and `wss`: the largest frame. A larger one is answered with the close code 1009.";
};

/// A listener as the documentation shows it.
pub(super) fn example() -> Listener {
    Listener { bind: Some(SocketAddr::from(([127, 0, 0, 1], 1884))), ..Listener::new("NAME") }
}

/// What a value is for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A key that there is once.
    Key(&'static Key),
    /// A key of a listener of this name.
    Listener(Box<str>, &'static Key<Listener>),
    /// A key of `mqtt`, for a zone of this name.
    Zone(Box<str>, &'static Key),
}

impl Target {
    /// What a dotted name stands for; else what is wrong with it.
    pub fn find(name: &str) -> Result<Target, String> {
        if let Some(key) = Key::find(name) {
            return Ok(Target::Key(key));
        }
        let parts: Vec<_> = name.split('.').collect();
        match parts[..] {
            [LISTENERS, listener, key] => {
                check_name(listener)?;
                match LISTENER_KEYS.iter().find(|known| known.name == key) {
                    Some(key) => Ok(Target::Listener(listener.into(), key)),
                    None => Err(match nearest(LISTENER_KEYS, key) {
                        Some(near) => {
                            format!("unknown key; did you mean {LISTENERS}.{listener}.{}?", near.name)
                        }
                        None => UNKNOWN.to_owned(),
                    }),
                }
            }
            [ZONES, zone, key] => {
                check_name(zone)?;
                match Key::find(&format!("mqtt.{key}")) {
                    Some(key) if key.zoned => Ok(Target::Zone(zone.into(), key)),
                    Some(key) => Err(format!("a zone cannot have it; {} holds for all", key.name)),
                    None => Err(Fault::unknown(&format!("mqtt.{key}"))),
                }
            }
            _ => Err(Fault::unknown(name)),
        }
    }

    /// What an environment variable stands for: `RINGMQ_LISTENERS_NAME_KEY`, with a name in small letters.
    pub fn of_variable(name: &str) -> Option<Target> {
        if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
            return Some(Target::Key(key));
        }
        // The longest key, where one ends with another.
        let longest = |rest: &str, names: &mut dyn Iterator<Item = &'static str>| {
            let ends =
                names.filter_map(|key| Some((rest.strip_suffix(key)?.strip_suffix('_')?.to_owned(), key)));
            let (name, key) = ends.min_by_key(|(name, _)| name.len())?;
            Some(format!("{name}.{key}"))
        };
        let name = name.strip_prefix("RINGMQ_")?.to_lowercase();
        let found = if let Some(rest) = name.strip_prefix("listeners_") {
            format!("{LISTENERS}.{}", longest(rest, &mut LISTENER_KEYS.iter().map(|key| key.name))?)
        } else {
            let rest = name.strip_prefix("zones_")?;
            let zoned = KEYS.iter().filter(|key| key.zoned).map(|key| key.parts().1);
            format!("{ZONES}.{}", longest(rest, &mut zoned.into_iter())?)
        };
        Target::find(&found).ok()
    }

    /// Section, name and key.
    pub fn name(&self) -> String {
        match self {
            Target::Key(key) => key.name.to_owned(),
            Target::Listener(name, key) => format!("{LISTENERS}.{name}.{}", key.name),
            Target::Zone(name, key) => format!("{ZONES}.{name}.{}", key.parts().1),
        }
    }

    /// What it accepts.
    pub fn kind(&self) -> Kind {
        match self {
            Target::Key(key) | Target::Zone(_, key) => key.kind,
            Target::Listener(_, key) => key.kind,
        }
    }

    /// Sets it to a value that its kind accepted.
    pub fn set(&self, config: &mut Config, value: Value) -> Result<(), String> {
        match self {
            Target::Key(key) => (key.set)(config, value),
            Target::Listener(name, key) => {
                let at = config.listeners.iter().position(|listener| listener.name == *name);
                let at = at.unwrap_or_else(|| {
                    config.listeners.push(Listener::new(name));
                    config.listeners.len() - 1
                });
                (key.set)(&mut config.listeners[at], value)
            }
            Target::Zone(name, key) => {
                // Whether the field takes it is seen now, not when it is used.
                (key.set)(&mut Config::default(), value.clone())?;
                let at = config.zones.iter().position(|zone| zone.name == *name);
                let at = at.unwrap_or_else(|| {
                    config.zones.push(Zone { name: name.clone(), values: Vec::new() });
                    config.zones.len() - 1
                });
                let values = &mut config.zones[at].values;
                values.retain(|(known, _)| *known != key.name);
                values.push((key.name, value));
                Ok(())
            }
        }
    }
}

/// What is wrong with where a listener is, by key.
fn check_place(listener: &Listener) -> Option<(&'static str, String)> {
    let unix = listener.kind == listener::Kind::Unix;
    let lists = !listener.access.is_open() && !listener.proxy_protocol;
    let len = listener.path.as_ref().map(|path| path.as_os_str().len());
    match (len, listener.bind) {
        (None, _) if unix => Some(("socket", "expected a path, got none".to_owned())),
        (Some(len), _) if unix && len > SOCKET_PATH_BYTES_MAX => {
            Some(("socket", format!("expected a path of at most {SOCKET_PATH_BYTES_MAX} bytes, got {len}")))
        }
        (_, Some(_)) if unix => {
            Some(("bind", "expected none: a listener of kind \"unix\" has a socket".to_owned()))
        }
        (Some(_), _) if !unix => {
            Some(("socket", "expected none: only kind = \"unix\" has a socket".to_owned()))
        }
        (_, None) if !unix => Some(("bind", "expected an address with a port, got none".to_owned())),
        _ if unix && listener.mode_bits().is_none() => {
            Some(("mode", format!("expected permissions such as \"660\", got {:?}", listener.mode)))
        }
        _ if unix && lists => {
            let what = "expected none: who comes through the file system has no address, see mode";
            Some((if listener.access.allow.is_empty() { "deny" } else { "allow" }, what.to_owned()))
        }
        _ => None,
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.len() <= LISTENER_NAME_BYTES_MAX && name.bytes().all(fits) {
        return Ok(());
    }
    let form = "letters, digits, `_` and `-`";
    Err(format!("expected a name of 1 to {LISTENER_NAME_BYTES_MAX} {form} for it, got {name:?}"))
}

impl Config {
    /// All listeners, by number: those of `mqtt.listen`, then those with tables of their own.
    pub fn all_listeners(&self) -> Vec<Listener> {
        let of_addresses = self.broker.listen.iter().enumerate().map(|(at, addr)| {
            let name = if at == 0 { DEFAULT.to_owned() } else { format!("{DEFAULT}-{}", at + 1) };
            Listener { bind: Some(*addr), ..Listener::new(&name) }
        });
        let mut all: Vec<_> = of_addresses.chain(self.listeners.iter().cloned()).collect();
        for listener in all.iter_mut().filter(|listener| listener.socket.backlog == 0) {
            listener.socket.backlog = self.broker.backlog;
        }
        all
    }

    /// MQTT's rules for the clients of a listener, where they are not those of everybody.
    pub fn rules_of(&self, listener: &Listener) -> Option<MqttOptions> {
        let zone = self.zones.iter().find(|zone| zone.name == listener.zone)?;
        let mut with = Config { mqtt: self.mqtt.clone(), ..Config::default() };
        for (name, value) in &zone.values {
            let key = Key::find(name).expect("a zone has keys of the table");
            (key.set)(&mut with, value.clone()).expect("its field took the value before");
        }
        Some(with.mqtt)
    }

    /// What must hold between listeners and zones.
    fn check_zone(&self, listener: &Listener) -> Option<(String, String)> {
        if listener.zone.is_empty() {
            return None;
        }
        let Some(rules) = self.rules_of(listener) else {
            let key = format!("{LISTENERS}.{}.zone", listener.name);
            return Some((key, format!("expected the name of a zone, got {:?}", listener.zone)));
        };
        let (queue, packet) = (rules.max_mqueue_bytes, rules.max_packet_size);
        (queue < u64::from(packet)).then(|| {
            let what = format!("expected at least max_packet_size ({packet} bytes), got {queue}");
            (format!("{ZONES}.{}.max_mqueue_bytes", listener.zone), what)
        })
    }

    /// What must hold between listeners.
    pub(super) fn check_listeners(&self, faults: &mut Vec<Fault>) {
        let all = self.all_listeners();
        let mut fault = |key: String, what: String| faults.push(Fault::of_key(Origin::Together, &key, what));
        if all.is_empty() {
            let what = "expected at least one address, got none, and no listener has a table".to_owned();
            fault("mqtt.listen".to_owned(), what);
        }
        if all.len() > LISTENERS_MAX {
            let what = format!("expected at most {LISTENERS_MAX}, got {}", all.len());
            fault(LISTENERS.to_owned(), what);
        }
        for (at, listener) in all.iter().enumerate() {
            let key = format!("{LISTENERS}.{}", listener.name);
            if all[..at].iter().any(|other| other.name == listener.name) {
                fault(key.clone(), "the name is one of mqtt.listen's; choose another".to_owned());
            }
            if let Some((key, what)) = self.check_zone(listener) {
                fault(key, what);
            }
            let is_local = listener.kind == listener::Kind::Unix;
            if let Some((name, what)) = check_place(listener) {
                fault(format!("{key}.{name}"), what);
            }
            let same = |other: &&Listener| is_local && other.path.is_some() && other.path == listener.path;
            if let Some(other) = all[..at].iter().find(same) {
                fault(format!("{key}.socket"), format!("it is the listener {}'s already", other.name));
            }
            if listener.x_forwarded_for && !listener.kind.has_websocket() {
                let what = "expected kind = \"ws\" or \"wss\", for others have no headers".to_owned();
                fault(format!("{key}.x_forwarded_for"), what);
            }
            let proxied = listener.proxy_protocol || listener.x_forwarded_for;
            if proxied && listener.proxy_from.is_empty() && !is_local {
                let what = "expected the networks or addresses of the proxies, got none".to_owned();
                fault(format!("{key}.proxy_from"), what);
            }
            if let Err(what) = mount::check(&listener.mountpoint) {
                fault(format!("{key}.mountpoint"), what);
            }
            if let Some((name, what)) = listener.kind.has_tls().then(|| listener.tls.fault()).flatten() {
                fault(format!("{key}.{name}"), what);
            }
            let Some(bind) = listener.bind else {
                continue;
            };
            if bind.port() == 0 {
                continue;
            }
            if let Some(other) = all[..at].iter().find(|other| other.bind == Some(bind)) {
                fault(format!("{key}.bind"), format!("{bind} is the listener {}'s already", other.name));
            }
            if self.http.listen.contains(&bind) {
                let of =
                    if self.broker.listen.contains(&bind) { "mqtt.listen" } else { &format!("{key}.bind") };
                fault("http.listen".to_owned(), format!("{bind} is in {of} too; choose another port"));
            }
        }
    }

    /// Takes over of `new` what listeners can change while the broker runs.
    pub(super) fn reload_listeners(&mut self, new: &Config, changes: &mut Changes) {
        let named = |list: &[Listener], name: &str| list.iter().position(|listener| *listener.name == *name);
        for listener in &new.listeners {
            let Some(at) = named(&self.listeners, &listener.name) else {
                changes.restart.push(format!("{LISTENERS}.{}", listener.name));
                continue;
            };
            for key in LISTENER_KEYS {
                let value = (key.get)(listener);
                if value == (key.get)(&self.listeners[at]) {
                    continue;
                }
                let unnamed = !self.broker.peer_address && ADDRESSED.contains(&key.name);
                let applied = key.live && !unnamed && (key.set)(&mut self.listeners[at], value).is_ok();
                let list = if applied { &mut changes.applied } else { &mut changes.restart };
                list.push(format!("{LISTENERS}.{}.{}", listener.name, key.name));
            }
        }
        let gone = self.listeners.iter().filter(|listener| named(&new.listeners, &listener.name).is_none());
        changes.restart.extend(gone.map(|listener| format!("{LISTENERS}.{}", listener.name)));
        let zone = |list: &[Zone], name: &str| list.iter().find(|zone| *zone.name == *name).cloned();
        let names = self.zones.iter().chain(&new.zones).map(|zone| zone.name.clone());
        let mut changed: Vec<_> =
            names.filter(|name| zone(&self.zones, name) != zone(&new.zones, name)).collect();
        changed.sort_unstable();
        changed.dedup();
        changes.applied.extend(changed.iter().map(|name| format!("{ZONES}.{name}")));
        self.zones.clone_from(&new.zones);
    }
}
