//! The folder under a log: the only place that opens, writes and syncs files. A trait, so that a test can be a disk
//! that loses what was not synced.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Disk: Send {
    /// The names of its files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// A new, empty file, which is to be written.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Takes a file out of the folder.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when creations and removals of files would survive a power cut.
    fn sync_folder(&self) -> io::Result<()>;

    /// What it is called, for messages.
    fn name(&self) -> String;
}

/// A file that grows at its end.
pub trait File: Send {
    /// Its bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads at a place; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of it at a place.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Returns when everything that was written would survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system, locked against other processes.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held while this lives.
    _lock: Option<fs::File>,
}

/// The file whose lock says that somebody has the store.
const LOCK: &str = "lock";

impl Folder {
    /// The folder, made where it is not there, with nobody else in it.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it, else what the file system says.
    pub fn take(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        let lock = fs::File::options().create(true).append(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let folder = Folder { path: path.to_owned(), _lock: Some(lock) };
        // The folder itself, where it is new.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(folder)
    }

    /// The folder, to be read, whoever has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn look(path: &Path) -> io::Result<Folder> {
        fs::read_dir(path)?;
        Ok(Folder { path: path.to_owned(), _lock: None })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(Plain(fs::File::open(self.path.join(name))?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Box::new(Plain(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

struct Plain(fs::File);

impl File for Plain {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        // The size of the file is among what fdatasync writes.
        self.0.sync_data()
    }
}
