//! What the service manager is told (`sd_notify`): that the broker serves, reloads, stops, and that it is alive.
//!
//! One datagram for each message, to the socket that `NOTIFY_SOCKET` names; without it nothing is sent. Nothing
//! waits: a message that does not fit into the socket's queue is dropped, and those that matter are repeated.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Parts of the watchdog's time in which it is told once: a message may be lost, or late, without harm.
const TOLD_PER_PERIOD: u32 = 4;

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment of this process says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Notify {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let Some(path) = variable("NOTIFY_SOCKET") else { return Notify::default() };
        // The watchdog may be meant for another process that we are a child of.
        let ours =
            variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let watchdog = number("WATCHDOG_USEC").filter(|us| ours && *us > 0).map(Duration::from_micros);
        match connect(&path) {
            Ok(socket) => Notify { socket: Some(socket), watchdog },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET: the service manager cannot be told anything");
                Notify::default()
            }
        }
    }

    /// How often it wants [`Notify::alive`]; `None`: never.
    pub fn every(&self) -> Option<Duration> {
        self.watchdog.map(|period| (period / TOLD_PER_PERIOD).max(Duration::from_millis(1)))
    }

    /// Clients are served, and the configuration is read.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()));
    }

    /// The configuration is being read again; [`Notify::ready`] follows.
    pub fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=reading the configuration again");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Everything moves on.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, "the service manager was not told {message:?}");
        }
    }
}

/// `/path`, or `@name` for one without a file.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_file_are_reached_too() {
        let name = format!("ringmq-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        let notify = Notify { socket: Some(socket), watchdog: Some(Duration::from_secs(2)) };
        notify.alive();
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"WATCHDOG=1");
        assert_eq!(notify.every(), Some(Duration::from_millis(500)));
        drop(manager);
        // Nobody is there any more, which is no reason to fail.
        notify.stopping();
        assert!(connect(OsStr::new("/nowhere/at/all")).is_err());
    }
}
