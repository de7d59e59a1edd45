//! The typed configuration of the loader: the official `data` and `mask` sections, and `loader`, which is ours.
//!
//! Used by the loader's commands and, for the same file, by the trainer, which types the remaining sections through
//! [`ConfigFile::section`] and compares [`LoaderConfig::sampling_hash`] with the loader's. Key names and meanings of
//! `data` and `mask` are those of the official I-JEPA files, which are read unchanged; defaults are the values all of
//! those files share. Every value is checked once, in [`LoaderConfig::load`]; afterwards the fields may be trusted.

mod file;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::augment::MAX_STRENGTH;
use crate::error::Error;
pub use file::{ConfigFile, is_placeholder};

/// Sections a configuration file may hold; those the loader does not read belong to the trainer.
pub const SECTIONS: [&str; 8] = [
    "data",
    "mask",
    "loader",
    "meta",
    "optimization",
    "logging",
    "trainer",
    "checkpoint",
];

/// What the loader needs to know to sample, decode and serve.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// Images and crops.
    pub data: Data,
    /// Context and target blocks.
    pub mask: Mask,
    /// Our own keys.
    pub loader: Loader,
    /// `optimization.global_batch`, the one key of the trainer's sections that decides samples.
    pub global_batch: Option<u64>,
    /// `meta.copy_data`: serve from a copy of the shards on local storage, [`crate::stage`].
    pub copy_data: bool,
}

/// The official `data` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Images in a group: the official batch of one GPU, and one ring slot.
    pub batch_size: u64,
    /// Strength of the colour distortion.
    #[serde(default)]
    pub color_jitter_strength: f64,
    /// Range of the crop's share of the image's area.
    #[serde(default = "official_crop_scale")]
    pub crop_scale: [f64; 2],
    /// Side of the square crop given to the model, in pixels.
    #[serde(default = "official_crop_size")]
    pub crop_size: u32,
    /// Folder of the images below `root_path`.
    #[serde(default)]
    pub image_folder: Option<String>,
    /// The official hint for the number of workers; `loader.workers` decides.
    #[serde(default)]
    pub num_workers: Option<u64>,
    /// Accepted and without effect: slots are always page-locked by the trainer.
    #[serde(default)]
    pub pin_mem: bool,
    /// Directory above `image_folder`.
    #[serde(default)]
    pub root_path: Option<String>,
    /// Change brightness, contrast, saturation and hue of most crops and take the colours of some: [`crate::augment`].
    #[serde(default)]
    pub use_color_distortion: bool,
    /// Blur half of the crops.
    #[serde(default)]
    pub use_gaussian_blur: bool,
    /// Mirror half of the crops.
    #[serde(default)]
    pub use_horizontal_flip: bool,
}

impl Data {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["image_folder", "num_workers", "pin_mem", "root_path"];
}

/// The official `mask` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// Let the context overlap the targets.
    #[serde(default)]
    pub allow_overlap: bool,
    /// Range of a target block's height over its width.
    #[serde(default = "official_aspect_ratio")]
    pub aspect_ratio: [f64; 2],
    /// Range of the context block's share of the grid.
    #[serde(default = "official_enc_mask_scale")]
    pub enc_mask_scale: [f64; 2],
    /// A block must keep more patches than this.
    #[serde(default = "official_min_keep")]
    pub min_keep: usize,
    /// Context blocks per image.
    #[serde(default = "official_num_enc_masks")]
    pub num_enc_masks: usize,
    /// Target blocks per image.
    #[serde(default = "official_num_pred_masks")]
    pub num_pred_masks: usize,
    /// Side of a patch, in pixels.
    pub patch_size: u32,
    /// Range of a target block's share of the grid.
    #[serde(default = "official_pred_mask_scale")]
    pub pred_mask_scale: [f64; 2],
}

impl Mask {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];
}

/// The `loader` section: keys the official files do not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loader {
    /// Directory of the shards; by default `<root_path>/<image_folder>.shards`.
    pub shards: Option<PathBuf>,
    /// Where `meta.copy_data` copies them; by default `$SLURM_TMPDIR`, the job's directory in `/scratch/slurm_tmpdir`, or
    /// `$TMPDIR`.
    pub local_dir: Option<PathBuf>,
    /// Split to train on.
    pub split: String,
    /// Seed of order, crops, flips and mask positions.
    pub seed: u64,
    /// Worker threads; by default one per CPU this process may run on.
    pub workers: Option<usize>,
    /// Slots of a ring: how many groups may be ready ahead of the trainer.
    pub slots: usize,
    /// The law of the masks.
    pub mask_law: MaskLaw,
    /// How exactly `dct` images are decoded.
    pub fidelity: Fidelity,
    /// Pin each worker to one CPU.
    pub pin_cores: bool,
}

