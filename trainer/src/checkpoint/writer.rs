//! Checkpoints beside the training: a snapshot is taken, and a thread of its own writes it.
//!
//! The snapshot's memory is taken before the first step. Pages touched for the first time would make the first pause
//! many times as long as the others, and too little memory is found out at once. Training pauses for the copy, and for
//! the checkpoint before where that is still being written: one is in flight at most, so there is one snapshot.
//!
//! A full disk is given room first by removing what the new checkpoint supersedes, but never the last whole one. A
//! write that fails is told at once, and tried again a minute later with a new snapshot. [`ATTEMPTS`] failures in a
//! row end the run with the error: a run that goes on without checkpoints would lose everything in the end. A failure
//! leaves the checkpoints before it as they are.
//!
//! A process that has run out of descriptors or threads can still write one: some descriptors are held in reserve, and
//! without a thread it is written in between.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::store::is_milestone;
use super::{Error, Parts, Snapshot, State, Store};
use crate::config::Checkpoint;

/// Failures in a row that end the run.
const ATTEMPTS: u32 = 3;
/// Time between a failure and the next attempt: other writers may make room on a full disk.
const RETRY: Duration = Duration::from_secs(60);

/// Descriptors held in reserve: a checkpoint has a file, a directory and the two logs open at a time.
const RESERVE: usize = 4;

/// A writer of a run's checkpoints, one after the other.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    when: Checkpoint,
    /// When the last checkpoint was begun, and of which step.
    last: (Instant, Option<u64>),
    /// The snapshot, unless it is being written.
    snapshot: Option<Snapshot>,
    in_flight: Option<InFlight>,
    failures: u32,
    retry_at: Option<Instant>,
    /// When a checkpoint that is kept for good was begun last.
    kept: Instant,
    /// Descriptors that are closed for the time of a checkpoint.
    reserve: Vec<File>,
}

/// The snapshot, to be used again, and what became of its checkpoint.
type Outcome = (Snapshot, Result<Written, Error>);

/// A checkpoint that is being written.
#[derive(Debug)]
enum InFlight {
    /// By a thread of its own.
    Thread(JoinHandle<Outcome>),
    /// Written already, since no thread could be started.
    Done(Box<Outcome>),
}

