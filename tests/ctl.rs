//! `ringmq ctl` against a real broker.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "common/mod.rs"]
mod common;

use common::{Broker, DRIVERS, Peer};
use ringmq::codec::{ReasonCode, Version};
use ringmq::message::QoS;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{TryRecvError, channel};

/// Exit code, standard output and standard error.
fn ctl(url: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    for name in ["URL", "USER", "PASSWORD", "TOKEN"] {
        command.env_remove(format!("RINGMQCTL_{name}"));
    }
    let output = command.arg("ctl").args(["--url", url]).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What it prints, where all went well.
fn ctl_ok(url: &str, args: &[&str]) -> String {
    let (code, out, err) = ctl(url, args);
    assert_eq!((code, &*err), (0, ""), "{args:?}");
    out
}

#[test]
fn a_broker_is_looked_at_and_a_client_is_kicked() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let url = format!("http://{}", broker.http());
    let ok = |args: &[&str]| ctl_ok(&url, args);
    let mut peer = Peer::connect(&broker, Version::V5, "ctl/one");
    assert!(ok(&["status"]).contains("is running: ok"));
    assert!(ok(&["broker", "stats"]).lines().any(|line| {
        line.split_once(" : ").is_some_and(|(name, value)| name.trim() == "connections.count" && value == "1")
    }));
    assert!(ok(&["broker", "metrics"]).contains("packets.connect.received"));
    let listed = ok(&["clients", "list"]);
    assert!(
        listed.starts_with("CLIENT") && listed.lines().nth(1).unwrap().starts_with("ctl/one"),
        "{listed}"
    );
    assert!(ok(&["clients", "show", "ctl/one"]).contains("ctl/one"));
    let json: Value = serde_json::from_str(&ok(&["--json", "clients", "list"])).unwrap();
    assert_eq!(json[0]["clientid"], "ctl/one");
    let shards = ok(&["vm"]);
    assert_eq!(shards.lines().count(), 3, "a heading and two shards");
    for heading in ["FILTER BYTES", "ROUTE BYTES", "RETAINED BYTES", "MEMORY BYTES"] {
        assert!(shards.contains(heading), "{heading} in {shards}");
    }
    assert_eq!(ok(&["clients", "kick", "ctl/one"]), "ok\n");
    peer.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
    let (code, _, err) = ctl(&url, &["clients", "kick", "ctl/one"]);
    assert!(code == 1 && err.contains("404"), "{err}");
    assert_eq!(ok(&["log", "set-level", "debug"]), "ok\n");
    let (code, _, err) = ctl(&url, &["log", "set-level", "loud"]);
    assert!(code == 1 && err.contains("400"), "{err}");
    broker.stop();
}

#[test]
fn what_is_remembered_of_rights_is_looked_at_and_forgotten() {
    // Nothing listens on port 1, so that nothing is ever said.
    let broker = Broker::start_http(DRIVERS[0], 2, &[("auth.http_acl_url", "http://127.0.0.1:1/")]);
    let url = format!("http://{}", broker.http());
    let _peer = Peer::connect(&broker, Version::V5, "ctl/one");
    for (args, said) in [
        (&["acl", "cache", "ctl/one"][..], "none\n"),
        (&["acl", "cache-clean", "ctl/one"], "ok\n"),
        (&["acl", "cache-clean", "all"], "ok\n"),
        (&["acl", "cache-clean"], "ok\n"),
    ] {
        assert_eq!(ctl(&url, args), (0, said.to_owned(), String::new()), "{args:?}");
    }
    for args in [["acl", "cache", "nobody"], ["acl", "cache-clean", "nobody"]] {
        let (code, _, err) = ctl(&url, &args);
        assert!(code == 1 && err.contains("404"), "{err}");
    }
    broker.stop();
}

#[test]
fn somebody_is_banned_and_the_ban_is_taken_back() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let url = format!("http://{}", broker.http());
    let ok = |args: &[&str]| ctl_ok(&url, args);
    let mut peer = Peer::connect(&broker, Version::V5, "ctl/bad");
    assert_eq!(ok(&["banned", "list"]), "none\n");
    assert_eq!(ok(&["banned", "add", "clientid", "ctl/bad", "--for", "600", "--reason", "noise"]), "ok\n");
    peer.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
    let listed = ok(&["banned", "list"]);
    assert!(listed.starts_with("AS") && listed.contains("ctl/bad") && listed.contains("noise"), "{listed}");
    assert_eq!(ok(&["banned", "del", "clientid", "ctl/bad"]), "ok\n");
    Peer::connect(&broker, Version::V5, "ctl/bad").ping();
    let (code, _, err) = ctl(&url, &["banned", "del", "clientid", "ctl/bad"]);
    assert!(code == 1 && err.contains("404"), "{err}");
    let (code, _, err) = ctl(&url, &["banned", "add", "peerhost", "nowhere"]);
    assert!(code == 1 && err.contains("400"), "{err}");
    broker.stop();
}

