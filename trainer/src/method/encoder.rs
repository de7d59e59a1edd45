//! The encoder: a plain vision transformer that encodes patches.
//!
//! I-JEPA makes two of it: the context encoder, which is trained, and the target encoder, which follows. Paper, section
//! 3; official code: `VisionTransformer` of `src/models/vision_transformer.py`.
//!
//! Letters in the shape comments of the networks:
//!
//! | letter | meaning |
//! |---|---|
//! | B | images; after masking, images × context masks (× target masks in the predictor) |
//! | N | tokens of an image: all patches of the grid, or those a mask keeps |
//! | C, T | patches that a context mask, a target mask keeps |
//! | D | width of the encoder |
//! | P | width of the predictor |
//! | H, K | attention heads, width of a head |

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use crate::Error;
use crate::method::gather::{apply_masks, patchify};
use crate::method::hooks::{Hooks, NoHooks};
use crate::method::model::{CHANNELS, ModelConfig};
use crate::method::transformer::{
    Block, LayerNorm, Linear, Parameters, Scope, replace_positions, zeroed,
};
use crate::method::{parameters, positions, state_dict};
use crate::torch::shim;

/// Encodes the patches of an image, all of them (the target encoder) or those a mask keeps (the context encoder).
pub struct Encoder {
    pos_embed: Tensor, // (1, N, D)
    patch_embed: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    config: ModelConfig,
    parameters: Parameters,
}

/// Hooks that keep what the last blocks make.
struct LastBlocks {
    /// Number of the first block to keep.
    first: usize,
    outputs: Vec<Tensor>,
}

impl Hooks for LastBlocks {
    fn record(&mut self, name: std::fmt::Arguments<'_>, tensor: &Tensor) {
        let name = name.to_string();
        let number = name.strip_prefix("block").and_then(|i| i.parse().ok());
        if number.is_some_and(|number: usize| number >= self.first) {
            self.outputs.push(tensor.shallow_clone());
        }
    }
}

