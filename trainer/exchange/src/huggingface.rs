//! The layout of Hugging Face's `transformers`: what `IJepaModel.from_pretrained(DIR)` loads.
//!
//! `config.json`, `model.safetensors` with one encoder under that library's names (the attention's fused projection
//! split in three), and `preprocessor_config.json`. The predictor, for which that library has no place, lies beside
//! them under its official names, in `predictor.safetensors`.

mod directory;
mod names;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::Error;
use crate::model::{LAYER_NORM_EPS, MEAN, ModelConfig, STD};
use crate::parameters::{self, Parameter};
use crate::weights::{self, Tensors};
use names::theirs;

pub use directory::Directory;
pub(crate) use names::{is_named_so, renamed};

const CONFIG: &str = "config.json";
const MODEL: &str = "model.safetensors";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PREDICTOR: &str = "predictor.safetensors";

/// Writes the layout into the directory `out`, which is there and empty.
///
/// The tensors must be those of `model`, as [`weights::check`] makes sure.
///
/// # Errors
/// [`Error::Io`] with the file that could not be written.
pub fn write(
    out: &Path,
    model: &ModelConfig,
    encoder: &Tensors<'_>,
    predictor: Option<&Tensors<'_>>,
) -> Result<(), Error> {
    let config = json!({
        "architectures": ["IJepaModel"],
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": model.embed_dim,
        "image_size": model.image_size,
        "initializer_range": 0.02,
        "intermediate_size": model.mlp_dim,
        "layer_norm_eps": LAYER_NORM_EPS,
        "model_type": "ijepa",
        "num_attention_heads": model.heads,
        "num_channels": 3,
        "num_hidden_layers": model.depth,
        "patch_size": model.patch_size,
        "qkv_bias": true,
    });
    let preprocessor = json!({
        // As in training: grey, palette and transparent images become RGB.
        "do_convert_rgb": true,
        "do_normalize": true,
        "do_rescale": true,
        "do_resize": true,
        "image_mean": MEAN.map(shortest),
        "image_processor_type": "ViTImageProcessor",
        "image_std": STD.map(shortest),
        "resample": 2, // bilinear
        "rescale_factor": 1.0 / 255.0,
        "size": {"height": model.image_size, "width": model.image_size},
    });
    for (name, value) in [(CONFIG, config), (PREPROCESSOR, preprocessor)] {
        let path = out.join(name);
        fs::write(&path, format!("{value:#}\n")).map_err(|cause| Error::io(&path, cause))?;
    }

    let mut renamed = Tensors::new();
    for Parameter { name, .. } in parameters::encoder(model) {
        let tensor = &encoder[&name];
        let theirs = theirs(&name);
        let parts = theirs.len();
        for (part, name) in theirs.into_iter().enumerate() {
            renamed.insert(name, tensor.part(part, parts));
        }
    }
    // Without this mark, `transformers` takes the file for another framework's.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let files = [(MODEL, Some(&renamed)), (PREDICTOR, predictor)];
    for (name, tensors) in files {
        let Some(tensors) = tensors else { continue };
        let path = out.join(name);
        let views = tensors
            .iter()
            .map(|(name, tensor)| (&name[..], tensor.clone()));
        let written = File::create(&path).and_then(|file| {
            let mut to = BufWriter::with_capacity(1 << 20, &file);
            weights::write(views.collect(), Some(metadata.clone()), &mut to)?;
            to.flush()?;
            file.sync_all()
        });
        written.map_err(|cause| Error::io(&path, cause))?;
    }
    Ok(())
}

/// Returns the decimal number that was meant: 0.485 rather than the float32 beside it.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a printed number")
}
