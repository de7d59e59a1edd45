//! A directory in the layout, read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shardtool::regular;

use super::{CONFIG, MODEL, PREDICTOR};
use crate::model::{LAYER_NORM_EPS, ModelConfig};
use crate::official::{Archive, checkpoint};
use crate::parameters;
use crate::weights::{self, Mapped, Unfit};
use crate::{Error, Networks};

/// The encoder's files of a directory, by order of preference, and whether PyTorch wrote them.
const MODELS: [(&str, bool); 2] = [(MODEL, false), ("pytorch_model.bin", true)];
/// Longest JSON file that is read, in bytes; an index of a thousand tensors takes 100,000.
const MAX_JSON: u64 = 16 << 20;
/// Most files that an index may name.
const MAX_FILES: usize = 1000;

/// The mapped files of a directory in this layout.
#[derive(Debug)]
pub struct Directory {
    /// Sizes of the encoder; the predictor's are 0.
    pub model: ModelConfig,
    path: PathBuf,
    files: Vec<Mapped>,
    /// Whether the files are PyTorch's own, and no safetensors files.
    pickled: bool,
    predictor: Option<Mapped>,
}

impl Directory {
    /// Tells whether `path` looks like such a directory.
    pub fn is_one(path: &Path) -> bool {
        path.join(CONFIG).exists()
    }

    /// Opens the directory `path` and checks that its model computes what ours does.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Length`] for a model of another kind, [`Error::NoWeights`] or [`Error::Index`]
    /// for one whose files are not where they should be.
    pub fn open(path: &Path) -> Result<Directory, Error> {
        let model = sizes(&path.join(CONFIG))?;
        let (files, pickled) = files(path)?;
        let predictor = path.join(PREDICTOR);
        Ok(Directory {
            model,
            path: path.to_owned(),
            files,
            pickled,
            predictor: predictor.exists().then(|| map(&predictor)).transpose()?,
        })
    }

    /// Returns the networks: one encoder, and the predictor where there is one.
    ///
    /// With `checked`, records of PyTorch's files must have their checksums.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the encoder's tensors are not those that `config.json` promises, [`Error::Safetensors`],
    /// [`Error::Official`] or [`Error::Tensor`] if a file is damaged.
    pub fn networks(&self, checked: bool) -> Result<Networks<'_>, Error> {
        let mut networks = if self.pickled {
            let read = |file| -> Result<(&Path, Archive<'_>), Error> {
                let path = Mapped::path(file);
                let read = Archive::read(file.bytes(), checked);
                Ok((path, read.map_err(|fault| Error::official(path, fault))?))
            };
            let archives = self.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            checkpoint::networks(&self.path, &archives)?
        } else {
            Networks::of_safetensors(&self.path, &self.files)?
        };
        weights::check(
            "encoder",
            &networks.encoder,
            &parameters::encoder(&self.model),
        )
        .map_err(|cause| Error::unfit(&self.path, cause))?;
        if let Some(predictor) = &self.predictor {
            networks.predictor = predictor.tensors()?;
        }
        Ok(networks)
    }
}

/// Reads the sizes of the encoder out of the `config.json` in `file`, whose model must compute what ours does.
fn sizes(file: &Path) -> Result<ModelConfig, Error> {
    let config = read_json(file)?;
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
                path: file.to_owned(),
                key,
                found: found.map_or("missing".to_owned(), Value::to_string),
                expected: value.to_string(),
            });
        }
    }
    let size = |key: &'static str| {
        let value = match config.get(key) {
            // Height and width of a square.
            Some(Value::Array(sides)) => match &sides[..] {
                [height, width] if height == width => height.as_i64(),
                _ => None,
            },
            value => value.and_then(Value::as_i64),
        };
        // Shapes are compared with these, so they must only be sane enough to be multiplied.
        let value = value.filter(|value| (1..=1 << 20).contains(value));
        let path = file.to_owned();
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
        return Err(Error::unfit(file, Unfit::TooDeep { network }));
    }
    model
        .check_encoder()
        .map_err(|cause| Error::unfit(file, cause.into()))?;
    Ok(model)
}

/// Maps the files with the encoder's tensors, one or those that an index names, and tells whether PyTorch wrote them.
fn files(path: &Path) -> Result<(Vec<Mapped>, bool), Error> {
    for (name, pickled) in MODELS {
        let index = path.join(format!("{name}.index.json"));
        let file = path.join(name);
        if index.exists() {
            return Ok((indexed(path, &index)?, pickled));
        }
        if file.exists() {
            return Ok((vec![map(&file)?], pickled));
        }
    }
    Err(Error::NoWeights {
        path: path.to_owned(),
    })
}

/// Maps the files in `path` that `index` names.
fn indexed(path: &Path, index: &Path) -> Result<Vec<Mapped>, Error> {
    let refuse = |reason| Error::Index {
        path: index.to_owned(),
        reason,
    };
    let value = read_json(index)?;
    let map_of = value.get("weight_map").and_then(Value::as_object);
    let map_of = map_of.ok_or_else(|| refuse("no `weight_map`"))?;
    let names: BTreeSet<Option<&str>> = map_of.values().map(Value::as_str).collect();
    if names.len() > MAX_FILES {
        return Err(refuse("it names more than a thousand files"));
    }
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
    let text = regular::read(path, MAX_JSON).map_err(|cause| Error::io(path, cause))?;
    serde_json::from_slice(&text).map_err(|cause| Error::Json {
        path: path.to_owned(),
        cause,
    })
}
