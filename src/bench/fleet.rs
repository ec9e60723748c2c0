//! The workers as seen by the coordinator: starting them, telling them what to do, adding up what they tell.

use super::plan::Plan;
use super::progress::Progress;
use super::tally::{Causes, Fates, Latencies, Span, Tally, Update};
use super::usage::{Process, Usage};
use super::worker::{Command, Mailbox, Parts, Worker};
use crate::io::{Driver, DriverOptions, Waker, choose, pin_to_core, raise_open_files};
use crate::io::{Io, IoMode};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One second of a run.
#[derive(Clone, Debug)]
pub struct Row {
    /// Seconds since the start of the run.
    pub at_s: f64,
    /// What was being done.
    pub phase: &'static str,
    /// Clients online.
    pub online: u64,
    /// Per second: connects, messages sent, messages received.
    pub rates: [f64; 3],
    /// Connects that failed, lost connections and refused messages in this second.
    pub errors: u64,
    /// Median, 99th percentile and maximum of the delivery (else acknowledgement, else connect) latency, in
    /// nanoseconds.
    pub latency_ns: Option<[u64; 3]>,
    /// Cores that the broker and the generator kept busy.
    pub cores: (Option<f64>, f64),
    /// Resident memory of the broker in KiB.
    pub rss_kib: Option<u64>,
}

/// How waiting ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// What was waited for came.
    Done,
    /// The time was over.
    Late,
    /// The user wants the end.
    Stopped,
}

impl Row {
    /// See [`Row::at_s`].
    pub fn at(row: &Row) -> f64 {
        row.at_s
    }
}

/// All workers.
pub struct Fleet {
    /// The plan.
    pub plan: Arc<Plan>,
    mailboxes: Vec<Mailbox>,
    threads: Vec<JoinHandle<Fates>>,
    updates: Receiver<Update>,
    stop: Receiver<()>,
    tallies: Vec<Tally>,
    causes: Vec<Causes>,
    marks: Vec<u32>,
    mark: u32,
    /// Latencies of the whole run.
    pub latencies: Latencies,
    second: Latencies,
    /// Each second.
    pub rows: Vec<Row>,
    row_at: Instant,
    row_tally: Tally,
    broker: Option<Process>,
    broker_usage: Option<Usage>,
    own_usage: Option<Usage>,
    progress: Progress,
    phase: &'static str,
    /// Somebody asked for the end.
    pub stopped: bool,
    /// How the driver describes itself.
    pub driver: String,
}

/// A worker's thread has its driver.
type Ready = Result<(usize, Waker, String), String>;

