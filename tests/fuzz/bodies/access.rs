//! Password files and rules from any text: what is read can be asked, and a refusal is one line.

use super::input::Input;
use ringmq::auth::http::{Access, Answer, Ask, Format, Method, Param, Subject, Wanted};
use ringmq::auth::jwt::{Judged, Jwt};
use ringmq::auth::passwords::{Passwords, edited};
use ringmq::auth::scram::{Exchange, Verifier};
use ringmq::auth::{Acl, Client, Deed, Login};
use ringmq::message::QoS;
use ringmq::topic::Filter;

pub fn passwords(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    match Passwords::read(text.clone()) {
        Err(fault) => one_line(&fault),
        Ok(users) => {
            // A name may hold colons.
            let names = || text.lines().flat_map(|line| line.match_indices(':').map(|(at, _)| &line[..at]));
            assert!(names().filter(|name| users.hash_of(name).is_some()).count() >= users.len());
            assert_eq!(users.any_hash().is_none(), users.is_empty());
            for name in names().filter(|name| users.hash_of(name).is_some()).take(4) {
                // What cannot be a name for `ringmq passwd` stays as it is.
                let Ok((without, known)) = edited(&text, name, None) else { continue };
                assert!(known, "{name:?}");
                let left = Passwords::read(without).expect("a line less is no fault");
                assert_eq!((left.hash_of(name), left.len()), (None, users.len() - 1));
            }
        }
    }
}

pub fn acl(data: &[u8]) {
    let mut input = Input::new(data);
    let name = if input.below(2) == 0 { "acl.toml" } else { "aclfile" };
    let asked = input.below(64);
    let text = String::from_utf8_lossy(input.take(usize::MAX)).into_owned();
    let acl = match Acl::read(name, &text) {
        Err(fault) => return one_line(&fault),
        Ok(acl) => acl,
    };
    let topic = text.split(['"', '\n', ' ']).filter(|t| !t.is_empty()).nth(asked).unwrap_or("a/b");
    for user in [None, Some("ann")] {
        let client = Client { id: "c", user, from: Some([10, 0, 0, 1].into()) };
        for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
            let may = acl.allows(&client, &Deed::Publish { topic, qos, retain: user.is_some() });
            let may = may
                | Filter::new(topic, 0)
                    .is_ok_and(|filter| acl.allows(&client, &Deed::Subscribe { filter, qos }));
            assert!(!may || !acl.is_empty(), "without rules everything is denied");
        }
    }
}

/// A token without a signature that holds is refused, whatever it says; key sets and PEM from any text.
pub fn jwt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (keys, token) = text.split_once('\n').unwrap_or((&text, ""));
    let mut jwt = Jwt::new(Vec::new(), true);
    let read = [jwt.add_set(keys), jwt.add_pem(keys)];
    read.iter().filter_map(|read| read.as_ref().err()).for_each(|fault| one_line(fault));
    // Keys that anybody can read prove nothing here: only a secret of our own is asked.
    let mut jwt = Jwt::new(Vec::new(), true);
    jwt.add_secret(b"a secret of the fuzz target, of 32 bytes and more");
    let login =
        Login { client_id: "c".into(), username: None, password: Some(token.as_bytes().into()), from: None };
    assert!(!matches!(jwt.judge(&login, 1_000, None), Judged::Holds(_)), "{token}");
}

/// Messages of SCRAM from any text prove nothing to whoever does not know the password.
pub fn scram(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (first, last) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    let rounds = std::num::NonZeroU32::MIN;
    let stand_in = |user: &str| (Verifier::stand_in(b"a secret of the fuzz target", user, rounds), true);
    if let Some(exchange) = Exchange::begin(first, "ours", stand_in) {
        assert!(exchange.challenge().starts_with("r=") && !exchange.user().is_empty());
        assert_eq!(exchange.finish(last), None);
    }
    let text = String::from_utf8_lossy(data);
    if let Some(verifier) = Verifier::read(&text) {
        assert!(Verifier::read(&verifier.show()).is_some_and(|again| again == verifier));
    }
}

/// Parameters of a request from any text: those that are accepted are written as they were, and what stands for a client
/// is never a parameter of its own.
pub fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (param, value) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = Answer::read(200, data);
    let param = match Param::read(param) {
        Err(fault) => return one_line(&fault),
        Ok(param) => param,
    };
    assert_eq!(Param::read(&param.show()).expect("it was read before"), param);
    let subject = Subject {
        client_id: value,
        username: Some(value),
        password: Some(value.as_bytes()),
        from: None,
        deed: Some(Wanted { access: Access::Publish, topic: value, mount: value }),
    };
    let url = "http://127.0.0.1/".into();
    let ask = Ask { url, method: Method::Post, params: vec![param.clone()] };
    let request = ask.about(Format::Form, &subject).expect("a form takes any bytes");
    let fields: Vec<_> = form_urlencoded::parse(&request.body).collect();
    let name = param.show();
    assert_eq!(fields.len(), 1, "{name}");
    assert!(name.starts_with(&*fields[0].0));
    let json = ask.about(Format::Json, &subject).expect("these are texts");
    let object: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!(object[&*fields[0].0].as_str(), Some(&*fields[0].1));
}

fn one_line(fault: &str) {
    assert!(!fault.is_empty() && !fault.contains(['\n', '\r']), "{fault:?}");
}
