//! `reload` and `ctrl`: settings that change while the broker runs, its end, and its restart.

use crate::common::{Broker, DRIVERS, Http, Login, Peer};
use crate::served;
use ringmq::codec::{Packet, ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::json;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("ringmq-control-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The example of the document, whose values are those of its own.
const EXAMPLE: &str = r#"{
    "data": {
        "property_size": 64,
        "max_packet_size": 3,
        "client_max_packet_size": 5,
        "msq_len": 2048,
        "qos_duration": 10,
        "keepalive_backoff": 1250,
        "allow_anonymous": false
    }
}"#;

/// Waits until a broker that starts anew serves for the second time.
fn await_return(broker: &mut Broker) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while broker.log().matches(" is serving").count() < 2 {
        assert!(broker.runs() && Instant::now() < deadline, "it did not come back:\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn reload_reads_and_sets_on_all_shards_at_once_and_all_or_nothing() {
    served(&[], |broker, http| {
        let before = http.json("/api/v4/reload");
        assert_eq!(before["code"], 0);
        assert_eq!(before["data"]["max_packet_size"], 1024);
        assert_eq!(before["data"]["allow_anonymous"], true);
        assert_eq!(http.json("/api/v4/configuration"), before);
        // What was read is written back as it is.
        let back = http.post("/api/v4/reload", &json!({"data": before["data"]}).to_string());
        assert_eq!((back.status, &back.json()["changed"]), (200, &json!([])), "{back:?}");
        assert_eq!(http.json("/api/v4/reload"), before);
        for (body, code, named) in [
            (r#"{"data": {"msq_len": 7, "keepalive_backoff": 1}}"#, 108, "keepalive_backoff"),
            (r#"{"data": {"msq_len": 7, "nothing": 1}}"#, 108, "nothing"),
            (r#"{"data": {"broker.shards": 1}}"#, 108, "broker.shards"),
            (r#"{"data": [1]}"#, 108, "data"),
            (r#"{}"#, 107, "data"),
            ("data", 109, "JSON"),
        ] {
            let refused = http.post("/api/v4/reload", body);
            assert_eq!((refused.status, refused.json()["code"].as_u64()), (400, Some(code)), "{refused:?}");
            assert!(refused.json()["message"].as_str().unwrap().contains(named), "{refused:?}");
        }
        assert_eq!(http.json("/api/v4/reload"), before);
        let set = http.post("/api/v4/configuration", EXAMPLE);
        assert_eq!((set.status, &set.json()["code"]), (200, &json!(0)), "{set:?}");
        let example: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(http.json("/api/v4/reload")["data"], example["data"]);
        assert_eq!(http.json("/api/v4/reload")["settings"]["mqtt.max_packet_size"], 3072);
        // On every shard: clients of each of them are refused, as none has a user name.
        for id in crate::common::ids("reload", 12) {
            let (_, answer) = Peer::try_login(broker, &Login::new(Version::V5, &id));
            let Packet::ConnAck(connack) = answer.packet() else { panic!("{answer:?}") };
            assert_eq!(connack.code, ReasonCode::NOT_AUTHORIZED);
        }
        let set = http.post("/api/v4/reload", r#"{"data": {"allow_anonymous": true, "mqtt.max_qos": 1}}"#);
        assert_eq!(set.json()["changed"], json!(["mqtt.allow_anonymous", "mqtt.max_qos"]));
        for id in crate::common::ids("reload", 12) {
            drop(Peer::connect(broker, Version::V5, &id));
        }
    });
}

#[test]
fn what_is_to_outlive_a_restart_does_and_the_rest_does_not() {
    let folder = Folder::new("keep");
    let settings = [("broker.data_dir", folder.0.to_str().unwrap()), ("mqtt.max_inflight", "9")];
    let broker = Broker::start_http(DRIVERS[0], 2, &settings);
    let http = Http::of(&broker);
    let keep = http.post("/api/v4/reload", r#"{"data": {"msq_len": 77}, "persist": true}"#);
    assert_eq!(keep.status, 200, "{keep:?}");
    assert_eq!(http.post("/api/v4/reload", r#"{"data": {"qos_duration": 99}}"#).status, 200);
    // The command line would win at the next start.
    let refused = http.post("/api/v4/reload", r#"{"data": {"mqtt.max_inflight": 5}, "persist": true}"#);
    assert!(refused.status == 400 && refused.body.contains("--set"), "{refused:?}");
    broker.stop();
    let broker = Broker::start_http(DRIVERS[0], 2, &settings);
    let data = Http::of(&broker).json("/api/v4/reload")["data"].clone();
    assert_eq!((&data["msq_len"], &data["qos_duration"]), (&json!(77), &json!(300)));
    broker.stop();
}

#[test]
fn a_session_of_an_earlier_run_says_that_it_is_away_and_why() {
    let folder = Folder::new("away");
    let settings = [("broker.data_dir", folder.0.to_str().unwrap()), ("broker.durability", "on")];
    let broker = Broker::start_http(DRIVERS[0], 2, &settings);
    let login = Login { username: Some("carl".to_owned()), ..Login::lasting(Version::V5, "away") };
    let (mut peer, _) = Peer::login(&broker, &login);
    peer.subscribe("q", QoS::AtLeastOnce);
    peer.disconnect();
    broker.stop();
    let broker = Broker::start_http(DRIVERS[0], 2, &settings);
    let http = Http::of(&broker);
    let rows = [&http.json("/api/v4/clients/offlines")["data"][0], &http.json("/api/v1/clients/away")];
    for row in rows {
        let known = (&row["clientid"], &row["username"], &row["connected"], &row["subscriptions_cnt"]);
        assert_eq!(known, (&json!("away"), &json!("carl"), &json!(false), &json!(1)));
        assert_eq!(row["disconnected_at"].as_str().map(str::len), Some(19), "{row}");
        assert_eq!(row["disconnected_reason"], "The broker was restarted");
    }
    broker.stop();
}

#[test]
fn ctrl_stop_drains_as_sigterm_does() {
    for &driver in DRIVERS {
        let mut broker = Broker::start_http(driver, 2, &[]);
        let http = Http::of(&broker);
        let mut peer = Peer::connect(&broker, Version::V5, "stopped");
        assert_eq!(http.post("/api/v4/ctrl/other", "").status, 400);
        let stopped = http.post("/api/v4/ctrl/stop", "");
        assert_eq!((stopped.status, stopped.json()), (200, json!({"code": 0})));
        peer.expect_disconnect(ReasonCode::SERVER_SHUTTING_DOWN);
        let status = broker.wait(Duration::from_secs(30));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

/// How far the threads of a process stand back, by name.
fn nice(pid: u32) -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    // A thread may end meanwhile.
    let stat = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("stat")).ok()
    };
    let each = tasks.filter_map(stat).map(|stat| {
        let (head, rest) = stat.rsplit_once(") ").expect("a name in brackets");
        let nice = rest.split(' ').nth(16).expect("the 19th field");
        (head.split_once('(').expect("a name").1.to_owned(), nice.parse().expect("a number"))
    });
    each.collect()
}

#[test]
fn management_stands_behind_the_shards_where_it_has_no_core_of_its_own_also_after_a_restart() {
    let shards = std::thread::available_parallelism().expect("a number").get();
    for &driver in DRIVERS {
        let mut broker = Broker::start_http(driver, shards, &[("broker.management_nice", "7")]);
        let own = nice(std::process::id()).iter().map(|(_, nice)| *nice).min();
        for runs in 1.. {
            let threads = nice(broker.pid());
            let of = |name: &str| {
                let named = threads.iter().filter(|(thread, _)| thread.starts_with(name));
                named.map(|(_, nice)| Some(*nice)).collect::<Vec<_>>()
            };
            // A thread that it started just now has its name until it takes one of its own.
            assert!(of("management").contains(&Some(7)), "{threads:?}");
            assert!(of("shard-").iter().all(|nice| *nice == own), "{threads:?}");
            assert_eq!(of("shard-").len(), shards, "{threads:?}");
            if runs == 2 {
                break;
            }
            assert_eq!(Http::of(&broker).post("/api/v4/ctrl/restart", "").json(), json!({"code": 0}));
            await_return(&mut broker);
        }
        broker.stop();
    }
}

#[test]
fn no_connect_is_refused_while_the_broker_restarts() {
    for &driver in DRIVERS {
        let mut broker = Broker::start_http(driver, 3, &[]);
        let (http, addr, pid) = (Http::of(&broker), broker.addr(), broker.pid());
        let mut old = Peer::connect(&broker, Version::V5, "old");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let mut connects = 0;
                while !done.load(Ordering::Relaxed) {
                    match TcpStream::connect(addr) {
                        Ok(_) => connects += 1,
                        // Its own ports may be used up for a moment, which says nothing of the broker.
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "after {connects}")
                        }
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                connects
            });
            assert_eq!(http.post("/api/v4/ctrl/restart", "").json(), json!({"code": 0}));
            old.expect_disconnect(ReasonCode::SERVER_SHUTTING_DOWN);
            // The same process, address and port; HTTP answers again, from the new run.
            await_return(&mut broker);
            assert_eq!(http.json("/ready")["status"], "ok");
            for id in crate::common::ids("new", 12) {
                drop(Peer::connect(&broker, Version::V5, &id));
            }
            done.store(true, Ordering::Relaxed);
            assert!(connecting.join().unwrap() > 0);
        });
        assert_eq!(broker.pid(), pid);
        // And once more, by the path of the document's example: what was handed on can be handed on again.
        assert_eq!(http.post("/api/v4/restart", "").json(), json!({"code": 0}));
        let deadline = Instant::now() + Duration::from_secs(60);
        while broker.log().matches(" is serving").count() < 3 {
            assert!(broker.runs() && Instant::now() < deadline, "it did not come back:\n{}", broker.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(Peer::connect(&broker, Version::V311, "third"));
        broker.stop();
    }
}
