//! The official `meta` section.

use exchange::weights::MAX_DEPTH;
use serde::{Deserialize, Serialize};

use super::{Error, between};

#[cfg(doc)]
use crate::torch::device::Bfloat16;

/// The largest `pred_emb_dim`: far beyond any use, and small enough that sizes cannot overflow.
const MAX_WIDTH: i64 = 16_384;

/// The official `meta` section: networks, precision and where to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Copy the shards to storage of the node's own first; `loader.local_dir` says where.
    ///
    /// The loader reads it: [`LoaderConfig::copy_data`](loader::LoaderConfig).
    #[serde(default)]
    pub copy_data: bool,
    /// Continue from a checkpoint, whose absence is then an error.
    #[serde(default)]
    pub load_checkpoint: bool,
    /// The encoder: `vit_tiny`, `vit_small`, `vit_base`, `vit_large`, `vit_huge` or `vit_giant`.
    pub model_name: String,
    /// Blocks of the predictor, 1 to 1000.
    pub pred_depth: i64,
    /// Width of the predictor, 1 to 16384: a multiple of 4 and of the encoder's heads.
    pub pred_emb_dim: i64,
    /// Name of the checkpoint to continue from, inside `logging.folder`. By default the latest.
    #[serde(default, with = "loader::config::path_key::optional")]
    pub read_checkpoint: Option<String>,
    /// Compute matrix products in bfloat16, where the device has instructions for it.
    ///
    /// That is autocast, see [`Bfloat16`]. The official code also scales the loss up and gradients down again
    /// (GradScaler), as float16 needs it. bfloat16 has float32's range and needs none: no step is ever skipped for it.
    pub use_bfloat16: bool,
}

impl Meta {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["copy_data", "load_checkpoint", "read_checkpoint"];

    /// Keys that cannot: they decide the sizes of the networks.
    pub const FIXED_ON_RESUME: &[&str] = &["model_name", "pred_depth", "pred_emb_dim"];

    /// Checks sizes against their limits. The encoder's are those of a name.
    pub(super) fn check(&self) -> Result<(), Error> {
        between("meta.pred_depth", self.pred_depth, 1, MAX_DEPTH as i64)?;
        between("meta.pred_emb_dim", self.pred_emb_dim, 1, MAX_WIDTH)
    }
}
