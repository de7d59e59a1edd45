//! What a run tells about itself: a line per interval, one row per step in two files, a progress bar, a final report.
//!
//! `<write_tag>_r0.csv` has exactly the columns and formats of the official log, so that existing notebooks read it;
//! `<write_tag>_r0.jsonl` has everything, one [`Record`] per step. Rows of steps that a resumed run does again are cut
//! first, so each step stands there once. Lines and the bar go to stderr; only the report is a result.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Deserializer, Serialize};

/// The header of the official log.
const COLUMNS: &str = "epoch,itr,loss,mask-A,mask-B,time (ms)";

/// Everything about one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 0-based number of the step in the whole run.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// 1-based, as in the official log.
    pub epoch: u64,
    /// 0-based number of the step in its epoch.
    pub itr: u64,
    /// Mean over the global batch. Not finite in a step that was skipped for it: `null` in JSON.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Euclidean norm of the whole gradient.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub gradient_norm: f64,
    /// Whether the step moved nothing, because its loss or gradient was not finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Context patches per image, mean over the groups.
    pub context_len: f64,
    /// Patches per target block, mean over the groups.
    pub target_len: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Weight decay of this step.
    pub weight_decay: f64,
    /// Momentum of the target encoder's update.
    pub momentum: f64,
    /// Images in this step.
    pub images: u64,
    /// Samples of this step that stand in for a damaged one.
    pub replaced: u64,
    /// Wall time of the step, waiting included.
    pub step_ms: f64,
    /// Time in which the step waited for data.
    pub wait_ms: f64,
    /// Images per second of wall time.
    pub images_per_s: f64,
}

fn nan() -> f64 {
    f64::NAN
}

/// JSON has no numbers that are not finite.
fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Sums over some steps, for means.
#[derive(Clone, Debug, Default)]
struct Sums {
    steps: f64,
    skipped: f64,
    images: f64,
    replaced: u64,
    loss: f64,
    context: f64,
    target: f64,
    step_ms: f64,
    wait_ms: f64,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.steps += 1.0;
        self.images += record.images as f64;
        self.replaced += record.replaced;
        if record.skipped {
            self.skipped += 1.0;
        } else {
            self.loss += record.loss;
        }
        self.context += record.context_len;
        self.target += record.target_len;
        self.step_ms += record.step_ms;
        self.wait_ms += record.wait_ms;
    }

    fn images_per_s(&self) -> f64 {
        self.images / self.step_ms.max(1e-9) * 1e3
    }

    /// Percent of the wall time spent waiting for data.
    fn waiting(&self) -> f64 {
        self.wait_ms / self.step_ms.max(1e-9) * 1e2
    }
}

/// The log of one run.
pub struct Log {
    rows: Rows,
    bar: ProgressBar,
    every: u64,
    interval: Sums,
    total: Sums,
    started: Instant,
    start_up: Option<Duration>,
    paused: Vec<Duration>,
}

