//! Features of images by a frozen encoder.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::Error;
use crate::checkpoint;
use crate::config::Config;
use crate::method::encoder::Encoder;
use crate::method::positions;
use crate::source::Normaliser;

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

    /// Returns the means of each image's encodings after each of the last `layers` blocks, side by side: normalised
    /// images (B, 3, height, width) to (B, layers · D), the last block's last. See [`Encoder::layer_features`].
    ///
    /// # Errors
    /// Those of [`Features::of_patches`].
    pub fn pooled_layers(&self, images: &Tensor, layers: usize) -> Result<Tensor, crate::Error> {
        let mean = |x: &Tensor| x.f_mean_dim([1i64].as_slice(), false, Kind::Float);
        let layers = self.encoder.layer_features(images, layers)?;
        let means = layers.iter().map(mean).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&means, 1)?)
    }
}
