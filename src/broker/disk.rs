//! The disk of a broker: opens the store, gives each shard what it kept, and runs the store on a thread of its own.

use crate::io::{DriverOptions, Waker, survive_large_files};
use crate::map::Keyed;
use crate::record::Day;
use crate::shard;
use crate::store::{Bell, Engine, Figures, Ids, LogEngine, State, Store, link};
use crate::sync::Sequence;
use crate::time::Moment;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::watch;

/// Milliseconds for which the figures that others see may be old.
const VIEW_MS: u64 = 100;

/// A store that is open, while the shards do not run yet.
pub(super) struct Opened(LogEngine);

/// The thread of the store.
#[derive(Debug)]
pub(super) struct Disk {
    thread: JoinHandle<()>,
    ends: Arc<AtomicBool>,
    view: watch::Receiver<View>,
}

/// What others see of the store.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// Whether it writes.
    pub state: State,
    /// What it holds.
    pub figures: Figures,
}

impl Opened {
    /// Opens the store in a folder for this process alone.
    ///
    /// # Errors
    /// One line: what is wrong, and what to do.
    pub fn open(folder: &Path) -> Result<Opened, String> {
        survive_large_files();
        LogEngine::open(folder).map(Opened).map_err(|fault| fault.to_string())
    }

    /// Reads what is kept and starts the thread. `wakers` are those of the shards; for each of them there is a part.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub fn start(
        self,
        driver: DriverOptions,
        keyed: &Keyed,
        wakers: &[Waker],
        alarm: watch::Sender<Option<String>>,
    ) -> Result<(Disk, Vec<shard::Disk>), String> {
        let Opened(mut engine) = self;
        let since = driver.start_of_day().duration_since(UNIX_EPOCH).unwrap_or_default();
        let day = Day(since.as_millis() as u64);
        let restored =
            shard::load(&mut engine, day, keyed, wakers.len()).map_err(|fault| fault.to_string())?;
        let starts = engine.starts();
        let (ends, (view, seen)) = (Arc::new(AtomicBool::new(false)), watch::channel(View::default()));
        let (give, work) = channel();
        let thread = std::thread::Builder::new().name("store".into()).spawn({
            let (ends, fault) = (Arc::clone(&ends), Fault(alarm, false));
            move || run(&work, &ends, &driver, &view, fault)
        });
        let thread = thread.map_err(|error| {
            format!("cannot start the store's thread: {error}; raise the limit on threads")
        })?;
        let (order, store) = (Sequence::new(), thread.thread().clone());
        let to_store: Bell = Arc::new(move || store.unpark());
        let (mut ports, mut parts) = (Vec::new(), Vec::new());
        for ((me, restored), waker) in restored.into_iter().enumerate().zip(wakers) {
            let waker = waker.clone();
            let (link, port) = link(&order, Arc::clone(&to_store), Arc::new(move || waker.wake()));
            ports.push(port);
            parts.push(shard::Disk { link, ids: Ids::new(starts, me as u16), day, restored });
        }
        // A thread that ended in between has raised the alarm.
        let _ = give.send(Store::new(engine, ports));
        Ok((Disk { thread, ends, view: seen }, parts))
    }
}

impl Disk {
    /// What can be seen of the store, now and later.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Ends the thread once the store has written what it can. The shards have ended before.
    pub fn end(self) {
        self.ends.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic in it was reported where it happened.
        let _ = self.thread.join();
        if let State::ReadOnly { why } = &self.view.borrow().state {
            tracing::error!(
                "the store could not write what came last, of which nothing was acknowledged: {why}"
            );
        }
    }
}

/// Tells when the thread ends by a panic.
struct Fault(watch::Sender<Option<String>>, bool);

impl Drop for Fault {
    fn drop(&mut self) {
        if !self.1 {
            self.0.send_replace(Some("the store ended by a fault of the broker".to_owned()));
        }
    }
}

fn run(
    work: &Receiver<Store<LogEngine>>,
    ends: &AtomicBool,
    driver: &DriverOptions,
    view: &watch::Sender<View>,
    mut fault: Fault,
) {
    // None where the broker did not start.
    let Ok(mut store) = work.recv() else {
        fault.1 = true;
        return;
    };
    let mut seen = Moment(0);
    show(&store, view);
    loop {
        let ended = ends.load(Ordering::Acquire);
        let mut next = store.step(driver.now());
        let now = driver.now();
        if *store.state() != view.borrow().state || now >= seen.plus_ms(VIEW_MS) {
            show(&store, view);
            seen = now;
        } else if store.figures() != view.borrow().figures {
            next = next.min(seen.plus_ms(VIEW_MS));
        }
        if ended && (store.is_idle() || *store.state() != State::Ok) {
            break;
        }
        match next {
            Moment::NEVER => std::thread::park(),
            // A bell that has rung meanwhile ends it at once.
            next if next > now => std::thread::park_timeout(Duration::from_millis(next.since_ms(now))),
            _ => {}
        }
    }
    show(&store, view);
    fault.1 = true;
}

fn show(store: &Store<LogEngine>, view: &watch::Sender<View>) {
    view.send_replace(View { state: store.state().clone(), figures: store.figures() });
}
