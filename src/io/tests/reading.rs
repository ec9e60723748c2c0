//! Reads, credit, parking, buffers that run out, sends.

use super::*;

fn split_writes_arrive_in_order<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    client.set_nodelay(true).unwrap();
    let bytes = pattern(300);
    let mut got = Vec::new();
    for (i, byte) in bytes.iter().enumerate() {
        client.write_all(&[*byte]).unwrap();
        // Some bytes are read one by one, some pile up.
        if i % 3 == 0 {
            rig.io.read(conn, Read::Once);
            got.extend(rig.data(conn));
        }
    }
    while got.len() < bytes.len() {
        rig.io.read(conn, Read::Once);
        got.extend(rig.data(conn));
    }
    assert_eq!(got, bytes);
}

fn once_reads_once<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    rig.io.read(conn, Read::Once);
    client.write_all(b"one").unwrap();
    assert_eq!(rig.data(conn), b"one");
    client.write_all(b"two").unwrap();
    rig.nothing_happens();
    rig.io.read(conn, Read::Once);
    assert_eq!(rig.data(conn), b"two");
}

fn a_stream_stops_at_its_credit<D: Subject>() {
    let options = DriverOptions { receive_buffer_bytes: 512, ..small() };
    let mut rig = Rig::<D>::with(&options);
    let (mut client, conn) = rig.pair();
    let bytes = pattern(20_000);
    client.write_all(&bytes).unwrap();
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        rig.io.read(conn, Read::Stream { credit: 1_000 });
        let before = got.len();
        loop {
            rig.settle();
            let mut credit_used = false;
            while let Some(event) = rig.queue.pop_front() {
                match event {
                    Event::Data { lease, .. } => {
                        assert!(!credit_used, "data after the end");
                        got.extend_from_slice(&lease);
                        rig.io.release(lease);
                    }
                    Event::ReadEnded { why: ReadEnd::Credit, .. } => credit_used = true,
                    other => panic!("{other:?}"),
                }
            }
            if credit_used || got.len() == bytes.len() {
                break;
            }
        }
        let n = got.len() - before;
        assert!(n <= 1_000 + 512, "{n} bytes on a credit of 1000");
        assert!(n >= 1_000 || got.len() == bytes.len(), "{n} bytes, then the credit was gone");
        rig.nothing_happens();
    }
    assert_eq!(got, bytes);
}

fn a_stream_reports_the_end<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    rig.io.read(conn, Read::Stream { credit: 1 << 20 });
    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.data(conn), b"bye");
    assert_eq!(rig.ended(conn), ReadEnd::Eof);
    rig.nothing_happens();
    // The other direction is open still.
    rig.io.send(conn, b"ciao".to_vec());
    assert_eq!(rig.sent(conn), None);
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ciao");
}

fn a_parked_connection_is_ready_once<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    for round in 0..3 {
        rig.io.read(conn, Read::Parked);
        rig.nothing_happens();
        client.write_all(b"ab").unwrap();
        rig.ready(conn);
        client.write_all(b"cd").unwrap();
        rig.nothing_happens();
        assert_eq!(rig.read_exactly(conn, 4, 4), b"abcd", "round {round}");
        assert_eq!(rig.ended(conn), ReadEnd::Credit);
    }
    // What is there before parking counts as well, and so does the end.
    client.write_all(b"x").unwrap();
    rig.settle();
    rig.io.read(conn, Read::Parked);
    rig.ready(conn);
    rig.io.read(conn, Read::Once);
    assert_eq!(rig.data(conn), b"x");
    rig.io.read(conn, Read::Parked);
    rig.nothing_happens();
    drop(client);
    rig.ready(conn);
    rig.io.read(conn, Read::Once);
    assert_eq!(rig.ended(conn), ReadEnd::Eof);
}

