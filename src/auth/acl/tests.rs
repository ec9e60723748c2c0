//! Rules against a naive reading of them.

use super::*;
use crate::message::QoS;

fn client<'a>(id: &'a str, user: Option<&'a str>, from: &str) -> Client<'a> {
    Client { id, user, from: from.parse().ok() }
}

fn publishes(acl: &Acl, client: &Client, topic: &str) -> bool {
    acl.allows(client, &Deed::Publish { topic, qos: QoS::AtMostOnce, retain: false })
}

fn subscribes(acl: &Acl, client: &Client, filter: &str) -> bool {
    let filter = Filter::new(filter, 0).unwrap();
    acl.allows(client, &Deed::Subscribe { filter, qos: QoS::AtMostOnce })
}

fn ours(text: &str) -> Acl {
    Acl::read("acl.toml", text).unwrap()
}

#[test]
fn the_first_rule_that_applies_decides_and_without_one_it_is_denied() {
    let acl = ours(
        r#"
        [[rule]]
        deny = "publish"
        topics = ["a/secret"]
        [[rule]]
        allow = "all"
        topics = ["a/#", "+/open"]
        [[rule]]
        deny = "all"
        topics = ["a/never/reached"]
        "#,
    );
    let who = client("c", None, "10.0.0.1");
    for (topic, may) in [("a/secret", false), ("a", true), ("a/b/c", true), ("a/never/reached", true)] {
        assert_eq!(publishes(&acl, &who, topic), may, "{topic}");
    }
    for (topic, may) in [("x/open", true), ("$x/open", false), ("b", false), ("", false)] {
        assert_eq!(publishes(&acl, &who, topic), may, "{topic}");
    }
    assert!(subscribes(&acl, &who, "a/secret") && subscribes(&acl, &who, "a/#"));
    assert!(
        !Acl::read("none", "")
            .unwrap()
            .allows(&who, &Deed::Publish { topic: "a", qos: QoS::AtMostOnce, retain: false })
    );
}

#[test]
fn a_rule_is_about_those_who_meet_all_that_it_gives() {
    let acl = ours(
        r#"
        [[rule]]
        allow = "publish"
        user = ["ann", "bob"]
        address = ["10.0.0.0/8", "2001:db8::/32"]
        topics = "both"
        [[rule]]
        allow = "publish"
        client = "c1"
        topics = "client"
        [[rule]]
        allow = "publish"
        anonymous = true
        topics = "nameless"
        [[rule]]
        allow = "publish"
        address = "192.168.1.1"
        [[rule]]
        allow = "publish"
        user = "ann"
        client = "c2"
        topics = "and"
        "#,
    );
    for (who, topics) in [
        (client("c1", Some("ann"), "10.1.2.3"), &["both", "client"][..]),
        (client("c2", Some("bob"), "2001:db8:1::1"), &["both"]),
        (client("c2", Some("ann"), "11.0.0.1"), &["and"]),
        (client("c2", Some("eve"), "10.0.0.1"), &[]),
        (client("c3", None, "10.0.0.1"), &["nameless"]),
        (client("c3", Some("eve"), "192.168.1.1"), &["both", "client", "nameless", "and"]),
        (client("c3", Some("ann"), "unknown"), &[]),
    ] {
        for topic in ["both", "client", "nameless", "and"] {
            assert_eq!(publishes(&acl, &who, topic), topics.contains(&topic), "{who:?} {topic}");
        }
    }
}

#[test]
fn names_of_a_client_are_compared_as_they_are() {
    let acl = ours("[[rule]]\nallow = \"all\"\ntopics = [\"to/%c/#\", \"of/%u\", \"x-%u-%c/y\"]\n");
    let ann = client("c1", Some("ann"), "");
    assert!(
        publishes(&acl, &ann, "to/c1/a")
            && publishes(&acl, &ann, "of/ann")
            && publishes(&acl, &ann, "x-ann-c1/y")
    );
    assert!(
        !publishes(&acl, &ann, "to/c2/a")
            && !publishes(&acl, &ann, "of/%u")
            && !publishes(&acl, &ann, "x-ann-/y")
    );
    assert!(
        subscribes(&acl, &ann, "to/c1/#")
            && subscribes(&acl, &ann, "to/c1/+")
            && !subscribes(&acl, &ann, "to/#")
    );
    for id in ["+", "#", "c1/x", ""] {
        let sly = client(id, None, "");
        for filter in ["to/+/x", "to/#", "to/c1/x", "to/c1/x/a", "of/+", "of/"] {
            assert!(!subscribes(&acl, &sly, filter), "{id:?} {filter}");
        }
    }
}

