//! The method: predict, in the space of encodings, what is hidden of an image from what is seen of it.
//!
//! Used by the training loop and by `check-reference`, which differ only in the [`Hooks`] they pass. Masks are lists,
//! one tensor (B, n) of patch indices per mask. The order of the rows is the official one: target mask slowest, then
//! context mask, then image.

use std::collections::BTreeMap;

use tch::{Device, Reduction, Tensor};

use crate::Error;
use crate::method::hooks::{Hooks, NoHooks, Prefixed};
use crate::method::init;
use crate::method::model::{Encoder, ModelConfig, Predictor, apply_masks, repeat_for_contexts};
use crate::torch::shim;

/// Epsilon of the layer norm over the targets; the networks' own is smaller.
const TARGET_NORM_EPS: f64 = 1e-5;

/// The three networks.
pub struct IJepa {
    /// Encodes the visible patches; trained.
    pub encoder: Encoder,
    /// Predicts the hidden ones; trained.
    pub predictor: Predictor,
    /// Encodes whole images into targets; follows the encoder, never trained.
    pub target_encoder: Encoder,
}

impl IJepa {
    /// Freshly initialised networks; the target encoder starts as a copy of the encoder (whose parameters come first).
    pub fn new(config: &ModelConfig, seed: u64, device: Device) -> Result<Self, Error> {
        let ijepa = Self::zeroed(config, device)?;
        let (trained, target): (Vec<_>, Vec<_>) = ijepa
            .state()
            .into_iter()
            .partition(|(name, _)| !name.starts_with("target_encoder."));
        init::initialise(&trained, seed)?;
        tch::no_grad(|| {
            for ((_, target), (_, online)) in target.iter().zip(&trained) {
                target.shallow_clone().f_copy_(online)?;
            }
            Ok::<(), Error>(())
        })?;
        Ok(ijepa)
    }

    /// Networks whose weights are zero, for a state to be loaded into.
    pub fn zeroed(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        let target_encoder = Encoder::new(config, device)?;
        for (_, parameter) in target_encoder.parameters() {
            let _ = parameter.set_requires_grad(false);
        }
        Ok(Self {
            encoder: Encoder::new(config, device)?,
            predictor: Predictor::new(config, device)?,
            target_encoder,
        })
    }

    /// What the predictor should say: the target encoder's view of the whole images, normalised per patch, at the
    /// patches of each target mask, repeated for each of the `context_masks`.
    pub fn target(
        &self,
        images: &Tensor,
        targets: &[Tensor],
        context_masks: usize,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        tch::no_grad(|| {
            let all = self.target_encoder.config().patches();
            let sizes: Vec<i64> = targets.iter().map(|mask| mask.size()[1]).collect();
            let even = sizes.iter().all(|size| *size == sizes[0]);
            if !hooks.listening() && even && sizes.iter().sum::<i64>() < all {
                return self.target_at(images, targets, context_masks);
            }
            let h = self.target_encoder.forward(images, None, &mut NoHooks)?; // (B, N, D)
            hooks.record(format_args!("target.raw"), &h);
            let (b, _, d) = h.size3()?;
            let h = h.layer_norm([d], None::<&Tensor>, None::<&Tensor>, TARGET_NORM_EPS, true);
            hooks.record(format_args!("target.layer_norm"), &h);
            let h = apply_masks(&h, targets); // (targets · B, T, D)
            hooks.record(format_args!("target.masked"), &h);
            let h = repeat_for_contexts(&h, b, context_masks); // (targets · contexts · B, T, D)
            hooks.record(format_args!("target.final"), &h);
            Ok(h)
        })
    }

    /// The same as [`IJepa::target`], where the masks, of one size, together keep fewer patches than there are:
    /// only those are finished by the last block and normalised.
    fn target_at(
        &self,
        images: &Tensor,
        targets: &[Tensor],
        context_masks: usize,
    ) -> Result<Tensor, Error> {
        let h = self
            .target_encoder
            .forward_at(images, &Tensor::cat(targets, 1))?; // (B, targets · T, D)
        let (b, rows, d) = h.size3()?;
        let h = h.layer_norm([d], None::<&Tensor>, None::<&Tensor>, TARGET_NORM_EPS, true);
        let masks = targets.len() as i64;
        let h = h
            .view([b, masks, rows / masks, d])
            .transpose(0, 1)
            .reshape([masks * b, rows / masks, d]); // (targets · B, T, D)
        Ok(repeat_for_contexts(&h, b, context_masks)) // (targets · contexts · B, T, D)
    }