fn a_slow_reader_gets_all_of_a_big_send<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    let bytes = pattern(12 << 20);
    rig.io.send(conn, bytes.clone());
    let reader = thread::spawn(move || {
        let (mut got, mut piece) = (Vec::new(), vec![0; 50_000]);
        loop {
            match client.read(&mut piece).unwrap() {
                0 => return got,
                n => got.extend_from_slice(&piece[..n]),
            }
            if got.len() < 1 << 20 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert_eq!(rig.sent(conn), None);
    rig.io.send(conn, b"and the last".to_vec());
    assert_eq!(rig.sent(conn), None);
    rig.io.close(conn, Close::Flush);
    rig.closed(conn);
    rig.nothing_happens();
    let got = reader.join().unwrap();
    assert_eq!(got.len(), bytes.len() + 12);
    assert!(got.starts_with(&bytes) && got.ends_with(b"and the last"));
}

fn a_reset_ends_reads_and_sends<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (client, conn) = rig.pair();
    rig.io.read(conn, Read::Stream { credit: 1_000 });
    rig.turn(None);
    resets(&client);
    drop(client);
    assert_eq!(rig.ended(conn), ReadEnd::Err(libc::ECONNRESET));
    rig.io.send(conn, b"late".to_vec());
    assert!(rig.sent(conn).is_some());
    rig.io.close(conn, Close::Now);
    rig.closed(conn);

    let (client, conn) = rig.pair();
    rig.io.send(conn, pattern(12 << 20));
    rig.io.read(conn, Read::Parked);
    rig.settle();
    resets(&client);
    drop(client);
    rig.ready(conn);
    assert!(rig.sent(conn).is_some());
    rig.io.close(conn, Close::Flush);
    rig.closed(conn);
    rig.nothing_happens();
}

fn many_senders_share_few_buffers<D: Subject>() {
    let options = DriverOptions { receive_buffers: 4, receive_buffer_bytes: 512, ..small() };
    let mut rig = Rig::<D>::with(&options);
    let bytes = pattern(20_000);
    let mut pairs: Vec<_> = (0..64).map(|_| rig.pair()).collect();
    let mut got = std::collections::HashMap::new();
    for (client, conn) in &mut pairs {
        client.write_all(&bytes).unwrap();
        rig.io.read(*conn, Read::Stream { credit: 3_000 });
        got.insert(*conn, Vec::new());
    }
    while got.values().any(|g| g.len() < bytes.len()) {
        match rig.find("event", |_| Some(())).1 {
            Event::Data { conn, lease } => {
                got.get_mut(&conn).unwrap().extend_from_slice(&lease);
                rig.io.release(lease);
            }
            Event::ReadEnded { conn, why: ReadEnd::Credit } => {
                rig.io.read(conn, Read::Stream { credit: 3_000 });
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got.values().all(|g| *g == bytes));
    assert!(rig.io.stats().starved > 0, "the buffers never ran out");
}

fn without_a_buffer_it_sleeps<D: Subject>() {
    let options = DriverOptions { receive_buffers: 2, receive_buffer_bytes: 512, ..small() };
    let mut rig = Rig::<D>::with(&options);
    let mut pairs: Vec<_> = (0..6).map(|_| rig.pair()).collect();
    for (client, conn) in &mut pairs {
        client.write_all(&pattern(512)).unwrap();
        rig.io.read(*conn, Read::Once);
    }
    let is_data = |e: &Event<Item>| matches!(e, Event::Data { .. }).then_some(());
    let mut held = VecDeque::from([rig.find("Data", is_data).1, rig.find("Data", is_data).1]);
    let mut seen = 2;
    while let Some(Event::Data { lease, .. }) = held.pop_front() {
        // As long as no buffer comes back nothing is read, and the driver does not spin.
        rig.settle();
        let before = rig.io.stats().enters;
        let deadline = rig.io.now().plus_ms(20);
        rig.turn(Some(deadline));
        assert!(rig.io.stats().enters - before <= 3, "it spins");
        assert!(!rig.queue.iter().any(|e| matches!(e, Event::Data { .. })), "there was no buffer");
        assert_eq!(*lease, pattern(512));
        rig.io.release(lease);
        if seen < pairs.len() {
            held.push_back(rig.find("Data", is_data).1);
            seen += 1;
        }
    }
    assert_eq!(seen, pairs.len());
    // Idle connections that found no buffer are armed again, too.
    for (client, conn) in &mut pairs {
        rig.echo(client, *conn, b"still there");
    }
}

fn idle_starved_connections_do_not_hide_busy_ones<D: Subject>() {
    let options = DriverOptions { receive_buffers: 1, receive_buffer_bytes: 512, ..small() };
    let mut rig = Rig::<D>::with(&options);
    let (mut first, taker) = rig.pair();
    first.write_all(b"takes the buffer").unwrap();
    rig.io.read(taker, Read::Once);
    let lease = rig.lease(taker);
    let mut pairs: Vec<_> = (0..8).map(|_| rig.pair()).collect();
    for (_, conn) in &pairs {
        rig.io.read(*conn, Read::Once);
    }
    rig.settle();
    rig.io.release(lease);
    // Only the last one that asked has something to read.
    let (client, conn) = pairs.last_mut().unwrap();
    client.write_all(b"me").unwrap();
    assert_eq!(rig.data(*conn), b"me");
}

fn a_lease_outlives_its_driver<D: Subject>() {
    let mut rig = Rig::<D>::new();
    let (mut client, conn) = rig.pair();
    client.write_all(b"released").unwrap();
    rig.io.read(conn, Read::Once);
    rig.data(conn);
    client.write_all(b"kept").unwrap();
    rig.io.read(conn, Read::Once);
    let lease = rig.lease(conn);
    drop(rig);
    assert_eq!(*lease, *b"kept");
}

fn a_lease_of_another_driver_is_refused<D: Subject>() {
    let (mut rig, mut other) = (Rig::<D>::new(), Rig::<D>::new());
    let (mut client, conn) = rig.pair();
    client.write_all(b"ours").unwrap();
    rig.io.read(conn, Read::Once);
    let lease = rig.lease(conn);
    let release = std::panic::AssertUnwindSafe(|| other.io.release(lease));
    assert!(std::panic::catch_unwind(release).is_err());
}

on_each_driver!(
    a_lease_outlives_its_driver,
    a_lease_of_another_driver_is_refused,
    split_writes_arrive_in_order,
    once_reads_once,
    a_stream_stops_at_its_credit,
    a_stream_reports_the_end,
    a_parked_connection_is_ready_once,
    a_slow_reader_gets_all_of_a_big_send,
    a_reset_ends_reads_and_sends,
    many_senders_share_few_buffers,
    without_a_buffer_it_sleeps,
    idle_starved_connections_do_not_hide_busy_ones,
);