#[test]
fn eq_means_the_filter_itself() {
    let acl = ours(
        r##"
        [[rule]]
        deny = "subscribe"
        topics = ["$SYS/#", { eq = "#" }, { eq = "+/x" }]
        [[rule]]
        allow = "all"
        "##,
    );
    let who = client("c", None, "");
    for (filter, may) in
        [("#", false), ("+/#", true), ("+/x", false), ("a/x", true), ("$SYS/a", false), ("$SYS/+", false)]
    {
        assert_eq!(subscribes(&acl, &who, filter), may, "{filter}");
    }
    assert!(publishes(&acl, &who, "$SYS/a"), "the rule is about subscribing");
}

#[test]
fn what_is_denied_is_not_to_be_had_by_a_wider_filter() {
    let acl = ours("[[rule]]\ndeny = \"subscribe\"\ntopics = \"a/+/s\"\n[[rule]]\nallow = \"all\"\n");
    let who = client("c", None, "");
    for filter in ["#", "+/#", "a/#", "a/b/#", "a/b/s", "+/+/s", "+/+/+", "a/+/+", "a/b/s/#"] {
        assert!(!subscribes(&acl, &who, filter), "{filter}");
    }
    for filter in ["a", "a/b", "a/+", "b/#", "a/b/t", "a/b/s/t", "+/b/t", "$SYS/#"] {
        assert!(subscribes(&acl, &who, filter), "{filter}");
    }
}

#[test]
fn qos_and_retain_narrow_a_rule() {
    let acl = ours(
        "[[rule]]\nallow = \"all\"\nqos = [0, 1]\nretain = false\n[[rule]]\nallow = \"subscribe\"\nqos = 1\n",
    );
    let who = client("c", None, "");
    let publish = |qos, retain| acl.allows(&who, &Deed::Publish { topic: "a", qos, retain });
    assert!(publish(QoS::AtMostOnce, false) && publish(QoS::AtLeastOnce, false));
    assert!(!publish(QoS::ExactlyOnce, false) && !publish(QoS::AtMostOnce, true));
    let filter = Filter::new("a", 0).unwrap();
    let subscribe = |qos| acl.allows(&who, &Deed::Subscribe { filter, qos });
    assert!(subscribe(QoS::AtLeastOnce) && !subscribe(QoS::AtMostOnce) && !subscribe(QoS::ExactlyOnce));
}

#[test]
fn mosquittos_file_is_read_as_it_is() {
    let acl = Acl::read(
        "aclfile",
        "# clients without a name\ntopic read $SYS/#\ntopic open/#\n\nuser ann\ntopic readwrite mine/#\ntopic deny mine/not\n\
         topic write in\nuser bob two\ntopic %c/literal\npattern read  of/%u/#\npattern write\tby/%c\npattern deny of/+/secret\n",
    )
    .unwrap();
    let (nobody, ann, bob) =
        (client("c", None, ""), client("c", Some("ann"), ""), client("c", Some("bob two"), ""));
    assert!(subscribes(&acl, &nobody, "$SYS/a") && publishes(&acl, &nobody, "open/a"));
    assert!(!subscribes(&acl, &ann, "$SYS/a") && !publishes(&acl, &ann, "open/a"));
    assert!(
        publishes(&acl, &ann, "mine/a") && !publishes(&acl, &ann, "mine/not") && publishes(&acl, &ann, "in")
    );
    assert!(!subscribes(&acl, &ann, "in") && !subscribes(&acl, &ann, "mine/#"));
    assert!(
        subscribes(&acl, &ann, "of/ann/x")
            && !subscribes(&acl, &ann, "of/bob/x")
            && !publishes(&acl, &ann, "of/ann/x")
    );
    assert!(
        publishes(&acl, &bob, "by/c")
            && !publishes(&acl, &bob, "by/d")
            && publishes(&acl, &bob, "%c/literal")
    );
    assert!(!subscribes(&acl, &ann, "of/ann/secret") && !subscribes(&acl, &nobody, "of/c/x"));
}

