//! The table of knobs, by what they are about.

mod cpu;
mod irq;
mod limits;
mod memory;
mod net;
mod platform;

use super::knob::Knob;

/// Each group with its knobs, in the order in which they are shown.
pub const GROUPS: &[(&str, &[Knob])] = &[
    ("platform", platform::KNOBS),
    ("limits", limits::KNOBS),
    ("memory", memory::KNOBS),
    ("network", net::KNOBS),
    ("interrupts", irq::KNOBS),
    ("cores", cpu::KNOBS),
];
