//! Records come back as they were, and what is damaged does not come back at all.

use super::*;
use crate::auth::{Ban, Banned};
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::trie::SubOptions;

const DAY: Day = Day(1_700_000_000_000);

fn message(payload: &[u8], expires: Moment) -> Message {
    let mut head = Head::new(QoS::ExactlyOnce, true, 77, Source::Http);
    head.expires = expires;
    Message::new(&MessageRef { topic: "a/b", properties: &[3, 0, 1, b'x'], payload, head })
}

fn same(a: &Message, b: &Message) {
    let (a, b) = (a.view(), b.view());
    assert_eq!((a.topic, a.properties, a.payload), (b.topic, b.properties, b.payload));
    assert_eq!((a.head.qos, a.head.retain, a.head.expires), (b.head.qos, b.head.retain, b.head.expires));
    assert_eq!((a.head.source, b.head.publisher), (b.head.source, 0));
}

fn session() -> SessionRecord {
    let subscription = |filter: &str, bits, id| SubscriptionRecord {
        filter: filter.into(),
        options: SubOptions::from_bits(bits).unwrap(),
        id,
    };
    SessionRecord {
        client_id: "c".into(),
        username: Some("".into()),
        expiry_s: 7_200,
        ends_ms: Some(DAY.0 + 5),
        created_ms: DAY.0,
        subscriptions: vec![subscription("t/+", 0b10_1110, 9), subscription("$share/g/#", 1, 0)],
        will: Some(WillRecord {
            message: message(b"gone", Moment::NEVER),
            delay_s: 3,
            expiry_s: Some(0),
            due_ms: None,
        }),
    }
}

#[test]
fn a_message_comes_back_and_its_expiry_is_the_same_time_of_day() {
    for expires in [Moment::NEVER, Moment(5_000)] {
        let m = message(b"payload", expires);
        let bytes = encode_message(&m.view(), DAY);
        same(&m, &decode_message(&bytes, DAY).unwrap());
        let later = decode_message(&bytes, Day(DAY.0 + 4_000)).unwrap().view().head.expires;
        assert_eq!(later, if expires == Moment::NEVER { expires } else { Moment(1_000) });
        let past = decode_message(&bytes, Day(DAY.0 + 9_000)).unwrap().view().head.expires;
        assert_eq!(past, if expires == Moment::NEVER { expires } else { Moment(0) });
    }
}

#[test]
fn an_entry_comes_back_with_and_without_its_body() {
    let m = message(b"", Moment::NEVER);
    let bytes = encode_entry(Some(&m.view()), QoS::AtLeastOnce, true, &[1, 268_435_455], Source::Will, DAY);
    let entry = decode_entry(&bytes, DAY).unwrap();
    same(&m, &entry.message.unwrap());
    assert_eq!((entry.qos, entry.retain, entry.source), (QoS::AtLeastOnce, true, Source::Will));
    assert_eq!(entry.ids, [1, 268_435_455]);
    let bytes = encode_entry(None, QoS::ExactlyOnce, false, &[], Source::Client, DAY);
    let entry = decode_entry(&bytes, DAY).unwrap();
    assert!(entry.message.is_none() && entry.ids.is_empty() && !entry.retain);
    let nobody = encode_entry(None, QoS::AtMostOnce, false, &[], Source::Client, DAY);
    assert_eq!(decode_entry(&nobody, DAY).unwrap_err(), BadRecord::Field("QoS"));
}

#[test]
fn a_session_comes_back() {
    let was = session();
    let now = SessionRecord::decode(&was.encode(DAY), DAY).unwrap();
    assert_eq!((&now.client_id, &now.username, now.expiry_s), (&was.client_id, &was.username, was.expiry_s));
    assert_eq!((now.ends_ms, now.created_ms), (was.ends_ms, was.created_ms));
    assert_eq!(now.subscriptions, was.subscriptions);
    let (now, was) = (now.will.unwrap(), was.will.unwrap());
    assert_eq!((now.delay_s, now.expiry_s, now.due_ms), (was.delay_s, was.expiry_s, was.due_ms));
    same(&was.message, &now.message);
    let bare =
        SessionRecord { username: None, ends_ms: None, subscriptions: Vec::new(), will: None, ..session() };
    let back = SessionRecord::decode(&bare.encode(DAY), DAY).unwrap();
    assert_eq!((back.username, back.ends_ms, back.will.is_none()), (None, None, true));
}

/// Each byte in turn has each of its bits turned; each end is cut off.
#[test]
fn what_is_damaged_does_not_come_back() {
    let message = message(b"some payload that is longer than a word", Moment(9));
    type Reads = fn(&[u8]) -> Option<BadRecord>;
    let records: [(Box<[u8]>, Reads); 3] = [
        (encode_message(&message.view(), DAY), |bytes| decode_message(bytes, DAY).err()),
        (encode_entry(Some(&message.view()), QoS::AtLeastOnce, true, &[5], Source::Client, DAY), |bytes| {
            decode_entry(bytes, DAY).err()
        }),
        (session().encode(DAY), |bytes| SessionRecord::decode(bytes, DAY).err()),
    ];
    for (record, fault) in records {
        assert_eq!(fault(&record), None);
        for at in 0..record.len() {
            for bit in 0..8 {
                let mut bad = record.to_vec();
                bad[at] ^= 1 << bit;
                assert_eq!(fault(&bad), Some(BadRecord::Sum), "bit {bit} of byte {at}");
            }
            assert!(fault(&record[..at]).is_some(), "cut at {at}");
        }
        assert!(fault(&[&record[..], &[0]].concat()).is_some(), "a byte too many");
    }
}

#[test]
fn what_has_a_right_sum_is_checked_all_the_same() {
    let with = |fill: &dyn Fn(&mut bytes::Writer)| {
        let mut w = bytes::Writer::new(0);
        fill(&mut w);
        w.finish()
    };
    let wild = with(&|w| {
        w.u8(1);
        w.u64(u64::MAX);
        w.text("a/#");
        w.bytes(&[]);
        w.bytes(&[]);
    });
    assert_eq!(decode_message(&wild, DAY).unwrap_err(), BadRecord::Field("topic"));
    let long = with(&|w| {
        w.u8(1);
        w.u32(u32::MAX);
    });
    assert_eq!(decode_entry(&long, DAY).unwrap_err(), BadRecord::Length);
    assert_eq!(SessionRecord::decode(&with(&|_| ()), DAY).unwrap_err(), BadRecord::Length);
    let mut other = encode_message(&message(b"", Moment::NEVER).view(), DAY).to_vec();
    other[0] = 2;
    assert_eq!(decode_message(&other, DAY).unwrap_err(), BadRecord::Sum);
}

#[test]
fn a_ban_comes_back_by_its_name() {
    for (kind, who) in
        [("clientid", "a/b"), ("username", ""), ("peerhost", "10.0.0.0/8"), ("peerhost", "::1")]
    {
        let (by, reason) = ("user".into(), "noise".into());
        let ban = Ban { who: Banned::read(kind, who).unwrap(), by, reason, at_s: 1, until_s: u64::MAX };
        let (key, mut bytes) = (ban_key(&ban.who), encode_ban(&ban));
        assert_eq!(decode_ban(&key, &bytes), Ok(ban));
        assert_eq!(decode_ban("bwho/x", &bytes), Err(BadRecord::Field("name of a ban")));
        bytes[3] ^= 1;
        assert_eq!(decode_ban(&key, &bytes), Err(BadRecord::Sum));
    }
}
