//! What becomes of a step in which something is not a number, or infinite.
//!
//! A step is judged before it moves anything, by the losses of its groups and the norm of its gradient (which is not
//! finite when any gradient is not, or when their squares, AdamW's second moment, overflow). So neither weights nor
//! moments nor checkpoints ever hold what a fault would leave in them. `trainer.on_nonfinite` says what comes next:
//!
//! * `stop` (the default): the run ends with exit code 1 and a diagnostic dump; the last checkpoint is of a good step.
//! * `skip`: the step moves nothing, neither weights nor moments nor the target encoder; its row in the log says so,
//!   and the next step has its own samples, learning rate and momentum as if nothing had happened. More than
//!   `trainer.max_skipped` such steps in a row stop the run. Which steps are skipped is a function of the state and the
//!   step, and the number in a row is part of a checkpoint, so a resumed run skips the same ones.
//!
//! Of several ranks, all judge the same numbers and so do the same; rank 0 writes the dump, with those of the groups at
//! fault that were its own.
//!
//! The dump is a directory in the run directory, `nonfinite-step00000123/`: `report.json`, and for each group at fault
//! (for the last one, where only the gradient is) `group0.safetensors` with its images, masks and sample ids as the
//! networks saw them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use shardtool::disk;
use tch::Tensor;

use super::{Error, Outcome, Run, StepStats};
use crate::checkpoint::write_tensors;
use crate::config::OnNonfinite;
use crate::run::Keeper;
use crate::source::Group;

impl StepStats {
    /// Tells whether the step may move anything.
    pub(super) fn is_finite(&self) -> bool {
        self.gradient_norm.is_finite() && self.losses.iter().all(|loss| loss.is_finite())
    }

    /// Keeps a group for a dump if it is at fault, or may be: a gradient that is not finite is found after the last.
    pub(super) fn keep(&mut self, batch: Group, is_last: bool) {
        let group = self.losses.len() - 1;
        if is_last || !self.losses[group].is_finite() {
            self.kept.push((group, batch));
        }
    }

    /// Returns the groups to look at: those whose loss is not finite, or all of them where every loss is.
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
    /// Decides about the step just done: `None` to go on to the next one.
    ///
    /// # Errors
    /// Ranks that are lost.
    pub(super) fn judge(
        &mut self,
        stats: &mut StepStats,
        keeper: &Option<Keeper>,
    ) -> Result<Option<Outcome>, Error> {
        if stats.is_finite() {
            self.skipped = 0;
            return Ok(None);
        }
        stats.gather_samples(&self.ranks)?;
        let step = self.step;
        let samples: Vec<u64> = stats
            .at_fault()
            .into_iter()
            .flat_map(|group| stats.samples[group].clone())
            .collect();
        self.skipped += 1;
        if self.on_nonfinite == OnNonfinite::Skip && self.skipped <= self.max_skipped {
            tracing::warn!(
                "step {step} moves nothing, number {} in a row: losses {:?}, norm of the gradient {}, \
                 samples {samples:?}",
                self.skipped,
                stats.losses,
                stats.gradient_norm,
            );
            return Ok(None);
        }
        let dump = keeper
            .as_ref()
            .map(|keeper| keeper.path().join(format!("nonfinite-step{step:08}")));
        let dump = dump.filter(|dump| match self.dump(stats, dump) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("{error}");
                false
            }
        });
        Ok(Some(Outcome::NotFinite {
            step,
            losses: stats.losses.clone(),
            gradient_norm: stats.gradient_norm,
            samples,
            dump,
        }))
    }

    fn dump(&self, stats: &StepStats, folder: &Path) -> Result<(), Error> {
        let failed = |path: PathBuf| {
            let step = self.step;
            move |cause| Error::Dump { step, path, cause }
        };
        let mut made = Ok(());
        if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
            // Through a link, files would be written somewhere else.
            made = disk::set_aside(folder, "other").map(drop);
        }
        made.and_then(|()| fs::create_dir_all(folder))
            .map_err(failed(folder.to_owned()))?;
        for (group, batch) in &stats.kept {
            let path = folder.join(format!("group{group}.safetensors"));
            write_tensors(&path, &tensors(batch, stats.losses[*group])?)?;
        }
        let rates = self.schedule.at(self.step);
        let norms = |tensors: Vec<(String, Tensor)>| -> Result<Map<String, Value>, crate::Error> {
            let norms = tensors.into_iter().map(|(name, tensor)| {
                let norm = f64::try_from(tensor.f_norm()?)?;
                Ok((name, number(norm)))
            });
            norms.collect()
        };
        let groups: Vec<Value> = stats
            .losses
            .iter()
            .zip(&stats.samples)
            .map(|(loss, samples)| json!({"loss": number(*loss), "samples": samples}))
            .collect();
        let report = json!({
            "step": self.step,
            "epoch": self.step / self.epoch_len + 1,
            "skipped_in_a_row": self.skipped,
            "learning_rate": rates.lr,
            "weight_decay": rates.weight_decay,
            "momentum": rates.momentum,
            "groups": groups,
            "gradient_norm": number(stats.gradient_norm),
            "gradient_norms": norms(self.optimizer.gradients())?,
            "weight_norms": norms(self.ijepa.state())?,
        });
        let path = folder.join("report.json");
        disk::write(&path, format!("{report:#}\n").as_bytes()).map_err(failed(path))
    }
}

/// Returns a number for JSON, which has no word for those that are not finite.
fn number(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else {
        value.to_string().into()
    }
}

fn tensors(batch: &Group, loss: f64) -> Result<Vec<(String, Tensor)>, crate::Error> {
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
