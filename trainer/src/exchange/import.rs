//! Weights from elsewhere: official checkpoints and Hugging Face directories become checkpoints of ours.
//!
//! Nothing is computed and nothing is executed: names, shapes and types are checked against the networks that they must
//! fit, and bytes are copied from a mapped file. With a configuration, training continues from the result as the
//! official code would continue from its own file: at the epoch the file says, with the optimiser's moments, and with
//! the schedules and momentum of that step. Order, crops and masks of the epochs to come are our own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use shardtool::{Escaped, Manifest};

use super::Error;
use crate::checkpoint::{State, Store};
use crate::config::Config;
use crate::method::model::{ModelConfig, Preset};
use crate::method::optimizer::{BETA1, BETA2, EPS};
use crate::method::parameters::{self, Parameter};
use exchange::huggingface::Directory;
use exchange::official::archive::{Archive, Elements};
use exchange::official::checkpoint::{Checkpoint, Named, Optimizer};
use exchange::official::pickle;
use exchange::weights::{Data, Mapped, Tensors, names};

/// What may be said about an import.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Steps of an epoch, where the configuration's shards are not at hand to tell.
    pub steps_per_epoch: Option<u64>,
    /// Take the file even where its checksums are wrong: PyTorch can be told to write none.
    pub ignore_checksums: bool,
}

/// What became of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The checkpoint.
    pub path: PathBuf,
    /// The sizes of its networks.
    pub model: ModelConfig,
    /// Steps and whole epochs done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What a source holds, under our names.
struct Weights<'a> {
    model: ModelConfig,
    encoder: Tensors<'a>,
    target_encoder: Tensors<'a>,
    predictor: Option<Tensors<'a>>,
    /// With the steps done.
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
/// Without `config` it holds weights (and moments) that can be exported and evaluated, but training cannot continue from
/// it.
///
/// # Errors
/// [`Error::Refused`] with what is wrong with the source; nothing is written then.
pub fn import(
    source: &Path,
    run: &Path,
    config: Option<&Config>,
    options: &Options,
) -> Result<Imported, Error> {
    read_and_write(source, run, config, options).map_err(|error| Error::about(source, error))
}

fn read_and_write(
    source: &Path,
    run: &Path,
    config: Option<&Config>,
    options: &Options,
) -> Result<Imported> {
    if source.is_dir() {
        ensure!(
            Directory::is_one(source),
            "a directory without config.json; give a .pth.tar file or a Hugging Face model's directory"
        );
        let directory = Directory::open(source)?;
        let weights = from_huggingface(&directory)?;
        return write(weights, run, config, options);
    }
    let file = Mapped::open(source)?;
    let weights = from_official(file.bytes(), !options.ignore_checksums, config)?;
    write(weights, run, config, options)
}

fn from_huggingface(directory: &Directory) -> Result<Weights<'_>> {
    let encoder = directory.encoder()?;
    let predictor = directory.predictor()?;
    let model = names::sizes(&encoder, predictor.as_ref(), Some(directory.model.heads))?;
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

fn from_official<'a>(
    file: &'a [u8],
    checked: bool,
    config: Option<&Config>,
) -> Result<Weights<'a>> {
    let archive = Archive::read(file, checked)?;
    let read = Checkpoint::read(&archive)?;
    let encoder = tensors(read.encoder).context("encoder")?;
    let target_encoder = tensors(read.target_encoder).context("target_encoder")?;
    let predictor = tensors(read.predictor).context("predictor")?;
    let heads = config
        .map(Config::model)
        .transpose()?
        .map(|model| model.heads);
    let model = names::sizes(&encoder, Some(&predictor), heads)?;
    let moments = read
        .optimizer
        .map(|optimizer| moments(optimizer, &model))
        .transpose();
    let moments = moments.context("opt")?;
    let mut notes: Vec<String> = Vec::new();
    if !read.unknown.is_empty() {
        notes.push(format!(
            "left out: {}",
            read.unknown.join(", ").escape_debug()
        ));
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

fn tensors<'a>(named: Named<'a>) -> Result<Tensors<'a>> {
    let named = named.into_iter().map(|(name, elements)| {
        let tensor = data(elements).with_context(|| format!("tensor `{}`", name.escape_debug()))?;
        Ok((name, tensor))
    });
    named.collect()
}

