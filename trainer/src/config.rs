//! The typed configuration of a run: the official `meta`, `optimization` and `logging` sections, and `trainer`,
//! `checkpoint`, `eval` and `method`, which are ours.
//!
//! `data`, `mask` and `loader` are typed by the loader and only carried here. Official keys keep their meaning and are
//! required where the official code requires them; keys it could do without have its default. What is accepted but has
//! no effect on this machine is said by [`Config::warnings`], never silently ignored.

mod checkpoint;
mod eval;
mod logging;
mod meta;
mod method;
mod optimization;
pub mod resume;
mod trainer;

use std::path::Path;

use ::loader::LoaderConfig;
use ::loader::config::{ConfigFile, Place, SECTIONS};
use serde_json::{Map, Value, json};
use tch::Device;

use crate::method::model::{ModelConfig, SizesError};
use crate::method::schedule::{Schedule, ScheduleConfig};
use crate::torch::device::Bfloat16;

pub use checkpoint::Checkpoint;
pub use eval::Eval;
pub use logging::Logging;
pub use meta::Meta;
pub use method::Method;
pub use optimization::Optimization;
pub use resume::OnResume;
pub use trainer::{Compression, MAX_THREADS, OnNonfinite, Trainer, default_threads};

/// A fault of a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file, its sections and keys, or what the loader reads of it.
    #[error(transparent)]
    File(#[from] ::loader::Error),
    /// A value outside its range.
    #[error("{key}: {reason}")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A key that `--allow` names and that cannot differ.
    #[error("--allow {}: {reason}", shardtool::Escaped::new(key))]
    Allow {
        /// What was named.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A fault of a key, with the place that gave its value.
    #[error("{place}{fault}")]
    At {
        /// The file or `--set`.
        place: Place,
        /// What is wrong.
        fault: Box<Error>,
    },
}

impl Error {
    fn value(key: &'static str, reason: impl Into<String>) -> Error {
        Error::Value {
            key,
            reason: reason.into(),
        }
    }
}

/// A configuration: everything a run is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Model and precision.
    pub meta: Meta,
    /// Schedules and batch.
    pub optimization: Optimization,
    /// The run directory.
    pub logging: Logging,
    /// Our own keys of the training loop.
    pub trainer: Trainer,
    /// Our own keys of the checkpoints.
    pub checkpoint: Checkpoint,
    /// Our own keys of evaluation beside the training.
    pub eval: Eval,
    /// Our own keys of the method.
    pub method: Method,
    /// The sections that the loader reads of the same file: `data`, `mask` and `loader`.
    pub loader: LoaderConfig,
}

impl Config {
    /// Reads and checks a file. `sets` are `path.to.key=value` overrides; `shards` stands for `loader.shards`.
    ///
    /// # Errors
    /// The key at fault, and the cure where there is one.
    pub fn load(path: &Path, sets: &[String], shards: Option<&Path>) -> Result<Config, Error> {
        let mut config = Config::from_file(&ConfigFile::load(path, sets)?)?;
        if let Some(dir) = shards {
            config.loader.loader.shards = Some(dir.to_owned());
            config.check_paths()?;
        }
        Ok(config)
    }

    /// Reads and checks a file already parsed.
    ///
    /// # Errors
    /// The key at fault, and the cure where there is one.
    pub fn from_file(file: &ConfigFile) -> Result<Config, Error> {
        // All of them before the first section is read: a mistyped key may be what is missing elsewhere.
        file.check_sections(&SECTIONS)?;
        file.check_keys::<Meta>("meta")?;
        file.check_keys::<Optimization>("optimization")?;
        file.check_keys::<Logging>("logging")?;
        file.check_keys::<Trainer>("trainer")?;
        file.check_keys::<Checkpoint>("checkpoint")?;
        file.check_keys::<Eval>("eval")?;
        file.check_keys::<Method>("method")?;
        LoaderConfig::check_keys(file)?;
        let config = Config {
            meta: file.section("meta")?,
            optimization: file.section("optimization")?,
            logging: file.section("logging")?,
            trainer: file.section("trainer")?,
            checkpoint: file.section("checkpoint")?,
            eval: file.section("eval")?,
            method: file.section("method")?,
            loader: LoaderConfig::from_file(file)?,
        };
        config.check().map_err(|error| config.place(error))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        self.meta.check()?;
        self.optimization.check()?;
        self.trainer.check()?;
        self.checkpoint.check()?;
        self.method.check()?;
        self.logging.check()?;
        self.check_paths()?;
        for &(_, size) in self.loader.data.crop_size.phases() {
            self.sizes(size)?;
        }
        Ok(())
    }

