//! `ringmq tune` on recorded hosts: what it advises, and what it changes in a copied tree. Nothing here touches
//! the machine that the tests run on.
//!
//! A file of `tests/hosts` is a host: `path = text` on one line, or `== path`, lines, and `==`; `path -> target`
//! is a link. The values are made up; their form is that of the kernel.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where old values are recorded.
const RECORD: &str = "var/lib/ringmq/tune.json";

/// A host's tree, unpacked for one test and removed at its end.
struct Tree(PathBuf);

impl Tree {
    fn of(host: &str) -> Tree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("ringmq-tune-{}-{number}", std::process::id()));
        let file = format!("{}/tests/hosts/{host}.host", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let tree = Tree(root);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(path) = line.strip_prefix("== ") {
                let rows: Vec<&str> = lines.by_ref().take_while(|row| *row != "==").collect();
                tree.write(path, &rows.join("\n"));
            } else if let Some((path, target)) = line.split_once(" -> ") {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().expect("below the root")).expect("the folder is writable");
                std::os::unix::fs::symlink(target, path).expect("the folder is writable");
            } else if let Some((path, text)) = line.split_once(" =") {
                tree.write(path, text.trim_start());
            } else {
                assert!(line.starts_with('#'), "{file}: {line}");
            }
        }
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the folder is writable");
        fs::write(path, format!("{text}\n")).expect("the folder is writable");
    }

    /// Runs `ringmq tune` on it.
    fn tune(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.env_clear().arg("tune").args(args).arg("--root").arg(&self.0);
        command.output().expect("the binary was built for this test")
    }

    /// Each file with its words, or the word in brackets; without the record of changes.
    fn content(&self) -> BTreeMap<String, String> {
        let mut content = BTreeMap::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("it stays").path();
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).expect("UTF-8");
                let chosen =
                    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
                let is_value = !path.starts_with(self.0.join("etc"));
                let words: Vec<_> = chosen.filter(|_| is_value).unwrap_or(&text).split_whitespace().collect();
                let name = path.strip_prefix(&self.0).expect("below the root").to_string_lossy().into_owned();
                content.insert(name, words.join(" "));
            }
        }
        content.remove(RECORD);
        content
    }

    /// `check` for so many clients: the exit code and the JSON.
    fn check(&self, connections: u64) -> (i32, Value) {
        let output = self.tune(&["check", "--json", "--connections", &connections.to_string()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, "", "{told}");
        let json = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code().expect("it was not killed"), json)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn knob<'a>(json: &'a Value, name: &str) -> &'a Value {
    let knobs = json["knobs"].as_array().expect("a list");
    knobs.iter().find(|knob| knob["knob"] == name).unwrap_or_else(|| panic!("no knob {name}"))
}

