//! A back-end over HTTP that says what clients may do: asked where no rule applies, remembered, slow, and not there.

use crate::backend::{Asked, Backend, Reply, say};
use crate::common::{Broker, DRIVERS, Ground, Http, Login, Peer, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use crate::http::until_logged;
use crate::passwords::{code, said};
use ringmq::codec::{AckKind, Filters, Packet, Properties, ReasonCode, Subscribe, SubscribeOptions, Version};
use ringmq::message::QoS;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Allows what begins with `open`, or with `own/` and the client identifier; to publish alone what begins with `pub`.
fn allows(asked: &Asked) -> Reply {
    let topic = asked.field("topic");
    let own = topic.strip_prefix("own/").is_some_and(|rest| rest == asked.field("clientid"));
    match asked.field("access") {
        _ if topic.starts_with("open") || own => say(200),
        "2" if topic.starts_with("pub") => Reply::Say(200, r#"{"result": "allow"}"#.into()),
        _ if topic.starts_with("silent") => Reply::Say(200, "ignore".into()),
        _ if topic.starts_with("broken") => say(500),
        _ if topic.starts_with("busy") => say(429),
        _ => say(403),
    }
}

/// What is answered to a PUBLISH of QoS 1 or 2, whose exchange is completed.
fn publish(peer: &mut Peer, topic: &str, qos: QoS) -> ReasonCode {
    let id = peer.send_publish(topic, b"x", qos, false);
    let received = peer.next();
    let Packet::Ack(ack) = received.packet() else { panic!("an acknowledgement, got {received:?}") };
    assert_eq!(Some(ack.packet_id), id);
    if ack.kind == AckKind::PubRec && !ack.code.is_error() {
        peer.ack(AckKind::PubRel, ack.packet_id);
        peer.expect_ack(AckKind::PubComp, ack.packet_id);
    }
    ack.code
}

/// The codes of the SUBACK for these filters.
fn subscribe_all(peer: &mut Peer, filters: &[&str]) -> Vec<u8> {
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let filters: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
    let (packet_id, properties) = (peer.packet_id(), Properties::EMPTY);
    let filters = Filters::new(&filters);
    peer.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
    let received = peer.next();
    let Packet::SubAck(suback) = received.packet() else { panic!("SUBACK, got {received:?}") };
    assert_eq!(suback.packet_id, packet_id);
    suback.codes.to_vec()
}

/// What stands in a SUBACK for a reason code of 5.0.
fn in_suback(version: Version, code: ReasonCode) -> u8 {
    if version == Version::V5 { code.0 } else { code.0.min(0x80) }
}

/// What was asked, as access and topic.
fn questions(backend: &Backend) -> Vec<String> {
    backend.asked().iter().map(|a| format!("{} {}", a.field("access"), a.field("topic"))).collect()
}

#[test]
fn a_back_end_says_who_may_do_what() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl?all=1");
    everywhere(2, &[("auth.http_acl_url", &url)], |broker, version| {
        let denied = in_suback(version, ReasonCode::NOT_AUTHORIZED);
        let no_answer = in_suback(version, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
        let name = named("all", version);
        backend.asked();
        let mut all = Peer::connect(broker, version, &name);
        let own = format!("own/{name}");
        for (filter, granted) in [
            ("open/#", 1),
            ("pub/#", denied),
            (&*own, 1),
            ("own/other", denied),
            ("$share/g/open/x", 1),
            ("silent", denied),
            ("busy", no_answer),
            ("broken", no_answer),
        ] {
            assert_eq!(all.subscribe(filter, QoS::AtLeastOnce), granted, "{filter}");
        }
        let asked = backend.asked();
        let fields = |n: usize| {
            ["all", "access", "username", "clientid", "ipaddr", "topic"].map(|f| asked[n].field(f).to_owned())
        };
        assert_eq!(fields(0), ["1", "1", "", &name, "127.0.0.1", "open/#"]);
        assert_eq!(asked[4].field("topic"), "open/x", "without the share name");
        assert_eq!((&*asked[0].method, &*asked[0].path), ("GET", "/acl"));
        // Publishing, at each QoS: what is denied reaches nobody.
        let login = Login::new(version, &named("from", version)).user("ann", "x");
        let (mut from, _) = Peer::login(broker, &login);
        let v5 = version == Version::V5;
        let told = |code| if v5 { code } else { ReasonCode::SUCCESS };
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for (topic, may) in [("pub/a", true), ("open/a", true), ("shut/a", false), ("silent", false)] {
                if qos == QoS::AtMostOnce {
                    from.send_publish(topic, b"x", qos, false);
                } else {
                    let code = publish(&mut from, topic, qos);
                    assert_eq!(code.is_error(), v5 && !may, "{topic} {code}");
                    assert!(may || code == told(ReasonCode::NOT_AUTHORIZED), "{topic} {code}");
                }
            }
        }
        assert_eq!(backend.asked()[0].field("username"), "ann");
        if v5 {
            assert_eq!(
                publish(&mut from, "busy", QoS::AtLeastOnce),
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            );
        }
        from.send_publish("broken", b"x", QoS::AtMostOnce, false);
        from.ping();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce] {
            let message = all.expect_message();
            assert_eq!((&*message.topic, message.qos), ("open/a", qos));
            if let Some(id) = message.packet_id {
                all.ack(AckKind::PubAck, id);
            }
        }
        all.ping();
        assert!(foreign::subscribe(broker, version, &named("foreign", version), None, "open/#"));
        assert!(!foreign::subscribe(broker, version, &named("foreign-2", version), None, "shut"));
    });
}

