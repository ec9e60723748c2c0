//! What an HTTP back-end is asked, as `emqx_auth_http` asks it, and what its answers mean.
//!
//! A request has an address, a method and parameters, in which placeholders stand for the client:
//!
//! | placeholder | what it stands for |
//! |---|---|
//! | `%c` `%u` `%P` | client identifier, user name, password |
//! | `%a` | address of the client |
//! | `%A` `%t` `%m` | of a question about rights: 1 for a subscription and 2 for a message, the topic or filter as the client names it, and what its listener's mountpoint puts before it |
//! | `%r` `%%` | `mqtt`, and `%` |
//!
//! What a client does not have stands there as nothing. A value can never be more than a value: it is encoded after the
//! parameters were told apart.

use crate::limits::HTTP_TEXT_BYTES_MAX;
use hyper::Uri;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

/// How back-ends are asked.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Whether a client may connect.
    pub auth: Ask,
    /// Whether one that may do so may do everything.
    pub superuser: Ask,
    /// Whether a client may do what no rule applies to.
    pub acl: Ask,
    /// How parameters are sent.
    pub format: Format,
    /// Lines of each request's head.
    pub headers: Vec<Header>,
    /// Milliseconds for an answer.
    pub timeout_ms: u32,
    /// Requests under way at most.
    pub connections: u16,
    /// Seconds for which an answer to `auth` holds for the same question; 0 = not at all.
    pub cache_s: u32,
    /// The authorities that sign the certificates of back-ends, in PEM; else those that the machine trusts.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for HttpOptions {
    /// Without headers, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpOptions({:?}, {:?}, {:?})", self.auth, self.superuser, self.acl)
    }
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            auth: Ask::new(&["clientid=%c", "username=%u", "password=%P"]),
            superuser: Ask::new(&["clientid=%c", "username=%u"]),
            acl: Ask {
                method: Method::Get,
                ..Ask::new(&[
                    "access=%A",
                    "username=%u",
                    "clientid=%c",
                    "ipaddr=%a",
                    "topic=%t",
                    "mountpoint=%m",
                ])
            },
            format: Format::default(),
            headers: Vec::new(),
            timeout_ms: 3_000,
            connections: 32,
            cache_s: 0,
            ca_file: None,
        }
    }
}

/// One kind of request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ask {
    /// Where to; empty = it is not asked.
    pub url: Box<str>,
    /// How.
    pub method: Method,
    /// With which parameters.
    pub params: Vec<Param>,
}

/// How a request is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Method {
    /// With parameters behind the address.
    Get,
    /// With parameters in the body.
    #[default]
    Post,
}

impl Method {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Method)] = &[("get", Method::Get), ("post", Method::Post)];
}

/// How the body of a request is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// As a form.
    #[default]
    Form,
    /// As an object.
    Json,
}

impl Format {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Format)] = &[("form", Format::Form), ("json", Format::Json)];
}

/// A parameter: `clientid=%c`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    name: Box<str>,
    value: Box<str>,
}

/// Letters of placeholders.
const HOLDERS: &str = "cuPaAtmr";

