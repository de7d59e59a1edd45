//! A checkpoint for others: a Hugging Face directory, or a file that the official code continues from.
//!
//! Nothing is computed; bytes go from the checkpoint's mapped files into the new ones, under other names.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use loader::config::ConfigFile;

use shardtool::Escaped;

use super::Error;
use crate::checkpoint::{self, State};
use crate::config::Config;
use crate::method::model::ModelConfig;
use crate::method::optimizer::{BETA1, BETA2, EPS};
use crate::method::parameters::{self, Parameter, ParameterGroup};
use crate::method::schedule::Schedule;
use exchange::huggingface;
use exchange::official::pickle::Dtype;
use exchange::official::write::{Key, Node, Zip, archive};
use exchange::weights::{Data, Mapped, Tensors, names};

/// PyTorch's defaults for AdamW, for a checkpoint without a configuration of the schedules.
const DEFAULT_LR: f64 = 1e-3;
const DEFAULT_WEIGHT_DECAY: f64 = 1e-2;

/// Which encoder to give away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The target encoder, which is the one that the paper evaluates.
    Target,
    /// The context encoder.
    Context,
}

/// The mapped files of a checkpoint.
#[derive(Debug)]
pub struct ExportedCheckpoint {
    /// What it knows besides its tensors.
    pub state: State,
    encoder: Mapped,
    target_encoder: Mapped,
    predictor: Option<Mapped>,
    optimizer: Option<Mapped>,
}

impl ExportedCheckpoint {
    /// Opens the checkpoint `path`, or the latest one of the run directory `path`.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn open(path: &Path) -> Result<ExportedCheckpoint, Error> {
        let path = checkpoint::find(path)?;
        let state = checkpoint::read_state(&path)?;
        let part = |part: &str| checkpoint::map_part(&path, part);
        // Weights that were imported without a configuration may come without these.
        let optional = |name: &str| {
            let there = path.join(format!("{name}.safetensors")).exists();
            there.then(|| part(name)).transpose()
        };
        Ok(ExportedCheckpoint {
            encoder: part("encoder")?,
            target_encoder: part("target_encoder")?,
            predictor: optional("predictor")?,
            optimizer: optional("optimizer")?,
            state,
        })
    }

    /// The configuration it was trained under, if all of it is known.
    fn config(&self) -> Option<Config> {
        let text =
            serde_json::to_string(&self.state.config).expect("a JSON value always serialises");
        let file = ConfigFile::parse(Path::new("checkpoint.json"), &text, &[]).ok()?;
        Config::from_file(&file).ok()
    }

    /// The sizes of the networks, after every tensor was found to fit them.
    fn model(&self, encoder: &Tensors<'_>, predictor: Option<&Tensors<'_>>) -> Result<ModelConfig> {
        let heads = self
            .config()
            .and_then(|config| config.model().ok())
            .map(|model| model.heads);
        let model = names::sizes(encoder, predictor, heads)?;
        names::check(encoder, &parameters::encoder(&model)).context("encoder")?;
        if let Some(predictor) = predictor {
            names::check(predictor, &parameters::predictor(&model)).context("predictor")?;
        }
        Ok(model)
    }
}

/// Writes what `transformers`' `IJepaModel.from_pretrained` loads into the directory `out`, which must not exist.
///
/// # Errors
/// If the directory exists or cannot be written, or the tensors make no such model.
pub fn to_huggingface(
    source: &ExportedCheckpoint,
    which: Which,
    out: &Path,
) -> Result<ModelConfig, Error> {
    write_huggingface(source, which, out).map_err(|error| Error::about(out, error))
}

fn write_huggingface(source: &ExportedCheckpoint, which: Which, out: &Path) -> Result<ModelConfig> {
    ensure!(!out.exists(), "exists already");
    let encoder = match which {
        Which::Target => &source.target_encoder,
        Which::Context => &source.encoder,
    };
    let encoder = encoder.tensors()?;
    let predictor = source.predictor.as_ref().map(Mapped::tensors).transpose()?;
    let model = source.model(&encoder, predictor.as_ref())?;
    finish(out, |aside| {
        fs::create_dir_all(aside).with_context(|| format!("{}", Escaped::new(aside)))?;
        huggingface::write(aside, &model, &encoder, predictor.as_ref())
    })?;
    Ok(model)
}

