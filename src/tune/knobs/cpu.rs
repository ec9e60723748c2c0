//! Cores: clocks, frequencies, sleep, siblings and nodes.

use crate::tune::host::{as_list, list_of};
use crate::tune::knob::{Context, Judgement, Knob, Level, Read, Setting, UNREADABLE, Want};

const CPUS: &str = "sys/devices/system/cpu";
/// Microseconds of waking up, above which a sleep of a core shows in latencies.
const WAKE_US_MAX: u64 = 50;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "shards",
        read: Read::With(|c| Some(c.demand.shards.to_string())),
        want: Want::Rule(|c, _| {
            let cores = c.demand.cores.len() as u64;
            Judgement::unless(c.demand.shards <= cores, Level::Yellow, format!("<= {cores}")).note(
                if c.demand.shards > cores {
                    "shards that share a core take turns in milliseconds"
                } else {
                    ""
                },
            )
        }),
        why: "one shard for each core, and with 4 cores or more one core for HTTP and the system",
        absent: UNREADABLE,
    },
    Knob {
        name: "clock source",
        read: Read::With(|c| c.host.text("sys/devices/system/clocksource/clocksource0/current_clocksource")),
        want: Want::Rule(clock),
        why: "each tick reads the clock; with hpet or acpi_pm that is a trip to a device",
        absent: "not to be seen here",
    },
    Knob {
        name: "frequency governor",
        read: Read::With(governors),
        want: Want::Rule(governor),
        why: "a core that saves power is slow for some milliseconds whenever messages come after a pause",
        absent: "the hypervisor's or the firmware's affair",
    },
    Knob {
        name: "C-states",
        read: Read::With(|c| deepest_sleep(c).map(|us| format!("{us} us to wake"))),
        want: Want::Rule(|c, _| {
            let us = deepest_sleep(c).unwrap_or_default();
            Judgement::unless(us <= WAKE_US_MAX, Level::Yellow, format!("<= {WAKE_US_MAX} us")).note(if us > WAKE_US_MAX {
                "for the lowest latency: cpupower idle-set -D 50; it costs power, and turbo on neighbouring cores"
            } else {
                ""
            })
        }),
        why: "the first message after a pause waits until its core is awake",
        absent: "the hypervisor's affair",
    },
    Knob {
        name: "SMT",
        read: Read::With(|c| c.host.text(&format!("{CPUS}/smt/active"))),
        want: Want::Rule(siblings),
        why: "two shards on siblings of one core get about 1.3 times the work of one, not twice",
        absent: "not to be seen here",
    },
    Knob {
        name: "NUMA nodes of the shards",
        read: Read::With(|c| Some(nodes(c).len().max(1).to_string())),
        want: Want::Rule(|c, _| {
            let nodes = nodes(c);
            Judgement::unless(nodes.len() <= 1, Level::Yellow, "1").note(if nodes.len() > 1 {
                "run one broker for each node, each with numactl --cpunodebind and --membind, or as many shards as one \
                 node has cores, on the node of the network card"
            } else {
                ""
            })
        }),
        why: "messages between shards on different nodes cross their link, and so does what the card wrote",
        absent: UNREADABLE,
    },
];

fn clock(_: &Context, now: &str) -> Judgement {
    let level = match now {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => Level::Green,
        "hpet" | "acpi_pm" | "pit" | "jiffies" => Level::Red,
        _ => Level::Yellow,
    };
    let file = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    Judgement::unless(level == Level::Green, level, "tsc, kvm-clock, arch_sys_counter")
        .set([Setting::File { path: file.to_owned(), value: "tsc".to_owned() }])
}

fn governor_file(core: u64) -> String {
    format!("{CPUS}/cpu{core}/cpufreq/scaling_governor")
}

/// Each governor that the broker's cores have.
fn governors(context: &Context) -> Option<String> {
    let cores = context.demand.cores.iter();
    let mut found: Vec<String> = cores.filter_map(|core| context.host.text(&governor_file(*core))).collect();
    found.sort();
    found.dedup();
    (!found.is_empty()).then(|| found.join(", "))
}

fn governor(context: &Context, now: &str) -> Judgement {
    let other = |core: &&u64| {
        context.host.text(&governor_file(**core)).is_some_and(|governor| governor != "performance")
    };
    let set = context.demand.cores.iter().filter(other);
    let set = set.map(|core| Setting::File { path: governor_file(*core), value: "performance".to_owned() });
    Judgement::unless(now == "performance", Level::Yellow, "performance").set(set)
}

/// Microseconds that the deepest sleep of any of the broker's cores takes to leave.
fn deepest_sleep(context: &Context) -> Option<u64> {
    let mut deepest = None;
    for core in &context.demand.cores {
        let folder = format!("{CPUS}/cpu{core}/cpuidle");
        for state in context.host.list(&folder) {
            let number = |name: &str| context.host.number(&format!("{folder}/{state}/{name}"));
            if number("disable") == Some(0) {
                deepest = deepest.max(number("latency"));
            }
        }
    }
    deepest
}

fn siblings(context: &Context, now: &str) -> Judgement {
    let mut shared: Vec<u64> = Vec::new();
    let shards = context.demand.cores.iter().take(context.demand.shards as usize);
    let shards: Vec<u64> = shards.copied().collect();
    for core in &shards {
        let path = format!("{CPUS}/cpu{core}/topology/thread_siblings_list");
        let others = list_of(&context.host.text(&path).unwrap_or_default());
        if others.iter().any(|other| other != core && shards.contains(other)) {
            shared.push(*core);
        }
    }
    let note = if shared.is_empty() {
        String::new()
    } else {
        format!("shards on cores {} share a core with another; fewer shards may do as much", as_list(&shared))
    };
    Judgement::unless(now == "0" || shared.is_empty(), Level::Yellow, "no siblings among the shards")
        .note(note)
}

/// The nodes that the shards' cores are on.
fn nodes(context: &Context) -> Vec<String> {
    let shards: Vec<u64> =
        context.demand.cores.iter().take(context.demand.shards as usize).copied().collect();
    let folder = "sys/devices/system/node";
    let is_node = |name: &String| name.strip_prefix("node").is_some_and(|rest| rest.parse::<u32>().is_ok());
    let mut nodes: Vec<String> = context.host.list(folder).into_iter().filter(is_node).collect();
    nodes.retain(|node| {
        let cores = list_of(&context.host.text(&format!("{folder}/{node}/cpulist")).unwrap_or_default());
        shards.iter().any(|shard| cores.contains(shard))
    });
    nodes
}
