//! The `eval` section: evaluation while a run trains, all off by default.

use serde::{Deserialize, Serialize};

/// The `eval` section: evaluation while a run trains, all off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eval {
    /// Train a linear head beside the encoder, on the target features of each batch, and log how often it is right.
    ///
    /// It changes no result. The labels are those of the shards; see `trainer/LEARNING.md`.
    pub online: bool,
}

impl Eval {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["online"];
}
