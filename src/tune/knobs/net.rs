//! Sockets: queues, buffers, ports, what closed connections leave, and connection tracking.

use crate::tune::knob::{Context, Judgement, Knob, Level, Read, Setting, UNREADABLE, Want};

/// Values that some guides recommend and that do not touch this broker.
const NO_EFFECT: &str =
    "no effect here: the broker leaves the size of socket buffers to TCP (tcp_rmem, tcp_wmem)";

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "net.core.somaxconn",
        read: Read::Sysctl,
        want: Want::AtLeast(|d| d.wanted_backlog(), Level::Yellow),
        why: "cuts the accept queue of each listener; when all clients come back at once, connects beyond it are dropped \
              and tried again after 1 s, 2 s, 4 s",
        absent: UNREADABLE,
    },
    Knob {
        name: "broker.backlog",
        read: Read::With(|c| Some(c.demand.backlog.to_string())),
        want: Want::Rule(|c, _| {
            let wanted = c.demand.wanted_backlog();
            Judgement::unless(c.demand.backlog >= wanted, Level::Yellow, format!(">= {wanted}"))
                .set([Setting::Config { key: "broker.backlog", value: wanted.to_string() }])
        }),
        why: "the same queue, as the broker asks for it; the smaller of both holds",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_syncookies",
        read: Read::Sysctl,
        want: Want::OneOf(&["1"], Level::Yellow),
        why: "answers a flood of SYNs without keeping state; 2 does so always, for tests",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_max_syn_backlog",
        read: Read::Sysctl,
        want: Want::Rule(syn_backlog),
        why: "bounds half-open connections, in kernels of today only while tcp_syncookies is 0",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.core.netdev_max_backlog",
        read: Read::Sysctl,
        want: Want::Rule(device_backlog),
        why: "packets that wait for a core, after RPS and on loopback; beyond it they are dropped",
        absent: "not to be seen in this network namespace",
    },
    Knob {
        name: "net.ipv4.tcp_mem",
        read: Read::Sysctl,
        want: Want::Rule(tcp_mem),
        why: "pages (not bytes) that all TCP buffers may take: low, pressure, most; above the most, packets are dropped",
        absent: "not to be seen in this network namespace",
    },
    Knob {
        name: "net.ipv4.tcp_rmem",
        read: Read::Sysctl,
        want: Want::Rule(|c, now| buffers(c, "net.ipv4.tcp_rmem", now)),
        why: "least, first and most bytes of a receive buffer; it grows with what arrives, so the first costs an idle client \
              nothing, and the most is what a client can fill while it is throttled",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_wmem",
        read: Read::Sysctl,
        want: Want::Rule(|c, now| buffers(c, "net.ipv4.tcp_wmem", now)),
        why: "the same for sending; the most is what the kernel holds for a client that does not read, beside the \
              broker's mqtt.max_output_bytes",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.ip_local_port_range",
        read: Read::Sysctl,
        want: Want::Rule(ports),
        why: "ports of outgoing connections: bridges and load generators; a port that the broker listens on can be taken \
              by one, and the broker then does not start",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_max_tw_buckets",
        read: Read::Sysctl,
        want: Want::AtLeast(|d| (d.connections / 4).max(16_384), Level::Yellow),
        why: "connections that the broker closed and that wait for late packets; beyond it the kernel forgets them at once \
              and logs it, which lets an old packet end a new connection",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_fin_timeout",
        read: Read::Sysctl,
        want: Want::AtMost(|d| if d.is_large() { 30 } else { 60 }, Level::Yellow),
        why: "seconds that a closed connection waits for a peer that has vanished",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_tw_reuse",
        read: Read::Sysctl,
        want: Want::Any,
        why: "for outgoing connections only: no effect on those that clients open",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.ipv4.tcp_tw_recycle",
        read: Read::Sysctl,
        want: Want::OneOf(&["0"], Level::Red),
        why: "refuses clients behind one NAT address by their timestamps; some guides still recommend it",
        absent: "gone since Linux 4.12: it broke clients behind NAT",
    },
    Knob {
        name: "net.ipv4.tcp_congestion_control",
        read: Read::Sysctl,
        want: Want::Any,
        why: "small messages never fill a window, so cubic and bbr behave alike; bbr (with fq) is for large payloads over \
              lossy radio links",
        absent: UNREADABLE,
    },
    Knob {
        name: "net.core.rmem_default",
        read: Read::Sysctl,
        want: Want::Any,
        why: NO_EFFECT,
        absent: NO_EFFECT,
    },
    Knob {
        name: "net.core.wmem_default",
        read: Read::Sysctl,
        want: Want::Any,
        why: NO_EFFECT,
        absent: NO_EFFECT,
    },
    Knob {
        name: "net.core.rmem_max",
        read: Read::Sysctl,
        want: Want::Any,
        why: NO_EFFECT,
        absent: NO_EFFECT,
    },
    Knob {
        name: "net.core.wmem_max",
        read: Read::Sysctl,
        want: Want::Any,
        why: NO_EFFECT,
        absent: NO_EFFECT,
    },
    Knob {
        name: "net.core.optmem_max",
        read: Read::Sysctl,
        want: Want::Any,
        why: NO_EFFECT,
        absent: NO_EFFECT,
    },
    Knob {
        name: "net.netfilter.nf_conntrack_max",
        read: Read::Sysctl,
        want: Want::Rule(tracked),
        why: "a firewall that tracks connections drops new ones when its table is full",
        absent: "connections are not tracked",
    },
    Knob {
        name: "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        read: Read::Sysctl,
        want: Want::AtMost(|d| if d.is_large() { 30 } else { 120 }, Level::Yellow),
        why: "seconds that a closed connection stays in that table",
        absent: "connections are not tracked",
    },
];