/// Which patches of an image an encoder looks at, and which it returns.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'a> {
    /// Looks at all patches and returns all: (B, N, D).
    All,
    /// Looks at the patches that each mask (B, n) keeps, and returns them, masks one after the other along B.
    Masks(&'a [Tensor]),
    /// Looks at all patches and returns the encodings of these alone (B, n): (B, n, D). What the last block would make
    /// of the others is not computed.
    Rows(&'a Tensor),
}

impl Encoder {
    /// Makes an encoder whose parameters are zero, but for the position embedding.
    ///
    /// # Errors
    /// [`Error::Sizes`] for sizes that make no network, [`Error::OutOfMemory`] where they make too large a one.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        config.check_encoder()?;
        let parameters = zeroed(parameters::encoder(config), config.grid(), device)?;
        let scope = Scope::new(&parameters);
        let blocks = (0..config.depth)
            .map(|i| Block::new(scope.at(format_args!("blocks.{i}")), config.heads));
        Ok(Self {
            pos_embed: scope.get("pos_embed")?,
            patch_embed: Linear::new(scope.at("patch_embed.proj"))?,
            blocks: blocks.collect::<Result<_, _>>()?,
            norm: LayerNorm::new(scope.at("norm"))?,
            config: config.clone(),
            parameters,
        })
    }

    /// Goes on with images of another size: with the fixed positions of its grid, and otherwise as it is.
    ///
    /// # Errors
    /// [`Error::Sizes`] for images without a patch, [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn resize(&mut self, image_size: i64) -> Result<(), Error> {
        let config = ModelConfig {
            image_size,
            ..self.config.clone()
        };
        config.check_encoder()?;
        let device = self.pos_embed.device();
        let positions = positions::embedding(config.embed_dim, config.grid(), device)?;
        self.take_positions(positions, image_size);
        Ok(())
    }

    /// Takes up the positions of images of this size.
    pub(super) fn take_positions(&mut self, positions: Tensor, image_size: i64) {
        replace_positions(&mut self.parameters, &positions);
        self.pos_embed = positions;
        self.config.image_size = image_size;
    }

    /// Encodes images of the size of training: (B, 3, height, width) to (B, N, D), of the patches that `keep` says.
    ///
    /// Calls the hooks `patch_embed`, `block{i}` and `out`.
    ///
    /// # Errors
    /// [`Error::ImageSize`] for images of another size, [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn forward(
        &self,
        images: &Tensor,
        keep: Keep<'_>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let side = self.config.image_size;
        if !matches!(images.size()[..], [_, CHANNELS, height, width] if (height, width) == (side, side))
        {
            return Err(self.image_size(images));
        }
        self.encode(images, &self.pos_embed, keep, hooks)
    }

    /// Encodes whole images, as a frozen feature extractor does: (B, 3, height, width) to (B, N, D), patches row by
    /// row.
    ///
    /// Height and width may be any multiples of the patch size; at other sizes than that of training the positions are
    /// those of [`Encoder::positions`]. No gradients are kept.
    ///
    /// # Errors
    /// [`Error::ImageSize`] or [`Error::PatchGrid`] for other images, [`Error::OutOfMemory`] and [`Error::Torch`] from
    /// the device.
    pub fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        self.whole(images, &mut NoHooks)
    }

    /// Returns what [`features`](Encoder::features) returns after each of the last `layers` blocks, the last block's
    /// last: the final norm is applied to each, as DINO's probes do.
    ///
    /// # Errors
    /// Those of [`features`](Encoder::features).
    pub fn layer_features(&self, images: &Tensor, layers: usize) -> Result<Vec<Tensor>, Error> {
        let mut last = LastBlocks {
            first: self.blocks.len().saturating_sub(layers),
            outputs: Vec::new(),
        };
        drop(self.whole(images, &mut last)?);
        let norm = |x: &Tensor| tch::no_grad(|| self.norm.forward(x));
        last.outputs.iter().map(norm).collect()
    }

    /// Encodes whole images without gradients.
    fn whole(&self, images: &Tensor, hooks: &mut dyn Hooks) -> Result<Tensor, Error> {
        let [_, CHANNELS, height, width] = images.size()[..] else {
            return Err(self.image_size(images));
        };
        let positions = self.positions(height, width)?;
        tch::no_grad(|| self.encode(images, &positions, Keep::All, hooks))
    }

    /// Returns the position embedding of images of `height` × `width` pixels, (1, N, D).
    ///
    /// It is the grid of training itself at the size of training, else resampled to the new grid with bicubic
    /// interpolation, corners not aligned. The whole grid is resampled. The official code takes its first position for
    /// that of a class token, which these networks do not have, and so gives other sizes a grid that is shifted by one
    /// (`interpolate_pos_encoding` of `src/models/vision_transformer.py`).
    ///
    /// # Errors
    /// [`Error::PatchGrid`] for images that are not made of whole patches.
    pub fn positions(&self, height: i64, width: i64) -> Result<Tensor, Error> {
        let patch = self.config.patch_size;
        if height < patch || width < patch || height % patch != 0 || width % patch != 0 {
            return Err(Error::PatchGrid {
                patch,
                height,
                width,
            });
        }
        let (side, rows, columns) = (self.config.grid(), height / patch, width / patch);
        if (rows, columns) == (side, side) {
            return Ok(self.pos_embed.shallow_clone());
        }
        positions::resample(&self.pos_embed, side, rows, columns)
    }

    /// Encodes images whose patches have these `positions` (1, N, D).
    fn encode(
        &self,
        images: &Tensor,
        positions: &Tensor,
        keep: Keep<'_>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let patches = patchify(images, self.config.patch_size)?; // (B, N, 3·p²)
        let mut x = match keep {
            // What is hidden need not be embedded.
            Keep::Masks(masks) if !hooks.listening() => {
                let positions = positions.f_expand([images.size()[0], -1, -1], false)?;
                let x = self.embed(&apply_masks(&patches, masks)?)?;
                x.f_add(&apply_masks(&positions, masks)?)? // (B, C, D)
            }
            _ => {
                let x = self.embed(&patches)?;
                hooks.record(format_args!("patch_embed"), &x);
                let x = x.f_add(positions)?; // (B, N, D)
                match keep {
                    Keep::Masks(masks) => apply_masks(&x, masks)?, // (B, C, D)
                    Keep::All | Keep::Rows(_) => x,
                }
            }
        };
        let last = self.blocks.len() - 1;
        for (i, block) in self.blocks.iter().enumerate() {
            x = match keep {
                Keep::Rows(rows) if i == last => {
                    block.forward_for(&x, |x| apply_masks(x, std::slice::from_ref(rows)))?
                }
                _ => block.forward(&x)?,
            };
            hooks.record(format_args!("block{i}"), &x);
        }
        let x = self.norm.forward(&x)?;
        hooks.record(format_args!("out"), &x);
        Ok(x)
    }

    /// Projects patches to tokens: (B, n, 3·p²) to (B, n, D).
    fn embed(&self, patches: &Tensor) -> Result<Tensor, Error> {
        let Linear { weight, bias } = &self.patch_embed;
        shim::linear(patches, &weight.f_flatten(1, -1)?, bias)
    }

    /// Copies `state`, under official names without a network's, into the encoder.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorForm`]; nothing is copied then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        state_dict::load(&self.parameters, state)
    }

    /// Turns activation checkpointing on or off: the backward pass computes the blocks' intermediate results again,
    /// which takes less memory and more time.
    pub fn recompute_activations(&mut self, recompute: bool) {
        for block in &mut self.blocks {
            block.set_recomputed(recompute);
        }
    }

    /// Returns every parameter by name, in the official order; those that are never trained require no gradient.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Returns the sizes it was made with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn image_size(&self, images: &Tensor) -> Error {
        let side = self.config.image_size;
        Error::ImageSize {
            expected: [CHANNELS, side, side],
            found: images.size().into_iter().skip(1).collect(),
        }
    }
}
