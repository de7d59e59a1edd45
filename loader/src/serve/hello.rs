//! The wait for a peer's first word.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::connection::{read_frame, stopped};
use crate::link::{Hello, PROTOCOL, Peer, Request};
use crate::span::Span;

/// A peer that connects to the named socket and says nothing is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long a trainer that was connected by the launcher is named; then again when that time has doubled.
const NAME_AFTER: Duration = Duration::from_secs(60);
/// Silent connections to the named socket at a time: with more of them the oldest is closed.
pub(super) const SILENT: u64 = 32;

/// A connection before its hello.
pub(super) struct Arrival {
    /// Its number among all connections.
    pub(super) number: u64,
    /// Number of the newest connection, or more: those that are [`SILENT`] behind make room.
    pub(super) newest: watch::Receiver<u64>,
    /// The process at the other end.
    pub(super) peer: Option<Peer>,
    /// It comes from the launcher, which makes one for each loader and trainer.
    pub(super) from_launcher: bool,
}

/// What became of the wait for a hello.
pub(super) enum Heard {
    /// It came.
    Hello(Hello),
    /// The peer is answered that it is refused.
    Refused(String),
    /// The connection is closed without a word.
    Nothing,
}

impl Arrival {
    /// Waits for the peer's hello.
    pub(super) async fn hello(
        &mut self,
        stream: &mut UnixStream,
        stopping: &mut watch::Receiver<bool>,
    ) -> Heard {
        let mut reading = std::pin::pin!(read_frame::<Request>(stream));
        let start = Instant::now();
        let mut wake = match self.from_launcher {
            // A launcher connects a trainer that may be busy for minutes yet: with the slots of the loader before this
            // one, with a long step, with a checkpoint. Giving up on it would leave both waiting, because no other
            // connection will come. Its death is seen as end-of-file.
            true => NAME_AFTER,
            false => PATIENCE,
        };
        let number = self.number;
        loop {
            tokio::select! {
                biased;
                frame = &mut reading => return match frame {
                    Ok(Some(Request::Hello(hello))) => Heard::Hello(hello),
                    // A loader that looks whether this socket is alive says nothing and goes.
                    Ok(None | Some(Request::Goodbye)) => Heard::Nothing,
                    // Whoever it is speaks another version, or something else altogether; say what we speak.
                    Err(error) => Heard::Refused(format!("{error} (the loader speaks link version {PROTOCOL})")),
                },
                () = stopped(stopping) => return Heard::Nothing,
                _ = self.newest.wait_for(|newest| *newest >= number + SILENT), if !self.from_launcher => {
                    tracing::debug!("closing a silent connection, since many others came after it");
                    return Heard::Nothing;
                }
                () = sleep_until(start + wake) => {
                    let waited = start.elapsed();
                    if !self.from_launcher {
                        return Heard::Refused(format!("no hello within {}", Span(waited)));
                    }
                    let peer = named(self.peer);
                    tracing::info!("the trainer ({peer}) has not asked for a ring for {}", Span(waited));
                    wake *= 2;
                }
            }
        }
    }
}

/// Returns a process in words.
pub(super) fn named(peer: Option<Peer>) -> String {
    peer.map_or("process unknown".to_owned(), |peer| peer.to_string())
}
