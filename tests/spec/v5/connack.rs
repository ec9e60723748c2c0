//! CONNACK, and what a server announces in it [3.2 of 5.0].

use super::client::*;
use crate::common::{Read, TIMEOUT};
use crate::{Broker, Peer, Scene, cases};
use ringmq::codec::{Packet, Property, ReasonCode, Version};

cases! {
    "3.2.2-1" => reserved_acknowledge_flags_are_0,
    "3.2.2-6" "3.2.2-7" "4.13.2-1" => an_error_has_no_session_present_and_closes,
    "3.2.2-8" => each_refusal_has_a_code_of_connack,
    "3.2.2-9" "3.2.2-10" "3.2.2-11" => a_lower_maximum_qos_is_announced_and_granted,
    "3.2.2-12" => a_will_above_maximum_qos_is_refused,
    "3.2.2-13" "3.2.2-14" => without_retain_neither_will_nor_message_is_retained,
    "3.2.2-15" => a_packet_above_the_servers_maximum_is_too_large,
    "3.2.2-17" "3.2.2-18" "3.3.2-9" => topic_aliases_above_the_servers_maximum_are_invalid,
    "3.2.2-19" "3.2.2-20" => a_reason_string_never_makes_connack_too_large,
    "3.2.2-3" "4.1.0-2" => a_shorter_session_expiry_is_announced,
    "3.8.4-7" "3.9.3-2" => without_wildcards_and_shares_they_are_announced_and_refused,
    "3.14.2-1" "3.14.2-2" => at_the_end_clients_are_told,
    "3.14.2-1" => at_the_end_clients_are_told_where_to_go,
}

/// The properties of a CONNACK that accepts this client.
fn announced(client: &Client, broker: &Broker) -> (Peer, String) {
    let (peer, answer) = client.open(broker);
    let connack = connack_of(&answer);
    assert_eq!(connack.code, ReasonCode::SUCCESS);
    (peer, format!("{:?}", connack.properties))
}

fn reserved_acknowledge_flags_are_0(s: &Scene) {
    let client = Client::lasting(s.id("a"));
    for wanted in [0, 1, 1] {
        let (peer, answer) = client.open(&s.broker());
        assert_eq!(answer.bytes()[2], wanted, "{answer:?}");
        peer.disconnect();
    }
    let (_, answer) = client.will(Will::new("a/#", "x")).open(&s.broker());
    assert_eq!(answer.bytes()[2], 0);
}

fn an_error_has_no_session_present_and_closes(s: &Scene) {
    let client = Client::lasting(s.id("a"));
    client.login(&s.broker()).disconnect();
    refused(&s.broker(), &client.clone().will(Will::new("a/#", "x")).bytes(), ReasonCode::TOPIC_NAME_INVALID);
    // The session is as it was.
    assert!(client.resume(&s.broker()).1);
}

fn each_refusal_has_a_code_of_connack(s: &Scene) {
    let broker =
        s.with(&[("mqtt.max_qos", "1"), ("mqtt.retain_available", "false"), ("mqtt.max_clientid_len", "60")]);
    let client = Client::new(s.id("a"));
    let deep = "/".repeat(200);
    for (login, code) in [
        (client.clone().will(Will::new("t", "x").qos(2)), 0x9B),
        (client.clone().will(Will::new("t", "x").retain()), 0x9A),
        (client.clone().will(Will::new("", "x")), 0x90),
        (client.clone().will(Will::new("#", "x")), 0x90),
        (client.clone().will(Will::new(&deep, "x")), 0x90),
        (client.clone().will(Will::new("$SYS/x", "x")), 0x87),
        (client.clone().with(p_text(id::AUTH_METHOD, "SCRAM-SHA-1")), 0x8C),
        (client.clone().with(p_text(id::AUTH_DATA, "x")), 0x82),
        (client.clone().packet_maximum(6), 0x95),
        (Client::new("x".repeat(61)), 0x85),
        (client.with(vec![0x01, 0]), 0x81),
    ] {
        // The peer fails at a code that CONNACK may not have.
        refused(&broker, &login.bytes(), ReasonCode(code));
    }
}

