//! Closing in every state, and what the peer sees of it.

use super::*;

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Idle,
    Once,
    Stream,
    Parked,
    Sending,
    SendingAndStream,
    UnreadInput,
}

const STATES: [State; 7] = [
    State::Idle,
    State::Once,
    State::Stream,
    State::Parked,
    State::Sending,
    State::SendingAndStream,
    State::UnreadInput,
];

/// Brings a connection into the state.
fn enter<D: Subject>(rig: &mut Rig<D>, client: &mut TcpStream, conn: Conn, state: State) {
    match state {
        State::Idle => {}
        State::Once => rig.io.read(conn, Read::Once),
        State::Stream => rig.io.read(conn, Read::Stream { credit: 1 << 16 }),
        State::Parked => rig.io.read(conn, Read::Parked),
        State::Sending => rig.io.send(conn, pattern(12 << 20)),
        State::SendingAndStream => {
            rig.io.send(conn, pattern(12 << 20));
            rig.io.read(conn, Read::Stream { credit: 1 << 16 });
        }
        State::UnreadInput => client.write_all(b"nobody reads this").unwrap(),
    }
}

fn close_in_each_state<D: Subject>(how: Close) {
    for submitted in [true, false] {
        for state in STATES {
            let mut rig = Rig::<D>::new();
            let (mut client, conn) = rig.pair();
            enter(&mut rig, &mut client, conn, state);
            if submitted {
                rig.settle();
            }
            rig.io.close(conn, how);
            rig.closed(conn);
            let sending = matches!(state, State::Sending | State::SendingAndStream);
            if sending {
                assert!(rig.sent(conn).is_some(), "{state:?}: an abandoned send says so");
            }
            rig.nothing_happens();
            let mut rest = Vec::new();
            match client.read_to_end(&mut rest) {
                Ok(_) => assert!(how != Close::Reset, "{state:?}: a reset was asked for"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{state:?}");
                }
            }
            assert!(pattern(12 << 20).starts_with(&rest));
            // The index is free, and its next owner sees nothing of the first.
            let (mut next, reused) = rig.pair();
            assert_eq!(reused, conn, "{state:?}: the index is used again");
            rig.echo(&mut next, reused, b"a new owner");
            rig.nothing_happens();
        }
    }
}

fn now_closes_in_each_state<D: Subject>() {
    close_in_each_state::<D>(Close::Now);
}

fn reset_closes_in_each_state<D: Subject>() {
    close_in_each_state::<D>(Close::Reset);
}

