//! Fixed headers and packet identifiers [2].

use super::client::*;
use crate::raw::{packet, text, two};
use crate::{Peer, Scene, cases};
use ringmq::codec::Version;
use std::collections::BTreeSet;

cases! {
    "2.2.2-1" "2.2.2-2" "3.6.1-1" "3.8.1-1" "3.10.1-1" "3.14.1-1" "4.8.0-1" => reserved_flags_end_the_connection,
    "2.2.2-1" "2.2.2-2" "3.1.4-1" => reserved_flags_of_connect_end_the_connection,
    "2.2.2-1" => flags_of_the_server_are_as_listed,
    "2.3.1-1" "4.8.0-1" => packet_identifier_0_ends_the_connection,
    "2.3.1-4" "4.3.2-1" "4.3.3-1" => packet_identifiers_of_the_server_are_not_in_use,
    "2.3.1-5" => a_publish_of_qos_0_has_no_packet_identifier,
    "2.3.1-6" "3.3.4-1" "4.3.2-2" "4.3.3-2" => acknowledgements_have_the_identifier_of_the_publish,
    "2.3.1-7" "3.8.4-1" "3.8.4-2" "3.10.4-4" => suback_and_unsuback_have_the_identifier_of_the_request,
    "4.8.0-1" => packets_of_a_wrong_length_end_the_connection,
    "4.8.0-1" => packet_types_of_a_server_and_unknown_ones_end_the_connection,
    "4.8.0-1" => a_packet_above_the_maximum_ends_the_connection,
    "7.1.1-1" => packets_may_come_in_any_pieces,
    "7.0.0-2" => what_the_standard_has_suffices,
}

fn reserved_flags_end_the_connection(s: &Scene) {
    let good: [(&[u8], u8); 8] = [
        (&[0x40, 2, 0, 1], 0x00),
        (&[0x50, 2, 0, 1], 0x00),
        (&[0x62, 2, 0, 1], 0x02),
        (&[0x70, 2, 0, 1], 0x00),
        (&[0x82, 6, 0, 1, 0, 1, b't', 0], 0x02),
        (&[0xA2, 5, 0, 1, 0, 1, b't'], 0x02),
        (&[0xC0, 0], 0x00),
        (&[0xE0, 0], 0x00),
    ];
    for (bytes, right) in good {
        for flags in (0..16).filter(|flags| *flags != right) {
            faulty(s, &[&[bytes[0] & 0xF0 | flags][..], &bytes[1..]].concat());
        }
    }
}

fn reserved_flags_of_connect_end_the_connection(s: &Scene) {
    let login = Client::new(s.id("c")).bytes();
    for flags in 1..16 {
        dropped(&s.broker(), &[&[0x10 | flags][..], &login[1..]].concat());
    }
}

fn flags_of_the_server_are_as_listed(s: &Scene) {
    let topic = s.topic("t");
    let mut peer = Peer::open(&s.broker(), Version::V311);
    peer.send_raw(&Client::new(s.id("c")).bytes());
    raw(&mut peer, &[0x20, 2, 0, 0]);
    peer.send_raw(&subscribe_bytes(7, &[(&topic, 2)]));
    raw(&mut peer, &[0x90, 3, 0, 7, 2]);
    peer.send_raw(&unsubscribe_bytes(8, &["never"]));
    raw(&mut peer, &[0xB0, 2, 0, 8]);
    peer.send_raw(PINGREQ);
    raw(&mut peer, PINGRESP);
    peer.send_raw(&Pub::new(&topic, "x").qos(2, 9).bytes());
    // PUBREC and the message itself, in whichever order.
    let (one, other) = (peer.next(), peer.next());
    let (message, pubrec) = if one.bytes()[0] == 0x50 { (other, one) } else { (one, other) };
    assert_eq!(pubrec.bytes(), [0x50, 2, 0, 9]);
    assert_eq!(message.bytes()[0], 0x34);
    let id = id_of(&message.message().expect("a PUBLISH"));
    peer.send_raw(&ack_bytes(PUBREC, id));
    raw(&mut peer, &ack_bytes(0x62, id));
    peer.send_raw(&ack_bytes(PUBREL, 9));
    raw(&mut peer, &ack_bytes(0x70, 9));
}

