//! Rules about publishing and subscribing.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, Received, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use crate::passwords::{code, said};
use ringmq::codec::{AckKind, Packet, ReasonCode, Version};
use ringmq::message::QoS;

const RULES: &str = r##"
[[rule]]
deny = "all"
topics = ["secret/#"]
[[rule]]
allow = "publish"
user = "ann"
topics = ["ann/#"]
[[rule]]
allow = "publish"
client = ["c-V311", "c-V5"]
topics = "client"
[[rule]]
allow = "all"
topics = ["own/%c/#", "open/#", "user/%u"]
[[rule]]
deny = "subscribe"
topics = [{ eq = "here/#" }]
[[rule]]
allow = "subscribe"
address = "127.0.0.0/8"
topics = "here/#"
[[rule]]
allow = "publish"
qos = 0
retain = false
topics = "narrow"
"##;

/// What is answered to a PUBLISH of QoS 1 or 2: its reason code, where the version has one.
fn publish(peer: &mut Peer, topic: &str, qos: QoS, retain: bool) -> ReasonCode {
    let id = peer.send_publish(topic, b"x", qos, retain);
    let received: Received = peer.next();
    match received.packet() {
        Packet::Ack(ack) => {
            assert_eq!(Some(ack.packet_id), id);
            if ack.kind == AckKind::PubRec && !ack.code.is_error() {
                peer.ack(AckKind::PubRel, ack.packet_id);
                peer.expect_ack(AckKind::PubComp, ack.packet_id);
            }
            ack.code
        }
        other => panic!("expected an acknowledgement, got {other:?}"),
    }
}

fn refused(version: Version) -> u8 {
    if version == Version::V5 { ReasonCode::NOT_AUTHORIZED.0 } else { 0x80 }
}

#[test]
fn rules_say_who_may_publish_what() {
    let folder = Folder::new();
    let file = folder.write("acl.toml", RULES);
    everywhere(2, &[("auth.acl_file", &file)], |broker, version| {
        let mut all = Peer::connect(broker, version, &named("all", version));
        for filter in ["open/#", "own/all-V5/#", "own/all-V311/#"] {
            all.subscribe(filter, QoS::AtMostOnce);
        }
        let (mut ann, _) = Peer::login(broker, &Login::new(version, &named("c", version)).user("ann", "x"));
        let mut bob = Peer::connect(broker, version, &named("bob", version));
        let v5 = version == Version::V5;
        let denied = if v5 { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SUCCESS };
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let right = [
                ("ann/a", true, false),
                ("client", true, false),
                ("open/a", true, true),
                ("secret/a", false, false),
            ];
            for (topic, of_ann, of_bob) in right {
                for (peer, may) in [(&mut ann, of_ann), (&mut bob, of_bob)] {
                    let code = publish(peer, topic, qos, false);
                    // 3.1.1 has no way to say so.
                    assert_eq!(code.is_error(), v5 && !may, "{topic} {code}");
                    assert!(may || code == denied, "{topic} {code}");
                }
            }
        }
        assert!(!publish(&mut ann, "user/ann", QoS::AtLeastOnce, false).is_error());
        assert_eq!(publish(&mut ann, "user/bob", QoS::AtLeastOnce, false), denied);
        // QoS and RETAIN.
        assert_eq!(publish(&mut ann, "narrow", QoS::AtLeastOnce, false), denied);
        // What was denied reached nobody, what was allowed did: two of each publisher.
        for _ in 0..4 {
            assert_eq!(all.expect_message().topic, "open/a");
        }
        all.ping();
    });
}

#[test]
fn rules_say_who_may_subscribe_to_what() {
    let folder = Folder::new();
    let file = folder.write("acl.toml", RULES);
    everywhere(2, &[("auth.acl_file", &file)], |broker, version| {
        let name = named("sub", version);
        let mut peer = Peer::connect(broker, version, &name);
        for filter in ["open/#", "open/a", "open/+", "here/a", &format!("own/{name}/x"), "$share/g/open/a"] {
            assert_eq!(peer.subscribe(filter, QoS::AtLeastOnce), 1, "{filter}");
        }
        for filter in [
            "#",
            "secret/a",
            "+/a",
            "own/other/x",
            "own/+/x",
            "here/#",
            "ann/a",
            "$share/g/secret/a",
            "client",
        ] {
            assert_eq!(peer.subscribe(filter, QoS::AtLeastOnce), refused(version), "{filter}");
        }
        // Retained messages come with what was granted alone.
        let mut other = Peer::connect(broker, version, &named("other", version));
        other.publish(&format!("open/{version:?}"), b"kept", QoS::AtLeastOnce, true);
        let mut late = Peer::connect(broker, version, &named("late", version));
        assert_eq!(late.subscribe("+/+", QoS::AtMostOnce), refused(version));
        late.ping();
        assert_eq!(late.subscribe(&format!("open/{version:?}"), QoS::AtMostOnce), 0);
        assert_eq!(late.expect_message().payload, b"kept");
        other.publish(&format!("open/{version:?}"), b"", QoS::AtLeastOnce, true);
    });
}

#[test]
fn a_will_must_be_allowed() {
    let folder = Folder::new();
    let file = folder.write("acl.toml", RULES);
    everywhere(2, &[("auth.acl_file", &file)], |broker, version| {
        let login = |topic| Login::new(version, &named("will", version)).will(topic, b"gone");
        assert_eq!(code(broker, &login("secret/a")), said(version, ReasonCode::NOT_AUTHORIZED));
        let mut watch = Peer::connect(broker, version, &named("watch", version));
        watch.subscribe("open/will", QoS::AtMostOnce);
        let (peer, _) = Peer::login(broker, &login("open/will"));
        peer.cut();
        assert_eq!(watch.expect_message().payload, b"gone");
    });
}

