//! Checkpoints beside the training: a snapshot is taken, and a thread of its own writes it.
//!
//! Its memory is taken before the first step: pages that are touched for the first time would make the first pause
//! many times as long as the others, and a machine with too little memory is found out at once. Training pauses for the copy alone, and for the checkpoint before where that is still being written: one is in
//! flight at most, so there is one snapshot. A write that fails is told at once and tried again with a new snapshot a
//! minute later; after [`ATTEMPTS`] failures in a row the run ends with the error, since a run that goes on without
//! checkpoints would lose everything in the end. What was there before is untouched by a failure.

use std::fmt;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::store::is_milestone;
use super::{Parts, Snapshot, State, Store};
use crate::config::Checkpoint;
use crate::observe::log::Log;

/// Failures in a row that end the run.
const ATTEMPTS: u32 = 3;
/// Between a failure and the next attempt: other writers may make room on a full disk.
const RETRY: Duration = Duration::from_secs(60);

/// Writes the checkpoints of one run, one after the other.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    when: Checkpoint,
    /// Of the last checkpoint begun.
    last: (Instant, Option<u64>),
    /// There unless it is being written.
    snapshot: Option<Snapshot>,
    in_flight: Option<JoinHandle<(Snapshot, Result<Written>)>>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// What one checkpoint cost.
#[derive(Debug)]
struct Written {
    /// Steps done.
    step: u64,
    /// Time the training stood still: waiting for the one before, and the copy.
    paused: Duration,
    /// Time from the snapshot until all was on disk.
    writing: Duration,
    bytes: u64,
}

impl Writer {
    /// For a run that stands at `step` and whose state is `parts`.
    pub fn new(store: Store, when: Checkpoint, step: u64, parts: &Parts) -> Result<Writer> {
        let there = store.path(step).exists();
        let snapshot = Snapshot::of(parts).context("cannot make room for checkpoints")?;
        Ok(Writer {
            store,
            when,
            last: (Instant::now(), there.then_some(step)),
            snapshot: Some(snapshot),
            in_flight: None,
            failures: 0,
            retry_at: None,
        })
    }

    /// Whether a run that stands at `step`, with epochs of `epoch_len` steps, should write one now.
    pub fn is_due(&self, step: u64, epoch_len: u64) -> bool {
        let Checkpoint {
            every_epochs,
            every_steps,
            every_minutes,
            keep_every_epochs,
            ..
        } = self.when;
        is_milestone(step, every_epochs, epoch_len)
            || is_milestone(step, keep_every_epochs, epoch_len)
            || every_steps.is_some_and(|steps| step.is_multiple_of(steps))
            || every_minutes
                .is_some_and(|minutes| self.last.0.elapsed().as_secs_f64() >= minutes * 60.0)
            || self.retry_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Takes a snapshot of `parts` and begins to write it, unless the last one was of the same step. The log is
    /// synchronised first: it must not lack a step that the checkpoint says is done.
    pub fn save(&mut self, state: State, parts: &Parts, log: &mut Log) -> Result<()> {
        let start = Instant::now();
        self.settle(log)?;
        if self.last.1 == Some(state.step) {
            return Ok(());
        }
        let rows = log.files()?;
        let mut snapshot = self.snapshot.take().context("the snapshot is lost")?;
        snapshot
            .take(parts)
            .context("cannot take a snapshot for a checkpoint")?;
        self.last = (Instant::now(), Some(state.step));
        let (store, when) = (self.store.clone(), self.when.clone());
        self.retry_at = None;
        let paused = start.elapsed();
        let write = move || {
            let written = (|| {
                for file in rows {
                    file.sync_data().context("cannot write the log to disk")?;
                }
                let bytes = store.save(&state, &snapshot)?;
                let writing = start.elapsed() - paused;
                store.prune(when.keep, when.keep_every_epochs, state.epoch_len)?;
                Ok(Written {
                    step: state.step,
                    paused,
                    writing,
                    bytes,
                })
            })();
            (snapshot, written)
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        let handle = thread.spawn(write).context("cannot start a thread")?;
        self.in_flight = Some(handle);
        log.paused(paused);
        Ok(())
    }

    /// Tells what became of the checkpoint in flight, if that is decided. An error is the last of too many in a row.
    pub fn poll(&mut self, log: &mut Log) -> Result<()> {
        match &self.in_flight {
            Some(thread) if thread.is_finished() => self.settle(log),
            _ => Ok(()),
        }
    }

    /// Writes the last checkpoint of this process and waits until it is on disk.
    pub fn finish(&mut self, state: State, parts: &Parts, log: &mut Log) -> Result<()> {
        // Ends: a failure forgets the step it was for, and too many in a row are an error.
        while self.last.1 != Some(state.step) || self.in_flight.is_some() {
            self.save(state.clone(), parts, log)?;
            self.settle(log)?;
        }
        Ok(())
    }

    /// Waits for the checkpoint in flight.
    pub fn settle(&mut self, log: &mut Log) -> Result<()> {
        let Some(thread) = self.in_flight.take() else {
            return Ok(());
        };
        let (snapshot, outcome) = thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.snapshot = Some(snapshot);
        match outcome {
            Ok(written) => {
                self.failures = 0;
                log.say(written);
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= ATTEMPTS {
                    return Err(error.context(format!("{ATTEMPTS} checkpoints failed in a row")));
                }
                log.say(format_args!(
                    "warning: {error:#}; it is tried again, and {ATTEMPTS} failures in a row end the run"
                ));
                self.last.1 = None;
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// A run that ends with an error waits, too: the run directory must not be given free while it is written to.
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            // The run has an error to tell already.
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "checkpoint of step {}: training paused {:.1} ms; {:.1} MB were on disk {:.0} ms later",
            self.step,
            self.paused.as_secs_f64() * 1e3,
            self.bytes as f64 / 1e6,
            self.writing.as_secs_f64() * 1e3,
        )
    }
}
