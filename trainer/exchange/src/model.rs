//! The sizes of the networks, and the official ones by name.
//!
//! [`parameters`](crate::parameters) lists what networks of these sizes consist of.

use shardtool::Escaped;

/// Width of the hidden layer of a block's MLP over the block's own width.
pub const MLP_RATIO: i64 = 4;

/// Epsilon of every layer norm inside the networks.
pub const LAYER_NORM_EPS: f64 = 1e-6;

/// Mean of each colour channel of ImageNet: images are normalised with it, as in the official code.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// Standard deviation of each colour channel of ImageNet: images are normalised with it, as in the official code.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Colour channels of an image.
pub const CHANNELS: i64 = 3;

/// The reason why sizes do not make a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizesError {
    /// `meta.model_name` is none of the official ones.
    #[error("unknown model `{}`: known are {} and {CUSTOM}", Escaped::new(.0), known())]
    UnknownModel(String),
    /// The images have no room for a single patch.
    #[error("no patch of {patch_size} pixels fits an image of {image_size}")]
    NoPatch {
        /// Side of a patch.
        patch_size: i64,
        /// Side of an image.
        image_size: i64,
    },
    /// The attention heads do not share the width evenly.
    #[error("{network} width {width} is not a multiple of its {heads} heads")]
    Heads {
        /// `encoder` or `predictor`.
        network: &'static str,
        /// Its width.
        width: i64,
        /// Its attention heads.
        heads: i64,
    },
    /// The width has no room for sine and cosine of row and column.
    #[error("{network} width {width} is not a multiple of 4")]
    Positions {
        /// `encoder` or `predictor`.
        network: &'static str,
        /// Its width.
        width: i64,
    },
    /// A network without layers.
    #[error("depths and widths are at least 1")]
    Empty,
}

fn known() -> String {
    Preset::ALL.map(|preset| preset.name).join(", ")
}

/// The `meta.model_name` of an encoder that is none of the official ones.
pub const CUSTOM: &str = "custom";

