//! A connection, from its hello to its end.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use shardtool::panics;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::hello::{Arrival, Heard, named};
use super::idle::Idle;
use super::server::{Prepared, Server, Unserved};
use crate::link::{self, Peer, Reply, Request, Welcome, decode, encode, frame_len, send_with_fd};
use crate::pipeline::{Attachment, End, Failure};
use crate::span::Span;

/// A peer that does not take what we write is not waited for longer. No message of ours fills a socket's buffer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what the consumer does.
const LOOK: Duration = Duration::from_secs(5);

/// The end of a connection.
#[derive(Debug)]
pub(super) enum Visit {
    /// The peer got no ring.
    NotServed,
    /// It got one, and has left it.
    Served,
    /// Its ring failed, and it came from the launcher, which will start another loader for it.
    Failed(Failure),
}

/// Talks to one peer to its end.
pub(super) async fn connection(
    server: Arc<Server>,
    mut stream: UnixStream,
    mut arrival: Arrival,
    mut stopping: watch::Receiver<bool>,
) -> Visit {
    let hello = match arrival.hello(&mut stream, &mut stopping).await {
        Heard::Hello(hello) => hello,
        Heard::Refused(reason) => {
            let peer = format!("a peer ({})", named(arrival.peer));
            refuse(&server, &mut stream, &peer, reason).await;
            return Visit::NotServed;
        }
        Heard::Nothing => return Visit::NotServed,
    };
    let process = arrival.peer.unwrap_or(Peer(hello.pid));
    let rank = format!("rank {} of {}", hello.rank, hello.world);
    let peer = format!("{rank} (process {})", process.0);
    let prepared = {
        let (server, hello) = (server.clone(), hello.clone());
        // Making the ring's memory takes as long as zeroing it.
        spawn_blocking(move || server.prepare(&hello))
            .await
            .unwrap_or_else(|error| Err(Unserved::Panic(said(error))))
    };
    let Prepared {
        welcome,
        memory,
        attachment,
        ended,
    } = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            refuse(&server, &mut stream, &peer, reason.to_string()).await;
            return Visit::NotServed;
        }
    };
    tracing::info!("serving {peer} from step {}", hello.first_step);
    server.attached().push(Arc::downgrade(&attachment));
    let sent = within(send_welcome(&mut stream, welcome, &memory)).await;
    // The consumer has its own mapping now; the descriptor would only keep the memory alive.
    drop(memory);
    let (parting, failure) = match sent {
        Ok(()) => {
            let mut companion = Companion {
                server: &server,
                attachment: &attachment,
                rank,
                process,
                leave_on_failure: arrival.from_launcher,
            };
            companion.accompany(&mut stream, ended, stopping).await
        }
        Err(error) => (format!("is gone before its welcome ({error})"), None),
    };
    let (ours, theirs) = attachment.waited();
    tracing::info!(
        "{peer} {parting}; {} images, {} replaced; it waited {} to start and {} later, the loader {}",
        attachment.images(),
        attachment.replaced(),
        Span(theirs.start),
        Span(theirs.steady),
        Span(ours.start + ours.steady)
    );
    // Joins the assembler's thread; then workers that still hold parts are the last owners of the memory.
    let _ = spawn_blocking(move || drop(attachment)).await;
    failure.map_or(Visit::Served, Visit::Failed)
}

/// Whoever looks after a served connection.
struct Companion<'a> {
    server: &'a Server,
    attachment: &'a Attachment,
    rank: String,
    process: Peer,
    /// End the connection when the ring fails, instead of waiting for the consumer to leave.
    leave_on_failure: bool,
}

