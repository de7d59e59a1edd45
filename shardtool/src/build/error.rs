//! Why no dataset was built.

use std::io;
use std::path::PathBuf;

use super::Note;
use crate::{Error as DatasetError, Escaped, source};

/// The reason why no dataset was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source cannot be listed.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Reading or writing failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The source has no image.
    #[error("{}: no image files found", Escaped::new(.0))]
    NoImages(PathBuf),
    /// The source has nothing but what cannot be in a dataset.
    #[error(
        "{}: no images: {found} files or folders left out; the first: {first}",
        Escaped::new(path)
    )]
    AllLeftOut {
        /// Where the source is.
        path: PathBuf,
        /// Number of what was left out.
        found: usize,
        /// Path and reason of the first.
        first: Note,
    },
    /// None of the images could be kept.
    #[error(
        "{}: none of {found} image files could be kept; the first: {first}",
        Escaped::new(path)
    )]
    NoneKept {
        /// Where the source is.
        path: PathBuf,
        /// Number of candidates.
        found: u64,
        /// Path and reason of the first.
        first: Note,
    },
    /// A file was rejected, and the build was told to stop at the first.
    #[error("{}: {reason}", Escaped::new(path))]
    Rejected {
        /// The source file.
        path: PathBuf,
        /// Why it cannot be kept.
        reason: String,
    },
    /// The output exists and is another dataset.
    #[error(
        "{}: exists already and {difference}; --force replaces it, --out names another place",
        Escaped::new(path)
    )]
    Exists {
        /// The output directory.
        path: PathBuf,
        /// In what it differs from what would be built.
        difference: Difference,
    },
    /// The output exists and is no dataset; it is never deleted.
    #[error(
        "{}: exists already and is not a dataset; name another place with --out",
        Escaped::new(path)
    )]
    Foreign {
        /// The output path.
        path: PathBuf,
    },
    /// The output is the source, holds it, or lies in it.
    #[error(
        "{}: {relation}: no dataset can be written there; name another place with --out",
        Escaped::new(path)
    )]
    AroundSource {
        /// The output path.
        path: PathBuf,
        /// How it lies to the source.
        relation: &'static str,
    },
    /// The build has failed, but shards are finished.
    #[error(
        "{cause}; {shards} finished shard(s) stay in {}: the same command goes on from there",
        Escaped::new(dir)
    )]
    Unfinished {
        /// What went wrong.
        cause: Box<Error>,
        /// The directory with what is finished.
        dir: PathBuf,
        /// How many shards are.
        shards: usize,
    },
    /// Another build or repair is writing the same dataset.
    #[error("{}: another build or repair is writing here", Escaped::new(.0))]
    Busy(PathBuf),
}

/// In what a dataset that exists differs from the one that would be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// It cannot be opened.
    #[error("is damaged ({0})")]
    Damaged(DatasetError),
    /// Its source had other files, other sizes of them, or other labels.
    #[error("was built from other files")]
    Files,
    /// The files have the same names and sizes, but some were changed after the build had begun.
    #[error("was built before its source was changed")]
    Changed,
    /// It was built with other options.
    #[error("was built with other options")]
    Options,
    /// Its report cannot be read.
    #[error("has no report ({0})")]
    NoReport(io::Error),
    /// Its report is not one of this program.
    #[error("has a damaged report ({0})")]
    DamagedReport(serde_json::Error),
}

impl Error {
    /// Tells if the disk, or the user's share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        let cause = match self {
            Error::Unfinished { cause, .. } => return cause.is_disk_full(),
            Error::Dataset(DatasetError::Io { cause, .. }) => cause,
            _ => return false,
        };
        let kind = cause.kind();
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}
