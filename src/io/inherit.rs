//! Sockets that outlive the program: a restart replaces the process by itself, and what it hands on stays open
//! meanwhile, so that no connection is refused.

use super::local::path_of;
use super::net::{check, local_address};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Listens for MQTT; its queue has connections that nobody has accepted yet.
    Mqtt,
    /// Keeps an address for this broker, see [`super::Reservation`].
    Held,
    /// Listens for HTTP.
    Http,
    /// Listens for MQTT at a path, see [`super::LocalSocket`].
    Local,
}

const NAMES: &[(&str, Role)] =
    &[("mqtt", Role::Mqtt), ("held", Role::Held), ("http", Role::Http), ("local", Role::Local)];

/// A socket that was handed on.
#[derive(Debug)]
pub struct Inherited {
    /// What it is for.
    pub role: Role,
    /// Where it is bound; of no meaning where it has a path.
    pub addr: SocketAddr,
    /// Its path, where it has one.
    pub path: Option<PathBuf>,
    /// The socket.
    pub socket: OwnedFd,
}

impl Inherited {
    /// Takes the first one of a role for an address out of a list; port 0 fits any.
    pub fn take(list: &mut Vec<Inherited>, role: Role, addr: SocketAddr) -> Option<OwnedFd> {
        let fits = |found: SocketAddr| {
            // `[::]` is `0.0.0.0` on a host without IPv6.
            let everywhere = found.ip().is_unspecified() && addr.ip().is_unspecified();
            (found.ip() == addr.ip() || everywhere) && (addr.port() == 0 || addr.port() == found.port())
        };
        let at = list.iter().position(|item| item.role == role && fits(item.addr))?;
        Some(list.remove(at).socket)
    }
}

impl Inherited {
    /// Takes the one that listens at a path out of a list.
    pub fn take_local(list: &mut Vec<Inherited>, path: &Path) -> Option<OwnedFd> {
        let fits = |item: &Inherited| item.role == Role::Local && item.path.as_deref() == Some(path);
        let at = list.iter().position(fits)?;
        Some(list.remove(at).socket)
    }
}

/// Makes sockets stay open when this process becomes another program, and tells them in words that
/// [`inherit`] understands there.
pub fn bequeath(sockets: &[(Role, OwnedFd)]) -> io::Result<String> {
    let mut words = Vec::new();
    for (role, socket) in sockets {
        let fd = socket.as_raw_fd();
        // SAFETY: F_SETFD takes no pointer.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        let name = NAMES.iter().find(|(_, known)| known == role).map_or("", |(name, _)| name);
        words.push(format!("{name}={fd}"));
    }
    Ok(format!("{};{}", std::process::id(), words.join(",")))
}

/// The sockets that this process kept for itself; none where the words are another process's. Call it once, before
/// anything else opens a descriptor.
pub fn inherit(words: &str) -> Vec<Inherited> {
    let Some((pid, words)) = words.split_once(';') else { return Vec::new() };
    if pid.parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    words.split(',').filter_map(one).collect()
}

fn one(word: &str) -> Option<Inherited> {
    let (name, fd) = word.split_once('=')?;
    let role = NAMES.iter().find(|(known, _)| *known == name)?.1;
    let fd: RawFd = fd.parse().ok().filter(|fd| *fd > 2)?;
    // SAFETY: F_SETFD takes no pointer. It fails where nothing is open.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
    // SAFETY: open, as was just seen, and left open by this process for this function alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = path_of(fd);
    let addr = match role {
        Role::Local => SocketAddr::from(([0; 4], 0)),
        _ => local_address(fd).ok()?,
    };
    Some(Inherited { role, addr, path, socket })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SocketOptions, bridge, reserve};

    #[test]
    fn sockets_are_found_again_by_role_and_address() {
        let held = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = held.addr();
        let listening = bridge(addr, SocketOptions::default()).unwrap();
        let words = bequeath(&[(Role::Held, held.into_socket()), (Role::Mqtt, listening)]).unwrap();
        assert!(words.starts_with(&format!("{};held=", std::process::id())), "{words}");
        // The numbers are closed by now; what is told of them is not taken for a socket of ours.
        let closed: Vec<_> = words.split(['=', ',']).filter_map(|n| n.parse::<RawFd>().ok()).collect();
        assert_eq!(closed.len(), 2);
        for other in
            ["", "x", "1;mqtt=99999", &format!("{};mqtt=1,mqtt=x,what=7,mqtt=99999", std::process::id())]
        {
            assert!(inherit(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn an_address_takes_its_own_and_port_0_any() {
        let item = |addr: &str, role| {
            let socket = bridge("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
            Inherited { role, addr: addr.parse().unwrap(), path: None, socket }
        };
        let mut list = vec![
            item("127.0.0.1:7", Role::Http),
            item("127.0.0.1:8", Role::Mqtt),
            item("0.0.0.0:9", Role::Mqtt),
        ];
        let mut take = |role, addr: &str| Inherited::take(&mut list, role, addr.parse().unwrap()).is_some();
        assert!(!take(Role::Mqtt, "127.0.0.1:7") && !take(Role::Mqtt, "127.0.0.2:0"));
        assert!(take(Role::Mqtt, "127.0.0.1:0") && !take(Role::Mqtt, "127.0.0.1:0"));
        assert!(take(Role::Mqtt, "[::]:9") && take(Role::Http, "127.0.0.1:7"));
    }
}
