//! The typed configuration of a run: the official `meta`, `optimization` and `logging` sections, and `trainer` and
//! `checkpoint`, which are ours.
//!
//! `data`, `mask` and `loader` are typed by the loader and only carried here. Official keys keep their meaning and are
//! required where the official code requires them; keys it could do without have its default. What is accepted but has
//! no effect on this machine is said by [`Config::warnings`], never silently ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use loader::config::{ConfigFile, LoaderConfig, SECTIONS, is_placeholder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tch::Device;

use crate::method::model::ModelConfig;
use crate::method::schedule::ScheduleConfig;
use crate::torch::device::Bfloat16;

/// Everything a run is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Model and precision.
    pub meta: Meta,
    /// Schedules and batch.
    pub optimization: Optimization,
    /// Where the run writes.
    pub logging: Logging,
    /// Our own keys of the training loop.
    pub trainer: Trainer,
    /// Our own keys of the checkpoints.
    pub checkpoint: Checkpoint,
    /// What the loader reads of the same file.
    pub loader: LoaderConfig,
}

/// The official `meta` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Copy the shards to the node's own storage first; the loader does it, see [`loader::stage`].
    #[serde(default)]
    pub copy_data: bool,
    /// Continue from a checkpoint; its absence is then an error.
    #[serde(default)]
    pub load_checkpoint: bool,
    /// `vit_tiny` … `vit_giant`.
    pub model_name: String,
    /// Blocks of the predictor.
    pub pred_depth: i64,
    /// Width of the predictor.
    pub pred_emb_dim: i64,
    /// Name of the checkpoint to continue from, inside `logging.folder`; the latest one if absent.
    #[serde(default)]
    pub read_checkpoint: Option<String>,
    /// Matrix products in bfloat16 under autocast, where the device has instructions for them: [`Bfloat16`]. The official
    /// code also scales the loss up and gradients down again (GradScaler), as float16 needs it; bfloat16 has float32's
    /// range and does not, so no step is ever skipped here.
    pub use_bfloat16: bool,
}

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
    /// Ours: images per optimizer step; `data.batch_size` times the number of ranks if absent.
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

/// The official `logging` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// The run directory.
    pub folder: PathBuf,
    /// Prefix of the files in it.
    pub write_tag: String,
}

/// The `trainer` section: keys the official files do not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trainer {
    /// Seed of the initial weights. Order, crops and masks have `loader.seed`.
    pub seed: u64,
    /// Threads of libtorch on the CPU; by default one per CPU this process may run on.
    pub threads: Option<usize>,
    /// Steps between two log lines.
    pub log_every: u64,
    /// The global batch of the results this file claims to reproduce; a run with another one warns.
    pub reproduces_global_batch: Option<u64>,
    /// End the run before this step, with a checkpoint; the schedules stay those of the whole run.
    pub stop_at_step: Option<u64>,
    /// Seconds to wait for a loader, at the start and after it died.
    pub loader_patience: u64,
    /// Compute the intermediate results of each block anew in the backward pass instead of keeping them: a step takes
    /// longer and much less memory. Changes no result where operators repeat themselves, as they do on a CPU.
    pub activation_checkpointing: bool,
    /// Let a GPU round the inputs of float32 products to TF32. The official runs compute products in bfloat16 and do
    /// not care.
    pub tf32: bool,
    /// What to do about a step whose loss or gradient is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Such steps that may be skipped in a row before the run stops all the same.
    pub max_skipped: u64,
}

/// What to do about a step whose loss or gradient is not finite; see [`crate::train`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// End the run with a diagnostic dump.
    Stop,
    /// Move nothing and go on with the next step.
    Skip,
}

/// The `checkpoint` section: keys the official files do not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Write one after every so many epochs.
    pub every_epochs: u64,
    /// And after every so many steps.
    pub every_steps: Option<u64>,
    /// And when so many minutes have passed since the last one.
    pub every_minutes: Option<f64>,
    /// How many of the latest to keep.
    pub keep: usize,
    /// One after every multiple of so many epochs, kept for good; 0 for none. The official code keeps every 50th, too.
    pub keep_every_epochs: u64,
}

