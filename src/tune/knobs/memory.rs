//! Memory: how much, how it is paged, and what a control group takes away.

use crate::tune::knob::{Context, Judgement, Knob, Level, Read, UNREADABLE, Want};

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "memory",
        read: Read::With(|c| Some(mib(c.demand.memory))),
        want: Want::Rule(memory),
        why: "an idle client takes about 600 bytes of the broker and 4,100 of the kernel; what flows comes on top",
        absent: UNREADABLE,
    },
    Knob {
        name: "control group: memory",
        read: Read::With(|c| c.host.group_memory().map(mib)),
        want: Want::Rule(|c, _| {
            let wanted = c.demand.idle_memory();
            let now = c.host.group_memory().unwrap_or(u64::MAX);
            Judgement::unless(now / 10 * 9 >= wanted, Level::Red, format!(">= {}", mib(wanted / 9 * 10)))
                .note("set it where the container or unit is defined (MemoryMax=, --memory)")
        }),
        why: "sockets count against the group of the broker; above its limit the broker is killed",
        absent: "no limit",
    },
    Knob {
        name: "control group: CPU",
        read: Read::With(|c| {
            c.host.group_cpu().map(|milli| format!("{}.{:03} cores", milli / 1000, milli % 1000))
        }),
        want: Want::Rule(|c, _| {
            let shards = c.demand.shards;
            let enough = c.host.group_cpu().is_none_or(|milli| milli >= shards * 1000);
            Judgement::unless(enough, Level::Yellow, format!(">= {shards} cores"))
                .note("with a quota the kernel stops shards in the middle of a tick; give whole cores (cpuset), or fewer shards")
        }),
        why: "a shard that has used up its quota stands still until the next period, with all its clients",
        absent: "no quota",
    },
    Knob {
        name: "transparent huge pages",
        read: Read::Choice("sys/kernel/mm/transparent_hugepage/enabled"),
        want: Want::OneOf(&["madvise", "never"], Level::Yellow),
        why: "with `always`, a small table that grows takes 2 MiB at a time, and the kernel stalls threads to find them",
        absent: "this kernel has none",
    },
    Knob {
        name: "vm.swappiness",
        read: Read::Sysctl,
        want: Want::Rule(swap),
        why: "a client whose session was swapped out waits for a disk; so do all others of its shard",
        absent: UNREADABLE,
    },
    Knob {
        name: "vm.overcommit_memory",
        read: Read::Sysctl,
        want: Want::OneOf(&["0", "1"], Level::Yellow),
        why: "with 2, memory that is reserved and not used counts, and a table that grows can be refused",
        absent: UNREADABLE,
    },
];

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn memory(context: &Context, _: &str) -> Judgement {
    let demand = context.demand;
    let idle = demand.idle_memory();
    let flowing = idle + demand.tcp_pages() * demand.page;
    let room = demand.memory / 10 * 9;
    let level = if room < idle {
        Level::Red
    } else if room < flowing {
        Level::Yellow
    } else {
        Level::Green
    };
    Judgement::unless(level == Level::Green, level, format!(">= {}", mib(idle / 9 * 10))).note(format!(
        "{} when all clients are idle, {} when something flows to and from each of them",
        mib(idle),
        mib(flowing)
    ))
}

fn swap(context: &Context, now: &str) -> Judgement {
    let swap = context.host.field("proc/meminfo", "SwapTotal:").unwrap_or_default();
    if swap == 0 {
        return Judgement::good("any").note("there is no swap");
    }
    let holds = now.parse::<u64>().is_ok_and(|value| value <= 10);
    Judgement::unless(holds, Level::Yellow, "<= 10, or no swap")
        .note(format!("{} of swap", mib(swap * 1024)))
        .set([crate::tune::knob::Setting::Sysctl { name: "vm.swappiness", value: "10".to_owned() }])
}
