//! Topic names and topic filters as types that cannot hold a bad value.
//!
//! A name is what a message is published to; a filter is what a client subscribes to and may hold `+` and
//! `#`. Levels are separated by `/` and may be empty: `/` has two of them. Everything here borrows its text.

use crate::limits::TOPIC_BYTES_MAX;
use std::fmt;

/// What a shared subscription starts with.
const SHARE: &str = "$share";

/// A valid topic name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Topic<'a>(&'a str);

impl<'a> Topic<'a> {
    /// Checks a topic name: not empty [MQTT-4.7.3-1], no U+0000 [MQTT-4.7.3-2], at most 65,535 bytes
    /// [MQTT-4.7.3-3], no wildcard [MQTT-3.3.2-2]. `levels_max` 0 = no limit.
    pub fn new(text: &'a str, levels_max: usize) -> Result<Topic<'a>, TopicError> {
        check_text(text, levels_max)?;
        match text.bytes().position(|b| b == b'+' || b == b'#') {
            Some(at) => Err(TopicError::WildcardInName { at }),
            None => Ok(Topic(text)),
        }
    }

    /// A name that was checked before, such as that of a kept message.
    pub fn of_checked(text: &'a str) -> Topic<'a> {
        debug_assert!(Topic::new(text, 0).is_ok(), "the caller has checked {text:?}");
        Topic(text)
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, at least one; a level may be empty.
    pub fn levels(self) -> std::str::Split<'a, char> {
        self.0.split('/')
    }

    /// Whether it starts with `$`, so that a leading wildcard does not match it [MQTT-4.7.2-1].
    pub fn is_system(self) -> bool {
        self.0.starts_with('$')
    }
}

/// A valid topic filter, without a share name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Filter<'a>(&'a str);

impl<'a> Filter<'a> {
    /// Checks a topic filter: the rules of a name, and `#` alone in the last level [MQTT-4.7.1-1], `+` alone
    /// in its level [MQTT-4.7.1-2]. `levels_max` 0 = no limit.
    ///
    /// `$share/…` is taken literally here; [`parse_subscription`] is for what a SUBSCRIBE holds.
    pub fn new(text: &'a str, levels_max: usize) -> Result<Filter<'a>, TopicError> {
        check_text(text, levels_max)?;
        let mut at = 0;
        for level in text.split('/') {
            let end = at + level.len();
            if let Some(found) = level.bytes().position(|b| b == b'+' || b == b'#') {
                if level.len() != 1 {
                    return Err(TopicError::WildcardNotAlone { at: at + found });
                }
                if level == "#" && end != text.len() {
                    return Err(TopicError::HashNotLast { at });
                }
            }
            at = end + 1;
        }
        Ok(Filter(text))
    }

    /// A filter that was checked before, such as that of a subscription.
    pub fn of_checked(text: &'a str) -> Filter<'a> {
        debug_assert!(Filter::new(text, 0).is_ok(), "the caller has checked {text:?}");
        Filter(text)
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, at least one; a level may be empty, `+`, or as the last one `#`.
    pub fn levels(self) -> std::str::Split<'a, char> {
        self.0.split('/')
    }

    /// Whether it has no wildcard and so matches one name only.
    pub fn is_exact(self) -> bool {
        !self.0.bytes().any(|b| b == b'+' || b == b'#')
    }

    /// Whether its first level is a wildcard.
    pub fn starts_with_wildcard(self) -> bool {
        self.0.starts_with(['+', '#'])
    }

    /// Whether a message to `topic` goes to a subscriber of this filter [MQTT-4.7.1-1..3]. A leading wildcard
    /// does not match a `$` topic [MQTT-4.7.2-1]; `a/#` matches `a` as well.
    pub fn matches(self, topic: Topic<'_>) -> bool {
        if topic.is_system() && self.starts_with_wildcard() {
            return false;
        }
        let mut names = topic.levels();
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true,
                (_, None) => return false,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

/// What one entry of a SUBSCRIBE or UNSUBSCRIBE names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Subscribed<'a> {
    /// The share name of a shared subscription.
    pub group: Option<&'a str>,
    /// The topic filter.
    pub filter: Filter<'a>,
}

/// Parses a topic filter of SUBSCRIBE or UNSUBSCRIBE, `$share/{name}/{filter}` included: the name has at least
/// one character [MQTT-4.8.2-1], none of `/`, `+` and `#`, and is followed by `/` and a topic filter
/// [MQTT-4.8.2-2]. `levels_max` counts the levels of the filter alone; 0 = no limit.
pub fn parse_subscription(text: &str, levels_max: usize) -> Result<Subscribed<'_>, TopicError> {
    let shared = match text.strip_prefix(SHARE) {
        Some("") => return Err(TopicError::ShareWithoutName),
        Some(rest) => rest.strip_prefix('/'),
        None => None,
    };
    let Some(rest) = shared else {
        return Ok(Subscribed { group: None, filter: Filter::new(text, levels_max)? });
    };
    // The whole text is one string on the wire, so its length counts with the name [MQTT-1.5.4].
    check_text(text, 0)?;
    let Some((name, filter)) = rest.split_once('/') else {
        return Err(if rest.is_empty() {
            TopicError::ShareWithoutName
        } else {
            TopicError::ShareWithoutFilter
        });
    };
    if name.is_empty() {
        return Err(TopicError::ShareWithoutName);
    }
    if let Some(at) = name.bytes().position(|b| b == b'+' || b == b'#') {
        return Err(TopicError::WildcardInShareName { at });
    }
    if filter.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    Ok(Subscribed { group: Some(name), filter: Filter::new(filter, levels_max)? })
}

/// Why a text is neither a topic name nor a topic filter. Positions are bytes from the start of the part
/// that is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// No character at all.
    Empty,
    /// Longer than a string on the wire can be.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// U+0000.
    Nul {
        /// Where.
        at: usize,
    },
    /// More levels than this broker accepts.
    TooManyLevels {
        /// Its levels.
        levels: usize,
        /// The configured maximum.
        levels_max: usize,
    },
    /// `+` or `#` in a topic name.
    WildcardInName {
        /// Where.
        at: usize,
    },
    /// `+` or `#` beside other characters of its level.
    WildcardNotAlone {
        /// Where.
        at: usize,
    },
    /// `#` before the last level.
    HashNotLast {
        /// Where.
        at: usize,
    },
    /// `$share` with no name or an empty one.
    ShareWithoutName,
    /// `+` or `#` in a share name.
    WildcardInShareName {
        /// Where in the name.
        at: usize,
    },
    /// `$share/{name}` with no filter or an empty one.
    ShareWithoutFilter,
}

impl TopicError {
    /// Whether the text breaks a rule for every topic, rather than a limit of this broker or the form of a
    /// shared subscription.
    pub fn is_violation(self) -> bool {
        match self {
            TopicError::Empty
            | TopicError::TooLong { .. }
            | TopicError::Nul { .. }
            | TopicError::WildcardInName { .. }
            | TopicError::WildcardNotAlone { .. }
            | TopicError::HashNotLast { .. } => true,
            TopicError::TooManyLevels { .. }
            | TopicError::ShareWithoutName
            | TopicError::WildcardInShareName { .. }
            | TopicError::ShareWithoutFilter => false,
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TopicError::Empty => write!(f, "expected at least one character, got an empty text"),
            TopicError::TooLong { bytes } => {
                write!(f, "expected at most {TOPIC_BYTES_MAX} bytes, got {bytes}")
            }
            TopicError::Nul { at } => write!(f, "expected no U+0000, got one at byte {at}"),
            TopicError::TooManyLevels { levels, levels_max } => {
                write!(f, "expected at most {levels_max} levels, got {levels}")
            }
            TopicError::WildcardInName { at } => {
                write!(f, "expected a topic name without + and #, got one at byte {at}")
            }
            TopicError::WildcardNotAlone { at } => {
                write!(f, "expected + or # alone in its level, got it beside other characters at byte {at}")
            }
            TopicError::HashNotLast { at } => {
                write!(f, "expected # in the last level only, got levels after the one at byte {at}")
            }
            TopicError::ShareWithoutName => {
                write!(f, "expected $share/{{name}}/{{filter}}, got no share name")
            }
            TopicError::WildcardInShareName { at } => {
                write!(f, "expected a share name without + and #, got one at byte {at} of it")
            }
            TopicError::ShareWithoutFilter => {
                write!(f, "expected $share/{{name}}/{{filter}}, got no filter after the share name")
            }
        }
    }
}

impl std::error::Error for TopicError {}

/// What names and filters have in common.
fn check_text(text: &str, levels_max: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    if let Some(at) = text.bytes().position(|b| b == 0) {
        return Err(TopicError::Nul { at });
    }
    if levels_max != 0 {
        let levels = 1 + text.bytes().filter(|&b| b == b'/').count();
        if levels > levels_max {
            return Err(TopicError::TooManyLevels { levels, levels_max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        Filter::new(filter, 0).expect("a filter").matches(Topic::new(topic, 0).expect("a name"))
    }

    #[test]
    fn names_and_their_errors() {
        assert_eq!(Topic::new("a//b/", 4).map(|t| t.levels().count()), Ok(4));
        assert_eq!(Topic::new("", 0), Err(TopicError::Empty)); // [MQTT-4.7.3-1]
        assert_eq!(Topic::new("a\0", 0), Err(TopicError::Nul { at: 1 })); // [MQTT-4.7.3-2]
        assert_eq!(Topic::new("a/+", 0), Err(TopicError::WildcardInName { at: 2 })); // [MQTT-3.3.2-2]
        assert_eq!(Topic::new("a#", 0), Err(TopicError::WildcardInName { at: 1 }));
        assert_eq!(Topic::new("a/b/c", 2), Err(TopicError::TooManyLevels { levels: 3, levels_max: 2 }));
        let long = "x".repeat(TOPIC_BYTES_MAX + 1); // [MQTT-4.7.3-3]
        assert!(Topic::new(&long[1..], 1).is_ok());
        assert_eq!(Topic::new(&long, 0), Err(TopicError::TooLong { bytes: 65_536 }));
        assert!(Topic::new("$SYS/x", 0).is_ok_and(Topic::is_system));
        assert!(Topic::new("a/$SYS", 0).is_ok_and(|t| !t.is_system()));
    }

    #[test]
    fn mqtt_4_7_1_1_and_2_wildcards_stand_alone() {
        for good in ["#", "+", "/", "a/#", "+/+/#", "/+", "+/", "a/+/b", "$SYS/#", "$shared/x"] {
            assert!(Filter::new(good, 0).is_ok(), "{good}");
        }
        for (bad, at) in [("a#", 1), ("a/b#", 3), ("#a", 0), ("a+", 1), ("a/+b", 2), ("++", 0), ("+#", 0)] {
            assert_eq!(Filter::new(bad, 0), Err(TopicError::WildcardNotAlone { at }), "{bad}");
        }
        assert_eq!(Filter::new("a/#/b", 0), Err(TopicError::HashNotLast { at: 2 }));
        assert_eq!(Filter::new("#/", 0), Err(TopicError::HashNotLast { at: 0 }));
        assert!(Filter::new("a/b", 0).is_ok_and(Filter::is_exact));
        assert!(Filter::new("a/+", 0).is_ok_and(|f| !f.is_exact()));
    }

    #[test]
    fn the_examples_of_section_4_7_1() {
        let filter = "sport/tennis/player1/#";
        assert!(matches(filter, "sport/tennis/player1"));
        assert!(matches(filter, "sport/tennis/player1/ranking"));
        assert!(matches(filter, "sport/tennis/player1/score/wimbledon"));
        assert!(!matches(filter, "sport/tennis/player10"));
        assert!(matches("sport/#", "sport"));
        assert!(matches("sport/tennis/+", "sport/tennis/player2"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(
            matches("+/#", "a") && matches("#", "/") && matches("a//b", "a//b") && !matches("a/b", "a//b")
        );
    }

    #[test]
    fn mqtt_4_7_2_1_leading_wildcards_skip_system_topics() {
        assert!(!matches("#", "$SYS") && !matches("+", "$SYS"));
        assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/#", "$SYS/monitor") && matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(matches("a/#", "a/$SYS"));
    }

    #[test]
    fn mqtt_4_8_2_1_and_2_shared_subscriptions() {
        let got = parse_subscription("$share/g/a/+/#", 3).expect("a shared subscription");
        assert_eq!((got.group, got.filter.as_str()), (Some("g"), "a/+/#"));
        let got = parse_subscription("$share/g//", 0).expect("a filter of two empty levels");
        assert_eq!((got.group, got.filter.as_str()), (Some("g"), "/"));
        let got = parse_subscription("$shared/g/a", 0).expect("an ordinary filter");
        assert_eq!((got.group, got.filter.as_str()), (None, "$shared/g/a"));
        for (bad, why) in [
            ("$share", TopicError::ShareWithoutName),
            ("$share/", TopicError::ShareWithoutName),
            ("$share//a", TopicError::ShareWithoutName),
            ("$share/g", TopicError::ShareWithoutFilter),
            ("$share/g/", TopicError::ShareWithoutFilter),
            ("$share/g+/a", TopicError::WildcardInShareName { at: 1 }),
            ("$share/#/a", TopicError::WildcardInShareName { at: 0 }),
            ("$share/g/a#", TopicError::WildcardNotAlone { at: 1 }),
            ("$share/g\0/a", TopicError::Nul { at: 8 }),
            ("$share/g/a/b", TopicError::TooManyLevels { levels: 2, levels_max: 1 }),
        ] {
            assert_eq!(parse_subscription(bad, 1), Err(why), "{bad}");
        }
    }

    #[test]
    fn errors_say_expected_and_got() {
        let error = Topic::new("a/b/c", 2).expect_err("three levels");
        assert_eq!(error.to_string(), "expected at most 2 levels, got 3");
        assert_eq!(
            TopicError::ShareWithoutName.to_string(),
            "expected $share/{name}/{filter}, got no share name"
        );
    }
}
