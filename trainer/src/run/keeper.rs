//! What rank 0 keeps of a run while it trains.

use std::path::Path;

use super::{Error, RunDir};
use crate::checkpoint::{Parts, State, Writer};
use crate::config::Checkpoint;
use crate::observe::{Log, Record};

/// The run directory, the log and the checkpoints of a run: rank 0 has one, other ranks have none.
pub struct Keeper {
    dir: RunDir,
    /// The log of the run.
    pub log: Log,
    writer: Writer,
}

impl Keeper {
    /// Takes the memory for checkpoints of a run that stands at `step` and whose state is `parts`.
    ///
    /// # Errors
    /// Too little memory, above all.
    pub fn new(
        dir: RunDir,
        log: Log,
        when: Checkpoint,
        step: u64,
        parts: &Parts,
    ) -> Result<Keeper, Error> {
        let writer = Writer::new(dir.store.clone(), when, step, parts)?;
        Ok(Keeper { dir, log, writer })
    }

    /// Returns the run directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a step into the log.
    pub fn log(&mut self, record: &Record) {
        self.log.step(record);
    }

    /// Begins a checkpoint if one is due after `step` steps, and says what became of the one before.
    ///
    /// `now` gives the state and the tensors; it is called only for a checkpoint that is due.
    ///
    /// # Errors
    /// Too many checkpoints failed in a row.
    pub fn checkpoint_if_due(
        &mut self,
        step: u64,
        epoch_len: u64,
        now: impl FnOnce() -> (State, Parts),
    ) -> Result<(), Error> {
        self.writer.poll()?;
        if self.writer.is_due(step, epoch_len) {
            let (state, parts) = now();
            self.save(state, &parts)?;
        }
        Ok(())
    }

    /// Writes the last checkpoint of this process and waits until it is on disk.
    ///
    /// # Errors
    /// Too many checkpoints failed in a row.
    pub fn finish(&mut self, state: &State, parts: &Parts) -> Result<(), Error> {
        // Ends: a failure forgets the step it was for, and too many in a row are an error.
        while !self.writer.has_written(state.step) {
            self.save(state.clone(), parts)?;
            self.writer.settle()?;
        }
        self.log.settle();
        Ok(())
    }

    /// Waits for the checkpoint in flight.
    ///
    /// # Errors
    /// Too many checkpoints failed in a row.
    pub fn settle(&mut self) -> Result<(), Error> {
        Ok(self.writer.settle()?)
    }

    fn save(&mut self, state: State, parts: &Parts) -> Result<(), Error> {
        match self.dir.restore() {
            Err(error @ Error::InUse { .. }) => return Err(error),
            // Writing will fail as well, which is counted.
            Err(error) => tracing::warn!("{error}"),
            Ok(()) => {}
        }
        self.log.settle();
        let paused = self.writer.save(state, parts, || self.log.files())?;
        paused.into_iter().for_each(|pause| self.log.paused(pause));
        Ok(())
    }
}
