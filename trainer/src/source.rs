//! Where the groups of a step come from, and what becomes of them: tensors, normalised on the device.
//!
//! Used by the training loop through [`GroupSource`]; [`LoaderSource`] is the real one. It hides that a loader may die:
//! the next one is asked for the step in progress, and since what a step holds depends on its number alone, the groups
//! seen already are skipped and no value changes.
//!
//! On a CPU a group is copied out of its slot, once. For a GPU the ring is page-locked, a stream of its own copies the
//! next group while this one is computed with, and a slot goes back when its copy is done: see `device_buffers`.

mod connection;
pub(crate) mod device_buffers;
pub(crate) mod group;
pub(crate) mod in_flight;

pub use group::{Group, Normaliser, Raw};

use std::ops::Range;
use std::time::{Duration, Instant};

use loader::link::{self, Endpoint, Feed, Hello, Patience, Welcome};
use loader::ring::SlotReader;
use tch::Device;

use crate::stop::Stop;
use connection::Connection;
use device_buffers::DeviceBuffers;

/// Time between two looks at the signals while waiting for data.
const TICK: Duration = Duration::from_millis(100);
/// Time in which data may still come after a stop was asked for: the loader may have been asked too, and be gone.
const GRACE: Duration = Duration::from_secs(5);
/// Loaders that may end one after the other without delivering anything before the run gives up.
const ATTEMPTS: u32 = 8;
/// Pause before the second attempt in a row; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The reason why no more groups come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no loader, or it refused.
    #[error("cannot connect to the loader: {0}")]
    Connect(link::Error),
    /// The loader, or what it sent, is at fault.
    #[error("no more data: {0}")]
    NoMoreData(link::Error),
    /// So many loaders ended one after the other, and no new group came.
    #[error("{attempts} loaders ended one after the other without a new group; the last: {last}")]
    NoLoaderLasts {
        /// How many.
        attempts: u32,
        /// Why the last one ended.
        last: link::Error,
    },
    /// A group could not be brought to the device.
    #[error(transparent)]
    Device(#[from] crate::Error),
}

/// A source that gives out the groups of this rank in order.
pub trait GroupSource {
    /// Returns group `number` of this rank's share of `step`; `None` if it did not come because a stop was asked for.
    ///
    /// # Errors
    /// Why no more groups come.
    fn take(&mut self, step: u64, number: u64) -> Result<Option<Group>, Error>;

    /// Returns the number of groups of a step that this rank takes.
    fn groups(&self) -> u64;

    /// Returns the number of this rank's first group among those of all ranks.
    fn first_group(&self) -> u64 {
        0
    }

    /// Returns the number of groups of a step that all ranks take together.
    fn all_groups(&self) -> u64 {
        self.groups()
    }

    /// Fetches the next group beside the device's work on this one. Never blocks.
    ///
    /// # Errors
    /// Why no more groups come.
    fn look_ahead(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A source of the groups that a loader sends over a link.
pub struct LoaderSource {
    endpoint: Endpoint,
    hello: Hello,
    /// The welcome of a loader that fits.
    expected: Welcome,
    patience: Duration,
    device: Device,
    stop: Stop,
    connection: Option<Connection>,
    /// The buffers in which groups arrive on a GPU.
    buffers: Option<DeviceBuffers>,
    groups: Range<u64>,
    restarts: u32,
    /// Loaders that ended since the last group that was new.
    attempts: u32,
}

impl LoaderSource {
    /// Connects to the loader for the first time; `None` if a stop was asked for before there was one.
    ///
    /// # Errors
    /// [`Error::Connect`] and others, where there is no loader, or none for this run.
    pub fn connect(
        endpoint: Endpoint,
        hello: Hello,
        expected: Welcome,
        patience: Duration,
        device: Device,
        stop: Stop,
    ) -> Result<Option<LoaderSource>, Error> {
        let mut source = LoaderSource {
            groups: hello.share().groups(expected.groups),
            endpoint,
            hello,
            expected,
            patience,
            device,
            stop,
            connection: None,
            buffers: None,
            restarts: 0,
            attempts: 0,
        };
        let first_step = source.hello.first_step;
        while source.connection.is_none() {
            if !source.reconnect(first_step)? {
                return Ok(None);
            }
        }
        if device.is_cuda() {
            source.buffers = Some(DeviceBuffers::new(device, source.expected.geometry)?);
        }
        Ok(Some(source))
    }

    /// Returns the steps of an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.expected.epoch_len
    }

    /// Returns the number of loaders that were lost on the way.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes leave, so that the loader knows this is not a death.
    pub fn goodbye(self) {
        if let Some(connection) = self.connection {
            connection.goodbye();
        }
    }

    /// Tries to connect to a loader, which will deliver `step` next; false if a stop was asked for. One that ends
    /// before its welcome leaves no connection.
    fn reconnect(&mut self, step: u64) -> Result<bool, Error> {
        self.hello.first_step = step;
        let patience = Patience {
            limit: self.patience,
            given_up: &|| self.stop.asked().is_some(),
        };
        match Feed::connect(&self.endpoint, &self.hello, &self.expected, patience) {
            Ok(feed) => self.connection = Some(Connection::new(feed, self.device)),
            Err(link::Error::GivenUp) => return Ok(false),
            // One that dies before its welcome: the launcher, or the user, starts another.
            Err(error @ (link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. })) => {
                self.lost(error, step)?
            }
            Err(error) => return Err(Error::Connect(error)),
        }
        Ok(true)
    }

