//! Why a run cannot begin or continue in a directory.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

use crate::checkpoint::Change;
use crate::{checkpoint, config, exchange, observe};

/// The reason why a run cannot begin or continue in a directory, or can keep nothing there any more.
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
    /// Another trainer writes there.
    #[error(
        "{}: in use by another trainer ({})",
        Escaped::new(path),
        Escaped::new(holder)
    )]
    InUse {
        /// The run directory.
        path: PathBuf,
        /// What the other one wrote about itself.
        holder: String,
    },
    /// The lock cannot be taken.
    #[error("{0}")]
    Lock(shardtool::disk::LockError),
    /// A fresh start was asked for, and there is a run.
    #[error(
        "{}: holds a run already; continue it with --resume auto, or give another logging.folder",
        Escaped::new(path)
    )]
    HoldsRun {
        /// The run directory.
        path: PathBuf,
    },
    /// The configuration or the data are not those of the run.
    #[error(
        "{}: this run was begun with other values:\n  {}\n{advice}",
        Escaped::new(path),
        lines(changes)
    )]
    OtherRun {
        /// The checkpoint or the stored configuration that disagrees.
        path: PathBuf,
        /// What differs.
        changes: Vec<Change>,
        /// How the run can go on.
        advice: String,
    },
    /// The program that wrote the checkpoint drew other samples from the same configuration.
    #[error(
        "{}: made under another sampling law: the hash of its configuration was {then:016x} and is {now:016x}",
        Escaped::new(path)
    )]
    OtherLaw {
        /// The checkpoint.
        path: PathBuf,
        /// The hash in the checkpoint.
        then: u64,
        /// The hash that this program makes of the checkpoint's configuration.
        now: u64,
    },
    /// The run went on beyond the checkpoint to continue from.
    #[error(
        "{}: this run has gone on to step {newest} ({}); to branch off at step {step}, give another logging.folder",
        Escaped::new(path),
        Escaped::new(checkpoint)
    )]
    WentOn {
        /// The run directory.
        path: PathBuf,
        /// Step of its newest checkpoint.
        newest: u64,
        /// That checkpoint.
        checkpoint: PathBuf,
        /// Step of the one to continue from.
        step: u64,
    },
    /// An import without a configuration, which cannot be continued from.
    #[error(
        "{}: weights that were imported without a configuration; to continue from them, \
         import them again with --config",
        Escaped::new(path)
    )]
    WeightsOnly {
        /// The checkpoint.
        path: PathBuf,
    },
    /// `meta.load_checkpoint` asks for a checkpoint, and there is none.
    #[error(
        "meta.load_checkpoint: true, but {} holds neither a checkpoint of ours nor {}; --resume auto begins at step 0 \
         where there is none",
        Escaped::new(path),
        Escaped::new(official)
    )]
    NothingToLoad {
        /// The run directory.
        path: PathBuf,
        /// The official file looked for.
        official: PathBuf,
    },
    /// The checkpoint that an official key names cannot be taken up.
    #[error("{key}: {cause}")]
    Named {
        /// The key.
        key: &'static str,
        /// Why.
        cause: Box<Error>,
    },
    /// A stored configuration cannot be read.
    #[error("stored configuration: {cause}")]
    Stored {
        /// The file or checkpoint.
        path: PathBuf,
        /// What is wrong with it, with the file.
        cause: Box<config::Error>,
    },
    /// The configuration of this run.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A checkpoint.
    #[error("{}", .0.with_recovery_hint())]
    Checkpoint(checkpoint::Error),
    /// The import of an official checkpoint.
    #[error(transparent)]
    Import(#[from] exchange::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] observe::Error),
}

/// Returns a line for each change, indented but for the first.
fn lines(changes: &[Change]) -> String {
    Vec::from_iter(changes.iter().map(ToString::to_string)).join("\n  ")
}

// Written out, because the derive would make it the source as well, and so a cause that is said twice.
impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        Error::Checkpoint(error)
    }
}
