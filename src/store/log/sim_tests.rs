//! A disk in memory that remembers the order of everything that was done to it, so that it can be rebuilt as a
//! power cut at any place would leave it.

use super::*;
use crate::store::MemoryEngine;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
enum Op {
    Create(String),
    Write(String, u64, Vec<u8>),
    /// Whether it worked; what a failed one was to write may be lost for good.
    Sync(String, bool),
    Remove(String),
    SyncFolder(bool),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    ops: Vec<Op>,
    full: bool,
    /// One of so many operations fails; 0: none.
    fails: u64,
    random: u64,
    /// Whether syncs do what they say.
    honest: (bool, bool),
}

impl State {
    fn next(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn fails(&mut self) -> io::Result<()> {
        if self.full {
            return Err(ErrorKind::StorageFull.into());
        }
        match self.fails {
            0 => Ok(()),
            n => match self.next(n) {
                0 => Err([Error::from_raw_os_error(5), ErrorKind::StorageFull.into()]
                    [self.random as usize % 2]
                    .kind()
                    .into()),
                _ => Ok(()),
            },
        }
    }
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State { honest: (true, true), random: 1, ..State::default() })))
    }

    fn with(files: BTreeMap<String, Vec<u8>>) -> SimDisk {
        let disk = SimDisk::new();
        disk.state().files = files;
        disk
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn writes(&self) -> usize {
        self.state().ops.len()
    }

    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files[name].clone()
    }

    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(self.state().files.get_mut(name).unwrap());
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SimFile(self.clone(), name.to_owned())))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.fails()?;
        assert!(state.files.insert(name.to_owned(), Vec::new()).is_none(), "{name} is there");
        state.ops.push(Op::Create(name.to_owned()));
        Ok(Box::new(SimFile(self.clone(), name.to_owned())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.fails()?;
        state.files.remove(name).ok_or(ErrorKind::NotFound)?;
        state.ops.push(Op::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        let failed = state.fails();
        let works = failed.is_ok() && state.honest.1;
        state.ops.push(Op::SyncFolder(works));
        failed
    }

    fn name(&self) -> String {
        "the disk in memory".into()
    }
}

struct SimFile(SimDisk, String);

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.state().files[&self.1].len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.0.state();
        let bytes = state.files[&self.1].get(at as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.0.state();
        let failed = state.fails();
        let written = if failed.is_ok() { bytes.len() } else { state.next(bytes.len() as u64 + 1) as usize };
        put(state.files.get_mut(&self.1).expect("an open file"), at, &bytes[..written]);
        state.ops.push(Op::Write(self.1.clone(), at, bytes[..written].to_vec()));
        failed
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        let failed = state.fails();
        let works = failed.is_ok() && state.honest.0;
        state.ops.push(Op::Sync(self.1.clone(), works));
        failed
    }
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at as usize..end].copy_from_slice(bytes);
}

/// Everything that an engine keeps, as text.
pub fn dump(engine: &mut LogEngine) -> String {
    dump_of(engine)
}

