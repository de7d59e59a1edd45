//! Features of images by a frozen encoder.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::Error;
use crate::checkpoint;
use crate::config::Config;
use crate::method::encoder::Encoder;
use crate::method::positions;
use crate::source::Normaliser;

/// What is kept of the encodings of an image's patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The largest value of each dimension.
    Max,
    /// Means over a grid of 3 x 3, side by side, row by row.
    Grid,
}

/// Cells along a side of [`Pooling::Grid`].
const CELLS: i64 = 3;

impl Pooling {
    /// Returns the name, as `--pooling` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::Grid => "grid",
        }
    }

    /// Returns the number of values for each dimension.
    pub fn parts(self) -> i64 {
        match self {
            Pooling::Mean | Pooling::Max => 1,
            Pooling::Grid => CELLS * CELLS,
        }
    }

    /// Pools encodings (B, N, D) of a grid of patches to (B, parts · D).
    fn of(self, x: &Tensor, (rows, columns): (i64, i64)) -> Result<Tensor, crate::Error> {
        Ok(match self {
            Pooling::Mean => x.f_mean_dim([1i64].as_slice(), false, Kind::Float)?,
            Pooling::Max => x.f_amax([1i64].as_slice(), false)?.f_to_kind(Kind::Float)?,
            Pooling::Grid => {
                let (b, _, d) = x.size3()?;
                let map = x.f_transpose(1, 2)?.f_reshape([b, d, rows, columns])?;
                let cells = map
                    .f_to_kind(Kind::Float)?
                    .f_adaptive_avg_pool2d([CELLS, CELLS])?;
                cells.f_permute([0, 2, 3, 1])?.f_reshape([b, -1])?
            }
        })
    }
}

/// Takes features with the target encoder of a checkpoint, the network that the paper evaluates.
pub struct Features {
    encoder: Encoder,
    normaliser: Normaliser,
}

impl Features {
    /// Loads the target encoder of `path`, a checkpoint or a run directory, whose latest one is taken.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] or [`Error::Config`] for what is wrong with it, [`Error::Compute`] from the device.
    pub fn load(path: &Path, device: Device) -> Result<Features, Error> {
        let path = checkpoint::find(path)?;
        let state = checkpoint::read_state(&path)?;
        let model = Config::from_resolved(&state.config).and_then(|config| config.model());
        let model = model.map_err(|cause| Error::Config {
            path: path.clone(),
            cause: Box::new(cause),
        })?;
        let mut encoder = Encoder::new(&model, device)?;
        let weights = checkpoint::read_part(&path, "target_encoder")?;
        // Of a run whose crops change their size, a checkpoint has that of its last step.
        if let Some(grid) = weights.get("pos_embed").and_then(positions::grid) {
            encoder.resize(grid * model.patch_size)?;
        }
        encoder
            .load_state(&weights)
            .map_err(|cause| checkpoint::Error::Unfit { path, cause })?;
        Features::of(encoder)
    }

    /// Takes features with an encoder, on the device that it is on.
    ///
    /// # Errors
    /// [`Error::Compute`] from the device.
    pub fn of(encoder: Encoder) -> Result<Features, Error> {
        let device = encoder.parameters()[0].1.device();
        Ok(Features {
            encoder,
            normaliser: Normaliser::new(device)?,
        })
    }

    /// Returns the encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Returns the encoder, which may learn again.
    pub fn into_encoder(self) -> Encoder {
        self.encoder
    }

    /// Returns the device that the encoder is on.
    pub fn device(&self) -> Device {
        self.encoder.parameters()[0].1.device()
    }

    /// Returns the encoding of every patch: bytes (B, 3, height, width) to (B, N, D), patches row by row.
    ///
    /// Height and width are any multiples of the patch size. See [`Encoder::features`].
    ///
    /// # Errors
    /// [`crate::Error::ImageSize`] or [`crate::Error::PatchGrid`] for other images, [`crate::Error::OutOfMemory`] and
    /// [`crate::Error::Torch`] from the device.
    pub fn of_patches(&self, bytes: &Tensor) -> Result<Tensor, crate::Error> {
        let device = self.encoder.parameters()[0].1.device();
        let images = self.normaliser.apply(&bytes.f_to_device(device)?)?;
        self.encoder.features(&images)
    }

    /// Returns the mean of each image's encodings, as linear probes take it: bytes (B, 3, height, width) to (B, D).
    ///
    /// # Errors
    /// Those of [`Features::of_patches`].
    pub fn pooled(&self, bytes: &Tensor) -> Result<Tensor, crate::Error> {
        let patches = self.of_patches(bytes)?;
        Ok(patches.f_mean_dim([1i64].as_slice(), false, Kind::Float)?)
    }

    /// Returns what `pooling` keeps of each image's encodings after each of the last `layers` blocks, side by side:
    /// normalised images (B, 3, height, width) to (B, layers · parts · D), the last block's last. See
    /// [`Encoder::layer_features`].
    ///
    /// # Errors
    /// Those of [`Features::of_patches`].
    pub fn pooled_layers(
        &self,
        images: &Tensor,
        layers: usize,
        pooling: Pooling,
    ) -> Result<Tensor, crate::Error> {
        let patch = self.encoder.config().patch_size;
        let (_, _, height, width) = images.size4()?;
        let grid = (height / patch, width / patch);
        let layers = self.encoder.layer_features(images, layers)?;
        let pooled = layers.iter().map(|x| pooling.of(x, grid));
        let pooled = pooled.collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&pooled, 1)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::method::init;
    use crate::method::model::ModelConfig;

    /// A fresh encoder of images of 16 pixels, the same each time.
    pub fn encoder() -> Encoder {
        let model = ModelConfig {
            image_size: 16,
            patch_size: 4,
            embed_dim: 24,
            depth: 2,
            heads: 2,
            mlp_dim: 48,
            predictor_dim: 16,
            predictor_depth: 1,
        };
        let encoder = Encoder::new(&model, Device::Cpu).unwrap();
        init::initialise(encoder.parameters(), 3).unwrap();
        encoder
    }

    pub fn features() -> Features {
        Features::of(encoder()).unwrap()
    }

    #[test]
    fn each_pooling_keeps_what_it_says() {
        // Dimension 0 is the patch's number, dimension 1 its negative.
        let numbers = Tensor::arange(36, (Kind::Float, Device::Cpu)).view([1, 36, 1]);
        let x = Tensor::cat(&[&numbers, &-&numbers], 2);
        let pooled = |pooling: Pooling| {
            let pooled = pooling.of(&x, (6, 6)).unwrap();
            assert_eq!(pooled.size(), [1, 2 * pooling.parts()]);
            Vec::<f32>::try_from(pooled.flatten(0, -1)).unwrap()
        };
        assert_eq!(pooled(Pooling::Mean), [17.5, -17.5]);
        assert_eq!(pooled(Pooling::Max), [35.0, 0.0]);
        let grid = pooled(Pooling::Grid);
        assert_eq!(&grid[..4], [3.5, -3.5, 5.5, -5.5]);
        assert_eq!(&grid[6..8], [15.5, -15.5]);
    }
}