fn data(elements: Elements<'_>) -> Result<Data<'_>> {
    let dtype = match elements.dtype {
        pickle::Dtype::F16 => Dtype::F16,
        pickle::Dtype::BF16 => Dtype::BF16,
        pickle::Dtype::F32 => Dtype::F32,
        pickle::Dtype::F64 => Dtype::F64,
        pickle::Dtype::I64 => Dtype::I64,
    };
    let shape = elements
        .shape
        .iter()
        .map(|&length| length as usize)
        .collect();
    Data::new(dtype, shape, elements.bytes)
}

/// The moments under the names of their parameters, and the steps that made them. The official optimiser numbers its
/// parameters group by group.
fn moments<'a>(mut optimizer: Optimizer<'a>, model: &ModelConfig) -> Result<(u64, Tensors<'a>)> {
    let groups = parameters::optimizer_groups(model);
    let counts: Vec<u64> = groups
        .iter()
        .map(|group| group.members.len() as u64)
        .collect();
    let found: Vec<u64> = optimizer
        .groups
        .iter()
        .map(|group| group.parameters)
        .collect();
    ensure!(
        counts == found,
        "groups of {found:?} parameters; the official optimiser of these networks has {counts:?}"
    );
    for group in &optimizer.groups {
        ensure!(
            group.betas == [BETA1, BETA2] && group.eps == EPS,
            "betas {:?} and eps {:e}; training here has [{BETA1}, {BETA2}] and {EPS:e}, as the official code",
            group.betas,
            group.eps
        );
    }
    let untouched = optimizer.moments.is_empty();
    let mut steps = None;
    let mut read = Tensors::new();
    let members = groups.into_iter().flat_map(|group| group.members);
    for (number, parameter) in members.enumerate() {
        let trained = parameter.is_trained();
        let Parameter { name, shape } = parameter;
        let Some(moments) = optimizer.moments.remove(&(number as u64)) else {
            ensure!(
                !trained || untouched,
                "parameter {number}, `{name}`, has no moments"
            );
            if trained {
                read.insert(format!("exp_avg.{name}"), Data::zeros(&shape));
                read.insert(format!("exp_avg_sq.{name}"), Data::zeros(&shape));
            }
            continue;
        };
        ensure!(
            trained,
            "parameter {number}, `{name}`, has moments but is never trained"
        );
        ensure!(
            steps.is_none_or(|steps| steps == moments.step),
            "parameter {number}, `{name}`, made {} steps, others {}",
            moments.step,
            steps.unwrap_or(0.0)
        );
        steps = Some(moments.step);
        for (moment, elements) in [
            ("exp_avg", moments.exp_avg),
            ("exp_avg_sq", moments.exp_avg_sq),
        ] {
            let tensor = data(elements).with_context(|| format!("{moment} of `{name}`"))?;
            ensure!(
                tensor.shape() == shape,
                "{moment} of parameter {number}, `{name}`, is {:?}, expected {shape:?}",
                tensor.shape()
            );
            read.insert(format!("{moment}.{name}"), tensor);
        }
    }
    let steps = steps.unwrap_or(0.0);
    ensure!(
        steps.fract() == 0.0 && (0.0..=16_777_216.0).contains(&steps),
        "{steps} steps: not a number of steps that float32 counts"
    );
    read.insert("step".to_owned(), Data::scalar(steps as f32));
    Ok((steps as u64, read))
}

