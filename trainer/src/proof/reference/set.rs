//! Reading a reference set. Every failure names the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::precision::Precision;
use crate::Error;
use crate::method::model::ModelConfig;
use crate::method::schedule::ScheduleConfig;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Elements that a sampled tensor keeps at most.
const SAMPLED: i64 = 2048;

/// `meta.json`, as far as the check needs it.
#[derive(Deserialize)]
pub struct Meta {
    config: Config,
    mask: Mask,
    #[serde(default = "four")]
    mlp_ratio: f64,
    pub adamw: AdamW,
    pub f32_vs_f64: Outputs,
    pub steps: Vec<Row>,
    #[serde(default)]
    pub tensor_stats: BTreeMap<String, Statistics>,
    #[serde(rename = "tolerance_torch_f32_vs_f64")]
    pub tolerance: Tolerance,
    /// What the set is compared with; not in the file.
    #[serde(skip)]
    pub precision: Precision,
}

fn four() -> f64 {
    4.0
}

#[derive(Deserialize)]
struct Config {
    img: i64,
    patch: i64,
    embed: i64,
    depth: i64,
    heads: i64,
    pemb: i64,
    pdepth: i64,
    n_img_batches: usize,
    ipe: u64,
    epochs: u64,
    warmup: f64,
    ipe_scale: f64,
    lr: f64,
    start_lr: f64,
    final_lr: f64,
    wd: f64,
    final_wd: f64,
    ema: [f64; 2],
}

#[derive(Deserialize)]
struct Mask {
    num_enc_masks: usize,
    num_pred_masks: usize,
}

#[derive(Deserialize)]
pub struct AdamW {
    pub groups: Vec<AdamWGroup>,
}

#[derive(Deserialize)]
pub struct AdamWGroup {
    pub wd_exclude: bool,
    pub params: Vec<String>,
}

/// How far torch's float32 lies from float64 at step 1.
#[derive(Deserialize)]
pub struct Outputs {
    pub outputs: BTreeMap<String, Deviation>,
    pub grads: BTreeMap<String, Deviation>,
}

/// How far torch's float32 lies from float64 in one tensor. Not every table has every column.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(default)]
pub struct Deviation {
    pub max_abs: f64,
    pub rms: f64,
    pub rel_l2: f64,
    pub ref_absmax: f64,
}

#[derive(Deserialize)]
pub struct Tolerance {
    pub state_step1: BTreeMap<String, Deviation>,
    pub state_step5: BTreeMap<String, Deviation>,
    pub grads_step1: BTreeMap<String, Deviation>,
    pub grads_step5: BTreeMap<String, Deviation>,
    #[serde(default)]
    pub grads_nenc2: BTreeMap<String, Deviation>,
    #[serde(default)]
    pub loss_f64: Vec<f64>,
    #[serde(default)]
    pub qkv_bias_k_part: BTreeMap<String, KeyBias>,
}

/// The key third of one qkv.bias.
#[derive(Deserialize, Clone, Copy)]
pub struct KeyBias {
    pub k_absmax_f32: f64,
    pub q_absmax: f64,
    pub state1_k_maxdiff: f64,
    pub state5_k_maxdiff: f64,
}

/// What was recorded of one step.
#[derive(Deserialize)]
pub struct Row {
    pub step: u64,
    pub loss: f64,
    pub lr: f64,
    pub wd: f64,
    pub momentum: f64,
    pub grad_stats: Option<GradientNorms>,
}

/// Norms of the gradients of the encoder's matrices.
#[derive(Deserialize, Clone, Copy, Debug)]
pub struct GradientNorms {
    pub first_layer: f64,
    pub last_layer: f64,
    pub min: f64,
    pub max: f64,
    pub avg: f64,
}

/// Sums over a whole tensor, in float64.
#[derive(Deserialize, Clone, Copy)]
pub struct Statistics {
    pub sum: f64,
    pub l2: f64,
    pub absmax: f64,
    pub dotcos: f64,
}

/// A reference set on disk.
pub struct Set {
    folder: PathBuf,
    pub meta: Meta,
}

