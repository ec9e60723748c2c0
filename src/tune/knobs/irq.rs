//! Which core handles what a network card receives: its interrupts, and the steering in software.
//!
//! A shard that runs on the core where its packets arrive finds them in that core's caches. Which connection
//! falls to which queue is the card's choice, so what matters is that the queues are spread over the shards'
//! cores, and that no core has all of them.

use crate::tune::host::{Host, as_list, list_of};
use crate::tune::knob::{Context, Judgement, Knob, Level, Read, Setting, UNREADABLE, Want};

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "interrupts of network cards",
        read: Read::With(|c| {
            let interrupts = interrupts(c.host);
            let shown = |i: &Interrupt| format!("{}:{}", i.number, as_list(&i.cores));
            (!interrupts.is_empty()).then(|| interrupts.iter().map(shown).collect::<Vec<_>>().join(" "))
        }),
        want: Want::Rule(spread),
        why: "each queue of a card interrupts the cores that its number may go to; all on one core, and that core is the \
              first to be full",
        absent: "no card with interrupts of its own is to be seen",
    },
    Knob {
        name: "irqbalance",
        read: Read::With(|c| {
            Some(if runs(c.host, "irqbalance") { "runs" } else { "does not run" }.to_owned())
        }),
        want: Want::Rule(|c, now| {
            let pinned = c.demand.pin && now == "runs" && !interrupts(c.host).is_empty();
            Judgement::unless(!pinned, Level::Yellow, "does not run").note(if pinned {
                "systemctl disable --now irqbalance, or ban these interrupts in its configuration"
            } else {
                ""
            })
        }),
        why: "it moves interrupts away from where they were put, onto and off the pinned shards",
        absent: UNREADABLE,
    },
    Knob {
        name: "RPS",
        read: Read::With(|c| steering(c, "rx-", "rps_cpus")),
        want: Want::Rule(|c, now| steered(c, now, "rx-", "rps_cpus")),
        why: "a card with fewer queues than there are shards leaves cores out; the kernel can pass packets on by software",
        absent: "no network card is to be seen",
    },
    Knob {
        name: "XPS",
        read: Read::With(|c| steering(c, "tx-", "xps_cpus")),
        want: Want::Any,
        why: "which queue a core sends by; drivers with a queue for each core set it themselves",
        absent: "no network card is to be seen",
    },
    Knob {
        name: "net.core.rps_sock_flow_entries",
        read: Read::Sysctl,
        want: Want::Any,
        why: "RFS and aRFS follow the thread that reads; a shard stays on its core and its clients' queues do not, so \
              it needs one entry for each connection to help, and was not tried",
        absent: "not to be seen in this network namespace",
    },
];

/// An interrupt of a network card.
struct Interrupt {
    number: u64,
    /// The cores that it may go to.
    cores: Vec<u64>,
}

/// Cards with a device behind them: not loopback, bridges and the like.
fn cards(host: &Host) -> Vec<String> {
    let mut cards = host.list("sys/class/net");
    cards.retain(|card| host.has(&format!("sys/class/net/{card}/device")));
    cards
}

/// The interrupts of all cards that carry packets.
fn interrupts(host: &Host) -> Vec<Interrupt> {
    let table = host.text("proc/interrupts").unwrap_or_default();
    let cards = cards(host);
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((number, rest)) = line.trim().split_once(':') else { continue };
        let (Ok(number), Some(name)) = (number.parse(), rest.split_whitespace().last()) else { continue };
        let named = cards.iter().any(|card| {
            // eth0-TxRx-3; virtio1-input.0, of the device below the card.
            let device = format!("sys/class/net/{card}/device");
            let virtio = name.split('-').next().is_some_and(|device| device.starts_with("virtio"))
                && (name.contains("-input") || name.contains("-output"))
                && host
                    .path(&device)
                    .canonicalize()
                    .is_ok_and(|path| path.ends_with(name.split('-').next().unwrap_or(name)));
            virtio || name.split(['-', '@', ':']).any(|part| part == card)
        });
        if named {
            let list = host.text(&format!("proc/irq/{number}/smp_affinity_list")).unwrap_or_default();
            found.push(Interrupt { number, cores: list_of(&list) });
        }
    }
    found
}

