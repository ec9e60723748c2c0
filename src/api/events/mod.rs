//! Events: what the shards say that happens, for streams over HTTP, traces into files and topics below `$SYS`.
//!
//! One [`Hub`] asks the shards for what its listeners want together, and nothing while it has none. Each listener
//! has a queue of its own; what finds no room there, or none at a shard, is counted, and the listener is told.

mod announce;
mod line;
mod stream;
mod trace;

pub use line::reason_word;
pub use stream::ENDPOINTS as STREAM;
pub use trace::{ENDPOINTS as TRACES, Traces};

pub(super) use announce::announce;

use super::fault::{Cause, Fault};
use super::{Away, Desk};
use crate::desk::{Ask, Batch, Happening, Kind, Kinds, Watch};
use crate::limits::{
    EVENTS_BYTES_MAX, EVENTS_LISTENERS_MAX, EVENTS_PAUSE_MS, EVENTS_WAITING_MAX, TRACES_MAX,
};
use crate::topic::{Filter, Topic};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Which events a listener wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// These kinds. [`Kind::Packet`] needs a client or a topic.
    pub kinds: Kinds,
    /// Of this client.
    pub client_id: Option<Box<str>>,
    /// Of what has a topic, only that on topics that this filter matches.
    pub topic: Option<Box<str>>,
}

impl Wanted {
    fn accepts(&self, happening: &Happening) -> bool {
        let on_topic = |filter: &str, topic: &str| {
            filter == topic || Filter::of_checked(filter).matches(Topic::of_checked(topic))
        };
        self.kinds.has(happening.what.kind())
            && self.client_id.as_ref().is_none_or(|client_id| *client_id == happening.client_id)
            && match (&self.topic, happening.topic()) {
                (Some(filter), Some(topic)) => on_topic(filter, topic),
                _ => true,
            }
    }
}

/// Hands out what happens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desk: Desk,
    listeners: Mutex<Vec<Arc<Listener>>>,
    /// What all of them want together, and how often that has changed.
    wanted: watch::Sender<(u64, Watch)>,
    /// By shard, up to which of these changes it has been told.
    told: watch::Sender<Vec<u64>>,
}

#[derive(Debug)]
struct Listener {
    wanted: Wanted,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Happening>>,
    bytes: usize,
    missed: Missed,
}

/// Events that a listener did not get since it was told last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missed {
    /// Those that found no room at a shard, whether the listener had wanted them or not.
    pub by_shards: u64,
    /// Those that it had wanted and that found no room in its own queue.
    pub by_listener: u64,
}

/// What a listener is told.
#[derive(Clone, Debug)]
pub enum News {
    /// This happened.
    Happened(Arc<Happening>),
    /// This much is missing here.
    Missed(Missed),
}

/// A listener; it listens until it is dropped.
#[derive(Debug)]
pub struct Listening {
    hub: Hub,
    listener: Arc<Listener>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub without listeners.
    pub(super) fn new(desk: Desk) -> Hub {
        let told = watch::Sender::new(vec![0; desk.shards()]);
        let wanted = watch::Sender::new((0, Watch::default()));
        Hub(Arc::new(Inner { desk, listeners: Mutex::default(), wanted, told }))
    }

    /// Begins to listen. Once this returns, every shard collects what is wanted.
    ///
    /// # Errors
    /// [`Cause::Busy`]: there are as many listeners, or as much is traced, as can be.
    pub async fn listen(&self, wanted: Wanted) -> Result<Listening, Fault> {
        let listener = Arc::new(Listener { wanted, queue: Mutex::default(), arrived: Notify::new() });
        let generation = {
            let mut listeners = locked(&self.0.listeners);
            if listeners.len() >= EVENTS_LISTENERS_MAX {
                let text = format!("expected {EVENTS_LISTENERS_MAX} listeners to events at most");
                return Err(Fault::new(Cause::Busy, text));
            }
            listeners.push(listener.clone());
            let together = union(&listeners);
            if together.clients.len() + together.topics.len() > TRACES_MAX {
                listeners.pop();
                let text = format!("expected {TRACES_MAX} clients and topics to be traced at most");
                return Err(Fault::new(Cause::Busy, text));
            }
            self.want(together)
        };
        let listening = Listening { hub: self.clone(), listener };
        let mut told = self.0.told.subscribe();
        // The sender is in the hub, so it is there.
        let all = told.wait_for(|told| told.iter().all(|known| *known >= generation)).await;
        if all.is_err() {
            return Err(Cause::Away.into());
        }
        drop(all);
        Ok(listening)
    }

    /// Sets what the shards are to collect; returns the number of the last change.
    fn want(&self, together: Watch) -> u64 {
        self.0.wanted.send_if_modified(|(generation, watch)| {
            let changed = *watch != together;
            if changed {
                *generation += 1;
                *watch = together;
            }
            changed
        });
        self.0.wanted.borrow().0
    }

    /// Follows one shard for as long as it is there.
    pub(super) async fn follow(self, shard: usize) -> Result<(), Away> {
        let mut wanted = self.0.wanted.subscribe();
        let mut waiting = None;
        let mut collects = false;
        loop {
            let (generation, watch) = wanted.borrow_and_update().clone();
            let idle = watch == Watch::default();
            if collects || !idle {
                // With that, it also answers what waits.
                let watch = Box::new(watch);
                self.0.desk.ask(shard, |reply| Ask::Watch { watch, reply }).await?;
            }
            collects = !idle;
            self.0.told.send_modify(|told| told[shard] = generation);
            if let Some(waiting) = waiting.take() {
                let batch: Box<Batch> = waiting.await?;
                self.hand_out(*batch);
            }
            if !collects {
                wanted.changed().await.map_err(|_| Away)?;
                continue;
            }
            waiting = loop {
                let mut asked = Box::pin(self.0.desk.wait(shard, Ask::Happenings));
                tokio::select! {
                    batch = &mut asked => self.hand_out(*batch?),
                    changed = wanted.changed() => {
                        changed.map_err(|_| Away)?;
                        break Some(asked);
                    }
                }
                sleep(Duration::from_millis(EVENTS_PAUSE_MS)).await;
            };
        }
    }

