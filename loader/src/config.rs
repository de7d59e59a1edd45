//! The typed configuration of the loader: the official `data` and `mask` sections, and `loader`, which is ours.
//!
//! Used by the loader's commands and, for the same file, by the trainer, which types the remaining sections through
//! [`ConfigFile::section`]. Key names and meanings of `data` and `mask` are those of the official I-JEPA files, which
//! are read unchanged; defaults are the values all of those files share. Every value is checked once, in
//! [`LoaderConfig::load`]; afterwards the fields may be trusted.
//!
//! Each section stands in a file of its own, with its keys, their defaults and limits, and which of them may differ
//! between a checkpoint and the run that continues it.

mod check;
mod crop_size;
mod data;
mod fields;
mod file;
mod loader;
mod mask;
mod origin;
pub mod path_key;
mod shards;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use crate::error::Error;

pub use crop_size::CropSize;
pub use data::{Data, MAX_JITTER_STRENGTH};
pub use file::{ConfigFile, is_placeholder};
pub use loader::{Fidelity, Loader, MAX_WORKERS, MaskLaw};
pub use mask::Mask;
pub use origin::{Origin, Place};

/// The sections a configuration file may hold. Those that the loader does not read belong to the trainer.
pub const SECTIONS: [&str; 10] = [
    "data",
    "mask",
    "loader",
    "meta",
    "optimization",
    "logging",
    "trainer",
    "checkpoint",
    "method",
    "eval",
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
    /// `meta.copy_data`: serve from a copy of the shards on local storage, see [`crate::storage`].
    pub copy_data: bool,
    /// The samples that evaluation and probing show, ascending, where not all. No key: `loader run --only` reads them.
    pub only: Option<Arc<[u64]>>,
    /// Where all this was read.
    pub origin: Origin,
}

impl LoaderConfig {
    /// Reads, completes and checks the sections the loader uses. `sets` are `path.to.key=value` overrides; `shards`
    /// stands for `loader.shards`.
    ///
    /// # Errors
    /// The key at fault, and the cure where there is one.
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

    /// Takes and checks them from a file already parsed, for a program that reads further sections of it.
    ///
    /// # Errors
    /// The key at fault, and the cure where there is one.
    pub fn from_file(file: &ConfigFile) -> Result<LoaderConfig, Error> {
        LoaderConfig::check_keys(file)?;
        let config = LoaderConfig {
            data: file.section("data")?,
            mask: file.section("mask")?,
            loader: file.section("loader")?,
            global_batch: file.value("optimization.global_batch")?,
            copy_data: file.value("meta.copy_data")?.unwrap_or(false),
            only: None,
            origin: file.origin().clone(),
        };
        config.check().map_err(|error| file.origin().place(error))?;
        Ok(config)
    }

    /// Refuses keys of the loader's sections that nobody reads.
    ///
    /// # Errors
    /// The first one, with the nearest known key.
    pub fn check_keys(file: &ConfigFile) -> Result<(), Error> {
        file.check_keys::<Data>("data")?;
        file.check_keys::<Mask>("mask")?;
        file.check_keys::<Loader>("loader")
    }

    /// Returns the images of a global batch: `optimization.global_batch`, else `data.batch_size` for each of `world`
    /// ranks.
    pub fn global_batch(&self, world: u64) -> u64 {
        self.global_batch
            .unwrap_or(self.data.batch_size.saturating_mul(world))
    }

    /// Returns the side of evaluation's crops: that of the end of the run.
    pub fn eval_crop(&self) -> u32 {
        self.data.crop_size.at(u64::MAX)
    }

    /// Returns the length to which evaluation resizes the shorter side of an image.
    pub fn eval_resize(&self) -> u32 {
        let usual = (f64::from(self.eval_crop()) * 256.0 / 224.0).round() as u32;
        self.loader.eval_resize.unwrap_or(usual)
    }

    /// Returns the rows and columns of the patch grid of crops of `crop_size` pixels.
    pub fn grid(&self, crop_size: u32) -> (usize, usize) {
        let side = (crop_size / self.mask.patch_size) as usize;
        (side, side)
    }

    fn check(&self) -> Result<(), Error> {
        self.data.check()?;
        self.mask.check(&self.data.crop_size)?;
        self.loader.check()?;
        self.loader.mask_law.check(&self.mask)?;
        if let Some(batch) = self.global_batch {
            check::between("optimization.global_batch", batch, 1, u64::from(u32::MAX))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
