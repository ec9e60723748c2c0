//! The self-test at start: each kernel feature is exercised on loopback before it is used, because a kernel's
//! version says little (distributions port features back, containers forbid them).
//!
//! What the io_uring driver cannot do without: direct descriptors, accepts of many into them, a ring of receive
//! buffers, one-shot polls that a shutdown ends, discarding receives, and messages between rings. Everything
//! else has a simpler way, see [`Features`].

use super::ListenSpec;
use super::buffers::Buffers;
use super::driver::IoMode;
use super::net::{self, check, errno};
use super::ops::{self, Op};
use super::ring::{Ring, Sleep};
use io_uring::cqueue;
use io_uring::squeue::Entry;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What of io_uring works here, beyond what is required.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    /// Completions are posted only when the ring is entered (`DEFER_TASKRUN`); else `COOP_TASKRUN`.
    pub deferred: bool,
    /// The submission queue has no indirection (`NO_SQARRAY`).
    pub no_sq_array: bool,
    /// A receive of many ends by itself after so many bytes; else streams receive one by one.
    pub receive_credit: bool,
    /// The peer's address of an accepted connection can be asked for (`FIXED_FD_INSTALL`); else it is unknown.
    pub peer_address: bool,
    /// A connection can be reset (`CONNECT` to nowhere); else it just closes.
    pub reset: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = if self.deferred { "deferred" } else { "cooperative" };
        let receive = if self.receive_credit { "multishot" } else { "single-shot" };
        let with = |yes| if yes { "with" } else { "without" };
        write!(
            f,
            "{run} task work, {receive} receive, {} a submission index array, {} peer addresses, {} resets",
            with(!self.no_sq_array),
            with(self.peer_address),
            with(self.reset)
        )
    }
}

/// The driver that was chosen.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What io_uring can do; `None`: epoll.
    pub features: Option<Features>,
    /// What the operator should know, one line.
    pub warning: Option<String>,
}

impl Chosen {
    /// The driver, for the log.
    pub fn name(&self) -> &'static str {
        if self.features.is_some() { "io_uring" } else { "epoll" }
    }
}

/// Why io_uring is not used.
#[derive(Debug)]
struct Failure {
    what: &'static str,
    error: io::Error,
}

impl Failure {
    fn at(what: &'static str) -> impl Fn(io::Error) -> Failure {
        move |error| Failure { what, error }
    }

    /// What happened and what to do, for one line.
    fn text(&self) -> String {
        let Failure { what, error } = self;
        match errno(error) {
            libc::ENOSYS => "this kernel has no io_uring: Linux 6.1 or later is needed".to_string(),
            libc::EPERM | libc::EACCES => "io_uring is not allowed here: set kernel.io_uring_disabled=0 \
                (sysctl), and in a container allow the io_uring system calls (for Docker: --security-opt \
                seccomp=unconfined, or a profile with io_uring_setup, io_uring_enter and io_uring_register)"
                .to_string(),
            libc::ENOMEM => {
                "io_uring was refused memory: raise the limit of locked memory (ulimit -l) or of \
                the control group"
                    .to_string()
            }
            libc::EMFILE | libc::ENFILE => {
                "no descriptor left for io_uring: raise the limit of open files (ulimit -n)".to_string()
            }
            _ => {
                format!("the self-test of io_uring failed at {what} ({error}): Linux 6.1 or later is needed")
            }
        }
    }
}

/// Chooses the driver. An error says what to do, in one line.
pub fn choose(mode: IoMode) -> Result<Chosen, String> {
    let epoll = |warning| Ok(Chosen { features: None, warning });
    match mode {
        IoMode::Epoll => epoll(None),
        IoMode::Auto => match examine() {
            Ok(features) => Ok(Chosen { features: Some(features), warning: None }),
            Err(failure) => epoll(Some(format!("{}; epoll is used, which costs more CPU", failure.text()))),
        },
        IoMode::Uring => match examine() {
            Ok(features) => Ok(Chosen { features: Some(features), warning: None }),
            Err(failure) => Err(format!("{}; or let epoll be used", failure.text())),
        },
    }
}