fn one() -> f64 {
    1.0
}

impl Default for Trainer {
    fn default() -> Self {
        Trainer {
            seed: 0,
            threads: None,
            log_every: 10,
            reproduces_global_batch: None,
            stop_at_step: None,
            loader_patience: 300,
            activation_checkpointing: false,
            tf32: false,
            on_nonfinite: OnNonfinite::Stop,
            max_skipped: 10,
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            every_epochs: 1,
            every_steps: None,
            every_minutes: None,
            keep: 2,
            keep_every_epochs: 50,
        }
    }
}

/// Keys that may differ between a checkpoint and the run that continues it: they move files, speed and output, not
/// results. The two about steps that are not finite are here because a run that stopped at one may have to go on by
/// skipping it. A key ending in a dot stands for its section.
const FREE: [&str; 22] = [
    "checkpoint.",
    "data.image_folder",
    "data.num_workers",
    "data.pin_mem",
    "data.root_path",
    "loader.local_dir",
    "loader.pin_cores",
    "loader.shards",
    "loader.slots",
    "loader.workers",
    "logging.",
    "meta.copy_data",
    "meta.load_checkpoint",
    "meta.read_checkpoint",
    "trainer.activation_checkpointing",
    "trainer.log_every",
    "trainer.loader_patience",
    "trainer.max_skipped",
    "trainer.on_nonfinite",
    "trainer.reproduces_global_batch",
    "trainer.stop_at_step",
    "trainer.threads",
];

impl Config {
    /// Reads and checks a file. `sets` are `path.to.key=value` overrides; `shards` stands for `loader.shards`.
    pub fn load(path: &Path, sets: &[String], shards: Option<&Path>) -> Result<Config> {
        let mut config = Config::from_file(&ConfigFile::load(path, sets)?)?;
        if let Some(dir) = shards {
            config.loader.loader.shards = Some(dir.to_owned());
        }
        Ok(config)
    }

