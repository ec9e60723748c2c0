//! The load generator against the real broker: what it counts is what the broker counted, and it finds what is lost.

mod common;

use common::{Broker, DRIVERS, Driver, Http};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tokio::net::TcpSocket;

fn bench(port: u16, driver: Driver, args: &[&str]) -> Output {
    let mut command = Command::new("/usr/bin/timeout");
    command.args(["--kill-after=5", "120", env!("CARGO_BIN_EXE_ringmq"), "bench"]).args(args);
    command.args(["--port", &port.to_string(), "--io", driver.name(), "--quiet"]);
    command.stdin(Stdio::null()).output().expect("the binary was built for this test")
}

/// Runs it to its end and returns its exit code and report.
fn report(broker: &Broker, driver: Driver, args: &[&str]) -> (Option<i32>, Value) {
    let mut all = args.to_vec();
    all.extend(["--json", "-", "--drain", "2"]);
    let output = bench(broker.addr().port(), driver, &all);
    let told = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}\n{told}", String::from_utf8_lossy(&output.stdout)));
    (output.status.code(), report)
}

fn count(report: &Value, name: &str) -> u64 {
    report["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {report:#}"))
}

fn check(report: &Value, name: &str) -> u64 {
    report["checks"][name].as_u64().unwrap_or_else(|| panic!("no check {name} in {report:#}"))
}

/// Asserts that all checks held and that this many messages were sent and delivered.
fn held(args: &[&str], (code, report): (Option<i32>, Value), sent: u64, delivered: u64) -> Value {
    assert_eq!((code, &report["failures"]), (Some(0), &Value::Array(vec![])), "{args:?} {report:#}");
    let counts = ["published", "delivered", "received"].map(|name| count(&report, name));
    assert_eq!(counts, [sent, delivered, delivered], "{args:?}");
    assert_eq!(check(&report, "lost, acknowledged") + check(&report, "lost, QoS 0"), 0, "{args:?}");
    report
}

#[test]
fn scenarios_deliver_everything_and_agree_with_the_brokers_counters() {
    for &driver in DRIVERS {
        let mut broker = Broker::start(driver, 2, &[("log.level", "debug")]);
        let (mut sent, mut delivered, mut connects) = (0, 0, 0);
        let scenarios: [(&[&str], u64, u64); 8] = [
            (&["p2p", "-c", "5", "-q", "0", "-L", "500"], 500, 500),
            (&["p2p", "-c", "5", "-q", "1", "-L", "500", "-V", "3.1"], 500, 500),
            (&["p2p", "--pubs", "6", "--subs", "3", "-q", "2", "-L", "600", "--threads", "2"], 600, 600),
            (
                &["p2p", "-c", "4", "-q", "1", "-L", "400", "-r", "4000", "-m", "{\"n\": %i, \"t\": %t}"],
                400,
                400,
            ),
            (&["fanin", "-c", "4", "-q", "1", "-L", "400", "-V", "3.1.1"], 400, 400),
            (&["fanout", "-c", "20", "-q", "2", "-L", "50", "--threads", "2"], 50, 1000),
            (&["shared", "-c", "4", "--subs", "3", "-q", "1", "-L", "400"], 400, 400),
            (&["retain", "-L", "300", "--subs", "3", "-q", "1"], 300, 900),
        ];
        for (args, messages, deliveries) in scenarios {
            let report = held(args, report(&broker, driver, args), messages, deliveries);
            (sent, delivered) = (sent + messages, delivered + deliveries);
            connects += count(&report, "connected");
            if args[0] != "retain" && args[0] != "p2p" || args.contains(&"1") {
                assert_eq!(count(&report, "acknowledged"), messages, "{args:?}");
                assert_eq!(report["latency"]["publish_to_ack"]["count"], messages, "{args:?}");
            }
            assert_eq!(report["latency"]["publish_to_delivery"]["count"], deliveries, "{args:?}");
        }
        broker.signal("TERM");
        let ended = broker.wait(common::TIMEOUT);
        assert!(ended.is_some_and(|status| status.success()), "{}", broker.log());
        let log = broker.log();
        let line = log.lines().find(|line| line.contains("all shards:")).expect("its counters");
        for (name, value) in [("published.client", sent), ("delivered", delivered), ("connects", connects)] {
            assert!(line.contains(&format!(" {name}={value} ")), "{driver}: {name}={value} in {line}");
        }
    }
}

