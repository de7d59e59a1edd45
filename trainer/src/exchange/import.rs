//! Weights from elsewhere become checkpoints of ours: the official code's files and other files of PyTorch, safetensors
//! files, Hugging Face directories.
//!
//! Nothing is executed: names, shapes and types are checked against the networks that they must fit, and bytes are
//! copied from a mapped file. There are three ways:
//!
//! * without a configuration, weights for export and evaluation;
//! * with one, training continues as the official code would continue from its own file: at the epoch the file says,
//!   with the optimiser's moments, and with the schedules and momentum of that step. Order, crops and masks of the
//!   epochs to come are our own. What that needs must be there and right;
//! * with one and `start_over`, training begins at step 0 from the weights alone: see `start_over.rs`.

mod encoder;
mod moments;
mod source;
mod start_over;
mod state;

use std::path::{Path, PathBuf};

use exchange::model::ModelConfig;
use exchange::parameters;
use exchange::weights::{self, Tensors, Unfit};

use self::source::{Files, Given};
use super::Error;
use crate::checkpoint::{State, Store};
use crate::config::Config;

pub use encoder::{EncoderWeights, NetworksWeights, read_encoder, read_networks};
pub use moments::OptimizerFault;

/// What may be said about an import.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Steps of an epoch, where the configuration's shards are not there to tell.
    pub steps_per_epoch: Option<u64>,
    /// Takes the file even where its checksums are wrong: PyTorch can be told to write none.
    pub ignore_checksums: bool,
    /// Takes the weights alone, to begin at step 0 under the configuration.
    pub start_over: bool,
    /// Attention heads of an encoder of one's own, where the source does not say: no tensor does.
    pub heads: Option<i64>,
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
    /// Steps of an epoch.
    pub epoch_len: u64,
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

/// Reads `source` and writes a checkpoint into the run directory `run`.
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
    let files = Files::open(source)?;
    if matches!(files, Files::Ours(..)) && !options.start_over {
        return Err(Error::Ours {
            path: source.to_owned(),
        });
    }
    let given = files.read(source, options)?;
    let (weights, state) = match config {
        None => {
            let weights = alone(source, given)?;
            let state = state::bare(&weights, options);
            (weights, state)
        }
        Some(config) => {
            let mut weights = if options.start_over {
                start_over::prepare(source, given, config)?
            } else {
                continued(source, given, config)?
            };
            let state = state::full(&mut weights, config, options)?;
            (weights, state)
        }
    };
    let tag = config.map_or("jepa", |config| config.logging.write_tag.as_str());
    write(weights, &state, &Store::new(run, tag), run)
}

/// Returns the weights that training goes on from where it stood.
fn continued<'a>(source: &Path, given: Given<'a>, config: &Config) -> Result<Weights<'a>, Error> {
    let networks = &given.networks;
    let missing: Vec<&str> = [
        ("encoder", &networks.encoder),
        ("target encoder", &networks.target_encoder),
        ("predictor", &networks.predictor),
    ]
    .into_iter()
    .filter_map(|(name, tensors)| tensors.is_empty().then_some(name))
    .collect();
    let path = || source.to_owned();
    if !missing.is_empty() {
        return Err(Error::Incomplete {
            path: path(),
            missing: missing.join(", no "),
        });
    }
    let epoch = given.epoch.clone().map_err(|fault| refuse(source, fault))?;
    let optimizer = given.optimizer.map_err(|fault| refuse(source, fault))?;
    let given = Given {
        epoch: Ok(epoch),
        optimizer: Ok(None),
        ..given
    };
    let mut weights = alone(source, given)?;
    let wanted = config.model_for(crop_size(&weights, config))?;
    let differences = weights.model.differences(&wanted);
    if !differences.is_empty() {
        return Err(Error::OtherNetworks {
            path: path(),
            differences,
            start_over: start_over::suits(&weights.model, &wanted),
        });
    }
    weights.moments = optimizer
        .map(|optimizer| moments::named(optimizer, &weights.model))
        .transpose()
        .map_err(|cause| Error::Optimizer {
            path: path(),
            cause,
        })?;
    Ok(weights)
}

/// Returns the size of crops that weights of so many epochs are expected to have: that of the last epoch, or of the one
/// to come.
fn crop_size(weights: &Weights<'_>, config: &Config) -> u32 {
    let sizes = &config.loader.data.crop_size;
    let (last, next) = (
        sizes.at(weights.epoch.saturating_sub(1)),
        sizes.at(weights.epoch),
    );
    match weights.model.image_size == i64::from(last) {
        true => last,
        false => next,
    }
}

/// Returns the weights as they are, once every tensor has turned out to fit its network.
///
/// What a file has besides is taken as far as it can be: nothing needs it.
fn alone<'a>(source: &Path, mut given: Given<'a>) -> Result<Weights<'a>, Error> {
    given.complete_encoders();
    let networks = given.networks;
    let predictor = Some(networks.predictor).filter(|predictor| !predictor.is_empty());
    let model = weights::sizes(&networks.encoder, predictor.as_ref(), given.heads);
    let model = model.map_err(|cause| unfit(source, cause))?;
    check_encoders(&model, &networks.encoder, &networks.target_encoder)
        .and_then(|()| match &predictor {
            None => Ok(()),
            Some(predictor) => {
                weights::check("predictor", predictor, &parameters::predictor(&model))
            }
        })
        .map_err(|cause| unfit(source, cause))?;
    let mut notes = given.notes;
    let epoch = given.epoch.unwrap_or_else(|fault| {
        notes.push(format!("its epoch is not known: {fault}"));
        None
    });
    let mut left_out = |cause: String| {
        notes.push(format!("its optimiser's state was left out: {cause}"));
        None
    };
    let moments = match given.optimizer {
        Ok(Some(optimizer)) if predictor.is_some() => match moments::named(optimizer, &model) {
            Ok(moments) => Some(moments),
            Err(cause) => left_out(cause.to_string()),
        },
        Ok(_) => None,
        Err(fault) => left_out(fault.to_string()),
    };
    Ok(Weights {
        model,
        encoder: networks.encoder,
        target_encoder: networks.target_encoder,
        predictor,
        moments,
        epoch: epoch.unwrap_or(0),
        loss: given.loss,
        batch: given.batch,
        notes,
    })
}

fn check_encoders(
    model: &ModelConfig,
    encoder: &Tensors<'_>,
    target_encoder: &Tensors<'_>,
) -> Result<(), Unfit> {
    let expected = parameters::encoder(model);
    weights::check("encoder", encoder, &expected)?;
    weights::check("target_encoder", target_encoder, &expected)
}

fn refuse(source: &Path, fault: exchange::official::Fault) -> Error {
    ::exchange::Error::official(source, fault).into()
}

fn unfit(source: &Path, cause: Unfit) -> Error {
    ::exchange::Error::unfit(source, cause).into()
}

fn write(
    weights: Weights<'_>,
    state: &State,
    store: &Store,
    run: &Path,
) -> Result<Imported, Error> {
    let mut parts = vec![
        ("encoder", weights.encoder),
        ("target_encoder", weights.target_encoder),
    ];
    parts.extend(weights.predictor.map(|tensors| ("predictor", tensors)));
    parts.extend(weights.moments.map(|(_, tensors)| ("optimizer", tensors)));
    if store.latest()?.is_some() {
        return Err(Error::HasCheckpoints {
            path: run.to_owned(),
        });
    }
    let path = store.save_files(state, &parts)?;
    Ok(Imported {
        path,
        model: weights.model,
        step: state.step,
        epoch: state.epoch,
        epoch_len: state.epoch_len,
        notes: weights.notes,
    })
}