#[test]
fn sessions_topics_subscriptions_and_listeners_are_shown_and_changed() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let url = format!("http://{}", broker.http());
    let ok = |args: &[&str]| ctl_ok(&url, args);
    let mut peer = Peer::connect(&broker, Version::V5, "ctl/two");
    assert_eq!(ok(&["subscriptions", "add", "ctl/two", "a/+", "1"]), "ok\n");
    assert_eq!(ok(&["subscriptions", "add", "ctl/two", "$share/g/b", "2"]), "ok\n");
    let second = |text: String| -> Vec<String> {
        text.lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(second(ok(&["subscriptions", "list"]))[..3], ["ctl/two", "a/+", "1"]);
    assert_eq!(ok(&["subscriptions", "show", "ctl/two"]).lines().count(), 3);
    assert_eq!(ok(&["subscriptions", "show", "nobody"]), "none\n");
    assert_eq!(ok(&["topics", "list"]).lines().count(), 3);
    assert_eq!(second(ok(&["topics", "show", "a/x"]))[0], "a/+");
    assert_eq!(second(ok(&["sessions", "list"]))[..5], ["ctl/two", "true", "true", "0", "2"]);
    assert!(ok(&["sessions", "show", "ctl/two"]).contains("subscriptions_cnt"));
    let listener = second(ok(&["listeners"]));
    assert_eq!((&*listener[0], &*listener[1]), ("mqtt:tcp", &*broker.addr().to_string()));
    assert_eq!(ok(&["alarms"]), "none\n");
    assert_eq!(ok(&["subscriptions", "del", "ctl/two", "a/+"]), "ok\n");
    assert_eq!(ok(&["topics", "show", "a/x"]), "none\n");
    let (code, _, err) = ctl(&url, &["subscriptions", "add", "nobody", "a", "1"]);
    assert!(code == 1 && err.lines().count() == 1, "{err}");
    peer.ping();
    broker.stop();
}

#[test]
fn packets_are_traced_to_the_terminal_and_into_files() {
    let folder = std::env::temp_dir().join(format!("ringmq-ctl-trace-{}", std::process::id()));
    let broker = Broker::start_http(DRIVERS[0], 2, &[("broker.data_dir", folder.to_str().unwrap())]);
    let url = format!("http://{}", broker.http());
    let ok = |args: &[&str]| ctl_ok(&url, args);
    let path = ok(&["trace", "start", "client", "c 1", "one.log"]);
    let path = path.strip_prefix("writing ").unwrap().trim_end().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(["ctl", "--url", &url, "trace", "start", "topic", "t/#"]).stdout(Stdio::piped());
    let mut terminal = command.spawn().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines();
    let mut peer = Peer::connect(&broker, Version::V5, "c 1");
    // Until the second trace has begun, nobody is told.
    let (sender, seen) = channel();
    let reader = std::thread::spawn(move || drop(sender.send(lines.next().unwrap().unwrap())));
    while seen.try_recv().is_err_and(|error| error == TryRecvError::Empty) {
        peer.publish("t/1", b"x", QoS::AtLeastOnce, false);
        if reader.is_finished() {
            break;
        }
    }
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    reader.join().unwrap();
    let listed = ok(&["trace", "list"]);
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["client", "c"], "{listed}");
    while !std::fs::read_to_string(&path).unwrap().contains("to c 1 (127.0.0.1:") {}
    assert_eq!(ok(&["trace", "stop", "client", "c 1"]), "ok\n");
    assert_eq!(ok(&["trace", "list"]), "none\n");
    let (code, _, err) = ctl(&url, &["trace", "stop", "client", "c 1"]);
    assert!(code == 1 && err.contains("there is no trace of client"), "{err}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().next().unwrap().contains("from c 1 (127.0.0.1:"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
    broker.stop();
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let broker = Broker::start_http(DRIVERS[0], 1, &[]);
    let url = format!("http://{}", broker.http());
    let (code, out, err) = ctl(&url, &["--password", "wrong", "broker", "stats"]);
    assert_eq!((code, &*out, err.lines().count()), (1, "", 1));
    assert!(err.contains("credentials"), "{err}");
    broker.stop();
    let (code, _, err) = ctl(&url, &["status"]);
    assert_eq!((code, err.lines().count()), (1, 1));
    assert!(err.contains("no broker answers") && err.contains(&url), "{err}");
}
