//! What a case has to work with: brokers, and names that no other case uses.

use crate::common::{self, Driver};
use crate::ground::{Broker, OwnBroker, Place, Simulation};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

type Settings = Vec<(String, String)>;
type Key = (Driver, usize, Settings);

/// The brokers of a run on sockets, each started when a case first asks for it.
#[derive(Default)]
pub struct Brokers(Mutex<HashMap<Key, Arc<OnceLock<common::Broker>>>>);

fn owned(settings: &[(&str, &str)]) -> Settings {
    settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Brokers {
    fn take(&self, driver: Driver, shards: usize, settings: &[(&str, &str)]) -> Broker {
        let mut map = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let broker = map.entry((driver, shards, owned(settings))).or_default().clone();
        drop(map);
        broker.get_or_init(|| common::Broker::start(driver, shards, settings));
        Broker::Shared(broker)
    }

    /// Stops all of them, each of which must drain and end without a panic of its own.
    pub fn stop(self, guarded: fn(&dyn Fn()) -> Result<(), String>) -> Vec<String> {
        let map = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let brokers: Vec<common::Broker> =
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
                            broker.into_iter().for_each(common::Broker::stop);
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
    place: Place,
    shards: usize,
    case: &'static str,
    /// The simulated brokers of this run of the case.
    simulations: RefCell<Vec<(Settings, Rc<Simulation>)>>,
    /// Its own processes.
    own: RefCell<Vec<Rc<OwnBroker>>>,
}

impl<'a> Scene<'a> {
    /// For one run of a case.
    pub fn new(brokers: &'a Brokers, place: Place, shards: usize, case: &'static str) -> Scene<'a> {
        Scene { brokers, place, shards, case, simulations: RefCell::default(), own: RefCell::default() }
    }

    /// The broker with its defaults.
    pub fn broker(&self) -> Broker {
        self.with(&[])
    }

    /// A broker with these settings, shared by the cases that ask for the same.
    pub fn with(&self, settings: &[(&str, &str)]) -> Broker {
        let Place::Simulation { .. } = self.place else { return self.take(settings) };
        let known =
            self.simulations.borrow().iter().find(|(s, _)| *s == owned(settings)).map(|(_, s)| s.clone());
        known.map_or_else(|| self.own(settings), Broker::Simulated)
    }

    fn take(&self, settings: &[(&str, &str)]) -> Broker {
        let Place::Sockets(driver) = self.place else { panic!("there are no sockets in a simulation") };
        self.brokers.take(driver, self.shards, settings)
    }

    /// A broker with these settings for this run of this case alone.
    pub fn own(&self, settings: &[(&str, &str)]) -> Broker {
        match self.place {
            Place::Sockets(driver) => {
                let broker = Rc::new(OwnBroker::start(driver, self.shards, settings));
                self.own.borrow_mut().push(Rc::clone(&broker));
                Broker::Own(broker)
            }
            Place::Simulation { torn } => {
                let mut all = self.simulations.borrow_mut();
                let seed =
                    self.case.bytes().fold(all.len() as u64, |seed, b| seed.rotate_left(5) ^ u64::from(b));
                let simulation = Rc::new(Simulation::start(seed, self.shards, torn, settings));
                all.push((owned(settings), Rc::clone(&simulation)));
                Broker::Simulated(simulation)
            }
        }
    }

    /// Lets time pass, on the clock of the place.
    pub fn pass(&self, time: Duration) {
        match self.place {
            Place::Sockets(_) => std::thread::sleep(time),
            Place::Simulation { .. } => self.simulations.borrow().iter().for_each(|(_, s)| s.pass(time)),
        }
    }

    /// What must hold after a case.
    pub fn end(&self) {
        self.simulations.borrow().iter().for_each(|(_, simulation)| simulation.end());
        self.own.take().into_iter().filter_map(Rc::into_inner).for_each(OwnBroker::end);
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