    /// What the predictor says, having seen the context patches only.
    pub fn predict(
        &self,
        images: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let z = self.encoder.forward(
            images,
            Some(context),
            &mut Prefixed {
                prefix: "context",
                hooks,
            },
        )?;
        Ok(self.predictor.forward(
            &z,
            context,
            targets,
            &mut Prefixed {
                prefix: "predictor",
                hooks,
            },
        ))
    }

    /// The loss of one batch: target, prediction and the distance between them.
    pub fn forward(
        &self,
        images: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let h = self.target(images, targets, context.len(), hooks)?;
        let z = self.predict(images, context, targets, hooks)?;
        let loss = loss(&z, &h)?;
        hooks.record(format_args!("loss"), &loss);
        Ok(loss)
    }

    /// Activation checkpointing in the two trained networks: the backward pass computes each block's intermediate
    /// results anew. Same gradients, bit for bit where the operators repeat themselves; about a fourth more computing.
    pub fn recompute_activations(&mut self, recompute: bool) {
        self.encoder.recompute_activations(recompute);
        self.predictor.recompute_activations(recompute);
    }

    /// Lets the target encoder follow: target = momentum · target + (1 - momentum) · encoder.
    pub fn update_target(&mut self, momentum: f64) -> Result<(), Error> {
        let target = self
            .target_encoder
            .parameters()
            .iter()
            .map(|(_, tensor)| tensor);
        let online = self.encoder.parameters().iter().map(|(_, tensor)| tensor);
        shim::ema(target.zip(online), momentum)
    }

    /// Every tensor of the three networks under `encoder.`, `predictor.` and `target_encoder.`: handles, not copies.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let networks = [
            ("encoder", self.encoder.parameters()),
            ("predictor", self.predictor.parameters()),
            ("target_encoder", self.target_encoder.parameters()),
        ];
        let named = networks.into_iter().flat_map(|(network, parameters)| {
            parameters
                .iter()
                .map(move |(name, tensor)| (format!("{network}.{name}"), tensor.shallow_clone()))
        });
        named.collect()
    }

    /// Copies `state` into the networks. Every tensor must be there, of the right shape and type, and no other.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        load(&self.state(), state)
    }
}

/// Smooth L1 (beta 1), averaged over everything.
pub fn loss(prediction: &Tensor, target: &Tensor) -> Result<Tensor, Error> {
    Ok(prediction.f_smooth_l1_loss(target, Reduction::Mean, 1.0)?)
}

/// Copies `from` into the tensors of `into`, which must have the same names, shapes and types; checks all of them
/// before it writes any.
pub(crate) fn load(
    into: &[(String, Tensor)],
    from: &BTreeMap<String, Tensor>,
) -> Result<(), Error> {
    let form = |tensor: &Tensor| format!("{:?} {:?}", tensor.kind(), tensor.size());
    for (name, tensor) in into {
        let given = from
            .get(name)
            .ok_or_else(|| Error::MissingTensor(name.clone()))?;
        if form(given) != form(tensor) {
            return Err(Error::TensorForm {
                name: name.clone(),
                expected: form(tensor),
                found: form(given),
            });
        }
    }
    if from.len() != into.len() {
        let known: std::collections::BTreeSet<&String> =
            into.iter().map(|(name, _)| name).collect();
        let unknown = from
            .keys()
            .find(|name| !known.contains(name))
            .expect("more names than known ones");
        return Err(Error::UnknownTensor(unknown.clone()));
    }
    tch::no_grad(|| {
        for (name, tensor) in into {
            tensor.shallow_clone().f_copy_(&from[name])?;
        }
        Ok(())
    })
}