pub fn dump_of(engine: &mut impl Engine) -> String {
    let (mut lines, mut queues) = (BTreeSet::new(), Vec::new());
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let scanned = engine.scan(&mut |kept| match kept {
        Kept::Session { id, bytes } => drop(lines.insert(format!("session {id} {}", show(bytes)))),
        Kept::Retained { topic, bytes } => drop(lines.insert(format!("retained {topic} {}", show(bytes)))),
        Kept::Meta { key, bytes } => drop(lines.insert(format!("meta {key} {}", show(bytes)))),
        Kept::Queue(row) => queues.push(row),
    });
    scanned.unwrap();
    for row in queues {
        lines.insert(format!("{row:?}"));
        let read = Read { queue: row.queue, from: 0, entries_max: u32::MAX - 1, bytes_max: u32::MAX };
        let found = engine.read(&read).unwrap();
        assert_eq!((found.lost, found.more), (0, false));
        for entry in found.entries {
            let body = entry.body.map(|(id, bytes)| format!("{id} {}", show(&bytes)));
            lines.insert(format!("queue {} {} {} {body:?}", row.queue, entry.seq, show(&entry.bytes)));
        }
    }
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// A commit that was tried.
struct Tried {
    /// Operations before it began, and when it was answered.
    began: usize,
    answered: Option<usize>,
    /// What is kept with it.
    dump: String,
}

/// A recorded run of random changes.
pub struct Run {
    disk: SimDisk,
    tried: Vec<Tried>,
    seed: u64,
    commits: u64,
    options: LogOptions,
}

impl Run {
    pub fn new(seed: u64, commits: u64, options: LogOptions) -> Run {
        Run { disk: SimDisk::new(), tried: Vec::new(), seed, commits, options }
    }

    /// A run on a disk of which syncs of files or of the folder do nothing.
    pub fn lying(seed: u64, commits: u64, options: LogOptions, files: bool, folder: bool) -> Run {
        let run = Run::new(seed, commits, options);
        run.disk.state().honest = (files, folder);
        run.with_faults(0)
    }

    /// Runs it; one of so many operations fails.
    pub fn with_faults(mut self, fails: u64) -> Run {
        self.disk.state().fails = fails;
        self.disk.state().random = self.seed;
        let (mut engine, mut model) = (self.open(), MemoryEngine::new());
        // What was refused since the last commit that was not.
        let mut refused: Vec<MemoryEngine> = Vec::new();
        let mut work = Work { random: State { random: self.seed, ..State::default() }, next: 1 };
        for _ in 0..self.commits {
            let changes = work.changes();
            let mut after = model.clone();
            after.commit(&changes).unwrap();
            let began = self.disk.writes();
            let done = engine.commit(&changes).is_ok();
            let answered = done.then(|| self.disk.writes());
            self.tried.push(Tried { began, answered, dump: dump_of(&mut after) });
            if done {
                refused.clear();
                model = after;
            } else {
                refused.push(after);
            }
            // What fails here changes nothing.
            while let Ok(true) = engine.tidy() {}
            if work.random.next(40) == 0 {
                engine = self.open();
                // What was refused may be there again.
                let now = dump(&mut engine);
                let found = std::iter::once(&mut model)
                    .chain(&mut refused)
                    .find_map(|m| (dump_of(m) == now).then(|| m.clone()));
                model = found.expect("an answered state, or one that was refused since");
            }
        }
        self
    }

    fn open(&self) -> LogEngine {
        LogEngine::on(Box::new(self.disk.clone()), self.options).unwrap()
    }

    pub fn refused(&self) -> usize {
        self.tried.iter().filter(|tried| tried.answered.is_none()).count()
    }

    /// What may be kept after a cut behind so many operations.
    fn allowed(&self, cut: usize) -> Vec<&str> {
        let last = self.tried.iter().rposition(|tried| tried.answered.is_some_and(|at| at <= cut));
        let first = last.map_or(0, |last| last + 1);
        let mut allowed = vec![last.map_or("", |last| self.tried[last].dump.as_str())];
        let later = self.tried[first..].iter().take_while(|tried| tried.began < cut);
        allowed.extend(later.map(|tried| tried.dump.as_str()));
        allowed
    }

    /// Cuts the power behind each operation; returns how often, and what was wrong.
    pub fn check(&self, variants: u64) -> (usize, Vec<String>) {
        let ops = self.disk.state().ops.clone();
        let mut rebuilt =
            Rebuilt { random: State { random: self.seed, ..State::default() }, ..Rebuilt::default() };
        let (mut cuts, mut faults) = (0, Vec::new());
        for (nth, op) in ops.iter().enumerate() {
            rebuilt.apply(op);
            for variant in 0..variants {
                cuts += 1;
                let disk = SimDisk::with(rebuilt.files(variant));
                let fault = match LogEngine::on(Box::new(disk), self.options) {
                    Ok(mut engine) if engine.damages.is_empty() => {
                        let now = dump(&mut engine);
                        (!self.allowed(nth + 1).contains(&now.as_str())).then(|| "another state".to_owned())
                    }
                    Ok(engine) => Some(format!("{:?}", engine.damages)),
                    Err(fault) => Some(fault.text),
                };
                faults.extend(fault.map(|fault| format!("cut {nth}, variant {variant}: {fault}")));
            }
        }
        faults.truncate(5);
        (cuts, faults)
    }
}

/// What a disk holds for certain, and what it may hold.
#[derive(Default)]
struct Rebuilt {
    durable: BTreeMap<String, Vec<u8>>,
    unsynced: BTreeMap<String, Vec<(u64, Vec<u8>)>>,
    names: BTreeSet<String>,
    names_unsynced: Vec<(String, bool)>,
    random: State,
}

impl Rebuilt {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => {
                self.durable.insert(name.clone(), Vec::new());
                self.unsynced.remove(name);
                self.names_unsynced.push((name.clone(), true));
            }
            Op::Write(name, at, bytes) => {
                self.unsynced.entry(name.clone()).or_default().push((*at, bytes.clone()));
            }
            Op::Sync(name, works) => {
                let unsynced = self.unsynced.remove(name).unwrap_or_default();
                let file = self.durable.entry(name.clone()).or_default();
                for (at, bytes) in unsynced {
                    // What a failed sync leaves is settled there and then, and no later one makes up for it.
                    if *works {
                        put(file, at, &bytes);
                    } else {
                        scatter(&mut self.random, file, at, &bytes);
                    }
                }
            }
            Op::Remove(name) => self.names_unsynced.push((name.clone(), false)),
            Op::SyncFolder(true) => {
                for (name, there) in self.names_unsynced.drain(..) {
                    if there {
                        self.names.insert(name)
                    } else {
                        self.names.remove(&name)
                    };
                }
            }
            Op::SyncFolder(false) => {}
        }
    }

    /// The files after a cut: with nothing that was not synced, with all of it, or with some.
    fn files(&mut self, variant: u64) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.names.clone();
        for (name, there) in &self.names_unsynced {
            if variant == 1 || variant > 1 && self.random.next(2) == 0 {
                if *there {
                    names.insert(name.clone())
                } else {
                    names.remove(name)
                };
            }
        }
        let mut files = BTreeMap::new();
        for name in names {
            let mut file = self.durable.get(&name).cloned().unwrap_or_default();
            for (at, bytes) in self.unsynced.get(&name).into_iter().flatten() {
                match variant {
                    0 => {}
                    1 => put(&mut file, *at, bytes),
                    _ => scatter(&mut self.random, &mut file, *at, bytes),
                }
            }
            files.insert(name, file);
        }
        files
    }
}