impl Set {
    pub fn open(folder: &Path, precision: Precision) -> Result<Self, Error> {
        let path = folder.join("meta.json");
        let text = fs::read(&path).map_err(|error| fault(&path, error))?;
        let mut meta: Meta = serde_json::from_slice(&text).map_err(|error| fault(&path, error))?;
        meta.precision = precision;
        Ok(Self {
            folder: folder.to_path_buf(),
            meta,
        })
    }

    /// Loads a file that must be there.
    pub fn load(&self, name: &str) -> Result<Tensors, Error> {
        let path = self.path(name);
        let bytes = fs::read(&path).map_err(|error| fault(&path, error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| fault(&path, error))?;
        let mut tensors = Tensors::new();
        for (name, view) in file.tensors() {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                Dtype::I64 => Kind::Int64,
                other => {
                    return Err(fault(
                        &path,
                        format!("tensor `{name}` is {other:?}: not f32, f64 or i64"),
                    ));
                }
            };
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            tensors.insert(name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
        }
        Ok(tensors)
    }

    /// Loads a file that a set may lack.
    pub fn load_optional(&self, name: &str) -> Result<Option<Tensors>, Error> {
        if self.path(name).exists() {
            self.load(name).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Returns an error about a file of this set.
    pub fn fault(&self, name: &str, reason: impl ToString) -> Error {
        fault(&self.path(name), reason)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.safetensors"))
    }

    pub fn model(&self) -> ModelConfig {
        let config = &self.meta.config;
        ModelConfig {
            image_size: config.img,
            patch_size: config.patch,
            embed_dim: config.embed,
            depth: config.depth,
            heads: config.heads,
            mlp_dim: (config.embed as f64 * self.meta.mlp_ratio) as i64,
            predictor_dim: config.pemb,
            predictor_depth: config.pdepth,
        }
    }

    pub fn schedule(&self) -> ScheduleConfig {
        let config = &self.meta.config;
        ScheduleConfig {
            epochs: config.epochs,
            warmup: config.warmup,
            ipe_scale: config.ipe_scale,
            start_lr: config.start_lr,
            lr: config.lr,
            final_lr: config.final_lr,
            weight_decay: config.wd,
            final_weight_decay: config.final_wd,
            ema: config.ema,
        }
    }

    pub fn steps_per_epoch(&self) -> u64 {
        self.meta.config.ipe
    }

    /// Returns the batch of a step, counted from 1: images, context masks, target masks.
    pub fn batch<'a>(
        &self,
        inputs: &'a Tensors,
        step: u64,
    ) -> Result<(&'a Tensor, Vec<Tensor>, Vec<Tensor>), Error> {
        let batches = self.meta.config.n_img_batches.max(1) as u64;
        let images = self.named(
            "inputs",
            inputs,
            &format!("images.{}", (step - 1) % batches),
        )?;
        let masks = |kind: &str, count: usize| -> Result<Vec<Tensor>, Error> {
            let name = |i| format!("masks_{kind}.step{step}.{i}");
            (0..count)
                .map(|i| Ok(self.named("inputs", inputs, &name(i))?.shallow_clone()))
                .collect()
        };
        Ok((
            images,
            masks("enc", self.meta.mask.num_enc_masks)?,
            masks("pred", self.meta.mask.num_pred_masks)?,
        ))
    }

    /// Returns a tensor that the file must hold.
    pub fn named<'a>(
        &self,
        file: &str,
        tensors: &'a Tensors,
        name: &str,
    ) -> Result<&'a Tensor, Error> {
        tensors
            .get(name)
            .ok_or_else(|| self.fault(file, format!("tensor `{name}` is missing")))
    }
}

fn fault(path: &Path, reason: impl ToString) -> Error {
    Error::Reference {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    }
}

/// Returns the distance of the elements that a reduced set keeps of a flattened tensor of `count` elements.
pub fn sampling_stride(count: i64) -> i64 {
    ((count + SAMPLED - 1) / SAMPLED).max(1)
}
