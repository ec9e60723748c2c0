//! What is wrong with the broker, and what was: looked at with each sample, and whenever somebody asks.

use super::{Away, Context, State};
use crate::desk::{Ask, Totals};
use crate::limits::ALARMS_KEPT_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// All alarms. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Mutex<Book>>);

/// Those that are active, and those that were.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// In the order in which they began.
    pub active: Vec<Alarm>,
    /// The one that ended last is first; [`ALARMS_KEPT_MAX`] at most.
    pub past: VecDeque<Alarm>,
}

/// One alarm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Which.
    pub name: &'static str,
    /// What is wrong, and what to do. Alarms of one name differ by it.
    pub message: String,
    /// Since when.
    pub since: SystemTime,
    /// Until when; `None`: it is active.
    pub until: Option<SystemTime>,
}

impl Alarms {
    /// Looks at the broker now; what has begun or ended since the last look.
    ///
    /// # Errors
    /// [`Away`].
    pub(super) async fn look(&self, cx: &Context) -> Result<Vec<Alarm>, Away> {
        let shards = cx.desk.ask_all(Ask::Totals).await?;
        let stops = matches!(*cx.state.borrow(), State::Draining | State::Stopped);
        let wrong = wrong(&shards, stops);
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).turn(wrong, SystemTime::now()))
    }

    /// All of them.
    pub(super) fn book(&self) -> Book {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets those that were.
    pub(super) fn forget_past(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).past.clear();
    }
}

/// Name and message of what is wrong.
fn wrong(shards: &[Box<Totals>], stops: bool) -> Vec<(&'static str, String)> {
    let full = shards.iter().filter(|shard| shard.room == 0).map(|shard| {
        let text = "takes no further connection; raise broker.max_connections or the limit of open files";
        ("connections_full", format!("shard {} {text}", shard.shard))
    });
    let stopping = stops.then(|| ("stopping", "the broker is about to stop".to_owned()));
    // The store is one for all shards.
    let store = shards.iter().find_map(|shard| shard.store_fault.as_ref());
    let store = store.map(|why| ("store_read_only", format!("what is to be kept cannot be written: {why}")));
    full.chain(store).chain(stopping).collect()
}

impl Book {
    /// This is wrong now; what begins or ends with that.
    fn turn(&mut self, wrong: Vec<(&'static str, String)>, now: SystemTime) -> Vec<Alarm> {
        let mut changed = Vec::new();
        let (stay, end): (Vec<Alarm>, Vec<Alarm>) =
            std::mem::take(&mut self.active).into_iter().partition(|alarm| {
                wrong.iter().any(|(name, text)| *name == alarm.name && *text == alarm.message)
            });
        self.active = stay;
        for alarm in end {
            let ended = Alarm { until: Some(now), ..alarm };
            changed.push(ended.clone());
            self.past.push_front(ended);
        }
        self.past.truncate(ALARMS_KEPT_MAX);
        for (name, message) in wrong {
            if self.active.iter().all(|alarm| alarm.name != name || alarm.message != message) {
                let begun = Alarm { name, message, since: now, until: None };
                changed.push(begun.clone());
                self.active.push(begun);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_begins_once_and_is_kept_when_it_ends() {
        let (mut book, now) = (Book::default(), SystemTime::UNIX_EPOCH);
        let full = |shard: u16| ("connections_full", format!("shard {shard}"));
        assert_eq!(book.turn(vec![full(0)], now).len(), 1);
        assert_eq!(book.turn(vec![full(0)], now), []);
        let changed = book.turn(vec![full(1)], now);
        assert_eq!(changed.iter().map(|alarm| alarm.until).collect::<Vec<_>>(), [Some(now), None]);
        assert_eq!((book.active.len(), book.past.len()), (1, 1));
        assert_eq!((&*book.active[0].message, &*book.past[0].message), ("shard 1", "shard 0"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut book, now) = (Book::default(), SystemTime::UNIX_EPOCH);
        for _ in 0..=ALARMS_KEPT_MAX {
            book.turn(vec![("stopping", String::new())], now);
            book.turn(Vec::new(), now);
        }
        assert_eq!(book.past.len(), ALARMS_KEPT_MAX);
    }
}
