//! The consumer's side of the link, used by the trainer: connect, take groups in order, give them back.
//!
//! Plain blocking code. No wait is unbounded, and none goes on for long without somebody being named. [`Feed::connect`]
//! gives up after the caller's patience, whatever the other side does. [`Feed::next`] looks at the loader's socket
//! between two waits, reports its death, names a loader that lives but does not move, and gives that up as well.

#[cfg(all(test, not(miri), not(loom)))]
mod tests;

use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::connect::{Endpoint, introduce};
use super::error::Error;
use super::frames::{receive, send};
use super::messages::{Hello, Reply, Request, Welcome};
use super::patience::{Awaited, NAME_AFTER, NAME_AGAIN, Patience, Wait};
use super::peer::Peer;
use crate::memory::Mapping;
use crate::ring::{self, Consumer, Geometry, SlotReader, Waited};

/// Between two looks at the socket while the ring is empty: how late a death may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// How long a peer that ends may take for its last words, or we for ours.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the loader has kept us waiting. Only time in which this process was running and waiting counts.
#[derive(Debug)]
struct Silence {
    lasted: Duration,
    name_at: Duration,
}

impl Silence {
    const NONE: Silence = Silence {
        lasted: Duration::ZERO,
        name_at: NAME_AFTER,
    };
}

/// A connection to the loader and the ring that came with it.
#[derive(Debug)]
pub struct Feed {
    stream: UnixStream,
    consumer: Consumer,
    welcome: Welcome,
    /// Step and group of the next slot.
    next: (u64, u64),
    groups: Range<u64>,
    /// The longest wait for a group.
    patience: Duration,
    silence: Silence,
}

impl Feed {
    /// Connects, introduces this rank, and opens the ring, giving up after `patience`. Emits an event if it has to
    /// wait. A loader whose welcome is not `expected`, but for its process, is not trusted with our memory.
    ///
    /// # Errors
    /// That no loader answered, that it refused, or what is wrong with its answer.
    pub fn connect<'a>(
        endpoint: &Endpoint,
        hello: &Hello,
        expected: &Welcome,
        patience: impl Into<Patience<'a>>,
    ) -> Result<Feed, Error> {
        let patience = patience.into();
        let (stream, welcome, fd) = introduce(endpoint, hello, patience)?;
        welcome.check(expected)?;
        let len = welcome.geometry.total_len()?;
        let memory = Mapping::open(fd, len)?;
        let consumer = ring::attach(Arc::new(memory))?;
        if *consumer.geometry() != welcome.geometry {
            return Err(Error::OtherRing {
                announced: Box::new(welcome.geometry),
                found: Box::new(*consumer.geometry()),
            });
        }
        let groups = hello.share().groups(welcome.groups);
        let next = (hello.first_step, groups.start);
        Ok(Feed {
            stream,
            consumer,
            welcome,
            next,
            groups,
            patience: patience.limit,
            silence: Silence::NONE,
        })
    }

    /// Returns the loader's description of what it serves.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Returns the steps per epoch.
    pub fn epoch_len(&self) -> u64 {
        self.welcome.epoch_len
    }

    /// Returns the ring's dimensions.
    pub fn geometry(&self) -> &Geometry {
        self.consumer.geometry()
    }

    /// Returns the ring's whole memory, to be registered with a device for fast copies.
    pub fn memory(&self) -> NonNull<[u8]> {
        self.consumer.memory()
    }

    /// Takes the next group of this rank, waiting as long as the loader lives and the patience lasts.
    ///
    /// # Errors
    /// How the loader ended, that it sends nothing, or that what it sent is at odds with its welcome.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not report who died"
    )]
    pub fn next(&mut self) -> Result<SlotReader, Error> {
        loop {
            if let Some(slot) = self.next_within(TICK)? {
                return Ok(slot);
            }
        }
    }

    /// Takes the next group of this rank if it comes within `timeout` (for callers who watch for signals, too).
    ///
    /// # Errors
    /// How the loader ended, or what is wrong with the slot.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<SlotReader>, Error> {
        let start = Instant::now();
        loop {
            let before = start.elapsed();
            let rest = timeout.saturating_sub(before);
            match self.consumer.next(rest.min(TICK)) {
                Ok(slot) => {
                    self.silence = Silence::NONE;
                    self.check_order(&slot)?;
                    return Ok(Some(slot));
                }
                Err(ring::Error::TimedOut { .. }) => {
                    self.look_at_loader(start.elapsed().saturating_sub(before))?;
                    if start.elapsed() >= timeout {
                        return Ok(None);
                    }
                }
                Err(ring::Error::Ended | ring::Error::Failed) => return Err(self.last_words()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells if a group is there already, so that taking it would not wait.
    pub fn is_ready(&self) -> bool {
        self.consumer.ready() > 0
    }

    /// Gives the oldest group's slot back.
    ///
    /// # Panics
    /// If it is not the oldest one that is held.
    pub fn release(&mut self, slot: SlotReader) {
        self.consumer.release(slot);
    }

    /// Returns how long the two sides of this ring have waited for each other: (loader, trainer).
    pub fn waited(&self) -> (Waited, Waited) {
        self.consumer.waited()
    }

    /// Leaves in good order. Dropping a feed leaves as well, but the loader will count it as a death.
    pub fn goodbye(mut self) {
        self.consumer.leave();
        // A loader that has gone already needs no goodbye.
        let wait = &mut self.last_wait();
        let _ = send(&self.stream, &Request::Goodbye, wait);
    }

    fn check_order(&mut self, slot: &SlotReader) -> Result<(), Error> {
        let (expected_step, expected_group) = self.next;
        let (step, group) = (slot.step(), slot.group());
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

    /// Looks why a wait of so long brought nothing: the loader may be dead, closing, or only slow.
    fn look_at_loader(&mut self, waited: Duration) -> Result<(), Error> {
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
        // A wait that took much longer than asked for is one in which this process was stopped.
        self.silence.lasted += waited.min(2 * TICK);
        let lasted = self.silence.lasted;
        let is_over = lasted >= self.patience;
        if !is_over && lasted < self.silence.name_at {
            return Ok(());
        }
        self.silence.name_at = lasted + NAME_AGAIN;
        let (step, group) = self.next;
        let error = Error::NoGroup {
            loader: self.loader().to_string(),
            step,
            group,
            waited: lasted,
        };
        if is_over {
            return Err(error);
        }
        let most = self.patience.as_secs_f64();
        tracing::warn!("still waiting, {most:.0} s at most: {error}");
        Ok(())
    }

    fn loader(&self) -> Peer {
        Peer(self.welcome.pid)
    }

    /// Returns a wait for the end of the conversation.
    fn last_wait(&self) -> Wait<'static> {
        Wait::begin(LAST_WORDS.into(), Awaited::Answer(Some(self.loader())))
    }

    /// Returns why no slot will come any more: what the loader said, or that it said nothing.
    fn last_words(&mut self) -> Error {
        let wait = &mut self.last_wait();
        match receive::<Reply>(&self.stream, wait) {
            Ok(Some((Reply::Closing { reason }, _))) => Error::LoaderClosed { reason },
            Ok(Some((Reply::Welcome(_), _))) => Error::OutOfPlace {
                message: "a second welcome",
            },
            Ok(Some((Reply::Refused { .. }, _))) => Error::OutOfPlace {
                message: "a refusal in the middle of a run",
            },
            Err(error @ (Error::FrameLength { .. } | Error::Unreadable { .. })) => error,
            Ok(None) | Err(_) => Error::LoaderDied {
                pid: self.welcome.pid,
            },
        }
    }
}