#[test]
fn rules_come_first_and_a_superuser_is_not_asked_about() {
    let backend = Backend::start(|asked| match (&*asked.path, asked.field("username")) {
        ("/auth", "root") => Reply::Say(200, r#"{"is_superuser": true}"#.into()),
        ("/auth", _) => say(200),
        _ => allows(asked),
    });
    let folder = Folder::new();
    let rules = "[[rule]]\nallow = \"all\"\ntopics = \"by/rule\"\n[[rule]]\ndeny = \"all\"\ntopics = \"open/not/#\"\n";
    let acl = folder.write("acl.toml", rules);
    let (auth, rights) = (backend.url("/auth"), backend.url("/acl"));
    let settings =
        [("auth.http_auth_url", &*auth), ("auth.http_acl_url", &*rights), ("auth.acl_file", &*acl)];
    everywhere(2, &settings, |broker, version| {
        let denied = in_suback(version, ReasonCode::NOT_AUTHORIZED);
        let login = |user: &str| Login::new(version, &named(user, version)).user(user, "x");
        let (mut ann, _) = Peer::login(broker, &login("ann"));
        backend.asked();
        let codes = subscribe_all(&mut ann, &["by/rule", "open/not/a", "open/a", "else"]);
        assert_eq!(codes, [1, denied, 1, denied]);
        let mut asked = questions(&backend);
        asked.sort_unstable();
        assert_eq!(asked, ["1 else", "1 open/a"]);
        let (mut root, _) = Peer::login(broker, &login("root"));
        backend.asked();
        assert_eq!(subscribe_all(&mut root, &["open/not/a", "else"]), [1, 1]);
        assert_eq!(questions(&backend), <[&str; 0]>::default());
    });
}

/// More filters than are asked about at once, some of them twice.
#[test]
fn a_subscribe_is_answered_once_all_its_filters_are() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl");
    for hold in ["60", "0"] {
        everywhere(2, &[("auth.http_acl_url", &url), ("auth.acl_cache_s", hold)], |broker, version| {
            let denied = in_suback(version, ReasonCode::NOT_AUTHORIZED);
            let mut peer = Peer::connect(broker, version, &named("many", version));
            let texts: Vec<String> = (0..50)
                .map(|n| match n % 5 {
                    0 => format!("shut/{n}"),
                    1 => "open/same".to_owned(),
                    _ => format!("open/{n}"),
                })
                .collect();
            let filters: Vec<&str> = texts.iter().map(String::as_str).collect();
            let codes = subscribe_all(&mut peer, &filters);
            let expected: Vec<u8> = (0..50).map(|n| if n % 5 == 0 { denied } else { 1 }).collect();
            assert_eq!(codes, expected);
            let asked = questions(&backend);
            for text in &texts {
                assert!(asked.contains(&format!("1 {text}")), "{text} in {asked:?}");
            }
            // Each once, but the one that stands there ten times: once for each round of sixteen, where it is not remembered.
            assert!((41..=44).contains(&asked.len()), "{asked:?}");
        });
    }
}

