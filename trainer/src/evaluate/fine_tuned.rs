//! An encoder that goes on learning with a few labelled images: low-shot evaluation as the paper does it.
//!
//! Paper, appendix A.2: the fine-tuning of MAE (He et al. 2022; `main_finetune.py` and `util/lr_decay.py` of
//! facebookresearch/mae), adapted. A linear layer on the mean of the encodings; AdamW whose rate is smaller by a factor
//! of 0.75 with each block away from the end; label smoothing 0.1; a tenth of the steps warm up, then half a cosine.
//! Neither mixup, cutmix, random erasing nor drop path. RandAugment, which the paper has, is left out here.

use tch::{Device, Kind, Tensor};

use super::Error;
use super::attentive::decayed_and_not;
use super::learner::{Learner, in_bfloat16, pieces};
use super::linear::cosine;
use crate::method::encoder::{Encoder, Keep};
use crate::method::hooks::NoHooks;
use crate::method::optimizer::Optimizer;
use crate::method::parameters::Parameter;
use crate::method::transformer::{Linear, Scope, zeroed};

/// What each block away from the end takes of the rate.
const LAYER_DECAY: f64 = 0.75;
/// Share of the right answer that is spread over all classes.
const SMOOTHING: f64 = 0.1;
/// Share of the steps in which the rate grows.
const WARMUP: f64 = 0.1;

/// An encoder and a linear layer, trained together.
pub struct FineTuned {
    encoder: Encoder,
    head: Linear,
    /// The optimiser of each layer, with its share of the rate.
    layers: Vec<(Optimizer, f64)>,
    lr: f64,
    weight_decay: f64,
    /// Images that are computed at once.
    at_once: i64,
    bfloat16: bool,
}

impl FineTuned {
    /// Goes on with `encoder`, which has its weights, and a linear layer of zeros. Images are computed `at_once`.
    ///
    /// # Errors
    /// [`Error::Compute`] where there is no room.
    pub fn new(
        encoder: Encoder,
        classes: i64,
        (lr, weight_decay): (f64, f64),
        at_once: i64,
        bfloat16: bool,
    ) -> Result<FineTuned, Error> {
        let (d, depth) = (encoder.config().embed_dim, encoder.config().depth as usize);
        let device = encoder.parameters()[0].1.device();
        let linear = linear(d, classes, device)?;
        let head = Linear::new(Scope::new(&linear).at("head"))?;
        let mut layers: Vec<Vec<(String, Tensor)>> = Vec::new();
        layers.resize_with(depth + 2, Vec::new);
        for (name, tensor) in encoder.parameters().iter().chain(&linear) {
            let layer = layer_of(name, depth);
            layers[layer].push((name.clone(), tensor.shallow_clone()));
        }
        let layers = (0..).zip(layers).map(|(number, parameters)| {
            let away = depth as i32 + 1 - number;
            let optimizer = Optimizer::new(decayed_and_not(parameters))?;
            Ok((optimizer, LAYER_DECAY.powi(away)))
        });
        Ok(FineTuned {
            head,
            layers: layers.collect::<Result<_, crate::Error>>()?,
            encoder,
            lr,
            weight_decay,
            at_once,
            bfloat16,
        })
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        in_bfloat16(self.bfloat16, images, || {
            let x = self.encoder.forward(images, Keep::All, &mut NoHooks)?;
            let mean = x.f_mean_dim([1i64].as_slice(), false, Kind::Float)?;
            self.head.forward(&mean)
        })
    }
}

impl Learner for FineTuned {
    fn learn(&mut self, images: &Tensor, labels: &Tensor, done: f64) -> Result<(), crate::Error> {
        for (images, labels, share) in pieces(images, labels, self.at_once)? {
            let loss = self.logits(&images)?.f_cross_entropy_loss(
                &labels,
                None::<&Tensor>,
                tch::Reduction::Mean,
                -100,
                SMOOTHING,
            )?;
            loss.f_mul_scalar(share)?.f_backward()?;
        }
        let lr = self.lr * schedule(done);
        for (optimizer, share) in &mut self.layers {
            optimizer.step(lr * *share, self.weight_decay)?;
            optimizer.zero_grad()?;
        }
        Ok(())
    }

