//! The named socket of a loader that was started by hand: where it lies, and that it is ours.
//!
//! Nobody else may speak to a loader: the directory has mode 0700 and the socket 0600. A socket whose loader was killed is
//! recognised by a refused connection and replaced; a live one is left alone.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Error;

/// Where loader and trainer meet unless told otherwise: both derive it from the same configuration.
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
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens at `path`. Makes the default directory (and no other) if it is missing, and replaces a dead loader's socket.
    pub fn bind(path: &Path) -> Result<Listener, Error> {
        let problem = |problem: String| Error::Socket {
            path: path.display().to_string(),
            problem,
        };
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if is_private_directory(directory) {
            make_private(directory)?;
        }
        // One starter at a time looks for stale sockets. The lock is on the directory, so it leaves no file behind.
        let lock = rustix::fs::open(
            directory,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|lock| rustix::fs::flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
        .map_err(|error| problem(format!("cannot open its directory: {error}")))?;
        remove_stale(path)?;
        let listener = listen(path).map_err(|error| problem(format!("cannot listen: {error}")))?;
        let inode = std::fs::symlink_metadata(path)
            .map_err(Error::io("looking at the new socket"))?
            .ino();
        drop(lock);
        Ok(Listener {
            listener,
            path: path.to_path_buf(),
            inode,
        })
    }

    /// The socket's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, for an event loop of the caller's.
    pub fn try_clone(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only our own: a successor may have replaced it. A loader that is killed leaves the name to its successor.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the directory is the default one, which we make; directories of the user's choice are the user's.
fn is_private_directory(directory: &Path) -> bool {
    default_socket_path(0).parent() == Some(directory)
}

fn make_private(directory: &Path) -> Result<(), Error> {
    let problem = |problem: String| Error::Socket {
        path: directory.display().to_string(),
        problem,
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(problem(error.to_string()));
        }
        _ => {}
    }
    // In a public directory anybody may have been faster; a link or a foreign directory is not to be trusted.
    let found = std::fs::symlink_metadata(directory).map_err(|error| problem(error.to_string()))?;
    let user = rustix::process::getuid().as_raw();
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(problem(format!(
            "must be a directory of user {user} with mode 0700; it has user {} and mode {:04o}",
            found.uid(),
            found.mode() & 0o7777
        )));
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let problem = |problem: String| Error::Socket {
        path: path.display().to_string(),
        problem,
    };
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| problem(error.to_string()))?,
    };
    if !found.file_type().is_socket() {
        return Err(problem("exists and is not a socket".into()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(problem(
            "another loader is serving there; give one of them another --socket".into(),
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|error| problem(format!("cannot remove the stale socket: {error}")))
        }
        Err(error) => Err(problem(error.to_string())),
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
        let live = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = Listener::bind(&path).unwrap_err();
        assert!(
            error.to_string().contains("another loader is serving"),
            "{error}"
        );
        drop(live);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("ijepa");
        make_private(&directory).unwrap();
        make_private(&directory).unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            make_private(&directory)
                .unwrap_err()
                .to_string()
                .contains("mode 0755")
        );
    }
}