#[test]
fn what_was_said_holds_for_its_client_until_it_is_forgotten() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl");
    for &driver in DRIVERS {
        let broker = Broker::start_http(
            driver,
            2,
            &[("auth.http_acl_url", &url), ("auth.acl_cache_s", "3600"), ("auth.acl_cache_max", "4")],
        );
        let http = Http::of(&broker);
        for version in VERSIONS {
            let name = named("c/1", version);
            let mut peer = Peer::connect(&broker, version, &name);
            let path = format!("/api/v4/clients/{}/acl_cache", name.replace('/', "%2F"));
            let listed = |http: &Http| -> Vec<String> {
                let rows = http.json(&path);
                let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
                let all = rows["data"].as_array().unwrap().iter();
                all.map(|row| ["access", "topic", "result"].map(|name| text(row, name)).join(" ")).collect()
            };
            assert_eq!(listed(&http), <[&str; 0]>::default());
            for _ in 0..3 {
                publish(&mut peer, "open/a", QoS::AtLeastOnce);
                publish(&mut peer, "shut", QoS::AtLeastOnce);
                peer.subscribe("open/s", QoS::AtMostOnce);
            }
            assert_eq!(questions(&backend), ["2 open/a", "2 shut", "1 open/s"]);
            let all = ["publish open/a allow", "publish shut deny", "subscribe open/s allow"];
            let mut rows = listed(&http);
            rows.sort_unstable();
            assert_eq!(rows, all);
            // Of two more the oldest one makes room.
            publish(&mut peer, "pub/b", QoS::AtLeastOnce);
            publish(&mut peer, "pub/c", QoS::AtLeastOnce);
            assert_eq!(listed(&http).len(), 4);
            backend.asked();
            // Another client's are its own.
            let mut other = Peer::connect(&broker, version, &named("c/2", version));
            publish(&mut other, "open/a", QoS::AtLeastOnce);
            assert_eq!(questions(&backend), ["2 open/a"]);
            for forget in [&*path, "/api/v4/acl-cache"] {
                let answer = http.delete(forget);
                assert_eq!((answer.status, answer.json()["code"].as_u64()), (200, Some(0)), "{answer:?}");
                assert_eq!(listed(&http), <[&str; 0]>::default());
                publish(&mut peer, "pub/c", QoS::AtLeastOnce);
                publish(&mut peer, "pub/c", QoS::AtLeastOnce);
                assert_eq!(questions(&backend), ["2 pub/c"]);
            }
            assert_eq!(http.get("/api/v4/clients/nobody/acl_cache").status, 404);
            assert_eq!(http.delete("/api/v4/clients/nobody/acl_cache").status, 404);
            // So does a reload, and the end of the connection.
            broker.signal("HUP");
            let deadline = Instant::now() + Duration::from_secs(60);
            while !listed(&http).is_empty() {
                assert!(Instant::now() < deadline, "a reload forgets nothing:\n{}", broker.log());
            }
            publish(&mut peer, "pub/c", QoS::AtLeastOnce);
            assert_eq!(questions(&backend), ["2 pub/c"]);
            peer.cut();
            let mut peer = Peer::connect(&broker, version, &name);
            publish(&mut peer, "pub/c", QoS::AtLeastOnce);
            assert_eq!(questions(&backend), ["2 pub/c"]);
        }
        broker.stop();
    }
}

#[test]
fn without_a_time_each_packet_is_asked_about() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl");
    everywhere(1, &[("auth.http_acl_url", &url), ("auth.acl_cache_s", "0")], |broker, version| {
        let mut peer = Peer::connect(broker, version, &named("c", version));
        for qos in [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publish(&mut peer, "open/a", qos);
        }
        // In one go.
        for _ in 0..5 {
            peer.send_publish("open/b", b"x", QoS::AtMostOnce, false);
        }
        peer.ping();
        let asked = questions(&backend);
        assert_eq!(asked, [vec!["2 open/a"; 3], vec!["2 open/b"; 5]].concat());
    });
}

/// Whoever waits for the back-end keeps its order and holds up nobody else.
#[test]
fn a_slow_answer_keeps_one_client_waiting_and_its_packets_in_order() {
    for (&driver, version) in DRIVERS.iter().zip(VERSIONS) {
        let backend = Backend::start(|asked| match asked.field("topic") {
            "open/slow" => Reply::Hold,
            _ => allows(asked),
        });
        let url = backend.url("/acl");
        let broker =
            Broker::start(driver, 2, &[("auth.http_acl_url", &url), ("auth.http_timeout_ms", "10000")]);
        let mut to = Peer::connect(&broker, version, "to");
        to.subscribe("open/#", QoS::AtMostOnce);
        let mut slow = Peer::connect(&broker, version, "slow");
        let mut other = Peer::connect(&broker, version, "other");
        slow.send_publish("open/1", b"x", QoS::AtMostOnce, false);
        slow.send_publish("open/slow", b"x", QoS::AtMostOnce, false);
        for n in 2..50 {
            slow.send_publish(&format!("open/{n}"), b"x", QoS::AtMostOnce, false);
        }
        slow.send(&Packet::PingReq);
        assert_eq!(to.expect_message().topic, "open/1");
        let deadline = Instant::now() + Duration::from_secs(30);
        while backend.holding() < 1 {
            assert!(Instant::now() < deadline, "the back-end is not asked");
        }
        for n in 0..20_u32 {
            other.publish("open/other", &n.to_be_bytes(), QoS::AtLeastOnce, false);
            let message = to.expect_message();
            assert_eq!((&*message.topic, &*message.payload), ("open/other", &n.to_be_bytes()[..]));
        }
        assert_eq!(backend.holding(), 1);
        backend.release();
        assert_eq!(to.expect_message().topic, "open/slow");
        for n in 2..50 {
            assert_eq!(to.expect_message().topic, format!("open/{n}"));
        }
        slow.expect(&Packet::PingResp);
        broker.stop();
    }
}

