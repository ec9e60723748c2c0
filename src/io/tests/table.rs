//! Accepting: pausing, a table that is full, a drain.

use super::*;
use crate::limits::ACCEPT_RETRY_MS;
use std::time::Instant;

fn a_pause_leaves_clients_in_the_backlog<D: Subject>() {
    let mut rig = Rig::<D>::new();
    rig.settle();
    for _ in 0..3 {
        rig.io.accept_pause();
        rig.io.accept_pause();
        rig.nothing_happens();
        let mut client = TcpStream::connect(rig.addr).unwrap();
        rig.nothing_happens();
        rig.io.accept_resume();
        rig.io.accept_resume();
        let conn = rig.accepted();
        rig.echo(&mut client, conn, b"patience");
    }
}

fn a_full_table_leaves_clients_in_the_backlog<D: Subject>() {
    let mut rig = Rig::<D>::with(&DriverOptions { connections_max: 4, ..small() });
    assert_eq!(rig.io.room(), 4);
    let mut clients: VecDeque<_> = (0..9).map(|_| TcpStream::connect(rig.addr).unwrap()).collect();
    let mut conns = VecDeque::new();
    for _ in 0..4 {
        conns.push_back(rig.accepted());
    }
    rig.nothing_happens();
    assert_eq!(rig.io.room(), 0);
    let before = rig.io.stats().enters;
    let deadline = rig.io.now().plus_ms(20);
    rig.turn(Some(deadline));
    assert!(rig.io.stats().enters - before <= 3, "it spins");
    // Each that leaves makes room for one; none was refused meanwhile.
    for _ in 0..5 {
        let conn = conns.pop_front().unwrap();
        let mut client = clients.pop_front().unwrap();
        rig.echo(&mut client, conn, b"served");
        rig.io.close(conn, Close::Now);
        rig.closed(conn);
        conns.push_back(rig.accepted());
        rig.nothing_happens();
    }
    for (client, conn) in clients.iter_mut().zip(conns) {
        rig.echo(client, conn, b"served too");
    }
    assert_eq!(rig.io.stats().accepts, 9);
    assert!(rig.io.stats().accept_pauses > 0);
}

/// An accept that fails while the driver sleeps is not tried again before its time, however long the sleep was.
fn a_failed_accept_waits_from_when_it_failed<D: Subject>() {
    let start = Instant::now();
    let mut rig = Rig::<D>::with(&DriverOptions { start, ..small() });
    rig.settle();
    let (listener, stalled) = rig.io.accepting();
    assert_eq!(stalled, None);
    let breaks = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        let at = start.elapsed().as_millis() as u64;
        // SAFETY: shutdown takes no pointer; the listener is the driver's, which outlives this thread.
        unsafe { libc::shutdown(listener, libc::SHUT_RDWR) };
        at
    });
    while rig.io.accepting().1.is_none() {
        let deadline = rig.io.now().plus_ms(PATIENCE_MS);
        rig.turn(Some(deadline));
    }
    let failed_at = Moment(breaks.join().unwrap());
    let retry_at = rig.io.accepting().1.unwrap();
    assert!(retry_at >= failed_at.plus_ms(ACCEPT_RETRY_MS), "{retry_at:?}, and it failed at {failed_at:?}");
    assert_eq!(rig.io.stats().accept_pauses, 1);
}

fn headroom_is_kept_for_arrivals<D: Subject>() {
    let rig = Rig::<D>::with(&DriverOptions { connections_max: 100, ..small() });
    assert_eq!(rig.io.room(), 90);
}

fn a_drain_closes_the_listeners<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    rig.io.accept_stop();
    // Keeps the port from other tests while nobody listens on it.
    let _held = net::reserve(rig.addr).unwrap();
    rig.nothing_happens();
    let refused = TcpStream::connect(rig.addr).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    rig.echo(&mut client, conn, b"still here");
    // The address can be listened on again.
    let spec = ListenSpec::new(rig.addr, 8);
    assert_eq!(rig.io.listen(spec).unwrap(), rig.addr);
    let (mut client, conn) = rig.pair();
    rig.echo(&mut client, conn, b"again");
}

fn listeners_are_told_apart<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let spec = ListenSpec { listener: 200, ..ListenSpec::new("[::]:0".parse().unwrap(), 8) };
    let second = rig.io.listen(spec).unwrap();
    let client = TcpStream::connect(("127.0.0.1", second.port())).unwrap();
    let (found, _) = rig.find("Accepted", |e| match e {
        Event::Accepted { listener, peer, .. } => Some((*listener, *peer)),
        _ => None,
    });
    assert_eq!(found, (200, Some(client.local_addr().unwrap())));
    let (_client, _) = rig.pair();
}

fn a_port_in_use_is_an_error<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = ListenSpec::new(other.local_addr().unwrap(), 8);
    let error = rig.io.listen(spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

on_each_driver!(
    a_pause_leaves_clients_in_the_backlog,
    a_full_table_leaves_clients_in_the_backlog,
    a_failed_accept_waits_from_when_it_failed,
    headroom_is_kept_for_arrivals,
    a_drain_closes_the_listeners,
    listeners_are_told_apart,
    a_port_in_use_is_an_error,
);
