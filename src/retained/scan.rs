//! Which retained messages match a filter, page by page, in the order of their topics.

use super::{Retained, expired};
use crate::limits::{LOOK_BYTES, SCAN_SEEK_STEPS};
use crate::message::Message;
use crate::time::Moment;
use crate::topic::{Filter, Topic};

/// How a page of a scan ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Everything was seen.
    Done,
    /// The page is full or its steps are used up.
    More {
        /// Where the next page goes on: behind this topic, which need not exist by then.
        after: Box<str>,
    },
}

impl Retained {
    /// Appends the messages that match `filter` and did not expire to `out`, in the order of their topics'
    /// bytes, from behind `after`. Takes `steps_max` steps and appends `limit` messages at most (at least
    /// one each). A look at a topic is one step, and one more for each [`LOOK_BYTES`] of it; a subtree that cannot
    /// match is skipped, for [`SCAN_SEEK_STEPS`] steps. Between pages the messages may
    /// change: each topic that was there all the time is seen once.
    pub fn scan(
        &self,
        filter: Filter<'_>,
        after: Option<&str>,
        now: Moment,
        steps_max: usize,
        limit: usize,
        out: &mut Vec<Message>,
    ) -> Scan {
        if filter.is_exact() {
            out.extend(self.get(filter.as_str(), now).filter(|_| after.is_none()).cloned());
            return Scan::Done;
        }
        let prefix = literal_prefix(filter);
        let mut place = match after {
            Some(after) if after >= prefix => self.order.seek(|index| self.topic(index) <= after.as_bytes()),
            _ => self.order.seek(|index| self.topic(index) < prefix.as_bytes()),
        };
        let (mut steps, end) = (0, out.len() + limit.max(1));
        let mut seek = String::new();
        let mut last = "";
        while let Some(index) = self.order.entry(place) {
            if steps >= steps_max.max(1) || out.len() >= end {
                return Scan::More { after: Box::from(last) };
            }
            let message = &self.messages[index];
            let view = message.view();
            steps += 1 + view.topic.len() / LOOK_BYTES;
            if !view.topic.starts_with(prefix) {
                return Scan::Done;
            }
            last = view.topic;
            match compare(filter, Topic::of_checked(view.topic), &mut seek) {
                Compared::Matches => {
                    if !expired(&view.head, now) {
                        out.push(message.clone());
                    }
                    place = self.order.next(place);
                }
                Compared::Step => place = self.order.next(place),
                Compared::Seek => {
                    steps += SCAN_SEEK_STEPS * (1 + seek.len() / LOOK_BYTES);
                    debug_assert!(&*seek > last, "a seek goes forward, from {last:?} to {seek:?}");
                    place = self.order.seek(|index| self.topic(index) < seek.as_bytes());
                }
                Compared::Done => return Scan::Done,
            }
        }
        Scan::Done
    }
}

/// Everything that matches starts with this: the levels in front of the first wildcard.
fn literal_prefix(filter: Filter<'_>) -> &str {
    let text = filter.as_str();
    let end = text.find(['+', '#']).unwrap_or(text.len());
    // Without the last `/`, for `a/#` matches `a`.
    text[..end].strip_suffix('/').unwrap_or(&text[..end])
}

/// How a topic stands to a filter, and where in the order of topics the next one that matches can be.
#[derive(PartialEq, Eq, Debug)]
enum Compared {
    Matches,
    /// No match; the next topic may be one.
    Step,
    /// No match before the text in `seek`.
    Seek,
    /// No match from here on.
    Done,
}

fn compare(filter: Filter<'_>, topic: Topic<'_>, seek: &mut String) -> Compared {
    let text = topic.as_str();
    if topic.is_system() && filter.starts_with_wildcard() {
        // Past all `$` topics, which a leading wildcard does not match [MQTT-4.7.2-1]: `%` follows `$`.
        return seek_to(seek, "%", "");
    }
    // Where the current level starts; `None` when the topic has no more levels.
    let mut start = Some(0);
    let mut levels = filter.levels().peekable();
    while let Some(level) = levels.next() {
        if level == "#" {
            return Compared::Matches;
        }
        let Some(at) = start else { return Compared::Step };
        let rest = &text[at..];
        let len = rest.find('/').unwrap_or(rest.len());
        if level != "+" && level != &rest[..len] {
            return match () {
                () if rest < level => seek_to(seek, &text[..at], level),
                // `rest` may lie between `level` and `level/`, such as `b-1` between `b` and `b/1`.
                () if levels.peek().is_some() && is_below_slash(rest, level) => {
                    seek_to(seek, &text[..at], level);
                    seek.push('/');
                    Compared::Seek
                }
                () => past(seek, &text[..at]),
            };
        }
        start = (len < rest.len()).then_some(at + len + 1);
    }
    match start {
        None => Compared::Matches,
        Some(at) => past(seek, &text[..at]),
    }
}

fn seek_to(seek: &mut String, prefix: &str, level: &str) -> Compared {
    seek.clear();
    seek.push_str(prefix);
    seek.push_str(level);
    Compared::Seek
}

/// Past every topic that starts with `prefix`, which is empty or ends in `/`: `0` follows `/`.
fn past(seek: &mut String, prefix: &str) -> Compared {
    match prefix.strip_suffix('/') {
        Some(parent) => seek_to(seek, parent, "0"),
        None => Compared::Done,
    }
}

/// Whether `text` is below `level` with `/` behind it.
fn is_below_slash(text: &str, level: &str) -> bool {
    text.bytes().lt(level.bytes().chain([b'/']))
}
