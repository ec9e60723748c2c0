//! The program as an operator meets it: arguments, errors in one line, signals, exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

fn ringmq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    // Tests run side by side, and each store belongs to one process.
    command
        .env_clear()
        .env("RINGMQ_BROKER_DURABILITY", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

/// Runs it to its end. A broker that starts where it should not is ended, so that the test can fail.
fn run(args: &[&str]) -> Output {
    run_with(args, &[])
}

fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("/usr/bin/timeout");
    clean(&mut command);
    command.args(["--kill-after=5", "60", env!("CARGO_BIN_EXE_ringmq")]).args(args);
    command.envs(environment.iter().copied()).output().expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that it failed with 1 and exactly this many lines, and returns them.
fn fails(output: &Output, lines: usize) -> String {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), lines, "{told}");
    told
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("the temporary folder is writable");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running broker on free ports, which dies with the test.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Running {
    fn start(args: &[&str]) -> Running {
        Running::start_as(ringmq(), args)
    }

    fn start_as(mut command: Command, args: &[&str]) -> Running {
        let mut child = command
            .args(["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "broker.pin=false"])
            .args(args)
            .spawn()
            .expect("the binary was built for this test");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut seen = String::new();
        let line = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("UTF-8"), 0, "it ended instead of serving: {seen}");
            if line.contains(" is serving") {
                break line;
            }
            seen.push_str(&line);
        };
        let (mqtt, http) = (address(&line, "mqtt"), address(&line, "http"));
        Running { child, log, mqtt, http }
    }

    fn signal(&self, number: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let status = Command::new("kill").args([format!("-{number}"), pid.to_string()]).status();
        assert!(status.expect("kill is installed").success());
    }

    /// Reads the log up to a line with `part` in it.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).expect("UTF-8"), 0, "it ended before it said {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    fn end(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("it is ours").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address behind `name=` in a text line, or `"name":` in a JSON line.
/// The first one, where there are several.
fn address(line: &str, name: &str) -> SocketAddr {
    let at = line.find(&format!("{name}=\"")).map(|at| at + name.len() + 2);
    let at = at.or_else(|| line.find(&format!("\"{name}\":\"")).map(|at| at + name.len() + 4));
    let rest = &line[at.unwrap_or_else(|| panic!("no {name} in {line}"))..];
    rest[..rest.find(['"', ',']).expect("a closing quote")].parse().unwrap_or_else(|_| panic!("{line}"))
}

fn health(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).expect("HTTP is served");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout above 0");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn version_and_help_explain_themselves() {
    let version = run(&["version"]);
    assert_eq!(text(&version.stdout), format!("ringmq {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(run(&["--version"]).stdout, version.stdout);
    let short = text(&run(&["-h"]).stdout);
    for part in
        ["MQTT broker", "check-config", "--mqtt <ADDR>", "[::]:1883", "127.0.0.1:8081", "mosquitto_sub"]
    {
        assert!(short.contains(part), "{part}: {short}");
    }
    let long = run(&["--help"]);
    assert_eq!(long.status.code(), Some(0));
    for key in ringmq::config::KEYS {
        assert!(text(&long.stdout).contains(&format!("  {} = ", key.name)), "{}", key.name);
    }
}

#[test]
fn the_options_in_the_readme_are_those_of_the_program() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let (broker, bench) = (text(&run(&["--help"]).stdout), text(&run(&["bench", "--help"]).stdout));
    let tune = ["check", "script", "apply", "revert", "verify"]
        .map(|verb| text(&run(&["tune", verb, "--help"]).stdout))
        .concat();
    let mut options = 0;
    for line in readme.lines().filter(|line| line.trim_start().starts_with("ringmq ")) {
        let help = match line.split_whitespace().nth(1) {
            Some("bench") => &bench,
            Some("tune") => &tune,
            _ => &broker,
        };
        for word in line.split_whitespace().filter(|word| word.starts_with("--")) {
            options += 1;
            let known = help.contains(&format!("{word} ")) || help.contains(&format!("{word}\n"));
            assert!(known, "{word} is in README.md and not in --help");
        }
    }
    assert!(options > 0, "README.md shows options of ringmq");
    for key in readme.split('`').filter_map(|part| part.strip_prefix("--set ")) {
        let key = key.split('=').next().unwrap_or(key);
        assert!(ringmq::config::Key::find(key).is_some(), "{key} is in README.md and is no key");
    }
}

#[test]
fn check_config_says_ok_or_what_is_wrong() {
    let folder = Folder::new("check");
    let good = run(&["check-config", concat!(env!("CARGO_MANIFEST_DIR"), "/etc/ringmq.toml")]);
    assert_eq!((good.status.code(), text(&good.stdout).as_str()), (Some(0), "ok\n"));
    let bad = folder.file("bad.toml", "[mqtt]\nmax_infligth = 3\nmax_qos = 7\n");
    let told = fails(&run(&["check-config", &bad]), 2);
    assert!(
        told.contains("bad.toml:2: mqtt.max_infligth: unknown key; did you mean mqtt.max_inflight?"),
        "{told}"
    );
    assert!(
        told.contains("bad.toml:3: mqtt.max_qos: expected a whole number from 0 to 2 (QoS), got 7"),
        "{told}"
    );
    assert!(fails(&run(&["check-config", "/nowhere.toml"]), 1).contains("/nowhere.toml: cannot be read"));
    let printed = run(&["print-config"]).stdout;
    let same = run(&["check-config", &folder.file("printed.toml", &text(&printed))]);
    assert_eq!(same.status.code(), Some(0));
}

#[test]
fn what_cannot_be_started_says_why_in_one_line() {
    let told = fails(&run(&["--mqtt", "nowhere"]), 1);
    assert!(told.contains("--mqtt: mqtt.listen: expected an IP address with a port"), "{told}");
    let told = fails(&run(&["--set", "mqtt.max_qso=1"]), 1);
    assert!(told.contains("did you mean mqtt.max_qos?"), "{told}");
    let told = fails(&run(&["start", "--shards", "999"]), 1);
    assert!(told.contains("--shards: broker.shards: expected a whole number from 0 to 64"), "{told}");
    let told = fails(&run(&["--shards", "-1"]), 1);
    assert!(told.contains("--shards: broker.shards: expected a whole number"), "{told}");
    let told = fails(&run(&["--io", "kqueue"]), 1);
    assert!(told.contains("one of \"auto\", \"uring\", \"epoll\", got \"kqueue\""), "{told}");
    let told = fails(&run(&["--set", "log.file=/dev/null/x.log"]), 1);
    assert!(told.contains("cannot write the log to /dev/null/x.log"), "{told}");
    let output = run_with(&["--mqtt", "127.0.0.1:0"], &[("RINGMQ_MQTT_MAX_QOS", "x")]);
    assert!(fails(&output, 1).contains("environment variable RINGMQ_MQTT_MAX_QOS: mqtt.max_qos: expected"));
}

#[test]
fn a_port_in_use_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it is bound").to_string();
    for (option, other) in [("--mqtt", "--http"), ("--http", "--mqtt")] {
        let output = run(&[option, &addr, other, "127.0.0.1:0", "--log", "error"]);
        let told = fails(&output, 1);
        assert!(told.contains(&format!("cannot listen on {addr}: the port is in use")), "{told}");
        assert!(told.contains(option), "{told}");
    }
}

