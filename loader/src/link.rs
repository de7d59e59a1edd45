//! The link: how a trainer rank and the loader find each other, agree, and notice each other's end.
//!
//! One Unix stream per rank. Both directions carry frames: a little-endian u32 length, then that many bytes of JSON.
//!
//! ```text
//! trainer                                   loader
//!    │  Hello (what I am configured for)      │   checks every field
//!    │ ─────────────────────────────────────▶ │
//!    │  Welcome (ring's geometry) + memfd     │   or Refused (both values), and closes
//!    │ ◀───────────────────────────────────── │
//!    │        … slots through the ring …      │
//!    │  Goodbye                               │   or Closing (reason)
//!    │ ─────────────────────────────────────▶ │
//! ```
//!
//! End-of-file without `Goodbye` or `Closing` means that the peer died. The descriptor of the ring's memory travels with the
//! first byte of the welcome. [`Feed`] is the consumer's side; the loader's is `serve`.

mod feed;
mod socket;

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use feed::{Batch, Endpoint, Feed};
pub use socket::{Listener, default_socket_path};

use crate::ring::{self, Geometry};

/// Version of the messages below. Any change to them raises it.
pub const PROTOCOL: u32 = 1;
/// No message is longer; a length beyond it is a stranger on the socket.
const MAX_FRAME: usize = 1 << 20;

/// Everything that can go wrong on the link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No loader was there within the caller's patience.
    #[error("no loader at {endpoint} after {waited:.0?}")]
    NoLoader {
        /// The socket that was tried.
        endpoint: String,
        /// How long it was tried.
        waited: std::time::Duration,
    },
    /// The launcher closed the channel over which connections arrive.
    #[error("the launcher is gone")]
    LauncherDied,
    /// The loader runs as somebody else.
    #[error("the loader at {endpoint} runs as user {found}, this process as user {expected}")]
    ForeignLoader {
        /// The socket.
        endpoint: String,
        /// User of the loader.
        found: u32,
        /// User of this process.
        expected: u32,
    },
    /// The loader does not serve what this rank is configured for.
    #[error("the loader refuses: {reason}")]
    Refused {
        /// The loader's words, with both values.
        reason: String,
    },
    /// The loader speaks another version of the link.
    #[error("the loader speaks link version {found}, this program version {PROTOCOL}")]
    Protocol {
        /// The loader's version.
        found: u32,
    },
    /// The loader ended the ring and said why.
    #[error("the loader closed the ring: {reason}")]
    LoaderClosed {
        /// The loader's words.
        reason: String,
    },
    /// The loader's socket reached its end without a word.
    #[error("the loader (process {pid}) died")]
    LoaderDied {
        /// Its process number, 0 if it died before it told.
        pid: u32,
    },
    /// A slot arrived out of order: the two programs disagree on what comes next.
    #[error(
        "the loader sent step {step}, group {group}; expected step {expected_step}, group {expected_group}"
    )]
    Order {
        /// Step of the slot.
        step: u64,
        /// Group of the slot.
        group: u64,
        /// The step that comes next.
        expected_step: u64,
        /// The group that comes next.
        expected_group: u64,
    },
    /// The socket's directory or file is not safely ours.
    #[error("{path}: {problem}")]
    Socket {
        /// The directory or file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A message that is not one.
    #[error("unreadable message on the link: {0}")]
    Message(String),
    /// The ring itself is at fault.
    #[error(transparent)]
    Ring(#[from] ring::Error),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    fn io(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}

/// What a rank says first: what it is configured for, and where it wants to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Process number of the sender, for messages. (A launcher makes the socket, so the kernel's own record names it.)
    pub pid: u32,
    /// Hash of everything in the configuration that decides samples.
    pub sampling_hash: u64,
    /// Checksum of the data set's manifest.
    pub manifest_checksum: u64,
    /// Number of this rank among all ranks of the run.
    pub rank: u32,
    /// Ranks of the run.
    pub world: u32,
    /// Images per step over all ranks.
    pub global_batch: u64,
    /// The first step wanted.
    pub first_step: u64,
    /// The step before which to stop, if the rank knows; otherwise it just leaves.
    pub end_step: Option<u64>,
}

/// What the loader serves: the other half of every comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// As in [`Hello::sampling_hash`].
    pub sampling_hash: u64,
    /// As in [`Hello::manifest_checksum`].
    pub manifest_checksum: u64,
    /// As in [`Hello::global_batch`].
    pub global_batch: u64,
    /// Groups per step over all ranks.
    pub groups: u64,
}

impl Hello {
    /// Compares a rank's wishes with what the loader serves. A refusal names both values.
    pub fn check(&self, served: &Served) -> Result<(), String> {
        if self.protocol != PROTOCOL {
            return Err(format!(
                "trainer speaks link version {}, loader version {PROTOCOL}",
                self.protocol
            ));
        }
        if self.manifest_checksum != served.manifest_checksum {
            return Err(format!(
                "trainer expects the data set with manifest checksum {:016x}, loader serves {:016x}",
                self.manifest_checksum, served.manifest_checksum
            ));
        }
        if self.global_batch != served.global_batch {
            return Err(format!(
                "trainer has a global batch of {}, loader one of {}",
                self.global_batch, served.global_batch
            ));
        }
        if self.sampling_hash != served.sampling_hash {
            return Err(format!(
                "trainer's data and mask configuration has hash {:016x}, loader's {:016x}",
                self.sampling_hash, served.sampling_hash
            ));
        }
        if self.rank >= self.world {
            return Err(format!("rank {} of a world of {}", self.rank, self.world));
        }
        if !served.groups.is_multiple_of(u64::from(self.world)) {
            return Err(format!(
                "{} groups per step cannot be shared evenly by {} ranks",
                served.groups, self.world
            ));
        }
        if let Some(end) = self.end_step.filter(|end| *end < self.first_step) {
            return Err(format!(
                "first step {} lies behind end step {end}",
                self.first_step
            ));
        }
        Ok(())
    }

