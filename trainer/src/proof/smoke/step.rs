//! Whole training steps on a small network.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::operators::distance;
use super::{gib, peak_of};
use crate::method::hooks::NoHooks;
use crate::method::ijepa::IJepa;
use crate::method::model::ModelConfig;
use crate::method::optimizer::Optimizer;
use crate::torch::cuda;
use crate::torch::shim::Autocast;
use crate::train::clock::synchronise;

/// A network with heads of 64, as all official ones have them, that a CPU gets through in a second.
const SMALL: ModelConfig = ModelConfig {
    image_size: 112,
    patch_size: 16,
    embed_dim: 192,
    depth: 4,
    heads: 3,
    mlp_dim: 768,
    predictor_dim: 96,
    predictor_depth: 2,
};

/// What one batch showed.
struct Seen {
    loss: f64,
    gradients: Vec<(String, Tensor)>,
}

/// Networks, optimizer and a batch on one device; the same values on every device.
struct Trial {
    ijepa: IJepa,
    optimizer: Optimizer,
    images: Tensor,
    context: [Tensor; 1],
    targets: [Tensor; 4],
}

impl Trial {
    fn new(config: &ModelConfig, images: i64, device: Device) -> Result<Trial> {
        let ijepa = IJepa::new(config, 5, device)?;
        let side = config.image_size;
        let pixels = Tensor::arange(images * 3 * side * side, (Kind::Double, Device::Cpu)) * 0.37;
        let pixels = pixels
            .sin()
            .to_kind(Kind::Float)
            .view([images, 3, side, side]);
        let patches = config.patches();
        let mask = |from: i64, count: i64| {
            let row = Tensor::arange_start(from, from + count, (Kind::Int64, Device::Cpu));
            // A different place in each image.
            let shift = Tensor::arange(images, (Kind::Int64, Device::Cpu)).unsqueeze(1);
            (row.unsqueeze(0) + shift)
                .remainder(patches)
                .to_device(device)
        };
        let (few, many) = (patches / 6, patches / 3);
        Ok(Trial {
            optimizer: Optimizer::new(ijepa.parameter_groups())?,
            ijepa,
            images: pixels.to_device(device),
            context: [mask(0, many)],
            targets: [1, 2, 3, 4].map(|i| mask(many + i * 2, few)),
        })
    }

    /// Does the forward and the backward pass.
    fn pass(&self, bfloat16: bool) -> Result<Seen> {
        let loss = {
            let _mixed = bfloat16
                .then(|| Autocast::bfloat16(&self.images))
                .transpose()?;
            let Trial {
                ijepa,
                images,
                context,
                targets,
                ..
            } = self;
            ijepa.forward(images, context, targets, &mut NoHooks)?
        };
        loss.f_backward()?;
        Ok(Seen {
            loss: f64::try_from(&loss)?,
            gradients: self.optimizer.gradients(),
        })
    }

    /// Does the optimizer and the moving average, with rates as in the middle of a run.
    fn update(&mut self) -> Result<()> {
        self.optimizer.step(1e-3, 0.05)?;
        self.optimizer.zero_grad()?;
        Ok(self.ijepa.update_target(0.996)?)
    }
}

/// Returns the largest distance of a gradient, over all parameters, and whose it is. The key third of a qkv.bias has a
/// gradient of zero but for rounding; beside the two others it does not count.
fn worst(ours: &Seen, reference: &Seen) -> Result<(f64, String)> {
    ensure!(
        ours.gradients.len() == reference.gradients.len(),
        "other parameters have gradients"
    );
    let mut worst = (0.0, String::new());
    for ((name, one), (_, other)) in ours.gradients.iter().zip(&reference.gradients) {
        let found = distance(one, other)?;
        ensure!(found.is_finite(), "the gradient of {name} is not finite");
        if found > worst.0 {
            worst = (found, name.clone());
        }
    }
    Ok(worst)
}

/// Compares losses and gradients, relatively.
fn compare(ours: &Seen, reference: &Seen, loss: f64, gradient: f64) -> Result<String> {
    let off = (ours.loss / reference.loss - 1.0).abs();
    ensure!(
        off <= loss,
        "loss {} against {}, allowed {loss:.0e}",
        ours.loss,
        reference.loss
    );
    let (most, name) = worst(ours, reference)?;
    ensure!(
        most <= gradient,
        "the gradient of {name} is off by {most:.1e}, allowed {gradient:.0e}"
    );
    Ok(format!(
        "loss off by {off:.1e} (allowed {loss:.0e}), gradients by {most:.1e} (allowed {gradient:.0e})"
    ))
}