impl Fleet {
    /// Starts all threads. `broker` is the process to watch; a message on `stop` ends the run early.
    pub fn start(
        plan: Plan,
        io: IoMode,
        broker: Option<Process>,
        progress: Progress,
        stop: Receiver<()>,
    ) -> Result<Fleet, String> {
        raise_open_files();
        let chosen = choose(io)?;
        let plan = Arc::new(plan);
        let options = DriverOptions {
            connections_max: plan.clients().div_ceil(plan.threads) + 1024,
            start: plan.start,
            ..DriverOptions::default()
        };
        let (ready, readies) = channel::<Ready>();
        let (updates_to, updates) = channel();
        let mut threads = Vec::new();
        let mut starts = Vec::new();
        for me in 0..plan.threads as usize {
            let (start_to, start) = channel::<(Receiver<Command>, Vec<Mailbox>)>();
            let seat =
                Seat { me, plan: Arc::clone(&plan), ready: ready.clone(), updates: updates_to.clone() };
            let (chosen, options) = (chosen.clone(), options.clone());
            let body = move || seat.run(&chosen, &options, &start);
            let thread = std::thread::Builder::new().name(format!("bench-{me}")).spawn(body);
            threads.push(thread.map_err(|e| format!("cannot start a thread: {e}"))?);
            starts.push(start_to);
        }
        drop(ready);
        let mut wakers = vec![None; threads.len()];
        let mut driver = String::new();
        for ready in readies {
            let (me, waker, describe) = ready?;
            (wakers[me], driver) = (Some(waker), describe);
        }
        let wakers: Option<Vec<Waker>> = wakers.into_iter().collect();
        let wakers = wakers.ok_or("a thread ended while it started")?;
        let (senders, receivers): (Vec<_>, Vec<_>) = wakers.iter().map(|_| channel()).unzip();
        let mailboxes: Vec<Mailbox> =
            senders.into_iter().zip(wakers).map(|(commands, waker)| Mailbox { commands, waker }).collect();
        for (start, commands) in starts.into_iter().zip(receivers) {
            let _ = start.send((commands, mailboxes.clone()));
        }
        let count = threads.len();
        Ok(Fleet {
            plan,
            mailboxes,
            threads,
            updates,
            stop,
            tallies: vec![Tally::default(); count],
            causes: vec![Causes::default(); count],
            marks: vec![0; count],
            mark: 0,
            latencies: Latencies::default(),
            second: Latencies::default(),
            rows: Vec::new(),
            row_at: Instant::now(),
            row_tally: Tally::default(),
            broker_usage: broker.as_ref().and_then(Process::usage),
            broker,
            own_usage: Process::own().usage(),
            progress,
            phase: "start",
            stopped: false,
            driver,
        })
    }

