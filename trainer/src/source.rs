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
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use loader::link::{self, Endpoint, Feed, Hello};
use loader::ring::SlotReader;
use tch::Device;

use crate::stop::Stop;
use connection::Connection;
use device_buffers::DeviceBuffers;

/// Time between two looks at the signals while waiting for data.
const TICK: Duration = Duration::from_millis(100);
/// Time in which data may still come after a stop was asked for: the loader may have been asked too, and be gone.
const GRACE: Duration = Duration::from_secs(5);
/// Loaders that may die one after the other without delivering anything before the run gives up.
const ATTEMPTS: u32 = 8;

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
    /// So many loaders ended one after the other, without a group.
    #[error("{attempts} loaders ended before their first group; the last: {last}")]
    NoLoaderLasts {
        /// How many.
        attempts: u32,
        /// Why the last one ended.
        last: link::Error,
    },
    /// The loader announces epochs without steps.
    #[error("the loader announces epochs without steps")]
    NoSteps,
    /// A new loader serves other steps or groups than the one before.
    #[error(
        "the new loader has epochs of {} steps and serves groups {:?}; the one before had {} and {:?}",
        now.0, now.1, then.0, then.1
    )]
    OtherLoader {
        /// Steps of an epoch, and groups of this rank.
        now: (u64, Range<u64>),
        /// Those of the loader before.
        then: (u64, Range<u64>),
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
    endpoint: Arc<Endpoint>,
    hello: Hello,
    patience: Duration,
    device: Device,
    stop: Stop,
    connection: Option<Connection>,
    /// The buffers in which groups arrive on a GPU.
    buffers: Option<DeviceBuffers>,
    epoch_len: u64,
    groups: Range<u64>,
    restarts: u32,
}

impl LoaderSource {
    /// Connects to the loader for the first time; `None` if a stop was asked for before there was one.
    ///
    /// # Errors
    /// [`Error::Connect`] and others, where there is no loader, or none for this run.
    pub fn connect(
        endpoint: Endpoint,
        hello: Hello,
        patience: Duration,
        device: Device,
        stop: Stop,
    ) -> Result<Option<LoaderSource>, Error> {
        let endpoint = Arc::new(endpoint);
        let mut attempts = 0;
        let Some(feed) = connect(&endpoint, &hello, patience, &stop, &mut attempts)? else {
            return Ok(None);
        };
        let (epoch_len, groups) = (
            feed.epoch_len(),
            hello.share().groups(feed.welcome().groups),
        );
        if epoch_len == 0 {
            return Err(Error::NoSteps);
        }
        let connection = Connection::new(feed, device);
        let buffers = device
            .is_cuda()
            .then(|| DeviceBuffers::new(device, connection.geometry()));
        Ok(Some(LoaderSource {
            endpoint,
            hello,
            patience,
            device,
            stop,
            connection: Some(connection),
            buffers: buffers.transpose()?,
            epoch_len,
            groups,
            restarts: 0,
        }))
    }

    /// Returns the steps of an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
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

    /// Connects to another loader, which will deliver `step` next.
    fn reconnect(&mut self, step: u64, attempts: &mut u32) -> Result<bool, Error> {
        self.connection = None;
        self.hello.first_step = step;
        let Some(feed) = connect(
            &self.endpoint,
            &self.hello,
            self.patience,
            &self.stop,
            attempts,
        )?
        else {
            return Ok(false);
        };
        let groups = self.hello.share().groups(feed.welcome().groups);
        if feed.epoch_len() != self.epoch_len || groups != self.groups {
            return Err(Error::OtherLoader {
                now: (feed.epoch_len(), groups),
                then: (self.epoch_len, self.groups.clone()),
            });
        }
        if let Some(buffers) = &mut self.buffers
            && buffers.geometry() != feed.geometry()
        {
            *buffers = DeviceBuffers::new(self.device, *feed.geometry())?;
        }
        self.connection = Some(Connection::new(feed, self.device));
        Ok(true)
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
        let (mut attempts, mut asked) = (0, None);
        loop {
            if let Some(buffers) = &mut self.buffers
                && let Some(group) = buffers.finish(wanted)?
            {
                return Ok(Some(group));
            }
            let Some(connection) = &mut self.connection else {
                if !self.reconnect(step, &mut attempts)? {
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
                    tracing::warn!("{error}; waiting for another one at step {step}");
                    self.restarts += 1;
                    self.connection = None;
                }
                Err(error) => return Err(Error::NoMoreData(error)),
            }
        }
    }

    fn groups(&self) -> u64 {
        self.groups.end - self.groups.start
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

/// Returns a feed, within `patience`; `None` if a stop was asked for first.
fn connect(
    endpoint: &Arc<Endpoint>,
    hello: &Hello,
    patience: Duration,
    stop: &Stop,
    attempts: &mut u32,
) -> Result<Option<Feed>, Error> {
    loop {
        // A thread of its own, because connecting may take all of `patience` and a signal must not. When a stop is
        // asked for, the thread is left behind: the process is about to end.
        let (sender, receiver) = mpsc::channel();
        let (endpoint, hello) = (Arc::clone(endpoint), hello.clone());
        std::thread::spawn(move || {
            // Nobody receives it any more if a stop was asked for in the meantime.
            let _ = sender.send(Feed::connect(&endpoint, &hello, patience));
        });
        let outcome = loop {
            match receiver.recv_timeout(TICK) {
                Ok(outcome) => break outcome,
                Err(_) if stop.asked().is_some() => return Ok(None),
                Err(_) => {}
            }
        };
        match outcome {
            Ok(feed) => return Ok(Some(feed)),
            // One that dies before its welcome: the launcher, or the user, starts another.
            Err(error @ (link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. })) => {
                *attempts += 1;
                if *attempts >= ATTEMPTS {
                    return Err(Error::NoLoaderLasts {
                        attempts: ATTEMPTS,
                        last: error,
                    });
                }
                tracing::warn!("{error}; waiting for another one");
            }
            Err(error) => return Err(Error::Connect(error)),
        }
    }
}
