//! What a run keeps on disk: its directory with the configuration, the checkpoints and the log. Rank 0 alone does.

mod changes;
mod directory;
mod error;
mod keeper;

pub use changes::{Data, Terms};
pub use directory::{Begin, PARAMS, Resume, RunDir};
pub use error::Error;
pub use keeper::Keeper;