fn packet_identifier_0_ends_the_connection(s: &Scene) {
    faulty(s, &Pub::new("t", "x").qos(1, 0).bytes());
    faulty(s, &Pub::new("t", "x").qos(2, 0).bytes());
    faulty(s, &subscribe_bytes(0, &[("t", 0)]));
    faulty(s, &unsubscribe_bytes(0, &["t"]));
    for first in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
        faulty(s, &ack_bytes(first, 0));
    }
}

fn packet_identifiers_of_the_server_are_not_in_use(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let mut used = BTreeSet::new();
    for n in 0..30u16 {
        Pub::new(&topic, n.to_string()).qos(1 + (n % 2) as u8, n + 1).send(&mut publisher);
        let id = id_of(&expect(&mut sub, &n.to_string()));
        assert!(id != 0 && used.insert(id), "{id} is in use: {used:?}");
        if n % 4 == 0 {
            sub.send_raw(&ack_bytes(PUBACK, id));
            used.remove(&id);
        }
    }
}

fn a_publish_of_qos_0_has_no_packet_identifier(s: &Scene) {
    let topic = s.topic("t");
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    let mut publisher = peer(s, "pub");
    let bytes = Pub::new(&topic, "payload").bytes();
    publisher.send_raw(&bytes);
    raw(&mut sub, &bytes);
    // Nor what QoS 0 became of by the subscription.
    subscribe(&mut sub, &topic, 0);
    Pub::new(&topic, "payload").qos(2, 1).send(&mut publisher);
    raw(&mut sub, &bytes);
}

fn acknowledgements_have_the_identifier_of_the_publish(s: &Scene) {
    let topic = s.topic("t");
    let mut publisher = peer(s, "pub");
    for id in [1, 2, 0x00FF, 0x0100, 0x1234, 0xFFFF] {
        Pub::new(&topic, "1").qos(1, id).send(&mut publisher);
        Pub::new(&topic, "2").qos(2, id).send(&mut publisher);
    }
    let mut sub = peer(s, "sub");
    subscribe(&mut sub, &topic, 2);
    Pub::new(&topic, "3").qos(2, 7).send(&mut publisher);
    take(&mut sub, "3");
    sub.ping();
}

fn suback_and_unsuback_have_the_identifier_of_the_request(s: &Scene) {
    let mut peer = peer(s, "a");
    for id in [1, 0x00FF, 0x0100, 0xFFFF] {
        peer.send_raw(&subscribe_bytes(id, &[(&s.topic("t"), 1)]));
        raw(&mut peer, &packet(0x90, &[&two(id), &[1]]));
        peer.send_raw(&unsubscribe_bytes(id, &[&s.topic("t")]));
        raw(&mut peer, &packet(0xB0, &[&two(id)]));
    }
}