#[test]
fn everybody_comes_back_in_a_storm_and_nothing_is_lost() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 2, &[]);
        for qos in ["1", "2"] {
            let args = ["storm", "--subs", "60", "--pubs", "2", "-q", qos, "-r", "400", "-d", "1"];
            let (code, report) = report(&broker, driver, &args);
            assert_eq!(code, Some(0), "{report:#}");
            assert_eq!((count(&report, "reconnects"), count(&report, "resumed")), (60, 60));
            assert_eq!(count(&report, "delivered"), count(&report, "published"));
        }
        broker.stop();
    }
}

#[test]
fn what_a_broker_acknowledged_and_dropped_is_found() {
    for &driver in DRIVERS {
        let settings =
            [("mqtt.max_inflight", "1"), ("mqtt.max_mqueue", "1"), ("mqtt.queue_full", "drop_oldest")];
        let broker = Broker::start(driver, 1, &settings);
        // A window that waits for acknowledgements only overruns subscribers with room for two messages.
        let args = ["fanin", "-c", "4", "-q", "1", "-L", "2000", "--until", "acked", "-w", "100"];
        let (code, report) = report(&broker, driver, &args);
        let lost = check(&report, "lost, acknowledged");
        assert_eq!(code, Some(1), "{report:#}");
        assert!(lost > 0 && lost == 2000 - count(&report, "delivered"), "{report:#}");
        let failures = report["failures"].to_string();
        assert!(failures.contains(&format!("{lost} acknowledged and not delivered")), "{failures}");
        let mut broker = broker;
        broker.signal("TERM");
        broker.wait(common::TIMEOUT);
        assert!(broker.log().contains(&format!("dropped: {lost} (queue_full)")), "{}", broker.log());
    }
}

#[test]
fn a_run_that_cannot_be_set_up_ends_with_2_and_says_why() {
    // A port that is taken, so that nobody else gets it, and that nobody listens on.
    let taken = TcpSocket::new_v4().expect("a socket");
    taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    for &driver in DRIVERS {
        let output = bench(port, driver, &["conn", "-c", "3", "--connect-timeout", "3"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("0 of 3 clients") && told.contains("Connection refused"), "{told}");
    }
    let output = bench(port, Driver::Epoll, &["p2p", "-s", "10"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--size"));
}

#[test]
fn a_server_that_refuses_or_talks_nonsense_is_named_as_the_cause() {
    for (answer, cause) in [
        (&[0x20, 3, 0, 0x87, 0][..], "CONNACK: Not authorized"),
        (&[0x20, 3, 0, 0x88, 0][..], "CONNACK: Server unavailable"),
        (&[0xF0, 1, 2][..], "protocol:"),
        (&[][..], "closed by the broker"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 256]);
                let _ = stream.write_all(answer);
            }
        });
        for &driver in DRIVERS {
            let output =
                bench(port, driver, &["conn", "-c", "2", "--connect-timeout", "3", "--no-reconnect"]);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains(&format!("2 x {cause}")), "{cause}: {told}");
        }
    }
}

#[test]
fn pings_are_answered_and_the_page_stands_alone() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 1, &[]);
        let file = std::env::temp_dir().join(format!("ringmq-bench-{}-{driver}.html", std::process::id()));
        let path = file.to_string_lossy().into_owned();
        let pid = broker.pid().to_string();
        let args = ["conn", "-c", "20", "-R", "100", "-k", "5", "-d", "7", "--html", &path, "--pid", &pid];
        let (code, report) = report(&broker, driver, &args);
        assert_eq!(code, Some(0), "{report:#}");
        assert!(count(&report, "pongs") >= 20, "{report:#}");
        let page = std::fs::read_to_string(&file).expect("it was written");
        let _ = std::fs::remove_file(&file);
        assert!(page.contains("<svg") && page.contains("all checks held") && page.ends_with("</html>\n"));
        let outside = ["src=", "href=", "@import", "url("];
        assert!(outside.iter().all(|word| !page.contains(word)), "it loads nothing");
        broker.stop();
    }
}

