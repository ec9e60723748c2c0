//! Listening sockets in the file system.
//!
//! One socket listens, and all shards accept from it: what `SO_REUSEPORT` does for ports does not exist here. It is
//! made under another name, given its permissions, and put in its place in one step: nobody can connect before the
//! permissions hold, and whoever connects meanwhile reaches the one that was there before.

use super::SocketOptions;
use super::net::{check, stream_of};
use std::fs::{Permissions, remove_file, rename, set_permissions, symlink_metadata};
use std::io::{Error, ErrorKind, Result};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a socket's name ends with until it is in its place.
const NEW: &str = ".new";
/// Bytes of a path at most: those of the kernel's address, less the end of text and [`NEW`].
pub const SOCKET_PATH_BYTES_MAX: usize = 108 - 1 - NEW.len();

/// A listening socket with a path, which is removed with it unless another one has taken its place.
#[derive(Debug)]
pub struct LocalSocket {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the path.
    file: (u64, u64),
    kept: bool,
}

impl LocalSocket {
    /// Listens at `path`, whose permissions become `mode`. A socket of an earlier run on which nobody listens any
    /// more is replaced.
    ///
    /// # Errors
    /// `AddrInUse`: somebody listens there. `AlreadyExists`: something is there that is no socket. Others as the
    /// system has them.
    pub fn listen(path: &Path, mode: u32, options: SocketOptions) -> Result<LocalSocket> {
        if let Ok(found) = symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            if is_listened_on(path)? {
                return Err(ErrorKind::AddrInUse.into());
            }
        }
        LocalSocket::replace(path, mode, options)
    }

    /// The same, also while somebody listens there: this process, which starts again.
    ///
    /// # Errors
    /// As the system has them.
    pub fn replace(path: &Path, mode: u32, options: SocketOptions) -> Result<LocalSocket> {
        let mut new = path.as_os_str().to_owned();
        new.push(NEW);
        let new = PathBuf::from(new);
        if symlink_metadata(&new).is_ok_and(|found| found.file_type().is_socket()) {
            remove_file(&new)?;
        }
        let socket = stream_of(libc::AF_UNIX)?;
        bind(socket.as_raw_fd(), &new)?;
        let put = || {
            set_permissions(&new, Permissions::from_mode(mode))?;
            let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
            // SAFETY: listen takes no pointer.
            check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
            rename(&new, path)?;
            symlink_metadata(path)
        };
        match put() {
            Ok(file) => {
                let (path, file) = (path.to_owned(), (file.dev(), file.ino()));
                Ok(LocalSocket { socket: Arc::new(socket), path, file, kept: false })
            }
            Err(error) => {
                let _ = remove_file(&new);
                Err(error)
            }
        }
    }

    /// What an earlier run of this process left open at `path`.
    ///
    /// # Errors
    /// As the system has them.
    pub fn adopt(path: &Path, socket: OwnedFd) -> Result<LocalSocket> {
        let file = symlink_metadata(path)?;
        Ok(LocalSocket {
            socket: Arc::new(socket),
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            kept: false,
        })
    }

    /// The socket, for those who accept.
    pub fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }

    /// The socket once more, to be kept beyond the end of this process; its path stays.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn keep(&mut self) -> Result<OwnedFd> {
        let kept = self.socket.try_clone()?;
        self.kept = true;
        Ok(kept)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let ours = |found: std::fs::Metadata| (found.dev(), found.ino()) == self.file;
        if !self.kept && symlink_metadata(&self.path).is_ok_and(ours) {
            // What cannot be removed is replaced at the next start.
            let _ = remove_file(&self.path);
        }
    }
}

/// Whether somebody listens on a socket of the file system; also with a full queue.
fn is_listened_on(path: &Path) -> Result<bool> {
    let (socket, raw) = (stream_of(libc::AF_UNIX)?, address(path)?);
    // SAFETY: a socket address of the length given, alive during the call.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), ADDRESS_BYTES) }) {
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
        Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
        _ => Ok(true),
    }
}

fn bind(fd: RawFd, path: &Path) -> Result<()> {
    let raw = address(path)?;
    // SAFETY: a socket address of the length given, alive during the call.
    check(unsafe { libc::bind(fd, (&raw const raw).cast(), ADDRESS_BYTES) }).map(drop)
}

const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// A path as the kernel reads it, with the zero that ends it.
fn address(path: &Path) -> Result<libc::sockaddr_un> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() >= raw.sun_path.len() {
        return Err(Error::from(ErrorKind::InvalidFilename));
    }
    for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(raw)
}

/// The path at which a socket listens, if it is one with a path.
pub(super) fn path_of(fd: RawFd) -> Option<PathBuf> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { zeroed() };
    let mut len = ADDRESS_BYTES;
    // SAFETY: room for such an address, its length beside it; a longer one is cut.
    check(unsafe { libc::getsockname(fd, (&raw mut raw).cast(), &mut len) }).ok()?;
    if i32::from(raw.sun_family) != libc::AF_UNIX {
        return None;
    }
    let bytes: Vec<u8> = raw.sun_path.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    let bytes = bytes.strip_suffix(NEW.as_bytes()).unwrap_or(&bytes).to_vec();
    (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn place(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringmq-local-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder.join("s")
    }

    fn listen(path: &Path) -> Result<LocalSocket> {
        LocalSocket::listen(path, 0o640, SocketOptions::default())
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let path = place("mode");
        let held = listen(&path).unwrap();
        assert_eq!(symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        UnixStream::connect(&path).unwrap();
        assert_eq!(path_of(held.socket().as_raw_fd()).as_ref(), Some(&path));
        assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(held);
        assert!(fs::read_dir(path.parent().unwrap()).unwrap().next().is_none(), "nothing is left");
    }

    #[test]
    fn what_is_stale_is_replaced_and_what_is_no_socket_is_left() {
        let path = place("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody removed it");
        let held = listen(&path).unwrap();
        drop(held);
        fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn one_that_was_replaced_does_not_take_its_successors_path_away() {
        let path = place("twice");
        let mut first = listen(&path).unwrap();
        let second = LocalSocket::replace(&path, 0o600, SocketOptions::default()).unwrap();
        let kept = first.keep().unwrap();
        assert_eq!(path_of(kept.as_raw_fd()).as_ref(), Some(&path));
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let path = place("long").with_file_name("x".repeat(108));
        assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::InvalidFilename);
    }
}
