//! Connections that a shard opens.

use super::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

fn loopback(last: u8) -> Option<IpAddr> {
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 7, last)))
}

fn connected<D: Subject>(rig: &mut Rig<D>, conn: Conn) -> Option<i32> {
    rig.find("Connected", |e| match e {
        Event::Connected { conn: c, error } if *c == conn => Some(*error),
        _ => None,
    })
    .0
}

/// A port that nobody listens on, kept from others.
fn closed_port() -> (net::Reservation, SocketAddr) {
    let held = net::reserve("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = held.addr();
    (held, addr)
}

fn a_connection_works_in_both_directions<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let conn = rig.io.connect(peer.local_addr().unwrap(), None).unwrap();
    assert_eq!(connected(&mut rig, conn), None);
    let (mut client, _) = peer.accept().unwrap();
    rig.echo(&mut client, conn, b"hello");
    rig.io.read(conn, Read::Stream { credit: 1 << 16 });
    drop(client);
    assert_eq!(rig.ended(conn), ReadEnd::Eof);
    rig.io.close(conn, Close::Now);
    rig.closed(conn);
    rig.nothing_happens();
    assert_eq!(rig.io.stats().connects, 1);
}

fn ipv6_works_too<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let Ok(peer) = TcpListener::bind("[::1]:0") else { return };
    let from = Some("::1".parse().unwrap());
    let conn = rig.io.connect(peer.local_addr().unwrap(), from).unwrap();
    assert_eq!(connected(&mut rig, conn), None);
    let (mut client, addr) = peer.accept().unwrap();
    assert_eq!(Some(addr.ip()), from);
    rig.echo(&mut client, conn, b"hello");
}

fn a_refusal_names_its_reason<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (_held, nobody) = closed_port();
    for how in [Close::Now, Close::Flush, Close::Reset] {
        let conn = rig.io.connect(nobody, None).unwrap();
        assert_eq!(connected(&mut rig, conn), Some(libc::ECONNREFUSED));
        rig.nothing_happens();
        rig.io.close(conn, how);
        rig.closed(conn);
        rig.nothing_happens();
    }
}

fn the_peer_sees_the_source_address<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    for last in 1..20 {
        let conn = rig.io.connect(peer.local_addr().unwrap(), loopback(last)).unwrap();
        assert_eq!(connected(&mut rig, conn), None);
        assert_eq!(Some(peer.accept().unwrap().1.ip()), loopback(last));
    }
}

fn what_cannot_begin_is_an_error<D: Subject>() {
    let mut rig = Rig::<D>::with(&DriverOptions { connections_max: 2, ..small() });
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let strange = rig.io.connect(to, Some("192.0.2.1".parse().unwrap())).unwrap_err();
    assert_eq!(strange.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let other = rig.io.connect(to, Some("::1".parse().unwrap())).unwrap_err();
    assert!(matches!(other.raw_os_error(), Some(libc::EINVAL | libc::EAFNOSUPPORT)), "{other}");
    rig.nothing_happens();
    let first = rig.io.connect(to, None).unwrap();
    let second = rig.io.connect(to, None).unwrap();
    let full = rig.io.connect(to, None).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENFILE));
    assert_eq!(connected(&mut rig, first), None);
    assert_eq!(connected(&mut rig, second), None);
    rig.nothing_happens();
    rig.io.close(first, Close::Now);
    rig.closed(first);
    let third = rig.io.connect(to, None).unwrap();
    assert_eq!(connected(&mut rig, third), None);
}

/// The index of a connection is never one whose `Closed` is still to come.
fn indices_are_reused_after_their_closed_only<D: Subject>() {
    let mut rig = Rig::<D>::with(&DriverOptions { connections_max: 8, ..small() });
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let mut held = HashSet::new();
    let mut clients = VecDeque::new();
    for round in 0..300 {
        let conn = rig.io.connect(to, None).unwrap();
        assert!(held.insert(conn), "round {round}: {conn} has not been closed");
        assert_eq!(connected(&mut rig, conn), None);
        clients.push_back(peer.accept().unwrap().0);
        rig.io.close(conn, Close::Now);
        for _ in 0..round % 3 {
            rig.turn(None);
        }
        for event in std::mem::take(&mut rig.queue) {
            match event {
                Event::Closed { conn } => assert!(held.remove(&conn)),
                other => panic!("{other:?}"),
            }
        }
        while held.len() > 4 {
            let (conn, _) = rig.find("Closed", |e| match e {
                Event::Closed { conn } => Some(*conn),
                _ => None,
            });
            assert!(held.remove(&conn));
        }
    }
    for conn in held {
        rig.closed(conn);
    }
    rig.nothing_happens();
}

