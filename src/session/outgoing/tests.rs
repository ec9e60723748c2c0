//! Deliveries by hand: windows, identifiers, what is sent again.

use super::*;
use crate::codec::{Framed, Packet, Publish, Version, decode, frame};
use crate::message::{Head, MessageRef};
use crate::session::{Options, Pool};
use crate::stats::{Counters, Ledger, Recorder};
use crate::time::Moment;

struct World {
    options: Options,
    counters: Counters,
    gauges: Gauges,
    recorder: Recorder,
    ledger: Ledger,
    pool: Pool,
    memory: Memory,
    done: Vec<Stored>,
}

impl World {
    fn new() -> World {
        World {
            options: Options::default(),
            counters: Counters::default(),
            gauges: Gauges::default(),
            recorder: Recorder::default(),
            ledger: Ledger::default(),
            pool: Pool::default(),
            memory: Memory::default(),
            done: Vec::new(),
        }
    }

    fn ctx(&mut self) -> Ctx<'_> {
        Ctx {
            now: Moment(1_000),
            options: &self.options,
            counters: &mut self.counters,
            gauges: &mut self.gauges,
            recorder: &mut self.recorder,
            ledger: &mut self.ledger,
            pool: &mut self.pool,
            memory: &mut self.memory,
            done: &mut self.done,
        }
    }
}

fn delivery(n: u32, qos: QoS, group: u64) -> Delivery {
    let head = Head::new(qos, false, 0, Source::Client);
    let payload = n.to_string();
    let view = MessageRef { topic: "t", properties: &[], payload: payload.as_bytes(), head };
    Delivery {
        message: Message::new(&view),
        qos,
        retain: false,
        ids: Ids::None,
        group,
        source: Source::Client,
        seq: 0,
        again: false,
    }
}

fn link(window: u16) -> Link {
    Link::new(Version::V5, window, u32::MAX, 0)
}

/// What was sent: (packet identifier, payload, DUP) of each PUBLISH, (identifier, "rel", false) of a PUBREL.
fn sent(link: &mut Link) -> Vec<(u16, String, bool)> {
    let bytes = std::mem::take(&mut link.out);
    let (mut rest, mut out) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let Ok(Framed::Packet { total, .. }) = frame(rest, u32::MAX) else { panic!("whole packets") };
        match decode(Version::V5, &rest[..total]) {
            Ok(Packet::Publish(Publish { packet_id: Some(id), payload, dup, .. })) => {
                out.push((id.get(), String::from_utf8(payload.to_vec()).unwrap(), dup));
            }
            Ok(Packet::Ack(a)) => out.push((a.packet_id.get(), "rel".into(), false)),
            other => panic!("expected PUBLISH or PUBREL, got {other:?}"),
        }
        rest = &rest[total..];
    }
    out
}

fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

const OK: ReasonCode = ReasonCode::SUCCESS;

#[test]
fn the_window_bounds_what_is_in_flight_and_acks_in_any_order_open_it() {
    let (mut world, mut link, mut out) = (World::new(), link(3), Outgoing::default());
    for n in 1..=6 {
        let d = delivery(n, QoS::AtLeastOnce, 0);
        assert_eq!(out.offer(d, Some(&mut link), "c", &mut world.ctx()), Offered::Taken);
    }
    assert_eq!(sent(&mut link).len(), 3);
    assert_eq!((out.inflight(), out.queued()), (3, 3));
    assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Done);
    assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Unknown);
    out.pump(&mut link, "c", &mut world.ctx());
    assert_eq!(sent(&mut link), [(4, "4".into(), false)]);
    for n in [4, 3, 1] {
        assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done);
    }
    out.pump(&mut link, "c", &mut world.ctx());
    assert_eq!(sent(&mut link), [(5, "5".into(), false), (6, "6".into(), false)]);
}

