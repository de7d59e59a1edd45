//! The consumer's way to a loader: a stream, a hello, and the answer to it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use shardtool::Escaped;

use super::descriptors::receive_stream;
use super::error::Error;
use super::frames::{receive, send};
use super::messages::{Hello, PROTOCOL, Reply, Request, Welcome};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

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
    patience: Duration,
) -> Result<(UnixStream, Welcome, OwnedFd), Error> {
    let start = Instant::now();
    let mut stream = open_stream(endpoint, start, patience)?;
    let died = |_| Error::LoaderDied { pid: 0 };
    // The answer may take as long as the loader takes to open the data set and to make the ring's memory.
    let rest = patience
        .saturating_sub(start.elapsed())
        .max(Duration::from_secs(1));
    stream
        .set_read_timeout(Some(rest))
        .map_err(Error::io("setting a time-out"))?;
    send(&mut stream, &Request::Hello(hello.clone())).map_err(died)?;
    let (welcome, fd) = match receive::<Reply>(&mut stream) {
        Ok(Some((Reply::Welcome(welcome), Some(fd)))) => (welcome, fd),
        Ok(Some((Reply::Welcome(_), None))) => {
            return Err(Error::OutOfPlace {
                message: "a welcome without memory",
            });
        }
        Ok(Some((Reply::Refused { reason }, _))) => return Err(Error::Refused { reason }),
        Ok(Some((Reply::Closing { reason }, _))) => return Err(Error::LoaderClosed { reason }),
        Ok(None) => return Err(Error::LoaderDied { pid: 0 }),
        Err(Error::Io { cause, .. }) if is_timeout(&cause) => {
            return Err(Error::NoLoader {
                endpoint: endpoint.to_string(),
                waited: start.elapsed(),
            });
        }
        Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::ConnectionReset => {
            return Err(died(cause));
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

/// Tells if a read ended because its time was over.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Opens a stream to a loader, waiting until there is one.
fn open_stream(
    endpoint: &Endpoint,
    start: Instant,
    patience: Duration,
) -> Result<UnixStream, Error> {
    let no_loader = || Error::NoLoader {
        endpoint: endpoint.to_string(),
        waited: start.elapsed(),
    };
    let mut told = false;
    loop {
        match endpoint {
            Endpoint::Path(path) => match UnixStream::connect(path) {
                Ok(stream) => {
                    check_owner(endpoint, &stream)?;
                    return Ok(stream);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock => {}
                    _ => {
                        return Err(Error::Socket {
                            path: path.clone(),
                            what: "connecting",
                            cause: error,
                        });
                    }
                },
            },
            Endpoint::Inherited(channel) => {
                if is_readable(channel).map_err(Error::io("waiting for the launcher"))? {
                    return match receive_stream(channel.as_fd()) {
                        Ok(Some(stream)) => Ok(stream),
                        Ok(None) => Err(Error::LauncherDied),
                        Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => {
                            Err(Error::LauncherDied)
                        }
                        Err(cause) => Err(Error::Io {
                            what: "receiving a connection",
                            cause,
                        }),
                    };
                }
            }
        }
        if start.elapsed() >= patience {
            return Err(no_loader());
        }
        // The launcher's two children start together: waiting a moment for the other is not worth a message.
        if !told && start.elapsed() >= Duration::from_millis(500) {
            tracing::info!("waiting for the loader at {endpoint}");
            told = true;
        }
        if let Endpoint::Path(_) = endpoint {
            std::thread::sleep(RETRY);
        }
    }
}

/// Tells if the channel has something for us (a message or its end), waiting for it a moment.
fn is_readable(channel: &OwnedFd) -> io::Result<bool> {
    let timeout = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(RETRY.subsec_nanos()),
    };
    match rustix::event::poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
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
