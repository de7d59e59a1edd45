//! The `loader` section: keys that the official files do not have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::between;
use crate::error::Error;

/// The `loader` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loader {
    /// Directory of the shards; by default `<root_path>/<image_folder>.shards`.
    pub shards: Option<PathBuf>,
    /// Directory on the node's own storage into which `meta.copy_data` copies them; by default `$SLURM_TMPDIR`, the
    /// job's directory in `/scratch/slurm_tmpdir`, or `$TMPDIR`.
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

    /// Checks every value against its limits.
    pub(super) fn check(&self) -> Result<(), Error> {
        between("loader.slots", self.slots, 2, 1024)?;
        if let Some(workers) = self.workers {
            between("loader.workers", workers, 1, 4096)?;
        }
        Ok(())
    }
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

/// The law by which context and target blocks are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskLaw {
    /// As the released code draws them, quirks included: the law behind every published checkpoint.
    Released,
    /// As the paper's text describes them.
    Unbiased,
}

/// How exactly `dct` images are decoded. Both ways are deterministic; other codecs have one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// With the whole inverse DCT of the image as stored.
    Exact,
    /// With the smallest inverse DCT that is a little finer than the crop needs: about half the work, and frequencies
    /// that resizing would remove anyway are not all removed in quite the same way.
    Fast,
}
