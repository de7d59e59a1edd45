//! A lock that one process holds, which the kernel drops with it, however that ends.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Holder, say_without_locks};
use crate::Escaped;

/// The reason why a lock cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("{}: held by {}", Escaped::new(path), Escaped::new(holder))]
    Held {
        /// The file.
        path: PathBuf,
        /// What the other process wrote about itself.
        holder: String,
    },
    /// What has the file's name would be changed elsewhere too, or cannot be locked.
    #[error(
        "{}: is a link, or no plain file; remove it if nobody works here",
        Escaped::new(path)
    )]
    NotPlain {
        /// The name.
        path: PathBuf,
    },
    /// The file cannot be opened or written.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Gives the lock back by itself: closing the file would not do so while a process that was just started has it, too,
/// which it has between fork and exec.
impl Drop for Lock {
    fn drop(&mut self) {
        // Without locks there is nothing to give back.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock on the file `path`, which is made if it is missing, and says in it who holds it.
    ///
    /// Where the file system has no locks, another process of this machine is recognised by what it wrote.
    ///
    /// # Errors
    /// [`LockError::Held`], or why there can be no lock.
    pub fn take(path: &Path) -> Result<Lock, LockError> {
        let io = |cause| LockError::Io {
            path: path.to_owned(),
            cause,
        };
        let not_plain = || LockError::NotPlain {
            path: path.to_owned(),
        };
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // Neither through a link, nor waiting for the other end of a pipe.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path);
        let mut file = match opened {
            Err(error) if super::is_link(path) || path.is_dir() => {
                tracing::debug!("{}: {error}", Escaped::new(path));
                return Err(not_plain());
            }
            opened => opened.map_err(io)?,
        };
        let found = file.metadata().map_err(io)?;
        if !found.is_file() {
            return Err(not_plain());
        }
        let tried = try_lock(&file, path);
        if tried != Tried::Locked {
            let mut holder = String::new();
            // It may be torn while the holder writes it.
            let _ = file.read_to_string(&mut holder);
            let alive = Holder::parse(&holder).is_some_and(|holder| holder.is_alive_here());
            if tried == Tried::Held || alive {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
        }
        // A file with a second name, as backups make them, is locked but not written.
        if found.nlink() == 1 {
            let this = Holder::this();
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{this}"));
            written.map_err(io)?;
        }
        Ok(Lock { file })
    }
}

/// The outcome of trying to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// This process has the lock, until the file is closed.
    Locked,
    /// Another process has it.
    Held,
    /// The file system has no locks, which has been said; what a [`Holder`] wrote may help.
    NoLocks,
}

/// Tries to lock an open file or directory, whose `path` is for messages.
pub fn try_lock(file: &File, path: &Path) -> Tried {
    loop {
        match file.try_lock() {
            Ok(()) => return Tried::Locked,
            Err(TryLockError::WouldBlock) => return Tried::Held,
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            // Whatever the reason is: a program that cannot lock has to go on without.
            Err(TryLockError::Error(error)) => {
                say_without_locks(path, &error);
                return Tried::NoLocks;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_holder_at_a_time_says_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        fs::write(
            &path,
            "process 1 on a machine of long ago, and more than is written now",
        )
        .unwrap();
        let lock = Lock::take(&path).unwrap();
        let this = Holder::this().to_string();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{this}\n"));
        let error = Lock::take(&path).unwrap_err();
        assert!(
            matches!(&error, LockError::Held { holder, .. } if *holder == this),
            "{error}"
        );
        // As a process has it that is just being started.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(&path).unwrap();
        drop(inherited);
    }

    #[test]
    fn nothing_else_is_locked_or_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("lock"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(matches!(error, LockError::NotPlain { .. }), "{error}");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        Lock::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        for make in [
            |path: &Path| fs::create_dir(path).unwrap(),
            |path: &Path| {
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.unwrap().success());
            },
        ] {
            make(&path);
            let error = Lock::take(&path).unwrap_err();
            assert!(matches!(error, LockError::NotPlain { .. }), "{error}");
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }
}
