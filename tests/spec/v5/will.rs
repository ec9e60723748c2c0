//! The will and keep alive [3.1.2 and 3.1.3 of 5.0].

use super::client::*;
use crate::common::{Read, TIMEOUT};
use crate::raw::text;
use crate::{Peer, Scene, cases};
use ringmq::codec::{Property, ReasonCode};
use ringmq::message::QoS;
use std::time::Duration;

cases! {
    "3.1.2-7" "3.1.2-8" => a_will_is_published_when_the_connection_is_lost,
    "3.1.2-8" "3.14.4-3" "3.1.2-10" => a_normal_disconnection_deletes_the_will,
    "3.1.2-8" => any_other_disconnect_code_keeps_the_will,
    "3.1.2-8" => a_fault_publishes_the_will,
    "3.1.2-10" => a_will_is_published_once,
    "3.1.2-9" => a_will_flag_without_its_fields_is_malformed,
    "3.1.2-11" "3.1.2-13" => will_qos_and_retain_without_a_will_are_malformed,
    "3.1.2-12" => the_will_has_its_qos,
    "3.1.2-14" "3.1.2-15" => the_will_is_retained_as_it_asks,
    "3.1.2-8" => a_will_is_delayed,
    "3.1.2-8" => a_delayed_will_is_published_when_the_session_ends,
    "3.1.2-8" => a_will_delay_without_a_session_does_not_delay,
    "3.1.3-9" "3.1.2-8" => a_delayed_will_is_not_published_after_reconnection,
    "3.1.2-8" "3.1.4-3" => a_takeover_publishes_a_will_without_delay,
    "3.1.3-10" "3.3.2-4" "3.3.2-15" "3.3.2-16" "3.3.2-20" => the_will_keeps_its_properties_and_their_order,
    "3.1.2-22" "4.13.2-1" => a_silent_client_is_closed,
    "3.1.2-22" => what_the_server_sends_keeps_nobody_alive,
    "3.1.2-22" => keep_alive_0_is_off_and_65535_is_taken,
    "3.1.2-21" "3.2.2-21" => a_server_keep_alive_holds,
    "3.2.2-22" => without_a_server_keep_alive_the_clients_own_holds,
}

/// A subscriber to the wills of this case.
fn watcher(s: &Scene) -> Peer {
    let mut sub = peer(s, "watcher");
    subscribe(&mut sub, &s.topic("+"), 2);
    sub
}

/// What has been published so far has arrived, and it was nothing.
fn marked(s: &Scene, sub: &mut Peer) {
    Pub::new(s.topic("marker"), "marker").qos(1, 1).send(&mut peer(s, "marker"));
    take(sub, "marker");
}

fn a_will_is_published_when_the_connection_is_lost(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::new(s.id("a")).will(Will::new(s.topic("will"), "gone"));
    client.login(&s.broker()).cut();
    let got = take(&mut sub, "gone");
    assert_eq!((publish_of(&got).topic, publish_of(&got).retain), (&*s.topic("will"), false));
    // Also for a session that lasts.
    Client::lasting(s.id("b")).will(Will::new(s.topic("will"), "again")).login(&s.broker()).cut();
    take(&mut sub, "again");
}

fn a_normal_disconnection_deletes_the_will(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::lasting(s.id("a")).will(Will::new(s.topic("will"), "not this"));
    client.login(&s.broker()).disconnect();
    disconnect_with(client.login(&s.broker()), 0x00);
    // Nor with a session that ends now, nor later when the session goes.
    let mut peer = client.login(&s.broker());
    peer.send_raw(&disconnect_bytes(0, &[&p_four(id::SESSION_EXPIRY, 0)]));
    peer.expect_closed();
    marked(s, &mut sub);
}

fn any_other_disconnect_code_keeps_the_will(s: &Scene) {
    let mut sub = watcher(s);
    for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let payload = format!("{code:#x}");
        let client = Client::new(s.id("a")).will(Will::new(s.topic("will"), &payload));
        disconnect_with(client.login(&s.broker()), code);
        take(&mut sub, &payload);
    }
}

fn a_fault_publishes_the_will(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::new(s.id("a")).will(Will::new(s.topic("will"), "gone"));
    let mut faulty = client.login(&s.broker());
    faulty.send_raw(&subscribe_bytes(0, &[], &[("t", 0)]));
    faulty.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
    take(&mut sub, "gone");
    let mut silent = client.keep_alive(1).login(&s.broker());
    silent.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT);
    take(&mut sub, "gone");
}

fn a_will_is_published_once(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::lasting(s.id("a"));
    client.clone().will(Will::new(s.topic("will"), "once")).login(&s.broker()).cut();
    take(&mut sub, "once");
    // Without a will of its own the session has none any more.
    client.login(&s.broker()).cut();
    let mut peer = client.login(&s.broker());
    peer.send_raw(&disconnect_bytes(4, &[&p_four(id::SESSION_EXPIRY, 0)]));
    peer.expect_closed();
    marked(s, &mut sub);
}

