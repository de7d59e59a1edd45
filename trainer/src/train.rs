//! The training loop: the method on one screen, and around it what a long run needs.
//!
//! Steps count from 0 over the whole run. A step takes the groups of its global batch one after the other and adds up
//! their gradients, so that any number of ranks (and one small device) computes the same. Everything that decides a
//! step's result is a function of its number and of the state a checkpoint holds: a resumed run goes on bit by bit.
//!
//! A step whose loss or gradient is not finite moves nothing. With `trainer.on_nonfinite: stop` the run ends there and
//! leaves a diagnostic dump; with `skip` it goes on with the next step, at most `trainer.max_skipped` times in a row.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use tch::{Device, Tensor};

use crate::checkpoint::{self, Parts, State, Writer, advise};
use crate::config::{Checkpoint, Config, OnNonfinite};
use crate::method::ijepa::{self, IJepa};
use crate::method::model::ModelConfig;
use crate::method::optimizer::Optimizer;
use crate::method::schedule::Schedule;
use crate::method::taps::Silent;
use crate::observe::log::{Log, Record};
use crate::run::run_dir::RunDir;
use crate::run::stop::Stop;
use crate::source::{Batch, Source};
use crate::torch::device::Bfloat16;
use crate::torch::shim::{self, Autocast};
use crate::train::clock::{Clock, Phase};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// At its last step, or at the one it was told to stop before.
    Finished,
    /// By this signal; resuming goes on as if nothing had happened.
    Preempted(&'static str),
    /// A loss or the gradient was not finite, so nothing after it would mean anything.
    NotFinite {
        /// The step.
        step: u64,
        /// Loss of each group.
        losses: Vec<f64>,
        /// Of the whole gradient.
        gradient_norm: f64,
        /// Samples of the groups at fault; of all groups where only the gradient is.
        samples: Vec<u64>,
        /// The directory with everything else there is to know.
        dump: PathBuf,
    },
}

/// What training changes, and what it needs to know.
pub struct Run {
    /// The networks.
    pub ijepa: IJepa,
    /// AdamW and its moments.
    pub optimizer: Optimizer,
    /// Learning rate, weight decay and momentum.
    pub schedule: Schedule,
    /// Where the networks live.
    pub device: Device,
    /// Whether matrix products are computed in bfloat16.
    pub bfloat16: bool,
    /// The next step.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The step before which to end, at most `total_steps`.
    pub end: u64,
    /// What to store with each checkpoint; its step, epoch and loss are filled in.
    pub state: State,
    /// When to write checkpoints.
    pub checkpoint: Checkpoint,
    /// What to do about a step that is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Such steps that may be skipped in a row.
    pub max_skipped: u64,
}

/// What one step showed.
#[derive(Default)]
pub(crate) struct Seen {
    /// Of each group.
    pub(crate) losses: Vec<f64>,
    samples: Vec<Vec<u64>>,
    gradient_norm: f64,
    /// Groups that a dump would show, with their numbers.
    kept: Vec<(usize, Batch)>,
    context_len: f64,
    target_len: f64,
    replaced: u64,
    waited: Duration,
}

impl Run {
    /// Networks, optimiser and schedules as they stand at step 0, or as `checkpoint` holds them.
    pub fn new(
        config: &Config,
        state: State,
        checkpoint: Option<&PathBuf>,
        device: Device,
    ) -> Result<Run> {
        Run::of(&config.model()?, config, state, checkpoint, device)
    }

