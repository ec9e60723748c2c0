//! Retained messages against a sorted map and [`Filter::matches`].

use super::*;
use crate::limits::SCAN_SEEK_STEPS;
use crate::message::{MessageRef, QoS};
use crate::stats::Source;
use crate::topic::{Filter, Topic};
use std::collections::BTreeMap;

const NOW: Moment = Moment(1_000);
const NO_LIMIT: Options = Options { messages_max: 0, bytes_max: 0 };

fn message(topic: &str, payload: u32, expires: Moment) -> Message {
    let head = Head { expires, ..Head::new(QoS::AtLeastOnce, true, 0, Source::Client) };
    Message::new(&MessageRef { topic, properties: b"", payload: &payload.to_be_bytes(), head })
}

fn payload(message: &Message) -> u32 {
    u32::from_be_bytes(message.view().payload.try_into().expect("four bytes"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn text(&mut self, alphabet: &[&str]) -> String {
        let depth = 1 + self.below(4);
        let mut levels: Vec<&str> = (0..depth).map(|_| alphabet[self.below(alphabet.len())]).collect();
        if self.below(8) == 0 {
            levels[0] = "$SYS";
        }
        let text = levels.join("/");
        if text.is_empty() { "/".to_owned() } else { text }
    }

    /// Levels that sort around `/`: `!` and `-` before it, `0` behind it.
    fn topic(&mut self) -> String {
        self.text(&["a", "b", "", "a-", "a0", "b!c", "é"])
    }

    fn filter(&mut self) -> String {
        let text = self.text(&["a", "b", "", "+", "+", "a-", "aa"]);
        if self.below(2) == 0 { text + "/#" } else { text }
    }
}

type Model = BTreeMap<String, (u32, Moment)>;

fn change(retained: &mut Retained, model: &mut Model, random: &mut Random, value: u32) {
    let topic = random.topic();
    if random.below(3) == 0 {
        let was = model.remove(&topic);
        assert_eq!(retained.clear(&topic).map(|old| payload(&old)), was.map(|(old, _)| old));
        return;
    }
    let expires = [Moment::NEVER, NOW, NOW.plus_ms(1)][random.below(3)];
    let old = retained.set(message(&topic, value, expires)).expect("no bound");
    assert_eq!(old.map(|old| payload(&old)), model.insert(topic, (value, expires)).map(|(old, _)| old));
}

fn expected(model: &Model, filter: &str) -> Vec<(String, u32)> {
    let filter = Filter::new(filter, 0).expect("a filter");
    let shown = |(topic, (value, expires)): (&String, &(u32, Moment))| {
        let topic_matches = filter.matches(Topic::new(topic, 0).expect("a name"));
        (topic_matches && *expires > NOW).then(|| (topic.clone(), *value))
    };
    model.iter().filter_map(shown).collect()
}

/// All pages of a scan; `between` is run between them.
fn pages(
    retained: &mut Retained,
    filter: &str,
    steps_max: usize,
    limit: usize,
    mut between: impl FnMut(&mut Retained),
) -> Vec<(String, u32)> {
    let filter = Filter::new(filter, 0).expect("a filter");
    let (mut all, mut after) = (Vec::new(), None::<Box<str>>);
    loop {
        let mut page = vec![message("before", 0, Moment::NEVER)];
        let end = retained.scan(filter, after.as_deref(), NOW, steps_max, limit, &mut page);
        assert!(page.len() <= 1 + limit.min(steps_max), "{} in a page", page.len());
        all.extend(page[1..].iter().map(|message| (message.topic().to_owned(), payload(message))));
        match end {
            Scan::Done => return all,
            Scan::More { after: next } => {
                assert!(after.is_none_or(|before| before < next), "a page goes forward");
                after = Some(next);
            }
        }
        between(retained);
    }
}

#[test]
fn agrees_with_a_sorted_map() {
    for seed in 1..=4 {
        let (mut retained, mut model) = (Retained::new(NO_LIMIT, seed), Model::new());
        let mut random = Random(seed);
        for value in 0..6_000 {
            change(&mut retained, &mut model, &mut random, value);
            let topic = random.topic();
            let shown = model.get(&topic).filter(|(_, expires)| *expires > NOW).map(|(value, _)| *value);
            assert_eq!(retained.get(&topic, NOW).map(payload), shown);
            assert_eq!(retained.len(), model.len());
            if value % 8 == 0 {
                let filter = random.filter();
                let (steps_max, limit) = (1 + random.below(40), 1 + random.below(20));
                let got = pages(&mut retained, &filter, steps_max, limit, |_| {});
                assert_eq!(got, expected(&model, &filter), "{filter}");
            }
        }
        let topics: Vec<String> = model.into_keys().collect();
        for topic in topics {
            assert!(retained.clear(&topic).is_some());
        }
        assert!(retained.is_empty());
        assert_eq!((retained.bytes(), retained.expiring, retained.messages.bytes()), (0, 0, 0));
        assert_eq!(retained.table.allocation_size(), 0);
    }
}

#[test]
fn a_scan_survives_changes_between_its_pages() {
    let mut random = Random(11);
    for round in 0..300 {
        let (mut retained, mut model) = (Retained::new(NO_LIMIT, round), Model::new());
        for value in 0..300 {
            change(&mut retained, &mut model, &mut random, value);
        }
        let filter = random.filter();
        let mut always: BTreeMap<String, u32> = expected(&model, &filter).into_iter().collect();
        let mut ever = always.keys().cloned().collect::<std::collections::BTreeSet<String>>();
        let mut value = 1_000;
        let got = pages(&mut retained, &filter, 7, 3, |retained| {
            for _ in 0..5 {
                value += 1;
                change(retained, &mut model, &mut random, value);
            }
            let shown = expected(&model, &filter);
            always.retain(|topic, _| shown.iter().any(|(shown, _)| shown == topic));
            ever.extend(shown.into_iter().map(|(topic, _)| topic));
        });
        assert!(got.is_sorted_by(|a, b| a.0 < b.0), "in order, and no topic twice");
        assert!(always.keys().all(|topic| got.iter().any(|(got, _)| got == topic)), "{filter}");
        assert!(got.iter().all(|(topic, _)| ever.contains(topic)), "{filter}");
    }
}

#[test]
fn a_scan_skips_what_cannot_match() {
    let mut retained = Retained::new(NO_LIMIT, 1);
    for site in 0..10 {
        for device in 0..1000 {
            let topic = format!("site{site}/{device:03}/state");
            retained.set(message(&topic, site * 1000 + device, Moment::NEVER)).expect("no bound");
        }
    }
    let mut out = Vec::new();
    for (filter, (looks, seeks), matching) in [
        ("site3/#", (1001, 1), 1000),
        ("+/500/#", (31, 20), 10),
        ("site3/500/+", (2, 1), 1),
        ("+/+/other", (20_001, 20_000), 0),
        ("x/#", (1, 0), 0),
    ] {
        out.clear();
        let steps_max = looks + seeks * SCAN_SEEK_STEPS;
        let filter = Filter::new(filter, 0).expect("a filter");
        let end = retained.scan(filter, None, NOW, steps_max, usize::MAX, &mut out);
        assert_eq!((end, out.len()), (Scan::Done, matching), "{filter:?}");
    }
}

#[test]
fn bounds_refuse_and_keep_the_old_message() {
    let one = reckoned(&message("a", 1, Moment::NEVER));
    let mut retained = Retained::new(Options { messages_max: 2, bytes_max: 0 }, 1);
    for topic in ["a", "b", "a"] {
        retained.set(message(topic, 1, Moment::NEVER)).expect("room for two");
    }
    let refused = retained.set(message("c", 1, Moment::NEVER));
    assert_eq!(refused.expect_err("no room for three"), Full::Messages { messages_max: 2 });
    assert_eq!((retained.len(), retained.bytes()), (2, 2 * one));
    retained.set_options(Options { messages_max: 0, bytes_max: 2 * one });
    let refused = retained.set(message("longer", 1, Moment::NEVER)).expect_err("no room");
    assert!(matches!(refused, Full::Bytes { bytes_max, .. } if bytes_max == 2 * one));
    assert_eq!(
        payload(&retained.set(message("a", 2, Moment::NEVER)).expect("no larger").expect("an old")),
        1
    );
    retained.set_options(Options { messages_max: 0, bytes_max: 1 });
    assert!(retained.set(message("a", 3, Moment::NEVER)).is_ok(), "it does not grow");
    assert!(retained.clear("b").is_some());
    assert_eq!(retained.get("a", NOW).map(payload), Some(3));
}

#[test]
fn a_sweep_removes_what_expired_within_its_budget() {
    let mut retained = Retained::new(NO_LIMIT, 1);
    let mut removed = Vec::new();
    assert!(retained.expire(NOW, 10, &mut removed), "nothing expires");
    for n in 0..100u32 {
        let expires = if n % 2 == 0 { NOW } else { NOW.plus_ms(1) };
        retained.set(message(&format!("t/{n}"), n, expires)).expect("no bound");
    }
    assert!(!retained.expire(NOW, 30, &mut removed));
    assert_eq!((removed.len(), retained.len()), (15, 85));
    assert!(!retained.expire(NOW, 70, &mut removed));
    assert!(retained.expire(NOW, 10, &mut removed), "the end of the pass");
    assert_eq!((removed.len(), retained.len()), (50, 50));
    assert!(removed.iter().all(|message| payload(message).is_multiple_of(2)));
    assert!(retained.get("t/1", NOW).is_some() && retained.get("t/1", NOW.plus_ms(1)).is_none());
    while !retained.expire(NOW.plus_ms(1), 7, &mut removed) {}
    assert!(retained.is_empty() && retained.bytes() == 0);
}
