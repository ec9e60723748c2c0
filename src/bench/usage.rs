//! What a process uses, and what the kernel uses for sockets, as `/proc` tells.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::time::Instant;

/// A connected socket in the kernel's tables (`TCP_ESTABLISHED`).
const ESTABLISHED: &str = "01";

/// CPU and memory of a process at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When.
    pub at: Instant,
    /// Nanoseconds that its threads have run; threads that ended are not in it.
    pub cpu_ns: u64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Most resident memory so far, in KiB.
    pub peak_kib: u64,
}

/// A process, `self` for our own.
#[derive(Clone, Debug)]
pub struct Process(String);

impl Process {
    /// The process with this number, if there is one and we may look at it.
    pub fn new(pid: u32) -> Result<Process, String> {
        let process = Process(pid.to_string());
        match process.usage() {
            Some(_) => Ok(process),
            None => Err(format!("--pid {pid}: there is no such process, or /proc does not show it")),
        }
    }

    /// Our own.
    pub fn own() -> Process {
        Process("self".to_owned())
    }

    /// What it uses; `None` when it is gone.
    pub fn usage(&self) -> Option<Usage> {
        let mut cpu_ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0)).ok()?.flatten() {
            // A thread may end in between.
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            cpu_ns += first_number(&text).unwrap_or_default();
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let rss_kib = field(&status, "VmRSS:").unwrap_or_default();
        let peak_kib = field(&status, "VmHWM:").unwrap_or_default();
        Some(Usage { at: Instant::now(), cpu_ns, rss_kib, peak_kib })
    }
}

impl Usage {
    /// Cores that were busy between an earlier moment and this one.
    pub fn cores_since(&self, earlier: &Usage) -> f64 {
        let ns = self.at.saturating_duration_since(earlier.at).as_nanos().max(1) as f64;
        self.cpu_ns.saturating_sub(earlier.cpu_ns) as f64 / ns
    }
}

/// What all sockets of this network namespace, and the kernel, use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sockets {
    /// TCP sockets that are not closed: both ends of a connection within this machine.
    pub tcp_in_use: u64,
    /// Pages of buffers of TCP, in KiB.
    pub tcp_kib: u64,
    /// Slab of the kernel, in KiB.
    pub slab_kib: u64,
}

impl Sockets {
    /// As `/proc` tells now; 0 where it does not.
    pub fn now() -> Sockets {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (sockets, memory) = (text("/proc/net/sockstat"), text("/proc/meminfo"));
        let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        Sockets {
            tcp_in_use: field(tcp, "inuse").unwrap_or_default(),
            tcp_kib: 4 * field(tcp, "mem").unwrap_or_default(),
            slab_kib: field(&memory, "Slab:").unwrap_or_default(),
        }
    }
}

/// Ends of established TCP connections to or from this port in this network namespace which a process has accepted or
/// opened: one that waits in a backlog has no inode yet. `None` where `/proc` does not tell.
pub fn held_ends(port: u16) -> Option<u64> {
    let mut held = 0;
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match fs::File::open(path) {
            Ok(file) => held += count_ends(BufReader::with_capacity(1 << 18, file), port).ok()?,
            // A kernel without IPv6.
            Err(e) if e.kind() == ErrorKind::NotFound && path.ends_with('6') => {}
            Err(_) => return None,
        }
    }
    Some(held)
}

/// The same in one table of the kernel, in which others may come and go while it is read.
fn count_ends(mut table: impl BufRead, port: u16) -> std::io::Result<u64> {
    let suffix = format!(":{port:04X}");
    let mut held = 0;
    let mut line = String::new();
    while table.read_line(&mut line)? > 0 {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (words.next(), words.next(), words.next());
        let ours = [local, remote].iter().flatten().any(|address| address.ends_with(&suffix));
        if ours && state == Some(ESTABLISHED) && words.nth(5).is_some_and(|inode| inode != "0") {
            held += 1;
        }
        line.clear();
    }
    Ok(held)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let at = text.find(name)? + name.len();
    first_number(&text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_end_is_held_once_it_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(held_ends(address.port()), Some(1), "the other end is in the backlog");
        let accepted = listener.accept().unwrap();
        assert_eq!(held_ends(address.port()), Some(2));
        drop((client, accepted));
        assert_eq!(held_ends(address.port()), Some(0), "both have been closed");
    }

    /// A process of its own: the threads of other tests end when they like, and take their time with them.
    #[test]
    fn a_busy_process_uses_something() {
        let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let process = Process::new(busy.id()).expect("it is there");
        let before = process.usage().expect("it is there");
        let after = loop {
            let after = process.usage().expect("it is still there");
            if after.cpu_ns > before.cpu_ns && after.rss_kib > 100 {
                break after;
            }
            std::thread::yield_now();
        };
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(after.peak_kib >= after.rss_kib && after.cores_since(&before) > 0.0);
        assert!(Process::own().usage().is_some_and(|own| own.rss_kib > 100));
        assert!(Process::new(u32::MAX).is_err());
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(field("VmHWM:\t  12 kB\nVmRSS:\t   34 kB\n", "VmRSS:"), Some(34));
        assert_eq!(field("TCP: inuse 27 orphan 0 tw 0 alloc 30 mem 3", "mem"), Some(3));
        assert_eq!(field("", "mem"), None);
    }
}
