//! Messages as bytes on a stream: a length, then JSON.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::descriptors::receive_with_fd;
use super::error::Error;
use super::messages::MAX_FRAME;

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

/// Writes a message's frame.
pub(super) fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message))
}

/// Reads one frame, and the descriptor that came with its first byte. `Ok(None)` is end-of-file before a frame.
pub(super) fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
) -> Result<Option<(T, Option<OwnedFd>)>, Error> {
    let failed = Error::io("reading from the link");
    let mut prefix = [0; 4];
    let (mut have, fd) = receive_with_fd(stream.as_fd(), &mut prefix).map_err(&failed)?;
    if have == 0 {
        return Ok(None);
    }
    while have < prefix.len() {
        match stream.read(&mut prefix[have..]).map_err(&failed)? {
            0 => return Ok(None),
            more => have += more,
        }
    }
    let mut json = vec![0; frame_len(prefix)?];
    stream.read_exact(&mut json).map_err(&failed)?;
    Ok(Some((decode(&json)?, fd)))
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::send_with_fd;
    use super::super::messages::Reply;
    use super::*;

    #[test]
    fn frames_and_descriptors_arrive() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let reply = Reply::Refused {
            reason: "no".into(),
        };
        let (_, file) = crate::memory::Mapping::create(4096).unwrap();
        let frame = encode(&reply);
        assert_eq!(
            send_with_fd(ours.as_fd(), &frame, file.as_fd()).unwrap(),
            frame.len()
        );
        send(&mut ours, &reply).unwrap();
        let (first, fd) = receive::<Reply>(&mut theirs).unwrap().unwrap();
        assert_eq!((first, fd.is_some()), (reply.clone(), true));
        let (second, fd) = receive::<Reply>(&mut theirs).unwrap().unwrap();
        assert_eq!((second, fd.is_none()), (reply, true));
        ours.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(
            receive::<Reply>(&mut theirs),
            Err(Error::FrameLength { .. })
        ));
        drop(ours);
        assert!(receive::<Reply>(&mut theirs).unwrap().is_none());
    }
}
