//! A shard alone, on a driver that does what the test says.

use super::*;
use crate::desk::{Ask, ClientQuery, ClientRow, Cursor, Listing, Page, Place, Reply, Wanted};
use crate::io::{IoStats, Lease, Leases, ListenSpec};
use crate::limits::{DESK_BUSY_TICKS, LOOK_BYTES, TICK_DESK_NS, TIMER_HORIZON_MS};
use crate::mesh::{Control, mesh, mesh_sized};
use crate::session::Session;
use crate::trie::RouteBuf;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

mod handshakes;

/// Reports the events that it is given, and notes what is closed.
#[derive(Default)]
struct Still {
    now: Moment,
    /// Nanoseconds that pass from one look at the clock to the next.
    clock_step_ns: u64,
    looks: Cell<u64>,
    events: Vec<Event<Handover>>,
    closed: Vec<Conn>,
    sent: Vec<Vec<u8>>,
    reads: Vec<(Conn, Read)>,
    leases: Leases,
}

impl Io<Handover> for Still {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr> {
        Ok(spec.addr)
    }
    fn accept_pause(&mut self) {}
    fn accept_resume(&mut self) {}
    fn accept_stop(&mut self) {}
    fn connect(&mut self, _: SocketAddr, _: Option<IpAddr>) -> std::io::Result<Conn> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn read(&mut self, conn: Conn, how: Read) {
        self.reads.push((conn, how));
    }
    fn release(&mut self, lease: Lease) {
        self.leases.release(lease);
    }
    fn send(&mut self, _: Conn, bytes: Vec<u8>) {
        self.sent.push(bytes);
    }
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
    fn clock_ns(&self) -> u64 {
        self.looks.set(self.looks.get() + 1);
        self.now.0 * 1_000_000 + self.looks.get() * self.clock_step_ns
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
    shard_of(mesh(1).remove(0))
}

/// Shard 0 of a mesh.
fn shard_of(mesh: Mesh) -> Shard<Still> {
    Shard::new(parts_of(mesh))
}

fn parts_of(mesh: Mesh) -> Parts<Still> {
    let shards = mesh.shards();
    Parts {
        io: Still::default(),
        mesh,
        me: 0,
        shards,
        keyed: Keyed::new(1),
        seed: 1,
        options: Options { anonymous_local_only: false, ..Options::default() },
        policy: Default::default(),
        ask_login: None,
        ask_rights: None,
        helpers: None,
        entrances: Vec::new(),
        log_lines_per_s: 0,
        commands: std::sync::mpsc::channel().1,
        fan_out_at_once: 1,
        tick_deliveries: 100,
        route_key_mask: u64::MAX,
        store: None,
    }
}

impl Shard<Still> {
    fn pass(&mut self, ms: u64) {
        self.io.now = self.io.now.plus_ms(ms);
        self.work(None);
    }