fn write(
    mut weights: Weights<'_>,
    run: &Path,
    config: Option<&Config>,
    options: &Options,
) -> Result<Imported> {
    let model = weights.model.clone();
    let check = |tensors: &Tensors<'_>, forms: Vec<Parameter>, part: &str| {
        names::check(tensors, &forms).with_context(|| part.to_owned())
    };
    check(&weights.encoder, parameters::encoder(&model), "encoder")?;
    check(
        &weights.target_encoder,
        parameters::encoder(&model),
        "target_encoder",
    )?;
    if let Some(predictor) = &weights.predictor {
        check(predictor, parameters::predictor(&model), "predictor")?;
    }
    let (state, tag) = match config {
        None => (bare_state(&weights, options)?, "jepa"),
        Some(config) => {
            let expected = config.model()?;
            ensure!(
                weights.predictor.is_some(),
                "no predictor, so training cannot continue from it; import it without --config"
            );
            ensure!(
                model == expected,
                "it holds {}, and the configuration describes {}",
                model.describe(),
                expected.describe()
            );
            let state = full_state(&mut weights, config, options)?;
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
    ensure!(
        store.latest()?.is_none(),
        "{}: holds checkpoints already; give another directory",
        Escaped::new(run)
    );
    let path = store.save_files(&state, &parts)?;
    Ok(Imported {
        path,
        model,
        step: state.step,
        epoch: state.epoch,
        notes: weights.notes,
    })
}

/// What is known without a configuration: no more than the file says.
fn bare_state(weights: &Weights<'_>, options: &Options) -> Result<State> {
    let model = &weights.model;
    let name = Preset::of(model.embed_dim, model.depth, model.mlp_dim);
    let mut config = Map::new();
    let mut data = json!({"crop_size": model.image_size});
    if let Some((batch_size, _)) = weights.batch {
        data["batch_size"] = batch_size.into();
    }
    config.insert("data".to_owned(), data);
    config.insert("mask".to_owned(), json!({"patch_size": model.patch_size}));
    let mut meta = json!({"model_name": name.map(|preset| preset.name)});
    if weights.predictor.is_some() {
        meta["pred_depth"] = model.predictor_depth.into();
        meta["pred_emb_dim"] = model.predictor_dim.into();
    }
    config.insert("meta".to_owned(), meta);
    let steps = options
        .steps_per_epoch
        .or_else(|| steps_per_epoch(weights))
        .unwrap_or(1);
    Ok(state(weights, steps, config))
}

/// Where training goes on under `config`.
fn full_state(weights: &mut Weights<'_>, config: &Config, options: &Options) -> Result<State> {
    let global_batch = config.loader.global_batch(1);
    if weights.moments.is_none() {
        let mut moments = Tensors::new();
        let groups = parameters::optimizer_groups(&weights.model).into_iter();
        let members = groups.flat_map(|group| group.members);
        for Parameter { name, shape } in members.filter(Parameter::is_trained) {
            moments.insert(format!("exp_avg.{name}"), Data::zeros(&shape));
            moments.insert(format!("exp_avg_sq.{name}"), Data::zeros(&shape));
        }
        moments.insert("step".to_owned(), Data::scalar(0.0));
        weights.moments = Some((0, moments));
        weights
            .notes
            .push("no optimiser's state in the source: moments begin at zero".to_owned());
    }
    if let Some((batch_size, ranks)) = weights.batch
        && batch_size.saturating_mul(ranks) != global_batch
    {
        weights.notes.push(format!(
            "it was trained with {batch_size} x {ranks} images a step, this configuration has {global_batch} \
             (optimization.global_batch)"
        ));
    }
    let epoch_len = match options.steps_per_epoch {
        Some(steps) => steps,
        None => shard_steps(config, global_batch)
            .context("the steps of an epoch are those of the configuration's shards; --steps-per-epoch N says it without them")?,
    };
    ensure!(epoch_len > 0, "an epoch of 0 steps");
    if let Some(steps) = steps_per_epoch(weights)
        && steps != epoch_len
    {
        weights.notes.push(format!(
            "its optimiser made {steps} steps an epoch, here an epoch has {epoch_len}"
        ));
    }
    let state = state(weights, epoch_len, config.resolved());
    Ok(State {
        global_batch,
        ..state
    })
}

fn state(weights: &Weights<'_>, epoch_len: u64, config: Map<String, Value>) -> State {
    let (batch_size, ranks) = weights.batch.unwrap_or((0, 0));
    State {
        global_batch: batch_size.saturating_mul(ranks),
        loss: weights.loss,
        ..State::new(weights.epoch.saturating_mul(epoch_len), epoch_len, config)
    }
}

/// Steps of an epoch by the optimiser's count, to the nearest: mixed precision may have left out a few.
fn steps_per_epoch(weights: &Weights<'_>) -> Option<u64> {
    let (steps, _) = weights.moments.as_ref()?;
    let steps = (steps + weights.epoch / 2).checked_div(weights.epoch)?;
    (steps > 0).then_some(steps)
}

/// Steps of an epoch over the configuration's shards.
fn shard_steps(config: &Config, global_batch: u64) -> Result<u64> {
    let shards = config.loader.shards_dir()?;
    let manifest = Manifest::read(&shards)?;
    let name = &config.loader.loader.split;
    let split = manifest.splits.iter().find(|split| split.name == *name);
    match split {
        Some(split) => Ok(split.samples / global_batch),
        None => bail!("{}: no split `{name}`", shards.display()),
    }
}
