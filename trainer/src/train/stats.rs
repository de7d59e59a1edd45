//! What one step showed, and the record that is made of it.

use std::time::Duration;

use tch::Tensor;

use super::Run;
use crate::Error;
use crate::observe::{RECORD_VERSION, Record};
use crate::source::Group;

/// The losses, masks and times of a step.
#[derive(Debug, Default)]
pub struct StepStats {
    /// Loss of each group.
    pub losses: Vec<f64>,
    /// Sample ids of each group.
    pub(super) samples: Vec<Vec<u64>>,
    pub(super) gradient_norm: f64,
    /// Groups that a dump would show, with their numbers.
    pub(super) kept: Vec<(usize, Group)>,
    context_len: f64,
    target_len: f64,
    replaced: u64,
    waited: Duration,
}

impl StepStats {
    /// Takes note of a group and its loss.
    pub(super) fn add(&mut self, group: &Group, loss: &Tensor) -> Result<(), Error> {
        // Reading the value waits for the device; the official loop does so too, once a step.
        self.losses.push(f64::try_from(loss)?);
        self.samples.push(group.sample_ids.clone());
        self.context_len += group.context.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.target_len += group.targets.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.replaced += group.replaced;
        self.waited += group.waited;
        Ok(())
    }

    /// Returns the patches of a context and of a target, per image.
    pub fn mask_lengths(&self) -> (f64, f64) {
        let groups = self.losses.len() as f64;
        (self.context_len / groups, self.target_len / groups)
    }
}

/// Makes the record of the step that `run` has just done, `elapsed` long.
pub(super) fn record(run: &Run, stats: &StepStats, elapsed: Duration) -> Record {
    let step = run.step - 1;
    let rates = run.schedule.at(step);
    let images = stats.samples.iter().map(Vec::len).sum::<usize>() as u64;
    let (elapsed, groups) = (elapsed.as_secs_f64(), stats.losses.len() as f64);
    let (context_len, target_len) = stats.mask_lengths();
    Record {
        version: RECORD_VERSION,
        step,
        total_steps: run.total_steps,
        epoch: step / run.epoch_len + 1,
        itr: step % run.epoch_len,
        loss: stats.losses.iter().sum::<f64>() / groups,
        gradient_norm: stats.gradient_norm,
        skipped: !stats.is_finite(),
        context_len,
        target_len,
        lr: rates.lr,
        weight_decay: rates.weight_decay,
        momentum: rates.momentum,
        images,
        replaced: stats.replaced,
        step_ms: elapsed * 1e3,
        wait_ms: stats.waited.as_secs_f64() * 1e3,
        images_per_s: images as f64 / elapsed,
    }
}
