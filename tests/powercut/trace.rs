//! What a traced process did to the files of its store, read from strace's output.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The system calls that change files, or say that changes are to stay. Others are noticed by what the files hold.
const CALLS: &str = "trace=openat,pwrite64,fdatasync,fsync,unlink,unlinkat";
/// Bytes of one write that strace writes out.
const BYTES_MAX: &str = "67108864";
/// Time for strace to end behind its process.
const END: Duration = Duration::from_secs(60);

/// One thing that was done to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Create(String),
    Write(String, u64, Vec<u8>),
    Sync(String),
    SyncFolder,
    Remove(String),
}

/// An operation, and when it began: microseconds since 1970, not later than it did.
#[derive(Clone, Debug)]
pub struct Step {
    pub at_us: u64,
    pub op: Op,
    /// Whether it is known to have ended.
    pub ended: bool,
}

/// The command line that traces what follows it into files that begin with `prefix`. The process that is started is the
/// traced one; strace runs beside it.
pub fn wrapper(prefix: &Path) -> Vec<String> {
    let prefix = prefix.to_str().expect("a path in UTF-8");
    // One file for each thread, paths of descriptors, seconds since 1970 with microseconds, all bytes in hex.
    let words = [
        "strace",
        "-D",
        "-ff",
        "--seccomp-bpf",
        "-y",
        "-ttt",
        "-xx",
        "-s",
        BYTES_MAX,
        "-e",
        CALLS,
        "-o",
        prefix,
    ];
    words.map(str::to_owned).to_vec()
}

/// The files of a trace.
fn files(prefix: &Path) -> Vec<PathBuf> {
    let (folder, name) = (prefix.parent().expect("a folder"), prefix.file_name().expect("a name"));
    let begins = format!("{}.", name.to_string_lossy());
    let entries = std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&begins)))
        .collect()
}

/// Reads a trace whose process has ended; waits until strace has written all of it. `store` is the store's folder.
pub fn read(prefix: &Path, store: &Path) -> Vec<Step> {
    let deadline = Instant::now() + END;
    let texts = loop {
        let texts: Vec<String> =
            files(prefix).iter().map(|path| std::fs::read_to_string(path).expect("a trace")).collect();
        let whole = |text: &String| text.lines().last().is_some_and(|line| line.contains(" +++ "));
        if !texts.is_empty() && texts.iter().all(whole) {
            break texts;
        }
        assert!(Instant::now() < deadline, "strace has not ended");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut calls: Vec<(u64, usize, &str)> = Vec::new();
    for (thread, text) in texts.iter().enumerate() {
        calls.extend(text.lines().filter_map(|line| call(line)).map(|(at, call)| (at, thread, call)));
    }
    // Those of one thread stay in their order.
    calls.sort_by_key(|(at, ..)| *at);
    let reader = Reader { store: store.to_owned() };
    let steps = calls.into_iter().filter_map(|(at_us, _, call)| {
        let (op, ended) = reader.step(call)?;
        Some(Step { at_us, op, ended })
    });
    steps.collect()
}

/// The time and the call of a line; `None`: it is about something else.
fn call(line: &str) -> Option<(u64, &str)> {
    let (time, call) = line.split_once(' ')?;
    let (seconds, micros) = time.split_once('.')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    call.starts_with(|c: char| c.is_ascii_lowercase()).then_some((at_us, call))
}

struct Reader {
    store: PathBuf,
}

impl Reader {
    /// What a call did to the store, and whether it is known to have ended.
    fn step(&self, call: &str) -> Option<(Op, bool)> {
        let (name, rest) = call.split_once('(')?;
        let (arguments, result) = match rest.rsplit_once(" = ") {
            Some((arguments, result)) => (arguments.trim_end().strip_suffix(')')?, result),
            None => (rest.split(" <unfinished").next()?, "?"),
        };
        let ended = !result.starts_with('?');
        let value = result.split(' ').next().and_then(|word| word.parse::<i64>().ok());
        if ended && value.is_some_and(|value| value < 0) {
            return None;
        }
        match name {
            "openat" => {
                let path = arguments.contains("O_CREAT").then(|| text(arguments))?;
                // The store makes files that are not there.
                self.file(&path).map(|name| (Op::Create(name), ended))
            }
            "pwrite64" => {
                let name = self.file(&described(arguments)?)?;
                let (_, offset) = arguments.rsplit_once(", ")?;
                let mut bytes = quoted(arguments);
                if let Some(written) = value {
                    bytes.truncate(usize::try_from(written).ok()?);
                }
                Some((Op::Write(name, offset.parse().expect("an offset"), bytes), ended))
            }
            "fdatasync" | "fsync" if ended => {
                let path = described(arguments)?;
                if path == self.store {
                    return Some((Op::SyncFolder, true));
                }
                self.file(&path).map(|name| (Op::Sync(name), true))
            }
            "unlink" | "unlinkat" => self.file(&text(arguments)).map(|name| (Op::Remove(name), ended)),
            _ => None,
        }
    }

    /// The name of a file of the store that holds something.
    fn file(&self, path: &Path) -> Option<String> {
        let name = path.file_name()?.to_str()?;
        (path.parent() == Some(&self.store) && name.ends_with(".log")).then(|| name.to_owned())
    }
}

/// The path of a call's descriptor, which strace writes in angle brackets behind it.
fn described(arguments: &str) -> Option<PathBuf> {
    let (_, path) = arguments.split_once('<')?;
    let (path, _) = path.split_once('>')?;
    path.starts_with(r"\x").then(|| PathBuf::from(String::from_utf8(unhex(path)).expect("a path in UTF-8")))
}

fn text(arguments: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(quoted(arguments)).expect("a path in UTF-8"))
}

