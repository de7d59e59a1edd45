//! The loader as a server: one ring per connection, the control side on a single-threaded runtime, images on the pipeline's
//! own threads.
//!
//! Lifetimes. A connection owns its ring: when its socket ends, with a goodbye or without, the ring is stopped and its
//! memory freed. A loader with a named socket waits without limit for its first consumer and ends when the last one has
//! left, unless told to stay; one that was started by a launcher lives as long as the launcher's channel. SIGTERM and
//! SIGINT close all rings, with a word to the consumers; a second signal does not wait for that.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::config::LoaderConfig;
use crate::link::{
    self, Hello, Listener, PROTOCOL, Reply, Request, Served, Welcome, decode, encode, frame_len,
    receive_stream, send_with_fd,
};
use crate::memory::Mapping;
use crate::pipeline::{Attachment, End, Pipeline, Share, Stages, geometry};
use crate::sampler::Sampler;

/// A peer that connects to the named socket and says nothing is not waited for longer.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Where connections come from.
#[derive(Debug)]
pub enum Entrance {
    /// A socket with a name.
    Named(Listener),
    /// A channel inherited from the launcher, which sends connected streams.
    Inherited(OwnedFd),
}

/// How to behave.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Go on when the last consumer has left.
    pub stay: bool,
    /// Between two lines of statistics; zero: none.
    pub statistics: Duration,
}

/// What all connections share.
struct Server {
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    /// For the statistics only; connections own their attachments.
    attached: Mutex<Vec<Weak<Attachment>>>,
}

/// Serves until the last consumer, the launcher or a signal ends it.
pub fn serve(
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    entrance: Entrance,
    manners: Manners,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Arc::new(Server {
        pipeline,
        config,
        attached: Mutex::default(),
    });
    runtime.block_on(run(server, entrance, manners))
}

async fn run(server: Arc<Server>, entrance: Entrance, manners: Manners) -> io::Result<()> {
    let mut door = Door::open(entrance)?;
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut connections = JoinSet::new();
    let mut statistics = Statistics::new(&server);
    let mut ticks = tokio::time::interval(manners.statistics.max(Duration::from_millis(1)));
    ticks.tick().await;
    let mut any_served = false;
    loop {
        let closing = *stopping.borrow();
        tokio::select! {
            stream = door.accept(), if !closing => match stream {
                Ok(Some(stream)) => {
                    // A launcher connects a trainer that may be busy for minutes yet: with the slots of the loader before
                    // this one, with a long step, with a checkpoint. Giving up on it would leave both waiting, because
                    // no other connection will come. Its death is seen as end-of-file.
                    let patience = match door {
                        Door::Inherited(_) => Duration::MAX,
                        Door::Named { .. } | Door::Shut => HELLO_PATIENCE,
                    };
                    connections.spawn(connection(server.clone(), stream, patience, stopping.clone()));
                }
                Ok(None) => {
                    tracing::info!("the launcher is gone; closing");
                    stop.send_replace(true);
                }
                Err(error) => {
                    // Out of descriptors, or a broken message: this connection fails, the others do not.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(served) = connections.join_next() => any_served |= served.unwrap_or(true),
            _ = ticks.tick(), if !manners.statistics.is_zero() => statistics.print(&server),
            number = async { tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" } } => {
                if closing {
                    std::process::exit(0);
                }
                tracing::info!("{number}: closing {} connections", connections.len());
                door = Door::Shut;
                stop.send_replace(true);
            }
        }
        let abandoned = any_served && !manners.stay && matches!(door, Door::Named { .. });
        if connections.is_empty() && (*stopping.borrow() || abandoned) {
            break;
        }
    }
    statistics.print_total(&server);
    Ok(())
}

/// The entrance as the runtime sees it.
enum Door {
    Named {
        socket: UnixListener,
        /// Removes the socket's name when the door is shut.
        _name: Listener,
    },
    Inherited(UnixStream),
    Shut,
}

impl Door {
    fn open(entrance: Entrance) -> io::Result<Door> {
        match entrance {
            Entrance::Named(listener) => {
                let socket = listener.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok(Door::Named {
                    socket: UnixListener::from_std(socket)?,
                    _name: listener,
                })
            }
            Entrance::Inherited(channel) => {
                let channel = std::os::unix::net::UnixStream::from(channel);
                channel.set_nonblocking(true)?;
                Ok(Door::Inherited(UnixStream::from_std(channel)?))
            }
        }
    }

    /// The next connection; none if there will be no more.
    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self {
            Door::Named { socket, .. } => Ok(Some(socket.accept().await?.0)),
            Door::Inherited(channel) => {
                let received = channel
                    .async_io(Interest::READABLE, || receive_stream(channel.as_fd()))
                    .await;
                let Some(stream) = (match received {
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
                    received => received?,
                }) else {
                    return Ok(None);
                };
                stream.set_nonblocking(true)?;
                Ok(Some(UnixStream::from_std(stream)?))
            }
            Door::Shut => std::future::pending().await,
        }
    }
}

/// Talks to one peer to its end. Returns whether it was served a ring.
async fn connection(
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
                format!("no hello within {patience:?}"),
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
            .unwrap_or_else(|panic| Err(panic.to_string()))
    };
    let (welcome, memory, attachment, ended) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            refuse(&mut stream, &peer, reason).await;
            return false;
        }
    };
    tracing::info!("serving {peer} from step {}", hello.first_step);
    server
        .attached
        .lock()
        .expect("nothing panics while holding it")
        .push(Arc::downgrade(&attachment));
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
        "{peer} {parting}; {} images, {} replaced; it waited {:.1?} to start and {:.1?} later, the loader {:.1?}",
        attachment.images(),
        attachment.replaced(),
        theirs.start,
        theirs.steady,
        ours.start + ours.steady
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
                        reason
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

