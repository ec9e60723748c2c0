//! Mountpoints: what stands before every topic of a listener's clients, without their knowing.
//!
//! `%c` becomes the client identifier, `%u` the user name. What they put in must not reach beyond its level: with a
//! `/`, `+` or `#` in its identifier a client would read or write below the mountpoint of another.

use crate::limits::MOUNTPOINT_BYTES_MAX;
use crate::topic::{Topic, TopicError};

/// The prefix of shared subscriptions, which stays first.
const SHARE: &str = "$share/";

/// Why a client cannot have its mountpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmountable {
    /// Its client identifier has a character that reaches beyond a level.
    ClientId,
    /// It has no user name, or one with such a character.
    Username,
}

/// Checks a mountpoint as it is configured.
///
/// # Errors
/// What was expected and what came.
pub fn check(template: &str) -> Result<(), String> {
    let fits = template.len() <= MOUNTPOINT_BYTES_MAX
        && !template.starts_with('$')
        && (template.is_empty() || Topic::new(template, 0).is_ok());
    if fits {
        return Ok(());
    }
    let form = format!("the beginning of a topic of at most {MOUNTPOINT_BYTES_MAX} bytes without + and #");
    Err(format!("expected {form}, which does not begin with $, got {template:?}"))
}

/// The mountpoint of a client.
///
/// # Errors
/// Which of its identifiers cannot be put in.
pub fn fill(template: &str, client_id: &str, username: Option<&str>) -> Result<String, Unmountable> {
    let within_level = |text: &&str| !text.is_empty() && !text.contains(['/', '+', '#']);
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let text = match from.as_bytes().get(1) {
            Some(b'c') => Some(client_id).filter(within_level).ok_or(Unmountable::ClientId)?,
            Some(b'u') => username.filter(within_level).ok_or(Unmountable::Username)?,
            _ => {
                filled.push('%');
                rest = &from[1..];
                continue;
            }
        };
        filled.push_str(text);
        rest = &from[2..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A filter of a SUBSCRIBE below a mountpoint, behind the share name where it has one.
pub fn mounted_filter(mount: &str, filter: &str) -> String {
    let share = filter.strip_prefix(SHARE).and_then(|rest| rest.find('/'));
    let (share, filter) = filter.split_at(share.map_or(0, |at| SHARE.len() + at + 1));
    // A share name alone, which is not allowed, must not become allowed.
    if filter.is_empty() { share.to_owned() } else { format!("{share}{mount}{filter}") }
}

/// Puts a mountpoint before a topic.
///
/// # Errors
/// It is longer than a topic may be.
pub fn mounted_topic(mount: &str, topic: &str, into: &mut String) -> Result<(), TopicError> {
    into.clear();
    into.push_str(mount);
    into.push_str(topic);
    Topic::new(into, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_put_in() {
        let filled = |template| fill(template, "dev7", Some("ann"));
        for (template, expected) in [
            ("", ""),
            ("site/", "site/"),
            ("dev/%c/", "dev/dev7/"),
            ("%u/%c/", "ann/dev7/"),
            ("%c%u", "dev7ann"),
            ("100%/%x/%%c/%", "100%/%x/%dev7/%"),
            ("\u{e4}%c\u{e4}", "\u{e4}dev7\u{e4}"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(expected));
        }
        // What is put in is not looked at again.
        assert_eq!(fill("%c/%u/", "%u", Some("%c")).as_deref(), Ok("%u/%c/"));
    }

    #[test]
    fn who_would_reach_beyond_its_level_gets_none() {
        for id in ["a/b", "+", "#", "a+", "/", ""] {
            assert_eq!(fill("d/%c/", id, None), Err(Unmountable::ClientId), "{id}");
            assert_eq!(fill("d/%u/", "x", Some(id)), Err(Unmountable::Username), "{id}");
            assert_eq!(fill("d/", id, Some(id)).as_deref(), Ok("d/"));
        }
        assert_eq!(fill("d/%u/", "x", None), Err(Unmountable::Username));
    }

    #[test]
    fn a_mountpoint_is_the_beginning_of_a_topic() {
        for template in ["", "a", "a/", "/a/", "%c/%u/", "a b/"] {
            assert_eq!(check(template), Ok(()), "{template}");
        }
        let long = "x".repeat(MOUNTPOINT_BYTES_MAX + 1);
        for template in ["+/", "a/#", "$SYS/", "$share/a/", "a\0", &long] {
            assert!(check(template).unwrap_err().ends_with(&format!("got {template:?}")));
        }
    }

    #[test]
    fn filters_keep_their_share_first() {
        for (filter, expected) in [
            ("a/b", "m/a/b"),
            ("#", "m/#"),
            ("/", "m//"),
            ("$SYS/#", "m/$SYS/#"),
            ("$share/g/a/b", "$share/g/m/a/b"),
            ("$share/g/$share/h/a", "$share/g/m/$share/h/a"),
            ("$share/g//", "$share/g/m//"),
            ("$share/g", "m/$share/g"),
            ("$share/g/", "$share/g/"),
            ("$sharex/g/a", "m/$sharex/g/a"),
        ] {
            assert_eq!(mounted_filter("m/", filter), expected);
        }
    }
}