fn a_will_flag_without_its_fields_is_malformed(s: &Scene) {
    let fields = [text("c"), vec![0], text("t"), text("x")];
    for n in 1..4 {
        let bytes = connect(0x06, 0, &[0], &fields[..n].concat());
        refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
    }
    // And fields without the flag.
    let bytes = connect(0x02, 0, &[0], &fields.concat());
    refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
}

fn will_qos_and_retain_without_a_will_are_malformed(s: &Scene) {
    for flags in [0x0A, 0x12, 0x1A, 0x22, 0x2A] {
        let bytes = connect(flags, 0, &[0], &text("c"));
        refused(&s.broker(), &bytes, ReasonCode::MALFORMED_PACKET);
    }
}

fn the_will_has_its_qos(s: &Scene) {
    let mut sub = watcher(s);
    for qos in 0..3 {
        Client::new(s.id("a")).will(Will::new(s.topic("will"), "x").qos(qos)).login(&s.broker()).cut();
        assert_eq!(Some(publish_of(&take(&mut sub, "x")).qos), QoS::from_bits(qos));
    }
    let login = Client::new(s.id("a")).will(Will::new(s.topic("will"), "x").qos(3));
    refused(&s.broker(), &login.bytes(), ReasonCode::MALFORMED_PACKET);
}

fn the_will_is_retained_as_it_asks(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::new(s.id("a"));
    client.clone().will(Will::new(s.topic("kept"), "kept").retain()).login(&s.broker()).cut();
    take(&mut sub, "kept");
    client.will(Will::new(s.topic("plain"), "plain")).login(&s.broker()).cut();
    take(&mut sub, "plain");
    let mut late = peer(s, "late");
    subscribe(&mut late, &s.topic("+"), 1);
    let got = take(&mut late, "kept");
    assert!(publish_of(&got).retain);
    marked(s, &mut late);
}

fn a_will_is_delayed(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::lasting(s.id("a")).will(Will::new(s.topic("will"), "late").delay(1));
    let peer = client.login(&s.broker());
    let since = s.broker().now();
    peer.cut();
    take(&mut sub, "late");
    since.was(&sub, Duration::from_secs(1));
}

fn a_delayed_will_is_published_when_the_session_ends(s: &Scene) {
    let mut sub = watcher(s);
    let will = Will::new(s.topic("will"), "end").delay(3_000);
    // By its expiry, by a session that starts anew, by an expiry of 0 in DISCONNECT.
    let peer = Client::new(s.id("a")).expiry(1).will(will.clone()).login(&s.broker());
    let since = s.broker().now();
    peer.cut();
    take(&mut sub, "end");
    since.was(&sub, Duration::from_secs(1));
    Client::lasting(s.id("b")).will(will.clone()).login(&s.broker()).cut();
    marked(s, &mut sub);
    Client::new(s.id("b")).login(&s.broker()).ping();
    take(&mut sub, "end");
    let mut peer = Client::lasting(s.id("c")).will(will).login(&s.broker());
    peer.send_raw(&disconnect_bytes(4, &[&p_four(id::SESSION_EXPIRY, 0)]));
    take(&mut sub, "end");
}

fn a_will_delay_without_a_session_does_not_delay(s: &Scene) {
    let mut sub = watcher(s);
    let will = Will::new(s.topic("will"), "now").delay(3_000);
    Client::new(s.id("a")).will(will.clone()).login(&s.broker()).cut();
    take(&mut sub, "now");
    Client::new(s.id("a")).expiry(0).will(will).login(&s.broker()).cut();
    take(&mut sub, "now");
}

fn a_delayed_will_is_not_published_after_reconnection(s: &Scene) {
    let mut sub = watcher(s);
    let client = Client::lasting(s.id("a"));
    let will = Will::new(s.topic("will"), "not this").delay(3);
    client.clone().will(will.clone()).login(&s.broker()).cut();
    let mut back = client.login(&s.broker());
    // Also when the connection is taken over rather than lost.
    let client = Client::lasting(s.id("b"));
    let _old = client.clone().will(will).login(&s.broker());
    let mut new = client.login(&s.broker());
    quiet(&mut sub, Duration::from_millis(3_500));
    back.ping();
    new.ping();
    marked(s, &mut sub);
}

fn a_takeover_publishes_a_will_without_delay(s: &Scene) {
    let mut sub = watcher(s);
    for (clean, delay) in [(false, 0), (true, 0), (true, 3_000)] {
        let will = Will::new(s.topic("will"), "taken").delay(delay);
        let mut old = Client::lasting(s.id("a")).will(will).login(&s.broker());
        let new = Client::lasting(s.id("a")).clean(clean).login(&s.broker());
        old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER);
        take(&mut sub, "taken");
        new.disconnect();
    }
}

