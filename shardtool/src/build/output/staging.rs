//! The directory being written: locked, gone on with if its writer died, moved to its place when complete.
//!
//! As a rule it stands beside the final place and is renamed. A place that is a mount point cannot be renamed to; then
//! it stands inside, and its files move up one by one, the manifest last. So do those of a directory that the file
//! system refuses to rename (one of an overlay's lower layer).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::super::{Error, Outcome, REPORT_FILE};
use super::journal::JOURNAL_FILE;
use crate::dataset::{FORMAT_NAME, MANIFEST_FILE, QUARANTINE_FILE};
use crate::disk::{self, Holder, Tried};
use crate::{Error as DatasetError, Escaped};

/// Name of the file that says who builds, where the file system has no locks.
const HOLDER_FILE: &str = "builder.lock";

/// A dataset that is being written.
pub struct Staging {
    out: PathBuf,
    dir: PathBuf,
    /// The directory, opened and locked: a second build sees that it is alive.
    _lock: File,
}

impl Staging {
    /// Makes the directory, or takes over the one of a build that died, and locks it.
    pub fn lock(out: PathBuf) -> Result<Staging, Error> {
        let dir = place(&out);
        loop {
            fs::create_dir_all(&dir).map_err(DatasetError::io(&dir, "create"))?;
            let lock = match File::open(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // just finished or removed
                opened => opened.map_err(DatasetError::io(&dir, "open"))?,
            };
            let tried = disk::try_lock(&lock, &dir);
            if tried == Tried::Held || tried == Tried::NoLocks && has_builder(&dir) {
                return Err(Error::Busy(dir));
            }
            // Whoever held the lock may have moved the directory away meanwhile.
            let (held, named) = (lock.metadata(), fs::metadata(&dir));
            if let (Ok(held), Ok(named)) = (held, named)
                && (held.dev(), held.ino()) == (named.dev(), named.ino())
            {
                if !names(&dir).iter().all(|name| is_ours(name)) || disk::is_link(&dir) {
                    return Err(Error::Foreign { path: dir });
                }
                if tried == Tried::NoLocks {
                    let path = dir.join(HOLDER_FILE);
                    let written = disk::write(&path, Holder::this().to_string().as_bytes());
                    written.map_err(DatasetError::io(&path, "write"))?;
                }
                let staging = Staging {
                    out,
                    dir,
                    _lock: lock,
                };
                staging.take_back()?;
                return Ok(staging);
            }
        }
    }

    /// Returns the final place.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes back the files that a build had moved up when it died.
    fn take_back(&self) -> Result<(), Error> {
        if self.out.join(MANIFEST_FILE).exists() || !is_half_moved(&self.out) {
            return Ok(());
        }
        for name in names(&self.out) {
            let (up, down) = (self.out.join(&name), self.dir.join(&name));
            if is_ours(&name) && !down.exists() {
                rename(&up, &down)?;
            }
        }
        Ok(())
    }

    /// Removes all files but these.
    pub fn keep_only(&self, kept: &[String]) -> Result<(), Error> {
        for name in names(&self.dir) {
            if !kept.contains(&name) && name != HOLDER_FILE {
                let path = self.dir.join(name);
                remove(&path).map_err(DatasetError::io(&path, "remove"))?;
            }
        }
        Ok(())
    }

    /// Writes manifest and report, and moves everything to its final place. `began` becomes the manifest's time: what
    /// is changed in the source later is newer.
    pub fn finish(&self, outcome: &Outcome, began: SystemTime) -> Result<(), Error> {
        let mut report = serde_json::to_string_pretty(&outcome.report).expect("plain data");
        report.push('\n');
        self.write(REPORT_FILE, &report)?;
        self.write(MANIFEST_FILE, &outcome.manifest.to_json())?;
        let manifest = self.dir.join(MANIFEST_FILE);
        let dated = File::options()
            .write(true)
            .open(&manifest)
            .and_then(|file| file.set_modified(began));
        dated.map_err(DatasetError::io(&manifest, "date"))?;
        disk::sync_dir(&self.dir).map_err(DatasetError::io(&self.dir, "write"))?;

        let moved = if self.dir.starts_with(&self.out) {
            self.move_files()
        } else {
            match self.move_directory() {
                Err(error) if is_unmovable(&error) => self.move_files(),
                moved => moved.map_err(DatasetError::io(
                    &self.out,
                    "rename the finished directory to",
                )),
            }
        };
        moved?;
        let parent = disk::parent(&self.out);
        disk::sync_dir(parent).map_err(DatasetError::io(parent, "write"))?;
        Ok(())
    }

    /// Renames the directory to its place, and removes the dataset that was there.
    fn move_directory(&self) -> io::Result<()> {
        let replaced = with_suffix(&self.out, ".replaced");
        if is_own_dataset(&replaced) {
            remove_dataset(&replaced)?;
        }
        if self.out.exists() && !is_free(&self.out) {
            fs::rename(&self.out, &replaced)?;
        } else if self.out.exists() {
            fs::remove_dir(&self.out)?;
        }
        if let Err(error) = fs::rename(&self.dir, &self.out) {
            if is_own_dataset(&replaced) && !self.out.exists() {
                fs::rename(&replaced, &self.out)?;
            }
            return Err(error);
        }
        // The manifest tells that all is there; the journal has served, and harms nobody if it stays.
        for name in [JOURNAL_FILE, HOLDER_FILE] {
            let _ = fs::remove_file(self.out.join(name));
        }
        if is_own_dataset(&replaced) {
            remove_dataset(&replaced)?;
        }
        Ok(())
    }

