//! What can go wrong with a pipeline, before it runs.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

use crate::memory;
use crate::ring;

/// The reason why a pipeline could not be started or attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data set cannot be opened.
    #[error(transparent)]
    Dataset(#[from] shardtool::Error),
    /// The data set has no split of that name.
    #[error(
        "loader.split: {} has no split {:?}; it has: {}",
        Escaped::new(dir), Escaped::new(wanted), Escaped::new(&found.join(", "))
    )]
    NoSplit {
        /// The data set.
        dir: PathBuf,
        /// The split asked for.
        wanted: String,
        /// The splits there are.
        found: Vec<String>,
    },
    /// The ring cannot be made.
    #[error(transparent)]
    Ring(#[from] ring::Error),
    /// There is no memory for the ring.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The system gave no thread.
    #[error("cannot make {what}: {cause}")]
    System {
        /// What was asked for.
        what: String,
        /// The system's answer.
        cause: io::Error,
    },
}
