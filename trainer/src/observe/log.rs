//! The log of a run: all that follows its steps.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::collapse::Watch;
use super::console::Console;
use super::contexts::Contexts;
use super::csv::Csv;
use super::events::Events;
use super::jsonl::Jsonl;
use super::moment::{Pace, Row};
use super::prometheus::Metrics;
use super::sums::Sums;
use super::{Error, Record, Report, Signs};

/// A follower of a run's steps.
///
/// What it does with them is its own business: nothing of it comes back to the run.
pub trait Observer {
    /// Takes note of a step.
    fn step(&mut self, record: &Record);

    /// Takes note of the run's end.
    fn finish(&mut self) {}
}

/// The log of a run, in its directory.
pub struct Log {
    csv: Csv,
    jsonl: Jsonl,
    events: Option<Events>,
    metrics: Metrics,
    console: Console,
    pace: Pace,
    watch: Watch,
    /// The last measurement of this process.
    signs: Option<Signs>,
    observers: Vec<Box<dyn Observer>>,
    total: Sums,
    started: Instant,
    start_up: Option<Duration>,
    paused: Vec<Duration>,
}

impl Log {
    /// Continues the logs in the run directory `folder` at step `first`.
    ///
    /// `epochs` are the steps up to which epochs had a length, and that length. `every` is the interval of the
    /// console's lines, in steps; `started` is when the program did.
    ///
    /// # Errors
    /// If a file of rows cannot be opened.
    pub fn open(
        folder: &Path,
        tag: &str,
        first: u64,
        epochs: &[(u64, u64)],
        every: u64,
        started: Instant,
    ) -> Result<Log, Error> {
        Ok(Log {
            csv: Csv::open(folder, tag, first, epochs)?,
            jsonl: Jsonl::open(folder, tag, first)?,
            events: None,
            metrics: Metrics::new(folder),
            console: Console::new(every),
            pace: Pace::new(),
            watch: Watch::default(),
            signs: None,
            observers: vec![Box::new(Contexts::default())],
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

    /// Writes TensorBoard's event files as well, in the run directory `folder`.
    pub fn add_events(&mut self, folder: &Path) {
        self.events = Some(Events::new(folder));
    }

    /// Takes note of a step.
    pub fn step(&mut self, record: &Record) {
        let mut counted = record.clone();
        if self.start_up.is_none() {
            // What the first step waited is start-up: opening the shards, filling the ring.
            counted.step_ms -= counted.wait_ms;
            counted.wait_ms = 0.0;
            let computing = Duration::from_secs_f64(counted.step_ms.max(0.0) / 1e3);
            self.start_up = Some(self.started.elapsed().saturating_sub(computing));
        }
        self.total.add(&counted);
        let row = Row {
            record,
            moment: self.pace.step(record, counted.step_ms),
        };
        self.csv.write(record);
        self.jsonl.write(&row);
        for observer in &mut self.observers {
            observer.step(record);
        }
        self.signs = record.signs.or(self.signs);
        for sentence in record.signs.iter().flat_map(|signs| self.watch.look(signs)) {
            tracing::warn!("step {}: {sentence}", record.step);
        }
        let is_line = self.console.step(&counted, &row.moment);
        if !is_line && self.events.is_none() {
            return;
        }
        let mut value = row.to_value();
        if let Some(events) = &mut self.events {
            events.write(record.step, &value);
        }
        if is_line {
            // The file has the latest of each number.
            value["signs"] = serde_json::to_value(self.signs).unwrap_or_default();
            self.metrics.write(&value);
        }
    }

    /// Returns handles to the files of rows, for synchronising them before a checkpoint that says their steps are done.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn files(&self) -> io::Result<Vec<File>> {
        Ok(vec![self.csv.file()?, self.jsonl.file()?])
    }

    /// Takes note of how long training stood still for a checkpoint. No step's time contains it.
    pub fn paused(&mut self, pause: Duration) {
        self.paused.push(pause);
    }

    /// Sees to it that the files of rows are there and hold all rows.
    pub fn settle(&mut self) {
        self.csv.rows().settle();
        self.jsonl.rows().settle();
    }

    /// Tells the observers of the end, and sums the run up.
    pub fn finish(&mut self) -> Report {
        self.csv.rows().finish();
        self.jsonl.rows().finish();
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn resuming_cuts_rows_beyond_the_checkpoint_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let open = |first| {
            Log::open(
                folder.path(),
                "jepa",
                first,
                &[(u64::MAX, 5)],
                10,
                Instant::now(),
            )
            .unwrap()
        };
        let mut log = open(0);
        (0..9).for_each(|step| log.step(&record(step)));
        let mut files = log.files().unwrap();
        files[0].write_all(b"2,9,0.1").unwrap();
        files[1].write_all(b"{\"step\":9,\"lo\xff").unwrap();
        drop(log);
        open(6).step(&record(6));
        let csv = std::fs::read_to_string(folder.path().join("jepa_r0.csv")).unwrap();
        assert_eq!(csv.lines().count(), 8, "{csv}");
        assert!(
            csv.ends_with("2,0,5.12346,12.00000,9.50000,20\n2,1,6.12346,12.00000,9.50000,20\n"),
            "{csv}"
        );
        let json = std::fs::read_to_string(folder.path().join("jepa_r0.jsonl")).unwrap();
        let steps: Vec<u64> = json
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap().step)
            .collect();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6]);
    }

    /// An observer that tells what it was told.
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Observer for Told {
        fn step(&mut self, record: &Record) {
            self.0.lock().unwrap().push(format!("step {}", record.step));
        }

        fn finish(&mut self) {
            self.0.lock().unwrap().push("end".to_owned());
        }
    }

    #[test]
    fn observers_follow_each_step_and_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(
            folder.path(),
            "jepa",
            0,
            &[(u64::MAX, 5)],
            10,
            Instant::now(),
        )
        .unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        log.add(Box::new(Told(told.clone())));
        log.step(&record(0));
        log.step(&record(1));
        log.finish();
        assert_eq!(*told.lock().unwrap(), ["step 0", "step 1", "end"]);
    }
}