#[test]
fn whoever_does_what_it_may_not_can_be_disconnected() {
    let folder = Folder::new();
    let file = folder.write("acl.toml", RULES);
    let settings = [("auth.acl_file", &*file), ("auth.deny_action", "disconnect")];
    everywhere(2, &settings, |broker, version| {
        let end = |mut peer: Peer| match version {
            Version::V5 => peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED),
            _ => peer.expect_closed(),
        };
        let mut peer = Peer::connect(broker, version, &named("p", version));
        peer.send_publish("secret/a", b"x", QoS::AtMostOnce, false);
        end(peer);
        let mut peer = Peer::connect(broker, version, &named("s", version));
        peer.send_subscribe("secret/a", ringmq::codec::SubscribeOptions::default());
        end(peer);
    });
}

#[test]
fn rules_that_change_end_live_subscriptions_and_users_that_go_are_disconnected() {
    for &driver in DRIVERS {
        let folder = Folder::new();
        let file = folder.write("acl.toml", "[[rule]]\nallow = \"all\"\n");
        let hash = "$6$v0a2bcwCEEOCgW2z$wetQDcuUg0oUJ61iygRQ/eP2vxZOFE6EW0a2yviKG9rGRi7T340ddTLOFi8iONmdXGIJt9u9uag/P9hg2suUVg==";
        let users = folder.write("users", &format!("ann:{hash}\nbob:{hash}\n"));
        let broker = Broker::start(driver, 2, &[("auth.acl_file", &file), ("auth.password_file", &users)]);
        for version in VERSIONS {
            if version != VERSIONS[0] {
                folder.write("acl.toml", "[[rule]]\nallow = \"all\"\n");
                folder.write("users", &format!("ann:{hash}\nbob:{hash}\n"));
                broker.signal("HUP");
            }
            // The broker has read both once it lets bob in.
            let bob = Login::new(version, &named("bob", version)).user("bob", "secret");
            let mut bob = loop {
                let (peer, answer) = Peer::try_login(&broker, &bob);
                if matches!(answer.packet(), Packet::ConnAck(ack) if ack.code == ReasonCode::SUCCESS) {
                    break peer;
                }
            };
            let mut ann = Peer::connect(&broker, version, &named("ann", version));
            assert_eq!(ann.subscribe("a/#", QoS::AtLeastOnce), 1);
            assert_eq!(ann.subscribe("b/#", QoS::AtLeastOnce), 1);
            folder.write(
                "acl.toml",
                "[[rule]]\nallow = \"subscribe\"\ntopics = \"b/#\"\n[[rule]]\nallow = \"publish\"\n",
            );
            folder.write("users", &format!("ann:{hash}\n"));
            broker.signal("HUP");
            match version {
                Version::V5 => bob.expect_disconnect(ReasonCode::NOT_AUTHORIZED),
                _ => bob.expect_closed(),
            }
            // bob's shard may have been the first one to look; ann's is done when a new subscription is refused and
            // her old one brings nothing.
            while ann.subscribe("a/new", QoS::AtLeastOnce) != refused(version) {}
            let mut other = Peer::connect(&broker, version, &named("other", version));
            let mut arrived = true;
            while arrived {
                other.publish("a/x", b"revoked", QoS::AtLeastOnce, false);
                other.publish("b/x", b"kept", QoS::AtLeastOnce, false);
                let mut message = ann.expect_message();
                arrived = message.topic == "a/x";
                if arrived {
                    message = ann.expect_message();
                }
                assert_eq!(message.topic, "b/x");
            }
            ann.ping();
        }
        broker.stop();
    }
}

#[test]
fn mosquittos_acl_file_holds_for_foreign_clients() {
    let folder = Folder::new();
    let text = "topic read news/#\nuser ann\ntopic readwrite ann/#\npattern write from/%u/#\n";
    let file = folder.write("aclfile", text);
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 2, &[("auth.acl_file", &file)]);
        for version in VERSIONS {
            for (user, filter, may) in [
                (None, "news/today", true),
                (None, "ann/a", false),
                (Some(("ann", "")), "ann/#", true),
                (Some(("ann", "")), "news/today", false),
                (Some(("bob", "")), "ann/a", false),
            ] {
                let got = foreign::subscribe(&broker, version, &named("foreign", version), user, filter);
                assert_eq!(got, may, "{user:?} {filter} {version:?}");
            }
        }
        broker.stop();
    }
}

#[test]
fn what_rules_are_asked_is_counted_by_its_names() {
    let folder = Folder::new();
    let file = folder.write("acl.toml", RULES);
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 2, &[("auth.acl_file", &file)]);
        let mut peer = Peer::connect(&broker, Version::V5, "asks");
        peer.subscribe("open/#", QoS::AtMostOnce);
        for topic in ["own/asks/a", "secret/a", "nowhere"] {
            publish(&mut peer, topic, QoS::AtLeastOnce, false);
        }
        let http = Http::of(&broker);
        assert_eq!(http.json("/api/v4/metrics")["data"][0]["metrics"]["client.check_acl"], 4);
        let rmqtt = &http.json("/api/v1/metrics")[0]["metrics"];
        assert_eq!([&rmqtt["client.publish.check.acl"], &rmqtt["client.subscribe.check.acl"]], [3, 1]);
        broker.stop();
    }
}