    /// The same from a file already parsed.
    pub fn from_file(file: &ConfigFile) -> Result<Config> {
        file.check_sections(&SECTIONS)?;
        let config = Config {
            meta: file.section("meta")?,
            optimization: file.section("optimization")?,
            logging: file.section("logging")?,
            trainer: file.section("trainer")?,
            checkpoint: file.section("checkpoint")?,
            loader: LoaderConfig::from_file(file)?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let Optimization {
            ema,
            epochs,
            lr,
            start_lr,
            final_lr,
            weight_decay,
            final_weight_decay,
            ..
        } = self.optimization;
        ensure!(epochs > 0, "optimization.epochs: 0 epochs train nothing");
        ensure!(
            ema.iter().all(|momentum| (0.0..=1.0).contains(momentum)),
            "optimization.ema: {ema:?} is outside 0..=1"
        );
        for (key, value) in [
            ("lr", lr),
            ("start_lr", start_lr),
            ("final_lr", final_lr),
            ("weight_decay", weight_decay),
            ("final_weight_decay", final_weight_decay),
        ] {
            ensure!(
                value.is_finite() && value >= 0.0,
                "optimization.{key}: {value} is not a number of 0 or more"
            );
        }
        ensure!(
            self.trainer.log_every > 0,
            "trainer.log_every: 0; give the number of steps between two lines"
        );
        ensure!(
            self.trainer.threads != Some(0),
            "trainer.threads: 0; leave it out for one per CPU"
        );
        ensure!(
            self.checkpoint.every_epochs > 0,
            "checkpoint.every_epochs: 0; a run always writes checkpoints"
        );
        ensure!(
            self.checkpoint.every_steps != Some(0),
            "checkpoint.every_steps: 0; leave it out for none"
        );
        ensure!(
            self.checkpoint
                .every_minutes
                .is_none_or(|minutes| minutes.is_finite() && minutes > 0.0),
            "checkpoint.every_minutes: {} is not a number above 0; leave it out for none",
            self.checkpoint.every_minutes.unwrap_or_default()
        );
        ensure!(
            self.checkpoint.keep > 0,
            "checkpoint.keep: 0; the latest checkpoint is always kept"
        );
        let tag = &self.logging.write_tag;
        ensure!(
            !tag.is_empty() && !tag.contains('/'),
            "logging.write_tag: {tag:?} is not a file name's beginning"
        );
        Ok(())
    }

    /// The run directory. Left to the official files' placeholder, it is an error.
    pub fn folder(&self) -> Result<&Path> {
        let folder = &self.logging.folder;
        if is_placeholder(&folder.to_string_lossy()) {
            bail!(
                "logging.folder: still the placeholder {:?}; set it in the file or with --set logging.folder=DIR",
                folder.display()
            );
        }
        Ok(folder)
    }

    /// Sizes of the networks.
    pub fn model(&self) -> Result<ModelConfig, crate::Error> {
        let Meta {
            model_name,
            pred_emb_dim,
            pred_depth,
            ..
        } = &self.meta;
        let (crop, patch) = (self.loader.data.crop_size, self.loader.mask.patch_size);
        ModelConfig::official(
            model_name,
            crop.into(),
            patch.into(),
            *pred_emb_dim,
            *pred_depth,
        )
    }

    /// Settings of the schedules.
    pub fn schedule(&self) -> ScheduleConfig {
        let Optimization {
            ema,
            epochs,
            final_lr,
            final_weight_decay,
            ipe_scale,
            lr,
            start_lr,
            warmup,
            weight_decay,
            ..
        } = self.optimization;
        ScheduleConfig {
            epochs,
            warmup,
            ipe_scale,
            start_lr,
            lr,
            final_lr,
            weight_decay,
            final_weight_decay,
            ema,
        }
    }

    /// Every key with its value, defaults filled in: what is printed, stored and compared. It reads back as a
    /// configuration file.
    pub fn resolved(&self) -> Map<String, Value> {
        let tree = json!({
            "checkpoint": self.checkpoint,
            "data": self.loader.data,
            "loader": self.loader.loader,
            "logging": self.logging,
            "mask": self.loader.mask,
            "meta": self.meta,
            "optimization": self.optimization,
            "trainer": self.trainer,
        });
        match tree {
            Value::Object(map) => map,
            _ => unreachable!("written as a map above"),
        }
    }

    /// One line for each key in which `self` and `earlier` would give different results.
    pub fn differences(&self, earlier: &Config) -> Vec<String> {
        let leaves = |config: &Config| {
            let mut leaves = BTreeMap::new();
            flatten("", &Value::Object(config.resolved()), &mut leaves);
            leaves
        };
        let (mine, theirs) = (leaves(self), leaves(earlier));
        // Defaults are filled in on both sides, so that a key is missing on neither.
        let differing = mine.iter().filter(|(key, value)| {
            let free = FREE
                .iter()
                .any(|name| key == name || (name.ends_with('.') && key.starts_with(name)));
            !free && theirs.get(*key) != Some(value)
        });
        differing
            .map(|(key, value)| format!("{key}: {value} now, {} then", theirs[key]))
            .collect()
    }

    /// What a user may expect from this file and does not get, one line each. `world` is the number of ranks.
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
        if self.meta.use_bfloat16
            && let Some(warning) = Bfloat16::of(device).warning()
        {
            warnings.push(format!("meta.use_bfloat16: {warning}"));
        }
        warnings
    }
}

/// Leaves of `value` with their dotted keys; lists count as leaves.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&key, value, into);
            }
        }
        leaf => drop(into.insert(prefix.to_owned(), leaf.clone())),
    }
}

#[cfg(test)]
mod tests;
