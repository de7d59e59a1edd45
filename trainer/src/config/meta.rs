//! The official `meta` section.

use exchange::model::{CUSTOM, Preset, SizesError};
use exchange::weights::MAX_DEPTH;
use serde::{Deserialize, Serialize};
use shardtool::Escaped;

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
    /// Blocks of a `custom` encoder, 1 to 1000; a key of ours, as `embed_dim` and `num_heads` are.
    #[serde(default)]
    pub depth: Option<i64>,
    /// Width of a `custom` encoder, 1 to 16384: a multiple of 4 and of its heads. Its MLPs are 4 times as wide.
    #[serde(default)]
    pub embed_dim: Option<i64>,
    /// Continue from a checkpoint, whose absence is then an error.
    #[serde(default)]
    pub load_checkpoint: bool,
    /// The encoder: `vit_tiny`, `vit_small`, `vit_base`, `vit_large`, `vit_huge` or `vit_giant`; or
    /// `custom`, which `embed_dim`, `depth` and `num_heads` then describe.
    pub model_name: String,
    /// Attention heads of a `custom` encoder, and of its predictor.
    #[serde(default)]
    pub num_heads: Option<i64>,
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
    pub const FIXED_ON_RESUME: &[&str] = &[
        "depth",
        "embed_dim",
        "model_name",
        "num_heads",
        "pred_depth",
        "pred_emb_dim",
    ];

    /// Returns the sizes of the encoder.
    ///
    /// # Errors
    /// For a name that is none.
    pub(super) fn encoder(&self) -> Result<Preset, SizesError> {
        match (self.embed_dim, self.depth, self.num_heads) {
            (Some(width), Some(depth), Some(heads)) if self.model_name == CUSTOM => {
                Ok(Preset::custom(width, depth, heads))
            }
            _ => Preset::named(&self.model_name),
        }
    }

    /// Checks sizes against their limits, and that those of an encoder of one's own come with its name.
    pub(super) fn check(&self) -> Result<(), Error> {
        between("meta.pred_depth", self.pred_depth, 1, MAX_DEPTH as i64)?;
        between("meta.pred_emb_dim", self.pred_emb_dim, 1, MAX_WIDTH)?;
        for (key, value, most) in [
            ("meta.embed_dim", self.embed_dim, MAX_WIDTH),
            ("meta.depth", self.depth, MAX_DEPTH as i64),
            ("meta.num_heads", self.num_heads, MAX_WIDTH),
        ] {
            match value {
                Some(value) if self.model_name == CUSTOM => between(key, value, 1, most)?,
                Some(_) => {
                    let reason = format!(
                        "{} has its own; meta.model_name: {CUSTOM} takes it",
                        Escaped::new(&self.model_name)
                    );
                    return Err(Error::value(key, reason));
                }
                None if self.model_name == CUSTOM => {
                    let reason = format!("missing; meta.model_name: {CUSTOM} does not say it");
                    return Err(Error::value(key, reason));
                }
                None => {}
            }
        }
        Ok(())
    }
}
