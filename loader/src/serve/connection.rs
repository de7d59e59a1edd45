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
use tokio::time::timeout;

use super::server::{Prepared, Server, Unserved};
use crate::link::{
    self, PROTOCOL, Reply, Request, Welcome, decode, encode, frame_len, send_with_fd,
};
use crate::pipeline::End;
use crate::span::Span;

/// Talks to one peer to its end. Returns whether it was served a ring.
pub(super) async fn connection(
    server: Arc<Server>,
    mut stream: UnixStream,
    patience: Duration,
    mut stopping: watch::Receiver<bool>,
) -> bool {
    let hello = tokio::select! {
        hello = timeout(patience, read_frame::<Request>(&mut stream)) => hello,
        () = stopped(&mut stopping) => return false,
    };
    let hello = match hello {
        Ok(Ok(Some(Request::Hello(hello)))) => hello,
        // A loader that looks whether this socket is alive says nothing and goes.
        Ok(Ok(None | Some(Request::Goodbye))) => return false,
        Ok(Err(error)) => {
            // Whoever it is speaks another version, or something else altogether; say what we speak.
            let reason = format!("{error} (the loader speaks link version {PROTOCOL})");
            refuse(&mut stream, "a peer", reason).await;
            return false;
        }
        Err(_) => {
            refuse(
                &mut stream,
                "a peer",
                format!("no hello within {}", Span(patience)),
            )
            .await;
            return false;
        }
    };
    let peer = format!(
        "rank {} of {} (process {})",
        hello.rank, hello.world, hello.pid
    );
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
            refuse(&mut stream, &peer, reason.to_string()).await;
            return false;
        }
    };
    tracing::info!("serving {peer} from step {}", hello.first_step);
    server.attached().push(Arc::downgrade(&attachment));
    let parting = match send_welcome(&mut stream, welcome, &memory).await {
        Ok(()) => {
            // The consumer has its own mapping now; the descriptor would only keep the memory alive.
            drop(memory);
            accompany(&mut stream, ended, stopping).await
        }
        Err(error) => format!("is gone before its welcome ({error})"),
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
    true
}

/// Waits for the end of a served connection and says what it was.
async fn accompany(
    stream: &mut UnixStream,
    ended: oneshot::Receiver<End>,
    mut stopping: watch::Receiver<bool>,
) -> String {
    let (mut reader, mut writer) = stream.split();
    // One reading for all rounds of the loop, so that no half-read frame is ever dropped.
    let mut request = std::pin::pin!(read_frame::<Request>(&mut reader));
    let mut ended = std::pin::pin!(ended);
    let mut producing = true;
    loop {
        let reason = tokio::select! {
            request = &mut request => return match request {
                Ok(Some(Request::Goodbye)) => "has left".to_owned(),
                Ok(None) => "is gone without a goodbye".to_owned(),
                Ok(Some(Request::Hello(_))) => "introduced itself twice".to_owned(),
                Err(error) => format!("is unreadable ({error})"),
            },
            end = &mut ended, if producing => {
                producing = false;
                match end {
                    Ok(End::Finished) => "the last step asked for has been delivered".to_owned(),
                    Ok(End::Failed(reason)) => {
                        tracing::warn!("a ring failed: {reason}");
                        reason.to_string()
                    }
                    // A consumer leaves the ring a moment before it says goodbye.
                    Ok(End::Left | End::Stopped) | Err(_) => continue,
                }
            }
            () = stopped(&mut stopping) => {
                let reason = "the loader was told to stop".to_owned();
                let _ = writer.write_all(&encode(&Reply::Closing { reason })).await;
                return "was sent away".to_owned();
            }
        };
        // If that fails, the reading says why.
        let _ = writer.write_all(&encode(&Reply::Closing { reason })).await;
    }
}

/// Returns what a task that did not end in good order has said.
fn said(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panics::message(&*panic),
        Err(error) => error.to_string(),
    }
}

/// Waits until the loader is told to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the main loop has gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Tells the peer, and emits as an event, why it is not served.
async fn refuse(stream: &mut UnixStream, peer: &str, reason: String) {
    tracing::warn!("refused {peer}: {reason}");
    let _ = stream.write_all(&encode(&Reply::Refused { reason })).await;
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
async fn read_frame<T: DeserializeOwned>(
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
