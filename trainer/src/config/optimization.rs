//! The official `optimization` section, and `global_batch`, which is ours.

use serde::{Deserialize, Serialize};

use super::Error;

/// The official `optimization` section, and `global_batch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimization {
    /// First and last momentum of the target encoder.
    pub ema: [f64; 2],
    /// Epochs of the run.
    pub epochs: u64,
    /// Last learning rate.
    pub final_lr: f64,
    /// Last weight decay.
    pub final_weight_decay: f64,
    /// Images per optimizer step, a key of ours; `data.batch_size` times the number of ranks if absent. The loader reads
    /// it: [`LoaderConfig::global_batch`](loader::LoaderConfig).
    #[serde(default)]
    pub global_batch: Option<u64>,
    /// Stretches the schedules beyond the end of the run.
    #[serde(default = "one")]
    pub ipe_scale: f64,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Learning rate before the warm-up.
    pub start_lr: f64,
    /// Epochs of warm-up; may be a fraction.
    pub warmup: f64,
    /// First weight decay.
    pub weight_decay: f64,
}

fn one() -> f64 {
    1.0
}

impl Optimization {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.epochs == 0 {
            return Err(Error::value(
                "optimization.epochs",
                "0 epochs train nothing",
            ));
        }
        if !self
            .ema
            .iter()
            .all(|momentum| (0.0..=1.0).contains(momentum))
        {
            return Err(Error::value(
                "optimization.ema",
                format!("{:?} is outside 0..=1", self.ema),
            ));
        }
        for (key, value) in [
            ("optimization.lr", self.lr),
            ("optimization.start_lr", self.start_lr),
            ("optimization.final_lr", self.final_lr),
            ("optimization.weight_decay", self.weight_decay),
            ("optimization.final_weight_decay", self.final_weight_decay),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(Error::value(
                    key,
                    format!("{value} is not a number of 0 or more"),
                ));
            }
        }
        Ok(())
    }
}