/// The bytes of the text in quotes.
fn quoted(arguments: &str) -> Vec<u8> {
    let begins = arguments.find('"').map_or(arguments.len(), |at| at + 1);
    let ends = arguments.rfind('"').filter(|end| *end >= begins).unwrap_or(begins);
    unhex(&arguments[begins.min(ends)..ends])
}

/// The bytes of a text such as `\x41\x42`.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("strace writes hex") as u8;
    text.as_bytes().chunks(4).map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}

#[test]
fn lines_of_a_trace_are_read() {
    let reader = Reader { store: "/s".into() };
    let (path, folder) = (r"\x2f\x73\x2f\x31\x2e\x6c\x6f\x67", r"\x2f\x73");
    let step = |line: String| call(&line).and_then(|(_, call)| reader.step(call));
    let name = || "1.log".to_owned();
    let opened =
        format!("1.000002 openat(AT_FDCWD<{folder}>, \"{path}\", O_RDWR|O_CREAT|O_EXCL, 0666) = 9<{path}>");
    assert_eq!(step(opened), Some((Op::Create(name()), true)));
    let written = format!(r#"1.000003 pwrite64(9<{path}>, "\x41\x00\x22", 3, 32) = 2"#);
    assert_eq!(step(written), Some((Op::Write(name(), 32, vec![0x41, 0]), true)));
    let cut_off = format!(r#"1.000004 pwrite64(9<{path}>, "\x41", 1, 34 <unfinished ...>"#);
    assert_eq!(step(cut_off), Some((Op::Write(name(), 34, vec![0x41]), false)));
    assert_eq!(step(format!("1.000005 fdatasync(9<{path}>) = 0")), Some((Op::Sync(name()), true)));
    assert_eq!(step(format!("1.000006 fdatasync(9<{path}>) = ?")), None);
    assert_eq!(step(format!("1.000006 fdatasync(9<{path}>) = -1 EIO (Input/output error)")), None);
    assert_eq!(
        step(format!("1.000007 openat(AT_FDCWD<{folder}>, \"{folder}\", O_RDONLY) = 10<{folder}>")),
        None
    );
    assert_eq!(
        step(format!("1.000008 fsync(10<{folder}>)                = 0")),
        Some((Op::SyncFolder, true))
    );
    assert_eq!(step(format!("1.000009 unlink(\"{path}\") = 0")), Some((Op::Remove(name()), true)));
    assert_eq!(step("1.000010 +++ killed by SIGKILL +++".to_owned()), None);
}
