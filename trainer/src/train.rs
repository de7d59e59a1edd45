//! The training loop: the method on one screen, and around it what a long run needs.
//!
//! Steps count from 0 over the whole run. A step takes the groups of its global batch one after the other and adds up
//! their gradients, so that any number of ranks (and one small device) computes the same. Everything that decides a
//! step's result is a function of its number and of the state a checkpoint holds: a resumed run goes on bit by bit. So
//! is the size of its crops; where that changes, the networks get other positions and go on.
//!
//! A step whose loss or gradient is not finite moves nothing. With `trainer.on_nonfinite: stop` the run ends there and
//! leaves a diagnostic dump; with `skip` it goes on with the next step, at most `trainer.max_skipped` times in a row.

mod error;
mod nonfinite;
mod online;
mod options;
mod signs;
mod state;
mod stats;
#[cfg(test)]
mod tests;

pub mod clock;
pub mod memory;

use std::path::{Path, PathBuf};
use std::time::Instant;

use loader::config::CropSize;
use serde_json::{Map, Value};
use tch::{Device, Tensor};

use crate::checkpoint::{State, Turn};
use crate::config::{Compression, Config, Method, OnNonfinite};
use crate::distributed::{self, Ranks};
use crate::method::hooks::NoHooks;
use crate::method::ijepa::{self, IJepa};
use crate::method::model::ModelConfig;
use crate::method::noise::Noise;
use crate::method::optimizer::Optimizer;
use crate::method::schedule::{Rates, Schedule};
use crate::method::visible::Patches;
use crate::run::Keeper;
use crate::source::{Group, GroupSource};
use crate::stop::Stop;
use crate::torch::device::Bfloat16;
use crate::torch::shim::{self, Autocast};
use clock::{Clock, Phase};
use online::Online;
use signs::Gauge;

pub use error::Error;
pub use stats::StepStats;

/// The way in which a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ended at its last step, or at the one before which it was told to stop.
    Finished,
    /// This signal stopped it; resuming goes on as if nothing had happened.
    Preempted(&'static str),
    /// A loss or the gradient was not finite, so nothing after it would mean anything.
    NotFinite {
        /// The step.
        step: u64,
        /// Loss of each group.
        losses: Vec<f64>,
        /// Euclidean norm of the whole gradient.
        gradient_norm: f64,
        /// Samples of the groups at fault; of all groups where only the gradient is.
        samples: Vec<u64>,
        /// The directory with everything else there is to know; rank 0 writes it.
        dump: Option<PathBuf>,
    },
}

/// The facts beside its tensors by which a checkpoint is of this run or of another.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Images of a step.
    pub global_batch: u64,
    /// Hash of the configuration that decides samples, crops and masks.
    pub sampling_hash: Option<u64>,
    /// Checksum of the shards' manifest.
    pub manifest_checksum: Option<u64>,
    /// The resolved configuration.
    pub config: Map<String, Value>,
    /// Where it went on under other values or in another directory.
    pub lineage: Vec<Turn>,
}

/// A run in training: what it changes, and what it needs to know.
pub struct Run {
    /// The networks.
    pub ijepa: IJepa,
    /// AdamW and its moments.
    pub optimizer: Optimizer,
    /// Learning rate, weight decay and momentum.
    pub schedule: Schedule,
    /// Where the networks live.
    pub device: Device,
    /// True where matrix products are computed in bfloat16.
    pub bfloat16: bool,
    /// The next step.
    pub step: u64,
    /// Steps of an epoch.
    pub epoch_len: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The step before which to end, at most `total_steps`.
    pub end: u64,
    /// Loss of the last step that was finite.
    pub loss: Option<f64>,
    /// Steps left out in a row, up to this one, because something in them was not finite.
    pub skipped: u64,
    /// The side of the crops in each epoch.
    pub crop_size: CropSize,
    /// Options of the method.
    pub method: Method,
    /// Seed of what options draw.
    pub seed: u64,
    /// What to do about a step that is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Such steps that may be skipped in a row.
    pub max_skipped: u64,
    /// This process among those that train.
    pub ranks: Ranks,
    /// What is stored with each checkpoint, for the run that continues it.
    pub identity: Identity,
    /// The time of a step by phase; off but for `trainer bench`.
    pub clock: Clock,
    /// Measures the signs of collapse.
    gauge: Gauge,
    /// A head beside the training, where one is asked for.
    online: Online,
    /// Says that a step is moving the weights: they are those of no step.
    is_moving: bool,
}