impl Param {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(text: &str) -> Result<Param, String> {
        let known = |value: &str| {
            let mut parts = value.split('%');
            parts.next();
            // Behind each % its letter; `%%` leaves an empty part, whose next one is no placeholder.
            loop {
                match parts.next() {
                    None => return true,
                    Some("") => {
                        if parts.next().is_none() {
                            return false;
                        }
                    }
                    Some(part) if part.starts_with(|c| HOLDERS.contains(c)) => {}
                    Some(_) => return false,
                }
            }
        };
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && text.len() <= HTTP_TEXT_BYTES_MAX && known(value) => {
                Ok(Param { name: name.into(), value: value.into() })
            }
            _ => Err(format!(
                "expected NAME=VALUE, where VALUE may hold %c, %u, %P, %a, %A, %t, %m, %r and %%, got {text:?}"
            )),
        }
    }

    /// As [`Param::read`] reads it.
    pub fn show(&self) -> String {
        format!("{}={}", self.name, self.value)
    }

    /// Its value for a client.
    fn fill(&self, of: &Subject) -> Vec<u8> {
        let mut filled = Vec::new();
        let mut rest = &*self.value;
        while let Some((before, behind)) = rest.split_once('%') {
            filled.extend_from_slice(before.as_bytes());
            let mut letters = behind.chars();
            match letters.next() {
                Some('c') => filled.extend_from_slice(of.client_id.as_bytes()),
                Some('u') => filled.extend_from_slice(of.username.unwrap_or_default().as_bytes()),
                Some('P') => filled.extend_from_slice(of.password.unwrap_or_default()),
                Some('a') => {
                    let from = of.from.map(|from| from.to_canonical().to_string());
                    filled.extend_from_slice(from.unwrap_or_default().as_bytes());
                }
                Some('A') => {
                    let access = of.deed.map_or("", |deed| deed.access.number());
                    filled.extend_from_slice(access.as_bytes());
                }
                Some('t') => filled.extend_from_slice(of.deed.map_or("", |deed| deed.topic).as_bytes()),
                Some('m') => filled.extend_from_slice(of.deed.map_or("", |deed| deed.mount).as_bytes()),
                Some('r') => filled.extend_from_slice(b"mqtt"),
                _ => filled.push(b'%'),
            }
            rest = letters.as_str();
        }
        filled.extend_from_slice(rest.as_bytes());
        filled
    }
}

/// A line of a request's head.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

impl Header {
    /// Reads `NAME:VALUE`.
    ///
    /// # Errors
    /// What was expected; not what came, which may be a secret.
    pub fn read(text: &str) -> Result<Header, String> {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match text.split_once(':') {
            Some((name, value))
                if !name.is_empty()
                    && name.chars().all(token)
                    && text.len() <= HTTP_TEXT_BYTES_MAX
                    && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) =>
            {
                Ok(Header { name: name.into(), value: value.trim().into() })
            }
            _ => Err("expected lines of a head as NAME:VALUE, in visible characters".to_owned()),
        }
    }

    /// As [`Header::read`] reads it.
    pub fn show(&self) -> String {
        format!("{}:{}", self.name, self.value)
    }
}

/// What a client wants of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To subscribe.
    Subscribe,
    /// To publish.
    Publish,
}

impl Access {
    /// As a back-end knows it.
    fn number(self) -> &'static str {
        match self {
            Access::Subscribe => "1",
            Access::Publish => "2",
        }
    }
}

/// What a client wants, as a back-end is told it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which of the two.
    pub access: Access,
    /// The topic or filter, as the client names it.
    pub topic: &'a str,
    /// What stands before it without its knowing.
    pub mount: &'a str,
}

/// Whom a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Address, where it is known.
    pub from: Option<IpAddr>,
    /// What it wants, where that is the question.
    pub deed: Option<Wanted<'a>>,
}

/// A request, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// How.
    pub method: Method,
    /// Where to, with the parameters of a [`Method::Get`].
    pub url: String,
    /// The kind of the body.
    pub content_type: &'static str,
    /// The body; empty = none.
    pub body: Vec<u8>,
}

impl Ask {
    fn new(params: &[&str]) -> Ask {
        let params = params.iter().filter_map(|param| Param::read(param).ok()).collect();
        Ask { params, ..Ask::default() }
    }