#[test]
fn whoever_leaves_while_it_waits_leaves_nothing_behind() {
    for (&driver, version) in DRIVERS.iter().zip(VERSIONS) {
        let backend = Backend::start(|_| Reply::Hold);
        let url = backend.url("/acl");
        let settings = [("auth.http_acl_url", &*url), ("auth.http_timeout_ms", "10000")];
        let broker = Broker::start_http(driver, 1, &settings);
        let mut gone = Peer::connect(&broker, version, "gone");
        gone.send_publish("open/a", b"x", QoS::AtMostOnce, false);
        let deadline = Instant::now() + Duration::from_secs(30);
        while backend.holding() < 1 {
            assert!(Instant::now() < deadline, "the back-end is not asked");
        }
        // Another one takes its place and its session, and is asked about by itself.
        let mut peer = Peer::connect(&broker, version, "gone");
        backend.release();
        assert!(!publish(&mut peer, "open/b", QoS::AtLeastOnce).is_error());
        peer.ping();
        broker.stop();
    }
}

#[test]
fn where_nobody_answers_5_is_told_and_3_waits_and_loses_nothing() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let backend = Backend::start(
        move |asked| if is_down.load(Ordering::Relaxed) { Reply::HangUp } else { allows(asked) },
    );
    let url = backend.url("/acl");
    for &driver in DRIVERS {
        for version in VERSIONS {
            down.store(true, Ordering::Relaxed);
            let broker = Broker::start(
                driver,
                2,
                &[
                    ("auth.http_acl_url", &url),
                    ("auth.deny_action", "disconnect"),
                    ("mqtt.reject_wait_s", "600"),
                ],
            );
            let mut peer = Peer::connect(&broker, version, "c");
            let no_answer = in_suback(version, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
            assert_eq!(subscribe_all(&mut peer, &["open/a", "open/b"]), [no_answer; 2]);
            peer.send_publish("open/a", b"x", QoS::AtMostOnce, false);
            peer.ping();
            if version == Version::V5 {
                for _ in 0..20 {
                    let code = publish(&mut peer, "open/a", QoS::AtLeastOnce);
                    assert_eq!(code, ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
                }
                until_logged(&broker, "auth.http_acl_url does not answer and is left alone");
                down.store(false, Ordering::Relaxed);
                let deadline = Instant::now() + Duration::from_secs(60);
                while publish(&mut peer, "open/a", QoS::AtLeastOnce).is_error() {
                    assert!(Instant::now() < deadline, "the back-end is not found again:\n{}", broker.log());
                }
            } else {
                let id = peer.send_publish("open/a", b"x", QoS::AtLeastOnce, false).expect("an identifier");
                until_logged(&broker, "auth.http_acl_url does not answer and is left alone");
                down.store(false, Ordering::Relaxed);
                peer.expect_ack(AckKind::PubAck, id);
            }
            until_logged(&broker, "auth.http_acl_url answers again");
            broker.stop();
        }
    }
}

#[test]
fn a_publisher_of_3_does_not_wait_for_ever() {
    // Nothing listens on port 1.
    let settings = [("auth.http_acl_url", "http://127.0.0.1:1/acl"), ("mqtt.reject_wait_s", "0")];
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 1, &settings);
        let mut peer = Peer::connect(&broker, Version::V311, "c");
        peer.send_publish("open/a", b"x", QoS::ExactlyOnce, false);
        peer.expect_closed();
        broker.stop();
    }
}

