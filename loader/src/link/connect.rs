//! The consumer's way to a loader: a stream, a hello, and the answer to it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use shardtool::Escaped;

use super::descriptors::receive_stream;
use super::error::Error;
use super::frames::{receive, send};
use super::messages::{Hello, PROTOCOL, Reply, Request, Welcome};
use super::patience::{Awaited, Patience, Wait};
use super::peer::Peer;
use super::socket::{connect_now, is_private_directory};

/// Where connections to a loader come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A loader's named socket.
    Path(PathBuf),
    /// A socket inherited from the launcher, over which connected streams arrive (see
    /// [`super::send_stream`]).
    Inherited(OwnedFd),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Path(path) => Escaped::new(path).fmt(formatter),
            Endpoint::Inherited(_) => formatter.write_str("the launcher's channel"),
        }
    }
}

/// Connects and introduces a rank. Returns the stream, the loader's welcome, and the descriptor of the ring's memory.
pub(super) fn introduce(
    endpoint: &Endpoint,
    hello: &Hello,
    patience: Patience<'_>,
) -> Result<(UnixStream, Welcome, OwnedFd), Error> {
    let loader = Awaited::Loader {
        endpoint: endpoint.to_string(),
    };
    let mut wait = Wait::begin(patience, loader);
    let (stream, peer) = match endpoint {
        Endpoint::Path(path) => open_named(path, endpoint, &mut wait)?,
        Endpoint::Inherited(channel) => open_inherited(channel, &mut wait)?,
    };
    // The answer may take as long as the loader takes to open the data set and to make the ring's memory.
    wait.turn_to(Awaited::Answer(peer));
    let pid = peer.map_or(0, |peer| peer.0);
    let died = |error| match error {
        // Also what a peer leaves that dies with bytes unread.
        Error::Io { .. } => Error::LoaderDied { pid },
        error => error,
    };
    send(&stream, &Request::Hello(hello.clone()), &mut wait).map_err(died)?;
    let (welcome, fd) = match receive::<Reply>(&stream, &mut wait) {
        Ok(Some((Reply::Welcome(welcome), Some(fd)))) => (welcome, fd),
        Ok(Some((Reply::Welcome(_), None))) => {
            return Err(Error::OutOfPlace {
                message: "a welcome without memory",
            });
        }
        Ok(Some((Reply::Refused { reason }, _))) => return Err(Error::Refused { reason }),
        Ok(Some((Reply::Closing { reason }, _))) => return Err(Error::LoaderClosed { reason }),
        Ok(None) => return Err(Error::LoaderDied { pid }),
        Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::ConnectionReset => {
            return Err(Error::LoaderDied { pid });
        }
        Err(error) => return Err(error),
    };
    if welcome.protocol != PROTOCOL {
        return Err(Error::Protocol {
            found: welcome.protocol,
        });
    }
    Ok((stream, welcome, fd))
}

/// Opens a stream to the loader at a named socket, waiting until there is one and it has room for us.
fn open_named(
    path: &Path,
    endpoint: &Endpoint,
    wait: &mut Wait<'_>,
) -> Result<(UnixStream, Option<Peer>), Error> {
    loop {
        let error = match connect_now(path) {
            Ok(stream) => {
                check_owner(endpoint, &stream)?;
                let peer = Peer::of(&stream);
                return Ok((stream, peer));
            }
            Err(error) => error,
        };
        let full = error.kind() == io::ErrorKind::WouldBlock;
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
            _ if full => {}
            _ => {
                return Err(Error::Socket {
                    path: path.to_owned(),
                    what: "connecting",
                    cause: error,
                });
            }
        }
        let endpoint = endpoint.to_string();
        wait.awaited = match full {
            true => Awaited::Room { endpoint },
            false => Awaited::Loader { endpoint },
        };
        wait.pause().map_err(|error| match error {
            Error::NoLoader {
                endpoint, waited, ..
            } => Error::NoLoader {
                endpoint,
                waited,
                others: others_beside(path),
            },
            error => error,
        })?;
    }
}

/// Takes the next connection that the launcher sends, waiting for it.
fn open_inherited(
    channel: &OwnedFd,
    wait: &mut Wait<'_>,
) -> Result<(UnixStream, Option<Peer>), Error> {
    loop {
        wait.ready(channel, PollFlags::IN)?;
        match receive_stream(channel.as_fd()) {
            Ok(Some((stream, peer))) => return Ok((stream, Some(peer))),
            Ok(None) => return Err(Error::LauncherDied),
            Err(cause) => match cause.kind() {
                io::ErrorKind::WouldBlock => {}
                io::ErrorKind::ConnectionReset => return Err(Error::LauncherDied),
                _ => return Err(Error::io("receiving a connection")(cause)),
            },
        }
    }
}

/// Returns the sockets beside `path` at which somebody listens: the loader may be there under another configuration.
/// Only in the directory that is the loaders' own.
fn others_beside(path: &Path) -> Vec<PathBuf> {
    let Some(directory) = path.parent().filter(|path| is_private_directory(path)) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let alive = |path: &PathBuf| match connect_now(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    let mut others: Vec<PathBuf> = sockets.map(|entry| entry.path()).filter(alive).collect();
    others.sort();
    others
}

/// Refuses memory from anybody but this user and root: a socket in a public directory may be anybody's.
fn check_owner(endpoint: &Endpoint, stream: &UnixStream) -> Result<(), Error> {
    let found = rustix::net::sockopt::socket_peercred(stream)
        .map_err(|error| Error::Io {
            what: "asking who serves",
            cause: error.into(),
        })?
        .uid
        .as_raw();
    let expected = rustix::process::getuid().as_raw();
    if found != expected && found != 0 {
        return Err(Error::ForeignLoader {
            endpoint: endpoint.to_string(),
            found,
            expected,
        });
    }
    Ok(())
}
