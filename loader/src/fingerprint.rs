//! The fingerprint of a configuration, by which two programs find that they draw the same samples.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{CropSize, Fidelity, LoaderConfig, MaskLaw};
use crate::sampler::{EVALUATION_VERSION, PROBING_VERSION, Plan, SAMPLING_VERSION};

impl LoaderConfig {
    /// Returns the hash by which two programs find that they show the same under a plan.
    pub fn plan_hash(&self, plan: Plan) -> u64 {
        match plan {
            Plan::Pretraining => self.sampling_hash(),
            Plan::Evaluation => self.evaluation_hash(),
            Plan::Probing => self.probing_hash(),
        }
    }

    /// Returns a hash of everything that decides which pixels and masks a step sees, given the shards.
    ///
    /// Two programs that agree on it agree on every sample. Workers, slots and paths are left out; so is the global
    /// batch, which depends on the number of ranks and is compared on its own.
    pub fn sampling_hash(&self) -> u64 {
        // A struct, not a map: the order of the fields is the order of the bytes, whatever serde_json's features.
        #[derive(Serialize)]
        struct Sampling<'a> {
            law_version: u32,
            batch_size: u64,
            crop_scale: [f64; 2],
            // One size is a number, as it was before there could be several.
            crop_size: &'a CropSize,
            use_horizontal_flip: bool,
            allow_overlap: bool,
            aspect_ratio: [f64; 2],
            enc_mask_scale: [f64; 2],
            min_keep: usize,
            num_enc_masks: usize,
            num_pred_masks: usize,
            patch_size: u32,
            pred_mask_scale: [f64; 2],
            seed: u64,
            split: &'a str,
            mask_law: MaskLaw,
            fidelity: Fidelity,
            // Later keys are left out where they change nothing, so that runs without them keep their hash.
            #[serde(skip_serializing_if = "Option::is_none")]
            color_distortion: Option<f64>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            gaussian_blur: bool,
        }
        let (data, mask, loader) = (&self.data, &self.mask, &self.loader);
        let canonical = serde_json::to_vec(&Sampling {
            law_version: SAMPLING_VERSION,
            batch_size: data.batch_size,
            crop_scale: data.crop_scale,
            crop_size: &data.crop_size,
            use_horizontal_flip: data.use_horizontal_flip,
            allow_overlap: mask.allow_overlap,
            aspect_ratio: mask.aspect_ratio,
            enc_mask_scale: mask.enc_mask_scale,
            min_keep: mask.min_keep,
            num_enc_masks: mask.num_enc_masks,
            num_pred_masks: mask.num_pred_masks,
            patch_size: mask.patch_size,
            pred_mask_scale: mask.pred_mask_scale,
            seed: loader.seed,
            split: &loader.split,
            mask_law: loader.mask_law,
            fidelity: loader.fidelity,
            color_distortion: data
                .use_color_distortion
                .then_some(data.color_jitter_strength),
            gaussian_blur: data.use_gaussian_blur,
        })
        .expect("plain numbers and strings always serialise");
        xxh3_64(&canonical)
    }

    /// Returns a hash of everything that decides which pixels an evaluation shows, given the shards.
    fn evaluation_hash(&self) -> u64 {
        #[derive(Serialize)]
        struct Evaluation<'a> {
            evaluation_version: u32,
            batch_size: u64,
            crop_size: u32,
            eval_resize: u32,
            split: &'a str,
            fidelity: Fidelity,
            // Left out where it changes nothing.
            #[serde(skip_serializing_if = "Option::is_none")]
            only: Option<&'a [u64]>,
        }
        let canonical = serde_json::to_vec(&Evaluation {
            evaluation_version: EVALUATION_VERSION,
            batch_size: self.data.batch_size,
            crop_size: self.eval_crop(),
            eval_resize: self.eval_resize(),
            split: &self.loader.split,
            fidelity: self.loader.fidelity,
            only: self.only.as_deref(),
        })
        .expect("plain numbers and strings always serialise");
        xxh3_64(&canonical)
    }

    /// Returns a hash of everything that decides which pixels probing shows, given the shards.
    fn probing_hash(&self) -> u64 {
        #[derive(Serialize)]
        struct Probing<'a> {
            probing_version: u32,
            batch_size: u64,
            crop_scale: [f64; 2],
            crop_size: u32,
            seed: u64,
            split: &'a str,
            fidelity: Fidelity,
            only: Option<&'a [u64]>,
        }
        let canonical = serde_json::to_vec(&Probing {
            probing_version: PROBING_VERSION,
            batch_size: self.data.batch_size,
            crop_scale: self.data.crop_scale,
            crop_size: self.eval_crop(),
            seed: self.loader.seed,
            split: &self.loader.split,
            fidelity: self.loader.fidelity,
            only: self.only.as_deref(),
        })
        .expect("plain numbers and strings always serialise");
        xxh3_64(&canonical)
    }
}
