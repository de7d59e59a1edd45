//! What can be wrong with weights from elsewhere, or with writing ours for others.

use std::io;
use std::path::{Path, PathBuf};

use shardtool::Escaped;

use crate::{checkpoint, config};

/// Why weights could not be imported or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The source is damaged, unsafe to read, or not what it should be.
    #[error("{}: {reason}", Escaped::new(path))]
    Refused {
        /// The source.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint to export, or the one to write.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The configuration under which training would continue.
    #[error(transparent)]
    Config(#[from] config::Error),
}

impl Error {
    /// Sorts what went wrong with `path`.
    pub(super) fn about(path: &Path, error: anyhow::Error) -> Error {
        let error = match error.downcast::<checkpoint::Error>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let error = match error.downcast::<config::Error>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let path = path.to_owned();
        match error.downcast::<io::Error>() {
            Ok(cause) => Error::Io { path, cause },
            Err(error) => Error::Refused {
                path,
                reason: format!("{error:#}"),
            },
        }
    }
}
