//! The `checkpoint` section: keys the official files do not have.

use serde::{Deserialize, Serialize};

use super::Error;

/// The `checkpoint` section: keys that the official files do not have, of when to write checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Epochs between two checkpoints.
    pub every_epochs: u64,
    /// Steps between two checkpoints, besides those of the epochs. By default none.
    pub every_steps: Option<u64>,
    /// Minutes after the last checkpoint at which another is written. By default none.
    pub every_minutes: Option<f64>,
    /// Number of the latest checkpoints to keep.
    pub keep: usize,
    /// Epochs between two checkpoints that are kept for good; 0 for none. The official code keeps every 50th as well.
    pub keep_every_epochs: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            every_epochs: 1,
            every_steps: None,
            every_minutes: None,
            keep: 2,
            keep_every_epochs: 50,
        }
    }
}

impl Checkpoint {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[
        "every_epochs",
        "every_steps",
        "every_minutes",
        "keep",
        "keep_every_epochs",
    ];

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.every_epochs == 0 {
            return Err(Error::value(
                "checkpoint.every_epochs",
                "0; a run always writes checkpoints",
            ));
        }
        if self.every_steps == Some(0) {
            return Err(Error::value(
                "checkpoint.every_steps",
                "0; leave it out for none",
            ));
        }
        if let Some(minutes) = self.every_minutes
            && !(minutes.is_finite() && minutes > 0.0)
        {
            let reason = format!("{minutes} is not a number above 0; leave it out for none");
            return Err(Error::value("checkpoint.every_minutes", reason));
        }
        if self.keep == 0 {
            return Err(Error::value(
                "checkpoint.keep",
                "0; the latest checkpoint is always kept",
            ));
        }
        Ok(())
    }
}