#[test]
fn http_is_served_at_several_addresses_and_to_those_who_know_the_password() {
    let mut hashing = ringmq();
    let mut hashing =
        hashing.arg("hash-password").stdin(Stdio::piped()).spawn().expect("the binary was built");
    let mut input = hashing.stdin.take().expect("it is piped");
    input.write_all(b"secret\nmore\n").expect("it reads");
    drop(input);
    let printed = text(&hashing.wait_with_output().expect("it is ours").stdout);
    let hash = printed.trim_end();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let users = format!("http.users=ann:{hash}");
    let mut running = Running::start(&["--http", "0", "--http", "[::1]:0", "--set", &users]);
    assert!(running.http.ip().is_loopback(), "a port alone is one of this machine: {}", running.http);
    let ask = |credentials: &str| {
        let mut stream = TcpStream::connect(running.http).expect("HTTP is served");
        let head = format!(
            "GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{credentials}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    for _ in 0..2 {
        assert!(ask("authorization: Basic YW5uOnNlY3JldA==\r\n").starts_with("HTTP/1.1 200 "));
    }
    for wrong in
        ["", "authorization: Basic YWRtaW46cHVibGlj\r\n", "authorization: Basic YW5uOnB1YmxpYw==\r\n"]
    {
        assert!(ask(wrong).starts_with("HTTP/1.1 401 "), "{wrong}");
    }
    running.signal(15);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn http_that_others_reach_is_not_served_with_the_default_password() {
    let told = fails(&run(&["--mqtt", "127.0.0.1:0", "--http", "*:0"]), 1);
    assert!(
        told.contains("http.listen: [::]:0: other machines may reach it, and admin/public is known"),
        "{told}"
    );
    let told = fails(&run(&["--mqtt", "127.0.0.1:0", "--http", "0.0.0.0:0", "--set", "http.auth=none"]), 1);
    assert!(told.contains("http.auth: expected \"required\""), "{told}");
    let told = fails(&run(&["--mqtt", "127.0.0.1:0", "--http", "0", "--set", "http.users=ann:secret"]), 1);
    assert!(told.contains("http.users: expected NAME:HASH") && !told.contains("secret"), "{told}");
    let told = fails(
        &run(&["--mqtt", "127.0.0.1:0", "--http", "0", "--set", "http.jwt_public_key=/nowhere.pem"]),
        1,
    );
    assert!(told.contains("http.jwt_public_key: /nowhere.pem: cannot be read"), "{told}");
}

/// The program with a limit of the shell's, without the right to exceed it.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    clean(&mut command);
    let root = "[ $(id -u) != 0 ] || exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let script = format!("ulimit {limit}; {root}; exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_ringmq")]).env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn io_uring_that_has_too_little_memory_gives_way_to_epoll() {
    // Where the kernel counts what rings take, this is enough for the self-test and for no shard.
    let mut running = Running::start_as(limited("-l 64"), &["--shards", "2"]);
    assert!(health(running.http).starts_with("HTTP/1.1 200 OK\r\n"));
    running.signal(15);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn too_few_descriptors_for_the_shards_say_what_to_do() {
    let args = ["--mqtt", "127.0.0.1:0", "--http", "off", "--io", "uring", "--shards", "16"];
    let output = limited("-n 30").args(args).output().expect("a shell is installed");
    let told = fails(&output, 1);
    assert!(told.contains("for shard") && told.contains("ulimit -n"), "{told}");
}

#[test]
fn sigterm_and_sigint_drain_and_exit_with_0() {
    for number in [15, 2] {
        let mut running = Running::start(&[]);
        let answer = health(running.http);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(r#""status":"ok""#), "{answer}");
        drop(TcpStream::connect(running.mqtt).expect("MQTT is served"));
        running.signal(number);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining") && log.contains("drained"), "{log}");
    }
}

#[test]
fn sighup_rereads_what_can_be_reread() {
    let folder = Folder::new("reload");
    let file = folder.file("ringmq.toml", "[log]\nlevel = \"info\"\n");
    let mut running = Running::start(&["--config", &file]);
    folder.file("ringmq.toml", "[mqtt]\nmax_inflight = 7\n[broker]\nbacklog = 77\n");
    running.signal(1);
    running.wait_for("broker.backlog has changed and needs a restart");
    running.wait_for("SIGHUP: changed mqtt.max_inflight");
    folder.file("ringmq.toml", "[mqtt]\nmax_inflight = 0\n");
    running.signal(1);
    running.wait_for("ringmq.toml:2: mqtt.max_inflight: expected a whole number from 1 to 65535");
    folder.file("ringmq.toml", "[mqtt]\nmax_inflight = 7\n[log]\nlevel = \"debug\"\n");
    running.signal(1);
    running.wait_for("SIGHUP: changed log.level");
    // What is told at `debug` only, and was not before.
    let mut broken = TcpStream::connect(running.http).expect("HTTP is served");
    broken.write_all(b"nonsense\r\n\r\n").expect("it reads");
    running.wait_for("an HTTP connection failed");
    running.signal(15);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn the_log_goes_to_a_file_as_json() {
    let folder = Folder::new("log");
    let path = folder.0.join("out.log");
    let file = format!("log.file={}", path.display());
    let mut child = ringmq()
        .args(["--mqtt", "127.0.0.1:0", "--http", "off", "--set", "broker.pin=false", "--set", &file])
        .args(["--set", "log.format=json", "--set", "log.rotation=never"])
        .spawn()
        .expect("the binary was built for this test");
    let serving = || std::fs::read_to_string(&path).is_ok_and(|log| log.contains(" is serving"));
    while !serving() {
        assert_eq!(child.try_wait().expect("it is ours"), None, "it ended instead of serving");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill is installed").success());
    let output = child.wait_with_output().expect("it is ours");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let log = std::fs::read_to_string(&path).expect("the log is there");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect();
    let first = lines.iter().find(|line| line["mqtt"].is_string()).expect("the line about serving");
    assert_eq!((first["level"].as_str(), first["http"].as_str()), (Some("INFO"), Some("off")));
    assert!(lines.iter().any(|line| line["message"] == "drained"), "{log}");
}
