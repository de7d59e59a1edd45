//! Waits of the consumer that end, and that name whom they wait for.
//!
//! One [`Wait`] covers everything from the first attempt to connect to the last byte of the welcome, so that a peer
//! that sends a byte now and then gains nothing by it.

use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Error;
use super::peer::Peer;

/// Between two looks at the clock and at what the caller says.
const TICK: Duration = Duration::from_millis(50);
/// How long somebody may keep us waiting before he is named, and then named again.
pub(super) const NAME_AFTER: Duration = Duration::from_secs(5);
pub(super) const NAME_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait for a loader, and who may end the wait before that.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The longest wait: for the welcome in all, and then for each group.
    pub limit: Duration,
    /// Asked several times a second while waiting for the welcome: true gives it up.
    pub given_up: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Patience<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut patience = out.debug_struct("Patience");
        patience.field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl From<Duration> for Patience<'_> {
    /// Makes a patience that nobody ends.
    fn from(limit: Duration) -> Self {
        Patience {
            limit,
            given_up: &|| false,
        }
    }
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(super) enum Awaited {
    /// A loader that listens, or a connection from the launcher.
    Loader { endpoint: String },
    /// Room in the queue of a socket at which somebody listens.
    Room { endpoint: String },
    /// The loader's part of the conversation.
    Answer(Option<Peer>),
}

/// A wait that is going on.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    start: Instant,
    patience: Patience<'a>,
    name_at: Duration,
    pub(super) awaited: Awaited,
}

impl<'a> Wait<'a> {
    /// Begins to wait.
    pub(super) fn begin(patience: Patience<'a>, awaited: Awaited) -> Wait<'a> {
        // The launcher's two children start together: waiting a moment for the other is not worth a message.
        let name_at = Duration::from_millis(500);
        Wait {
            start: Instant::now(),
            patience,
            name_at,
            awaited,
        }
    }

    /// Goes on with something else: it is named when it, too, has kept us waiting.
    pub(super) fn turn_to(&mut self, awaited: Awaited) {
        self.awaited = awaited;
        self.name_at = self.start.elapsed() + NAME_AFTER;
    }

    /// Sleeps for a moment.
    ///
    /// # Errors
    /// That the patience is over.
    pub(super) fn pause(&mut self) -> Result<(), Error> {
        self.look()?;
        std::thread::sleep(TICK);
        Ok(())
    }

    /// Waits until `flags` hold for `fd`.
    ///
    /// # Errors
    /// That the patience is over, or what the system says.
    pub(super) fn ready(&mut self, fd: impl AsFd, flags: PollFlags) -> Result<(), Error> {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(TICK.subsec_nanos()),
        };
        loop {
            // Each time: a peer that is always ready with one more byte must not get around it.
            self.look()?;
            match poll(&mut [PollFd::new(&fd, flags)], Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(Error::io("waiting for the link")(error.into())),
            }
        }
    }

    /// Names who keeps us waiting, when it is time, and ends the wait when that is over.
    fn look(&mut self) -> Result<(), Error> {
        let waited = self.start.elapsed();
        if (self.patience.given_up)() {
            return Err(Error::GivenUp);
        }
        if waited >= self.patience.limit {
            return Err(self.awaited.over(waited));
        }
        if waited >= self.name_at {
            let so_far = self.awaited.over(waited);
            match &self.awaited {
                Awaited::Loader { endpoint } if waited < NAME_AFTER => {
                    tracing::info!("waiting for the loader at {endpoint}");
                }
                _ if waited < NAME_AFTER => {}
                _ => tracing::warn!(
                    "still waiting, {:.0} s at most: {so_far}",
                    self.patience.limit.as_secs_f64()
                ),
            }
            self.name_at = match waited < NAME_AFTER {
                true => NAME_AFTER,
                false => waited + NAME_AGAIN,
            };
        }
        Ok(())
    }
}

impl Awaited {
    /// Returns the error of a wait for it that lasted so long.
    fn over(&self, waited: Duration) -> Error {
        match self {
            Awaited::Loader { endpoint } => Error::NoLoader {
                endpoint: endpoint.clone(),
                waited,
                others: Vec::new(),
            },
            Awaited::Room { endpoint } => Error::NoRoom {
                endpoint: endpoint.clone(),
                waited,
            },
            Awaited::Answer(peer) => Error::NoAnswer {
                loader: peer.map_or("process unknown".to_owned(), |peer| peer.to_string()),
                waited,
            },
        }
    }
}
