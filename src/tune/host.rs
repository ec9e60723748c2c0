//! A host, as the files below `/proc`, `/sys` and `/etc` tell: the one that this runs on, or a copied tree.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the facts come from.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose files are below `root`; `/` is the one that this runs on.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    /// Whether it is the one that this runs on.
    pub fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a file of it is, for a path without a leading `/`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text without white space at its ends; `None` when it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file's first number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// The names in a folder, sorted: those that end in a number by that number.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.sort_by_key(|name| {
            let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            (name.len() - digits.len(), digits.parse::<u64>().unwrap_or(0), name.clone())
        });
        names
    }

    /// The number behind a name at the beginning of a line, such as `MemTotal:` in `/proc/meminfo`.
    pub fn field(&self, path: &str, name: &str) -> Option<u64> {
        let text = self.text(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// The word in brackets of a file such as `always [madvise] never`, or all of it where there are none.
    pub fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Some(chosen.map_or(text.clone(), |(word, _)| word.to_owned()))
    }

    /// A soft and a hard limit of our own process: `Max open files`. Unlimited is `u64::MAX`.
    pub fn limits(&self, name: &str) -> Option<(u64, u64)> {
        let text = self.text("proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = line.split_whitespace();
        let mut next = || match words.next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        Some((next()?, next()?))
    }

    /// The cores that this process may use, ascending; at least one.
    pub fn cores(&self) -> Vec<u64> {
        let allowed = || {
            let status = self.text("proc/self/status")?;
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some(list_of(line.trim()))
        };
        let online = self.text("sys/devices/system/cpu/online").map(|text| list_of(&text));
        let mut cores = allowed().or_else(|| online.clone()).unwrap_or_default();
        if let Some(online) = online {
            cores.retain(|core| online.contains(core));
        }
        if cores.is_empty() { vec![0] } else { cores }
    }

    /// Bytes of memory that this process may use: of the machine, or less where its control group says so.
    pub fn memory(&self) -> u64 {
        let machine = self.field("proc/meminfo", "MemTotal:").unwrap_or_default() * 1024;
        self.group_memory().map_or(machine, |group| group.min(machine))
    }

    /// The control group's limit of memory in bytes, if it has one.
    pub fn group_memory(&self) -> Option<u64> {
        let second = self.group_files("memory.max", "memory", "memory.limit_in_bytes");
        second.iter().filter_map(|text| text.parse().ok()).filter(|bytes| *bytes < 1 << 60).min()
    }

    /// Cores' worth of CPU time that the control group allows, in thousandths, if it has a quota.
    pub fn group_cpu(&self) -> Option<u64> {
        let quota = |text: &String| {
            let mut words = text.split_whitespace();
            let (quota, period): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            quota.saturating_mul(1000).checked_div(period)
        };
        self.group_files("cpu.max", "", "").iter().filter_map(quota).min()
    }

    /// A control group's file, of ours and of those around it: second version, else of a controller of the first.
    fn group_files(&self, second: &str, controller: &str, first: &str) -> Vec<String> {
        let groups = self.text("proc/self/cgroup").unwrap_or_default();
        let mut found = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(names), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let (base, file) = match names {
                "" => ("sys/fs/cgroup".to_owned(), second),
                names if !controller.is_empty() && names.split(',').any(|name| name == controller) => {
                    (format!("sys/fs/cgroup/{controller}"), first)
                }
                _ => continue,
            };
            // In a container the path may be that of the host, and its own group at the top.
            for folder in Path::new(group.trim_start_matches('/')).ancestors() {
                let folder = folder.to_string_lossy();
                let between = if folder.is_empty() { "" } else { "/" };
                found.extend(self.text(&format!("{base}{between}{folder}/{file}")));
            }
        }
        found
    }

    /// Packets that found the queue of a core full since the machine started.
    pub fn device_drops(&self) -> u64 {
        // The second column of each core's row.
        let rows = self.text("proc/net/softnet_stat").unwrap_or_default();
        let dropped = rows.lines().filter_map(|row| row.split_whitespace().nth(1));
        dropped.filter_map(|hex| u64::from_str_radix(hex, 16).ok()).sum()
    }

    /// Bytes of a page of memory.
    pub fn page(&self) -> u64 {
        let kib = self.field("proc/self/smaps", "KernelPageSize:").unwrap_or(4);
        kib.max(4) * 1024
    }

    /// The kernel's version: 6 and 18 for 6.18.44.
    pub fn kernel(&self) -> Option<(u64, u64)> {
        let text = self.text("proc/sys/kernel/osrelease")?;
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// The file of a kernel parameter: `net.core.somaxconn`.
pub fn sysctl_path(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

/// Numbers of a list such as `0-2,5`.
pub fn list_of(text: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            // More cores than any machine has: not such a list.
            numbers.extend(first..=last.min(first + 65_535));
        }
    }
    numbers
}

/// A list such as `0-2,5` of ascending numbers.
pub fn as_list(numbers: &[u64]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = numbers;
    while let Some((first, _)) = rest.split_first() {
        let run = rest.iter().zip(*first..).take_while(|(number, due)| *number == due).count();
        let last = first + run as u64 - 1;
        parts.push(if run == 1 { first.to_string() } else { format!("{first}-{last}") });
        rest = &rest[run..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        for (text, numbers) in [("0-2,5", vec![0, 1, 2, 5]), ("3", vec![3]), ("0-1,4-5", vec![0, 1, 4, 5])] {
            assert_eq!((list_of(text), as_list(&numbers).as_str()), (numbers, text));
        }
        assert_eq!(list_of(""), Vec::<u64>::new());
        assert_eq!(as_list(&[]), "");
    }

    #[test]
    fn this_host_tells_something() {
        let here = Host::at(Path::new("/"));
        assert!(here.is_here() && here.memory() > 1 << 20 && !here.cores().is_empty());
        assert!(here.kernel().is_some_and(|(major, _)| major >= 4) && here.page() >= 4096);
        assert!(here.limits("Max open files").is_some_and(|(soft, hard)| soft <= hard && soft > 0));
        assert_eq!(here.text("proc/no/such/file"), None);
    }
}