fn the_will_keeps_its_properties_and_their_order(s: &Scene) {
    let mut sub = watcher(s);
    let will = Will::new(s.topic("will"), "x")
        .with(p_user("b", "1"))
        .with(p_byte(id::PAYLOAD_FORMAT, 1))
        .with(p_user("a", "2"))
        .with(p_four(id::MESSAGE_EXPIRY, 77))
        .with(p_text(id::CONTENT_TYPE, "text/plain"))
        .with(p_user("b", "1"))
        .with(p_text(id::RESPONSE_TOPIC, "reply/to"))
        .with(p_text(id::CORRELATION_DATA, [0, 1, 0xFF]))
        .with(p_user("a", "0"))
        .delay(0);
    Client::new(s.id("a")).will(will).login(&s.broker()).cut();
    let got = take(&mut sub, "x");
    let all = properties_of(&got);
    let users: Vec<_> = all.iter().filter(|p| matches!(p, Property::UserProperty(..))).collect();
    let user = Property::UserProperty;
    assert_eq!(users, [&user("b", "1"), &user("a", "2"), &user("b", "1"), &user("a", "0")]);
    for property in [
        Property::PayloadFormatIndicator(1),
        Property::MessageExpiryInterval(77),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("reply/to"),
        Property::CorrelationData(&[0, 1, 0xFF]),
    ] {
        assert!(all.contains(&property), "{property:?} in {all:?}");
    }
    assert_eq!(all.len(), 9, "the delay is the broker's alone: {all:?}");
}

fn a_silent_client_is_closed(s: &Scene) {
    let mut peer = Client::new(s.id("a")).keep_alive(2).login(&s.broker());
    // Each packet counts from anew, as soon as it is whole.
    let mut since = s.broker().now();
    for bytes in [vec![0xC0, 0], Pub::new(s.topic("t"), "x").bytes(), ack_bytes(0x40, 5)] {
        s.pass(Duration::from_millis(900));
        since = s.broker().now();
        peer.send_raw(&bytes);
    }
    peer.send_raw(&[0x30]);
    assert_eq!(peer.next().bytes(), [0xD0, 0]);
    peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT);
    since.was(&peer, Duration::from_secs(3));
}

fn what_the_server_sends_keeps_nobody_alive(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    let mut sub = Client::new(s.id("a")).keep_alive(1).login(&s.broker());
    subscribe(&mut sub, &topic, 0);
    // Up to 15 seconds of messages, ten per second.
    for _ in 0..150 {
        Pub::new(&topic, "x").send(&mut publisher);
        match sub.read_packet(TIMEOUT) {
            Read::Packet(got) if got.bytes()[0] == 0xE0 => {
                assert_eq!(got.bytes()[2], ReasonCode::KEEP_ALIVE_TIMEOUT.0);
                sub.expect_closed();
                return;
            }
            Read::Packet(got) => drop(publish_of(&got)),
            Read::Closed => panic!("it is told why"),
            Read::TimedOut => panic!("neither messages nor the end"),
        }
        s.pass(Duration::from_millis(100));
    }
    panic!("a silent client was not closed");
}

fn keep_alive_0_is_off_and_65535_is_taken(s: &Scene) {
    let mut off = Client::new(s.id("off")).keep_alive(0).login(&s.broker());
    let mut long = Client::new(s.id("long")).keep_alive(65_535).login(&s.broker());
    quiet(&mut off, Duration::from_millis(2_500));
    quiet(&mut long, Duration::from_millis(10));
    off.ping();
    long.ping();
}

/// Server Keep Alive of a CONNACK.
fn told(client: &Client, broker: &crate::Broker) -> (Peer, Option<u16>) {
    let (peer, answer) = client.open(broker);
    let told = connack_of(&answer).properties.iter().find_map(|p| match p {
        Property::ServerKeepAlive(s) => Some(s),
        _ => None,
    });
    (peer, told)
}

fn a_server_keep_alive_holds(s: &Scene) {
    let broker = s.with(&[("mqtt.server_keep_alive_s", "1")]);
    for keep_alive in [0, 60] {
        let client = Client::new(s.id("a")).keep_alive(keep_alive);
        let since = broker.now();
        let (mut peer, told) = told(&client, &broker);
        assert_eq!(told, Some(1));
        peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT);
        since.was(&peer, Duration::from_millis(1_500));
    }
}

fn without_a_server_keep_alive_the_clients_own_holds(s: &Scene) {
    let (mut short, none) = told(&Client::new(s.id("a")).keep_alive(1), &s.broker());
    assert_eq!(none, None);
    let (mut long, none) = told(&Client::new(s.id("b")).keep_alive(30), &s.broker());
    assert_eq!(none, None);
    short.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT);
    long.ping();
}
