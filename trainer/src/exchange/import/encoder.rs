//! Networks for evaluation, out of any source that `import` knows and of checkpoints of ours: an encoder alone, or all
//! three.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use exchange::model::ModelConfig;
use exchange::parameters;
use exchange::weights::{self, Tensors};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::source::Files;
use super::{Options, unfit};
use crate::checkpoint;
use crate::exchange::Error;
use crate::exchange::export::Which;
use crate::method::init;

/// An encoder's weights.
#[derive(Debug)]
pub struct EncoderWeights {
    /// The file or directory that they were read from: of a run directory, its latest checkpoint.
    pub path: PathBuf,
    /// Sizes of the network, without a predictor.
    pub model: ModelConfig,
    /// Every parameter by official name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Checksum of names, shapes and numbers: equal for equal weights, whatever file they came from.
    pub checksum: u64,
    /// Sentences that the user should know.
    pub notes: Vec<String>,
}

impl EncoderWeights {
    /// Puts fresh weights in the place of these: those of an untrained network of the same sizes.
    ///
    /// # Errors
    /// From libtorch.
    pub fn untrained(&mut self, seed: u64) -> Result<(), Error> {
        let named = parameters::encoder(&self.model).into_iter();
        let fresh: Vec<(String, Tensor)> = named
            .filter_map(|parameter| {
                let tensor = self.tensors.get(&parameter.name)?.shallow_clone();
                Some((parameter.name, tensor))
            })
            .collect();
        init::initialise(&fresh, seed)?;
        self.checksum = xxh3_64(format!("untrained {seed} {:?}", self.model).as_bytes());
        Ok(())
    }
}

/// The weights of the three networks.
#[derive(Debug)]
pub struct NetworksWeights {
    /// The file or directory that they were read from: of a run directory, its latest checkpoint.
    pub path: PathBuf,
    /// Sizes of the networks.
    pub model: ModelConfig,
    /// Every parameter under the names of [`IJepa::state`](crate::method::ijepa::IJepa::state), on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Sentences that the user should know.
    pub notes: Vec<String>,
}

/// Reads one encoder of `source`: a checkpoint of ours or a run directory, a file of PyTorch, a safetensors file, or a
/// Hugging Face directory. Where a source has one encoder only, that is taken, and a note says so. `heads` are the
/// attention heads of an encoder that is none of the official ones, where the source does not say.
///
/// # Errors
/// [`Error`] with what is wrong with the source.
pub fn read_encoder(
    source: &Path,
    which: Which,
    heads: Option<i64>,
) -> Result<EncoderWeights, Error> {
    let encoders = ["encoder", "target_encoder"];
    let (files, path, options) = opened(source, &encoders, heads)?;
    let mut given = files.read(source, &options)?;
    given.complete_encoders();
    let (name, tensors) = match which {
        Which::Target => ("target_encoder", &given.networks.target_encoder),
        Which::Context => ("encoder", &given.networks.encoder),
    };
    let model = weights::sizes(tensors, None, given.heads).and_then(|model| {
        weights::check(name, tensors, &parameters::encoder(&model))?;
        Ok(model)
    });
    let model = model.map_err(|cause| unfit(source, cause))?;
    let (tensors, checksum) = copied(tensors)?;
    Ok(EncoderWeights {
        path,
        model,
        tensors,
        checksum,
        notes: given.notes,
    })
}

/// Reads the three networks of `source`, which [`read_encoder`] describes.
///
/// # Errors
/// [`Error::NoPredictor`], or what else is wrong with the source.
pub fn read_networks(source: &Path, heads: Option<i64>) -> Result<NetworksWeights, Error> {
    let networks = ["encoder", "target_encoder", "predictor"];
    let (files, path, options) = opened(source, &networks, heads)?;
    let weights = super::alone(source, files.read(source, &options)?)?;
    let predictor = weights
        .predictor
        .ok_or_else(|| Error::NoPredictor { path: path.clone() })?;
    let mut tensors = BTreeMap::new();
    for (network, part) in [
        ("encoder", &weights.encoder),
        ("predictor", &predictor),
        ("target_encoder", &weights.target_encoder),
    ] {
        let named = copied(part)?.0.into_iter();
        tensors.extend(named.map(|(name, tensor)| (format!("{network}.{name}"), tensor)));
    }
    Ok(NetworksWeights {
        path,
        model: weights.model,
        tensors,
        notes: weights.notes,
    })
}

/// Opens parts of a source, and returns it with the path of what it is, and how to read it: as weights alone. Moments
/// are of no use here, and are read only by who goes on from them.
fn opened(
    source: &Path,
    parts: &[&str],
    heads: Option<i64>,
) -> Result<(Files, PathBuf, Options), Error> {
    let files = Files::open_parts(source, parts)?;
    let path = match &files {
        Files::Ours(..) => checkpoint::find(source)?,
        _ => source.to_owned(),
    };
    let options = Options {
        start_over: true,
        heads,
        ..Options::default()
    };
    Ok((files, path, options))
}

/// Copies tensors out of mapped files, and sums them up.
fn copied(tensors: &Tensors<'_>) -> Result<(BTreeMap<String, Tensor>, u64), Error> {
    let mut hash = Xxh3::new();
    let mut copies = BTreeMap::new();
    for (name, data) in tensors {
        let size: Vec<i64> = data.shape().iter().map(|&length| length as i64).collect();
        let bytes = data.to_bytes();
        hash.update(name.as_bytes());
        size.iter()
            .for_each(|length| hash.update(&length.to_le_bytes()));
        hash.update(&bytes);
        let tensor =
            Tensor::f_from_data_size(&bytes, &size, Kind::Float).map_err(crate::Error::from)?;
        copies.insert(name.clone(), tensor);
    }
    Ok((copies, hash.digest()))
}
