//! The networks: a plain vision transformer that encodes patches, and a narrow one that predicts the encodings of
//! hidden patches from those of visible ones.
//!
//! Parameter names and their order are those of the official implementation's state dictionaries, so weights move both
//! ways by name. Used by [`crate::method::ijepa`], which makes the method out of three of these.
//!
//! Letters in the shape comments:
//!
//! | letter | meaning |
//! |---|---|
//! | B | images; after masking, images × context masks (× target masks in the predictor) |
//! | N | tokens of an image: all patches of the grid, or those a mask keeps |
//! | C, T | patches that a context mask, a target mask keeps |
//! | D | width of the encoder |
//! | P | width of the predictor |
//! | H, K | attention heads, width of a head |

use tch::{Device, Tensor};

use crate::Error;
use crate::method::hooks::{Hooks, NoHooks};
use crate::method::transformer::{Block, LayerNorm, Linear, Maker, Parameters};

/// Width of the hidden layer of a block's MLP over the block's own width.
const MLP_RATIO: i64 = 4;

/// Colour channels of an image.
const CHANNELS: i64 = 3;

/// Sizes of an official encoder: what `meta.model_name` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name in configuration files.
    pub name: &'static str,
    /// Width of the encoder (D).
    pub embed_dim: i64,
    /// Blocks of the encoder.
    pub depth: i64,
    /// Attention heads, of the encoder and of the predictor.
    pub heads: i64,
    /// Hidden width of the encoder's MLPs.
    pub mlp_dim: i64,
}

impl Preset {
    /// All official encoders, the smallest first.
    ///
    /// `vit_giant`'s MLPs are 48/11 times as wide as its tokens, all others' 4 times.
    pub const ALL: [Preset; 6] = [
        Preset::new("vit_tiny", 192, 12, 3, 192 * MLP_RATIO),
        Preset::new("vit_small", 384, 12, 6, 384 * MLP_RATIO),
        Preset::new("vit_base", 768, 12, 12, 768 * MLP_RATIO),
        Preset::new("vit_large", 1024, 24, 16, 1024 * MLP_RATIO),
        Preset::new("vit_huge", 1280, 32, 16, 1280 * MLP_RATIO),
        Preset::new("vit_giant", 1408, 40, 16, 6144),
    ];

    const fn new(name: &'static str, embed_dim: i64, depth: i64, heads: i64, mlp_dim: i64) -> Self {
        Self {
            name,
            embed_dim,
            depth,
            heads,
            mlp_dim,
        }
    }

    /// Returns the official encoder of this name.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] where there is none.
    pub fn named(name: &str) -> Result<Preset, Error> {
        let found = Self::ALL.into_iter().find(|preset| preset.name == name);
        found.ok_or_else(|| Error::UnknownModel {
            name: name.to_string(),
            known: Self::ALL.map(|preset| preset.name).join(", "),
        })
    }

    /// Returns the official encoder of these sizes, if there is one.
    pub fn of(embed_dim: i64, depth: i64, mlp_dim: i64) -> Option<Preset> {
        Self::ALL.into_iter().find(|preset| {
            (preset.embed_dim, preset.depth, preset.mlp_dim) == (embed_dim, depth, mlp_dim)
        })
    }
}

/// Sizes of the encoder and the predictor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// Height and width of the images, in pixels.
    pub image_size: i64,
    /// Height and width of a patch, in pixels.
    pub patch_size: i64,
    /// Width of the encoder (D).
    pub embed_dim: i64,
    /// Blocks of the encoder.
    pub depth: i64,
    /// Attention heads, of the encoder and of the predictor.
    pub heads: i64,
    /// Hidden width of the encoder's MLPs.
    pub mlp_dim: i64,
    /// Width of the predictor (P).
    pub predictor_dim: i64,
    /// Blocks of the predictor.
    pub predictor_depth: i64,
}

impl ModelConfig {
    /// Returns the sizes in words.
    pub fn describe(&self) -> String {
        let name = Preset::of(self.embed_dim, self.depth, self.mlp_dim);
        let name = name.map_or("a network of its own", |preset| preset.name);
        let &ModelConfig {
            patch_size,
            image_size,
            predictor_dim,
            predictor_depth,
            ..
        } = self;
        let predictor = if predictor_depth == 0 {
            "no predictor".to_owned()
        } else {
            format!("predictor {predictor_dim} wide and {predictor_depth} deep")
        };
        format!("{name}, patches of {patch_size}, images of {image_size}, {predictor}")
    }

