//! Raw values and what a key accepts.

use super::items::Item;
use super::options::{Durability, IoChoice, QueueFull, SharedStrategy};
use crate::api::{Auth, Secret};
use crate::auth::DenyAction;
use crate::auth::http::{Format as BodyFormat, Method};
use crate::listener;
use crate::log::{Format, Level, Rotation};
use crate::transport::{ClientCertificates, NameFrom};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// A value as it is written, before a key has checked it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// A string.
    Text(String),
    /// An array of strings.
    List(Vec<String>),
}

impl std::fmt::Display for Value {
    /// As TOML.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Number(n) => write!(f, "{n}"),
            Value::Flag(b) => write!(f, "{b}"),
            Value::Text(text) => quoted(text, f),
            Value::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    quoted(item, f)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A basic string of TOML, whose escapes are not those of Rust.
fn quoted(text: &str, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_str("\"")
}

/// What a key accepts.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number of `unit`, `min` to `max`.
    Number {
        /// What is counted.
        unit: &'static str,
        /// The least that is accepted.
        min: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these names.
    Choice(fn() -> Vec<&'static str>),
    /// A path, possibly empty.
    Path,
    /// A text of at most this many bytes, possibly empty.
    Text {
        /// Bytes at most.
        bytes_max: usize,
    },
    /// Addresses with ports; `off` says whether `"off"` is accepted.
    Addresses {
        /// Whether none at all is accepted.
        off: bool,
        /// What a port alone means: 127.0.0.1, or all addresses of both families.
        local: bool,
    },
    /// An address with a port.
    Bind,
    /// A list of texts without spaces, possibly empty; what each of them is, in words.
    Texts(&'static str),
}

impl Kind {
    /// What is accepted, in words: `a whole number from 1 to 65535 (messages)`.
    pub fn expected(&self) -> String {
        match self {
            Kind::Number { unit, min, max } => format!("a whole number from {min} to {max} ({unit})"),
            Kind::Flag => "true or false".to_owned(),
            Kind::Choice(names) => {
                let names: Vec<_> = names().iter().map(|name| format!("\"{name}\"")).collect();
                format!("one of {}", names.join(", "))
            }
            Kind::Path => "a path, or \"\"".to_owned(),
            Kind::Text { bytes_max } => format!("a text of at most {bytes_max} bytes, or \"\""),
            Kind::Texts(what) => format!("a list of {what}"),
            Kind::Bind => "an address such as \"[::]:1883\" or \"127.0.0.1:1884\", or a port".to_owned(),
            Kind::Addresses { off: false, .. } => {
                "addresses such as [\"[::]:1883\", \"127.0.0.1:1884\"]".to_owned()
            }
            Kind::Addresses { off: true, .. } => {
                "addresses such as [\"127.0.0.1:8081\"], or \"off\"".to_owned()
            }
        }
    }

    /// Checks type and bounds.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn accept(&self, value: Value) -> Result<Value, String> {
        let fits = match (self, &value) {
            (Kind::Number { min, max, .. }, Value::Number(n)) => (min..=max).contains(&n),
            (Kind::Flag, Value::Flag(_)) | (Kind::Path | Kind::Bind, Value::Text(_)) => true,
            (Kind::Text { bytes_max }, Value::Text(text)) => {
                text.len() <= *bytes_max && !text.contains(char::is_control)
            }
            (Kind::Choice(names), Value::Text(text)) => names().contains(&text.as_str()),
            (Kind::Addresses { local, .. }, Value::List(items)) => {
                return Ok(Value::List(items.iter().map(|item| at_home(item, *local)).collect()));
            }
            (Kind::Addresses { local, .. }, Value::Text(text)) => {
                return Ok(Value::List(vec![at_home(text, *local)]));
            }
            (Kind::Texts(_), Value::List(_)) => true,
            (Kind::Texts(_), Value::Text(text)) => return Ok(Value::List(words(text))),
            _ => false,
        };
        if fits { Ok(value) } else { Err(format!("expected {}, got {value}", self.expected())) }
    }

    /// Reads the text of an environment variable or of `--set`: numbers, `true` and `false`, names and
    /// paths as they are, addresses separated by commas, lists of texts by spaces.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read_text(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self {
            Kind::Number { .. } => text.replace('_', "").parse().map(Value::Number).ok(),
            Kind::Flag => text.parse().map(Value::Flag).ok(),
            Kind::Choice(_) | Kind::Path | Kind::Bind | Kind::Text { .. } => {
                Some(Value::Text(text.to_owned()))
            }
            Kind::Addresses { .. } => {
                Some(Value::List(text.split(',').map(|item| item.trim().to_owned()).collect()))
            }
            Kind::Texts(_) => Some(Value::List(words(text))),
        };
        let value = value.ok_or_else(|| format!("expected {}, got {text:?}", self.expected()))?;
        self.accept(value)
    }
}