impl Run {
    /// Makes networks, optimiser and schedules as they stand at step 0, or as `checkpoint` holds them.
    ///
    /// Ranks other than 0 read no checkpoint: they take over what rank 0 has.
    ///
    /// # Errors
    /// Too little memory, a checkpoint that is damaged or does not fit, or ranks that are lost.
    pub fn new(
        config: &Config,
        state: &State,
        checkpoint: Option<&Path>,
        device: Device,
        ranks: Ranks,
    ) -> Result<Run, Error> {
        Run::of(&config.model()?, config, state, checkpoint, device, ranks)
    }

    /// Makes a run with networks of other sizes than `config` says.
    fn of(
        model: &ModelConfig,
        config: &Config,
        state: &State,
        checkpoint: Option<&Path>,
        device: Device,
        mut ranks: Ranks,
    ) -> Result<Run, Error> {
        let epoch_len = state.epoch_len;
        let is_first = ranks.world().first().is_some();
        let mut ijepa = match checkpoint {
            None if is_first => IJepa::new(model, config.trainer.seed, device)?,
            _ => IJepa::zeroed(model, device)?,
        };
        ijepa.recompute_activations(config.trainer.activation_checkpointing);
        if device.is_cuda() {
            shim::allow_tf32(config.trainer.tf32)?;
        }
        let mut optimizer = Optimizer::new(ijepa.parameter_groups())?;
        if let Some(path) = checkpoint.filter(|_| is_first) {
            let sizes = config
                .loader
                .data
                .crop_size
                .from_epoch(state.step / epoch_len);
            state::load(path, &mut ijepa, &mut optimizer, sizes)?;
        }
        // A checkpoint's positions are those of its own crops, which the other ranks have not seen.
        let size = ranks.gather(&[ijepa.encoder.config().image_size as f64])?[0][0] as i64;
        if size != ijepa.encoder.config().image_size {
            ijepa.resize(size)?;
        }
        let whole = ijepa.state().into_iter().chain(optimizer.state());
        ranks.take_over(&whole.map(|(_, tensor)| tensor).collect::<Vec<_>>())?;
        let as_bfloat16 = config.trainer.compress_gradients == Compression::Bf16;
        let bucket_bytes = usize::from(config.trainer.bucket_mb) << 20;
        ranks.sum_gradients_of(&ijepa.trained(), as_bfloat16, bucket_bytes)?;
        let total_steps = config.total_steps(epoch_len);
        let signs_every = if is_first {
            config.trainer.signs_every
        } else {
            0
        };
        Ok(Run {
            online: Online::new(config.eval.online && is_first),
            gauge: Gauge::new(signs_every, total_steps),
            schedule: config.schedule(epoch_len)?,
            bfloat16: config.meta.use_bfloat16 && Bfloat16::of(device).is_used(),
            step: state.step,
            epoch_len,
            total_steps,
            end: config.last_step(epoch_len),
            loss: state.loss,
            skipped: state.skipped,
            crop_size: config.loader.data.crop_size.clone(),
            method: config.method.clone(),
            seed: config.trainer.seed,
            on_nonfinite: config.trainer.on_nonfinite,
            max_skipped: config.trainer.max_skipped,
            identity: Identity {
                global_batch: state.global_batch,
                sampling_hash: state.sampling_hash,
                manifest_checksum: state.manifest_checksum,
                config: state.config.clone(),
                lineage: state.lineage.clone(),
            },
            ranks,
            clock: Clock::off(),
            is_moving: false,
            ijepa,
            optimizer,
            device,
        })
    }

