//! `ringmq ctl` against a real broker.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "common/mod.rs"]
mod common;

use common::{Broker, DRIVERS, Peer};
use ringmq::codec::{ReasonCode, Version};
use serde_json::Value;
use std::process::Command;

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

#[test]
fn a_broker_is_looked_at_and_a_client_is_kicked() {
    let broker = Broker::start_http(DRIVERS[0], 2, &[]);
    let url = format!("http://{}", broker.http());
    let ok = |args: &[&str]| {
        let (code, out, err) = ctl(&url, args);
        assert_eq!((code, &*err), (0, ""), "{args:?}");
        out
    };
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
    assert_eq!(ok(&["vm"]).lines().count(), 3, "a heading and two shards");
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
