//! Names and filters against the rules of section 4.7 and 4.8.2 of the standard, written down naively, and against
//! the codec, which checks names on its own.

use super::input::Input;
use ringmq::codec::{Version, decode_publish};
use ringmq::limits::TOPIC_BYTES_MAX;
use ringmq::topic::{Filter, Topic, TopicError, parse_subscription};

pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let levels_max = usize::from(input.byte());
    // Rarely, something as long as a topic can be.
    let times = if input.byte() == 0xFF { TOPIC_BYTES_MAX / 2 } else { 1 };
    let rest = input.take(usize::MAX);
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (name, filter) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // A name or a filter: the shorter is repeated, so that the bound on their length is met.
    let name = if name.len() < 4 { name.repeat(times) } else { name.to_vec() };
    on_the_wire(&name);
    let (Ok(name), Ok(filter)) = (std::str::from_utf8(&name), std::str::from_utf8(filter)) else { return };
    let topic = Topic::new(name, levels_max);
    assert_eq!(topic.is_ok(), is_name(name) && fits(name, levels_max), "{name:?}: {topic:?}");
    told(topic.err());
    for text in [name, filter] {
        let parsed = Filter::new(text, levels_max);
        assert_eq!(parsed.is_ok(), is_filter(text) && fits(text, levels_max), "{text:?}: {parsed:?}");
        told(parsed.err());
        subscription(text, levels_max);
    }
    let (Ok(topic), Ok(filter)) = (Topic::new(name, 0), Filter::new(filter, 0)) else { return };
    let levels: Vec<&str> = filter.as_str().split('/').collect();
    let names: Vec<&str> = name.split('/').collect();
    let hidden = name.starts_with('$') && matches!(levels[0], "+" | "#");
    assert_eq!(filter.matches(topic), !hidden && naive(&levels, &names), "{filter:?} on {topic:?}");
    assert_eq!(filter.is_exact(), !filter.as_str().contains(['+', '#']));
    // A name is a filter that matches itself.
    assert!(Filter::new(name, 0).is_ok_and(|itself| itself.matches(topic) && itself.is_exact()));
}

/// The codec takes what [`Topic`] takes, and text that is no text is refused.
fn on_the_wire(name: &[u8]) {
    let Ok(len) = u16::try_from(name.len()) else { return };
    let mut body = len.to_be_bytes().to_vec();
    body.extend_from_slice(name);
    let mut packet = vec![0x30];
    let mut left = body.len();
    while left >= 0x80 {
        packet.push(left as u8 | 0x80);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.append(&mut body);
    let text = std::str::from_utf8(name).ok();
    let valid = text.is_some_and(|text| Topic::new(text, 0).is_ok());
    let decoded = decode_publish(Version::V311, &packet);
    assert_eq!(
        decoded.as_ref().is_ok_and(|publish| Some(publish.topic) == text),
        valid,
        "{name:?}: {decoded:?}"
    );
    assert_eq!(decoded.is_ok(), valid);
}

fn subscription(text: &str, levels_max: usize) {
    let parsed = parse_subscription(text, levels_max);
    let shared = text == "$share" || text.starts_with("$share/");
    let expected = if shared {
        let mut parts = text.splitn(3, '/').skip(1);
        match (parts.next(), parts.next()) {
            (Some(name), Some(filter)) => {
                let good = !name.is_empty() && !name.contains(['+', '#', '\0']);
                let good =
                    good && text.len() <= TOPIC_BYTES_MAX && is_filter(filter) && fits(filter, levels_max);
                good.then_some((Some(name), filter))
            }
            _ => None,
        }
    } else {
        (is_filter(text) && fits(text, levels_max)).then_some((None, text))
    };
    let got = parsed.as_ref().ok().map(|got| (got.group, got.filter.as_str()));
    assert_eq!(got, expected, "{text:?}: {parsed:?}");
    told(parsed.err());
}

fn told(error: Option<TopicError>) {
    assert!(
        error.is_none_or(|error| error.to_string().starts_with("expected ")),
        "{error:?}: {}",
        error.unwrap()
    );
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOPIC_BYTES_MAX && !text.contains('\0')
}

fn is_name(text: &str) -> bool {
    is_text(text) && !text.contains(['+', '#'])
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    let good = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#']),
    };
    is_text(text) && levels.iter().enumerate().all(good)
}

fn fits(text: &str, levels_max: usize) -> bool {
    levels_max == 0 || text.split('/').count() <= levels_max
}

/// Whether the levels of a filter match those of a name, whatever they begin with.
fn naive(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) => true,
        ([], []) => true,
        (["+", filter @ ..], [_, name @ ..]) => naive(filter, name),
        ([first, filter @ ..], [level, name @ ..]) => first == level && naive(filter, name),
        _ => false,
    }
}