    /// Trains until the end or until told to stop, and leaves a checkpoint of where it stands.
    ///
    /// After a loss that is not finite it leaves none: the last good one stays the last. `keeper` is rank 0's.
    ///
    /// # Errors
    /// What ended the run. Where the weights are whole, a checkpoint of the last step is written first.
    pub fn train(
        &mut self,
        source: &mut dyn GroupSource,
        keeper: &mut Option<Keeper>,
        stop: &Stop,
    ) -> Result<Outcome, Error> {
        while self.step < self.end && self.ranks.asked(stop).is_none() {
            let start = Instant::now();
            let mut stats = match self.step(source) {
                Ok(Some(stats)) => stats,
                Ok(None) => break, // a stop was asked for: this step is left to the run that resumes
                // Another rank was asked, too, and could not wait for the others.
                Err(Error::Ranks(distributed::Error::Lost { .. })) if stop.asked().is_some() => {
                    break;
                }
                Err(error) => return Err(self.end_early(error, keeper)),
            };
            if let Some(fault) = self.judge(&mut stats, keeper)? {
                keeper.as_mut().map_or(Ok(()), Keeper::settle)?;
                return Ok(fault);
            }

            self.step += 1;
            let record = stats::record(self, &stats, start.elapsed());
            if !record.skipped {
                self.loss = Some(record.loss);
            }
            if let Some(keeper) = keeper {
                keeper.log(&record);
                keeper.checkpoint_if_due(self.step, self.epoch_len, || {
                    (self.state(), self.parts())
                })?;
            }
        }
        if let Some(keeper) = keeper {
            keeper.finish(&self.state(), &self.parts())?;
        }
        Ok(match self.ranks.asked(stop).or(stop.asked()) {
            Some(signal) if self.step < self.end => Outcome::Preempted(signal),
            _ => Outcome::Finished,
        })
    }

    /// Does one step of the method, `self.step`, over all groups of this rank; the caller then counts it up.
    ///
    /// `None` if the source had no more to give. With a loss or a gradient that is not finite nothing is moved. Paper,
    /// section 3; `src/train.py` of the official code, `train_step`.
    ///
    /// # Errors
    /// From the source or the device. The weights are then those of before the step, unless it had begun to move them.
    pub fn step(&mut self, source: &mut dyn GroupSource) -> Result<Option<StepStats>, Error> {
        let Rates {
            lr,
            weight_decay,
            momentum,
        } = self.schedule.at(self.step);
        let groups = source.groups();
        let mut stats = StepStats::begin();
        self.clock.start();

        // ------------------------------------------------------------------------------------- training begins
        self.optimizer.zero_grad()?;
        for number in 0..groups {
            let Some(group) = self.take(source, number)? else {
                return Ok(None);
            };
            self.fit_to_crops()?;
            let noise = self.noise(source.first_group() + number); // drawn by options alone
            let (h, z, prediction, loss) = {
                let _mixed = self.mixed_precision(&group)?;
                let h = self.target(&group)?; // no gradient
                let z = self.context(&group)?;
                let prediction = self.predict(&z, &group, noise)?;
                let loss = ijepa::loss(&prediction.hidden, &h.hidden)?;
                (h, z, prediction, loss)
            };
            self.see(&group, groups, [&h.hidden, &z, &prediction.hidden]);
            self.online.see(&group, &h.hidden);
            let (loss, added) = self.add_options(loss, &group, [&h, &prediction], &z, noise)?;
            drop((h, z, prediction)); // the backward pass keeps what it needs
            let is_last = number + 1 == groups;
            stats.is_ready();
            self.backward(&loss, source.all_groups(), is_last)?; // sums over all ranks
            source.look_ahead()?;
            stats.add(&group, &loss, added.as_ref())?;
            stats.keep(group, is_last);
        }
        stats.gather(&mut self.ranks, source.all_groups())?;
        stats.gradient_norm = self.optimizer.gradient_norm()?;
        if !stats.is_finite() {
            return Ok(Some(stats));
        }
        self.update(lr, weight_decay)?;
        stats.signs = self.signs(lr, weight_decay, momentum);
        stats.online = self.online.take();
        self.follow(momentum)?;
        // --------------------------------------------------------------------------------------- training ends

        Ok(Some(stats))
    }

    /// Takes group `number` of the step, on the device.
    fn take(&mut self, source: &mut dyn GroupSource, number: u64) -> Result<Option<Group>, Error> {
        let step = self.step;
        let group = self
            .clock
            .phase(Phase::Copy, || source.take(step, number))?;
        if let Some(group) = &group {
            self.clock.transfer(Phase::Copy, Phase::Wait, group.waited);
        }
        Ok(group)
    }

