//! The dimensions of a ring for a configuration.

use crate::config::LoaderConfig;
use crate::ring::Geometry;
use crate::sampler::PretrainingSampler;

/// Returns the dimensions of the ring that fits a configuration and its sampler.
pub fn geometry(config: &LoaderConfig, sampler: &PretrainingSampler) -> Geometry {
    let limits = sampler.mask_limits();
    let side = config.data.crop_size as usize;
    Geometry {
        slots: config.loader.slots,
        images_per_slot: config.data.batch_size as usize,
        channels: 3,
        height: side,
        width: side,
        context_masks: config.mask.num_enc_masks,
        target_masks: config.mask.num_pred_masks,
        max_context: limits.context,
        max_target: limits.target,
    }
}
