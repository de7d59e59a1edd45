//! Why a source cannot be listed.

use std::io;
use std::path::{Path, PathBuf};

use super::LabelFault;
use crate::Escaped;

/// The reason why a source cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was being done, as a verb phrase: "open", "list".
        action: &'static str,
        /// The system's reason.
        cause: io::Error,
    },
    /// The path does not lead to a folder.
    #[error("{}: not a folder", Escaped::new(.0))]
    NotAFolder(PathBuf),
    /// The file is of no kind that images are read from.
    #[error("{}: {reason}", Escaped::new(path))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it is, and what would help.
        reason: String,
    },
    /// An archive or table violates its format.
    #[error("{}: {reason}", Escaped::new(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// Classes contradict each other.
    #[error("{}: {reason}", Escaped::new(path))]
    Classes {
        /// The source.
        path: PathBuf,
        /// What contradicts what.
        reason: String,
    },
    /// A line of a labels file cannot be understood.
    #[error("{}:{line}: {fault}", Escaped::new(path))]
    Labels {
        /// The labels file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong with the line.
        fault: LabelFault,
    },
}

impl Error {
    /// Returns a closure for `map_err` that adds the file and the action to a system error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io {
            path,
            action,
            cause,
        }
    }

    /// Returns a closure for `map_err` that adds the file to a reason why it cannot be read.
    pub(crate) fn damaged<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |reason| Error::Damaged {
            path,
            reason: reason.to_string(),
        }
    }
}