/// An authority, a certificate for localhost and one for another name, each with its key, in a folder of their own.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let files = Files(std::env::temp_dir().join(format!("ringmq-bench-{}-{name}", std::process::id())));
        std::fs::create_dir_all(&files.0).expect("a folder of one's own");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        files.write("ca", &params.self_signed(&key).expect("a certificate").pem());
        let issuer = Issuer::new(params, key);
        for name in ["localhost", "elsewhere"] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("one name");
            files.write(name, &params.signed_by(&key, &issuer).expect("a certificate").pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a folder that can be written to");
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker with one more listener, of this kind; and its port.
fn serve(driver: Driver, kind: &str, files: &Files, certificate: &str) -> (Broker, u16) {
    let pair = [files.path(certificate), files.path(&format!("{certificate}.key"))];
    let mut settings = vec![("listeners.other.kind", kind), ("listeners.other.bind", "127.0.0.1:0")];
    if kind != "ws" {
        settings.extend([("listeners.other.certificate", &*pair[0]), ("listeners.other.key", &*pair[1])]);
    }
    let broker = Broker::start_http(driver, 2, &settings);
    let told = Http::of(&broker).json("/api/v4/listeners");
    let rows = told["data"][0]["listeners"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == "other").expect("the listener");
    let port = row["listen_on"].as_str().and_then(|at| at.rsplit(':').next()?.parse().ok()).expect("a port");
    (broker, port)
}

/// What the shards have counted of this.
fn counted(broker: &Broker, name: &str) -> u64 {
    let told = Http::of(broker).json("/api/v4/shards");
    let shards = told["data"].as_array().expect("a list");
    let of = |shard: &Value| match &shard["counters"][name] {
        // By origin and QoS; retained messages that are looked up are none of a client.
        Value::Object(kinds) => {
            let of_clients =
                kinds.iter().filter(|(kind, _)| name != "published" || kind.starts_with("client."));
            of_clients.map(|(_, n)| n.as_u64().expect("a number")).sum()
        }
        count => count.as_u64().expect("a counter"),
    };
    shards.iter().map(of).sum()
}

/// All scenarios through one kind of listener; what the generator and the broker count is the same.
fn scenarios_through(kind: &str) {
    let files = Files::new(kind);
    let authority = files.path("ca");
    let mut way = vec!["--protocol", if kind == "tls" { "mqtts" } else { kind }];
    if kind != "ws" {
        way.extend(["--cafile", &*authority]);
    }
    let scenarios: [(&[&str], u64, u64); 9] = [
        (&["p2p", "-c", "5", "-q", "0", "-L", "500"], 500, 500),
        (&["p2p", "-c", "5", "-q", "1", "-L", "500", "-V", "3.1.1", "-s", "70000"], 500, 500),
        (&["p2p", "--pubs", "6", "--subs", "3", "-q", "2", "-L", "600", "--threads", "2"], 600, 600),
        (&["p2p", "-c", "4", "-q", "1", "-L", "400", "-r", "4000"], 400, 400),
        (&["fanin", "-c", "4", "-q", "1", "-L", "400"], 400, 400),
        (&["fanout", "-c", "20", "-q", "2", "-L", "50", "--threads", "2"], 50, 1000),
        (&["shared", "-c", "4", "--subs", "3", "-q", "1", "-L", "400"], 400, 400),
        (&["retain", "-L", "300", "--subs", "3", "-q", "1"], 300, 900),
        (&["conn", "-c", "30", "-d", "0.2"], 0, 0),
    ];
    for &driver in DRIVERS {
        let (broker, port) = serve(driver, kind, &files, "localhost");
        let (mut connects, mut sent, mut delivered, mut wire_out) = (0, 0, 0, 0);
        for (at, (args, messages, deliveries)) in scenarios.into_iter().enumerate() {
            let mut args = args.to_vec();
            args.extend(&way);
            if kind != "ws" {
                args.extend(["--tls-version", ["1.2", "1.3"][at % 2]]);
            }
            let host = format!("localhost:{port}");
            args.extend(["-h", &host]);
            let report = held(&args, report(&broker, driver, &args), messages, deliveries);
            (sent, delivered) = (sent + messages, delivered + deliveries);
            connects += count(&report, "connected");
            wire_out += count(&report, "wire_out");
            assert_eq!(report["latency"]["handshake"]["count"], count(&report, "connected"), "{args:?}");
            assert_eq!((&report["transport"], count(&report, "tls_resumed")), (&Value::from(kind), 0));
            let shares = [("wire_in", "bytes_in"), ("wire_out", "bytes_out")];
            assert!(
                shares.iter().all(|(wire, mqtt)| count(&report, wire) > count(&report, mqtt)),
                "{args:?}"
            );
        }
        let of = |has: bool| if has { connects } else { 0 };
        let counts = [
            ("connects", connects),
            ("published", sent),
            ("delivered", delivered),
            ("bytes_in", wire_out),
            ("tls_handshakes", of(kind != "ws")),
            ("websocket_upgrades", of(kind != "tls")),
            ("tls_errors", 0),
            ("websocket_errors", 0),
        ];
        let saw = counts.map(|(name, _)| (name, counted(&broker, name)));
        assert_eq!(saw, counts, "{kind}, {driver}: the broker, and the reports");
        broker.stop();
    }
}

#[test]
fn scenarios_through_tls_agree_with_the_brokers_counters() {
    scenarios_through("tls");
}

#[test]
fn scenarios_through_websocket_agree_with_the_brokers_counters() {
    scenarios_through("ws");
}

#[test]
fn scenarios_through_websocket_in_tls_agree_with_the_brokers_counters() {
    scenarios_through("wss");
}

#[test]
fn sessions_of_tls_are_resumed_in_a_storm_where_that_is_asked_for() {
    let files = Files::new("resumed");
    for &driver in DRIVERS {
        let (broker, port) = serve(driver, "wss", &files, "localhost");
        for (more, resumed) in [(None, 0), (Some("--tls-resume"), 40)] {
            let host = format!("localhost:{port}");
            let authority = files.path("ca");
            let mut args = vec!["storm", "--subs", "40", "--pubs", "2", "-q", "1", "-r", "200", "-d", "1"];
            args.extend(["-h", &host, "--ssl", "--ws", "--cafile", &authority]);
            args.extend(more);
            let (code, report) = report(&broker, driver, &args);
            assert_eq!(code, Some(0), "{report:#}");
            assert_eq!((count(&report, "reconnects"), count(&report, "resumed")), (40, 40));
            assert_eq!(count(&report, "delivered"), count(&report, "published"));
            assert_eq!(count(&report, "tls_resumed"), resumed, "{report:#}");
        }
        broker.stop();
    }
}

#[test]
fn a_broker_with_another_certificate_or_path_is_named_as_the_cause() {
    let files = Files::new("refused");
    let (authority, stranger) = (files.path("ca"), files.path("localhost"));
    for &driver in DRIVERS {
        let (broker, port) = serve(driver, "wss", &files, "elsewhere");
        let host = format!("localhost:{port}");
        let cases: [(&[&str], &str); 5] = [
            (&["--cafile", &authority], "expected a certificate for localhost, got one for elsewhere"),
            (&["--cafile", &stranger], "got one by CN=authority"),
            (&["--cafile", &authority, "--sni", "elsewhere", "--path", "/other"], "expected the path /mqtt"),
            (&["--insecure", "--alpn", "h2"], "got the alert NoApplicationProtocol"),
            (&["--insecure", "--path", "other"], "--path"),
        ];
        for (args, cause) in cases {
            let mut all = vec!["conn", "-c", "2", "--no-reconnect", "-h", &host, "--ssl", "--ws"];
            all.extend(args);
            let output = bench(port, driver, &all);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains(cause), "{args:?}: {told}");
        }
        // And with the right words it is let in.
        let right = ["conn", "-c", "2", "-d", "0.1", "-h", &host, "-l", "wss", "--cafile", &authority];
        let output = bench(port, driver, &[&right[..], &["--sni", "elsewhere"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        // Plain MQTT to a port of TLS, and TLS to a port of plain MQTT.
        let plain = bench(port, driver, &["conn", "-c", "1", "--no-reconnect"]);
        assert!(String::from_utf8_lossy(&plain.stderr).contains("is it a port for --ssl?"));
        let tls = bench(
            broker.addr().port(),
            driver,
            &["conn", "-c", "1", "--ssl", "--insecure", "--no-reconnect"],
        );
        assert!(String::from_utf8_lossy(&tls.stderr).contains("during the TLS handshake"));
        broker.stop();
    }
}
