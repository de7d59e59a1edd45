//! The consumer's side of the link, used by the trainer: connect, take groups in order, give them back.
//!
//! Plain blocking code. No wait is unbounded without somebody being named: [`Feed::connect`] says what it waits for and
//! gives up after the caller's patience. [`Feed::next`] looks at the loader's socket between two waits, reports its
//! death, and names a loader that lives but does not move.

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
use crate::memory::Mapping;
use crate::ring::{self, Consumer, Geometry, SlotReader, Waited};

/// Between two looks at the socket while the ring is empty: how late a death may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// How long the loader may keep us waiting before it is named, and then named again.
const NAME_AFTER: Duration = Duration::from_secs(5);
const NAME_AGAIN: Duration = Duration::from_secs(60);

/// A connection to the loader and the ring that came with it.
#[derive(Debug)]
pub struct Feed {
    stream: UnixStream,
    consumer: Consumer,
    welcome: Welcome,
    /// Step and group of the next slot.
    next: (u64, u64),
    groups: Range<u64>,
    /// Since when the loader keeps us waiting, and when to name it.
    waiting: Option<(Instant, Instant)>,
}

impl Feed {
    /// Connects, introduces this rank, and opens the ring, giving up after `patience`. Emits an event if it has to
    /// wait.
    ///
    /// # Errors
    /// That no loader answered, that it refused, or what is wrong with its answer.
    pub fn connect(endpoint: &Endpoint, hello: &Hello, patience: Duration) -> Result<Feed, Error> {
        let (stream, welcome, fd) = introduce(endpoint, hello, patience)?;
        let len = welcome.geometry.total_len()?;
        let memory = Mapping::open(fd, len).map_err(Error::io("mapping the ring"))?;
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
            waiting: None,
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

    /// Takes the next group of this rank, waiting as long as the loader lives.
    ///
    /// # Errors
    /// How the loader ended, or what is wrong with the slot.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could not report who died"
    )]
    ///
    /// # Errors
    /// That the loader died, closed or failed, or that what it sent is at odds with its welcome.
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
            let rest = timeout.saturating_sub(start.elapsed());
            match self.consumer.next(rest.min(TICK)) {
                Ok(slot) => {
                    self.waiting = None;
                    self.check_order(&slot)?;
                    return Ok(Some(slot));
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
        let _ = send(&mut self.stream, &Request::Goodbye);
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

    /// Looks why a wait brought nothing: the loader may be dead, closing, or only slow.
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

    /// Returns why no slot will come any more: what the loader said, or that it said nothing.
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
            Ok(Some((Reply::Welcome(_), _))) => Error::OutOfPlace {
                message: "a second welcome",
            },
            Ok(Some((Reply::Refused { .. }, _))) => Error::OutOfPlace {
                message: "a refusal in the middle of a run",
            },
            Err(error @ (Error::FrameLength { .. } | Error::Unreadable { .. })) => error,
            Ok(None) | Err(_) => died,
        }
    }
}

/// Returns what the kernel says about a process, in a word.
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
