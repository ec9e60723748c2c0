//! More connections than one table of descriptors holds.

use super::moving::{handed_over, with_a_second_shard};
use super::*;
use std::collections::{HashMap, HashSet};

fn tables(connections_max: u32, table_max: u32) -> DriverOptions {
    DriverOptions { connections_max, table_max, ..small() }
}

#[test]
fn as_many_rings_are_opened_as_are_needed() {
    let rings = |max, table| {
        let text = Annexed::build(&tables(max, table)).describe();
        let count = text.split(" direct descriptors in ").nth(1).unwrap();
        (text.contains(&format!(" {max} direct descriptors")), count.split(' ').next().unwrap().to_owned())
    };
    assert_eq!(rings(8, 8), (true, "1".to_owned()));
    assert_eq!(rings(9, 8), (true, "2".to_owned()));
    assert_eq!(rings(80, 8), (true, "10".to_owned()));
    // The number of rings has a bound.
    let most = Annexed::build(&tables(10_000, 8));
    assert_eq!(most.room(), 8 * crate::limits::RINGS_PER_SHARD_MAX);
    // What one table gives is the default.
    let one = Annexed::build(&tables(0, 300));
    assert_eq!(one.room(), 270);
}

/// Accepts `clients` connections while each of them talks; returns them with their clients.
fn crowd(rig: &mut Rig<Annexed>, clients: usize) -> Vec<(TcpStream, Conn)> {
    let mut conns = HashMap::new();
    let mut sockets = Vec::new();
    while sockets.len() < clients {
        // As many as the head-room of a table takes.
        let batch = 20.min(clients - sockets.len());
        sockets.extend((0..batch).map(|_| TcpStream::connect(rig.addr).unwrap()));
        for _ in 0..batch {
            let ((conn, peer), _) = rig.find("Accepted", |e| match e {
                Event::Accepted { conn, peer, .. } => Some((*conn, *peer)),
                _ => None,
            });
            assert!(conns.insert(peer.unwrap(), conn).is_none());
        }
    }
    let different: HashSet<_> = conns.values().collect();
    assert_eq!(different.len(), clients, "an index is given once");
    sockets
        .into_iter()
        .map(|c| {
            let addr = c.local_addr().unwrap();
            (c, conns[&addr])
        })
        .collect()
}

#[test]
fn accepting_moves_from_ring_to_ring() {
    let mut rig = Rig::<Annexed>::with(&tables(900, 300));
    let mut pairs = crowd(&mut rig, 810);
    assert_eq!(rig.io.room(), 0);
    for ring in 0..3 {
        assert!(pairs.iter().filter(|(_, conn)| conn / 300 == ring).count() >= 270, "each ring is in use");
    }
    let waiting = TcpStream::connect(rig.addr).unwrap();
    rig.nothing_happens();
    for (client, conn) in pairs.iter_mut().step_by(50) {
        rig.echo(client, *conn, b"hello");
    }
    // A place on any ring is taken.
    let (client, conn) = pairs.swap_remove(400);
    rig.io.close(conn, Close::Now);
    rig.closed(conn);
    drop(client);
    assert_eq!(rig.accepted() / 300, conn / 300);
    drop(waiting);
}

#[test]
fn places_on_all_rings_are_reused() {
    let mut rig = Rig::<Annexed>::with(&tables(24, 8));
    for round in 0..10 {
        let mut pairs = crowd(&mut rig, 24);
        for (client, conn) in &mut pairs {
            rig.io.read(*conn, Read::Stream { credit: 1 << 16 });
            client.write_all(&[round, *conn as u8]).unwrap();
        }
        for (_, conn) in &pairs {
            assert_eq!(rig.data(*conn), [round, *conn as u8]);
        }
        for (i, (_, conn)) in pairs.iter().enumerate() {
            rig.io.close(*conn, if i % 2 == 0 { Close::Now } else { Close::Reset });
        }
        for (_, conn) in &pairs {
            rig.closed(*conn);
        }
        rig.nothing_happens();
        assert_eq!(rig.io.room(), 24);
    }
}

#[test]
fn a_sleeping_shard_hears_its_annexes() {
    let mut rig = Rig::<Annexed>::with(&tables(24, 8));
    let mut pairs = crowd(&mut rig, 24);
    for (_, conn) in &pairs {
        rig.io.read(*conn, Read::Parked);
    }
    rig.nothing_happens();
    let enters = rig.io.stats().enters;
    let deadline = rig.io.now().plus_ms(20);
    rig.turn(Some(deadline));
    assert!(rig.io.stats().enters - enters <= 3, "annexes are not entered for nothing");
    for (client, conn) in &mut pairs {
        let mut writer = client.try_clone().unwrap();
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            writer.write_all(b"wake up").unwrap();
        });
        rig.ready(*conn);
        late.join().unwrap();
    }
}

/// All places of the target are found, whichever ring they are on, and then no more.
#[test]
fn arrivals_find_a_ring_with_room() {
    const PLACES: usize = 20;
    let mut rig = Rig::<Annexed>::new();
    let (done, is_done) = mpsc::channel::<()>();
    let shard = with_a_second_shard(&mut rig, tables(PLACES as u32, 4), move |mut rig| {
        let mut arrived = HashMap::new();
        while is_done.try_recv().is_err() {
            let deadline = rig.io.now().plus_ms(5);
            rig.turn(Some(deadline));
            for event in std::mem::take(&mut rig.queue) {
                match event {
                    Event::Arrived { conn, item } => {
                        assert!(arrived.insert(conn, item).is_none());
                        rig.io.read(conn, Read::Once);
                    }
                    Event::Data { conn, lease } => {
                        if *lease == *b"go" {
                            arrived.remove(&conn);
                            rig.io.close(conn, Close::Now);
                        }
                        rig.io.release(lease);
                    }
                    _ => {}
                }
            }
        }
        arrived.len()
    });
    let mut clients = VecDeque::new();
    for _ in 0..PLACES {
        let (client, conn) = rig.pair();
        rig.io.hand_over(conn, 1, Box::new(b"item".to_vec()));
        handed_over(&mut rig, conn);
        clients.push_back(client);
    }
    for _ in 0..3 {
        let (mut client, conn) = rig.pair();
        rig.io.hand_over(conn, 1, Box::new(b"item".to_vec()));
        rig.find("HandOverFailed", |e| {
            matches!(e, Event::HandOverFailed { conn: c, item, errno: libc::ENFILE }
                if *c == conn && **item == *b"item")
            .then_some(())
        });
        rig.echo(&mut client, conn, b"still here");
        rig.io.close(conn, Close::Now);
        rig.closed(conn);
        // One leaves, from one ring after the other, and its place is found.
        let mut leaving = clients.pop_front().unwrap();
        leaving.write_all(b"go").unwrap();
        assert_eq!(leaving.read(&mut [0]).unwrap(), 0);
        let (client, conn) = rig.pair();
        rig.io.hand_over(conn, 1, Box::new(b"item".to_vec()));
        handed_over(&mut rig, conn);
        clients.push_back(client);
    }
    done.send(()).unwrap();
    assert_eq!(shard.join().unwrap(), PLACES);
}