    /// Whether it is asked at all.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// The request about a client; `None` where a value cannot be written in its format.
    pub fn about(&self, format: Format, of: &Subject) -> Option<Request> {
        let (content_type, encoded) = match (self.method, format) {
            (Method::Post, Format::Json) => ("application/json", self.object(of)?),
            _ => ("application/x-www-form-urlencoded", self.form(of)),
        };
        let (mut url, body) = (self.url.to_string(), encoded);
        if self.method == Method::Post {
            return Some(Request { method: self.method, url, content_type, body: body.into_bytes() });
        }
        if !body.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&body);
        }
        Some(Request { method: self.method, url, content_type, body: Vec::new() })
    }

    fn form(&self, of: &Subject) -> String {
        let mut form = String::new();
        for param in &self.params {
            let and = if form.is_empty() { "" } else { "&" };
            let name = form_urlencoded::byte_serialize(param.name.as_bytes());
            let filled = param.fill(of);
            let value = form_urlencoded::byte_serialize(&filled);
            // Nothing fails that is written to a string.
            let _ = write!(form, "{and}{}={}", name.collect::<String>(), value.collect::<String>());
        }
        form
    }

    fn object(&self, of: &Subject) -> Option<String> {
        let member =
            |param: &Param| Some((param.name.to_string(), String::from_utf8(param.fill(of)).ok()?.into()));
        let object: Option<serde_json::Map<_, _>> = self.params.iter().map(member).collect();
        Some(serde_json::Value::Object(object?).to_string())
    }
}

/// An address as the log may have it: what stands behind the question mark may be a secret.
pub fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// Whether certificates are needed for an address.
pub fn is_secure(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

/// Whether requests can be made to an address.
///
/// # Errors
/// What was expected and what came.
pub fn check_url(url: &str) -> Result<(), String> {
    let uri: Option<Uri> = url.parse().ok();
    // A name and a password in it would not be sent.
    let plain = |uri: &Uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let fits = uri.is_some_and(|uri| {
        let http = matches!(uri.scheme_str(), Some("http" | "https"));
        http && plain(&uri) && uri.host().is_some_and(|host| !host.is_empty())
    });
    let expected = || format!("expected an address such as \"http://127.0.0.1:8080/mqtt/auth\", got {url:?}");
    fits.then_some(()).ok_or_else(expected)
}

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes.
    Allow {
        /// Whether the client may do everything, where that is said.
        superuser: bool,
    },
    /// No.
    Deny,
    /// No: 403.
    Forbid,
    /// It has nothing to say.
    Ignore,
    /// It has too much to do: 429.
    Busy,
    /// It answered as no back-end does that works.
    Broken,
}

impl Answer {
    /// Reads a status code and a body. 200 and 204 allow, unless the body is `ignore`, or an object whose `result` is
    /// `deny` or `ignore`; its `is_superuser` says more. 4xx deny.
    pub fn read(status: u16, body: &[u8]) -> Answer {
        match status {
            200 | 204 => {}
            403 => return Answer::Forbid,
            429 => return Answer::Busy,
            400..=499 => return Answer::Deny,
            _ => return Answer::Broken,
        }
        let text = body.trim_ascii();
        if text.eq_ignore_ascii_case(b"ignore") {
            return Answer::Ignore;
        }
        let Ok(object) = serde_json::from_slice::<serde_json::Value>(text) else {
            return Answer::Allow { superuser: false };
        };
        match object.get("result").map(|result| result.as_str().unwrap_or_default()) {
            None | Some("allow") => {
                Answer::Allow { superuser: object.get("is_superuser").is_some_and(|is| *is == true) }
            }
            Some("ignore") => Answer::Ignore,
            Some("deny") => Answer::Deny,
            Some(_) => Answer::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, params: &[&str]) -> Ask {
        Ask { url: "http://127.0.0.1/auth".into(), method, ..Ask::new(params) }
    }

    fn subject<'a>() -> Subject<'a> {
        Subject {
            client_id: "a&b=c%u",
            username: Some("j\u{f6}rg"),
            password: Some(b"p w\xff"),
            from: Some([10, 0, 0, 1].into()),
            deed: Some(Wanted { access: Access::Publish, topic: "a/+/b", mount: "m/" }),
        }
    }

    #[test]
    fn a_value_is_a_value_whatever_it_holds() {
        let all = ["id=%c", "u=%u", "p=%P", "t=%A-%m%t", "from=%a", "l=%r,%%,%%c", "x="];
        let form =
            "id=a%26b%3Dc%25u&u=j%C3%B6rg&p=p+w%FF&t=2-m%2Fa%2F%2B%2Fb&from=10.0.0.1&l=mqtt%2C%25%2C%25c&x=";
        let post = ask(Method::Post, &all).about(Format::Form, &subject()).unwrap();
        assert_eq!(String::from_utf8(post.body).unwrap(), form);
        assert_eq!(post.url, "http://127.0.0.1/auth");
        let get = ask(Method::Get, &all).about(Format::Json, &subject()).unwrap();
        assert_eq!((get.url, get.body), (format!("http://127.0.0.1/auth?{form}"), Vec::new()));
        // JSON has no bytes that are no text.
        let json = ask(Method::Post, &all);
        assert_eq!(json.about(Format::Json, &subject()), None);
        let text = Subject { password: Some(b"\"}"), ..subject() };
        let body = ask(Method::Post, &["id=%c", "p=%P"]).about(Format::Json, &text).unwrap().body;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, serde_json::json!({"id": "a&b=c%u", "p": "\"}"}));
    }

