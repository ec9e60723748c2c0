//! Password files, and the switch for clients without credentials.

use crate::common::{Broker, DRIVERS, Http, Login, Peer, VERSIONS, everywhere, named};
use crate::folder::Folder;
use crate::foreign;
use ringmq::codec::{Packet, ReasonCode, Version};
use ringmq::message::QoS;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Users whose password is `secret`, as other programs hash it.
const USERS: &str = "\
# argon2-cffi
argon:$argon2id$v=19$m=64,t=1,p=1$idqekwfHFZ8MW42O+4c6Hg$5sidGlwSscZjrJGKKhLHZw3adEiHrWhlnQsQYFgyN1U
bcrypt:$2b$04$7dGTs8eSA5BNgg/kWzAETOgYrWvjGBY7Q214xjOhWx86Jqq7eV43y
pbkdf2:$pbkdf2-sha256$1000$RKi11roXYsxZq3UuJWQMYQ$F3mnqldEiziLaf488ixJXxTTFZuutiLsl2SPOp6n3Fc
# mosquitto_passwd
seven:$7$101$fAmmIZRX1dvJYKFm$PBNtR5HxvjjiiGh213UZqQby72Z3TlvaDfVStfaiPCcq3Dxyi330EKPBZ9+uxWBpm/OJ/GclujuMfr6lbzIs0Q==
six:$6$v0a2bcwCEEOCgW2z$wetQDcuUg0oUJ61iygRQ/eP2vxZOFE6EW0a2yviKG9rGRi7T340ddTLOFi8iONmdXGIJt9u9uag/P9hg2suUVg==
ldap:{SSHA256}K++IuT6AVKFcsl6VkxyKhJbappoGh02HsyUlo1flN6X67QqOtitv9A==
";

/// What CONNACK says.
pub fn code(broker: &Broker, login: &Login) -> ReasonCode {
    let (_peer, answer) = Peer::try_login(broker, login);
    match answer.packet() {
        Packet::ConnAck(ack) => ack.code,
        other => panic!("expected CONNACK, got {other:?}"),
    }
}

/// What 3.1.1 has for a reason code of CONNACK.
pub fn said(version: Version, code: ReasonCode) -> ReasonCode {
    match code.connack_return_code() {
        _ if version == Version::V5 => code,
        4 => ReasonCode::BAD_USERNAME_OR_PASSWORD,
        5 => ReasonCode::NOT_AUTHORIZED,
        _ => ReasonCode::SERVER_UNAVAILABLE,
    }
}

#[test]
fn each_kind_of_hash_lets_its_password_in_and_no_other() {
    let folder = Folder::new();
    let file = folder.write("users", USERS);
    everywhere(2, &[("auth.password_file", &file)], |broker, version| {
        for user in ["argon", "bcrypt", "pbkdf2", "seven", "six", "ldap"] {
            let login = |password| Login::new(version, &named(user, version)).user(user, password);
            assert_eq!(code(broker, &login("secret")), ReasonCode::SUCCESS, "{user}");
            // What was proven is known again, and proves nothing else.
            assert_eq!(code(broker, &login("secret")), ReasonCode::SUCCESS, "{user}");
            for wrong in ["Secret", "secret ", ""] {
                let wrong = code(broker, &login(wrong));
                assert_eq!(wrong, said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD), "{user}");
            }
        }
        let nobody = Login::new(version, &named("nobody", version)).user("nobody", "secret");
        assert_eq!(code(broker, &nobody), said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD));
        // Without credentials, from this machine.
        assert_eq!(code(broker, &Login::new(version, &named("anon", version))), ReasonCode::SUCCESS);
    });
}

#[test]
fn without_anonymous_clients_only_users_come_in() {
    let folder = Folder::new();
    let file = folder.write("users", USERS);
    let settings = [("auth.password_file", &*file), ("mqtt.allow_anonymous", "false")];
    everywhere(2, &settings, |broker, version| {
        let anonymous = Login::new(version, &named("anon", version));
        assert_eq!(code(broker, &anonymous), said(version, ReasonCode::NOT_AUTHORIZED));
        // An identifier that the broker assigns is judged too.
        assert_eq!(code(broker, &Login::new(version, "")), said(version, ReasonCode::NOT_AUTHORIZED));
        assert_eq!(code(broker, &Login::new(version, "").user("six", "secret")), ReasonCode::SUCCESS);
    });
}

