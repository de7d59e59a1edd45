//! The method: predict, in the space of encodings, what is hidden of an image from what is seen of it.
//!
//! Paper: M. Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture"
//! (2023), section 3 and figure 3. Official code (facebookresearch/ijepa): `train_step` of `src/train.py`.
//!
//! Used by the training loop and by `check-reference`, which differ only in the [`Hooks`] they pass. Masks are lists,
//! one tensor (B, n) of patch indices per mask. The order of the rows is the official one: target mask slowest, then
//! context mask, then image.

use std::collections::BTreeMap;

use tch::{Device, Reduction, Tensor};

use crate::Error;
use crate::error::{During, MAKING};
use crate::method::encoder::{Encoder, Keep};
use crate::method::gather::{apply_masks, repeat_for_contexts};
use crate::method::hooks::{Hooks, NoHooks, Prefixed};
use crate::method::model::ModelConfig;
use crate::method::parameters::{self, ParameterGroup};
use crate::method::predictor::Predictor;
use crate::method::visible::Patches;
use crate::method::{init, optimizer, positions, state_dict};
use crate::torch::shim;

/// Epsilon of the layer norm over the targets; the networks' own is smaller.
const TARGET_NORM_EPS: f64 = 1e-5;

/// The three networks.
pub struct IJepa {
    /// Encodes the visible patches; trained.
    pub encoder: Encoder,
    /// Predicts the hidden patches; trained.
    pub predictor: Predictor,
    /// Encodes whole images into targets; follows the encoder, never trained.
    pub target_encoder: Encoder,
}

impl IJepa {
    /// Makes freshly initialised networks; the target encoder is a copy of the encoder.
    ///
    /// Official code: `init_model` of `src/helper.py`; paper, section 3, "Targets", for the copy.
    ///
    /// # Errors
    /// [`Error::Sizes`] for sizes that make no networks, [`Error::OutOfMemory`] where they make too large ones.
    pub fn new(config: &ModelConfig, seed: u64, device: Device) -> Result<Self, Error> {
        let ijepa = Self::zeroed(config, device)?;
        let (trained, target): (Vec<_>, Vec<_>) = ijepa
            .state()
            .into_iter()
            .partition(|(name, _)| !name.starts_with("target_encoder."));
        init::initialise(&trained, seed).during(|| "the initialisation of the networks".into())?;
        tch::no_grad(|| {
            // The encoder's parameters come first.
            for ((_, target), (_, online)) in target.iter().zip(&trained) {
                target.shallow_clone().f_copy_(online)?;
            }
            Ok::<(), Error>(())
        })?;
        Ok(ijepa)
    }

    /// Makes networks whose weights are zero, for a state to be loaded into.
    ///
    /// # Errors
    /// [`Error::Sizes`] for sizes that make no networks, [`Error::OutOfMemory`] where they make too large ones.
    pub fn zeroed(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        let make = || {
            let target_encoder = Encoder::new(config, device)?;
            for (_, parameter) in target_encoder.parameters() {
                let _ = parameter.f_set_requires_grad(false)?;
            }
            Ok::<_, Error>(Self {
                encoder: Encoder::new(config, device)?,
                predictor: Predictor::new(config, device)?,
                target_encoder,
            })
        };
        make().during(|| MAKING.into())
    }

    /// Goes on with images of another size: with the fixed positions of its grid, and otherwise as they are.
    ///
    /// # Errors
    /// [`Error::Sizes`] for images without a patch, [`Error::OutOfMemory`] and [`Error::Torch`] from the device. The
    /// networks are as before then.
    pub fn resize(&mut self, image_size: i64) -> Result<(), Error> {
        let config = ModelConfig {
            image_size,
            ..self.encoder.config().clone()
        };
        config.check()?;
        let device = self.encoder.parameters()[0].1.device();
        let make = |width| positions::embedding(width, config.grid(), device);
        // All before the first is taken up: the three see the same images.
        let made = || {
            Ok::<_, Error>((
                make(config.embed_dim)?,
                make(config.embed_dim)?,
                make(config.predictor_dim)?,
            ))
        };
        let (encoder, target, predictor) =
            made().during(|| "the making of other positions".into())?;
        self.encoder.take_positions(encoder, image_size);
        self.target_encoder.take_positions(target, image_size);
        self.predictor.take_positions(predictor);
        Ok(())
    }

