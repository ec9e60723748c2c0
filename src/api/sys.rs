//! `$SYS`: the broker's own values as messages, under the topics of EMQX (`$SYS/brokers/{node}/…`) and of mosquitto
//! (`$SYS/broker/…`).
//!
//! They are published through a shard like any message, and not retained: a round goes out within
//! [`METER_SAMPLE_MS`] of a client's SUBSCRIBE to a filter that begins with `$SYS`, and then at each interval as long
//! as a round reaches anybody. While nobody is subscribed, nothing is published.

use super::measure::Sample;
use super::serve::stopped;
use super::times::{date_time, uptime_hours};
use super::v4::alarms;
use super::{Away, Context};
use crate::desk::{Ask, Published};
use crate::limits::METER_SAMPLE_MS;
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::stats::names::{EMQX_STATS, MOSQUITTO, SYS_METRICS};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{MissedTickBehavior, interval};

/// Samples what the shards measure, and publishes it to those who want it, until the broker stops.
pub(super) async fn run(cx: Context) {
    let mut state = cx.state.clone();
    let mut ticks = interval(Duration::from_millis(METER_SAMPLE_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds =
        Rounds { every: Duration::from_secs(cx.sys_interval_s().into()), subscribes: 0, next: None };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopped(&mut state) => return,
        }
        let Ok(sample) = cx.meter.sample().await else { return };
        if look_for_alarms(&cx).await.is_err() {
            return;
        }
        if rounds.is_due(sample.total.counters.sys_subscribes, Instant::now()) {
            match publish(&cx, &sample).await {
                Ok(reached) => rounds.done(reached, Instant::now()),
                Err(Away) => return,
            }
        }
    }
}

/// Looks at the broker, and publishes what has begun to be wrong, and what is no longer.
pub(super) async fn look_for_alarms(cx: &Context) -> Result<(), Away> {
    for alarm in cx.alarms.look(cx).await? {
        let word = if alarm.until.is_none() { "alert" } else { "clear" };
        let topic = format!("$SYS/brokers/{}/alarms/{word}", cx.facts.node.name);
        publish_one(cx, &topic, &alarms::row(&alarm).to_string()).await?;
    }
    Ok(())
}

/// When a round is due.
#[derive(Debug)]
struct Rounds {
    /// Zero: never.
    every: Duration,
    /// SUBSCRIBEs up to the last round.
    subscribes: u64,
    /// The next one, while somebody listens.
    next: Option<Instant>,
}

impl Rounds {
    fn is_due(&mut self, subscribes: u64, now: Instant) -> bool {
        let fresh = std::mem::replace(&mut self.subscribes, subscribes) != subscribes;
        !self.every.is_zero() && (fresh || self.next.is_some_and(|next| next <= now))
    }

    fn done(&mut self, reached: bool, now: Instant) {
        self.next = reached.then(|| now + self.every);
    }
}

/// Publishes a round; whether any of it had a subscriber.
async fn publish(cx: &Context, sample: &Sample) -> Result<bool, Away> {
    let mut reached = false;
    for (topic, value) in values(cx, sample) {
        reached |= publish_one(cx, &topic, &value).await?;
    }
    Ok(reached)
}

/// Publishes one message; whether it had a subscriber.
async fn publish_one(cx: &Context, topic: &str, value: &str) -> Result<bool, Away> {
    let head = Head::new(QoS::AtMostOnce, false, 0, Source::System);
    let view = MessageRef { topic, properties: &[], payload: value.as_bytes(), head };
    let message = Message::new(&view);
    Ok(cx.desk.ask(0, |reply| Ask::Publish { message, reply }).await? == Published::Taken)
}

/// Topics and values of a round.
fn values(cx: &Context, sample: &Sample) -> Vec<(String, String)> {
    let (node, version) = (&cx.facts.node.name, env!("CARGO_PKG_VERSION"));
    let ours = format!("$SYS/brokers/{node}");
    let (seconds, uptime) = (cx.uptime().as_secs(), uptime_hours(cx.uptime()));
    let mut values = vec![
        ("$SYS/brokers".to_owned(), node.to_string()),
        (format!("{ours}/version"), version.to_owned()),
        (format!("{ours}/uptime"), uptime),
        (format!("{ours}/datetime"), date_time(SystemTime::now())),
        (format!("{ours}/sysdescr"), "ringmq Broker".to_owned()),
        ("$SYS/broker/version".to_owned(), format!("ringmq version {version}")),
        ("$SYS/broker/uptime".to_owned(), format!("{seconds} seconds")),
    ];
    let total = &sample.total;
    for (name, value) in EMQX_STATS {
        let topic = format!("{ours}/stats/{}", name.replace('.', "/"));
        values.push((format!("{topic}/count"), value(&total.gauges).to_string()));
        values.push((format!("{topic}/max"), value(&total.peaks).to_string()));
    }
    let metrics =
        SYS_METRICS.iter().map(|(name, value)| (format!("{ours}/metrics/{name}"), value(total).to_string()));
    values.extend(metrics);
    values.extend(
        MOSQUITTO.iter().map(|(name, value)| (format!("$SYS/broker/{name}"), value(total).to_string())),
    );
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_begin_with_a_subscribe_and_end_when_nobody_is_reached() {
        let (now, every) = (Instant::now(), Duration::from_secs(60));
        let mut rounds = Rounds { every, subscribes: 0, next: None };
        assert!(!rounds.is_due(0, now + every), "nobody has subscribed");
        assert!(rounds.is_due(1, now));
        rounds.done(true, now);
        assert!(!rounds.is_due(1, now + every / 2) && rounds.is_due(1, now + every));
        assert!(rounds.is_due(2, now), "somebody else wants them now");
        rounds.done(false, now);
        assert!(!rounds.is_due(2, now + every * 2));
        let mut off = Rounds { every: Duration::ZERO, subscribes: 0, next: None };
        assert!(!off.is_due(1, now));
    }
}