    /// The same with networks of other sizes than `config` says.
    fn of(
        model: &ModelConfig,
        config: &Config,
        state: State,
        checkpoint: Option<&PathBuf>,
        device: Device,
    ) -> Result<Run> {
        let epoch_len = state.epoch_len;
        let mut ijepa = match checkpoint {
            None => IJepa::new(model, config.trainer.seed, device)?,
            Some(_) => IJepa::zeroed(model, device)?,
        };
        ijepa.recompute_activations(config.trainer.activation_checkpointing);
        if device.is_cuda() {
            shim::allow_tf32(config.trainer.tf32)?;
        }
        let mut optimizer = Optimizer::new(&ijepa);
        if let Some(path) = checkpoint {
            advise(path, load(path, &mut ijepa, &mut optimizer))?;
        }
        let total_steps = config.optimization.epochs * epoch_len;
        Ok(Run {
            schedule: Schedule::new(&config.schedule(), epoch_len)?,
            bfloat16: config.meta.use_bfloat16 && Bfloat16::of(device).is_used(),
            step: state.step,
            end: config
                .trainer
                .stop_at_step
                .unwrap_or(total_steps)
                .min(total_steps),
            checkpoint: config.checkpoint.clone(),
            on_nonfinite: config.trainer.on_nonfinite,
            max_skipped: config.trainer.max_skipped,
            ijepa,
            optimizer,
            device,
            total_steps,
            state,
        })
    }

    /// Trains until the end or until told to stop, and leaves a checkpoint of where it stands. After a loss that is not
    /// finite it leaves none: the last good one stays the last.
    pub fn train(
        &mut self,
        source: &mut dyn Source,
        log: &mut Log,
        dir: &RunDir,
        stop: &Stop,
    ) -> Result<Outcome> {
        let mut clock = Clock::off();
        let store = dir.store.clone();
        let mut writer = Writer::new(store, self.checkpoint.clone(), self.step, &self.parts())?;
        while self.step < self.end && stop.asked().is_none() {
            let (start, step) = (Instant::now(), self.step);
            let (lr, weight_decay, momentum) = self.rates();
            let Some(seen) = self.step(source, &mut clock)? else {
                break; // a stop was asked for: this step is left to the run that resumes
            };
            if let Some(fault) = self.judge(&seen, dir.path(), log)? {
                writer.settle(log)?;
                return Ok(fault);
            }

            self.step += 1;
            let epoch_len = self.state.epoch_len;
            let images = seen.samples.iter().map(Vec::len).sum::<usize>() as u64;
            let (elapsed, groups) = (start.elapsed().as_secs_f64(), seen.losses.len() as f64);
            let (context_len, target_len) = seen.mask_lengths();
            let record = Record {
                step,
                total_steps: self.total_steps,
                epoch: step / epoch_len + 1,
                itr: step % epoch_len,
                loss: seen.losses.iter().sum::<f64>() / groups,
                gradient_norm: seen.gradient_norm,
                skipped: !seen.is_finite(),
                context_len,
                target_len,
                lr,
                weight_decay,
                momentum,
                images,
                replaced: seen.replaced,
                step_ms: elapsed * 1e3,
                wait_ms: seen.waited.as_secs_f64() * 1e3,
                images_per_s: images as f64 / elapsed,
            };
            if !record.skipped {
                self.state.loss = Some(record.loss);
            }
            log.step(&record)?;
            writer.poll(log)?;
            if writer.is_due(self.step, epoch_len) {
                writer.save(self.state(), &self.parts(), log)?;
            }
        }
        writer.finish(self.state(), &self.parts(), log)?;
        Ok(match stop.asked() {
            Some(signal) if self.step < self.end => Outcome::Preempted(signal),
            _ => Outcome::Finished,
        })
    }

