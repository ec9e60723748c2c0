//! The process as the kernel sees it: memory and CPU, from `/proc/self`.

use std::fs;
use std::path::Path;
use std::time::Instant;

/// Memory and CPU of the process.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Process {
    /// Bytes of memory that are resident.
    pub memory_bytes: u64,
    /// The most that were.
    pub memory_bytes_max: u64,
    /// Seconds of CPU that it has used.
    pub cpu_s: f64,
    /// Share of one core that it used since the sample before, in percent.
    pub cpu_percent: f64,
    /// The most of those.
    pub cpu_percent_max: f64,
}

/// What is kept from look to look.
#[derive(Debug, Default)]
pub(super) struct Usage {
    last: Option<(Instant, f64)>,
    process: Process,
}

/// Ticks per second in which Linux tells CPU time to programs.
const USER_HZ: f64 = 100.0;
/// Seconds between two looks below which the CPU's share stays as it was: its unit is a hundredth of a second.
const APART_S: f64 = 0.5;

impl Usage {
    /// Looks now. What the kernel does not tell stays 0.
    pub fn look(&mut self) -> Process {
        let process = &mut self.process;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        process.memory_bytes = kib(&status, "VmRSS:") * 1_024;
        process.memory_bytes_max = (kib(&status, "VmHWM:") * 1_024).max(process.memory_bytes);
        process.cpu_s = cpu_s(&fs::read_to_string("/proc/self/stat").unwrap_or_default());
        let apart = self.last.map(|(at, cpu_s)| (at.elapsed().as_secs_f64(), process.cpu_s - cpu_s));
        match apart {
            Some((apart_s, _)) if apart_s < APART_S => {}
            Some((apart_s, used_s)) => {
                process.cpu_percent = used_s / apart_s * 100.0;
                process.cpu_percent_max = process.cpu_percent_max.max(process.cpu_percent);
                self.last = Some((Instant::now(), process.cpu_s));
            }
            None => self.last = Some((Instant::now(), process.cpu_s)),
        }
        *process
    }
}

/// The machine, as RMQTT names it: memory and disk in bytes, the load, and whether the node runs. The disk is that
/// of the working directory.
pub(super) fn host() -> Vec<(String, f64)> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (all, free) = (kib(&memory, "MemTotal:") * 1_024, kib(&memory, "MemAvailable:") * 1_024);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<f64> = load.split_whitespace().take(3).filter_map(|n| n.parse().ok()).collect();
    let at = |index: usize| load.get(index).copied().unwrap_or(0.0);
    let (disk_free, disk_total) = crate::io::disk_space(Path::new(".")).unwrap_or_default();
    [
        ("disk_free", disk_free as f64),
        ("disk_total", disk_total as f64),
        ("load1", at(0)),
        ("load15", at(2)),
        ("load5", at(1)),
        ("memory_free", free as f64),
        ("memory_total", all as f64),
        ("memory_used", all.saturating_sub(free) as f64),
        ("running", 1.0),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A line of `/proc/self/status` in KiB.
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time of `/proc/self/stat`: the 12th and 13th field behind the name, which may hold anything.
fn cpu_s(stat: &str) -> f64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ticks.iter().sum::<u64>() as f64 / USER_HZ
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(kib("Name:\tx\nVmHWM:\t  20064 kB\nVmRSS:\t  100 kB\n", "VmHWM:"), 20_064);
        assert_eq!(kib("", "VmHWM:"), 0);
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 1 1 20";
        assert!((cpu_s(stat) - 3.0).abs() < 1e-9);
        let process = Usage::default().look();
        assert!(process.memory_bytes > 0 && process.memory_bytes_max >= process.memory_bytes);
    }
}
