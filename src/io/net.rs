//! Listening sockets, wakers and cores: what every driver needs of the kernel beside its queues.
//!
//! Accepted sockets inherit `TCP_NODELAY` and keepalive from their listener on Linux, so no system call is
//! spent on them.

use super::{ListenSpec, SocketOptions};
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// An address that is kept for this process while its shards open their listeners.
///
/// `SO_REUSEPORT` lets a second broker of the same user bind the same port without an error, and the kernel
/// would then split the clients between the two. So the address is bound once without it, which fails while
/// anybody else has it. Only then is the option set, which admits our own listeners; the socket never
/// listens. It may be kept as long as the broker runs.
#[derive(Debug)]
pub struct Reservation {
    addr: SocketAddr,
    socket: OwnedFd,
}

impl Reservation {
    /// The address to listen on: the port is a real one also where 0 was asked for, and the family is IPv4
    /// where `[::]` was asked for on a host without IPv6.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket, to be kept beyond the end of this process.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// What was kept so.
    pub fn adopt(socket: OwnedFd) -> io::Result<Reservation> {
        Ok(Reservation { addr: local_address(socket.as_raw_fd())?, socket })
    }
}

/// Reserves an address, see [`Reservation`].
pub fn reserve(addr: SocketAddr) -> io::Result<Reservation> {
    on_a_family(addr, |addr| {
        let socket = stream_socket(&addr)?;
        let fd = socket.as_raw_fd();
        // Connections of an earlier run may be in TIME_WAIT.
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        bind(fd, &addr)?;
        // From here on a second reservation fails, also before anybody listens.
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        Ok(Reservation { addr: local_address(fd)?, socket })
    })
}

/// Opens one listening socket of the many that share its address; see [`super::Io::listen`].
pub(super) fn listener(spec: ListenSpec) -> io::Result<(OwnedFd, SocketAddr)> {
    if let Some(socket) = spec.socket {
        return Ok((socket.try_clone()?, spec.addr));
    }
    on_a_family(spec.addr, |addr| {
        let socket = stream_socket(&addr)?;
        let fd = socket.as_raw_fd();
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        prepare(fd, &spec.options)?;
        bind(fd, &addr)?;
        let backlog = i32::try_from(spec.options.backlog).unwrap_or(i32::MAX);
        // SAFETY: listen takes no pointer.
        check(unsafe { libc::listen(fd, backlog) })?;
        Ok((socket, local_address(fd)?))
    })
}

/// Sets what accepted sockets inherit.
fn prepare(fd: RawFd, options: &SocketOptions) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, options.nodelay.into())?;
    for (name, bytes) in
        [(libc::SO_RCVBUF, options.receive_buffer_bytes), (libc::SO_SNDBUF, options.send_buffer_bytes)]
    {
        if bytes > 0 {
            set_option(fd, libc::SOL_SOCKET, name, i32::try_from(bytes).unwrap_or(i32::MAX))?;
        }
    }
    if options.keepalive_s == 0 {
        return Ok(());
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, options.keepalive_s.into())?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, options.keepalive_interval_s.into())?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, options.keepalive_probes.into())
}

/// A listening socket beside those of the shards: while they end and others begin, connections wait in its queue
/// in place of being refused.
pub fn bridge(addr: SocketAddr, options: SocketOptions) -> io::Result<OwnedFd> {
    let spec = ListenSpec { options, ..ListenSpec::new(addr, 0) };
    listener(spec).map(|(socket, _)| socket)
}

/// Runs `open` for the address; for `[::]` on a host without IPv6 for `0.0.0.0` instead.
fn on_a_family<T>(addr: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(addr) {
        Err(e)
            if addr.is_ipv6()
                && addr.ip().is_unspecified()
                && matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()))
        }
        other => other,
    }
}

fn stream_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_of(if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    if addr.is_ipv6() {
        let fd = socket.as_raw_fd();
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!addr.ip().is_unspecified()))?;
    }
    Ok(socket)
}

