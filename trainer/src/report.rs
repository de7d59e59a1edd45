//! Pictures and pages of what runs wrote, made from their logs.

mod columns;
pub mod curves;
mod facts;
mod follow;
pub mod page;
pub mod server;
mod thin;

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use shardtool::{Escaped, regular};

use crate::observe::{self, OfficialRow, Record};

/// The file of a run's evaluations: a row each, as `{"step": 500, "epoch": 2, "scores": {"20-nn top-1": 31.0}}`.
pub const EVALUATIONS: &str = "evaluations.jsonl";

/// The reason why a run cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A picture of this kind is not drawn.
    #[error(
        "{}: a PNG file is written; give a name that ends in .png",
        Escaped::new(path)
    )]
    NotPng {
        /// The name given.
        path: PathBuf,
    },
    /// A page of this kind is not written.
    #[error(
        "{}: an HTML page is written; give a name that ends in .html",
        Escaped::new(path)
    )]
    NotHtml {
        /// The name given.
        path: PathBuf,
    },
    /// There is no log.
    #[error(
        "{}: no *_r0.jsonl or *_r0.csv log; is this a run directory (logging.folder)?",
        Escaped::new(path)
    )]
    NoLog {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// There are several logs.
    #[error(
        "{}: several logs; name one of them instead of the directory",
        Escaped::new(path)
    )]
    SeveralLogs {
        /// Where they are.
        path: PathBuf,
    },
    /// The log has no step yet.
    #[error("{}: no steps in this log yet", Escaped::new(path))]
    NoSteps {
        /// The log.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error(
        "{}: not a row of it is one of a run's JSONL log or of the official CSV log",
        Escaped::new(path)
    )]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// No step has a loss.
    #[error(
        "{}: all {skipped} steps were skipped for a loss or gradient that is not finite: nothing to draw",
        Escaped::new(path)
    )]
    AllSkipped {
        /// The log.
        path: PathBuf,
        /// How many.
        skipped: u64,
    },
    /// The drawing library failed.
    #[error("cannot draw: {cause}")]
    Draw {
        /// What it says.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What is drawn of a run.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the run is called.
    pub name: String,
    /// Steps of the whole run, where the log says so.
    pub total_steps: Option<u64>,
    /// Its steps in order; there is at least one.
    pub points: Vec<Point>,
}

/// What is drawn of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// 0-based number of the step in the run.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// What the official log does not have.
    pub more: Option<More>,
}

/// What our own log has beside the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct More {
    /// Learning rate of the step.
    pub lr: f64,
    /// Momentum of the target encoder's update.
    pub momentum: f64,
    /// Images per second of wall time.
    pub images_per_s: f64,
}

/// Reads the log of a run: a run directory, a JSONL log or an official CSV.
///
/// Rows that a crash tore off are skipped, never guessed; of a step that stands there twice, as in the official code's
/// logs after a restart, the later row counts.
///
/// # Errors
/// If there is no log, or no step in it.
pub fn read(run: &Path) -> Result<Curve, Error> {
    let path = log_of(run)?;
    let file = named(&path, regular::open(&path))?;
    let (mut rows, mut official, mut total_steps) = (BTreeMap::new(), Vec::new(), None);
    let (mut skipped, mut foreign) = (0, 0u64);
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    while named(&path, follow::next_line(&mut lines, &mut line))? {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim().trim_start_matches('\u{feff}');
        if let Ok(record) = serde_json::from_str::<Record>(text) {
            total_steps = Some(record.total_steps);
            if record.skipped {
                skipped += 1; // it has no loss to draw
                continue;
            }
            let more = More {
                lr: record.lr,
                momentum: record.momentum,
                images_per_s: record.images_per_s,
            };
            rows.insert(record.step, (record.loss, Some(more)));
        } else if let Some(row) = OfficialRow::parse(text) {
            official.push(row);
        } else if !text.is_empty() && !OfficialRow::is_header(text) {
            foreign += 1;
        }
    }
    // The length of an epoch stands nowhere in the official log but in its longest one.
    let epoch_len = official
        .iter()
        .map(|row| row.itr.saturating_add(1))
        .max()
        .unwrap_or(1);
    for row in &official {
        let epochs = row.epoch.saturating_sub(1);
        let step = epochs.saturating_mul(epoch_len).saturating_add(row.itr);
        rows.insert(step, (row.loss, None));
    }
    if rows.is_empty() {
        return Err(match (skipped, foreign) {
            (0, 0) => Error::NoSteps { path },
            (0, _) => Error::NotALog { path },
            (skipped, _) => Error::AllSkipped { path, skipped },
        });
    }
    let points = rows
        .into_iter()
        .map(|(step, (loss, more))| Point { step, loss, more });
    Ok(Curve {
        name: name_of(run),
        total_steps,
        points: points.collect(),
    })
}