impl Companion<'_> {
    /// Waits for the end of a served connection. Returns it in words, and the ring's failure if that ended it.
    async fn accompany(
        &mut self,
        stream: &mut UnixStream,
        ended: oneshot::Receiver<End>,
        mut stopping: watch::Receiver<bool>,
    ) -> (String, Option<Failure>) {
        let (mut reader, mut writer) = stream.split();
        // One reading for all rounds of the loop, so that no half-read frame is ever dropped.
        let mut request = std::pin::pin!(read_frame::<Request>(&mut reader));
        let mut ended = std::pin::pin!(ended);
        let mut producing = true;
        let mut looks = tokio::time::interval(LOOK);
        let mut idle = Idle::new(Instant::now());
        loop {
            let (reason, failure) = tokio::select! {
                request = &mut request => {
                    let parting = match request {
                        Ok(Some(Request::Goodbye)) => "has left".to_owned(),
                        Ok(None) => "is gone without a goodbye".to_owned(),
                        Ok(Some(Request::Hello(_))) => "introduced itself twice".to_owned(),
                        Err(error) => format!("is unreadable ({error})"),
                    };
                    return (parting, None);
                }
                end = &mut ended, if producing => {
                    producing = false;
                    match end {
                        Ok(End::Finished) => ("the last step asked for has been delivered".to_owned(), None),
                        Ok(End::Failed(reason)) => {
                            self.server.complaints.warn(&format!("a ring failed: {reason}"));
                            (reason.to_string(), Some(reason))
                        }
                        // A consumer leaves the ring a moment before it says goodbye.
                        Ok(End::Left | End::Stopped) | Err(_) => continue,
                    }
                }
                now = looks.tick() => {
                    let (released, is_full) = self.attachment.released();
                    if let Some(lasted) = idle.look(now, released, is_full && producing) {
                        self.name(lasted);
                    }
                    continue;
                }
                () = stopped(&mut stopping) => {
                    let reason = "the loader was told to stop".to_owned();
                    let _ = within(writer.write_all(&encode(&Reply::Closing { reason }))).await;
                    return ("was sent away".to_owned(), None);
                }
            };
            // If that fails, the reading says why.
            let _ = within(writer.write_all(&encode(&Reply::Closing { reason }))).await;
            if failure.is_some() && self.leave_on_failure {
                return ("is left to another loader".to_owned(), failure);
            }
        }
    }

    /// Says that the consumer keeps a full ring waiting.
    fn name(&self, lasted: Duration) {
        let (rank, process) = (&self.rank, self.process);
        let text = format!(
            "{rank} ({process}) has not taken a group for {}",
            Span(lasted)
        );
        // One that lives is in a long step, or writes a checkpoint.
        if process.state() == "alive" {
            tracing::info!("{text}");
        } else {
            tracing::warn!("{text}");
        }
    }
}

/// Ends a writing that lasts too long.
async fn within(writing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(WRITE_PATIENCE, writing)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Returns what a task that did not end in good order has said.
fn said(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panics::message(&*panic),
        Err(error) => error.to_string(),
    }
}

/// Waits until the loader is told to stop.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the main loop has gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Tells the peer, and emits as an event, why it is not served.
async fn refuse(server: &Server, stream: &mut UnixStream, peer: &str, reason: String) {
    server.complaints.warn(&format!("refused {peer}: {reason}"));
    let _ = within(stream.write_all(&encode(&Reply::Refused { reason }))).await;
}

/// Sends a welcome with the ring's memory.
async fn send_welcome(
    stream: &mut UnixStream,
    welcome: Welcome,
    memory: &OwnedFd,
) -> io::Result<()> {
    let frame = encode(&Reply::Welcome(welcome));
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            send_with_fd(stream.as_fd(), &frame, memory.as_fd())
        })
        .await?;
    stream.write_all(&frame[sent..]).await
}

/// Reads one frame; none at end-of-file before it.
pub(super) async fn read_frame<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, link::Error> {
    let failed = |cause| link::Error::Io {
        what: "reading from the link",
        cause,
    };
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix).await {
        // A peer that dies with bytes unread resets the connection.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        outcome => outcome.map_err(failed)?,
    };
    let mut json = vec![0; frame_len(prefix)?];
    stream.read_exact(&mut json).await.map_err(failed)?;
    decode(&json).map(Some)
}