#[test]
fn a_will_is_asked_about_at_connect() {
    let backend = Backend::start(|asked| if asked.path == "/auth" { say(200) } else { allows(asked) });
    let (auth, rights) = (backend.url("/auth"), backend.url("/acl"));
    let with_logins = [("auth.http_auth_url", &*auth), ("auth.http_acl_url", &*rights)];
    for settings in [&with_logins[..], &with_logins[1..]] {
        everywhere(2, settings, |broker, version| {
            let login =
                |topic| Login::new(version, &named("will", version)).user("ann", "x").will(topic, b"gone");
            let denied = said(version, ReasonCode::NOT_AUTHORIZED);
            assert_eq!(code(broker, &login("shut")), denied);
            assert_eq!(code(broker, &login("broken")), said(version, ReasonCode::SERVER_UNAVAILABLE));
            let mut watch =
                Peer::login(broker, &Login::new(version, &named("watch", version)).user("bob", "x")).0;
            watch.subscribe("open/will", QoS::AtMostOnce);
            backend.asked();
            let (peer, _) = Peer::login(broker, &login("open/will"));
            let asked = backend.asked();
            let about = |a: &&Asked| a.path == "/acl";
            let [will] = asked.iter().filter(about).collect::<Vec<_>>()[..] else { panic!("{asked:?}") };
            let fields = ["access", "topic", "clientid", "username"].map(|name| will.field(name));
            assert_eq!(fields, ["2", "open/will", &named("will", version), "ann"]);
            assert_eq!(asked.len(), 1 + usize::from(settings.len() > 1), "each is asked once");
            peer.cut();
            assert_eq!(watch.expect_message().payload, b"gone");
            // One that the broker names is asked about by that name.
            if version == Version::V5 {
                backend.asked();
                assert_eq!(
                    code(broker, &Login::new(version, "").user("ann", "x").will("open/will", b"x")),
                    ReasonCode::SUCCESS
                );
                let names: Vec<_> = backend.asked().iter().map(|a| a.field("clientid").to_owned()).collect();
                assert!(
                    names[0].starts_with("ringmq-") && names.iter().all(|name| *name == names[0]),
                    "{names:?}"
                );
            }
        });
    }
}

#[test]
fn whoever_does_what_the_back_end_denies_can_be_disconnected() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl");
    let settings = [("auth.http_acl_url", &*url), ("auth.deny_action", "disconnect")];
    everywhere(2, &settings, |broker, version| {
        let end = |mut peer: Peer| match version {
            Version::V5 => peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED),
            _ => peer.expect_closed(),
        };
        let mut peer = Peer::connect(broker, version, &named("p", version));
        assert!(!publish(&mut peer, "open/a", QoS::AtLeastOnce).is_error());
        peer.send_publish("shut", b"x", QoS::AtMostOnce, false);
        end(peer);
        let mut peer = Peer::connect(broker, version, &named("s", version));
        peer.send_subscribe("shut", SubscribeOptions::default());
        end(peer);
    });
}

/// The listener with a mountpoint.
struct Mounted(SocketAddr);

impl Ground for Mounted {
    type Socket = TcpStream;

    fn dial(&self) -> TcpStream {
        TcpStream::connect(self.0).expect("the listener takes connections")
    }
}

#[test]
fn the_back_end_is_told_a_topic_as_the_client_names_it_and_its_mountpoint() {
    let backend = Backend::start(allows);
    let url = backend.url("/acl");
    let settings = [
        ("auth.http_acl_url", &*url),
        ("listeners.mounted.bind", "127.0.0.1:0"),
        ("listeners.mounted.mountpoint", "site/%c/"),
    ];
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &settings);
        let rows = Http::of(&broker).json("/api/v4/listeners");
        let rows = rows["data"][0]["listeners"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["name"] == "mounted").expect("the listener");
        let mounted = Mounted(row["listen_on"].as_str().expect("a text").parse().expect("an address"));
        for version in VERSIONS {
            let name = named("m", version);
            let login = Login::new(version, &name).will("open/will", b"x");
            let (mut peer, _) = Peer::login(&mounted, &login);
            assert_eq!(peer.subscribe("$share/g/open/s", QoS::AtLeastOnce), 1);
            assert!(!publish(&mut peer, "open/p", QoS::AtLeastOnce).is_error());
            let told: Vec<_> = backend
                .asked()
                .iter()
                .map(|a| ["access", "mountpoint", "topic"].map(|field| a.field(field).to_owned()).join(" "))
                .collect();
            let expected = [("2", "open/will"), ("1", "open/s"), ("2", "open/p")];
            assert_eq!(told, expected.map(|(access, topic)| format!("{access} site/{name}/ {topic}")));
            peer.disconnect();
        }
        broker.stop();
    }
}