    /// The sizes behind the official config keys `meta.model_name`, `data.crop_size`, `mask.patch_size`,
    /// `meta.pred_emb_dim` and `meta.pred_depth`.
    pub fn preset(
        model_name: &str,
        crop_size: i64,
        patch_size: i64,
        pred_emb_dim: i64,
        pred_depth: i64,
    ) -> Result<Self, Error> {
        let Preset {
            embed_dim,
            depth,
            heads,
            mlp_dim,
            ..
        } = Preset::named(model_name)?;
        let config = Self {
            image_size: crop_size,
            patch_size,
            embed_dim,
            depth,
            heads,
            mlp_dim,
            predictor_dim: pred_emb_dim,
            predictor_depth: pred_depth,
        };
        config.check()?;
        Ok(config)
    }

    /// Patches along one side of an image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Patches of an image.
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    fn check(&self) -> Result<(), Error> {
        let Self {
            image_size,
            patch_size,
            heads,
            ..
        } = *self;
        if patch_size < 1 || image_size < patch_size {
            return Err(Error::Model(format!(
                "no patch of {patch_size} pixels fits an image of {image_size}"
            )));
        }
        for (what, width) in [
            ("encoder", self.embed_dim),
            ("predictor", self.predictor_dim),
        ] {
            if width < 1 || heads < 1 || width % heads != 0 {
                return Err(Error::Model(format!(
                    "{what} width {width} is not a multiple of its {heads} heads"
                )));
            }
            if width % 4 != 0 {
                // sine and cosine, of row and column
                return Err(Error::Model(format!(
                    "{what} width {width} is not a multiple of 4"
                )));
            }
        }
        if self.depth < 1 || self.predictor_depth < 1 || self.mlp_dim < 1 {
            return Err(Error::Model("depths and widths are at least 1".to_string()));
        }
        Ok(())
    }
}

/// Encodes the patches of an image, all of them (the target encoder) or those a mask keeps (the context encoder).
pub struct Encoder {
    pos_embed: Tensor, // (1, N, D)
    patch_embed: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    config: ModelConfig,
    parameters: Parameters,
}

