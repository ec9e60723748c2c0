//! What becomes of the listeners of a configuration: their sockets, and what is said where there can be none.

use crate::config::{Config, IoChoice, listen_fault};
use crate::io::{Chosen, Inherited, LocalSocket};
use crate::listener::{Entrance, Listener};
use crate::sync::Gate;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

/// The socket of a listener with a path: what an earlier run left open, or a new one.
pub(super) fn open_local(
    listener: &Listener,
    path: &Path,
    inherited: &mut Vec<Inherited>,
) -> std::io::Result<LocalSocket> {
    match Inherited::take_local(inherited, path) {
        Some(socket) => LocalSocket::adopt(path, socket),
        None => LocalSocket::listen(path, listener.mode_bits().unwrap_or(0), listener.socket),
    }
}

pub(super) fn cannot_listen_at(listener: &Listener, path: &Path, error: &std::io::Error) -> String {
    let (path, key) = (path.display(), format!("listeners.{}.socket", listener.name));
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("cannot listen on {path}: another process does; stop it, or choose another {key}")
        }
        ErrorKind::AlreadyExists => {
            format!(
                "cannot listen on {path}: something is there that is no socket; remove it, or choose another {key}"
            )
        }
        _ => format!("cannot listen on {path}: {error}; choose another {key}"),
    }
}

/// Whether the driver can tell the addresses that listeners judge by; another one is taken where that is allowed.
pub(super) fn check_addresses(
    config: &Config,
    listeners: &[Listener],
    chosen: &mut Chosen,
) -> Result<(), String> {
    let blind = chosen.features.as_ref().is_some_and(|features| !features.peer_address);
    let Some(listener) = listeners.iter().find(|l| blind && l.needs_addresses()) else { return Ok(()) };
    let what =
        format!("the listener {} needs addresses, which io_uring of this kernel cannot tell", listener.name);
    if config.broker.io == IoChoice::Uring {
        return Err(format!("{what}; use --io epoll, or a kernel from 6.8 on"));
    }
    tracing::warn!("{what}; epoll is used, which costs more CPU");
    chosen.features = None;
    Ok(())
}

/// The listeners of a configuration with their gates.
pub(super) fn entrances(config: &Config, gates: &[Gate]) -> Vec<Entrance> {
    let all = config.all_listeners().into_iter().zip(gates);
    all.map(|(listener, gate)| {
        let zone = config.rules_of(&listener).map(Box::new);
        Entrance { listener, zone, gate: gate.clone() }
    })
    .collect()
}

pub(super) fn cannot_listen(
    config: &Config,
    listener: &Listener,
    addr: SocketAddr,
    error: &std::io::Error,
) -> String {
    if config.listeners.iter().all(|known| known.name != listener.name) {
        return listen_fault(addr, error, "mqtt.listen", "--mqtt");
    }
    let key = format!("listeners.{}.bind", listener.name);
    listen_fault(addr, error, &key, &format!("--set {key}="))
}
