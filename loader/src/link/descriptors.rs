//! Descriptors that pass between processes: a ring's memory, a connection, a launcher's channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Sends bytes with a descriptor attached to the first of them. Returns how many were sent.
pub(crate) fn send_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: BorrowedFd<'_>,
) -> io::Result<usize> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(pushed, "the buffer has room for one descriptor");
    Ok(rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives up to `bytes.len()` bytes and the descriptor attached to them, if any.
pub(super) fn receive_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => break outcome?,
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last();
        }
    }
    Ok((received.bytes, fd))
}

/// Takes over the descriptor `number`, which a launcher left open for this process.
///
/// To be called before this process opens anything that could get the same number. It is closed on exec from then on.
///
/// # Errors
/// If it is none that a launcher would pass, or is not open.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    let fault = |kind, what: &str| io::Error::new(kind, format!("--socket-fd {number}: {what}"));
    if number <= 2 {
        return Err(fault(
            io::ErrorKind::InvalidInput,
            "not a descriptor that a launcher would pass",
        ));
    }
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}"))
        .map_err(|error| fault(error.kind(), "no such descriptor was inherited"))?;
    // SAFETY: it is open, and nothing in this process owns it: the caller asks before anything else is opened.
    let channel = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&channel, rustix::io::FdFlags::CLOEXEC)?;
    Ok(channel)
}

/// Hands one end of a fresh connection to a child over its inherited `channel`. The launcher gives one end to the
/// loader and the other to the trainer, keeps neither, and so both see end-of-file when the other one dies.
///
/// # Errors
/// If the child has gone.
pub fn send_stream(channel: BorrowedFd<'_>, stream: OwnedFd) -> io::Result<()> {
    send_with_fd(channel, &[1], stream.as_fd()).map(|_| ())
}

/// Receives a connection that [`send_stream`] sent. `Ok(None)`: the launcher has closed the channel.
///
/// # Errors
/// What the system says, or a message without a connection.
pub fn receive_stream(channel: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    match receive_with_fd(channel, &mut [0])? {
        (0, _) => Ok(None),
        (_, Some(fd)) => Ok(Some(UnixStream::from(fd))),
        (_, None) => Err(io::Error::other(
            "a message without a connection on the launcher's channel",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn streams_pass_over_a_channel() {
        let (launcher, child) = UnixStream::pair().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        send_stream(launcher.as_fd(), there.into()).unwrap();
        let mut received = receive_stream(child.as_fd()).unwrap().unwrap();
        received.write_all(b"x").unwrap();
        let mut byte = [0];
        here.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        drop(launcher);
        assert!(receive_stream(child.as_fd()).unwrap().is_none());
        // The sender kept no copy, so the end of the receiver's is the end.
        drop(received);
        assert_eq!(here.read(&mut byte).unwrap(), 0);
    }
}