/// A host, so many clients, and of some knobs: severity, now, wanted, a part of the note.
type Row =
    (&'static str, u64, &'static [(&'static str, &'static str, &'static str, &'static str, &'static str)]);

const ADVICE: &[Row] = &[
    (
        "small-vm",
        20_000,
        &[
            ("host", "green", "virtual machine", "any", ""),
            ("open files, hard limit", "green", "20000", ">= 17108", ""),
            ("broker.max_connections", "green", "0", "0", ""),
            ("fs.file-max", "green", "2466183", ">= 90536", ""),
            ("locked memory, limit", "green", "8388608", ">= 704512", ""),
            ("net.core.somaxconn", "green", "4096", ">= 1024", ""),
            ("net.core.netdev_max_backlog", "green", "1000", ">= 1000", ""),
            ("net.ipv4.tcp_mem", "green", "287901 383869 575802", "most: 560989 to 3085442", ""),
            ("net.ipv4.tcp_rmem", "green", "4096 131072 33554432", "first >= 16384, most <= 67108864", ""),
            ("net.netfilter.nf_conntrack_max", "green", "262144", ">= 90536", ""),
            ("interrupts of network cards", "green", "38:0-1 39:0-1", "on 1 cores or more", "2 of 2 cores"),
            ("RPS", "yellow", "eth0/rx-0=0", "3 on each queue", "1 queue(s) for 2 shards"),
            ("io_uring", "green", "-", "-", "this host only"),
        ],
    ),
    (
        "small-vm",
        1_000_000,
        &[
            ("open files, hard limit", "yellow", "20000", ">= 629608", "32 rings for each of 2 shards"),
            ("broker.max_connections", "red", "0", ">= 1258192", "places for 40000"),
            ("fs.nr_open", "green", "1048576", ">= 629608", ""),
            ("fs.file-max", "green", "2466183", ">= 1315536", ""),
            ("locked memory, limit", "green", "8388608", ">= 7053312", ""),
            ("memory", "green", "24105 MiB", ">= 5051 MiB", "12358 MiB when something flows"),
            ("net.core.somaxconn", "yellow", "4096", ">= 32768", ""),
            ("broker.backlog", "yellow", "4096", ">= 32768", ""),
            ("net.ipv4.tcp_mem", "yellow", "287901 383869 575802", "most: 2000000 to 3085442", "7.6 GiB"),
            (
                "net.ipv4.tcp_rmem",
                "yellow",
                "4096 131072 33554432",
                "first >= 16384, most <= 4194304",
                "stuck",
            ),
            ("net.ipv4.tcp_wmem", "green", "4096 16384 4194304", "first >= 16384, most <= 4194304", ""),
            ("net.ipv4.tcp_max_tw_buckets", "yellow", "131072", ">= 250000", ""),
            ("net.netfilter.nf_conntrack_max", "yellow", "262144", ">= 1315536", "tracks nothing now"),
        ],
    ),
    (
        "fresh-server",
        1_000_000,
        &[
            ("host", "green", "bare metal", "any", ""),
            ("open files, hard limit", "yellow", "4096", ">= 41099", "10 rings for each of 31 shards"),
            ("systemd LimitNOFILE", "green", "524288", ">= 41099", ""),
            ("systemd LimitMEMLOCK", "green", "64M", ">= 10919936", ""),
            ("locked memory, limit", "yellow", "8388608", ">= 39489536", ""),
            ("transparent huge pages", "yellow", "always", "madvise or never", ""),
            ("vm.swappiness", "yellow", "60", "<= 10, or no swap", "8191 MiB of swap"),
            ("net.ipv4.tcp_syncookies", "yellow", "0", "1", ""),
            ("net.ipv4.tcp_max_syn_backlog", "green", "4096", ">= 2048", ""),
            ("net.core.netdev_max_backlog", "yellow", "1000", ">= 16384", "992 packets were dropped"),
            (
                "net.ipv4.ip_local_port_range",
                "yellow",
                "1024 65535",
                "without the broker's ports",
                "reserve 1883,8081",
            ),
            ("net.netfilter.nf_conntrack_max", "red", "262144", ">= 1315536", "notrack"),
            (
                "interrupts of network cards",
                "yellow",
                "120:0 121:0 122:0 123:0 124:0 125:0 126:0 127:0",
                "on 4 cores or more",
                "8 interrupts on 1 of 32 cores",
            ),
            ("irqbalance", "yellow", "runs", "does not run", "systemctl disable"),
            ("frequency governor", "yellow", "powersave", "performance", ""),
            ("C-states", "yellow", "133 us to wake", "<= 50 us", "cpupower"),
            ("SMT", "yellow", "1", "no siblings among the shards", "0-14,16-30"),
            ("NUMA nodes of the shards", "yellow", "2", "1", "numactl"),
            ("shards", "green", "31", "<= 32", ""),
        ],
    ),
    (
        "tuned-server",
        1_000_000,
        &[
            ("open files, hard limit", "green", "1048576", ">= 84392", ""),
            ("systemd LimitNOFILE", "green", "1048576", ">= 84392", ""),
            ("net.core.somaxconn", "green", "32768", ">= 8192", ""),
            ("net.ipv4.ip_local_port_range", "green", "1024 65535", "without the broker's ports", ""),
            ("net.netfilter.nf_conntrack_max", "green", "-", "-", "not tracked"),
            ("net.ipv4.tcp_tw_recycle", "green", "-", "-", "gone since"),
            (
                "RPS",
                "green",
                "eth2/rx-0=0 eth2/rx-1=0 eth2/rx-2=0 eth2/rx-3=0 eth2/rx-4=0 eth2/rx-5=0 eth2/rx-6=0 eth2/rx-7=0 eth2/rx-8=0 eth2/rx-9=0 eth2/rx-10=0 eth2/rx-11=0 eth2/rx-12=0 eth2/rx-13=0 eth2/rx-14=0 eth2/rx-15=0",
                "any",
                "a queue for each shard",
            ),
            ("C-states", "green", "0 us to wake", "<= 50 us", ""),
            ("frequency governor", "green", "performance", "performance", ""),
        ],
    ),
    (
        "container",
        100_000,
        &[
            ("host", "green", "container (Docker)", "any", "the machine around it"),
            ("kernel.io_uring_disabled", "yellow", "2", "0", ""),
            ("seccomp", "yellow", "2", "0, or io_uring works", "seccomp.json"),
            ("open files, hard limit", "green", "1048576", ">= 110512", ""),
            ("locked memory, limit", "green", "65536", ">= 0", ""),
            ("memory", "red", "512 MiB", ">= 569 MiB", ""),
            ("control group: memory", "red", "512 MiB", ">= 569 MiB", "MemoryMax"),
            ("control group: CPU", "yellow", "2.500 cores", ">= 7 cores", "quota"),
            ("net.core.netdev_max_backlog", "green", "-", "-", "network namespace"),
            ("net.ipv4.tcp_mem", "green", "-", "-", "network namespace"),
        ],
    ),
    (
        "old-manual",
        1_000_000,
        &[
            ("kernel", "yellow", "4.9.0-8-amd64", ">= 6.1", "epoll"),
            ("open files, hard limit", "yellow", "1048576", ">= 1100512", "about 1048320 clients"),
            ("fs.nr_open", "green", "2097152", ">= 1100512", ""),
            ("fs.file-max", "red", "1048576", ">= 1315536", ""),
            (
                "net.ipv4.tcp_mem",
                "red",
                "16777216 16777216 16777216",
                "most: 2000000 to 4096000",
                "64 GiB of 31 GiB",
            ),
            (
                "net.ipv4.tcp_rmem",
                "yellow",
                "1024 4096 16777216",
                "first >= 16384, most <= 4194304",
                "first size",
            ),
            ("net.ipv4.tcp_tw_recycle", "red", "1", "0", ""),
            ("net.ipv4.tcp_tw_reuse", "green", "1", "any", ""),
            ("net.core.rmem_max", "green", "16777216", "any", ""),
            (
                "net.ipv4.ip_local_port_range",
                "yellow",
                "1000 65535",
                "without the broker's ports",
                "1883,8081",
            ),
            ("net.netfilter.nf_conntrack_max", "red", "1000000", ">= 1315536", "812 are tracked"),
            ("clock source", "red", "hpet", "tsc, kvm-clock, arch_sys_counter", ""),
        ],
    ),
];

#[test]
fn each_recorded_host_gets_its_advice() {
    let mut faults = Vec::new();
    for (host, connections, rows) in ADVICE {
        let (_, json) = Tree::of(host).check(*connections);
        for (name, severity, now, wanted, note) in *rows {
            let found = knob(&json, name);
            let same = found["severity"] == *severity && found["now"] == *now && found["wanted"] == *wanted;
            let noted = found["note"].as_str().expect("a text").contains(note);
            if !same || !noted {
                faults.push(format!(
                    "{host}, {connections}: expected {severity} {now:?} {wanted:?} {note:?}, got {found:#}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_exit_code_is_the_worst_severity() {
    for (host, connections, code) in [
        ("tuned-server", 300_000, 0),
        ("small-vm", 20_000, 1),
        ("small-vm", 1_000_000, 2),
        ("old-manual", 20_000, 2),
    ] {
        let (exited, json) = Tree::of(host).check(connections);
        let severity = ["green", "yellow", "red"][code];
        assert_eq!(
            (exited, json["severity"].as_str()),
            (code as i32, Some(severity)),
            "{host} {connections}"
        );
    }
    let nowhere = Tree::of("container");
    fs::remove_dir_all(nowhere.0.join("proc/sys/net")).expect("it is there");
    let output = nowhere.tune(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("expected a host or a copied tree"), "{told}");
}

#[test]
fn what_is_asked_for_decides_what_is_wanted() {
    let tree = Tree::of("small-vm");
    let file = tree.0.join("ringmq.toml");
    fs::write(&file, "[broker]\nmax_connections = 50000\nio = \"epoll\"\nbacklog = 99\n").expect("writable");
    let file = file.to_string_lossy().into_owned();
    let check = |args: &[&str]| -> Value {
        let output = tree.tune(&[&["check", "--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let json = check(&["--config", &file]);
    assert_eq!((json["connections"].as_u64(), json["io"].as_str()), (Some(50_000), Some("epoll")));
    // With epoll each client is an open file of the process.
    assert_eq!(knob(&json, "open files, hard limit")["severity"], "red");
    assert_eq!(knob(&json, "broker.backlog")["now"], "99");
    let json = check(&["--connections", "1000000", "--memory", "4G", "--cores", "8", "--shards", "4"]);
    assert_eq!((json["shards"].as_u64(), json["memory_bytes"].as_u64()), (Some(4), Some(4 << 30)));
    assert_eq!(json["cores"].as_array().map(Vec::len), Some(8));
    assert_eq!(knob(&json, "memory")["severity"], "red");
    assert_eq!(knob(&json, "open files, hard limit")["wanted"], ">= 315060");
}

#[test]
fn the_table_is_for_people() {
    let tree = Tree::of("small-vm");
    let text = |args: &[&str]| String::from_utf8_lossy(&tree.tune(args).stdout).into_owned();
    let short = text(&["check", "--connections", "1000000"]);
    for part in [
        "1000000 connections, 2 shard(s), 2 core(s), 24105 MiB, io_uring",
        "red     broker.max_connections",
        "in the broker's configuration: broker.max_connections = 1258192",
        "yellow  net.core.somaxconn                4096",
        "green   fs.file-max",
    ] {
        assert!(short.contains(part), "{part}: {short}");
    }
    let reason = "each connection is an open file of the machine";
    assert!(!short.contains(reason) && text(&["check", "--why"]).contains(reason));
}

const MILLION: &[&str] = &["--connections", "1000000"];

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn apply_makes_green_what_it_can_and_revert_restores_everything() {
    for host in ["small-vm", "fresh-server", "container", "old-manual"] {
        let tree = Tree::of(host);
        let before = tree.content();
        let output = tree.tune(&[&["apply"], MILLION].concat());
        assert_eq!(output.status.code(), Some(0), "{host}: {}", told(&output));
        let (_, json) = tree.check(1_000_000);
        for found in json["knobs"].as_array().expect("a list") {
            let set = found["set"].as_array().expect("a list");
            // A limit holds for processes that start later, a key of the configuration is set by hand.
            let open = set.iter().filter(|set| set["sysctl"].is_string() || set["file"].is_string());
            assert_eq!(open.count(), 0, "{host}: {found:#}");
        }
        let after = tree.content();
        assert_ne!(before, after, "{host}");
        // Where io_uring was off, its needs show only now.
        tree.tune(&[&["apply"], MILLION].concat());
        let again = tree.tune(&[&["apply"], MILLION].concat());
        assert!(told(&again).contains("there is nothing to change"), "{host}: {}", told(&again));
        let output = tree.tune(&["revert"]);
        assert_eq!(output.status.code(), Some(0), "{host}: {}", told(&output));
        assert_eq!(tree.content(), before, "{host}");
        assert!(!tree.0.join(RECORD).exists());
        assert!(told(&tree.tune(&["revert"])).contains("nothing to revert"));
    }
}

#[test]
fn drop_in_files_say_what_was_set() {
    let tree = Tree::of("fresh-server");
    tree.tune(&["apply", "--connections", "8000000"]);
    let content = tree.content();
    let sysctl = &content["etc/sysctl.d/99-ringmq.conf"];
    for line in
        ["net.ipv4.tcp_syncookies = 1", "net.ipv4.ip_local_reserved_ports = 1883,8081", "4096 before."]
    {
        assert!(sysctl.contains(line), "{line}: {sysctl}");
    }
    let boot = &content["etc/tmpfiles.d/99-ringmq.conf"];
    assert!(boot.contains("w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise"), "{boot}");
    assert!(!boot.contains("/proc/irq/"), "{boot}");
    assert!(content["etc/security/limits.d/99-ringmq.conf"].contains("ringmq - nofile 323357"));
    // A unit that allows enough is left as it is.
    assert!(!content.contains_key("etc/systemd/system/ringmq.service.d/99-tune.conf"));
    tree.write("usr/lib/systemd/system/ringmq.service", "[Service]\nLimitNOFILE=1024");
    tree.tune(&[&["apply"], MILLION].concat());
    let unit = tree.content()["etc/systemd/system/ringmq.service.d/99-tune.conf"].clone();
    assert!(unit.ends_with("[Service] LimitNOFILE=41099"), "{unit}");
}

#[test]
fn the_script_does_what_apply_does() {
    for (host, more) in
        [("fresh-server", &[][..]), ("small-vm", &[][..]), ("old-manual", &["--no-files", "--only", "net."])]
    {
        let (scripted, applied) = (Tree::of(host), Tree::of(host));
        let before = scripted.content();
        let script = scripted.tune(&[&["script"], MILLION, more].concat());
        assert_eq!(scripted.content(), before, "printing it changes nothing");
        let file = scripted.0.with_extension("sh");
        fs::write(&file, &script.stdout).expect("the folder is writable");
        let ran = Command::new("/bin/sh").arg(&file).env("ROOT", &scripted.0).output().expect("a shell");
        let _ = fs::remove_file(&file);
        assert_eq!((ran.status.code(), told(&ran).as_str()), (Some(0), ""), "{}", told(&script));
        applied.tune(&[&["apply"], MILLION, more].concat());
        assert_eq!(scripted.content(), applied.content(), "{host}");
        let etc = applied.0.join("etc/sysctl.d");
        assert_eq!(etc.exists(), more.is_empty(), "{host}");
    }
}

#[test]
fn only_what_is_named_is_changed() {
    let tree = Tree::of("fresh-server");
    let before = tree.content();
    tree.tune(&["apply", "--connections", "1000000", "--no-files", "--only", "net.core.", "--only", "vm."]);
    let after = tree.content();
    let changed: Vec<_> = after.iter().filter(|(path, text)| before.get(*path) != Some(text)).collect();
    let names: Vec<_> = changed.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["proc/sys/net/core/netdev_max_backlog", "proc/sys/vm/swappiness"]);
}

#[test]
fn revert_leaves_alone_what_somebody_else_changed() {
    let tree = Tree::of("small-vm");
    let before = tree.content();
    let record = tree.0.with_extension("json");
    let record_arg = record.to_string_lossy().into_owned();
    tree.tune(&[&["apply", "--record", &record_arg], MILLION].concat());
    tree.write("proc/sys/net/core/somaxconn", "50000");
    let output = tree.tune(&["revert", "--record", &record_arg]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("/proc/sys/net/core/somaxconn: is 50000 by now"), "{}", told(&output));
    assert_eq!(tree.content()["proc/sys/net/core/somaxconn"], "50000");
    let output = tree.tune(&["revert", "--force", "--record", &record_arg]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(tree.content(), before);
    assert!(!record.exists());
}

#[test]
fn without_the_right_it_says_so_and_goes_on() {
    let tree = Tree::of("small-vm");
    let locked = tree.0.join("proc/sys/net/core/somaxconn");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o444)).expect("it is ours");
    // Root without capabilities is bound by permissions as everybody is.
    let script = "[ $(id -u) != 0 ] || exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"; exec \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ringmq"), "tune", "apply", "--root"]).arg(&tree.0);
    let output = command.args(MILLION).output().expect("a shell");
    let lines = told(&output);
    assert_eq!(output.status.code(), Some(1), "{lines}");
    assert!(lines.contains("/proc/sys/net/core/somaxconn: not changed: Permission denied"), "{lines}");
    assert!(lines.contains("/proc/sys/net/ipv4/tcp_fin_timeout: 60 -> 30"), "{lines}");
    let record = fs::read_to_string(tree.0.join(RECORD)).expect("it is written");
    assert!(record.contains("tcp_fin_timeout") && !record.contains("somaxconn\""), "{record}");
}

#[test]
fn a_record_that_is_none_stops_everything() {
    let tree = Tree::of("small-vm");
    let before = tree.content();
    for text in ["", "{}", "{\"changes\": [{\"path\": 7}]}", "not JSON"] {
        tree.write(RECORD, text);
        for args in [&["revert"][..], &["apply"][..]] {
            let output = tree.tune(args);
            assert_eq!(output.status.code(), Some(3), "{text}: {}", told(&output));
            assert!(told(&output).contains("it is needed to change or revert"), "{}", told(&output));
        }
        assert_eq!(tree.content(), before);
    }
}

/// Runs a script of `tuning` and returns what it said.
fn script(name: &str, args: &[&str], root: &Tree) -> Output {
    let path = format!("{}/tuning/{name}", env!("CARGO_MANIFEST_DIR"));
    Command::new("/bin/sh").arg(path).args(args).env("SYS", &root.0).output().expect("a shell")
}

#[test]
fn irq_sh_spreads_the_interrupts_of_a_card() {
    let tree = Tree::of("fresh-server");
    let output = script("irq.sh", &["ens1f0", "0-2,8"], &tree);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let content = tree.content();
    let core = |number: u32| content[&format!("proc/irq/{number}/smp_affinity_list")].clone();
    assert_eq!((120..128).map(core).collect::<Vec<_>>(), ["0", "1", "2", "8", "0", "1", "2", "8"]);
    let shown = told(&script("irq.sh", &["--show", "ens1f0"], &tree));
    assert!(shown.contains("123 on cores 8: 1043"), "{shown}");
    // By the device of a card that the table of interrupts does not name.
    let tree = Tree::of("small-vm");
    let output = script("irq.sh", &["eth0"], &tree);
    assert_eq!(told(&output), "38 -> core 0\n39 -> core 1\n");
    let output = script("irq.sh", &["eth7"], &tree);
    assert_eq!((output.status.code(), told(&output).contains("no interrupts of eth7")), (Some(1), true));
}

#[test]
fn the_example_of_sysctl_d_is_what_check_asks_for() {
    let tree = Tree::of("small-vm");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/sysctl.d/99-ringmq.conf");
    let text = fs::read_to_string(path).expect("it is there");
    let lines = text.lines().map(|line| line.trim_start_matches('#'));
    for (name, value) in
        lines.filter_map(|line| line.split_once(" = ")).filter(|(name, _)| !name.contains(' '))
    {
        tree.write(&format!("proc/sys/{}", name.replace('.', "/")), value);
    }
    let (_, json) = tree.check(1_000_000);
    for found in json["knobs"].as_array().expect("a list") {
        let open = found["set"].as_array().expect("a list").iter().any(|set| set["sysctl"].is_string());
        assert!(!open, "{found:#}");
    }
}
