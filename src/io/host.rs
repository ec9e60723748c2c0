//! What the kernel says about the machine and has no file for.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that are free for us, and all bytes, of the file system that `path` is on.
pub fn disk_bytes(path: &Path) -> Option<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a value of it, which the call fills.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path, and room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), &mut found) } != 0 {
        return None;
    }
    let unit = found.f_frsize as u64;
    Some((found.f_bavail as u64 * unit, found.f_blocks as u64 * unit))
}

/// The calling thread leaves cores to others that want them. Where that is refused, it stays as it was.
pub fn be_nice() {
    // SAFETY: a call without pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// A write beyond the limit on the size of files fails from now on, as one on a full disk does; it would end the process.
pub fn survive_large_files() {
    // SAFETY: a call without pointers; what it replaces is the default, which nobody follows.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_room_and_what_is_not_there_has_none() {
        let (free, all) = disk_bytes(Path::new("/")).expect("a file system");
        assert!(all > 0 && free <= all);
        assert_eq!(disk_bytes(Path::new("/no such folder")), None);
    }
}
