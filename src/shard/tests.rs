//! A shard alone, on a driver that does what the test says.

use super::*;
use crate::io::{IoStats, Lease};
use crate::limits::TIMER_HORIZON_MS;
use crate::mesh::mesh;
use crate::session::Session;
use std::net::IpAddr;

/// Reports the events that it is given, and notes what is closed.
#[derive(Default)]
struct Still {
    now: Moment,
    events: Vec<Event<Handover>>,
    closed: Vec<Conn>,
}

impl Io<Handover> for Still {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<(u16, SocketAddr)> {
        Ok((0, spec.addr))
    }
    fn accept_pause(&mut self) {}
    fn accept_resume(&mut self) {}
    fn accept_stop(&mut self) {}
    fn connect(&mut self, _: SocketAddr, _: Option<IpAddr>) -> std::io::Result<Conn> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn read(&mut self, _: Conn, _: Read) {}
    fn release(&mut self, _: Lease) {}
    fn send(&mut self, _: Conn, _: Vec<u8>) {}
    fn close(&mut self, conn: Conn, _: Close) {
        self.closed.push(conn);
    }
    fn hand_over(&mut self, _: Conn, _: ShardId, _: Box<Handover>) {}
    fn wake(&mut self, _: ShardId) {}
    fn turn(&mut self, events: &mut Vec<Event<Handover>>, _: Option<Moment>) {
        events.append(&mut self.events);
    }
    fn now(&self) -> Moment {
        self.now
    }
    fn room(&self) -> usize {
        usize::MAX
    }
    fn stats(&self) -> IoStats {
        IoStats::default()
    }
    fn describe(&self) -> String {
        String::new()
    }
}

fn shard() -> Shard<Still> {
    let mesh = mesh(1).remove(0);
    Shard::new(Parts {
        io: Still::default(),
        mesh,
        me: 0,
        shards: 1,
        keyed: Keyed::new(1),
        seed: 1,
        options: Options::default(),
        log_lines_per_s: 0,
        commands: std::sync::mpsc::channel().1,
        fan_out_at_once: 1,
        route_key_mask: u64::MAX,
    })
}

impl Shard<Still> {
    fn pass(&mut self, ms: u64) {
        self.io.now = self.io.now.plus_ms(ms);
        self.work(None);
    }

    fn report(&mut self, events: impl IntoIterator<Item = Event<Handover>>) {
        self.io.events.extend(events);
        self.work(None);
    }
}

fn accepted(conn: Conn) -> Event<Handover> {
    Event::Accepted { conn, listener: 0, peer: None }
}

#[test]
fn timers_that_were_filed_early_do_not_pile_up() {
    let mut shard = shard();
    let key = shard.local.keyed.key("client");
    let index = shard.local.add_session(Session::new("client", key, Moment(0)));
    if let Some(session) = shard.local.sessions.get_mut(index) {
        session.ends_at = Moment(3_600_000);
    }
    // As for the delayed wills of a client that comes and goes.
    for _ in 0..5 {
        shard.session_timer(index, shard.io.now.plus_ms(1_000));
        shard.pass(2_000);
    }
    for _ in 0..3 {
        shard.pass(TIMER_HORIZON_MS);
    }
    assert_eq!(shard.wheel.len(), 1, "its end");
    shard.pass(3_600_000);
    assert_eq!((shard.wheel.len(), shard.local.sessions.len()), (0, 0));
}

#[test]
fn who_was_accepted_before_the_listeners_closed_does_not_hold_up_a_drain() {
    let mut shard = shard();
    shard.report([accepted(0), accepted(1)]);
    shard.start_drain(60_000);
    shard.pass(1);
    assert_eq!(shard.io.closed, [0, 1]);
    // The index of the first is taken again by one that was on its way.
    shard.report([Event::Closed { conn: 0 }, accepted(0)]);
    assert_eq!(shard.io.closed, [0, 1, 0]);
    shard.report([Event::Closed { conn: 0 }, Event::Closed { conn: 1 }]);
    assert!(shard.is_stopped());
}

#[test]
fn an_assigned_identifier_does_not_tell_the_next_one() {
    let mut shard = shard();
    let first = shard.assign_client_id();
    let state = u64::from_str_radix(first.trim_start_matches("ringmq-"), 16).unwrap();
    let mut guess = state;
    guess ^= guess << 13;
    guess ^= guess >> 7;
    guess ^= guess << 17;
    let next = shard.assign_client_id();
    assert_ne!(next, first);
    assert_ne!(next, format!("ringmq-{guess:016x}"));
}
