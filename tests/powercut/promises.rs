//! What clients were told, and when; and what must therefore be in a store that was cut off later.

use ringmq::map::Keyed;
use ringmq::message::QoS;
use ringmq::record::Day;
use ringmq::shard;
use ringmq::store::{Disk, LogEngine, LogOptions};
use std::collections::{BTreeMap, BTreeSet};

/// A number of a publisher.
pub type Number = (usize, u64);

/// Something that a client knows since a moment, in microseconds since 1970.
#[derive(Clone, Debug)]
pub enum Known {
    /// PUBACK or PUBREC for a number.
    Acknowledged(Number),
    /// A subscriber has a number.
    Received(String, Number),
}

/// All that was told, in order, as far as a moment.
pub struct Promises {
    told: Vec<(u64, Known)>,
    at: usize,
    /// By subscriber: what was acknowledged and has not come, and what has come.
    open: BTreeMap<String, (BTreeSet<Number>, BTreeSet<Number>)>,
    /// By publisher: the last number that was retained and acknowledged.
    kept: BTreeMap<usize, u64>,
}

/// What is retained: each fifth number.
pub fn is_kept(seq: u64) -> bool {
    seq.is_multiple_of(5)
}

impl Promises {
    /// `subscribers` were told that they are subscribed to everything before anybody published.
    pub fn new(mut told: Vec<(u64, Known)>, subscribers: &[String]) -> Promises {
        told.sort_by_key(|(at, _)| *at);
        let open = subscribers.iter().map(|name| (name.clone(), Default::default())).collect();
        Promises { told, at: 0, open, kept: BTreeMap::new() }
    }

    /// Goes on to all that was told before this moment.
    pub fn go_on(&mut self, before_us: u64) {
        while let Some((_, known)) = self.told.get(self.at).filter(|(at, _)| *at < before_us) {
            match known {
                Known::Acknowledged(number) => {
                    for (open, come) in self.open.values_mut() {
                        if !come.contains(number) {
                            open.insert(*number);
                        }
                    }
                    if is_kept(number.1) {
                        let last = self.kept.entry(number.0).or_default();
                        *last = number.1.max(*last);
                    }
                }
                Known::Received(name, number) => {
                    let (open, come) = self.open.get_mut(name).expect("a subscriber that is known");
                    open.remove(number);
                    come.insert(*number);
                }
            }
            self.at += 1;
        }
    }

    /// How much was told so far.
    pub fn told(&self) -> usize {
        self.at
    }

    /// Opens what a power cut left; what is wrong with it.
    pub fn check(&self, disk: Box<dyn Disk>) -> Result<(), String> {
        let mut engine = LogEngine::on(disk, LogOptions::default()).map_err(|fault| fault.text)?;
        if !engine.damages().is_empty() {
            return Err(format!("{:?}", engine.damages()));
        }
        let all = shard::load(&mut engine, Day(0), &Keyed::new(1), 1).map_err(|fault| fault.text)?;
        let [restored] = &all[..] else { return Err("expected one shard's part".to_owned()) };
        for (name, (open, _)) in &self.open {
            let session = restored.sessions.iter().find(|session| *session.record.client_id == **name);
            let session = session.ok_or_else(|| format!("{name} has no session"))?;
            if session.record.subscriptions.iter().all(|s| *s.filter != *"#") {
                return Err(format!("{name} is not subscribed"));
            }
            let mut queued: BTreeMap<Number, u32> = BTreeMap::new();
            for (_, entry) in &session.entries {
                let message = entry.message.as_ref().ok_or("a message without a body")?;
                let count = queued.entry(number(message.view().payload)?).or_default();
                *count += 1;
                if *count > 1 && entry.qos == QoS::ExactlyOnce {
                    return Err(format!("{name} has {:?} twice", number(message.view().payload)));
                }
            }
            let missing: Vec<_> = open.iter().filter(|number| !queued.contains_key(number)).collect();
            if !missing.is_empty() {
                return Err(format!("{name} lacks {missing:?}, which were acknowledged"));
            }
        }
        for (publisher, last) in &self.kept {
            let topic = format!("kept/{publisher}");
            let found = restored.retained.iter().find(|message| message.topic() == topic);
            let found = found.map(|message| number(message.view().payload)).transpose()?;
            if found.is_none_or(|(_, seq)| seq < *last) {
                return Err(format!("{topic} has {found:?}, and {last} was acknowledged"));
            }
        }
        Ok(())
    }
}

/// `publisher number`.
pub fn number(payload: &[u8]) -> Result<Number, String> {
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    let parts = text.split_once(' ').and_then(|(n, seq)| Some((n.parse().ok()?, seq.parse().ok()?)));
    parts.ok_or_else(|| format!("expected a publisher and a number, got {text:?}"))
}
