//! A store that cannot be written: what would have to be kept is refused, everything else goes on, and it is back by
//! itself.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

mod common;

use common::{Broker, DRIVERS, Http, Login, Peer, ids};
use ringmq::codec::{AckKind, Packet, PacketId, ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V5, V311};

/// Publishers, enough for some on each shard.
const PUBLISHERS: usize = 6;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("ringmq-read-only-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bounds the size of files that a broker may write: with 0 every write fails, as on a disk that is full.
fn bound_files(broker: &Broker, bytes: &str) {
    let (pid, bound) = (broker.pid().to_string(), format!("--fsize={bytes}:unlimited"));
    let set = Command::new("prlimit").args(["--pid", &pid, &bound]).status();
    assert!(set.expect("prlimit of util-linux can be started").success(), "the bound can be set");
}

/// Takes the alarm that a broker tells of below `$SYS`: `alert` or `clear`.
fn expect_alarm(watcher: &mut Peer, word: &str) -> Value {
    let message = watcher.expect_message();
    assert!(message.topic.ends_with(&format!("/alarms/{word}")), "{message:?}");
    let alarm: Value = serde_json::from_str(message.text()).unwrap();
    assert_eq!(alarm["name"], "store_read_only");
    alarm
}

/// The code of PUBACK or PUBREC; what was taken is completed.
fn answer(peer: &mut Peer, id: PacketId) -> ReasonCode {
    let answer = peer.next();
    let Packet::Ack(ack) = answer.packet() else { panic!("an acknowledgement, got {answer:?}") };
    assert_eq!(ack.packet_id, id);
    if ack.kind == AckKind::PubRec && !ack.code.is_error() {
        peer.ack(AckKind::PubRel, id);
        peer.expect_ack(AckKind::PubComp, id);
    }
    ack.code
}

fn publish(peer: &mut Peer, topic: &str, payload: &str, qos: QoS, retain: bool) -> ReasonCode {
    let id = peer.send_publish(topic, payload.as_bytes(), qos, retain).expect("QoS 1 or 2");
    answer(peer, id)
}

fn connack(broker: &Broker, login: &Login) -> ReasonCode {
    let (_, answer) = Peer::try_login(broker, login);
    let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
    connack.code
}

#[test]
fn what_cannot_be_kept_is_refused_and_everything_else_goes_on() {
    for &driver in DRIVERS {
        let folder = Folder::new(driver.name());
        let settings = [
            ("broker.durability", "on"),
            ("broker.data_dir", folder.0.to_str().unwrap()),
            ("mqtt.reject_wait_s", "1"),
        ];
        let broker = Broker::start_http(driver, 2, &settings);
        let mut watcher = Peer::connect(&broker, V5, "watcher");
        assert_eq!(watcher.subscribe("$SYS/brokers/+/alarms/#", AtMostOnce), 0);
        let (mut lasting, _) = Peer::login(&broker, &Login::lasting(V5, "lasting"));
        assert_eq!(lasting.subscribe("kept/#", ExactlyOnce), 2);
        let mut clean = Peer::connect(&broker, V5, "clean");
        assert_eq!(clean.subscribe("clean/#", ExactlyOnce), 2);
        let mut publishers: Vec<Peer> =
            ids("publisher", PUBLISHERS).iter().map(|id| Peer::connect(&broker, V5, id)).collect();

        bound_files(&broker, "0");
        // It is not refused, for nobody knows yet; it is not acknowledged either.
        let mut early = Peer::connect(&broker, V5, "early");
        let waits = early.send_publish("kept/early", b"early", AtLeastOnce, false).unwrap();
        let alarm = expect_alarm(&mut watcher, "alert");
        assert!(alarm["message"].as_str().unwrap().contains("no room"), "{alarm}");
        assert_eq!(lasting.take().text(), "early");

        refused(&broker, &mut lasting, &mut publishers);
        goes_on(&broker, (&mut clean, &mut lasting), &mut publishers);

        bound_files(&broker, "unlimited");
        expect_alarm(&mut watcher, "clear");
        assert!(!answer(&mut early, waits).is_error(), "it is on the disk now");
        for publisher in &mut publishers {
            assert_eq!(publish(publisher, "kept/again", "again", ExactlyOnce, false), ReasonCode::SUCCESS);
            // Nothing that was refused came before it.
            assert_eq!(lasting.take().text(), "again");
        }
        assert_eq!(lasting.subscribe("more/#", AtLeastOnce), 1);
        assert_eq!(connack(&broker, &Login::lasting(V311, "late")), ReasonCode::SUCCESS);
        drop((early, lasting, clean, publishers, watcher));
        broker.stop();
    }
}

fn refused(broker: &Broker, lasting: &mut Peer, publishers: &mut [Peer]) {
    for publisher in publishers.iter_mut() {
        for qos in [AtLeastOnce, ExactlyOnce] {
            let code = publish(publisher, "kept/refused", "refused", qos, false);
            assert_eq!(code, ReasonCode::QUOTA_EXCEEDED, "a lasting session subscribes to it");
        }
        let code = publish(publisher, "clean/retained", "refused", AtLeastOnce, true);
        assert_eq!(code, ReasonCode::QUOTA_EXCEEDED, "it would be retained");
    }
    // It cannot be told, so it waits for a second.
    let mut old = Peer::connect(broker, V311, "old");
    old.send_publish("kept/refused", b"refused", AtLeastOnce, false);
    old.expect_closed();
    assert_eq!(connack(broker, &Login::lasting(V5, "new")), ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(connack(broker, &Login::lasting(V311, "new")), ReasonCode::SERVER_UNAVAILABLE);
    // It would end a session that is kept.
    assert_eq!(connack(broker, &Login::new(V5, "lasting")), ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(lasting.subscribe("other/#", AtLeastOnce), ReasonCode::QUOTA_EXCEEDED.0);
    let id = lasting.send_unsubscribe("kept/#");
    let answer = lasting.next();
    let Packet::UnsubAck(unsuback) = answer.packet() else { panic!("UNSUBACK, got {answer:?}") };
    assert_eq!(
        (unsuback.packet_id, unsuback.codes),
        (id, &[ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR.0][..])
    );
    let http = Http::of(broker);
    let body = r#"{"topic": "kept/refused", "payload": "refused", "qos": 1}"#;
    assert_eq!(http.post("/api/v4/mqtt/publish", body).status, 503);
    let alarms = http.json("/api/v4/alarms/activated");
    assert_eq!(alarms["data"][0]["alarms"][0]["name"], "store_read_only", "{alarms}");
    lasting.ping();
}

fn goes_on(broker: &Broker, (clean, lasting): (&mut Peer, &mut Peer), publishers: &mut [Peer]) {
    for publisher in publishers.iter_mut() {
        for qos in [AtLeastOnce, ExactlyOnce] {
            assert_eq!(publish(publisher, "clean/x", "goes on", qos, false), ReasonCode::SUCCESS);
            assert_eq!((clean.take().text(), qos), ("goes on", qos));
        }
        publisher.publish("kept/x", b"qos 0", AtMostOnce, false);
        assert_eq!(lasting.take().qos, AtMostOnce);
    }
    assert_eq!(clean.subscribe("clean/more", AtLeastOnce), 1);
    let dying = Login::new(V5, "dying").will("clean/will", b"will");
    Peer::login(broker, &dying).0.cut();
    assert_eq!(clean.take().text(), "will");
    let body = r#"{"topic": "clean/x", "payload": "over http", "qos": 1}"#;
    assert_eq!(Http::of(broker).post("/api/v4/mqtt/publish", body).status, 200);
    assert_eq!(clean.take().text(), "over http");
    let mut old = Peer::connect(broker, V311, "old");
    old.publish("clean/x", b"3.1.1", AtLeastOnce, false);
    assert_eq!(clean.take().text(), "3.1.1");
    // Neither retained nor lost: it is delivered.
    old.publish("clean/r", b"qos 0", AtMostOnce, true);
    assert_eq!(clean.take().text(), "qos 0");
}