    /// The groups of every step that this rank consumes.
    pub fn groups(&self, groups: u64) -> Range<u64> {
        rank_groups(self.rank, self.world, groups)
    }
}

/// The groups of a step that `rank` of `world` ranks consumes, of `groups` in all.
pub fn rank_groups(rank: u32, world: u32, groups: u64) -> Range<u64> {
    let share = |rank: u64| rank * groups / u64::from(world);
    share(u64::from(rank))..share(u64::from(rank) + 1)
}

/// What the loader tells a rank that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the loader.
    pub protocol: u32,
    /// Process number of the loader.
    pub pid: u32,
    /// Dimensions of the ring.
    pub geometry: Geometry,
    /// Steps per epoch.
    pub epoch_len: u64,
    /// Samples in the split.
    pub samples: u64,
    /// Classes in the data set, 0 if it has no labels.
    pub classes: u64,
    /// Groups per step over all ranks.
    pub groups: u64,
}

/// Frames from the loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// You are served; the ring's memory comes with this.
    Welcome(Welcome),
    /// You are not served.
    Refused {
        /// Why, with both values.
        reason: String,
    },
    /// No further slot will come.
    Closing {
        /// Why.
        reason: String,
    },
}

/// Frames from a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// The first frame.
    Hello(Hello),
    /// The last frame.
    Goodbye,
}

/// Bytes of one frame.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect("plain data");
    let mut frame = (json.len() as u32).to_le_bytes().to_vec();
    frame.extend(json);
    frame
}

/// Length of the frame that follows these four bytes.
pub fn frame_len(prefix: [u8; 4]) -> Result<usize, Error> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > MAX_FRAME {
        return Err(Error::Message(format!(
            "{len} bytes announced, at most {MAX_FRAME} are allowed"
        )));
    }
    Ok(len)
}

/// The message in a frame's JSON bytes.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Message(error.to_string()))
}

fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message))
}

/// Reads one frame, and the descriptor that came with its first byte. `Ok(None)` is end-of-file before a frame.
fn receive<T: DeserializeOwned>(
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

/// Sends bytes with a descriptor attached to the first of them. Returns how many were sent.
pub fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
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
fn receive_with_fd(
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

/// Hands one end of a fresh connection to a child over its inherited `channel`. The launcher gives one end to the loader
/// and the other to the trainer, keeps neither, and so both see end-of-file when the other one dies.
pub fn send_stream(channel: BorrowedFd<'_>, stream: OwnedFd) -> io::Result<()> {
    send_with_fd(channel, &[1], stream.as_fd()).map(|_| ())
}

/// Receives a connection that [`send_stream`] sent. `Ok(None)`: the launcher has closed the channel.
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
    use super::*;

    #[test]
    fn every_mismatch_names_both_values() {
        let served = Served {
            sampling_hash: 0xa,
            manifest_checksum: 0xb,
            global_batch: 64,
            groups: 4,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            pid: 1,
            sampling_hash: 0xa,
            manifest_checksum: 0xb,
            rank: 1,
            world: 2,
            global_batch: 64,
            first_step: 5,
            end_step: Some(9),
        };
        assert_eq!(hello.check(&served), Ok(()));
        assert_eq!(hello.groups(4), 2..4);
        let cases: [(Hello, [&str; 2]); 7] = [
            (
                Hello {
                    protocol: 7,
                    ..hello.clone()
                },
                ["version 7", "version 1"],
            ),
            (
                Hello {
                    sampling_hash: 0xc,
                    ..hello.clone()
                },
                ["000000000000000c", "000000000000000a"],
            ),
            (
                Hello {
                    manifest_checksum: 0xd,
                    ..hello.clone()
                },
                ["000000000000000d", "000000000000000b"],
            ),
            (
                Hello {
                    global_batch: 128,
                    ..hello.clone()
                },
                ["128", "64"],
            ),
            (
                Hello {
                    rank: 2,
                    ..hello.clone()
                },
                ["rank 2", "world of 2"],
            ),
            (
                Hello {
                    world: 3,
                    ..hello.clone()
                },
                ["4 groups", "3 ranks"],
            ),
            (
                Hello {
                    end_step: Some(4),
                    ..hello.clone()
                },
                ["step 5", "step 4"],
            ),
        ];
        for (hello, words) in cases {
            let reason = hello.check(&served).unwrap_err();
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
    }

    #[test]
    fn ranks_share_the_groups_in_order() {
        for (world, groups) in [(1, 4), (2, 4), (4, 4), (3, 12)] {
            let all: Vec<u64> = (0..world)
                .flat_map(|rank| rank_groups(rank, world, groups))
                .collect();
            assert_eq!(all, (0..groups).collect::<Vec<_>>());
        }
    }

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
            Err(Error::Message(_))
        ));
        drop(ours);
        assert!(receive::<Reply>(&mut theirs).unwrap().is_none());
    }

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
