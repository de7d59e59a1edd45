//! Why a loader stops serving before it is told to.

use std::io;

use crate::pipeline::Failure;

/// The reason why a loader cannot serve, or not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused what serving needs.
    #[error("{doing}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// A ring failed, and the launcher will start a loader in this one's place.
    #[error("a ring failed: {0}")]
    RingFailed(Failure),
    /// A connection that the launcher sent did not arrive. It sends another to a new loader.
    #[error("a connection from the launcher is lost: {cause}")]
    ConnectionLost {
        /// The system's answer.
        cause: io::Error,
    },
}

impl Error {
    /// Returns a conversion from the system's answer to `doing`.
    pub(super) fn system(doing: &'static str) -> impl Fn(io::Error) -> Error {
        move |cause| Error::System { doing, cause }
    }

    /// Tells whether a loader that is started in this one's place can go on.
    pub fn is_midway(&self) -> bool {
        !matches!(self, Error::System { .. })
    }
}
