//! The `checkpoint` section: keys the official files do not have.

use serde::{Deserialize, Serialize};

use super::Error;

/// The `checkpoint` section: keys that the official files do not have, of when to write checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Epochs between two checkpoints; 0 leaves them to `every_steps` or `every_minutes`.
    pub every_epochs: u64,
    /// Minutes between two checkpoints of `every_epochs` at least: those of very short epochs would fill a disk.
    pub min_minutes: f64,
    /// Steps between two checkpoints, besides those of the epochs. By default none.
    pub every_steps: Option<u64>,
    /// Minutes after the last checkpoint at which another is written. By default none.
    pub every_minutes: Option<f64>,
    /// Number of the latest checkpoints to keep.
    pub keep: usize,
    /// Epochs between two checkpoints that are kept for good; 0 for none. The official code keeps every 50th as well.
    pub keep_every_epochs: u64,
    /// Minutes between two checkpoints that are kept for good at least; a multiple that comes sooner is passed over.
    pub keep_min_minutes: f64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            every_epochs: 1,
            min_minutes: 1.0,
            every_steps: None,
            every_minutes: None,
            keep: 2,
            keep_every_epochs: 50,
            keep_min_minutes: 5.0,
        }
    }
}

impl Checkpoint {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[
        "every_epochs",
        "min_minutes",
        "every_steps",
        "every_minutes",
        "keep",
        "keep_every_epochs",
        "keep_min_minutes",
    ];

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.every_epochs == 0 && self.every_steps.is_none() && self.every_minutes.is_none() {
            let reason = "0, and neither checkpoint.every_steps nor checkpoint.every_minutes is set; a run always writes \
                          checkpoints";
            return Err(Error::value("checkpoint.every_epochs", reason));
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
        for (key, minutes) in [
            ("checkpoint.min_minutes", self.min_minutes),
            ("checkpoint.keep_min_minutes", self.keep_min_minutes),
        ] {
            if !(minutes.is_finite() && minutes >= 0.0) {
                let reason = format!("{minutes} is not a number of at least 0");
                return Err(Error::value(key, reason));
            }
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