fn syn_backlog(context: &Context, now: &str) -> Judgement {
    let cookies = context.host.number("proc/sys/net/ipv4/tcp_syncookies") != Some(0);
    if cookies {
        return Judgement::good("any").note("tcp_syncookies is on");
    }
    let wanted = context.demand.wanted_backlog();
    let name = "net.ipv4.tcp_max_syn_backlog";
    Judgement::unless(
        now.parse::<u64>().is_ok_and(|now| now >= wanted),
        Level::Yellow,
        format!(">= {wanted}"),
    )
    .set([Setting::Sysctl { name, value: wanted.to_string() }])
}

fn device_backlog(context: &Context, now: &str) -> Judgement {
    let dropped = context.host.device_drops();
    let wanted: u64 = if context.demand.is_large() || dropped > 0 { 16_384 } else { 1000 };
    let note =
        if dropped > 0 { format!("{dropped} packets were dropped since the start") } else { String::new() };
    let name = "net.core.netdev_max_backlog";
    Judgement::unless(
        now.parse::<u64>().is_ok_and(|now| now >= wanted),
        Level::Yellow,
        format!(">= {wanted}"),
    )
    .note(note)
    .set([Setting::Sysctl { name, value: wanted.to_string() }])
}

fn three(text: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

fn tcp_mem(context: &Context, now: &str) -> Judgement {
    let demand = context.demand;
    let pages = demand.memory / demand.page;
    let Some([low, pressure, most]) = three(now) else {
        return Judgement { level: Level::Unknown, ..Judgement::good("three numbers") };
    };
    // What the kernel takes by itself, about 9 % of the memory, is enough for few clients.
    let wanted = demand.tcp_pages().max(pages / 11);
    let shown = format!("most: {wanted} to {}", pages / 2);
    let value = format!("{} {} {wanted}", wanted / 2, wanted / 4 * 3);
    let gib = |pages: u64| pages as f64 * demand.page as f64 / (1u64 << 30) as f64;
    let asked = demand.connections * 2;
    let (level, note) = if most > pages {
        let text = format!(
            "{:.0} GiB of {:.0} GiB: no bound at all, so that the machine runs out of memory first; it counts pages, not bytes",
            gib(most),
            gib(pages)
        );
        (Level::Red, text)
    } else if low > pressure || pressure > most {
        (Level::Yellow, "it must ascend".to_owned())
    } else if most < asked.min(pages / 2) {
        (
            Level::Yellow,
            format!("{:.1} GiB, and 2 pages for each client are {:.1} GiB", gib(most), gib(asked)),
        )
    } else {
        (Level::Green, String::new())
    };
    let name = "net.ipv4.tcp_mem";
    Judgement::unless(level == Level::Green, level, shown).note(note).set([Setting::Sysctl { name, value }])
}

/// The largest size of a buffer: for both directions.
fn buffers(context: &Context, name: &'static str, now: &str) -> Judgement {
    let demand = context.demand;
    let Some([least, first, most]) = three(now) else {
        return Judgement { level: Level::Unknown, ..Judgement::good("three numbers") };
    };
    let limit = demand.buffer_bytes(demand.tcp_pages().max(demand.memory / demand.page / 11));
    let first_least = 16_384;
    let shown = format!("first >= {first_least}, most <= {limit}");
    let note = if first < first_least {
        "the first size is so small that a message of some KiB waits for the client's acknowledgements"
    } else if most > limit {
        "one client in a thousand that is stuck may then fill all of tcp_mem"
    } else {
        ""
    };
    let value = format!("{} {} {}", least.max(4096), first.max(first_least), most.min(limit));
    Judgement::unless(note.is_empty(), Level::Yellow, shown).note(note).set([Setting::Sysctl { name, value }])
}

fn ports(context: &Context, now: &str) -> Judgement {
    let bounds: Vec<u64> = now.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let reserved = context.host.text("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let reserved = crate::tune::host::list_of(&reserved);
    let (low, high) = (bounds.first().copied().unwrap_or(0), bounds.get(1).copied().unwrap_or(0));
    let inside = |port: &u64| (low..=high).contains(port) && !reserved.contains(port);
    let taken: Vec<u64> = context.demand.ports.iter().map(|port| u64::from(*port)).filter(inside).collect();
    if taken.is_empty() {
        return Judgement::good("without the broker's ports");
    }
    let list = crate::tune::host::as_list(&taken);
    let mut all = [reserved, taken].concat();
    all.sort_unstable();
    all.dedup();
    let value = crate::tune::host::as_list(&all);
    Judgement::unless(false, Level::Yellow, "without the broker's ports")
        .note(format!("reserve {list} in net.ipv4.ip_local_reserved_ports"))
        .set([Setting::Sysctl { name: "net.ipv4.ip_local_reserved_ports", value }])
}

fn tracked(context: &Context, now: &str) -> Judgement {
    let wanted = context.demand.connections + context.demand.connections / 4 + 65_536;
    let count = context.host.number("proc/sys/net/netfilter/nf_conntrack_count").unwrap_or_default();
    // Loaded, and no rule uses it: with connections open, its table would not be empty.
    let level = if count == 0 { Level::Yellow } else { Level::Red };
    let holds = now.parse::<u64>().is_ok_and(|now| now >= wanted);
    let note = if holds {
        String::new()
    } else if count == 0 {
        "the module is loaded, and tracks nothing now".to_owned()
    } else {
        format!(
            "{count} are tracked now; cheaper than a larger table is not to track MQTT at all: \
             nft add rule inet raw prerouting tcp dport 1883 notrack, and the same for sport in output"
        )
    };
    let name = "net.netfilter.nf_conntrack_max";
    Judgement::unless(holds, level, format!(">= {wanted}"))
        .note(note)
        .set([Setting::Sysctl { name, value: wanted.to_string() }])
}