fn a_lower_maximum_qos_is_announced_and_granted(s: &Scene) {
    for max in [0u8, 1] {
        let broker = s.with(&[("mqtt.max_qos", &max.to_string())]);
        let (mut peer, said) = announced(&Client::new(s.id("a")), &broker);
        assert!(said.contains(&format!("MaximumQoS({max})")), "{said}");
        let topic = s.topic("t");
        let filters = [(&*topic, 0), (&*topic, 1), (&*topic, 2)];
        assert_eq!(subscribe_all(&mut peer, &[], &filters), [0, 1.min(max), 2.min(max)]);
        if max == 1 {
            Pub::new(&topic, "1").qos(1, 5).send(&mut Client::new(s.id("pub")).login(&broker));
            take(&mut peer, "1");
        }
        for qos in max + 1..3 {
            let mut peer = Client::new(s.id("b")).login(&broker);
            peer.send_raw(&Pub::new(&topic, "x").qos(qos, 1).bytes());
            peer.expect_disconnect(ReasonCode::QOS_NOT_SUPPORTED);
        }
        peer.ping();
    }
    let (_, said) = announced(&Client::new(s.id("a")), &s.broker());
    assert!(!said.contains("MaximumQoS"), "{said}");
}

fn a_will_above_maximum_qos_is_refused(s: &Scene) {
    for max in [0u8, 1] {
        let broker = s.with(&[("mqtt.max_qos", &max.to_string())]);
        for qos in 0..3 {
            let login = Client::new(s.id("a")).will(Will::new(s.topic("t"), "x").qos(qos));
            if qos <= max {
                login.login(&broker).disconnect();
            } else {
                refused(&broker, &login.bytes(), ReasonCode::QOS_NOT_SUPPORTED);
            }
        }
    }
}

fn without_retain_neither_will_nor_message_is_retained(s: &Scene) {
    let broker = s.with(&[("mqtt.retain_available", "false")]);
    let (mut peer, said) = announced(&Client::new(s.id("a")), &broker);
    assert!(said.contains("RetainAvailable(0)"), "{said}");
    let login = Client::new(s.id("b")).will(Will::new(s.topic("t"), "x").retain());
    refused(&broker, &login.bytes(), ReasonCode::RETAIN_NOT_SUPPORTED);
    peer.send_raw(&Pub::new(s.topic("t"), "x").retain().bytes());
    peer.expect_disconnect(ReasonCode::RETAIN_NOT_SUPPORTED);
    assert!(!announced(&Client::new(s.id("a")), &s.broker()).1.contains("RetainAvailable"));
}

fn a_packet_above_the_servers_maximum_is_too_large(s: &Scene) {
    let broker = s.with(&[("mqtt.max_packet_size", "300")]);
    let (mut peer, said) = announced(&Client::new(s.id("a")), &broker);
    assert!(said.contains("MaximumPacketSize(300)"), "{said}");
    let topic = s.topic("t");
    let exact = Pub::new(&topic, "x".repeat(300 - 3 - 2 - topic.len() - 2 - 1)).qos(1, 1);
    assert_eq!(exact.bytes().len(), 300);
    assert!(!exact.send(&mut peer).is_error());
    let over = Pub::new(&topic, "x".repeat(300 - 3 - 2 - topic.len() - 2)).qos(1, 1).bytes();
    peer.send_raw(&over);
    peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
    // The fixed header tells: nobody waits for 256 MiB.
    let mut peer = Client::new(s.id("a")).login(&broker);
    peer.send_raw(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE);
    // A CONNECT that is too large cannot be read, so not answered in its version either.
    let login = Client::new("x".repeat(300)).bytes();
    let mut peer = Peer::open(&broker, Version::V5);
    peer.send_raw(&login);
    assert!(matches!(peer.read_packet(TIMEOUT), Read::Closed));
}

fn topic_aliases_above_the_servers_maximum_are_invalid(s: &Scene) {
    let use_alias = |broker: &Broker, alias: u16| {
        let mut peer = Client::new(s.id("a")).login(broker);
        peer.send_raw(&Pub::new("t", "x").with(p_two(id::ALIAS, alias)).bytes());
        peer.expect_disconnect(ReasonCode::TOPIC_ALIAS_INVALID);
    };
    let (_, said) = announced(&Client::new(s.id("a")), &s.broker());
    assert!(said.contains("TopicAliasMaximum(32)"), "{said}");
    use_alias(&s.broker(), 33);
    use_alias(&s.broker(), 65_535);
    let none = s.with(&[("mqtt.max_topic_alias", "0")]);
    assert!(!announced(&Client::new(s.id("a")), &none).1.contains("TopicAliasMaximum"));
    use_alias(&none, 1);
    use_alias(&none, 65_535);
}

