//! Why the networks of a checkpoint cannot be evaluated.

use std::path::PathBuf;

use shardtool::Escaped;

use crate::{checkpoint, config};

/// The reason why there are no features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is missing, damaged or of another version, or its weights do not fit its configuration.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The checkpoint holds no whole configuration, as imported weights may, so its sizes are not known.
    #[error("{}: {cause}", Escaped::new(path))]
    Config {
        /// The checkpoint.
        path: PathBuf,
        /// What is missing or wrong.
        cause: Box<config::Error>,
    },
    /// The device failed, or the images are not made of whole patches.
    #[error(transparent)]
    Compute(#[from] crate::Error),
}
