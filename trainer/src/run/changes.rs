//! What may change between a checkpoint and the run that goes on from it: what is asked for by name.
//!
//! Everything that a step does is a function of its number, the state before it and the configuration. So a run goes on
//! under other values as one that had them from the start would go on at that step: the rates are those of the new
//! schedules there, and a step's epoch is counted in epochs of the new length. Going on from there is exact again.

use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use crate::checkpoint::{Change, State, Turn};
use crate::config::resume::{DATA, GLOBAL_BATCH};
use crate::config::{Config, OnResume};

/// The keys on which the length of an epoch depends.
const LENGTH: [&str; 3] = [DATA, GLOBAL_BATCH, "loader.split"];

/// What is asked of a run that begins, beside its configuration.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What it will see, where that is known.
    pub data: Option<Data>,
    /// The keys that may differ from those of the checkpoint.
    pub allowed: Vec<String>,
}

/// What a run sees.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Checksum of the shards' manifest.
    pub manifest_checksum: u64,
    /// Images of a step.
    pub global_batch: u64,
    /// Steps of an epoch.
    pub epoch_len: u64,
}

/// Returns what differs between a checkpoint and a run, which would change results.
pub(super) fn differences(
    path: &Path,
    state: &State,
    earlier: &Config,
    config: &Config,
    terms: &Terms,
) -> Result<Vec<Change>, Error> {
    // With equal keys, only a program of another law makes another hash of them.
    let law = earlier.loader.sampling_hash();
    if let Some(then) = state.sampling_hash.filter(|&then| then != law) {
        return Err(Error::OtherLaw {
            path: path.to_owned(),
            then,
            now: law,
        });
    }
    let mut changes = config.differences(earlier);
    changes.extend(batch(state.global_batch, earlier, config, terms));
    let now = terms.data.map(|data| data.manifest_checksum);
    if let (Some(then), Some(now)) = (state.manifest_checksum, now)
        && then != now
    {
        let sum = |sum| json!(format!("manifest checksum {sum:016x}"));
        changes.push(change(DATA, sum(then), sum(now)));
    }
    Ok(changes)
}

/// Returns what differs between the stored configuration of a run without a checkpoint and a run.
pub(super) fn params_differences(earlier: &Config, config: &Config, terms: &Terms) -> Vec<Change> {
    let mut changes = config.differences(earlier);
    changes.extend(batch(0, earlier, config, terms));
    changes
}

/// Compares the images of a step; 0 stands for what the configuration says.
fn batch(then: u64, earlier: &Config, config: &Config, terms: &Terms) -> Option<Change> {
    let then = match then {
        0 => earlier.loader.global_batch(1),
        known => known,
    };
    let data = terms.data.map(|data| data.global_batch);
    let now = data.unwrap_or_else(|| config.loader.global_batch(1));
    (then != now).then(|| change(GLOBAL_BATCH, json!(then), json!(now)))
}

fn change(key: &str, then: Value, now: Value) -> Change {
    Change {
        key: key.to_owned(),
        then,
        now,
    }
}

/// Refuses changes that are not allowed, and says what would be.
pub(super) fn accept(path: &Path, changes: &[Change], terms: &Terms) -> Result<(), Error> {
    let is_allowed = |change: &&Change| {
        OnResume::of(&change.key) != OnResume::Fixed && terms.allowed.contains(&change.key)
    };
    match changes.iter().all(|change| is_allowed(&change)) {
        true => Ok(()),
        false => Err(Error::OtherRun {
            path: path.to_owned(),
            changes: changes.to_vec(),
            advice: advice(changes, terms),
        }),
    }
}

/// Says with which command a run could go on.
fn advice(changes: &[Change], terms: &Terms) -> String {
    let keys = changes.iter().map(|change| change.key.as_str());
    let fixed = Vec::from_iter(
        keys.clone()
            .filter(|key| OnResume::of(key) == OnResume::Fixed),
    );
    if !fixed.is_empty() {
        return format!(
            "A checkpoint fits no networks of other sizes. Set {} as before, or begin another run: give another \
             logging.folder and no --resume.",
            fixed.join(" and ")
        );
    }
    let lacking = keys.filter(|key| !terms.allowed.iter().any(|allowed| allowed == key));
    let lacking = Vec::from_iter(lacking);
    let mut text = format!(
        "To go on with the values of now, add to the command: --allow {}",
        lacking.join(",")
    );
    // Groups of another size make steps of other images where nothing else decides these.
    let value = |key: &str, of: fn(&Change) -> &Value| {
        let change = changes.iter().find(|change| change.key == key)?;
        of(change).as_u64()
    };
    if let Some(images) = value(GLOBAL_BATCH, |batch| &batch.then)
        && let Some(group) = value("data.batch_size", |size| &size.now)
        && images.is_multiple_of(group)
    {
        let rest = lacking.into_iter().filter(|key| *key != GLOBAL_BATCH);
        let rest = Vec::from_iter(rest).join(",");
        text += &format!(
            "\nTo keep {images} images a step, add instead: --set {GLOBAL_BATCH}={images}"
        );
        if !rest.is_empty() {
            text += &format!(" --allow {rest}");
        }
    }
    text
}

/// Notes in `state`, which was read from `path`, that the run goes on from there otherwise; and says so.
pub(super) fn turn(path: &Path, mut state: State, changes: Vec<Change>, terms: &Terms) -> State {
    let step = state.step;
    for change in &changes {
        tracing::info!("from step {step} on: {change}");
    }
    let before = state.epoch_len;
    state.lineage.push(Turn {
        step,
        checkpoint: std::fs::canonicalize(path)
            .unwrap_or_else(|_| path.to_owned())
            .to_string_lossy()
            .into_owned(),
        epoch_len: before,
        changes,
    });
    let changes = &state.lineage[state.lineage.len() - 1].changes;
    let may_differ = changes
        .iter()
        .any(|change| LENGTH.contains(&change.key.as_str()));
    if let Some(data) = terms.data
        && may_differ
        && data.epoch_len > 0
        && data.epoch_len != before
    {
        state.epoch_len = data.epoch_len;
        state.epoch = step / data.epoch_len;
        tracing::info!(
            "from step {step} on: epochs of {} steps now, {before} then; this step is in epoch {} of them",
            state.epoch_len,
            state.epoch + 1,
        );
    }
    state
}