/// Finds the best set-up that passes the test.
fn examine() -> Result<Features, Failure> {
    let mut last = None;
    for (deferred, no_sq_array) in [(true, true), (true, false), (false, false)] {
        let wish = Features { deferred, no_sq_array, receive_credit: true, peer_address: true, reset: true };
        match exercise(&wish) {
            Ok(features) => return Ok(features),
            // It says more than what a simpler set-up ends in.
            Err(failure) if errno(&failure.error) != libc::EINVAL => return Err(failure),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or(Failure { what: "the start", error: ErrorKind::Unsupported.into() }))
}

/// How long one operation may take.
const PATIENCE: Duration = Duration::from_secs(2);
const SLOTS: u32 = 8;
const BUFFERS: u16 = 4;
const BUFFER_BYTES: u32 = 256;
const CREDIT: u32 = 8;

/// A ring and what belongs to it.
struct Bench {
    ring: Ring,
    buffers: Buffers,
    /// Completions that were not waited for yet.
    seen: Vec<cqueue::Entry>,
}

impl Bench {
    fn new(features: &Features) -> Result<Bench, Failure> {
        let ring = Ring::new(features, 16, 64).map_err(Failure::at("setting up a ring"))?;
        ring.submitter().register_files_sparse(SLOTS).map_err(Failure::at("direct descriptors"))?;
        let buffers =
            Buffers::new(ring.submitter(), BUFFERS, BUFFER_BYTES).map_err(Failure::at("a buffer ring"))?;
        Ok(Bench { ring, buffers, seen: Vec::new() })
    }

    fn ask(&mut self, op: Op, entry: Entry) {
        self.ring.push(entry.user_data(ops::name(op, 0, 0)));
    }

    /// The completion of an operation, within [`PATIENCE`].
    fn wait(&mut self, op: Op) -> io::Result<cqueue::Entry> {
        self.wait_beside(op, None)
    }

    /// As `wait`, while another ring of this thread does its part.
    fn wait_beside(&mut self, op: Op, mut other: Option<&mut Bench>) -> io::Result<cqueue::Entry> {
        let end = Instant::now() + PATIENCE;
        loop {
            let is_it = |e: &cqueue::Entry| ops::op(e.user_data()) == Some(op);
            if let Some(place) = self.seen.iter().position(is_it) {
                return Ok(self.seen.remove(place));
            }
            if Instant::now() > end {
                return Err(ErrorKind::TimedOut.into());
            }
            if let Some(other) = other.as_deref_mut() {
                other.turn(Sleep::Not);
            }
            self.turn(Sleep::For(Duration::from_millis(5)));
        }
    }

    fn turn(&mut self, sleep: Sleep) {
        self.ring.enter(sleep);
        while let Some(entry) = self.ring.next() {
            self.seen.push(entry);
        }
        self.ring.reaped();
    }

    /// The result of an operation, an error where it failed.
    fn result(&mut self, op: Op, entry: Entry) -> io::Result<u32> {
        self.ask(op, entry);
        outcome(&self.wait(op)?)
    }

    /// What a receive brought, and whether more of it comes. The buffer goes back.
    fn received(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let entry = self.wait(Op::Receive)?;
        let len = outcome(&entry)? as usize;
        let Some(id) = cqueue::buffer_select(entry.flags()) else {
            return Err(ErrorKind::InvalidData.into());
        };
        self.buffers.taken();
        // SAFETY: the kernel wrote `len` bytes into this buffer, which is ours until it is given back.
        let bytes = unsafe { std::slice::from_raw_parts(self.buffers.start(id), len) }.to_vec();
        self.buffers.give(id);
        self.buffers.publish();
        Ok((bytes, cqueue::more(entry.flags())))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.ring.cancel_all() {
            self.buffers.leak();
        }
        let _ = self.ring.submitter().unregister_files();
    }
}

fn outcome(entry: &cqueue::Entry) -> io::Result<u32> {
    u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()))
}