/// The cost of a checkpoint.
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
    /// Takes the memory for checkpoints of a run that stands at `step` and whose state is `parts`.
    ///
    /// # Errors
    /// Too little memory, above all.
    pub fn new(store: Store, when: Checkpoint, step: u64, parts: &Parts) -> Result<Writer, Error> {
        let there = store.path(step).exists();
        Ok(Writer {
            store,
            when,
            last: (Instant::now(), there.then_some(step)),
            kept: Instant::now(),
            reserve: reserve(),
            snapshot: Some(Snapshot::of(parts).map_err(Error::Snapshot)?),
            in_flight: None,
            failures: 0,
            retry_at: None,
        })
    }

    /// Tells whether a run that stands at `step`, with epochs of `epoch_len` steps, should write one now.
    pub fn is_due(&self, step: u64, epoch_len: u64) -> bool {
        let Checkpoint {
            every_epochs,
            every_steps,
            every_minutes,
            min_minutes,
            keep_every_epochs,
            keep_min_minutes,
            ..
        } = self.when;
        let passed = |since: Instant, minutes: f64| since.elapsed().as_secs_f64() >= minutes * 60.0;
        let is_kept = is_milestone(step, keep_every_epochs, epoch_len);
        // One for which the time has not come is not written for another reason either: it would be kept.
        is_kept && passed(self.kept, keep_min_minutes)
            || is_milestone(step, every_epochs, epoch_len)
                && !is_kept
                && passed(self.last.0, min_minutes)
            || every_steps.is_some_and(|steps| step.is_multiple_of(steps))
            || every_minutes.is_some_and(|minutes| passed(self.last.0, minutes))
            || self.retry_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Takes a snapshot of `parts` and begins to write it; returns how long training stood still for it.
    ///
    /// Nothing happens where the last one was of the same step. `logs` are synchronised first: they should not lack a
    /// step that the checkpoint says is done.
    ///
    /// # Errors
    /// [`Error::GaveUp`], or a snapshot that cannot be taken.
    pub fn save(
        &mut self,
        state: State,
        parts: &Parts,
        logs: impl FnOnce() -> io::Result<Vec<File>>,
    ) -> Result<Option<Duration>, Error> {
        let start = Instant::now();
        self.settle()?;
        if self.last.1 == Some(state.step) {
            return Ok(None);
        }
        let mut snapshot = self.snapshot.take().expect("nothing is in flight");
        if let Err(error) = snapshot.take(parts) {
            self.snapshot = Some(snapshot);
            return Err(Error::Snapshot(error));
        }
        self.last = (Instant::now(), Some(state.step));
        if is_milestone(state.step, self.when.keep_every_epochs, state.epoch_len) {
            self.kept = self.last.0;
        }
        self.reserve.clear();
        let logs = logs();
        let (store, when) = (self.store.clone(), self.when.clone());
        self.retry_at = None;
        let paused = start.elapsed();
        let write = move || {
            let synchronised = logs.and_then(|logs| logs.iter().try_for_each(File::sync_data));
            if let Err(error) = synchronised {
                tracing::warn!("the log cannot be synchronised with the disk: {error}");
            }
            let written = (|| {
                let (keep, epochs) = (when.keep, when.keep_every_epochs);
                let mut bytes = store.save(&state, &snapshot);
                if bytes.as_ref().is_err_and(Error::is_disk_full)
                    && store.make_room(keep, epochs, state.epoch_len)?
                {
                    tracing::warn!(
                        "the disk is full: superseded checkpoints were removed before the next"
                    );
                    bytes = store.save(&state, &snapshot);
                }
                let bytes = bytes?;
                let writing = start.elapsed().saturating_sub(paused);
                store.prune(keep, epochs, state.epoch_len)?;
                Ok(Written {
                    step: state.step,
                    paused,
                    writing,
                    bytes,
                })
            })();
            (snapshot, written)
        };
        self.in_flight = Some(start_thread(write));
        Ok(Some(paused))
    }

    /// Tells what became of the checkpoint in flight, if that is decided.
    ///
    /// # Errors
    /// [`Error::GaveUp`].
    pub fn poll(&mut self) -> Result<(), Error> {
        match &self.in_flight {
            Some(InFlight::Thread(thread)) if !thread.is_finished() => Ok(()),
            Some(_) => self.settle(),
            None => Ok(()),
        }
    }

    /// Waits for the checkpoint in flight.
    ///
    /// # Errors
    /// [`Error::GaveUp`].
    pub fn settle(&mut self) -> Result<(), Error> {
        let (snapshot, outcome) = match self.in_flight.take() {
            None => return Ok(()),
            Some(InFlight::Done(outcome)) => *outcome,
            Some(InFlight::Thread(thread)) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        };
        self.reserve = reserve();
        self.snapshot = Some(snapshot);
        match outcome {
            Ok(written) => {
                self.failures = 0;
                tracing::info!("{written}");
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= ATTEMPTS {
                    return Err(Error::GaveUp {
                        attempts: ATTEMPTS,
                        cause: Box::new(error),
                    });
                }
                tracing::warn!(
                    "{error}; it is tried again, and {ATTEMPTS} failures in a row end the run"
                );
                self.last.1 = None;
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        Ok(())
    }

    /// Tells whether the state after `step` steps is on disk.
    pub fn has_written(&self, step: u64) -> bool {
        self.last.1 == Some(step) && self.in_flight.is_none()
    }
}

impl Drop for Writer {
    /// Waits for the checkpoint in flight, after an error too: the run directory must not be given free while it is
    /// written to.
    fn drop(&mut self) {
        if let Some(InFlight::Thread(thread)) = self.in_flight.take() {
            // The run has an error to tell already.
            let _ = thread.join();
        }
    }
}

/// Opens descriptors to hold in reserve, as far as there are any.
fn reserve() -> Vec<File> {
    let opened = (0..RESERVE).map(|_| File::open("/dev/null"));
    opened.map_while(Result::ok).collect()
}

/// Has a thread write a checkpoint; without one it is written before this returns.
fn start_thread(write: impl FnOnce() -> Outcome + Send + 'static) -> InFlight {
    let write = Arc::new(Mutex::new(Some(write)));
    let take = |write: &Mutex<Option<_>>| {
        let write = write.lock().unwrap_or_else(PoisonError::into_inner).take();
        write.expect("taken once")
    };
    let theirs = Arc::clone(&write);
    let thread = std::thread::Builder::new().name("checkpoint".to_owned());
    match thread.spawn(move || take(&theirs)()) {
        Ok(handle) => InFlight::Thread(handle),
        Err(error) => {
            tracing::warn!("no thread can be started ({error}): training waits for the checkpoint");
            InFlight::Done(Box::new(take(&write)()))
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

#[cfg(test)]
mod tests;
