//! What a case has to work with: brokers, and names that no other case uses.

use crate::common::{Broker, Driver};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock};

type Key = (Driver, usize, Vec<(String, String)>);

/// The brokers of a run, each started when a case first asks for it.
#[derive(Default)]
pub struct Brokers(Mutex<HashMap<Key, Arc<OnceLock<Broker>>>>);

/// A broker that cases share.
pub struct Shared(Arc<OnceLock<Broker>>);

impl Deref for Shared {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        self.0.get().expect("it was started before it was handed out")
    }
}

impl Brokers {
    fn take(&self, driver: Driver, shards: usize, settings: &[(&str, &str)]) -> Shared {
        let owned = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut map = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let broker = map.entry((driver, shards, owned)).or_default().clone();
        drop(map);
        broker.get_or_init(|| Broker::start(driver, shards, settings));
        Shared(broker)
    }

    /// Stops all of them, each of which must drain and end without a panic of its own.
    pub fn stop(self, guarded: fn(&dyn Fn()) -> Result<(), String>) -> Vec<String> {
        let map = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let brokers: Vec<Broker> =
            map.into_values().filter_map(|broker| Arc::into_inner(broker)?.into_inner()).collect();
        std::thread::scope(|scope| {
            let ends: Vec<_> = brokers
                .into_iter()
                .map(|broker| {
                    scope.spawn(move || {
                        let broker = Mutex::new(Some(broker));
                        guarded(&|| {
                            let broker =
                                broker.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
                            broker.into_iter().for_each(Broker::stop);
                        })
                    })
                })
                .collect();
            ends.into_iter().filter_map(|end| end.join().ok()?.err()).collect()
        })
    }
}

/// Where a case plays.
pub struct Scene<'a> {
    brokers: &'a Brokers,
    driver: Driver,
    shards: usize,
    case: &'static str,
}

impl<'a> Scene<'a> {
    /// For one run of a case.
    pub fn new(brokers: &'a Brokers, driver: Driver, shards: usize, case: &'static str) -> Scene<'a> {
        Scene { brokers, driver, shards, case }
    }

    /// The broker with its defaults.
    pub fn broker(&self) -> Shared {
        self.with(&[])
    }

    /// A broker with these settings, shared by the cases that ask for the same.
    pub fn with(&self, settings: &[(&str, &str)]) -> Shared {
        self.brokers.take(self.driver, self.shards, settings)
    }

    /// A broker with these settings for this run of this case alone.
    pub fn own(&self, settings: &[(&str, &str)]) -> Broker {
        Broker::start(self.driver, self.shards, settings)
    }

    /// A client identifier of this case.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.case)
    }

    /// A topic of this case: its name, `/`, and `name`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.case)
    }

    /// How many shards the broker has.
    pub fn shards(&self) -> usize {
        self.shards
    }
}
