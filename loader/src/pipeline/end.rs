//! How the filling of a ring ends.

use shardtool::Escaped;

use crate::ring;

/// How an attachment came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every step of the share is published.
    Finished,
    /// The consumer has left the ring.
    Left,
    /// It was told to stop, or the pipeline has ended.
    Stopped,
    /// It cannot go on; the consumer finds the ring failed.
    Failed(Failure),
}

/// The reason why a ring could not be filled any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A sample and all that could stand in for it are damaged: the data set is gone.
    #[error(
        "the sample at position {position} of step {step} and {replacements} replacements are all damaged; the last: {last}"
    )]
    AllDamaged {
        /// The step.
        step: u64,
        /// The position in the global batch.
        position: u64,
        /// How many replacements were tried.
        replacements: u32,
        /// What is wrong with the last of them.
        last: String,
    },
    /// A worker met a fault of this program.
    #[error(
        "a worker panicked on {what} {number} of step {step}: {}",
        Escaped::new(message)
    )]
    Panic {
        /// What it worked on.
        what: &'static str,
        /// The number of that.
        number: u64,
        /// The step.
        step: u64,
        /// What the panic said.
        message: String,
    },
    /// The ring is at fault.
    #[error(transparent)]
    Ring(#[from] ring::Error),
}
