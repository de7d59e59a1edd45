//! The predictor: a narrow vision transformer that guesses the encodings of hidden patches from those of visible ones.
//!
//! Paper, section 3, "Prediction"; official code: `VisionTransformerPredictor` of `src/models/vision_transformer.py`.
//! Letters in the shape comments are those of [`crate::method::encoder`].

use tch::{Device, Tensor};

use crate::Error;
use crate::method::gather::{apply_masks, repeat_for_contexts};
use crate::method::hooks::Hooks;
use crate::method::model::ModelConfig;
use crate::method::parameters;
use crate::method::transformer::{
    Block, LayerNorm, Linear, Parameters, Scope, replace_positions, zeroed,
};
use crate::method::visible::Patches;

/// Guesses the encodings of target patches from those of context patches.
pub struct Predictor {
    mask_token: Tensor,          // (1, 1, P)
    predictor_pos_embed: Tensor, // (1, N, P)
    predictor_embed: Linear,
    predictor_blocks: Vec<Block>,
    predictor_norm: LayerNorm,
    predictor_proj: Linear,
    parameters: Parameters,
}

impl Predictor {
    /// Makes a predictor whose parameters are zero, but for the position embedding.
    ///
    /// # Errors
    /// [`Error::Sizes`] for sizes that make no network, [`Error::OutOfMemory`] where they make too large a one.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        config.check()?;
        let parameters = zeroed(parameters::predictor(config), config.grid(), device)?;
        let scope = Scope::new(&parameters);
        let blocks = (0..config.predictor_depth)
            .map(|i| Block::new(scope.at(format_args!("predictor_blocks.{i}")), config.heads));
        Ok(Self {
            mask_token: scope.get("mask_token")?,
            predictor_pos_embed: scope.get("predictor_pos_embed")?,
            predictor_embed: Linear::new(scope.at("predictor_embed"))?,
            predictor_blocks: blocks.collect::<Result<_, _>>()?,
            predictor_norm: LayerNorm::new(scope.at("predictor_norm"))?,
            predictor_proj: Linear::new(scope.at("predictor_proj"))?,
            parameters,
        })
    }

    /// Takes up the positions of another grid.
    pub(super) fn take_positions(&mut self, positions: Tensor) {
        replace_positions(&mut self.parameters, &positions);
        self.predictor_pos_embed = positions;
    }

    /// Predicts the encodings of the `targets`' patches from the encodings `z` (B, C, D) of the `context`'s.
    ///
    /// The result, (B, T, D), has one row per (target mask, context mask, image), the image running fastest. Calls the
    /// hooks `block{i}` and `out`.
    ///
    /// `noise` of the same form makes positions stochastic, an option: it is mapped as `z` is, without the bias, and
    /// added to the positions of hidden patches. Paper: A. Bar et al., "Stochastic positional embeddings improve masked
    /// image modeling" (2024), section 3; official code: `src/deit.py` of amirbar/StoP.
    ///
    /// # Errors
    /// [`Error::NoMasks`] without a mask, [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn forward(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        noise: Option<&Tensor>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let (_, visible, _) = z.size3()?;
        let mut x = self.tokens(z, context, targets, noise)?; // (B, C + T, P)
        let guesses = |x: &Tensor| -> Result<Tensor, Error> {
            let (_, all, _) = x.size3()?;
            Ok(x.f_narrow(1, visible, all - visible)?) // (B, T, P)
        };
        let last = self.predictor_blocks.len() - 1;
        for (i, block) in self.predictor_blocks.iter().enumerate() {
            if i == last && !hooks.listening() {
                x = block.forward_for(&x, guesses)?;
            } else {
                x = block.forward(&x)?;
                hooks.record(format_args!("block{i}"), &x);
            }
        }
        if hooks.listening() {
            x = guesses(&x)?;
        }
        let x = self
            .predictor_proj
            .forward(&self.predictor_norm.forward(&x)?)?; // (B, T, D)
        hooks.record(format_args!("out"), &x);
        Ok(x)
    }

    /// Says something of visible patches as well, which the official predictor does not: see
    /// [`visible`](crate::method::visible).
    ///
    /// # Errors
    /// Those of [`Predictor::forward`].
    pub fn forward_all(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        noise: Option<&Tensor>,
    ) -> Result<Patches, Error> {
        let (_, visible, _) = z.size3()?;
        let mut x = self.tokens(z, context, targets, noise)?; // (B, C + T, P)
        for block in &self.predictor_blocks {
            x = block.forward(&x)?;
        }
        let x = self
            .predictor_proj
            .forward(&self.predictor_norm.forward(&x)?)?; // (B, C + T, D)
        let (_, all, _) = x.size3()?;
        Ok(Patches {
            hidden: x.f_narrow(1, visible, all - visible)?,
            visible: Some(x.f_narrow(1, 0, visible)?),
        })
    }

    /// Returns the tokens that the blocks look at: those of the visible patches, then those of the hidden ones.
    fn tokens(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        noise: Option<&Tensor>,
    ) -> Result<Tensor, Error> {
        if context.is_empty() {
            return Err(Error::NoMasks("context"));
        }
        if targets.is_empty() {
            return Err(Error::NoMasks("target"));
        }
        let (rows, _, _) = z.size3()?;
        let images = rows / context.len() as i64;
        let positions = self.predictor_pos_embed.f_expand([images, -1, -1], false)?; // (B, N, P)
        let mut x = self.predictor_embed.forward(z)?; // (B, C, P)
        // In place: under autocast the sum stays bfloat16 here, and becomes float32 only beside the mask tokens.
        let x = x.f_add_(&apply_masks(&positions, context)?)?;

        let hidden = apply_masks(&positions, targets)?;
        let hidden = repeat_for_contexts(&hidden, images, context.len())?;
        let mut hidden = self.mask_token.f_add(&hidden)?; // (B, T, P)
        if let Some(noise) = noise {
            hidden = hidden.f_add(&self.predictor_embed.forward_without_bias(noise)?)?;
        }
        let x = x.f_repeat([targets.len() as i64, 1, 1])?;
        Ok(Tensor::f_cat(&[x, hidden], 1)?) // (B, C + T, P)
    }

    /// Turns activation checkpointing on or off: see
    /// [`Encoder::recompute_activations`](crate::method::encoder::Encoder::recompute_activations).
    pub fn recompute_activations(&mut self, recompute: bool) {
        for block in &mut self.predictor_blocks {
            block.set_recomputed(recompute);
        }
    }

    /// Returns every parameter by name, in the official order; those that are never trained require no gradient.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }
}
