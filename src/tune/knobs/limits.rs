//! Open files and locked memory.

use crate::tune::demand::Driver;
use crate::tune::knob::{Context, Judgement, Knob, Level, Read, Setting, UNREADABLE, Want};

/// Where a unit of the broker may be, and what may change it.
const UNITS: &[&str] = &[
    "usr/lib/systemd/system/ringmq.service",
    "lib/systemd/system/ringmq.service",
    "etc/systemd/system/ringmq.service",
];
const DROP_INS: &str = "etc/systemd/system/ringmq.service.d";

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "open files, hard limit",
        read: Read::With(|c| c.host.limits("Max open files").map(|(_, hard)| shown(hard))),
        want: Want::Rule(open_files),
        why: "with io_uring it bounds the table of each ring, and where it is small a shard opens further rings, 64 at \
              most; with epoll it bounds all connections",
        absent: UNREADABLE,
    },
    Knob {
        name: "open files, soft limit",
        read: Read::With(|c| c.host.limits("Max open files").map(|(soft, _)| shown(soft))),
        want: Want::Any,
        why: "the broker raises it to the hard limit by itself",
        absent: UNREADABLE,
    },
    Knob {
        name: "fs.nr_open",
        read: Read::Sysctl,
        want: Want::AtLeast(|d| d.open_files(), Level::Yellow),
        why: "no process can be allowed more open files than this",
        absent: UNREADABLE,
    },
    Knob {
        name: "fs.file-max",
        read: Read::Sysctl,
        want: Want::AtLeast(|d| d.files_of_machine(), Level::Red),
        why: "each connection is an open file of the machine, also when it is a descriptor of a ring",
        absent: UNREADABLE,
    },
    Knob {
        name: "systemd LimitNOFILE",
        read: Read::With(|c| of_unit(c, "LimitNOFILE=")),
        want: Want::Rule(unit_open_files),
        why: "limits.conf and ulimit do not hold for services: their unit does",
        absent: "no ringmq.service is installed",
    },
    Knob {
        name: "locked memory, limit",
        read: Read::With(|c| c.host.limits("Max locked memory").map(|(_, hard)| shown(hard))),
        want: Want::Rule(locked_memory),
        why: "kernels count the rings' memory for users without CAP_IPC_LOCK; too little, and epoll takes over",
        absent: UNREADABLE,
    },
    Knob {
        name: "systemd LimitMEMLOCK",
        read: Read::With(|c| of_unit(c, "LimitMEMLOCK=")),
        want: Want::Rule(unit_locked_memory),
        why: "as above, for the service",
        absent: "no ringmq.service is installed, or it says nothing about it",
    },
    Knob {
        name: "broker.max_connections",
        read: Read::With(|c| Some(c.demand.max_connections.to_string())),
        want: Want::Rule(max_connections),
        why: "0 means: as many for each shard as its limit of open files; more than that must be asked for",
        absent: UNREADABLE,
    },
];

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}

fn open_files(context: &Context, now: &str) -> Judgement {
    let demand = context.demand;
    let (now, wanted) = (number(now), demand.open_files());
    let level = if now >= wanted {
        Level::Green
    } else if demand.fits(now) {
        Level::Yellow
    } else {
        Level::Red
    };
    let rings = demand.rings(now);
    let note = match (demand.driver, level) {
        (_, Level::Green) => String::new(),
        (Driver::Uring, Level::Yellow) => {
            format!("works with {rings} rings for each of {} shards; one each costs less", demand.shards)
        }
        (Driver::Uring, _) => format!("{rings} rings for each of {} shards would be needed", demand.shards),
        (Driver::Epoll, _) => format!("epoll holds about {} clients with it", now.saturating_sub(256)),
    };
    Judgement::unless(level == Level::Green, level, format!(">= {wanted}")).note(note).set([Setting::Limit {
        item: "nofile",
        service: false,
        value: wanted,
    }])
}

/// The last value that the unit and its drop-ins give.
fn of_unit(context: &Context, key: &str) -> Option<String> {
    let units = UNITS.iter().filter_map(|path| context.host.text(path));
    let names = context.host.list(DROP_INS).into_iter().filter(|name| name.ends_with(".conf"));
    let drop_ins = names.filter_map(|name| context.host.text(&format!("{DROP_INS}/{name}")));
    let texts: Vec<String> = units.chain(drop_ins).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let value = lines.filter_map(|line| line.trim().strip_prefix(key)).next_back()?;
    // Soft and hard, where both are given.
    let hard = value.rsplit(':').next().unwrap_or(value).trim();
    Some(if hard == "infinity" { "unlimited".to_owned() } else { hard.to_owned() })
}

fn unit_open_files(context: &Context, now: &str) -> Judgement {
    let (now, wanted) = (number(now), context.demand.open_files());
    let level = if context.demand.fits(now) { Level::Yellow } else { Level::Red };
    Judgement::unless(now >= wanted, level, format!(">= {wanted}")).set([Setting::Limit {
        item: "nofile",
        service: true,
        value: wanted,
    }])
}

fn locked_memory(context: &Context, now: &str) -> Judgement {
    let files = context.host.limits("Max open files").map_or(u64::MAX, |(_, hard)| hard);
    let wanted = context.demand.locked_memory(files);
    Judgement::unless(number(now) >= wanted, Level::Yellow, format!(">= {wanted}")).set([Setting::Limit {
        item: "memlock",
        service: false,
        value: wanted.next_power_of_two(),
    }])
}

fn unit_locked_memory(context: &Context, now: &str) -> Judgement {
    let files = of_unit(context, "LimitNOFILE=").map_or(u64::MAX, |text| number(&text));
    let wanted = context.demand.locked_memory(files);
    let (digits, shift) = match now.chars().last() {
        Some('K') => (now.trim_end_matches('K'), 10),
        Some('M') => (now.trim_end_matches('M'), 20),
        Some('G') => (now.trim_end_matches('G'), 30),
        _ => (now, 0),
    };
    let bytes = digits.parse::<u64>().map_or(u64::MAX, |number| number << shift);
    Judgement::unless(bytes >= wanted, Level::Yellow, format!(">= {wanted}")).set([Setting::Limit {
        item: "memlock",
        service: true,
        value: wanted.next_power_of_two(),
    }])
}

fn max_connections(context: &Context, now: &str) -> Judgement {
    let demand = context.demand;
    let files = context.host.limits("Max open files").map_or(u64::MAX, |(_, hard)| hard);
    let wanted = demand.places();
    let (holds, room) = match number(now) {
        // What one table for each shard holds.
        0 => (files.saturating_mul(demand.shards) >= wanted, files.saturating_mul(demand.shards)),
        configured => (configured >= demand.connections, configured),
    };
    Judgement::unless(
        holds,
        Level::Red,
        if number(now) == 0 && holds { "0".to_owned() } else { format!(">= {wanted}") },
    )
    .note(if holds {
        String::new()
    } else {
        format!("this configuration has places for {room}, and {wanted} are needed")
    })
    .set([Setting::Config { key: "broker.max_connections", value: wanted.to_string() }])
}
