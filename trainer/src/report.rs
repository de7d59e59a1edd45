//! Pictures of what a run wrote.

pub mod curves;

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

/// Why a run cannot be shown.
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
    #[error("cannot draw: {0}")]
    Draw(String),
}