    /// Returns what the predictor should say: the target encoder's representations of the target blocks.
    ///
    /// The target encoder looks at the whole images, and its output is normalised per patch before blocks are cut out
    /// of it. Rows are repeated for each of the `context_masks`. No gradients are kept. Paper, section 3, "Targets";
    /// official code: `forward_target` of `src/train.py`.
    ///
    /// # Errors
    /// [`Error::ImageSize`] or [`Error::NoMasks`] for another batch than the networks take, [`Error::OutOfMemory`] and
    /// [`Error::Torch`] from the device.
    pub fn target(
        &self,
        images: &Tensor,
        targets: &[Tensor],
        context_masks: usize,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let sizes: Vec<i64> = targets
            .iter()
            .map(|mask| mask.size2().map(|(_, patches)| patches))
            .collect::<Result<_, _>>()?;
        let Some(first) = sizes.first() else {
            return Err(Error::NoMasks("target"));
        };
        let even = sizes.iter().all(|size| size == first);
        let few = sizes.iter().sum::<i64>() < self.target_encoder.config().patches();
        let target = || {
            if !hooks.listening() && even && few {
                self.target_at(images, targets, context_masks)
            } else {
                self.target_whole(images, targets, context_masks, hooks)
            }
        };
        tch::no_grad(target).during(|| pass("the target encoder's forward pass", images))
    }

    /// Returns the target encoder's representations of the target blocks, and of the visible patches, (contexts · B, C,
    /// D): see [`visible`](crate::method::visible).
    ///
    /// # Errors
    /// Those of [`IJepa::target`].
    pub fn target_all(
        &self,
        images: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
    ) -> Result<Patches, Error> {
        let target = || {
            let all = Keep::All;
            let h = self.target_encoder.forward(images, all, &mut NoHooks)?; // (B, N, D)
            let (b, _, _) = h.size3()?;
            let h = normalise(&h)?;
            Ok::<_, Error>(Patches {
                hidden: repeat_for_contexts(&apply_masks(&h, targets)?, b, context.len())?,
                visible: Some(apply_masks(&h, context)?),
            })
        };
        tch::no_grad(target).during(|| pass("the target encoder's forward pass", images))
    }

    /// Computes the targets from the encodings of whole images.
    fn target_whole(
        &self,
        images: &Tensor,
        targets: &[Tensor],
        context_masks: usize,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let h = self
            .target_encoder
            .forward(images, Keep::All, &mut NoHooks)?; // (B, N, D)
        hooks.record(format_args!("target.raw"), &h);
        let (b, _, _) = h.size3()?;
        let h = normalise(&h)?;
        hooks.record(format_args!("target.layer_norm"), &h);
        let h = apply_masks(&h, targets)?; // (targets · B, T, D)
        hooks.record(format_args!("target.masked"), &h);
        let h = repeat_for_contexts(&h, b, context_masks)?; // (targets · contexts · B, T, D)
        hooks.record(format_args!("target.final"), &h);
        Ok(h)
    }

    /// Computes the targets where the masks, of one size, together keep fewer patches than there are: the last block
    /// and the normalisation are computed for those alone.
    fn target_at(
        &self,
        images: &Tensor,
        targets: &[Tensor],
        context_masks: usize,
    ) -> Result<Tensor, Error> {
        let rows = Tensor::f_cat(targets, 1)?; // (B, targets · T)
        let h = self
            .target_encoder
            .forward(images, Keep::Rows(&rows), &mut NoHooks)?; // (B, targets · T, D)
        let (b, rows, d) = h.size3()?;
        let h = normalise(&h)?;
        let masks = targets.len() as i64;
        let h = h
            .f_view([b, masks, rows / masks, d])?
            .f_transpose(0, 1)?
            .f_reshape([masks * b, rows / masks, d])?; // (targets · B, T, D)
        repeat_for_contexts(&h, b, context_masks) // (targets · contexts · B, T, D)
    }