    /// Moves the files up one by one. Whoever looks meanwhile sees no dataset: its manifest comes last.
    fn move_files(&self) -> Result<(), DatasetError> {
        fs::create_dir_all(&self.out).map_err(DatasetError::io(&self.out, "create"))?;
        let mut old = names(&self.out);
        old.retain(|name| is_ours(name));
        old.sort_by_key(|name| name != MANIFEST_FILE);
        for path in old.into_iter().map(|name| self.out.join(name)) {
            fs::remove_file(&path).map_err(DatasetError::io(&path, "remove"))?;
        }
        let mut files: Vec<String> = names(&self.dir)
            .into_iter()
            .filter(|name| is_ours(name) && ![JOURNAL_FILE, HOLDER_FILE].contains(&name.as_str()))
            .collect();
        files.sort_by_key(|name| name == MANIFEST_FILE);
        for name in files {
            let to = self.out.join(&name);
            fs::rename(self.dir.join(&name), &to)
                .map_err(DatasetError::io(&to, "rename the finished file to"))?;
        }
        disk::sync_dir(&self.out).map_err(DatasetError::io(&self.out, "write"))?;
        let _ = fs::remove_dir_all(&self.dir);
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        let mut file = disk::create(&path).map_err(DatasetError::io(&path, "create"))?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| disk::sync(&file));
        written.map_err(DatasetError::io(&path, "write"))?;
        Ok(())
    }

    /// Removes the directory if there is nothing in it.
    pub fn leave(self) {
        let _ = fs::remove_file(self.dir.join(HOLDER_FILE));
        let _ = fs::remove_dir(&self.dir);
    }

    /// Removes what has been written.
    ///
    /// The error that led here matters more than a failure of this, and the next build removes what is left.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Returns where the directory stands: beside the final place, or in it if that cannot be renamed to.
fn place(out: &Path) -> PathBuf {
    if is_mount_point(out) {
        out.join(".building")
    } else {
        with_suffix(out, ".building")
    }
}

/// Moves a dataset back that a build with `--force` had moved aside when it died.
pub fn restore_replaced(out: &Path) -> Result<(), Error> {
    let replaced = with_suffix(out, ".replaced");
    if is_own_dataset(&replaced) && !out.exists() {
        rename(&replaced, out)?;
    }
    Ok(())
}

/// Tells if a directory is as good as empty: a fresh file system has its `lost+found`, a dead build left its own.
pub fn is_free(path: &Path) -> bool {
    let ignored = |name: &String| name == "lost+found" || name == ".building";
    path.is_dir() && fs::read_dir(path).is_ok() && names(path).iter().all(ignored)
}

/// Tells if a directory holds nothing but files that a build was moving there when it died.
pub fn is_half_moved(out: &Path) -> bool {
    let staging = place(out);
    staging.join(JOURNAL_FILE).is_file()
        && names(out)
            .iter()
            .all(|name| is_ours(name) || name == "lost+found" || name == ".building")
}

fn is_ours(name: &str) -> bool {
    let files = [
        REPORT_FILE,
        MANIFEST_FILE,
        JOURNAL_FILE,
        HOLDER_FILE,
        QUARANTINE_FILE,
    ];
    files.contains(&name) || name.ends_with(".shard") || name.ends_with(".shard.repair")
}

/// Tells if another build of this machine works in a directory whose file system has no locks.
fn has_builder(dir: &Path) -> bool {
    let text = fs::read_to_string(dir.join(HOLDER_FILE)).unwrap_or_default();
    Holder::parse(&text).is_some_and(|holder| holder.is_alive_here())
}

/// Tells if a directory holds a dataset of this program, be it of another version: nothing else is ever replaced.
pub fn is_dataset(path: &Path) -> bool {
    let manifest = fs::read(path.join(MANIFEST_FILE)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    manifest
        .get("format")
        .is_some_and(|format| format == FORMAT_NAME)
}

/// Tells if a name is that of a dataset itself, and no link to one somewhere else.
fn is_own_dataset(path: &Path) -> bool {
    !disk::is_link(path) && is_dataset(path)
}

/// Removes a dataset, and its directory if there is nothing else in it.
fn remove_dataset(path: &Path) -> io::Result<()> {
    for name in names(path).into_iter().filter(|name| is_ours(name)) {
        fs::remove_file(path.join(name))?;
    }
    if !names(path).is_empty() {
        tracing::warn!(
            "{}: stays, for it holds more than the dataset that was replaced",
            Escaped::new(path)
        );
        return Ok(());
    }
    fs::remove_dir(path)
}

fn is_mount_point(path: &Path) -> bool {
    let mounted = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let parent = path
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));
    mounted || (path.is_dir() && device(path) != device(parent))
}

/// Tells if a file system refuses to rename a directory whose files it would rename.
fn is_unmovable(error: &io::Error) -> bool {
    use io::ErrorKind::{
        CrossesDevices, DirectoryNotEmpty, InvalidInput, PermissionDenied, ResourceBusy,
        Unsupported,
    };
    matches!(
        error.kind(),
        CrossesDevices
            | DirectoryNotEmpty
            | InvalidInput
            | PermissionDenied
            | ResourceBusy
            | Unsupported
    )
}

/// Returns the names in a directory; those that are not UTF-8 are nobody's here, but names all the same.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(DatasetError::io(to, "rename the finished directory to"))?;
    Ok(())
}