/// Each interrupt on a core of its own, as far as there are cores, in turn.
fn spread(context: &Context, _: &str) -> Judgement {
    let interrupts = interrupts(context.host);
    let cores = &context.demand.cores;
    let used: Vec<u64> =
        cores.iter().copied().filter(|core| interrupts.iter().any(|i| i.cores.contains(core))).collect();
    // Two of a queue pair may share a core: what matters is that not all do.
    let queues = interrupts.len().div_ceil(2).min(cores.len());
    let set = interrupts.iter().zip(cores.iter().cycle()).map(|(interrupt, core)| Setting::File {
        path: format!("proc/irq/{}/smp_affinity_list", interrupt.number),
        value: core.to_string(),
    });
    let note = format!("{} interrupts on {} of {} cores", interrupts.len(), used.len(), cores.len());
    Judgement::unless(used.len() >= queues, Level::Yellow, format!("on {queues} cores or more"))
        .note(note)
        .set(set)
}

/// Whether a process of this name runs.
fn runs(host: &Host, name: &str) -> bool {
    let is_process = |entry: &String| entry.bytes().all(|byte| byte.is_ascii_digit());
    let mut processes = host.list("proc").into_iter().filter(is_process);
    processes.any(|process| host.text(&format!("proc/{process}/comm")).as_deref() == Some(name))
}

fn queues(host: &Host, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for card in cards(host) {
        let folder = format!("sys/class/net/{card}/queues");
        let names = host.list(&folder).into_iter().filter(|name| name.starts_with(prefix));
        found.extend(names.map(|name| format!("{folder}/{name}")));
    }
    found
}

/// The masks of all queues: `eth0/rx-0=3`.
fn steering(context: &Context, prefix: &str, file: &str) -> Option<String> {
    let host = context.host;
    let shown = |queue: String| {
        let mask = host.text(&format!("{queue}/{file}")).unwrap_or_else(|| "-".to_owned());
        let mask = mask.trim_start_matches(['0', ',']).to_owned();
        let name = queue.trim_start_matches("sys/class/net/").replace("/queues", "");
        format!("{name}={}", if mask.is_empty() { "0" } else { &mask })
    };
    let queues = queues(host, prefix);
    (!queues.is_empty()).then(|| queues.into_iter().map(shown).collect::<Vec<_>>().join(" "))
}

fn steered(context: &Context, now: &str, prefix: &str, file: &str) -> Judgement {
    let (demand, queues) = (context.demand, queues(context.host, prefix));
    let off = now.split(' ').all(|queue| queue.ends_with("=0"));
    if queues.len() as u64 >= demand.shards {
        return Judgement::good("any").note("there is a queue for each shard");
    }
    let value = mask(&demand.cores);
    let set =
        queues.iter().map(|queue| Setting::File { path: format!("{queue}/{file}"), value: value.clone() });
    Judgement::unless(!off, Level::Yellow, format!("{value} on each queue"))
        .note(format!("{} queue(s) for {} shards", queues.len(), demand.shards))
        .set(set)
}

/// A mask of cores as the kernel writes it: words of 32 bits in hexadecimal, the highest first.
fn mask(cores: &[u64]) -> String {
    let count = cores.last().map_or(1, |last| last / 32 + 1) as usize;
    let mut words = vec![0u32; count];
    for core in cores {
        if let Some(word) = words.get_mut((core / 32) as usize) {
            *word |= 1 << (core % 32);
        }
    }
    let mut parts: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    if let Some(first) = parts.first_mut() {
        *first = first.trim_start_matches('0').to_owned();
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn masks_of_cores() {
        for (cores, expected) in
            [(vec![0, 1], "3"), (vec![4], "10"), (vec![0, 32], "1,00000001"), (vec![31], "80000000")]
        {
            assert_eq!(mask(&cores), expected);
        }
    }
}