    /// Gives the networks the positions of this step's crops, where those have another size than the step before's.
    ///
    /// Once the step has come, not before: until then a checkpoint has the size of its last step.
    fn fit_to_crops(&mut self) -> Result<(), Error> {
        let before = self.ijepa.encoder.config().image_size;
        let now = self.crop_size.at(self.step / self.epoch_len).into();
        if now != before {
            let step = self.step;
            tracing::info!("from step {step} on: crops of {now} pixels, {before} before");
            self.ijepa.resize(now)?;
        }
        Ok(())
    }

    /// Has matrix products computed in bfloat16 until the result is dropped, where the run does so.
    fn mixed_precision(&self, group: &Group) -> Result<Option<Autocast>, Error> {
        let autocast = self.bfloat16.then(|| Autocast::bfloat16(&group.images));
        Ok(autocast.transpose()?)
    }

    /// Returns the target encoder's representations of the target blocks, without gradients.
    fn target(&mut self, group: &Group) -> Result<Patches, Error> {
        let Group {
            images,
            context,
            targets,
            ..
        } = group;
        let target = || match self.method.visible_loss > 0.0 {
            true => self.ijepa.target_all(images, context, targets),
            false => self
                .ijepa
                .target(images, targets, context.len(), &mut NoHooks)
                .map(Patches::hidden),
        };
        Ok(self.clock.phase(Phase::Target, target)?)
    }

    /// Returns the context encoder's representations of what is visible.
    fn context(&mut self, group: &Group) -> Result<Tensor, Error> {
        let Group {
            images, context, ..
        } = group;
        let context = || self.ijepa.context(images, context, &mut NoHooks);
        Ok(self.clock.phase(Phase::Predict, context)?)
    }

    /// Returns what the predictor makes of the representations `z` of what is visible.
    fn predict(&mut self, z: &Tensor, group: &Group, noise: Noise) -> Result<Patches, Error> {
        let Group {
            context, targets, ..
        } = group;
        let predict = || {
            let noise = options::position_noise(&self.method, z, group, noise)?;
            match self.method.visible_loss > 0.0 {
                true => self.ijepa.predict_all(z, context, targets, noise.as_ref()),
                false => self
                    .ijepa
                    .predict(z, context, targets, noise.as_ref(), &mut NoHooks)
                    .map(Patches::hidden),
            }
        };
        Ok(self.clock.phase(Phase::Predict, predict)?)
    }

    /// Adds the gradients of a group's share of the loss, the mean over `groups`; the last of this rank's groups adds
    /// those of all ranks.
    fn backward(&mut self, loss: &Tensor, groups: u64, is_last: bool) -> Result<(), Error> {
        let ranks = &mut self.ranks;
        let backward = || match is_last {
            true => ranks.sum_gradients(|| ijepa::backward(loss, groups)),
            false => Ok(ijepa::backward(loss, groups)?),
        };
        Ok(self.clock.phase(Phase::Backward, backward)?)
    }

    /// Moves encoder and predictor.
    fn update(&mut self, lr: f64, weight_decay: f64) -> Result<(), Error> {
        self.is_moving = true;
        let optimizer = &mut self.optimizer;
        Ok(self
            .clock
            .phase(Phase::Optimizer, || optimizer.step(lr, weight_decay))?)
    }

    /// Lets the target encoder follow the encoder.
    fn follow(&mut self, momentum: f64) -> Result<(), Error> {
        let ijepa = &mut self.ijepa;
        self.clock
            .phase(Phase::Ema, || ijepa.update_target(momentum))?;
        self.is_moving = false;
        Ok(())
    }

    /// Writes a checkpoint of the last whole step, since the next one cannot be done, and returns why. Weights that are
    /// half moved are not written.
    fn end_early(&self, error: Error, keeper: &mut Option<Keeper>) -> Error {
        if !matches!(error, Error::Ranks(distributed::Error::Lost { .. })) {
            self.ranks.last_words().say(&error.to_string());
        }
        if let Some(keeper) = keeper
            && !self.is_moving
        {
            match keeper.finish(&self.state(), &self.parts()) {
                Ok(()) => tracing::info!("the state after {} steps is on disk", self.step),
                Err(second) => tracing::error!("{second}"),
            }
        }
        error
    }
}
