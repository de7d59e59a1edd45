//! Files on file systems as they are: of a laptop, a cluster, a container.
//!
//! * **Links.** What is made, replaced or removed here is the name itself: nothing is written through a link that
//!   somebody left there, and no file that has a second name elsewhere changes.
//! * **Missing features.** Some file systems cannot synchronise a directory, or know no locks. That is said once in a
//!   program, and it goes on with the protection that is left. A device that fails (`EIO`) stays an error.
//! * **Modes** are those that the umask asks for, for files that were written aside, too.

mod holder;
mod lock;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::io::Errno;

use crate::Escaped;

pub use holder::{Holder, host_name};
pub use lock::{Lock, LockError, Tried, try_lock};

/// Beginning of the names of files and directories that are being written or removed.
pub const TEMPORARY: &str = ".tmp-";

/// Makes an empty file under a name that may be taken: by a link, or by a file with further names, which stay as they
/// are.
///
/// # Errors
/// What the file system says; a directory of that name stays.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(path)
}

/// Replaces `path` by a file of these bytes, on disk when this returns; a crash leaves the old content or the new.
///
/// For one writer at a time: what an earlier one left aside is replaced.
///
/// # Errors
/// What the file system says; `path` is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Replaces `path` by a file that `fill` writes, as [`write()`] does.
///
/// # Errors
/// What `fill` or the file system says; `path` is then as it was.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    replace(path, "", fill)
}

/// Replaces a file that a user named by one of these bytes, as [`write()`] does; other processes may do so at the same
/// time. A device or a pipe is written to, as everything in `/dev` is.
///
/// # Errors
/// What the file system says.
pub fn write_output(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_stream = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    if is_stream || path.starts_with("/dev") {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    let suffix = format!("-{}", std::process::id());
    replace(path, &suffix, |out| out.write_all(bytes))
}

fn replace(
    path: &Path,
    suffix: &str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = parent(path);
    let mut aside = folder.join(aside_name(path, suffix)?);
    if fs::symlink_metadata(&aside).is_ok_and(|found| found.is_dir()) {
        // Somebody's, and nothing to remove for a file.
        aside
            .as_mut_os_string()
            .push(format!("-{}", std::process::id()));
    }
    let mut written = create(&aside).and_then(|mut file| {
        fill(&mut file)?;
        sync(&file)
    });
    if written.is_ok() {
        written = fs::rename(&aside, path);
    }
    if written.is_err() {
        // Makes room on a full disk; the error that led here matters more.
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync_dir(folder)
}

/// Returns the name under which `path` is written aside, which no file system finds too long.
fn aside_name(path: &Path, suffix: &str) -> io::Result<String> {
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let name = name.to_string_lossy();
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{TEMPORARY}{}{suffix}", &name[..end]))
}

/// Returns the directory that holds `path`. The parent of a relative name is the empty path, which cannot be opened.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Gives what stands under a name, whatever it is, the first free name of `NAME.WORD`, `NAME.WORD-2` and so on, and
/// returns that.
///
/// # Errors
/// What the file system says.
pub fn set_aside(path: &Path, word: &str) -> io::Result<PathBuf> {
    let aside = free_name(path, word)?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Copies a file to the first free name, as [`set_aside`] finds it, and returns that.
///
/// # Errors
/// What the file system says.
pub fn copy_aside(path: &Path, word: &str) -> io::Result<PathBuf> {
    let aside = free_name(path, word)?;
    let mut copy = File::create_new(&aside)?;
    io::copy(&mut File::open(path)?, &mut copy)?;
    sync(&copy)?;
    Ok(aside)
}

fn free_name(path: &Path, word: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let mut names = (1..).map(|number| {
        let mut name = name.to_owned();
        name.push(format!(".{word}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        path.with_file_name(name)
    });
    let free = names.find(|path| fs::symlink_metadata(path).is_err());
    Ok(free.expect("the numbers do not end"))
}

/// Tells whether a name is a link, and stands for something else.
pub fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// Waits until a file's content is on the disk, where the file system knows how.
///
/// # Errors
/// A disk that fails or is full.
pub fn sync(file: &File) -> io::Result<()> {
    tolerate("files", file.sync_all())
}

/// Waits until the names in a directory are on the disk, where the file system knows how.
///
/// # Errors
/// A disk that fails, or a directory that is not there.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    tolerate(
        "directories",
        File::open(path).and_then(|folder| folder.sync_all()),
    )
}

/// Takes the answer of a file system that cannot synchronise for none at all.
fn tolerate(what: &str, synced: io::Result<()>) -> io::Result<()> {
    static SAID: Once = Once::new();
    match synced {
        Err(error) if cannot_sync(&error) => {
            SAID.call_once(|| {
                tracing::warn!(
                    "this file system cannot synchronise {what} with the disk ({error}): what is written last may be \
                     lost when the power goes"
                );
            });
            Ok(())
        }
        synced => synced,
    }
}

/// Tells whether a file system says that it does not know how to synchronise: network and user-space file systems have
/// many words for it.
fn cannot_sync(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::BADF
                | Errno::ISDIR
                | Errno::ACCESS
                | Errno::PERM
        )
    )
}

/// Says once in a program that there are no locks.
fn say_without_locks(path: &Path, cause: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "{}: this file system has no locks ({cause}): a second process is noticed on this machine only",
            Escaped::new(path)
        );
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// Returns a directory with a file that nobody may touch.
    fn victim() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("victim");
        fs::write(&path, "precious").unwrap();
        (folder, path)
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        for make in [
            |from: &Path, to: &Path| symlink(from, to),
            |from: &Path, to: &Path| fs::hard_link(from, to),
        ] {
            for name in ["out", ".tmp-out"] {
                let (folder, victim) = victim();
                make(&victim, &folder.path().join(name)).unwrap();
                let out = folder.path().join("out");
                write(&out, b"new").unwrap();
                write_output(&out, b"new").unwrap();
                assert_eq!(fs::read(&victim).unwrap(), b"precious", "{name}");
                assert_eq!(fs::read(&out).unwrap(), b"new");
                assert!(!is_link(&out));
                let (folder, path) = (fs::read_dir(folder.path()).unwrap(), &out);
                assert_eq!(folder.count(), 2, "{}: nothing else", path.display());
                create(&out).unwrap();
                assert_eq!(fs::read(&victim).unwrap(), b"precious", "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        assert!(write(&out, b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn modes_are_those_of_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let (usual, aside) = (folder.path().join("usual"), folder.path().join("aside"));
        fs::write(&usual, "").unwrap();
        write(&aside, b"").unwrap();
        let mode = |path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(usual), mode(aside));
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("é".repeat(127));
        write_output(&out, b"new").unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"new");
    }

    #[test]
    fn a_device_is_written_to_and_stays() {
        write_output(Path::new("/dev/null"), b"new").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn what_is_set_aside_keeps_what_was_set_aside_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        for number in 1..=3 {
            fs::write(&path, number.to_string()).unwrap();
            set_aside(&path, "other").unwrap();
        }
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("log.csv.other"), "1");
        assert_eq!(read("log.csv.other-2"), "2");
        assert_eq!(read("log.csv.other-3"), "3");
    }

    #[test]
    fn a_failing_disk_is_an_error_and_a_missing_feature_is_none() {
        for errno in [Errno::IO, Errno::NOSPC, Errno::NOENT, Errno::DQUOT] {
            assert!(tolerate("files", Err(errno.into())).is_err(), "{errno}");
        }
        for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::ACCESS] {
            assert!(tolerate("files", Err(errno.into())).is_ok(), "{errno}");
        }
    }
}