fn expect(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Exercises everything with the set-up of `wish`; returns what of its options works.
fn exercise(wish: &Features) -> Result<Features, Failure> {
    let mut bench = Bench::new(wish)?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, addr) =
        net::listener(ListenSpec::new(loopback, 8)).map_err(Failure::at("listening on 127.0.0.1"))?;
    bench.ask(Op::Accept, ops::accept_many(listener.as_raw_fd()));
    bench.turn(Sleep::Not);
    let connect = || TcpStream::connect_timeout(&addr, PATIENCE);
    let mut client = connect().map_err(Failure::at("connecting to 127.0.0.1"))?;
    let slot = accepted(&mut bench).map_err(Failure::at("accepting into a direct descriptor"))?;
    receive(&mut bench, &mut client, slot).map_err(Failure::at("receiving into a ring's buffer"))?;
    let features = Features {
        receive_credit: receive_credit(&mut bench, &mut client, slot).is_ok(),
        peer_address: peer_address(&mut bench, &client, slot).is_ok(),
        reset: reset(&mut bench, connect).is_ok(),
        ..wish.clone()
    };
    if !features.receive_credit {
        // It may be armed, or have left bytes: start with a connection that nobody has read.
        client = connect().map_err(Failure::at("connecting to 127.0.0.1"))?;
        let other = accepted(&mut bench).map_err(Failure::at("accepting again"))?;
        poll_and_shutdown(&mut bench, &mut client, other).map_err(Failure::at("a poll and a shutdown"))?;
    } else {
        poll_and_shutdown(&mut bench, &mut client, slot).map_err(Failure::at("a poll and a shutdown"))?;
    }
    let mut client = connect().map_err(Failure::at("connecting to 127.0.0.1"))?;
    let slot = accepted(&mut bench).map_err(Failure::at("accepting again"))?;
    pass_on(&mut bench, &features, &mut client, slot)?;
    connect_out(&mut bench, &addr).map_err(Failure::at("connecting a direct descriptor"))?;
    Ok(features)
}

fn accepted(bench: &mut Bench) -> io::Result<u32> {
    let entry = bench.wait(Op::Accept)?;
    let slot = outcome(&entry)?;
    expect(cqueue::more(entry.flags()) && slot < SLOTS)?;
    Ok(slot)
}

fn receive(bench: &mut Bench, client: &mut TcpStream, slot: u32) -> io::Result<()> {
    bench.ask(Op::Receive, ops::receive(slot, true));
    bench.turn(Sleep::Not);
    client.write_all(b"one")?;
    expect(bench.received()? == (b"one".to_vec(), false))?;
    bench.result(Op::Send, ops::send(slot, b"two")).and_then(|n| expect(n == 3))
}

/// A receive of many goes on until its credit is used up and then ends by itself. The kernel may deliver the
/// rest of a buffer beyond the credit.
fn receive_credit(bench: &mut Bench, client: &mut TcpStream, slot: u32) -> io::Result<()> {
    let (first, rest) = (CREDIT as usize - 3, 2 * CREDIT as usize);
    for _ in 0..2 {
        bench.ask(Op::Receive, ops::receive_many(slot, CREDIT));
        client.write_all(&vec![7; first])?;
        expect(bench.received()? == (vec![7; first], true))?;
        client.write_all(&vec![8; rest])?;
        let (mut got, more) = bench.received()?;
        expect(!more && got.len() >= CREDIT as usize - first)?;
        // What it left is there for the next.
        while got.len() < rest {
            bench.ask(Op::Receive, ops::receive(slot, false));
            got.extend(bench.received()?.0);
        }
        expect(got == vec![8; rest])?;
    }
    Ok(())
}

fn peer_address(bench: &mut Bench, client: &TcpStream, slot: u32) -> io::Result<()> {
    let fd = bench.result(Op::Install, ops::install(slot))? as i32;
    let peer = net::peer_address(fd);
    // SAFETY: the kernel made this descriptor for us; nobody else knows it.
    check(unsafe { libc::close(fd) })?;
    expect(peer == Some(client.local_addr()?))
}

/// The peer sees a reset, and what was armed ends.
fn reset(bench: &mut Bench, connect: impl Fn() -> io::Result<TcpStream>) -> io::Result<()> {
    let mut client = connect()?;
    client.set_read_timeout(Some(PATIENCE))?;
    let slot = accepted(bench)?;
    bench.ask(Op::Poll, ops::poll(slot));
    bench.turn(Sleep::Not);
    let done = bench.result(Op::Prepare, ops::reset(slot)).map(drop);
    if done.is_err() {
        bench.result(Op::Prepare, ops::shutdown(slot, libc::SHUT_RDWR))?;
    }
    outcome(&bench.wait(Op::Poll)?)?;
    bench.result(Op::Close, ops::close(slot))?;
    let seen = client.read(&mut [0]).map_err(|e| e.kind());
    done.and(expect(seen == Err(ErrorKind::ConnectionReset)))
}

