//! The named socket of a loader that was started by hand: where it lies, and that it is ours.
//!
//! Nobody else may speak to a loader: the directory has mode 0700 and the socket 0600. A socket whose loader was killed
//! is recognised by a refused connection and replaced; a live one is left alone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shardtool::Escaped;

use super::error::Error;
use crate::private_dir::{self, Others};
use crate::span::Span;

/// How long another process may hold the lock of the socket's directory: its holders need it for milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Returns where loader and trainer meet unless told otherwise: both derive it from the same configuration.
pub fn default_socket_path(sampling_hash: u64) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .unwrap_or_else(|| "/tmp".into());
    let directory = format!("ijepa-{}", rustix::process::getuid().as_raw());
    PathBuf::from(base)
        .join(directory)
        .join(format!("{sampling_hash:016x}.sock"))
}

/// A listening socket that removes its name when dropped.
#[derive(Debug)]
pub struct NamedSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl NamedSocket {
    /// Listens at `path`, replacing a dead loader's socket. Makes the default directory if it is missing, and no other.
    ///
    /// # Errors
    /// If another loader listens there, if the place is not safely ours, or if the system refuses.
    pub fn bind(path: &Path) -> Result<NamedSocket, Error> {
        NamedSocket::bind_within(path, LOCK_PATIENCE)
    }

    /// Listens at `path` as [`NamedSocket::bind`] does, waiting so long for a directory that somebody else has locked.
    fn bind_within(path: &Path, patience: Duration) -> Result<NamedSocket, Error> {
        let failed = |what| {
            move |cause| Error::Socket {
                path: path.to_owned(),
                what,
                cause,
            }
        };
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if is_private_directory(directory) {
            private_dir::make(directory, Others::Excluded)?;
        }
        // One starter at a time looks for stale sockets. The lock is on the directory, so it leaves no file behind.
        let lock = lock(directory, patience).map_err(failed("opening its directory"))?;
        remove_stale(path)?;
        let listener = listen(path).map_err(failed("listening"))?;
        let inode = std::fs::symlink_metadata(path)
            .map_err(failed("looking at the new socket"))?
            .ino();
        drop(lock);
        Ok(NamedSocket {
            listener,
            path: path.to_path_buf(),
            inode,
        })
    }

    /// Returns the socket's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the socket, for an event loop of the caller's.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for NamedSocket {
    fn drop(&mut self) {
        // Only our own: a successor may have replaced it. A loader that is killed leaves the name to its successor.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects to a socket without waiting: [`io::ErrorKind::WouldBlock`] says that its queue of connections is full.
pub(super) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Tells if the directory is the default one, which we make; directories of the user's choice are the user's.
pub(super) fn is_private_directory(directory: &Path) -> bool {
    default_socket_path(0).parent() == Some(directory)
}

/// Locks a directory, or goes on without after `patience`: whoever can read a directory of the user's choice can hold
/// its lock for ever, and all that it keeps apart is two loaders that start in the same moment.
fn lock(directory: &Path, patience: Duration) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::empty())?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            // Not every file system has locks.
            Err(error) => {
                let directory = Escaped::new(directory);
                tracing::debug!("{directory}: cannot be locked ({error}); going on without");
                return Ok(None);
            }
        }
        if start.elapsed() >= patience {
            tracing::warn!(
                "{}: another process has held its lock for {}; going on without",
                Escaped::new(directory),
                Span(start.elapsed())
            );
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the socket of a loader that was killed; refuses anything else of that name.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |what| {
        move |cause| Error::Socket {
            path: path.to_owned(),
            what,
            cause,
        }
    };
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("looking at it"))?,
    };
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket {
            path: path.to_owned(),
        });
    }
    let in_use = || Error::SocketInUse {
        path: path.to_owned(),
    };
    match connect_now(path) {
        Ok(_) => Err(in_use()),
        Err(error) => match error.kind() {
            // It listens, but is stopped or has too many connections.
            io::ErrorKind::WouldBlock => Err(in_use()),
            io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed("removing the stale socket"))
            }
            _ => Err(failed("looking for its loader")(error)),
        },
    }
}

/// Binds, closes the socket to others, and only then listens: nobody can connect in between.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, 64)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loader.sock");
        // A listener that vanished without removing its name.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = NamedSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = NamedSocket::bind(&path).unwrap_err();
        assert!(
            error.to_string().contains("another loader is serving"),
            "{error}"
        );
        drop(live);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        let error = NamedSocket::bind(&path).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
    }

    #[test]
    fn a_directory_that_somebody_has_locked_is_not_waited_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loader.sock");
        let held = lock(directory.path(), Duration::ZERO).unwrap().unwrap();
        let live = NamedSocket::bind_within(&path, Duration::from_millis(100)).unwrap();
        assert!(path.exists());
        drop((live, held));
        assert!(lock(directory.path(), Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn a_loader_whose_queue_is_full_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loader.sock");
        let _live = NamedSocket::bind(&path).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = connect_now(&path) {
            queue.push(stream);
        }
        let error = NamedSocket::bind(&path).unwrap_err();
        assert!(matches!(error, Error::SocketInUse { .. }), "{error}");
    }
}
