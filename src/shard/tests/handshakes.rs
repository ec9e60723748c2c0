//! Steps of TLS handshakes: who waits for a place, and what a place is taken for.

use super::*;
use crate::limits::{HANDSHAKES_IN_ORDER_MAX, TICK_HANDSHAKES_MAX};
use crate::shard::{Command, Helpers};
use crate::transport::tests::{hello, tls};
use crate::transport::{Scratch, Transport};
use std::sync::mpsc::{Sender, channel};

/// A shard with TLS whose helpers, if any, do what the test says.
struct Rig {
    shard: Shard<Still>,
    commands: Sender<Command>,
    /// Steps that helpers were given.
    steps: Receiver<(Box<Transport>, Slot)>,
}

impl Rig {
    /// With so many places at those who help; with 0 nobody does. Connections 0 to 9 are accepted.
    fn new(places: usize) -> Rig {
        let (commands, inbox) = channel();
        let (given, steps) = channel();
        let take = Box::new(move |transport, slot| drop(given.send((transport, slot))));
        let helpers = (places > 0).then_some(Helpers { places, take });
        let mut shard = Shard::new(Parts { commands: inbox, helpers, ..parts_of(mesh(1).remove(0)) });
        shard.wrapped.set_layers(vec![tls()]);
        shard.report((0..10).map(accepted));
        let mut rig = Rig { shard, commands, steps };
        assert_eq!(rig.reads(), (0..10).map(|conn| (conn, Read::Parked)).collect::<Vec<_>>());
        rig
    }

    /// What was read since the last time.
    fn reads(&mut self) -> Vec<(Conn, Read)> {
        std::mem::take(&mut self.shard.io.reads)
    }

    fn ready(&mut self, conns: impl IntoIterator<Item = Conn>) {
        self.shard.report(conns.into_iter().map(|conn| Event::Ready { conn }));
    }

    fn data(&mut self, conn: Conn, bytes: &[u8]) {
        let lease = self.shard.io.leases.lease(bytes);
        self.shard.report([Event::Data { conn, lease }]);
    }

    /// A helper takes the step that it was given first.
    fn help(&mut self) -> Conn {
        let (transport, slot) = self.steps.try_recv().unwrap();
        let stepped = transport.step(&mut Scratch::default());
        self.commands.send(Command::Stepped(slot, Box::new(stepped))).unwrap();
        self.shard.pass(0);
        slot.index
    }

    fn transports(&self) -> u64 {
        self.shard.memory().transports
    }
}

fn once(conns: &[Conn]) -> Vec<(Conn, Read)> {
    conns.iter().map(|conn| (*conn, Read::Once)).collect()
}

#[test]
fn who_finds_no_place_waits_unread_and_is_served_in_order() {
    let mut rig = Rig::new(3);
    let hello = hello();
    rig.ready(0..10);
    assert_eq!(rig.reads(), once(&[0, 1, 2]));
    assert_eq!(rig.shard.local.counters.handshake_waits, 7);
    for conn in 0..3 {
        rig.data(conn, &hello);
    }
    assert!(rig.reads().is_empty() && rig.shard.prepare().is_some(), "it sleeps until one comes back");
    for conn in 0..10 {
        assert_eq!(rig.help(), conn);
        let next = rig.reads();
        let parked = (conn, Read::Parked);
        match conn {
            0..7 => {
                assert_eq!(next, [parked, (conn + 3, Read::Once)]);
                rig.data(conn + 3, &hello);
            }
            _ => assert_eq!(next, [parked]),
        }
    }
    assert_eq!(rig.shard.io.sent.len(), 10, "a ServerHello each");
}

#[test]
fn in_a_long_line_the_last_are_first_and_it_does_not_grow_with_those_who_left() {
    let mut rig = Rig::new(1);
    let count = HANDSHAKES_IN_ORDER_MAX as Conn + 100;
    rig.shard.report((10..count).map(accepted));
    rig.ready(0..count);
    assert_eq!(rig.reads().pop(), Some((count - 1, Read::Once)));
    let in_order = HANDSHAKES_IN_ORDER_MAX as Conn;
    for conn in (in_order..count - 1).rev().chain([0]) {
        rig.data(if conn == 0 { in_order } else { conn + 1 }, b"no TLS");
        rig.help();
        assert_eq!(rig.reads().pop(), Some((conn, Read::Once)));
    }
    let idle_ms = u64::from(Options::default().idle_timeout_s) * 1_000 + 1_000;
    rig.shard.pass(idle_ms);
    rig.shard.report((0..count).map(|conn| Event::Closed { conn }));
    rig.shard.report((0..count).map(accepted));
    rig.ready(0..count);
    assert!(rig.shard.handshakes.waiting() <= count as usize, "{}", rig.shard.handshakes.waiting());
}

#[test]
fn parts_of_a_record_take_no_step_and_give_their_place_back() {
    let mut rig = Rig::new(1);
    let hello = hello();
    let bytes = rig.transports();
    for part in hello[..hello.len() - 1].chunks(16) {
        rig.ready([0, 1]);
        assert_eq!(rig.reads(), once(&[0]));
        rig.data(0, part);
        // Behind it came the other one.
        assert_eq!(rig.reads(), [(0, Read::Parked), (1, Read::Once)]);
        rig.data(1, &[]);
        assert_eq!(rig.reads(), [(1, Read::Parked)]);
    }
    assert!(rig.steps.try_recv().is_err());
    rig.ready([0]);
    rig.data(0, &hello[hello.len() - 1..]);
    assert_eq!(rig.help(), 0);
    rig.shard.report([Event::Closed { conn: 0 }]);
    assert!(rig.transports() < bytes, "{} after {bytes}", rig.transports());
}

#[test]
fn a_place_comes_back_from_whoever_is_closed() {
    let mut rig = Rig::new(2);
    let hello = hello();
    let before = rig.transports();
    rig.ready(0..4);
    rig.data(0, &hello);
    // One ends while it is read, one while a helper has its layers: those take their place until they come back.
    rig.shard.report([Event::ReadEnded { conn: 1, why: ReadEnd::Eof }]);
    assert_eq!(rig.shard.io.closed, [1]);
    assert_eq!(rig.reads(), once(&[0, 1, 2]));
    let idle_ms = u64::from(Options::default().idle_timeout_s) * 1_000 + 1_000;
    rig.shard.pass(idle_ms);
    assert_eq!(rig.shard.io.closed.len(), 10, "the time for CONNECT runs on");
    rig.shard.report((0..10).map(|conn| Event::Closed { conn }));
    assert_eq!(rig.transports(), rig.shard.handshakes.away[0].1 as u64);
    rig.shard.report([accepted(0), accepted(1)]);
    rig.ready([0, 1]);
    assert_eq!(rig.reads().split_off(2), once(&[0]), "the layers that are away have the other place");
    // They belong to nobody any more, also where another one has the index.
    let sent = rig.shard.io.sent.len();
    assert_eq!(rig.help(), 0);
    assert_eq!((rig.shard.io.sent.len(), rig.reads()), (sent, once(&[1])));
    assert!(rig.transports() < before);
}

#[test]
fn without_help_a_tick_takes_few_steps() {
    let mut rig = Rig::new(0);
    let hello = hello();
    rig.ready(0..10);
    for conn in 0..10 {
        assert_eq!(rig.reads().pop(), Some((conn, Read::Once)));
        assert!(rig.shard.handshakes.is_idle());
        rig.data(conn, &hello);
        assert_eq!(rig.shard.io.sent.len(), conn as usize + 1);
    }
    assert_eq!(TICK_HANDSHAKES_MAX, 1);
}
