//! Connections that move from shard to shard.

use super::*;

/// A second shard on a thread of its own: what it does is `work`; the peers are (ours, its).
pub(super) fn with_a_second_shard<D: Subject, T: Send + 'static>(
    rig: &mut Rig<D>,
    options: DriverOptions,
    work: impl FnOnce(Rig<D>) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let (to_us, from_it) = mpsc::channel();
    let (to_it, from_us) = mpsc::channel::<Vec<Address<Item>>>();
    let thread = thread::spawn(move || {
        let mut rig = Rig::<D>::with(&options);
        to_us.send((rig.io.address(), rig.addr)).unwrap();
        let peers = from_us.recv().unwrap();
        rig.io.set_peers(peers);
        work(rig)
    });
    let (address, _) = from_it.recv().unwrap();
    let peers = vec![rig.io.address(), address];
    rig.io.set_peers(peers.clone());
    to_it.send(peers).unwrap();
    thread
}

pub(super) fn handed_over<D: Subject>(rig: &mut Rig<D>, conn: Conn) {
    rig.find("HandedOver", |e| matches!(e, Event::HandedOver { conn: c } if *c == conn).then_some(()));
}

fn streams_move_in_order<D: Subject>() {
    const CLIENTS: usize = 60;
    const BYTES: usize = 100_000;
    let mut rig = Rig::<D>::new();
    let shard = with_a_second_shard(&mut rig, small(), |mut rig| {
        let mut got = std::collections::HashMap::new();
        let mut open = CLIENTS;
        while open > 0 {
            match rig.find("event", |_| Some(())).1 {
                Event::Arrived { conn, item } => {
                    got.insert(conn, *item);
                    rig.io.read(conn, Read::Stream { credit: 10_000 });
                }
                Event::Data { conn, lease } => {
                    got.get_mut(&conn).unwrap().extend_from_slice(&lease);
                    rig.io.release(lease);
                }
                Event::ReadEnded { conn, why: ReadEnd::Credit } => {
                    rig.io.read(conn, Read::Stream { credit: 10_000 });
                }
                Event::ReadEnded { conn, why: ReadEnd::Eof } => {
                    assert!(got.remove(&conn).unwrap() == pattern(BYTES), "bytes lost or out of order");
                    rig.io.close(conn, Close::Now);
                    open -= 1;
                }
                Event::Woken | Event::Closed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        rig.io.stats().arrivals
    });
    let addr = rig.addr;
    let clients = thread::spawn(move || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for piece in pattern(BYTES).chunks(777) {
            clients.iter_mut().for_each(|client| client.write_all(piece).unwrap());
        }
    });
    let mut moved = 0;
    while moved < CLIENTS {
        match rig.find("event", |_| Some(())).1 {
            Event::Accepted { conn, .. } => rig.io.read(conn, Read::Once),
            Event::Data { conn, lease } => {
                let item = Box::new(lease.to_vec());
                rig.io.release(lease);
                rig.io.hand_over(conn, 1, item);
            }
            Event::HandedOver { .. } => moved += 1,
            Event::Woken => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shard.join().unwrap(), CLIENTS as u64);
    clients.join().unwrap();
    assert_eq!(rig.io.stats().hand_overs, CLIENTS as u64);
    rig.queue.clear();
    rig.nothing_happens();
    let (mut client, conn) = rig.pair();
    rig.echo(&mut client, conn, b"indices are free");
}

fn a_full_table_refuses_arrivals<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (done, is_done) = mpsc::channel::<()>();
    let options = DriverOptions { connections_max: 1, ..small() };
    let shard = with_a_second_shard(&mut rig, options, move |mut rig| {
        let mut arrived = Vec::new();
        let mut finished = false;
        // One more turn when it is done: what came before is there.
        while !finished {
            finished = is_done.try_recv().is_ok();
            let deadline = rig.io.now().plus_ms(5);
            rig.turn(Some(deadline));
            for event in std::mem::take(&mut rig.queue) {
                if let Event::Arrived { conn, item } = event {
                    arrived.push((conn, *item));
                }
            }
        }
        arrived
    });
    let (_first, one) = rig.pair();
    rig.io.hand_over(one, 1, Box::new(b"first".to_vec()));
    handed_over(&mut rig, one);
    for round in 0..5 {
        let (mut client, two) = rig.pair();
        client.write_all(b"unread").unwrap();
        rig.io.hand_over(two, 1, Box::new(b"second".to_vec()));
        let (item, _) = rig.find("HandOverFailed", |e| match e {
            Event::HandOverFailed { conn, item, errno: libc::ENFILE } if *conn == two => Some(item.clone()),
            _ => None,
        });
        assert_eq!(*item, b"second", "round {round}");
        // It is still ours, and works.
        assert_eq!(rig.read_exactly(two, 6, 6), b"unread");
        assert_eq!(rig.ended(two), ReadEnd::Credit);
        rig.echo(&mut client, two, b"still here");
        rig.io.close(two, Close::Now);
        rig.closed(two);
    }
    assert_eq!(rig.io.stats().hand_over_failures, 5);
    done.send(()).unwrap();
    assert_eq!(shard.join().unwrap(), [(0, b"first".to_vec())]);
}

fn a_shard_that_is_gone_refuses_arrivals<D: Subject>() {
    let mut rig = Rig::<D>::new();
    with_a_second_shard(&mut rig, small(), drop).join().unwrap();
    for shard in [1, 9] {
        let (mut client, conn) = rig.pair();
        rig.io.hand_over(conn, shard, Box::new(b"item".to_vec()));
        let (item, _) = rig.find("HandOverFailed", |e| match e {
            Event::HandOverFailed { conn: c, item, .. } if *c == conn => Some(item.clone()),
            _ => None,
        });
        assert_eq!(*item, b"item");
        rig.echo(&mut client, conn, b"still here");
        rig.io.wake(shard);
        rig.turn(None);
    }
}

/// Connections go back and forth while both sides are busy.
fn connections_move_back_and_forth<D: Subject>() {
    const ROUNDS: u8 = 20;
    let mut rig = Rig::<D>::new();
    fn bounce<D: Subject>(rig: &mut Rig<D>, to: ShardId, until: usize) {
        let mut ended = 0;
        let mut items = std::collections::HashMap::new();
        while ended < until {
            match rig.find("event", |_| Some(())).1 {
                Event::Accepted { conn, .. } => {
                    items.insert(conn, vec![0]);
                    rig.io.read(conn, Read::Once);
                }
                Event::Arrived { conn, item } => {
                    items.insert(conn, *item);
                    rig.io.read(conn, Read::Once);
                }
                Event::Data { conn, lease } => {
                    let mut item = items.remove(&conn).unwrap();
                    assert_eq!(*lease, item[..], "its turn");
                    rig.io.release(lease);
                    item[0] += 1;
                    if item[0] == ROUNDS {
                        rig.io.close(conn, Close::Now);
                    } else {
                        rig.io.send(conn, item.clone());
                        items.insert(conn, item);
                    }
                }
                Event::Sent { conn, error: None, .. } => {
                    rig.io.hand_over(conn, to, Box::new(items.remove(&conn).unwrap()));
                }
                Event::HandedOver { .. } => ended += usize::from(to == 1),
                Event::Closed { .. } => ended += usize::from(to == 0),
                Event::Woken => {}
                other => panic!("{other:?}"),
            }
        }
    }
    const CLIENTS: usize = 20;
    let shard = with_a_second_shard(&mut rig, small(), |mut rig| bounce(&mut rig, 0, CLIENTS));
    let addr = rig.addr;
    let clients = thread::spawn(move || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for round in 0..ROUNDS {
            for client in &mut clients {
                client.write_all(&[round]).unwrap();
            }
            for client in &mut clients {
                let mut answer = [0];
                match client.read(&mut answer).unwrap() {
                    0 => assert_eq!(round, ROUNDS - 1),
                    _ => assert_eq!(answer[0], round + 1),
                }
            }
        }
    });
    bounce(&mut rig, 1, CLIENTS * usize::from(ROUNDS / 2));
    shard.join().unwrap();
    clients.join().unwrap();
}

