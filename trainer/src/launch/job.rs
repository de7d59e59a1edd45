//! A job's programs, and its end.

use rustix::process::Signal;

use super::child::Tie;
use super::events::Events;
use super::loaders::Loaders;
use super::supervise::supervise;
use super::{Error, Program};

/// The loader and the trainer of one job.
#[derive(Debug)]
pub struct Job {
    /// The program that serves.
    pub loader: Program,
    /// The program that trains.
    pub trainer: Program,
}

impl Job {
    /// Runs both until the trainer ends; returns its exit code, or 128 + n after signal n.
    ///
    /// Signals that stand in `events` are passed on to the trainer.
    ///
    /// # Errors
    /// If one of them cannot be started, or if the loader cannot be kept going. The trainer has then been asked to
    /// write its checkpoint, and has ended.
    pub fn run(&self, events: &Events) -> Result<u8, Error> {
        // The loader does not see the terminal's Ctrl-C, and so serves the trainer's last step.
        let mut trainer = self.trainer.start(Tie::Asked)?;
        trainer.watch(events)?;
        let mut loaders = Loaders::new(&self.loader);
        let supervised = supervise(events, &mut trainer, &mut loaders);
        if supervised.is_err() {
            // Without a loader the trainer can only write its checkpoint.
            trainer.signal(Signal::TERM);
            trainer.wait();
        }
        loaders.end();
        supervised
    }
}
