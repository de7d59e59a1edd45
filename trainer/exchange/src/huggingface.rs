//! The layout of Hugging Face's `transformers`: what `IJepaModel.from_pretrained(DIR)` loads.
//!
//! `config.json`, `model.safetensors` with one encoder under that library's names (the attention's fused projection
//! split in three), and `preprocessor_config.json`. The predictor, for which that library has no place, lies beside
//! them under its official names, in `predictor.safetensors`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Error;
use crate::model::{LAYER_NORM_EPS, MEAN, ModelConfig, STD};
use crate::parameters::{self, Parameter};
use crate::weights::{self, Data, Mapped, Tensors, Unfit};

const CONFIG: &str = "config.json";
const MODEL: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PREDICTOR: &str = "predictor.safetensors";

/// The names of what is not in a block: ours, theirs.
const OUTER: [(&str, &str); 3] = [
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("norm", "layernorm"),
];
/// The names inside a block.
const INNER: [(&str, &str); 5] = [
    ("norm1", "layernorm_before"),
    ("attn.proj", "attention.output.dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
];
/// What the fused projection `attn.qkv` is made of, in its order.
const QKV: [&str; 3] = ["query", "key", "value"];

/// Returns the names there of the tensor `ours`; several of one that is split along its first dimension.
fn theirs(ours: &str) -> Vec<String> {
    let renamed = |names: &[(&str, &str)], name: &str| {
        let found = names.iter().find_map(|(ours, theirs)| {
            let end = name.strip_prefix(ours)?;
            (end.is_empty() || end.starts_with('.')).then(|| format!("{theirs}{end}"))
        });
        found.unwrap_or_else(|| unreachable!("{name} is no name of an encoder's tensor"))
    };
    let Some((block, name)) = ours
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return vec![renamed(&OUTER, ours)];
    };
    let layer = format!("encoder.layer.{block}");
    match name.strip_prefix("attn.qkv.") {
        Some(end) => QKV
            .map(|part| format!("{layer}.attention.attention.{part}.{end}"))
            .into(),
        None => vec![format!("{layer}.{}", renamed(&INNER, name))],
    }
}

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
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    let path = out.join(MODEL);
    safetensors::serialize_to_file(renamed, metadata.clone(), &path)
        .map_err(|cause| Error::safetensors(&path, cause))?;
    if let Some(predictor) = predictor {
        let path = out.join(PREDICTOR);
        safetensors::serialize_to_file(predictor.clone(), metadata, &path)
            .map_err(|cause| Error::safetensors(&path, cause))?;
    }
    Ok(())
}

/// Returns the decimal number that was meant: 0.485 rather than the float32 beside it.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a printed number")
}

/// The mapped files of a directory in this layout.
#[derive(Debug)]
pub struct Directory {
    /// Sizes of the encoder; the predictor's are 0.
    pub model: ModelConfig,
    path: PathBuf,
    files: Vec<Mapped>,
    predictor: Option<Mapped>,
}