fn a_reason_string_never_makes_connack_too_large(s: &Scene) {
    let login = Client::new(s.id("a")).will(Will::new("a/#", "x"));
    let (_, full) = login.clone().packet_maximum(1_000).open(&s.broker());
    let text = |answer: &ringmq::codec::ConnAck<'_>| {
        answer.properties.iter().any(|p| matches!(p, Property::ReasonString(text) if !text.is_empty()))
    };
    assert!(text(&connack_of(&full)), "there is room for it: {full:?}");
    let full = full.bytes().len() as u32;
    for limit in 5..=full {
        let (mut peer, answer) = login.clone().packet_maximum(limit).open(&s.broker());
        let connack = connack_of(&answer);
        assert_eq!(
            (connack.code, text(&connack)),
            (ReasonCode::TOPIC_NAME_INVALID, limit == full),
            "{limit}"
        );
        assert!(answer.bytes().len() <= limit as usize);
        peer.expect_closed();
    }
}

fn a_shorter_session_expiry_is_announced(s: &Scene) {
    let broker = s.with(&[("mqtt.session_expiry_max_s", "1")]);
    let client = Client::lasting(s.id("a"));
    let (peer, said) = announced(&client, &broker);
    assert!(said.contains("SessionExpiryInterval(1)"), "{said}");
    peer.disconnect();
    s.pass(std::time::Duration::from_millis(2_500));
    assert!(!client.resume(&broker).1, "it ended after a second");
    assert!(!announced(&Client::new(s.id("b")).expiry(1), &broker).1.contains("SessionExpiryInterval"));
    assert!(!announced(&client, &s.broker()).1.contains("SessionExpiryInterval"));
}

fn without_wildcards_and_shares_they_are_announced_and_refused(s: &Scene) {
    let broker = s.with(&[("mqtt.wildcard_available", "false"), ("mqtt.shared_available", "false")]);
    let (mut peer, said) = announced(&Client::new(s.id("a")), &broker);
    for property in ["WildcardSubscriptionAvailable(0)", "SharedSubscriptionAvailable(0)"] {
        assert!(said.contains(property), "{said}");
    }
    let filters = [("a/+", 0), ("a/b", 1), ("#", 0), ("$share/g/a", 0)];
    assert_eq!(subscribe_all(&mut peer, &[], &filters), [0xA2, 1, 0xA2, 0x9E]);
    let (_, said) = announced(&Client::new(s.id("a")), &s.broker());
    assert!(!said.contains("Available"), "{said}");
}

/// What each of these clients is told when the broker stops.
fn told(broker: Broker, clients: &[Client]) -> Vec<String> {
    let mut peers: Vec<_> = clients.iter().map(|client| client.login(&broker)).collect();
    broker.drain();
    let ends = peers.iter_mut().map(|peer| {
        let got = peer.next();
        let Packet::Disconnect(disconnect) = got.packet() else { panic!("DISCONNECT, got {got:?}") };
        let text = format!("{:#04x} {:?}", disconnect.code.0, disconnect.properties);
        peer.expect_closed();
        text
    });
    let ends = ends.collect();
    drop(broker);
    ends
}

fn at_the_end_clients_are_told(s: &Scene) {
    let clients = [Client::lasting(s.id("a")), Client::new(s.id("b")).packet_maximum(30)];
    let texts = told(s.own(&[]), &clients);
    assert_eq!(texts, ["0x8b [ReasonString(\"the broker is shutting down\")]", "0x8b []"]);
}

fn at_the_end_clients_are_told_where_to_go(s: &Scene) {
    let broker = s.own(&[("mqtt.server_reference", "other.example:1883")]);
    let texts = told(broker, &[Client::new(s.id("a"))]);
    assert!(texts[0].starts_with("0x9c"), "{texts:?}");
    assert!(texts[0].contains("ServerReference(\"other.example:1883\")"), "{texts:?}");
}
