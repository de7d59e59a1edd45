//! The memory of a training, before it is taken.
//!
//! Linux kills a process that takes more than there is, without a word; CUDA says so, but late. What is certain to be
//! needed and is not there ends a run before it begins. What is estimated only makes a warning.

use loader::ring::Geometry;
use shardtool::memory::{self, Size};
use tch::Device;

use crate::Error;
use crate::config::Config;
use crate::error::MAKING;
use crate::method::model::{MLP_RATIO, ModelConfig};
use crate::method::parameters::{self, Parameter};
use crate::torch::cuda;

/// Bytes of a float32.
const FLOAT: u64 = 4;

/// Returns the bytes that training takes for certain: weights, gradients and two moments of what is trained, and the
/// target encoder, all in float32.
fn certain(model: &ModelConfig) -> u64 {
    let values = |each: &Parameter| -> u64 {
        let dimensions = each.shape.iter().map(|&dimension| dimension as u64);
        dimensions.fold(1, u64::saturating_mul)
    };
    let (encoder, predictor) = (parameters::encoder(model), parameters::predictor(model));
    let target: u64 = encoder.iter().map(values).sum();
    let both = encoder.iter().chain(&predictor);
    let online: u64 = both
        .map(|each| values(each).saturating_mul(if each.is_trained() { 4 } else { 1 }))
        .sum();
    online.saturating_add(target).saturating_mul(FLOAT)
}

/// Returns about how many bytes the backward pass of a group keeps from the forward pass.
///
/// Of each token a block keeps the inputs and outputs of both norms, query, key, value, the attention's output (8 times
/// its width), and both sides of the MLP's activation; or with recomputation its input alone.
fn activations(model: &ModelConfig, config: &Config, ring: &Geometry) -> u64 {
    let block = |width: i64, hidden: i64| match config.trainer.activation_checkpointing {
        true => width as u64,
        false => (8 * width + 2 * hidden) as u64,
    };
    let contexts = (ring.images_per_slot * ring.context_masks) as u64;
    let encoder = contexts * ring.max_context as u64;
    let predictor = contexts * (ring.target_masks * (ring.max_context + ring.max_target)) as u64;
    let width = model.predictor_dim;
    let values = encoder * block(model.embed_dim, model.mlp_dim) * model.depth as u64
        + predictor * block(width, width * MLP_RATIO) * model.predictor_depth as u64;
    values * if config.meta.use_bfloat16 { 2 } else { FLOAT }
}

/// Returns the bytes that `device` still has, and in words where, if it says.
fn available(device: Device) -> Option<(u64, String)> {
    if device.is_cuda() {
        let (free, _) = cuda::memory().ok()?;
        return Some((free as u64, "on the GPU".to_owned()));
    }
    let found = memory::available()?;
    Some((found.bytes, found.bound.to_string()))
}

/// Makes sure that networks of these sizes can be trained on `device` as far as memory goes, with groups from `ring`.
///
/// # Errors
/// [`Error::OutOfMemory`] with figures, if what is needed for certain is not there.
pub fn check(
    model: &ModelConfig,
    config: &Config,
    ring: &Geometry,
    device: Device,
) -> Result<(), Error> {
    let Some((bytes, place)) = available(device) else {
        return Ok(());
    };
    judge(
        certain(model),
        activations(model, config, ring),
        bytes,
        &place,
    )
}

/// Compares what is needed with what there is.
fn judge(certain: u64, activations: u64, available: u64, place: &str) -> Result<(), Error> {
    if certain > available {
        return Err(Error::OutOfMemory {
            doing: Some(MAKING.to_owned()),
            reason: format!(
                "{} for weights, target encoder, gradients and moments, {} available {place}",
                Size(certain),
                Size(available)
            ),
        });
    }
    let all = certain.saturating_add(activations);
    if all > available {
        tracing::warn!(
            "training takes about {} of memory, {} are available {place}: if it does not fit, \
             trainer.activation_checkpointing=true, meta.use_bfloat16=true or a smaller data.batch_size need less",
            Size(all),
            Size(available)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_networks_take_what_their_parameters_say() {
        let gigabytes = |name: &str| {
            let model = ModelConfig::preset(name, 224, 14, 384, 12).unwrap();
            certain(&model) as f64 / 1e9
        };
        // 86 and 631 million parameters of the encoder five times, 22 of the predictor four times.
        assert!((1.9..2.2).contains(&gigabytes("vit_base")));
        assert!((12.7..13.2).contains(&gigabytes("vit_huge")));
    }

    #[test]
    fn only_what_is_certain_is_refused() {
        judge(10 << 30, 90 << 30, 20 << 30, "here").unwrap();
        let error = judge(30 << 30, 0, 20 << 30, "here")
            .unwrap_err()
            .to_string();
        for words in [
            "30.0 GiB for weights",
            "20.0 GiB available here",
            "meta.model_name",
        ] {
            assert!(error.contains(words), "{error}");
        }
    }
}