#[test]
fn without_a_source_of_users_a_user_name_is_no_credential() {
    everywhere(1, &[("mqtt.allow_anonymous", "false")], |broker, version| {
        let user = Login::new(version, &named("user", version)).user("a", "b");
        assert_eq!(code(broker, &user), said(version, ReasonCode::NOT_AUTHORIZED));
    });
    everywhere(1, &[], |broker, version| {
        let user = Login::new(version, &named("user", version)).user("a", "b");
        assert_eq!(code(broker, &user), ReasonCode::SUCCESS);
    });
}

#[test]
fn what_comes_behind_a_connect_that_waits_is_handled_after_it() {
    let folder = Folder::new();
    let file = folder.write("users", USERS);
    everywhere(4, &[("auth.password_file", &file)], |broker, version| {
        for round in 0..8 {
            let login = Login::new(version, &format!("{round}-{version:?}")).user("bcrypt", "secret");
            let mut peer = Peer::open(broker, version);
            // CONNECT and PINGREQ in one segment.
            peer.send_raw(&[login.bytes(), vec![0xc0, 0]].concat());
            assert!(matches!(peer.next().packet(), Packet::ConnAck(ack) if ack.code == ReasonCode::SUCCESS));
            peer.expect(&Packet::PingResp);
            peer.subscribe(&format!("a/{round}"), QoS::AtLeastOnce);
        }
    });
}