#[test]
fn packet_identifiers_start_over_and_skip_none_in_use() {
    let (mut world, mut link, mut out) = (World::new(), link(u16::MAX), Outgoing::default());
    out.offer(delivery(0, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
    for n in 2..=u16::MAX {
        out.offer(delivery(1, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
        link.out.clear();
        assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done, "{n}");
    }
    // Identifier 1 is still in use: the next message waits for it.
    out.offer(delivery(2, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
    assert_eq!((out.inflight(), out.queued()), (1, 1));
    assert_eq!(out.handle_ack(AckKind::PubAck, id(1), OK, &mut world.ctx()), Acked::Done);
    out.pump(&mut link, "c", &mut world.ctx());
    assert_eq!(sent(&mut link), [(1, "2".into(), false)]);
}

#[test]
fn what_was_in_flight_is_sent_again_in_order_within_a_smaller_window() {
    let (mut world, mut first, mut out) = (World::new(), link(4), Outgoing::default());
    for n in 1..=5 {
        let qos = if n == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        out.offer(delivery(n, qos, 0), Some(&mut first), "c", &mut world.ctx());
    }
    assert_eq!(out.handle_ack(AckKind::PubRec, id(2), OK, &mut world.ctx()), Acked::Release);
    out.handle_disconnected();
    let mut second = link(1);
    out.pump(&mut second, "c", &mut world.ctx());
    assert_eq!(sent(&mut second), [(1, "1".into(), true), (2, "rel".into(), false)]);
    assert_eq!(out.handle_ack(AckKind::PubAck, id(1), OK, &mut world.ctx()), Acked::Done);
    out.pump(&mut second, "c", &mut world.ctx());
    assert_eq!(sent(&mut second), [(3, "3".into(), true)]);
    assert_eq!(out.handle_ack(AckKind::PubComp, id(2), OK, &mut world.ctx()), Acked::Done);
    for n in [3, 4] {
        assert_eq!(out.handle_ack(AckKind::PubAck, id(n), OK, &mut world.ctx()), Acked::Done);
        out.pump(&mut second, "c", &mut world.ctx());
    }
    assert_eq!(sent(&mut second), [(4, "4".into(), true), (5, "5".into(), false)]);
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_told_apart() {
    let (mut world, mut link, mut out) = (World::new(), link(4), Outgoing::default());
    out.offer(delivery(1, QoS::AtLeastOnce, 0), Some(&mut link), "c", &mut world.ctx());
    out.offer(delivery(2, QoS::ExactlyOnce, 0), Some(&mut link), "c", &mut world.ctx());
    assert_eq!(out.handle_ack(AckKind::PubRec, id(1), OK, &mut world.ctx()), Acked::Mismatch);
    assert_eq!(out.handle_ack(AckKind::PubAck, id(2), OK, &mut world.ctx()), Acked::Mismatch);
    assert_eq!(out.handle_ack(AckKind::PubComp, id(2), OK, &mut world.ctx()), Acked::Mismatch);
    assert_eq!(
        out.handle_ack(AckKind::PubRec, id(2), ReasonCode::QUOTA_EXCEEDED, &mut world.ctx()),
        Acked::Done
    );
    assert_eq!(out.inflight(), 1);
}

#[test]
fn a_full_queue_drops_its_oldest_and_counts_it() {
    let (mut world, mut out) = (World::new(), Outgoing::default());
    world.options.max_mqueue = 3;
    for n in 1..=5 {
        out.offer(delivery(n, QoS::AtLeastOnce, 0), None, "c", &mut world.ctx());
    }
    let mut link = link(9);
    out.pump(&mut link, "c", &mut world.ctx());
    let payloads: Vec<String> = sent(&mut link).into_iter().map(|s| s.1).collect();
    assert_eq!(payloads, ["3", "4", "5"]);
    assert_eq!(world.ledger.total(), 2);
}

#[test]
fn shared_messages_leave_but_not_those_of_qos_2_that_were_sent() {
    let (mut world, mut link, mut out) = (World::new(), link(3), Outgoing::default());
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce];
    for (n, qos) in (1..).zip(qos) {
        let group = u64::from(n != 3) * 7;
        out.offer(delivery(n, qos, group), Some(&mut link), "c", &mut world.ctx());
    }
    out.handle_disconnected();
    let mut moved = Vec::new();
    out.take_shared(&mut moved, &mut world.gauges);
    let payload = |d: &Delivery| String::from_utf8(d.message.view().payload.to_vec()).unwrap();
    assert_eq!(moved.iter().map(payload).collect::<Vec<_>>(), ["1", "4", "5"]);
    assert_eq!((out.inflight(), out.queued()), (2, 0));
}

#[test]
fn identifiers_of_a_queue_go_on_in_the_next_run_of_the_broker() {
    for starts in [2, 3, 255, 256, 257, 384, 65_535] {
        let first = (starts << 40) + 1;
        for last in
            [1, 257, 65_534, 65_535, 65_536, ((starts - 1) << 40) + 257, ((starts - 1) << 40) + 70_000]
        {
            let next = next_place(first, Some(last));
            assert!(next >= first, "{starts} {last}");
            assert_eq!(packet_id(next).get(), packet_id(last).get() % u16::MAX + 1, "{starts} {last}");
        }
        assert_eq!(next_place(first, None), first);
        assert_eq!(next_place(first, Some(first + 9)), first + 10);
    }
}

#[test]
fn what_is_stored_leaves_at_qos_2_once_it_is_on_the_disk_and_nothing_overtakes_it() {
    let (mut world, mut link, mut out) = (World::new(), link(10), Outgoing::default());
    out.set_queue(7);
    for (n, qos) in
        [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce), (4, QoS::ExactlyOnce)]
    {
        let d = Delivery { seq: u64::from(n), ..delivery(n, qos, 0) };
        assert_eq!(out.offer(d, Some(&mut link), "c", &mut world.ctx()), Offered::Taken);
    }
    let payloads =
        |link: &mut Link| sent(link).into_iter().map(|(_, payload, _)| payload).collect::<Vec<_>>();
    assert_eq!(payloads(&mut link), ["1"]);
    out.open_gate(2);
    out.pump(&mut link, "c", &mut world.ctx());
    assert_eq!(payloads(&mut link), ["2", "3"]);
    out.open_gate(4);
    out.pump(&mut link, "c", &mut world.ctx());
    assert_eq!(payloads(&mut link), ["4"]);
}
