//! Weights from elsewhere: official checkpoints and Hugging Face directories become checkpoints of ours.
//!
//! Nothing is computed and nothing is executed: names, shapes and types are checked against the networks that they must
//! fit, and bytes are copied from a mapped file. With a configuration, training continues from the result as the
//! official code would continue from its own file: at the epoch the file says, with the optimiser's moments, and with
//! the schedules and momentum of that step. Order, crops and masks of the epochs to come are our own.

mod moments;
mod state;

use std::path::{Path, PathBuf};

use exchange::huggingface::Directory;
use exchange::model::ModelConfig;
use exchange::official::checkpoint::Named;
use exchange::official::{Archive, Checkpoint};
use exchange::parameters;
use exchange::weights::{self, Data, Mapped, Tensors};
use shardtool::Escaped;

use super::Error;
use crate::checkpoint::Store;
use crate::config::Config;

pub use moments::OptimizerFault;

/// What may be said about an import.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Steps of an epoch, where the configuration's shards are not there to tell.
    pub steps_per_epoch: Option<u64>,
    /// Takes the file even where its checksums are wrong: PyTorch can be told to write none.
    pub ignore_checksums: bool,
}

/// What became of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Sizes of its networks; those of a predictor are 0 where there is none.
    pub model: ModelConfig,
    /// Steps done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Sentences that the user should know.
    pub notes: Vec<String>,
}

/// What a source holds, under our names.
struct Weights<'a> {
    model: ModelConfig,
    encoder: Tensors<'a>,
    target_encoder: Tensors<'a>,
    predictor: Option<Tensors<'a>>,
    /// The steps done and the optimiser's moments.
    moments: Option<(u64, Tensors<'a>)>,
    epoch: u64,
    loss: Option<f64>,
    /// Images of a step on one rank, and ranks.
    batch: Option<(u64, u64)>,
    notes: Vec<String>,
}

/// Tells whether `path` is named like an official checkpoint.
pub fn is_official(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".pth.tar")
}

/// Reads `source`, an official `.pth.tar` or a Hugging Face directory, and writes a checkpoint into the run directory
/// `run`.
///
/// Without `config` it holds weights (and moments) that can be exported and evaluated, but training cannot continue
/// from it.
///
/// # Errors
/// [`Error`] with what is wrong with the source, or why the checkpoint could not be written. Nothing is written then.
pub fn import(
    source: &Path,
    run: &Path,
    config: Option<&Config>,
    options: &Options,
) -> Result<Imported, Error> {
    if source.is_dir() {
        if !Directory::is_one(source) {
            return Err(Error::NoModel {
                path: source.to_owned(),
            });
        }
        let directory = Directory::open(source)?;
        let weights = from_huggingface(source, &directory)?;
        return write(source, weights, run, config, options);
    }
    let file = Mapped::open(source).map_err(|cause| Error::Io {
        path: source.to_owned(),
        cause,
    })?;
    let checked = !options.ignore_checksums;
    let weights = from_official(source, file.bytes(), checked)?;
    write(source, weights, run, config, options)
}

fn from_huggingface<'a>(source: &Path, directory: &'a Directory) -> Result<Weights<'a>, Error> {
    let encoder = directory.encoder()?;
    let predictor = directory.predictor()?;
    let model = weights::sizes(&encoder, predictor.as_ref(), Some(directory.model.heads))
        .map_err(|cause| ::exchange::Error::unfit(source, cause))?;
    Ok(Weights {
        model,
        target_encoder: encoder.clone(),
        encoder,
        predictor,
        moments: None,
        epoch: 0,
        loss: None,
        batch: None,
        notes: vec![
            "one encoder in the source: it becomes both the context and the target encoder"
                .to_owned(),
        ],
    })
}

fn from_official<'a>(source: &Path, file: &'a [u8], checked: bool) -> Result<Weights<'a>, Error> {
    let refuse = |fault| ::exchange::Error::official(source, fault);
    let archive = Archive::read(file, checked).map_err(refuse)?;
    let read = Checkpoint::read(&archive).map_err(refuse)?;
    let encoder = tensors(source, "encoder", read.encoder)?;
    let target_encoder = tensors(source, "target_encoder", read.target_encoder)?;
    let predictor = tensors(source, "predictor", read.predictor)?;
    let model = weights::sizes(&encoder, Some(&predictor), None)
        .map_err(|cause| ::exchange::Error::unfit(source, cause))?;
    let moments = read
        .optimizer
        .map(|optimizer| moments::named(optimizer, &model))
        .transpose()
        .map_err(|cause| Error::Optimizer {
            path: source.to_owned(),
            cause,
        })?;
    let mut notes = Vec::new();
    if !read.unknown.is_empty() {
        let unknown = read.unknown.join(", ");
        notes.push(format!("left out: {}", Escaped::new(&unknown)));
    }
    Ok(Weights {
        model,
        encoder,
        target_encoder,
        predictor: Some(predictor),
        moments,
        epoch: read.epoch.unwrap_or(0),
        loss: read.loss,
        batch: read.batch_size.zip(read.world_size),
        notes,
    })
}

fn tensors<'a>(source: &Path, network: &str, named: Named<'a>) -> Result<Tensors<'a>, Error> {
    let named = named.into_iter().map(|(name, elements)| {
        let tensor = Data::try_from(elements).map_err(|cause| ::exchange::Error::Tensor {
            path: source.to_owned(),
            name: format!("{network}.{name}"),
            cause,
        })?;
        Ok((name, tensor))
    });
    named.collect()
}

/// Writes the checkpoint, once every tensor has turned out to fit its network.
fn write(
    source: &Path,
    mut weights: Weights<'_>,
    run: &Path,
    config: Option<&Config>,
    options: &Options,
) -> Result<Imported, Error> {
    let model = weights.model.clone();
    let encoder = parameters::encoder(&model);
    weights::check("encoder", &weights.encoder, &encoder)
        .and_then(|()| weights::check("target_encoder", &weights.target_encoder, &encoder))
        .and_then(|()| match &weights.predictor {
            None => Ok(()),
            Some(predictor) => {
                weights::check("predictor", predictor, &parameters::predictor(&model))
            }
        })
        .map_err(|cause| ::exchange::Error::unfit(source, cause))?;
    let (state, tag) = match config {
        None => (state::bare(&weights, options), "jepa"),
        Some(config) => {
            let path = source.to_owned();
            if weights.predictor.is_none() {
                return Err(Error::NoPredictor { path });
            }
            let differences = model.differences(&config.model()?);
            if !differences.is_empty() {
                return Err(Error::OtherNetworks { path, differences });
            }
            let state = state::full(&mut weights, config, options)?;
            (state, config.logging.write_tag.as_str())
        }
    };
    let mut parts = vec![
        ("encoder", weights.encoder),
        ("target_encoder", weights.target_encoder),
    ];
    parts.extend(weights.predictor.map(|tensors| ("predictor", tensors)));
    parts.extend(weights.moments.map(|(_, tensors)| ("optimizer", tensors)));
    let store = Store::new(run, tag);
    if store.latest()?.is_some() {
        return Err(Error::HasCheckpoints {
            path: run.to_owned(),
        });
    }
    let path = store.save_files(&state, &parts)?;
    Ok(Imported {
        path,
        model,
        step: state.step,
        epoch: state.epoch,
        notes: weights.notes,
    })
}
