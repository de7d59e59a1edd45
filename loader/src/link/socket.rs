//! The named socket of a loader that was started by hand: where it lies, and that it is ours.
//!
//! Nobody else may speak to a loader: the directory has mode 0700 and the socket 0600. A socket whose loader was killed
//! is recognised by a refused connection and replaced; a live one is left alone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::Error;
use crate::private_dir::{self, Others};

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
        let lock = rustix::fs::open(
            directory,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|lock| rustix::fs::flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
        .map_err(|error| failed("opening its directory")(error.into()))?;
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

/// Tells if the directory is the default one, which we make; directories of the user's choice are the user's.
fn is_private_directory(directory: &Path) -> bool {
    default_socket_path(0).parent() == Some(directory)
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
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::SocketInUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("removing the stale socket"))
        }
        Err(error) => Err(failed("looking for its loader")(error)),
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
}
