//! The consumer's side of the link, used by the trainer: connect, take groups in order, give them back.
//!
//! Plain blocking code. No wait is unbounded without somebody being named: [`Feed::connect`] says what it waits for and gives
//! up after the caller's patience; [`Feed::next`] looks at the loader's socket between two waits, reports its death, and
//! names a loader that lives but does not move.

#[cfg(all(test, not(miri), not(loom)))]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::RecvFlags;

use super::{Error, Hello, PROTOCOL, Reply, Request, Welcome, receive, receive_stream, send};
use crate::memory::Mapping;
use crate::ring::{self, Consumer, Geometry, SlotReader, Waited};

/// One group in the trainer's hands.
pub type Batch = SlotReader;

/// Between two looks at the socket while the ring is empty: how late a death may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// How long the loader may keep us waiting before it is named, and then named again.
const NAME_AFTER: Duration = Duration::from_secs(5);
const NAME_AGAIN: Duration = Duration::from_secs(60);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// Where connections to a loader come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A loader's named socket.
    Path(PathBuf),
    /// A socket inherited from the launcher, over which connected streams arrive (see [`super::send_stream`]).
    Inherited(OwnedFd),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Path(path) => write!(formatter, "{}", path.display()),
            Endpoint::Inherited(_) => formatter.write_str("the launcher's channel"),
        }
    }
}

/// A connection to the loader and the ring that came with it.
#[derive(Debug)]
pub struct Feed {
    stream: UnixStream,
    consumer: Consumer,
    welcome: Welcome,
    /// Step and group of the next batch.
    next: (u64, u64),
    groups: std::ops::Range<u64>,
    /// Since when the loader keeps us waiting, and when to name it.
    waiting: Option<(Instant, Instant)>,
}

