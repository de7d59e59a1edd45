//! What can go wrong on the link.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shardtool::Escaped;

use super::messages::{MAX_FRAME, PROTOCOL};
use crate::memory;
use crate::private_dir;
use crate::ring::{self, Geometry};
use crate::span::Span;

/// Everything that can go wrong on the link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No loader was there within the caller's patience.
    #[error("no loader at {endpoint} after {}{}", Span(*waited), beside(others))]
    NoLoader {
        /// The endpoint that was tried, as text to show.
        endpoint: String,
        /// How long it was tried.
        waited: Duration,
        /// Sockets in the same place at which loaders listen.
        others: Vec<PathBuf>,
    },
    /// Somebody listens at the socket and takes no connection.
    #[error(
        "the loader at {endpoint} has taken no connection for {}: it is stopped, or has too many",
        Span(*waited)
    )]
    NoRoom {
        /// The endpoint, as text to show.
        endpoint: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The loader is there and does not answer.
    #[error("the loader ({loader}) has not answered for {}", Span(*waited))]
    NoAnswer {
        /// The loader's process and its state.
        loader: String,
        /// How long its answer was waited for.
        waited: Duration,
    },
    /// The loader has a ring with us and publishes nothing.
    #[error(
        "the loader ({loader}) has sent nothing for {}: no group {group} of step {step}",
        Span(*waited)
    )]
    NoGroup {
        /// The loader's process and its state.
        loader: String,
        /// The step that comes next.
        step: u64,
        /// The group that comes next.
        group: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The caller no longer wanted to wait.
    #[error("the loader is no longer waited for")]
    GivenUp,
    /// The loader announces something else than this rank's configuration gives.
    #[error(
        "the loader announces {what} = {found}, this program's configuration gives {expected}: \
         do both have the same file and --set?"
    )]
    Unexpected {
        /// What differs.
        what: &'static str,
        /// The loader's value.
        found: u64,
        /// This program's value.
        expected: u64,
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
    #[error("the loader refuses: {}", Words(reason))]
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
    #[error("the loader closed the ring: {}", Words(reason))]
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
    #[error("unreadable message on the link: {}", Words(&cause.to_string()))]
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
    /// The memory that came with the welcome is not what it should be.
    #[error(transparent)]
    Memory(#[from] memory::Error),
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

/// A peer's words, escaped, and cut where they are too long for a message.
struct Words<'a>(&'a str);

/// The most bytes of a peer's words that are shown.
const MAX_WORDS: usize = 1000;

impl fmt::Display for Words<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words(words) = *self;
        let mut starts = words.char_indices().map(|(start, _)| start);
        let end = starts.find(|&start| start >= MAX_WORDS);
        let shown = &words[..end.unwrap_or(words.len())];
        Escaped::new(shown).fmt(out)?;
        match words.len() - shown.len() {
            0 => Ok(()),
            rest => write!(out, "… ({rest} bytes more)"),
        }
    }
}

/// Returns a hint to the loaders that listen elsewhere.
fn beside(others: &[PathBuf]) -> String {
    match others {
        [] => String::new(),
        [first, ..] => format!(
            "; the one at {} has another configuration: do both have the same file and --set?",
            Escaped::new(first)
        ),
    }
}

impl Error {
    /// Returns a conversion from the system's answer to `what` was tried.
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |cause| Error::Io { what, cause }
    }
}
