//! What a checkpoint of imported weights says besides its tensors.

use exchange::model::Preset;
use serde_json::{Map, Value, json};
use shardtool::Manifest;

use super::{Options, Weights, moments};
use crate::checkpoint::State;
use crate::config::Config;
use crate::exchange::Error;
use crate::exchange::error::StepsFault;

/// Returns what is known without a configuration: no more than the file says.
pub(super) fn bare(weights: &Weights<'_>, options: &Options) -> State {
    let model = &weights.model;
    let mut config = Map::new();
    let mut data = json!({"crop_size": model.image_size});
    if let Some((batch_size, _)) = weights.batch {
        data["batch_size"] = batch_size.into();
    }
    config.insert("data".to_owned(), data);
    config.insert("mask".to_owned(), json!({"patch_size": model.patch_size}));
    let custom = Preset::custom(model.embed_dim, model.depth, model.heads);
    let mut meta = match Preset::of(model.embed_dim, model.depth, model.mlp_dim) {
        Some(preset) => json!({"model_name": preset.name}),
        None if custom.mlp_dim == model.mlp_dim => json!({
            "model_name": custom.name,
            "embed_dim": custom.embed_dim,
            "depth": custom.depth,
            "num_heads": custom.heads,
        }),
        None => json!({"model_name": null}),
    };
    if weights.predictor.is_some() {
        meta["pred_depth"] = model.predictor_depth.into();
        meta["pred_emb_dim"] = model.predictor_dim.into();
    }
    config.insert("meta".to_owned(), meta);
    let steps = options
        .steps_per_epoch
        .filter(|&steps| steps > 0)
        .or_else(|| steps_per_epoch(weights))
        .unwrap_or(1);
    state(weights, steps, config)
}

/// Returns where training goes on under `config`; gives the weights moments of zero where they have none.
///
/// # Errors
/// [`Error::StepsUnknown`] or [`Error::NoSteps`].
pub(super) fn full(
    weights: &mut Weights<'_>,
    config: &Config,
    options: &Options,
) -> Result<State, Error> {
    let global_batch = config.loader.global_batch(1);
    if weights.moments.is_none() {
        weights.moments = Some((0, moments::fresh(&weights.model)));
        if !options.start_over {
            let note = "no optimiser's state in the source: moments begin at zero";
            weights.notes.push(note.to_owned());
        }
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
        None => shard_steps(config, global_batch).map_err(|cause| Error::StepsUnknown { cause })?,
    };
    if epoch_len == 0 {
        return Err(Error::NoSteps { global_batch });
    }
    if let (Some(per_epoch), Some((steps, _))) = (steps_per_epoch(weights), &weights.moments)
        && per_epoch != epoch_len
    {
        let epochs = weights.epoch;
        weights.notes.push(format!(
            "its optimiser made {steps} steps in {epochs} whole epochs, here an epoch has {epoch_len}"
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

/// Returns the steps of an epoch by the optimiser's count, to the nearest: mixed precision may have left out a few.
fn steps_per_epoch(weights: &Weights<'_>) -> Option<u64> {
    let (steps, _) = weights.moments.as_ref()?;
    let steps = (steps + weights.epoch / 2).checked_div(weights.epoch)?;
    (steps > 0).then_some(steps)
}

/// Returns the steps of an epoch over the configuration's shards.
fn shard_steps(config: &Config, global_batch: u64) -> Result<u64, StepsFault> {
    let shards = config.loader.shards_dir()?;
    let manifest = Manifest::read(&shards)?;
    let name = &config.loader.loader.split;
    let split = manifest.splits.iter().find(|split| split.name == *name);
    match split {
        Some(split) => Ok(split.samples / global_batch),
        None => Err(StepsFault::NoSplit {
            path: shards,
            split: name.clone(),
        }),
    }
}
