//! What kind of host it is, and whether io_uring may be used.

use crate::io::{IoMode, choose};
use crate::tune::knob::{Context, Judgement, Knob, Level, Read, Setting, UNREADABLE, Want};
use std::sync::OnceLock;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "kernel",
        read: Read::With(|c| c.host.text("proc/sys/kernel/osrelease")),
        want: Want::Rule(|c, _| {
            let recent = c.host.kernel().is_some_and(|version| version >= (6, 1));
            Judgement::unless(recent, Level::Yellow, ">= 6.1").note(if recent {
                ""
            } else {
                "epoll is used, which costs more CPU"
            })
        }),
        why: "the io_uring driver needs accepts into direct descriptors and messages between rings",
        absent: UNREADABLE,
    },
    Knob {
        name: "host",
        read: Read::With(|c| Some(kind(c).to_owned())),
        want: Want::Rule(|c, _| {
            let inside = kind(c).starts_with("container");
            Judgement::good("any").note(if inside {
                "fs.*, kernel.* and most of net.core are those of the machine around it: run this there too"
            } else {
                ""
            })
        }),
        why: "a container has limits and network parameters of its own, and shares all others",
        absent: UNREADABLE,
    },
    Knob {
        name: "kernel.io_uring_disabled",
        read: Read::Sysctl,
        want: Want::Rule(io_uring_disabled),
        why: "1 allows io_uring to one group and root, 2 to nobody; then epoll takes over, which costs more CPU",
        absent: "this kernel does not forbid it",
    },
    Knob {
        name: "io_uring",
        read: Read::With(|c| {
            self_test(c).map(|fault| if fault.is_none() { "works" } else { "fails" }.to_owned())
        }),
        want: Want::Rule(|c, now| {
            let note = self_test(c).flatten().unwrap_or_default();
            Judgement::unless(now == "works", Level::Yellow, "works").note(note)
        }),
        why: "what the broker's self-test of each kernel feature says here",
        absent: "it can be tried on this host only, not on a copied tree",
    },
    Knob {
        name: "seccomp",
        read: Read::With(|c| c.host.field("proc/self/status", "Seccomp:").map(|mode| mode.to_string())),
        want: Want::Rule(|c, now| {
            let works = now == "0" || self_test(c) == Some(None);
            Judgement::unless(works, Level::Yellow, "0, or io_uring works").note(if works {
                ""
            } else {
                "a filter is in force; Docker's default one forbids io_uring: tuning/docker/seccomp.json allows it"
            })
        }),
        why: "filters of containers may forbid io_uring without a trace in any setting",
        absent: "no seccomp in this kernel",
    },
];

/// What the self-test found wrong, if anything. It makes sockets and rings, so that it runs on this host only,
/// and once.
fn self_test(context: &Context) -> Option<Option<String>> {
    static OUTCOME: OnceLock<Option<String>> = OnceLock::new();
    context.host.is_here().then(|| OUTCOME.get_or_init(|| choose(IoMode::Uring).err()).clone())
}

fn io_uring_disabled(_: &Context, now: &str) -> Judgement {
    let note = if now == "1" { "allowed to root and to the group in kernel.io_uring_group only" } else { "" };
    Judgement::unless(now == "0", Level::Yellow, "0")
        .note(note)
        .set([Setting::Sysctl { name: "kernel.io_uring_disabled", value: "0".to_owned() }])
}

/// Container, virtual machine or bare metal.
fn kind(context: &Context) -> &'static str {
    let host = context.host;
    let text = |path| host.text(path).unwrap_or_default();
    let group = text("proc/1/cgroup");
    if host.has(".dockerenv") || group.contains("docker") {
        "container (Docker)"
    } else if text("proc/1/environ").contains("KUBERNETES") || group.contains("kubepods") {
        "container (Kubernetes)"
    } else if host.has("run/.containerenv") || text("proc/1/environ").contains("container=") {
        "container"
    } else if text("proc/cpuinfo").contains(" hypervisor") {
        "virtual machine"
    } else {
        "bare metal"
    }
}