/// Sizes of an official encoder: what `meta.model_name` stands for (`vit_tiny` … `vit_giant` of
/// `src/models/vision_transformer.py`).
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

    /// Returns an encoder of one's own, with MLPs of the usual width.
    pub const fn custom(embed_dim: i64, depth: i64, heads: i64) -> Preset {
        Preset::new(
            CUSTOM,
            embed_dim,
            depth,
            heads,
            embed_dim.saturating_mul(MLP_RATIO),
        )
    }

    /// Returns the official encoder of this name.
    ///
    /// # Errors
    /// [`SizesError::UnknownModel`] where there is none.
    pub fn named(name: &str) -> Result<Preset, SizesError> {
        let found = Self::ALL.into_iter().find(|preset| preset.name == name);
        found.ok_or_else(|| SizesError::UnknownModel(name.to_string()))
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
    /// Returns the encoder's official name, or its width and depth.
    pub fn encoder_name(&self) -> String {
        let preset = Preset::of(self.embed_dim, self.depth, self.mlp_dim);
        let own = || format!("an encoder {} wide and {} deep", self.embed_dim, self.depth);
        preset.map_or_else(own, |preset| preset.name.to_owned())
    }

    /// Returns the sizes in words.
    pub fn describe(&self) -> String {
        let name = self.encoder_name();
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

    /// Returns the sizes behind the official config keys `meta.model_name`, `data.crop_size`, `mask.patch_size`,
    /// `meta.pred_emb_dim` and `meta.pred_depth`.
    ///
    /// Official code: `init_model` of `src/helper.py`.
    ///
    /// ```
    /// use exchange::model::ModelConfig;
    ///
    /// let huge = ModelConfig::preset("vit_huge", 224, 14, 384, 12)?;
    /// assert_eq!((huge.embed_dim, huge.depth, huge.patches()), (1280, 32, 256));
    /// # Ok::<(), exchange::model::SizesError>(())
    /// ```
    ///
    /// # Errors
    /// [`SizesError`] for an unknown name, or for sizes that do not make a network.
    pub fn preset(
        model_name: &str,
        crop_size: i64,
        patch_size: i64,
        pred_emb_dim: i64,
        pred_depth: i64,
    ) -> Result<Self, SizesError> {
        let encoder = Preset::named(model_name)?;
        Self::with_encoder(&encoder, crop_size, patch_size, pred_emb_dim, pred_depth)
    }

    /// Returns the sizes of networks with this encoder.
    ///
    /// # Errors
    /// [`SizesError`] for sizes that do not make a network.
    pub fn with_encoder(
        encoder: &Preset,
        crop_size: i64,
        patch_size: i64,
        pred_emb_dim: i64,
        pred_depth: i64,
    ) -> Result<Self, SizesError> {
        let &Preset {
            embed_dim,
            depth,
            heads,
            mlp_dim,
            ..
        } = encoder;
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

    /// Returns the number of patches along one side of an image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Returns the number of patches of an image (N).
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// Makes sure that networks of these sizes can be made.
    ///
    /// # Errors
    /// [`SizesError`] with the size that makes no network.
    pub fn check(&self) -> Result<(), SizesError> {
        self.check_encoder()?;
        self.check_width("predictor", self.predictor_dim)?;
        if self.predictor_depth < 1 {
            return Err(SizesError::Empty);
        }
        Ok(())
    }

    /// Makes sure that an encoder of these sizes can be made, whatever the predictor's are.
    ///
    /// # Errors
    /// [`SizesError`] with the size that makes no encoder.
    pub fn check_encoder(&self) -> Result<(), SizesError> {
        let Self {
            image_size,
            patch_size,
            ..
        } = *self;
        if patch_size < 1 || image_size < patch_size {
            return Err(SizesError::NoPatch {
                patch_size,
                image_size,
            });
        }
        self.check_width("encoder", self.embed_dim)?;
        if self.depth < 1 || self.mlp_dim < 1 {
            return Err(SizesError::Empty);
        }
        Ok(())
    }

    fn check_width(&self, network: &'static str, width: i64) -> Result<(), SizesError> {
        let heads = self.heads;
        if width < 1 || heads < 1 || width % heads != 0 {
            return Err(SizesError::Heads {
                network,
                width,
                heads,
            });
        }
        if width % 4 != 0 {
            return Err(SizesError::Positions { network, width });
        }
        Ok(())
    }

    /// Names the sizes in which `self` differs from `other`, and the configuration keys that state them.
    ///
    /// ```
    /// use exchange::model::ModelConfig;
    ///
    /// let narrow = ModelConfig::preset("vit_tiny", 224, 16, 96, 6)?;
    /// let wide = ModelConfig::preset("vit_tiny", 224, 16, 192, 6)?;
    /// assert_eq!(narrow.differences(&wide), ["predictor width 96 instead of 192 (meta.pred_emb_dim)"]);
    /// # Ok::<(), exchange::model::SizesError>(())
    /// ```
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let sizes = |model: &Self| {
            [
                ("image side", model.image_size, "data.crop_size"),
                ("patch side", model.patch_size, "mask.patch_size"),
                ("encoder width", model.embed_dim, "meta.model_name"),
                ("encoder depth", model.depth, "meta.model_name"),
                ("heads", model.heads, "meta.model_name"),
                ("MLP width", model.mlp_dim, "meta.model_name"),
                ("predictor width", model.predictor_dim, "meta.pred_emb_dim"),
                ("predictor depth", model.predictor_depth, "meta.pred_depth"),
            ]
        };
        let pairs = sizes(self).into_iter().zip(sizes(other));
        let differing = pairs.filter(|((_, ours, _), (_, theirs, _))| ours != theirs);
        differing
            .map(|((what, ours, key), (_, theirs, _))| {
                format!("{what} {ours} instead of {theirs} ({key})")
            })
            .collect()
    }
}