/// Waits until the loader is told to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the main loop has gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn refuse(stream: &mut UnixStream, peer: &str, reason: String) {
    tracing::warn!("refused {peer}: {reason}");
    let _ = stream.write_all(&encode(&Reply::Refused { reason })).await;
}

type Prepared = (Welcome, OwnedFd, Arc<Attachment>, oneshot::Receiver<End>);

impl Server {
    /// Checks a hello and makes the ring it asks for; an error is the reason for the refusal.
    fn prepare(&self, hello: &Hello) -> Result<Prepared, String> {
        let source = self.pipeline.source();
        let (config, manifest) = (&self.config, source.dataset().manifest());
        let global_batch = config.global_batch(u64::from(hello.world));
        let served = Served {
            sampling_hash: config.sampling_hash(),
            manifest_checksum: manifest.checksum(),
            global_batch,
            groups: global_batch / config.data.batch_size,
        };
        hello.check(&served)?;
        let samples = source.split().len();
        let sampler = Arc::new(
            Sampler::new(config, samples, global_batch).map_err(|error| error.to_string())?,
        );
        let geometry = geometry(config, &sampler);
        let len = geometry.total_len().map_err(|error| error.to_string())?;
        let (memory, file) = Mapping::create(len)
            .map_err(|error| format!("no memory for a ring of {len} bytes: {error}"))?;
        let share = Share {
            rank: hello.rank,
            world: hello.world,
            first_step: hello.first_step,
            end_step: hello.end_step,
        };
        let (ended, end) = oneshot::channel();
        let attachment = self
            .pipeline
            .attach(Arc::new(memory), geometry, sampler.clone(), share, |end| {
                drop(ended.send(end))
            })
            .map_err(|error| error.to_string())?;
        let welcome = Welcome {
            protocol: PROTOCOL,
            pid: std::process::id(),
            geometry,
            epoch_len: sampler.epoch_len(),
            samples,
            classes: manifest.classes.len() as u64,
            groups: sampler.groups(),
        };
        Ok((welcome, file, Arc::new(attachment), end))
    }
}

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
    let failed = |source| link::Error::Io {
        what: "reading from the link",
        source,
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

/// The line that says, at intervals, who waits for whom.
struct Statistics {
    start: Instant,
    last: Instant,
    stages: Stages,
    waited: Duration,
}

impl Statistics {
    fn new(server: &Server) -> Statistics {
        let now = Instant::now();
        Statistics {
            start: now,
            last: now,
            stages: server.pipeline.stages(),
            waited: Duration::ZERO,
        }
    }

    fn print(&mut self, server: &Server) {
        let rings: Vec<Arc<Attachment>> = {
            let mut attached = server
                .attached
                .lock()
                .expect("nothing panics while holding it");
            attached.retain(|ring| ring.strong_count() > 0);
            attached.iter().filter_map(Weak::upgrade).collect()
        };
        let (now, stages) = (Instant::now(), server.pipeline.stages());
        let waited: Duration = rings
            .iter()
            .map(|ring| ring.waited().0)
            .map(|waited| waited.start + waited.steady)
            .sum();
        let (seconds, work) = ((now - self.last).as_secs_f64(), stages.since(&self.stages));
        if !rings.is_empty() {
            // A ring that has gone since the last line takes its share of the sum with it: that line is an underestimate.
            let share =
                waited.saturating_sub(self.waited).as_secs_f64() / seconds / rings.len() as f64;
            tracing::info!(
                "{:.0} images/s to {} rank(s); rings full {:.1} % of the time; {} damaged samples; {}",
                work.images as f64 / seconds,
                rings.len(),
                100.0 * share.min(1.0),
                server.pipeline.damaged(),
                per_image(&work)
            );
        }
        (self.last, self.stages, self.waited) = (now, stages, waited);
    }

    fn print_total(&self, server: &Server) {
        let work = server.pipeline.stages();
        let seconds = self.start.elapsed().as_secs_f64();
        tracing::info!(
            "served {} images in {seconds:.1} s; {} damaged samples; {}",
            work.images,
            server.pipeline.damaged(),
            per_image(&work)
        );
    }
}

fn per_image(work: &Stages) -> String {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / work.images.max(1) as f64;
    format!(
        "µs per image: read {:.0}, decode {:.0}, resize {:.0}, masks {:.0}",
        each(work.read),
        each(work.entropy + work.decode),
        each(work.resize),
        each(work.masks)
    )
}
