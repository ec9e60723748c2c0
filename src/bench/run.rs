//! The phases of a run: connect, subscribe, publish, measure, drain, judge.

use super::args::{BenchArgs, Scenario};
use super::fleet::{Fleet, Row, Waited};
use super::judge::{Verdict, join, judge};
use super::million;
use super::plan::{Kind, Plan};
use super::report::Line;
use super::tally::{Causes, Latencies, Tally};
use super::usage::{Process, Usage};
use super::worker::Command;
use crate::io::Close;
use crate::message::QoS;

/// How the fault begins that an option can mend.
const UNKNOWN_AUTHORITY: &str = "TLS: expected a certificate by an authority";
/// Seconds between the last SUBACK and the first message: time for routes to get around.
const SETTLE_S: f64 = 0.3;

/// Seconds after which connects are given up when none of them has succeeded and this many have failed.
const HOPELESS_S: f64 = 3.0;
const HOPELESS_FAILURES: u64 = 4;

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// The whole run.
    pub total: Tally,
    /// What was measured.
    pub window: Tally,
    /// Seconds of that.
    pub window_s: f64,
    /// Connects: how many, in how many seconds.
    pub connects: (u64, f64),
    /// Further results: name, value, unit.
    pub extra: Vec<(&'static str, f64, &'static str)>,
    /// What the broker's ledger of memory says.
    pub ledger: Vec<Line>,
    /// Errors.
    pub causes: Causes,
    /// Latencies; publishes only of what was measured.
    pub latencies: Latencies,
    /// Each second.
    pub rows: Vec<Row>,
    /// Broker at the begin and the end of what was measured.
    pub broker: Option<(Usage, Usage)>,
    /// What connections cost.
    pub connect_costs: Vec<Line>,
    /// What was lost.
    pub verdict: Verdict,
    /// The user ended it.
    pub stopped: bool,
    /// The driver of the generator.
    pub driver: String,
}

/// Runs a scenario; `own` is the broker where this process has started it. An error is why it could not be set up, in lines.
pub fn run(args: &BenchArgs, mut fleet: Fleet, own: Option<&million::Broker>) -> Result<Outcome, String> {
    let mut run = Run::new(args, own);
    if let Err(line) = run.phases(&mut fleet) {
        fleet.finish();
        let mut lines = vec![line];
        let causes = fleet.causes();
        lines.extend(causes.iter().map(|(cause, count)| format!("{count} x {cause}")));
        if causes.keys().any(|cause| cause.to_string().starts_with(UNKNOWN_AUTHORITY)) {
            lines.push(
                "--cafile names the file of its authority, --insecure takes any certificate".to_owned(),
            );
        }
        return Err(lines.join("\n  "));
    }
    Ok(run.end(fleet))
}

/// A run under way.
pub struct Run<'a> {
    /// The arguments.
    pub args: &'a BenchArgs,
    /// The broker, where this process has started it.
    pub own: Option<&'a million::Broker>,
    /// See [`Outcome`].
    pub ledger: Vec<Line>,
    /// See [`Outcome`].
    pub connects: (u64, f64),
    /// See [`Outcome`].
    pub extra: Vec<(&'static str, f64, &'static str)>,
    /// What makes the run fail, beside what the judge finds.
    pub shortfalls: Vec<String>,
    /// What was measured, and in how many seconds.
    pub window: Option<(Tally, f64)>,
    /// See [`Outcome`].
    pub broker: Option<(Usage, Usage)>,
    /// The broker and the generator before the first connect.
    unconnected: (Option<Usage>, Option<Usage>),
    /// See [`Outcome`].
    connect_costs: Vec<Line>,
}