    /// Tells all workers something.
    pub fn tell(&self, command: impl Fn() -> Command) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.tell(command()));
    }

    /// All workers' counters together.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.tallies.iter().for_each(|tally| sum.add(tally));
        sum
    }

    /// All workers' errors together.
    pub fn causes(&self) -> Causes {
        let mut sum = Causes::default();
        for (cause, count) in self.causes.iter().flatten() {
            *sum.entry(cause.clone()).or_default() += count;
        }
        sum
    }

    /// What the broker's process uses now.
    pub fn broker_usage(&self) -> Option<Usage> {
        self.broker.as_ref().and_then(Process::usage)
    }

    /// Names what is done from now on; `goal` is what progress is measured against.
    pub fn phase(&mut self, name: &'static str, goal: u64) {
        self.row();
        self.phase = name;
        self.progress.phase(name, goal);
    }

    /// Counters as of now: every worker answers first.
    pub fn snapshot(&mut self) -> (Tally, Instant) {
        self.mark += 1;
        let mark = self.mark;
        self.tell(|| Command::Mark(mark));
        let limit = Instant::now() + Duration::from_secs(10);
        while self.marks.iter().any(|m| *m < mark) && Instant::now() < limit {
            self.take(Duration::from_millis(50));
        }
        (self.tally(), Instant::now())
    }

    /// Lets time pass.
    pub fn run_for(&mut self, seconds: f64, done: impl Fn(&Tally) -> bool) -> Waited {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        self.wait(
            |tally, now| if done(tally) { Some(Waited::Done) } else { (now >= end).then_some(Waited::Late) },
        )
    }

    /// Waits until `done`, for as long as there is progress within each `patience_s`.
    pub fn wait_for(
        &mut self,
        patience_s: f64,
        done: impl Fn(&Tally) -> bool,
        progress: impl Fn(&Tally) -> u64,
    ) -> Waited {
        let patience = Duration::from_secs_f64(patience_s);
        let mut last = (progress(&self.tally()), Instant::now());
        self.wait(|tally, now| {
            if done(tally) {
                return Some(Waited::Done);
            }
            let so_far = progress(tally);
            if so_far != last.0 {
                last = (so_far, now);
            }
            (now - last.1 > patience).then_some(Waited::Late)
        })
    }

    fn wait(&mut self, mut until: impl FnMut(&Tally, Instant) -> Option<Waited>) -> Waited {
        loop {
            if let Some(waited) = until(&self.tally(), Instant::now()) {
                return waited;
            }
            if self.stopped || self.stop.try_recv().is_ok() {
                self.stopped = true;
                return Waited::Stopped;
            }
            self.take(Duration::from_millis(50));
        }
    }

    /// Takes updates in for a while.
    fn take(&mut self, within: Duration) {
        match self.updates.recv_timeout(within) {
            Ok(update) => self.note(update),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(within),
        }
        if self.row_at.elapsed() >= Duration::from_secs(1) {
            self.row();
        }
    }

    fn note(&mut self, update: Update) {
        self.tallies[update.worker] = update.tally;
        self.causes[update.worker] = update.causes;
        self.marks[update.worker] = self.marks[update.worker].max(update.mark);
        if let Some(latencies) = update.latencies {
            self.latencies.add(&latencies);
            self.second.add(&latencies);
        }
    }

    /// Ends the current second.
    fn row(&mut self) {
        let seconds = self.row_at.elapsed().as_secs_f64();
        if seconds < 0.2 {
            return;
        }
        let tally = self.tally();
        let new = tally.since(&self.row_tally);
        let latency_ns = [Span::Delivery, Span::Ack, Span::Connect].into_iter().find_map(|span| {
            let histogram = self.second.of(span);
            let at = |quantile| histogram.value_at_quantile(quantile);
            (!histogram.is_empty()).then(|| [at(0.5), at(0.99), histogram.max()])
        });
        let usage = self.broker_usage();
        let own = Process::own().usage();
        let cores = |now: Option<Usage>, before: Option<Usage>| Some(now?.cores_since(&before?));
        let row = Row {
            at_s: self.plan.start.elapsed().as_secs_f64(),
            phase: self.phase,
            online: tally.online,
            rates: [new.connected, new.published, new.received].map(|count| count as f64 / seconds),
            errors: new.connect_failed + new.disconnects + new.refused_messages,
            latency_ns,
            cores: (cores(usage, self.broker_usage), cores(own, self.own_usage).unwrap_or_default()),
            rss_kib: usage.map(|usage| usage.rss_kib),
        };
        self.progress.show(&row, &tally);
        self.rows.push(row);
        self.second.clear();
        (self.row_at, self.row_tally) = (Instant::now(), tally);
        (self.broker_usage, self.own_usage) = (usage, own);
    }

    /// Everybody disconnects, the threads end, and what they know comes back.
    pub fn finish(&mut self) -> Vec<Fates> {
        self.row();
        self.tell(|| Command::Finish);
        let threads = std::mem::take(&mut self.threads);
        let fates = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        while let Ok(update) = self.updates.try_recv() {
            self.note(update);
        }
        self.progress.end();
        fates
    }
}

/// What a thread needs to become a worker.
struct Seat {
    me: usize,
    plan: Arc<Plan>,
    ready: Sender<Ready>,
    updates: Sender<Update>,
}

impl Seat {
    fn run(
        self,
        chosen: &crate::io::Chosen,
        options: &DriverOptions,
        start: &Receiver<(Receiver<Command>, Vec<Mailbox>)>,
    ) -> Fates {
        let pinned = match self.plan.pin.get(self.me % self.plan.pin.len().max(1)) {
            Some(core) => pin_to_core(*core).map_err(|e| format!("--pin {core}: {e}")),
            None => Ok(()),
        };
        let driver = Driver::<()>::new(chosen, options).map_err(|e| format!("cannot start the driver: {e}"));
        let io = match pinned.and(driver) {
            Ok(io) => io,
            Err(line) => {
                let _ = self.ready.send(Err(line));
                return Fates::default();
            }
        };
        let _ = self.ready.send(Ok((self.me, io.waker(), io.describe())));
        drop(self.ready);
        match start.recv() {
            Ok((commands, peers)) => {
                let Seat { me, plan, updates, .. } = self;
                Worker::new(Parts { me, plan, io, commands, updates, peers }).run()
            }
            Err(_) => Fates::default(),
        }
    }
}