impl Log {
    /// Continues the logs in `folder` at step `first`. `every` is the interval of the lines, in steps; `started` is when
    /// the program did.
    pub fn open(
        folder: &Path,
        tag: &str,
        first: u64,
        epoch_len: u64,
        every: u64,
        started: Instant,
    ) -> Result<Log> {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4))
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template(
            "{wide_bar:.cyan/238} step {pos}/{len}  {elapsed_precise} elapsed, {eta_precise} to go",
        );
        bar.set_style(
            style
                .expect("the template is a constant")
                .progress_chars("━╸─"),
        );
        Ok(Log {
            rows: Rows::open(folder, tag, first, epoch_len)?,
            bar,
            every,
            interval: Sums::default(),
            total: Sums::default(),
            started,
            start_up: None,
            paused: Vec::new(),
        })
    }

    /// A message on stderr that does not tear the progress bar.
    pub fn say(&self, message: impl fmt::Display) {
        self.bar.suspend(|| eprintln!("{message}"));
    }

    /// Takes note of one step.
    pub fn step(&mut self, record: &Record) -> Result<()> {
        self.rows.write(record)?;
        let mut counted = record.clone();
        if self.start_up.is_none() {
            // What the first step waited is start-up: opening the shards, filling the ring.
            counted.step_ms -= counted.wait_ms;
            counted.wait_ms = 0.0;
            let computing = Duration::from_secs_f64(counted.step_ms / 1e3);
            self.start_up = Some(self.started.elapsed().saturating_sub(computing));
            self.bar.set_length(record.total_steps);
            self.bar.set_position(record.step);
            self.bar.reset_eta();
        }
        self.interval.add(&counted);
        self.total.add(&counted);
        self.bar.set_position(record.step + 1);
        if record.itr.is_multiple_of(self.every) || record.step + 1 == record.total_steps {
            self.say(Line {
                record,
                sums: &self.interval,
            });
            self.interval = Sums::default();
        }
        Ok(())
    }

    /// Handles to the files of rows, for making these durable before a checkpoint that says their steps are done.
    pub fn files(&self) -> Result<Vec<File>> {
        self.rows.files()
    }

    /// Takes note of how long training stood still for a checkpoint. No step's time contains it.
    pub fn paused(&mut self, pause: Duration) {
        self.paused.push(pause);
    }

    /// Ends the progress bar and sums the run up.
    pub fn finish(&mut self) -> Report {
        self.bar.finish_and_clear();
        Report {
            total: self.total.clone(),
            start_up: self.start_up.unwrap_or_else(|| self.started.elapsed()),
            paused: std::mem::take(&mut self.paused),
        }
    }
}

/// The line of an interval.
struct Line<'a> {
    record: &'a Record,
    sums: &'a Sums,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { record, sums } = self;
        write!(
            out,
            "[{}, {:5}] loss {:.4}  masks {:.1} {:.1}  lr {:.2e}  wd {:.2e}  ema {:.5}  {:.1} images/s  {:.1} ms/step  waiting {:.1} %",
            record.epoch,
            record.itr,
            sums.loss / (sums.steps - sums.skipped),
            sums.context / sums.steps,
            sums.target / sums.steps,
            record.lr,
            record.weight_decay,
            record.momentum,
            sums.images_per_s(),
            sums.step_ms / sums.steps,
            sums.waiting(),
        )
    }
}

/// The sum of a run, printed at its end.
pub struct Report {
    total: Sums,
    start_up: Duration,
    paused: Vec<Duration>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        write!(
            out,
            "{:.0} steps, {:.0} images in {:.1} s: {:.1} images/s, {:.1} ms/step; waited for data {:.2} % of it ({:.3} s); start-up {:.1} s",
            total.steps,
            total.images,
            total.step_ms / 1e3,
            total.images_per_s(),
            total.step_ms / total.steps.max(1.0),
            total.waiting(),
            total.wait_ms / 1e3,
            self.start_up.as_secs_f64(),
        )?;
        if !self.paused.is_empty() {
            write!(
                out,
                "; {} checkpoint(s) paused it {:.3} s in all",
                self.paused.len(),
                self.paused.iter().sum::<Duration>().as_secs_f64(),
            )?;
        }
        if total.skipped > 0.0 {
            write!(out, "; {} step(s) skipped", total.skipped)?;
        }
        if total.replaced > 0 {
            write!(out, "; {} damaged samples replaced", total.replaced)?;
        }
        Ok(())
    }
}

/// The two files with a row per step.
struct Rows {
    csv: File,
    csv_path: PathBuf,
    json: File,
    json_path: PathBuf,
}

impl Rows {
    /// Opens the files for appending, after cutting the rows of step `first` and later, and a torn last line.
    fn open(folder: &Path, tag: &str, first: u64, epoch_len: u64) -> Result<Rows> {
        let csv_path = folder.join(format!("{tag}_r0.csv"));
        let json_path = folder.join(format!("{tag}_r0.jsonl"));
        cut(&csv_path, &format!("{COLUMNS}\n"), |line| {
            if line == COLUMNS {
                return true;
            }
            csv_step(line, epoch_len).is_some_and(|step| step < first)
        })?;
        cut(&json_path, "", |line| {
            serde_json::from_str::<Record>(line).is_ok_and(|record| record.step < first)
        })?;
        let append = |path: &Path| {
            let file = OpenOptions::new().append(true).open(path);
            file.with_context(|| format!("{}", path.display()))
        };
        Ok(Rows {
            csv: append(&csv_path)?,
            csv_path,
            json: append(&json_path)?,
            json_path,
        })
    }

