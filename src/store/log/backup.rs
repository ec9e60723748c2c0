//! A copy of a log while somebody writes it.
//!
//! Segments only grow at the end, and only the newest one does; the oldest ones go. So a copy is whole when, after
//! a pass over all files, none was missing and the newest one is still the newest: what its copy lacks or has half of is
//! the end of the log, as after a power cut.

use super::number_of;
use crate::limits::STORE_BACKUP_PASSES_MAX;
use crate::store::engine::{Fault, FaultKind};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Copies the store in `from`, which may be in use, to the folder `to`, which must be empty or not there. Returns the
/// bytes of the copy.
///
/// # Errors
/// When the file system fails, or segments come and go faster than they are copied.
pub fn backup(from: &Path, to: &Path) -> Result<u64, Fault> {
    copy(from, to).map_err(|error| {
        let (from, to) = (from.display(), to.display());
        Fault::new(FaultKind::Disk, format!("cannot copy the store in {from} to {to}: {error}"))
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir_all(to)?;
    if fs::read_dir(to)?.next().is_some() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "expected an empty folder to copy to"));
    }
    if segments(from)?.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "expected a store to copy, found none"));
    }
    for _ in 0..STORE_BACKUP_PASSES_MAX {
        let there = segments(from)?;
        if pass(from, to, &there)? && segments(from)?.keys().next_back() == there.keys().next_back() {
            // What went since is behind what was copied instead of it.
            for number in segments(to)?.into_keys().filter(|number| !there.contains_key(number)) {
                fs::remove_file(to.join(super::name_of(number)))?;
            }
            for number in segments(to)?.into_keys() {
                fs::File::open(to.join(super::name_of(number)))?.sync_all()?;
            }
            fs::File::open(to)?.sync_all()?;
            return Ok(segments(to)?.into_values().sum());
        }
    }
    Err(io::Error::other(
        "the store is rewritten faster than it can be copied; try again when there is less to do",
    ))
}

/// Copies what is new or has grown; whether nothing was missing.
fn pass(from: &Path, to: &Path, there: &BTreeMap<u32, u64>) -> io::Result<bool> {
    let copied = segments(to)?;
    let mut whole = true;
    for (number, bytes) in there {
        if copied.get(number) == Some(bytes) {
            continue;
        }
        let name = super::name_of(*number);
        match fs::copy(from.join(&name), to.join(&name)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => whole = false,
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// Numbers and bytes of a folder's segments.
fn segments(path: &Path) -> io::Result<BTreeMap<u32, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Some(number) = number_of(&entry.file_name().to_string_lossy()) else { continue };
        match entry.metadata() {
            Ok(data) => drop(found.insert(number, data.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
