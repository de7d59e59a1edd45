//! The file operations of which a checkpoint is made, and the helpers that other durable files share.
//!
//! They stand behind a trait so that a test can cut the power between any two of them: see `power_cut.rs`.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Beginning of the names of files and directories that are being written or removed.
pub(super) const TEMPORARY: &str = ".tmp-";

/// What fills a file.
pub(super) type Content<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// What a checkpoint asks of a file system. Only what [`Files::sync`] was called on survives a power cut: for a file
/// its content, for a directory the names in it.
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
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        content(&mut out)?;
        out.flush()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
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

/// Removes a directory of files, and the files.
pub(super) fn remove_all(files: &dyn Files, folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        named(&path, files.remove_file(&path))?;
    }
    named(folder, files.remove_dir(folder))
}

/// The outcome of an operation on `path`, which an error names.
pub(super) fn named<T>(path: &Path, outcome: io::Result<T>) -> Result<T> {
    outcome.with_context(|| format!("{}", path.display()))
}

/// The directory that holds `path`; the parent of a relative name is the empty path, which cannot be opened.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Replaces `path` by a file of these bytes, on disk when this returns; a crash leaves the old content or the new.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = parent(path);
    let name = path
        .file_name()
        .with_context(|| format!("{}: not a file name", path.display()))?;
    let aside = folder.join(format!("{TEMPORARY}{}", name.to_string_lossy()));
    let write = || {
        Disk.write(&aside, &mut |out| out.write_all(bytes))?;
        Disk.sync(&aside)?;
        Disk.rename(&aside, path)?;
        Disk.sync(folder)
    };
    named(path, write())
}

/// The paths in a directory; none where there is no such directory.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            named(folder, paths.collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => named(folder, Err(error)),
    }
}