/// Checks two steps in float32 against the CPU's: what check-reference then does against the official code.
pub(super) fn float32(device: Device) -> Result<String> {
    let (mut ours, mut theirs) = (
        Trial::new(&SMALL, 8, device)?,
        Trial::new(&SMALL, 8, Device::Cpu)?,
    );
    let text = compare(&ours.pass(false)?, &theirs.pass(false)?, 1e-5, 1e-3)?;
    ours.update()?;
    theirs.update()?;
    // Adam turns rounding noise of vanishing gradients into whole moves, so the second step is judged by its loss.
    let (next, expected) = (ours.pass(false)?.loss, theirs.pass(false)?.loss);
    let off = (next / expected - 1.0).abs();
    ensure!(
        off <= 1e-3,
        "after an update, loss {next} against {expected}"
    );
    Ok(format!(
        "{text}; after an update, loss off by {off:.1e} (allowed 1e-3)"
    ))
}

/// Checks a step under autocast against float32 on a CPU: bfloat16 has 8 bits of mantissa.
pub(super) fn bfloat16(device: Device) -> Result<String> {
    let (ours, theirs) = (
        Trial::new(&SMALL, 8, device)?,
        Trial::new(&SMALL, 8, Device::Cpu)?,
    );
    compare(&ours.pass(true)?, &theirs.pass(false)?, 2e-2, 1e-1)
}

/// Checks that recomputed activations give the same gradients; on a GPU, whose sums come in no fixed order, nearly.
pub(super) fn recomputed(device: Device) -> Result<String> {
    let mut trial = Trial::new(&SMALL, 8, device)?;
    let kept = trial.pass(device.is_cuda())?;
    trial.optimizer.zero_grad()?;
    trial.ijepa.recompute_activations(true);
    let again = trial.pass(device.is_cuda())?;
    if device.is_cuda() {
        return compare(&again, &kept, 1e-6, 2e-2);
    }
    let (off, name) = worst(&again, &kept)?;
    ensure!(
        off == 0.0 && again.loss == kept.loss,
        "{name} differs by {off:.1e}"
    );
    Ok("loss and gradients equal in every bit".to_owned())
}

/// Measures what recomputing saves of the memory of a ViT-B/16.
pub(super) fn memory(device: Device) -> Result<String> {
    let config = ModelConfig::preset("vit_base", 224, 16, 384, 6)?;
    let mut trial = Trial::new(&config, 32, device)?;
    trial.pass(true)?; // gradients and workspaces are there from now on
    let like = trial.images.shallow_clone();
    let mut peak = |recompute| -> Result<u64> {
        trial.ijepa.recompute_activations(recompute);
        let (seen, bytes) = peak_of(&like, || trial.pass(true))?;
        seen.map(|_| bytes)
    };
    let (kept, recomputed) = (peak(false)?, peak(true)?);
    ensure!(
        recomputed < kept,
        "{} instead of {}",
        gib(recomputed),
        gib(kept)
    );
    Ok(format!(
        "ViT-B/16, 32 images, bfloat16: {} of activations instead of {}",
        gib(recomputed),
        gib(kept)
    ))
}

/// Does a step of the published size: says that it fits, and what it takes.
pub(super) fn huge(device: Device) -> Result<String> {
    const IMAGES: i64 = 16;
    /// Weights, gradients, moments and the target's weights alone take 12.
    const NEEDED: usize = 30 << 30;
    let (_, all) = cuda::memory()?;
    if all < NEEDED {
        return Ok(format!(
            "left out: {} is too little for it",
            gib(all as u64)
        ));
    }
    let config = ModelConfig::preset("vit_huge", 224, 14, 384, 12)?;
    let mut trial = Trial::new(&config, IMAGES, device)?;
    let like = trial.images.shallow_clone();
    let mut times = Vec::new();
    let (done, peak) = peak_of(&like, || -> Result<f64> {
        let mut loss = f64::NAN;
        for _ in 0..4 {
            synchronise(device);
            let start = std::time::Instant::now();
            loss = trial.pass(true)?.loss;
            trial.update()?;
            synchronise(device);
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(loss)
    })?;
    let loss = done?;
    ensure!(loss.is_finite(), "loss {loss}");
    let last = times[times.len() - 1];
    Ok(format!(
        "{IMAGES} images, bfloat16: {:.0} ms, peak {} beside the weights",
        last * 1e3,
        gib(peak)
    ))
}