impl Run<'_> {
    fn new<'a>(args: &'a BenchArgs, own: Option<&'a million::Broker>) -> Run<'a> {
        Run {
            args,
            own,
            ledger: Vec::new(),
            connects: (0, 0.0),
            extra: Vec::new(),
            shortfalls: Vec::new(),
            window: None,
            broker: None,
            unconnected: (None, None),
            connect_costs: Vec::new(),
        }
    }

    fn phases(&mut self, fleet: &mut Fleet) -> Result<(), String> {
        match self.args.scenario {
            Scenario::Retain => return self.retain(fleet),
            Scenario::Million => return self.million(fleet),
            Scenario::Conn => {
                self.connect_all(fleet)?;
                self.measure(fleet, |_| false);
                self.weigh_connections(fleet);
                return Ok(());
            }
            _ => self.connect_all(fleet)?,
        }
        fleet.run_for(SETTLE_S, |_| false);
        let limited = self.limit(&fleet.plan);
        let warmup_s = self.args.warmup.unwrap_or(if limited.is_some() { 0.0 } else { 1.0 });
        fleet.phase("warm up", warmup_s as u64);
        if limited.is_some() {
            // Every message is measured, from the first one to the last one's acknowledgement.
            fleet.tell(|| Command::Measure(true));
            // All workers have heard that before any publishes: one that is late would miss what it receives first.
            fleet.snapshot();
        }
        fleet.tell(|| Command::Publish(true));
        fleet.run_for(warmup_s, |_| false);
        if self.args.scenario == Scenario::Storm {
            self.storm(fleet);
        } else {
            self.measure(fleet, |tally| {
                limited.is_some_and(|limit| tally.published + tally.received >= limit)
            });
        }
        self.drain(fleet);
        Ok(())
    }

    /// The sum of messages sent and received at which a run with a limit is complete.
    fn limit(&self, plan: &Plan) -> Option<u64> {
        let total = |flow: &super::plan::Flow| match flow.kind {
            Kind::In => u64::from(flow.limit),
            _ => u64::from(flow.limit) * flow.pubs.len() as u64 * (1 + u64::from(flow.fan())),
        };
        (self.args.limit > 0).then(|| match plan.flows.first() {
            Some(flow) if flow.kind == Kind::In => self.args.limit,
            _ => plan.flows.iter().map(total).sum(),
        })
    }

    /// Connects all groups, one after the other.
    pub fn connect_all(&mut self, fleet: &mut Fleet) -> Result<(), String> {
        self.unconnected = (fleet.broker_usage(), Process::own().usage());
        for group in 0..fleet.plan.groups.len() {
            self.connect(fleet, group)?;
        }
        if let (Some(before), Some(now)) = (self.unconnected.0, fleet.broker_usage()) {
            let cpu_us = now.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3;
            let each = cpu_us / self.connects.0.max(1) as f64;
            self.connect_costs.push(("broker CPU per connect".to_owned(), each, "us"));
        }
        Ok(())
    }

    /// What memory idle connections take at both ends.
    fn weigh_connections(&mut self, fleet: &Fleet) {
        let clients = f64::from(fleet.plan.clients());
        let now = (fleet.broker_usage(), Process::own().usage());
        for (name, before, now) in
            [("broker", self.unconnected.0, now.0), ("generator", self.unconnected.1, now.1)]
        {
            if let (Some(before), Some(now)) = (before, now) {
                let bytes = now.rss_kib.saturating_sub(before.rss_kib) as f64 * 1024.0;
                self.connect_costs.push((
                    format!("{name} memory, growth per client"),
                    bytes / clients,
                    "bytes",
                ));
            }
        }
    }

    /// Connects a group, waits until all of it is ready, and returns the seconds that it took.
    pub fn connect(&mut self, fleet: &mut Fleet, group: usize) -> Result<f64, String> {
        let (clients, subscribes) = {
            let group = &fleet.plan.groups[group];
            (group.clients.len() as u64, group.subscribes)
        };
        let before = fleet.tally();
        fleet.phase("connect", before.online + clients);
        let began = std::time::Instant::now();
        fleet.tell(|| Command::Connect(group));
        let ready = move |tally: &Tally| {
            let new = tally.since(&before);
            if subscribes { new.subscribed } else { new.connected }
        };
        let patience_s = f64::from(self.args.connect_timeout) + 1.0;
        let one_try = self.args.no_reconnect;
        let hopeless = move |tally: &Tally| {
            let failed = tally.since(&before).connect_failed;
            let none = ready(tally) == 0 && failed >= HOPELESS_FAILURES.min(clients);
            (one_try && ready(tally) + failed >= clients)
                || (none && began.elapsed().as_secs_f64() >= HOPELESS_S)
        };
        let done = move |tally: &Tally| ready(tally) >= clients || hopeless(tally);
        let waited = fleet.wait_for(patience_s, done, ready);
        let seconds = began.elapsed().as_secs_f64();
        let (tally, _) = fleet.snapshot();
        let came = ready(&tally);
        self.connects.0 += tally.since(&before).connected;
        self.connects.1 += seconds;
        match waited {
            Waited::Done if came >= clients => Ok(seconds),
            _ => Err(format!("{came} of {clients} clients are ready after {seconds:.1} s")),
        }
    }

    /// Measures for the configured time, or until `done`.
    pub fn measure(&mut self, fleet: &mut Fleet, done: impl Fn(&Tally) -> bool) {
        self.begin(fleet);
        fleet.phase("measure", self.args.seconds() as u64);
        let seconds = if self.args.limit > 0 { f64::from(u32::MAX) } else { self.args.seconds() };
        match self.args.limit {
            0 => drop(fleet.run_for(seconds, done)),
            // A limit that is never reached ends when nothing comes any more.
            _ => drop(fleet.wait_for(self.args.drain.max(self.args.seconds()), done, |tally| {
                tally.published + tally.received
            })),
        }
        self.close(fleet);
    }

    fn begin(&mut self, fleet: &mut Fleet) {
        fleet.tell(|| Command::Measure(true));
        let (tally, at) = fleet.snapshot();
        self.window = Some((tally, at.duration_since(fleet.plan.start).as_secs_f64()));
        self.broker = fleet.broker_usage().map(|usage| (usage, usage));
    }

    fn close(&mut self, fleet: &mut Fleet) {
        let usage = fleet.broker_usage();
        let (tally, at) = fleet.snapshot();
        if self.args.limit == 0 || self.args.scenario == Scenario::Retain {
            fleet.tell(|| Command::Measure(false));
        }
        let end_s = at.duration_since(fleet.plan.start).as_secs_f64();
        if let Some((before, begin_s)) = self.window {
            self.window = Some((tally.since(&before), end_s - begin_s));
        }
        if let (Some(broker), Some(usage)) = (&mut self.broker, usage) {
            broker.1 = usage;
        }
    }

    /// Stops publishing and waits for what is under way.
    pub fn drain(&mut self, fleet: &mut Fleet) {
        fleet.tell(|| Command::Publish(false));
        let (tally, _) = fleet.snapshot();
        fleet.phase("drain", tally.expected);
        let acknowledged = fleet.plan.flows.iter().any(|flow| flow.qos > QoS::AtMostOnce);
        let qos0 = fleet.plan.flows.iter().any(|flow| flow.qos == QoS::AtMostOnce);
        let done = move |tally: &Tally| {
            let answered = tally.acknowledged + tally.refused_messages + tally.abandoned;
            let all_answered = !acknowledged || qos0 || answered >= tally.published;
            tally.delivered >= tally.expected && all_answered
        };
        fleet.wait_for(self.args.drain, done, |tally| tally.received + tally.acknowledged);
    }

    /// Cuts all subscribers off while messages come, and lets them come back at once.
    fn storm(&mut self, fleet: &mut Fleet) {
        self.begin(fleet);
        let group = 0;
        let clients = fleet.plan.groups[group].clients.len() as u64;
        let half_s = self.args.seconds() / 2.0;
        fleet.phase("measure", half_s as u64);
        fleet.run_for(half_s, |_| false);
        fleet.phase("cut", 1);
        let (before, _) = fleet.snapshot();
        fleet.tell(|| Command::Leave(group, Close::Reset));
        let gone = before.online - clients;
        fleet.wait_for(self.args.drain, |tally| tally.online <= gone, |tally| tally.online);
        fleet.run_for(1.0, |_| false);
        let (before, _) = fleet.snapshot();
        fleet.phase("storm", 1);
        let began = std::time::Instant::now();
        fleet.tell(|| Command::Connect(group));
        let back = |tally: &Tally| tally.since(&before).subscribed;
        let patience_s = f64::from(self.args.connect_timeout) + 1.0;
        fleet.wait_for(patience_s, |tally| back(tally) >= clients, back);
        let seconds = began.elapsed().as_secs_f64();
        let (after, _) = fleet.snapshot();
        let new = after.since(&before);
        self.extra.push(("storm: clients that came back", back(&after) as f64, ""));
        self.extra.push(("storm: with their session", new.resumed as f64, ""));
        self.extra.push(("storm: until all were back", seconds, "s"));
        self.extra.push(("storm: connects", new.connected as f64 / seconds, "/s"));
        fleet.phase("measure", half_s as u64);
        fleet.run_for(half_s, |_| false);
        self.close(fleet);
    }

    /// Stores retained messages, then times how long subscribers take to get all of them.
    fn retain(&mut self, fleet: &mut Fleet) -> Result<(), String> {
        let (subscribers, publishers) = (0, 1);
        self.connect(fleet, publishers)?;
        let flow = &fleet.plan.flows[0];
        let stored = u64::from(flow.limit) * flow.pubs.len() as u64;
        let deliveries = stored * flow.subs.len() as u64;
        self.begin(fleet);
        fleet.phase("store", 1);
        let began = std::time::Instant::now();
        fleet.tell(|| Command::Publish(true));
        let answered = |tally: &Tally| tally.acknowledged + tally.refused_messages;
        fleet.wait_for(self.args.drain, |tally| answered(tally) >= stored, answered);
        let store_s = began.elapsed().as_secs_f64();
        fleet.snapshot();
        let began = std::time::Instant::now();
        self.connect(fleet, subscribers)?;
        fleet.phase("scan", 1);
        fleet.wait_for(self.args.drain, |tally| tally.delivered >= deliveries, |tally| tally.received);
        let scan_s = began.elapsed().as_secs_f64();
        self.close(fleet);
        self.extra.push(("retain: messages stored", stored as f64, ""));
        self.extra.push(("retain: stored per second", stored as f64 / store_s, "/s"));
        self.extra.push(("retain: until all subscribers had all", scan_s, "s"));
        self.extra.push(("retain: delivered per second", deliveries as f64 / scan_s, "/s"));
        Ok(())
    }

    /// Everybody leaves; judges.
    pub fn end(self, mut fleet: Fleet) -> Outcome {
        let fates = fleet.finish();
        let mut total = fleet.tally();
        let fates = join(&fleet.plan, fates, &mut total);
        let mut verdict = judge(&fleet.plan, &fates, &total);
        verdict.failures.extend(self.shortfalls);
        let (window, window_s) = self.window.unwrap_or_default();
        Outcome {
            total,
            window,
            window_s,
            connects: self.connects,
            extra: self.extra,
            ledger: self.ledger,
            causes: fleet.causes(),
            latencies: std::mem::take(&mut fleet.latencies),
            rows: std::mem::take(&mut fleet.rows),
            broker: self.broker,
            connect_costs: self.connect_costs,
            verdict,
            stopped: fleet.stopped,
            driver: std::mem::take(&mut fleet.driver),
        }
    }
}