/// A type of an option, between its field and a [`Value`] that its [`Kind`] accepted.
pub(super) trait Field {
    /// As a value.
    fn show(&self) -> Value;
    /// From a value.
    fn put(&mut self, value: Value) -> Result<(), String>;
}

macro_rules! number_fields {
    ($($ty:ty)*) => {$(
        impl Field for $ty {
            fn show(&self) -> Value {
                Value::Number(u64::from(*self))
            }

            fn put(&mut self, value: Value) -> Result<(), String> {
                let Value::Number(n) = value else { return Err(format!("expected a whole number, got {value}")) };
                let most = <$ty>::MAX;
                *self = n.try_into().map_err(|_| format!("expected at most {most}, got {n}"))?;
                Ok(())
            }
        }
    )*};
}
number_fields!(u8 u16 u32 u64);

macro_rules! choice_fields {
    ($($ty:ty)*) => {$(
        impl Field for $ty {
            fn show(&self) -> Value {
                let name = <$ty>::NAMES.iter().find(|(_, value)| value == self).map_or("", |(name, _)| name);
                Value::Text(name.to_owned())
            }

            fn put(&mut self, value: Value) -> Result<(), String> {
                let found = match &value {
                    Value::Text(text) => <$ty>::NAMES.iter().find(|(name, _)| name == text),
                    _ => None,
                };
                *self = found.ok_or_else(|| format!("expected a name, got {value}"))?.1;
                Ok(())
            }
        }
    )*};
}
choice_fields!(
    DenyAction BodyFormat Method QueueFull SharedStrategy Durability IoChoice Level Format Rotation Auth
);
choice_fields!(listener::Kind listener::TlsVersion ClientCertificates NameFrom);

impl Field for bool {
    fn show(&self) -> Value {
        Value::Flag(*self)
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::Flag(flag) = value else { return Err(format!("expected true or false, got {value}")) };
        *self = flag;
        Ok(())
    }
}

impl Field for Box<str> {
    fn show(&self) -> Value {
        Value::Text(self.to_string())
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err(format!("expected a text, got {value}")) };
        *self = text.into();
        Ok(())
    }
}

impl Field for Secret {
    fn show(&self) -> Value {
        Value::Text(self.text().to_owned())
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err("expected a text".to_owned()) };
        *self = Secret::new(&text);
        Ok(())
    }
}