#[test]
fn what_is_wrong_is_told_by_line() {
    for (name, text, told) in [
        ("a.toml", "[[rule]]\n", "line 1: expected allow or deny, got neither"),
        ("a.toml", "[[rule]]\nallow = \"all\"\ndeny = \"all\"\n", "line 1: expected allow or deny, got both"),
        ("a.toml", "\n[[rule]]\nallow = \"read\"\n", "line 3: allow: expected \"publish\""),
        (
            "a.toml",
            "[[rule]]\nallow = \"all\"\ntopics = [\"a/#/b\"]\n",
            "line 3: topics: expected topic filters",
        ),
        (
            "a.toml",
            "[[rule]]\nallow = \"all\"\naddress = \"10.0.0.0/33\"\n",
            "line 3: address: expected an address",
        ),
        ("a.toml", "[[rule]]\nallow = \"all\"\nqos = 3\n", "line 3: qos: expected 0, 1 or 2"),
        ("a.toml", "[[rule]]\nallow = \"all\"\nuser = []\n", "line 3: user: expected a user name"),
        ("a.toml", "[[rule]]\nallow = \"all\"\nusr = \"a\"\n", "line 3: expected one of allow"),
        ("a.toml", "[[rules]]\nallow = \"all\"\n", "line 1: expected tables [[rule]], got rules"),
        ("a.toml", "rule = 1\n", "line 1: expected tables [[rule]]"),
        ("a.toml", "[[rule]\n", "line 1: "),
        ("a.toml", "[[rule]]\nallow = \"subscribe\"\nretain = true\n", "line 1: retain: expected"),
        ("acl", "topic read\n", "line 1: expected a topic filter, got \"\""),
        ("acl", "\nallow all\n", "line 2: expected user NAME"),
        ("acl", "user\n", "line 1: expected user NAME"),
    ] {
        let got = Acl::read(name, text).unwrap_err();
        assert!(got.starts_with(told), "{text:?}: {got}");
    }
}

/// The index finds what going through all rules finds.
#[test]
fn the_index_agrees_with_a_search_through_all_rules() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let words = ["a", "b", "", "$s", "%c", "%u", "+"];
    for _ in 0..200 {
        let mut text = String::new();
        for _ in 0..12 {
            let verdict = ["allow", "deny"][pick(2)];
            let action = ["publish", "subscribe", "all"][pick(3)];
            text.push_str(&format!("[[rule]]\n{verdict} = \"{action}\"\n"));
            match pick(4) {
                0 => text.push_str("user = [\"a\", \"u\"]\n"),
                1 => text.push_str("client = \"a\"\n"),
                2 => text.push_str("user = \"a\"\nclient = \"c\"\n"),
                _ => {}
            }
            let mut levels: Vec<&str> = (0..1 + pick(3)).map(|_| words[pick(words.len())]).collect();
            if pick(3) == 0 {
                levels.push("#");
            }
            let filter = levels.join("/");
            match pick(5) {
                0 => {}
                1 if !filter.is_empty() => text.push_str(&format!("topics = [{{ eq = \"{filter}\" }}]\n")),
                _ if !filter.is_empty() => text.push_str(&format!("topics = [\"{filter}\"]\n")),
                _ => {}
            }
        }
        let acl = ours(&text);
        for _ in 0..60 {
            let topic: Vec<&str> =
                (0..1 + pick(3)).map(|_| ["a", "b", "", "$s", "c", "u"][pick(6)]).collect();
            let topic = topic.join("/");
            let Ok(filter) = Filter::new(&topic, 0) else { continue };
            let who = client(["a", "c"][pick(2)], [None, Some("a"), Some("u")][pick(3)], "");
            for deed in [
                Deed::Publish { topic: &topic, qos: QoS::AtMostOnce, retain: false },
                Deed::Subscribe { filter, qos: QoS::AtMostOnce },
            ] {
                let applies = |rule: &&Rule| {
                    rule.holds(&who, &deed)
                        && (rule.filters.is_empty() || rule.filters.iter().any(|p| p.covers(filter, &who)))
                };
                let naive = acl.rules.iter().find(applies).is_some_and(|rule| rule.allow);
                assert_eq!(acl.allows(&who, &deed), naive, "{who:?} {deed:?}\n{text}");
            }
        }
    }
}