/// Connections come and go at the same indices while data is under way.
fn reused_indices_stay_apart<D: Subject>() {
    let mut rig = Rig::<D>::with(&DriverOptions { connections_max: 8, ..small() });
    for round in 0..60u32 {
        let mut pairs: Vec<_> = (0..4).map(|_| rig.pair()).collect();
        for (client, conn) in &mut pairs {
            client.write_all(&round.to_le_bytes()).unwrap();
            rig.io.read(*conn, Read::Stream { credit: 4 + round % 2 });
        }
        if round % 3 == 0 {
            rig.turn(None);
        }
        let kept = pairs.split_off(2);
        for (_client, conn) in &pairs {
            rig.io.close(*conn, Close::Now);
        }
        for (_client, conn) in &kept {
            assert_eq!(rig.data(*conn), round.to_le_bytes());
        }
        for (_client, conn) in &kept {
            rig.io.close(*conn, Close::Now);
        }
        for (_client, conn) in pairs.iter().chain(&kept) {
            rig.closed(*conn);
        }
        // Data of the first two may have arrived before they closed.
        for event in std::mem::take(&mut rig.queue) {
            match event {
                Event::Data { lease, .. } => rig.io.release(lease),
                Event::ReadEnded { why: ReadEnd::Credit, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    rig.nothing_happens();
}

fn flush_delivers_although_input_is_unread<D: Subject>() {
    for (len, armed) in [(64, false), (64, true), (1 << 20, false), (1 << 20, true)] {
        let mut rig = Rig::<D>::new();
        let (mut client, conn) = rig.pair();
        client.write_all(&pattern(30_000)).unwrap();
        rig.settle();
        if armed {
            rig.io.read(conn, Read::Parked);
            rig.ready(conn);
            rig.io.read(conn, Read::Parked);
        }
        let last = pattern(len);
        rig.io.send(conn, last.clone());
        rig.io.close(conn, Close::Flush);
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        assert_eq!(rig.sent(conn), None);
        rig.closed(conn);
        assert_eq!(reader.join().unwrap(), last);
        rig.queue.retain(|e| !matches!(e, Event::Ready { .. }));
        rig.nothing_happens();
        assert_eq!((rig.io.stats().lingers, rig.io.stats().linger_timeouts), (1, 0));
    }
}

fn flush_without_output_ends_the_stream<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    rig.io.read(conn, Read::Stream { credit: 1_000 });
    rig.settle();
    rig.io.close(conn, Close::Flush);
    rig.settle();
    client.write_all(b"late").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    rig.closed(conn);
    rig.nothing_happens();
}

fn a_peer_that_stays_is_closed_in_time<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (client, conn) = rig.pair();
    rig.io.send(conn, b"bye".to_vec());
    rig.io.close(conn, Close::Flush);
    rig.closed(conn);
    assert_eq!(rig.sent(conn), None);
    assert_eq!(rig.io.stats().linger_timeouts, 1);
    drop(client);
    rig.nothing_happens();
}

fn a_peer_that_floods_is_closed_at_once<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    rig.io.close(conn, Close::Flush);
    let flood = thread::spawn(move || {
        let piece = vec![0; 100_000];
        while client.write_all(&piece).is_ok() {}
    });
    rig.closed(conn);
    assert_eq!(rig.io.stats().linger_timeouts, 0);
    flood.join().unwrap();
}

fn flush_can_be_cut_short<D: Subject>() {
    for how in [Close::Now, Close::Reset] {
        let mut rig = Rig::<D>::new();
        let (client, conn) = rig.pair();
        rig.io.send(conn, pattern(12 << 20));
        rig.io.close(conn, Close::Flush);
        rig.nothing_happens();
        rig.io.close(conn, how);
        rig.closed(conn);
        assert!(rig.sent(conn).is_some());
        drop(client);
        // And while it waits for the peer's end.
        let (client, conn) = rig.pair();
        rig.io.close(conn, Close::Flush);
        rig.nothing_happens();
        rig.io.close(conn, how);
        rig.closed(conn);
        assert_eq!(rig.io.stats().linger_timeouts, 0);
        drop(client);
        rig.nothing_happens();
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs alone in a process of its own.
fn leak_child<D: Subject>() {
    if std::env::var_os("RINGMQ_LEAK_CHILD").is_none() {
        return;
    }
    let before = open_descriptors();
    for _ in 0..3 {
        let mut rig = Rig::<D>::new();
        let mut clients = Vec::new();
        for state in STATES {
            let (mut client, conn) = rig.pair();
            enter(&mut rig, &mut client, conn, state);
            clients.push(client);
        }
        let backlog = TcpStream::connect(rig.addr).unwrap();
        let (client, conn) = rig.pair();
        rig.io.close(conn, Close::Flush);
        rig.turn(None);
        clients.extend([client, backlog]);
        drop(rig);
        assert_eq!(open_descriptors(), before + clients.len());
        // The peers see that nobody is there any more.
        for mut client in clients {
            let mut rest = Vec::new();
            if let Err(e) = client.read_to_end(&mut rest) {
                assert_eq!(e.kind(), ErrorKind::ConnectionReset);
            }
        }
    }
    assert_eq!(open_descriptors(), before);
    println!("no descriptor leaked");
}

/// Starts this test binary again for one test, so that no other test opens descriptors meanwhile.
fn a_dropped_driver_closes_everything<D: Subject>() {
    let kind = std::any::type_name::<D>();
    let is = |name| kind.contains(name);
    let driver = if is("Epoll") {
        "epoll"
    } else if is("Annexed") {
        "annexed"
    } else {
        "uring"
    };
    let name = format!("io::tests::closing::{driver}::leak_child");
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env("RINGMQ_LEAK_CHILD", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("no descriptor leaked"), "{text}");
}

on_each_driver!(
    now_closes_in_each_state,
    reset_closes_in_each_state,
    reused_indices_stay_apart,
    flush_delivers_although_input_is_unread,
    flush_without_output_ends_the_stream,
    a_peer_that_stays_is_closed_in_time,
    a_peer_that_floods_is_closed_at_once,
    flush_can_be_cut_short,
    leak_child,
    a_dropped_driver_closes_everything,
);
