//! What our counters are called by those who know EMQX, RMQTT or NanoMQ: one table for each dialect, each line a
//! name and how its value follows from a [`Snapshot`].
//!
//! A name that counts what this broker does not have (bridges, disks, other nodes) is [`nothing`], so that tools
//! which ask for it find it.

use super::Source::{self, Bridge, Client, Http, Retained, System, Will};
use super::{Counters, Gauges, LossCause, Snapshot};

/// A name and its value.
pub type Line = (&'static str, fn(&Snapshot) -> u64);

/// A stat: the name before `.count` and `.max`, and its value among the gauges, now or at most.
pub type Stat = (&'static str, fn(&Gauges) -> u64);

/// There is none of it.
pub fn nothing(_: &Snapshot) -> u64 {
    0
}

/// As [`nothing`].
fn none(_: &Gauges) -> u64 {
    0
}

/// Received packets of a type, by its number.
const CONNECT: usize = 1;
const CONNACK: usize = 2;
const PUBLISH: usize = 3;
const PUBACK: usize = 4;
const PUBREC: usize = 5;
const PUBREL: usize = 6;
const PUBCOMP: usize = 7;
const SUBSCRIBE: usize = 8;
const SUBACK: usize = 9;
const UNSUBSCRIBE: usize = 10;
const UNSUBACK: usize = 11;
const PINGREQ: usize = 12;
const PINGRESP: usize = 13;
const DISCONNECT: usize = 14;
const AUTH: usize = 15;

/// Sources of messages that somebody published.
const PUBLISHERS: &[Source] = &[Client, Http, Will, System, Bridge];

fn sum(values: &[u64]) -> u64 {
    values.iter().sum()
}

/// Messages taken from publishers.
fn published(s: &Snapshot) -> u64 {
    PUBLISHERS.iter().map(|from| published_by(&s.counters, *from)).sum()
}

fn published_by(c: &Counters, from: Source) -> u64 {
    sum(&c.published[from as usize])
}

fn published_at(s: &Snapshot, qos: usize) -> u64 {
    PUBLISHERS.iter().map(|from| s.counters.published[*from as usize][qos]).sum()
}

/// Messages sent to clients.
fn delivered(s: &Snapshot) -> u64 {
    sum(s.counters.delivered.as_flattened())
}

fn delivered_from(c: &Counters, from: Source) -> u64 {
    sum(&c.delivered[from as usize])
}

fn delivered_at(s: &Snapshot, qos: usize) -> u64 {
    s.counters.delivered.iter().map(|by_qos| by_qos[qos]).sum()
}

/// Messages that nobody was subscribed to.
fn unrouted(s: &Snapshot) -> u64 {
    sum(&s.counters.unrouted)
}

/// Messages that were accepted for somebody and are not delivered.
fn lost(s: &Snapshot) -> u64 {
    s.losses.iter().sum()
}

fn queue_full(s: &Snapshot) -> u64 {
    s.lost(&[LossCause::QueueFull, LossCause::QueueBytesFull])
}

fn packets_in(s: &Snapshot, packet: usize) -> u64 {
    s.counters.packets_in[packet]
}

fn packets_out(s: &Snapshot, packet: usize) -> u64 {
    s.counters.packets_out[packet]
}

/// RMQTT's metrics, for `/api/v1/metrics`, `/api/v2/metrics` and its Prometheus page.
pub const RMQTT_METRICS: &[Line] = &[
    ("client.auth.anonymous", |s| s.counters.anonymous),
    ("client.auth.anonymous.error", |s| s.counters.anonymous_refused),
    ("client.authenticate", |s| s.counters.authentications),
    ("client.connack", |s| packets_out(s, CONNACK)),
    ("client.connack.auth.error", |s| s.counters.connect_denied),
    ("client.connack.error", |s| s.counters.connect_errors),
    ("client.connect", |s| packets_in(s, CONNECT)),
    ("client.connected", |s| s.counters.connects),
    ("client.disconnected", |s| s.counters.disconnects),
    ("client.handshaking.timeout", |s| s.counters.connect_timeouts),
    ("client.publish.auth.error", |s| s.counters.publish_denied),
    ("client.publish.check.acl", |s| s.counters.publish_checked),
    ("client.publish.error", |s| s.counters.publish_errors),
    ("client.subscribe", |s| s.counters.subscribes),
    ("client.subscribe.auth.error", |s| s.counters.subscribe_denied),
    ("client.subscribe.check.acl", |s| s.counters.subscribe_checked),
    ("client.subscribe.error", |s| s.counters.subscribe_errors),
    ("client.unsubscribe", |s| s.counters.unsubscribes),
    ("messages.acked", |s| sum(&s.counters.acked)),
    ("messages.acked.admin", |s| s.counters.acked[Http as usize]),
    ("messages.acked.bridge", |s| s.counters.acked[Bridge as usize]),
    ("messages.acked.custom", |s| s.counters.acked[Client as usize]),
    ("messages.acked.lastwill", |s| s.counters.acked[Will as usize]),
    ("messages.acked.retain", |s| s.counters.acked[Retained as usize]),
    ("messages.acked.system", |s| s.counters.acked[System as usize]),
    ("messages.delivered", delivered),
    ("messages.delivered.admin", |s| delivered_from(&s.counters, Http)),
    ("messages.delivered.bridge", |s| delivered_from(&s.counters, Bridge)),
    ("messages.delivered.custom", |s| delivered_from(&s.counters, Client)),
    ("messages.delivered.lastwill", |s| delivered_from(&s.counters, Will)),
    ("messages.delivered.retain", |s| delivered_from(&s.counters, Retained)),
    ("messages.delivered.system", |s| delivered_from(&s.counters, System)),
    ("messages.dropped", lost),
    ("messages.nonsubscribed", unrouted),
    ("messages.nonsubscribed.admin", |s| s.counters.unrouted[Http as usize]),
    ("messages.nonsubscribed.bridge", |s| s.counters.unrouted[Bridge as usize]),
    ("messages.nonsubscribed.custom", |s| s.counters.unrouted[Client as usize]),
    ("messages.nonsubscribed.lastwill", |s| s.counters.unrouted[Will as usize]),
    ("messages.nonsubscribed.system", |s| s.counters.unrouted[System as usize]),
    ("messages.publish", published),
    ("messages.publish.admin", |s| published_by(&s.counters, Http)),
    ("messages.publish.bridge", |s| published_by(&s.counters, Bridge)),
    ("messages.publish.custom", |s| published_by(&s.counters, Client)),
    ("messages.publish.lastwill", |s| published_by(&s.counters, Will)),
    ("messages.publish.retain", |s| published_by(&s.counters, Retained)),
    ("messages.publish.system", |s| published_by(&s.counters, System)),
    ("session.created", |s| s.counters.sessions_created),
    ("session.resumed", |s| s.counters.sessions_resumed),
    ("session.subscribed", |s| s.counters.subscribed),
    ("session.terminated", |s| s.counters.sessions_ended),
    ("session.unsubscribed", |s| s.counters.unsubscribed),
];

/// RMQTT's stats. `handshakings_active` and `handshakings_rate` are not gauges of this kind: see
/// [`RMQTT_ACTIVE`] and `api`. Its Prometheus page says `retaineds` for `retained`.
pub const RMQTT_STATS: &[Stat] = &[
    ("connections", |g| g.connections),
    ("delayed_publishs", none),
    ("forwards", none),
    ("handshakings", |g| g.handshakes),
    ("in_inflights", |g| g.inflight_in),
    ("message_queues", |g| g.queued),
    ("message_storages", none),
    ("out_inflights", |g| g.inflight_out),
    ("retained", |g| g.retained),
    ("routes", |g| g.topics),
    ("sessions", |g| g.sessions),
    ("subscriptions", |g| g.subscriptions),
    ("subscriptions_shared", |g| g.subscriptions_shared),
    ("topics", |g| g.topics),
];

/// RMQTT's stat that has a count and no maximum.
pub const RMQTT_ACTIVE: Stat = ("handshakings_active", |g| g.handshakes);

/// EMQX's metrics, for `/api/v4/metrics`.
pub const EMQX_METRICS: &[Line] = &[
    ("bytes.received", |s| s.counters.bytes_in),
    ("bytes.sent", |s| s.counters.bytes_out),
    ("packets.received", |s| sum(&s.counters.packets_in)),
    ("packets.sent", |s| sum(&s.counters.packets_out)),
    ("packets.connect.received", |s| packets_in(s, CONNECT)),
    ("packets.connack.sent", |s| packets_out(s, CONNACK)),
    ("packets.connack.error", |s| s.counters.connect_errors),
    ("packets.connack.auth_error", |s| s.counters.connect_denied),
    ("packets.publish.received", |s| packets_in(s, PUBLISH)),
    ("packets.publish.sent", |s| packets_out(s, PUBLISH)),
    ("packets.publish.error", |s| s.counters.publish_errors),
    ("packets.publish.auth_error", |s| s.counters.publish_denied),
    ("packets.publish.dropped", |s| s.counters.qos2_refused),
    ("packets.puback.received", |s| packets_in(s, PUBACK)),
    ("packets.puback.sent", |s| packets_out(s, PUBACK)),
    ("packets.puback.inuse", nothing),
    ("packets.puback.missed", |s| s.counters.acks_unknown[PUBACK]),
    ("packets.pubrec.received", |s| packets_in(s, PUBREC)),
    ("packets.pubrec.sent", |s| packets_out(s, PUBREC)),
    ("packets.pubrec.inuse", nothing),
    ("packets.pubrec.missed", |s| s.counters.acks_unknown[PUBREC]),
    ("packets.pubrel.received", |s| packets_in(s, PUBREL)),
    ("packets.pubrel.sent", |s| packets_out(s, PUBREL)),
    ("packets.pubrel.missed", |s| s.counters.acks_unknown[PUBREL]),
    ("packets.pubcomp.received", |s| packets_in(s, PUBCOMP)),
    ("packets.pubcomp.sent", |s| packets_out(s, PUBCOMP)),
    ("packets.pubcomp.inuse", nothing),
    ("packets.pubcomp.missed", |s| s.counters.acks_unknown[PUBCOMP]),
    ("packets.subscribe.received", |s| packets_in(s, SUBSCRIBE)),
    ("packets.subscribe.error", |s| s.counters.subscribe_errors),
    ("packets.subscribe.auth_error", |s| s.counters.subscribe_denied),
    ("packets.suback.sent", |s| packets_out(s, SUBACK)),
    ("packets.unsubscribe.received", |s| packets_in(s, UNSUBSCRIBE)),
    ("packets.unsubscribe.error", |s| s.counters.unsubscribes - s.counters.unsubscribed),
    ("packets.unsuback.sent", |s| packets_out(s, UNSUBACK)),
    ("packets.pingreq.received", |s| packets_in(s, PINGREQ)),
    ("packets.pingresp.sent", |s| packets_out(s, PINGRESP)),
    ("packets.disconnect.received", |s| packets_in(s, DISCONNECT)),
    ("packets.disconnect.sent", |s| packets_out(s, DISCONNECT)),
    ("packets.auth.received", |s| packets_in(s, AUTH)),
    ("packets.auth.sent", |s| packets_out(s, AUTH)),
    ("messages.received", published),
    ("messages.sent", delivered),
    ("messages.qos0.received", |s| published_at(s, 0)),
    ("messages.qos0.sent", |s| delivered_at(s, 0)),
    ("messages.qos1.received", |s| published_at(s, 1)),
    ("messages.qos1.sent", |s| delivered_at(s, 1)),
    ("messages.qos2.received", |s| published_at(s, 2)),
    ("messages.qos2.sent", |s| delivered_at(s, 2)),
    ("messages.publish", published),
    ("messages.dropped", |s| unrouted(s) + s.counters.qos2_forgotten),
    ("messages.dropped.await_pubrel_timeout", |s| s.counters.qos2_forgotten),
    ("messages.dropped.no_subscribers", unrouted),
    ("messages.forward", nothing),
    ("messages.delayed", nothing),
    ("messages.delivered", delivered),
    ("messages.acked", |s| sum(&s.counters.acked)),
    ("messages.retained", |s| s.gauges.retained),
    ("delivery.dropped", |s| lost(s) + s.counters.no_local),
    ("delivery.dropped.no_local", |s| s.counters.no_local),
    ("delivery.dropped.too_large", |s| s.lost(&[LossCause::PacketTooLarge])),
    ("delivery.dropped.qos0_msg", |s| s.lost(&[LossCause::OfflineQos0, LossCause::OutputFull])),
    ("delivery.dropped.queue_full", queue_full),
    ("delivery.dropped.expired", |s| s.lost(&[LossCause::Expired])),
    ("client.connect", |s| packets_in(s, CONNECT)),
    ("client.connack", |s| packets_out(s, CONNACK)),
    ("client.connected", |s| s.counters.connects),
    ("client.authenticate", |s| s.counters.authentications),
    ("client.auth.anonymous", |s| s.counters.anonymous),
    ("client.check_acl", |s| s.counters.publish_checked + s.counters.subscribe_checked),
    ("client.subscribe", |s| s.counters.subscribes),
    ("client.unsubscribe", |s| s.counters.unsubscribes),
    ("client.disconnected", |s| s.counters.disconnects),
    ("session.created", |s| s.counters.sessions_created),
    ("session.resumed", |s| s.counters.sessions_resumed),
    ("session.takeovered", |s| s.counters.takeovers),
    ("session.discarded", |s| s.counters.sessions_discarded),
    ("session.terminated", |s| s.counters.sessions_ended),
];

/// EMQX's stats; `$SYS/brokers/{node}/stats` has them with slashes for dots.
pub const EMQX_STATS: &[Stat] = &[
    ("connections", |g| g.connections),
    ("retained", |g| g.retained),
    ("routes", |g| g.topics),
    ("sessions", |g| g.sessions),
    ("sessions.persistent", |g| g.sessions_persistent),
    ("suboptions", |g| g.subscriptions),
    ("subscribers", |g| g.subscribers),
    ("subscriptions", |g| g.subscriptions),
    ("subscriptions.shared", |g| g.subscriptions_shared),
    ("topics", |g| g.topics),
];

/// The metrics of EMQ X 3, below `$SYS/brokers/{node}/metrics/` and in `emqx_ctl broker metrics`.
pub const SYS_METRICS: &[Line] = &[
    ("bytes/received", |s| s.counters.bytes_in),
    ("bytes/sent", |s| s.counters.bytes_out),
    ("messages/dropped", |s| lost(s) + unrouted(s)),
    ("messages/expired", |s| s.counters.expired_messages),
    ("messages/forward", nothing),
    ("messages/qos0/received", |s| published_at(s, 0)),
    ("messages/qos0/sent", |s| delivered_at(s, 0)),
    ("messages/qos1/received", |s| published_at(s, 1)),
    ("messages/qos1/sent", |s| delivered_at(s, 1)),
    ("messages/qos2/dropped", |s| s.counters.qos2_refused),
    ("messages/qos2/expired", |s| s.counters.qos2_forgotten),
    ("messages/qos2/received", |s| published_at(s, 2)),
    ("messages/qos2/sent", |s| delivered_at(s, 2)),
    ("messages/received", published),
    ("messages/retained", |s| s.gauges.retained),
    ("messages/sent", delivered),
    ("packets/auth", |s| packets_in(s, AUTH) + packets_out(s, AUTH)),
    ("packets/connack", |s| packets_out(s, CONNACK)),
    ("packets/connect", |s| packets_in(s, CONNECT)),
    ("packets/disconnect/received", |s| packets_in(s, DISCONNECT)),
    ("packets/disconnect/sent", |s| packets_out(s, DISCONNECT)),
    ("packets/pingreq", |s| packets_in(s, PINGREQ)),
    ("packets/pingresp", |s| packets_out(s, PINGRESP)),
    ("packets/puback/missed", |s| s.counters.acks_unknown[PUBACK]),
    ("packets/puback/received", |s| packets_in(s, PUBACK)),
    ("packets/puback/sent", |s| packets_out(s, PUBACK)),
    ("packets/pubcomp/missed", |s| s.counters.acks_unknown[PUBCOMP]),
    ("packets/pubcomp/received", |s| packets_in(s, PUBCOMP)),
    ("packets/pubcomp/sent", |s| packets_out(s, PUBCOMP)),
    ("packets/publish/received", |s| packets_in(s, PUBLISH)),
    ("packets/publish/sent", |s| packets_out(s, PUBLISH)),
    ("packets/pubrec/missed", |s| s.counters.acks_unknown[PUBREC]),
    ("packets/pubrec/received", |s| packets_in(s, PUBREC)),
    ("packets/pubrec/sent", |s| packets_out(s, PUBREC)),
    ("packets/pubrel/missed", |s| s.counters.acks_unknown[PUBREL]),
    ("packets/pubrel/received", |s| packets_in(s, PUBREL)),
    ("packets/pubrel/sent", |s| packets_out(s, PUBREL)),
    ("packets/received", |s| sum(&s.counters.packets_in)),
    ("packets/sent", |s| sum(&s.counters.packets_out)),
    ("packets/suback", |s| packets_out(s, SUBACK)),
    ("packets/subscribe", |s| packets_in(s, SUBSCRIBE)),
    ("packets/unsuback", |s| packets_out(s, UNSUBACK)),
    ("packets/unsubscribe", |s| packets_in(s, UNSUBSCRIBE)),
];

/// What mosquitto publishes below `$SYS/broker/`, as far as it is a count.
pub const MOSQUITTO: &[Line] = &[
    ("bytes/received", |s| s.counters.bytes_in),
    ("bytes/sent", |s| s.counters.bytes_out),
    ("clients/connected", |s| s.gauges.connections),
    ("clients/active", |s| s.gauges.connections),
    ("clients/disconnected", |s| s.gauges.sessions.saturating_sub(s.gauges.connections)),
    ("clients/inactive", |s| s.gauges.sessions.saturating_sub(s.gauges.connections)),
    ("clients/expired", |s| s.counters.expired_sessions),
    ("clients/maximum", |s| s.peaks.connections),
    ("clients/total", |s| s.gauges.sessions),
    ("messages/received", |s| sum(&s.counters.packets_in)),
    ("messages/sent", |s| sum(&s.counters.packets_out)),
    ("publish/messages/received", |s| packets_in(s, PUBLISH)),
    ("publish/messages/sent", |s| packets_out(s, PUBLISH)),
    ("publish/messages/dropped", lost),
    ("retained messages/count", |s| s.gauges.retained),
    ("store/messages/count", |s| s.gauges.retained + s.gauges.queued + s.gauges.inflight_out),
    ("subscriptions/count", |s| s.gauges.subscriptions),
    ("shared_subscriptions/count", |s| s.gauges.subscriptions_shared),
];

/// NanoMQ's counters and gauges, as its Prometheus page names them; memory and CPU are of the process.
pub const NANOMQ: &[Line] = &[
    ("connections_count", |s| s.gauges.connections),
    ("connections_max", |s| s.peaks.connections),
    ("sessions_count", |s| s.gauges.sessions),
    ("sessions_max", |s| s.peaks.sessions),
    ("topics_count", |s| s.gauges.topics),
    ("topics_max", |s| s.peaks.topics),
    ("subscribers_count", |s| s.gauges.subscribers),
    ("subscribers_max", |s| s.peaks.subscribers),
    ("messages_received", published),
    ("messages_sent", delivered),
    ("messages_dropped", lost),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_numbers_of_packets_are_those_of_the_table() {
        for (at, name) in [(CONNECT, "connect"), (PUBREL, "pubrel"), (UNSUBACK, "unsuback"), (AUTH, "auth")] {
            assert_eq!(super::super::PACKETS.values[at], name);
        }
    }

    #[test]
    fn each_name_stands_once() {
        for table in [RMQTT_METRICS, EMQX_METRICS, SYS_METRICS, MOSQUITTO, NANOMQ] {
            let names: BTreeSet<_> = table.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), table.len());
        }
        assert_eq!((SYS_METRICS.len(), RMQTT_METRICS.len()), (43, 51));
    }

    #[test]
    fn what_is_counted_once_shows_under_each_of_its_names() {
        let mut s = Snapshot::default();
        s.counters.published[Will as usize][1] = 3;
        s.counters.published[Client as usize] = [4, 0, 2];
        s.counters.published[Retained as usize][0] = 100;
        s.losses[LossCause::QueueBytesFull as usize] = 5;
        let value = |table: &[Line], name: &str| {
            let (_, value) = table.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name}"));
            value(&s)
        };
        assert_eq!(value(RMQTT_METRICS, "messages.publish"), 9);
        assert_eq!(value(RMQTT_METRICS, "messages.publish.lastwill"), 3);
        assert_eq!(value(RMQTT_METRICS, "messages.publish.retain"), 100);
        assert_eq!(value(EMQX_METRICS, "messages.qos1.received"), 3);
        assert_eq!(value(SYS_METRICS, "messages/qos2/received"), 2);
        assert_eq!(value(EMQX_METRICS, "delivery.dropped.queue_full"), 5);
        assert_eq!(value(NANOMQ, "messages_dropped"), 5);
    }
}
