//! What a seed decides once: how many shards and clients, which faults, which bounds.

use crate::net::Faults;
use crate::random::Random;
use ringmq::codec::Version;
use ringmq::limits::{CONTROL_RING_ENTRIES, DATA_RING_ENTRIES, FAN_OUT_AT_ONCE_MAX, TICK_DELIVERIES_MAX};
use ringmq::session::{Options, QueueFull, SharedStrategy};

/// A client, as it is for a whole run.
#[derive(Clone, Debug)]
pub struct Profile {
    pub id: String,
    /// It gives no identifier; the server assigns one.
    pub anonymous: bool,
    pub version: Version,
    /// Session expiry that it asks for (5.0), or that persistent 3.x sessions have.
    pub expiry_s: u32,
    pub keep_alive_s: u16,
    pub receive_max: Option<u16>,
    pub max_packet: Option<u32>,
    pub alias_max: u16,
    /// The share group that it may join: name and filter.
    pub group: Option<(String, String)>,
    /// How often a QoS 1 or 2 publish of it is one of several at once.
    pub burst: u32,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: usize,
    pub rings: (usize, usize),
    pub fan_out_at_once: usize,
    /// Deliveries, packets and filters of one tick.
    pub tick_deliveries: usize,
    /// Bits of the key of an exact filter that count.
    pub route_key_mask: u64,
    pub options: Options,
    pub faults: Faults,
    pub actions: usize,
    pub profiles: Vec<Profile>,
    /// Acknowledgements are sent at once in so many of 1000 cases.
    pub prompt: u32,
    /// Chances in 1000 of an action.
    pub leave: u32,
    pub takeover: u32,
    pub grey: u32,
    /// A shard that is rarely scheduled.
    pub slow: Option<usize>,
    /// The clock jumps, in 1000 steps of the clock.
    pub jump: u32,
    pub retain: u32,
    /// Chances in 1000 that a scene is played after an action.
    pub scenes: u32,
    pub payload_max: u64,
    /// Sessions and retained messages are kept, and the broker crashes so often in 10,000 steps.
    pub crashes: Option<u32>,
    /// The disk fails, or works again, so often in 10,000 steps.
    pub disk_faults: Option<u32>,
    /// What is published to.
    pub topics: Vec<&'static str>,
}

pub const TOPICS: &[&str] =
    &["t/a", "t/b", "t/a/x", "t/c", "r/1", "r/2", "r/1/deep", "s/0", "s/1", "s/0", "s/1"];
pub const FILTERS: &[&str] =
    &["t/a", "t/b", "t/c", "t/#", "t/+", "t/a/#", "+/a", "+/a/x", "r/#", "r/1", "r/+", "t/+/x"];
