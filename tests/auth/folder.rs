//! A folder of a test's own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Removed with its files at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ringmq-auth-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a file in one step, so that nobody reads a part of it, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let (path, new) = (self.path(name), self.path("new"));
        std::fs::write(&new, text).expect("the folder is writable");
        std::fs::rename(&new, &path).expect("the folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
