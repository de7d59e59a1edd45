//! Pictures of what a run wrote, made from its log.

pub mod curves;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use shardtool::Escaped;

use crate::observe::{self, Record};

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
    /// There is no log.
    #[error(
        "{}: no *_r0.jsonl log; is this a run directory (logging.folder)?",
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
    /// The drawing library failed.
    #[error("cannot draw: {cause}")]
    Draw {
        /// What it says.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Returns the steps of a run, in order, as its JSONL log in `run` holds them.
///
/// # Errors
/// If there is no log, or no step in it. Rows that a crash tore off are skipped, never guessed.
pub fn steps(run: &Path) -> Result<Vec<Record>, Error> {
    let path = log_of(run)?;
    let file = named(&path, File::open(&path))?;
    let mut records = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = named(&path, line)?;
        // The last line of a run that was killed may be torn, and a skipped step has no loss to draw.
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if !record.skipped => records.push(record),
            _ => {}
        }
    }
    if records.is_empty() {
        return Err(Error::NoSteps { path });
    }
    Ok(records)
}

/// Returns the JSONL log of a run directory. A path to a log itself is taken as it is.
fn log_of(run: &Path) -> Result<PathBuf, Error> {
    if run.is_file() {
        return Ok(run.to_owned());
    }
    let mut logs = named(run, observe::logs_in(run))?;
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
