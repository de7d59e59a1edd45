//! The `loader` section: keys that the official files do not have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{between, fault};
use super::mask::Mask;
use crate::error::Error;

/// The most `workers`: each is a thread of the system, which has no more for long.
pub const MAX_WORKERS: usize = 4096;
/// The largest `eval_resize`: twice the largest crop.
const MAX_EVAL_RESIZE: u32 = 32_768;

/// The `loader` section: keys of the data path that the official files do not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loader {
    /// Directory of the shards. By default `<root_path>/<image_folder>.shards` of the section `data`.
    #[serde(with = "super::path_key::optional")]
    pub shards: Option<PathBuf>,
    /// Directory on the node's own storage to which `meta.copy_data` copies. By default `$SLURM_TMPDIR`,
    /// `/scratch/slurm_tmpdir/$SLURM_JOB_ID` or `$TMPDIR`, the first that there is.
    #[serde(with = "super::path_key::optional")]
    pub local_dir: Option<PathBuf>,
    /// Split of the data set to train on.
    pub split: String,
    /// Length of the shorter side to which evaluation resizes an image before it cuts out the middle `data.crop_size`,
    /// that of the end of the run. By default that times 256/224, as is usual.
    pub eval_resize: Option<u32>,
    /// Seed of order, crops, flips and mask positions.
    pub seed: u64,
    /// Worker threads, 1 to 4096. By default one per CPU that this process may run on.
    pub workers: Option<usize>,
    /// Slots of a ring, 2 to 1024: how many groups may be ready ahead of the trainer.
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
    pub const FREE_ON_RESUME: &[&str] = &[
        "eval_resize",
        "local_dir",
        "pin_cores",
        "shards",
        "slots",
        "workers",
    ];

    /// Checks every value against its limits.
    pub(super) fn check(&self) -> Result<(), Error> {
        between("loader.slots", self.slots, 2, 1024)?;
        if let Some(resize) = self.eval_resize {
            between("loader.eval_resize", resize, 1, MAX_EVAL_RESIZE)?;
        }
        if let Some(workers) = self.workers {
            between("loader.workers", workers, 1, MAX_WORKERS)?;
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
            eval_resize: None,
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
    /// The released code's law, quirks included: that of every published checkpoint.
    Released,
    /// The law that the paper's text describes: any position, scale and shape independent, and a random subset of the
    /// context kept where it is truncated.
    Unbiased,
    /// One block hidden, and all the rest seen: "block" of the paper's table 6, with `pred_mask_scale: [0.6, 0.6]`.
    Block,
    /// As many patches hidden as in a block of `block`, but anywhere: "random" of the paper's table 6.
    Random,
    /// A quarter of the grid seen, another one for each image, and the other three hidden: "rasterized" of table 6.
    Rasterized,
}

impl MaskLaw {
    /// Returns how many targets an image has under this law, where that is no matter of `mask.num_pred_masks`.
    fn targets(self) -> Option<usize> {
        match self {
            MaskLaw::Released | MaskLaw::Unbiased => None,
            MaskLaw::Block | MaskLaw::Random => Some(1),
            MaskLaw::Rasterized => Some(3),
        }
    }

    /// Refuses numbers of masks that this law does not have.
    pub(super) fn check(self, mask: &Mask) -> Result<(), Error> {
        let Some(targets) = self.targets() else {
            return Ok(());
        };
        for (key, value, only) in [
            ("mask.num_pred_masks", mask.num_pred_masks, targets),
            ("mask.num_enc_masks", mask.num_enc_masks, 1),
        ] {
            if value != only {
                let law = format!("{self:?}").to_lowercase();
                let problem = format!("must be {only} under loader.mask_law: {law}");
                return Err(fault(key, value, problem));
            }
        }
        Ok(())
    }
}

/// How exactly `dct` images are decoded. Both ways are deterministic; other codecs have one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// The whole inverse DCT of the image as stored.
    Exact,
    /// The smallest inverse DCT that is a little finer than the crop needs, which is about half the work. Some of the
    /// frequencies that resizing takes away anyway are taken away a little differently.
    Fast,
}
