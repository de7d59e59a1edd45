//! The official `data` section: images, crops and what is done to them.

use serde::{Deserialize, Serialize};

use super::check::{between, share};
use super::crop_size::CropSize;
use crate::error::Error;

/// The official `data` section: images, crops and what is done to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Images of a group: what one GPU sees at once in the official runs, the unit of mask truncation, one ring slot.
    pub batch_size: u64,
    /// Strength of the colour distortion, 0 to 2.5.
    #[serde(default)]
    pub color_jitter_strength: f64,
    /// Range of the crop's area as a share of the image's.
    #[serde(default = "official_crop_scale")]
    pub crop_scale: [f64; 2],
    /// Side of the square crop given to the model, in pixels; or sides by the epochs from which on they hold, the first
    /// of them 0, as in `{0: 112, 80: 224}`.
    ///
    /// Which epoch a step is in is a matter of its number, so a step has one size.
    #[serde(default = "official_crop_size")]
    pub crop_size: CropSize,
    /// Folder of the images below `root_path`. Their shards lie beside it, as `<image_folder>.shards`.
    #[serde(default, with = "super::path_key::optional")]
    pub image_folder: Option<String>,
    /// The official hint for the number of workers; `loader.workers` decides.
    #[serde(default)]
    pub num_workers: Option<u64>,
    /// Accepted and without effect: rings are page-locked wherever a GPU reads them.
    #[serde(default)]
    pub pin_mem: bool,
    /// Directory above `image_folder`.
    #[serde(default, with = "super::path_key::optional")]
    pub root_path: Option<String>,
    /// Change brightness, contrast, saturation and hue of most crops, and take the colours of some.
    ///
    /// See [`crate::augment`].
    #[serde(default)]
    pub use_color_distortion: bool,
    /// Blur half of the crops.
    #[serde(default)]
    pub use_gaussian_blur: bool,
    /// Mirror half of the crops.
    #[serde(default)]
    pub use_horizontal_flip: bool,
}

/// The largest `color_jitter_strength`: the hue then takes any value, and torchvision refuses more.
pub const MAX_JITTER_STRENGTH: f64 = 2.5;
/// The largest `crop_size`: far beyond any use, and small enough that a slot's size cannot overflow.
const MAX_CROP_SIZE: u32 = 16_384;
/// The largest `batch_size`; with the above it bounds a slot.
const MAX_BATCH_SIZE: u64 = 1 << 20;

impl Data {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["image_folder", "num_workers", "pin_mem", "root_path"];

    /// Checks every value against its limits.
    pub(super) fn check(&self) -> Result<(), Error> {
        between("data.batch_size", self.batch_size, 1, MAX_BATCH_SIZE)?;
        for &(first, size) in self.crop_size.phases() {
            between(&self.crop_size.key(first), size, 1, MAX_CROP_SIZE)?;
        }
        share("data.crop_scale", self.crop_scale)?;
        if self.use_color_distortion {
            let strength = self.color_jitter_strength;
            between(
                "data.color_jitter_strength",
                strength,
                0.0,
                MAX_JITTER_STRENGTH,
            )?;
        }
        Ok(())
    }
}

fn official_crop_scale() -> [f64; 2] {
    [0.3, 1.0]
}

fn official_crop_size() -> CropSize {
    224.into()
}
