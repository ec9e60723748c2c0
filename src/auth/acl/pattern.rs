//! Topic filters of rules: with places for a client's names, or to be taken literally.

use super::Client;
use crate::topic::Filter;

/// A topic filter of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    pub levels: Box<[Level]>,
    /// It means the filter of this text, wildcards and all, and not what that matches.
    pub literal: bool,
}

/// One level of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Level {
    /// `+`.
    One,
    /// `#`.
    Rest,
    /// This text.
    Text(Box<str>),
    /// Texts between names of the client.
    Template(Box<[Part]>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Text(Box<str>),
    Id,
    User,
}

impl Pattern {
    /// Reads a topic filter; `None` where it is none. `names`: whether `%c` and `%u` are places for names.
    pub fn read(text: &str, literal: bool, names: bool) -> Option<Pattern> {
        let filter = Filter::new(text, 0).ok()?;
        let levels = filter.levels().map(|level| match level {
            "+" if !literal => Level::One,
            "#" if !literal => Level::Rest,
            text if names && (text.contains("%c") || text.contains("%u")) => Level::Template(parts(text)),
            text => Level::Text(text.into()),
        });
        Some(Pattern { levels: levels.collect(), literal })
    }

    /// Whether every topic that goes to the filter matches this one as well.
    pub fn covers(&self, filter: Filter, client: &Client) -> bool {
        let starts_wild = matches!(self.levels.first(), Some(Level::One | Level::Rest));
        if starts_wild && filter.as_str().starts_with('$') {
            return false;
        }
        let mut asked = filter.levels();
        for level in &self.levels {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                (_, None) => return false,
                (_, Some("#")) if !self.literal => return false,
                (Level::One, Some(_)) => {}
                (level, Some(text)) if level.is(text, client) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether there is a topic that goes to the filter and matches this one.
    pub fn overlaps(&self, filter: Filter, client: &Client) -> bool {
        if self.literal {
            return self.covers(filter, client);
        }
        let starts_wild = matches!(self.levels.first(), Some(Level::One | Level::Rest));
        // A wildcard in front does not match what begins with `$` [MQTT-4.7.2-1].
        let system = |level: &Level| match level {
            Level::Text(text) => text.starts_with('$'),
            Level::Template(parts) => {
                matches!(parts.first(), Some(Part::Text(text)) if text.starts_with('$'))
            }
            Level::One | Level::Rest => false,
        };
        if (starts_wild && filter.as_str().starts_with('$'))
            || (filter.starts_with_wildcard() && self.levels.first().is_some_and(system))
        {
            return false;
        }
        let mut asked = filter.levels();
        for level in &self.levels {
            match (level, asked.next()) {
                (Level::Rest, _) | (_, Some("#")) => return true,
                (_, None) => return false,
                (Level::One, Some(_)) | (_, Some("+")) => {}
                (level, Some(text)) if level.is(text, client) => {}
                _ => return false,
            }
        }
        matches!(asked.next(), None | Some("#"))
    }
}

impl Level {
    /// Whether it stands for this text; a wildcard does for none.
    pub fn is(&self, text: &str, client: &Client) -> bool {
        match self {
            Level::Text(own) => **own == *text,
            Level::Template(parts) => fits(parts, text, client),
            Level::One | Level::Rest => false,
        }
    }
}

/// Whether a text is this template, filled for a client. Names that are not there, or empty, fill nothing; and a
/// wildcard is asked for by nobody's name, or whoever calls itself `+` gets what all others have.
pub(super) fn fits(parts: &[Part], text: &str, client: &Client) -> bool {
    let mut rest = text;
    if matches!(text, "+" | "#") {
        return false;
    }
    for part in parts {
        let filled = match part {
            Part::Text(text) => text,
            Part::Id => client.id,
            Part::User => client.user.unwrap_or_default(),
        };
        match rest.strip_prefix(filled) {
            Some(left) if !filled.is_empty() => rest = left,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn parts(text: &str) -> Box<[Part]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("%c").into_iter().chain(rest.find("%u")).min() {
        if at > 0 {
            parts.push(Part::Text(rest[..at].into()));
        }
        parts.push(if rest[at..].starts_with("%c") { Part::Id } else { Part::User });
        rest = &rest[at + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    parts.into()
}