/// Whoever has a connection when the drivers go closes it.
fn sockets_under_way_close_when_drivers_go<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let shard = with_a_second_shard(&mut rig, small(), |mut rig| {
        // Takes one, then leaves with others in its queue.
        rig.find("Arrived", |e| matches!(e, Event::Arrived { .. }).then_some(()));
    });
    let clients: Vec<_> = (0..20).map(|_| rig.pair()).collect();
    for (_, conn) in &clients {
        rig.io.hand_over(*conn, 1, Box::new(pattern(1_000)));
        if conn % 4 == 0 {
            rig.turn(None);
        }
    }
    drop(rig);
    shard.join().unwrap();
    for (mut client, _) in clients {
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).unwrap_or(0), 0);
    }
}

/// The target closes the connection, and the client sees that although the sender failed to let go twice.
fn a_descriptor_that_stays_behind_is_closed_again<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let shard = with_a_second_shard(&mut rig, small(), |mut rig| {
        let arrived = |e: &Event<Item>| match e {
            Event::Arrived { conn, .. } => Some(*conn),
            _ => None,
        };
        let (conn, _) = rig.find("Arrived", arrived);
        rig.io.close(conn, Close::Now);
        rig.closed(conn);
    });
    let room = rig.io.room();
    let (mut client, conn) = rig.pair();
    client.set_read_timeout(Some(Duration::from_millis(PATIENCE_MS))).unwrap();
    rig.io.fail_closes(2);
    rig.io.hand_over(conn, 1, Box::default());
    handed_over(&mut rig, conn);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "nobody has it any more");
    shard.join().unwrap();
    assert_eq!(rig.io.room(), room);
    let (mut client, conn) = rig.pair();
    rig.echo(&mut client, conn, b"its index is free");
}

on_each_driver!(
    a_descriptor_that_stays_behind_is_closed_again,
    streams_move_in_order,
    a_full_table_refuses_arrivals,
    a_shard_that_is_gone_refuses_arrivals,
    connections_move_back_and_forth,
    sockets_under_way_close_when_drivers_go,
);
