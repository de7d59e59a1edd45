//! Messages as bytes on a stream: a length, then JSON.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::descriptors::receive_with_fd;
use super::error::Error;
use super::messages::MAX_FRAME;
use super::patience::Wait;

/// Returns the bytes of a message's frame.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect("messages hold numbers and strings only");
    let mut frame = (json.len() as u32).to_le_bytes().to_vec();
    frame.extend(json);
    frame
}

/// Returns the length of the frame that these four bytes announce.
pub(crate) fn frame_len(prefix: [u8; 4]) -> Result<usize, Error> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > MAX_FRAME {
        return Err(Error::FrameLength { len });
    }
    Ok(len)
}

/// Returns the message in a frame's JSON bytes.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|cause| Error::Unreadable { cause })
}

/// Writes a message's frame, within the bounds of `wait`.
///
/// # Errors
/// What the system says, or the end of the patience.
pub(super) fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    wait: &mut Wait<'_>,
) -> Result<(), Error> {
    let frame = encode(message);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        match rustix::net::send(stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::AGAIN) => wait.ready(stream, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("writing to the link")(error.into())),
        }
    }
    Ok(())
}

/// Reads one frame, and the descriptor that came with its first byte, within the bounds of `wait`. `Ok(None)` is
/// end-of-file before the frame's end.
///
/// # Errors
/// What is wrong with the frame, what the system says, or the end of the patience.
pub(super) fn receive<T: DeserializeOwned>(
    stream: &UnixStream,
    wait: &mut Wait<'_>,
) -> Result<Option<(T, Option<OwnedFd>)>, Error> {
    let failed = Error::io("reading from the link");
    let mut prefix = [0; 4];
    let (have, fd) = loop {
        match receive_with_fd(stream.as_fd(), &mut prefix) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                wait.ready(stream, PollFlags::IN)?;
            }
            outcome => break outcome.map_err(failed)?,
        }
    };
    if have == 0 || !fill(stream, &mut prefix[have..], wait)? {
        return Ok(None);
    }
    let mut json = vec![0; frame_len(prefix)?];
    if !fill(stream, &mut json, wait)? {
        return Ok(None);
    }
    Ok(Some((decode(&json)?, fd)))
}

/// Reads until `bytes` are full; false if the stream ends before.
fn fill(stream: &UnixStream, mut bytes: &mut [u8], wait: &mut Wait<'_>) -> Result<bool, Error> {
    while !bytes.is_empty() {
        match rustix::net::recv(stream, &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(false),
            Ok((more, _)) => bytes = &mut bytes[more..],
            Err(Errno::AGAIN) => wait.ready(stream, PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("reading from the link")(error.into())),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::super::descriptors::send_with_fd;
    use super::super::messages::Reply;
    use super::super::patience::Awaited;
    use super::*;

    #[test]
    fn frames_and_descriptors_arrive() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(60).into();
        let wait = &mut Wait::begin(patience, Awaited::Answer(None));
        let reply = Reply::Refused {
            reason: "no".into(),
        };
        let (_, file) = crate::memory::Mapping::create(4096).unwrap();
        let frame = encode(&reply);
        assert_eq!(
            send_with_fd(ours.as_fd(), &frame, file.as_fd()).unwrap(),
            frame.len()
        );
        send(&ours, &reply, wait).unwrap();
        let (first, fd) = receive::<Reply>(&theirs, wait).unwrap().unwrap();
        assert_eq!((first, fd.is_some()), (reply.clone(), true));
        let (second, fd) = receive::<Reply>(&theirs, wait).unwrap().unwrap();
        assert_eq!((second, fd.is_none()), (reply, true));
        ours.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(
            receive::<Reply>(&theirs, wait),
            Err(Error::FrameLength { .. })
        ));
        drop(ours);
        assert!(receive::<Reply>(&theirs, wait).unwrap().is_none());
    }
}
