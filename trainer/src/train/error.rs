//! Why a run ends before its end.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

use crate::{checkpoint, config, distributed, run, source};

/// The reason why a run could not begin, or ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The networks, the optimiser or the device: too little memory, above all.
    #[error(transparent)]
    Compute(#[from] crate::Error),
    /// The other ranks, or the way to them.
    #[error(transparent)]
    Ranks(distributed::Error),
    /// No more groups come.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The checkpoint to begin with.
    #[error("{}", .0.with_recovery_hint())]
    Checkpoint(checkpoint::Error),
    /// The run directory, or checkpoints that cannot be written.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A step was not finite, and what there is to know of it could not be written.
    #[error(
        "step {step} is not finite, and its dump failed: {}: {cause}",
        Escaped::new(path)
    )]
    Dump {
        /// The step.
        step: u64,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl From<distributed::Error> for Error {
    fn from(error: distributed::Error) -> Error {
        match error {
            // This rank's own.
            distributed::Error::Compute(cause) => Error::Compute(cause),
            error => Error::Ranks(error),
        }
    }
}

// Written out, because the derive would make it the source as well, and so a cause that is said twice.
impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        Error::Checkpoint(error)
    }
}