    fn hand_out(&self, batch: Batch) {
        let listeners = locked(&self.0.listeners).clone();
        for happening in batch.happenings {
            let happening = Arc::new(happening);
            for listener in listeners.iter().filter(|listener| listener.wanted.accepts(&happening)) {
                locked(&listener.queue).push(&happening);
            }
        }
        for listener in listeners {
            locked(&listener.queue).missed.by_shards += batch.dropped;
            listener.arrived.notify_one();
        }
    }
}

impl Queue {
    fn push(&mut self, happening: &Arc<Happening>) {
        let bytes = self.bytes + happening.bytes();
        if self.waiting.len() >= EVENTS_WAITING_MAX || bytes > EVENTS_BYTES_MAX {
            self.missed.by_listener += 1;
        } else {
            self.bytes = bytes;
            self.waiting.push_back(happening.clone());
        }
    }

    /// What is missing, if anything is; else what came first.
    fn pop(&mut self) -> Option<News> {
        let missed = std::mem::take(&mut self.missed);
        if missed != Missed::default() {
            return Some(News::Missed(missed));
        }
        let happening = self.waiting.pop_front()?;
        self.bytes -= happening.bytes();
        Some(News::Happened(happening))
    }
}

impl Listening {
    /// What happened next.
    pub async fn next(&self) -> News {
        loop {
            if let Some(news) = self.ready() {
                return news;
            }
            self.listener.arrived.notified().await;
        }
    }

    /// What happened next, where it is there already.
    pub fn ready(&self) -> Option<News> {
        locked(&self.listener.queue).pop()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = locked(&self.hub.0.listeners);
        listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
        self.hub.want(union(&listeners));
    }
}

/// What listeners want together.
fn union(listeners: &[Arc<Listener>]) -> Watch {
    let mut watch = Watch::default();
    for wanted in listeners.iter().map(|listener| &listener.wanted) {
        watch.kinds = watch.kinds.and(wanted.kinds.without(Kind::Packet));
        if !wanted.kinds.has(Kind::Packet) {
            continue;
        }
        // Of one client, packets of any topic are looked at; the listener takes those that it wants.
        let (list, text) = match (&wanted.client_id, &wanted.topic) {
            (Some(client_id), _) => (&mut watch.clients, client_id),
            (None, Some(topic)) => (&mut watch.topics, topic),
            (None, None) => continue,
        };
        if !list.contains(text) {
            list.push(text.clone());
        }
    }
    watch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::What;
    use crate::time::Moment;

    fn happening(client_id: &str, what: What) -> Happening {
        Happening { at: Moment(1), shard: 0, client_id: client_id.into(), peer: None, what }
    }

    fn packet(topic: &str) -> What {
        What::Packet { sent: false, name: "PUBLISH", topic: Some(topic.into()), text: "".into() }
    }

    fn listener(kinds: &[Kind], client_id: Option<&str>, topic: Option<&str>) -> Arc<Listener> {
        let kinds = kinds.iter().copied().collect();
        let wanted = Wanted { kinds, client_id: client_id.map(Box::from), topic: topic.map(Box::from) };
        Arc::new(Listener { wanted, queue: Mutex::default(), arrived: Notify::new() })
    }

    #[test]
    fn a_listener_takes_its_kinds_of_its_client_and_topic() {
        let one = listener(&[Kind::SessionCreated, Kind::Packet], Some("a"), Some("t/+"));
        for (client_id, what, wanted) in [
            ("a", What::SessionCreated, true),
            ("b", What::SessionCreated, false),
            ("a", What::SessionEnded, false),
            ("a", packet("t/1"), true),
            ("a", packet("t/1/2"), false),
            ("b", packet("t/1"), false),
        ] {
            assert_eq!(
                one.wanted.accepts(&happening(client_id, what.clone())),
                wanted,
                "{client_id} {what:?}"
            );
        }
    }

    #[test]
    fn shards_collect_what_listeners_want_together_and_no_packets_besides() {
        let all = [
            listener(&[Kind::Connected], Some("a"), None),
            listener(&[Kind::Packet], Some("a"), Some("t")),
            listener(&[Kind::Packet], Some("a"), None),
            listener(&[Kind::Packet], None, Some("t")),
        ];
        let watch = union(&all);
        assert!(watch.kinds.has(Kind::Connected) && !watch.kinds.has(Kind::Packet));
        assert_eq!((watch.clients, watch.topics), (vec!["a".into()], vec!["t".into()]));
        assert_eq!(union(&[]), Watch::default());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let mut queue = Queue::default();
        let event = Arc::new(happening("a", What::SessionCreated));
        for _ in 0..EVENTS_WAITING_MAX + 3 {
            queue.push(&event);
        }
        let Some(News::Missed(missed)) = queue.pop() else { panic!("it is told what is missing") };
        assert_eq!(missed, Missed { by_shards: 0, by_listener: 3 });
        for _ in 0..EVENTS_WAITING_MAX {
            assert!(matches!(queue.pop(), Some(News::Happened(_))));
        }
        assert!(queue.pop().is_none() && queue.bytes == 0);
        let large = Arc::new(happening(&"x".repeat(60_000), What::SessionCreated));
        (0..100).for_each(|_| queue.push(&large));
        assert!(queue.bytes <= EVENTS_BYTES_MAX && queue.missed.by_listener > 0);
    }
}
