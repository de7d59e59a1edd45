//! Where connections come from.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::link::{NamedSocket, Peer, receive_stream};

/// A source of connections.
#[derive(Debug)]
pub enum Listener {
    /// A socket with a name.
    Named(NamedSocket),
    /// A channel inherited from the launcher, which sends connected streams.
    Inherited(OwnedFd),
}

/// A listener as the event loop sees it.
pub(super) enum Acceptor {
    Named {
        socket: UnixListener,
        /// Removes the socket's name when it is dropped.
        _name: NamedSocket,
    },
    Inherited(UnixStream),
    /// No connection comes any more.
    Shut,
}

impl Acceptor {
    /// Hands a listener to the event loop.
    pub(super) fn open(listener: Listener) -> io::Result<Acceptor> {
        match listener {
            Listener::Named(name) => {
                let socket = name.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok(Acceptor::Named {
                    socket: UnixListener::from_std(socket)?,
                    _name: name,
                })
            }
            Listener::Inherited(channel) => {
                let channel = StdStream::from(channel);
                channel.set_nonblocking(true)?;
                Ok(Acceptor::Inherited(UnixStream::from_std(channel)?))
            }
        }
    }

    /// Waits for the next connection, with the process at its other end; none if there will be no more.
    pub(super) async fn accept(&self) -> io::Result<Option<(UnixStream, Option<Peer>)>> {
        match self {
            Acceptor::Named { socket, .. } => {
                let stream = socket.accept().await?.0;
                let peer = Peer::of(&stream);
                Ok(Some((stream, peer)))
            }
            Acceptor::Inherited(channel) => {
                let received = channel
                    .async_io(Interest::READABLE, || receive_stream(channel.as_fd()))
                    .await;
                let Some((stream, peer)) = (match received {
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
                    received => received?,
                }) else {
                    return Ok(None);
                };
                stream.set_nonblocking(true)?;
                Ok(Some((UnixStream::from_std(stream)?, Some(peer))))
            }
            Acceptor::Shut => std::future::pending().await,
        }
    }
}