/// Only for clients that are not members of a share group: they match its topics.
pub const WIDE_FILTERS: &[&str] = &["#", "s/+", "s/0", "+/+"];

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let r = &mut Random::new(seed, 1);
        let shards = r.pick(&[1, 2, 2, 2, 3, 3, 4, 4, 6, 8, 16]);
        let rings = r.pick(&[(4, 4), (4, 4), (8, 8), (2, 2), (CONTROL_RING_ENTRIES, DATA_RING_ENTRIES)]);
        let version =
            |r: &mut Random| r.pick(&[Version::V5, Version::V5, Version::V5, Version::V311, Version::V31]);
        let mut options = options(r);
        let crashes = seed.is_multiple_of(2).then(|| Random::new(seed, 7).pick(&[0, 10, 30, 100]));
        if crashes.is_some() && options.queue_full == QueueFull::Disconnect {
            // Who fills its own queue is disconnected before it is told that its messages are kept, and sends them
            // again for ever.
            options.queue_full = QueueFull::DropOldest;
        }
        let clients = r.range(3, 9) as usize;
        let profiles = (0..clients)
            .map(|at| {
                let version = version(r);
                let v5 = version == Version::V5;
                let member = r.chance(450);
                Profile {
                    id: format!("c{at}"),
                    anonymous: r.chance(60) && version != Version::V31,
                    version,
                    expiry_s: if v5 {
                        r.pick(&[0, 2, 30, 3_600, 100_000, u32::MAX])
                    } else {
                        options.session_expiry_s
                    },
                    keep_alive_s: r.pick(&[0, 0, 2, 5, 60]),
                    receive_max: (v5 && r.chance(600)).then(|| r.pick(&[1, 2, 3, 10])),
                    max_packet: (v5 && r.chance(150)).then(|| r.pick(&[60, 100, 400])),
                    alias_max: if v5 && r.chance(400) { r.pick(&[1, 2, 10]) } else { 0 },
                    group: member
                        .then(|| r.pick(&[("g0", "s/+"), ("g1", "s/0")]))
                        .map(|(g, f)| (g.into(), f.into())),
                    burst: r.pick(&[0, 100, 400]),
                }
            })
            .collect();
        Plan {
            seed,
            shards,
            rings,
            fan_out_at_once: r.pick(&[1, 2, FAN_OUT_AT_ONCE_MAX, FAN_OUT_AT_ONCE_MAX]),
            tick_deliveries: r.pick(&[
                1,
                3,
                10,
                TICK_DELIVERIES_MAX,
                TICK_DELIVERIES_MAX,
                TICK_DELIVERIES_MAX,
            ]),
            route_key_mask: r.pick(&[u64::MAX, u64::MAX, u64::MAX, u64::MAX, 3, 1, 0]),
            options,
            faults: faults(r),
            actions: r.pick(&[40, 120, 300]),
            profiles,
            prompt: r.pick(&[50, 300, 900, 1000]),
            leave: r.pick(&[0, 10, 50, 150]),
            takeover: r.pick(&[0, 10, 100]),
            grey: r.pick(&[0, 0, 20, 80]),
            slow: (r.chance(400) && shards > 1).then(|| r.below(shards)),
            jump: r.pick(&[0, 0, 5, 30]),
            retain: r.pick(&[0, 300, 700]),
            scenes: r.pick(&[0, 40, 120]),
            payload_max: r.pick(&[30, 120, 2_000]),
            crashes,
            disk_faults: crashes.and_then(|_| Random::new(seed, 9).pick(&[None, None, Some(20), Some(80)])),
            topics: match r.below(6) {
                0 => vec!["r/1"],
                1 => vec!["r/1", "t/a", "s/0"],
                2 => vec!["s/0", "s/1"],
                _ => TOPICS.to_vec(),
            },
        }
    }
}

fn options(r: &mut Random) -> Options {
    let small = r.chance(350);
    Options {
        max_inflight: r.pick(&[1, 2, 5, 32]),
        max_mqueue: if small { r.pick(&[1, 3, 8]) } else { 10_000 },
        queue_full: if small {
            r.pick(&[QueueFull::DropOldest, QueueFull::Reject, QueueFull::Disconnect])
        } else {
            QueueFull::DropOldest
        },
        reject_wait_s: 5,
        max_awaiting_rel: r.pick(&[2, 10, 100]),
        session_expiry_s: r.pick(&[3, 7_200]),
        idle_timeout_s: r.pick(&[2, 15]),
        max_output_bytes: r.pick(&[600, 5_000, 1 << 20]),
        max_topic_alias: r.pick(&[0, 2, 32]),
        shared_strategy: r.pick(&[
            SharedStrategy::RoundRobin,
            SharedStrategy::Random,
            SharedStrategy::Sticky,
            SharedStrategy::HashClientId,
            SharedStrategy::HashTopic,
            SharedStrategy::Local,
        ]),
        anonymous_local_only: false,
        ..Options::default()
    }
}

fn faults(r: &mut Random) -> Faults {
    Faults {
        delay_ms_max: r.pick(&[0, 3, 40]),
        split_max: r.pick(&[0, 0, 3, 40]),
        socket_bytes: r.pick(&[40, 300, 65_536, 65_536]),
        buffer_bytes: r.pick(&[16, 300, 16_384]),
        buffers: r.pick(&[1, 2, 64]),
        table: r.pick(&[6, 12, 1_000, 1_000]),
        enfile: r.pick(&[0, 0, 30]),
        late: r.pick(&[0, 50, 300]),
        lag_ms_max: r.pick(&[0, 5, 20]),
        reset_loses: 500,
        spurious: r.pick(&[0, 20, 200]),
        interleave: r.pick(&[0, 20, 150, 600]),
        accept_fails: r.pick(&[0, 0, 100]),
    }
}
