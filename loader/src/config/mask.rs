//! The official `mask` section: context and target blocks.

use serde::{Deserialize, Serialize};

use super::check::{between, fault, ordered, share};
use super::crop_size::CropSize;
use crate::error::Error;

/// The official `mask` section: context and target blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// Let the context overlap the targets.
    #[serde(default)]
    pub allow_overlap: bool,
    /// Range of a target block's height over its width.
    #[serde(default = "official_aspect_ratio")]
    pub aspect_ratio: [f64; 2],
    /// Range of a context block's share of the grid of patches.
    #[serde(default = "official_enc_mask_scale")]
    pub enc_mask_scale: [f64; 2],
    /// Number of patches of which a block must keep more. It must be below the smallest target block.
    #[serde(default = "official_min_keep")]
    pub min_keep: usize,
    /// Number of context blocks of an image, at most 64.
    #[serde(default = "official_num_enc_masks")]
    pub num_enc_masks: usize,
    /// Number of target blocks of an image, at most 64.
    #[serde(default = "official_num_pred_masks")]
    pub num_pred_masks: usize,
    /// Side of a patch, in pixels; every `data.crop_size` is a multiple of it.
    pub patch_size: u32,
    /// Range of a target block's share of the grid of patches.
    #[serde(default = "official_pred_mask_scale")]
    pub pred_mask_scale: [f64; 2],
}

/// The most context or target blocks of an image.
const MAX_MASKS: usize = 64;

impl Mask {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];

    /// Keys that cannot: they decide the sizes of the networks.
    pub const FIXED_ON_RESUME: &[&str] = &["patch_size"];

    /// Checks every value against its limits, and the patches against the crops.
    pub(super) fn check(&self, crop_size: &CropSize) -> Result<(), Error> {
        for &(first, size) in crop_size.phases() {
            between("mask.patch_size", self.patch_size, 1, size)?;
            if !size.is_multiple_of(self.patch_size) {
                let problem = format!("is not a multiple of mask.patch_size {}", self.patch_size);
                return Err(fault(&crop_size.key(first), size, problem));
            }
        }
        share("mask.enc_mask_scale", self.enc_mask_scale)?;
        share("mask.pred_mask_scale", self.pred_mask_scale)?;
        ordered("mask.aspect_ratio", self.aspect_ratio, 1e3)?;
        between("mask.num_enc_masks", self.num_enc_masks, 1, MAX_MASKS)?;
        between("mask.num_pred_masks", self.num_pred_masks, 1, MAX_MASKS)
    }
}

fn official_aspect_ratio() -> [f64; 2] {
    [0.75, 1.5]
}

fn official_enc_mask_scale() -> [f64; 2] {
    [0.85, 1.0]
}

fn official_pred_mask_scale() -> [f64; 2] {
    [0.15, 0.2]
}

fn official_min_keep() -> usize {
    10
}

fn official_num_enc_masks() -> usize {
    1
}

fn official_num_pred_masks() -> usize {
    4
}