/// A poll waits for input, input can be discarded, and a shutdown ends a poll before the descriptor is closed.
fn poll_and_shutdown(bench: &mut Bench, client: &mut TcpStream, slot: u32) -> io::Result<()> {
    bench.ask(Op::Poll, ops::poll(slot));
    bench.turn(Sleep::Not);
    expect(bench.seen.is_empty())?;
    client.write_all(b"three")?;
    outcome(&bench.wait(Op::Poll)?)?;
    expect(bench.result(Op::Discard, ops::discard(slot, 64))? == 5)?;
    bench.ask(Op::Poll, ops::poll(slot));
    bench.turn(Sleep::Not);
    bench.result(Op::Prepare, ops::shutdown(slot, libc::SHUT_RDWR))?;
    outcome(&bench.wait(Op::Poll)?)?;
    bench.result(Op::Close, ops::close(slot)).map(drop)
}

/// A socket is put into a free slot and connected to our own listener.
fn connect_out(bench: &mut Bench, to: &SocketAddr) -> io::Result<()> {
    let socket = net::outgoing(to, Some(Ipv4Addr::LOCALHOST.into()), false)?;
    let mut slot = socket.as_raw_fd();
    expect(bench.ring.call(ops::place(&mut slot)) == 1 && (0..SLOTS as i32).contains(&slot))?;
    drop(socket);
    let address = net::RawAddress::new(to);
    bench.result(Op::Connect, ops::connect(slot as u32, &address))?;
    let other = accepted(bench)?;
    bench.result(Op::Send, ops::send(slot as u32, b"five"))?;
    bench.ask(Op::Receive, ops::receive(other, true));
    expect(bench.received()? == (b"five".to_vec(), false))
}

/// A ring wakes another and gives it a descriptor, which works there and is closed here.
fn pass_on(bench: &mut Bench, features: &Features, client: &mut TcpStream, slot: u32) -> Result<(), Failure> {
    let mut other = Bench::new(features)?;
    let mut step = |bench: &mut Bench, other: &mut Bench| -> io::Result<()> {
        bench.ring.push(ops::wake(other.ring.fd(), 0));
        other.wait_beside(Op::Woken, Some(&mut *bench))?;
        let send = ops::send_descriptor(other.ring.fd(), slot, ops::name(Op::Arrival, 0, 1));
        let send = send.user_data(ops::name(Op::HandOver, 0, 0));
        let close = ops::close(slot).user_data(ops::name(Op::Leave, 0, 0));
        bench.ring.push_linked(&[send, close]);
        let arrival = outcome(&other.wait_beside(Op::Arrival, Some(&mut *bench))?)?;
        outcome(&bench.wait_beside(Op::HandOver, Some(&mut *other))?)?;
        outcome(&bench.wait_beside(Op::Leave, Some(&mut *other))?)?;
        client.write_all(b"four")?;
        other.ask(Op::Receive, ops::receive(arrival, true));
        expect(other.received()? == (b"four".to_vec(), false))
    };
    step(bench, &mut other).map_err(Failure::at("passing a descriptor to another ring"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_chosen_when_asked_for() {
        let chosen = choose(IoMode::Epoll).unwrap();
        assert!(chosen.features.is_none() && chosen.warning.is_none());
    }

    #[test]
    fn forced_and_automatic_agree() {
        match (choose(IoMode::Auto).unwrap(), choose(IoMode::Uring)) {
            (
                Chosen { features: Some(a), warning: None },
                Ok(Chosen { features: Some(b), warning: None }),
            ) => {
                assert_eq!(a, b)
            }
            (Chosen { features: None, warning: Some(warning) }, Err(error)) => {
                assert!(!warning.is_empty() && !error.is_empty())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Each simpler set-up passes too, so that what an older kernel takes is known to work.
    #[test]
    fn simpler_set_ups_pass() {
        if choose(IoMode::Auto).unwrap().features.is_none() {
            return;
        }
        for (deferred, no_sq_array) in [(true, false), (false, true), (false, false)] {
            let wish =
                Features { deferred, no_sq_array, receive_credit: true, peer_address: true, reset: true };
            let found = exercise(&wish).map_err(|f| f.text()).unwrap();
            assert_eq!((found.deferred, found.no_sq_array), (deferred, no_sq_array));
        }
    }

    #[test]
    fn failures_say_what_to_do() {
        let text =
            |errno| Failure { what: "setting up a ring", error: io::Error::from_raw_os_error(errno) }.text();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled=0"));
        assert!(text(libc::ENOSYS).contains("Linux 6.1"));
        assert!(text(libc::ENOMEM).contains("ulimit -l"));
        assert!(text(libc::EMFILE).contains("ulimit -n"));
        assert!(text(libc::EINVAL).contains("setting up a ring"));
    }
}
