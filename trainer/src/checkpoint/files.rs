//! The file operations of which a checkpoint is made.
//!
//! They stand behind a trait so that a test can cut the power between any two of them: see `power_cut.rs`.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use shardtool::disk;

use super::Error;

/// A function that fills a file.
pub(super) type Content<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// The file system as checkpoints use it.
///
/// Only what [`Files::sync`] was called on survives a power cut: for a file its content, for a directory the names in
/// it.
pub(super) trait Files: Debug + Send + Sync {
    /// Makes a directory, whose parent must be there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file, or empties it, and fills it.
    fn write(&self, path: &Path, content: Content<'_>) -> io::Result<()>;
    /// Waits until a file's content, or the names in a directory, are on the disk.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug)]
pub(super) struct Disk;

impl Files for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write(&self, path: &Path, content: Content<'_>) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, disk::create(path)?);
        content(&mut out)?;
        out.flush()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.is_dir() {
            return disk::sync_dir(path);
        }
        disk::sync(&File::options().append(true).open(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// Removes a file, or a directory with all in it. A link is removed, and not followed.
pub(super) fn remove_all(files: &dyn Files, folder: &Path) -> Result<(), Error> {
    let found = named(folder, fs::symlink_metadata(folder))?;
    if !found.is_dir() {
        return named(folder, files.remove_file(folder));
    }
    for path in entries(folder)? {
        remove_all(files, &path)?;
    }
    named(folder, files.remove_dir(folder))
}

/// Names `path` in the error of an operation on it.
pub(super) fn named<T>(path: &Path, outcome: io::Result<T>) -> Result<T, Error> {
    outcome.map_err(|cause| Error::io(path, cause))
}

/// Names a file of a checkpoint in the error of reading it. That there is none is damage.
pub(super) fn member<T>(file: &Path, outcome: io::Result<T>) -> Result<T, Error> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::damaged(file, "it is missing"))
        }
        outcome => named(file, outcome),
    }
}

/// Returns the paths in a directory; none where there is no such directory.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            named(folder, paths.collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => named(folder, Err(error)),
    }
}
