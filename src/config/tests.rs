use super::*;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(Path::new("x.toml"), text).map_err(|faults| faults.iter().map(Fault::to_string).collect())
}

fn sources(environment: &[(&str, &str)], arguments: &[(&str, &str, &str)]) -> Sources {
    let owned = |s: &str| s.to_owned();
    Sources {
        file: None,
        kept: false,
        environment: environment.iter().map(|(a, b)| (owned(a), owned(b))).collect(),
        arguments: arguments.iter().map(|(a, b, c)| (owned(a), owned(b), owned(c))).collect(),
    }
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = Config::load(&Sources::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.broker.listen, ["[::]:1883".parse().unwrap()]);
    assert_eq!(loaded.config.http.listen, ["127.0.0.1:8081".parse().unwrap()]);
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn later_sources_win() {
    let path = std::env::temp_dir().join(format!("ringmq-config-{}.toml", std::process::id()));
    std::fs::write(&path, "[mqtt]\nmax_inflight = 1\nmax_mqueue = 1\nmax_awaiting_rel = 1\n").unwrap();
    let environment = [("RINGMQ_MQTT_MAX_INFLIGHT", "2"), ("RINGMQ_MQTT_MAX_MQUEUE", "2"), ("OTHER", "2")];
    let mut all = sources(&environment, &[("--set", "mqtt.max_inflight", "3")]);
    all.file = Some(path.clone());
    let mqtt = Config::load(&all).unwrap().config.mqtt;
    std::fs::remove_file(path).unwrap();
    assert_eq!((mqtt.max_inflight, mqtt.max_mqueue, mqtt.max_awaiting_rel), (3, 2, 1));
}

#[test]
fn every_key_can_be_set_by_environment_and_argument() {
    for key in KEYS {
        let default = (key.get)(&Config::default());
        let text = match &default {
            Value::List(items) => items.join(if matches!(key.kind, Kind::Texts(_)) { " " } else { "," }),
            Value::Text(text) => text.clone(),
            other => other.to_string(),
        };
        let read = Config::load(&sources(&[(&key.variable(), &text)], &[("--set", key.name, &text)]));
        assert_eq!(read.unwrap().config, Config::default(), "{}", key.name);
        let bad = match key.kind {
            Kind::Path => "/",
            Kind::Text { .. } => "a\tb",
            Kind::Texts(_) => "a/b",
            _ => "no such value",
        };
        let faults =
            Config::load(&sources(&[(&key.variable(), bad)], &[("--set", key.name, bad)])).unwrap_err();
        let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(&format!(
            "environment variable {}: {}: expected",
            key.variable(),
            key.name
        )));
        assert!(lines[1].starts_with(&format!("--set: {}: expected", key.name)), "{lines:?}");
    }
}

#[test]
fn all_faults_of_a_file_are_told_with_their_lines() {
    let text = "\
[mqtt]
max_infligth = 5
max_qos = 3
queue_full = \"drop\"

[broker]
pin = 1
shards = -1

[tls]
cert = \"x\"
";
    let lines = parse(text).unwrap_err();
    assert_eq!(
        lines,
        [
            "x.toml:2: mqtt.max_infligth: unknown key; did you mean mqtt.max_inflight?",
            "x.toml:3: mqtt.max_qos: expected a whole number from 0 to 2 (QoS), got 3",
            "x.toml:4: mqtt.queue_full: expected one of \"drop_oldest\", \"reject\", \"disconnect\", got \"drop\"",
            "x.toml:7: broker.pin: expected true or false, got 1",
            "x.toml:8: broker.shards: expected a whole number from 0 to 64 (shards), got -1",
            "x.toml:11: tls.cert: unknown key; `ringmq --help` lists those that there are",
        ]
    );
}

#[test]
fn a_bad_address_is_told_with_its_line() {
    let lines = parse("[mqtt]\nlisten = [\"1883\",\n  \"nowhere:1883\"]\n").unwrap_err();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("x.toml:2: mqtt.listen: expected an IP address with a port"), "{lines:?}");
    assert!(lines[0].ends_with("got \"nowhere:1883\""), "{lines:?}");
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let lines = parse("[mqtt]\nmax_inflight = 5\nmax_mqueue 6\n").unwrap_err();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("x.toml:3: "), "{lines:?}");
    let lines = parse("[mqtt]\nmax_inflight = 5\nmax_inflight = 6\n").unwrap_err();
    assert!(lines[0].starts_with("x.toml:3: "), "{lines:?}");
}