    /// One write per row: a reader that follows the file sees whole rows.
    fn write(&mut self, record: &Record) -> Result<()> {
        // The official column is the time of the computation alone.
        let compute_ms = (record.step_ms - record.wait_ms).max(0.0) as u64;
        let row = format!(
            "{},{},{:.5},{:.5},{:.5},{compute_ms}\n",
            record.epoch, record.itr, record.loss, record.context_len, record.target_len
        );
        self.csv
            .write_all(row.as_bytes())
            .with_context(|| format!("{}", self.csv_path.display()))?;
        let mut row = serde_json::to_string(record).expect("a record of numbers always serialises");
        row.push('\n');
        self.json
            .write_all(row.as_bytes())
            .with_context(|| format!("{}", self.json_path.display()))
    }

    fn files(&self) -> Result<Vec<File>> {
        [(&self.csv, &self.csv_path), (&self.json, &self.json_path)]
            .into_iter()
            .map(|(file, path)| {
                file.try_clone()
                    .with_context(|| format!("{}", path.display()))
            })
            .collect()
    }
}

/// The 0-based step of a row of the official log.
fn csv_step(line: &str, epoch_len: u64) -> Option<u64> {
    let mut fields = line.split(',');
    let epoch: u64 = fields.next()?.parse().ok()?;
    let itr: u64 = fields.next()?.parse().ok()?;
    Some(epoch.checked_sub(1)? * epoch_len + itr)
}

/// Keeps the whole lines of `path` that `keep` accepts, or writes `fresh` where there is no file yet. The new content
/// is written aside and renamed over, so that a crash here loses nothing.
fn cut(path: &Path, fresh: &str, keep: impl Fn(&str) -> bool) -> Result<()> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let new: String = match &old {
        None => fresh.to_owned(),
        Some(text) if text.is_empty() => fresh.to_owned(),
        Some(text) => text
            .split_inclusive('\n')
            .filter(|line| line.strip_suffix('\n').is_some_and(&keep))
            .collect::<String>(),
    };
    if old.as_deref() != Some(&new) {
        crate::checkpoint::write_durably(path, new.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record {
            step,
            total_steps: 20,
            epoch: step / 5 + 1,
            itr: step % 5,
            loss: 0.123456789 + step as f64,
            gradient_norm: 0.5,
            skipped: false,
            context_len: 12.0,
            target_len: 9.5,
            lr: 1e-3,
            weight_decay: 0.04,
            momentum: 0.996,
            images: 32,
            replaced: 0,
            step_ms: 20.9,
            wait_ms: 0.5,
            images_per_s: 1600.0,
        }
    }

    #[test]
    fn rows_have_the_official_form() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), "jepa", 0, 5).unwrap();
        rows.write(&record(7)).unwrap();
        let text = std::fs::read_to_string(folder.path().join("jepa_r0.csv")).unwrap();
        assert_eq!(
            text,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\n2,2,7.12346,12.00000,9.50000,20\n"
        );
    }

    #[test]
    fn resuming_cuts_rows_beyond_the_checkpoint_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), "jepa", 0, 5).unwrap();
        for step in 0..9 {
            rows.write(&record(step)).unwrap();
        }
        rows.csv.write_all(b"2,9,0.1").unwrap();
        rows.json.write_all(b"{\"step\":9,\"lo").unwrap();
        drop(rows);
        let mut rows = Rows::open(folder.path(), "jepa", 6, 5).unwrap();
        rows.write(&record(6)).unwrap();
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

    #[test]
    fn the_line_gives_means_over_its_interval() {
        let mut sums = Sums::default();
        sums.add(&record(0));
        sums.add(&record(1));
        let line = Line {
            record: &record(1),
            sums: &sums,
        }
        .to_string();
        assert!(
            line.starts_with("[1,     1] loss 0.6235  masks 12.0 9.5  lr 1.00e-3  wd 4.00e-2"),
            "{line}"
        );
        assert!(line.ends_with("20.9 ms/step  waiting 2.4 %"), "{line}");
    }
}