impl<T: Item> Field for Vec<T> {
    fn show(&self) -> Value {
        Value::List(self.iter().map(Item::show).collect())
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::List(items) = value else { return Err(format!("expected a list of texts, got {value}")) };
        if items.len() > T::COUNT_MAX {
            return Err(format!("expected at most {}, got {}", T::COUNT_MAX, items.len()));
        }
        *self = items.iter().map(|item| T::read(item)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// An empty text is no path.
impl Field for Option<PathBuf> {
    fn show(&self) -> Value {
        Value::Text(self.as_ref().map_or(String::new(), |path| path.display().to_string()))
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err(format!("expected a path, got {value}")) };
        if text.ends_with('/') {
            return Err(format!("expected the path of a file, got the folder {text:?}"));
        }
        *self = (!text.is_empty()).then(|| PathBuf::from(text));
        Ok(())
    }
}

/// An empty list is `"off"`; whether that is accepted is checked with the whole configuration.
impl Field for Vec<SocketAddr> {
    fn show(&self) -> Value {
        if self.is_empty() {
            return Value::List(vec!["off".to_owned()]);
        }
        Value::List(self.iter().map(SocketAddr::to_string).collect())
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::List(items) = value else { return Err(format!("expected addresses, got {value}")) };
        if items.len() == 1 && items[0] == "off" {
            self.clear();
            return Ok(());
        }
        let addrs: Vec<_> = items.iter().map(|item| address(item)).collect::<Result<_, _>>()?;
        if let Some(twice) = addrs.iter().enumerate().find(|(i, a)| a.port() != 0 && addrs[..*i].contains(a))
        {
            return Err(format!("{} is there twice", twice.1));
        }
        *self = addrs;
        Ok(())
    }
}

/// Where a listener listens.
impl Field for Option<SocketAddr> {
    fn show(&self) -> Value {
        Value::Text(self.as_ref().map_or(String::new(), SocketAddr::to_string))
    }

    fn put(&mut self, value: Value) -> Result<(), String> {
        let Value::Text(text) = value else { return Err(format!("expected an address, got {value}")) };
        *self = Some(address(&text)?);
        Ok(())
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A port alone as one of 127.0.0.1, where that is what it means.
fn at_home(text: &str, local: bool) -> String {
    let port = text.strip_prefix(':').unwrap_or(text);
    if local && port.parse::<u16>().is_ok() { format!("127.0.0.1:{port}") } else { text.to_owned() }
}

/// Reads `IP:PORT`, `[IPv6]:PORT`, `localhost:PORT`, or a port alone (`1883`, `:1883`, `*:1883`), which
/// means all addresses of both families.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bad = || {
        let forms =
            "an IP address with a port (\"127.0.0.1:1883\", \"[::]:1883\") or a port alone (\"1883\")";
        format!("expected {forms}, got {text:?}")
    };
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().map_err(|_| bad())?;
    match host {
        "" | "*" => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_each_form() {
        let all = "[::]:1883".parse().ok();
        for text in ["1883", ":1883", "*:1883", "[::]:1883"] {
            assert_eq!(address(text).ok(), all, "{text}");
        }
        assert_eq!(address("localhost:1").ok(), "127.0.0.1:1".parse().ok());
        assert_eq!(address("10.0.0.1:0").ok(), "10.0.0.1:0".parse().ok());
        for text in ["", ":", "1.2.3.4", "example.org:1883", "[::1]", "65536", "::1:1883x", "1.2.3:1", "-1"] {
            let error = address(text).unwrap_err();
            assert!(error.contains(&format!("got {text:?}")), "{error}");
        }
    }

    #[test]
    fn a_list_of_addresses_refuses_a_repeat_but_not_two_free_ports() {
        let mut addrs: Vec<SocketAddr> = Vec::new();
        let list = |items: &[&str]| Value::List(items.iter().map(|s| (*s).to_owned()).collect());
        assert!(addrs.put(list(&["1883", "[::]:1883"])).unwrap_err().contains("twice"));
        addrs.put(list(&["127.0.0.1:0", "127.0.0.1:0"])).unwrap();
        assert_eq!(addrs.len(), 2);
        addrs.put(list(&["off"])).unwrap();
        assert_eq!(addrs, []);
        assert_eq!(addrs.show(), list(&["off"]));
        assert!(addrs.put(list(&["off", "1883"])).is_err());
    }

    #[test]
    fn bounds_and_types_are_checked() {
        let kind = Kind::Number { unit: "messages", min: 1, max: 65_535 };
        assert_eq!(kind.read_text("1"), Ok(Value::Number(1)));
        assert_eq!(kind.read_text(" 65_535 "), Ok(Value::Number(65_535)));
        for text in ["0", "65536", "-1", "1.5", "", "many"] {
            let error = kind.read_text(text).unwrap_err();
            assert!(error.starts_with("expected a whole number from 1 to 65535 (messages), got "), "{error}");
        }
        assert!(Kind::Flag.read_text("yes").unwrap_err().contains("true or false"));
        assert!(Kind::Flag.accept(Value::Number(1)).is_err());
        assert!(Kind::Path.accept(Value::Flag(true)).is_err());
    }

    #[test]
    fn a_number_too_large_for_its_field_is_an_error_and_not_cut() {
        let mut field = 7u8;
        assert!(field.put(Value::Number(256)).is_err());
        assert_eq!(field, 7);
    }

    #[test]
    fn a_text_is_short_and_has_no_control_characters() {
        let kind = Kind::Text { bytes_max: 4 };
        for text in ["", "a/b/", "\u{e4}\u{e4}"] {
            assert_eq!(kind.read_text(text), Ok(Value::Text(text.to_owned())));
        }
        for text in ["abcde", "\u{e4}\u{e4}x", "a\0b", "a\nb"] {
            let error = kind.accept(Value::Text(text.to_owned())).unwrap_err();
            assert!(error.starts_with("expected a text of at most 4 bytes, or \"\", got "), "{error}");
        }
    }

    #[test]
    fn a_port_alone_is_on_this_machine_or_on_all_addresses() {
        let read = |local, text| {
            let mut addrs: Vec<SocketAddr> = Vec::new();
            addrs.put(Kind::Addresses { off: true, local }.read_text(text).unwrap()).unwrap();
            addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(read(true, "8081,:6060,*:8080"), ["127.0.0.1:8081", "127.0.0.1:6060", "[::]:8080"]);
        assert_eq!(read(false, "1883,:1884"), ["[::]:1883", "[::]:1884"]);
        assert_eq!(read(true, "0.0.0.0:80"), ["0.0.0.0:80"]);
        assert_eq!(read(true, "off"), [] as [&str; 0]);
    }

    #[test]
    fn a_path_is_a_file() {
        let mut path = Some(PathBuf::from("x"));
        path.put(Value::Text(String::new())).unwrap();
        assert_eq!(path, None);
        assert!(path.put(Value::Text("/var/log/".to_owned())).is_err());
    }
}