    #[test]
    fn what_a_client_does_not_have_is_nothing() {
        let nobody = Subject { client_id: "c", username: None, password: None, from: None, deed: None };
        let get =
            ask(Method::Get, &["u=%u", "p=%P", "a=%a", "t=%A%t%m"]).about(Format::Form, &nobody).unwrap();
        assert_eq!(get.url, "http://127.0.0.1/auth?u=&p=&a=&t=");
        assert_eq!(ask(Method::Get, &[]).about(Format::Form, &nobody).unwrap().url, "http://127.0.0.1/auth");
    }

    #[test]
    fn a_parameter_has_a_name_and_known_placeholders() {
        for text in ["a=", "a=%c", "a=%%", "a=%%%c", "a=b=c", "a=%cc", "a=x%%y%u"] {
            assert_eq!(Param::read(text).unwrap().show(), text);
        }
        for text in ["", "a", "=%c", "a=%", "a=%x", "a=%%%", "a=%c%", "a=%%%x"] {
            assert!(Param::read(text).unwrap_err().ends_with(&format!("got {text:?}")), "{text}");
        }
    }

    #[test]
    fn a_header_cannot_hold_another_one() {
        assert_eq!(Header::read("X-Key: a b").unwrap().show(), "X-Key:a b");
        for text in ["", "a", ":b", "a b:c", "a:b\r\nc:d", "a:\u{e4}"] {
            assert!(!Header::read(text).err().unwrap().contains("got"), "{text}");
        }
    }

    #[test]
    fn an_address_is_one_of_http() {
        for url in ["http://127.0.0.1:8080/mqtt/auth", "https://auth.example", "http://[::1]/a?b=c"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in
            ["", "127.0.0.1:8080", "ftp://a", "/mqtt/auth", "http://", "http:// a", "http://user:pass@a/"]
        {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn answers_mean_what_emqx_means_by_them() {
        let allow = |superuser| Answer::Allow { superuser };
        for (status, body, expected) in [
            (200, "", allow(false)),
            (200, "ok", allow(false)),
            (204, "", allow(false)),
            (200, " ignore\n", Answer::Ignore),
            (200, r#"{"result": "allow", "is_superuser": true}"#, allow(true)),
            (200, r#"{"result": "allow"}"#, allow(false)),
            (200, r#"{"is_superuser": "true"}"#, allow(false)),
            (200, r#"{"result": "deny", "is_superuser": true}"#, Answer::Deny),
            (200, r#"{"result": "ignore"}"#, Answer::Ignore),
            (200, r#"{"result": 1}"#, Answer::Broken),
            (400, "", Answer::Deny),
            (401, "allow", Answer::Deny),
            (403, "", Answer::Forbid),
            (404, "", Answer::Deny),
            (429, "", Answer::Busy),
            (302, "", Answer::Broken),
            (500, "", Answer::Broken),
            (503, "ignore", Answer::Broken),
        ] {
            assert_eq!(Answer::read(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