    /// Returns the context encoder's representations of the patches it sees: (contexts · B, C, D).
    ///
    /// Paper, section 3, "Context"; official code: the first half of `forward_context` of `src/train.py`.
    ///
    /// # Errors
    /// [`Error::ImageSize`] or [`Error::NoMasks`] for another batch than the networks take, [`Error::OutOfMemory`] and
    /// [`Error::Torch`] from the device.
    pub fn context(
        &self,
        images: &Tensor,
        context: &[Tensor],
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        if context.is_empty() {
            return Err(Error::NoMasks("context"));
        }
        let mut under = Prefixed::new("context", hooks);
        self.encoder
            .forward(images, Keep::Masks(context), &mut under)
            .during(|| pass("the context encoder's forward pass", images))
    }

    /// Returns what the predictor says of the target blocks, having seen the context encoder's representations `z`.
    ///
    /// Paper, section 3, "Prediction"; official code: the second half of `forward_context` of `src/train.py`. For
    /// `noise` see [`Predictor::forward`].
    ///
    /// # Errors
    /// [`Error::NoMasks`] without a mask, [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn predict(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        noise: Option<&Tensor>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let mut under = Prefixed::new("predictor", hooks);
        self.predictor
            .forward(z, context, targets, noise, &mut under)
            .during(|| prediction_of(context))
    }

    /// Returns what the predictor says of the target blocks and of the visible patches: see
    /// [`visible`](crate::method::visible).
    ///
    /// # Errors
    /// Those of [`IJepa::predict`].
    pub fn predict_all(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        noise: Option<&Tensor>,
    ) -> Result<Patches, Error> {
        self.predictor
            .forward_all(z, context, targets, noise)
            .during(|| prediction_of(context))
    }

    /// Returns the loss of one batch: target, prediction and the distance between them.
    ///
    /// # Errors
    /// Those of [`IJepa::target`] and [`IJepa::predict`].
    pub fn forward(
        &self,
        images: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let h = self.target(images, targets, context.len(), hooks)?;
        let z = self.context(images, context, hooks)?;
        let prediction = self.predict(&z, context, targets, None, hooks)?;
        let loss = loss(&prediction, &h)?;
        hooks.record(format_args!("loss"), &loss);
        Ok(loss)
    }

    /// Turns activation checkpointing of the two trained networks on or off.
    ///
    /// With it the backward pass computes each block's intermediate results again: about a fourth more computing. The
    /// gradients are the same, bit for bit where the operators repeat themselves.
    pub fn recompute_activations(&mut self, recompute: bool) {
        self.encoder.recompute_activations(recompute);
        self.predictor.recompute_activations(recompute);
    }

    /// Lets the target encoder follow: target = momentum · target + (1 - momentum) · encoder.
    ///
    /// Paper, section 3, "Loss" (the exponential moving average); official code: "momentum update of target encoder" in
    /// `src/train.py`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn update_target(&mut self, momentum: f64) -> Result<(), Error> {
        let target = self
            .target_encoder
            .parameters()
            .iter()
            .map(|(_, tensor)| tensor);
        let online = self.encoder.parameters().iter().map(|(_, tensor)| tensor);
        shim::ema(target.zip(online), momentum).during(|| "the target encoder's update".into())
    }

    /// Returns the Euclidean norm of the step that [`IJepa::update_target`] is about to make, over that of the target
    /// encoder's weights.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn target_update(&self, momentum: f64) -> Result<f64, Error> {
        let ratio = || -> Result<f64, Error> {
            let (mut gaps, mut norms) = (Vec::new(), Vec::new());
            let pairs = self.target_encoder.parameters().iter();
            for ((_, target), (_, online)) in pairs.zip(self.encoder.parameters()) {
                gaps.push(online.f_sub(target)?.f_norm()?);
                norms.push(target.f_norm()?);
            }
            Ok((1.0 - momentum) * optimizer::norm_of(&gaps)? / optimizer::norm_of(&norms)?)
        };
        tch::no_grad(ratio).during(|| "the norm of the target encoder's update".into())
    }

    /// Returns every tensor of the three networks under `encoder.`, `predictor.` and `target_encoder.`: handles, not
    /// copies.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let networks = [
            ("encoder", self.encoder.parameters()),
            ("predictor", self.predictor.parameters()),
            ("target_encoder", self.target_encoder.parameters()),
        ];
        networks
            .into_iter()
            .flat_map(|(network, parameters)| within(network, parameters))
            .collect()
    }

    /// Copies `state` into the networks. Every tensor must be there, of the right shape and type, and no other.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorForm`]; nothing is copied then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        state_dict::load(&self.state(), state)
    }

    /// Returns handles to the parameters that are trained, in the order in which they are used.
    pub fn trained(&self) -> Vec<Tensor> {
        let networks = [self.encoder.parameters(), self.predictor.parameters()];
        let tensors = networks.into_iter().flatten();
        tensors
            .filter(|(_, tensor)| tensor.requires_grad())
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect()
    }

    /// Returns the parameters of the two trained networks, in the official optimiser's four groups.
    ///
    /// The position embeddings belong to the decayed groups by the official rule, but are never trained.
    pub fn parameter_groups(&self) -> Vec<ParameterGroup<(String, Tensor)>> {
        parameters::groups(
            within("encoder", self.encoder.parameters()),
            within("predictor", self.predictor.parameters()),
            |(name, tensor)| parameters::is_decayed(name, tensor.dim()),
        )
        .into()
    }
}

