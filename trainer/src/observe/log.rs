//! The log of one run.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::rows::Rows;
use super::summary::{Line, Sums};
use super::{Error, Record, Report};

/// A follower of a run's steps. What it does with them is its own business: nothing of it comes back to the run.
pub trait Observer {
    /// Takes note of a step.
    fn step(&mut self, record: &Record);

    /// Takes note of the run's end.
    fn finish(&mut self) {}
}

/// The log of one run, in its directory.
pub struct Log {
    rows: Rows,
    observers: Vec<Box<dyn Observer>>,
    every: u64,
    interval: Sums,
    total: Sums,
    started: Instant,
    start_up: Option<Duration>,
    paused: Vec<Duration>,
}

impl Log {
    /// Continues the logs in the run directory `folder` at step `first`.
    ///
    /// `every` is the interval of the console's lines, in steps; `started` is when the program did.
    ///
    /// # Errors
    /// If a file of rows cannot be opened.
    pub fn open(
        folder: &Path,
        tag: &str,
        first: u64,
        epoch_len: u64,
        every: u64,
        started: Instant,
    ) -> Result<Log, Error> {
        Ok(Log {
            // Rank 0 is the only one with a directory.
            rows: Rows::open(folder, tag, 0, first, epoch_len)?,
            observers: Vec::new(),
            every,
            interval: Sums::default(),
            total: Sums::default(),
            started,
            start_up: None,
            paused: Vec::new(),
        })
    }

    /// Has `observer` follow the steps to come.
    pub fn add(&mut self, observer: Box<dyn Observer>) {
        self.observers.push(observer);
    }

    /// Takes note of a step.
    pub fn step(&mut self, record: &Record) {
        self.rows.write(record);
        let mut counted = record.clone();
        if self.start_up.is_none() {
            // What the first step waited is start-up: opening the shards, filling the ring.
            counted.step_ms -= counted.wait_ms;
            counted.wait_ms = 0.0;
            let computing = Duration::from_secs_f64(counted.step_ms / 1e3);
            self.start_up = Some(self.started.elapsed().saturating_sub(computing));
        }
        self.interval.add(&counted);
        self.total.add(&counted);
        for observer in &mut self.observers {
            observer.step(record);
        }
        if record.itr.is_multiple_of(self.every) || record.step + 1 == record.total_steps {
            tracing::info!(
                "{}",
                Line {
                    record,
                    sums: &self.interval
                }
            );
            self.interval = Sums::default();
        }
    }

    /// Returns handles to the files of rows, for synchronising them before a checkpoint that says their steps are done.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn files(&self) -> io::Result<Vec<File>> {
        self.rows.files()
    }

    /// Takes note of how long training stood still for a checkpoint. No step's time contains it.
    pub fn paused(&mut self, pause: Duration) {
        self.paused.push(pause);
    }

    /// Tells the observers of the end, and sums the run up.
    pub fn finish(&mut self) -> Report {
        for observer in &mut self.observers {
            observer.finish();
        }
        Report {
            total: self.total.clone(),
            start_up: self.start_up.unwrap_or_else(|| self.started.elapsed()),
            paused: std::mem::take(&mut self.paused),
        }
    }
}