    /// One step of the method, over all groups of this rank: `self.step`, which the caller then counts up. `None` if the
    /// source had no more to give. With a loss or a gradient that is not finite nothing is moved.
    pub(crate) fn step(
        &mut self,
        source: &mut dyn Source,
        clock: &mut Clock,
    ) -> Result<Option<Seen>> {
        let (lr, weight_decay, momentum) = self.rates();
        let mut seen = Seen::default();

        // ------------------------------------------------------------------------------------- training begins
        clock.start();
        self.optimizer.zero_grad()?;
        for group in 0..source.groups() {
            let Some(batch) = source.take(self.step, group)? else {
                return Ok(None);
            };
            clock.lap(Phase::Copy);
            clock.transfer(Phase::Copy, Phase::Wait, batch.waited);

            let loss = {
                let _mixed = self
                    .bfloat16
                    .then(|| Autocast::bfloat16(&batch.images))
                    .transpose()?;
                let Batch {
                    images,
                    context,
                    targets,
                    ..
                } = &batch;
                let h = self
                    .ijepa
                    .target(images, targets, context.len(), &mut Silent)?; // no gradient
                clock.lap(Phase::Target);
                let z = self.ijepa.predict(images, context, targets, &mut Silent)?;
                ijepa::loss(&z, &h)
            };
            clock.lap(Phase::Predict);
            (&loss / source.groups() as f64).f_backward()?;
            clock.lap(Phase::Backward);
            source.look_ahead()?;
            seen.add(&batch, &loss)?;
            seen.keep(batch, group + 1 == source.groups());
        }
        seen.gradient_norm = self.optimizer.gradient_norm()?;
        if !seen.is_finite() {
            return Ok(Some(seen));
        }
        self.optimizer.step(lr, weight_decay)?;
        clock.lap(Phase::Optimizer);
        self.ijepa.update_target(momentum)?;
        clock.lap(Phase::Ema);
        // --------------------------------------------------------------------------------------- training ends

        Ok(Some(seen))
    }

    /// Learning rate, weight decay and momentum of the next step.
    fn rates(&self) -> (f64, f64, f64) {
        let Self { schedule, step, .. } = self;
        (
            schedule.lr(*step),
            schedule.weight_decay(*step),
            schedule.momentum(*step),
        )
    }

    /// What a checkpoint of this moment knows.
    fn state(&mut self) -> State {
        self.state.step = self.step;
        self.state.epoch = self.step / self.state.epoch_len;
        self.state.clone()
    }

    /// The files of a checkpoint: handles, not copies.
    fn parts(&self) -> Parts {
        let network = |parameters: &[(String, Tensor)]| {
            parameters
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
                .collect()
        };
        let tensors = [
            network(self.ijepa.encoder.parameters()),
            network(self.ijepa.predictor.parameters()),
            network(self.ijepa.target_encoder.parameters()),
            self.optimizer.state(),
        ];
        checkpoint::PARTS.into_iter().zip(tensors).collect()
    }
}

impl Seen {
    fn add(&mut self, batch: &Batch, loss: &Tensor) -> Result<()> {
        // Reading the value waits for the device; the official loop does so too, once a step.
        self.losses.push(f64::try_from(loss)?);
        self.samples.push(batch.sample_ids.clone());
        self.context_len += batch.context.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.target_len += batch.targets.first().map_or(0, |mask| mask.size()[1]) as f64;
        self.replaced += batch.replaced;
        self.waited += batch.waited;
        Ok(())
    }

    /// Patches of a context and of a target, per image.
    pub(crate) fn mask_lengths(&self) -> (f64, f64) {
        let groups = self.losses.len() as f64;
        (self.context_len / groups, self.target_len / groups)
    }
}

/// Takes up what a checkpoint holds: every tensor, and no other.
fn load(path: &std::path::Path, ijepa: &mut IJepa, optimizer: &mut Optimizer) -> Result<()> {
    let mut state = std::collections::BTreeMap::new();
    let [networks @ .., optimizer_part] = checkpoint::PARTS;
    for network in networks {
        let tensors = checkpoint::read_part(path, network)?;
        state.extend(
            tensors
                .into_iter()
                .map(|(name, tensor)| (format!("{network}.{name}"), tensor)),
        );
    }
    ijepa.load_state(&state)?;
    optimizer.load_state(&checkpoint::read_part(path, optimizer_part)?)?;
    Ok(())
}

pub mod clock;
mod nonfinite;
#[cfg(test)]
mod tests;