/// Returns handles to the parameters of a network, as parts of the whole.
fn within(network: &str, parameters: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let named = parameters.iter();
    named
        .map(|(name, tensor)| (format!("{network}.{name}"), tensor.shallow_clone()))
        .collect()
}

/// Normalises each token over its width, without gain and bias.
fn normalise(h: &Tensor) -> Result<Tensor, Error> {
    let (_, _, d) = h.size3()?;
    let none = None::<&Tensor>;
    Ok(h.f_layer_norm([d], none, none, TARGET_NORM_EPS, true)?)
}

/// Says what is computed over a group of images.
fn pass(what: &str, images: &Tensor) -> String {
    match images.size()[..] {
        [images, _, height, width] => {
            format!("{what} over a group of {images} images of {height}x{width} pixels")
        }
        _ => what.to_owned(),
    }
}

/// Says what is predicted over a group of images.
fn prediction_of(context: &[Tensor]) -> String {
    let images = context.first().map_or(0, |mask| mask.size()[0]);
    format!("the predictor's forward pass over a group of {images} images")
}

/// Returns the distance of prediction and target: smooth L1 (beta 1), averaged over everything.
///
/// Paper, section 3, "Loss", which says L2; official code: `loss_fn` of `src/train.py`, which this follows.
///
/// # Errors
/// [`Error::Torch`] for tensors of different shapes, [`Error::OutOfMemory`] from the device.
pub fn loss(prediction: &Tensor, target: &Tensor) -> Result<Tensor, Error> {
    prediction
        .f_smooth_l1_loss(target, Reduction::Mean, 1.0)
        .during(|| "the loss".into())
}

/// Adds the gradients of one group's loss; the loss of the step is the mean over `groups` of them.
///
/// # Errors
/// [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
pub fn backward(loss: &Tensor, groups: u64) -> Result<(), Error> {
    loss.f_div_scalar(groups as f64)
        .and_then(|share| share.f_backward())
        .during(|| "the backward pass".into())
}