    /// Adds to a value outside its range the place that gave it.
    fn place(&self, error: Error) -> Error {
        match error {
            Error::Value { key, .. } => Error::At {
                place: self.loader.origin.of(key),
                fault: Box::new(error),
            },
            other => other,
        }
    }

    /// Refuses paths that are not UTF-8: the resolved configuration is stored as text.
    fn check_paths(&self) -> Result<(), Error> {
        let keys = &self.loader.loader;
        for (key, path) in [
            ("logging.folder", Some(&self.logging.folder)),
            ("loader.shards", keys.shards.as_ref()),
            ("loader.local_dir", keys.local_dir.as_ref()),
        ] {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                let reason = format!("{}: not UTF-8", shardtool::Escaped::new(path));
                return Err(Error::value(key, reason));
            }
        }
        Ok(())
    }

    /// Returns the run directory.
    ///
    /// # Errors
    /// If it is still the official files' placeholder.
    pub fn folder(&self) -> Result<&Path, Error> {
        self.logging.folder().map_err(|error| self.place(error))
    }

    /// Reads a configuration back from what [`Config::resolved`] gave, as a checkpoint holds it.
    ///
    /// # Errors
    /// If it is not whole, as that of weights which were imported without one.
    pub fn from_resolved(resolved: &Map<String, Value>) -> Result<Config, Error> {
        let text = Value::Object(resolved.clone()).to_string();
        Config::from_file(&ConfigFile::parse(
            Path::new("checkpoint.json"),
            &text,
            &[],
        )?)
    }

    /// Returns the sizes of the networks, with the images of the first epoch.
    ///
    /// # Errors
    /// If they make no network.
    pub fn model(&self) -> Result<ModelConfig, Error> {
        self.model_for(self.loader.data.crop_size.at(0))
    }

    /// Returns the sizes of the networks, with images of `crop_size` pixels.
    ///
    /// # Errors
    /// If they make no network.
    pub fn model_for(&self, crop_size: u32) -> Result<ModelConfig, Error> {
        self.sizes(crop_size).map_err(|error| self.place(error))
    }

    fn sizes(&self, crop_size: u32) -> Result<ModelConfig, Error> {
        let Meta {
            pred_emb_dim,
            pred_depth,
            ..
        } = self.meta;
        let model = self.meta.encoder().and_then(|encoder| {
            let patch_size = self.loader.mask.patch_size.into();
            ModelConfig::with_encoder(
                &encoder,
                crop_size.into(),
                patch_size,
                pred_emb_dim,
                pred_depth,
            )
        });
        model.map_err(|error| Error::value(key_of(&error), error.to_string()))
    }

    /// Returns the schedules, with epochs of `epoch_len` steps.
    ///
    /// # Errors
    /// If they have no step.
    pub fn schedule(&self, epoch_len: u64) -> Result<Schedule, crate::Error> {
        let Optimization {
            ema,
            epochs,
            final_lr,
            final_weight_decay,
            ipe_scale,
            lr,
            start_lr,
            steps,
            warmup,
            warmup_steps,
            weight_decay,
            ..
        } = self.optimization;
        let warmup = warmup.unwrap_or(0.0);
        let in_epochs = ScheduleConfig {
            epochs,
            warmup,
            ipe_scale,
            start_lr,
            lr,
            final_lr,
            weight_decay,
            final_weight_decay,
            ema,
        };
        if steps.is_none() && warmup_steps.is_none() {
            return Schedule::new(&in_epochs, epoch_len);
        }
        // Counted in steps: epochs of one step each.
        let in_steps = ScheduleConfig {
            epochs: self.total_steps(epoch_len),
            warmup: warmup_steps.map_or((warmup * epoch_len as f64).trunc(), |steps| steps as f64),
            ..in_epochs
        };
        Schedule::new(&in_steps, 1)
    }

    /// Returns the steps of the whole run, with epochs of `epoch_len` steps.
    pub fn total_steps(&self, epoch_len: u64) -> u64 {
        let Optimization { epochs, steps, .. } = self.optimization;
        steps.unwrap_or(epochs.saturating_mul(epoch_len))
    }

    /// Returns the step before which this run ends: its last one, or `trainer.stop_at_step`.
    pub fn last_step(&self, epoch_len: u64) -> u64 {
        let last = self.total_steps(epoch_len);
        self.trainer.stop_at_step.unwrap_or(last).min(last)
    }

    /// Returns every key with its value, defaults filled in: what is printed, stored and compared.
    ///
    /// It reads back as a configuration file.
    pub fn resolved(&self) -> Map<String, Value> {
        let tree = json!({
            "checkpoint": self.checkpoint,
            "data": self.loader.data,
            "eval": self.eval,
            "loader": self.loader.loader,
            "logging": self.logging,
            "mask": self.loader.mask,
            "meta": self.meta,
            "method": self.method,
            "optimization": self.optimization,
            "trainer": self.trainer,
        });
        match tree {
            Value::Object(map) => map,
            _ => unreachable!("written as a map above"),
        }
    }

    /// Returns what a user may expect from this file and does not get, a line each. `world` is the number of ranks.
    pub fn warnings(&self, device: Device, world: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        let batch = self.loader.global_batch(world);
        if let Some(claimed) = self.trainer.reproduces_global_batch
            && claimed != batch
        {
            warnings.push(format!(
                "the global batch is {batch}, but this file reproduces results of a global batch of {claimed}; \
                 --set optimization.global_batch={claimed} accumulates {} groups of {} a step",
                claimed / self.loader.data.batch_size,
                self.loader.data.batch_size,
            ));
        }
        let group = self.loader.data.batch_size;
        // Where contexts may overlap targets, nothing is taken out of them and so nothing is cut.
        if let Some(claimed) = self.trainer.reproduces_group
            && claimed != group
            && !self.loader.mask.allow_overlap
        {
            warnings.push(format!(
                "data.batch_size: contexts are cut to the smallest of {group} images, but this file reproduces results of \
                 groups of {claimed}, which leave contexts another length; --set data.batch_size={claimed} is its \
                 method, and trainer.activation_checkpointing fits it into less memory"
            ));
        }
        if self.meta.use_bfloat16
            && let Some(warning) = Bfloat16::of(device).warning()
        {
            warnings.push(format!("meta.use_bfloat16: {warning}"));
        }
        let Optimization {
            epochs,
            steps,
            warmup,
            warmup_steps,
            ..
        } = self.optimization;
        if let Some(steps) = steps
            && epochs > 0
        {
            warnings.push(format!(
                "optimization.epochs: {epochs} has no effect beside optimization.steps, which is {steps}"
            ));
        }
        if let (Some(warmup), Some(steps)) = (warmup, warmup_steps) {
            warnings.push(format!(
                "optimization.warmup: {warmup} has no effect beside optimization.warmup_steps, which is {steps}"
            ));
        }
        let never = "so the learning rate never reaches optimization.lr";
        if let Some(warmup) = warmup
            && (steps, warmup_steps) == (None, None)
            && warmup > epochs as f64
        {
            warnings.push(format!(
                "optimization.warmup: {warmup} epochs are more than the {epochs} of the run \
                 (optimization.epochs), {never}"
            ));
        }
        if let (Some(steps), Some(warmup_steps)) = (steps, warmup_steps)
            && warmup_steps > steps
        {
            warnings.push(format!(
                "optimization.warmup_steps: {warmup_steps} are more than the {steps} of the run \
                 (optimization.steps), {never}"
            ));
        }
        for &(first, size) in self.loader.data.crop_size.phases() {
            if first > 0 && steps.is_none() && first >= epochs {
                warnings.push(format!(
                    "data.crop_size: {size} begins at epoch {first}, counted from 0, and the run has {epochs} epochs \
                     (optimization.epochs): no step has crops of that size"
                ));
            }
        }
        warnings
    }
}

/// Returns the key to change where sizes make no network.
fn key_of(error: &SizesError) -> &'static str {
    match error {
        SizesError::NoPatch { .. } => "mask.patch_size",
        SizesError::Heads { network, .. } | SizesError::Positions { network, .. }
            if *network == "predictor" =>
        {
            "meta.pred_emb_dim"
        }
        SizesError::Heads { .. } => "meta.num_heads",
        SizesError::Positions { .. } => "meta.embed_dim",
        // An encoder's blocks were counted before.
        SizesError::Empty => "meta.pred_depth",
        _ => "meta.model_name",
    }
}

/// Refuses a value outside `low..=high`.
fn between<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Error> {
    if value >= low && value <= high {
        return Ok(());
    }
    let reason = format!("{value} is outside {low}..={high}");
    Err(Error::value(key, reason))
}

#[cfg(test)]
mod tests;
