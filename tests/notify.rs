//! What the service manager is told, on a socket of our own in place of systemd's.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long something may take that is certain to come: far above what it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with a service manager.
struct Service {
    child: Child,
    socket: UnixDatagram,
    folder: PathBuf,
    log: Receiver<String>,
    told: VecDeque<String>,
}

impl Service {
    fn start(name: &str, io: &str, watchdog_us: Option<u64>) -> Service {
        let folder = std::env::temp_dir().join(format!("ringmq-notify-{name}-{io}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let path = folder.join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket in it");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above 0");
        let config = folder.join("ringmq.toml");
        fs::write(&config, "").expect("the temporary folder is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.env_clear().env("NOTIFY_SOCKET", &path);
        command.envs(watchdog_us.map(|us| ("WATCHDOG_USEC", us.to_string())));
        command.args(["--mqtt", "127.0.0.1:0", "--http", "off", "--shards", "2", "--io", io]);
        command
            .args(["--set", "broker.durability=off", "--set", "broker.pin=false", "--config"])
            .arg(&config);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it was built");
        let stderr = child.stderr.take().expect("it is piped");
        let (line, log) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).all(|l| line.send(l).is_ok())
        });
        Service { child, socket, folder, log, told: VecDeque::new() }
    }

    /// The next message.
    fn next(&mut self) -> String {
        if let Some(told) = self.told.pop_front() {
            return told;
        }
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).expect("the broker tells something");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// The next message that is not of the watchdog.
    fn next_state(&mut self) -> String {
        loop {
            let told = self.next();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }

    /// How many messages came so far that nobody has read.
    fn drain(&mut self) -> usize {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 4096];
        let count = std::iter::from_fn(|| self.socket.recv(&mut bytes).ok()).count();
        self.socket.set_nonblocking(false).expect("a socket");
        count
    }

    /// Waits for a line of the log.
    fn wait_for(&self, part: &str) {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no line {part:?}: {e}"));
            if line.contains(part) {
                return;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is installed");
        assert!(sent.success());
    }

    /// The thread of a shard, as the kernel numbers it.
    fn thread(&self, name: &str) -> i32 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        for task in tasks.flatten() {
            if fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
                return task.file_name().to_string_lossy().parse().expect("a number");
            }
        }
        panic!("there is no thread {name}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_service_manager_is_told_of_each_state() {
    for io in ["uring", "epoll"] {
        let mut service = Service::start("states", io, None);
        let ready = service.next();
        assert!(ready.starts_with("READY=1\nSTATUS=2 shard(s), "), "{ready}");
        assert!(ready.ends_with(&format!("MAINPID={}", service.child.id())), "{ready}");
        service.signal("HUP");
        assert!(service.next().starts_with("RELOADING=1\n"));
        assert!(service.next().starts_with("READY=1\n"));
        service.signal("TERM");
        assert!(service.next().starts_with("STOPPING=1\n"));
        let status = service.child.wait().expect("it is ours");
        assert_eq!(status.code(), Some(0));
        // Without a watchdog it is not told to be alive.
        assert_eq!(service.drain(), 0);
    }
}

#[test]
fn a_faulty_configuration_ends_a_reload_as_well() {
    let mut service = Service::start("fault", "epoll", None);
    assert!(service.next().starts_with("READY=1\n"));
    fs::write(service.folder.join("ringmq.toml"), "[mqtt]\nmax_inflight = 0\n").expect("writable");
    service.signal("HUP");
    assert!(service.next().starts_with("RELOADING=1\n"));
    assert!(service.next().starts_with("READY=1\n"));
    service.wait_for("expected a whole number from 1");
}

/// A thread that stands still, until it is let go.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(thread: i32) -> Stopped {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: plain calls with numbers; the thread is one of our child's, and no memory of ours is passed.
        unsafe {
            assert_eq!(
                libc::ptrace(libc::PTRACE_SEIZE, thread, none, none),
                0,
                "may this test trace its child?"
            );
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(thread, &raw mut status, libc::__WALL), thread);
            assert!(libc::WIFSTOPPED(status));
        }
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; the thread is stopped and ours to let go.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

#[test]
fn the_watchdog_is_told_only_while_every_shard_moves_on() {
    for io in ["uring", "epoll"] {
        let mut service = Service::start("watchdog", io, Some(200_000));
        assert!(service.next().starts_with("READY=1\n"));
        for _ in 0..3 {
            assert_eq!(service.next(), "WATCHDOG=1");
        }
        let stopped = Stopped::new(service.thread("shard-1"));
        service.wait_for("shard 1 does not answer");
        // What was sent before that; nothing comes behind it, however long it lasts: four periods, of which each
        // would have had a message.
        service.drain();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(service.drain(), 0, "the watchdog was told that all is well");
        drop(stopped);
        service.wait_for("all shards answer again");
        assert_eq!(service.next(), "WATCHDOG=1");
        service.signal("TERM");
        assert!(service.next_state().starts_with("STOPPING=1\n"));
        assert_eq!(service.child.wait().expect("it is ours").code(), Some(0));
    }
}