fn many_connect_at_once<D: Subject>() {
    const MANY: u32 = 300;
    let mut rig = Rig::<D>::new();
    let to = rig.addr;
    let mut opened = HashSet::new();
    for i in 0..MANY {
        assert!(opened.insert(rig.io.connect(to, loopback(1 + (i % 7) as u8)).unwrap()));
    }
    // The same driver accepts them, at other indices.
    let (mut ours, mut theirs, mut answered) = (0, 0, 0);
    while answered < MANY {
        match rig.find("event", |_| Some(())).1 {
            Event::Connected { conn, error: None } => {
                assert!(opened.contains(&conn));
                ours += 1;
                rig.io.send(conn, conn.to_le_bytes().to_vec());
                rig.io.read(conn, Read::Once);
            }
            Event::Accepted { conn, peer, .. } => {
                assert!(!opened.contains(&conn));
                let IpAddr::V4(ip) = peer.unwrap().ip() else { panic!("{peer:?}") };
                assert_eq!(ip.octets()[..3], [127, 0, 7]);
                theirs += 1;
                rig.io.read(conn, Read::Once);
            }
            Event::Data { conn, lease } => {
                let bytes: [u8; 4] = lease[..].try_into().unwrap();
                if opened.contains(&conn) {
                    assert_eq!(bytes, conn.to_le_bytes());
                    answered += 1;
                } else {
                    rig.io.send(conn, bytes.to_vec());
                }
                rig.io.release(lease);
            }
            Event::Sent { error: None, .. } | Event::Woken => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ours, theirs), (MANY, MANY));
}

/// Fills the queue of a listener that nobody accepts from: later attempts stay under way.
fn stuck<D: Subject>(rig: &mut Rig<D>) -> (net::Reservation, std::os::fd::OwnedFd, SocketAddr, Vec<Conn>) {
    let held = net::reserve("127.0.0.1:0".parse().unwrap()).unwrap();
    let (listener, addr) = net::listener(ListenSpec::new(held.addr(), 1)).unwrap();
    let conns = (0..8).map(|_| rig.io.connect(addr, None).unwrap()).collect();
    rig.settle();
    (held, listener, addr, conns)
}

fn closing_ends_an_attempt<D: Subject>() {
    for how in [Close::Now, Close::Reset, Close::Flush] {
        let mut rig = Rig::<D>::new();
        let (_held, _listener, addr, conns) = stuck(&mut rig);
        let open: HashSet<Conn> = std::mem::take(&mut rig.queue)
            .into_iter()
            .filter_map(|e| match e {
                Event::Connected { conn, error: None } => Some(conn),
                Event::Woken => None,
                other => panic!("{other:?}"),
            })
            .collect();
        let pending: Vec<_> = conns.into_iter().filter(|conn| !open.contains(conn)).collect();
        assert!(!pending.is_empty(), "the listener's queue is short");
        for conn in &pending {
            rig.io.close(*conn, how);
        }
        // And one that the kernel has not heard of yet.
        let last = rig.io.connect(addr, None).unwrap();
        rig.io.close(last, how);
        for conn in pending.into_iter().chain([last]) {
            rig.closed(conn);
        }
        rig.nothing_happens();
    }
}

fn attempts_end_with_their_driver<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (_held, _listener, addr, _) = stuck(&mut rig);
    rig.io.connect(addr, None).unwrap();
    drop(rig);
}

on_each_driver!(
    a_connection_works_in_both_directions,
    ipv6_works_too,
    a_refusal_names_its_reason,
    the_peer_sees_the_source_address,
    what_cannot_begin_is_an_error,
    indices_are_reused_after_their_closed_only,
    many_connect_at_once,
    closing_ends_an_attempt,
    attempts_end_with_their_driver,
);