/// Writes the file `out`, which must not exist, for the official code's `load_checkpoint`.
///
/// Returns the sizes of the networks and what the user should know.
///
/// # Errors
/// If the file exists or cannot be written, or the checkpoint has no predictor.
pub fn to_official(
    source: &ExportedCheckpoint,
    out: &Path,
) -> Result<(ModelConfig, Vec<String>), Error> {
    write_official(source, out).map_err(|error| Error::about(out, error))
}

fn write_official(source: &ExportedCheckpoint, out: &Path) -> Result<(ModelConfig, Vec<String>)> {
    ensure!(!out.exists(), "exists already");
    let predictor = source.predictor.as_ref();
    let predictor =
        predictor.context("the checkpoint has no predictor, which the official code needs")?;
    let predictor = predictor.tensors()?;
    let encoder = source.encoder.tensors()?;
    let target_encoder = source.target_encoder.tensors()?;
    let model = source.model(&encoder, Some(&predictor))?;
    names::check(&target_encoder, &parameters::encoder(&model)).context("target_encoder")?;
    let moments = source.optimizer.as_ref().map(Mapped::tensors).transpose()?;
    let mut notes = Vec::new();

    let state = &source.state;
    let config = source.config();
    let mut storages = Storages::default();
    let networks = [
        ("encoder", &encoder, parameters::encoder(&model)),
        ("predictor", &predictor, parameters::predictor(&model)),
        (
            "target_encoder",
            &target_encoder,
            parameters::encoder(&model),
        ),
    ];
    let mut root: Vec<(Key, Node)> = Vec::new();
    for (key, tensors, forms) in networks {
        let entries = forms.iter().map(|Parameter { name, .. }| {
            // The official code wraps its networks in DistributedDataParallel, and so names them.
            let key = Key::Text(format!("module.{name}"));
            (key, storages.add(&tensors[name]))
        });
        root.push((key.into(), Node::Ordered(entries.collect())));
    }
    let optimizer = optimizer(
        &model,
        moments.as_ref(),
        &rates(state, config.as_ref()),
        &mut storages,
    )?;
    root.push(("opt".into(), optimizer));
    root.push(("scaler".into(), scaler()));

    let (batch_size, ranks) = match state
        .config
        .get("data")
        .and_then(|data| data["batch_size"].as_u64())
    {
        Some(batch_size) if batch_size > 0 => (batch_size, state.global_batch / batch_size),
        _ => (state.global_batch, 1),
    };
    let lr = config.map_or(DEFAULT_LR, |config| config.optimization.lr);
    let numbers = [
        ("epoch", Node::Int(state.epoch as i64)),
        ("loss", Node::Float(state.loss.unwrap_or(0.0))),
        ("batch_size", Node::Int(batch_size as i64)),
        ("world_size", Node::Int(ranks.max(1) as i64)),
        ("lr", Node::Float(lr)),
    ];
    root.extend(numbers.map(|(key, value)| (key.into(), value)));
    if state.step != state.epoch.saturating_mul(state.epoch_len) {
        notes.push(format!(
            "step {} lies inside an epoch: the official code will do the {} step(s) since the end of epoch {} again",
            state.step,
            state.step % state.epoch_len.max(1),
            state.epoch
        ));
    }
    if moments.is_none() {
        notes.push(
            "no moments in the checkpoint: the official code will begin them at zero".to_owned(),
        );
    }
    finish(out, |aside| {
        let file = File::create(aside)?;
        let storages = storages.0.iter().map(|data| data.to_bytes());
        archive(
            Zip::new(BufWriter::new(&file)),
            "archive",
            &Node::Dict(root),
            storages,
        )?;
        Ok(file.sync_all()?)
    })?;
    Ok((model, notes))
}

/// The tensors in the order of their records.
#[derive(Default)]
struct Storages<'t, 'a>(Vec<&'t Data<'a>>);

impl<'t, 'a> Storages<'t, 'a> {
    fn add(&mut self, data: &'t Data<'a>) -> Node {
        self.0.push(data);
        Node::Tensor {
            storage: self.0.len() - 1,
            dtype: Dtype::F32,
            shape: data.shape().iter().map(|&length| length as u64).collect(),
        }
    }
}

