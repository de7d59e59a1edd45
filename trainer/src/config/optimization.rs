//! The official `optimization` section, and `global_batch`, which is ours.

use serde::{Deserialize, Serialize};

use super::{Error, between};

/// The largest `epochs`: far beyond any use, and small enough that steps can be counted.
const MAX_EPOCHS: u64 = 1_000_000;

/// The largest `steps`.
const MAX_STEPS: u64 = 1_000_000_000_000;

/// The official `optimization` section, and `global_batch`: how long a run is, and its schedules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimization {
    /// Momentum of the target encoder at the start and at the end of its schedule.
    pub ema: [f64; 2],
    /// Number of epochs of the run, at most 1000000. May be left out where `steps` are given.
    #[serde(default)]
    pub epochs: u64,
    /// Learning rate at the end of the schedule.
    pub final_lr: f64,
    /// Weight decay at the end of the schedule.
    pub final_weight_decay: f64,
    /// Images of a step, a key of ours. By default `data.batch_size` times the number of ranks; fewer ranks accumulate.
    ///
    /// The loader reads it: [`LoaderConfig::global_batch`](loader::LoaderConfig).
    #[serde(default)]
    pub global_batch: Option<u64>,
    /// Length of the schedules as a multiple of the length of the run. Below 1, the run goes on at their ends.
    #[serde(default = "one")]
    pub ipe_scale: f64,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Learning rate from which the warm-up starts.
    pub start_lr: f64,
    /// Number of steps of the run in place of `epochs`, a key of ours: schedules end with them. By default none.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Number of epochs in which the learning rate rises from `start_lr` to `lr`; may be a fraction, and left out where
    /// `warmup_steps` are given.
    #[serde(default)]
    pub warmup: Option<f64>,
    /// Number of steps of the warm-up in place of `warmup`, a key of ours. By default none.
    #[serde(default)]
    pub warmup_steps: Option<u64>,
    /// Weight decay at the start of the schedule.
    pub weight_decay: f64,
}

fn one() -> f64 {
    1.0
}

impl Optimization {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];

    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(steps) = self.steps {
            between("optimization.steps", steps, 1, MAX_STEPS)?;
        } else if self.epochs == 0 {
            return Err(Error::value(
                "optimization.epochs",
                "0 or missing: without epochs or optimization.steps there is nothing to train",
            ));
        }
        if self.epochs > MAX_EPOCHS {
            let reason = format!("{} is above {MAX_EPOCHS}", self.epochs);
            return Err(Error::value("optimization.epochs", reason));
        }
        match self.warmup_steps {
            Some(steps) => between("optimization.warmup_steps", steps, 0, MAX_STEPS)?,
            None if self.warmup.is_none() => {
                let reason =
                    "missing; give the epochs of the warm-up, or optimization.warmup_steps";
                return Err(Error::value("optimization.warmup", reason));
            }
            None => {}
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
        if !(self.ipe_scale.is_finite() && self.ipe_scale > 0.0) {
            let reason = format!("{} is not a number above 0", self.ipe_scale);
            return Err(Error::value("optimization.ipe_scale", reason));
        }
        for (key, value) in [
            ("optimization.warmup", self.warmup.unwrap_or(0.0)),
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
