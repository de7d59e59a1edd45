//! Why a job cannot be started, or not be kept going.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

/// The reason why a job could not be started, or not be kept going.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not there, or is none.
    #[error("cannot start {}: {cause}", Escaped::new(program))]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The system refused what supervising needs.
    #[error("{doing}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// The loader says that it cannot run, and why.
    #[error("the loader cannot run (exit code 2, see its message above)")]
    LoaderCannotRun {
        /// Another one ran before it.
        was_running: bool,
    },
    /// The loader ends again and again.
    #[error("the loader ended {times} times in a row, the last time with {last}")]
    LoaderKeepsEnding {
        /// How often.
        times: u32,
        /// How it ended last.
        last: String,
    },
}

impl Error {
    /// Returns a function that makes an error of the system's answer to `doing`.
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::System { doing, cause }
    }

    /// Tells whether the job had begun, so that starting it again would go on.
    pub fn is_midway(&self) -> bool {
        match self {
            Error::LoaderKeepsEnding { .. } => true,
            Error::LoaderCannotRun { was_running } => *was_running,
            Error::Start { .. } | Error::System { .. } => false,
        }
    }
}