    /// Counts a loader that has ended, and pauses before the next one: the longer, the more have ended in a row.
    fn lost(&mut self, error: link::Error, step: u64) -> Result<(), Error> {
        self.connection = None;
        self.attempts += 1;
        if self.attempts >= ATTEMPTS {
            return Err(Error::NoLoaderLasts {
                attempts: ATTEMPTS,
                last: error,
            });
        }
        tracing::warn!("{error}; waiting for another one at step {step}");
        let (start, pause) = (Instant::now(), PAUSE * 2u32.pow(self.attempts - 1));
        while start.elapsed() < pause && self.stop.asked().is_none() {
            std::thread::sleep(TICK.min(pause));
        }
        Ok(())
    }

    /// Takes in a slot: copied when this returns the batch, or on its way to the GPU.
    fn accept(&mut self, slot: SlotReader, waited: Duration) -> Result<Option<Group>, Error> {
        let connection = self.connection.as_mut().expect("a slot came from it");
        let (group, copied) = match &mut self.buffers {
            None => {
                let group = Group::new(&Raw::of(&slot, &connection.geometry()), self.device)?;
                (Some(Group { waited, ..group }), None)
            }
            Some(buffers) => (None, Some(buffers.begin(&slot, waited)?)),
        };
        connection.done(slot, copied)?;
        Ok(group)
    }
}

impl GroupSource for LoaderSource {
    fn take(&mut self, step: u64, number: u64) -> Result<Option<Group>, Error> {
        let (start, wanted) = (Instant::now(), (step, self.groups.start + number));
        let mut asked = None;
        loop {
            if let Some(buffers) = &mut self.buffers
                && let Some(group) = buffers.finish(wanted)?
            {
                return Ok(Some(group));
            }
            let Some(connection) = &mut self.connection else {
                if !self.reconnect(step)? {
                    return Ok(None);
                }
                continue;
            };
            connection.give_back()?;
            match connection.next_within(TICK) {
                // A loader that took over in the middle of a step begins it again: seen already.
                Ok(Some(slot)) if (slot.step(), slot.group()) != wanted => {
                    connection.done(slot, None)?;
                }
                Ok(Some(slot)) => {
                    self.attempts = 0;
                    if let Some(group) = self.accept(slot, start.elapsed())? {
                        return Ok(Some(group));
                    }
                }
                Ok(None) => {
                    if self.stop.asked().is_some()
                        && asked.get_or_insert_with(Instant::now).elapsed() > GRACE
                    {
                        return Ok(None);
                    }
                }
                Err(
                    error @ (link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. }),
                ) => {
                    if self.stop.asked().is_some() {
                        return Ok(None);
                    }
                    self.restarts += 1;
                    self.lost(error, step)?;
                }
                Err(error) => return Err(Error::NoMoreData(error)),
            }
        }
    }

    fn groups(&self) -> u64 {
        self.groups.end - self.groups.start
    }

    fn first_group(&self) -> u64 {
        self.groups.start
    }

    fn all_groups(&self) -> u64 {
        self.expected.groups
    }

    fn look_ahead(&mut self) -> Result<(), Error> {
        let (Some(buffers), Some(connection)) = (&self.buffers, &mut self.connection) else {
            return Ok(());
        };
        connection.give_back_done()?;
        if buffers.has_begun() || !connection.feed().is_ready() {
            return Ok(());
        }
        if let Some(slot) = connection
            .next_within(Duration::ZERO)
            .map_err(Error::NoMoreData)?
        {
            self.accept(slot, Duration::ZERO)?;
        }
        Ok(())
    }
}
