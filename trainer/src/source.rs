//! Where the groups of a step come from, and what becomes of them: tensors, normalised on the device.
//!
//! Used by the training loop through [`Source`]; [`LoaderSource`] is the real one. It hides that a loader may die: the
//! next one is asked for the step in progress, and since what a step holds depends on its number alone, the groups seen
//! already are skipped and no value changes.
//!
//! On a CPU a group is copied out of its slot, once. For a GPU the ring is page-locked, a stream of its own copies the next
//! group while this one is computed with, and a slot goes back when its copy is done: see `stage`.

mod connection;
pub(crate) mod group;
pub(crate) mod held;
pub(crate) mod stage;

pub use group::{Batch, Raw};

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loader::link::{self, Endpoint, Feed, Hello};
use loader::ring::SlotReader;
use tch::Device;

use crate::run::stop::Stop;
use connection::Connection;
use stage::Stage;

/// Between two looks at the signals while waiting for data.
const TICK: Duration = Duration::from_millis(100);
/// How long data may still come after a stop was asked for. The loader may have been asked too, and be gone.
const GRACE: Duration = Duration::from_secs(5);
/// Loaders that may die one after the other without delivering anything before the run gives up.
const ATTEMPTS: u32 = 8;

/// Gives out the groups of this rank in order.
pub trait Source {
    /// Group number `group` of this rank's share of `step`; `None` if it did not come because a stop was asked for.
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>>;

    /// Groups of a step that this rank takes.
    fn groups(&self) -> u64;

    /// Called when the device has got its work for a group: time to fetch the next one beside it. Never blocks.
    fn look_ahead(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The loader at the other end of a link.
pub struct LoaderSource {
    endpoint: Arc<Endpoint>,
    hello: Hello,
    patience: Duration,
    device: Device,
    stop: Stop,
    connection: Option<Connection>,
    /// Where groups arrive on a GPU.
    stage: Option<Stage>,
    epoch_len: u64,
    groups: Range<u64>,
    restarts: u32,
}

impl LoaderSource {
    /// Connects to the loader for the first time; `None` if a stop was asked for before there was one.
    pub fn connect(
        endpoint: Endpoint,
        hello: Hello,
        patience: Duration,
        device: Device,
        stop: Stop,
    ) -> Result<Option<LoaderSource>> {
        let endpoint = Arc::new(endpoint);
        let mut attempts = 0;
        let Some(feed) = connect(&endpoint, &hello, patience, &stop, &mut attempts)? else {
            return Ok(None);
        };
        let (epoch_len, groups) = (feed.epoch_len(), hello.groups(feed.welcome().groups));
        ensure!(epoch_len > 0, "the loader announces epochs without steps");
        let connection = Connection::new(feed, device);
        let stage = device
            .is_cuda()
            .then(|| Stage::new(device, connection.geometry()));
        Ok(Some(LoaderSource {
            endpoint,
            hello,
            patience,
            device,
            stop,
            connection: Some(connection),
            stage: stage.transpose()?,
            epoch_len,
            groups,
            restarts: 0,
        }))
    }

    /// Steps of an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// Loaders that were lost on the way.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes leave, so that the loader knows this is not a death.
    pub fn goodbye(self) {
        if let Some(connection) = self.connection {
            connection.goodbye();
        }
    }

    /// A feed that will deliver `step` next.
    fn reconnect(&mut self, step: u64, attempts: &mut u32) -> Result<bool> {
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
        let groups = self.hello.groups(feed.welcome().groups);
        ensure!(
            feed.epoch_len() == self.epoch_len && groups == self.groups,
            "the new loader has epochs of {} steps and serves groups {groups:?}; the one before had {} and {:?}",
            feed.epoch_len(),
            self.epoch_len,
            self.groups
        );
        if let Some(stage) = &mut self.stage
            && stage.geometry() != feed.geometry()
        {
            *stage = Stage::new(self.device, *feed.geometry())?;
        }
        self.connection = Some(Connection::new(feed, self.device));
        Ok(true)
    }

    /// Takes in a slot: copied when this returns the batch, or on its way to the GPU.
    fn accept(&mut self, slot: SlotReader, waited: Duration) -> Result<Option<Batch>> {
        let connection = self.connection.as_mut().expect("a slot came from it");
        let (batch, copied) = match &mut self.stage {
            None => {
                let batch = Batch::new(&Raw::of(&slot, &connection.geometry()), self.device)?;
                (Some(Batch { waited, ..batch }), None)
            }
            Some(stage) => (None, Some(stage.begin(&slot, waited)?)),
        };
        connection.done(slot, copied)?;
        Ok(batch)
    }
}

impl Source for LoaderSource {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>> {
        let (start, wanted) = (Instant::now(), (step, self.groups.start + group));
        let (mut attempts, mut asked) = (0, None);
        loop {
            if let Some(stage) = &mut self.stage
                && let Some(batch) = stage.finish(wanted)?
            {
                return Ok(Some(batch));
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
                    if let Some(batch) = self.accept(slot, start.elapsed())? {
                        return Ok(Some(batch));
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
                    eprintln!("{error}; waiting for another one at step {step}");
                    self.restarts += 1;
                    self.connection = None;
                }
                Err(error) => return Err(error).context("no more data"),
            }
        }
    }

    fn groups(&self) -> u64 {
        self.groups.end - self.groups.start
    }

    fn look_ahead(&mut self) -> Result<()> {
        let (Some(stage), Some(connection)) = (&self.stage, &mut self.connection) else {
            return Ok(());
        };
        connection.give_back_done()?;
        if stage.has_begun() || !connection.feed().is_ready() {
            return Ok(());
        }
        if let Some(slot) = connection
            .next_within(Duration::ZERO)
            .context("no more data")?
        {
            self.accept(slot, Duration::ZERO)?;
        }
        Ok(())
    }
}

/// A feed, within `patience`; `None` if a stop was asked for first.
fn connect(
    endpoint: &Arc<Endpoint>,
    hello: &Hello,
    patience: Duration,
    stop: &Stop,
    attempts: &mut u32,
) -> Result<Option<Feed>> {
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
                ensure!(
                    *attempts < ATTEMPTS,
                    "{ATTEMPTS} loaders ended before their first group; the last: {error}"
                );
                eprintln!("{error}; waiting for another one");
            }
            Err(error) => return Err(error).context("cannot connect to the loader"),
        }
    }
}