#[test]
fn values_of_each_other_type_are_refused() {
    for value in ["1.5", "\"5\"", "true", "[1]", "1979-05-27", "{ a = 1 }", "99999999999999999999"] {
        let lines = parse(&format!("mqtt.max_inflight = {value}\n")).unwrap_err();
        assert_eq!(lines.len(), 1, "{value}: {lines:?}");
        assert!(lines[0].starts_with("x.toml:1: mqtt.max_inflight: expected a whole number"), "{lines:?}");
    }
    let lines = parse("max_inflight = 5\n[foo]\n[mqtt.max_inflight.x]\n[log]\n").unwrap_err();
    assert_eq!(lines[0], "x.toml:1: max_inflight: unknown key; did you mean mqtt.max_inflight?");
    assert!(lines[1].starts_with("x.toml:2: foo: unknown key"), "{lines:?}");
    assert!(lines[2].starts_with("x.toml:3: mqtt.max_inflight: expected a whole number"), "{lines:?}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn numbers_are_read_in_each_form_of_toml() {
    let config =
        parse("[mqtt]\nmax_inflight = 0x20\nmax_mqueue = 1_000\nmax_packet_size = 0b1000_0000\n").unwrap();
    assert_eq!(
        (config.mqtt.max_inflight, config.mqtt.max_mqueue, config.mqtt.max_packet_size),
        (32, 1000, 128)
    );
}

#[test]
fn listeners_have_tables_of_their_own() {
    let text =
        "[listeners.inside]\nbind = \"127.0.0.1:1884\"\nbacklog = 7\n[listeners.b-2]\nbind = \"1885\"\n";
    let config = parse(text).unwrap();
    let all = config.all_listeners();
    let shown = |all: &[Listener]| -> Vec<String> {
        let addr = |l: &Listener| l.bind.map(|addr| addr.to_string()).unwrap_or_default();
        all.iter().map(|l| format!("{} {} {}", l.name, addr(l), l.socket.backlog)).collect()
    };
    // Who names listeners gets these alone; a backlog that is not said is the broker's.
    assert_eq!(shown(&all), ["inside 127.0.0.1:1884 7", "b-2 [::]:1885 4096"]);
    let both = parse(&format!("mqtt.listen = [\"1\", \"2\"]\n{text}")).unwrap();
    let both = shown(&both.all_listeners());
    assert_eq!(both[..2], ["default [::]:1 4096", "default-2 [::]:2 4096"]);
    assert_eq!(both.len(), 4);
    let alone = shown(&Config::default().all_listeners());
    assert_eq!(alone, ["default [::]:1883 4096"]);
}

#[test]
fn listeners_can_be_set_by_environment_and_argument() {
    let environment =
        [("RINGMQ_LISTENERS_IN_SIDE_BIND", "1"), ("RINGMQ_LISTENERS_X_KEEPALIVE_INTERVAL_S", "9")];
    let arguments = [("--set", "listeners.x.bind", "2"), ("--set", "listeners.x.nodelay", "false")];
    let config = Config::load(&sources(&environment, &arguments)).unwrap().config;
    let all = config.all_listeners();
    assert_eq!(all.iter().map(|l| &*l.name).collect::<Vec<_>>(), ["in_side", "x"]);
    let x = &all[1].socket;
    assert_eq!((x.keepalive_interval_s, x.keepalive_s, x.nodelay), (9, 60, false));
}

#[test]
fn what_is_wrong_with_a_listener_is_told_with_its_line() {
    let text = "\
[listeners.a]
bind = \"nowhere\"
kind = \"udp\"
bakclog = 1
[listeners.\"b c\"]
bind = \"1\"
[listeners.c]
[listeners]
d = 1
";
    let lines = parse(text).unwrap_err();
    let starts = [
        "x.toml:9: listeners.d: unknown key",
        "x.toml:3: listeners.a.kind: expected one of \"tcp\", \"tls\", \"ws\", \"wss\", \"unix\", got \"udp\"",
        "x.toml:4: listeners.a.bakclog: unknown key; did you mean listeners.a.backlog?",
        "x.toml:6: listeners.b c.bind: expected a name of 1 to 64 letters, digits, `_` and `-` for it",
        "x.toml:7: listeners.c: expected keys, got none",
        "x.toml:2: listeners.a.bind: expected an IP address with a port",
    ];
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {lines:#?}");
    }
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    let together = [
        ("[listeners.a]\nbacklog = 1\n", "listeners.a.bind: expected an address with a port, got none"),
        (
            "mqtt.listen = \"1\"\nlisteners.a.bind = \"1\"\n",
            "listeners.a.bind: [::]:1 is the listener default's already",
        ),
        (
            "mqtt.listen = \"1\"\nlisteners.default.bind = \"2\"\n",
            "listeners.default: the name is one of mqtt.listen's; choose another",
        ),
        (
            "listeners.a.bind = \"127.0.0.1:8081\"\n",
            "http.listen: 127.0.0.1:8081 is in listeners.a.bind too; choose another port",
        ),
    ];
    for (text, line) in together {
        assert_eq!(parse(text).unwrap_err(), [line]);
    }
}

#[test]
fn a_reload_tells_of_listeners_that_need_a_restart() {
    let (a, b) = ("listeners.a.bind = \"1\"\n", "listeners.b.bind = \"2\"\n");
    let old = parse(&format!("{a}{b}")).unwrap();
    let new = parse(&format!("{a}listeners.a.backlog = 9\nlisteners.c.bind = \"2\"\n")).unwrap();
    let (next, changes) = old.reload(&new);
    assert_eq!(changes.restart, ["listeners.a.backlog", "listeners.c", "listeners.b"]);
    assert_eq!(next, old);
}

#[test]
fn a_zone_has_values_of_its_own_and_those_of_all_for_the_rest() {
    let text = "mqtt.max_inflight = 5\n[zones.small]\nmax_packet_size = 256\nmax_qos = 1\n\
                [listeners.a]\nbind = \"1\"\nzone = \"small\"\n[listeners.b]\nbind = \"2\"\n";
    let config = parse(text).unwrap();
    let all = config.all_listeners();
    let rules = config.rules_of(&all[0]).unwrap();
    assert_eq!((rules.max_packet_size, rules.max_qos, rules.max_inflight), (256, 1, 5));
    assert_eq!((rules.max_mqueue, config.mqtt.max_packet_size), (1000, 1 << 20));
    assert_eq!(config.rules_of(&all[1]), None);
    // In the environment and on the command line too.
    let set = |name: &'static str, text: &'static str| ("--set", name, text);
    let arguments = [set("listeners.a.bind", "1"), set("listeners.a.zone", "z"), set("zones.z.max_qos", "0")];
    let loaded =
        Config::load(&sources(&[("RINGMQ_ZONES_Z_MAX_MQUEUE_BYTES", "2000000")], &arguments)).unwrap();
    let rules = loaded.config.rules_of(&loaded.config.all_listeners()[0]).unwrap();
    assert_eq!((rules.max_qos, rules.max_mqueue_bytes), (0, 2_000_000));
    // What changes at a reload is used at once.
    let changed = parse(&text.replace("max_qos = 1", "max_qos = 0")).unwrap();
    let (next, changes) = config.reload(&changed);
    assert_eq!((changes.applied, changes.restart), (vec!["zones.small".to_owned()], vec![]));
    assert_eq!(next.rules_of(&all[0]).map(|rules| rules.max_qos), Some(0));
}

#[test]
fn what_is_wrong_with_a_zone_or_what_a_listener_says_of_others_is_told() {
    let cases = [
        (
            "zones.a.max_qos = 3\n",
            "x.toml:1: zones.a.max_qos: expected a whole number from 0 to 2 (QoS), got 3",
        ),
        (
            "zones.a.shared_strategy = \"local\"\n",
            "x.toml:1: zones.a.shared_strategy: a zone cannot have it; mqtt.shared_strategy holds for all",
        ),
        (
            "zones.a.max_infligth = 3\n",
            "x.toml:1: zones.a.max_infligth: unknown key; did you mean mqtt.max_inflight?",
        ),
        (
            "listeners.a = { bind = \"1\", zone = \"b\" }\n",
            "listeners.a.zone: expected the name of a zone, got \"b\"",
        ),
        (
            "zones.z.max_packet_size = 20_000_000\nlisteners.a = { bind = \"1\", zone = \"z\" }\n",
            "zones.z.max_mqueue_bytes: expected at least max_packet_size (20000000 bytes), got 16777216",
        ),
        (
            "listeners.a = { bind = \"1\", proxy_protocol = true }\n",
            "listeners.a.proxy_from: expected the networks or addresses of the proxies, got none",
        ),
        (
            "listeners.a = { bind = \"1\", kind = \"ws\", x_forwarded_for = true }\n",
            "listeners.a.proxy_from: expected the networks or addresses of the proxies, got none",
        ),
        (
            "listeners.a = { bind = \"1\", x_forwarded_for = true, proxy_from = [\"::1\"] }\n",
            "listeners.a.x_forwarded_for: expected kind = \"ws\" or \"wss\", for others have no headers",
        ),
        ("listeners.a.kind = \"unix\"\n", "listeners.a.socket: expected a path, got none"),
        (
            "listeners.a = { kind = \"unix\", socket = \"/run/a\", mode = \"999\" }\n",
            "listeners.a.mode: expected permissions such as \"660\", got \"999\"",
        ),
        (
            "listeners.a = { kind = \"unix\", socket = \"/run/a\", bind = \"1\" }\n",
            "listeners.a.bind: expected none: a listener of kind \"unix\" has a socket",
        ),
        (
            "listeners.a = { bind = \"1\", socket = \"/run/a\" }\n",
            "listeners.a.socket: expected none: only kind = \"unix\" has a socket",
        ),
        (
            "listeners.a = { kind = \"unix\", socket = \"/run/a\", deny = \"::1\" }\n",
            "listeners.a.deny: expected none: who comes through the file system has no address, see mode",
        ),
        (
            "listeners.a = { bind = \"1\", mountpoint = \"a/+/\" }\n",
            "listeners.a.mountpoint: expected the beginning of a topic of at most 1024 bytes without + and #, which does not begin with $, got \"a/+/\"",
        ),
        (
            "listeners.a = { bind = \"1\", allow = \"10.0.0.0/99\" }\n",
            "x.toml:1: listeners.a.allow: expected networks such as \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\", got \"10.0.0.0/99\"",
        ),
    ];
    for (text, line) in cases {
        assert_eq!(parse(text).unwrap_err(), [line]);
    }
}

#[test]
fn a_missing_file_is_a_fault() {
    let missing = Sources { file: Some("/nowhere/x.toml".into()), ..Sources::default() };
    let faults = Config::load(&missing).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().starts_with("/nowhere/x.toml: cannot be read: "), "{}", faults[0]);
}

#[test]
fn an_unknown_variable_is_noted_and_an_unknown_argument_refused() {
    let environment = [("RINGMQ_SERVICE_HOST", "10.0.0.1"), ("RINGMQ_MQTT_MAX_INFLIGTH", "5")];
    let loaded = Config::load(&sources(&environment, &[])).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.notes.len(), 2);
    assert!(loaded.notes[0].contains("RINGMQ_SERVICE_HOST is no key"));
    assert!(loaded.notes[1].ends_with("did you mean RINGMQ_MQTT_MAX_INFLIGHT?"), "{:?}", loaded.notes);
    let faults = Config::load(&sources(&[], &[("--set", "mqtt.max_qso", "1")])).unwrap_err();
    assert_eq!(faults[0].to_string(), "--set: mqtt.max_qso: unknown key; did you mean mqtt.max_qos?");
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    let off = parse("mqtt.listen = \"off\"\n").unwrap_err();
    assert_eq!(off, ["mqtt.listen: expected at least one address, got none, and no listener has a table"]);
    let lines = parse("http.listen = \"[::]:1883\"\n").unwrap_err();
    assert_eq!(lines[1], "http.listen: [::]:1883 is in mqtt.listen too; choose another port");
    let lines = parse("mqtt.max_packet_size = 20_000_000\n").unwrap_err();
    assert!(
        lines[0].starts_with("mqtt.max_mqueue_bytes: expected at least mqtt.max_packet_size"),
        "{lines:?}"
    );
    assert_eq!(parse("http.listen = \"off\"\n").map(|c| c.http.listen), Ok(vec![]));
}

