//! Texts that stand in lists: names with hashes, tokens, hosts.

use crate::api::{Secret, User};
use crate::auth::http::{Header, Param};
use crate::auth::{Claim, Source};
use crate::limits::{
    HTTP_NAMES_MAX, HTTP_TEXT_BYTES_MAX, HTTP_TOKEN_BYTES_MIN, NETWORKS_MAX, USER_RATES_MAX,
};
use crate::listener::Network;
use crate::session::UserRates;
use std::path::PathBuf;

/// One of them: how it is read and shown.
pub(super) trait Item: Sized {
    /// How many there may be in a list.
    const COUNT_MAX: usize = HTTP_NAMES_MAX;
    /// From a text. The error does not repeat a text that may be a secret.
    fn read(text: &str) -> Result<Self, String>;
    /// As a text.
    fn show(&self) -> String;
}

impl Item for User {
    fn read(text: &str) -> Result<User, String> {
        User::read(text)
    }

    fn show(&self) -> String {
        User::show(self)
    }
}

/// A bearer token.
impl Item for Secret {
    fn read(text: &str) -> Result<Secret, String> {
        let fits = (HTTP_TOKEN_BYTES_MIN..=HTTP_TEXT_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Secret::new(text));
        }
        Err(format!("expected tokens of {HTTP_TOKEN_BYTES_MIN} to {HTTP_TEXT_BYTES_MAX} visible characters"))
    }

    fn show(&self) -> String {
        self.text().to_owned()
    }
}

impl Item for Network {
    const COUNT_MAX: usize = NETWORKS_MAX;

    fn read(text: &str) -> Result<Network, String> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A path of a file.
impl Item for PathBuf {
    fn read(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() || text.ends_with('/') {
            return Err(format!("expected paths of files, got {text:?}"));
        }
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// An origin of web pages.
impl Item for String {
    fn read(text: &str) -> Result<String, String> {
        let fits = text.len() <= HTTP_TEXT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits && text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/')) {
            return Ok(text.to_owned());
        }
        Err(format!("expected origins such as \"https://example.org\", got {text:?}"))
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Item for Claim {
    fn read(text: &str) -> Result<Claim, String> {
        Claim::read(text)
    }

    fn show(&self) -> String {
        Claim::show(self)
    }
}

impl Item for Source {
    fn read(text: &str) -> Result<Source, String> {
        let found = Source::NAMES.iter().find(|(name, _)| *name == text).map(|(_, source)| *source);
        let names =
            || Source::NAMES.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("expected some of {}, got {text:?}", names()))
    }

    fn show(&self) -> String {
        self.name().to_owned()
    }
}

impl Item for Param {
    fn read(text: &str) -> Result<Param, String> {
        Param::read(text)
    }

    fn show(&self) -> String {
        Param::show(self)
    }
}

impl Item for Header {
    fn read(text: &str) -> Result<Header, String> {
        Header::read(text)
    }

    fn show(&self) -> String {
        Header::show(self)
    }
}

impl Item for UserRates {
    const COUNT_MAX: usize = USER_RATES_MAX;

    fn read(text: &str) -> Result<UserRates, String> {
        UserRates::read(text)
    }

    fn show(&self) -> String {
        UserRates::show(self)
    }
}

/// A host.
impl Item for Box<str> {
    fn read(text: &str) -> Result<Box<str>, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let name = !text.is_empty() && text.len() <= HTTP_TEXT_BYTES_MAX && text.bytes().all(fits);
        if name || text == "*" {
            return Ok(text.into());
        }
        Err(format!("expected names of hosts, or \"*\", got {text:?}"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_an_error_does_not_tell_it() {
        assert!(<Secret as Item>::read("0123456789abcdef").is_ok());
        for text in ["", "0123456789abcde", "0123456789abcde\u{e4}", &"x".repeat(HTTP_TEXT_BYTES_MAX + 1)] {
            let told = <Secret as Item>::read(text).unwrap_err();
            assert_eq!(told, "expected tokens of 16 to 512 visible characters");
        }
    }

    #[test]
    fn a_host_is_a_name_without_more() {
        for text in ["mqtt.example", "*", "a-b_c", "::1"] {
            assert!(<Box<str> as Item>::read(text).is_ok(), "{text}");
        }
        for text in ["", "http://a", "a/b", "*.example", "a b"] {
            assert!(<Box<str> as Item>::read(text).unwrap_err().ends_with(&format!("got {text:?}")));
        }
    }
}