    fn told(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        Ok(self.logits(images)?.f_unsqueeze(1)?)
    }
}

/// Returns the linear layer, of zeros.
fn linear(d: i64, classes: i64, device: Device) -> Result<Vec<(String, Tensor)>, crate::Error> {
    let parameter = |name: &str, shape: &[i64]| Parameter {
        name: name.to_owned(),
        shape: shape.iter().map(|&length| length as usize).collect(),
    };
    let parameters = vec![
        parameter("head.weight", &[classes, d]),
        parameter("head.bias", &[classes]),
    ];
    // There are no positions here, so the grid does not matter.
    zeroed(parameters, 1, device)
}

/// Returns the layer that a parameter counts to: 0 for the patches' projection, then the blocks, then all that follows.
fn layer_of(name: &str, depth: usize) -> usize {
    let block = name.strip_prefix("blocks.");
    let block = block.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    match block {
        Some(block) => block + 1,
        None if name.starts_with("patch_embed") || name == "pos_embed" => 0,
        None => depth + 1,
    }
}

/// Returns the share of the rate after a share of the steps.
fn schedule(done: f64) -> f64 {
    match done < WARMUP {
        true => done / WARMUP,
        false => cosine((done - WARMUP) / (1.0 - WARMUP)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::features::tests::encoder;
    use super::super::learner::tests::{spots, taught};
    use super::*;

    fn tuned(lr: f64) -> FineTuned {
        FineTuned::new(encoder(), 2, (lr, 0.05), 5, false).unwrap()
    }

    #[test]
    fn the_encoder_learns_and_the_first_layers_less_than_the_last() {
        let fresh = encoder();
        let mut tuned = tuned(0.003);
        assert!(taught(&mut tuned, 60)[0] > Some(95.0));
        let moved = |name: &str| {
            let of = |encoder: &Encoder| {
                let found = encoder.parameters().iter().find(|(known, _)| known == name);
                found.unwrap().1.detach()
            };
            let (before, after) = (of(&fresh), of(&tuned.encoder));
            f64::try_from((after - before).abs().mean(Kind::Float)).unwrap()
        };
        let [first, last] = ["blocks.0.norm1.bias", "blocks.1.norm1.bias"].map(moved);
        assert!(first > 0.0 && first < last, "{first} {last}");
        assert_eq!(moved("pos_embed"), 0.0);
    }

    #[test]
    fn pieces_of_a_batch_are_the_batch() {
        let (source, classes) = spots(1);
        let labels = Tensor::from_slice(&classes);
        let learnt = |at_once: i64| {
            let mut tuned = FineTuned::new(encoder(), 2, (0.01, 0.0), at_once, false).unwrap();
            for done in [WARMUP, 0.5] {
                tuned.learn(&source.0[0].images, &labels, done).unwrap();
            }
            tuned.logits(&source.0[0].images).unwrap()
        };
        assert!(learnt(16).allclose(&learnt(5), 1e-3, 1e-3, false));
    }

    #[test]
    fn rates_follow_the_layers_and_warm_up() {
        let tuned = tuned(1.0);
        let shares: Vec<f64> = tuned.layers.iter().map(|(_, share)| *share).collect();
        assert_eq!(shares, [0.421875, 0.5625, 0.75, 1.0]);
        let named = |layer: usize| {
            let groups = tuned.layers[layer].0.groups();
            let names = groups.into_iter().flat_map(|(_, names)| names);
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(named(0).contains(&"patch_embed.proj.weight".to_owned()));
        assert!(named(2).iter().all(|name| name.starts_with("blocks.1.")));
        assert!(named(3).contains(&"norm.weight".to_owned()));
        assert!(named(3).contains(&"head.weight".to_owned()));
        assert_eq!(
            (schedule(0.0), schedule(0.05), schedule(0.1)),
            (0.0, 0.5, 1.0)
        );
        assert!((schedule(0.55) - 0.5).abs() < 1e-9 && schedule(1.0) < 1e-9);
    }
}