#[test]
fn http_that_other_machines_reach_needs_credentials_of_its_own() {
    let open = "http.listen = [\"127.0.0.1:1\", \"[::]:2\"]\n";
    let lines = parse(open).unwrap_err();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("http.listen: [::]:2: other machines may reach it, and admin/public"),
        "{lines:?}"
    );
    let lines = parse(&format!("{open}http.auth = \"none\"\n")).unwrap_err();
    assert!(lines[0].starts_with("http.auth: expected \"required\": http.listen has [::]:2"), "{lines:?}");
    for own in [
        "bearer_tokens = \"0123456789abcdef\"",
        "jwt_secret = \"0123456789abcdef0123456789abcdef\"",
        "jwt_public_key = \"x\"",
    ] {
        assert!(parse(&format!("{open}http.{own}\n")).is_ok(), "{own}");
    }
    let local =
        parse("http.listen = [\"8081\", \"[::1]:1\", \"127.9.9.9:1\"]\nhttp.auth = \"none\"\n").unwrap();
    assert_eq!(local.http.listen[0], "127.0.0.1:8081".parse().unwrap());
    assert_eq!(
        parse("http.jwt_secret = \"short\"\n").unwrap_err(),
        ["http.jwt_secret: expected at least 32 bytes, got 5"]
    );
}