fn packets_of_a_wrong_length_end_the_connection(s: &Scene) {
    let wrong = [
        // One byte too many.
        packet(0x40, &[&two(1), &[0]]),
        packet(0x62, &[&two(1), &[0]]),
        packet(0x82, &[&two(1), &text("t"), &[0, 0]]),
        packet(0xA2, &[&two(1), &text("t"), &[0]]),
        packet(0xC0, &[&[0]]),
        packet(0xE0, &[&[0]]),
        // Too few.
        packet(0x40, &[&[1]]),
        packet(0x30, &[]),
        packet(0x30, &[&[0]]),
        packet(0x30, &[&[0, 9, b't']]),
        packet(0x32, &[&text("t")]),
        packet(0x32, &[&text("t"), &[0]]),
        packet(0x82, &[&two(1), &text("t")]),
        packet(0xA2, &[&two(1), &[0, 9, b't']]),
        // A remaining length of five bytes.
        vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
        vec![0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
    ];
    for bytes in wrong {
        faulty(s, &bytes);
    }
}

fn packet_types_of_a_server_and_unknown_ones_end_the_connection(s: &Scene) {
    let wrong = [
        vec![0x20, 2, 0, 0],
        vec![0x90, 3, 0, 1, 0],
        vec![0xB0, 2, 0, 1],
        vec![0xD0, 0],
        // Reserved in 3.1.1; AUTH in 5.0.
        vec![0x00, 0],
        vec![0xF0, 0],
        vec![0xF0, 2, 0x19, 0],
    ];
    for bytes in wrong {
        faulty(s, &bytes);
    }
}

fn a_packet_above_the_maximum_ends_the_connection(s: &Scene) {
    let broker = s.with(&[("mqtt.max_packet_size", "1000")]);
    let topic = s.topic("t");
    let mut peer = Client::new(s.id("c")).login(&broker);
    subscribe(&mut peer, &topic, 0);
    let room = 1000 - 3 - 2 - topic.len();
    let fits = "x".repeat(room);
    let bytes = Pub::new(&topic, &fits).bytes();
    assert_eq!(bytes.len(), 1000);
    peer.send_raw(&bytes);
    raw(&mut peer, &bytes);
    let bytes = Pub::new(&topic, fits + "x").bytes();
    peer.send_raw(&bytes);
    ends(&mut peer, &bytes);
}

fn packets_may_come_in_any_pieces(s: &Scene) {
    let topic = s.topic("t");
    let all = [
        Client::new(s.id("c")).bytes(),
        subscribe_bytes(1, &[(&topic, 1)]),
        Pub::new(&topic, "x".repeat(300)).bytes(),
        PINGREQ.to_vec(),
    ]
    .concat();
    let answers = |peer: &mut Peer| {
        raw(peer, &[0x20, 2, 0, 0]);
        raw(peer, &[0x90, 3, 0, 1, 1]);
        raw(peer, &Pub::new(&topic, "x".repeat(300)).bytes());
        raw(peer, PINGRESP);
    };
    for size in [1, 2, 7, 100, all.len()] {
        let mut peer = Peer::open(&s.broker(), Version::V311);
        for piece in all.chunks(size) {
            // Each piece leaves at once: the peer has TCP_NODELAY.
            peer.send_raw(piece);
        }
        answers(&mut peer);
        leave(peer);
    }
}

fn what_the_standard_has_suffices(s: &Scene) {
    // No user name, no properties, the shortest identifier that is unique, and each packet of a client.
    let topic = s.topic("t");
    let mut peer = Client::new(s.id("")).login(&s.broker());
    subscribe(&mut peer, &topic, 2);
    for qos in 0..3 {
        peer.send_raw(&Pub::new(&topic, "x").qos(qos, 5).bytes());
        let mut seen = BTreeSet::new();
        for _ in 0..=u8::from(qos > 0) {
            let got = peer.next();
            seen.insert(got.bytes()[0] & 0xF0);
            if let Some(message) = got.message() {
                assert_eq!((message.text(), message.qos as u8), ("x", qos));
                if qos == 1 {
                    peer.send_raw(&ack_bytes(PUBACK, id_of(&message)));
                } else if qos == 2 {
                    peer.send_raw(&ack_bytes(PUBREC, id_of(&message)));
                    let id = id_of(&message);
                    raw_among(&mut peer, &ack_bytes(PUBREL, id), &ack_bytes(PUBREC, 5), &mut seen);
                    peer.send_raw(&ack_bytes(PUBCOMP, id));
                    if seen.contains(&0x50) {
                        break;
                    }
                }
            }
        }
        let wanted: &[u8] = match qos {
            0 => &[0x30],
            1 => &[0x30, 0x40],
            _ => &[0x30, 0x50],
        };
        assert_eq!(seen.iter().copied().collect::<Vec<_>>(), wanted);
        if qos == 2 {
            peer.send_raw(&ack_bytes(PUBREL, 5));
            raw(&mut peer, &ack_bytes(PUBCOMP, 5));
        }
    }
    unsubscribe(&mut peer, &[&topic]);
    peer.ping();
    leave(peer);
}

/// Reads until these bytes came; others may come before them and are noted.
fn raw_among(peer: &mut Peer, wanted: &[u8], other: &[u8], seen: &mut BTreeSet<u8>) {
    loop {
        let got = peer.next();
        if got.bytes() == wanted {
            return;
        }
        assert_eq!(got.bytes(), other);
        seen.insert(other[0] & 0xF0);
    }
}
