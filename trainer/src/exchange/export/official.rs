//! A file that the official code continues from.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use exchange::model::ModelConfig;
use exchange::official::archive;
use exchange::official::pickle::{Dtype, Key, Node};
use exchange::official::zip::ZipWriter;
use exchange::parameters::{self, Parameter, ParameterGroup};
use exchange::weights::{self, Data, Mapped, Tensors, Unfit};

use super::{ExportedCheckpoint, finish, named, refuse_existing};
use crate::checkpoint::State;
use crate::config::Config;
use crate::exchange::Error;
use crate::method::optimizer::{BETA1, BETA2, EPS};

/// PyTorch's default rate for AdamW, for a checkpoint without a configuration of the schedules.
const DEFAULT_LR: f64 = 1e-3;
/// PyTorch's default weight decay for AdamW.
const DEFAULT_WEIGHT_DECAY: f64 = 1e-2;

/// Writes the file `out`, which must not exist, for the official code's `load_checkpoint`.
///
/// Returns the sizes of the networks and what the user should know.
///
/// # Errors
/// [`Error::Exists`] or [`Error::Io`] if the file cannot be written, [`Error::NothingToPredict`] if the checkpoint has
/// no predictor, [`Error::File`] if its tensors do not fit together.
pub fn to_official(
    source: &ExportedCheckpoint,
    out: &Path,
) -> Result<(ModelConfig, Vec<String>), Error> {
    refuse_existing(out)?;
    let unfit = |cause| ::exchange::Error::unfit(&source.path, cause);
    let predictor = source.predictor.as_ref();
    let predictor = predictor.ok_or_else(|| Error::NothingToPredict {
        path: source.path.clone(),
    })?;
    let predictor = predictor.tensors()?;
    let encoder = source.encoder.tensors()?;
    let target_encoder = source.target_encoder.tensors()?;
    let model = source.model(&encoder, Some(&predictor))?;
    weights::check(
        "target_encoder",
        &target_encoder,
        &parameters::encoder(&model),
    )
    .map_err(unfit)?;
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
    )
    .map_err(unfit)?;
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
        let storages = storages.0.iter().map(|data| data.to_bytes());
        let written = File::create(aside).and_then(|file| {
            let zip = ZipWriter::new(BufWriter::new(&file));
            archive::write(zip, "archive", &Node::Dict(root), storages)?;
            file.sync_all()
        });
        named(aside, written)
    })?;
    Ok((model, notes))
}

/// Tensors in the order of their records.
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

/// Returns learning rate and weight decay of the last step.
fn rates(state: &State, config: Option<&Config>) -> (f64, f64) {
    match config.and_then(|config| config.schedule(state.epoch_len).ok()) {
        None => (DEFAULT_LR, DEFAULT_WEIGHT_DECAY),
        Some(schedule) => {
            let last = state.step.saturating_sub(1);
            (schedule.lr(last), schedule.weight_decay(last))
        }
    }
}

/// Returns the state of the official optimiser: AdamW over four groups, its parameters numbered one group after the
/// other.
fn optimizer<'t, 'a>(
    model: &ModelConfig,
    moments: Option<&'t Tensors<'a>>,
    &(lr, weight_decay): &(f64, f64),
    storages: &mut Storages<'t, 'a>,
) -> Result<Node, Unfit> {
    let network = "optimizer";
    let (mut number, mut state, mut param_groups) = (0, Vec::new(), Vec::new());
    for ParameterGroup { decayed, members } in parameters::optimizer_groups(model) {
        let first = number;
        for parameter in members {
            if moments.is_some() && parameter.is_trained() {
                let Parameter { name, shape } = parameter;
                let mut node = |name: String, shape: &[usize]| match moments
                    .and_then(|moments| moments.get(&name))
                {
                    None => Err(Unfit::Missing { network, name }),
                    Some(tensor) if tensor.shape() != shape => Err(Unfit::Shape {
                        network,
                        name,
                        found: tensor.shape().to_vec(),
                        expected: shape.to_vec(),
                    }),
                    Some(tensor) => Ok(storages.add(tensor)),
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

/// Returns a gradient scaler at its start.
///
/// Training here has none. The official code has one under `use_bfloat16`; without the scaler's state it refuses the
/// file, and then begins again at epoch 0 with no more than a line in its log.
fn scaler() -> Node {
    Node::Dict(vec![
        ("scale".into(), Node::Float(65536.0)),
        ("growth_factor".into(), Node::Float(2.0)),
        ("backoff_factor".into(), Node::Float(0.5)),
        ("growth_interval".into(), Node::Int(2000)),
        ("_growth_tracker".into(), Node::Int(0)),
    ])
}
