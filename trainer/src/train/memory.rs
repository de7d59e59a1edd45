//! The memory of a training, before it is taken.
//!
//! Linux kills a process that takes more than there is, without a word; CUDA says so, but late. What is certain to be
//! needed and is not there ends a run before it begins. What is estimated only makes a warning.

use loader::ring::Geometry;
use shardtool::memory::{self, Size};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::config::Config;
use crate::error::MAKING;
use crate::method::model::ModelConfig;
use crate::plan::memory::{Lengths, activations};
use crate::plan::networks::Networks;
use crate::torch::{cuda, shim};

/// Returns the bytes that `device` still has, and in words where, if it says.
fn available(device: Device) -> Option<(u64, String)> {
    if device.is_cuda() {
        let (free, _) = cuda::memory().ok()?;
        return Some((free as u64, "on the GPU".to_owned()));
    }
    let found = memory::available()?;
    Some((found.bytes, found.bound.to_string()))
}

/// Returns the bytes that this process has taken: of a GPU what torch has, on a CPU all that is resident.
pub(super) fn taken(device: Device) -> Option<u64> {
    if device.is_cuda() {
        let like = Tensor::f_empty([0], (Kind::Float, device)).ok()?;
        return Some(shim::device_memory(&like, false).ok()?.0);
    }
    memory::resident()
}

/// Makes sure that networks of these sizes can be trained on `device` as far as memory goes, with groups from `ring`.
/// On a CPU, `local_world` ranks share the memory.
///
/// # Errors
/// [`Error::OutOfMemory`] with figures, if what is needed for certain is not there.
pub fn check(
    model: &ModelConfig,
    config: &Config,
    ring: &Geometry,
    device: Device,
    local_world: u32,
) -> Result<(), Error> {
    let Some((mut bytes, mut place)) = available(device) else {
        return Ok(());
    };
    if local_world > 1 && device == Device::Cpu {
        bytes /= u64::from(local_world);
        place = format!("for each of {local_world} ranks {place}");
    }
    let longest = Lengths {
        context: ring.max_context as u64,
        target: ring.max_target as u64,
    };
    let certain = Networks::of(model).certain();
    judge(certain, activations(config, model, longest), bytes, &place)
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
            Networks::of(&model).certain() as f64 / 1e9
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