/// Writes some pieces of it, as sectors get to a disk in any order; sectors of 16 bytes, that it matters.
fn scatter(random: &mut State, file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    for (nth, piece) in bytes.chunks(16).enumerate() {
        if random.next(3) > 0 {
            put(file, at + 16 * nth as u64, piece);
        }
    }
}

/// Changes as shards make them.
struct Work {
    random: State,
    next: u64,
}

impl Work {
    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..self.random.next(4) {
            self.next += 1;
            let (seq, queue) = (self.next, self.random.next(6));
            let text: Box<[u8]> = vec![b'a' + (seq % 26) as u8; self.random.next(60) as usize].into();
            match self.random.next(12) {
                0..=3 => changes.push(Change::Push { queue, seq, body: None, bytes: text }),
                4 => {
                    changes.push(Change::PutBody { id: seq, bytes: text });
                    for queue in [queue, queue + 1] {
                        let bytes = Box::from(*b"own");
                        changes.push(Change::Push { queue, seq, body: Some(seq), bytes });
                    }
                }
                5 | 6 => changes.push(Change::Pop { queue, seq: seq.saturating_sub(self.random.next(20)) }),
                7 => changes.push(Change::Trim { queue, to: seq.saturating_sub(12) }),
                8 => changes.push(Change::PutSession { id: queue, bytes: text }),
                9 if self.random.next(3) == 0 => changes.push(Change::DropSession { id: queue }),
                9 | 10 => {
                    changes.push(Change::SetRetained { topic: format!("t/{queue}").into(), bytes: text })
                }
                _ => changes.push(Change::ClearRetained { topic: format!("t/{queue}").into() }),
            }
        }
        changes
    }
}