/// Learning rate and weight decay of the last step.
fn rates(state: &State, config: Option<&Config>) -> (f64, f64) {
    let schedule =
        config.and_then(|config| Schedule::new(&config.schedule(), state.epoch_len).ok());
    match schedule {
        None => (DEFAULT_LR, DEFAULT_WEIGHT_DECAY),
        Some(schedule) => {
            let last = state.step.saturating_sub(1);
            (schedule.lr(last), schedule.weight_decay(last))
        }
    }
}

/// The state of the official optimiser: AdamW over four groups, its parameters numbered one group after the other.
fn optimizer<'t, 'a>(
    model: &ModelConfig,
    moments: Option<&'t Tensors<'a>>,
    &(lr, weight_decay): &(f64, f64),
    storages: &mut Storages<'t, 'a>,
) -> Result<Node> {
    let get = |name: String| {
        let tensor = moments.and_then(|moments| moments.get(&name));
        tensor.with_context(|| format!("optimizer: tensor `{name}` is missing"))
    };
    let (mut number, mut state, mut param_groups) = (0, Vec::new(), Vec::new());
    for ParameterGroup { decayed, members } in parameters::optimizer_groups(model) {
        let first = number;
        for parameter in members {
            if moments.is_some() && parameter.is_trained() {
                let Parameter { name, shape } = parameter;
                let mut node = |name: String, shape: &[usize]| {
                    let tensor = get(name.clone())?;
                    ensure!(
                        tensor.shape() == shape,
                        "optimizer: tensor `{name}` is {:?}, expected {shape:?}",
                        tensor.shape()
                    );
                    Ok(storages.add(tensor))
                };
                let kept = vec![
                    ("step".into(), node("step".to_owned(), &[])?),
                    ("exp_avg".into(), node(format!("exp_avg.{name}"), &shape)?),
                    (
                        "exp_avg_sq".into(),
                        node(format!("exp_avg_sq.{name}"), &shape)?,
                    ),
                ];
                state.push((Key::Int(number), Node::Dict(kept)));
            }
            number += 1;
        }
        let mut settings: Vec<(Key, Node)> = vec![
            ("lr".into(), Node::Float(lr)),
            (
                "betas".into(),
                Node::Tuple(vec![Node::Float(BETA1), Node::Float(BETA2)]),
            ),
            ("eps".into(), Node::Float(EPS)),
            (
                "weight_decay".into(),
                Node::Float(if decayed { weight_decay } else { 0.0 }),
            ),
            ("amsgrad".into(), Node::Bool(false)),
            ("maximize".into(), Node::Bool(false)),
            ("foreach".into(), Node::None),
            ("capturable".into(), Node::Bool(false)),
            ("differentiable".into(), Node::Bool(false)),
            ("fused".into(), Node::None),
            ("decoupled_weight_decay".into(), Node::Bool(true)),
        ];
        if !decayed {
            // By this key the official schedule of the weight decay passes a group over.
            settings.push(("WD_exclude".into(), Node::Bool(true)));
        }
        let params = (first..number).map(Node::Int).collect();
        settings.push(("params".into(), Node::List(params)));
        param_groups.push(Node::Dict(settings));
    }
    Ok(Node::Dict(vec![
        ("state".into(), Node::Dict(state)),
        ("param_groups".into(), Node::List(param_groups)),
    ]))
}

/// A gradient scaler at its start. Training here has none; the official code has one under `use_bfloat16`, refuses a
/// file without its state, and then begins again at epoch 0 with no more than a line in its log.
fn scaler() -> Node {
    Node::Dict(vec![
        ("scale".into(), Node::Float(65536.0)),
        ("growth_factor".into(), Node::Float(2.0)),
        ("backoff_factor".into(), Node::Float(0.5)),
        ("growth_interval".into(), Node::Int(2000)),
        ("_growth_tracker".into(), Node::Int(0)),
    ])
}

/// Lets `write` make a file or directory under a temporary name, and gives it its own when it is whole.
fn finish(out: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = out
        .file_name()
        .with_context(|| format!("{}: not a name for a file", Escaped::new(out)))?;
    let aside = out.with_file_name(format!(
        ".tmp-{}-{}",
        std::process::id(),
        name.to_string_lossy()
    ));
    let outcome = write(&aside).and_then(|()| Ok(fs::rename(&aside, out)?));
    if outcome.is_err() {
        // Whatever there is of it; the error that is reported is the first one.
        let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir_all(&aside));
    }
    outcome.with_context(|| format!("cannot write {}", Escaped::new(out)))
}
