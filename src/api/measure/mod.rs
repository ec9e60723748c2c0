//! What is measured: the shards' counters, gauges, flight recorders and histograms, gathered once and shown under
//! the names of each dialect.

mod names;
mod process;
mod prometheus;
mod shards;

pub use names::ENDPOINTS as NAMED;
pub use prometheus::ENDPOINTS as PROMETHEUS;
pub use shards::ENDPOINTS as SHARDS;

use super::{Away, Desk};
use crate::desk::Ask;
use crate::limits::METER_SAMPLE_MS;
use crate::stats::{Gauges, Snapshot};
use process::{Process, Usage};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// Gathers what the shards measure. The one asker of [`Ask::Snapshot`], for it keeps what was held at most.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desk: Desk,
    kept: Mutex<Kept>,
}

/// What is kept from sample to sample.
#[derive(Debug)]
struct Kept {
    /// The most that all shards held together within one interval of sampling.
    peaks: Gauges,
    /// Handshakes until the interval that is under way began, and when that was.
    began: (Instant, u64),
    rate: Rate,
    usage: Usage,
}

/// Handshakes per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// In the last interval.
    pub now: u64,
    /// At most.
    pub max: u64,
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// By shard.
    pub shards: Vec<Snapshot>,
    /// All of them. What was held at most is the highest sum of any interval of [`METER_SAMPLE_MS`], each shard's
    /// highest of that interval taken together; so it may be above what there was at one moment, never below.
    pub total: Snapshot,
    /// Handshakes per second.
    pub handshakes: Rate,
    /// The process.
    pub process: Process,
}

impl Meter {
    /// A meter of these shards.
    pub(super) fn new(desk: Desk) -> Meter {
        let kept = Kept {
            peaks: Gauges::default(),
            began: (Instant::now(), 0),
            rate: Rate::default(),
            usage: Usage::default(),
        };
        Meter(Arc::new(Inner { desk, kept: Mutex::new(kept) }))
    }

    /// Everything now.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn sample(&self) -> Result<Sample, Away> {
        // Held while the shards are asked, so that two samples do not share an interval between them.
        let mut kept = self.0.kept.lock().await;
        let answers = self.0.desk.ask_all(Ask::Snapshot).await?;
        let shards: Vec<Snapshot> = answers.into_iter().map(|snapshot| *snapshot).collect();
        let mut total = Snapshot::default();
        shards.iter().for_each(|shard| total.add(shard));
        kept.peaks.raise(&total.peaks);
        total.peaks = kept.peaks.clone();
        kept.count_handshakes(total.counters.connects + total.counters.connect_errors);
        let process = kept.usage.look();
        Ok(Sample { shards, total, handshakes: kept.rate, process })
    }
}

impl Kept {
    fn count_handshakes(&mut self, handshakes: u64) {
        let (since, before) = self.began;
        let took = since.elapsed();
        // A sample that is asked for in between does not end an interval.
        if took.as_millis() as u64 * 2 >= METER_SAMPLE_MS {
            self.rate.now = (handshakes.saturating_sub(before) as f64 / took.as_secs_f64()).round() as u64;
            self.rate.max = self.rate.max.max(self.rate.now);
            self.began = (Instant::now(), handshakes);
        }
    }
}
