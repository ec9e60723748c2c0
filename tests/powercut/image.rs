//! A folder as a disk would have it when the power is cut: what was synced is there, the rest may be lost, torn, or in
//! another order.

use super::trace::Op;
use ringmq::store::{Disk, File};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Bytes that get to the disk together or not at all. Sectors have 512; smaller ones tear more.
const PIECE_BYTES: usize = 64;

/// What becomes of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// It is lost.
    Lost,
    /// Some of it is there, in any order.
    Scattered,
}

type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// What the disk holds for certain, and what it may hold.
#[derive(Default)]
pub struct Image {
    durable: Files,
    unsynced: BTreeMap<String, Vec<(u64, Vec<u8>)>>,
    names: BTreeSet<String>,
    names_unsynced: Vec<(String, bool)>,
    random: u64,
}

impl Image {
    pub fn new(seed: u64) -> Image {
        Image { random: seed, ..Image::default() }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => {
                self.durable.insert(name.clone(), Arc::default());
                self.unsynced.remove(name);
                self.names_unsynced.push((name.clone(), true));
            }
            Op::Write(name, at, bytes) => {
                self.unsynced.entry(name.clone()).or_default().push((*at, bytes.clone()));
            }
            Op::Sync(name) => {
                let file = Arc::make_mut(self.durable.entry(name.clone()).or_default());
                for (at, bytes) in self.unsynced.remove(name).unwrap_or_default() {
                    put(file, at, &bytes);
                }
            }
            Op::Remove(name) => self.names_unsynced.push((name.clone(), false)),
            Op::SyncFolder => {
                for (name, there) in self.names_unsynced.drain(..) {
                    if there {
                        self.names.insert(name)
                    } else {
                        self.names.remove(&name)
                    };
                }
            }
        }
    }

    /// What is in the folder while the power is there.
    pub fn live(&self) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.names.clone();
        for (name, there) in &self.names_unsynced {
            if *there {
                names.insert(name.clone())
            } else {
                names.remove(name)
            };
        }
        let whole = |name: String| {
            let mut file = self.durable.get(&name).map(|file| file.to_vec()).unwrap_or_default();
            for (at, bytes) in self.unsynced.get(&name).into_iter().flatten() {
                put(&mut file, *at, bytes);
            }
            (name, file)
        };
        names.into_iter().map(whole).collect()
    }

    /// The disk after the power was cut.
    pub fn cut(&mut self, unsynced: Unsynced) -> Box<dyn Disk> {
        let mut names = self.names.clone();
        for (name, there) in self.names_unsynced.clone() {
            if unsynced == Unsynced::Scattered && self.next(2) == 0 {
                if there {
                    names.insert(name)
                } else {
                    names.remove(&name)
                };
            }
        }
        let mut files = Files::new();
        for name in names {
            let mut file = self.durable.get(&name).cloned().unwrap_or_default();
            if unsynced == Unsynced::Scattered {
                for (at, bytes) in self.unsynced.get(&name).cloned().into_iter().flatten() {
                    for (nth, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                        if self.next(3) > 0 {
                            put(Arc::make_mut(&mut file), at + (PIECE_BYTES * nth) as u64, piece);
                        }
                    }
                }
            }
            files.insert(name, file);
        }
        Box::new(Left(files))
    }
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at as usize..end].copy_from_slice(bytes);
}

/// A folder that is read, and to which nothing is written.
struct Left(Files);

struct LeftFile(Arc<Vec<u8>>);

fn unexpected<T>() -> io::Result<T> {
    Err(io::Error::other("expected nothing to be written by opening a store"))
}

impl Disk for Left {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.0.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(LeftFile(Arc::clone(file))))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn File>> {
        unexpected()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unexpected()
    }

    fn sync_folder(&self) -> io::Result<()> {
        unexpected()
    }

    fn name(&self) -> String {
        "what the power cut left".to_owned()
    }
}

impl File for LeftFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.0.get(at as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unexpected()
    }

    fn sync(&self) -> io::Result<()> {
        unexpected()
    }
}
