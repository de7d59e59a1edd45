//! The signs of collapse in a step's record: numbers that tell if features still tell images apart.

use serde::{Deserialize, Serialize};

use super::record::null_is_nan;

/// What the networks' outputs look like, over the images of some steps of rank 0.
///
/// An image's *pooled* vector is the mean of a network's outputs over the patches that the step computed of it: those
/// of the target blocks, or the visible ones of the context encoder. Numbers about *patches* are of 512 outputs at most
/// of the last group. Targets are normalised per patch, as the loss sees them. Where a number is not finite it is
/// `null` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signs {
    /// Images that the pooled vectors are of.
    pub images: f64,
    /// Width of the encoder: the highest rank that there can be.
    pub width: f64,
    /// Targets: standard deviation of a pooled dimension over images, mean over dimensions.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_std: f64,
    /// Targets: effective rank of the pooled vectors, less the means of their groups.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_rank: f64,
    /// Targets: mean cosine of the pooled vectors of two images.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_cosine: f64,
    /// Targets: standard deviation of a dimension over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_patch_std: f64,
    /// Targets: effective rank over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_patch_rank: f64,
    /// Targets: share of the variance over patches that their position alone explains, over all images.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_position_share: f64,
    /// Context encoder: standard deviation of a pooled dimension.
    #[serde(deserialize_with = "null_is_nan")]
    pub context_std: f64,
    /// Context encoder: effective rank of the pooled vectors.
    #[serde(deserialize_with = "null_is_nan")]
    pub context_rank: f64,
    /// Context encoder: mean cosine of two images.
    #[serde(deserialize_with = "null_is_nan")]
    pub context_cosine: f64,
    /// Context encoder: standard deviation over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub context_patch_std: f64,
    /// Context encoder: effective rank over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub context_patch_rank: f64,
    /// Predictor: standard deviation of a pooled dimension.
    #[serde(deserialize_with = "null_is_nan")]
    pub predictor_std: f64,
    /// Predictor: effective rank of the pooled vectors.
    #[serde(deserialize_with = "null_is_nan")]
    pub predictor_rank: f64,
    /// Predictor: mean cosine of two images.
    #[serde(deserialize_with = "null_is_nan")]
    pub predictor_cosine: f64,
    /// Predictor: standard deviation over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub predictor_patch_std: f64,
    /// Predictor: effective rank over patches.
    #[serde(deserialize_with = "null_is_nan")]
    pub predictor_patch_rank: f64,
    /// Euclidean norm of the step of all trained weights.
    #[serde(deserialize_with = "null_is_nan")]
    pub update_norm: f64,
    /// That norm over the norm of the weights.
    #[serde(deserialize_with = "null_is_nan")]
    pub update_ratio: f64,
    /// Euclidean norm of the target encoder's step over the norm of its weights.
    #[serde(deserialize_with = "null_is_nan")]
    pub target_update_ratio: f64,
}