impl Loader {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["local_dir", "pin_cores", "shards", "slots", "workers"];
}

/// By which law context and target blocks are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskLaw {
    /// As the released code draws them, quirks included: the law behind every published checkpoint.
    Released,
    /// As the paper's text describes them.
    Unbiased,
}

/// How exactly `dct` images are decoded. Both are deterministic; other codecs have but one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// With the whole inverse DCT of the image as stored.
    Exact,
    /// With the smallest inverse DCT that is a little finer than the crop needs: about half the work, and frequencies
    /// that resizing would remove anyway are not all removed in quite the same way.
    Fast,
}

impl Default for Loader {
    fn default() -> Self {
        Loader {
            shards: None,
            local_dir: None,
            split: "train".to_owned(),
            seed: 0,
            workers: None,
            slots: 4,
            mask_law: MaskLaw::Released,
            fidelity: Fidelity::Fast,
            pin_cores: false,
        }
    }
}

fn official_crop_scale() -> [f64; 2] {
    [0.3, 1.0]
}
fn official_crop_size() -> u32 {
    224
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

/// Largest side of a crop: far beyond any use, and small enough that a slot's size cannot overflow.
const MAX_CROP_SIZE: u32 = 16_384;
/// Largest group; with the above it bounds a slot.
const MAX_BATCH_SIZE: u64 = 1 << 20;
/// Most context or target blocks of an image.
const MAX_MASKS: usize = 64;

impl LoaderConfig {
    /// Reads, completes and checks the sections the loader uses. `sets` are `path.to.key=value` overrides; `shards`
    /// stands for `loader.shards`.
    pub fn load(
        path: &Path,
        sets: &[String],
        shards: Option<&Path>,
    ) -> Result<LoaderConfig, Error> {
        let file = ConfigFile::load(path, sets)?;
        file.check_sections(&SECTIONS)?;
        let mut config = LoaderConfig::from_file(&file)?;
        if let Some(dir) = shards {
            config.loader.shards = Some(dir.to_owned());
        }
        Ok(config)
    }

    /// The same from a file already parsed, for a program that reads further sections of it.
    pub fn from_file(file: &ConfigFile) -> Result<LoaderConfig, Error> {
        let config = LoaderConfig {
            data: file.section("data")?,
            mask: file.section("mask")?,
            loader: file.section("loader")?,
            global_batch: file.value("optimization.global_batch")?,
            copy_data: file.value("meta.copy_data")?.unwrap_or(false),
        };
        config.check()?;
        Ok(config)
    }

    /// Images of a global batch: `optimization.global_batch`, else `data.batch_size` for each of `world` ranks.
    pub fn global_batch(&self, world: u64) -> u64 {
        self.global_batch
            .unwrap_or(self.data.batch_size.saturating_mul(world))
    }

    /// Rows and columns of the patch grid.
    pub fn grid(&self) -> (usize, usize) {
        let side = (self.data.crop_size / self.mask.patch_size) as usize;
        (side, side)
    }

    /// Where the shards are: `loader.shards`, else `<root_path>/<image_folder>.shards`. A directory that does not
    /// exist is an error that tells how to build it.
    pub fn shards_dir(&self) -> Result<PathBuf, Error> {
        if let Some(dir) = &self.loader.shards {
            let text = dir.to_string_lossy();
            if is_placeholder(&text) {
                return Err(Error::Placeholder {
                    key: "loader.shards".to_owned(),
                    value: text.into_owned(),
                    cure: "set it to the directory that shardtool built, or give --shards DIR"
                        .to_owned(),
                });
            }
            let images = text
                .trim_end_matches('/')
                .trim_end_matches(".shards")
                .to_owned();
            return existing(
                dir.clone(),
                "loader.shards or --shards",
                PathBuf::from(images),
            );
        }
        let root = needed("data.root_path", self.data.root_path.as_deref())?;
        let folder =
            needed("data.image_folder", self.data.image_folder.as_deref())?.trim_end_matches('/');
        // An image folder of "" or "." is the root itself; its shards lie beside it, not inside it.
        let images = if matches!(folder, "" | ".") {
            PathBuf::from(root.trim_end_matches('/'))
        } else {
            Path::new(root).join(folder)
        };
        let mut dir = images.clone().into_os_string();
        dir.push(".shards");
        existing(
            PathBuf::from(dir),
            "data.root_path and data.image_folder",
            images,
        )
    }

    /// A hash of everything that decides which pixels and masks a step sees, given the shards: two programs that agree
    /// on it agree on every sample. Workers, slots and paths are left out; so is the global batch, which depends on the
    /// number of ranks and is compared on its own.
    pub fn sampling_hash(&self) -> u64 {
        // A struct, not a map: the order of the fields is the order of the bytes, whatever serde_json's features.
        #[derive(Serialize)]
        struct Sampling<'a> {
            law_version: u32,
            batch_size: u64,
            crop_scale: [f64; 2],
            crop_size: u32,
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
            law_version: crate::sampler::LAW_VERSION,
            batch_size: data.batch_size,
            crop_scale: data.crop_scale,
            crop_size: data.crop_size,
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

    fn check(&self) -> Result<(), Error> {
        let (data, mask, loader) = (&self.data, &self.mask, &self.loader);
        between("data.batch_size", data.batch_size, 1, MAX_BATCH_SIZE)?;
        between("data.crop_size", data.crop_size, 1, MAX_CROP_SIZE)?;
        share("data.crop_scale", data.crop_scale)?;
        if data.use_color_distortion {
            let strength = data.color_jitter_strength;
            between("data.color_jitter_strength", strength, 0.0, MAX_STRENGTH)?;
        }
        between("mask.patch_size", mask.patch_size, 1, data.crop_size)?;
        if !data.crop_size.is_multiple_of(mask.patch_size) {
            let problem = format!("is not a multiple of mask.patch_size {}", mask.patch_size);
            return Err(fault("data.crop_size", data.crop_size, &problem));
        }
        share("mask.enc_mask_scale", mask.enc_mask_scale)?;
        share("mask.pred_mask_scale", mask.pred_mask_scale)?;
        ordered("mask.aspect_ratio", mask.aspect_ratio, 1e3)?;
        between("mask.num_enc_masks", mask.num_enc_masks, 1, MAX_MASKS)?;
        between("mask.num_pred_masks", mask.num_pred_masks, 1, MAX_MASKS)?;
        between("loader.slots", loader.slots, 2, 1024)?;
        if let Some(workers) = loader.workers {
            between("loader.workers", workers, 1, 4096)?;
        }
        if let Some(batch) = self.global_batch {
            between("optimization.global_batch", batch, 1, u64::from(u32::MAX))?;
        }
        Ok(())
    }
}

fn needed<'a>(key: &str, value: Option<&'a str>) -> Result<&'a str, Error> {
    let (key, cure) = (
        key.to_owned(),
        format!(
            "set it in the file or with --set {key}=…, or say where the shards are with --shards DIR"
        ),
    );
    match value {
        None => Err(Error::MissingKey { key, cure }),
        Some(text) if is_placeholder(text) => Err(Error::Placeholder {
            key,
            value: text.to_owned(),
            cure,
        }),
        Some(text) => Ok(text),
    }
}

fn existing(dir: PathBuf, why: &str, images: PathBuf) -> Result<PathBuf, Error> {
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(Error::NoShards {
            dir,
            why: format!("named by {why}"),
            images,
        })
    }
}

fn fault(key: &str, value: impl ToString, problem: &str) -> Error {
    Error::Value {
        key: key.to_owned(),
        value: value.to_string(),
        problem: problem.to_owned(),
    }
}

fn between<T: PartialOrd + ToString + Copy>(
    key: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Error> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(fault(
        key,
        value,
        &format!("is outside {}..={}", low.to_string(), high.to_string()),
    ))
}

/// A range of shares of an area: 0 < low ≤ high ≤ 1.
fn share(key: &str, range: [f64; 2]) -> Result<(), Error> {
    ordered(key, range, 1.0)
}

fn ordered(key: &str, [low, high]: [f64; 2], most: f64) -> Result<(), Error> {
    let shown = format!("[{low}, {high}]");
    // Written so that NaN fails too.
    if !(low > 0.0 && high <= most) {
        return Err(fault(
            key,
            shown,
            &format!("must lie above 0 and not above {most}"),
        ));
    }
    if low > high {
        return Err(fault(key, shown, "has its smaller bound last"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