    /// A client connects, with an identifier that is at home here, and sends this.
    fn serve(&mut self, conn: Conn, packets: &[u8]) {
        let shards = u64::from(self.shards);
        let here = |id: &String| self.local.keyed.key(id).is_multiple_of(shards);
        let id = (0..).map(|n| format!("client {conn} {n}")).find(here).unwrap();
        let mut bytes =
            vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
        bytes.extend(id.bytes());
        bytes.extend(packets);
        self.report([accepted(conn)]);
        self.local.conns.get_mut(conn).unwrap().pending = bytes;
        self.wait(conn, Wait::Turn);
        self.pass(0);
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

/// QoS 0, without a payload.
fn publishes(topic: u8, count: usize) -> Vec<u8> {
    [0x30, 3, 0, 1, topic].repeat(count)
}

#[test]
fn a_publisher_with_two_targets_is_not_starved_by_those_with_one() {
    let mut ends = mesh_sized(3, 8, 2).into_iter();
    let mut shard = shard_of(ends.next().unwrap());
    let mut others: Vec<Mesh> = ends.collect();
    for (topic, wanted) in [("a", [0, 1].as_slice()), ("b", &[0]), ("c", &[1])] {
        let route = RouteBuf::Exact(shard.local.keyed.key(topic));
        wanted.iter().for_each(|at| others[*at].control(0, Control::Announce(route.clone())));
    }
    others.iter_mut().for_each(|end| assert_eq!(end.flush(), 0, "it is awake"));
    shard.serve(0, &publishes(b'b', 200));
    shard.serve(1, &publishes(b'c', 200));
    shard.serve(2, &publishes(b'a', 10));
    // Each of the others takes one at a time, in turn, so that there is never room on both.
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for turn in 0..100 {
        let end = &mut others[turn % 2];
        end.read_tails(|| ());
        while end.next_control().is_some() {}
        if let Some(envelope) = end.next_data(0) {
            *seen.entry(envelope.message.topic().to_owned()).or_default() += 1;
        }
        end.flush();
        shard.pass(1);
        shard.pass(0);
    }
    assert_eq!(seen.get("a"), Some(&20), "{seen:?}");
    assert!(seen.get("b").is_some_and(|n| *n > 30) && seen.get("c").is_some_and(|n| *n > 30), "{seen:?}");
}

#[test]
fn what_is_to_be_retained_waits_for_the_ring_of_its_topic_and_nothing_is_late() {
    let mut ends = mesh_sized(2, 2, 8).into_iter();
    let mut shard = shard_of(ends.next().unwrap());
    let mut other = ends.next().unwrap();
    let there = |topic: &u8| shard.retained_home(&char::from(*topic).to_string()) == 1;
    let topic = (b'a'..=b'z').find(there).unwrap();
    let route = RouteBuf::Exact(shard.local.keyed.key(&char::from(topic).to_string()));
    other.control(0, Control::Announce(route));
    other.flush();
    let retained = [0x31, 4, 0, 1, topic, b'x'].repeat(5);
    shard.serve(0, &retained);
    let (mut sets, mut envelopes) = (0, 0);
    for _ in 0..8 {
        other.read_tails(|| ());
        while let Some((_, control)) = other.next_control() {
            sets += usize::from(matches!(control, Control::RetainSet { .. }));
        }
        while other.next_data(0).is_some() {
            envelopes += 1;
        }
        assert!(envelopes <= sets, "{envelopes} messages arrived, and {sets} of them are retained");
        other.flush();
        shard.pass(0);
        assert_eq!(shard.mesh.overflow_len(), 0);
    }
    assert_eq!((sets, envelopes), (5, 5));
    assert!(shard.prepare().is_some_and(|deadline| deadline > shard.io.now), "nothing is left");
}

/// SUBSCRIBE or UNSUBSCRIBE of 3.1.1 with the filters `f/0` to `f/{count - 1}`.
fn many_filters(first_byte: u8, count: usize) -> Vec<u8> {
    let mut body = vec![0, 7];
    for n in 0..count {
        let filter = format!("f/{n}");
        body.extend([0, filter.len() as u8]);
        body.extend(filter.bytes());
        body.extend((first_byte == 0x82).then_some(0));
    }
    let mut packet = vec![first_byte, body.len() as u8 | 0x80, (body.len() >> 7) as u8];
    packet.extend(body);
    packet
}

#[test]
fn a_packet_with_many_filters_is_handled_in_parts_and_answered_once() {
    let mut shard = shard();
    shard.serve(0, &many_filters(0x82, 250));
    let count = |shard: &mut Shard<Still>| shard.trie.stats().subscriptions;
    let mut counts = vec![count(&mut shard)];
    while *counts.last().unwrap() < 250 && counts.len() < 10 {
        shard.pass(0);
        counts.push(count(&mut shard));
    }
    // 100 of a tick, packets included.
    assert_eq!(counts, [98, 197, 250]);
    let sent = |shard: &mut Shard<Still>| {
        shard.report([Event::Sent { conn: 0, buffer: Vec::new(), error: None }]);
        std::mem::take(&mut shard.io.sent)
    };
    let suback: Vec<u8> = [[0x90, 0xFC, 0x01, 0, 7].as_slice(), &[0; 250]].concat();
    assert_eq!(sent(&mut shard), [[0x20, 2, 0, 0].as_slice(), &suback]);
    assert!(shard.partials.is_empty());

    shard.report([Event::Sent { conn: 0, buffer: Vec::new(), error: None }]);
    shard.local.conns.get_mut(0).unwrap().pending = many_filters(0xA2, 250);
    shard.wait(0, Wait::Turn);
    for left in [151, 52, 0] {
        shard.pass(0);
        assert_eq!(count(&mut shard), left);
        let session = shard.local.sessions.get(0).unwrap();
        assert_eq!(session.subscriptions.len(), left);
    }
    assert_eq!(sent(&mut shard), [[0xB0, 2, 0, 7]]);
}

#[test]
fn a_packet_that_was_handled_in_part_is_forgotten_with_its_connection() {
    let mut shard = shard();
    shard.serve(0, &many_filters(0x82, 250));
    assert_eq!(shard.partials.len(), 1);
    shard.report([Event::ReadEnded { conn: 0, why: ReadEnd::Eof }]);
    shard.disconnect(0, ReasonCode::ADMINISTRATIVE_ACTION, "", sessions::End::Lost);
    shard.pass(0);
    assert_eq!((shard.partials.len(), shard.trie.stats().subscriptions), (0, 0));
}

/// Asks for one page of clients, and ticks until it is there; the rows, and the ticks that it took.
fn page_of_clients(shard: &mut Shard<Still>, wanted: Wanted) -> (Page<ClientRow>, usize) {
    page_of(shard, ClientQuery::default(), wanted)
}

fn page_of(shard: &mut Shard<Still>, query: ClientQuery, wanted: Wanted) -> (Page<ClientRow>, usize) {
    let (sender, answer) = std::sync::mpsc::channel();
    let reply = Reply::new(move |page| drop(sender.send(page)));
    let cursor = Cursor::new(query, wanted, reply);
    shard.desk.commands.push_back(Command::Ask(Ask::List(Listing::Clients(Box::new(cursor)))));
    for ticks in 1.. {
        shard.pass(0);
        if let Ok(page) = answer.try_recv() {
            return (page, ticks);
        }
        assert!(shard.prepare().is_none(), "a shard with a listing under way stays awake");
    }
    unreachable!("a listing ends")
}

#[test]
fn a_listing_goes_on_for_as_many_ticks_as_it_needs_while_clients_come_and_go() {
    let mut shard = shard();
    let add = |shard: &mut Shard<Still>, name: String| {
        let key = shard.local.keyed.key(&name);
        shard.local.add_session(Session::new(&name, key, Moment(0)))
    };
    let stays: Vec<String> = (0..5_000).map(|n| format!("stays-{n}")).collect();
    let mut goes = Vec::new();
    for name in &stays {
        add(&mut shard, name.clone());
        let index = add(&mut shard, format!("goes-{name}"));
        goes.push(index);
    }
    let (mut seen, mut next, mut ticks) = (Vec::new(), Some(Place::default()), 0);
    while let Some(from) = next {
        let wanted = Wanted { from, skip: 0, limit: 700, count: false };
        let (page, took) = page_of_clients(&mut shard, wanted);
        ticks += took;
        seen.extend(page.rows.into_iter().map(|client| client.client_id.to_string()));
        next = page.next;
        // Others end, and new ones take their places.
        for index in goes.drain(..goes.len().min(300)) {
            shard.end_session(index);
            add(&mut shard, format!("new-{index}"));
        }
    }
    let (mut found, mut expected) = (seen, stays);
    found.retain(|name| name.starts_with("stays-"));
    found.sort();
    expected.sort();
    assert!(
        found == expected,
        "each client that stays is listed once: {} of {}",
        found.len(),
        expected.len()
    );
    // At most so many rows a tick.
    let rows_per_tick = TICK_DESK_COST / DESK_ROW_COST + 1;
    assert!(ticks >= 5_000 / rows_per_tick, "{ticks} ticks");
    let counted =
        page_of_clients(&mut shard, Wanted { from: Place::default(), skip: 0, limit: 0, count: true }).0;
    assert_eq!(counted.matched as usize, shard.local.clients());
}

/// A shard with so many clients, and the part of a listing that looks at all of them.
fn crowd(clients: usize, id_bytes: usize) -> (Shard<Still>, Wanted) {
    let mut shard = shard();
    for n in 0..clients {
        let id = format!("{n:0>id_bytes$}");
        let key = shard.local.keyed.key(&id);
        shard.local.add_session(Session::new(&id, key, Moment(0)));
    }
    (shard, Wanted { from: Place::default(), skip: 0, limit: 1_000, count: true })
}

#[test]
fn a_tick_ends_its_share_of_a_listing_when_the_time_for_it_has_passed() {
    let (mut shard, wanted) = crowd(1_000, 5);
    let (_, quick) = page_of_clients(&mut shard, wanted.clone());
    assert_eq!(shard.local.counters.listing_ticks, quick as u64);
    shard.io.clock_step_ns = TICK_DESK_NS;
    let (page, slow) = page_of_clients(&mut shard, wanted);
    assert_eq!(page.rows.len(), 1_000);
    assert!(slow >= 6 * quick, "{slow} ticks of one slice each, {quick} of several");
    let record = &shard.local.recorder.record;
    assert_eq!(record.listing.count(), (quick + slow) as u64);
    assert!(record.listing.max() <= 4 * TICK_DESK_NS, "two looks at the clock in each, and two for its CPU");
}

#[test]
fn long_texts_cost_more_of_a_tick_than_short_ones() {
    let part = || ClientQuery { client_id_part: Some("x".into()), ..ClientQuery::default() };
    let (mut shard, wanted) = crowd(1_000, 5);
    let (_, short) = page_of(&mut shard, part(), wanted.clone());
    let (mut shard, _) = crowd(1_000, 20_000);
    let (page, long) = page_of(&mut shard, part(), wanted.clone());
    assert_eq!((page.matched, short), (0, 2));
    // One look more for each `LOOK_BYTES`, and a slice ends with the text that it began.
    assert!(long >= 1_000 * TICK_DESK_COST.min(20_000 / LOOK_BYTES) / TICK_DESK_COST / 2, "{long} ticks");
    let (_, all) = page_of_clients(&mut shard, wanted);
    assert!(all > 1_000 / (TICK_DESK_COST / DESK_ROW_COST) * 2, "{all} ticks");
}

#[test]
fn a_shard_with_more_to_serve_than_it_can_leaves_listings_for_later_but_ends_them() {
    let (mut shard, wanted) = crowd(1_000, 5);
    // Input that no tick has a budget for.
    shard.tick_deliveries = 0;
    shard.ready.push_back(Slot { index: 0, generation: 0 });
    let (page, ticks) = page_of_clients(&mut shard, wanted);
    assert_eq!(page.rows.len(), 1_000);
    let c = &shard.local.counters;
    assert_eq!((c.listing_ticks + c.listing_put_off, ticks % DESK_BUSY_TICKS as usize), (ticks as u64, 0));
    assert_eq!(c.listing_ticks * u64::from(DESK_BUSY_TICKS), ticks as u64);
}

/// The reason code of each CONNACK of 3.1.1 that was sent.
fn connack_codes(shard: &mut Shard<Still>) -> Vec<u8> {
    let sent = std::mem::take(&mut shard.io.sent);
    sent.iter().filter(|bytes| bytes[0] == 0x20).map(|bytes| bytes[3]).collect()
}

#[test]
fn a_client_without_credentials_must_be_on_this_machine_unless_the_options_say_otherwise() {
    let mut shard = shard();
    let mut conn = 0;
    let mut code = |shard: &mut Shard<Still>, allow: bool, local_only: bool, peer: Option<&str>| {
        (shard.local.options.allow_anonymous, shard.local.options.anonymous_local_only) = (allow, local_only);
        let peer = peer.map(|ip| SocketAddr::new(ip.parse().unwrap(), 5_000));
        shard.report([Event::Accepted { conn, listener: 0, peer }]);
        let mut bytes = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01".to_vec();
        bytes.push(b'a' + conn as u8);
        shard.local.conns.get_mut(conn).unwrap().pending = bytes;
        shard.wait(conn, Wait::Turn);
        shard.pass(0);
        conn += 1;
        connack_codes(shard)
    };
    for ip in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(code(&mut shard, true, true, Some(ip)), [0], "{ip}");
    }
    for ip in ["10.0.0.1", "192.168.1.1", "fe80::1", "::ffff:10.0.0.1"] {
        assert_eq!(code(&mut shard, true, true, Some(ip)), [5], "{ip}");
        assert_eq!(code(&mut shard, true, false, Some(ip)), [0], "{ip}");
    }
    assert_eq!(code(&mut shard, false, false, Some("127.0.0.1")), [5]);
    // Without an address, the listener's counts.
    assert_eq!(code(&mut shard, true, true, None), [5]);
    shard.door.listens(0, "127.0.0.1:1883".parse().unwrap());
    assert_eq!(code(&mut shard, true, true, None), [0]);
    shard.door.listens(0, "[::]:1883".parse().unwrap());
    assert_eq!(code(&mut shard, true, true, None), [5]);
    assert_eq!(shard.local.counters.anonymous_refused, 7);
}
