use super::*;
use serde_json::json;

fn object(value: Json) -> Map<String, Json> {
    value.as_object().cloned().unwrap()
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("ringmq-hot-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_documented_names_are_read_and_set_in_their_units() {
    let wanted = object(json!({
        "property_size": 64, "max_packet_size": 3, "client_max_packet_size": 5, "msq_len": 2048, "qos_duration": 10,
        "keepalive_backoff": 1250, "allow_anonymous": false
    }));
    let (next, assigned) = Config::default().changed(&wanted).unwrap();
    assert_eq!(next.documented(), wanted);
    assert_eq!((next.mqtt.max_packet_size, next.mqtt.client_max_packet_size), (3072, 5120));
    assert_eq!((next.mqtt.max_properties, next.mqtt.allow_anonymous), (64, false));
    assert_eq!(assigned.len(), DOCUMENTED.len());
}

#[test]
fn what_was_read_can_be_written_back_and_changes_nothing() {
    let mut config = Config::default();
    config.mqtt.max_packet_size = 5_000;
    let (next, assigned) = config.changed(&config.documented()).unwrap();
    assert_eq!(next.mqtt, config.mqtt);
    assert_eq!(assigned.len(), DOCUMENTED.len(), "all of them can be kept");
    let next = config.changed(&object(json!({"max_packet_size": 4}))).unwrap().0;
    assert_eq!(next.mqtt.max_packet_size, 4_096);
}

#[test]
fn one_bad_value_changes_nothing_and_is_named() {
    let told = |value| Config::default().changed(&object(value)).unwrap_err();
    assert_eq!(
        told(json!({"msq_len": 5, "keepalive_backoff": 1})),
        "keepalive_backoff: expected a whole number from 1000 to 10000 (thousandths), got 1"
    );
    assert!(told(json!({"msq_len": "5"})).starts_with("msq_len: expected a whole number"));
    assert!(told(json!({"msq_len": -1})).ends_with("got -1"));
    assert!(told(json!({"msq_len": 1.5})).ends_with("got 1.5"));
    assert!(told(json!({"max_packet_size": u64::MAX})).starts_with("max_packet_size: expected"));
    assert_eq!(
        told(json!({"mqtt.max_infligth": 1})),
        "mqtt.max_infligth: unknown key; did you mean mqtt.max_inflight?"
    );
    assert!(told(json!({"broker.shards": 2})).starts_with("broker.shards: cannot be changed while"));
    assert_eq!(told(json!({"msq_len": 5, "mqtt.max_mqueue": 6})), "mqtt.max_mqueue is there twice");
    assert!(
        told(json!({"max_packet_size": 1 << 17})).starts_with("mqtt.max_mqueue_bytes: expected at least")
    );
}

#[test]
fn any_live_key_is_set_by_its_own_name() {
    let wanted = json!({"mqtt.queue_full": "reject", "mqtt.max_inflight": 7.0, "log.level": "warn"});
    let next = Config::default().changed(&object(wanted)).unwrap().0;
    assert_eq!(next.mqtt.max_inflight, 7);
    assert_eq!(next.shown()["mqtt.queue_full"], "reject");
    assert_eq!(next.shown()["log.level"], "warn");
}

#[test]
fn secrets_are_covered() {
    let text =
        "http.bearer_tokens = \"0123456789abcdef\"\nhttp.jwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
    let shown = Config::parse(Path::new("x"), text).unwrap().shown();
    assert_eq!(
        (&shown["http.bearer_tokens"], &shown["http.jwt_secret"]),
        (&json!("******"), &json!("******"))
    );
    assert_eq!(shown["http.users"], json!([]));
    for name in SECRETS {
        assert!(Key::find(name).is_some(), "{name}");
    }
}

#[test]
fn what_is_kept_is_read_at_the_next_start_above_the_file_and_below_the_rest() {
    let folder = Folder::new("kept");
    let mut sources = Sources {
        kept: true,
        arguments: vec![("--data-dir".into(), "broker.data_dir".into(), folder.0.display().to_string())],
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap().config;
    let file = config.kept_file(&sources);
    assert!(!folder.0.exists(), "nothing was kept yet");
    for wanted in [json!({"msq_len": 5}), json!({"msq_len": 6, "mqtt.server_reference": "a \"b\""})] {
        keep(&file, &config.changed(&object(wanted)).unwrap().1).unwrap();
    }
    let read = |sources: &Sources| {
        let mqtt = Config::load(sources).unwrap().config.mqtt;
        (mqtt.max_mqueue, mqtt.server_reference.to_string())
    };
    assert_eq!(read(&sources), (6, "a \"b\"".into()));
    let user = folder.0.join("user.toml");
    fs::write(&user, "mqtt.max_mqueue = 9\n").unwrap();
    sources.file = Some(user);
    assert_eq!(read(&sources).0, 6);
    sources.environment.push(("RINGMQ_MQTT_MAX_MQUEUE".into(), "7".into()));
    assert_eq!(read(&sources).0, 7);
    let (_, assigned) = config.changed(&object(json!({"msq_len": 8}))).unwrap();
    let told = sources.may_keep(&assigned).unwrap_err();
    assert_eq!(told, "mqtt.max_mqueue: cannot be kept: RINGMQ_MQTT_MAX_MQUEUE sets it at each start");
    fs::write(&file, "mqtt.max_mqueue = 0\n").unwrap();
    let faults = Config::load(&sources).unwrap_err();
    assert!(faults[0].to_string().contains("settings.toml:1: mqtt.max_mqueue: expected"), "{faults:?}");
    sources.kept = false;
    assert_eq!(read(&sources).0, 7);
}

#[test]
fn the_data_folder_is_where_the_system_says() {
    let folder = |variables: &[(&str, &str)], option: Option<&str>| {
        let environment = variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let mut config = Config::default();
        config.broker.data_dir = option.map(PathBuf::from);
        config.data_dir(&Sources { environment, ..Sources::default() }).display().to_string()
    };
    let both = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/home/x")];
    assert_eq!(folder(&both, Some("/d")), "/d");
    assert_eq!(folder(&both, None), "/var/lib/a");
    assert_eq!(folder(&both[1..], None), "/home/x/ringmq");
    assert_eq!(folder(&[("STATE_DIRECTORY", "")], None), "ringmq-data");
}
