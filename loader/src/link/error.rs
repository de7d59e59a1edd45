//! What can go wrong on the link.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shardtool::Escaped;

use super::messages::{MAX_FRAME, PROTOCOL};
use crate::private_dir;
use crate::ring::{self, Geometry};
use crate::span::Span;

/// Everything that can go wrong on the link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No loader was there within the caller's patience.
    #[error("no loader at {endpoint} after {}", Span(*waited))]
    NoLoader {
        /// The endpoint that was tried, as text to show.
        endpoint: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The launcher closed the channel over which connections arrive.
    #[error("the launcher is gone")]
    LauncherDied,
    /// The loader runs as somebody else.
    #[error("the loader at {endpoint} runs as user {found}, this process as user {expected}")]
    ForeignLoader {
        /// The endpoint, as text to show.
        endpoint: String,
        /// User of the loader.
        found: u32,
        /// User of this process.
        expected: u32,
    },
    /// The loader does not serve what this rank is configured for.
    #[error("the loader refuses: {}", Escaped::new(reason))]
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
    #[error("the loader closed the ring: {}", Escaped::new(reason))]
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
    /// The socket's directory is open to others.
    #[error(transparent)]
    Directory(#[from] private_dir::Error),
    /// Another loader listens at the socket.
    #[error(
        "{}: another loader is serving there; give one of them another --socket",
        Escaped::new(path)
    )]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{}: exists and is not a socket", Escaped::new(path))]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A system call on the socket's file or directory failed.
    #[error("{}: {what}: {cause}", Escaped::new(path))]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// A frame is longer than any message.
    #[error(
        "unreadable message on the link: {len} bytes announced, at most {MAX_FRAME} are allowed"
    )]
    FrameLength {
        /// The length that was announced.
        len: usize,
    },
    /// A frame holds no message that is known.
    #[error("unreadable message on the link: {}", Escaped::new(&cause.to_string()))]
    Unreadable {
        /// What is wrong with its JSON.
        cause: serde_json::Error,
    },
    /// The loader sent a message that has no place there.
    #[error("the loader sent {message}")]
    OutOfPlace {
        /// The message, and where it does not belong.
        message: &'static str,
    },
    /// The welcome announces a ring other than the one that came with it.
    #[error("the welcome announces {announced:?}, the ring is {found:?}")]
    OtherRing {
        /// Dimensions in the welcome.
        announced: Box<Geometry>,
        /// Dimensions in the ring's header.
        found: Box<Geometry>,
    },
    /// The ring itself is at fault.
    #[error(transparent)]
    Ring(#[from] ring::Error),
    /// A system call failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
}

impl Error {
    /// Returns a conversion from the system's answer to `what` was tried.
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |cause| Error::Io { what, cause }
    }
}
