//! What becomes of a step in which something is not a number, or infinite.
//!
//! A step is judged before it moves anything, by the losses of its groups and the norm of its gradient (which is not
//! finite when any gradient is not, or when their squares, AdamW's second moment, overflow). So neither weights nor
//! moments nor checkpoints ever hold what a fault would leave in them. `trainer.on_nonfinite` says what comes next:
//!
//! * `stop` (the default): the run ends with exit code 1 and a diagnostic dump; the last checkpoint is of a good step.
//! * `skip`: the step moves nothing, neither weights nor moments nor the target encoder; its row in the log says so, and
//!   the next step has its own samples, learning rate and momentum as if nothing had happened. More than
//!   `trainer.max_skipped` such steps in a row stop the run. Which steps are skipped is a function of the state and the
//!   step, and the number in a row is part of a checkpoint, so a resumed run skips the same ones.
//!
//! The dump is a directory in the run directory, `nonfinite-step00000123/`: `report.json`, and for each group at fault
//! (for the last one, where only the gradient is) `group0.safetensors` with its images, masks and sample ids as the
//! networks saw them.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::{Outcome, Run, Seen};
use crate::checkpoint::{write_durably, write_tensors};
use crate::config::OnNonfinite;
use crate::observe::log::Log;
use crate::source::Batch;

impl Seen {
    /// Whether the step may move anything.
    pub(super) fn is_finite(&self) -> bool {
        self.gradient_norm.is_finite() && self.losses.iter().all(|loss| loss.is_finite())
    }

    /// Keeps a group for a dump if it is at fault, or may be: a gradient that is not finite is found after the last.
    pub(super) fn keep(&mut self, batch: Batch, is_last: bool) {
        let group = self.losses.len() - 1;
        if is_last || !self.losses[group].is_finite() {
            self.kept.push((group, batch));
        }
    }

    /// The groups to look at: those whose loss is not finite, or all of them where every loss is.
    fn at_fault(&self) -> Vec<usize> {
        let groups = 0..self.losses.len();
        let guilty: Vec<usize> = groups
            .clone()
            .filter(|&group| !self.losses[group].is_finite())
            .collect();
        if guilty.is_empty() {
            groups.collect()
        } else {
            guilty
        }
    }
}

impl Run {
    /// Decides about the step just seen: `None` to go on to the next one.
    pub(super) fn judge(
        &mut self,
        seen: &Seen,
        folder: &Path,
        log: &Log,
    ) -> Result<Option<Outcome>> {
        if seen.is_finite() {
            self.state.skipped = 0;
            return Ok(None);
        }
        let step = self.step;
        let samples: Vec<u64> = seen
            .at_fault()
            .into_iter()
            .flat_map(|group| seen.samples[group].clone())
            .collect();
        self.state.skipped += 1;
        if self.on_nonfinite == OnNonfinite::Skip && self.state.skipped <= self.max_skipped {
            log.say(format_args!(
                "warning: step {step} moves nothing, number {} in a row: losses {:?}, norm of the gradient {}, samples \
                 {samples:?}",
                self.state.skipped, seen.losses, seen.gradient_norm,
            ));
            return Ok(None);
        }
        let dump = folder.join(format!("nonfinite-step{step:08}"));
        self.dump(seen, &dump)
            .with_context(|| format!("step {step} is not finite, and its dump failed"))?;
        Ok(Some(Outcome::NotFinite {
            step,
            losses: seen.losses.clone(),
            gradient_norm: seen.gradient_norm,
            samples,
            dump,
        }))
    }

    fn dump(&self, seen: &Seen, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        for (group, batch) in &seen.kept {
            let path = folder.join(format!("group{group}.safetensors"));
            write_tensors(&path, &tensors(batch, seen.losses[*group])?)?;
        }
        let (lr, weight_decay, momentum) = self.rates();
        let norms = |tensors: Vec<(String, Tensor)>| -> Result<Map<String, Value>> {
            let norms = tensors.into_iter().map(|(name, tensor)| {
                let norm = f64::try_from(tensor.f_norm()?)?;
                Ok((name, number(norm)))
            });
            norms.collect()
        };
        let groups: Vec<Value> = seen
            .losses
            .iter()
            .zip(&seen.samples)
            .map(|(loss, samples)| json!({"loss": number(*loss), "samples": samples}))
            .collect();
        let report = json!({
            "step": self.step,
            "epoch": self.step / self.state.epoch_len + 1,
            "skipped_in_a_row": self.state.skipped,
            "learning_rate": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "groups": groups,
            "gradient_norm": number(seen.gradient_norm),
            "gradient_norms": norms(self.optimizer.gradients())?,
            "weight_norms": norms(self.ijepa.state())?,
        });
        write_durably(
            &folder.join("report.json"),
            format!("{report:#}\n").as_bytes(),
        )
    }
}

/// JSON has no word for what this is about.
fn number(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else {
        value.to_string().into()
    }
}

fn tensors(batch: &Batch, loss: f64) -> Result<Vec<(String, Tensor)>> {
    let samples: Vec<i64> = batch.sample_ids.iter().map(|&id| id as i64).collect();
    let mut tensors = vec![
        ("images".to_owned(), batch.images.shallow_clone()),
        ("loss".to_owned(), Tensor::from(loss as f32)),
        ("sample_ids".to_owned(), Tensor::f_from_slice(&samples)?),
    ];
    for (name, masks) in [("context", &batch.context), ("target", &batch.targets)] {
        let numbered = masks.iter().enumerate();
        tensors.extend(
            numbered.map(|(number, mask)| (format!("{name}{number}"), mask.shallow_clone())),
        );
    }
    Ok(tensors)
}