/// Returns what a run is called: its directory, or its log where that was named.
fn name_of(run: &Path) -> String {
    let full = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let name = full.file_name().unwrap_or(full.as_os_str());
    Escaped::new(name).to_string()
}

/// Returns the log of a run directory, ours before the official one. A path to a log itself is taken as it is.
fn log_of(run: &Path) -> Result<PathBuf, Error> {
    if !run.is_dir() {
        return Ok(run.to_owned());
    }
    let mut logs = named(run, observe::logs_in(run, "jsonl"))?;
    if logs.is_empty() {
        logs = named(run, observe::logs_in(run, "csv"))?;
    }
    match logs.len() {
        0 => Err(Error::NoLog {
            path: run.to_owned(),
        }),
        1 => Ok(logs.remove(0)),
        _ => Err(Error::SeveralLogs {
            path: run.to_owned(),
        }),
    }
}

/// Puts the path in front of what the system says.
fn named<T>(path: &Path, outcome: io::Result<T>) -> Result<T, Error> {
    outcome.map_err(|cause| Error::Io {
        path: path.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_log_that_never_ends_is_refused_and_a_line_without_end_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(read(&path), Err(Error::Io { .. })));
        let row = "1,0,0.5,1.0,1.0,20\n";
        let (_folder, path) = log(&format!(
            "{row}{}\n1,1,0.4,1.0,1.0,20\n",
            "9".repeat(3 << 20)
        ));
        assert_eq!(read(&path).unwrap().points.len(), 2);
    }

    #[test]
    fn the_official_log_is_read_through_restarts() {
        let header = "epoch,itr,loss,mask-A,mask-B,time (ms)\n";
        let (folder, path) = log(&format!(
            "{header}1,0,0.5,1.0,1.0,20\n1,1,0.4,1.0,1.0,20\n2,0,0.9,1.0,1.0,20\n\
             {header}2,0,0.3,1.0,1.0,20\n2,1,0.2,1.0,1.0,20\n2,"
        ));
        for place in [folder.path(), &path] {
            let curve = read(place).unwrap();
            let points: Vec<_> = curve
                .points
                .iter()
                .map(|point| (point.step, point.loss))
                .collect();
            assert_eq!(points, [(0, 0.5), (1, 0.4), (2, 0.3), (3, 0.2)]);
        }
        assert_eq!(read(&path).unwrap().name, "jepa_r0.csv");
    }

    #[test]
    fn what_has_nothing_to_draw_is_told_apart() {
        let skipped = r#"{"step":0,"total_steps":2,"epoch":1,"itr":0,"loss":null,"skipped":true,"context_len":1.0,"#;
        let skipped = format!(
            "{skipped}{}",
            r#""target_len":1.0,"lr":1.0,"weight_decay":1.0,"momentum":1.0,"images":1,"replaced":0,"step_ms":1.0,"wait_ms":1.0,"images_per_s":1.0}"#
        );
        for (text, said) in [
            ("", "no steps in this log yet"),
            (
                "epoch,itr,loss,mask-A,mask-B,time (ms)\n",
                "no steps in this log yet",
            ),
            ("\u{1}PNG\nsomething else\n", "not a row of it"),
            (&skipped, "all 1 steps were skipped"),
        ] {
            let (_folder, path) = log(text);
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
        let empty = tempfile::tempdir().unwrap();
        let message = read(empty.path()).unwrap_err().to_string();
        assert!(
            message.contains("no *_r0.jsonl or *_r0.csv log"),
            "{message}"
        );
    }
}
