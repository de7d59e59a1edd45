//! Descriptors that pass between processes: a ring's memory, a connection, a launcher's channel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::peer::Peer;

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

/// Receives up to `bytes.len()` bytes and the descriptor attached to them, if any. Never blocks.
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
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
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
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // The kernel has no place for it in this process, and nobody else has it any more.
        let lost = "the descriptor that came with a message is lost: too many files are open here";
        return Err(io::Error::other(lost));
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

/// Hands one end of a fresh connection to a child over its inherited `channel`, with the number of the process that
/// gets the other end. The launcher gives one end to the loader and the other to the trainer, keeps neither, and so
/// both see end-of-file when the other one dies.
///
/// # Errors
/// If the child has gone.
pub fn send_stream(channel: BorrowedFd<'_>, stream: OwnedFd, peer: u32) -> io::Result<()> {
    send_with_fd(channel, &peer.to_le_bytes(), stream.as_fd()).map(|_| ())
}

/// Receives a connection that [`send_stream`] sent, and who has its other end. `Ok(None)`: the launcher has closed the
/// channel. Never blocks.
///
/// # Errors
/// What the system says, or a message without a connection.
pub fn receive_stream(channel: BorrowedFd<'_>) -> io::Result<Option<(UnixStream, Peer)>> {
    let mut peer = [0; 4];
    match receive_with_fd(channel, &mut peer)? {
        (0, _) => Ok(None),
        // Four bytes sent at once on a socket of this machine arrive at once.
        (4, Some(fd)) => Ok(Some((UnixStream::from(fd), Peer(u32::from_le_bytes(peer))))),
        (_, _) => Err(io::Error::other(
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
        send_stream(launcher.as_fd(), there.into(), 4321).unwrap();
        let (mut received, peer) = receive_stream(child.as_fd()).unwrap().unwrap();
        assert_eq!(peer, Peer(4321));
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

    #[test]
    fn a_descriptor_that_is_lost_on_the_way_is_noticed() {
        let (launcher, child) = UnixStream::pair().unwrap();
        // More than the receiver has room for, as where a process has too many files open.
        let fds = [launcher.as_fd(); 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [IoSlice::new(&[1, 0, 0, 0])];
        rustix::net::sendmsg(&launcher, &bytes, &mut control, SendFlags::empty()).unwrap();
        let error = receive_stream(child.as_fd()).unwrap_err();
        assert!(error.to_string().contains("too many files"), "{error}");
    }
}