impl Directory {
    /// Tells whether `path` looks like such a directory.
    pub fn is_one(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// Opens the directory `path` and checks that its model computes what ours does.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Length`] for a model of another kind, [`Error::Index`] for one in parts that are
    /// not where they should be.
    pub fn open(path: &Path) -> Result<Directory, Error> {
        let file = path.join(CONFIG);
        let config = read_json(&file)?;
        let expected = [
            ("model_type", json!("ijepa")),
            ("hidden_act", json!("gelu")),
            ("layer_norm_eps", json!(LAYER_NORM_EPS)),
            ("num_channels", json!(3)),
            ("qkv_bias", json!(true)),
        ];
        for (key, value) in expected {
            // What a file leaves out has that library's default, which is ours but for the epsilon.
            let default = (key != "layer_norm_eps").then_some(&value);
            let found = config.get(key).or(default);
            if found != Some(&value) {
                return Err(Error::Setting {
                    path: file,
                    key,
                    found: found.map_or("missing".to_owned(), Value::to_string),
                    expected: value.to_string(),
                });
            }
        }
        let size = |key: &'static str| {
            let value = config.get(key).and_then(Value::as_i64);
            // Shapes are compared with these, so they must only be sane enough to be multiplied.
            let value = value.filter(|value| (1..=1 << 20).contains(value));
            let path = file.clone();
            value.ok_or(Error::Length { path, key })
        };
        let model = ModelConfig {
            image_size: size("image_size")?,
            patch_size: size("patch_size")?,
            embed_dim: size("hidden_size")?,
            depth: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            mlp_dim: size("intermediate_size")?,
            predictor_dim: 0,
            predictor_depth: 0,
        };
        if model.depth > weights::MAX_DEPTH as i64 {
            let network = "encoder";
            return Err(Error::unfit(&file, Unfit::TooDeep { network }));
        }
        model
            .check_encoder()
            .map_err(|cause| Error::unfit(&file, cause.into()))?;
        let predictor = path.join(PREDICTOR);
        Ok(Directory {
            model,
            path: path.to_owned(),
            files: files(path)?,
            predictor: predictor.exists().then(|| map(&predictor)).transpose()?,
        })
    }

    /// Returns the encoder under its official names.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a tensor is missing or unknown, [`Error::Safetensors`] or [`Error::Tensor`] if a file is
    /// damaged.
    pub fn encoder(&self) -> Result<Tensors<'_>, Error> {
        let network = "encoder";
        let mut given = Tensors::new();
        for file in &self.files {
            given.extend(file.tensors()?);
        }
        let mut encoder = Tensors::new();
        for Parameter { name, .. } in parameters::encoder(&self.model) {
            let mut parts = Vec::new();
            for name in theirs(&name) {
                let part = given.remove(&name);
                let missing = || Error::unfit(&self.path, Unfit::Missing { network, name });
                parts.push(part.ok_or_else(missing)?);
            }
            let joined = Data::join(parts).map_err(|cause| Error::Tensor {
                path: self.path.clone(),
                name: name.clone(),
                cause,
            })?;
            encoder.insert(name, joined);
        }
        match given.into_keys().next() {
            None => Ok(encoder),
            Some(name) => Err(Error::unfit(&self.path, Unfit::Unknown { network, name })),
        }
    }

    /// Returns the predictor under its official names, where there is one.
    ///
    /// # Errors
    /// [`Error::Safetensors`] or [`Error::Tensor`] if its file is damaged.
    pub fn predictor(&self) -> Result<Option<Tensors<'_>>, Error> {
        self.predictor.as_ref().map(Mapped::tensors).transpose()
    }
}

/// Maps the files with the encoder's tensors: one, or those that an index names.
fn files(path: &Path) -> Result<Vec<Mapped>, Error> {
    let index = path.join(INDEX);
    if !index.exists() {
        return Ok(vec![map(&path.join(MODEL))?]);
    }
    let refuse = |reason| Error::Index {
        path: index.clone(),
        reason,
    };
    let value = read_json(&index)?;
    let map_of = value.get("weight_map").and_then(Value::as_object);
    let map_of = map_of.ok_or_else(|| refuse("no `weight_map`"))?;
    let names: BTreeSet<Option<&str>> = map_of.values().map(Value::as_str).collect();
    let open = |name: Option<&str>| {
        let name = name.filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        map(&path.join(name.ok_or_else(|| refuse("a file that is not beside it"))?))
    };
    names.into_iter().map(open).collect()
}

fn map(path: &Path) -> Result<Mapped, Error> {
    Mapped::open(path).map_err(|cause| Error::io(path, cause))
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let text = fs::read_to_string(path).map_err(|cause| Error::io(path, cause))?;
    serde_json::from_str(&text).map_err(|cause| Error::Json {
        path: path.to_owned(),
        cause,
    })
}
