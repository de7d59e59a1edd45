//! What can be wrong with a checkpoint, or with writing one.

use std::io;
use std::path::{Path, PathBuf};

use shardtool::Escaped;

/// The reason why a checkpoint could not be written, found or taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused: a full disk, no permission, a failing device.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The directory of the checkpoints is a link, or no directory.
    #[error(
        "{}: is a link, or no directory; checkpoints are written and removed in the run directory itself: let \
         logging.folder lead to where there is room",
        Escaped::new(path)
    )]
    NotPlain {
        /// The directory.
        path: PathBuf,
    },
    /// There is neither a checkpoint nor a run directory with one.
    #[error(
        "{}: neither a checkpoint (checkpoint.json is missing) nor a run directory with one",
        Escaped::new(path)
    )]
    Missing {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A file of the official code, or weights in another program's format, which have to be imported.
    #[error(
        "{0}: a file of another program, no checkpoint of ours: import it first, with \
         `trainer import {0} --config FILE`, or with --start-over as well to take its weights alone",
        Escaped::new(path)
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
    },
    /// A file is not what was written, or is missing.
    #[error("{}: {reason}", Escaped::new(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A layout that this program does not know.
    #[error(
        "{}: checkpoint version {}, this trainer reads {known}",
        Escaped::new(path),
        found.map_or("missing".to_owned(), |version| version.to_string())
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has, if it has one.
        found: Option<u64>,
        /// The version that is read.
        known: u32,
    },
    /// No checkpoint of a run is whole.
    #[error(
        "{}: all {} checkpoints are damaged:\n  {}",
        Escaped::new(folder),
        faults.len(),
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    AllDamaged {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong with each, latest first.
        faults: Vec<Error>,
    },
    /// The tensors do not fit the networks: other names, sizes or types.
    #[error("{}: {cause}", Escaped::new(path))]
    Unfit {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        cause: crate::Error,
    },
    /// A checkpoint in writing failed.
    #[error("cannot write the checkpoint {}: {cause}", Escaped::new(path))]
    Unwritten {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        cause: Box<Error>,
    },
    /// So many checkpoints failed in a row that the run ends.
    #[error("{attempts} checkpoints failed in a row: {cause}")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// Why the last one failed.
        cause: Box<Error>,
    },
    /// The training state cannot be copied to host memory.
    #[error("cannot copy the training state for a checkpoint: {0}")]
    Snapshot(crate::Error),
}

impl Error {
    pub(super) fn io(path: &Path, cause: io::Error) -> Error {
        Error::Io {
            path: path.to_owned(),
            cause,
        }
    }

    pub(super) fn damaged(path: &Path, reason: impl ToString) -> Error {
        Error::Damaged {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Tells whether the disk, or the user's share of it, is full.
    pub(super) fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { cause, .. } => matches!(
                cause.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Error::Unwritten { cause, .. } => cause.is_disk_full(),
            _ => false,
        }
    }

    /// Adds what to do about a checkpoint that cannot be taken up, for a message.
    pub fn with_recovery_hint(&self) -> String {
        match self {
            // Whole, and not to be gone on from in this way.
            Error::Unfit {
                cause: crate::Error::Positions { .. },
                ..
            } => self.to_string(),
            Error::Damaged { .. } | Error::Unfit { .. } => format!(
                "{self}; --resume=last-good sets a damaged checkpoint aside and continues from the one before"
            ),
            _ => self.to_string(),
        }
    }
}