/// A stream socket of a family.
pub(super) fn stream_of(family: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes no pointer.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket address as the kernel reads it.
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(super) fn new(addr: &SocketAddr) -> RawAddress {
        // SAFETY: all zeroes is valid for both forms.
        let mut whole: RawAddress = unsafe { zeroed() };
        match addr {
            SocketAddr::V4(a) => {
                // SAFETY: all zeroes is a valid sockaddr_in.
                let mut raw: libc::sockaddr_in = unsafe { zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = a.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
                whole.v4 = raw;
            }
            SocketAddr::V6(a) => {
                // SAFETY: all zeroes is a valid sockaddr_in6.
                let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = a.port().to_be();
                raw.sin6_addr.s6_addr = a.ip().octets();
                raw.sin6_scope_id = a.scope_id();
                whole.v6 = raw;
            }
        }
        whole
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        (self as *const RawAddress).cast()
    }

    /// Bytes of it that count. The kernel takes the longer form for both families.
    pub(super) fn len(&self) -> libc::socklen_t {
        size_of::<RawAddress>() as libc::socklen_t
    }
}

fn bind(fd: RawFd, addr: &SocketAddr) -> io::Result<()> {
    let raw = RawAddress::new(addr);
    // SAFETY: a socket address of the length given, alive during the call.
    check(unsafe { libc::bind(fd, raw.pointer(), raw.len()) }).map(drop)
}

/// A socket that is to be connected to `to`, bound to the address `from` but to no port yet.
pub(super) fn outgoing(to: &SocketAddr, from: Option<IpAddr>, nonblocking: bool) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mode = if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: socket takes no pointer.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | mode, 0) })?;
    // SAFETY: a new descriptor that nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if let Some(from) = from {
        // It holds for both families.
        set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        bind(fd, &SocketAddr::new(from, 0))?;
    }
    Ok(socket)
}

/// Begins to connect a non-blocking socket. Whether it is connected already; else it becomes writable.
pub(super) fn connect(fd: RawFd, to: &SocketAddr) -> io::Result<bool> {
    let raw = RawAddress::new(to);
    // SAFETY: a socket address of the length given, alive during the call.
    match check(unsafe { libc::connect(fd, raw.pointer(), raw.len()) }) {
        Ok(_) => Ok(true),
        // Interrupted or not, the attempt goes on by itself.
        Err(e) if matches!(errno(&e), libc::EINPROGRESS | libc::EINTR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The error that ended an attempt to connect, if one did.
pub(super) fn socket_error(fd: RawFd) -> Option<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: room for the four bytes announced.
    match check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &mut len)
    }) {
        Ok(_) => (value != 0).then_some(value),
        Err(e) => Some(errno(&e)),
    }
}

pub(super) fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut raw: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: room for any address, its length beside it.
    check(unsafe { libc::getsockname(fd, (&raw mut raw).cast(), &mut len) })?;
    decode(&raw).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The peer's address of a connected socket; an IPv4 peer of an IPv6 socket comes as IPv4.
pub(super) fn peer_address(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut raw: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: room for any address, its length beside it.
    check(unsafe { libc::getpeername(fd, (&raw mut raw).cast(), &mut len) }).ok()?;
    decode(&raw).map(canonical)
}

/// Accepts one connection, non-blocking. The listener is non-blocking too.
pub(super) fn accept(listener: RawFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut raw: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: room for any address, its length beside it.
    let fd = check(unsafe { libc::accept4(listener, (&raw mut raw).cast(), &mut len, flags) })?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, decode(&raw).map(canonical)))
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn decode(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which of its forms the storage holds; it is aligned for all.
            let a = unsafe { &*(raw as *const libc::sockaddr_storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(a.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let a = unsafe { &*(raw as *const libc::sockaddr_storage).cast::<libc::sockaddr_in6>() };
            let (ip, port) = (a.sin6_addr.s6_addr.into(), u16::from_be(a.sin6_port));
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, a.sin6_scope_id)))
        }
        _ => None,
    }
}

pub(super) fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value lives through the call and has the length given.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Makes the closing of this socket a reset.
pub(super) fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of_val(&linger) as libc::socklen_t;
    // SAFETY: the value lives through the call and has the length given. A failure leaves a plain close.
    let _ =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
}

/// The result of a system call that answers -1 on failure.
pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The errno of an error of the kernel; `EIO` for one that has none.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Wakes a shard from a thread that has no ring: the shard gets [`super::Event::Woken`].
#[derive(Clone, Debug)]
pub struct Waker {
    fd: Arc<OwnedFd>,
}

impl Waker {
    /// A doorbell (an eventfd) that nobody listens to yet.
    pub fn new() -> io::Result<Waker> {
        // SAFETY: eventfd takes no pointer.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Waker { fd: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Rings. Never blocks; rings that come together may be heard as one.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight bytes that live through the call. It fails only when 2^64 rings are unheard, and
        // then the bell is ringing already.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Stops the bell.
    pub(super) fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: room for eight bytes. It fails only when the bell is silent.
        let _ = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Pins the calling thread to one core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    pin_to_cores(&[core])
}

/// Pins the calling thread to these cores.
pub fn pin_to_cores(cores: &[usize]) -> io::Result<()> {
    if cores.iter().any(|core| *core >= libc::CPU_SETSIZE as usize) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all zeroes is the empty set; each core is within it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        cores.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
        set
    };
    // SAFETY: the set lives through the call and has the size given.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }).map(drop)
}