impl Feed {
    /// Connects, introduces this rank, and opens the ring. Says on stderr when it has to wait; gives up after `patience`.
    pub fn connect(endpoint: &Endpoint, hello: &Hello, patience: Duration) -> Result<Feed, Error> {
        let start = Instant::now();
        let mut stream = open_stream(endpoint, start, patience)?;
        let died = |_| Error::LoaderDied { pid: 0 };
        // The answer may take as long as the loader takes to open the data set and to make the ring's memory.
        let rest = patience
            .saturating_sub(start.elapsed())
            .max(Duration::from_secs(1));
        stream
            .set_read_timeout(Some(rest))
            .map_err(Error::io("setting a time-out"))?;
        send(&mut stream, &Request::Hello(hello.clone())).map_err(died)?;
        let (welcome, fd) = match receive::<Reply>(&mut stream) {
            Ok(Some((Reply::Welcome(welcome), Some(fd)))) => (welcome, fd),
            Ok(Some((Reply::Welcome(_), None))) => {
                return Err(Error::Message("a welcome without memory".into()));
            }
            Ok(Some((Reply::Refused { reason }, _))) => return Err(Error::Refused { reason }),
            Ok(Some((Reply::Closing { reason }, _))) => return Err(Error::LoaderClosed { reason }),
            Ok(None) => return Err(Error::LoaderDied { pid: 0 }),
            Err(Error::Io { source, .. }) if is_timeout(&source) => {
                return Err(Error::NoLoader {
                    endpoint: endpoint.to_string(),
                    waited: start.elapsed(),
                });
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ConnectionReset => {
                return Err(died(source));
            }
            Err(error) => return Err(error),
        };
        if welcome.protocol != PROTOCOL {
            return Err(Error::Protocol {
                found: welcome.protocol,
            });
        }
        let len = welcome.geometry.total_len()?;
        let memory = Mapping::open(fd, len).map_err(Error::io("mapping the ring"))?;
        let consumer = ring::attach(Arc::new(memory))?;
        if *consumer.geometry() != welcome.geometry {
            let (ring, told) = (consumer.geometry(), &welcome.geometry);
            return Err(Error::Message(format!(
                "the welcome announces {told:?}, the ring is {ring:?}"
            )));
        }
        let groups = hello.groups(welcome.groups);
        let next = (hello.first_step, groups.start);
        Ok(Feed {
            stream,
            consumer,
            welcome,
            next,
            groups,
            waiting: None,
        })
    }

    /// The loader's description of what it serves.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Steps per epoch.
    pub fn epoch_len(&self) -> u64 {
        self.welcome.epoch_len
    }

    /// The ring's dimensions.
    pub fn geometry(&self) -> &Geometry {
        self.consumer.geometry()
    }

    /// The ring's whole memory, to be registered with a device for fast copies.
    pub fn memory(&self) -> NonNull<[u8]> {
        self.consumer.memory()
    }

    /// Takes the next group of this rank, waiting as long as the loader lives.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not report who died"
    )]
    pub fn next(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(batch) = self.next_within(TICK)? {
                return Ok(batch);
            }
        }
    }

    /// Takes the next group of this rank if it comes within `timeout` (for callers who watch for signals, too).
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Batch>, Error> {
        let start = Instant::now();
        loop {
            let rest = timeout.saturating_sub(start.elapsed());
            match self.consumer.next(rest.min(TICK)) {
                Ok(batch) => {
                    self.waiting = None;
                    self.check_order(&batch)?;
                    return Ok(Some(batch));
                }
                Err(ring::Error::TimedOut { .. }) => {
                    self.look_at_loader()?;
                    if start.elapsed() >= timeout {
                        return Ok(None);
                    }
                }
                Err(ring::Error::Ended | ring::Error::Failed) => return Err(self.last_words()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a group is there already, so that taking it would not wait.
    pub fn is_ready(&self) -> bool {
        self.consumer.ready() > 0
    }

    /// Gives the oldest batch back.
    ///
    /// # Panics
    /// If it is not the oldest one.
    pub fn release(&mut self, batch: Batch) {
        self.consumer.release(batch);
    }

    /// How long the two sides of this ring have waited for each other: (loader, trainer).
    pub fn waited(&self) -> (Waited, Waited) {
        self.consumer.waited()
    }

    /// Leaves in good order. Dropping a feed leaves as well, but the loader will count it as a death.
    pub fn goodbye(mut self) {
        self.consumer.leave();
        // A loader that has gone already needs no goodbye.
        let _ = send(&mut self.stream, &Request::Goodbye);
    }

    fn check_order(&mut self, batch: &Batch) -> Result<(), Error> {
        let (expected_step, expected_group) = self.next;
        let (step, group) = (batch.step(), batch.group());
        if (step, group) != self.next {
            return Err(Error::Order {
                step,
                group,
                expected_step,
                expected_group,
            });
        }
        self.next = if group + 1 < self.groups.end {
            (step, group + 1)
        } else {
            (step + 1, self.groups.start)
        };
        Ok(())
    }

    /// Called when a wait was in vain: is the loader dead, closing, or only slow?
    fn look_at_loader(&mut self) -> Result<(), Error> {
        match rustix::net::recv(
            &self.stream,
            &mut [0u8; 1][..],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        ) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // Slots that were published just before the end are still there to be taken.
            _ if self.is_ready() => return Ok(()),
            _ => return Err(self.last_words()),
        }
        let now = Instant::now();
        let (since, name_at) = *self.waiting.get_or_insert((now, now + NAME_AFTER));
        if now >= name_at {
            let pid = self.welcome.pid;
            tracing::warn!(
                "waiting for the loader (process {pid}, {}) since {:.0?}: no group {} of step {} yet",
                process_state(pid),
                now - since,
                self.next.1,
                self.next.0
            );
            self.waiting = Some((since, now + NAME_AGAIN));
        }
        Ok(())
    }

    /// Why no slot will come any more: what the loader said, or that it said nothing.
    fn last_words(&mut self) -> Error {
        let died = Error::LoaderDied {
            pid: self.welcome.pid,
        };
        if self
            .stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .is_err()
        {
            return died;
        }
        match receive::<Reply>(&mut self.stream) {
            Ok(Some((Reply::Closing { reason }, _))) => Error::LoaderClosed { reason },
            Ok(Some((reply, _))) => Error::Message(format!("{reply:?} in the middle of a run")),
            Err(error @ Error::Message(_)) => error,
            Ok(None) | Err(_) => died,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// What the kernel says about a process, in a word.
fn process_state(pid: u32) -> &'static str {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command in parentheses, which may itself contain anything.
    match stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
    {
        Some('T' | 't') => "stopped",
        Some('Z' | 'X') => "dead but not reaped",
        Some('D') => "blocked on a device",
        Some(_) => "alive",
        None => "not visible from here",
    }
}

fn open_stream(
    endpoint: &Endpoint,
    start: Instant,
    patience: Duration,
) -> Result<UnixStream, Error> {
    let no_loader = || Error::NoLoader {
        endpoint: endpoint.to_string(),
        waited: start.elapsed(),
    };
    let mut told = false;
    loop {
        match endpoint {
            Endpoint::Path(path) => match UnixStream::connect(path) {
                Ok(stream) => {
                    check_owner(endpoint, &stream)?;
                    return Ok(stream);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock => {}
                    _ => {
                        return Err(Error::Socket {
                            path: path.display().to_string(),
                            problem: error.to_string(),
                        });
                    }
                },
            },
            Endpoint::Inherited(channel) => {
                if is_readable(channel).map_err(Error::io("waiting for the launcher"))? {
                    return match receive_stream(channel.as_fd()) {
                        Ok(Some(stream)) => Ok(stream),
                        Ok(None) => Err(Error::LauncherDied),
                        Err(source) if source.kind() == io::ErrorKind::ConnectionReset => {
                            Err(Error::LauncherDied)
                        }
                        Err(source) => Err(Error::Io {
                            what: "receiving a connection",
                            source,
                        }),
                    };
                }
            }
        }
        if start.elapsed() >= patience {
            return Err(no_loader());
        }
        // The launcher's two children start together: waiting a moment for the other is not worth a message.
        if !told && start.elapsed() >= Duration::from_millis(500) {
            tracing::info!("waiting for the loader at {endpoint}");
            told = true;
        }
        if let Endpoint::Path(_) = endpoint {
            std::thread::sleep(RETRY);
        }
    }
}

/// Whether the channel has something for us (a message or its end), waiting for it a moment.
fn is_readable(channel: &OwnedFd) -> io::Result<bool> {
    let timeout = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(RETRY.subsec_nanos()),
    };
    match rustix::event::poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

/// A socket in a public directory may be anybody's: we take memory from our own user, and root, only.
fn check_owner(endpoint: &Endpoint, stream: &UnixStream) -> Result<(), Error> {
    let found = rustix::net::sockopt::socket_peercred(stream)
        .map_err(|error| Error::Io {
            what: "asking who serves",
            source: error.into(),
        })?
        .uid
        .as_raw();
    let expected = rustix::process::getuid().as_raw();
    if found != expected && found != 0 {
        return Err(Error::ForeignLoader {
            endpoint: endpoint.to_string(),
            found,
            expected,
        });
    }
    Ok(())
}