impl Encoder {
    /// An encoder whose parameters are zero, but for the position embedding.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        config.check()?;
        let &ModelConfig {
            patch_size,
            embed_dim,
            depth,
            heads,
            mlp_dim,
            ..
        } = config;
        let mut parameters = Vec::new();
        let mut make = Maker::new(&mut parameters, device);
        let pos_embed = make.keep(
            "pos_embed",
            position_embedding(embed_dim, config.grid(), device),
        );
        let mut projection = make.at("patch_embed.proj");
        let patch_embed = Linear {
            weight: projection.parameter("weight", &[embed_dim, CHANNELS, patch_size, patch_size]),
            bias: projection.parameter("bias", &[embed_dim]),
        };
        let blocks = (0..depth)
            .map(|i| {
                Block::new(
                    make.at(format_args!("blocks.{i}")),
                    embed_dim,
                    heads,
                    mlp_dim,
                )
            })
            .collect();
        let norm = LayerNorm::new(make.at("norm"), embed_dim);
        Ok(Self {
            pos_embed,
            patch_embed,
            blocks,
            norm,
            config: config.clone(),
            parameters,
        })
    }

    /// Encodes the patches that each of the `masks` keeps, or all of them: (B, 3, height, width) to (B, N, D), masks
    /// one after the other along B. Announces `patch_embed`, `block{i}` and `out`. Images are of the size of training,
    /// whose patches the masks number.
    pub fn forward(
        &self,
        images: &Tensor,
        masks: Option<&[Tensor]>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        self.check_size(images)?;
        self.encode(images, &self.pos_embed, masks, None, hooks)
    }

    fn check_size(&self, images: &Tensor) -> Result<(), Error> {
        let side = self.config.image_size;
        if images.size()[1..] != [CHANNELS, side, side] {
            return Err(Error::ImageSize {
                expected: [CHANNELS, side, side],
                found: images.size()[1..].to_vec(),
            });
        }
        Ok(())
    }

    /// Encodes whole images, but gives only the encodings of the patches `rows` (B, n): (B, n, D). What the last block
    /// would make of the others is not computed.
    pub fn forward_at(&self, images: &Tensor, rows: &Tensor) -> Result<Tensor, Error> {
        self.check_size(images)?;
        self.encode(images, &self.pos_embed, None, Some(rows), &mut NoHooks)
    }

    /// The same for images whose patches have these `positions` (1, N, D).
    fn encode(
        &self,
        images: &Tensor,
        positions: &Tensor,
        masks: Option<&[Tensor]>,
        rows: Option<&Tensor>,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor, Error> {
        let patches = cut(images, self.config.patch_size); // (B, N, 3·p²)
        let mut x = match masks {
            // What is hidden need not be embedded.
            Some(masks) if !hooks.listening() => {
                let positions = positions.expand([images.size()[0], -1, -1], false);
                self.embed(&apply_masks(&patches, masks)) + apply_masks(&positions, masks)
            }
            _ => {
                let x = self.embed(&patches);
                hooks.record(format_args!("patch_embed"), &x);
                let x = x + positions; // (B, N, D)
                masks.map_or_else(|| x.shallow_clone(), |masks| apply_masks(&x, masks)) // (B, C, D)
            }
        };
        let (last, blocks) = self.blocks.split_last().expect("a depth of 1 at least");
        for (i, block) in blocks.iter().enumerate() {
            x = block.forward(&x);
            hooks.record(format_args!("block{i}"), &x);
        }
        x = match rows {
            Some(rows) => last.forward_for(&x, |x| apply_masks(x, std::slice::from_ref(rows))),
            None => last.forward(&x),
        };
        hooks.record(format_args!("block{}", blocks.len()), &x);
        let x = self.norm.forward(&x);
        hooks.record(format_args!("out"), &x);
        Ok(x)
    }

    /// Projects patches to tokens: (B, n, 3·p²) to (B, n, D).
    fn embed(&self, patches: &Tensor) -> Tensor {
        let Linear { weight, bias } = &self.patch_embed;
        patches.linear(&weight.flatten(1, -1), Some(bias))
    }

    /// Encodes whole images, as a frozen feature extractor does: (B, 3, height, width) to (B, N, D), patches row by row.
    ///
    /// Height and width may be any multiples of the patch size; at other sizes than that of training the positions are
    /// those of [`Encoder::positions`].
    pub fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let &[_, CHANNELS, height, width] = &images.size()[..] else {
            let side = self.config.image_size;
            return Err(Error::ImageSize {
                expected: [CHANNELS, side, side],
                found: images.size().split_off(1),
            });
        };
        let positions = self.positions(height, width)?;
        tch::no_grad(|| self.encode(images, &positions, None, None, &mut NoHooks))
    }

    /// The position embedding of images of `height` × `width` pixels, (1, N, D): the learned grid itself at the size of
    /// training, else resampled to the new grid with bicubic interpolation, corners not aligned.
    ///
    /// The whole grid is resampled. The official code takes its first position for that of a class token, which these
    /// networks do not have, and so gives other sizes a grid that is shifted by one.
    pub fn positions(&self, height: i64, width: i64) -> Result<Tensor, Error> {
        let &ModelConfig {
            patch_size: patch,
            embed_dim,
            ..
        } = &self.config;
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
        tch::no_grad(|| {
            let grid = self.pos_embed.view([1, side, side, embed_dim]);
            let grid = grid.permute([0, 3, 1, 2]); // (1, D, rows, columns)
            let grid = grid.f_upsample_bicubic2d([rows, columns], false, None, None)?;
            Ok(grid.flatten(2, 3).transpose(1, 2)) // (1, N, D)
        })
    }

    /// Whether the backward pass computes the blocks' intermediate results anew: less memory, more time.
    pub fn recompute_activations(&mut self, recompute: bool) {
        for block in &mut self.blocks {
            block.set_recomputed(recompute);
        }
    }

    /// Every parameter by name, in the official order; those that are never trained do not require a gradient.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The sizes it was made with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

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
    /// A predictor whose parameters are zero, but for the position embedding.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, Error> {
        config.check()?;
        let &ModelConfig {
            embed_dim,
            heads,
            predictor_dim: width,
            predictor_depth,
            ..
        } = config;
        let mut parameters = Vec::new();
        let mut make = Maker::new(&mut parameters, device);
        let mask_token = make.parameter("mask_token", &[1, 1, width]);
        let predictor_pos_embed = make.keep(
            "predictor_pos_embed",
            position_embedding(width, config.grid(), device),
        );
        let predictor_embed = Linear::new(make.at("predictor_embed"), embed_dim, width);
        let predictor_blocks = (0..predictor_depth)
            .map(|i| {
                Block::new(
                    make.at(format_args!("predictor_blocks.{i}")),
                    width,
                    heads,
                    width * MLP_RATIO,
                )
            })
            .collect();
        let predictor_norm = LayerNorm::new(make.at("predictor_norm"), width);
        let predictor_proj = Linear::new(make.at("predictor_proj"), width, embed_dim);
        Ok(Self {
            mask_token,
            predictor_pos_embed,
            predictor_embed,
            predictor_blocks,
            predictor_norm,
            predictor_proj,
            parameters,
        })
    }

    /// Predicts, from the encoded `context` patches (B, C, D), the encodings of the `target` patches. The result,
    /// (B, T, D), has one row per (target mask, context mask, image), the image running fastest. Announces `block{i}`
    /// and `out`.
    pub fn forward(
        &self,
        z: &Tensor,
        context: &[Tensor],
        targets: &[Tensor],
        hooks: &mut dyn Hooks,
    ) -> Tensor {
        let images = z.size()[0] / context.len() as i64;
        let positions = self.predictor_pos_embed.expand([images, -1, -1], false); // (B, N, P)
        let mut x = self.predictor_embed.forward(z); // (B, C, P)
        // In place: under autocast the sum stays bfloat16 here, and becomes float32 only beside the mask tokens.
        x += apply_masks(&positions, context);
        let (_, visible, _) = x.size3().expect("tokens are (B, N, P)");

        let hidden = repeat_for_contexts(&apply_masks(&positions, targets), images, context.len());
        let hidden = &self.mask_token + hidden; // (B, T, P)
        let x = x.repeat([targets.len() as i64, 1, 1]);
        let mut x = Tensor::cat(&[x, hidden], 1); // (B, C + T, P)
        let guesses = |x: &Tensor| x.narrow(1, visible, x.size()[1] - visible); // (B, T, P)
        let (last, blocks) = self
            .predictor_blocks
            .split_last()
            .expect("a depth of 1 at least");
        for (i, block) in blocks.iter().enumerate() {
            x = block.forward(&x);
            hooks.record(format_args!("block{i}"), &x);
        }
        let x = if hooks.listening() {
            let x = last.forward(&x);
            hooks.record(format_args!("block{}", blocks.len()), &x);
            guesses(&x)
        } else {
            last.forward_for(&x, guesses)
        };
        let x = self
            .predictor_proj
            .forward(&self.predictor_norm.forward(&x)); // (B, T, D)
        hooks.record(format_args!("out"), &x);
        x
    }

    /// See [`Encoder::recompute_activations`].
    pub fn recompute_activations(&mut self, recompute: bool) {
        for block in &mut self.predictor_blocks {
            block.set_recomputed(recompute);
        }
    }

    /// Every parameter by name, in the official order; those that are never trained do not require a gradient.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }
}