/// Nanoseconds of CPU that the calling thread has used, what others were given left out.
pub(super) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one timespec. It fails only where the clock is not known, and then the time stays 0.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Raises the limit of open files as far as this process may: its hard limit. Where that fails, what there is
/// stays, and the drivers take fewer connections.
pub fn raise_open_files() {
    // SAFETY: an all-zero rlimit is a valid value of this plain struct.
    let mut limit: libc::rlimit = unsafe { zeroed() };
    // SAFETY: the pointers are to a live struct of the type that both calls expect.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The cores that the calling thread may run on, ascending; never empty.
pub fn available_cores() -> Vec<usize> {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the set has the size given.
    if check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) }).is_err() {
        // More cores than a fixed set holds, or no such call: take what std knows.
        return (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect();
    }
    // SAFETY: each index is within the set.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn spec(addr: SocketAddr) -> ListenSpec {
        ListenSpec::new(addr, 16)
    }

    fn option(fd: RawFd, level: i32, name: i32) -> i32 {
        let (mut value, mut len) = (-1i32, 4);
        // SAFETY: room for the four bytes announced.
        check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) }).unwrap();
        value
    }

    fn accept_one(listener: &OwnedFd) -> (OwnedFd, Option<SocketAddr>) {
        let mut wait = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, as announced.
        check(unsafe { libc::poll(&mut wait, 1, -1) }).unwrap();
        accept(listener.as_raw_fd()).unwrap()
    }

    #[test]
    fn accepted_sockets_inherit_the_listeners_options() {
        let (listener, addr) = listener(spec("127.0.0.1:0".parse().unwrap())).unwrap();
        let client = TcpStream::connect(addr).unwrap();
        let (socket, peer) = accept_one(&listener);
        assert_eq!(peer, Some(client.local_addr().unwrap()));
        assert_eq!(peer_address(socket.as_raw_fd()), peer);
        let fd = socket.as_raw_fd();
        assert_ne!(option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY), 0);
        assert_ne!(option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 0);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 60);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 10);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT), 6);
    }

    #[test]
    fn an_unspecified_ipv6_address_takes_ipv4_clients() {
        let (listener, addr) = listener(spec("[::]:0".parse().unwrap())).unwrap();
        let client = TcpStream::connect(("127.0.0.1", addr.port())).unwrap();
        assert_eq!(accept_one(&listener).1, Some(client.local_addr().unwrap()));
    }

    #[test]
    fn a_reservation_gives_a_port_and_admits_our_listeners_only() {
        let held = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = held.addr();
        assert_ne!(addr.port(), 0);
        assert!(reserve(addr).is_err(), "reserved, nobody listens");
        assert!(TcpListener::bind(addr).is_err(), "without SO_REUSEPORT");
        let first = listener(spec(addr)).unwrap();
        let second = listener(spec(addr)).unwrap();
        assert_eq!((first.1, second.1), (addr, addr));
        drop(held);
        let error = reserve(addr).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_in_time_wait_do_not_hold_an_address() {
        let held = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = held.addr();
        let (listener, _) = listener(spec(addr)).unwrap();
        let mut client = TcpStream::connect(addr).unwrap();
        let server = accept_one(&listener).0;
        drop(server); // the side that closes first stays in TIME_WAIT
        assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
        drop((client, listener, held));
        reserve(addr).unwrap();
    }

    #[test]
    fn an_address_that_nobody_has_is_refused() {
        let error = reserve("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_thread_can_be_pinned_to_each_core() {
        let cores = available_cores();
        assert!(!cores.is_empty());
        let pinned = |core| move || pin_to_core(core).map(|()| available_cores());
        for core in cores {
            assert_eq!(std::thread::spawn(pinned(core)).join().unwrap().unwrap(), [core]);
        }
        assert!(pin_to_core(1 << 20).is_err());
        let all = available_cores();
        let both = std::thread::spawn(move || pin_to_cores(&all).map(|()| available_cores() == all));
        assert!(both.join().unwrap().unwrap());
    }

    #[test]
    fn a_thread_steps_back_alone_and_its_time_passes_while_it_works() {
        // SAFETY: no memory is passed.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        assert_eq!(
            std::thread::spawn(move || crate::io::lower_priority(19).map(|()| nice()))
                .join()
                .unwrap()
                .unwrap(),
            19
        );
        assert_eq!(nice(), before);
        let begin = thread_cpu_ns();
        let mut some = 0u64;
        while thread_cpu_ns() == begin {
            some = std::hint::black_box(some + 1);
        }
    }
}