#[test]
fn a_file_that_changed_holds_after_sighup_and_a_bad_one_changes_nothing() {
    for &driver in DRIVERS {
        let folder = Folder::new();
        let file = folder.write("users", USERS);
        let settings = [("auth.password_file", &*file), ("mqtt.allow_anonymous", "false")];
        let broker = Broker::start_http(driver, 2, &settings);
        let login = |user| Login::new(Version::V5, user).user(user, "secret");
        assert_eq!(code(&broker, &login("six")), ReasonCode::SUCCESS);
        let kept: String =
            USERS.lines().filter(|line| !line.starts_with("six:")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&file, &kept).expect("the folder is writable");
        broker.signal("HUP");
        let deadline = Instant::now() + Duration::from_secs(30);
        while code(&broker, &login("six")) == ReasonCode::SUCCESS {
            assert!(Instant::now() < deadline, "the file is not read again");
        }
        std::fs::write(&file, "six:no hash\n").expect("the folder is writable");
        let refused = Http::of(&broker)
            .post("/api/v4/reload", &format!(r#"{{"data": {{"auth.password_file": "{file}x"}}}}"#));
        assert_ne!(refused.json()["code"], 0);
        assert_eq!(code(&broker, &login("ldap")), ReasonCode::SUCCESS);
        broker.stop();
    }
}

#[test]
fn whoever_guesses_is_held_off_and_others_are_not() {
    let folder = Folder::new();
    let file = folder.write("users", USERS);
    everywhere(2, &[("auth.password_file", &file)], |broker, version| {
        let (guessed, other) = if version == Version::V5 { ("seven", "ldap") } else { ("six", "bcrypt") };
        let login = |user: &str, password| Login::new(version, &named(user, version)).user(user, password);
        let mut codes = Vec::new();
        for _ in 0..6 {
            codes.push(code(broker, &login(guessed, "guess")));
        }
        let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
        let held_off = said(version, ReasonCode::CONNECTION_RATE_EXCEEDED);
        assert_eq!(codes[..5], [wrong; 5]);
        assert_eq!(codes[5], held_off);
        // Also with the right password, unless it was proven before.
        assert_eq!(code(broker, &login(guessed, "secret")), held_off);
        assert_eq!(code(broker, &login(other, "secret")), ReasonCode::SUCCESS);
    });
}

/// Runs `ringmq passwd`: whether it succeeded, and what it said.
pub fn passwd(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.arg("passwd").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built for this test");
    // Where nothing is read, there is nobody to write to.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn passwd_maintains_a_file_that_foreign_clients_come_in_by() {
    let folder = Folder::new();
    let file = folder.path("users");
    assert_eq!(passwd(&[&file, "ann"], "first\n"), (true, String::new()));
    assert_eq!(passwd(&[&file, "bob"], "second\n"), (true, String::new()));
    assert_eq!(passwd(&[&file, "ann"], "third"), (true, String::new()));
    for (arguments, input, fault) in [
        (vec![&*file, "eve"], "\n", "expected a password"),
        (vec![&*file, "#a"], "x\n", "that does not begin with #"),
        (vec!["--delete", &*file, "eve"], "", "there is no user \"eve\""),
    ] {
        let (done, told) = passwd(&arguments, input);
        assert!(!done && told.contains(fault) && told.lines().count() == 1, "{told}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&file).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let settings = [("auth.password_file", &*file), ("mqtt.allow_anonymous", "false")];
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 2, &settings);
        for version in VERSIONS {
            let code = |user| foreign::connect(&broker, version, &named("foreign", version), user);
            assert_eq!(code(Some(("ann", "third"))), "Success");
            assert_eq!(code(Some(("bob", "second"))), "Success");
            assert_eq!(code(Some(("ann", "first"))), "BadUserNamePassword");
            assert_eq!(code(None), "NotAuthorized");
        }
        broker.stop();
    }
    assert_eq!(passwd(&["--delete", &file, "ann"], ""), (true, String::new()));
    assert!(!std::fs::read_to_string(&file).expect("it is there").contains("ann:"));
}

#[test]
fn a_client_identifier_may_have_a_password_of_its_own() {
    let hash = USERS.lines().find_map(|line| line.strip_prefix("six:")).expect("a hash");
    let folder = Folder::new();
    let lines = VERSIONS.map(|version| format!("{}:{hash}\n", named("00:1b", version)));
    let (clients, users) = (folder.write("clients", &lines.concat()), folder.write("users", USERS));
    let alone = [("auth.client_id_file", &*clients)];
    let both = [alone[0], ("auth.password_file", &*users)];
    for settings in [&alone[..], &both] {
        everywhere(2, settings, |broker, version| {
            let id = named("00:1b", version);
            let login = |id: &str, user: Option<&str>, password: Option<&str>| {
                let (username, password) = (user.map(str::to_owned), password.map(str::to_owned));
                code(broker, &Login { username, password, ..Login::new(version, id) })
            };
            let wrong = said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD);
            for user in ["", &id] {
                assert_eq!(login(&id, Some(user), Some("secret")), ReasonCode::SUCCESS, "{user:?}");
                assert_eq!(login(&id, Some(user), Some("wrong")), wrong, "{user:?}");
            }
            // Only 5.0 has a password without a user name.
            if version == Version::V5 {
                assert_eq!(login(&id, None, Some("secret")), ReasonCode::SUCCESS);
                assert_eq!(login("other", None, Some("secret")), wrong);
            }
            assert_eq!(login(&id, None, None), wrong);
            assert_eq!(login(&id, Some("somebody"), Some("secret")), wrong, "who is not proven to be there");
            assert_eq!(login("other", Some(&id), Some("secret")), wrong);
            assert_eq!(login("other", None, None), ReasonCode::SUCCESS, "the file says nothing of it");
            let user = login("other", Some("six"), Some("secret"));
            assert_eq!(user, if settings.len() > 1 { ReasonCode::SUCCESS } else { wrong });
        });
    }
}

#[test]
fn passwd_maintains_a_file_of_client_identifiers() {
    let folder = Folder::new();
    let file = folder.path("clients");
    for (id, password) in [("aa:bb:cc", "secret"), ("aa:bb", "other")] {
        assert_eq!(passwd(&[&file, id], password), (true, String::new()));
    }
    everywhere(1, &[("auth.client_id_file", &file)], |broker, version| {
        let login = |id, password| code(broker, &Login::new(version, id).user(id, password));
        assert_eq!(login("aa:bb:cc", "secret"), ReasonCode::SUCCESS);
        assert_eq!(login("aa:bb", "other"), ReasonCode::SUCCESS);
        assert_eq!(login("aa:bb", "secret"), said(version, ReasonCode::BAD_USERNAME_OR_PASSWORD));
    });
}
