//! What the kernel says about the machine and has no file for, and how threads share its cores.

use super::net::check;
use std::ffi::CString;
use std::io;
use std::mem::zeroed;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a file system has free for programs, and in all.
pub fn disk_space(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is a valid value of this plain struct.
    let mut found: libc::statvfs = unsafe { zeroed() };
    // SAFETY: a text that ends with 0 and a struct of the type expected, both alive during the call.
    check(unsafe { libc::statvfs(path.as_ptr(), &raw mut found) })?;
    Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

/// Puts the calling thread, and those that it starts from now on, behind others that want the same core: 0 to 19, where
/// each step leaves it about a fifth less. It cannot be taken back without rights.
pub fn lower_priority(nice: u8) -> io::Result<()> {
    // SAFETY: no memory is passed. 0 is the calling thread: on Linux, each thread has a priority of its own.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, i32::from(nice)) }).map(drop)
}

/// The calling thread runs where nobody else wants its core, and gives that up at once to whoever does: beside one that is
/// merely nice a shard that wakes waits until that one's share is over, some 3 ms.
///
/// # Errors
/// Where a filter of system calls does not allow it.
pub fn run_when_idle() -> io::Result<()> {
    // SAFETY: an all-zero sched_param is the one that this policy wants.
    let param: libc::sched_param = unsafe { zeroed() };
    // SAFETY: a parameter that lives through the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) }).map(drop)
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
        let (free, all) = disk_space(Path::new("/")).expect("a file system");
        assert!(all > 0 && free <= all);
        assert!(disk_space(Path::new("/no such folder")).is_err());
    }
}