#[test]
fn a_reload_changes_what_is_live_and_names_the_rest() {
    let old = Config::default();
    let new = parse("mqtt.max_inflight = 64\nlog.level = \"debug\"\nbroker.shards = 3\n").unwrap();
    let (next, changes) = old.reload(&new);
    assert_eq!(changes.applied, ["mqtt.max_inflight", "log.level"]);
    assert_eq!(changes.restart, ["broker.shards"]);
    assert_eq!((next.mqtt.max_inflight, next.broker.shards), (64, 0));
    assert_eq!(next.log.level, crate::log::Level::Debug);
    // The same file again: what is live is settled, the rest is told again.
    assert_eq!(next.reload(&new).1, Changes { applied: vec![], restart: vec!["broker.shards".to_owned()] });
    assert_eq!(old.reload(&old), (old.clone(), Changes::default()));
}

#[test]
fn why_an_address_cannot_be_used_says_what_to_do() {
    let line = |addr: &str, errno| {
        let error = std::io::Error::from_raw_os_error(errno);
        listen_fault(addr.parse().unwrap(), &error, "mqtt.listen", "--mqtt")
    };
    assert!(line("[::]:1883", 98).starts_with("cannot listen on [::]:1883: the port is in use; "));
    assert!(line("10.9.9.9:1883", 99).contains("does not have that address"));
    assert!(line("[::]:80", 13).contains("CAP_NET_BIND_SERVICE"));
    assert!(line("[::]:1883", 97).ends_with("use --mqtt 0.0.0.0:1883"));
    assert!(line("0.0.0.0:1883", 24).ends_with("choose another with --mqtt ADDR or mqtt.listen"));
}

#[test]
fn a_fault_is_one_line_whatever_was_written() {
    let faults = Config::load(&sources(&[], &[("--set", "mqtt.\nmax\r", "1")])).unwrap_err();
    let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
    assert!(lines[0].starts_with("--set: mqtt.\\nmax\\r: unknown key"), "{lines:?}");
}

#[test]
fn values_are_shown_as_toml() {
    for text in ["plain", "e\u{301}", "a\"b\\c'd", "\u{200b}", "日本"] {
        let shown = format!("mqtt.server_reference = {}\n", Value::Text(text.to_owned()));
        assert_eq!(parse(&shown).map(|config| config.mqtt.server_reference.to_string()), Ok(text.to_owned()));
    }
    let list = Value::List(vec!["[::1]:1".to_owned(), "127.0.0.1:2".to_owned()]);
    assert_eq!(list.to_string(), r#"["[::1]:1", "127.0.0.1:2"]"#);
}