/// The pixels of each patch, patches row by row, a patch channel by channel: (B, 3, height, width) to (B, N, 3·p²).
fn cut(images: &Tensor, patch: i64) -> Tensor {
    let (b, channels, height, width) = images.size4().expect("images are (B, 3, H, W)");
    let (rows, columns) = (height / patch, width / patch);
    images
        // Pixels beyond the last whole patch are left out, as a convolution with this stride does.
        .narrow(2, 0, rows * patch)
        .narrow(3, 0, columns * patch)
        .reshape([b, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([b, rows * columns, channels * patch * patch])
}

/// The tokens of `x` (B, N, D) that each mask (B, n) keeps, masks one after the other: (masks · B, n, D).
pub fn apply_masks(x: &Tensor, masks: &[Tensor]) -> Tensor {
    let width = x.size()[2];
    let kept: Vec<Tensor> = masks
        .iter()
        .map(|mask| x.gather(1, &mask.unsqueeze(-1).expand([-1, -1, width], false), false))
        .collect();
    Tensor::cat(&kept, 0)
}

/// Repeats each run of `images` rows (one target mask) `contexts` times: rows (target mask, image) become rows (target
/// mask, context mask, image).
pub fn repeat_for_contexts(x: &Tensor, images: i64, contexts: usize) -> Tensor {
    if contexts == 1 {
        return x.shallow_clone();
    }
    let (rows, n, width) = x.size3().expect("tokens are (B, N, D)");
    let runs = x.view([rows / images, 1, images, n, width]);
    runs.expand([-1, contexts as i64, -1, -1, -1], false)
        .reshape([rows * contexts as i64, n, width])
}

/// The fixed embedding of the positions of a `grid` × `grid` square, row by row: (1, grid², width).
///
/// The first half of the channels encodes the column, the second half the row; each half is sines, then cosines, of the
/// position at geometrically falling frequencies. Computed in float64, rounded once.
fn position_embedding(width: i64, grid: i64, device: Device) -> Tensor {
    let quarter = width / 4;
    let mut values = Vec::with_capacity((grid * grid * width) as usize);
    for row in 0..grid {
        for column in 0..grid {
            for position in [column, row] {
                let angle =
                    |k: i64| position as f64 * (1.0 / 10000f64.powf(k as f64 / quarter as f64));
                values.extend((0..quarter).map(|k| angle(k).sin() as f32));
                values.extend((0..quarter).map(|k| angle(k).cos() as f32));
            }
        }
    }
    Tensor::from_slice(&values)
        .view([1, grid * grid, width])
        .to_device(device)
}
